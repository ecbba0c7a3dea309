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
 * Only texts of a simple Query, and of a Parse without a name; not above 64 KiB.
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
