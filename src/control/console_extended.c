#include "control/console_session.h"

#include <stdlib.h>
#include <string.h>

static struct console_statement *statement_find(struct session *session, const char *name,
                                                bool is_portal)
{
    for (unsigned i = 0; i < session->statement_count; i++)
        if (session->statements[i].is_portal == is_portal &&
            strcmp(session->statements[i].name, name) == 0)
            return &session->statements[i];
    return NULL;
}

static void statement_drop(struct session *session, struct console_statement *statement)
{
    free(statement->text);
    *statement = session->statements[--session->statement_count];
}

static bool statement_keep(struct session *session, const char *name, bool is_portal,
                           const char *text)
{
    struct console_statement *statement = statement_find(session, name, is_portal);

    if (statement != NULL)
        statement_drop(session, statement);
    if (session->statement_count == CONSOLE_STATEMENTS_MAX ||
        strlen(name) >= sizeof(statement->name))
        return false;
    statement = &session->statements[session->statement_count++];
    strcpy(statement->name, name);
    statement->is_portal = is_portal;
    statement->text = strdup(text);
    assert(statement->text != NULL);
    return true;
}

static void extended_failed(struct session *session, const char *text)
{
    console_error(session, text);
    session->skips_to_sync = true;
}

static void extended_describe(struct session *session, const struct console_statement *statement)
{
    struct console_command command;
    const struct show_table *table = NULL;
    uint8_t none[2] = {0, 0};

    if (!statement->is_portal)
        show_message(&session->output, 't', none, sizeof(none));
    if (console_command_parse(statement->text, &command) == CONSOLE_OK && command.has_argument &&
        (strcmp(command.word, "SHOW") == 0 || strcmp(command.word, "SELECT") == 0))
        table = show_find(command.argument);
    if (table != NULL && table->columns[0].name != NULL)
        show_row_description(&session->output, table);
    else
        show_message(&session->output, 'n', NULL, 0);
}

void console_extended(struct session *session, uint8_t type, struct reader *reader)
{
    const struct console_statement *statement;
    const char *name;
    const char *text;
    uint8_t what;

    switch (type) {
    case 'P':
        name = reader_get_string(reader);
        text = reader_get_string(reader);
        if (text == NULL)
            extended_failed(session, "broken Parse packet");
        else if (!statement_keep(session, name, false, text))
            extended_failed(session, "too many prepared statements");
        else
            show_message(&session->output, '1', NULL, 0);
        break;
    case 'B':
        name = reader_get_string(reader);
        text = reader_get_string(reader);
        statement = text != NULL ? statement_find(session, text, false) : NULL;
        if (statement == NULL)
            extended_failed(session, "prepared statement did not exist");
        else if (!statement_keep(session, name, true, statement->text))
            extended_failed(session, "too many portals");
        else
            show_message(&session->output, '2', NULL, 0);
        break;
    case 'D':
    case 'C':
        what = reader_get_u8(reader);
        name = reader_get_string(reader);
        statement = name != NULL ? statement_find(session, name, what == 'P') : NULL;
        if (type == 'C') {
            if (statement != NULL)
                statement_drop(session, (struct console_statement *)statement);
            show_message(&session->output, '3', NULL, 0);
        } else if (statement == NULL) {
            extended_failed(session, "prepared statement did not exist");
        } else {
            extended_describe(session, statement);
        }
        break;
    case 'E':
        name = reader_get_string(reader);
        statement = name != NULL ? statement_find(session, name, true) : NULL;
        if (statement == NULL) {
            extended_failed(session, "portal did not exist");
            break;
        }
        session->is_extended = true;
        if (statement->text[strspn(statement->text, " \t\r\n;")] == '\0') {
            show_message(&session->output, 'I', NULL, 0);
            break;
        }
        console_run(session, statement->text);
        break;
    default:
        break;
    }
}

void console_extended_release(struct session *session)
{
    while (session->statement_count > 0)
        statement_drop(session, &session->statements[0]);
}
