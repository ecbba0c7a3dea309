/* timer.h - a hierarchical timer wheel: set, move and stop in constant time, no allocation.
 *
 * Five levels of 64 slots, a tick of about a millisecond (1,024 us): deadlines up to 12 days ahead
 * are kept exactly to the tick, later ones are looked at again then. A timer fires in timers_run,
 * never early, at most one tick late by the wheel's own doing. One wheel for each worker; one
 * thread. */
#ifndef IO_TIMER_H
#define IO_TIMER_H

#include "base/list.h"

struct timer;
typedef void timer_fired(struct timer *timer, uint64_t now_us);

struct timer {
    struct list link;
    uint64_t deadline_us;
    timer_fired *fired;
};

enum { TIMER_LEVELS = 5, TIMER_SLOTS = 64 };

struct timers {
    uint64_t tick;           /* all slots up to here have been run */
    uint64_t run_until_tick; /* of the last or the current timers_run */
    uint64_t occupied[TIMER_LEVELS];
    struct list slots[TIMER_LEVELS][TIMER_SLOTS];
};

void timers_init(struct timers *timers, uint64_t now_us);

void timer_init(struct timer *timer, timer_fired *fired);

static inline bool timer_is_set(const struct timer *timer)
{
    return !list_is_empty(&timer->link);
}

/* Sets, or moves. A deadline in the past fires at the next tick; set by a callback, never in the
 * same timers_run. */
void timer_set(struct timers *timers, struct timer *timer, uint64_t deadline_us);
void timer_stop(struct timer *timer);

/* Fires what is due; a fired timer is stopped first and may be set again by its function. */
void timers_run(struct timers *timers, uint64_t now_us);

/* When timers_run should be called next: at most a tick behind the first deadline, UINT64_MAX when
 * no timer is set. May be earlier (a slot of a higher level must be spread). */
uint64_t timers_next_us(const struct timers *timers);

#endif
