/* rewrite_sql.h - PREPARE, EXECUTE and DEALLOCATE in the text of a query (wire/sql_text.h), with the client's
 * names replaced by the server's as in rewrite.h.
 *
 * EXECUTE and DEALLOCATE of a name that the client has prepared are always rewritten (drivers deallocate
 * by SQL what they have prepared over the protocol); PREPARE only with track_sql_prepare, since a
 * text that begins like it has to be read. The names are the same as those of the protocol.
 *
 * A text cannot be answered by something else that is as good, as a Parse can; so what has to come
 * first - closing an old statement of that name, preparing one that is lacking - goes before it as a
 * batch of its own, and the client does not see its answers. That is possible where the client's
 * last batch has its Sync; elsewhere (a Query inside an extended batch) the text passes as it is. If such a
 * batch fails, in a transaction block, the client's query finds the transaction aborted.
 *
 * Only texts of a simple Query, and of a Parse without a name; not above REWRITE_TEXT_BYTES_MAX.
 *
 * Texts of several statements, in a simple Query: SAVEPOINT x;DEALLOCATE "name";RELEASE x is what psqlODBC sends.
 * They are looked at only if the client has names (which costs others nothing), up to
 * REWRITE_SEVERAL_BYTES_MAX, and only if they can be cut for certain (wire/sql_text.h); if what is in
 * flight may change how they are cut they wait for its answer. The whole text is read before anything is done:
 *
 *   EXECUTE name          made usable before the text, each statement once; more of them than a server keeps
 *                         (max_prepared_statements): the text passes as it is
 *   DEALLOCATE name       drops a spare of its own; more than STATEMENT_SPARES_MAX: the text passes as it is.
 *                         With its tag the name is gone; if the query ends before, the name stays
 *   a name that the text  stays as it is: PostgreSQL has the error for it. A DEALLOCATE that stays is expected,
 *   has dropped, unknown  too, so that its tag is not taken for another's
 *   DEALLOCATE ALL,       stay, and so does what is behind them. What the client sends next about names waits
 *   DISCARD ALL           for the answer (server_statements.deallocation), as it does where the text is in doubt
 *   PREPARE               stays as it is, tracked or not
 *
 * What shows: the position in an error is that of the text PostgreSQL got. In an aborted transaction
 * `ROLLBACK; EXECUTE name` fails (26000) where the server lacks the statement, since nothing can be
 * prepared before it; `ROLLBACK; DEALLOCATE name` works, for an empty statement can be.
 * One thread: the core's. */
#ifndef POOL_REWRITE_SQL_H
#define POOL_REWRITE_SQL_H

#include "pool/rewrite.h"

/* The text of a Query message: its body without the zero. REWRITE_DROP: something else was sent. */
enum rewrite_result rewrite_query(struct client *client, const struct span *body,
                                  uint32_t body_bytes) must_check;

/* A Parse without a name, from its text on. REWRITE_DONE: *new_body (one reference) is what has to be parsed
 * instead, of *new_bytes with *new_text_bytes of text. */
enum rewrite_result rewrite_parse_text(struct client *client, const struct span *body,
                                       uint32_t body_bytes, uint32_t text_bytes,
                                       struct buffer **new_body, uint32_t *new_bytes,
                                       uint32_t *new_text_bytes) must_check;

#endif
