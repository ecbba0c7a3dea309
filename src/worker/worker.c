/* worker.c - the turn of the loop. */
#include "worker/worker.h"

#include "worker/machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- listening ---- */

static void listener_close(struct listener *listener)
{
    ring_close(listener->worker->ring, listener->fd);
    listener->fd = -1;
    atomic_fetch_sub_explicit(&listener->worker->listening_count, 1, memory_order_release);
}

static void accept_done(struct op *op, const struct completion *completion)
{
    struct listener *listener = OWNER_OF(op, struct listener, op);
    struct worker *worker = listener->worker;

    if (completion->result >= 0) {
        core_accept(&worker->core, completion->result);
    } else if (completion->result == -EMFILE || completion->result == -ENFILE ||
               completion->result == -ENOMEM || completion->result == -ENOBUFS) {
        log_write(LEVEL_ERROR, "accept() failed: %s", strerror(-completion->result));
    }
    if (completion->more)
        return;
    if (listener->is_stopping) {
        listener_close(listener);
    } else if (listener->is_held) {
        return;
    } else if (completion->result >= 0 || completion->result == -EMFILE ||
               completion->result == -ENFILE || completion->result == -ECONNABORTED ||
               completion->result == -EINTR || completion->result == -ENOMEM ||
               completion->result == -ENOBUFS || completion->result == -ECANCELED) {
        ring_accept(worker->ring, op, listener->fd);
    } else {
        log_write(LEVEL_ERROR, "accept() failed for good: %s", strerror(-completion->result));
    }
}

static void stop_listeners(struct worker *worker, bool unix_too)
{
    for (size_t i = 0; i < worker->options.listener_count; i++) {
        struct listener *listener = &worker->listeners[i];

        if (listener->fd < 0 || (listener->is_unix && !unix_too))
            continue;
        listener->is_stopping = true;
        if (listener->op.started) {
            ring_cancel(worker->ring, &listener->op);
        } else {
            listener_close(listener);
        }
    }
}

static void port_hold_accepts(struct core *core, bool hold)
{
    struct worker *worker = core->ports_context;

    for (size_t i = 0; i < worker->options.listener_count; i++) {
        struct listener *listener = &worker->listeners[i];

        if (listener->fd < 0 || listener->is_stopping)
            continue;
        listener->is_held = hold;
        if (hold)
            ring_cancel(worker->ring, &listener->op);
        else if (!listener->op.started)
            ring_accept(worker->ring, &listener->op, listener->fd);
    }
}

static void stop_tcp_opened(struct letter *letter, void *context)
{
    (void)context;
    stop_listeners(OWNER_OF(letter, struct worker, stop_tcp), false);
}

static void stop_all_opened(struct letter *letter, void *context)
{
    (void)context;
    stop_listeners(OWNER_OF(letter, struct worker, stop_all), true);
}

/* It begins anew when it has ended, with a look into the queue. */
static void accept_again_opened(struct letter *letter, void *context)
{
    struct worker *worker = OWNER_OF(letter, struct worker, accept_again);

    (void)context;
    for (size_t i = 0; i < worker->options.listener_count; i++)
        if (worker->listeners[i].fd >= 0)
            ring_cancel(worker->ring, &worker->listeners[i].op);
}

/* ---- letters ---- */

void worker_post(struct worker *to, struct ring *from, struct letter *letter)
{
    /* Whether the mailbox was empty says nothing: who filled it may be a helper of the lowest priority
     * that lost its CPU before it rang. A bell too many costs a completion. */
    (void)mailbox_post(&to->mailbox, letter);
    if (atomic_load_explicit(&to->asleep, memory_order_seq_cst))
        ring_wake(from, atomic_load_explicit(&to->wake_fd, memory_order_acquire));
}

void worker_post_stop_listening(struct worker *to, struct ring *from, bool unix_too)
{
    worker_post(to, from, unix_too ? &to->stop_all : &to->stop_tcp);
}

void worker_post_accept_again(struct worker *to, struct ring *from)
{
    worker_post(to, from, &to->accept_again);
}

static void port_post_core(struct core *core, unsigned core_index, struct letter *letter)
{
    struct worker *worker = core->ports_context;
    struct worker *to = worker->options.workers[core_index];

    assert(core_index < core->count);
    /* Its own letters are looked for before it sleeps: no bell. */
    if (to == worker)
        (void)mailbox_post(&to->mailbox, letter);
    else
        worker_post(to, worker->ring, letter);
}

static void port_post_control(struct core *core, struct letter *letter)
{
    struct worker *worker = core->ports_context;

    worker->options.post_control(letter);
}

static bool port_post_job(struct core *core, struct job *job)
{
    struct worker *worker = core->ports_context;

    return worker->options.post_job(job);
}

static void port_random(struct core *core, void *out, size_t bytes)
{
    struct worker *worker = core->ports_context;

    worker->options.random(out, bytes);
}

/* ---- the turn ---- */

uint64_t worker_wait_until(struct worker *worker)
{
    uint64_t deadline_us = core_next_us(&worker->core);

    /* Said before the last look at the mailbox: whoever posts later sees it, and rings. */
    atomic_store_explicit(&worker->asleep, true, memory_order_seq_cst);
    if (atomic_load_explicit(&worker->mailbox.last, memory_order_seq_cst) != NULL)
        deadline_us = 0;
    return deadline_us;
}

/* Where exchanges queue on shared servers, answers come one after the other without our doing. On full cores the
 * worker took its core away from the backend that worked for it, for each of them. */
enum { GATHER_FROM = 12, GATHER_PART = 2, GATHER_MAX = 32, GATHER_PATIENCE_US = 300 };

/* What is queued may be blocked, and cannot go elsewhere: then gathering only delays everybody else, for its whole patience in
 * each turn. So each time that not one answer came it pauses for twice as long. (Not when few came: on a slow machine that is
 * what 300 us bring, and pausing cost all the gain.) */
enum { GATHER_PAUSE_MIN = 4, GATHER_PAUSE_MAX = 256 };

static void judge_gathering(struct worker *worker)
{
    if (!worker->has_gathered)
        return;
    worker->has_gathered = false;
    if (ring_gathered_in_vain(worker->ring))
        worker->gather_pause =
            MIN(MAX(worker->gather_pause * 2, GATHER_PAUSE_MIN), GATHER_PAUSE_MAX);
    else
        worker->gather_pause /= 4;
    worker->gather_pause_left = worker->gather_pause;
}

static void gather_answers(struct worker *worker)
{
    /* Not the first of each queue, which may wait for a lock; who is behind such a one is moved away. */
    unsigned queued = worker->core.queued_count - worker->core.sharing_server_count;

    judge_gathering(worker);
    if (queued < GATHER_FROM)
        return;
    if (worker->gather_pause_left > 0) {
        worker->gather_pause_left--;
        return;
    }
    ring_gather(worker->ring, MIN(queued / GATHER_PART, (unsigned)GATHER_MAX), GATHER_PATIENCE_US);
    worker->has_gathered = true;
}

void worker_turn(struct worker *worker, uint64_t deadline_us)
{
    struct core *core = &worker->core;

    gather_answers(worker);
    (void)ring_turn(worker->ring, deadline_us);
    atomic_store_explicit(&worker->asleep, false, memory_order_relaxed);
    (void)mailbox_open_all(&worker->mailbox, core);
    timers_run(&core->timers, core->loop.now_us);
    core_end_turn(core);
}

/* ---- beginning and end ---- */

bool worker_init(struct worker *worker, const struct worker_options *options, uint64_t now_us,
                 char error[RING_ERROR_BYTES])
{
    struct ring_options ring_options = {
        .entries = options->ring_entries,
        .completion_entries = options->ring_completions,
        .buffers = &worker->buffers,
        .busy_poll_us = options->snapshot->settings.busy_poll_us,
        .now_us = &worker->core.loop.now_us,
    };
    struct core_options core_options = {
        .index = options->index,
        .count = options->count,
        .client_count_max = options->client_count_max,
        .buffers = &worker->buffers,
        .usage = options->usage,
        .shards = options->shards,
        .param_names = options->param_names,
        .mock_key = options->mock_key,
        .has_other_keys = options->has_other_keys,
        .host_name = worker->host_name,
        .snapshot = options->snapshot,
        .ports = &worker->ports,
        .ports_context = worker,
        .now_us = now_us,
    };

    assert(options->index < options->count);
    assert(options->count <= WORKERS_MAX);
    assert(options->listener_count <= WORKER_LISTENERS_MAX);
    if (gethostname(worker->host_name, sizeof(worker->host_name) - 1) < 0)
        strcpy(worker->host_name, "localhost");
    worker->options = *options;
    worker->ports = (struct core_ports){
        .post_core = port_post_core,
        .post_control = port_post_control,
        .post_job = port_post_job,
        .random = port_random,
        .hold_accepts = port_hold_accepts,
        .resolver_open = options->resolver_open,
        .console_open = options->console_open,
    };
    mailbox_init(&worker->mailbox);
    atomic_init(&worker->wake_fd, -1);
    atomic_init(&worker->asleep, false);
    worker->stop_tcp.open = stop_tcp_opened;
    worker->stop_all.open = stop_all_opened;
    worker->accept_again.open = accept_again_opened;
    atomic_init(&worker->listening_count, (unsigned)options->listener_count);
    if (!buffer_pool_init(&worker->buffers, options->receive_buffer_bytes,
                          options->receive_buffer_count_max)) {
        snprintf(error, RING_ERROR_BYTES, "no memory for receive buffers: %s", strerror(errno));
        return false;
    }
    if (!machine_use_huge_pages(&worker->buffers, options->huge_pages, options->index == 0, error))
        return false;
    worker->ring = ring_create(&ring_options, error);
    if (worker->ring == NULL)
        return false;
    core_options.ring = worker->ring;
    if (!core_init(&worker->core, &core_options)) {
        snprintf(error, RING_ERROR_BYTES, "no address space for a worker: %s", strerror(errno));
        return false;
    }
    if (options->huge_pages != HUGE_PAGES_OFF)
        core_use_huge_pages(&worker->core);
    atomic_store(&worker->wake_fd, ring_fd(worker->ring));
    for (size_t i = 0; i < options->listener_count; i++) {
        struct listener *listener = &worker->listeners[i];

        listener->worker = worker;
        listener->op.done = accept_done;
        listener->fd = options->listeners[i].fd;
        listener->is_unix = options->listeners[i].is_unix;
        ring_accept(worker->ring, &listener->op, listener->fd);
    }
    return true;
}

void worker_release(struct worker *worker)
{
    for (size_t i = 0; i < worker->options.listener_count; i++)
        assert(worker->listeners[i].fd < 0);
    assert(atomic_load(&worker->mailbox.last) == NULL);
    core_release(&worker->core);
    assert(worker->buffers.receive_used == 0);
    assert(worker->buffers.parked_bytes == 0);
    snapshot_release(worker->core.snapshot);
    ring_destroy(worker->ring);
    buffer_pool_release(&worker->buffers);
}
