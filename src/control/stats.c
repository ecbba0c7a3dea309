#include "control/stats.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATS_FIELDS = sizeof(struct pool_stats) / sizeof(uint64_t) };

static_assert(sizeof(struct pool_stats) % sizeof(uint64_t) == 0, "counters only");

void stats_init(struct stats *stats, uint64_t now_us)
{
    *stats = (struct stats){.all.database = "all", .period_began_us = now_us};
}

void stats_release(struct stats *stats)
{
    free(stats->databases);
    free(stats->rows);
}

static void add(struct pool_stats *sum, const struct pool_stats *more)
{
    uint64_t *to = (uint64_t *)(void *)sum;
    const uint64_t *from = (const uint64_t *)(const void *)more;

    for (size_t i = 0; i < STATS_FIELDS; i++)
        to[i] += from[i];
}

static void add_change(struct pool_stats *sum, const struct pool_stats *now,
                       const struct pool_stats *before)
{
    uint64_t *to = (uint64_t *)(void *)sum;
    const uint64_t *is = (const uint64_t *)(const void *)now;
    const uint64_t *was = (const uint64_t *)(const void *)before;

    for (size_t i = 0; i < STATS_FIELDS; i++) {
        assert(is[i] >= was[i]); /* the same pool: it only counts up */
        to[i] += is[i] - was[i];
    }
}

/* ---- totals ---- */

static int compare_databases(const void *left, const void *right)
{
    return strcmp(((const struct database_stats *)left)->database,
                  ((const struct database_stats *)right)->database);
}

/* NULL: none of that name. */
static struct database_stats *find(const struct stats *stats, const char *name)
{
    struct database_stats key;

    if (stats->database_count == 0)
        return NULL;
    snprintf(key.database, sizeof(key.database), "%s", name);
    return bsearch(&key, stats->databases, stats->database_count, sizeof(key), compare_databases);
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The databases of these rows, sorted, with the averages that they had. */
static void take_databases(struct stats *stats, const struct pool_row *rows, size_t row_count)
{
    const char **names = malloc((row_count + 1) * sizeof(*names));
    struct database_stats *databases = malloc((row_count + 1) * sizeof(*databases));
    size_t count = 0;

    assert(names != NULL);
    assert(databases != NULL);
    for (size_t i = 0; i < row_count; i++)
        names[i] = rows[i].database;
    names[row_count] = "pgbouncer";
    qsort(names, row_count + 1, sizeof(*names), compare_names);
    for (size_t i = 0; i <= row_count; i++) {
        const struct database_stats *known;

        if (i > 0 && strcmp(names[i], names[i - 1]) == 0)
            continue;
        known = find(stats, names[i]);
        databases[count] = (struct database_stats){0};
        snprintf(databases[count].database, sizeof(databases[count].database), "%s", names[i]);
        if (known != NULL)
            databases[count].average = known->average;
        count++;
    }
    free(names);
    free(stats->databases);
    stats->databases = databases;
    stats->database_count = count;
}

void stats_sum(struct stats *stats, const struct pool_row *rows, size_t row_count)
{
    take_databases(stats, rows, row_count);
    stats->all.total = (struct pool_stats){0};
    for (size_t i = 0; i < row_count; i++) {
        add(&find(stats, rows[i].database)->total, &rows[i].stats);
        add(&stats->all.total, &rows[i].stats);
    }
}

/* ---- averages ---- */

static int compare_rows(const void *left, const void *right)
{
    const struct stats_row *a = left;
    const struct stats_row *b = right;

    return a->pool_id < b->pool_id ? -1 : a->pool_id > b->pool_id;
}

static void average(struct database_stats *database, uint64_t period_us)
{
    const struct pool_stats *change = &database->change;
    struct pool_stats *result = &database->average;

#define PER_SECOND(field) result->field = change->field * US_PER_S / period_us
    PER_SECOND(server_assignment_count);
    PER_SECOND(xact_count);
    PER_SECOND(query_count);
    PER_SECOND(received_bytes);
    PER_SECOND(sent_bytes);
    PER_SECOND(client_parse_count);
    PER_SECOND(server_parse_count);
    PER_SECOND(bind_count);
    PER_SECOND(client_login_count);
#undef PER_SECOND
    /* What ended in this period may have begun before it: then there is nothing to divide by. */
    result->xact_us = change->xact_count > 0 ? change->xact_us / change->xact_count : 0;
    result->query_us = change->query_count > 0 ? change->query_us / change->query_count : 0;
    result->wait_us =
        change->server_assignment_count > 0 ? change->wait_us / change->server_assignment_count : 0;
}

void stats_end_period(struct stats *stats, const struct pool_row *rows, size_t row_count,
                      uint64_t now_us)
{
    static const struct pool_stats nothing;
    uint64_t period_us = MAX(now_us - stats->period_began_us, UINT64_C(1));
    struct stats_row *ended = malloc(MAX(row_count, (size_t)1) * sizeof(*ended));

    assert(ended != NULL);
    assert(now_us >= stats->period_began_us);
    stats_sum(stats, rows, row_count);
    stats->all.change = nothing;
    for (size_t i = 0; i < row_count; i++) {
        struct stats_row key = {.pool_id = rows[i].pool_id};
        const struct stats_row *before =
            stats->row_count > 0
                ? bsearch(&key, stats->rows, stats->row_count, sizeof(key), compare_rows)
                : NULL;
        const struct pool_stats *was = before != NULL ? &before->stats : &nothing;

        add_change(&find(stats, rows[i].database)->change, &rows[i].stats, was);
        add_change(&stats->all.change, &rows[i].stats, was);
        ended[i] = (struct stats_row){.pool_id = rows[i].pool_id, .stats = rows[i].stats};
    }
    if (row_count > 0)
        qsort(ended, row_count, sizeof(*ended), compare_rows);
    for (size_t i = 0; i < stats->database_count; i++)
        average(&stats->databases[i], period_us);
    average(&stats->all, period_us);
    free(stats->rows);
    stats->rows = ended;
    stats->row_count = row_count;
    stats->period_began_us = now_us;
}
