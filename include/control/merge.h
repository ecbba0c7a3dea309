/* merge.h - rows of several workers made into the one picture that an operator sees.
 *
 * Pure; works in place; any thread. */
#ifndef CONTROL_MERGE_H
#define CONTROL_MERGE_H

#include "pool/report.h"

/* One row for each (database, user), sorted: a pool has a row for each of its shards. Counts and
 * statistics are summed, the longest wait is the longest of all. Returns the number of rows left.
 */
size_t merge_pools(struct pool_row *rows, size_t count);

/* One row for each id: a session or a server that went to another core while the cores were asked
 * may have been met twice. The one that has done something later counts. The order stays. */
size_t merge_sockets(struct socket_row *rows, size_t count);

/* One row for each name, the most used first: counts are summed, the text is that of whoever knows it. */
size_t merge_statements(struct statement_row *rows, size_t count);

/* Sorted by database, user and worker. Limits, queues and measurements are each shard's own, so they stay apart. */
void merge_sharing(struct sharing_row *rows, size_t count);

/* One row for each (database, user, class), sorted by database and user, the most used first. Counts are summed,
 * times are weighted by what was measured, the floor is the lowest; whether it may be followed is said by the shard
 * that has measured most, and the text is that of whoever knows it. */
size_t merge_classes(struct class_row *rows, size_t count);

/* One row for each name, in the order in which they came: counts are summed. */
size_t merge_memory(struct memory_row *rows, size_t count);

#endif
