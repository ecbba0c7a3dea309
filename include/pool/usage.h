/* usage.h - counts that hold for the whole process: clients, and clients and servers of one
 * database or one user, over all cores. They bear the limits (max_client_conn, max_db_connections
 * ...).
 *
 * A table of fixed size, made at start and mapped as needed; an entry is never removed. Lookups
 * take no lock: an entry is claimed with one compare-and-swap. The counts are atomics that change
 * only when a connection is opened or closed, never on the data path. Any thread. */
#ifndef POOL_USAGE_H
#define POOL_USAGE_H

#include "base/base.h"

#include <stdatomic.h>

enum usage_kind { USAGE_DATABASE = 1, USAGE_USER = 2 };

enum { USAGE_ENTRIES = 65536 };

struct usage {
    atomic_int state; /* 0: free, 1: being written, 2: in use */
    enum usage_kind kind;
    atomic_int client_count;
    atomic_int server_count;
    char name[USER_NAME_BYTES_MAX];
};

struct usage_table {
    struct usage *entries;
    atomic_int client_count; /* all client sockets: max_client_conn */
};

must_check bool usage_table_init(struct usage_table *table);
void usage_table_release(struct usage_table *table);

/* The entry, made if need be. NULL: the table is full, or the name too long. */
struct usage *usage_find(struct usage_table *table, enum usage_kind kind, const char *name);

/* The entry, if it is there: for names that strangers say, who could fill the table with them. */
struct usage *usage_look(struct usage_table *table, enum usage_kind kind, const char *name);

/* Adds one unless that would exceed `limit` (<= 0: no limit). The count is never above the limit,
 * not for a moment: two that try to be the last do not refuse each other. */
static inline must_check bool usage_take(atomic_int *count, int limit)
{
    int now = atomic_load(count);

    do
        if (limit > 0 && now >= limit)
            return false;
    while (!atomic_compare_exchange_weak(count, &now, now + 1));
    return true;
}

static inline void usage_give(atomic_int *count)
{
    atomic_fetch_sub(count, 1);
}

/* Takes one off only as long as more than `least` are left: of several who would go one stays. */
static inline must_check bool usage_give_above(atomic_int *count, int least)
{
    int now = atomic_load(count);

    do
        if (now <= least)
            return false;
    while (!atomic_compare_exchange_weak(count, &now, now - 1));
    return true;
}

static inline int usage_count(const atomic_int *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

#endif
