/* sharing_model.h - a machine, clients, a pooler with shards and PostgreSQL, to see what a sharing policy makes of
 * them: a small discrete-event model.
 *
 * Actors (a process of clients, workers of the pooler, backends, other programs) run on the cores of a host, first
 * come, first served, and work off what lies in their inbox when they get a core. Getting one costs a switch, which
 * is the dearer the more backends are awake: so fewer busy servers with more in each inbox cost less for each
 * exchange, until cores stay idle. Nothing here knows about the policy's own means. All chance comes from one seed. */
#ifndef TESTS_UNIT_SHARING_MODEL_H
#define TESTS_UNIT_SHARING_MODEL_H

#include "unit.h"

#include "pool/sharing_policy.h"
#include "pool/statement_times.h"

enum {
    MODEL_SHARDS_MAX = 4,
    MODEL_SERVERS_MAX = 40,
    MODEL_CLIENTS_MAX = 512,
    MODEL_ACTORS_MAX = 2 * MODEL_SHARDS_MAX + MODEL_SHARDS_MAX * MODEL_SERVERS_MAX + 16,
    MODEL_EVENTS_MAX = 4096,
    MODEL_CLASSES = 3,
    MODEL_BUCKETS = 4000, /* of 10 us, times of exchanges as clients see them */
};

struct model_class {
    double cpu_us, io_us;
    unsigned weight;
};

struct model_setup {
    uint64_t seed;
    unsigned shards, ceiling, clients;
    unsigned cores;        /* of the host of clients and pooler */
    unsigned remote_cores; /* of PostgreSQL's own host; 0: it is on the same */
    double network_us;     /* to PostgreSQL and back */
    double think_us;       /* mean pause of a client; 0: none */
    unsigned others;       /* other programs that compute all the time on PostgreSQL's host */
    int setting;           /* server_sharing of each shard */
    double credit_us;      /* who wakes up gets a core the sooner: workers' turns are short then */
    double cache;          /* part by which a backend is slower for each other one at work */
    double hiccup_chance;  /* that an actor loses its core for 4 ms */
    struct model_class classes[MODEL_CLASSES];
};

enum model_kind { MODEL_CLIENTS, MODEL_WORKER, MODEL_BACKEND, MODEL_OTHER };

struct model_message {
    uint16_t client;
    uint16_t server;
    bool is_answer;
    bool has_read; /* its disk has answered */
};

struct model_actor {
    enum model_kind kind;
    unsigned host, shard, server;
    bool is_waiting; /* for a core */
    bool is_running, is_blocked;
    uint64_t began_ns, used_ns; /* has its core since then; time of cores that it has had */
    uint64_t owes_ns;           /* work that was not known when its turn began */
    unsigned head, count, batch;
    struct model_message inbox[MODEL_CLIENTS_MAX];
};

struct model_server {
    unsigned queue[MODEL_CLIENTS_MAX], head, count; /* clients, the oldest first */
    uint64_t since_us;                              /* it is the oldest since then */
    struct model_actor *backend;
};

struct model_shard {
    struct sharing_policy policy;
    struct statement_times times;
    struct model_server servers[MODEL_SERVERS_MAX];
    unsigned busy[MODEL_SERVERS_MAX], busy_count; /* in the order of coming into use */
    unsigned idle[MODEL_SERVERS_MAX], idle_count;
    unsigned waiting[MODEL_CLIENTS_MAX], waiting_head, waiting_count;
    unsigned queued;
    struct model_actor *worker, *clients;
};

struct model_client {
    unsigned shard, class;
    uint64_t sent_ns;
    bool was_first, is_asleep;
};

enum model_event_kind { MODEL_ARRIVES, MODEL_TURN_ENDS, MODEL_DISK_ANSWERS, MODEL_ASKS };

struct model_event {
    uint64_t at_ns, order;
    enum model_event_kind kind;
    struct model_actor *actor;
    struct model_message message;
};

struct model_host {
    unsigned cores_idle, waiting_count, awake; /* awake: backends that have work */
    struct model_actor *waiting[MODEL_ACTORS_MAX];
    uint64_t used_ns; /* of the actor that came to a core last: where a sleeper begins */
};

struct model {
    struct model_setup setup;
    uint64_t now_ns, random, order;
    struct model_event events[MODEL_EVENTS_MAX];
    unsigned event_count;
    struct model_actor actors[MODEL_ACTORS_MAX];
    unsigned actor_count, others_active;
    struct model_host hosts[2];
    struct model_shard shards[MODEL_SHARDS_MAX];
    struct model_client clients[MODEL_CLIENTS_MAX];
    unsigned clients_active; /* of those: the demand */

    /* What came of it since model_reset. */
    uint64_t since_ns, answers, class_answers[MODEL_CLASSES];
    uint64_t busy_ns, busy_from_ns; /* busy servers, summed over time */
    unsigned busy;
    double limit_sum;
    unsigned limit_min, limit_max; /* sums over the shards of `base` */
    uint64_t limit_count;
    unsigned times[MODEL_BUCKETS];
};

static inline double model_chance(struct model *model)
{
    return (double)(random_next(&model->random) >> 11) * 0x1p-53;
}

/* About exponential. */
static inline double model_random_time(struct model *model, double mean)
{
    double sum = 0;

    while (random_below(&model->random, 8) != 0)
        sum += mean / 7;
    return sum;
}

/* ---- events: a heap ---- */

static inline bool model_before(const struct model_event *a, const struct model_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static inline void model_push(struct model *model, struct model_event event)
{
    unsigned at = model->event_count++;

    assert(at < MODEL_EVENTS_MAX);
    event.order = model->order++;
    while (at > 0 && model_before(&event, &model->events[(at - 1) / 2])) {
        model->events[at] = model->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    model->events[at] = event;
}

static inline struct model_event model_pop(struct model *model)
{
    struct model_event first = model->events[0], last = model->events[--model->event_count];
    unsigned at = 0;

    for (;;) {
        unsigned child = at * 2 + 1;

        if (child >= model->event_count)
            break;
        if (child + 1 < model->event_count &&
            model_before(&model->events[child + 1], &model->events[child]))
            child++;
        if (!model_before(&model->events[child], &last))
            break;
        model->events[at] = model->events[child];
        at = child;
    }
    model->events[at] = last;
    return first;
}

/* ---- cores ---- */

static inline uint64_t model_work_ns(struct model *model, struct model_actor *actor)
{
    const struct model_host *host = &model->hosts[actor->host];
    const struct model_class *class;
    struct model_message *message = &actor->inbox[actor->head];
    double us;
    uint64_t answering = 0;

    switch (actor->kind) {
    case MODEL_CLIENTS:
        actor->batch = actor->count;
        us = 2 + 5.0 * actor->batch;
        break;
    case MODEL_WORKER:
        actor->batch = actor->count;
        us = 3;
        for (unsigned i = 0; i < actor->batch; i++) {
            message = &actor->inbox[(actor->head + i) % MODEL_CLIENTS_MAX];
            us += message->is_answer ? 2.0 : 1.5;
            if (message->is_answer && (answering >> message->server & 1) == 0) {
                answering |= UINT64_C(1) << message->server;
                us += 1.5;
            }
        }
        break;
    case MODEL_BACKEND:
        class = &model->setup.classes[model->clients[message->client].class];
        us = class->cpu_us * 0.7 + model_random_time(model, class->cpu_us * 0.3);
        if (class->io_us > 0)
            us /= 2;
        /* Caches. */
        us *= 1 + model->setup.cache * MIN(host->awake, 20);
        if (model_chance(model) < model->setup.hiccup_chance)
            us += 4000;
        break;
    default:
        us = 200;
    }
    us += (double)actor->owes_ns / 1000;
    actor->owes_ns = 0;
    return (uint64_t)(us * 1000);
}

static inline void model_turn(struct model *model, struct model_actor *actor, uint64_t extra_ns)
{
    model_push(model, (struct model_event){
                          .at_ns = model->now_ns + extra_ns + model_work_ns(model, actor),
                          .kind = MODEL_TURN_ENDS,
                          .actor = actor,
                      });
}

static inline unsigned model_next_waiting(const struct model_host *host)
{
    unsigned best = 0;

    for (unsigned i = 1; i < host->waiting_count; i++)
        if (host->waiting[i]->used_ns < host->waiting[best]->used_ns)
            best = i;
    return best;
}

static inline void model_dispatch(struct model *model, struct model_host *host)
{
    while (host->cores_idle > 0 && host->waiting_count > 0) {
        unsigned at = model_next_waiting(host);
        struct model_actor *actor = host->waiting[at];
        double switch_us = 1.5 + 0.3 * MIN(host->awake, 20);

        /* Order matters among equals: the first to come. */
        host->waiting_count--;
        memmove(&host->waiting[at], &host->waiting[at + 1],
                (host->waiting_count - at) * sizeof(host->waiting[0]));
        host->cores_idle--;
        actor->is_waiting = false;
        actor->is_running = true;
        actor->began_ns = model->now_ns;
        host->used_ns = MAX(host->used_ns, actor->used_ns);
        /* A backend reads all that has come in one call. */
        if (actor->kind == MODEL_BACKEND)
            switch_us += 2;
        model_turn(model, actor, (uint64_t)(switch_us * 1000));
    }
}

static inline void model_wake(struct model *model, struct model_actor *actor, bool has_slept)
{
    struct model_host *host = &model->hosts[actor->host];

    if (actor->is_waiting || actor->is_running || actor->is_blocked)
        return;
    /* Who has slept comes soon, but has no credit for all the time. */
    if (has_slept) {
        uint64_t credit_ns = (uint64_t)(model->setup.credit_us * 1000);

        actor->used_ns =
            MAX(actor->used_ns, host->used_ns > credit_ns ? host->used_ns - credit_ns : 0);
        if (actor->kind == MODEL_BACKEND)
            host->awake++;
    }
    actor->is_waiting = true;
    host->waiting[host->waiting_count++] = actor;
    model_dispatch(model, host);
}

static inline void model_deliver(struct model *model, struct model_actor *actor,
                                 struct model_message message)
{
    assert(actor->count < MODEL_CLIENTS_MAX);
    actor->inbox[(actor->head + actor->count++) % MODEL_CLIENTS_MAX] = message;
    model_wake(model, actor, true);
}

/* Between the pooler and PostgreSQL. */
static inline void model_send(struct model *model, struct model_actor *actor,
                              struct model_message message)
{
    if (model->setup.network_us > 0)
        model_push(model, (struct model_event){
                              .at_ns = model->now_ns + (uint64_t)(model->setup.network_us * 500),
                              .kind = MODEL_ARRIVES,
                              .actor = actor,
                              .message = message,
                          });
    else
        model_deliver(model, actor, message);
}

/* ---- the pooler ---- */

static inline void model_busy_changes(struct model *model, int by)
{
    model->busy_ns += model->busy * (model->now_ns - model->busy_from_ns);
    model->busy_from_ns = model->now_ns;
    model->busy += (unsigned)by;
}

static inline void model_enqueue(struct model *model, struct model_shard *shard, unsigned at,
                                 unsigned client)
{
    struct model_server *server = &shard->servers[at];

    model->clients[client].was_first = server->count == 0;
    if (server->count == 0)
        server->since_us = model->now_ns / 1000;
    server->queue[(server->head + server->count++) % MODEL_CLIENTS_MAX] = client;
    shard->queued++;
    /* A send to a backend; if it works already it is not woken. */
    if (server->count == 1)
        shard->worker->owes_ns += 2500;
    else
        shard->worker->owes_ns += 500;
    model_send(model, server->backend, (struct model_message){.client = (uint16_t)client});
}

static inline bool model_may_join(struct model *model, struct model_shard *shard,
                                  const struct model_server *server, bool *is_followed)
{
    unsigned newest = server->queue[(server->head + server->count - 1) % MODEL_CLIENTS_MAX];
    float ahead_us = 0;
    struct statement_time *time =
        statement_times_find(&shard->times, model->clients[newest].class + 1, model->now_ns / 1000);

    *is_followed = time != NULL && time->follow == FOLLOW_YES;
    if (!*is_followed)
        return false;
    for (unsigned i = 0; i < server->count; i++) {
        unsigned client = server->queue[(server->head + i) % MODEL_CLIENTS_MAX];

        time = statement_times_find(&shard->times, model->clients[client].class + 1,
                                    model->now_ns / 1000);
        ahead_us += time->floor_us;
    }
    return sharing_policy_has_room(&shard->policy, model->now_ns / 1000, server->count, ahead_us);
}

static inline bool model_place(struct model *model, struct model_shard *shard, unsigned client)
{
    unsigned busy = 0, found = MODEL_SERVERS_MAX;

    for (unsigned i = 0; i < shard->busy_count && busy < shard->policy.limit; i++) {
        struct model_server *server = &shard->servers[shard->busy[i]];
        bool is_followed;
        bool may_join = model_may_join(model, shard, server, &is_followed);

        busy += is_followed;
        if (may_join && (found == MODEL_SERVERS_MAX || server->count < shard->servers[found].count))
            found = shard->busy[i];
    }
    if (shard->idle_count > 0 && (busy < shard->policy.limit || found == MODEL_SERVERS_MAX)) {
        found = shard->idle[--shard->idle_count];
        shard->busy[shard->busy_count++] = found;
        model_busy_changes(model, 1);
    }
    if (found == MODEL_SERVERS_MAX)
        return false;
    model_enqueue(model, shard, found, client);
    return true;
}

static inline void model_place_waiting(struct model *model, struct model_shard *shard)
{
    while (shard->waiting_count > 0 &&
           model_place(model, shard, shard->waiting[shard->waiting_head])) {
        shard->waiting_head = (shard->waiting_head + 1) % MODEL_CLIENTS_MAX;
        shard->waiting_count--;
    }
}

static inline void model_answered(struct model *model, struct model_shard *shard, unsigned at)
{
    struct model_server *server = &shard->servers[at];
    unsigned client = server->queue[server->head];
    uint64_t now_us = model->now_ns / 1000;
    bool is_new;
    struct statement_time *time =
        statement_times_make(&shard->times, model->clients[client].class + 1, now_us, &is_new);

    statement_times_note(
        time, now_us - server->since_us, model->clients[client].was_first,
        sharing_policy_is_crowded(&shard->policy, shard->busy_count, now_us - server->since_us));
    sharing_policy_answered(&shard->policy, now_us, now_us - server->since_us, time->floor_us,
                            shard->busy_count, shard->queued);
    server->head = (server->head + 1) % MODEL_CLIENTS_MAX;
    server->count--;
    server->since_us = now_us;
    shard->queued--;
    if (server->count == 0) {
        unsigned i = 0;

        while (shard->busy[i] != at)
            i++;
        shard->busy_count--;
        memmove(&shard->busy[i], &shard->busy[i + 1],
                (shard->busy_count - i) * sizeof(shard->busy[0]));
        shard->idle[shard->idle_count++] = at;
        model_busy_changes(model, -1);
    }
    model_deliver(model, shard->clients,
                  (struct model_message){.client = (uint16_t)client, .is_answer = true});
    model_place_waiting(model, shard);
}

static inline void model_worker_takes(struct model *model, struct model_shard *shard,
                                      struct model_message message)
{
    if (message.is_answer)
        model_answered(model, shard, message.server);
    else if (shard->waiting_count > 0 || !model_place(model, shard, message.client))
        shard->waiting[(shard->waiting_head + shard->waiting_count++) % MODEL_CLIENTS_MAX] =
            message.client;
}

/* ---- the clients ---- */

static inline void model_ask(struct model *model, unsigned index)
{
    struct model_client *client = &model->clients[index];
    unsigned sum = 0, drawn;

    if (index >= model->clients_active) {
        client->is_asleep = true;
        return;
    }
    for (unsigned i = 0; i < MODEL_CLASSES; i++)
        sum += model->setup.classes[i].weight;
    drawn = (unsigned)random_below(&model->random, sum);
    client->class = 0;
    while (drawn >= model->setup.classes[client->class].weight)
        drawn -= model->setup.classes[client->class ++].weight;
    client->is_asleep = false;
    client->sent_ns = model->now_ns;
    model_deliver(model, model->shards[client->shard].worker,
                  (struct model_message){.client = (uint16_t)index});
}

static inline void model_client_takes(struct model *model, unsigned index)
{
    struct model_client *client = &model->clients[index];
    uint64_t bucket = (model->now_ns - client->sent_ns) / 10000;
    unsigned limit = 0;

    model->answers++;
    model->class_answers[client->class]++;
    model->times[MIN(bucket, MODEL_BUCKETS - 1)]++;
    for (unsigned i = 0; i < model->setup.shards; i++)
        limit += model->shards[i].policy.base;
    model->limit_sum += limit;
    model->limit_count++;
    model->limit_min = MIN(model->limit_min, limit);
    model->limit_max = MAX(model->limit_max, limit);
    if (model->setup.think_us > 0)
        model_push(model,
                   (struct model_event){
                       .at_ns = model->now_ns +
                                (uint64_t)(1000 * model_random_time(model, model->setup.think_us)),
                       .kind = MODEL_ASKS,
                       .message = {.client = (uint16_t)index},
                   });
    else
        model_ask(model, index);
}

/* ---- turns ---- */

/* True: it has more to do and keeps its core. */
static inline bool model_backend_goes_on(struct model *model, struct model_actor *actor)
{
    struct model_message *message = &actor->inbox[actor->head];
    double io_us = model->setup.classes[model->clients[message->client].class].io_us;

    if (io_us > 0 && !message->has_read) {
        actor->is_blocked = true;
        message->has_read = true;
        model_push(model, (struct model_event){
                              .at_ns = model->now_ns +
                                       (uint64_t)(1000 * (io_us / 2 +
                                                          model_random_time(model, io_us / 2))),
                              .kind = MODEL_DISK_ANSWERS,
                              .actor = actor,
                          });
        return false;
    }
    message->is_answer = true;
    message->server = (uint16_t)actor->server;
    model_send(model, model->shards[actor->shard].worker, *message);
    actor->head = (actor->head + 1) % MODEL_CLIENTS_MAX;
    actor->count--;
    if (actor->count == 0)
        model->hosts[actor->host].awake--;
    return actor->count > 0;
}

static inline void model_turn_ends(struct model *model, struct model_actor *actor)
{
    struct model_host *host = &model->hosts[actor->host];
    bool goes_on = false;
    uint64_t had_ns = model->now_ns - actor->began_ns;

    actor->used_ns += had_ns;
    actor->began_ns = model->now_ns;
    if (actor->kind == MODEL_BACKEND) {
        goes_on = model_backend_goes_on(model, actor);
    } else if (actor->kind == MODEL_OTHER) {
        goes_on = actor->shard < model->others_active;
    } else {
        for (unsigned i = 0; i < actor->batch; i++) {
            struct model_message message = actor->inbox[actor->head];

            actor->head = (actor->head + 1) % MODEL_CLIENTS_MAX;
            actor->count--;
            if (actor->kind == MODEL_WORKER)
                model_worker_takes(model, &model->shards[actor->shard], message);
            else
                model_client_takes(model, message.client);
        }
        goes_on = actor->count > 0;
    }
    if (goes_on && (host->waiting_count == 0 ||
                    host->waiting[model_next_waiting(host)]->used_ns + 1000000 > actor->used_ns)) {
        model_turn(model, actor, 0);
        return;
    }
    actor->is_running = false;
    host->cores_idle++;
    if (goes_on)
        model_wake(model, actor, false);
    model_dispatch(model, host);
}

static inline void model_step(struct model *model)
{
    struct model_event event = model_pop(model);

    model->now_ns = event.at_ns;
    switch (event.kind) {
    case MODEL_ARRIVES:
        model_deliver(model, event.actor, event.message);
        break;
    case MODEL_TURN_ENDS:
        model_turn_ends(model, event.actor);
        break;
    case MODEL_DISK_ANSWERS:
        event.actor->is_blocked = false;
        model_wake(model, event.actor, false);
        break;
    case MODEL_ASKS:
        model_ask(model, event.message.client);
        break;
    }
}

static inline void model_reset(struct model *model)
{
    model_busy_changes(model, 0);
    model->since_ns = model->now_ns;
    model->busy_ns = 0;
    model->answers = 0;
    model->limit_sum = 0;
    model->limit_count = 0;
    model->limit_min = UINT32_MAX;
    model->limit_max = 0;
    memset(model->class_answers, 0, sizeof(model->class_answers));
    memset(model->times, 0, sizeof(model->times));
}

static inline void model_run(struct model *model, double seconds)
{
    uint64_t end_ns = model->now_ns + (uint64_t)(seconds * 1e9);

    model_reset(model);
    while (model->event_count > 0 && model->events[0].at_ns < end_ns)
        model_step(model);
    model->now_ns = end_ns;
    model_busy_changes(model, 0);
}

/* From now on so many clients ask, and so many other programs compute. */
static inline void model_demand(struct model *model, unsigned clients, unsigned others)
{
    assert(clients <= model->setup.clients);
    model->clients_active = clients;
    model->others_active = others;
    for (unsigned i = 0; i < clients; i++)
        if (model->clients[i].is_asleep) {
            model->clients[i].is_asleep = false;
            model_push(model, (struct model_event){.at_ns = model->now_ns + i * 1000,
                                                   .kind = MODEL_ASKS,
                                                   .message = {.client = (uint16_t)i}});
        }
    for (unsigned i = 0; i < model->actor_count; i++)
        if (model->actors[i].kind == MODEL_OTHER && model->actors[i].shard < others)
            model_wake(model, &model->actors[i], true);
}

static inline struct model_actor *model_actor(struct model *model, enum model_kind kind,
                                              unsigned host, unsigned shard, unsigned server)
{
    struct model_actor *actor = &model->actors[model->actor_count++];

    actor->kind = kind;
    actor->host = host;
    actor->shard = shard;
    actor->server = server;
    return actor;
}

static inline void model_init(struct model *model, const struct model_setup *setup)
{
    unsigned remote = setup->remote_cores > 0;

    memset(model, 0, sizeof(*model));
    model->setup = *setup;
    model->random = setup->seed;
    model->now_ns = UINT64_C(123456789) * 1000;
    model->hosts[0].cores_idle = setup->cores;
    model->hosts[1].cores_idle = setup->remote_cores;
    for (unsigned i = 0; i < setup->shards; i++) {
        struct model_shard *shard = &model->shards[i];

        sharing_policy_set(&shard->policy, setup->setting, setup->ceiling);
        shard->worker = model_actor(model, MODEL_WORKER, 0, i, 0);
        shard->clients = model_actor(model, MODEL_CLIENTS, 0, i, 0);
        for (unsigned k = 0; k < setup->ceiling; k++) {
            shard->servers[k].backend = model_actor(model, MODEL_BACKEND, remote, i, k);
            shard->idle[shard->idle_count++] = k;
        }
    }
    for (unsigned i = 0; i < setup->others; i++)
        (void)model_actor(model, MODEL_OTHER, remote, i, 0);
    for (unsigned i = 0; i < setup->clients; i++) {
        model->clients[i].shard = i % setup->shards;
        model->clients[i].is_asleep = true;
    }
    model_demand(model, setup->clients, 0);
}

/* Exchanges a second since model_reset. */
static inline double model_rate(const struct model *model)
{
    return (double)model->answers * 1e9 / (double)(model->now_ns - model->since_ns);
}

/* Busy servers of all shards, their mean. */
static inline double model_busy(const struct model *model)
{
    return (double)model->busy_ns / (double)(model->now_ns - model->since_ns);
}

/* `base` of all shards, its mean. */
static inline double model_limit(const struct model *model)
{
    return model->limit_sum / (double)model->limit_count;
}

static inline double model_percentile_us(const struct model *model, double percent)
{
    double left = (double)model->answers * percent / 100;
    unsigned bucket = 0;

    while (bucket < MODEL_BUCKETS - 1 && left >= model->times[bucket])
        left -= model->times[bucket++];
    return bucket * 10.0;
}

#endif
