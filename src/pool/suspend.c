#include "pool/suspend.h"

#include "pool/client.h"
#include "pool/login.h"
#include "pool/server.h"

/* A slot of a slab that is not in use may hold anything (slab.h) but a state. */
static bool client_is_there(const struct client *client)
{
    return client->state > CLIENT_FREE && client->state < CLIENT_STATES;
}

static bool server_is_there(const struct server *server)
{
    return server->state > SERVER_FREE && server->state < SERVER_STATES;
}

static bool client_has_settled(const struct client *client)
{
    if (!client_is_there(client))
        return true;
    switch (client->state) {
    case CLIENT_LOGIN:
    case CLIENT_IDLE:
    case CLIENT_SHARED:
    case CLIENT_ACTIVE:
        return conn_is_at_rest(&client->conn);
    default: /* waits for something of ours, or its last bytes are going out */
        return false;
    }
}

static bool server_has_settled(const struct server *server)
{
    if (!server_is_there(server))
        return true;
    switch (server->state) {
    case SERVER_IDLE:
    case SERVER_SHARED:
    case SERVER_ACTIVE:
        return conn_is_at_rest(&server->conn) && server->cancel_count == 0;
    default:
        return false;
    }
}

static void each_conn(struct core *core, void (*act)(struct conn *conn))
{
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        struct client *client = slab_at(&core->clients, index);

        if (client_is_there(client))
            act(&client->conn);
    }
    for (uint32_t index = 0; index < core->servers.touched_count; index++) {
        struct server *server = slab_at(&core->servers, index);

        if (server_is_there(server) && server->state != SERVER_LENT)
            act(&server->conn);
    }
}

void suspend_begin(struct core *core)
{
    core->loop.is_suspended = true;
    if (core->ports->hold_accepts != NULL)
        core->ports->hold_accepts(core, true);
    each_conn(core, conn_hold_if_possible);
}

unsigned suspend_unsettled(struct core *core)
{
    unsigned count = 0;

    if (!core->loop.is_suspended)
        return 0;
    each_conn(core, conn_hold_if_possible);
    for (uint32_t index = 0; index < core->clients.touched_count; index++)
        count += !client_has_settled(slab_at(&core->clients, index));
    for (uint32_t index = 0; index < core->servers.touched_count; index++)
        count += !server_has_settled(slab_at(&core->servers, index));
    return count;
}

/* What is only still to be held, now that those it went on for are closed, is not lost. */
static bool server_is_stuck(const struct server *server)
{
    if (server->state != SERVER_IDLE && server->state != SERVER_SHARED &&
        server->state != SERVER_ACTIVE)
        return true;
    return server->frame.body_left > 0 || server->frame.held_count > 0 ||
           server->conn.out.first != NULL || server->cancel_count > 0;
}

static bool client_is_stuck(const struct client *client)
{
    if (client->state != CLIENT_LOGIN && client->state != CLIENT_IDLE &&
        client->state != CLIENT_SHARED && client->state != CLIENT_ACTIVE)
        return true;
    return !client->conn.events->may_hold(&client->conn) || client->conn.out.first != NULL;
}

void suspend_drop(struct core *core)
{
    if (!core->loop.is_suspended)
        return;
    /* Clients first: no server is opened anew for one that waits. */
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        struct client *client = slab_at(&core->clients, index);

        if (!client_is_there(client) || client->state == CLIENT_MOVING ||
            client->state == CLIENT_CLOSING || !client_is_stuck(client))
            continue;
        /* What does not go out is not waited for any longer. */
        if (client->conn.out.first != NULL)
            conn_close(&client->conn, false);
        client_close_error(client, "suspend_timeout", NULL);
    }
    for (uint32_t index = 0; index < core->servers.touched_count; index++) {
        struct server *server = slab_at(&core->servers, index);

        if (!server_is_there(server) || server->state == SERVER_LENDING ||
            server->state == SERVER_LENT || server->state == SERVER_CLOSING ||
            !server_is_stuck(server))
            continue;
        if (server->conn.out.first != NULL)
            conn_close(&server->conn, false);
        server_close(server, "suspend_timeout");
    }
    /* Last words that nobody takes. */
    list_for_each(link, &core->loop.lingering)
    {
        struct conn *conn = OWNER_OF(link, struct conn, wait_link);

        conn->linger_until_us = core->loop.now_us;
    }
}

void suspend_end(struct core *core)
{
    if (!core->loop.is_suspended)
        return;
    core->loop.is_suspended = false;
    each_conn(core, conn_release);
    for (uint32_t index = 0; index < core->clients.touched_count; index++) {
        struct client *client = slab_at(&core->clients, index);

        if (client_is_there(client) && timer_is_set(&client->timer))
            timer_set(&core->timers, &client->timer, core->loop.now_us + SUSPEND_GRACE_US);
    }
    if (core->ports->hold_accepts != NULL)
        core->ports->hold_accepts(core, false);
}
