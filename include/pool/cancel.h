/* cancel.h - a cancel request on its way: a client's CancelRequest, and our connection that carries
 * it on, to PostgreSQL or to the process that it belongs to (peer.h).
 *
 * The requester's connection stays open until PostgreSQL has closed ours (libpq takes that for the
 * answer), and the server that is meant is given to nobody else until then: a request can hit only
 * the query that it was meant for, or nothing. */
#ifndef POOL_CANCEL_H
#define POOL_CANCEL_H

#include "pool/client.h"
#include "pool/server.h"

struct tls_handshake;

struct cancel {
    struct conn conn;                /* none while it waits */
    struct list link;                /* core.cancel_list; while it waits, peer.waiting */
    struct timer timer;              /* cancel_wait_timeout; server_connect_timeout of a peer */
    struct client *requester;        /* NULL: gone */
    struct server *server;           /* NULL: gone, or it goes to a peer */
    struct peer *peer;               /* NULL: it goes to PostgreSQL */
    struct tls_handshake *handshake; /* under way, to a server that is on TLS itself */
    uint64_t client_id;              /* whose query is meant */
    uint64_t deadline_us;            /* for a peer: cancel_wait_timeout is over; 0: never */
    unsigned address_index;          /* for a peer: which of its host's addresses is tried */
    unsigned address_tries;          /* and how many are left */
    int family;                      /* for a peer: of the address that is tried */
    uint8_t key[8];                  /* for a peer: as it is sent on */
    bool is_open;
    bool is_sent;       /* PostgreSQL may act on it at any time until it closes */
    bool is_waiting;    /* for a peer: not sent off yet */
    bool is_connecting; /* for a peer: counts there */
};

/* Finds whom the key names on this core and acts. False: nobody here. `requester` is in state cancel;
 * NULL: the request came to another process. */
must_check bool cancel_start(struct core *core, struct client *requester, const uint8_t key[8]);
/* `requester` is in state cancel. Makes its request one that waits in peer->waiting. False: no memory;
 * the requester is closed. */
must_check bool cancel_wait_for_peer(struct client *requester, struct peer *peer,
                                     const uint8_t key[8]);
/* One that waits, and is in no list any more, goes off; it may end at once. */
void cancel_go_to_peer(struct cancel *cancel, const struct sockaddr_storage *address);
void cancel_drop(struct cancel *cancel, const char *reason);
/* The requester hung up. */
void cancel_requester_gone(struct cancel *cancel);
/* The server is going: nothing can be cancelled any more. */
void cancel_server_gone(struct core *core, struct server *server);

#endif
