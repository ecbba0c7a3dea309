/* report.h - rows that a core fills in for the console's SHOW tables. Plain values, copied between
 * threads.
 *
 * Columns: tests/compat/show_columns.tsv. */
#ifndef POOL_REPORT_H
#define POOL_REPORT_H

#include "crypto/tls.h"
#include "io/mailbox.h"
#include "pool/sharing.h"

struct pool_stats {
    uint64_t server_assignment_count;
    uint64_t xact_count, query_count;
    uint64_t received_bytes, sent_bytes; /* from clients, from servers */
    uint64_t xact_us, query_us, wait_us;
    uint64_t client_parse_count, server_parse_count, bind_count;
    uint64_t client_login_count;
};

struct pool_row {
    char database[DATABASE_NAME_BYTES_MAX];
    char user[USER_NAME_BYTES_MAX];
    unsigned cl_active, cl_waiting, cl_active_cancel_req, cl_waiting_cancel_req;
    unsigned sv_active, sv_active_cancel, sv_being_canceled, sv_idle, sv_used, sv_tested, sv_login;
    unsigned client_count; /* of the pool, all states */
    uint64_t maxwait_us;
    int pool_mode;  /* enum pool_mode */
    bool is_paused; /* by PAUSE db, or KILL */
    unsigned worker;
    uint64_t pool_id; /* of this very shard: one that was forgotten comes back with another */
    uint64_t lent_total, borrowed_total; /* servers given to other shards, and got from them */
    struct pool_stats stats;
};

/* A client or a server. */
struct socket_row {
    bool is_server;
    char user[USER_NAME_BYTES_MAX];
    char database[DATABASE_NAME_BYTES_MAX];
    const char *state;       /* static text: active, idle, waiting, used, tested, new ... */
    const char *replication; /* the same: none, logical, physical */
    char address[64];
    unsigned port;
    char local_address[64];
    unsigned local_port;
    uint64_t connect_us, request_us; /* monotonic */
    uint64_t wait_us;
    bool close_needed;
    uint64_t pointer,
        link; /* ids, as in the log: an address would change with a handover; 0: none */
    uint32_t remote_pid;
    char application_name[128];
    char tls[TLS_DESCRIPTION_BYTES]; /* "": plain */
    unsigned prepared_count;         /* of a client: its names; of a server: what it has */
    uint32_t packet_remain;          /* bytes of the message at hand that have not come yet */
    uint32_t packet_avail;           /* bytes that have come and are not looked at yet */
    uint32_t send_avail;             /* bytes that wait for the peer to take them */
    uint64_t id;
};

enum { STATEMENT_ROW_TEXT_BYTES = 1000, STATEMENT_ROW_TYPES_BYTES = 120 };

/* A prepared statement that a core knows. */
struct statement_row {
    char name[40];                           /* on servers; the same on all cores */
    char text[STATEMENT_ROW_TEXT_BYTES + 4]; /* what is longer ends in ...; "": not known here */
    char types[STATEMENT_ROW_TYPES_BYTES];   /* oids, with commas */
    uint64_t bytes;                          /* of text and types */
    uint64_t bind_count;
    unsigned client_count, server_count;
};

/* A shard of a pool: what shares its servers. */
struct sharing_row {
    char database[DATABASE_NAME_BYTES_MAX];
    char user[USER_NAME_BYTES_MAX];
    unsigned worker;
    int setting; /* what holds for this pool: off in session mode, too, and where servers are reset each time */
    struct sharing_policy policy;
    unsigned server_count, queued_count;
    struct sharing_stats stats;
};

/* A class of statements that a shard has met. */
struct class_row {
    char database[DATABASE_NAME_BYTES_MAX];
    char user[USER_NAME_BYTES_MAX];
    uint64_t hash;
    uint64_t total, measured;
    uint64_t most_measured;                 /* of one shard: control/merge.c's */
    double mean_us, deviation_us, floor_us; /* of those measured; floor_us 0: not known */
    enum follow follow;
    char text[STATEMENT_TEXT_SHOWN_BYTES];
};

/* Objects of one size that a core has. */
struct memory_row {
    char name[32];
    uint32_t object_bytes;
    uint64_t used_count, free_count; /* free: were used once, and are kept */
};

enum report_kind {
    REPORT_POOLS,
    REPORT_PEERS, /* pool_row: pool_id is the peer's, and what concerns cancel requests */
    REPORT_CLIENTS,
    REPORT_LOGINS, /* clients that have not logged in yet; rows as of REPORT_CLIENTS */
    REPORT_SERVERS,
    REPORT_STATEMENTS,
    REPORT_MEMORY,
    REPORT_SHARING,
    REPORT_CLASSES,
    REPORT_COUNTS,
    REPORT_UNSETTLED, /* during SUSPEND: `unsettled` only */
};

struct core_counts {
    unsigned pools, clients, login_clients, free_clients;
    unsigned servers, free_servers; /* free ones, as of clients: objects, not connections */
    unsigned busy_servers;          /* keep a PAUSE from being complete */
    unsigned connections;           /* conns that are not gone, listeners apart */
    unsigned unsettled;             /* keep a SUSPEND from being complete */
};

/* A request of control: the core fills in rows from `cursor` on, at most `row_max` at a time so
 * that a large table does not hold up its clients, and posts the letter back. Control posts it
 * again while `more`. */
struct report {
    struct letter letter; /* `open` must be report_open on the way there */
    letter_open *answered;
    enum report_kind kind;
    uint32_t cursor; /* 0 at first */
    bool more;
    uint32_t row_count, row_max;
    union {
        struct pool_row *pools;
        struct socket_row *sockets;
        struct statement_row *statements;
        struct memory_row *memory;
        struct sharing_row *sharing;
        struct class_row *classes;
    } rows;
    struct core_counts counts;
    char database[DATABASE_NAME_BYTES_MAX]; /* of REPORT_COUNTS: busy servers of this one only; "":
                                               all */
    void *owner;                            /* control's */
};

/* The context is the core; fills in what fits and posts the report back to control. */
void report_open(struct letter *letter, void *core);

#endif
