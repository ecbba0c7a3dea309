/* What several cores do to one shard set at the same time; build it with SANITIZE=-fsanitize=thread
 * too. */
#include "unit.h"

#include "pool/shard.h"
#include "pool/usage.h"

#include <pthread.h>
#include <sched.h>

enum { THREADS = 4, ROUNDS = 20000 };

static struct shard_table table;
static struct shard_set *set;

static int set_up(void **state)
{
    (void)state;
    assert_true(shard_table_init(&table, THREADS));
    set = shard_set_find(&table, "shop", "bob");
    assert_non_null(set);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    shard_table_release(&table);
    return 0;
}

static void run_threads(void *(*run)(void *))
{
    pthread_t threads[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, (void *)i), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *complaint;

        pthread_join(threads[i], &complaint);
        if (complaint != NULL)
            fail_msg("%s", (const char *)complaint);
    }
}

/* Whoever may say names without end must not take the sets of those who have proved who they are. */
static void test_strangers_make_some_sets_only(void **state)
{
    char name[DATABASE_NAME_BYTES_MAX];
    const struct shard_set *first;

    (void)state;
    first = shard_set_find_for_stranger(&table, "0", "auth");
    assert_non_null(first);
    for (unsigned i = 1; i < SHARD_SETS_FOR_STRANGERS_MAX; i++) {
        snprintf(name, sizeof(name), "%u", i);
        assert_non_null(shard_set_find_for_stranger(&table, name, "auth"));
    }
    assert_null(shard_set_find_for_stranger(&table, "one more", "auth"));
    /* What is there is found, by strangers too; others make more. */
    assert_ptr_equal(shard_set_find_for_stranger(&table, "0", "auth"), first);
    assert_ptr_equal(shard_set_find_for_stranger(&table, "shop", "bob"), set);
    assert_non_null(shard_set_find(&table, "one more", "auth"));
    assert_non_null(shard_set_find_for_stranger(&table, "one more", "auth"));
}

static void test_looking_at_a_count_makes_none(void **state)
{
    struct usage_table usage;
    const struct usage *bob;

    (void)state;
    assert_true(usage_table_init(&usage));
    assert_null(usage_look(&usage, USAGE_USER, "bob"));
    bob = usage_find(&usage, USAGE_USER, "bob");
    assert_non_null(bob);
    assert_ptr_equal(usage_look(&usage, USAGE_USER, "bob"), bob);
    assert_null(usage_look(&usage, USAGE_DATABASE, "bob"));
    usage_table_release(&usage);
}

static void test_a_pool_has_one_set(void **state)
{
    char long_name[USER_NAME_BYTES_MAX + 1];

    (void)state;
    assert_ptr_equal(shard_set_find(&table, "shop", "bob"), set);
    assert_ptr_not_equal(shard_set_find(&table, "shop", "eve"), set);
    assert_ptr_not_equal(shard_set_find(&table, "shopb", "ob"), set);
    memset(long_name, 'a', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    assert_null(shard_set_find(&table, "shop", long_name));
    assert_null(shard_set_find(&table, long_name, "bob"));
}

static void test_each_core_has_one_shard(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (unsigned core = 0; core < THREADS; core++) {
        unsigned index = shard_index_on(set, core);

        assert_true(index < THREADS);
        assert_int_equal(shard_core(set, index), core);
        seen |= 1u << index;
    }
    assert_int_equal(seen, (1u << THREADS) - 1);
    assert_int_equal(shard_core(set, 0), set->home);
}

static void test_number_of_shards(void **state)
{
    static const struct {
        int pool_size, wanted;
        unsigned cores, count;
    } table_of[] = {
        {20, 0, 1, 1},
        {20, 0, 4, 4},
        {20, 0, 8, 5},
        {3, 0, 8, 1},
        {1, 0, 8, 1},
        {4, 0, 8, 1},
        {8, 0, 8, 2},
        {0, 0, 8, 8},
        {1, 3, 8, 3},
        {100, 1, 8, 1},
        {20, 9, 4, 4},
        {0, 0, 200, SHARDS_MAX},
        {1000, 0, 200, SHARDS_MAX},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(table_of); i++)
        assert_int_equal(
            shard_count_of(table_of[i].pool_size, table_of[i].wanted, table_of[i].cores),
            table_of[i].count);
}

static void test_clients_go_where_the_fewest_are_and_stay_at_a_tie(void **state)
{
    unsigned own = shard_index_on(set, 2);
    struct shard *shard;

    (void)state;
    /* Everywhere the same: the core that accepted it keeps it. */
    assert_int_equal(shard_index(set, shard_choose(set, THREADS, 2)), own);
    /* Now each of the others has fewer. */
    for (unsigned i = 1; i < THREADS; i++)
        assert_int_not_equal(shard_index(set, shard_choose(set, THREADS, 2)), own);
    assert_int_equal(shard_index(set, shard_choose(set, THREADS, 2)), own);
    shard_leave(&set->shards[(own + 1) % THREADS]);
    shard_leave(&set->shards[own]);
    shard_leave(&set->shards[own]);
    assert_int_equal(shard_index(set, shard_choose(set, THREADS, 2)), own);
    /* A core that has none of the pool's shards. */
    shard = shard_choose(set, 1, shard_core(set, 1));
    assert_int_equal(shard_index(set, shard), 0);
}

/* ---- bulletins ---- */

struct paper {
    uint64_t number[41];
    uint8_t tail; /* not a whole word */
};

static struct bulletin bulletin;
static _Atomic uint64_t words[(sizeof(struct paper) + 7) / 8];
static atomic_uint written, read_count;

static void *write_and_read(void *argument)
{
    uint64_t seed = (uintptr_t)argument + 1;
    unsigned last_version = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct paper paper;
        unsigned version;

        if (round % 4 == 0) {
            uint64_t number = random_next(&seed);

            for (size_t i = 0; i < COUNT_OF(paper.number); i++)
                paper.number[i] = number + i;
            paper.tail = (uint8_t)number;
            if (bulletin_write(&bulletin, words, &paper, sizeof(paper)))
                atomic_fetch_add(&written, 1);
        }
        if (!bulletin_read(&bulletin, words, &paper, sizeof(paper), &version)) {
            sched_yield();
            continue;
        }
        atomic_fetch_add(&read_count, 1);
        if (version % 2 == 1 || version < last_version)
            return "a version that was being written, or an older one";
        last_version = version;
        for (size_t i = 0; i < COUNT_OF(paper.number); i++)
            if (paper.number[i] != paper.number[0] + i)
                return "torn between two writers";
        if (paper.tail != (uint8_t)paper.number[0])
            return "torn at its end";
    }
    return NULL;
}

static void test_a_bulletin_is_whole_or_nothing(void **state)
{
    struct paper paper;
    unsigned version;

    (void)state;
    assert_false(bulletin_read(&bulletin, words, &paper, sizeof(paper), &version));
    run_threads(write_and_read);
    assert_true(atomic_load(&written) > 0);
    assert_true(atomic_load(&read_count) > 0);
    assert_int_equal(atomic_load(&bulletin.version), 2 * atomic_load(&written));
}

/* ---- wanting and lending ---- */

static atomic_uint claimed[THREADS], given[THREADS];

/* Each thread is a shard that wants servers, takes back some of what it wants, and lends to others.
 */
static void *want_and_claim(void *argument)
{
    unsigned own = (unsigned)(uintptr_t)argument;
    uint64_t seed = own + 100;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t oldest_us;
        int index;

        switch (random_below(&seed, 3)) {
        case 0: {
            int count = 1 + (int)random_below(&seed, 3);

            (void)!shard_want(set, own, count);
            atomic_fetch_add(&given[own], (unsigned)count);
            break;
        }
        case 1:
            if (shard_claim(set, own))
                atomic_fetch_add(&claimed[own], 1);
            break;
        default:
            index = shard_hungriest(set, UINT64_C(1) << own, &oldest_us);
            if (index == (int)own)
                return "its own hunger";
            if (index >= 0 && shard_claim(set, (unsigned)index))
                atomic_fetch_add(&claimed[index], 1);
        }
    }
    return NULL;
}

static void test_what_is_wanted_is_claimed_once_and_the_bits_tell_the_truth(void **state)
{
    (void)state;
    run_threads(want_and_claim);
    for (unsigned k = 0; k < THREADS; k++) {
        int wanted = atomic_load(&set->shards[k].wanted);
        bool is_hungry = (atomic_load(&set->hungry) >> k & 1) != 0;

        assert_true(wanted >= 0);
        assert_int_equal(atomic_load(&given[k]) - atomic_load(&claimed[k]), wanted);
        assert_int_equal(is_hungry, wanted > 0);
        while (shard_claim(set, k))
            ;
        assert_int_equal(atomic_load(&set->shards[k].wanted), 0);
    }
    assert_true(atomic_load(&set->hungry) == 0);
}

static void test_the_longest_wait_is_served_first(void **state)
{
    uint64_t oldest_us;

    (void)state;
    assert_int_equal(shard_hungriest(set, 0, &oldest_us), -1);
    for (unsigned k = 0; k < THREADS; k++) {
        assert_true(shard_want(set, k, 1));
        assert_false(shard_want(set, k, 1));
        atomic_store(&set->shards[k].oldest_us, 1000 - (k == 2 ? 500 : k));
    }
    assert_int_equal(shard_hungriest(set, 0, &oldest_us), 2);
    assert_int_equal(oldest_us, 500);
    assert_int_equal(shard_hungriest(set, 1u << 2, &oldest_us), 3);
    assert_int_equal(shard_hungriest(set, 0xf, &oldest_us), -1);
    /* Wanted no more: the next one. */
    assert_true(shard_claim(set, 2));
    assert_int_equal(shard_hungriest(set, 0, &oldest_us), 2);
    assert_true(shard_claim(set, 2));
    assert_int_equal(shard_hungriest(set, 0, &oldest_us), 3);
    assert_false(shard_claim(set, 2));
}

/* ---- limits ---- */

static atomic_int floor_count;
static atomic_uint left_count;

static void *leave_until_the_least(void *argument)
{
    (void)argument;
    for (unsigned round = 0; round < ROUNDS; round++)
        if (usage_give_above(&floor_count, 5)) {
            if (usage_count(&floor_count) < 5)
                return "below the least";
            atomic_fetch_add(&left_count, 1);
            if (random_below(&(uint64_t){round}, 2) == 0 && usage_take(&floor_count, 50))
                atomic_fetch_sub(&left_count, 1);
        }
    return NULL;
}

static void test_of_several_who_would_leave_the_least_stay(void **state)
{
    (void)state;
    atomic_store(&floor_count, 50);
    run_threads(leave_until_the_least);
    assert_int_equal(usage_count(&floor_count), 5);
    assert_int_equal(atomic_load(&left_count), 45);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_pool_has_one_set, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_strangers_make_some_sets_only, set_up, tear_down),
        cmocka_unit_test(test_looking_at_a_count_makes_none),
        cmocka_unit_test_setup_teardown(test_each_core_has_one_shard, set_up, tear_down),
        cmocka_unit_test(test_number_of_shards),
        cmocka_unit_test_setup_teardown(test_clients_go_where_the_fewest_are_and_stay_at_a_tie,
                                        set_up, tear_down),
        cmocka_unit_test(test_a_bulletin_is_whole_or_nothing),
        cmocka_unit_test_setup_teardown(
            test_what_is_wanted_is_claimed_once_and_the_bits_tell_the_truth, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_longest_wait_is_served_first, set_up, tear_down),
        cmocka_unit_test(test_of_several_who_would_leave_the_least_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
