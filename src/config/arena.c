#include "config/arena.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 16 * 1024, PIECE_ALIGNMENT = 16 };

struct chunk {
    struct chunk *next;
    size_t bytes; /* of data */
    size_t bytes_used;
    _Alignas(PIECE_ALIGNMENT) unsigned char data[];
};

struct arena {
    struct chunk *chunks; /* the first one is filled, the others are full */
};

static void *allocate_or_stop(size_t bytes)
{
    void *memory = calloc(1, bytes);

    if (memory == NULL) {
        log_write(LEVEL_FATAL, "out of memory while reading the configuration (%zu bytes)", bytes);
        abort();
    }
    return memory;
}

struct arena *arena_new(void)
{
    return allocate_or_stop(sizeof(struct arena));
}

void arena_free(struct arena *arena)
{
    struct chunk *chunk, *next;

    if (arena == NULL)
        return;
    for (chunk = arena->chunks; chunk != NULL; chunk = next) {
        next = chunk->next;
        explicit_bzero(chunk->data, chunk->bytes_used);
        free(chunk);
    }
    free(arena);
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    struct chunk *chunk = arena->chunks;
    size_t chunk_bytes;
    void *piece;

    bytes = (MAX(bytes, (size_t)1) + PIECE_ALIGNMENT - 1) & ~(size_t)(PIECE_ALIGNMENT - 1);
    if (chunk == NULL || bytes > chunk->bytes - chunk->bytes_used) {
        chunk_bytes = MAX(bytes, (size_t)CHUNK_BYTES);
        chunk = allocate_or_stop(sizeof(*chunk) + chunk_bytes);
        chunk->bytes = chunk_bytes;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    piece = chunk->data + chunk->bytes_used;
    chunk->bytes_used += bytes;
    return piece;
}

char *arena_copy_string(struct arena *arena, const char *text)
{
    char *copy;
    size_t bytes;

    if (text == NULL)
        return NULL;
    bytes = strlen(text) + 1;
    copy = arena_alloc(arena, bytes);
    memcpy(copy, text, bytes);
    return copy;
}
