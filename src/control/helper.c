#include "control/helper.h"

#include "pool/pool.h"
#include "worker/thread.h"

#include <linux/futex.h>
#include <netdb.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct helper {
    struct mailbox mailbox;
    _Atomic uint32_t bell;
    sem_t prepared;
    bool is_ready;
    char error[RING_ERROR_BYTES];
};

static struct helper helpers[HELPER_THREADS];
static atomic_uint next_helper;

/* What a helper opens: `open` of the letter in the mailbox; the job's own `open` is kept beside it.
 */
static void *run(void *argument)
{
    struct helper *helper = argument;

    (void)pthread_setname_np(pthread_self(), "helper");
    helper->is_ready = thread_prepare_bell(helper->error);
    sem_post(&helper->prepared);
    if (!helper->is_ready)
        return NULL;
    for (;;) {
        uint32_t bell = atomic_load(&helper->bell);
        struct letter *letter = atomic_exchange(&helper->mailbox.last, NULL);
        struct letter *oldest = NULL;

        if (letter == NULL) {
            syscall(SYS_futex, &helper->bell, FUTEX_WAIT_PRIVATE, bell, NULL, NULL, 0);
            continue;
        }
        while (letter != NULL) {
            struct letter *next = letter->next;

            letter->next = oldest;
            oldest = letter;
            letter = next;
        }
        while (oldest != NULL) {
            struct job *job = OWNER_OF(oldest, struct job, letter);

            oldest = oldest->next;
            job->run(job);
            thread_post(job->core_index, &job->letter);
        }
    }
    return NULL;
}

bool helper_start(void)
{
    sigset_t all, before;
    bool started = true;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < HELPER_THREADS; i++) {
        pthread_t thread;

        mailbox_init(&helpers[i].mailbox);
        sem_init(&helpers[i].prepared, 0, 0);
        if (!started || pthread_create(&thread, NULL, run, &helpers[i]) != 0) {
            started = false;
            continue;
        }
        while (sem_wait(&helpers[i].prepared) != 0)
            ;
        if (!helpers[i].is_ready) {
            log_write(LEVEL_FATAL, "%s", helpers[i].error);
            started = false;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

void helper_post(struct job *job)
{
    unsigned index =
        atomic_fetch_add_explicit(&next_helper, 1, memory_order_relaxed) % HELPER_THREADS;
    struct helper *helper = &helpers[index];

    if (!mailbox_post(&helper->mailbox, &job->letter))
        return;
    atomic_fetch_add(&helper->bell, 1);
    syscall(SYS_futex, &helper->bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
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
    helper_post(&resolution->job);
}
