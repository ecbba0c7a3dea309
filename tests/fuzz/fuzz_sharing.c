/* fuzz_sharing.c - clients that share servers (pool/sharing.h): four of them and two servers on one core, on the simulated
 * kernel (tests/sim/ring_sim.c).
 *
 * The input is a program. Two bytes of settings (see variant_text, configure), then orders of one letter with their
 * arguments; other bytes are skipped, a letter or digit as an argument is a small number. So the corpus can be read
 * and written by hand. What a client says waits until it is sent:
 *
 *   1 2 3 4      the client that the orders below are for
 *   qn           Query of text n (`texts`)
 *   xn Xn        Parse, Bind, Describe, Execute, Sync of the unnamed statement of text n; X: without Describe
 *   bs           the same of statement s, without Parse
 *   Psn Bs Ds Cs Parse of text n, Bind, Describe, Close of statement s
 *   d E S H T    Describe and Execute of the unnamed portal, Sync, Flush, Terminate
 *   Mtn.. Rn..   a message of any type with n bytes of body from the input; n bytes as they are
 *   ln           the length of the last message is another one
 *   . ,n         what was said is sent, all or n bytes of it
 *   ? # %        the client stops reading, or reads again; leaves, and comes again; the same with a reset
 *   k            it asks for its query to be canceled
 *   *sn >sn      server s does what n messages say; n bytes of its answers are sent, 0: all
 *   ^s ts        server s ends; is terminated, and says so
 *   !n ~n        the nth cancel request under way does its work; ends without
 *   os ns        server s forgets what it has prepared; says a notice
 *   vs           server s changes a parameter by itself
 *   $stn.. @sn.. server s says a message of any type, or n bytes as they are
 *   esn          server s says an error of kind n (`errors`) that nobody asked for
 *   s            the schema changes: rows have another type
 *   = - +        a turn of the pooler; it runs until nothing moves; so does everything
 *   wn           time passes
 *   p r c Ln     PAUSE, RESUME, RECONNECT, RELOAD of other settings
 *
 * A server answers like PostgreSQL, in a few lines. Each question carries a tag that names its client, and so does its
 * answer: no client ever gets another one's, none twice, none out of order. This holds for all servers but those that have
 * said what was not theirs to say. The same few lines also answer each client directly, as if it had a server of its own (its
 * reference): as long as all servers are honest it must get just that, byte by byte but for errors, of which SQLSTATE
 * and text count. Where that is not promised the comparison ends (`deviates`). When all is closed nothing is left.
 *
 * FUZZ_TRACE=1 shows who says what. */
#include "../sim/ring_sim.h"

#include "pool/client.h"
#include "pool/core.h"
#include "pool/handover.h"
#include "pool/server.h"
#include "pool/sharing.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum {
    PERSONS = 4,
    BACKENDS = 16,
    CANCELS_MAX = 8,
    VARIANTS = 32,
    KNOWN_MAX = 64,
    PIPE_BYTES = 32 * 1024,
    RECEIVE_BYTES =
        2 * 1024, /* so that a big answer is more than a client who does not read may have */
    RECEIVE_COUNT = 256,
    ROUNDS_MAX = 20000,
    TAG_BYTES = 12, /* @1:023:0456 and a `;` */
    VALUE_BYTES = 64,
    NAME_BYTES = 64,
    BIG_ROWS = 20,
    BIG_ROW_BYTES = 5000,
};

static bool is_traced;

#define trace(...) (is_traced ? (void)fprintf(stderr, __VA_ARGS__) : (void)0)

_Noreturn static void never(const char *why)
{
    fprintf(stderr, "fuzz_sharing: %s\n", why);
    abort();
}

/* ---- bytes on their way ---- */

struct stream {
    uint8_t *data;
    size_t from, to, room;
};

static void stream_put(struct stream *stream, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    if (stream->to + bytes > stream->room) {
        if (stream->data != NULL)
            memmove(stream->data, stream->data + stream->from, stream->to - stream->from);
        stream->to -= stream->from;
        stream->from = 0;
        if (stream->to + bytes > stream->room) {
            stream->room = 2 * (stream->to + bytes) + 4096;
            stream->data = realloc(stream->data, stream->room);
            assert(stream->data != NULL);
        }
    }
    memcpy(stream->data + stream->to, data, bytes);
    stream->to += bytes;
}

static size_t stream_bytes(const struct stream *stream)
{
    return stream->to - stream->from;
}

static const uint8_t *stream_at(const struct stream *stream)
{
    return stream->data + stream->from;
}

static void stream_clear(struct stream *stream)
{
    stream->from = stream->to = 0;
}

/* Bytes of the first whole message; 0: it is not there yet. */
static size_t stream_message(const struct stream *stream, bool has_type)
{
    size_t bytes;

    if (stream_bytes(stream) < 4 + (size_t)has_type)
        return 0;
    bytes = (size_t)bytes_get_u32(stream_at(stream) + has_type) + has_type;
    return bytes <= stream_bytes(stream) ? MAX(bytes, 4 + (size_t)has_type) : 0;
}

static void put_message(struct stream *stream, uint8_t type, const void *body, size_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES] = {type};

    bytes_put_u32(header + 1, (uint32_t)(4 + bytes));
    stream_put(stream, header, sizeof(header));
    stream_put(stream, body, bytes);
}

static bool stream_read(struct stream *stream, struct sim_peer *peer)
{
    uint8_t chunk[8192];
    size_t bytes = sim_peer_read(peer, chunk, sizeof(chunk));

    stream_put(stream, chunk, bytes);
    return bytes > 0;
}

static bool stream_write(struct stream *stream, struct sim_peer *peer, size_t limit)
{
    size_t bytes = MIN(stream_bytes(stream), limit);

    if (bytes == 0)
        return false;
    bytes = sim_peer_write(peer, stream_at(stream), bytes);
    stream->from += bytes;
    return bytes > 0;
}

/* ---- PostgreSQL, in a few lines ---- */

enum plan_kind {
    PLAN_ROWS,
    PLAN_NONE, /* no row */
    PLAN_BIG,
    PLAN_NOTICE,  /* says one first */
    PLAN_DIVIDES, /* fails when it is run, with rows described */
    PLAN_BROKEN,  /* cannot be parsed */
    PLAN_DIES,    /* the backend crashes */
    PLAN_INSERT,
    PLAN_EMPTY,
    PLAN_BEGIN,
    PLAN_COMMIT,
    PLAN_SET,
    PLAN_COPY, /* to stdout */
};

struct plan {
    uint8_t kind;
    bool has_parameter;
    char tag[TAG_BYTES + 1]; /* of its text */
    char style;              /* SET */
};

struct known {
    char name[NAME_BYTES];
    struct plan plan;
    unsigned version; /* of the schema */
};

struct backend {
    bool is_reference, is_logged_in;
    bool is_cancel;  /* a request: target */
    bool is_foreign; /* has said what was not its to say: what comes from now on has no tags */
    bool is_hit;     /* by a cancel request, in what it does */
    bool skips, in_batch, has_died, has_skipped_parse;
    bool has_unnamed, has_portal, portal_is_done;
    char status, style;
    uint32_t pid, target;
    unsigned known_count;
    struct sim_peer *peer;
    struct stream in, out;
    struct known unnamed, known[KNOWN_MAX];
    struct plan portal;
    unsigned portal_version;
    char portal_tag[TAG_BYTES + 1];
};

static struct backend backends[BACKENDS];
/* Of this input: a server has said what PostgreSQL would not; some have ended; what was dropped behind the pooler's
 * back; time went by; names are not tracked. */
static bool is_foreign, servers_end, is_meddled, time_passed, is_untracked;
/* Servers ended without a word, or nothing shares: the end of one may be noticed. */
static bool is_noticed;
static bool params_change; /* of a server's own accord */
static unsigned schema_version;
static uint32_t last_pid;

static void find_tag(const void *data, size_t bytes, char tag[TAG_BYTES + 1])
{
    const uint8_t *at = bytes > 0 ? memchr(data, '@', bytes) : NULL;

    tag[0] = '\0';
    if (at == NULL || (size_t)((const uint8_t *)data + bytes - at) < TAG_BYTES)
        return;
    memcpy(tag, at, TAG_BYTES);
    tag[TAG_BYTES] = '\0';
}

static bool has_word(const char *text, const char *word)
{
    return strcasestr(text, word) != NULL;
}

static void plan_read(struct plan *plan, const uint8_t *data, size_t bytes)
{
    char text[160];

    snprintf(text, sizeof(text), "%.*s", (int)MIN(bytes, sizeof(text) - 1), (const char *)data);
    *plan = (struct plan){.has_parameter = has_word(text, "$1")};
    find_tag(data, bytes, plan->tag);
    if (text[0] == '\0') {
        plan->kind = PLAN_EMPTY;
    } else if (strncasecmp(text, "set", 3) == 0) {
        const char *name = strcasestr(text, "DateStyle");
        const char *quote = name != NULL ? strchr(name, '\'') : NULL;

        plan->kind = PLAN_SET;
        plan->style = quote != NULL ? quote[1] : '\0';
    } else {
        static const struct {
            const char *word;
            uint8_t kind;
        } words[] = {{"broken", PLAN_BROKEN}, {"1/0", PLAN_DIVIDES},   {"big", PLAN_BIG},
                     {"notice", PLAN_NOTICE}, {"none", PLAN_NONE},     {"dies", PLAN_DIES},
                     {"begin", PLAN_BEGIN},   {"commit", PLAN_COMMIT}, {"insert", PLAN_INSERT},
                     {"copy", PLAN_COPY}};

        for (unsigned i = 0; i < COUNT_OF(words) && plan->kind == PLAN_ROWS; i++)
            if (has_word(text, words[i].word))
                plan->kind = words[i].kind;
    }
}

static bool plan_has_rows(const struct plan *plan)
{
    return plan->kind <= PLAN_DIVIDES || plan->kind == PLAN_DIES;
}

static void backend_say(struct backend *backend, uint8_t type, const void *body, size_t bytes)
{
    if (!backend->has_died)
        put_message(&backend->out, type, body, bytes);
}

static void backend_ready(struct backend *backend)
{
    if (backend->status == 'I')
        backend->has_portal = false;
    backend->is_hit = false;
    backend_say(backend, 'Z', &backend->status, 1);
}

/* Tags of one who cannot be trusted are none. */
static void mask(const struct backend *backend, char *text, size_t bytes)
{
    for (size_t i = 0; backend->is_foreign && i < bytes; i++)
        if (text[i] == '@')
            text[i] = '*';
}

static size_t error_write(char body[256], const char *severity, const char *sqlstate,
                          const char *text)
{
    const char *routine = strcmp(sqlstate, "0A000") == 0   ? "RevalidateCachedQuery"
                          : strcmp(sqlstate, "26000") == 0 ? "FetchPreparedStatement"
                          : strcmp(sqlstate, "42P05") == 0 ? "StorePreparedStatement"
                                                           : "exec";

    return (size_t)snprintf(body, 256, "S%s%cV%s%cC%s%cM%s%cR%s%c%c", severity, 0, severity, 0,
                            sqlstate, 0, text, 0, routine, 0, 0);
}

static void backend_fails(struct backend *backend, const char *sqlstate, const char *text,
                          const char *tag)
{
    char body[256], message[128];
    size_t bytes;

    snprintf(message, sizeof(message), "%s%s", text, tag);
    bytes = error_write(body, "ERROR", sqlstate, message);
    mask(backend, body, bytes);
    backend_say(backend, 'E', body, bytes);
    if (backend->status == 'T')
        backend->status = 'E';
    backend->skips = true; /* a simple Query ends it */
}

static bool backend_is_aborted(struct backend *backend, const struct plan *plan)
{
    if (backend->status != 'E' || plan->kind == PLAN_COMMIT)
        return false;
    backend_fails(backend, "25P02", "current transaction is aborted", "");
    return true;
}

static void backend_tag(struct backend *backend, const char *tag)
{
    backend_say(backend, 'C', tag, strlen(tag) + 1);
}

/* One column, whose type modifier is the version of the schema. */
static void backend_describe_rows(struct backend *backend, unsigned version)
{
    uint8_t description[] = {0, 1, 'c', 0,    0,    0, 0, 0, 0, 0, 0,
                             0, 0, 25,  0xff, 0xff, 0, 0, 0, 0, 0, 0};

    bytes_put_u32(description + sizeof(description) - 6, version);
    backend_say(backend, 'T', description, sizeof(description));
}

static void backend_row(struct backend *backend, const char *value, size_t bytes)
{
    static char body[6 + BIG_ROW_BYTES];

    body[0] = 0;
    body[1] = 1;
    bytes_put_u32((uint8_t *)body + 2, (uint32_t)bytes);
    memset(body + 6, 'x', bytes);
    memcpy(body + 6, value, MIN(bytes, strlen(value)));
    mask(backend, body + 6, bytes);
    backend_say(backend, 'D', body, 6 + bytes);
}

static void backend_rows(struct backend *backend, const struct plan *plan, const char *tag,
                         bool is_simple)
{
    char value[VALUE_BYTES], notice[256];

    snprintf(value, sizeof(value), "%s%s%c", plan->tag, tag, backend->style);
    if (plan->kind == PLAN_NOTICE && !backend->is_reference) {
        size_t bytes = error_write(notice, "NOTICE", "42622", "identifier will be truncated");

        backend_say(backend, 'N', notice, bytes);
    }
    if (is_simple)
        backend_describe_rows(backend, schema_version);
    if (plan->kind == PLAN_DIVIDES) {
        backend_fails(backend, "22012", "division by zero ", value);
        return;
    }
    if (plan->kind == PLAN_BIG)
        for (unsigned i = 0; i < BIG_ROWS; i++)
            backend_row(backend, i == 0 ? value : "", BIG_ROW_BYTES);
    else if (plan->kind != PLAN_NONE)
        backend_row(backend, value, strlen(value));
    backend_tag(backend, "SELECT");
}

static void backend_set(struct backend *backend, char style)
{
    char body[16];
    int bytes;

    if (style == '\0' || style == backend->style)
        return;
    backend->style = style;
    bytes = snprintf(body, sizeof(body), "DateStyle%c%c%c", 0, style, 0);
    if (!backend->is_reference)
        backend_say(backend, 'S', body, (size_t)bytes);
}

static void backend_run(struct backend *backend, const struct plan *plan, const char *tag,
                        bool is_simple)
{
    if (backend_is_aborted(backend, plan))
        return;
    switch (plan->kind) {
    case PLAN_EMPTY:
        backend_say(backend, 'I', NULL, 0);
        break;
    case PLAN_BROKEN:
        backend_fails(backend, "42P01", "no such relation ", plan->tag);
        break;
    case PLAN_DIES:
        if (!backend->is_reference)
            servers_end = is_noticed = true;
        backend->has_died = true;
        break;
    case PLAN_INSERT:
        backend_tag(backend, "INSERT 0 1");
        break;
    case PLAN_BEGIN:
        backend->status = 'T';
        backend_tag(backend, "BEGIN");
        break;
    case PLAN_COMMIT:
        backend_tag(backend, backend->status == 'E' ? "ROLLBACK" : "COMMIT");
        backend->status = 'I';
        backend->has_portal = false;
        break;
    case PLAN_SET:
        backend_set(backend, plan->style);
        backend_tag(backend, "SET");
        break;
    case PLAN_COPY:
        backend_say(backend, 'H', "\0\0", 3);
        backend_say(backend, 'd', plan->tag, strlen(plan->tag) * !backend->is_foreign);
        backend_say(backend, 'c', NULL, 0);
        backend_tag(backend, "COPY 1");
        break;
    default:
        backend_rows(backend, plan, tag, is_simple);
        break;
    }
}

static size_t text_read(const uint8_t *body, size_t bytes, char name[NAME_BYTES])
{
    const uint8_t *zero = bytes > 0 ? memchr(body, 0, bytes) : NULL;

    if (zero == NULL)
        return 0;
    memset(name, 0, NAME_BYTES);
    memcpy(name, body, MIN((size_t)(zero - body), (size_t)NAME_BYTES - 1));
    return (size_t)(zero - body) + 1;
}

static struct known *known_find(struct backend *backend, const char *name)
{
    if (name[0] == '\0')
        return backend->has_unnamed ? &backend->unnamed : NULL;
    for (unsigned i = 0; i < backend->known_count; i++)
        if (strcmp(backend->known[i].name, name) == 0)
            return &backend->known[i];
    return NULL;
}

static void backend_parse(struct backend *backend, const uint8_t *body, size_t bytes)
{
    char error[NAME_BYTES + 64];
    struct known known;
    size_t name_bytes = text_read(body, bytes, known.name);
    const uint8_t *text = body + name_bytes;
    const uint8_t *zero = bytes > name_bytes ? memchr(text, 0, bytes - name_bytes) : NULL;

    if (zero == NULL || name_bytes == 0) {
        backend_fails(backend, "08P01", "invalid message", "");
        return;
    }
    plan_read(&known.plan, text, (size_t)(zero - text));
    known.version = schema_version;
    if (known.name[0] == '\0')
        backend->has_unnamed = false;
    if (known.plan.kind == PLAN_BROKEN) {
        backend_fails(backend, "42P01", "no such relation ", known.plan.tag);
    } else if (known.plan.kind != PLAN_EMPTY && backend_is_aborted(backend, &known.plan)) {
        return;
    } else if (known.name[0] == '\0') {
        backend->unnamed = known;
        backend->has_unnamed = true;
        backend_say(backend, '1', NULL, 0);
    } else if (known_find(backend, known.name) != NULL) {
        snprintf(error, sizeof(error), "prepared statement \"%s\" already exists", known.name);
        backend_fails(backend, "42P05", error, "");
    } else {
        if (backend->known_count == KNOWN_MAX)
            backend->known_count = 0;
        backend->known[backend->known_count++] = known;
        backend_say(backend, '1', NULL, 0);
    }
}

static void known_missing(struct backend *backend, const char *name)
{
    char text[NAME_BYTES + 64];

    snprintf(text, sizeof(text), "prepared statement \"%s\" does not exist", name);
    backend_fails(backend, "26000",
                  name[0] == '\0' ? "unnamed prepared statement does not exist" : text, "");
}

static bool known_is_stale(struct backend *backend, const struct known *known)
{
    if (backend->is_reference || known->version == schema_version || !plan_has_rows(&known->plan))
        return false;
    backend_fails(backend, "0A000", "cached plan must not change result type", "");
    return true;
}

static void backend_bind(struct backend *backend, const uint8_t *body, size_t bytes)
{
    char portal[NAME_BYTES], name[NAME_BYTES];
    size_t portal_bytes = text_read(body, bytes, portal);
    size_t name_bytes = text_read(body + portal_bytes, bytes - portal_bytes, name);
    struct known *known;

    if (portal_bytes == 0 || name_bytes == 0) {
        backend_fails(backend, "08P01", "invalid message", "");
        return;
    }
    known = known_find(backend, name);
    if (known == NULL) {
        known_missing(backend, name);
    } else if (!backend_is_aborted(backend, &known->plan) && !known_is_stale(backend, known)) {
        backend->portal = known->plan;
        backend->portal_version = known->version;
        backend->has_portal = true;
        backend->portal_is_done = false;
        find_tag(body, bytes, backend->portal_tag);
        backend_say(backend, '2', NULL, 0);
    }
}

static void backend_describe(struct backend *backend, const uint8_t *body, size_t bytes)
{
    static const uint8_t types[] = {0, 1, 0, 0, 0, 25};
    const struct plan *plan = NULL;
    unsigned version = backend->portal_version;
    char name[NAME_BYTES];

    if (bytes < 2 || text_read(body + 1, bytes - 1, name) == 0) {
        backend_fails(backend, "08P01", "invalid message", "");
        return;
    }
    if (body[0] == 'S') {
        const struct known *known = known_find(backend, name);

        if (known == NULL) {
            known_missing(backend, name);
            return;
        }
        plan = &known->plan;
        version = known->version;
        if (plan_has_rows(plan) && backend_is_aborted(backend, plan))
            return;
        backend_say(backend, 't', plan->has_parameter ? types : (const uint8_t *)"\0",
                    plan->has_parameter ? sizeof(types) : 2);
    } else {
        if (!backend->has_portal) {
            backend_fails(backend, "34000", "portal does not exist", "");
            return;
        }
        plan = &backend->portal;
        if (plan_has_rows(plan) && backend_is_aborted(backend, plan))
            return;
    }
    if (plan_has_rows(plan))
        backend_describe_rows(backend, version);
    else
        backend_say(backend, 'n', NULL, 0);
}

static void backend_close(struct backend *backend, const uint8_t *body, size_t bytes)
{
    struct known *known;
    char name[NAME_BYTES];

    if (bytes < 2 || text_read(body + 1, bytes - 1, name) == 0) {
        backend_fails(backend, "08P01", "invalid message", "");
        return;
    }
    known = body[0] == 'S' ? known_find(backend, name) : NULL;
    if (body[0] == 'P')
        backend->has_portal = false;
    else if (name[0] == '\0')
        backend->has_unnamed = false;
    else if (known != NULL)
        *known = backend->known[--backend->known_count];
    backend_say(backend, '3', NULL, 0);
}

static void backend_execute(struct backend *backend)
{
    struct plan plan = backend->portal;

    if (!backend->has_portal) {
        backend_fails(backend, "34000", "portal does not exist", "");
    } else if (backend->portal_is_done && plan_has_rows(&plan)) {
        backend_tag(backend, "SELECT 0");
    } else {
        backend->portal_is_done = true;
        backend_run(backend, &plan, backend->portal_tag, false);
    }
}

static void trace_message(const struct backend *backend, uint8_t type, const uint8_t *body,
                          size_t bytes)
{
    char text[80] = "";

    if (!is_traced || backend->is_reference)
        return;
    for (size_t i = 0; i < MIN(bytes, sizeof(text) - 1); i++)
        text[i] = body[i] >= ' ' && body[i] < 127 ? (char)body[i] : '|';
    trace("  server %d does %c %s\n", (int)(backend - backends), type, text);
}

static void backend_message(struct backend *backend, uint8_t type, const uint8_t *body,
                            size_t bytes)
{
    struct plan plan;

    trace_message(backend, type, body, bytes);
    if (backend->skips && type != 'S') {
        backend->has_skipped_parse |= type == 'P' && bytes > 0 && body[0] == '\0';
        return;
    }
    if (type != 0 && strchr("PBDCE", type) != NULL)
        backend->in_batch = true;
    if (backend->is_hit && type != 0 && strchr("QPBDE", type) != NULL) {
        backend->is_hit = false;
        backend_fails(backend, "57014", "canceling statement due to user request", "");
        if (type == 'Q') {
            backend->skips = false;
            backend_ready(backend);
        }
        return;
    }
    switch (type) {
    case 'P':
        backend_parse(backend, body, bytes);
        break;
    case 'B':
        backend_bind(backend, body, bytes);
        break;
    case 'D':
        backend_describe(backend, body, bytes);
        break;
    case 'C':
        backend_close(backend, body, bytes);
        break;
    case 'E':
        backend_execute(backend);
        break;
    case 'S':
        backend->skips = backend->in_batch = false;
        backend_ready(backend);
        break;
    case 'Q':
        plan_read(&plan, body, bytes > 0 ? bytes - 1 : 0);
        backend->has_unnamed = backend->has_portal = false;
        backend_run(backend, &plan, "", true);
        backend->skips = false;
        backend_ready(backend);
        break;
    case 'F':
        backend_say(backend, 'V', "\xff\xff\xff\xff", 4);
        backend_ready(backend);
        break;
    case 'X':
        backend->has_died = true;
        break;
    default:
        break;
    }
}

static void backend_login(struct backend *backend, const uint8_t *packet, size_t bytes)
{
    static const char parameters[] = "S\0\0\0\x10"
                                     "DateStyle\0I\0"
                                     "S\0\0\0\x19"
                                     "client_encoding\0UTF8\0"
                                     "S\0\0\0\x23"
                                     "standard_conforming_strings\0on\0";
    uint8_t key[8] = {0};

    if (bytes == 16 && bytes_get_u32(packet + 4) == 80877102) {
        backend->is_cancel = true;
        backend->target = bytes_get_u32(packet + 8);
        trace("  a cancel request is on its way\n");
        return;
    }
    backend->is_logged_in = true;
    backend->pid = ++last_pid;
    bytes_put_u32(key, backend->pid);
    backend_say(backend, 'R', key + 4, 4);
    stream_put(&backend->out, parameters, sizeof(parameters) - 1);
    backend_say(backend, 'K', key, sizeof(key));
    backend_ready(backend);
    (void)stream_write(&backend->out, backend->peer, SIZE_MAX);
}

static void backend_init(struct backend *backend)
{
    struct stream in = backend->in, out = backend->out;

    memset(backend, 0, sizeof(*backend));
    backend->in = in;
    backend->out = out;
    stream_clear(&backend->in);
    stream_clear(&backend->out);
    backend->status = 'I';
    backend->style = 'I';
}

/* Does what up to `count` messages say. True: there was one. */
static bool backend_step(struct backend *backend, unsigned count)
{
    bool has_moved = false;
    size_t bytes;

    while (count-- > 0 && !backend->has_died && !backend->is_cancel &&
           (bytes = stream_message(&backend->in, backend->is_logged_in)) > 0) {
        const uint8_t *message = stream_at(&backend->in);

        backend->in.from += bytes;
        has_moved = true;
        if (!backend->is_logged_in)
            backend_login(backend, message, bytes);
        else
            backend_message(backend, message[0], message + FRAME_HEADER_BYTES,
                            bytes - FRAME_HEADER_BYTES);
    }
    return has_moved;
}

static void backend_ends(struct backend *backend)
{
    sim_peer_close(backend->peer);
    backend->peer = NULL;
}

/* A cancel request is done: it hits what its target does, if it does anything. */
static void cancel_hits(struct backend *request)
{
    for (unsigned i = 0; i < BACKENDS; i++) {
        struct backend *target = &backends[i];

        if (target->peer == NULL || !target->is_logged_in || target->pid != request->target ||
            stream_message(&target->in, true) == 0)
            continue;
        trace("  server %u is hit\n", i);
        target->is_hit = true;
    }
}

/* ---- clients ---- */

struct person {
    struct sim_peer *peer; /* NULL: is not there */
    bool is_welcome, is_over;
    bool is_malformed;   /* it has sent what is no protocol */
    bool is_stalled;     /* does not read */
    bool is_plain;       /* whatever it asked, a part may be missing without effect on the others */
    bool may_notice;     /* that a server is terminated: not all it did shares, beyond doubt */
    bool may_lose_track; /* of prepared statements, and is closed */
    bool has_begun;      /* it has got a part of an answer */
    bool deviates;       /* from here on the pooler's answers may be others than the reference's */
    unsigned incarnation, number, last_number;
    unsigned cancel_count; /* requests that have hit nothing of its yet */
    uint8_t key[8];
    size_t last_at; /* of its last message in `out` */
    struct stream in, out;
    struct backend reference;
};

static struct person people[PERSONS];
static struct sim_peer *cancels[CANCELS_MAX];

static void person_deviates(struct person *person, const char *why)
{
    if (!person->deviates)
        trace("  client %d: no longer compared: %s\n", (int)(person - people) + 1, why);
    person->deviates = true;
}

static void check_last_words(const struct person *person, const char *text)
{
    static const char *const of_time[] = {"query_timeout", "query timeout", "query_wait_timeout",
                                          "server login has been failing", "client_login_timeout"};

    if (person->is_malformed || is_foreign)
        return;
    if (servers_end &&
        (strcmp(text, "server conn crashed?") == 0 || strcmp(text, "terminating connection") == 0 ||
         strstr(text, "server login") != NULL)) {
        if (!person->may_notice && !person->has_begun && !is_noticed && !time_passed)
            never("what shares was not asked again");
        return;
    }
    for (unsigned i = 0; i < COUNT_OF(of_time) && time_passed; i++)
        if (strstr(text, of_time[i]) != NULL)
            return;
    if (strcmp(text, "lost track of prepared statements") == 0 && person->may_lose_track)
        return;
    fprintf(stderr, "the client was closed: %s\n", text);
    never("a client was closed for no reason");
}

/* Whatever the servers do: a tag is its reader's own, and newer than the one before. */
static void check_tags(struct person *person, const uint8_t *message, size_t bytes)
{
    const uint8_t *at = message, *end = message + bytes;
    unsigned index, incarnation, number;

    while ((at = memchr(at, '@', (size_t)(end - at))) != NULL) {
        char tag[TAG_BYTES + 1];

        find_tag(at, (size_t)(end - at), tag);
        at++;
        if (sscanf(tag, "@%1u:%3u:%4u;", &index, &incarnation, &number) != 3)
            continue; /* a length */
        /* Of a text: who has a name that is not tracked may meet another one's. */
        if (number == 0 && is_untracked)
            continue;
        if (index != (unsigned)(person - people) || incarnation != person->incarnation) {
            fprintf(stderr, "client %d, for the %uth time, gets %s\n", (int)(person - people) + 1,
                    person->incarnation, tag);
            never("a client gets an answer of somebody else");
        }
        if (number == 0)
            continue;
        if (number < person->last_number ||
            (number == person->last_number && !person->is_malformed))
            never("an answer comes twice, or out of order");
        person->last_number = number;
    }
}

static bool is_same_error(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    struct error_fields first, second;

    return a[0] == 'E' && b[0] == 'E' && error_fields_read(a + 5, a_bytes - 5, &first) &&
           error_fields_read(b + 5, b_bytes - 5, &second) &&
           strcmp(first.sqlstate, second.sqlstate) == 0 &&
           strcmp(first.message, second.message) == 0;
}

/* What would have come up to ReadyForQuery does not. */
static void was_canceled(struct person *person)
{
    struct stream *answers = &person->reference.out;
    size_t bytes;

    if (person->is_malformed || is_foreign)
        return;
    if (person->cancel_count == 0)
        never("a client is hit by somebody else's cancel request");
    person->cancel_count--;
    if (!person->is_plain)
        person_deviates(person, "what was canceled had an effect");
    while (!person->deviates && (bytes = stream_message(answers, true)) > 0 &&
           stream_at(answers)[0] != 'Z')
        answers->from += bytes;
}

static void person_message(struct person *person, const uint8_t *message, size_t bytes)
{
    struct stream *answers = &person->reference.out;
    struct error_fields fields = {"", "", "", "", ""};
    size_t expected_bytes;
    bool is_description;

    trace("  client %d gets %c %zu\n", (int)(person - people) + 1, message[0], bytes);
    if (!person->is_welcome) {
        person->is_welcome = message[0] == 'Z';
        if (message[0] == 'K' && bytes == FRAME_HEADER_BYTES + 8)
            memcpy(person->key, message + FRAME_HEADER_BYTES, 8);
        return;
    }
    check_tags(person, message, bytes);
    if (message[0] == 'S' || message[0] == 'N' || message[0] == 'A' || is_foreign)
        return;
    if (message[0] != 'E')
        person->has_begun = message[0] != 'Z';
    if (message[0] == 'E' && error_fields_read(message + 5, bytes - 5, &fields)) {
        trace("    %s %s %s\n", fields.severity, fields.sqlstate, fields.message);
        if (strcmp(fields.severity, "FATAL") == 0) {
            check_last_words(person, fields.message);
            person->is_over = true;
            return;
        }
        if (strcmp(fields.sqlstate, "57014") == 0) {
            was_canceled(person);
            return;
        }
    }
    if (person->deviates)
        return;
    expected_bytes = stream_message(answers, true);
    if (((is_meddled && strcmp(fields.sqlstate, "26000") == 0) ||
         (schema_version > 0 && strcmp(fields.sqlstate, "0A000") == 0)) &&
        (expected_bytes == 0 ||
         !is_same_error(message, bytes, stream_at(answers), expected_bytes))) {
        person_deviates(person, "a statement is gone, or stale");
        return;
    }
    if (expected_bytes == 0) {
        fprintf(stderr, "client %d gets %c\n", (int)(person - people) + 1, message[0]);
        never("an answer that PostgreSQL would not give");
    }
    /* But for the version of the schema. */
    is_description = schema_version > 0 && message[0] == 'T' && expected_bytes == bytes;
    if ((expected_bytes != bytes ||
         memcmp(message, stream_at(answers), bytes - (is_description ? 6 : 0)) != 0) &&
        !is_same_error(message, bytes, stream_at(answers), expected_bytes)) {
        fprintf(stderr, "client %d gets %c, and %c would be right\n", (int)(person - people) + 1,
                message[0], stream_at(answers)[0]);
        never("an answer that is not PostgreSQL's");
    }
    answers->from += expected_bytes;
}

static void person_closed(struct person *person)
{
    if (!person->is_over && person->is_welcome && !person->is_malformed && !is_foreign &&
        !servers_end && !time_passed && !sim_peer_is_reset(person->peer))
        never("a client was closed without a word");
    person->is_over = true;
    sim_peer_close(person->peer);
    person->peer = NULL;
}

static bool person_moves(struct person *person)
{
    size_t bytes;
    bool has_moved;

    if (person->peer == NULL || person->is_stalled)
        return false;
    has_moved = stream_read(&person->in, person->peer);
    while ((bytes = stream_message(&person->in, true)) > 0) {
        const uint8_t *message = stream_at(&person->in);

        person->in.from += bytes;
        if (!person->is_over)
            person_message(person, message, bytes);
    }
    if (sim_peer_is_at_end(person->peer))
        person_closed(person);
    return has_moved;
}

static void person_puts(struct person *person, const void *data, size_t bytes)
{
    stream_put(&person->out, data, bytes);
    stream_put(&person->reference.in, data, bytes);
}

static void person_says(struct person *person, uint8_t type, const void *body, size_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES] = {type};

    if (!person->is_welcome || person->is_over || person->peer == NULL)
        return;
    person->may_notice |= stream_bytes(&person->out) > 0 || person->is_stalled ||
                          stream_bytes(&person->reference.out) > 0;
    person->may_lose_track |= type == 'Q' && person->reference.in_batch;
    if (person->may_lose_track)
        person_deviates(person, "a Query in an open batch");
    if (is_untracked && type != 'Q')
        person->is_plain = false;
    bytes_put_u32(header + 1, (uint32_t)(4 + bytes));
    person_puts(person, header, sizeof(header));
    person->last_at = stream_bytes(&person->out) - sizeof(header);
    person_puts(person, body, bytes);
    if (!person->is_malformed)
        (void)backend_step(&person->reference, UINT32_MAX);
    if (person->reference.has_skipped_parse)
        person_deviates(person, "a Parse of the unnamed statement that is skipped");
    if (person->reference.has_died)
        person_deviates(person, "its server dies");
}

/* ---- the pooler ---- */

static struct sim *sim;
static struct ring *ring;
static struct core core;
static struct buffer_pool buffers;
static struct usage_table usage;
static struct shard_table shards;
static struct param_names param_names;
static struct mailbox mailbox;
static struct snapshot *snapshots[VARIANTS];
static struct op accept_op;
static const struct sockaddr_in listen_address = {.sin_family = AF_INET};

static void server_comes(void *context, struct sim_peer *peer)
{
    (void)context;
    for (unsigned i = 0; i < BACKENDS; i++) {
        struct backend *backend = &backends[i];

        if (backend->peer != NULL)
            continue;
        backend_init(backend);
        backend->peer = peer;
        return;
    }
    sim_peer_close(peer);
}

static void post_core(struct core *from, unsigned to, struct letter *letter)
{
    (void)from;
    (void)to;
    (void)mailbox_post(&mailbox, letter);
}

/* A cancel request that is nobody's. */
static void post_control(struct core *from, struct letter *letter)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);

    usage_give(&usage.client_count);
    ring_close(from->loop.ring, handover->fd);
    letter->open = handover_returned;
    (void)mailbox_post(&mailbox, letter);
}

static bool post_job(struct core *from, struct job *job)
{
    (void)from;
    (void)job;
    return false;
}

static uint64_t random_state;

static void give_random(struct core *from, void *out, size_t bytes)
{
    uint8_t *at = out;

    (void)from;
    while (bytes-- > 0) {
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        *at++ = (uint8_t)(random_state >> 56);
    }
}

static void accepted(struct op *op, const struct completion *completion)
{
    (void)op;
    if (completion->result >= 0)
        core_accept(&core, completion->result);
}

/* What SHOW tells is what is there. */
static void check_counts(void)
{
    list_for_each(pool_link, &core.pool_list)
    {
        const struct pool *pool = OWNER_OF(pool_link, struct pool, link);
        unsigned servers = 0, queued = 0, waiting = 0;

        list_for_each(link, &pool->sharing.servers)
        {
            const struct server *server = OWNER_OF(link, struct server, link);
            unsigned count = 0;

            list_for_each(entry, &server->shared)
            {
                const struct shared *shared = OWNER_OF(entry, struct shared, link);

                count++;
                assert(shared->server == server);
                assert(shared->client == NULL || shared->client->shared == shared);
                assert(shared->client == NULL || shared->client->state == CLIENT_SHARED);
            }
            assert(server->state == SERVER_SHARED);
            assert(count > 0 && count == server->shared_count);
            servers++;
            queued += count;
        }
        list_for_each(link, &pool->waiting_clients) waiting +=
            shared_may_join(OWNER_OF(link, struct client, link)->shared);
        assert(servers == pool->sharing.server_count);
        assert(queued == pool->sharing.queued_count);
        assert(waiting == pool->sharing.waiting_count);
    }
}

static void turn(void)
{
    uint64_t deadline_us = atomic_load(&mailbox.last) != NULL ? 0 : core_next_us(&core);

    sim_advance(sim, 1);
    if (!sim_would_return(ring, deadline_us))
        return;
    (void)ring_turn(ring, deadline_us);
    core.loop.now_us = sim_now_us(sim);
    (void)mailbox_open_all(&mailbox, &core);
    timers_run(&core.timers, core.loop.now_us);
    core_end_turn(&core);
    check_counts();
}

/* Servers read what is sent, and log in; `all`: do what it says, too. */
static bool backend_moves(struct backend *backend, bool all)
{
    bool has_moved = false;

    if (backend->peer == NULL)
        return false;
    has_moved = stream_read(&backend->in, backend->peer);
    if (all || !backend->is_logged_in)
        has_moved |= backend_step(backend, all ? UINT32_MAX : 1);
    if (all)
        has_moved |= stream_write(&backend->out, backend->peer, SIZE_MAX);
    if (all && backend->is_cancel) {
        cancel_hits(backend);
        backend_ends(backend);
        has_moved = true;
    } else if ((backend->has_died && stream_bytes(&backend->out) == 0) ||
               sim_peer_is_at_end(backend->peer)) {
        backend_ends(backend);
        has_moved = true;
    }
    return has_moved;
}

static void settle(bool all)
{
    uint64_t last_trace = 0;

    for (unsigned quiet = 0, round = 0; quiet < 3; round++) {
        bool has_moved = false;

        if (round == ROUNDS_MAX)
            never("it never comes to rest");
        for (unsigned i = 0; i < PERSONS; i++)
            has_moved |= person_moves(&people[i]);
        /* What is on its way to be canceled comes first. */
        for (unsigned i = 0; i < BACKENDS; i++)
            if (backends[i].is_cancel)
                has_moved |= backend_moves(&backends[i], all);
        for (unsigned i = 0; i < BACKENDS; i++)
            has_moved |= backend_moves(&backends[i], all);
        for (unsigned i = 0; i < CANCELS_MAX; i++)
            if (cancels[i] != NULL && sim_peer_is_at_end(cancels[i])) {
                sim_peer_close(cancels[i]);
                cancels[i] = NULL;
            }
        turn();
        quiet = has_moved || sim_trace(sim) != last_trace ? 0 : quiet + 1;
        last_trace = sim_trace(sim);
    }
}

static struct sim_peer *new_connection(void)
{
    struct sim_peer *peer =
        sim_connect(sim, (const struct sockaddr *)&listen_address, sizeof(listen_address));

    assert(peer != NULL);
    return peer;
}

static void person_comes(struct person *person)
{
    static const char startup[] = "\0\0\0\x1b\0\3\0\0user\0u\0database\0d\0";
    unsigned incarnation = person->incarnation + 1;
    struct person fresh = {.in = person->in, .out = person->out, .incarnation = incarnation};

    static_assert(sizeof(startup) == 0x1b, "the length stands in it");
    fresh.reference.in = person->reference.in;
    fresh.reference.out = person->reference.out;
    *person = fresh;
    stream_clear(&person->in);
    stream_clear(&person->out);
    backend_init(&person->reference);
    person->reference.is_reference = person->reference.is_logged_in = true;
    person->is_plain = true;
    person->deviates = params_change;
    person->peer = new_connection();
    (void)!sim_peer_write(person->peer, startup, sizeof(startup));
}

static void person_leaves(struct person *person, bool by_reset)
{
    if (person->peer == NULL)
        return;
    if (by_reset)
        sim_peer_reset(person->peer);
    sim_peer_close(person->peer);
    person->peer = NULL;
}

static bool person_waits(const struct person *person)
{
    const struct client *client =
        person->is_welcome && person->peer != NULL ? client_find_key(&core, person->key) : NULL;

    return client != NULL && client->state == CLIENT_WAITING;
}

/* Nothing moves any more, and nobody keeps the server from it: all must have been answered. */
static void check_answered(const struct person *person)
{
    if (person->is_over || person->is_malformed || is_foreign || person->deviates ||
        !person->is_welcome || stream_bytes(&person->reference.out) == 0)
        return;
    fprintf(stderr, "client %d: %c does not come\n", (int)(person - people) + 1,
            stream_at(&person->reference.out)[0]);
    never("an answer is missing");
}

/* ---- the program ---- */

struct program {
    const uint8_t *at, *end;
};

static const struct {
    const char *text; /* %s: a tag */
    bool is_plain;
} texts[] = {
    {"SELECT '%s'", true},                 /* a */
    {"VALUES ('%s')", true},               /* b */
    {"SELECT '%s', 1/0", true},            /* c */
    {"SELECT '%s' FROM broken", true},     /* d */
    {"SELECT '%s' AS big", true},          /* e */
    {"SELECT '%s' AS notice", true},       /* f */
    {"SELECT '%s' AS none", true},         /* g */
    {"SELECT '%s' AS dies", false},        /* h */
    {"SELECT pg_sleep('%s')", true},       /* i: is not shared */
    {"INSERT INTO t VALUES ('%s')", true}, /* j */
    {"SET DateStyle = 'a'", false},        /* k */
    {"SET DateStyle = 'b'", false},        /* l */
    {"BEGIN", false},                      /* m */
    {"COMMIT", false},                     /* n */
    {"", true},                            /* o */
    {"COPY t TO STDOUT -- %s", true},      /* p */
    {"SELECT $1", true},                   /* q: in batches */
    {"SELECT $1 AS big", true},            /* r */
    {"SELECT $1 WHERE 1/0 > 2", true},     /* s */
    {"SELECT $1 FROM broken", true},       /* t */
};

static const char *const names[] = {"", "a", "b", "c"};

static const struct {
    const char *severity, *sqlstate;
} errors[] = {
    {"ERROR", "22012"}, {"ERROR", "57014"}, {"ERROR", "26000"}, {"ERROR", "0A000"},
    {"FATAL", "57P01"}, {"FATAL", "XX000"}, {"PANIC", "XX000"}, {"LOG", ""},
};

static unsigned take(struct program *program)
{
    return program->at < program->end ? *program->at++ : 0;
}

/* A small number, so that programs can be read: 0 to 9, then a and so on for 10 and more. */
static unsigned take_number(struct program *program, unsigned limit)
{
    unsigned byte = take(program);

    if (byte >= 'a' && byte <= 'z')
        byte = byte - 'a' + 10;
    else if (byte >= '0' && byte <= '9')
        byte -= '0';
    return byte % limit;
}

/* The same, for tables: a is the first. */
static unsigned take_index(struct program *program, unsigned limit)
{
    unsigned byte = take(program);

    if (byte >= 'a' && byte <= 'z')
        byte -= 'a';
    else if (byte >= '0' && byte <= '9')
        byte -= '0';
    return byte % limit;
}

/* Nothing that could be taken for a tag. */
static size_t take_bytes(struct program *program, uint8_t data[256])
{
    size_t bytes = take_number(program, 256);

    bytes = MIN(bytes, (size_t)(program->end - program->at));
    memcpy(data, program->at, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (data[i] == '@')
            data[i] = '?';
    program->at += bytes;
    return bytes;
}

static struct stream body;

static void body_text(const char *text)
{
    stream_put(&body, text, strlen(text) + 1);
}

static void body_sql(const struct person *person, unsigned index, unsigned number)
{
    char tag[TAG_BYTES * 2], text[128];

    snprintf(tag, sizeof(tag), "@%d:%03u:%04u;", (int)(person - people), person->incarnation % 1000,
             number % 10000);
    snprintf(text, sizeof(text), texts[index].text, tag);
    body_text(text);
}

static void person_says_body(struct person *person, uint8_t type)
{
    person_says(person, type, body.data, body.to);
    stream_clear(&body);
}

static void say_parse(struct person *person, const char *name, unsigned text)
{
    body_text(name);
    body_sql(person, text, 0);
    stream_put(&body, "\0", 2);
    person_says_body(person, 'P');
}

static void say_bind(struct person *person, const char *name)
{
    char tag[TAG_BYTES * 2];
    uint8_t length[4];

    person->number++;
    snprintf(tag, sizeof(tag), "@%d:%03u:%04u;", (int)(person - people), person->incarnation % 1000,
             person->number % 10000);
    body_text("");
    body_text(name);
    stream_put(&body, "\0\0\0\1", 4);
    bytes_put_u32(length, TAG_BYTES);
    stream_put(&body, length, sizeof(length));
    stream_put(&body, tag, TAG_BYTES);
    stream_put(&body, "\0", 2);
    person_says_body(person, 'B');
}

static void say_execute(struct person *person, bool describes)
{
    if (describes)
        person_says(person, 'D', "P", 2);
    person_says(person, 'E', "\0\0\0\0", 5);
}

static void say_batch(struct person *person, bool has_parse, const char *name, unsigned text,
                      bool describes)
{
    person->is_plain &= has_parse && texts[text].is_plain;
    if (has_parse)
        say_parse(person, name, text);
    say_bind(person, name);
    say_execute(person, describes);
    person_says(person, 'S', NULL, 0);
}

/* A name of its own, or a part of a batch. */
static void says_part(struct person *person)
{
    person->is_plain = false;
    if (is_untracked)
        person_deviates(person, "names are not tracked");
}

static void lie(struct person *person, unsigned by)
{
    uint8_t *length = person->out.data + person->out.from + person->last_at + 1;

    if (stream_bytes(&person->out) < person->last_at + FRAME_HEADER_BYTES)
        return;
    bytes_put_u32(length, bytes_get_u32(length) + (by > 127 ? by - 256 : by));
    person->is_malformed = true;
    person_deviates(person, "a length is wrong");
}

static void order_of_client(struct program *program, struct person *person, unsigned order)
{
    uint8_t data[256];
    unsigned type, name, text;
    size_t bytes;

    person->may_notice |= order != 'q';
    stream_clear(&body);
    switch (order) {
    case 'q':
        text = take_index(program, COUNT_OF(texts));
        person->is_plain &= texts[text].is_plain;
        person->may_notice |= text > 1;
        body_sql(person, text, ++person->number);
        person_says_body(person, 'Q');
        break;
    case 'x':
    case 'X':
        say_batch(person, true, "", take_index(program, COUNT_OF(texts)), order == 'x');
        break;
    case 'b':
        says_part(person);
        say_batch(person, false, names[take_index(program, COUNT_OF(names))], 0, true);
        break;
    case 'P':
        says_part(person);
        name = take_index(program, COUNT_OF(names));
        say_parse(person, names[name], take_index(program, COUNT_OF(texts)));
        break;
    case 'B':
        says_part(person);
        say_bind(person, names[take_index(program, COUNT_OF(names))]);
        break;
    case 'D':
    case 'C':
        says_part(person);
        stream_put(&body, "S", 1);
        body_text(names[take_index(program, COUNT_OF(names))]);
        person_says_body(person, (uint8_t)order);
        break;
    case 'd':
        says_part(person);
        person_says(person, 'D', "P", 2);
        break;
    case 'E':
        says_part(person);
        say_execute(person, false);
        break;
    case 'S':
    case 'H':
        person_says(person, (uint8_t)order, NULL, 0);
        break;
    case 'T':
        person_says(person, 'X', NULL, 0);
        person->is_over = true;
        break;
    case 'M':
    case 'R':
        type = order == 'M' ? take(program) : 0;
        bytes = take_bytes(program, data);
        person->is_malformed = true;
        person_deviates(person, "no protocol");
        if (order == 'M')
            person_says(person, (uint8_t)type, data, bytes);
        else if (person->is_welcome && !person->is_over)
            person_puts(person, data, bytes);
        break;
    case 'l':
        lie(person, take_number(program, 256));
        break;
    case '?':
        person->is_stalled = !person->is_stalled;
        break;
    case '#':
    case '%':
        person_leaves(person, order == '%');
        person_comes(person);
        settle(false);
        break;
    default:
        break;
    }
}

static void person_sends(struct person *person, size_t limit)
{
    size_t before = stream_bytes(&person->out);

    if (person->peer != NULL)
        (void)stream_write(&person->out, person->peer, limit);
    else
        stream_clear(&person->out);
    before -= stream_bytes(&person->out);
    person->last_at -= MIN(person->last_at, before);
}

static void person_sends_part(struct person *person, size_t limit)
{
    person->may_notice = true;
    person_sends(person, limit);
}

static void person_cancels(struct person *person)
{
    uint8_t packet[16] = {0, 0, 0, 16, 4, 210, 22, 46};

    if (!person->is_welcome)
        return;
    for (unsigned i = 0; i < CANCELS_MAX; i++)
        if (cancels[i] == NULL) {
            memcpy(packet + 8, person->key, 8);
            person->cancel_count++;
            cancels[i] = new_connection();
            (void)!sim_peer_write(cancels[i], packet, sizeof(packet));
            return;
        }
}

/* The one of that number that is logged in, or a cancel request; or NULL. */
static struct backend *backend_of(unsigned index, bool is_cancel)
{
    for (unsigned i = 0; i < BACKENDS; i++) {
        struct backend *backend = &backends[i];

        if (backend->peer != NULL &&
            (is_cancel ? backend->is_cancel : backend->is_logged_in && !backend->has_died) &&
            index-- == 0)
            return backend;
    }
    return NULL;
}

static void becomes_foreign(struct backend *backend)
{
    is_foreign = true;
    if (backend != NULL)
        backend->is_foreign = true;
}

static void backend_says_unasked(struct backend *backend, unsigned order, unsigned kind)
{
    char text[256];
    size_t bytes;

    switch (order) {
    case 'n':
        bytes = error_write(text, "WARNING", "01000", "to whom it may concern");
        backend_say(backend, 'N', text, bytes);
        break;
    case 'v':
        params_change = true;
        for (unsigned i = 0; i < PERSONS; i++)
            person_deviates(&people[i], "a parameter has changed by itself");
        backend_set(backend, backend->style == 'x' ? 'y' : 'x');
        break;
    case 't':
        servers_end = true;
        bytes = error_write(text, "FATAL", "57P01", "terminating connection");
        backend_say(backend, 'E', text, bytes);
        backend->has_died = true;
        break;
    default:
        becomes_foreign(backend);
        bytes = error_write(text, errors[kind].severity, errors[kind].sqlstate, "so it is");
        backend_say(backend, 'E', text, bytes);
        break;
    }
}

static bool has_order_of_server(struct program *program, unsigned order)
{
    struct backend *backend;
    uint8_t data[256];
    unsigned number;
    size_t bytes;

    if (order == 0 || strchr("*>^t!~onv$@e", (int)order) == NULL)
        return false;
    number = take_number(program, 8);
    backend = backend_of(number, order == '!' || order == '~');
    switch (order) {
    case '*':
        number = take_number(program, 32);
        if (backend != NULL) {
            (void)stream_read(&backend->in, backend->peer);
            (void)backend_step(backend, number == 0 ? UINT32_MAX : number);
        }
        break;
    case '>':
        number = take_number(program, 256);
        if (backend != NULL)
            (void)stream_write(&backend->out, backend->peer, number == 0 ? SIZE_MAX : number);
        break;
    case '^':
        servers_end = is_noticed = true;
        if (backend != NULL)
            backend_ends(backend);
        break;
    case '!':
    case '~':
        if (backend != NULL && order == '!')
            cancel_hits(backend);
        if (backend != NULL)
            backend_ends(backend);
        break;
    case 'o':
        is_meddled = true;
        if (backend != NULL)
            backend->known_count = 0;
        break;
    case 'e':
        number = take_number(program, COUNT_OF(errors));
        /* fall through */
    case 'n':
    case 'v':
    case 't':
        if (backend != NULL)
            backend_says_unasked(backend, order, number % COUNT_OF(errors));
        break;
    case '$':
        number = take(program);
        bytes = take_bytes(program, data);
        becomes_foreign(backend);
        if (backend != NULL)
            put_message(&backend->out, (uint8_t)number, data, bytes);
        break;
    default:
        bytes = take_bytes(program, data);
        becomes_foreign(backend);
        if (backend != NULL)
            stream_put(&backend->out, data, bytes);
        break;
    }
    return true;
}

static void use_variant(unsigned variant);

static bool has_order_of_pooler(struct program *program, unsigned order)
{
    static const unsigned times_us[] = {100,      2 * 1000,      8 * 1000,      50 * 1000,
                                        US_PER_S, 11 * US_PER_S, 130 * US_PER_S};

    switch (order) {
    case '=':
        turn();
        break;
    case '-':
    case '+':
        settle(order == '+');
        break;
    case 'w':
        time_passed = true;
        sim_advance(sim, times_us[take_index(program, COUNT_OF(times_us))]);
        turn();
        break;
    case 's':
        schema_version++;
        break;
    case 'p':
        core_pause(&core, NULL);
        break;
    case 'r':
        core_resume(&core, NULL);
        break;
    case 'c':
        core_reconnect(&core, NULL);
        break;
    case 'L':
        use_variant(take_number(program, VARIANTS));
        break;
    default:
        return false;
    }
    return true;
}

static void run_program(struct program *program)
{
    struct person *person = &people[0];

    while (program->at < program->end) {
        unsigned order = take(program);

        trace("%c\n", (int)order);
        if (order >= '1' && order < '1' + PERSONS)
            person = &people[order - '1'];
        else if (order == '.')
            person_sends(person, SIZE_MAX);
        else if (order == ',')
            person_sends_part(person, take_number(program, 256) + 1);
        else if (order == 'k')
            person_cancels(person);
        else if (!has_order_of_pooler(program, order) && !has_order_of_server(program, order))
            order_of_client(program, person, order);
    }
}

/* ---- one input ---- */

static void check_rest(void)
{
    static uint64_t parked_at_rest;
    const struct statement_store *store = &core.statements;

    assert(core.loop.conn_count == 0);
    assert(core.clients.used_count == 0);
    assert(core.logins.used_count == 0);
    assert(core.servers.used_count == 0);
    assert(core.server_logins.used_count == 0);
    assert(core.cancels.used_count == 0);
    assert(core.shared.used_count == 0);
    assert(core.loop.spans.used_count == 0);
    assert(store->statements.used_count == 0);
    assert(store->client_statements.used_count == 0);
    assert(store->server_statements.used_count == 0);
    assert(store->short_names.used_count == 0);
    assert(store->long_names.used_count == 0);
    assert(store->prepared.used_count == 0);
    assert(store->expectations.used_count == 0);
    assert(store->text_bytes == 0);
    assert(buffers.receive_used == 0);
    assert(usage_count(&usage.client_count) == 0);
    assert(sim_started_ops(sim) == 1); /* accept */
    list_for_each(link, &core.pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);

        assert(pool->cancel_count == 0);
        assert(pool->sharing.server_count == 0);
        assert(pool->sharing.queued_count == 0);
        assert(pool->sharing.waiting_count == 0);
        assert(!pool->sharing.wants_server);
    }
    if (parked_at_rest == 0)
        parked_at_rest = buffers.parked_bytes; /* what the pool learned from its first server */
    assert(buffers.parked_bytes == parked_at_rest);
}

/* Variants: bit 0: pool_size 1, not 2; bits 1, 2: server_sharing; bits 3, 4: the rest. */
static char *variant_text(unsigned variant, struct arena *arena, size_t *bytes)
{
    static const char *const sharing[] = {"1", "auto", "2", "off"};
    static const char *const rest[] = {
        "max_prepared_statements = 200\n",
        "max_prepared_statements = 0\n",
        "max_prepared_statements = 1\n",
        "max_prepared_statements = 200\nquery_timeout = 10\n",
    };
    char text[512];

    *bytes =
        (size_t)snprintf(text, sizeof(text),
                         "[databases]\n"
                         "d = host=127.0.0.1 port=5432 user=owner pool_size=%d\n"
                         "[pgbouncer]\n"
                         "auth_type = any\n"
                         "listen_port = 6432\n"
                         "pool_mode = transaction\n"
                         "%s"
                         "[pgsplice]\n"
                         "server_sharing = %s\n",
                         2 - (int)(variant & 1), rest[variant >> 3 & 3], sharing[variant >> 1 & 3]);
    return arena_copy_string(arena, text);
}

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    (void)path;
    return variant_text(*(const unsigned *)context, arena, bytes);
}

static void report(void *context, enum log_level level, const char *text)
{
    (void)context;
    if (level <= LEVEL_ERROR)
        fprintf(stderr, "%s\n", text);
}

static struct snapshot *snapshot_of(unsigned variant)
{
    if (snapshots[variant] == NULL)
        snapshots[variant] =
            snapshot_load_through(open_config, &variant, "pgsplice.ini", NULL, report, NULL);
    if (snapshots[variant] == NULL)
        never("no configuration");
    snapshot_reference(snapshots[variant]);
    return snapshots[variant];
}

static void use_variant(unsigned variant)
{
    is_untracked |= (variant >> 3 & 3) == 1;
    is_noticed |= (variant >> 1 & 3) == 3;
    if (is_untracked)
        for (unsigned i = 0; i < PERSONS; i++)
            if (!people[i].is_plain)
                person_deviates(&people[i], "names are not tracked any more");
    core_set_snapshot(&core, snapshot_of(variant));
}

/* All classes are known to be short: the way there is not what is looked for here. */
static void learn_classes(struct pool *pool)
{
    static const char tag[] = "tag";
    struct statement_time *time;
    uint64_t hash;
    char text[128];
    bool is_new;

    pool->sharing.times = slab_take(&core.statement_times);
    assert(pool->sharing.times != NULL);
    memset(pool->sharing.times, 0, sizeof(*pool->sharing.times));
    for (unsigned i = 0; i < COUNT_OF(texts); i++) {
        snprintf(text, sizeof(text), texts[i].text, tag);
        if (statement_class(text, strlen(text), true, true, &hash) != STATEMENT_SHARES)
            continue;
        time = statement_times_make(pool->sharing.times, hash, core.loop.now_us, &is_new);
        for (unsigned n = 0; n < 2 * STATEMENT_TIMES_KNOWN_MIN; n++)
            statement_times_note(time, 50, true, false);
        assert(time->follow == FOLLOW_YES);
    }
}

/* The second byte: bit 0: no class is known yet. */
static void configure(struct program *program)
{
    unsigned variant = take_number(program, VARIANTS);
    unsigned flags = take_number(program, 2);

    is_foreign = servers_end = is_meddled = time_passed = is_untracked = is_noticed = false;
    params_change = false;
    schema_version = 0;
    random_state = 1;
    core.id_last = 0;
    memset(core.statements.sightings, 0, STATEMENT_SIGHTINGS * sizeof(uint64_t));
    list_for_each(link, &core.pool_list)
    {
        struct pool *pool = OWNER_OF(link, struct pool, link);

        sharing_release(pool);
        memset(&pool->sharing, 0, sizeof(pool->sharing));
        sharing_init(pool);
        pool_try_now(pool);
        if ((flags & 1) == 0)
            learn_classes(pool);
    }
    use_variant(variant);
}

static void everything_ends(void)
{
    core_resume(&core, NULL);
    for (unsigned i = 0; i < PERSONS; i++) {
        people[i].is_stalled = false;
        if (!people[i].is_malformed && people[i].reference.in_batch)
            person_says(&people[i], 'S', NULL, 0);
    }
    /* As long as the pipes take it. */
    for (bool has_more = true; has_more;) {
        has_more = false;
        for (unsigned i = 0; i < PERSONS; i++) {
            size_t before = stream_bytes(&people[i].out);

            person_sends(&people[i], SIZE_MAX);
            has_more |= stream_bytes(&people[i].out) < before;
        }
        settle(true);
    }
    /* Pauses after failed logins. */
    for (unsigned i = 0; i < 4 && (servers_end || is_foreign || time_passed); i++) {
        time_passed = true;
        sim_advance(sim, 20 * US_PER_S);
        settle(true);
    }
    /* One may wait for the server of the other. */
    for (unsigned round = 0; round <= PERSONS; round++)
        for (unsigned i = 0; i < PERSONS; i++)
            if (people[i].peer != NULL && (round == PERSONS || !person_waits(&people[i]))) {
                check_answered(&people[i]);
                person_leaves(&people[i], false);
                settle(true);
            }
    for (unsigned i = 0; i < PERSONS; i++)
        people[i].incarnation = 0;
    for (unsigned i = 0; i < CANCELS_MAX; i++)
        if (cancels[i] != NULL) {
            sim_peer_close(cancels[i]);
            cancels[i] = NULL;
        }
    for (unsigned i = 0; i < BACKENDS; i++)
        if (backends[i].peer != NULL)
            backend_ends(&backends[i]);
    settle(true);
    sim_advance(sim, 200 * US_PER_S);
    settle(true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct program program = {data, data + bytes};

    sim_reseed(sim, 1);
    configure(&program);
    for (unsigned i = 0; i < PERSONS; i++)
        person_comes(&people[i]);
    settle(false);
    run_program(&program);
    everything_ends();
    check_rest();
    return 0;
}

/* ---- the core ---- */

static void trace_log(enum log_level level, const char *text, size_t bytes)
{
    if (is_traced)
        fprintf(stderr, "    %s %.*s\n", log_level_name(level), (int)bytes, text);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    static const struct core_ports ports = {
        .post_core = post_core,
        .post_control = post_control,
        .post_job = post_job,
        .random = give_random,
    };
    static const uint8_t mock_key[32] = {1};
    static char storage[256];
    struct sockaddr_in server_address = {.sin_family = AF_INET, .sin_port = htons(5432)};
    struct ring_options ring_options = {
        .entries = 64, .completion_entries = 64, .buffers = &buffers};
    struct core_options options = {
        .count = 1,
        .client_count_max = 64,
        .buffers = &buffers,
        .usage = &usage,
        .shards = &shards,
        .param_names = &param_names,
        .mock_key = mock_key,
        .ports = &ports,
    };
    char error[RING_ERROR_BYTES];
    int listen_fd;

    (void)count;
    (void)arguments;
    is_traced = getenv("FUZZ_TRACE") != NULL;
    log_set_sink(trace_log);
    sim = sim_create(1);
    sim_set_pipe_bytes(sim, PIPE_BYTES);
    mailbox_init(&mailbox);
    if (!buffer_pool_init(&buffers, RECEIVE_BYTES, RECEIVE_COUNT) || !usage_table_init(&usage) ||
        !shard_table_init(&shards, 1))
        never("no memory");
    ring = options.ring = ring_create(&ring_options, error);
    assert(ring != NULL);
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    options.snapshot = snapshot_of(0);
    options.now_us = sim_now_us(sim);
    if (!core_init(&core, &options))
        never("no memory");
    server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sim_serve(sim, (struct sockaddr *)&server_address, sizeof(server_address), server_comes, NULL);
    listen_fd = sim_listen(sim, (const struct sockaddr *)&listen_address, sizeof(listen_address));
    accept_op.done = accepted;
    ring_accept(ring, &accept_op, listen_fd);
    /* From now on all inputs find the same: a pool that has its welcome. */
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"01qa.+", 6);
    return 0;
}
