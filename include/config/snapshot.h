/* snapshot.h - the whole configuration as one immutable value with a reference count.
 *
 * Control builds a new one for each RELOAD and sends it to every worker; a worker swaps it between
 * two completions and gives the old one back. Nothing in it changes after snapshot_load has
 * returned (the reference count apart), so any thread may read it. All strings and arrays live in
 * one arena that is freed with the last reference. snapshot_load blocks and allocates: control
 * only.
 *
 * A load is all or nothing: with one mistake in any file no snapshot is made and the old one stays.
 * All mistakes are reported (LEVEL_ERROR), not only the first. One kind of LEVEL_ERROR does not
 * fail the load, as in PgBouncer: an auth_file that is missing or broken (users before the broken
 * line count). auth_hba_file and auth_ident_file are read when auth_type is hba; they must be there. */
#ifndef CONFIG_SNAPSHOT_H
#define CONFIG_SNAPSHOT_H

#include "config/file.h"
#include "config/hba.h"
#include "config/ldap_options.h"
#include "config/settings.h"

#include <stdatomic.h>

/* Of crypto/tls.h, which config/ does not know: made, counted and released by whoever sets them. */
struct tls_context;

enum load_balance_hosts { LOAD_BALANCE_DISABLE, LOAD_BALANCE_ROUND_ROBIN };

/* "Not set" is -1 in the fields below that may inherit; unset strings are NULL. Sizes and limits
 * hold what the file says; snapshot_pool_settings makes the effective value of a pool out of them.
 */
struct database_config {
    const char *name;   /* as clients ask for it */
    const char *dbname; /* on the server; never NULL */
    const char *host;   /* NULL: unix socket in unix_socket_dir */
    uint16_t port;      /* default 5432 */
    const char *user;   /* forced user, or NULL */
    const char *password;
    const char *auth_user, *auth_query, *auth_dbname;
    int pool_size, min_pool_size, reserve_pool_size;
    const char *connect_query;
    int pool_mode;                 /* enum pool_mode or -1 */
    int64_t query_wait_timeout_us; /* -1: not set, 0: never */
    enum load_balance_hosts load_balance_hosts;
    int max_db_connections, max_db_client_connections; /* <= 0: the global value */
    int64_t server_lifetime_us;                        /* -1: not set (0 in the file) */
    const char *client_encoding, *datestyle, *timezone, *application_name;
    int server_sharing; /* SHARING_NOT_SET: not set */
    bool is_auto;       /* the `*` entry: `name` is "*", and dbname "*" stands for the asked name */
};

struct user_config {
    const char *name;
    const char *secret;   /* from auth_file; "" where there is none */
    bool is_in_auth_file; /* listed there, even with an empty secret */
    int pool_mode;        /* enum pool_mode or -1 */
    int pool_size, reserve_pool_size;
    int max_user_connections, max_user_client_connections; /* <= 0: the global value */
    int64_t query_timeout_us, query_wait_timeout_us, idle_transaction_timeout_us,
        transaction_timeout_us, client_idle_timeout_us; /* -1: not set (for all but
                                                         * query_wait_timeout 0 in the file) */
    int server_sharing;                                 /* SHARING_NOT_SET: not set */
};

struct peer_config {
    int peer_id;
    const char *host;
    uint16_t port;
    int pool_size; /* -1: default_pool_size */
};

struct snapshot {
    struct settings settings;
    const struct database_config *databases; /* sorted by name, without `*` */
    size_t database_count;
    const struct database_config *auto_database; /* the `*` entry or NULL */
    const struct user_config *users; /* sorted by name: auth_file, [users], user= and auth_user= */
    size_t user_count;
    const struct peer_config *peers; /* sorted by id */
    size_t peer_count;
    struct hba hba;                  /* empty unless auth_type is hba */
    const struct ldap_options *ldap; /* auth_ldap_options, read; NULL: there are none */
    /* NULL: no TLS on that side, which is so exactly when its *_tls_sslmode is disable, or nobody has
     * called snapshot_set_tls. Two snapshots with the same one have the same certificates and rules. */
    struct tls_context *client_tls, *server_tls;
    /* below: snapshot.c only */
    void (*release_tls)(struct tls_context *context);
    atomic_uint references;
    void *arena;
};

/* What applies to a pool of `database` for server user `user` (PgBouncer's order: user, database,
 * global). */
struct pool_settings {
    enum pool_mode pool_mode;
    int pool_size;      /* 0: no limit */
    int pool_shards;    /* 0: as pool_size says */
    int server_sharing; /* SHARING_OFF, SHARING_AUTO, or servers to keep busy before sharing */
    int min_pool_size;  /* capped by pool_size */
    int reserve_pool_size;
    int max_db_connections, max_user_connections;               /* 0: no limit */
    int max_db_client_connections, max_user_client_connections; /* 0: no limit */
    uint64_t server_lifetime_us, query_timeout_us, query_wait_timeout_us,
        idle_transaction_timeout_us, transaction_timeout_us, client_idle_timeout_us;
};

/* Reads `path` and what it names (includes, auth_file, HBA and ident files). Every mistake and warning goes to `report`
 * (level, text with file and line). Returns NULL when there was a mistake, else a snapshot with one
 * reference. */
struct snapshot *snapshot_load(const char *path, log_report *report, void *context) must_check;

/* The same for a RELOAD: settings that only a restart changes keep the value that they have in
 * `running`, and a warning names those that the file would change; when the auth_file cannot be
 * opened, its users stay. All else comes from the files alone: what is gone from them is gone or at
 * its default. */
struct snapshot *snapshot_reload(const struct snapshot *running, const char *path,
                                 log_report *report, void *context) must_check;

/* Both of them with files that come from `open`: tests and fuzzers. `running` may be NULL. */
struct snapshot *snapshot_load_through(config_open *open, void *open_context, const char *path,
                                       const struct snapshot *running, log_report *report,
                                       void *context) must_check;

/* What has just been loaded has no TLS yet: control sets it, once, before any other thread sees the
 * snapshot. A reference of each (or NULL) is given away; `release` is called with the snapshot's last
 * reference, on any thread. */
void snapshot_set_tls(struct snapshot *snapshot, struct tls_context *client_tls,
                      struct tls_context *server_tls, void (*release)(struct tls_context *context));

/* Any thread. The last release frees, so it may take the time of a few thousand free calls. */
void snapshot_reference(struct snapshot *snapshot);
void snapshot_release(struct snapshot *snapshot);

/* A copy of `base` with one [pgbouncer] or [pgsplice] setting changed (console SET): NULL when the
 * key or the value is wrong. A setting that only a restart changes is checked and then left as it
 * is, as PgBouncer does. Users, databases and peers are those of `base`; HBA rules too, unless the
 * setting is about them: then their files are read (control, as for a load). It has no TLS yet, as after
 * a load. */
struct snapshot *snapshot_with_setting(const struct snapshot *base, const char *name,
                                       const char *value) must_check;

/* Exact name, else the `*` entry, else NULL. NULL for the console's "pgbouncer" and for names that
 * no database can have (DATABASE_NAME_BYTES_MAX). */
const struct database_config *snapshot_find_database(const struct snapshot *snapshot,
                                                     const char *name);
/* NULL: not known. */
const struct user_config *snapshot_find_user(const struct snapshot *snapshot, const char *name);

void snapshot_pool_settings(const struct snapshot *snapshot, const struct database_config *database,
                            const struct user_config *user /* or NULL */,
                            struct pool_settings *out);

/* True when `name` stands in a comma (or blank) separated list such as admin_users. */
bool list_contains(const char *list, const char *name, bool ignore_case);

/* True when servers opened for `old` may not serve `new` (dbname, host, port, user, connect_query,
 * auth_dbname, auth_query or load_balance_hosts differ). */
bool database_config_moved(const struct database_config *old, const struct database_config *new);

/* A number made of the same fields: servers of one may serve the other if it is the same. */
uint64_t database_config_identity(const struct database_config *config);

#endif
