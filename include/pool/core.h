/* core.h - what the clients, servers and pools of one core share: their I/O, timers, memory,
 * configuration.
 *
 * One for each worker, one thread. The state machines above it (client, server, pool, login,
 * cancel) know neither clock nor kernel: time is `loop.now_us`, set by the owner once a turn; the
 * kernel is the ring behind `loop`; what other threads do for them goes through `ports`. So the
 * simulator can own all of it.
 *
 * A turn, by whoever owns the core:  loop.now_us = now; ring_turn; mailbox_open_all(.., core);
 * timers_run; core_end_turn. */
#ifndef POOL_CORE_H
#define POOL_CORE_H

#include "config/snapshot.h"
#include "conn/conn.h"
#include "io/mailbox.h"
#include "io/timer.h"
#include "pool/host.h"
#include "pool/params.h"
#include "pool/shard.h"
#include "pool/statement.h"
#include "pool/usage.h"

struct client;
struct server;
struct pool;
struct core;

/* What a job needs, and so which threads take it: JOB_HASH, JOB_TLS_ACCEPT and JOB_TLS_CONNECT (a step of a
 * handshake with a client, with a server) burn CPU;
 * the others wait for somebody outside, for long perhaps: JOB_OS_USER (of a struct login) for NSS, JOB_PAM and JOB_LDAP as
 * password_check.h says. */
enum job_kind { JOB_HASH, JOB_TLS_ACCEPT, JOB_TLS_CONNECT, JOB_OS_USER, JOB_PAM, JOB_LDAP };

/* Work that blocks or burns CPU: a helper thread calls `run`, then `letter` is posted to core
 * `core_index`, whose `open` looks at the result. Belongs to the helper in between: its owner must
 * outlive it. A job that was cancelled comes back too, since only its letter says that its memory
 * is free; whether it ran before the helper saw the flag, `was_run` tells. */
struct job {
    struct letter letter;         /* back to the core, and on the way there */
    void (*run)(struct job *job); /* of those that burn CPU; of other kinds the helpers know it */
    enum job_kind kind;
    unsigned core_index;
    atomic_bool is_cancelled; /* the owner's, at any moment: nobody wants the result (any more) */
    bool was_run;             /* the helper's */
    uint64_t posted_us;       /* the helpers' too */
};

static inline void job_set_cancelled(struct job *job, bool is_cancelled)
{
    atomic_store_explicit(&job->is_cancelled, is_cancelled, memory_order_relaxed);
}

/* What a core asks of the world above it. */
struct core_ports {
    void (*post_core)(struct core *core, unsigned core_index, struct letter *letter);
    void (*post_control)(struct core *core, struct letter *letter);
    /* False: too many jobs wait; this one was not taken, and no letter will come. */
    bool (*post_job)(struct core *core, struct job *job) must_check;
    void (*random)(struct core *core, void *out, size_t bytes);
    /* SUSPEND: new connections wait in the kernel, or are accepted again. NULL: there are none. */
    void (*hold_accepts)(struct core *core, bool hold);
    /* Whom control's letters are opened by: a struct resolution to be answered with
     * resolution_returned, a struct handover of a console session. */
    letter_open *resolver_open;
    letter_open *console_open;
};

enum shutdown_mode {
    SHUTDOWN_NONE,
    SHUTDOWN_WAIT_FOR_CLIENTS,
    SHUTDOWN_WAIT_FOR_SERVERS,
    /* Another process accepts now (-R). As WAIT_FOR_CLIENTS, but who was accepted before may log in:
     * a client must not notice which of the two it has met. */
    SHUTDOWN_TAKEOVER,
};

enum { POOL_BUCKETS = 1024, KEY_BUCKETS = 16384, DATABASE_FLAGS_MAX = 256 };

/* A core that may not open a server asks the others, one after the other, to close an idle one that
 * counts in the same limit. */
struct eviction {
    struct letter letter;
    const struct usage *usage;
    const struct shard_set *set; /* whose waiter asks: its own idle servers are lent instead */
    bool of_set;                 /* but for replication, which has no use for them */
    unsigned from_core;
    bool in_flight, has_evicted;
};

struct core_options {
    unsigned index, count;     /* this core, and how many there are */
    uint32_t client_count_max; /* also servers and cancels: what the descriptor limit allows */
    struct ring *ring;
    struct buffer_pool *buffers;
    struct usage_table *usage;
    struct shard_table *shards;
    const struct param_names *param_names;
    const uint8_t *mock_key;   /* 32 random bytes of this process: salts of unknown users, names of
                                  statements */
    const char *host_name;     /* of this machine, for application_name_add_host */
    bool has_other_keys;       /* clients of the process before us have keys, too */
    struct snapshot *snapshot; /* one reference is the core's from now on */
    const struct core_ports *ports;
    void *ports_context;
    uint64_t now_us;
};

struct core {
    struct conn_loop loop;
    struct timers timers;
    struct param_table params;
    struct snapshot *snapshot;
    struct usage_table *usage;
    struct shard_table *shards;
    const struct core_ports *ports;
    void *ports_context;
    const uint8_t *mock_key;
    const char *host_name;
    unsigned index, count;

    struct slab clients, logins, auth_queries, servers, server_logins, pools, cancels, names, peers,
        scram_cache, tls_handshakes, shared, statement_times;
    struct statement_store statements;
    struct list pool_list;         /* all pools of this core */
    struct list login_list;        /* clients that have no pool yet, cancel requests too */
    struct list cancel_list;       /* cancel requests on their way */
    struct list peer_list;         /* peers that requests were sent on to, ever */
    struct list auth_queries_over; /* their answers go home at the end of the turn */
    struct list scram_entries;     /* keys made from plain passwords; see login.c */
    struct pool *pool_buckets[POOL_BUCKETS];
    struct host_name *name_buckets[HOST_NAME_BUCKETS]; /* host.c only */
    uint32_t
        key_buckets[KEY_BUCKETS]; /* cancel key -> client's slab index + 1, chained in client */

    /* peer_id has changed, or may have, in an online restart: clients may have keys that do not name this process, but are its. So what
     * names another one is looked for here first. */
    bool has_other_keys;
    uint64_t id_last;
    unsigned queued_count; /* exchanges on shared servers, of all pools */
    unsigned sharing_server_count;
    /* RECONNECTs, KILLs and changes of the servers' TLS so far: all cores see the same ones in the same order, so the number means
     * the same on all of them. */
    uint64_t generation;
    bool is_paused; /* PAUSE of everything */
    enum shutdown_mode shutdown;
    struct eviction eviction;
    /* PAUSE db, DISABLE db: kept by name, since pools come and go. */
    struct database_flags {
        char name[DATABASE_NAME_BYTES_MAX];
        bool is_paused, is_disabled;
    } database_flags[DATABASE_FLAGS_MAX];
    unsigned database_flags_count;
};

/* The error for a login that post_job refused. */
#define JOB_REFUSED_TEXT "too many logins are waiting for a helper"
#define JOB_REFUSED_SQLSTATE "53000" /* insufficient_resources */

must_check bool core_init(struct core *core, const struct core_options *options);
/* Transparent huge pages for the tables that grow with clients and servers. */
void core_use_huge_pages(struct core *core);
/* All connections must be gone. */
void core_release(struct core *core);

/* The turn's end: sends what was queued, ends what is closed. */
void core_end_turn(struct core *core);
/* When the next turn is due though nothing happens; UINT64_MAX: never. */
uint64_t core_next_us(const struct core *core);

/* Nobody is let in any more. */
static inline bool core_refuses_logins(const struct core *core)
{
    return core->shutdown == SHUTDOWN_WAIT_FOR_CLIENTS ||
           core->shutdown == SHUTDOWN_WAIT_FOR_SERVERS;
}

/* Takes over one reference of `snapshot`: pools that are gone lose their clients, moved ones retire
 * their servers, the rest get their new limits. */
void core_set_snapshot(struct core *core, struct snapshot *snapshot);

/* PAUSE, RESUME, RECONNECT, KILL ... of one database, or of all when `database` is NULL. */
void core_pause(struct core *core, const char *database);
void core_resume(struct core *core, const char *database);
void core_reconnect(struct core *core, const char *database);
void core_kill(struct core *core, const char *database);
void core_shutdown(struct core *core, enum shutdown_mode mode);
must_check bool core_kill_client(struct core *core, uint64_t id);
/* Servers that keep a PAUSE from being complete: active, or being tested. */
unsigned core_busy_servers(const struct core *core, const char *database);

bool core_database_is_paused(const struct core *core, const char *database);
bool core_database_is_disabled(const struct core *core, const char *database);
void core_disable(struct core *core, const char *database, bool disable);

/* A number that no other client or server of the process has. */
static inline uint64_t core_next_id(struct core *core)
{
    return ++core->id_last * core->count + core->index;
}

static inline struct core *core_of_loop(struct conn_loop *loop)
{
    return OWNER_OF(loop, struct core, loop);
}

/* An accepted connection: takes the descriptor. */
void core_accept(struct core *core, int fd);

/* An address as the log and SHOW print it, small enough to be kept for each client. */
struct peer_name {
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX, 0: not known */
    uint16_t port;  /* of TCP, host order */
    uint8_t address[16];
    uint32_t pid; /* of the process at the other end of a unix socket, 0: not known */
};

/* TCP_NODELAY, keepalive and buffer sizes as configured. */
void core_tune_socket(struct core *core, int fd, int family);

/* Length of a unix address, abstract ones ("@name", first byte 0) included. */
socklen_t unix_address_bytes(const struct sockaddr_storage *address);

/* A literal address, or the directory of a unix socket ("@": an abstract one). False: a name. */
must_check bool address_from_text(const char *host, uint16_t port,
                                  struct sockaddr_storage *address);

void peer_name_from(struct peer_name *name, const struct sockaddr_storage *address);
/* "127.0.0.1", "::1", "unix"; without brackets. */
void peer_name_host(const struct peer_name *name, char text[64]);

#endif
