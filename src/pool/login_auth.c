#include "pool/login_auth.h"

#include "crypto/md5.h"
#include "crypto/secret.h"
#include "pool/channel.h"

#include <stdio.h>
#include <string.h>

/* Keys of one user with a plain password, made once by a helper for a random salt.
 *
 * Until it is ready its job is with the helpers. When the last waiter leaves, the job is cancelled;
 * when another comes, no more. Whether a helper saw the one or the other is decided when the job
 * comes back: it ran and the keys are kept; or it did not, and then it is posted again for those
 * who wait, or forgotten when nobody does. */
struct scram_entry {
    struct list link;
    struct list waiters; /* login.key_link */
    struct job job;
    struct snapshot *snapshot; /* one reference: the user is of it */
    const struct user_config *user;
    bool is_ready;
    bool is_stale; /* the configuration has changed: serves who waits, and goes */
    struct scram_secret secret;
    uint8_t salt[SCRAM_SALT_DEFAULT_BYTES];
    uint32_t iterations;
    uint8_t salted[SCRAM_KEY_BYTES];
};

static void scram_offer(struct client *client);
static void check_run(struct job *job);

size_t login_scram_entry_bytes(void)
{
    return sizeof(struct scram_entry);
}

static void fail(struct client *client, const char *message)
{
    client_close_error(client, message, NULL);
}

static void send_authentication(struct client *client, uint32_t code, const void *data,
                                size_t bytes)
{
    uint8_t message[1024];
    struct writer writer;

    writer_init(&writer, message, sizeof(message));
    message_authentication(&writer, code, data, bytes);
    assert(!writer.overflow);
    if (!conn_push_copy(&client->conn, writer.data, writer.bytes))
        client_close_silently(client, "out of memory");
}

static void scram_entry_forget(struct core *core, struct scram_entry *entry)
{
    assert(list_is_empty(&entry->waiters));
    list_remove(&entry->link);
    snapshot_release(entry->snapshot);
    secret_wipe(entry, sizeof(*entry));
    slab_give(&core->scram_cache, entry);
}

static void scram_waiter_comes(struct scram_entry *entry, struct login *login)
{
    assert(!entry->is_ready);
    login->phase = LOGIN_KEYS;
    login->scram_entry = entry;
    list_push_back(&entry->waiters, &login->key_link);
    job_set_cancelled(&entry->job, false);
}

static void scram_waiter_leaves(struct login *login)
{
    struct scram_entry *entry = login->scram_entry;

    list_remove(&login->key_link);
    login->scram_entry = NULL;
    if (list_is_empty(&entry->waiters))
        job_set_cancelled(&entry->job, true);
}

/* The entry's keys are asked for. False: the helpers have too much to do; the entry and all who
 * wait for it are gone. */
static void scram_keys_ask(struct core *core, struct scram_entry *entry)
{
    if (core->ports->post_job(core, &entry->job))
        return;
    while (!list_is_empty(&entry->waiters)) {
        struct login *login = OWNER_OF(list_front(&entry->waiters), struct login, key_link);

        scram_waiter_leaves(login);
        client_close_error(login->client, JOB_REFUSED_TEXT, JOB_REFUSED_SQLSTATE);
    }
    scram_entry_forget(core, entry);
}

static void scram_keys_made(struct letter *letter, void *context)
{
    struct scram_entry *entry = OWNER_OF(letter, struct scram_entry, job.letter);
    struct core *core = context;

    if (!entry->job.was_run) {
        if (list_is_empty(&entry->waiters))
            scram_entry_forget(core, entry);
        else
            scram_keys_ask(core, entry);
        return;
    }
    scram_secret_make(&entry->secret, entry->salted, entry->salt, sizeof(entry->salt),
                      entry->iterations);
    secret_wipe(entry->salted, sizeof(entry->salted));
    entry->is_ready = true;
    while (!list_is_empty(&entry->waiters)) {
        struct login *login = OWNER_OF(list_front(&entry->waiters), struct login, key_link);

        scram_waiter_leaves(login);
        login->secret = entry->secret;
        scram_offer(login->client);
    }
    if (entry->is_stale)
        scram_entry_forget(core, entry);
}

static void scram_keys_run(struct job *job)
{
    struct scram_entry *entry = OWNER_OF(job, struct scram_entry, job);

    scram_salted_password(entry->user->secret, strlen(entry->user->secret), entry->salt,
                          sizeof(entry->salt), entry->iterations, entry->salted);
}

void login_forget_keys(struct core *core)
{
    list_for_each_safe(link, &core->scram_entries)
    {
        struct scram_entry *entry = OWNER_OF(link, struct scram_entry, link);

        if (!entry->is_ready) {
            entry->is_stale = true;
            continue;
        }
        scram_entry_forget(core, entry);
    }
}

/* SCRAM with a plain secret: the keys are made once for each user, by a helper. */
static void scram_keys_for_plain(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    struct scram_entry *entry;

    list_for_each(link, &core->scram_entries)
    {
        entry = OWNER_OF(link, struct scram_entry, link);
        if (entry->user != login->user || entry->is_stale)
            continue;
        if (entry->is_ready) {
            /* The last used first, so that a busy user is found at once. */
            list_remove(&entry->link);
            list_push_front(&core->scram_entries, &entry->link);
            login->secret = entry->secret;
            scram_offer(client);
        } else {
            scram_waiter_comes(entry, login);
        }
        return;
    }
    entry = slab_take(&core->scram_cache);
    if (entry == NULL) {
        fail(client, "bouncer resources exhaustion");
        return;
    }
    memset(entry, 0, sizeof(*entry));
    list_init(&entry->link);
    list_init(&entry->waiters);
    entry->snapshot = login->snapshot;
    snapshot_reference(entry->snapshot);
    entry->user = login->user;
    entry->iterations = (uint32_t)login->snapshot->settings.scram_iterations;
    core->ports->random(core, entry->salt, sizeof(entry->salt));
    entry->job = (struct job){
        .letter.open = scram_keys_made,
        .run = scram_keys_run,
        .core_index = core->index,
    };
    list_push_front(&core->scram_entries, &entry->link);
    scram_waiter_comes(entry, login);
    scram_keys_ask(core, entry);
}

/* A helper has to find something out first; `done` opens its letter. */
static void check_post(struct client *client, enum job_kind kind, void (*run)(struct job *job),
                       letter_open *done)
{
    struct core *core = client_core(client);
    struct login *login = client->login;

    login->phase = LOGIN_CHECK;
    login->check.job = (struct job){
        .letter.open = done,
        .run = run,
        .kind = kind,
        .core_index = core->index,
    };
    login->job_in_flight = core->ports->post_job(core, &login->check.job);
    if (!login->job_in_flight)
        client_close_error(client, JOB_REFUSED_TEXT, JOB_REFUSED_SQLSTATE);
}

/* A plain secret that auth_query has found: its keys are made for this login alone, since it may be another
 * one next time. The salt is that of the name. */
static void found_keys_made(struct letter *letter, void *context)
{
    struct login *login = OWNER_OF(letter, struct login, check.job.letter);
    struct scram_secret made;

    assert(login->check.job.was_run || login->client == NULL);
    login->job_in_flight = false;
    secret_wipe(login->password, sizeof(login->password));
    if (login->client == NULL) {
        login_free(context, login);
        return;
    }
    scram_secret_make(&made, login->salted, login->secret.salt, login->secret.salt_bytes,
                      login->secret.iterations);
    login->secret = made;
    secret_wipe(login->salted, sizeof(login->salted));
    scram_offer(login->client);
}

static void scram_keys_for_found(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = client->login;

    scram_secret_mock(&login->secret, core->mock_key, login->handover.user,
                      strlen(login->handover.user),
                      (uint32_t)login->snapshot->settings.scram_iterations);
    static_assert(FOUND_SECRET_BYTES_MAX <= sizeof(login->password), "it fits");
    strcpy(login->password, login->secret_text);
    check_post(client, JOB_HASH, check_run, found_keys_made);
}

static void scram_offer(struct client *client)
{
    /* The better one first, as PostgreSQL lists them. */
    static const char plain[] = SCRAM_MECHANISM "\0";
    static const char both[] = SCRAM_MECHANISM_PLUS "\0" SCRAM_MECHANISM "\0";
    struct login *login = client->login;

    login->phase = LOGIN_SASL_FIRST;
    channel_look(&client->conn, &login->channel);
    if (scram_server_offers(&login->channel) & SCRAM_OFFER_PLUS)
        send_authentication(client, AUTHENTICATION_SASL, both, sizeof(both));
    else
        send_authentication(client, AUTHENTICATION_SASL, plain, sizeof(plain));
}

static void scram_begin(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    const char *secret = login->secret_text;

    login->method = AUTH_SCRAM_SHA_256;
    if (secret[0] != '\0' && scram_secret_parse(&login->secret, secret)) {
        scram_offer(client);
    } else if (secret[0] != '\0' && !md5_is_secret(secret)) {
        if (login->is_looked_up)
            scram_keys_for_found(client);
        else
            scram_keys_for_plain(client);
    } else {
        /* Nobody, or somebody who has no key: an exchange that cannot succeed. */
        scram_secret_mock(&login->secret, core->mock_key, login->handover.user,
                          strlen(login->handover.user),
                          (uint32_t)core->snapshot->settings.scram_iterations);
        scram_offer(client);
    }
}

/* PAM and LDAP say whether a password is right, not what a user's secret is. */
static bool has_auth_user(const struct client *client)
{
    const struct snapshot *snapshot = client_core(client)->snapshot;
    const struct database_config *database =
        snapshot_find_database(snapshot, client->login->handover.database);
    const char *name = database != NULL && database->auth_user != NULL
                           ? database->auth_user
                           : snapshot->settings.auth_user;

    return !client->login->is_console && name != NULL && name[0] != '\0';
}

/* ---- HBA ---- */

static bool has_tls(const struct client *client)
{
    return client->conn.tls != NULL;
}

static void log_hba(const struct client *client, const char *what)
{
    const struct handover *handover = &client->login->handover;
    char host[64];

    peer_name_host(&client->peer, host);
    client_log(client, LEVEL_LOG, "%s host \"%s\", user \"%s\", database \"%s\", SSL %s", what,
               client->peer.family == AF_UNIX ? "[local]" : host, handover->user,
               handover->database, has_tls(client) ? "on" : "off");
}

/* auth_type hba: the first line that matches says how. False: closed. */
static bool hba_decide(struct client *client)
{
    static const enum hba_replication replications[] = {
        [REPLICATION_NONE] = HBA_NO_REPLICATION,
        [REPLICATION_LOGICAL] = HBA_LOGICAL,
        [REPLICATION_PHYSICAL] = HBA_PHYSICAL,
    };
    struct login *login = client->login;
    const struct hba_question question = {
        .database = login->handover.database,
        .user = login->handover.user,
        .family = client->peer.family,
        .address = client->peer.address,
        .has_tls = has_tls(client),
        /* The console has none: a line for replicas must not open it. */
        .replication =
            login->is_console ? HBA_NO_REPLICATION : replications[login->handover.replication],
    };

    login->rule = hba_find(&login->snapshot->hba, &question);
    if (login->rule == NULL) {
        log_hba(client, "no pg_hba.conf entry for");
        fail(client, "no authentication method is found");
        return false;
    }
    login->method = (uint8_t)login->rule->method;
    return true;
}

static void peer_named(struct letter *letter, void *context)
{
    struct login *login = OWNER_OF(letter, struct login, check.job.letter);

    assert(login->check.job.was_run || login->client == NULL);
    login->job_in_flight = false;
    if (login->client == NULL)
        login_free(context, login);
    else if (login->os_user[0] != '\0' &&
             hba_allows_peer(login->rule, login->os_user, login->handover.user))
        login_authenticated(login->client);
    else
        fail(login->client, "unix socket login rejected");
}

/* Who is at the other end of the socket, says the kernel; what he is called, says NSS, and that may
 * take long. */
static void peer_begin(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = client->login;

    if (!login_knows_user(login) || client->peer.family != AF_UNIX ||
        !ring_peer_uid(core->loop.ring, client->conn.fd, &login->peer_uid)) {
        fail(client, "unix socket login rejected");
        return;
    }
    check_post(client, JOB_OS_USER, NULL, peer_named);
}

static bool certificate_has_name(const void *session, const char *name)
{
    return tls_peer_has_name(session, name);
}

/* Method cert: the handshake has verified the certificate; here it is only asked for its names. */
static void cert_check(struct client *client)
{
    struct login *login = client->login;
    const struct tls *session = has_tls(client) ? client->conn.tls->session : NULL;

    if (session == NULL)
        client_log(client, LEVEL_ERROR, "TLS connection required");
    else if (!tls_peer_has_certificate(session))
        client_log(client, LEVEL_ERROR, "TLS client certificate required");
    else if (login_knows_user(login) && hba_allows_certificate(login->rule, certificate_has_name,
                                                               session, login->handover.user)) {
        login_authenticated(client);
        return;
    } else
        client_log(client, LEVEL_ERROR, "TLS certificate name mismatch");
    fail(client, "certificate authentication failed");
}

static bool method_needs_user(uint8_t method)
{
    return method != AUTH_ANY && method != AUTH_PAM && method != AUTH_LDAP && method != AUTH_REJECT;
}

void login_auth_begin(struct client *client)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    const char *secret = login->secret_text;
    struct scram_secret parsed;
    const struct database_config *database;

    login->method = (uint8_t)login->snapshot->settings.auth_type;
    if (login->method == AUTH_HBA && !hba_decide(client))
        return;
    /* The client must not be told that nobody knows its user; the log has to be. */
    if (!login_knows_user(login) && method_needs_user(login->method))
        client_log(client, LEVEL_LOG, "no such user: %s", login->handover.user);
    switch (login->method) {
    case AUTH_ANY:
        database = snapshot_find_database(core->snapshot, login->handover.database);
        if (!login->is_console && database != NULL && database->user == NULL)
            fail(client, "bouncer config error");
        else
            login_authenticated(client);
        break;
    case AUTH_TRUST:
        if (!login_knows_user(login))
            fail(client, "\"trust\" authentication failed");
        else
            login_authenticated(client);
        break;
    case AUTH_PLAIN:
        login->phase = LOGIN_PASSWORD;
        send_authentication(client, AUTHENTICATION_CLEARTEXT, NULL, 0);
        break;
    case AUTH_MD5:
        if (scram_secret_parse(&parsed, secret)) {
            scram_begin(client);
            break;
        }
        core->ports->random(core, login->md5_salt, sizeof(login->md5_salt));
        login->phase = LOGIN_PASSWORD;
        send_authentication(client, AUTHENTICATION_MD5, login->md5_salt, sizeof(login->md5_salt));
        break;
    case AUTH_SCRAM_SHA_256:
        scram_begin(client);
        break;
    case AUTH_REJECT:
        log_hba(client, "pg_hba.conf rejects connection for");
        fail(client, "login rejected");
        break;
    case AUTH_PEER:
        peer_begin(client);
        break;
    case AUTH_CERT:
        cert_check(client);
        break;
    case AUTH_LDAP:
    case AUTH_PAM:
        login->ldap = login->rule != NULL ? login->rule->ldap : login->snapshot->ldap;
        if (login->method == AUTH_LDAP && !BUILD_HAS_LDAP) {
            fail(client, "ldap is not supported by this build");
        } else if (has_auth_user(client)) {
            fail(client, "bouncer config error");
        } else if (login->method == AUTH_LDAP && login->ldap == NULL) {
            /* A rule's are there, but not understood. */
            fail(client,
                 login->rule != NULL ? "LDAP authentication failed" : "auth_ldap_options is null");
        } else {
            login->phase = LOGIN_PASSWORD;
            send_authentication(client, AUTHENTICATION_CLEARTEXT, NULL, 0);
        }
        break;
    default:
        /* The configuration refuses what is not built in. */
        fail(client, "bouncer config error");
        break;
    }
}

/* ---- a plain password, checked by a helper ---- */

static void outside_refused(struct client *client)
{
    struct login *login = client->login;
    const struct password_check *check = &login->check;

    client_log(client, LEVEL_WARNING, "%s", check->reason);
    secret_wipe(login->password, sizeof(login->password));
    if (check->job.kind == JOB_LDAP) {
        fail(client, "LDAP authentication failed");
    } else if (check->delay_us == 0) {
        fail(client, LOGIN_PAM_REFUSED_TEXT);
    } else {
        /* No helper sleeps for it: others would have to wait, too. */
        login->phase = LOGIN_REFUSED;
        login->refused_us = client_core(client)->loop.now_us;
        login->refusal_delay_us = check->delay_us;
        client_arm_timer(client);
    }
}

static void outside_done(struct letter *letter, void *context)
{
    struct login *login = OWNER_OF(letter, struct login, check.job.letter);

    assert(login->check.job.was_run || login->client == NULL);
    login->job_in_flight = false;
    if (login->client == NULL) {
        login_free(context, login);
    } else if (!login->check.is_right) {
        outside_refused(login->client);
    } else {
        login->handover.password = login->password;
        login_authenticated(login->client);
    }
}

/* Asks PAM or LDAP. */
static void outside_ask(struct client *client, const char *password, size_t bytes)
{
    struct login *login = client->login;
    struct password_check *check = &login->check;
    uint64_t login_timeout_us = login->snapshot->settings.client_login_timeout_us;

    memcpy(login->password, password, bytes);
    check->user = login->handover.user;
    check->password = login->password;
    check->ldap = login->ldap;
    check->timeout_us = PASSWORD_CHECK_TIMEOUT_MAX_S * US_PER_S;
    if (login_timeout_us > 0)
        check->timeout_us = MIN(check->timeout_us, login_timeout_us);
    check->is_right = false;
    check->delay_us = 0;
    check->reason[0] = '\0';
    peer_name_host(&client->peer, check->host);
    check_post(client, login->method == AUTH_PAM ? JOB_PAM : JOB_LDAP, NULL, outside_done);
}

static void check_done(struct letter *letter, void *context)
{
    struct login *login = OWNER_OF(letter, struct login, check.job.letter);
    bool same = login->check.job.was_run && scram_secret_check(&login->secret, login->salted);

    assert(login->check.job.was_run || login->client == NULL);
    login->job_in_flight = false;
    secret_wipe(login->password, sizeof(login->password));
    secret_wipe(login->salted, sizeof(login->salted));
    if (login->client == NULL)
        login_free(context, login);
    else if (same)
        login_authenticated(login->client);
    else
        fail(login->client, "password authentication failed");
}

static void check_run(struct job *job)
{
    struct login *login = OWNER_OF(job, struct login, check.job);

    scram_salted_password(login->password, strlen(login->password), login->secret.salt,
                          login->secret.salt_bytes, login->secret.iterations, login->salted);
}

/* A PasswordMessage, zero-terminated. */
static void password_received(struct client *client, const char *password, size_t bytes)
{
    struct login *login = client->login;
    const char *secret = login->secret_text;
    bool right = false;

    if (bytes == 0 || password[bytes - 1] != '\0' || strlen(password) != bytes - 1) {
        fail(client, "bad packet");
        return;
    }
    if (bytes == 1) {
        fail(client, "empty password returned by client");
        return;
    }
    if (login->method == AUTH_PAM || login->method == AUTH_LDAP) {
        outside_ask(client, password, bytes);
        return;
    }
    if (login->method == AUTH_MD5) {
        char made[MD5_TEXT_BYTES];

        if (secret[0] != '\0' && !md5_is_secret(secret)) {
            md5_make_secret(secret, strlen(secret), login->handover.user,
                            strlen(login->handover.user), made);
            secret = made;
        }
        right = secret[0] != '\0' && md5_check_answer(secret, login->md5_salt, password, bytes - 1);
        secret_wipe(made, sizeof(made));
    } else if (secret[0] != '\0' && scram_secret_parse(&login->secret, secret)) {
        memcpy(login->password, password, bytes);
        check_post(client, JOB_HASH, check_run, check_done);
        return;
    } else if (md5_is_secret(secret)) {
        char made[MD5_TEXT_BYTES];

        md5_make_secret(password, bytes - 1, login->handover.user, strlen(login->handover.user),
                        made);
        right = secret_equal(made, secret, MD5_TEXT_BYTES - 1);
        secret_wipe(made, sizeof(made));
    } else {
        right = secret_text_equal(secret, strlen(secret), password, bytes - 1) && secret[0] != '\0';
    }
    if (right)
        login_authenticated(client);
    else
        fail(client, "password authentication failed");
}

/* Of our offers; 0: none of them. */
static unsigned chosen_mechanism(const struct login *login, const char *name)
{
    unsigned offers = scram_server_offers(&login->channel);

    if (name != NULL && strcmp(name, SCRAM_MECHANISM_PLUS) == 0)
        return offers & SCRAM_OFFER_PLUS;
    if (name != NULL && strcmp(name, SCRAM_MECHANISM) == 0)
        return offers & SCRAM_OFFER_PLAIN;
    return 0;
}

/* PgBouncer's one text for all that it refuses; PostgreSQL's where PgBouncer has nothing like it. */
static void sasl_refused(struct client *client, enum scram_result result)
{
    struct pg_error error = {.severity = SEVERITY_FATAL, .message = "SASL authentication failed"};
    char text[96];

    switch (result) {
    case SCRAM_NOT_BOUND:
        error.message = "malformed SCRAM message";
        error.detail = "The client selected " SCRAM_MECHANISM_PLUS
                       ", but the SCRAM message does not include channel binding data.";
        break;
    case SCRAM_DOWNGRADED:
        error.sqlstate = "28000";
        error.message = "SCRAM channel binding negotiation error";
        error.detail = "The client supports SCRAM channel binding but thinks the server does not.  "
                       "However, this server does support channel binding.";
        break;
    case SCRAM_BINDING_TYPE:
        snprintf(text, sizeof(text), "unsupported SCRAM channel-binding type \"%s\"",
                 scram_server_binding_type(&client->login->scram));
        error.message = text;
        break;
    case SCRAM_WRONG_BINDING:
        error.sqlstate = "28000";
        error.message = "SCRAM channel binding check failed";
        break;
    default:
        break;
    }
    client_close_pg_error(client, &error, LEVEL_WARNING);
}

static void sasl_first(struct client *client, const uint8_t *body, size_t bytes)
{
    struct core *core = client_core(client);
    struct login *login = client->login;
    uint8_t random[SCRAM_NONCE_BYTES];
    char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
    uint8_t answer[SCRAM_SERVER_FIRST_ROOM];
    struct writer writer;
    struct reader reader;
    enum scram_result result;
    unsigned mechanism;
    uint32_t data_bytes;
    const uint8_t *data;

    reader_init(&reader, body, bytes);
    mechanism = chosen_mechanism(login, reader_get_string(&reader));
    data_bytes = reader_get_u32(&reader);
    if (mechanism == 0) {
        fail(client, "client selected an invalid SASL authentication mechanism");
        return;
    }
    data = reader_get(&reader, data_bytes);
    if (data == NULL || reader_left(&reader) != 0) {
        fail(client, "SASL authentication failed");
        return;
    }
    core->ports->random(core, random, sizeof(random));
    scram_nonce_text(random, nonce);
    writer_init(&writer, answer, sizeof(answer));
    result = scram_server_start(&login->scram, &login->channel, mechanism, data, data_bytes, nonce,
                                &login->secret, &writer);
    if (result != SCRAM_OK) {
        sasl_refused(client, result);
        return;
    }
    login->phase = LOGIN_SASL_FINAL;
    send_authentication(client, AUTHENTICATION_SASL_CONTINUE, answer, writer.bytes);
}

static void sasl_final(struct client *client, const uint8_t *body, size_t bytes)
{
    struct login *login = client->login;
    struct handover *handover = &login->handover;
    uint8_t answer[SCRAM_SERVER_FINAL_ROOM];
    struct writer writer;
    enum scram_result result;

    writer_init(&writer, answer, sizeof(answer));
    result = scram_server_finish(&login->scram, body, bytes, handover->client_key, &writer);
    if (result != SCRAM_OK) {
        sasl_refused(client, result);
        return;
    }
    send_authentication(client, AUTHENTICATION_SASL_FINAL, answer, writer.bytes);
    if (client->state == CLIENT_CLOSING)
        return;
    /* With the same secret at the server, the client's key opens it too. */
    handover->has_scram_keys = true;
    memcpy(handover->server_key, login->secret.server_key, sizeof(handover->server_key));
    login_authenticated(client);
}

bool login_auth_leave(struct login *login)
{
    if (login->scram_entry != NULL)
        scram_waiter_leaves(login);
    if (login->job_in_flight)
        job_set_cancelled(&login->check.job, true);
    return login->job_in_flight;
}

void login_auth_received(struct client *client, const uint8_t *body, size_t bytes)
{
    switch (client->login->phase) {
    case LOGIN_PASSWORD:
        password_received(client, (const char *)body, bytes);
        break;
    case LOGIN_SASL_FIRST:
        sasl_first(client, body, bytes);
        break;
    default:
        assert(client->login->phase == LOGIN_SASL_FINAL);
        sasl_final(client, body, bytes);
        break;
    }
}
