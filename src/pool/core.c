#include "pool/core.h"

#include "pool/auth_query.h"
#include "pool/cancel.h"
#include "pool/client.h"
#include "pool/command.h"
#include "pool/login.h"
#include "pool/login_auth.h"
#include "pool/peer.h"
#include "pool/server.h"
#include "pool/server_login.h"
#include "pool/server_statements.h"
#include "pool/suspend.h"
#include "pool/tls_handshake.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum { POOLS_MAX = 65536, SPANS_PER_CONN = 64, SCRAM_CACHE_MAX = 65536 };

bool core_init(struct core *core, const struct core_options *options)
{
    uint32_t conns = options->client_count_max;

    memset(core, 0, sizeof(*core));
    core->snapshot = options->snapshot;
    core->usage = options->usage;
    core->shards = options->shards;
    core->ports = options->ports;
    core->ports_context = options->ports_context;
    core->mock_key = options->mock_key;
    core->has_other_keys = options->has_other_keys;
    core->host_name = options->host_name != NULL ? options->host_name : "localhost";
    core->index = options->index;
    core->count = options->count;
    list_init(&core->pool_list);
    list_init(&core->login_list);
    list_init(&core->cancel_list);
    list_init(&core->peer_list);
    list_init(&core->auth_queries_over);
    list_init(&core->scram_entries);
    timers_init(&core->timers, options->now_us);
    param_table_init(&core->params, options->param_names, options->buffers);
    if (!conn_loop_init(&core->loop, options->ring, options->buffers,
                        conns * SPANS_PER_CONN + 65536))
        return false;
    core->loop.now_us = options->now_us;
    if (slab_init(&core->clients, "clients", sizeof(struct client), conns) &&
        slab_init(&core->logins, "logins", sizeof(struct login), conns) &&
        slab_init(&core->auth_queries, "auth queries", sizeof(struct auth_query), conns) &&
        slab_init(&core->servers, "servers", sizeof(struct server), conns) &&
        slab_init(&core->server_logins, "server logins", sizeof(struct server_login), conns) &&
        slab_init(&core->pools, "pools", sizeof(struct pool), POOLS_MAX) &&
        slab_init(&core->cancels, "cancels", sizeof(struct cancel), conns) &&
        slab_init(&core->names, "host names", sizeof(struct host_name), HOST_NAMES_MAX) &&
        slab_init(&core->peers, "peers", sizeof(struct peer), PEERS_MAX) &&
        slab_init(&core->shared, "shared exchanges", sizeof(struct shared), 2 * conns) &&
        slab_init(&core->statement_times, "statement times", sizeof(struct statement_times),
                  POOLS_MAX) &&
        slab_init(&core->tls_handshakes, "tls handshakes", sizeof(struct tls_handshake),
                  2 * options->client_count_max) &&
        slab_init(&core->scram_cache, "scram keys", login_scram_entry_bytes(), SCRAM_CACHE_MAX) &&
        statement_store_init(&core->statements, conns, options->mock_key)) {
        core->params.key = core->statements.key;
        pool_make_forced(core);
        return true;
    }
    core_release(core);
    return false;
}

void core_use_huge_pages(struct core *core)
{
    slab_use_huge_pages(&core->clients);
    slab_use_huge_pages(&core->servers);
    slab_use_huge_pages(&core->pools);
    slab_use_huge_pages(&core->loop.spans);
}

void core_release(struct core *core)
{
    login_forget_keys(core);
    pool_release_all(core);
    peer_release_all(core);
    slab_release(&core->clients);
    slab_release(&core->logins);
    slab_release(&core->auth_queries);
    slab_release(&core->servers);
    slab_release(&core->server_logins);
    slab_release(&core->pools);
    slab_release(&core->cancels);
    slab_release(&core->names);
    slab_release(&core->peers);
    slab_release(&core->tls_handshakes);
    slab_release(&core->scram_cache);
    statement_store_release(&core->statements);
    conn_loop_release(&core->loop);
}

void core_end_turn(struct core *core)
{
    auth_query_send_answers(core);
    conn_loop_flush(&core->loop);
}

uint64_t core_next_us(const struct core *core)
{
    uint64_t timers_us = timers_next_us(&core->timers);
    uint64_t conns_us = conn_loop_next_us(&core->loop);

    /* One was lost in the very last steps of the turn. */
    if (!list_is_empty(&core->auth_queries_over))
        return 0;
    return MIN(timers_us, conns_us);
}

void core_accept(struct core *core, int fd)
{
    client_accept(core, fd);
}

/* ---- configuration ---- */

/* Calls `act` for the pools of one database, or all. */
static void each_pool(struct core *core, const char *database, void (*act)(struct pool *pool))
{
    list_for_each_safe(link, &core->pool_list)
    {
        struct pool *pool = OWNER_OF(link, struct pool, link);

        if (database == NULL || strcmp(pool->database_name, database) == 0)
            act(pool);
    }
}

/* What is older is closed, and the welcome of an older server counts no more, on all cores. */
static void new_generation(struct pool *pool)
{
    _Atomic uint64_t *shared = &pool->set->generation;
    uint64_t now = atomic_load(shared);

    while (now < pool->core->generation &&
           !atomic_compare_exchange_weak(shared, &now, pool->core->generation))
        ;
}

void core_set_snapshot(struct core *core, struct snapshot *snapshot)
{
    struct snapshot *old = core->snapshot;
    bool has_new_tls = old->server_tls != snapshot->server_tls ||
                       old->settings.server_tls_sslmode != snapshot->settings.server_tls_sslmode;

    core->snapshot = snapshot;
    /* Servers of the old rules are retired as by RECONNECT. Every core gets the same snapshots in the same
     * order, so generations stay comparable. */
    if (has_new_tls)
        core->generation++;
    core->has_other_keys =
        core->has_other_keys || old->settings.peer_id != snapshot->settings.peer_id;
    ring_set_busy_poll(core->loop.ring, snapshot->settings.busy_poll_us);
    login_forget_keys(core);
    host_forget_answers(core);
    peer_update_all(core);
    list_for_each_safe(link, &core->pool_list)
    {
        struct pool *pool = OWNER_OF(link, struct pool, link);
        const struct database_config *before = pool->database;
        const struct database_config *after = snapshot_find_database(snapshot, pool->database_name);
        const struct user_config *user_before;

        if (after == NULL) {
            /* The clients' answers may still look at the entry: it must be one of the new snapshot.
             */
            pool->is_retired = true;
            pool->database = &pool->orphan;
            pool->orphan = *before;
            pool->orphan.name = pool->orphan.dbname = pool->database_name;
            pool->orphan.host = pool->orphan.user = pool->orphan.password = NULL;
            pool->orphan.connect_query = NULL;
            pool->orphan.client_encoding = pool->orphan.datestyle = NULL;
            pool->orphan.timezone = pool->orphan.application_name = NULL;
            pool_update_settings(pool);
            pool_close_clients(pool, "database removed");
            pool_retire_servers(pool, "database removed");
            pool_resume(pool);
            continue;
        }
        pool->is_retired = false;
        pool->database = after;
        user_before = pool->user_config;
        pool_update_settings(pool);
        /* Another secret may log in where the old one failed. Keys of the same one are kept: those
         * whose logins they come from are here, and will not log in again. */
        pool->has_salted_password = false;
        if (strcmp(user_before != NULL ? user_before->secret : "",
                   pool->user_config != NULL ? pool->user_config->secret : "") != 0)
            pool->has_client_key = false;
        pool_try_now(pool);
        if (!pool_takes_password(pool, pool->client_password_is_found))
            (void)!pool_keep_password(pool, NULL);
        if (has_new_tls)
            new_generation(pool);
        if (database_config_moved(before, after))
            pool_retire_servers(pool, "database configuration changed");
        else if (has_new_tls)
            pool_retire_servers(pool, "close_needed");
        pool_resume(pool);
    }
    pool_make_forced(core);
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        struct client *client = slab_at(&core->clients, index);

        /* A timeout may have come nearer. */
        if (client->state > CLIENT_FREE && client->state < CLIENT_CLOSING)
            client_arm_timer(client);
    }
    snapshot_release(old);
}

/* ---- control ---- */

static struct database_flags *flags_find(const struct core *core, const char *database)
{
    for (unsigned i = 0; i < core->database_flags_count; i++)
        if (strcmp(core->database_flags[i].name, database) == 0)
            return (struct database_flags *)&core->database_flags[i];
    return NULL;
}

static struct database_flags *flags_make(struct core *core, const char *database)
{
    struct database_flags *flags = flags_find(core, database);

    if (flags != NULL)
        return flags;
    for (unsigned i = 0; i < DATABASE_FLAGS_MAX; i++) {
        flags = &core->database_flags[i];
        if (i >= core->database_flags_count || (!flags->is_paused && !flags->is_disabled)) {
            *flags = (struct database_flags){0};
            snprintf(flags->name, sizeof(flags->name), "%s", database);
            core->database_flags_count = MAX(core->database_flags_count, i + 1);
            return flags;
        }
    }
    log_write(LEVEL_WARNING, "more than %d databases are paused or disabled", DATABASE_FLAGS_MAX);
    return NULL;
}

bool core_database_is_paused(const struct core *core, const char *database)
{
    const struct database_flags *flags = flags_find(core, database);

    return flags != NULL && flags->is_paused;
}

bool core_database_is_disabled(const struct core *core, const char *database)
{
    const struct database_flags *flags = flags_find(core, database);

    return flags != NULL && flags->is_disabled;
}

void core_disable(struct core *core, const char *database, bool disable)
{
    struct database_flags *flags = flags_make(core, database);

    if (flags != NULL)
        flags->is_disabled = disable;
}

static void act_pause(struct pool *pool)
{
    pool->is_paused = core_database_is_paused(pool->core, pool->database_name);
    pool_pause(pool);
}

static void act_resume(struct pool *pool)
{
    pool->is_paused = core_database_is_paused(pool->core, pool->database_name);
    pool_resume(pool);
}

static void act_reconnect(struct pool *pool)
{
    new_generation(pool);
    pool_try_now(pool);
    pool_retire_servers(pool, "close_needed");
}

static void act_kill(struct pool *pool)
{
    struct database_flags *flags = flags_make(pool->core, pool->database_name);

    new_generation(pool);
    if (flags != NULL)
        flags->is_paused = true;
    pool->is_paused = true;
    pool_close_clients(pool, "database removed");
    pool_retire_servers(pool, "database removed");
    pool_pause(pool);
    /* The pool is forgotten, and what it did; who comes back after RESUME begins a new one. */
    pool->is_retired = true;
    pool->stats = (struct pool_stats){0};
    pool->id = core_next_id(pool->core);
    pool_resume(pool);
}

void core_pause(struct core *core, const char *database)
{
    if (database == NULL) {
        core->is_paused = true;
    } else {
        struct database_flags *flags = flags_make(core, database);

        if (flags != NULL)
            flags->is_paused = true;
    }
    each_pool(core, database, act_pause);
}

void core_resume(struct core *core, const char *database)
{
    if (database == NULL) {
        core->is_paused = false;
        suspend_end(core);
    } else {
        struct database_flags *flags = flags_find(core, database);

        if (flags != NULL)
            flags->is_paused = false;
    }
    each_pool(core, database, act_resume);
    pool_make_forced(core); /* one that was killed */
}

void core_reconnect(struct core *core, const char *database)
{
    core->generation++;
    each_pool(core, database, act_reconnect);
}

void core_kill(struct core *core, const char *database)
{
    core->generation++;
    each_pool(core, database, act_kill);
    if (database != NULL) {
        struct database_flags *flags = flags_make(core, database);

        if (flags != NULL)
            flags->is_paused = true;
    }
}

static void act_fail_waiting(struct pool *pool)
{
    while (!list_is_empty(&pool->waiting_clients))
        client_close_error(OWNER_OF(list_front(&pool->waiting_clients), struct client, link),
                           "server shutting down", NULL);
    while (!list_is_empty(&pool->replication_clients))
        client_close_error(OWNER_OF(list_front(&pool->replication_clients), struct client, link),
                           "server shutting down", NULL);
    while (!list_is_empty(&pool->welcome_clients))
        client_close_error(OWNER_OF(list_front(&pool->welcome_clients), struct client, link),
                           "server shutting down", NULL);
}

void core_shutdown(struct core *core, enum shutdown_mode mode)
{
    core->shutdown = mode;
    if (mode == SHUTDOWN_WAIT_FOR_SERVERS) {
        each_pool(core, NULL, act_fail_waiting);
        core_pause(core, NULL);
    }
}

bool core_kill_client(struct core *core, uint64_t id)
{
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        struct client *client = slab_at(&core->clients, index);

        if (client->state >= CLIENT_WELCOME && client->state < CLIENT_CLOSING && client->id == id) {
            client_close_error(client, "admin forced disconnect", NULL);
            return true;
        }
    }
    return false;
}

unsigned core_busy_servers(const struct core *core, const char *database)
{
    unsigned count = 0;

    list_for_each(link, &core->pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);

        if (database == NULL || strcmp(pool->database_name, database) == 0)
            count += pool->server_count - pool->idle_count - pool->login_count + pool->lent_count;
    }
    return count;
}

void command_open(struct letter *letter, void *context)
{
    struct command *command = OWNER_OF(letter, struct command, letter);
    struct core *core = context;
    const char *database = command->has_database ? command->database : NULL;

    switch (command->kind) {
    case COMMAND_SNAPSHOT:
        core_set_snapshot(core, command->snapshot);
        command->snapshot = NULL;
        break;
    case COMMAND_PAUSE:
        core_pause(core, database);
        break;
    case COMMAND_RESUME:
        core_resume(core, database);
        break;
    case COMMAND_SUSPEND:
        suspend_begin(core);
        break;
    case COMMAND_SUSPEND_DROP:
        suspend_drop(core);
        break;
    case COMMAND_RECONNECT:
        core_reconnect(core, database);
        break;
    case COMMAND_DISABLE:
    case COMMAND_ENABLE:
        core_disable(core, command->database, command->kind == COMMAND_DISABLE);
        break;
    case COMMAND_KILL:
        core_kill(core, database);
        break;
    case COMMAND_KILL_CLIENT:
        command->found = core_kill_client(core, command->id);
        break;
    case COMMAND_SHUTDOWN:
        core_shutdown(core, command->shutdown);
        break;
    case COMMAND_HOST:
        host_changed(core, command->host);
        break;
    case COMMAND_CANCEL:
        command->found = cancel_start(core, NULL, command->cancel_key);
        break;
    }
    letter->open = command->answered;
    core->ports->post_control(core, letter);
}

/* ---- reports ---- */

/* Its database was removed or killed, and it only waits to be freed. */
static bool is_left_over(const struct pool *pool)
{
    return pool->is_retired && pool->client_count == 0 && pool->server_count == 0;
}

static void report_pools(struct core *core, struct report *report)
{
    /* By slot, not by place in the list: pools may come and go between two letters, and none of
     * those that stay may be missed or counted twice. */
    for (; report->cursor < core->pools.touched_count; report->cursor++) {
        struct pool *pool = slab_at(&core->pools, report->cursor);

        if (!pool_is_there(core, pool) || is_left_over(pool))
            continue;
        if (report->row_count == report->row_max) {
            report->more = true;
            return;
        }
        pool_fill_row(pool, &report->rows.pools[report->row_count++], core->loop.now_us);
    }
}

static void report_sharing(struct core *core, struct report *report)
{
    for (; report->cursor < core->pools.touched_count; report->cursor++) {
        struct pool *pool = slab_at(&core->pools, report->cursor);

        if (!pool_is_there(core, pool) || is_left_over(pool))
            continue;
        if (report->row_count == report->row_max) {
            report->more = true;
            return;
        }
        pool_fill_sharing_row(pool, &report->rows.sharing[report->row_count++]);
    }
}

static void fill_class(const struct pool *pool, const struct statement_time *time,
                       struct class_row *row)
{
    *row = (struct class_row){
        .hash = time->hash,
        .total = time->total,
        .measured = time->count,
        .mean_us = (double)time->mean_us,
        .deviation_us = (double)time->deviation_us,
        .floor_us = (double)time->floor_us,
        .follow = (enum follow)time->follow,
    };
    strcpy(row->database, pool->database_name);
    strcpy(row->user, pool->user_name);
    strcpy(row->text, time->text);
}

/* The cursor counts the slots of all pools. A letter looks at a bounded number of them, since most may be
 * empty. */
static void report_classes(struct core *core, struct report *report)
{
    enum { LOOKED_AT_MAX = 16 * STATEMENT_TIMES_MAX };
    static_assert((uint64_t)POOLS_MAX * STATEMENT_TIMES_MAX <= UINT32_MAX, "the cursor's room");
    uint32_t end = core->pools.touched_count * STATEMENT_TIMES_MAX;
    unsigned looked_at = 0;

    while (report->cursor < end) {
        struct pool *pool = slab_at(&core->pools, report->cursor / STATEMENT_TIMES_MAX);
        const struct statement_time *time;

        if (!pool_is_there(core, pool) || is_left_over(pool) || pool->sharing.times == NULL) {
            report->cursor += STATEMENT_TIMES_MAX - report->cursor % STATEMENT_TIMES_MAX;
            continue;
        }
        if (report->row_count == report->row_max || looked_at++ == LOOKED_AT_MAX) {
            report->more = true;
            return;
        }
        time = &pool->sharing.times->slots[report->cursor++ % STATEMENT_TIMES_MAX];
        if (time->hash != 0)
            fill_class(pool, time, &report->rows.classes[report->row_count++]);
    }
}

static void report_peers(struct core *core, struct report *report)
{
    for (; report->cursor < core->peers.touched_count; report->cursor++) {
        if (report->row_count == report->row_max) {
            report->more = true;
            return;
        }
        peer_fill_row(slab_at(&core->peers, report->cursor),
                      &report->rows.pools[report->row_count++]);
    }
}

static void report_clients(struct core *core, struct report *report, enum client_state from,
                           enum client_state to)
{
    for (; report->cursor < core->clients.touched_count; report->cursor++) {
        struct client *client = slab_at(&core->clients, report->cursor);

        if (client->state < from || client->state > to)
            continue;
        if (report->row_count == report->row_max) {
            report->more = true;
            return;
        }
        client_fill_row(client, &report->rows.sockets[report->row_count++], core->loop.now_us);
    }
}

/* First the statements, then what servers from other cores have and nobody here has used yet. */
static void report_statements(struct core *core, struct report *report)
{
    struct statement_store *store = &core->statements;

    for (; report->cursor < store->statements.touched_count + store->prepared.touched_count;
         report->cursor++) {
        if (report->row_count == report->row_max) {
            report->more = true;
            return;
        }
        if (report->cursor < store->statements.touched_count)
            report->row_count += statement_fill_row(slab_at(&store->statements, report->cursor),
                                                    &report->rows.statements[report->row_count]);
        else
            report->row_count += prepared_fill_row(
                slab_at(&store->prepared, report->cursor - store->statements.touched_count),
                &report->rows.statements[report->row_count]);
    }
}

static void report_servers(struct core *core, struct report *report)
{
    for (; report->cursor < core->servers.touched_count; report->cursor++) {
        struct server *server = slab_at(&core->servers, report->cursor);

        /* One that is on its way to another core is still ours, too: shown twice rather than not at
         * all, control tells by the id. */
        if (server->state <= SERVER_FREE || server->state >= SERVER_STATES ||
            server->state == SERVER_CLOSING)
            continue;
        if (report->row_count == report->row_max) {
            report->more = true;
            return;
        }
        server_fill_row(server, &report->rows.sockets[report->row_count++], core->loop.now_us);
    }
}

/* Under PgBouncer's names where it has such objects, too. */
static void report_memory(struct core *core, struct report *report)
{
    const struct buffer_pool *buffers = core->loop.buffers;
    const struct statement_store *store = &core->statements;
    const struct {
        const char *name;
        const struct slab *slab;
    } slabs[] = {
        {"pool_cache", &core->pools},
        {"credentials_cache", &core->scram_cache},
        {"tls_handshake_cache", &core->tls_handshakes},
        {"server_cache", &core->servers},
        {"client_cache", &core->clients},
        {"server_prepared_statement_cache", &store->prepared},
        {"login_cache", &core->logins},
        {"server_login_cache", &core->server_logins},
        {"cancel_cache", &core->cancels},
        {"name_lookup_cache", &core->names},
        {"span_cache", &core->loop.spans},
        {"statement_cache", &store->statements},
        {"client_statements_cache", &store->client_statements},
        {"server_statements_cache", &store->server_statements},
        {"short_name_cache", &store->short_names},
        {"long_name_cache", &store->long_names},
        {"expectation_cache", &store->expectations},
        {"shared_exchange_cache", &core->shared},
        {"statement_times_cache", &core->statement_times},
        {"parked_buffer_128_cache", &buffers->parked[0]},
        {"parked_buffer_1k_cache", &buffers->parked[1]},
        {"parked_buffer_4k_cache", &buffers->parked[2]},
        {"parked_buffer_16k_cache", &buffers->parked[3]},
        {"parked_buffer_64k_cache", &buffers->parked[4]},
    };
    struct memory_row *row = report->rows.memory;

    assert(report->row_max > COUNT_OF(slabs));
    *row = (struct memory_row){.object_bytes = buffers->receive_bytes,
                               .used_count = buffers->receive_used,
                               .free_count = buffers->receive_count - buffers->receive_used};
    strcpy(row->name, "iobuf_cache");
    for (size_t i = 0; i < COUNT_OF(slabs); i++) {
        const struct slab *slab = slabs[i].slab;

        row++;
        *row = (struct memory_row){.object_bytes = (uint32_t)slab->object_bytes,
                                   .used_count = slab->used_count,
                                   .free_count = slab->touched_count - slab->used_count};
        strcpy(row->name, slabs[i].name);
    }
    report->row_count = COUNT_OF(slabs) + 1;
}

/* A pool is counted once: on the first of the cores that have a shard of it. */
static bool pool_is_first_shard(const struct pool *pool)
{
    for (unsigned k = 0; k < pool->shard_index; k++)
        if (atomic_load(&pool->set->shards[k].is_alive))
            return false;
    return true;
}

static void report_counts(struct core *core, struct report *report)
{
    struct core_counts *counts = &report->counts;

    *counts = (struct core_counts){0};
    list_for_each(link, &core->pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);

        counts->pools += pool_is_first_shard(pool);
        counts->clients += pool->client_count;
        counts->servers += pool->server_count + pool->lent_count;
    }
    list_for_each(link, &core->login_list) counts->login_clients++;
    counts->free_clients = core->clients.touched_count - core->clients.used_count;
    counts->free_servers = core->servers.touched_count - core->servers.used_count;
    counts->busy_servers =
        core_busy_servers(core, report->database[0] != '\0' ? report->database : NULL);
    counts->connections = (unsigned)core->loop.conn_count;
}

void report_open(struct letter *letter, void *context)
{
    struct report *report = OWNER_OF(letter, struct report, letter);
    struct core *core = context;

    report->row_count = 0;
    report->more = false;
    switch (report->kind) {
    case REPORT_POOLS:
        report_pools(core, report);
        break;
    case REPORT_PEERS:
        report_peers(core, report);
        break;
    case REPORT_CLIENTS:
        report_clients(core, report, CLIENT_CANCEL, CLIENT_ACTIVE);
        break;
    case REPORT_LOGINS:
        report_clients(core, report, CLIENT_LOGIN, CLIENT_MOVING);
        break;
    case REPORT_SERVERS:
        report_servers(core, report);
        break;
    case REPORT_STATEMENTS:
        report_statements(core, report);
        break;
    case REPORT_MEMORY:
        report_memory(core, report);
        break;
    case REPORT_SHARING:
        report_sharing(core, report);
        break;
    case REPORT_CLASSES:
        report_classes(core, report);
        break;
    case REPORT_COUNTS:
        report_counts(core, report);
        break;
    case REPORT_UNSETTLED:
        report->counts = (struct core_counts){.unsettled = suspend_unsettled(core)};
        break;
    }
    letter->open = report->answered;
    core->ports->post_control(core, letter);
}

/* ---- addresses ---- */

void peer_name_from(struct peer_name *name, const struct sockaddr_storage *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

    *name = (struct peer_name){.family = (uint8_t)address->ss_family};
    if (address->ss_family == AF_INET) {
        name->port = ntohs(v4->sin_port);
        memcpy(name->address, &v4->sin_addr, 4);
    } else if (address->ss_family == AF_INET6) {
        name->port = ntohs(v6->sin6_port);
        memcpy(name->address, &v6->sin6_addr, 16);
        /* Somebody came by IPv4 to a socket for both, as systemd makes them by default: HBA rules
         * for IPv4 are for him, and the log should not have two names for one host. */
        if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
            name->family = AF_INET;
            memset(name->address, 0, sizeof(name->address));
            memcpy(name->address, &v6->sin6_addr.s6_addr[12], 4);
        }
    }
}

void peer_name_host(const struct peer_name *name, char text[64])
{
    strcpy(text, "unix");
    if (name->family == AF_INET || name->family == AF_INET6)
        (void)inet_ntop(name->family, name->address, text, 64);
}

bool address_from_text(const char *host, uint16_t port, struct sockaddr_storage *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    struct sockaddr_un *un = (struct sockaddr_un *)address;

    memset(address, 0, sizeof(*address));
    if (host[0] == '/' || host[0] == '@') {
        int bytes = snprintf(un->sun_path, sizeof(un->sun_path), "%s/.s.PGSQL.%u", host, port);

        if (bytes < 0 || (size_t)bytes >= sizeof(un->sun_path))
            return false;
        if (host[0] == '@')
            un->sun_path[0] = '\0';
        un->sun_family = AF_UNIX;
        return true;
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return true;
    }
    return false;
}

socklen_t unix_address_bytes(const struct sockaddr_storage *address)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)address;
    size_t path_bytes = un->sun_path[0] == '\0'
                            ? 1 + strnlen(un->sun_path + 1, sizeof(un->sun_path) - 1)
                            : strnlen(un->sun_path, sizeof(un->sun_path) - 1) + 1;

    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes);
}

void core_tune_socket(struct core *core, int fd, int family)
{
    const struct settings *settings = &core->snapshot->settings;
    struct ring *ring = core->loop.ring;

    if (family != AF_INET && family != AF_INET6)
        return;
    ring_set_option(ring, fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (settings->tcp_socket_buffer > 0) {
        ring_set_option(ring, fd, SOL_SOCKET, SO_SNDBUF, settings->tcp_socket_buffer);
        ring_set_option(ring, fd, SOL_SOCKET, SO_RCVBUF, settings->tcp_socket_buffer);
    }
    if (settings->tcp_user_timeout > 0)
        ring_set_option(ring, fd, IPPROTO_TCP, TCP_USER_TIMEOUT, settings->tcp_user_timeout);
    if (!settings->tcp_keepalive)
        return;
    ring_set_option(ring, fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (settings->tcp_keepcnt > 0)
        ring_set_option(ring, fd, IPPROTO_TCP, TCP_KEEPCNT, settings->tcp_keepcnt);
    if (settings->tcp_keepidle > 0)
        ring_set_option(ring, fd, IPPROTO_TCP, TCP_KEEPIDLE, settings->tcp_keepidle);
    if (settings->tcp_keepintvl > 0)
        ring_set_option(ring, fd, IPPROTO_TCP, TCP_KEEPINTVL, settings->tcp_keepintvl);
}
