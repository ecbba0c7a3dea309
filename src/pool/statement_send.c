#include "pool/statement_send.h"

#include "base/bytes.h"
#include "pool/client.h"
#include "pool/heal.h"
#include "pool/server.h"

enum { COPIED_BODY_BYTES = 512 };

static const uint8_t sync_message[FRAME_HEADER_BYTES] = {'S', 0, 0, 0, 4};

bool send_bytes(struct server *server, const void *data, size_t bytes)
{
    heal_keep(server, data, bytes);
    return conn_push_copy(&server->conn, data, bytes);
}

bool send_named(struct server *server, uint8_t type, const char *name)
{
    uint8_t message[FRAME_HEADER_BYTES + 1 + STATEMENT_NAME_BYTES + 1];
    struct writer writer;
    size_t begin;

    writer_init(&writer, message, sizeof(message));
    begin = message_begin(&writer, type);
    writer_put_u8(&writer, 'S');
    writer_put_string(&writer, name);
    message_end(&writer, begin);
    assert(!writer.overflow);
    return send_bytes(server, message, writer.bytes);
}

static bool send_body(struct server *server, const struct statement *statement)
{
    for (const struct span *span = statement->body.first; span != NULL; span = span->next) {
        const uint8_t *data = span->buffer->data + span->offset;

        if (statement->body.bytes <= COPIED_BODY_BYTES) {
            if (!send_bytes(server, data, span->bytes))
                return false;
        } else {
            heal_keep(server, data, span->bytes);
            if (!conn_push(&server->conn, span->buffer, span->offset, span->bytes))
                return false;
        }
    }
    return true;
}

bool send_parse(struct server *server, const char *name, struct statement *statement)
{
    uint8_t header[FRAME_HEADER_BYTES + STATEMENT_NAME_BYTES + 1] = {'P'};
    size_t name_bytes = STATEMENT_NAME_BYTES + 1;

    assert(!statement->is_sql);
    bytes_put_u32(header + 1, (uint32_t)(4 + name_bytes) + statement->body.bytes);
    memcpy(header + FRAME_HEADER_BYTES, name, name_bytes);
    server->pool->stats.server_parse_count++;
    return send_bytes(server, header, sizeof(header)) && send_body(server, statement);
}

bool send_unnamed_parse(struct server *server, const struct statement *statement)
{
    uint8_t header[FRAME_HEADER_BYTES + 1] = {'P'};

    bytes_put_u32(header + 1, 4 + 1 + statement->body.bytes);
    return send_bytes(server, header, sizeof(header)) && send_body(server, statement);
}

bool send_prepare_again(struct server *server, struct statement *statement)
{
    return send_named(server, 'C', statement->name) &&
           send_parse(server, statement->name, statement);
}

bool send_evictions(struct server *server, const struct statement *statement)
{
    unsigned limit =
        (unsigned)MAX(server_core(server)->snapshot->settings.max_prepared_statements, 1);
    struct server_statements *statements = server->statements;
    struct prepared *own = prepared_find(statements, &statement->digest);

    /* If it is there, or may be, it must not be the one that goes; there may be too many nevertheless, when an
     * error has skipped an eviction. */
    if (own != NULL)
        prepared_touch(statements, own, NULL);
    while (statements->table.count + (own == NULL) > limit) {
        struct prepared *oldest = prepared_oldest(statements);
        struct expectation *expectation = expect(server, EXPECT_EVICTION, NULL);
        char name[STATEMENT_NAME_BYTES + 1];

        if (expectation == NULL)
            return false;
        expectation->digest = oldest->digest;
        expectation->has_digest = true;
        statement_name(&oldest->digest, name);
        prepared_remove(server, oldest);
        if (!send_named(server, 'C', name))
            return false;
    }
    return true;
}

static void expect_prepared(struct expectation *expectation, const struct prepared *prepared)
{
    expectation->digest = prepared->digest;
    expectation->has_digest = true;
    expectation->serial = prepared->serial;
}

bool send_prepare(struct server *server, struct statement *statement, enum expectation_kind kind,
                  struct client_name *name)
{
    struct expectation *expectation;
    struct prepared *prepared;

    if (!send_evictions(server, statement) || expect(server, EXPECT_CLOSE_OURS, NULL) == NULL)
        return false;
    expectation = expect(server, kind, name);
    prepared = prepared_add(server, statement);
    if (expectation == NULL || prepared == NULL)
        return false;
    expect_prepared(expectation, prepared);
    return send_prepare_again(server, statement);
}

/* ---- batches of the pooler's own ---- */

bool send_own_is_possible(const struct server *server)
{
    return !exchange_is_open(&server->exchange) && !server->exchange.in_copy_in;
}

void send_own_begin(struct server *server)
{
    assert(send_own_is_possible(server));
    heal_sent(server, 'Q'); /* what was sent before will not be repeated */
}

/* `type` ends the batch, and brings its ReadyForQuery. */
static bool own_ends(struct server *server, uint8_t type, const struct prepared *prepared)
{
    struct expectation *expectation = expect(server, EXPECT_OWN_BATCH, NULL);

    if (expectation == NULL)
        return false;
    if (prepared != NULL)
        expect_prepared(expectation, prepared);
    if (!exchange_sent(&server->exchange, type))
        return false;
    server->statements->batch++;
    return true;
}

bool send_own_end(struct server *server, const struct prepared *prepared)
{
    return send_bytes(server, sync_message, sizeof(sync_message)) &&
           own_ends(server, 'S', prepared);
}

bool send_own_query(struct server *server, const struct prepared *prepared, const char *before,
                    const char *name, const struct statement *rest)
{
    uint8_t header[FRAME_HEADER_BYTES] = {'Q'};
    uint32_t bytes = (uint32_t)(strlen(before) + 1 + strlen(name) + 2);

    send_own_begin(server);
    if (rest != NULL)
        bytes += rest->body.bytes;
    bytes_put_u32(header + 1, 4 + bytes + 1);
    return send_bytes(server, header, sizeof(header)) &&
           send_bytes(server, before, strlen(before)) && send_bytes(server, "\"", 1) &&
           send_bytes(server, name, strlen(name)) && send_bytes(server, "\" ", 2) &&
           (rest == NULL || send_body(server, rest)) && send_bytes(server, "", 1) &&
           own_ends(server, 'Q', prepared);
}

bool send_own_probe(struct server *server)
{
    static const uint8_t empty_query[] = {'Q', 0, 0, 0, 5, 0};
    struct list *last;

    send_own_begin(server);
    if (!send_bytes(server, empty_query, sizeof(empty_query)) || !own_ends(server, 'Q', NULL))
        return false;
    last = list_back(&server->statements->expectations);
    OWNER_OF(last, struct expectation, link)->is_probe = true;
    return true;
}

bool send_own_prepare(struct server *server, struct statement *statement)
{
    struct prepared *prepared;

    send_own_begin(server);
    if (!send_evictions(server, statement) || !send_named(server, 'C', statement->name))
        return false;
    prepared = prepared_add(server, statement);
    if (prepared == NULL)
        return false;
    if (!statement->is_sql)
        return send_parse(server, statement->name, statement) && send_own_end(server, prepared);
    server->pool->stats.server_parse_count++;
    return send_own_end(server, NULL) &&
           send_own_query(server, prepared, "PREPARE ", statement->name, statement);
}
