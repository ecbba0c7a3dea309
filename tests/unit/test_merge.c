/* Rows of several workers become one picture. */
#include "unit.h"

#include "control/merge.h"

static struct pool_row shard(const char *database, const char *user, unsigned worker)
{
    struct pool_row row = {.worker = worker, .pool_mode = 1};

    strcpy(row.database, database);
    strcpy(row.user, user);
    return row;
}

static void test_shards_of_a_pool_are_one_row_with_all_counts_summed(void **state)
{
    struct pool_row rows[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        unsigned *counts = &rows[i].cl_active;

        rows[i] = shard("app", "me", i);
        /* Every count gets a value of its own, so that none can be left out or mistaken. */
        for (unsigned k = 0; k <= &rows[i].client_count - &rows[i].cl_active; k++)
            counts[k] = (i + 1) * 100 + k;
        for (size_t k = 0; k < sizeof(struct pool_stats) / 8; k++)
            ((uint64_t *)(void *)&rows[i].stats)[k] = (i + 1) * 1000 + k;
        rows[i].lent_total = i;
        rows[i].borrowed_total = 10 + i;
    }
    assert_int_equal(merge_pools(rows, 3), 1);
    for (unsigned k = 0; k <= &rows[0].client_count - &rows[0].cl_active; k++)
        assert_int_equal((&rows[0].cl_active)[k], 600 + 3 * k);
    for (size_t k = 0; k < sizeof(struct pool_stats) / 8; k++)
        assert_int_equal(((uint64_t *)(void *)&rows[0].stats)[k], 6000 + 3 * k);
    assert_int_equal(rows[0].lent_total, 3);
    assert_int_equal(rows[0].borrowed_total, 33);
    assert_int_equal(rows[0].pool_mode, 1);
}

static void test_the_longest_wait_of_a_pool_is_that_of_its_shards(void **state)
{
    struct pool_row rows[3] = {shard("app", "me", 0), shard("app", "me", 1), shard("app", "me", 2)};

    (void)state;
    rows[0].maxwait_us = 5;
    rows[1].maxwait_us = 70;
    rows[2].maxwait_us = 6;
    rows[2].is_paused = true;
    assert_int_equal(merge_pools(rows, 3), 1);
    assert_int_equal(rows[0].maxwait_us, 70);
    assert_true(rows[0].is_paused);
}

static void test_pools_of_other_names_stay_apart_and_are_sorted(void **state)
{
    struct pool_row rows[] = {shard("b", "x", 0), shard("a", "y", 0), shard("b", "x", 1),
                              shard("a", "x", 1), shard("ab", "", 1), shard("a", "bx", 1),
                              shard("b", "x", 2)};
    static const char *const expected[][2] = {
        {"a", "bx"}, {"a", "x"}, {"a", "y"}, {"ab", ""}, {"b", "x"}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        rows[i].sv_idle = 1;
    assert_int_equal(merge_pools(rows, COUNT_OF(rows)), COUNT_OF(expected));
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        assert_string_equal(rows[i].database, expected[i][0]);
        assert_string_equal(rows[i].user, expected[i][1]);
        assert_int_equal(rows[i].sv_idle, i == 4 ? 3 : 1);
    }
    assert_int_equal(merge_pools(rows, 0), 0);
}

static struct socket_row row_of(uint64_t id, uint64_t request_us, uint64_t link)
{
    return (struct socket_row){
        .id = id, .request_us = request_us, .link = link, .state = link != 0 ? "active" : "idle"};
}

static void test_a_server_met_on_two_workers_is_shown_once(void **state)
{
    struct socket_row rows[] = {row_of(7, 100, 0), row_of(3, 50, 0), row_of(9, 1, 0),
                                row_of(3, 80, 4),  row_of(5, 60, 0), row_of(7, 90, 2),
                                row_of(3, 70, 0)};

    (void)state;
    assert_int_equal(merge_sockets(rows, COUNT_OF(rows)), 4);
    assert_int_equal(rows[0].id, 7);
    assert_int_equal(rows[0].request_us, 100); /* the later one, not the one with a link */
    assert_int_equal(rows[1].id, 3);
    assert_int_equal(rows[1].request_us, 80);
    assert_string_equal(rows[1].state, "active");
    assert_int_equal(rows[2].id, 9);
    assert_int_equal(rows[3].id, 5);
}

static void test_of_two_rows_of_one_moment_the_linked_one_counts(void **state)
{
    struct socket_row rows[] = {row_of(3, 50, 0), row_of(3, 50, 9)};
    struct socket_row other_way[] = {row_of(3, 50, 9), row_of(3, 50, 0)};

    (void)state;
    assert_int_equal(merge_sockets(rows, 2), 1);
    assert_int_equal(rows[0].link, 9);
    assert_int_equal(merge_sockets(other_way, 2), 1);
    assert_int_equal(other_way[0].link, 9);
    assert_int_equal(merge_sockets(rows, 0), 0);
}

static void test_a_statement_of_several_workers_is_one_row(void **state)
{
    struct statement_row rows[] = {
        {.name = "b", .server_count = 1},
        {.name = "a", .text = "select 1", .bytes = 11, .bind_count = 3, .client_count = 1},
        {.name = "b",
         .text = "select 2",
         .types = "23",
         .bytes = 15,
         .bind_count = 2,
         .client_count = 2,
         .server_count = 4},
        {.name = "b", .text = "select 2", .types = "23", .bytes = 15, .bind_count = 9},
    };

    (void)state;
    assert_int_equal(merge_statements(rows, COUNT_OF(rows)), 2);
    assert_string_equal(rows[0].name, "b"); /* the most used */
    assert_string_equal(rows[0].text, "select 2");
    assert_string_equal(rows[0].types, "23");
    assert_int_equal(rows[0].bytes, 15);
    assert_int_equal(rows[0].bind_count, 11);
    assert_int_equal(rows[0].client_count, 2);
    assert_int_equal(rows[0].server_count, 5);
    assert_string_equal(rows[1].name, "a");
    assert_int_equal(merge_statements(rows, 0), 0);
}

static void test_shards_that_share_stay_apart_and_are_sorted(void **state)
{
    struct sharing_row rows[] = {{.database = "b", .user = "x", .worker = 0},
                                 {.database = "a", .user = "y", .worker = 1},
                                 {.database = "a", .user = "x", .worker = 2},
                                 {.database = "a", .user = "x", .worker = 0}};
    static const unsigned workers[] = {0, 2, 1, 0};

    (void)state;
    merge_sharing(rows, COUNT_OF(rows));
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(rows[i].worker, workers[i]);
    assert_string_equal(rows[3].database, "b");
    merge_sharing(rows, 0);
}

static void test_a_class_of_several_workers_is_one_row(void **state)
{
    struct class_row rows[] = {
        {.database = "a",
         .user = "x",
         .hash = 7,
         .total = 10,
         .measured = 10,
         .mean_us = 100,
         .deviation_us = 10,
         .floor_us = 90,
         .follow = FOLLOW_UNKNOWN},
        {.database = "a",
         .user = "x",
         .hash = 9,
         .total = 50,
         .measured = 0,
         .follow = FOLLOW_SLOW},
        {.database = "a", .user = "y", .hash = 7, .total = 1, .text = "values (?)"},
        {.database = "a",
         .user = "x",
         .hash = 7,
         .total = 40,
         .measured = 30,
         .mean_us = 200,
         .deviation_us = 50,
         .floor_us = 60,
         .follow = FOLLOW_YES,
         .text = "select ?"},
        {.database = "a",
         .user = "x",
         .hash = 7,
         .total = 21,
         .measured = 20,
         .mean_us = 50,
         .floor_us = 0,
         .follow = FOLLOW_ERRATIC,
         .text = "select  ?"},
    };

    (void)state;
    assert_int_equal(merge_classes(rows, COUNT_OF(rows)), 3);
    assert_int_equal(rows[0].hash, 7); /* the most used of its pool */
    assert_int_equal(rows[0].total, 71);
    assert_int_equal(rows[0].measured, 60);
    assert_float_equal(rows[0].mean_us, 8000.0 / 60, 0.001);
    assert_float_equal(rows[0].deviation_us, 1600.0 / 60, 0.001);
    assert_float_equal(rows[0].floor_us, 60, 0.001); /* 0 is not known */
    assert_int_equal(rows[0].follow, FOLLOW_YES);    /* of the one that has measured 30 */
    assert_true(strncmp(rows[0].text, "select", 6) == 0);
    assert_int_equal(rows[1].hash, 9);
    assert_float_equal(rows[1].mean_us, 0, 0.001);
    assert_int_equal(rows[1].follow, FOLLOW_SLOW);
    assert_string_equal(rows[2].user, "y");
    assert_string_equal(rows[2].text, "values (?)");
    assert_int_equal(merge_classes(rows, 0), 0);
}

static void test_memory_of_all_workers_is_one_row_for_each_name(void **state)
{
    struct memory_row rows[] = {
        {"b", 16, 1, 2}, {"a", 8, 3, 4}, {"b", 16, 10, 20}, {"a", 8, 30, 40}};

    (void)state;
    assert_int_equal(merge_memory(rows, 4), 2);
    assert_string_equal(rows[0].name, "b");
    assert_int_equal(rows[0].used_count, 11);
    assert_int_equal(rows[0].free_count, 22);
    assert_string_equal(rows[1].name, "a");
    assert_int_equal(rows[1].object_bytes, 8);
    assert_int_equal(rows[1].used_count, 33);
    assert_int_equal(merge_memory(rows, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_of_a_pool_are_one_row_with_all_counts_summed),
        cmocka_unit_test(test_the_longest_wait_of_a_pool_is_that_of_its_shards),
        cmocka_unit_test(test_pools_of_other_names_stay_apart_and_are_sorted),
        cmocka_unit_test(test_a_server_met_on_two_workers_is_shown_once),
        cmocka_unit_test(test_of_two_rows_of_one_moment_the_linked_one_counts),
        cmocka_unit_test(test_a_statement_of_several_workers_is_one_row),
        cmocka_unit_test(test_shards_that_share_stay_apart_and_are_sorted),
        cmocka_unit_test(test_a_class_of_several_workers_is_one_row),
        cmocka_unit_test(test_memory_of_all_workers_is_one_row_for_each_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
