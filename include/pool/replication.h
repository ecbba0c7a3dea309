/* replication.h - a client whose startup message asks for replication has a server of its own, opened for it and
 * closed with it.
 *
 *   client  welcome (waits) -> welcome (its server logs in) -> active -> closing
 *   server                     login -----------------------> active -> closing
 *
 * The server is linked from its first moment on and counts in pool_size and the other limits; where
 * they leave no place, an idle one of the pool is closed for it, here or on another core, and one that
 * becomes free while the client has waited longest. What the client asks for (tracked parameters,
 * `options`, application_name) goes into the server's startup message as it is, and what that server
 * says at its login is the client's welcome; neither its welcome nor its failure tells the pool
 * anything. Where it fails the client is closed with the reason, once each address was tried.
 *
 * From then on it is a session, in whatever mode the pool is: no statement is tracked, no parameter set, no
 * timeout of queries or transactions holds. What marks a server as to be closed (RECONNECT, RELOAD
 * of its entry) closes it at once, and the client learns why. connect_query is not run: a physical
 * one understands no SQL.
 *
 * Where a server is opened for it: pool.c (launch_replication). One thread: the core's. */
#ifndef POOL_REPLICATION_H
#define POOL_REPLICATION_H

#include "pool/client.h"
#include "pool/server.h"

/* none, logical, physical. */
const char *replication_text(unsigned replication);

/* Who waits longest for a server and has none that is logging in; NULL: nobody. */
struct client *replication_first_waiter(const struct pool *pool);
/* Where it begins in the list of hosts: host_choose_for, host_is_known_for. */
uint64_t replication_first_turn(const struct client *client);

/* The login of a client's own server is over: the welcome goes out. */
void replication_logged_in(struct server *server);
/* The server could not be reached or refused the login: the client waits for another address, or is closed.
 * The server, linked no more, is the caller's to close. The arguments are those of server_open_failed. */
void replication_open_failed(struct server *server, const char *text, const char *sqlstate,
                             bool said_error, const char *reason);
/* A server that is logging in has to go for a reason that is not the client's: it waits for another. */
void replication_wait_again(struct server *server);
/* A server is to be retired. */
void replication_retire(struct server *server);
/* Whoever waits without a server is closed. */
void replication_fail_waiters(struct pool *pool, const char *message);

#endif
