/* unit.h - what the unit tests share: cmocka with what it needs before it, input that ends at an
 * unreadable page, a small random generator, and a way to expect an assertion. */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/assert.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* splitmix64: every seed is a good one. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);

    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
    return random_next(state) % limit;
}

/* An array whose first byte behind the end cannot be touched. */
struct edge {
    uint8_t *map;
    size_t map_bytes;
    uint8_t *end;
};

static inline void edge_init(struct edge *edge, size_t bytes_max)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (bytes_max + page) / page * page;

    edge->map_bytes = room + page;
    edge->map =
        mmap(NULL, edge->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(edge->map != MAP_FAILED);
    assert_int_equal(mprotect(edge->map + room, page, PROT_NONE), 0);
    edge->end = edge->map + room;
}

static inline void edge_release(struct edge *edge)
{
    assert_int_equal(munmap(edge->map, edge->map_bytes), 0);
}

/* A copy of `data` that ends where the unreadable page begins. */
static inline uint8_t *edge_copy(struct edge *edge, const void *data, size_t bytes)
{
    uint8_t *copy = edge->end - bytes;

    if (bytes > 0)
        memcpy(copy, data, bytes);
    return copy;
}

static jmp_buf expected_assertion;

static inline void expected_assertion_hook(void)
{
    longjmp(expected_assertion, 1);
}

/* Fails the test unless `statement` breaks an assertion. */
#define expect_broken_invariant(statement)                                                         \
    do {                                                                                           \
        assert_set_hook(expected_assertion_hook);                                                  \
        if (setjmp(expected_assertion) == 0) {                                                     \
            statement;                                                                             \
            assert_set_hook(NULL);                                                                 \
            fail_msg("no assertion stopped `%s`", #statement);                                     \
        }                                                                                          \
    } while (0)

#endif
