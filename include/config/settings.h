/* settings.h - every setting of [pgbouncer] and [pgsplice], one table row each.
 *
 * A row of the table serves the parser, SHOW CONFIG, SET, the manual and the sample file. A field
 * is named as its setting; a time has `_us` behind it and counts microseconds. Strings belong to
 * the snapshot that holds the struct (config/snapshot.h) and are NULL where the setting has no
 * value. Names, types, defaults and limits: tests/compat/settings.tsv.
 *
 * Numbers are written as in C (0x10, 010), truth values as 0 and 1, times in seconds with a
 * fraction, names in lower case. Behind those (not behind strings) ` ; note` and ` # note` are
 * dropped with a warning.
 *
 * Pure: any thread. Assumes the "C" locale, which no part of the program changes. */
#ifndef CONFIG_SETTINGS_H
#define CONFIG_SETTINGS_H

#include "config/report.h"

#include <stdio.h>

enum huge_pages { HUGE_PAGES_OFF, HUGE_PAGES_TRY, HUGE_PAGES_ON };

enum pool_mode { POOL_MODE_SESSION, POOL_MODE_TRANSACTION, POOL_MODE_STATEMENT };

enum auth_type {
    AUTH_ANY,
    AUTH_TRUST,
    AUTH_PLAIN,
    AUTH_MD5,
    AUTH_CERT,
    AUTH_HBA,
    AUTH_LDAP,
    AUTH_PAM,
    AUTH_SCRAM_SHA_256,
    /* Only in HBA lines: no auth_type. */
    AUTH_PEER,
    AUTH_REJECT,
};

/* client_tls_sslmode and server_tls_sslmode */
enum tls_mode {
    TLS_MODE_DISABLE,
    TLS_MODE_ALLOW,
    TLS_MODE_PREFER,
    TLS_MODE_REQUIRE,
    TLS_MODE_VERIFY_CA,
    TLS_MODE_VERIFY_FULL,
};

enum tls_dheparams { TLS_DHEPARAMS_NONE, TLS_DHEPARAMS_AUTO, TLS_DHEPARAMS_LEGACY };

/* server_sharing: else a number of servers, 1 to SHARING_SERVERS_MAX. An entry may leave it to the global
 * setting. */
enum {
    SHARING_OFF = 0,
    SHARING_AUTO = -1,
    SHARING_NOT_SET = -2,
    SHARING_SERVERS_MAX = 1000,
};

struct settings {
    /* [pgbouncer] */
    const char *admin_users; /* list */
    bool application_name_add_host;
    const char *auth_dbname;
    const char *auth_file;
    const char *auth_hba_file;
    const char *auth_ident_file;
    const char *auth_ldap_options;
    const char *auth_query;
    enum auth_type auth_type;
    const char *auth_user;
    uint64_t autodb_idle_timeout_us;
    uint64_t cancel_wait_timeout_us;
    uint64_t client_idle_timeout_us;
    uint64_t client_login_timeout_us;
    const char *client_tls13_ciphers;
    const char *client_tls_ca_file;
    const char *client_tls_cert_file;
    const char *client_tls_ciphers;
    int client_tls_dheparams; /* enum tls_dheparams */
    const char *client_tls_ecdhcurve;
    const char *client_tls_key_file;
    const char *client_tls_protocols; /* list */
    int client_tls_sslmode;           /* enum tls_mode */
    const char *conffile; /* never NULL in a snapshot: the file that was read if none is named */
    int default_pool_size;
    bool disable_pqexec;
    uint64_t dns_max_ttl_us;
    uint64_t dns_nxdomain_ttl_us;
    uint64_t dns_zone_check_period_us;
    uint64_t idle_transaction_timeout_us;
    const char *ignore_startup_parameters; /* list */
    const char *job_name;
    const char *listen_addr; /* list */
    int listen_backlog;
    int listen_port;
    bool log_connections;
    bool log_disconnections;
    bool log_pooler_errors;
    bool log_stats;
    const char *logfile;
    const char *login_notify_message;
    int max_client_conn;
    int max_db_client_connections;
    int max_db_connections;
    unsigned max_packet_size;
    int max_prepared_statements;
    int max_user_client_connections;
    int max_user_connections;
    int min_pool_size;
    int peer_id;
    const char *pidfile;
    int pkt_buf;
    enum pool_mode pool_mode;
    uint64_t pool_idle_timeout_us;
    uint64_t query_timeout_us;
    int query_wait_notify;
    uint64_t query_wait_timeout_us;
    int reserve_pool_size;
    uint64_t reserve_pool_timeout_us;
    const char *resolv_conf;
    int sbuf_loopcnt;
    int scram_iterations;
    uint64_t server_check_delay_us;
    const char *server_check_query;
    uint64_t server_connect_timeout_us;
    bool server_fast_close;
    uint64_t server_idle_timeout_us;
    uint64_t server_lifetime_us;
    uint64_t server_login_retry_us;
    const char *server_reset_query;
    bool server_reset_query_always;
    bool server_round_robin;
    const char *server_tls13_ciphers;
    const char *server_tls_ca_file;
    const char *server_tls_cert_file;
    const char *server_tls_ciphers;
    const char *server_tls_key_file;
    const char *server_tls_protocols; /* list */
    int server_tls_sslmode;           /* enum tls_mode */
    bool so_reuseport;
    int stats_period;
    const char *stats_users; /* list */
    uint64_t suspend_timeout_us;
    bool syslog;
    int syslog_facility; /* LOG_DAEMON and so on, of <syslog.h> */
    const char *syslog_ident;
    int tcp_defer_accept;
    bool tcp_keepalive;
    int tcp_keepcnt;
    int tcp_keepidle;
    int tcp_keepintvl;
    int tcp_socket_buffer;
    int tcp_user_timeout;
    const char *track_extra_parameters; /* list */
    uint64_t transaction_timeout_us;
    const char *unix_socket_dir;
    const char *unix_socket_group;
    int unix_socket_mode;
    const char *user;
    int verbose; /* -1: not in the file, the count of -v holds */
    /* [pgsplice] */
    int worker_threads;       /* 0: one for each core that this process may run on */
    const char *cpu_affinity; /* list of CPUs for the workers; empty: as the process may */
    bool cache_unnamed_statements;
    bool heal_statements;
    bool track_sql_prepare;
    bool console_old_columns;
    bool incoming_cpu;            /* connections are accepted where their packets arrive */
    int huge_pages;               /* enum huge_pages */
    uint64_t busy_poll_us;        /* how long a worker spins before it sleeps; 0: not at all */
    int receive_buffer_bytes;     /* size of one receive buffer, 1 KiB to 64 KiB */
    int receive_buffer_count_max; /* most receive buffers of a worker, a power of two */
    int pool_shards;              /* cores that a pool is spread over; 0: as pool_size says */
    int server_connect_parallel;  /* connections of one pool that may be opened at a time */
    uint64_t server_login_retry_max_us; /* the growing pause between attempts ends here: 32 s */
    int server_sharing; /* servers kept busy before clients share one; SHARING_OFF, SHARING_AUTO */
};

enum setting_kind {
    SETTING_BOOL,
    SETTING_INT,
    SETTING_UINT,
    SETTING_TIME_US, /* in the file: seconds, a fraction allowed */
    SETTING_ENUM,
    SETTING_STRING,
    SETTING_LIST,
    SETTING_PATH,
    SETTING_SHORT_TIME_US, /* in the file: microseconds, or a number with the unit us, ms or s */
    SETTING_INT_OR_NAME, /* a number from min to max, or a name that stands for one; names of one value
                              stand together, the first is shown */
};

struct setting_name {
    const char *name;
    int value;
};

struct setting {
    const char *section; /* "pgbouncer" or "pgsplice" */
    const char *name;
    enum setting_kind kind;
    size_t offset;                    /* of the field in struct settings */
    const char *default_text;         /* as SHOW CONFIG prints it; NULL: none */
    int64_t min, max;                 /* of numbers and times (seconds) */
    const struct setting_name *names; /* of those with names, ends with a NULL name */
    bool on_reload;                   /* false: only a restart takes a new value */
    bool is_secret;                   /* may hold a password: SHOW CONFIG does not print it */
    const char *unused_reason;        /* not NULL: accepted, but has no effect (yet), and why */
    const char *meaning;              /* one sentence for the manual */
    /* NULL, or judges a value of the right form: LEVEL_ERROR refuses it, LEVEL_WARNING takes it and
     * says why not gladly, LEVEL_LOG has nothing to say. With it, unused_reason is for the manual
     * only. */
    enum log_level (*judge)(const struct setting *setting, int64_t value, const char **why);
};

/* In the order of SHOW CONFIG, those of [pgsplice] at the end. */
extern const struct setting settings_table[];
extern const size_t settings_count;

/* NULL: no such setting. */
const struct setting *setting_find(const char *section, const char *name);

/* The value as SHOW CONFIG prints it (durations with %g in seconds, octal modes in decimal).
 * NULL: a string without a value. `text` is used when the value must be made. */
const char *setting_format(const struct setting *setting, const struct settings *settings,
                           char text[64]);

/* The defaults; strings are literals. conffile stays NULL. */
void settings_set_defaults(struct settings *settings);

/* Puts the value that stands in a file (or in SET) into the field, or names the mistake in `report`
 * and leaves the field alone. A string is not copied: `value` has to live as long as `settings`. */
bool setting_parse(const struct setting *setting, const char *value, struct settings *settings,
                   struct config_report *report, const struct config_place *place) must_check;

/* For entries of [databases] and [users] that know the same values: reads a number or a name of a
 * SETTING_INT_OR_NAME; `base` as of strtoll. False: it is neither; setting_format_names says what may stand there. */
bool setting_parse_int_or_name(const struct setting *setting, const char *text, int base,
                               int64_t *value) must_check;
void setting_format_names(const struct setting *setting, char names[256]);

/* Copies one field; strings as pointers. */
void setting_copy(const struct setting *setting, struct settings *to, const struct settings *from);

/* Both have the value that SHOW CONFIG would print alike. */
bool setting_is_equal(const struct setting *setting, const struct settings *a,
                      const struct settings *b);

/* The field of a setting that is a string, a list or a path; NULL for other kinds. */
const char **setting_string(const struct setting *setting, struct settings *settings);

#endif
