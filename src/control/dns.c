#include "control/dns.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void host_timer_fired(struct timer *timer, uint64_t now_us);
static void zone_timer_fired(struct timer *timer, uint64_t now_us);
static void ask_host(struct dns_host *host);

/* ---- questions ---- */

/* NULL: there are too many. */
static struct dns_question *question_make(struct dns *dns, const char *name)
{
    struct dns_question *question =
        dns->question_count < DNS_QUESTIONS_MAX ? calloc(1, sizeof(*question)) : NULL;

    if (question == NULL)
        return NULL;
    dns->question_count++;
    question->dns = dns;
    snprintf(question->name, sizeof(question->name), "%s", name);
    for (enum dns_family family = 0; family < DNS_FAMILIES; family++)
        question->parts[family] = (struct dns_part){question, family};
    return question;
}

static void question_answered(struct dns_question *question)
{
    assert(question->open_count > 0);
    if (--question->open_count > 0)
        return;
    assert(question->dns->question_count > 0);
    question->dns->question_count--;
    if (question->host != NULL)
        question->host->question = NULL;
    if (question->zone != NULL)
        question->zone->question = NULL;
    free(question);
}

/* Answers that are still to come are nobody's. */
static void question_abandon(struct dns_question *question)
{
    if (question == NULL)
        return;
    if (question->host != NULL)
        question->host->question = NULL;
    if (question->zone != NULL)
        question->zone->question = NULL;
    question->host = NULL;
    question->zone = NULL;
}

/* ---- zones ---- */

static void zone_check(struct dns_zone *zone)
{
    struct dns *dns = zone->dns;
    struct dns_question *question;

    timer_set(&dns->timers, &zone->timer, dns->now_us + dns->zone_check_period_us);
    if (zone->question != NULL)
        return;
    question = question_make(dns, zone->name);
    if (question == NULL)
        return;
    question->zone = zone;
    question->is_for_serial = true;
    question->open_count = 1;
    zone->question = question;
    dns->ports->ask(dns->context, question);
}

static void zone_timer_fired(struct timer *timer, uint64_t now_us)
{
    (void)now_us;
    zone_check(OWNER_OF(timer, struct dns_zone, timer));
}

static void zone_leave(struct dns_host *host)
{
    struct dns_zone *zone = host->zone;

    if (zone == NULL)
        return;
    host->zone = NULL;
    list_remove(&host->zone_link);
    if (--zone->host_count > 0)
        return;
    question_abandon(zone->question);
    timer_stop(&zone->timer);
    list_remove(&zone->link);
    zone->dns->zone_count--;
    free(zone);
}

/* The first serial is asked for at once: what changes until then is not missed. */
static void zone_join(struct dns_host *host)
{
    struct dns *dns = host->dns;
    const char *dot = strchr(host->name, '.');
    struct dns_zone *zone = NULL;

    if (host->zone != NULL || dot == NULL || dot[1] == '\0')
        return;
    list_for_each(link, &dns->zones)
    {
        struct dns_zone *other = OWNER_OF(link, struct dns_zone, link);

        if (strcmp(other->name, dot + 1) == 0)
            zone = other;
    }
    if (zone == NULL) {
        zone = calloc(1, sizeof(*zone));
        if (zone == NULL)
            return;
        zone->dns = dns;
        snprintf(zone->name, sizeof(zone->name), "%s", dot + 1);
        list_init(&zone->link);
        list_init(&zone->hosts);
        timer_init(&zone->timer, zone_timer_fired);
        list_push_back(&dns->zones, &zone->link);
        dns->zone_count++;
    }
    host->zone = zone;
    zone->host_count++;
    list_push_back(&zone->hosts, &host->zone_link);
    if (zone->host_count == 1)
        zone_check(zone);
}

void dns_answer_serial(struct dns_question *question, bool is_known, uint32_t serial,
                       uint64_t now_us)
{
    struct dns *dns = question->dns;
    struct dns_zone *zone = question->zone;
    bool has_changed;

    dns->now_us = now_us;
    question_answered(question);
    if (zone == NULL || !is_known)
        return;
    has_changed = zone->has_serial && zone->serial != serial;
    if (has_changed)
        log_write(LEVEL_LOG, "zone %s: serial changed from %u to %u, looking up %u hosts again",
                  zone->name, zone->serial, serial, zone->host_count);
    zone->has_serial = true;
    zone->serial = serial;
    if (!has_changed)
        return;
    list_for_each(link, &zone->hosts)
    {
        struct dns_host *host = OWNER_OF(link, struct dns_host, zone_link);

        if (host->question != NULL)
            host->is_doubted = true;
        else
            ask_host(host);
    }
}

/* ---- hosts ---- */

static struct dns_host **bucket_of(struct dns *dns, const char *name)
{
    uint32_t hash = 2166136261u;

    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return &dns->buckets[(hash ^ hash >> 15) % DNS_BUCKETS];
}

static struct dns_host *host_find(struct dns *dns, const char *name)
{
    struct dns_host *host = *bucket_of(dns, name);

    while (host != NULL && strcmp(host->name, name) != 0)
        host = host->bucket_next;
    return host;
}

static void host_forget(struct dns_host *host)
{
    struct dns *dns = host->dns;
    struct dns_host **at = bucket_of(dns, host->name);

    assert(host->waiting == NULL);
    question_abandon(host->question);
    timer_stop(&host->timer);
    zone_leave(host);
    while (*at != host)
        at = &(*at)->bucket_next;
    *at = host->bucket_next;
    list_remove(&host->link);
    dns->host_count--;
    free(host);
}

/* False: somebody waits for each of them. */
static bool forget_oldest(struct dns *dns)
{
    struct dns_host *oldest = NULL;

    list_for_each(link, &dns->hosts)
    {
        struct dns_host *host = OWNER_OF(link, struct dns_host, link);

        if (host->waiting == NULL && (oldest == NULL || host->used_us < oldest->used_us))
            oldest = host;
    }
    if (oldest != NULL)
        host_forget(oldest);
    return oldest != NULL;
}

static struct dns_host *host_make(struct dns *dns, const char *name)
{
    struct dns_host **bucket = bucket_of(dns, name);
    struct dns_host *host;

    if (dns->host_count == DNS_HOSTS_MAX && !forget_oldest(dns))
        return NULL;
    host = calloc(1, sizeof(*host));
    if (host == NULL)
        return NULL;
    host->dns = dns;
    snprintf(host->name, sizeof(host->name), "%s", name);
    list_init(&host->link);
    list_init(&host->zone_link);
    timer_init(&host->timer, host_timer_fired);
    list_push_back(&dns->hosts, &host->link);
    dns->host_count++;
    host->bucket_next = *bucket;
    *bucket = host;
    return host;
}

uint64_t dns_host_until_us(const struct dns_host *host)
{
    if (!host->is_known)
        return 0;
    return host->answered_us +
           (host->has_failed ? host->dns->nxdomain_ttl_us : host->dns->max_ttl_us);
}

static void reply(struct dns_host *host, struct resolution *resolution)
{
    resolution->answer = host->answer;
    if (host->has_failed)
        resolution->answer.address_count = 0;
    resolution->answer.until_us = dns_host_until_us(host);
    host->dns->ports->reply(host->dns->context, resolution);
}

static void refuse(struct dns *dns, struct resolution *resolution, const char *why)
{
    log_write(LEVEL_WARNING, "host name lookup of %s failed: %s", resolution->name, why);
    resolution->answer = (struct host_answer){0};
    snprintf(resolution->answer.error, sizeof(resolution->answer.error), "%s", why);
    dns->ports->reply(dns->context, resolution);
}

static void reply_all(struct dns_host *host)
{
    while (host->waiting != NULL) {
        struct resolution *resolution = host->waiting;

        host->waiting = resolution->next;
        reply(host, resolution);
    }
}

/* ---- answers ---- */

static int compare_addresses(const void *one, const void *other)
{
    return memcmp(one, other, sizeof(struct host_address));
}

/* In order, so that the same ones are used when there are more than we keep. */
static void keep_addresses(struct dns_addresses *to, struct host_address *addresses, unsigned count)
{
    to->count = 0;
    qsort(addresses, count, sizeof(addresses[0]), compare_addresses);
    for (unsigned i = 0; i < count && to->count < HOST_ADDRESSES_MAX; i++)
        if (i == 0 || compare_addresses(&addresses[i - 1], &addresses[i]) != 0)
            to->list[to->count++] = addresses[i];
}

static bool has_address(const struct host_answer *answer, const struct host_address *address)
{
    for (unsigned i = 0; i < answer->address_count; i++)
        if (compare_addresses(&answer->addresses[i], address) == 0)
            return true;
    return false;
}

/* Both families in one answer. True: an address of the answer before is not in it. */
static bool join_families(struct dns_host *host)
{
    struct host_answer before = host->answer;
    struct host_answer *answer = &host->answer;

    answer->address_count = 0;
    for (enum dns_family family = 0; family < DNS_FAMILIES; family++)
        for (unsigned i = 0; i < host->families[family].count; i++)
            if (answer->address_count < HOST_ADDRESSES_MAX)
                answer->addresses[answer->address_count++] = host->families[family].list[i];
    for (unsigned i = 0; i < before.address_count; i++)
        if (!has_address(answer, &before.addresses[i]))
            return true;
    return false;
}

/* Of several reasons the one that was said last. */
static void host_not_found(struct dns_host *host)
{
    log_write(LEVEL_WARNING, "host name lookup of %s failed: %s", host->name, host->answer.error);
    host->is_known = host->has_failed = true;
    host->answered_us = host->dns->now_us;
}

static void host_was_found(struct dns_host *host)
{
    struct dns *dns = host->dns;

    for (enum dns_family family = 0; family < DNS_FAMILIES; family++)
        if (host->has_come[family] && host->results[family] != DNS_UNKNOWN)
            host->families[family] = host->found[family];
    host->is_known = true;
    host->has_failed = false;
    host->answered_us = dns->now_us;
    host->answer.number = ++dns->answer_count;
    if (!join_families(host))
        return;
    host->answer.until_us = dns_host_until_us(host);
    log_write(LEVEL_LOG,
              "host %s: addresses have changed, servers of those that are gone will be "
              "closed",
              host->name);
    dns->ports->changed(dns->context, host->name, &host->answer);
}

/* All has come that will. */
static void host_finish(struct dns_host *host)
{
    bool is_found = false;
    bool is_valid =
        host->is_known && !host->has_failed && dns_host_until_us(host) > host->dns->now_us;

    question_abandon(host->question);
    timer_stop(&host->timer);
    for (enum dns_family family = 0; family < DNS_FAMILIES; family++)
        is_found = is_found || (host->has_come[family] && host->found[family].count > 0);
    if (is_found)
        host_was_found(host);
    else if (!is_valid || host->waiting != NULL) /* else it was only a look, for the zone */
        host_not_found(host);
    reply_all(host);
    if (host->is_doubted) {
        host->is_doubted = false;
        ask_host(host);
    }
}

void dns_answer_addresses(struct dns_question *question, enum dns_family family,
                          enum dns_result result, const struct host_address *addresses,
                          unsigned count, const char *error, uint64_t now_us)
{
    struct dns *dns = question->dns;
    struct dns_host *host = question->host;
    bool is_last = question->open_count == 1;
    struct host_address *sorted;

    dns->now_us = now_us;
    if (host == NULL) {
        question_answered(question);
        return;
    }
    assert(!host->has_come[family]);
    host->has_come[family] = true;
    host->results[family] = result;
    host->found[family].count = 0;
    if (result == DNS_FOUND) {
        assert(count > 0);
        sorted = malloc(count * sizeof(*sorted));
        assert(sorted != NULL);
        memcpy(sorted, addresses, count * sizeof(*sorted));
        keep_addresses(&host->found[family], sorted, count);
        free(sorted);
        if (!is_last)
            timer_set(&dns->timers, &host->timer,
                      timer_is_set(&host->timer)
                          ? MIN(host->timer.deadline_us, now_us + DNS_PATIENCE_US)
                          : now_us + DNS_PATIENCE_US);
    } else {
        snprintf(host->answer.error, sizeof(host->answer.error), "%s", error);
    }
    question_answered(question);
    if (is_last)
        host_finish(host);
}

static void host_timer_fired(struct timer *timer, uint64_t now_us)
{
    struct dns_host *host = OWNER_OF(timer, struct dns_host, timer);

    (void)now_us;
    snprintf(host->answer.error, sizeof(host->answer.error), "no answer in time");
    host_finish(host);
}

static void ask_host(struct dns_host *host)
{
    struct dns *dns = host->dns;
    struct dns_question *question = question_make(dns, host->name);

    assert(host->question == NULL);
    memset(host->has_come, 0, sizeof(host->has_come));
    if (question == NULL) {
        snprintf(host->answer.error, sizeof(host->answer.error), "too many lookups are waiting");
        host_finish(host);
        return;
    }
    question->host = host;
    question->open_count = DNS_FAMILIES;
    host->question = question;
    if (dns->timeout_us > 0)
        timer_set(&dns->timers, &host->timer, dns->now_us + dns->timeout_us);
    dns->ports->ask(dns->context, question);
}

/* ---- from outside ---- */

void dns_resolve(struct dns *dns, struct resolution *resolution, uint64_t now_us)
{
    struct dns_host *host = host_find(dns, resolution->name);
    bool is_new = host == NULL;

    dns->now_us = now_us;
    if (is_new)
        host = host_make(dns, resolution->name);
    if (host == NULL) {
        refuse(dns, resolution, "too many lookups are waiting");
        return;
    }
    host->used_us = now_us;
    if (host->is_known && dns_host_until_us(host) > now_us) {
        reply(host, resolution);
        return;
    }
    resolution->next = host->waiting;
    host->waiting = resolution;
    if (host->question == NULL)
        ask_host(host);
    if (is_new && dns->zone_check_period_us > 0)
        zone_join(host);
}

void dns_configure(struct dns *dns, const struct settings *settings, uint64_t now_us)
{
    bool has_other_period = dns->zone_check_period_us != settings->dns_zone_check_period_us;

    dns->now_us = now_us;
    dns->max_ttl_us = settings->dns_max_ttl_us;
    dns->nxdomain_ttl_us = settings->dns_nxdomain_ttl_us;
    dns->zone_check_period_us = settings->dns_zone_check_period_us;
    dns->timeout_us = settings->server_connect_timeout_us;
    list_for_each(link, &dns->hosts)
    {
        struct dns_host *host = OWNER_OF(link, struct dns_host, link);

        if (host->has_failed)
            host->is_known = host->has_failed = false;
        if (!has_other_period)
            continue;
        if (dns->zone_check_period_us > 0)
            zone_join(host);
        else
            zone_leave(host);
    }
    if (has_other_period)
        list_for_each(link, &dns->zones)
        {
            struct dns_zone *zone = OWNER_OF(link, struct dns_zone, link);

            timer_set(&dns->timers, &zone->timer, now_us + dns->zone_check_period_us);
        }
}

void dns_run(struct dns *dns, uint64_t now_us)
{
    dns->now_us = now_us;
    timers_run(&dns->timers, now_us);
}

uint64_t dns_next_us(const struct dns *dns)
{
    return timers_next_us(&dns->timers);
}

void dns_init(struct dns *dns, const struct dns_ports *ports, void *context,
              const struct settings *settings, uint64_t now_us)
{
    memset(dns, 0, sizeof(*dns));
    dns->ports = ports;
    dns->context = context;
    list_init(&dns->hosts);
    list_init(&dns->zones);
    timers_init(&dns->timers, now_us);
    dns_configure(dns, settings, now_us);
}

void dns_release(struct dns *dns)
{
    while (!list_is_empty(&dns->hosts))
        host_forget(OWNER_OF(list_front(&dns->hosts), struct dns_host, link));
    assert(dns->question_count == 0);
}
