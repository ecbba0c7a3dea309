/* statement_times.h - how long the classes of statements take that share servers (statement_class.h): learned
 * on each shard of a pool, bounded, forgotten slowly.
 *
 * The time of a statement is that of its server alone: from the moment when it was the oldest in its
 * server's queue until its ReadyForQuery. Nothing is queued behind a statement whose class is unknown,
 * slow or erratic.
 *
 * Pure: time is an argument, no I/O. One thread: the core's. */
#ifndef POOL_STATEMENT_TIMES_H
#define POOL_STATEMENT_TIMES_H

#include "base/base.h"

enum {
    STATEMENT_TIMES_MAX = 256, /* classes of a shard; the least useful one of its set gives way */
    STATEMENT_TIMES_WAYS = 4,
    STATEMENT_TEXT_SHOWN_BYTES = 120,
};

enum follow { /* may anything be queued behind it? */
              FOLLOW_YES,
              FOLLOW_UNKNOWN, /* seen too rarely */
              FOLLOW_SLOW,
              FOLLOW_ERRATIC,
              FOLLOW_KINDS,
};

struct statement_time {
    uint64_t hash;    /* 0: nothing here */
    uint64_t total;   /* exchanges since the class was met */
    uint64_t used_us; /* when it was last looked up */
    float mean_us;    /* exponentially weighted, as deviation_us (of absolute differences) */
    float deviation_us;
    float
        floor_us; /* what it takes on a server that is not disturbed: follows low values at once, high ones
                          slowly */
    uint32_t count;                        /* measured; saturates */
    uint8_t follow;                        /* enum follow */
    char text[STATEMENT_TEXT_SHOWN_BYTES]; /* statement_class_text */
};

struct statement_times {
    struct statement_time slots[STATEMENT_TIMES_MAX];
    unsigned count;
};

/* NULL: not known. */
struct statement_time *statement_times_find(struct statement_times *times, uint64_t hash,
                                            uint64_t now_us);
/* Made if need be, in place of the one of its set that matters least; `*is_new`: `text` is the caller's to
 * fill. A pointer is good until the next call of this function: exchanges keep the hash. */
struct statement_time *statement_times_make(struct statement_times *times, uint64_t hash,
                                            uint64_t now_us, bool *is_new);
/* One was answered after so long. */
void statement_times_note(struct statement_time *time, uint64_t took_us);
/* It runs for so long already: longer than anything that may be followed. It is FOLLOW_SLOW from now on, until
 * enough fast ones have been seen. */
void statement_times_overrun(struct statement_time *time, uint64_t so_far_us);
/* How long a running one may take before nothing more joins it. */
uint64_t statement_times_patience_us(const struct statement_time *time);

#endif
