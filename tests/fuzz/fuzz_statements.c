/* fuzz_statements.c - the tracking of prepared statements (pool/rewrite.h and what is behind it): two clients and up
 * to two servers on one core, on a ring of the target's own that moves nothing by itself.
 *
 * The input is a program. Two bytes of settings, then orders of one letter with their arguments; other bytes are
 * skipped, a letter or digit as an argument is a small number. So the corpus can be read and written by hand:
 *
 *   1 2          the client that the orders below are for
 *   Pnt pnt      Parse of name n, text t; p: with a parameter type
 *   Bns Nns      Bind of statement n with a parameter of size s to the unnamed portal; N: to a named one
 *   Dn d Cn c    Describe and Close of statement n, of the named portal
 *   E e          Execute of the unnamed portal, the named one
 *   S H Qt X     Sync, Flush, Query of text t, Terminate
 *   y z w        CopyData, CopyDone, CopyFail
 *   Mtn.. Rn..   a message of any type with n bytes of body from the input; n bytes as they are
 *   . ,n         the pooler receives all that the client has sent, or n bytes
 *   #            the client leaves, and comes again
 *   *sn >sn      server s reads n messages; the pooler receives n bytes of its answers
 *   = +          the pooler's turn ends; everything runs until nothing moves
 *   ~ !s ^s      the schema changes; server s forgets what it has prepared; server s ends
 *   $stn.. %sn.. server s says a message of any type, or n bytes as they are
 *
 * A server answers like PostgreSQL, in a few lines. The same few lines answer each client directly, as if it had a
 * server of its own (its reference): what it gets through the pooler must be the same, byte by byte but for errors,
 * of which SQLSTATE and text count. Where that is not promised the comparison ends (backend_deviates), and with what
 * a server says out of order (foreign bytes) it ends for all. Always: no name of the pooler's own reaches a client of
 * an honest server, no server has more prepared than max_prepared_statements, and when all is closed every slab is
 * empty.
 *
 * FUZZ_TRACE=1 shows who says what. */
#include "conn/conn.h"
#include "pool/client.h"
#include "pool/core.h"
#include "pool/heal.h"
#include "pool/server.h"
#include "pool/server_statements.h"
#include "wire/message.h"
#include "wire/sql_text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum {
    LINES = 24,
    PERSONS = 2,
    KNOWN_MAX = 512,
    PORTALS_MAX = 4,
    NAME_BYTES = STATEMENT_CLIENT_NAME_MAX + 1,
    RECEIVE_BYTES = 16 * 1024,
    RECEIVE_COUNT = 256,
    LONG_TEXT_BYTES = 70 * 1000,
    ROUNDS_MAX = 20000,
    ROW_BYTES = 18, /* of DataRow's body: a hash of what was run, the version of the schema */
};

static bool is_traced;

#define trace(...) (is_traced ? (void)fprintf(stderr, __VA_ARGS__) : (void)0)

_Noreturn static void never(const char *why)
{
    fprintf(stderr, "fuzz_statements: %s\n", why);
    abort();
}

/* ---- bytes on their way ---- */

struct stream {
    uint8_t *data;
    size_t from, to, room;
};

static void stream_put(struct stream *stream, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    if (stream->to + bytes > stream->room) {
        if (stream->data != NULL)
            memmove(stream->data, stream->data + stream->from, stream->to - stream->from);
        stream->to -= stream->from;
        stream->from = 0;
        if (stream->to + bytes > stream->room) {
            stream->room = 2 * (stream->to + bytes) + 4096;
            stream->data = realloc(stream->data, stream->room);
            assert(stream->data != NULL);
        }
    }
    memcpy(stream->data + stream->to, data, bytes);
    stream->to += bytes;
}

static size_t stream_bytes(const struct stream *stream)
{
    return stream->to - stream->from;
}

static const uint8_t *stream_at(const struct stream *stream)
{
    return stream->data + stream->from;
}

/* Bytes of the first whole message; 0: it is not there yet. */
static size_t stream_message(const struct stream *stream, bool has_type)
{
    size_t bytes;

    if (stream_bytes(stream) < 4 + (size_t)has_type)
        return 0;
    bytes = (size_t)bytes_get_u32(stream_at(stream) + has_type) + has_type;
    return bytes <= stream_bytes(stream) ? MAX(bytes, 4 + (size_t)has_type) : 0;
}

static void put_message(struct stream *stream, uint8_t type, const void *body, size_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES] = {type};

    bytes_put_u32(header + 1, (uint32_t)(4 + bytes));
    stream_put(stream, header, sizeof(header));
    stream_put(stream, body, bytes);
}

static uint64_t hash_of(const void *data, size_t bytes)
{
    const uint8_t *at = data;
    uint64_t hash = UINT64_C(14695981039346656037);

    for (uint64_t word; bytes >= sizeof(word); at += sizeof(word), bytes -= sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        hash = (hash ^ word) * UINT64_C(1099511628211);
        hash ^= hash >> 29;
    }
    while (bytes-- > 0)
        hash = (hash ^ *at++) * UINT64_C(1099511628211);
    return hash;
}

/* ---- PostgreSQL, in a few lines ---- */

enum plan_kind {
    PLAN_ROWS,
    PLAN_NO_ROWS,
    PLAN_EMPTY,
    PLAN_DIVIDES, /* fails when it is run */
    PLAN_BROKEN,  /* cannot be parsed */
    PLAN_BEGIN,
    PLAN_COMMIT,
    PLAN_COPY,
    PLAN_SET,
    PLAN_PREPARE,
    PLAN_EXECUTE,
    PLAN_DEALLOCATE,
    PLAN_DEALLOCATE_ALL,
    PLAN_DISCARD_ALL,
};

struct plan {
    uint8_t kind, inner; /* PREPARE: of what stands behind the name */
    uint16_t type_count;
    uint64_t hash, rest_hash;
    char name[NAME_BYTES];
    char value[16]; /* SET */
};

struct known {
    char name[NAME_BYTES];
    struct plan plan;
    unsigned version; /* of the schema */
    bool is_new;      /* parsed in this batch */
    bool is_sql;      /* of SQL PREPARE */
};

struct portal {
    char name[NAME_BYTES];
    struct plan plan;
    unsigned version;
    uint64_t values_hash;
};

struct backend {
    struct stream *in, *out;
    bool is_reference, is_logged_in, is_over;
    bool skips, in_copy, copy_is_extended, in_batch, in_several;
    char status;
    char date_style[16];
    unsigned known_count, portal_count;
    unsigned
        skipped_close_count; /* evictions among them: what they should have dropped is still there */
    bool has_unnamed;
    struct known unnamed;
    /* Of a reference. */
    bool deviates;       /* from here on the pooler's answers may be others */
    bool may_lose_track; /* COPY, or a Query in an open batch */
    bool drops_in_batch; /* an unnamed Parse of DEALLOCATE ALL */
    bool has_ended_copy; /* in an open batch, where there was none */
    bool may_wait;       /* a COPY IN throws away the Sync that what is held behind it waits for */
    bool has_sql;        /* PREPARE and its kin */
    bool has_parsed_sql; /* by the extended protocol */
    bool is_countable;   /* as many ReadyForQuery must come as it has said */
    size_t said_bytes, batch_said_bytes; /* the latter: when the batch began */
    size_t unflushed_bytes; /* the last ones said: kept until there is a Flush, Sync or error */
    size_t limit;           /* of said_bytes, when it began to deviate */
    unsigned ready_count;
    /* As many as their counts say. */
    struct known known[KNOWN_MAX];
    struct portal portals[PORTALS_MAX];
};

static unsigned schema_version;
static bool is_altered,
    is_meddled; /* the schema has changed; something was dropped behind the pooler's back */
static unsigned prepared_max;
static unsigned execute_max; /* of a text with several statements */
static bool tracks_sql;
static bool
    sql_is_shared; /* a PREPARE went out as it was: other clients may meet what it has made */

static size_t text_read(const uint8_t *body, size_t bytes, char name[NAME_BYTES])
{
    const uint8_t *zero = bytes > 0 ? memchr(body, 0, bytes) : NULL;
    size_t count = zero != NULL ? (size_t)(zero - body) : 0;

    if (zero == NULL)
        return 0;
    memset(name, 0, NAME_BYTES);
    memcpy(name, body, MIN(count, (size_t)NAME_BYTES - 1));
    return count + 1;
}

static bool begins_with(const char *text, size_t bytes, const char *word)
{
    return bytes >= strlen(word) && strncasecmp(text, word, strlen(word)) == 0;
}

static uint8_t plan_kind_of(const char *text, size_t bytes)
{
    if (bytes == 0)
        return PLAN_EMPTY;
    if (begins_with(text, bytes, "divide"))
        return PLAN_DIVIDES;
    if (begins_with(text, bytes, "fail"))
        return PLAN_BROKEN;
    if (begins_with(text, bytes, "begin"))
        return PLAN_BEGIN;
    if (begins_with(text, bytes, "commit") || begins_with(text, bytes, "rollback"))
        return PLAN_COMMIT;
    if (begins_with(text, bytes, "copy"))
        return PLAN_COPY;
    if (begins_with(text, bytes, "set "))
        return PLAN_SET;
    if (begins_with(text, bytes, "insert"))
        return PLAN_NO_ROWS;
    return PLAN_ROWS;
}

static void plan_read(struct plan *plan, const char *text, size_t bytes)
{
    struct sql_prepare sql = {0};

    *plan = (struct plan){.hash = hash_of(text, bytes)};
    switch (sql_prepare_read(text, bytes, true, &sql)) {
    case SQL_PREPARE:
        plan->kind = PLAN_PREPARE;
        break;
    case SQL_EXECUTE:
        plan->kind = PLAN_EXECUTE;
        break;
    case SQL_DEALLOCATE:
        plan->kind = PLAN_DEALLOCATE;
        break;
    case SQL_DEALLOCATE_ALL:
        plan->kind = PLAN_DEALLOCATE_ALL;
        return;
    case SQL_DISCARD_ALL:
        plan->kind = PLAN_DISCARD_ALL;
        return;
    case SQL_OTHER:
        plan->kind = plan_kind_of(text, bytes);
        if (plan->kind == PLAN_SET) {
            const char *quote = memchr(text, '\'', bytes);

            plan->value[0] = quote != NULL && quote + 1 < text + bytes ? quote[1] : 'x';
        }
        return;
    }
    strcpy(plan->name, sql.name);
    plan->rest_hash = hash_of(text + sql.rest_offset, sql.rest_bytes);
    plan->inner =
        begins_with(text + sql.rest_offset, sql.rest_bytes, "as insert") ? PLAN_NO_ROWS : PLAN_ROWS;
}

/* The client's own fault, or something that is documented to be otherwise through the pooler. */
static void backend_deviates(struct backend *backend, const char *why)
{
    if (!backend->is_reference || backend->deviates)
        return;
    trace("  reference: deviates from here: %s\n", why);
    backend->deviates = true;
    backend->limit = backend->in_batch ? backend->batch_said_bytes : backend->said_bytes;
}

static void backend_say(struct backend *backend, uint8_t type, const void *body, size_t bytes)
{
    put_message(backend->out, type, body, bytes);
    backend->said_bytes += FRAME_HEADER_BYTES + bytes;
    backend->unflushed_bytes += FRAME_HEADER_BYTES + bytes;
    if (type == 'E' || type == 'G' || type == 'Z')
        backend->unflushed_bytes = 0;
}

static void backend_ready(struct backend *backend)
{
    if (backend->status == 'I')
        backend->portal_count = 0;
    backend->ready_count++;
    backend_say(backend, 'Z', &backend->status, 1);
}

static void backend_fails(struct backend *backend, const char *sqlstate, const char *routine,
                          const char *text, const char *name)
{
    char message[256], body[512];
    int bytes;

    snprintf(message, sizeof(message), text, name);
    bytes = snprintf(body, sizeof(body), "SERROR%cVERROR%cC%s%cM%s%cR%s%c%c", 0, 0, sqlstate, 0,
                     message, 0, routine, 0, 0);
    backend_say(backend, 'E', body, (size_t)bytes);
    if (backend->status == 'T')
        backend->status = 'E';
    backend->skips = true; /* a simple Query ends it */
}

static bool backend_is_aborted(struct backend *backend, const struct plan *plan)
{
    if (backend->status != 'E' || (plan != NULL && plan->kind == PLAN_COMMIT))
        return false;
    backend_fails(backend, "25P02", "exec",
                  "current transaction is aborted, commands ignored until end of transaction block",
                  NULL);
    return true;
}

static struct known *known_find(struct backend *backend, const char *name)
{
    if (name[0] == '\0')
        return backend->has_unnamed ? &backend->unnamed : NULL;
    for (unsigned i = 0; i < backend->known_count; i++)
        if (strcmp(backend->known[i].name, name) == 0)
            return &backend->known[i];
    return NULL;
}

static void known_missing(struct backend *backend, const char *name)
{
    if (name[0] == '\0')
        backend_fails(backend, "26000", "FetchPreparedStatement",
                      "unnamed prepared statement does not exist", NULL);
    else
        backend_fails(backend, "26000", "FetchPreparedStatement",
                      "prepared statement \"%s\" does not exist", name);
}

static void known_add(struct backend *backend, const char *name, const struct plan *plan)
{
    struct known known = {.plan = *plan, .version = schema_version, .is_new = true};
    unsigned ours = 0;

    strcpy(known.name, name);
    if (name[0] == '\0') {
        backend->has_unnamed = true;
        backend->unnamed = known;
        return;
    }
    if (backend->known_count == KNOWN_MAX)
        never("more statements on a server than a program can have made");
    backend->known[backend->known_count++] = known;
    for (unsigned i = 0; i < backend->known_count; i++)
        ours += begins_with(backend->known[i].name, NAME_BYTES, STATEMENT_NAME_PREFIX);
    if (ours <= prepared_max)
        backend->skipped_close_count = 0;
    /* One more: what is pipelined behind a batch whose error skips an eviction. */
    else if (ours > prepared_max + backend->skipped_close_count + 1)
        never("a server has more than max_prepared_statements of ours");
}

static void known_remove(struct backend *backend, const char *name)
{
    struct known *known = known_find(backend, name);

    if (name[0] == '\0')
        backend->has_unnamed = false;
    else if (known != NULL)
        *known = backend->known[--backend->known_count];
}

static bool known_is_stale(struct backend *backend, const struct known *known)
{
    if (backend->is_reference || known->version == schema_version || known->plan.kind != PLAN_ROWS)
        return false;
    backend_fails(backend, "0A000", "RevalidateCachedQuery",
                  "cached plan must not change result type", NULL);
    return true;
}

static void backend_tag(struct backend *backend, const char *tag)
{
    backend_say(backend, 'C', tag, strlen(tag) + 1);
}

/* One column, whose type modifier is the version of the schema. */
static void backend_describe_rows(struct backend *backend, unsigned version)
{
    uint8_t description[] = {0, 1, 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 8, 0, 0, 0, 0, 0, 1};

    bytes_put_u32(description + sizeof(description) - 6, version);
    backend_say(backend, 'T', description, sizeof(description));
}

static void backend_rows(struct backend *backend, uint64_t value, unsigned version, bool is_simple)
{
    uint8_t row[ROW_BYTES] = {0, 1, 0, 0, 0, ROW_BYTES - 6};

    if (is_simple)
        backend_describe_rows(backend, version);
    memcpy(row + 6, &value, sizeof(value));
    bytes_put_u32(row + 14, version);
    backend_say(backend, 'D', row, sizeof(row));
    backend_tag(backend, "SELECT 1");
}

static void backend_set(struct backend *backend, const char *value)
{
    char body[64];
    int bytes = snprintf(body, sizeof(body), "DateStyle%c%s%c", 0, value, 0);

    if (strcmp(backend->date_style, value) == 0)
        return;
    strcpy(backend->date_style, value);
    if (!backend->is_reference)
        backend_say(backend, 'S', body, (size_t)bytes);
}

/* Statements that are no transaction control and no COPY. */
static void backend_run_sql(struct backend *backend, const struct plan *plan, bool is_simple)
{
    struct known *known = known_find(backend, plan->name);
    struct plan inner;

    switch (plan->kind) {
    case PLAN_PREPARE:
        if (known != NULL) {
            backend_fails(backend, "42P05", "StorePreparedStatement",
                          "prepared statement \"%s\" already exists", plan->name);
            break;
        }
        inner = (struct plan){.kind = plan->inner, .hash = plan->rest_hash};
        known_add(backend, plan->name, &inner);
        known_find(backend, plan->name)->is_sql = true;
        backend_tag(backend, "PREPARE");
        break;
    case PLAN_EXECUTE:
        if (known == NULL) {
            known_missing(backend, plan->name);
        } else if (known->plan.kind > PLAN_DIVIDES) {
            backend_fails(backend, "42601", "ExecuteQuery", "cannot be executed by SQL", NULL);
        } else if (!known_is_stale(backend, known)) {
            uint64_t value = known->plan.hash ^ plan->rest_hash;

            if (known->plan.kind == PLAN_ROWS)
                backend_rows(backend, value, known->version, is_simple);
            else if (known->plan.kind == PLAN_DIVIDES)
                backend_fails(backend, "22012", "int4div", "division by zero", NULL);
            else
                backend_tag(backend, "INSERT 0 1");
        }
        break;
    case PLAN_DEALLOCATE:
        if (known == NULL) {
            known_missing(backend, plan->name);
        } else {
            known_remove(backend, plan->name);
            backend_tag(backend, "DEALLOCATE");
        }
        break;
    case PLAN_DEALLOCATE_ALL:
        backend->known_count = 0;
        backend_tag(backend, "DEALLOCATE ALL");
        break;
    default:
        if (backend->status != 'I' || backend->in_several) {
            backend_fails(backend, "25001", "PreventInTransactionBlock",
                          "DISCARD ALL cannot run inside a transaction block", NULL);
            break;
        }
        backend->known_count = 0;
        backend_set(backend, "ISO");
        backend_tag(backend, "DISCARD ALL");
        break;
    }
}

static void backend_run(struct backend *backend, const struct plan *plan, uint64_t values_hash,
                        unsigned version, bool is_simple)
{
    /* Refused here, it may run there, and what comes next is another thing then. */
    if (plan->kind == PLAN_COPY && backend->deviates) {
        backend->is_countable = false;
        backend->may_lose_track = true;
    }
    if (backend_is_aborted(backend, plan))
        return;
    switch (plan->kind) {
    case PLAN_ROWS:
        backend_rows(backend, plan->hash ^ values_hash, version, is_simple);
        break;
    case PLAN_NO_ROWS:
        backend_tag(backend, "INSERT 0 1");
        break;
    case PLAN_EMPTY:
        backend_say(backend, 'I', NULL, 0);
        break;
    case PLAN_DIVIDES:
        backend_fails(backend, "22012", "int4div", "division by zero", NULL);
        break;
    case PLAN_BROKEN:
        backend_fails(backend, "42601", "scanner_yyerror", "syntax error", NULL);
        break;
    case PLAN_BEGIN:
        backend->status = 'T';
        backend_tag(backend, "BEGIN");
        break;
    case PLAN_COMMIT:
        backend_tag(backend, backend->status == 'E' ? "ROLLBACK" : "COMMIT");
        backend->status = 'I';
        backend->portal_count = 0;
        break;
    case PLAN_COPY:
        backend->may_lose_track = true;
        backend->is_countable = false;
        backend->in_copy = true;
        backend->copy_is_extended = !is_simple;
        backend->may_wait |= !is_simple;
        if (backend->has_ended_copy)
            backend_deviates(backend, "which CopyDone is that of the COPY");
        backend_say(backend, 'G', "\0\0", 3);
        break;
    case PLAN_SET:
        backend_set(backend, plan->value);
        backend_tag(backend, "SET");
        break;
    default:
        backend_run_sql(backend, plan, is_simple);
        break;
    }
}

static void backend_query_over(struct backend *backend)
{
    backend->skips = false;
    backend_ready(backend);
}

static void sql_becomes_shared(void);

/* PREPARE and its kin; `passes`: the pooler does not look at them there. */
static void backend_reads_sql(struct backend *backend, const struct plan *plan, bool passes)
{
    if (plan->kind < PLAN_PREPARE || !backend->is_reference)
        return;
    backend->has_sql = true;
    if (passes)
        backend_deviates(backend, "it passes as it is");
    if (sql_is_shared)
        backend_deviates(backend, "what one client prepares another one may find");
    if (passes && plan->kind == PLAN_PREPARE)
        sql_becomes_shared();
}

static unsigned statement_count(const char *text, size_t bytes, unsigned *execute_count)
{
    struct sql_splitter splitter;
    size_t offset, statement_bytes;
    struct plan plan;
    unsigned count = 0;

    *execute_count = 0;
    if (!sql_split_begin(&splitter, text, bytes, true, false))
        return 1;
    while (sql_split_next(&splitter, &offset, &statement_bytes) == SQL_SPLIT_STATEMENT) {
        plan_read(&plan, text + offset, statement_bytes);
        *execute_count += plan.kind == PLAN_EXECUTE;
        count++;
    }
    return count;
}

/* Statements of one Query, with `;` between them: one transaction. */
static void backend_several(struct backend *backend, const char *text, size_t bytes, bool passes)
{
    struct sql_splitter splitter;
    size_t offset, statement_bytes;
    struct plan plan;

    backend->in_several = true;
    if (!sql_split_begin(&splitter, text, bytes, true, false))
        never("a text of ours is in doubt");
    if (passes)
        backend_deviates(backend, "it passes as it is");
    while (!backend->skips && !backend->in_copy &&
           sql_split_next(&splitter, &offset, &statement_bytes) == SQL_SPLIT_STATEMENT) {
        plan_read(&plan, text + offset, statement_bytes);
        backend_reads_sql(backend, &plan, plan.kind == PLAN_PREPARE);
        backend_run(backend, &plan, 0, schema_version, true);
    }
    backend->in_several = false;
}

static void backend_query(struct backend *backend, const uint8_t *body, size_t bytes)
{
    const char *text = (const char *)body;
    size_t text_bytes = bytes > 0 ? bytes - 1 : 0;
    unsigned execute_count;
    struct plan plan;

    if (backend->in_batch) {
        backend->may_lose_track = true;
        backend->is_countable = false;
        if (backend->may_wait)
            backend_deviates(backend, "a Query in the batch of a COPY");
    }
    backend->has_unnamed = false;
    if (statement_count(text, text_bytes, &execute_count) > 1) {
        backend_several(backend, text, text_bytes,
                        backend->in_batch || execute_count > execute_max);
    } else {
        plan_read(&plan, text, text_bytes);
        backend_reads_sql(backend, &plan, backend->in_batch || !tracks_sql);
        backend_run(backend, &plan, 0, schema_version, true);
    }
    if (!backend->in_copy)
        backend_query_over(backend);
}

static void backend_parse(struct backend *backend, bool was_in_batch, const uint8_t *body,
                          size_t bytes)
{
    char name[NAME_BYTES];
    size_t name_bytes = text_read(body, bytes, name);
    const uint8_t *text = body + name_bytes;
    const uint8_t *zero = bytes > name_bytes ? memchr(text, 0, bytes - name_bytes) : NULL;
    struct plan plan;

    if (zero == NULL || name_bytes == 0) {
        backend_fails(backend, "08P01", "pq_getmsgstring", "invalid message", NULL);
        return;
    }
    plan_read(&plan, (const char *)text, (size_t)(zero - text));
    plan.hash = hash_of(text, bytes - name_bytes);
    plan.type_count = body + bytes - zero >= 3 ? bytes_get_u16(zero + 1) : 0;
    if (plan.kind >= PLAN_PREPARE && plan.kind <= PLAN_DEALLOCATE) {
        backend_deviates(backend, "the name in it is looked up when it is parsed");
        backend->has_parsed_sql = true;
    }
    backend->drops_in_batch |= plan.kind >= PLAN_DEALLOCATE_ALL;
    if (backend->is_reference && plan.kind == PLAN_PREPARE)
        prepared_max++; /* it may be run when nobody expects it any more */
    backend_reads_sql(backend, &plan, name[0] != '\0' || was_in_batch || !tracks_sql);
    if (name[0] == '\0')
        backend->has_unnamed = false;
    if (plan.kind == PLAN_BROKEN) {
        backend_fails(backend, "42601", "scanner_yyerror", "syntax error", NULL);
    } else if (plan.kind != PLAN_EMPTY && backend_is_aborted(backend, &plan)) {
        return;
    } else if (name[0] != '\0' && known_find(backend, name) != NULL) {
        backend_fails(backend, "42P05", "StorePreparedStatement",
                      "prepared statement \"%s\" already exists", name);
    } else {
        known_add(backend, name, &plan);
        backend_say(backend, '1', NULL, 0);
    }
}

static struct portal *portal_find(struct backend *backend, const char *name)
{
    for (unsigned i = 0; i < backend->portal_count; i++)
        if (strcmp(backend->portals[i].name, name) == 0)
            return &backend->portals[i];
    return NULL;
}

static void backend_bind(struct backend *backend, bool was_in_batch, const uint8_t *body,
                         size_t bytes)
{
    char portal_name[NAME_BYTES], name[NAME_BYTES];
    size_t portal_bytes = text_read(body, bytes, portal_name);
    size_t name_bytes = text_read(body + portal_bytes, bytes - portal_bytes, name);
    struct known *known;
    struct portal *portal;

    if (portal_bytes == 0 || name_bytes == 0) {
        backend_fails(backend, "08P01", "pq_getmsgstring", "invalid message", NULL);
        return;
    }
    known = known_find(backend, name);
    if (known == NULL) {
        known_missing(backend, name);
        return;
    }
    if (known->is_sql && (was_in_batch || backend->status == 'E'))
        backend_deviates(backend, "SQL cannot be prepared in the middle of a batch");
    if (known->plan.kind >= PLAN_DEALLOCATE_ALL && !known->is_new)
        backend_deviates(backend, "dropping the names once more");
    if (backend_is_aborted(backend, &known->plan))
        return;
    portal = portal_find(backend, portal_name);
    if (portal != NULL && portal_name[0] != '\0') {
        backend_fails(backend, "42P03", "CreatePortal", "cursor \"%s\" already exists",
                      portal_name);
        return;
    }
    if (known_is_stale(backend, known))
        return;
    if (portal == NULL) {
        if (backend->portal_count == PORTALS_MAX)
            never("more portals than a program can have made");
        portal = &backend->portals[backend->portal_count++];
    }
    *portal = (struct portal){
        .plan = known->plan,
        .version = known->version,
        .values_hash = hash_of(body + portal_bytes + name_bytes, bytes - portal_bytes - name_bytes),
    };
    strcpy(portal->name, portal_name);
    backend_say(backend, '2', NULL, 0);
}

static void backend_describe(struct backend *backend, bool was_in_batch, const uint8_t *body,
                             size_t bytes)
{
    char name[NAME_BYTES];
    const struct plan *plan = NULL;
    unsigned version;

    if (bytes < 2 || text_read(body + 1, bytes - 1, name) == 0) {
        backend_fails(backend, "08P01", "pq_getmsgstring", "invalid message", NULL);
        return;
    }
    if (body[0] == 'S') {
        uint8_t types[2 + 4 * 4] = {0};
        struct known *known = known_find(backend, name);

        if (known == NULL) {
            known_missing(backend, name);
            return;
        }
        if (known->is_sql && (was_in_batch || backend->status == 'E'))
            backend_deviates(backend, "SQL cannot be prepared in the middle of a batch");
        plan = &known->plan;
        version = known->version;
        if (plan->kind == PLAN_ROWS && backend_is_aborted(backend, NULL))
            return;
        types[1] = (uint8_t)MIN(plan->type_count, 4);
        backend_say(backend, 't', types, 2 + (size_t)types[1] * 4);
    } else {
        struct portal *portal = portal_find(backend, name);

        if (portal == NULL) {
            backend_fails(backend, "34000", "exec", "portal \"%s\" does not exist", name);
            return;
        }
        plan = &portal->plan;
        version = portal->version;
        if (plan->kind == PLAN_ROWS && backend_is_aborted(backend, NULL))
            return;
    }
    if (plan->kind == PLAN_ROWS)
        backend_describe_rows(backend, version);
    else
        backend_say(backend, 'n', NULL, 0);
}

static void backend_close(struct backend *backend, const uint8_t *body, size_t bytes)
{
    char name[NAME_BYTES];

    if (bytes < 2 || text_read(body + 1, bytes - 1, name) == 0) {
        backend_fails(backend, "08P01", "pq_getmsgstring", "invalid message", NULL);
        return;
    }
    if (body[0] == 'S') {
        known_remove(backend, name);
    } else {
        struct portal *portal = portal_find(backend, name);

        if (portal != NULL)
            *portal = backend->portals[--backend->portal_count];
    }
    backend_say(backend, '3', NULL, 0);
}

static void backend_execute(struct backend *backend, const uint8_t *body, size_t bytes)
{
    char name[NAME_BYTES];
    struct portal *portal;
    struct portal running;

    if (text_read(body, bytes, name) == 0) {
        backend_fails(backend, "08P01", "pq_getmsgstring", "invalid message", NULL);
        return;
    }
    portal = portal_find(backend, name);
    if (portal == NULL) {
        backend_fails(backend, "34000", "exec", "portal \"%s\" does not exist", name);
        return;
    }
    running = *portal;
    backend_run(backend, &running.plan, running.values_hash, running.version, false);
}

/* While it reads COPY data. */
static void backend_copy(struct backend *backend, uint8_t type)
{
    char text[8];

    if (type == 'd' || type == 'H' || type == 'S')
        return;
    backend->in_copy = false;
    if (type == 'c') {
        backend_tag(backend, "COPY 1");
    } else if (type == 'f') {
        backend_fails(backend, "57014", "CopyGetData", "COPY from stdin failed", NULL);
    } else {
        backend_deviates(backend, "which message ends the COPY");
        backend->is_countable = false;
        snprintf(text, sizeof(text), "0x%02X", type);
        backend_fails(backend, "08P01", "CopyGetData",
                      "unexpected message type %s during COPY from stdin", text);
    }
    if (!backend->copy_is_extended)
        backend_query_over(backend);
}

static void backend_sync(struct backend *backend)
{
    backend->skips = false;
    backend->in_batch = backend->drops_in_batch = false;
    backend->unnamed.is_new = false;
    for (unsigned i = 0; i < backend->known_count; i++)
        backend->known[i].is_new = false;
    backend_ready(backend);
}

static void trace_message(const struct backend *backend, uint8_t type, const uint8_t *body,
                          size_t bytes)
{
    char text[80] = "";

    if (!is_traced)
        return;
    for (size_t i = 0; i < MIN(bytes, sizeof(text) - 1); i++)
        text[i] = body[i] >= ' ' && body[i] < 127 ? (char)body[i] : '|';
    trace("  %s %04x reads %c %s\n", backend->is_reference ? "reference" : "server",
          (unsigned)((uintptr_t)backend >> 4 & 0xffff), type, text);
}

static void backend_message(struct backend *backend, uint8_t type, const uint8_t *body,
                            size_t bytes)
{
    bool was_in_batch = backend->in_batch;
    bool is_extended = type == 'P' || type == 'B' || type == 'D' || type == 'C' || type == 'E';

    trace_message(backend, type, body, bytes);
    if (type == 'X') {
        backend->is_over = true;
        return;
    }
    if (backend->in_copy) {
        backend_copy(backend, type);
        return;
    }
    if (is_extended && !was_in_batch) {
        backend->in_batch = true;
        backend->batch_said_bytes = backend->said_bytes;
    }
    if (backend->drops_in_batch && type != 'E' && is_extended && bytes > 0 &&
        memcmp(body, "\0\0", MIN(bytes, 2)) != 0) {
        /* Whether it still stands for something is not looked at, but it may not wait for its own Sync. */
        backend_deviates(backend, "a name in the batch that drops all names");
    }
    if ((type == 'c' || type == 'f') && backend->in_batch) {
        backend->may_lose_track = true;
        backend->has_ended_copy = true;
    }
    if (backend->skips && type != 'S') {
        backend->skipped_close_count += type == 'C';
        if (type == 'P' && bytes > 0 && body[0] == '\0')
            backend_deviates(backend, "a Parse of the unnamed statement that is skipped");
        if (type == 'Q' || type == 'F') {
            backend->may_lose_track = true;
            /* The other side may have come so far without an error. */
            backend->is_countable &= !backend->deviates;
        }
        return;
    }
    switch (type) {
    case 'P':
        backend_parse(backend, was_in_batch, body, bytes);
        break;
    case 'B':
        backend_bind(backend, was_in_batch, body, bytes);
        break;
    case 'D':
        backend_describe(backend, was_in_batch, body, bytes);
        break;
    case 'C':
        backend_close(backend, body, bytes);
        break;
    case 'E':
        backend_execute(backend, body, bytes);
        break;
    case 'S':
        backend_sync(backend);
        break;
    case 'Q':
        backend_query(backend, body, bytes);
        break;
    case 'F':
        if (!backend_is_aborted(backend, NULL))
            backend_say(backend, 'V', "\xff\xff\xff\xff", 4);
        backend_query_over(backend);
        break;
    case 'H':
        backend->unflushed_bytes = 0;
        break;
    default: /* CopyData outside of COPY */
        break;
    }
}

static void backend_login(struct backend *backend)
{
    static const char parameters[] = "\0\0\0\0"
                                     "S\0\0\0\x12"
                                     "DateStyle\0ISO\0"
                                     "S\0\0\0\x23"
                                     "standard_conforming_strings\0on\0"
                                     "K\0\0\0\x0c"
                                     "\0\0\0\1\0\0\0\2";

    backend->is_logged_in = true;
    backend_say(backend, 'R', parameters, 4);
    stream_put(backend->out, parameters + 4, sizeof(parameters) - 1 - 4);
    backend_ready(backend);
}

static void backend_init(struct backend *backend, struct stream *in, struct stream *out)
{
    memset(backend, 0, offsetof(struct backend, known));
    backend->is_countable = true;
    backend->in = in;
    backend->out = out;
    backend->status = 'I';
    strcpy(backend->date_style, "ISO");
}

/* Reads up to `count` messages. True: there was one. */
static bool backend_step(struct backend *backend, unsigned count)
{
    bool has_moved = false;
    size_t bytes;

    while (count-- > 0 && !backend->is_over &&
           (bytes = stream_message(backend->in, backend->is_logged_in)) > 0) {
        const uint8_t *message = stream_at(backend->in);

        backend->in->from += bytes;
        has_moved = true;
        if (!backend->is_logged_in)
            backend_login(backend);
        else
            backend_message(backend, message[0], message + FRAME_HEADER_BYTES,
                            bytes - FRAME_HEADER_BYTES);
    }
    return has_moved;
}

/* ---- the ring: lines between the pooler and the world ---- */

struct line {
    bool is_open; /* the pooler has it */
    bool is_server;
    bool has_ended; /* the world's side: after what is on its way, nothing more comes */
    struct op *receive_op, *send_op;
    int sent; /* result of the send */
    struct stream to_pooler, from_pooler;
    struct backend backend;
};

struct ring {
    struct line lines[LINES];
};

static struct ring ring;
static struct buffer_pool buffers;
static uint16_t receive_free[RECEIVE_COUNT];
static unsigned receive_free_count;

static void person_receives(int fd, struct stream *stream);
static void person_is_closed(int fd);

static int line_make(void)
{
    for (int fd = 0; fd < LINES; fd++) {
        struct line *line = &ring.lines[fd];

        if (line->is_open)
            continue;
        line->is_open = true;
        line->is_server = line->has_ended = false;
        line->receive_op = line->send_op = NULL;
        line->to_pooler.from = line->to_pooler.to = 0;
        line->from_pooler.from = line->from_pooler.to = 0;
        return fd;
    }
    return -EMFILE;
}

void ring_receive(struct ring *the_ring, struct op *op, int fd)
{
    assert(!op->started);
    op->started = true;
    op->cancelling = false;
    the_ring->lines[fd].receive_op = op;
}

void ring_send(struct ring *the_ring, struct op *op, int fd, const struct iovec *vector,
               size_t count)
{
    struct line *line = &the_ring->lines[fd];

    assert(!op->started);
    assert(count > 0);
    op->started = true;
    line->send_op = op;
    line->sent = 0;
    for (size_t i = 0; i < count; i++) {
        stream_put(&line->from_pooler, vector[i].iov_base, vector[i].iov_len);
        line->sent += (int)vector[i].iov_len;
    }
    if (!line->is_server)
        person_receives(fd, &line->from_pooler);
}

void ring_connect(struct ring *the_ring, struct op *op, int fd, const struct sockaddr *address,
                  socklen_t address_bytes)
{
    struct line *line = &the_ring->lines[fd];

    (void)address;
    (void)address_bytes;
    op->started = true;
    line->send_op = op;
    line->sent = 0;
    line->is_server = true;
    backend_init(&line->backend, &line->from_pooler, &line->to_pooler);
}

void ring_cancel(struct ring *the_ring, struct op *op)
{
    (void)the_ring;
    op->cancelling = op->started;
}

void ring_close(struct ring *the_ring, int fd)
{
    struct line *line = &the_ring->lines[fd];

    assert(line->is_open);
    assert(line->receive_op == NULL || !line->receive_op->started);
    assert(line->send_op == NULL || !line->send_op->started);
    line->is_open = false;
    if (!line->is_server)
        person_is_closed(fd);
}

int ring_socket(struct ring *the_ring, int family)
{
    (void)the_ring;
    (void)family;
    return line_make();
}

int ring_peer_address(struct ring *the_ring, int fd, struct sockaddr_storage *address)
{
    (void)the_ring;
    (void)fd;
    memset(address, 0, sizeof(*address));
    address->ss_family = AF_INET;
    return 0;
}

int ring_local_address(struct ring *the_ring, int fd, struct sockaddr_storage *address)
{
    return ring_peer_address(the_ring, fd, address);
}

uint32_t ring_peer_pid(struct ring *the_ring, int fd)
{
    (void)the_ring;
    (void)fd;
    return 0;
}

void ring_set_busy_poll(struct ring *the_ring, uint64_t busy_poll_us)
{
    (void)the_ring;
    (void)busy_poll_us;
}

bool ring_peer_is_same_user(struct ring *the_ring, int fd)
{
    (void)the_ring;
    (void)fd;
    return false;
}

bool ring_peer_uid(struct ring *the_ring, int fd, uint32_t *uid)
{
    (void)the_ring;
    (void)fd;
    (void)uid;
    return false;
}

void ring_set_option(struct ring *the_ring, int fd, int level, int option, int value)
{
    (void)the_ring;
    (void)fd;
    (void)level;
    (void)option;
    (void)value;
}

void ring_shutdown(struct ring *the_ring, int fd)
{
    the_ring->lines[fd].has_ended = true;
}

/* Buffers that were given back; each is memory of its own, so that the address sanitizer sees whoever still
 * looks at it. */
static void buffers_come_home(void)
{
    while (buffers.returned_count > 0) {
        uint16_t index = buffers.returned[--buffers.returned_count];

        free(buffers.receive[index].data);
        buffers.receive[index].data = NULL;
        receive_free[receive_free_count++] = index;
    }
}

/* The pooler receives up to `bytes` of what is on its way on the line. */
static bool line_deliver(struct line *line, size_t bytes)
{
    struct op *op = line->receive_op;
    struct completion completion = {.more = true};
    uint16_t index;
    size_t there;

    if (!line->is_open || op == NULL || !op->started || op->cancelling)
        return false;
    there = stream_bytes(&line->to_pooler);
    if (line->is_server && !line->has_ended)
        there -= line->backend.unflushed_bytes;
    bytes = MIN(bytes, MIN(there, (size_t)RECEIVE_BYTES));
    if (bytes == 0) {
        if (!line->has_ended)
            return false;
        op->started = false;
        completion.more = false;
        op->done(op, &completion);
        return true;
    }
    if (receive_free_count == 0)
        return false;
    index = receive_free[--receive_free_count];
    buffers.receive[index].data = malloc(bytes);
    assert(buffers.receive[index].data != NULL);
    buffers.receive[index].bytes_max = (uint32_t)bytes;
    memcpy(buffers.receive[index].data, stream_at(&line->to_pooler), bytes);
    line->to_pooler.from += bytes;
    completion.result = (int)bytes;
    completion.buffer = buffer_receive_filled(&buffers, index);
    op->done(op, &completion);
    buffers_come_home();
    return true;
}

static struct core core;

/* Sends and cancels complete, the pooler's turn ends. */
static bool turn(void)
{
    bool has_moved = false;

    for (int fd = 0; fd < LINES; fd++) {
        struct line *line = &ring.lines[fd];
        struct op *op = line->send_op;

        if (!line->is_open)
            continue;
        if (op != NULL && op->started) {
            struct completion completion = {.result = line->sent};

            op->started = false;
            op->done(op, &completion);
            has_moved = true;
        }
        op = line->receive_op;
        if (line->is_open && op != NULL && op->started && op->cancelling) {
            struct completion completion = {.result = -ECANCELED};

            op->started = false;
            op->done(op, &completion);
            has_moved = true;
        }
    }
    core_end_turn(&core);
    buffers_come_home();
    for (int fd = 0; fd < LINES; fd++)
        has_moved |= ring.lines[fd].is_open && ring.lines[fd].send_op != NULL &&
                     ring.lines[fd].send_op->started;
    return has_moved;
}

/* Everything that can move does. */
static bool world_step(void)
{
    bool has_moved = turn();

    for (int fd = 0; fd < LINES; fd++) {
        struct line *line = &ring.lines[fd];

        if (line->is_open && line->is_server)
            has_moved |= backend_step(&line->backend, UINT32_MAX);
        has_moved |= line_deliver(line, RECEIVE_BYTES);
    }
    return has_moved;
}

static void world_run(void)
{
    unsigned rounds = 0;

    while (world_step())
        if (++rounds == ROUNDS_MAX)
            never("it never comes to rest");
}

/* ---- clients ---- */

struct person {
    int fd; /* -1: the pooler has closed it */
    bool is_there, is_welcome;
    bool is_over;      /* the pooler has ended it, or it has said that it goes */
    bool is_malformed; /* it has sent what is no protocol */
    unsigned ready_count;
    size_t compared; /* bytes of the reference's answers that have come */
    struct stream answers, asks;
    struct backend reference;
};

static struct person people[PERSONS];
static bool is_foreign; /* a server has said what PostgreSQL would not */
static bool servers_end, is_statement_mode;

/* What is still on its way of other clients meets it. */
static void sql_becomes_shared(void)
{
    sql_is_shared = true;
    for (unsigned i = 0; i < PERSONS; i++) {
        struct backend *reference = &people[i].reference;

        if (people[i].is_there && reference->has_sql && !reference->deviates) {
            reference->deviates = true;
            reference->limit = people[i].compared;
        }
    }
}

static bool has_own_name(const uint8_t *body, size_t bytes)
{
    return memmem(body, bytes, "pgsplice_", 9) != NULL ||
           memmem(body, bytes, "pgsnoname", 9) != NULL;
}

static bool is_same_error(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    struct error_fields first, second;

    return a[0] == 'E' && b[0] == 'E' && error_fields_read(a + 5, a_bytes - 5, &first) &&
           error_fields_read(b + 5, b_bytes - 5, &second) &&
           strcmp(first.sqlstate, second.sqlstate) == 0 &&
           strcmp(first.message, second.message) == 0;
}

static bool is_same_answer(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    if (is_altered && a_bytes == b_bytes && a[0] == b[0] && (a[0] == 'T' || a[0] == 'D'))
        a_bytes = b_bytes -= a[0] == 'T' ? 6 : 4; /* but for the version of the schema */
    return (a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0) ||
           is_same_error(a, a_bytes, b, b_bytes);
}

/* The pooler's last words: may they come? */
static void check_last_words(const struct person *person, const char *text)
{
    if (person->is_malformed || is_foreign)
        return;
    if (strcmp(text, "lost track of prepared statements") == 0 && person->reference.may_lose_track)
        return;
    if (strcmp(text, "server conn crashed?") == 0 && servers_end)
        return;
    if (is_statement_mode && strstr(text, "statement pooling mode") != NULL)
        return;
    fprintf(stderr, "the client was closed: %s\n", text);
    never("a client was closed for no reason");
}

static void person_message(struct person *person, const uint8_t *message, size_t bytes)
{
    struct stream *answers = &person->answers;
    struct error_fields fields = {"", NULL, "", "", ""};
    size_t expected_bytes;

    trace("  client %d gets %c %zu\n", (int)(person - people), message[0], bytes);
    if (!person->is_welcome) {
        person->is_welcome = message[0] == 'Z';
        return;
    }
    if (is_foreign || message[0] == 'S' || message[0] == 'N' || message[0] == 'A')
        return;
    if (message[0] == 'E' && error_fields_read(message + 5, bytes - 5, &fields)) {
        trace("    %s %s\n", fields.sqlstate, fields.message);
        if (strcmp(fields.severity, "FATAL") == 0) {
            check_last_words(person, fields.message);
            person->is_over = true;
            return;
        }
    }
    if (!person->reference.has_parsed_sql && !person->is_malformed && has_own_name(message, bytes))
        never("a client sees a name of ours");
    person->ready_count += message[0] == 'Z';
    if (person->reference.deviates && person->compared >= person->reference.limit)
        return;
    expected_bytes = stream_message(answers, true);
    if ((is_altered && strcmp(fields.sqlstate, "0A000") == 0) ||
        ((is_altered || is_meddled) && strcmp(fields.sqlstate, "26000") == 0)) {
        if (expected_bytes == 0 ||
            !is_same_error(message, bytes, stream_at(answers), expected_bytes)) {
            person->reference.deviates = true;
            person->reference.limit = person->compared;
            person->reference.is_countable = false;
            return;
        }
    }
    if (expected_bytes == 0)
        never("an answer that PostgreSQL would not give");
    if (!is_same_answer(message, bytes, stream_at(answers), expected_bytes)) {
        fprintf(stderr, "it is %c, and %c would be right\n", message[0], stream_at(answers)[0]);
        never("an answer that is not PostgreSQL's");
    }
    answers->from += expected_bytes;
    person->compared += expected_bytes;
}

static void person_receives(int fd, struct stream *stream)
{
    size_t bytes;

    for (unsigned i = 0; i < PERSONS; i++) {
        struct person *person = &people[i];

        if (!person->is_there || person->fd != fd)
            continue;
        while ((bytes = stream_message(stream, true)) > 0) {
            const uint8_t *message = stream_at(stream);

            stream->from += bytes;
            if (!person->is_over)
                person_message(person, message, bytes);
        }
        return;
    }
}

static void person_is_closed(int fd)
{
    for (unsigned i = 0; i < PERSONS; i++)
        if (people[i].is_there && people[i].fd == fd)
            people[i].fd = -1;
}

static void person_puts(struct person *person, const void *data, size_t bytes)
{
    if (person->is_over || person->fd < 0)
        return;
    stream_put(&ring.lines[person->fd].to_pooler, data, bytes);
    stream_put(&person->asks, data, bytes);
    (void)backend_step(&person->reference, UINT32_MAX);
}

static void person_says(struct person *person, uint8_t type, const void *body, size_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES] = {type};

    bytes_put_u32(header + 1, (uint32_t)(4 + bytes));
    person_puts(person, header, sizeof(header));
    person_puts(person, body, bytes);
}

static void person_delivers(const struct person *person, size_t bytes)
{
    if (person->fd >= 0)
        (void)line_deliver(&ring.lines[person->fd], bytes);
}

static void person_comes(struct person *person)
{
    static const char startup[] = "\0\0\0\x1b\0\3\0\0user\0u\0database\0d\0";
    int fd = line_make();

    if (fd < 0)
        return;
    person->fd = fd;
    person->is_there = true;
    person->is_welcome = person->is_over = person->is_malformed = false;
    person->ready_count = 0;
    person->compared = 0;
    person->answers.from = person->answers.to = 0;
    person->asks.from = person->asks.to = 0;
    backend_init(&person->reference, &person->asks, &person->answers);
    person->reference.is_reference = true;
    person->reference.is_logged_in = true;
    client_accept(&core, fd);
    static_assert(sizeof(startup) == 0x1b, "the length stands in it");
    stream_put(&ring.lines[fd].to_pooler, startup, sizeof(startup));
    world_run();
}

static struct client *client_of(const struct person *person)
{
    for (uint32_t index = 0; person->fd >= 0 && index < core.clients.touched_count; index++) {
        struct client *client = slab_at(&core.clients, index);

        if (client->state < CLIENT_STATES && client->state != CLIENT_FREE &&
            client->conn.fd == person->fd)
            return client;
    }
    return NULL;
}

static bool person_waits(const struct person *person)
{
    const struct client *client = client_of(person);

    return client != NULL && client->state == CLIENT_WAITING;
}

static void person_leaves(struct person *person)
{
    if (!person->is_there)
        return;
    if (person->fd >= 0)
        ring.lines[person->fd].has_ended = true;
    person->is_over = true;
    world_run();
    if (person->fd >= 0) {
        const struct client *client = client_of(person);

        /* With so much parked it is not read, and its end is not seen. */
        if (client == NULL || client->parked.bytes <= CLIENT_PARKED_BYTES_MAX)
            never("a client that has left is still there");
        (void)!core_kill_client(&core, client->id);
        world_run();
    }
    assert(person->fd < 0);
    person->is_there = false;
}

/* Nothing moves any more, and nobody keeps the server from it: all must have been answered. */
static void check_answered(const struct person *person)
{
    const struct backend *reference = &person->reference;

    if (!person->is_there || person->is_over || person->is_malformed || is_foreign ||
        reference->is_over)
        return;
    if (person->fd < 0) {
        never("a client was closed without a word");
    }
    if (!reference->deviates && !reference->may_wait &&
        stream_bytes(&person->answers) > reference->unflushed_bytes) {
        fprintf(stderr, "%c does not come\n", stream_at(&person->answers)[0]);
        never("an answer is missing");
    }
    if (reference->is_countable && person->ready_count != reference->ready_count)
        never("not one ReadyForQuery for each Sync and Query");
}

/* ---- the program ---- */

struct program {
    const uint8_t *at, *end;
};

static const char *const names[] = {
    "",
    "a",
    "b",
    "c",
    "a name of more than twenty-four bytes",
    /* The same, cut off at 63. */
    "0123456789012345678901234567890123456789012345678901234567890123",
    "012345678901234567890123456789012345678901234567890123456789012xy",
};

static char long_text[LONG_TEXT_BYTES + 1] = "select 'long'";

static const struct {
    const char *text;
    size_t bytes; /* 0: all; else so much of the long one */
} texts[] = {
    {"select 1", 0},                                              /* a */
    {"select 2", 0},                                              /* b */
    {"select $1 + 1", 0},                                         /* c */
    {"insert into t", 0},                                         /* d */
    {"", 0},                                                      /* e */
    {"begin", 0},                                                 /* f */
    {"commit", 0},                                                /* g */
    {"fail", 0},                                                  /* h */
    {"divide", 0},                                                /* i */
    {"copy t from stdin", 0},                                     /* j */
    {"discard all", 0},                                           /* k */
    {"deallocate all", 0},                                        /* l */
    {"deallocate a", 0},                                          /* m */
    {"DEALLOCATE PREPARE \"b\"", 0},                              /* n */
    {"execute a", 0},                                             /* o */
    {"execute b (1)", 0},                                         /* p */
    {"prepare a as select 11", 0},                                /* q */
    {"/* c */ prepare b (int) as insert into t values ($1);", 0}, /* r */
    {"explain execute a", 0},                                     /* s */
    {"SET DateStyle='a'", 0},                                     /* t */
    {"SET DateStyle='b'", 0},                                     /* u */
    {long_text, 600},                                             /* v */
    {long_text, 5000},                                            /* w */
    {long_text, 20000},                                           /* x */
    {long_text, LONG_TEXT_BYTES},                                 /* y */
    {"select 3;execute a;deallocate a;execute b", 0},             /* z */
    {"begin;deallocate b;execute a;;deallocate b", 0},
};

static unsigned take(struct program *program)
{
    return program->at < program->end ? *program->at++ : 0;
}

/* A small number, so that programs can be read: a is 0, and so is 0. */
static unsigned take_index(struct program *program, unsigned limit)
{
    unsigned byte = take(program);

    if (byte >= 'a' && byte <= 'z')
        byte -= 'a';
    else if (byte >= '0' && byte <= '9')
        byte -= '0';
    return byte % limit;
}

static size_t take_bytes(struct program *program, const uint8_t **data)
{
    size_t bytes = take_index(program, 256);

    bytes = MIN(bytes, (size_t)(program->end - program->at));
    *data = program->at;
    program->at += bytes;
    return bytes;
}

static struct stream body;

static void body_text(const char *text)
{
    stream_put(&body, text, strlen(text) + 1);
}

static void body_sql(unsigned index)
{
    size_t bytes = texts[index].bytes > 0 ? texts[index].bytes : strlen(texts[index].text);

    stream_put(&body, texts[index].text, bytes);
    stream_put(&body, "", 1);
}

/* Sends what was put together. */
static void person_says_body(struct person *person, uint8_t type)
{
    person_says(person, type, body.data, body.to);
}

static void order_bind(struct program *program, struct person *person, const char *portal)
{
    static const uint32_t sizes[] = {0, 4, 100, 700, 5000, 40000};
    uint8_t counts[6] = {0, 0, 0, 1};
    unsigned name = take_index(program, COUNT_OF(names));
    uint32_t size = sizes[take_index(program, COUNT_OF(sizes))];
    uint8_t length[4];

    body_text(portal);
    body_text(names[name]);
    bytes_put_u32(length, size);
    stream_put(&body, counts, 4);
    stream_put(&body, length, sizeof(length));
    stream_put(&body, long_text, size);
    stream_put(&body, counts, 2);
    person_says_body(person, 'B');
}

static void order_of_client(struct program *program, struct person *person, unsigned order)
{
    const uint8_t *data;
    unsigned type;
    size_t bytes;

    body.from = body.to = 0;
    switch (order) {
    case 'P':
    case 'p':
        body_text(names[take_index(program, COUNT_OF(names))]);
        body_sql(take_index(program, COUNT_OF(texts)));
        stream_put(&body, order == 'p' ? "\0\1\0\0\0\x17" : "\0\0", order == 'p' ? 6 : 2);
        person_says_body(person, 'P');
        break;
    case 'B':
        order_bind(program, person, "");
        break;
    case 'N':
        order_bind(program, person, "portal");
        break;
    case 'D':
    case 'C':
        stream_put(&body, "S", 1);
        body_text(names[take_index(program, COUNT_OF(names))]);
        person_says_body(person, (uint8_t)order);
        break;
    case 'd':
    case 'c':
        body_text("Pportal");
        person_says_body(person, order == 'd' ? 'D' : 'C');
        break;
    case 'E':
    case 'e':
        body_text(order == 'e' ? "portal" : "");
        stream_put(&body, "\0\0\0", 4);
        person_says_body(person, 'E');
        break;
    case 'S':
    case 'H':
    case 'X':
        person_says(person, (uint8_t)order, NULL, 0);
        break;
    case 'Q':
        body_sql(take_index(program, COUNT_OF(texts)));
        person_says_body(person, 'Q');
        break;
    case 'y':
        person_says(person, 'd', "data", 4);
        break;
    case 'z':
        person_says(person, 'c', NULL, 0);
        break;
    case 'w':
        person_says(person, 'f', "no", 3);
        break;
    case 'M':
        type = take(program);
        bytes = take_bytes(program, &data);
        person->is_malformed = true;
        backend_deviates(&person->reference, "anything may be in it");
        person_says(person, (uint8_t)type, data, bytes);
        break;
    case 'R':
        bytes = take_bytes(program, &data);
        person->is_malformed = true;
        backend_deviates(&person->reference, "no protocol");
        /* Not to be read there: what it means is the pooler's to find out. */
        person->reference.is_over = true;
        person_puts(person, data, bytes);
        break;
    default:
        break;
    }
}

/* The server number `index` that has logged in, or NULL. */
static struct line *server_of(unsigned index)
{
    for (int fd = 0; fd < LINES; fd++) {
        struct line *line = &ring.lines[fd];

        if (line->is_open && line->is_server && line->backend.is_logged_in && index-- == 0)
            return line;
    }
    return NULL;
}

static bool has_order_of_server(struct program *program, unsigned order)
{
    struct line *line;
    const uint8_t *data;
    unsigned type;
    size_t bytes;

    if (strchr("*>!^$%", (int)order) == NULL || order == 0)
        return false;
    line = server_of(take_index(program, 2));
    switch (order) {
    case '*':
        type = take_index(program, 32);
        if (line != NULL)
            (void)backend_step(&line->backend, type + 1);
        break;
    case '>':
        type = take_index(program, 256);
        if (line != NULL)
            (void)line_deliver(line, type + 1);
        break;
    case '!':
        is_meddled = true;
        if (line != NULL)
            line->backend.known_count = 0;
        break;
    case '^':
        servers_end = true;
        if (line != NULL)
            line->has_ended = true;
        break;
    case '$':
        type = take(program);
        bytes = take_bytes(program, &data);
        is_foreign = true;
        if (line != NULL)
            line->backend.unflushed_bytes = 0;
        if (line != NULL)
            put_message(&line->to_pooler, (uint8_t)type, data, bytes);
        break;
    default:
        bytes = take_bytes(program, &data);
        is_foreign = true;
        if (line != NULL)
            line->backend.unflushed_bytes = 0;
        if (line != NULL)
            stream_put(&line->to_pooler, data, bytes);
        break;
    }
    return true;
}

static void run_program(struct program *program)
{
    struct person *person = &people[0];

    while (program->at < program->end) {
        unsigned order = take(program);

        trace("%c\n", (int)order);
        if (order == '1' || order == '2') {
            person = &people[order - '1'];
        } else if (order == '.') {
            person_delivers(person, RECEIVE_BYTES);
        } else if (order == ',') {
            person_delivers(person, take_index(program, 256) + 1);
        } else if (order == '=') {
            (void)turn();
        } else if (order == '+') {
            world_run();
        } else if (order == '~') {
            is_altered = true;
            schema_version++;
        } else if (order == '#') {
            person_leaves(person);
            person_comes(person);
        } else if (!has_order_of_server(program, order)) {
            order_of_client(program, person, order);
        }
    }
}

/* ---- one input ---- */

static uint64_t parked_at_rest;

static void check_rest(void)
{
    const struct statement_store *store = &core.statements;

    for (int fd = 0; fd < LINES; fd++)
        assert(!ring.lines[fd].is_open);
    assert(core.loop.conn_count == 0);
    assert(core.clients.used_count == 0);
    assert(core.servers.used_count == 0);
    assert(core.loop.spans.used_count == 0);
    assert(store->statements.used_count == 0);
    assert(store->client_statements.used_count == 0);
    assert(store->server_statements.used_count == 0);
    assert(store->short_names.used_count == 0);
    assert(store->long_names.used_count == 0);
    assert(store->prepared.used_count == 0);
    assert(store->expectations.used_count == 0);
    assert(store->text_bytes == 0);
    assert(buffers.receive_used == 0);
    if (parked_at_rest == 0)
        parked_at_rest = buffers.parked_bytes; /* what the pool learned from its first server */
    assert(buffers.parked_bytes == parked_at_rest);
}

/* The first byte: limits; the second: flags. */
static void configure(struct program *program)
{
    static const int limits[] = {200, 1, 2, 3};
    struct settings *settings = &core.snapshot->settings;
    unsigned size = take_index(program, 8);
    unsigned flags = take_index(program, 8);

    settings->max_prepared_statements = limits[size % 4];
    settings->cache_unnamed_statements = (flags & 1) == 0;
    settings->track_sql_prepare = (flags & 2) == 0;
    is_statement_mode = (flags & 4) != 0;
    list_for_each(link, &core.pool_list)
    {
        struct pool *pool = OWNER_OF(link, struct pool, link);

        pool->settings.pool_size = 2 - (int)(size / 4);
        pool->settings.pool_mode = is_statement_mode ? POOL_MODE_STATEMENT : POOL_MODE_TRANSACTION;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct program program = {data, data + bytes};

    core.id_last = 0;
    memset(core.statements.sightings, 0, STATEMENT_SIGHTINGS * sizeof(uint64_t));
    schema_version = 0;
    is_altered = is_meddled = is_foreign = servers_end = false;
    configure(&program);
    /* A batch that is repeated prepares first what it relies on. */
    prepared_max = execute_max = (unsigned)core.snapshot->settings.max_prepared_statements;
    if (memchr(data, '~', bytes) != NULL || memchr(data, '!', bytes) != NULL)
        prepared_max += HEAL_STATEMENTS_MAX;
    sql_is_shared = false;
    tracks_sql = core.snapshot->settings.track_sql_prepare;
    for (unsigned i = 0; i < PERSONS; i++)
        person_comes(&people[i]);
    run_program(&program);
    world_run();
    /* A Bind may wait for what follows it. */
    for (unsigned i = 0; i < PERSONS; i++)
        if (!people[i].is_malformed)
            person_says(&people[i], 'H', NULL, 0);
    world_run();
    /* One may wait for the server of the other. */
    for (unsigned round = 0; round < PERSONS; round++)
        for (unsigned i = 0; i < PERSONS; i++)
            if (people[i].is_there && (round == PERSONS - 1 || !person_waits(&people[i]))) {
                check_answered(&people[i]);
                person_leaves(&people[i]);
            }
    for (int fd = 0; fd < LINES; fd++)
        if (ring.lines[fd].is_server)
            ring.lines[fd].has_ended = true;
    world_run();
    check_rest();
    return 0;
}

/* ---- the core ---- */

static void post_core(struct core *from, unsigned index, struct letter *letter)
{
    (void)from;
    (void)index;
    (void)letter;
    never("there is no other core");
}

static void post_control(struct core *from, struct letter *letter)
{
    (void)from;
    (void)letter;
    never("nobody asks control");
}

static bool post_job(struct core *from, struct job *job)
{
    (void)from;
    (void)job;
    return false;
}

static void give_random(struct core *from, void *out, size_t bytes)
{
    uint64_t seed = from->id_last + 1;
    uint8_t *at = out;

    for (; bytes > 0; bytes--, seed = seed * UINT64_C(6364136223846793005) + 1)
        *at++ = (uint8_t)(seed >> 33);
    from->id_last++;
}

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    static const char text[] = "[databases]\n"
                               "d = host=127.0.0.1 port=5432 user=owner pool_size=2\n"
                               "[pgbouncer]\n"
                               "auth_type = any\n"
                               "listen_port = 6432\n"
                               "pool_mode = transaction\n"
                               "max_prepared_statements = 200\n"
                               "client_login_timeout = 0\n"
                               "log_connections = 0\n"
                               "log_disconnections = 0\n"
                               "log_pooler_errors = 0\n";

    (void)context;
    (void)path;
    *bytes = sizeof(text) - 1;
    return arena_copy_string(arena, text);
}

static void say(void *context, enum log_level level, const char *text)
{
    (void)context;
    if (level <= LEVEL_ERROR)
        fprintf(stderr, "%s\n", text);
}

static void no_log(enum log_level level, const char *text, size_t bytes)
{
    (void)level;
    if (is_traced)
        fprintf(stderr, "    log: %.*s\n", (int)bytes, text);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    static const struct core_ports ports = {
        .post_core = post_core,
        .post_control = post_control,
        .post_job = post_job,
        .random = give_random,
    };
    static const uint8_t mock_key[32] = {1};
    static struct usage_table usage;
    static struct shard_table shards;
    static struct param_names param_names;
    static char storage[256];
    struct core_options options = {
        .count = 1,
        .client_count_max = 32,
        .ring = &ring,
        .buffers = &buffers,
        .usage = &usage,
        .shards = &shards,
        .param_names = &param_names,
        .mock_key = mock_key,
        .ports = &ports,
        .now_us = UINT64_C(1000) * US_PER_S,
    };

    (void)count;
    (void)arguments;
    is_traced = getenv("FUZZ_TRACE") != NULL;
    log_set_sink(no_log);
    memset(long_text + strlen(long_text), 'x', LONG_TEXT_BYTES - strlen(long_text));
    options.snapshot = snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, say, NULL);
    if (options.snapshot == NULL || !usage_table_init(&usage) || !shard_table_init(&shards, 1) ||
        !buffer_pool_init(&buffers, RECEIVE_BYTES, RECEIVE_COUNT))
        never("no memory");
    buffers.receive_count = RECEIVE_COUNT;
    while (receive_free_count < RECEIVE_COUNT) {
        receive_free[receive_free_count] = (uint16_t)receive_free_count;
        receive_free_count++;
    }
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    if (!core_init(&core, &options))
        never("no memory");
    /* From now on all inputs find the same: a pool that has its welcome. */
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"00", 2);
    return 0;
}
