/* client.c - see the header for the states. What a client sends is walked message by message and
 * goes out to its server from where it was received; without a server it is parked, unscanned, and
 * scanned when one is there. */
#include "pool/client.h"

#include "pool/auth_query.h"
#include "pool/cancel.h"
#include "pool/lending.h"
#include "pool/heal.h"
#include "pool/login.h"
#include "pool/login_auth.h"
#include "pool/peer.h"
#include "pool/replication.h"
#include "pool/rewrite.h"
#include "pool/server.h"
#include "pool/sharing.h"
#include "pool/suspend.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const unsigned client_may_become[CLIENT_STATES] = {
    [CLIENT_LOGIN] =
        BIT(CLIENT_MOVING) | BIT(CLIENT_CANCEL) | BIT(CLIENT_WELCOME) | BIT(CLIENT_CLOSING),
    [CLIENT_MOVING] = BIT(CLIENT_FREE) | BIT(CLIENT_CLOSING),
    [CLIENT_CANCEL] = BIT(CLIENT_MOVING) | BIT(CLIENT_CLOSING),
    [CLIENT_WELCOME] = BIT(CLIENT_IDLE) | BIT(CLIENT_ACTIVE) | BIT(CLIENT_CLOSING),
    [CLIENT_IDLE] = BIT(CLIENT_WAITING) | BIT(CLIENT_PREPARING) | BIT(CLIENT_SHARED) |
                    BIT(CLIENT_ACTIVE) | BIT(CLIENT_CLOSING),
    [CLIENT_WAITING] = BIT(CLIENT_PREPARING) | BIT(CLIENT_SHARED) | BIT(CLIENT_ACTIVE) |
                       BIT(CLIENT_IDLE) | BIT(CLIENT_CLOSING),
    [CLIENT_SHARED] = BIT(CLIENT_IDLE) | BIT(CLIENT_WAITING) | BIT(CLIENT_CLOSING),
    [CLIENT_PREPARING] = BIT(CLIENT_ACTIVE) | BIT(CLIENT_CLOSING),
    [CLIENT_ACTIVE] = BIT(CLIENT_IDLE) | BIT(CLIENT_CLOSING),
    [CLIENT_CLOSING] = BIT(CLIENT_FREE),
};

static const struct conn_events client_events;

/* Who logs in goes by the names of its startup message, so that the log can say who failed. */
static const char *client_user(const struct client *client)
{
    if (client->user_usage != NULL)
        return client->user_usage->name;
    return client->login != NULL && client->login->handover.user[0] != '\0'
               ? client->login->handover.user
               : "(nouser)";
}

static const char *client_database_name(const struct client *client)
{
    if (client->pool != NULL)
        return client->pool->database_name;
    if (client->database_usage != NULL)
        return client->database_usage->name;
    return client->login != NULL && client->login->handover.database[0] != '\0'
               ? client->login->handover.database
               : "(nodb)";
}

void client_log(const struct client *client, enum log_level level, const char *format, ...)
{
    char text[1024];
    char host[64];
    va_list arguments;
    const char *database;

    if (!log_is_wanted(level))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    database = client_database_name(client);
    peer_name_host(&client->peer, host);
    if (client->peer.family == AF_UNIX)
        log_write(level, "C-0x%llx: %s/%s@unix(%u):%d %s", (unsigned long long)client->id, database,
                  client_user(client), client->peer.pid,
                  client_core(client)->snapshot->settings.listen_port, text);
    else
        log_write(level,
                  client->peer.family == AF_INET6 ? "C-0x%llx: %s/%s@[%s]:%u %s"
                                                  : "C-0x%llx: %s/%s@%s:%u %s",
                  (unsigned long long)client->id, database, client_user(client), host,
                  client->peer.port, text);
}

/* The one place where a client changes its state, and with it its list and the pool's counts. */
void client_become(struct client *client, enum client_state state)
{
    struct pool *pool = client->pool;
    struct core *core = client_core(client);
    bool was_waiting;

    assert(client_may_become[client->state] & BIT(state));
    list_remove(&client->link);
    if (client->state == CLIENT_WAITING) {
        pool->waiting_count--;
        pool->sharing.waiting_count -= shared_may_join(client->shared);
    }
    if (client->state == CLIENT_WELCOME && client->replication == REPLICATION_NONE)
        pool->welcome_count--;
    else if (client->state == CLIENT_WELCOME)
        pool->replication_count--;
    was_waiting = client->state == CLIENT_WAITING;
    client->state = (uint8_t)state;
    client->state_since_us = core->loop.now_us;
    switch (state) {
    case CLIENT_MOVING:
    case CLIENT_CANCEL:
        list_push_back(&core->login_list, &client->link);
        break;
    case CLIENT_WELCOME:
        if (client->replication == REPLICATION_NONE) {
            pool->welcome_count++;
            list_push_back(&pool->welcome_clients, &client->link);
        } else {
            pool->replication_count++;
            list_push_back(&pool->replication_clients, &client->link);
        }
        break;
    case CLIENT_IDLE:
        list_push_back(&pool->idle_clients, &client->link);
        break;
    case CLIENT_WAITING:
        pool->waiting_count++;
        pool->sharing.waiting_count += shared_may_join(client->shared);
        list_push_back(&pool->waiting_clients, &client->link);
        break;
    case CLIENT_SHARED:
    case CLIENT_PREPARING:
    case CLIENT_ACTIVE:
        list_push_back(&pool->active_clients, &client->link);
        break;
    case CLIENT_FREE:
    case CLIENT_LOGIN:
    case CLIENT_CLOSING:
    case CLIENT_STATES:
        break;
    }
    if (was_waiting)
        lending_update(pool);
}

/* ---- timeouts ---- */

/* The earliest of what may still happen to the client in its state; UINT64_MAX: nothing. */
static uint64_t client_deadline(const struct client *client, const char **reason)
{
    const struct settings *settings = &client_core(client)->snapshot->settings;
    const struct pool_settings *limits = client->pool != NULL ? &client->pool->settings : NULL;
    uint64_t deadline = UINT64_MAX;

#define CONSIDER(since, timeout, text)                                                             \
    do {                                                                                           \
        if ((timeout) > 0 && (since) > 0 && (since) + (timeout) < deadline) {                      \
            deadline = (since) + (timeout);                                                        \
            *reason = (text);                                                                      \
        }                                                                                          \
    } while (0)
    *reason = NULL;
    switch (client->state) {
    case CLIENT_LOGIN:
    case CLIENT_MOVING:
        if (client->login != NULL && client->login->phase == LOGIN_REFUSED)
            CONSIDER(client->login->refused_us, client->login->refusal_delay_us,
                     LOGIN_PAM_REFUSED_TEXT);
        CONSIDER(client->connect_us, settings->client_login_timeout_us, "client_login_timeout");
        break;
    case CLIENT_WELCOME:
        /* One with replication waits for a place among the servers: none of them is said to be down. */
        if (client->replication == REPLICATION_NONE)
            CONSIDER(client->state_since_us, settings->client_login_timeout_us,
                     "client_login_timeout (server down)");
        CONSIDER(client->state_since_us, limits->query_wait_timeout_us, "query_wait_timeout");
        break;
    case CLIENT_IDLE:
        CONSIDER(MAX(client->request_us, client->state_since_us), limits->client_idle_timeout_us,
                 "client_idle_timeout");
        break;
    case CLIENT_WAITING:
    case CLIENT_PREPARING:
        CONSIDER(client->wait_since_us, limits->query_wait_timeout_us, "query_wait_timeout");
        CONSIDER(client->wait_since_us, limits->query_timeout_us, "query_timeout");
        if (client->is_auth_query && auth_query_deadline_us(client) < deadline) {
            deadline = auth_query_deadline_us(client);
            *reason = "client disconnect while server was not ready";
        }
        if (!client->is_notified && !client->is_auth_query && client->state == CLIENT_WAITING)
            CONSIDER(client->wait_since_us, (uint64_t)settings->query_wait_notify * US_PER_S,
                     "notify");
        break;
    case CLIENT_SHARED:
        /* Behind others it waits for its server; then its time counts. */
        if (client->shared->since_us == 0)
            CONSIDER(client->wait_since_us, limits->query_wait_timeout_us, "query_wait_timeout");
        if (client->shared->running_since_us != 0) {
            CONSIDER(client->query_since_us, limits->query_timeout_us, "query timeout");
            CONSIDER(client->xact_since_us, limits->transaction_timeout_us, "transaction timeout");
        }
        break;
    case CLIENT_ACTIVE:
        /* A stream is no query that takes long, and its server nobody else's (replication.h). */
        if (client->replication != REPLICATION_NONE)
            break;
        CONSIDER(client->query_since_us, limits->query_timeout_us, "query timeout");
        CONSIDER(client->xact_since_us, limits->transaction_timeout_us, "transaction timeout");
        if (client->query_since_us == 0 && client->xact_since_us != 0)
            CONSIDER(client->server->request_us, limits->idle_transaction_timeout_us,
                     "idle transaction timeout");
        break;
    default:
        break;
    }
#undef CONSIDER
    return deadline;
}

/* The timer is moved only when a deadline has come nearer; one that has gone farther away is found
 * out when it fires. So a query without timeouts costs no timer at all, and one with them rarely
 * moves it. */
void client_arm_timer(struct client *client)
{
    const char *reason;
    uint64_t deadline = client_deadline(client, &reason);

    if (deadline == UINT64_MAX)
        return;
    if (!timer_is_set(&client->timer) || deadline < client->timer.deadline_us)
        timer_set(&client_core(client)->timers, &client->timer, deadline);
}

static void client_timer_fired(struct timer *timer, uint64_t now_us)
{
    struct client *client = OWNER_OF(timer, struct client, timer);
    const char *reason;
    uint64_t deadline = client_deadline(client, &reason);

    if (deadline > now_us) {
        client_arm_timer(client);
        return;
    }
    if (unlikely(client->conn.loop->is_suspended)) {
        /* It could say nothing, and is not told anything, before RESUME. */
        timer_set(&client_core(client)->timers, &client->timer, now_us + SUSPEND_GRACE_US);
        return;
    }
    if (strcmp(reason, "notify") == 0) {
        uint8_t notice[256];
        struct writer writer;
        struct pg_error error = {
            .severity = SEVERITY_NOTICE,
            .message = "No server connection available in postgres backend, client being queued",
        };

        client->is_notified = true;
        writer_init(&writer, notice, sizeof(notice));
        message_error(&writer, &error);
        if (!conn_push_copy(&client->conn, notice, writer.bytes)) {
            client_close_silently(client, "out of memory");
            return;
        }
        client_arm_timer(client);
        return;
    }
    if (client->state == CLIENT_WAITING || client->state == CLIENT_WELCOME)
        pool_client_timed_out(client->pool, client, reason);
    else if (client->server != NULL)
        server_close(client->server, reason); /* which tells the client */
    else if (client->state == CLIENT_SHARED && client->shared->since_us != 0)
        sharing_timed_out(client, reason);
    else
        client_close_error(client, reason, NULL);
}

/* ---- the beginning ---- */

static struct client *client_make(struct core *core, int fd)
{
    struct client *client = slab_take(&core->clients);

    if (client == NULL)
        return NULL;
    memset(client, 0, sizeof(*client));
    conn_open(&client->conn, &core->loop, fd, &client_events);
    list_init(&client->link);
    timer_init(&client->timer, client_timer_fired);
    client->connect_us = core->loop.now_us;
    client->request_us = core->loop.now_us;
    client->state_since_us = core->loop.now_us;
    client->state = CLIENT_LOGIN;
    return client;
}

void client_accept(struct core *core, int fd)
{
    struct client *client = client_make(core, fd);
    struct sockaddr_storage address;

    if (client == NULL) {
        ring_close(core->loop.ring, fd);
        return;
    }
    client->id = core_next_id(core);
    if (ring_peer_address(core->loop.ring, fd, &address) == 0)
        peer_name_from(&client->peer, &address);
    if (client->peer.family == AF_UNIX)
        client->peer.pid = ring_peer_pid(core->loop.ring, fd);
    else
        core_tune_socket(core, fd, client->peer.family);
    list_push_back(&core->login_list, &client->link);
    (void)!usage_take(&core->usage->client_count, 0);
    client->counts_as_client = true;
    if (!login_start(client)) {
        client_close_silently(client, "out of memory");
        return;
    }
    client_arm_timer(client);
    conn_resume(&client->conn);
}

/* False: no memory; there is no client. */
static bool adopt_tls(struct client *client, struct tls *session)
{
    struct core *core = client_core(client);
    struct tls *none;

    if (session == NULL || conn_start_tls(&client->conn, session))
        return true;
    (void)!conn_detach(&client->conn, &none);
    slab_give(&core->clients, client);
    return false;
}

struct client *client_adopt(struct core *core, const struct handover *handover)
{
    struct client *client = client_make(core, handover->fd);

    if (client == NULL)
        return NULL;
    if (!adopt_tls(client, handover->tls))
        return NULL;
    client->id = handover->id;
    client->peer = handover->peer;
    client->connect_us = handover->connect_us;
    client->counts_as_client = true;
    client->shard = handover->shard;
    client->has_sent = true;
    list_push_back(&core->login_list, &client->link);
    return client;
}

void client_begin_auth_query(struct client *client, struct pool *pool)
{
    memset(client, 0, sizeof(*client));
    client->conn.loop = &pool->core->loop;
    client->conn.fd = -1;
    client->conn.state = CONN_GONE; /* whatever is pushed is dropped */
    list_init(&client->link);
    timer_init(&client->timer, client_timer_fired);
    client->id = core_next_id(pool->core);
    client->is_auth_query = true;
    client->pool = pool;
    pool->client_count++;
    client->state = CLIENT_IDLE;
    client->state_since_us = pool->core->loop.now_us;
    list_push_back(&pool->idle_clients, &client->link);
}

void client_enter_pool(struct client *client, struct pool *pool, const char *const *wanted_params)
{
    struct core *core = client_core(client);

    client->pool = pool;
    pool->client_count++;
    client->params = params_intern(&core->params, wanted_params);
    client_become(client, CLIENT_WELCOME);
    if (client->params == NULL) {
        client_close_error(client, "out of memory", NULL);
        return;
    }
    pool_client_enters(pool, client);
    if (client->state == CLIENT_WELCOME)
        client_arm_timer(client);
}

/* ---- cancel keys ---- */

static uint32_t key_bucket(const uint8_t key[8])
{
    uint8_t bytes[8];
    uint64_t value;

    memcpy(bytes, key, sizeof(bytes));
    bytes[7] |= PEER_HOPS_MAX; /* as cancel_key_is_same */
    memcpy(&value, bytes, sizeof(value));
    return (uint32_t)((value * UINT64_C(0x9e3779b97f4a7c15)) >> 50) % KEY_BUCKETS;
}

static void key_make(struct client *client)
{
    struct core *core = client_core(client);
    uint32_t *bucket;

    do {
        core->ports->random(core, client->key, sizeof(client->key));
        cancel_key_mark(client->key, core->snapshot->settings.peer_id);
    } while (client_find_key(core, client->key) != NULL);
    bucket = &core->key_buckets[key_bucket(client->key)];
    client->key_next = *bucket;
    *bucket = slab_index(&core->clients, client) + 1;
}

static void key_forget(struct client *client)
{
    struct core *core = client_core(client);
    uint32_t self = slab_index(&core->clients, client) + 1;
    uint32_t *link = &core->key_buckets[key_bucket(client->key)];

    while (*link != 0) {
        struct client *other = slab_at(&core->clients, *link - 1);

        if (*link == self) {
            *link = client->key_next;
            return;
        }
        link = &other->key_next;
    }
}

struct client *client_find_key(struct core *core, const uint8_t key[8])
{
    uint32_t index = core->key_buckets[key_bucket(key)];

    while (index != 0) {
        struct client *client = slab_at(&core->clients, index - 1);

        if (cancel_key_is_same(client->key, key))
            return client;
        index = client->key_next;
    }
    return NULL;
}

/* ---- welcome ---- */

/* The client's parameters are known, and those of its server that are not tracked. */
static void send_welcome(struct client *client, const uint8_t *statuses, size_t bytes,
                         enum client_state next)
{
    struct core *core = client_core(client);
    const struct settings *settings = &core->snapshot->settings;
    uint8_t message[POOL_WELCOME_BYTES + 8 * 1024];
    struct writer writer;

    key_make(client);
    writer_init(&writer, message, sizeof(message));
    message_authentication(&writer, AUTHENTICATION_OK, NULL, 0);
    writer_put(&writer, statuses, bytes);
    for (unsigned i = 0; i < core->params.names->count; i++)
        if (params_value(client->params, i) != NULL)
            message_parameter_status(&writer, core->params.names->names[i],
                                     params_value(client->params, i));
    message_backend_key_data(&writer, client->key);
    if (settings->login_notify_message != NULL && settings->login_notify_message[0] != '\0') {
        struct pg_error notice = {.severity = SEVERITY_NOTICE,
                                  .message = settings->login_notify_message};

        message_error(&writer, &notice);
    }
    message_ready_for_query(&writer, 'I');
    client->pool->stats.client_login_count++;
    client->is_authenticated = true;
    client_log(client, LEVEL_DEBUG, "logged in");
    client_become(client, next);
    if (writer.overflow || !conn_push_copy(&client->conn, message, writer.bytes)) {
        client_close_error(client, "failed to send welcome message", NULL);
        return;
    }
    client_arm_timer(client);
    conn_resume(&client->conn);
    if (client->parked.first != NULL)
        client_replay(client);
}

void client_welcome(struct client *client)
{
    struct core *core = client_core(client);
    struct pool *pool = client->pool;
    const char *values[PARAMS_COUNT_MAX];
    struct buffer *params;

    assert(client->state == CLIENT_WELCOME);
    assert(pool->has_welcome);
    for (unsigned i = 0; i < core->params.names->count; i++) {
        values[i] = params_value(client->params, i);
        if (values[i] == NULL)
            values[i] = params_value(pool->default_params, i);
    }
    params = params_intern(&core->params, values);
    if (params == NULL) {
        client_close_error(client, "failed to prepare welcome message", NULL);
        return;
    }
    params_release(&core->params, client->params);
    client->params = params;
    send_welcome(client, pool->welcome, pool->welcome_bytes, CLIENT_IDLE);
}

void client_welcome_linked(struct client *client, const uint8_t *statuses, size_t bytes)
{
    assert(client->state == CLIENT_WELCOME);
    assert(client->server != NULL);
    params_release(&client_core(client)->params, client->params);
    client->params =
        client->server->params != NULL ? buffer_reference(client->server->params) : NULL;
    send_welcome(client, statuses, bytes, CLIENT_ACTIVE);
}

/* ---- what the client sends ---- */

enum verdict { FORWARD, DROP, PARK, CLOSED };

enum { COPIED_BYTES_MAX = 512 };

/* A message of `type` begins. Links a server if one is needed and free. Its exchange is not told yet. */
static enum verdict message_began(struct client *client, uint8_t type)
{
    struct core *core = client_core(client);
    uint64_t now_us = core->loop.now_us;

    switch (type) {
    case 'Q':
        if (unlikely(core->snapshot->settings.disable_pqexec)) {
            client_close_error(client, "PQexec disallowed", NULL);
            return CLOSED;
        }
        break;
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
    case 'S':
    case 'F':
        break;
    case 'H':
    case 'd':
    case 'c':
    case 'f':
        /* Nothing is outstanding that they could belong to. */
        if (client->state == CLIENT_IDLE)
            return DROP;
        break;
    case 'X':
        client_close_silently(client, "client close request");
        return CLOSED;
    default:
        client_close_error(client, "unknown pkt", NULL);
        return CLOSED;
    }
    if (client->query_since_us == 0) {
        client->query_since_us = now_us;
        client->pool->stats.query_count++;
        if (client->xact_since_us == 0) {
            client->xact_since_us = now_us;
            client->pool->stats.xact_count++;
        }
        if (client->state == CLIENT_ACTIVE)
            client_arm_timer(client);
    }
    if (client->state == CLIENT_IDLE) {
        if (!pool_want_server(client->pool, client))
            return client->state == CLIENT_CLOSING ? CLOSED : PARK;
        client_become(client, CLIENT_ACTIVE);
        client_arm_timer(client);
    }
    return FORWARD;
}

/* The message goes to the server, as it is or rewritten. */
static void message_sent(struct client *client, uint8_t type)
{
    bool is_owed = exchange_sent(&client->server->exchange, type);

    if (client->tracks_statements || client->server->statements != NULL)
        rewrite_sent(client, type, is_owed);
}

static bool forward(struct client *client, struct buffer *buffer, size_t from, size_t to)
{
    struct server *server = client->server;
    bool pushed;

    if (from == to)
        return true;
    assert(server != NULL);
    if (server->statements != NULL)
        heal_keep(server, buffer->data + from, to - from);
    /* Between rewritten messages there are only a few bytes: one span for all of them. */
    if (client->tracks_statements && to - from <= COPIED_BYTES_MAX)
        pushed = conn_push_copy(&server->conn, buffer->data + from, to - from);
    else
        pushed = conn_push(&server->conn, buffer, (uint32_t)from, (uint32_t)(to - from));
    if (unlikely(!pushed)) {
        client_close_error(client, "out of memory", NULL);
        return false;
    }
    if (unlikely(conn_is_full(&server->conn)))
        conn_pause(&client->conn);
    return true;
}

static void park(struct client *client, const void *data, size_t bytes)
{
    if (!span_queue_push_copy(&client->parked, client->conn.loop, data, bytes)) {
        client_close_error(client, "out of memory", NULL);
        return;
    }
    if (client->parked.bytes > CLIENT_PARKED_BYTES_MAX)
        conn_pause(&client->conn);
}

static void scan_messages(struct client *client, struct buffer *buffer, size_t position,
                          size_t end);

/* Nothing more is scanned before something has happened: this comes first then. */
static void park_header_and(struct client *client, uint8_t held_count, const void *data,
                            size_t bytes)
{
    client->frame.body_left = 0;
    if (held_count > 0)
        park(client, client->frame.held, held_count);
    if (client->state != CLIENT_CLOSING)
        park(client, data, bytes);
}

/* ---- messages with names of statements ---- */

/* A Parse that lies in several buffers; the queue is the caller's, and empty afterwards. */
static void scan_long_parse(struct client *client, struct span_queue *message)
{
    struct frame *frame = &client->frame;
    struct conn_loop *loop = client->conn.loop;
    struct span *first = message->first;
    struct span body = *first;
    enum rewrite_result result = REWRITE_HOLD;
    enum verdict verdict;
    size_t replaced;

    frame->type = 'P';
    verdict = message_began(client, 'P');
    if (verdict == CLOSED) {
        span_queue_clear(message, loop);
        return;
    }
    if (verdict == FORWARD) {
        body.offset += FRAME_HEADER_BYTES;
        body.bytes -= FRAME_HEADER_BYTES;
        result = REWRITE_PASS;
        if (client->tracks_statements)
            result = rewrite_message(client, 'P', &body, message->bytes - FRAME_HEADER_BYTES, false,
                                     &replaced);
        if (result == REWRITE_HOLD)
            client->is_held_back = true;
    }
    if (result == REWRITE_CLOSED) {
        span_queue_clear(message, loop);
    } else if (result == REWRITE_HOLD) {
        span_queue_join(&client->parked, message);
        if (client->parked.bytes > CLIENT_PARKED_BYTES_MAX)
            conn_pause(&client->conn);
    } else {
        message_sent(client, 'P');
        while (result == REWRITE_PASS && first != NULL) {
            if (!forward(client, first->buffer, first->offset, first->offset + first->bytes))
                break;
            first = first->next;
        }
        span_queue_clear(message, loop);
    }
}

/* How much of the message must be there before it is looked at. */
static size_t partial_wanted(uint8_t type, uint32_t body_bytes)
{
    size_t bytes = (size_t)FRAME_HEADER_BYTES + body_bytes;

    return type == 'P' || type == 'Q' ? bytes : MIN(bytes, (size_t)CLIENT_HEAD_BYTES_MAX);
}

static bool has_names(const struct client *client)
{
    return client->statements != NULL && client->statements->names.count > 0;
}

static bool partial_is_complete(const struct client_statements *statements)
{
    const struct span_queue *partial = &statements->partial;
    const uint8_t *data;

    if (partial->bytes < FRAME_HEADER_BYTES)
        return false;
    data = partial->first->buffer->data;
    return partial->bytes == statements->partial_bytes ||
           (!statements->partial_is_bind &&
            rewrite_has_enough(data[0], data + FRAME_HEADER_BYTES,
                               partial->first->bytes - FRAME_HEADER_BYTES,
                               bytes_get_u32(data + 1) - 4, statements->names.count > 0));
}

/* Adds to the message that is put together, and scans it when enough of it is there. Returns how many of the
 * bytes belonged to it. */
static size_t partial_add(struct client *client, const uint8_t *data, size_t bytes)
{
    struct client_statements *statements = client->statements;
    struct span_queue *partial = &statements->partial;
    struct conn_loop *loop = client->conn.loop;
    size_t taken = MIN(bytes, (size_t)(statements->partial_bytes - partial->bytes));

    for (size_t left = taken; left > 0;) {
        struct span *last = partial->last;
        size_t count = last == NULL ? 0 : last->buffer->bytes_max - last->bytes;

        count = MIN(count, left);
        if (count == 0) {
            /* As large as can be at once, so that what is looked at lies in one piece. */
            size_t wanted = MIN((size_t)(statements->partial_bytes - partial->bytes),
                                (size_t)BUFFER_PARKED_BYTES_MAX);
            struct buffer *buffer = buffer_park(loop->buffers, wanted);
            bool pushed = false;

            count = MIN(left, wanted);
            if (buffer != NULL) {
                memcpy(buffer->data, data, count);
                pushed = span_queue_push(partial, loop, buffer, 0, (uint32_t)count);
                buffer_release(loop->buffers, buffer);
            }
            if (!pushed) {
                client_close_error(client, "out of memory", NULL);
                return bytes;
            }
        } else {
            memcpy(last->buffer->data + last->bytes, data, count);
            last->bytes += (uint32_t)count;
            partial->bytes += (uint32_t)count;
        }
        data += count;
        left -= count;
    }
    if (partial_is_complete(statements)) {
        struct span_queue message = *partial;

        *partial = (struct span_queue){0};
        if (message.span_count > 1) {
            scan_long_parse(client, &message);
        } else {
            client->is_partial_tried = true;
            scan_messages(client, message.first->buffer, 0, message.bytes);
            client->is_partial_tried = false;
            span_queue_clear(&message, loop);
        }
    }
    return taken;
}

/* A message that names a statement, and does not lie here as far as it must. */
static bool partial_begin(struct client *client, const uint8_t *header, bool wants_next)
{
    struct client_statements *statements = client_statements_of(client);

    if (statements == NULL) {
        client_close_error(client, "out of memory", NULL);
        return false;
    }
    assert(statements->partial.first == NULL);
    statements->partial_bytes =
        (uint32_t)partial_wanted(client->frame.type, client->frame.body_left) + wants_next;
    statements->partial_is_bind = wants_next;
    client->frame.body_left = 0;
    (void)partial_add(client, header, FRAME_HEADER_BYTES);
    return client->state != CLIENT_CLOSING;
}

/* Do these bytes, from a Parse on, end with its batch's Sync? */
static bool is_one_batch(const uint8_t *data, size_t bytes)
{
    while (bytes >= FRAME_HEADER_BYTES) {
        size_t message_bytes = (size_t)1 + bytes_get_u32(data + 1);

        if (data[0] == 'S')
            return bytes == FRAME_HEADER_BYTES;
        if ((!rewrite_concerns(data[0]) && data[0] != 'E' && data[0] != 'H') ||
            message_bytes < FRAME_HEADER_BYTES || message_bytes > bytes)
            return false;
        data += message_bytes;
        bytes -= message_bytes;
    }
    return false;
}

/* Has the message a name of a statement in it, or may have? */
static bool names_statement(const struct client *client, const uint8_t *body, size_t available)
{
    const struct frame *frame = &client->frame;

    return client->tracks_statements &&
           (rewrite_concerns(frame->type) ||
            (frame->type == 'Q' &&
             rewrite_concerns_query(body, available, frame->body_left, has_names(client))));
}

static bool has_partial(const struct client *client)
{
    return client->statements != NULL && client->statements->partial.first != NULL;
}

/* Walks bytes [position, end) of `buffer`, in state idle or active. */
static void scan_messages(struct client *client, struct buffer *buffer, size_t position, size_t end)
{
    struct frame *frame = &client->frame;
    const uint8_t *data = buffer->data;
    uint32_t limit_bytes = client_core(client)->snapshot->settings.max_packet_size;
    size_t from = position; /* not forwarded yet */

    while (position < end) {
        size_t count;
        uint8_t held_count;
        enum frame_result result;
        enum verdict verdict;
        bool names, wants_next;

        if (unlikely(has_partial(client))) {
            assert(from == position);
            position += partial_add(client, data + position, end - position);
            from = position;
            if (client->state == CLIENT_CLOSING)
                return;
            if (client->parked.first != NULL) {
                park(client, data + position, end - position);
                return;
            }
            continue;
        }
        if (frame->body_left > 0) {
            count = MIN((size_t)frame->body_left, end - position);
            frame->body_left -= (uint32_t)count;
            position += count;
            if (unlikely(client->drops_body)) {
                from = position;
                client->drops_body = frame->body_left > 0;
            } else if (unlikely(client->is_answered_early && frame->body_left == 0)) {
                client->is_answered_early = false;
                if (!forward(client, buffer, from, position))
                    return;
                from = position;
                server_message_ended(client->server);
                if (client->state == CLIENT_CLOSING)
                    return;
                if (unlikely(client->is_held_back)) {
                    park(client, data + position, end - position);
                    return;
                }
            }
            continue;
        }
        held_count = frame->held_count;
        result = frame_read(frame, data + position, end - position, limit_bytes, &count);
        if (unlikely(result == FRAME_NEED_MORE)) {
            (void)!forward(client, buffer, from, position);
            return;
        }
        if (unlikely(result == FRAME_BAD)) {
            char text[64] = "bad packet header: '";
            const uint8_t *header = held_count > 0 ? frame->held : data + position;
            size_t shown = held_count > 0 ? FRAME_HEADER_BYTES : MIN(end - position, (size_t)8);

            for (size_t i = 0; i < shown; i++)
                snprintf(text + strlen(text), sizeof(text) - strlen(text), "%02x", header[i]);
            strcat(text, "'");
            client_close_error(client, text, NULL);
            return;
        }
        if (client->state == CLIENT_IDLE)
            client->tracks_statements = rewrite_is_wanted(client);
        names = names_statement(client, data + position + count, end - position - count);
        wants_next = names && frame->type == 'B' && held_count == 0 && !client->is_partial_tried &&
                     end - position - count == frame->body_left &&
                     rewrite_needs_next(client, data + position + count, frame->body_left);
        if (names &&
            (held_count > 0 || wants_next ||
             (!client->is_partial_tried &&
              !rewrite_has_enough(frame->type, data + position + count, end - position - count,
                                  frame->body_left, has_names(client))))) {
            uint8_t header[FRAME_HEADER_BYTES];

            memcpy(header, held_count > 0 ? frame->held : data + position, sizeof(header));
            if (!forward(client, buffer, from, position))
                return;
            position += count;
            from = position;
            if (!partial_begin(client, header, wants_next))
                return;
            if (client->parked.first != NULL) {
                /* A message without a body was complete at once, and has to wait. */
                park(client, data + position, end - position);
                return;
            }
            continue;
        }
        if (unlikely(frame->type == 'X')) {
            /* Its server may go to somebody else: with all that came before, or not at all. */
            if (!forward(client, buffer, from, position))
                return;
            from = position;
            client->is_scanning = false;
        }
        verdict = message_began(client, frame->type);
        if (unlikely(verdict == CLOSED))
            return;
        if (unlikely(verdict == PARK)) {
            /* Idle had nothing to forward: this message is the first of what is parked. */
            assert(from == position);
            park_header_and(client, held_count, data + position, end - position);
            return;
        }
        if (unlikely(verdict == DROP)) {
            if (!forward(client, buffer, from, position))
                return;
            client->drops_body = frame->body_left > 0;
            position += count;
            from = position;
            continue;
        }
        if (names) {
            struct span body = {
                .buffer = buffer,
                .offset = (uint32_t)(position + count),
                .bytes = (uint32_t)(end - position - count),
            };
            enum rewrite_result rewritten;
            size_t replaced;

            if (!forward(client, buffer, from, position))
                return;
            from = position;
            rewritten = rewrite_message(
                client, frame->type, &body, frame->body_left,
                frame->type == 'P' && is_one_batch(data + position, end - position), &replaced);
            if (unlikely(rewritten == REWRITE_CLOSED))
                return;
            if (unlikely(rewritten == REWRITE_HOLD)) {
                client->is_held_back = true;
                park_header_and(client, 0, data + position, end - position);
                return;
            }
            message_sent(client, frame->type);
            position += count;
            if (rewritten == REWRITE_DONE) {
                position += replaced;
                frame->body_left -= (uint32_t)replaced;
                from = position;
            } else if (rewritten == REWRITE_DROP) {
                client->drops_body = frame->body_left > 0;
                from = position;
            }
            if (unlikely(conn_is_full(&client->server->conn)))
                conn_pause(&client->conn);
            continue;
        }
        message_sent(client, frame->type);
        if (unlikely(held_count > 0)) {
            if (client->server->statements != NULL)
                heal_keep(client->server, frame->held, FRAME_HEADER_BYTES);
            if (!conn_push_copy(&client->server->conn, frame->held, FRAME_HEADER_BYTES)) {
                client_close_error(client, "out of memory", NULL);
                return;
            }
            from = position + count;
        }
        position += count;
    }
    (void)!forward(client, buffer, from, end);
}

static void client_scan(struct client *client, struct buffer *buffer, size_t position, size_t end)
{
    client->is_scanning = true;
    scan_messages(client, buffer, position, end);
    client->is_scanning = false;
}

void client_replay(struct client *client)
{
    struct conn_loop *loop = client->conn.loop;

    assert(!client->is_replaying);
    client->is_replaying = true;
    /* The client may run into the next wait, or its end, in the middle of it. */
    while (client->parked.first != NULL && !client->is_held_back &&
           (client->state == CLIENT_ACTIVE || client->state == CLIENT_IDLE)) {
        struct span_queue rest = client->parked;
        struct span *span = rest.first;

        client->parked = (struct span_queue){0};
        client_scan(client, span->buffer, span->offset, span->offset + span->bytes);
        /* What it parked anew comes before what has not been scanned yet. */
        rest.first = span->next;
        rest.span_count--;
        rest.bytes -= span->bytes;
        if (rest.first == NULL)
            rest.last = NULL;
        buffer_release(loop->buffers, span->buffer);
        slab_give(&loop->spans, span);
        if (client->state == CLIENT_CLOSING) {
            span_queue_clear(&rest, loop);
            break;
        }
        span_queue_join(&client->parked, &rest);
    }
    client->is_replaying = false;
    if (client->state != CLIENT_CLOSING && client->parked.bytes <= CLIENT_PARKED_BYTES_MAX &&
        !conn_is_full(&client->conn) &&
        (client->server == NULL || !conn_is_full(&client->server->conn)))
        conn_resume(&client->conn);
}

void client_release_held(struct client *client)
{
    if (likely(!client->is_held_back))
        return;
    assert(client->state == CLIENT_ACTIVE || client->state == CLIENT_IDLE);
    client->is_held_back = false;
    client_replay(client);
}

static void client_received(struct conn *conn, struct buffer *buffer, uint32_t bytes)
{
    struct client *client = OWNER_OF(conn, struct client, conn);

    client->request_us = conn->loop->now_us;
    client->has_sent = true;
    switch (client->state) {
    case CLIENT_ACTIVE:
    case CLIENT_IDLE:
        client->pool->stats.received_bytes += bytes;
        if (client->state == CLIENT_IDLE && client->pool->sharing.is_on &&
            sharing_try(client, buffer, bytes))
            break;
        if (client->state == CLIENT_ACTIVE && !client->is_held_back &&
            unlikely(rewrite_holds_what_follows(client)))
            client->is_held_back = true;
        if (unlikely(client->is_held_back)) {
            park(client, buffer->data, bytes);
            break;
        }
        assert(client->parked.first == NULL);
        client_scan(client, buffer, 0, bytes);
        /* A slow reader that goes on asking: its answers must not pile up here. A replica that is slow
         * must be able to say that it is alive; what it says is not answered. */
        if (unlikely(client->state != CLIENT_CLOSING && client->replication == REPLICATION_NONE &&
                     conn_is_full(conn)))
            conn_pause(conn);
        break;
    case CLIENT_SHARED:
        sharing_goes_on(client);
        /* fall through */
    case CLIENT_WAITING:
    case CLIENT_PREPARING:
    case CLIENT_WELCOME:
        client->pool->stats.received_bytes += bytes;
        park(client, buffer->data, bytes);
        break;
    case CLIENT_LOGIN:
        login_received(client, buffer->data, bytes);
        break;
    case CLIENT_MOVING:
        login_received_late(client, buffer->data, bytes);
        break;
    default: /* a cancel request has no more to say */
        break;
    }
}

static void client_drained(struct conn *conn)
{
    struct client *client = OWNER_OF(conn, struct client, conn);

    if (client->server != NULL)
        conn_resume(&client->server->conn);
    else if (client->shared != NULL && client->shared->server != NULL)
        conn_resume(&client->shared->server->conn);
    if (client->parked.bytes <= CLIENT_PARKED_BYTES_MAX &&
        (client->server == NULL || !conn_is_full(&client->server->conn)))
        conn_resume(conn);
}

static void client_quiet(struct conn *conn)
{
    struct client *client = OWNER_OF(conn, struct client, conn);

    assert(client->state == CLIENT_MOVING);
    login_moved(client);
}

/* ---- with a server ---- */

void client_linked(struct client *client)
{
    struct core *core = client_core(client);
    struct pool *pool = client->pool;

    assert(client->state == CLIENT_WAITING || client->state == CLIENT_PREPARING);
    assert(client->server != NULL);
    pool->stats.wait_us += core->loop.now_us - client->wait_since_us;
    client->wait_since_us = 0;
    client->is_notified = false;
    client_become(client, CLIENT_ACTIVE);
    /* Timeouts of queries and transactions count from now, not from the beginning of the wait. */
    client->query_since_us = core->loop.now_us;
    client->xact_since_us = core->loop.now_us;
    client_replay(client);
    if (client->state == CLIENT_ACTIVE)
        client_arm_timer(client);
}

void client_unlinked(struct client *client)
{
    assert(client->server == NULL);
    client_become(client, CLIENT_IDLE);
    client->xact_since_us = 0;
    client_arm_timer(client);
    /* The server's back-pressure no longer holds it. */
    if (unlikely(!client->conn.receive_wanted) && client->parked.bytes <= CLIENT_PARKED_BYTES_MAX &&
        !conn_is_full(&client->conn))
        conn_resume(&client->conn);
}

void client_shared_over(struct client *client)
{
    assert(client->shared == NULL);
    assert(client->server == NULL);
    client_become(client, CLIENT_IDLE);
    client->query_since_us = 0;
    client->xact_since_us = 0;
    client->wait_since_us = 0;
    client_arm_timer(client);
    if (unlikely(client->parked.first != NULL))
        client_replay(client);
}

/* ---- the end ---- */

/* Everything that the client holds goes back; its conn still closes. */
static void client_leave(struct client *client, const char *server_reason)
{
    struct core *core = client_core(client);
    struct server *server = client->server;

    if (client->is_authenticated)
        key_forget(client);
    timer_stop(&client->timer);
    if (client->cancel != NULL)
        cancel_requester_gone(client->cancel);
    /* It must not be given another server in place of its own that was logging in. */
    if (client->state == CLIENT_WELCOME)
        list_remove(&client->link);
    if (server != NULL)
        server_drop_client(server, server_reason);
    if (client->shared != NULL)
        sharing_client_leaves(client);
    if (client->login != NULL)
        login_end(client);
    client_become(client, CLIENT_CLOSING);
    span_queue_clear(&client->parked, client->conn.loop);
    client_statements_release(client);
    params_release(&core->params, client->params);
    client->params = NULL;
    if (client->options != NULL)
        buffer_release(core->loop.buffers, client->options);
    client->options = NULL;
    if (client->counts_as_client)
        usage_give(&core->usage->client_count);
    if (client->counts_in_database) {
        usage_give(&client->database_usage->client_count);
        usage_give(&client->user_usage->client_count);
    }
    client->counts_as_client = false;
    client->counts_in_database = false;
    if (client->shard != NULL)
        shard_leave(client->shard);
    client->shard = NULL;
    if (client->pool != NULL)
        pool_client_leaves(client->pool, client);
}

static void log_closing(const struct client *client, const char *reason)
{
    const struct core *core = client_core(client);

    /* A port scan or a health check that says nothing leaves no line. */
    if (core->snapshot->settings.log_disconnections && client->has_sent)
        client_log(client, LEVEL_LOG, "closing because: %s (age=%llus)", reason,
                   (unsigned long long)((core->loop.now_us - client->connect_us) / US_PER_S));
}

void client_close_pg_error(struct client *client, const struct pg_error *error,
                           enum log_level level)
{
    /* In the middle of a handshake there is no way to say it. */
    bool is_shaking = client->login != NULL && client->login->phase == LOGIN_TLS;
    uint8_t message[2048];
    struct writer writer;

    if (client->state == CLIENT_CLOSING)
        return;
    if (unlikely(client->is_auth_query)) {
        auth_query_lost(client, error->message);
        return;
    }
    if (client->state == CLIENT_CANCEL) { /* which are never answered */
        client_close_silently(client, error->message);
        return;
    }
    log_closing(client, error->message);
    if (client_core(client)->snapshot->settings.log_pooler_errors)
        client_log(client, level, "pooler error: %s", error->message);
    writer_init(&writer, message, sizeof(message));
    message_error(&writer, error);
    client_leave(client, "client disconnected with query in progress");
    /* client_leave has found out whether an answer was cut off. */
    if (!writer.overflow && !client->is_mid_answer && !is_shaking)
        (void)!conn_push_copy(&client->conn, message, writer.bytes);
    conn_close(&client->conn, true);
}

void client_close_error(struct client *client, const char *message, const char *sqlstate)
{
    struct pg_error error = {
        .severity = SEVERITY_FATAL,
        .sqlstate = sqlstate,
        .message = message,
    };

    client_close_pg_error(client, &error, LEVEL_WARNING);
}

void client_close_silently(struct client *client, const char *reason)
{
    struct server *server = client->server;
    const char *server_reason = "client disconnect while server was not ready";

    if (client->state == CLIENT_CLOSING)
        return;
    if (unlikely(client->is_auth_query)) {
        auth_query_lost(client, reason);
        return;
    }
    log_closing(client, reason);
    if (server != NULL && !exchange_is_answered(&server->exchange))
        server_reason = "client disconnected with query in progress";
    client_leave(client, server_reason);
    conn_close(&client->conn, true);
}

static void client_ended(struct conn *conn, int error)
{
    struct client *client = OWNER_OF(conn, struct client, conn);

    if (client->state == CLIENT_CLOSING)
        return;
    /* The core that knows the key will find out as well, and carries the request on. */
    if (client->state == CLIENT_MOVING && client->login->handover.kind == HANDOVER_CANCEL)
        return;
    if (error == 0 && client->state == CLIENT_LOGIN && login_defers_end(client->login))
        return;
    client_close_silently(client, "client unexpected eof");
}

static bool client_may_hold(const struct conn *conn)
{
    const struct client *client = OWNER_OF(conn, struct client, conn);

    switch (client->state) {
    case CLIENT_LOGIN:
        return login_is_between_messages(client->login);
    case CLIENT_IDLE:
    case CLIENT_SHARED:
    case CLIENT_ACTIVE:
        return client->frame.body_left == 0 && client->frame.held_count == 0 &&
               client->parked.first == NULL && !has_partial(client);
    default:
        return false;
    }
}

static void client_gone(struct conn *conn)
{
    struct client *client = OWNER_OF(conn, struct client, conn);
    struct core *core = client_core(client);

    assert(client->state == CLIENT_CLOSING);
    assert(client->server == NULL);
    assert(client->login == NULL);
    assert(client->cancel == NULL);
    assert(client->shared == NULL);
    assert(list_is_empty(&client->link));
    client->state = CLIENT_FREE;
    slab_give(&core->clients, client);
}

static const struct conn_events client_events = {
    .received = client_received,
    .ended = client_ended,
    .drained = client_drained,
    .quiet = client_quiet,
    .may_hold = client_may_hold,
    .gone = client_gone,
};

static const char *client_state_text(const struct client *client)
{
    switch (client->state) {
    case CLIENT_LOGIN:
    case CLIENT_MOVING:
        return "login";
    case CLIENT_CANCEL:
        return client->cancel != NULL && client->cancel->peer != NULL && !client->cancel->is_sent
                   ? "waiting_cancel_req"
                   : "active_cancel_req";
    case CLIENT_WELCOME:
    case CLIENT_WAITING:
    case CLIENT_PREPARING:
        return "waiting";
    case CLIENT_SHARED:
    case CLIENT_ACTIVE:
        return "active";
    default:
        return "idle";
    }
}

void client_fill_row(const struct client *client, struct socket_row *row, uint64_t now_us)
{
    struct core *core = client_core(client);
    struct peer_name name;
    struct sockaddr_storage local;
    const char *application_name =
        client->params != NULL ? params_value(client->params, PARAM_APPLICATION_NAME) : NULL;

    *row = (struct socket_row){.state = client_state_text(client),
                               .replication = replication_text(client->replication)};
    snprintf(row->user, sizeof(row->user), "%s", client_user(client));
    snprintf(row->database, sizeof(row->database), "%.63s", client_database_name(client));
    peer_name_host(&client->peer, row->address);
    row->port = client->peer.family == AF_UNIX ? (unsigned)core->snapshot->settings.listen_port
                                               : client->peer.port;
    if (ring_local_address(core->loop.ring, client->conn.fd, &local) == 0) {
        peer_name_from(&name, &local);
        peer_name_host(&name, row->local_address);
        row->local_port = name.port;
    }
    row->connect_us = client->connect_us;
    row->request_us = client->request_us;
    if (client->wait_since_us != 0)
        row->wait_us = now_us - client->wait_since_us;
    else if (client->query_since_us != 0)
        row->wait_us = now_us - client->query_since_us;
    row->close_needed = false;
    row->pointer = client->id;
    if (client->server != NULL)
        row->link = client->server->id;
    else if (client->shared != NULL && client->shared->server != NULL)
        row->link = client->shared->server->id;
    row->remote_pid = client->peer.pid;
    snprintf(row->application_name, sizeof(row->application_name), "%s",
             application_name != NULL ? application_name : "");
    row->prepared_count = client_statements_count(client);
    row->packet_remain = client->frame.body_left;
    row->packet_avail =
        client->parked.bytes + (client->login != NULL ? client->login->input_bytes : 0);
    if (client->shared != NULL && client->shared->server == NULL)
        row->packet_avail += client->shared->byte_count;
    row->send_avail = client->conn.out.bytes;
    if (client->conn.tls != NULL)
        tls_describe(client->conn.tls->session, row->tls);
    row->id = client->id;
}
