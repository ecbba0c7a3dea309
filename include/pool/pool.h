/* pool.h - the servers and the clients of one (database, server user) on one core: who waits, who is
 * free, who may open.
 *
 * A `struct pool` is one shard of the pool that the operator knows; what the shards share is a
 * struct shard_set (shard.h), and how a waiter gets another shard's server is lending.h's. Servers are
 * in exactly one of the lists below, clients that have logged in too. Idle servers: the last released
 * is taken first (server_round_robin: the first). Waiters: first in, first out. Limits hold for the
 * whole process: pool_size and the reserve in the shard set, max_db_connections and
 * max_user_connections in usage.h. */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include "pool/core.h"
#include "pool/report.h"
#include "pool/sharing.h"

struct peer;

/* Counts servers that are connecting or logging in, too. */
enum { POOL_WELCOME_BYTES = 2048, POOL_ERROR_BYTES = 256 };

struct pool {
    struct list link; /* in the core's list */
    struct pool *bucket_next;
    struct core *core;
    struct shard_set *set;
    struct shard *shard; /* ours */
    unsigned shard_index;
    const struct database_config *database; /* of the core's snapshot; replaced with it */
    struct database_config orphan;          /* `database` of a retired pool: its entry is gone */
    const struct user_config *user_config;  /* of the server user, or NULL */
    struct pool_settings settings;
    struct usage *database_usage, *user_usage;
    uint64_t id;       /* unique in the process: what was forgotten and comes back has another */
    uint64_t identity; /* of `database`: what its servers are connected to */
    char database_name[DATABASE_NAME_BYTES_MAX];
    char user_name[USER_NAME_BYTES_MAX]; /* towards the server */

    struct list idle_clients;        /* logged in, no exchange */
    struct list active_clients;      /* linked to a server */
    struct list waiting_clients;     /* want a server, oldest first */
    struct list welcome_clients;     /* wait for the pool's first server login, oldest first */
    struct list replication_clients; /* have no welcome yet, oldest first; see replication.h */
    unsigned client_count, waiting_count, welcome_count, replication_count;

    struct list idle_servers;     /* the next to be taken first */
    struct list active_servers;   /* have a client */
    struct list tested_servers;   /* run a reset, check or probe query */
    struct list login_servers;    /* connecting, logging in */
    struct list canceled_servers; /* free, but a cancel request is on its way to them */
    struct list lending_servers;  /* promised to another shard; their receive is ending */
    unsigned server_count, idle_count, login_count, tested_count;
    unsigned replication_login_count; /* of login_count: will serve one client only */
    unsigned lent_count;  /* sent off, and not yet heard of: in no list, in server_count no more */
    unsigned asked_count; /* servers that others were asked for, those on their way included */
    uint64_t compared_us; /* lending_gives_way */
    uint64_t lent_total, borrowed_total;

    struct timer timer; /* maintenance, three times a second while there is something to do */
    bool is_paused, is_disabled;
    bool is_retired; /* the database is gone: freed when empty */

    /* Cached from the first login: what every client is told. */
    bool has_welcome;
    uint64_t welcome_generation;   /* of the server that said it */
    uint64_t welcome_us;           /* when that was, or when a change of it was told */
    uint64_t asked_standby_us;     /* when a server was last asked whether it still is one */
    struct buffer *default_params; /* tracked values as a fresh server reports them */
    uint16_t welcome_bytes;
    uint8_t welcome[POOL_WELCOME_BYTES]; /* ParameterStatus of untracked parameters */

    /* Attempts to open servers. */
    bool last_login_failed;
    unsigned
        terminated_login_count; /* backends in a row that were terminated while they logged in */
    unsigned unreachable_count; /* addresses that failed since one last answered */
    bool server_said_error;     /* it answered with an error; else it could not be reached */
    uint64_t retry_at_us, retry_pause_us;
    char last_error[POOL_ERROR_BYTES];
    char last_sqlstate[6];
    bool is_replication_denied; /* a client with replication waits for a place */
    bool is_launching;          /* guards pool_launch and loops over servers against themselves */
    unsigned welcome_seen, failure_seen, password_seen; /* versions of the bulletins */
    bool is_starved;                                    /* its bit in the shard set */
    unsigned cancel_count;                              /* cancel requests under way */

    /* Keys for the SCRAM login at the server. */
    bool has_client_key; /* learned from a client's own login */
    uint8_t client_key[32], server_key[32];
    struct buffer *client_password; /* from PAM, LDAP or auth_query, by its last client; or NULL */
    bool client_password_is_found;  /* by auth_query: a secret as it is stored */
    unsigned client_password_count; /* how often it has changed */
    bool has_salted_password;       /* made from a plain password by a helper, for this salt */
    uint8_t salted_password[32];
    uint8_t salt[64];
    uint8_t salt_bytes;
    uint32_t salt_iterations;

    /* The host that the next connection goes to: host.c only. */
    struct host_waiter name_waiter;
    bool has_turn, has_address_turn;
    unsigned address_turn; /* of the name's addresses */
    unsigned turn;         /* of the last connection, or has_turn: of the next one */

    struct pool_stats stats;
    uint64_t empty_since_us;          /* 0: some shard has a client or a server */
    uint64_t database_empty_since_us; /* the same of all pools of the database */

    struct sharing sharing;
};

/* The pool, made if need be. `database` is of the core's snapshot. NULL: no memory. */
struct pool *pool_find_or_make(struct core *core, const struct database_config *database,
                               const char *database_name, const char *user_name);
/* Is this slot of core->pools in use? */
static inline bool pool_is_there(const struct core *core, const struct pool *pool)
{
    return pool->core == core;
}
struct pool *pool_find(struct core *core, const char *database_name, const char *user_name);
/* Pools that keep servers though nobody has asked: entries with user= and a min_pool_size. */
void pool_make_forced(struct core *core);
void pool_release_all(struct core *core);

/* Takes the configuration of the core's snapshot again. */
void pool_update_settings(struct pool *pool);

/* The password that servers of this pool are to be opened with, before that of auth_file; NULL: no
 * more. A new one is tried at once though an old one has failed. False: no memory. */
must_check bool pool_keep_password(struct pool *pool, const char *password);
/* A client has brought it along: kept, and told to the other shards, whose clients may know an older one.
 * False: no memory. */
must_check bool pool_learn_password(struct pool *pool, const char *password, bool is_found);
/* What other shards have learned since. Due before a server's login begins, and when it has failed. */
void pool_read_password(struct pool *pool);
/* `is_found`: by auth_query. */
must_check bool pool_takes_password(const struct pool *pool, bool is_found);

/* A client that has logged in enters the pool: it is welcomed, or waits for the first server. */
void pool_client_enters(struct pool *pool, struct client *client);

/* A client needs a server. True: it is linked (client->server) and may send. False: it waits in
 * line, or the client was closed with an error. */
must_check bool pool_want_server(struct pool *pool, struct client *client);
/* There is none for it: it waits in line, or is closed with an error. */
void pool_wait_in_line(struct pool *pool, struct client *client);
/* server_lifetime: not all at once, since new ones have to be opened for them. */
must_check bool pool_lifetime_is_over(struct pool *pool, const struct server *server);
/* A client waited too long: it is closed with `reason`, and with what the server said last, if it
 * is the server's fault. */
void pool_client_timed_out(struct pool *pool, struct client *client, const char *reason);
/* The client's end: it is in no list any more. */
void pool_client_leaves(struct pool *pool, struct client *client);

/* A server is ready for the next client: to the first waiter, else idle. May close it instead
 * (PAUSE, retired, lifetime). */
void pool_server_free(struct pool *pool, struct server *server);
/* A server's login has succeeded for the first time or again: the welcome is made. */
void pool_server_logged_in(struct pool *pool, struct server *server);
/* A server that logs in says something else than the welcome, which it replaces. */
void pool_replace_welcome(struct pool *pool, const uint8_t *welcome, size_t bytes,
                          uint64_t generation);
/* A running server says that in_hot_standby has changed: its host was promoted. No client can SET
 * that, so it holds for all of them, and for those who come. */
void pool_standby_told(struct pool *pool, const struct server *server, const char *value);
/* `said_error`: the server answered with an ErrorResponse of `sqlstate`. */
void pool_server_failed(struct pool *pool, const char *text, const char *sqlstate, bool said_error);
/* RELOAD, RECONNECT: somebody has mended something. The next attempt waits for no pause, on no shard. */
void pool_try_now(struct pool *pool);
/* A server is gone for good: its place may be taken. */
void pool_server_gone(struct pool *pool);

/* Opens servers as far as waiters want and limits allow, and asks the other shards for theirs. Not as
 * long as one of them shows an idle server: that is faster. */
void pool_launch(struct pool *pool);
/* The same, whatever others show. */
void pool_launch_now(struct pool *pool);
/* Publishes the welcome again for shards that want it. */
void pool_repeat_welcome(struct pool *pool);
/* Another shard wants to know whether the host is a standby still, and has no server to ask. */
void pool_answer_standby(struct pool *pool);
/* What another shard has learned: a welcome, a failure, an end of failures. */
void pool_read_news(struct pool *pool);
/* The next server's welcome is to be kept: there is none yet, or it is older than a RECONNECT that
 * another shard has heard of (and so counts nowhere else any more). */
static inline bool pool_needs_welcome(const struct pool *pool)
{
    return !pool->has_welcome || pool->welcome_generation < atomic_load(&pool->set->generation);
}
/* The one place where the number of servers changes. */
void pool_count_server(struct pool *pool, int change);

void pool_pause(struct pool *pool);
void pool_resume(struct pool *pool);
/* All servers end as soon as they are free; the welcome is forgotten. */
void pool_retire_servers(struct pool *pool, const char *reason);
/* The same for those whose address is not one of their host name's any more; the caller launches. */
void pool_retire_moved(struct pool *pool);
void pool_close_clients(struct pool *pool, const char *message);

void pool_fill_row(const struct pool *pool, struct pool_row *row, uint64_t now_us);
void pool_fill_sharing_row(const struct pool *pool, struct sharing_row *row);

/* server_check_delay: idle for so long that it is checked before its next use. With 0 it was checked when it went
 * back, so only what has been idle since the last upkeep but one. */
bool pool_must_check(const struct pool *pool, uint64_t idle_since_us);

/* True while no exchange may start. */
static inline bool pool_is_stopped(const struct pool *pool)
{
    return pool->is_paused || pool->core->is_paused;
}

#endif
