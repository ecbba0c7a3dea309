/* What is learned of the times of statements, and when one may be followed. */
#include "unit.h"

#include "pool/statement_times.h"

static struct statement_times times;

static struct statement_time *make(uint64_t hash, uint64_t now_us)
{
    bool is_new;

    return statement_times_make(&times, hash, now_us, &is_new);
}

static struct statement_time *fresh(void)
{
    memset(&times, 0, sizeof(times));
    return make(0x1234567, 1);
}

/* About exponential above the floor: sum of the lengths of runs. */
static uint64_t around(uint64_t *seed, uint64_t floor_us, uint64_t mean_above_us)
{
    uint64_t above = 0;

    while (random_below(seed, 8) != 0)
        above += mean_above_us / 7;
    return floor_us + above;
}

static void note_many(struct statement_time *time, unsigned count, uint64_t took_us)
{
    for (unsigned i = 0; i < count; i++)
        statement_times_note(time, took_us, true, false);
}

static void test_a_class_is_found_after_it_was_made(void **state)
{
    struct statement_time *time = fresh();
    bool is_new = true;

    (void)state;
    assert_int_equal(times.count, 1);
    assert_ptr_equal(statement_times_find(&times, 0x1234567, 2), time);
    assert_int_equal(time->used_us, 2);
    assert_ptr_equal(statement_times_make(&times, 0x1234567, 3, &is_new), time);
    assert_false(is_new);
    assert_null(statement_times_find(&times, 0x1234568, 2));
    assert_int_equal(times.count, 1);
    (void)statement_times_make(&times, 0x1234568, 3, &is_new);
    assert_true(is_new);
    assert_int_equal(times.count, 2);
}

static void test_hashes_fill_the_whole_table_whichever_bits_differ(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift <= 32; shift += 32) {
        memset(&times, 0, sizeof(times));
        for (uint64_t i = 1; i <= STATEMENT_TIMES_MAX; i++)
            (void)make(i << shift, 1);
        assert_true(times.count > STATEMENT_TIMES_MAX * 9 / 10);
    }
}

/* What an application uses all the time survives texts that never come again. */
static void test_a_stream_of_new_classes_does_not_push_out_the_used_ones(void **state)
{
    uint64_t seed = 1, kept = 0, now_us = 0;

    (void)state;
    memset(&times, 0, sizeof(times));
    for (uint64_t i = 1; i <= STATEMENT_TIMES_MAX / 2; i++)
        note_many(make(i, now_us), 20, 50);
    for (unsigned i = 0; i < 100000; i++) {
        now_us += 1000;
        (void)make(random_next(&seed) | 1, now_us);
        if (i % 16 == 0)
            (void)statement_times_find(&times, 1 + i / 16 % (STATEMENT_TIMES_MAX / 2), now_us);
    }
    for (uint64_t i = 1; i <= STATEMENT_TIMES_MAX / 2; i++)
        kept += statement_times_find(&times, i, now_us) != NULL;
    assert_int_equal(kept, STATEMENT_TIMES_MAX / 2);
    assert_int_equal(times.count, STATEMENT_TIMES_MAX);
}

static void test_a_class_that_nobody_uses_any_more_makes_room(void **state)
{
    uint64_t now_us = 0;
    struct statement_time *old;

    (void)state;
    memset(&times, 0, sizeof(times));
    /* Four in one set, the first used most, but long ago. */
    old = make(64, now_us);
    note_many(old, 100000, 50);
    now_us += 3600 * US_PER_S;
    for (uint64_t i = 2; i <= 4; i++)
        note_many(make(i * 64, now_us), 10, 50);
    (void)make(5 * 64, now_us);
    assert_null(statement_times_find(&times, 64, now_us));
    for (uint64_t i = 2; i <= 5; i++)
        assert_non_null(statement_times_find(&times, i * 64, now_us));
    assert_int_equal(times.count, 4);
}

static void test_a_fast_class_is_followed_once_it_was_seen_five_times(void **state)
{
    struct statement_time *time = fresh();

    (void)state;
    assert_int_equal(time->follow, FOLLOW_UNKNOWN);
    for (unsigned i = 0; i < STATEMENT_TIMES_KNOWN_MIN; i++) {
        assert_int_equal(time->follow, FOLLOW_UNKNOWN);
        statement_times_note(time, 40 + i, true, false);
    }
    assert_int_equal(time->follow, FOLLOW_YES);
    assert_int_equal(time->count, STATEMENT_TIMES_KNOWN_MIN);
    assert_int_equal(time->total, STATEMENT_TIMES_KNOWN_MIN);
}

static void test_a_slow_class_is_never_followed(void **state)
{
    struct statement_time *time = fresh();
    uint64_t seed = 2;

    (void)state;
    for (unsigned i = 0; i < 10000; i++) {
        statement_times_note(time, around(&seed, 3000, 1000), true, false);
        assert_int_not_equal(time->follow, FOLLOW_YES);
    }
    assert_int_equal(time->follow, FOLLOW_SLOW);
    assert_true(time->mean_us > 3000 && time->mean_us < 5000);
}

/* The first ones of a new backend fill its caches. */
static void test_cold_backends_do_not_make_a_fast_class_slow_for_long(void **state)
{
    struct statement_time *time = fresh();
    uint64_t seed = 3;
    unsigned fast = 0;

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        statement_times_note(time, around(&seed, 2000, 3000), true, false);
    assert_int_not_equal(time->follow, FOLLOW_YES);
    for (; time->follow != FOLLOW_YES; fast++) {
        assert_true(fast < 500);
        statement_times_note(time, around(&seed, 20, 30), true, false);
    }
    /* Trust lasts. */
    for (unsigned i = 0; i < 100000; i++) {
        statement_times_note(time, around(&seed, 20, 30), true, false);
        assert_int_equal(time->follow, FOLLOW_YES);
    }
}

static unsigned percent_followed(uint64_t seed, unsigned one_in, uint64_t slow_us, bool is_overrun)
{
    struct statement_time *time = fresh();
    unsigned followed = 0, total = 400000;

    for (unsigned i = 0; i < total; i++) {
        if (random_below(&seed, one_in) == 0) {
            if (is_overrun)
                statement_times_overrun(time, statement_times_overrun_us(time), false);
            statement_times_note(time, slow_us, true, false);
        } else {
            statement_times_note(time, around(&seed, 20, 30), true, false);
        }
        followed += time->follow == FOLLOW_YES;
    }
    return (followed + total / 200) / (total / 100);
}

static void test_a_backend_that_lost_its_core_now_and_then_does_not_spoil_its_class(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        assert_in_range(percent_followed(seed, 5000, 10000, false), 98, 100);
        assert_in_range(percent_followed(seed, 5000, 10000, true), 97, 100);
        assert_in_range(percent_followed(seed, 20000, 50000, true), 97, 100);
    }
}

static void test_one_slow_in_twenty_is_never_followed_nor_one_in_forty(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        for (unsigned one_in = 5; one_in <= 20; one_in *= 2) {
            assert_in_range(percent_followed(seed, one_in, 50000, false), 0, 0);
            assert_in_range(percent_followed(seed, one_in, 50000, true), 0, 0);
            assert_in_range(percent_followed(seed, one_in, 8000, false), 0, 0);
        }
        assert_in_range(percent_followed(seed, 40, 50000, false), 0, 10);
        /* Those behind it are moved: a habit of one in 200 is borne. */
        assert_in_range(percent_followed(seed, 200, 50000, true), 90, 100);
    }
}

static void test_times_that_vary_widely_are_not_followed(void **state)
{
    struct statement_time *time = fresh();
    uint64_t seed = 4;

    (void)state;
    /* A fifth takes 5 ms; the median stays low. */
    for (unsigned i = 0; i < 10000; i++) {
        statement_times_note(time, random_below(&seed, 5) == 0 ? 5000 : 50, true, false);
        if (i > 300)
            assert_int_not_equal(time->follow, FOLLOW_YES);
    }
    assert_int_equal(time->follow, FOLLOW_ERRATIC);
}

/* Twenty busy backends on two cores: half a millisecond for what takes 25 us, and long tails. */
static void test_a_full_machine_does_not_make_a_fast_class_slow(void **state)
{
    uint64_t seed = 5;

    (void)state;
    for (unsigned round = 0; round < 10; round++) {
        struct statement_time *time = fresh();
        unsigned followed = 0;

        for (unsigned i = 0; i < 20000; i++) {
            statement_times_note(
                time, around(&seed, 30, 450) + (random_below(&seed, 300) == 0 ? 4000 : 0), true,
                false);
            followed += time->follow == FOLLOW_YES;
        }
        assert_true(followed > 17000);
    }
}

/* A class that is 1 ms by nature gets no such leave. */
static void test_the_bound_grows_only_where_the_floor_is_low(void **state)
{
    struct statement_time *time = fresh();

    (void)state;
    note_many(time, 1000, 1000);
    assert_int_equal(statement_times_overrun_us(time), STATEMENT_TIMES_SLOW_US);
    note_many(time, 1, 20);
    assert_int_equal(statement_times_overrun_us(time),
                     STATEMENT_TIMES_SLOW_US * STATEMENT_TIMES_SCALE_MAX);
}

static void test_an_overrun_is_no_verdict(void **state)
{
    struct statement_time *time = fresh();

    (void)state;
    note_many(time, 1000, 50);
    for (unsigned i = 0; i < 5; i++) {
        statement_times_overrun(time, 4000, false);
        statement_times_note(time, 10000, true, false);
        assert_int_equal(time->follow, FOLLOW_YES);
    }
}

static void test_a_habit_of_overruns_takes_the_trust_for_hundreds(void **state)
{
    struct statement_time *time = fresh();
    unsigned fast = 0;

    (void)state;
    note_many(time, 10000, 50);
    for (unsigned i = 0; i < 20; i++) {
        statement_times_overrun(time, 4000, false);
        statement_times_note(time, 20000, true, false);
        note_many(time, 5, 50);
    }
    for (; time->follow != FOLLOW_YES; fast++)
        statement_times_note(time, 50, true, false);
    assert_in_range(fast, 300, 1500);
}

/* Where too many servers are busy, or everybody waits long, it is the machine. */
static void test_what_is_slow_in_a_crowd_is_not_held_against_it(void **state)
{
    struct statement_time *time = fresh();
    uint64_t seed = 7;

    (void)state;
    note_many(time, 100, 50);
    for (unsigned i = 0; i < 10000; i++) {
        bool is_slow = random_below(&seed, 20) == 0;

        if (is_slow)
            statement_times_overrun(time, 4000, true);
        statement_times_note(time, is_slow ? 20000 : 50, true, true);
        assert_int_equal(time->follow, FOLLOW_YES);
    }
}

/* The end of one that overran may be seen or not (its server was lost). */
static void test_an_overrun_counts_once(void **state)
{
    struct statement_time *time = fresh();
    unsigned debt;

    (void)state;
    note_many(time, 1000, 50);
    statement_times_overrun(time, 4000, false);
    debt = time->debt;
    assert_int_equal(debt, 25);
    statement_times_note(time, 4001, true, false);
    assert_int_equal(time->debt, debt);
    statement_times_overrun(time, 4000, false);
    statement_times_note(time, 10000, true, false);
    assert_int_equal(time->debt, 25 + 25 + 38);
}

static void test_answers_that_come_together_leave_mean_and_floor_true(void **state)
{
    struct statement_time *time = fresh();

    (void)state;
    note_many(time, 100, 60);
    /* Sixteen in one receive: the first waited 400 us for all of them. */
    for (unsigned i = 0; i < 16000; i++)
        statement_times_note(time, i % 16 == 0 ? 400 : 0, i % 160 == 0, false);
    assert_true(time->mean_us > 10 && time->mean_us < 50);
    assert_true(time->floor_us >= 60 && time->floor_us < 100);
    assert_int_equal(time->follow, FOLLOW_YES);
    assert_int_equal(statement_times_overrun_us(time), STATEMENT_TIMES_SLOW_US);
}

static void test_the_floor_rises_slowly_when_the_world_has_changed(void **state)
{
    struct statement_time *time = fresh();

    (void)state;
    for (uint64_t now_us = 1; now_us < 60 * US_PER_S; now_us += US_PER_MS) {
        time->used_us = now_us;
        statement_times_note(time, now_us < 10 * US_PER_S ? 50 : 500, true, false);
        if (now_us < 16 * US_PER_S)
            assert_true(time->floor_us == 50);
        if (now_us > 30 * US_PER_S)
            assert_true(time->floor_us == 500);
    }
    statement_times_note(time, 60, true, false);
    assert_true(time->floor_us == 60);
}

static void test_patience_lies_between_half_a_millisecond_and_two(void **state)
{
    struct statement_time *time = fresh();
    uint64_t seed = 6;

    (void)state;
    note_many(time, 100, 20);
    assert_int_equal(statement_times_patience_us(time), 500);
    for (unsigned i = 0; i < 1000; i++)
        statement_times_note(time, around(&seed, 50, 100), true, false);
    assert_in_range(statement_times_patience_us(time), 501, 1500);
    note_many(time, 1000, 100000);
    assert_int_equal(statement_times_patience_us(time), 2000);
}

static void test_hash_zero_is_nobodys(void **state)
{
    (void)state;
    memset(&times, 0, sizeof(times));
    expect_broken_invariant((void)statement_times_find(&times, 0, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_class_is_found_after_it_was_made),
        cmocka_unit_test(test_hashes_fill_the_whole_table_whichever_bits_differ),
        cmocka_unit_test(test_a_stream_of_new_classes_does_not_push_out_the_used_ones),
        cmocka_unit_test(test_a_class_that_nobody_uses_any_more_makes_room),
        cmocka_unit_test(test_a_fast_class_is_followed_once_it_was_seen_five_times),
        cmocka_unit_test(test_a_slow_class_is_never_followed),
        cmocka_unit_test(test_cold_backends_do_not_make_a_fast_class_slow_for_long),
        cmocka_unit_test(test_a_backend_that_lost_its_core_now_and_then_does_not_spoil_its_class),
        cmocka_unit_test(test_one_slow_in_twenty_is_never_followed_nor_one_in_forty),
        cmocka_unit_test(test_times_that_vary_widely_are_not_followed),
        cmocka_unit_test(test_a_full_machine_does_not_make_a_fast_class_slow),
        cmocka_unit_test(test_the_bound_grows_only_where_the_floor_is_low),
        cmocka_unit_test(test_an_overrun_is_no_verdict),
        cmocka_unit_test(test_a_habit_of_overruns_takes_the_trust_for_hundreds),
        cmocka_unit_test(test_what_is_slow_in_a_crowd_is_not_held_against_it),
        cmocka_unit_test(test_an_overrun_counts_once),
        cmocka_unit_test(test_answers_that_come_together_leave_mean_and_floor_true),
        cmocka_unit_test(test_the_floor_rises_slowly_when_the_world_has_changed),
        cmocka_unit_test(test_patience_lies_between_half_a_millisecond_and_two),
        cmocka_unit_test(test_hash_zero_is_nobodys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
