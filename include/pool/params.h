/* params.h - the server parameters that follow a client from server to server (PgBouncer: tracked
 * parameters): client_encoding, DateStyle and so on.
 *
 * A *set* holds one value, or none, for each tracked name. Sets are interned for each core: two
 * sets with the same values are the same object, so that comparing a client with a server is one
 * pointer compare, and ten thousand clients of one application cost one set. A set lies in a parked
 * buffer, with the buffer's reference count. One thread: the core's. */
#ifndef POOL_PARAMS_H
#define POOL_PARAMS_H

#include "crypto/siphash.h"
#include "io/buffer.h"

enum { PARAMS_COUNT_MAX = 24, PARAMS_BUCKETS = 1024 };

/* The same for all cores, made at start, immutable. */
struct param_names {
    unsigned count;
    const char *names[PARAMS_COUNT_MAX]; /* as SET spells them */
};

enum {
    PARAM_DATESTYLE,
    PARAM_CLIENT_ENCODING,
    PARAM_TIMEZONE,
    PARAM_STD_STRINGS,
    PARAM_APPLICATION_NAME
};

/* The five built-in ones, then `extra` (track_extra_parameters: comma list, copied into `storage`).
 */
void param_names_init(struct param_names *names, const char *extra, char *storage,
                      size_t storage_bytes);
/* Without case; -1: not tracked. */
int param_names_find(const struct param_names *names, const char *name);

struct param_table {
    const struct param_names *names;
    struct buffer_pool *buffers;
    struct siphash_key key; /* for params_parse_hash; the same on all cores */
    struct buffer *buckets[PARAMS_BUCKETS];
};

void param_table_init(struct param_table *table, const struct param_names *names,
                      struct buffer_pool *buffers);

/* One reference for the caller. NULL: no memory, or values too long. values[i] may be NULL: not
 * known. */
struct buffer *params_intern(struct param_table *table, const char *const *values) must_check;
/* `base` (may be NULL) with one value replaced; one new reference. */
struct buffer *params_with(struct param_table *table, struct buffer *base, unsigned index,
                           const char *value) must_check;
void params_release(struct param_table *table, struct buffer *set);

/* NULL: not known. `set` may be NULL. */
const char *params_value(const struct buffer *set, unsigned index);
/* A keyed hash of all values but application_name: what can change the meaning of a statement's text when
 * it is prepared (string escapes, encoding, how a date is read). `set` may be NULL. */
uint64_t params_parse_hash(const struct buffer *set);
/* values[i] point into the set. */
void params_values(const struct param_table *table, const struct buffer *set, const char **values);

/* All values in the order of the names, each with its length before it, for another core. Returns the
 * number of bytes; 0: they do not fit, nobody's are that long. */
size_t params_pack(const struct param_table *table, const char *const *values, void *out,
                   size_t out_bytes);
/* values[i] point into `packed`. What is not there is NULL. */
void params_unpack(const struct param_table *table, const void *packed, size_t bytes,
                   const char **values);

/* Writes `SET name='value';...` for each value of `wanted` that is known on both sides and differs
 * but in case. Returns false when nothing has to be set. Values that would not fit 127 bytes quoted
 * are not set, as in PgBouncer. */
bool params_write_set(const struct param_table *table, const struct buffer *wanted,
                      const struct buffer *actual, char *query, size_t query_bytes);

#endif
