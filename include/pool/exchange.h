/* exchange.h - counts what a server still owes: has everything that the client asked been answered?
 *
 * PostgreSQL answers each Query, FunctionCall and Sync with one ReadyForQuery (protocol: "Message
 * Flow"). So a server may go back when ReadyForQuery says 'I', every one of those has been
 * answered, and no extended batch is open (Parse, Bind ... without their Sync).
 *
 * COPY IN bends the rule: while the backend reads COPY data it throws Sync and Flush away
 * (PostgreSQL: src/backend/commands/copyfromparse.c, CopyGetData). libpq's PQexecParams sends a
 * Sync right behind Execute, and a second one after CopyDone: two Syncs, one ReadyForQuery. An
 * error in the middle leaves it open on which side of the error a Sync was read. If it was read after
 * all, its ReadyForQuery comes by itself, right behind another one: a batch with messages in it has
 * some other answer before its own, so such a bare one is not counted for it; and before the client
 * loses its server it is asked a question of ours (server.c, probe_linked). Where the count
 * may be too low nevertheless the exchange is `uncertain`: the server must prove by a query of our own
 * that it has nothing left to say before anybody else gets it. Where it is too high the client keeps
 * its server: slow, never wrong. Where nobody knows which answer belongs to what, it is `lost`.
 *
 * CopyBothResponse answers START_REPLICATION (protocol: "Streaming Replication Protocol"): CopyData goes both ways,
 * unasked and unanswered, until each side has sent its CopyDone; then comes what ends the Query. Nothing
 * is thrown away there: a Sync in the middle ends the session.
 *
 * Pure: a value, no I/O. */
#ifndef POOL_EXCHANGE_H
#define POOL_EXCHANGE_H

#include "base/assert.h"

enum { EXCHANGE_RUNS_MAX = 16 };

enum exchange_run_kind {
    RUN_QUERY,     /* Query or FunctionCall: one ReadyForQuery each */
    RUN_SYNC,      /* Sync, with the batch before it: one ReadyForQuery each */
    RUN_BARE_SYNC, /* Sync with nothing before it */
    RUN_EXTENDED,  /* an open batch: none by itself */
    RUN_COPY_END,  /* CopyDone or CopyFail: none by itself */
};

struct exchange_run {
    uint32_t count;
    uint8_t kind;
};

struct exchange {
    struct exchange_run runs[EXCHANGE_RUNS_MAX]; /* oldest first */
    uint8_t run_count;
    bool is_open_behind; /* the runs are used up, and an open batch follows */
    bool is_blurred;     /* the runs were used up: the order is no longer known, only the count */
    bool in_copy_in;     /* the server reads COPY data, and the client has not ended it */
    bool in_copy_both;   /* replication: both send CopyData, and the client has not ended its half */
    bool sync_ignored;   /* a Sync was taken to be thrown away by COPY IN */
    bool is_uncertain;   /* the count may be too low: probe before reuse */
    bool
        is_lost; /* something the client sent in the middle of another thing may never be answered */
    bool
        is_skipping; /* the open batch has failed: everything up to its Sync is skipped, a Query too */
    bool has_answered; /* something came since the last ReadyForQuery; kept while sync_ignored */
};

static inline void exchange_reset(struct exchange *exchange)
{
    exchange->run_count = 0;
    exchange->is_open_behind = false;
    exchange->is_blurred = false;
    exchange->in_copy_in = false;
    exchange->in_copy_both = false;
    exchange->sync_ignored = false;
    exchange->is_uncertain = false;
    exchange->is_lost = false;
    exchange->has_answered = false;
    exchange->is_skipping = false;
}

/* A client's message of this type goes to the server. True: it is owed a ReadyForQuery of its own. */
bool exchange_sent(struct exchange *exchange, uint8_t type);

/* The server's message of this type: G, W, E and Z, and with exchange_wants_all all that answer something
 * (not N, S, A). */
void exchange_received(struct exchange *exchange, uint8_t type);

/* The ReadyForQuery that comes now answers a Sync that was taken to be thrown away: it is not counted. */
static inline bool exchange_has_surplus(const struct exchange *exchange)
{
    return exchange->sync_ignored && !exchange->has_answered && exchange->run_count > 0 &&
           exchange->runs[0].kind != RUN_BARE_SYNC;
}

static inline bool exchange_wants_all(const struct exchange *exchange)
{
    return exchange->sync_ignored;
}

/* ReadyForQuery messages that are still to come, as far as is known. */
static inline uint64_t exchange_owed(const struct exchange *exchange)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < exchange->run_count; i++)
        if (exchange->runs[i].kind != RUN_EXTENDED && exchange->runs[i].kind != RUN_COPY_END)
            count += exchange->runs[i].count;
    return count;
}

/* An extended batch whose Sync was not sent yet. */
static inline bool exchange_is_open(const struct exchange *exchange)
{
    unsigned count = exchange->run_count;

    while (count > 0 && exchange->runs[count - 1].kind == RUN_COPY_END)
        count--;
    return exchange->is_open_behind ||
           (count > 0 && exchange->runs[count - 1].kind == RUN_EXTENDED);
}

/* Everything is answered; with ReadyForQuery 'I' the exchange is over. */
static inline bool exchange_is_answered(const struct exchange *exchange)
{
    return exchange->run_count == 0 && !exchange->is_open_behind;
}

#endif
