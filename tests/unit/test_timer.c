#include "unit.h"

#include "io/timer.h"

#include <stdlib.h>

enum { TICK_US = 1024 };

static const uint64_t start_us = UINT64_C(987654321987);

struct alarm {
    struct timer timer;
    uint64_t deadline_us; /* 0: not set */
    uint64_t fired_us;
    unsigned fired_count;
    struct timers *timers;
    struct alarm *other;
};

static void alarm_fired(struct timer *timer, uint64_t now_us)
{
    struct alarm *alarm = OWNER_OF(timer, struct alarm, timer);

    assert_false(timer_is_set(timer));
    assert_true(now_us >= timer->deadline_us);
    alarm->fired_us = now_us;
    alarm->fired_count++;
}

/* Runs the wheel as a loop would: sleeps until timers_next_us, no longer. */
static uint64_t run_until_fired(struct timers *timers, struct alarm *alarm, uint64_t now_us)
{
    unsigned turns = 0;

    while (alarm->fired_count == 0) {
        uint64_t next_us = timers_next_us(timers);

        assert_true(next_us != UINT64_MAX);
        assert_true(next_us > now_us);
        now_us = next_us;
        timers_run(timers, now_us);
        assert_true(++turns < 1000);
    }
    return now_us;
}

static void a_deadline_at_every_distance_is_kept_to_the_tick(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    uint64_t seed = 3;

    (void)state;
    /* Distances around every power of two: all levels and their borders, up to 40 days. */
    for (unsigned shift = 0; shift < 42; shift++)
        for (int around = -2; around <= 2; around++)
            for (int offset = 0; offset < 8; offset++) {
                uint64_t now_us = start_us + random_below(&seed, UINT64_C(1) << 40);
                uint64_t distance_us = (UINT64_C(1) << shift) + (uint64_t)(around * TICK_US / 2);
                struct alarm alarm = {.timers = timers};
                uint64_t end_us;

                if ((int64_t)distance_us < 0)
                    continue;
                timers_init(timers, now_us);
                timer_init(&alarm.timer, alarm_fired);
                assert_false(timer_is_set(&alarm.timer));
                timer_set(timers, &alarm.timer, now_us + distance_us);
                assert_true(timer_is_set(&alarm.timer));
                end_us = run_until_fired(timers, &alarm, now_us);
                assert_true(end_us >= now_us + distance_us);
                assert_true(end_us <= now_us + distance_us + TICK_US);
                timers_run(timers, end_us + 100 * US_PER_S);
                assert_int_equal(alarm.fired_count, 1);
            }
    free(timers);
}

static void an_empty_wheel_never_wants_to_run(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    struct alarm alarm = {.timers = timers};
    const uint64_t later_us = start_us + (UINT64_C(1) << 45);

    (void)state;
    timers_init(timers, start_us);
    assert_true(timers_next_us(timers) == UINT64_MAX);
    timers_run(timers, later_us);
    timer_init(&alarm.timer, alarm_fired);
    timer_stop(&alarm.timer);
    timer_set(timers, &alarm.timer, later_us + 5000);
    timer_stop(&alarm.timer);
    assert_false(timer_is_set(&alarm.timer));
    timers_run(timers, later_us + 50000);
    assert_int_equal(alarm.fired_count, 0);
    assert_true(timers_next_us(timers) == UINT64_MAX);
    free(timers);
}

static void a_deadline_in_the_past_fires_at_the_next_tick(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    struct alarm alarm = {.timers = timers};

    (void)state;
    timers_init(timers, start_us);
    timer_init(&alarm.timer, alarm_fired);
    timer_set(timers, &alarm.timer, 0);
    assert_true(timers_next_us(timers) <= start_us + TICK_US);
    timers_run(timers, timers_next_us(timers));
    assert_int_equal(alarm.fired_count, 1);
    free(timers);
}

static void a_deadline_of_for_ever_does_not_fire(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    struct alarm alarm = {.timers = timers};

    (void)state;
    timers_init(timers, start_us);
    timer_init(&alarm.timer, alarm_fired);
    timer_set(timers, &alarm.timer, UINT64_MAX);
    for (uint64_t now_us = start_us; now_us < start_us + 400 * 86400 * US_PER_S;
         now_us = timers_next_us(timers))
        timers_run(timers, now_us);
    assert_int_equal(alarm.fired_count, 0);
    assert_true(timer_is_set(&alarm.timer));
    free(timers);
}

static void stop_other(struct timer *timer, uint64_t now_us)
{
    struct alarm *alarm = OWNER_OF(timer, struct alarm, timer);

    alarm_fired(timer, now_us);
    timer_stop(&alarm->other->timer);
}

static void move_other(struct timer *timer, uint64_t now_us)
{
    struct alarm *alarm = OWNER_OF(timer, struct alarm, timer);

    alarm_fired(timer, now_us);
    timer_set(alarm->timers, &alarm->other->timer, now_us + 10 * TICK_US);
}

static void set_again(struct timer *timer, uint64_t now_us)
{
    struct alarm *alarm = OWNER_OF(timer, struct alarm, timer);

    alarm_fired(timer, now_us);
    timer_set(alarm->timers, timer, now_us + 3 * TICK_US);
}

static void set_in_the_past(struct timer *timer, uint64_t now_us)
{
    struct alarm *alarm = OWNER_OF(timer, struct alarm, timer);

    alarm_fired(timer, now_us);
    timer_set(alarm->timers, timer, 1);
}

static void a_callback_may_stop_a_timer_of_the_same_tick(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    struct alarm first = {.timers = timers}, second = {.timers = timers};

    (void)state;
    timers_init(timers, start_us);
    timer_init(&first.timer, stop_other);
    timer_init(&second.timer, stop_other);
    first.other = &second;
    second.other = &first;
    timer_set(timers, &first.timer, start_us + 5000);
    timer_set(timers, &second.timer, start_us + 5000);
    timers_run(timers, start_us + 100000);
    assert_int_equal(first.fired_count + second.fired_count, 1);
    free(timers);
}

static void a_callback_may_move_a_timer_of_the_same_tick(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    struct alarm first = {.timers = timers}, second = {.timers = timers};

    (void)state;
    timers_init(timers, start_us);
    timer_init(&first.timer, move_other);
    timer_init(&second.timer, alarm_fired);
    first.other = &second;
    timer_set(timers, &first.timer, start_us + 5000);
    timer_set(timers, &second.timer, start_us + 5000);
    timers_run(timers, start_us + 8000);
    assert_int_equal(first.fired_count, 1);
    assert_int_equal(second.fired_count, 0);
    timers_run(timers, start_us + 8000 + 12 * TICK_US);
    assert_int_equal(second.fired_count, 1);
    free(timers);
}

static void a_callback_may_set_its_own_timer(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    struct alarm alarm = {.timers = timers};

    (void)state;
    timers_init(timers, start_us);
    timer_init(&alarm.timer, set_again);
    timer_set(timers, &alarm.timer, start_us);
    for (uint64_t now_us = start_us; now_us < start_us + 400 * TICK_US; now_us += 100)
        timers_run(timers, now_us);
    assert_in_range(alarm.fired_count, 95, 134);
    free(timers);
}

static void a_timer_fires_once_in_a_run_even_if_set_in_the_past(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));
    struct alarm alarm = {.timers = timers};

    (void)state;
    timers_init(timers, start_us);
    timer_init(&alarm.timer, set_in_the_past);
    timer_set(timers, &alarm.timer, start_us);
    /* The thread slept for ten seconds: one call of the callback, not ten thousand. */
    timers_run(timers, start_us + 10 * US_PER_S);
    assert_int_equal(alarm.fired_count, 1);
    timers_run(timers, start_us + 10 * US_PER_S + TICK_US);
    assert_int_equal(alarm.fired_count, 2);
    free(timers);
}

enum { MODEL_TIMERS = 200 };

/* A wheel beside a plain array, through simulated months. */
static void the_wheel_agrees_with_an_array(void **state)
{
    struct timers *timers = malloc(sizeof(*timers));

    (void)state;
    for (uint64_t run = 1; run <= 20; run++) {
        struct alarm alarms[MODEL_TIMERS];
        uint64_t seed = run;
        uint64_t now_us = start_us + random_below(&seed, UINT64_C(1) << 42);

        timers_init(timers, now_us);
        for (int i = 0; i < MODEL_TIMERS; i++) {
            alarms[i] = (struct alarm){.timers = timers};
            timer_init(&alarms[i].timer, alarm_fired);
        }
        for (int step = 0; step < 5000; step++) {
            struct alarm *alarm = &alarms[random_below(&seed, MODEL_TIMERS)];
            uint64_t next_us;
            uint64_t first_us = UINT64_MAX;

            switch (random_below(&seed, 8)) {
            case 0:
                timer_stop(&alarm->timer);
                alarm->deadline_us = 0;
                break;
            case 1:
            case 2:
            case 3:
            case 4:
                alarm->deadline_us =
                    now_us + random_below(&seed, UINT64_C(1) << (1 + random_below(&seed, 42)));
                timer_set(timers, &alarm->timer, alarm->deadline_us);
                break;
            default:
                break;
            }
            next_us = timers_next_us(timers);
            for (int i = 0; i < MODEL_TIMERS; i++)
                if (alarms[i].deadline_us != 0)
                    first_us = MIN(first_us, alarms[i].deadline_us);
            if (first_us != UINT64_MAX)
                assert_true(next_us <= first_us + TICK_US);
            /* Mostly as a loop sleeps, now and then too long. */
            if (random_below(&seed, 4) != 0)
                now_us += random_below(&seed, 3 * TICK_US);
            else if (next_us != UINT64_MAX && next_us > now_us)
                now_us = next_us;
            if (random_below(&seed, 500) == 0)
                now_us += random_below(&seed, UINT64_C(1) << 41);
            timers_run(timers, now_us);
            for (int i = 0; i < MODEL_TIMERS; i++) {
                if (alarms[i].fired_count > 0) {
                    assert_int_equal(alarms[i].fired_count, 1);
                    assert_true(alarms[i].deadline_us != 0);
                    assert_true(alarms[i].deadline_us <= now_us);
                    alarms[i].deadline_us = 0;
                    alarms[i].fired_count = 0;
                } else if (alarms[i].deadline_us != 0) {
                    assert_true(timer_is_set(&alarms[i].timer));
                    assert_true(now_us < alarms[i].deadline_us + TICK_US);
                }
            }
        }
    }
    free(timers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deadline_at_every_distance_is_kept_to_the_tick),
        cmocka_unit_test(an_empty_wheel_never_wants_to_run),
        cmocka_unit_test(a_deadline_in_the_past_fires_at_the_next_tick),
        cmocka_unit_test(a_deadline_of_for_ever_does_not_fire),
        cmocka_unit_test(a_callback_may_stop_a_timer_of_the_same_tick),
        cmocka_unit_test(a_callback_may_move_a_timer_of_the_same_tick),
        cmocka_unit_test(a_callback_may_set_its_own_timer),
        cmocka_unit_test(a_timer_fires_once_in_a_run_even_if_set_in_the_past),
        cmocka_unit_test(the_wheel_agrees_with_an_array),
    };

    return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
