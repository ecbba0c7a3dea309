/* guarded.h - memory that ends where an unreadable page begins, so that one byte too far is a
 * crash. */
#ifndef TESTS_UNIT_GUARDED_H
#define TESTS_UNIT_GUARDED_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARDED_BYTES_MAX = 64 * 1024 };

/* A copy of the bytes; valid until the next call. */
static inline void *guarded_copy(const void *data, size_t bytes)
{
    static uint8_t *memory;

    if (memory == NULL) {
        memory = mmap(NULL, GUARDED_BYTES_MAX + 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory + GUARDED_BYTES_MAX, 4096, PROT_NONE) != 0)
            abort();
    }
    if (bytes > GUARDED_BYTES_MAX)
        abort();
    if (bytes > 0)
        memcpy(memory + GUARDED_BYTES_MAX - bytes, data, bytes);
    return memory + GUARDED_BYTES_MAX - bytes;
}

#endif
