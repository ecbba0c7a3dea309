#include "control/job_queue.h"

#include "base/clock.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

void job_queue_init(struct job_queue *queue, uint32_t waiting_count_max)
{
    assert(waiting_count_max > 0);
    mailbox_init(&queue->mailbox);
    atomic_init(&queue->waiting_count, 0);
    atomic_init(&queue->bell, 0);
    atomic_init(&queue->sleeping_count, 0);
    queue->waiting_count_max = waiting_count_max;
    pthread_mutex_init(&queue->takers, NULL);
    queue->oldest = NULL;
    atomic_init(&queue->run_count, 0);
    atomic_init(&queue->cancelled_count, 0);
    atomic_init(&queue->refused_count, 0);
}

/* A place is taken before the job is visible, so that the bound holds at every moment. */
static bool take_place(struct job_queue *queue)
{
    uint32_t count = atomic_load_explicit(&queue->waiting_count, memory_order_relaxed);

    do
        if (count >= queue->waiting_count_max)
            return false;
    while (!atomic_compare_exchange_weak_explicit(&queue->waiting_count, &count, count + 1,
                                                  memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool job_queue_post(struct job_queue *queue, struct job *job)
{
    if (!take_place(queue)) {
        atomic_fetch_add_explicit(&queue->refused_count, 1, memory_order_relaxed);
        return false;
    }
    job->posted_us = clock_now_us();
    (void)mailbox_post(&queue->mailbox, &job->letter);
    /* The bell changes before the sleepers are counted, a taker counts itself before the kernel
     * compares the bell: either it is seen here, or it does not fall asleep. All are woken, since
     * the first to be might be one that takes only what has waited. */
    atomic_fetch_add(&queue->bell, 1);
    if (atomic_load(&queue->sleeping_count) > 0)
        syscall(SYS_futex, &queue->bell, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    return true;
}

/* NULL: nothing has waited for so long; it will have in `wait_us`, if no other taker has it by
 * then. */
static struct job *take_oldest(struct job_queue *queue, uint64_t patience_us, uint64_t *wait_us)
{
    struct job *taken = NULL;

    *wait_us = UINT64_MAX;
    pthread_mutex_lock(&queue->takers);
    if (queue->oldest == NULL) {
        struct letter *letter = atomic_exchange(&queue->mailbox.last, NULL);

        while (letter != NULL) {
            struct letter *next = letter->next;

            letter->next = queue->oldest;
            queue->oldest = letter;
            letter = next;
        }
    }
    if (queue->oldest != NULL) {
        struct job *oldest = OWNER_OF(queue->oldest, struct job, letter);
        uint64_t waited_us = patience_us > 0 ? clock_now_us() - oldest->posted_us : 0;

        if (waited_us >= patience_us) {
            taken = oldest;
            queue->oldest = oldest->letter.next;
        } else {
            *wait_us = patience_us - waited_us;
        }
    }
    pthread_mutex_unlock(&queue->takers);
    return taken;
}

struct job *job_queue_take(struct job_queue *queue, uint64_t patience_us)
{
    for (;;) {
        uint32_t bell = atomic_load(&queue->bell);
        uint64_t wait_us;
        struct job *job = take_oldest(queue, patience_us, &wait_us);
        struct timespec wait;

        if (job != NULL) {
            uint32_t before =
                atomic_fetch_sub_explicit(&queue->waiting_count, 1, memory_order_relaxed);

            assert(before > 0);
            return job;
        }
        if (wait_us != UINT64_MAX)
            wait = (struct timespec){.tv_sec = (time_t)(wait_us / US_PER_S),
                                     .tv_nsec = (long)(wait_us % US_PER_S * 1000)};
        atomic_fetch_add(&queue->sleeping_count, 1);
        syscall(SYS_futex, &queue->bell, FUTEX_WAIT_PRIVATE, bell,
                wait_us != UINT64_MAX ? &wait : NULL, NULL, 0);
        atomic_fetch_sub(&queue->sleeping_count, 1);
    }
}

void job_queue_run(struct job_queue *queue, struct job *job)
{
    /* Relaxed: the flag guards no data, and whoever sets it too late gets a result that nobody
     * wants. */
    job->was_run = !atomic_load_explicit(&job->is_cancelled, memory_order_relaxed);
    if (job->was_run)
        job->run(job);
    atomic_fetch_add_explicit(job->was_run ? &queue->run_count : &queue->cancelled_count, 1,
                              memory_order_relaxed);
}

struct job_counts job_queue_counts(const struct job_queue *queue)
{
    return (struct job_counts){
        .run = atomic_load_explicit(&queue->run_count, memory_order_relaxed),
        .cancelled = atomic_load_explicit(&queue->cancelled_count, memory_order_relaxed),
        .refused = atomic_load_explicit(&queue->refused_count, memory_order_relaxed),
    };
}
