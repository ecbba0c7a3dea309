/* sim_jobs.h - simulated helpers: a job waits, runs, and comes back, each at a time that the seed
 * draws; a post may be refused.
 *
 * What the real ones promise (control/job_queue.h) and no more: several run at once, so that jobs
 * may come back in another order; a cancelled job comes back without having run, if it was
 * cancelled before it began. */
#ifndef TESTS_SIM_SIM_JOBS_H
#define TESTS_SIM_SIM_JOBS_H

#include "ring_sim.h"

#include "base/assert.h"
#include "pool/core.h"

enum { SIM_JOBS_MAX = 64 };

struct sim_jobs {
    struct sim *sim;
    struct mailbox *mailbox; /* of the one core */
    unsigned refused_per_mille;
    uint64_t delay_us_max;                /* of each of its two steps */
    unsigned count_max;                   /* more are refused; at most SIM_JOBS_MAX */
    void (*run_os_user)(struct job *job); /* of a JOB_OS_USER */
    void (*run_check)(struct job *job);   /* of a JOB_PAM or JOB_LDAP */
    unsigned long long run, cancelled, refused;
    /* the jobs' own */
    unsigned count;
    struct sim_job {
        struct job *job;
        uint64_t next_us;
        bool is_decided; /* ran or was passed over; its letter is due at next_us */
    } jobs[SIM_JOBS_MAX];
};

static inline uint64_t sim_jobs_later(struct sim_jobs *jobs)
{
    return sim_now_us(jobs->sim) +
           (jobs->delay_us_max > 0 ? sim_below(jobs->sim, jobs->delay_us_max) : 0);
}

static inline bool sim_jobs_post(struct sim_jobs *jobs, struct job *job)
{
    assert(jobs->count_max <= SIM_JOBS_MAX);
    for (unsigned i = 0; i < jobs->count; i++)
        assert(jobs->jobs[i].job != job);
    if (jobs->count >= jobs->count_max || sim_chance(jobs->sim, jobs->refused_per_mille)) {
        jobs->refused++;
        return false;
    }
    if (job->kind == JOB_OS_USER)
        job->run = jobs->run_os_user;
    else if (job->kind != JOB_HASH && job->kind != JOB_TLS_ACCEPT && job->kind != JOB_TLS_CONNECT)
        job->run = jobs->run_check;
    jobs->jobs[jobs->count++] = (struct sim_job){.job = job, .next_us = sim_jobs_later(jobs)};
    return true;
}

static inline void sim_jobs_step(struct sim_jobs *jobs)
{
    for (unsigned i = 0; i < jobs->count;) {
        struct sim_job *item = &jobs->jobs[i];

        if (item->next_us > sim_now_us(jobs->sim)) {
            i++;
        } else if (!item->is_decided) {
            item->job->was_run = !atomic_load(&item->job->is_cancelled);
            if (item->job->was_run)
                item->job->run(item->job);
            *(item->job->was_run ? &jobs->run : &jobs->cancelled) += 1;
            item->is_decided = true;
            item->next_us = sim_jobs_later(jobs);
            i++;
        } else {
            (void)mailbox_post(jobs->mailbox, &item->job->letter);
            *item = jobs->jobs[--jobs->count];
        }
    }
}

/* When the next of them goes on; UINT64_MAX: there is none. */
static inline uint64_t sim_jobs_next_us(const struct sim_jobs *jobs)
{
    uint64_t next_us = UINT64_MAX;

    for (unsigned i = 0; i < jobs->count; i++)
        next_us = MIN(next_us, jobs->jobs[i].next_us);
    return next_us;
}

#endif
