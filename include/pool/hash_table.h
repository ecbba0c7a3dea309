/* hash_table.h - chained hash table whose links lie in the listed objects; its buckets lie in a parked
 * buffer and grow with it.
 *
 * An empty table owns nothing. Buckets double when there are as many links as buckets, up to
 * HASH_TABLE_BUCKETS_MAX; above that the chains grow. The caller compares: a link found has the same
 * hash, not necessarily the same key. Hashes must be spread well in their low bits (siphash.h).
 * One thread: the core's. */
#ifndef POOL_HASH_TABLE_H
#define POOL_HASH_TABLE_H

#include "io/buffer.h"

enum { HASH_TABLE_BUCKETS_MAX = 4096 };

struct hash_link {
    struct hash_link *next;
    uint64_t hash;
};

struct hash_table {
    struct hash_link **buckets; /* NULL: never used */
    struct buffer *memory;
    uint32_t mask;
    uint32_t count;
};

/* The link must be in no table. False: no memory for the first buckets. */
must_check bool hash_table_add(struct hash_table *table, struct buffer_pool *buffers,
                               struct hash_link *link, uint64_t hash);
/* The link must be in this table. */
void hash_table_remove(struct hash_table *table, struct hash_link *link);
/* The buckets go back; links that are still in it are forgotten. */
void hash_table_release(struct hash_table *table, struct buffer_pool *buffers);

/* The first link with that hash, NULL: none. */
static inline struct hash_link *hash_table_find(const struct hash_table *table, uint64_t hash)
{
    struct hash_link *link;

    if (table->count == 0)
        return NULL;
    link = table->buckets[hash & table->mask];
    while (link != NULL && link->hash != hash)
        link = link->next;
    return link;
}

/* The next one with the same hash. */
static inline struct hash_link *hash_table_find_next(struct hash_link *link)
{
    uint64_t hash = link->hash;

    do
        link = link->next;
    while (link != NULL && link->hash != hash);
    return link;
}

/* The body may remove `link`, nothing else. */
#define hash_table_for_each(link, table)                                                           \
    for (uint32_t bucket_##link = 0; (table)->buckets != NULL && bucket_##link <= (table)->mask;   \
         bucket_##link++)                                                                          \
        for (struct hash_link *link = (table)->buckets[bucket_##link],                             \
                              *link##_next = link != NULL ? link->next : NULL;                     \
             link != NULL; link = link##_next, link##_next = link != NULL ? link->next : NULL)

#endif
