#include "control/helper.h"

#include "base/clock.h"
#include "pool/pool.h"
#include "worker/thread.h"

#include <netdb.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { HELPERS = HELPER_HASH_THREADS + HELPER_NAME_THREADS, HASH_NICE = 19 };

struct helper {
    struct job_queue *queue;
    const char *thread_name;
    int nice;
    sem_t prepared;
    bool is_ready;
    char error[RING_ERROR_BYTES];
};

static struct helper helpers[HELPERS];
static struct job_queue hash_queue, name_queue;
static _Atomic uint64_t refusal_said_us; /* when the log last told of a full queue; 0: never */

static void *run(void *argument)
{
    struct helper *helper = argument;

    (void)pthread_setname_np(pthread_self(), helper->thread_name);
    /* On Linux a thread has a niceness of its own. Not allowed to fail: it is only ever raised. */
    if (helper->nice > 0 && setpriority(PRIO_PROCESS, (id_t)gettid(), helper->nice) != 0)
        log_write(LEVEL_WARNING, "a helper thread keeps its priority: setpriority() failed");
    helper->is_ready = thread_prepare_bell(helper->error);
    sem_post(&helper->prepared);
    if (!helper->is_ready)
        return NULL;
    for (;;) {
        struct job *job = job_queue_take(helper->queue);

        job_queue_run(helper->queue, job);
        thread_post(job->core_index, &job->letter);
    }
    return NULL;
}

bool helper_start(void)
{
    sigset_t all, before;
    bool started = true;

    job_queue_init(&hash_queue, HELPER_HASH_WAITING_MAX);
    job_queue_init(&name_queue, HELPER_NAME_WAITING_MAX);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < HELPERS && started; i++) {
        struct helper *helper = &helpers[i];
        bool hashes = i < HELPER_HASH_THREADS;
        pthread_t thread;

        helper->queue = hashes ? &hash_queue : &name_queue;
        helper->thread_name = hashes ? "hash" : "names";
        helper->nice = hashes ? HASH_NICE : 0;
        sem_init(&helper->prepared, 0, 0);
        if (pthread_create(&thread, NULL, run, helper) != 0) {
            log_write(LEVEL_FATAL, "cannot start a helper thread");
            started = false;
            continue;
        }
        while (sem_wait(&helper->prepared) != 0)
            ;
        if (!helper->is_ready) {
            log_write(LEVEL_FATAL, "%s", helper->error);
            started = false;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* In a storm each login is refused: one line a second for the whole process says enough. */
static void say_refusal(const struct job_queue *queue, const char *what)
{
    uint64_t now_us = clock_now_us();
    uint64_t said_us = atomic_load_explicit(&refusal_said_us, memory_order_relaxed);

    if (said_us != 0 && now_us - said_us < US_PER_S)
        return;
    if (atomic_compare_exchange_strong_explicit(&refusal_said_us, &said_us, now_us,
                                                memory_order_relaxed, memory_order_relaxed))
        log_write(LEVEL_WARNING, "too many %s are waiting for a helper (%u): %llu refused so far",
                  what, queue->waiting_count_max, job_queue_counts(queue).refused);
}

bool helper_post(struct job *job)
{
    if (job_queue_post(&hash_queue, job))
        return true;
    say_refusal(&hash_queue, "logins");
    return false;
}

struct helper_counts helper_counts(void)
{
    return (struct helper_counts){.hashes = job_queue_counts(&hash_queue),
                                  .names = job_queue_counts(&name_queue)};
}

/* ---- names ---- */

static void add_addresses(struct resolution *resolution, const char *host)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char port[8];
    int result;

    snprintf(port, sizeof(port), "%u", resolution->port);
    result = getaddrinfo(host, port, &hints, &list);
    if (result != 0) {
        snprintf(resolution->error, sizeof(resolution->error), "%.60s: %s", host,
                 gai_strerror(result));
        return;
    }
    for (struct addrinfo *item = list;
         item != NULL && resolution->address_count < POOL_ADDRESSES_MAX; item = item->ai_next) {
        if (item->ai_addrlen > sizeof(struct sockaddr_storage))
            continue;
        memset(&resolution->addresses[resolution->address_count], 0,
               sizeof(struct sockaddr_storage));
        memcpy(&resolution->addresses[resolution->address_count++], item->ai_addr,
               item->ai_addrlen);
    }
    freeaddrinfo(list);
}

static void resolve_run(struct job *job)
{
    struct resolution *resolution = OWNER_OF(job, struct resolution, job);
    char *position = NULL;

    resolution->address_count = 0;
    for (char *host = strtok_r(resolution->host, ",", &position); host != NULL;
         host = strtok_r(NULL, ",", &position))
        add_addresses(resolution, host);
}

void helper_resolver_open(struct letter *letter, void *context)
{
    struct resolution *resolution = OWNER_OF(letter, struct resolution, job.letter);

    (void)context;
    resolution->job.run = resolve_run;
    resolution->job.core_index = resolution->core_index;
    letter->open = resolution_returned;
    if (job_queue_post(&name_queue, &resolution->job))
        return;
    say_refusal(&name_queue, "name lookups");
    resolution->address_count = 0;
    snprintf(resolution->error, sizeof(resolution->error), "too many lookups are waiting");
    thread_post(resolution->core_index, letter);
}
