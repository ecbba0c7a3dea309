/* server.h - one connection to PostgreSQL, from connect to its end.
 *
 *   login -> [tested] -> idle <-> [preparing] active
 *              ^          |  \ \-> auth_query -+         every state -> closing
 *              |          |   lending -> lent |
 *              +----------+----- [canceled] --+
 *
 *   login      connecting, TLS, startup, authentication, until ReadyForQuery (server_login is set). One for
 *              replication is linked to its client already (replication.h)
 *   tested     runs a query of the pooler's own: connect_query, reset, check, or the probe of an
 *              uncertain exchange; its answers are swallowed
 *   idle       owes nothing to anybody; may be given away
 *   canceled   like idle, but a cancel request is on its way to it: not given away until that has ended
 *   preparing  linked to a client whose parameters are being set; the client waits
 *   active     linked: server->client->server == server
 *   shared     has a queue of exchanges of several clients (sharing.h), never empty; entered from idle, left
 *              to tested, idle, canceled
 *   auth_query linked to an auth_query's client (auth_query.h): its answers are read, and swallowed
 *   lending    promised to another shard of its pool; its receive is ending (lending.h)
 *   lent       on its way there: has no connection any more, and only waits for its letter
 *   closing    its conn is closing; no client, no place in the pool
 *
 * A server is only ever given to the next client, or lent, from `idle`, and gets there only with
 * ReadyForQuery 'I', everything answered (exchange.h) and no cancel request under way.
 *
 * Owned by its core's slab; freed in conn's `gone`, and not before its helper job has come back; a lent
 * one when its letter is back. */
#ifndef POOL_SERVER_H
#define POOL_SERVER_H

#include "pool/exchange.h"
#include "pool/pool.h"
#include "wire/frame.h"

struct server_login;

enum server_state {
    SERVER_FREE,
    SERVER_LOGIN,
    SERVER_TESTED,
    SERVER_IDLE,
    SERVER_CANCELED,
    SERVER_PREPARING,
    SERVER_ACTIVE,
    SERVER_SHARED,
    SERVER_AUTH_QUERY,
    SERVER_LENDING,
    SERVER_CLOSING,
    SERVER_LENT,
    SERVER_STATES,
};

enum server_test {
    TEST_NONE,
    TEST_CONNECT, /* connect_query: errors are logged and ignored */
    TEST_RESET,   /* server_reset_query */
    TEST_CHECK,   /* server_check_query */
    TEST_PROBE,   /* an empty query, to see that nothing else is on its way */
};

/* Of a message that is looked at: it may arrive in pieces. */
enum { GATHER_BYTES_MAX = 32 * 1024 };

struct server {
    struct conn conn;
    struct list link;   /* one of the pool's lists */
    struct timer timer; /* server_connect_timeout; shared: the oldest exchange runs too long */
    struct pool *pool;
    struct client *client;
    struct server_login *login;
    struct buffer *params;
    struct server_statements *statements; /* NULL: has never had a client that tracks them */
    struct buffer *gather;                /* a message that is looked at and did not arrive whole */
    struct list shared;                   /* struct shared, oldest first: sharing.h only */
    struct buffer *tail_params;           /* parameters when all of them are done; NULL: params */
    unsigned shared_count;
    float ahead_us; /* what they take, undisturbed */
    uint32_t gather_bytes;
    struct frame frame;
    struct exchange exchange;
    uint64_t id;
    uint64_t generation; /* core.generation when it was opened */
    uint64_t identity;   /* of its pool then */
    unsigned host_turn;  /* which of the entry's hosts it was opened to, see host_failed */
    uint64_t connect_us, request_us, idle_since_us, state_since_us;
    struct sockaddr_storage address;
    uint8_t key[8]; /* BackendKeyData of PostgreSQL */
    uint8_t state;
    uint8_t test;
    uint8_t status;        /* of the last ReadyForQuery: I, T, E */
    uint8_t replication;   /* enum startup_replication: has one client only, from login to end */
    unsigned cancel_count; /* cancel requests under way to it */
    bool counts_in_usage;
    bool has_served;    /* at least one client */
    bool is_ready;      /* has logged in: counts in shard_set.ready_count */
    bool has_left_pool; /* taken off shard_set.server_count already */
    bool close_needed;  /* ends as soon as it is free */
    bool is_unsaid;     /* it could not be opened, and the log says so already of the one before */
    bool test_failed;
    bool test_answered;                         /* the probe's own answer has come */
    bool needs_probe, needs_reset, needs_check; /* due before it is free */
    bool looks_at_body;                         /* the current message is gathered or looked at */
    bool
        withholds_error; /* the current message is an error that goes to the client once it is known
                             which */
    bool is_queue_closed;       /* nothing joins before it is empty */
    bool was_terminated;        /* its last word was that somebody has ended it */
    bool has_failed_set;        /* an exchange that sets parameters has failed */
    bool params_changed;        /* by itself, under exchanges that rely on them */
    bool is_over_after_message; /* the exchange is over with the message that is being forwarded */
    bool forwards_message;      /* the current message began while a client was linked: it is the
                                   client's */
    const char *close_reason;
    /* On its way to another core: the borrower reads this struct until the letter is back. */
    struct letter loan;
    int loan_fd;
    struct tls *loan_tls; /* NULL: plain */
    unsigned lent_by;     /* core */
    uint64_t lender_generation, lender_answer;
    unsigned lend_to; /* shard */
};

static inline struct core *server_core(const struct server *server)
{
    return core_of_loop(server->conn.loop);
}

/* Begins to connect to `address`. `owner`: whose alone it will be (replication), else NULL. NULL: no
 * descriptor or no memory (the pool is told). */
struct server *server_launch(struct pool *pool, const struct sockaddr_storage *address,
                             struct client *owner);
/* The login of a server for replication is over: active. */
void server_begin_session(struct server *server);

/* Takes the server out of whatever list it is in, and links it; parameters are set first where they
 * differ. True: active. False: preparing; client_linked follows. */
must_check bool server_link(struct server *server, struct client *client);
/* The client has ended, or must lose its server: frees the server if it is clean, else closes it.
 */
void server_drop_client(struct server *server, const char *reason);

/* The client's message in whose middle everything was answered (is_answered_early) has gone out:
 * the exchange is over, the client idle. */
void server_message_ended(struct server *server);

/* The queue begins: idle -> shared. It is empty: free for others. */
void server_become_shared(struct server *server);
void server_shared_over(struct server *server);
/* Does it run something of this client's now, and not of somebody in front of it? */
bool server_runs_for(const struct server *server, uint64_t client_id);
/* After SET: where both know a value, the server's spelling is the client's from now on. False: no memory. */
must_check bool server_adopt_params(struct server *server, struct client *client);

/* Runs a check before use: the server is free again when it has passed. */
void server_start_check(struct server *server);

/* Gives an idle server to another shard of its pool: it stops receiving, and goes when it has stopped. */
void server_lend(struct server *server, unsigned shard);
/* The borrower's copy of `lent`, which is the lender's and only read; takes its descriptor. Neither idle
 * nor given to anybody yet: server_arrived does that. NULL: no memory. */
struct server *server_adopt(struct pool *pool, const struct server *lent) must_check;
/* `lender_generation`, `lender_answer`: what the lender's core had heard of when it sent it, of orders
 * and of its host's addresses. */
void server_arrived(struct server *server, uint64_t lender_generation, uint64_t lender_answer);
/* The borrower has it; the lender's own struct is freed. */
void server_lent_returned(struct server *server);

/* It could not be opened: the pool is told, or the client whose own it would have been, and it is closed with
 * `reason`. See pool_server_failed. */
void server_open_failed(struct server *server, const char *text, const char *sqlstate,
                        bool said_error, const char *reason);

/* The same for a host that does not answer as it should: with its address. `why` may be NULL. */
void server_not_reached(struct server *server, const char *reason, const char *why);

/* Logs `closing because: reason`; the linked client, if any, gets `reason` as an error. */
void server_close(struct server *server, const char *reason);

/* A cancel request towards it begins or has ended. */
void server_cancel_began(struct server *server);
void server_cancel_ended(struct server *server);

void server_log(const struct server *server, enum log_level level, const char *format, ...)
    printf_like(3, 4);
void server_fill_row(const struct server *server, struct socket_row *row, uint64_t now_us);

#endif
