#include "conn/conn_tls.h"

#include <errno.h>
#include <string.h>

/* Ahead of the socket there is never more than that: conn_tls_seal stops before, and a peer that has its
 * keys changed again and again without reading the answers is not waited for. */
enum { SEALED_BYTES_MAX = 2 * CONN_SEALED_BYTES };

static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    struct conn_tls *tls = OWNER_OF(output, struct conn_tls, output);

    if (tls->sealed.bytes > SEALED_BYTES_MAX - bytes)
        return false;
    return span_queue_push_copy(&tls->sealed, tls->conn->loop, data, bytes);
}

bool conn_start_tls(struct conn *conn, struct tls *session)
{
    struct conn_tls *tls = slab_take(&conn->loop->tls);

    assert(conn->state == CONN_OPEN);
    assert(conn->tls == NULL);
    if (tls == NULL)
        return false;
    *tls = (struct conn_tls){.session = session, .conn = conn, .output.put = put};
    /* A send of them may be in flight: its completion takes them off where they are now. */
    span_queue_join(&tls->sealed, &conn->out);
    conn->tls = tls;
    return true;
}

struct tls *conn_tls_release(struct conn *conn)
{
    struct conn_tls *tls = conn->tls;
    struct tls *session = tls->session;

    span_queue_clear(&tls->sealed, conn->loop);
    conn->tls = NULL;
    slab_give(&conn->loop->tls, tls);
    return session;
}

/* ---- sending ---- */

/* One record: what is queued, up to its size. Several spans are put together first, since the library
 * takes its input from one place. */
static bool seal_record(struct conn *conn)
{
    struct conn_tls *tls = conn->tls;
    struct span *span = conn->out.first;
    uint8_t together[TLS_RECORD_BYTES_MAX];
    const uint8_t *data = span->buffer->data + span->offset;
    uint32_t bytes = MIN(span->bytes, (uint32_t)TLS_RECORD_BYTES_MAX);

    if (bytes < TLS_RECORD_BYTES_MAX && span->next != NULL) {
        bytes = 0;
        data = together;
        for (; span != NULL && bytes < TLS_RECORD_BYTES_MAX; span = span->next) {
            uint32_t count = MIN(span->bytes, TLS_RECORD_BYTES_MAX - bytes);

            memcpy(together + bytes, span->buffer->data + span->offset, count);
            bytes += count;
        }
    }
    if (!tls_write(tls->session, &tls->output, data, bytes))
        return false;
    span_queue_drop(&conn->out, conn->loop, bytes);
    return true;
}

int conn_tls_seal(struct conn *conn)
{
    struct conn_tls *tls = conn->tls;

    if (tls->has_failed) {
        span_queue_clear(&conn->out, conn->loop);
        return 0;
    }
    while (conn->out.first != NULL && tls->sealed.bytes < CONN_SEALED_BYTES)
        if (!seal_record(conn)) {
            tls->has_failed = true;
            return ENOMEM;
        }
    if (conn->state == CONN_CLOSING && conn->out.first == NULL && conn_owes_goodbye(conn)) {
        tls->has_said_goodbye = true;
        tls_close_notify(tls->session, &tls->output);
    }
    return 0;
}

/* ---- receiving ---- */

/* True: there may be more. */
static bool receive_some(struct conn *conn)
{
    struct conn_loop *loop = conn->loop;
    struct conn_tls *tls = conn->tls;
    size_t room = MIN(tls_read_bytes_max(tls->session), (size_t)BUFFER_PARKED_BYTES_MAX);
    struct buffer *plain = buffer_park(loop->buffers, MAX(room, 1u));
    enum tls_result result;
    size_t bytes;

    if (plain == NULL) {
        conn_ended(conn, ENOMEM);
        return false;
    }
    result = tls_read(tls->session, &tls->output, plain->data, plain->bytes_max, &bytes);
    if (bytes > 0)
        conn->events->received(conn, plain, (uint32_t)bytes);
    buffer_release(loop->buffers, plain);
    if (tls->sealed.first != NULL) /* an alert, or the answer to a change of keys */
        conn_flush_later(conn);
    if (result == TLS_FAILED)
        tls->has_failed = true;
    if (conn->state != CONN_OPEN || conn->has_ended)
        return false;
    tls->has_heard_goodbye = result == TLS_CLOSED;
    if (result == TLS_CLOSED || result == TLS_FAILED)
        conn_ended(conn, result == TLS_CLOSED ? 0 : EBADMSG);
    return result == TLS_OK;
}

static void receive_all(struct conn *conn)
{
    while (receive_some(conn))
        ;
    /* What is behind the end goes with its buffer, while the session may go on, to another core. */
    tls_drop_input(conn->tls->session);
}

void conn_tls_received(struct conn *conn, const void *data, size_t bytes)
{
    tls_feed(conn->tls->session, data, bytes);
    receive_all(conn);
}

void conn_defer_end(struct conn *conn)
{
    assert(conn->has_ended);
    conn->end_is_deferred = true;
}

void conn_say_deferred_end(struct conn *conn)
{
    if (conn->state == CONN_OPEN && conn->end_is_deferred) {
        conn->end_is_deferred = false;
        conn->events->ended(conn, 0);
    }
}

void conn_received_early(struct conn *conn, const void *data, size_t bytes)
{
    bool has_end = conn->end_is_deferred;

    if (conn->state != CONN_OPEN || (conn->has_ended && !has_end))
        return;
    conn->has_ended = false;
    conn->end_is_deferred = false;
    assert(!conn->is_in_received);
    conn->is_in_received = true;
    if (tls_unread_bytes(conn->tls->session) > 0)
        receive_all(conn);
    if (bytes > 0 && conn->state == CONN_OPEN && !conn->has_ended)
        conn_tls_received(conn, data, bytes);
    conn->is_in_received = false;
    if (has_end && conn->state == CONN_OPEN)
        conn_ended(conn, 0);
    if (unlikely(conn->loop->is_suspended))
        conn_hold_if_possible(conn);
    if (conn->state == CONN_OPEN)
        (void)conn_quiet_if_due(conn);
}
