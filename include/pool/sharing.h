/* sharing.h - independent clients share a server: their exchanges queue on one connection (DESIGN section 7).
 *
 * An exchange that has arrived whole and whose statement shares (statement_class.h) is copied into a
 * struct shared and goes this way, also when it is alone on its server. Everything else goes the
 * ordinary way (client.c, server.c: one client linked to one server), and so does an exchange that
 * shares as soon as anything unusual happens to it: nothing of its answer has been passed on, so it
 * can be asked again.
 *
 * A server in state SERVER_SHARED has a queue of them, oldest first, and what it sends belongs to the
 * oldest; ReadyForQuery 'I' ends that. Its client is in state CLIENT_SHARED, has client->shared, and
 * no client->server. What such a client sends meanwhile is parked.
 *
 * One thread: the core's. */
#ifndef POOL_SHARING_H
#define POOL_SHARING_H

#include "conn/conn.h"
#include "pool/sharing_policy.h"
#include "pool/statement_times.h"
#include "wire/statement_class.h"

struct cancel;
struct client;
struct core;
struct pool;
struct server;

/* Why an exchange went the ordinary way. */
enum sharing_refusal {
    REFUSED_PIECES,  /* it did not arrive whole, or something came behind it */
    REFUSED_NO_READ, /* statement_class.h */
    REFUSED_KEYWORD,
    REFUSED_FUNCTION,
    REFUSED_SEVERAL,
    REFUSED_DOUBT,
    REFUSED_BATCH, /* extended: not one statement from Bind to Sync, a named portal, Describe only, Flush,
                          a limit of rows ... */
    REFUSED_STATEMENT, /* extended: its statement is not known, or may have changed */
    REFUSED_CLIENT,    /* it sends in pipelines */
    REFUSED_KINDS,
};

/* Why one that shares was not queued behind others (it got an idle server, or waited). */
enum sharing_apart {
    APART_UNKNOWN, /* the class of what is queued there has been seen too rarely */
    APART_SLOW,
    APART_ERRATIC,
    APART_RUNS_LONG,  /* what runs there takes longer than it should */
    APART_DEPTH,      /* enough is queued there */
    APART_PARAMETERS, /* another client_encoding, DateStyle ... */
    APART_NEEDED, /* the server is to become free: somebody waits for one of his own, a cancel request is
                         under way, it has served its time */
    APART_KINDS,
};

struct sharing_stats {
    uint64_t shared_count; /* exchanges that went this way */
    uint64_t joined_count; /* of them, behind others */
    uint64_t depth_sum;    /* exchanges in front of those that joined */
    uint64_t depth_max;
    uint64_t again_lost;     /* asked again because the server was lost */
    uint64_t again_canceled; /* because a neighbour's cancel request hit them */
    uint64_t
        again_alone; /* in the ordinary way, for an error that is not theirs or cannot be told */
    uint64_t
        again_moved; /* because what was in front of them took long, or its client was slow to read */
    uint64_t set_count; /* SET of parameters queued between exchanges */
    uint64_t wait_us;   /* of those that joined, until they were the oldest, in all */
    uint64_t refused[REFUSED_KINDS];
    uint64_t apart[APART_KINDS];
};

enum {
    SHARED_BYTES_MAX = 4000, /* of a request that is kept; what is longer goes the ordinary way */
    /* Who is moved is asked twice. On a machine that is full each backend loses its core for milliseconds now and
     * then, and a quarter of all exchanges were moved, which made it fuller: so only one for so many answers. */
    SHARED_MOVE_PRICE = 16,
    SHARED_MOVE_BUDGET_MAX = 256 * SHARED_MOVE_PRICE,
    SHARED_COLLECTED_BYTES_MAX = 65536, /* of an answer that waits for its end */
    SHARED_ORPHAN_US = 500 * 1000, /* how long an answer that nobody wants any more is waited for */
    SHARED_LOST_MAX = 200,              /* servers lost under one exchange, whatever the cause */
    SHARED_CRASHED_MAX = 1,             /* of them, those that ended without a word while it ran */
};

/* In struct pool. */
struct sharing {
    struct sharing_policy policy;
    struct statement_times *times; /* NULL: nothing has shared yet */
    struct list servers;           /* in state SERVER_SHARED */
    unsigned server_count, queued_count;
    unsigned waiting_count; /* of pool->waiting_clients, those whose exchange may join others */
    unsigned move_budget;   /* each answer adds one, each move costs SHARED_MOVE_PRICE */
    float present;          /* queued_count, of late */
    bool are_few;           /* so few that each gets a server for itself, if there is one */
    bool is_on;
    bool wants_server; /* fewer servers than the limit are there */
    struct sharing_stats stats;
};

/* What took so long says nothing about its statement. */
static inline bool sharing_crowds(const struct sharing *sharing, uint64_t took_us)
{
    return sharing_policy_is_crowded(&sharing->policy, sharing->server_count, took_us);
}

enum shared_kind { SHARED_QUERY, SHARED_BATCH, SHARED_SET };

/* How far its answer has come. */
enum shared_phase { PHASE_START, PHASE_BOUND, PHASE_ROWS, PHASE_COMPLETE };

/* What becomes of an exchange whose answer is not passed on: nothing of it is, up to its ReadyForQuery. */
enum shared_again {
    AGAIN_NO,
    AGAIN_ELSEWHERE, /* as if it were new */
    AGAIN_ALONE,     /* on a server with nobody in front or behind */
    AGAIN_ORDINARY,  /* its client is linked to a server */
};

/* One exchange in a server's queue, or one that waits with its client. From core->shared; client->shared
 * points back as long as the client is interested. */
struct shared {
    struct list link;            /* server->shared, oldest first; in none while it waits */
    struct server *server;       /* NULL: waits */
    struct client *client;       /* NULL: SET, or nobody is interested any more */
    struct buffer *bytes;        /* what the client sent, NULL: nobody's any more */
    struct buffer *params;       /* SET: what it sets */
    struct statement *statement; /* BATCH whose statements are tracked; a reference */
    struct client_name *name;    /* the client's, of that statement */
    struct span_queue collected; /* see `collects` */
    uint64_t hash;               /* statement_class */
    uint64_t since_us;           /* the oldest of its queue since then; 0: is not yet */
    uint64_t running_since_us;   /* what its timeouts count from: the oldest somewhere since then */
    uint64_t patience_us;        /* is_followed: when it runs for so long nothing joins any more; */
    uint64_t overrun_us;         /* and for so long: those behind it go elsewhere */
    uint64_t wanted_shape; /* of the result that the client relies on; 0: none (statement.h) */
    uint64_t shape;        /* that its result has; 0: not known */
    float floor_us;        /* what its class takes undisturbed, for server->ahead_us */
    uint32_t byte_count;
    uint32_t bind_at, bind_bytes; /* in `bytes`: the Bind; */
    uint32_t name_at, name_bytes; /* its statement's name, without the zero */
    uint8_t kind, phase, again;
    uint8_t swallow_count; /* ParseComplete and CloseComplete that the client did not ask for */
    uint8_t lost_count;    /* at most SHARED_LOST_MAX */
    uint8_t crashed_count;
    bool has_parse;           /* BATCH: begins with Parse of the unnamed statement */
    bool is_named;            /* the statement goes by our name on the server */
    bool describes;           /* has a Describe of its portal */
    bool owes_parse_complete; /* to the client, before BindComplete */
    bool awaits_shape;        /* a Describe of ours is to be answered */
    bool learns_shape;        /* from the description of its portal */
    bool is_bound;            /* BindComplete has come */
    bool was_first;           /* nothing was in front of it when it was sent */
    bool is_alone;            /* nobody in front, nobody behind */
    bool is_followed;         /* its class is known to be short: others may join */
    bool collects;            /* its answer is kept until it is whole: it may have to be dropped */
    bool may_be_hit;          /* a neighbour's cancel request may reach it */
    bool has_begun;           /* something of its answer was passed on */
    bool has_failed;          /* SET: with an error */
    bool is_past_end;         /* an error came behind the end of its answer */
    bool was_moved;
    bool was_overrun; /* its class has been told */
};

/* Does who waits with it wait for no server of his own? NULL: an exchange that does not share. */
static inline bool shared_may_join(const struct shared *shared)
{
    return shared != NULL && !shared->is_alone;
}

static inline struct shared *sharing_oldest(const struct list *queue)
{
    struct list *first = list_front(queue);

    return first == NULL ? NULL : OWNER_OF(first, struct shared, link);
}

/* ---- sharing_ask.c: a client's exchange ---- */

/* The client is idle and has sent `bytes`. True: they are an exchange that shares, and are taken. */
must_check bool sharing_try(struct client *client, struct buffer *buffer, uint32_t bytes);
/* A client goes on sending while its answer is pending. */
void sharing_goes_on(struct client *client);
/* The client ends, or runs into a timeout: what it asked is nobody's any more. */
void sharing_client_leaves(struct client *client);
/* It has run for too long: the client is closed with `reason`, and its server. */
void sharing_timed_out(struct client *client, const char *reason);
/* A waiting client's exchange goes the ordinary way from now on. False: no memory; the client is closed. */
must_check bool sharing_make_ordinary(struct client *client);

/* ---- sharing.c: queues ---- */

void sharing_init(struct pool *pool);
void sharing_release(struct pool *pool);
/* After the pool's settings have changed. */
void sharing_update(struct pool *pool);

/* Finds a server for what the client asks. False: there is none now, the client is to wait. */
must_check bool sharing_place(struct pool *pool, struct shared *shared);
/* A server is idle, and the first who waits is a client whose exchange shares. False: it cannot run on this
 * server this way. */
must_check bool sharing_start(struct server *server, struct client *client);
/* Those who wait in front, as far as they can join; `passes_others`: also those behind clients that wait for a server
 * of their own. */
void sharing_admit(struct pool *pool, bool passes_others);
/* A client waits for a server of its own: one of those that are shared is to become free, and soon. */
void sharing_make_room(struct pool *pool);
/* Something was answered: the queues may be open again for those who wait, or a server that was to become free has
 * turned out to be slow. Else newcomers would join, and overtake them for ever. */
void sharing_serve_waiters(struct pool *pool);
/* Can this server's queue be joined no more, until it is empty. */
void sharing_close_queue(struct server *server);
/* Where somebody is behind the oldest, or nobody wants its answer any more: */
void sharing_arm_overrun(struct server *server);
/* The oldest takes too long: those behind it go elsewhere. One whose client has left is given up. */
void sharing_overrun(struct server *server);
/* The server's connection is over; it is closing already. `mid_answer`: the oldest one's client has got
 * part of a message. */
void sharing_lost(struct server *server, const char *reason, bool mid_answer);
/* Those behind the oldest go elsewhere, as far as they can; `with_oldest`: that one, too. Their answers here are
 * thrown away. */
void sharing_move(struct server *server, bool with_oldest);
/* The next one is the oldest from now on. */
void sharing_next(struct server *server);
/* The one place where the number of queued exchanges changes. */
void sharing_count_queued(struct pool *pool, int change);
/* As if it had never been sent. */
void sharing_reset(struct shared *shared);
/* Asked again: `shared` is in no queue any more and is the client's, or is freed. */
void sharing_ask_again(struct shared *shared, enum shared_again how);
struct shared *sharing_new(struct core *core) must_check;
void sharing_free(struct core *core, struct shared *shared);

/* ---- sharing_answer.c: what the server sends ---- */

/* A header was read, see server.c. May close the server. */
void sharing_message_began(struct server *server, uint8_t type);
void sharing_message_complete(struct server *server, uint8_t type, const uint8_t *body,
                              size_t bytes);
void sharing_forward(struct server *server, struct buffer *buffer, size_t from, size_t to);
/* ParameterStatus: to whoever is asking; it does not count as a part of the answer. */
void sharing_pass_parameter(struct server *server, const uint8_t *body, size_t bytes);
/* A tracked parameter of the server's has changed: the client whose value it is from now on, or NULL. */
struct client *sharing_parameter_changed(struct server *server);
void sharing_forward_copy(struct server *server, const void *data, size_t bytes);
/* ---- cancel requests ---- */

/* The target's exchange is queued behind others: it is answered here, and never run for it. True: so it is. */
must_check bool sharing_cancel(struct client *target);
/* A cancel request goes out now, for the oldest. */
void sharing_cancel_sent(struct server *server);

#endif
