#include "world_user.h"

#include "pool/core.h"

#include "crypto/md5.h"
#include "wire/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ACTIONS_MAX = 64,
    EXPECTED_MAX = 512,
    EXPECTED_BEFORE_SCRIPT_MAX = 60, /* a script adds less than the rest */
    CANCELS_MAX = USERS_MAX * 2,
    QUERY_BYTES_MAX = 8192,
    SSL_REQUEST_CODE = 80877103,
    PAUSE_US_MAX = 200000,
};

/* What an answer must be. */
struct expected {
    char type;
    char status; /* of Z */
    bool is_sleep;
    bool may_be_cancelled; /* a request has been under way while it was asked for */
    bool is_copy;          /* the end of a COPY, which may fail at any row */
    bool has_sync;         /* of it: sent with the batch */
    bool is_eaten;         /* unless the COPY before it ended without its question */
    unsigned number;
    unsigned row, row_bytes;
};

enum action_kind {
    DO_QUERY, /* simple: `kind` */
    DO_PARSE, /* Parse, Bind, Describe, Execute */
    DO_SYNC,
    DO_FLUSH,
    DO_COPY_DATA,
    DO_COPY_DONE,
    DO_COPY_FAIL,
    DO_EMPTY,
    DO_QUERY_IN_COPY, /* which ends the COPY with an error, and is eaten by it */
};

struct action {
    enum action_kind action;
    enum kind kind;
    unsigned arg;
    bool waits; /* until everything before it is answered */
};

/* A client. What stands above the line is forgotten with each connection. */
struct user {
    struct sim_peer *peer;
    unsigned owner; /* a new one for each connection */
    unsigned number;
    unsigned login;
    char application_name[32];
    bool has_application_name;
    bool asks_ssl; /* and has no answer yet */
    bool is_console;
    bool password_is_wrong;
    bool is_slow;    /* reads little at a time */
    bool is_stingy;  /* writes little at a time */
    bool is_granted; /* AuthenticationOk */
    bool is_welcome;
    bool is_eager;         /* asks before it is welcome */
    bool is_fatal;         /* the connection is being ended, and was told why */
    bool is_leaving;       /* sent Terminate, or broke off */
    unsigned cancels_open; /* requests that have not come to their end */
    bool has_cancelled;
    bool may_be_held;       /* by its server: an answer is owed that will never come */
    bool has_stray_cancels; /* nobody can know when they will */
    bool in_batch_error;
    unsigned copy_number;
    bool copy_is_extended, copy_is_in_transaction;
    bool copy_has_sync;     /* sent with the batch, to be thrown away by COPY */
    bool copy_has_failed;   /* before we have ended it */
    bool copy_failed_early; /* before it had read anything */
    char status;            /* of the transaction, once all that was sent is done */
    uint8_t key[8];
    unsigned action_first, action_count;
    unsigned expected_first, expected_count;
    uint64_t reads_again_us;
    struct scram_client scram;
    /* ---- kept ---- */
    unsigned index;
    unsigned scripts_left; /* after the chaos */
    uint64_t connects_again_us;
    struct heap in, out;
    struct action actions[ACTIONS_MAX];
    struct expected expected[EXPECTED_MAX];
};

static struct user users[USERS_MAX];
static unsigned user_count;
static struct cancel {
    struct sim_peer *peer;
    struct user *user;
    unsigned owner; /* the user may be somebody else by now */
} cancels[CANCELS_MAX];

/* The ends that a client may be told. `in_peace`: also when neither the kernel, nor PostgreSQL, nor
 * anybody at the console has done it any harm. */
static const struct cause {
    const char *text;
    bool in_peace;
} causes[] = {
    {"no more connections allowed (max_client_conn)", true},
    {"client connections exceeded (max_db_client_connections)", true},
    {"client connections exceeded (max_user_client_connections)", true},
    {JOB_REFUSED_TEXT, false},
    {"too many bytes before the welcome", true}, /* an eager one */
    {"password authentication failed", true},    /* a wrong one was sent */
    {"SASL authentication failed", true},
    {"query_wait_timeout", true},
    {"query timeout", true}, /* while it waits for the answer */
    {"query_timeout", true}, /* while it waits for a server */
    {"transaction blocks not allowed in statement pooling mode", true},
    {"not allowed", false},             /* to the console */
    {"pooler is shutting down", false}, /* to a new one */
    {"server shutting down", false},    /* to one that waits */
    {"admin forced disconnect", false},
    {"suspend_timeout", false},
    {"database removed", false},
    {"database configuration changed", false},
    {"no such database", false},
    {"database \"", false}, /* "..." is disabled */
    {"server conn crashed?", false},
    {"server login has been failing", true}, /* until the pause after a failure is over */
    {"sorry, too many clients already", false},
    {"terminating connection", false},
    {"connect failed", false},
};

/* ---- scripts ---- */

static void expect(struct user *user, char type, unsigned number)
{
    assert(user->expected_count < EXPECTED_MAX);
    user->expected[(user->expected_first + user->expected_count++) % EXPECTED_MAX] =
        (struct expected){.type = type, .number = number};
}

static struct expected *expect_last(struct user *user)
{
    return &user->expected[(user->expected_first + user->expected_count - 1) % EXPECTED_MAX];
}

static void expect_ready(struct user *user)
{
    expect(user, 'Z', user->number);
    expect_last(user)->status = user->status;
}

static void expect_rows(struct user *user, char type, unsigned number, unsigned arg)
{
    for (unsigned row = 0; row < row_count(arg); row++) {
        expect(user, type, number);
        expect_last(user)->row = row;
        expect_last(user)->row_bytes = row_bytes(arg);
    }
}

/* What the statement answers, up to its CommandComplete or error. */
static void expect_statement(struct user *user, enum kind kind, unsigned arg, bool is_extended)
{
    unsigned number = user->number;

    switch (kind) {
    case KIND_ROWS:
        if (!is_extended)
            expect(user, 'T', number);
        expect_rows(user, 'D', number, arg);
        break;
    case KIND_BEGIN:
        user->status = 'T';
        break;
    case KIND_END:
        user->status = 'I';
        break;
    case KIND_ERROR:
        expect(user, 'E', number);
        if (user->status == 'T')
            user->status = 'E';
        if (is_extended)
            user->in_batch_error = true;
        return;
    case KIND_SLEEP:
        expect(user, 'C', number);
        expect_last(user)->is_sleep = true;
        expect_last(user)->may_be_cancelled = user->cancels_open > 0;
        return;
    case KIND_COPY_IN:
        expect(user, 'G', number);
        user->copy_number = number;
        user->copy_is_extended = is_extended;
        user->copy_is_in_transaction = user->status == 'T';
        user->copy_has_failed = user->copy_failed_early = user->copy_has_sync = false;
        return;
    case KIND_MARK:
        break;
    case KIND_COPY_OUT:
        expect(user, 'H', number);
        expect_rows(user, 'd', number, arg);
        expect(user, 'c', number);
        break;
    }
    expect(user, 'C', number);
}

static size_t make_query(struct user *user, const struct action *action, char *text, size_t room)
{
    size_t bytes = (size_t)snprintf(text, room, "Q %u %u %u %u", user->owner, user->number,
                                    (unsigned)action->kind, action->arg);

    if (action->arg % 11 == 0) {
        size_t padding = action->arg % 6000;

        text[bytes++] = ' ';
        memset(text + bytes, '-', padding);
        bytes += padding;
        text[bytes] = '\0';
    }
    return bytes + 1;
}

static void act(struct user *user, const struct action *action)
{
    static const char *const names[] = {"Query",    "Parse",       "Sync",
                                        "Flush",    "CopyData",    "CopyDone",
                                        "CopyFail", "empty Query", "Query in COPY"};
    char text[QUERY_BYTES_MAX];
    size_t bytes;
    bool is_copy_extended = action->arg & 1;

    world_log("client %u (owner %u) sends %s, kind %d, arg %u, behind number %u", user->index,
              user->owner, names[action->action], (int)action->kind, action->arg, user->number);

    switch (action->action) {
    case DO_QUERY:
        user->number++;
        put_message(&user->out, 'Q', text, make_query(user, action, text, sizeof(text)));
        expect_statement(user, action->kind, action->arg, false);
        if (action->kind != KIND_COPY_IN)
            expect_ready(user);
        break;
    case DO_PARSE:
        user->number++;
        text[0] = '\0';
        bytes = 1 + make_query(user, action, text + 1, sizeof(text) - 3);
        memset(text + bytes, 0, 2);
        put_message(&user->out, 'P', text, bytes + 2);
        bytes = (size_t)snprintf(text, 32, "p%u", user->owner) + 1;
        memset(text + bytes, 0, 7);
        put_message(&user->out, 'B', text, bytes + 7);
        put_message(&user->out, 'E', text, bytes + 4);
        if (user->in_batch_error)
            break;
        expect(user, '1', user->number);
        expect(user, '2', user->number);
        expect_statement(user, action->kind, action->arg, true);
        break;
    case DO_SYNC:
        put_message(&user->out, 'S', NULL, 0);
        if (action->kind == KIND_COPY_IN && user->copy_failed_early) {
            expect_ready(user); /* there is no COPY any more */
            user->in_batch_error = false;
            break;
        }
        if (action->kind == KIND_COPY_IN) {
            user->copy_has_sync = true;
            break; /* swallowed by COPY */
        }
        user->in_batch_error = false;
        expect_ready(user);
        break;
    case DO_FLUSH:
        put_message(&user->out, 'H', NULL, 0);
        break;
    case DO_COPY_DATA:
        bytes = (size_t)snprintf(text, 64, "DATA %u %u", user->owner, user->copy_number) + 1;
        memset(text + bytes, 'x', action->arg % 3000);
        put_message(&user->out, 'd', text, bytes + action->arg % 3000);
        break;
    case DO_COPY_DONE:
        put_message(&user->out, 'c', NULL, 0);
        if (action->kind != KIND_COPY_IN || user->copy_has_failed)
            break; /* there is no COPY to be ended */
        expect(user, 'C', user->copy_number);
        expect_last(user)->is_copy = true;
        expect_last(user)->has_sync = user->copy_has_sync;
        if (!is_copy_extended)
            expect_ready(user);
        break;
    case DO_COPY_FAIL:
        put_message(&user->out, 'f', "no", 3);
        if (user->copy_has_failed)
            break;
        expect(user, 'E', user->copy_number);
        expect_last(user)->has_sync = user->copy_has_sync;
        if (user->status == 'T')
            user->status = 'E';
        user->in_batch_error = is_copy_extended;
        if (!is_copy_extended)
            expect_ready(user);
        break;
    case DO_QUERY_IN_COPY: {
        unsigned before;

        if (!user->copy_has_failed) {
            expect(user, 'E', user->copy_number);
            expect_last(user)->is_copy = true;
            expect_ready(user);
        }
        before = user->expected_count;
        user->number++;
        put_message(&user->out, 'Q', text, make_query(user, action, text, sizeof(text)));
        expect_statement(user, action->kind, action->arg, false);
        expect_ready(user);
        for (unsigned i = before; i < user->expected_count && !user->copy_has_failed; i++)
            user->expected[(user->expected_first + i) % EXPECTED_MAX].is_eaten = true;
        break;
    }
    case DO_EMPTY:
        /* A simple query of no text is the client's too: it names nobody, but its answer has a
         * place. */
        put_message(&user->out, 'Q', "", 1);
        expect(user, 'I', 0);
        expect_ready(user);
        break;
    }
}

static void plan(struct user *user, enum action_kind action, enum kind kind, unsigned arg,
                 bool waits)
{
    assert(user->action_count < ACTIONS_MAX);
    user->actions[user->action_count++] =
        (struct action){.action = action, .kind = kind, .arg = arg, .waits = waits};
}

/* COPY FROM STDIN, which may fail at any row: what the client has sent until it hears of that is
 * thrown away, and what follows must be answered as if nothing had been. */
static void plan_copy(struct user *user, unsigned arg, bool waits)
{
    bool is_extended = happens(2);
    /* A client that knows what it asks for need not wait for CopyInResponse. */
    bool asks = happens(2);
    unsigned copies = happens(2) ? (unsigned)sim_below(world.sim, 30) : arg % 4;

    plan(user, is_extended ? DO_PARSE : DO_QUERY, KIND_COPY_IN, arg, waits);
    if (is_extended && !happens(3))
        plan(user, DO_SYNC, KIND_COPY_IN, 0, false); /* as libpq's PQexecParams does */
    for (unsigned i = 0; i < copies; i++)
        plan(user, DO_COPY_DATA, KIND_COPY_IN,
             (unsigned)sim_below(world.sim, happens(4) ? 3000 : 100), asks && i == 0);
    plan(user, happens(3) ? DO_COPY_FAIL : DO_COPY_DONE, KIND_COPY_IN, is_extended, asks);
    if (is_extended)
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
    if (!waits) {
        for (unsigned i = 0; i < 1 + arg % 5; i++)
            plan(user, DO_QUERY, i == 2 ? KIND_ERROR : KIND_ROWS, arg / (i + 1), false);
        plan(user, DO_PARSE, KIND_ROWS, arg, false);
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
    }
}

/* A COPY that fails before it reads: what was sent for it is thrown away. */
static void plan_failed_copy(struct user *user, unsigned arg, bool waits)
{
    bool is_extended = happens(2);

    plan(user, is_extended ? DO_PARSE : DO_QUERY, KIND_ERROR, arg, waits);
    if (is_extended && happens(2))
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
    for (unsigned i = 0; i < 1 + arg % 6; i++)
        plan(user, DO_COPY_DATA, KIND_COPY_IN, (unsigned)sim_below(world.sim, 3000), false);
    plan(user, happens(4) ? DO_COPY_DATA : DO_COPY_DONE, KIND_ERROR, 0, false);
    if (is_extended)
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
    for (unsigned i = 0; i < arg % 4; i++)
        plan(user, DO_QUERY, KIND_ROWS, arg / (i + 1), false);
}

enum { SCRIPTS = 17, SCRIPT_SLEEPS = 12, ARG_LARGE = 8 * 23 * 20 + 3 /* few rows, each large */ };

static void plan_script(struct user *user)
{
    unsigned arg = (unsigned)sim_below(world.sim, 100000);
    bool waits = happens(2);

    user->action_first = 0;
    user->action_count = 0;
    switch (world.is_sleepy && world.is_chaos && happens(2) ? SCRIPT_SLEEPS
                                                            : sim_below(world.sim, SCRIPTS)) {
    case 0:
        plan(user, DO_QUERY, KIND_ROWS, arg, true);
        break;
    case 1:
        plan(user, DO_QUERY, KIND_BEGIN, arg, true);
        plan(user, DO_QUERY, KIND_ROWS, arg / 2, waits);
        plan(user, DO_PARSE, KIND_ROWS, arg / 3, waits);
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
        plan(user, DO_QUERY, KIND_END, arg, waits);
        break;
    case 2:
        plan(user, DO_PARSE, KIND_ROWS, arg, true);
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
        break;
    case 3:
        plan(user, DO_PARSE, KIND_ROWS, arg, false);
        plan(user, DO_PARSE, KIND_ROWS, arg / 5, false);
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
        plan(user, DO_PARSE, KIND_ROWS, arg / 9, false);
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
        plan(user, DO_QUERY, KIND_ROWS, arg / 7, false);
        break;
    case 4:
        for (unsigned i = 0; i < 4; i++)
            plan(user, DO_QUERY, KIND_ROWS, arg / (i + 1), false);
        break;
    case 5: /* batches that are flushed, looked at, and gone on with */
        for (unsigned i = 0; i < 1 + arg % 3; i++) {
            plan(user, DO_PARSE, KIND_ROWS, arg / (i + 1), waits);
            plan(user, DO_FLUSH, KIND_ROWS, 0, false);
        }
        plan(user, DO_PARSE, arg % 5 == 0 ? KIND_ERROR : KIND_ROWS, arg / 3, true);
        if (arg % 5 == 0)
            plan(user, DO_FLUSH, KIND_ROWS, 0, false);
        plan(user, DO_SYNC, KIND_ROWS, 0, waits);
        break;
    case 6:
        plan(user, DO_QUERY, KIND_BEGIN, arg, false);
        plan(user, DO_QUERY, KIND_ERROR, arg, waits);
        plan(user, DO_QUERY, KIND_END, arg, waits);
        plan(user, DO_PARSE, KIND_ERROR, arg, waits);
        plan(user, DO_PARSE, KIND_ROWS, arg, false);
        plan(user, DO_SYNC, KIND_ROWS, 0, false);
        break;
    case 7:
    case 8:
    case 9:
        plan_copy(user, arg, waits);
        break;
    case 10:
        plan_failed_copy(user, arg, waits);
        break;
    case 11:
        plan(user, DO_QUERY, KIND_COPY_OUT, arg, waits);
        plan(user, DO_QUERY, KIND_ROWS, arg / 2, false);
        break;
    case SCRIPT_SLEEPS:
        plan(user, DO_QUERY, KIND_SLEEP, arg, true);
        plan(user, DO_QUERY, KIND_ROWS, arg / 2, true);
        break;
    case 13:
        plan(user, DO_EMPTY, KIND_ROWS, 0, waits);
        plan(user, DO_QUERY, KIND_MARK, arg, waits);
        plan(user, DO_QUERY, KIND_ROWS, arg / 2, waits);
        break;
    case 14: /* COPY in a transaction, whose failure is the transaction's */
        plan(user, DO_QUERY, KIND_BEGIN, arg, waits);
        plan_copy(user, arg, true);
        plan(user, DO_QUERY, KIND_END, arg, true);
        break;
    case 15: /* against the protocol: a Query inside COPY */
        plan(user, DO_QUERY, KIND_COPY_IN, arg, waits);
        for (unsigned i = 0; i < arg % 4; i++)
            plan(user, DO_COPY_DATA, KIND_COPY_IN, (unsigned)sim_below(world.sim, 1000), false);
        plan(user, DO_QUERY_IN_COPY, KIND_ROWS, arg / 2, false);
        plan(user, DO_QUERY, KIND_ROWS, arg / 3, true);
        break;
    default:
        /* More than is parked for a server: large questions and large answers. */
        for (unsigned i = 0; i < 6; i++)
            plan(user, DO_QUERY, KIND_ROWS, i % 2 == 0 ? ARG_LARGE : 5995, false);
        break;
    }
}

/* ---- connecting, logging in ---- */

static void put_startup(struct user *user)
{
    const struct owner *who = &world.owners[user->owner];
    uint8_t packet[256];
    struct writer writer;
    size_t begin;

    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3u << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, login_names[user->login].name);
    writer_put_string(&writer, "database");
    writer_put_string(&writer, user->is_console ? "pgbouncer" : databases[who->database].name);
    if (user->has_application_name) {
        writer_put_string(&writer, "application_name");
        writer_put_string(&writer, user->application_name);
    }
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    assert(!writer.overflow);
    heap_put(&user->out, packet, writer.bytes);
}

static void user_connects(struct user *user)
{
    if (world.owner_last + 1 == OWNERS_MAX)
        return;
    user->in.begin = user->in.end = user->out.begin = user->out.end = 0;
    memset(user, 0, offsetof(struct user, index));
    user->peer = sim_connect(world.sim, (struct sockaddr *)&world.listen_address,
                             sizeof(world.listen_address));
    assert(user->peer != NULL);
    user->owner = ++world.owner_last;
    user->login = (unsigned)sim_below(world.sim, LOGINS);
    world.owners[user->owner] = (struct owner){
        .database = (uint8_t)(happens(2) ? 0 : sim_below(world.sim, DATABASES)),
        .login = (uint8_t)user->login,
    };
    user->status = 'I';
    user->is_eager = happens(4);
    user->is_console = world.is_chaos && happens(20);
    user->password_is_wrong = world.is_chaos && happens(20);
    user->is_slow = happens(6);
    user->is_stingy = happens(4);
    if (!happens(3)) {
        user->has_application_name = true;
        snprintf(user->application_name, sizeof(user->application_name), "app%u",
                 (unsigned)sim_below(world.sim, 3));
    }
    world_log("client %u connects as owner %u: %s/%s", user->index, user->owner,
              user->is_console ? "pgbouncer" : databases[world.owners[user->owner].database].name,
              login_names[user->login].name);
    if (happens(6)) {
        uint8_t request[8];

        bytes_put_u32(request, sizeof(request));
        bytes_put_u32(request + 4, SSL_REQUEST_CODE);
        heap_put(&user->out, request, sizeof(request));
        user->asks_ssl = true;
    } else {
        put_startup(user);
    }
}

static void put_password(struct user *user, const void *data, size_t bytes)
{
    put_message(&user->out, 'p', data, bytes);
}

/* `R`: what is demanded. */
static void user_is_asked(struct user *user, const uint8_t *body, size_t bytes)
{
    const struct login_name *login = &login_names[user->login];
    const char *password = user->password_is_wrong ? "wrong" : login->password;
    uint8_t answer[512];
    struct writer writer;
    uint32_t code = bytes_get_u32(body);

    writer_init(&writer, answer, sizeof(answer));
    switch (code) {
    case AUTHENTICATION_OK:
        assert(!user->password_is_wrong || world.client_demand == DEMAND_NOTHING);
        user->is_granted = true;
        break;
    case AUTHENTICATION_CLEARTEXT:
        put_password(user, password, strlen(password) + 1);
        break;
    case AUTHENTICATION_MD5: {
        char secret[MD5_TEXT_BYTES], text[MD5_TEXT_BYTES];

        md5_make_secret(password, strlen(password), login->name, strlen(login->name), secret);
        md5_make_answer(secret, body + 4, text);
        put_password(user, text, sizeof(text));
        break;
    }
    case AUTHENTICATION_SASL: {
        uint8_t random[SCRAM_NONCE_BYTES], first[SCRAM_CLIENT_FIRST_ROOM];
        char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
        struct writer first_writer;

        for (size_t i = 0; i < sizeof(random); i++)
            random[i] = (uint8_t)sim_random(world.sim);
        scram_nonce_text(random, nonce);
        writer_init(&first_writer, first, sizeof(first));
        scram_client_start(&user->scram, nonce, &first_writer);
        writer_put_string(&writer, SCRAM_MECHANISM);
        writer_put_u32(&writer, (uint32_t)first_writer.bytes);
        writer_put(&writer, first, first_writer.bytes);
        put_password(user, answer, writer.bytes);
        break;
    }
    case AUTHENTICATION_SASL_CONTINUE: {
        uint8_t salted[SCRAM_KEY_BYTES], client_key[SCRAM_KEY_BYTES], stored_key[SCRAM_KEY_BYTES],
            server_key[SCRAM_KEY_BYTES];

        assert(scram_client_challenge(&user->scram, body + 4, bytes - 4) == SCRAM_OK);
        scram_salted_password(password, strlen(password), user->scram.salt, user->scram.salt_bytes,
                              user->scram.iterations, salted);
        scram_keys_from_salted(salted, client_key, stored_key, server_key);
        scram_client_prove(&user->scram, client_key, server_key, &writer);
        put_password(user, answer, writer.bytes);
        break;
    }
    case AUTHENTICATION_SASL_FINAL:
        assert(!user->password_is_wrong);
        assert(scram_client_finish(&user->scram, body + 4, bytes - 4) == SCRAM_OK);
        break;
    default:
        never("an unknown demand");
    }
}

/* ---- answers ---- */

static void user_is_told_why(struct user *user, const char *message)
{
    bool in_peace = !world.is_chaos && !world.is_shut_down && user->owner > world.chaos_owner_last;

    world_log("client %u (owner %u) is told: %s", user->index, user->owner, message);
    for (size_t i = 0; i < COUNT_OF(causes); i++)
        if (strncmp(message, causes[i].text, strlen(causes[i].text)) == 0 &&
            (!in_peace || causes[i].in_peace))
            return;
    fprintf(stderr, "owner %u is told: %s\n", user->owner, message);
    never("no cause for a client's end");
}

/* By a COPY, whose failure could not be foreseen: nothing but its own end was sent meanwhile. */
static void transaction_has_failed(struct user *user)
{
    if (user->status != 'T')
        return;
    user->status = 'E';
    for (unsigned i = 0; i < user->expected_count; i++) {
        struct expected *expected = &user->expected[(user->expected_first + i) % EXPECTED_MAX];

        if (expected->type == 'Z')
            expected->status = 'E';
    }
}

/* `is_early`: before it had read anything, so that a Sync that was sent with the batch is no longer
 * thrown away. */
static void copy_fails(struct user *user, unsigned number, const struct expected *expected,
                       bool is_early)
{
    bool is_last = number == user->copy_number;
    bool sync_is_answered =
        is_early && (expected != NULL ? expected->has_sync : user->copy_has_sync);

    if (is_last && user->copy_is_in_transaction)
        transaction_has_failed(user);
    if (expected == NULL) {
        assert(is_last);
        user->copy_has_failed = true;
        user->copy_failed_early = is_early;
        user->in_batch_error = user->copy_is_extended && !sync_is_answered;
        if (!user->copy_is_extended || sync_is_answered)
            expect_ready(user);
        return;
    }
    assert(number == expected->number);
    assert(expected->is_copy || expected->type == 'E');
    if (sync_is_answered) {
        /* In the place of the end of COPY, which is taken by the error: one more answer behind it.
         */
        user->expected_first = (user->expected_first + EXPECTED_MAX - 1) % EXPECTED_MAX;
        user->expected_count++;
        assert(user->expected_count < EXPECTED_MAX);
        user->expected[(user->expected_first + 1) % EXPECTED_MAX] =
            (struct expected){.type = 'Z', .number = number, .status = user->status};
    }
}

static void user_error(struct user *user, const uint8_t *body, size_t bytes,
                       const struct expected *expected)
{
    struct error_fields fields;
    unsigned owner, number;
    char word[8];

    assert(error_fields_read(body, bytes, &fields));
    if (strcmp(fields.severity, "FATAL") == 0) {
        user->is_fatal = true;
        world.fatals++;
        user_is_told_why(user, fields.message);
        return;
    }
    assert(sscanf(fields.message, "%7s %u %u", word, &owner, &number) == 3);
    assert(owner == user->owner);
    if (strcmp(word, "EATS") == 0) {
        /* Its question stands at the end, since nothing is asked before this is answered. */
        assert(expected != NULL);
        assert(expected->type == 'E' && expected->is_copy && expected->number == number);
        while (expect_last(user)->is_eaten)
            user->expected_count--;
        user->may_be_held = true;
        return;
    }
    if (strcmp(word, "COPY") == 0 || strcmp(word, "EARLY") == 0) {
        copy_fails(user, number, expected, strcmp(word, "EARLY") == 0);
        return;
    }
    assert(expected != NULL);
    assert(number == expected->number);
    if (expected->type == 'E')
        return;
    assert(expected->is_sleep);
    /* A request that was late may hit what the same client asked for next, where it keeps its
     * server. */
    assert(expected->may_be_cancelled || user->has_stray_cancels ||
           (user->has_cancelled && (!world.is_shared_mode || user->may_be_held)));
    assert(strcmp(fields.sqlstate, "57014") == 0);
}

static void user_message(struct user *user, char type, const uint8_t *body, size_t bytes)
{
    const struct expected *expected =
        user->expected_count > 0 ? &user->expected[user->expected_first] : NULL;
    const char *text = (const char *)body;
    unsigned owner, number;

    world_log("client %u (owner %u) gets %c, %zu bytes", user->index, user->owner, type, bytes);
    if (user->is_fatal) {
        assert(type == 'E');
        return;
    }
    if (!user->is_welcome) {
        assert(strchr("RSKZEN", type) != NULL);
        if (type == 'R')
            user_is_asked(user, body, bytes);
        else if (type == 'K')
            memcpy(user->key, body, 8);
        else if (type == 'E')
            user_error(user, body, bytes, NULL);
        else if (type == 'Z')
            user->is_welcome = true;
        assert(type != 'K' || user->is_granted);
        assert(type != 'Z' || user->is_granted);
        return;
    }
    if (type == 'N' || type == 'S')
        return;
    if (type == 'E') {
        user_error(user, body, bytes, expected);
        if (user->is_fatal || expected == NULL)
            return;
    } else {
        char row[ROW_BYTES_MAX];

        world.answers++;
        assert(expected != NULL);
        assert(type == expected->type);
        switch (type) {
        case 'Z':
            assert(bytes == 1);
            assert(body[0] == expected->status);
            world.transactions += body[0] == 'I';
            break;
        case 'C':
            assert(sscanf(text, "DONE %u %u", &owner, &number) == 2);
            assert(owner == user->owner);
            assert(number == expected->number);
            break;
        case 'D':
        case 'd':
            snprintf(row, sizeof(row), "%.*s", (int)MIN(bytes, (size_t)64), text);
            assert(sscanf(row, "A %u %u", &owner, &number) == 2);
            assert(owner == user->owner);
            if (user->has_application_name) {
                assert(bytes == make_row(row, user->owner, expected->number, expected->row,
                                         user->application_name, expected->row_bytes));
                assert(memcmp(row, body, bytes) == 0);
            } else {
                assert(number == expected->number);
            }
            break;
        default:
            break;
        }
    }
    user->expected_first = (user->expected_first + 1) % EXPECTED_MAX;
    user->expected_count--;
}

static void user_asks_cancel(struct user *user)
{
    uint8_t packet[16];
    struct writer writer;

    for (unsigned i = 0; i < COUNT_OF(cancels); i++) {
        struct cancel *cancel = &cancels[i];

        if (cancel->peer != NULL)
            continue;
        cancel->peer = sim_connect(world.sim, (struct sockaddr *)&world.listen_address,
                                   sizeof(world.listen_address));
        assert(cancel->peer != NULL);
        writer_init(&writer, packet, sizeof(packet));
        message_cancel_request(&writer, user->key);
        if (sim_peer_write(cancel->peer, packet, sizeof(packet)) < sizeof(packet)) {
            sim_peer_close(cancel->peer);
            cancel->peer = NULL;
            return;
        }
        world_log("client %u asks for a cancel", user->index);
        cancel->user = user;
        cancel->owner = user->owner;
        user->cancels_open++;
        user->has_cancelled = true;
        for (unsigned j = 0; j < user->expected_count; j++)
            user->expected[(user->expected_first + j) % EXPECTED_MAX].may_be_cancelled = true;
        return;
    }
}

/* When the pooler ends the connection, the request has been carried out, or never will be. */
static void cancels_step(void)
{
    uint8_t chunk[64];

    for (unsigned i = 0; i < COUNT_OF(cancels); i++) {
        struct cancel *cancel = &cancels[i];
        bool is_over;

        if (cancel->peer == NULL)
            continue;
        (void)sim_peer_read(cancel->peer, chunk, sizeof(chunk));
        is_over = sim_peer_is_at_end(cancel->peer) && !sim_peer_is_reset(cancel->peer);
        if (!is_over && !sim_peer_is_reset(cancel->peer) && world.is_chaos && !happens(5000))
            continue;
        if (cancel->owner == cancel->user->owner) {
            cancel->user->cancels_open--;
            cancel->user->has_stray_cancels = cancel->user->has_stray_cancels || !is_over;
        }
        sim_peer_close(cancel->peer);
        cancel->peer = NULL;
    }
}

static void user_ends(struct user *user)
{
    sim_peer_close(user->peer);
    user->peer = NULL;
}

static void user_reads(struct user *user)
{
    uint8_t chunk[8192];
    size_t room = user->is_slow ? 200 : sizeof(chunk);
    size_t bytes;
    char type;
    const uint8_t *body;

    bytes =
        sim_peer_read(user->peer, chunk, world.is_chaos ? 1 + sim_below(world.sim, room) : room);
    heap_put(&user->in, chunk, bytes);
    if (user->asks_ssl && heap_bytes(&user->in) > 0 && user->in.data[user->in.begin] == 'N') {
        user->asks_ssl = false;
        user->in.begin++;
        put_startup(user);
    }
    while (take_message(&user->in, &type, &body, &bytes))
        user_message(user, type, body, bytes);
}

static bool user_may_ask(const struct user *user)
{
    if (user->is_leaving || user->is_fatal || user->is_console || user->asks_ssl)
        return false;
    return user->is_welcome ||
           (user->is_eager && (user->is_granted || world.client_demand == DEMAND_NOTHING));
}

static void user_asks(struct user *user)
{
    if (user->action_first == user->action_count && heap_bytes(&user->out) == 0 &&
        user->expected_count < EXPECTED_BEFORE_SCRIPT_MAX &&
        (user->expected_count == 0 || happens(4))) {
        bool goes = world.is_chaos && world.users_break && happens(200);

        if (!world.is_chaos && user->expected_count == 0) {
            if (user->scripts_left > 0)
                user->scripts_left--;
            goes = user->scripts_left == 0;
        }
        if (goes) {
            put_message(&user->out, 'X', NULL, 0);
            user->is_leaving = true;
            return;
        }
        plan_script(user);
    }
    while (user->action_first < user->action_count &&
           (!user->actions[user->action_first].waits || user->expected_count == 0)) {
        act(user, &user->actions[user->action_first++]);
        if (world.is_chaos && happens(3))
            break;
    }
    if (world.is_chaos && user->is_welcome && user->expected_count > 0 &&
        user->expected[user->expected_first].is_sleep && happens(world.is_sleepy ? 5 : 20))
        user_asks_cancel(user);
}

/* False: it is gone. */
static bool user_breaks(struct user *user)
{
    switch (sim_below(world.sim, 1500)) {
    case 0:
        world_log("client %u resets", user->index);
        sim_peer_reset(user->peer);
        break;
    case 1:
        world_log("client %u closes", user->index);
        user_ends(user);
        return false;
    case 2:
        world_log("client %u ends its sending", user->index);
        sim_peer_shutdown(user->peer);
        user->is_leaving = true;
        break;
    default:
        break;
    }
    return true;
}

static void user_step(struct user *user)
{
    size_t bytes;

    if (user->peer == NULL) {
        if (world.is_chaos ? happens(20)
                           : user->scripts_left > 0 && user->connects_again_us <= world_now_us())
            user_connects(user);
        return;
    }
    if (world.is_chaos) {
        if (happens(3))
            return;
        if (happens(500))
            user->reads_again_us = world_now_us() + sim_below(world.sim, 100000);
        if (world.users_break && !user_breaks(user))
            return;
    }
    if (!world.is_chaos || user->reads_again_us <= world_now_us())
        user_reads(user);
    if (sim_peer_is_at_end(user->peer)) {
        /* Every end has a cause: it was asked for, it was said, a message was cut off, or bytes
         * were lost. The console's is control's own affair. */
        assert(user->is_fatal || user->is_leaving || user->is_console ||
               heap_bytes(&user->in) > 0 || sim_peer_is_reset(user->peer) ||
               (world.has_dropped && (world.is_chaos || user->owner <= world.chaos_owner_last)));
        /* Whoever was sent away comes again when there may be room. */
        if (user->is_fatal)
            user->connects_again_us = world_now_us() + sim_below(world.sim, PAUSE_US_MAX);
        user_ends(user);
        return;
    }
    if (user_may_ask(user))
        user_asks(user);
    bytes = heap_bytes(&user->out);
    if (bytes == 0)
        return;
    if (world.is_chaos && user->is_stingy) {
        size_t few = 1 + sim_below(world.sim, 100);

        bytes = MIN(bytes, few);
    }
    user->out.begin += sim_peer_write(user->peer, user->out.data + user->out.begin, bytes);
}

/* ---- all of them ---- */

void users_begin(unsigned count)
{
    user_count = count;
    for (unsigned i = 0; i < count; i++) {
        users[i].index = i;
        users[i].peer = NULL;
        users[i].scripts_left = 0;
        users[i].connects_again_us = 0;
    }
}

void users_step(void)
{
    for (unsigned i = 0; i < user_count; i++)
        user_step(&users[i]);
    cancels_step();
}

void users_finish(unsigned scripts)
{
    for (unsigned i = 0; i < user_count; i++)
        users[i].scripts_left = scripts;
}

bool users_are_done(void)
{
    for (unsigned i = 0; i < user_count; i++)
        if (users[i].peer != NULL || users[i].scripts_left > 0)
            return false;
    for (unsigned i = 0; i < COUNT_OF(cancels); i++)
        if (cancels[i].peer != NULL)
            return false;
    return true;
}

uint64_t users_next_us(void)
{
    uint64_t next_us = UINT64_MAX;

    for (unsigned i = 0; i < user_count; i++)
        if (users[i].peer == NULL && users[i].scripts_left > 0)
            next_us = MIN(next_us, users[i].connects_again_us);
    return next_us;
}

void users_explain(void)
{
    for (unsigned i = 0; i < user_count; i++) {
        const struct user *user = &users[i];

        if (user->peer != NULL || user->scripts_left > 0)
            fprintf(stderr,
                    "client %u (owner %u, %s/%s): connected %d, welcome %d, expects %u (next %c of "
                    "%u), actions %u/%u, scripts left %u, out %zu\n",
                    i, user->owner, databases[world.owners[user->owner].database].name,
                    login_names[user->login].name, user->peer != NULL, user->is_welcome,
                    user->expected_count,
                    user->expected_count > 0 ? user->expected[user->expected_first].type : '-',
                    user->expected_count > 0 ? user->expected[user->expected_first].number : 0,
                    user->action_first, user->action_count, user->scripts_left,
                    heap_bytes(&user->out));
    }
}

void users_end(void)
{
    for (unsigned i = 0; i < user_count; i++) {
        heap_free(&users[i].in);
        heap_free(&users[i].out);
    }
}
