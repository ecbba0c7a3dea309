#include "control/console_session.h"

#include "control/console.h"
#include "control/control.h"
#include "control/merge.h"
#include "control/tls_setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { PAUSE_LOOK_US = 20 * 1000 };

/* Databases that a console command has paused or disabled; the workers have the same. */
static struct flagged {
    char name[DATABASE_NAME_BYTES_MAX];
    bool is_paused, is_disabled;
} * flagged;
static size_t flagged_count;

static struct flagged *flag_of(const char *name)
{
    for (size_t i = 0; i < flagged_count; i++)
        if (strcmp(flagged[i].name, name) == 0)
            return &flagged[i];
    flagged = realloc(flagged, (flagged_count + 1) * sizeof(*flagged));
    assert(flagged != NULL);
    flagged[flagged_count] = (struct flagged){0};
    snprintf(flagged[flagged_count].name, sizeof(flagged->name), "%s", name);
    return &flagged[flagged_count++];
}

bool console_is_paused(const char *name)
{
    for (size_t i = 0; i < flagged_count; i++)
        if (strcmp(flagged[i].name, name) == 0)
            return flagged[i].is_paused;
    return false;
}

bool console_is_disabled(const char *name)
{
    for (size_t i = 0; i < flagged_count; i++)
        if (strcmp(flagged[i].name, name) == 0)
            return flagged[i].is_disabled;
    return false;
}

static void answer_command(struct request *request)
{
    struct session *session = request->owner;
    bool found = request->found;
    enum command_kind kind = request->command.kind;

    session->request = NULL;
    request_release(request);
    if (kind == COMMAND_KILL_CLIENT && !found)
        console_failed(session, "client not found");
    else
        console_complete(session,
                         kind == COMMAND_SNAPSHOT && strcmp(session->command.word, "SET") == 0
                             ? session->set_tag
                             : session->command.word);
    console_go_on(session);
}

/* PAUSE answers when no server is at work any more. */
static void pause_looked(struct request *request)
{
    struct session *session = request->owner;

    if (request->counts.busy_servers > 0 &&
        (request->database[0] != '\0' ? console_is_paused(request->database)
                                      : control_mode() == CONTROL_PAUSED)) {
        request_again(request, control_now_us() + PAUSE_LOOK_US);
        return;
    }
    console_request_over(session, request);
}

static void pause_sent(struct request *request)
{
    request->done = pause_looked;
    request_report(request, REPORT_COUNTS);
}

static void closed_looked(struct request *request)
{
    struct session *session = request->owner;
    const struct socket_row *servers = request->rows;

    for (size_t i = 0; i < request->row_count; i++)
        if (servers[i].close_needed &&
            (request->database[0] == '\0' || strcmp(servers[i].database, request->database) == 0)) {
            request_again(request, control_now_us() + PAUSE_LOOK_US);
            return;
        }
    console_request_over(session, request);
}

/* Stands for a session that has gone while what it began has to be finished. */
static char nobody;

/* KILL of everything: which databases have a pool is asked first, so that all workers pause the
 * same ones; then one after the other is killed on all of them. */
static void kill_next(struct request *request)
{
    struct session *session = request->owner;
    struct pool_row *pools = request->rows;

    if (request->row_count == 0) {
        bool is_told = request->owner != &nobody;

        request_release(request);
        if (!is_told)
            return;
        session->request = NULL;
        console_complete(session, session->command.word);
        console_go_on(session);
        return;
    }
    request->command.kind = COMMAND_KILL;
    request->command.has_database = true;
    strcpy(request->command.database, pools[request->row_count - 1].database);
    /* Its other users' pools go with it. */
    while (request->row_count > 0 &&
           strcmp(pools[request->row_count - 1].database, request->command.database) == 0)
        request->row_count--;
    flag_of(request->command.database)->is_paused = true;
    request_command(request);
}

static void kill_all(struct request *request)
{
    request->row_count = merge_pools(request->rows, request->row_count);
    request->done = kill_next;
    kill_next(request);
}

static void send_command(struct session *session, enum command_kind kind, const char *database)
{
    struct request *request = request_make(control_requests(), session,
                                           kind == COMMAND_PAUSE ? pause_sent : answer_command);

    session->request = request;
    request->command.kind = kind;
    if (database != NULL) {
        request->command.has_database = true;
        strcpy(request->command.database, database);
        strcpy(request->database, database);
        request_command(request);
    } else if (kind == COMMAND_PAUSE) {
        control_pause(request);
    } else if (kind == COMMAND_RESUME) {
        control_resume(request);
    } else if (kind == COMMAND_KILL) {
        request->done = kill_all;
        request_report(request, REPORT_POOLS);
    } else {
        request_command(request);
    }
}

static bool database_exists(struct session *session, const char *name, const char *what)
{
    char text[192];

    if (strcmp(name, "pgbouncer") == 0) {
        snprintf(text, sizeof(text), "cannot %s admin db: %s", what, name);
        console_failed(session, text);
        return false;
    }
    if (snapshot_find_database(control_snapshot(), name) == NULL) {
        snprintf(text, sizeof(text), "no such database: %s", name);
        console_failed(session, text);
        return false;
    }
    return true;
}

static void log_command(const struct session *session, const char *argument)
{
    if (argument != NULL)
        log_write(LEVEL_LOG, "%s '%s' command issued", session->command.word, argument);
    else
        log_write(LEVEL_LOG, "%s command issued", session->command.word);
}

static void run_show(struct session *session)
{
    const struct show_table *table = console_table(&session->command);

    if (table->admin_only && !session->is_admin)
        console_failed(session, "admin access needed");
    else
        console_show(session, table);
}

/* What drivers set when they connect: they go on without it, so it is not worth an error. */
static bool is_drivers_setting(const char *key)
{
    static const char *const names[] = {"application_name", "extra_float_digits"};
    const struct show_table *table = show_find(key);

    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcasecmp(names[i], key) == 0)
            return true;
    return table != NULL && table->value != NULL;
}

static void say_in_log(void *context, enum log_level level, const char *text)
{
    (void)context;
    log_write(level, "%s", text);
}

static void run_set(struct session *session)
{
    const char *key = session->command.argument;
    const struct snapshot *running = control_snapshot();
    struct snapshot *changed;

    if (is_drivers_setting(key)) {
        show_error(&session->output, "NOTICE", NULL, "SET ignored", NULL);
        console_complete(session, "SET");
        return;
    }
    if (!session->is_admin) {
        console_failed(session, "admin access needed");
        return;
    }
    changed = snapshot_with_setting(running, key, session->command.value);
    if (changed == NULL) {
        console_failed(session, "SET failed");
        return;
    }
    /* Changed all the same: it may need a second one to go with it, as a key its certificate. */
    if (!tls_setup_is_about(key)) {
        tls_setup_keep(changed, running);
    } else if (!tls_setup_load(changed, running, say_in_log, NULL)) {
        tls_setup_keep(changed, running);
        show_error(&session->output, "NOTICE", NULL,
                   "TLS settings could not be applied, still using old configuration", NULL);
    }
    snprintf(session->set_tag, sizeof(session->set_tag), "SET %s=%s", key, session->command.value);
    session->request = request_make(control_requests(), session, answer_command);
    control_replace_snapshot(changed, session->request);
}

static bool is_shutdown_word(const struct session *session, const char *word)
{
    return strcasecmp(word, "WAIT_FOR_SERVERS") == 0 || strcasecmp(word, "WAIT_FOR_CLIENTS") == 0 ||
           (strcasecmp(word, "TAKEOVER") == 0 && console_is_own_user(session));
}

static void run_shutdown(struct session *session)
{
    const char *how = session->command.argument;

    if (!session->command.has_argument) {
        log_write(LEVEL_LOG, "SHUTDOWN command issued");
        control_exit_now();
    }
    if (control_shutdown_mode() != SHUTDOWN_NONE) {
        console_failed(session, "pooler is shutting down");
    } else if (control_mode() == CONTROL_SUSPENDED) {
        /* Nobody could finish anything. */
        console_failed(session, "pooler is suspended, RESUME it first");
    } else if (strcasecmp(how, "TAKEOVER") == 0) {
        console_run_takeover(session);
    } else {
        bool for_servers = strcasecmp(how, "WAIT_FOR_SERVERS") == 0;

        log_write(LEVEL_LOG, "SHUTDOWN %s command issued",
                  for_servers ? "WAIT_FOR_SERVERS" : "WAIT_FOR_CLIENTS");
        session->request = request_make(control_requests(), session, answer_command);
        control_shutdown(for_servers ? SHUTDOWN_WAIT_FOR_SERVERS : SHUTDOWN_WAIT_FOR_CLIENTS,
                         session->request);
    }
}

static void run_kill_client(struct session *session)
{
    const char *argument = session->command.argument;
    unsigned long long id = strtoull(argument, NULL, 10);

    if (argument[0] == '\0' || argument[strspn(argument, "0123456789")] != '\0') {
        console_failed(session, "invalid client pointer supplied");
        return;
    }
    log_command(session, argument);
    session->request = request_make(control_requests(), session, answer_command);
    session->request->command.kind = COMMAND_KILL_CLIENT;
    session->request->command.id = id;
    request_command(session->request);
}

/* Commands of the form WORD [db]. */
static void run_database_command(struct session *session)
{
    static const struct {
        const char *word;
        const char *what; /* of "cannot WHAT admin db" */
        enum command_kind kind;
        bool needs_database;
    } commands[] = {
        {"PAUSE", "pause", COMMAND_PAUSE, false},
        {"RESUME", "pause", COMMAND_RESUME, false},
        {"RECONNECT", "reconnect", COMMAND_RECONNECT, false},
        {"DISABLE", "disable", COMMAND_DISABLE, true},
        {"ENABLE", "enable", COMMAND_ENABLE, true},
        {"KILL", "kill", COMMAND_KILL, false},
    };
    const char *word = session->command.word;
    const char *database = session->command.has_argument ? session->command.argument : NULL;
    char text[128];
    size_t i = 0;

    while (strcmp(commands[i].word, word) != 0) {
        i++;
        assert(i < COUNT_OF(commands));
    }
    if (commands[i].needs_database && database == NULL) {
        console_failed(session, "a database is required");
        return;
    }
    if ((commands[i].kind == COMMAND_PAUSE || commands[i].kind == COMMAND_KILL) &&
        control_mode() != CONTROL_ACTIVE) {
        console_failed(session, "already suspended/paused");
        return;
    }
    if (commands[i].kind == COMMAND_RESUME && database == NULL) {
        if (control_shutdown_mode() != SHUTDOWN_NONE) {
            console_failed(session, "pooler is shutting down");
            return;
        }
        if (control_mode() == CONTROL_ACTIVE) {
            console_failed(session, "pooler is not paused/suspended");
            return;
        }
    }
    if (database != NULL && !database_exists(session, database, commands[i].what))
        return;
    if (commands[i].kind == COMMAND_RESUME && database != NULL && !console_is_paused(database)) {
        snprintf(text, sizeof(text), "database %s is not paused", database);
        console_failed(session, text);
        return;
    }
    log_command(session, database);
    if (database != NULL) {
        struct flagged *flags = flag_of(database);

        if (commands[i].kind == COMMAND_PAUSE || commands[i].kind == COMMAND_KILL)
            flags->is_paused = true;
        else if (commands[i].kind == COMMAND_RESUME)
            flags->is_paused = false;
        else if (commands[i].kind == COMMAND_DISABLE || commands[i].kind == COMMAND_ENABLE)
            flags->is_disabled = commands[i].kind == COMMAND_DISABLE;
    }
    send_command(session, commands[i].kind, database);
}

static void run_suspend(struct session *session)
{
    if (control_shutdown_mode() != SHUTDOWN_NONE) {
        console_failed(session, "pooler is shutting down");
        return;
    }
    if (control_mode() != CONTROL_ACTIVE) {
        console_failed(session, "already suspended/paused");
        return;
    }
    for (size_t i = 0; i < flagged_count; i++)
        if (flagged[i].is_paused) {
            console_failed(session, "cannot suspend with paused databases");
            return;
        }
    log_command(session, NULL);
    session->waits_for_suspend = true;
    control_suspend();
}

void console_suspended(void)
{
    for (struct session *session = console_sessions; session != NULL; session = session->next)
        if (session->waits_for_suspend) {
            session->waits_for_suspend = false;
            console_complete(session, "SUSPEND");
            console_go_on(session);
        }
}

static void run_reload(struct session *session)
{
    const char *reason;

    log_write(LEVEL_LOG, "RELOAD command issued");
    session->request = request_make(control_requests(), session, answer_command);
    reason = control_reload(session->request);
    if (reason == NULL)
        return;
    request_release(session->request);
    session->request = NULL;
    console_error(session, "F0000", reason);
    if (session->is_extended)
        session->skips_to_sync = true;
    console_over(session);
}

static void run_wait_close(struct session *session)
{
    const struct console_command *command = &session->command;

    if (command->has_argument && !database_exists(session, command->argument, "wait in"))
        return;
    log_command(session, command->has_argument ? command->argument : NULL);
    session->request = request_make(control_requests(), session, closed_looked);
    strcpy(session->request->database, command->argument);
    request_report(session->request, REPORT_SERVERS);
}

/* ---- which command ---- */

enum argument { NO_ARGUMENT, MAY_HAVE_ARGUMENT, NEEDS_ARGUMENT };

static const struct kind {
    const char *word;
    enum argument argument;
    bool is_admins;
    void (*run)(struct session *session);
} kinds[] = {
    {"SHOW", NEEDS_ARGUMENT, false, run_show},
    {"SELECT", NEEDS_ARGUMENT, false, run_show},
    {"SET", NEEDS_ARGUMENT, false, run_set},
    {"RELOAD", NO_ARGUMENT, true, run_reload},
    {"PAUSE", MAY_HAVE_ARGUMENT, true, run_database_command},
    {"RESUME", MAY_HAVE_ARGUMENT, true, run_database_command},
    {"RECONNECT", MAY_HAVE_ARGUMENT, true, run_database_command},
    {"DISABLE", MAY_HAVE_ARGUMENT, true, run_database_command},
    {"ENABLE", MAY_HAVE_ARGUMENT, true, run_database_command},
    {"KILL", MAY_HAVE_ARGUMENT, true, run_database_command},
    {"KILL_CLIENT", MAY_HAVE_ARGUMENT, true, run_kill_client},
    {"SUSPEND", NO_ARGUMENT, true, run_suspend},
    {"WAIT_CLOSE", MAY_HAVE_ARGUMENT, true, run_wait_close},
    {"SHUTDOWN", MAY_HAVE_ARGUMENT, true, run_shutdown},
    {"CANCEL", NEEDS_ARGUMENT, true, console_run_cancel},
};

static const struct kind *find_kind(const char *word)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (strcmp(kinds[i].word, word) == 0)
            return &kinds[i];
    return NULL;
}

static bool is_command(const struct session *session, const struct console_command *command)
{
    const struct kind *kind = find_kind(command->word);

    if (kind == NULL)
        return false;
    if (command->has_argument ? kind->argument == NO_ARGUMENT : kind->argument == NEEDS_ARGUMENT)
        return false;
    if (kind->run == run_show)
        return show_find(command->argument) != NULL;
    if (kind->run == run_shutdown && command->has_argument)
        return is_shutdown_word(session, command->argument);
    /* Between two processes only. */
    return kind->run != console_run_cancel || session->is_successor;
}

bool console_check(struct session *session, const char *text, struct console_command *command)
{
    char what[1024];

    *command = (struct console_command){0};
    if (text[strspn(text, " \t\r\n;")] == '\0')
        return true;
    switch (console_command_parse(text, command)) {
    case CONSOLE_OK:
        if (is_command(session, command))
            return true;
        break;
    case CONSOLE_BAD_ARGUMENTS:
        console_error(session, NULL, "bad arguments");
        return false;
    case CONSOLE_INVALID:
        break;
    }
    snprintf(what, sizeof(what), "invalid command '%.900s', use SHOW HELP;", text);
    console_error(session, NULL, what);
    return false;
}

void console_run(struct session *session)
{
    const struct kind *kind = find_kind(session->command.word);

    session->is_busy = true;
    assert(kind != NULL);
    if (kind->is_admins && !session->is_admin)
        console_failed(session, "admin access needed");
    else
        kind->run(session);
}

void console_act_abandon(struct session *session)
{
    struct request *request = session->request;

    if (request != NULL)
        request->owner = request->done == kill_all || request->done == kill_next ? &nobody : NULL;
}
