/* statement_send.h - what goes to a server under the pooler's own names, with the answers that are expected to
 * it: Close, Parse, and batches of the pooler's own between those of the client.
 *
 * All return false when there is no memory: the client is then to be closed, and its server with it.
 * One thread: the core's. */
#ifndef POOL_STATEMENT_SEND_H
#define POOL_STATEMENT_SEND_H

#include "pool/server_statements.h"

/* Bytes for the server, kept for a repetition of the batch (heal.h). */
must_check bool send_bytes(struct server *server, const void *data, size_t bytes);
/* Describe or Close of a statement. */
must_check bool send_named(struct server *server, uint8_t type, const char *name);
/* Parse of a statement that is none of SQL. */
must_check bool send_parse(struct server *server, const char *name, struct statement *statement);
/* Parse without a name. */
must_check bool send_unnamed_parse(struct server *server, const struct statement *statement);
/* Close and Parse, with nothing expected: heal.c accounts for them. */
must_check bool send_prepare_again(struct server *server, struct statement *statement);

/* Closes the oldest statements as far as `statement` needs their room. */
must_check bool send_evictions(struct server *server, const struct statement *statement);
/* The statement will be there: room for it, Close, Parse. `kind` is EXPECT_PARSE, with the client's name,
 * or EXPECT_PARSE_OURS. */
must_check bool send_prepare(struct server *server, struct statement *statement,
                             enum expectation_kind kind, struct client_name *name);

/* A batch of the pooler's own may go out: the client's last one has its Sync. */
bool send_own_is_possible(const struct server *server);
/* Everything sent in between is a batch of its own, whose answers the client does not see; `prepared`: what
 * it prepares, or NULL. */
void send_own_begin(struct server *server);
must_check bool send_own_end(struct server *server, const struct prepared *prepared);
/* The same for a Query. */
must_check bool send_own_query(struct server *server, const struct prepared *prepared,
                               const char *before, const char *name, const struct statement *rest);
/* An empty Query: whatever comes before its answer is the client's. */
must_check bool send_own_probe(struct server *server);
/* The statement will be there, by batches of the pooler's own. */
must_check bool send_own_prepare(struct server *server, struct statement *statement);

#endif
