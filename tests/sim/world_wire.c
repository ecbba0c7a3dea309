#include "world_wire.h"

#include "tls_count.h"

#include <string.h>

#define FOLDER "tests/unit/tls/"

struct wire_contexts wire_contexts;

static uint64_t seed_state;
static bool is_repeatable;

/* ---- contexts ---- */

static void give_seed(void *out, size_t bytes)
{
    uint8_t *at = out;

    while (bytes-- > 0) {
        seed_state = seed_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        *at++ = (uint8_t)(seed_state >> 56);
    }
}

static struct tls_context *make_context(struct tls_options options, enum tls_side side)
{
    char error[TLS_ERROR_BYTES];
    struct tls_context *context;

    options.side = side;
    options.suites = "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256";
    if (side == TLS_SIDE_SERVER) {
        options.certificate_file = FOLDER "p256.pem";
        options.key_file = FOLDER "p256.key";
    }
    context = tls_context_create(&options, error);
    if (context == NULL)
        never(error);
    return context;
}

void wire_begin(uint64_t seed)
{
    static bool is_ready;
    const unsigned both = TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3;
    const unsigned protocols[] = {both, TLS_PROTOCOL_1_2, TLS_PROTOCOL_1_3};

    if (!is_ready)
        assert(tls_init());
    is_ready = true;
    seed_state = seed;
    is_repeatable = tls_set_seed(give_seed);
    assert(tls_session_count() == 0);
    wire_contexts = (struct wire_contexts){
        .clients = make_context((struct tls_options){.protocols = both, .alpn = "postgresql"},
                                TLS_SIDE_SERVER),
        .servers = {make_context((struct tls_options){.protocols = both}, TLS_SIDE_CLIENT),
                    make_context((struct tls_options){.protocols = both,
                                                      .authorities_file = FOLDER "root.pem",
                                                      .verify = TLS_VERIFY_CHAIN},
                                 TLS_SIDE_CLIENT)},
        .user =
            make_context((struct tls_options){.protocols = protocols[seed % COUNT_OF(protocols)],
                                              .alpn = "postgresql"},
                         TLS_SIDE_CLIENT),
        .postgres = make_context(
            (struct tls_options){.protocols = protocols[seed / 3 % COUNT_OF(protocols)]},
            TLS_SIDE_SERVER),
    };
}

bool wire_is_repeatable(void)
{
    return is_repeatable;
}

void wire_end(void)
{
    assert(tls_session_count() == 0);
    tls_context_release(wire_contexts.clients);
    tls_context_release(wire_contexts.servers[0]);
    tls_context_release(wire_contexts.servers[1]);
    tls_context_release(wire_contexts.user);
    tls_context_release(wire_contexts.postgres);
    wire_contexts = (struct wire_contexts){0};
}

/* ---- a wire ---- */

void wire_open(struct wire *wire, struct sim_peer *peer)
{
    *wire = (struct wire){.peer = peer, .flip_at = SIZE_MAX, .cut_at = SIZE_MAX};
}

struct sink {
    struct tls_output output;
    struct wire *wire;
};

/* What is out is as it will arrive. */
static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    struct wire *wire = OWNER_OF(output, struct sink, output)->wire;
    size_t first = wire->raw_bytes;

    wire->raw_bytes += bytes;
    if (wire->cut_at < wire->raw_bytes)
        bytes = wire->cut_at > first ? wire->cut_at - first : 0;
    heap_put(&wire->out, data, bytes);
    if (wire->flip_at >= first && wire->flip_at < first + bytes)
        wire->out.data[wire->out.end - bytes + (wire->flip_at - first)] ^= 0x5a;
    return true;
}

static struct sink sink_of(struct wire *wire)
{
    return (struct sink){.output.put = put, .wire = wire};
}

static void flush(struct wire *wire)
{
    wire->out.begin +=
        sim_peer_write(wire->peer, wire->out.data + wire->out.begin, heap_bytes(&wire->out));
}

/* What was fed, and what the handshake has left of it. */
static void go_on(struct wire *wire)
{
    struct sink sink = sink_of(wire);
    enum tls_result result;
    uint8_t chunk[4096];
    size_t got;

    if (wire->is_shaking) {
        result = tls_handshake(wire->session, &sink.output);
        wire->has_failed = result == TLS_FAILED;
        wire->is_shaking = result != TLS_OK;
        if (result != TLS_OK)
            return;
    }
    do {
        result = tls_read(wire->session, &sink.output, chunk, sizeof(chunk), &got);
        heap_put(&wire->plain, chunk, got);
    } while (result == TLS_OK);
    wire->has_goodbye = result == TLS_CLOSED;
    wire->has_failed = result == TLS_FAILED;
}

void wire_start_tls(struct wire *wire, struct tls_context *context)
{
    assert(wire->session == NULL);
    wire->session = tls_create(context, NULL);
    assert(wire->session != NULL);
    wire->is_shaking = true;
    go_on(wire); /* a client begins */
    flush(wire);
}

size_t wire_write(struct wire *wire, const void *data, size_t bytes)
{
    struct sink sink = sink_of(wire);

    if (wire->session == NULL)
        return sim_peer_write(wire->peer, data, bytes);
    flush(wire);
    if (!wire_is_up(wire) || wire->has_said_goodbye || heap_bytes(&wire->out) > 0 || bytes == 0)
        return 0;
    assert(tls_write(wire->session, &sink.output, data, bytes));
    flush(wire);
    return bytes;
}

size_t wire_read(struct wire *wire, void *data, size_t bytes_max)
{
    uint8_t chunk[4096];
    size_t bytes;

    if (wire->session == NULL)
        return sim_peer_read(wire->peer, data, bytes_max);
    flush(wire);
    if (wire->has_said_goodbye) { /* the session is over: what still comes is for nobody */
        (void)sim_peer_read(wire->peer, chunk, sizeof(chunk));
        return 0;
    }
    if (heap_bytes(&wire->plain) < bytes_max && !wire->has_failed && !wire->has_goodbye) {
        bytes = sim_peer_read(wire->peer, chunk, MIN(bytes_max, sizeof(chunk)));
        if (bytes > 0) {
            tls_feed(wire->session, chunk, bytes);
            go_on(wire);
            flush(wire);
        }
    }
    bytes = MIN(bytes_max, heap_bytes(&wire->plain));
    if (bytes == 0)
        return 0;
    memcpy(data, wire->plain.data + wire->plain.begin, bytes);
    wire->plain.begin += bytes;
    sim_note(world.sim, bytes); /* something happens, though nobody asks the kernel */
    return bytes;
}

struct scram_channel wire_channel(const struct wire *wire)
{
    struct scram_channel channel = {.is_tls = wire->session != NULL && !wire->is_shaking};

    if (channel.is_tls)
        channel.binding_bytes = (uint8_t)tls_end_point(wire->session, channel.binding);
    return channel;
}

bool wire_is_at_end(const struct wire *wire)
{
    if (wire->session == NULL || wire->has_said_goodbye)
        return sim_peer_is_at_end(wire->peer);
    return heap_bytes(&wire->plain) == 0 &&
           (wire->has_failed || wire->has_goodbye || sim_peer_is_at_end(wire->peer));
}

bool wire_change_keys(struct wire *wire)
{
    struct sink sink = sink_of(wire);

    if (!wire_is_up(wire) || wire->has_said_goodbye ||
        !tls_update_keys(wire->session, &sink.output))
        return false;
    flush(wire);
    return true;
}

void wire_say_goodbye(struct wire *wire)
{
    struct sink sink = sink_of(wire);

    if (!wire_is_up(wire) || wire->has_said_goodbye)
        return;
    wire->has_said_goodbye = true;
    tls_close_notify(wire->session, &sink.output);
    flush(wire);
}

void wire_close(struct wire *wire)
{
    if (wire->peer != NULL)
        sim_peer_close(wire->peer);
    tls_destroy(wire->session);
    heap_free(&wire->out);
    heap_free(&wire->plain);
    *wire = (struct wire){0};
}
