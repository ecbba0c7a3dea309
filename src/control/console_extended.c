#include "control/console_session.h"

#include "control/console_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As PostgreSQL does it: an error skips to Sync, Sync ends all portals, what a portal has not given
 * yet waits in it. */

static struct console_statement *find(struct session *session, const char *name, bool is_portal)
{
    for (unsigned i = 0; i < session->statement_count; i++)
        if (session->statements[i].is_portal == is_portal &&
            strcmp(session->statements[i].name, name) == 0)
            return &session->statements[i];
    return NULL;
}

static void drop(struct session *session, struct console_statement *statement)
{
    free(statement->rest);
    *statement = session->statements[--session->statement_count];
}

static void fail(struct session *session, const char *sqlstate, const char *text)
{
    console_error(session, sqlstate, text);
    session->skips_to_sync = true;
}

static void fail_name(struct session *session, const char *sqlstate, const char *format,
                      const char *name)
{
    char text[192];

    snprintf(text, sizeof(text), format, name);
    fail(session, sqlstate, text);
}

/* An empty one of that name, or NULL: an error was sent. */
static struct console_statement *make(struct session *session, const char *name, bool is_portal)
{
    struct console_statement *statement = find(session, name, is_portal);

    if (statement != NULL && name[0] != '\0') {
        fail_name(session, is_portal ? "42P03" : "42P05",
                  is_portal ? "cursor \"%.63s\" already exists"
                            : "prepared statement \"%.63s\" already exists",
                  name);
        return NULL;
    }
    if (statement != NULL)
        drop(session, statement);
    if (strlen(name) >= sizeof(statement->name)) {
        fail_name(session, "42622", "the name \"%.63s...\" is too long", name);
        return NULL;
    }
    if (session->statement_count == CONSOLE_STATEMENTS_MAX) {
        fail(session, "53400", "too many prepared statements and portals on the admin console");
        return NULL;
    }
    if (session->statement_count == session->statement_max) {
        session->statement_max = MAX(session->statement_max * 2, 8U);
        session->statements =
            realloc(session->statements, session->statement_max * sizeof(*session->statements));
        assert(session->statements != NULL);
    }
    statement = &session->statements[session->statement_count++];
    *statement = (struct console_statement){.is_portal = is_portal};
    strcpy(statement->name, name);
    return statement;
}

static void no_statement(struct session *session, const char *name)
{
    if (name[0] == '\0')
        fail(session, "26000", "unnamed prepared statement does not exist");
    else
        fail_name(session, "26000", "prepared statement \"%.63s\" does not exist", name);
}

static void take_parse(struct session *session, const struct console_message *message)
{
    struct console_command command;
    struct console_statement *statement;

    if (!console_check(session, message->source, &command)) {
        session->skips_to_sync = true;
        return;
    }
    statement = make(session, message->name, false);
    if (statement == NULL)
        return;
    statement->command = command;
    show_message(&session->output, '1', NULL, 0);
}

static void take_bind(struct session *session, const struct console_message *message)
{
    const struct console_statement *statement = find(session, message->source, false);
    struct console_statement *portal;
    const struct show_table *table;
    struct console_command command;
    unsigned column_count;
    char text[192];

    if (statement == NULL) {
        no_statement(session, message->source);
        return;
    }
    command = statement->command; /* `make` may move it */
    if (message->bad_format != 0) {
        snprintf(text, sizeof(text), "unsupported format code: %d", message->bad_format);
        fail(session, "22023", text);
        return;
    }
    if (message->parameter_count > 0) {
        snprintf(text, sizeof(text),
                 "bind message supplies %u parameters, but prepared statement \"%s\" requires 0",
                 message->parameter_count, statement->name);
        fail(session, NULL, text);
        return;
    }
    table = console_table(&command);
    column_count = table != NULL ? show_column_count(&session->output, table) : 0;
    if (message->format_count > 1 && message->format_count != column_count) {
        snprintf(text, sizeof(text), "bind message has %u result formats but query has %u columns",
                 message->format_count, column_count);
        fail(session, NULL, text);
        return;
    }
    portal = make(session, message->name, true);
    if (portal == NULL)
        return;
    portal->command = command;
    portal->binary_columns = message->binary_columns;
    if (message->format_count == 1 && message->binary_columns != 0)
        portal->binary_columns = UINT64_MAX; /* one for all */
    show_message(&session->output, '2', NULL, 0);
}

static void take_describe(struct session *session, const struct console_message *message)
{
    const struct console_statement *statement = find(session, message->name, message->is_portal);
    const struct show_table *table;
    uint8_t none[2] = {0, 0};

    if (statement == NULL) {
        if (message->is_portal)
            fail_name(session, "34000", "portal \"%.63s\" does not exist", message->name);
        else
            no_statement(session, message->name);
        return;
    }
    if (!message->is_portal)
        show_message(&session->output, 't', none, sizeof(none));
    table = console_table(&statement->command);
    session->output.binary_columns = statement->binary_columns;
    if (table != NULL && show_column_count(&session->output, table) > 0)
        show_row_description(&session->output, table);
    else
        show_message(&session->output, 'n', NULL, 0);
}

/* How many bytes of the messages at `data` come before row number `row_limit` (from 0); all of them
 * when there are no more rows than that. */
static size_t bytes_of_rows(const uint8_t *data, size_t bytes, uint32_t row_limit)
{
    size_t position = 0;
    uint32_t row_count = 0;

    while (position < bytes) {
        if (data[position] == 'D' && row_count++ == row_limit)
            return position;
        position += 1 + bytes_get_u32(data + position + 1);
    }
    assert(position == bytes);
    return bytes;
}

/* Rows that the portal still has. */
static void execute_rest(struct session *session, struct console_statement *portal)
{
    size_t bytes = portal->rest_bytes;

    if (session->row_limit > 0)
        bytes = bytes_of_rows(portal->rest, bytes, session->row_limit);
    output_put(&session->output, portal->rest, bytes);
    portal->rest_bytes -= bytes;
    if (portal->rest_bytes > 0) {
        memmove(portal->rest, portal->rest + bytes, portal->rest_bytes);
        show_message(&session->output, 's', NULL, 0);
    } else {
        show_complete(&session->output, "SHOW");
    }
}

static void take_execute(struct session *session, const struct console_message *message)
{
    struct console_statement *portal = find(session, message->name, true);

    if (portal == NULL) {
        fail_name(session, "34000", "portal \"%.63s\" does not exist", message->name);
        return;
    }
    session->row_limit = message->row_limit;
    if (portal->was_run) {
        if (console_table(&portal->command) != NULL)
            execute_rest(session, portal);
        else
            fail_name(session, "55000", "portal \"%.63s\" cannot be run", message->name);
        return;
    }
    portal->was_run = true;
    if (portal->command.word[0] == '\0') {
        show_message(&session->output, 'I', NULL, 0);
        return;
    }
    session->is_extended = true;
    session->executed = portal;
    session->execute_begin = session->output.bytes;
    session->output.binary_columns = portal->binary_columns;
    session->command = portal->command;
    console_run(session);
}

void console_extended_complete(struct session *session, const char *tag)
{
    struct console_statement *portal = session->executed;
    struct output *output = &session->output;

    if (session->row_limit > 0) {
        /* Nothing was sent since the Execute began (console.c): what is too much is taken back. */
        const uint8_t *rows = output->data + session->execute_begin;
        size_t bytes = output->bytes - session->execute_begin;
        size_t given = bytes_of_rows(rows, bytes, session->row_limit);

        if (given < bytes) {
            portal->rest_bytes = bytes - given;
            portal->rest = malloc(portal->rest_bytes);
            assert(portal->rest != NULL);
            memcpy(portal->rest, rows + given, portal->rest_bytes);
            output->bytes -= portal->rest_bytes;
            show_message(output, 's', NULL, 0);
            return;
        }
    }
    show_complete(output, tag);
}

void console_extended(struct session *session, uint8_t type, const uint8_t *body, size_t bytes)
{
    static const char *const names[] = {
        ['P'] = "Parse", ['B'] = "Bind", ['D'] = "Describe", ['C'] = "Close", ['E'] = "Execute"};
    struct console_message message;
    struct console_statement *statement;
    char text[64];

    if (!console_message_read(type, body, bytes, &message)) {
        snprintf(text, sizeof(text), "broken %s packet", names[type]);
        console_fatal(session, text);
        return;
    }
    switch (type) {
    case 'P':
        take_parse(session, &message);
        break;
    case 'B':
        take_bind(session, &message);
        break;
    case 'D':
        take_describe(session, &message);
        break;
    case 'C':
        statement = find(session, message.name, message.is_portal);
        if (statement != NULL)
            drop(session, statement);
        show_message(&session->output, '3', NULL, 0);
        break;
    default:
        take_execute(session, &message);
    }
}

void console_extended_sync(struct session *session)
{
    for (unsigned i = session->statement_count; i-- > 0;)
        if (session->statements[i].is_portal)
            drop(session, &session->statements[i]);
}

void console_extended_simple(struct session *session)
{
    struct console_statement *unnamed = find(session, "", false);

    if (unnamed != NULL)
        drop(session, unnamed);
    console_extended_sync(session);
}

void console_extended_release(struct session *session)
{
    for (unsigned i = 0; i < session->statement_count; i++)
        free(session->statements[i].rest);
    free(session->statements);
}
