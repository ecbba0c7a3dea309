/* The span queues of conn: references, merging, copies, limits. What needs a ring is in tests/sim.
 */
#include "unit.h"

#include "conn/conn.h"

enum { RECEIVE_BYTES = 1024, RECEIVE_COUNT = 16, SPANS = 8 };

static struct buffer_pool pool;
static struct conn_loop loop;
static uint64_t parked_used(void)
{
    uint64_t count = 0;

    for (int class = 0; class < PARKED_CLASSES; class ++)
        count += pool.parked[class].used_count;
    return count;
}

static int setup(void **state)
{
    (void)state;
    if (!buffer_pool_init(&pool, RECEIVE_BYTES, RECEIVE_COUNT))
        return -1;
    pool.receive_count = RECEIVE_COUNT;
    return conn_loop_init(&loop, NULL, &pool, SPANS) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(loop.spans.used_count, 0);
    assert_int_equal(pool.receive_used, 0);
    assert_int_equal(parked_used(), 0);
    assert_int_equal(pool.parked_bytes, 0);
    conn_loop_release(&loop);
    buffer_pool_release(&pool);
    return 0;
}

static struct buffer *filled(uint16_t index)
{
    struct buffer *buffer = buffer_receive_filled(&pool, index);

    for (int i = 0; i < RECEIVE_BYTES; i++)
        buffer->data[i] = (uint8_t)(index * 7 + i);
    return buffer;
}

static size_t queue_read(const struct span_queue *queue, uint8_t *data)
{
    size_t bytes = 0;
    uint32_t spans = 0;

    for (struct span *span = queue->first; span != NULL; span = span->next) {
        memcpy(data + bytes, span->buffer->data + span->offset, span->bytes);
        bytes += span->bytes;
        spans++;
        if (span->next == NULL)
            assert_ptr_equal(queue->last, span);
    }
    assert_int_equal(bytes, queue->bytes);
    assert_int_equal(spans, queue->span_count);
    return bytes;
}

static void a_span_holds_its_buffer_until_the_queue_is_cleared(void **state)
{
    struct span_queue queue = {0};
    struct buffer *buffer = filled(1);

    (void)state;
    assert_true(span_queue_push(&queue, &loop, buffer, 10, 20));
    assert_int_equal(buffer->reference_count, 2);
    buffer_release(&pool, buffer);
    assert_int_equal(pool.receive_used, 1);
    assert_int_equal(queue.bytes, 20);
    span_queue_clear(&queue, &loop);
    assert_null(queue.first);
    assert_null(queue.last);
    assert_int_equal(queue.span_count, 0);
    assert_int_equal(pool.receive_used, 0);
    span_queue_clear(&queue, &loop);
}

static void only_neighbours_of_one_buffer_are_merged(void **state)
{
    struct span_queue queue = {0};
    struct buffer *one = filled(1), *two = filled(2);
    uint8_t data[128];

    (void)state;
    assert_true(span_queue_push(&queue, &loop, one, 0, 5));
    assert_true(span_queue_push(&queue, &loop, one, 5, 5));
    assert_int_equal(queue.span_count, 1);
    assert_int_equal(one->reference_count, 2);
    assert_true(span_queue_push(&queue, &loop, one, 11, 5));
    assert_int_equal(queue.span_count, 2);
    assert_true(span_queue_push(&queue, &loop, two, 16, 5));
    assert_int_equal(queue.span_count, 3);
    assert_true(span_queue_push(&queue, &loop, one, 0, 5));
    assert_int_equal(queue.span_count, 4);
    assert_int_equal(queue_read(&queue, data), 25);
    assert_memory_equal(data, one->data, 10);
    assert_memory_equal(data + 10, one->data + 11, 5);
    assert_memory_equal(data + 15, two->data + 16, 5);
    assert_memory_equal(data + 20, one->data, 5);
    buffer_release(&pool, one);
    buffer_release(&pool, two);
    span_queue_clear(&queue, &loop);
}

static void without_a_span_nothing_is_referenced(void **state)
{
    struct span_queue queue = {0};
    struct buffer *buffer = filled(1);

    (void)state;
    for (uint32_t i = 0; i < SPANS; i++)
        assert_true(span_queue_push(&queue, &loop, buffer, i * 10, 5));
    assert_false(span_queue_push(&queue, &loop, buffer, 500, 5));
    assert_int_equal(buffer->reference_count, 1 + SPANS);
    assert_int_equal(queue.bytes, 5 * SPANS);
    assert_false(span_queue_push_copy(&queue, &loop, "abc", 3));
    assert_int_equal(parked_used(), 0);
    buffer_release(&pool, buffer);
    span_queue_clear(&queue, &loop);
}

static void copies_gather_in_one_parked_buffer(void **state)
{
    struct span_queue queue = {0};
    uint8_t expected[300], data[512];

    (void)state;
    for (size_t i = 0; i < sizeof(expected); i++)
        expected[i] = (uint8_t)(i * 13 + i / 256);
    for (size_t at = 0; at < sizeof(expected); at += 3)
        assert_true(span_queue_push_copy(&queue, &loop, expected + at, 3));
    assert_in_range(queue.span_count, 1, 4);
    assert_int_equal(queue_read(&queue, data), sizeof(expected));
    assert_memory_equal(data, expected, sizeof(expected));
    span_queue_clear(&queue, &loop);
}

static void a_copy_of_any_size_is_whole(void **state)
{
    static uint8_t expected[200000], data[200000];

    (void)state;
    for (size_t i = 0; i < sizeof(expected); i++)
        expected[i] = (uint8_t)(i * 13 + i / 256);
    for (size_t bytes = 0; bytes <= sizeof(expected); bytes += 1 + bytes / 3) {
        struct span_queue queue = {0};

        assert_true(span_queue_push_copy(&queue, &loop, expected, bytes));
        assert_int_equal(queue_read(&queue, data), bytes);
        assert_memory_equal(data, expected, bytes);
        span_queue_clear(&queue, &loop);
    }
}

static void a_copy_does_not_write_into_a_buffer_that_others_read(void **state)
{
    struct span_queue one = {0}, two = {0};
    struct buffer *parked = buffer_park(&pool, 100);
    uint8_t data[64];

    (void)state;
    memcpy(parked->data, "0123456789", 10);
    assert_true(span_queue_push(&one, &loop, parked, 0, 5));
    assert_true(span_queue_push(&two, &loop, parked, 5, 5));
    buffer_release(&pool, parked);
    assert_true(span_queue_push_copy(&one, &loop, "abcde", 5));
    assert_int_equal(queue_read(&one, data), 10);
    assert_memory_equal(data, "01234abcde", 10);
    assert_int_equal(queue_read(&two, data), 5);
    assert_memory_equal(data, "56789", 5);
    span_queue_clear(&one, &loop);
    span_queue_clear(&two, &loop);
}

static void a_full_buffer_takes_no_copy(void **state)
{
    struct span_queue queue = {0};
    struct buffer *parked = buffer_park(&pool, 100);
    uint32_t room = parked->bytes_max;
    uint8_t data[256];

    (void)state;
    memset(parked->data, 'x', room);
    assert_true(span_queue_push(&queue, &loop, parked, 0, room));
    buffer_release(&pool, parked);
    assert_true(span_queue_push_copy(&queue, &loop, "abc", 3));
    assert_int_equal(queue.span_count, 2);
    assert_int_equal(queue_read(&queue, data), room + 3);
    assert_memory_equal(data + room, "abc", 3);
    span_queue_clear(&queue, &loop);
}

static void spans_beyond_a_buffer_and_empty_ones_are_refused(void **state)
{
    static struct span_queue queue;
    static struct buffer *buffer;

    (void)state;
    buffer = filled(1);
    expect_broken_invariant((void)!span_queue_push(&queue, &loop, buffer, 0, 0));
    expect_broken_invariant((void)!span_queue_push(&queue, &loop, buffer, 1, RECEIVE_BYTES));
    buffer_release(&pool, buffer);
}

static void a_buffer_that_came_back_late_brings_the_starved_another_turn(void **state)
{
    struct conn conn = {.state = CONN_OPEN};
    struct buffer *buffers[RECEIVE_COUNT];

    (void)state;
    loop.now_us = 1000;
    assert_true(conn_loop_next_us(&loop) == UINT64_MAX);
    for (uint16_t i = 0; i < RECEIVE_COUNT; i++)
        buffers[i] = filled(i);
    list_init(&conn.wait_link);
    list_push_back(&loop.starved, &conn.wait_link);
    assert_true(conn_loop_next_us(&loop) == UINT64_MAX);
    /* As from inside `gone`, after the flush has looked at the starved. */
    buffer_release(&pool, buffers[0]);
    assert_true(conn_loop_next_us(&loop) == 1000);
    list_remove(&conn.wait_link);
    for (int i = 1; i < RECEIVE_COUNT; i++)
        buffer_release(&pool, buffers[i]);
}

/* Many slow readers on TLS hold parked buffers only. */
static void the_mark_falls_when_parked_buffers_hold_much(void **state)
{
    struct conn conn = {.loop = &loop, .out = {.span_count = 4, .bytes = CONN_FULL_BYTES_SCARCE}};

    (void)state;
    assert_false(conn_is_full(&conn));
    pool.parked_bytes = BUFFER_CROWDED_BYTES;
    assert_true(conn_is_full(&conn));
    conn.out.bytes = CONN_FULL_BYTES_SCARCE - 1;
    assert_false(conn_is_full(&conn));
    pool.parked_bytes = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_span_holds_its_buffer_until_the_queue_is_cleared, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(only_neighbours_of_one_buffer_are_merged, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_span_nothing_is_referenced, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_gather_in_one_parked_buffer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_copy_of_any_size_is_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(a_copy_does_not_write_into_a_buffer_that_others_read, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_full_buffer_takes_no_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_buffer_that_came_back_late_brings_the_starved_another_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(the_mark_falls_when_parked_buffers_hold_much, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(spans_beyond_a_buffer_and_empty_ones_are_refused, setup,
                                        teardown),
    };

    return cmocka_run_group_tests_name("spans", tests, NULL, NULL);
}
