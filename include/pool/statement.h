/* statement.h - prepared statements as the pooler knows them: a text and its parameter types, once on a
 * core however many clients prepared it.
 *
 * A statement is named by a keyed hash of what it is: its text, its parameter types, and the tracked
 * parameters under which it was prepared (all but application_name: client_encoding,
 * standard_conforming_strings, DateStyle ... change what PostgreSQL makes of a text). The key is
 * random for each process, the same on all its cores: so a server that is lent to another core takes
 * along nothing but hashes, and no counter is shared. On servers the statement is called
 * `pgsplice_` and 26 characters.
 *
 * Two texts have the same name with a probability of 2^-128 for each pair; a statement that is found
 * is compared byte by byte nevertheless.
 *
 * References: clients' names, servers' sets, what is expected from a server. Freed with the last.
 * One thread: the core's. */
#ifndef POOL_STATEMENT_H
#define POOL_STATEMENT_H

#include "conn/conn.h"
#include "crypto/siphash.h"
#include "pool/hash_table.h"

struct core;

enum {
    STATEMENT_NAME_BYTES = 35, /* without a closing zero */
    STATEMENT_SPARES_MAX = 8,  /* dropped by one text of several statements, rewrite_sql.h */
    STATEMENTS_MAX = 4 * 1024 * 1024,
    STATEMENT_BUCKETS = 65536,
    STATEMENT_SIGHTINGS = 4096,
    STATEMENT_LIVE = 1,
};

#define STATEMENT_NAME_PREFIX "pgsplice_"

enum cacheable { CACHEABLE_UNKNOWN, CACHEABLE_NO, CACHEABLE_YES }; /* wire/sql_text.h */

struct statement {
    struct statement *bucket_next;
    struct digest digest;
    struct span_queue
        body; /* text, zero, number of types, types: as Parse has them; of SQL's: what stands
                                 behind PREPARE name */
    uint32_t text_bytes; /* without the zero */
    uint32_t reference_count;
    uint32_t client_count; /* names of clients */
    uint32_t server_count; /* servers of this core that have it, as far as we believe */
    uint64_t params_hash;  /* prepared under these, see params.h */
    uint64_t bind_count;
    uint8_t live;      /* STATEMENT_LIVE: not given back */
    bool is_sql;       /* prepared by PREPARE, rewrite_sql.h */
    uint8_t cacheable; /* enum cacheable, looked at when first seen without a name */
    uint8_t class; /* enum statement_class, looked at when it is first run where it might share */
    uint64_t class_hash; /* STATEMENT_SHARES: see statement_class.h */
    char name[STATEMENT_NAME_BYTES + 1];
};

/* Of a core. */
struct statement_store {
    struct slab statements;
    struct slab client_statements, server_statements;
    struct slab short_names, long_names, prepared, expectations;
    struct statement **buckets; /* STATEMENT_BUCKETS */
    struct siphash_key key;
    /* A name that no statement ever has; what is sent to be answered and nothing else uses it. */
    char no_name[STATEMENT_NAME_BYTES + 1];
    /* For a Parse that must not succeed; it may be there for a moment. */
    char spare_name[STATEMENT_NAME_BYTES + 1];
    uint64_t *sightings; /* STATEMENT_SIGHTINGS: texts that were unnamed statements lately */
    uint64_t text_bytes; /* of all statements */
};

/* `secret`: 32 bytes of this process. False: no memory. */
must_check bool statement_store_init(struct statement_store *store, uint32_t conn_count_max,
                                     const uint8_t *secret);
void statement_store_release(struct statement_store *store);

/* The statement of this body, made if need be; one reference for the caller. The body is a chain of
 * `bytes` bytes, well formed (parse_body_read), `text_bytes` of them the text. NULL: no memory. */
struct statement *statement_intern(struct core *core, const struct span *body, uint32_t bytes,
                                   uint32_t text_bytes, uint64_t params_hash) must_check;

static inline struct statement *statement_reference(struct statement *statement)
{
    statement->reference_count++;
    return statement;
}

/* NULL is allowed. */
void statement_release(struct core *core, struct statement *statement);

/* True: a row was filled in; false: the object is none. */
struct statement_row;
bool statement_fill_row(const struct statement *statement, struct statement_row *row);

/* "pgsplice_..." and a zero. */
void statement_name(const struct digest *digest, char name[STATEMENT_NAME_BYTES + 1]);
/* Like spare_name, for several at a time: `index` below STATEMENT_SPARES_MAX. */
void statement_spare_name(const struct statement_store *store, unsigned index,
                          char name[STATEMENT_NAME_BYTES + 1]);

/* Was the same unnamed statement seen lately on this core? It is from now on. */
bool statement_seen_before(struct statement_store *store, const struct statement *statement);

/* The shape of a result: a keyed hash of names, types and type modifiers of the columns of a RowDescription,
 * which is what PostgreSQL compares before it says that a cached plan must not change its result type
 * (plancache.c, equalTupleDescs). Never 0. `body` NULL: NoData. A broken body has some shape. */
uint64_t shape_of(const struct statement_store *store, const uint8_t *body, size_t bytes);

/* Is a Parse's body (what follows the statement's name) well formed: a text and its closing zero, a number, so
 * many types? */
must_check bool parse_body_read(const struct span *body, uint32_t bytes, uint32_t *text_bytes);

#endif
