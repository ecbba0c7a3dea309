/* server.c - see the header for the states. Sent bytes go through exchange.c's count; received
 * bytes are walked message by message and forwarded from where they lie. */
#include "pool/server.h"

#include "pool/auth_query.h"
#include "pool/cancel.h"
#include "pool/client.h"
#include "pool/heal.h"
#include "pool/host.h"
#include "pool/lending.h"
#include "pool/replication.h"
#include "pool/rewrite.h"
#include "pool/server_login.h"
#include "pool/sharing.h"
#include "pool/statement_send.h"
#include "pool/tls_handshake.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static const unsigned server_may_become[SERVER_STATES] = {
    [SERVER_LOGIN] = BIT(SERVER_TESTED) | BIT(SERVER_IDLE) | BIT(SERVER_ACTIVE) |
                     BIT(SERVER_PREPARING) | BIT(SERVER_CLOSING),
    [SERVER_TESTED] = BIT(SERVER_TESTED) | BIT(SERVER_IDLE) | BIT(SERVER_CANCELED) |
                      BIT(SERVER_ACTIVE) | BIT(SERVER_PREPARING) | BIT(SERVER_CLOSING),
    [SERVER_IDLE] = BIT(SERVER_TESTED) | BIT(SERVER_ACTIVE) | BIT(SERVER_SHARED) |
                    BIT(SERVER_PREPARING) | BIT(SERVER_AUTH_QUERY) | BIT(SERVER_LENDING) |
                    BIT(SERVER_CLOSING),
    [SERVER_CANCELED] = BIT(SERVER_TESTED) | BIT(SERVER_IDLE) | BIT(SERVER_ACTIVE) |
                        BIT(SERVER_PREPARING) | BIT(SERVER_CLOSING),
    [SERVER_PREPARING] = BIT(SERVER_ACTIVE) | BIT(SERVER_CLOSING),
    [SERVER_ACTIVE] = BIT(SERVER_TESTED) | BIT(SERVER_IDLE) | BIT(SERVER_CANCELED) |
                      BIT(SERVER_ACTIVE) | BIT(SERVER_PREPARING) | BIT(SERVER_CLOSING),
    [SERVER_SHARED] =
        BIT(SERVER_TESTED) | BIT(SERVER_IDLE) | BIT(SERVER_CANCELED) | BIT(SERVER_CLOSING),
    [SERVER_AUTH_QUERY] =
        BIT(SERVER_TESTED) | BIT(SERVER_IDLE) | BIT(SERVER_CANCELED) | BIT(SERVER_CLOSING),
    [SERVER_LENDING] = BIT(SERVER_IDLE) | BIT(SERVER_LENT) | BIT(SERVER_CLOSING),
    [SERVER_CLOSING] = BIT(SERVER_FREE),
    [SERVER_LENT] = BIT(SERVER_FREE),
};

static const struct conn_events server_events;
static void server_settle(struct server *server);
static void gather_release(struct server *server);

void server_log(const struct server *server, enum log_level level, const char *format, ...)
{
    char text[1024];
    struct peer_name name;
    char host[64];
    va_list arguments;

    if (!log_is_wanted(level))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    peer_name_from(&name, &server->address);
    peer_name_host(&name, host);
    log_write(level,
              name.family == AF_INET6 ? "S-0x%llx: %s/%s@[%s]:%u %s" : "S-0x%llx: %s/%s@%s:%u %s",
              (unsigned long long)server->id, server->pool->database_name, server->pool->user_name,
              host, name.family == AF_UNIX ? server->pool->database->port : name.port, text);
}

/* The one place where a server changes its state, and with it its list and the pool's counts. */
static void server_become(struct server *server, enum server_state state)
{
    struct pool *pool = server->pool;
    struct core *core = server_core(server);

    assert(server_may_become[server->state] & BIT(state));
    list_remove(&server->link);
    pool->idle_count -= server->state == SERVER_IDLE;
    pool->tested_count -= server->state == SERVER_TESTED;
    pool->sharing.server_count -= server->state == SERVER_SHARED;
    core->sharing_server_count -= server->state == SERVER_SHARED;
    if (server->state == SERVER_LOGIN) {
        pool->login_count--;
        pool->replication_login_count -= server->replication != REPLICATION_NONE;
        usage_give(&pool->set->login_count);
        lending_permission_freed(pool);
        server->is_ready = state != SERVER_CLOSING && server->replication == REPLICATION_NONE;
        if (server->is_ready)
            atomic_fetch_add(&pool->set->ready_count, 1);
    } else if (server->is_ready && state == SERVER_CLOSING) {
        server->is_ready = false;
        usage_give(&pool->set->ready_count);
    }
    server->state = (uint8_t)state;
    server->state_since_us = core->loop.now_us;
    switch (state) {
    case SERVER_TESTED:
        pool->tested_count++;
        list_push_back(&pool->tested_servers, &server->link);
        break;
    case SERVER_IDLE:
        pool->idle_count++;
        server->idle_since_us = core->loop.now_us;
        if (core->snapshot->settings.server_round_robin)
            list_push_back(&pool->idle_servers, &server->link);
        else
            list_push_front(&pool->idle_servers, &server->link);
        break;
    case SERVER_CANCELED:
        list_push_back(&pool->canceled_servers, &server->link);
        break;
    case SERVER_PREPARING:
    case SERVER_ACTIVE:
    case SERVER_AUTH_QUERY:
        list_push_back(&pool->active_servers, &server->link);
        break;
    case SERVER_SHARED:
        pool->sharing.server_count++;
        core->sharing_server_count++;
        list_push_back(&pool->sharing.servers, &server->link);
        break;
    case SERVER_LENDING:
        list_push_back(&pool->lending_servers, &server->link);
        break;
    case SERVER_LENT:
        pool->lent_count++;
        pool_count_server(pool, -1);
        break;
    case SERVER_FREE:
    case SERVER_LOGIN:
    case SERVER_CLOSING:
    case SERVER_STATES:
        break;
    }
    if (core->count > 1)
        atomic_store_explicit(&pool->shard->idle_count, pool->idle_count, memory_order_relaxed);
}

/* ---- opening ---- */

void server_open_failed(struct server *server, const char *text, const char *sqlstate,
                        bool said_error, const char *reason)
{
    if (server->replication != REPLICATION_NONE) {
        replication_open_failed(server, text, sqlstate, said_error, reason);
    } else {
        server->is_unsaid = server->pool->last_login_failed;
        pool_server_failed(server->pool, text, sqlstate, said_error);
    }
    server_close(server, reason);
}

void server_not_reached(struct server *server, const char *reason, const char *why)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&server->address;
    struct peer_name name;
    char host[64];
    char text[POOL_ERROR_BYTES];
    int bytes = snprintf(text, sizeof(text), why != NULL ? "%s: %s" : "%s", reason, why);

    peer_name_from(&name, &server->address);
    peer_name_host(&name, host);
    if (name.family == AF_UNIX)
        snprintf(text + bytes, sizeof(text) - (size_t)bytes, " (%s%.107s)",
                 un->sun_path[0] == '\0' ? "@" : "", un->sun_path + (un->sun_path[0] == '\0'));
    else
        snprintf(text + bytes, sizeof(text) - (size_t)bytes,
                 name.family == AF_INET6 ? " ([%s]:%u)" : " (%s:%u)", host, name.port);
    server_open_failed(server, text, NULL, false, reason);
}

static void server_timer_fired(struct timer *timer, uint64_t now_us)
{
    struct server *server = OWNER_OF(timer, struct server, timer);

    (void)now_us;
    if (server->state == SERVER_LOGIN)
        server_not_reached(server, "connect timeout", NULL);
    else if (server->state == SERVER_SHARED)
        sharing_overrun(server);
}

struct server *server_launch(struct pool *pool, const struct sockaddr_storage *address,
                             struct client *owner)
{
    struct core *core = pool->core;
    const struct settings *settings = &core->snapshot->settings;
    struct server *server = slab_take(&core->servers);
    struct server_login *login = NULL;
    socklen_t address_bytes = sizeof(*address);
    int error = -ENOMEM;

    if (server == NULL)
        return NULL;
    login = slab_take(&core->server_logins);
    if (login == NULL)
        goto fail;
    memset(server, 0, sizeof(*server));
    memset(login, 0, sizeof(*login));
    if (address->ss_family == AF_INET)
        address_bytes = sizeof(struct sockaddr_in);
    else if (address->ss_family == AF_INET6)
        address_bytes = sizeof(struct sockaddr_in6);
    else if (address->ss_family == AF_UNIX)
        address_bytes = unix_address_bytes(address);
    error = conn_connect(&server->conn, &core->loop, (const struct sockaddr *)address,
                         address_bytes, &server_events);
    if (error < 0)
        goto fail;
    server->pool = pool;
    server->login = login;
    login->server = server;
    server->address = *address;
    server->id = core_next_id(core);
    server->generation = core->generation;
    server->identity = pool->identity;
    server->connect_us = core->loop.now_us;
    server->request_us = core->loop.now_us;
    server->status = 'I';
    server->counts_in_usage = true;
    if (owner != NULL) {
        assert(owner->server == NULL);
        server->client = owner;
        server->replication = owner->replication;
        owner->server = server;
        pool->replication_login_count++;
    }
    list_init(&server->link);
    list_init(&server->shared);
    timer_init(&server->timer, server_timer_fired);
    server->state = SERVER_LOGIN;
    server->state_since_us = core->loop.now_us;
    list_push_back(&pool->login_servers, &server->link);
    pool_count_server(pool, 1);
    pool->login_count++;
    if (settings->server_connect_timeout_us > 0)
        timer_set(&core->timers, &server->timer,
                  core->loop.now_us + settings->server_connect_timeout_us);
    return server;
fail:
    if (login != NULL)
        slab_give(&core->server_logins, login);
    slab_give(&core->servers, server);
    log_write(LEVEL_WARNING, "cannot open a server connection for %s/%s: %s", pool->database_name,
              pool->user_name, strerror(-error));
    return NULL;
}

static void server_connected(struct conn *conn, int error)
{
    struct server *server = OWNER_OF(conn, struct server, conn);
    const struct settings *settings = &server_core(server)->snapshot->settings;
    struct sockaddr_storage local;
    /* One attempt after the other while the server is away: said of the first. */
    enum log_level level = server->pool->last_login_failed ? LEVEL_DEBUG : LEVEL_LOG;

    if (error != 0) {
        server_not_reached(server, "connect failed", strerror(error));
        return;
    }
    core_tune_socket(server_core(server), conn->fd, server->address.ss_family);
    if (settings->log_connections) {
        if (server->address.ss_family != AF_UNIX &&
            ring_local_address(conn->loop->ring, conn->fd, &local) == 0) {
            struct peer_name name;
            char host[64];

            peer_name_from(&name, &local);
            peer_name_host(&name, host);
            server_log(server, level, "new connection to server (from %s:%u)", host, name.port);
        } else {
            server_log(server, level, "new connection to server");
        }
    }
    server_login_start(server);
    if (server->state == SERVER_LOGIN)
        conn_resume(conn);
}

/* ---- queries of the pooler's own ---- */

static bool push_query(struct server *server, const char *text)
{
    uint8_t header[FRAME_HEADER_BYTES] = {'Q'};
    size_t text_bytes = strlen(text) + 1;

    bytes_put_u32(header + 1, (uint32_t)(4 + text_bytes));
    return conn_push_copy(&server->conn, header, sizeof(header)) &&
           conn_push_copy(&server->conn, text, text_bytes);
}

static void push_terminate(struct server *server)
{
    static const uint8_t terminate[] = {'X', 0, 0, 0, 4};

    (void)!conn_push_copy(&server->conn, terminate, sizeof(terminate));
}

static void start_test(struct server *server, enum server_test test, const char *query)
{
    server->test = (uint8_t)test;
    server->test_failed = false;
    server->test_answered = false;
    server_become(server, SERVER_TESTED);
    if (!push_query(server, query))
        server_close(server, "out of memory");
}

static void check(struct server *server)
{
    const char *query = server_core(server)->snapshot->settings.server_check_query;

    if (query == NULL || strcmp(query, "<empty>") == 0 || query[0] == '\0')
        start_test(server, TEST_PROBE, "");
    else
        start_test(server, TEST_CHECK, query);
}

void server_start_check(struct server *server)
{
    assert(server->state == SERVER_IDLE);
    check(server);
}

/* What is due before the next client: first the end of cancel requests (they must hit nothing
 * else), then the probe, then the reset, or instead of it the check of server_check_delay = 0. */
static void server_settle(struct server *server)
{
    const struct settings *settings = &server_core(server)->snapshot->settings;

    assert(server->client == NULL);
    assert(server->status == 'I');
    if (server->close_needed) {
        server_close(server, server->close_reason);
    } else if (server->cancel_count > 0) {
        server_become(server, SERVER_CANCELED);
    } else if (server->needs_probe) {
        server->needs_probe = false;
        start_test(server, TEST_PROBE, "");
    } else if (server->needs_reset && settings->server_reset_query != NULL &&
               settings->server_reset_query[0] != '\0') {
        server->needs_reset = server->needs_check = false;
        start_test(server, TEST_RESET, settings->server_reset_query);
    } else if (server->needs_check) {
        server->needs_check = false;
        check(server);
    } else {
        server->needs_reset = false;
        exchange_reset(&server->exchange);
        if (server->state != SERVER_IDLE)
            server_become(server, SERVER_IDLE);
        pool_server_free(server->pool, server);
    }
}

static void test_done(struct server *server)
{
    struct pool *pool = server->pool;
    enum server_test test = server->test;

    if (test == TEST_PROBE && !server->test_answered)
        return; /* what came was owed to somebody else; ours is still to come */
    server->test = TEST_NONE;
    if (server->status != 'I' || (server->test_failed && test != TEST_CONNECT)) {
        /* As after a login that failed the next attempt has to wait (server_login_retry). */
        if (test == TEST_CONNECT)
            server_open_failed(server, "exec_on_connect query failed", NULL, false,
                               "exec_on_connect query failed");
        else
            server_close(server, test == TEST_RESET ? "reset query failed" : "test query failed");
        return;
    }
    if (test == TEST_CONNECT)
        pool_server_logged_in(pool, server);
    server_settle(server);
}

/* ---- lending ---- */

void server_lend(struct server *server, unsigned shard)
{
    assert(server->client == NULL);
    assert(server->cancel_count == 0);
    assert(exchange_is_answered(&server->exchange));
    server->lend_to = shard;
    server_become(server, SERVER_LENDING);
    if (conn_quiesce(&server->conn))
        server_events.quiet(&server->conn);
}

static void server_quiet(struct conn *conn)
{
    struct server *server = OWNER_OF(conn, struct server, conn);

    assert(server->state == SERVER_LENDING);
    server->loan_fd = conn_detach(conn, &server->loan_tls);
    server_become(server, SERVER_LENT);
    lending_post(server->pool, server);
}

struct server *server_adopt(struct pool *pool, const struct server *lent)
{
    struct core *core = pool->core;
    struct server *server = slab_take(&core->servers);
    const char *values[PARAMS_COUNT_MAX];

    if (server == NULL)
        return NULL;
    memset(server, 0, sizeof(*server));
    params_values(&core->params, lent->params, values);
    server->params = params_intern(&core->params, values);
    if (server->params == NULL)
        goto fail;
    if (lent->gather != NULL) {
        /* It is in the middle of a message that nobody asked for (a notice, a changed parameter). */
        server->gather =
            buffer_park(core->loop.buffers, lent->gather_bytes + MAX(lent->frame.body_left, 1u));
        if (server->gather == NULL)
            goto fail;
        memcpy(server->gather->data, lent->gather->data, lent->gather_bytes);
        server->gather_bytes = lent->gather_bytes;
    }
    conn_open(&server->conn, &core->loop, lent->loan_fd, &server_events);
    server->pool = pool;
    if ((lent->loan_tls != NULL && !conn_start_tls(&server->conn, lent->loan_tls)) ||
        !server_statements_adopt(server, lent)) {
        struct tls *session; /* the lender's still, as the descriptor is */

        (void)!conn_detach(&server->conn, &session);
        goto fail;
    }
    server->frame = lent->frame;
    server->looks_at_body = lent->looks_at_body;
    server->id = lent->id;
    server->generation = lent->generation;
    server->identity = lent->identity;
    server->lender_answer = lent->lender_answer;
    server->connect_us = lent->connect_us;
    server->request_us = lent->request_us;
    server->idle_since_us = lent->idle_since_us;
    server->address = lent->address;
    server->host_turn = lent->host_turn;
    memcpy(server->key, lent->key, sizeof(server->key));
    server->status = lent->status;
    server->counts_in_usage = true;
    server->has_served = lent->has_served;
    server->is_ready = true;
    server->close_needed = lent->close_needed;
    server->close_reason = lent->close_reason;
    list_init(&server->link);
    list_init(&server->shared);
    timer_init(&server->timer, server_timer_fired);
    server->state = SERVER_LENDING;
    list_push_back(&pool->lending_servers, &server->link);
    pool_count_server(pool, 1);
    pool->borrowed_total++;
    return server;
fail:
    params_release(&core->params, server->params);
    gather_release(server);
    slab_give(&core->servers, server);
    return NULL;
}

void server_arrived(struct server *server, uint64_t lender_generation, uint64_t lender_answer)
{
    struct pool *pool = server->pool;
    uint64_t idle_since_us = server->idle_since_us;

    server_become(server, SERVER_IDLE);
    server->idle_since_us = idle_since_us;
    conn_resume(&server->conn);
    /* What has been ordered here, and its former core had not heard of yet. */
    if (!server->close_needed && server->generation < server_core(server)->generation &&
        lender_generation < server_core(server)->generation) {
        server->close_needed = true;
        server->close_reason = "close_needed";
    } else if (!server->close_needed && server->identity != pool->identity) {
        server->close_needed = true;
        server->close_reason = "database configuration changed";
    } else if (!server->close_needed && lender_answer < host_answer_number(pool) &&
               !host_is_current(pool, &server->address)) {
        /* The other way round its address may be newer than what is known here. */
        server->close_needed = true;
        server->close_reason = "obsolete connection";
    }
    if (server->close_needed)
        server_close(server, server->close_reason);
    else if (pool->waiting_count > 0 && !pool_is_stopped(pool) && !pool->is_retired &&
             pool_must_check(pool, idle_since_us))
        server_start_check(server);
    else
        pool_server_free(pool, server);
}

void server_lent_returned(struct server *server)
{
    struct core *core = server_core(server);
    struct pool *pool = server->pool;

    assert(server->state == SERVER_LENT);
    assert(pool->lent_count > 0);
    pool->lent_count--;
    params_release(&core->params, server->params);
    gather_release(server);
    server_statements_release(server);
    server_become(server, SERVER_FREE);
    slab_give(&core->servers, server);
}

/* ---- with a client ---- */

bool server_link(struct server *server, struct client *client)
{
    struct core *core = server_core(server);
    char query[PARAMS_COUNT_MAX * 200];

    assert(server->state == SERVER_IDLE);
    assert(server->client == NULL);
    assert(client->server == NULL);
    assert(exchange_is_answered(&server->exchange));
    assert(server->cancel_count == 0);
    server->client = client;
    server->is_over_after_message = false;
    client->server = server;
    server->has_served = true;
    server->request_us = core->loop.now_us;
    server->pool->stats.server_assignment_count++;
    if (unlikely(client->is_auth_query)) {
        server_become(server, SERVER_AUTH_QUERY);
        if (!auth_query_ask(server))
            server_close(server, "unable to send auth_query");
        return false;
    }
    if (likely(server->params == client->params) ||
        !params_write_set(&core->params, client->params, server->params, query, sizeof(query))) {
        server_become(server, SERVER_ACTIVE);
        return true;
    }
    server->test_failed = false;
    server_become(server, SERVER_PREPARING);
    if (!push_query(server, query))
        server_close(server, "out of memory");
    return false;
}

void server_begin_session(struct server *server)
{
    assert(server->state == SERVER_LOGIN);
    assert(server->client != NULL);
    server->has_served = true;
    server->request_us = server_core(server)->loop.now_us;
    server->pool->stats.server_assignment_count++;
    server_become(server, SERVER_ACTIVE);
}

bool server_adopt_params(struct server *server, struct client *client)
{
    struct core *core = server_core(server);
    const char *values[PARAMS_COUNT_MAX];
    struct buffer *set;

    params_values(&core->params, client->params, values);
    for (unsigned i = 0; i < core->params.names->count; i++)
        if (values[i] != NULL && params_value(server->params, i) != NULL)
            values[i] = params_value(server->params, i);
    set = params_intern(&core->params, values);
    if (set == NULL)
        return false;
    params_release(&core->params, client->params);
    client->params = set;
    return true;
}

static void preparing_done(struct server *server)
{
    struct client *client = server->client;

    if (server->test_failed || server->status != 'I' || !server_adopt_params(server, client)) {
        server_close(server, "invalid server parameter");
        return;
    }
    server_become(server, SERVER_ACTIVE);
    client_linked(client);
}

/* Parts the two; the caller says what becomes of each. */
static struct client *server_unlink(struct server *server)
{
    struct client *client = server->client;

    assert(client->server == server);
    server_statements_end_exchange(server);
    server->client = NULL;
    client->server = NULL;
    return client;
}

static bool server_is_clean(const struct server *server)
{
    const struct client *client = server->client;

    return server->state == SERVER_ACTIVE && server->status == 'I' &&
           exchange_is_answered(&server->exchange) && server->frame.body_left == 0 &&
           server->frame.held_count == 0 && client->frame.body_left == 0 && !client->is_scanning;
}

/* Part of a message has gone to the client: nothing may follow but its rest. Not so when the
 * message began while nobody was linked (found by simulation, seed 53444). */
static bool is_mid_answer(const struct server *server)
{
    const struct shared *shared = sharing_oldest(&server->shared);

    if (server->state == SERVER_SHARED && (shared == NULL || !shared->has_begun))
        return false;
    return (server->state == SERVER_ACTIVE || server->state == SERVER_SHARED) &&
           server->forwards_message && server->frame.body_left > 0;
}

static void server_finish(struct server *server, bool session_over)
{
    const struct settings *settings = &server_core(server)->snapshot->settings;

    server->needs_probe = server->exchange.is_uncertain;
    server->needs_reset = session_over || settings->server_reset_query_always;
    server->needs_check = settings->server_check_delay_us == 0 &&
                          settings->server_check_query != NULL &&
                          settings->server_check_query[0] != '\0';
    conn_resume(&server->conn);
    server_settle(server);
}

void server_become_shared(struct server *server)
{
    assert(server->state == SERVER_IDLE);
    assert(list_is_empty(&server->shared));
    assert(server->cancel_count == 0);
    server->is_queue_closed = false;
    server->params_changed = false;
    server->has_failed_set = false;
    server->was_terminated = false;
    server->ahead_us = 0;
    server_become(server, SERVER_SHARED);
}

void server_shared_over(struct server *server)
{
    struct core *core = server_core(server);

    assert(server->state == SERVER_SHARED);
    assert(list_is_empty(&server->shared));
    timer_stop(&server->timer);
    params_release(&core->params, server->tail_params);
    server->tail_params = NULL;
    server_finish(server, false);
}

bool server_runs_for(const struct server *server, uint64_t client_id)
{
    const struct client *client = server->client;

    if (server->state == SERVER_SHARED)
        client = sharing_oldest(&server->shared)->client;
    return client != NULL && client->id == client_id;
}

void server_drop_client(struct server *server, const char *reason)
{
    bool clean = server_is_clean(server);
    bool mid_answer = is_mid_answer(server);

    if (server->replication != REPLICATION_NONE) {
        const struct client *client = server->client;

        /* It has not ended in the middle of something: PostgreSQL is told that this is no accident. */
        if (server->state == SERVER_ACTIVE && client->frame.body_left == 0 &&
            client->frame.held_count == 0 && !server->exchange.in_copy_in)
            push_terminate(server);
        clean = false;
        reason = server->state == SERVER_LOGIN ? "replication client was closed"
                                               : "replication client disconnected";
    }
    server_unlink(server)->is_mid_answer = mid_answer;
    if (!clean) {
        server_close(server, reason);
        return;
    }
    server_finish(server, server->pool->settings.pool_mode == POOL_MODE_SESSION);
}

/* An error in a COPY IN leaves it open whether a Sync of this client is still to be answered: the server is
 * asked while the client is linked, so that it gets what is its own. False: no need. */
static bool probe_linked(struct server *server)
{
    if (likely(!server->exchange.is_uncertain || !exchange_wants_all(&server->exchange)) ||
        server->exchange.is_lost || server_statements_of(server) == NULL)
        return false;
    server->client->is_held_back = true;
    if (!send_own_probe(server))
        server_close(server, "out of memory");
    return true;
}

static void exchange_over(struct server *server)
{
    struct client *client;

    if (probe_linked(server))
        return;
    client = server_unlink(server);
    client_unlinked(client);
    server_finish(server, false);
    client_release_held(client);
}

/* Everything is answered: the exchange is over, unless one side is in the middle of a message that
 * belongs to it. The one place that decides; asked again when that message has ended. */
static void exchange_answered(struct server *server)
{
    struct client *client = server->client;

    /* CopyData of a COPY that has failed: PostgreSQL has read its header and takes what comes next
     * for its body, whoever sends that. */
    if (unlikely(client->frame.body_left > 0 && !client->drops_body))
        client->is_answered_early = true;
    /* A notice that came in between: its rest belongs to this client, too (simulation seed 62030).
     */
    else if (unlikely(is_mid_answer(server)))
        server->is_over_after_message = true;
    else
        exchange_over(server);
}

/* ReadyForQuery in an exchange. */
static void active_ready(struct server *server)
{
    struct client *client = server->client;
    struct pool *pool = server->pool;
    struct core *core = server_core(server);
    uint64_t now_us = core->loop.now_us;

    if (client->query_since_us != 0) {
        pool->stats.query_us += now_us - client->query_since_us;
        client->query_since_us = 0;
    }
    if (server->status != 'I') {
        if (pool->settings.pool_mode == POOL_MODE_STATEMENT &&
            server->replication == REPLICATION_NONE)
            server_close(server, "transaction blocks not allowed in statement pooling mode");
        else
            client_arm_timer(client);
        if (server->state == SERVER_ACTIVE)
            client_release_held(client);
        return;
    }
    if (client->xact_since_us != 0) {
        pool->stats.xact_us += now_us - client->xact_since_us;
        client->xact_since_us = 0;
    }
    if (!exchange_is_answered(&server->exchange)) {
        client_release_held(client);
        return;
    }
    if (pool->settings.pool_mode == POOL_MODE_SESSION || server->replication != REPLICATION_NONE) {
        if (server->close_needed && core->snapshot->settings.server_fast_close) {
            server_close(server, server->close_reason);
        } else {
            client_arm_timer(client);
            client_release_held(client);
        }
        return;
    }
    exchange_answered(server);
}

void server_message_ended(struct server *server)
{
    if (exchange_is_answered(&server->exchange))
        exchange_answered(server);
}

/* ---- what the server sends ---- */

static void parameter_status(struct server *server, const uint8_t *body, size_t bytes)
{
    struct core *core = server_core(server);
    struct reader reader;
    const char *name;
    const char *value;
    struct client *client = server->state == SERVER_ACTIVE ? server->client : NULL;
    struct buffer *set;
    int index;

    reader_init(&reader, body, bytes);
    name = reader_get_string(&reader);
    value = reader_get_string(&reader);
    if (name == NULL || value == NULL) {
        server_close(server, "broken ParameterStatus packet");
        return;
    }
    if (server->state == SERVER_SHARED)
        sharing_pass_parameter(server, body, bytes);
    index = param_names_find(core->params.names, name);
    if (index < 0) {
        if (strcmp(name, "in_hot_standby") == 0)
            pool_standby_told(server->pool, server, value);
        return;
    }
    set = params_with(&core->params, server->params, (unsigned)index, value);
    if (set == NULL) {
        server_close(server, "failed to store ParameterStatus");
        return;
    }
    params_release(&core->params, server->params);
    server->params = set;
    if (server->state == SERVER_SHARED)
        client = sharing_parameter_changed(server);
    if (client != NULL) {
        set = params_with(&core->params, client->params, (unsigned)index, value);
        if (set == NULL) {
            server_close(server, "failed to store ParameterStatus");
            return;
        }
        params_release(&core->params, client->params);
        client->params = set;
    }
}

static void log_server_error(const struct server *server, const char *what, const uint8_t *body,
                             size_t bytes)
{
    struct error_fields fields;

    if (!error_fields_read(body, bytes, &fields))
        server_log(server, LEVEL_WARNING, "%s: broken ErrorResponse", what);
    else
        server_log(server, LEVEL_WARNING, "%s: %s %s", what, fields.severity, fields.message);
}

/* Where it is uncertain whether an error answers something, its severity tells whether more can follow
 * (simulation seed 144835). */
static bool error_ends_session(const uint8_t *body, size_t bytes)
{
    struct error_fields fields;

    return !error_fields_read(body, bytes, &fields) ||
           strcmp(fields.fixed_severity, "FATAL") == 0 ||
           strcmp(fields.fixed_severity, "PANIC") == 0;
}

/* What a client sent in the middle of a COPY, or so, has mixed up what answers what. */
static const char out_of_step[] = "lost track of prepared statements";

/* A CommandComplete that read_tag knows, going by its length. */
static bool has_tag_of_statements(const struct server *server)
{
    uint32_t bytes = server->frame.body_left;

    return server->statements != NULL &&
           (bytes == sizeof("DISCARD ALL") || bytes == sizeof("DEALLOCATE ALL") ||
            bytes == sizeof("DEALLOCATE") || bytes == sizeof("PREPARE"));
}

/* RowDescription or NoData: of a statement, or of something else. */
static void description_began(struct server *server, uint8_t type)
{
    struct expectation *expectation = expected_description(server->statements);
    bool is_ours;

    if (expectation == NULL)
        return;
    is_ours = expectation->kind == EXPECT_SHAPE;
    if (is_ours)
        server->forwards_message = false;
    if (type == 'T' && server->frame.body_left <= GATHER_BYTES_MAX) {
        server->looks_at_body = true; /* description_complete follows */
        return;
    }
    /* One that is too long is not remembered. */
    expected_description_over(
        server, expectation, type == 'n' ? shape_of(&server_core(server)->statements, NULL, 0) : 0);
    if (is_ours)
        client_release_held(server->client);
}

static void description_complete(struct server *server, const uint8_t *body, size_t bytes)
{
    struct expectation *expectation = expected_description(server->statements);
    bool is_ours = expectation->kind == EXPECT_SHAPE;

    expected_description_over(server, expectation,
                              shape_of(&server_core(server)->statements, body, bytes));
    if (is_ours)
        client_release_held(server->client);
}

/* Statements are tracked: is the message the client's, and as it is? `header` is where its type stands. */
static void tracked_message_began(struct server *server, uint8_t *header)
{
    uint8_t type = server->frame.type;
    struct expectation *own;

    if (unlikely(server->exchange.is_lost) && !list_is_empty(&server->statements->expectations)) {
        server->forwards_message = false; /* nothing of it has gone out */
        server_close(server, out_of_step);
        return;
    }
    if (server->statements->heal.state != HEAL_NONE && heal_takes(server, type)) {
        server->forwards_message = false;
        if (type == 'T' && server->frame.body_left <= GATHER_BYTES_MAX)
            server->looks_at_body = true; /* heal_checked follows */
        else if (type == 'T')
            heal_checked(server, NULL, 0); /* too long to be remembered: not the same */
        return;
    }
    if (server->state == SERVER_CLOSING)
        return;
    own = type == 'N' || type == 'A' || type == 'S' ? NULL : expected_own_batch(server);
    if (unlikely(own != NULL) && !(type == 'Z' && exchange_has_surplus(&server->exchange))) {
        server->forwards_message = false;
        if (type != 'Z')
            expected_own_batch_message(server, own, type);
        return;
    }
    if (type == 'E' && !server->looks_at_body && server->frame.body_left <= GATHER_BYTES_MAX) {
        server->looks_at_body = true;
        server->withholds_error = true;
        server->forwards_message = false;
    } else if (type == 'G' || type == 'W') {
        /* What its batch parsed is settled; and the ReadyForQuery that would say so may never come, since a
         * COPY throws the Sync away. message_complete lets it go on. */
        if (server->client->is_held_back && server->frame.body_left <= GATHER_BYTES_MAX)
            server->looks_at_body = true;
    } else if (type == 'C' && has_tag_of_statements(server)) {
        server->looks_at_body = true;
    } else if ((type == 'T' || type == 'n') && !list_is_empty(&server->statements->expectations)) {
        description_began(server, type);
    } else if ((type == '1' || type == '3' || type == 't') &&
               !list_is_empty(&server->statements->expectations)) {
        switch (server_statements_answer(server, type)) {
        case ANSWER_FORWARD:
            break;
        case ANSWER_SWALLOW:
            server->forwards_message = false;
            break;
        case ANSWER_AS_PARSE:
            *header = '1';
            break;
        case ANSWER_WRONG:
            server->forwards_message = false;
            server_close(server, out_of_step);
            break;
        }
    }
}

/* A header was read; `header` is where its type stands. Decides whether the body is looked at. May close
 * the server. */
static void message_began(struct server *server, uint8_t *header)
{
    uint8_t type = server->frame.type;

    /* A client may be linked in the middle of what an idle server says unasked: the rest is not for
     * it. */
    server->forwards_message = server->state == SERVER_ACTIVE;
    switch (server->state) {
    case SERVER_ACTIVE:
        if (unlikely(type < 'A' && (type < '1' || type > '3'))) {
            server_close(server, "unknown pkt from server");
            return;
        }
        server->looks_at_body = type == 'Z' || type == 'S';
        if (type == 'E' || type == 'G' || type == 'W') {
            exchange_received(&server->exchange, type);
            /* An error that answers nothing: see message_complete. */
            server->looks_at_body = type == 'E' && exchange_is_answered(&server->exchange);
        } else if (unlikely(exchange_wants_all(&server->exchange)) && type != 'Z' && type != 'N' &&
                   type != 'S' && type != 'A')
            exchange_received(&server->exchange, type);
        if (server->statements != NULL)
            tracked_message_began(server, header);
        break;
    case SERVER_SHARED:
        sharing_message_began(server, type);
        break;
    case SERVER_LOGIN:
        server->looks_at_body = true;
        break;
    case SERVER_AUTH_QUERY:
        server->looks_at_body = type != 'N' && type != 'A';
        break;
    case SERVER_TESTED:
    case SERVER_PREPARING:
        server->looks_at_body = type == 'Z' || type == 'S' || type == 'E' || type == 'I' ||
                                (type == 'C' && has_tag_of_statements(server));
        if (type == 'G' || type == 'W' || type == 'H')
            server_close(server, "unexpected COPY in a query of the pooler");
        break;
    case SERVER_IDLE:
    case SERVER_CANCELED:
    case SERVER_LENDING:
        server->looks_at_body = type == 'S' || type == 'E';
        if (type == 'N' || type == 'A')
            server_log(server, LEVEL_WARNING,
                       "dropped a message (%c) that came while no client is linked", type);
        else if (!server->looks_at_body)
            server_close(server, "idle server got dirty");
        break;
    default:
        break;
    }
    if (server->state != SERVER_CLOSING && server->looks_at_body &&
        server->frame.body_left > GATHER_BYTES_MAX)
        server_close(server, "bad pkt header");
    else if (server->state != SERVER_CLOSING && type == 'Z' && server->frame.body_left != 1)
        server_close(server, "bad pkt header");
}

/* A query of the client has prepared or deallocated by SQL. A DEALLOCATE that was not rewritten drops nothing of
 * ours, or what heal.c will find out. */
static void read_tag(struct server *server, const uint8_t *body, size_t bytes)
{
    const char *tag = (const char *)body;

    if (tag[bytes - 1] != '\0')
        return;
    if (strcmp(tag, "PREPARE") == 0) {
        expected_tag(server, EXPECT_SQL_PREPARE);
    } else if (strcmp(tag, "DEALLOCATE") == 0) {
        expected_tag(server, EXPECT_SQL_DEALLOCATE);
    } else if (strcmp(tag, "DISCARD ALL") == 0 || strcmp(tag, "DEALLOCATE ALL") == 0) {
        server_statements_forget(server);
        if (server->state == SERVER_ACTIVE)
            client_statements_forget(server->client);
    }
}

/* The client's error was held back until it was there as a whole: it may be the pooler's business. */
static void error_complete(struct server *server, const uint8_t *body, size_t bytes)
{
    const struct expectation *failure = expected_failure(server->statements);
    struct conn *conn = &server->client->conn;
    uint8_t message[512];
    struct error_fields fields;
    struct writer writer;
    bool pushed;

    server->withholds_error = false;
    if (failure != NULL && error_fields_read(body, bytes, &fields) &&
        strstr(fields.message, server_core(server)->statements.no_name) != NULL) {
        writer_init(&writer, message, sizeof(message));
        rewrite_write_failure(&writer, failure);
        pushed = conn_push_copy(conn, message, writer.bytes);
    } else if (heal_error(server, body, bytes)) {
        return;
    } else {
        pushed = rewrite_send_error(server->client, body, bytes);
    }
    if (!pushed) {
        server_close(server, "out of memory");
        return;
    }
    /* What waits for an answer of this batch waits in vain. */
    server->statements->failed = server->statements->batch - exchange_owed(&server->exchange) + 1;
    client_release_held(server->client);
}

/* ReadyForQuery in a tracked exchange. True: it answers nothing of the client's. */
static bool tracked_ready(struct server *server)
{
    struct server_statements *statements = server->statements;
    struct expectation *own = expected_own_batch(server);
    bool is_surplus = exchange_has_surplus(&server->exchange);
    bool is_probe = own != NULL && own->is_probe;
    uint64_t done;

    exchange_received(&server->exchange, 'Z');
    if (unlikely(is_surplus))
        return true;
    done = statements->batch - exchange_owed(&server->exchange);
    if (unlikely(own != NULL))
        expected_own_batch_over(server, own);
    if (is_probe) {
        server->exchange.is_uncertain = false;
        server->exchange.sync_ignored = false;
        own = NULL;
    }
    if (!list_is_empty(&statements->expectations))
        server_statements_settle(server, done);
    if (statements->deallocation != 0 && statements->deallocation <= done)
        statements->deallocation = 0;
    return own != NULL;
}

/* A message that is looked at is there as a whole; in an exchange it has been forwarded already, but
 * for what is withheld. */
static void message_complete(struct server *server, uint8_t type, const uint8_t *body, size_t bytes)
{
    if (server->state == SERVER_LOGIN) {
        if (!server_login_message(server, type, body, bytes))
            return;
        timer_stop(&server->timer);
        if (server->replication != REPLICATION_NONE) {
            replication_logged_in(server);
            return;
        }
        server_login_end(server);
        if (server->pool->database->connect_query != NULL) {
            start_test(server, TEST_CONNECT, server->pool->database->connect_query);
        } else {
            pool_server_logged_in(server->pool, server);
            if (server->state == SERVER_LOGIN)
                server_settle(server);
        }
        return;
    }
    if (type == 'S') {
        parameter_status(server, body, bytes);
        return;
    }
    if (type == 'Z') {
        server->status = body[0];
        if (server->status != 'I' && server->status != 'T' && server->status != 'E') {
            server_close(server, "bad pkt header");
            return;
        }
    }
    switch (server->state) {
    case SERVER_ACTIVE:
        if (type == 'C') {
            read_tag(server, body, bytes);
            break;
        }
        if (type == 'G' || type == 'W') {
            client_release_held(server->client);
            break;
        }
        if (type == 'T' && heal_is_checking(server)) {
            heal_checked(server, body, bytes);
            break;
        }
        if (type == 'T') {
            description_complete(server, body, bytes);
            break;
        }
        if (unlikely(type == 'E' && server->withholds_error)) {
            error_complete(server, body, bytes);
            break;
        }
        if (unlikely(type == 'E')) {
            /* It answers nothing, or began before the client was linked: the server's last words.
             * Who has read them must not go on with another server (simulation). */
            if (!server->forwards_message || !server->exchange.is_uncertain ||
                error_ends_session(body, bytes)) {
                log_server_error(server, "server ended an idle connection", body, bytes);
                server_close(server, "server conn crashed?");
            }
            break;
        }
        assert(type == 'Z');
        if (unlikely(heal_is_syncing(server))) {
            heal_repeat(server);
            break;
        }
        if (server->statements != NULL && tracked_ready(server)) {
            /* A batch of ours is answered: what waited for it goes on. Not while the client is being asked for
             * (probe_linked), where nothing is ours yet. */
            if (server->statements->own_count == 0)
                client_release_held(server->client);
            break;
        }
        if (server->statements == NULL)
            exchange_received(&server->exchange, 'Z');
        active_ready(server);
        break;
    case SERVER_SHARED:
        sharing_message_complete(server, type, body, bytes);
        break;
    case SERVER_TESTED:
        if (type == 'I') {
            server->test_answered = true;
        } else if (type == 'E') {
            server->test_failed = true;
            log_server_error(server, "query of the pooler failed", body, bytes);
        } else if (type == 'C') {
            read_tag(server, body, bytes);
        } else {
            test_done(server);
        }
        break;
    case SERVER_AUTH_QUERY:
        if (auth_query_message(server, type, body, bytes)) {
            auth_query_answered(server_unlink(server));
            server_finish(server, server->pool->settings.pool_mode == POOL_MODE_SESSION);
        }
        break;
    case SERVER_PREPARING:
        if (type == 'E') {
            server->test_failed = true;
            log_server_error(server, "setting parameters failed", body, bytes);
        } else if (type == 'Z') {
            preparing_done(server);
        }
        break;
    default:
        if (type == 'E') {
            log_server_error(server, "server ended an idle connection", body, bytes);
            server_close(server, "server conn crashed?");
        }
        break;
    }
}

static void forward(struct server *server, struct buffer *buffer, size_t from, size_t to)
{
    struct client *client = server->client;

    if (server->state == SERVER_SHARED) {
        sharing_forward(server, buffer, from, to);
        return;
    }
    if (from == to || server->state != SERVER_ACTIVE)
        return;
    if (unlikely(!conn_push(&client->conn, buffer, (uint32_t)from, (uint32_t)(to - from)))) {
        server_close(server, "out of memory");
        return;
    }
    if (unlikely(conn_is_full(&client->conn)))
        conn_pause(&server->conn);
}

/* Copies what has arrived of a body that is looked at. False: no memory. */
static bool gather(struct server *server, const uint8_t *data, size_t bytes)
{
    if (server->gather == NULL) {
        server->gather = buffer_park(server->conn.loop->buffers, MAX(server->frame.body_left, 1u));
        server->gather_bytes = 0;
        if (server->gather == NULL)
            return false;
    }
    memcpy(server->gather->data + server->gather_bytes, data, bytes);
    server->gather_bytes += (uint32_t)bytes;
    return true;
}

static void gather_release(struct server *server)
{
    if (server->gather != NULL)
        buffer_release(server->conn.loop->buffers, server->gather);
    server->gather = NULL;
    server->gather_bytes = 0;
}

static void server_received(struct conn *conn, struct buffer *buffer, uint32_t bytes)
{
    struct server *server = OWNER_OF(conn, struct server, conn);
    struct frame *frame = &server->frame;
    const uint8_t *data = buffer->data;
    uint32_t limit_bytes = server_core(server)->snapshot->settings.max_packet_size;
    size_t position = 0;
    size_t from = 0; /* not forwarded yet */

    server->request_us = conn->loop->now_us;
    server->pool->stats.sent_bytes += bytes;
    if (unlikely(server->login != NULL && server->login->handshake != NULL)) {
        tls_handshake_received(server->login->handshake, data, bytes);
        return;
    }
    while (position < bytes) {
        size_t count;

        if (frame->body_left == 0) {
            size_t header_at = position;
            bool was_held = frame->held_count > 0;
            enum frame_result result =
                frame_read(frame, data + position, bytes - position, limit_bytes, &count);

            if (result == FRAME_NEED_MORE) {
                forward(server, buffer, from, position);
                return;
            }
            if (result == FRAME_BAD) {
                server_close(server, "bad pkt header");
                return;
            }
            position += count;
            if (!was_held && server->statements != NULL &&
                (!list_is_empty(&server->statements->expectations) ||
                 server->statements->heal.state != HEAL_NONE)) {
                /* What has come goes out, whatever becomes of this message. */
                forward(server, buffer, from, header_at);
                if (unlikely(server->state == SERVER_CLOSING))
                    return;
                from = header_at;
            }
            message_began(server, was_held ? frame->held : buffer->data + header_at);
            if (unlikely(server->state == SERVER_CLOSING))
                return;
            if (unlikely(!server->forwards_message)) {
                forward(server, buffer, from, was_held ? from : header_at);
                if (unlikely(server->state == SERVER_CLOSING))
                    return;
                from = position;
            } else if (was_held) {
                from = position;
                if (server->state == SERVER_SHARED)
                    sharing_forward_copy(server, frame->held, FRAME_HEADER_BYTES);
                if (server->state == SERVER_ACTIVE &&
                    !conn_push_copy(&server->client->conn, frame->held, FRAME_HEADER_BYTES)) {
                    server_close(server, "out of memory");
                    return;
                }
            }
        }
        count = MIN((size_t)frame->body_left, bytes - position);
        if (server->looks_at_body) {
            const uint8_t *body = data + position;
            size_t body_bytes = count;

            if (server->gather != NULL || count < frame->body_left) {
                if (!gather(server, body, count)) {
                    server_close(server, "out of memory");
                    return;
                }
                body = server->gather->data;
                body_bytes = server->gather_bytes;
            }
            frame->body_left -= (uint32_t)count;
            position += count;
            if (frame->body_left == 0) {
                server->looks_at_body = false;
                /* RowDescription that is only learned from waits for what comes with it. */
                if (server->state != SERVER_SHARED || frame->type != 'T' ||
                    !server->forwards_message) {
                    if (likely(server->forwards_message))
                        forward(server, buffer, from, position);
                    from = position;
                }
                if (server->state != SERVER_CLOSING)
                    message_complete(server, frame->type, body, body_bytes);
                if (server->state == SERVER_CLOSING)
                    return;
                gather_release(server);
            }
        } else {
            frame->body_left -= (uint32_t)count;
            position += count;
        }
        if (unlikely(!server->forwards_message))
            from = position;
        if (unlikely(server->is_over_after_message && frame->body_left == 0)) {
            server->is_over_after_message = false;
            /* Unless the client has gone on meanwhile: then it is over with its answer. */
            if (server->state == SERVER_ACTIVE && exchange_is_answered(&server->exchange)) {
                forward(server, buffer, from, position);
                from = position;
                if (server->state != SERVER_CLOSING)
                    exchange_answered(server);
                if (server->state == SERVER_CLOSING)
                    return;
            }
        }
    }
    forward(server, buffer, from, bytes);
}

static void server_drained(struct conn *conn)
{
    struct server *server = OWNER_OF(conn, struct server, conn);

    if (server->client != NULL)
        conn_resume(&server->client->conn);
}

/* ---- the end ---- */

static void server_ended(struct conn *conn, int error)
{
    struct server *server = OWNER_OF(conn, struct server, conn);

    if (error != 0)
        server_log(server, LEVEL_DEBUG, "connection lost: %s", strerror(error));
    if (server->state == SERVER_LOGIN ||
        (server->state == SERVER_TESTED && server->test == TEST_CONNECT))
        server_not_reached(server, "server conn crashed?", error != 0 ? strerror(error) : NULL);
    else
        server_close(server, "server conn crashed?");
}

void server_close(struct server *server, const char *reason)
{
    struct core *core = server_core(server);
    struct pool *pool = server->pool;
    bool was_free = server->state == SERVER_IDLE;
    bool was_promised = server->state == SERVER_LENDING;
    bool was_login = server->state == SERVER_LOGIN;
    bool has_failed = was_login && !server->close_needed;
    bool mid_answer = is_mid_answer(server);

    if (server->state == SERVER_CLOSING)
        return;
    if (core->snapshot->settings.log_disconnections)
        server_log(server, server->is_unsaid ? LEVEL_DEBUG : LEVEL_LOG,
                   "closing because: %s (age=%llus)", reason,
                   (unsigned long long)((core->loop.now_us - server->connect_us) / US_PER_S));
    timer_stop(&server->timer);
    server_become(server, SERVER_CLOSING);
    if (server->cancel_count > 0)
        cancel_server_gone(core, server);
    if (server->login != NULL)
        server_login_end(server);
    params_release(&core->params, server->params);
    server->params = NULL;
    if (was_free)
        push_terminate(server);
    /* What a replica has said last is not lost: how far it has come. Nor is a TLS alert. */
    conn_close(&server->conn, was_free || was_login || server->replication != REPLICATION_NONE);
    usage_give(&pool->database_usage->server_count);
    usage_give(&pool->user_usage->server_count);
    assert(pool->server_count > 0);
    pool_count_server(pool, -1);
    if (!server->has_left_pool)
        usage_give(&pool->set->server_count);
    if (was_promised)
        lending_failed(pool, server->lend_to);
    if (has_failed)
        host_failed(pool, server->host_turn);
    if (server->client != NULL) {
        struct client *client = server_unlink(server);

        client->is_mid_answer = mid_answer;
        client_close_error(client, reason, NULL);
    }
    if (!list_is_empty(&server->shared))
        sharing_lost(server, reason, mid_answer);
    pool_server_gone(pool);
}

static bool server_may_hold(const struct conn *conn)
{
    const struct server *server = OWNER_OF(conn, struct server, conn);

    const struct pool *pool = server->pool;

    /* As long as anybody waits for a server of this pool, here or on another core, those at work go on
     * until they are free. */
    return (server->state == SERVER_IDLE || server->state == SERVER_SHARED ||
            server->state == SERVER_ACTIVE) &&
           server->frame.body_left == 0 && server->frame.held_count == 0 &&
           pool->waiting_count == 0 && atomic_load(&pool->set->hungry) == 0;
}

static void server_gone(struct conn *conn)
{
    struct server *server = OWNER_OF(conn, struct server, conn);
    struct core *core = server_core(server);

    assert(server->state == SERVER_CLOSING);
    assert(server->client == NULL);
    assert(server->login == NULL);
    assert(server->cancel_count == 0);
    assert(list_is_empty(&server->shared));
    gather_release(server);
    server_statements_release(server);
    server->state = SERVER_FREE;
    slab_give(&core->servers, server);
}

void server_cancel_began(struct server *server)
{
    server->cancel_count++;
}

void server_cancel_ended(struct server *server)
{
    assert(server->cancel_count > 0);
    server->cancel_count--;
    if (server->cancel_count == 0 && server->state == SERVER_CANCELED)
        server_settle(server);
}

static const struct conn_events server_events = {
    .received = server_received,
    .ended = server_ended,
    .drained = server_drained,
    .connected = server_connected,
    .quiet = server_quiet,
    .may_hold = server_may_hold,
    .gone = server_gone,
};

static const char *server_state_text(const struct server *server, uint64_t now_us)
{
    const struct settings *settings = &server_core(server)->snapshot->settings;

    switch (server->state) {
    case SERVER_LOGIN:
        return "new";
    case SERVER_TESTED:
        return "tested";
    case SERVER_CANCELED:
        return "being_canceled";
    case SERVER_LENDING:
    case SERVER_LENT:
        return "idle";
    case SERVER_IDLE:
        return now_us - server->idle_since_us > settings->server_check_delay_us ? "used" : "idle";
    default:
        return "active";
    }
}

void server_fill_row(const struct server *server, struct socket_row *row, uint64_t now_us)
{
    struct core *core = server_core(server);
    struct peer_name name;
    struct sockaddr_storage local;
    const char *application_name = params_value(server->params, PARAM_APPLICATION_NAME);
    const struct client *client = server->client;

    *row = (struct socket_row){.is_server = true,
                               .state = server_state_text(server, now_us),
                               .replication = replication_text(server->replication)};
    snprintf(row->user, sizeof(row->user), "%s", server->pool->user_name);
    snprintf(row->database, sizeof(row->database), "%s", server->pool->database_name);
    peer_name_from(&name, &server->address);
    peer_name_host(&name, row->address);
    row->port = name.family == AF_UNIX ? server->pool->database->port : name.port;
    if (server->conn.fd >= 0 && ring_local_address(core->loop.ring, server->conn.fd, &local) == 0) {
        peer_name_from(&name, &local);
        peer_name_host(&name, row->local_address);
        row->local_port = name.port;
    }
    row->connect_us = server->connect_us;
    row->request_us = server->request_us;
    if (server->state == SERVER_SHARED)
        client = sharing_oldest(&server->shared)->client;
    if (client != NULL && client->query_since_us != 0)
        row->wait_us = now_us - client->query_since_us;
    row->close_needed = server->close_needed;
    row->pointer = server->id;
    row->link = client != NULL ? client->id : 0;
    row->remote_pid = bytes_get_u32(server->key);
    snprintf(row->application_name, sizeof(row->application_name), "%s",
             application_name != NULL ? application_name : "");
    row->prepared_count = server_statements_count(server);
    row->packet_remain = server->frame.body_left;
    row->send_avail = server->conn.out.bytes;
    if (server->conn.tls != NULL)
        tls_describe(server->conn.tls->session, row->tls);
    row->id = server->id;
}
