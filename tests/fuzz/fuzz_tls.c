/* fuzz_tls.c - what comes before, in and behind a TLS handshake: from a client of the pooler, or from a server of its.
 * The pools run on one core on the simulated kernel (tests/sim/ring_sim.c), with the real library at both ends.
 *
 * The input is a program. One byte of settings (a bit each: the foreign end is a server; TLS 1.2; TLS is not demanded; a
 * client certificate is wanted; one is shown), then orders of one letter with their arguments. Other bytes are
 * skipped; a count is one byte, a letter or digit a small number. So the corpus can be read and written by hand:
 *
 *   s g          SSLRequest, GSSENCRequest; as a server: 'S', 'N'
 *   h            an honest session of TLS begins
 *   u q t        startup packet, Query, Terminate; as a server: welcome, answer, an error; on TLS if there is any
 *   Pn.. Nn..    n bytes of the input, on TLS if there is any, or as they are
 *   Rtn..        a record of type t with n bytes
 *   Xn Dn        the nth byte of ciphertext from here is another; n of them are lost
 *   Zn           what waits goes on up to n bytes; what comes behind it waits, too
 *   k c e r      new keys, close_notify, the end of the stream, a reset
 *   . !          everything runs until nothing moves; a minute goes by
 *
 * Always: what is for TLS only is never told in plain, where TLS is demanded; and when all is closed, everything has
 * come home.
 *
 * FUZZ_TRACE=1 shows the pooler's log. */
#include "../sim/ring_sim.h"
#include "../sim/sim_jobs.h"

#include "crypto/tls.h"
#include "pool/client.h"
#include "pool/core.h"
#include "pool/handover.h"
#include "pool/server.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#define FOLDER "tests/unit/tls/"

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum {
    SERVER_SIDE = 1,
    OLD = 2,
    VOLUNTARY = 4,
    WANTS_CERTIFICATE = 8,
    SHOWS_CERTIFICATE = 16,
    CONTEXTS = 32
};
enum { PIPE_BYTES = 64 * 1024, ROUNDS_MAX = 20000, SEEN_MAX = 1024 };

static struct sim *sim;
static struct ring *ring;
static struct core core;
static struct buffer_pool buffers;
static struct usage_table usage;
static struct shard_table shards;
static struct param_names param_names;
static struct mailbox mailbox;
static struct sim_jobs jobs;
static bool is_traced;
static unsigned settings;
static struct {
    struct tls_context *ours, *theirs;
} contexts[CONTEXTS];
static uint64_t random_state;

/* What nobody may say in plain: of the pooler's user, of its server. */
static const char secret[] = "only for TLS";

/* ---- the foreign end ---- */

static struct end {
    struct sim_peer *peer;
    struct tls *session;
    struct tls_output output;
    bool is_up, has_failed;
    uint8_t *out;
    size_t out_bytes, out_room;
    size_t may_go; /* of `out` */
    size_t flip_in, drop_count;
    uint8_t seen[SEEN_MAX]; /* in plain */
    size_t seen_bytes;
} end;

static void queue(const void *data, size_t bytes)
{
    if (bytes == 0 || end.out_bytes + bytes > PIPE_BYTES)
        return;
    if (end.out_bytes + bytes > end.out_room) {
        end.out_room = 2 * (end.out_bytes + bytes);
        end.out = realloc(end.out, end.out_room);
        assert(end.out != NULL);
    }
    memcpy(end.out + end.out_bytes, data, bytes);
    end.out_bytes += bytes;
}

static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    const uint8_t *at = data;

    (void)output;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = at[i];

        if (end.flip_in > 0 && --end.flip_in == 0)
            byte ^= 0x5a;
        if (end.drop_count > 0)
            end.drop_count--;
        else
            queue(&byte, 1);
    }
    return true;
}

static void go_on(void)
{
    enum tls_result result;
    uint8_t plain[4096];
    size_t got;

    if (!end.is_up) {
        result = tls_handshake(end.session, &end.output);
        end.is_up = result == TLS_OK;
        end.has_failed = result == TLS_FAILED;
        if (!end.is_up)
            return;
    }
    do
        result = tls_read(end.session, &end.output, plain, sizeof(plain), &got);
    while (result == TLS_OK);
    end.has_failed = result != TLS_WANT_INPUT;
}

/* In plain, or what only looks so. */
static void see(const uint8_t *data, size_t bytes)
{
    bytes = MIN(bytes, SEEN_MAX - end.seen_bytes);
    memcpy(end.seen + end.seen_bytes, data, bytes);
    end.seen_bytes += bytes;
    if ((settings & VOLUNTARY) == 0)
        assert(memmem(end.seen, end.seen_bytes, secret, sizeof(secret) - 1) == NULL);
}

static bool end_moves(void)
{
    uint8_t chunk[4096];
    size_t bytes, sent = 0;

    if (end.peer == NULL)
        return false;
    bytes = sim_peer_read(end.peer, chunk, sizeof(chunk));
    if (bytes > 0 && end.session != NULL && !end.has_failed) {
        tls_feed(end.session, chunk, bytes);
        go_on();
    } else if (end.session == NULL) {
        see(chunk, bytes);
    }
    if (end.out_bytes > 0) {
        sent = sim_peer_write(end.peer, end.out, MIN(end.out_bytes, end.may_go));
        memmove(end.out, end.out + sent, end.out_bytes - sent);
    }
    end.out_bytes -= sent;
    if (end.may_go != SIZE_MAX)
        end.may_go -= sent;
    return bytes + sent > 0;
}

static void say(const void *data, size_t bytes)
{
    if (end.session == NULL)
        queue(data, bytes);
    else if (end.is_up && !end.has_failed && bytes > 0)
        assert(tls_write(end.session, &end.output, data, bytes));
}

/* ---- the honest end, in plain ---- */

static struct sim_peer *other;

static size_t put_startup(uint8_t packet[128])
{
    struct writer writer;
    size_t begin;

    writer_init(&writer, packet, 128);
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3u << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, "alice");
    writer_put_string(&writer, "database");
    writer_put_string(&writer, "shop");
    writer_put_string(&writer, "application_name");
    writer_put_string(&writer, secret);
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    return writer.bytes;
}

static size_t put_text(uint8_t packet[128], char type, const char *text)
{
    struct writer writer;
    size_t begin;

    writer_init(&writer, packet, 128);
    begin = message_begin(&writer, (uint8_t)type);
    writer_put_string(&writer, text);
    message_end(&writer, begin);
    return writer.bytes;
}

static size_t put_welcome(uint8_t packet[128])
{
    struct writer writer;
    size_t begin;

    writer_init(&writer, packet, 128);
    message_authentication(&writer, AUTHENTICATION_OK, NULL, 0);
    begin = message_begin(&writer, 'S');
    writer_put_string(&writer, "server_version");
    writer_put_string(&writer, secret);
    message_end(&writer, begin);
    begin = message_begin(&writer, 'Z');
    writer_put_u8(&writer, 'I');
    message_end(&writer, begin);
    return writer.bytes;
}

static size_t put_answer(uint8_t packet[128])
{
    size_t bytes = put_text(packet, 'C', "DONE");
    static const uint8_t ready[] = {'Z', 0, 0, 0, 5, 'I'};

    memcpy(packet + bytes, ready, sizeof(ready));
    return bytes + sizeof(ready);
}

/* Where the foreign end is a client: a PostgreSQL that answers whatever comes. Else a client. */
static bool other_moves(void)
{
    uint8_t chunk[4096], packet[128];
    size_t bytes;

    if (other == NULL)
        return false;
    bytes = sim_peer_read(other, chunk, sizeof(chunk));
    if (is_traced && bytes > 0)
        fprintf(stderr, "the honest end gets %zu bytes: %02x %.40s\n", bytes, chunk[0],
                (const char *)chunk + 5);
    if (bytes > 0 && (settings & SERVER_SIDE) == 0)
        (void)sim_peer_write(other, packet,
                             chunk[0] == 0 ? put_welcome(packet) : put_answer(packet));
    return bytes > 0;
}

/* ---- the pooler ---- */

static void server_comes(void *context, struct sim_peer *peer)
{
    (void)context;
    if ((settings & SERVER_SIDE) != 0 && end.peer == NULL && end.seen_bytes == 0)
        end.peer = peer;
    else if ((settings & SERVER_SIDE) == 0 && other == NULL)
        other = peer;
    else
        sim_peer_close(peer);
}

static void post_core(struct core *from, unsigned to, struct letter *letter)
{
    (void)from;
    (void)to;
    (void)mailbox_post(&mailbox, letter);
}

/* A session of the console, a cancel request that is nobody's. */
static void post_control(struct core *from, struct letter *letter)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);

    usage_give(&usage.client_count);
    tls_destroy(handover->tls);
    ring_close(from->loop.ring, handover->fd);
    letter->open = handover_returned;
    (void)mailbox_post(&mailbox, letter);
}

static bool post_job(struct core *from, struct job *job)
{
    (void)from;
    return sim_jobs_post(&jobs, job);
}

static void give_bytes(void *out, size_t bytes)
{
    uint8_t *at = out;

    while (bytes-- > 0) {
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        *at++ = (uint8_t)(random_state >> 56);
    }
}

static void give_random(struct core *from, void *out, size_t bytes)
{
    (void)from;
    give_bytes(out, bytes);
}

static void accepted(struct op *op, const struct completion *completion)
{
    (void)op;
    if (completion->result >= 0)
        core_accept(&core, completion->result);
}

static void turn(void)
{
    uint64_t deadline_us = atomic_load(&mailbox.last) != NULL ? 0 : core_next_us(&core);

    if (!sim_would_return(ring, deadline_us))
        return;
    (void)ring_turn(ring, deadline_us);
    core.loop.now_us = sim_now_us(sim);
    (void)mailbox_open_all(&mailbox, &core);
    timers_run(&core.timers, core.loop.now_us);
    core_end_turn(&core);
}

/* A send goes to the kernel with the turn after it. */
static void settle(void)
{
    uint64_t last_trace = 0;

    for (unsigned quiet = 0, round = 0; quiet < 3; round++) {
        bool has_moved = end_moves();

        assert(round < ROUNDS_MAX);
        has_moved = other_moves() || has_moved;
        sim_jobs_step(&jobs);
        turn();
        sim_advance(sim, 1);
        quiet = has_moved || jobs.count > 0 || sim_trace(sim) != last_trace ? 0 : quiet + 1;
        last_trace = sim_trace(sim);
    }
}

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    const char *text = strcmp(path, "users.txt") == 0 ? "\"alice\" \"secret\"\n"
                                                      : "[databases]\n"
                                                        "shop = host=127.0.0.1 port=5432\n"
                                                        "[pgbouncer]\n"
                                                        "auth_type = trust\n"
                                                        "auth_file = users.txt\n"
                                                        "admin_users = alice\n"
                                                        "listen_port = 6432\n"
                                                        "server_login_retry = 3600\n";

    (void)context;
    *bytes = strlen(text);
    return arena_copy_string(arena, text);
}

static void no_report(void *context, enum log_level level, const char *text)
{
    (void)context;
    (void)level;
    (void)text;
}

static void trace_log(enum log_level level, const char *text, size_t bytes)
{
    if (is_traced)
        fprintf(stderr, "%s %.*s\n", log_level_name(level), (int)bytes, text);
}

static struct snapshot *make_snapshot(void)
{
    struct snapshot *snapshot =
        snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, no_report, NULL);
    struct tls_context *ours = tls_context_reference(contexts[settings].ours);
    bool is_voluntary = (settings & VOLUNTARY) != 0;

    assert(snapshot != NULL);
    snapshot->settings.client_tls_sslmode = TLS_MODE_DISABLE;
    snapshot->settings.server_tls_sslmode = TLS_MODE_DISABLE;
    if ((settings & SERVER_SIDE) != 0) {
        snapshot->settings.server_tls_sslmode = is_voluntary ? TLS_MODE_PREFER : TLS_MODE_REQUIRE;
        snapshot_set_tls(snapshot, NULL, ours, tls_context_release);
    } else {
        snapshot->settings.client_tls_sslmode = is_voluntary ? TLS_MODE_ALLOW : TLS_MODE_REQUIRE;
        snapshot_set_tls(snapshot, ours, NULL, tls_context_release);
    }
    return snapshot;
}

/* ---- the program ---- */

struct program {
    const uint8_t *at, *end;
};

static unsigned next_byte(struct program *program)
{
    return program->at < program->end ? *program->at++ : 0;
}

/* A letter or digit is a small number. */
static size_t next_count(struct program *program)
{
    unsigned byte = next_byte(program);

    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'z')
        return 10 + byte - 'a';
    return byte;
}

static const uint8_t *next_bytes(struct program *program, size_t *count)
{
    const uint8_t *at;

    *count = next_count(program);
    at = program->at;
    if (*count > (size_t)(program->end - at))
        *count = (size_t)(program->end - at);
    program->at += *count;
    return at;
}

static void run_order(struct program *program, char order)
{
    static const uint8_t requests[2][8] = {{0, 0, 0, 8, 4, 210, 22, 47},
                                           {0, 0, 0, 8, 4, 210, 22, 48}};
    bool is_server = (settings & SERVER_SIDE) != 0;
    uint8_t packet[128], header[5];
    const uint8_t *bytes;
    size_t count;

    switch (order) {
    case 's':
        if (is_server)
            queue("S", 1);
        else
            queue(requests[0], 8);
        break;
    case 'g':
        if (is_server)
            queue("N", 1);
        else
            queue(requests[1], 8);
        break;
    case 'h':
        if (end.session != NULL || end.peer == NULL)
            break;
        if (!is_server)
            settle(); /* the answer to SSLRequest is not TLS's */
        end.session = tls_create(contexts[settings].theirs, NULL);
        assert(end.session != NULL);
        go_on();
        settle();
        break;
    case 'u':
        say(packet, is_server ? put_welcome(packet) : put_startup(packet));
        break;
    case 'q':
        say(packet, is_server ? put_answer(packet) : put_text(packet, 'Q', secret));
        break;
    case 't':
        say(packet, is_server ? put_text(packet, 'E', "SFATAL") : put_text(packet, 'X', ""));
        break;
    case 'P':
        bytes = next_bytes(program, &count);
        say(bytes, count);
        break;
    case 'N':
        bytes = next_bytes(program, &count);
        queue(bytes, count);
        break;
    case 'R':
        header[0] = (uint8_t)next_byte(program);
        bytes = next_bytes(program, &count);
        header[1] = header[2] = 3;
        bytes_put_u16(header + 3, (uint16_t)count);
        queue(header, sizeof(header));
        queue(bytes, count);
        break;
    case 'X':
        end.flip_in = next_count(program);
        break;
    case 'D':
        end.drop_count = next_count(program);
        break;
    case 'Z':
        end.may_go = next_count(program);
        settle();
        break;
    case 'k':
        if (end.is_up && !end.has_failed)
            (void)!tls_update_keys(end.session, &end.output);
        break;
    case 'c':
        if (end.is_up && !end.has_failed) {
            tls_close_notify(end.session, &end.output);
            end.has_failed = true;
        }
        break;
    case 'e':
        settle();
        if (end.peer != NULL)
            sim_peer_shutdown(end.peer);
        break;
    case 'r':
        if (end.peer != NULL)
            sim_peer_reset(end.peer);
        break;
    case '.':
        end.may_go = SIZE_MAX;
        settle();
        break;
    case '!':
        settle();
        sim_advance(sim, 61 * US_PER_S);
        settle();
        break;
    default:
        break;
    }
}

static void check_home(void)
{
    assert(core.loop.conn_count == 0);
    assert(core.clients.used_count == 0);
    assert(core.logins.used_count == 0);
    assert(core.servers.used_count == 0);
    assert(core.server_logins.used_count == 0);
    assert(core.cancels.used_count == 0);
    assert(core.tls_handshakes.used_count == 0);
    assert(core.loop.tls.used_count == 0);
    assert(core.loop.spans.used_count == 0);
    assert(sim_started_ops(sim) == 0);
    assert(sim_open_fds(sim) == 0);
    assert(usage_count(&usage.client_count) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct core_ports ports = {.post_core = post_core,
                                            .post_control = post_control,
                                            .post_job = post_job,
                                            .random = give_random,
                                            .console_open = NULL};
    static const uint8_t mock_key[32] = {1};
    static char storage[256];
    struct program program = {data + 1, data + bytes};
    struct sockaddr_in listen_address = {.sin_family = AF_INET, .sin_port = htons(6432)};
    struct sockaddr_in server_address = {.sin_family = AF_INET, .sin_port = htons(5432)};
    struct ring_options options = {.entries = 64, .completion_entries = 64, .buffers = &buffers};
    struct op accept_op = {.done = accepted};
    char error[RING_ERROR_BYTES];
    uint8_t packet[128];
    struct core_options core_options;
    int listen_fd;
    struct sim_peer *client;

    if (bytes == 0)
        return 0;
    settings = data[0] % CONTEXTS;
    random_state = 1;
    sim = sim_create(1);
    sim_set_pipe_bytes(sim, PIPE_BYTES);
    mailbox_init(&mailbox);
    jobs = (struct sim_jobs){.sim = sim, .mailbox = &mailbox, .count_max = SIM_JOBS_MAX};
    assert(buffer_pool_init(&buffers, 4096, 16));
    ring = ring_create(&options, error);
    assert(ring != NULL);
    assert(usage_table_init(&usage));
    assert(shard_table_init(&shards, 1));
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    core_options = (struct core_options){
        .count = 1,
        .client_count_max = 4,
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
    server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listen_fd = sim_listen(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));
    sim_serve(sim, (struct sockaddr *)&server_address, sizeof(server_address), server_comes, NULL);
    ring_accept(ring, &accept_op, listen_fd);

    end = (struct end){.output.put = put, .may_go = SIZE_MAX};
    other = NULL;
    client = sim_connect(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));
    if ((settings & SERVER_SIDE) != 0) {
        other = client;
        (void)sim_peer_write(client, packet, put_startup(packet));
        (void)sim_peer_write(client, packet, put_text(packet, 'Q', secret));
    } else {
        end.peer = client;
    }
    settle();
    while (program.at < program.end)
        run_order(&program, (char)*program.at++);
    end.may_go = SIZE_MAX;
    settle();

    if (end.peer != NULL)
        sim_peer_close(end.peer);
    end.peer = NULL;
    tls_destroy(end.session);
    free(end.out);
    ring_cancel(ring, &accept_op);
    settle();
    core_kill(&core, NULL);
    settle();
    if (other != NULL)
        sim_peer_close(other);
    other = NULL;
    settle();
    sim_advance(sim, 120 * US_PER_S);
    settle();
    ring_close(ring, listen_fd);
    (void)ring_turn(ring, 0);
    check_home();
    snapshot_release(core.snapshot);
    core_release(&core);
    assert(buffers.parked_bytes == 0);
    ring_destroy(ring);
    buffer_pool_release(&buffers);
    usage_table_release(&usage);
    shard_table_release(&shards);
    sim_destroy(sim);
    return 0;
}

static struct tls_context *make_context(enum tls_side side, unsigned bits, bool is_ours)
{
    bool wants = (bits & WANTS_CERTIFICATE) != 0 && side == TLS_SIDE_SERVER;
    struct tls_options options = {
        .side = side,
        .protocols = (bits & OLD) != 0 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3,
        .suites = "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"};
    char error[TLS_ERROR_BYTES];
    struct tls_context *context;

    if (side == TLS_SIDE_SERVER) {
        options.certificate_file = FOLDER "p256.pem";
        options.key_file = FOLDER "p256.key";
    } else if ((bits & SHOWS_CERTIFICATE) != 0) {
        options.certificate_file = FOLDER "alice.pem";
        options.key_file = FOLDER "alice.key";
    }
    if (wants || (side == TLS_SIDE_CLIENT && is_ours)) {
        options.authorities_file = FOLDER "root.pem";
        options.verify = wants ? TLS_VERIFY_IF_GIVEN : TLS_VERIFY_CHAIN;
    }
    context = tls_context_create(&options, error);
    if (context == NULL)
        fprintf(stderr, "%s\n", error);
    assert(context != NULL);
    return context;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count;
    (void)arguments;
    is_traced = getenv("FUZZ_TRACE") != NULL;
    log_set_sink(trace_log);
    assert(tls_init());
    (void)!tls_set_seed(give_bytes);
    for (unsigned i = 0; i < CONTEXTS; i++) {
        enum tls_side ours = (i & SERVER_SIDE) != 0 ? TLS_SIDE_CLIENT : TLS_SIDE_SERVER;
        enum tls_side theirs = ours == TLS_SIDE_CLIENT ? TLS_SIDE_SERVER : TLS_SIDE_CLIENT;

        contexts[i].ours = make_context(ours, i, true);
        contexts[i].theirs = make_context(theirs, i, false);
    }
    return 0;
}
