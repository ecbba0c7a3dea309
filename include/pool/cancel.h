/* cancel.h - a cancel request on its way: a client's CancelRequest, and our connection that carries
 * it on.
 *
 * The requester's connection stays open until PostgreSQL has closed ours (libpq takes that for the
 * answer), and the server that is meant is given to nobody else until then: a request can hit only
 * the query that it was meant for, or nothing. */
#ifndef POOL_CANCEL_H
#define POOL_CANCEL_H

#include "pool/client.h"
#include "pool/server.h"

struct cancel {
    struct conn conn; /* to PostgreSQL */
    struct list link;
    struct timer timer;       /* cancel_wait_timeout */
    struct client *requester; /* NULL: gone */
    struct server *server;    /* NULL: gone */
    uint64_t client_id;       /* whose query is meant */
    bool is_open;
    bool is_sent; /* PostgreSQL may act on it at any time until it closes */
};

/* Finds whom the key names on this core and acts. False: nobody here. `requester` is in state cancel;
 * NULL: the request came to another process. */
must_check bool cancel_start(struct core *core, struct client *requester, const uint8_t key[8]);
/* The requester hung up. */
void cancel_requester_gone(struct cancel *cancel);
/* The server is going: nothing can be cancelled any more. */
void cancel_server_gone(struct core *core, struct server *server);

#endif
