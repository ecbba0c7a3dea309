/* ring.h - the seam between the state machines and the kernel. Two implementations, chosen when
 * linking: src/io/ring_uring.c (liburing) and tests/sim/ring_sim.c (a simulated kernel, one seed).
 *
 * An `op` is embedded in the object that asks and holds one function, which is called with each
 * completion. An op may be started again only after its last completion (`more` false); the object
 * must live until then. Every started op completes, cancelled or not. Completions arrive only
 * inside ring_turn, in one thread: a ring belongs to the thread that made it
 * (IORING_SETUP_SINGLE_ISSUER, kernel 6.0).
 *
 * Least kernel 6.1, for IORING_SETUP_DEFER_TASKRUN: it was worth 25 % of the CPU per transaction.
 */
#ifndef IO_RING_H
#define IO_RING_H

#include "io/buffer.h"

#include <sys/socket.h>
#include <sys/uio.h>

struct ring;
struct op;

struct completion {
    int result; /* bytes, a descriptor, 0 (done; end of stream), or a negative errno */
    bool more;  /* the op stays started and will complete again */
    struct buffer
        *buffer; /* receive with result > 0: the bytes; its reference is now the callee's */
};

typedef void op_done(struct op *op, const struct completion *completion);

struct op {
    op_done *done;
    bool started; /* the ring's: set by start, cleared by the last completion */
    bool cancelling;
};

struct ring_options {
    unsigned entries;            /* submissions that fit without a system call of their own */
    unsigned completion_entries; /* before the kernel has to allocate */
    struct buffer_pool *buffers; /* initialised; must outlive the ring */
    uint64_t busy_poll_us;       /* spin before sleeping; may be changed by ring_set_busy_poll */
    uint64_t *now_us; /* gets the time when a wait is over, before any op is called; NULL: none */
};

enum { RING_ERROR_BYTES = 512, RING_SEND_VECTOR_MAX = 64 };

/* NULL: io_uring cannot be used; `error` says why and what to do, in one line. Retries for about a
 * second when the memory limit is reached, since a dead predecessor's share is given back late. */
struct ring *ring_create(const struct ring_options *options,
                         char error[RING_ERROR_BYTES]) must_check;
/* All ops must have completed, or the process is about to end. */
void ring_destroy(struct ring *ring);
void ring_set_busy_poll(struct ring *ring, uint64_t busy_poll_us);

/* What the log and SHOW VERSION say about the kernel's features. */
const char *ring_describe(const struct ring *ring);

/* Multishot: result is a new descriptor. Ends with an error only (ECANCELED when cancelled). */
void ring_accept(struct ring *ring, struct op *op, int listen_fd);

/* Multishot into buffers of the pool. result 0: the peer's end of stream. ENOBUFS: all buffers are
 * in use; start again when some have come back. A result > 0 with `more` false: start again. */
void ring_receive(struct ring *ring, struct op *op, int fd);

/* One send; result may be short. The bytes must stay until completion, the vector need not. */
void ring_send(struct ring *ring, struct op *op, int fd, const struct iovec *vector, size_t count);

/* The address need not stay. */
void ring_connect(struct ring *ring, struct op *op, int fd, const struct sockaddr *address,
                  socklen_t address_bytes);

/* Asks a started op to end early; its completion (ECANCELED, or what it had got to) says when it
 * has. */
void ring_cancel(struct ring *ring, struct op *op);

/* Takes the descriptor; no completion. No op on it may be started. */
void ring_close(struct ring *ring, int fd);

/* A stream socket towards `family`, close-on-exec, blocking (io_uring polls by itself); negative
 * errno. A plain system call: rare. */
int ring_socket(struct ring *ring, int family) must_check;
/* shutdown(2) of both directions: started receives and sends on it end. */
void ring_shutdown(struct ring *ring, int fd);

/* The address of the other end, or of ours, and for a unix socket the other end's process (0: not
 * known). Plain system calls. Negative errno. */
int ring_peer_address(struct ring *ring, int fd, struct sockaddr_storage *address) must_check;
int ring_local_address(struct ring *ring, int fd, struct sockaddr_storage *address) must_check;
uint32_t ring_peer_pid(struct ring *ring, int fd);
/* The process at the other end of a unix socket runs as our own user. */
bool ring_peer_is_same_user(struct ring *ring, int fd);
/* The user that it ran as when it connected. False: not known. */
bool ring_peer_uid(struct ring *ring, int fd, uint32_t *uid) must_check;
/* Options of a TCP socket (keepalive, buffer sizes, TCP_NODELAY); failures are ignored. */
void ring_set_option(struct ring *ring, int fd, int level, int option, int value);

/* Lets ring_turn of `other_fd`'s ring return (IORING_OP_MSG_RING). Not for the own ring. */
int ring_fd(const struct ring *ring);
void ring_wake(struct ring *ring, int other_fd);

/* Submits what was started, waits for a completion or until `deadline_us` on base/clock.h's clock
 * (0: do not wait; UINT64_MAX: no deadline; it may return earlier) and calls what has completed.
 * Returns the number of ops called. Buffers given back before it are with the kernel again after
 * it. */
unsigned ring_turn(struct ring *ring, uint64_t deadline_us);

/* The next ring_turn waits for `count` completions besides those of the sends that it submits, for at most
 * `patience_us`; 0 or 1: for any. For a caller who knows that several are sure to come, and soon: each wake-up
 * costs two switches, and takes its core from whoever is about to cause the next completion. */
void ring_gather(struct ring *ring, unsigned count, unsigned patience_us);
/* Has the patience run out before any had come? Of the last ring_turn that gathered. */
bool ring_gathered_in_vain(const struct ring *ring);

struct ring_counters {
    uint64_t enters; /* io_uring_enter calls */
    uint64_t completions;
    uint64_t receives, sends;
    uint64_t buffer_shortages; /* ENOBUFS */
};
const struct ring_counters *ring_counters(const struct ring *ring);

#endif
