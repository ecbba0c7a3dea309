#include "control/job_queue.h"

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
    (void)mailbox_post(&queue->mailbox, &job->letter);
    /* The bell changes before the sleepers are counted, a taker counts itself before the kernel
     * compares the bell: either it is seen here, or it does not fall asleep. */
    atomic_fetch_add(&queue->bell, 1);
    if (atomic_load(&queue->sleeping_count) > 0)
        syscall(SYS_futex, &queue->bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    return true;
}

/* NULL: nothing waits. */
static struct letter *take_oldest(struct job_queue *queue)
{
    struct letter *taken;

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
    taken = queue->oldest;
    if (taken != NULL)
        queue->oldest = taken->next;
    pthread_mutex_unlock(&queue->takers);
    return taken;
}

struct job *job_queue_take(struct job_queue *queue)
{
    for (;;) {
        uint32_t bell = atomic_load(&queue->bell);
        struct letter *letter = take_oldest(queue);

        if (letter != NULL) {
            uint32_t before =
                atomic_fetch_sub_explicit(&queue->waiting_count, 1, memory_order_relaxed);

            assert(before > 0);
            return OWNER_OF(letter, struct job, letter);
        }
        atomic_fetch_add(&queue->sleeping_count, 1);
        syscall(SYS_futex, &queue->bell, FUTEX_WAIT_PRIVATE, bell, NULL, NULL, 0);
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
