#include "pool/statement.h"

#include "base/bytes.h"
#include "pool/client_statements.h"
#include "pool/core.h"
#include "pool/report.h"
#include "pool/server_statements.h"

#include <stdio.h>
#include <stdlib.h>

/* Lower case, so that a name means the same quoted and unquoted. */
static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";

void statement_name(const struct digest *digest, char name[STATEMENT_NAME_BYTES + 1])
{
    unsigned __int128 bits = (unsigned __int128)digest->words[1] << 64 | digest->words[0];
    size_t prefix_bytes = sizeof(STATEMENT_NAME_PREFIX) - 1;

    memcpy(name, STATEMENT_NAME_PREFIX, prefix_bytes);
    for (size_t i = prefix_bytes; i < STATEMENT_NAME_BYTES; i++, bits >>= 5)
        name[i] = base32[(unsigned)bits & 31];
    name[STATEMENT_NAME_BYTES] = '\0';
}

void statement_spare_name(const struct statement_store *store, unsigned index,
                          char name[STATEMENT_NAME_BYTES + 1])
{
    assert(index < STATEMENT_SPARES_MAX);
    memcpy(name, store->spare_name, STATEMENT_NAME_BYTES + 1);
    name[STATEMENT_NAME_BYTES - 1] = (char)('0' + index);
}

bool statement_store_init(struct statement_store *store, uint32_t conn_count_max,
                          const uint8_t *secret)
{
    static const uint8_t purpose_key[] = "key of statement names";
    static const uint8_t purpose_none[] = "name of no statement";
    struct siphash_key secret_key;
    struct siphash siphash;
    struct digest digest;

    memset(store, 0, sizeof(*store));
    memcpy(&secret_key, secret, sizeof(secret_key));
    siphash_begin(&siphash, &secret_key);
    siphash_add(&siphash, secret + 16, 16);
    siphash_add(&siphash, purpose_key, sizeof(purpose_key));
    digest = siphash_end(&siphash);
    memcpy(&store->key, &digest, sizeof(store->key));
    digest = siphash_of(&store->key, purpose_none, sizeof(purpose_none));
    statement_name(&digest, store->no_name);
    /* Not to be taken for one of our statements where names are looked for in a message. */
    memcpy(store->no_name, "pgsnoname", sizeof(STATEMENT_NAME_PREFIX) - 1);
    memcpy(store->spare_name, store->no_name, sizeof(store->spare_name));
    memcpy(store->spare_name, "pgs_spare", sizeof(STATEMENT_NAME_PREFIX) - 1);
    store->buckets = calloc(STATEMENT_BUCKETS, sizeof(struct statement *));
    store->sightings = calloc(STATEMENT_SIGHTINGS, sizeof(uint64_t));
    return store->buckets != NULL && store->sightings != NULL &&
           slab_init(&store->statements, "statements", sizeof(struct statement), STATEMENTS_MAX) &&
           slab_init(&store->client_statements, "client statements",
                     sizeof(struct client_statements), conn_count_max) &&
           slab_init(&store->server_statements, "server statements",
                     sizeof(struct server_statements), conn_count_max) &&
           slab_init(&store->short_names, "short statement names", STATEMENT_SHORT_NAME_OBJECT,
                     STATEMENTS_MAX) &&
           slab_init(&store->long_names, "long statement names", STATEMENT_LONG_NAME_OBJECT,
                     STATEMENTS_MAX) &&
           slab_init(&store->prepared, "prepared on servers", sizeof(struct prepared),
                     STATEMENTS_MAX) &&
           slab_init(&store->expectations, "expected answers", sizeof(struct expectation),
                     STATEMENTS_MAX);
}

void statement_store_release(struct statement_store *store)
{
    slab_release(&store->statements);
    slab_release(&store->client_statements);
    slab_release(&store->server_statements);
    slab_release(&store->short_names);
    slab_release(&store->long_names);
    slab_release(&store->prepared);
    slab_release(&store->expectations);
    free(store->buckets);
    free(store->sightings);
    *store = (struct statement_store){0};
}

static bool bodies_are_same(const struct span *a, const struct span *b, uint32_t bytes)
{
    uint32_t a_at = 0;
    uint32_t b_at = 0;

    while (bytes > 0) {
        uint32_t count = MIN(a->bytes - a_at, b->bytes - b_at);

        count = MIN(count, bytes);
        if (memcmp(a->buffer->data + a->offset + a_at, b->buffer->data + b->offset + b_at, count) !=
            0)
            return false;
        a_at += count;
        b_at += count;
        bytes -= count;
        if (bytes == 0)
            break;
        if (a_at == a->bytes)
            a = a->next, a_at = 0;
        if (b_at == b->bytes)
            b = b->next, b_at = 0;
    }
    return true;
}

static struct digest digest_of(const struct statement_store *store, const struct span *body,
                               uint32_t bytes, uint64_t params_hash)
{
    struct siphash siphash;

    siphash_begin(&siphash, &store->key);
    siphash_add(&siphash, &params_hash, sizeof(params_hash));
    for (const struct span *span = body; bytes > 0; span = span->next) {
        uint32_t count = MIN(span->bytes, bytes);

        siphash_add(&siphash, span->buffer->data + span->offset, count);
        bytes -= count;
    }
    return siphash_end(&siphash);
}

/* In pieces as large as can be, so that what hangs on a statement is as small as can be. */
static bool body_copy(struct core *core, struct span_queue *queue, const struct span *body,
                      uint32_t bytes)
{
    uint32_t left = bytes;

    for (const struct span *span = body; left > 0; span = span->next) {
        const uint8_t *from = span->buffer->data + span->offset;
        uint32_t count = MIN(span->bytes, left);

        while (count > 0) {
            struct span *last = queue->last;
            uint32_t room = last == NULL ? 0 : last->buffer->bytes_max - last->offset - last->bytes;

            if (room == 0) {
                struct buffer *buffer =
                    buffer_park(core->loop.buffers, MIN(left, (uint32_t)BUFFER_PARKED_BYTES_MAX));
                bool pushed;

                if (buffer == NULL)
                    return false;
                room = MIN(count, buffer->bytes_max);
                memcpy(buffer->data, from, room);
                pushed = span_queue_push(queue, &core->loop, buffer, 0, room);
                buffer_release(core->loop.buffers, buffer);
                if (!pushed)
                    return false;
            } else {
                room = MIN(count, room);
                memcpy(last->buffer->data + last->offset + last->bytes, from, room);
                last->bytes += room;
                queue->bytes += room;
            }
            from += room;
            count -= room;
            left -= room;
        }
    }
    return true;
}

struct statement *statement_intern(struct core *core, const struct span *body, uint32_t bytes,
                                   uint32_t text_bytes, uint64_t params_hash)
{
    struct statement_store *store = &core->statements;
    struct digest digest = digest_of(store, body, bytes, params_hash);
    struct statement **bucket = &store->buckets[digest.words[0] % STATEMENT_BUCKETS];
    struct statement *statement = *bucket;

    while (statement != NULL && !digest_is_same(&statement->digest, &digest))
        statement = statement->bucket_next;
    if (statement != NULL) {
        if (statement->body.bytes != bytes ||
            !bodies_are_same(statement->body.first, body, bytes)) {
            log_write(LEVEL_ERROR, "two prepared statements have the same hash");
            return NULL;
        }
        return statement_reference(statement);
    }
    statement = slab_take(&store->statements);
    if (statement == NULL)
        return NULL;
    *statement = (struct statement){
        .bucket_next = *bucket,
        .digest = digest,
        .text_bytes = text_bytes,
        .reference_count = 1,
        .params_hash = params_hash,
        .is_live = true,
    };
    if (!body_copy(core, &statement->body, body, bytes)) {
        span_queue_clear(&statement->body, &core->loop);
        slab_give(&store->statements, statement);
        return NULL;
    }
    statement_name(&digest, statement->name);
    *bucket = statement;
    store->text_bytes += bytes;
    return statement;
}

void statement_release(struct core *core, struct statement *statement)
{
    struct statement_store *store = &core->statements;
    struct statement **at;

    if (statement == NULL)
        return;
    assert(statement->reference_count > 0);
    if (--statement->reference_count > 0)
        return;
    assert(statement->client_count == 0);
    assert(statement->server_count == 0);
    at = &store->buckets[statement->digest.words[0] % STATEMENT_BUCKETS];
    while (*at != statement)
        at = &(*at)->bucket_next;
    *at = statement->bucket_next;
    store->text_bytes -= statement->body.bytes;
    statement->is_live = false;
    span_queue_clear(&statement->body, &core->loop);
    slab_give(&store->statements, statement);
}

static void text_copy(const struct statement *statement, struct statement_row *row)
{
    static const char prepare[] = "PREPARE ... ";
    struct writer writer;
    const struct span *span = statement->body.first;
    uint32_t count = MIN(span->bytes, statement->text_bytes);

    writer_init(&writer, row->text, STATEMENT_ROW_TEXT_BYTES);
    if (statement->is_sql)
        writer_put(&writer, prepare, sizeof(prepare) - 1);
    count = MIN(count, (uint32_t)(STATEMENT_ROW_TEXT_BYTES - writer.bytes));
    writer_put(&writer, span->buffer->data + span->offset, count);
    strcpy(row->text + writer.bytes, count < statement->text_bytes ? "..." : "");
}

static void types_copy(const struct statement *statement, struct statement_row *row)
{
    const struct span *span = statement->body.first;
    size_t used = 0;

    if (statement->is_sql || span->bytes < statement->body.bytes)
        return;
    for (uint32_t at = statement->text_bytes + 3; at + 4 <= span->bytes; at += 4) {
        size_t room = sizeof(row->types) - used;
        int bytes = snprintf(row->types + used, room, used > 0 ? ",%u" : "%u",
                             bytes_get_u32(span->buffer->data + span->offset + at));

        if ((size_t)bytes >= room) {
            strcpy(row->types + sizeof(row->types) - 4, "...");
            return;
        }
        used += (size_t)bytes;
    }
}

bool statement_fill_row(const struct statement *statement, struct statement_row *row)
{
    if (statement->is_live != true)
        return false;
    *row = (struct statement_row){
        .bytes = statement->body.bytes,
        .bind_count = statement->bind_count,
        .client_count = statement->client_count,
        .server_count = statement->server_count,
    };
    memcpy(row->name, statement->name, sizeof(statement->name));
    text_copy(statement, row);
    types_copy(statement, row);
    return true;
}

bool statement_seen_before(struct statement_store *store, const struct statement *statement)
{
    uint64_t *sighting = &store->sightings[statement->digest.words[1] % STATEMENT_SIGHTINGS];
    bool seen = *sighting == statement->digest.words[0];

    *sighting = statement->digest.words[0];
    return seen;
}

uint64_t shape_of(const struct statement_store *store, const uint8_t *body, size_t bytes)
{
    enum { TABLE_BYTES = 6, TYPE_BYTES = 10, FORMAT_BYTES = 2 };
    struct siphash siphash;
    struct reader reader;
    uint64_t shape;

    siphash_begin(&siphash, &store->key);
    reader_init(&reader, body != NULL ? body : (const uint8_t *)"", bytes);
    (void)reader_get(&reader, 2);
    while (!reader.bad && reader_left(&reader) > 0) {
        const char *name = reader_get_string(&reader);
        const uint8_t *type;

        (void)reader_get(&reader, TABLE_BYTES);
        type = reader_get(&reader, TYPE_BYTES);
        (void)reader_get(&reader, FORMAT_BYTES);
        if (reader.bad)
            break;
        siphash_add(&siphash, name, strlen(name) + 1);
        siphash_add(&siphash, type, TYPE_BYTES);
    }
    shape = siphash_end(&siphash).words[0];
    return shape != 0 ? shape : 1;
}

bool parse_body_read(const struct span *body, uint32_t bytes, uint32_t *text_bytes)
{
    const struct span *span = body;
    uint32_t left = bytes; /* from the span's beginning on */
    uint32_t before = 0;
    uint32_t zero_at = 0;
    bool found = false;
    uint32_t counted = 0;

    for (; left > 0; span = span->next) {
        uint32_t count = MIN(span->bytes, left);
        const uint8_t *data = span->buffer->data + span->offset;

        for (uint32_t at = 0; at < count; at++) {
            if (!found) {
                const uint8_t *zero = memchr(data + at, 0, count - at);

                if (zero == NULL)
                    break;
                at = (uint32_t)(zero - data);
                zero_at = before + at;
                found = true;
            } else if (before + at <= zero_at + 2) {
                counted = counted << 8 | data[at];
            } else {
                break;
            }
        }
        before += count;
        left -= count;
    }
    *text_bytes = zero_at;
    return found && bytes >= zero_at + 3 && (uint64_t)bytes == (uint64_t)zero_at + 3 + 4 * counted;
}
