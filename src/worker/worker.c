/* worker.c - the turn of the loop, and how a worker begins and ends. */
#include "worker/worker.h"

#include "base/clock.h"
#include "crypto/random.h"
#include "io/mailbox.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RING_ENTRIES = 1024,
    RING_COMPLETIONS = 8192, /* 40 such rings fit into the usual RLIMIT_MEMLOCK of 8 MiB */
};

struct listener {
    struct op op;
    struct worker *worker;
    int fd;
    bool is_unix;
    bool is_stopping;
};

struct worker {
    struct core core;
    struct buffer_pool buffers;
    struct ring *ring;
    struct mailbox mailbox;
    struct worker_options options;
    struct core_ports ports;
    struct listener listeners[WORKER_LISTENERS_MAX];
    pthread_t thread;
    atomic_int wake_fd; /* the ring's descriptor: whom a doorbell rings; -1 before */
    atomic_bool asleep; /* may be asleep: a letter needs the bell */
    atomic_bool stopping;
    sem_t started;
    bool has_failed;
    char error[RING_ERROR_BYTES];
    struct letter stop_tcp, stop_all;
};

static struct worker *workers[WORKERS_MAX];
static atomic_bool released;

/* The ring of a thread that is no worker, only for doorbells. */
static __thread struct ring *bell_ring;
static __thread struct buffer_pool bell_buffers;

/* ---- listening ---- */

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
        ring_close(worker->ring, listener->fd);
        listener->fd = -1;
    } else if (completion->result >= 0 || completion->result == -EMFILE ||
               completion->result == -ENFILE || completion->result == -ECONNABORTED ||
               completion->result == -EINTR || completion->result == -ENOMEM ||
               completion->result == -ENOBUFS) {
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
        ring_cancel(worker->ring, &listener->op);
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

/* ---- letters ---- */

/* `ring` is the sender's own. */
static void post_from(struct ring *ring, struct worker *to, struct letter *letter)
{
    if (!mailbox_post(&to->mailbox, letter))
        return; /* it was not empty: the bell has been rung */
    if (atomic_load_explicit(&to->asleep, memory_order_seq_cst))
        ring_wake(ring, atomic_load_explicit(&to->wake_fd, memory_order_acquire));
}

static void port_post_core(struct core *core, unsigned core_index, struct letter *letter)
{
    assert(core_index < core->count);
    if (core_index == core->index)
        (void)mailbox_post(&workers[core_index]->mailbox, letter);
    else
        post_from(core->loop.ring, workers[core_index], letter);
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
    (void)core;
    /* The kernel's generator needs no descriptor and does not block once the machine has started.
     */
    assert(random_bytes(out, bytes));
}

bool worker_prepare_thread(char error[RING_ERROR_BYTES])
{
    struct ring_options options = {
        .entries = 8, .completion_entries = 64, .buffers = &bell_buffers};

    if (!buffer_pool_init(&bell_buffers, 1024, 1)) {
        snprintf(error, RING_ERROR_BYTES, "no memory for a doorbell");
        return false;
    }
    bell_ring = ring_create(&options, error);
    return bell_ring != NULL;
}

void worker_post(unsigned worker_index, struct letter *letter)
{
    struct worker *worker = workers[worker_index];

    assert(bell_ring != NULL);
    post_from(bell_ring, worker, letter);
    (void)ring_turn(bell_ring, 0);
}

void worker_stop_listening(unsigned worker_index, bool unix_too)
{
    struct worker *worker = workers[worker_index];
    struct letter *letter = unix_too ? &worker->stop_all : &worker->stop_tcp;

    letter->open = unix_too ? stop_all_opened : stop_tcp_opened;
    worker_post(worker_index, letter);
}

/* ---- the loop ---- */

static void turn(struct worker *worker)
{
    struct core *core = &worker->core;
    uint64_t deadline_us = core_next_us(core);

    /* Said before the last look at the mailbox: whoever posts later sees it, and rings. */
    atomic_store_explicit(&worker->asleep, true, memory_order_seq_cst);
    if (atomic_load_explicit(&worker->mailbox.last, memory_order_seq_cst) != NULL)
        deadline_us = 0;
    (void)ring_turn(worker->ring, deadline_us);
    atomic_store_explicit(&worker->asleep, false, memory_order_relaxed);
    (void)mailbox_open_all(&worker->mailbox, core);
    timers_run(&core->timers, core->loop.now_us);
    core_end_turn(core);
}

static bool set_up(struct worker *worker)
{
    const struct settings *settings = &worker->options.snapshot->settings;
    struct ring_options ring_options = {
        .entries = RING_ENTRIES,
        .completion_entries = RING_COMPLETIONS,
        .buffers = &worker->buffers,
        .busy_poll_us = settings->busy_poll_us,
        .now_us = &worker->core.loop.now_us,
    };
    struct core_options core_options = {
        .index = worker->options.index,
        .count = worker->options.count,
        .client_count_max = worker->options.client_count_max,
        .buffers = &worker->buffers,
        .usage = worker->options.usage,
        .param_names = worker->options.param_names,
        .mock_key = worker->options.mock_key,
        .snapshot = worker->options.snapshot,
        .ports = &worker->ports,
        .ports_context = worker,
        .now_us = clock_now_us(),
    };

    worker->ports = (struct core_ports){
        .post_core = port_post_core,
        .post_control = port_post_control,
        .post_job = port_post_job,
        .random = port_random,
        .resolver_open = worker->options.resolver_open,
        .console_open = worker->options.console_open,
    };
    if (!buffer_pool_init(&worker->buffers, (uint32_t)settings->receive_buffer_bytes,
                          (uint32_t)settings->receive_buffer_count_max)) {
        snprintf(worker->error, sizeof(worker->error), "no memory for receive buffers: %s",
                 strerror(errno));
        return false;
    }
    worker->ring = ring_create(&ring_options, worker->error);
    if (worker->ring == NULL)
        return false;
    core_options.ring = worker->ring;
    if (!core_init(&worker->core, &core_options)) {
        snprintf(worker->error, sizeof(worker->error), "no address space for a worker: %s",
                 strerror(errno));
        return false;
    }
    atomic_store(&worker->wake_fd, ring_fd(worker->ring));
    for (size_t i = 0; i < worker->options.listener_count; i++) {
        struct listener *listener = &worker->listeners[i];

        listener->worker = worker;
        listener->op.done = accept_done;
        listener->fd = worker->options.listeners[i].fd;
        listener->is_unix = worker->options.listeners[i].is_unix;
        ring_accept(worker->ring, &listener->op, listener->fd);
    }
    return true;
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    char name[16];

    snprintf(name, sizeof(name), "worker-%u", worker->options.index);
    (void)pthread_setname_np(pthread_self(), name);
    if (worker->options.cpu >= 0) {
        cpu_set_t cpus;

        CPU_ZERO(&cpus);
        CPU_SET((size_t)worker->options.cpu, &cpus);
        (void)pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
    }
    worker->has_failed = !set_up(worker);
    sem_post(&worker->started);
    if (worker->has_failed)
        return NULL;
    /* Nobody is served before all workers stand: sessions go from one to another. */
    while (!atomic_load_explicit(&released, memory_order_acquire))
        usleep(1000);
    while (!atomic_load_explicit(&worker->stopping, memory_order_relaxed))
        turn(worker);
    return NULL;
}

struct worker *worker_start(const struct worker_options *options, char error[RING_ERROR_BYTES])
{
    struct worker *worker = calloc(1, sizeof(*worker));
    int result;

    if (worker == NULL) {
        snprintf(error, RING_ERROR_BYTES, "no memory for a worker");
        return NULL;
    }
    assert(options->listener_count <= WORKER_LISTENERS_MAX);
    assert(options->index < WORKERS_MAX);
    worker->options = *options;
    mailbox_init(&worker->mailbox);
    atomic_init(&worker->wake_fd, -1);
    atomic_init(&worker->asleep, false);
    atomic_init(&worker->stopping, false);
    sem_init(&worker->started, 0, 0);
    workers[options->index] = worker;
    result = pthread_create(&worker->thread, NULL, run, worker);
    if (result != 0) {
        snprintf(error, RING_ERROR_BYTES, "cannot start a thread: %s", strerror(result));
        free(worker);
        return NULL;
    }
    while (sem_wait(&worker->started) != 0)
        ;
    if (worker->has_failed) {
        pthread_join(worker->thread, NULL);
        memcpy(error, worker->error, RING_ERROR_BYTES);
        workers[options->index] = NULL;
        free(worker);
        return NULL;
    }
    return worker;
}

void worker_release_all(void)
{
    atomic_store_explicit(&released, true, memory_order_release);
}

static void nothing(struct letter *letter, void *context)
{
    (void)letter;
    (void)context;
}

void worker_stop(struct worker *worker)
{
    static struct letter wake[WORKERS_MAX];

    atomic_store(&worker->stopping, true);
    wake[worker->options.index].open = nothing;
    worker_post(worker->options.index, &wake[worker->options.index]);
    pthread_join(worker->thread, NULL);
}

const char *worker_describe(const struct worker *worker)
{
    return ring_describe(worker->ring);
}
