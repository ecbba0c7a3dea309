#include "pool/login.h"

#include "crypto/secret.h"
#include "pool/auth_query.h"
#include "pool/cancel.h"
#include "pool/login_auth.h"
#include "pool/peer.h"
#include "pool/tls_handshake.h"
#include "wire/startup.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { TLS_FIRST_BYTE = 0x16 }; /* of a TLS handshake record (RFC 8446, 5.1) */

static void login_process(struct client *client);

static void fail(struct client *client, const char *message)
{
    client_close_error(client, message, NULL);
}

static bool send_bytes(struct client *client, const struct writer *writer)
{
    assert(!writer->overflow);
    if (conn_push_copy(&client->conn, writer->data, writer->bytes))
        return true;
    client_close_silently(client, "out of memory");
    return false;
}

/* ---- life ---- */

bool login_start(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = slab_take(&core->logins);

    if (login == NULL)
        return false;
    memset(login, 0, sizeof(*login));
    list_init(&login->key_link);
    login->client = client;
    login->phase = LOGIN_STARTUP;
    client->login = login;
    return true;
}

void login_free(struct core *core, struct login *login)
{
    assert(login->client == NULL);
    assert(!login->job_in_flight);
    assert(login->scram_entry == NULL);
    assert(login->auth_query == NULL);
    assert(login->handshake == NULL);
    if (login->input != NULL)
        buffer_release(core->loop.buffers, login->input);
    if (login->snapshot != NULL)
        snapshot_release(login->snapshot);
    secret_wipe(login, sizeof(*login));
    slab_give(&core->logins, login);
}

void login_end(struct client *client)
{
    struct login *login = client->login;

    if (login->auth_query != NULL)
        auth_query_leave(login->auth_query);
    login->auth_query = NULL;
    if (login->handshake != NULL)
        tls_handshake_abandon(login->handshake);
    login->handshake = NULL;
    client->login = NULL;
    login->client = NULL;
    if (!login_auth_leave(login))
        login_free(client_core(client), login);
}

/* ---- input ---- */

/* Appends to what was not used yet. False: closed. */
static bool input_append(struct client *client, const uint8_t *data, size_t bytes)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    size_t total = login->input_bytes + bytes;

    login->received_bytes += (uint32_t)bytes;
    if (login->received_bytes > LOGIN_BYTES_MAX || total > BUFFER_PARKED_BYTES_MAX) {
        fail(client, "bad packet header: too many bytes before login");
        return false;
    }
    if (login->input == NULL || total > login->input->bytes_max) {
        struct buffer *bigger = buffer_park(core->loop.buffers, total);

        if (bigger == NULL) {
            client_close_silently(client, "out of memory");
            return false;
        }
        if (login->input != NULL) {
            memcpy(bigger->data, login->input->data, login->input_bytes);
            buffer_release(core->loop.buffers, login->input);
        }
        login->input = bigger;
    }
    memcpy(login->input->data + login->input_bytes, data, bytes);
    login->input_bytes = (uint32_t)total;
    return true;
}

static void input_consume(struct login *login, uint32_t bytes)
{
    assert(bytes <= login->input_bytes);
    login->input_bytes -= bytes;
    memmove(login->input->data, login->input->data + bytes, login->input_bytes);
}

void login_received(struct client *client, const uint8_t *data, size_t bytes)
{
    if (client->login->phase == LOGIN_TLS)
        tls_handshake_received(client->login->handshake, data, bytes);
    else if (input_append(client, data, bytes))
        login_process(client);
}

bool login_defers_end(struct login *login)
{
    return login->phase == LOGIN_TLS && tls_handshake_defers_end(login->handshake);
}

void login_received_late(struct client *client, const uint8_t *data, size_t bytes)
{
    struct handover *handover = &client->login->handover;

    if (handover->kind == HANDOVER_CANCEL)
        return; /* it has no more to say */
    if (bytes > sizeof(handover->leftover) - handover->leftover_bytes) {
        client_close_error(client, "too many bytes before the welcome", NULL);
        return;
    }
    memcpy(handover->leftover + handover->leftover_bytes, data, bytes);
    handover->leftover_bytes += (uint32_t)bytes;
}

/* ---- startup packet ---- */

struct parameters {
    struct client *client;
    bool in_options;
    const char *extra_float_digits; /* was asked for, and is not ignored */
};

/* Keeps the value of a tracked parameter. */
static bool keep_value(struct login *login, unsigned index, const char *value)
{
    struct handover *handover = &login->handover;
    size_t bytes = strlen(value) + 1;

    if (bytes > sizeof(handover->params) - handover->params_bytes)
        return false;
    login->param_values[index] = (char *)handover->params + handover->params_bytes;
    memcpy(handover->params + handover->params_bytes, value, bytes);
    handover->params_bytes = (uint16_t)(handover->params_bytes + bytes);
    return true;
}

static void unsupported(const struct parameters *parameters, const char *name, const char *value)
{
    const char *where = parameters->in_options ? " in options" : "";
    struct login *login = parameters->client->login;

    client_log(parameters->client, LEVEL_WARNING, "unsupported startup parameter%s: %s=%s", where,
               name, value);
    snprintf(login->error, sizeof(login->error), "unsupported startup parameter%s: %.100s", where,
             name);
}

static bool each_parameter(void *context, const char *name, const char *value);

static bool take_options(struct parameters *parameters, const char *options)
{
    struct login *login = parameters->client->login;
    struct parameters inner = {.client = parameters->client, .in_options = true};
    char scratch[1024];
    bool form_is_bad;

    if (login->handover.replication != REPLICATION_NONE) {
        /* The server will look at them: its session is this client's alone. */
        if (strlen(options) < sizeof(login->handover.options)) {
            strcpy(login->handover.options, options);
            return true;
        }
        strcpy(login->error, "startup parameters are too long");
        return false;
    }
    if (startup_options(options, scratch, sizeof(scratch), each_parameter, &inner, &form_is_bad))
        return true;
    if (form_is_bad)
        snprintf(login->error, sizeof(login->error),
                 "unsupported options startup parameter: only '-c config=val' and "
                 "'--config=val' are allowed");
    return false;
}

static bool each_parameter(void *context, const char *name, const char *value)
{
    struct parameters *parameters = context;
    struct client *client = parameters->client;
    struct core *core = client_core(client);
    struct login *login = client->login;
    const char *ignored = core->snapshot->settings.ignore_startup_parameters;
    int index;

    if (!parameters->in_options) {
        if (strcmp(name, "user") == 0) {
            if (strlen(value) >= sizeof(login->handover.user)) {
                strcpy(login->error, "username too long");
                return false;
            }
            strcpy(login->handover.user, value);
            return true;
        }
        if (strcmp(name, "database") == 0) {
            if (strlen(value) >= sizeof(login->handover.database)) {
                snprintf(login->error, sizeof(login->error), "no such database: %.64s...", value);
                return false;
            }
            strcpy(login->handover.database, value);
            return true;
        }
        if (strcmp(name, "options") == 0)
            return take_options(parameters, value);
        if (strcmp(name, "replication") == 0)
            return true; /* see find_replication */
        if (strncmp(name, "_pq_.", 5) == 0) {
            size_t bytes = strlen(name) + 1;

            login->wants_negotiation = true;
            if (bytes <= sizeof(login->unknown_options) - login->unknown_options_bytes) {
                memcpy(login->unknown_options + login->unknown_options_bytes, name, bytes);
                login->unknown_options_bytes = (uint16_t)(login->unknown_options_bytes + bytes);
                login->unknown_options_count++;
            }
            return true;
        }
    }
    index = param_names_find(core->params.names, name);
    if (index >= 0) {
        if (keep_value(login, (unsigned)index, value))
            return true;
        strcpy(login->error, "startup parameters are too long");
        return false;
    }
    if (list_contains(ignored, name, false) ||
        (parameters->in_options && list_contains(ignored, "options", false)))
        return true;
    if (!parameters->in_options && strcmp(name, "extra_float_digits") == 0) {
        parameters->extra_float_digits = value;
        return true;
    }
    unsupported(parameters, name, value);
    return false;
}

/* It decides what the other parameters mean, and may come after them. */
static bool find_replication(void *context, const char *name, const char *value)
{
    enum startup_replication *replication = context;

    if (strcmp(name, "replication") == 0)
        *replication = startup_replication(value);
    return true;
}

/* "NAME - HOST:PORT" or "NAME - unix(PID@HOSTNAME):PORT", as application_name_add_host asks for. */
static bool add_host(struct client *client)
{
    struct login *login = client->login;
    const char *name = login->param_values[PARAM_APPLICATION_NAME];
    const struct core *core = client_core(client);
    char host[64];
    char value[256];

    if (name == NULL)
        name = "app";
    peer_name_host(&client->peer, host);
    if (client->peer.family == AF_UNIX)
        snprintf(value, sizeof(value), "%.120s - unix(%u@%s):%d", name, client->peer.pid,
                 core->host_name, core->snapshot->settings.listen_port);
    else
        snprintf(value, sizeof(value),
                 client->peer.family == AF_INET6 ? "%.120s - [%s]:%u" : "%.120s - %s:%u", name,
                 host, client->peer.port);
    return keep_value(login, PARAM_APPLICATION_NAME, value);
}

static void negotiate(struct client *client)
{
    struct login *login = client->login;
    uint8_t message[sizeof(login->unknown_options) + 32];
    struct writer writer;
    size_t begin;

    writer_init(&writer, message, sizeof(message));
    begin = message_begin(&writer, 'v');
    writer_put_u32(&writer, 3 << 16);
    writer_put_u32(&writer, login->unknown_options_count);
    writer_put(&writer, login->unknown_options, login->unknown_options_bytes);
    message_end(&writer, begin);
    (void)!send_bytes(client, &writer);
}

static int database_client_limit(const struct snapshot *snapshot,
                                 const struct database_config *database)
{
    return database != NULL && database->max_db_client_connections > 0
               ? database->max_db_client_connections
               : snapshot->settings.max_db_client_connections;
}

static bool has_room(const struct usage *usage, int limit)
{
    return usage == NULL || limit <= 0 || usage_count(&usage->client_count) < limit;
}

/* Where the client's names are counted. Names that nobody configured must not fill the table: before the
 * client has proved who it is, only those are found that are there; NULL: nobody of that name is here. */
static void find_usages(struct client *client, const struct database_config *database)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    bool is_proved = login->phase == LOGIN_DONE;
    bool makes_user = is_proved || login->user != NULL;
    bool makes_database = is_proved || (database != NULL && !database->is_auto);

    client->user_usage =
        (makes_user ? usage_find : usage_look)(core->usage, USAGE_USER, login->handover.user);
    client->database_usage = (makes_database ? usage_find : usage_look)(core->usage, USAGE_DATABASE,
                                                                        login->handover.database);
}

/* max_db_client_connections and max_user_client_connections: takes them where both names are counted
 * already, or are to be from now on (LOGIN_DONE); else it looks at them only, and the rest follows after
 * authentication. `takes` false: max_db_client_connections is looked at, nothing else (of somebody who will
 * be looked up). False: closed. */
static bool take_client_limits(struct client *client, bool takes)
{
    struct login *login = client->login;
    const struct snapshot *snapshot = login->snapshot; /* the user's: all limits of one file */
    const struct database_config *database =
        snapshot_find_database(snapshot, login->handover.database);
    const struct settings *settings = &snapshot->settings;
    int database_limit = database_client_limit(snapshot, database);
    int user_limit = login->user != NULL && login->user->max_user_client_connections > 0
                         ? login->user->max_user_client_connections
                         : settings->max_user_client_connections;

    if (login->is_console)
        return true;
    find_usages(client, database);
    if (login->phase == LOGIN_DONE &&
        (client->user_usage == NULL || client->database_usage == NULL)) {
        fail(client, "bouncer resources exhaustion");
        return false;
    }
    takes = takes && client->user_usage != NULL && client->database_usage != NULL;
    if (takes ? !usage_take(&client->database_usage->client_count, database_limit)
              : !has_room(client->database_usage, database_limit)) {
        fail(client, "client connections exceeded (max_db_client_connections)");
        return false;
    }
    if (!takes)
        return true;
    if (!usage_take(&client->user_usage->client_count, user_limit)) {
        usage_give(&client->database_usage->client_count);
        fail(client, "client connections exceeded (max_user_client_connections)");
        return false;
    }
    client->counts_in_database = true;
    return true;
}

/* ---- after authentication ---- */

static void enter_pool(struct client *client, const struct handover *handover,
                       const struct database_config *database, const char *const *values)
{
    struct core *core = client_core(client);
    const char *pool_user = database->user != NULL ? database->user : handover->user;
    struct pool *pool = pool_find_or_make(core, database, handover->database, pool_user);

    if (pool == NULL) {
        fail(client, "no memory for pool");
        return;
    }
    if (client->shard != pool->shard) {
        /* The entry got another user while the session was on its way. */
        if (client->shard != NULL)
            shard_leave(client->shard);
        client->shard = pool->shard;
        atomic_fetch_add_explicit(&pool->shard->client_count, 1, memory_order_relaxed);
    }
    if (handover->password != NULL && database->user == NULL &&
        !pool_learn_password(pool, handover->password, handover->password_is_found)) {
        client_close_silently(client, "out of memory");
        return;
    }
    if (handover->has_scram_keys && database->user == NULL) {
        pool->has_client_key = true;
        memcpy(pool->client_key, handover->client_key, sizeof(pool->client_key));
        memcpy(pool->server_key, handover->server_key, sizeof(pool->server_key));
    }
    if (handover->leftover_bytes > 0 &&
        !span_queue_push_copy(&client->parked, client->conn.loop, handover->leftover,
                              handover->leftover_bytes)) {
        client_close_silently(client, "out of memory");
        return;
    }
    client->replication = (uint8_t)handover->replication;
    if (handover->options[0] != '\0') {
        size_t bytes = strlen(handover->options) + 1;

        client->options = buffer_park(client->conn.loop->buffers, bytes);
        if (client->options == NULL) {
            client_close_silently(client, "out of memory");
            return;
        }
        memcpy(client->options->data, handover->options, bytes);
    }
    client_enter_pool(client, pool, values);
}

/* The values point into the very place where they are packed. */
static void pack_values(struct client *client)
{
    struct login *login = client->login;
    uint8_t packed[HANDOVER_PARAMS_BYTES];
    size_t bytes =
        params_pack(&client_core(client)->params, login->param_values, packed, sizeof(packed));

    memcpy(login->handover.params, packed, bytes);
    login->handover.params_bytes = (uint16_t)bytes;
}

/* Leaves this core when the connection has fallen quiet. */
static void move(struct client *client, enum handover_kind kind, unsigned to_core)
{
    struct login *login = client->login;
    struct handover *handover = &login->handover;

    handover->kind = kind;
    handover->from_core = client_core(client)->index;
    handover->peer = client->peer;
    handover->id = client->id;
    handover->connect_us = client->connect_us;
    handover->is_admin = login->is_admin;
    handover->is_anybody = login->method == AUTH_ANY;
    handover->to_core = to_core;
    if (login->input_bytes > sizeof(handover->leftover)) {
        client_close_error(client, "too many bytes before the welcome", NULL);
        return;
    }
    handover->leftover_bytes = login->input_bytes;
    if (login->input_bytes > 0)
        memcpy(handover->leftover, login->input->data, login->input_bytes);
    login->input_bytes = 0;
    client_become(client, CLIENT_MOVING);
    if (conn_quiesce(&client->conn))
        login_moved(client);
}

void login_moved(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    struct handover *handover = &login->handover;
    /* Control has the console's sessions, and their cancel keys. */
    bool is_console =
        handover->kind == HANDOVER_CONSOLE ||
        (handover->kind == HANDOVER_CANCEL && core->count == 1 && !handover->is_for_peer);

    handover->fd = conn_detach(&client->conn, &handover->tls);
    timer_stop(&client->timer);
    handover->shard = client->shard;
    client->shard = NULL;
    login->client = NULL;
    client->login = NULL;
    client_become(client, CLIENT_FREE);
    slab_give(&core->clients, client);
    handover->letter.open = is_console ? core->ports->console_open : handover_open;
    if (is_console)
        core->ports->post_control(core, &handover->letter);
    else
        core->ports->post_core(core, handover->to_core, &handover->letter);
}

void handover_returned(struct letter *letter, void *context)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);

    login_free(context, OWNER_OF(handover, struct login, handover));
}

static void handover_give_back(struct core *core, struct handover *handover)
{
    handover->letter.open = handover_returned;
    if (handover->from_core == core->index)
        handover_returned(&handover->letter, core);
    else
        core->ports->post_core(core, handover->from_core, &handover->letter);
}

/* Nobody could take it in. */
static void drop_connection(struct core *core, struct handover *handover)
{
    tls_destroy(handover->tls);
    ring_close(core->loop.ring, handover->fd);
}

static void adopt_cancel(struct core *core, struct handover *handover)
{
    struct client *client;

    if (!handover->is_for_peer && client_find_key(core, handover->cancel_key) == NULL) {
        if (++handover->hop_count < core->count) {
            core->ports->post_core(core, (core->index + 1) % core->count, &handover->letter);
            return;
        }
        handover->letter.open = core->ports->console_open;
        core->ports->post_control(core, &handover->letter);
        return;
    } else {
        client = client_adopt(core, handover);
        if (client != NULL) {
            client_become(client, CLIENT_CANCEL);
            conn_resume(&client->conn);
            if (handover->is_for_peer)
                peer_forward(client, handover->cancel_key);
            else if (!cancel_start(core, client, handover->cancel_key))
                client_close_silently(client, "failed cancel request");
            handover_give_back(core, handover);
            return;
        }
    }
    usage_give(&core->usage->client_count);
    drop_connection(core, handover);
    handover_give_back(core, handover);
}

void handover_open(struct letter *letter, void *context)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);
    struct core *core = context;
    const char *values[PARAMS_COUNT_MAX];
    const struct database_config *database;
    struct usage *user_usage, *database_usage;
    struct client *client;

    if (handover->kind == HANDOVER_CANCEL) {
        adopt_cancel(core, handover);
        return;
    }
    /* It counts there since its login, so there are such entries. */
    user_usage = usage_find(core->usage, USAGE_USER, handover->user);
    database_usage = usage_find(core->usage, USAGE_DATABASE, handover->database);
    assert(user_usage != NULL);
    assert(database_usage != NULL);
    client = client_adopt(core, handover);
    if (client == NULL) {
        usage_give(&core->usage->client_count);
        usage_give(&user_usage->client_count);
        usage_give(&database_usage->client_count);
        shard_leave(handover->shard);
        drop_connection(core, handover);
        handover_give_back(core, handover);
        return;
    }
    client->user_usage = user_usage;
    client->database_usage = database_usage;
    client->counts_in_database = true;
    /* The configuration may have changed on the way. */
    database = snapshot_find_database(core->snapshot, handover->database);
    params_unpack(&core->params, handover->params, handover->params_bytes, values);
    if (database == NULL) {
        char text[128];

        snprintf(text, sizeof(text), "no such database: %s", handover->database);
        fail(client, text);
    } else if (core_refuses_logins(core)) {
        /* It began after the login: nobody would welcome the client any more (simulation). */
        fail(client, "pooler is shutting down");
    } else if (handover->is_anybody && database->user == NULL) {
        /* The entry has lost its user= on the way: nobody has asked who this is. */
        fail(client, "bouncer config error");
    } else {
        conn_resume(&client->conn);
        enter_pool(client, handover, database, values);
    }
    handover_give_back(core, handover);
}

/* Where it will stay. False: no room for another pool. */
static bool choose_shard(struct client *client, const struct database_config *database,
                         unsigned *to_core)
{
    struct core *core = client_core(client);
    const struct handover *handover = &client->login->handover;
    const char *user = database->user != NULL ? database->user : handover->user;
    struct shard_set *set = shard_set_find(core->shards, handover->database, user);
    struct pool_settings limits;

    if (set == NULL)
        return false;
    snapshot_pool_settings(core->snapshot, database, snapshot_find_user(core->snapshot, user),
                           &limits);
    client->shard = shard_choose(
        set, shard_count_of(limits.pool_size, limits.pool_shards, core->count), core->index);
    *to_core = shard_core(set, shard_index(set, client->shard));
    return true;
}

void login_authenticated(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    struct handover *handover = &login->handover;
    const struct database_config *database;
    unsigned to_core;
    char text[128];

    login->phase = LOGIN_DONE;
    if (client->conn.tls != NULL)
        tls_forget_peer(client->conn.tls->session);
    if (login->is_console) {
        pack_values(client);
        move(client, HANDOVER_CONSOLE, core->index);
        return;
    }
    database = snapshot_find_database(core->snapshot, handover->database);
    if (database == NULL) {
        snprintf(text, sizeof(text), "no such database: %s", handover->database);
        fail(client, text);
        return;
    }
    if (core_database_is_disabled(core, handover->database)) {
        snprintf(text, sizeof(text), "database \"%s\" is disabled", handover->database);
        fail(client, text);
        return;
    }
    if (core_refuses_logins(core)) {
        fail(client, "pooler is shutting down");
        return;
    }
    if (!client->counts_in_database && !take_client_limits(client, true))
        return;
    if (!choose_shard(client, database, &to_core)) {
        fail(client, "bouncer resources exhaustion");
        return;
    }
    if (to_core != core->index) {
        pack_values(client);
        move(client, HANDOVER_CLIENT, to_core);
        return;
    }
    if (login->input_bytes > sizeof(handover->leftover)) {
        client_close_error(client, "too many bytes before the welcome", NULL);
        return;
    }
    handover->leftover_bytes = login->input_bytes;
    if (login->input_bytes > 0)
        memcpy(handover->leftover, login->input->data, login->input_bytes);
    login->input_bytes = 0;
    enter_pool(client, handover, database, login->param_values);
    if (client->login != NULL)
        login_end(client);
}

/* ---- the startup packet as a whole ---- */

static bool is_named(const char *list, const char *user)
{
    return list != NULL && list_contains(list, user, false);
}

/* The console: who may use it is decided before any password is asked. False: closed. */
static bool console_may_enter(struct client *client, bool *without_password)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    const struct settings *settings = &core->snapshot->settings;
    const char *user = login->handover.user;
    bool is_stats = is_named(settings->stats_users, user);

    *without_password = false;
    login->is_admin = is_named(settings->admin_users, user);
    if (client->peer.family == AF_UNIX && strcmp(user, "pgbouncer") == 0 &&
        ring_peer_is_same_user(core->loop.ring, client->conn.fd)) {
        client_log(client, LEVEL_LOG, "pgbouncer access from unix socket");
        login->is_admin = true;
        *without_password = true;
        return true;
    }
    if (login->is_admin || is_stats || settings->auth_type == AUTH_ANY)
        return true;
    fail(client, "not allowed");
    return false;
}

static void log_attempt(const struct client *client)
{
    const struct handover *handover = &client->login->handover;
    char tls[TLS_DESCRIPTION_BYTES] = "no";

    if (!client_core(client)->snapshot->settings.log_connections)
        return;
    if (client->conn.tls != NULL)
        tls_describe(client->conn.tls->session, tls);
    client_log(client, LEVEL_LOG, "login attempt: db=%s user=%s tls=%s replication=%s",
               handover->database, handover->user, tls,
               startup_replication_value(handover->replication));
}

/* ---- users who are not in auth_file ---- */

static const char *first_of(const char *own, const char *global)
{
    const char *value = own != NULL ? own : global;

    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Where a user is looked up who is not in auth_file. False: nowhere. The database need not exist. */
static bool lookup_target(const struct login *login, struct auth_query_target *target)
{
    static const struct database_config none;
    const struct settings *settings = &login->snapshot->settings;
    const struct database_config *database = NULL;

    /* Of a name that PAM or LDAP checks nothing need be known. */
    if (settings->auth_type == AUTH_ANY || settings->auth_type == AUTH_PAM ||
        settings->auth_type == AUTH_LDAP || (login->user != NULL && login->user->is_in_auth_file))
        return false;
    if (!login->is_console)
        database = snapshot_find_database(login->snapshot, login->handover.database);
    /* Without auth_dbname nobody can be asked about a user of the console, or of no database. */
    target->database =
        first_of(database != NULL ? database->auth_dbname : NULL, settings->auth_dbname);
    if (target->database == NULL && database != NULL)
        target->database = login->handover.database;
    if (database == NULL)
        database = &none;
    target->user = first_of(database->auth_user, settings->auth_user);
    target->query = database->auth_query != NULL ? database->auth_query : settings->auth_query;
    return target->database != NULL && target->user != NULL && target->query != NULL;
}

static void look_up(struct client *client, const struct auth_query_target *target)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    char text[128];

    if (snapshot_find_database(login->snapshot, target->database) == NULL) {
        client_log(client, LEVEL_ERROR, "auth_dbname: there is no database \"%s\"",
                   target->database);
        fail(client, "bouncer config error");
        return;
    }
    /* Of the one that the client asks for it is told when he has proved who he is, as always. */
    if (target->database != login->handover.database &&
        core_database_is_disabled(core, target->database)) {
        snprintf(text, sizeof(text), "authentication database \"%s\" is disabled",
                 target->database);
        fail(client, text);
        return;
    }
    login->phase = LOGIN_LOOKUP;
    if (!auth_query_start(login, target))
        fail(client, "no memory for authentication pool");
}

void login_looked_up(struct login *login, const struct auth_query *query)
{
    struct client *client = login->client;
    struct handover *handover = &login->handover;
    bool is_other_name = strcmp(handover->user, query->name) != 0;
    bool without_password;

    login->auth_query = NULL;
    if (query->error != NULL) {
        fail(client, query->error);
        return;
    }
    if (!query->has_row) {
        fail(client, "no such user");
        return;
    }
    strcpy(handover->user, query->name);
    client->user_usage = NULL; /* of the name that was asked about */
    strcpy(login->found_secret, query->secret);
    if (login->found_secret[0] != '\0') {
        handover->password = login->found_secret;
        handover->password_is_found = true;
    }
    login->is_looked_up = true;
    login->user = snapshot_find_user(login->snapshot, handover->user);
    login->secret_text = login->found_secret;
    if (login->is_console && is_other_name && !console_may_enter(client, &without_password))
        return;
    log_attempt(client);
    login_auth_begin(client);
    /* What has come meanwhile, if it is still here: the slot of one that has moved holds no state. */
    if (client->state == CLIENT_LOGIN)
        login_process(client);
}

static void startup_received(struct client *client, const struct startup_packet *packet)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    const struct settings *settings = &core->snapshot->settings;
    struct parameters parameters = {.client = client};
    struct auth_query_target target;
    bool layout_is_bad;
    bool is_unknown;
    bool without_password = false;

    login->snapshot = core->snapshot;
    snapshot_reference(login->snapshot);
    if (settings->client_tls_sslmode >= TLS_MODE_REQUIRE && client->conn.tls == NULL &&
        client->peer.family != AF_UNIX) {
        fail(client, "SSL required");
        return;
    }
    if (!startup_parameters(packet, find_replication, &login->handover.replication,
                            &layout_is_bad) ||
        !startup_parameters(packet, each_parameter, &parameters, &layout_is_bad)) {
        fail(client, layout_is_bad
                         ? "invalid startup packet layout: expected terminator as last byte"
                         : login->error);
        return;
    }
    login->is_console = strcmp(login->handover.database[0] != '\0' ? login->handover.database
                                                                   : login->handover.user,
                               "pgbouncer") == 0;
    if (parameters.extra_float_digits != NULL && !login->is_console) {
        /* JDBC asks for it everywhere; the console has no floats. */
        unsupported(&parameters, "extra_float_digits", parameters.extra_float_digits);
        fail(client, login->error);
        return;
    }
    /* All of it is copied; what follows may hand over what came behind it. */
    input_consume(login, packet->packet_bytes);
    if (login->handover.user[0] == '\0') {
        fail(client, "no username supplied");
        return;
    }
    if (login->handover.database[0] == '\0') {
        if (strlen(login->handover.user) >= sizeof(login->handover.database)) {
            fail(client, "no such database");
            return;
        }
        strcpy(login->handover.database, login->handover.user);
    }
    if (settings->application_name_add_host && !add_host(client)) {
        fail(client, "startup parameters are too long");
        return;
    }
    login->user = snapshot_find_user(login->snapshot, login->handover.user);
    login->secret_text = login->user != NULL ? login->user->secret : "";
    if (!login->is_console && usage_count(&core->usage->client_count) > settings->max_client_conn) {
        fail(client, "no more connections allowed (max_client_conn)");
        return;
    }
    if (packet->minor > 0 || login->wants_negotiation)
        negotiate(client);
    is_unknown = lookup_target(login, &target);
    /* Who is looked up counts when he has proved who he is; where there is no room nobody is. */
    if (client->state != CLIENT_LOGIN || !take_client_limits(client, !is_unknown))
        return;
    if (login->is_console && !console_may_enter(client, &without_password))
        return;
    if (is_unknown && !without_password) {
        look_up(client, &target);
        return;
    }
    log_attempt(client);
    if (without_password)
        login_authenticated(client);
    else
        login_auth_begin(client);
}

/* Whose query it is, this core knows, or another one, or control (a console session), or a peer. */
static void cancel_requested(struct client *client)
{
    struct core *core = client_core(client);
    struct handover *handover = &client->login->handover;
    const uint8_t *key = handover->cancel_key;
    bool is_here = client_find_key(core, key) != NULL;
    unsigned to_core = (core->index + 1) % core->count;

    if (!is_here && cancel_key_is_foreign(key, core->snapshot->settings.peer_id) &&
        !core->has_other_keys) {
        handover->is_for_peer = true;
        to_core = peer_core(key, core->count);
    }
    if (!is_here && (!handover->is_for_peer || to_core != core->index)) {
        client->login->input_bytes = 0;
        handover->hop_count = 1;
        move(client, HANDOVER_CANCEL, to_core);
        return;
    }
    client_become(client, CLIENT_CANCEL);
    if (!is_here)
        peer_forward(client, key);
    else if (!cancel_start(core, client, key))
        client_close_silently(client, "failed cancel request");
    if (client->login != NULL)
        login_end(client);
}

/* ---- TLS ---- */

static void tls_over(struct conn *conn, enum tls_handshake_end end, const char *error)
{
    struct client *client = OWNER_OF(conn, struct client, conn);
    char reason[TLS_ERROR_BYTES + 32];

    client->login->handshake = NULL;
    client->login->phase = LOGIN_STARTUP;
    if (end == TLS_HANDSHAKE_TLS)
        return;
    snprintf(reason, sizeof(reason), "TLS handshake failed: %s", error);
    client_close_silently(client, reason);
}

/* A client on TCP that is not on TLS yet may have it. */
static struct tls_context *tls_offered(const struct client *client)
{
    return client->peer.family != AF_UNIX && client->conn.tls == NULL
               ? client_core(client)->snapshot->client_tls
               : NULL;
}

/* What has been received so far belongs to the handshake. */
static void tls_begin(struct client *client)
{
    struct login *login = client->login;
    struct buffer *input = login->input;
    uint32_t bytes = login->input_bytes;

    login->input = NULL;
    login->input_bytes = 0;
    login->handshake = tls_handshake_accept(&client->conn, tls_offered(client), tls_over);
    if (login->handshake == NULL) {
        client_close_silently(client, "out of memory");
    } else {
        login->phase = LOGIN_TLS;
        if (bytes > 0)
            tls_handshake_received(login->handshake, input->data, bytes);
    }
    if (input != NULL)
        buffer_release(client_core(client)->loop.buffers, input);
}

static void ssl_requested(struct client *client)
{
    static const uint8_t yes[] = {'S'}, no[] = {'N'};

    if (client->conn.tls != NULL)
        client_close_silently(client, "SSL req inside SSL");
    else if (tls_offered(client) == NULL) {
        if (!conn_push_copy(&client->conn, no, sizeof(no)))
            client_close_silently(client, "failed to nak SSL");
    } else if (!conn_push_copy(&client->conn, yes, sizeof(yes)))
        client_close_silently(client, "failed to ack SSL");
    else
        tls_begin(client);
}

/* True: something was consumed, look again. */
static bool process_startup(struct client *client)
{
    struct login *login = client->login;
    struct startup_packet packet;
    enum startup_kind kind = startup_read(login->input->data, login->input_bytes, &packet);
    char text[64] = "bad packet header: '";
    static const uint8_t no[] = {'N'};

    if (login->input->data[0] == TLS_FIRST_BYTE && tls_offered(client) != NULL) {
        tls_begin(client); /* sslnegotiation=direct */
        return false;
    }
    switch (kind) {
    case STARTUP_NEED_MORE:
        return false;
    case STARTUP_SSL_REQUEST:
    case STARTUP_GSSENC_REQUEST:
        if (login->input_bytes > packet.packet_bytes) {
            fail(client, kind == STARTUP_SSL_REQUEST
                             ? "received unencrypted data after SSL request"
                             : "received unencrypted data after GSSAPI encryption request");
            return false;
        }
        input_consume(login, packet.packet_bytes);
        if (kind == STARTUP_SSL_REQUEST)
            ssl_requested(client);
        else if (!conn_push_copy(&client->conn, no, sizeof(no)))
            client_close_silently(client, "failed to nak GSSAPI encryption");
        return false;
    case STARTUP_CANCEL_REQUEST:
        memcpy(login->handover.cancel_key, packet.body, 8);
        cancel_requested(client);
        return false;
    case STARTUP_VERSION_3:
        startup_received(client, &packet);
        return true;
    case STARTUP_VERSION_2:
        fail(client, "old V2 protocol not supported");
        return false;
    case STARTUP_TYPED_MESSAGE:
        /* A whole message that cannot be meant for us ends it; what only looks like one (HTTP)
         * waits for client_login_timeout, or the byte budget. */
        if (login->input->data[0] == 'p')
            fail(client, "client password pkt before startup packet");
        else if (login->input_bytes >= FRAME_HEADER_BYTES &&
                 bytes_get_u32(login->input->data + 1) < login->input_bytes)
            client_close_silently(client, "bad packet");
        return false;
    case STARTUP_BAD:
        for (uint32_t i = 0; i < MIN(login->input_bytes, 8u); i++)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%02x",
                     login->input->data[i]);
        strcat(text, "'");
        fail(client, text);
        return false;
    }
    return false;
}

static bool process_message(struct client *client)
{
    struct login *login = client->login;
    const uint8_t *data = login->input->data;
    uint32_t length;

    if (login->input_bytes == 0)
        return false;
    if (data[0] == 'X') {
        client_close_silently(client, "client close request");
        return false;
    }
    if (data[0] == 0) {
        fail(client, "client re-sent startup pkt");
        return false;
    }
    if (data[0] != 'p') {
        fail(client, "bad packet");
        return false;
    }
    if (login->input_bytes < FRAME_HEADER_BYTES)
        return false;
    length = bytes_get_u32(data + 1);
    if (length < 4 || length - 4 > LOGIN_MESSAGE_BYTES_MAX) {
        fail(client, "bad packet header: password message too long");
        return false;
    }
    if (login->input_bytes < length + 1)
        return false;
    {
        uint8_t body[LOGIN_MESSAGE_BYTES_MAX];
        size_t bytes = length - 4;

        /* Copied and consumed first: what follows may hand the login over. */
        memcpy(body, data + FRAME_HEADER_BYTES, bytes);
        secret_wipe(login->input->data, length + 1);
        input_consume(login, length + 1);
        login_auth_received(client, body, bytes);
        secret_wipe(body, bytes);
    }
    return client->state == CLIENT_LOGIN && client->login != NULL;
}

static void login_process(struct client *client)
{
    bool again = true;

    while (again && client->state == CLIENT_LOGIN && client->login != NULL) {
        switch (client->login->phase) {
        case LOGIN_STARTUP:
            again = client->login->input_bytes > 0 && process_startup(client);
            break;
        case LOGIN_PASSWORD:
        case LOGIN_SASL_FIRST:
        case LOGIN_SASL_FINAL:
            again = process_message(client);
            break;
        default: /* a helper or auth_query is at work; what comes now waits */
            again = false;
            break;
        }
    }
}
