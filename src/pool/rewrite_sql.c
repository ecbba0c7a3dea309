#include "pool/rewrite_sql.h"

#include "pool/client.h"
#include "pool/server.h"
#include "pool/statement_send.h"

#include <strings.h>

/* A statement of SQL is another one than that of the protocol with the same text. */
static const uint64_t sql_salt = UINT64_C(0x51c6a9e0f35bd742);

enum text_result { TEXT_PASS, TEXT_NEW, TEXT_FAILS, TEXT_HOLD, TEXT_CLOSED };

/* What is sent in place of a text. */
struct new_text {
    const char *before; /* text before the name */
    size_t before_bytes;
    const char *name; /* put in quotes */
    const char *after;
    size_t after_bytes;
};

static enum text_result out_of_memory(struct client *client)
{
    client_close_error(client, "out of memory", NULL);
    return TEXT_CLOSED;
}

static bool strings_are_standard(const struct client *client)
{
    const char *value = params_value(client->params, PARAM_STD_STRINGS);

    return value == NULL || strcasecmp(value, "off") != 0;
}

/* PREPARE: the name is the client's from now on, if PostgreSQL says so. */
static enum text_result prepare_text(struct client *client, const struct span *body,
                                     const struct sql_prepare *sql, struct new_text *new_text)
{
    struct core *core = client_core(client);
    struct server *server = client->server;
    struct client_name *name = client_name_find(client, sql->name, sql->name_bytes);
    struct statement *statement;
    struct expectation *expectation;
    struct prepared *prepared;
    struct span rest = *body;

    if (name != NULL && name->statement != NULL)
        return TEXT_FAILS;
    rest.offset += (uint32_t)sql->rest_offset;
    rest.bytes = (uint32_t)sql->rest_bytes;
    statement = statement_intern(core, &rest, rest.bytes, rest.bytes,
                                 params_parse_hash(client->params) ^ sql_salt);
    if (statement == NULL)
        return out_of_memory(client);
    statement->is_sql = true;
    if (name == NULL)
        name = client_name_make(client, sql->name, sql->name_bytes);
    if (name == NULL) {
        statement_release(core, statement);
        return out_of_memory(client);
    }
    client_name_set(client, name, statement);
    client->pool->stats.client_parse_count++;
    server->pool->stats.server_parse_count++;
    send_own_begin(server);
    if (!send_evictions(server, statement) || !send_named(server, 'C', statement->name) ||
        !send_own_end(server, NULL))
        return out_of_memory(client);
    expectation = expect(server, EXPECT_SQL_PREPARE, name);
    prepared = prepared_add(server, statement);
    if (expectation == NULL || prepared == NULL)
        return out_of_memory(client);
    expectation->digest = statement->digest;
    expectation->has_digest = true;
    expectation->serial = prepared->serial;
    *new_text = (struct new_text){
        .before = "PREPARE ",
        .before_bytes = sizeof("PREPARE ") - 1,
        .name = statement->name,
        .after = (const char *)rest.buffer->data + rest.offset,
        .after_bytes = rest.bytes,
    };
    return TEXT_NEW;
}

static enum text_result execute_text(struct client *client, struct client_name *name)
{
    struct server *server = client->server;
    struct statement *statement = name->statement;
    struct prepared *prepared = prepared_find(server->statements, &statement->digest);

    statement->bind_count++;
    client->pool->stats.bind_count++;
    if (prepared != NULL && prepared_is_usable(server->statements, prepared))
        prepared_touch(server->statements, prepared, statement);
    else if (!send_own_prepare(server, statement))
        return out_of_memory(client);
    return TEXT_NEW;
}

/* DEALLOCATE: the server may keep the statement; it drops another one, which is there for that. */
static enum text_result deallocate_text(struct client *client, struct client_name *name)
{
    static const uint8_t empty_parse[] = {0, 0, 0}; /* text and number of types */
    struct core *core = client_core(client);
    struct server *server = client->server;
    const char *spare = core->statements.spare_name;
    uint8_t header[FRAME_HEADER_BYTES + STATEMENT_NAME_BYTES + 1] = {'P'};
    struct expectation *expectation;

    bytes_put_u32(header + 1, (uint32_t)(sizeof(header) - 1 + sizeof(empty_parse)));
    memcpy(header + FRAME_HEADER_BYTES, spare, STATEMENT_NAME_BYTES + 1);
    send_own_begin(server);
    if (!send_named(server, 'C', spare) || !send_bytes(server, header, sizeof(header)) ||
        !send_bytes(server, empty_parse, sizeof(empty_parse)) || !send_own_end(server, NULL))
        return out_of_memory(client);
    expectation = expect(server, EXPECT_SQL_DEALLOCATE, name);
    if (expectation == NULL)
        return out_of_memory(client);
    expectation->statement = statement_reference(name->statement);
    expectation->told = name->told;
    client_name_set(client, name, NULL);
    return TEXT_NEW;
}

static enum text_result read_text(struct client *client, const struct span *body,
                                  uint32_t text_bytes, struct sql_prepare *sql,
                                  struct new_text *new_text)
{
    struct server *server = client->server;
    const char *text = (const char *)body->buffer->data + body->offset;
    enum sql_prepare_kind kind =
        sql_prepare_read(text, text_bytes, strings_are_standard(client), sql);
    struct client_name *name = NULL;
    enum text_result result;

    if (kind == SQL_DISCARD_ALL || kind == SQL_DEALLOCATE_ALL) {
        server->statements->deallocation = server->statements->batch + 1;
        return TEXT_PASS;
    }
    if (kind == SQL_OTHER || !send_own_is_possible(server) ||
        (kind == SQL_PREPARE && !client_core(client)->snapshot->settings.track_sql_prepare))
        return TEXT_PASS;
    name = client_name_find(client, sql->name, sql->name_bytes);
    if (name != NULL && rewrite_has_to_wait(client, name))
        return TEXT_HOLD;
    if (kind == SQL_PREPARE)
        return prepare_text(client, body, sql, new_text);
    if (name == NULL || name->statement == NULL)
        return TEXT_PASS; /* PostgreSQL has an error for it, or knows it by itself */
    *new_text = (struct new_text){
        .before = text,
        .before_bytes = sql->written_offset,
        .name = name->statement->name,
        .after = text + sql->written_offset + sql->written_bytes,
        .after_bytes = text_bytes - sql->written_offset - sql->written_bytes,
    };
    if (kind == SQL_EXECUTE)
        return execute_text(client, name);
    result = deallocate_text(client, name);
    new_text->name = client_core(client)->statements.spare_name;
    return result;
}

static size_t new_text_bytes_of(const struct new_text *text)
{
    return text->before_bytes + 1 + STATEMENT_NAME_BYTES + 2 + text->after_bytes + 1;
}

static void new_text_write(const struct new_text *text, struct writer *writer)
{
    writer_put(writer, text->before, text->before_bytes);
    writer_put_u8(writer, '"');
    writer_put(writer, text->name, STATEMENT_NAME_BYTES);
    writer_put(writer, "\" ", 2);
    writer_put(writer, text->after, text->after_bytes);
    writer_put_u8(writer, 0);
}

/* The body may lie in the client's buffer, and what is put together is longer: a buffer of its own. */
static struct buffer *new_text_make(struct client *client, const struct new_text *text,
                                    size_t header_bytes, size_t more_bytes)
{
    size_t bytes = new_text_bytes_of(text);
    struct buffer *buffer =
        buffer_park(client->conn.loop->buffers, header_bytes + bytes + more_bytes);
    struct writer writer;

    if (buffer == NULL)
        return NULL;
    writer_init(&writer, buffer->data + header_bytes, bytes);
    new_text_write(text, &writer);
    assert(!writer.overflow && writer.bytes == bytes);
    return buffer;
}

/* It must fail when it is run, as PREPARE does. False: the client was closed. */
static bool fail_text(struct client *client, const struct sql_prepare *sql,
                      struct new_text *new_text)
{
    if (!rewrite_expect_failure(client->server, FAILURE_DUPLICATE, sql->name, sql->name_bytes)) {
        (void)!out_of_memory(client);
        return false;
    }
    *new_text = (struct new_text){
        .before = "DEALLOCATE ",
        .before_bytes = sizeof("DEALLOCATE ") - 1,
        .name = client_core(client)->statements.no_name,
    };
    return true;
}

enum rewrite_result rewrite_query(struct client *client, const struct span *body,
                                  uint32_t body_bytes)
{
    struct server *server = client->server;
    struct new_text new_text = {0};
    struct sql_prepare sql;
    struct buffer *buffer;
    size_t bytes;
    bool sent;

    if (body_bytes == 0 || body_bytes > REWRITE_TEXT_BYTES_MAX || body->bytes < body_bytes ||
        body->buffer->data[body->offset + body_bytes - 1] != 0)
        return REWRITE_PASS;
    switch (read_text(client, body, body_bytes - 1, &sql, &new_text)) {
    case TEXT_PASS:
        return REWRITE_PASS;
    case TEXT_HOLD:
        return REWRITE_HOLD;
    case TEXT_CLOSED:
        return REWRITE_CLOSED;
    case TEXT_FAILS:
        if (!fail_text(client, &sql, &new_text))
            return REWRITE_CLOSED;
        break;
    case TEXT_NEW:
        break;
    }
    buffer = new_text_make(client, &new_text, FRAME_HEADER_BYTES, 0);
    if (buffer == NULL) {
        (void)!out_of_memory(client);
        return REWRITE_CLOSED;
    }
    bytes = new_text_bytes_of(&new_text);
    buffer->data[0] = 'Q';
    bytes_put_u32(buffer->data + 1, (uint32_t)(4 + bytes));
    sent = conn_push(&server->conn, buffer, 0, (uint32_t)(FRAME_HEADER_BYTES + bytes));
    buffer_release(client->conn.loop->buffers, buffer);
    if (!sent) {
        (void)!out_of_memory(client);
        return REWRITE_CLOSED;
    }
    return REWRITE_DROP;
}

enum rewrite_result rewrite_parse_text(struct client *client, const struct span *body,
                                       uint32_t body_bytes, uint32_t text_bytes,
                                       struct buffer **new_body, uint32_t *new_bytes,
                                       uint32_t *new_text_bytes)
{
    struct new_text new_text = {0};
    struct sql_prepare sql;
    const uint8_t *types = body->buffer->data + body->offset + text_bytes + 1;
    uint32_t types_bytes = body_bytes - text_bytes - 1;

    if (body_bytes > REWRITE_TEXT_BYTES_MAX || body->bytes < body_bytes)
        return REWRITE_PASS;
    switch (read_text(client, body, text_bytes, &sql, &new_text)) {
    case TEXT_PASS:
        return REWRITE_PASS;
    case TEXT_HOLD:
        return REWRITE_HOLD;
    case TEXT_CLOSED:
        return REWRITE_CLOSED;
    case TEXT_FAILS:
        if (!fail_text(client, &sql, &new_text))
            return REWRITE_CLOSED;
        break;
    case TEXT_NEW:
        break;
    }
    *new_body = new_text_make(client, &new_text, 0, types_bytes);
    if (*new_body == NULL) {
        (void)!out_of_memory(client);
        return REWRITE_CLOSED;
    }
    *new_bytes = (uint32_t)new_text_bytes_of(&new_text) + types_bytes;
    *new_text_bytes = *new_bytes - types_bytes - 1;
    memcpy((*new_body)->data + *new_text_bytes + 1, types, types_bytes);
    return REWRITE_DONE;
}
