/* Totals over workers are exact; averages are those of the last period, whatever pools come and go.
 */
#include "unit.h"

#include "control/stats.h"

static struct stats stats;

static int setup(void **state)
{
    (void)state;
    stats_init(&stats, 1000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stats_release(&stats);
    return 0;
}

static struct pool_row row_of(const char *database, uint64_t pool_id, uint64_t xacts,
                              uint64_t xact_us)
{
    struct pool_row row = {.pool_id = pool_id};

    strcpy(row.database, database);
    row.stats.xact_count = xacts;
    row.stats.xact_us = xact_us;
    return row;
}

static const struct database_stats *database(const char *name)
{
    for (size_t i = 0; i < stats.database_count; i++)
        if (strcmp(stats.databases[i].database, name) == 0)
            return &stats.databases[i];
    return NULL;
}

static void test_totals_are_summed_over_workers_and_users(void **state)
{
    struct pool_row rows[] = {row_of("b", 1, 10, 100), row_of("a", 2, 5, 50), row_of("b", 3, 7, 70),
                              row_of("b", 4, 1, 10)};

    (void)state;
    stats_sum(&stats, rows, COUNT_OF(rows));
    assert_int_equal(stats.database_count, 3);
    assert_string_equal(stats.databases[0].database, "a");
    assert_string_equal(stats.databases[1].database, "b");
    assert_string_equal(stats.databases[2].database, "pgbouncer");
    assert_int_equal(database("a")->total.xact_count, 5);
    assert_int_equal(database("b")->total.xact_count, 18);
    assert_int_equal(stats.all.total.xact_count, 23);
    assert_int_equal(stats.all.total.xact_us, 230);
    /* Asked again, nothing is counted twice. */
    stats_sum(&stats, rows, COUNT_OF(rows));
    assert_int_equal(database("b")->total.xact_count, 18);
    assert_int_equal(stats.all.total.xact_count, 23);
}

static void test_every_counter_is_summed(void **state)
{
    struct pool_row rows[2] = {row_of("a", 1, 0, 0), row_of("a", 2, 0, 0)};

    (void)state;
    for (size_t r = 0; r < 2; r++)
        for (size_t i = 0; i < sizeof(struct pool_stats) / 8; i++)
            ((uint64_t *)(void *)&rows[r].stats)[i] = (r + 1) * 100 + i;
    stats_sum(&stats, rows, 2);
    for (size_t i = 0; i < sizeof(struct pool_stats) / 8; i++)
        assert_int_equal(((const uint64_t *)(const void *)&database("a")->total)[i], 300 + 2 * i);
}

static void test_averages_are_per_second_of_the_time_that_has_passed(void **state)
{
    struct pool_row rows[] = {row_of("a", 1, 100, 5000), row_of("a", 2, 20, 1000)};

    (void)state;
    stats_end_period(&stats, rows, 2, 1000 + 4 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 30);
    assert_int_equal(database("a")->average.xact_us, 50);
    /* The next period: only what is new, over its own length. */
    rows[0] = row_of("a", 1, 150, 15000);
    rows[1] = row_of("a", 2, 20, 1000);
    stats_end_period(&stats, rows, 2, 1000 + 6 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 25);
    assert_int_equal(database("a")->average.xact_us, 200);
    /* Nothing happened. */
    stats_end_period(&stats, rows, 2, 1000 + 7 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 0);
    assert_int_equal(database("a")->average.xact_us, 0);
    assert_int_equal(database("a")->total.xact_count, 170);
}

static void test_averages_stay_while_tables_are_shown(void **state)
{
    struct pool_row rows[] = {row_of("a", 1, 100, 5000)};

    (void)state;
    stats_end_period(&stats, rows, 1, 1000 + US_PER_S);
    rows[0] = row_of("a", 1, 900, 5000);
    stats_sum(&stats, rows, 1);
    assert_int_equal(database("a")->average.xact_count, 100);
    stats_end_period(&stats, rows, 1, 1000 + 2 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 800);
}

static void test_an_average_over_all_is_not_the_average_of_averages(void **state)
{
    struct pool_row rows[] = {row_of("a", 1, 1, 1000), row_of("b", 2, 99, 9900)};

    (void)state;
    stats_end_period(&stats, rows, 2, 1000 + US_PER_S);
    assert_int_equal(database("a")->average.xact_us, 1000);
    assert_int_equal(database("b")->average.xact_us, 100);
    assert_int_equal(stats.all.average.xact_us, 109);
    assert_int_equal(stats.all.average.xact_count, 100);
}

static void test_a_pool_that_vanishes_takes_its_figures_with_it(void **state)
{
    struct pool_row rows[] = {row_of("a", 1, 100, 0), row_of("b", 2, 50, 0)};

    (void)state;
    stats_end_period(&stats, rows, 2, 1000 + US_PER_S);
    stats_end_period(&stats, rows, 1, 1000 + 2 * US_PER_S);
    assert_null(database("b"));
    assert_int_equal(stats.all.total.xact_count, 100);
    assert_int_equal(stats.all.average.xact_count, 0);
    stats_end_period(&stats, rows, 0, 1000 + 3 * US_PER_S);
    assert_int_equal(stats.database_count, 1);
    assert_int_equal(stats.all.total.xact_count, 0);
}

static void test_a_pool_that_comes_back_begins_at_zero(void **state)
{
    struct pool_row rows[] = {row_of("a", 1, 100, 1000)};

    (void)state;
    stats_end_period(&stats, rows, 1, 1000 + US_PER_S);
    /* Another pool of the same name, with more than the old one ever had ... */
    rows[0] = row_of("a", 7, 130, 2600);
    stats_end_period(&stats, rows, 1, 1000 + 2 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 130);
    assert_int_equal(database("a")->average.xact_us, 20);
    /* ... or with less. */
    rows[0] = row_of("a", 8, 40, 400);
    stats_end_period(&stats, rows, 1, 1000 + 3 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 40);
    assert_int_equal(database("a")->total.xact_count, 40);
}

static void test_one_pool_coming_back_leaves_its_sisters_alone(void **state)
{
    struct pool_row rows[] = {row_of("a", 1, 1000, 0), row_of("a", 2, 10, 0)};

    (void)state;
    stats_end_period(&stats, rows, 2, 1000 + US_PER_S);
    /* The big one starts anew: the sum falls, and yet 5 + 3 transactions were done. */
    rows[0] = row_of("a", 9, 5, 0);
    rows[1] = row_of("a", 2, 13, 0);
    stats_end_period(&stats, rows, 2, 1000 + 2 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 8);
}

static void test_rows_may_come_in_any_order(void **state)
{
    struct pool_row rows[] = {row_of("a", 5, 1, 0), row_of("a", 3, 2, 0), row_of("a", 4, 3, 0)};
    struct pool_row later[] = {row_of("a", 4, 13, 0), row_of("a", 5, 11, 0), row_of("a", 3, 12, 0)};

    (void)state;
    stats_end_period(&stats, rows, 3, 1000 + US_PER_S);
    stats_end_period(&stats, later, 3, 1000 + 2 * US_PER_S);
    assert_int_equal(database("a")->average.xact_count, 30);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_totals_are_summed_over_workers_and_users),
        TEST(test_every_counter_is_summed),
        TEST(test_averages_are_per_second_of_the_time_that_has_passed),
        TEST(test_averages_stay_while_tables_are_shown),
        TEST(test_an_average_over_all_is_not_the_average_of_averages),
        TEST(test_a_pool_that_vanishes_takes_its_figures_with_it),
        TEST(test_a_pool_that_comes_back_begins_at_zero),
        TEST(test_one_pool_coming_back_leaves_its_sisters_alone),
        TEST(test_rows_may_come_in_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
