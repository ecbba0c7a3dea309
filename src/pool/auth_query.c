#include "pool/auth_query.h"

#include "crypto/secret.h"
#include "wire/data_row.h"

#include <stdio.h>
#include <string.h>

static const char config_error[] = "bouncer config error";

/* ---- the login's core ---- */

static void release(struct core *core, struct auth_query *query)
{
    snapshot_release(query->snapshot);
    secret_wipe(query, sizeof(*query));
    slab_give(&core->auth_queries, query);
}

static void query_returned(struct letter *letter, void *context)
{
    struct auth_query *query = OWNER_OF(letter, struct auth_query, letter);

    query->is_home = true;
    if (query->login != NULL)
        login_looked_up(query->login, query);
    if (!query->is_leaving)
        release(context, query);
}

static void leave_returned(struct letter *letter, void *context)
{
    struct auth_query *query = OWNER_OF(letter, struct auth_query, leave_letter);

    query->is_leaving = false;
    if (query->is_home)
        release(context, query);
}

static void post(struct core *core, unsigned to_core, struct letter *letter, letter_open *open)
{
    letter->open = open;
    if (to_core == core->index)
        open(letter, core);
    else
        core->ports->post_core(core, to_core, letter);
}

static letter_open query_open, leave_open;

bool auth_query_start(struct login *login, const struct auth_query_target *target)
{
    struct core *core = client_core(login->client);
    const struct snapshot *snapshot = login->snapshot;
    const struct database_config *database = snapshot_find_database(snapshot, target->database);
    struct auth_query *query = slab_take(&core->auth_queries);
    struct pool_settings limits;
    struct shard_set *set;

    assert(database != NULL);
    /* `*` is any name that somebody says who has not proved who he is. */
    set = (database->is_auto ? shard_set_find_for_stranger
                             : shard_set_find)(core->shards, target->database, target->user);
    if (query == NULL)
        return false;
    if (set == NULL) {
        slab_give(&core->auth_queries, query);
        return false;
    }
    memset(query, 0, sizeof(*query));
    list_init(&query->link);
    query->snapshot = login->snapshot;
    snapshot_reference(query->snapshot);
    query->query = target->query;
    strcpy(query->database, target->database);
    strcpy(query->user, target->user);
    strcpy(query->asked_name, login->handover.user);
    query->from_core = core->index;
    query->login = login;
    login->auth_query = query;
    snapshot_pool_settings(snapshot, database, snapshot_find_user(snapshot, target->user), &limits);
    query->shard = shard_choose(
        set, shard_count_of(limits.pool_size, limits.pool_shards, core->count), core->index);
    query->to_core = shard_core(set, shard_index(set, query->shard));
    post(core, query->to_core, &query->letter, query_open);
    return true;
}

void auth_query_leave(struct auth_query *query)
{
    struct core *core = client_core(query->login->client);

    assert(!query->is_home);
    query->login = NULL;
    query->is_leaving = true;
    post(core, query->to_core, &query->leave_letter, leave_open);
}

/* ---- the core of the pool ---- */

static void over(struct core *core, struct auth_query *query, const char *error)
{
    assert(!query->is_over);
    query->is_over = true;
    query->error = error;
    list_push_back(&core->auth_queries_over, &query->link);
}

/* The client leaves its pool; what was found goes home at the end of the turn. */
static void end(struct auth_query *query, const char *error)
{
    struct client *client = &query->client;

    assert(client->server == NULL);
    timer_stop(&client->timer);
    client_become(client, CLIENT_CLOSING);
    pool_client_leaves(client->pool, client);
    over(client_core(client), query, error);
}

static void query_open(struct letter *letter, void *context)
{
    struct auth_query *query = OWNER_OF(letter, struct auth_query, letter);
    struct core *core = context;
    const struct database_config *database =
        snapshot_find_database(core->snapshot, query->database);
    struct pool *pool = NULL;

    /* The configuration may have changed on the way. */
    if (database == NULL) {
        over(core, query, config_error);
        return;
    }
    pool = pool_find_or_make(core, database, query->database, query->user);
    if (pool == NULL) {
        over(core, query, "no memory for authentication pool");
        return;
    }
    client_begin_auth_query(&query->client, pool);
    /* Linked, waiting in line, or at its end already: each goes on by itself. */
    (void)!pool_want_server(pool, &query->client);
}

static void leave_open(struct letter *letter, void *context)
{
    struct auth_query *query = OWNER_OF(letter, struct auth_query, leave_letter);
    struct core *core = context;

    if (query->is_over) {
        /* Both letters are on their way home. */
    } else if (query->client.state == CLIENT_WAITING) {
        end(query, config_error);
    } else {
        query->left_us = core->loop.now_us;
        client_arm_timer(&query->client);
    }
    post(core, query->from_core, letter, leave_returned);
}

uint64_t auth_query_deadline_us(const struct client *client)
{
    const struct auth_query *query = OWNER_OF(client, struct auth_query, client);

    return query->left_us != 0 ? query->left_us + AUTH_QUERY_GRACE_US : UINT64_MAX;
}

void auth_query_send_answers(struct core *core)
{
    while (!list_is_empty(&core->auth_queries_over)) {
        struct auth_query *query =
            OWNER_OF(list_front(&core->auth_queries_over), struct auth_query, link);

        list_remove(&query->link);
        shard_leave(query->shard);
        post(core, query->from_core, &query->letter, query_returned);
    }
}

/* ---- with a server ---- */

/* Pushes the head of a message and its text, with the closing zero. */
static bool push_text(struct server *server, const void *head, size_t head_bytes, const char *text)
{
    return conn_push_copy(&server->conn, head, head_bytes) &&
           conn_push_copy(&server->conn, text, strlen(text) + 1);
}

bool auth_query_ask(struct server *server)
{
    static const uint8_t no_types[] = {0, 0}; /* PostgreSQL infers it: citext = $1 stays citext */
    const struct client *client = server->client;
    const struct auth_query *query = auth_query_of(server->client);
    uint32_t query_bytes = (uint32_t)strlen(query->query) + 1;
    uint32_t name_bytes = (uint32_t)strlen(query->asked_name);
    uint8_t parse[FRAME_HEADER_BYTES + 1] = {'P'};
    uint8_t rest[USER_NAME_BYTES_MAX + 128];
    struct writer writer;
    size_t begin;

    if (client->wait_since_us != 0)
        server->pool->stats.wait_us += server_core(server)->loop.now_us - client->wait_since_us;
    bytes_put_u32(parse + 1, 4 + 1 + query_bytes + (uint32_t)sizeof(no_types));
    writer_init(&writer, rest, sizeof(rest));
    writer_put(&writer, no_types, sizeof(no_types));
    begin = message_begin(&writer, 'B');
    writer_put_string(&writer, ""); /* portal */
    writer_put_string(&writer, ""); /* statement */
    writer_put_u16(&writer, 0);     /* all parameters are text */
    writer_put_u16(&writer, 1);
    writer_put_u32(&writer, name_bytes);
    writer_put(&writer, query->asked_name, name_bytes);
    writer_put_u16(&writer, 0); /* all results, too */
    message_end(&writer, begin);
    begin = message_begin(&writer, 'D');
    writer_put_u8(&writer, 'P');
    writer_put_string(&writer, "");
    message_end(&writer, begin);
    begin = message_begin(&writer, 'E');
    writer_put_string(&writer, "");
    writer_put_u32(&writer, 0); /* all rows */
    message_end(&writer, begin);
    /* A later client of the server must not find it as its own unnamed statement. */
    begin = message_begin(&writer, 'C');
    writer_put_u8(&writer, 'S');
    writer_put_string(&writer, "");
    message_end(&writer, begin);
    begin = message_begin(&writer, 'S');
    message_end(&writer, begin);
    assert(!writer.overflow);
    return push_text(server, parse, sizeof(parse), query->query) &&
           conn_push_copy(&server->conn, rest, writer.bytes);
}

static void columns_received(struct server *server, unsigned count)
{
    char text[64];

    if (count != 2) {
        snprintf(text, sizeof(text), "expected 2 columns from auth_query, not %u", count);
        server_log(server, LEVEL_ERROR, "%s", text);
        server_close(server, text);
        return;
    }
    auth_query_of(server->client)->has_columns = true;
}

static void row_received(struct server *server, const uint8_t *body, size_t bytes)
{
    struct auth_query *query = auth_query_of(server->client);
    enum data_value name = DATA_BAD, secret = DATA_BAD;
    const char *error = NULL;
    struct reader reader;

    if (query->has_columns && data_row_begin(&reader, body, bytes, 2)) {
        name = data_row_next(&reader, query->name, sizeof(query->name));
        secret = data_row_next(&reader, query->secret, sizeof(query->secret));
    }
    if (name == DATA_NULL)
        error = "auth_query response contained null user name";
    else if (name == DATA_BAD || secret == DATA_BAD || !data_row_is_over(&reader) ||
             query->name[0] == '\0')
        error = "unexpected response from auth_query";
    /* The buffer will be used for other things. */
    secret_wipe((void *)(uintptr_t)body, bytes);
    query->has_row = error == NULL;
    if (error == NULL)
        return;
    server_log(server, LEVEL_ERROR, "%s", error);
    server_close(server, error);
}

static void error_received(struct server *server, const uint8_t *body, size_t bytes)
{
    struct error_fields fields;

    if (error_fields_read(body, bytes, &fields))
        server_log(server, LEVEL_ERROR, "error in auth_query: %s: %s", fields.severity,
                   fields.message);
    server_close(server, "error response from auth_query");
}

bool auth_query_message(struct server *server, uint8_t type, const uint8_t *body, size_t bytes)
{
    switch (type) {
    case '1': /* ParseComplete, BindComplete, CloseComplete, CommandComplete */
    case '2':
    case '3':
    case 'C':
        return false;
    case 'T':
        columns_received(server, row_description_columns(body, bytes));
        return false;
    case 'n':
        columns_received(server, 0);
        return false;
    case 'D':
        row_received(server, body, bytes);
        return false;
    case 'E':
        error_received(server, body, bytes);
        return false;
    case 'Z':
        if (server->status == 'I' && auth_query_of(server->client)->has_columns)
            return true;
        break;
    default:
        break;
    }
    server_log(server, LEVEL_ERROR, "unexpected response from auth_query");
    server_close(server, "unexpected response from auth_query");
    return false;
}

void auth_query_answered(struct client *client)
{
    end(auth_query_of(client), NULL);
}

void auth_query_lost(struct client *client, const char *message)
{
    /* What the pooler itself has to say about waiting. What PostgreSQL said is not for somebody who
     * has not proved who he is; the log has it. */
    static const char *const passed_on[] = {"query_wait_timeout", "query_timeout",
                                            "server shutting down"};
    const char *error = config_error;

    if (client->state == CLIENT_CLOSING)
        return;
    for (size_t i = 0; i < COUNT_OF(passed_on); i++)
        if (strcmp(message, passed_on[i]) == 0)
            error = passed_on[i];
    if (client->server != NULL)
        server_drop_client(client->server, "client disconnect while server was not ready");
    secret_wipe(auth_query_of(client)->secret, FOUND_SECRET_BYTES_MAX);
    end(auth_query_of(client), error);
}
