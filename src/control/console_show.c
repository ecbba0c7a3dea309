#include "control/console_session.h"

#include "base/clock.h"
#include "control/console.h"
#include "control/control.h"
#include "control/dns.h"
#include "control/merge.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

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

/* What stands in the setting, as people write it. */
static void show_sharing_setting(struct show_row *row, int value)
{
    const struct settings settings = {.server_sharing = value};
    char text[64];

    show_text(row, setting_format(setting_find("pgsplice", "server_sharing"), &settings, text));
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* What the policy has found; while it tries, the limit is a step beside it. 0: nothing shares. */
static unsigned sharing_limit(const struct sharing_row *sharing)
{
    switch (sharing->setting) {
    case SHARING_OFF:
        return 0;
    case SHARING_AUTO:
        return sharing->policy.base;
    default:
        return sharing->policy.limit;
    }
}

static void show_sharing(struct session *session, const struct sharing_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct sharing_stats *stats = &rows[i].stats;
        struct show_row row;

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, rows[i].database);
        show_text(&row, rows[i].user);
        show_number(&row, rows[i].worker);
        show_sharing_setting(&row, rows[i].setting);
        show_number(&row, sharing_limit(&rows[i]));
        show_number(&row, rows[i].server_count);
        show_number(&row, rows[i].queued_count);
        show_number(&row, (int64_t)stats->shared_count);
        show_number(&row, (int64_t)stats->joined_count);
        show_float(&row, ratio((double)stats->depth_sum, (double)stats->joined_count));
        show_number(&row, (int64_t)stats->depth_max);
        show_number(&row, (int64_t)stats->wait_us);
        show_number(&row, (int64_t)stats->set_count);
        show_number(&row, (int64_t)stats->again_lost);
        show_number(&row, (int64_t)stats->again_canceled);
        show_number(&row, (int64_t)stats->again_alone);
        show_number(&row, (int64_t)stats->again_moved);
        for (unsigned k = 0; k < REFUSED_KINDS; k++)
            show_number(&row, (int64_t)stats->refused[k]);
        for (unsigned k = 0; k < APART_KINDS; k++)
            show_number(&row, (int64_t)stats->apart[k]);
        show_row_end(&row);
    }
}

/* How the limit comes about: what was tried, and what the clients saw of it. */
static void show_policy(struct session *session, const struct sharing_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct sharing_policy *policy = &rows[i].policy;
        const struct sharing_slot *last = &policy->last;
        struct show_row row;

        show_row_begin(&row, &session->output, session->table);
        show_text(&row, rows[i].database);
        show_text(&row, rows[i].user);
        show_number(&row, rows[i].worker);
        show_number(&row, policy->ceiling);
        show_number(&row, sharing_limit(&rows[i]));
        show_number(&row, rows[i].setting == SHARING_OFF ? 0 : policy->limit);
        show_number(&row, (int64_t)policy->raised_count);
        show_number(&row, (int64_t)policy->lowered_count);
        show_number(&row, (int64_t)policy->changed_count);
        for (unsigned k = 0; k < SHARING_DIRECTIONS; k++) {
            show_number(&row, policy->trials[k].count);
            show_float(&row, 100 * (double)policy->trials[k].gain);
        }
        show_float(&row, ratio(1e6 * last->answers, (double)last->time_us));
        show_float(&row, ratio((double)last->busy_us, (double)last->time_us));
        show_float(&row, ratio((double)last->queued_us, (double)last->time_us));
        show_float(&row, ratio((double)last->queued_us, last->answers));
        show_float(&row, ratio((double)last->took_us, last->answers));
        show_float(&row, ratio((double)last->floor_us, last->answers));
        show_row_end(&row);
    }
}

static void show_classes(struct session *session, const struct class_row *classes, size_t count)
{
    static const char *const follow_names[] = {
        [FOLLOW_YES] = "yes",
        [FOLLOW_UNKNOWN] = "unknown",
        [FOLLOW_SLOW] = "slow",
        [FOLLOW_ERRATIC] = "erratic",
    };

    static_assert(COUNT_OF(follow_names) == FOLLOW_KINDS, "each has a name");
    for (size_t i = 0; i < count; i++) {
        const struct class_row *class = &classes[i];
        struct show_row row;
        char hash[17];

        assert(class->follow < FOLLOW_KINDS);
        snprintf(hash, sizeof(hash), "%016" PRIx64, class->hash);
        show_row_begin(&row, &session->output, session->table);
        show_text(&row, class->database);
        show_text(&row, class->user);
        show_text(&row, hash);
        show_text(&row, class->text);
        show_number(&row, (int64_t) class->total);
        show_number(&row, (int64_t)(class->mean_us + 0.5));
        show_number(&row, (int64_t)(class->deviation_us + 0.5));
        show_number(&row, (int64_t)(class->floor_us + 0.5));
        show_text(&row, follow_names[class->follow]);
        show_row_end(&row);
    }
}

static void show_pools(struct session *session, const struct pool_row *pools, size_t count)
{
    struct pool_row console = {.database = "pgbouncer",
                               .user = "pgbouncer",
                               .cl_active = console_session_count,
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
    bool is_active_only = strcmp(session->table->name, "ACTIVE_SOCKETS") == 0;
    bool is_sockets = is_active_only || strcmp(session->table->name, "SOCKETS") == 0;
    char text[96];
    struct show_row row;

    if (is_active_only && socket->packet_avail + socket->send_avail == 0)
        return;
    show_row_begin(&row, &session->output, session->table);
    show_text(&row, socket->is_server ? "S" : "C");
    show_text(&row, socket->user);
    show_text(&row, socket->database);
    show_text(&row, socket->replication);
    if (is_sockets) {
        snprintf(text, sizeof(text), "%s_%s", socket->is_server ? "sv" : "cl",
                 strcmp(socket->state, "new") == 0                          ? "login"
                 : strcmp(socket->state, "idle") == 0 && !socket->is_server ? "active"
                                                                            : socket->state);
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
    show_text(&row, socket->tls);
    show_text(&row, socket->application_name);
    show_number(&row, socket->prepared_count);
    show_number(&row, (int64_t)(socket->id & INT32_MAX));
    if (is_sockets) {
        show_number(&row, 0); /* recv_pos, pkt_pos: messages stay where they were received */
        show_number(&row, 0);
        show_number(&row, socket->packet_remain);
        show_number(&row, 0); /* send_pos, send_remain */
        show_number(&row, 0);
        show_number(&row, socket->packet_avail);
        show_number(&row, socket->send_avail);
    }
    show_row_end(&row);
}

/* The console's own sessions stand among the clients. */
static void show_sessions(struct session *session)
{
    for (const struct session *other = console_sessions; other != NULL; other = other->next) {
        struct sockaddr_storage local = {0};
        socklen_t local_bytes = sizeof(local);
        struct peer_name name;
        struct socket_row row = {
            .replication = "none",
            .database = "pgbouncer",
            .state = other->is_busy ? "active" : "idle",
            .port = other->peer.family == AF_UNIX
                        ? (unsigned)control_snapshot()->settings.listen_port
                        : other->peer.port,
            .connect_us = other->connect_us,
            .request_us = other->request_us,
            .pointer = other->id,
            .remote_pid = other->peer.pid,
            .packet_avail = (uint32_t)other->input_bytes,
            .send_avail = (uint32_t)(other->output.bytes - other->sent_bytes),
            .id = other->id,
        };

        if (other->is_busy)
            row.wait_us = clock_now_us() - other->request_us;
        strcpy(row.user, other->user);
        strcpy(row.application_name, other->application_name);
        if (other->tls != NULL)
            tls_describe(other->tls->session, row.tls);
        peer_name_host(&other->peer, row.address);
        if (getsockname(other->fd, (struct sockaddr *)&local, &local_bytes) == 0) {
            peer_name_from(&name, &local);
            peer_name_host(&name, row.local_address);
            row.local_port = name.port;
        }
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
        if (totals && averages) /* STATS: total_requests */
            show_number(&row, (int64_t)database->total.query_count);
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
    show_number(&row, limits.reserve_pool_size); /* its old name */
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
    show_number(&row, console_session_count);
    show_number(&row, 0);
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

/* Entries, databases that `*` has made and that have a pool, and the console: sorted. To be freed. */
static struct named_database *list_databases(const struct pool_row *pools, size_t pool_count,
                                             size_t *database_count)
{
    const struct snapshot *snapshot = control_snapshot();
    struct named_database *list = calloc(snapshot->database_count + pool_count + 1, sizeof(*list));
    size_t count = 0, kept = 1;

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
    for (size_t i = 1; i < count; i++)
        if (strcmp(list[i].name, list[kept - 1].name) != 0)
            list[kept++] = list[i];
    *database_count = kept;
    return list;
}

static void show_databases(struct session *session, const struct pool_row *pools, size_t pool_count)
{
    size_t count;
    struct named_database *list = list_databases(pools, pool_count, &count);

    for (size_t i = 0; i < count; i++)
        if (list[i].database == NULL)
            show_console_database(session);
        else
            show_database(session, list[i].database, list[i].name, console_is_paused(list[i].name));
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
        const char *value = setting_format(&settings_table[i], &control_snapshot()->settings, text);

        if (settings_table[i].is_secret && value != NULL && *value != '\0')
            value = "***";
        show_row_begin(&row, &session->output, session->table);
        show_text(&row, settings_table[i].name);
        show_text(&row, value);
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

/* The process's own entry is one of [peers], and nothing is sent there. */
static size_t count_other_peers(const struct snapshot *snapshot)
{
    size_t count = 0;

    for (size_t i = 0; i < snapshot->peer_count; i++)
        count += snapshot->peers[i].peer_id != snapshot->settings.peer_id;
    return count;
}

/* A row for each peer, also where nothing has been sent yet. */
static void show_peer_pools(struct session *session, const struct pool_row *rows, size_t count)
{
    const struct snapshot *snapshot = control_snapshot();

    for (size_t i = 0; i < snapshot->peer_count; i++) {
        int id = snapshot->peers[i].peer_id;
        struct pool_row found = {0};
        struct show_row row;

        if (id == snapshot->settings.peer_id)
            continue;
        for (size_t k = 0; k < count; k++)
            if (rows[k].pool_id == (uint64_t)id)
                found = rows[k];
        show_row_begin(&row, &session->output, session->table);
        show_number(&row, id);
        show_number(&row, found.cl_active_cancel_req);
        show_number(&row, found.cl_waiting_cancel_req);
        show_number(&row, found.sv_active_cancel);
        show_number(&row, found.sv_login);
        show_row_end(&row);
    }
}

static void show_lists(struct session *session, const struct core_counts *counts,
                       const struct pool_row *pools, size_t pool_count)
{
    const struct snapshot *snapshot = control_snapshot();
    size_t database_count;
    struct named_database *databases = list_databases(pools, pool_count, &database_count);
    const struct {
        const char *name;
        size_t items;
    } rows[] = {
        {"databases", database_count},
        {"users", snapshot->user_count},
        {"peers", snapshot->peer_count},
        {"pools", pool_count + 1},
        {"peer_pools", count_other_peers(snapshot)},
        {"free_clients", counts->free_clients},
        {"used_clients", counts->clients + counts->login_clients + console_session_count},
        {"login_clients", counts->login_clients},
        {"free_servers", counts->free_servers},
        {"used_servers", counts->servers},
        {"dns_names", control_dns()->host_count},
        {"dns_zones", control_dns()->zone_count},
        {"dns_queries", control_dns()->question_count},
        {"dns_pending", 0},
    };

    free(databases);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[32];

        snprintf(text, sizeof(text), "%zu", rows[i].items);
        show_pair(session, rows[i].name, text);
    }
}

static void show_memory_row(struct session *session, const struct memory_row *memory)
{
    uint64_t bytes = memory->object_bytes * (memory->used_count + memory->free_count);
    struct show_row row;

    show_row_begin(&row, &session->output, session->table);
    show_text(&row, memory->name);
    show_number(&row, memory->object_bytes);
    show_number(&row, (int64_t)memory->used_count);
    show_number(&row, (int64_t)memory->free_count);
    show_number(&row, (int64_t)MIN(bytes, (uint64_t)INT32_MAX)); /* the column is an int4 */
    show_row_end(&row);
}

/* PgBouncer's rows in its order, then those of what it does not have. What is the configuration's
 * is control's; what we keep elsewhere (outstanding requests in the server, tracked parameters in
 * parked buffers) has none of its own. */
static void show_memory(struct session *session, const struct memory_row *rows, size_t count)
{
    const struct snapshot *snapshot = control_snapshot();
    const struct memory_row usual[] = {
        {"user_cache", sizeof(struct user_config), snapshot->user_count, 0},
        {"credentials_cache", 0, 0, 0},
        {"db_cache", sizeof(struct database_config), snapshot->database_count, 0},
        {"peer_cache", sizeof(struct peer_config), snapshot->peer_count, 0},
        {"peer_pool_cache", 0, 0, 0},
        {"pool_cache", 0, 0, 0},
        {"outstanding_request_cache", 0, 0, 0},
        {"server_cache", 0, 0, 0},
        {"client_cache", 0, 0, 0},
        {"iobuf_cache", 0, 0, 0},
        {"var_list_cache", 0, 0, 0},
        {"server_prepared_statement_cache", 0, 0, 0},
    };
    bool is_shown[64] = {false};

    assert(count <= COUNT_OF(is_shown));
    for (size_t i = 0; i < COUNT_OF(usual); i++) {
        const struct memory_row *row = &usual[i];

        for (size_t k = 0; k < count; k++)
            if (strcmp(rows[k].name, usual[i].name) == 0) {
                row = &rows[k];
                is_shown[k] = true;
            }
        show_memory_row(session, row);
    }
    for (size_t k = 0; k < count; k++)
        if (!is_shown[k])
            show_memory_row(session, &rows[k]);
    show_memory_row(session, &(struct memory_row){"console_session_cache", sizeof(struct session),
                                                  console_session_count, 0});
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
               "\n\tSHOW SHARING|SHARING_POLICY|SHARING_CLASSES"
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
    else if (request->kind == REPORT_MEMORY)
        count = merge_memory(request->rows, count);
    else if (request->kind == REPORT_SHARING)
        merge_sharing(request->rows, count);
    else if (request->kind == REPORT_CLASSES)
        count = merge_classes(request->rows, count);
    else if (request->kind != REPORT_PEERS) /* each lives on one core */
        count = merge_sockets(request->rows, count);
    if (strcmp(name, "POOLS") == 0) {
        show_pools(session, request->rows, count);
    } else if (strcmp(name, "SHARDS") == 0) {
        show_shards(session, request->rows, count);
    } else if (strcmp(name, "DATABASES") == 0) {
        show_databases(session, request->rows, count);
    } else if (strcmp(name, "LISTS") == 0) {
        show_lists(session, &session->counts, request->rows, count);
    } else if (request->kind == REPORT_PEERS) {
        show_peer_pools(session, request->rows, count);
    } else if (request->kind == REPORT_STATEMENTS) {
        show_prepared(session, request->rows, count);
    } else if (request->kind == REPORT_MEMORY) {
        show_memory(session, request->rows, count);
    } else if (request->kind == REPORT_SHARING) {
        if (strcmp(name, "SHARING") == 0)
            show_sharing(session, request->rows, count);
        else
            show_policy(session, request->rows, count);
    } else if (request->kind == REPORT_CLASSES) {
        show_classes(session, request->rows, count);
    } else if (request->kind != REPORT_POOLS) {
        const struct socket_row *sockets = request->rows;

        for (size_t i = 0; i < count; i++)
            show_socket(session, &sockets[i]);
        if (request->kind == REPORT_CLIENTS)
            show_sessions(session);
        if (strcmp(name, "CLIENTS") != 0 && request->kind != REPORT_SERVERS) {
            /* Of SOCKETS: clients, clients in login, servers. */
            session->request = request;
            request_report(request,
                           request->kind == REPORT_CLIENTS ? REPORT_LOGINS : REPORT_SERVERS);
            return;
        }
    }
    request_release(request);
    console_complete(session, "SHOW");
    console_go_on(session);
}

void console_show(struct session *session, const struct show_table *table)
{
    static const struct {
        const char *name;
        enum report_kind kind;
    } gathered[] = {
        {"POOLS", REPORT_POOLS},
        {"DATABASES", REPORT_POOLS},
        {"STATS", REPORT_POOLS},
        {"STATS_TOTALS", REPORT_POOLS},
        {"STATS_AVERAGES", REPORT_POOLS},
        {"TOTALS", REPORT_POOLS},
        {"SHARDS", REPORT_POOLS},
        {"CLIENTS", REPORT_CLIENTS},
        {"SERVERS", REPORT_SERVERS},
        {"SOCKETS", REPORT_CLIENTS},
        {"LISTS", REPORT_COUNTS},
        {"PREPARED", REPORT_STATEMENTS},
        {"MEM", REPORT_MEMORY},
        {"ACTIVE_SOCKETS", REPORT_CLIENTS},
        {"PEER_POOLS", REPORT_PEERS},
        {"SHARING", REPORT_SHARING},
        {"SHARING_POLICY", REPORT_SHARING},
        {"SHARING_CLASSES", REPORT_CLASSES},
    };
    const struct snapshot *snapshot = control_snapshot();
    const char *name = table->name;

    session->table = table;
    if (strcmp(name, "HELP") == 0) {
        show_help(session);
        console_complete(session, "SHOW");
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
        char tls[128];

        /* Programs read the one row, so what only a person wants comes beside it, and by simple queries
         * only: psql's. */
        if (!session->is_extended) {
            snprintf(tls, sizeof(tls), "tls: %s", tls_library());
            show_error(&session->output, "NOTICE", NULL, tls, NULL);
        }
        show_row_begin(&row, &session->output, table);
        show_text(&row, "pgsplice " PGSPLICE_VERSION);
        show_row_end(&row);
    } else if (strcmp(name, "STATE") == 0) {
        show_pair(session, "active", control_mode() == CONTROL_ACTIVE ? "yes" : "no");
        show_pair(session, "paused", control_mode() == CONTROL_PAUSED ? "yes" : "no");
        show_pair(session, "suspended", control_mode() == CONTROL_SUSPENDED ? "yes" : "no");
    } else if (strcmp(name, "CONFIG") == 0) {
        show_config(session);
    } else if (strcmp(name, "DNS_HOSTS") == 0) {
        show_dns_hosts(session);
    } else if (strcmp(name, "DNS_ZONES") == 0) {
        show_dns_zones(session);
    } else if (strcmp(name, "USERS") == 0) {
        show_users(session);
    } else if (strcmp(name, "FDS") == 0) {
        console_show_fds(session);
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
    } else if (table->value != NULL) {
        struct show_row row;

        show_row_begin(&row, &session->output, table);
        show_text(&row, table->value);
        show_row_end(&row);
    }
    console_complete(session, "SHOW");
}

const struct show_table *console_table(const struct console_command *command)
{
    if (strcmp(command->word, "SHOW") != 0 && strcmp(command->word, "SELECT") != 0)
        return NULL;
    return show_find(command->argument);
}
