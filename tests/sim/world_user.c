#include "world_user.h"

#include "world_session.h"
#include "world_wire.h"

#include "pool/peer.h"
#include "pool/core.h"

#include "crypto/md5.h"
#include "wire/message.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    ACTIONS_MAX = 64,
    EXPECTED_MAX = 512,
    EXPECTED_BEFORE_SCRIPT_MAX = 60, /* a script adds less than the rest */
    CANCELS_MAX = USERS_MAX * 2,
    QUERY_BYTES_MAX = QUESTION_BYTES_MAX,
    SSL_REQUEST_CODE = 80877103,
    PAUSE_US_MAX = 200000,
    ARG_RETRY = 100001,     /* larger than all that are drawn */
    STALE_RETRIES_MAX = 12, /* more than a pool has servers */
};

/* What was sent in a batch. What it will be answered with is known when all before it is answered. */
enum batch_op {
    OP_NONE,
    OP_QUESTION, /* Parse, Bind, Execute of a text that is the question itself */
    OP_PARSE,
    OP_BIND,
    OP_DESCRIBE,
    OP_DESCRIBE_ROWS, /* its second answer */
    OP_DESCRIBE_PORTAL,
    OP_EXECUTE,
    OP_CLOSE,
    OP_SYNC,
    OP_SPECIAL, /* DISCARD ALL, DEALLOCATE, as a simple query */
};

/* What an answer must be. */
struct expected {
    char type; /* 0: it is not known yet what answers `op` */
    enum batch_op op;
    char status_after;  /* 0: as before */
    bool drops_unnamed; /* Z: of a simple query */
    bool is_bad;        /* OP_PARSE: of a text with an error */
    bool is_alone;      /* nothing was outstanding when its batch began */
    uint8_t name;       /* which of the client's */
    enum kind kind;
    unsigned arg;
    unsigned statement;
    unsigned schema_version, disturbances; /* of the world, when it was sent */
    bool is_described;        /* OP_PARSE, OP_CLOSE: a Describe of the name is not answered */
    unsigned limit;           /* of rows; 0: none */
    bool is_portal_described; /* OP_QUESTION */
    bool shares;              /* Z, OP_SYNC: what it ends may have shared a server */
    bool was_told; /* OP_BIND: the client had its description, or asked for it in the same batch */
    const char *tag;            /* of C, if it does not name the question */
    const char *sqlstate;       /* of E, likewise */
    const char *other_sqlstate; /* that is as good */
    bool is_sleep;
    bool may_be_cancelled; /* a request has been under way while it was asked for */
    bool is_cancelled;     /* a request was sent while it ran, and nothing is there to lose it */
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
    DO_PREPARE,
    DO_PREPARE_BAD,
    DO_BIND, /* Bind, Execute */
    DO_BIND_DESCRIBE,
    DO_DESCRIBE,
    DO_CLOSE,
    DO_SPECIAL,
};

struct action {
    enum action_kind action;
    enum kind kind;
    unsigned arg;
    bool waits; /* until everything before it is answered */
    unsigned name, statement;
    enum form form;
    bool has_unnamed_portal, is_described;
    unsigned limit; /* of rows; 0: none */
    bool follows;   /* in the same send */
};

/* What a name of a client stands for. */
struct name {
    bool is_there;
    unsigned statement;
    unsigned schema_version; /* when its Parse was sent */
    bool is_told;            /* what its result looks like, by Describe of it */
    unsigned told_version;
    bool may_be_told; /* a Describe of what it stood for before was in flight when it was parsed */
    bool is_portal_told; /* the same by Describe of a portal */
    unsigned portal_told_version;
    bool was_bound, may_be_bound; /* since its Parse; a Bind that was skipped need not count */
};

/* A client. What stands above the line is forgotten with each connection. */
struct user {
    struct wire wire;
    unsigned owner; /* a new one for each connection */
    unsigned number;
    unsigned login;
    world_params params;
    bool knows[WORLD_PARAMS];
    bool asks_ssl;  /* and has no answer yet */
    bool wants_tls; /* if there is any */
    bool is_direct; /* TLS without having asked */
    bool is_console;
    bool password_is_wrong;
    uint64_t connected_us;
    bool is_slow;    /* reads little at a time */
    bool is_stingy;  /* writes little at a time */
    bool is_granted; /* AuthenticationOk */
    bool is_welcome;
    bool is_eager;         /* asks before it is welcome */
    bool ends_in_login;    /* at some point before its welcome */
    bool is_simple;        /* asks one thing after another, all of which may share */
    bool is_fatal;         /* the connection is being ended, and was told why */
    bool is_leaving;       /* sent Terminate, or broke off */
    unsigned cancels_open; /* requests that have not come to their end */
    bool has_cancelled;
    bool may_be_held;       /* by its server: an answer is owed that will never come */
    bool has_stray_cancels; /* nobody can know when they will */
    /* It has sent COPY data, or what else does not belong there, before it knew of a COPY: then the
     * pooler may lose track of which answer is whose, and end the connection when it would matter. */
    bool mixes_copy;
    bool in_batch, batch_is_alone; /* what is sent belongs to a batch that has begun */
    bool batch_parses_unnamed;
    unsigned batch_runs; /* Binds */
    bool batch_is_odd;   /* it holds what does not share */
    bool is_answering;   /* the first of what is outstanding has begun to be answered */
    unsigned batch_describes, batch_binds; /* a bit for each name */
    unsigned portals_described;            /* the same, ever */
    unsigned
        doubtful_names; /* bound, and behind it the unnamed one with a Describe of its portal */
    unsigned copy_number;
    bool copy_is_extended;
    bool copy_has_sync;     /* sent with the batch, to be thrown away by COPY */
    bool copy_has_failed;   /* before we have ended it */
    bool copy_failed_early; /* before it had read anything */
    /* As it is after what was answered. */
    char status;
    bool in_batch_error;     /* what follows is skipped, up to Sync */
    bool batch_has_shown;    /* it has answered more than completions */
    bool batch_is_described; /* a Describe stands behind its last Execute */
    bool batch_was_lost;     /* one of its statements was not there: it was repeated */
    struct name names[STATEMENT_NAMES];
    unsigned portal_statement, portal_version;
    bool portal_is_told; /* portal_version, by whatever told it first */
    bool is_stale;       /* one of its statements was refused, though it is there */
    unsigned stale_name; /* to be tried again */
    unsigned stale_retries, stale_disturbances; /* in vain, and since when */
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
    struct wire wire;
    struct heap out; /* its packet, where it waits for TLS */
    bool asks_ssl;
    unsigned rubbish; /* bytes that come behind it */
    bool
        is_on_tls; /* or wants to be: it waits for its end, since what comes unread would be a reset */
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
    {"SSL required", true},
    {"password authentication failed", true}, /* a wrong one was sent */
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
    {"no such user", false}, /* auth_query finds nobody */
    {"bouncer config error",
     true}, /* it fails, or its server; until the pause after that is over */
    {"authentication database", false},
    {"\"trust\" authentication failed", false}, /* nobody can be asked: its database is gone */
    {"database \"", false},                     /* "..." is disabled */
    {"server conn crashed?", false},
    {"server login has been failing", true}, /* until the pause after a failure is over */
    {"sorry, too many clients already", false},
    {"terminating connection", false},
    {"connect failed", false},
    /* with replication */
    {"connect timeout", false},
    {"login failed", false},
    {"server DNS lookup failed", false},
    {"client_login_timeout", false},
    {"TLS handshake failed", false},
    {"out of memory", false},
    {"server refused SSL", false},
    {"bad sslreq answer", false},
    {"received unencrypted data after SSL response", false},
    {"bad pkt header", false}, /* behind an 'N' */
    /* with sharing */
    {"unexpected answer of a shared server", false}, /* part of its answer was passed on */
    {"invalid server parameter", false},
};

/* Nothing that holds for transactions in another mode ends a client with replication. */
static bool ends_replication(const char *message)
{
    return strncmp(message, "query timeout", 13) != 0 &&
           strncmp(message, "query_timeout", 13) != 0 &&
           strncmp(message, "transaction blocks not allowed", 30) != 0 &&
           strncmp(message, "client_login_timeout (", 22) != 0 &&
           strncmp(message, "server login has been failing", 29) != 0;
}

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

static void expect_rows(struct user *user, char type, unsigned number, unsigned arg, unsigned limit)
{
    for (unsigned row = 0; row < MIN(row_count(arg), limit); row++) {
        expect(user, type, number);
        expect_last(user)->row = row;
        expect_last(user)->row_bytes = row_bytes(arg);
    }
}

/* The end of a simple query. */
static void expect_ready(struct user *user)
{
    expect(user, 'Z', user->number);
    expect_last(user)->drops_unnamed = true;
}

static void expect_error(struct user *user, unsigned number, const char *sqlstate)
{
    expect(user, 'E', number);
    expect_last(user)->sqlstate = sqlstate;
}

static void expect_sleep(struct user *user, unsigned number, unsigned arg)
{
    expect(user, 'C', number);
    expect_last(user)->is_sleep = true;
    expect_last(user)->arg = arg;
    expect_last(user)->may_be_cancelled = user->cancels_open > 0;
}

/* What the statement answers, up to its CommandComplete or error. */
static void expect_statement(struct user *user, unsigned number, enum kind kind, unsigned arg,
                             unsigned limit, bool is_extended)
{
    char status_after = 0;

    if (limit == 0)
        limit = UINT_MAX;
    switch (kind) {
    case KIND_ROWS:
    case KIND_ROWS_ERROR:
    case KIND_ROWS_SLEEP:
        if (!is_extended)
            expect(user, 'T', number);
        expect_rows(user, 'D', number, arg, limit);
        if (kind == KIND_ROWS_ERROR) {
            expect(user, 'E', number);
            return;
        }
        if (kind == KIND_ROWS_SLEEP) {
            expect_sleep(user, number, arg);
            return;
        }
        if (row_count(arg) >= limit) {
            expect(user, 's', number);
            return;
        }
        break;
    case KIND_SET:
        break;
    case KIND_BEGIN:
        status_after = 'T';
        break;
    case KIND_END:
        status_after = 'I';
        break;
    case KIND_BAD:
    case KIND_ERROR:
        expect(user, 'E', number);
        return;
    case KIND_SLEEP:
        expect_sleep(user, number, arg);
        return;
    case KIND_COPY_IN:
        expect(user, 'G', number);
        user->copy_number = number;
        user->copy_is_extended = is_extended;
        user->copy_has_failed = user->copy_failed_early = user->copy_has_sync = false;
        return;
    case KIND_COPY_BOTH:
        expect(user, 'W', number);
        expect_rows(user, 'd', number, arg, UINT_MAX);
        user->copy_number = number;
        user->copy_has_failed = false;
        return;
    case KIND_MARK:
        break;
    case KIND_COPY_OUT:
        expect(user, 'H', number);
        expect_rows(user, 'd', number, arg, UINT_MAX);
        expect(user, 'c', number);
        break;
    }
    expect(user, 'C', number);
    expect_last(user)->status_after = status_after;
}

/* A message of a batch is sent: what follows is found out later (resolve). */
static struct expected *expect_op(struct user *user, enum batch_op op)
{
    if (!user->in_batch) {
        user->in_batch = true;
        user->batch_is_alone = user->expected_count == 0;
        user->batch_describes = user->batch_binds = user->batch_runs = 0;
        user->batch_parses_unnamed = user->batch_is_odd = false;
    }
    expect(user, 0, user->number);
    expect_last(user)->op = op;
    expect_last(user)->is_alone = user->batch_is_alone;
    expect_last(user)->may_be_cancelled = user->cancels_open > 0;
    expect_last(user)->schema_version = world.schema_version;
    expect_last(user)->disturbances = world.disturbances;
    return expect_last(user);
}

/* The same statement to PostgreSQL. */
static struct name *name_of(struct user *user, unsigned index)
{
    return &user->names[index == STATEMENT_NAMES - 1 ? index - 1 : index];
}

/* What answers Execute. */
static void expect_portal(struct user *user, const struct expected *op)
{
    unsigned statement = user->portal_statement;
    unsigned before = user->expected_count;

    if (statement == STATEMENT_DISCARD_ALL && user->status != 'I') {
        expect_error(user, op->number, "25001");
    } else if (statement == STATEMENT_DISCARD_ALL || statement == STATEMENT_DEALLOCATE_ALL) {
        expect(user, 'C', op->number);
        expect_last(user)->tag =
            statement == STATEMENT_DISCARD_ALL ? "DISCARD ALL" : "DEALLOCATE ALL";
    } else if (statement > STATEMENT_DEALLOCATE_ALL && statement < STATEMENT_PRIVATE_FIRST) {
        unsigned index = statement - STATEMENT_DEALLOCATE_FIRST;

        if (name_of(user, index)->is_there) {
            expect(user, 'C', op->number);
            expect_last(user)->tag = "DEALLOCATE";
        } else {
            expect_error(user, op->number, "26000");
        }
        expect_last(user)->name = (uint8_t)index;
    } else {
        expect_statement(user, op->number, op->kind, op->arg, op->limit, true);
    }
    for (; before < user->expected_count; before++) {
        struct expected *expected = &user->expected[(user->expected_first + before) % EXPECTED_MAX];

        expected->statement = statement;
        expected->may_be_cancelled = expected->may_be_cancelled || op->may_be_cancelled;
    }
}

/* `type` answers the op, if nothing is wrong with the statement of that name. */
static void expect_of_name(struct user *user, const struct expected *op, char type)
{
    const struct name *name = name_of(user, op->name);
    bool is_harmless =
        name->statement == STATEMENT_TEXT || statement_ends_transaction(name->statement);

    if (op->op == OP_DESCRIBE)
        is_harmless = !statement_returns_rows(name->statement);
    if (!name->is_there)
        expect_error(user, op->number, "26000");
    else if (user->status == 'E' && !is_harmless)
        expect_error(user, op->number, "25P02");
    else
        expect(user, type, op->number);
    expect_last(user)->op = op->op;
    expect_last(user)->arg = op->arg;
    expect_last(user)->name = op->name;
    expect_last(user)->statement = name->statement;
    expect_last(user)->is_alone = op->is_alone;
    expect_last(user)->was_told = op->was_told;
    expect_last(user)->schema_version = op->schema_version;
    expect_last(user)->disturbances = op->disturbances;
}

static void expect_description(struct user *user, const struct expected *op, unsigned statement)
{
    expect(user, statement_returns_rows(statement) ? 'T' : 'n', op->number);
    expect_last(user)->op = op->op;
    expect_last(user)->name = op->name;
    expect_last(user)->statement = statement;
}

static void expect_parse(struct user *user, const struct expected *op)
{
    struct name *name = name_of(user, op->name);

    if (op->name == 0)
        name->is_there = false;
    if (op->is_bad) {
        expect(user, 'E', op->number);
        /* The pooler knows that a name is taken, and not what is wrong with a text. */
        if (world.is_tracked && name->is_there)
            expect_last(user)->other_sqlstate = "42P05";
    } else if (user->status == 'E' && !statement_ends_transaction(op->statement)) {
        expect_error(user, op->number, "25P02");
        if (world.is_tracked && name->is_there)
            expect_last(user)->other_sqlstate = "42P05";
    } else if (name->is_there) {
        expect_error(user, op->number, "42P05");
    } else {
        expect(user, '1', op->number);
    }
    expect_last(user)->name = op->name;
    expect_last(user)->statement = op->statement;
    expect_last(user)->is_described = op->is_described;
    expect_last(user)->schema_version = op->schema_version;
}

static void expect_answers(struct user *user, const struct expected *op)
{
    unsigned statement;

    if (op->op == OP_SYNC) {
        expect(user, 'Z', op->number);
        expect_last(user)->shares = op->shares;
        return;
    }
    if (op->op == OP_SPECIAL) {
        user->portal_statement = op->statement;
        if (user->status == 'E')
            expect_error(user, op->number, "25P02");
        else
            expect_portal(user, op);
        expect_ready(user);
        return;
    }
    if (user->in_batch_error) {
        struct name *name = name_of(user, op->name);

        if (op->op == OP_BIND)
            name->may_be_bound = true;
        /* The answer of a Describe is lost where its name is being closed. */
        if (op->op == OP_CLOSE && world.avoids_known && op->is_described) {
            name->is_told = false;
            name->may_be_told = true;
        }
        return;
    }
    user->batch_is_described = (user->batch_is_described && op->op != OP_EXECUTE) ||
                               op->op == OP_DESCRIBE || op->op == OP_DESCRIBE_PORTAL;
    switch (op->op) {
    case OP_QUESTION:
        if (op->kind == KIND_BAD) {
            expect(user, 'E', op->number);
            user->names[0].is_there = false;
            break;
        }
        expect(user, '1', op->number);
        expect(user, '2', op->number);
        user->portal_statement = STATEMENT_TEXT;
        if (op->is_portal_described) {
            expect(user, 'n', op->number);
            expect_last(user)->op = OP_DESCRIBE_PORTAL;
        }
        expect_portal(user, op);
        break;
    case OP_PARSE:
        expect_parse(user, op);
        break;
    case OP_BIND:
        expect_of_name(user, op, '2');
        break;
    case OP_DESCRIBE:
        statement = name_of(user, op->name)->statement;
        expect_of_name(user, op, 't');
        expect(user, 0, op->number);
        expect_last(user)->op = OP_DESCRIBE_ROWS;
        expect_last(user)->name = op->name;
        expect_last(user)->statement = statement;
        break;
    case OP_DESCRIBE_ROWS:
        expect_description(user, op, op->statement);
        break;
    case OP_DESCRIBE_PORTAL:
        expect_description(user, op, user->portal_statement);
        break;
    case OP_EXECUTE:
        expect_portal(user, op);
        break;
    case OP_CLOSE:
        expect(user, '3', op->number);
        expect_last(user)->name = op->name;
        break;
    default:
        never("an unknown op");
    }
}

/* All before the first that is expected is answered: now it is known what answers it. */
static void resolve(struct user *user)
{
    while (user->expected_count > 0 && user->expected[user->expected_first].type == 0) {
        struct expected op = user->expected[user->expected_first];
        unsigned before;

        user->expected_first = (user->expected_first + 1) % EXPECTED_MAX;
        before = --user->expected_count;
        expect_answers(user, &op);
        assert(user->expected_count < EXPECTED_MAX);
        /* From the end to the beginning, in order. */
        for (unsigned more = user->expected_count - before; more > 0; more--) {
            struct expected last = *expect_last(user);

            user->expected_first = (user->expected_first + EXPECTED_MAX - 1) % EXPECTED_MAX;
            user->expected[user->expected_first] = last;
        }
    }
}

/* With its closing zero. */
static size_t make_query(struct user *user, const struct action *action, enum form form,
                         char text[QUERY_BYTES_MAX])
{
    return make_question(text, &(struct asked){.owner = user->owner,
                                               .number = user->number,
                                               .kind = action->kind,
                                               .arg = action->arg,
                                               .form = form});
}

/* Bind, Describe, Execute of a portal, and what belongs to each. `value_bytes` 0: no parameter. */
static void put_portal(struct user *user, const struct action *action, const char *statement,
                       const char *value, size_t value_bytes)
{
    uint8_t body[QUERY_BYTES_MAX + STATEMENT_NAME_ROOM + 64];
    struct writer writer;
    char portal[32] = "";

    if (!action->has_unnamed_portal)
        snprintf(portal, sizeof(portal), "p%u", user->owner);
    writer_init(&writer, body, sizeof(body));
    writer_put_string(&writer, portal);
    writer_put_string(&writer, statement);
    writer_put_u16(&writer, 0);
    writer_put_u16(&writer, value_bytes > 0);
    if (value_bytes > 0) {
        writer_put_u32(&writer, (uint32_t)value_bytes);
        writer_put(&writer, value, value_bytes);
    }
    writer_put_u16(&writer, 0);
    assert(!writer.overflow);
    put_message(&user->out, 'B', body, writer.bytes);
    if (action->action == DO_BIND_DESCRIBE || action->is_described) {
        writer_init(&writer, body, sizeof(body));
        writer_put_u8(&writer, 'P');
        writer_put_string(&writer, portal);
        put_message(&user->out, 'D', body, writer.bytes);
    }
    writer_init(&writer, body, sizeof(body));
    writer_put_string(&writer, portal);
    writer_put_u32(&writer, action->limit);
    put_message(&user->out, 'E', body, writer.bytes);
}

static void note_run(struct user *user, const struct action *action)
{
    user->batch_runs++;
    user->batch_is_odd = user->batch_is_odd || !action->has_unnamed_portal || action->limit > 0;
}

static bool is_being_described(struct user *user, unsigned name)
{
    for (unsigned i = 0; i < user->expected_count; i++) {
        const struct expected *op = &user->expected[(user->expected_first + i) % EXPECTED_MAX];

        if ((op->op == OP_DESCRIBE || op->op == OP_DESCRIBE_ROWS) &&
            name_of(user, op->name) == name_of(user, name))
            return true;
    }
    return false;
}

/* Does the pooler have to know what the client that sends a Bind now was told, or will be before it is answered?
 * With SIM_KNOWN=1 whenever it was told. Now a description in flight counts in its own batch only, if the statement
 * is not prepared again in between to make room for others. */
static bool is_told_for_certain(const struct user *user, unsigned name)
{
    if (!world.avoids_known)
        return true;
    return name_of((struct user *)user, name)->is_told ||
           ((user->batch_describes >> name & 1) != 0 && world.prepared_max >= 5);
}

/* Parse, Bind, Describe, Close of a statement that has a number. */
static void act_on_statement(struct user *user, const struct action *wanted)
{
    struct action changed = *wanted, *action = &changed;
    char name[STATEMENT_NAME_ROOM], text[QUERY_BYTES_MAX];
    uint8_t body[QUERY_BYTES_MAX + STATEMENT_NAME_ROOM + 64];
    struct expected *op;
    struct writer writer;
    size_t bytes;
    unsigned bit;

    /* Whether the unnamed statement was parsed before its query was cancelled, nobody can know. */
    if (world.has_sharing && world.has_names && user->has_cancelled && action->name == 0 &&
        (action->action == DO_BIND || action->action == DO_BIND_DESCRIBE ||
         action->action == DO_DESCRIBE) &&
        !(user->in_batch && user->batch_parses_unnamed))
        action->name = 1;
    writer_init(&writer, body, sizeof(body));
    make_statement_name(name, user->owner, action->name);
    switch (action->action) {
    case DO_PREPARE:
    case DO_PREPARE_BAD:
        writer_put_string(&writer, name);
        if (action->action == DO_PREPARE_BAD) {
            snprintf(text, sizeof(text), "BAD %u %u", user->owner, ++user->number);
        } else {
            (void)make_statement(text, action->statement);
            if (action->statement < STATEMENT_PRIVATE_FIRST)
                world.has_parsed[user->owner] |= UINT32_C(1) << action->statement;
        }
        writer_put_string(&writer, text);
        writer_put_u16(&writer, action->statement & 1);
        if (action->statement & 1)
            writer_put_u32(&writer, 25);
        put_message(&user->out, 'P', body, writer.bytes);
        op = expect_op(user, OP_PARSE);
        op->is_described = is_being_described(user, action->name);
        op->is_bad = action->action == DO_PREPARE_BAD;
        op->statement = action->statement;
        op->name = (uint8_t)action->name;
        user->batch_parses_unnamed = user->batch_parses_unnamed || action->name == 0;
        world.parses++;
        break;
    case DO_BIND:
    case DO_BIND_DESCRIBE:
        user->number++;
        bytes = make_query(user, action, FORM_PLAIN, text) - 1;
        put_portal(user, action, name, text, bytes);
        op = expect_op(user, OP_BIND);
        op->name = (uint8_t)action->name;
        op->arg = action->arg;
        /* With few statements on a server it may be prepared again behind its description. */
        op->was_told = is_told_for_certain(user, action->name);
        if (action->name == 0 && action->action == DO_BIND_DESCRIBE)
            user->doubtful_names |= user->batch_binds;
        bit = 1u << (name_of(user, action->name) - user->names);
        user->batch_binds |= bit;
        if (action->action == DO_BIND_DESCRIBE)
            user->portals_described |= bit;
        if (action->action == DO_BIND_DESCRIBE)
            expect_op(user, OP_DESCRIBE_PORTAL)->name = (uint8_t)action->name;
        op = expect_op(user, OP_EXECUTE);
        op->kind = action->kind;
        op->arg = action->arg;
        op->limit = action->limit;
        note_run(user, action);
        world.binds++;
        break;
    case DO_DESCRIBE:
    case DO_CLOSE:
        writer_put_u8(&writer, 'S');
        writer_put_string(&writer, name);
        put_message(&user->out, action->action == DO_CLOSE ? 'C' : 'D', body, writer.bytes);
        op = expect_op(user, action->action == DO_CLOSE ? OP_CLOSE : OP_DESCRIBE);
        op->name = (uint8_t)action->name;
        if (action->action == DO_CLOSE) {
            op->is_described = is_being_described(user, action->name);
            user->batch_describes &= ~(1u << action->name);
        } else {
            user->batch_describes |= 1u << action->name;
        }
        break;
    case DO_SPECIAL:
        (void)make_statement(text, action->statement);
        bytes = strlen(text);
        bytes += (size_t)snprintf(text + bytes, sizeof(text) - bytes, " -- Q %u %u", user->owner,
                                  ++user->number);
        put_message(&user->out, 'Q', text, bytes + 1);
        expect_op(user, OP_SPECIAL)->statement = action->statement;
        user->in_batch = false;
        break;
    default:
        never("an unknown action");
    }
    assert(!writer.overflow);
}

/* Of a question as an unnamed statement. */
static void put_parse(struct user *user, const struct action *action)
{
    char text[QUERY_BYTES_MAX + 3];
    size_t bytes = 1 + make_query(user, action, action->form, text + 1);

    text[0] = '\0';
    memset(text + bytes, 0, 2);
    put_message(&user->out, 'P', text, bytes + 2);
}

static void act(struct user *user, const struct action *action)
{
    static const char *const names[] = {"Query",
                                        "Parse",
                                        "Sync",
                                        "Flush",
                                        "CopyData",
                                        "CopyDone",
                                        "CopyFail",
                                        "empty Query",
                                        "Query in COPY",
                                        "Parse of",
                                        "bad Parse of",
                                        "Bind of",
                                        "Bind, Describe of",
                                        "Describe of",
                                        "Close of",
                                        "special Query"};
    char text[QUERY_BYTES_MAX];
    size_t bytes;
    bool is_copy_extended = action->arg & 1, is_sharing;
    struct expected *op;

    user->is_answering = user->is_answering && user->expected_count > 0;
    world_log(
        "client %u (owner %u) sends %s, kind %d, arg %u, behind number %u; name %u, statement "
        "%u",
        user->index, user->owner, names[action->action], (int)action->kind, action->arg,
        user->number, action->name, action->statement);

    switch (action->action) {
    case DO_QUERY:
        user->number++;
        put_message(&user->out, 'Q', text, make_query(user, action, action->form, text));
        user->in_batch = false;
        expect_statement(user, user->number, action->kind, action->arg, 0, false);
        if (action->kind != KIND_COPY_IN && action->kind != KIND_COPY_BOTH)
            expect_ready(user);
        expect_last(user)->shares = action->form == FORM_SHARES;
        break;
    case DO_PARSE:
        user->number++;
        put_parse(user, action);
        put_portal(user, action, "", NULL, 0);
        if (action->kind != KIND_COPY_IN) {
            op = expect_op(user, OP_QUESTION);
            op->kind = action->kind;
            op->arg = action->arg;
            op->limit = action->limit;
            op->is_portal_described = action->is_described;
            user->batch_parses_unnamed = true;
            user->batch_is_odd = user->batch_is_odd || action->form != FORM_SHARES;
            note_run(user, action);
            break;
        }
        /* The first of its batch. */
        expect(user, '1', user->number);
        expect(user, '2', user->number);
        expect_statement(user, user->number, action->kind, action->arg, 0, true);
        break;
    case DO_SYNC:
        put_message(&user->out, 'S', NULL, 0);
        is_sharing = user->in_batch && user->batch_runs == 1 && !user->batch_is_odd;
        user->in_batch = false;
        if (action->kind == KIND_COPY_IN && !user->copy_failed_early) {
            user->copy_has_sync = true;
            break; /* swallowed by COPY */
        }
        expect_op(user, OP_SYNC)->shares = is_sharing;
        user->in_batch = false;
        break;
    case DO_FLUSH:
        user->batch_is_odd = true;
        put_message(&user->out, 'H', NULL, 0);
        break;
    case DO_COPY_DATA:
        bytes = (size_t)snprintf(text, 64, "DATA %u %u", user->owner, user->copy_number) + 1;
        memset(text + bytes, 'x', action->arg % 3000);
        put_message(&user->out, 'd', text, bytes + action->arg % 3000);
        break;
    case DO_COPY_DONE:
        put_message(&user->out, 'c', NULL, 0);
        if (action->kind == KIND_COPY_BOTH) {
            expect(user, 'c', user->copy_number);
            expect(user, 'C', user->copy_number);
            expect_ready(user);
            break;
        }
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
        put_message(&user->out, 'Q', text, make_query(user, action, FORM_PLAIN, text));
        expect_statement(user, user->number, action->kind, action->arg, 0, false);
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
    default:
        act_on_statement(user, action);
        break;
    }
    resolve(user);
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

    user->mixes_copy = user->mixes_copy || !asks;
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

/* START_REPLICATION: the client speaks whenever it likes, while rows come. */
static void plan_copy_both(struct user *user, unsigned arg)
{
    unsigned count = (unsigned)sim_below(world.sim, 30);

    plan(user, DO_QUERY, KIND_COPY_BOTH, arg, happens(2));
    for (unsigned i = 0; i < count; i++)
        plan(user, DO_COPY_DATA, KIND_COPY_BOTH,
             (unsigned)sim_below(world.sim, happens(4) ? 3000 : 100), happens(6));
    plan(user, DO_COPY_DONE, KIND_COPY_BOTH, 0, happens(2));
    plan(user, DO_QUERY, KIND_ROWS, arg / 2, happens(2));
}

/* A COPY that fails before it reads: what was sent for it is thrown away. */
static void plan_failed_copy(struct user *user, unsigned arg, bool waits)
{
    bool is_extended = happens(2);

    user->mixes_copy = true;
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

/* ---- scripts with prepared statements ---- */

static unsigned draw_arg(void)
{
    return (unsigned)sim_below(world.sim, 100000);
}

static unsigned draw_name(void)
{
    return happens(4) ? 0 : 1 + (unsigned)sim_below(world.sim, STATEMENT_NAMES - 1);
}

static unsigned draw_statement(const struct user *user)
{
    unsigned count = STATEMENT_SHARED_LAST - STATEMENT_SHARED_FIRST + 1;

    if (happens(4))
        return STATEMENT_PRIVATE_FIRST + user->owner * STATEMENTS_OF_OWNER +
               (unsigned)sim_below(world.sim, STATEMENTS_OF_OWNER);
    /* Often one of a few, so that many clients have the same. */
    return STATEMENT_SHARED_FIRST + (unsigned)sim_below(world.sim, happens(2) ? 5 : count);
}

static enum kind draw_kind(void)
{
    switch (sim_below(world.sim, 24)) {
    case 0:
    case 1:
        return KIND_ERROR;
    case 2:
        return KIND_COPY_OUT;
    case 3:
        return world.is_sleepy && world.is_chaos ? KIND_SLEEP : KIND_ROWS;
    default:
        return KIND_ROWS;
    }
}

static struct action *plan_on(struct user *user, enum action_kind action, unsigned name)
{
    plan(user, action, KIND_ROWS, 0, false);
    user->actions[user->action_count - 1].name = name;
    return &user->actions[user->action_count - 1];
}

static void plan_sync(struct user *user)
{
    plan(user, DO_SYNC, KIND_ROWS, 0, false);
}

static void plan_prepare(struct user *user, unsigned name)
{
    plan_on(user, DO_PREPARE, name)->statement = draw_statement(user);
}

static void plan_bind(struct user *user, unsigned name)
{
    struct action *action = plan_on(user, happens(3) ? DO_BIND_DESCRIBE : DO_BIND, name);

    action->kind = draw_kind();
    action->arg = draw_arg();
}

static unsigned draw_special(bool with_names)
{
    switch (sim_below(world.sim, with_names ? 4 : 2)) {
    case 0:
        return STATEMENT_DISCARD_ALL;
    case 1:
        return STATEMENT_DEALLOCATE_ALL;
    case 2:
        return STATEMENT_DEALLOCATE_FIRST + 1 + (unsigned)sim_below(world.sim, 2);
    default:
        return STATEMENT_DEALLOCATE_FIRST + STATEMENT_NAMES - 1 - (unsigned)sim_below(world.sim, 2);
    }
}

/* DISCARD ALL, DEALLOCATE as a batch or, true, as a simple query. */
static bool plan_special(struct user *user, bool waits)
{
    unsigned name = happens(2) ? 0 : draw_name();
    struct action *action;

    if (happens(2)) {
        action = plan_on(user, DO_SPECIAL, 0);
        action->statement = draw_special(true);
        action->waits = waits;
        return true;
    }
    plan_on(user, DO_CLOSE, name)->waits = waits;
    /* Inside a batch the pooler reads no DEALLOCATE. */
    plan_on(user, DO_PREPARE, name)->statement = draw_special(!world.is_tracked);
    plan_on(user, DO_BIND, name)->arg = draw_arg();
    plan_sync(user);
    return false;
}

/* Anything behind anything: the model of the client knows what must come of it. */
static void plan_soup(struct user *user)
{
    unsigned names[] = {draw_name(), draw_name(), draw_name()};
    unsigned count = 2 + (unsigned)sim_below(world.sim, 10);
    unsigned first = user->action_count;
    bool in_transaction = happens(3);

    if (in_transaction)
        plan(user, DO_QUERY, KIND_BEGIN, 0, false);
    for (unsigned i = 0; i < count; i++) {
        unsigned name = names[sim_below(world.sim, COUNT_OF(names))];

        switch (sim_below(world.sim, 16)) {
        case 0:
            plan_on(user, DO_CLOSE, name);
            break;
        case 1:
        case 2:
        case 3:
            plan_on(user, DO_CLOSE, name);
            plan_prepare(user, name);
            break;
        case 4:
            plan_prepare(user, name);
            break;
        case 5:
        case 6:
            plan_on(user, DO_DESCRIBE, name);
            break;
        case 7:
            plan_on(user, DO_PREPARE_BAD, name);
            break;
        case 8:
            plan(user, DO_PARSE, KIND_ROWS, draw_arg(), false);
            break;
        default:
            plan_bind(user, name);
            break;
        }
        switch (sim_below(world.sim, 8)) {
        case 0:
        case 1:
            plan_sync(user);
            break;
        case 2:
            plan_sync(user);
            plan(user, DO_QUERY, happens(4) ? KIND_ERROR : KIND_ROWS, draw_arg(), happens(2));
            break;
        case 3:
            plan(user, DO_FLUSH, KIND_ROWS, 0, false);
            plan_on(user, DO_DESCRIBE, name)->waits = true;
            break;
        default:
            break;
        }
    }
    plan_sync(user);
    if (in_transaction)
        plan(user, DO_QUERY, KIND_END, 0, happens(2));
    user->actions[first].waits = happens(2);
}

/* Prepared once, run many times. */
static void plan_runs(struct user *user)
{
    unsigned name = happens(4) ? 0 : draw_name();
    unsigned count = 1 + (unsigned)sim_below(world.sim, 5);
    bool waits = happens(2);

    plan_on(user, DO_CLOSE, name)->waits = waits;
    plan_prepare(user, name);
    if (happens(2))
        plan_on(user, DO_DESCRIBE, name);
    if (happens(3)) {
        plan(user, DO_FLUSH, KIND_ROWS, 0, false);
        plan_bind(user, name);
        user->actions[user->action_count - 1].waits = true;
    }
    plan_sync(user);
    for (unsigned i = 0; i < count; i++) {
        plan_bind(user, name);
        user->actions[user->action_count - 1].waits = waits;
        plan_sync(user);
        if (happens(6))
            plan(user, DO_QUERY, KIND_ROWS, draw_arg(), happens(2));
    }
}

/* One batch at a time, each alone: what is refused can be healed. */
static void plan_singles(struct user *user)
{
    unsigned name = happens(8) ? 0 : draw_name();
    bool asks = happens(2);

    if (!user->names[name].is_there || happens(3)) {
        plan_on(user, DO_CLOSE, name)->waits = true;
        plan_prepare(user, name);
        if (happens(3))
            plan_on(user, DO_DESCRIBE, name);
        plan_sync(user);
    }
    for (unsigned i = 0; i < 2 + (unsigned)sim_below(world.sim, 6); i++) {
        struct action *action =
            plan_on(user, asks || happens(3) ? DO_BIND_DESCRIBE : DO_BIND, name);

        action->arg = draw_arg();
        action->waits = true;
        plan_sync(user);
        if (happens(8)) {
            plan_on(user, DO_DESCRIBE, name)->waits = true;
            plan_sync(user);
        }
    }
}

/* What was prepared by whichever script before is run once more, one batch or one transaction at a time. */
static void plan_run_again(struct user *user)
{
    bool in_transaction = happens(3), waits = happens(2);

    if (in_transaction)
        plan(user, DO_QUERY, KIND_BEGIN, 0, waits);
    for (unsigned i = 0; i < 3; i++) {
        plan_bind(user, draw_name());
        user->actions[user->action_count - 1].waits = waits && i == 0;
        if (happens(2))
            plan_sync(user);
    }
    plan_sync(user);
    if (in_transaction)
        plan(user, DO_QUERY, KIND_END, 0, waits);
}

/* Unnamed statements that are used in the batch that parses them. */
static void plan_unnamed(struct user *user)
{
    bool in_transaction = happens(4);

    if (in_transaction)
        plan(user, DO_QUERY, KIND_BEGIN, 0, happens(2));
    for (unsigned i = 0; i < 1 + (unsigned)sim_below(world.sim, 3); i++) {
        plan_prepare(user, 0);
        if (happens(2))
            plan_on(user, DO_DESCRIBE, 0);
        plan_bind(user, 0);
        if (happens(3))
            plan_bind(user, 0);
        if (happens(8))
            plan_on(user, DO_PREPARE_BAD, 0);
        plan_sync(user);
    }
    if (in_transaction)
        plan(user, DO_QUERY, KIND_END, 0, false);
}

static void plan_prepared(struct user *user)
{
    if (user->is_stale) {
        /* It was refused: it must be possible to go on. */
        user->is_stale = false;
        if (!world.is_tracked) {
            plan_on(user, DO_CLOSE, user->stale_name)->waits = true;
            plan_prepare(user, user->stale_name);
        }
        if (world.is_tracked && (name_of(user, user->stale_name)->is_told ||
                                 name_of(user, user->stale_name)->may_be_told ||
                                 name_of(user, user->stale_name)->is_portal_told)) {
            /* What it was told is out of date: it has to ask again, or to prepare anew. */
            plan_on(user, happens(2) ? DO_DESCRIBE : DO_CLOSE, user->stale_name)->waits = true;
            if (user->actions[0].action == DO_CLOSE)
                plan_prepare(user, user->stale_name);
            plan_sync(user);
        }
        if (world.is_tracked && happens(2)) {
            user->stale_retries = 0;
            for (unsigned i = 0; i < STALE_RETRIES_MAX; i++) {
                plan(user, DO_QUERY, KIND_BEGIN, 0, true);
                plan_on(user, DO_BIND, user->stale_name)->arg = ARG_RETRY;
                plan_sync(user);
                plan(user, DO_QUERY, KIND_END, 0, false);
            }
            return;
        }
        plan_on(user, DO_BIND, user->stale_name)->waits = world.is_tracked;
        plan_sync(user);
        return;
    }
    if (!world.has_names) {
        plan_unnamed(user);
        return;
    }
    if (!world.is_chaos && world.changes_schema && happens(2)) {
        plan_singles(user);
        return;
    }
    switch (sim_below(world.sim, 10)) {
    case 0:
        plan_unnamed(user);
        break;
    case 9:
        plan_singles(user);
        break;
    case 1:
        if (!plan_special(user, happens(2)) && world.avoids_known)
            plan(user, DO_QUERY, KIND_ROWS, 1, true);
        plan_run_again(user);
        break;
    case 2:
    case 3:
        plan_runs(user);
        break;
    case 4:
    case 5:
        plan_run_again(user);
        break;
    default:
        plan_soup(user);
        break;
    }
}

/* ---- scripts of questions that may share a server ---- */

static enum kind draw_sharing_kind(void)
{
    unsigned number = (unsigned)sim_below(world.sim, 32);

    if (number < 2)
        return KIND_ERROR;
    if (number < 3)
        return KIND_BAD;
    if (number < 5)
        return KIND_ROWS_ERROR;
    if (number < 7 || (world.is_sleepy && world.is_chaos && number < 18))
        return happens(3) ? KIND_ROWS_SLEEP : KIND_SLEEP;
    return KIND_ROWS;
}

static void plan_followed(struct user *user, enum action_kind action)
{
    plan(user, action, KIND_ROWS, 0, false);
    user->actions[user->action_count - 1].follows = true;
}

/* Of the action that was planned last. */
static void make_sharing(struct user *user)
{
    struct action *action = &user->actions[user->action_count - 1];

    if (world.is_pure) {
        action->form = FORM_SHARES;
        action->has_unnamed_portal = true;
        action->is_described = action->action == DO_PARSE && happens(2);
        return;
    }
    action->form = happens(10) ? FORM_NEARLY : happens(10) ? FORM_PLAIN : FORM_SHARES;
    action->has_unnamed_portal = !happens(10);
    if (action->action == DO_PARSE || action->action == DO_BIND) {
        action->limit = happens(12) ? 1 + action->arg % 5 : 0;
        if (action->kind != KIND_ROWS)
            action->limit = 0;
    }
    action->is_described = action->action == DO_PARSE && happens(2);
}

static void plan_one_sharing(struct user *user, bool waits)
{
    struct action *action;
    unsigned name;

    /* Names of statements are as in session mode with replication, whatever the mode is. */
    bool has_names = world.has_names && !world.owners[user->owner].is_replication;

    switch (sim_below(world.sim, has_names && (!world.is_pure || happens(4)) ? 8 : 6)) {
    case 0:
    case 1:
        plan(user, DO_PARSE, draw_sharing_kind(), draw_arg(), waits);
        make_sharing(user);
        if (happens(12) && !world.is_pure)
            plan_followed(user, DO_FLUSH);
        if (happens(12) && !world.is_pure) {
            plan(user, DO_PARSE, KIND_ROWS, draw_arg(), false);
            make_sharing(user);
        }
        plan_followed(user, DO_SYNC);
        break;
    case 2: /* a statement without a name, which others may have, too */
        plan_prepare(user, 0);
        user->actions[user->action_count - 1].waits = waits;
        action = plan_on(user, happens(3) ? DO_BIND_DESCRIBE : DO_BIND, 0);
        action->kind = draw_sharing_kind();
        if (action->kind == KIND_BAD)
            action->kind = KIND_ROWS;
        action->arg = draw_arg();
        action->follows = true;
        make_sharing(user);
        plan_followed(user, DO_SYNC);
        break;
    case 6:
    case 7:
        name = draw_name();
        if (!user->names[name == STATEMENT_NAMES - 1 ? name - 1 : name].is_there || happens(10)) {
            plan_on(user, DO_CLOSE, name)->waits = waits;
            plan_prepare(user, name);
            if (happens(2))
                plan_on(user, DO_DESCRIBE, name);
            plan_sync(user);
        }
        for (unsigned i = 0; i < 1 + (unsigned)sim_below(world.sim, 3); i++) {
            action = plan_on(user, happens(3) ? DO_BIND_DESCRIBE : DO_BIND, name);
            action->kind = draw_sharing_kind();
            if (action->kind == KIND_BAD)
                action->kind = KIND_ROWS;
            action->arg = draw_arg();
            action->waits = waits;
            make_sharing(user);
            plan_followed(user, DO_SYNC);
        }
        break;
    default:
        plan(user, DO_QUERY, draw_sharing_kind(), draw_arg(), waits);
        make_sharing(user);
        break;
    }
}

static void plan_sharing(struct user *user)
{
    unsigned count = 1 + (unsigned)sim_below(world.sim, 6);
    bool waits = !happens(5) || user->is_simple;

    if (happens(12) && !world.is_alike && !world.is_pure)
        plan(user, DO_QUERY, KIND_SET, draw_arg(), true);
    for (unsigned i = 0; i < count; i++) {
        if (happens(8) && (!user->is_simple || happens(4)) && !world.is_pure) {
            plan(user, DO_QUERY, KIND_BEGIN, 0, waits);
            plan_one_sharing(user, waits);
            plan(user, DO_QUERY, KIND_END, 0, waits);
        } else {
            plan_one_sharing(user, waits);
        }
    }
}

enum { SCRIPTS = 17, SCRIPT_SLEEPS = 12, ARG_LARGE = 8 * 23 * 20 + 3 /* few rows, each large */ };

static void plan_script(struct user *user)
{
    unsigned arg = (unsigned)sim_below(world.sim, 100000);
    bool waits = happens(2);

    user->action_first = 0;
    user->action_count = 0;
    if (world.owners[user->owner].is_replication && happens(3)) {
        plan_copy_both(user, happens(3) ? arg : ARG_LARGE);
        return;
    }
    if (world.has_sharing && !user->is_stale && (user->is_simple || !happens(3))) {
        plan_sharing(user);
        return;
    }
    /* Names of statements are as in session mode there, whatever the mode is. */
    if (!world.owners[user->owner].is_replication && (user->is_stale || happens(3))) {
        plan_prepared(user);
        return;
    }
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
        plan(user, DO_QUERY, KIND_SLEEP, world.is_chaos ? arg : ARG_LONG, true);
        if (world.has_sharing)
            make_sharing(user);
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
        user->mixes_copy = true;
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
    for (unsigned i = 0; i < WORLD_PARAMS; i++)
        if (user->knows[i]) {
            writer_put_string(&writer, world_param_names[i]);
            writer_put_string(&writer, user->params[i]);
        }
    if (who->is_replication) {
        writer_put_string(&writer, "replication");
        writer_put_string(&writer, "database");
    }
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    assert(!writer.overflow);
    heap_put(&user->out, packet, writer.bytes);
}

static void put_ssl_request(struct heap *heap)
{
    uint8_t request[8];

    bytes_put_u32(request, sizeof(request));
    bytes_put_u32(request + 4, SSL_REQUEST_CODE);
    heap_put(heap, request, sizeof(request));
}

static void user_connects(struct user *user)
{
    if (world.owner_last + 1 == OWNERS_MAX)
        return;
    user->in.begin = user->in.end = user->out.begin = user->out.end = 0;
    memset(user, 0, offsetof(struct user, index));
    wire_open(&user->wire, sim_connect(world.sim, (struct sockaddr *)&world.listen_address,
                                       sizeof(world.listen_address)));
    assert(user->wire.peer != NULL);
    user->owner = ++world.owner_last;
    user->login = (unsigned)sim_below(world.sim, LOGINS);
    if (world.has_sharing && !happens(world.is_mild ? 12 : 4))
        user->login = 0;
    world.owners[user->owner] = (struct owner){
        .database = (uint8_t)(happens(2) || (world.has_sharing && !happens(world.is_mild ? 12 : 4))
                                  ? 0
                                  : sim_below(world.sim, DATABASES)),
        .login = (uint8_t)user->login,
        .is_replication = world.has_replication && happens(4),
    };
    user->status = 'I';
    user->is_eager = happens(4);
    user->ends_in_login = world.is_chaos && world.users_break && happens(world.is_mild ? 60 : 6);
    user->is_console = world.is_chaos && happens(world.is_mild ? 200 : 20);
    user->password_is_wrong = world.is_chaos && happens(world.is_mild ? 200 : 20);
    user->connected_us = world_now_us();
    user->is_slow = happens(6);
    user->is_stingy = happens(4);
    if (world.has_sharing && (world.is_pure || !happens(world.is_mild ? 6 : 3))) {
        user->is_simple = true;
        user->is_stingy = false;
    }
    if (world.is_alike ? happens(20) : !happens(3)) {
        user->knows[PARAM_NAME] = true;
        strcpy(user->params[PARAM_NAME],
               world_param_values[PARAM_NAME][sim_below(world.sim, PARAM_VALUES)]);
    }
    /* Most are alike, so that they can share without a SET. */
    for (unsigned i = 1; world.has_sharing && i < WORLD_PARAMS; i++)
        if (happens(world.is_alike ? 100 : 8)) {
            user->knows[i] = true;
            strcpy(user->params[i], world_param_values[i][sim_below(world.sim, PARAM_VALUES)]);
        }
    world_log("client %u connects as owner %u%s: %s/%s", user->index, user->owner,
              world.owners[user->owner].is_replication ? " (replication)" : "",
              user->is_console ? "pgbouncer" : databases[world.owners[user->owner].database].name,
              login_names[user->login].name);
    if (world.has_tls) {
        user->wants_tls = world.demands_client_tls ? !happens(8) : happens(2);
        user->is_direct = user->wants_tls && happens(3);
    }
    if (user->is_direct) {
        wire_start_tls(&user->wire, wire_contexts.user);
        put_startup(user);
    } else if (happens(6) || user->wants_tls) {
        put_ssl_request(&user->out);
        user->asks_ssl = true;
    } else {
        put_startup(user);
    }
}

static void put_password(struct user *user, const void *data, size_t bytes)
{
    put_message(&user->out, 'p', data, bytes);
}

/* What the pooler offers; a fourth of the users cannot bind. */
static unsigned offers_of(struct scram_channel *channel, const uint8_t *list, size_t bytes)
{
    static const char plain[] = SCRAM_MECHANISM "\0";
    static const char both[] = SCRAM_MECHANISM_PLUS "\0" SCRAM_MECHANISM "\0";
    bool is_bindable = channel->binding_bytes > 0;

    assert(channel->is_tls == is_bindable);
    assert(bytes == (is_bindable ? sizeof(both) : sizeof(plain)));
    assert(memcmp(list, is_bindable ? both : plain, bytes) == 0);
    if (is_bindable && happens(4))
        *channel = (struct scram_channel){0};
    return is_bindable ? SCRAM_OFFER_PLUS | SCRAM_OFFER_PLAIN : SCRAM_OFFER_PLAIN;
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
        struct scram_channel channel;
        struct writer first_writer;

        for (size_t i = 0; i < sizeof(random); i++)
            random[i] = (uint8_t)sim_random(world.sim);
        scram_nonce_text(random, nonce);
        writer_init(&first_writer, first, sizeof(first));
        channel = wire_channel(&user->wire);
        writer_put_string(&writer, scram_client_start(&user->scram, &channel,
                                                      offers_of(&channel, body + 4, bytes - 4),
                                                      nonce, &first_writer));
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

/* What shares and has not been answered is asked again, unseen. */
static bool is_loss(const char *message)
{
    return strncmp(message, "server conn crashed?", 20) == 0 ||
           strncmp(message, "terminating connection", 22) == 0 ||
           strncmp(message, "unexpected answer", 17) == 0;
}

static void user_is_told_why(struct user *user, const char *message)
{
    bool in_peace = !world.is_chaos && (!world.is_shut_down || world.is_handed_over) &&
                    user->owner > world.chaos_owner_last;

    world_log("client %u (owner %u) is told: %s", user->index, user->owner, message);
    assert(!world.is_handed_over || strcmp(message, "pooler is shutting down") != 0);
    if (is_loss(message) && world.at_stake[user->owner].is_shared && !user->is_answering &&
        world.at_stake[user->owner].losses == 0)
        never("its server is lost: nobody has asked again");
    if (user->mixes_copy && world.may_track &&
        strcmp(message, "lost track of prepared statements") == 0)
        return;
    /* Whoever is looked up waits for the answer to a query that has a query's limits. */
    assert(!world.owners[user->owner].is_replication || ends_replication(message) ||
           (world.looks_up && !user->is_granted));
    for (size_t i = 0; i < COUNT_OF(causes); i++)
        if (strncmp(message, causes[i].text, strlen(causes[i].text)) == 0 &&
            (!in_peace || causes[i].in_peace))
            return;
    fprintf(stderr, "owner %u is told: %s\n", user->owner, message);
    never("no cause for a client's end");
}

/* `is_early`: before it had read anything, so that a Sync that was sent with the batch is no longer
 * thrown away. */
static void copy_fails(struct user *user, unsigned number, const struct expected *expected,
                       bool is_early)
{
    bool is_last = number == user->copy_number;
    bool sync_is_answered =
        is_early && (expected != NULL ? expected->has_sync : user->copy_has_sync);

    if (expected == NULL) {
        assert(is_last);
        user->copy_has_failed = true;
        user->copy_failed_early = is_early;
        if (!user->copy_is_extended)
            expect_ready(user);
        else if (sync_is_answered)
            expect(user, 'Z', number);
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
            (struct expected){.type = 'Z', .number = number};
    }
}

/* Is it the error for this name, as the client wrote it? */
static bool names_statement(struct user *user, const char *message, const char *sqlstate,
                            unsigned index)
{
    char name[STATEMENT_NAME_ROOM], wanted[STATEMENT_NAME_ROOM + 64];
    const char *what = strcmp(sqlstate, "26000") == 0 ? "does not exist" : "already exists";

    make_statement_name(name, user->owner, index);
    if (index == 0)
        snprintf(wanted, sizeof(wanted), "unnamed prepared statement %s", what);
    else
        snprintf(wanted, sizeof(wanted), "prepared statement \"%s\" %s", name, what);
    if (strcmp(message, wanted) == 0)
        return true;
    snprintf(wanted, sizeof(wanted), "prepared statement \"%.*s\" %s",
             STATEMENT_NAME_BYTES_OF_POSTGRES, name, what);
    return world.is_tracked && index > 0 && strcmp(message, wanted) == 0;
}

/* What the pooler may take for told. Not with SIM_KNOWN=1. */
static bool may_be_told(const struct user *user, const struct name *name)
{
    return world.avoids_known &&
           (name->may_be_told || (user->doubtful_names >> (unsigned)(name - user->names) & 1) != 0);
}

/* What a Describe of a portal told is kept as well as can be, and a Bind that comes in pieces is taken for one without
 * a Describe of its portal. Not with SIM_KNOWN=1. */
static bool is_guessed(const struct user *user, const struct name *name)
{
    return world.avoids_known && !name->is_told &&
           (user->portals_described >> (unsigned)(name - user->names) & 1) != 0;
}

/* What is sent behind what was answered last, up to the end of its batch: is a statement bound there whose
 * result the client knows from before, so that it must not be prepared again unseen? */
static bool batch_relies(const struct user *user)
{
    bool is_known = false, is_described = user->batch_is_described;
    struct name names[STATEMENT_NAMES];

    memcpy(names, user->names, sizeof(names));
    for (unsigned i = 0; i < user->expected_count; i++) {
        const struct expected *op = &user->expected[(user->expected_first + i) % EXPECTED_MAX];
        struct name *name = &names[op->name == STATEMENT_NAMES - 1 ? op->name - 1 : op->name];

        switch (op->op) {
        case OP_BIND:
            if (name->is_told || (name->may_be_told && world.avoids_known) ||
                may_be_told(user, &user->names[name - names]) ||
                (name->may_be_bound && !world.heals))
                return true;
            is_known = name->may_be_bound;
            break;
        case OP_DESCRIBE:
        case OP_DESCRIBE_PORTAL:
            is_described = true;
            break;
        case OP_EXECUTE:
            if (is_known && !is_described)
                return true;
            is_described = false;
            break;
        case OP_PARSE:
            if (op->name == 0 || !name->is_there)
                *name = (struct name){.is_there = true};
            break;
        case OP_CLOSE:
            *name = (struct name){0};
            break;
        case OP_SYNC:
            return false;
        default:
            break;
        }
    }
    return false;
}

/* PostgreSQL refused the Bind whose BindComplete has come. Was it the client's own affair? */
static bool must_be_told(const struct user *user, const struct expected *expected)
{
    const struct name *name = name_of((struct user *)user, expected->name);
    bool is_described = user->batch_is_described;

    if (name->is_told || (name->was_bound && !world.heals))
        return true;
    for (unsigned i = 1; i < user->expected_count; i++) {
        const struct expected *op = &user->expected[(user->expected_first + i) % EXPECTED_MAX];

        if (op->op == OP_EXECUTE)
            break;
        is_described = is_described || op->op == OP_DESCRIBE_PORTAL;
    }
    return name->was_bound && !is_described;
}

/* What the result of a statement looks like, or a row of it, in whatever message. */
static void check_version(struct user *user, const struct expected *expected, unsigned version)
{
    if (!statement_returns_rows(expected->statement)) {
        assert(version == 0);
        return;
    }
    assert(version <= world.schema_version);
    if (user->portal_is_told)
        assert(version == user->portal_version);
    user->portal_is_told = true;
    user->portal_version = version;
}

/* The statement is there, but cannot be run as it was prepared. Where statements are tracked the
 * pooler must mend that, if nobody can see it. */
static bool may_be_stale(const struct user *user, const struct expected *expected,
                         const struct error_fields *fields, bool is_of_pooler)
{
    const struct name *name = name_of((struct user *)user, expected->name);
    bool is_changed = strcmp(fields->sqlstate, "0A000") == 0;
    bool is_lost = strcmp(fields->sqlstate, "26000") == 0;
    unsigned behind = 0;

    /* Drivers look at it before they prepare anew. */
    if (is_changed && strcmp(fields->routine, "RevalidateCachedQuery") != 0)
        return false;

    if (expected->op != OP_BIND && expected->op != OP_DESCRIBE)
        return false;
    if (is_changed && !statement_returns_rows(expected->statement))
        return false;
    if (is_of_pooler && is_changed) {
        /* It has seen that the statement cannot be prepared as the client was told. */
        if (may_be_told(user, name) || (is_guessed(user, name) && expected->op == OP_BIND))
            return true;
        if (expected->op != OP_BIND || !(name->is_told || name->is_portal_told))
            return false;
        if (world.disturbances > expected->disturbances)
            return true;
        if ((name->is_told ? name->told_version : name->portal_told_version) ==
            world.schema_version)
            return false;
    }
    if (!world.may_track)
        return is_changed && name->schema_version < world.schema_version;
    if (!is_changed && !is_lost)
        return false;
    if (is_lost && expected->name == 0 && world.avoids_known)
        return true;
    if (world.disturbances == 0 || (is_lost && !world.loses_statements))
        return false;
    /* The unnamed one may be PostgreSQL's own. */
    if (expected->name == 0 && user->names[0].schema_version < world.schema_version)
        return true;
    /* In the middle of a message nothing is repeated. */
    if (world.pipe_bytes < QUERY_BYTES_MAX)
        return true;
    if (world.is_chaos || user->status != 'I' || !expected->is_alone || user->batch_has_shown ||
        world.disturbances > expected->disturbances)
        return true;
    for (unsigned i = 1; i < user->expected_count; i++)
        behind += user->expected[(user->expected_first + i) % EXPECTED_MAX].op == OP_SYNC;
    if (behind != 1 || expect_last((struct user *)user)->op != OP_SYNC)
        return true;
    if (may_be_told(user, name))
        return true;
    /* What the client was told of it may be true still. */
    if (expected->op == OP_BIND && name->is_told)
        return is_lost || name->told_version != world.schema_version;
    /* Whether a portal is described is not seen behind a Bind of several KB (rewrite_needs_next). */
    if (name->is_portal_told && question_is_long(expected->arg))
        return true;
    return batch_relies(user);
}

/* Inside a transaction block nothing is healed. But whatever was refused is prepared again on that
 * server before it is used there again: so it is refused once on each server of the pool. */
static void note_retry(struct user *user, const struct name *name)
{
    bool is_told = name->is_told || name->is_portal_told;

    if (may_be_told(user, name) || is_guessed(user, name))
        return;
    if (is_told &&
        (name->is_told ? name->told_version : name->portal_told_version) != world.schema_version)
        return; /* as it must be, until it asks again */
    if (user->stale_disturbances != world.disturbances) {
        user->stale_disturbances = world.disturbances;
        user->stale_retries = 0;
    }
    assert(!world.is_tracked || ++user->stale_retries < STALE_RETRIES_MAX);
}

static struct expected *expected_at(const struct user *user, unsigned index)
{
    return &((struct user *)user)->expected[(user->expected_first + index) % EXPECTED_MAX];
}

/* The end of what is answered now; NULL: it was not sent yet. */
static const struct expected *end_of_unit(const struct user *user)
{
    for (unsigned i = 0; i < user->expected_count; i++) {
        const struct expected *expected = expected_at(user, i);

        if (expected->type == 'Z' || (expected->type == 0 && expected->op == OP_SYNC))
            return expected;
    }
    return NULL;
}

/* By the pooler: it was still behind others, which have nothing to do with the request. */
static void cancelled_in_queue(struct user *user)
{
    const struct expected *end = end_of_unit(user);

    assert(world.has_sharing);
    assert(user->has_cancelled);
    assert(!user->is_answering);
    assert(end != NULL && end->shares);
    while (user->expected_count > 1 && expected_at(user, 1)->type != 'Z' &&
           expected_at(user, 1)->type != 0) {
        user->expected_first = (user->expected_first + 1) % EXPECTED_MAX;
        user->expected_count--;
    }
    world.cancelled_in_queue++;
}

static void user_error(struct user *user, const uint8_t *body, size_t bytes,
                       const struct expected *expected)
{
    struct error_fields fields;
    unsigned owner, number;
    char word[8];

    assert(error_fields_read(body, bytes, &fields));
    world_log("client %u (owner %u): %s %s; expected %c %s of name %u", user->index, user->owner,
              fields.sqlstate, fields.message, expected != NULL ? expected->type : '-',
              expected != NULL && expected->sqlstate != NULL ? expected->sqlstate : "",
              expected != NULL ? expected->name : 0);
    if (strcmp(fields.severity, "FATAL") == 0) {
        user->is_fatal = true;
        world.fatals++;
        user_is_told_why(user, fields.message);
        return;
    }
    if (user->status == 'T')
        user->status = 'E';
    user->in_batch_error = true;
    if (expected != NULL && expected->sqlstate != NULL &&
        strcmp(fields.sqlstate, expected->sqlstate) == 0) {
        if (strcmp(fields.sqlstate, "26000") == 0 || strcmp(fields.sqlstate, "42P05") == 0)
            assert(names_statement(user, fields.message, fields.sqlstate, expected->name));
        world.bind_errors++;
        return;
    }
    if (strcmp(fields.sqlstate, "57014") == 0 && memmem(body, bytes, "VERROR", 6) != NULL) {
        cancelled_in_queue(user);
        return;
    }
    if (expected != NULL && expected->other_sqlstate != NULL &&
        strcmp(fields.sqlstate, expected->other_sqlstate) == 0) {
        assert(names_statement(user, fields.message, fields.sqlstate, expected->name));
        return;
    }
    if (sscanf(fields.message, "%7s %u %u", word, &owner, &number) != 3) {
        assert(expected != NULL);
        assert(may_be_stale(user, expected, &fields, memmem(body, bytes, "VERROR", 6) != NULL));
        if (expected->arg == ARG_RETRY)
            note_retry(user, name_of(user, expected->name));
        if (world.avoids_known && expected->name == 0)
            return;
        user->is_stale = true;
        user->stale_name = expected->name;
        world.stale_errors++;
        return;
    }
    assert(owner == user->owner);
    assert(expected == NULL || expected->sqlstate == NULL);
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

/* DISCARD ALL, DEALLOCATE. The unnamed statement stays. */
static void forget_names(struct user *user, const struct expected *expected)
{
    if (strcmp(expected->tag, "DEALLOCATE") == 0) {
        name_of(user, expected->name)->is_there = false;
        return;
    }
    for (unsigned i = 1; i < STATEMENT_NAMES; i++)
        user->names[i].is_there = false;
}

/* In the welcome; by SET, DISCARD ALL. */
static void note_parameter(struct user *user, const char *name)
{
    unsigned param = find_world_param(name);

    if (param == WORLD_PARAMS || (param == PARAM_NAME && !user->knows[param]))
        return;
    user->knows[param] = true;
    snprintf(user->params[param], PARAM_BYTES_MAX, "%s", name + strlen(name) + 1);
}

/* Of a row: `... [NAME|ENCODING|...] ...`. It ran with what its client has. Returns that part. */
static void check_params(const struct user *user, const char *row, char text[PARAMS_TEXT_BYTES_MAX])
{
    const char *at = strchr(row, '[');
    const char *end = at != NULL ? strchr(at, ']') : NULL;

    assert(end != NULL);
    snprintf(text, PARAMS_TEXT_BYTES_MAX, "%.*s", (int)(end - at - 1), at + 1);
    for (unsigned i = 0; i < WORLD_PARAMS; i++) {
        size_t bytes = strcspn(++at, "|]");

        if (user->knows[i])
            assert(bytes == strlen(user->params[i]) &&
                   strncasecmp(at, user->params[i], bytes) == 0);
        at += bytes;
    }
}

static void user_message(struct user *user, char type, const uint8_t *body, size_t bytes)
{
    const struct expected *expected =
        user->expected_count > 0 ? &user->expected[user->expected_first] : NULL;
    const char *text = (const char *)body;
    unsigned owner, number, statement, version;
    struct question question = {.owner = user->owner,
                                .number = expected != NULL ? expected->number : 0,
                                .statement = expected != NULL ? expected->statement : 0};
    struct name *name;

    world_log("client %u (owner %u) gets %c, %zu bytes", user->index, user->owner, type, bytes);
    if (world.is_wild[user->owner]) {
        /* It can make nothing of it. */
        if (!user->is_leaving)
            put_message(&user->out, 'X', NULL, 0);
        user->is_leaving = true;
        return;
    }
    if (user->is_fatal) {
        assert(type == 'E');
        return;
    }
    if (type == 'S')
        note_parameter(user, text);
    if (!user->is_welcome) {
        assert(strchr("RSKZEN", type) != NULL);
        /* Neither a demand for a password nor a welcome may come in plain where it must not. */
        assert(user->wire.session != NULL || !world.demands_client_tls || type == 'E');
        if (type == 'R')
            user_is_asked(user, body, bytes);
        else if (type == 'K')
            memcpy(user->key, body, 8);
        else if (type == 'E')
            user_error(user, body, bytes, NULL);
        else if (type == 'Z') {
            user->is_welcome = true;
            world.tls_clients += user->wire.session != NULL;
        }
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
        char row[ROW_BYTES_MAX], params[PARAMS_TEXT_BYTES_MAX];

        world.answers++;
        assert(expected != NULL);
        assert(type == expected->type);
        switch (type) {
        case 'Z':
            assert(bytes == 1);
            assert(body[0] == user->status);
            world.transactions += body[0] == 'I';
            user->in_batch_error = user->batch_has_shown = user->batch_is_described =
                user->batch_was_lost = false;
            if (expected->drops_unnamed)
                user->names[0].is_there = false;
            break;
        case '1':
            *name_of(user, expected->name) =
                (struct name){.is_there = true,
                              .statement = expected->statement,
                              .schema_version = expected->schema_version,
                              .may_be_told = expected->is_described};
            break;
        case '2':
            name = name_of(user, expected->name);
            if (expected->op == OP_BIND && world.refused[user->owner] == expected->number) {
                world.healed++;
                assert(!must_be_told(user, expected));
            }
            user->batch_was_lost =
                user->batch_was_lost ||
                (expected->op == OP_BIND && world.lost[user->owner] == expected->number);
            user->portal_statement = expected->statement;
            user->portal_is_told = name->is_told && expected->op == OP_BIND && expected->was_told;
            if (world.avoids_known && user->batch_was_lost)
                user->portal_is_told = false;
            user->portal_version = name->told_version;
            name->was_bound = expected->name != 0;
            name->may_be_bound = true;
            break;
        case 'T':
        case 'n':
            if (expected->op == OP_NONE)
                break; /* of a simple query */
            name = name_of(user, expected->name);
            version = type == 'T' ? read_description(body, bytes, expected->statement) : 0;
            if (expected->op == OP_DESCRIBE_PORTAL) {
                check_version(user, expected, version);
                if (expected->statement == STATEMENT_TEXT)
                    break;
                name->portal_told_version = version;
                name->is_portal_told = true;
                break;
            }
            name->is_told = true;
            name->told_version = version;
            break;
        case '3':
            name_of(user, expected->name)->is_there = false;
            break;
        case 't':
            assert(bytes == 6);
            assert(bytes_get_u32(body + 2) == 1000 + expected->statement);
            break;
        case 'C':
            if (expected->tag != NULL) {
                assert(strcmp(text, expected->tag) == 0);
                forget_names(user, expected);
                break;
            }
            assert(!expected->is_cancelled);
            assert(sscanf(text, "DONE %u %u %u %u", &owner, &number, &statement, &version) == 4);
            assert(owner == user->owner);
            assert(number == expected->number);
            assert(statement == expected->statement);
            check_version(user, expected, version);
            if (expected->status_after != 0)
                user->status = expected->status_after;
            break;
        case 'D':
        case 'd':
            snprintf(row, sizeof(row), "%.*s", (int)MIN(bytes, (size_t)ROW_TEXT_BYTES_MAX), text);
            assert(sscanf(row, "A %u %u %u %u", &owner, &number, &statement, &question.version) ==
                   4);
            assert(owner == user->owner);
            assert(statement == expected->statement);
            check_version(user, expected, question.version);
            assert(number == expected->number);
            check_params(user, row, params);
            assert(bytes == make_row(row, &question, expected->row, params, expected->row_bytes));
            assert(memcmp(row, body, bytes) == 0);
            break;
        default:
            break;
        }
        user->batch_has_shown = user->batch_has_shown || strchr("DTCHd", type) != NULL;
    }
    user->is_answering = type != 'Z';
    user->expected_first = (user->expected_first + 1) % EXPECTED_MAX;
    user->expected_count--;
    resolve(user);
}

static void make_cancel(const struct user *user, uint8_t packet[16])
{
    struct writer writer;
    uint8_t key[8];

    memcpy(key, user->key, sizeof(key));
    if (happens(2)) /* by way of another process */
        key[7] = (uint8_t)((key[7] & ~PEER_HOPS_MAX) | sim_below(world.sim, PEER_HOPS_MAX + 1));
    writer_init(&writer, packet, 16);
    message_cancel_request(&writer, key);
}

/* False: nobody listens any more. */
static bool begin_tls_cancel(struct cancel *cancel, const struct user *user)
{
    struct sim_peer *peer = sim_connect(world.sim, (struct sockaddr *)&world.listen_address,
                                        sizeof(world.listen_address));
    uint8_t packet[16];

    if (peer == NULL)
        return false;
    wire_open(&cancel->wire, peer);
    cancel->is_on_tls = true;
    make_cancel(user, packet);
    heap_put(&cancel->out, packet, sizeof(packet));
    if (happens(3)) {
        wire_start_tls(&cancel->wire, wire_contexts.user);
    } else {
        struct heap request = {0};

        put_ssl_request(&request);
        assert(wire_write(&cancel->wire, request.data, request.end) == request.end);
        heap_free(&request);
        cancel->asks_ssl = true;
    }
    return true;
}

/* NULL: nobody listens any more, or the pipe has no room for it. */
static struct sim_peer *send_cancel(struct user *user)
{
    static const uint8_t rest[8000];
    uint8_t packet[16];
    struct writer writer;
    struct sim_peer *peer = sim_connect(world.sim, (struct sockaddr *)&world.listen_address,
                                        sizeof(world.listen_address));

    if (peer == NULL)
        return NULL;
    if (world.is_chaos && !world.has_tls && happens(8)) {
        /* Its answer is not waited for: so this may be refused, or come while it is being sent. */
        writer_init(&writer, packet, sizeof(packet));
        writer_put_u32(&writer, 8);
        writer_put_u32(&writer, SSL_REQUEST_CODE);
        (void)sim_peer_write(peer, packet, writer.bytes);
    }
    make_cancel(user, packet);
    if (sim_peer_write(peer, packet, sizeof(packet)) < sizeof(packet)) {
        sim_peer_close(peer);
        return NULL;
    }
    if (happens(8)) /* to which nobody listens */
        (void)sim_peer_write(peer, rest, 1 + sim_below(world.sim, sizeof(rest)));
    return peer;
}

/* No connection comes with it, so there is nothing that tells when it is over. */
static void user_asks_elsewhere(struct user *user)
{
    if (!world.order_cancel(user->key))
        return;
    world_log("client %u asks another process for a cancel", user->index);
    user->has_cancelled = true;
    world.cancelled[user->owner] = user->number;
    for (unsigned i = 0; i < user->expected_count; i++)
        user->expected[(user->expected_first + i) % EXPECTED_MAX].may_be_cancelled = true;
    user->expected[user->expected_first].is_cancelled = !world.is_chaos;
    user->has_stray_cancels = user->has_stray_cancels || world.is_chaos;
}

static void user_asks_cancel(struct user *user)
{
    bool closes_at_once = happens(3);
    struct cancel *cancel = cancels;

    if (world.is_shut_down || happens(4)) {
        user_asks_elsewhere(user);
        return;
    }

    while (cancel->wire.peer != NULL)
        if (++cancel == cancels + COUNT_OF(cancels))
            return;
    memset(cancel, 0, sizeof(*cancel));
    if (world.has_tls && happens(2)) {
        closes_at_once = false;
        if (!begin_tls_cancel(cancel, user))
            return;
    } else {
        wire_open(&cancel->wire, send_cancel(user));
    }
    if (cancel->wire.peer == NULL)
        return;
    world_log("client %u asks for a cancel%s", user->index, closes_at_once ? " and closes" : "");
    user->has_cancelled = true;
    world.cancelled[user->owner] = user->number;
    for (unsigned i = 0; i < user->expected_count; i++)
        user->expected[(user->expected_first + i) % EXPECTED_MAX].may_be_cancelled = true;
    user->expected[user->expected_first].is_cancelled = !world.is_chaos;
    if (closes_at_once) {
        if (world.is_chaos && happens(8))
            sim_peer_reset(cancel->wire.peer);
        wire_close(&cancel->wire);
        user->has_stray_cancels = user->has_stray_cancels || world.is_chaos;
        return;
    }
    cancel->user = user;
    cancel->owner = user->owner;
    user->cancels_open++;
}

/* In the chaos at any time; after it once, when it cannot come too early or too late. */
static bool user_wants_cancel(const struct user *user)
{
    const struct expected *next = &user->expected[user->expected_first];

    if (!user->is_welcome || user->expected_count == 0)
        return false;
    if (world.has_sharing && world.is_chaos) {
        const struct expected *end = end_of_unit(user);

        for (unsigned i = 0; i < user->expected_count; i++) {
            const struct expected *op = expected_at(user, i);

            if ((op->op == OP_BIND || op->op == OP_DESCRIBE) && op->name == 0)
                return false;
        }
        if (end != NULL && end->shares)
            return happens(world.is_sleepy ? 12 : 60);
    }
    if (!next->is_sleep)
        return false;
    if (world.is_chaos)
        return happens(world.is_sleepy ? 5 : 20);
    return next->arg == ARG_LONG && !next->is_cancelled &&
           sessions_sleep_for(user->owner, next->number);
}

/* On TLS it is sent when that is up. */
static void cancel_goes_on(struct cancel *cancel)
{
    struct wire *wire = &cancel->wire;
    uint8_t chunk[64];

    /* The answer to SSLRequest is one byte. */
    if (wire_read(wire, chunk, cancel->asks_ssl ? 1 : sizeof(chunk)) > 0 && cancel->asks_ssl) {
        cancel->asks_ssl = false;
        if (chunk[0] == 'S')
            wire_start_tls(wire, wire_contexts.user);
    }
    if (cancel->rubbish > 0 && wire_is_flushed(wire)) {
        cancel->rubbish--;
        (void)sim_peer_write(wire->peer, chunk, 1);
    }
    if (cancel->asks_ssl || heap_bytes(&cancel->out) == 0)
        return;
    cancel->out.begin +=
        wire_write(wire, cancel->out.data + cancel->out.begin, heap_bytes(&cancel->out));
    if (heap_bytes(&cancel->out) > 0)
        return;
    heap_free(&cancel->out);
    /* It has no more to say; but there may be somebody who adds something. */
    if (happens(2))
        wire_say_goodbye(wire);
    if (world.is_chaos && happens(3) && wire_is_flushed(wire)) {
        (void)sim_peer_write(wire->peer, chunk, 1 + sim_below(world.sim, sizeof(chunk) - 1));
        cancel->rubbish = (unsigned)sim_below(world.sim, 20);
    }
}

/* When the pooler ends the connection, the request has been carried out, or never will be. */
static void cancels_step(void)
{

    for (unsigned i = 0; i < COUNT_OF(cancels); i++) {
        struct cancel *cancel = &cancels[i];
        bool is_over;

        if (cancel->wire.peer == NULL)
            continue;
        cancel_goes_on(cancel);
        is_over = wire_is_at_end(&cancel->wire) && !sim_peer_is_reset(cancel->wire.peer);
        if (!is_over && !sim_peer_is_reset(cancel->wire.peer) &&
            (world.is_chaos ? !happens(5000) : cancel->is_on_tls))
            continue;
        if (cancel->owner == cancel->user->owner) {
            cancel->user->cancels_open--;
            cancel->user->has_stray_cancels = cancel->user->has_stray_cancels || !is_over;
        }
        wire_close(&cancel->wire);
        heap_free(&cancel->out);
    }
}

static void user_ends(struct user *user)
{
    wire_close(&user->wire);
}

static void user_reads(struct user *user)
{
    uint8_t chunk[8192];
    size_t room = user->is_slow ? 200 : sizeof(chunk);
    size_t bytes;
    char type;
    const uint8_t *body;

    if (world.is_chaos)
        room = 1 + sim_below(world.sim, room);
    bytes = wire_read(&user->wire, chunk, user->asks_ssl ? 1 : room);
    heap_put(&user->in, chunk, bytes);
    if (user->asks_ssl && heap_bytes(&user->in) > 0) {
        char answer = (char)user->in.data[user->in.begin];

        user->asks_ssl = answer != 'N' && answer != 'S';
        if (!user->asks_ssl) {
            user->in.begin++;
            put_startup(user);
        }
        if (answer == 'S') {
            assert(world.has_tls);
            wire_start_tls(&user->wire, wire_contexts.user);
        }
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
        (user->expected_count == 0 || happens(world.has_sharing && !world.is_chaos ? 60 : 4))) {
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
        if (user->action_first < user->action_count && user->actions[user->action_first].follows)
            continue;
        if (world.is_chaos && happens(3))
            break;
    }
    if (user_wants_cancel(user))
        user_asks_cancel(user);
}

/* False: it is gone. */
static bool user_breaks(struct user *user)
{
    switch (sim_below(world.sim, world.is_mild ? 3000 : 1500)) {
    case 0:
        world_log("client %u resets", user->index);
        sim_peer_reset(user->wire.peer);
        break;
    case 1:
        world_log("client %u closes", user->index);
        user_ends(user);
        return false;
    case 2:
        world_log("client %u ends its sending", user->index);
        /* By close_notify, by the end of the stream, or by both. */
        if (wire_is_up(&user->wire) && !happens(3))
            wire_say_goodbye(&user->wire);
        if (!user->wire.has_said_goodbye || happens(2))
            sim_peer_shutdown(user->wire.peer);
        user->is_leaving = true;
        break;
    default:
        break;
    }
    return true;
}

/* In the chaos the helpers may refuse it, or the configuration; nobody says so then. On TLS 1.3 a client is up before
 * the pooler is. */
static bool handshake_may_fail(const struct user *user)
{
    return (user->wire.session != NULL || user->wants_tls) && !user->is_granted &&
           (world.is_chaos || user->owner <= world.chaos_owner_last);
}

static void user_step(struct user *user)
{
    size_t bytes;

    if (user->wire.peer == NULL) {
        if (world.is_chaos ? happens(world.is_mild ? 3 : 20)
                           : user->scripts_left > 0 && user->connects_again_us <= world_now_us())
            user_connects(user);
        return;
    }
    if (world.is_chaos) {
        if (happens(3))
            return;
        if (happens(500))
            user->reads_again_us =
                world_now_us() + sim_below(world.sim, world.is_mild ? 10000 : 100000);
        if (world.users_break && !user_breaks(user))
            return;
    }
    if (!world.is_chaos || user->reads_again_us <= world_now_us())
        user_reads(user);
    if (wire_is_at_end(&user->wire)) {
        /* Every end has a cause: it was asked for, it was said, a message was cut off, or bytes
         * were lost. The console's is control's own affair. Who reads slowly is waited for no longer
         * than CONN_LINGER_US when its connection is closed: the rest, with the cause, may be
         * dropped between two messages, too (seed 3946). */
        assert(user->is_fatal || user->is_leaving || user->is_console ||
               (user->is_slow && world_now_us() - user->connected_us > CONN_LINGER_US) ||
               heap_bytes(&user->in) > 0 || sim_peer_is_reset(user->wire.peer) ||
               handshake_may_fail(user) || world.is_wild[user->owner] ||
               (world.has_dropped && (world.is_chaos || user->owner <= world.chaos_owner_last)));
        /* The end is said on TLS, too. */
        if (!world.is_chaos && wire_is_up(&user->wire) && user->is_fatal && !user->is_leaving &&
            !user->is_slow && user->owner > world.chaos_owner_last)
            assert(user->wire.has_goodbye || sim_peer_is_reset(user->wire.peer));
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
    user->out.begin += wire_write(&user->wire, user->out.data + user->out.begin, bytes);
    if (user->ends_in_login && !user->is_welcome && heap_bytes(&user->out) == 0 && happens(3)) {
        world_log("client %u ends in its login", user->index);
        if (happens(3))
            sim_peer_reset(user->wire.peer);
        user_ends(user);
    }
}

/* ---- all of them ---- */

void users_begin(unsigned count)
{
    user_count = count;
    for (unsigned i = 0; i < count; i++) {
        users[i].index = i;
        users[i].wire = (struct wire){0};
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

unsigned users_find_key(const uint8_t key[8])
{
    for (unsigned i = 0; i < user_count; i++)
        if (users[i].wire.peer != NULL && memcmp(users[i].key, key, 8) == 0)
            return users[i].owner;
    return 0;
}

bool users_are_done(void)
{
    for (unsigned i = 0; i < user_count; i++)
        if (users[i].wire.peer != NULL || users[i].scripts_left > 0)
            return false;
    for (unsigned i = 0; i < COUNT_OF(cancels); i++)
        if (cancels[i].wire.peer != NULL)
            return false;
    return true;
}

uint64_t users_next_us(void)
{
    uint64_t next_us = UINT64_MAX;

    for (unsigned i = 0; i < user_count; i++)
        if (users[i].wire.peer == NULL && users[i].scripts_left > 0)
            next_us = MIN(next_us, users[i].connects_again_us);
    return next_us;
}

void users_explain(void)
{
    for (unsigned i = 0; i < user_count; i++) {
        const struct user *user = &users[i];

        if (user->wire.peer != NULL || user->scripts_left > 0)
            fprintf(stderr,
                    "client %u (owner %u, %s/%s): connected %d, welcome %d, expects %u (next %c of "
                    "%u), actions %u/%u, scripts left %u, out %zu\n",
                    i, user->owner, databases[world.owners[user->owner].database].name,
                    login_names[user->login].name, user->wire.peer != NULL, user->is_welcome,
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
