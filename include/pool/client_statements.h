/* client_statements.h - what a client has prepared: its names, and the unnamed statement.
 *
 * A name is known from the moment its Parse goes to a server. Until that server has answered, the
 * name is *unsettled*: an error may have skipped the Parse, or the Close. A later batch that uses it
 * has to wait (client_statements_unsettled); the batch itself need not, since what skips the one
 * skips the other. So taking back what was skipped, last first, is exact
 * (server_statements.h does it). A closed name stays as a name without a statement until its Close
 * is answered.
 *
 * Names are cut off at 63 bytes, as PostgreSQL does it (NAMEDATALEN; a name on the wire is no
 * identifier, so multibyte characters are not looked at).
 *
 * Bounds: CLIENT_NAMES_MAX names. One thread: the core's. Allocated with a client's first Parse. */
#ifndef POOL_CLIENT_STATEMENTS_H
#define POOL_CLIENT_STATEMENTS_H

#include "pool/statement.h"

#include <string.h>

struct client;

enum {
    STATEMENT_CLIENT_NAME_MAX = 63,
    CLIENT_NAMES_MAX = 65536,
    /* A header and the names of a Bind must fit; PostgreSQL has no such limit. */
    CLIENT_HEAD_BYTES_MAX = 4000,
};

/* What a client was told of the result of its statement: shapes, statement.h; 0: nothing. */
struct told {
    uint64_t shape;        /* by Describe of the statement */
    uint64_t portal_shape; /* by Describe of a portal, the first time */
    bool was_bound;        /* it may have seen a result */
};

struct client_name {
    struct hash_link link;
    struct statement *statement; /* NULL: closed, or never there */
    uint64_t batch;              /* of the server's exchange, when it was last parsed or closed */
    struct told told;
    uint32_t unsettled_count; /* parses and closes that are not answered */
    uint32_t described_count; /* describes that are not answered */

    uint8_t bytes; /* 0: the unnamed one */
    char text[];
};

enum {
    STATEMENT_SHORT_NAME_MAX = 24,
    STATEMENT_SHORT_NAME_OBJECT = sizeof(struct client_name) + STATEMENT_SHORT_NAME_MAX,
    STATEMENT_LONG_NAME_OBJECT = sizeof(struct client_name) + STATEMENT_CLIENT_NAME_MAX + 1,
};

struct client_statements {
    struct hash_table names;
    /* The unnamed statement is the one that the linked server knows as such. */
    bool is_unnamed_on_server;
    /* Its last Parse was skipped, or failed: the server knows what it has, and nobody else. */
    bool is_unnamed_in_doubt;
    /* A message whose beginning is not there as a whole yet; rewrite.c. */
    struct span_queue partial;
    uint64_t
        checked_serial; /* of what was prepared afresh to see whether its shape is the client's */
    uint32_t partial_bytes;     /* wanted before it is looked at */
    bool partial_is_bind;       /* and a byte of the next message */
    struct client_name unnamed; /* last: its text is empty */
};

/* Made if need be. NULL: no memory. */
struct client_statements *client_statements_of(struct client *client) must_check;
/* The client's end. */
void client_statements_release(struct client *client);

/* NULL: never heard of. `bytes` as in the message. */
struct client_name *client_name_find(struct client *client, const void *text, size_t bytes);
/* Found or made (without a statement). NULL: no memory, or too many. */
struct client_name *client_name_make(struct client *client, const void *text,
                                     size_t bytes) must_check;
/* The names of DBD::Pg (Perl): it takes the number of columns from the first result, without a Describe of the
 * statement, and crashes when it changes (3.16.0, tried). What it runs is described for it. */
static inline bool client_name_is_of_dbd_pg(const struct client_name *name)
{
    static const char prefix[] = "dbdpg_";

    return name->bytes > sizeof(prefix) - 1 && memcmp(name->text, prefix, sizeof(prefix) - 1) == 0;
}

/* The statement a name stands for from now on, of which the client was told nothing; takes over the
 * reference, NULL: none. */
void client_name_set(struct client *client, struct client_name *name, struct statement *statement);
/* A name that stands for nothing and has nothing unsettled is freed. */
void client_name_check(struct client *client, struct client_name *name);

/* Something about it was sent in an earlier batch than `batch`, and is not answered. */
static inline bool client_name_is_unsettled(const struct client_name *name, uint64_t batch)
{
    return name->unsettled_count > 0 && name->batch != batch;
}

/* DISCARD ALL, DEALLOCATE ALL was answered: all names but those whose Parse came later. The unnamed
 * statement stays (PostgreSQL: DropAllPreparedStatements). */
void client_statements_forget(struct client *client);

/* Names that stand for something, the unnamed one too. */
unsigned client_statements_count(const struct client *client);

#endif
