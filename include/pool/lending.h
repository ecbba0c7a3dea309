/* lending.h - no client waits while a server connection of its pool idles on another core.
 *
 *   waiter's core                         the core with an idle server
 *   shard_want, poke -------- letter ----> lending_serve: shard_claim, server_lend (its receive ends)
 *   lending_loan_open <------ letter ----- the descriptor and what is known of the server
 *   server_adopt, to the first waiter
 *
 * Two letters, so two hops of a mailbox, is the bound between a server that idles on one shard and a
 * waiter on another. What a shard wants is a counter that lenders claim from, so what is lent is never
 * more than what waits; a shard that has waiters of its own lends nothing, with one exception:
 *
 * First in, first out holds within a shard. Across shards a waiter is passed over for at most
 * LENDING_PASS_OVER_US: a server that becomes free goes to the other shard when the first waiter there
 * came so much earlier than the first one here. (Compared at most once in LENDING_COMPARE_US.) So two
 * shards that are both busy move a server only to even out a difference in waiting time, never
 * because each of them has a waiter.
 *
 * A server on its way is counted in the pool (shard_set.server_count), on no shard. Thread: the
 * shard's core. */
#ifndef POOL_LENDING_H
#define POOL_LENDING_H

#include "pool/pool.h"
#include "pool/server.h"

enum { LENDING_PASS_OVER_US = 20 * 1000, LENDING_COMPARE_US = 1000 };

/* The shard is there, is going. */
void lending_open(struct pool *pool);
void lending_close(struct pool *pool);

/* Says what the waiters want, and takes back what they want no more. Due after each change of
 * waiting_count and tested_count, and of PAUSE. */
void lending_update(struct pool *pool);

/* Gives idle servers to shards that want some. Due when a server has become idle. */
void lending_serve(struct pool *pool);

/* A client of another shard waits for a server, for longer than it may be passed over. */
must_check bool lending_is_overdue(const struct pool *pool);
/* `server` is free, and `first` waits here. True: somebody elsewhere has waited so much longer that
 * it was lent to him. */
must_check bool lending_gives_way(struct pool *pool, struct server *server,
                                  const struct client *first);

/* Servers that were promised to this shard and are on their way. */
unsigned lending_expected(const struct pool *pool);

/* How many servers need not be opened because others show idle ones: they have been poked, and will
 * say so if they have none after all (pool_launch_now). */
unsigned lending_deferred(struct pool *pool);

/* A server has gone, or its login is over: those who may not open one may try again. */
void lending_permission_freed(struct pool *pool);

/* Pokes all other shards: there is news for them (welcome, failure). */
void lending_poke_all(struct pool *pool);

/* A server that was promised to shard `index` will not come. */
void lending_failed(struct pool *pool, unsigned index);

/* The lender sends it off: the connection is quiet. */
void lending_post(struct pool *pool, struct server *server);

#endif
