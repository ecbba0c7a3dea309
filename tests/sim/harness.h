/* harness.h - runs a simulation for many seeds, on all cores, and counts.
 *
 *   test_x              the default number of seeds from 1 on
 *   test_x SEED         one seed, in this process: for a debugger, and to replay
 *   test_x FIRST COUNT
 *   SIM_FAILURES=n      ends after so many that failed, not after 10
 *   SIM_JOBS=n          so many processes at once; without it as many as there are cores
 *
 * A seed fails by a broken assertion, a signal, by running for too long, or when the same seed, run
 * twice as it is now and then, leaves two traces. Seeds run many to a process, since a process
 * costs as much as a short seed; the one that fails takes its process with it, is run again alone,
 * and the next process goes on behind it.
 *
 * A test may name what its seeds are to reach (harness_names) and count it (harness_count): a run of
 * HARNESS_REACH_SEEDS or more in which one of them never happened fails. SIM_VERBOSE=1 prints all of them. */
#ifndef TESTS_SIM_HARNESS_H
#define TESTS_SIM_HARNESS_H

#include "base/assert.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FAILURES_SHOWN_MAX = 10,
    SECONDS_PER_SEED_MAX = 60,
    SEEDS_PER_PROCESS = 64,
    SEEDS_PER_DOUBLE_RUN = 16,
    JOBS_OF_HARNESS_MAX = 64,
    HARNESS_NAMES_MAX = 64,
    HARNESS_REACH_SEEDS = 500,
};

/* What must not be reached. */
#define never(text) assert_failed(text, __FILE__, __LINE__, __func__)

/* Runs one seed and returns its trace; asserts. Keeps nothing for the next. */
typedef uint64_t simulation(uint64_t seed);

/* Shared by all processes. */
struct harness {
    _Atomic uint64_t next, passed, failed;
    uint64_t last; /* behind the last seed */
    uint64_t failures_max;
    uint64_t running[JOBS_OF_HARNESS_MAX]; /* the seed of each job's process */
    _Atomic uint64_t reached[HARNESS_NAMES_MAX];
};

/* Ended by NULL. */
static const char *const *harness_names;
static struct harness *harness_shared;

static inline void harness_count(unsigned index, uint64_t count)
{
    if (harness_shared != NULL)
        atomic_fetch_add(&harness_shared->reached[index], count);
}

/* What was never reached. */
static inline unsigned harness_missed(const struct harness *harness)
{
    unsigned missed = 0;

    for (unsigned i = 0; harness_names != NULL && harness_names[i] != NULL; i++) {
        uint64_t count = atomic_load(&harness->reached[i]);

        if (getenv("SIM_VERBOSE") != NULL)
            printf("%12llu %s\n", (unsigned long long)count, harness_names[i]);
        else if (count == 0)
            printf("never happened: %s\n", harness_names[i]);
        missed += count == 0;
    }
    return missed;
}

static inline void harness_run_one(simulation *run, uint64_t seed)
{
    uint64_t trace;

    alarm(SECONDS_PER_SEED_MAX);
    trace = run(seed);
    if (seed % SEEDS_PER_DOUBLE_RUN == 1 && run(seed) != trace) {
        fprintf(stderr, "seed %llu: two runs differ\n", (unsigned long long)seed);
        abort();
    }
}

/* Runs seeds in a process of their own; false: it died. */
static inline bool harness_run_some(simulation *run, uint64_t first, uint64_t last,
                                    uint64_t *running)
{
    int status = 0;
    pid_t child;

    *running = first;
    child = fork();
    if (child == 0) {
        for (uint64_t seed = first; seed < last; seed++) {
            *running = seed;
            harness_run_one(run, seed);
        }
        /* Not _exit: a leak checker wants to have its say. */
        exit(0);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* One of the processes that go on from chunk to chunk. */
static inline void harness_job(struct harness *harness, unsigned job, simulation *run,
                               const char *name)
{
    uint64_t *running = &harness->running[job];
    uint64_t first;

    while ((first = atomic_fetch_add(&harness->next, SEEDS_PER_PROCESS)) < harness->last) {
        uint64_t last =
            first + SEEDS_PER_PROCESS < harness->last ? first + SEEDS_PER_PROCESS : harness->last;

        while (first < last) {
            uint64_t alone = 0;
            bool passed = harness_run_some(run, first, last, running);
            uint64_t end = passed ? last : *running;

            atomic_fetch_add(&harness->passed, end - first);
            first = end;
            if (passed)
                continue;
            printf("seed %llu failed; replay: SIM_LOG=1 %s %llu%s\n", (unsigned long long)end, name,
                   (unsigned long long)end,
                   harness_run_some(run, end, end + 1, &alone) ? " (alone it passes!)" : "");
            fflush(stdout);
            first++;
            if (atomic_fetch_add(&harness->failed, 1) + 1 >= harness->failures_max)
                return;
        }
        if (atomic_load(&harness->failed) >= harness->failures_max)
            return;
    }
}

static inline int harness_main(int argc, char **argv, simulation *run, uint64_t count)
{
    const char *wanted_jobs = getenv("SIM_JOBS");
    long jobs = wanted_jobs != NULL ? atol(wanted_jobs) : sysconf(_SC_NPROCESSORS_ONLN);
    struct harness *harness =
        mmap(NULL, sizeof(*harness), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t first = 1, failed;
    unsigned missed = 0;

    if (argc == 2 && argv[1][0] != '\0') {
        uint64_t seed = strtoull(argv[1], NULL, 10);

        printf("seed %llu: trace %016llx\n", (unsigned long long)seed,
               (unsigned long long)run(seed));
        printf("1 passed, 0 failed\n");
        return 0;
    }
    if (argc == 3) {
        first = strtoull(argv[1], NULL, 10);
        count = strtoull(argv[2], NULL, 10);
    }
    assert(harness != MAP_FAILED);
    harness_shared = harness;
    jobs = jobs < 1 ? 1 : jobs > JOBS_OF_HARNESS_MAX ? JOBS_OF_HARNESS_MAX : jobs;
    atomic_init(&harness->next, first);
    harness->last = first + count;
    harness->failures_max = getenv("SIM_FAILURES") != NULL
                                ? strtoull(getenv("SIM_FAILURES"), NULL, 10)
                                : FAILURES_SHOWN_MAX;
    fflush(stdout);
    for (long job = 0; job < jobs; job++)
        if (fork() == 0) {
            harness_job(harness, (unsigned)job, run, argv[0]);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    failed = atomic_load(&harness->failed);
    if (failed == 0 && count >= HARNESS_REACH_SEEDS)
        missed = harness_missed(harness);
    printf("%llu passed, %llu failed\n", (unsigned long long)atomic_load(&harness->passed),
           (unsigned long long)failed);
    return failed > 0 || missed > 0 || atomic_load(&harness->passed) != count;
}

#endif
