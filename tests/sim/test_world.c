/* test_world.c - 1 to 4 workers with their clients, pools and servers between simulated clients and
 * simulated PostgreSQL servers, on a kernel in every mood, under a console in every mood.
 *
 * The workers are the real ones (worker.h): their turns, mailboxes and doorbells, in one thread, in
 * an order that the seed draws; any of them may be late for long. Control asks and orders through its
 * own request.h, merge.h and dns.h; its sessions (which hang up), helpers and name servers are simulated.
 *
 * Each question names its client and its number; each answer names them again (world.h). When the
 * faults stop, every client must come to the end of its scripts, and everything must come home. */
#include "tls_count.h"
#include "world_peer.h"
#include "world_session.h"
#include "world_user.h"
#include "world_vandal.h"
#include "world_wire.h"

#include "control/dns.h"
#include "control/merge.h"
#include "control/request.h"
#include "pool/cancel.h"
#include "pool/client.h"
#include "pool/command.h"
#include "pool/replication.h"
#include "pool/handover.h"
#include "pool/lending.h"
#include "pool/peer.h"
#include "pool/report.h"
#include "pool/server.h"
#include "worker/worker.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdarg.h>

enum {
    WORKERS_SIM_MAX = 4,
    CHAOS_ROUNDS = 500,
    CLIENTS_OF_WORKER_MAX = 200,
    CALM_ROUNDS = 100,
    DRAIN_ROUNDS_MAX = 200000,
    IDLE_ROUNDS_MAX = 5000, /* in which nothing happened: a stall */
    SCRIPTS_AFTER_CHAOS = 2,
    SCRIPTS_FOR_SCHEMA = 6, /* the same, where healing is promised and can be demanded */
    ORDERS_MAX = 4,
    JOBS_MAX = 128,
    QUESTIONS_MAX = 64,
    VISITS_MAX = 64,
    TLS_SEEDS = 7,     /* one in so many has TLS */
    SHARING_SEEDS = 5, /* two in so many have no sharing */
    USERS_FEW = 12,
    SEEDS = 10000,
};

/* A worker, and what the scheduler knows of it. */
struct member {
    unsigned long long again_alone; /* see note_stakes */
    struct worker worker;
    int listen_fd;
    bool is_waiting; /* between worker_wait_until and worker_turn */
    uint64_t deadline_us;
    uint64_t late_until_us; /* the machine has better things to do */
};

static struct member members[WORKERS_SIM_MAX];
static struct worker *workers[WORKERS_SIM_MAX];
static unsigned worker_count;
static int turning; /* the worker whose turn it is; -1: none's */
static struct usage_table usage;
static struct shard_table shards;
static struct shard_set *sets[DATABASES][LOGINS];
static struct usage *database_usage[DATABASES], *user_usage[LOGINS];
static struct param_names param_names;

/* ---- the configuration ---- */

/* The largest limits that any configuration of this run has had: a limit that a RELOAD has lowered
 * is reached later. */
struct limits {
    int pool_servers[DATABASES][LOGINS];
    int database_servers[DATABASES], user_servers[LOGINS];
    int database_clients[DATABASES], user_clients[LOGINS];
    int clients;
    int peer_requests;
};

static struct limits limits;
static struct snapshot *snapshot; /* control's */
static char config_text[5000], users_text[512];
static const char *fixed_mode; /* NULL: each configuration draws its own */
static const char *auth_type;
static unsigned scram_iterations;

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    char *text =
        arena_copy_string(arena, strcmp(path, "users.txt") == 0 ? users_text : config_text);

    (void)context;
    *bytes = strlen(text);
    return text;
}

static void say(void *context, enum log_level level, const char *text)
{
    (void)context;
    if (level <= LEVEL_ERROR)
        fprintf(stderr, "%s\n", text);
}

/* Mostly the second. */
static const char *pick(const char *one, const char *other)
{
    return sim_below(world.sim, 3) == 0 ? one : other;
}

/* In a mild chaos the second. */
static const char *limit(const char *one, const char *other)
{
    const char *picked = pick(one, other);

    return world.is_mild ? other : picked;
}

static int larger(int limit, int other)
{
    return MAX(limit, other <= 0 ? INT_MAX : other);
}

static unsigned database_index(const char *name)
{
    unsigned i = 0;

    while (strcmp(databases[i].name, name) != 0) {
        i++;
        assert(i < DATABASES);
    }
    return i;
}

static unsigned login_index(const char *name)
{
    unsigned i = 0;

    while (strcmp(login_names[i].name, name) != 0) {
        i++;
        assert(i < LOGINS);
    }
    return i;
}

static void note_limits(const struct snapshot *made)
{
    const struct settings *settings = &made->settings;

    limits.clients = larger(limits.clients, settings->max_client_conn);
    for (size_t i = 0; i < made->peer_count; i++)
        limits.peer_requests = larger(limits.peer_requests, made->peers[i].pool_size >= 0
                                                                ? made->peers[i].pool_size
                                                                : settings->default_pool_size);
    for (unsigned i = 0; i < LOGINS; i++) {
        const struct user_config *user = snapshot_find_user(made, login_names[i].name);

        limits.user_clients[i] =
            larger(limits.user_clients[i], user != NULL && user->max_user_client_connections > 0
                                               ? user->max_user_client_connections
                                               : settings->max_user_client_connections);
    }
    for (size_t i = 0; i < made->database_count; i++) {
        const struct database_config *database = &made->databases[i];
        unsigned index = database_index(database->name);

        limits.database_clients[index] =
            larger(limits.database_clients[index], database->max_db_client_connections > 0
                                                       ? database->max_db_client_connections
                                                       : settings->max_db_client_connections);
        for (unsigned j = 0; j < LOGINS; j++) {
            struct pool_settings pool;

            snapshot_pool_settings(made, database, snapshot_find_user(made, login_names[j].name),
                                   &pool);
            limits.pool_servers[index][j] =
                larger(limits.pool_servers[index][j],
                       pool.pool_size == 0 ? 0 : pool.pool_size + pool.reserve_pool_size);
            limits.database_servers[index] =
                larger(limits.database_servers[index], pool.max_db_connections);
            limits.user_servers[j] = larger(limits.user_servers[j], pool.max_user_connections);
        }
    }
}

/* What control makes of the tls settings. In the end everybody may have it. */
static void draw_tls(struct snapshot *made, bool is_whole)
{
    struct tls_context *clients = NULL, *servers = NULL;

    if (world.demands_client_tls || is_whole || !happens(6))
        clients = tls_context_reference(wire_contexts.clients);
    if (world.demands_server_tls || !happens(6))
        servers = tls_context_reference(wire_contexts.servers[happens(4)]);
    made->settings.client_tls_sslmode = clients == NULL            ? TLS_MODE_DISABLE
                                        : world.demands_client_tls ? TLS_MODE_REQUIRE
                                                                   : TLS_MODE_ALLOW;
    made->settings.server_tls_sslmode = servers == NULL            ? TLS_MODE_DISABLE
                                        : world.demands_server_tls ? TLS_MODE_REQUIRE
                                                                   : TLS_MODE_PREFER;
    snapshot_set_tls(made, clients, servers, tls_context_release);
    if (!is_whole && happens(4)) /* which may be over in a handshake */
        made->settings.client_login_timeout_us = 5 * US_PER_MS + sim_below(world.sim, 50000);
}

static const char *draw_sharing(void)
{
    static const char *const settings[] = {"off", "auto", "auto", "auto", "1", "1",
                                           "1",   "1",    "1",    "2",    "2", "5"};

    return world.has_sharing ? settings[sim_below(world.sim, COUNT_OF(settings))] : "off";
}

static struct snapshot *make_snapshot(bool is_whole)
{
    static const char *const modes[] = {"transaction", "transaction", "session", "statement"};
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.1", "pg.example",
                                        "127.0.0.2,pg.example", "pg.example,127.0.0.1"};
    struct sim *sim = world.sim;
    unsigned peer_id =
        is_whole || !world.changes_peer_id ? PEER_OURS : (unsigned)sim_below(sim, 2) * 5;
    const char *mode = fixed_mode != NULL ? fixed_mode : modes[sim_below(sim, COUNT_OF(modes))];
    const char *auth_database = "";
    const char *resets = pick("1", "0");
    struct snapshot *made;

    if (world.is_mild) /* or nothing shares */
        resets = happens(10) ? "1" : "0";

    if (world.looks_up && happens(2)) /* else the one that the client asks for */
        auth_database = databases[sim_below(sim, DATABASES)].name;
    snprintf(config_text, sizeof(config_text),
             "[databases]\n"
             "shop = host=127.0.0.1 port=5432 pool_size=%u reserve_pool_size=%u%s\n"
             "%sstore = host=%s port=5433 dbname=warehouse%s\n"
             "fixed = host=%s port=5432 user=alice pool_size=%u%s load_balance_hosts=%s\n"
             "[peers]\n"
             "%u = host=127.0.0.1 port=%u\n"
             "%s%u = host=127.0.0.1 port=%u pool_size=%s\n"
             "%s%u = host=peer.example port=%u\n"
             "[users]\n"
             "bob = max_user_connections=%s max_user_client_connections=%s\n"
             "[pgbouncer]\n"
             "peer_id = %u\n"
             "dns_nxdomain_ttl = 0.05\n"
             "auth_type = %s\n"
             "auth_file = users.txt\n"
             "admin_users = alice\n"
             "%s%s\n"
             "%s%s\n"
             "listen_port = 6432\n"
             "scram_iterations = %u\n"
             "pool_mode = %s\n"
             "default_pool_size = %u\n"
             "min_pool_size = %s\n"
             "reserve_pool_timeout = %s\n"
             "server_lifetime = %s\n"
             "server_idle_timeout = %s\n"
             "server_check_delay = %s\n"
             "server_reset_query_always = %s\n"
             "server_round_robin = %s\n"
             "server_login_retry = %s\n"
             "query_wait_timeout = %s\n"
             "query_timeout = %s\n"
             "max_client_conn = %s\n"
             "max_db_connections = %s\n"
             "max_user_connections = %s\n"
             "max_db_client_connections = %s\n"
             "max_user_client_connections = %s\n"
             "cancel_wait_timeout = %s\n"
             "max_prepared_statements = %u\n"
             "server_connect_timeout = %s\n"
             "dns_max_ttl = %s\n"
             "dns_nxdomain_ttl = %s\n"
             "dns_zone_check_period = %s\n"
             "[pgsplice]\n"
             "pool_shards = %u\n"
             "server_connect_parallel = %s\n"
             "cache_unnamed_statements = %u\n"
             "heal_statements = %u\n"
             "server_sharing = %s\n",
             1 + (unsigned)sim_below(sim, 5), (unsigned)sim_below(sim, 3),
             pick(" connect_query='select 1'", ""), is_whole || !happens(6) ? "" : "; ",
             hosts[sim_below(sim, COUNT_OF(hosts))], pick(" max_db_connections=2", ""),
             hosts[sim_below(sim, COUNT_OF(hosts))], 1 + (unsigned)sim_below(sim, 3),
             pick(" min_pool_size=1", ""), pick("disable", "round-robin"), PEER_OURS,
             PEER_PORT + PEER_OURS, is_whole || !happens(6) ? "" : "; ", PEER_LITERAL,
             PEER_PORT + PEER_LITERAL, pick("1", "3"), is_whole || !happens(6) ? "" : "; ",
             PEER_NAMED, PEER_PORT + PEER_NAMED, limit("2", "0"), limit("4", "0"), peer_id,
             auth_type, world.looks_up ? "auth_user = alice\nauth_query = " : "; ", auth_query_text,
             auth_database[0] != '\0' ? "auth_dbname = " : "; ", auth_database, scram_iterations,
             mode, 1 + (unsigned)sim_below(sim, 4), pick("1", "0"), pick("0.1", "5"),
             pick("0.05", "3600"), pick("0.05", "600"), pick("0", "30"), resets, pick("1", "0"),
             happens(6) || world.is_mild ? "0" : pick("0.1", "15"), pick("0.5", "120"),
             pick("0.3", "0"), limit("6", "100"), limit("2", "0"), limit("3", "0"), limit("5", "0"),
             limit("4", "0"), pick("0.05", "10"), world.prepared_max, pick("1", "15"),
             pick("0", "0.01"), pick("0.1", "0"), is_whole ? "0" : pick("0.02", "0"),
             happens(4) ? 0 : 1 + (unsigned)sim_below(sim, WORKERS_SIM_MAX), pick("1", "10"),
             world.caches_unnamed, world.heals, draw_sharing());
    made = snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, say, NULL);
    assert(made != NULL);
    if (world.has_tls)
        draw_tls(made, is_whole);
    note_limits(made);
    return made;
}

static void draw_accounts(void)
{
    static const struct {
        const char *auth_type;
        enum demand demand;
    } kinds[] = {
        {"trust", DEMAND_NOTHING},       {"trust", DEMAND_NOTHING}, {"scram-sha-256", DEMAND_SCRAM},
        {"scram-sha-256", DEMAND_SCRAM}, {"md5", DEMAND_MD5},       {"plain", DEMAND_PLAIN},
    };
    static const enum demand demands[] = {DEMAND_NOTHING, DEMAND_NOTHING, DEMAND_PLAIN, DEMAND_MD5,
                                          DEMAND_SCRAM};
    size_t kind = sim_below(world.sim, COUNT_OF(kinds));
    /* Keys pass from the client's SCRAM login to the server's; nothing else opens the latter. */
    bool client_is_scram = kinds[kind].demand == DEMAND_SCRAM || kinds[kind].demand == DEMAND_MD5;

    auth_type = kinds[kind].auth_type;
    world.client_demand = kinds[kind].demand;
    world.server_demand = demands[sim_below(world.sim, COUNT_OF(demands))];
    world.carol_is_scram_only =
        happens(2) && (client_is_scram || world.server_demand != DEMAND_SCRAM);
    scram_iterations = 1 + (unsigned)sim_below(world.sim, 3);
    world.looks_up = happens(3);
    users_text[0] = '\0';
    for (unsigned i = 0; i < LOGINS; i++)
        if (!world.looks_up || i == LOGIN_AUTH_USER)
            snprintf(users_text + strlen(users_text), sizeof(users_text) - strlen(users_text),
                     "\"%s\" \"%s\"\n", login_names[i].name, login_secret(i));
}

static void explain(void);

static void failed(const char *text)
{
    explain();
    never(text);
}

#define must(condition) ((condition) ? (void)0 : failed(#condition))

/* ---- control and its helpers ---- */

static struct mailbox control_mailbox;
static struct ring *control_ring;
static struct buffer_pool control_buffers;
/* Orders and questions go through control's own code, several at a time. */
static struct requests requests;
static unsigned request_count;
static struct {
    struct job *job;
    uint64_t due_us;
} jobs[JOBS_MAX];
static unsigned job_count;
/* Sessions of the console: control has the descriptor and hangs up after a while. */
static struct {
    int fd;
    struct tls *tls;
    uint64_t due_us;
} visits[VISITS_MAX];
static unsigned visit_count;
static bool control_acts;
static bool control_drops; /* what does not come to rest in a SUSPEND */

static void post_control(struct letter *letter)
{
    (void)mailbox_post(&control_mailbox, letter);
}

static void post_to(unsigned worker, struct letter *letter)
{
    assert(worker < worker_count);
    worker_post(workers[worker], control_ring, letter);
}

static bool post_job(struct job *job)
{
    if (job_count == JOBS_MAX || (world.is_chaos && happens(world.is_mild ? 500 : 20)))
        return false;
    jobs[job_count].job = job;
    jobs[job_count++].due_us =
        world_now_us() +
        (world.is_chaos ? sim_below(world.sim, happens(4) && !world.is_mild ? 100000 : 300) : 10);
    return true;
}

static void run_jobs(void)
{
    for (unsigned i = 0; i < job_count;) {
        struct job *job = jobs[i].job;

        if (jobs[i].due_us > world_now_us()) {
            i++;
            continue;
        }
        jobs[i] = jobs[--job_count];
        job->was_run = !atomic_load(&job->is_cancelled);
        if (job->was_run)
            job->run(job);
        post_to(job->core_index, &job->letter);
    }
}

/* ---- names ---- */

/* Answers that are still to come: of a question for addresses two, one for each family. */
static struct {
    struct dns_question *question;
    enum dns_family family;
    uint64_t due_us;
} questions[QUESTIONS_MAX];
static unsigned question_count;
static struct dns dns;
/* Which of the two addresses of the name there are; 0: the zone has changed. */
static unsigned addresses_of_name;
static uint32_t zone_serial;
static bool names_fail; /* from the beginning until it gets calm */

static void resolver_opens(struct letter *letter, void *context)
{
    (void)context;
    dns_resolve(&dns, OWNER_OF(letter, struct resolution, letter), world_now_us());
}

static void dns_asks(void *context, struct dns_question *question)
{
    unsigned open_count = question->open_count;

    (void)context;
    for (enum dns_family family = 0; family < open_count; family++) {
        uint64_t wait_us = 10;

        assert(question_count < QUESTIONS_MAX);
        if (names_fail) /* now and then longer than anybody waits */
            wait_us = sim_below(world.sim, happens(10) ? 3 * US_PER_S : happens(4) ? 100000 : 300);
        questions[question_count].question = question;
        questions[question_count].family = family;
        questions[question_count++].due_us = world_now_us() + wait_us;
    }
}

static void answer_addresses(struct dns_question *question, enum dns_family family)
{
    struct host_address addresses[2] = {0};
    bool is_peer = strcmp(question->name, "peer.example") == 0;
    unsigned count = 0;

    if (names_fail && happens(3))
        addresses_of_name = 1 + (unsigned)sim_below(world.sim, 3);
    for (unsigned i = 0; i < 2 && family == DNS_V4; i++)
        if (is_peer || (addresses_of_name & BIT(i)) != 0) {
            addresses[count].family = AF_INET;
            addresses[count].bytes[0] = 127;
            /* The peer is at the first one only. */
            addresses[count++].bytes[3] = (uint8_t)(is_peer && i == 1 ? 9 : 1 + i);
        }
    if (names_fail && happens(8))
        count = 0;
    dns_answer_addresses(question, family,
                         count > 0                  ? DNS_FOUND
                         : names_fail && happens(2) ? DNS_UNKNOWN
                                                    : DNS_NONE,
                         addresses, count, "not known", world_now_us());
}

static void answer_questions(void)
{
    for (unsigned i = 0; i < question_count;) {
        struct dns_question *question = questions[i].question;
        enum dns_family family = questions[i].family;

        if (questions[i].due_us > world_now_us()) {
            i++;
            continue;
        }
        questions[i] = questions[--question_count];
        if (question->is_for_serial)
            dns_answer_serial(question, !names_fail || !happens(4),
                              zone_serial += names_fail && happens(3), world_now_us());
        else
            answer_addresses(question, family);
    }
}

static void dns_replies(void *context, struct resolution *resolution)
{
    (void)context;
    resolution->letter.open = resolution_returned;
    post_to(resolution->core_index, &resolution->letter);
}

static void host_change_told(struct request *request)
{
    free(request->owner);
    request_release(request);
}

static void host_has_changed(void *context, const char *name, const struct host_answer *answer)
{
    struct host_news *news = malloc(sizeof(*news));
    struct request *request = request_make(&requests, news, host_change_told);

    (void)context;
    assert(news != NULL);
    strcpy(news->name, name);
    news->answer = *answer;
    request->owner = news;
    request->command.kind = COMMAND_HOST;
    request->command.host = news;
    world_log("control tells that %s has changed", name);
    request_command(request);
}

/* A session of the console, or a cancel request whose key no worker knows: control hangs up. */
static void console_opens(struct letter *letter, void *context)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);

    (void)context;
    if (handover->kind == HANDOVER_CANCEL) {
        for (unsigned i = 0; i < worker_count; i++)
            must(client_find_key(&workers[i]->core, handover->cancel_key) == NULL);
        if (cancel_key_is_foreign(handover->cancel_key, snapshot->settings.peer_id)) {
            handover->is_for_peer = true;
            letter->open = handover_open;
            post_to(peer_core(handover->cancel_key, worker_count), letter);
            return;
        }
        usage_give(&usage.client_count);
        tls_destroy(handover->tls);
        ring_close(control_ring, handover->fd);
    } else {
        assert(handover->kind == HANDOVER_CONSOLE);
        assert(handover->is_admin);
        assert(visit_count < VISITS_MAX);
        visits[visit_count].fd = handover->fd;
        visits[visit_count].tls = handover->tls;
        visits[visit_count++].due_us = world_now_us() + sim_below(world.sim, 50000);
    }
    letter->open = handover_returned;
    post_to(handover->from_core, letter);
}

static void end_visits(void)
{
    for (unsigned i = 0; i < visit_count;) {
        if (visits[i].due_us > world_now_us()) {
            i++;
            continue;
        }
        usage_give(&usage.client_count);
        tls_destroy(visits[i].tls);
        ring_close(control_ring, visits[i].fd);
        visits[i] = visits[--visit_count];
    }
}

static void post_request(void *context, unsigned worker, struct letter *letter)
{
    (void)context;
    post_to(worker, letter);
}

/* What is shown is one picture: each pool once, each connection once. */
static void request_answered(struct request *request)
{
    if (!request->is_command && request->kind == REPORT_POOLS) {
        struct pool_row *rows = request->rows;
        size_t count = merge_pools(rows, request->row_count);

        for (size_t i = 0; i < count; i++) {
            assert(rows[i].cl_active + rows[i].cl_waiting == rows[i].client_count);
            for (size_t k = 0; k < i; k++)
                assert(strcmp(rows[i].database, rows[k].database) != 0 ||
                       strcmp(rows[i].user, rows[k].user) != 0);
        }
    } else if (!request->is_command &&
               (request->kind == REPORT_CLIENTS || request->kind == REPORT_LOGINS ||
                request->kind == REPORT_SERVERS)) {
        struct socket_row *rows = request->rows;
        size_t count = merge_sockets(rows, request->row_count);

        for (size_t i = 0; i < count; i++)
            for (size_t k = 0; k < i; k++)
                assert(rows[i].id != rows[k].id);
    }
    request_count--;
    request_release(request);
}

/* NULL: enough are under way. */
static struct request *request_take(void)
{
    if (request_count == ORDERS_MAX)
        return NULL;
    request_count++;
    return request_make(&requests, &requests, request_answered);
}

static bool control_is_busy(void)
{
    return request_count > 0 || job_count > 0 || visit_count > 0 ||
           atomic_load(&control_mailbox.last) != NULL;
}

/* False: no letter is free. `database` NULL: all. */
static bool order_command(enum command_kind kind, const char *database)
{
    struct request *request = request_take();

    if (request == NULL)
        return false;
    request->command.kind = kind;
    if (kind == COMMAND_SNAPSHOT)
        request->command.snapshot = snapshot;
    if (database != NULL) {
        request->command.has_database = true;
        snprintf(request->command.database, sizeof(request->command.database), "%s", database);
    }
    world_log("control orders %d for %s", (int)kind, database != NULL ? database : "all");
    request_command(request);
    return true;
}

/* A request that another process got. */
static bool order_cancel(const uint8_t key[8])
{
    /* One is left for what must be ordered. */
    struct request *request = request_count + 1 < ORDERS_MAX ? request_take() : NULL;

    if (request == NULL)
        return false;
    request->command.kind = COMMAND_CANCEL;
    memcpy(request->command.cancel_key, key, 8);
    request_command(request);
    return true;
}

static void order_reload(bool is_whole)
{
    snapshot_release(snapshot);
    snapshot = make_snapshot(is_whole);
    dns_configure(&dns, &snapshot->settings, world_now_us());
    (void)order_command(COMMAND_SNAPSHOT, NULL);
}

static void order_report(void)
{
    static const enum report_kind kinds[] = {REPORT_POOLS,     REPORT_CLIENTS,    REPORT_SERVERS,
                                             REPORT_SHARING,   REPORT_CLASSES,    REPORT_LOGINS,
                                             REPORT_MEMORY,    REPORT_STATEMENTS, REPORT_COUNTS,
                                             REPORT_UNSETTLED, REPORT_UNSETTLED};
    struct request *request = request_take();

    if (request != NULL)
        request_report(request, kinds[sim_below(world.sim, COUNT_OF(kinds))]);
}

static void order_something(void)
{
    const char *name = databases[sim_below(world.sim, DATABASES)].name;
    const char *database = happens(2) ? name : NULL;
    struct request *request;

    switch (sim_below(world.sim, 19)) {
    case 16:
    case 17:
        (void)order_command(COMMAND_SUSPEND, NULL);
        break;
    case 18:
        if (!control_drops)
            break;
        world.has_dropped = true;
        (void)order_command(COMMAND_SUSPEND_DROP, NULL);
        break;
    case 0:
        (void)order_command(COMMAND_PAUSE, database);
        break;
    case 1:
    case 2:
    case 3:
        (void)order_command(COMMAND_RESUME, database);
        break;
    case 4:
    case 5:
        (void)order_command(COMMAND_RECONNECT, database);
        break;
    case 6:
        (void)order_command(COMMAND_DISABLE, name);
        break;
    case 7:
    case 8:
        (void)order_command(COMMAND_ENABLE, name);
        break;
    case 9:
        (void)order_command(COMMAND_KILL, database);
        break;
    case 10:
    case 11:
        request = request_take();
        if (request == NULL)
            break;
        request->command.kind = COMMAND_KILL_CLIENT;
        request->command.id =
            members[sim_below(world.sim, worker_count)].worker.core.id_last * worker_count +
            sim_below(world.sim, 8 * worker_count);
        request_command(request);
        break;
    case 12:
    case 13:
        order_reload(false);
        break;
    default:
        order_report();
        break;
    }
}

static void control_step(void)
{
    static bool takes_back; /* what was ordered, before long */

    if (!world.is_chaos)
        takes_back = false;
    if (world.is_chaos && happens(4))
        return;
    (void)mailbox_open_all(&control_mailbox, NULL);
    run_jobs();
    answer_questions();
    dns_run(&dns, world_now_us());
    end_visits();
    if (world.is_chaos && control_acts && happens(world.is_mild ? 120 : 60)) {
        order_something();
        takes_back = world.is_mild;
    } else if (takes_back && happens(8)) {
        takes_back = !order_command(COMMAND_RESUME, NULL) ||
                     !order_command(COMMAND_ENABLE, databases[0].name);
        if (!takes_back)
            takes_back = !order_command(COMMAND_RESUME, databases[0].name);
    }
    (void)ring_turn(control_ring, 0);
}

/* ---- what must hold ---- */

static unsigned list_length(const struct list *list)
{
    unsigned length = 0;

    list_for_each(link, list) length++;
    return length;
}

/* Each server stands in the list of its state, and nowhere else. Returns their number. */
static unsigned check_servers(const struct pool *pool)
{
    static const enum server_state states[][2] = {
        {SERVER_IDLE, SERVER_IDLE},         {SERVER_ACTIVE, SERVER_PREPARING},
        {SERVER_TESTED, SERVER_TESTED},     {SERVER_LOGIN, SERVER_LOGIN},
        {SERVER_CANCELED, SERVER_CANCELED}, {SERVER_LENDING, SERVER_LENDING},
        {SERVER_SHARED, SERVER_SHARED},
    };
    const struct list *lists[] = {&pool->idle_servers,     &pool->active_servers,
                                  &pool->tested_servers,   &pool->login_servers,
                                  &pool->canceled_servers, &pool->lending_servers,
                                  &pool->sharing.servers};
    unsigned count = 0;

    for (size_t i = 0; i < COUNT_OF(lists); i++)
        list_for_each(link, lists[i])
        {
            const struct server *server = OWNER_OF(link, struct server, link);

            must(server->pool == pool);
            must(server->state == states[i][0] || server->state == states[i][1] ||
                 (i == 1 && server->state == SERVER_AUTH_QUERY));
            if (i == 1) {
                must(server->client->server == server);
                must(server->client->is_auth_query == (server->state == SERVER_AUTH_QUERY));
            }
            must((server->client != NULL) ==
                 (i == 1 || (i == 3 && server->replication != REPLICATION_NONE)));
            must(server->replication == REPLICATION_NONE || i == 1 || i == 3);
            must(server->is_ready ==
                 (server->state != SERVER_LOGIN && server->replication == REPLICATION_NONE));
            /* Where the host's name has other addresses now, it ends: but it may have come from a core
             * that has heard of newer ones. */
            must(host_is_current(pool, &server->address) || server->close_needed ||
                 server->lender_answer >= host_answer_number(pool));
            /* What is older than a RECONNECT ends, wherever it is: as soon as its core has heard of it. */
            must(server->generation >= atomic_load(&pool->set->generation) ||
                 pool->core->generation < atomic_load(&pool->set->generation) ||
                 server->close_needed);
            /* So is what was opened with other rules of TLS. */
            must(server->conn.tls == NULL || server->close_needed ||
                 tls_context_of(server->conn.tls->session) == pool->core->snapshot->server_tls ||
                 server->generation > pool->core->generation);
            count++;
        }
    must(count == pool->server_count);
    must(list_length(&pool->sharing.servers) == pool->sharing.server_count);
    must(list_length(&pool->idle_servers) == pool->idle_count);
    return count;
}

/* The queue of a shared server. Returns how many of it are known to belong to a client. */
static unsigned check_queue(const struct server *server)
{
    const struct shared *before = NULL;
    unsigned count = 0, owned = 0;
    bool only_sets = true;

    must(!list_is_empty(&server->shared));
    must(server->client == NULL);
    must(server->replication == REPLICATION_NONE);
    list_for_each(link, &server->shared)
    {
        const struct shared *shared = OWNER_OF(link, struct shared, link);
        const struct client *client = shared->client;

        must(shared->server == server);
        must((shared->since_us != 0) == (before == NULL));
        must(!shared->has_begun || before == NULL);
        if (shared->kind == SHARED_SET)
            must(client == NULL);
        if (client != NULL) {
            must(client->shared == shared);
            must(client->state == CLIENT_SHARED);
            must(client->server == NULL);
            must(client->pool == server->pool);
            must(shared->bytes != NULL);
            owned++;
        }
        /* Nobody was queued behind what is alone, or of which nothing is known. */
        only_sets = only_sets && (before == NULL || before->kind == SHARED_SET);
        must(only_sets || !shared->is_alone);
        must(before == NULL || before->is_followed || before->kind == SHARED_SET);
        /* Whoever might be hit by a neighbour's signal has got nothing. */
        must(!shared->may_be_hit || before != NULL || !shared->has_begun ||
             shared->phase == PHASE_COMPLETE || !shared->collects);
        before = shared;
        count++;
    }
    must(count == server->shared_count);
    return owned;
}

static void check_sharing(const struct pool *pool)
{
    const struct sharing *sharing = &pool->sharing;
    unsigned queued = 0, waiting = 0, owned = 0, clients = 0;

    list_for_each(link, &sharing->servers)
    {
        const struct server *server = OWNER_OF(link, struct server, link);

        owned += check_queue(server);
        queued += server->shared_count;
    }
    must(queued == sharing->queued_count);
    list_for_each(link, &pool->waiting_clients)
    {
        const struct client *client = OWNER_OF(link, struct client, link);

        if (client->shared == NULL)
            continue;
        must(client->shared->client == client);
        must(client->shared->server == NULL);
        must(!client->shared->has_begun);
        waiting += shared_may_join(client->shared);
    }
    must(waiting == sharing->waiting_count);
    list_for_each(link, &pool->active_clients) clients +=
        OWNER_OF(link, struct client, link)->state == CLIENT_SHARED;
    must(clients == owned);
    must(sharing->stats.joined_count <= sharing->stats.depth_sum);
    must(sharing->stats.depth_max <= sharing->stats.depth_sum);
}

/* Who has no welcome yet and has asked for replication, with a server that is logging in or without. */
static void check_replication(const struct pool *pool)
{
    unsigned logins = 0;

    list_for_each(link, &pool->replication_clients)
    {
        const struct client *client = OWNER_OF(link, struct client, link);

        must(client->state == CLIENT_WELCOME);
        must(client->replication != REPLICATION_NONE);
        must(client->server == NULL ||
             (client->server->client == client && client->server->state == SERVER_LOGIN));
        logins += client->server != NULL;
    }
    must(logins == pool->replication_login_count);
    must(list_length(&pool->replication_clients) == pool->replication_count);
}

/* Servers that serve one client only. */
static unsigned replication_servers(const struct pool *pool)
{
    unsigned count = 0;

    list_for_each(link, &pool->active_servers) count +=
        OWNER_OF(link, struct server, link)->replication != REPLICATION_NONE;
    return count;
}

/* Requests for a peer are where its counts say, and all on one core. */
static void check_peers(const struct core *core)
{
    list_for_each(peer_link, &core->peer_list)
    {
        const struct peer *peer = OWNER_OF(peer_link, struct peer, link);
        unsigned active = 0, connecting = 0;

        must((unsigned)peer->id % worker_count == core->index);
        must(peer->id != PEER_OURS || world.changes_peer_id);
        must(peer->waiting_count == list_length(&peer->waiting));
        list_for_each(link, &core->cancel_list)
        {
            const struct cancel *cancel = OWNER_OF(link, struct cancel, link);

            active += cancel->peer == peer;
            connecting += cancel->peer == peer && cancel->is_connecting;
        }
        must(peer->active_count == active);
        must(peer->connecting_count == connecting);
        must((int)active <= limits.peer_requests);
        /* Nobody waits while there is room, but for a lookup. */
        must(peer->waiting_count == 0 || peer->active_count > 0 ||
             !list_is_empty(&peer->name_waiter.link));
    }
}

/* When nothing is on its way, all shards of a pool have the same welcome. */
static void check_welcomes(void)
{
    for (unsigned i = 0; i < DATABASES; i++)
        for (unsigned j = 0; j < LOGINS; j++) {
            const struct pool *first = NULL;

            for (unsigned k = 0; k < worker_count; k++) {
                const struct pool *pool = sets[i][j]->shards[k].pool;

                if (pool == NULL || !pool->has_welcome)
                    continue;
                if (first == NULL)
                    first = pool;
                must(pool->welcome_bytes == first->welcome_bytes);
                must(memcmp(pool->welcome, first->welcome, pool->welcome_bytes) == 0);
            }
        }
}

/* What must hold for a core between two of its turns. */
static void check_core(const struct core *core)
{
    unsigned servers = 0, open_servers = 0;

    list_for_each(link, &core->pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);

        servers += check_servers(pool);
        /* Nobody waits while a server idles: but as many as are being tested may, who get those. */
        if (!pool_is_stopped(pool))
            must(pool->waiting_count <= pool->tested_count || pool->idle_count == 0);
        /* Nor does anybody who would have a server of his own if it were not for that one. */
        if (!pool_is_stopped(pool) && pool->is_replication_denied &&
            replication_first_waiter(pool) != NULL)
            must(pool->idle_count == 0);
        check_replication(pool);
        check_sharing(pool);
        /* What waits is asked for, elsewhere too. */
        if (!pool_is_stopped(pool) && !pool->is_retired && shard_has_siblings(pool->set) &&
            pool->waiting_count > pool->tested_count)
            must(pool->asked_count >= pool->waiting_count - pool->tested_count ||
                 atomic_load(&pool->shard->is_poked)); /* by one that has only just come */
        must(atomic_load(&pool->shard->wanted) <= (int)pool->asked_count);
        must(atomic_load(&pool->shard->wanted) <=
             (int)MAX(pool->waiting_count, (unsigned)pool->sharing.wants_server));
        must(atomic_load(&pool->shard->idle_count) == pool->idle_count || worker_count == 1);
        must(atomic_load(&pool->shard->server_count) == pool->server_count);
    }
    for (uint32_t index = 0; index < core->servers.touched_count; index++) {
        const struct server *server = slab_at(&core->servers, index);

        open_servers += server->state > SERVER_FREE && server->state < SERVER_CLOSING;
    }
    must(servers == open_servers);
    check_peers(core);
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        const struct client *client = slab_at(&core->clients, index);

        if (client->state == CLIENT_ACTIVE || client->state == CLIENT_PREPARING)
            must(client->server->client == client);
    }
}

/* What lending promises, seen from the core that has servers.
 *
 * 1. What is hungry when its turn begins has poked it before: when its turn ends, it has nothing idle
 *    left, or nobody wants it any more. With check_doorbells that is the bound of two hops.
 * 2. Of those whom it serves itself none may have come LENDING_PASS_OVER_US later than somebody who
 *    waits elsewhere; it may take LENDING_COMPARE_US until it sees that. */
struct before {
    const struct pool *pool;
    uint64_t hungry;
    uint64_t lent_total;
    uint64_t oldest_us, oldest_id; /* the first waiter of all others that was promised nothing */
    struct {
        uint64_t id, since_us;
    } waiters[USERS_MAX];
    unsigned waiter_count;
};

static struct before befores[DATABASES * LOGINS];
static unsigned before_count;
/* Since when a core passes somebody over, and whom. */
static struct passing {
    uint64_t id, oldest_us; /* of one wait of one client */
    uint64_t since_us;
} passings[WORKERS_SIM_MAX][DATABASES][LOGINS];

static uint64_t hungry_others(const struct pool *pool)
{
    uint64_t bits = 0;

    for (unsigned k = 0; k < worker_count; k++)
        if (k != pool->shard_index && atomic_load(&pool->set->shards[k].wanted) > 0)
            bits |= UINT64_C(1) << k;
    return bits;
}

static void note_lending(const struct core *core)
{
    before_count = 0;
    list_for_each(link, &core->pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);
        struct before *before = &befores[before_count++];

        *before = (struct before){.pool = pool,
                                  .hungry = hungry_others(pool),
                                  .lent_total = pool->lent_total,
                                  .oldest_us = UINT64_MAX};
        for (unsigned k = 0; k < worker_count; k++) {
            const struct pool *other = pool->set->shards[k].pool;
            const struct client *first;

            if ((before->hungry >> k & 1) == 0 || list_is_empty(&other->waiting_clients) ||
                (int)other->asked_count > atomic_load(&other->shard->wanted))
                continue;
            first = OWNER_OF(list_front(&other->waiting_clients), struct client, link);
            if (first->wait_since_us < before->oldest_us) {
                before->oldest_us = first->wait_since_us;
                before->oldest_id = first->id;
            }
        }
        list_for_each(waiter, &pool->waiting_clients)
        {
            const struct client *client = OWNER_OF(waiter, struct client, link);

            before->waiters[before->waiter_count].id = client->id;
            before->waiters[before->waiter_count++].since_us = client->wait_since_us;
        }
    }
}

static const struct client *client_by_id(const struct core *core, uint64_t id)
{
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        const struct client *client = slab_at(&core->clients, index);

        if (client->state > CLIENT_FREE && client->state < CLIENT_CLOSING && client->id == id)
            return client;
    }
    /* One that runs auth_query belongs to the core of its login; only the lists know it. */
    list_for_each(link, &core->pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);
        const struct list *lists[] = {&pool->waiting_clients, &pool->active_clients};

        for (size_t i = 0; i < COUNT_OF(lists); i++)
            list_for_each(place, lists[i])
            {
                const struct client *client = OWNER_OF(place, struct client, link);

                if (client->is_auth_query && client->id == id)
                    return client;
            }
    }
    return NULL;
}

static void check_passing(const struct core *core, const struct before *before)
{
    const struct pool *pool = before->pool;
    struct passing *passing =
        &passings[core->index][database_index(pool->database_name)][login_index(pool->user_name)];
    bool passes = false;
    /* Who was promised a server may lose it again (it ends on its way): that is another wait. */
    bool is_over = before->oldest_us == UINT64_MAX || pool->lent_total != before->lent_total ||
                   !list_is_empty(&pool->lending_servers) || hungry_others(pool) == 0;

    if (is_over || passing->id != before->oldest_id || passing->oldest_us != before->oldest_us)
        *passing = (struct passing){
            .id = before->oldest_id, .oldest_us = before->oldest_us, .since_us = UINT64_MAX};
    if (is_over)
        return;
    for (unsigned i = 0; i < before->waiter_count; i++) {
        const struct client *client = client_by_id(core, before->waiters[i].id);

        passes = passes || (client != NULL && client->server != NULL &&
                            before->waiters[i].since_us > before->oldest_us + LENDING_PASS_OVER_US);
    }
    if (!passes)
        return;
    passing->since_us = MIN(passing->since_us, core->loop.now_us);
    world.passed_over++;
    must(core->loop.now_us - passing->since_us <= LENDING_COMPARE_US);
}

/* First in, first out within a shard: nobody was served before somebody who waited longer and still
 * does. */
static void check_order(const struct core *core, const struct before *before)
{
    bool somebody_waits = false;

    for (unsigned i = 0; i < before->waiter_count; i++) {
        const struct client *client = client_by_id(core, before->waiters[i].id);

        if (client == NULL)
            continue;
        if (client->state == CLIENT_WAITING && client->wait_since_us == before->waiters[i].since_us)
            somebody_waits = true;
        else if (client->server != NULL)
            must(!somebody_waits);
    }
}

static void check_lending(const struct core *core)
{
    list_for_each(link, &core->pool_list)
    {
        const struct pool *pool = OWNER_OF(link, struct pool, link);
        const struct before *before = befores;

        while (before < befores + before_count && before->pool != pool)
            before++;
        if (before == befores + before_count)
            continue;
        world.lent += pool->lent_total - before->lent_total;
        check_order(core, before);
        if (!pool_is_stopped(pool) && !pool->is_retired &&
            (before->hungry & hungry_others(pool)) != 0)
            must(pool->idle_count == 0);
        check_passing(core, before);
    }
}

/* The counts that the shards of a pool share are the sums of their own. Servers on their way from one
 * to another stand on neither. */
static void check_sets(unsigned database)
{
    int servers_of_database = 0;

    for (unsigned j = 0; j < LOGINS; j++) {
        const struct shard_set *set = sets[database][j];
        unsigned servers = 0, logins = 0, ready = 0, lent = 0, alive = 0;

        for (unsigned k = 0; k < worker_count; k++) {
            const struct pool *pool = set->shards[k].pool;

            if (pool == NULL)
                continue;
            alive++;
            servers += pool->server_count;
            logins += pool->login_count;
            ready += pool->server_count - pool->login_count - replication_servers(pool);
            lent += pool->lent_count;
        }
        must(atomic_load(&set->pool_count) == alive);
        must(usage_count(&set->login_count) == (int)logins);
        must(usage_count(&set->server_count) >= (int)servers);
        must(usage_count(&set->server_count) <= (int)(servers + lent));
        must(usage_count(&set->ready_count) >= (int)ready);
        must(usage_count(&set->ready_count) <= (int)(ready + lent));
        must(usage_count(&set->server_count) <= limits.pool_servers[database][j]);
        servers_of_database += usage_count(&set->server_count);
    }
    must(servers_of_database == usage_count(&database_usage[database]->server_count));
}

/* Its clients that are none: they run auth_query. */
static unsigned lookups_of(const struct pool *pool)
{
    const struct list *lists[] = {&pool->waiting_clients, &pool->active_clients};
    unsigned count = 0;

    for (size_t i = 0; i < COUNT_OF(lists); i++)
        list_for_each(link, lists[i]) count += OWNER_OF(link, struct client, link)->is_auth_query;
    return count;
}

/* What must hold over all cores together. */
static void check_limits(void)
{
    int pool_servers[DATABASES][LOGINS] = {0};
    int database_servers[DATABASES] = {0}, user_servers[LOGINS] = {0};
    int clients = 0;

    for (unsigned i = 0; i < worker_count; i++)
        list_for_each(link, &members[i].worker.core.pool_list)
        {
            const struct pool *pool = OWNER_OF(link, struct pool, link);
            unsigned database = database_index(pool->database_name);
            unsigned login = login_index(pool->user_name);
            int count = (int)pool->server_count;

            pool_servers[database][login] += count;
            database_servers[database] += count;
            user_servers[login] += count;
            clients += (int)(pool->client_count - lookups_of(pool));
        }
    must(clients <= limits.clients);
    for (unsigned i = 0; i < DATABASES; i++) {
        const struct usage *database = database_usage[i];

        for (unsigned j = 0; j < LOGINS; j++)
            must(pool_servers[i][j] <= limits.pool_servers[i][j]);
        must(database_servers[i] <= limits.database_servers[i]);
        must(database_servers[i] <= usage_count(&database->server_count));
        check_sets(i);
        must(usage_count(&database->server_count) <= limits.database_servers[i]);
        must(usage_count(&database->client_count) <= limits.database_clients[i]);
    }
    for (unsigned i = 0; i < LOGINS; i++) {
        const struct usage *user = user_usage[i];

        must(user_servers[i] <= limits.user_servers[i]);
        must(user_servers[i] <= usage_count(&user->server_count));
        must(usage_count(&user->server_count) <= limits.user_servers[i]);
        must(usage_count(&user->client_count) <= limits.user_clients[i]);
    }
}

/* Whoever sleeps over a letter has been rung. */
static void check_doorbells(void)
{
    for (unsigned i = 0; i < worker_count; i++) {
        const struct member *member = &members[i];

        if (member->is_waiting && atomic_load(&member->worker.mailbox.last) != NULL)
            must(member->deadline_us == 0 || sim_is_rung(member->worker.ring));
    }
}

static bool names_are_home(const struct core *core)
{
    for (uint32_t index = 0; index < core->names.touched_count; index++) {
        const struct host_name *name = slab_at(&core->names, index);

        if (name->in_flight || !list_is_empty(&name->waiters))
            return false;
    }
    return true;
}

/* Everything has come home. */
static void check_home(void)
{
    for (unsigned i = 0; i < worker_count; i++) {
        const struct core *core = &members[i].worker.core;

        must(core->loop.conn_count == 0);
        must(core->clients.used_count == 0);
        must(core->logins.used_count == 0);
        must(core->auth_queries.used_count == 0);
        must(list_is_empty(&core->auth_queries_over));
        must(core->servers.used_count == 0);
        must(core->server_logins.used_count == 0);
        must(core->cancels.used_count == 0);
        must(core->shared.used_count == 0);
        must(names_are_home(core));
        must(core->loop.spans.used_count == 0);
        must(core->loop.tls.used_count == 0);
        must(core->tls_handshakes.used_count == 0);
        must(core->statements.statements.used_count == 0);
        must(core->statements.client_statements.used_count == 0);
        must(core->statements.server_statements.used_count == 0);
        must(core->statements.short_names.used_count == 0);
        must(core->statements.long_names.used_count == 0);
        must(core->statements.prepared.used_count == 0);
        must(core->statements.expectations.used_count == 0);
        must(core->statements.text_bytes == 0);
        must(list_is_empty(&core->login_list));
        must(list_is_empty(&core->cancel_list));
    }
    for (unsigned i = 0; i < DATABASES; i++) {
        must(usage_count(&database_usage[i]->server_count) == 0);
        must(usage_count(&database_usage[i]->client_count) == 0);
        for (unsigned j = 0; j < LOGINS; j++) {
            const struct shard_set *set = sets[i][j];

            must(usage_count(&set->server_count) == 0);
            must(usage_count(&set->login_count) == 0);
            must(usage_count(&set->ready_count) == 0);
            must(atomic_load(&set->hungry) == 0);
            for (unsigned k = 0; k < worker_count; k++) {
                must(atomic_load(&set->shards[k].wanted) == 0);
                must(atomic_load(&set->shards[k].client_count) == 0);
                must(!atomic_load(&set->shards[k].is_poked));
            }
        }
    }
    for (unsigned i = 0; i < LOGINS; i++) {
        must(usage_count(&user_usage[i]->server_count) == 0);
        must(usage_count(&user_usage[i]->client_count) == 0);
    }
    must(usage_count(&usage.client_count) == 0);
    must(sim_started_ops(world.sim) == 0);
    must(sim_open_fds(world.sim) == 0);
    must(tls_session_count() == 0);
}

/* ---- what is reached ---- */

/* What the seeds together have to reach. */
enum {
    REACH_SHARED,
    REACH_JOINED,
    REACH_DEEP,
    REACH_LOST,
    REACH_CANCELED,
    REACH_ALONE,
    REACH_MOVED,
    REACH_SET,
    REACH_IN_FLIGHT,
    REACH_SET_BETWEEN,
    REACH_QUEUE_CANCELED,
    REACH_SIGNAL_LATE,
    REACH_SIGNAL_NEIGHBOUR,
    REACH_WILD,
    REACH_SET_FAILED,
    REACH_REFUSED,
    REACH_APART = REACH_REFUSED + REFUSED_KINDS,
    REACHES = REACH_APART + APART_KINDS,
};

static const char *const reach_names[REACHES + 1] = {
    [REACH_SHARED] = "exchanges that share",
    [REACH_JOINED] = "behind others",
    [REACH_DEEP] = "behind five or more",
    [REACH_LOST] = "asked again, their server was lost",
    [REACH_CANCELED] = "asked again, hit by a neighbour's cancel request",
    [REACH_ALONE] = "asked again in the ordinary way",
    [REACH_MOVED] = "asked again, what was in front took long",
    [REACH_SET] = "SET queued between exchanges",
    [REACH_IN_FLIGHT] = "PostgreSQL got them while others' were not answered",
    [REACH_SET_BETWEEN] = "the same of SET",
    [REACH_QUEUE_CANCELED] = "cancelled in the queue",
    [REACH_SIGNAL_LATE] = "cancel requests that arrived after their connection had ended",
    [REACH_WILD] = "answers that make no sense",
    [REACH_SET_FAILED] = "SET refused",
    [REACH_SIGNAL_NEIGHBOUR] = "cancel requests that hit somebody else",
    [REACH_REFUSED + REFUSED_PIECES] = "refused: pieces",
    [REACH_REFUSED + REFUSED_NO_READ] = "refused: no read",
    [REACH_REFUSED + REFUSED_KEYWORD] = "refused: keyword",
    [REACH_REFUSED + REFUSED_FUNCTION] = "refused: function",
    [REACH_REFUSED + REFUSED_SEVERAL] = "refused: several",
    [REACH_REFUSED + REFUSED_DOUBT] = "refused: doubt",
    [REACH_REFUSED + REFUSED_BATCH] = "refused: batch",
    [REACH_REFUSED + REFUSED_STATEMENT] = "refused: statement",
    [REACH_REFUSED + REFUSED_CLIENT] = "refused: client",
    [REACH_APART + APART_UNKNOWN] = "apart: unknown",
    [REACH_APART + APART_SLOW] = "apart: slow",
    [REACH_APART + APART_ERRATIC] = "apart: erratic",
    [REACH_APART + APART_RUNS_LONG] = "apart: runs long",
    [REACH_APART + APART_DEPTH] = "apart: depth",
    [REACH_APART + APART_PARAMETERS] = "apart: parameters",
    [REACH_APART + APART_NEEDED] = "apart: needed",
};

/* Pools come and go: what has been added in a turn. */
static void count_sharing(const struct pool *pool)
{
    static struct {
        const struct pool *pool;
        struct sharing_stats stats;
    } seen[WORKERS_SIM_MAX][DATABASES][LOGINS];
    const struct sharing_stats *now = &pool->sharing.stats;
    unsigned database = database_index(pool->database_name), login = login_index(pool->user_name);
    struct sharing_stats *before = &seen[pool->core->index][database][login].stats;

    if (now->shared_count < before->shared_count ||
        pool != seen[pool->core->index][database][login].pool)
        *before = (struct sharing_stats){0};
    seen[pool->core->index][database][login].pool = pool;
    harness_count(REACH_SHARED, now->shared_count - before->shared_count);
    harness_count(REACH_JOINED, now->joined_count - before->joined_count);
    harness_count(REACH_DEEP, now->depth_max >= 5 && before->depth_max < 5);
    harness_count(REACH_LOST, now->again_lost - before->again_lost);
    harness_count(REACH_CANCELED, now->again_canceled - before->again_canceled);
    harness_count(REACH_ALONE, now->again_alone - before->again_alone);
    harness_count(REACH_MOVED, now->again_moved - before->again_moved);
    harness_count(REACH_SET, now->set_count - before->set_count);
    for (unsigned k = 0; k < REFUSED_KINDS; k++)
        harness_count(REACH_REFUSED + k, now->refused[k] - before->refused[k]);
    for (unsigned k = 0; k < APART_KINDS; k++)
        harness_count(REACH_APART + k, now->apart[k] - before->apart[k]);
    *before = *now;
}

/* ---- the workers ---- */

static void give_random(void *out, size_t bytes)
{
    uint8_t *at = out;

    while (bytes-- > 0)
        *at++ = (uint8_t)sim_random(world.sim);
}

/* In most of the chaos nothing is answered in a time that others may wait for: so the cores believe that it
 * is, again and again. */
static void teach(struct core *core)
{
    list_for_each(link, &core->pool_list)
    {
        struct pool *pool = OWNER_OF(link, struct pool, link);

        if (pool->sharing.times == NULL || !happens(4))
            continue;
        for (size_t i = 0; i < COUNT_OF(pool->sharing.times->slots); i++) {
            struct statement_time *time = &pool->sharing.times->slots[i];

            if (time->hash == 0)
                continue;
            for (unsigned k = 0; k < 8; k++)
                statement_times_note(time, 20 + sim_below(world.sim, 20), true, true);
            time->follow = FOLLOW_YES;
        }
    }
}

/* Queues that nothing may join any more, before a turn: the newest of each. */
static struct {
    const struct server *server;
    uint64_t id, since_us;
    const struct shared *newest;
} closed_queues[128];
static unsigned closed_count;

static const struct shared *newest_of(const struct server *server)
{
    return OWNER_OF(list_back(&server->shared), struct shared, link);
}

static void note_closed_queues(const struct core *core)
{
    closed_count = 0;
    for (uint32_t index = 0; index < core->servers.touched_count; index++) {
        const struct server *server = slab_at(&core->servers, index);

        if (server->state != SERVER_SHARED || !server->is_queue_closed ||
            closed_count == COUNT_OF(closed_queues))
            continue;
        closed_queues[closed_count].server = server;
        closed_queues[closed_count].id = server->id;
        closed_queues[closed_count].since_us = server->state_since_us;
        closed_queues[closed_count++].newest = newest_of(server);
    }
}

static void check_closed_queues(void)
{
    for (unsigned i = 0; i < closed_count; i++) {
        const struct server *server = closed_queues[i].server;

        if (server->state != SERVER_SHARED || server->id != closed_queues[i].id ||
            server->state_since_us != closed_queues[i].since_us)
            continue;
        /* It leaves last: if it has left, that is another queue. */
        list_for_each(link, &server->shared) if (OWNER_OF(link, struct shared, link) ==
                                                 closed_queues[i].newest)
            must(newest_of(server) == closed_queues[i].newest);
    }
}

/* Exchanges that went the ordinary way after they had shared, so far. */
static unsigned long long again_alone(const struct core *core)
{
    unsigned long long count = 0;

    list_for_each(link, &core->pool_list) count +=
        OWNER_OF(link, const struct pool, link)->sharing.stats.again_alone;
    return count;
}

static void note_stakes(struct member *member)
{
    const struct core *core = &member->worker.core;
    unsigned long long before = member->again_alone;
    bool some_went;

    member->again_alone = again_alone(core);
    some_went = member->again_alone != before;
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        const struct client *client = slab_at(&core->clients, index);
        const struct shared *shared;
        unsigned owner;

        if (client->state < CLIENT_IDLE || client->state > CLIENT_CLOSING || client->is_auth_query)
            continue;
        owner = users_find_key(client->key);
        if (client->state == CLIENT_CLOSING) {
            /* It may have gone the ordinary way in this very turn, and lost its server there. */
            if (some_went)
                world.at_stake[owner].is_shared = false;
            continue;
        }
        shared = client->shared;
        world.at_stake[owner].is_shared =
            shared != NULL && !shared->has_begun && shared->wanted_shape == 0;
        world.at_stake[owner].losses =
            shared != NULL ? (uint8_t)(shared->lost_count + shared->crashed_count) : 0;
    }
}

static void member_step(struct member *member)
{
    struct worker *worker = &member->worker;

    if (world.is_chaos) {
        if (member->late_until_us > world_now_us())
            return;
        if (happens(300)) {
            member->late_until_us =
                world_now_us() + sim_below(world.sim, world.is_mild ? 2000 : 20000);
            return;
        }
    }
    if (!member->is_waiting) {
        member->deadline_us = worker_wait_until(worker);
        member->is_waiting = true;
        if (world.is_chaos && happens(3))
            return;
    }
    if (!sim_would_return(worker->ring, member->deadline_us))
        return;
    member->is_waiting = false;
    turning = (int)(member - members);
    note_lending(&worker->core);
    note_closed_queues(&worker->core);
    world_log("worker %d turns", turning);
    worker_turn(worker, member->deadline_us);
    turning = -1;
    check_core(&worker->core);
    check_limits();
    check_lending(&worker->core);
    check_closed_queues();
    note_stakes(member);
    list_for_each(link, &worker->core.pool_list) count_sharing(OWNER_OF(link, struct pool, link));
    if (world.teaches)
        teach(&worker->core);
}

static void members_step(void)
{
    unsigned first = (unsigned)sim_below(world.sim, worker_count);

    for (unsigned i = 0; i < worker_count; i++) {
        member_step(&members[(first + i) % worker_count]);
        check_doorbells();
    }
}

static void start_workers(uint32_t receive_buffer_bytes, uint32_t receive_buffer_count_max)
{
    static const uint8_t mock_key[32] = {1};
    char error[RING_ERROR_BYTES];

    for (unsigned i = 0; i < worker_count; i++) {
        struct member *member = &members[i];
        struct worker_listener listener;
        struct worker_options options = {
            .index = i,
            .count = worker_count,
            .workers = workers,
            .snapshot = snapshot,
            .usage = &usage,
            .shards = &shards,
            .param_names = &param_names,
            .mock_key = mock_key,
            .client_count_max = CLIENTS_OF_WORKER_MAX,
            .ring_entries = 1u << sim_below(world.sim, 8),
            .ring_completions = 64,
            .receive_buffer_bytes = receive_buffer_bytes,
            .receive_buffer_count_max = receive_buffer_count_max,
            .listeners = &listener,
            .listener_count = 1,
            .post_control = post_control,
            .post_job = post_job,
            .random = give_random,
            .resolver_open = resolver_opens,
            .console_open = console_opens,
        };

        memset(member, 0, sizeof(*member));
        listener = (struct worker_listener){
            .fd = sim_listen(world.sim, (struct sockaddr *)&world.listen_address,
                             sizeof(world.listen_address))};
        snapshot_reference(snapshot);
        workers[i] = &member->worker;
        assert(worker_init(&member->worker, &options, world_now_us(), error));
        /* In the chaos there may be no room for those who come from another core. */
        if (world.is_crowded)
            member->worker.core.clients.count_max = 1 + (uint32_t)sim_below(world.sim, 6);
        if (world.has_tls && (world.is_crowded || happens(6))) {
            world.has_dropped = true;
            member->worker.core.tls_handshakes.count_max = 1 + (uint32_t)sim_below(world.sim, 8);
            member->worker.core.loop.tls.count_max = 1 + (uint32_t)sim_below(world.sim, 5);
        }
    }
}

/* ---- the whole ---- */

static void log_line(enum log_level level, const char *text, size_t bytes)
{
    world_log("worker %d: %s %.*s", turning, log_level_name(level), (int)bytes, text);
}

static void no_log(enum log_level level, const char *text, size_t bytes)
{
    (void)level;
    (void)text;
    (void)bytes;
}

static bool cores_are_empty(void)
{
    for (unsigned i = 0; i < worker_count; i++)
        if (members[i].worker.core.clients.used_count > 0 ||
            members[i].worker.core.logins.used_count > 0)
            return false;
    return true;
}

static bool conns_are_gone(void)
{
    for (unsigned i = 0; i < worker_count; i++)
        if (members[i].worker.core.loop.conn_count > 0 || members[i].worker.listeners[0].fd >= 0 ||
            atomic_load(&members[i].worker.mailbox.last) != NULL)
            return false;
    return !control_is_busy() && question_count == 0 && sim_open_fds(world.sim) == 0;
}

static bool letters_are_read(void)
{
    for (unsigned i = 0; i < worker_count; i++)
        if (atomic_load(&members[i].worker.mailbox.last) != NULL)
            return false;
    return true;
}

static bool all_is_done(void)
{
    return users_are_done() && vandals_are_done() && strays_are_done() && cores_are_empty() &&
           !control_is_busy();
}

/* Nobody has done anything: if nobody can, it gets as late as somebody waits for. */
static void jump(void)
{
    uint64_t world_us = MIN(MIN(sessions_next_us(), users_next_us()), strays_next_us());
    uint64_t next_us = MIN(sim_next_us(world.sim), world_us);
    uint64_t now_us = world_now_us();

    if (sim_has_work(world.sim))
        return;
    for (unsigned i = 0; i < worker_count; i++) {
        if (!members[i].is_waiting)
            return;
        next_us = MIN(next_us, members[i].deadline_us);
    }
    for (unsigned i = 0; i < job_count; i++)
        next_us = MIN(next_us, jobs[i].due_us);
    for (unsigned i = 0; i < question_count; i++)
        next_us = MIN(next_us, questions[i].due_us);
    next_us = MIN(next_us, dns_next_us(&dns));
    for (unsigned i = 0; i < visit_count; i++)
        next_us = MIN(next_us, visits[i].due_us);
    if (next_us != UINT64_MAX && next_us > now_us)
        sim_advance(world.sim, MIN(next_us - now_us, US_PER_S));
}

static void round_step(void)
{
    users_step();
    vandals_step();
    strays_step();
    sessions_step();
    control_step();
    members_step();
}

/* Until `is_over`, with a bound; a stall is told apart from slowness. */
static void run_until(bool (*is_over)(void), unsigned step_us, const char *what)
{
    uint64_t last_trace = 0;
    unsigned idle_rounds = 0;

    for (unsigned round = 0; !is_over(); round++) {
        round_step();
        sim_advance(world.sim, step_us);
        idle_rounds = sim_trace(world.sim) == last_trace ? idle_rounds + 1 : 0;
        if (idle_rounds > 0)
            jump();
        last_trace = sim_trace(world.sim);
        if (idle_rounds == IDLE_ROUNDS_MAX || round == DRAIN_ROUNDS_MAX)
            failed(what);
    }
}

/* Handshakes do not count: there are always some while clients come and go. */
static bool control_is_idle(void)
{
    unsigned handshakes = 0;

    for (unsigned i = 0; i < job_count; i++)
        handshakes += jobs[i].job->kind == JOB_TLS_ACCEPT || jobs[i].job->kind == JOB_TLS_CONNECT;
    /* With so many clients there are always passwords, too. */
    return request_count == 0 && visit_count == 0 &&
           (world.has_sharing || job_count == handshakes) &&
           atomic_load(&control_mailbox.last) == NULL;
}

static void explain(void)
{
    users_explain();
    vandals_explain();
    strays_explain();
    sessions_explain();
    for (unsigned i = 0; i < worker_count; i++) {
        const struct member *member = &members[i];
        const struct core *core = &member->worker.core;

        fprintf(stderr,
                "worker %u: waiting %d (until %llu, now %llu), letters %d, rung %d; clients %u, "
                "logins %u, conns %llu, paused %d\n",
                i, member->is_waiting, (unsigned long long)member->deadline_us,
                (unsigned long long)world_now_us(),
                atomic_load(&member->worker.mailbox.last) != NULL, sim_is_rung(member->worker.ring),
                core->clients.used_count, core->logins.used_count,
                (unsigned long long)core->loop.conn_count, core->is_paused);
        list_for_each(link, &core->pool_list)
        {
            const struct pool *pool = OWNER_OF(link, struct pool, link);

            if (pool->sharing.server_count + pool->sharing.waiting_count > 0)
                fprintf(stderr,
                        "  pool %s/%s shares %u servers (limit %u, on %d), %u queued, %u waiting\n",
                        pool->database_name, pool->user_name, pool->sharing.server_count,
                        pool->sharing.policy.limit, pool->sharing.is_on, pool->sharing.queued_count,
                        pool->sharing.waiting_count);
            fprintf(
                stderr,
                "  pool %s/%s: %u servers, %u idle, %u login, %u tested; %u clients, %u "
                "waiting, %u welcome, %u replication; wanted %d, asked %u, lent %u, starved %d%s\n",
                pool->database_name, pool->user_name, pool->server_count, pool->idle_count,
                pool->login_count, pool->tested_count, pool->client_count, pool->waiting_count,
                pool->welcome_count, pool->replication_count, atomic_load(&pool->shard->wanted),
                pool->asked_count, pool->lent_count, pool->is_starved,
                pool_is_stopped(pool) ? ", stopped" : "");
        }
        for (uint32_t index = 0; index < core->servers.touched_count; index++) {
            const struct server *server = slab_at(&core->servers, index);

            if (server->state == SERVER_FREE || server->state >= SERVER_STATES)
                continue;
            fprintf(stderr,
                    "  server %u: state %d, shared %u, closed %d, status %c, client %d, runs %u "
                    "(kind %u x %u), copy in "
                    "%d, queued %u, receive %d, wanted %d, body left %u\n",
                    index, server->state, server->shared_count, server->is_queue_closed,
                    server->status, server->client != NULL, server->exchange.run_count,
                    server->exchange.runs[0].kind, server->exchange.runs[0].count,
                    server->exchange.in_copy_in, server->conn.out.bytes,
                    server->conn.receive_op.started, server->conn.receive_wanted,
                    server->frame.body_left);
        }
    }
    fprintf(stderr, "control: %u jobs, %u visits, busy %d; sessions %u, descriptors %u\n%s",
            job_count, visit_count, control_is_busy(), sessions_count(), sim_open_fds(world.sim),
            config_text);
}

static void begin_tls(uint64_t seed)
{
    world.demands_client_tls = happens(3);
    world.demands_server_tls = happens(3);
    world.servers_speak_tls = world.demands_server_tls || !happens(4);
    wire_begin(seed);
}

/* Draws what the seed is like. */
static void begin(uint64_t seed)
{
    static char storage[256];
    static const char *const modes[] = {"transaction", "session", "statement"};
    static const unsigned prepared_max[] = {0, 1, 2, 5, 200};
    struct ring_options control_options = {
        .entries = 8, .completion_entries = 64, .buffers = &control_buffers};
    static const struct dns_ports dns_ports = {
        .ask = dns_asks, .reply = dns_replies, .changed = host_has_changed};
    char error[RING_ERROR_BYTES];
    struct sim_faults faults;

    world.sim = sim_create(seed);
    world_begin();
    log_set_sink(world.is_logged ? log_line : no_log);
    log_set_level(world.is_logged ? LEVEL_NOISE : LEVEL_WARNING);
    sim_draw_faults(world.sim, &faults);
    if (happens(2))
        faults.reset = 0;
    sim_set_faults(world.sim, &faults);
    world.pipe_bytes = 128u << sim_below(world.sim, 10);
    sim_set_pipe_bytes(world.sim, world.pipe_bytes);
    world.reads_are_whole = faults.split == 0 && world.pipe_bytes >= 256;
    world.users_break = happens(2);
    world.servers_break = happens(2);
    world.is_sleepy = happens(4);
    control_acts = happens(2);
    control_drops = happens(4);
    fixed_mode = happens(2) ? modes[sim_below(world.sim, COUNT_OF(modes))] : NULL;
    world.has_sharing = seed % SHARING_SEEDS < SHARING_SEEDS - 2; /* not drawn, as below */
    world.is_mild = world.has_sharing && !happens(3);
    if (world.is_mild) {
        faults.connect_hangs = 0;
        faults.split /= 1u << sim_below(world.sim, 10);
        faults.delay /= 4;
        faults.cancel_late /= 2;
        faults.connect_refused /= 4;
        sim_set_faults(world.sim, &faults);
        world.pipe_bytes = 4096u << sim_below(world.sim, 5);
        sim_set_pipe_bytes(world.sim, world.pipe_bytes);
        fixed_mode = happens(8) ? fixed_mode : "transaction";
    }
    world.is_session_mode = fixed_mode != NULL && strcmp(fixed_mode, "session") == 0;
    world.has_replication = seed % 3 == 0; /* not drawn: what other seeds have found stays found */
    if (world.has_sharing) {
        world.teaches = !happens(world.is_mild ? 8 : 3);
        world.is_alike = happens(2);
        world.is_pure = happens(world.is_mild ? 2 : 3);
        world.breaks_often = happens(2);
        world.is_sleepy = world.is_sleepy || happens(3);
    }
    world.is_shared_mode = fixed_mode != NULL && !world.is_session_mode;
    world.prepared_max = prepared_max[sim_below(world.sim, COUNT_OF(prepared_max))];
    world.is_tracked = world.is_shared_mode && world.prepared_max > 0;
    world.may_track = !world.is_session_mode && world.prepared_max > 0;
    world.caches_unnamed = happens(2);
    world.avoids_known = world.may_track && getenv("SIM_KNOWN") == NULL;
    world.has_names = world.is_session_mode || world.is_tracked;
    world.changes_schema = happens(3);
    world.heals = !happens(3);
    world.rounds_of_schema = happens(2) ? 40 : 200;
    world.loses_statements = world.is_tracked && happens(4);
    world.changes_peer_id = happens(3);
    world.was_standby = happens(2);
    world.is_crowded = happens(8) && !world.is_mild;
    world.has_dropped = world.is_crowded;
    draw_accounts();
    world.has_tls = seed % TLS_SEEDS == 0; /* as above */
    if (world.has_tls)
        begin_tls(seed);

    turning = -1;
    memset(passings, 0, sizeof(passings));
    limits = (struct limits){0};
    worker_count = 1 + (unsigned)sim_below(world.sim, WORKERS_SIM_MAX);
    if (world.has_sharing &&
        (happens(2) || (world.is_mild && happens(2)))) /* so that clients meet */
        worker_count = 1;
    job_count = visit_count = question_count = 0;
    addresses_of_name = 3;
    names_fail = !world.is_mild;
    zone_serial = 1;
    requests_init(&requests, worker_count, post_request, NULL);
    request_count = 0;
    mailbox_init(&control_mailbox);
    assert(buffer_pool_init(&control_buffers, 256, 1));
    control_ring = ring_create(&control_options, error);
    assert(control_ring != NULL);
    assert(usage_table_init(&usage));
    assert(shard_table_init(&shards, worker_count));
    for (unsigned i = 0; i < DATABASES; i++)
        for (unsigned j = 0; j < LOGINS; j++)
            sets[i][j] = shard_set_find(&shards, databases[i].name, login_names[j].name);
    for (unsigned i = 0; i < DATABASES; i++)
        database_usage[i] = usage_find(&usage, USAGE_DATABASE, databases[i].name);
    for (unsigned i = 0; i < LOGINS; i++)
        user_usage[i] = usage_find(&usage, USAGE_USER, login_names[i].name);
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    world.listen_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(6432)};
    snapshot = make_snapshot(true);
    dns_init(&dns, &dns_ports, NULL, &snapshot->settings, world_now_us());
    start_workers(256u << sim_below(world.sim, 6), 16u << sim_below(world.sim, 4));
    sessions_begin();
    strays_begin();
    users_begin(world.has_sharing ? 4 + (unsigned)sim_below(world.sim, USERS_MAX - 3)
                                  : 1 + (unsigned)sim_below(world.sim, USERS_FEW));
    world_log("seed %llu: %u workers, auth %s\n%s", (unsigned long long)seed, worker_count,
              auth_type, config_text);
}

static bool no_cancel_is_open(void)
{
    for (unsigned i = 0; i < worker_count; i++)
        if (workers[i]->core.cancels.used_count > 0)
            return false;
    return true;
}

/* Faults stop, orders are taken back. */
static void calm_down(void)
{
    sim_set_faults(world.sim, &(struct sim_faults){0});
    control_acts = false;
    world.servers_break = world.is_sleepy = false;
    for (unsigned i = 0; i < worker_count; i++) {
        struct core *core = &workers[i]->core;

        core->clients.count_max = CLIENTS_OF_WORKER_MAX;
        core->tls_handshakes.count_max = 2 * CLIENTS_OF_WORKER_MAX;
        core->loop.tls.count_max = core->loop.spans.count_max;
    }
    sessions_hurry();
    names_fail = false;
    for (unsigned i = 0; i < question_count; i++)
        questions[i].due_us = world_now_us();
    run_until(control_is_idle, 20, "the console's orders are not answered");
    (void)order_command(COMMAND_RESUME, NULL);
    order_reload(true);
    run_until(control_is_idle, 20, "RESUME is not answered");
    for (unsigned i = 0; i < DATABASES; i++) {
        (void)order_command(COMMAND_RESUME, databases[i].name);
        (void)order_command(COMMAND_ENABLE, databases[i].name);
        run_until(control_is_idle, 20, "RESUME or ENABLE is not answered");
    }
    for (unsigned round = 0; round < CALM_ROUNDS; round++) {
        round_step();
        sim_advance(world.sim, 20);
    }
    run_until(sessions_are_well, 20, "a backend does not end");
    run_until(no_cancel_is_open, 1000, "a cancel request does not end");
    sim_advance(world.sim, 100000); /* a failed lookup is forgotten */
}

/* As control does it: SHUTDOWN WAIT_FOR_CLIENTS, WAIT_FOR_SERVERS or TAKEOVER. */
static void shut_down(void)
{
    struct request *request = request_take();

    assert(request != NULL);
    world.is_shut_down = true;
    for (unsigned i = 0; i < worker_count; i++)
        worker_post_stop_listening(workers[i], control_ring, true);
    request->command.kind = COMMAND_SHUTDOWN;
    request->command.shutdown = !happens(2)  ? SHUTDOWN_WAIT_FOR_SERVERS
                                : happens(2) ? SHUTDOWN_WAIT_FOR_CLIENTS
                                             : SHUTDOWN_TAKEOVER;
    world.is_handed_over = request->command.shutdown == SHUTDOWN_TAKEOVER;
    world_log("control shuts down, %d", (int)request->command.shutdown);
    request_command(request);
}

static void count_reached(void)
{
    for (unsigned i = 0; i < worker_count; i++)
        list_for_each(link, &members[i].worker.core.pool_list)
        {
            const struct pool *pool = OWNER_OF(link, struct pool, link);
            const struct sharing_stats *stats = &pool->sharing.stats;

            must(world.has_sharing || stats->shared_count == 0);
            must(pool->sharing.waiting_count == 0);
            must(stats->joined_count <= stats->shared_count + stats->again_lost +
                                            stats->again_canceled + stats->again_alone +
                                            stats->again_moved);
        }
    harness_count(REACH_IN_FLIGHT, world.joined);
    harness_count(REACH_SET_BETWEEN, world.sets_between);
    harness_count(REACH_QUEUE_CANCELED, world.cancelled_in_queue);
    harness_count(REACH_SIGNAL_LATE, world.late_signals);
    harness_count(REACH_SIGNAL_NEIGHBOUR, world.stray_signals);
    harness_count(REACH_WILD, world.wild_answers);
    harness_count(REACH_SET_FAILED, world.failed_sets);
}

static void end(void)
{
    if (!world.is_shut_down)
        for (unsigned i = 0; i < worker_count; i++)
            worker_post_stop_listening(workers[i], control_ring, true);
    for (unsigned i = 0; i < DATABASES; i++)
        assert(order_command(COMMAND_KILL, databases[i].name));
    run_until(conns_are_gone, 1000, "connections do not end");
    sessions_end();
    strays_end();
    vandals_end();
    check_home();
    for (unsigned i = 0; i < worker_count; i++)
        worker_release(workers[i]);
    dns_release(&dns);
    snapshot_release(snapshot);
    if (world.has_tls)
        wire_end();
    ring_destroy(control_ring);
    buffer_pool_release(&control_buffers);
    usage_table_release(&usage);
    shard_table_release(&shards);
    users_end();
}

/* With SIM_VERBOSE=1: what the chaos was good for. */
static void tell_chaos(void)
{
    printf("chaos: mild %d, pure %d, teaches %d, workers %u; answers %llu, transactions %llu, in "
           "flight "
           "behind others %llu, owners %u\n",
           world.is_mild, world.is_pure, world.teaches, worker_count, world.answers,
           world.transactions, world.joined, world.owner_last);
    for (unsigned i = 0; i < worker_count; i++)
        list_for_each(link, &members[i].worker.core.pool_list)
        {
            const struct pool *pool = OWNER_OF(link, struct pool, link);
            const struct sharing_stats *stats = &pool->sharing.stats;

            if (stats->shared_count == 0)
                continue;
            printf("  %s/%s on %d, setting %d, limit %u: shared %llu, joined %llu, lost %llu, hit "
                   "%llu, alone "
                   "%llu, moved %llu, apart",
                   pool->database_name, pool->user_name, pool->sharing.is_on,
                   pool->settings.server_sharing, pool->sharing.policy.limit,
                   (unsigned long long)stats->shared_count, (unsigned long long)stats->joined_count,
                   (unsigned long long)stats->again_lost, (unsigned long long)stats->again_canceled,
                   (unsigned long long)stats->again_alone, (unsigned long long)stats->again_moved);
            for (unsigned k = 0; k < APART_KINDS; k++)
                printf(" %llu", (unsigned long long)stats->apart[k]);
            printf(", refused");
            for (unsigned k = 0; k < REFUSED_KINDS; k++)
                printf(" %llu", (unsigned long long)stats->refused[k]);
            printf("\n");
        }
}

static uint64_t run(uint64_t seed)
{
    unsigned round_us;
    uint64_t trace;

    begin(seed);
    round_us = happens(4) ? 50000 : 300;
    if (world.has_sharing && !happens(4)) /* else nothing is short */
        round_us = 60u << sim_below(world.sim, 4);
    world.is_chaos = true;
    world.order_cancel = order_cancel;
    for (unsigned round = 0; round < (world.is_mild ? 2 : 1) * CHAOS_ROUNDS; round++) {
        round_step();
        sim_advance(world.sim, sim_below(world.sim, round_us));
    }
    if (getenv("SIM_VERBOSE") != NULL)
        tell_chaos();
    calm_down();
    world.is_chaos = false;
    world.chaos_owner_last = world.owner_last;
    if (happens(8))
        shut_down();
    users_finish(world.is_shut_down                         ? 0
                 : world.is_tracked && world.changes_schema ? SCRIPTS_FOR_SCHEMA
                                                            : SCRIPTS_AFTER_CHAOS);
    strays_finish(world.is_shut_down ? 0 : (unsigned)sim_below(world.sim, 8));
    run_until(all_is_done, 20, "not all clients come to their end");
    run_until(letters_are_read, 20, "letters are not read");
    check_welcomes();
    count_reached();
    end();
    sim_note(world.sim, world.answers);
    trace = sim_trace(world.sim);
    if (getenv("SIM_VERBOSE") != NULL)
        printf("answers %llu, transactions %llu, cancels that hit %llu, FATAL %llu, owners %u, "
               "looked up %llu, lent %llu, passed over %llu, strays arrived %llu, parses %llu, "
               "binds %llu, refused %llu, stale %llu, healed %llu; on TLS clients %llu, servers "
               "%llu, cancels %llu\n",
               world.answers, world.transactions, world.cancels_hit, world.fatals, world.owner_last,
               world.looked_up, world.lent, world.passed_over, world.strays_arrived, world.parses,
               world.binds, world.bind_errors, world.stale_errors, world.healed, world.tls_clients,
               world.tls_servers, world.tls_cancels);
    sim_destroy(world.sim);
    /* With another build of the library its bytes are others each time. */
    return world.has_tls && !wire_is_repeatable() ? seed : trace;
}

int main(int argc, char **argv)
{
    harness_names = reach_names;
    return harness_main(argc, argv, run, SEEDS);
}
