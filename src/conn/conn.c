#include "conn/conn_tls.h"

#include <errno.h>
#include <string.h>

/* For copies that others will follow: of the second class of parked buffers. */
enum { COPIES_ROOM_BYTES = 1000 };

static void receive_done(struct op *op, const struct completion *completion);
static void send_done(struct op *op, const struct completion *completion);
static void connect_done(struct op *op, const struct completion *completion);

bool conn_loop_init(struct conn_loop *loop, struct ring *ring, struct buffer_pool *buffers,
                    uint32_t span_count_max)
{
    *loop = (struct conn_loop){.ring = ring, .buffers = buffers};
    list_init(&loop->to_flush);
    list_init(&loop->starved);
    list_init(&loop->lingering);
    list_init(&loop->closed);
    if (!slab_init(&loop->spans, "spans", sizeof(struct span), span_count_max))
        return false;
    if (slab_init(&loop->tls, "tls", sizeof(struct conn_tls), span_count_max))
        return true;
    slab_release(&loop->spans);
    return false;
}

void conn_loop_release(struct conn_loop *loop)
{
    slab_release(&loop->tls);
    slab_release(&loop->spans);
}

/* ---- spans ---- */

bool span_queue_push(struct span_queue *queue, struct conn_loop *loop, struct buffer *buffer,
                     uint32_t offset, uint32_t bytes)
{
    struct span *span = queue->last;

    assert(bytes > 0);
    assert(offset + bytes <= buffer->bytes_max);
    if (span != NULL && span->buffer == buffer && span->offset + span->bytes == offset) {
        /* Safe while in flight: a send takes what it was given, and only that much is taken off. */
        span->bytes += bytes;
        queue->bytes += bytes;
        return true;
    }
    span = slab_take(&loop->spans);
    if (unlikely(span == NULL))
        return false;
    *span = (struct span){.buffer = buffer_reference(buffer), .offset = offset, .bytes = bytes};
    if (queue->last != NULL)
        queue->last->next = span;
    else
        queue->first = span;
    queue->last = span;
    queue->span_count++;
    queue->bytes += bytes;
    return true;
}

static bool push_copy(struct span_queue *queue, struct conn_loop *loop, const void *data,
                      size_t bytes, size_t room)
{
    const uint8_t *from = data;
    struct span *last = queue->last;

    /* Room behind the last span, if it ends where its parked buffer was filled to. */
    if (last != NULL && last->buffer->parked_class < PARKED_CLASSES &&
        last->buffer->reference_count == 1 && bytes > 0) {
        uint32_t end = last->offset + last->bytes;
        uint32_t count = (uint32_t)MIN(bytes, last->buffer->bytes_max - end);

        memcpy(last->buffer->data + end, from, count);
        last->bytes += count;
        queue->bytes += count;
        from += count;
        bytes -= count;
    }
    while (bytes > 0) {
        uint32_t count = (uint32_t)MIN(bytes, (size_t)BUFFER_PARKED_BYTES_MAX);
        struct buffer *buffer = buffer_park(loop->buffers, MAX((size_t)count, room));
        bool pushed;

        if (unlikely(buffer == NULL))
            return false;
        memcpy(buffer->data, from, count);
        pushed = span_queue_push(queue, loop, buffer, 0, count);
        buffer_release(loop->buffers, buffer);
        if (unlikely(!pushed))
            return false;
        from += count;
        bytes -= count;
    }
    return true;
}

bool span_queue_push_copy(struct span_queue *queue, struct conn_loop *loop, const void *data,
                          size_t bytes)
{
    return push_copy(queue, loop, data, bytes, 0);
}

static void span_queue_pop(struct span_queue *queue, struct conn_loop *loop)
{
    struct span *span = queue->first;

    queue->first = span->next;
    if (queue->first == NULL)
        queue->last = NULL;
    queue->span_count--;
    queue->bytes -= span->bytes;
    buffer_release(loop->buffers, span->buffer);
    slab_give(&loop->spans, span);
}

void span_queue_drop(struct span_queue *queue, struct conn_loop *loop, uint32_t bytes)
{
    while (bytes > 0) {
        struct span *span = queue->first;

        assert(span != NULL);
        if (bytes < span->bytes) {
            span->offset += bytes;
            span->bytes -= bytes;
            queue->bytes -= bytes;
            break;
        }
        bytes -= span->bytes;
        span_queue_pop(queue, loop);
    }
}

void span_queue_clear(struct span_queue *queue, struct conn_loop *loop)
{
    while (queue->first != NULL)
        span_queue_pop(queue, loop);
    assert(queue->bytes == 0);
}

void span_queue_join(struct span_queue *queue, struct span_queue *rest)
{
    if (rest->first == NULL)
        return;
    if (queue->last != NULL)
        queue->last->next = rest->first;
    else
        queue->first = rest->first;
    queue->last = rest->last;
    queue->span_count += rest->span_count;
    queue->bytes += rest->bytes;
    *rest = (struct span_queue){0};
}

/* ---- opening ---- */

static void conn_init(struct conn *conn, struct conn_loop *loop, int fd,
                      const struct conn_events *events)
{
    *conn = (struct conn){
        .receive_op.done = receive_done,
        .send_op.done = send_done,
        .events = events,
        .loop = loop,
        .fd = fd,
        .state = CONN_OPEN,
    };
    list_init(&conn->link);
    list_init(&conn->wait_link);
    loop->conn_count++;
}

void conn_open(struct conn *conn, struct conn_loop *loop, int fd, const struct conn_events *events)
{
    conn_init(conn, loop, fd, events);
}

int conn_connect(struct conn *conn, struct conn_loop *loop, const struct sockaddr *address,
                 socklen_t address_bytes, const struct conn_events *events)
{
    int fd = ring_socket(loop->ring, address->sa_family);

    if (fd < 0)
        return fd;
    conn_init(conn, loop, fd, events);
    conn->is_connecting = true;
    conn->send_op.done = connect_done;
    ring_connect(loop->ring, &conn->send_op, fd, address, address_bytes);
    return 0;
}

int conn_detach(struct conn *conn, struct tls **tls)
{
    int fd = conn->fd;

    assert(conn->state == CONN_OPEN);
    assert(conn_is_quiet(conn));
    assert(!conn->is_in_received);
    assert(!conn_has_output(conn));
    list_remove(&conn->link);
    list_remove(&conn->wait_link);
    *tls = conn->tls != NULL ? conn_tls_release(conn) : NULL;
    conn->state = CONN_GONE;
    conn->fd = -1;
    conn->loop->conn_count--;
    return fd;
}

/* ---- closing ---- */

/* Nothing is in flight any more: `gone` is due. */
static void close_if_quiet(struct conn *conn)
{
    assert(conn->state == CONN_CLOSING);
    if (!conn_is_quiet(conn))
        return;
    span_queue_clear(&conn->out, conn->loop);
    list_remove(&conn->link);
    list_push_back(&conn->loop->closed, &conn->link);
}

static void close_now(struct conn *conn)
{
    list_remove(&conn->link);
    list_remove(&conn->wait_link);
    conn->linger_until_us = 0;
    ring_cancel(conn->loop->ring, &conn->receive_op);
    ring_cancel(conn->loop->ring, &conn->send_op);
    close_if_quiet(conn);
}

void conn_close(struct conn *conn, bool flush)
{
    bool has_more = conn_has_output(conn);

    if (conn->state != CONN_OPEN)
        return;
    conn->state = CONN_CLOSING;
    conn->receive_wanted = false;
    list_remove(&conn->wait_link);
    list_remove(&conn->link);
    if (unlikely(conn->tls != NULL)) {
        flush = flush || conn->tls->has_failed; /* the alert says why */
        has_more = has_more || conn_owes_goodbye(conn);
    }
    if (!flush || conn->is_connecting || !has_more) {
        close_now(conn);
        return;
    }
    conn->linger_until_us = conn->loop->now_us + CONN_LINGER_US;
    list_push_back(&conn->loop->lingering, &conn->wait_link);
    ring_cancel(conn->loop->ring, &conn->receive_op);
    if (!conn->send_op.started)
        list_push_back(&conn->loop->to_flush, &conn->link);
}

/* ---- sending ---- */

/* What was queued cannot go out any more. The owner closes in `ended`, or waits for `quiet` all the
 * same. */
static void send_failed(struct conn *conn, int error)
{
    /* The peer is not only at its end, it is gone: that is not deferred. */
    if (conn->end_is_deferred)
        conn->end_is_deferred = conn->has_ended = false;
    if (conn->state == CONN_OPEN && error != ECANCELED)
        conn_ended(conn, error);
    if (conn->state == CONN_OPEN && conn->tell_quiet) {
        list_remove(&conn->link);
        span_queue_clear(&conn->out, conn->loop);
        if (conn->tls != NULL)
            span_queue_clear(&conn->tls->sealed, conn->loop);
        (void)conn_quiet_if_due(conn);
    } else if (conn->state == CONN_OPEN) {
        conn_close(conn, false);
    } else {
        close_now(conn);
    }
}

/* The bytes that go to the socket. */
static struct span_queue *sendable(struct conn *conn)
{
    return unlikely(conn->tls != NULL) ? &conn->tls->sealed : &conn->out;
}

static void send_start(struct conn *conn)
{
    struct iovec vector[RING_SEND_VECTOR_MAX];
    size_t count = 0;

    if (unlikely(conn->tls != NULL)) {
        int error = conn_tls_seal(conn);

        if (error != 0) {
            send_failed(conn, error);
            return;
        }
        if (conn->tls->sealed.first == NULL) { /* it has failed, and has said so */
            if (conn->state == CONN_CLOSING)
                close_now(conn);
            else
                (void)conn_quiet_if_due(conn);
            return;
        }
    }
    for (struct span *span = sendable(conn)->first; span != NULL && count < RING_SEND_VECTOR_MAX;
         span = span->next)
        vector[count++] = (struct iovec){span->buffer->data + span->offset, span->bytes};
    ring_send(conn->loop->ring, &conn->send_op, conn->fd, vector, count);
}

void conn_flush_later(struct conn *conn)
{
    if (!conn->send_op.started && list_is_empty(&conn->link))
        list_push_back(&conn->loop->to_flush, &conn->link);
}

bool conn_push(struct conn *conn, struct buffer *buffer, uint32_t offset, uint32_t bytes)
{
    if (unlikely(conn->state != CONN_OPEN))
        return true;
    if (unlikely(buffer->parked_class == PARKED_CLASSES &&
                 buffer_pool_is_scarce(conn->loop->buffers)))
        return conn_push_copy(conn, buffer->data + offset, bytes);
    if (unlikely(!span_queue_push(&conn->out, conn->loop, buffer, offset, bytes)))
        return false;
    conn_flush_later(conn);
    return true;
}

static bool conn_push_copy_with_room(struct conn *conn, const void *data, size_t bytes, size_t room)
{
    if (unlikely(conn->state != CONN_OPEN))
        return true;
    if (unlikely(!push_copy(&conn->out, conn->loop, data, bytes, room)))
        return false;
    if (bytes > 0)
        conn_flush_later(conn);
    return true;
}

bool conn_push_copy(struct conn *conn, const void *data, size_t bytes)
{
    return conn_push_copy_with_room(conn, data, bytes, 0);
}

bool conn_push_copy_of_many(struct conn *conn, const void *data, size_t bytes)
{
    return conn_push_copy_with_room(conn, data, bytes, COPIES_ROOM_BYTES);
}

void conn_ended(struct conn *conn, int error)
{
    if (conn->has_ended)
        return;
    conn->has_ended = true;
    conn->receive_wanted = false;
    conn->events->ended(conn, error);
}

bool conn_quiet_if_due(struct conn *conn)
{
    if (!conn->tell_quiet || conn_has_output(conn) || !conn_is_quiet(conn))
        return false;
    conn->tell_quiet = false;
    conn->events->quiet(conn);
    return true;
}

static void send_done(struct op *op, const struct completion *completion)
{
    struct conn *conn = OWNER_OF(op, struct conn, send_op);

    if (completion->result < 0) {
        send_failed(conn, -completion->result);
        return;
    }
    span_queue_drop(sendable(conn), conn->loop, (uint32_t)completion->result);
    if (conn->state == CONN_CLOSING) {
        list_remove(&conn->link);
        if (conn->linger_until_us == 0 || !(conn_has_output(conn) || conn_owes_goodbye(conn)))
            close_now(conn);
        else
            list_push_back(&conn->loop->to_flush, &conn->link);
        return;
    }
    if (conn_has_output(conn))
        conn_flush_later(conn);
    else if (conn_quiet_if_due(conn))
        return;
    if (conn->was_full && conn->out.span_count <= CONN_FULL_SPANS / 2 &&
        conn->out.bytes <= CONN_FULL_BYTES / 2) {
        conn->was_full = false;
        conn->events->drained(conn);
    }
}

static void connect_done(struct op *op, const struct completion *completion)
{
    struct conn *conn = OWNER_OF(op, struct conn, send_op);

    conn->is_connecting = false;
    conn->send_op.done = send_done;
    if (conn->state == CONN_CLOSING) {
        close_now(conn);
        return;
    }
    conn->events->connected(conn, -completion->result);
    if (conn->state != CONN_OPEN)
        return;
    if (completion->result < 0)
        conn_close(conn, false);
    else if (conn->out.first != NULL)
        conn_flush_later(conn); /* queued while connecting */
}

/* ---- receiving ---- */

void conn_resume(struct conn *conn)
{
    if (conn->state != CONN_OPEN || conn->has_ended)
        return;
    conn->receive_wanted = true;
    if (!conn->receive_op.started && !conn->is_held && list_is_empty(&conn->wait_link))
        ring_receive(conn->loop->ring, &conn->receive_op, conn->fd);
}

void conn_pause(struct conn *conn)
{
    conn->receive_wanted = false;
    list_remove(&conn->wait_link);
    ring_cancel(conn->loop->ring, &conn->receive_op);
}

void conn_hold_if_possible(struct conn *conn)
{
    if (conn->state != CONN_OPEN || conn->has_ended)
        return;
    if (conn->events->may_hold == NULL || !conn->events->may_hold(conn)) {
        conn_release(conn);
    } else if (!conn->is_held) {
        conn->is_held = true;
        list_remove(&conn->wait_link);
        ring_cancel(conn->loop->ring, &conn->receive_op);
    }
}

void conn_release(struct conn *conn)
{
    if (!conn->is_held)
        return;
    conn->is_held = false;
    if (conn->receive_wanted)
        conn_resume(conn);
}

bool conn_quiesce(struct conn *conn)
{
    conn_pause(conn);
    /* Inside `received` the receive may have ended already, but its completion still looks at the
     * conn. */
    conn->tell_quiet = !conn_is_quiet(conn) || conn_has_output(conn) || conn->is_in_received;
    return !conn->tell_quiet;
}

static void receive_done(struct op *op, const struct completion *completion)
{
    struct conn *conn = OWNER_OF(op, struct conn, receive_op);
    struct conn_loop *loop = conn->loop;

    if (completion->result > 0) {
        if (likely(conn->state == CONN_OPEN && !conn->has_ended)) {
            conn->is_in_received = true;
            if (likely(conn->tls == NULL))
                conn->events->received(conn, completion->buffer, (uint32_t)completion->result);
            else
                conn_tls_received(conn, completion->buffer->data, (size_t)completion->result);
            conn->is_in_received = false;
            if (unlikely(loop->is_suspended))
                conn_hold_if_possible(conn);
        }
        buffer_release(loop->buffers, completion->buffer);
        if (likely(completion->more))
            return;
    } else if (completion->result == 0) {
        if (conn->state == CONN_OPEN)
            conn_ended(conn, 0);
    } else if (completion->result == -ENOBUFS) {
        if (conn->state == CONN_OPEN && conn->receive_wanted && !conn->is_held) {
            list_push_back(&loop->starved, &conn->wait_link);
            return;
        }
    } else if (completion->result != -ECANCELED) {
        if (conn->state == CONN_OPEN)
            conn_ended(conn, -completion->result);
    }
    if (op->started)
        return;
    if (conn->state == CONN_CLOSING) {
        if (conn->linger_until_us == 0)
            close_if_quiet(conn);
        return;
    }
    if (conn->state == CONN_OPEN && conn->receive_wanted && !conn->is_held && !conn->has_ended)
        ring_receive(loop->ring, op, conn->fd);
    else if (conn->state == CONN_OPEN)
        (void)conn_quiet_if_due(conn);
}

/* ---- the turn ---- */

static bool can_receive(const struct conn_loop *loop)
{
    return loop->buffers->receive_used < loop->buffers->receive_count_max;
}

void conn_loop_flush(struct conn_loop *loop)
{
    struct list again;

    while (!list_is_empty(&loop->to_flush)) {
        struct conn *conn = OWNER_OF(list_front(&loop->to_flush), struct conn, link);

        list_remove(&conn->link);
        send_start(conn);
    }
    /* Those that starve again come back behind the others. With no buffer to be had the next one
     * given back brings us here again. */
    list_init(&again);
    if (can_receive(loop))
        list_append_all(&again, &loop->starved);
    while (!list_is_empty(&again)) {
        struct conn *conn = OWNER_OF(list_front(&again), struct conn, wait_link);

        list_remove(&conn->wait_link);
        ring_receive(loop->ring, &conn->receive_op, conn->fd);
    }
    while (!list_is_empty(&loop->lingering)) {
        struct conn *conn = OWNER_OF(list_front(&loop->lingering), struct conn, wait_link);

        if (conn->linger_until_us > loop->now_us)
            break;
        close_now(conn);
    }
    while (!list_is_empty(&loop->closed)) {
        struct conn *conn = OWNER_OF(list_front(&loop->closed), struct conn, link);

        list_remove(&conn->link);
        assert(conn_is_quiet(conn));
        assert(conn->state == CONN_CLOSING);
        ring_close(loop->ring, conn->fd);
        conn->fd = -1;
        conn->state = CONN_GONE;
        if (conn->tls != NULL)
            tls_destroy(conn_tls_release(conn));
        assert(loop->conn_count > 0);
        loop->conn_count--;
        conn->events->gone(conn);
    }
}

uint64_t conn_loop_next_us(const struct conn_loop *loop)
{
    /* Re-armed sends and receives are in the ring already; only what lingers needs the clock. */
    if (!list_is_empty(&loop->closed) || !list_is_empty(&loop->to_flush))
        return loop->now_us;
    /* A buffer came back after the flush had looked: from inside `gone`. */
    if (!list_is_empty(&loop->starved) && can_receive(loop))
        return loop->now_us;
    if (list_is_empty(&loop->lingering))
        return UINT64_MAX;
    return OWNER_OF(list_front(&loop->lingering), struct conn, wait_link)->linger_until_us;
}
