/* Build it with SANITIZE=-fsanitize=thread too, as test_mailbox. */
#include "unit.h"

#include "base/clock.h"
#include "control/job_queue.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

enum { POSTERS = 4, TAKERS = 3, JOBS_EACH = 20000, WAITING_MAX = 64 };

struct task {
    struct job job;
    unsigned number;
    atomic_uint run_count, seen_count;
    bool is_last; /* its taker ends */
};

static struct job_queue queue;
static struct task tasks[POSTERS][JOBS_EACH];
static atomic_uint done_count, most_waiting;
static atomic_bool takers_may_go;

static void count_run(struct job *job)
{
    atomic_fetch_add(&OWNER_OF(job, struct task, job)->run_count, 1);
}

static void take_and_run(struct job_queue *from, unsigned number, bool was_run)
{
    struct job *job = job_queue_take(from, 0);
    struct task *task = OWNER_OF(job, struct task, job);

    assert_int_equal(task->number, number);
    job_queue_run(from, job);
    assert_int_equal(job->was_run, was_run);
    assert_int_equal(atomic_load(&task->run_count), was_run);
}

static void jobs_are_taken_oldest_first(void **state)
{
    struct task few[6] = {0};

    (void)state;
    job_queue_init(&queue, WAITING_MAX);
    for (unsigned i = 0; i < 6; i++) {
        few[i].job.run = count_run;
        few[i].number = i;
        assert_true(job_queue_post(&queue, &few[i].job));
        /* Some come while others are already in order. */
        if (i == 2)
            take_and_run(&queue, 0, true);
    }
    for (unsigned i = 1; i < 6; i++)
        take_and_run(&queue, i, true);
    assert_int_equal(job_queue_counts(&queue).run, 6);
}

static void a_full_queue_refuses_until_one_is_taken(void **state)
{
    struct task few[4] = {0};

    (void)state;
    job_queue_init(&queue, 3);
    for (unsigned i = 0; i < 4; i++) {
        few[i].job.run = count_run;
        few[i].number = i;
        assert_int_equal(job_queue_post(&queue, &few[i].job), i < 3);
    }
    assert_int_equal(job_queue_counts(&queue).refused, 1);
    take_and_run(&queue, 0, true);
    assert_true(job_queue_post(&queue, &few[3].job));
    for (unsigned i = 1; i < 4; i++)
        take_and_run(&queue, i, true);
    assert_int_equal(job_queue_counts(&queue).refused, 1);
}

static void a_cancelled_job_comes_back_without_having_run(void **state)
{
    struct task few[2] = {0};

    (void)state;
    job_queue_init(&queue, WAITING_MAX);
    for (unsigned i = 0; i < 2; i++) {
        few[i].job.run = count_run;
        few[i].number = i;
        assert_true(job_queue_post(&queue, &few[i].job));
    }
    job_set_cancelled(&few[0].job, true);
    job_set_cancelled(&few[1].job, true);
    job_set_cancelled(&few[1].job, false);
    take_and_run(&queue, 0, false);
    take_and_run(&queue, 1, true);
    assert_int_equal(job_queue_counts(&queue).cancelled, 1);
    assert_int_equal(job_queue_counts(&queue).run, 1);
}

static void *take(void *argument)
{
    (void)argument;
    for (;;) {
        struct job *job = job_queue_take(&queue, 0);
        struct task *task = OWNER_OF(job, struct task, job);

        job_queue_run(&queue, job);
        if (task->is_last)
            return NULL;
        atomic_fetch_add(&task->seen_count, 1);
        atomic_fetch_add(&done_count, 1);
    }
}

static void *post(void *argument)
{
    unsigned number = (unsigned)(uintptr_t)argument;
    uint64_t random = number;

    for (unsigned i = 0; i < JOBS_EACH; i++) {
        struct task *task = &tasks[number][i];

        task->job.run = count_run;
        /* Pauses let the takers fall asleep: that is when a wake-up could be lost. */
        if (random_below(&random, 16) == 0)
            while (atomic_load(&queue.sleeping_count) == 0)
                sched_yield();
        while (!job_queue_post(&queue, &task->job))
            sched_yield();
        if (random_below(&random, 4) == 0)
            job_set_cancelled(&task->job, true);
        if (atomic_load(&queue.waiting_count) > atomic_load(&most_waiting))
            atomic_store(&most_waiting, atomic_load(&queue.waiting_count));
    }
    return NULL;
}

/* A taker that is late for all of it. */
static void *take_when_told(void *argument)
{
    while (!atomic_load(&takers_may_go))
        sched_yield();
    return take(argument);
}

static void many_threads_lose_no_job_and_no_wake_up(void **state)
{
    static struct task last[TAKERS];
    pthread_t posters[POSTERS], takers[TAKERS];
    struct job_counts counts;
    unsigned run = 0;

    (void)state;
    job_queue_init(&queue, WAITING_MAX);
    for (uintptr_t i = 0; i < TAKERS; i++)
        assert_int_equal(pthread_create(&takers[i], NULL, i == 0 ? take_when_told : take, NULL), 0);
    for (uintptr_t i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&posters[i], NULL, post, (void *)i), 0);
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(posters[i], NULL);
    atomic_store(&takers_may_go, true);
    while (atomic_load(&done_count) < POSTERS * JOBS_EACH)
        sched_yield(); /* for ever, if one was lost */
    for (unsigned i = 0; i < TAKERS; i++) {
        last[i].is_last = true;
        last[i].job.run = count_run;
        while (!job_queue_post(&queue, &last[i].job))
            sched_yield();
    }
    for (unsigned i = 0; i < TAKERS; i++)
        pthread_join(takers[i], NULL);
    for (unsigned i = 0; i < POSTERS; i++)
        for (unsigned k = 0; k < JOBS_EACH; k++) {
            assert_int_equal(atomic_load(&tasks[i][k].seen_count), 1);
            assert_int_equal(atomic_load(&tasks[i][k].run_count), tasks[i][k].job.was_run);
            run += tasks[i][k].job.was_run;
        }
    counts = job_queue_counts(&queue);
    assert_int_equal(counts.run, run + TAKERS);
    assert_int_equal(counts.run + counts.cancelled, POSTERS * JOBS_EACH + TAKERS);
    assert_in_range(atomic_load(&most_waiting), 1, WAITING_MAX);
    assert_int_equal(atomic_load(&queue.waiting_count), 0);
}

static atomic_uint began_count;

static void spin(uint64_t count)
{
    while (count-- > 0)
        atomic_signal_fence(memory_order_seq_cst);
}

static void tell_and_linger(struct job *job)
{
    static uint64_t random = 2;

    (void)job;
    atomic_fetch_add(&began_count, 1);
    spin(random_below(&random, 1000));
}

/* One taker, and each job is posted at about the moment when the taker falls asleep after the one
 * before: nobody else's post would make good for a wake-up that is lost. */
static void a_job_that_comes_while_the_taker_falls_asleep_wakes_it(void **state)
{
    enum { ROUNDS = 200000 };
    static struct task two[2], last;
    pthread_t taker;
    uint64_t random = 1;

    (void)state;
    job_queue_init(&queue, 1);
    two[0].job.run = two[1].job.run = tell_and_linger;
    last.job.run = count_run;
    last.is_last = true;
    assert_int_equal(pthread_create(&taker, NULL, take, NULL), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_true(job_queue_post(&queue, &two[i % 2].job));
        while (atomic_load(&began_count) == i)
            ;
        spin(random_below(&random, 2000));
    }
    assert_true(job_queue_post(&queue, &last.job));
    pthread_join(taker, NULL);
    assert_int_equal(job_queue_counts(&queue).run, ROUNDS + 1);
}

/* Two that take at once and one that takes only what has waited, as the helpers do it. */
static void who_is_patient_takes_what_has_waited_and_nothing_else(void **state)
{
    enum { PATIENCE_US = 20000 };
    struct task few[2] = {0};
    struct job *job;

    (void)state;
    job_queue_init(&queue, 2);
    few[0].job.run = few[1].job.run = count_run;
    assert_true(job_queue_post(&queue, &few[0].job));
    job = job_queue_take(&queue, PATIENCE_US);
    assert_ptr_equal(job, &few[0].job);
    assert_true(clock_now_us() - job->posted_us >= PATIENCE_US);
    assert_true(job_queue_post(&queue, &few[1].job));
    take_and_run(&queue, 0, true);
    assert_true(clock_now_us() - few[1].job.posted_us < US_PER_S);
}

static void *take_patiently(void *argument)
{
    (void)argument;
    for (;;) {
        struct job *job = job_queue_take(&queue, US_PER_S / 4);
        bool is_last = OWNER_OF(job, struct task, job)->is_last;

        job_queue_run(&queue, job);
        atomic_fetch_add(&done_count, 1);
        if (is_last)
            return NULL;
    }
}

static void a_patient_taker_does_not_keep_others_from_being_woken(void **state)
{
    static struct task many[100], last[2];
    pthread_t patient, taker;

    (void)state;
    job_queue_init(&queue, COUNT_OF(many) + 1);
    atomic_store(&done_count, 0);
    assert_int_equal(pthread_create(&patient, NULL, take_patiently, NULL), 0);
    assert_int_equal(pthread_create(&taker, NULL, take, NULL), 0);
    for (unsigned i = 0; i < COUNT_OF(many); i++) {
        many[i].job.run = count_run;
        while (atomic_load(&queue.sleeping_count) < 2)
            sched_yield();
        assert_true(job_queue_post(&queue, &many[i].job));
        while (atomic_load(&done_count) == i)
            sched_yield();
    }
    for (unsigned i = 0; i < 2; i++) {
        last[i].is_last = true;
        last[i].job.run = count_run;
        assert_true(job_queue_post(&queue, &last[i].job));
    }
    /* One each: the patient one has to take its own by the clock, since nobody wakes it. */
    pthread_join(taker, NULL);
    pthread_join(patient, NULL);
}

static sem_t release_hung;

static void hang(struct job *job)
{
    (void)job;
    while (sem_wait(&release_hung) != 0)
        ;
}

static struct job_queue hung_queue;

static void *take_one_that_hangs(void *argument)
{
    (void)argument;
    job_queue_run(&hung_queue, job_queue_take(&hung_queue, 0));
    return NULL;
}

static void one_queue_that_hangs_does_not_hold_up_another(void **state)
{
    struct task hung[2] = {0}, free_one = {0};
    pthread_t taker;

    (void)state;
    sem_init(&release_hung, 0, 0);
    job_queue_init(&hung_queue, 1);
    job_queue_init(&queue, 1);
    hung[0].job.run = hung[1].job.run = hang;
    free_one.job.run = count_run;
    assert_true(job_queue_post(&hung_queue, &hung[0].job));
    assert_int_equal(pthread_create(&taker, NULL, take_one_that_hangs, NULL), 0);
    while (!job_queue_post(&hung_queue, &hung[1].job)) /* until the first is at work */
        sched_yield();
    assert_true(job_queue_post(&queue, &free_one.job));
    take_and_run(&queue, 0, true);
    sem_post(&release_hung);
    pthread_join(taker, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_taken_oldest_first),
        cmocka_unit_test(a_full_queue_refuses_until_one_is_taken),
        cmocka_unit_test(a_cancelled_job_comes_back_without_having_run),
        cmocka_unit_test(many_threads_lose_no_job_and_no_wake_up),
        cmocka_unit_test(a_job_that_comes_while_the_taker_falls_asleep_wakes_it),
        cmocka_unit_test(who_is_patient_takes_what_has_waited_and_nothing_else),
        cmocka_unit_test(a_patient_taker_does_not_keep_others_from_being_woken),
        cmocka_unit_test(one_queue_that_hangs_does_not_hold_up_another),
    };

    alarm(60); /* a lost wake-up shows as a stall */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
