/* dns.h - what the process knows of host names: answers, kept for dns_max_ttl or, failures,
 * dns_nxdomain_ttl; the serials of their zones.
 *
 * Cores ask by letter (struct resolution). All who ask for a name share one question, and whoever asks
 * while its answer holds gets that one. The record's own time to live does not count, as with
 * PgBouncer. A question that has no answer within server_connect_timeout has failed. The two families
 * of addresses are asked for apart: when one has been found, the other one has DNS_PATIENCE_US more,
 * and a family that gives no clear answer (silence, SERVFAIL) keeps the addresses that it had.
 *
 * When an answer lacks an address of the one before, `changed` is called before anybody gets the new
 * one. A failure changes nothing: servers live on while the name service is away.
 *
 * With dns_zone_check_period each zone (what follows a name's first dot) is asked for its SOA serial
 * that often; when that has changed, all hosts of the zone are looked up again.
 *
 * No clock, no socket, no DNS message in here: time is an argument, questions go out through a port
 * (resolver.h, or a simulation). Control's thread. Bounded: DNS_HOSTS_MAX names, of which the one that
 * nobody has asked for longest makes room, and DNS_QUESTIONS_MAX questions. */
#ifndef CONTROL_DNS_H
#define CONTROL_DNS_H

#include "config/settings.h"
#include "io/timer.h"
#include "pool/host.h"

enum {
    DNS_HOSTS_MAX = 4096,
    DNS_QUESTIONS_MAX = 4 * DNS_HOSTS_MAX, /* those that nobody waits for any more included */
    DNS_PATIENCE_US = 1000 * 1000,
    DNS_BUCKETS = 1024,
};

enum dns_family { DNS_V4, DNS_V6, DNS_FAMILIES };

/* DNS_NONE: there is certainly none. DNS_UNKNOWN: nobody could say. */
enum dns_result { DNS_FOUND, DNS_NONE, DNS_UNKNOWN };

/* Goes to whoever can ask name servers, and is his until all answers have been given: two families of
 * addresses, or one serial. */
struct dns_question {
    struct dns *dns;
    struct dns_host *host; /* asked for addresses; NULL: nobody waits any more */
    struct dns_zone *zone; /* asked for its serial; the same */
    bool is_for_serial;
    unsigned open_count;
    char name[HOST_NAME_BYTES_MAX];
    struct dns_part { /* his own */
        struct dns_question *question;
        enum dns_family family;
    } parts[DNS_FAMILIES];
};

struct dns_ports {
    /* Answers may come before it returns. */
    void (*ask)(void *context, struct dns_question *question);
    /* Back to its core. */
    void (*reply)(void *context, struct resolution *resolution);
    /* An address is gone; before the replies. */
    void (*changed)(void *context, const char *name, const struct host_answer *answer);
};

struct dns_addresses {
    unsigned count;
    struct host_address list[HOST_ADDRESSES_MAX]; /* in order, none twice */
};

struct dns_host {
    struct list link;      /* dns.hosts */
    struct list zone_link; /* dns_zone.hosts */
    struct dns_host *bucket_next;
    struct dns_zone *zone;
    struct dns *dns;
    struct timer timer;            /* how long the question may take */
    struct dns_question *question; /* NULL: none is open */
    struct resolution *waiting;    /* last come, first */
    bool is_known;                 /* `answer` is of answered_us; else there is none */
    bool has_failed;               /* that one found nothing; the addresses are of an older one */
    bool is_doubted;               /* the zone has changed while the question was open */
    uint64_t answered_us, used_us;
    struct host_answer answer;
    struct dns_addresses families[DNS_FAMILIES];
    /* Of the question. */
    bool has_come[DNS_FAMILIES];
    enum dns_result results[DNS_FAMILIES];
    struct dns_addresses found[DNS_FAMILIES];
    char name[HOST_NAME_BYTES_MAX];
};

struct dns_zone {
    struct list link; /* dns.zones */
    struct list hosts;
    unsigned host_count;
    struct dns *dns;
    struct timer timer; /* dns_zone_check_period */
    struct dns_question *question;
    bool has_serial;
    uint32_t serial;
    char name[HOST_NAME_BYTES_MAX];
};

/* Others may read the lists and the counts. */
struct dns {
    struct list hosts, zones;
    unsigned host_count, zone_count, question_count;
    /* below: dns.c only */
    const struct dns_ports *ports;
    void *context;
    struct timers timers;
    uint64_t now_us;
    uint64_t max_ttl_us, nxdomain_ttl_us, zone_check_period_us, timeout_us;
    uint64_t answer_count; /* numbers them */
    struct dns_host *buckets[DNS_BUCKETS];
};

void dns_init(struct dns *dns, const struct dns_ports *ports, void *context,
              const struct settings *settings, uint64_t now_us);
/* No question may be open, nobody waiting. */
void dns_release(struct dns *dns);
/* RELOAD: other times to live hold for what is known already; failures are forgotten. */
void dns_configure(struct dns *dns, const struct settings *settings, uint64_t now_us);

/* A core's question: replied to at once, or when the answer is there. */
void dns_resolve(struct dns *dns, struct resolution *resolution, uint64_t now_us);

/* The answers, each exactly once; the last one frees the question. `error`, of what is not found, is
 * for people. */
void dns_answer_addresses(struct dns_question *question, enum dns_family family,
                          enum dns_result result, const struct host_address *addresses,
                          unsigned count, const char *error, uint64_t now_us);
void dns_answer_serial(struct dns_question *question, bool is_known, uint32_t serial,
                       uint64_t now_us);

void dns_run(struct dns *dns, uint64_t now_us);
/* When dns_run is due; UINT64_MAX: no need. */
uint64_t dns_next_us(const struct dns *dns);

/* Until when the host's answer holds. */
uint64_t dns_host_until_us(const struct dns_host *host);

#endif
