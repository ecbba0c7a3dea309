#include "world_vandal.h"

#include "world_wire.h"

#include "wire/message.h"

#include <stdio.h>
#include <string.h>

enum {
    VANDALS_MAX = 3,
    SSL_REQUEST_CODE = 80877103,
    SEEN_MAX = 64,
    RUBBISH_BYTES_MAX = 600,
};

enum harm {
    HARM_SMUGGLES,   /* a startup packet behind SSLRequest */
    HARM_RUBBISH,    /* instead of ClientHello */
    HARM_MUTE,       /* it has only asked */
    HARM_HELLO,      /* the first byte of one, and rubbish */
    HARM_CUT,        /* its bytes end somewhere, and the stream with them */
    HARM_SILENCE,    /* the same, but nobody says so */
    HARM_FLIP,       /* one of its bytes is another */
    HARM_RECORDS,    /* rubbish behind the handshake */
    HARM_GOODBYE,    /* close_notify, and it goes on */
    HARM_ASKS_AGAIN, /* SSLRequest inside of TLS */
    HARM_NEW_KEYS,   /* again and again, and reads nothing */
    HARM_LEAVES,     /* as soon as it is up */
    HARM_HURRIES,    /* more than a hello, and goes */
    HARMS,
};

static const char *const names[HARMS] = {"smuggles",
                                         "sends rubbish",
                                         "is mute",
                                         "says half a hello",
                                         "is cut off",
                                         "is silent",
                                         "has a changed byte",
                                         "bad records",
                                         "goodbye",
                                         "asks again",
                                         "new keys",
                                         "leaves",
                                         "hurries"};

static struct vandal {
    struct wire wire;
    enum harm harm;
    bool asks_ssl;  /* and waits for the answer */
    bool has_begun; /* to do harm */
    bool is_over;   /* it has no more to say */
    bool is_slow;
    unsigned rounds;
    uint8_t seen[SEEN_MAX]; /* what came before TLS, or without it */
    size_t seen_bytes;
} vandals[VANDALS_MAX];

static void put_rubbish(struct vandal *vandal, bool is_record)
{
    uint8_t bytes[RUBBISH_BYTES_MAX];
    size_t count = 6 + sim_below(world.sim, sizeof(bytes) - 6);

    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)sim_random(world.sim);
    if (is_record && !happens(3)) { /* that looks like one */
        static const uint8_t types[] = {20, 21, 22, 23, 24};

        bytes[0] = types[sim_below(world.sim, sizeof(types))];
        bytes[1] = 3;
        bytes[2] = happens(2) ? 3 : 1;
        bytes_put_u16(bytes + 3, (uint16_t)sim_below(world.sim, happens(2) ? count : 20000));
    }
    (void)sim_peer_write(vandal->wire.peer, bytes, count);
}

static size_t make_startup(uint8_t packet[128])
{
    struct writer writer;
    size_t begin;

    writer_init(&writer, packet, 128);
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3u << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, login_names[LOGIN_AUTH_USER].name);
    writer_put_string(&writer, "database");
    writer_put_string(&writer, databases[0].name);
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    return writer.bytes;
}

static size_t make_ssl_request(uint8_t packet[8])
{
    bytes_put_u32(packet, 8);
    bytes_put_u32(packet + 4, SSL_REQUEST_CODE);
    return 8;
}

static void vandal_comes(struct vandal *vandal)
{
    struct sim_peer *peer = sim_connect(world.sim, (struct sockaddr *)&world.listen_address,
                                        sizeof(world.listen_address));
    uint8_t packet[8 + 128];
    size_t bytes = make_ssl_request(packet);

    memset(vandal, 0, sizeof(*vandal));
    if (peer == NULL)
        return;
    wire_open(&vandal->wire, peer);
    vandal->harm = (enum harm)sim_below(world.sim, HARMS);
    vandal->is_slow = happens(3);
    world_log("a vandal comes: %s", names[vandal->harm]);
    if (vandal->harm == HARM_SMUGGLES)
        bytes += make_startup(packet + bytes);
    if (vandal->harm == HARM_HELLO) {
        packet[0] = 0x16;
        bytes = 1;
        vandal->has_begun = vandal->is_over = true;
    }
    if (vandal->harm == HARM_CUT || vandal->harm == HARM_SILENCE)
        vandal->wire.cut_at = sim_below(world.sim, happens(2) ? 1000 : 60);
    if (vandal->harm == HARM_FLIP)
        vandal->wire.flip_at = sim_below(world.sim, happens(2) ? 1000 : 60);
    if (vandal->harm > HARM_HELLO && happens(3)) {
        wire_start_tls(&vandal->wire, wire_contexts.user);
        return;
    }
    (void)sim_peer_write(peer, packet, bytes);
    if (vandal->harm == HARM_HELLO)
        put_rubbish(vandal, false);
    else
        vandal->asks_ssl = true;
}

/* What the pooler says in plain: never that a password is wanted, or granted, behind its 'S'. */
static void look(struct vandal *vandal, const uint8_t *bytes, size_t count)
{
    count = MIN(count, SEEN_MAX - vandal->seen_bytes);
    memcpy(vandal->seen + vandal->seen_bytes, bytes, count);
    vandal->seen_bytes += count;
    if (vandal->seen_bytes == 0)
        return;
    /* What looks like a hello is for TLS, or for nobody. */
    if (vandal->harm == HARM_HELLO) {
        assert(memchr("\x15\x16"
                      "E",
                      vandal->seen[0], 3) != NULL);
        return;
    }
    assert(memchr("SNE", vandal->seen[0], 3) != NULL);
    if (vandal->harm == HARM_SMUGGLES && world.reads_are_whole)
        assert(vandal->seen[0] == 'E');
    if (vandal->seen[0] == 'S' && vandal->seen_bytes > 1)
        assert(vandal->seen[1] == 0x15); /* an alert */
}

static void answered(struct vandal *vandal, char answer)
{
    vandal->asks_ssl = false;
    if (answer != 'S') {
        vandal->is_over = true;
        return;
    }
    if (vandal->harm > HARM_HELLO) {
        wire_start_tls(&vandal->wire, wire_contexts.user);
        return;
    }
    vandal->has_begun = true;
    vandal->is_over = vandal->harm != HARM_MUTE;
    if (vandal->harm == HARM_RUBBISH)
        put_rubbish(vandal, happens(2));
}

/* It is up. */
static void do_harm(struct vandal *vandal)
{
    struct wire *wire = &vandal->wire;
    uint8_t packet[128];
    size_t bytes;

    vandal->has_begun = true;
    switch (vandal->harm) {
    case HARM_RECORDS:
        if (happens(2)) {
            bytes = make_startup(packet);
            (void)wire_write(wire, packet, bytes);
        }
        if (wire_is_flushed(wire))
            put_rubbish(vandal, true);
        vandal->is_over = true;
        break;
    case HARM_GOODBYE:
        bytes = make_startup(packet);
        if (happens(2))
            (void)wire_write(wire, packet, happens(2) ? bytes : bytes / 2);
        wire_say_goodbye(wire);
        if (wire_is_flushed(wire) && happens(2))
            put_rubbish(vandal, true);
        vandal->is_over = true;
        break;
    case HARM_ASKS_AGAIN:
        bytes = make_ssl_request(packet);
        (void)wire_write(wire, packet, bytes);
        vandal->is_over = true;
        break;
    case HARM_NEW_KEYS:
        vandal->has_begun = false;
        for (unsigned i = 0; i < 50 && wire_is_flushed(wire); i++)
            if (!wire_change_keys(wire))
                vandal->has_begun = vandal->is_over = true;
        vandal->is_over = vandal->is_over || ++vandal->rounds > 100;
        vandal->has_begun = vandal->is_over;
        break;
    case HARM_LEAVES:
        sim_peer_reset(wire->peer);
        vandal->is_over = true;
        break;
    default: /* its bytes do it, or it looks like everybody else: then it logs in, or half */
        bytes = make_startup(packet);
        (void)wire_write(wire, packet, bytes);
        vandal->is_over = happens(2);
        break;
    }
}

static void vandal_step(struct vandal *vandal)
{
    struct wire *wire = &vandal->wire;
    uint8_t chunk[512];
    bool is_cut;
    size_t bytes;

    if (wire->peer == NULL) {
        if (world.is_chaos && happens(30))
            vandal_comes(vandal);
        return;
    }
    if (world.is_chaos && vandal->is_slow && happens(2))
        return;
    if (vandal->harm != HARM_NEW_KEYS || vandal->is_over || !wire_is_up(wire)) {
        bytes = wire_read(wire, chunk, vandal->asks_ssl ? 1 : sizeof(chunk));
        if (wire->session == NULL)
            look(vandal, chunk, bytes);
        if (vandal->asks_ssl && bytes > 0)
            answered(vandal, (char)chunk[0]);
    }
    if (vandal->harm == HARM_HURRIES && wire->session != NULL && wire_is_flushed(wire)) {
        static const uint8_t record[] = {22, 3, 3, 0x3f, 0xff, 0, 0, 0};

        /* Of a record that will never be whole. */
        if (vandal->rounds < sizeof(record))
            (void)sim_peer_write(wire->peer, &record[vandal->rounds], 1);
        if (++vandal->rounds > sizeof(record) || happens(4)) {
            world_log("a vandal hurries away");
            wire_close(wire);
            return;
        }
    }
    is_cut = wire->raw_bytes > wire->cut_at;
    if (is_cut && vandal->harm == HARM_CUT && wire_is_flushed(wire)) {
        if (happens(2))
            sim_peer_shutdown(wire->peer);
        else
            sim_peer_reset(wire->peer);
        vandal->is_over = true;
    }
    if (wire_is_up(wire) && !vandal->has_begun && !is_cut)
        do_harm(vandal);
    /* In the chaos its end is the pooler's affair, but for those who go away by themselves. */
    if (wire_is_at_end(wire) || sim_peer_is_reset(wire->peer) ||
        ((vandal->is_over || !world.is_chaos) && happens(200)) ||
        (vandal->seen_bytes > 0 && vandal->seen[0] == 'N')) {
        world_log("a vandal goes");
        wire_close(wire);
    }
}

void vandals_step(void)
{
    if (!world.has_tls)
        return;
    for (unsigned i = 0; i < VANDALS_MAX; i++)
        vandal_step(&vandals[i]);
}

bool vandals_are_done(void)
{
    for (unsigned i = 0; i < VANDALS_MAX; i++)
        if (vandals[i].wire.peer != NULL)
            return false;
    return true;
}

void vandals_explain(void)
{
    for (unsigned i = 0; i < VANDALS_MAX; i++)
        if (vandals[i].wire.peer != NULL)
            fprintf(stderr, "a vandal who %s: asks %d, up %d, over %d, sent %zu\n",
                    names[vandals[i].harm], vandals[i].asks_ssl, wire_is_up(&vandals[i].wire),
                    vandals[i].is_over, vandals[i].wire.raw_bytes);
}

void vandals_end(void)
{
    for (unsigned i = 0; i < VANDALS_MAX; i++)
        assert(vandals[i].wire.peer == NULL);
}
