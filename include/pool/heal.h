/* heal.h - repeats a batch that failed for a reason that is ours and not the client's: a statement that
 * PostgreSQL will not run any more as it was prepared.
 *
 * A prepared statement outlives the table it was prepared for. After DDL PostgreSQL refuses it (0A000,
 * "cached plan must not change result type", src/backend/utils/cache/plancache.c), and one that
 * somebody deallocated behind our back is not there (26000). A client that has prepared its statement
 * a minute ago, maybe on another server, can do nothing about it; so it is prepared again, and the
 * batch is sent once more, if nobody can see the difference:
 *
 *   - the batch began outside a transaction block, with nothing outstanding: what it did is undone;
 *   - the client will be told what the result looks like: it asks for it in the same batch, and was not told
 *     before by a Describe of the statement itself, which drivers keep for good; or it has never run the
 *     statement. Some drivers keep the number of columns of the first result nevertheless (DBD::Pg, and crash
 *     on another one): heal_statements = 0 heals only those that the client has never run. A statement
 *     that was merely lost is also prepared again for a client that relies on its shape, if that has
 *     not changed: it is described first;
 *   - the client has had completions only (ParseComplete, BindComplete, CloseComplete,
 *     ParameterDescription, NoData), no row and no row description;
 *   - nothing was sent behind the batch;
 *   - it was not repeated before, and is not larger than 64 KiB.
 *
 * For this the batch is copied while it is sent: a hundred bytes or so for the usual Bind, Execute,
 * Sync. Where a statement stands for an unnamed one (cache_unnamed_statements), any error of the
 * statement itself (SQLSTATE classes 22 and 42 before BindComplete) is met the same way, since an
 * unnamed one would have been parsed anew.
 *
 * Otherwise the client gets PostgreSQL's error, and statements are prepared again before their next use.
 *
 * The state is struct heal of server_statements.h. One thread: the core's. */
#ifndef POOL_HEAL_H
#define POOL_HEAL_H

#include "pool/server.h"
#include "pool/server_statements.h"

/* ---- what is sent ---- */

/* A message of the pooler's names follows: from here on the batch is kept, if it is one that may be
 * repeated. To be called before the exchange knows of the message. */
void heal_begin(struct server *server);
/* The batch relies on this statement's being there; `is_unnamed`: its Parse, without a name, was answered
 * by that belief. */
void heal_use(struct server *server, struct statement *statement, bool is_unnamed);
/* A Bind of this name is sent. */
void heal_bind(struct server *server, struct client_name *name);
/* A message of this type is sent. */
void heal_sent(struct server *server, uint8_t type);
/* These bytes are sent. */
void heal_keep(struct server *server, const void *data, size_t bytes);

/* ---- what comes back, while a client is linked ---- */

/* True: the message is not for the client. May close the server. */
must_check bool heal_takes(struct server *server, uint8_t type);
/* An error that would go to the client. True: the batch will be repeated, the error is forgotten. */
must_check bool heal_error(struct server *server, const uint8_t *body, size_t bytes);
/* ReadyForQuery after heal_error: sends the batch again, or what has to come before that. May close the server. */
void heal_repeat(struct server *server);
/* While it is checking: RowDescription has come (NoData: `body` NULL). May close the server. */
void heal_checked(struct server *server, const uint8_t *body, size_t bytes);

static inline bool heal_is_checking(const struct server *server)
{
    return server->statements != NULL && server->statements->heal.state == HEAL_CHECKING;
}

static inline bool heal_is_syncing(const struct server *server)
{
    return server->statements != NULL && server->statements->heal.state == HEAL_SYNCING;
}

#endif
