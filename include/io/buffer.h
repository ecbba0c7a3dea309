/* buffer.h - where bytes live between two sockets: reference-counted, never moved.
 *
 * Two kinds. A *receive* buffer is one that the kernel filled; it goes back to the kernel's ring
 * when its last reference goes. A *parked* buffer comes from a slab class and holds what had to be
 * copied: a message that waits for a server, a header that straddled two buffers, what we write
 * ourselves.
 *
 * One pool for each worker; one thread. References are plain counters: a buffer never crosses to
 * another worker. */
#ifndef IO_BUFFER_H
#define IO_BUFFER_H

#include "base/slab.h"

enum { PARKED_CLASSES = 5 }; /* 128 bytes, 1 KiB, 4 KiB, 16 KiB, 64 KiB: header included */

struct buffer {
    uint8_t *data;
    uint32_t bytes_max;
    uint32_t reference_count;
    uint16_t receive_index; /* of a receive buffer */
    uint8_t parked_class;   /* PARKED_CLASSES: a receive buffer */
};

struct buffer_pool {
    struct buffer *receive; /* receive_count_max headers */
    uint8_t *receive_data;
    uint32_t receive_bytes;     /* size of one */
    uint32_t receive_count;     /* handed to the ring so far; grows on demand up to the maximum */
    uint32_t receive_count_max; /* a power of two */
    uint32_t receive_used;      /* filled, and not yet given back */
    /* Given back and not yet with the kernel again: the ring takes them once a turn. */
    uint16_t *returned;
    uint32_t returned_count;
    struct slab parked[PARKED_CLASSES];
    uint64_t parked_bytes; /* in use, headers included */
};

/* False: no address space, or no memory. */
must_check bool buffer_pool_init(struct buffer_pool *pool, uint32_t receive_bytes,
                                 uint32_t receive_count_max);
/* Receive buffers lie in huge pages from now on; no buffer may be in use. False: the kernel has none
 * (errno); then it is asked to make some of what is there (MADV_HUGEPAGE). */
must_check bool buffer_pool_use_huge_pages(struct buffer_pool *pool);
/* Address space of all receive buffers. */
size_t buffer_pool_receive_bytes(const struct buffer_pool *pool);
void buffer_pool_release(struct buffer_pool *pool);

/* The ring only: `index` was filled by the kernel. One reference, the caller's. */
struct buffer *buffer_receive_filled(struct buffer_pool *pool, uint16_t index);

/* A parked buffer for at least `bytes` (at most BUFFER_PARKED_BYTES_MAX), one reference.
 * NULL: that class is used up. */
struct buffer *buffer_park(struct buffer_pool *pool, size_t bytes) must_check;

enum { BUFFER_PARKED_BYTES_MAX = 64 * 1024 - (int)sizeof(struct buffer) };

static inline struct buffer *buffer_reference(struct buffer *buffer)
{
    assert(buffer->reference_count > 0);
    buffer->reference_count++;
    return buffer;
}

/* Seven eighths of the receive buffers are held: from now on what waits should be copied. */
static inline bool buffer_pool_is_scarce(const struct buffer_pool *pool)
{
    return pool->receive_used >= pool->receive_count_max - pool->receive_count_max / 8;
}

/* Half of what one class of parked buffers has: what waits for slow readers should not grow any more. What
 * was decrypted lies in parked buffers, so there receive buffers never run short. */
enum { BUFFER_CROWDED_BYTES = 512 * 1024 * 1024 };

static inline bool buffer_pool_is_crowded(const struct buffer_pool *pool)
{
    return pool->parked_bytes >= BUFFER_CROWDED_BYTES;
}

void buffer_destroy(struct buffer_pool *pool, struct buffer *buffer);

static inline void buffer_release(struct buffer_pool *pool, struct buffer *buffer)
{
    assert(buffer->reference_count > 0);
    if (--buffer->reference_count == 0)
        buffer_destroy(pool, buffer);
}

#endif
