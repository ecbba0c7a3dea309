/* test_tls.c - one login over TLS, again and again: its bytes cut in two at every place, or into single bytes, ended
 * at every place, and changed at every place, in each direction, on the client's side of the pooler and on the
 * server's, with TLS 1.2 and 1.3, with a client certificate (which is the password then) and without.
 *
 * Cut in two, or in pieces: the login works. Ended or changed: whatever comes of it, nobody gets a byte that was
 * not meant for him, and nothing is left over. The real library is at both ends, the kernel in its best mood.
 *
 * A "seed" is one of the combinations (run with its number); it goes through all places. */
#include "harness.h"
#include "sim_jobs.h"
#include "tls_count.h"

#include "crypto/tls.h"
#include "pool/client.h"
#include "pool/server.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define FOLDER "tests/unit/tls/"

enum harm { HARM_SPLIT, HARM_PIECES, HARM_END, HARM_CHANGE, HARMS };

enum {
    PROTOCOLS = 2,
    COMBINATIONS = PROTOCOLS * 2 * 2 * 2 * HARMS,
    BYTES_MAX = 16 * 1024,
    ROUNDS_MAX = 20000,
    SSL_REQUEST_CODE = 80877103,
    /* Between two places; each is looked at in every so manieth run, and all of them when SIM_ALL=1. */
    STRIDE = 5,
};

static struct combination {
    unsigned protocol;
    bool has_certificate;
    bool is_server_side; /* the pooler's servers are on TLS; else its clients */
    bool is_inwards;     /* the harm is done to what comes to the pooler */
    enum harm harm;
} combination;

/* Bytes on their way, between a peer's pipe and its TLS. */
struct stream {
    uint8_t bytes[BYTES_MAX];
    size_t count, taken; /* have come; are gone on */
    bool is_harmed;
    size_t place;
};

/* One end of the world's. */
struct end {
    struct sim_peer *peer;
    struct tls *session;
    struct tls_output output;
    bool is_up, has_failed, is_closed;
    struct stream in, out; /* on the wire */
    uint8_t plain[BYTES_MAX];
    size_t plain_count, plain_taken; /* read */
    uint8_t to_say[BYTES_MAX];
    size_t to_say_count; /* waits for TLS to be up */
};

static struct sim *sim;
static struct ring *ring;
static struct core core;
static struct buffer_pool buffers;
static struct usage_table usage;
static struct shard_table shards;
static struct mailbox mailbox;
static struct sim_jobs jobs;
static struct end user, postgres;
static struct tls_context *clients_context, *servers_context, *user_context, *postgres_context;
static int listen_fd;
static bool
    is_answered; /* the user has the answer to his question, and each byte before it was right */
static unsigned long long logins, failures;

/* ---- ends ---- */

static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    struct end *end = OWNER_OF(output, struct end, output);

    assert(end->out.count + bytes <= BYTES_MAX);
    memcpy(end->out.bytes + end->out.count, data, bytes);
    end->out.count += bytes;
    return true;
}

static void end_open(struct end *end, struct sim_peer *peer)
{
    memset(end, 0, sizeof(*end));
    end->peer = peer;
    end->output.put = put;
}

static void end_close(struct end *end)
{
    if (end->peer != NULL)
        sim_peer_close(end->peer);
    tls_destroy(end->session);
    end->session = NULL;
    end->peer = NULL;
}

static void go_on(struct end *end)
{
    enum tls_result result;
    size_t got;

    if (!end->is_up) {
        result = tls_handshake(end->session, &end->output);
        end->has_failed = result == TLS_FAILED;
        end->is_up = result == TLS_OK;
        if (!end->is_up)
            return;
        assert(tls_write(end->session, &end->output, end->to_say, end->to_say_count));
        end->to_say_count = 0;
    }
    do {
        assert(end->plain_count < BYTES_MAX);
        result = tls_read(end->session, &end->output, end->plain + end->plain_count,
                          BYTES_MAX - end->plain_count, &got);
        end->plain_count += got;
    } while (result == TLS_OK);
    end->has_failed = result == TLS_FAILED;
    end->is_closed = result == TLS_CLOSED;
}

static void start_tls(struct end *end, struct tls_context *context)
{
    end->session = tls_create(context, NULL);
    assert(end->session != NULL);
    go_on(end);
}

static void say(struct end *end, const struct writer *writer)
{
    assert(!writer->overflow);
    if (end->session == NULL) {
        (void)put(&end->output, writer->data, writer->bytes);
    } else if (end->is_up) {
        if (!end->has_failed && !end->is_closed)
            assert(tls_write(end->session, &end->output, writer->data, writer->bytes));
    } else {
        assert(end->to_say_count + writer->bytes <= BYTES_MAX);
        memcpy(end->to_say + end->to_say_count, writer->data, writer->bytes);
        end->to_say_count += writer->bytes;
    }
}

/* How many of a stream's bytes may go on now. `is_calm`: nothing else happens any more. */
static size_t allowed(struct stream *stream, bool is_calm)
{
    size_t waiting = stream->count - stream->taken;

    if (!stream->is_harmed || waiting == 0)
        return waiting;
    switch (combination.harm) {
    case HARM_SPLIT:
        if (stream->taken < stream->place)
            return MIN(waiting, stream->place - stream->taken);
        return stream->taken > stream->place || is_calm ? waiting : 0;
    case HARM_PIECES:
        return 1;
    case HARM_END:
        return stream->taken < stream->place ? MIN(waiting, stream->place - stream->taken) : 0;
    default:
        if (stream->place >= stream->taken && stream->place < stream->count) {
            stream->bytes[stream->place] ^= (uint8_t)(1u << stream->place % 8);
            stream->is_harmed = false;
        }
        return waiting;
    }
}

static bool is_cut_off(const struct stream *stream)
{
    return stream->is_harmed && combination.harm == HARM_END && stream->taken == stream->place;
}

/* The end's own end. */
static void hang_up(struct end *end)
{
    if (end->peer != NULL && !end->is_closed) {
        sim_peer_close(end->peer);
        end->peer = NULL;
    }
    end->is_closed = true;
}

/* True: something has moved. */
static bool end_moves(struct end *end, bool is_calm)
{
    size_t count, before = end->in.taken + end->out.taken + end->in.count;
    bool was_closed = end->is_closed;

    if (end->peer == NULL)
        return false;
    end->in.count +=
        sim_peer_read(end->peer, end->in.bytes + end->in.count, BYTES_MAX - end->in.count);
    count = allowed(&end->in, is_calm);
    if (end->session != NULL && count > 0 && !end->has_failed && !end->is_closed) {
        tls_feed(end->session, end->in.bytes + end->in.taken, count);
        go_on(end);
        end->in.taken += count;
    } else if (count > 0 && end->session != NULL) {
        end->in.taken += count; /* for nobody */
    } else if (count > 0) {
        /* In plain: one byte is the answer to SSLRequest, or a request is whole. */
        assert(end->plain_count + count <= BYTES_MAX);
        memcpy(end->plain + end->plain_count, end->in.bytes + end->in.taken, count);
        end->plain_count += count;
        end->in.taken += count;
    }
    count = allowed(&end->out, is_calm);
    end->out.taken += sim_peer_write(end->peer, end->out.bytes + end->out.taken, count);
    if (is_cut_off(&end->in) || is_cut_off(&end->out) || end->has_failed ||
        sim_peer_is_at_end(end->peer))
        hang_up(end);
    return before != end->in.taken + end->out.taken + end->in.count || was_closed != end->is_closed;
}

/* ---- what is said ---- */

static const char user_name[] = "alice", question[] = "what is it?", answer[] = "it is this";

static void put_ssl_request(struct end *end)
{
    uint8_t packet[8];
    struct writer writer;

    writer_init(&writer, packet, sizeof(packet));
    writer_put_u32(&writer, 8);
    writer_put_u32(&writer, SSL_REQUEST_CODE);
    say(end, &writer);
}

static void put_startup(struct end *end)
{
    uint8_t packet[128];
    struct writer writer;
    size_t begin;

    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3u << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, user_name);
    writer_put_string(&writer, "database");
    writer_put_string(&writer, "shop");
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    say(end, &writer);
}

static void put_text(struct end *end, char type, const char *text)
{
    uint8_t packet[128];
    struct writer writer;
    size_t begin;

    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, (uint8_t)type);
    if (text != NULL)
        writer_put_string(&writer, text);
    message_end(&writer, begin);
    say(end, &writer);
}

/* The next whole message that was read, with its type but for a startup packet. NULL: not yet. */
static const uint8_t *take(struct end *end, bool has_type, size_t *bytes)
{
    const uint8_t *at = end->plain + end->plain_taken;
    size_t waiting = end->plain_count - end->plain_taken;

    if (waiting < 4u + has_type)
        return NULL;
    *bytes = bytes_get_u32(at + has_type) + has_type;
    if (*bytes > waiting)
        return NULL;
    end->plain_taken += *bytes;
    return at;
}

static bool is_on_tls(const struct end *end)
{
    return end->session != NULL;
}

static bool user_asks_ssl;

static void user_speaks(void)
{
    const uint8_t *message;
    size_t bytes;

    if (user_asks_ssl && user.plain_count > 0) {
        user_asks_ssl = false;
        user.plain_taken = user.plain_count;
        if (user.plain[0] != 'S') { /* changed on its way, or an error */
            hang_up(&user);
            return;
        }
        assert(user.plain_count == 1);
        start_tls(&user, user_context);
        put_startup(&user);
    }
    /* What is not on TLS is not for us, where it must be. */
    if (user.peer == NULL || (!combination.is_server_side && !is_on_tls(&user)))
        return;
    while ((message = take(&user, true, &bytes)) != NULL)
        switch (message[0]) {
        case 'Z':
            if (is_answered)
                put_text(&user, 'X', NULL);
            else
                put_text(&user, 'Q', question);
            break;
        case 'C':
            assert(bytes == 5 + sizeof(answer));
            assert(memcmp(message + 5, answer, sizeof(answer)) == 0);
            is_answered = true;
            break;
        case 'E':
            hang_up(&user);
            return;
        default:
            assert(strchr("RSKN", message[0]) != NULL);
            break;
        }
}

static bool postgres_is_started;

static void postgres_starts(const uint8_t *packet, size_t bytes)
{
    uint8_t text[256];
    struct writer writer;
    size_t begin;

    if (bytes == 8 && bytes_get_u32(packet + 4) == SSL_REQUEST_CODE && !is_on_tls(&postgres)) {
        writer_init(&writer, text, sizeof(text));
        writer_put_u8(&writer, 'S');
        say(&postgres, &writer);
        start_tls(&postgres, postgres_context);
        return;
    }
    if (combination.is_server_side && !is_on_tls(&postgres)) {
        hang_up(&postgres); /* SSLRequest was changed */
        return;
    }
    assert(bytes_get_u32(packet + 4) == 3u << 16);
    assert(memmem(packet, bytes, user_name, sizeof(user_name)) != NULL);
    postgres_is_started = true;
    writer_init(&writer, text, sizeof(text));
    message_authentication(&writer, AUTHENTICATION_OK, NULL, 0);
    begin = message_begin(&writer, 'K');
    writer_put_u32(&writer, 1);
    writer_put_u32(&writer, 2);
    message_end(&writer, begin);
    begin = message_begin(&writer, 'Z');
    writer_put_u8(&writer, 'I');
    message_end(&writer, begin);
    say(&postgres, &writer);
}

static void postgres_speaks(void)
{
    uint8_t text[256];
    struct writer writer;
    const uint8_t *message;
    size_t bytes, begin;

    while (postgres.peer != NULL &&
           (message = take(&postgres, postgres_is_started, &bytes)) != NULL) {
        if (!postgres_is_started) {
            postgres_starts(message, bytes);
            continue;
        }
        if (message[0] == 'X') {
            hang_up(&postgres);
            return;
        }
        assert(message[0] == 'Q');
        writer_init(&writer, text, sizeof(text));
        begin = message_begin(&writer, 'C');
        /* The user's, or one of the pooler's own (DISCARD ALL). */
        if (bytes == 5 + sizeof(question) && memcmp(message + 5, question, sizeof(question)) == 0)
            writer_put_string(&writer, answer);
        else
            writer_put_string(&writer, "DISCARD ALL");
        message_end(&writer, begin);
        begin = message_begin(&writer, 'Z');
        writer_put_u8(&writer, 'I');
        message_end(&writer, begin);
        say(&postgres, &writer);
    }
}

/* ---- the pooler ---- */

static bool post_job(struct core *from, struct job *job)
{
    (void)from;
    return sim_jobs_post(&jobs, job);
}

static void give_random(struct core *from, void *out, size_t bytes)
{
    (void)from;
    memset(out, 7, bytes);
}

static void post_core(struct core *from, unsigned to, struct letter *letter)
{
    (void)from;
    (void)to;
    (void)mailbox_post(&mailbox, letter);
}

static void post_control(struct core *from, struct letter *letter)
{
    (void)from;
    (void)letter;
    never("nothing here is for control");
}

static const struct core_ports ports = {
    .post_core = post_core,
    .post_control = post_control,
    .post_job = post_job,
    .random = give_random,
};

static void accepted(struct op *op, const struct completion *completion)
{
    (void)op;
    if (completion->result >= 0)
        core_accept(&core, completion->result);
}

/* More than one would come if the first has failed: then there is nobody. */
static void session_begins(void *context, struct sim_peer *peer)
{
    (void)context;
    if (postgres.peer == NULL && postgres.out.count == 0 && postgres.in.count == 0) {
        struct stream in = postgres.in, out = postgres.out;

        end_open(&postgres, peer);
        postgres.in = in;
        postgres.out = out;
    } else {
        sim_peer_reset(peer);
        sim_peer_close(peer);
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
                                                        "listen_port = 6432\n"
                                                        "pool_mode = session\n"
                                                        "server_login_retry = 3600\n";

    (void)context;
    *bytes = strlen(text);
    return arena_copy_string(arena, text);
}

static void complain(void *context, enum log_level level, const char *text)
{
    (void)context;
    if (level <= LEVEL_ERROR)
        fprintf(stderr, "%s\n", text);
}

static struct snapshot *make_snapshot(void)
{
    struct snapshot *snapshot =
        snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, complain, NULL);

    assert(snapshot != NULL);
    if (combination.is_server_side) {
        snapshot->settings.server_tls_sslmode = TLS_MODE_REQUIRE;
        snapshot_set_tls(snapshot, NULL, tls_context_reference(servers_context),
                         tls_context_release);
    } else {
        snapshot->settings.client_tls_sslmode = TLS_MODE_REQUIRE;
        if (combination.has_certificate)
            snapshot->settings.auth_type = AUTH_CERT;
        snapshot_set_tls(snapshot, tls_context_reference(clients_context), NULL,
                         tls_context_release);
    }
    return snapshot;
}

static struct tls_context *make_context(enum tls_side side, bool shows_certificate,
                                        bool wants_certificate)
{
    struct tls_options options = {.side = side, .protocols = combination.protocol};
    char error[TLS_ERROR_BYTES];
    struct tls_context *context;

    options.suites = "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256";
    if (side == TLS_SIDE_SERVER) {
        options.certificate_file = FOLDER "p256.pem";
        options.key_file = FOLDER "p256.key";
    } else if (shows_certificate) {
        options.certificate_file = FOLDER "alice.pem";
        options.key_file = FOLDER "alice.key";
    }
    if (wants_certificate) {
        options.authorities_file = FOLDER "root.pem";
        options.verify = TLS_VERIFY_CHAIN;
    }
    context = tls_context_create(&options, error);
    if (context == NULL)
        never(error);
    return context;
}

static void no_log(enum log_level level, const char *text, size_t bytes)
{
    (void)level;
    (void)text;
    (void)bytes;
}

static void turn(void)
{
    uint64_t deadline_us = core_next_us(&core);

    if (atomic_load(&mailbox.last) != NULL)
        deadline_us = 0;
    if (!sim_would_return(ring, deadline_us))
        return;
    (void)ring_turn(ring, deadline_us);
    core.loop.now_us = sim_now_us(sim);
    (void)mailbox_open_all(&mailbox, &core);
    timers_run(&core.timers, core.loop.now_us);
    core_end_turn(&core);
}

/* Until nobody has anything to do: neither the kernel nor anybody in the world. */
static void settle(void)
{
    uint64_t last_trace = 0;
    bool is_calm = false;

    for (unsigned round = 0;; round++) {
        bool has_moved = end_moves(&user, is_calm);

        has_moved = end_moves(&postgres, is_calm) || has_moved;
        user_speaks();
        postgres_speaks();
        sim_jobs_step(&jobs);
        turn();
        sim_advance(sim, 1);
        assert(round < ROUNDS_MAX);
        if (!has_moved && sim_trace(sim) == last_trace && jobs.count == 0) {
            if (is_calm)
                return;
            is_calm = true;
        } else {
            is_calm = false;
        }
        last_trace = sim_trace(sim);
    }
}

/* One login. How many bytes the stream in question had: returned. */
static size_t log_in(size_t place)
{
    static struct param_names param_names;
    static char storage[256];
    static const uint8_t mock_key[32] = {1};
    struct end *harmed = combination.is_server_side ? &postgres : &user;
    struct stream *stream = combination.is_inwards ? &harmed->out : &harmed->in;
    struct sockaddr_in listen_address = {.sin_family = AF_INET, .sin_port = htons(6432)};
    struct sockaddr_in server_address = {.sin_family = AF_INET, .sin_port = htons(5432)};
    char error[RING_ERROR_BYTES];
    struct ring_options options = {.entries = 64, .completion_entries = 64, .buffers = &buffers};
    struct core_options core_options;
    struct op accept_op = {.done = accepted};
    size_t bytes;

    sim = sim_create(1);
    sim_set_pipe_bytes(sim, 64 * 1024);
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
    sim_serve(sim, (struct sockaddr *)&server_address, sizeof(server_address), session_begins,
              NULL);
    ring_accept(ring, &accept_op, listen_fd);

    memset(&postgres, 0, sizeof(postgres));
    postgres_is_started = is_answered = false;
    end_open(&user, sim_connect(sim, (struct sockaddr *)&listen_address, sizeof(listen_address)));
    stream->is_harmed = true;
    stream->place = place;
    user_asks_ssl = !combination.is_server_side;
    if (user_asks_ssl)
        put_ssl_request(&user);
    else
        put_startup(&user);
    settle();
    bytes = stream->taken;

    /* Who has not come to an end by himself is waited for no longer than the pooler does. */
    for (unsigned i = 0; i < 8; i++) {
        sim_advance(sim, 20 * US_PER_S);
        settle();
    }
    assert(core.clients.used_count == 0 || user.peer != NULL);
    end_close(&user);
    settle();
    assert(core.clients.used_count == 0);
    ring_cancel(ring, &accept_op);
    core_kill(&core, NULL);
    settle();
    sim_advance(sim, 20 * US_PER_S);
    settle();
    end_close(&postgres);
    settle();
    assert(core.loop.conn_count == 0);
    ring_close(ring, listen_fd);
    (void)ring_turn(ring, 0);
    assert(core.logins.used_count == 0);
    assert(core.servers.used_count == 0);
    assert(core.server_logins.used_count == 0);
    assert(core.tls_handshakes.used_count == 0);
    assert(core.loop.tls.used_count == 0);
    assert(core.loop.spans.used_count == 0);
    assert(tls_session_count() == 0);
    assert(sim_started_ops(sim) == 0);
    assert(sim_open_fds(sim) == 0);
    snapshot_release(core.snapshot);
    core_release(&core);
    assert(buffers.parked_bytes == 0);
    assert(buffers.receive_used == 0);
    ring_destroy(ring);
    buffer_pool_release(&buffers);
    usage_table_release(&usage);
    shard_table_release(&shards);
    sim_destroy(sim);
    return bytes;
}

static uint64_t run(uint64_t seed)
{
    unsigned number = (unsigned)(seed - 1) % COMBINATIONS;
    size_t bytes, step = getenv("SIM_ALL") != NULL ? 1 : STRIDE;

    log_set_sink(getenv("SIM_LOG") != NULL ? NULL : no_log);
    assert(tls_init());
    combination = (struct combination){
        .harm = number % HARMS,
        .is_inwards = number / HARMS % 2,
        .is_server_side = number / HARMS / 2 % 2,
        .has_certificate = number / HARMS / 4 % 2,
        .protocol = number / HARMS / 8 % 2 ? TLS_PROTOCOL_1_3 : TLS_PROTOCOL_1_2,
    };
    logins = failures = 0;
    clients_context = make_context(TLS_SIDE_SERVER, false, combination.has_certificate);
    servers_context = make_context(TLS_SIDE_CLIENT, combination.has_certificate, true);
    user_context = make_context(TLS_SIDE_CLIENT, combination.has_certificate, true);
    postgres_context = make_context(TLS_SIDE_SERVER, false, combination.has_certificate);

    /* Unharmed; this says how long the stream is. */
    bytes = log_in(SIZE_MAX);
    assert(is_answered || combination.harm == HARM_PIECES);
    for (size_t place = step == 1 ? 0 : number % step; place < bytes; place += step) {
        size_t seen = log_in(place);

        logins += is_answered;
        failures += !is_answered;
        if (combination.harm == HARM_SPLIT || combination.harm == HARM_PIECES)
            assert(is_answered);
        if (combination.harm == HARM_END)
            assert(seen <= place);
        if (combination.harm == HARM_PIECES)
            break;
    }
    if (combination.harm == HARM_END || combination.harm == HARM_CHANGE)
        assert(failures > logins);
    if (getenv("SIM_VERBOSE") != NULL)
        printf("%u: %s, %s certificate, %s side, %s, %s: %zu bytes, %llu logins, %llu failures\n",
               number + 1, combination.protocol == TLS_PROTOCOL_1_3 ? "1.3" : "1.2",
               combination.has_certificate ? "with" : "no",
               combination.is_server_side ? "server" : "client",
               combination.is_inwards ? "to the pooler" : "from the pooler",
               (const char *[]){"in two", "in pieces", "ended", "changed"}[combination.harm], bytes,
               logins, failures);
    tls_context_release(clients_context);
    tls_context_release(servers_context);
    tls_context_release(user_context);
    tls_context_release(postgres_context);
    return seed;
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, run, COMBINATIONS);
}
