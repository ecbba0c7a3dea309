/* peer.h - the other processes of a cluster that share a port or a load balancer with us ([peers]):
 * cancel requests that came here and belong there.
 *
 * A cancel key says whose it is: bytes 1 (low) and 2 (high) are the peer_id of the process that gave
 * it out, the two low bits of byte 7 count the hops that a request may still make (3 in the client's
 * hands). PgBouncer does the same since 1.19, so both may stand in one cluster.
 *
 * A peer's requests are all sent by one core (peer_core), which so can count them: at most pool_size
 * are in flight, the others wait there, oldest first, up to PEER_WAITING_MAX. They go to it as a
 * session does (handover.h). cancel_wait_timeout bounds the whole way of a request,
 * server_connect_timeout the part on the wire: a peer that is dead, or accepts and does nothing, keeps
 * nobody longer than that. Nothing is tried again but a host's other addresses.
 *
 * Made at the first request for it; freed by core_release. Thread: its core's. */
#ifndef POOL_PEER_H
#define POOL_PEER_H

#include "pool/pool.h"

#include <string.h>

enum {
    PEER_HOPS_MAX = 3,
    PEERS_MAX = 65536, /* peer_id has 16 bits */
    PEER_WAITING_MAX = 4096,
};

struct cancel;

struct peer {
    struct list link; /* in the core's */
    struct core *core;
    const struct peer_config *config; /* of the core's snapshot; NULL: gone from it */
    int id;
    struct list waiting; /* requests that wait for their place, oldest first */
    unsigned waiting_count;
    unsigned active_count;     /* in flight */
    unsigned connecting_count; /* of these */
    bool has_failed;           /* and the log says so already */
    bool is_launching;         /* guards peer_launch against itself */
    struct host_waiter name_waiter;
    unsigned address_count, address_next;
    struct sockaddr_storage addresses[HOST_ADDRESSES_MAX];
};

static inline int cancel_key_peer(const uint8_t key[8])
{
    return key[1] | key[2] << 8;
}

static inline unsigned cancel_key_hops(const uint8_t key[8])
{
    return key[7] & PEER_HOPS_MAX;
}

/* Makes eight random bytes a key of this process. peer_id 0: there are no peers. */
static inline void cancel_key_mark(uint8_t key[8], int peer_id)
{
    key[0] &= 0x7f; /* drivers read a process id from it, which is positive */
    if (peer_id == 0)
        return;
    key[1] = (uint8_t)peer_id;
    key[2] = (uint8_t)(peer_id >> 8);
    key[7] |= PEER_HOPS_MAX;
}

/* The same but for the hops that are left. */
static inline bool cancel_key_is_same(const uint8_t left[8], const uint8_t right[8])
{
    return memcmp(left, right, 7) == 0 && ((left[7] ^ right[7]) & ~PEER_HOPS_MAX) == 0;
}

/* Another process's. `peer_id` is ours. */
static inline bool cancel_key_is_foreign(const uint8_t key[8], int peer_id)
{
    return peer_id != 0 && cancel_key_peer(key) != peer_id;
}

/* The core that sends what is for this peer. */
static inline unsigned peer_core(const uint8_t key[8], unsigned core_count)
{
    return (unsigned)cancel_key_peer(key) % core_count;
}

/* `requester` is in state cancel, on this very core: its request goes on, waits, or is dropped. */
void peer_forward(struct client *requester, const uint8_t key[8]);

/* For cancel.c: a request in flight has got through, goes on to another address of the host, has failed
 * for this reason, or has ended. */
void peer_connected(struct cancel *cancel);
void peer_connect_again(struct cancel *cancel);
void peer_failed(struct cancel *cancel, const char *reason);
void peer_request_ended(struct peer *peer, bool was_connecting);

/* A new snapshot: what has moved is looked up anew, what waits for one that is gone ends. */
void peer_update_all(struct core *core);
void peer_release_all(struct core *core);

/* pool_id is the peer's number. */
void peer_fill_row(const struct peer *peer, struct pool_row *row);

#endif
