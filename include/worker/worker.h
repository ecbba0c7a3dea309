/* worker.h - one pinned thread: its ring, its listeners, its core; the turn of the loop.
 *
 * Started and stopped by control. Everything a worker owns is touched by its own thread only;
 * others post letters. The ring is made by the thread that uses it (IORING_SETUP_SINGLE_ISSUER),
 * before the process drops root: worker_start returns when the ring and the listeners stand, or
 * with the reason why not. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "pool/core.h"

#include <pthread.h>

struct worker;

/* Sockets made by control (bind and listen may need privileges and must fail before the fork). */
struct worker_listener {
    int fd;
    bool is_unix;
};

struct worker_options {
    unsigned index, count;
    int cpu;                   /* -1: not pinned */
    struct snapshot *snapshot; /* one reference is the worker's */
    struct usage_table *usage;
    const struct param_names *param_names;
    const uint8_t *mock_key;
    uint32_t client_count_max;
    const struct worker_listener *listeners; /* copied; each worker has its own TCP sockets
                                                (SO_REUSEPORT), unix sockets are shared */
    size_t listener_count;
    /* Called from worker threads; must not block. */
    void (*post_control)(struct letter *letter);
    bool (*post_job)(struct job *job) must_check; /* false: not taken */
    /* Opened by control: struct resolution, and struct handover of console sessions. */
    letter_open *resolver_open;
    letter_open *console_open;
};

enum { WORKERS_MAX = 256, WORKER_LISTENERS_MAX = 64 };

/* NULL: `error` says why in one line (io_uring cannot be used, no memory). */
struct worker *worker_start(const struct worker_options *options,
                            char error[RING_ERROR_BYTES]) must_check;

/* Until this is called no worker serves anybody: all of them must stand first, and root be dropped.
 */
void worker_release_all(void);

/* A thread that is no worker needs a small ring of its own to ring the bell of a sleeping worker:
 * made here, while the process may still be root, since later ones count against RLIMIT_MEMLOCK.
 * False: `error` says why. */
must_check bool worker_prepare_thread(char error[RING_ERROR_BYTES]);

/* Any thread that is not a worker and was prepared. Letters are opened with the worker's core as
 * context. */
void worker_post(unsigned worker_index, struct letter *letter);

/* Stops accepting; `unix_too` false keeps the unix socket (for the console during a shutdown). A
 * letter; returns at once. */
void worker_stop_listening(unsigned worker_index, bool unix_too);

/* Ends the thread at once, as at the end of the process: connections are simply dropped. */
void worker_stop(struct worker *worker);

/* What its ring can do, for the log. */
const char *worker_describe(const struct worker *worker);

#endif
