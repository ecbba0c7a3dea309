/* The chained table whose links lie in what is listed (pool/hash_table.h). */
#include "unit.h"

#include "pool/hash_table.h"

struct thing {
    struct hash_link link;
    unsigned number;
    bool is_in;
};

enum { THINGS = 20000 };

static struct buffer_pool buffers;
static struct hash_table table;
static struct thing things[THINGS];

static int set_up(void **state)
{
    (void)state;
    assert_true(buffer_pool_init(&buffers, 1024, 16));
    table = (struct hash_table){0};
    for (unsigned i = 0; i < THINGS; i++)
        things[i] = (struct thing){.number = i};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hash_table_release(&table, &buffers);
    assert_int_equal(buffers.parked_bytes, 0);
    buffer_pool_release(&buffers);
    return 0;
}

static struct thing *find(uint64_t hash, unsigned number)
{
    struct hash_link *link = hash_table_find(&table, hash);

    for (; link != NULL; link = hash_table_find_next(link)) {
        struct thing *thing = OWNER_OF(link, struct thing, link);

        assert_int_equal(link->hash, hash);
        if (thing->number == number)
            return thing;
    }
    return NULL;
}

static void add(unsigned index, uint64_t hash)
{
    assert_true(hash_table_add(&table, &buffers, &things[index].link, hash));
    things[index].is_in = true;
}

static void test_an_empty_table_owns_nothing_and_finds_nothing(void **state)
{
    unsigned count = 0;

    (void)state;
    assert_int_equal(buffers.parked_bytes, 0);
    assert_null(hash_table_find(&table, 1));
    hash_table_for_each(link, &table) count++;
    assert_int_equal(count, 0);
    hash_table_release(&table, &buffers);
}

static void test_the_last_one_removed_leaves_a_table_that_goes_on(void **state)
{
    (void)state;
    add(0, 7);
    assert_ptr_equal(find(7, 0), &things[0]);
    hash_table_remove(&table, &things[0].link);
    assert_int_equal(table.count, 0);
    assert_null(hash_table_find(&table, 7));
    add(0, 7);
    assert_ptr_equal(find(7, 0), &things[0]);
}

static void test_links_with_the_same_hash_are_told_apart_by_the_caller(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10; i++)
        add(i, 42);
    add(10, 42 + 8); /* the same bucket, another hash */
    for (unsigned i = 0; i < 10; i++)
        assert_ptr_equal(find(42, i), &things[i]);
    assert_ptr_equal(find(42 + 8, 10), &things[10]);
    assert_null(find(42, 10));
    hash_table_remove(&table, &things[5].link); /* out of the middle of a chain */
    assert_null(find(42, 5));
    assert_ptr_equal(find(42, 4), &things[4]);
    assert_ptr_equal(find(42, 6), &things[6]);
}

/* Against a plain array, while it grows to its most buckets and beyond. */
static void test_what_is_in_is_found_however_much_comes_and_goes(void **state)
{
    uint64_t random = 1;
    unsigned count = 0;

    (void)state;
    for (unsigned round = 0; round < 200000; round++) {
        unsigned index = (unsigned)random_below(&random, THINGS);
        struct thing *thing = &things[index];
        uint64_t hash = index * UINT64_C(0x9e3779b97f4a7c15) >> 20;

        assert_ptr_equal(find(hash, index), thing->is_in ? thing : NULL);
        if (thing->is_in && round % 3 == 0) {
            hash_table_remove(&table, &thing->link);
            thing->is_in = false;
            count--;
        } else if (!thing->is_in) {
            add(index, hash);
            count++;
        }
        assert_int_equal(table.count, count);
    }
    assert_true(count > HASH_TABLE_BUCKETS_MAX);
    assert_int_equal(table.mask + 1, HASH_TABLE_BUCKETS_MAX);
}

static void test_a_walk_meets_each_once_and_may_remove_what_it_meets(void **state)
{
    unsigned met = 0;

    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        add(i, i * UINT64_C(0x9e3779b97f4a7c15) >> 40);
    hash_table_for_each(link, &table)
    {
        struct thing *thing = OWNER_OF(link, struct thing, link);

        assert_true(thing->is_in);
        thing->is_in = false;
        met++;
        if (thing->number % 2 == 0)
            hash_table_remove(&table, link);
    }
    assert_int_equal(met, 1000);
    assert_int_equal(table.count, 500);
    hash_table_for_each(rest, &table)
    {
        assert_int_equal(OWNER_OF(rest, struct thing, link)->number % 2, 1);
        met++;
    }
    assert_int_equal(met, 1500);
}

/* Without memory for more buckets the chains grow, and nothing is lost; without memory for the first ones
 * nothing is listed. */
static void test_without_memory_it_stays_as_it_is(void **state)
{
    uint32_t count_max[PARKED_CLASSES];

    (void)state;
    for (int class = 0; class < PARKED_CLASSES; class ++) {
        count_max[class] = buffers.parked[class].count_max;
        buffers.parked[class].count_max = 0;
    }
    assert_false(hash_table_add(&table, &buffers, &things[0].link, 1));
    assert_int_equal(table.count, 0);
    assert_null(table.buckets);
    buffers.parked[0].count_max = 1;
    for (unsigned i = 0; i < 100; i++)
        add(i, i);
    assert_int_equal(table.mask + 1, 8);
    for (unsigned i = 0; i < 100; i++)
        assert_ptr_equal(find(i, i), &things[i]);
    for (int class = 0; class < PARKED_CLASSES; class ++)
        buffers.parked[class].count_max = count_max[class];
    add(100, 100);
    assert_int_equal(table.mask + 1, 16);
    for (unsigned i = 0; i <= 100; i++)
        assert_ptr_equal(find(i, i), &things[i]);
}

static void test_what_is_not_in_cannot_be_removed(void **state)
{
    (void)state;
    add(0, 1);
    things[1].link.hash = 1;
    expect_broken_invariant(hash_table_remove(&table, &things[1].link));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_empty_table_owns_nothing_and_finds_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_last_one_removed_leaves_a_table_that_goes_on,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links_with_the_same_hash_are_told_apart_by_the_caller,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_in_is_found_however_much_comes_and_goes,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_walk_meets_each_once_and_may_remove_what_it_meets,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_memory_it_stays_as_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_in_cannot_be_removed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
