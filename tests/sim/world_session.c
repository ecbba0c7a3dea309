#include "world_session.h"

#include "world_wire.h"

#include "crypto/md5.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SESSIONS_MAX = 256,
    CANCEL_CODE = 80877102,
    SSL_REQUEST_CODE = 80877103,
    STATEMENT_BYTES_MAX = QUESTION_BYTES_MAX,
    UNITS_MAX = 1024,
    OUTPUT_BYTES = 8192, /* PostgreSQL's buffer: what is full is sent */
    OID_FIRST = 1000,    /* + the statement: the type of its parameter, for Describe */
};

enum login_step { LOGIN_NOTHING, LOGIN_PASSWORD, LOGIN_SASL_FIRST, LOGIN_SASL_FINAL };

struct prepared {
    char name[STATEMENT_NAME_BYTES_OF_POSTGRES + 1];
    unsigned statement;
    unsigned schema_version; /* when it was prepared */
    char *text;              /* where it is the question itself; else NULL */
};

/* What a unit is, and whose: owners are numbers above 0. */
enum { UNIT_ANYBODYS = 0, UNIT_LOOKUP = -1, UNIT_SET = -2, UNIT_POOLERS = -3 };

/* A Query, or a batch up to its Sync, from its first byte on (see units_arrive). */
struct unit {
    uint64_t begin, end; /* in what has arrived; `end` 0: not all of it has */
    uint64_t oldest;     /* unit that was not answered when its first byte came; itself: all were */
    uint64_t answer_end; /* in what was put; 0: not known yet */
    int owner;
    bool shares; /* it is whole, reads only, and opens nothing: known when it was run */
};

/* The batch that is being run. */
struct batch_shape {
    unsigned binds, executes;
    bool parses_text, text_shares; /* of the unnamed statement */
    bool statement_shares, is_odd;
    unsigned refused; /* the question whose Bind was refused, though its statement is there */
};

/* A backend. */
struct session {
    struct wire wire;
    bool was_asked;   /* SSLRequest */
    bool is_smuggled; /* there were bytes behind its answer */
    bool is_silent;   /* what it gets is for nobody, and it answers no more */
    struct heap in, out;
    unsigned id;
    bool is_started; /* its packet was read: a session, and logged in unless login_step says */
    bool is_over;
    bool is_replication;
    unsigned replication_owner; /* whose it is, ever since the first question; 0: nobody's yet */
    bool is_asleep;
    bool skips_to_sync;
    bool is_told_standby;
    bool is_wild; /* has answered what nobody can understand */
    bool in_copy, copy_is_extended;
    bool copy_is_both;  /* it sends rows, too, and ends when the other side has */
    bool copy_has_read; /* at least one message */
    enum login_step login_step;
    char status;
    char user[32], database[32];
    world_params params, first_params;
    uint8_t key[8];
    uint8_t md5_salt[MD5_SALT_BYTES];
    struct scram_server scram;
    unsigned batch_owner, transaction_owner; /* 0: none */
    unsigned mark_owner;                     /* who left a mark; 0: nobody */
    bool in_batch; /* what is answered waits for Flush, Sync, an error, or a full buffer */
    size_t flushed_bytes;
    bool has_unnamed;
    bool has_lookup; /* the unnamed statement is auth_query's */
    char looked_up[32];
    struct prepared unnamed;
    char portal[STATEMENT_BYTES_MAX]; /* the question that was bound */
    unsigned portal_statement, portal_version;
    struct prepared *prepared;
    unsigned prepared_count, prepared_room;
    bool refuses_stale;      /* the last error was 0A000 */
    unsigned skipped_closes; /* that were to make room, when more had been sent behind them */
    unsigned sleep_owner, sleep_number, sleep_statement, sleep_version;
    bool sleep_is_extended;
    uint64_t wakes_us, slow_until_us;
    /* Exchanges that are in flight together. Those before `unit_first` are run, and may be answered. */
    struct unit units[UNITS_MAX];
    uint64_t unit_first, unit_next;
    uint64_t arrived, scanned, written;
    bool unit_is_open;
    struct batch_shape batch;
    bool portal_is_lookup;
    unsigned portal_owner;
    unsigned portal_limit;
    /* A signal that comes when the connection that brought it has gone; it hits what had arrived by then. */
    uint64_t signal_us, signal_end;
};

static struct session *sessions[SESSIONS_MAX];
static unsigned session_count, id_last;

static void flush(struct session *session)
{
    session->flushed_bytes = heap_bytes(&session->out);
}

static void put_parameter(struct session *session, const char *name, const char *value);

static void put_ready(struct session *session)
{
    session->in_batch = false;
    if (session->is_told_standby && world.is_promoted) {
        session->is_told_standby = false;
        put_parameter(session, "in_hot_standby", "off");
    }
    put_message(&session->out, 'Z', &session->status, 1);
    flush(session);
}

static void put_complete(struct session *session, const struct question *question)
{
    char text[64];
    int bytes = snprintf(text, sizeof(text), "DONE %u %u %u %u", question->owner, question->number,
                         question->statement, question->version);

    put_message(&session->out, 'C', text, (size_t)bytes + 1);
}

static void put_rows(struct session *session, char type, const struct question *question,
                     unsigned arg, unsigned limit)
{
    char text[ROW_BYTES_MAX], params[PARAMS_TEXT_BYTES_MAX];

    make_params_text(params, session->params);
    for (unsigned row = 0; row < MIN(row_count(arg), limit); row++)
        put_message(&session->out, type, text,
                    make_row(text, question, row, params, row_bytes(arg)));
}

/* ---- exchanges that are in flight together ---- */

/* What arrives is a row of units: a Query, or a batch up to its Sync. PostgreSQL reads the next one when the one
 * before is answered; but the pooler may have sent it before it had that answer. Then the two may only be two
 * owners' if each is whole, only reads, and opens nothing. That is checked here, by what arrived when, and
 * by the world's own knowledge of its texts. */

static struct unit *unit_at(struct session *session, uint64_t index)
{
    return &session->units[index % UNITS_MAX];
}

static bool unit_is_in_flight(struct session *session, uint64_t index)
{
    return index >= session->unit_first || unit_at(session, index)->answer_end > session->written;
}

static void unit_begins(struct session *session)
{
    uint64_t index = session->unit_next++;
    struct unit *unit = unit_at(session, index);

    assert(session->unit_next - session->unit_first < UNITS_MAX / 2);
    *unit = (struct unit){.begin = session->scanned, .oldest = index};
    while (unit->oldest > 0 && index - unit->oldest < UNITS_MAX / 2 &&
           unit_is_in_flight(session, unit->oldest - 1))
        unit->oldest--;
    session->unit_is_open = true;
}

/* Of what has arrived; nothing of it need be run. */
static void units_arrive(struct session *session)
{
    uint64_t consumed = session->arrived - heap_bytes(&session->in);

    if (!session->is_started || session->login_step != LOGIN_NOTHING)
        session->scanned = session->arrived;
    while (session->scanned < session->arrived) {
        const uint8_t *at = session->in.data + session->in.begin + (session->scanned - consumed);
        uint64_t bytes = session->arrived - session->scanned;

        if (!session->unit_is_open && strchr("QPBDECHS", (char)*at) != NULL)
            unit_begins(session);
        if (bytes < 5 || bytes < 1 + bytes_get_u32(at + 1))
            return;
        session->scanned += 1 + bytes_get_u32(at + 1);
        if (session->unit_is_open && (*at == 'Q' || *at == 'S')) {
            unit_at(session, session->unit_next - 1)->end = session->scanned;
            session->unit_is_open = false;
        }
    }
}

/* Whose is the unit of the message that is run now? */
static void unit_is_of(struct session *session, int owner)
{
    struct unit *unit = unit_at(session, session->unit_first);

    if (session->unit_first == session->unit_next)
        return; /* of COPY */
    if (unit->owner == UNIT_ANYBODYS)
        unit->owner = owner;
    assert(unit->owner == owner);
}

static void check_unit(struct session *session, uint64_t index)
{
    const struct unit *unit = unit_at(session, index);
    bool joins = false;

    for (uint64_t other = unit->oldest; other < index; other++) {
        const struct unit *before = unit_at(session, other);

        if (unit->owner == before->owner || unit->owner == UNIT_ANYBODYS ||
            before->owner == UNIT_ANYBODYS)
            continue;
        assert(unit->owner != UNIT_LOOKUP && before->owner != UNIT_LOOKUP);
        assert(unit->owner != UNIT_POOLERS && before->owner != UNIT_POOLERS);
        assert(unit->shares || unit->owner == UNIT_SET);
        assert(before->shares || before->owner == UNIT_SET);
        assert(!session->is_replication);
        assert(world.has_sharing && !world.is_session_mode);
        joins = joins || before->owner > 0;
    }
    world.joined += joins && unit->owner > 0;
    world.sets_between += joins && unit->owner == UNIT_SET;
}

/* Those that are run are over. */
static void units_run(struct session *session)
{
    uint64_t consumed = session->arrived - heap_bytes(&session->in);

    while (session->unit_first < session->unit_next && !session->is_asleep && !session->in_copy) {
        struct unit *unit = unit_at(session, session->unit_first);

        if (unit->end == 0 || unit->end > consumed)
            break;
        unit->answer_end = session->written + heap_bytes(&session->out);
        check_unit(session, session->unit_first++);
    }
}

static struct prepared *find_prepared(struct session *session, const char *name);

static bool text_shares(const char *text)
{
    struct asked asked;

    return read_question(text, &asked) && asked.form == FORM_SHARES;
}

/* A message of a batch, whether it is run or skipped. */
static void look_at_batch(struct session *session, char type, const uint8_t *body, size_t bytes)
{
    struct batch_shape *batch = &session->batch;
    const char *name = (const char *)body, *text = name + strlen(name) + 1;
    const struct prepared *prepared;
    bool shares;

    switch (type) {
    case 'P':
        batch->parses_text = name[0] == '\0' && strcmp(text, auth_query_text) != 0;
        batch->text_shares = text_shares(text) || (strncmp(text, "SELECT lower(", 13) == 0 &&
                                                   strstr(text, " AS prepared") != NULL);
        break;
    case 'B':
        prepared = find_prepared(session, text);
        batch->binds++;
        batch->is_odd = batch->is_odd || name[0] != '\0';
        batch->statement_shares = text[0] == '\0' && batch->parses_text ? batch->text_shares
                                  : prepared == NULL                    ? true
                                  : prepared->text != NULL ? text_shares(prepared->text)
                                                           : statement_shares(prepared->statement);
        break;
    case 'E':
        batch->executes++;
        batch->is_odd = batch->is_odd || name[0] != '\0' || bytes_get_u32(body + bytes - 4) != 0;
        break;
    case 'H':
        batch->is_odd = true;
        break;
    case 'Q':
    case 'S':
        shares = type == 'Q' ? text_shares(name)
                             : batch->binds == 1 && batch->executes == 1 && !batch->is_odd &&
                                   batch->statement_shares;
        if (session->unit_first < session->unit_next) {
            struct unit *unit = unit_at(session, session->unit_first);

            unit->shares = shares;
            /* One that shares may be asked again of a session that has another plan. */
            if (batch->refused > 0 && !shares)
                world.refused[unit->owner] = batch->refused;
        }
        *batch = (struct batch_shape){0};
        break;
    default:
        break;
    }
}

/* ---- the session ---- */

/* Nobody else's work may come into what is open, and nobody's where it does not belong. */
static void check_owner(struct session *session, unsigned owner)
{
    const struct owner *who = &world.owners[owner];
    const struct database *database = &databases[who->database];
    const char *user =
        database->forced_user != NULL ? database->forced_user : login_names[who->login].name;

    assert(owner > 0);
    assert(owner <= world.owner_last);
    assert(strcmp(session->database, database->server_name) == 0);
    assert(strcmp(session->user, user) == 0);
    assert(session->is_replication == who->is_replication);
    if (session->is_replication && session->replication_owner == 0)
        session->replication_owner = owner;
    assert(session->replication_owner == (who->is_replication ? owner : 0));
    unit_is_of(session, (int)owner);
    if (session->status != 'I' && !session->is_wild)
        assert(session->transaction_owner == owner);
    if (session->batch_owner != 0)
        assert(session->batch_owner == owner);
    if (world.is_session_mode && session->mark_owner != 0)
        assert(session->mark_owner == owner);
    assert(!session->in_copy);
}

static void fail_in_transaction(struct session *session)
{
    if (session->status == 'T')
        session->status = 'E';
}

static void end_extended_error(struct session *session)
{
    session->skips_to_sync = true;
    flush(session);
}

/* A function may deallocate what it has not prepared. */
static void lose_statement(struct session *session)
{
    unsigned index = (unsigned)sim_below(world.sim, session->prepared_count);

    world_log("session %u loses %s", session->id, session->prepared[index].name);
    free(session->prepared[index].text);
    session->prepared[index] = session->prepared[--session->prepared_count];
    world.disturbances++;
}

static void put_fail(struct session *session, const struct question *question, const char *sqlstate)
{
    put_error(&session->out, "ERROR", sqlstate, "FAIL %u %u %u", question->owner, question->number,
              question->statement);
    fail_in_transaction(session);
}

static uint64_t draw_sleep_us(void)
{
    if (world.has_sharing &&
        !happens(world.is_mild ? 20 : 4)) /* some are short enough to be followed */
        return sim_below(world.sim, happens(2) ? 2000 : 20000);
    return sim_below(world.sim, 200000);
}

static void fall_asleep(struct session *session, const struct question *question, unsigned arg,
                        bool is_extended)
{
    session->is_asleep = true;
    session->sleep_owner = question->owner;
    session->sleep_number = question->number;
    session->sleep_statement = question->statement;
    session->sleep_version = question->version;
    session->sleep_is_extended = is_extended;
    session->wakes_us = world_now_us() + (world.is_chaos    ? draw_sleep_us()
                                          : arg == ARG_LONG ? LONG_SLEEP_US
                                                            : 10);
}

static void put_parameter(struct session *session, const char *name, const char *value);

static void set_parameter(struct session *session, unsigned param, const char *value)
{
    if (strcmp(session->params[param], value) == 0)
        return;
    snprintf(session->params[param], PARAM_BYTES_MAX, "%s", value);
    put_parameter(session, world_param_names[param], value);
}

static const char notice[] = "SNOTICE\0Mhello from a backend\0";

/* Something is very wrong with this backend: its answer is none, or what comes with it cannot be. */
static bool go_wild(struct session *session, const struct question *question)
{
    unsigned harm = (unsigned)sim_below(world.sim, 6);

    world_log("session %u goes wild, %u", session->id, harm);
    session->is_wild = true;
    world.is_wild[question->owner] = true;
    world.wild_answers++;
    switch (harm) {
    case 0: /* ReadyForQuery, and nothing before it */
        return true;
    case 1:
        put_complete(session, question);
        break;
    case 2:
        put_rows(session, 'D', question, 3, UINT_MAX);
        break;
    case 3:
        put_message(&session->out, '~', "abc", 4);
        break;
    case 4:
        put_message(&session->out, '2', NULL, 0);
        break;
    default:
        session->status = 'T';
        break;
    }
    put_complete(session, question);
    return true;
}

/* Runs a statement of ours. False: it failed, or goes on (asleep, COPY). */
static bool run_statement(struct session *session, const char *text, unsigned statement,
                          unsigned version, bool is_extended)
{
    struct question question = {.statement = statement, .version = version};
    unsigned limit = is_extended && session->portal_limit > 0 ? session->portal_limit : UINT_MAX;
    unsigned owner, number, arg;
    struct asked asked;

    assert(read_question(text, &asked));
    question.owner = owner = asked.owner;
    question.number = number = asked.number;
    arg = asked.arg;
    check_owner(session, owner);
    if (world.loses_statements && session->prepared_count > 0 && happens(60))
        lose_statement(session);
    if (asked.form == FORM_SHARES && arg % 17 == 3) /* a name was too long, perhaps */
        put_message(&session->out, 'N', notice, sizeof(notice));
    if (asked.form == FORM_SHARES && session->status == 'I' && world.servers_break && happens(50))
        return go_wild(session, &question);
    switch ((enum kind)asked.kind) {
    case KIND_ROWS:
    case KIND_ROWS_ERROR:
    case KIND_ROWS_SLEEP:
        if (!is_extended)
            put_message(&session->out, 'T', "\0\0", 2);
        put_rows(session, 'D', &question, arg, limit);
        if (asked.kind == KIND_ROWS_ERROR) {
            put_fail(session, &question, "42601");
            return false;
        }
        if (asked.kind == KIND_ROWS_SLEEP) {
            fall_asleep(session, &question, arg, is_extended);
            return false;
        }
        if (row_count(arg) >= limit) {
            put_message(&session->out, 's', NULL, 0);
            return true;
        }
        break;
    case KIND_SET:
        set_parameter(session, 1 + arg % (WORLD_PARAMS - 1),
                      world_param_values[1 + arg % (WORLD_PARAMS - 1)][arg / 7 % PARAM_VALUES]);
        break;
    case KIND_BEGIN:
        assert(session->status == 'I' || session->is_wild);
        session->status = 'T';
        session->transaction_owner = owner;
        break;
    case KIND_END:
        session->status = 'I';
        session->transaction_owner = 0;
        break;
    case KIND_BAD:
    case KIND_ERROR:
        put_fail(session, &question, "42601");
        return false;
    case KIND_SLEEP:
        fall_asleep(session, &question, arg, is_extended);
        return false;
    case KIND_COPY_IN:
        put_message(&session->out, 'G', "\0\0\0", 3);
        session->in_copy = true;
        session->copy_is_both = false;
        session->copy_is_extended = is_extended;
        session->copy_has_read = false;
        session->sleep_owner = owner;
        session->sleep_number = number;
        session->sleep_statement = statement;
        session->sleep_version = version;
        flush(session);
        return false;
    case KIND_COPY_BOTH:
        assert(session->is_replication);
        assert(!is_extended);
        put_message(&session->out, 'W', "\0\0\0", 3);
        put_rows(session, 'd', &question, arg, UINT_MAX);
        session->in_copy = session->copy_is_both = true;
        session->copy_is_extended = false;
        session->sleep_owner = owner;
        session->sleep_number = number;
        session->sleep_statement = statement;
        session->sleep_version = version;
        flush(session);
        return false;
    case KIND_COPY_OUT:
        put_message(&session->out, 'H', "\0\0\0", 3);
        put_rows(session, 'd', &question, arg, UINT_MAX);
        put_message(&session->out, 'c', NULL, 0);
        break;
    case KIND_MARK:
        session->mark_owner = owner;
        break;
    }
    put_complete(session, &question);
    return true;
}

static void put_parameter(struct session *session, const char *name, const char *value)
{
    uint8_t body[256];
    struct writer writer;

    writer_init(&writer, body, sizeof(body));
    writer_put_string(&writer, name);
    writer_put_string(&writer, value);
    put_message(&session->out, 'S', body, writer.bytes);
}

/* ---- prepared statements ---- */

static void put_statement_error(struct session *session, const char *sqlstate, const char *name,
                                const char *what)
{
    if (name[0] == '\0')
        put_error(&session->out, "ERROR", sqlstate, "unnamed prepared statement %s", what);
    else
        put_error(&session->out, "ERROR", sqlstate, "prepared statement \"%s\" %s", name, what);
    fail_in_transaction(session);
}

static void put_aborted(struct session *session)
{
    put_error(&session->out, "ERROR", "25P02", "current transaction is aborted");
}

/* NULL: there is none. A name is cut off. */
static struct prepared *find_prepared(struct session *session, const char *name)
{
    if (name[0] == '\0')
        return session->has_unnamed ? &session->unnamed : NULL;
    for (unsigned i = 0; i < session->prepared_count; i++)
        if (strncmp(session->prepared[i].name, name, STATEMENT_NAME_BYTES_OF_POSTGRES) == 0)
            return &session->prepared[i];
    return NULL;
}

static void drop_unnamed(struct session *session)
{
    free(session->unnamed.text);
    session->unnamed.text = NULL;
    session->has_unnamed = false;
    session->has_lookup = false;
}

static void remove_prepared(struct session *session, struct prepared *prepared)
{
    if (prepared == &session->unnamed) {
        drop_unnamed(session);
    } else if (prepared != NULL) {
        free(prepared->text);
        *prepared = session->prepared[--session->prepared_count];
    }
}

static void remove_all_prepared(struct session *session)
{
    while (session->prepared_count > 0)
        remove_prepared(session, &session->prepared[0]);
}

static const char prefix[] = "pgsplice_";

/* A name for what is parsed for its error only, and closed at once. */
static bool is_spare(const char *name)
{
    return strncmp(name, "pgs_spare", sizeof(prefix) - 1) == 0;
}

/* Where statements are tracked no client's own name may reach a server, where it could be
 * somebody else's; where they are not, no client has any. */
static void check_prepared_name(const char *name)
{
    if (name[0] == '\0' || world.is_session_mode)
        return;
    assert(strncmp(name, prefix, sizeof(prefix) - 1) == 0 || is_spare(name));
    name += sizeof(prefix) - 1;
    assert(strlen(name) == 26);
    assert(strspn(name, "abcdefghijklmnopqrstuvwxyz234567") == 26);
}

/* False: an error was put. */
static bool parse_statement(struct session *session, const char *name, const char *text,
                            unsigned type_count)
{
    struct prepared made = {.schema_version = world.schema_version};
    /* What is in flight: evictions that an error has skipped, and a batch that is repeated, whose
     * statements are all prepared before it. */
    unsigned slack = MIN(session->skipped_closes, STATEMENT_NAMES) +
                     (world.disturbances > 0 ? STATEMENT_NAMES : 0);
    unsigned owner, number;
    struct asked asked;

    check_prepared_name(name);
    if (name[0] == '\0')
        drop_unnamed(session);
    if (sscanf(text, "BAD %u %u", &owner, &number) == 2) {
        check_owner(session, owner);
        put_error(&session->out, "ERROR", "42601", "FAIL %u %u 0", owner, number);
        fail_in_transaction(session);
        return false;
    }
    if (text[0] == '\0' && is_spare(name)) {
        made.statement = STATEMENT_TEXT;
    } else if (read_question(text, &asked)) {
        assert(name[0] == '\0' || world.is_tracked);
        check_owner(session, asked.owner);
        session->batch_owner = asked.owner;
        if (asked.kind == KIND_BAD) {
            put_fail(session, &(struct question){.owner = asked.owner, .number = asked.number},
                     "42601");
            return false;
        }
    } else {
        made.statement = read_statement(text, type_count);
        if (statement_owner(made.statement) != 0)
            check_owner(session, statement_owner(made.statement));
        if (session->status == 'E' && !statement_ends_transaction(made.statement)) {
            put_aborted(session);
            return false;
        }
    }
    if (name[0] != '\0' && find_prepared(session, name) != NULL) {
        put_statement_error(session, "42P05", name, "already exists");
        return false;
    }
    if (made.statement == STATEMENT_TEXT) {
        made.text = strdup(text);
        assert(made.text != NULL);
    }
    if (name[0] == '\0') {
        session->unnamed = made;
        session->has_unnamed = true;
    } else {
        if (session->prepared_count == session->prepared_room) {
            session->prepared_room = session->prepared_room * 2 + 8;
            session->prepared =
                realloc(session->prepared, session->prepared_room * sizeof(*session->prepared));
            assert(session->prepared != NULL);
        }
        snprintf(made.name, sizeof(made.name), "%s", name);
        session->prepared[session->prepared_count++] = made;
        if (world.is_tracked)
            assert(session->prepared_count <= world.prepared_max + slack + is_spare(name));
    }
    put_message(&session->out, '1', NULL, 0);
    return true;
}

/* Of a statement that is about to be bound or described. False: an error was put. */
static bool check_usable(struct session *session, const struct prepared *prepared, const char *name,
                         bool is_harmless)
{
    session->refuses_stale = false;
    if (prepared == NULL) {
        put_statement_error(session, "26000", name, "does not exist");
        return false;
    }
    if (session->status == 'E' && !is_harmless) {
        put_aborted(session);
        return false;
    }
    if (prepared->schema_version < world.schema_version &&
        statement_returns_rows(prepared->statement)) {
        put_error(&session->out, "ERROR", "0A000", "cached plan must not change result type");
        session->refuses_stale = true;
        fail_in_transaction(session);
        return false;
    }
    return true;
}

/* The question of a Bind that is refused. */
static void note_refusal(struct session *session, unsigned owner, const uint8_t *rest)
{
    unsigned asker, number;

    if (bytes_get_u16(rest + 2) == 0)
        return; /* the text is the question */
    assert(sscanf((const char *)rest + 8, "Q %u %u", &asker, &number) == 2);
    assert(asker == owner);
    if (session->refuses_stale)
        session->batch.refused = number;
    else
        world.lost[owner] = number;
}

/* `bytes` behind the names of a Bind: the question, or nothing where the text is it. */
static bool bind_statement(struct session *session, unsigned owner, const char *name,
                           const uint8_t *rest, size_t bytes)
{
    const struct prepared *prepared = find_prepared(session, name);
    unsigned statement = prepared != NULL ? prepared->statement : 0;
    struct asked asked;

    assert(bytes >= 6);
    if (!check_usable(session, prepared, name,
                      statement == STATEMENT_TEXT || statement_ends_transaction(statement))) {
        note_refusal(session, owner, rest);
        return false;
    }
    if (bytes_get_u16(rest + 2) == 0) {
        assert(statement == STATEMENT_TEXT);
        assert(strlen(prepared->text) < sizeof(session->portal));
        strcpy(session->portal, prepared->text);
    } else {
        uint32_t value_bytes = bytes_get_u32(rest + 4);

        assert(bytes == 4 + 4 + value_bytes + 2);
        assert(value_bytes < sizeof(session->portal));
        memcpy(session->portal, rest + 8, value_bytes);
        session->portal[value_bytes] = '\0';
    }
    session->portal_statement = statement;
    session->portal_version = statement_returns_rows(statement) ? prepared->schema_version : 0;
    assert(read_question(session->portal, &asked));
    assert(asked.owner == owner);
    /* Whoever runs a statement has prepared it. */
    if (statement == STATEMENT_TEXT) {
        assert(read_question(prepared->text, &asked));
        assert(asked.owner == owner);
    } else if (statement_owner(statement) != 0) {
        assert(statement_owner(statement) == owner);
    } else {
        assert((world.has_parsed[owner] >> statement & 1) != 0);
    }
    put_message(&session->out, '2', NULL, 0);
    return true;
}

static void put_row_description(struct session *session, unsigned statement, unsigned version)
{
    uint8_t body[DESCRIPTION_BYTES_MAX];

    if (statement_returns_rows(statement))
        put_message(&session->out, 'T', body,
                    make_description(body, statement, version, session->id));
    else
        put_message(&session->out, 'n', NULL, 0);
}

static bool describe_statement(struct session *session, const char *name)
{
    const struct prepared *prepared = find_prepared(session, name);
    uint8_t types[6] = {0, 1};

    if (!check_usable(session, prepared, name,
                      prepared != NULL && !statement_returns_rows(prepared->statement)))
        return false;
    bytes_put_u32(types + 2, OID_FIRST + prepared->statement);
    put_message(&session->out, 't', types, sizeof(types));
    put_row_description(session, prepared->statement, prepared->schema_version);
    return true;
}

static void put_tag(struct session *session, const char *tag)
{
    put_message(&session->out, 'C', tag, strlen(tag) + 1);
}

static void discard_all(struct session *session)
{
    remove_all_prepared(session);
    session->mark_owner = 0;
    for (unsigned i = 0; i < WORLD_PARAMS; i++)
        set_parameter(session, i, session->first_params[i]);
    put_tag(session, "DISCARD ALL");
}

static bool deallocate(struct session *session, const char *name)
{
    struct prepared *prepared = find_prepared(session, name);

    if (session->status == 'E') {
        put_aborted(session);
        return false;
    }
    if (prepared == NULL) {
        put_statement_error(session, "26000", name, "does not exist");
        return false;
    }
    remove_prepared(session, prepared);
    put_tag(session, "DEALLOCATE");
    return true;
}

/* DISCARD ALL, DEALLOCATE. False: an error was put. */
static bool run_special(struct session *session, unsigned statement)
{
    char name[STATEMENT_NAME_ROOM];

    if (session->status == 'E') {
        put_aborted(session);
        return false;
    }
    if (statement == STATEMENT_DISCARD_ALL) {
        if (session->status != 'I') {
            put_error(&session->out, "ERROR", "25001",
                      "DISCARD ALL cannot run inside a transaction block");
            fail_in_transaction(session);
            return false;
        }
        discard_all(session);
    } else if (statement == STATEMENT_DEALLOCATE_ALL) {
        remove_all_prepared(session);
        put_tag(session, "DEALLOCATE ALL");
    } else {
        make_statement_name(name, 0, statement - STATEMENT_DEALLOCATE_FIRST);
        return deallocate(session, name);
    }
    return true;
}

static bool execute_portal(struct session *session)
{
    if (session->portal_statement > STATEMENT_SHARED_LAST &&
        session->portal_statement < STATEMENT_PRIVATE_FIRST)
        return run_special(session, session->portal_statement);
    return run_statement(session, session->portal, session->portal_statement,
                         session->portal_version, true);
}

/* ---- what the pooler asks, sleeping ---- */

/* What the pooler asks for itself: SET name='value';..., DISCARD ALL, a check. */
static void run_own(struct session *session, const char *text)
{
    if (text[0] != '\0')
        unit_is_of(session, strncmp(text, "SET ", 4) == 0 ? UNIT_SET : UNIT_POOLERS);
    assert(session->status == 'I' || session->is_wild);
    assert(session->batch_owner == 0);
    assert(!session->in_copy);
    if (text[0] == '\0') {
        put_message(&session->out, 'I', NULL, 0);
    } else if (strcmp(text, "DISCARD ALL") == 0) {
        assert(!session->is_replication);
        discard_all(session);
    } else {
        assert(!session->is_replication);
        if (strncmp(text, "SET ", 4) == 0 && world.has_sharing && world.servers_break &&
            happens(25)) {
            world_log("session %u refuses a SET", session->id);
            put_error(&session->out, "ERROR", "22023", "invalid value");
            world.failed_sets++;
            text = "";
        }
        while (strncmp(text, "SET ", 4) == 0) {
            char name[PARAM_BYTES_MAX], value[PARAM_BYTES_MAX];
            size_t bytes = strcspn(text += 4, "=");
            unsigned param;

            snprintf(name, sizeof(name), "%.*s", (int)bytes, text);
            text += bytes + 2;
            bytes = strcspn(text, "'");
            snprintf(value, sizeof(value), "%.*s", (int)bytes, text);
            text += bytes + 2;
            param = find_world_param(name);
            assert(param < WORLD_PARAMS);
            set_parameter(session, param, value);
            put_message(&session->out, 'C', "SET", 4);
        }
        if (text[0] != '\0')
            put_message(&session->out, 'C', "SET", 4);
    }
    put_ready(session);
}

static void wake(struct session *session, bool is_cancelled)
{
    struct question question = {session->sleep_owner, session->sleep_number,
                                session->sleep_statement, session->sleep_version};

    session->is_asleep = false;
    if (is_cancelled) {
        put_error(&session->out, "ERROR", "57014", "FAIL %u %u %u", question.owner, question.number,
                  question.statement);
        fail_in_transaction(session);
        if (session->sleep_is_extended)
            end_extended_error(session);
    } else {
        put_complete(session, &question);
    }
    if (!session->sleep_is_extended)
        put_ready(session);
}

/* The one that runs, whoever asked for it. */
static void signal_hits(struct session *session)
{
    world_log("session %u: a signal hits owner %u", session->id, session->sleep_owner);
    world.stray_signals += session->sleep_number > world.cancelled[session->sleep_owner];
    wake(session, true);
    units_run(session);
    world.cancels_hit++;
}

/* `is_secret`: the request came on TLS. */
static void cancel_by_key(const uint8_t *key, bool is_secret)
{
    /* A key that was given once, though its session may have gone. */
    assert(bytes_get_u32(key) >= 1);
    assert(bytes_get_u32(key) <= id_last);
    for (unsigned i = 0; i < session_count; i++) {
        struct session *session = sessions[i];

        if (!session->is_started || session->is_over || memcmp(session->key, key, 8) != 0)
            continue;
        /* A key that nobody could read is not told in plain. */
        assert(is_secret || session->wire.session == NULL);
        if (world.has_sharing && world.is_chaos && session->signal_us == 0 && happens(3)) {
            session->signal_us = world_now_us() + sim_below(world.sim, 20000);
            session->signal_end = session->arrived;
        } else if (session->is_asleep) {
            world.tls_cancels += is_secret;
            signal_hits(session);
        }
    }
}

/* One that is late. */
static void deliver_signal(struct session *session)
{
    const struct unit *unit = unit_at(session, session->unit_first);

    if (session->signal_us == 0 || session->signal_us > world_now_us())
        return;
    session->signal_us = 0;
    if (session->is_asleep && !session->is_over && session->unit_first < session->unit_next &&
        unit->begin < session->signal_end) {
        world.late_signals++;
        signal_hits(session);
    }
}

/* ---- logging in ---- */

static void welcome(struct session *session)
{
    session->login_step = LOGIN_NOTHING;
    session->status = 'I';
    put_authentication(&session->out, AUTHENTICATION_OK, NULL, 0);
    session->is_told_standby = world.was_standby && !world.is_promoted;
    put_parameter(session, "server_version", "15.4");
    put_parameter(session, "in_hot_standby", session->is_told_standby ? "on" : "off");
    for (unsigned i = 0; i < WORLD_PARAMS; i++)
        put_parameter(session, world_param_names[(i + 1) % WORLD_PARAMS],
                      session->params[(i + 1) % WORLD_PARAMS]);
    bytes_put_u32(session->key, session->id);
    bytes_put_u32(session->key + 4, (uint32_t)sim_random(world.sim));
    put_message(&session->out, 'K', session->key, 8);
    put_ready(session);
}

static unsigned login_of(const struct session *session)
{
    unsigned login = 0;

    while (strcmp(login_names[login].name, session->user) != 0) {
        login++;
        assert(login < LOGINS);
    }
    return login;
}

static void ssl_requested(struct session *session)
{
    bool is_kind = !world.servers_break || !happens(4);
    uint8_t rest[64];

    assert(world.has_tls);
    assert(!session->was_asked);
    assert(heap_bytes(&session->in) == 0); /* it waits for the answer */
    session->was_asked = true;
    if (is_kind && world.servers_speak_tls) {
        if (sim_peer_write(session->wire.peer, "S", 1) == 0) {
            session->is_over = true; /* the pooler has gone */
            return;
        }
        wire_start_tls(&session->wire, wire_contexts.postgres);
        world.tls_servers++;
        if (world.servers_break && happens(6))
            session->wire.flip_at = sim_below(world.sim, 3000);
        if (world.servers_break && happens(6))
            session->wire.cut_at = sim_below(world.sim, 3000);
        return;
    }
    for (size_t i = 0; i < sizeof(rest); i++)
        rest[i] = (uint8_t)sim_random(world.sim);
    switch (is_kind ? 0 : sim_below(world.sim, 5)) {
    case 0:
        heap_put(&session->out, "N", 1);
        break;
    case 1: /* an old server, or none */
        put_error(&session->out, "FATAL", "0A000", "unsupported frontend protocol");
        session->is_over = true;
        break;
    case 2: /* somebody on the way adds something */
        heap_put(&session->out, happens(2) ? "S" : "N", 1);
        heap_put(&session->out, rest, 1 + sim_below(world.sim, sizeof(rest) - 1));
        session->is_silent = true;
        if (session->out.data[session->out.begin] == 'N' || happens(2))
            break;
        /* And the server itself goes on. */
        session->is_silent = false;
        session->is_smuggled = world.reads_are_whole;
        if (sim_peer_write(session->wire.peer, session->out.data + session->out.begin,
                           heap_bytes(&session->out)) < heap_bytes(&session->out))
            session->is_over = true;
        else
            wire_start_tls(&session->wire, wire_contexts.postgres);
        session->out.begin = session->out.end;
        break;
    case 3:
        heap_put(&session->out, "S", 1);
        session->is_silent = true;
        break;
    default:
        heap_put(&session->out, rest, 1);
        session->is_silent = true;
        break;
    }
    flush(session);
}

/* SCRAM, and bound to TLS where there is some: the pooler has to choose that. */
static void offer_sasl(struct session *session)
{
    static const char plain[] = SCRAM_MECHANISM "\0";
    static const char both[] = SCRAM_MECHANISM_PLUS "\0" SCRAM_MECHANISM "\0";
    const struct scram_channel channel = wire_channel(&session->wire);

    assert(channel.is_tls == (channel.binding_bytes > 0));
    if (channel.is_tls)
        put_authentication(&session->out, AUTHENTICATION_SASL, both, sizeof(both));
    else
        put_authentication(&session->out, AUTHENTICATION_SASL, plain, sizeof(plain));
}

static void start_session(struct session *session, const uint8_t *packet, size_t bytes)
{
    uint32_t code = bytes_get_u32(packet + 4);
    size_t at = 8;

    if (code == SSL_REQUEST_CODE) {
        ssl_requested(session);
        return;
    }
    assert(session->wire.session != NULL || !world.demands_server_tls);
    assert(!session->is_smuggled);
    if (code == CANCEL_CODE) {
        assert(bytes == 16);
        world_log("session %u is a cancel request", session->id);
        cancel_by_key(packet + 8, session->wire.session != NULL);
        session->is_over = true;
        return;
    }
    assert(code == 3u << 16);
    for (unsigned i = 1; i < WORLD_PARAMS; i++)
        strcpy(session->params[i], world_param_values[i][0]);
    while (at < bytes && packet[at] != 0) {
        const char *name = (const char *)packet + at;
        const char *value = name + strlen(name) + 1;

        if (find_world_param(name) < WORLD_PARAMS)
            snprintf(session->params[find_world_param(name)], PARAM_BYTES_MAX, "%s", value);
        if (strcmp(name, "replication") == 0) {
            assert(strcmp(value, "database") == 0);
            session->is_replication = true;
        }
        if (strcmp(name, "user") == 0)
            snprintf(session->user, sizeof(session->user), "%s", value);
        if (strcmp(name, "database") == 0)
            snprintf(session->database, sizeof(session->database), "%s", value);
        at += strlen(name) + strlen(value) + 2;
    }
    memcpy(session->first_params, session->params, sizeof(session->params));
    world_log("session %u begins: %s/%s", session->id, session->database, session->user);
    if (world.servers_break && happens(world.is_mild ? 100 : 10)) {
        put_error(&session->out, "FATAL", "53300", "sorry, too many clients already");
        session->is_over = true;
        return;
    }
    session->is_started = true;
    /* A secret that is only stored as SCRAM's opens nothing else. */
    switch (login_of(session) == LOGINS - 1 && world.carol_is_scram_only &&
                    world.server_demand != DEMAND_SCRAM
                ? DEMAND_NOTHING
                : world.server_demand) {
    case DEMAND_NOTHING:
        welcome(session);
        break;
    case DEMAND_PLAIN:
        session->login_step = LOGIN_PASSWORD;
        put_authentication(&session->out, AUTHENTICATION_CLEARTEXT, NULL, 0);
        break;
    case DEMAND_MD5:
        session->login_step = LOGIN_PASSWORD;
        bytes_put_u32(session->md5_salt, (uint32_t)sim_random(world.sim));
        put_authentication(&session->out, AUTHENTICATION_MD5, session->md5_salt,
                           sizeof(session->md5_salt));
        break;
    case DEMAND_SCRAM:
        session->login_step = LOGIN_SASL_FIRST;
        offer_sasl(session);
        break;
    }
}

static void password_arrives(struct session *session, const char *text, size_t bytes)
{
    const struct login_name *login = &login_names[login_of(session)];

    assert(text[bytes - 1] == '\0');
    if (world.server_demand == DEMAND_PLAIN) {
        assert(strcmp(text, login->password) == 0);
    } else {
        char secret[MD5_TEXT_BYTES];

        md5_make_secret(login->password, strlen(login->password), login->name, strlen(login->name),
                        secret);
        assert(md5_check_answer(secret, session->md5_salt, text, bytes - 1));
    }
    welcome(session);
}

static void sasl_arrives(struct session *session, const uint8_t *body, size_t bytes)
{
    uint8_t answer[SCRAM_SERVER_FIRST_ROOM];
    struct writer writer;

    writer_init(&writer, answer, sizeof(answer));
    if (session->login_step == LOGIN_SASL_FIRST) {
        uint8_t random[SCRAM_NONCE_BYTES];
        char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
        const struct scram_channel channel = wire_channel(&session->wire);
        const char *mechanism = channel.is_tls ? SCRAM_MECHANISM_PLUS : SCRAM_MECHANISM;
        size_t begin = strlen(mechanism) + 1 + 4;

        assert(bytes > begin);
        assert(strcmp((const char *)body, mechanism) == 0);
        for (size_t i = 0; i < sizeof(random); i++)
            random[i] = (uint8_t)sim_random(world.sim);
        scram_nonce_text(random, nonce);
        assert(scram_server_start(&session->scram, &channel,
                                  channel.is_tls ? SCRAM_OFFER_PLUS : SCRAM_OFFER_PLAIN,
                                  body + begin, bytes - begin, nonce,
                                  &world.secrets[login_of(session)], &writer) == SCRAM_OK);
        put_authentication(&session->out, AUTHENTICATION_SASL_CONTINUE, answer, writer.bytes);
        session->login_step = LOGIN_SASL_FINAL;
    } else {
        uint8_t client_key[SCRAM_KEY_BYTES];

        assert(scram_server_finish(&session->scram, body, bytes, client_key, &writer) == SCRAM_OK);
        put_authentication(&session->out, AUTHENTICATION_SASL_FINAL, answer, writer.bytes);
        welcome(session);
    }
}

/* ---- auth_query ---- */

/* The pooler's own, on a session that is nobody's: its batch has no owner. */
static void lookup_parse(struct session *session, const char *name, unsigned type_count)
{
    assert(world.looks_up);
    assert(name[0] == '\0');
    assert(type_count == 0);
    assert(session->status == 'I');
    assert(session->batch_owner == 0);
    unit_is_of(session, UNIT_LOOKUP);
    if (world.is_session_mode)
        assert(session->mark_owner == 0);
    assert(strcmp(session->user, login_names[LOGIN_AUTH_USER].name) == 0);
    drop_unnamed(session);
    session->has_lookup = true;
    put_message(&session->out, '1', NULL, 0);
}

/* Bytes behind the names of a Bind. */
static void lookup_bind(struct session *session, const uint8_t *rest, size_t bytes)
{
    uint32_t name_bytes = bytes_get_u32(rest + 4);

    assert(session->has_lookup);
    assert(bytes_get_u16(rest + 2) == 1);
    assert(bytes == 4 + 4 + name_bytes + 2);
    assert(name_bytes < sizeof(session->looked_up));
    memcpy(session->looked_up, rest + 8, name_bytes);
    session->looked_up[name_bytes] = '\0';
    put_message(&session->out, '2', NULL, 0);
}

static void lookup_describe(struct session *session)
{
    uint8_t body[128];
    struct writer writer;
    unsigned columns = world.servers_break && happens(30) ? 3 : 2;

    assert(session->has_lookup);
    writer_init(&writer, body, sizeof(body));
    writer_put_u16(&writer, (uint16_t)columns);
    for (unsigned i = 0; i < columns; i++) {
        writer_put_string(&writer, "column");
        writer_put(&writer, "\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0", 18);
    }
    assert(!writer.overflow);
    put_message(&session->out, 'T', body, writer.bytes);
}

static void put_value(struct writer *writer, const char *value)
{
    if (value == NULL) {
        writer_put_u32(writer, UINT32_MAX);
        return;
    }
    writer_put_u32(writer, (uint32_t)strlen(value));
    writer_put(writer, value, strlen(value));
}

/* False: an error was put. */
static bool lookup_execute(struct session *session)
{
    uint8_t body[512];
    struct writer writer;
    unsigned login = 0;

    assert(session->has_lookup);
    while (strcmp(login_names[login].name, session->looked_up) != 0) {
        login++;
        assert(login < LOGINS);
    }
    assert(login != LOGIN_AUTH_USER); /* auth_file has that one */
    if (world.servers_break && happens(20)) {
        put_error(&session->out, "ERROR", "42501", "permission denied");
        return false;
    }
    if (!world.is_chaos || !happens(20)) {
        writer_init(&writer, body, sizeof(body));
        writer_put_u16(&writer, 2);
        put_value(&writer, world.servers_break && happens(20) ? NULL : session->looked_up);
        put_value(&writer, login_secret(login));
        assert(!writer.overflow);
        put_message(&session->out, 'D', body, writer.bytes);
        world.looked_up++;
    }
    session->mark_owner = OWNERS_MAX; /* nobody's: a reset comes before anybody */
    put_message(&session->out, 'C', "SELECT 1", 9);
    return true;
}

/* ---- what the pooler sends ---- */

static void fail_copy(struct session *session, const char *word)
{
    session->in_copy = false;
    world_log("session %u fails its COPY", session->id);
    put_error(&session->out, "ERROR", "57014", "%s %u %u", word, session->sleep_owner,
              session->sleep_number);
    fail_in_transaction(session);
    if (session->copy_is_extended)
        end_extended_error(session);
    else
        put_ready(session);
    /* And at once the end: a client may still be in the middle of its CopyData. */
    if (world.servers_break && happens(8)) {
        put_error(&session->out, "FATAL", "57P01", "terminating connection");
        session->is_over = true;
    }
}

/* A simple query of a client that is not a question: `... -- Q OWNER NUMBER`. */
static void run_client_special(struct session *session, const char *text)
{
    const char *comment = strstr(text, " -- Q ");
    char statement[STATEMENT_NAME_ROOM + 16], name[STATEMENT_NAME_ROOM];
    unsigned owner, number;

    assert(sscanf(comment, " -- Q %u %u", &owner, &number) == 2);
    check_owner(session, owner);
    snprintf(statement, sizeof(statement), "%.*s", (int)(comment - text), text);
    if (sscanf(statement, "DEALLOCATE \"%79[^\"]", name) == 1) {
        check_prepared_name(name);
        (void)deallocate(session, name);
    } else {
        (void)run_special(session, read_statement(statement, 0));
    }
    put_ready(session);
}

static unsigned portal_owner(const struct session *session, const char *portal)
{
    unsigned owner = session->portal_owner;

    if (portal[0] != '\0')
        assert(sscanf(portal, "p%u", &owner) == 1);
    return owner;
}

/* Of a Bind: it stands in the portal's name, in the value, or in the unnamed statement. */
static unsigned bind_owner(struct session *session, const char *portal, const uint8_t *end)
{
    const char *name = portal + strlen(portal) + 1;
    const uint8_t *rest = (const uint8_t *)name + strlen(name) + 1;
    const struct prepared *prepared = find_prepared(session, name);
    struct asked asked = {0};

    assert(end - rest >= 6);
    if (portal[0] != '\0')
        return portal_owner(session, portal);
    if (bytes_get_u16(rest + 2) > 0)
        assert(sscanf((const char *)rest + 8, "Q %u", &asked.owner) == 1);
    else if (prepared != NULL && prepared->text != NULL)
        assert(read_question(prepared->text, &asked));
    else
        asked.owner = session->batch_owner;
    return asked.owner;
}

static void session_message(struct session *session, char type, const uint8_t *body, size_t bytes)
{
    const char *text = (const char *)body;
    const char *name;
    unsigned owner, number;
    struct asked asked;

    world_log("session %u gets %c, %zu bytes%s%s%.48s", session->id, type, bytes,
              session->in_copy ? ", in COPY" : "", strchr("QPDCB", type) != NULL ? ": " : "",
              strchr("QPDC", type) != NULL ? text
              : type == 'B'                ? text + strlen(text) + 1
                                           : "");
    if (session->login_step != LOGIN_NOTHING && type != 'X') {
        assert(type == 'p');
        if (session->login_step == LOGIN_PASSWORD)
            password_arrives(session, text, bytes);
        else
            sasl_arrives(session, body, bytes);
        return;
    }
    if (session->in_copy) {
        session->copy_has_read = true;
        switch (type) {
        case 'd':
            assert(sscanf(text, "DATA %u %u", &owner, &number) == 2);
            assert(owner == session->sleep_owner);
            assert(number == session->sleep_number);
            if (world.is_chaos && !session->copy_is_both && happens(20))
                fail_copy(session, "COPY"); /* a row that does not fit the table */
            break;
        case 'c':
            session->in_copy = false;
            if (session->copy_is_both)
                put_message(&session->out, 'c', NULL, 0);
            put_complete(session,
                         &(struct question){session->sleep_owner, session->sleep_number,
                                            session->sleep_statement, session->sleep_version});
            if (!session->copy_is_extended)
                put_ready(session);
            break;
        case 'f':
            fail_copy(session, "COPY");
            break;
        case 'Q':
            assert(read_question(text, &asked));
            assert(asked.owner == session->sleep_owner);
            fail_copy(session, "EATS");
            break;
        case 'S': /* thrown away while COPY data is read */
        case 'H':
            break;
        case 'X': /* its client has left before it knew of the COPY */
            assert(session->is_replication);
            session->is_over = true;
            break;
        default:
            never("a message inside COPY");
        }
        return;
    }
    look_at_batch(session, type, body, bytes);
    if (session->skips_to_sync && type != 'S' && type != 'X') {
        session->skipped_closes += type == 'C';
        return;
    }
    if (strchr("PBDEC", type) != NULL)
        session->in_batch = true;
    switch (type) {
    case 'Q':
        assert(bytes > 0);
        assert(body[bytes - 1] == 0);
        drop_unnamed(session);
        if (strncmp(text, "Q ", 2) != 0 && strstr(text, " -- Q ") != NULL) {
            run_client_special(session, text);
            break;
        }
        if (!read_question(text, &asked)) {
            run_own(session, text);
            break;
        }
        if (run_statement(session, text, STATEMENT_TEXT, 0, false) ||
            (!session->is_asleep && !session->in_copy))
            put_ready(session);
        break;
    case 'P':
        name = text;
        text += strlen(name) + 1;
        number = bytes_get_u16((const uint8_t *)text + strlen(text) + 1);
        assert((const uint8_t *)text + strlen(text) + 3 + 4 * number == body + bytes);
        if (strcmp(text, auth_query_text) == 0) {
            lookup_parse(session, name, number);
            break;
        }
        assert(!session->has_lookup);
        if (!parse_statement(session, name, text, number))
            end_extended_error(session);
        break;
    case 'B':
        session->portal_is_lookup = session->has_lookup && text[0] == '\0' && text[1] == '\0';
        if (session->portal_is_lookup) {
            lookup_bind(session, body + 2, bytes - 2);
            break;
        }
        assert(!session->has_lookup);
        owner = bind_owner(session, text, body + bytes);
        check_owner(session, owner);
        session->batch_owner = session->portal_owner = owner;
        name = text + strlen(text) + 1;
        text = name + strlen(name) + 1;
        if (!bind_statement(session, owner, name, (const uint8_t *)text,
                            bytes - (size_t)(text - (const char *)body)))
            end_extended_error(session);
        break;
    case 'D':
        if (text[0] == 'S') {
            assert(!session->in_copy);
            if (!describe_statement(session, text + 1))
                end_extended_error(session);
            break;
        }
        if (session->portal_is_lookup && text[1] == '\0') {
            lookup_describe(session);
            break;
        }
        check_owner(session, portal_owner(session, text + 1));
        put_row_description(session, session->portal_statement, session->portal_version);
        break;
    case 'C':
        assert(text[0] == 'S');
        if (text[1] == '\0')
            drop_unnamed(session);
        else
            remove_prepared(session, find_prepared(session, text + 1));
        put_message(&session->out, '3', NULL, 0);
        break;
    case 'E':
        if (session->portal_is_lookup && text[0] == '\0') {
            if (!lookup_execute(session))
                end_extended_error(session);
            break;
        }
        check_owner(session, portal_owner(session, text));
        session->portal_limit = bytes_get_u32(body + bytes - 4);
        if (!execute_portal(session) && !session->is_asleep && !session->in_copy)
            end_extended_error(session);
        break;
    case 'S':
        session->skips_to_sync = false;
        session->batch_owner = 0;
        put_ready(session);
        break;
    case 'H':
        flush(session);
        break;
    case 'd': /* COPY data that comes too late is thrown away */
    case 'c':
    case 'f':
        break;
    case 'X':
        session->is_over = true;
        break;
    default:
        never("an unknown message");
    }
}

static void session_free(struct session *session)
{
    if (session->wire.peer != NULL) {
        if (session->wire.session != NULL && happens(2))
            wire_say_goodbye(&session->wire);
        wire_close(&session->wire);
    }
    heap_free(&session->in);
    heap_free(&session->out);
    remove_all_prepared(session);
    drop_unnamed(session);
    free(session->prepared);
    free(session);
}

/* False: it has ended. */
static bool session_step(struct session *session)
{
    uint8_t chunk[4096];
    size_t bytes;
    char type;
    const uint8_t *body;
    uint64_t now_us = world_now_us();

    if (world.is_chaos && session->slow_until_us > now_us)
        return true;
    if (world.servers_break && !session->is_over) {
        switch (sim_below(world.sim, world.breaks_often ? 300 : 2000)) {
        case 0:
            world_log("session %u resets", session->id);
            sim_peer_reset(session->wire.peer);
            break;
        case 1:
            return false;
        case 2:
            if (session->is_started && session->login_step == LOGIN_NOTHING) {
                world_log("session %u says FATAL", session->id);
                put_error(&session->out, "FATAL", "57P01", "terminating connection");
                session->is_over = true;
            }
            break;
        case 3:
            world_log("session %u is slow", session->id);
            session->slow_until_us =
                now_us + sim_below(world.sim, world.is_mild ? 10000 : 20 * US_PER_S);
            break;
        default:
            break;
        }
    }
    /* Cancelled by somebody else, between two messages. */
    if (world.is_chaos && session->in_copy && !session->copy_is_both && !session->is_over &&
        (session->copy_has_read || world.copy_fails_early) && heap_bytes(&session->in) == 0 &&
        happens(100))
        fail_copy(session, session->copy_has_read ? "COPY" : "EARLY");
    /* What a backend may say at any time: a reload, a NOTICE. */
    if (world.is_chaos && session->is_started && session->login_step == LOGIN_NOTHING &&
        !session->is_over && !session->is_asleep && happens(300)) {
        if (happens(2))
            put_parameter(session, "IntervalStyle", "postgres");
        else
            put_message(&session->out, 'N', notice, sizeof(notice));
    }
    bytes = wire_read(&session->wire, chunk, 1 + sim_below(world.sim, sizeof(chunk)));
    if (!session->is_over) {
        heap_put(&session->in, chunk, bytes);
        session->arrived += bytes;
        units_arrive(session);
    }
    deliver_signal(session);
    if (!session->is_over && session->is_asleep && session->wakes_us <= now_us)
        wake(session, false);
    units_run(session);
    while (!session->is_over && !session->is_asleep && !session->is_silent) {
        if (!session->is_started) {
            const uint8_t *packet = session->in.data + session->in.begin;

            if (heap_bytes(&session->in) < 8 || heap_bytes(&session->in) < bytes_get_u32(packet))
                break;
            bytes = bytes_get_u32(packet);
            session->in.begin += bytes;
            start_session(session, packet, bytes);
        } else if (take_message(&session->in, &type, &body, &bytes)) {
            session_message(session, type, body, bytes);
            units_run(session);
        } else {
            break;
        }
        if (world.is_chaos && happens(4))
            break;
    }
    if (!session->in_batch || session->is_over || heap_bytes(&session->out) > OUTPUT_BYTES ||
        (world.is_chaos && happens(4)))
        flush(session);
    bytes =
        wire_write(&session->wire, session->out.data + session->out.begin, session->flushed_bytes);
    session->out.begin += bytes;
    session->written += bytes;
    session->flushed_bytes -= bytes;
    if (session->is_over && heap_bytes(&session->out) == 0 && wire_is_flushed(&session->wire))
        return false;
    return !wire_is_at_end(&session->wire);
}

static void session_begins(void *context, struct sim_peer *peer)
{
    struct session *session = calloc(1, sizeof(*session));

    (void)context;
    assert(session != NULL);
    assert(session_count < SESSIONS_MAX);
    wire_open(&session->wire, peer);
    session->id = ++id_last;
    if (world.servers_break && happens(8))
        session->slow_until_us =
            world_now_us() + sim_below(world.sim, world.is_mild ? 10000 : US_PER_S);
    else if (world.is_chaos && world.is_sleepy && happens(2)) /* cancel requests that are late */
        session->slow_until_us =
            world_now_us() + sim_below(world.sim, world.is_mild ? 3000 : 100000);
    sessions[session_count++] = session;
}

void sessions_step(void)
{
    if (world.was_standby && !world.is_promoted && world.is_chaos && happens(200)) {
        world.is_promoted = true;
        world_log("promoted");
    }
    if (world.changes_schema && happens(world.rounds_of_schema)) {
        world.schema_version++;
        world.disturbances++;
        world_log("schema version %u", world.schema_version);
    }
    for (unsigned i = 0; i < session_count;) {
        if (session_step(sessions[i])) {
            i++;
            continue;
        }
        world_log("session %u ends", sessions[i]->id);
        session_free(sessions[i]);
        sessions[i] = sessions[--session_count];
    }
}

void sessions_begin(void)
{
    id_last = 0;
    for (unsigned i = 0; i < SERVER_ADDRESSES; i++) {
        /* Both ports of 127.0.0.1 and of 127.0.0.2. */
        world.server_addresses[i] = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = htons((uint16_t)(5432 + i % 2))};
        world.server_addresses[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK + i / 2);
        sim_serve(world.sim, (struct sockaddr *)&world.server_addresses[i],
                  sizeof(world.server_addresses[i]), session_begins, NULL);
    }
}

uint64_t sessions_next_us(void)
{
    uint64_t next_us = UINT64_MAX;

    for (unsigned i = 0; i < session_count; i++)
        if (sessions[i]->is_asleep)
            next_us = MIN(next_us, sessions[i]->wakes_us);
    return next_us;
}

bool sessions_sleep_for(unsigned owner, unsigned number)
{
    for (unsigned i = 0; i < session_count; i++)
        if (sessions[i]->is_asleep && !sessions[i]->is_over && sessions[i]->sleep_owner == owner &&
            sessions[i]->sleep_number == number)
            return true;
    return false;
}

void sessions_hurry(void)
{
    for (unsigned i = 0; i < session_count; i++) {
        struct session *session = sessions[i];
        struct wire *wire = &session->wire;

        session->slow_until_us = 0;
        /* Who says nothing any more ends, since nobody should wait for him. */
        if (session->is_silent || wire->raw_bytes > wire->cut_at)
            session->is_over = true;
        wire->cut_at = wire->flip_at = SIZE_MAX;
    }
}

bool sessions_are_well(void)
{
    for (unsigned i = 0; i < session_count; i++)
        if (sessions[i]->is_over || sim_peer_is_reset(sessions[i]->wire.peer))
            return false;
    return true;
}

unsigned sessions_count(void)
{
    return session_count;
}

void sessions_explain(void)
{
    for (unsigned i = 0; i < session_count; i++) {
        const struct session *session = sessions[i];

        fprintf(stderr,
                "session %u %s/%s: replication %d, started %d, login %d, over %d, asleep %d, skips "
                "%d, copy %d of "
                "%u, status %c, batch %u, transaction %u, in %zu, out %zu, readable %zu%s%.64s\n",
                session->id, session->database, session->user, session->is_replication,
                session->is_started, session->login_step, session->is_over, session->is_asleep,
                session->skips_to_sync, session->in_copy, session->sleep_owner, session->status,
                session->batch_owner, session->transaction_owner, heap_bytes(&session->in),
                heap_bytes(&session->out), sim_peer_readable(session->wire.peer),
                heap_bytes(&session->in) > 5 ? "; has read: " : "",
                heap_bytes(&session->in) > 5
                    ? (const char *)session->in.data + session->in.begin + 5
                    : "");
    }
}

void sessions_end(void)
{
    while (session_count > 0)
        session_free(sessions[--session_count]);
}
