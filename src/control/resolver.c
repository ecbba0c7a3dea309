#include "control/resolver.h"

#include "base/clock.h"
#include "base/log.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { ANSWER_ADDRESSES_MAX = 512, EVENTS_MAX = 64 };

static struct {
    const char *path;
    int epoll_fd;
    ares_channel dns;
    ares_channel files; /* looks at /etc/hosts only, and is done when the call returns */
} resolver = {.epoll_fd = -1};

/* ---- sockets ---- */

static void socket_changed(void *context, ares_socket_t fd, int readable, int writable)
{
    struct epoll_event event = {.data.fd = fd,
                                .events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u)};

    (void)context;
    if (event.events == 0)
        (void)epoll_ctl(resolver.epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    else if (epoll_ctl(resolver.epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT)
        (void)epoll_ctl(resolver.epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int resolver_fd(void)
{
    return resolver.epoll_fd;
}

void resolver_run(void)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(resolver.epoll_fd, events, EVENTS_MAX, 0);

    for (int i = 0; i < count; i++) {
        ares_socket_t fd = events[i].data.fd;
        bool has_ended = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;

        ares_process_fd(resolver.dns,
                        has_ended || (events[i].events & EPOLLIN) != 0 ? fd : ARES_SOCKET_BAD,
                        (events[i].events & EPOLLOUT) != 0 ? fd : ARES_SOCKET_BAD);
    }
    /* Time-outs. */
    ares_process_fd(resolver.dns, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

uint64_t resolver_next_us(void)
{
    struct timeval wait;

    if (ares_timeout(resolver.dns, NULL, &wait) == NULL)
        return UINT64_MAX;
    return clock_now_us() + (uint64_t)wait.tv_sec * US_PER_S + (uint64_t)wait.tv_usec;
}

/* ---- addresses ---- */

static enum dns_result result_of(int status)
{
    return status == ARES_ENODATA || status == ARES_ENOTFOUND || status == ARES_EBADNAME
               ? DNS_NONE
               : DNS_UNKNOWN;
}

/* False: neither IPv4 nor IPv6. */
static bool take_address(const struct sockaddr *from, struct host_address *to)
{
    *to = (struct host_address){.family = (uint8_t)from->sa_family};
    if (from->sa_family == AF_INET) {
        memcpy(to->bytes, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
    } else if (from->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)from;

        memcpy(to->bytes, &v6->sin6_addr, 16);
        to->scope_id = v6->sin6_scope_id;
    } else {
        return false;
    }
    return true;
}

/* Those of one family. */
static void answer(struct dns_question *question, enum dns_family family,
                   const struct host_address *addresses, unsigned count, int status)
{
    struct host_address own[ANSWER_ADDRESSES_MAX];
    unsigned own_count = 0;

    for (unsigned i = 0; i < count; i++)
        if (addresses[i].family == (family == DNS_V4 ? AF_INET : AF_INET6))
            own[own_count++] = addresses[i];
    if (own_count > 0)
        dns_answer_addresses(question, family, DNS_FOUND, own, own_count, NULL, clock_now_us());
    else
        dns_answer_addresses(question, family, count > 0 ? DNS_NONE : result_of(status), NULL, 0,
                             ares_strerror(status == ARES_SUCCESS ? ARES_ENODATA : status),
                             clock_now_us());
}

static unsigned take_nodes(const struct ares_addrinfo *info,
                           struct host_address addresses[ANSWER_ADDRESSES_MAX])
{
    unsigned count = 0;

    for (const struct ares_addrinfo_node *node = info->nodes;
         node != NULL && count < ANSWER_ADDRESSES_MAX; node = node->ai_next)
        count += take_address(node->ai_addr, &addresses[count]);
    return count;
}

static void ask_family(struct dns_part *part);

static void family_answered(void *argument, int status, int timeouts, struct ares_addrinfo *info)
{
    struct dns_part *part = argument;
    struct host_address addresses[ANSWER_ADDRESSES_MAX];
    unsigned count = 0;

    (void)timeouts;
    if (status == ARES_EDESTRUCTION) { /* resolver_reload */
        ask_family(part);
        return;
    }
    if (info != NULL) {
        count = take_nodes(info, addresses);
        ares_freeaddrinfo(info);
    }
    answer(part->question, part->family, addresses, count, status);
}

static const struct ares_addrinfo_hints *hints_for(int family)
{
    static struct ares_addrinfo_hints hints;

    hints = (struct ares_addrinfo_hints){.ai_flags = ARES_AI_NOSORT | ARES_AI_ENVHOSTS,
                                         .ai_family = family,
                                         .ai_socktype = SOCK_STREAM};
    return &hints;
}

static void ask_family(struct dns_part *part)
{
    ares_getaddrinfo(resolver.dns, part->question->name, NULL,
                     hints_for(part->family == DNS_V4 ? AF_INET : AF_INET6), family_answered, part);
}

struct file_answer {
    bool is_found;
    struct ares_addrinfo *info;
};

static void file_answered(void *argument, int status, int timeouts, struct ares_addrinfo *info)
{
    struct file_answer *found = argument;

    (void)timeouts;
    found->is_found = status == ARES_SUCCESS;
    found->info = info;
}

/* Of the hosts file; 0: it is not there. */
static unsigned look_into_file(const char *name,
                               struct host_address addresses[ANSWER_ADDRESSES_MAX])
{
    struct file_answer found = {0};
    unsigned count = 0;

    ares_getaddrinfo(resolver.files, name, NULL, hints_for(AF_UNSPEC), file_answered, &found);
    if (found.info == NULL)
        return 0;
    if (found.is_found)
        count = take_nodes(found.info, addresses);
    ares_freeaddrinfo(found.info);
    return count;
}

/* An address with a zone index (fe80::1%eth0), which only the system can tell; it asks nobody. */
static unsigned look_at_literal(const char *name,
                                struct host_address addresses[ANSWER_ADDRESSES_MAX])
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    unsigned count;

    if (getaddrinfo(name, NULL, &hints, &list) != 0)
        return 0;
    count = take_address(list->ai_addr, &addresses[0]);
    freeaddrinfo(list);
    return count;
}

/* ---- serials ---- */

static void serial_answered(void *argument, int status, int timeouts, unsigned char *message,
                            int bytes);

static void ask_serial(struct dns_question *question)
{
    ares_query(resolver.dns, question->name, ns_c_in, ns_t_soa, serial_answered, question);
}

static void serial_answered(void *argument, int status, int timeouts, unsigned char *message,
                            int bytes)
{
    struct dns_question *question = argument;
    struct ares_soa_reply *soa = NULL;
    uint32_t serial = 0;

    (void)timeouts;
    if (status == ARES_EDESTRUCTION) {
        ask_serial(question);
        return;
    }
    if (status == ARES_SUCCESS && ares_parse_soa_reply(message, bytes, &soa) == ARES_SUCCESS)
        serial = soa->serial;
    dns_answer_serial(question, soa != NULL, serial, clock_now_us());
    if (soa != NULL)
        ares_free_data(soa);
}

void resolver_ask(void *context, struct dns_question *question)
{
    struct host_address addresses[ANSWER_ADDRESSES_MAX];
    bool is_literal = strchr(question->name, ':') != NULL;
    unsigned count;

    (void)context;
    if (question->is_for_serial) {
        ask_serial(question);
        return;
    }
    count = is_literal ? look_at_literal(question->name, addresses)
                       : look_into_file(question->name, addresses);
    if (count == 0 && !is_literal) {
        /* The second answer frees the question, and may come at once. */
        ask_family(&question->parts[DNS_V4]);
        ask_family(&question->parts[DNS_V6]);
        return;
    }
    answer(question, DNS_V4, addresses, count, ARES_ENOTFOUND);
    answer(question, DNS_V6, addresses, count, ARES_ENOTFOUND);
}

/* ---- life ---- */

static bool has_port(const char *server)
{
    const char *colon = strchr(server, ':');

    return strstr(server, "]:") != NULL || (colon != NULL && strchr(colon + 1, ':') == NULL);
}

/* c-ares reads ports in `nameserver` lines from 1.20 on only; before that it drops such lines. */
static void set_ports(ares_channel channel)
{
    FILE *file = fopen(resolver.path != NULL ? resolver.path : "/etc/resolv.conf", "re");
    char line[256], server[128], list[1024] = "";
    bool is_needed = false;
    size_t used = 0;

    if (file == NULL)
        return;
    while (fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, " nameserver %127s", server) == 1 &&
            used + strlen(server) + 2 < sizeof(list)) {
            is_needed = is_needed || has_port(server);
            used +=
                (size_t)snprintf(list + used, sizeof(list) - used, used > 0 ? ",%s" : "%s", server);
        }
    fclose(file);
    if (is_needed && ares_set_servers_ports_csv(channel, list) != ARES_SUCCESS)
        log_write(LEVEL_WARNING, "cannot use the name servers %s", list);
}

static bool make_channel(ares_channel *channel, const char *lookups)
{
    struct ares_options options = {.lookups = (char *)lookups,
                                   .sock_state_cb = socket_changed,
                                   .resolvconf_path = (char *)resolver.path};
    int mask = ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    int status;

    if (resolver.path != NULL)
        mask |= ARES_OPT_RESOLVCONF;
    status = ares_init_options(channel, &options, mask);
    if (status != ARES_SUCCESS) {
        log_write(LEVEL_ERROR, "cannot set up name lookups: %s", ares_strerror(status));
        return false;
    }
    set_ports(*channel);
    return true;
}

static void check_path(void)
{
    if (resolver.path != NULL && access(resolver.path, R_OK) < 0)
        log_write(LEVEL_WARNING, "cannot read resolv_conf '%s': %s; the name server is 127.0.0.1",
                  resolver.path, strerror(errno));
}

bool resolver_start(const char *path)
{
    int status = ares_library_init(ARES_LIB_INIT_ALL);

    if (path != NULL && path[0] != '\0')
        resolver.path = strdup(path);
    check_path();
    resolver.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (status != ARES_SUCCESS || resolver.epoll_fd < 0) {
        log_write(LEVEL_FATAL, "cannot set up name lookups");
        return false;
    }
    return make_channel(&resolver.files, "f") && make_channel(&resolver.dns, "b");
}

void resolver_reload(void)
{
    ares_channel before = resolver.dns;
    ares_channel next;

    check_path();
    if (!make_channel(&next, "b"))
        return;
    resolver.dns = next;
    ares_destroy(before); /* whose questions come back with ARES_EDESTRUCTION */
}

const char *resolver_version(void)
{
    static char text[32];

    snprintf(text, sizeof(text), "c-ares %s", ares_version(NULL));
    return text;
}
