#include "world_peer.h"

#include "pool/peer.h"
#include "wire/message.h"

#include <stdio.h>

enum { STRAYS_MAX = 200, VISITS_OF_PEERS_MAX = 300, PACKET_BYTES = 16 };

/* A request, for as long as the run goes: it may arrive after its sender has left. */
static struct stray {
    struct sim_peer *peer; /* the sender's connection; NULL: it does not wait any more */
    uint8_t key[8];
    bool must_arrive; /* before the connection ends */
    bool has_arrived;
} strays[STRAYS_MAX];
static unsigned stray_count, strays_left;

/* What came to another process. */
static struct visit {
    struct sim_peer *peer;
    int id;
    uint8_t packet[PACKET_BYTES];
    size_t bytes;
    bool is_silent; /* takes it and does nothing, in the chaos only */
    uint64_t due_us;
} visits[VISITS_OF_PEERS_MAX];
static unsigned visit_count;

static void make_key(uint8_t key[8], int id, unsigned hops)
{
    for (unsigned i = 0; i < 8; i++)
        key[i] = (uint8_t)sim_random(world.sim);
    key[0] &= 0x7f;
    key[1] = (uint8_t)id;
    key[2] = (uint8_t)(id >> 8);
    key[7] = (uint8_t)((key[7] & ~PEER_HOPS_MAX) | hops);
}

static void stray_sets_out(bool must_arrive)
{
    static const int ids[] = {PEER_LITERAL, PEER_LITERAL, PEER_NAMED,
                              PEER_NAMED,   PEER_OURS,    PEER_UNKNOWN};
    struct stray *stray = &strays[stray_count];
    int id = ids[sim_below(world.sim, must_arrive ? 4 : COUNT_OF(ids))];
    unsigned hops = must_arrive ? 1 + (unsigned)sim_below(world.sim, PEER_HOPS_MAX)
                                : (unsigned)sim_below(world.sim, PEER_HOPS_MAX + 1);
    uint8_t packet[PACKET_BYTES];
    struct writer writer;
    struct sim_peer *peer = sim_connect(world.sim, (struct sockaddr *)&world.listen_address,
                                        sizeof(world.listen_address));

    if (peer == NULL)
        return; /* nobody listens any more */
    *stray = (struct stray){.peer = peer, .must_arrive = must_arrive};
    stray_count++;
    make_key(stray->key, id, hops);
    writer_init(&writer, packet, sizeof(packet));
    message_cancel_request(&writer, stray->key);
    assert(sim_peer_write(peer, packet, sizeof(packet)) == sizeof(packet));
    world_log("stray %u for peer %d with %u hops", stray_count - 1, id, hops);
    if (!must_arrive && happens(3)) {
        sim_peer_close(peer);
        stray->peer = NULL;
    }
}

static void stray_step(struct stray *stray)
{
    uint8_t chunk[8];

    if (stray->peer == NULL)
        return;
    /* Never an answer, but for one whose packet had not been read when a SUSPEND took too long, or when a login did
     * (which may be short where there is TLS). */
    assert(sim_peer_read(stray->peer, chunk, sizeof(chunk)) == 0 || world.has_dropped ||
           world.has_tls);
    if (!sim_peer_is_at_end(stray->peer) && !sim_peer_is_reset(stray->peer) &&
        !(world.is_chaos && happens(5000)))
        return;
    assert(stray->has_arrived || !stray->must_arrive);
    sim_peer_close(stray->peer);
    stray->peer = NULL;
}

static void arrived(const struct visit *visit)
{
    const uint8_t *key = visit->packet + 8;

    assert(bytes_get_u32(visit->packet) == PACKET_BYTES);
    assert(bytes_get_u32(visit->packet + 4) == 80877102);
    assert(cancel_key_peer(key) == visit->id);
    for (unsigned i = 0; i < stray_count; i++) {
        struct stray *stray = &strays[i];

        if (!cancel_key_is_same(stray->key, key))
            continue;
        assert(cancel_key_hops(stray->key) > 0);
        assert(cancel_key_hops(key) == cancel_key_hops(stray->key) - 1);
        assert(!stray->has_arrived);
        stray->has_arrived = true;
        world.strays_arrived++;
        return;
    }
    /* A client's key from when this number was ours; the client has left. */
    if (visit->id != PEER_OURS)
        never("a cancel request that nobody has sent");
}

/* False: it is over. */
static bool visit_step(struct visit *visit)
{
    if (visit->bytes < PACKET_BYTES) {
        visit->bytes +=
            sim_peer_read(visit->peer, visit->packet + visit->bytes, PACKET_BYTES - visit->bytes);
        if (visit->bytes == PACKET_BYTES)
            arrived(visit);
    }
    if (sim_peer_is_reset(visit->peer) || sim_peer_is_at_end(visit->peer))
        return false;
    if (world.is_chaos && happens(500)) {
        sim_peer_reset(visit->peer);
        return false;
    }
    return (visit->is_silent && world.is_chaos) || visit->bytes < PACKET_BYTES ||
           visit->due_us > world_now_us();
}

static void visit_begins(void *context, struct sim_peer *peer)
{
    assert((intptr_t)context != PEER_OURS || world.changes_peer_id);
    assert(visit_count < VISITS_OF_PEERS_MAX);
    visits[visit_count++] = (struct visit){
        .peer = peer,
        .id = (int)(intptr_t)context,
        .is_silent = world.is_chaos && happens(6),
        .due_us = world_now_us() + (world.is_chaos && happens(2) ? sim_below(world.sim, 50000) : 0),
    };
}

static struct sockaddr_in address_of(int id)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)(PEER_PORT + id))};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

void strays_begin(void)
{
    stray_count = strays_left = visit_count = 0;
    for (int id = PEER_OURS; id <= PEER_NAMED; id++) {
        struct sockaddr_in address = address_of(id);

        sim_serve(world.sim, (struct sockaddr *)&address, sizeof(address), visit_begins,
                  (void *)(intptr_t)id);
    }
}

void strays_step(void)
{
    if (world.is_chaos && stray_count < STRAYS_MAX / 2 && happens(world.is_sleepy ? 5 : 30))
        stray_sets_out(false);
    if (!world.is_chaos && strays_left > 0) {
        strays_left--;
        stray_sets_out(true);
    }
    for (unsigned i = 0; i < stray_count; i++)
        stray_step(&strays[i]);
    for (unsigned i = 0; i < visit_count;) {
        if (visit_step(&visits[i])) {
            i++;
            continue;
        }
        sim_peer_close(visits[i].peer);
        visits[i] = visits[--visit_count];
    }
}

void strays_finish(unsigned count)
{
    assert(count <= STRAYS_MAX / 2);
    strays_left = count;
}

bool strays_are_done(void)
{
    for (unsigned i = 0; i < stray_count; i++)
        if (strays[i].peer != NULL)
            return false;
    return strays_left == 0 && visit_count == 0;
}

uint64_t strays_next_us(void)
{
    uint64_t next_us = UINT64_MAX;

    for (unsigned i = 0; i < visit_count; i++)
        if (visits[i].due_us > world_now_us())
            next_us = MIN(next_us, visits[i].due_us);
    return next_us;
}

void strays_explain(void)
{
    for (unsigned i = 0; i < stray_count; i++)
        if (strays[i].peer != NULL)
            fprintf(stderr, "stray %u for peer %d with %u hops: arrived %d\n", i,
                    cancel_key_peer(strays[i].key), cancel_key_hops(strays[i].key),
                    strays[i].has_arrived);
    for (unsigned i = 0; i < visit_count; i++)
        fprintf(stderr, "visit of peer %d: %zu bytes, silent %d\n", visits[i].id, visits[i].bytes,
                visits[i].is_silent);
}

void strays_end(void)
{
    for (unsigned i = 0; i < stray_count; i++)
        assert(strays[i].peer == NULL);
    while (visit_count > 0)
        sim_peer_close(visits[--visit_count].peer);
}
