/* thread.h - the threads that workers run on: started, pinned, released together, stopped.
 *
 * Control's calls, but for thread_post. A worker's ring is made by the thread that uses it
 * (IORING_SETUP_SINGLE_ISSUER), before the process drops root: thread_start_worker returns when the
 * ring and the listeners stand, or with the reason why not. */
#ifndef WORKER_THREAD_H
#define WORKER_THREAD_H

#include "worker/worker.h"

struct thread;

/* `options` without what thread.c adds: the table of workers, chance, and the sizes of ring and
 * buffers. `cpu` -1: not pinned. NULL: `error` says why in one line. */
struct thread *thread_start_worker(const struct worker_options *options, int cpu,
                                   char error[RING_ERROR_BYTES]) must_check;

/* Until this is called no worker serves anybody: all of them must stand first, and root be dropped.
 */
void thread_release_all(void);

/* A thread that is no worker needs a small ring of its own to ring the bell of a sleeping worker:
 * made here, while the process may still be root, since later ones count against RLIMIT_MEMLOCK.
 * False: `error` says why. */
must_check bool thread_prepare_bell(char error[RING_ERROR_BYTES]);

/* Any thread that is not a worker and was prepared. Letters are opened with the worker's core as
 * context. */
void thread_post(unsigned worker_index, struct letter *letter);

/* Stops accepting, as worker_post_stop_listening; returns at once. */
void thread_stop_listening(unsigned worker_index, bool unix_too);
/* True: it may still accept, or has not counted yet whom it has accepted. */
bool thread_is_listening(unsigned worker_index);
/* As worker_post_accept_again. */
void thread_accept_again(unsigned worker_index);

/* Ends the thread at once, as at the end of the process: connections are simply dropped. */
void thread_stop(struct thread *thread);

/* What its ring can do, for the log. */
const char *thread_describe(const struct thread *thread);

#endif
