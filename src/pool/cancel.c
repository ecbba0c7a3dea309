#include "pool/cancel.h"

#include <netinet/in.h>
#include <string.h>

static const struct conn_events cancel_events;

static void cancel_finish(struct cancel *cancel, bool delivered, const char *reason)
{
    struct client *requester = cancel->requester;
    struct server *server = cancel->server;

    if (!cancel->is_open)
        return;
    cancel->is_open = false;
    cancel->requester = NULL;
    cancel->server = NULL;
    timer_stop(&cancel->timer);
    list_remove(&cancel->link);
    conn_close(&cancel->conn, false);
    if (requester != NULL) {
        requester->cancel = NULL;
        client_close_silently(requester, reason);
    }
    if (server != NULL) {
        /* It may still be delivered: whoever got this server next would be hit. */
        if (cancel->is_sent && !delivered && !server->close_needed) {
            server->close_needed = true;
            server->close_reason = reason;
        }
        assert(server->pool->cancel_count > 0);
        server->pool->cancel_count--;
        server_cancel_ended(server);
    }
}

static void cancel_timer_fired(struct timer *timer, uint64_t now_us)
{
    (void)now_us;
    cancel_finish(OWNER_OF(timer, struct cancel, timer), false, "cancel_wait_timeout");
}

static void cancel_connected(struct conn *conn, int error)
{
    struct cancel *cancel = OWNER_OF(conn, struct cancel, conn);
    uint8_t packet[16];
    struct writer writer;

    if (error != 0) {
        cancel_finish(cancel, false, "failed to send cancel request");
        return;
    }
    if (cancel->server == NULL || cancel->server->client == NULL ||
        cancel->server->client->id != cancel->client_id) {
        cancel_finish(cancel, false, "not sending cancel request for client that is now idle");
        return;
    }
    writer_init(&writer, packet, sizeof(packet));
    message_cancel_request(&writer, cancel->server->key);
    assert(!writer.overflow);
    if (!conn_push_copy(conn, packet, writer.bytes)) {
        cancel_finish(cancel, false, "failed to send cancel request");
        return;
    }
    cancel->is_sent = true;
    conn_resume(conn);
}

static void cancel_received(struct conn *conn, struct buffer *buffer, uint32_t bytes)
{
    /* PostgreSQL never answers; an error text would say the same as the end that follows. */
    (void)conn;
    (void)buffer;
    (void)bytes;
}

static void cancel_ended(struct conn *conn, int error)
{
    cancel_finish(OWNER_OF(conn, struct cancel, conn), error == 0,
                  "successfully sent cancel request");
}

static void cancel_drained(struct conn *conn)
{
    (void)conn;
}

static void cancel_gone(struct conn *conn)
{
    struct cancel *cancel = OWNER_OF(conn, struct cancel, conn);

    assert(!cancel->is_open);
    slab_give(&core_of_loop(conn->loop)->cancels, cancel);
}

static const struct conn_events cancel_events = {
    .received = cancel_received,
    .ended = cancel_ended,
    .drained = cancel_drained,
    .connected = cancel_connected,
    .gone = cancel_gone,
};

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
    socklen_t address_bytes;

    if (target == NULL)
        return false;
    server = target->server;
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
    switch (server->address.ss_family) {
    case AF_INET:
        address_bytes = sizeof(struct sockaddr_in);
        break;
    case AF_INET6:
        address_bytes = sizeof(struct sockaddr_in6);
        break;
    default:
        address_bytes = unix_address_bytes(&server->address);
        break;
    }
    if (conn_connect(&cancel->conn, &core->loop, (const struct sockaddr *)&server->address,
                     address_bytes, &cancel_events) < 0) {
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
