/* The far ends of the simulated kernel. Its faults are on: the contract must hold in any mood. */
#include "adapter.h"

#include "../sim/ring_sim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

enum { CONNECTED_MAX = 64 };

struct far {
    struct sim_peer *peer;
};

const bool adapter_is_simulated = true;

static struct sim *sim;
static uint64_t seed = 1;
static struct sim_peer *connected[CONNECTED_MAX];
static unsigned connected_count;
static struct place serving;
static uint16_t port = 1000;

void adapter_begin(void)
{
    sim = sim_create(seed++);
    sim_set_faults(
        sim,
        &(struct sim_faults){
            .split = 300, .short_send = 300, .delay = 300, .send_late = 300, .cancel_late = 500});
    sim_set_pipe_bytes(sim, 4096);
    connected_count = 0;
}

void adapter_end(void)
{
    sim_destroy(sim);
}

unsigned adapter_turn(struct ring *ring)
{
    sim_advance(sim, 1000);
    return ring_turn(ring, 0);
}

static void make_place(struct place *place)
{
    struct sockaddr_in *inet = (struct sockaddr_in *)&place->address;

    *place = (struct place){.bytes = sizeof(*inet)};
    inet->sin_family = AF_INET;
    inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    inet->sin_port = htons(port++);
}

int adapter_listen(struct place *place)
{
    make_place(place);
    return sim_listen(sim, (struct sockaddr *)&place->address, place->bytes);
}

static struct far *far_of(struct sim_peer *peer)
{
    struct far *far = malloc(sizeof(*far));

    assert(far != NULL);
    assert(peer != NULL);
    far->peer = peer;
    return far;
}

struct far *adapter_connect(const struct place *place)
{
    return far_of(sim_connect(sim, (const struct sockaddr *)&place->address, place->bytes));
}

static void take_note(void *context, struct sim_peer *peer)
{
    (void)context;
    assert(connected_count < CONNECTED_MAX);
    connected[connected_count++] = peer;
}

void adapter_serve(struct place *place)
{
    make_place(place);
    serving = *place;
    sim_serve(sim, (struct sockaddr *)&place->address, place->bytes, take_note, NULL);
}

struct far *adapter_take(void)
{
    return connected_count == 0 ? NULL : far_of(connected[--connected_count]);
}

void adapter_serve_end(void)
{
    sim_serve_end(sim, (struct sockaddr *)&serving.address, serving.bytes);
}

void adapter_nowhere(struct place *place)
{
    make_place(place);
}

int adapter_pair(struct far **far)
{
    struct sim_peer *peer;
    int fd = sim_pair(sim, &peer);

    *far = far_of(peer);
    return fd;
}

size_t far_write(struct far *far, const void *data, size_t bytes)
{
    return sim_peer_write(far->peer, data, bytes);
}

ssize_t far_read(struct far *far, void *data, size_t bytes)
{
    if (sim_peer_is_at_end(far->peer))
        return sim_peer_is_reset(far->peer) ? -ECONNRESET : -1;
    return (ssize_t)sim_peer_read(far->peer, data, bytes);
}

void far_shutdown(struct far *far)
{
    sim_peer_shutdown(far->peer);
}

void far_reset(struct far *far)
{
    sim_peer_reset(far->peer);
    far_close(far);
}

void far_close(struct far *far)
{
    sim_peer_close(far->peer);
    free(far);
}
