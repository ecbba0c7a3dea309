/* sharing_ask.c - what a client sends: may it share, and what is kept of it. */
#include "pool/client.h"
#include "pool/rewrite.h"
#include "pool/server.h"
#include "pool/sharing.h"

#include "base/bytes.h"

#include <string.h>

/* A client that goes on while its answer is pending sends in pipelines: its next exchanges go the ordinary
 * way, where nothing has to wait for an answer. */
enum { PIPELINE_MEMORY = 32 };

struct shared *sharing_new(struct core *core)
{
    struct shared *shared = slab_take(&core->shared);

    if (shared == NULL)
        return NULL;
    memset(shared, 0, sizeof(*shared));
    list_init(&shared->link);
    return shared;
}

void sharing_free(struct core *core, struct shared *shared)
{
    assert(list_is_empty(&shared->link));
    if (shared->client != NULL) {
        assert(shared->client->shared == shared);
        shared->client->shared = NULL;
    }
    if (shared->bytes != NULL)
        buffer_release(core->loop.buffers, shared->bytes);
    params_release(&core->params, shared->params);
    statement_release(core, shared->statement);
    span_queue_clear(&shared->collected, &core->loop);
    slab_give(&core->shared, shared);
}

/* ---- reading ---- */

struct batch {
    uint32_t text_at, text_bytes; /* Parse: the whole rest behind the name; without it 0 */
    uint32_t bind_at, bind_bytes;
    uint32_t name_at, name_bytes;
    bool has_parse, describes;
};

/* The message at `at` is whole: its body and what follows it. False: it is not. */
static bool message_at(const uint8_t *data, uint32_t bytes, uint32_t at, uint32_t *body,
                       uint32_t *next)
{
    uint32_t length;

    if (bytes - at < FRAME_HEADER_BYTES)
        return false;
    length = bytes_get_u32(data + at + 1);
    if (length < 4 || length > bytes - at - 1)
        return false;
    *body = at + FRAME_HEADER_BYTES;
    *next = at + 1 + length;
    return true;
}

/* [Parse ""] Bind "" [Describe portal ""] Execute "" without a limit, Sync, and nothing else. */
static bool batch_read(const uint8_t *data, uint32_t bytes, struct batch *batch)
{
    static const uint8_t describe[] = {'D', 0, 0, 0, 6, 'P', 0};
    static const uint8_t execute[] = {'E', 0, 0, 0, 9, 0, 0, 0, 0, 0};
    static const uint8_t sync[] = {'S', 0, 0, 0, 4};
    uint32_t at = 0, body, next;
    const uint8_t *zero;

    *batch = (struct batch){0};
    if (data[0] == 'P') {
        if (!message_at(data, bytes, at, &body, &next) || next - body < 4 || data[body] != 0)
            return false;
        batch->has_parse = true;
        batch->text_at = body + 1;
        batch->text_bytes = next - body - 1;
        at = next;
    }
    if (at >= bytes || data[at] != 'B' || !message_at(data, bytes, at, &body, &next) ||
        next - body < 4 || data[body] != 0)
        return false;
    batch->bind_at = at;
    batch->bind_bytes = next - at;
    batch->name_at = body + 1;
    zero = memchr(data + batch->name_at, 0, next - batch->name_at);
    if (zero == NULL)
        return false;
    batch->name_bytes = (uint32_t)(zero - data) - batch->name_at;
    at = next;
    if (bytes - at >= sizeof(describe) && memcmp(data + at, describe, sizeof(describe)) == 0) {
        batch->describes = true;
        at += sizeof(describe);
    }
    return bytes - at == sizeof(execute) + sizeof(sync) &&
           memcmp(data + at, execute, sizeof(execute)) == 0 &&
           memcmp(data + at + sizeof(execute), sync, sizeof(sync)) == 0;
}

static enum statement_class class_of(const struct client *client, const char *text, size_t bytes,
                                     uint64_t *hash)
{
    const char *strings = params_value(client->params, PARAM_STD_STRINGS);
    const char *encoding = params_value(client->params, PARAM_CLIENT_ENCODING);

    if (strings == NULL)
        return STATEMENT_DOUBT;
    return statement_class(text, bytes, strcmp(strings, "on") == 0,
                           encoding != NULL && strcasecmp(encoding, "UTF8") == 0, hash);
}

/* Looked at once: it is interned with the parameters that matter. */
static enum statement_class class_of_statement(const struct client *client,
                                               struct statement *statement)
{
    const struct span *first = statement->body.first;

    if (likely(statement->class != STATEMENT_UNKNOWN))
        return statement->class;
    statement->class = STATEMENT_DOUBT;
    if (!statement->is_sql && first->bytes > statement->text_bytes)
        statement->class =
            (uint8_t)class_of(client, (const char *)first->buffer->data + first->offset,
                              statement->text_bytes, &statement->class_hash);
    return statement->class;
}

static enum sharing_refusal refusal_of(enum statement_class class)
{
    switch (class) {
    case STATEMENT_NO_READ:
        return REFUSED_NO_READ;
    case STATEMENT_KEYWORD:
        return REFUSED_KEYWORD;
    case STATEMENT_FUNCTION:
        return REFUSED_FUNCTION;
    case STATEMENT_SEVERAL:
        return REFUSED_SEVERAL;
    default:
        return REFUSED_DOUBT;
    }
}

/* What the class' text looks like is kept when it is met for the first time. */
static bool learn_class(struct client *client, uint64_t hash, const char *text, size_t bytes)
{
    struct pool *pool = client->pool;
    struct core *core = pool->core;
    struct statement_time *time;
    bool is_new;

    if (unlikely(pool->sharing.times == NULL)) {
        pool->sharing.times = slab_take(&core->statement_times);
        if (pool->sharing.times == NULL)
            return false;
        memset(pool->sharing.times, 0, sizeof(*pool->sharing.times));
    }
    time = statement_times_make(pool->sharing.times, hash, core->loop.now_us, &is_new);
    if (unlikely(is_new)) {
        const char *strings = params_value(client->params, PARAM_STD_STRINGS);

        statement_class_text(text, bytes, strings != NULL && strcmp(strings, "on") == 0, time->text,
                             sizeof(time->text));
    }
    return true;
}

static bool refuse(struct client *client, enum sharing_refusal reason)
{
    client->pool->sharing.stats.refused[reason]++;
    return false;
}

static bool query_read(struct client *client, const uint8_t *data, uint32_t bytes,
                       struct shared *shared)
{
    const char *text = (const char *)data + FRAME_HEADER_BYTES;
    size_t text_bytes = bytes - FRAME_HEADER_BYTES - 1;
    enum statement_class class;

    if (unlikely(data[bytes - 1] != 0))
        return refuse(client, REFUSED_DOUBT);
    class = class_of(client, text, text_bytes, &shared->hash);
    if (class != STATEMENT_SHARES)
        return refuse(client, refusal_of(class));
    shared->kind = SHARED_QUERY;
    return learn_class(client, shared->hash, text, text_bytes);
}

/* A batch whose client has no names that we track. */
static bool untracked_read(struct client *client, const uint8_t *data, const struct batch *batch,
                           struct shared *shared)
{
    const char *text = (const char *)data + batch->text_at;
    const char *zero = memchr(text, 0, batch->text_bytes);
    enum statement_class class;

    if (!batch->has_parse || batch->name_bytes > 0)
        return refuse(client, REFUSED_STATEMENT);
    if (zero == NULL)
        return refuse(client, REFUSED_DOUBT);
    class = class_of(client, text, (size_t)(zero - text), &shared->hash);
    if (class != STATEMENT_SHARES)
        return refuse(client, refusal_of(class));
    return learn_class(client, shared->hash, text, (size_t)(zero - text));
}

/* The statement is shared->statement from now on, if it may be run this way. */
static bool tracked_read(struct client *client, struct buffer *buffer, const struct batch *batch,
                         struct shared *shared)
{
    struct core *core = client_core(client);
    const uint8_t *data = buffer->data;
    uint64_t params_hash = params_parse_hash(client->params);
    struct statement *statement;
    enum statement_class class;

    if (client_statements_of(client) == NULL)
        return false;
    if (batch->has_parse) {
        const struct span body = {
            .buffer = buffer, .offset = batch->text_at, .bytes = batch->text_bytes};
        uint32_t text_bytes;

        if (batch->name_bytes > 0 || !parse_body_read(&body, batch->text_bytes, &text_bytes))
            return refuse(client, REFUSED_STATEMENT);
        statement = statement_intern(core, &body, batch->text_bytes, text_bytes, params_hash);
        if (statement == NULL)
            return false;
        shared->statement = statement;
    } else {
        struct client_name *name =
            client_name_find(client, data + batch->name_at, batch->name_bytes);

        if (name == NULL || name->statement == NULL || name->unsettled_count > 0 ||
            name->described_count > 0 || name->statement->params_hash != params_hash)
            return refuse(client, REFUSED_STATEMENT);
        statement = statement_reference(name->statement);
        shared->statement = statement;
        shared->name = name;
        shared->wanted_shape = name->told.shape;
        if (shared->wanted_shape == 0 && !batch->describes)
            shared->wanted_shape = name->told.portal_shape;
    }
    class = class_of_statement(client, statement);
    if (class != STATEMENT_SHARES)
        return refuse(client, refusal_of(class));
    shared->is_named = !batch->has_parse || (core->snapshot->settings.cache_unnamed_statements &&
                                             rewrite_is_worth_caching(core, statement));
    shared->hash = statement->class_hash;
    return learn_class(client, shared->hash,
                       (const char *)statement->body.first->buffer->data +
                           statement->body.first->offset,
                       statement->text_bytes);
}

static bool batch_take(struct client *client, struct buffer *buffer, uint32_t bytes,
                       struct shared *shared)
{
    struct batch batch;

    if (!batch_read(buffer->data, bytes, &batch))
        return refuse(client, REFUSED_BATCH);
    shared->kind = SHARED_BATCH;
    shared->has_parse = batch.has_parse;
    shared->describes = batch.describes;
    shared->bind_at = batch.bind_at;
    shared->bind_bytes = batch.bind_bytes;
    shared->name_at = batch.name_at;
    shared->name_bytes = batch.name_bytes;
    if (rewrite_is_wanted(client))
        return tracked_read(client, buffer, &batch, shared);
    return untracked_read(client, buffer->data, &batch, shared);
}

static bool take(struct client *client, struct buffer *buffer, uint32_t bytes,
                 struct shared *shared)
{
    const uint8_t *data = buffer->data;
    uint32_t body, next;

    if (data[0] == 'Q') {
        if (!message_at(data, bytes, 0, &body, &next) || next != bytes)
            return refuse(client, REFUSED_PIECES);
        if (client_core(client)->snapshot->settings.disable_pqexec || next - body < 1)
            return false;
        return query_read(client, data, bytes, shared);
    }
    if (data[0] == 'P' || data[0] == 'B')
        return batch_take(client, buffer, bytes, shared);
    return false;
}

bool sharing_try(struct client *client, struct buffer *buffer, uint32_t bytes)
{
    struct core *core = client_core(client);
    struct pool *pool = client->pool;
    struct shared *shared;

    assert(client->state == CLIENT_IDLE);
    assert(client->parked.first == NULL);
    assert(client->shared == NULL);
    if (client->frame.held_count > 0 || client->frame.body_left > 0 ||
        (client->statements != NULL && client->statements->partial.first != NULL))
        return refuse(client, REFUSED_PIECES);
    if (bytes < FRAME_HEADER_BYTES || bytes > SHARED_BYTES_MAX ||
        bytes > core->snapshot->settings.max_packet_size)
        return refuse(client, REFUSED_PIECES);
    if (unlikely(client->pipelines > 0)) {
        client->pipelines--;
        return refuse(client, REFUSED_CLIENT);
    }
    if (conn_is_full(&client->conn))
        return refuse(client, REFUSED_CLIENT);
    shared = sharing_new(core);
    if (shared == NULL)
        return false;
    shared->client = client;
    client->shared = shared;
    if (!take(client, buffer, bytes, shared))
        goto refused;
    shared->bytes = buffer_park(core->loop.buffers, bytes);
    if (shared->bytes == NULL)
        goto refused;
    memcpy(shared->bytes->data, buffer->data, bytes);
    shared->byte_count = bytes;
    client->query_since_us = core->loop.now_us;
    client->xact_since_us = core->loop.now_us;
    pool->stats.query_count++;
    pool->stats.xact_count++;
    pool->sharing.stats.shared_count++;
    if (!sharing_place(pool, shared)) {
        /* Nobody waits for it yet, unless it waits in line now. */
        if (client->shared == shared && client->state == CLIENT_IDLE)
            pool_wait_in_line(pool, client);
    }
    return true;
refused:
    sharing_free(core, shared);
    return false;
}

void sharing_goes_on(struct client *client)
{
    client->pipelines = PIPELINE_MEMORY;
}

/* What it asked comes first of what it has sent. False: no memory, it is closed. */
static bool unread(struct client *client, struct shared *shared)
{
    struct conn_loop *loop = client->conn.loop;
    struct span_queue rest = client->parked;
    bool pushed;

    client->parked = (struct span_queue){0};
    pushed = span_queue_push(&client->parked, loop, shared->bytes, 0, shared->byte_count);
    span_queue_join(&client->parked, &rest);
    if (!pushed)
        client_close_error(client, "out of memory", NULL);
    return pushed;
}

bool sharing_make_ordinary(struct client *client)
{
    struct shared *shared = client->shared;
    bool unread_it;

    assert(shared->server == NULL);
    client->shared = NULL;
    shared->client = NULL;
    if (client->state == CLIENT_WAITING && shared_may_join(shared)) {
        assert(client->pool->sharing.waiting_count > 0);
        client->pool->sharing.waiting_count--;
    }
    unread_it = unread(client, shared);
    sharing_free(client_core(client), shared);
    return unread_it;
}

void sharing_client_leaves(struct client *client)
{
    struct shared *shared = client->shared;
    struct server *server = shared->server;
    struct core *core = client_core(client);

    if (server == NULL) {
        if (client->state == CLIENT_WAITING && shared_may_join(shared)) {
            assert(client->pool->sharing.waiting_count > 0);
            client->pool->sharing.waiting_count--;
        }
        sharing_free(core, shared);
        return;
    }
    client->pool->stats.server_assignment_count++;
    client->shared = NULL;
    shared->client = NULL;
    shared->name = NULL;
    buffer_release(core->loop.buffers, shared->bytes);
    shared->bytes = NULL;
    span_queue_clear(&shared->collected, &core->loop);
    if (sharing_oldest(&server->shared) != shared)
        return;
    client->is_mid_answer =
        shared->has_begun && server->forwards_message && server->frame.body_left > 0;
    /* It held the server back, if it read slowly. */
    conn_resume(&server->conn);
    /* A short one is read and thrown away. What may run for long is not waited for. */
    if (server->shared_count == 1 && !shared->is_followed)
        server_close(server, "client disconnected with query in progress");
    else
        sharing_arm_overrun(server);
}

void sharing_timed_out(struct client *client, const char *reason)
{
    struct server *server = client->shared->server;

    client_close_error(client, reason, NULL);
    /* What runs there is nobody's any more, and the others are asked again. */
    server_close(server, reason);
}
