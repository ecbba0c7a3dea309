#include "pool/rewrite.h"

#include "base/bytes.h"
#include "pool/client.h"
#include "pool/heal.h"
#include "pool/rewrite_sql.h"
#include "pool/server.h"
#include "pool/statement_send.h"
#include "wire/sql_text.h"

#include <stdio.h>

static const char broken_parse[] = "broken Parse packet";
static const char broken_bind[] = "broken Bind packet";

bool rewrite_is_wanted(const struct client *client)
{
    return client->statements != NULL ||
           (client_core(client)->snapshot->settings.max_prepared_statements > 0 &&
            client->pool->settings.pool_mode != POOL_MODE_SESSION);
}

static const uint8_t *string_end(const uint8_t *text, const uint8_t *end)
{
    return text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;
}

bool rewrite_has_enough(uint8_t type, const uint8_t *body, size_t available, size_t body_bytes,
                        bool has_names)
{
    const uint8_t *end = body + available;
    const uint8_t *zero;

    if (available >= body_bytes)
        return true;
    if (type == 'Q')
        return !rewrite_concerns_query(body, available, body_bytes, has_names);
    if (type != 'B')
        return false;
    zero = string_end(body, end);
    return zero != NULL && string_end(zero + 1, end) != NULL;
}

/* The server has it already. */
static void believe(struct server *server, struct prepared *prepared, struct statement *statement,
                    bool is_unnamed)
{
    prepared_touch(server->statements, prepared, statement);
    heal_use(server, statement, is_unnamed);
}

static bool is_usable(const struct server *server, const struct statement *statement)
{
    const struct prepared *prepared = prepared_find(server->statements, &statement->digest);

    return prepared != NULL && prepared_is_usable(server->statements, prepared);
}

/* What the name stands for can be used by what is sent next. */
static bool make_usable(struct client *client, struct client_name *name)
{
    struct core *core = client_core(client);
    struct server *server = client->server;
    struct statement *statement = name->statement;
    struct prepared *prepared = prepared_find(server->statements, &statement->digest);
    uint64_t params_hash;
    struct told told;

    if (likely(prepared != NULL && prepared_is_usable(server->statements, prepared))) {
        believe(server, prepared, statement, false);
        return true;
    }
    if (statement->is_sql)
        return send_own_prepare(server, statement);
    params_hash = params_parse_hash(client->params);
    if (statement->params_hash != params_hash) {
        /* The client has set a parameter since. What is prepared now is prepared under the new value. */
        statement = statement_intern(core, statement->body.first, statement->body.bytes,
                                     statement->text_bytes, params_hash);
        if (statement == NULL)
            return false;
        statement->cacheable = name->statement->cacheable;
        told = name->told;
        client_name_set(client, name, statement);
        name->told = told;
        prepared = prepared_find(server->statements, &statement->digest);
        if (prepared != NULL && prepared_is_usable(server->statements, prepared)) {
            believe(server, prepared, statement, false);
            return true;
        }
    }
    return send_prepare(server, statement, EXPECT_PARSE_OURS, NULL);
}

static enum rewrite_result out_of_memory(struct client *client)
{
    client_close_error(client, "out of memory", NULL);
    return REWRITE_CLOSED;
}

static enum rewrite_result broken(struct client *client, const char *text)
{
    client_close_error(client, text, NULL);
    return REWRITE_CLOSED;
}

/* What the name means is not decided before more has been answered. */
bool rewrite_has_to_wait(const struct client *client, const struct client_name *name)
{
    const struct server_statements *statements = client->server->statements;

    return client_name_is_unsettled(name, statements->batch) ||
           (statements->deallocation != 0 && statements->deallocation <= statements->batch &&
            name->bytes > 0);
}

/* ---- errors ---- */

bool rewrite_expect_failure(struct server *server, enum failure kind, const void *name,
                            size_t name_bytes)
{
    struct expectation *failure = expect(server, EXPECT_FAILURE, NULL);

    if (failure == NULL)
        return false;
    failure->failure = (uint8_t)kind;
    failure->text_bytes = (uint8_t)MIN(name_bytes, sizeof(failure->text));
    memcpy(failure->text, name, failure->text_bytes);
    return true;
}

/* An error at this place in the batch. */
static enum rewrite_result fail(struct client *client, enum failure kind, const uint8_t *name,
                                size_t name_bytes)
{
    struct server *server = client->server;

    heal_begin(server);
    if (!rewrite_expect_failure(server, kind, name, name_bytes) ||
        !send_named(server, 'D', client_core(client)->statements.no_name))
        return out_of_memory(client);
    return REWRITE_DROP;
}

/* A Parse whose name is taken. PostgreSQL sees that last: first the text must be good, and the transaction not
 * aborted. So it is parsed, under a name of no meaning, before it fails. */
static enum rewrite_result fail_duplicate(struct client *client, struct statement *statement,
                                          const uint8_t *name, size_t name_bytes)
{
    struct server *server = client->server;
    const char *spare = client_core(client)->statements.spare_name;
    bool sent;

    heal_begin(server);
    sent = expect(server, EXPECT_CLOSE_OURS, NULL) != NULL && send_named(server, 'C', spare) &&
           expect(server, EXPECT_PARSE_OURS, NULL) != NULL &&
           send_parse(server, spare, statement) &&
           expect(server, EXPECT_CLOSE_OURS, NULL) != NULL && send_named(server, 'C', spare);
    statement_release(client_core(client), statement);
    return sent ? fail(client, FAILURE_DUPLICATE, name, name_bytes) : out_of_memory(client);
}

static bool has_own_name(const struct statement *statement, const char *own_name)
{
    return statement != NULL && memcmp(statement->name, own_name, STATEMENT_NAME_BYTES) == 0;
}

/* The client's name of the statement that has `own_name` on the server. An unnamed statement that was
 * replaced since is known no more: the unnamed one it is, then. */
static const struct client_name *name_of_own(const struct client *client, const char *own_name)
{
    hash_table_for_each(link, &client->statements->names)
    {
        const struct client_name *name = OWNER_OF(link, struct client_name, link);

        if (has_own_name(name->statement, own_name))
            return name;
    }
    /* Closed behind what has failed. */
    list_for_each(link, &client->server->statements->expectations)
    {
        const struct expectation *expectation = OWNER_OF(link, struct expectation, link);

        if (has_own_name(expectation->statement, own_name))
            return expectation->name;
    }
    return &client->statements->unnamed;
}

bool rewrite_send_error(struct client *client, const uint8_t *body, size_t bytes)
{
    static const char prefix[] = STATEMENT_NAME_PREFIX;
    uint8_t header[FRAME_HEADER_BYTES] = {'E'};
    struct span_queue text = {0};
    struct conn_loop *loop = client->conn.loop;
    bool pushed = true;
    size_t from = 0;

    for (size_t at = 0; pushed && client->statements != NULL; at++) {
        const struct client_name *name;
        const uint8_t *found = memmem(body + at, bytes - at, prefix, sizeof(prefix) - 1);

        if (found == NULL || (size_t)(body + bytes - found) < STATEMENT_NAME_BYTES)
            break;
        at = (size_t)(found - body);
        name = name_of_own(client, (const char *)found);
        pushed = span_queue_push_copy(&text, loop, body + from, at - from) &&
                 span_queue_push_copy(&text, loop, name->text, name->bytes);
        at += STATEMENT_NAME_BYTES - 1;
        from = at + 1;
    }
    pushed = pushed && span_queue_push_copy(&text, loop, body + from, bytes - from);
    bytes_put_u32(header + 1, 4 + text.bytes);
    pushed = pushed && conn_push_copy(&client->conn, header, sizeof(header));
    for (struct span *span = text.first; pushed && span != NULL; span = span->next)
        pushed = conn_push(&client->conn, span->buffer, span->offset, span->bytes);
    span_queue_clear(&text, loop);
    return pushed;
}

void rewrite_write_failure(struct writer *writer, const struct expectation *failure)
{
    static const char *const sqlstates[] = {"26000", "42P05", "0A000"};
    static const char *const routines[] = {"FetchPreparedStatement", "StorePreparedStatement",
                                           "RevalidateCachedQuery"};
    char text[STATEMENT_CLIENT_NAME_MAX + 64];
    struct pg_error error = {
        .severity = SEVERITY_ERROR,
        .sqlstate = sqlstates[failure->failure],
        .routine = routines[failure->failure],
        .message = text,
    };

    if (failure->failure == FAILURE_STALE)
        snprintf(text, sizeof(text), "cached plan must not change result type");
    else if (failure->text_bytes == 0)
        snprintf(text, sizeof(text), "unnamed prepared statement does not exist");
    else
        snprintf(text, sizeof(text), "prepared statement \"%.*s\" %s", (int)failure->text_bytes,
                 failure->text,
                 failure->failure == FAILURE_DUPLICATE ? "already exists" : "does not exist");
    message_error(writer, &error);
}

/* ---- Parse ---- */

/* The statement is there under its own name, and the client's Parse is answered. */
static enum rewrite_result parse_tracked(struct client *client, struct client_name *name,
                                         bool is_unnamed)
{
    struct server *server = client->server;
    struct statement *statement = name->statement;
    struct prepared *prepared;

    heal_begin(server);
    prepared = prepared_find(server->statements, &statement->digest);
    /* Parse fails in an aborted transaction; what is in flight may abort it yet. */
    if (prepared == NULL || !prepared_is_usable(server->statements, prepared) ||
        server->status == 'E' || exchange_owed(&server->exchange) > 0 ||
        server->statements->deallocation != 0) {
        if (!send_prepare(server, statement, EXPECT_PARSE, name))
            return out_of_memory(client);
        return REWRITE_DROP;
    }
    believe(server, prepared, statement, is_unnamed);
    if (expect(server, EXPECT_PARSE_FAKE, name) == NULL ||
        !send_named(server, 'C', client_core(client)->statements.no_name))
        return out_of_memory(client);
    return REWRITE_DROP;
}

bool rewrite_is_worth_caching(struct core *core, struct statement *statement)
{
    const struct span *first = statement->body.first;

    if (statement->cacheable == CACHEABLE_UNKNOWN)
        statement->cacheable =
            first->bytes > statement->text_bytes &&
                    sql_is_cacheable((const char *)first->buffer->data + first->offset,
                                     statement->text_bytes)
                ? CACHEABLE_YES
                : CACHEABLE_NO;
    return statement->cacheable == CACHEABLE_YES &&
           statement_seen_before(&core->statements, statement);
}

/* For a client that ought to have asked. */
static bool describe_for(struct server *server, struct client_name *name)
{
    return expect_description(server, EXPECT_SHAPE, name, name->statement) &&
           send_named(server, 'D', name->statement->name);
}

static enum rewrite_result parse(struct client *client, const struct span *body,
                                 uint32_t body_bytes, bool is_last)
{
    struct core *core = client_core(client);
    struct server *server = client->server;
    const struct settings *settings = &core->snapshot->settings;
    const uint8_t *text = body->buffer->data + body->offset;
    const uint8_t *zero = string_end(text, text + MIN(body->bytes, body_bytes));
    struct span rest = *body;
    uint32_t rest_bytes, text_bytes, name_bytes;
    struct client_name *name;
    struct statement *statement;
    struct statement *before = NULL;
    struct told told = {0};
    struct expectation *expectation;
    struct buffer *new_body = NULL;
    enum rewrite_result result;

    if (zero == NULL)
        return broken(client, broken_parse);
    name_bytes = (uint32_t)(zero - text);
    rest.offset += name_bytes + 1;
    rest.bytes -= name_bytes + 1;
    rest_bytes = body_bytes - name_bytes - 1;
    if (!parse_body_read(&rest, rest_bytes, &text_bytes))
        return broken(client, broken_parse);
    if (client_statements_of(client) == NULL)
        return out_of_memory(client);
    name = client_name_find(client, text, name_bytes);
    if (name != NULL && name_bytes > 0) {
        if (rewrite_has_to_wait(client, name))
            return REWRITE_HOLD;
    }
    if (name_bytes == 0 && rest.bytes >= rest_bytes &&
        sql_may_be_prepare((const char *)text + 1, text_bytes)) {
        result = rewrite_parse_text(client, &rest, rest_bytes, text_bytes, &new_body, &rest_bytes,
                                    &text_bytes);

        if (result == REWRITE_HOLD || result == REWRITE_CLOSED)
            return result;
        if (result == REWRITE_DONE)
            rest = (struct span){.buffer = new_body, .bytes = rest_bytes};
    }
    statement =
        statement_intern(core, &rest, rest_bytes, text_bytes, params_parse_hash(client->params));
    if (new_body != NULL)
        buffer_release(core->loop.buffers, new_body);
    if (statement == NULL)
        return out_of_memory(client);
    if (name != NULL && name_bytes > 0 && name->statement != NULL)
        return fail_duplicate(client, statement, text, name_bytes);
    if (name == NULL) {
        name = client_name_make(client, text, name_bytes);
        if (name == NULL) {
            statement_release(core, statement);
            return client->statements->names.count >= CLIENT_NAMES_MAX
                       ? broken(client, "too many prepared statements")
                       : out_of_memory(client);
        }
    }
    if (name_bytes > 0) {
        client_name_set(client, name, statement);
        client->pool->stats.client_parse_count++;
        result = parse_tracked(client, name, false);
        if (result == REWRITE_DROP && client_name_is_of_dbd_pg(name) && server->status != 'E' &&
            !describe_for(server, name))
            return out_of_memory(client);
        return result;
    }
    if (client->statements->is_unnamed_on_server && name->statement != NULL) {
        before = statement_reference(name->statement);
        told = name->told;
    }
    client_name_set(client, name, statement);
    client->statements->is_unnamed_on_server = false;
    client->statements->is_unnamed_in_doubt = false;
    if (settings->cache_unnamed_statements && rewrite_is_worth_caching(core, statement) && is_last &&
        server->status == 'I' && exchange_is_answered(&server->exchange)) {
        statement_release(core, before);
        client->pool->stats.client_parse_count++;
        return parse_tracked(client, name, true);
    }
    client->statements->is_unnamed_on_server = true;
    expectation = expect(server, EXPECT_PARSE, name);
    if (expectation == NULL) {
        statement_release(core, before);
        return out_of_memory(client);
    }
    expectation->statement = before;
    expectation->told = told;
    if (new_body == NULL)
        return REWRITE_PASS;
    client->statements->is_unnamed_in_doubt = true; /* names of this server's stand in the text */
    return send_unnamed_parse(server, statement) ? REWRITE_DROP : out_of_memory(client);
}

/* ---- Bind, Describe, Close ---- */

/* REWRITE_PASS: `*name` is tracked and can be used under its own name, or, with *name NULL, is the
 * server's unnamed statement. */
static enum rewrite_result use(struct client *client, const uint8_t *text, size_t bytes,
                               struct client_name **name)
{
    struct server *server = client->server;

    *name = client_name_find(client, text, bytes);
    if (*name != NULL && rewrite_has_to_wait(client, *name))
        return REWRITE_HOLD;
    if (*name == NULL || (*name)->statement == NULL)
        return fail(client, FAILURE_UNKNOWN, text, bytes);
    if (bytes == 0 && client->statements->is_unnamed_on_server) {
        server->statements->bound = NULL;
        server->statements->heal.is_known = false;
        *name = NULL;
        return REWRITE_PASS;
    }
    /* A description of it is on its way: prepared anew it might not be true any more. */
    if (unlikely((*name)->described_count > 0) && exchange_owed(&server->exchange) > 0 &&
        !is_usable(server, (*name)->statement))
        return REWRITE_HOLD;
    if (unlikely((*name)->statement->is_sql) && !send_own_is_possible(server) &&
        !is_usable(server, (*name)->statement))
        return fail(client, FAILURE_UNKNOWN, text,
                    bytes); /* it cannot be prepared in the middle of a batch */
    heal_begin(server);
    return make_usable(client, *name) ? REWRITE_PASS : out_of_memory(client);
}

/* A client that was told by Describe what its statement's result looks like does not ask again. PostgreSQL
 * holds it to that ("cached plan must not change result type"); but what is prepared here was prepared later,
 * maybe after DDL, or before DDL of which the client knows. So its shape is learned once for each server and
 * statement, before it is bound, and where it is another one it is prepared afresh: if it is still
 * another one then, the client gets PostgreSQL's error. */
static enum rewrite_result check_shape(struct client *client, const struct client_name *name,
                                       uint64_t shape)
{
    static const uint8_t flush[] = {'H', 0, 0, 0, 4};
    struct server *server = client->server;
    struct server_statements *statements = server->statements;
    struct statement *statement = name->statement;
    struct prepared *prepared = prepared_find(statements, &statement->digest);

    if (likely(shape == 0 || prepared->shape == shape) ||
        (server->status == 'E' && exchange_owed(&server->exchange) == 0) || statement->is_sql ||
        statements->failed == statements->batch + 1)
        return REWRITE_PASS;
    /* A Describe that is not answered yet will tell it what this server has. */
    if (name->described_count > 0)
        return exchange_owed(&server->exchange) > 0 ? REWRITE_HOLD : REWRITE_PASS;
    if (prepared->shape != 0) {
        if (prepared->serial != 0 && prepared->serial == client->statements->checked_serial)
            return fail(client, FAILURE_STALE, (const uint8_t *)name->text, name->bytes);
        if (!send_prepare(server, statement, EXPECT_PARSE_OURS, NULL))
            return out_of_memory(client);
    }
    if (prepared->state == PREPARED_PENDING && prepared->batch == statements->batch)
        client->statements->checked_serial = prepared->serial;
    if (!expect_description(server, EXPECT_SHAPE, NULL, statement) ||
        !send_named(server, 'D', statement->name) || !send_bytes(server, flush, sizeof(flush)))
        return out_of_memory(client);
    exchange_sent(&server->exchange,
                  'D'); /* the Bind has not been sent: its batch is open all the same */
    return REWRITE_HOLD;
}

bool rewrite_needs_next(struct client *client, const uint8_t *body, size_t body_bytes)
{
    const uint8_t *end = body + body_bytes;
    const uint8_t *text = string_end(body, end);
    const uint8_t *text_end = text != NULL ? string_end(text + 1, end) : NULL;
    const struct client_name *name = NULL;

    if (text_end != NULL && FRAME_HEADER_BYTES + body_bytes < CLIENT_HEAD_BYTES_MAX)
        name = client_name_find(client, text + 1, (size_t)(text_end - text - 1));
    return name != NULL && name->told.shape == 0 &&
           (name->told.portal_shape != 0 || name->told.was_bound);
}

static enum rewrite_result bind_message(struct client *client, const struct span *body,
                                        uint32_t body_bytes, size_t *replaced)
{
    const uint8_t *portal = body->buffer->data + body->offset;
    const uint8_t *end = portal + MIN(body->bytes, body_bytes);
    const uint8_t *portal_end = string_end(portal, end);
    const uint8_t *text = portal_end != NULL ? portal_end + 1 : NULL;
    const uint8_t *text_end = text != NULL ? string_end(text, end) : NULL;
    uint8_t head[CLIENT_HEAD_BYTES_MAX + STATEMENT_NAME_BYTES + 2];
    struct client_name *name;
    struct writer writer;
    enum rewrite_result result;

    if (text_end == NULL)
        return broken(client, broken_bind);
    *replaced = (size_t)(text_end + 1 - portal);
    result = use(client, text, (size_t)(text_end - text), &name);
    if (result == REWRITE_HOLD || result == REWRITE_CLOSED)
        return result;
    if (result == REWRITE_PASS && name != NULL) {
        /* What it was told of a portal counts if it does not ask again. */
        uint64_t shape = name->told.shape;

        if (shape == 0 && (body->bytes <= body_bytes || portal[body_bytes] != 'D'))
            shape = name->told.portal_shape;
        result = check_shape(client, name, shape);
        if (result == REWRITE_HOLD || result == REWRITE_CLOSED)
            return result;
    }
    client->pool->stats.bind_count++;
    if (result != REWRITE_PASS || name == NULL)
        return result;
    name->statement->bind_count++;
    heal_bind(client->server, name);
    client->server->statements->bound = name;
    writer_init(&writer, head, sizeof(head));
    writer_put_u8(&writer, 'B');
    writer_put_u32(&writer,
                   (uint32_t)(4 + body_bytes - (size_t)(text_end - text) + STATEMENT_NAME_BYTES));
    writer_put(&writer, portal, (size_t)(text - portal));
    writer_put_string(&writer, name->statement->name);
    if (writer.overflow)
        return broken(client, "portal name too long");
    return send_bytes(client->server, head, writer.bytes) ? REWRITE_DONE : out_of_memory(client);
}

/* The client is told what the result of its statement looks like. What this server's looks like is learned
 * once, if nothing else is described before it is answered, since then the answer can be told from others. */
static bool describe_portal(struct server *server)
{
    struct server_statements *statements = server->statements;
    struct client_name *name = statements->bound;
    bool is_first = !statements->heal.is_described && exchange_owed(&server->exchange) == 0 &&
                    statements->portal_batch != statements->batch + 1;

    statements->bound = NULL;
    statements->portal_batch = statements->batch + 1;
    statements->heal.is_described = true;
    statements->heal.is_open_bind = false;
    if (name != NULL && name->told.shape == 0) {
        const struct prepared *prepared = prepared_find(statements, &name->statement->digest);
        uint64_t shape = prepared != NULL ? prepared->shape : 0;

        if (shape != 0 && shape == name->told.portal_shape)
            return true;
        if (is_first)
            return expect_description(server, EXPECT_PORTAL, name, name->statement);
        name->told.portal_shape = 0; /* it will not be known */
    }
    return true;
}

static enum rewrite_result describe(struct client *client, const uint8_t *text, size_t bytes)
{
    struct client_name *name;
    enum rewrite_result result = use(client, text, bytes, &name);
    bool is_native;

    if (result != REWRITE_PASS)
        return result;
    client->server->statements->heal.is_described = true;
    is_native = name == NULL;
    if (is_native)
        name = &client->statements->unnamed;
    if (!expect_description(client->server, EXPECT_DESCRIBE, name, name->statement))
        return out_of_memory(client);
    if (is_native)
        return REWRITE_PASS;
    return send_named(client->server, 'D', name->statement->name) ? REWRITE_DROP
                                                                  : out_of_memory(client);
}

static enum rewrite_result close_statement(struct client *client, const uint8_t *text, size_t bytes)
{
    struct server *server = client->server;
    struct client_name *name = client_name_find(client, text, bytes);
    struct expectation *expectation;

    if (name != NULL && rewrite_has_to_wait(client, name))
        return REWRITE_HOLD;
    expectation = expect(server, EXPECT_CLOSE, name);
    if (expectation == NULL)
        return out_of_memory(client);
    if (name != NULL && name->statement != NULL) {
        expectation->statement = statement_reference(name->statement);
        expectation->told = name->told;
        client_name_set(client, name, NULL);
    }
    server->statements->bound = NULL;
    if (bytes == 0) {
        if (client->statements != NULL) {
            expectation->was_on_server = client->statements->is_unnamed_on_server;
            client->statements->is_unnamed_on_server = false;
        }
        return REWRITE_PASS;
    }
    heal_begin(server);
    return send_named(server, 'C', client_core(client)->statements.no_name) ? REWRITE_DROP
                                                                            : out_of_memory(client);
}

enum rewrite_result rewrite_message(struct client *client, uint8_t type, const struct span *body,
                                    uint32_t body_bytes, bool is_last, size_t *replaced)
{
    struct server *server = client->server;
    const uint8_t *data = body->buffer->data + body->offset;

    assert(client->tracks_statements);
    *replaced = body_bytes;
    if (unlikely(server->statements == NULL)) {
        if (server_statements_of(server) == NULL)
            return out_of_memory(client);
        server->statements->batch = exchange_owed(&server->exchange);
    }
    if (unlikely(server->exchange.is_lost))
        return broken(client, "lost track of prepared statements");
    if (server->statements->heal.state == HEAL_RECORDED)
        heal_sent(server, type); /* something follows a batch that is not answered */
    switch (type) {
    case 'Q':
        return rewrite_query(client, body, body_bytes);
    case 'P':
        return parse(client, body, body_bytes, is_last);
    case 'B':
        return bind_message(client, body, body_bytes, replaced);
    default:
        if (body_bytes < 2 || string_end(data + 1, data + body_bytes) != data + body_bytes - 1)
            return REWRITE_PASS; /* PostgreSQL has an error for it */
        if (data[0] == 'S')
            return type == 'D' ? describe(client, data + 1, body_bytes - 2)
                               : close_statement(client, data + 1, body_bytes - 2);
        if (type == 'D' && !describe_portal(server))
            return out_of_memory(client);
        if (type == 'C' && data[0] == 'P' && expect(server, EXPECT_CLOSE, NULL) == NULL)
            return out_of_memory(client);
        return REWRITE_PASS;
    }
}

void rewrite_sent(struct client *client, uint8_t type, bool is_owed)
{
    struct server *server = client->server;

    if (type == 'Q' && is_owed && client->statements != NULL) {
        /* PostgreSQL: exec_simple_query drops the unnamed statement. */
        client_name_set(client, &client->statements->unnamed, NULL);
        client->statements->is_unnamed_on_server = false;
        client->statements->is_unnamed_in_doubt = false;
        if (server->statements != NULL)
            client->statements->unnamed.batch = server->statements->batch;
    }
    if (server->statements == NULL) {
        /* What comes back may say that all is deallocated. */
        if (client->statements != NULL && server_statements_of(server) != NULL)
            server->statements->batch = exchange_owed(&server->exchange);
        return;
    }
    if (!rewrite_concerns(type))
        heal_sent(server, type);
    if (is_owed) {
        server->statements->batch++;
        server->statements->bound = NULL;
    }
}

bool rewrite_holds_what_follows(const struct client *client)
{
    const struct server_statements *statements = client->server->statements;

    return statements != NULL && statements->heal.state == HEAL_RECORDED &&
           statements->heal.has_unnamed;
}
