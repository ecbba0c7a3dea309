/* server_statements.h - what a server has prepared under the pooler's names, and which of its answers to
 * Parse and Close are whose.
 *
 * The set: each statement that was prepared there, least recently used first to go. An entry is
 *   SURE     its ParseComplete has come
 *   PENDING  its Parse was sent in batch `batch`: good for the rest of that batch, since what skips
 *            the Parse skips the rest too; a later batch prepares again
 *   UNSURE   may be there or not: prepared again before use
 * Each Parse of ours goes out behind a Close of the same name, so that a wrong belief never shows.
 * Batches are counted by the messages that bring a ReadyForQuery: Sync, Query, FunctionCall.
 *
 * The queue: ParseComplete and CloseComplete come in the order of what was sent; for each one sent
 * there is an expectation that says whether the client gets it. What an error skipped is found out
 * with the ReadyForQuery of its batch, and taken back, last first.
 *
 * A server that goes to another core takes along its set, as hashes; its queue is empty then.
 * One thread: the core's. Allocated with the first tracked exchange. */
#ifndef POOL_SERVER_STATEMENTS_H
#define POOL_SERVER_STATEMENTS_H

#include "pool/client_statements.h"

struct server;

enum prepared_state { PREPARED_FREE, PREPARED_SURE, PREPARED_PENDING, PREPARED_UNSURE };

struct prepared {
    struct hash_link link;
    struct list lru; /* oldest first */
    struct digest digest;
    struct statement *statement; /* NULL: came from another core, and was not used here yet */
    uint64_t batch, serial;      /* PENDING: of its Parse */
    uint64_t shape;              /* of its result, statement.h; 0: not known */
    uint8_t state;
};

enum expectation_kind {
    EXPECT_PARSE,          /* ParseComplete for the client */
    EXPECT_PARSE_OURS,     /* ParseComplete that nobody asked for */
    EXPECT_PARSE_FAKE,     /* CloseComplete that the client gets as ParseComplete */
    EXPECT_CLOSE,          /* CloseComplete for the client */
    EXPECT_CLOSE_OURS,     /* CloseComplete that nobody asked for: before a Parse of ours */
    EXPECT_EVICTION,       /* the same: the oldest had to go */
    EXPECT_DESCRIBE,       /* ParameterDescription and what follows, for the client */
    EXPECT_SHAPE,          /* the same, that nobody asked for: to learn the shape of the result */
    EXPECT_PORTAL,         /* what follows Describe of a portal, for the client */
    EXPECT_SQL_PREPARE,    /* CommandComplete PREPARE of the client's query */
    EXPECT_SQL_DEALLOCATE, /* CommandComplete DEALLOCATE of it */
    EXPECT_OWN_BATCH, /* everything up to the ReadyForQuery of its batch is not for the client */
    EXPECT_FAILURE,   /* an error for a name that is nowhere: the client gets its own */
};

struct expectation {
    struct list link;
    uint64_t batch, serial;
    struct digest digest;     /* of what was prepared, or evicted */
    struct client_name *name; /* the client's name that hangs on it, or NULL */
    struct statement *
        statement; /* CLOSE, SQL_DEALLOCATE: what the name stood for; PARSE of the unnamed one: the same, if
                                    this server has it */
    uint8_t kind;
    bool has_digest;
    bool was_on_server; /* CLOSE of the unnamed one: client_statements.is_unnamed_on_server */
    struct told
        told; /* CLOSE, SQL_DEALLOCATE, PARSE of the unnamed one: of what was there before */
    bool is_described; /* DESCRIBE, SHAPE: ParameterDescription has come */
    bool is_native;    /* DESCRIBE: of the server's unnamed statement, not of ours */
    uint8_t failure;   /* FAILURE: enum failure */
    bool has_failed;   /* OWN_BATCH: an error has come */
    bool is_probe;     /* OWN_BATCH: of server.c, probe_linked */
    uint8_t text_bytes;
    char text[STATEMENT_CLIENT_NAME_MAX]; /* FAILURE: the client's name */
};

enum failure { FAILURE_UNKNOWN, FAILURE_DUPLICATE, FAILURE_STALE };

enum answer { ANSWER_FORWARD, ANSWER_SWALLOW, ANSWER_AS_PARSE, ANSWER_WRONG };

enum { HEAL_STATEMENTS_MAX = 16 };

enum heal_state {
    HEAL_NONE,      /* the batch is nothing that could be repeated */
    HEAL_RECORDING, /* the batch is being sent, and kept */
    HEAL_RECORDED,  /* its Sync was sent */
    HEAL_SYNCING,   /* failed; everything up to ReadyForQuery is dropped */
    HEAL_CHECKING,  /* prepared again and described, since the client relies on what it was told */
    HEAL_SKIPPING,  /* repeated; answers that the client has, or did not ask for, are dropped */
};

/* heal.h */
struct heal {
    struct buffer *batch; /* what was sent, NULL: nothing yet */
    uint32_t batch_bytes;
    uint32_t answer_count; /* of the batch so far, those that were swallowed too */
    uint32_t skip_count;
    uint8_t state;
    bool is_repeated;  /* once is enough */
    bool has_unnamed;  /* a statement of the batch stands for the unnamed one */
    bool is_bound;     /* a BindComplete has come */
    bool is_described; /* a Describe was sent since the last Execute */
    bool is_known;     /* of the last Bind: the client may know the result it had */
    bool is_open_bind; /* it is not known yet whether a Describe follows */
    bool is_relied_on; /* the client relies on a result it was told of: it must not change unseen */
    bool has_sync;     /* the batch was sent with its Sync */
    bool has_changed;  /* CHECKING: a shape is another one */
    unsigned checked_count;
    unsigned used_count;
    uint64_t used_shapes[HEAL_STATEMENTS_MAX]; /* CHECKING: before */
    struct statement *used[HEAL_STATEMENTS_MAX];
};

struct server_statements {
    struct hash_table table;
    struct list lru;          /* oldest first */
    struct list expectations; /* oldest first */
    uint64_t batch; /* the one that is being sent; counted up by Sync, Query, FunctionCall */
    uint64_t serial;
    unsigned own_count;    /* EXPECT_OWN_BATCH in the queue */
    uint64_t portal_batch; /* the last batch in which a portal was described, plus one */
    struct client_name
        *bound;      /* by the last Bind of this batch, if its portal may be described yet */
    uint64_t failed; /* batch that has had an error, plus one */
    uint64_t
        deallocation; /* batch of a Query that may drop all names, plus one; 0: none is in flight */
    struct heal heal;
};

/* Made if need be, at the beginning of an exchange. NULL: no memory. */
struct server_statements *server_statements_of(struct server *server) must_check;
/* The server's end. */
void server_statements_release(struct server *server);
/* What another core's server has. False: no memory. */
must_check bool server_statements_adopt(struct server *server, const struct server *lent);
unsigned server_statements_count(const struct server *server);

struct prepared *prepared_find(const struct server_statements *statements,
                               const struct digest *digest);
/* Of one that came from another core and was not used here; false: it is none. */
bool prepared_fill_row(const struct prepared *prepared, struct statement_row *row);
/* May what is being sent now use it? */
static inline bool prepared_is_usable(const struct server_statements *statements,
                                      const struct prepared *prepared)
{
    return prepared->state == PREPARED_SURE ||
           (prepared->state == PREPARED_PENDING && prepared->batch == statements->batch);
}
/* It is used: the newest from now on. `statement` may be NULL. */
void prepared_touch(struct server_statements *statements, struct prepared *prepared,
                    struct statement *statement);
/* Its Parse is being sent. NULL: no memory. */
struct prepared *prepared_add(struct server *server, struct statement *statement) must_check;
/* The oldest that may go; NULL: the set is empty. */
struct prepared *prepared_oldest(const struct server_statements *statements);
void prepared_remove(struct server *server, struct prepared *prepared);
/* Not to be believed, and the first to go: it may not be there, or may be of no use. */
void prepared_doubt(struct server_statements *statements, struct prepared *prepared);
/* DISCARD ALL, DEALLOCATE ALL was answered: nothing is there but what was sent later. */
void server_statements_forget(struct server *server);
/* None is believed any more. */
void server_statements_doubt(struct server *server);

/* Something was sent whose answer is expected; `name` may be NULL. NULL: no memory. */
struct expectation *expect(struct server *server, enum expectation_kind kind,
                           struct client_name *name) must_check;
/* A DESCRIBE, SHAPE or PORTAL of this statement was sent. False: no memory. */
must_check bool expect_description(struct server *server, enum expectation_kind kind,
                                   struct client_name *name, const struct statement *statement);
/* ParseComplete ('1'), CloseComplete ('3') or ParameterDescription ('t') has come: whose is it? */
enum answer server_statements_answer(struct server *server, uint8_t type);
/* RowDescription or NoData has come: of a Describe of a statement, if one was. NULL: of a portal, or a Query. */
struct expectation *expected_description(const struct server_statements *statements);
/* Its body is there: `shape`, see statement.h. */
void expected_description_over(struct server *server, struct expectation *expectation,
                               uint64_t shape);
/* The batch of the pooler's own that is being answered now; NULL: what comes is the client's. */
struct expectation *expected_own_batch(const struct server *server);
/* A message of it has come, not its ReadyForQuery. */
void expected_own_batch_message(struct server *server, struct expectation *expectation,
                                uint8_t type);
/* ReadyForQuery of it has come. */
void expected_own_batch_over(struct server *server, struct expectation *expectation);
/* CommandComplete PREPARE or DEALLOCATE has come: of a query that was rewritten, if one was. */
void expected_tag(struct server *server, enum expectation_kind kind);
/* The oldest expectation of a failure, whose error may have come; NULL: none. */
const struct expectation *expected_failure(const struct server_statements *statements);
/* ReadyForQuery has come: what belongs to batches before `batch` was skipped. */
void server_statements_settle(struct server *server, uint64_t batch);
/* The exchange is over, or the server ends: nothing more will be answered. */
void server_statements_end_exchange(struct server *server);

#endif
