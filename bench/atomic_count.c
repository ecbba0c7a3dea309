/* atomic_count.c - counts the atomic read-modify-write operations of a program: how much do its threads
 * share?
 *
 * The program is built with -fno-inline-atomics, so that each atomic operation is a call into
 * libatomic; preloaded, this stands before it. Counted is what costs a locked instruction: first
 * exchanges, compare-and-swaps, fetch-and-adds and the like, second stores in the order of seq_cst (the
 * flag by which a worker says that it may sleep, once a turn). Plain loads and stores are not. The two
 * counts lie in the file that ATOMIC_COUNT_FILE names, 8 bytes each, mapped. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t nowhere[2];
static uint64_t *counts = nowhere;

__attribute__((constructor)) static void map_count(void)
{
    const char *path = getenv("ATOMIC_COUNT_FILE");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map;

    if (fd < 0)
        return;
    map = mmap(NULL, 2 * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        counts = map;
}

static void counted(int what)
{
    __atomic_fetch_add(&counts[what], 1, __ATOMIC_RELAXED);
}

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wbuiltin-declaration-mismatch"

#define OPERATIONS(size, type)                                                                     \
    type counted_load_##size(const volatile void *at, int order) __asm__("__atomic_load_" #size);  \
    type counted_load_##size(const volatile void *at, int order)                                   \
    {                                                                                              \
        (void)order;                                                                               \
        return __atomic_load_n((const volatile type *)at, __ATOMIC_SEQ_CST);                       \
    }                                                                                              \
    void counted_store_##size(volatile void *at, type value,                                       \
                              int order) __asm__("__atomic_store_" #size);                         \
    void counted_store_##size(volatile void *at, type value, int order)                            \
    {                                                                                              \
        if (order == __ATOMIC_SEQ_CST)                                                             \
            counted(1);                                                                            \
        __atomic_store_n((volatile type *)at, value, __ATOMIC_SEQ_CST);                            \
    }                                                                                              \
    type counted_exchange_##size(volatile void *at, type value,                                    \
                                 int order) __asm__("__atomic_exchange_" #size);                   \
    type counted_exchange_##size(volatile void *at, type value, int order)                         \
    {                                                                                              \
        (void)order;                                                                               \
        counted(0);                                                                                \
        return __atomic_exchange_n((volatile type *)at, value, __ATOMIC_SEQ_CST);                  \
    }                                                                                              \
    bool counted_compare_##size(volatile void *at, void *expected, type desired, int success,      \
                                int failure) __asm__("__atomic_compare_exchange_" #size);          \
    bool counted_compare_##size(volatile void *at, void *expected, type desired, int success,      \
                                int failure)                                                       \
    {                                                                                              \
        (void)success;                                                                             \
        (void)failure;                                                                             \
        counted(0);                                                                                \
        return __atomic_compare_exchange_n((volatile type *)at, (type *)expected, desired, false,  \
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                    \
    }                                                                                              \
    FETCH(size, type, add)                                                                         \
    FETCH(size, type, sub)                                                                         \
    FETCH(size, type, and)                                                                         \
    FETCH(size, type, or)

#define FETCH(size, type, name)                                                                    \
    type counted_##name##_##size(volatile void *at, type value,                                    \
                                 int order) __asm__("__atomic_fetch_" #name "_" #size);            \
    type counted_##name##_##size(volatile void *at, type value, int order)                         \
    {                                                                                              \
        (void)order;                                                                               \
        counted(0);                                                                                \
        return __atomic_fetch_##name((volatile type *)at, value, __ATOMIC_SEQ_CST);                \
    }

OPERATIONS(1, uint8_t)
OPERATIONS(2, uint16_t)
OPERATIONS(4, uint32_t)
OPERATIONS(8, uint64_t)
