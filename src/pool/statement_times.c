#include "pool/statement_times.h"

#include "base/assert.h"

#include <string.h>

enum {
    SETS = STATEMENT_TIMES_MAX / STATEMENT_TIMES_WAYS,

    /* Each use makes a class worth keeping for a second longer, up to ten minutes. So a stream of texts that
     * never come again turns one slot of a set over, and leaves the others alone. */
    KEPT_US_FOR_A_USE = 1000 * 1000,
    KEPT_USES_MAX = 600,

    WEIGHT = 32, /* of a new value in mean and deviation: 1/32 */

    /* Who owes is paid for by fast ones, one each: a class that is slow once in 64 times is not trusted. Some in a
     * row are chance, ten are a habit. */
    DEBT_FOR_SLOW = 64, /* of DEBT_FULL_US and longer; less for less */
    DEBT_FULL_US = 10 * 1000,
    DEBT_ERRATIC = 640,
    DEBT_TRUSTED = 320,
    DEBT_MAX = 1280,
    DEBT_FREE = 64, /* the first ones owe nothing: they fill the caches of new backends */

    FLOOR_PERIOD_BITS = 23, /* 8.4 s */

    PATIENCE_US_MIN = 500,
    PATIENCE_US_MAX = STATEMENT_TIMES_BOUND_US,
};

static_assert(SETS * STATEMENT_TIMES_WAYS == STATEMENT_TIMES_MAX && (SETS & (SETS - 1)) == 0,
              "sets are found by a mask");

static struct statement_time *set_of(struct statement_times *times, uint64_t hash)
{
    /* High bits and low ones: whatever the hash is weak in. */
    return &times->slots[((hash ^ hash >> 32) & (SETS - 1)) * STATEMENT_TIMES_WAYS];
}

struct statement_time *statement_times_find(struct statement_times *times, uint64_t hash,
                                            uint64_t now_us)
{
    struct statement_time *set = set_of(times, hash);

    assert(hash != 0);
    for (unsigned way = 0; way < STATEMENT_TIMES_WAYS; way++)
        if (set[way].hash == hash) {
            set[way].used_us = now_us;
            return &set[way];
        }
    return NULL;
}

static uint64_t worth_keeping_until_us(const struct statement_time *time)
{
    if (time->hash == 0)
        return 0;
    return time->used_us + MIN(time->total + 1, KEPT_USES_MAX) * KEPT_US_FOR_A_USE;
}

struct statement_time *statement_times_make(struct statement_times *times, uint64_t hash,
                                            uint64_t now_us, bool *is_new)
{
    struct statement_time *time = statement_times_find(times, hash, now_us);
    struct statement_time *set = set_of(times, hash);

    *is_new = time == NULL;
    if (time != NULL)
        return time;
    time = set;
    for (unsigned way = 1; way < STATEMENT_TIMES_WAYS; way++)
        if (worth_keeping_until_us(&set[way]) < worth_keeping_until_us(time))
            time = &set[way];
    if (time->hash == 0)
        times->count++;
    *time = (struct statement_time){.hash = hash, .used_us = now_us, .follow = FOLLOW_UNKNOWN};
    return time;
}

/* How much the machine slows it down, as far as its own times tell. */
static float scale(const struct statement_time *time)
{
    /* Twice the floor is what most statements take by nature. */
    float normal_us = 2 * time->floor_us;

    if (normal_us <= 0 || time->median_us < normal_us)
        return 1;
    return MIN(time->median_us / normal_us, (float)STATEMENT_TIMES_SCALE_MAX);
}

static float slow_us(const struct statement_time *time)
{
    return scale(time) * STATEMENT_TIMES_SLOW_US;
}

/* Of the bound. Below it lies what a network of 1 ms takes, where sharing gains most. */
static const float median_part = 0.56f;

static void judge(struct statement_time *time)
{
    float bound = scale(time) * STATEMENT_TIMES_BOUND_US;
    bool was_erratic = time->follow == FOLLOW_ERRATIC;

    /* What has lost the trust must do a little better to win it back. */
    if (time->follow == FOLLOW_SLOW)
        bound *= 0.95f;
    if (time->count < STATEMENT_TIMES_KNOWN_MIN)
        time->follow = FOLLOW_UNKNOWN;
    else if (time->median_us > bound * median_part)
        time->follow = FOLLOW_SLOW;
    else if (time->debt > (was_erratic ? DEBT_TRUSTED : DEBT_ERRATIC))
        time->follow = FOLLOW_ERRATIC;
    else
        time->follow = FOLLOW_YES;
}

/* `owed_us` of them were told before. */
static void owe(struct statement_time *time, uint64_t took_us, uint64_t owed_us)
{
    uint64_t debt_us = MIN(took_us, DEBT_FULL_US) - MIN(owed_us, DEBT_FULL_US);

    if (time->count > DEBT_FREE)
        time->debt = (uint16_t)MIN(time->debt + debt_us * DEBT_FOR_SLOW / DEBT_FULL_US, DEBT_MAX);
}

static void note_floor(struct statement_time *time, float took_us)
{
    uint32_t period = (uint32_t)(time->used_us >> FLOOR_PERIOD_BITS);

    if (time->floor_us == 0) {
        time->floor_us = took_us;
        time->floor_next_us = took_us;
        time->floor_period = period;
    } else if (period != time->floor_period) {
        time->floor_us = time->floor_next_us;
        time->floor_next_us = took_us;
        time->floor_period = period;
    }
    time->floor_next_us = MIN(time->floor_next_us, took_us);
    time->floor_us = MIN(time->floor_us, took_us);
}

void statement_times_note(struct statement_time *time, uint64_t took_us, bool was_first,
                          bool is_crowded)
{
    float took = (float)took_us, weight, difference;

    time->total++;
    if (time->count < UINT32_MAX)
        time->count++;
    weight = 1.0f / (float)MIN(time->count, WEIGHT);
    difference = took - time->mean_us;
    if (time->count == 1) {
        time->mean_us = took;
        time->median_us = took;
    } else {
        time->mean_us += weight * difference;
        time->deviation_us +=
            weight * ((difference < 0 ? -difference : difference) - time->deviation_us);
    }
    /* Steps of 3 %, at first of 6. */
    time->median_us += (took > time->median_us ? 1.0f : -1.0f) * (time->median_us + 1.0f) /
                       (time->count < 256 ? 16.0f : 32.0f);
    if (time->median_us < 0)
        time->median_us = 0;
    if (was_first)
        note_floor(time, MAX(took, 1));
    if (took > slow_us(time)) {
        if (!is_crowded)
            owe(time, took_us, time->overruns_open > 0 ? (uint64_t)slow_us(time) : 0);
        if (time->overruns_open > 0)
            time->overruns_open--;
    } else {
        if (time->debt > 0)
            time->debt--;
    }
    judge(time);
}

void statement_times_overrun(struct statement_time *time, uint64_t so_far_us, bool is_crowded)
{
    if (time->overruns_open < UINT8_MAX)
        time->overruns_open++;
    if (is_crowded)
        return;
    owe(time, so_far_us, 0);
    judge(time);
}

uint64_t statement_times_patience_us(const struct statement_time *time)
{
    float patience = time->mean_us + 8 * time->deviation_us;

    return (uint64_t)MAX(MIN(patience, (float)PATIENCE_US_MAX), (float)PATIENCE_US_MIN);
}

uint64_t statement_times_overrun_us(const struct statement_time *time)
{
    return (uint64_t)slow_us(time);
}
