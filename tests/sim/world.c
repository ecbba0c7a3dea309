#include "world.h"

#include "wire/message.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SERVER_SCRAM_ITERATIONS = 2, ERROR_BYTES_MAX = 256, ALPHABET = 26 };

struct world world;

const struct database databases[DATABASES] = {
    {"shop", "shop", NULL},
    {"store", "warehouse", NULL},
    {"fixed", "fixed", "alice"},
};

const struct login_name login_names[LOGINS] = {
    {"bob", "bob's"},
    {"alice", "alice's"},
    {"carol", "carol's"},
};

const char auth_query_text[] = "SELECT name, secret FROM users WHERE name = $1";

const char *login_secret(unsigned login)
{
    return login == LOGINS - 1 && world.carol_is_scram_only ? world.carol_secret
                                                            : login_names[login].password;
}

/* ---- bytes ---- */

void heap_put(struct heap *heap, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    if (heap->begin == heap->end)
        heap->begin = heap->end = 0;
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

void heap_free(struct heap *heap)
{
    free(heap->data);
    *heap = (struct heap){0};
}

void put_message(struct heap *heap, char type, const void *body, size_t bytes)
{
    uint8_t header[5] = {(uint8_t)type};

    bytes_put_u32(header + 1, (uint32_t)(bytes + 4));
    heap_put(heap, header, 5);
    heap_put(heap, body, bytes);
}

bool take_message(struct heap *heap, char *type, const uint8_t **body, size_t *bytes)
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

void put_error(struct heap *heap, const char *severity, const char *sqlstate, const char *format,
               ...)
{
    char message[ERROR_BYTES_MAX / 2];
    uint8_t body[ERROR_BYTES_MAX];
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
    if (strcmp(sqlstate, "0A000") == 0) {
        writer_put_u8(&writer, 'R'); /* by which this one is told from others of its class */
        writer_put_string(&writer, "RevalidateCachedQuery");
    }
    writer_put_u8(&writer, 0);
    assert(!writer.overflow);
    put_message(heap, 'E', body, writer.bytes);
}

void put_authentication(struct heap *heap, uint32_t code, const void *data, size_t bytes)
{
    uint8_t body[SCRAM_MESSAGE_BYTES_MAX];
    struct writer writer;

    writer_init(&writer, body, sizeof(body));
    writer_put_u32(&writer, code);
    writer_put(&writer, data, bytes);
    assert(!writer.overflow);
    put_message(heap, 'R', body, writer.bytes);
}

/* ---- questions and answers ---- */

/* Classes differ in what is no literal. Some have bytes that a doubt may be about: a backslash, UTF-8. */
static const char *const shares[] = {
    "SELECT 'Q %u %u %u %u%s' AS rows",
    "select 'Q %u %u %u %u%s' as rows ; ",
    "SELECT lower('Q %u %u %u %u%s') AS rows",
    "SELECT 'Q %u %u %u %u%s' AS rows -- \\ \xc3\xa9",
    "SELECT '\xc3\xa9' AS more, 'Q %u %u %u %u%s' AS rows",
    "SELECT '\\' AS more, 'Q %u %u %u %u%s' AS rows",
    "VALUES ('Q %u %u %u %u%s')",
};
/* Of which some sleep, or most. */
static const char *const shares_mixed[] = {
    "SELECT 'Q %u %u %u %u%s' AS mixed",
    "WITH w AS (SELECT 'Q %u %u %u %u%s' AS c) SELECT c FROM w"};
static const char shares_slow[] = "SELECT 'Q %u %u %u %u%s' AS slow";
static const char *const nearly[] = {
    "SELECT 'Q %u %u %u %u%s' AS rows FOR UPDATE",
    "SELECT 'Q %u %u %u %u%s' AS rows; SELECT 1",
    "SELECT pg_backend_pid(), 'Q %u %u %u %u%s' AS rows",
    "SELECT 'Q %u %u %u %u%s' AS rows INTO somewhere",
    "WITH w AS (INSERT INTO t VALUES (1)) SELECT 'Q %u %u %u %u%s' AS rows",
    "EXPLAIN SELECT 'Q %u %u %u %u%s' AS rows",
    "SELECT mine('Q %u %u %u %u%s')",
};

static const char *question_format(const struct asked *asked)
{
    bool sleeps = asked->kind == KIND_SLEEP || asked->kind == KIND_ROWS_SLEEP;

    switch (asked->form) {
    case FORM_SHARES:
        if (asked->arg % 9 == (sleeps ? 0 : 1))
            return shares_mixed[asked->arg / 9 % COUNT_OF(shares_mixed)];
        return sleeps && asked->arg % 13 > 0 ? shares_slow
                                             : shares[asked->arg / 9 % COUNT_OF(shares)];
    case FORM_NEARLY:
        return nearly[asked->arg / 9 % COUNT_OF(nearly)];
    default:
        return "Q %u %u %u %u%s";
    }
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
size_t make_question(char text[QUESTION_BYTES_MAX], const struct asked *asked)
{
    char padding[QUESTION_BYTES_MAX] = "";

    if (question_is_long(asked->arg)) {
        size_t bytes = asked->arg % 6000;

        padding[0] = ' ';
        memset(padding + 1, '-', bytes);
        padding[1 + bytes] = '\0';
    }
    return (size_t)snprintf(text, QUESTION_BYTES_MAX, question_format(asked), asked->owner,
                            asked->number, asked->kind, asked->arg, padding) +
           1;
}
#pragma GCC diagnostic pop

bool read_question(const char *text, struct asked *asked)
{
    const char *at = strncmp(text, "Q ", 2) == 0 ? text : strstr(text, "'Q ");
    char wanted[QUESTION_BYTES_MAX];

    if (at == NULL)
        return false;
    assert(sscanf(at + (at != text), "Q %u %u %u %u", &asked->owner, &asked->number, &asked->kind,
                  &asked->arg) == 4);
    asked->form = at == text ? FORM_PLAIN : FORM_SHARES;
    do {
        (void)make_question(wanted, asked);
        if (strcmp(wanted, text) == 0)
            return true;
    } while (++asked->form < FORMS);
    never("a question that nobody has asked");
}

/* ---- parameters ---- */

const char *const world_param_names[WORLD_PARAMS] = {
    "application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"};
const char *const world_param_values[WORLD_PARAMS][PARAM_VALUES] = {
    {"app0", "app1", "app2"},
    {"UTF8", "LATIN1", "SJIS"},
    {"ISO, MDY", "German, DMY", "SQL, DMY"},
    {"UTC", "Europe/Berlin", "Asia/Tokyo"},
    {"on", "off", "on"},
};

unsigned find_world_param(const char *name)
{
    unsigned param = 0;

    while (param < WORLD_PARAMS && strcasecmp(world_param_names[param], name) != 0)
        param++;
    return param;
}

void make_params_text(char text[PARAMS_TEXT_BYTES_MAX], const world_params values)
{
    snprintf(text, PARAMS_TEXT_BYTES_MAX, "%s|%s|%s|%s|%s", values[PARAM_NAME],
             values[PARAM_ENCODING], values[PARAM_DATE], values[PARAM_ZONE], values[PARAM_STRINGS]);
}

unsigned row_count(unsigned arg)
{
    return arg % 8;
}

unsigned row_bytes(unsigned arg)
{
    return arg / 8 % 23 == 0 ? 3000 + arg % 9000 : 40 + arg % 200;
}

static char filler[ROW_BYTES_MAX + ALPHABET];

size_t make_row(char text[ROW_BYTES_MAX], const struct question *question, unsigned row,
                const char *params, unsigned bytes)
{
    size_t at =
        (size_t)snprintf(text, ROW_TEXT_BYTES_MAX, "A %u %u %u %u %u [%s] ", question->owner,
                         question->number, question->statement, question->version, row, params);
    unsigned letter = (question->owner * 7 + question->number * 5 + row * 3) % ALPHABET;

    if (at < bytes) {
        memcpy(text + at, filler + letter, bytes - at);
        at = bytes;
    }
    return at;
}

/* ---- prepared statements ---- */

enum {
    CLASSES = 6, /* of texts: one is not a query */
    CLASS_CALL = 5,
    QUOTED = 5,         /* with a literal in quotes, which some look at more closely */
    PREPARED_ALONE = 4, /* with sharing: calls a function that nobody knows */
    LONG = 7,           /* more than a receive buffer */
    LONG_BYTES_MIN = 2000,
    LONG_BYTES_MORE = 5000,
};

static bool is_special(unsigned statement)
{
    return statement > STATEMENT_SHARED_LAST && statement < STATEMENT_PRIVATE_FIRST;
}

bool statement_shares(unsigned statement)
{
    unsigned number = statement / 2;

    return world.has_sharing && statement != STATEMENT_TEXT && !is_special(statement) &&
           number % CLASSES != CLASS_CALL && number % PREPARED_ALONE != 0;
}

size_t make_statement(char text[STATEMENT_TEXT_BYTES_MAX], unsigned statement)
{
    unsigned number = statement / 2;
    size_t bytes;

    if (statement == STATEMENT_DISCARD_ALL) {
        bytes = (size_t)sprintf(text, "DISCARD ALL");
    } else if (statement == STATEMENT_DEALLOCATE_ALL) {
        bytes = (size_t)sprintf(text, "DEALLOCATE ALL");
    } else if (is_special(statement)) {
        char name[STATEMENT_NAME_ROOM];

        make_statement_name(name, 0, statement - STATEMENT_DEALLOCATE_FIRST);
        bytes = (size_t)sprintf(text, "DEALLOCATE %s", name);
    } else {
        const char *format = statement_shares(statement) && number % QUOTED == 0
                                 ? "SELECT lower('%u') AS prepared"
                             : statement_shares(statement)    ? "SELECT lower(%u) AS prepared"
                             : number % CLASSES == CLASS_CALL ? "CALL prepared(%u)"
                             : number % QUOTED == 0           ? "SELECT prepared('%u')"
                                                              : "SELECT prepared(%u)";

        bytes = (size_t)snprintf(text, STATEMENT_TEXT_BYTES_MAX, format, number);
        if (number % LONG == 3) {
            size_t more = LONG_BYTES_MIN + number * 997 % LONG_BYTES_MORE;

            memset(text + bytes, ' ', more);
            bytes += more;
            text[bytes] = '\0';
        }
    }
    return bytes + 1;
}

unsigned read_statement(const char *text, unsigned type_count)
{
    char wanted[STATEMENT_TEXT_BYTES_MAX];
    unsigned statement = STATEMENT_DISCARD_ALL;
    const char *digits = strpbrk(text, "0123456789");

    assert(type_count <= 1);
    if (strncmp(text, "DE", 2) == 0) {
        statement = STATEMENT_DEALLOCATE_ALL;
        do {
            (void)make_statement(wanted, statement);
        } while (strcmp(wanted, text) != 0 && ++statement < STATEMENT_PRIVATE_FIRST);
    } else if (strncmp(text, "DI", 2) != 0) {
        assert(digits != NULL);
        statement = (unsigned)strtoul(digits, NULL, 10) * 2 + type_count;
    }
    (void)make_statement(wanted, statement);
    assert(strcmp(text, wanted) == 0);
    return statement;
}

bool statement_returns_rows(unsigned statement)
{
    return statement != STATEMENT_TEXT && !is_special(statement) &&
           !statement_ends_transaction(statement);
}

enum { TYPE_FIRST = 5000, TYPE_BYTES = 8 };

size_t make_description(uint8_t body[DESCRIPTION_BYTES_MAX], unsigned statement, unsigned version,
                        uint32_t table)
{
    char name[DESCRIPTION_BYTES_MAX / 2];
    struct writer writer;

    snprintf(name, sizeof(name), "s%u_%u", statement, (version + 1) / 2);
    writer_init(&writer, body, DESCRIPTION_BYTES_MAX);
    writer_put_u16(&writer, 1);
    writer_put_string(&writer, name);
    writer_put_u32(&writer, table);
    writer_put_u16(&writer, 1);
    writer_put_u32(&writer, TYPE_FIRST + version / 2);
    writer_put_u16(&writer, TYPE_BYTES);
    writer_put_u32(&writer, UINT32_MAX);
    writer_put_u16(&writer, 0);
    assert(!writer.overflow);
    return writer.bytes;
}

unsigned read_description(const uint8_t *body, size_t bytes, unsigned statement)
{
    uint8_t wanted[DESCRIPTION_BYTES_MAX];
    const char *name = (const char *)body + 2;
    const uint8_t *table = (const uint8_t *)name + strlen(name) + 1;
    unsigned named, half;

    assert(sscanf(name, "s%u_%u", &named, &half) == 2);
    half += bytes_get_u32(table + 6) - TYPE_FIRST;
    assert(bytes == make_description(wanted, statement, half, bytes_get_u32(table)));
    assert(memcmp(wanted, body, bytes) == 0);
    return half;
}

bool statement_ends_transaction(unsigned statement)
{
    return statement != STATEMENT_TEXT && !is_special(statement) &&
           statement / 2 % CLASSES == CLASS_CALL;
}

unsigned statement_owner(unsigned statement)
{
    return statement < STATEMENT_PRIVATE_FIRST
               ? 0
               : (statement - STATEMENT_PRIVATE_FIRST) / STATEMENTS_OF_OWNER;
}

void make_statement_name(char name[STATEMENT_NAME_ROOM], unsigned owner, unsigned index)
{
    assert(index < STATEMENT_NAMES);
    if (index == 0) {
        name[0] = '\0';
    } else if (index < STATEMENT_NAME_OF_OWNER) {
        sprintf(name, "s%u", index);
    } else if (index == STATEMENT_NAME_OF_OWNER) {
        sprintf(name, "o%u", owner);
    } else {
        memset(name, 'n', STATEMENT_NAME_BYTES_OF_POSTGRES);
        sprintf(name + STATEMENT_NAME_BYTES_OF_POSTGRES, "_%u", index);
    }
}

/* ---- the whole ---- */

void world_begin(void)
{
    struct sim *sim = world.sim;

    world = (struct world){.sim = sim,
                           .is_logged = getenv("SIM_LOG") != NULL,
                           .copy_fails_early = getenv("SIM_COPY_FAILS_EARLY") != NULL};
    for (size_t i = 0; i < sizeof(filler); i++)
        filler[i] = (char)('a' + i % ALPHABET);
    for (unsigned i = 0; i < LOGINS; i++) {
        const struct login_name *login = &login_names[i];
        uint8_t salted[SCRAM_KEY_BYTES];
        uint8_t salt[SCRAM_SALT_DEFAULT_BYTES] = {(uint8_t)(i + 1), 2, 3};

        scram_salted_password(login->password, strlen(login->password), salt, sizeof(salt),
                              SERVER_SCRAM_ITERATIONS, salted);
        scram_secret_make(&world.secrets[i], salted, salt, sizeof(salt), SERVER_SCRAM_ITERATIONS);
    }
    (void)scram_secret_format(&world.secrets[LOGINS - 1], world.carol_secret);
}

void world_log_line(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%9llu ", (unsigned long long)(world_now_us() % 1000000000));
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}
