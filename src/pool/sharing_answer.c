/* sharing_answer.c - what a shared server sends: whose it is, and whether it goes out. Everything is the
 * oldest exchange's, and ReadyForQuery ends that. */
#include "pool/client.h"
#include "pool/lending.h"
#include "pool/server.h"
#include "pool/server_statements.h"
#include "pool/sharing.h"

#include "base/bytes.h"

#include <string.h>

static const char out_of_turn[] = "unexpected answer of a shared server";

/* Nothing of it goes to the client any more. */
static void spoil(struct server *server, struct shared *shared, enum shared_again how)
{
    assert(!shared->has_begun);
    if (shared->again == AGAIN_NO || how > shared->again)
        shared->again = (uint8_t)how;
    span_queue_clear(&shared->collected, server->conn.loop);
}

static bool is_for_client(const struct shared *shared)
{
    return shared->client != NULL && shared->again == AGAIN_NO;
}

/* ---- passing on ---- */

static void collect(struct server *server, struct shared *shared, const void *data, size_t bytes)
{
    if (shared->collected.bytes + bytes > SHARED_COLLECTED_BYTES_MAX)
        /* Alone it would be collected again, if it was for a notice. */
        spoil(server, shared, shared->is_alone ? AGAIN_ORDINARY : AGAIN_ALONE);
    else if (!span_queue_push_copy(&shared->collected, server->conn.loop, data, bytes))
        server_close(server, "out of memory");
}

/* Its client does not read: the others do not wait for it. */
static void client_is_full(struct server *server)
{
    conn_pause(&server->conn);
    if (server->shared_count > 1)
        sharing_move(server, false);
}

/* The client's Parse was not sent: what answers its Bind answers that, too. */
static void pay_parse_complete(struct server *server, struct shared *shared)
{
    static const uint8_t parse_complete[] = {'1', 0, 0, 0, 4};

    if (likely(!shared->owes_parse_complete || !shared->is_bound))
        return;
    shared->owes_parse_complete = false;
    sharing_forward_copy(server, parse_complete, sizeof(parse_complete));
}

void sharing_forward(struct server *server, struct buffer *buffer, size_t from, size_t to)
{
    struct shared *shared = sharing_oldest(&server->shared);
    struct client *client = shared->client;

    if (from == to || !is_for_client(shared))
        return;
    pay_parse_complete(server, shared);
    if (unlikely(server->state != SERVER_SHARED || shared->again != AGAIN_NO))
        return;
    if (unlikely(shared->collects)) {
        collect(server, shared, buffer->data + from, to - from);
        return;
    }
    shared->has_begun = true;
    if (unlikely(!conn_push(&client->conn, buffer, (uint32_t)from, (uint32_t)(to - from)))) {
        server_close(server, "out of memory");
        return;
    }
    if (unlikely(conn_is_full(&client->conn)))
        client_is_full(server);
}

void sharing_forward_copy(struct server *server, const void *data, size_t bytes)
{
    struct shared *shared = sharing_oldest(&server->shared);

    if (is_for_client(shared))
        pay_parse_complete(server, shared);
    if (server->state != SERVER_SHARED || !is_for_client(shared))
        return;
    if (shared->collects) {
        collect(server, shared, data, bytes);
        return;
    }
    shared->has_begun = true;
    if (!conn_push_copy(&shared->client->conn, data, bytes))
        server_close(server, "out of memory");
}

void sharing_pass_parameter(struct server *server, const uint8_t *body, size_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES] = {'S'};
    const struct shared *shared = sharing_oldest(&server->shared);

    if (shared->kind == SHARED_SET || shared->client == NULL)
        return;
    bytes_put_u32(header + 1, (uint32_t)(4 + bytes));
    if (!conn_push_copy(&shared->client->conn, header, sizeof(header)) ||
        !conn_push_copy(&shared->client->conn, body, bytes))
        server_close(server, "out of memory");
}

struct client *sharing_parameter_changed(struct server *server)
{
    const struct shared *shared = sharing_oldest(&server->shared);

    if (shared->kind == SHARED_SET)
        return NULL;
    server->params_changed = true;
    sharing_close_queue(server);
    return shared->client;
}

/* ---- messages ---- */

/* A longer one is not looked at: none that means anything to us is as long. */
static bool is_too_long(const struct server *server)
{
    return server->frame.body_left > GATHER_BYTES_MAX;
}

/* An error may have the value in it that it complains of. It ends no session, and is no cancel request's. */
static void long_error_began(struct server *server, struct shared *shared)
{
    if (shared->kind == SHARED_SET) {
        server_close(server, out_of_turn);
        return;
    }
    if (!is_for_client(shared))
        return;
    if (shared->kind == SHARED_BATCH && !shared->is_bound)
        spoil(server, shared, AGAIN_ORDINARY);
    else
        server->forwards_message = true;
}

/* Of a table with very many columns: not remembered, so it is not the one that a client relies on. */
static void shape_is_too_long(struct server *server, struct shared *shared)
{
    shared->learns_shape = false;
    if (!shared->awaits_shape)
        return;
    shared->awaits_shape = false;
    if (is_for_client(shared))
        spoil(server, shared, AGAIN_ORDINARY);
}

enum place { PLACE_CLIENT, PLACE_NOBODY, PLACE_WRONG };

/* A message that answers something, and where it may stand. */
static enum place place_of(struct shared *shared, uint8_t type)
{
    bool is_batch = shared->kind == SHARED_BATCH;

    if (shared->kind == SHARED_SET) {
        if (type == 'C')
            shared->phase = PHASE_COMPLETE;
        return shared->phase == PHASE_COMPLETE && (type == 'C' || type == 'Z') ? PLACE_NOBODY
                                                                               : PLACE_WRONG;
    }
    switch (type) {
    case '1':
    case '3':
        if (!is_batch || shared->phase != PHASE_START)
            return PLACE_WRONG;
        if (shared->swallow_count > 0) {
            shared->swallow_count--;
            return PLACE_NOBODY;
        }
        return type == '1' && shared->has_parse && !shared->is_named ? PLACE_CLIENT : PLACE_WRONG;
    case 't':
        return is_batch && shared->awaits_shape ? PLACE_NOBODY : PLACE_WRONG;
    case 'n':
    case 'T':
        if (is_batch && shared->awaits_shape)
            return PLACE_NOBODY;
        if (is_batch ? shared->phase != PHASE_BOUND || !shared->describes
                     : shared->phase != PHASE_START)
            return PLACE_WRONG;
        shared->phase = PHASE_ROWS;
        return PLACE_CLIENT;
    case '2':
        if (!is_batch || shared->phase != PHASE_START || shared->swallow_count > 0)
            return PLACE_WRONG;
        shared->phase = PHASE_BOUND;
        shared->is_bound = true;
        return PLACE_CLIENT;
    case 'D':
        return shared->phase == PHASE_ROWS || (shared->phase == PHASE_BOUND && !shared->describes)
                   ? PLACE_CLIENT
                   : PLACE_WRONG;
    case 'C':
        if (shared->phase == PHASE_COMPLETE || (is_batch && shared->phase == PHASE_START))
            return PLACE_WRONG;
        shared->phase = PHASE_COMPLETE;
        return PLACE_CLIENT;
    case 'Z':
        return shared->phase == PHASE_COMPLETE ? PLACE_CLIENT : PLACE_WRONG;
    default:
        return PLACE_WRONG;
    }
}

void sharing_message_began(struct server *server, uint8_t type)
{
    struct shared *shared = sharing_oldest(&server->shared);
    bool is_wanted = is_for_client(shared);
    bool awaited_shape = shared->awaits_shape;
    enum place place;

    server->looks_at_body = false;
    switch (type) {
    case 'S':
        /* server.c passes it on: it does not count as a part of the answer. */
        server->looks_at_body = true;
        server->forwards_message = false;
        return;
    case 'A':
    case 'N':
        /* It may be the first word of a server that ends: then nobody has heard it. */
        if (is_wanted && !shared->has_begun)
            shared->collects = true;
        server->forwards_message = is_wanted;
        server->looks_at_body = type == 'N' && !shared->has_begun && !is_too_long(server);
        return;
    case 'E':
        if (unlikely(shared->phase == PHASE_COMPLETE && shared->kind != SHARED_SET)) {
            /* Its last word may come before ReadyForQuery. What came with it in one receive has not gone out. */
            shared->is_past_end = server->looks_at_body = true;
            shared->collects |= is_wanted && !shared->has_begun;
            server->forwards_message = false;
            return;
        }
        /* Whether it is its client's is known when it is there as a whole; not any more when something went
         * out before. What came with it in one receive has not, and does not if the server ends with this:
         * a backend that is terminated while it runs has said RowDescription, often. */
        if (unlikely(!shared->has_begun && is_too_long(server))) {
            server->forwards_message = false;
            shared->phase = PHASE_COMPLETE;
            long_error_began(server, shared);
            return;
        }
        shared->collects |= is_wanted && !shared->has_begun;
        server->looks_at_body = !shared->has_begun;
        server->forwards_message = is_wanted && shared->has_begun;
        shared->phase = PHASE_COMPLETE;
        return;
    default:
        break;
    }
    place = place_of(shared, type);
    if (unlikely(place == PLACE_WRONG)) {
        server->forwards_message = false;
        /* Of what came before it in this receive a part may not have gone out: nothing may follow that. */
        if (shared->client != NULL && shared->has_begun)
            shared->client->is_mid_answer = true;
        server_log(server, LEVEL_WARNING, "%s: '%c'", out_of_turn,
                   type >= ' ' && type < 0x7f ? type : '?');
        server_close(server, out_of_turn);
        return;
    }
    server->forwards_message = is_wanted && place == PLACE_CLIENT;
    if (type == 'Z') {
        server->looks_at_body = true;
    } else if (type == 'T' || type == 'n') {
        server->looks_at_body =
            type == 'T' && (awaited_shape || shared->learns_shape) && !is_too_long(server);
        if (type == 'T' && is_too_long(server))
            shape_is_too_long(server, shared);
        else if (type == 'n' && (awaited_shape || shared->learns_shape))
            sharing_message_complete(server, 'n', NULL, 0);
    }
}

/* What the statement's result looks like on this server. */
static void shape_is_known(struct server *server, struct shared *shared, const uint8_t *body,
                           size_t bytes)
{
    uint64_t shape = shape_of(&server_core(server)->statements, body, bytes);
    struct prepared *prepared = prepared_find(server->statements, &shared->statement->digest);

    if (prepared != NULL)
        prepared->shape = shape;
    shared->shape = shape;
    shared->learns_shape = false;
    if (!shared->awaits_shape)
        return;
    shared->awaits_shape = false;
    if (shape != shared->wanted_shape && is_for_client(shared))
        spoil(server, shared, AGAIN_ORDINARY);
}

static void pass_on_error(struct server *server, const uint8_t *body, size_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES] = {'E'};

    bytes_put_u32(header + 1, (uint32_t)(4 + bytes));
    sharing_forward_copy(server, header, sizeof(header));
    if (server->state == SERVER_SHARED)
        sharing_forward_copy(server, body, bytes);
}

/* A statement of ours may not be there, or be of no use. */
static void doubt_prepared(struct server *server, const struct shared *shared)
{
    struct prepared *prepared = server->statements != NULL
                                    ? prepared_find(server->statements, &shared->statement->digest)
                                    : NULL;

    if (prepared != NULL)
        prepared_doubt(server->statements, prepared);
}

/* A client that has run a statement, and does not ask what its result looks like, hears that it has changed; with
 * heal_statements = 0 in any case (heal.h). Then nothing is doubted, and the ordinary way meets the same error. */
static bool is_told_of_changes(const struct server *server, const struct shared *shared,
                               const char *sqlstate)
{
    bool heals = server_core(server)->snapshot->settings.heal_statements;

    return strcmp(sqlstate, "0A000") == 0 && shared->name != NULL && shared->name->told.was_bound &&
           (!heals || !shared->describes);
}

/* Nothing of the answer has been passed on. */
static void error_complete(struct server *server, const uint8_t *body, size_t bytes)
{
    struct shared *shared = sharing_oldest(&server->shared);
    bool was_bound = shared->kind != SHARED_BATCH || shared->is_bound;
    struct error_fields fields;

    if (!error_fields_read(body, bytes, &fields)) {
        server_close(server, "broken ErrorResponse");
        return;
    }
    if (strcmp(fields.fixed_severity, "FATAL") == 0 ||
        strcmp(fields.fixed_severity, "PANIC") == 0) {
        server_log(server, LEVEL_WARNING, "server ended its session: %s %s", fields.severity,
                   fields.message);
        server->was_terminated = strncmp(fields.sqlstate, "57P", 3) == 0;
        server_close(server, "server conn crashed?");
        return;
    }
    if (unlikely(shared->is_past_end)) {
        server_close(server, out_of_turn);
        return;
    }
    if (shared->kind == SHARED_SET) {
        server_log(server, LEVEL_WARNING, "setting parameters failed: %s %s", fields.severity,
                   fields.message);
        shared->has_failed = true;
        return;
    }
    if (shared->is_named && !was_bound && !is_told_of_changes(server, shared, fields.sqlstate))
        doubt_prepared(server, shared);
    if (!is_for_client(shared))
        return;
    if (shared->may_be_hit && strcmp(fields.sqlstate, "57014") == 0) {
        server->pool->sharing.stats.again_canceled++;
        spoil(server, shared, AGAIN_ELSEWHERE);
    } else if (!was_bound) {
        /* Whatever it is, the ordinary way knows what to make of it: names, healing. */
        spoil(server, shared, AGAIN_ORDINARY);
    } else {
        pass_on_error(server, body, bytes);
    }
}

/* PostgreSQL says so to its other backends when one of them has crashed: they end, and are not to blame. */
static void notice_complete(struct server *server, const uint8_t *body, size_t bytes)
{
    struct error_fields fields;

    if (error_fields_read(body, bytes, &fields) && strcmp(fields.sqlstate, "57P02") == 0)
        server->was_terminated = true;
}

/* The client has its answer: its unnamed statement, and what it was told. */
static void account_statements(struct client *client, struct shared *shared)
{
    struct client_statements *statements = client->statements;
    struct client_name *name = shared->name;

    if (statements == NULL)
        return;
    if (shared->kind == SHARED_QUERY || shared->has_parse) {
        client_name_set(client, &statements->unnamed,
                        shared->statement != NULL ? statement_reference(shared->statement) : NULL);
        statements->is_unnamed_on_server = false;
        statements->is_unnamed_in_doubt = false;
        name = &statements->unnamed;
    }
    if (shared->statement == NULL)
        return;
    if (shared->has_parse && shared->is_named)
        client->pool->stats.client_parse_count++;
    client->pool->stats.bind_count++;
    shared->statement->bind_count++;
    name->told.was_bound = true;
    if (shared->describes && shared->shape != 0 && name->told.shape == 0)
        name->told.portal_shape = shared->shape;
}

static void account_time(struct server *server, const struct shared *shared)
{
    struct pool *pool = server->pool;
    struct sharing *sharing = &pool->sharing;
    uint64_t now_us = pool->core->loop.now_us;
    uint64_t took_us = now_us - shared->since_us;
    struct statement_time *time;

    if (shared->kind == SHARED_SET)
        return;
    time = statement_times_find(sharing->times, shared->hash, now_us);
    if (time != NULL)
        statement_times_note(time, took_us, shared->was_first,
                             sharing_crowds(&pool->sharing, took_us));
    if (!sharing->are_few)
        sharing_policy_answered(&sharing->policy, now_us, took_us,
                                time != NULL ? time->floor_us : 0, sharing->server_count,
                                sharing->queued_count);
}

static bool send_collected(struct shared *shared)
{
    struct conn *conn = &shared->client->conn;

    for (struct span *span = shared->collected.first; span != NULL; span = span->next)
        if (!conn_push(conn, span->buffer, span->offset, span->bytes))
            return false;
    return true;
}

/* After SET: the client behind it goes by the server's spelling. */
static void set_is_done(struct server *server, struct shared *set)
{
    const struct shared *next = sharing_oldest(&server->shared);

    if (set->has_failed) {
        server->has_failed_set = true;
        server_close(server, "invalid server parameter");
    } else if (next->client != NULL && !server_adopt_params(server, next->client)) {
        server_close(server, "failed to store ParameterStatus");
    }
}

/* ReadyForQuery of the oldest. */
static void answered(struct server *server)
{
    struct core *core = server_core(server);
    struct pool *pool = server->pool;
    struct shared *shared = sharing_oldest(&server->shared);
    struct client *client = shared->client;
    enum shared_again again = shared->again;
    uint64_t now_us = core->loop.now_us;

    if (server->status != 'I') {
        server_close(server, out_of_turn);
        return;
    }
    account_time(server, shared);
    if (pool->sharing.move_budget < SHARED_MOVE_BUDGET_MAX)
        pool->sharing.move_budget++;
    list_remove(&shared->link);
    shared->server = NULL;
    server->shared_count--;
    sharing_count_queued(pool, -1);
    server->ahead_us -= shared->floor_us;
    sharing_next(server);
    /* Its client may have been slow to read; whoever is the next need not be. */
    conn_resume(&server->conn);
    if (shared->kind == SHARED_SET) {
        set_is_done(server, shared);
        sharing_free(core, shared);
        return;
    }
    if (client != NULL && again == AGAIN_NO) {
        bool sent = !shared->collects || send_collected(shared);

        pool->stats.server_assignment_count++;
        pool->stats.query_us += now_us - client->query_since_us;
        pool->stats.xact_us += now_us - client->xact_since_us;
        account_statements(client, shared);
        client->shared = NULL;
        shared->client = NULL;
        if (!sent)
            client_close_error(client, "out of memory", NULL);
    }
    if (client == NULL || again == AGAIN_NO) {
        sharing_free(core, shared);
        shared = NULL;
    }
    if (server->shared_count == 0)
        server_shared_over(server);
    else if (unlikely(server->params_changed))
        server_close(server, "parameters changed under shared exchanges");
    else if (unlikely(pool->waiting_count > 0 || lending_is_overdue(pool)))
        sharing_serve_waiters(pool);
    if (client == NULL || client->state != CLIENT_SHARED)
        return;
    if (shared == NULL) {
        client_shared_over(client);
    } else {
        sharing_reset(shared);
        sharing_ask_again(shared, again);
    }
}

void sharing_message_complete(struct server *server, uint8_t type, const uint8_t *body,
                              size_t bytes)
{
    struct shared *shared = sharing_oldest(&server->shared);

    switch (type) {
    case 'N':
        notice_complete(server, body, bytes);
        break;
    case 'E':
        error_complete(server, body, bytes);
        break;
    case 'T':
    case 'n':
        shape_is_known(server, shared, body, bytes);
        break;
    default:
        assert(type == 'Z');
        answered(server);
        break;
    }
}
