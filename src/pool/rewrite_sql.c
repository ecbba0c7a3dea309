#include "pool/rewrite_sql.h"

#include "pool/client.h"
#include "pool/server.h"
#include "pool/statement_send.h"

#include <strings.h>

/* A statement of SQL is another one than that of the protocol with the same text. */
static const uint64_t sql_salt = UINT64_C(0x51c6a9e0f35bd742);

enum text_result {
    TEXT_PASS,
    TEXT_SEVERAL, /* not one statement that is known: maybe several */
    TEXT_NEW,
    TEXT_FAILS,
    TEXT_HOLD,
    TEXT_CLOSED
};

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

/* Makes an empty statement of this name. In a batch of the pooler's own. */
static bool send_spare(struct server *server, const char *spare)
{
    static const uint8_t empty_parse[] = {0, 0, 0}; /* text and number of types */
    uint8_t header[FRAME_HEADER_BYTES + STATEMENT_NAME_BYTES + 1] = {'P'};

    bytes_put_u32(header + 1, (uint32_t)(sizeof(header) - 1 + sizeof(empty_parse)));
    memcpy(header + FRAME_HEADER_BYTES, spare, STATEMENT_NAME_BYTES + 1);
    return send_named(server, 'C', spare) && send_bytes(server, header, sizeof(header)) &&
           send_bytes(server, empty_parse, sizeof(empty_parse));
}

/* The name is gone from now on, unless PostgreSQL does not come to its DEALLOCATE. NULL: a DEALLOCATE that
 * is not rewritten. */
static bool expect_deallocate(struct client *client, struct client_name *name)
{
    struct expectation *expectation = expect(client->server, EXPECT_SQL_DEALLOCATE, name);

    if (expectation == NULL)
        return false;
    if (name != NULL) {
        expectation->statement = statement_reference(name->statement);
        expectation->told = name->told;
        client_name_set(client, name, NULL);
    }
    return true;
}

/* DEALLOCATE: the server may keep the statement; it drops another one, which is there for that. */
static enum text_result deallocate_text(struct client *client, struct client_name *name)
{
    struct server *server = client->server;

    send_own_begin(server);
    if (!send_spare(server, client_core(client)->statements.spare_name) ||
        !send_own_end(server, NULL) || !expect_deallocate(client, name))
        return out_of_memory(client);
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
    if (kind == SQL_OTHER)
        return TEXT_SEVERAL;
    if (!send_own_is_possible(server) ||
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

/* The buffer's message goes out; takes over the reference. */
static enum rewrite_result send_query(struct client *client, struct buffer *buffer, size_t bytes)
{
    bool sent = false;

    if (buffer != NULL) {
        buffer->data[0] = 'Q';
        bytes_put_u32(buffer->data + 1, (uint32_t)(4 + bytes));
        sent = conn_push(&client->server->conn, buffer, 0, (uint32_t)(FRAME_HEADER_BYTES + bytes));
        buffer_release(client->conn.loop->buffers, buffer);
    }
    if (!sent) {
        (void)!out_of_memory(client);
        return REWRITE_CLOSED;
    }
    return REWRITE_DROP;
}

/* ---- texts of several statements ---- */

enum { NAMES_MAX = 16 };

/* A name in a text, in the text's order. */
struct place {
    enum sql_prepare_kind kind;
    struct client_name *name; /* NULL: of a DEALLOCATE that stays as it is, and has a tag as well */
    struct statement *statement;
    size_t written_offset, written_bytes;
};

struct places {
    struct place list[NAMES_MAX];
    unsigned count;
    unsigned deallocate_count; /* that are rewritten */
    unsigned execute_count;    /* of different statements */
    bool may_drop_all;
};

static bool is_certainly_utf8(const struct client *client)
{
    const char *value = params_value(client->params, PARAM_CLIENT_ENCODING);

    return value != NULL && strcasecmp(value, "UTF8") == 0;
}

static bool is_deallocated_in(const struct places *places, const struct client_name *name)
{
    for (unsigned i = 0; i < places->count; i++)
        if (places->list[i].kind == SQL_DEALLOCATE && places->list[i].name == name)
            return true;
    return false;
}

static bool is_executed_in(const struct places *places, unsigned count,
                           const struct statement *statement)
{
    for (unsigned i = 0; i < count; i++)
        if (places->list[i].kind == SQL_EXECUTE && places->list[i].statement == statement)
            return true;
    return false;
}

/* Adds what the statement says to the places. TEXT_PASS: the text cannot be rewritten. */
static enum text_result place_add(struct client *client, const struct sql_splitter *splitter,
                                  size_t offset, size_t bytes, struct places *places)
{
    const char *text = splitter->text + offset;
    struct client_name *name = NULL;
    struct sql_prepare sql;
    enum sql_prepare_kind kind =
        sql_prepare_read(text, bytes, splitter->standard_conforming_strings, &sql);

    if (kind == SQL_DISCARD_ALL || kind == SQL_DEALLOCATE_ALL) {
        places->may_drop_all = true;
        return TEXT_NEW;
    }
    if (kind == SQL_OTHER &&
        (sql_begins_with(text, bytes, "deallocate") || sql_begins_with(text, bytes, "discard"))) {
        places->may_drop_all = true; /* not ASCII, or an error: who knows */
        return TEXT_PASS;
    }
    /* Behind DEALLOCATE ALL the server has no name any more, neither the client's nor ours. */
    if ((kind != SQL_EXECUTE && kind != SQL_DEALLOCATE) || places->may_drop_all)
        return TEXT_NEW;
    name = client_name_find(client, sql.name, sql.name_bytes);
    if (name != NULL && rewrite_has_to_wait(client, name))
        return TEXT_HOLD;
    if (name != NULL && (name->statement == NULL || is_deallocated_in(places, name)))
        name = NULL;
    if (name == NULL && kind == SQL_EXECUTE)
        return TEXT_NEW;
    if (places->count == NAMES_MAX)
        return TEXT_PASS;
    if (kind == SQL_EXECUTE)
        places->execute_count += !is_executed_in(places, places->count, name->statement);
    else
        places->deallocate_count += name != NULL;
    places->list[places->count++] = (struct place){
        .kind = kind,
        .name = name,
        .statement = name != NULL ? name->statement : NULL,
        .written_offset = offset + sql.written_offset,
        .written_bytes = sql.written_bytes,
    };
    return TEXT_NEW;
}

/* Reads the whole text before anything is done. TEXT_PASS: it goes out as it is. */
static enum text_result find_places(struct client *client, const char *text, size_t bytes,
                                    struct places *places)
{
    struct server *server = client->server;
    unsigned prepared_max =
        (unsigned)MAX(client_core(client)->snapshot->settings.max_prepared_statements, 1);
    enum sql_split split = SQL_SPLIT_DOUBT;
    struct sql_splitter splitter;
    size_t offset, statement_bytes;
    bool is_plain;

    is_plain = sql_split_begin(&splitter, text, bytes, strings_are_standard(client), false) &&
               memchr(text, '\\', bytes) == NULL;
    /* What is in flight may change how strings and letters are read. */
    if (!is_plain && !exchange_is_answered(&server->exchange) && send_own_is_possible(server))
        return TEXT_HOLD;
    if (!is_plain && (!exchange_is_answered(&server->exchange) ||
                      !sql_split_begin(&splitter, text, bytes, strings_are_standard(client),
                                       is_certainly_utf8(client)))) {
        places->may_drop_all = true;
        return TEXT_PASS;
    }
    while ((split = sql_split_next(&splitter, &offset, &statement_bytes)) == SQL_SPLIT_STATEMENT) {
        enum text_result result = place_add(client, &splitter, offset, statement_bytes, places);

        if (result != TEXT_NEW)
            return result;
    }
    if (split == SQL_SPLIT_DOUBT) {
        places->may_drop_all = true;
        return TEXT_PASS;
    }
    return places->deallocate_count + places->execute_count > 0 &&
                   places->deallocate_count <= STATEMENT_SPARES_MAX &&
                   places->execute_count <= prepared_max && send_own_is_possible(server)
               ? TEXT_NEW
               : TEXT_PASS;
}

/* What the text needs is there: all that is executed, and a spare for each DEALLOCATE. */
static bool send_before_places(struct client *client, const struct places *places)
{
    struct server *server = client->server;
    char spare[STATEMENT_NAME_BYTES + 1];

    for (unsigned i = 0; i < places->count; i++) {
        const struct place *place = &places->list[i];

        /* In order, so that those that are used are the newest, and none makes room for another. */
        if (place->kind == SQL_EXECUTE && !is_executed_in(places, i, place->statement) &&
            execute_text(client, place->name) != TEXT_NEW)
            return false;
    }
    if (places->deallocate_count == 0)
        return true;
    send_own_begin(server);
    for (unsigned i = 0; i < places->deallocate_count; i++) {
        statement_spare_name(&client_core(client)->statements, i, spare);
        if (!send_spare(server, spare))
            return false;
    }
    if (!send_own_end(server, NULL))
        return false;
    for (unsigned i = 0; i < places->count; i++)
        if (places->list[i].kind == SQL_DEALLOCATE &&
            !expect_deallocate(client, places->list[i].name))
            return false;
    return true;
}

static enum rewrite_result send_places(struct client *client, const char *text, size_t bytes,
                                       const struct places *places)
{
    size_t bytes_max = bytes + (size_t)places->count * (STATEMENT_NAME_BYTES + 3) + 1;
    struct buffer *buffer = buffer_park(client->conn.loop->buffers, FRAME_HEADER_BYTES + bytes_max);
    unsigned spare_index = 0;
    struct writer writer;
    size_t from = 0;

    if (buffer == NULL)
        return send_query(client, NULL, 0);
    writer_init(&writer, buffer->data + FRAME_HEADER_BYTES, bytes_max);
    for (unsigned i = 0; i < places->count; i++) {
        const struct place *place = &places->list[i];
        char name[STATEMENT_NAME_BYTES + 1];

        if (place->name == NULL)
            continue;
        if (place->kind == SQL_DEALLOCATE)
            statement_spare_name(&client_core(client)->statements, spare_index++, name);
        else
            memcpy(name, place->statement->name, sizeof(name));
        writer_put(&writer, text + from, place->written_offset - from);
        writer_put_u8(&writer, '"');
        writer_put(&writer, name, STATEMENT_NAME_BYTES);
        writer_put(&writer, "\" ", 2);
        from = place->written_offset + place->written_bytes;
    }
    writer_put(&writer, text + from, bytes - from);
    writer_put_u8(&writer, 0);
    assert(!writer.overflow && spare_index == places->deallocate_count);
    return send_query(client, buffer, writer.bytes);
}

/* A text that is not one statement of prepared ones. */
static enum rewrite_result rewrite_several(struct client *client, const char *text, size_t bytes)
{
    struct server_statements *statements = client->server->statements;
    struct places places = {.count = 0};
    enum text_result result = find_places(client, text, bytes, &places);

    if (result == TEXT_HOLD)
        return REWRITE_HOLD;
    if (result == TEXT_NEW && !send_before_places(client, &places)) {
        if (client->state != CLIENT_CLOSING)
            (void)!out_of_memory(client);
        return REWRITE_CLOSED;
    }
    if (places.may_drop_all)
        statements->deallocation = statements->batch + 1;
    return result == TEXT_NEW ? send_places(client, text, bytes, &places) : REWRITE_PASS;
}

enum rewrite_result rewrite_query(struct client *client, const struct span *body,
                                  uint32_t body_bytes)
{
    struct new_text new_text = {0};
    struct sql_prepare sql;

    if (body_bytes == 0 || body_bytes > REWRITE_TEXT_BYTES_MAX || body->bytes < body_bytes ||
        body->buffer->data[body->offset + body_bytes - 1] != 0)
        return REWRITE_PASS;
    switch (read_text(client, body, body_bytes - 1, &sql, &new_text)) {
    case TEXT_PASS:
        return REWRITE_PASS;
    case TEXT_SEVERAL:
        if (client->statements == NULL || client->statements->names.count == 0 ||
            body_bytes > REWRITE_SEVERAL_BYTES_MAX)
            return REWRITE_PASS;
        return rewrite_several(client, (const char *)body->buffer->data + body->offset,
                               body_bytes - 1);
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
    return send_query(client, new_text_make(client, &new_text, FRAME_HEADER_BYTES, 0),
                      new_text_bytes_of(&new_text));
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
    case TEXT_SEVERAL: /* PostgreSQL refuses it */
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
