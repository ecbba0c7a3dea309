#include "crypto/tls_memory.h"

#include "base/assert.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/memory.h>

#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_BLOCKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS_BLOCKS 0
#endif
#endif
#ifndef KEEPS_BLOCKS
#define KEEPS_BLOCKS 1
#endif

/* Few sizes, so that few blocks lie unused. The last but one holds a full record with what belongs to it,
 * the last the longest that TLS 1.2 allows (16384 + 2048). */
static const size_t sizes[] = {128, 512, 1024, 2048, 4096, 8192, 16384 + 512, 16384 + 3072};

struct block {
    struct block *next;
};

struct cache {
    struct block *blocks[COUNT_OF(sizes)];
    unsigned count[COUNT_OF(sizes)];
    bool is_in_use;     /* between begin and end */
    bool is_registered; /* the key's destructor will come */
    struct tls_memory_counts counts;
};

static _Thread_local struct cache cache;
static pthread_key_t at_thread_exit;

static void give_back(void *argument)
{
    struct cache *own = argument;

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (struct block *block = own->blocks[i], *next; block != NULL; block = next) {
            next = block->next;
            free(block);
        }
        own->blocks[i] = NULL;
        own->count[i] = 0;
    }
    own->is_registered = false;
}

/* The smallest that holds `bytes`. COUNT_OF(sizes): none does. */
static size_t size_that_holds(size_t bytes)
{
    size_t i = 0;

    while (i < COUNT_OF(sizes) && sizes[i] < bytes)
        i++;
    return i;
}

static void *take(size_t bytes)
{
    size_t i;

    if (!cache.is_in_use)
        return malloc(bytes);
    cache.counts.taken++;
    i = size_that_holds(bytes);
    if (i < COUNT_OF(sizes)) {
        struct block *block = cache.blocks[i];

        if (block != NULL) {
            cache.blocks[i] = block->next;
            cache.count[i]--;
            return block;
        }
        bytes = sizes[i];
    }
    cache.counts.from_libc++;
    return malloc(bytes);
}

static bool keep(struct block *block)
{
    size_t room = malloc_usable_size(block);
    size_t i = size_that_holds(room);

    /* A block that libc made a little larger than was asked for still is one of that size. */
    if (i == COUNT_OF(sizes) || sizes[i] != room) {
        if (i == 0 || room - sizes[i - 1] > 64)
            return false;
        i--;
    }
    if (cache.count[i] == TLS_MEMORY_KEPT_PER_SIZE)
        return false;
    if (!cache.is_registered) {
        if (pthread_setspecific(at_thread_exit, &cache) != 0)
            return false;
        cache.is_registered = true;
    }
    block->next = cache.blocks[i];
    cache.blocks[i] = block;
    cache.count[i]++;
    return true;
}

static void give(void *block)
{
    if (block == NULL || (KEEPS_BLOCKS && cache.is_in_use && keep(block)))
        return;
    free(block);
}

static void *resize(void *block, size_t bytes)
{
    return realloc(block, bytes);
}

bool tls_memory_init(void)
{
    return pthread_key_create(&at_thread_exit, give_back) == 0 &&
           wolfSSL_SetAllocators(take, give, resize) == 0;
}

void tls_memory_begin(void)
{
    assert(!cache.is_in_use);
    cache.is_in_use = true;
}

void tls_memory_end(void)
{
    assert(cache.is_in_use);
    cache.is_in_use = false;
}

struct tls_memory_counts tls_memory_counts(void)
{
    return cache.counts;
}
