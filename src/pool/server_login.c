#include "pool/server_login.h"

#include "crypto/md5.h"
#include "crypto/secret.h"
#include "pool/channel.h"
#include "pool/client.h"
#include "pool/replication.h"
#include "pool/tls_handshake.h"

#include <stdio.h>
#include <string.h>

/* The password of the pool's server user: the entry's, else what its last client has brought along
 * (from PAM, LDAP, auth_query), else the auth_file's. The entry's is that of its user= alone (auth_user
 * may have a pool there as well). NULL: none. */
static const char *pool_password(const struct pool *pool)
{
    const struct database_config *database = pool->database;

    if (database->user != NULL && strcmp(database->user, pool->user_name) == 0 &&
        database->password != NULL && database->password[0] != '\0')
        return database->password;
    if (pool->client_password != NULL && database->user == NULL)
        return (const char *)pool->client_password->data;
    if (pool->user_config != NULL && pool->user_config->secret[0] != '\0')
        return pool->user_config->secret;
    return NULL;
}

/* ---- startup ---- */

static void put_parameter(struct writer *writer, const char *name, const char *value)
{
    if (value == NULL)
        return;
    writer_put_string(writer, name);
    writer_put_string(writer, value);
}

static void put_defaults(const struct database_config *database, struct writer *writer)
{
    put_parameter(writer, "client_encoding", database->client_encoding);
    put_parameter(writer, "datestyle", database->datestyle);
    put_parameter(writer, "timezone", database->timezone);
    put_parameter(writer, "application_name", database->application_name);
}

/* All that its client asked for; before it, so that it gives way, what the entry says. */
static void put_replication(const struct server *server, struct writer *writer)
{
    const struct client *client = server->client;
    const struct param_names *names = server_core(server)->params.names;

    put_defaults(server->pool->database, writer);
    put_parameter(writer, "replication", startup_replication_value(server->replication));
    for (unsigned i = 0; i < names->count; i++)
        put_parameter(writer, names->names[i], params_value(client->params, i));
    if (client->options != NULL)
        put_parameter(writer, "options", (const char *)client->options->data);
}

static void send_startup(struct server *server)
{
    const struct database_config *database = server->pool->database;
    uint8_t packet[8 * 1024];
    struct writer writer;
    size_t begin;

    pool_read_password(server->pool);
    server->login->client_password_count = server->pool->client_password_count;
    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3 << 16);
    put_parameter(&writer, "user", server->pool->user_name);
    put_parameter(&writer, "database",
                  database->is_auto && strcmp(database->dbname, "*") == 0
                      ? server->pool->database_name
                      : database->dbname);
    if (server->replication != REPLICATION_NONE)
        put_replication(server, &writer);
    else
        put_defaults(database, &writer);
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    if (writer.overflow || !conn_push_copy(&server->conn, packet, writer.bytes))
        server_login_fail(server, "startup pkt failed");
}

/* ---- TLS ---- */

static void tls_over(struct conn *conn, enum tls_handshake_end end, const char *error)
{
    struct server *server = OWNER_OF(conn, struct server, conn);
    char text[TLS_DESCRIPTION_BYTES];

    server->login->handshake = NULL;
    switch (end) {
    case TLS_HANDSHAKE_TLS:
        if (server_core(server)->snapshot->settings.log_connections) {
            tls_describe(conn->tls->session, text);
            server_log(server, server->pool->last_login_failed ? LEVEL_DEBUG : LEVEL_LOG,
                       "SSL established: %s", text);
        }
        send_startup(server);
        break;
    case TLS_HANDSHAKE_PLAIN:
        send_startup(server);
        break;
    case TLS_HANDSHAKE_BUSY:
        server_open_failed(server, JOB_REFUSED_TEXT, JOB_REFUSED_SQLSTATE, false, "login failed");
        break;
    case TLS_HANDSHAKE_FAILED:
        server_not_reached(server, "TLS handshake failed", error);
        break;
    default:
        server_not_reached(server, error, NULL);
        break;
    }
}

void server_login_start(struct server *server)
{
    struct core *core = server_core(server);
    struct tls_context *context = core->snapshot->server_tls;
    char host[HOST_NAME_BYTES_MAX];

    if (context == NULL || server->address.ss_family == AF_UNIX) {
        send_startup(server);
        return;
    }
    host_of_server(server->pool, server->host_turn, host);
    server->login->handshake = tls_handshake_connect(
        &server->conn, context, host,
        core->snapshot->settings.server_tls_sslmode >= TLS_MODE_REQUIRE, tls_over);
    if (server->login->handshake == NULL)
        server_login_fail(server, "out of memory");
}

/* ---- the end ---- */

static void login_free(struct core *core, struct server_login *login)
{
    assert(!login->job_in_flight);
    secret_wipe(login, sizeof(*login));
    slab_give(&core->server_logins, login);
}

void server_login_end(struct server *server)
{
    struct server_login *login = server->login;

    if (login->handshake != NULL)
        tls_handshake_abandon(login->handshake);
    login->handshake = NULL;
    if (server->conn.tls != NULL)
        tls_forget_peer(server->conn.tls->session);
    server->login = NULL;
    login->server = NULL;
    if (login->job_in_flight)
        job_set_cancelled(&login->job, true);
    else
        login_free(server_core(server), login);
}

void server_login_fail(struct server *server, const char *text)
{
    server_open_failed(server, text, NULL, true, "login failed");
}

/* ---- authentication ---- */

static void send_password(struct server *server, const void *data, size_t bytes)
{
    uint8_t message[1200];
    struct writer writer;

    writer_init(&writer, message, sizeof(message));
    message_password(&writer, data, bytes);
    if (writer.overflow || !conn_push_copy(&server->conn, message, writer.bytes))
        server_login_fail(server, "failed to answer authreq");
    secret_wipe(message, sizeof(message));
}

static void prove(struct server *server, const uint8_t *client_key, const uint8_t *server_key)
{
    uint8_t answer[SCRAM_CLIENT_FINAL_ROOM];
    struct writer writer;

    writer_init(&writer, answer, sizeof(answer));
    scram_client_prove(&server->login->scram, client_key, server_key, &writer);
    server->login->sasl_step = 2;
    send_password(server, answer, writer.bytes);
}

static void prove_salted(struct server *server, const uint8_t *salted)
{
    uint8_t client_key[SCRAM_KEY_BYTES], stored_key[SCRAM_KEY_BYTES], server_key[SCRAM_KEY_BYTES];

    scram_keys_from_salted(salted, client_key, stored_key, server_key);
    prove(server, client_key, server_key);
    secret_wipe(client_key, sizeof(client_key));
}

static void salted_made(struct letter *letter, void *context)
{
    struct server_login *login = OWNER_OF(letter, struct server_login, job.letter);
    struct server *server = login->server;

    const char *password;
    bool is_current;

    login->job_in_flight = false;
    if (server == NULL) {
        login_free(context, login);
        return;
    }
    assert(login->job.was_run);
    /* Kept for the pool's next logins: the server gives a user the same salt each time. Unless the
     * pool has got another password meanwhile. */
    password = pool_password(server->pool);
    is_current = password != NULL && strcmp(password, login->password) == 0;
    secret_wipe(login->password, sizeof(login->password));
    server->pool->has_salted_password = is_current;
    memcpy(server->pool->salted_password, login->salted_password, SCRAM_KEY_BYTES);
    memcpy(server->pool->salt, login->scram.salt, login->scram.salt_bytes);
    server->pool->salt_bytes = login->scram.salt_bytes;
    server->pool->salt_iterations = login->scram.iterations;
    prove_salted(server, login->salted_password);
}

static void salted_run(struct job *job)
{
    struct server_login *login = OWNER_OF(job, struct server_login, job);

    scram_salted_password(login->password, strlen(login->password), login->scram.salt,
                          login->scram.salt_bytes, login->scram.iterations, login->salted_password);
}

static void sasl_begin(struct server *server, const uint8_t *body, size_t bytes)
{
    struct core *core = server_core(server);
    struct server_login *login = server->login;
    uint8_t random[SCRAM_NONCE_BYTES];
    char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
    uint8_t first[SCRAM_CLIENT_FIRST_ROOM];
    uint8_t answer[128];
    struct writer first_writer, writer;
    struct scram_channel channel;
    struct reader reader;
    const char *mechanism;
    unsigned offers = 0;

    reader_init(&reader, body, bytes);
    for (;;) {
        const char *offer = reader_get_string(&reader);

        if (offer == NULL || offer[0] == '\0')
            break;
        if (strcmp(offer, SCRAM_MECHANISM) == 0)
            offers |= SCRAM_OFFER_PLAIN;
        else if (strcmp(offer, SCRAM_MECHANISM_PLUS) == 0)
            offers |= SCRAM_OFFER_PLUS;
    }
    channel_look(&server->conn, &channel);
    core->ports->random(core, random, sizeof(random));
    scram_nonce_text(random, nonce);
    writer_init(&first_writer, first, sizeof(first));
    mechanism = scram_client_start(&login->scram, &channel, offers, nonce, &first_writer);
    if (mechanism == NULL) {
        server_login_fail(server, "server login failed: none of the server's SASL authentication "
                                  "mechanisms are supported");
        return;
    }
    writer_init(&writer, answer, sizeof(answer));
    writer_put_string(&writer, mechanism);
    writer_put_u32(&writer, (uint32_t)first_writer.bytes);
    writer_put(&writer, first, first_writer.bytes);
    assert(!writer.overflow);
    login->sasl_step = 1;
    send_password(server, answer, writer.bytes);
}

static void sasl_challenge(struct server *server, const uint8_t *body, size_t bytes)
{
    struct core *core = server_core(server);
    struct server_login *login = server->login;
    struct pool *pool = server->pool;
    const char *password = pool_password(pool);
    struct scram_secret secret;
    enum scram_result result = scram_client_challenge(&login->scram, body, bytes);

    if (result != SCRAM_OK) {
        char text[128];

        snprintf(text, sizeof(text), "server login failed: %s", scram_result_text(result));
        server_login_fail(server, text);
        return;
    }
    if (password != NULL && scram_secret_parse(&secret, password)) {
        if (pool->has_client_key && scram_client_matches(&login->scram, &secret))
            prove(server, pool->client_key, pool->server_key);
        else
            server_login_fail(server, "server login failed: wrong password type");
        return;
    }
    if (password == NULL || md5_is_secret(password)) {
        server_login_fail(server, "server login failed: wrong password type");
        return;
    }
    if (pool->has_salted_password && pool->salt_iterations == login->scram.iterations &&
        pool->salt_bytes == login->scram.salt_bytes &&
        memcmp(pool->salt, login->scram.salt, pool->salt_bytes) == 0) {
        prove_salted(server, pool->salted_password);
        return;
    }
    if (strlen(password) >= sizeof(login->password)) {
        server_login_fail(server, "server login failed: password too long");
        return;
    }
    strcpy(login->password, password);
    login->job = (struct job){
        .letter.open = salted_made,
        .run = salted_run,
        .core_index = core->index,
    };
    login->job_in_flight = core->ports->post_job(core, &login->job);
    if (!login->job_in_flight) {
        /* Not the server's word: who waits for it goes on waiting, and it is tried again. */
        server_open_failed(server, JOB_REFUSED_TEXT, JOB_REFUSED_SQLSTATE, false, "login failed");
    }
}

static void sasl_final(struct server *server, const uint8_t *body, size_t bytes)
{
    switch (scram_client_finish(&server->login->scram, body, bytes)) {
    case SCRAM_OK:
        server->login->sasl_step = 3;
        break;
    case SCRAM_WRONG_SIGNATURE:
        server_login_fail(server, "server login failed: invalid server signature");
        break;
    default:
        server_login_fail(server, "server login failed: failed to verify server signature");
        break;
    }
}

static void authentication_request(struct server *server, const uint8_t *body, size_t bytes)
{
    struct server_login *login = server->login;
    const char *password = pool_password(server->pool);
    char secret[MD5_TEXT_BYTES], answer[MD5_TEXT_BYTES];
    struct scram_secret parsed;
    struct reader reader;
    uint32_t code;
    const uint8_t *salt;

    reader_init(&reader, body, bytes);
    code = reader_get_u32(&reader);
    if (reader.bad || login->is_authenticated || login->job_in_flight) {
        server_login_fail(server, "bad pkt header");
        return;
    }
    switch (code) {
    case AUTHENTICATION_OK:
        /* A server that began SCRAM must have proved that it knows the secret. */
        if (login->sasl_step != 0 && login->sasl_step != 3)
            server_login_fail(server, "server login failed: failed to verify server signature");
        else
            login->is_authenticated = true;
        break;
    case AUTHENTICATION_CLEARTEXT:
        if (password == NULL)
            server_login_fail(server, "server login failed: wrong password type");
        else if (login->sasl_step == 0)
            send_password(server, password, strlen(password) + 1);
        break;
    case AUTHENTICATION_MD5:
        salt = reader_get(&reader, 4);
        if (salt == NULL || login->sasl_step != 0) {
            server_login_fail(server, "bad pkt header");
            return;
        }
        if (password == NULL || scram_secret_parse(&parsed, password)) {
            server_login_fail(server, "server login failed: wrong password type");
            return;
        }
        if (!md5_is_secret(password)) {
            md5_make_secret(password, strlen(password), server->pool->user_name,
                            strlen(server->pool->user_name), secret);
            password = secret;
        }
        md5_make_answer(password, salt, answer);
        send_password(server, answer, sizeof(answer));
        secret_wipe(secret, sizeof(secret));
        break;
    case AUTHENTICATION_SASL:
        if (login->sasl_step != 0)
            server_login_fail(server, "bad pkt header");
        else
            sasl_begin(server, body + 4, bytes - 4);
        break;
    case AUTHENTICATION_SASL_CONTINUE:
        if (login->sasl_step != 1)
            server_login_fail(server, "bad pkt header");
        else
            sasl_challenge(server, body + 4, bytes - 4);
        break;
    case AUTHENTICATION_SASL_FINAL:
        if (login->sasl_step != 2)
            server_login_fail(server, "bad pkt header");
        else
            sasl_final(server, body + 4, bytes - 4);
        break;
    default:
        server_login_fail(server, "unknown authentication method of the server");
        break;
    }
}

/* ---- what the server tells ---- */

static void parameter_status(struct server *server, const uint8_t *body, size_t bytes)
{
    struct core *core = server_core(server);
    struct server_login *login = server->login;
    struct reader reader;
    struct writer writer;
    const char *name;
    const char *value;
    struct buffer *set;
    int index;

    reader_init(&reader, body, bytes);
    name = reader_get_string(&reader);
    value = reader_get_string(&reader);
    if (name == NULL || value == NULL) {
        server_login_fail(server, "broken ParameterStatus packet");
        return;
    }
    index = param_names_find(core->params.names, name);
    if (index >= 0) {
        set = params_with(&core->params, server->params, (unsigned)index, value);
        if (set == NULL) {
            server_login_fail(server, "failed to store ParameterStatus");
            return;
        }
        params_release(&core->params, server->params);
        server->params = set;
        return;
    }
    writer_init(&writer, login->welcome + login->welcome_bytes,
                sizeof(login->welcome) - login->welcome_bytes);
    message_parameter_status(&writer, name, value);
    if (!writer.overflow)
        login->welcome_bytes = (uint16_t)(login->welcome_bytes + writer.bytes);
}

/* In a row. */
enum { TERMINATED_LOGINS_MAX = 20 };

static void error_response(struct server *server, const uint8_t *body, size_t bytes)
{
    struct pool *pool = server->pool;
    struct error_fields fields;

    if (!error_fields_read(body, bytes, &fields)) {
        server_login_fail(server, "bad pkt header");
        return;
    }
    pool_read_password(pool);
    if (server->login->client_password_count != pool->client_password_count) {
        /* Most likely about a password that is outdated: what a client has proved meanwhile is
         * tried before anybody is told. */
        if (server->replication != REPLICATION_NONE)
            replication_wait_again(server);
        server_close(server, "login failed, and there is another password");
        return;
    }
    /* Somebody has terminated this one backend, as he may have meant to terminate a query: that says nothing of
     * the next attempt. (A server that is shutting down says so to the next one: 57P03.) */
    if (server->login->is_authenticated && server->replication == REPLICATION_NONE &&
        strcmp(fields.sqlstate, "57P01") == 0 &&
        pool->terminated_login_count < TERMINATED_LOGINS_MAX) {
        pool->terminated_login_count++;
        server_close(server, "terminated while it logged in");
        return;
    }
    /* Said once, not for each attempt: pool_server_failed logs a change of it. */
    server_log(server, pool->last_login_failed ? LEVEL_DEBUG : LEVEL_WARNING,
               "server login failed: %s %s", fields.severity, fields.message);
    /* 57P03 cannot_connect_now: starting up or shutting down; clients go on waiting. */
    server_open_failed(server, fields.message, fields.sqlstate,
                       strcmp(fields.sqlstate, "57P03") != 0, "login failed");
}

/* The host is another one than before, or has another role, another version: PgBouncer tells clients of
 * the first one until RECONNECT. Not of a server that is older than the one whose welcome it is. */
static bool welcome_differs(const struct server *server)
{
    const struct pool *pool = server->pool;
    const struct server_login *login = server->login;

    return server->generation >= pool->welcome_generation &&
           (pool->welcome_bytes != login->welcome_bytes ||
            memcmp(pool->welcome, login->welcome, login->welcome_bytes) != 0);
}

bool server_login_message(struct server *server, uint8_t type, const uint8_t *body, size_t bytes)
{
    struct server_login *login = server->login;
    struct pool *pool = server->pool;

    switch (type) {
    case 'R':
        authentication_request(server, body, bytes);
        return false;
    case 'E':
        error_response(server, body, bytes);
        return false;
    case 'N':
        return false;
    default:
        break;
    }
    if (!login->is_authenticated) {
        server_login_fail(server, "unknown pkt from server");
        return false;
    }
    switch (type) {
    case 'S':
        parameter_status(server, body, bytes);
        return false;
    case 'K':
        if (bytes != 8) {
            server_login_fail(server, "bad cancel key");
            return false;
        }
        memcpy(server->key, body, 8);
        return false;
    case 'Z':
        server->status = body[0];
        if (server->status != 'I') {
            server_login_fail(server, "bad pkt header");
            return false;
        }
        if (server->replication != REPLICATION_NONE)
            return true; /* its welcome is its client's alone */
        if (pool_needs_welcome(pool)) {
            memcpy(pool->welcome, login->welcome, login->welcome_bytes);
            pool->welcome_bytes = login->welcome_bytes;
        } else if (welcome_differs(server)) {
            pool_replace_welcome(pool, login->welcome, login->welcome_bytes, server->generation);
        }
        return true;
    default:
        server_login_fail(server, "unknown pkt from server");
        return false;
    }
}
