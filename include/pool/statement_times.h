/* statement_times.h - how long the classes of statements take that share servers (statement_class.h): learned
 * on each shard of a pool, bounded, forgotten slowly.
 *
 * The time of a statement is that of its server alone: from the moment when it was the oldest in its
 * server's queue until its ReadyForQuery (0 when that came in the same receive as the one before it).
 * Nothing is queued behind a statement whose class is unknown, slow or erratic.
 *
 * A class may be followed when its median is below about 1.1 ms and slow ones, of 4 ms and more, are rare:
 * one in 64 of 10 ms, one in 160 of 4 ms. Those behind a slow one are moved elsewhere, so that each
 * costs them some milliseconds once. The mean is shown only: a single stop of 50 ms would move it
 * for long.
 *
 * The machine must not be taken for the statement: backends that wait for a core are slow, whatever they
 * run. A pool that followed nothing then would keep all its servers busy, and so the machine full, and
 * never share again. So a doubt about the machine leads to more sharing, not to less: what is slow
 * while too many servers are busy or everybody waits long does not count (is_crowded), and where the
 * class' median is more than twice its floor, the bounds grow with it, up to sixteenfold.
 *
 * Pure: time is an argument, no I/O. One thread: the core's. */
#ifndef POOL_STATEMENT_TIMES_H
#define POOL_STATEMENT_TIMES_H

#include "base/base.h"

enum {
    STATEMENT_TIMES_MAX = 256, /* classes of a shard; the least useful one of its set gives way */
    STATEMENT_TIMES_WAYS = 4,
    STATEMENT_TEXT_SHOWN_BYTES = 120,
    STATEMENT_TIMES_BOUND_US = 2000, /* of the median, about half of it; times 1 to SCALE_MAX */
    STATEMENT_TIMES_SLOW_US = 4000,  /* a single one; likewise */
    STATEMENT_TIMES_SCALE_MAX = 16,
    STATEMENT_TIMES_KNOWN_MIN = 5, /* measured so often: known */
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
        floor_us; /* what it takes on a server that is not disturbed: the least of the last 8 to 17
                       seconds with answers, of those that were first only; 0: not known */
    float floor_next_us; /* the least of the present ones of those seconds */
    uint32_t floor_period;
    float median_us;       /* follows in small steps, so that a few slow ones do not move it */
    uint32_t count;        /* measured; saturates */
    uint16_t debt;         /* slow ones owe up to 64 fast ones each */
    uint8_t overruns_open; /* told by statement_times_overrun, their end was not noted yet */
    uint8_t follow;        /* enum follow */
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
/* One was answered after so long. `was_first`: nothing was in front of it when it was sent, so that its time is
 * its own; of the others only sums are true, because answers may come several in a receive. `is_crowded`: more
 * servers are busy than the policy wants (sharing_policy.h), so a slow one may have waited for a core: it counts
 * in the mean, but it does not stand against its class. */
void statement_times_note(struct statement_time *time, uint64_t took_us, bool was_first,
                          bool is_crowded);
/* It runs for so long already (statement_times_overrun_us). That is no verdict on its class: it owes as if it had
 * ended so. Once for an exchange; its end is noted all the same if it is seen. */
void statement_times_overrun(struct statement_time *time, uint64_t so_far_us, bool is_crowded);
/* How long a running one may take before nothing more joins it: what joins would wait longer there than it
 * would elsewhere. 500 us to 2 ms. Being wrong costs little, for another server is found. */
uint64_t statement_times_patience_us(const struct statement_time *time);
/* How long a running one may take before those behind it are asked again elsewhere, and the class is slow
 * (statement_times_overrun): 4 to 64 ms. Being wrong costs all their work a second time, so it is not
 * as strict: a backend that waits for a core is no slow statement. */
uint64_t statement_times_overrun_us(const struct statement_time *time);

#endif
