#include "io/timer.h"

enum { TICK_SHIFT = 10, SLOT_SHIFT = 6 };

static unsigned level_shift(unsigned level)
{
    return level * SLOT_SHIFT;
}

void timers_init(struct timers *timers, uint64_t now_us)
{
    timers->tick = now_us >> TICK_SHIFT;
    timers->run_until_tick = timers->tick;
    for (int level = 0; level < TIMER_LEVELS; level++) {
        timers->occupied[level] = 0;
        for (int slot = 0; slot < TIMER_SLOTS; slot++)
            list_init(&timers->slots[level][slot]);
    }
}

void timer_init(struct timer *timer, timer_fired *fired)
{
    list_init(&timer->link);
    timer->deadline_us = 0;
    timer->fired = fired;
}

static void timer_place(struct timers *timers, struct timer *timer)
{
    /* Rounded up, so that a timer never fires early. */
    uint64_t due = (timer->deadline_us >> TICK_SHIFT) + 1;
    uint64_t ahead;
    unsigned level = 0;
    unsigned slot;

    if (due <= timers->tick)
        due = timers->tick + 1;
    ahead = due - timers->tick;
    while (level < TIMER_LEVELS - 1 && ahead >> level_shift(level + 1) != 0)
        level++;
    /* Beyond the wheel: the last slot that its level can tell apart; looked at again there. */
    if (ahead >> level_shift(TIMER_LEVELS) != 0)
        due = timers->tick + (UINT64_C(1) << level_shift(TIMER_LEVELS)) - 1;
    slot = (unsigned)(due >> level_shift(level)) & (TIMER_SLOTS - 1);
    timers->occupied[level] |= UINT64_C(1) << slot;
    list_push_back(&timers->slots[level][slot], &timer->link);
}

void timer_set(struct timers *timers, struct timer *timer, uint64_t deadline_us)
{
    list_remove(&timer->link);
    /* Behind all that this run still has to do: a callback that sets its timer in the past would
     * otherwise be called for each tick that the thread has slept. */
    timer->deadline_us = MAX(deadline_us, timers->run_until_tick << TICK_SHIFT);
    timer_place(timers, timer);
}

void timer_stop(struct timer *timer)
{
    /* The slot's bit may stay behind: it costs one empty look at most. */
    list_remove(&timer->link);
}

/* The earliest tick at which a slot of `level` must be looked at: its own tick on level 0, the
 * beginning of its stretch above. UINT64_MAX: the level is empty. */
static uint64_t level_next_tick(const struct timers *timers, unsigned level)
{
    uint64_t occupied = timers->occupied[level];
    uint64_t position = timers->tick >> level_shift(level);
    unsigned current = (unsigned)position & (TIMER_SLOTS - 1);
    uint64_t rotated;

    if (occupied == 0)
        return UINT64_MAX;
    /* Bit 0 becomes the slot after the current one. */
    current = (current + 1) & (TIMER_SLOTS - 1);
    rotated = current == 0 ? occupied : occupied >> current | occupied << (TIMER_SLOTS - current);
    return (position + 1 + (unsigned)__builtin_ctzll(rotated)) << level_shift(level);
}

static uint64_t timers_next_tick(const struct timers *timers)
{
    uint64_t next = UINT64_MAX;

    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        uint64_t tick = level_next_tick(timers, level);

        next = MIN(next, tick);
    }
    return next;
}

uint64_t timers_next_us(const struct timers *timers)
{
    uint64_t tick = timers_next_tick(timers);

    return tick == UINT64_MAX ? UINT64_MAX : tick << TICK_SHIFT;
}

/* Takes out the slots whose stretch begins at the current tick, highest level first, and puts their
 * timers where they belong now. */
static void timers_spread(struct timers *timers)
{
    for (unsigned level = TIMER_LEVELS - 1; level > 0; level--) {
        struct list taken;
        unsigned slot;

        if ((timers->tick & ((UINT64_C(1) << level_shift(level)) - 1)) != 0)
            continue;
        slot = (unsigned)(timers->tick >> level_shift(level)) & (TIMER_SLOTS - 1);
        if ((timers->occupied[level] & UINT64_C(1) << slot) == 0)
            continue;
        timers->occupied[level] &= ~(UINT64_C(1) << slot);
        list_init(&taken);
        list_append_all(&taken, &timers->slots[level][slot]);
        list_for_each_safe(link, &taken)
        {
            struct timer *timer = OWNER_OF(link, struct timer, link);

            list_remove(link);
            /* Due this very tick: into the slot that runs next. */
            if ((timer->deadline_us >> TICK_SHIFT) + 1 <= timers->tick) {
                unsigned now_slot = (unsigned)timers->tick & (TIMER_SLOTS - 1);

                timers->occupied[0] |= UINT64_C(1) << now_slot;
                list_push_back(&timers->slots[0][now_slot], link);
            } else {
                timer_place(timers, timer);
            }
        }
    }
}

void timers_run(struct timers *timers, uint64_t now_us)
{
    uint64_t now_tick = now_us >> TICK_SHIFT;

    timers->run_until_tick = now_tick;
    while (timers->tick < now_tick) {
        uint64_t next = timers_next_tick(timers);
        struct list due;
        unsigned slot;

        if (next > now_tick) {
            timers->tick = now_tick;
            return;
        }
        timers->tick = next;
        timers_spread(timers);
        slot = (unsigned)next & (TIMER_SLOTS - 1);
        timers->occupied[0] &= ~(UINT64_C(1) << slot);
        list_init(&due);
        list_append_all(&due, &timers->slots[0][slot]);
        while (!list_is_empty(&due)) {
            struct timer *timer = OWNER_OF(list_front(&due), struct timer, link);

            list_remove(&timer->link);
            if ((timer->deadline_us >> TICK_SHIFT) + 1 > timers->tick)
                timer_place(timers, timer); /* was beyond the wheel */
            else
                timer->fired(timer, now_us);
        }
    }
}
