#include "pool/hash_table.h"

#include <string.h>

enum { BUCKETS_FIRST = 8 };

static bool buckets_set(struct hash_table *table, struct buffer_pool *buffers, uint32_t count)
{
    size_t bytes = count * sizeof(struct hash_link *);
    struct buffer *memory = buffer_park(buffers, bytes);
    struct hash_link **buckets;

    if (memory == NULL)
        return false;
    buckets = (struct hash_link **)(void *)memory->data;
    memset(buckets, 0, bytes);
    if (table->buckets != NULL) {
        hash_table_for_each(link, table)
        {
            struct hash_link **bucket = &buckets[link->hash & (count - 1)];

            link->next = *bucket;
            *bucket = link;
        }
        buffer_release(buffers, table->memory);
    }
    table->memory = memory;
    table->buckets = buckets;
    table->mask = count - 1;
    return true;
}

bool hash_table_add(struct hash_table *table, struct buffer_pool *buffers, struct hash_link *link,
                    uint64_t hash)
{
    struct hash_link **bucket;

    if (table->buckets == NULL) {
        if (!buckets_set(table, buffers, BUCKETS_FIRST))
            return false;
    } else if (table->count > table->mask && table->mask + 1 < HASH_TABLE_BUCKETS_MAX) {
        /* Without memory the chains grow. */
        (void)!buckets_set(table, buffers, (table->mask + 1) * 2);
    }
    bucket = &table->buckets[hash & table->mask];
    link->hash = hash;
    link->next = *bucket;
    *bucket = link;
    table->count++;
    return true;
}

void hash_table_remove(struct hash_table *table, struct hash_link *link)
{
    struct hash_link **at = &table->buckets[link->hash & table->mask];

    while (*at != link) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = link->next;
    table->count--;
}

void hash_table_release(struct hash_table *table, struct buffer_pool *buffers)
{
    if (table->memory != NULL)
        buffer_release(buffers, table->memory);
    *table = (struct hash_table){0};
}
