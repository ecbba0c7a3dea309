/* client.h - one client connection, from accept to its end.
 *
 *   login ----> welcome ----> idle <----> active
 *     |  |          |          ^  \         ^
 *     |  +> moving  |          |   v        |        every state -> closing
 *     +---> cancel  +--------->+   waiting -+     (waiting, idle -> preparing -> active)
 *
 *   login      startup packet and authentication: client->login is set (login.h), no pool
 *   moving     goes to another core or to control: waits until its connection is quiet
 *   cancel     was a CancelRequest: kept open until that has been delivered
 *   welcome    has a pool that has not seen a server yet; receives nothing until its welcome. With
 *              replication: waits for a server of its own, or has one that is logging in, and
 *              becomes active (replication.h)
 *   idle       owes nothing, has no server (session mode: before the first query)
 *   waiting    wants a server; what it sent is parked
 *   preparing  has a server (client->server), whose parameters are being set; what it sent is parked
 *   shared     its exchange is in the queue of a server that it has not for itself (sharing.h): entered
 *              from idle or waiting, left to idle or waiting; what it sends is parked
 *   active     linked: client->server->client == client
 *   closing    its conn is closing; holds no server, no place in the pool, no limits
 *
 * One that runs auth_query has no connection and no login: it is idle, waiting or preparing (while its
 * server runs the query), then closing, and part of a struct auth_query (auth_query.h).
 *
 * Owned by its core's slab; freed in conn's `gone`, and not before login's helper job has come
 * back. */
#ifndef POOL_CLIENT_H
#define POOL_CLIENT_H

#include "pool/pool.h"
#include "wire/frame.h"
#include "wire/message.h"
#include "wire/startup.h"

struct login;
struct cancel;

enum client_state {
    CLIENT_FREE,
    CLIENT_LOGIN,
    CLIENT_MOVING,
    CLIENT_CANCEL,
    CLIENT_WELCOME,
    CLIENT_IDLE,
    CLIENT_WAITING,
    CLIENT_PREPARING,
    CLIENT_SHARED,
    CLIENT_ACTIVE,
    CLIENT_CLOSING,
    CLIENT_STATES,
};

/* What is parked for a server may not grow beyond this: then the client is not read. */
enum { CLIENT_PARKED_BYTES_MAX = 64 * 1024 };

struct client {
    struct conn conn;
    struct list link; /* the core's login list, or one of the pool's */
    struct timer timer;
    struct pool *pool;
    struct shard *shard; /* counts it, from the moment on when it was chosen */
    struct server *server;
    struct login *login;
    struct cancel *cancel;
    struct usage *user_usage;             /* of the login user; its name is the login name */
    struct usage *database_usage;         /* of the database asked for, once it counts there */
    struct buffer *params;                /* tracked parameters, see params.h */
    struct buffer *options;               /* replication: the startup parameter; NULL: none */
    struct span_queue parked;             /* not yet scanned */
    struct shared *shared;                /* its exchange, when that goes the way of sharing.h */
    struct client_statements *statements; /* NULL: has never prepared one that we track */
    uint64_t id;
    uint64_t connect_us, request_us; /* the last message */
    uint64_t wait_since_us;          /* 0: has a server, or wants none */
    uint64_t query_since_us;         /* first message since the last ReadyForQuery; 0: none */
    uint64_t xact_since_us;          /* 0: not in a transaction */
    uint64_t state_since_us;
    struct frame frame;
    struct peer_name peer;
    uint32_t key_next;
    uint8_t key[8]; /* of BackendKeyData */
    uint8_t state;
    uint8_t replication; /* enum startup_replication */
    uint8_t pipelines;   /* exchanges that do not share, since it sends ahead of its answers */
    uint8_t replication_tries; /* addresses of the server that could not be reached */
    bool counts_as_client;     /* in usage->client_count */
    bool counts_in_database;   /* in database_usage and user_usage */
    bool drops_body;           /* the rest of the current message is not forwarded */
    bool is_scanning;       /* bytes may be on their way to its server that were not queued yet */
    bool is_answered_early; /* in the middle of its message: its server is free when that has ended
                              */
    bool is_notified;       /* query_wait_notify was sent for this wait */
    bool is_authenticated;  /* had its welcome; its key is known */
    bool has_sent;          /* at least a byte */
    bool is_mid_answer;     /* a message to it was cut off: nothing may follow */
    bool is_replaying;      /* its parked bytes are being scanned */
    bool tracks_statements; /* its exchange does; rewrite.h */
    bool is_partial_tried;  /* a message that was put together is being scanned */
    bool is_auth_query;     /* has no connection: the pooler's own question (auth_query.h) */
    bool is_held_back;      /* active, but what it sends is parked until its server has answered */
};

static inline struct core *client_core(const struct client *client)
{
    return core_of_loop(client->conn.loop);
}

void client_accept(struct core *core, int fd);

/* A client of this core for a session that comes from another one. NULL: no memory. */
struct handover;
struct client *client_adopt(struct core *core, const struct handover *handover);

/* The client of an auth_query, in its pool and idle. */
void client_begin_auth_query(struct client *client, struct pool *pool);

/* Scans what was parked. */
void client_replay(struct client *client);

/* Closes with a pooler error: logs `closing because: MESSAGE` and sends FATAL. sqlstate NULL:
 * 08P01. */
void client_close_error(struct client *client, const char *message, const char *sqlstate);
/* The same with DETAIL and HINT; `level` is that of `pooler error: ...`. */
void client_close_pg_error(struct client *client, const struct pg_error *error,
                           enum log_level level);
/* Closes without a word to the client. `reason` goes to the log. */
void client_close_silently(struct client *client, const char *reason);

/* The login is done: counted, in its pool, waiting for its welcome. */
void client_enter_pool(struct client *client, struct pool *pool, const char *const *wanted_params);
/* Sends the welcome of the pool; the client is idle from now on. */
void client_welcome(struct client *client);
/* Sends that of the client's own server, whose `statuses` are the ParameterStatus messages that are not
 * tracked; the client is active from now on. */
void client_welcome_linked(struct client *client, const uint8_t *statuses, size_t bytes);

/* What held it back is answered: what it parked meanwhile is sent. Nothing, if nothing held it. */
void client_release_held(struct client *client);

/* A server was found: the client is active, what it parked is sent. */
void client_linked(struct client *client);
/* The server has done with it (ReadyForQuery) and is unlinked already. */
void client_unlinked(struct client *client);

/* Its shared exchange is answered, and client->shared NULL: idle. */
void client_shared_over(struct client *client);

void client_arm_timer(struct client *client);

/* NULL: nobody has that key. */
struct client *client_find_key(struct core *core, const uint8_t key[8]);

void client_log(const struct client *client, enum log_level level, const char *format, ...)
    printf_like(3, 4);

void client_become(struct client *client, enum client_state state);
void client_fill_row(const struct client *client, struct socket_row *row, uint64_t now_us);

#endif
