/* test_contract.c - what io/ring.h promises, asked of the kernel (adapter_uring.c) and of the
 * simulated one (adapter_sim.c): the same cases, so that the twin stays honest. */
#include "../unit/unit.h"

#include "adapter.h"
#include "base/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    RECEIVE_BYTES = 512,
    RECEIVE_COUNT = 16,
    TURNS_MAX = 2000,
    DATA_BYTES = 100000,
    HELD_MAX = 64,
};

static struct buffer_pool pool;
static struct ring *ring;
static uint8_t data[DATA_BYTES];

/* An op that writes down what happens to it. */
struct probe {
    struct op op;
    unsigned count;      /* completions */
    unsigned last_count; /* of them with `more` false */
    int result;          /* of the last one */
    int fds[16];
    unsigned fd_count;
    /* receive */
    uint8_t *bytes;
    size_t byte_count;
    struct buffer *held[HELD_MAX];
    unsigned held_count;
    bool holds;  /* keep the buffers */
    bool rearms; /* start again from the callback */
    int fd;
};

static void probe_done(struct op *op, const struct completion *completion)
{
    struct probe *probe = OWNER_OF(op, struct probe, op);

    probe->count++;
    probe->result = completion->result;
    if (completion->more)
        assert_true(op->started);
    else {
        assert_false(op->started);
        probe->last_count++;
    }
    /* The buffers of this turn have come back by the time that it is submitted. */
    if (completion->result == -ENOBUFS && probe->rearms)
        ring_receive(ring, op, probe->fd);
    if (completion->buffer == NULL)
        return;
    assert_true(completion->result > 0);
    assert_true(completion->result <= RECEIVE_BYTES);
    assert_int_equal(completion->buffer->reference_count, 1);
    assert_true(probe->byte_count + (size_t)completion->result <= DATA_BYTES);
    memcpy(probe->bytes + probe->byte_count, completion->buffer->data, (size_t)completion->result);
    probe->byte_count += (size_t)completion->result;
    if (probe->holds) {
        assert_true(probe->held_count < HELD_MAX);
        probe->held[probe->held_count++] = completion->buffer;
    } else {
        buffer_release(&pool, completion->buffer);
    }
    if (!completion->more && probe->rearms)
        ring_receive(ring, op, probe->fd);
}

static void accept_done(struct op *op, const struct completion *completion)
{
    struct probe *probe = OWNER_OF(op, struct probe, op);

    probe_done(op, completion);
    if (completion->result >= 0) {
        assert_true(probe->fd_count < COUNT_OF(probe->fds));
        probe->fds[probe->fd_count++] = completion->result;
    }
}

static void probe_init(struct probe *probe, int fd)
{
    *probe = (struct probe){.op.done = probe_done, .fd = fd};
    probe->bytes = malloc(DATA_BYTES);
    assert_non_null(probe->bytes);
}

static void probe_release(struct probe *probe)
{
    assert_false(probe->op.started);
    while (probe->held_count > 0)
        buffer_release(&pool, probe->held[--probe->held_count]);
    free(probe->bytes);
}

#define wait_for(condition)                                                                        \
    do {                                                                                           \
        int turns_ = 0;                                                                            \
        while (!(condition)) {                                                                     \
            adapter_turn(ring);                                                                    \
            if (++turns_ > TURNS_MAX)                                                              \
                fail_msg("`%s` did not come true", #condition);                                    \
        }                                                                                          \
    } while (0)

/* A few turns in which nothing should happen. */
static void let_pass(void)
{
    for (int i = 0; i < (adapter_is_simulated ? 50 : 3); i++)
        adapter_turn(ring);
}

static struct ring *make_ring(struct buffer_pool *buffers)
{
    char error[RING_ERROR_BYTES];
    struct ring_options options = {.entries = 8, .completion_entries = 256, .buffers = buffers};
    struct ring *made = ring_create(&options, error);

    if (made == NULL)
        print_error("%s\n", error);
    return made;
}

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < DATA_BYTES; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    adapter_begin();
    if (!buffer_pool_init(&pool, RECEIVE_BYTES, RECEIVE_COUNT))
        return -1;
    ring = make_ring(&pool);
    return ring == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    let_pass();
    assert_int_equal(pool.receive_used, 0);
    ring_destroy(ring);
    buffer_pool_release(&pool);
    adapter_end();
    return 0;
}

static size_t far_read_some(struct far *far, uint8_t *bytes, size_t count)
{
    ssize_t result = far_read(far, bytes, count);

    assert_true(result >= 0);
    return (size_t)result;
}

/* ---- accept ---- */

static void accept_gives_a_descriptor_for_each_client_until_cancelled(void **state)
{
    struct place place;
    struct probe probe;
    struct far *fars[5];
    int listen_fd = adapter_listen(&place);

    (void)state;
    probe_init(&probe, listen_fd);
    probe.op.done = accept_done;
    fars[0] = adapter_connect(&place);
    fars[1] = adapter_connect(&place);
    ring_accept(ring, &probe.op, listen_fd);
    assert_true(probe.op.started);
    wait_for(probe.fd_count == 2);
    for (int i = 2; i < 5; i++)
        fars[i] = adapter_connect(&place);
    wait_for(probe.fd_count == 5);
    assert_int_equal(probe.last_count, 0);
    assert_true(probe.op.started);
    ring_cancel(ring, &probe.op);
    wait_for(!probe.op.started);
    assert_int_equal(probe.result, -ECANCELED);
    assert_int_equal(probe.count, 6);
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned other = 0; other < i; other++)
            assert_int_not_equal(probe.fds[i], probe.fds[other]);
        ring_close(ring, probe.fds[i]);
        far_close(fars[i]);
    }
    ring_close(ring, listen_fd);
    probe_release(&probe);
}

static void an_accepted_descriptor_is_that_client(void **state)
{
    struct place place;
    struct probe accepts, receives, sends;
    struct far *far;
    uint8_t answer[16];
    size_t answered = 0;
    int listen_fd = adapter_listen(&place);

    (void)state;
    probe_init(&accepts, listen_fd);
    accepts.op.done = accept_done;
    ring_accept(ring, &accepts.op, listen_fd);
    far = adapter_connect(&place);
    assert_int_equal(far_write(far, "question", 8), 8);
    wait_for(accepts.fd_count == 1);
    probe_init(&receives, accepts.fds[0]);
    probe_init(&sends, accepts.fds[0]);
    ring_receive(ring, &receives.op, receives.fd);
    wait_for(receives.byte_count == 8);
    assert_memory_equal(receives.bytes, "question", 8);
    ring_send(ring, &sends.op, sends.fd, &(struct iovec){data, 6}, 1);
    wait_for(!sends.op.started);
    if (sends.result == 6) {
        wait_for((answered += far_read_some(far, answer + answered, 6 - answered)) == 6);
        assert_memory_equal(answer, data, 6);
    }
    ring_cancel(ring, &receives.op);
    ring_cancel(ring, &accepts.op);
    wait_for(!receives.op.started && !accepts.op.started);
    ring_close(ring, accepts.fds[0]);
    ring_close(ring, listen_fd);
    far_close(far);
    probe_release(&accepts);
    probe_release(&receives);
    probe_release(&sends);
}

static void a_connection_knows_both_its_addresses(void **state)
{
    struct place place;
    struct probe accepts;
    struct far *far;
    struct sockaddr_storage peer = {0}, local = {0};
    int listen_fd = adapter_listen(&place);

    (void)state;
    probe_init(&accepts, listen_fd);
    accepts.op.done = accept_done;
    ring_accept(ring, &accepts.op, listen_fd);
    far = adapter_connect(&place);
    wait_for(accepts.fd_count == 1);
    assert_int_equal(ring_local_address(ring, accepts.fds[0], &local), 0);
    assert_memory_equal(&local, &place.address, place.bytes);
    assert_int_equal(ring_peer_address(ring, accepts.fds[0], &peer), 0);
    assert_int_equal(peer.ss_family, AF_INET);
    assert_int_not_equal(((struct sockaddr_in *)&peer)->sin_port, 0);
    ring_set_option(ring, accepts.fds[0], IPPROTO_TCP, TCP_NODELAY, 1);
    assert_int_equal(ring_peer_address(ring, listen_fd, &peer), -ENOTCONN);
    ring_cancel(ring, &accepts.op);
    wait_for(!accepts.op.started);
    ring_close(ring, accepts.fds[0]);
    ring_close(ring, listen_fd);
    far_close(far);
    probe_release(&accepts);
}

/* ---- receive ---- */

/* The far end writes what it can while the near end receives. */
static void receive_all(struct probe *probe, struct far *far, size_t bytes)
{
    size_t written = 0;

    wait_for((written += far_write(far, data + written, bytes - written)) == bytes &&
             probe->byte_count == bytes);
    assert_memory_equal(probe->bytes, data, bytes);
}

static void bytes_arrive_in_order_and_the_end_comes_once(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);
    unsigned count;

    (void)state;
    probe_init(&probe, fd);
    probe.rearms = true;
    ring_receive(ring, &probe.op, fd);
    receive_all(&probe, far, DATA_BYTES);
    far_shutdown(far);
    wait_for(!probe.op.started);
    assert_int_equal(probe.result, 0);
    count = probe.count;
    let_pass();
    assert_int_equal(probe.count, count);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void the_end_is_told_again_when_asked_again(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);

    (void)state;
    probe_init(&probe, fd);
    far_shutdown(far);
    for (int i = 0; i < 2; i++) {
        ring_receive(ring, &probe.op, fd);
        wait_for(!probe.op.started);
        assert_int_equal(probe.result, 0);
    }
    assert_int_equal(probe.count, 2);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void a_reset_ends_the_receive_with_econnreset(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);

    (void)state;
    probe_init(&probe, fd);
    ring_receive(ring, &probe.op, fd);
    let_pass();
    far_reset(far);
    wait_for(!probe.op.started);
    assert_int_equal(probe.result, -ECONNRESET);
    assert_int_equal(probe.last_count, 1);
    ring_close(ring, fd);
    probe_release(&probe);
}

static void a_cancelled_receive_ends_once_and_can_start_again(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);

    (void)state;
    probe_init(&probe, fd);
    for (unsigned i = 1; i <= 5; i++) {
        ring_receive(ring, &probe.op, fd);
        if (i % 2 == 0)
            let_pass();
        ring_cancel(ring, &probe.op);
        ring_cancel(ring, &probe.op);
        wait_for(!probe.op.started);
        assert_int_equal(probe.result, -ECANCELED);
        assert_int_equal(probe.count, i);
    }
    ring_cancel(ring, &probe.op);
    let_pass();
    assert_int_equal(probe.count, 5);
    probe.rearms = true;
    ring_receive(ring, &probe.op, fd);
    receive_all(&probe, far, 3000);
    ring_cancel(ring, &probe.op);
    wait_for(!probe.op.started);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void a_cancel_that_races_with_data_loses_none(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);
    size_t written = 0;

    (void)state;
    probe_init(&probe, fd);
    for (unsigned i = 1; i <= 100; i++) {
        if (!probe.op.started)
            ring_receive(ring, &probe.op, fd);
        if (i % 3 == 0)
            adapter_turn(ring);
        written += far_write(far, data + written, 100);
        if (i % 5 == 0)
            adapter_turn(ring);
        ring_cancel(ring, &probe.op);
        if (i % 2 == 0)
            written += far_write(far, data + written, 100);
        wait_for(!probe.op.started);
        assert_int_equal(probe.last_count, i);
        assert_true(probe.result > 0 || probe.result == -ECANCELED);
    }
    probe.rearms = true;
    ring_receive(ring, &probe.op, fd);
    wait_for(probe.byte_count == written);
    assert_memory_equal(probe.bytes, data, written);
    far_shutdown(far);
    wait_for(!probe.op.started);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void without_buffers_receives_end_and_go_on_later(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);
    size_t written = 0;
    const size_t bytes = 3 * RECEIVE_BYTES * RECEIVE_COUNT;

    (void)state;
    probe_init(&probe, fd);
    probe.holds = true;
    while (probe.byte_count < bytes) {
        if (!probe.op.started)
            ring_receive(ring, &probe.op, fd);
        while (probe.op.started && probe.byte_count < bytes) {
            written += far_write(far, data + written, bytes - written);
            adapter_turn(ring);
        }
        if (probe.op.started)
            break;
        assert_int_equal(probe.result, -ENOBUFS);
        assert_int_equal(probe.held_count, RECEIVE_COUNT);
        assert_int_equal(pool.receive_used, RECEIVE_COUNT);
        /* Asked again without a buffer: the same answer. */
        ring_receive(ring, &probe.op, fd);
        wait_for(!probe.op.started);
        assert_int_equal(probe.result, -ENOBUFS);
        while (probe.held_count > 0)
            buffer_release(&pool, probe.held[--probe.held_count]);
    }
    assert_int_equal(written, bytes);
    assert_memory_equal(probe.bytes, data, bytes);
    assert_true(ring_counters(ring)->buffer_shortages > 0);
    ring_cancel(ring, &probe.op);
    wait_for(!probe.op.started);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void the_end_is_not_told_without_a_buffer(void **state)
{
    struct far *far, *other_far;
    struct probe probe, other;
    int fd = adapter_pair(&far);
    int other_fd = adapter_pair(&other_far);
    size_t written = 0;

    (void)state;
    probe_init(&probe, fd);
    probe_init(&other, other_fd);
    probe.holds = true;
    ring_receive(ring, &other.op, other_fd);
    let_pass();
    ring_receive(ring, &probe.op, fd);
    wait_for((written += far_write(far, data, 2000)) > 0 && !probe.op.started);
    assert_int_equal(probe.result, -ENOBUFS);
    far_shutdown(other_far);
    wait_for(!other.op.started);
    assert_int_equal(other.result, -ENOBUFS);
    while (probe.held_count > 0)
        buffer_release(&pool, probe.held[--probe.held_count]);
    ring_receive(ring, &other.op, other_fd);
    wait_for(!other.op.started);
    assert_int_equal(other.result, 0);
    ring_close(ring, fd);
    ring_close(ring, other_fd);
    far_close(far);
    far_close(other_far);
    probe_release(&probe);
    probe_release(&other);
}

static void an_idle_receive_holds_no_buffer(void **state)
{
    struct far *fars[RECEIVE_COUNT * 2];
    struct probe probes[RECEIVE_COUNT * 2];

    (void)state;
    for (int i = 0; i < RECEIVE_COUNT * 2; i++) {
        probe_init(&probes[i], adapter_pair(&fars[i]));
        ring_receive(ring, &probes[i].op, probes[i].fd);
    }
    let_pass();
    for (int i = RECEIVE_COUNT * 2 - 1; i >= 0; i--) {
        assert_true(probes[i].op.started);
        assert_int_equal(far_write(fars[i], data + i, 10), 10);
        wait_for(probes[i].byte_count == 10);
        assert_memory_equal(probes[i].bytes, data + i, 10);
    }
    for (int i = 0; i < RECEIVE_COUNT * 2; i++)
        ring_cancel(ring, &probes[i].op);
    for (int i = 0; i < RECEIVE_COUNT * 2; i++) {
        wait_for(!probes[i].op.started);
        ring_close(ring, probes[i].fd);
        far_close(fars[i]);
        probe_release(&probes[i]);
    }
}

/* ---- send ---- */

static void a_vector_arrives_in_order_though_the_array_is_gone(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);
    uint8_t got[RING_SEND_VECTOR_MAX * 3];
    size_t sent = 0, received = 0;

    (void)state;
    probe_init(&probe, fd);
    while (sent < sizeof(got)) {
        struct iovec vector[RING_SEND_VECTOR_MAX];
        size_t count = 0;

        for (size_t at = sent; at < sizeof(got); at += vector[count++].iov_len)
            vector[count] = (struct iovec){data + at, MIN((size_t)3, sizeof(got) - at)};
        ring_send(ring, &probe.op, fd, vector, count);
        memset(vector, 0, sizeof(vector));
        wait_for(!probe.op.started);
        assert_true(probe.result > 0);
        sent += (size_t)probe.result;
    }
    wait_for((received += far_read_some(far, got + received, sizeof(got) - received)) ==
             sizeof(got));
    assert_memory_equal(got, data, sizeof(got));
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void a_send_waits_for_a_slow_reader_and_may_be_short(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);
    const size_t bytes = adapter_is_simulated ? (size_t)1 << 17 : (size_t)1 << 24;
    uint8_t *big = malloc(bytes);
    uint8_t *got = malloc(bytes);
    size_t sent = 0, received = 0;

    (void)state;
    for (size_t i = 0; i < bytes; i++)
        big[i] = (uint8_t)(i * 11 + i / 253);
    probe_init(&probe, fd);
    ring_send(ring, &probe.op, fd, &(struct iovec){big, bytes}, 1);
    let_pass();
    if (!probe.op.started) {
        /* It took what there was room for; the next one waits. */
        assert_true(probe.result > 0);
        assert_true((size_t)probe.result < bytes);
    }
    while (sent < bytes) {
        if (!probe.op.started && probe.count > 0) {
            assert_true(probe.result > 0);
            sent += (size_t)probe.result;
            probe.count = 0;
            if (sent < bytes)
                ring_send(ring, &probe.op, fd, &(struct iovec){big + sent, bytes - sent}, 1);
        }
        adapter_turn(ring);
        received += far_read_some(far, got + received, bytes - received);
    }
    assert_int_equal(sent, bytes);
    wait_for((received += far_read_some(far, got + received, bytes - received)) == bytes);
    assert_memory_equal(got, big, bytes);
    free(big);
    free(got);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void a_cancelled_send_says_what_it_got_to(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);
    const size_t bytes = (size_t)1 << 24;
    uint8_t *big = calloc(1, bytes);
    uint8_t *got = malloc(65536);
    size_t sent = 0, received = 0;
    ssize_t result;

    (void)state;
    probe_init(&probe, fd);
    /* Until it cannot go on. */
    for (;;) {
        ring_send(ring, &probe.op, fd, &(struct iovec){big, bytes}, 1);
        let_pass();
        if (probe.op.started)
            break;
        assert_true(probe.result > 0);
        sent += (size_t)probe.result;
    }
    ring_cancel(ring, &probe.op);
    wait_for(!probe.op.started);
    assert_true(probe.result == -ECANCELED || probe.result > 0);
    if (probe.result > 0)
        sent += (size_t)probe.result;
    ring_close(ring, fd);
    wait_for((result = far_read(far, got, 65536)) == -1 || (received += (size_t)result, false));
    assert_int_equal(received, sent);
    free(big);
    free(got);
    far_close(far);
    probe_release(&probe);
}

static void sending_to_nobody_ends_in_an_error_and_no_signal(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);

    (void)state;
    probe_init(&probe, fd);
    far_close(far);
    for (int i = 0; i < 100 && probe.result >= 0; i++) {
        ring_send(ring, &probe.op, fd, &(struct iovec){data, 100}, 1);
        wait_for(!probe.op.started);
        let_pass();
    }
    assert_true(probe.result == -EPIPE || probe.result == -ECONNRESET);
    ring_close(ring, fd);
    probe_release(&probe);
}

static void a_peer_that_ended_can_still_be_answered(void **state)
{
    struct far *far;
    struct probe receives, sends;
    int fd = adapter_pair(&far);
    uint8_t got[16];
    size_t received = 0;

    (void)state;
    probe_init(&receives, fd);
    probe_init(&sends, fd);
    ring_receive(ring, &receives.op, fd);
    far_shutdown(far);
    wait_for(!receives.op.started);
    ring_send(ring, &sends.op, fd, &(struct iovec){data, 5}, 1);
    wait_for(!sends.op.started);
    assert_true(sends.result > 0);
    wait_for((received += far_read_some(far, got + received, 16)) == (size_t)sends.result);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&receives);
    probe_release(&sends);
}

/* ---- connect ---- */

static void a_connect_succeeds_and_carries_bytes(void **state)
{
    struct place place;
    struct far *far = NULL;
    struct probe connects, receives;
    int fd = ring_socket(ring, AF_INET);

    (void)state;
    assert_true(fd >= 0);
    adapter_serve(&place);
    probe_init(&connects, fd);
    probe_init(&receives, fd);
    ring_connect(ring, &connects.op, fd, (struct sockaddr *)&place.address, place.bytes);
    memset(&place, 0, sizeof(place));
    wait_for(!connects.op.started);
    assert_int_equal(connects.result, 0);
    assert_int_equal(connects.count, 1);
    wait_for((far = far != NULL ? far : adapter_take()) != NULL);
    receives.rearms = true;
    ring_receive(ring, &receives.op, fd);
    receive_all(&receives, far, 5000);
    ring_cancel(ring, &receives.op);
    wait_for(!receives.op.started);
    ring_close(ring, fd);
    far_close(far);
    adapter_serve_end();
    probe_release(&connects);
    probe_release(&receives);
}

static void a_connect_to_nobody_is_refused(void **state)
{
    struct place place;
    struct probe probe;
    int fd = ring_socket(ring, AF_INET);

    (void)state;
    adapter_nowhere(&place);
    probe_init(&probe, fd);
    ring_connect(ring, &probe.op, fd, (struct sockaddr *)&place.address, place.bytes);
    wait_for(!probe.op.started);
    assert_int_equal(probe.result, -ECONNREFUSED);
    assert_int_equal(probe.count, 1);
    ring_close(ring, fd);
    probe_release(&probe);
}

static void a_cancelled_connect_completes_once(void **state)
{
    struct place place;
    struct far *far;

    (void)state;
    adapter_serve(&place);
    for (int i = 0; i < 10; i++) {
        struct probe probe;
        int fd = ring_socket(ring, AF_INET);

        probe_init(&probe, fd);
        ring_connect(ring, &probe.op, fd, (struct sockaddr *)&place.address, place.bytes);
        ring_cancel(ring, &probe.op);
        wait_for(!probe.op.started);
        assert_true(probe.result == 0 || probe.result == -ECANCELED);
        let_pass();
        assert_int_equal(probe.count, 1);
        ring_close(ring, fd);
        probe_release(&probe);
    }
    while ((far = adapter_take()) != NULL)
        far_close(far);
    adapter_serve_end();
}

/* ---- ends ---- */

static void a_close_is_the_end_for_the_far_side(void **state)
{
    struct far *far;
    int fd = adapter_pair(&far);
    uint8_t byte;

    (void)state;
    ring_close(ring, fd);
    wait_for(far_read(far, &byte, 1) == -1);
    far_close(far);
}

static void a_close_with_bytes_unread_is_a_reset(void **state)
{
    struct far *far;
    int fd = adapter_pair(&far);
    uint8_t byte;

    (void)state;
    assert_int_equal(far_write(far, "x", 1), 1);
    ring_close(ring, fd);
    wait_for(far_read(far, &byte, 1) == -ECONNRESET);
    far_close(far);
}

static void a_shutdown_ends_a_receive_and_the_far_side(void **state)
{
    struct far *far;
    struct probe receives, sends;
    int fd = adapter_pair(&far);
    uint8_t byte;

    (void)state;
    probe_init(&receives, fd);
    probe_init(&sends, fd);
    ring_receive(ring, &receives.op, fd);
    let_pass();
    ring_shutdown(ring, fd);
    wait_for(!receives.op.started);
    assert_int_equal(receives.result, 0);
    wait_for(far_read(far, &byte, 1) == -1);
    ring_send(ring, &sends.op, fd, &(struct iovec){data, 5}, 1);
    wait_for(!sends.op.started);
    assert_int_equal(sends.result, -EPIPE);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&receives);
    probe_release(&sends);
}

/* ---- the ring itself ---- */

static void more_can_be_started_than_the_ring_has_entries(void **state)
{
    enum { PAIRS = 40 };
    struct far *fars[PAIRS];
    struct probe receives[PAIRS], sends[PAIRS];

    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        probe_init(&receives[i], adapter_pair(&fars[i]));
        probe_init(&sends[i], receives[i].fd);
        ring_receive(ring, &receives[i].op, receives[i].fd);
        ring_send(ring, &sends[i].op, sends[i].fd,
                  (struct iovec[]){{data + i, 1}, {data + 2 * i, 1}}, 2);
    }
    for (int i = 0; i < PAIRS; i++) {
        uint8_t got[2];
        size_t received = 0;

        wait_for(!sends[i].op.started);
        assert_true(sends[i].result > 0);
        wait_for((received += far_read_some(fars[i], got + received, 2 - received)) ==
                 (size_t)sends[i].result);
        assert_int_equal(got[0], data[i]);
        if (received == 2)
            assert_int_equal(got[1], data[2 * i]);
        ring_cancel(ring, &receives[i].op);
    }
    for (int i = 0; i < PAIRS; i++) {
        wait_for(!receives[i].op.started);
        assert_int_equal(receives[i].result, -ECANCELED);
        ring_close(ring, receives[i].fd);
        far_close(fars[i]);
        probe_release(&receives[i]);
        probe_release(&sends[i]);
    }
}

static void nothing_completes_outside_a_turn(void **state)
{
    struct far *far;
    struct probe probe;
    int fd = adapter_pair(&far);

    (void)state;
    probe_init(&probe, fd);
    assert_int_equal(far_write(far, "x", 1), 1);
    ring_receive(ring, &probe.op, fd);
    assert_int_equal(probe.count, 0);
    wait_for(probe.count == 1);
    ring_cancel(ring, &probe.op);
    assert_int_equal(probe.count, 1);
    wait_for(!probe.op.started);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void a_turn_without_waiting_returns_at_once(void **state)
{
    uint64_t begin_us = clock_now_us();

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(ring_turn(ring, 0), 0);
    assert_true(clock_now_us() - begin_us < 5 * US_PER_S);
}

static void a_deadline_ends_the_wait(void **state)
{
    uint64_t begin_us = clock_now_us();

    (void)state;
    if (adapter_is_simulated)
        skip();
    assert_int_equal(ring_turn(ring, begin_us + 30000), 0);
    assert_true(clock_now_us() >= begin_us + 30000);
    ring_set_busy_poll(ring, 1000);
    begin_us = clock_now_us();
    assert_int_equal(ring_turn(ring, begin_us + 30000), 0);
    assert_true(clock_now_us() >= begin_us + 30000);
    /* One that has passed. */
    assert_int_equal(ring_turn(ring, begin_us), 0);
}

static void a_started_op_cannot_be_started(void **state)
{
    static struct probe probe;
    static int fd;
    struct far *far;

    (void)state;
    fd = adapter_pair(&far);
    probe_init(&probe, fd);
    ring_receive(ring, &probe.op, fd);
    expect_broken_invariant(ring_receive(ring, &probe.op, fd));
    ring_cancel(ring, &probe.op);
    wait_for(!probe.op.started);
    ring_close(ring, fd);
    far_close(far);
    probe_release(&probe);
}

static void another_ring_can_wake_this_one(void **state)
{
    struct buffer_pool other_pool;
    struct ring *other;

    (void)state;
    assert_true(buffer_pool_init(&other_pool, RECEIVE_BYTES, RECEIVE_COUNT));
    other = make_ring(&other_pool);
    assert_non_null(other);
    for (int i = 0; i < 3; i++) {
        ring_wake(other, ring_fd(ring));
        ring_turn(other, 0);
        /* For the kernel: it would hang for ever without the letter. */
        (void)!ring_turn(ring, UINT64_MAX);
    }
    ring_destroy(other);
    buffer_pool_release(&other_pool);
}

static atomic_int rounds;

static void *wake_from_thread(void *argument)
{
    struct buffer_pool other_pool;
    struct ring *other;

    if (!buffer_pool_init(&other_pool, RECEIVE_BYTES, RECEIVE_COUNT))
        return NULL;
    other = make_ring(&other_pool);
    if (other == NULL)
        return NULL;
    for (int i = 0; i < 100; i++) {
        int before = atomic_load(&rounds);

        ring_wake(other, *(int *)argument);
        ring_turn(other, 0);
        /* The woken one answers by counting. */
        while (atomic_load(&rounds) == before)
            ring_turn(other, clock_now_us() + 100);
    }
    atomic_store(&rounds, -1);
    ring_wake(other, *(int *)argument);
    ring_turn(other, 0);
    ring_destroy(other);
    buffer_pool_release(&other_pool);
    return argument;
}

static void another_thread_can_wake_this_ring(void **state)
{
    pthread_t thread;
    void *result;
    int fd = ring_fd(ring);

    (void)state;
    if (adapter_is_simulated)
        skip();
    atomic_store(&rounds, 0);
    assert_int_equal(pthread_create(&thread, NULL, wake_from_thread, &fd), 0);
    while (atomic_load(&rounds) >= 0) {
        int seen = atomic_load(&rounds);

        ring_turn(ring, UINT64_MAX);
        atomic_compare_exchange_strong(&rounds, &seen, seen + 1);
    }
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_non_null(result);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(accept_gives_a_descriptor_for_each_client_until_cancelled),
        CASE(an_accepted_descriptor_is_that_client),
        CASE(a_connection_knows_both_its_addresses),
        CASE(bytes_arrive_in_order_and_the_end_comes_once),
        CASE(the_end_is_told_again_when_asked_again),
        CASE(a_reset_ends_the_receive_with_econnreset),
        CASE(a_cancelled_receive_ends_once_and_can_start_again),
        CASE(a_cancel_that_races_with_data_loses_none),
        CASE(without_buffers_receives_end_and_go_on_later),
        CASE(the_end_is_not_told_without_a_buffer),
        CASE(an_idle_receive_holds_no_buffer),
        CASE(a_vector_arrives_in_order_though_the_array_is_gone),
        CASE(a_send_waits_for_a_slow_reader_and_may_be_short),
        CASE(a_cancelled_send_says_what_it_got_to),
        CASE(sending_to_nobody_ends_in_an_error_and_no_signal),
        CASE(a_peer_that_ended_can_still_be_answered),
        CASE(a_connect_succeeds_and_carries_bytes),
        CASE(a_connect_to_nobody_is_refused),
        CASE(a_cancelled_connect_completes_once),
        CASE(a_close_is_the_end_for_the_far_side),
        CASE(a_close_with_bytes_unread_is_a_reset),
        CASE(a_shutdown_ends_a_receive_and_the_far_side),
        CASE(more_can_be_started_than_the_ring_has_entries),
        CASE(nothing_completes_outside_a_turn),
        CASE(a_turn_without_waiting_returns_at_once),
        CASE(a_deadline_ends_the_wait),
        CASE(a_started_op_cannot_be_started),
        CASE(another_ring_can_wake_this_one),
        CASE(another_thread_can_wake_this_ring),
    };

    return cmocka_run_group_tests_name(adapter_is_simulated ? "contract, simulated kernel"
                                                            : "contract, this kernel",
                                       tests, NULL, NULL);
}
