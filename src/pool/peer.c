/* peer.c - which requests of a peer are on the wire, and which wait. The way of one is cancel.c's. */
#include "pool/peer.h"

#include "pool/cancel.h"
#include "pool/client.h"

static void host_known(struct host_waiter *waiter);

static const struct peer_config *config_find(const struct snapshot *snapshot, int id)
{
    /* Its own entry names this very process: nothing is ever sent there. */
    if (id == snapshot->settings.peer_id)
        return NULL;
    for (size_t i = 0; i < snapshot->peer_count; i++)
        if (snapshot->peers[i].peer_id == id)
            return &snapshot->peers[i];
    return NULL;
}

/* NULL: there is none, or no memory. */
static struct peer *peer_find_or_make(struct core *core, int id)
{
    const struct peer_config *config = config_find(core->snapshot, id);
    struct peer *peer;

    if (config == NULL)
        return NULL;
    list_for_each(link, &core->peer_list)
    {
        peer = OWNER_OF(link, struct peer, link);
        if (peer->id == id)
            return peer;
    }
    peer = slab_take(&core->peers);
    if (peer == NULL)
        return NULL;
    memset(peer, 0, sizeof(*peer));
    peer->core = core;
    peer->id = id;
    peer->config = config;
    list_init(&peer->waiting);
    list_init(&peer->link);
    list_init(&peer->name_waiter.link);
    peer->name_waiter.known = host_known;
    list_push_back(&core->peer_list, &peer->link);
    return peer;
}

static unsigned active_max(const struct peer *peer)
{
    int size = peer->config->pool_size >= 0 ? peer->config->pool_size
                                            : peer->core->snapshot->settings.default_pool_size;

    return size == 0 ? UINT32_MAX : (unsigned)size;
}

static void drop_waiting(struct peer *peer, const char *reason)
{
    while (!list_is_empty(&peer->waiting))
        cancel_drop(OWNER_OF(list_front(&peer->waiting), struct cancel, link), reason);
}

static void say_failure(struct peer *peer, const char *reason)
{
    if (!peer->has_failed && peer->config != NULL)
        log_write(LEVEL_WARNING, "peer %d (%s, port %u): cannot forward cancel requests: %s",
                  peer->id, peer->config->host, peer->config->port, reason);
    peer->has_failed = true;
}

/* ---- where it is ---- */

enum resolved { RESOLVED, RESOLVE_LATER, RESOLVE_FAILED };

static enum resolved peer_resolve(struct peer *peer)
{
    const char *host = peer->config->host;
    uint16_t port = peer->config->port;
    const struct host_name *name;
    struct sockaddr_storage literal;

    if (address_from_text(host, port, &literal)) {
        peer->addresses[0] = literal;
        peer->address_count = 1;
        return RESOLVED;
    }
    switch (host_look_up(peer->core, host, &peer->name_waiter, &name)) {
    case HOST_ASKED:
        return RESOLVE_LATER;
    case HOST_UNKNOWN:
        say_failure(peer, "host name lookup failed");
        return RESOLVE_FAILED;
    case HOST_KNOWN:
        break;
    }
    peer->address_count = name->address_count;
    for (unsigned i = 0; i < name->address_count; i++)
        host_socket_address(&name->addresses[i], port, &peer->addresses[i]);
    return RESOLVED;
}

static void peer_launch(struct peer *peer)
{
    if (peer->is_launching || peer->config == NULL)
        return;
    peer->is_launching = true;
    while (!list_is_empty(&peer->waiting) && peer->active_count < active_max(peer)) {
        enum resolved resolved = peer_resolve(peer);
        struct cancel *cancel;

        if (resolved == RESOLVE_FAILED)
            drop_waiting(peer, "failed to send cancel request");
        if (resolved != RESOLVED)
            break;
        cancel = OWNER_OF(list_front(&peer->waiting), struct cancel, link);
        list_remove(&cancel->link);
        peer->waiting_count--;
        peer->active_count++;
        peer->connecting_count++;
        cancel->address_index = peer->address_next;
        cancel->address_tries = peer->address_count - 1;
        cancel_go_to_peer(cancel, &peer->addresses[peer->address_next % peer->address_count]);
    }
    peer->is_launching = false;
}

static void host_known(struct host_waiter *waiter)
{
    peer_launch(OWNER_OF(waiter, struct peer, name_waiter));
}

/* ---- requests ---- */

void peer_forward(struct client *requester, const uint8_t key[8])
{
    uint8_t onward[8];
    struct peer *peer;

    memcpy(onward, key, sizeof(onward));
    if (cancel_key_hops(key) == 0) {
        client_close_silently(requester,
                              "failed to forward cancel request because its TTL was exhausted");
        return;
    }
    onward[7]--; /* the hops are its low bits, and not 0 */
    peer = peer_find_or_make(client_core(requester), cancel_key_peer(key));
    if (peer == NULL || peer->waiting_count >= PEER_WAITING_MAX) {
        client_close_silently(requester, peer == NULL ? "could not find peer to forward request to"
                                                      : "failed to send cancel request");
        return;
    }
    if (cancel_wait_for_peer(requester, peer, onward))
        peer_launch(peer);
}

void peer_connected(struct cancel *cancel)
{
    struct peer *peer = cancel->peer;

    assert(peer->connecting_count > 0);
    peer->connecting_count--;
    peer->address_next = cancel->address_index;
    if (peer->has_failed)
        log_write(LEVEL_LOG, "peer %d: can be reached again", peer->id);
    peer->has_failed = false;
}

void peer_connect_again(struct cancel *cancel)
{
    struct peer *peer = cancel->peer;

    if (peer->address_count == 0) { /* a RELOAD has moved it */
        cancel_drop(cancel, "failed to send cancel request");
        return;
    }
    cancel->address_tries--;
    cancel->address_index++;
    cancel_go_to_peer(cancel, &peer->addresses[cancel->address_index % peer->address_count]);
}

void peer_failed(struct cancel *cancel, const char *reason)
{
    /* The next request begins with another address of the host. */
    cancel->peer->address_next = cancel->address_index + 1;
    say_failure(cancel->peer, reason);
}

void peer_request_ended(struct peer *peer, bool was_connecting)
{
    assert(peer->active_count > 0);
    peer->active_count--;
    peer->connecting_count -= was_connecting;
    peer_launch(peer);
}

/* ---- configuration ---- */

void peer_update_all(struct core *core)
{
    list_for_each_safe(link, &core->peer_list)
    {
        struct peer *peer = OWNER_OF(link, struct peer, link);
        const struct peer_config *before = peer->config;

        peer->config = config_find(core->snapshot, peer->id);
        if (peer->config == NULL) {
            drop_waiting(peer, "could not find peer to forward request to");
            continue;
        }
        if (before == NULL || strcmp(before->host, peer->config->host) != 0 ||
            before->port != peer->config->port) {
            peer->address_count = 0;
            peer->has_failed = false;
        }
        peer_launch(peer);
    }
}

void peer_release_all(struct core *core)
{
    list_for_each_safe(link, &core->peer_list)
    {
        struct peer *peer = OWNER_OF(link, struct peer, link);

        assert(peer->active_count == 0);
        assert(list_is_empty(&peer->waiting));
        list_remove(&peer->link);
        list_remove(&peer->name_waiter.link);
        slab_give(&core->peers, peer);
    }
}

void peer_fill_row(const struct peer *peer, struct pool_row *row)
{
    unsigned connected = peer->active_count - peer->connecting_count;

    *row = (struct pool_row){
        .pool_id = (uint64_t)peer->id,
        .cl_active_cancel_req = connected,
        .cl_waiting_cancel_req = peer->waiting_count + peer->connecting_count,
        .sv_active_cancel = connected,
        .sv_login = peer->connecting_count,
    };
}
