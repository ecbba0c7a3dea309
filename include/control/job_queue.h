/* job_queue.h - jobs that wait for the threads of one kind of helper: bounded, first in, first out.
 *
 * Any thread posts, and neither locks nor blocks: a worker is never held up by a helper, not even
 * by one that was preempted in the middle of something. Several threads take; they lock each other
 * only. Jobs are linked by their own letters, so the queue needs no memory; it is bounded all the
 * same, since what waits too long is worth less than an honest refusal. */
#ifndef CONTROL_JOB_QUEUE_H
#define CONTROL_JOB_QUEUE_H

#include "pool/core.h"

#include <pthread.h>

struct job_counts {
    unsigned long long run, cancelled, refused;
};

/* All fields are the queue's own. */
struct job_queue {
    struct mailbox mailbox;          /* posted and not yet in order */
    _Atomic uint32_t waiting_count;  /* posted and not yet taken */
    _Atomic uint32_t bell;           /* futex: counts posts */
    _Atomic uint32_t sleeping_count; /* takers that are asleep, or about to be */
    uint32_t waiting_count_max;
    pthread_mutex_t takers; /* guards `oldest`; a poster never takes it */
    struct letter *oldest;  /* taken out of the mailbox, in order */
    _Atomic unsigned long long run_count, cancelled_count, refused_count;
};

void job_queue_init(struct job_queue *queue, uint32_t waiting_count_max);

/* False: `waiting_count_max` jobs wait already; the job is still the caller's. */
must_check bool job_queue_post(struct job_queue *queue, struct job *job);

/* The oldest job, once it has waited for `patience_us` or longer; sleeps until there is one. */
struct job *job_queue_take(struct job_queue *queue, uint64_t patience_us);

/* Runs the job, unless it was cancelled meanwhile; says which in job->was_run. */
void job_queue_run(struct job_queue *queue, struct job *job);

/* Any thread; each figure is right, though not all of the same moment. */
struct job_counts job_queue_counts(const struct job_queue *queue);

#endif
