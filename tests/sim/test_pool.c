/* test_pool.c - one core with its clients, pools and servers between simulated clients and
 * simulated PostgreSQL servers, on a kernel in every mood.
 *
 * Each question names its client and its number; each answer names them again and is made of other
 * bytes, so that an answer that goes astray, comes twice, or comes late is seen by whoever gets it.
 * The model of PostgreSQL sees in turn whether somebody else's question enters an open transaction,
 * batch or COPY. When the faults stop, every client must come to the end of its script, and
 * everything must come home. */
#include "harness.h"
#include "ring_sim.h"
#include "sim_jobs.h"

#include "pool/cancel.h"
#include "pool/client.h"
#include "pool/core.h"
#include "pool/login.h"
#include "pool/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>

enum {
    CLIENTS_MAX = 12,
    SESSIONS_MAX = 64,
    ACTIONS_MAX = 16,
    EXPECTED_MAX = 512,
    TEXT_BYTES_MAX = 256,
    CHAOS_ROUNDS = 1500,
    DRAIN_ROUNDS_MAX = 1000000,
    IDLE_ROUNDS_MAX = 5000, /* in which the kernel completed nothing: a stall */
    SCRIPTS_AFTER_CHAOS = 2,
};

/* ---- bytes that wait to be written or to be understood ---- */

struct heap {
    uint8_t *data;
    size_t begin, end, room;
};

static void heap_put(struct heap *heap, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    if (heap->end + bytes > heap->room) {
        if (heap->begin > 0)
            memmove(heap->data, heap->data + heap->begin, heap->end - heap->begin);
        heap->end -= heap->begin;
        heap->begin = 0;
        while (heap->end + bytes > heap->room)
            heap->room = heap->room * 2 + 256;
        heap->data = realloc(heap->data, heap->room);
        assert(heap->data != NULL);
    }
    memcpy(heap->data + heap->end, data, bytes);
    heap->end += bytes;
}

static size_t heap_bytes(const struct heap *heap)
{
    return heap->end - heap->begin;
}

static void heap_free(struct heap *heap)
{
    free(heap->data);
    *heap = (struct heap){0};
}

/* A message of zero-terminated texts. */
static void put_message(struct heap *heap, char type, const void *body, size_t bytes)
{
    uint8_t header[5] = {(uint8_t)type};

    bytes_put_u32(header + 1, (uint32_t)(bytes + 4));
    heap_put(heap, header, 5);
    if (bytes > 0)
        heap_put(heap, body, bytes);
}

/* The next whole message: its type, body and length. False: not there yet. */
static bool take_message(struct heap *heap, char *type, const uint8_t **body, size_t *bytes)
{
    const uint8_t *at = heap->data + heap->begin;

    if (heap_bytes(heap) < 5)
        return false;
    *bytes = bytes_get_u32(at + 1) - 4;
    assert(*bytes < 1 << 20);
    if (heap_bytes(heap) < 5 + *bytes)
        return false;
    *type = (char)at[0];
    *body = at + 5;
    heap->begin += 5 + *bytes;
    return true;
}

/* ---- the whole ---- */

enum kind { KIND_ROWS, KIND_BEGIN, KIND_END, KIND_ERROR, KIND_SLEEP, KIND_COPY_IN, KIND_COPY_OUT };

/* What an answer must be. */
struct expected {
    char type;
    char status;   /* of Z */
    bool is_sleep; /* may be cancelled */
    bool is_copy;  /* the end of a COPY, which may fail at any row */
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
};

struct action {
    enum action_kind action;
    enum kind kind;
    unsigned arg;
    bool waits; /* until everything before it is answered */
};

/* A client of the world. */
struct user {
    struct sim_peer *peer;
    struct heap in, out;
    unsigned owner; /* a new one for each connection */
    unsigned number;
    char application_name[32];
    bool has_application_name;
    bool is_welcome;
    bool is_eager;   /* asks before it is welcome */
    bool is_fatal;   /* the connection is being ended, and was told why */
    bool is_leaving; /* sent Terminate */
    bool cancel_asked;
    bool skips; /* an error came: answers up to ReadyForQuery are left out */
    bool in_batch_error;
    unsigned copy_number;
    bool copy_is_extended, copy_has_failed; /* before we have ended it */
    char status;                            /* of the transaction, once all that was sent is done */
    uint8_t key[8];
    struct action actions[ACTIONS_MAX];
    unsigned action_first, action_count;
    struct expected expected[EXPECTED_MAX];
    unsigned expected_first, expected_count;
    unsigned scripts_left; /* in the drain */
    uint64_t reads_again_us;
};

/* A PostgreSQL backend. */
struct session {
    struct sim_peer *peer;
    struct heap in, out;
    bool is_started, is_over;
    bool is_asleep;
    bool skips_to_sync;
    bool in_copy, copy_is_extended;
    bool is_poolers; /* the query under work is the pooler's own */
    char status;
    char application_name[32];
    uint8_t key[8];
    unsigned batch_owner, transaction_owner; /* 0: none */
    char text[32768];                        /* of the unnamed statement */
    unsigned sleep_owner, sleep_number;
    bool sleep_is_extended;
    uint64_t wakes_us, slow_until_us;
};

static struct sim *sim;
static struct ring *ring;
static struct buffer_pool buffers;
static struct usage_table usage;
static struct param_names param_names;
static struct core core;
static struct mailbox mailbox;
static struct sim_jobs jobs;
static struct user users[CLIENTS_MAX];
static unsigned user_count, owner_last;
static struct session *sessions[SESSIONS_MAX];
static unsigned session_count;
static struct op accept_op;
static int listen_fd;
static struct sockaddr_in listen_address, server_address;
static bool is_chaos, users_break, servers_break, control_acts, is_reloaded, is_session_mode,
    is_statement_mode;
static unsigned key_last;
static struct sim_peer *cancel_peers[CLIENTS_MAX * 4];
static char config_text[2048];

static unsigned long long answers, transactions, cancels_hit, fatals;

static bool happens(unsigned one_of)
{
    return sim_below(sim, one_of) == 0;
}

/* ---- PostgreSQL ---- */

static void put_error(struct heap *heap, const char *severity, const char *sqlstate,
                      const char *format, ...) printf_like(4, 5);

static void put_error(struct heap *heap, const char *severity, const char *sqlstate,
                      const char *format, ...)
{
    char message[128];
    uint8_t body[256];
    struct writer writer;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    writer_init(&writer, body, sizeof(body));
    writer_put_u8(&writer, 'S');
    writer_put_string(&writer, severity);
    writer_put_u8(&writer, 'C');
    writer_put_string(&writer, sqlstate);
    writer_put_u8(&writer, 'M');
    writer_put_string(&writer, message);
    writer_put_u8(&writer, 0);
    assert(!writer.overflow);
    put_message(heap, 'E', body, writer.bytes);
}

static void put_ready(struct session *session)
{
    put_message(&session->out, 'Z', &session->status, 1);
}

static void put_complete(struct session *session, unsigned owner, unsigned number)
{
    char text[64];
    int bytes = snprintf(text, sizeof(text), "DONE %u %u", owner, number);

    put_message(&session->out, 'C', text, (size_t)bytes + 1);
}

static char filler(unsigned owner, unsigned number, unsigned row, size_t position)
{
    return (char)('a' + (owner * 7 + number * 5 + row * 3 + position) % 26);
}

/* `A owner number row name ` and filler up to the size. */
static size_t make_row(char *text, unsigned owner, unsigned number, unsigned row, const char *name,
                       unsigned bytes)
{
    size_t at =
        (size_t)snprintf(text, TEXT_BYTES_MAX, "A %u %u %u [%s] ", owner, number, row, name);

    for (; at < bytes; at++)
        text[at] = filler(owner, number, row, at);
    return at;
}

static unsigned row_count(unsigned arg)
{
    return arg % 8;
}

static unsigned row_bytes(unsigned arg)
{
    return arg / 8 % 7 == 0 ? 3000 + arg % 9000 : 40 + arg % 200;
}

static void put_rows(struct session *session, char type, unsigned owner, unsigned number,
                     unsigned arg)
{
    char text[16384];

    for (unsigned row = 0; row < row_count(arg); row++)
        put_message(&session->out, type, text,
                    make_row(text, owner, number, row, session->application_name, row_bytes(arg)));
}

/* Nobody else's work may come into what is open. */
static void check_owner(struct session *session, unsigned owner)
{
    if (session->status != 'I')
        assert(session->transaction_owner == owner);
    if (session->batch_owner != 0)
        assert(session->batch_owner == owner);
    assert(!session->in_copy);
}

static void fail_in_transaction(struct session *session)
{
    if (session->status == 'T')
        session->status = 'E';
}

/* Runs a statement of ours. False: it failed, or goes on (asleep, COPY). */
static bool run_statement(struct session *session, const char *text, bool is_extended)
{
    unsigned owner, number, kind, arg;

    assert(sscanf(text, "Q %u %u %u %u", &owner, &number, &kind, &arg) == 4);
    check_owner(session, owner);
    switch ((enum kind)kind) {
    case KIND_ROWS:
        if (!is_extended)
            put_message(&session->out, 'T', "\0\0", 2);
        put_rows(session, 'D', owner, number, arg);
        break;
    case KIND_BEGIN:
        assert(session->status == 'I');
        session->status = 'T';
        session->transaction_owner = owner;
        break;
    case KIND_END:
        session->status = 'I';
        session->transaction_owner = 0;
        break;
    case KIND_ERROR:
        put_error(&session->out, "ERROR", "42601", "FAIL %u %u", owner, number);
        fail_in_transaction(session);
        return false;
    case KIND_SLEEP:
        session->is_asleep = true;
        session->sleep_owner = owner;
        session->sleep_number = number;
        session->sleep_is_extended = is_extended;
        session->wakes_us = sim_now_us(sim) + (is_chaos ? sim_below(sim, 200000) : 10);
        return false;
    case KIND_COPY_IN:
        put_message(&session->out, 'G', "\0\0\0", 3);
        session->in_copy = true;
        session->copy_is_extended = is_extended;
        session->sleep_owner = owner;
        session->sleep_number = number;
        return false;
    case KIND_COPY_OUT:
        put_message(&session->out, 'H', "\0\0\0", 3);
        put_rows(session, 'd', owner, number, arg);
        put_message(&session->out, 'c', NULL, 0);
        break;
    }
    put_complete(session, owner, number);
    return true;
}

/* What the pooler asks for itself: SET name='value';..., DISCARD ALL, a check. */
static void run_own(struct session *session, const char *text)
{
    const char *name = strstr(text, "SET application_name='");

    assert(session->status == 'I');
    assert(session->batch_owner == 0);
    assert(!session->in_copy);
    if (text[0] == '\0') {
        put_message(&session->out, 'I', NULL, 0);
    } else {
        if (name != NULL) {
            char body[64] = "application_name";
            int bytes;

            name += strlen("SET application_name='");
            snprintf(session->application_name, sizeof(session->application_name), "%.*s",
                     (int)strcspn(name, "'"), name);
            bytes = snprintf(body + 17, sizeof(body) - 17, "%s", session->application_name);
            put_message(&session->out, 'S', body, 17 + (size_t)bytes + 1);
        }
        put_message(&session->out, 'C', "SET", 4);
    }
    put_ready(session);
}

static void end_extended_error(struct session *session)
{
    session->skips_to_sync = true;
}

static void wake(struct session *session, bool is_cancelled)
{
    session->is_asleep = false;
    if (is_cancelled) {
        put_error(&session->out, "ERROR", "57014", "FAIL %u %u", session->sleep_owner,
                  session->sleep_number);
        fail_in_transaction(session);
        if (session->sleep_is_extended)
            end_extended_error(session);
    } else {
        put_complete(session, session->sleep_owner, session->sleep_number);
    }
    if (!session->sleep_is_extended)
        put_ready(session);
}

static void put_parameter(struct session *session, const char *name, const char *value)
{
    uint8_t body[128];
    struct writer writer;

    writer_init(&writer, body, sizeof(body));
    writer_put_string(&writer, name);
    writer_put_string(&writer, value);
    put_message(&session->out, 'S', body, writer.bytes);
}

static void cancel_by_key(const uint8_t *key)
{
    for (unsigned i = 0; i < session_count; i++)
        if (sessions[i]->is_started && !sessions[i]->is_over && sessions[i]->is_asleep &&
            memcmp(sessions[i]->key, key, 8) == 0) {
            wake(sessions[i], true);
            cancels_hit++;
        }
}

static void start_session(struct session *session, const uint8_t *packet, size_t bytes)
{
    uint32_t code = bytes_get_u32(packet + 4);
    size_t at = 8;

    if (code == 80877102) {
        assert(bytes == 16);
        cancel_by_key(packet + 8);
        session->is_over = true;
        return;
    }
    assert(code == 3u << 16);
    while (at < bytes && packet[at] != 0) {
        const char *name = (const char *)packet + at;
        const char *value = name + strlen(name) + 1;

        if (strcmp(name, "application_name") == 0)
            snprintf(session->application_name, sizeof(session->application_name), "%s", value);
        at += strlen(name) + strlen(value) + 2;
    }
    if (is_chaos && servers_break && happens(10)) {
        put_error(&session->out, "FATAL", "53300", "sorry, too many clients already");
        session->is_over = true;
        return;
    }
    session->is_started = true;
    session->status = 'I';
    put_message(&session->out, 'R', "\0\0\0\0", 4);
    put_parameter(session, "server_version", "15.4");
    put_parameter(session, "client_encoding", "UTF8");
    put_parameter(session, "DateStyle", "ISO, MDY");
    put_parameter(session, "TimeZone", "UTC");
    put_parameter(session, "standard_conforming_strings", "on");
    put_parameter(session, "application_name", session->application_name);
    bytes_put_u32(session->key, ++key_last);
    bytes_put_u32(session->key + 4, (uint32_t)sim_random(sim));
    put_message(&session->out, 'K', session->key, 8);
    put_ready(session);
}

static void fail_copy(struct session *session)
{
    session->in_copy = false;
    put_error(&session->out, "ERROR", "57014", "COPY %u %u", session->sleep_owner,
              session->sleep_number);
    fail_in_transaction(session);
    if (session->copy_is_extended)
        end_extended_error(session);
    else
        put_ready(session);
}

static void session_message(struct session *session, char type, const uint8_t *body, size_t bytes)
{
    const char *text = (const char *)body;
    unsigned owner, number;

    if (session->in_copy) {
        switch (type) {
        case 'd':
            assert(sscanf(text, "DATA %u %u", &owner, &number) == 2);
            assert(owner == session->sleep_owner);
            assert(number == session->sleep_number);
            if (is_chaos && happens(20))
                fail_copy(session); /* a row that does not fit the table */
            break;
        case 'c':
            session->in_copy = false;
            put_complete(session, session->sleep_owner, session->sleep_number);
            if (!session->copy_is_extended)
                put_ready(session);
            break;
        case 'f':
            fail_copy(session);
            break;
        case 'S': /* thrown away while COPY data is read */
        case 'H':
            break;
        default:
            never("a message inside COPY");
        }
        return;
    }
    if (session->skips_to_sync && type != 'S' && type != 'X')
        return;
    switch (type) {
    case 'Q':
        assert(bytes > 0);
        assert(body[bytes - 1] == 0);
        if (strncmp(text, "Q ", 2) != 0) {
            run_own(session, text);
            break;
        }
        if (run_statement(session, text, false) || (!session->is_asleep && !session->in_copy))
            put_ready(session);
        break;
    case 'P':
        assert(text[0] == 0);
        text++;
        assert(sscanf(text, "Q %u %u", &owner, &number) == 2);
        check_owner(session, owner);
        session->batch_owner = owner;
        snprintf(session->text, sizeof(session->text), "%s", text);
        put_message(&session->out, '1', NULL, 0);
        break;
    case 'B':
        assert(sscanf(text, "p%u", &owner) == 1);
        check_owner(session, owner);
        session->batch_owner = owner;
        put_message(&session->out, '2', NULL, 0);
        break;
    case 'D':
        assert(sscanf(text, "Pp%u", &owner) == 1);
        check_owner(session, owner);
        put_message(&session->out, 'n', NULL, 0);
        break;
    case 'E':
        assert(sscanf(text, "p%u", &owner) == 1);
        check_owner(session, owner);
        if (!run_statement(session, session->text, true) && !session->is_asleep &&
            !session->in_copy)
            end_extended_error(session);
        break;
    case 'S':
        session->skips_to_sync = false;
        session->batch_owner = 0;
        put_ready(session);
        break;
    case 'H':
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
    if (session->peer != NULL)
        sim_peer_close(session->peer);
    heap_free(&session->in);
    heap_free(&session->out);
    free(session);
}

/* False: it has ended. */
static bool session_step(struct session *session)
{
    static const char notice[] = "SNOTICE\0Mhello from a backend\0";
    uint8_t chunk[4096];
    size_t bytes;
    char type;
    const uint8_t *body;
    uint64_t now_us = sim_now_us(sim);

    if (is_chaos && session->slow_until_us > now_us)
        return true;
    if (is_chaos && servers_break) {
        switch (sim_below(sim, 2000)) {
        case 0:
            sim_peer_reset(session->peer);
            break;
        case 1:
            return false;
        case 2:
            if (session->is_started) {
                put_error(&session->out, "FATAL", "57P01", "terminating connection");
                session->is_over = true;
            }
            break;
        case 3:
            session->slow_until_us = now_us + sim_below(sim, 20 * US_PER_S);
            break;
        default:
            break;
        }
    }
    /* What a backend may say at any time: a reload, a NOTICE. */
    if (is_chaos && session->is_started && !session->is_over && !session->is_asleep &&
        happens(300)) {
        if (happens(2))
            put_parameter(session, "IntervalStyle", "postgres");
        else
            put_message(&session->out, 'N', notice, sizeof(notice));
    }
    bytes = sim_peer_read(session->peer, chunk, 1 + sim_below(sim, sizeof(chunk)));
    if (!session->is_over)
        heap_put(&session->in, chunk, bytes);
    if (!session->is_over && session->is_asleep && session->wakes_us <= now_us)
        wake(session, false);
    while (!session->is_over && !session->is_asleep) {
        if (!session->is_started) {
            const uint8_t *packet = session->in.data + session->in.begin;

            if (heap_bytes(&session->in) < 8 || heap_bytes(&session->in) < bytes_get_u32(packet))
                break;
            bytes = bytes_get_u32(packet);
            session->in.begin += bytes;
            start_session(session, packet, bytes);
        } else if (take_message(&session->in, &type, &body, &bytes)) {
            session_message(session, type, body, bytes);
        } else {
            break;
        }
        if (is_chaos && happens(4))
            break;
    }
    session->out.begin += sim_peer_write(session->peer, session->out.data + session->out.begin,
                                         heap_bytes(&session->out));
    if (session->is_over && heap_bytes(&session->out) == 0)
        return false;
    return !sim_peer_is_at_end(session->peer);
}

static void session_begins(void *context, struct sim_peer *peer)
{
    struct session *session = calloc(1, sizeof(*session));

    (void)context;
    assert(session != NULL);
    assert(session_count < SESSIONS_MAX);
    session->peer = peer;
    if (is_chaos && servers_break && happens(8))
        session->slow_until_us = sim_now_us(sim) + sim_below(sim, US_PER_S);
    sessions[session_count++] = session;
}

static void sessions_step(void)
{
    for (unsigned i = 0; i < session_count;) {
        if (session_step(sessions[i])) {
            i++;
            continue;
        }
        session_free(sessions[i]);
        sessions[i] = sessions[--session_count];
    }
}

/* ---- clients ---- */

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
        return;
    case KIND_COPY_IN:
        expect(user, 'G', number);
        user->copy_number = number;
        user->copy_is_extended = is_extended;
        user->copy_has_failed = false;
        return;
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
    char text[8192];
    size_t bytes;
    bool is_copy_extended = action->arg & 1;

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
        if (action->kind == KIND_COPY_IN)
            break; /* swallowed by COPY */
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
        if (!is_copy_extended)
            expect_ready(user);
        break;
    case DO_COPY_FAIL:
        put_message(&user->out, 'f', "no", 3);
        if (user->copy_has_failed)
            break;
        expect(user, 'E', user->copy_number);
        if (user->status == 'T')
            user->status = 'E';
        user->in_batch_error = is_copy_extended;
        if (!is_copy_extended)
            expect_ready(user);
        break;
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

static void plan_script(struct user *user)
{
    unsigned arg = (unsigned)sim_below(sim, 100000);
    bool waits = sim_below(sim, 2) == 0;
    unsigned copies;

    user->action_first = 0;
    user->action_count = 0;
    switch (sim_below(sim, 13)) {
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
    case 5:
        plan(user, DO_PARSE, KIND_ROWS, arg, false);
        plan(user, DO_FLUSH, KIND_ROWS, 0, false);
        plan(user, DO_PARSE, KIND_ROWS, arg / 3, true);
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
    case 8: {
        bool is_extended = sim_below(sim, 2) == 0;
        /* A client that knows what it asks for need not wait for CopyInResponse. */
        bool asks = sim_below(sim, 2) == 0;

        plan(user, is_extended ? DO_PARSE : DO_QUERY, KIND_COPY_IN, arg, waits);
        if (is_extended && sim_below(sim, 3) != 0)
            plan(user, DO_SYNC, KIND_COPY_IN, 0, false); /* as libpq's PQexecParams does */
        copies = (unsigned)sim_below(sim, 5);
        for (unsigned i = 0; i < copies; i++)
            plan(user, DO_COPY_DATA, KIND_COPY_IN, (unsigned)sim_below(sim, 3000), asks && i == 0);
        plan(user, sim_below(sim, 3) == 0 ? DO_COPY_FAIL : DO_COPY_DONE, KIND_COPY_IN, is_extended,
             asks);
        if (is_extended)
            plan(user, DO_SYNC, KIND_ROWS, 0, false);
        if (!waits)
            plan(user, DO_QUERY, KIND_ROWS, arg, false);
        break;
    }
    case 11: {
        /* A COPY that fails before it reads: what was sent for it is thrown away. */
        bool is_extended = sim_below(sim, 2) == 0;

        plan(user, is_extended ? DO_PARSE : DO_QUERY, KIND_ERROR, arg, waits);
        if (is_extended && sim_below(sim, 2) == 0)
            plan(user, DO_SYNC, KIND_ROWS, 0, false);
        plan(user, DO_COPY_DATA, KIND_COPY_IN, (unsigned)sim_below(sim, 3000), false);
        plan(user, DO_COPY_DONE, KIND_ERROR, 0, false);
        if (is_extended)
            plan(user, DO_SYNC, KIND_ROWS, 0, false);
        if (sim_below(sim, 2) == 0)
            plan(user, DO_QUERY, KIND_ROWS, arg, false);
        break;
    }
    case 9:
        plan(user, DO_QUERY, KIND_COPY_OUT, arg, waits);
        plan(user, DO_QUERY, KIND_ROWS, arg / 2, false);
        break;
    case 10:
        plan(user, DO_QUERY, KIND_SLEEP, arg, true);
        plan(user, DO_QUERY, KIND_ROWS, arg / 2, true);
        break;
    default:
        /* More than is parked for a server: large questions and large answers. */
        for (unsigned i = 0; i < 14; i++)
            plan(user, DO_QUERY, KIND_ROWS, 5995, false);
        break;
    }
}

static void user_connects(struct user *user)
{
    uint8_t packet[256];
    struct writer writer;
    size_t begin;
    unsigned scripts_left = user->scripts_left;

    heap_free(&user->in);
    heap_free(&user->out);
    memset(user, 0, sizeof(*user));
    user->scripts_left = scripts_left;
    user->owner = ++owner_last;
    user->status = 'I';
    user->is_eager = happens(4);
    user->peer = sim_connect(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));
    assert(user->peer != NULL);
    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3u << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, "bob");
    writer_put_string(&writer, "database");
    writer_put_string(&writer, "shop");
    if (!happens(3)) {
        user->has_application_name = true;
        snprintf(user->application_name, sizeof(user->application_name), "app%u",
                 (unsigned)sim_below(sim, 3));
        writer_put_string(&writer, "application_name");
        writer_put_string(&writer, user->application_name);
    }
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    assert(!writer.overflow);
    heap_put(&user->out, packet, writer.bytes);
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
        fatals++;
        return;
    }
    assert(sscanf(fields.message, "%7s %u %u", word, &owner, &number) == 3);
    assert(owner == user->owner);
    if (expected == NULL && strcmp(word, "COPY") == 0) {
        assert(number == user->copy_number);
        user->copy_has_failed = true;
        user->in_batch_error = user->copy_is_extended;
        if (!user->copy_is_extended)
            expect_ready(user);
        return;
    }
    assert(expected != NULL);
    assert(number == expected->number);
    if (expected->type == 'E' || (expected->is_copy && strcmp(word, "COPY") == 0))
        return;
    assert(expected->is_sleep);
    assert(user->cancel_asked);
    assert(strcmp(fields.sqlstate, "57014") == 0);
}

static void user_message(struct user *user, char type, const uint8_t *body, size_t bytes)
{
    const struct expected *expected =
        user->expected_count > 0 ? &user->expected[user->expected_first] : NULL;
    const char *text = (const char *)body;
    unsigned owner, number;

    if (user->is_fatal) {
        assert(type == 'E');
        return;
    }
    if (!user->is_welcome) {
        assert(strchr("RSKZEN", type) != NULL);
        if (type == 'K')
            memcpy(user->key, body, 8);
        else if (type == 'E')
            user_error(user, body, bytes, NULL);
        else if (type == 'Z')
            user->is_welcome = true;
        return;
    }
    if (type == 'N' || type == 'S')
        return;
    if (type == 'E') {
        user_error(user, body, bytes, expected);
        if (user->is_fatal || expected == NULL)
            return;
    } else {
        char row[16384];

        answers++;
        assert(expected != NULL);
        assert(type == expected->type);
        switch (type) {
        case 'Z':
            assert(bytes == 1);
            assert(body[0] == expected->status);
            transactions += body[0] == 'I';
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

    for (unsigned i = 0; i < COUNT_OF(cancel_peers); i++) {
        if (cancel_peers[i] != NULL)
            continue;
        cancel_peers[i] =
            sim_connect(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));
        assert(cancel_peers[i] != NULL);
        writer_init(&writer, packet, sizeof(packet));
        message_cancel_request(&writer, user->key);
        if (sim_peer_write(cancel_peers[i], packet, sizeof(packet)) == sizeof(packet))
            user->cancel_asked = true;
        return;
    }
}

static void cancel_peers_step(void)
{
    uint8_t chunk[64];

    for (unsigned i = 0; i < COUNT_OF(cancel_peers); i++) {
        if (cancel_peers[i] == NULL)
            continue;
        (void)sim_peer_read(cancel_peers[i], chunk, sizeof(chunk));
        if (sim_peer_is_at_end(cancel_peers[i]) || !is_chaos || happens(5000)) {
            sim_peer_close(cancel_peers[i]);
            cancel_peers[i] = NULL;
        }
    }
}

static void user_ends(struct user *user)
{
    sim_peer_close(user->peer);
    user->peer = NULL;
}

static void user_step(struct user *user)
{
    uint8_t chunk[4096];
    size_t bytes;
    char type;
    const uint8_t *body;

    if (user->peer == NULL) {
        if (is_chaos ? happens(50) : user->scripts_left > 0)
            user_connects(user);
        return;
    }
    if (is_chaos && happens(3))
        return;
    if (is_chaos && happens(500))
        user->reads_again_us = sim_now_us(sim) + sim_below(sim, 100000);
    if (is_chaos && users_break) {
        switch (sim_below(sim, 1500)) {
        case 0:
            sim_peer_reset(user->peer);
            break;
        case 1:
            user_ends(user);
            return;
        case 2:
            sim_peer_shutdown(user->peer);
            user->is_leaving = true;
            break;
        default:
            break;
        }
    }
    if (!is_chaos || user->reads_again_us <= sim_now_us(sim)) {
        bytes = sim_peer_read(user->peer, chunk, 1 + sim_below(sim, sizeof(chunk)));
        heap_put(&user->in, chunk, bytes);
        while (take_message(&user->in, &type, &body, &bytes))
            user_message(user, type, body, bytes);
    }
    if (sim_peer_is_at_end(user->peer)) {
        /* Every end has a cause: it was asked for, it was said, a message was cut off, or bytes
         * were lost. */
        assert(user->is_fatal || user->is_leaving || heap_bytes(&user->in) > 0 ||
               sim_peer_is_reset(user->peer));
        user_ends(user);
        return;
    }
    if ((user->is_welcome || user->is_eager) && !user->is_leaving && !user->is_fatal) {
        if (user->action_first == user->action_count && heap_bytes(&user->out) == 0 &&
            user->expected_count < 100 && (user->expected_count == 0 || happens(4))) {
            if (!is_chaos && user->expected_count == 0) {
                if (user->scripts_left > 0)
                    user->scripts_left--;
                if (user->scripts_left == 0) {
                    put_message(&user->out, 'X', NULL, 0);
                    user->is_leaving = true;
                }
            } else if (is_chaos && users_break && happens(200)) {
                put_message(&user->out, 'X', NULL, 0);
                user->is_leaving = true;
            }
            if (!user->is_leaving)
                plan_script(user);
        }
        while (user->action_first < user->action_count &&
               (!user->actions[user->action_first].waits || user->expected_count == 0)) {
            act(user, &user->actions[user->action_first++]);
            if (is_chaos && happens(3))
                break;
        }
        if (is_chaos && user->is_welcome && user->expected_count > 0 &&
            user->expected[user->expected_first].is_sleep && happens(20))
            user_asks_cancel(user);
    }
    user->out.begin +=
        sim_peer_write(user->peer, user->out.data + user->out.begin, heap_bytes(&user->out));
}

/* ---- the core ---- */

static void post_core(struct core *from, unsigned index, struct letter *letter)
{
    (void)from;
    assert(index == 0);
    (void)mailbox_post(&mailbox, letter);
}

/* Control gets the cancel requests whose key nobody has: it hangs up. */
static void console_opens(struct letter *letter, void *context)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);

    (void)context;
    assert(handover->kind == HANDOVER_CANCEL);
    usage_give(&usage.client_count);
    ring_close(ring, handover->fd);
    handover->letter.open = handover_returned;
    (void)mailbox_post(&mailbox, &handover->letter);
}

static void post_control(struct core *from, struct letter *letter)
{
    (void)from;
    letter->open(letter, NULL);
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
    .console_open = console_opens,
};

static void accepted(struct op *op, const struct completion *completion)
{
    if (completion->result >= 0)
        core_accept(&core, completion->result);
    if (!completion->more && (completion->result != -ECANCELED || is_chaos))
        ring_accept(ring, op, listen_fd);
}

static void explain(void);

/* What must hold between two turns. */
static void check_core(void)
{
    list_for_each(link, &core.pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);
        const struct pool_settings *limits = &pool->settings;
        unsigned servers_max = (unsigned)(limits->pool_size + limits->reserve_pool_size);

        /* A limit that a RELOAD has lowered is reached later. */
        if (limits->pool_size > 0 && !is_reloaded)
            assert(pool->server_count <= servers_max);
        if (limits->max_db_connections > 0 && !is_reloaded)
            assert(usage_count(&pool->database_usage->server_count) <= limits->max_db_connections);
        assert(usage_count(&pool->database_usage->server_count) == (int)pool->server_count);
        /* Nobody waits while a server idles: but as many as are being tested may, who get those. */
        if (!pool_is_stopped(pool) && pool->waiting_count > pool->tested_count &&
            pool->idle_count > 0)
            explain();
        if (!pool_is_stopped(pool))
            assert(pool->waiting_count <= pool->tested_count || pool->idle_count == 0);
    }
    for (uint32_t index = 0; index < core.clients.touched_count; index++) {
        const struct client *client = slab_at(&core.clients, index);

        if (client->state == CLIENT_ACTIVE || client->state == CLIENT_PREPARING)
            assert(client->server->client == client);
    }
}

static struct snapshot *make_snapshot(void);

/* What the console may order. */
static void control_orders(void)
{
    const char *database = happens(2) ? "shop" : NULL;

    switch (sim_below(sim, 8)) {
    case 0:
        core_pause(&core, database);
        break;
    case 1:
    case 2:
    case 3:
        core_resume(&core, database);
        break;
    case 4:
    case 5:
        core_reconnect(&core, database);
        break;
    case 6:
        (void)!core_kill_client(&core, core.id_last - sim_below(sim, 20));
        break;
    default:
        is_reloaded = true;
        core_set_snapshot(&core, make_snapshot());
        break;
    }
}

static void turn(void)
{
    uint64_t deadline_us = core_next_us(&core);
    bool is_ordered = is_chaos && control_acts && happens(150);

    if (atomic_load(&mailbox.last) != NULL || is_ordered)
        deadline_us = 0;
    if (!sim_would_return(ring, deadline_us))
        return;
    (void)ring_turn(ring, deadline_us);
    core.loop.now_us = sim_now_us(sim);
    (void)mailbox_open_all(&mailbox, &core);
    if (is_ordered)
        control_orders();
    timers_run(&core.timers, core.loop.now_us);
    core_end_turn(&core);
    check_core();
}

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    char *text =
        arena_copy_string(arena, strcmp(path, "users.txt") == 0 ? "\"bob\" \"\"\n" : config_text);

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

static const char *pick(const char *one, const char *other)
{
    return sim_below(sim, 3) == 0 ? one : other;
}

static struct snapshot *make_snapshot(void)
{
    static const char *const modes[] = {"transaction", "transaction", "transaction", "session",
                                        "statement"};
    const char *mode = modes[sim_below(sim, COUNT_OF(modes))];
    struct snapshot *snapshot;

    is_session_mode = strcmp(mode, "session") == 0;
    is_statement_mode = strcmp(mode, "statement") == 0;
    snprintf(config_text, sizeof(config_text),
             "[databases]\n"
             "shop = host=127.0.0.1 port=5432 pool_size=%u reserve_pool_size=%u%s\n"
             "[pgbouncer]\n"
             "auth_type = trust\n"
             "auth_file = users.txt\n"
             "listen_port = 6432\n"
             "pool_mode = %s\n"
             "server_lifetime = %s\n"
             "server_idle_timeout = %s\n"
             "server_check_delay = %s\n"
             "server_reset_query_always = %s\n"
             "server_round_robin = %s\n"
             "server_login_retry = %s\n"
             "query_wait_timeout = %s\n"
             "query_timeout = %s\n"
             "max_db_connections = %s\n"
             "cancel_wait_timeout = %s\n",
             1 + (unsigned)sim_below(sim, 5), (unsigned)sim_below(sim, 3),
             pick(" connect_query='select 1'", ""), mode, pick("0.05", "3600"), pick("0.05", "600"),
             pick("0", "30"), pick("1", "0"), pick("1", "0"), pick("0.1", "15"), pick("0.5", "120"),
             pick("0.3", "0"), pick("2", "0"), pick("0.05", "10"));
    snapshot = snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, say, NULL);
    assert(snapshot != NULL);
    return snapshot;
}

static bool all_is_done(void)
{
    for (unsigned i = 0; i < user_count; i++)
        if (users[i].peer != NULL || users[i].scripts_left > 0)
            return false;
    for (unsigned i = 0; i < COUNT_OF(cancel_peers); i++)
        if (cancel_peers[i] != NULL)
            return false;
    return core.clients.used_count == 0;
}

static void jump(void)
{
    uint64_t next_us = MIN(MIN(core_next_us(&core), sim_next_us(sim)), sim_jobs_next_us(&jobs));

    if (!sim_has_work(sim) && next_us != UINT64_MAX && next_us > sim_now_us(sim))
        sim_advance(sim, MIN(next_us - sim_now_us(sim), US_PER_S));
}

static void world_step(void)
{
    for (unsigned i = 0; i < user_count; i++)
        user_step(&users[i]);
    cancel_peers_step();
    sessions_step();
    sim_jobs_step(&jobs);
}

static void explain(void)
{
    for (unsigned i = 0; i < user_count; i++) {
        const struct user *user = &users[i];

        if (user->peer != NULL || user->scripts_left > 0)
            fprintf(stderr,
                    "client %u (owner %u): connected %d, welcome %d, expects %u (next %c of %u), "
                    "actions %u/%u, "
                    "scripts left %u, out %zu\n",
                    i, user->owner, user->peer != NULL, user->is_welcome, user->expected_count,
                    user->expected_count > 0 ? user->expected[user->expected_first].type : '-',
                    user->expected_count > 0 ? user->expected[user->expected_first].number : 0,
                    user->action_first, user->action_count, user->scripts_left,
                    heap_bytes(&user->out));
    }
    list_for_each(link, &core.pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);

        fprintf(stderr, "pool: %u servers, %u idle, %u login, %u tested; %u waiting, %u welcome\n",
                pool->server_count, pool->idle_count, pool->login_count, pool->tested_count,
                pool->waiting_count, pool->welcome_count);
    }
    for (unsigned i = 0; i < session_count; i++) {
        const struct session *session = sessions[i];

        if (heap_bytes(&session->in) > 0)
            fprintf(stderr, "session %u has read: %.64s\n", i,
                    (const char *)session->in.data + session->in.begin + 5);
        fprintf(stderr,
                "session %u: started %d, over %d, asleep %d, skips %d, copy %d of %u, status %c, "
                "batch %u, "
                "transaction %u, in %zu, out %zu, readable %zu\n",
                i, session->is_started, session->is_over, session->is_asleep,
                session->skips_to_sync, session->in_copy, session->sleep_owner, session->status,
                session->batch_owner, session->transaction_owner, heap_bytes(&session->in),
                heap_bytes(&session->out), sim_peer_readable(session->peer));
    }
    for (uint32_t index = 0; index < core.servers.touched_count; index++) {
        const struct server *server = slab_at(&core.servers, index);

        if (server->state != SERVER_FREE && server->state < SERVER_STATES)
            fprintf(stderr,
                    "server %u: state %d, status %c, client %d, runs %u (kind %u x %u), copy in "
                    "%d, queued %u, "
                    "receive %d, wanted %d, body left %u\n",
                    index, server->state, server->status, server->client != NULL,
                    server->exchange.run_count, server->exchange.runs[0].kind,
                    server->exchange.runs[0].count, server->exchange.in_copy_in,
                    server->conn.out.bytes, server->conn.receive_op.started,
                    server->conn.receive_wanted, server->frame.body_left);
    }
    fprintf(stderr, "sessions %u, clients %u, conns %llu\n%s", session_count,
            core.clients.used_count, (unsigned long long)core.loop.conn_count, config_text);
}

static uint64_t run(uint64_t seed)
{
    static char storage[256];
    static const uint8_t mock_key[32] = {1};
    char error[RING_ERROR_BYTES];
    struct sim_faults faults;
    struct ring_options options;
    struct core_options core_options;
    uint64_t round_us, trace, last_trace = 0;
    unsigned round, idle_rounds = 0;

    log_set_sink(getenv("SIM_LOG") != NULL ? NULL : no_log);
    sim = sim_create(seed);
    sim_draw_faults(sim, &faults);
    if (happens(2))
        faults.reset = 0;
    sim_set_faults(sim, &faults);
    sim_set_pipe_bytes(sim, 128u << sim_below(sim, 10));
    round_us = happens(4) ? 50000 : 300;
    users_break = happens(2);
    servers_break = happens(2);
    control_acts = happens(2);
    is_reloaded = false;
    owner_last = key_last = 0;
    memset(users, 0, sizeof(users));
    session_count = 0;
    user_count = 1 + (unsigned)sim_below(sim, CLIENTS_MAX);
    assert(buffer_pool_init(&buffers, 256u << sim_below(sim, 6), 16u << sim_below(sim, 4)));
    options = (struct ring_options){
        .entries = 1u << sim_below(sim, 8), .completion_entries = 64, .buffers = &buffers};
    ring = ring_create(&options, error);
    assert(ring != NULL);
    assert(usage_table_init(&usage));
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    mailbox_init(&mailbox);
    jobs = (struct sim_jobs){
        .sim = sim,
        .mailbox = &mailbox,
        .refused_per_mille = 100,
        .delay_us_max = 5000,
        .count_max = SIM_JOBS_MAX,
    };
    core_options = (struct core_options){
        .count = 1,
        .client_count_max = 200,
        .ring = ring,
        .buffers = &buffers,
        .usage = &usage,
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

    is_chaos = true;
    accept_op = (struct op){.done = accepted};
    ring_accept(ring, &accept_op, listen_fd);
    for (round = 0; round < CHAOS_ROUNDS; round++) {
        world_step();
        turn();
        sim_advance(sim, sim_below(sim, round_us));
    }

    sim_set_faults(sim, &(struct sim_faults){0});
    is_chaos = false;
    core_resume(&core, NULL);
    core_resume(&core, "shop");
    for (unsigned i = 0; i < user_count; i++)
        users[i].scripts_left = SCRIPTS_AFTER_CHAOS;
    for (round = 0; !all_is_done() && round < DRAIN_ROUNDS_MAX && idle_rounds < IDLE_ROUNDS_MAX;
         round++) {
        world_step();
        turn();
        sim_advance(sim, 20);
        jump();
        idle_rounds = sim_trace(sim) == last_trace ? idle_rounds + 1 : 0;
        last_trace = sim_trace(sim);
    }
    if (!all_is_done())
        explain();
    assert(all_is_done());

    /* The end of everything. */
    ring_cancel(ring, &accept_op);
    core_kill(&core, NULL);
    for (round = 0; (core.loop.conn_count > 0 || accept_op.started) && round < DRAIN_ROUNDS_MAX;
         round++) {
        world_step();
        turn();
        sim_advance(sim, 1000);
        jump();
    }
    if (core.loop.conn_count > 0)
        explain();
    assert(core.loop.conn_count == 0);
    while (session_count > 0)
        session_free(sessions[--session_count]);
    ring_close(ring, listen_fd);
    (void)ring_turn(ring, 0);
    assert(core.clients.used_count == 0);
    assert(core.logins.used_count == 0);
    assert(core.servers.used_count == 0);
    assert(core.server_logins.used_count == 0);
    assert(core.cancels.used_count == 0);
    assert(core.resolutions.used_count == 0);
    assert(core.loop.spans.used_count == 0);
    assert(list_is_empty(&core.login_list));
    assert(list_is_empty(&core.cancel_list));
    assert(usage_count(&usage.client_count) == 0);
    assert(buffers.receive_used == 0);
    assert(sim_started_ops(sim) == 0);
    assert(sim_open_fds(sim) == 0);
    snapshot_release(core.snapshot);
    core_release(&core);
    assert(buffers.parked_bytes == 0);
    sim_note(sim, answers);
    trace = sim_trace(sim);
    if (getenv("SIM_VERBOSE") != NULL)
        printf("answers %llu, transactions %llu, cancels that hit %llu, FATAL %llu\n", answers,
               transactions, cancels_hit, fatals);
    answers = transactions = cancels_hit = fatals = 0;
    for (unsigned i = 0; i < user_count; i++) {
        heap_free(&users[i].in);
        heap_free(&users[i].out);
    }
    ring_destroy(ring);
    buffer_pool_release(&buffers);
    usage_table_release(&usage);
    sim_destroy(sim);
    return trace;
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, run, 300);
}
