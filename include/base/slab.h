/* slab.h - objects of one size from one reserved stretch of address space.
 *
 * The stretch is reserved at start (no memory is used for it) and touched from its beginning on, so
 * that an object costs memory from the first time it is used. The last object given back is the
 * first taken again. An object keeps its address and its index for good. One thread: the owner's.
 * Free objects are poisoned under -DASSERT_SLOW. */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include "base/assert.h"

struct slab {
    const char *name;
    uint8_t *base;
    size_t object_bytes; /* rounded up to 16 */
    uint32_t count_max;
    uint32_t touched_count; /* objects that were ever taken: indexes below this may be looked at */
    uint32_t used_count;
    /* below: slab.c only */
    void *free_first;
};

/* False: the address space could not be had (errno). `name` must outlive the slab. */
must_check bool slab_init(struct slab *slab, const char *name, size_t object_bytes,
                          uint32_t count_max);
void slab_release(struct slab *slab);
/* Asks for transparent huge pages: fewer TLB misses, and 2 MiB as soon as one object is used. */
void slab_use_huge_pages(struct slab *slab);

/* Contents are undefined, but the first 8 bytes of an object that is free are the slab's.
 * NULL: the limit is reached. */
void *slab_take(struct slab *slab) must_check;
void slab_give(struct slab *slab, void *object);

static inline void *slab_at(const struct slab *slab, uint32_t index)
{
    assert(index < slab->count_max);
    return slab->base + (size_t)index * slab->object_bytes;
}

static inline uint32_t slab_index(const struct slab *slab, const void *object)
{
    size_t offset = (size_t)((const uint8_t *)object - slab->base);

    assert(offset < (size_t)slab->count_max * slab->object_bytes);
    return (uint32_t)(offset / slab->object_bytes);
}

#endif
