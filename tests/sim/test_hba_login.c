/* test_hba_login.c - logins by HBA rules, from everywhere, by everybody, while the rules change, the
 * helpers are slow, full and late, and clients leave at every moment.
 *
 * All ask for databases that do not exist: that is what they hear when they are authenticated, so no
 * PostgreSQL is needed. What a client hears must follow from the rules that were in force at some
 * moment since it came, read by a second, naive matcher; when the faults have stopped, from the
 * rules alone. In the end no job, login, key or buffer is left over. */
#include "harness.h"
#include "sim_jobs.h"

#include "crypto/md5.h"
#include "crypto/scram.h"
#include "pool/client.h"
#include "pool/login.h"
#include "pool/login_auth.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/un.h>

enum {
    USERS = 3, /* u0 .. are known; the next one is not */
    CLIENTS = 10,
    RULES_MAX = 6,
    VERSIONS_MAX = 400,
    BYTES_MAX = 4096,
    CHAOS_ROUNDS = 1200,
    ROUNDS_MAX = 100000,
    LISTENERS = 3,
};

/* ---- the rules, as the test knows them ---- */

static const char *const addresses[] = {
    "all", "0.0.0.0/0", "10.0.0.0/8", "10.1.0.0 255.255.0.0", "127.0.0.1/32", "::/0", "fd00::/16"};

/* From a family and the first two bytes of a client's address. */
static bool address_has(unsigned address, int family, const uint8_t *bytes)
{
    switch (address) {
    case 0:
        return true;
    case 1:
        return family == AF_INET;
    case 2:
        return family == AF_INET && bytes[0] == 10;
    case 3:
        return family == AF_INET && bytes[0] == 10 && bytes[1] == 1;
    case 4:
        return family == AF_INET && bytes[0] == 127;
    case 5:
        return family == AF_INET6;
    default:
        return family == AF_INET6 && bytes[0] == 0xfd;
    }
}

static const char *const methods[] = {
    "trust",         "reject", "md5",  "password",
    "scram-sha-256", "cert",   "peer", "ldap ldapserver=a ldapprefix=\"b \"",
    "peer map=m"};
enum { TRUST, REJECT, MD5, PASSWORD, SCRAM, CERT, PEER, LDAP, PEER_MAP, METHODS, NO_METHOD };

struct made_rule {
    bool is_local;
    unsigned database; /* 0: all, 1: sameuser, 2: d0, 3: d1 */
    unsigned user;     /* USERS + 1: all */
    unsigned address;
    unsigned method;
};

static struct version {
    struct made_rule rules[RULES_MAX];
    unsigned rule_count;
} versions[VERSIONS_MAX];
static unsigned version_count;

/* OS users are called as users are, known or not; map m lets each be the next. The one behind them has
 * no name. */
enum { OS_USERS = USERS + 1 };
static unsigned mapped_user(unsigned uid)
{
    return (uid + 1) % OS_USERS;
}

struct person {
    struct sim_peer *peer;
    uint8_t in[BYTES_MAX], out[BYTES_MAX];
    size_t in_bytes, out_bytes;
    bool is_connected, is_over, came_in_chaos, knows_password;
    unsigned first_version;
    int family;
    uint8_t address[2];
    unsigned uid, user, database; /* 0: d0, 1: d1, 2: as the user */
    char password[32];
    struct scram_client scram;
    unsigned logins_left; /* after the chaos */
};

static bool rule_matches(const struct made_rule *rule, const struct person *person)
{
    if (rule->is_local != (person->family == AF_UNIX))
        return false;
    if (!rule->is_local && !address_has(rule->address, person->family, person->address))
        return false;
    if (rule->user != USERS + 1 && rule->user != person->user)
        return false;
    return rule->database == 0 ||
           (rule->database == 1 ? person->database == 2 : person->database == rule->database - 2);
}

static unsigned method_for(const struct person *person, unsigned version)
{
    for (unsigned i = 0; i < versions[version].rule_count; i++)
        if (rule_matches(&versions[version].rules[i], person))
            return versions[version].rules[i].method;
    return NO_METHOD;
}

/* What the person must hear under these rules; "": he is let in. */
static const char *verdict(const struct person *person, unsigned version)
{
    bool is_known = person->user < USERS;
    bool is_right = is_known && person->knows_password;

    switch (method_for(person, version)) {
    case TRUST:
        return is_known ? "" : "\"trust\" authentication failed";
    case REJECT:
        return "login rejected";
    case MD5:
    case PASSWORD:
        return is_right ? "" : "password authentication failed";
    case SCRAM:
        return is_right ? "" : "SASL authentication failed";
    case CERT:
        return "certificate authentication failed";
    case LDAP:
        return is_right ? "" : "LDAP authentication failed";
    case PEER:
        return is_known && person->family == AF_UNIX && person->uid == person->user
                   ? ""
                   : "unix socket login rejected";
    case PEER_MAP:
        return is_known && person->family == AF_UNIX && person->uid < OS_USERS &&
                       mapped_user(person->uid) == person->user
                   ? ""
                   : "unix socket login rejected";
    default:
        return "no authentication method is found";
    }
}

/* ---- the world ---- */

static struct sim *sim;
static struct ring *ring;
static struct core core;
static struct buffer_pool buffers;
static struct usage_table usage;
static struct shard_table shards;
static struct mailbox mailbox;
static struct sim_jobs jobs;
static struct person people[CLIENTS];
static union {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    struct sockaddr_un local;
} listen_addresses[LISTENERS];
static const socklen_t listen_bytes[LISTENERS] = {
    sizeof(struct sockaddr_in), sizeof(struct sockaddr_in6), sizeof(struct sockaddr_un)};
static int listen_fds[LISTENERS];
static struct op accept_ops[LISTENERS];
static bool is_chaos, people_leave;
static unsigned long long let_in, kept_out, refused_logins;

static bool happens(unsigned one_in)
{
    return sim_below(sim, one_in) == 0;
}

static unsigned draw(unsigned limit)
{
    return (unsigned)sim_below(sim, limit);
}

static void person_put(struct person *person, const struct writer *writer)
{
    assert(!writer->overflow);
    assert(person->out_bytes + writer->bytes <= sizeof(person->out));
    memcpy(person->out + person->out_bytes, writer->data, writer->bytes);
    person->out_bytes += writer->bytes;
}

static void person_leaves(struct person *person)
{
    sim_peer_close(person->peer);
    person->is_connected = false;
}

static void person_draws_his_place(struct person *person, unsigned listener)
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address = {0};

    person->family = listen_addresses[listener].any.sa_family;
    person->uid = happens(3)   ? draw(OS_USERS + 1)
                  : happens(2) ? person->user
                               : (person->user + OS_USERS - 1) % OS_USERS;
    sim_peer_set_uid(person->peer, person->uid);
    if (person->family == AF_INET) {
        static const uint8_t places[][2] = {{127, 0}, {10, 0}, {10, 1}, {11, 1}};

        memcpy(person->address, places[draw(COUNT_OF(places))], 2);
        address.four.sin_family = AF_INET;
        address.four.sin_port = htons(1);
        address.four.sin_addr.s_addr =
            htonl((uint32_t)person->address[0] << 24 | (uint32_t)person->address[1] << 16 | 1);
        sim_peer_set_address(person->peer, &address.any, sizeof(address.four));
    } else if (person->family == AF_INET6) {
        person->address[0] = happens(2) ? 0xfd : 0;
        address.six.sin6_family = AF_INET6;
        address.six.sin6_port = htons(1);
        address.six.sin6_addr.s6_addr[0] = person->address[0];
        address.six.sin6_addr.s6_addr[15] = 1;
        sim_peer_set_address(person->peer, &address.any, sizeof(address.six));
    }
}

static void person_comes(struct person *person)
{
    unsigned logins_left = person->logins_left, listener = draw(LISTENERS);
    struct sim_peer *peer =
        sim_connect(sim, &listen_addresses[listener].any, listen_bytes[listener]);
    uint8_t packet[256];
    char user[8], database[8];
    struct writer writer;
    size_t begin;

    if (peer == NULL)
        return;
    *person = (struct person){.peer = peer,
                              .logins_left = logins_left,
                              .is_connected = true,
                              .came_in_chaos = is_chaos,
                              .first_version = version_count - 1,
                              .knows_password = !happens(4),
                              .user = draw(USERS + 1),
                              .database = draw(3)};
    person_draws_his_place(person, listener);
    snprintf(person->password, sizeof(person->password), "%s of u%u",
             person->knows_password ? "right" : "wrong", person->user);
    snprintf(user, sizeof(user), "u%u", person->user);
    snprintf(database, sizeof(database), "d%u", person->database);
    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3 << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, user);
    writer_put_string(&writer, "database");
    writer_put_string(&writer, person->database == 2 ? user : database);
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    person_put(person, &writer);
}

/* Some rules since he came ask for one of these. */
static void check_is_asked(const struct person *person, unsigned method, unsigned other)
{
    for (unsigned version = person->first_version; version < version_count; version++)
        if (method_for(person, version) == method || method_for(person, version) == other)
            return;
    never("no rule asks for that");
}

static void person_authenticates(struct person *person, const uint8_t *body, size_t bytes)
{
    uint8_t data[512], first[SCRAM_CLIENT_FIRST_ROOM], message[1024], random[SCRAM_NONCE_BYTES];
    uint8_t salted[32], client_key[32], stored_key[32], server_key[32];
    char nonce[SCRAM_NONCE_TEXT_BYTES_MAX], user[8], secret[MD5_TEXT_BYTES], answer[MD5_TEXT_BYTES];
    struct writer writer, inner;

    writer_init(&writer, data, sizeof(data));
    switch (bytes_get_u32(body)) {
    case AUTHENTICATION_CLEARTEXT:
        check_is_asked(person, PASSWORD, LDAP);
        writer_put_string(&writer, person->password);
        break;
    case AUTHENTICATION_MD5:
        check_is_asked(person, MD5, MD5);
        snprintf(user, sizeof(user), "u%u", person->user);
        md5_make_secret(person->password, strlen(person->password), user, strlen(user), secret);
        md5_make_answer(secret, body + 4, answer);
        writer_put_string(&writer, answer);
        break;
    case AUTHENTICATION_SASL:
        check_is_asked(person, SCRAM, SCRAM);
        for (size_t i = 0; i < sizeof(random); i++)
            random[i] = (uint8_t)sim_random(sim);
        scram_nonce_text(random, nonce);
        writer_init(&inner, first, sizeof(first));
        writer_put_string(&writer, scram_client_start(&person->scram, &(struct scram_channel){0},
                                                      SCRAM_OFFER_PLAIN, nonce, &inner));
        writer_put_u32(&writer, (uint32_t)inner.bytes);
        writer_put(&writer, first, inner.bytes);
        break;
    case AUTHENTICATION_SASL_CONTINUE:
        assert(scram_client_challenge(&person->scram, body + 4, bytes - 4) == SCRAM_OK);
        scram_salted_password(person->password, strlen(person->password), person->scram.salt,
                              person->scram.salt_bytes, person->scram.iterations, salted);
        scram_keys_from_salted(salted, client_key, stored_key, server_key);
        scram_client_prove(&person->scram, client_key, server_key, &writer);
        break;
    default:
        assert(bytes_get_u32(body) == AUTHENTICATION_SASL_FINAL);
        assert(scram_client_finish(&person->scram, body + 4, bytes - 4) == SCRAM_OK);
        return;
    }
    writer_init(&inner, message, sizeof(message));
    message_password(&inner, data, writer.bytes);
    person_put(person, &inner);
}

static void person_hears(struct person *person, const char *text)
{
    bool is_in = strncmp(text, "no such database: ", 18) == 0;

    person->is_over = true;
    if (strcmp(text, JOB_REFUSED_TEXT) == 0) {
        assert(person->came_in_chaos && jobs.refused > 0);
        refused_logins++;
        return;
    }
    if (strcmp(text, "client_login_timeout") == 0) {
        assert(person->came_in_chaos);
        return;
    }
    *(is_in ? &let_in : &kept_out) += 1;
    for (unsigned version = person->first_version; version < version_count; version++)
        if (strcmp(verdict(person, version), is_in ? "" : text) == 0)
            return;
    fprintf(stderr, "u%u from %d heard: %s\n", person->user, person->family, text);
    never("no rules since he came say that");
}

static void person_step(struct person *person)
{
    struct error_fields fields;
    size_t bytes;

    if (!person->is_connected) {
        if (is_chaos ? happens(15) : person->logins_left > 0)
            person_comes(person);
        return;
    }
    bytes = sim_peer_write(person->peer, person->out, person->out_bytes);
    person->out_bytes -= bytes;
    memmove(person->out, person->out + bytes, person->out_bytes);
    person->in_bytes += sim_peer_read(person->peer, person->in + person->in_bytes,
                                      sizeof(person->in) - person->in_bytes);
    while (person->in_bytes >= 5 &&
           (bytes = bytes_get_u32(person->in + 1) + 1) <= person->in_bytes) {
        assert(!person->is_over);
        if (person->in[0] == 'R') {
            person_authenticates(person, person->in + 5, bytes - 5);
        } else {
            assert(person->in[0] == 'E');
            assert(error_fields_read(person->in + 5, bytes - 5, &fields));
            person_hears(person, fields.message);
        }
        person->in_bytes -= bytes;
        memmove(person->in, person->in + bytes, person->in_bytes);
    }
    if (sim_peer_is_at_end(person->peer)) {
        assert(person->is_over || person->came_in_chaos);
        if (!is_chaos && !person->came_in_chaos)
            person->logins_left--;
        person_leaves(person);
    } else if (is_chaos && people_leave && happens(30)) {
        person_leaves(person);
    }
}

/* ---- the core ---- */

static void post_core(struct core *from, unsigned index, struct letter *letter)
{
    (void)from;
    assert(index == 0);
    (void)mailbox_post(&mailbox, letter);
}

static void post_control(struct core *from, struct letter *letter)
{
    (void)from;
    (void)letter;
    never("nobody asks control");
}

static bool post_job(struct core *from, struct job *job)
{
    (void)from;
    return sim_jobs_post(&jobs, job);
}

static void run_os_user(struct job *job)
{
    struct login *login = OWNER_OF(job, struct login, check.job);

    login->os_user[0] = '\0';
    if (login->peer_uid < OS_USERS)
        snprintf(login->os_user, sizeof(login->os_user), "u%u", login->peer_uid);
}

static void run_check(struct job *job)
{
    struct password_check *check = OWNER_OF(job, struct password_check, job);
    char right[32];

    assert(job->kind == JOB_LDAP);
    assert(strcmp(check->ldap->prefix, "b ") == 0);
    snprintf(right, sizeof(right), "right of %s", check->user);
    check->is_right = strcmp(check->password, right) == 0 && check->user[1] < '0' + USERS;
}

static void give_random(struct core *from, void *out, size_t bytes)
{
    uint8_t *at = out;

    (void)from;
    while (bytes-- > 0)
        *at++ = (uint8_t)sim_random(sim);
}

static const struct core_ports ports = {
    .post_core = post_core,
    .post_control = post_control,
    .post_job = post_job,
    .random = give_random,
};

static void accepted(struct op *op, const struct completion *completion)
{
    if (completion->result >= 0)
        core_accept(&core, completion->result);
    if (!completion->more && (completion->result != -ECANCELED || is_chaos))
        ring_accept(ring, op, listen_fds[op - accept_ops]);
}

static char config_text[1024], users_text[512], hba_text[2048], ident_text[256];

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    const char *text = strcmp(path, "users") == 0   ? users_text
                       : strcmp(path, "hba") == 0   ? hba_text
                       : strcmp(path, "ident") == 0 ? ident_text
                                                    : config_text;

    (void)context;
    *bytes = strlen(text);
    return arena_copy_string(arena, text);
}

static void say(void *context, enum log_level level, const char *text)
{
    (void)context;
    if (level <= LEVEL_WARNING)
        fprintf(stderr, "%s\n", text);
}

static void no_log(enum log_level level, const char *text, size_t bytes)
{
    (void)level;
    (void)text;
    (void)bytes;
}

/* The next version of the rules. */
static struct snapshot *make_snapshot(void)
{
    static const char *const databases[] = {"all", "sameuser", "d0", "d1"};
    struct version *version = &versions[version_count++];
    struct snapshot *snapshot;
    size_t used = 0;

    assert(version_count <= VERSIONS_MAX);
    version->rule_count = 1 + draw(RULES_MAX);
    hba_text[0] = '\0';
    for (unsigned i = 0; i < version->rule_count; i++) {
        struct made_rule *rule = &version->rules[i];
        char user[16] = "all";

        *rule = (struct made_rule){
            .is_local = happens(3),
            .database = happens(2) ? 0 : draw(COUNT_OF(databases)),
            .user = happens(2) ? USERS + 1 : draw(USERS + 1),
            .address = draw(COUNT_OF(addresses)),
            .method = draw(METHODS),
        };
        if (rule->user != USERS + 1)
            snprintf(user, sizeof(user), "u%u", rule->user);
        used +=
            (size_t)snprintf(hba_text + used, sizeof(hba_text) - used, "%s %s %s %s %s\n",
                             rule->is_local ? "local" : "host", databases[rule->database], user,
                             rule->is_local ? "" : addresses[rule->address], methods[rule->method]);
    }
    snprintf(config_text, sizeof(config_text),
             "[pgbouncer]\nauth_type = hba\nauth_hba_file = hba\nauth_ident_file = ident\n"
             "auth_file = users\nscram_iterations = %u\nclient_login_timeout = %s\n",
             1 + draw(3), is_chaos && happens(3) ? "0.01" : "60");
    snapshot = snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, say, NULL);
    assert(snapshot != NULL);
    assert(snapshot->hba.rule_count == version->rule_count);
    return snapshot;
}

/* Whoever waits for a helper is sure to hear of it. */
static void check_core(void)
{
    unsigned waiting = 0;

    list_for_each(link, &core.login_list)
    {
        const struct client *client = OWNER_OF(link, struct client, link);
        const struct login *login = client->login;

        if (login == NULL)
            continue;
        assert(login->client == client);
        assert(login->phase != LOGIN_CHECK || login->job_in_flight ||
               client->state == CLIENT_CLOSING);
        waiting += login->scram_entry != NULL || login->job_in_flight;
    }
    assert(waiting == 0 || jobs.count > 0 || atomic_load(&mailbox.last) != NULL);
}

static void turn(void)
{
    uint64_t deadline_us = core_next_us(&core);
    bool is_reloaded = is_chaos && happens(40) && version_count < VERSIONS_MAX - 1;

    if (atomic_load(&mailbox.last) != NULL || is_reloaded)
        deadline_us = 0;
    if (!sim_would_return(ring, deadline_us))
        return;
    (void)ring_turn(ring, deadline_us);
    core.loop.now_us = sim_now_us(sim);
    (void)mailbox_open_all(&mailbox, &core);
    if (is_reloaded)
        core_set_snapshot(&core, make_snapshot());
    timers_run(&core.timers, core.loop.now_us);
    core_end_turn(&core);
    check_core();
}

static void world_step(void)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        person_step(&people[i]);
    sim_jobs_step(&jobs);
}

/* On to whatever happens next, when nobody has anything to do. */
static void jump(void)
{
    static uint64_t last_trace;
    bool is_still = sim_trace(sim) == last_trace;
    uint64_t next_us = MIN(MIN(core_next_us(&core), sim_next_us(sim)), sim_jobs_next_us(&jobs));

    last_trace = sim_trace(sim);
    if (is_still && !sim_has_work(sim) && next_us != UINT64_MAX && next_us > sim_now_us(sim))
        sim_advance(sim, MIN(next_us - sim_now_us(sim), US_PER_S));
}

static bool all_are_done(void)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (people[i].is_connected || people[i].logins_left > 0)
            return false;
    return core.clients.used_count == 0;
}

static void make_files(void)
{
    size_t used = 0;

    strcpy(ident_text, "m \"\" u0\n");
    for (unsigned i = 0; i < USERS; i++)
        used += (size_t)snprintf(users_text + used, sizeof(users_text) - used,
                                 "\"u%u\" \"right of u%u\"\n", i, i);
    for (unsigned i = 0; i < OS_USERS; i++)
        snprintf(ident_text + strlen(ident_text), sizeof(ident_text) - strlen(ident_text),
                 "m u%u u%u\n", i, mapped_user(i));
}

static void listen_everywhere(void)
{
    listen_addresses[0].four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(6432)};
    listen_addresses[1].six =
        (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(6432)};
    listen_addresses[2].local = (struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = "/s"};
    for (unsigned i = 0; i < LISTENERS; i++) {
        listen_fds[i] = sim_listen(sim, &listen_addresses[i].any, listen_bytes[i]);
        accept_ops[i] = (struct op){.done = accepted};
        ring_accept(ring, &accept_ops[i], listen_fds[i]);
    }
}

static bool is_at_rest(void)
{
    for (unsigned i = 0; i < LISTENERS; i++)
        if (accept_ops[i].started)
            return false;
    return core.loop.conn_count == 0 && jobs.count == 0 && atomic_load(&mailbox.last) == NULL;
}

static uint64_t run(uint64_t seed)
{
    static struct param_names param_names;
    static char storage[256];
    static const uint8_t mock_key[32] = {1};
    char error[RING_ERROR_BYTES];
    struct sim_faults faults;
    struct ring_options options;
    struct core_options core_options;
    uint64_t trace;
    unsigned round;

    log_set_sink(getenv("SIM_LOG") != NULL ? NULL : no_log);
    sim = sim_create(seed);
    sim_draw_faults(sim, &faults);
    faults.reset = 0;
    sim_set_faults(sim, &faults);
    is_chaos = true;
    people_leave = happens(2);
    version_count = 0;
    memset(people, 0, sizeof(people));
    mailbox_init(&mailbox);
    jobs = (struct sim_jobs){
        .sim = sim,
        .mailbox = &mailbox,
        .run_os_user = run_os_user,
        .run_check = run_check,
        .refused_per_mille = happens(2) ? 0 : 1u << sim_below(sim, 9),
        .delay_us_max = happens(4) ? 0 : 1u << sim_below(sim, 18),
        .count_max = happens(2) ? SIM_JOBS_MAX : 1 + draw(4),
    };
    make_files();
    assert(buffer_pool_init(&buffers, 256u << sim_below(sim, 6), 16u << sim_below(sim, 4)));
    options = (struct ring_options){.entries = 64, .completion_entries = 64, .buffers = &buffers};
    ring = ring_create(&options, error);
    assert(ring != NULL);
    assert(usage_table_init(&usage));
    assert(shard_table_init(&shards, 1));
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    core_options = (struct core_options){
        .count = 1,
        .client_count_max = 200,
        .ring = ring,
        .buffers = &buffers,
        .usage = &usage,
        .shards = &shards,
        .param_names = &param_names,
        .mock_key = mock_key,
        .snapshot = make_snapshot(),
        .ports = &ports,
        .now_us = sim_now_us(sim),
    };
    assert(core_init(&core, &core_options));
    listen_everywhere();

    for (round = 0; round < CHAOS_ROUNDS; round++) {
        world_step();
        turn();
        sim_advance(sim, sim_below(sim, 300));
    }

    sim_set_faults(sim, &(struct sim_faults){0});
    is_chaos = false;
    jobs.refused_per_mille = 0;
    jobs.count_max = SIM_JOBS_MAX;
    core_set_snapshot(&core, make_snapshot());
    for (unsigned i = 0; i < CLIENTS; i++)
        people[i].logins_left = 4;
    for (round = 0; !all_are_done() && round < ROUNDS_MAX; round++) {
        world_step();
        turn();
        sim_advance(sim, 20);
        jump();
    }
    assert(all_are_done());

    for (unsigned i = 0; i < LISTENERS; i++)
        ring_cancel(ring, &accept_ops[i]);
    for (round = 0; !is_at_rest() && round < ROUNDS_MAX; round++) {
        world_step();
        turn();
        sim_advance(sim, 1000);
        jump();
    }
    assert(is_at_rest());
    for (unsigned i = 0; i < LISTENERS; i++)
        ring_close(ring, listen_fds[i]);
    (void)ring_turn(ring, 0);
    assert(core.clients.used_count == 0);
    assert(core.logins.used_count == 0);
    login_forget_keys(&core);
    assert(core.scram_cache.used_count == 0);
    assert(sim_started_ops(sim) == 0);
    assert(sim_open_fds(sim) == 0);
    assert(usage_count(&usage.client_count) == 0);
    /* Nobody had proved that he may use these databases, or is u3. */
    assert(usage_look(&usage, USAGE_DATABASE, "d0") == NULL);
    assert(usage_look(&usage, USAGE_DATABASE, "d1") == NULL);
    assert(usage_look(&usage, USAGE_USER, "u3") == NULL);
    snapshot_release(core.snapshot);
    core_release(&core);
    assert(buffers.parked_bytes == 0);
    sim_note(sim, let_in);
    sim_note(sim, kept_out);
    sim_note(sim, jobs.run);
    trace = sim_trace(sim);
    if (getenv("SIM_VERBOSE") != NULL)
        printf("let in %llu, kept out %llu, refused %llu; %u versions; jobs run %llu, cancelled "
               "%llu, refused %llu\n",
               let_in, kept_out, refused_logins, version_count, jobs.run, jobs.cancelled,
               jobs.refused);
    let_in = kept_out = refused_logins = 0;
    ring_destroy(ring);
    buffer_pool_release(&buffers);
    usage_table_release(&usage);
    shard_table_release(&shards);
    sim_destroy(sim);
    return trace;
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, run, 300);
}
