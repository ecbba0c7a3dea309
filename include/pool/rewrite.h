/* rewrite.h - a client's Parse, Bind, Describe and Close, with its names of statements replaced by the
 * server's (statement.h). DESIGN section 8.
 *
 * Every message goes to the server, in its place, and the server answers it: so the order of answers
 * is PostgreSQL's own, with Sync, Flush or errors in between. Where there is nothing to be done the
 * server gets something as cheap that has the right answer:
 *
 *   Parse of what the server has       Close of a name that nobody has; CloseComplete becomes ParseComplete
 *   Parse of what it lacks             Close and Parse under its name; CloseComplete is swallowed
 *   Bind, Describe of what it lacks    the same before it, both answers swallowed
 *   Close                              Close of a name that nobody has: the server keeps the statement
 *   a name that is not there,          Describe of a name that nobody has; its error (26000) becomes
 *   or is there already                PostgreSQL's 26000 or 42P05 with the client's own name
 *   the set is full                    Close of the oldest before it, swallowed
 *
 * In an aborted transaction a Parse is always sent, since PostgreSQL refuses it (25P02).
 *
 * The unnamed statement: its Parse passes, and the pooler remembers it. A Bind of it in a later
 * exchange, where the server's unnamed statement is somebody else's, is prepared under its name.
 * With cache_unnamed_statements a text that was seen before is treated like a named one, where it
 * begins a batch outside a transaction block and is_cacheable.
 *
 * Rows, parameters and everything else behind the names go out from where they were received, unless
 * they are short. One thread: the core's. */
#ifndef POOL_REWRITE_H
#define POOL_REWRITE_H

#include "base/bytes.h"
#include "pool/server_statements.h"
#include "wire/sql_text.h"

enum {
    /* Longer texts of queries are not looked at. */
    REWRITE_TEXT_BYTES_MAX = 60 * 1024,
    /* Nor are longer ones for what stands behind their first statement, however they come: a client's
     * large scripts are not to be put together. As large as a receive buffer is by default. */
    REWRITE_SEVERAL_BYTES_MAX = 16 * 1024,
};

enum rewrite_result {
    REWRITE_PASS,   /* nothing to be replaced: the message goes out as it is */
    REWRITE_DONE,   /* *replaced bytes of the body were sent otherwise; the rest follows as it is */
    REWRITE_DROP,   /* was answered otherwise: the rest of the body is dropped */
    REWRITE_HOLD,   /* depends on what is not answered yet: nothing was sent, to be tried again */
    REWRITE_CLOSED, /* the client was closed with an error */
};

/* Are a client's statements tracked? Latched for an exchange in client->tracks_statements. */
bool rewrite_is_wanted(const struct client *client);

static inline bool rewrite_concerns(uint8_t type)
{
    return type == 'B' || type == 'P' || type == 'D' || type == 'C';
}

/* A Query that may prepare, execute or deallocate by SQL, going by what is there of it. What its first word does
 * not tell matters only to clients that have names of statements (`has_names`): theirs are looked through
 * for further statements, and those that are not there as a whole may have one. */
static inline bool rewrite_concerns_query(const uint8_t *body, size_t available, size_t body_bytes,
                                          bool has_names)
{
    if (body_bytes > REWRITE_TEXT_BYTES_MAX)
        return false;
    if (likely(available >= 12 && body[0] >= 'A')) {
        if (sql_word_may_be_prepare((const char *)body, available))
            return true;
    } else if (available < body_bytes) {
        return true;
    } else if (body_bytes <= 1 || sql_may_be_prepare((const char *)body, body_bytes - 1)) {
        return body_bytes > 1;
    }
    if (!has_names || body_bytes > REWRITE_SEVERAL_BYTES_MAX || body_bytes <= 1)
        return false;
    return available < body_bytes || sql_may_have_more((const char *)body, body_bytes - 1);
}

/* Is enough there of a body of `body_bytes` to be looked at: all of a Parse or Query, the names of a Bind? */
bool rewrite_has_enough(uint8_t type, const uint8_t *body, size_t available, size_t body_bytes,
                        bool has_names);

/* A Bind with which the received bytes end: must the next message be seen first? It depends on whether a Describe
 * follows whether the client relies on the columns that it was told of. (PostgreSQL answers nothing before
 * there is a Flush or Sync, so nobody waits for it.) */
bool rewrite_needs_next(struct client *client, const uint8_t *body, size_t body_bytes);

/* The client is linked; the exchange has not been told of the message, which begins with `body`. For
 * Parse `body` is the chain of its whole body, for the others a single piece. `is_last`: its batch
 * ends with a Sync behind which nothing has been received. */
enum rewrite_result rewrite_message(struct client *client, uint8_t type, const struct span *body,
                                    uint32_t body_bytes, bool is_last, size_t *replaced) must_check;
/* After a batch in which a statement stands for the unnamed one: the client has to wait for the answer, so that
 * the batch can be repeated. */
bool rewrite_holds_what_follows(const struct client *client);
/* The client's message of this type is sent: the server's account of batches. `is_owed`: what exchange_sent
 * said of it. */
void rewrite_sent(struct client *client, uint8_t type, bool is_owed);

/* rewrite_sql.c: what the name means is not decided before more has been answered. */
bool rewrite_has_to_wait(const struct client *client, const struct client_name *name);
/* rewrite_sql.c: an error about this name is expected, for that of a name that nobody has. */
must_check bool rewrite_expect_failure(struct server *server, enum failure kind, const void *name,
                                       size_t name_bytes);

/* An unnamed statement: may a named one stand for it (sql_text.h), and was it seen lately? It is from now on. */
bool rewrite_is_worth_caching(struct core *core, struct statement *statement);

/* Sends the body of a server's ErrorResponse to the client, with the client's own names in place of ours. */
must_check bool rewrite_send_error(struct client *client, const uint8_t *body, size_t bytes);

/* The error for an expected failure. */
void rewrite_write_failure(struct writer *writer, const struct expectation *failure);

#endif
