/* malloc_count.c - preloaded into a pooler, counts its heap allocations into a shared file.
 *
 * MALLOC_COUNT_FILE names a file of 8 bytes that exists; the count is its content, live. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic uint64_t *count;

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t items, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);

__attribute__((constructor)) static void open_count(void)
{
    const char *path = getenv("MALLOC_COUNT_FILE");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *memory;

    if (fd < 0)
        return;
    memory = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED)
        count = memory;
}

static void counted(void)
{
    if (count != NULL)
        atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
}

void *malloc(size_t bytes)
{
    counted();
    return __libc_malloc(bytes);
}

void *calloc(size_t items, size_t bytes)
{
    counted();
    return __libc_calloc(items, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    counted();
    return __libc_realloc(memory, bytes);
}
