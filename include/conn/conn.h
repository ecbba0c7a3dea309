/* conn.h - one connection: its descriptor, its receive, its outgoing spans, and its one way to end.
 * conn.c has all of that, conn_tls.c what TLS adds.
 *
 * Life:   open -> closing -> gone
 *   open     bytes come in through `received`, go out through conn_push; one that connects is open too
 *   closing  conn_close was called: no more events but `gone`; what was queued is sent first if asked
 *            for, for at most CONN_LINGER_US
 *   gone     no op is started, the descriptor is closed, all spans are released: `gone` was called and
 *            the owner may free the struct. Never before, and never from inside another call of this
 *            module.
 *
 * Sends: at most one in flight; what is queued meanwhile goes out as one vector in the next.
 * Nothing is sent from inside conn_push: conn_loop_flush, at the end of the turn, submits what all
 * conns have queued.
 *
 * Receives: multishot; an idle connection holds no buffer. Buffers belong to whoever references
 * them; a callee that wants bytes later pushes or parks them. conn_pause stops the receive
 * (back-pressure): what the kernel has already completed still arrives, a few buffers at most.
 *
 * TLS (conn_start_tls, once its handshake is done elsewhere): `received` gets plain bytes in parked
 * buffers, and what is pushed stays plain in its queue until its send begins. So a record holds what
 * one turn has queued, 16 KiB at most: a short answer costs a short record, a large result full
 * ones. At most CONN_SEALED_BYTES are encrypted ahead of the socket. The peer's close_notify and the
 * end of its stream without one are both `ended` with 0: the protocol inside says itself when it is
 * over, and an end of the stream never counts as the end of a message. Bytes that do not decrypt
 * are `ended` with EBADMSG, and the alert goes out.
 *
 * One thread: the loop's. */
#ifndef CONN_CONN_H
#define CONN_CONN_H

#include "base/list.h"
#include "crypto/tls.h"
#include "io/ring.h"

enum { CONN_LINGER_US = 5 * 1000 * 1000 };

/* Outgoing bytes: at the high-water mark the feeder should stop (conn_is_full), at half of it go
 * on. Spans are counted as well as bytes, since a span of few bytes holds a whole receive buffer.
 *
 * When most receive buffers of the core are held by slow readers (buffer_pool_is_scarce), conn_push
 * copies into parked buffers instead and the mark falls, so that no number of slow readers can stop
 * the others. It falls, too, when parked buffers hold much (buffer_pool_is_crowded). */
enum {
    CONN_FULL_SPANS = 32,
    CONN_FULL_BYTES = 512 * 1024,
    CONN_FULL_BYTES_SCARCE = 32 * 1024,
    CONN_SEALED_BYTES = 128 * 1024,
};

struct conn;

struct span {
    struct span *next;
    struct buffer *buffer; /* one reference */
    uint32_t offset;
    uint32_t bytes;
};

/* First in, first out. */
struct span_queue {
    struct span *first;
    struct span *last;
    uint32_t span_count;
    uint32_t bytes;
};

/* What a conn has more when it is on TLS. */
struct conn_tls {
    struct tls *session;
    struct conn *conn;
    struct tls_output output;
    struct span_queue sealed; /* ciphertext, first in the order of sending */
    bool has_failed;          /* nothing can be encrypted any more */
    bool has_said_goodbye;    /* close_notify is in `sealed` */
    bool has_heard_goodbye;   /* the peer's has come */
};

struct conn_events {
    /* `bytes` > 0 of `buffer`, from its beginning. The reference stays the caller's. */
    void (*received)(struct conn *conn, struct buffer *buffer, uint32_t bytes);
    /* The peer has ended (0) or the connection is broken (errno). Comes once; conn_close is then
     * due. Only an owner that waits for `quiet` may go on without a peer: `quiet` still comes, and
     * what cannot go out any more is dropped. */
    void (*ended)(struct conn *conn, int error);
    /* After conn_is_full was true: the queue has fallen below half of the marks. */
    void (*drained)(struct conn *conn);
    /* conn_connect is done: 0 or errno. NULL for accepted connections. */
    void (*connected)(struct conn *conn, int error);
    /* conn_quiesce was called and has come true. NULL where it is not used. */
    void (*quiet)(struct conn *conn);
    /* SUSPEND: may reading stop here, between two messages? NULL: never. */
    bool (*may_hold)(const struct conn *conn);
    void (*gone)(struct conn *conn);
};

/* What the connections of one core share. */
struct conn_loop {
    struct ring *ring;
    struct buffer_pool *buffers;
    struct slab spans;
    struct slab tls;       /* struct conn_tls */
    struct list to_flush;  /* something is queued and no send is in flight */
    struct list starved;   /* receive ended for want of buffers: re-armed in this order */
    struct list lingering; /* closing, last bytes on their way; oldest first */
    struct list closed;    /* quiet: `gone` is due at the end of the turn */
    uint64_t now_us;       /* the turn's time, set by its owner */
    uint64_t conn_count;   /* not gone */
    bool is_suspended;     /* conns are held as soon as they may be */
};

enum conn_state { CONN_OPEN, CONN_CLOSING, CONN_GONE };

struct conn {
    struct op receive_op;
    struct op send_op; /* connect uses it too: nothing is sent before */
    const struct conn_events *events;
    struct conn_loop *loop;
    struct conn_tls *tls; /* NULL: plain */
    struct span_queue out;
    struct list link;      /* to_flush or closed */
    struct list wait_link; /* starved or lingering */
    int fd;
    uint8_t state; /* enum conn_state */
    bool receive_wanted;
    bool was_full; /* `drained` is due */
    bool is_connecting;
    bool has_ended;      /* `ended` was called */
    bool end_is_deferred; /* and it did not count yet */
    bool tell_quiet;     /* `quiet` is due */
    bool is_in_received; /* inside the event `received`: not quiet, and not to be detached */
    bool is_held;        /* SUSPEND: not read, whatever is wanted */
    uint64_t linger_until_us;
};

must_check bool conn_loop_init(struct conn_loop *loop, struct ring *ring,
                               struct buffer_pool *buffers, uint32_t span_count_max);
void conn_loop_release(struct conn_loop *loop);

/* The end of a turn: submits sends, re-arms starved receives, ends what lingers too long, says
 * `gone`. */
void conn_loop_flush(struct conn_loop *loop);
/* When conn_loop_flush should run at the latest though nothing happens; UINT64_MAX: no need. */
uint64_t conn_loop_next_us(const struct conn_loop *loop);

/* Takes a connected descriptor. Receiving starts with conn_resume. */
void conn_open(struct conn *conn, struct conn_loop *loop, int fd, const struct conn_events *events);
/* Makes a socket and connects; `connected` tells how it ended. A negative errno at once when there
 * is no descriptor: conn is then untouched. */
must_check int conn_connect(struct conn *conn, struct conn_loop *loop,
                            const struct sockaddr *address, socklen_t address_bytes,
                            const struct conn_events *events);

void conn_resume(struct conn *conn);
void conn_pause(struct conn *conn);

/* SUSPEND of the loop: a conn is held when its owner says that it may be (may_hold), and let go when it
 * may not any more. While it is held nothing is received; conn_resume and conn_pause only say what is
 * wanted, and that is done when it is released. With loop->is_suspended a conn is also looked at
 * after each receive, so that one that is never between two messages for long is caught there. */
void conn_hold_if_possible(struct conn *conn);
void conn_release(struct conn *conn);
/* Something is queued, or in flight. */
static inline bool conn_has_output(const struct conn *conn)
{
    return conn->out.first != NULL || (conn->tls != NULL && conn->tls->sealed.first != NULL);
}

/* Held, and nothing is queued or in flight. */
static inline bool conn_is_at_rest(const struct conn *conn)
{
    return conn->is_held && !conn->receive_op.started && !conn->send_op.started &&
           !conn_has_output(conn);
}

/* Queues a reference to bytes of `buffer` (the caller's own reference is not taken). A conn that is
 * closing drops them. Returns false when no span is left: the connection must then be closed. */
must_check bool conn_push(struct conn *conn, struct buffer *buffer, uint32_t offset,
                          uint32_t bytes);
/* Queues a copy. */
must_check bool conn_push_copy(struct conn *conn, const void *data, size_t bytes);
/* The same where more copies are likely to follow in this turn: they go out as one span, which costs a send
 * instead of a sendmsg. */
must_check bool conn_push_copy_of_many(struct conn *conn, const void *data, size_t bytes);

static inline bool conn_is_full(struct conn *conn)
{
    if (likely(
            conn->out.span_count < CONN_FULL_SPANS &&
            (conn->out.bytes < CONN_FULL_BYTES_SCARCE ||
             (conn->out.bytes < CONN_FULL_BYTES && !buffer_pool_is_scarce(conn->loop->buffers) &&
              !buffer_pool_is_crowded(conn->loop->buffers)))))
        return false;
    conn->was_full = true;
    return true;
}

/* From now on no event but `gone`. `flush`: what is queued goes out first. May be called again. */
void conn_close(struct conn *conn, bool flush);

static inline bool conn_is_quiet(const struct conn *conn)
{
    return !conn->receive_op.started && !conn->send_op.started;
}

/* Stops receiving and lets what is queued go out. True: nothing is in flight or queued. False: the
 * event `quiet` will say when; `ended` comes first when the connection breaks before that. */
must_check bool conn_quiesce(struct conn *conn);

/* Lets go of the descriptor of a quiet conn, to hand it to another thread. `gone` is not called. `tls` gets
 * the session that goes along (conn_start_tls at the other end); NULL: it was plain. */
int conn_detach(struct conn *conn, struct tls **tls) must_check;

/* From now on the connection is on TLS: `session` belongs to conn, its handshake is done, and what is
 * still queued is the handshake's last flight. False: no memory, and the session is the caller's. */
must_check bool conn_start_tls(struct conn *conn, struct tls *session);
/* After conn_start_tls: what the session was fed for the handshake and has not read yet, and what has been
 * received since then; behind them an end that was deferred. Events come from inside; the conn may be
 * another thread's after it. */
void conn_received_early(struct conn *conn, const void *data, size_t bytes);

/* From inside `ended`: the peer's last bytes are with a helper, and come before its end. It is said again,
 * by conn_received_early or conn_say_deferred_end. */
void conn_defer_end(struct conn *conn);
/* If there is one. */
void conn_say_deferred_end(struct conn *conn);

/* Queues of spans outside a conn (what is parked for a server). */
must_check bool span_queue_push(struct span_queue *queue, struct conn_loop *loop,
                                struct buffer *buffer, uint32_t offset, uint32_t bytes);
/* Queues a copy in parked buffers, so that receive buffers go back at once. */
must_check bool span_queue_push_copy(struct span_queue *queue, struct conn_loop *loop,
                                     const void *data, size_t bytes);
/* Moves all of `rest` behind `queue`. */
void span_queue_join(struct span_queue *queue, struct span_queue *rest);
void span_queue_clear(struct span_queue *queue, struct conn_loop *loop);
/* Takes the first `bytes` off. */
void span_queue_drop(struct span_queue *queue, struct conn_loop *loop, uint32_t bytes);

#endif
