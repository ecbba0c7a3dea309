#include "pool/usage.h"

#include <string.h>
#include <sys/mman.h>

bool usage_table_init(struct usage_table *table)
{
    void *entries = mmap(NULL, USAGE_ENTRIES * sizeof(struct usage), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    atomic_init(&table->client_count, 0);
    table->entries = entries == MAP_FAILED ? NULL : entries;
    return table->entries != NULL;
}

void usage_table_release(struct usage_table *table)
{
    munmap(table->entries, USAGE_ENTRIES * sizeof(struct usage));
    table->entries = NULL;
}

static struct usage *find(struct usage_table *table, enum usage_kind kind, const char *name,
                          bool is_made)
{
    uint32_t hash = 2166136261u ^ (uint32_t)kind;

    if (strlen(name) >= sizeof(table->entries->name))
        return NULL;
    for (const char *byte = name; *byte != '\0'; byte++)
        hash = (hash ^ (uint8_t)*byte) * 16777619u;
    for (unsigned probe = 0; probe < USAGE_ENTRIES; probe++) {
        struct usage *entry = &table->entries[(hash + probe) % USAGE_ENTRIES];
        int state = atomic_load_explicit(&entry->state, memory_order_acquire);

        if (state == 0 && !is_made)
            return NULL;
        if (state == 0 && atomic_compare_exchange_strong(&entry->state, &state, 1)) {
            entry->kind = kind;
            strcpy(entry->name, name);
            atomic_store_explicit(&entry->state, 2, memory_order_release);
            return entry;
        }
        /* Another thread is writing this very entry: a few dozen instructions. */
        while (state == 1)
            state = atomic_load_explicit(&entry->state, memory_order_acquire);
        if (entry->kind == kind && strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

struct usage *usage_find(struct usage_table *table, enum usage_kind kind, const char *name)
{
    return find(table, kind, name, true);
}

struct usage *usage_look(struct usage_table *table, enum usage_kind kind, const char *name)
{
    return find(table, kind, name, false);
}
