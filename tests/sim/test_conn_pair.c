/* test_conn_pair.c - pairs of conns spliced to each other, on a kernel in every mood: bytes arrive
 * intact, in order, at the right place only; everything comes home; when the faults stop, all
 * drains.
 *
 * Each pair has a client of the world, that connects to a listener, and a server of the world, that
 * we connect to. Either sends a stream of its own, whose bytes tell the stream and the position. */
#include "harness.h"
#include "ring_sim.h"

#include "conn/conn.h"

#include <netinet/in.h>

enum {
    PAIRS_MAX = 12,
    STREAM_BYTES_MAX = 60000,
    CHUNK_BYTES_MAX = 5000,
    CHAOS_ROUNDS = 1500,
    DRAIN_ROUNDS_MAX = 200000,
    IDLE_ROUNDS_MAX = 3000, /* in which the kernel completed nothing: a stall */
};

struct pair;

/* One end in the world. */
struct end {
    struct pair *pair;
    struct sim_peer *peer;
    uint64_t out_stream, in_stream;
    uint64_t sent, total; /* of our stream */
    uint64_t got, expected;
    bool reads_late; /* nothing until the faults have stopped */
    bool answers;    /* sends nothing before it has got all */
};

struct pair {
    struct conn client, server;
    struct end client_end, server_end;
    unsigned index;
    unsigned conns; /* not gone */
    bool is_accepted;
    bool is_broken; /* a fault took bytes: what arrived must still be right, but not all need */
    bool client_quiescing;
    bool is_begun;                   /* its client was resumed */
    struct span_queue held;          /* as what waits for a server: let go with the last conn */
    bool client_rests, server_rests; /* suspended, and nothing is in flight */
};

static struct sim *sim;
static struct ring *ring;
static struct buffer_pool pool;
static struct conn_loop loop;
static struct pair pairs[PAIRS_MAX];
static unsigned pair_count;
static struct op accept_op;
static int listen_fd;
static struct sockaddr_in listen_address, server_address;
static bool is_chaos;
static bool owner_breaks,
    world_resets; /* in some seeds: else too few would live long enough to stall */
static unsigned quiesced_count;
static unsigned rested_count;

static uint8_t stream_byte(uint64_t stream, uint64_t position)
{
    uint64_t value = (stream << 32) + position / 8 + 1;

    value *= UINT64_C(0x9e3779b97f4a7c15);
    value ^= value >> 29;
    value *= UINT64_C(0xbf58476d1ce4e5b9);
    return (uint8_t)(value >> 8 * (position % 8));
}

/* ---- the forwarder under test ---- */

static struct pair *pair_of(struct conn *conn)
{
    for (unsigned i = 0; i < pair_count; i++)
        if (conn == &pairs[i].client || conn == &pairs[i].server)
            return &pairs[i];
    never("a conn that nobody knows");
}

static struct conn *other_of(struct conn *conn)
{
    struct pair *pair = pair_of(conn);

    return conn == &pair->client ? &pair->server : &pair->client;
}

static void pair_close(struct pair *pair, bool flush)
{
    if (pair->is_accepted) {
        /* Nothing is sent before a connect, not even then. */
        if (pair->server.state == CONN_OPEN && pair->server.is_connecting)
            pair->is_broken = true;
        conn_close(&pair->client, flush);
        conn_close(&pair->server, flush);
    }
}

static void pair_break(struct pair *pair)
{
    pair->is_broken = true;
    pair_close(pair, sim_below(sim, 2) == 0);
}

static bool push(struct conn *to, struct buffer *buffer, uint32_t offset, uint32_t bytes)
{
    switch (sim_below(sim, 8)) {
    case 0:
        return conn_push_copy(to, buffer->data + offset, bytes);
    case 1: {
        struct buffer *parked = buffer_park(&pool, bytes);
        bool pushed;

        assert(parked != NULL);
        memcpy(parked->data, buffer->data + offset, bytes);
        pushed = conn_push(to, parked, 0, bytes);
        buffer_release(&pool, parked);
        return pushed;
    }
    default:
        return conn_push(to, buffer, offset, bytes);
    }
}

static bool *rests_of(struct conn *conn)
{
    struct pair *pair = pair_of(conn);

    return conn == &pair->client ? &pair->client_rests : &pair->server_rests;
}

static void received(struct conn *conn, struct buffer *buffer, uint32_t bytes)
{
    struct conn *to = other_of(conn);
    uint32_t offset = 0;

    assert(!*rests_of(conn));
    if (pair_of(conn)->held.first == NULL && sim_below(sim, 20) == 0 &&
        pool.receive_count_max > PAIRS_MAX)
        (void)!span_queue_push(&pair_of(conn)->held, &loop, buffer, 0, bytes);
    while (offset < bytes) {
        uint32_t count = bytes - offset;

        if (sim_below(sim, 4) == 0)
            count = 1 + (uint32_t)sim_below(sim, count);
        if (!push(to, buffer, offset, count)) {
            pair_break(pair_of(conn));
            return;
        }
        offset += count;
    }
    if (conn_is_full(to))
        conn_pause(conn);
}

static void ended(struct conn *conn, int error)
{
    struct pair *pair = pair_of(conn);

    if (error != 0)
        pair->is_broken = true;
    /* It goes away all the same, and its end is found again when it is back. */
    if (conn == &pair->client && pair->client_quiescing && sim_below(sim, 2) == 0)
        return;
    pair_close(pair, true);
}

static void drained(struct conn *conn)
{
    struct pair *pair = pair_of(conn);

    if (conn == &pair->server && pair->client_quiescing)
        return;
    conn_resume(other_of(conn));
}

static void connected(struct conn *conn, int error)
{
    struct pair *pair = pair_of(conn);

    if (error != 0) {
        pair_break(pair);
        return;
    }
    conn_resume(conn);
}

static void gone(struct conn *conn)
{
    struct pair *pair = pair_of(conn);

    assert(conn->state == CONN_GONE);
    assert(pair->conns > 0);
    pair->conns--;
    span_queue_clear(&pair->held, &loop);
    /* Whoever sees it freed would notice. */
    memset(conn, 0xdb, sizeof(*conn));
    conn->state = CONN_GONE;
}

static const struct conn_events events;

/* Away, as if to another core, and back. */
static void hand_over(struct pair *pair)
{
    struct tls *tls;
    int fd = conn_detach(&pair->client, &tls);

    pair->client_rests = false;
    pair->client_quiescing = false;
    quiesced_count++;
    memset(&pair->client, 0xdb, sizeof(pair->client));
    conn_open(&pair->client, &loop, fd, &events);
    conn_resume(&pair->client);
    /* Nothing is queued any more; `drained` will not be said of a conn that was detached. */
    conn_resume(&pair->server);
}

static void quiet(struct conn *conn)
{
    hand_over(pair_of(conn));
}

/* As if half of the receives ended between two messages. */
static bool may_hold(const struct conn *conn)
{
    return conn->is_held || sim_below(sim, 2) == 0;
}

static const struct conn_events events = {
    .may_hold = may_hold,
    .received = received,
    .ended = ended,
    .drained = drained,
    .connected = connected,
    .quiet = quiet,
    .gone = gone,
};

static void accepted(struct op *op, const struct completion *completion)
{
    struct sockaddr_storage address;
    struct pair *pair = NULL;

    if (!completion->more && is_chaos)
        ring_accept(ring, op, listen_fd);
    if (completion->result < 0)
        return;
    if (ring_peer_address(ring, completion->result, &address) < 0)
        address.ss_family = 0;
    for (unsigned i = 0; address.ss_family != 0 && i < pair_count; i++)
        if (pairs[i].index == ntohs(((struct sockaddr_in *)&address)->sin_port))
            pair = &pairs[i];
    if (pair == NULL) {
        /* Broken before it was accepted: it tells no address. */
        ring_close(ring, completion->result);
        return;
    }
    conn_open(&pair->client, &loop, completion->result, &events);
    /* The server's world end cannot know us by our port before it is told; so by order of
     * connecting. */
    if (conn_connect(&pair->server, &loop, (struct sockaddr *)&server_address,
                     sizeof(server_address), &events) < 0) {
        pair->is_broken = true;
        pair->conns = 1;
        pair->server.state = CONN_GONE;
        pair->server.loop = &loop;
        conn_close(&pair->client, false);
        return;
    }
    pair->conns = 2;
    pair->is_accepted = true;
    if (sim_below(sim, 2) == 0) {
        pair->is_begun = true;
        conn_resume(&pair->client);
    }
}

/* ---- the world ---- */

/* Which of our conns it is shows in the address that the conn has. */
static void served(void *context, struct sim_peer *peer)
{
    (void)context;
    for (unsigned i = 0; i < pair_count; i++) {
        struct pair *pair = &pairs[i];

        if (pair->is_accepted && pair->server_end.peer == NULL && pair->server.state == CONN_OPEN &&
            pair->server.is_connecting) {
            struct sockaddr_storage address;

            if (ring_peer_address(ring, pair->server.fd, &address) == 0) {
                pair->server_end.peer = peer;
                return;
            }
        }
    }
    /* Closed meanwhile: the connect was too late to be stopped. */
    sim_peer_close(peer);
}

static void end_write(struct end *end, size_t bytes_max)
{
    uint8_t chunk[CHUNK_BYTES_MAX];
    size_t bytes = (size_t)MIN(end->total - end->sent, (uint64_t)bytes_max);

    for (size_t i = 0; i < bytes; i++)
        chunk[i] = stream_byte(end->out_stream, end->sent + i);
    end->sent += sim_peer_write(end->peer, chunk, bytes);
}

static void end_read(struct end *end, size_t bytes_max)
{
    uint8_t chunk[CHUNK_BYTES_MAX];
    size_t bytes = sim_peer_read(end->peer, chunk, bytes_max);

    for (size_t i = 0; i < bytes; i++)
        assert(chunk[i] == stream_byte(end->in_stream, end->got + i));
    end->got += bytes;
    assert(end->got <= end->expected);
}

static void end_close(struct end *end)
{
    sim_peer_close(end->peer);
    end->peer = NULL;
}

static void end_step(struct end *end)
{
    struct pair *pair = end->pair;
    size_t bytes = is_chaos ? 1 + sim_below(sim, CHUNK_BYTES_MAX) : CHUNK_BYTES_MAX;

    if (end->peer == NULL || (is_chaos && sim_below(sim, 3) == 0))
        return;
    if (!end->answers || end->got == end->expected)
        end_write(end, bytes);
    if (!is_chaos || !end->reads_late)
        end_read(end, bytes);
    if (is_chaos && world_resets && sim_below(sim, 3000) == 0) {
        pair->is_broken = true;
        sim_peer_reset(end->peer);
    }
    if (sim_peer_is_at_end(end->peer)) {
        /* Without a fault only the server is told of an end, when all is done. */
        if (sim_peer_is_reset(end->peer) || end == &pair->client_end)
            pair->is_broken = true;
        end_close(end);
    } else if (end == &pair->client_end && end->got == end->expected && end->sent == end->total) {
        end_close(end);
    }
}

/* ---- the whole ---- */

static void check_lingering(const struct conn *conn)
{
    if (conn->state == CONN_CLOSING && conn->linger_until_us != 0)
        assert(conn->linger_until_us > loop.now_us);
}

/* Its reader is too slow: bytes are dropped, which is right. */
static void break_late(struct pair *pair, const struct conn *conn)
{
    if (conn->state == CONN_CLOSING && conn->linger_until_us != 0 &&
        conn->linger_until_us <= loop.now_us)
        pair->is_broken = true;
}

static void turn(void)
{
    if (!sim_would_return(ring, conn_loop_next_us(&loop)))
        return;
    loop.now_us = sim_now_us(sim);
    (void)ring_turn(ring, conn_loop_next_us(&loop));
    for (unsigned i = 0; i < pair_count; i++)
        if (pairs[i].is_accepted) {
            break_late(&pairs[i], &pairs[i].client);
            break_late(&pairs[i], &pairs[i].server);
        }
    conn_loop_flush(&loop);
    for (unsigned i = 0; i < pair_count; i++)
        if (pairs[i].is_accepted) {
            check_lingering(&pairs[i].client);
            check_lingering(&pairs[i].server);
        }
}

static void client_connects(struct pair *pair)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)pair->index)};

    pair->client_end.peer =
        sim_connect(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));
    assert(pair->client_end.peer != NULL);
    sim_peer_set_address(pair->client_end.peer, (struct sockaddr *)&address, sizeof(address));
}

static void owner_acts(struct pair *pair)
{
    if (!pair->is_accepted || pair->conns < 2)
        return;
    switch (sim_below(sim, 400)) {
    case 0:
        /* The pooler ends it, as on a timeout. */
        if (owner_breaks)
            pair_break(pair);
        break;
    case 1:
    case 2:
        if (!pair->client_quiescing && pair->client.state == CONN_OPEN && !pair->client.has_ended) {
            pair->client_quiescing = true;
            if (conn_quiesce(&pair->client))
                hand_over(pair);
        }
        break;
    default:
        /* Once only: what stops after that must be brought on by conn itself. */
        if (!pair->is_begun && !pair->client_quiescing) {
            pair->is_begun = true;
            conn_resume(&pair->client);
        }
        break;
    }
}

static void each_open(void (*act)(struct conn *conn))
{
    for (unsigned i = 0; i < pair_count; i++) {
        struct pair *pair = &pairs[i];

        if (!pair->is_accepted || pair->conns == 0)
            continue;
        if (pair->client.state == CONN_OPEN)
            act(&pair->client);
        if (pair->server.state == CONN_OPEN)
            act(&pair->server);
    }
}

static void note_rest(struct conn *conn)
{
    /* What is held has no receive but one that is ending. */
    assert(!conn->is_held || !conn->receive_op.started || conn->receive_op.cancelling);
    if (!conn_is_at_rest(conn))
        return;
    *rests_of(conn) = true;
    rested_count++;
}

static void wake(struct conn *conn)
{
    *rests_of(conn) = false;
    conn_release(conn);
}

/* Now and then everything is suspended for a while: what is at rest hears nothing until it is over. */
static void suspend_acts(void)
{
    if (sim_below(sim, loop.is_suspended ? 20 : 200) == 0) {
        loop.is_suspended = !loop.is_suspended;
        each_open(loop.is_suspended ? conn_hold_if_possible : wake);
    } else if (loop.is_suspended) {
        each_open(conn_hold_if_possible);
        each_open(note_rest);
    }
}

static bool all_is_done(void)
{
    if (accept_op.started)
        return false;
    for (unsigned i = 0; i < pair_count; i++)
        if (pairs[i].conns > 0 || pairs[i].client_end.peer != NULL ||
            pairs[i].server_end.peer != NULL)
            return false;
    return true;
}

/* What moves the simulated time when nobody has anything to do. */
static void jump(void)
{
    uint64_t next_us = MIN(conn_loop_next_us(&loop), sim_next_us(sim));

    if (!sim_has_work(sim) && next_us != UINT64_MAX && next_us > sim_now_us(sim))
        sim_advance(sim, next_us - sim_now_us(sim));
}

static uint64_t run(uint64_t seed)
{
    char error[RING_ERROR_BYTES];
    struct sim_faults faults;
    struct ring_options options;
    uint64_t round_us;
    uint64_t trace, last_trace = 0;
    unsigned round, idle_rounds = 0;
    uint32_t parked = 0;

    sim = sim_create(seed);
    sim_draw_faults(sim, &faults);
    sim_set_faults(sim, &faults);
    owner_breaks = sim_below(sim, 3) == 0;
    world_resets = sim_below(sim, 3) == 0;
    round_us = sim_below(sim, 4) == 0 ? 100000 : 300;
    assert(buffer_pool_init(&pool, 64u << sim_below(sim, 6), 8u << sim_below(sim, 4)));
    options = (struct ring_options){
        .entries = 1u << sim_below(sim, 8), .completion_entries = 64, .buffers = &pool};
    ring = ring_create(&options, error);
    assert(ring != NULL);
    assert(conn_loop_init(&loop, ring, &pool, sim_below(sim, 3) == 0 ? 60 : 4000));
    loop.now_us = sim_now_us(sim);
    listen_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(6432)};
    server_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(5432)};
    listen_fd = sim_listen(sim, (struct sockaddr *)&listen_address, sizeof(listen_address));
    sim_serve(sim, (struct sockaddr *)&server_address, sizeof(server_address), served, NULL);

    pair_count = 1 + (unsigned)sim_below(sim, PAIRS_MAX);
    memset(pairs, 0, sizeof(pairs));
    for (unsigned i = 0; i < pair_count; i++) {
        struct pair *pair = &pairs[i];
        uint64_t bytes_max = sim_below(sim, 2) == 0 ? 100 : STREAM_BYTES_MAX;

        pair->index = i + 1;
        pair->client_end = (struct end){.pair = pair,
                                        .out_stream = 2 * i + 1,
                                        .in_stream = 2 * i + 2,
                                        .total = sim_below(sim, bytes_max),
                                        .expected = sim_below(sim, bytes_max),
                                        .reads_late = sim_below(sim, 6) == 0};
        pair->server_end = (struct end){.pair = pair,
                                        .out_stream = 2 * i + 2,
                                        .in_stream = 2 * i + 1,
                                        .total = pair->client_end.expected,
                                        .expected = pair->client_end.total,
                                        .answers = sim_below(sim, 2) == 0,
                                        .reads_late = sim_below(sim, 6) == 0};
    }

    is_chaos = true;
    accept_op = (struct op){.done = accepted};
    ring_accept(ring, &accept_op, listen_fd);
    for (unsigned i = 0; i < pair_count; i++)
        client_connects(&pairs[i]);
    for (round = 0; round < CHAOS_ROUNDS; round++) {
        for (unsigned i = 0; i < pair_count; i++) {
            end_step(&pairs[i].client_end);
            end_step(&pairs[i].server_end);
            owner_acts(&pairs[i]);
        }
        suspend_acts();
        turn();
        sim_advance(sim, sim_below(sim, round_us));
    }
    loop.is_suspended = false;
    each_open(wake);

    /* The faults stop. The listener goes, and with it who was not accepted. */
    sim_set_faults(sim, &(struct sim_faults){0});
    is_chaos = false;
    ring_cancel(ring, &accept_op);
    for (round = 0; !all_is_done() && round < DRAIN_ROUNDS_MAX && idle_rounds < IDLE_ROUNDS_MAX;
         round++) {
        for (unsigned i = 0; i < pair_count; i++) {
            struct pair *pair = &pairs[i];

            end_step(&pair->client_end);
            end_step(&pair->server_end);
            if (!pair->is_begun && pair->is_accepted && pair->conns == 2 &&
                !pair->client_quiescing) {
                pair->is_begun = true;
                conn_resume(&pair->client);
            }
            if (!pair->is_accepted && pair->client_end.peer != NULL && !accept_op.started) {
                pair->is_broken = true;
                end_close(&pair->client_end);
            }
        }
        turn();
        sim_advance(sim, 10);
        jump();
        idle_rounds = sim_trace(sim) == last_trace ? idle_rounds + 1 : 0;
        last_trace = sim_trace(sim);
    }
    if (!all_is_done())
        for (unsigned i = 0; i < pair_count; i++)
            fprintf(
                stderr,
                "pair %u: %u conns, client sent %llu/%llu got %llu/%llu, server sent %llu/%llu got "
                "%llu/%llu%s%s\n",
                i, pairs[i].conns, (unsigned long long)pairs[i].client_end.sent,
                (unsigned long long)pairs[i].client_end.total,
                (unsigned long long)pairs[i].client_end.got,
                (unsigned long long)pairs[i].client_end.expected,
                (unsigned long long)pairs[i].server_end.sent,
                (unsigned long long)pairs[i].server_end.total,
                (unsigned long long)pairs[i].server_end.got,
                (unsigned long long)pairs[i].server_end.expected,
                pairs[i].is_broken ? " broken" : "", pairs[i].client_quiescing ? " quiescing" : "");
    assert(all_is_done());

    /* Every byte of those that met no fault, and everything home. */
    for (unsigned i = 0; i < pair_count; i++)
        if (!pairs[i].is_broken && faults.reset == 0) {
            assert(pairs[i].client_end.got == pairs[i].client_end.expected);
            assert(pairs[i].server_end.got == pairs[i].server_end.expected);
        }
    ring_close(ring, listen_fd);
    (void)sim_would_return(ring, 0);
    (void)ring_turn(ring, 0);
    assert(loop.conn_count == 0);
    assert(loop.spans.used_count == 0);
    assert(pool.receive_used == 0);
    assert(pool.parked_bytes == 0);
    for (int class = 0; class < PARKED_CLASSES; class ++)
        parked += pool.parked[class].used_count;
    assert(parked == 0);
    assert(sim_started_ops(sim) == 0);
    assert(sim_open_fds(sim) == 0);
    for (unsigned i = 0; i < pair_count; i++)
        sim_note(sim, pairs[i].client_end.got ^ pairs[i].server_end.got << 32);
    sim_note(sim, quiesced_count);
    sim_note(sim, rested_count);
    quiesced_count = 0;
    rested_count = 0;
    trace = sim_trace(sim);
    ring_destroy(ring);
    conn_loop_release(&loop);
    buffer_pool_release(&pool);
    sim_destroy(sim);
    return trace;
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, run, 200);
}
