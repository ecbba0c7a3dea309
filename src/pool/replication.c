#include "pool/replication.h"

#include "pool/server_login.h"

#include <stdio.h>
#include <string.h>

const char *replication_text(unsigned replication)
{
    static const char *const texts[] = {
        [REPLICATION_NONE] = "none",
        [REPLICATION_LOGICAL] = "logical",
        [REPLICATION_PHYSICAL] = "physical",
    };

    assert(replication < COUNT_OF(texts));
    return texts[replication];
}

struct client *replication_first_waiter(const struct pool *pool)
{
    list_for_each(link, &pool->replication_clients)
    {
        struct client *client = OWNER_OF(link, struct client, link);

        if (client->server == NULL)
            return client;
    }
    return NULL;
}

uint64_t replication_first_turn(const struct client *client)
{
    return client->id / client->pool->core->count;
}

static struct client *part(struct server *server)
{
    struct client *client = server->client;

    assert(server->replication != REPLICATION_NONE);
    assert(server->state == SERVER_LOGIN);
    assert(client->server == server);
    server->client = NULL;
    client->server = NULL;
    return client;
}

void replication_wait_again(struct server *server)
{
    part(server)->replication_tries = 0;
}

void replication_retire(struct server *server)
{
    if (server->state != SERVER_LOGIN) {
        server_close(server, "database configuration changed");
        return;
    }
    replication_wait_again(server);
    server_close(server, "database configuration changed");
}

void replication_open_failed(struct server *server, const char *text, const char *sqlstate,
                             bool said_error, const char *reason)
{
    struct client *client = part(server);
    bool is_answered = said_error || sqlstate != NULL;
    char detail[POOL_ERROR_BYTES + 64];
    struct pg_error error = {.severity = SEVERITY_FATAL, .message = reason, .detail = detail};

    if (!is_answered && ++client->replication_tries < host_attempts(server->pool))
        return;
    snprintf(detail, sizeof(detail), "%s: %.*s",
             is_answered ? "The server's login ended with" : "The connection to the server failed",
             POOL_ERROR_BYTES, text);
    client_close_pg_error(client, &error, LEVEL_WARNING);
}

void replication_fail_waiters(struct pool *pool, const char *message)
{
    struct client *client;

    while ((client = replication_first_waiter(pool)) != NULL)
        client_close_error(client, message, NULL);
}

void replication_logged_in(struct server *server)
{
    struct pool *pool = server->pool;
    uint8_t statuses[POOL_WELCOME_BYTES];
    size_t bytes = server->login->welcome_bytes;

    if (pool_is_stopped(pool)) {
        /* PAUSE has been answered, or will be, without waiting for it. */
        replication_wait_again(server);
        server_close(server, "pause mode");
        return;
    }
    memcpy(statuses, server->login->welcome, bytes);
    server_login_end(server);
    server_begin_session(server);
    client_welcome_linked(server->client, statuses, bytes);
    /* There may be room for another login now. */
    pool_launch(pool);
}
