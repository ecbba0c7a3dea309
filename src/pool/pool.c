/* pool.c - who waits, who is free, who may open. */
#include "pool/pool.h"

#include "crypto/scram.h"
#include "crypto/secret.h"
#include "pool/client.h"
#include "pool/host.h"
#include "pool/lending.h"
#include "pool/peer.h"
#include "pool/replication.h"
#include "pool/server.h"

#include <stdio.h>
#include <string.h>

enum { MAINTENANCE_US = 333 * 1000 };

static void maintenance_fired(struct timer *timer, uint64_t now_us);
static void arm_maintenance(struct pool *pool);
static void host_known(struct host_waiter *waiter);
static void tell_welcome(struct pool *pool);
static void open_spare(struct pool *pool, int count);

static uint32_t pool_hash(const char *database, const char *user)
{
    uint32_t hash = 2166136261u;

    for (; *database != '\0'; database++)
        hash = (hash ^ (uint8_t)*database) * 16777619u;
    hash *= 16777619u;
    for (; *user != '\0'; user++)
        hash = (hash ^ (uint8_t)*user) * 16777619u;
    return hash ^ hash >> 15;
}

struct pool *pool_find(struct core *core, const char *database_name, const char *user_name)
{
    struct pool *pool =
        core->pool_buckets[pool_hash(database_name, user_name) / 256 % POOL_BUCKETS];

    while (pool != NULL && (strcmp(pool->database_name, database_name) != 0 ||
                            strcmp(pool->user_name, user_name) != 0))
        pool = pool->bucket_next;
    return pool;
}

void pool_update_settings(struct pool *pool)
{
    const struct snapshot *snapshot = pool->core->snapshot;

    pool->user_config = snapshot_find_user(snapshot, pool->user_name);
    snapshot_pool_settings(snapshot, pool->database, pool->user_config, &pool->settings);
    pool->identity = database_config_identity(pool->database);
    sharing_update(pool);
}

bool pool_keep_password(struct pool *pool, const char *password)
{
    struct core *core = pool->core;
    struct buffer *old = pool->client_password;
    struct buffer *new = NULL;
    size_t bytes = password != NULL ? strlen(password) + 1 : 0;

    if (old == NULL ? password == NULL
                    : password != NULL && strcmp((const char *)old->data, password) == 0)
        return true;
    if (password != NULL) {
        new = buffer_park(core->loop.buffers, bytes);
        if (new == NULL)
            return false;
        memcpy(new->data, password, bytes);
    }
    if (old != NULL) {
        secret_wipe(old->data, strlen((const char *)old->data));
        buffer_release(core->loop.buffers, old);
    }
    pool->client_password = new;
    pool->client_password_count++;
    pool->client_password_is_found = false;
    pool->has_salted_password = false;
    pool->has_client_key = false;
    if (password != NULL)
        pool_try_now(pool);
    return true;
}

bool pool_takes_password(const struct pool *pool, bool is_found)
{
    enum auth_type auth_type = pool->core->snapshot->settings.auth_type;

    /* What auth_query has found stays, until auth_file knows better; else clients may still have to come
     * whose password PAM or LDAP checks. */
    if (is_found)
        return pool->user_config == NULL || !pool->user_config->is_in_auth_file;
    return auth_type == AUTH_PAM || auth_type == AUTH_LDAP || auth_type == AUTH_HBA;
}

void pool_read_password(struct pool *pool)
{
    struct shard_set *set = pool->set;
    struct password_news news;

    if (pool->core->count == 1 || atomic_load(&set->password.version) == pool->password_seen ||
        !bulletin_read(&set->password, set->password_words, &news, sizeof(news),
                       &pool->password_seen))
        return;
    if (news.password[0] != '\0' && pool->database->user == NULL &&
        pool_takes_password(pool, news.is_found) && pool_keep_password(pool, news.password))
        pool->client_password_is_found = news.is_found;
    secret_wipe(&news, sizeof(news));
}

/* Keys of a SCRAM secret are the shard's whose client has proved it; the secret alone opens nothing. */
static void tell_password(struct pool *pool, const char *password, bool is_found)
{
    struct shard_set *set = pool->set;
    struct password_news news = {.is_found = is_found};
    struct scram_secret secret;

    if (pool->core->count == 1 || strlen(password) >= sizeof(news.password) ||
        scram_secret_parse(&secret, password))
        return;
    strcpy(news.password, password);
    if (bulletin_write(&set->password, set->password_words, &news, sizeof(news)))
        pool->password_seen = atomic_load(&set->password.version);
    secret_wipe(&news, sizeof(news));
}

bool pool_learn_password(struct pool *pool, const char *password, bool is_found)
{
    unsigned before;

    /* First what others have learned: this is newer. */
    pool_read_password(pool);
    before = pool->client_password_count;
    if (!pool_keep_password(pool, password))
        return false;
    pool->client_password_is_found = is_found;
    if (pool->client_password_count != before)
        tell_password(pool, password, is_found);
    return true;
}

static void pool_give(struct pool *pool)
{
    struct core *core = pool->core;

    pool->core = NULL; /* see pool_is_there */
    slab_give(&core->pools, pool);
}

struct pool *pool_find_or_make(struct core *core, const struct database_config *database,
                               const char *database_name, const char *user_name)
{
    struct pool *pool = pool_find(core, database_name, user_name);
    struct shard_set *set;
    struct pool **bucket;

    if (pool != NULL) {
        /* A database that was dropped and has come back. */
        pool->is_retired = false;
        pool->database = database;
        return pool;
    }
    set = shard_set_find(core->shards, database_name, user_name);
    if (set == NULL || shard_index_on(set, core->index) >= SHARDS_MAX)
        return NULL;
    pool = slab_take(&core->pools);
    if (pool == NULL)
        return NULL;
    memset(pool, 0, sizeof(*pool));
    pool->core = core;
    pool->id = core_next_id(core);
    pool->database = database;
    strcpy(pool->database_name, database_name);
    strcpy(pool->user_name, user_name);
    pool->set = set;
    pool->shard_index = shard_index_on(set, core->index);
    pool->shard = &set->shards[pool->shard_index];
    pool->database_usage = usage_find(core->usage, USAGE_DATABASE, database_name);
    pool->user_usage = usage_find(core->usage, USAGE_USER, user_name);
    if (pool->database_usage == NULL || pool->user_usage == NULL) {
        pool_give(pool);
        return NULL;
    }
    list_init(&pool->link);
    list_init(&pool->idle_clients);
    list_init(&pool->active_clients);
    list_init(&pool->waiting_clients);
    list_init(&pool->welcome_clients);
    list_init(&pool->replication_clients);
    list_init(&pool->idle_servers);
    list_init(&pool->active_servers);
    list_init(&pool->tested_servers);
    list_init(&pool->login_servers);
    list_init(&pool->canceled_servers);
    list_init(&pool->lending_servers);
    list_init(&pool->name_waiter.link);
    sharing_init(pool);
    pool->name_waiter.known = host_known;
    timer_init(&pool->timer, maintenance_fired);
    pool_update_settings(pool);
    pool->is_paused = core_database_is_paused(core, database_name);
    list_push_back(&core->pool_list, &pool->link);
    bucket = &core->pool_buckets[pool_hash(database_name, user_name) / 256 % POOL_BUCKETS];
    pool->bucket_next = *bucket;
    *bucket = pool;
    if (database->is_auto && !shard_has_siblings(set))
        log_write(LEVEL_LOG, "registered new auto-database: %s", database_name);
    lending_open(pool);
    pool_read_news(pool);
    return pool;
}

/* Frees a pool without clients and servers. */
static void pool_forget(struct pool *pool)
{
    struct core *core = pool->core;
    struct pool **link =
        &core->pool_buckets[pool_hash(pool->database_name, pool->user_name) / 256 % POOL_BUCKETS];

    assert(pool->client_count == 0);
    assert(pool->server_count == 0);
    assert(pool->lent_count == 0);
    lending_close(pool);
    while (*link != pool)
        link = &(*link)->bucket_next;
    *link = pool->bucket_next;
    timer_stop(&pool->timer);
    list_remove(&pool->link);
    params_release(&core->params, pool->default_params);
    list_remove(&pool->name_waiter.link);
    (void)!pool_keep_password(pool, NULL);
    sharing_release(pool);
    explicit_bzero(pool->client_key, sizeof(pool->client_key));
    explicit_bzero(pool->salted_password, sizeof(pool->salted_password));
    pool_give(pool);
}

void pool_release_all(struct core *core)
{
    list_for_each_safe(link, &core->pool_list) pool_forget(OWNER_OF(link, struct pool, link));
}

void pool_make_forced(struct core *core)
{
    const struct snapshot *snapshot = core->snapshot;

    for (size_t i = 0; i < snapshot->database_count; i++) {
        const struct database_config *database = &snapshot->databases[i];
        struct pool_settings limits;
        const struct shard_set *set;
        struct pool *pool;

        if (database->user == NULL)
            continue;
        set = shard_set_find(core->shards, database->name, database->user);
        if (set == NULL || set->home != core->index)
            continue;
        snapshot_pool_settings(snapshot, database, snapshot_find_user(snapshot, database->user),
                               &limits);
        if (limits.min_pool_size <= 0)
            continue;
        pool = pool_find_or_make(core, database, database->name, database->user);
        if (pool != NULL)
            arm_maintenance(pool);
    }
}

static void arm_maintenance(struct pool *pool)
{
    if (!timer_is_set(&pool->timer))
        timer_set(&pool->core->timers, &pool->timer, pool->core->loop.now_us + MAINTENANCE_US);
}

/* ---- a host that is a standby, and may be promoted ---- */

enum { ASK_STANDBY_US = 1000 * 1000 };

/* The value of one ParameterStatus of the welcome, and where that message begins and ends. NULL: it is
 * not in it. */
static const char *welcome_find(const struct pool *pool, const char *wanted, size_t *begin,
                                size_t *end)
{
    struct reader reader;

    reader_init(&reader, pool->welcome, pool->welcome_bytes);
    while (reader_left(&reader) > 0) {
        const char *name;
        const char *value;

        *begin = pool->welcome_bytes - reader_left(&reader);
        (void)reader_get(&reader, FRAME_HEADER_BYTES);
        name = reader_get_string(&reader);
        value = reader_get_string(&reader);
        assert(name != NULL && value != NULL); /* made by message_parameter_status */
        *end = pool->welcome_bytes - reader_left(&reader);
        if (strcmp(name, wanted) == 0)
            return value;
    }
    return NULL;
}

void pool_replace_welcome(struct pool *pool, const uint8_t *welcome, size_t bytes,
                          uint64_t generation)
{
    assert(pool->has_welcome);
    assert(bytes <= sizeof(pool->welcome));
    memcpy(pool->welcome, welcome, bytes);
    pool->welcome_bytes = (uint16_t)bytes;
    pool->welcome_generation = generation;
    pool->welcome_us = MAX(pool->core->loop.now_us, pool->welcome_us + 1);
    tell_welcome(pool);
}

void pool_standby_told(struct pool *pool, const struct server *server, const char *value)
{
    static const char name[] = "in_hot_standby";
    uint8_t welcome[POOL_WELCOME_BYTES];
    struct writer writer;
    size_t begin, end;
    const char *before;

    if (!pool->has_welcome || pool->is_retired || server->close_needed ||
        server->generation < pool->welcome_generation || server->identity != pool->identity)
        return;
    before = welcome_find(pool, name, &begin, &end);
    if (before == NULL || strcmp(before, value) == 0)
        return;
    writer_init(&writer, welcome, sizeof(welcome));
    writer_put(&writer, pool->welcome, begin);
    message_parameter_status(&writer, name, value);
    writer_put(&writer, pool->welcome + end, pool->welcome_bytes - end);
    if (writer.overflow)
        return;
    log_write(LEVEL_LOG, "pool %s/%s: the server says that in_hot_standby is %s now",
              pool->database_name, pool->user_name, value);
    pool_replace_welcome(pool, welcome, writer.bytes, pool->welcome_generation);
}

/* PostgreSQL tells of its promotion with its next answer. Clients that look at the welcome and go away
 * because it is a standby's (target_session_attrs) ask nothing, so we do, now and then. */
static void ask_standby(struct pool *pool)
{
    uint64_t now_us = pool->core->loop.now_us;
    struct list *idle = list_front(&pool->idle_servers);
    const char *value;
    size_t begin, end;

    if (now_us - pool->asked_standby_us < ASK_STANDBY_US || pool_is_stopped(pool) ||
        pool->is_launching)
        return;
    value = welcome_find(pool, "in_hot_standby", &begin, &end);
    if (value == NULL || strcmp(value, "on") != 0)
        return;
    pool->asked_standby_us = now_us;
    if (idle != NULL) {
        server_start_check(OWNER_OF(idle, struct server, link));
    } else if (usage_count(&pool->set->server_count) == 0) {
        open_spare(pool, 1);
    } else if (pool->core->count > 1) {
        atomic_store(&pool->set->asks_standby, true);
        lending_poke_all(pool);
    }
}

void pool_answer_standby(struct pool *pool)
{
    struct list *idle = list_front(&pool->idle_servers);

    if (idle != NULL && !pool_is_stopped(pool) && !pool->is_launching &&
        atomic_load(&pool->set->asks_standby) && atomic_exchange(&pool->set->asks_standby, false))
        server_start_check(OWNER_OF(idle, struct server, link));
}

/* ---- clients ---- */

static void error_hint(const struct pool *pool, char hint[128])
{
    uint64_t now_us = pool->core->loop.now_us;

    if (pool->retry_at_us > now_us)
        snprintf(hint, 128, "The next attempt to connect to the server is in %.1f seconds.",
                 (double)(pool->retry_at_us - now_us) / (double)US_PER_S);
    else
        snprintf(hint, 128, "A new attempt to connect to the server is under way.");
}

/* It ends because the server cannot be had: it hears what that said, or what was tried, and when the
 * next attempt is. The log says it of the first client. */
static void close_for_failure(struct pool *pool, struct client *client, const char *message,
                              const char *sqlstate, const char *what)
{
    char detail[POOL_ERROR_BYTES + 64];
    char hint[128];
    struct pg_error error = {
        .severity = SEVERITY_FATAL,
        .message = message,
        .sqlstate = sqlstate,
        .detail = detail,
        .hint = hint,
    };

    snprintf(detail, sizeof(detail), "%s: %s", what, pool->last_error);
    error_hint(pool, hint);
    client_close_pg_error(client, &error,
                          atomic_fetch_add(&pool->set->told_count, 1) == 0 ? LEVEL_WARNING
                                                                           : LEVEL_DEBUG);
}

void pool_client_timed_out(struct pool *pool, struct client *client, const char *reason)
{
    char detail[128];
    const struct pg_error error = {.severity = SEVERITY_FATAL, .message = reason, .detail = detail};

    if (pool->last_login_failed) {
        close_for_failure(pool, client, reason, NULL, "The last connection to the server failed");
        return;
    }
    if (pool_is_stopped(pool))
        snprintf(detail, sizeof(detail), "The database is paused.");
    else
        snprintf(detail, sizeof(detail),
                 "No server became free; the pool has %u of at most %d (pool_size; 0: no limit).",
                 usage_count(&pool->set->server_count), pool->settings.pool_size);
    client_close_pg_error(client, &error, LEVEL_WARNING);
}

static void close_with_servers_error(struct pool *pool, struct client *client)
{
    close_for_failure(pool, client, pool->last_error,
                      pool->last_sqlstate[0] != '\0' ? pool->last_sqlstate : NULL,
                      "The server said");
}

/* The server has refused, and nothing has been tried since: nobody waits for what is known. Who logs in
 * hears it as without a pooler. True: the client is closed. */
static bool refuse_at_once(struct pool *pool, struct client *client)
{
    char message[POOL_ERROR_BYTES + 128];

    if (!pool->last_login_failed || !pool->server_said_error ||
        usage_count(&pool->set->server_count) > 0 || pool->retry_at_us <= pool->core->loop.now_us)
        return false;
    if (client->state == CLIENT_WELCOME) {
        close_with_servers_error(pool, client);
        return true;
    }
    snprintf(message, sizeof(message),
             "server login has been failing, cached error: %s (server_login_retry)",
             pool->last_error);
    close_for_failure(pool, client, message, NULL, "The server said");
    return true;
}

void pool_client_enters(struct pool *pool, struct client *client)
{
    pool->empty_since_us = 0;
    arm_maintenance(pool);
    if (!pool->has_welcome)
        pool_read_news(pool);
    if (client->state != CLIENT_WELCOME)
        return;
    if (pool->has_welcome && client->replication == REPLICATION_NONE) {
        client_welcome(client);
        ask_standby(pool);
    } else if (!refuse_at_once(pool, client)) {
        pool_launch(pool);
    }
}

bool pool_must_check(const struct pool *pool, uint64_t idle_since_us)
{
    const struct settings *settings = &pool->core->snapshot->settings;
    uint64_t delay_us =
        settings->server_check_delay_us > 0 ? settings->server_check_delay_us : MAINTENANCE_US;

    return pool->core->loop.now_us - idle_since_us > delay_us &&
           settings->server_check_query != NULL && settings->server_check_query[0] != '\0';
}

bool pool_want_server(struct pool *pool, struct client *client)
{
    struct core *core = pool->core;
    struct list *link = list_front(&pool->idle_servers);

    assert(client->state == CLIENT_IDLE);
    if (likely(link != NULL && list_is_empty(&pool->waiting_clients) && !pool_is_stopped(pool))) {
        struct server *server = OWNER_OF(link, struct server, link);

        if (likely(!pool_must_check(pool, server->idle_since_us))) {
            if (likely(server_link(server, client)))
                return true;
            if (client->state == CLIENT_IDLE) {
                client->wait_since_us = core->loop.now_us;
                client_become(client, CLIENT_PREPARING);
                client_arm_timer(client);
            }
            return false;
        }
        /* Else it is tested (pool_launch), and goes to the first waiter. */
    }
    pool_wait_in_line(pool, client);
    return false;
}

void pool_wait_in_line(struct pool *pool, struct client *client)
{
    struct core *core = pool->core;

    if (refuse_at_once(pool, client))
        return;
    client->wait_since_us = core->loop.now_us;
    client->is_notified = false;
    client_become(client, CLIENT_WAITING);
    client_arm_timer(client);
    if (core->shutdown == SHUTDOWN_WAIT_FOR_SERVERS) {
        client_close_error(client, "server shutting down", NULL);
        return;
    }
    if (!shared_may_join(client->shared))
        sharing_make_room(pool);
    arm_maintenance(pool);
    pool_launch(pool);
}

void pool_client_leaves(struct pool *pool, struct client *client)
{
    (void)client;
    assert(pool->client_count > 0);
    pool->client_count--;
    arm_maintenance(pool);
}

/* ---- servers ---- */

static uint64_t lifetime_of(const struct pool *pool)
{
    return pool->settings.server_lifetime_us;
}

bool pool_lifetime_is_over(struct pool *pool, const struct server *server)
{
    uint64_t now_us = pool->core->loop.now_us;
    uint64_t lifetime_us = lifetime_of(pool);
    uint64_t size = (uint64_t)MAX(pool->settings.pool_size, 1);
    uint64_t last_us;

    if (likely(lifetime_us == 0 || now_us - server->connect_us <= lifetime_us))
        return false;
    last_us = atomic_load(&pool->set->last_lifetime_us);
    return now_us >= last_us + lifetime_us / size &&
           atomic_compare_exchange_strong(&pool->set->last_lifetime_us, &last_us, now_us);
}

/* The client with replication that has waited longer than the first one that could use what is free;
 * NULL: none has. */
static const struct client *replication_next(const struct pool *pool)
{
    const struct client *client = replication_first_waiter(pool);
    const struct list *waiter = list_front(&pool->waiting_clients);

    if (client != NULL && waiter != NULL &&
        client->state_since_us > OWNER_OF(waiter, const struct client, link)->wait_since_us)
        return NULL;
    return client;
}

/* To whoever waits, here or on another core; else it stays idle. */
static void give_to_next(struct pool *pool, struct server *server)
{
    struct list *waiter = list_front(&pool->waiting_clients);

    if (waiter != NULL) {
        struct client *client = OWNER_OF(waiter, struct client, link);

        if (lending_gives_way(pool, server, client)) {
            /* It may have been counted on (a reset that has ended): the waiter needs another one. */
            pool_launch(pool);
            return;
        }
        if (client->shared != NULL && sharing_start(server, client)) {
            sharing_admit(pool, false);
            sharing_make_room(pool);
            return;
        }
        if (client->shared != NULL && !sharing_make_ordinary(client))
            return;
        if (server_link(server, client))
            client_linked(client);
        else if (client->state == CLIENT_WAITING)
            client_become(client, CLIENT_PREPARING);
        return;
    }
    if (pool->sharing.wants_server) {
        pool->sharing.wants_server = false;
        lending_update(pool); /* nor does it ask others for one any more */
    }
    lending_serve(pool);
    arm_maintenance(pool);
}

void pool_server_free(struct pool *pool, struct server *server)
{
    const struct client *replica = NULL;

    assert(server->state == SERVER_IDLE);
    if (pool_is_stopped(pool)) {
        server_close(server, "pause mode");
        return;
    }
    if (pool->is_retired) {
        server_close(server, "database configuration changed");
        return;
    }
    /* Closed after one use, and spaced otherwise: see maintenance. */
    if (lifetime_of(pool) == 0 && server->has_served) {
        server_close(server, "server lifetime over");
        return;
    }
    if (pool_lifetime_is_over(pool, server)) {
        server_close(server, "server lifetime over");
        return;
    }
    if (unlikely(pool->is_replication_denied))
        replica = replication_next(pool);
    if (replica != NULL &&
        host_is_known_for(pool, replication_first_turn(replica), replica->replication_tries)) {
        server_close(server, "evicted");
        return;
    }
    give_to_next(pool, server);
    /* While its host is being looked up somebody else would take the place, and log in in vain: so it
     * is looked up first (simulation seed 5349). */
    if (replica != NULL)
        pool_launch(pool);
}

/* ---- news between shards ---- */

static void forget_failure(struct pool *pool)
{
    pool->last_login_failed = false;
    pool->server_said_error = false;
    pool->retry_pause_us = 0;
    pool->retry_at_us = 0;
    pool->unreachable_count = 0;
}

static void welcome_all(struct pool *pool)
{
    while (!list_is_empty(&pool->welcome_clients))
        client_welcome(OWNER_OF(list_front(&pool->welcome_clients), struct client, link));
}

/* Another shard that publishes at the same moment has news of the same moment. */
static void tell_failure(struct pool *pool)
{
    struct failure_news news = {
        .has_failed = pool->last_login_failed,
        .said_error = pool->server_said_error,
        .retry_at_us = pool->retry_at_us,
        .retry_pause_us = pool->retry_pause_us,
    };

    if (pool->core->count == 1)
        return;
    static_assert(sizeof(news.text) == sizeof(pool->last_error), "the same text");
    memcpy(news.text, pool->last_error, sizeof(news.text));
    memcpy(news.sqlstate, pool->last_sqlstate, sizeof(pool->last_sqlstate));
    if (!bulletin_write(&pool->set->failure, pool->set->failure_words, &news, sizeof(news)))
        return;
    pool->failure_seen = atomic_load(&pool->set->failure.version);
    lending_poke_all(pool);
}

static void tell_welcome(struct pool *pool)
{
    const struct param_table *params = &pool->core->params;
    struct welcome_news news = {
        .generation = pool->welcome_generation,
        .identity = pool->identity,
        .made_us = pool->welcome_us,
        .welcome_bytes = pool->welcome_bytes,
    };
    const char *values[PARAMS_COUNT_MAX];

    if (pool->core->count == 1)
        return;
    static_assert(sizeof(news.welcome) == sizeof(pool->welcome), "the same messages");
    memcpy(news.welcome, pool->welcome, pool->welcome_bytes);
    params_values(params, pool->default_params, values);
    news.params_bytes = (uint16_t)params_pack(params, values, news.params, sizeof(news.params));
    if (!bulletin_write(&pool->set->welcome, pool->set->welcome_words, &news, sizeof(news)))
        return;
    pool->welcome_seen = atomic_load(&pool->set->welcome.version);
    lending_poke_all(pool);
}

void pool_repeat_welcome(struct pool *pool)
{
    struct shard_set *set = pool->set;
    bool is_wanted = false;

    if (pool_needs_welcome(pool) || pool->is_retired)
        return;
    for (unsigned k = 0; k < MIN(pool->core->count, (unsigned)SHARDS_MAX); k++) {
        uint64_t wanted = pool->identity;

        if (k != pool->shard_index && atomic_load(&set->shards[k].welcome_wanted) == wanted &&
            atomic_compare_exchange_strong(&set->shards[k].welcome_wanted, &wanted, 0))
            is_wanted = true;
    }
    if (is_wanted)
        tell_welcome(pool);
}

/* Clients wait for it, and the bulletin has none that would do. */
static void ask_for_welcome(struct pool *pool)
{
    if (pool->core->count > 1 && shard_has_siblings(pool->set) &&
        atomic_exchange(&pool->shard->welcome_wanted, pool->identity) != pool->identity)
        lending_poke_all(pool);
}

/* Of a server that would be ours, too: one from before a RECONNECT, or of another host, is not. */
static void read_welcome(struct pool *pool)
{
    struct shard_set *set = pool->set;
    struct param_table *params = &pool->core->params;
    struct welcome_news news;
    const char *values[PARAMS_COUNT_MAX];
    struct buffer *defaults;

    if ((pool->has_welcome && atomic_load(&set->welcome.version) == pool->welcome_seen) ||
        pool->is_retired ||
        !bulletin_read(&set->welcome, set->welcome_words, &news, sizeof(news),
                       &pool->welcome_seen) ||
        news.generation < atomic_load(&set->generation) || news.identity != pool->identity)
        return;
    if (pool->has_welcome && news.made_us <= pool->welcome_us) {
        if (news.made_us < pool->welcome_us)
            tell_welcome(pool); /* two of them wrote at once, and the older one was the last */
        return;
    }
    params_unpack(params, news.params, news.params_bytes, values);
    defaults = params_intern(params, values);
    if (defaults == NULL)
        return;
    params_release(params, pool->default_params);
    pool->default_params = defaults;
    memcpy(pool->welcome, news.welcome, news.welcome_bytes);
    pool->welcome_bytes = news.welcome_bytes;
    pool->welcome_generation = news.generation;
    pool->welcome_us = news.made_us;
    pool->has_welcome = true;
    welcome_all(pool);
}

static void fail_waiters(struct pool *pool);

static void read_failure(struct pool *pool)
{
    struct shard_set *set = pool->set;
    struct failure_news news;
    unsigned version;

    if (atomic_load(&set->failure.version) == pool->failure_seen ||
        !bulletin_read(&set->failure, set->failure_words, &news, sizeof(news), &version))
        return;
    pool->failure_seen = version;
    if (!news.has_failed) {
        forget_failure(pool);
        return;
    }
    pool->last_login_failed = true;
    pool->server_said_error = news.said_error;
    pool->retry_at_us = news.retry_at_us;
    pool->retry_pause_us = news.retry_pause_us;
    memcpy(pool->last_error, news.text, sizeof(pool->last_error));
    memcpy(pool->last_sqlstate, news.sqlstate, sizeof(pool->last_sqlstate));
    arm_maintenance(pool);
    fail_waiters(pool);
}

void pool_read_news(struct pool *pool)
{
    if (pool->core->count == 1)
        return;
    read_failure(pool);
    read_welcome(pool);
}

void pool_server_logged_in(struct pool *pool, struct server *server)
{
    struct core *core = pool->core;
    bool had_failed;

    if (pool->last_login_failed)
        log_write(LEVEL_LOG,
                  "pool %s/%s: the server can be reached again; clients closed meanwhile: %u",
                  pool->database_name, pool->user_name, atomic_exchange(&pool->set->told_count, 0));
    had_failed = pool->last_login_failed;
    pool->terminated_login_count = 0;
    forget_failure(pool);
    if (had_failed)
        tell_failure(pool);
    /* Not of one that has to go: a RELOAD or RECONNECT came while its connect_query ran (simulation
     * seed 408). */
    if (pool_needs_welcome(pool) && !server->close_needed) {
        pool->has_welcome = true;
        pool->welcome_generation = server->generation;
        pool->welcome_us = core->loop.now_us;
        params_release(&core->params, pool->default_params);
        pool->default_params = server->params != NULL ? buffer_reference(server->params) : NULL;
        tell_welcome(pool);
    }
    if (pool->has_welcome)
        welcome_all(pool);
}

/* The least that server_login_retry = 0 means, until the next maintenance: without it attempts follow
 * each other as fast as the server refuses them (4,000 a second). */
enum { RETRY_PAUSE_MIN_US = 1000 };

void pool_server_failed(struct pool *pool, const char *text, const char *sqlstate, bool said_error)
{
    struct core *core = pool->core;
    const struct settings *settings = &core->snapshot->settings;
    bool is_shortest = settings->server_login_retry_us == 0;
    uint64_t pause_us = is_shortest ? RETRY_PAUSE_MIN_US : settings->server_login_retry_us;
    uint64_t pause_max_us =
        is_shortest ? pause_us : MAX(settings->server_login_retry_max_us, pause_us);

    /* A host with several addresses (localhost: ::1, 127.0.0.1) has failed when each of them has.
     */
    if (!said_error && ++pool->unreachable_count < host_attempts(pool))
        return;
    pool->unreachable_count = 0;
    /* Several attempts of one burst fail together: the pause grows once. */
    if (pool->retry_at_us <= core->loop.now_us) {
        pool->retry_pause_us = pool->retry_pause_us == 0 ? pause_us : pool->retry_pause_us * 2;
        pool->retry_pause_us = MIN(pool->retry_pause_us, pause_max_us);
        pool->retry_at_us =
            MAX(core->loop.now_us + pool->retry_pause_us, host_unknown_until_us(pool));
    }
    if (!pool->last_login_failed || strcmp(pool->last_error, text) != 0)
        log_write(LEVEL_WARNING,
                  "pool %s/%s: connecting to the server failed: %s; next attempt in %.1f s",
                  pool->database_name, pool->user_name, text,
                  (double)pool->retry_pause_us / (double)US_PER_S);
    pool->last_login_failed = true;
    pool->server_said_error = said_error;
    snprintf(pool->last_error, sizeof(pool->last_error), "%s", text);
    snprintf(pool->last_sqlstate, sizeof(pool->last_sqlstate), "%s",
             sqlstate != NULL ? sqlstate : "");
    arm_maintenance(pool);
    tell_failure(pool);
    fail_waiters(pool);
}

void pool_try_now(struct pool *pool)
{
    pool->retry_at_us = 0;
    if (pool->last_login_failed)
        tell_failure(pool);
}

/* Only an answer of the server fails those who wait, and only when no server is left that could
 * serve. */
static void fail_waiters(struct pool *pool)
{
    struct client *waiter;

    if (!pool->last_login_failed || !pool->server_said_error ||
        usage_count(&pool->set->ready_count) > 0)
        return;
    while ((waiter = replication_first_waiter(pool)) != NULL)
        close_with_servers_error(pool, waiter);
    for (int i = 0; i < 2; i++) {
        struct list *list = i == 0 ? &pool->welcome_clients : &pool->waiting_clients;

        while (!list_is_empty(list)) {
            struct client *client = OWNER_OF(list_front(list), struct client, link);

            close_with_servers_error(pool, client);
        }
    }
}

void pool_count_server(struct pool *pool, int change)
{
    pool->server_count = (unsigned)((int)pool->server_count + change);
    /* seq_cst: see poke_owners in lending.c. */
    atomic_store(&pool->shard->server_count, pool->server_count);
}

void pool_server_gone(struct pool *pool)
{
    pool_launch(pool);
    lending_permission_freed(pool);
    arm_maintenance(pool);
}

/* ---- opening ---- */

/* Room for one more server in the database's or the user's limit: the idle one of another pool that
 * has been idle longest gives way. `of_set`: or of this pool, whose idle ones will not do
 * (replication). Without `usage`: of this pool only. */
static bool evict_idle(struct core *core, const struct usage *usage, const struct shard_set *set,
                       bool of_set)
{
    struct server *oldest = NULL;

    list_for_each(link, &core->pool_list)
    {
        struct pool *other = OWNER_OF(link, struct pool, link);

        if (usage != NULL && other->user_usage != usage && other->database_usage != usage)
            continue;
        if (usage == NULL ? other->set != set : other->set == set && !of_set)
            continue;
        list_for_each(server_link, &other->idle_servers)
        {
            struct server *server = OWNER_OF(server_link, struct server, link);

            if (oldest == NULL || server->idle_since_us < oldest->idle_since_us)
                oldest = server;
        }
    }
    if (oldest == NULL)
        return false;
    server_close(oldest, "evicted");
    return true;
}

/* The request of a core that found nothing to evict goes round the others, and home. */
static void eviction_open(struct letter *letter, void *context)
{
    struct eviction *eviction = OWNER_OF(letter, struct eviction, letter);
    struct core *core = context;

    if (core->index != eviction->from_core) {
        eviction->has_evicted = evict_idle(core, eviction->usage, eviction->set, eviction->of_set);
        core->ports->post_core(
            core, eviction->has_evicted ? eviction->from_core : (core->index + 1) % core->count,
            letter);
        return;
    }
    eviction->in_flight = false;
    if (!eviction->has_evicted)
        return;
    list_for_each_safe(link, &core->pool_list) pool_launch(OWNER_OF(link, struct pool, link));
}

static void evict_elsewhere(struct core *core, const struct usage *usage,
                            const struct shard_set *set, bool of_set)
{
    struct eviction *eviction = &core->eviction;

    if (core->count == 1 || eviction->in_flight)
        return;
    *eviction = (struct eviction){
        .letter.open = eviction_open,
        .usage = usage,
        .set = set,
        .of_set = of_set,
        .from_core = core->index,
        .in_flight = true,
    };
    core->ports->post_core(core, (core->index + 1) % core->count, &eviction->letter);
}

static bool take_limit(struct pool *pool, bool of_user, bool for_client, bool of_set)
{
    struct usage *usage = of_user ? pool->user_usage : pool->database_usage;
    atomic_int *count = &usage->server_count;
    int limit = of_user ? pool->settings.max_user_connections : pool->settings.max_db_connections;

    if (usage_take(count, limit))
        return true;
    if (!for_client)
        return false;
    /* More than one, where a RELOAD has lowered the limit. */
    while (evict_idle(pool->core, usage, pool->set, of_set))
        if (usage_take(count, limit))
            return true;
    evict_elsewhere(pool->core, usage, pool->set, of_set);
    return false;
}

/* The rest of what one more server needs, its place in the pool being taken already. False: that place
 * is given back. `owner`: whose alone it will be (replication), else NULL. */
static bool launch_one(struct pool *pool, bool for_client, struct client *owner)
{
    struct sockaddr_storage address;
    bool is_ready = true;
    unsigned attempts;

    if (!take_limit(pool, false, for_client, owner != NULL))
        goto no_place;
    if (!take_limit(pool, true, for_client, owner != NULL)) {
        usage_give(&pool->database_usage->server_count);
        goto no_place;
    }
    attempts = host_attempts(pool);
    for (unsigned tries = 0; tries < attempts; tries++) {
        struct server *server;
        unsigned turn;

        is_ready = host_prepare(pool);
        if (!is_ready)
            break;
        turn = host_take(pool, &address);
        server = server_launch(pool, &address, owner);
        if (server != NULL) {
            server->host_turn = turn;
            return true;
        }
        host_failed(pool, turn); /* no IPv6 here, for example */
    }
    usage_give(&pool->database_usage->server_count);
    usage_give(&pool->user_usage->server_count);
    usage_give(&pool->set->login_count);
    usage_give(&pool->set->server_count);
    if (!is_ready)
        return false; /* the next host is being looked up, or its name has failed */
    if (owner != NULL) {
        client_close_error(owner, "connect failed", NULL);
        return false;
    }
    pool->unreachable_count = attempts;
    pool_server_failed(pool, "cannot connect", NULL, false);
    return false;

no_place:
    /* Nobody is poked: the other shards meet the same limit, and would poke back. */
    usage_give(&pool->set->login_count);
    usage_give(&pool->set->server_count);
    return false;
}

/* How many may log in at a time: after a failure one goes ahead and tries. */
static int login_limit(const struct pool *pool)
{
    return pool->last_login_failed ? 1 : pool->core->snapshot->settings.server_connect_parallel;
}

/* A place in the pool for a client's sake: from the reserve when the first waiter has waited for it.
 * In a pool that is full, as each client that has to wait finds it, nothing is written. */
static bool take_place(struct pool *pool)
{
    const struct settings *settings = &pool->core->snapshot->settings;
    uint64_t now_us = pool->core->loop.now_us;
    int size = pool->settings.pool_size;
    struct list *first = list_front(&pool->waiting_clients);
    bool of_reserve = false;

    if (usage_count(&pool->set->login_count) >= login_limit(pool))
        return false;
    if (!usage_take(&pool->set->server_count, size)) {
        if (pool->settings.reserve_pool_size <= 0 || settings->reserve_pool_timeout_us == 0 ||
            first == NULL || pool->login_count > 0 ||
            now_us - OWNER_OF(first, struct client, link)->wait_since_us <
                settings->reserve_pool_timeout_us ||
            !usage_take(&pool->set->server_count, size + pool->settings.reserve_pool_size))
            return false;
        of_reserve = true;
    }
    if (!usage_take(&pool->set->login_count, login_limit(pool))) {
        /* Another shard was faster; whoever was denied this place meanwhile is poked when that login
         * is over. */
        usage_give(&pool->set->server_count);
        return false;
    }
    if (of_reserve)
        log_write(LEVEL_WARNING, "C-0x%llx: %s/%s taking connection from reserve_pool",
                  (unsigned long long)OWNER_OF(first, struct client, link)->id, pool->database_name,
                  pool->user_name);
    return true;
}

/* A place for a server that one client alone will have: instead of an idle one, if need be. */
static bool take_place_of_idle(struct pool *pool)
{
    struct shard_set *set = pool->set;

    if (usage_count(&set->login_count) >= login_limit(pool))
        return false;
    while (!usage_take(&set->server_count, pool->settings.pool_size)) {
        pool->is_replication_denied = true;
        /* More than one, where a RELOAD has made the pool smaller. */
        if (evict_idle(pool->core, NULL, set, true))
            continue;
        if (shard_has_siblings(set))
            evict_elsewhere(pool->core, NULL, set, true);
        return false;
    }
    if (usage_take(&set->login_count, login_limit(pool)))
        return true;
    usage_give(&set->server_count);
    return false;
}

/* Asked again after the bit is set: whoever gives a place back in between either sees the bit, or we
 * see the place. */
static bool take_place_or_starve(struct pool *pool, bool (*take)(struct pool *pool))
{
    if (take(pool))
        return true;
    if (pool->core->count == 1 || pool->is_starved)
        return false;
    pool->is_starved = true;
    atomic_fetch_or(&pool->set->starved, UINT64_C(1) << pool->shard_index);
    return take(pool);
}

/* A server for each client that needs one of its own. True: the limits did not allow it. */
static bool launch_replication(struct pool *pool)
{
    struct client *client;

    pool->is_replication_denied = false;
    if (likely(pool->replication_count == 0) || pool->is_retired || pool_is_stopped(pool) ||
        pool->core->shutdown == SHUTDOWN_WAIT_FOR_SERVERS ||
        (pool->last_login_failed && pool->retry_at_us > pool->core->loop.now_us))
        return false;
    while ((client = replication_first_waiter(pool)) != NULL) {
        /* Who has a server of his own finds out by himself which addresses answer. */
        host_choose_for(pool, replication_first_turn(client), client->replication_tries);
        if (!host_prepare(pool))
            return false;
        if (!take_place_or_starve(pool, take_place_of_idle))
            return true;
        if (launch_one(pool, true, client) || client->state != CLIENT_WELCOME) {
            pool->is_replication_denied = false;
            continue;
        }
        pool->is_replication_denied = true; /* max_db_connections, max_user_connections */
        return true;
    }
    return false;
}

/* True: more would have been opened, had the pool's limits allowed it. */
static bool launch(struct pool *pool, bool may_defer)
{
    struct core *core = pool->core;
    unsigned wanted = pool->waiting_count;
    unsigned coming;
    bool is_denied = false;

    if (pool->sharing.wants_server && wanted == 0 && list_is_empty(&pool->idle_servers))
        wanted = 1;
    if (pool->welcome_count > 0 && wanted == 0)
        wanted = 1; /* one login makes the welcome for all of them */
    if (wanted <= pool->tested_count || pool->is_retired)
        return false;
    /* A paused pool still makes its first connection?  No: the welcome waits for RESUME
     * (PgBouncer). */
    if (pool_is_stopped(pool) || core->shutdown == SHUTDOWN_WAIT_FOR_SERVERS)
        return false;
    /* Idle servers that must be tested before use: one for each who waits, before any is opened. */
    while (pool->waiting_count > pool->tested_count && !list_is_empty(&pool->idle_servers))
        server_start_check(OWNER_OF(list_front(&pool->idle_servers), struct server, link));
    coming = lending_expected(pool);
    coming += pool->login_count - pool->replication_login_count;
    if (wanted <= pool->tested_count + coming)
        return false;
    if (may_defer && pool->waiting_count > 0)
        coming += lending_deferred(pool);
    if (pool->last_login_failed && pool->retry_at_us > core->loop.now_us)
        return false;
    for (; wanted > pool->tested_count + coming && host_prepare(pool); coming++) {
        is_denied = !take_place_or_starve(pool, take_place);
        if (is_denied || !launch_one(pool, true, NULL))
            break;
    }
    return is_denied;
}

static void launch_guarded(struct pool *pool, bool may_defer)
{
    bool is_denied;

    if (pool->is_launching)
        return;
    /* It may have come when the configuration here was still another one (simulation seed 10149). */
    if (pool->welcome_count > 0 && !pool->has_welcome) {
        pool_read_news(pool);
        if (!pool->has_welcome)
            ask_for_welcome(pool);
    }
    pool->is_launching = true;
    is_denied = launch_replication(pool);
    if (!launch(pool, may_defer) && !is_denied && pool->is_starved) {
        pool->is_starved = false;
        atomic_fetch_and(&pool->set->starved, ~(UINT64_C(1) << pool->shard_index));
    }
    pool->is_launching = false;
    lending_update(pool);
}

void pool_launch(struct pool *pool)
{
    launch_guarded(pool, true);
}

void pool_launch_now(struct pool *pool)
{
    launch_guarded(pool, false);
}

/* ---- upkeep ---- */

/* Servers that are free may have served their time. */
static void retire_idle(struct pool *pool)
{
    struct core *core = pool->core;
    const struct settings *settings = &core->snapshot->settings;
    uint64_t now_us = core->loop.now_us;

    pool->is_launching = true; /* closing one must not open, and so evict, another */
    list_for_each_safe(link, &pool->idle_servers)
    {
        struct server *server = OWNER_OF(link, struct server, link);

        if (server->close_needed) {
            server_close(server, server->close_reason);
        } else if (pool->settings.pool_size > 0 &&
                   usage_give_above(&pool->set->server_count,
                                    pool->settings.pool_size +
                                        MAX(pool->settings.reserve_pool_size, 0))) {
            server->has_left_pool = true;
            server_close(server, "too many servers in the pool");
        } else if (settings->server_idle_timeout_us > 0 &&
                   now_us - server->idle_since_us > settings->server_idle_timeout_us &&
                   usage_give_above(&pool->set->server_count, pool->settings.min_pool_size)) {
            server->has_left_pool = true;
            server_close(server, "server idle timeout");
        } else if (pool_lifetime_is_over(pool, server)) {
            server_close(server, "server lifetime over");
        }
    }
    pool->is_launching = false;
}

/* Of the user= of its entry. (auth_user may have a pool there, too.) */
static bool is_forced(const struct pool *pool)
{
    const char *user = pool->database->user;

    return user != NULL && strcmp(user, pool->user_name) == 0;
}

/* A server that no client waits for, unless there are `count` of them. */
static void open_spare(struct pool *pool, int count)
{
    struct core *core = pool->core;

    if (usage_count(&pool->set->server_count) >= count || pool->is_retired ||
        pool_is_stopped(pool) || core->shutdown != SHUTDOWN_NONE || pool->login_count > 0 ||
        (pool->last_login_failed && pool->retry_at_us > core->loop.now_us))
        return;
    if (!host_prepare(pool) || !usage_take(&pool->set->login_count, login_limit(pool)))
        return;
    if (usage_take(&pool->set->server_count, count))
        (void)!launch_one(pool, false, NULL);
    else
        usage_give(&pool->set->login_count);
}

static void keep_minimum(struct pool *pool)
{
    if (pool->settings.min_pool_size > 0 && (pool->client_count > 0 || is_forced(pool)))
        open_spare(pool, pool->settings.min_pool_size);
}

static void host_known(struct host_waiter *waiter)
{
    struct pool *pool = OWNER_OF(waiter, struct pool, name_waiter);

    if (!pool->core->loop.is_suspended)
        keep_minimum(pool);
    pool_launch(pool);
}

/* No shard of it has anything. */
static bool is_empty_everywhere(const struct pool *pool)
{
    const struct shard_set *set = pool->set;

    if (usage_count(&set->server_count) > 0)
        return false;
    for (unsigned k = 0; k < MIN(set->core_count, (unsigned)SHARDS_MAX); k++)
        if (atomic_load_explicit(&set->shards[k].client_count, memory_order_relaxed) > 0)
            return false;
    return true;
}

/* `timeout_us` 0: never. */
static bool is_due(uint64_t since_us, uint64_t timeout_us, uint64_t now_us)
{
    return timeout_us > 0 && since_us != 0 && now_us - since_us >= timeout_us;
}

/* A database that `*` has made goes as a whole: its figures are the sum of all its pools, and must not
 * fall while one of them is in use. */
static void note_empty_database(struct pool *pool, uint64_t now_us)
{
    const struct usage *usage = pool->database_usage;

    if (usage_count(&usage->client_count) > 0 || usage_count(&usage->server_count) > 0)
        pool->database_empty_since_us = 0;
    else if (pool->database_empty_since_us == 0)
        pool->database_empty_since_us = now_us;
}

static void maintenance_fired(struct timer *timer, uint64_t now_us)
{
    struct pool *pool = OWNER_OF(timer, struct pool, timer);
    const struct settings *settings = &pool->core->snapshot->settings;
    uint64_t autodb_us = pool->database->is_auto ? settings->autodb_idle_timeout_us : 0;

    if (pool_is_stopped(pool))
        pool_pause(pool);
    if (!pool->core->loop.is_suspended) {
        retire_idle(pool);
        keep_minimum(pool);
    }
    pool_launch_now(pool);
    /* A shard goes with the last one: its figures are part of the pool's. */
    if (pool->client_count > 0 || pool->server_count > 0 || pool->lent_count > 0 ||
        pool->asked_count > 0 || (!pool->is_retired && !is_empty_everywhere(pool))) {
        pool->empty_since_us = 0;
        pool->database_empty_since_us = 0;
        arm_maintenance(pool);
        return;
    }
    if (pool->empty_since_us == 0)
        pool->empty_since_us = now_us;
    note_empty_database(pool, now_us);
    if (pool->is_retired ||
        (!pool->is_paused &&
         (is_due(pool->empty_since_us, settings->pool_idle_timeout_us, now_us) ||
          is_due(pool->database_empty_since_us, autodb_us, now_us)))) {
        if (!pool->is_retired && !shard_has_siblings(pool->set))
            log_write(LEVEL_LOG,
                      "cleaning up idle pool for user %s on db %s because: pool idle timeout "
                      "(age= %llus)",
                      pool->user_name, pool->database_name,
                      (unsigned long long)((now_us - pool->empty_since_us) / US_PER_S));
        pool_forget(pool);
        return;
    }
    if (settings->pool_idle_timeout_us > 0 || autodb_us > 0 ||
        (pool->settings.min_pool_size > 0 && is_forced(pool)))
        arm_maintenance(pool);
}

/* ---- control ---- */

void pool_pause(struct pool *pool)
{
    lending_update(pool);
    while (!list_is_empty(&pool->idle_servers))
        server_close(OWNER_OF(list_front(&pool->idle_servers), struct server, link), "pause mode");
}

void pool_resume(struct pool *pool)
{
    arm_maintenance(pool);
    pool_launch(pool);
}

static void retire(struct pool *pool, const char *reason, bool only_moved)
{
    struct list *const lists[] = {&pool->idle_servers,     &pool->login_servers,
                                  &pool->active_servers,   &pool->tested_servers,
                                  &pool->canceled_servers, &pool->lending_servers,
                                  &pool->sharing.servers};

    pool->is_launching = true;
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        list_for_each_safe(link, lists[i])
        {
            struct server *server = OWNER_OF(link, struct server, link);

            if (only_moved && host_is_current(pool, &server->address))
                continue;
            if (server->client != NULL && server->replication != REPLICATION_NONE) {
                replication_retire(server);
                continue;
            }
            server->close_needed = true;
            server->close_reason = reason;
            if (i < 2)
                server_close(server, reason);
        }
    pool->is_launching = false;
}

void pool_retire_servers(struct pool *pool, const char *reason)
{
    pool->has_welcome = false;
    retire(pool, reason, false);
    pool_launch(pool);
}

void pool_retire_moved(struct pool *pool)
{
    retire(pool, "obsolete connection", true);
}

void pool_close_clients(struct pool *pool, const char *message)
{
    struct list *const lists[] = {&pool->idle_clients, &pool->active_clients,
                                  &pool->waiting_clients, &pool->welcome_clients,
                                  &pool->replication_clients};

    for (size_t i = 0; i < COUNT_OF(lists); i++)
        while (!list_is_empty(lists[i]))
            client_close_error(OWNER_OF(list_front(lists[i]), struct client, link), message, NULL);
}

void pool_fill_row(const struct pool *pool, struct pool_row *row, uint64_t now_us)
{
    const struct settings *settings = &pool->core->snapshot->settings;
    struct list *first = list_front(&pool->waiting_clients);
    struct list *first_welcome = list_front(&pool->welcome_clients);
    struct list *first_replication = list_front(&pool->replication_clients);

    *row = (struct pool_row){0};
    strcpy(row->database, pool->database_name);
    strcpy(row->user, pool->user_name);
    row->cl_waiting = pool->waiting_count + pool->welcome_count + pool->replication_count;
    row->cl_active = pool->client_count - row->cl_waiting;
    row->client_count = pool->client_count;
    list_for_each(link, &pool->active_servers) row->sv_active++;
    row->sv_active += pool->sharing.server_count;
    list_for_each(link, &pool->canceled_servers) row->sv_being_canceled++;
    list_for_each(link, &pool->lending_servers) row->sv_idle++;
    list_for_each(link, &pool->idle_servers)
    {
        struct server *server = OWNER_OF(link, struct server, link);

        if (now_us - server->idle_since_us > settings->server_check_delay_us)
            row->sv_used++;
        else
            row->sv_idle++;
    }
    row->sv_tested = pool->tested_count;
    row->sv_login = pool->login_count;
    row->cl_active_cancel_req = pool->cancel_count;
    row->sv_active_cancel = pool->cancel_count;
    if (first != NULL)
        row->maxwait_us = now_us - OWNER_OF(first, struct client, link)->wait_since_us;
    if (first_welcome != NULL)
        row->maxwait_us = MAX(
            row->maxwait_us, now_us - OWNER_OF(first_welcome, struct client, link)->state_since_us);
    if (first_replication != NULL)
        row->maxwait_us =
            MAX(row->maxwait_us,
                now_us - OWNER_OF(first_replication, struct client, link)->state_since_us);
    row->pool_mode = (int)pool->settings.pool_mode;
    row->is_paused = pool->is_paused;
    row->stats = pool->stats;
    row->worker = pool->core->index;
    row->pool_id = pool->id;
    row->lent_total = pool->lent_total;
    row->borrowed_total = pool->borrowed_total;
}

void pool_fill_sharing_row(const struct pool *pool, struct sharing_row *row)
{
    const struct sharing *sharing = &pool->sharing;

    *row = (struct sharing_row){
        .worker = pool->core->index,
        .setting = sharing->is_on ? pool->settings.server_sharing : SHARING_OFF,
        .server_count = sharing->server_count,
        .queued_count = sharing->queued_count,
        .policy = sharing->policy,
        .stats = sharing->stats,
    };
    strcpy(row->database, pool->database_name);
    strcpy(row->user, pool->user_name);
}
