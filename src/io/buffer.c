#include "io/buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const uint32_t parked_class_bytes[PARKED_CLASSES] = {128, 1024, 4096, 16384, 65536};

/* Address space for parked bytes, each class: a worker's limit for what waits. */
static const uint64_t parked_class_total_bytes = UINT64_C(1) << 30;

bool buffer_pool_init(struct buffer_pool *pool, uint32_t receive_bytes, uint32_t receive_count_max)
{
    static const char *const names[PARKED_CLASSES] = {"parked 128", "parked 1k", "parked 4k",
                                                      "parked 16k", "parked 64k"};

    assert((receive_count_max & (receive_count_max - 1)) == 0);
    assert(receive_count_max <= 32768);
    *pool = (struct buffer_pool){.receive_bytes = receive_bytes,
                                 .receive_count_max = receive_count_max};
    pool->receive = calloc(receive_count_max, sizeof(struct buffer));
    pool->returned = calloc(receive_count_max, sizeof(uint16_t));
    pool->receive_data = mmap(NULL, buffer_pool_receive_bytes(pool), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool->receive_data == MAP_FAILED)
        pool->receive_data = NULL;
    if (pool->receive == NULL || pool->returned == NULL || pool->receive_data == NULL)
        goto fail;
    for (uint32_t index = 0; index < receive_count_max; index++)
        pool->receive[index] = (struct buffer){
            .data = pool->receive_data + (size_t)index * receive_bytes,
            .bytes_max = receive_bytes,
            .receive_index = (uint16_t)index,
            .parked_class = PARKED_CLASSES,
        };
    for (int class = 0; class < PARKED_CLASSES; class ++)
        if (!slab_init(&pool->parked[class], names[class], parked_class_bytes[class],
                       (uint32_t)(parked_class_total_bytes / parked_class_bytes[class])))
            goto fail;
    return true;
fail:
    buffer_pool_release(pool);
    return false;
}

enum { HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

/* Rounded up, so that it may be huge pages; the rest is never touched. */
size_t buffer_pool_receive_bytes(const struct buffer_pool *pool)
{
    size_t bytes = (size_t)pool->receive_bytes * pool->receive_count_max;

    return (bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
}

bool buffer_pool_use_huge_pages(struct buffer_pool *pool)
{
    size_t bytes = buffer_pool_receive_bytes(pool);
    void *data;

    assert(pool->receive_used == 0);
    assert(pool->receive_count == 0);
    /* Reserved here and now: without a reservation a page that is not there would be a SIGBUS. */
    data =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (data == MAP_FAILED) {
        int error = errno;

        (void)madvise(pool->receive_data, bytes, MADV_HUGEPAGE);
        errno = error;
        return false;
    }
    munmap(pool->receive_data, bytes);
    pool->receive_data = data;
    for (uint32_t index = 0; index < pool->receive_count_max; index++)
        pool->receive[index].data = pool->receive_data + (size_t)index * pool->receive_bytes;
    return true;
}

void buffer_pool_release(struct buffer_pool *pool)
{
    for (int class = 0; class < PARKED_CLASSES; class ++)
        slab_release(&pool->parked[class]);
    if (pool->receive_data != NULL)
        munmap(pool->receive_data, buffer_pool_receive_bytes(pool));
    free(pool->receive);
    free(pool->returned);
    *pool = (struct buffer_pool){0};
}

struct buffer *buffer_receive_filled(struct buffer_pool *pool, uint16_t index)
{
    struct buffer *buffer = &pool->receive[index];

    assert(index < pool->receive_count);
    assert(buffer->reference_count == 0);
    buffer->reference_count = 1;
    pool->receive_used++;
    return buffer;
}

struct buffer *buffer_park(struct buffer_pool *pool, size_t bytes)
{
    struct buffer *buffer;
    uint8_t class = 0;

    assert(bytes <= BUFFER_PARKED_BYTES_MAX);
    while (bytes + sizeof(struct buffer) > parked_class_bytes[class])
        class ++;
    buffer = slab_take(&pool->parked[class]);
    if (buffer == NULL)
        return NULL;
    pool->parked_bytes += parked_class_bytes[class];
    *buffer = (struct buffer){
        .data = (uint8_t *)(buffer + 1),
        .bytes_max = parked_class_bytes[class] - (uint32_t)sizeof(struct buffer),
        .reference_count = 1,
        .parked_class = class,
    };
    return buffer;
}

void buffer_destroy(struct buffer_pool *pool, struct buffer *buffer)
{
    if (buffer->parked_class < PARKED_CLASSES) {
        pool->parked_bytes -= parked_class_bytes[buffer->parked_class];
        slab_give(&pool->parked[buffer->parked_class], buffer);
        return;
    }
    assert(pool->receive_used > 0);
    pool->receive_used--;
#ifdef ASSERT_SLOW
    memset(buffer->data, 0xdb, buffer->bytes_max);
#endif
    assert(pool->returned_count < pool->receive_count_max);
    pool->returned[pool->returned_count++] = buffer->receive_index;
}
