/* worker.h - what one core does: its ring, its listeners, its mailbox, its core; the turn of the
 * loop.
 *
 * No thread and no clock: thread.h runs it on a core of the machine, tests/sim/test_world.c runs
 * several of them in one thread. Everything a worker owns is touched by whoever calls worker_turn
 * only; others post letters. A turn is  worker_turn(worker, worker_wait_until(worker)).  */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "pool/core.h"

enum { WORKERS_MAX = 256, WORKER_LISTENERS_MAX = 256 };

/* Sockets made by control (bind and listen may need privileges and must fail before the fork). */
struct worker_listener {
    int fd; /* the worker's own descriptor */
    bool is_unix;
    bool is_shared; /* other workers accept from the same socket */
};

struct worker;

struct worker_options {
    unsigned index, count;
    struct worker *const *workers; /* all of them; complete before the first turn */
    struct snapshot *snapshot;     /* one reference is the worker's */
    struct usage_table *usage;
    struct shard_table *shards;
    const struct param_names *param_names;
    const uint8_t *mock_key;
    bool has_other_keys; /* see core_options */
    uint32_t client_count_max;
    unsigned ring_entries, ring_completions;
    uint32_t receive_buffer_bytes, receive_buffer_count_max;
    enum huge_pages huge_pages;
    const struct worker_listener *listeners; /* copied; as a rule each worker has TCP sockets of its
                                                own (SO_REUSEPORT), unix sockets are shared */
    size_t listener_count;
    /* Called inside a turn; must not block. */
    void (*post_control)(struct letter *letter);
    bool (*post_job)(struct job *job) must_check; /* false: not taken */
    void (*random)(void *out, size_t bytes);
    /* Opened by control: struct resolution, and struct handover of console sessions. */
    letter_open *resolver_open;
    letter_open *console_open;
};

struct listener {
    struct op op;
    struct worker *worker;
    int fd; /* -1: closed */
    bool is_unix;
    bool is_stopping;
    bool is_held; /* SUSPEND: who comes waits in the kernel */
};

struct worker {
    struct core core;
    struct buffer_pool buffers;
    struct ring *ring;
    struct mailbox mailbox;
    struct worker_options options;
    struct core_ports ports;
    char host_name[65];
    struct listener listeners[WORKER_LISTENERS_MAX];
    atomic_int wake_fd; /* the ring's descriptor: whom a doorbell rings; -1 before */
    atomic_bool asleep; /* may be asleep: a letter needs the bell */
    struct letter stop_tcp, stop_all, accept_again;
    atomic_uint listening_count; /* listeners that may still accept; read by any thread */
    unsigned gather_pause;       /* turns without gathering after one in vain; */
    unsigned gather_pause_left;  /* of the present one */
    bool has_gathered;           /* in the last turn */
};

/* `worker` is zeroed. In the thread that will turn it. False: `error` says why in one line
 * (io_uring cannot be used, no memory). */
must_check bool worker_init(struct worker *worker, const struct worker_options *options,
                            uint64_t now_us, char error[RING_ERROR_BYTES]);
/* Listeners and connections must be gone, letters opened. */
void worker_release(struct worker *worker);

/* Until when worker_turn may wait; from here on whoever posts a letter rings. */
uint64_t worker_wait_until(struct worker *worker);
/* Waits, then does all that there is to be done. */
void worker_turn(struct worker *worker, uint64_t deadline_us);

/* `from` is the sender's own ring, which rings the bell when it next submits. Letters are opened
 * with the worker's core as context. */
void worker_post(struct worker *to, struct ring *from, struct letter *letter);

/* A letter: stops accepting; `unix_too` false keeps the unix socket (for the console during a
 * shutdown). Once for each. */
void worker_post_stop_listening(struct worker *to, struct ring *from, bool unix_too);

/* A letter: looks into the queues of the listeners anew. Of those who wait for one socket the kernel
 * wakes one for each connection, and that may have been another process, which has stopped accepting
 * at that moment. Once. */
void worker_post_accept_again(struct worker *to, struct ring *from);

#endif
