#include "unit.h"

#include "base/slab.h"

enum { OBJECTS = 100 };

static void objects_are_apart_aligned_and_keep_their_index(void **state)
{
    struct slab slab;
    uint8_t *objects[OBJECTS];

    (void)state;
    assert_true(slab_init(&slab, "test", 40, OBJECTS));
    assert_int_equal(slab.object_bytes, 48);
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = slab_take(&slab);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % 16, 0);
        memset(objects[i], i, 40);
    }
    assert_int_equal(slab.used_count, OBJECTS);
    for (int i = 0; i < OBJECTS; i++) {
        assert_ptr_equal(slab_at(&slab, slab_index(&slab, objects[i])), objects[i]);
        for (int byte = 0; byte < 40; byte++)
            assert_int_equal(objects[i][byte], i);
    }
    slab_release(&slab);
}

static void the_limit_is_answered_with_null_and_recovers(void **state)
{
    struct slab slab;
    void *objects[4];

    (void)state;
    assert_true(slab_init(&slab, "test", 16, 4));
    for (int i = 0; i < 4; i++)
        objects[i] = slab_take(&slab);
    assert_null(slab_take(&slab));
    assert_null(slab_take(&slab));
    assert_int_equal(slab.used_count, 4);
    slab_give(&slab, objects[2]);
    assert_ptr_equal(slab_take(&slab), objects[2]);
    assert_null(slab_take(&slab));
    slab_release(&slab);
}

static void the_last_given_is_the_first_taken(void **state)
{
    struct slab slab;
    void *objects[3];

    (void)state;
    assert_true(slab_init(&slab, "test", 64, 10));
    for (int i = 0; i < 3; i++)
        objects[i] = slab_take(&slab);
    slab_give(&slab, objects[0]);
    slab_give(&slab, objects[2]);
    slab_give(&slab, objects[1]);
    assert_ptr_equal(slab_take(&slab), objects[1]);
    assert_ptr_equal(slab_take(&slab), objects[2]);
    assert_ptr_equal(slab_take(&slab), objects[0]);
    assert_int_equal(slab.touched_count, 3);
    slab_release(&slab);
}

static void a_random_walk_never_gives_an_object_twice(void **state)
{
    struct slab slab;
    bool in_use[OBJECTS] = {false};
    void *taken[OBJECTS];
    uint32_t count = 0;
    uint64_t seed = 1;

    (void)state;
    assert_true(slab_init(&slab, "test", 24, OBJECTS));
    for (int step = 0; step < 100000; step++) {
        if (random_below(&seed, 2) == 0) {
            void *object = slab_take(&slab);

            if (object == NULL) {
                assert_int_equal(count, OBJECTS);
                continue;
            }
            assert_false(in_use[slab_index(&slab, object)]);
            in_use[slab_index(&slab, object)] = true;
            taken[count++] = object;
        } else if (count > 0) {
            uint32_t victim = (uint32_t)random_below(&seed, count);

            in_use[slab_index(&slab, taken[victim])] = false;
            slab_give(&slab, taken[victim]);
            taken[victim] = taken[--count];
        }
        assert_int_equal(slab.used_count, count);
    }
    slab_release(&slab);
}

static void a_stretch_that_cannot_be_had_is_refused(void **state)
{
    struct slab slab;

    (void)state;
    assert_false(slab_init(&slab, "test", (size_t)1 << 40, 1 << 20));
    slab_release(&slab);
}

static struct slab broken;

static void foreign_indexes_and_addresses_are_refused(void **state)
{
    (void)state;
    assert_true(slab_init(&broken, "test", 16, 4));
    expect_broken_invariant((void)slab_at(&broken, 4));
    expect_broken_invariant((void)slab_index(&broken, &broken));
    expect_broken_invariant((void)slab_index(&broken, broken.base - 16));
    expect_broken_invariant(slab_give(&broken, broken.base));
    slab_release(&broken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_apart_aligned_and_keep_their_index),
        cmocka_unit_test(the_limit_is_answered_with_null_and_recovers),
        cmocka_unit_test(the_last_given_is_the_first_taken),
        cmocka_unit_test(a_random_walk_never_gives_an_object_twice),
        cmocka_unit_test(a_stretch_that_cannot_be_had_is_refused),
        cmocka_unit_test(foreign_indexes_and_addresses_are_refused),
    };

    return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}
