#include "pool/heal.h"

#include "pool/client.h"
#include "pool/rewrite.h"
#include "pool/statement_send.h"

/* PostgreSQL: the function that finds a plan out of date (field R of the error). */
static const char stale_plan_routine[] = "RevalidateCachedQuery";

static const char out_of_step[] = "answers of the server are out of step";

static const uint8_t sync_message[] = {'S', 0, 0, 0, 4};

static void heal_forget(struct server *server)
{
    struct heal *heal = &server->statements->heal;

    for (unsigned i = 0; i < heal->used_count; i++)
        statement_release(server_core(server), heal->used[i]);
    heal->used_count = 0;
    heal->batch_bytes = 0;
    heal->state = HEAL_NONE;
}

void heal_begin(struct server *server)
{
    struct heal *heal = &server->statements->heal;

    if (heal->state != HEAL_NONE && heal->state != HEAL_RECORDED)
        return;
    heal_forget(server);
    if (server->status != 'I' || !exchange_is_answered(&server->exchange))
        return;
    heal->state = HEAL_RECORDING;
    heal->answer_count = 0;
    heal->is_repeated = false;
    heal->has_unnamed = false;
    heal->is_bound = false;
    heal->is_described = false;
    heal->is_known = false;
    heal->is_open_bind = false;
    heal->is_relied_on = false;
}

void heal_use(struct server *server, struct statement *statement, bool is_unnamed)
{
    struct heal *heal = &server->statements->heal;

    if (heal->state != HEAL_RECORDING)
        return;
    heal->has_unnamed |= is_unnamed;
    for (unsigned i = 0; i < heal->used_count; i++)
        if (heal->used[i] == statement)
            return;
    if (heal->used_count == HEAL_STATEMENTS_MAX || statement->is_sql) {
        heal_forget(server);
        return;
    }
    heal->used[heal->used_count++] = statement_reference(statement);
}

void heal_bind(struct server *server, struct client_name *name)
{
    struct heal *heal = &server->statements->heal;

    heal->is_known = name->told.was_bound || name->told.shape != 0;
    heal->is_open_bind = heal->is_known && !heal->is_described;
    if (name->told.shape != 0 ||
        (name->told.was_bound && !server_core(server)->snapshot->settings.heal_statements))
        heal->is_relied_on = true;
    name->told.was_bound = true;
}

void heal_sent(struct server *server, uint8_t type)
{
    struct heal *heal = &server->statements->heal;

    if (type == 'E') {
        heal->is_relied_on |= heal->is_known && !heal->is_described;
        heal->is_described = false;
        heal->is_open_bind = false;
    }

    if (heal->state == HEAL_RECORDING && (type == 'Q' || type == 'F'))
        heal_forget(server);
    else if (heal->state == HEAL_RECORDING && type == 'S')
        heal->state = HEAL_RECORDED;
    else if (heal->state == HEAL_RECORDED)
        heal_forget(server);
}

void heal_keep(struct server *server, const void *data, size_t bytes)
{
    struct heal *heal = &server->statements->heal;
    struct buffer_pool *buffers = server->conn.loop->buffers;

    if (heal->state != HEAL_RECORDING && heal->state != HEAL_RECORDED)
        return;
    if (heal->batch == NULL || bytes > heal->batch->bytes_max - heal->batch_bytes) {
        size_t wanted = (size_t)heal->batch_bytes + bytes;
        struct buffer *larger = NULL;

        if (wanted <= BUFFER_PARKED_BYTES_MAX)
            larger = buffer_park(buffers, MAX(wanted, (size_t)512));
        if (larger == NULL) {
            heal_forget(server);
            return;
        }
        if (heal->batch != NULL) {
            memcpy(larger->data, heal->batch->data, heal->batch_bytes);
            buffer_release(buffers, heal->batch);
        }
        heal->batch = larger;
    }
    memcpy(heal->batch->data + heal->batch_bytes, data, bytes);
    heal->batch_bytes += (uint32_t)bytes;
}

/* Everything that was prepared again is there. */
static void skipping_done(struct server *server)
{
    struct heal *heal = &server->statements->heal;

    for (unsigned i = 0; i < heal->used_count; i++) {
        struct prepared *prepared = prepared_find(server->statements, &heal->used[i]->digest);

        if (prepared != NULL && prepared->state == PREPARED_UNSURE)
            prepared->state = PREPARED_SURE;
    }
    heal_forget(server);
}

bool heal_takes(struct server *server, uint8_t type)
{
    struct heal *heal = &server->statements->heal;

    if (type == 'N' || type == 'A' || type == 'S')
        return false;
    switch (heal->state) {
    case HEAL_NONE:
        return false;
    case HEAL_RECORDING:
    case HEAL_RECORDED:
        if (type == '1' || type == '2' || type == '3' || type == 't' || type == 'n') {
            heal->answer_count++;
            heal->is_bound |= type == '2';
        } else if (type != 'E') {
            heal_forget(server);
        }
        return false;
    case HEAL_SYNCING:
        if (type == 'Z')
            return true;
        if (type == 'E') {
            heal_forget(server); /* the server's last words */
            return false;
        }
        server->forwards_message = false;
        server_close(server, out_of_step);
        return false;
    case HEAL_CHECKING:
        if (type == 'E') {
            /* It cannot be prepared any more: that is what the client is told. */
            if (heal->has_sync &&
                !conn_push_copy(&server->conn, sync_message, sizeof(sync_message)))
                server_close(server, "out of memory");
            else
                heal_forget(server);
            return false;
        }
        if (type == 'n')
            heal_checked(server, NULL, 0);
        return true;
    case HEAL_SKIPPING:
        if (type == 'E') {
            heal_forget(server);
            return false;
        }
        if (type != '1' && type != '2' && type != '3' && type != 't' && type != 'n') {
            server->forwards_message = false;
            server_close(server, out_of_step);
            return false;
        }
        if (--heal->skip_count == 0)
            skipping_done(server);
        return true;
    }
    return false;
}

/* One of our statements cannot be run as it is. */
static bool is_of_statement(const struct error_fields *fields)
{
    if (strcmp(fields->sqlstate, "0A000") == 0)
        return strcmp(fields->routine, stale_plan_routine) == 0;
    return strcmp(fields->sqlstate, "26000") == 0 &&
           strstr(fields->message, STATEMENT_NAME_PREFIX) != NULL;
}

/* What a fresh Parse might have said, or not. */
static bool is_of_parse(const struct heal *heal, const struct error_fields *fields)
{
    return heal->has_unnamed && !heal->is_bound &&
           (strncmp(fields->sqlstate, "42", 2) == 0 || strncmp(fields->sqlstate, "22", 2) == 0);
}

bool heal_error(struct server *server, const uint8_t *body, size_t bytes)
{
    struct heal *heal = &server->statements->heal;
    struct client *client = server->client;
    struct error_fields fields;

    if (!error_fields_read(body, bytes, &fields))
        return false;
    if (is_of_statement(&fields))
        server_statements_doubt(server); /* in a transaction, too: which one it was is not said */
    if (heal->state != HEAL_RECORDING && heal->state != HEAL_RECORDED)
        return false;
    heal->is_relied_on |= heal->is_open_bind;
    if (heal->used_count == 0 || heal->is_repeated || client->frame.body_left > 0 ||
        (heal->is_relied_on && strcmp(fields.sqlstate, "26000") != 0) ||
        !(is_of_statement(&fields) || is_of_parse(heal, &fields))) {
        heal_forget(server);
        return false;
    }
    if (heal->state == HEAL_RECORDING &&
        !conn_push_copy(&server->conn, sync_message, sizeof(sync_message))) {
        heal_forget(server);
        return false;
    }
    heal->has_sync = heal->state == HEAL_RECORDED;
    heal->state = HEAL_SYNCING;
    server->exchange.is_skipping = false; /* not for what the client sends */
    heal->is_repeated = true;
    client->is_held_back = true;
    return true;
}

/* What the client was told of their portals is not true any more. */
static void forget_portals(struct server *server)
{
    const struct heal *heal = &server->statements->heal;
    struct client_statements *statements = server->client->statements;

    hash_table_for_each(link, &statements->names)
    {
        struct client_name *name = OWNER_OF(link, struct client_name, link);

        for (unsigned i = 0; i < heal->used_count; i++)
            if (name->statement == heal->used[i])
                name->told.portal_shape = 0;
    }
    statements->unnamed.told.portal_shape = 0;
}

static void send_batch(struct server *server)
{
    struct heal *heal = &server->statements->heal;

    if (!conn_push_copy(&server->conn, heal->batch->data, heal->batch_bytes)) {
        server_close(server, "out of memory");
        return;
    }
    if (heal->skip_count > 0)
        heal->state = HEAL_SKIPPING;
    else
        heal_forget(server);
    client_release_held(server->client);
}

void heal_checked(struct server *server, const uint8_t *body, size_t bytes)
{
    struct core *core = server_core(server);
    struct server_statements *statements = server->statements;
    struct heal *heal = &statements->heal;
    uint64_t shape = shape_of(&core->statements, body, bytes);
    unsigned index = heal->checked_count++;
    struct prepared *prepared = prepared_find(statements, &heal->used[index]->digest);
    bool sent;

    if (prepared != NULL) {
        prepared->state = PREPARED_SURE;
        prepared->shape = shape;
    }
    heal->has_changed |= heal->used_shapes[index] != 0 && heal->used_shapes[index] != shape;
    if (heal->checked_count < heal->used_count)
        return;
    if (!heal->has_changed) {
        heal->skip_count = heal->answer_count;
        send_batch(server);
        return;
    }
    sent = rewrite_expect_failure(server, FAILURE_STALE, "", 0) &&
           send_named(server, 'D', core->statements.no_name) &&
           (!heal->has_sync || conn_push_copy(&server->conn, sync_message, sizeof(sync_message)));
    heal_forget(server);
    if (!sent)
        server_close(server, "out of memory");
}

/* The client relies on what it was told: what is prepared now may be another one. */
static void start_check(struct server *server)
{
    static const uint8_t flush[] = {'H', 0, 0, 0, 4};
    struct heal *heal = &server->statements->heal;
    bool sent = true;

    heal->state = HEAL_CHECKING;
    heal->checked_count = 0;
    heal->has_changed = false;
    for (unsigned i = 0; sent && i < heal->used_count; i++) {
        struct prepared *prepared = prepared_find(server->statements, &heal->used[i]->digest);

        heal->used_shapes[i] = prepared != NULL ? prepared->shape : 0;
        sent = send_prepare_again(server, heal->used[i]) &&
               send_named(server, 'D', heal->used[i]->name);
    }
    if (!sent || !conn_push_copy(&server->conn, flush, sizeof(flush)))
        server_close(server, "out of memory");
}

void heal_repeat(struct server *server)
{
    struct heal *heal = &server->statements->heal;

    assert(heal->state == HEAL_SYNCING);
    if (server->status != 'I') {
        server_close(server, out_of_step);
        return;
    }
    server_log(server, LEVEL_DEBUG, "statements are prepared again, to repeat a batch");
    if (heal->is_relied_on) {
        start_check(server);
        return;
    }
    forget_portals(server);
    heal->skip_count = heal->answer_count;
    heal->state = HEAL_SKIPPING;
    for (unsigned i = 0; i < heal->used_count; i++) {
        struct prepared *prepared;

        if (!send_prepare_again(server, heal->used[i])) {
            server_close(server, "out of memory");
            return;
        }
        prepared = prepared_find(server->statements, &heal->used[i]->digest);
        if (prepared != NULL) {
            prepared->state = PREPARED_UNSURE; /* until it has been skipped */
            prepared->shape = 0;
        }
        heal->skip_count += 2;
    }
    send_batch(server);
}
