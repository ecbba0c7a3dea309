/* sharing.c - the queues of exchanges on servers: where one is placed, how it gets there, and where it goes
 * when its server cannot answer it. */
#include "pool/sharing.h"

#include "pool/client.h"
#include "pool/lending.h"
#include "pool/rewrite.h"
#include "pool/server.h"
#include "pool/statement_send.h"

#include "base/bytes.h"

#include <limits.h>
#include <string.h>

/* Idle servers that are looked at for one whose parameters are the client's. */
enum { IDLE_LOOKED_AT = 4 };

/* ---- life ---- */

void sharing_init(struct pool *pool)
{
    pool->sharing.move_budget = SHARED_MOVE_BUDGET_MAX;
    list_init(&pool->sharing.servers);
}

void sharing_release(struct pool *pool)
{
    assert(list_is_empty(&pool->sharing.servers));
    assert(pool->sharing.queued_count == 0);
    assert(pool->sharing.waiting_count == 0);
    if (pool->sharing.times != NULL)
        slab_give(&pool->core->statement_times, pool->sharing.times);
    pool->sharing.times = NULL;
}

void sharing_update(struct pool *pool)
{
    const struct settings *settings = &pool->core->snapshot->settings;
    const struct pool_settings *limits = &pool->settings;
    bool resets = settings->server_reset_query_always && settings->server_reset_query != NULL &&
                  settings->server_reset_query[0] != '\0';
    int setting = limits->server_sharing;
    unsigned ceiling = limits->pool_size > 0 ? (unsigned)limits->pool_size : 1000;

    /* Where each use of a server is to be the last one, or to be followed by a reset, nothing can share. */
    pool->sharing.is_on = setting != SHARING_OFF && limits->pool_mode != POOL_MODE_SESSION &&
                          !resets && limits->server_lifetime_us > 0;
    sharing_policy_set(&pool->sharing.policy, setting, ceiling);
}

void sharing_count_queued(struct pool *pool, int change)
{
    pool->sharing.queued_count = (unsigned)((int)pool->sharing.queued_count + change);
    pool->core->queued_count = (unsigned)((int)pool->core->queued_count + change);
}

/* ---- which server ---- */

/* What the server's parameters are when everything queued is done. Compared, never read. */
static const struct buffer *params_behind(const struct server *server)
{
    return server->tail_params != NULL ? server->tail_params : server->params;
}

static bool has_same_params(const struct server *server, const struct client *client)
{
    return params_behind(server) == client->params;
}

/* Will its statement have the result that its client relies on? */
static bool suits(const struct server *server, const struct shared *shared)
{
    const struct prepared *prepared;

    if (likely(shared->wanted_shape == 0) || server->statements == NULL)
        return true;
    prepared = prepared_find(server->statements, &shared->statement->digest);
    return prepared == NULL || prepared->state != PREPARED_SURE || prepared->shape == 0 ||
           prepared->shape == shared->wanted_shape;
}

static bool is_idle_usable(const struct pool *pool, const struct server *server)
{
    return !pool_must_check(pool, server->idle_since_us) && !server->close_needed;
}

static struct server *idle_server(const struct pool *pool, const struct client *client)
{
    struct server *first = NULL;
    unsigned looked_at = 0;

    list_for_each(link, &pool->idle_servers)
    {
        struct server *server = OWNER_OF(link, struct server, link);

        if (!is_idle_usable(pool, server) || looked_at++ == IDLE_LOOKED_AT)
            break;
        if (server->params == client->params)
            return server;
        if (first == NULL)
            first = server;
    }
    return first;
}

/* Why nothing may be queued there; APART_KINDS: it may. */
static enum sharing_apart apart(struct server *server)
{
    struct pool *pool = server->pool;
    uint64_t now_us = pool->core->loop.now_us;
    const struct shared *oldest = sharing_oldest(&server->shared);
    const struct shared *newest = OWNER_OF(list_back(&server->shared), struct shared, link);

    if (server->is_queue_closed || server->close_needed || server->cancel_count > 0 ||
        server->conn.out.bytes >= CONN_FULL_BYTES_SCARCE || !server->conn.receive_wanted)
        return APART_NEEDED;
    if (!newest->is_followed) {
        const struct statement_time *time =
            statement_times_find(pool->sharing.times, newest->hash, now_us);

        return time != NULL && time->follow == FOLLOW_SLOW      ? APART_SLOW
               : time != NULL && time->follow == FOLLOW_ERRATIC ? APART_ERRATIC
                                                                : APART_UNKNOWN;
    }
    if (now_us - oldest->since_us > oldest->patience_us)
        return APART_RUNS_LONG;
    if (!sharing_policy_has_room(&pool->sharing.policy, now_us, server->shared_count,
                                 server->ahead_us))
        return APART_DEPTH;
    if (unlikely(pool_lifetime_is_over(pool, server))) {
        server->close_needed = true;
        server->close_reason = "server lifetime over";
        return APART_NEEDED;
    }
    return APART_KINDS;
}

static struct server *better(struct server *one, struct server *other)
{
    return one == NULL || other->shared_count < one->shared_count ? other : one;
}

static void enqueue(struct server *server, struct shared *shared);

static void place_on_idle(struct server *server, struct shared *shared)
{
    assert(server->state == SERVER_IDLE);
    server->has_served = true;
    server_become_shared(server);
    enqueue(server, shared);
}

static void join(struct server *server, struct shared *shared)
{
    struct sharing_stats *stats = &server->pool->sharing.stats;

    stats->joined_count++;
    stats->depth_sum += server->shared_count;
    stats->depth_max = MAX(stats->depth_max, (uint64_t)server->shared_count);
    enqueue(server, shared);
}

/* With few questions at a time there is nothing to be gained by queues: answers come one by one, and each of them
 * wakes the worker. Two cores, pgbench -S, 8 clients: 16,700 tx/s with a server for each, 12,700 with
 * queues. A number of servers that the operator has set holds in any case. */
enum { SHARED_FEW = 10, SHARED_NOT_FEW = 12, PRESENT_WEIGHT = 64 };

static unsigned limit_now(struct sharing *sharing)
{
    sharing->present += ((float)sharing->queued_count - sharing->present) / PRESENT_WEIGHT;
    if (sharing->present < SHARED_FEW)
        sharing->are_few = true;
    else if (sharing->present > SHARED_NOT_FEW)
        sharing->are_few = false;
    return sharing->are_few && sharing->policy.setting == SHARING_AUTO ? UINT_MAX
                                                                       : sharing->policy.limit;
}

bool sharing_place(struct pool *pool, struct shared *shared)
{
    struct sharing *sharing = &pool->sharing;
    struct client *client = shared->client;
    struct server *idle;
    struct server *same = NULL;
    struct server *other = NULL;
    struct server *found;
    unsigned busy = 0;
    unsigned limit = limit_now(sharing);
    enum sharing_apart why = APART_KINDS;

    if (unlikely(pool_is_stopped(pool) || pool->is_retired))
        return false;
    list_for_each(link, &sharing->servers)
    {
        struct server *server = OWNER_OF(link, struct server, link);
        enum sharing_apart reason = apart(server);

        if (reason == APART_UNKNOWN || reason == APART_SLOW || reason == APART_ERRATIC ||
            reason == APART_NEEDED || reason == APART_RUNS_LONG || shared->is_alone ||
            !suits(server, shared)) {
            why = reason;
            continue;
        }
        busy++;
        /* Of too many the same ones run empty (sharing_policy.h). */
        if (reason != APART_KINDS || busy > limit)
            why = reason;
        else if (has_same_params(server, client))
            same = better(same, server);
        else
            other = better(other, server);
    }
    idle = list_is_empty(&pool->waiting_clients) ? idle_server(pool, client) : NULL;
    if (idle != NULL && !suits(idle, shared)) {
        idle = NULL;
        if (same == NULL && other == NULL) {
            sharing_ask_again(shared, AGAIN_ORDINARY);
            return true;
        }
    }
    if (idle != NULL && (busy < limit || same == NULL)) {
        if (busy > 0 && busy >= limit)
            sharing->stats.apart[APART_PARAMETERS]++;
        else if (busy == 0 && sharing->server_count > 0 && why != APART_KINDS)
            sharing->stats.apart[why]++;
        place_on_idle(idle, shared);
        return true;
    }
    found = same != NULL ? same : other;
    if (found == NULL) {
        if (sharing->server_count > 0 && why != APART_KINDS)
            sharing->stats.apart[why]++;
        return false;
    }
    if (unlikely(busy < limit && !sharing->wants_server)) {
        sharing->wants_server = true;
        pool_launch(pool);
    }
    join(found, shared);
    return true;
}

/* ---- the way there ---- */

static void account_wait(struct client *client)
{
    struct core *core = client_core(client);
    struct pool *pool = client->pool;

    if (client->wait_since_us == 0)
        return;
    pool->stats.wait_us += core->loop.now_us - client->wait_since_us;
    client->wait_since_us = 0;
}

/* It is the oldest from now on: the times of queries count. */
static void begin(struct shared *shared)
{
    struct server *server = shared->server;
    struct core *core = server_core(server);
    struct client *client = shared->client;
    uint64_t now_us = core->loop.now_us;

    shared->since_us = now_us;
    if (client == NULL)
        return;
    if (!shared->was_first && client->wait_since_us != 0)
        server->pool->sharing.stats.wait_us += now_us - client->wait_since_us;
    account_wait(client);
    if (shared->running_since_us == 0)
        shared->running_since_us = now_us;
    client->query_since_us = shared->running_since_us;
    client->xact_since_us = shared->running_since_us;
    client_arm_timer(client);
}

static bool push_bytes(struct server *server, const void *data, size_t bytes)
{
    return conn_push_copy_of_many(&server->conn, data, bytes);
}

/* By one exchange: their answers are counted (swallow_count). */
enum { EVICTIONS_MAX = 100 };
static_assert(EVICTIONS_MAX + 2 <= UINT8_MAX, "swallow_count");

/* The statement will be there under its own name. What comes back for it is not the client's. */
static bool push_prepared(struct server *server, struct shared *shared)
{
    unsigned limit =
        (unsigned)MAX(server_core(server)->snapshot->settings.max_prepared_statements, 1);
    struct statement *statement = shared->statement;
    struct server_statements *statements = server_statements_of(server);
    struct prepared *prepared;

    if (statements == NULL)
        return false;
    prepared = prepared_find(statements, &statement->digest);
    if (likely(prepared != NULL && prepared->state == PREPARED_SURE)) {
        prepared_touch(statements, prepared, statement);
    } else {
        if (prepared != NULL)
            prepared_touch(statements, prepared, NULL);
        /* More than one when a RELOAD has lowered the limit: the rest go with the next ones. */
        for (unsigned count = 0;
             count < EVICTIONS_MAX && statements->table.count + (prepared == NULL) > limit;
             count++) {
            struct prepared *oldest = prepared_oldest(statements);
            char name[STATEMENT_NAME_BYTES + 1];

            statement_name(&oldest->digest, name);
            prepared_remove(server, oldest);
            shared->swallow_count++;
            if (!send_named(server, 'C', name))
                return false;
        }
        prepared = prepared_add(server, statement);
        if (prepared == NULL)
            return false;
        /* Whoever is queued behind may rely on it: if it fails, so do they, and are asked again. */
        prepared->state = PREPARED_SURE;
        shared->swallow_count += 2;
        if (!send_prepare_again(server, statement))
            return false;
    }
    shared->shape = prepared->shape;
    if (shared->wanted_shape != 0 && prepared->shape == 0) {
        shared->awaits_shape = true;
        return send_named(server, 'D', statement->name);
    }
    shared->learns_shape = shared->describes && prepared->shape == 0;
    return true;
}

static bool push_batch(struct server *server, struct shared *shared)
{
    const uint8_t *bytes = shared->bytes->data;
    uint32_t behind = shared->bind_at + shared->bind_bytes;
    uint32_t values = shared->name_at + shared->name_bytes;
    uint8_t head[FRAME_HEADER_BYTES + 1 + STATEMENT_NAME_BYTES];

    if (!shared->is_named)
        return push_bytes(server, bytes, shared->byte_count);
    if (!push_prepared(server, shared))
        return false;
    shared->owes_parse_complete = shared->has_parse;
    /* Bind: its portal has no name. */
    head[0] = 'B';
    bytes_put_u32(head + 1, shared->bind_bytes - 1 - shared->name_bytes + STATEMENT_NAME_BYTES);
    head[FRAME_HEADER_BYTES] = 0;
    memcpy(head + FRAME_HEADER_BYTES + 1, shared->statement->name, STATEMENT_NAME_BYTES);
    return push_bytes(server, head, sizeof(head)) &&
           push_bytes(server, bytes + values, behind - values) &&
           push_bytes(server, bytes + behind, shared->byte_count - behind);
}

static bool push_set(struct server *server, const char *query)
{
    uint8_t header[FRAME_HEADER_BYTES] = {'Q'};
    size_t bytes = strlen(query) + 1;

    bytes_put_u32(header + 1, (uint32_t)(4 + bytes));
    return push_bytes(server, header, sizeof(header)) && push_bytes(server, query, bytes);
}

static void put_last(struct server *server, struct shared *shared)
{
    shared->server = server;
    shared->was_first = server->shared_count == 0;
    list_push_back(&server->shared, &shared->link);
    server->shared_count++;
    sharing_count_queued(server->pool, 1);
    if (server->shared_count == 1)
        begin(shared);
}

/* Parameters that the client needs are set by an exchange of our own. False: no memory. */
static bool set_params(struct server *server, const struct client *client)
{
    struct core *core = server_core(server);
    char query[PARAMS_COUNT_MAX * 200];
    struct shared *set;

    if (!params_write_set(&core->params, client->params,
                          server->tail_params != NULL ? server->tail_params : server->params, query,
                          sizeof(query)))
        return true;
    set = sharing_new(core);
    if (set == NULL)
        return false;
    set->kind = SHARED_SET;
    set->params = buffer_reference(client->params);
    params_release(&core->params, server->tail_params);
    server->tail_params = buffer_reference(client->params);
    server->pool->sharing.stats.set_count++;
    put_last(server, set);
    return push_set(server, query);
}

/* Its client has left. */
static bool is_orphan(const struct shared *shared)
{
    return shared->client == NULL && shared->kind != SHARED_SET;
}

void sharing_arm_overrun(struct server *server)
{
    const struct shared *oldest = sharing_oldest(&server->shared);
    struct core *core = server_core(server);

    if (timer_is_set(&server->timer))
        return;
    if (server->shared_count > 1 && oldest->is_followed)
        timer_set(&core->timers, &server->timer, oldest->since_us + oldest->overrun_us);
    else if (is_orphan(oldest))
        timer_set(&core->timers, &server->timer, oldest->since_us + SHARED_ORPHAN_US);
}

static void learn_speed(struct server *server, struct shared *shared)
{
    struct pool *pool = server->pool;
    struct statement_time *time =
        statement_times_find(pool->sharing.times, shared->hash, pool->core->loop.now_us);

    if (time == NULL || time->follow != FOLLOW_YES || shared->is_alone)
        return;
    shared->is_followed = true;
    shared->patience_us = statement_times_patience_us(time);
    shared->overrun_us = statement_times_overrun_us(time);
    shared->floor_us = time->floor_us;
    server->ahead_us += time->floor_us;
}

/* The client's exchange is the newest of the queue. May close the server. */
static void enqueue(struct server *server, struct shared *shared)
{
    struct client *client = shared->client;
    struct pool *pool = server->pool;
    bool sent = true;

    if (client->wait_since_us == 0)
        client->wait_since_us = pool->core->loop.now_us;
    if (client->state != CLIENT_SHARED)
        client_become(client, CLIENT_SHARED);
    server->request_us = pool->core->loop.now_us;
    if (unlikely(!has_same_params(server, client)))
        sent = set_params(server, client);
    put_last(server, shared);
    learn_speed(server, shared);
    sharing_arm_overrun(server);
    if (sent)
        sent = shared->kind == SHARED_QUERY
                   ? push_bytes(server, shared->bytes->data, shared->byte_count)
                   : push_batch(server, shared);
    if (unlikely(!sent))
        server_close(server, "out of memory");
    else if (shared->since_us == 0)
        client_arm_timer(client); /* query_wait_timeout */
}

bool sharing_start(struct server *server, struct client *client)
{
    struct shared *shared = client->shared;

    if (!suits(server, shared))
        return false;
    place_on_idle(server, shared);
    return true;
}

/* Waiters that are looked at for one whose exchange shares. */
enum { WAITERS_LOOKED_AT = 64 };

/* Of those who wait, the next one who may join others. NULL: none. */
static struct shared *next_to_join(const struct pool *pool, bool passes_others)
{
    unsigned looked_at = 0;

    list_for_each(link, &pool->waiting_clients)
    {
        const struct client *client = OWNER_OF(link, struct client, link);

        if (client->shared != NULL && !client->shared->is_alone)
            return client->shared;
        if (!passes_others || ++looked_at == WAITERS_LOOKED_AT)
            break;
    }
    return NULL;
}

void sharing_admit(struct pool *pool, bool passes_others)
{
    struct shared *shared;

    while (pool->sharing.waiting_count > 0 &&
           (shared = next_to_join(pool, passes_others)) != NULL && sharing_place(pool, shared))
        ;
}

/* ---- room for others ---- */

void sharing_close_queue(struct server *server)
{
    server->is_queue_closed = true;
}

/* Is what is queued there answered soon? */
static bool is_quick(const struct server *server)
{
    const struct shared *oldest = sharing_oldest(&server->shared);
    const struct shared *newest = OWNER_OF(list_back(&server->shared), struct shared, link);
    uint64_t now_us = server->pool->core->loop.now_us;

    return newest->is_followed &&
           (!oldest->is_followed || now_us - oldest->since_us <= oldest->patience_us);
}

void sharing_make_room(struct pool *pool)
{
    /* A server that newcomers join is never idle, and so would never be lent either. */
    unsigned wanted = pool->waiting_count - pool->sharing.waiting_count + lending_is_overdue(pool);
    struct server *shortest;

    do {
        unsigned closed = 0;

        shortest = NULL;
        list_for_each(link, &pool->sharing.servers)
        {
            struct server *server = OWNER_OF(link, struct server, link);

            /* A slow one is no room, closed or not: it comes free when it does. */
            if (!is_quick(server))
                continue;
            if (server->is_queue_closed)
                closed++;
            else
                shortest = better(shortest, server);
        }
        if (closed >= wanted || shortest == NULL)
            return;
        sharing_close_queue(shortest);
    } while (true);
}

void sharing_serve_waiters(struct pool *pool)
{
    sharing_make_room(pool);
    sharing_admit(pool, true);
}

/* ---- elsewhere ---- */

/* Its entry in the queue stays, and its answer is thrown away; what the client asked is in a new one. NULL: no
 * memory, and nothing has changed. */
static struct shared *detach(struct shared *shared)
{
    struct client *client = shared->client;
    struct core *core = client_core(client);
    struct shared *copy = sharing_new(core);

    assert(!shared->has_begun);
    if (copy == NULL)
        return NULL;
    copy->client = client;
    copy->bytes = shared->bytes;
    copy->byte_count = shared->byte_count;
    copy->statement = shared->statement != NULL ? statement_reference(shared->statement) : NULL;
    copy->name = shared->name;
    copy->hash = shared->hash;
    copy->wanted_shape = shared->wanted_shape;
    copy->bind_at = shared->bind_at;
    copy->bind_bytes = shared->bind_bytes;
    copy->name_at = shared->name_at;
    copy->name_bytes = shared->name_bytes;
    copy->kind = shared->kind;
    copy->lost_count = shared->lost_count;
    copy->crashed_count = shared->crashed_count;
    copy->has_parse = shared->has_parse;
    copy->is_named = shared->is_named;
    copy->describes = shared->describes;
    copy->was_moved = shared->was_moved;
    copy->running_since_us = shared->running_since_us;
    client->shared = copy;
    shared->client = NULL;
    shared->bytes = NULL;
    shared->name = NULL;
    return copy;
}

void sharing_reset(struct shared *shared)
{
    assert(!shared->has_begun);
    assert(shared->server == NULL);
    shared->phase = PHASE_START;
    shared->again = AGAIN_NO;
    shared->swallow_count = 0;
    shared->owes_parse_complete = shared->awaits_shape = shared->learns_shape = false;
    shared->is_past_end = false;
    shared->is_bound = shared->collects = shared->may_be_hit = shared->is_followed = false;
    shared->since_us = 0;
    shared->floor_us = 0;
    shared->shape = 0;
    span_queue_clear(&shared->collected, shared->client->conn.loop);
}

void sharing_ask_again(struct shared *shared, enum shared_again how)
{
    struct client *client = shared->client;
    struct pool *pool = client->pool;

    assert(how != AGAIN_NO);
    assert(shared->server == NULL);
    shared->is_alone |= how == AGAIN_ALONE;
    if (how == AGAIN_ORDINARY) {
        pool->sharing.stats.again_alone++;
        if (!sharing_make_ordinary(client))
            return;
        if (client->state != CLIENT_IDLE) {
            account_wait(client);
            client_become(client, CLIENT_IDLE);
        }
        client_replay(client);
        return;
    }
    if (!sharing_place(pool, shared) && client->shared == shared)
        pool_wait_in_line(pool, client);
}

/* Is there anywhere to go? Else nothing is gained. */
static bool has_elsewhere(const struct server *server)
{
    const struct pool *pool = server->pool;

    if (list_is_empty(&pool->waiting_clients) &&
        (!list_is_empty(&pool->idle_servers) || pool->settings.pool_size <= 0 ||
         usage_count(&pool->set->server_count) < pool->settings.pool_size))
        return true;
    list_for_each(link, &pool->sharing.servers)
    {
        struct server *other = OWNER_OF(link, struct server, link);

        if (other != server && apart(other) == APART_KINDS)
            return true;
    }
    return false;
}

void sharing_move(struct server *server, bool with_oldest)
{
    struct pool *pool = server->pool;
    struct list *link = with_oldest ? server->shared.next : server->shared.next->next;

    sharing_close_queue(server);
    while (link != &server->shared) {
        struct shared *shared = OWNER_OF(link, struct shared, link);
        enum shared_again how = shared->was_moved ? AGAIN_ALONE : AGAIN_ELSEWHERE;
        struct shared *copy;

        link = link->next;
        if (shared->client == NULL)
            continue;
        if (pool_is_stopped(pool) || pool->is_retired ||
            pool->sharing.move_budget < SHARED_MOVE_PRICE || !has_elsewhere(server))
            return;
        copy = detach(shared);
        if (copy == NULL)
            return;
        copy->was_moved = true;
        pool->sharing.move_budget -= SHARED_MOVE_PRICE;
        pool->sharing.stats.again_moved++;
        /* Many may wait for one lock: who has met two of them gets a server for himself. */
        sharing_ask_again(copy, how);
        if (server->state != SERVER_SHARED)
            return;
    }
}

/* A statement that was short a thousand times and takes so long now waits for a core, most likely, as all behind it do:
 * it is asked elsewhere, too, once. Mixed load on two cores, p99.9 of the short ones: 26 -> 23 ms (without
 * sharing 41). Not one of a class that has been slow lately: what waits for a lock would block two servers. Nor
 * while a cancel request is on its way: it would not find its query here any more. */
enum { HEDGED_MIN = 1000 };

void sharing_overrun(struct server *server)
{
    struct core *core = server_core(server);
    struct pool *pool = server->pool;
    struct shared *oldest = sharing_oldest(&server->shared);
    uint64_t now_us = core->loop.now_us;
    struct statement_time *time;
    bool waits_for_core;

    if (!is_orphan(oldest) && (server->shared_count < 2 || !oldest->is_followed))
        return;
    if (unlikely(core->loop.is_suspended)) {
        /* Nothing is sent before RESUME, and what takes long now is our doing. */
        timer_set(&core->timers, &server->timer, now_us + MAX(oldest->overrun_us, 1000));
        return;
    }
    /* It may wait for a lock, and its server with it. Those behind it are asked again. */
    if (is_orphan(oldest) && now_us >= oldest->since_us + SHARED_ORPHAN_US) {
        server_close(server, "client disconnected with query in progress");
        return;
    }
    if (server->shared_count < 2 || !oldest->is_followed) {
        sharing_arm_overrun(server);
        return;
    }
    if (now_us < oldest->since_us + oldest->overrun_us) {
        sharing_arm_overrun(server);
        return;
    }
    time = statement_times_find(pool->sharing.times, oldest->hash, now_us);
    waits_for_core = time != NULL && time->count >= HEDGED_MIN && time->debt == 0 &&
                     !oldest->has_begun && !oldest->was_moved && server->cancel_count == 0;
    if (time != NULL && !oldest->was_overrun)
        statement_times_overrun(time, now_us - oldest->since_us,
                                sharing_crowds(&pool->sharing, now_us - oldest->since_us));
    oldest->was_overrun = true;
    sharing_move(server, waits_for_core);
    /* There may be somewhere to go later. */
    if (server->state == SERVER_SHARED && server->shared_count > 1)
        timer_set(&core->timers, &server->timer, now_us + oldest->overrun_us);
}

void sharing_lost(struct server *server, const char *reason, bool mid_answer)
{
    struct core *core = server_core(server);
    struct pool *pool = server->pool;
    bool was_terminated = server->was_terminated;
    bool is_oldest = true;
    struct shared *shared;

    params_release(&core->params, server->tail_params);
    server->tail_params = NULL;
    while ((shared = sharing_oldest(&server->shared)) != NULL) {
        struct client *client = shared->client;
        enum shared_again how = is_oldest ? AGAIN_ALONE : AGAIN_ELSEWHERE;

        list_remove(&shared->link);
        server->shared_count--;
        sharing_count_queued(pool, -1);
        shared->server = NULL;
        if (client == NULL) {
            is_oldest = is_oldest && shared->kind == SHARED_SET;
            sharing_free(core, shared);
            continue;
        }
        if (shared->has_begun) {
            sharing_free(core, shared);
            client->is_mid_answer |= mid_answer;
            client_close_error(client, reason, NULL);
            is_oldest = false;
            continue;
        }
        /* The one that ran may have been the cause. A termination was somebody's order. */
        if (is_oldest && !was_terminated && ++shared->crashed_count > SHARED_CRASHED_MAX)
            how = AGAIN_ORDINARY;
        /* All of a pool's idle servers may be gone at once, and not all of them have said so yet. */
        if (++shared->lost_count > SHARED_LOST_MAX)
            how = AGAIN_ORDINARY;
        /* The one whose parameters could not be set hears it the ordinary way. */
        if (is_oldest && server->has_failed_set)
            how = AGAIN_ORDINARY;
        is_oldest = false;
        sharing_reset(shared);
        pool->sharing.stats.again_lost++;
        sharing_ask_again(shared, how);
    }
}

void sharing_next(struct server *server)
{
    struct shared *oldest = sharing_oldest(&server->shared);

    if (oldest == NULL) {
        timer_stop(&server->timer);
        return;
    }
    begin(oldest);
    sharing_arm_overrun(server);
}

/* ---- cancel requests ---- */

bool sharing_cancel(struct client *target)
{
    struct shared *shared = target->shared;
    struct server *server = shared->server;
    struct shared *copy;
    const struct pg_error error = {
        .severity = SEVERITY_ERROR,
        .sqlstate = "57014",
        .message = "canceling statement due to user request",
        .routine = "ProcessInterrupts",
    };
    uint8_t message[256];
    struct writer writer;

    if (sharing_oldest(&server->shared) == shared)
        return false;
    copy = detach(shared);
    if (copy == NULL)
        return false;
    writer_init(&writer, message, sizeof(message));
    message_error(&writer, &error);
    message_ready_for_query(&writer, 'I');
    assert(!writer.overflow);
    sharing_free(client_core(target), copy);
    if (!conn_push_copy(&target->conn, message, writer.bytes))
        client_close_error(target, "out of memory", NULL);
    else
        client_shared_over(target);
    return true;
}

void sharing_cancel_sent(struct server *server)
{
    struct list *link;

    sharing_close_queue(server);
    for (link = server->shared.next->next; link != &server->shared; link = link->next) {
        struct shared *shared = OWNER_OF(link, struct shared, link);

        shared->may_be_hit = true;
        shared->collects = true;
    }
}
