#include "worker/thread.h"

#include "base/clock.h"
#include "crypto/random.h"
#include "worker/machine.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    RING_ENTRIES = 1024,
    RING_COMPLETIONS = 8192, /* 40 such rings fit into the usual RLIMIT_MEMLOCK of 8 MiB */
};

struct thread {
    struct worker worker;
    pthread_t id;
    int cpu;
    atomic_bool stopping;
    sem_t started;
    bool has_failed;
    char error[RING_ERROR_BYTES];
    struct letter wake;
};

static struct worker *workers[WORKERS_MAX];
static atomic_bool released;

/* The ring of a thread that is no worker, only for doorbells. */
static __thread struct ring *bell_ring;
static __thread struct buffer_pool bell_buffers;

static void give_random(void *out, size_t bytes)
{
    /* The kernel's generator needs no descriptor and does not block once the machine has started.
     */
    assert(random_bytes(out, bytes));
}

/* ---- doorbells of other threads ---- */

bool thread_prepare_bell(char error[RING_ERROR_BYTES])
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

void thread_post(unsigned worker_index, struct letter *letter)
{
    assert(bell_ring != NULL);
    worker_post(workers[worker_index], bell_ring, letter);
    (void)ring_turn(bell_ring, 0);
}

void thread_stop_listening(unsigned worker_index, bool unix_too)
{
    assert(bell_ring != NULL);
    worker_post_stop_listening(workers[worker_index], bell_ring, unix_too);
    (void)ring_turn(bell_ring, 0);
}

bool thread_is_listening(unsigned worker_index)
{
    return atomic_load_explicit(&workers[worker_index]->listening_count, memory_order_acquire) > 0;
}

void thread_accept_again(unsigned worker_index)
{
    assert(bell_ring != NULL);
    worker_post_accept_again(workers[worker_index], bell_ring);
    (void)ring_turn(bell_ring, 0);
}

/* ---- beginning and end ---- */

static void *run(void *argument)
{
    struct thread *thread = argument;
    struct worker *worker = &thread->worker;
    struct worker_options options = worker->options;
    char name[16];

    snprintf(name, sizeof(name), "worker-%u", options.index);
    (void)pthread_setname_np(pthread_self(), name);
    if (!machine_settle(thread->cpu))
        log_write(LEVEL_WARNING, "worker %u cannot be pinned to CPU %d", options.index,
                  thread->cpu);
    if (options.snapshot->settings.incoming_cpu)
        machine_take_incoming(&options, thread->cpu);
    thread->has_failed = !worker_init(worker, &options, clock_now_us(), thread->error);
    sem_post(&thread->started);
    if (thread->has_failed)
        return NULL;
    /* Nobody is served before all workers stand: sessions go from one to another. */
    while (!atomic_load_explicit(&released, memory_order_acquire))
        usleep(1000);
    while (!atomic_load_explicit(&thread->stopping, memory_order_relaxed))
        worker_turn(worker, worker_wait_until(worker));
    return NULL;
}

struct thread *thread_start_worker(const struct worker_options *options, int cpu,
                                   char error[RING_ERROR_BYTES])
{
    const struct settings *settings = &options->snapshot->settings;
    /* Zero pages that nobody has touched: the worker's own thread does, on its own node. */
    struct thread *thread =
        mmap(NULL, sizeof(*thread), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int result;

    if (thread == MAP_FAILED) {
        snprintf(error, RING_ERROR_BYTES, "no memory for a worker");
        return NULL;
    }
    assert(options->index < WORKERS_MAX);
    thread->cpu = cpu;
    thread->worker.options = *options;
    thread->worker.options.workers = workers;
    thread->worker.options.random = give_random;
    thread->worker.options.ring_entries = RING_ENTRIES;
    thread->worker.options.ring_completions = RING_COMPLETIONS;
    thread->worker.options.huge_pages = (enum huge_pages)settings->huge_pages;
    thread->worker.options.receive_buffer_bytes = (uint32_t)settings->receive_buffer_bytes;
    thread->worker.options.receive_buffer_count_max = (uint32_t)settings->receive_buffer_count_max;
    atomic_init(&thread->stopping, false);
    sem_init(&thread->started, 0, 0);
    workers[options->index] = &thread->worker;
    result = pthread_create(&thread->id, NULL, run, thread);
    if (result != 0) {
        snprintf(error, RING_ERROR_BYTES, "cannot start a thread: %s", strerror(result));
        workers[options->index] = NULL;
        munmap(thread, sizeof(*thread));
        return NULL;
    }
    while (sem_wait(&thread->started) != 0)
        ;
    if (thread->has_failed) {
        pthread_join(thread->id, NULL);
        memcpy(error, thread->error, RING_ERROR_BYTES);
        workers[options->index] = NULL;
        munmap(thread, sizeof(*thread));
        return NULL;
    }
    return thread;
}

void thread_release_all(void)
{
    atomic_store_explicit(&released, true, memory_order_release);
}

static void nothing(struct letter *letter, void *context)
{
    (void)letter;
    (void)context;
}

void thread_stop(struct thread *thread)
{
    atomic_store(&thread->stopping, true);
    thread->wake.open = nothing;
    thread_post(thread->worker.options.index, &thread->wake);
    pthread_join(thread->id, NULL);
}

const char *thread_describe(const struct thread *thread)
{
    return ring_describe(thread->worker.ring);
}
