/* auth_query.h - asks PostgreSQL for the secret of a user who is not in auth_file.
 *
 *   login's core                               a core of the pool (auth_dbname, auth_user)
 *   auth_query_start ------- letter ---------> a client without a connection wants a server there,
 *                                              like any other: waits in line, is under PAUSE ...
 *                                              server in state auth_query: one batch, its answers
 *                                              are read here and go to nobody
 *   login_looked_up <------- letter ---------- what was found
 *   auth_query_leave ------- letter ---------> leaves the line at once; one whose batch runs already
 *                                              has AUTH_QUERY_GRACE_US to end, then its server is
 *                                              closed. (Closing it at once would let anybody who
 *                                              hangs up cost a server connection.)
 *
 * The batch: Parse, Bind, Describe, Execute of the unnamed statement, Close of it, Sync; one parameter in
 * text format, whose type PostgreSQL infers, text results. The answer must have two columns; of several
 * rows the last counts, as with PgBouncer. Anything else closes the server, and the client is told
 * `bouncer config error`, no word of PostgreSQL's. The server's
 * tracked parameters stay as they are.
 *
 * Answers go home at the end of a turn, so that whoever ends a lookup may look at its client once more.
 * From a slab of the login's core, as many as logins; the struct is the other core's in between, but for
 * the fields that say otherwise. Freed when both letters are home. */
#ifndef POOL_AUTH_QUERY_H
#define POOL_AUTH_QUERY_H

#include "pool/handover.h"
#include "pool/login.h"
#include "pool/server.h"

enum { AUTH_QUERY_GRACE_US = 5 * 1000 * 1000 };

/* Whom to ask whom for what: entry's own values, else the global ones. */
struct auth_query_target {
    const char *database, *user, *query;
};

struct auth_query {
    struct letter letter;       /* there, and back */
    struct letter leave_letter; /* there, and back */
    unsigned from_core, to_core;
    struct snapshot *snapshot; /* one reference: the target is of it, or of the login */
    const char *query;
    char database[DATABASE_NAME_BYTES_MAX], user[USER_NAME_BYTES_MAX];
    char asked_name[USER_NAME_BYTES_MAX];
    struct shard *shard; /* counts it */
    /* The login's core only. */
    struct login *login; /* NULL: has left */
    bool is_leaving, is_home;
    /* The other core's. */
    struct client client;
    struct list link; /* core.auth_queries_over */
    bool is_over;
    uint64_t left_us; /* 0: somebody waits for it */
    bool has_columns;
    /* The answer. */
    const char *error; /* a constant; NULL: the query was run */
    bool has_row;
    char name[USER_NAME_BYTES_MAX];      /* of the row: the login name from now on */
    char secret[FOUND_SECRET_BYTES_MAX]; /* "": NULL, or nothing */
};

/* Begins; login_looked_up follows, perhaps before this returns. False: no memory. */
must_check bool auth_query_start(struct login *login, const struct auth_query_target *target);
/* The login ends: no answer is wanted. */
void auth_query_leave(struct auth_query *query);

/* ---- for client.c and server.c ---- */

static inline struct auth_query *auth_query_of(struct client *client)
{
    assert(client->is_auth_query);
    return OWNER_OF(client, struct auth_query, client);
}

/* Its server is there: sends the batch. False: no memory. */
must_check bool auth_query_ask(struct server *server);
/* A whole message of the server. May close the server. True: ReadyForQuery, the answer is complete. */
must_check bool auth_query_message(struct server *server, uint8_t type, const uint8_t *body,
                                   size_t bytes);
/* The server is unlinked after that. */
void auth_query_answered(struct client *client);
/* The client without a connection must end (timeout, server lost, KILL): `message` is what an ordinary one
 * would be told. */
void auth_query_lost(struct client *client, const char *message);
/* When its server is to be closed because nobody waits any more; UINT64_MAX: somebody does. */
uint64_t auth_query_deadline_us(const struct client *client);

/* ---- for core.c ---- */

/* The end of the turn: what was found goes home. */
void auth_query_send_answers(struct core *core);

#endif
