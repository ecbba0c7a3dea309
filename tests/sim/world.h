/* world.h - what the simulated clients (world_user.h), the simulated PostgreSQL (world_session.h)
 * and the test that runs them (test_world.c) share: chance, the accounts, and the language of
 * questions and answers.
 *
 * A question is the text `Q OWNER NUMBER KIND ARG` and padding: the owner is a number that each
 * connection of a client gets anew, the number counts its questions. It may stand in a SELECT that only
 * reads, which makes it one that may share a server, or in one that nearly does (enum form). Each answer names owner and
 * number again and is made of other bytes, so that an answer that goes astray, comes twice, or
 * comes late is seen by whoever gets it. Both ends compute from ARG what the answer must be.
 *
 * A prepared statement is a number, too: it stands in its text. Its question comes with the Bind, as
 * the value of a parameter, and the answer names the statement as well, so that a client that is
 * answered by another statement than the one it bound finds out.
 *
 * One world at a time, in one thread. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "harness.h"
#include "ring_sim.h"

#include "base/bytes.h"
#include "crypto/scram.h"
#include "io/mailbox.h"

#include <netinet/in.h>

enum {
    ROW_TEXT_BYTES_MAX = 320, /* what make_row writes before the filler */
    ROW_BYTES_MAX = 16384,
    STATEMENT_TEXT_BYTES_MAX = 8192,
    SERVER_ADDRESSES = 4,
    DATABASES = 3,
    LOGINS = 3,
};

/* ---- bytes that wait to be written or to be understood ---- */

struct heap {
    uint8_t *data;
    size_t begin, end, room;
};

void heap_put(struct heap *heap, const void *data, size_t bytes);
void heap_free(struct heap *heap);
static inline size_t heap_bytes(const struct heap *heap)
{
    return heap->end - heap->begin;
}

void put_message(struct heap *heap, char type, const void *body, size_t bytes);
/* The next whole message: its type, body and length; the body is valid until the heap changes.
 * False: not there yet. */
must_check bool take_message(struct heap *heap, char *type, const uint8_t **body, size_t *bytes);
void put_error(struct heap *heap, const char *severity, const char *sqlstate, const char *format,
               ...) printf_like(4, 5);
/* `R`: a code, and what belongs to it. */
void put_authentication(struct heap *heap, uint32_t code, const void *data, size_t bytes);

/* ---- questions and answers ---- */

enum kind {
    KIND_ROWS,
    KIND_BEGIN,
    KIND_END,
    KIND_ERROR,
    KIND_SLEEP,
    KIND_COPY_IN,
    KIND_COPY_OUT,
    KIND_COPY_BOTH, /* replication only: rows and COPY data at the same time */
    KIND_MARK,      /* leaves something in the session that the next client must not find */
    /* In runs with sharing only. */
    KIND_SET,        /* a parameter that the pooler tracks: `arg` says which and to what */
    KIND_BAD,        /* does not parse */
    KIND_ROWS_ERROR, /* an error behind the rows */
    KIND_ROWS_SLEEP, /* the end comes late */
};

/* How the question stands in a text. Which of several texts of a form it is follows from the question. */
enum form {
    FORM_PLAIN,  /* no SQL at all */
    FORM_SHARES, /* a SELECT that only reads, of functions that everybody knows */
    FORM_NEARLY, /* one that does a little more */
    FORMS,
};

/* What stands in a text. */
struct asked {
    unsigned owner, number, kind, arg;
    enum form form;
};

enum { QUESTION_BYTES_MAX = 8192 };
/* With its closing zero; returns its length with it. */
size_t make_question(char text[QUESTION_BYTES_MAX], const struct asked *asked);
/* False: there is none in it. If there is, it must be one to the last byte. */
bool read_question(const char *text, struct asked *asked);
/* One of many is long. */
static inline bool question_is_long(unsigned arg)
{
    return arg % 11 == 0;
}

/* ---- parameters that the pooler tracks ---- */

enum { PARAM_NAME, PARAM_ENCODING, PARAM_DATE, PARAM_ZONE, PARAM_STRINGS, WORLD_PARAMS };
enum { PARAM_BYTES_MAX = 32, PARAM_VALUES = 3 };
extern const char *const world_param_names[WORLD_PARAMS];
/* The first is PostgreSQL's own, but for PARAM_NAME. */
extern const char *const world_param_values[WORLD_PARAMS][PARAM_VALUES];
/* WORLD_PARAMS: it is none of them. */
unsigned find_world_param(const char *name);
/* What a session has, as its rows tell it: `NAME|ENCODING|...`. */
enum { PARAMS_TEXT_BYTES_MAX = WORLD_PARAMS * PARAM_BYTES_MAX };
typedef char world_params[WORLD_PARAMS][PARAM_BYTES_MAX];
void make_params_text(char text[PARAMS_TEXT_BYTES_MAX], const world_params values);

/* KIND_SLEEP after the chaos: so long that a cancel request always comes before its end, and less
 * than any query_timeout. The other sleeps are over at once. */
enum { ARG_LONG = 100002, LONG_SLEEP_US = 200000 };

unsigned row_count(unsigned arg);
unsigned row_bytes(unsigned arg);
/* What an answer answers. */
struct question {
    unsigned owner, number;
    unsigned statement; /* that was bound; 0: the text was the question itself */
    unsigned version;   /* of the schema, when that was prepared */
};

/* `A OWNER NUMBER STATEMENT VERSION ROW [PARAMS] ` and filler up to `bytes`; returns the length. */
size_t make_row(char text[ROW_BYTES_MAX], const struct question *question, unsigned row,
                const char *params, unsigned bytes);

/* ---- prepared statements ---- */

/* Two neighbours, the first of them even, have one text and other parameter types. */
enum {
    STATEMENT_TEXT, /* a text that is the question itself: only ever unnamed */
    STATEMENT_SHARED_FIRST = 2,
    STATEMENT_SHARED_LAST = 23,
    STATEMENT_DISCARD_ALL,
    STATEMENT_DEALLOCATE_ALL,
    STATEMENT_DEALLOCATE_FIRST, /* + the index of the name, up to STATEMENT_NAMES */
    STATEMENT_PRIVATE_FIRST = 32,
    STATEMENTS_OF_OWNER = 4, /* + 4 * owner */
    STATEMENT_NAMES = 6,
    STATEMENT_NAME_OF_OWNER = 3,
    STATEMENT_NAME_ROOM = 80,
    STATEMENT_NAME_BYTES_OF_POSTGRES = 63,
};

/* The text, with its closing zero; returns its length with it. */
size_t make_statement(char text[STATEMENT_TEXT_BYTES_MAX], unsigned statement);
/* The statement of a text and its number of parameter types. It must be one to the last byte. */
unsigned read_statement(const char *text, unsigned type_count);
bool statement_returns_rows(unsigned statement);
/* Its text is one that may share. */
bool statement_shares(unsigned statement);
/* The body of the RowDescription of a statement that was prepared under this version of the schema: each version
 * changes either the name of the column or its type. The table has no meaning. Returns its length. */
enum { DESCRIPTION_BYTES_MAX = 64 };
size_t make_description(uint8_t body[DESCRIPTION_BYTES_MAX], unsigned statement, unsigned version,
                        uint32_t table);
/* The version of a description of this statement. */
unsigned read_description(const uint8_t *body, size_t bytes, unsigned statement);
/* May be run where a transaction has failed. */
bool statement_ends_transaction(unsigned statement);
/* 0: anybody's. */
unsigned statement_owner(unsigned statement);
/* What clients call their statements; the last two are the same to PostgreSQL, which cuts them off. 0 is
 * the unnamed one. */
void make_statement_name(char name[STATEMENT_NAME_ROOM], unsigned owner, unsigned index);

/* ---- accounts ---- */

/* A database as clients ask for it, and where it is. */
struct database {
    const char *name, *server_name;
    const char *forced_user; /* NULL: the login's own */
};
extern const struct database databases[DATABASES];

struct login_name {
    const char *name, *password;
};
extern const struct login_name login_names[LOGINS];
/* The one who runs auth_query: always in auth_file. */
enum { LOGIN_AUTH_USER = 1 };
extern const char auth_query_text[];
/* What auth_file, or auth_query, says of a login. */
const char *login_secret(unsigned login);

/* Who an owner is: what PostgreSQL must see when it is asked by it. */
struct owner {
    uint8_t database, login;
    bool is_replication; /* has a session of its own, as long as it lives */
};
enum { OWNERS_MAX = 16384 };

/* How one end demands a password. */
enum demand { DEMAND_NOTHING, DEMAND_PLAIN, DEMAND_MD5, DEMAND_SCRAM };

/* ---- the whole ---- */

struct world {
    struct sim *sim;
    bool is_chaos;                   /* faults and disorder; else everything must come to its end */
    bool users_break, servers_break; /* in the chaos only */
    bool
        has_dropped; /* what is not at rest in a SUSPEND, or finds no room, with no word if need be */
    bool is_crowded; /* in the chaos a worker has room for a few clients only */
    bool is_sleepy;  /* many queries sleep, and are cancelled, mostly late */
    /* SIM_COPY_FAILS_EARLY=1. An extended COPY that fails before it has read the Sync that came
     * with its batch answers that Sync after all. When the client has sent CopyDone, another Sync
     * and more by then, exchange.c counts one answer too few: answers get lost. Known, not solved.
     */
    bool copy_fails_early;
    /* Not with SIM_KNOWN=1. What tracking does not do as PostgreSQL does it, for now: it forgets the
     * unnamed statement with a Parse that was skipped; it runs what is pipelined behind DISCARD ALL
     * where that is a named statement. */
    bool avoids_known;
    bool is_session_mode; /* of all pools, for the whole run: a session is reset between clients */
    bool has_sharing;     /* questions in SELECTs, and servers that are shared */
    bool teaches;         /* statements are taken to be short, though they may not be */
    bool is_alike;        /* few parameters differ */
    bool breaks_often;    /* backends */
    /* A chaos in which most comes to its end: many clients, few limits, and nothing stands still for long. */
    bool is_mild;
    bool is_pure;         /* nearly all that is asked may share */
    bool is_shut_down;    /* all must leave */
    bool has_replication; /* some clients ask for it */
    bool is_handed_over;  /* another process listens now: who was accepted before must be served */
    /* A cancel request comes by way of another process. False: not now. */
    bool (*order_cancel)(const uint8_t key[8]);
    bool is_shared_mode;       /* the opposite: no pool has session mode, ever */
    unsigned chaos_owner_last; /* owners above it have begun after the chaos */
    /* Prepared statements with names: as PostgreSQL has them, since clients keep their sessions, or
     * tracked by the pooler. Neither: only unnamed ones, parsed in the batch that uses them. */
    bool has_names, is_tracked;
    unsigned pipe_bytes; /* of each connection and direction */
    bool may_track;      /* now and then, if modes change */
    bool caches_unnamed;
    unsigned prepared_max; /* max_prepared_statements */
    bool changes_schema, loses_statements;
    bool heals;                /* heal_statements */
    unsigned rounds_of_schema; /* how long a version lasts, on the average */
    unsigned schema_version;
    unsigned disturbances;           /* changes of the schema, statements lost */
    uint32_t has_parsed[OWNERS_MAX]; /* a bit for each statement that is anybody's */
    enum demand client_demand, server_demand;
    /* TLS, on both sides; whether it must be, in each configuration of the run. PostgreSQL may speak it. */
    bool has_tls, demands_client_tls, demands_server_tls, servers_speak_tls;
    bool reads_are_whole; /* what is written at once is received at once, if it is little */
    unsigned long long tls_clients, tls_servers, tls_cancels;
    bool carol_is_scram_only; /* no plain password of her is configured */
    bool looks_up;            /* auth_file knows the one who runs auth_query only */
    char carol_secret[SCRAM_SECRET_TEXT_BYTES_MAX];
    struct scram_secret secrets[LOGINS]; /* the same at both ends, but for what is made of plain */
    struct sockaddr_in listen_address;
    struct sockaddr_in server_addresses[SERVER_ADDRESSES];
    struct owner owners[OWNERS_MAX];
    /* The owner's question whose Bind PostgreSQL refused last: 0A000, 26000. */
    unsigned refused[OWNERS_MAX], lost[OWNERS_MAX];
    unsigned owner_last;
    bool is_logged; /* SIM_LOG */
    unsigned long long answers, transactions, cancels_hit, fatals, lent, passed_over, looked_up;
    bool was_standby, is_promoted; /* PostgreSQL */
    bool changes_peer_id;          /* RELOADs do: what was ours once need not be */
    unsigned long long strays_arrived;
    unsigned long long parses, binds, bind_errors, stale_errors, healed;
    /* PostgreSQL got them while others' were not answered. */
    unsigned long long joined, sets_between;
    unsigned long long cancelled_in_queue, late_signals, stray_signals;
    unsigned cancelled[OWNERS_MAX]; /* up to this question an owner has asked for a cancel */
    /* What PostgreSQL has answered it with makes no sense. */
    bool is_wild[OWNERS_MAX];
    unsigned long long wild_answers, failed_sets;
    /* The exchange of an owner shares, and nothing of its answer was passed on: as the pooler sees it when
     * each of its turns ends. `losses`: how often it was asked again already. */
    struct {
        bool is_shared;
        uint8_t losses;
    } at_stake[OWNERS_MAX];
};

extern struct world world;

/* Makes the secrets and forgets the world before. `world.sim` is there. */
void world_begin(void);

static inline bool happens(unsigned one_of)
{
    return sim_below(world.sim, one_of) == 0;
}

static inline uint64_t world_now_us(void)
{
    return sim_now_us(world.sim);
}

/* A line of the trace, with SIM_LOG=1 only: "time text". */
#define world_log(...) (world.is_logged ? world_log_line(__VA_ARGS__) : (void)0)
void world_log_line(const char *format, ...) printf_like(1, 2);

#endif
