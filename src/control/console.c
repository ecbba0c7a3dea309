#include "control/console.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "control/console_command.h"
#include "control/control.h"
#include "control/dns.h"
#include "control/merge.h"
#include "control/show.h"
#include "crypto/random.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    INPUT_BYTES_MAX = 64 * 1024,
    CONSOLE_STATEMENTS_MAX = 64,
    PAUSE_LOOK_US = 20 * 1000,
};

/* A prepared statement or portal of the extended protocol: a name and a command's text. */
struct console_statement {
    char name[64];
    char *text;
    bool is_portal;
};

struct session {
    struct session *next;
    int fd;
    bool is_admin;
    bool is_busy;     /* workers are asked */
    bool is_extended; /* the command at hand came by Execute */
    bool skips_to_sync;
    bool is_closing; /* as soon as its output is out */
    bool waits_for_suspend;
    char user[USER_NAME_BYTES_MAX];
    uint8_t key[8];
    struct request *request;
    const struct show_table *table;
    struct core_counts counts; /* of SHOW LISTS */
    struct console_command command;
    char text[128]; /* as sent, for `invalid command` */
    struct peer_name peer;
    uint64_t connect_us;
    char set_tag[352]; /* of a SET that is being carried out */
    uint8_t input[INPUT_BYTES_MAX];
    size_t input_bytes;
    struct output output;
    size_t sent_bytes;
    uint64_t id;
    struct console_statement statements[CONSOLE_STATEMENTS_MAX];
    unsigned statement_count;
};

static struct session *sessions;
static unsigned session_count;

static void process_input(struct session *session);

/* ---- answers ---- */

static void error(struct session *session, const char *text)
{
    log_write(LEVEL_ERROR, "C-0x%llx: pgbouncer/%s@console %s", (unsigned long long)session->id,
              session->user, text);
    log_write(LEVEL_WARNING, "C-0x%llx: pgbouncer/%s@console pooler error: %s",
              (unsigned long long)session->id, session->user, text);
    show_error(&session->output, "ERROR", NULL, text, NULL);
}

/* The command is answered: what comes next may be looked at. */
static void command_over(struct session *session)
{
    session->is_busy = false;
    if (!session->is_extended)
        show_ready(&session->output);
}

static void failed(struct session *session, const char *text)
{
    error(session, text);
    if (session->is_extended)
        session->skips_to_sync = true;
    command_over(session);
}

static void complete(struct session *session, const char *tag)
{
    show_complete(&session->output, tag);
    command_over(session);
}

/* ---- tables ---- */

static void describe(struct session *session)
{
    if (!session->is_extended)
        show_row_description(&session->output, session->table);
}

static const char *mode_name(int mode)
{
    static const char *const names[] = {"session", "transaction", "statement"};

    return mode < 0 ? NULL : names[mode];
}

static const char *balance_name(const struct database_config *database)
{
    if (database == NULL || database->host == NULL || strchr(database->host, ',') == NULL)
        return NULL;
    return database->load_balance_hosts == LOAD_BALANCE_DISABLE ? "disable" : "round-robin";
}

static int compare_shards(const void *left, const void *right)
{
    const struct pool_row *a = left;
    const struct pool_row *b = right;
    int order = strcmp(a->database, b->database);

    if (order == 0)
        order = strcmp(a->user, b->user);
    if (order == 0)
        order = (a->worker > b->worker) - (a->worker < b->worker);
    return order;
}

static void show_pool(struct session *session, const struct pool_row *pool)
{
    struct show_row row;

    show_row_begin(&row, &session->output, session->table);
    show_text(&row, pool->database);
    show_text(&row, pool->user);
    show_number(&row, pool->cl_active);
    show_number(&row, pool->cl_waiting);
    show_number(&row, pool->cl_active_cancel_req);
    show_number(&row, pool->cl_waiting_cancel_req);
    show_number(&row, pool->sv_active);
    show_number(&row, pool->sv_active_cancel);
    show_number(&row, pool->sv_being_canceled);
    show_number(&row, pool->sv_idle);
    show_number(&row, pool->sv_used);
    show_number(&row, pool->sv_tested);
    show_number(&row, pool->sv_login);
    show_number(&row, (int64_t)(pool->maxwait_us / US_PER_S));
    show_number(&row, (int64_t)(pool->maxwait_us % US_PER_S));
    show_text(&row, mode_name(pool->pool_mode));
    show_text(&row, balance_name(snapshot_find_database(control_snapshot(), pool->database)));
    show_row_end(&row);
}

static void show_prepared(struct session *session, const struct statement_row *statements,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct statement_row *statement = &statements[i];
        struct show_row row;

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, statement->name);
        show_text(&row,
                  statement->text[0] != '\0' || statement->bytes > 0 ? statement->text : NULL);
        show_text(&row, statement->types);
        show_number(&row, (int64_t)statement->bytes);
        show_number(&row, (int64_t)statement->bind_count);
        show_number(&row, statement->client_count);
        show_number(&row, statement->server_count);
        show_row_end(&row);
    }
}

static void show_shards(struct session *session, const struct pool_row *pools, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct pool_row *pool = &pools[i];
        struct show_row row;

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, pool->database);
        show_text(&row, pool->user);
        show_number(&row, pool->worker);
        show_number(&row, pool->cl_active);
        show_number(&row, pool->cl_waiting);
        show_number(&row, pool->sv_active);
        show_number(&row, pool->sv_idle + pool->sv_used);
        show_number(&row, pool->sv_tested + pool->sv_login);
        show_number(&row, (int64_t)pool->lent_total);
        show_number(&row, (int64_t)pool->borrowed_total);
        show_number(&row, (int64_t)pool->maxwait_us);
        show_row_end(&row);
    }
}

static void show_pools(struct session *session, const struct pool_row *pools, size_t count)
{
    struct pool_row console = {.database = "pgbouncer",
                               .user = "pgbouncer",
                               .cl_active = session_count,
                               .pool_mode = POOL_MODE_STATEMENT};
    bool is_shown = false;

    for (size_t i = 0; i < count; i++) {
        if (!is_shown && strcmp(console.database, pools[i].database) <= 0) {
            show_pool(session, &console);
            is_shown = true;
        }
        show_pool(session, &pools[i]);
    }
    if (!is_shown)
        show_pool(session, &console);
}

static void format_time(uint64_t monotonic_us, char text[64])
{
    uint64_t wall_us = clock_wall_us() - (clock_now_us() - monotonic_us);
    time_t seconds = (time_t)(wall_us / US_PER_S);
    struct tm local;

    localtime_r(&seconds, &local);
    strftime(text, 64, "%Y-%m-%d %H:%M:%S %Z", &local);
}

static void show_pointer(struct show_row *row, uint64_t pointer)
{
    char text[32] = "";

    if (pointer != 0)
        snprintf(text, sizeof(text), "0x%llx", (unsigned long long)pointer);
    show_text(row, text);
}

static void show_socket(struct session *session, const struct socket_row *socket)
{
    bool is_sockets = session->table == show_find("SOCKETS");
    char text[96];
    struct show_row row;

    show_row_begin(&row, &session->output, session->table);
    show_text(&row, socket->is_server ? "S" : "C");
    show_text(&row, socket->user);
    show_text(&row, socket->database);
    show_text(&row, "none");
    if (is_sockets) {
        snprintf(text, sizeof(text), "%s_%s", socket->is_server ? "sv" : "cl",
                 strcmp(socket->state, "new") == 0 ? "login" : socket->state);
        show_text(&row, text);
    } else {
        show_text(&row, socket->state);
    }
    show_text(&row, socket->address);
    show_number(&row, socket->port);
    show_text(&row, socket->local_address);
    show_number(&row, socket->local_port);
    format_time(socket->connect_us, text);
    show_text(&row, text);
    format_time(socket->request_us, text);
    show_text(&row, text);
    show_number(&row, (int64_t)(socket->wait_us / US_PER_S));
    show_number(&row, (int64_t)(socket->wait_us % US_PER_S));
    show_number(&row, socket->close_needed);
    show_pointer(&row, socket->pointer);
    show_pointer(&row, socket->link);
    show_number(&row, socket->remote_pid);
    show_text(&row, "");
    show_text(&row, socket->application_name);
    show_number(&row, socket->prepared_count);
    show_number(&row, (int64_t)(socket->id & INT32_MAX));
    if (is_sockets)
        for (int i = 0; i < 7; i++)
            show_number(&row, 0);
    show_row_end(&row);
}

/* The console's own sessions stand among the clients. */
static void show_sessions(struct session *session)
{
    for (const struct session *other = sessions; other != NULL; other = other->next) {
        struct socket_row row = {
            .database = "pgbouncer",
            .state = "active",
            .port = other->peer.family == AF_UNIX
                        ? (unsigned)control_snapshot()->settings.listen_port
                        : other->peer.port,
            .connect_us = other->connect_us,
            .request_us = clock_now_us(),
            .pointer = other->id,
            .remote_pid = other->peer.pid,
            .id = other->id,
        };

        strcpy(row.user, other->user);
        peer_name_host(&other->peer, row.address);
        show_socket(session, &row);
    }
}

static void show_statistics(struct session *session, const struct pool_row *pools,
                            size_t pool_count)
{
    const struct stats *stats = control_stats(pools, pool_count);
    bool totals = strcmp(session->table->name, "STATS_AVERAGES") != 0;
    bool averages = strcmp(session->table->name, "STATS_TOTALS") != 0;
    struct show_row row;

    for (size_t i = 0; i < stats->database_count; i++) {
        const struct database_stats *database = &stats->databases[i];

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, database->database);
        for (int which = 0; which < 2; which++) {
            const struct pool_stats *values = which == 0 ? &database->total : &database->average;

            if (which == 0 ? !totals : !averages)
                continue;
            show_number(&row, (int64_t)values->server_assignment_count);
            show_number(&row, (int64_t)values->xact_count);
            show_number(&row, (int64_t)values->query_count);
            show_number(&row, (int64_t)values->received_bytes);
            show_number(&row, (int64_t)values->sent_bytes);
            show_number(&row, (int64_t)values->xact_us);
            show_number(&row, (int64_t)values->query_us);
            show_number(&row, (int64_t)values->wait_us);
            show_number(&row, (int64_t)values->client_parse_count);
            show_number(&row, (int64_t)values->server_parse_count);
            show_number(&row, (int64_t)values->bind_count);
            show_number(&row, (int64_t)values->client_login_count);
        }
        show_row_end(&row);
    }
}

static void show_totals(struct session *session, const struct pool_row *pools, size_t pool_count)
{
    static const char *const names[] = {"server_assignment_count",
                                        "xact_count",
                                        "query_count",
                                        "client_bytes",
                                        "server_bytes",
                                        "xact_time",
                                        "query_time",
                                        "wait_time",
                                        "ps_client_parse_count",
                                        "ps_server_parse_count",
                                        "ps_bind_count",
                                        "client_login_count"};
    const struct stats *stats = control_stats(pools, pool_count);

    for (int which = 0; which < 2; which++)
        for (size_t field = 0; field < COUNT_OF(names); field++) {
            const struct pool_stats *values = which == 0 ? &stats->all.total : &stats->all.average;
            char name[64];
            struct show_row row;

            snprintf(name, sizeof(name), "%s_%s", which == 0 ? "total" : "avg", names[field]);
            show_row_begin(&row, &session->output, session->table);
            show_text(&row, name);
            show_number(&row, (int64_t)((const uint64_t *)(const void *)values)[field]);
            show_row_end(&row);
        }
}

static void show_database(struct session *session, const struct database_config *database,
                          const char *name, bool is_paused)
{
    const struct snapshot *snapshot = control_snapshot();
    struct usage *usage = usage_find(control_usage(), USAGE_DATABASE, name);
    struct pool_settings limits;
    struct show_row row;

    snapshot_pool_settings(snapshot, database, NULL, &limits);
    show_row_begin(&row, &session->output, session->table);
    show_text(&row, name);
    show_text(&row, database->host);
    show_number(&row, database->port);
    show_text(&row,
              database->is_auto && strcmp(database->dbname, "*") == 0 ? name : database->dbname);
    show_text(&row, database->user);
    show_number(&row, limits.pool_size);
    show_number(&row, limits.min_pool_size);
    show_number(&row, limits.reserve_pool_size);
    show_number(&row, (int64_t)(limits.server_lifetime_us / US_PER_S));
    show_text(&row, mode_name(database->pool_mode));
    show_text(&row, balance_name(database));
    show_number(&row, limits.max_db_connections);
    show_number(&row, usage != NULL ? usage_count(&usage->server_count) : 0);
    show_number(&row, limits.max_db_client_connections);
    show_number(&row, usage != NULL ? usage_count(&usage->client_count) : 0);
    show_number(&row, is_paused);
    show_number(&row, console_is_disabled(name));
    show_row_end(&row);
}

static void show_console_database(struct session *session)
{
    struct show_row row;

    show_row_begin(&row, &session->output, session->table);
    show_text(&row, "pgbouncer");
    show_text(&row, NULL);
    show_number(&row, control_snapshot()->settings.listen_port);
    show_text(&row, "pgbouncer");
    show_text(&row, "pgbouncer");
    show_number(&row, 2);
    show_number(&row, 0);
    show_number(&row, 0);
    show_number(&row, (int64_t)(control_snapshot()->settings.server_lifetime_us / US_PER_S));
    show_text(&row, "statement");
    show_text(&row, NULL);
    show_number(&row, 0);
    show_number(&row, 0);
    show_number(&row, 0);
    show_number(&row, session_count);
    show_number(&row, 0);
    show_number(&row, 0);
    show_row_end(&row);
}

struct named_database {
    const char *name;
    const struct database_config *database;
};

static int compare_names(const void *left, const void *right)
{
    return strcmp(((const struct named_database *)left)->name,
                  ((const struct named_database *)right)->name);
}

/* Entries, and databases that `*` has made and that have a pool. */
static void show_databases(struct session *session, const struct pool_row *pools, size_t pool_count)
{
    const struct snapshot *snapshot = control_snapshot();
    struct named_database *list = calloc(snapshot->database_count + pool_count + 1, sizeof(*list));
    size_t count = 0;

    assert(list != NULL);
    for (size_t i = 0; i < snapshot->database_count; i++)
        list[count++] =
            (struct named_database){snapshot->databases[i].name, &snapshot->databases[i]};
    for (size_t i = 0; i < pool_count; i++) {
        const struct database_config *database =
            snapshot_find_database(snapshot, pools[i].database);

        if (database != NULL && database->is_auto)
            list[count++] = (struct named_database){pools[i].database, database};
    }
    list[count++] = (struct named_database){"pgbouncer", NULL};
    qsort(list, count, sizeof(*list), compare_names);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(list[i].name, list[i - 1].name) == 0)
            continue;
        if (list[i].database == NULL)
            show_console_database(session);
        else
            show_database(session, list[i].database, list[i].name, console_is_paused(list[i].name));
    }
    free(list);
}

static void show_users(struct session *session)
{
    const struct snapshot *snapshot = control_snapshot();
    const struct settings *settings = &snapshot->settings;

    for (size_t i = 0; i < snapshot->user_count; i++) {
        const struct user_config *user = &snapshot->users[i];
        struct usage *usage = usage_find(control_usage(), USAGE_USER, user->name);
        char text[32];
        struct show_row row;

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, user->name);
        text[0] = '\0';
        if (user->pool_size >= 0)
            snprintf(text, sizeof(text), "%9d", user->pool_size);
        show_text(&row, text);
        text[0] = '\0';
        if (user->reserve_pool_size >= 0)
            snprintf(text, sizeof(text), "%9d", user->reserve_pool_size);
        show_text(&row, text);
        show_text(&row, mode_name(user->pool_mode));
        show_number(&row, user->max_user_connections > 0 ? user->max_user_connections
                                                         : settings->max_user_connections);
        show_number(&row, usage != NULL ? usage_count(&usage->server_count) : 0);
        show_number(&row, user->max_user_client_connections > 0
                              ? user->max_user_client_connections
                              : settings->max_user_client_connections);
        show_number(&row, usage != NULL ? usage_count(&usage->client_count) : 0);
        show_row_end(&row);
    }
}

static void show_config(struct session *session)
{
    for (size_t i = 0; i < settings_count; i++) {
        char text[64];
        struct show_row row;

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, settings_table[i].name);
        show_text(&row, setting_format(&settings_table[i], &control_snapshot()->settings, text));
        show_text(&row, settings_table[i].default_text);
        show_text(&row, settings_table[i].on_reload ? "yes" : "no");
        show_row_end(&row);
    }
}

static void show_pair(struct session *session, const char *name, const char *value)
{
    struct show_row row;

    show_row_begin(&row, &session->output, session->table);
    show_text(&row, name);
    show_text(&row, value);
    show_row_end(&row);
}

static void show_lists(struct session *session, const struct core_counts *counts, size_t pool_count)
{
    const struct snapshot *snapshot = control_snapshot();
    const struct {
        const char *name;
        size_t items;
    } rows[] = {
        {"databases", snapshot->database_count + 1},
        {"users", snapshot->user_count},
        {"peers", snapshot->peer_count},
        {"pools", pool_count + 1},
        {"peer_pools", 0},
        {"free_clients", counts->free_clients},
        {"used_clients", counts->clients + session_count},
        {"login_clients", counts->login_clients},
        {"free_servers", 0},
        {"used_servers", counts->servers},
        {"dns_names", control_dns()->host_count},
        {"dns_zones", control_dns()->zone_count},
        {"dns_queries", control_dns()->question_count},
        {"dns_pending", 0},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[32];

        snprintf(text, sizeof(text), "%zu", rows[i].items);
        show_pair(session, rows[i].name, text);
    }
}

static void show_dns_hosts(struct session *session)
{
    uint64_t now_us = control_now_us();

    list_for_each(link, &control_dns()->hosts)
    {
        const struct dns_host *host = OWNER_OF(link, struct dns_host, link);
        uint64_t until_us = dns_host_until_us(host);
        char text[HOST_ADDRESSES_MAX * 64] = "";
        struct show_row row;
        size_t used = 0;

        for (unsigned i = 0; i < host->answer.address_count && !host->has_failed; i++) {
            const struct host_address *address = &host->answer.addresses[i];
            char literal[INET6_ADDRSTRLEN] = "";

            (void)inet_ntop(address->family, address->bytes, literal, sizeof(literal));
            used += (size_t)snprintf(text + used, sizeof(text) - used,
                                     address->family == AF_INET6 ? "%s[%s]:0" : "%s%s:0",
                                     i > 0 ? "," : "", literal);
        }
        show_row_begin(&row, &session->output, session->table);
        show_text(&row, host->name);
        show_number(&row, until_us > now_us ? (int64_t)((until_us - now_us) / US_PER_S) : 0);
        show_text(&row, text);
        show_row_end(&row);
    }
}

static void show_dns_zones(struct session *session)
{
    list_for_each(link, &control_dns()->zones)
    {
        const struct dns_zone *zone = OWNER_OF(link, struct dns_zone, link);
        struct show_row row;

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, zone->name);
        show_number(&row, zone->serial);
        show_number(&row, zone->host_count);
        show_row_end(&row);
    }
}

static void show_help(struct session *session)
{
    show_error(&session->output, "NOTICE", NULL, "Console usage",
               "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|SHARDS|CLIENTS|SERVERS|PREPARED|USERS|VERSION"
               "\n\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS"
               "\n\tSHOW SOCKETS|ACTIVE_SOCKETS|LISTS|STATE|MEM|FDS|PEERS|PEER_POOLS"
               "\n\tSHOW DNS_HOSTS|DNS_ZONES"
               "\n\tSET key = arg"
               "\n\tRELOAD"
               "\n\tPAUSE [<db>]"
               "\n\tRESUME [<db>]"
               "\n\tSUSPEND"
               "\n\tDISABLE <db>"
               "\n\tENABLE <db>"
               "\n\tRECONNECT [<db>]"
               "\n\tKILL [<db>]"
               "\n\tKILL_CLIENT <client_id>"
               "\n\tWAIT_CLOSE [<db>]"
               "\n\tSHUTDOWN"
               "\n\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS");
}

static void show_done(struct request *request)
{
    struct session *session = request->owner;
    const char *name = session->table->name;
    size_t count = request->row_count;

    session->request = NULL;
    if (strcmp(name, "LISTS") == 0 && request->kind == REPORT_COUNTS) {
        /* A pool counts once, however many workers have a shard of it. */
        session->counts = request->counts;
        session->request = request;
        request_report(request, REPORT_POOLS);
        return;
    }
    /* Statistics are made from the rows of single workers. */
    if (strncmp(name, "STATS", 5) == 0)
        show_statistics(session, request->rows, count);
    else if (strcmp(name, "TOTALS") == 0)
        show_totals(session, request->rows, count);
    else if (strcmp(name, "SHARDS") == 0 && count > 0)
        qsort(request->rows, count, sizeof(struct pool_row), compare_shards);
    else if (request->kind == REPORT_STATEMENTS)
        count = merge_statements(request->rows, count);
    else if (request->kind == REPORT_POOLS)
        count = merge_pools(request->rows, count);
    else
        count = merge_sockets(request->rows, count);
    if (strcmp(name, "POOLS") == 0) {
        show_pools(session, request->rows, count);
    } else if (strcmp(name, "SHARDS") == 0) {
        show_shards(session, request->rows, count);
    } else if (strcmp(name, "DATABASES") == 0) {
        show_databases(session, request->rows, count);
    } else if (strcmp(name, "LISTS") == 0) {
        show_lists(session, &session->counts, count);
    } else if (request->kind == REPORT_STATEMENTS) {
        show_prepared(session, request->rows, count);
    } else if (request->kind != REPORT_POOLS) {
        const struct socket_row *sockets = request->rows;

        for (size_t i = 0; i < count; i++)
            show_socket(session, &sockets[i]);
        if (request->kind == REPORT_CLIENTS)
            show_sessions(session);
        if (strcmp(name, "SOCKETS") == 0 && request->kind == REPORT_CLIENTS) {
            session->request = request;
            request_report(request, REPORT_SERVERS);
            return;
        }
    }
    request_release(request);
    complete(session, "SHOW");
    process_input(session);
}

static void run_show(struct session *session, const struct show_table *table)
{
    static const struct {
        const char *name;
        enum report_kind kind;
    } gathered[] = {
        {"POOLS", REPORT_POOLS},          {"DATABASES", REPORT_POOLS},
        {"STATS", REPORT_POOLS},          {"STATS_TOTALS", REPORT_POOLS},
        {"STATS_AVERAGES", REPORT_POOLS}, {"TOTALS", REPORT_POOLS},
        {"SHARDS", REPORT_POOLS},         {"CLIENTS", REPORT_CLIENTS},
        {"SERVERS", REPORT_SERVERS},      {"SOCKETS", REPORT_CLIENTS},
        {"LISTS", REPORT_COUNTS},         {"PREPARED", REPORT_STATEMENTS},
    };
    const struct snapshot *snapshot = control_snapshot();
    const char *name = table->name;

    session->table = table;
    if (strcmp(name, "HELP") == 0) {
        show_help(session);
        complete(session, "SHOW");
        return;
    }
    describe(session);
    for (size_t i = 0; i < COUNT_OF(gathered); i++)
        if (strcmp(gathered[i].name, name) == 0) {
            session->request = request_make(control_requests(), session, show_done);
            request_report(session->request, gathered[i].kind);
            return;
        }
    if (strcmp(name, "VERSION") == 0) {
        struct show_row row;

        show_row_begin(&row, &session->output, table);
        show_text(&row, "pgsplice " PGSPLICE_VERSION);
        show_row_end(&row);
    } else if (strcmp(name, "STATE") == 0) {
        show_pair(session, "active", control_mode() == CONTROL_ACTIVE ? "yes" : "no");
        show_pair(session, "paused", control_mode() == CONTROL_PAUSED ? "yes" : "no");
        show_pair(session, "suspended", control_mode() == CONTROL_SUSPENDED ? "yes" : "no");
    } else if (strcmp(name, "CONFIG") == 0) {
        show_config(session);
    } else if (strcmp(name, "USERS") == 0) {
        show_users(session);
    } else if (strcmp(name, "DNS_HOSTS") == 0) {
        show_dns_hosts(session);
    } else if (strcmp(name, "DNS_ZONES") == 0) {
        show_dns_zones(session);
    } else if (strcmp(name, "PEERS") == 0) {
        for (size_t i = 0; i < snapshot->peer_count; i++) {
            struct show_row row;

            show_row_begin(&row, &session->output, table);
            show_number(&row, snapshot->peers[i].peer_id);
            show_text(&row, snapshot->peers[i].host);
            show_number(&row, snapshot->peers[i].port);
            show_number(&row, snapshot->peers[i].pool_size >= 0
                                  ? snapshot->peers[i].pool_size
                                  : snapshot->settings.default_pool_size);
            show_row_end(&row);
        }
    } else if (table->columns[1].name == NULL) {
        static const char *const values[][2] = {{"client_encoding", "UTF8"},
                                                {"default_transaction_isolation", "read committed"},
                                                {"standard_conforming_strings", "on"},
                                                {"datestyle", "ISO"},
                                                {"timezone", "GMT"}};
        struct show_row row;

        for (size_t i = 0; i < COUNT_OF(values); i++)
            if (strcmp(values[i][0], name) == 0) {
                show_row_begin(&row, &session->output, table);
                show_text(&row, i == 0 ? "UTF-8" : values[i][1]);
                show_row_end(&row);
            }
    }
    complete(session, "SHOW");
}

/* ---- commands ---- */

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
        failed(session, "client not found");
    else
        complete(session, kind == COMMAND_SNAPSHOT && strcmp(session->command.word, "SET") == 0
                              ? session->set_tag
                              : session->command.word);
    process_input(session);
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
    session->request = NULL;
    request_release(request);
    complete(session, session->command.word);
    process_input(session);
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
    session->request = NULL;
    request_release(request);
    complete(session, session->command.word);
    process_input(session);
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
        complete(session, session->command.word);
        process_input(session);
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
        failed(session, text);
        return false;
    }
    if (snapshot_find_database(control_snapshot(), name) == NULL) {
        snprintf(text, sizeof(text), "no such database: %s", name);
        failed(session, text);
        return false;
    }
    return true;
}

static void invalid(struct session *session, const char *text)
{
    char what[256];

    snprintf(what, sizeof(what), "invalid command '%.180s', use SHOW HELP;", text);
    failed(session, what);
}

static void log_command(const struct session *session, const char *argument)
{
    if (argument != NULL)
        log_write(LEVEL_LOG, "%s '%s' command issued", session->command.word, argument);
    else
        log_write(LEVEL_LOG, "%s command issued", session->command.word);
}

static void run_set(struct session *session)
{
    const char *key = session->command.argument;
    const struct snapshot *running = control_snapshot();
    struct snapshot *changed;
    const struct show_table *table = show_find(key);

    if (table != NULL && table->columns[0].name != NULL && table->columns[1].name == NULL &&
        table->name[0] >= 'a') {
        show_error(&session->output, "NOTICE", NULL, "SET ignored", NULL);
        complete(session, "SET");
        return;
    }
    changed = snapshot_with_setting(running, key, session->command.value);
    if (changed == NULL) {
        failed(session, "SET failed");
        return;
    }
    snprintf(session->set_tag, sizeof(session->set_tag), "SET %s=%s", key, session->command.value);
    session->request = request_make(control_requests(), session, answer_command);
    control_replace_snapshot(changed, session->request);
}

static void run_shutdown(struct session *session)
{
    const char *how = session->command.argument;

    if (!session->command.has_argument) {
        log_write(LEVEL_LOG, "SHUTDOWN command issued");
        control_exit_now();
    }
    if (control_shutdown_mode() != SHUTDOWN_NONE) {
        failed(session, "pooler is shutting down");
    } else if (control_mode() == CONTROL_SUSPENDED) {
        /* Nobody could finish anything. */
        failed(session, "pooler is suspended, RESUME it first");
    } else if (strcasecmp(how, "WAIT_FOR_SERVERS") == 0 ||
               strcasecmp(how, "WAIT_FOR_CLIENTS") == 0) {
        bool for_servers = strcasecmp(how, "WAIT_FOR_SERVERS") == 0;

        log_write(LEVEL_LOG, "SHUTDOWN %s command issued",
                  for_servers ? "WAIT_FOR_SERVERS" : "WAIT_FOR_CLIENTS");
        session->request = request_make(control_requests(), session, answer_command);
        control_shutdown(for_servers ? SHUTDOWN_WAIT_FOR_SERVERS : SHUTDOWN_WAIT_FOR_CLIENTS,
                         session->request);
    } else {
        invalid(session, session->text);
    }
}

static void run_kill_client(struct session *session)
{
    char *end;
    unsigned long long id = strtoull(session->command.argument, &end, 10);

    if (!session->command.has_argument || *end != '\0' || end == session->command.argument) {
        failed(session, "invalid client pointer supplied");
        return;
    }
    log_command(session, session->command.argument);
    session->request = request_make(control_requests(), session, answer_command);
    session->request->command.kind = COMMAND_KILL_CLIENT;
    session->request->command.id = id;
    request_command(session->request);
}

/* Commands of the form WORD [db]. True: it was one. */
static bool run_database_command(struct session *session)
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

    while (i < COUNT_OF(commands) && strcmp(commands[i].word, word) != 0)
        i++;
    if (i == COUNT_OF(commands))
        return false;
    if (commands[i].needs_database && database == NULL) {
        failed(session, "a database is required");
        return true;
    }
    if ((commands[i].kind == COMMAND_PAUSE || commands[i].kind == COMMAND_KILL) &&
        control_mode() != CONTROL_ACTIVE) {
        failed(session, "already suspended/paused");
        return true;
    }
    if (commands[i].kind == COMMAND_RESUME && database == NULL) {
        if (control_shutdown_mode() != SHUTDOWN_NONE) {
            failed(session, "pooler is shutting down");
            return true;
        }
        if (control_mode() == CONTROL_ACTIVE) {
            failed(session, "pooler is not paused/suspended");
            return true;
        }
    }
    if (database != NULL && !database_exists(session, database, commands[i].what))
        return true;
    if (commands[i].kind == COMMAND_RESUME && database != NULL && !console_is_paused(database)) {
        snprintf(text, sizeof(text), "database %s is not paused", database);
        failed(session, text);
        return true;
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
    return true;
}

static void run_suspend(struct session *session)
{
    if (control_shutdown_mode() != SHUTDOWN_NONE) {
        failed(session, "pooler is shutting down");
        return;
    }
    if (control_mode() != CONTROL_ACTIVE) {
        failed(session, "already suspended/paused");
        return;
    }
    for (size_t i = 0; i < flagged_count; i++)
        if (flagged[i].is_paused) {
            failed(session, "cannot suspend with paused databases");
            return;
        }
    log_command(session, NULL);
    session->waits_for_suspend = true;
    control_suspend();
}

void console_suspended(void)
{
    for (struct session *session = sessions; session != NULL; session = session->next)
        if (session->waits_for_suspend) {
            session->waits_for_suspend = false;
            complete(session, "SUSPEND");
            process_input(session);
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
    show_error(&session->output, "ERROR", "F0000", reason, NULL);
    if (session->is_extended)
        session->skips_to_sync = true;
    command_over(session);
}

static void run_command(struct session *session, const char *text)
{
    struct console_command *command = &session->command;
    enum console_result result = console_command_parse(text, command);
    const struct show_table *table;

    session->is_busy = true;
    snprintf(session->text, sizeof(session->text), "%s", text);
    if (result == CONSOLE_BAD_ARGUMENTS) {
        failed(session, "bad arguments");
        return;
    }
    if (result == CONSOLE_INVALID) {
        invalid(session, text);
        return;
    }
    if (strcmp(command->word, "SHOW") == 0 || strcmp(command->word, "SELECT") == 0) {
        table = command->has_argument ? show_find(command->argument) : NULL;
        if (table == NULL)
            invalid(session, text);
        else if (table->admin_only && !session->is_admin)
            failed(session, "admin access needed");
        else
            run_show(session, table);
        return;
    }
    if (strcmp(command->word, "SET") == 0 && command->has_argument) {
        table = show_find(command->argument);
        if (!session->is_admin && (table == NULL || table->name[0] < 'a'))
            failed(session, "admin access needed");
        else
            run_set(session);
        return;
    }
    if (!session->is_admin) {
        static const char *const words[] = {"RELOAD",    "PAUSE",       "RESUME",    "SUSPEND",
                                            "DISABLE",   "ENABLE",      "KILL",      "SHUTDOWN",
                                            "RECONNECT", "KILL_CLIENT", "WAIT_CLOSE"};

        for (size_t i = 0; i < COUNT_OF(words); i++)
            if (strcmp(words[i], command->word) == 0) {
                failed(session, "admin access needed");
                return;
            }
        invalid(session, text);
        return;
    }
    if (strcmp(command->word, "RELOAD") == 0 && !command->has_argument) {
        run_reload(session);
    } else if (strcmp(command->word, "SHUTDOWN") == 0) {
        run_shutdown(session);
    } else if (strcmp(command->word, "KILL_CLIENT") == 0) {
        run_kill_client(session);
    } else if (strcmp(command->word, "SUSPEND") == 0 && !command->has_argument) {
        run_suspend(session);
    } else if (strcmp(command->word, "WAIT_CLOSE") == 0) {
        if (command->has_argument && !database_exists(session, command->argument, "wait in"))
            return;
        log_command(session, command->has_argument ? command->argument : NULL);
        session->request = request_make(control_requests(), session, closed_looked);
        strcpy(session->request->database, command->argument);
        request_report(session->request, REPORT_SERVERS);
    } else if (!run_database_command(session)) {
        invalid(session, text);
    }
}

/* ---- extended protocol ---- */

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
    error(session, text);
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

static void extended_message(struct session *session, uint8_t type, struct reader *reader)
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
        run_command(session, statement->text);
        break;
    default:
        break;
    }
}

/* ---- sessions ---- */

static void session_close(struct session *session)
{
    struct session **link = &sessions;

    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    session_count--;
    usage_give(&control_usage()->client_count);
    if (session->request != NULL)
        session->request->owner =
            session->request->done == kill_all || session->request->done == kill_next ? &nobody
                                                                                      : NULL;
    while (session->statement_count > 0)
        statement_drop(session, &session->statements[0]);
    output_release(&session->output);
    close(session->fd);
    free(session);
    if (session_count == 0)
        control_consoles_gone();
}

static void flush(struct session *session)
{
    while (session->sent_bytes < session->output.bytes) {
        ssize_t count =
            send(session->fd, session->output.data + session->sent_bytes,
                 session->output.bytes - session->sent_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return;
        if (count < 0) {
            session->is_closing = true;
            session->sent_bytes = session->output.bytes;
            return;
        }
        session->sent_bytes += (size_t)count;
    }
    session->output.bytes = 0;
    session->sent_bytes = 0;
}

static void message(struct session *session, uint8_t type, uint8_t *body, size_t bytes)
{
    struct reader reader;
    const char *text;

    reader_init(&reader, body, bytes);
    if (type == 'X') {
        session->is_closing = true;
        return;
    }
    if (type == 'S') {
        session->skips_to_sync = false;
        show_ready(&session->output);
        return;
    }
    if (session->skips_to_sync)
        return;
    switch (type) {
    case 'Q':
        text = reader_get_string(&reader);
        session->is_extended = false;
        if (text == NULL || reader_left(&reader) != 0) {
            show_error(&session->output, "FATAL", NULL, "incomplete query", NULL);
            session->is_closing = true;
        } else if (control_snapshot()->settings.disable_pqexec) {
            show_error(&session->output, "FATAL", NULL, "PQexec disallowed", NULL);
            session->is_closing = true;
        } else if (text[strspn(text, " \t\r\n;")] == '\0') {
            show_message(&session->output, 'I', NULL, 0);
            show_ready(&session->output);
        } else {
            run_command(session, text);
        }
        break;
    case 'P':
    case 'B':
    case 'D':
    case 'C':
    case 'E':
        extended_message(session, type, &reader);
        break;
    case 'H':
        break;
    default: {
        char what[96];

        snprintf(what, sizeof(what), "unsupported packet type for admin console: %d", type);
        error(session, what);
        show_error(&session->output, "FATAL", NULL, "bad packet", NULL);
        session->is_closing = true;
    }
    }
}

static void process_input(struct session *session)
{
    while (!session->is_busy && !session->is_closing && session->input_bytes >= 5) {
        uint32_t length = bytes_get_u32(session->input + 1);
        uint8_t *body = session->input + 5;
        static uint8_t copy[INPUT_BYTES_MAX];
        uint8_t type = session->input[0];

        if (length < 4 || length + 1 > sizeof(session->input)) {
            show_error(&session->output, "FATAL", NULL, "incomplete pkt", NULL);
            session->is_closing = true;
            break;
        }
        if (session->input_bytes < length + 1)
            break;
        memcpy(copy, body, length - 4);
        session->input_bytes -= length + 1;
        memmove(session->input, session->input + length + 1, session->input_bytes);
        message(session, type, copy, length - 4);
    }
    flush(session);
}

void console_start(const struct handover *handover)
{
    static const char *const parameters[][2] = {
        {"server_version", PGSPLICE_VERSION "/pgsplice"},
        {"client_encoding", "UTF8"},
        {"server_encoding", "UTF8"},
        {"DateStyle", "ISO"},
        {"TimeZone", "GMT"},
        {"standard_conforming_strings", "on"},
        {"is_superuser", "on"},
        {"integer_datetimes", "on"},
    };
    struct session *session = calloc(1, sizeof(*session));
    uint8_t zero[4] = {0};
    char pair[256];

    if (session == NULL || session_count == CONSOLE_SESSIONS_MAX ||
        !random_bytes(session->key, sizeof(session->key))) {
        log_write(LEVEL_WARNING, "no room for another console session");
        close(handover->fd);
        usage_give(&control_usage()->client_count);
        free(session);
        return;
    }
    session->key[0] &= 0x7f;
    session->fd = handover->fd;
    (void)fcntl(session->fd, F_SETFL, O_NONBLOCK);
    session->is_admin = handover->is_admin;
    session->peer = handover->peer;
    session->connect_us = handover->connect_us;
    session->id = handover->id;
    strcpy(session->user, handover->user);
    session->next = sessions;
    sessions = session;
    session_count++;
    show_message(&session->output, 'R', zero, sizeof(zero));
    for (size_t i = 0; i < COUNT_OF(parameters); i++) {
        int bytes = snprintf(pair, sizeof(pair), "%s%c%s", parameters[i][0], 0, parameters[i][1]);

        show_message(&session->output, 'S', pair, (size_t)bytes + 1);
    }
    show_message(&session->output, 'K', session->key, sizeof(session->key));
    show_ready(&session->output);
    memcpy(session->input, handover->leftover, handover->leftover_bytes);
    session->input_bytes = handover->leftover_bytes;
    process_input(session);
}

size_t console_poll_fill(struct pollfd *fds, size_t count_max)
{
    size_t count = 0;
    struct session *next;

    for (struct session *session = sessions; session != NULL; session = next) {
        next = session->next;
        if (session->is_closing && session->output.bytes == session->sent_bytes)
            session_close(session);
    }
    for (struct session *session = sessions; session != NULL && count < count_max;
         session = session->next) {
        fds[count] = (struct pollfd){.fd = session->fd};
        if (session->input_bytes < sizeof(session->input))
            fds[count].events = POLLIN;
        if (session->output.bytes > session->sent_bytes)
            fds[count].events |= POLLOUT;
        count++;
    }
    return count;
}

void console_poll_events(const struct pollfd *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct session *session = sessions;

        if (fds[i].revents == 0)
            continue;
        while (session != NULL && session->fd != fds[i].fd)
            session = session->next;
        if (session == NULL)
            continue;
        if ((fds[i].revents & POLLOUT) != 0)
            flush(session);
        if ((fds[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            ssize_t bytes = recv(session->fd, session->input + session->input_bytes,
                                 sizeof(session->input) - session->input_bytes, MSG_DONTWAIT);

            if (bytes > 0) {
                session->input_bytes += (size_t)bytes;
                process_input(session);
            } else if (bytes == 0 || (errno != EAGAIN && errno != EINTR)) {
                session_close(session);
            }
        }
    }
}

bool console_cancel(const uint8_t key[8])
{
    for (struct session *session = sessions; session != NULL; session = session->next)
        if (memcmp(session->key, key, sizeof(session->key)) == 0) {
            struct request *request;

            if (control_mode() == CONTROL_ACTIVE || control_shutdown_mode() != SHUTDOWN_NONE)
                return true;
            request = request_make(control_requests(), &sessions, request_release);
            control_resume(request);
            return true;
        }
    return false;
}
