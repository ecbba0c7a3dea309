/* harness.h - runs a simulation for many seeds, each in a process of its own, and counts.
 *
 *   test_x              the default number of seeds from 1 on
 *   test_x SEED         one seed, in this process: for a debugger, and to replay
 *   test_x FIRST COUNT
 *
 * A seed fails by a broken assertion, a signal, or by returning false. The same seed is run twice
 * now and then and must leave the same trace. */
#ifndef TESTS_SIM_HARNESS_H
#define TESTS_SIM_HARNESS_H

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAILURES_SHOWN_MAX = 10, SECONDS_PER_SEED_MAX = 60 };

/* What must not be reached. */
#define never(text) assert_failed(text, __FILE__, __LINE__, __func__)

/* Runs one seed and returns its trace; asserts. */
typedef uint64_t simulation(uint64_t seed);

static inline int harness_main(int argc, char **argv, simulation *run, uint64_t count)
{
    uint64_t first = 1;
    uint64_t passed = 0, failed = 0;

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
    for (uint64_t seed = first; seed < first + count; seed++) {
        pid_t child;
        int status = 0;

        fflush(stdout);
        child = fork();
        if (child == 0) {
            uint64_t trace;

            alarm(SECONDS_PER_SEED_MAX);
            trace = run(seed);
            if (seed % 16 == 1 && run(seed) != trace) {
                fprintf(stderr, "two runs differ\n");
                _exit(1);
            }
            /* Not _exit: a leak checker wants to have its say. */
            exit(0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            printf("seed %llu failed; replay: %s %llu\n", (unsigned long long)seed, argv[0],
                   (unsigned long long)seed);
            if (++failed == FAILURES_SHOWN_MAX)
                break;
        } else {
            passed++;
        }
    }
    printf("%llu passed, %llu failed\n", (unsigned long long)passed, (unsigned long long)failed);
    return failed > 0;
}

#endif
