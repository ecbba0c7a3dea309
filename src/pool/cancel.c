#include "pool/cancel.h"

#include "pool/peer.h"
#include "pool/sharing.h"
#include "pool/tls_handshake.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const struct conn_events cancel_events;

static void cancel_finish(struct cancel *cancel, bool delivered, const char *reason)
{
    struct client *requester = cancel->requester;
    struct server *server = cancel->server;
    struct peer *peer = cancel->peer;
    bool was_waiting = cancel->is_waiting;
    bool was_connecting = cancel->is_connecting;
    bool was_sent = cancel->is_sent;

    if (!cancel->is_open)
        return;
    cancel->is_open = false;
    cancel->requester = NULL;
    cancel->server = NULL;
    cancel->peer = NULL;
    if (cancel->handshake != NULL)
        tls_handshake_abandon(cancel->handshake);
    cancel->handshake = NULL;
    timer_stop(&cancel->timer);
    list_remove(&cancel->link);
    if (was_waiting)
        peer->waiting_count--;
    if (cancel->conn.state == CONN_GONE)
        slab_give(&peer->core->cancels, cancel);
    else
        conn_close(&cancel->conn, false);
    if (requester != NULL) {
        requester->cancel = NULL;
        client_close_silently(requester, reason);
    }
    if (server != NULL) {
        /* It may still be delivered: whoever got this server next would be hit. */
        if (was_sent && !delivered && !server->close_needed) {
            server->close_needed = true;
            server->close_reason = reason;
        }
        assert(server->pool->cancel_count > 0);
        server->pool->cancel_count--;
        server_cancel_ended(server);
    }
    if (peer != NULL && !was_waiting)
        peer_request_ended(peer, was_connecting);
}

void cancel_drop(struct cancel *cancel, const char *reason)
{
    cancel_finish(cancel, false, reason);
}

static void cancel_timer_fired(struct timer *timer, uint64_t now_us)
{
    struct cancel *cancel = OWNER_OF(timer, struct cancel, timer);
    const char *reason = "cancel_wait_timeout";

    if (cancel->peer != NULL && !cancel->is_waiting) {
        peer_failed(cancel, cancel->is_connecting ? "connect timeout" : "no answer");
        if (cancel->deadline_us == 0 || now_us < cancel->deadline_us)
            reason = "failed to send cancel request";
    }
    cancel_finish(cancel, false, reason);
}

/* What is left of cancel_wait_timeout; on the wire no longer than server_connect_timeout. */
static void arm_for_peer(struct cancel *cancel)
{
    struct core *core = cancel->peer->core;
    uint64_t connect_us = core->snapshot->settings.server_connect_timeout_us;
    uint64_t deadline_us = cancel->deadline_us;

    if (!cancel->is_waiting && connect_us > 0 &&
        (deadline_us == 0 || core->loop.now_us + connect_us < deadline_us))
        deadline_us = core->loop.now_us + connect_us;
    if (deadline_us > 0)
        timer_set(&core->timers, &cancel->timer, deadline_us);
}

static void send_request(struct cancel *cancel, const uint8_t key[8])
{
    uint8_t packet[16];
    struct writer writer;

    writer_init(&writer, packet, sizeof(packet));
    message_cancel_request(&writer, key);
    assert(!writer.overflow);
    if (!conn_push_copy(&cancel->conn, packet, writer.bytes)) {
        cancel_finish(cancel, false, "failed to send cancel request");
        return;
    }
    cancel->is_sent = true;
    if (cancel->server != NULL && cancel->server->state == SERVER_SHARED)
        sharing_cancel_sent(cancel->server);
    conn_resume(&cancel->conn);
}

static void connected_to_peer(struct cancel *cancel, int error)
{
    if (error == 0) {
        core_tune_socket(cancel->peer->core, cancel->conn.fd, cancel->family);
        cancel->is_connecting = false;
        peer_connected(cancel);
        send_request(cancel, cancel->key);
    } else if (cancel->address_tries > 0) {
        conn_close(&cancel->conn, false); /* the next address: cancel_gone */
    } else {
        peer_failed(cancel, strerror(error));
        cancel_finish(cancel, false, "failed to send cancel request");
    }
}

/* The connection to PostgreSQL is ready. It may have taken a while. */
static void send_to_server(struct cancel *cancel)
{
    if (cancel->server == NULL || !server_runs_for(cancel->server, cancel->client_id))
        cancel_finish(cancel, false, "not sending cancel request for client that is now idle");
    else
        send_request(cancel, cancel->server->key);
}

static void tls_over(struct conn *conn, enum tls_handshake_end end, const char *error)
{
    struct cancel *cancel = OWNER_OF(conn, struct cancel, conn);
    char reason[TLS_ERROR_BYTES + 64];

    cancel->handshake = NULL;
    if (end == TLS_HANDSHAKE_TLS) {
        send_to_server(cancel);
        return;
    }
    snprintf(reason, sizeof(reason), "failed to send cancel request: %s", error);
    cancel_finish(cancel, false, reason);
}

/* What is secret enough for TLS has a key that is, too. By the rules of the server's own connection, and
 * with the host that it was opened for: those of the configuration may be others by now, or none. */
static void cancel_by_tls(struct cancel *cancel)
{
    const struct tls *session = cancel->server->conn.tls->session;

    cancel->handshake = tls_handshake_connect(&cancel->conn, tls_context_of(session),
                                              tls_host_of(session), true, tls_over);
    if (cancel->handshake == NULL)
        cancel_finish(cancel, false, "failed to send cancel request");
    else
        conn_resume(&cancel->conn);
}

static void cancel_connected(struct conn *conn, int error)
{
    struct cancel *cancel = OWNER_OF(conn, struct cancel, conn);

    if (cancel->peer != NULL) {
        connected_to_peer(cancel, error);
        return;
    }
    if (error != 0) {
        cancel_finish(cancel, false, "failed to send cancel request");
        return;
    }
    if (cancel->server == NULL || !server_runs_for(cancel->server, cancel->client_id)) {
        cancel_finish(cancel, false, "not sending cancel request for client that is now idle");
        return;
    }
    if (cancel->server->conn.tls != NULL)
        cancel_by_tls(cancel);
    else
        send_request(cancel, cancel->server->key);
}

static void cancel_received(struct conn *conn, struct buffer *buffer, uint32_t bytes)
{
    struct cancel *cancel = OWNER_OF(conn, struct cancel, conn);

    /* PostgreSQL never answers; an error text would say the same as the end that follows. */
    if (cancel->handshake != NULL)
        tls_handshake_received(cancel->handshake, buffer->data, bytes);
}

static void cancel_ended(struct conn *conn, int error)
{
    struct cancel *cancel = OWNER_OF(conn, struct cancel, conn);

    /* It may end in its handshake. */
    cancel_finish(cancel, error == 0,
                  cancel->is_sent ? "successfully sent cancel request"
                                  : "failed to send cancel request");
}

static void cancel_drained(struct conn *conn)
{
    (void)conn;
}

static void cancel_gone(struct conn *conn)
{
    struct cancel *cancel = OWNER_OF(conn, struct cancel, conn);

    if (cancel->is_open) {
        assert(cancel->peer != NULL);
        peer_connect_again(cancel);
        return;
    }
    slab_give(&core_of_loop(conn->loop)->cancels, cancel);
}

static const struct conn_events cancel_events = {
    .received = cancel_received,
    .ended = cancel_ended,
    .drained = cancel_drained,
    .connected = cancel_connected,
    .gone = cancel_gone,
};

static int connect_to(struct cancel *cancel, struct conn_loop *loop,
                      const struct sockaddr_storage *address)
{
    socklen_t address_bytes;

    switch (address->ss_family) {
    case AF_INET:
        address_bytes = sizeof(struct sockaddr_in);
        break;
    case AF_INET6:
        address_bytes = sizeof(struct sockaddr_in6);
        break;
    default:
        address_bytes = unix_address_bytes(address);
        break;
    }
    return conn_connect(&cancel->conn, loop, (const struct sockaddr *)address, address_bytes,
                        &cancel_events);
}

/* Nothing comes of it. */
static void refuse(struct client *requester, const char *reason)
{
    if (requester != NULL)
        client_close_silently(requester, reason);
}

bool cancel_start(struct core *core, struct client *requester, const uint8_t key[8])
{
    struct client *target = client_find_key(core, key);
    struct server *server;
    struct cancel *cancel;

    if (target == NULL)
        return false;
    server = target->server;
    if (target->shared != NULL && target->shared->server != NULL) {
        if (sharing_cancel(target)) {
            refuse(requester, "canceled a query before it ran");
            return true;
        }
        server = target->shared->server;
    }
    if (server == NULL) {
        refuse(requester, "cancel request for idle client");
        return true;
    }
    if (server->state == SERVER_PREPARING) {
        refuse(requester, "ignoring cancel request for server that is setting vars");
        return true;
    }
    cancel = slab_take(&core->cancels);
    if (cancel == NULL) {
        refuse(requester, "out of memory");
        return true;
    }
    memset(cancel, 0, sizeof(*cancel));
    if (connect_to(cancel, &core->loop, &server->address) < 0) {
        slab_give(&core->cancels, cancel);
        refuse(requester, "failed to send cancel request");
        return true;
    }
    cancel->is_open = true;
    cancel->requester = requester;
    cancel->server = server;
    cancel->client_id = target->id;
    if (requester != NULL)
        requester->cancel = cancel;
    list_init(&cancel->link);
    list_push_back(&core->cancel_list, &cancel->link);
    timer_init(&cancel->timer, cancel_timer_fired);
    if (core->snapshot->settings.cancel_wait_timeout_us > 0)
        timer_set(&core->timers, &cancel->timer,
                  core->loop.now_us + core->snapshot->settings.cancel_wait_timeout_us);
    server->pool->cancel_count++;
    server_cancel_began(server);
    return true;
}

bool cancel_wait_for_peer(struct client *requester, struct peer *peer, const uint8_t key[8])
{
    struct core *core = peer->core;
    struct cancel *cancel = slab_take(&core->cancels);
    uint64_t timeout_us = core->snapshot->settings.cancel_wait_timeout_us;

    if (cancel == NULL) {
        client_close_silently(requester, "out of memory");
        return false;
    }
    memset(cancel, 0, sizeof(*cancel));
    cancel->conn.state = CONN_GONE;
    cancel->is_open = true;
    cancel->is_waiting = true;
    cancel->requester = requester;
    cancel->peer = peer;
    memcpy(cancel->key, key, sizeof(cancel->key));
    requester->cancel = cancel;
    list_init(&cancel->link);
    list_push_back(&peer->waiting, &cancel->link);
    peer->waiting_count++;
    timer_init(&cancel->timer, cancel_timer_fired);
    if (timeout_us > 0)
        cancel->deadline_us = core->loop.now_us + timeout_us;
    arm_for_peer(cancel);
    return true;
}

void cancel_go_to_peer(struct cancel *cancel, const struct sockaddr_storage *address)
{
    struct core *core = cancel->peer->core;
    int error;

    cancel->is_waiting = false;
    cancel->is_connecting = true;
    cancel->family = address->ss_family;
    list_remove(&cancel->link);
    list_push_back(&core->cancel_list, &cancel->link);
    error = connect_to(cancel, &core->loop, address);
    if (error < 0 && cancel->address_tries > 0) { /* no IPv6 here, for example */
        peer_connect_again(cancel);
        return;
    }
    if (error < 0) {
        peer_failed(cancel, strerror(-error));
        cancel_finish(cancel, false, "failed to send cancel request");
        return;
    }
    arm_for_peer(cancel);
}

void cancel_requester_gone(struct cancel *cancel)
{
    /* The request goes on: PostgreSQL does not mind either when the sender does not wait. */
    cancel->requester->cancel = NULL;
    cancel->requester = NULL;
}

void cancel_server_gone(struct core *core, struct server *server)
{
    list_for_each_safe(link, &core->cancel_list)
    {
        struct cancel *cancel = OWNER_OF(link, struct cancel, link);

        if (cancel->server != server)
            continue;
        cancel->server = NULL;
        server->pool->cancel_count--;
        server->cancel_count--;
        /* Ends its connection and its requester at its own next event; nobody is held back by it.
         */
    }
}
