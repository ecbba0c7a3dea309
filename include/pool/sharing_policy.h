/* sharing_policy.h - how many servers a shard of a pool keeps busy with exchanges that share, and how many of
 * them may queue on one: found by measurement.
 *
 * Too many busy backends on few cores cost more than they give (switches, caches), too few leave cores
 * idle. The policy knows neither the cores nor where PostgreSQL is, and no model of them. It tries: time
 * is cut into slots, in half of them the limit is a step higher or lower, and what is better for the
 * clients wins. The measure is the mean time that an exchange spends here, waiting for its server included:
 * exchanges present over time, divided by exchanges answered. With clients that ask again at once that
 * is throughput; with ones that come by chance it is what they wait.
 *
 * The slots are those of the clock, so that all shards of a pool (all pools of the machine) try the
 * same step at the same time. A shard that tried alone would always find that one more server pays:
 * it takes CPU from its siblings.
 *
 * The limit is met by not joining: with more than `limit` servers busy, exchanges join only the first
 * `limit` of them, in an order that does not change, so that the others run empty.
 *
 * Pure: time is an argument, no I/O, no randomness. One thread: the core's. */
#ifndef POOL_SHARING_POLICY_H
#define POOL_SHARING_POLICY_H

#include "config/settings.h"

enum {
    SHARING_DEPTH_MAX = 256,        /* exchanges on one server */
    SHARING_AHEAD_US_MAX = 2000,    /* sharing_policy_has_room */
    SHARING_CROWDED_US_MAX = 40000, /* sharing_policy_is_crowded */
};

/* What the clients saw during a slot, its first quarter left out. */
struct sharing_slot {
    uint64_t time_us;   /* how much of it was seen */
    uint64_t queued_us; /* exchanges present, summed over that time */
    uint64_t busy_us;   /* busy servers, likewise */
    uint64_t took_us;   /* sums over the answers */
    float floor_us;
    uint32_t answers;
    unsigned limit;
};

enum sharing_direction {
    SHARING_MORE,  /* a third */
    SHARING_FEWER, /* a quarter */
    SHARING_DOUBLE,
    SHARING_THIRD,
    SHARING_DIRECTIONS,
};

/* One direction's trials since the limit was changed last. */
struct sharing_trial {
    float gain;     /* mean of how much shorter the clients' time was, as a part of it */
    float variance; /* of a single trial */
    unsigned count;
    unsigned doubts; /* the last ones were of another kind */
};

struct sharing_policy {
    int setting;      /* server_sharing: SHARING_OFF, SHARING_AUTO, or a number of servers */
    unsigned ceiling; /* pool_size, or what this shard may have of it; at least 1 */
    unsigned limit;   /* the result: servers to keep busy before sharing, 1 to ceiling */

    /* For SHOW SHARING. */
    unsigned base; /* the limit around which it tries */
    struct sharing_trial trials[SHARING_DIRECTIONS];
    struct sharing_slot last; /* the last slot at `base` that had enough answers */
    uint64_t raised_count, lowered_count, changed_count; /* changed: the load did */

    float wait_us; /* clients' time of late, whatever the limit */

    /* Nobody else's. */
    uint64_t now_us; /* of the last answer */
    uint64_t slot;   /* its number, counted from the clock's beginning */
    uint64_t measured_from_us;
    uint64_t tried_until_us; /* what is known of trials holds until then */
    float time_us,
        usual_us;       /* clients' time at `base`: of late, and as it was when the trials began */
    unsigned slot_bits; /* log2 of a slot's length: longer where answers are few */
    struct sharing_slot current, first; /* this slot; the first one of its pair */
};

/* Also when the setting or the ceiling has changed: what was learned is kept where it fits. */
void sharing_policy_set(struct sharing_policy *policy, int setting, unsigned ceiling);
/* An exchange was answered. `took_us`: since it was the oldest on its server; `floor_us`: what its class takes
 * undisturbed, 0: not known. `busy`: servers that were busy with sharing exchanges until now; `queued`:
 * exchanges on them, those that run and this one included. */
void sharing_policy_answered(struct sharing_policy *policy, uint64_t now_us, uint64_t took_us,
                             float floor_us, unsigned busy, unsigned queued);
/* Does a slow answer say nothing about its statement (statement_times.h)? More servers are busy than wanted, or
 * what it took is not much beside what everybody waits: backends wait for cores. */
static inline bool sharing_policy_is_crowded(const struct sharing_policy *policy, unsigned busy,
                                             uint64_t took_us)
{
    return busy > policy->limit ||
           (took_us < SHARING_CROWDED_US_MAX && (float)took_us < 4 * policy->wait_us);
}

/* May one more be queued on a server behind `ahead` exchanges (what runs included) that take `ahead_us` together,
 * undisturbed (sum of floor_us of their classes)? Else it takes an idle server, though `limit` are busy.
 *
 * As long as the limit was found by trials just now, or set by the operator, the count alone decides: the limit
 * is the answer to how long everybody waits. A pool that had too little to do for trials may get forty questions at
 * once, and half a millisecond each they would be a long queue for the two servers that it began with. */
static inline bool sharing_policy_has_room(const struct sharing_policy *policy, uint64_t now_us,
                                           unsigned ahead, float ahead_us)
{
    return ahead < SHARING_DEPTH_MAX &&
           (ahead_us < SHARING_AHEAD_US_MAX || now_us < policy->tried_until_us ||
            policy->setting != SHARING_AUTO);
}

#endif
