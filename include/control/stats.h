/* stats.h - statistics of databases: totals since a pool began, averages of the last stats_period.
 *
 * A row is what one core knows of one pool (report.h), with the number of that very pool: one that
 * was forgotten and has come back begins at zero under another number, so that what it did before
 * is never taken for what it does now. An average is made of the differences of single rows and of
 * the time that has really passed; "us for each" figures are over all of them, not averages of
 * averages.
 *
 * Pure but for the heap: time is an argument. Control's thread. */
#ifndef CONTROL_STATS_H
#define CONTROL_STATS_H

#include "pool/report.h"

struct database_stats {
    char database[DATABASE_NAME_BYTES_MAX];
    struct pool_stats total;
    struct pool_stats
        average;              /* counts and bytes per second; xact_us, query_us, wait_us for each */
    struct pool_stats change; /* while averages are made */
    bool is_present;          /* in the rows at hand */
};

/* A row at the end of the last period. */
struct stats_row {
    uint64_t pool_id;
    struct pool_stats stats;
};

struct stats {
    struct database_stats *databases; /* sorted by name; the console's is always there */
    size_t database_count;
    struct database_stats all; /* over all databases */
    struct stats_row *rows;    /* sorted by number */
    size_t row_count;
    uint64_t period_began_us;
};

void stats_init(struct stats *stats, uint64_t now_us);
void stats_release(struct stats *stats);

/* Totals of `rows`, of all workers in any order. Databases that have no row any more are forgotten.
 */
void stats_sum(struct stats *stats, const struct pool_row *rows, size_t row_count);

/* The same, and a period ends: averages are made anew. */
void stats_end_period(struct stats *stats, const struct pool_row *rows, size_t row_count,
                      uint64_t now_us);

#endif
