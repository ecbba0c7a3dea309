/* test_login.c - logins of clients and at servers whose keys are made by slow, full and late
 * helpers, while clients leave at every moment and the configuration changes.
 *
 * A client that knows its password gets in, or hears why not: that too many wait for a helper. One
 * that does not know it never gets in. When the faults stop, everybody who tries gets in, and no
 * job, login, key or buffer is left over.
 *
 * Methods: SCRAM with plain secrets, plain passwords with SCRAM secrets, PAM and LDAP. With these two
 * somebody outside knows the passwords, and changes them, at the server too; what a client got in
 * with opens the servers.
 *
 * Channels: plain, TLS that nothing can be bound to, TLS. There is no TLS here: channel_look is this
 * file's. During the chaos some clients and some servers have somebody between them and the pooler, who
 * passes everything on but has a certificate of his own, or hides from the pooler's or the server's
 * list that SCRAM can be bound; no such login may succeed. */
#include "harness.h"
#include "sim_jobs.h"

#include "crypto/scram.h"
#include "pool/channel.h"
#include "pool/client.h"
#include "pool/login.h"
#include "pool/login_auth.h"
#include "pool/server.h"
#include "pool/server_login.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

enum {
    USERS = 3,
    CLIENTS = 12,
    SESSIONS_MAX = 64,
    BYTES_MAX = 8192,
    CHAOS_ROUNDS = 1500,
    ROUNDS_MAX = 200000,
};

/* Bytes that have come and were not understood yet, and those that are still to be written. */
struct line {
    struct sim_peer *peer;
    uint8_t in[BYTES_MAX], out[BYTES_MAX];
    size_t in_bytes, out_bytes;
    bool is_over;
};

struct person {
    struct line line;
    bool is_connected, came_in_chaos;
    bool knows_password;
    bool is_welcome, is_answered;
    char user[8];
    char password[32];
    struct scram_client scram;
    bool is_deceived;          /* somebody is between him and the pooler */
    unsigned password_version; /* that he knows */
    unsigned logins_left;      /* after the chaos */
};

struct session {
    struct line line;
    bool is_started;
    char user[8];
    struct scram_secret secret;
    struct scram_server scram;
    unsigned offers;
    bool is_deceived; /* somebody is between it and the pooler */
};

static struct sim *sim;
static struct ring *ring;
static struct core core;
static struct buffer_pool buffers;
static struct usage_table usage;
static struct shard_table shards;
static struct mailbox mailbox;
static struct sim_jobs jobs;
static struct person people[CLIENTS];
static struct session *sessions[SESSIONS_MAX];
static unsigned session_count;
static struct sockaddr_in listen_address, server_address;
static int listen_fd;
static bool is_chaos, people_leave, salts_change, passwords_change;
static enum auth_type method;
static unsigned password_version;    /* of all users of PAM and LDAP */
static struct scram_channel channel; /* of all connections, as the pooler sees it */
static unsigned long long logged_in, refused_logins, wrong_logins, stale_logins;
static unsigned long long bound_logins, bound_sessions, deceived_logins, deceived_sessions;

/* Linked before the library's. */
void channel_look(const struct conn *conn, struct scram_channel *found)
{
    assert(conn->loop == &core.loop);
    *found = channel;
}

static bool is_outside(void)
{
    return method == AUTH_PAM || method == AUTH_LDAP;
}

static void give_password(const char *user, bool is_right, char password[32])
{
    snprintf(password, 32, "%s of %s (%u)", is_right ? "right" : "wrong", user, password_version);
}

static bool happens(unsigned one_in)
{
    return sim_below(sim, one_in) == 0;
}

/* What the other end of a connection sees, if somebody is in between: his own certificate. */
static struct scram_channel other_end(bool is_deceived)
{
    struct scram_channel other = channel;

    if (is_deceived)
        other.binding[other.binding_bytes - 1] ^= 1;
    return other;
}

/* ---- lines ---- */

static void line_put(struct line *line, const struct writer *writer)
{
    assert(!writer->overflow);
    assert(line->out_bytes + writer->bytes <= sizeof(line->out));
    memcpy(line->out + line->out_bytes, writer->data, writer->bytes);
    line->out_bytes += writer->bytes;
}

static void line_step(struct line *line)
{
    size_t taken = sim_peer_write(line->peer, line->out, line->out_bytes);

    line->out_bytes -= taken;
    memmove(line->out, line->out + taken, line->out_bytes);
    line->in_bytes +=
        sim_peer_read(line->peer, line->in + line->in_bytes, sizeof(line->in) - line->in_bytes);
}

static void line_consume(struct line *line, size_t bytes)
{
    line->in_bytes -= bytes;
    memmove(line->in, line->in + bytes, line->in_bytes);
}

/* Bytes of the next whole message; `has_type`: not a startup packet. 0: not there yet. */
static size_t line_message(const struct line *line, bool has_type)
{
    size_t bytes;

    if (line->in_bytes < 5)
        return 0;
    bytes = bytes_get_u32(line->in + has_type) + has_type;
    assert(bytes >= 4);
    assert(bytes <= sizeof(line->in));
    return line->in_bytes < bytes ? 0 : bytes;
}

static void give_nonce(char nonce[SCRAM_NONCE_TEXT_BYTES_MAX])
{
    uint8_t random[SCRAM_NONCE_BYTES];

    for (size_t i = 0; i < sizeof(random); i++)
        random[i] = (uint8_t)sim_random(sim);
    scram_nonce_text(random, nonce);
}

/* ---- the PostgreSQL ---- */

static const char server_password[] = "what only the pooler knows";
static const char check_failed_text[] = "SCRAM channel binding check failed";
static const char negotiation_text[] = "SCRAM channel binding negotiation error";
static const char stale_password_text[] = "that is the password of yesterday";

static void session_begins(void *context, struct sim_peer *peer)
{
    struct session *session = calloc(1, sizeof(*session));

    (void)context;
    assert(session != NULL);
    assert(session_count < SESSIONS_MAX);
    session->line.peer = peer;
    sessions[session_count++] = session;
}

static void session_asks_sasl(struct session *session, const uint8_t *packet, struct writer *writer)
{
    const char *password = server_password;
    char users_password[32];
    static const char plain[] = SCRAM_MECHANISM "\0", plus[] = SCRAM_MECHANISM_PLUS "\0";
    static const char both[] = SCRAM_MECHANISM_PLUS "\0" SCRAM_MECHANISM "\0";
    uint8_t salt[SCRAM_SALT_DEFAULT_BYTES] = {1};
    uint8_t salted[SCRAM_KEY_BYTES];

    /* As after ALTER ROLE PASSWORD: the pool's keys do not fit any more. */
    salt[1] = salts_change ? (uint8_t)sim_below(sim, 8) : 0;
    if (is_outside()) {
        assert(strcmp((const char *)packet + 8, "user") == 0);
        snprintf(session->user, sizeof(session->user), "%s", (const char *)packet + 13);
        give_password(session->user, true, users_password);
        password = users_password;
    }
    scram_salted_password(password, strlen(password), salt, sizeof(salt), 2, salted);
    scram_secret_make(&session->secret, salted, salt, sizeof(salt), 2);
    session->is_deceived = is_chaos && channel.binding_bytes > 0 && happens(8);
    session->offers = SCRAM_OFFER_PLAIN;
    if (channel.binding_bytes > 0 && !(session->is_deceived && happens(2)))
        session->offers = happens(4) ? SCRAM_OFFER_PLUS : SCRAM_OFFER_PLUS | SCRAM_OFFER_PLAIN;
    if (session->offers == SCRAM_OFFER_PLAIN)
        message_authentication(writer, AUTHENTICATION_SASL, plain, sizeof(plain));
    else if (session->offers == SCRAM_OFFER_PLUS)
        message_authentication(writer, AUTHENTICATION_SASL, plus, sizeof(plus));
    else
        message_authentication(writer, AUTHENTICATION_SASL, both, sizeof(both));
    session->is_started = true;
}

static void session_sees_who_is_between(const struct session *session, const char *text,
                                        struct writer *writer)
{
    struct pg_error error = {.severity = SEVERITY_FATAL, .sqlstate = "28000", .message = text};

    assert(session->is_deceived);
    message_error(writer, &error);
    deceived_sessions++;
}

static void session_password(struct session *session, const uint8_t *body, size_t bytes,
                             struct writer *writer)
{
    static const uint8_t key[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t answer[512];
    uint8_t client_key[SCRAM_KEY_BYTES];
    char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
    struct writer inner;
    bool is_plus = (session->offers & SCRAM_OFFER_PLUS) != 0;
    size_t head = (is_plus ? sizeof(SCRAM_MECHANISM_PLUS) : sizeof(SCRAM_MECHANISM)) + 4;
    const struct scram_channel own = other_end(session->is_deceived);
    enum scram_result result;

    writer_init(&inner, answer, sizeof(answer));
    if (session->scram.state == SCRAM_START) {
        give_nonce(nonce);
        assert(bytes > head);
        assert(strcmp((const char *)body, is_plus ? SCRAM_MECHANISM_PLUS : SCRAM_MECHANISM) == 0);
        assert((body[head] == 'y') == (channel.is_tls && !is_plus));
        result = scram_server_start(&session->scram, &own,
                                    is_plus ? SCRAM_OFFER_PLUS : SCRAM_OFFER_PLAIN, body + head,
                                    bytes - head, nonce, &session->secret, &inner);
        if (result == SCRAM_OK) {
            message_authentication(writer, AUTHENTICATION_SASL_CONTINUE, answer, inner.bytes);
        } else {
            assert(result == SCRAM_DOWNGRADED);
            session_sees_who_is_between(session, negotiation_text, writer);
        }
        return;
    }
    result = scram_server_finish(&session->scram, body, bytes, client_key, &inner);
    if (result == SCRAM_WRONG_BINDING) {
        session_sees_who_is_between(session, check_failed_text, writer);
        return;
    }
    assert(!session->is_deceived);
    bound_sessions += is_plus;
    /* The pooler knows the password: anything but OK is a key of another salt, or of a password that
     * was changed. */
    if (result != SCRAM_OK) {
        struct pg_error error = {
            .severity = SEVERITY_FATAL, .sqlstate = "28P01", .message = stale_password_text};

        assert(result == SCRAM_WRONG_PROOF);
        assert(is_outside());
        assert(password_version > 0);
        message_error(writer, &error);
        stale_logins++;
        return;
    }
    message_authentication(writer, AUTHENTICATION_SASL_FINAL, answer, inner.bytes);
    message_authentication(writer, AUTHENTICATION_OK, NULL, 0);
    message_parameter_status(writer, "server_version", "15.4");
    message_backend_key_data(writer, key);
    message_ready_for_query(writer, 'I');
}

/* False: it has ended. */
static bool session_step(struct session *session)
{
    struct line *line = &session->line;
    size_t bytes;

    if (is_chaos && happens(4))
        return true;
    line_step(line);
    while ((bytes = line_message(line, session->is_started)) > 0) {
        uint8_t answer[2048];
        struct writer writer;

        writer_init(&writer, answer, sizeof(answer));
        if (!session->is_started)
            session_asks_sasl(session, line->in, &writer);
        else if (line->in[0] == 'p')
            session_password(session, line->in + 5, bytes - 5, &writer);
        else if (line->in[0] == 'Q')
            message_ready_for_query(&writer, 'I');
        else
            assert(line->in[0] == 'X');
        line_consume(line, bytes);
        line_put(line, &writer);
    }
    if (is_chaos && people_leave && happens(300))
        return false;
    return !sim_peer_is_at_end(line->peer);
}

static void sessions_step(void)
{
    for (unsigned i = 0; i < session_count;) {
        if (session_step(sessions[i])) {
            i++;
            continue;
        }
        sim_peer_close(sessions[i]->line.peer);
        free(sessions[i]);
        sessions[i] = sessions[--session_count];
    }
}

/* ---- the clients ---- */

static void person_leaves(struct person *person)
{
    sim_peer_close(person->line.peer);
    person->is_connected = false;
}

static void person_comes(struct person *person)
{
    unsigned logins_left = person->logins_left;
    uint8_t packet[256];
    struct writer writer;
    size_t begin;
    struct sim_peer *peer =
        sim_connect(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));

    if (peer == NULL)
        return;
    *person = (struct person){
        .logins_left = logins_left, .is_connected = true, .came_in_chaos = is_chaos};
    person->line.peer = peer;
    person->knows_password = !is_chaos || !happens(5);
    snprintf(person->user, sizeof(person->user), "u%u", (unsigned)sim_below(sim, USERS));
    person->password_version = password_version;
    give_password(person->user, person->knows_password, person->password);
    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3 << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, person->user);
    writer_put_string(&writer, "database");
    writer_put_string(&writer, "shop");
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    line_put(&person->line, &writer);
}

static unsigned read_offers(const uint8_t *list, size_t bytes)
{
    struct reader reader;
    const char *name;
    unsigned offers = 0;

    reader_init(&reader, list, bytes);
    while ((name = reader_get_string(&reader)) != NULL && name[0] != '\0') {
        bool is_plus = strcmp(name, SCRAM_MECHANISM_PLUS) == 0;

        assert(is_plus || strcmp(name, SCRAM_MECHANISM) == 0);
        assert(!is_plus || offers == 0); /* the better one first */
        offers |= is_plus ? SCRAM_OFFER_PLUS : SCRAM_OFFER_PLAIN;
    }
    assert(name != NULL);
    assert(reader_left(&reader) == 0);
    return offers;
}

static void person_begins_sasl(struct person *person, const uint8_t *list, size_t bytes,
                               struct writer *writer)
{
    uint8_t first[SCRAM_CLIENT_FIRST_ROOM];
    char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
    unsigned offers = read_offers(list, bytes);
    struct scram_channel own;
    struct writer inner;
    const char *mechanism;

    assert(offers == scram_server_offers(&channel));
    person->is_deceived = is_chaos && channel.binding_bytes > 0 && happens(8);
    own = other_end(person->is_deceived);
    if (person->is_deceived && happens(2))
        offers &= ~SCRAM_OFFER_PLUS;
    else if (!person->is_deceived && happens(4))
        own = (struct scram_channel){0}; /* one that cannot bind, or does not want to */
    give_nonce(nonce);
    writer_init(&inner, first, sizeof(first));
    mechanism = scram_client_start(&person->scram, &own, offers, nonce, &inner);
    bound_logins += strcmp(mechanism, SCRAM_MECHANISM_PLUS) == 0 && !person->is_deceived;
    writer_put_string(writer, mechanism);
    writer_put_u32(writer, (uint32_t)inner.bytes);
    writer_put(writer, first, inner.bytes);
}

static void person_authenticates(struct person *person, const uint8_t *body, size_t bytes)
{
    uint8_t data[512], message[1024];
    uint8_t salted[32], client_key[32], stored_key[32], server_key[32];
    struct writer writer, inner;

    writer_init(&writer, data, sizeof(data));
    switch (bytes_get_u32(body)) {
    case AUTHENTICATION_OK:
        assert(person->knows_password);
        assert(!person->is_deceived);
        return;
    case AUTHENTICATION_CLEARTEXT:
        assert(method != AUTH_SCRAM_SHA_256 || is_chaos);
        writer_put_string(&writer, person->password);
        break;
    case AUTHENTICATION_SASL:
        person_begins_sasl(person, body + 4, bytes - 4, &writer);
        break;
    case AUTHENTICATION_SASL_CONTINUE:
        assert(scram_client_challenge(&person->scram, body + 4, bytes - 4) == SCRAM_OK);
        scram_salted_password(person->password, strlen(person->password), person->scram.salt,
                              person->scram.salt_bytes, person->scram.iterations, salted);
        scram_keys_from_salted(salted, client_key, stored_key, server_key);
        scram_client_prove(&person->scram, client_key, server_key, &writer);
        break;
    case AUTHENTICATION_SASL_FINAL:
        assert(scram_client_finish(&person->scram, body + 4, bytes - 4) == SCRAM_OK);
        return;
    default:
        never("an authentication method that nobody configured");
    }
    writer_init(&inner, message, sizeof(message));
    message_password(&inner, data, writer.bytes);
    line_put(&person->line, &inner);
}

static void person_message(struct person *person, uint8_t type, const uint8_t *body, size_t bytes)
{
    struct error_fields fields;
    uint8_t query[16];
    struct writer writer;
    size_t begin;

    assert(!person->line.is_over);
    switch (type) {
    case 'R':
        person_authenticates(person, body, bytes);
        break;
    case 'E':
        assert(error_fields_read(body, bytes, &fields));
        person->line.is_over = true;
        if (strcmp(fields.message, JOB_REFUSED_TEXT) == 0) {
            assert(strcmp(fields.sqlstate, JOB_REFUSED_SQLSTATE) == 0);
            assert(jobs.refused > 0);
            refused_logins++;
        } else if (strstr(fields.message, check_failed_text) != NULL ||
                   strstr(fields.message, negotiation_text) != NULL) {
            /* Of his own login, or what a server has said to the pooler. */
            assert(person->is_deceived || deceived_sessions > 0);
            assert(!person->is_deceived || strcmp(fields.sqlstate, "28000") == 0);
            deceived_logins += person->is_deceived;
            if (!is_chaos) /* a server's login that began in it: what an operator would do */
                core_reconnect(&core, NULL);
        } else if (strstr(fields.message, "authentication failed") != NULL) {
            /* Or nobody could be asked, or the password was changed on the way. */
            assert(!person->knows_password ||
                   (is_outside() &&
                    (person->came_in_chaos || person->password_version != password_version)));
            wrong_logins++;
        } else if (strcmp(fields.message, stale_password_text) == 0) {
            assert(stale_logins > 0);
        } else {
            /* A timeout, or the server's end. Who knows the new password is never told that the
             * old one has been failing. */
            assert(person->came_in_chaos || person->password_version != password_version);
        }
        break;
    case 'Z':
        assert(person->knows_password);
        assert(!person->is_deceived);
        person->is_answered = person->is_welcome;
        if (person->is_answered)
            break;
        person->is_welcome = true;
        logged_in++;
        /* Welcome one may be without a server. */
        writer_init(&writer, query, sizeof(query));
        begin = message_begin(&writer, 'Q');
        writer_put_string(&writer, "");
        message_end(&writer, begin);
        line_put(&person->line, &writer);
        break;
    default:
        assert(type == 'S' || type == 'K' || type == 'N'); /* that it waits for a server */
        break;
    }
}

static void person_step(struct person *person)
{
    struct line *line = &person->line;
    size_t bytes;

    if (!person->is_connected) {
        if (is_chaos ? happens(20) : person->logins_left > 0)
            person_comes(person);
        return;
    }
    line_step(line);
    while ((bytes = line_message(line, true)) > 0) {
        person_message(person, line->in[0], line->in + 5, bytes - 5);
        line_consume(line, bytes);
    }
    if (!is_chaos && person->is_answered) {
        person->logins_left--;
        person_leaves(person);
    } else if (sim_peer_is_at_end(line->peer) || (is_chaos && person->is_welcome && happens(10)) ||
               (is_chaos && people_leave && happens(40))) {
        person_leaves(person);
    }
}

/* ---- the core ---- */

static void post_core(struct core *from, unsigned index, struct letter *letter)
{
    (void)from;
    assert(index == 0);
    (void)mailbox_post(&mailbox, letter);
}

static void post_control(struct core *from, struct letter *letter)
{
    (void)from;
    (void)letter;
    never("nobody asks control");
}

/* What PAM or the LDAP server says. */
static void outside_judges(struct job *job)
{
    struct password_check *check = OWNER_OF(job, struct password_check, job);
    char password[32];

    assert(job->kind == (method == AUTH_PAM ? JOB_PAM : JOB_LDAP));
    assert((check->ldap != NULL) == (method == AUTH_LDAP));
    assert(check->timeout_us > 0);
    assert(check->password[0] != '\0');
    give_password(check->user, true, password);
    check->is_right = strcmp(check->password, password) == 0 && !(is_chaos && happens(10));
    if (!check->is_right) {
        snprintf(check->reason, sizeof(check->reason), "wrong, or away");
        check->delay_us = method == AUTH_PAM && happens(2) ? sim_below(sim, 50 * US_PER_MS) : 0;
    }
}

static bool post_job(struct core *from, struct job *job)
{
    (void)from;
    return sim_jobs_post(&jobs, job);
}

static void give_random(struct core *from, void *out, size_t bytes)
{
    uint8_t *at = out;

    (void)from;
    while (bytes-- > 0)
        *at++ = (uint8_t)sim_random(sim);
}

static const struct core_ports ports = {
    .post_core = post_core,
    .post_control = post_control,
    .post_job = post_job,
    .random = give_random,
};

static void accepted(struct op *op, const struct completion *completion)
{
    if (completion->result >= 0)
        core_accept(&core, completion->result);
    if (!completion->more && (completion->result != -ECANCELED || is_chaos))
        ring_accept(ring, op, listen_fd);
}

static char config_text[1024], users_text[1024];

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    char *text =
        arena_copy_string(arena, strcmp(path, "users.txt") == 0 ? users_text : config_text);

    (void)context;
    *bytes = strlen(text);
    return text;
}

static void say(void *context, enum log_level level, const char *text)
{
    (void)context;
    if (level <= LEVEL_ERROR)
        fprintf(stderr, "%s\n", text);
}

static void no_log(enum log_level level, const char *text, size_t bytes)
{
    (void)level;
    (void)text;
    (void)bytes;
}

/* With plain secrets the pooler makes keys; with SCRAM secrets it checks plain passwords. */
static struct snapshot *make_snapshot(void)
{
    static const char *const names[] = {[AUTH_PLAIN] = "plain",
                                        [AUTH_SCRAM_SHA_256] = "scram-sha-256",
                                        [AUTH_PAM] = "pam",
                                        [AUTH_LDAP] = "ldap"};
    struct snapshot *snapshot;
    char owner[64] = "";
    size_t used = 0;

    users_text[0] = '\0';
    for (unsigned i = 0; i < USERS; i++) {
        uint8_t salt[SCRAM_SALT_DEFAULT_BYTES] = {(uint8_t)i};
        uint8_t salted[SCRAM_KEY_BYTES];
        char password[32], user[8], text[SCRAM_SECRET_TEXT_BYTES_MAX];
        struct scram_secret secret;

        snprintf(user, sizeof(user), "u%u", i);
        give_password(user, true, password);
        scram_salted_password(password, strlen(password), salt, sizeof(salt), 2, salted);
        scram_secret_make(&secret, salted, salt, sizeof(salt), 2);
        (void)scram_secret_format(&secret, text);
        /* PAM and LDAP do not look at it: what stands there would not open a server. */
        if (is_outside())
            snprintf(text, sizeof(text), "not the password");
        used += (size_t)snprintf(users_text + used, sizeof(users_text) - used, "\"u%u\" \"%s\"\n",
                                 i, method == AUTH_SCRAM_SHA_256 ? password : text);
    }
    if (!is_outside())
        snprintf(owner, sizeof(owner), "user=owner password='%s'", server_password);
    snprintf(config_text, sizeof(config_text),
             "[databases]\n"
             "shop = host=127.0.0.1 port=5432 %s pool_size=%u\n"
             "[pgbouncer]\n"
             "auth_type = %s\n"
             "auth_ldap_options = %s\n"
             "auth_file = users.txt\n"
             "listen_port = 6432\n"
             "pool_mode = transaction\n"
             "scram_iterations = %u\n"
             "server_lifetime = %s\n"
             "server_login_retry = 0.05\n"
             "client_login_timeout = %s\n",
             owner, 1 + (unsigned)sim_below(sim, 5), names[method],
             method == AUTH_LDAP ? "ldapserver=a ldapprefix=x" : "",
             1 + (unsigned)sim_below(sim, 3), happens(2) ? "0.05" : "3600",
             is_chaos && happens(3) ? "0.01" : "60");
    snapshot = snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, say, NULL);
    assert(snapshot != NULL);
    return snapshot;
}

/* Whoever waits for a helper is sure to hear of it. */
static void check_core(void)
{
    unsigned waiting = 0;

    list_for_each(link, &core.login_list)
    {
        const struct client *client = OWNER_OF(link, struct client, link);
        const struct login *login = client->login;

        if (login == NULL)
            continue;
        assert(login->client == client);
        assert(!login->job_in_flight || !atomic_load(&login->check.job.is_cancelled));
        waiting += login->scram_entry != NULL || login->job_in_flight;
        assert(login->phase != LOGIN_CHECK || login->job_in_flight ||
               client->state == CLIENT_CLOSING);
        assert(login->phase != LOGIN_REFUSED || client->state == CLIENT_CLOSING ||
               client->timer.deadline_us <= login->refused_us + login->refusal_delay_us);
    }
    assert(waiting == 0 || jobs.count > 0 || atomic_load(&mailbox.last) != NULL);
}

static void turn(void)
{
    uint64_t deadline_us = core_next_us(&core);
    bool is_reloaded = is_chaos && happens(100);

    if (atomic_load(&mailbox.last) != NULL || is_reloaded)
        deadline_us = 0;
    if (!sim_would_return(ring, deadline_us))
        return;
    (void)ring_turn(ring, deadline_us);
    core.loop.now_us = sim_now_us(sim);
    (void)mailbox_open_all(&mailbox, &core);
    if (is_reloaded)
        core_set_snapshot(&core, make_snapshot());
    timers_run(&core.timers, core.loop.now_us);
    core_end_turn(&core);
    check_core();
}

static void world_step(void)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        person_step(&people[i]);
    sessions_step();
    sim_jobs_step(&jobs);
}

/* On to whatever happens next, when nobody has anything to do: neither the kernel nor, since the
 * last call, anybody in the world. */
static void jump(void)
{
    static uint64_t last_trace;
    bool is_still = sim_trace(sim) == last_trace;
    uint64_t next_us = MIN(MIN(core_next_us(&core), sim_next_us(sim)), sim_jobs_next_us(&jobs));

    last_trace = sim_trace(sim);
    if (is_still && !sim_has_work(sim) && next_us != UINT64_MAX && next_us > sim_now_us(sim))
        sim_advance(sim, MIN(next_us - sim_now_us(sim), US_PER_S));
}

static bool all_are_done(void)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (people[i].is_connected || people[i].logins_left > 0)
            return false;
    return core.clients.used_count == 0;
}

static uint64_t run(uint64_t seed)
{
    static struct param_names param_names;
    static char storage[256];
    static const uint8_t mock_key[32] = {1};
    char error[RING_ERROR_BYTES];
    struct sim_faults faults;
    struct ring_options options;
    struct core_options core_options;
    struct op accept_op;
    uint64_t trace;
    unsigned long long logged_in_chaos;
    unsigned round, keys = 0;

    log_set_sink(getenv("SIM_LOG") != NULL ? NULL : no_log);
    sim = sim_create(seed);
    sim_draw_faults(sim, &faults);
    faults.reset = 0;
    sim_set_faults(sim, &faults);
    is_chaos = true;
    people_leave = happens(2);
    method =
        (enum auth_type[]){AUTH_SCRAM_SHA_256, AUTH_PLAIN, AUTH_PAM, AUTH_LDAP}[sim_below(sim, 4)];
    password_version = 0;
    channel = (struct scram_channel){.is_tls = happens(2)};
    if (channel.is_tls && !happens(4)) {
        channel.binding_bytes = (uint8_t[]){
            32, 48, SCRAM_BINDING_BYTES_MAX}[sim_below(sim, 3)]; /* SHA-256, -384, -512 */
        memset(channel.binding, 0x55, channel.binding_bytes);
    }
    salts_change = happens(2);
    passwords_change = happens(2);
    memset(people, 0, sizeof(people));
    session_count = 0;
    mailbox_init(&mailbox);
    jobs = (struct sim_jobs){
        .sim = sim,
        .mailbox = &mailbox,
        .run_check = outside_judges,
        .refused_per_mille = happens(2) ? 0 : 1u << sim_below(sim, 9),
        .delay_us_max = happens(4) ? 0 : 1u << sim_below(sim, 18),
        .count_max = happens(2) ? SIM_JOBS_MAX : 1 + (unsigned)sim_below(sim, 4),
    };
    assert(buffer_pool_init(&buffers, 256u << sim_below(sim, 6), 16u << sim_below(sim, 4)));
    options = (struct ring_options){.entries = 64, .completion_entries = 64, .buffers = &buffers};
    ring = ring_create(&options, error);
    assert(ring != NULL);
    assert(usage_table_init(&usage));
    assert(shard_table_init(&shards, 1));
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    core_options = (struct core_options){
        .count = 1,
        .client_count_max = 200,
        .ring = ring,
        .buffers = &buffers,
        .usage = &usage,
        .shards = &shards,
        .param_names = &param_names,
        .mock_key = mock_key,
        .snapshot = make_snapshot(),
        .ports = &ports,
        .now_us = sim_now_us(sim),
    };
    assert(core_init(&core, &core_options));
    listen_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(6432)};
    server_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(5432)};
    server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listen_fd = sim_listen(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));
    sim_serve(sim, (struct sockaddr *)&server_address, sizeof(server_address), session_begins,
              NULL);
    accept_op = (struct op){.done = accepted};
    ring_accept(ring, &accept_op, listen_fd);

    for (round = 0; round < CHAOS_ROUNDS; round++) {
        world_step();
        turn();
        if (is_outside() && passwords_change && happens(150))
            password_version++;
        sim_advance(sim, sim_below(sim, 300));
    }

    sim_set_faults(sim, &(struct sim_faults){0});
    is_chaos = false;
    logged_in_chaos = logged_in;
    jobs.refused_per_mille = 0;
    jobs.count_max = SIM_JOBS_MAX;
    core_set_snapshot(&core, make_snapshot());
    for (unsigned i = 0; i < CLIENTS; i++)
        people[i].logins_left = 2;
    for (round = 0; !all_are_done() && round < ROUNDS_MAX; round++) {
        /* Once more, in the midst of those who are sure to get in, and no RELOAD to help. */
        if (logged_in >= logged_in_chaos + CLIENTS && is_outside() && passwords_change) {
            password_version++;
            passwords_change = false;
            core_reconnect(&core, NULL);
        }
        world_step();
        turn();
        sim_advance(sim, 20);
        jump();
    }
    assert(all_are_done());

    ring_cancel(ring, &accept_op);
    core_kill(&core, NULL);
    for (round = 0; (core.loop.conn_count > 0 || accept_op.started || jobs.count > 0 ||
                     atomic_load(&mailbox.last) != NULL) &&
                    round < ROUNDS_MAX;
         round++) {
        world_step();
        turn();
        sim_advance(sim, 1000);
        jump();
    }
    assert(core.loop.conn_count == 0);
    assert(jobs.count == 0);
    while (session_count > 0) {
        sim_peer_close(sessions[--session_count]->line.peer);
        free(sessions[session_count]);
    }
    ring_close(ring, listen_fd);
    (void)ring_turn(ring, 0);
    assert(core.clients.used_count == 0);
    assert(core.logins.used_count == 0);
    assert(core.servers.used_count == 0);
    assert(core.server_logins.used_count == 0);
    list_for_each(link, &core.scram_entries) keys++;
    assert(core.scram_cache.used_count == keys);
    assert(keys <= USERS);
    login_forget_keys(&core);
    assert(core.scram_cache.used_count == 0);
    assert(sim_started_ops(sim) == 0);
    assert(sim_open_fds(sim) == 0);
    assert(usage_count(&usage.client_count) == 0);
    snapshot_release(core.snapshot);
    core_release(&core);
    assert(buffers.parked_bytes == 0);
    sim_note(sim, logged_in);
    sim_note(sim, jobs.run);
    sim_note(sim, jobs.cancelled);
    trace = sim_trace(sim);
    if (getenv("SIM_VERBOSE") != NULL)
        printf("%d: logged in %llu, refused %llu, wrong %llu, stale %llu; jobs run %llu, cancelled "
               "%llu, refused "
               "%llu; bound to %u: clients %llu, servers %llu; deceived: clients %llu, servers "
               "%llu\n",
               (int)method, logged_in, refused_logins, wrong_logins, stale_logins, jobs.run,
               jobs.cancelled, jobs.refused, channel.binding_bytes, bound_logins, bound_sessions,
               deceived_logins, deceived_sessions);
    logged_in = refused_logins = wrong_logins = stale_logins = 0;
    bound_logins = bound_sessions = deceived_logins = deceived_sessions = 0;
    ring_destroy(ring);
    buffer_pool_release(&buffers);
    usage_table_release(&usage);
    shard_table_release(&shards);
    sim_destroy(sim);
    return trace;
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, run, 300);
}
