#include "control/helper.h"

#include "base/clock.h"
#include "control/ldap_check.h"
#include "control/pam_check.h"
#include "pool/login.h"
#include "worker/thread.h"

#include <pwd.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    LATE_NICE = 10,
    OS_USER_STRINGS_BYTES =
        64 * 1024, /* all fields of an entry of the user database, on the stack */
};

enum helper_kind {
    HELPER_HASH,
    HELPER_LATE,
    HELPER_TLS_ACCEPT,
    HELPER_TLS_CONNECT,
    HELPER_USERS,
    HELPER_PAM,
    HELPER_LDAP,
    HELPER_KINDS,
};

static struct job_queue hash_queue, tls_accept_queue, tls_connect_queue, user_queue, pam_queue,
    ldap_queue;

/* `nice` of a kind that is idle does not count. */
static const struct {
    const char *thread_name;
    struct job_queue *queue;
    unsigned thread_count;
    uint64_t patience_us;
    int nice;
    bool is_idle;
} kinds[HELPER_KINDS] = {
    [HELPER_HASH] = {"hash", &hash_queue, HELPER_HASH_THREADS, 0, 0, true},
    [HELPER_LATE] = {"hash-late", &hash_queue, HELPER_LATE_THREADS, HELPER_PATIENCE_US, LATE_NICE,
                     false},
    [HELPER_TLS_ACCEPT] = {"tls-clients", &tls_accept_queue, HELPER_TLS_THREADS_MAX, 0, LATE_NICE,
                           false},
    [HELPER_TLS_CONNECT] = {"tls-servers", &tls_connect_queue, HELPER_TLS_CONNECT_THREADS, 0,
                            LATE_NICE, false},
    [HELPER_USERS] = {"os-users", &user_queue, HELPER_USER_THREADS, 0, 0, false},
    /* Modules hash passwords, and TLS takes milliseconds. */
    [HELPER_PAM] = {"pam", &pam_queue, BUILD_HAS_PAM ? HELPER_PAM_THREADS : 0, 0, LATE_NICE, false},
    [HELPER_LDAP] = {"ldap", &ldap_queue, BUILD_HAS_LDAP ? HELPER_LDAP_THREADS : 0, 0, LATE_NICE,
                     false},
};

struct helper {
    enum helper_kind kind;
    sem_t prepared;
    bool is_ready;
    char error[RING_ERROR_BYTES];
};

static struct helper helpers[HELPER_HASH_THREADS + HELPER_LATE_THREADS + HELPER_TLS_THREADS_MAX +
                             HELPER_TLS_CONNECT_THREADS + HELPER_USER_THREADS + HELPER_PAM_THREADS +
                             HELPER_LDAP_THREADS];
static _Atomic uint64_t refusal_said_us; /* when the log last told of a full queue; 0: never */

/* Priorities are only lowered, which anybody may. On Linux a thread has a niceness of its own. */
static void lower_priority(enum helper_kind kind)
{
    struct sched_param param = {.sched_priority = 0};

    if ((kinds[kind].is_idle && pthread_setschedparam(pthread_self(), SCHED_IDLE, &param) != 0) ||
        (kinds[kind].nice > 0 && setpriority(PRIO_PROCESS, (id_t)gettid(), kinds[kind].nice) != 0))
        log_write(LEVEL_WARNING, "a helper thread keeps its priority, which is too high");
}

static void *run(void *argument)
{
    struct helper *helper = argument;
    struct job_queue *queue = kinds[helper->kind].queue;

    (void)pthread_setname_np(pthread_self(), kinds[helper->kind].thread_name);
    helper->is_ready = thread_prepare_bell(helper->error);
    sem_post(&helper->prepared);
    if (!helper->is_ready)
        return NULL;
    lower_priority(helper->kind);
    for (;;) {
        struct job *job = job_queue_take(queue, kinds[helper->kind].patience_us);

        job_queue_run(queue, job);
        thread_post(job->core_index, &job->letter);
    }
    return NULL;
}

static bool start_one(struct helper *helper)
{
    pthread_t thread;

    sem_init(&helper->prepared, 0, 0);
    if (pthread_create(&thread, NULL, run, helper) != 0) {
        log_write(LEVEL_FATAL, "cannot start a helper thread");
        return false;
    }
    while (sem_wait(&helper->prepared) != 0)
        ;
    if (!helper->is_ready)
        log_write(LEVEL_FATAL, "%s", helper->error);
    return helper->is_ready;
}

static unsigned thread_count(enum helper_kind kind)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (kind != HELPER_TLS_ACCEPT || cpus < 2 * HELPER_TLS_THREADS_MIN)
        return kind == HELPER_TLS_ACCEPT ? HELPER_TLS_THREADS_MIN : kinds[kind].thread_count;
    return MIN((unsigned)cpus / 2, kinds[kind].thread_count);
}

bool helper_start(void)
{
    sigset_t all, before;
    struct helper *helper = helpers;
    bool started = true;

    job_queue_init(&hash_queue, HELPER_HASH_WAITING_MAX);
    job_queue_init(&tls_accept_queue, HELPER_TLS_WAITING_MAX);
    job_queue_init(&tls_connect_queue, HELPER_TLS_WAITING_MAX);
    job_queue_init(&user_queue, HELPER_USER_WAITING_MAX);
    job_queue_init(&pam_queue, HELPER_PAM_WAITING_MAX);
    job_queue_init(&ldap_queue, HELPER_LDAP_WAITING_MAX);
#if BUILD_HAS_LDAP
    ldap_check_start();
#endif
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (enum helper_kind kind = 0; kind < HELPER_KINDS; kind++)
        for (unsigned i = 0; i < thread_count(kind) && started; i++, helper++) {
            helper->kind = kind;
            started = start_one(helper);
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

/* The job of a struct login: peer_uid -> os_user. */
static void os_user_run(struct job *job)
{
    struct login *login = OWNER_OF(job, struct login, check.job);
    struct passwd entry, *found = NULL;
    char strings[OS_USER_STRINGS_BYTES];
    int error = getpwuid_r(login->peer_uid, &entry, strings, sizeof(strings), &found);

    login->os_user[0] = '\0';
    if (found == NULL)
        log_write(LEVEL_WARNING, "OS user %u has no name: %s", login->peer_uid,
                  error != 0 ? strerror(error) : "there is no such user");
    else if (strlen(found->pw_name) < sizeof(login->os_user))
        strcpy(login->os_user, found->pw_name);
}

bool helper_post(struct job *job)
{
    struct job_queue *queue = &hash_queue;

    /* The configuration allows no method that is not built in. */
    switch (job->kind) {
    case JOB_HASH:
        break;
    case JOB_TLS_ACCEPT:
        queue = &tls_accept_queue;
        break;
    case JOB_TLS_CONNECT:
        queue = &tls_connect_queue;
        break;
    case JOB_OS_USER:
        queue = &user_queue;
        job->run = os_user_run;
        break;
    case JOB_PAM:
#if BUILD_HAS_PAM
        queue = &pam_queue;
        job->run = pam_check_run;
#endif
        break;
    case JOB_LDAP:
#if BUILD_HAS_LDAP
        queue = &ldap_queue;
        job->run = ldap_check_run;
#endif
        break;
    }
    assert(job->run != NULL);
    if (job_queue_post(queue, job))
        return true;
    say_refusal(queue, queue == &tls_accept_queue    ? "TLS handshakes of clients"
                       : queue == &tls_connect_queue ? "TLS handshakes with servers"
                       : queue == &pam_queue         ? "logins by PAM"
                       : queue == &ldap_queue        ? "logins by LDAP"
                                                     : "logins");
    return false;
}

struct helper_counts helper_counts(void)
{
    return (struct helper_counts){.hashes = job_queue_counts(&hash_queue),
                                  .tls_clients = job_queue_counts(&tls_accept_queue),
                                  .tls_servers = job_queue_counts(&tls_connect_queue),
                                  .users = job_queue_counts(&user_queue),
                                  .pam = job_queue_counts(&pam_queue),
                                  .ldap = job_queue_counts(&ldap_queue)};
}
