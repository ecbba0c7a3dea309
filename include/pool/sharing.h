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

#include "base/list.h"
#include "pool/sharing_policy.h"
#include "pool/statement_times.h"
#include "wire/statement_class.h"

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
    uint64_t wait_us;   /* behind others, in all */
    uint64_t refused[REFUSED_KINDS];
    uint64_t apart[APART_KINDS];
};

/* In struct pool. */
struct sharing {
    struct sharing_policy policy;
    struct statement_times *times; /* NULL: nothing has shared yet */
    struct list servers;           /* in state SERVER_SHARED */
    unsigned server_count, queued_count;
    struct sharing_stats stats;
};

#endif
