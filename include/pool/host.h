/* host.h - where the next server connection goes: whose turn it is in an entry's list of hosts, and
 * the addresses of a name.
 *
 * A host is a literal address, the directory of a unix socket (`/dir`, `@abstract`) or a name; an
 * entry has one of them or a list with commas. The turn in the list is the whole pool's (it lies in
 * the shard set): round-robin takes it with each connection, load_balance_hosts = disable leaves it
 * where it is until a connect or login has failed. After a failure the hosts are tried one after the
 * other, each address of each, before the pool has failed.
 *
 * Names are looked up by control (control/dns.h), when a connection is to be opened. Each core keeps
 * the answers that it got for as long as they hold, takes their addresses in turn, and lets servers
 * go whose address a later answer lacks: only where the entry's host is exactly that name, as
 * PgBouncer does. Control tells all cores of such a change (COMMAND_HOST), those that have not asked
 * too. One thread: the core's. */
#ifndef POOL_HOST_H
#define POOL_HOST_H

#include "base/list.h"
#include "io/mailbox.h"

#include <sys/socket.h>

struct core;
struct pool;

enum {
    HOST_NAME_BYTES_MAX = 256, /* DNS has 253 and the closing zero */
    HOST_ADDRESSES_MAX = 32,   /* of a name; those of higher numbers are not used */
    HOST_ERROR_BYTES_MAX = 96, /* of a lookup that failed */
    HOST_NAMES_MAX = 4096,     /* that a core knows at a time */
    HOST_NAME_BUCKETS = 1024,
};

/* An address without its port. */
struct host_address {
    uint8_t family; /* AF_INET, AF_INET6 */
    uint8_t bytes[16];
    uint32_t scope_id;
};

struct host_answer {
    uint64_t number;        /* a later answer of control has a higher one; 0: it is none */
    unsigned address_count; /* 0: the lookup failed, `error` says why */
    uint64_t until_us;      /* how long it holds */
    struct host_address addresses[HOST_ADDRESSES_MAX];
    char error[HOST_ERROR_BYTES_MAX];
};

/* A core's question, and control's answer. It is control's until it comes back. */
struct resolution {
    struct letter
        letter; /* opened by core_ports.resolver_open there, by resolution_returned here */
    unsigned core_index;
    char name[HOST_NAME_BYTES_MAX];
    struct host_answer answer;
    struct resolution *next; /* control's */
};

/* What control tells all cores: these are the addresses of a name from now on. */
struct host_news {
    char name[HOST_NAME_BYTES_MAX];
    struct host_answer answer;
};

/* Who waits for the addresses of a name. */
struct host_waiter {
    struct list link; /* of one name's waiters, or of none */
    void (*known)(
        struct host_waiter *waiter); /* the answer is there, and holds in this turn at least */
};

/* What a core knows of a name. */
struct host_name {
    struct host_name *bucket_next;
    struct resolution resolution;
    struct list waiters;
    bool in_flight, has_failed;
    uint64_t until_us; /* of the last answer */
    uint64_t used_us;
    uint64_t number; /* of the last lookup that found some */
    unsigned turn;   /* of its addresses */
    unsigned address_count;
    struct host_address addresses[HOST_ADDRESSES_MAX]; /* of the last lookup that found some */
};

/* HOST_ASKED: `waiter` is called when the answer is there, and should look again. */
enum host_state { HOST_KNOWN, HOST_ASKED, HOST_UNKNOWN };
enum host_state host_look_up(struct core *core, const char *name, struct host_waiter *waiter,
                             const struct host_name **found);
/* With a port. */
void host_socket_address(const struct host_address *from, uint16_t port,
                         struct sockaddr_storage *to);

/* True: host_take may be called, in this turn of the core. False: a name has to be looked up first,
 * and the pool is launched again when the answer is there; or the pool has failed, and knows it. */
must_check bool host_prepare(struct pool *pool);
/* Before host_prepare, for a client that has a server of its own: attempt `tries` (from 0) of the
 * host_attempts that try each address of each host, wherever it begins. */
void host_choose_for(struct pool *pool, uint64_t begin, unsigned tries);
/* That attempt needs no lookup first. */
must_check bool host_is_known_for(const struct pool *pool, uint64_t begin, unsigned tries);
/* The address that the next connection goes to. Returns the turn, for host_failed. */
unsigned host_take(struct pool *pool, struct sockaddr_storage *address);
/* The host of that turn, as the entry has it: what a certificate must be for. */
void host_of_server(const struct pool *pool, unsigned turn, char host[HOST_NAME_BYTES_MAX]);
/* A connection that had `turn` did not come to be. */
void host_failed(struct pool *pool, unsigned turn);
/* So many attempts try each address of each host. */
unsigned host_attempts(const struct pool *pool);
/* Until then no host of the pool has an address; 0: one has, or may have. */
uint64_t host_unknown_until_us(const struct pool *pool);
/* False: the address is not one of those that the pool's host name has now. */
must_check bool host_is_current(const struct pool *pool, const struct sockaddr_storage *address);

/* The number of the answer that this core has for the pool's host name; 0: it has none. */
uint64_t host_answer_number(const struct pool *pool);

/* RELOAD: control is asked again before the next connection. */
void host_forget_answers(struct core *core);
void host_changed(struct core *core, const struct host_news *news);
/* The answer of control. The context is the core. */
void resolution_returned(struct letter *letter, void *core);

#endif
