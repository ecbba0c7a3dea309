#include "base/slab.h"

#include <string.h>
#include <sys/mman.h>

bool slab_init(struct slab *slab, const char *name, size_t object_bytes, uint32_t count_max)
{
    object_bytes = (object_bytes + 15) & ~(size_t)15;
    *slab = (struct slab){.name = name, .object_bytes = object_bytes, .count_max = count_max};
    slab->base = mmap(NULL, object_bytes * count_max, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slab->base == MAP_FAILED) {
        slab->base = NULL;
        return false;
    }
    /* Huge pages would make the first object cost 2 MiB. */
    (void)madvise(slab->base, object_bytes * count_max, MADV_NOHUGEPAGE);
    return true;
}

void slab_release(struct slab *slab)
{
    if (slab->base != NULL)
        munmap(slab->base, slab->object_bytes * slab->count_max);
    *slab = (struct slab){0};
}

void slab_use_huge_pages(struct slab *slab)
{
    (void)madvise(slab->base, slab->object_bytes * slab->count_max, MADV_HUGEPAGE);
}

void *slab_take(struct slab *slab)
{
    void *object = slab->free_first;

    if (object != NULL)
        memcpy(&slab->free_first, object, sizeof(void *));
    else if (slab->touched_count < slab->count_max)
        object = slab_at(slab, slab->touched_count++);
    else
        return NULL;
    slab->used_count++;
    return object;
}

void slab_give(struct slab *slab, void *object)
{
    assert(slab->used_count > 0);
    assert_slow(slab_at(slab, slab_index(slab, object)) == object);
#ifdef ASSERT_SLOW
    memset(object, 0xdb, slab->object_bytes);
#endif
    memcpy(object, &slab->free_first, sizeof(void *));
    slab->free_first = object;
    slab->used_count--;
}
