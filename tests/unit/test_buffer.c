#include "unit.h"

#include "io/buffer.h"

enum { RECEIVE_BYTES = 512, RECEIVE_COUNT = 16 };

static struct buffer_pool pool;

static int setup(void **state)
{
    (void)state;
    return buffer_pool_init(&pool, RECEIVE_BYTES, RECEIVE_COUNT) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    buffer_pool_release(&pool);
    return 0;
}

static void a_receive_buffer_returns_with_its_last_reference(void **state)
{
    struct buffer *buffer;

    (void)state;
    pool.receive_count = RECEIVE_COUNT;
    buffer = buffer_receive_filled(&pool, 3);
    assert_int_equal(buffer->receive_index, 3);
    assert_int_equal(buffer->reference_count, 1);
    assert_int_equal(buffer->bytes_max, RECEIVE_BYTES);
    assert_int_equal(pool.receive_used, 1);
    assert_ptr_equal(buffer_reference(buffer), buffer);
    buffer_release(&pool, buffer);
    assert_int_equal(pool.receive_used, 1);
    assert_int_equal(pool.returned_count, 0);
    buffer_release(&pool, buffer);
    assert_int_equal(pool.receive_used, 0);
    assert_int_equal(pool.returned_count, 1);
    assert_int_equal(pool.returned[0], 3);
}

static void receive_buffers_do_not_overlap(void **state)
{
    struct buffer *buffers[RECEIVE_COUNT];

    (void)state;
    pool.receive_count = RECEIVE_COUNT;
    for (uint16_t i = 0; i < RECEIVE_COUNT; i++) {
        buffers[i] = buffer_receive_filled(&pool, i);
        memset(buffers[i]->data, i, RECEIVE_BYTES);
    }
    for (int i = 0; i < RECEIVE_COUNT; i++) {
        for (int byte = 0; byte < RECEIVE_BYTES; byte++)
            assert_int_equal(buffers[i]->data[byte], i);
        buffer_release(&pool, buffers[i]);
    }
    assert_int_equal(pool.returned_count, RECEIVE_COUNT);
}

static void buffers_are_scarce_from_seven_eighths_on(void **state)
{
    (void)state;
    pool.receive_count = RECEIVE_COUNT;
    for (uint16_t i = 0; i < RECEIVE_COUNT; i++) {
        assert_int_equal(buffer_pool_is_scarce(&pool), i >= RECEIVE_COUNT / 8 * 7);
        assert_non_null(buffer_receive_filled(&pool, i));
    }
    assert_true(buffer_pool_is_scarce(&pool));
}

static void a_parked_buffer_fits_every_size(void **state)
{
    static const size_t class_bytes[PARKED_CLASSES] = {128, 1024, 4096, 16384, 65536};

    (void)state;
    for (size_t bytes = 0; bytes <= (size_t)BUFFER_PARKED_BYTES_MAX; bytes++) {
        struct buffer *buffer = buffer_park(&pool, bytes);
        unsigned class = buffer->parked_class;

        assert_true(buffer->bytes_max >= bytes);
        assert_true(buffer->reference_count == 1);
        assert_true(class < PARKED_CLASSES);
        assert_true(sizeof(*buffer) + buffer->bytes_max == class_bytes[class]);
        /* The smallest class that fits. */
        assert_true(class == 0 || bytes > class_bytes[class - 1] - sizeof(*buffer));
        assert_true(pool.parked_bytes == class_bytes[class]);
        memset(buffer->data, 1, buffer->bytes_max);
        buffer_release(&pool, buffer);
        assert_true(pool.parked_bytes == 0);
    }
    expect_broken_invariant((void)!buffer_park(&pool, (size_t)BUFFER_PARKED_BYTES_MAX + 1));
}

static void a_used_up_class_is_answered_with_null(void **state)
{
    uint32_t count = 0;

    (void)state;
    pool.parked[4].count_max = 3;
    while (buffer_park(&pool, BUFFER_PARKED_BYTES_MAX) != NULL)
        count++;
    assert_int_equal(count, 3);
    assert_int_equal(pool.parked_bytes, 3 * 65536);
    assert_non_null(buffer_park(&pool, 16000));
}

static void wrong_counting_is_stopped(void **state)
{
    static struct buffer *buffer;

    (void)state;
    pool.receive_count = 4;
    expect_broken_invariant((void)buffer_receive_filled(&pool, 4));
    buffer = buffer_receive_filled(&pool, 1);
    expect_broken_invariant((void)buffer_receive_filled(&pool, 1));
    buffer_release(&pool, buffer);
    expect_broken_invariant(buffer_release(&pool, buffer));
    expect_broken_invariant((void)buffer_reference(buffer));
}

static void a_pool_is_a_power_of_two(void **state)
{
    static struct buffer_pool other;

    (void)state;
    expect_broken_invariant((void)!buffer_pool_init(&other, 512, 3));
    expect_broken_invariant((void)!buffer_pool_init(&other, 512, 65536));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_receive_buffer_returns_with_its_last_reference, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(receive_buffers_do_not_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(buffers_are_scarce_from_seven_eighths_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_parked_buffer_fits_every_size, setup, teardown),
        cmocka_unit_test_setup_teardown(a_used_up_class_is_answered_with_null, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_counting_is_stopped, setup, teardown),
        cmocka_unit_test(a_pool_is_a_power_of_two),
    };

    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
