#include "config/settings.h"

#include "base/assert.h"
#include "config/ldap_options.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

/* Limits that are no limits of ours but catch a slip of the finger. */
#define SIZE_MAX_SENSIBLE 100000 /* connections of one pool */
#define COUNT_MAX_SENSIBLE 10000000
#define SECONDS_MAX_SENSIBLE 1000000000 /* thirty years */

static const struct setting_name auth_type_names[] = {
    {"any", AUTH_ANY},   {"trust", AUTH_TRUST}, {"plain", AUTH_PLAIN},
    {"md5", AUTH_MD5},   {"cert", AUTH_CERT},   {"hba", AUTH_HBA},
    {"ldap", AUTH_LDAP}, {"pam", AUTH_PAM},     {"scram-sha-256", AUTH_SCRAM_SHA_256},
    {NULL, 0},
};

static const struct setting_name huge_pages_names[] = {
    {"off", HUGE_PAGES_OFF},
    {"try", HUGE_PAGES_TRY},
    {"on", HUGE_PAGES_ON},
    {NULL, 0},
};

static const struct setting_name pool_mode_names[] = {
    {"session", POOL_MODE_SESSION},
    {"transaction", POOL_MODE_TRANSACTION},
    {"statement", POOL_MODE_STATEMENT},
    {NULL, 0},
};

static const struct setting_name server_sharing_names[] = {
    {"auto", SHARING_AUTO},
    {"on", SHARING_AUTO},
    {"off", SHARING_OFF},
    {"no", SHARING_OFF},
    {NULL, 0},
};

static const struct setting_name tls_mode_names[] = {
    {"disable", TLS_MODE_DISABLE},
    {"allow", TLS_MODE_ALLOW},
    {"prefer", TLS_MODE_PREFER},
    {"require", TLS_MODE_REQUIRE},
    {"verify-ca", TLS_MODE_VERIFY_CA},
    {"verify-full", TLS_MODE_VERIFY_FULL},
    {NULL, 0},
};

static const struct setting_name tls_dheparams_names[] = {
    {"none", TLS_DHEPARAMS_NONE},
    {"auto", TLS_DHEPARAMS_AUTO},
    {"legacy", TLS_DHEPARAMS_LEGACY},
    {NULL, 0},
};

static const struct setting_name syslog_facility_names[] = {
    {"auth", LOG_AUTH},
    {"authpriv", LOG_AUTHPRIV},
    {"daemon", LOG_DAEMON},
    {"user", LOG_USER},
    {"local0", LOG_LOCAL0},
    {"local1", LOG_LOCAL1},
    {"local2", LOG_LOCAL2},
    {"local3", LOG_LOCAL3},
    {"local4", LOG_LOCAL4},
    {"local5", LOG_LOCAL5},
    {"local6", LOG_LOCAL6},
    {"local7", LOG_LOCAL7},
    {NULL, 0},
};

/* What would silently weaken security if it were accepted and not done is refused. */

static enum log_level judge_auth_type(const struct setting *setting, int64_t value,
                                      const char **why)
{
    (void)setting;
    switch (value) {
    case AUTH_LDAP:
        if (BUILD_HAS_LDAP)
            return LEVEL_LOG;
        *why = "auth_type ldap is not supported by this build (made with WITH_LDAP=0)";
        return LEVEL_ERROR;
    case AUTH_PAM:
        if (BUILD_HAS_PAM)
            return LEVEL_LOG;
        *why = "auth_type pam is not supported by this build (made with WITH_PAM=0)";
        return LEVEL_ERROR;
    default:
        return LEVEL_LOG;
    }
}

static enum log_level judge_power_of_two(const struct setting *setting, int64_t value,
                                         const char **why)
{
    (void)setting;
    if ((value & (value - 1)) != 0) {
        *why = "receive_buffer_count_max has to be a power of two";
        return LEVEL_ERROR;
    }
    return LEVEL_LOG;
}

/* clang-format off */
#define AT(field) offsetof(struct settings, field)
#define BOUNCER(name) "pgbouncer", #name
#define SPLICE(name) "pgsplice", #name
#define RESTART .on_reload = false
#define RELOAD .on_reload = true

#define STRING(kind_, name_, default_, apply_, meaning_, ...) \
    {BOUNCER(name_), kind_, AT(name_), default_, 0, 0, apply_, .meaning = meaning_, __VA_ARGS__}
#define NUMBER(kind_, name_, default_, min_, max_, apply_, meaning_, ...) \
    {BOUNCER(name_), kind_, AT(name_), default_, min_, max_, apply_, .meaning = meaning_, __VA_ARGS__}
#define BOOLEAN(name_, default_, apply_, meaning_, ...) \
    {BOUNCER(name_), SETTING_BOOL, AT(name_), default_, 0, 1, apply_, .meaning = meaning_, __VA_ARGS__}
#define SECONDS(name_, default_, apply_, meaning_, ...) \
    {BOUNCER(name_), SETTING_TIME_US, AT(name_##_us), default_, 0, SECONDS_MAX_SENSIBLE, apply_, .meaning = meaning_, __VA_ARGS__}
#define ONE_OF(name_, names_, default_, apply_, meaning_, ...) \
    {BOUNCER(name_), SETTING_ENUM, AT(name_), default_, 0, 0, .names = names_, apply_, .meaning = meaning_, __VA_ARGS__}

const struct setting settings_table[] = {
    STRING(SETTING_LIST, admin_users, "", RELOAD, "Users who may use every command of the console."),
    BOOLEAN(application_name_add_host, "0", RELOAD, "Adds the client's host and port to application_name at login."),
    STRING(SETTING_STRING, auth_dbname, NULL, RELOAD, "Database in which auth_query runs; unset: the one that the client asks for. Users of the console are looked up only if it is set."),
    STRING(SETTING_PATH, auth_file, NULL, RELOAD, "File with the names and secrets of users; read at start and on RELOAD."),
    STRING(SETTING_PATH, auth_hba_file, "", RELOAD, "HBA rules for auth_type hba."),
    STRING(SETTING_PATH, auth_ident_file, NULL, RELOAD, "Name maps for map= in HBA rules; read only with auth_type hba."),
    STRING(SETTING_STRING, auth_ldap_options, NULL, RELOAD, "Options for auth_type ldap, as behind `ldap` in an HBA file.", .is_secret = true),
    STRING(SETTING_STRING, auth_query, "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin", RELOAD,
        "Query that returns name and secret of a user who is not in auth_file."),
    ONE_OF(auth_type, auth_type_names, "md5", RELOAD, "How clients prove who they are.", .judge = judge_auth_type),
    STRING(SETTING_STRING, auth_user, NULL, RELOAD, "User who runs auth_query."),
    SECONDS(autodb_idle_timeout, "3600", RELOAD, "A database made from the `*` entry is forgotten after so long without connections; 0: never."),
    SECONDS(cancel_wait_timeout, "10", RELOAD, "A cancel request that could not be forwarded for so long is dropped; 0: never."),
    SECONDS(client_idle_timeout, "0", RELOAD, "A client that sends nothing for so long and holds no server is closed; 0: never."),
    SECONDS(client_login_timeout, "60", RELOAD, "A client that has not logged in after so long is closed; 0: never."),
    STRING(SETTING_STRING, client_tls13_ciphers, NULL, RELOAD, "Suites of TLS 1.3 for clients, as TLS_AES_128_GCM_SHA256:...; unset: ours, the fastest first."),
    STRING(SETTING_PATH, client_tls_ca_file, "", RELOAD, "Authorities that client certificates are verified against; with it a certificate that is sent has to be good in every mode."),
    STRING(SETTING_PATH, client_tls_cert_file, "", RELOAD, "Certificate shown to clients, PEM, its chain behind it; RELOAD reads it again."),
    STRING(SETTING_STRING, client_tls_ciphers, "default", RELOAD, "Ciphers for clients, TLS 1.2 and lower: a list as OpenSSL has them; default, secure, normal, fast: ours; all."),
    ONE_OF(client_tls_dheparams, tls_dheparams_names, "auto", RELOAD, "Parameters of the DHE key exchange, TLS 1.2 and lower: 2048 bits, legacy 1024, none: no DHE."),
    STRING(SETTING_STRING, client_tls_ecdhcurve, "auto", RELOAD, "Curves of the ECDHE key exchange: auto, X25519, prime256v1, secp384r1, secp521r1; none: no ECDHE in TLS 1.2 and lower."),
    STRING(SETTING_PATH, client_tls_key_file, "", RELOAD, "Key of client_tls_cert_file, PEM; RELOAD reads it again."),
    STRING(SETTING_LIST, client_tls_protocols, "secure", RELOAD, "TLS versions for clients: tlsv1.2, tlsv1.3, secure (both), all; older ones are not in the TLS library that is built here."),
    ONE_OF(client_tls_sslmode, tls_mode_names, "disable", RELOAD, "Whether clients may (allow, prefer) or must (require) use TLS, and must show a good certificate (verify-ca, verify-full)."),
    STRING(SETTING_PATH, conffile, NULL, RELOAD, "The main configuration file, as given on the command line."),
    NUMBER(SETTING_INT, default_pool_size, "20", 0, SIZE_MAX_SENSIBLE, RELOAD, "Server connections of one pool (database and user); 0: no limit."),
    BOOLEAN(disable_pqexec, "0", RESTART, "Closes clients that send a simple query, in the console too."),
    SECONDS(dns_max_ttl, "15", RELOAD, "How long the addresses of a host name are used, whatever the name server says; then the next connection asks again."),
    SECONDS(dns_nxdomain_ttl, "15", RELOAD, "How long a name lookup that failed is believed; RELOAD forgets it."),
    SECONDS(dns_zone_check_period, "0", RELOAD, "How often the SOA serial of each zone (what follows a name's first dot) is compared, and its hosts looked up again when it has changed; 0: not at all."),
    SECONDS(idle_transaction_timeout, "0", RELOAD, "A client that is idle inside a transaction for so long is closed, with its server; 0: never."),
    STRING(SETTING_LIST, ignore_startup_parameters, "", RELOAD, "Parameters that clients may send at startup and that are dropped."),
    STRING(SETTING_STRING, job_name, "pgbouncer", RESTART, "Name of the service on Windows.", .unused_reason = "it has no meaning on Linux"),
    STRING(SETTING_LIST, listen_addr, "", RESTART, "Addresses to listen on; `*` is all of them, empty is no TCP."),
    NUMBER(SETTING_INT, listen_backlog, "128", 0, INT_MAX, RESTART, "Length of the kernel's queue of new connections."),
    NUMBER(SETTING_INT, listen_port, "6432", 0, 65535, RESTART, "TCP port, also part of the name of the unix socket."),
    BOOLEAN(log_connections, "1", RELOAD, "Logs logins and new server connections."),
    BOOLEAN(log_disconnections, "1", RELOAD, "Logs why connections end."),
    BOOLEAN(log_pooler_errors, "1", RELOAD, "Logs errors that are sent to clients."),
    BOOLEAN(log_stats, "1", RELOAD, "Logs a line of statistics each stats_period."),
    STRING(SETTING_PATH, logfile, "", RELOAD, "File the log is appended to; opened again on RELOAD."),
    STRING(SETTING_STRING, login_notify_message, "", RELOAD, "Notice sent to each client after login."),
    NUMBER(SETTING_INT, max_client_conn, "100", 0, COUNT_MAX_SENSIBLE, RELOAD, "Client connections altogether."),
    NUMBER(SETTING_INT, max_db_client_connections, "0", -1, COUNT_MAX_SENSIBLE, RELOAD, "Client connections of one database; 0: no limit."),
    NUMBER(SETTING_INT, max_db_connections, "0", -1, COUNT_MAX_SENSIBLE, RELOAD, "Server connections of one database over all users; 0: no limit."),
    NUMBER(SETTING_UINT, max_packet_size, "2147483647", 16, UINT32_MAX, RELOAD, "Longest message in bytes."),
    NUMBER(SETTING_INT, max_prepared_statements, "200", 0, COUNT_MAX_SENSIBLE, RELOAD, "Prepared statements kept on each server; 0: they are not tracked."),
    NUMBER(SETTING_INT, max_user_client_connections, "0", -1, COUNT_MAX_SENSIBLE, RELOAD, "Client connections of one user over all databases; 0: no limit."),
    NUMBER(SETTING_INT, max_user_connections, "0", -1, COUNT_MAX_SENSIBLE, RELOAD, "Server connections of one user over all databases; 0: no limit."),
    NUMBER(SETTING_INT, min_pool_size, "0", 0, SIZE_MAX_SENSIBLE, RELOAD, "Server connections that are kept open in a pool."),
    NUMBER(SETTING_INT, peer_id, "0", 0, 65535, RELOAD, "Number of this process among its peers; 0: no peers."),
    STRING(SETTING_PATH, pidfile, "", RESTART, "File for the process id; needed to run in the background."),
    NUMBER(SETTING_INT, pkt_buf, "4096", 0, INT_MAX, RESTART, "Size of PgBouncer's packet buffer.", .unused_reason = "there is no packet buffer; see receive_buffer_bytes in [pgsplice]"),
    ONE_OF(pool_mode, pool_mode_names, "session", RELOAD, "When a server goes back to its pool."),
    SECONDS(pool_idle_timeout, "0", RELOAD, "A pool without connections for so long is forgotten; 0: never."),
    SECONDS(query_timeout, "0", RELOAD, "A query that runs longer is ended, with its client and server; 0: never."),
    NUMBER(SETTING_INT, query_wait_notify, "5", 0, SECONDS_MAX_SENSIBLE, RELOAD, "A client that waits for a server so many seconds is told; 0: never."),
    SECONDS(query_wait_timeout, "120", RELOAD, "Longest wait for a server; 0: no limit."),
    NUMBER(SETTING_INT, reserve_pool_size, "0", 0, SIZE_MAX_SENSIBLE, RELOAD, "Additional server connections of a pool for clients that wait too long."),
    SECONDS(reserve_pool_timeout, "5", RELOAD, "The wait after which the reserve is used; 0: never."),
    STRING(SETTING_PATH, resolv_conf, "", RESTART, "File like /etc/resolv.conf to be read instead; RELOAD reads it again. A `nameserver` may have a port (`127.0.0.1:5353`)."),
    NUMBER(SETTING_INT, sbuf_loopcnt, "5", 0, INT_MAX, RELOAD, "Buffers that PgBouncer reads from one socket before the next.", .unused_reason = "the kernel delivers buffers without such a loop"),
    NUMBER(SETTING_INT, scram_iterations, "4096", 1, COUNT_MAX_SENSIBLE, RELOAD, "Iterations of SCRAM secrets made from plain ones."),
    SECONDS(server_check_delay, "30", RELOAD, "A server that was idle longer is checked before it is used; 0: each one, when it goes back."),
    STRING(SETTING_STRING, server_check_query, "<empty>", RELOAD, "Query of that check; empty: no check, `<empty>`: a query without text."),
    SECONDS(server_connect_timeout, "15", RELOAD, "Time for connecting and logging in to a server; 0: no limit."),
    BOOLEAN(server_fast_close, "0", RELOAD, "Session mode: servers that have to be closed go at the end of the transaction."),
    SECONDS(server_idle_timeout, "600", RELOAD, "A server unused for so long is closed; 0: never."),
    SECONDS(server_lifetime, "3600", RELOAD, "An older server is closed when it is not in use; 0: after one use."),
    SECONDS(server_login_retry, "15", RELOAD, "Pause after a failed connection to a server; 0: the shortest, a third of a second."),
    STRING(SETTING_STRING, server_reset_query, "DISCARD ALL", RELOAD, "Query that cleans a server when it goes back, in session mode."),
    BOOLEAN(server_reset_query_always, "0", RELOAD, "Runs server_reset_query in every pool mode."),
    BOOLEAN(server_round_robin, "0", RELOAD, "Uses the server that was idle longest first instead of last."),
    STRING(SETTING_STRING, server_tls13_ciphers, NULL, RELOAD, "Suites of TLS 1.3 for servers."),
    STRING(SETTING_PATH, server_tls_ca_file, "", RELOAD, "Authorities that server certificates are verified against."),
    STRING(SETTING_PATH, server_tls_cert_file, "", RELOAD, "Certificate shown to servers that ask for one, PEM; RELOAD reads it again."),
    STRING(SETTING_STRING, server_tls_ciphers, "default", RELOAD, "Ciphers for servers, TLS 1.2 and lower, as client_tls_ciphers."),
    STRING(SETTING_PATH, server_tls_key_file, "", RELOAD, "Key of server_tls_cert_file, PEM; RELOAD reads it again."),
    STRING(SETTING_LIST, server_tls_protocols, "secure", RELOAD, "TLS versions for servers, as client_tls_protocols."),
    ONE_OF(server_tls_sslmode, tls_mode_names, "prefer", RELOAD, "Whether servers are reached with TLS: allow and prefer: if they have it, require: only so, verify-ca: with a good certificate, verify-full: of their name, too."),
    BOOLEAN(so_reuseport, "0", RESTART, "Lets several processes listen on the same port."),
    NUMBER(SETTING_INT, stats_period, "60", 1, SECONDS_MAX_SENSIBLE, RELOAD, "Seconds between two lines of statistics, and the period of averages."),
    STRING(SETTING_LIST, stats_users, "", RELOAD, "Users who may use the reading commands of the console."),
    SECONDS(suspend_timeout, "10", RELOAD, "What has not come to rest after so long is dropped by SUSPEND; 0: no limit."),
    BOOLEAN(syslog, "0", RELOAD, "Logs to syslog as well."),
    ONE_OF(syslog_facility, syslog_facility_names, "daemon", RELOAD, "Facility for syslog."),
    STRING(SETTING_STRING, syslog_ident, "pgbouncer", RELOAD, "Name for syslog."),
    NUMBER(SETTING_INT, tcp_defer_accept, "1", 0, INT_MAX, RELOAD, "TCP_DEFER_ACCEPT on listening sockets."),
    BOOLEAN(tcp_keepalive, "1", RELOAD, "Asks silent peers whether they still exist."),
    NUMBER(SETTING_INT, tcp_keepcnt, "0", 0, 127, RELOAD, "Unanswered questions after which a peer is gone; 0: the system's value."),
    NUMBER(SETTING_INT, tcp_keepidle, "0", 0, 32767, RELOAD, "Seconds of silence before the first question; 0: the system's value."),
    NUMBER(SETTING_INT, tcp_keepintvl, "0", 0, 32767, RELOAD, "Seconds between questions; 0: the system's value."),
    NUMBER(SETTING_INT, tcp_socket_buffer, "0", 0, INT_MAX, RELOAD, "Bytes of the kernel's socket buffers; 0: the system's value."),
    NUMBER(SETTING_INT, tcp_user_timeout, "0", 0, INT_MAX, RELOAD, "Milliseconds that sent data may stay unacknowledged; 0: the system's value."),
    STRING(SETTING_LIST, track_extra_parameters, "IntervalStyle", RESTART, "Reported parameters kept for each client besides the built-in ones."),
    SECONDS(transaction_timeout, "0", RELOAD, "A transaction that lasts longer is ended, with its client and server; 0: never."),
    STRING(SETTING_PATH, unix_socket_dir, "/tmp", RESTART, "Directory of the unix socket, also for servers without a host; `@name`: abstract, empty: none."),
    STRING(SETTING_STRING, unix_socket_group, "", RESTART, "Group of the unix socket."),
    NUMBER(SETTING_INT, unix_socket_mode, "0777", 0, 07777, RESTART, "Permissions of the unix socket."),
    STRING(SETTING_STRING, user, NULL, RESTART, "User to become after start."),
    NUMBER(SETTING_INT, verbose, NULL, 0, 9, RELOAD, "1: DEBUG, 2: NOISE lines in the log; replaces the count of -v."),

    {SPLICE(worker_threads), SETTING_INT, AT(worker_threads), "0", 0, 1024, RESTART, .meaning = "Threads that serve connections; 0: one for each core."},
    {SPLICE(cpu_affinity), SETTING_STRING, AT(cpu_affinity), "", 0, 0, RESTART, .meaning = "CPUs that the workers are pinned to, in turn: 0-3,8; empty: those that the process may use."},
    {SPLICE(incoming_cpu), SETTING_BOOL, AT(incoming_cpu), "0", 0, 1, RESTART, .meaning = "A pinned worker accepts the connections whose packets its CPU handles (SO_INCOMING_CPU)."},
    {SPLICE(huge_pages), SETTING_ENUM, AT(huge_pages), "off", 0, 0, .names = huge_pages_names, RESTART, .meaning = "Huge pages for receive buffers and tables: off, try, or on (which does not start without them)."},
    {SPLICE(busy_poll), SETTING_SHORT_TIME_US, AT(busy_poll_us), "0", 0, 1, RELOAD, .meaning = "How long a worker looks for work before it sleeps: 50us, 1ms, 0.001s or a number of microseconds."},
    {SPLICE(receive_buffer_bytes), SETTING_INT, AT(receive_buffer_bytes), "16384", 1024, 65536, RESTART, .meaning = "Size of a receive buffer."},
    {SPLICE(receive_buffer_count_max), SETTING_INT, AT(receive_buffer_count_max), "4096", 16, 32768, RESTART, .meaning = "Most receive buffers of a worker; a power of two.", .judge = judge_power_of_two},
    {SPLICE(pool_shards), SETTING_INT, AT(pool_shards), "0", 0, 64, RELOAD, .meaning = "Workers that serve the clients of one pool; 0: one for each 4 of pool_size. Clients that are connected stay where they are."},
    {SPLICE(server_connect_parallel), SETTING_INT, AT(server_connect_parallel), "20", 1, SIZE_MAX_SENSIBLE, RELOAD, .meaning = "Connections to servers that one pool may open at a time."},
    {SPLICE(cache_unnamed_statements), SETTING_BOOL, AT(cache_unnamed_statements), "1", 0, 1, RELOAD, .meaning = "Where statements are tracked: a text that comes again without a name is kept prepared on the server."},
    {SPLICE(heal_statements), SETTING_BOOL, AT(heal_statements), "1", 0, 1, RELOAD, .meaning = "Where statements are tracked: one whose result has changed is prepared again unseen although its client has run it before."},
    {SPLICE(track_sql_prepare), SETTING_BOOL, AT(track_sql_prepare), "0", 0, 1, RELOAD, .meaning = "Where statements are tracked: those of PREPARE in SQL are, too."},
    {SPLICE(console_old_columns), SETTING_BOOL, AT(console_old_columns), "0", 0, 1, RELOAD, .meaning = "SHOW STATS ends with total_requests and SHOW DATABASES with reserve_pool, for programs that want these names of old PgBouncers."},
    {SPLICE(server_login_retry_max), SETTING_TIME_US, AT(server_login_retry_max_us), "32", 0, SECONDS_MAX_SENSIBLE, RELOAD, .meaning = "Longest pause after repeated failures to connect to a server."},
    {SPLICE(server_sharing), SETTING_INT_OR_NAME, AT(server_sharing), "auto", 0, SHARING_SERVERS_MAX, .names = server_sharing_names, RELOAD, .meaning = "How many servers each shard of a pool keeps busy before independent queries of several clients share one (transaction mode): auto (it finds out), off, or a number."},
};
/* clang-format on */

const size_t settings_count = COUNT_OF(settings_table);

const struct setting *setting_find(const char *section, const char *name)
{
    for (size_t index = 0; index < settings_count; index++)
        if (strcmp(settings_table[index].name, name) == 0 &&
            strcmp(settings_table[index].section, section) == 0)
            return &settings_table[index];
    return NULL;
}

/* Fields are reached through their kind, which the table states once. */

static const void *field_of(const struct setting *setting, const struct settings *settings)
{
    return (const char *)settings + setting->offset;
}

static bool is_string(const struct setting *setting)
{
    return setting->kind == SETTING_STRING || setting->kind == SETTING_LIST ||
           setting->kind == SETTING_PATH;
}

const char **setting_string(const struct setting *setting, struct settings *settings)
{
    return is_string(setting) ? (const char **)(void *)((char *)settings + setting->offset) : NULL;
}

static int64_t get_number(const struct setting *setting, const struct settings *settings)
{
    const void *field = field_of(setting, settings);

    switch (setting->kind) {
    case SETTING_BOOL:
        return *(const bool *)field;
    case SETTING_UINT:
        return *(const unsigned *)field;
    case SETTING_INT:
    case SETTING_ENUM:
    case SETTING_INT_OR_NAME:
        return *(const int *)field;
    case SETTING_TIME_US:
    case SETTING_SHORT_TIME_US:
        return (int64_t) * (const uint64_t *)field;
    case SETTING_STRING:
    case SETTING_LIST:
    case SETTING_PATH:
        break;
    }
    assert(!is_string(setting));
    return 0;
}

static void set_number(const struct setting *setting, struct settings *settings, int64_t value)
{
    void *field = (char *)settings + setting->offset;

    switch (setting->kind) {
    case SETTING_BOOL:
        *(bool *)field = value != 0;
        break;
    case SETTING_UINT:
        *(unsigned *)field = (unsigned)value;
        break;
    case SETTING_INT:
    case SETTING_ENUM:
    case SETTING_INT_OR_NAME:
        *(int *)field = (int)value;
        break;
    case SETTING_TIME_US:
    case SETTING_SHORT_TIME_US:
        *(uint64_t *)field = (uint64_t)value;
        break;
    case SETTING_STRING:
    case SETTING_LIST:
    case SETTING_PATH:
        assert(!is_string(setting));
        break;
    }
}

/* PgBouncer's enumerations are ints; ours are too, or get_number would not do. */
static_assert(sizeof(enum auth_type) == sizeof(int), "enumerations are stored as int");
static_assert(sizeof(enum pool_mode) == sizeof(int), "enumerations are stored as int");

/* NULL: it has none. */
static const char *name_of(const struct setting *setting, int64_t value)
{
    const struct setting_name *name = setting->names;

    while (name->name != NULL && name->value != (int)value)
        name++;
    return name->name;
}

const char *setting_format(const struct setting *setting, const struct settings *settings,
                           char text[64])
{
    const char *name;
    int64_t value;

    if (is_string(setting))
        return *(const char *const *)field_of(setting, settings);
    value = get_number(setting, settings);
    if (setting->names != NULL) {
        name = name_of(setting, value);
        assert(name != NULL || setting->kind == SETTING_INT_OR_NAME);
        if (name != NULL)
            return name;
    }
    switch (setting->kind) {
    case SETTING_TIME_US:
        snprintf(text, 64, "%g", (double)value / (double)US_PER_S);
        break;
    case SETTING_SHORT_TIME_US:
        snprintf(text, 64, value == 0 ? "%" PRId64 : "%" PRId64 "us", value);
        break;
    default:
        /* verbose is -1 as long as no file sets it */
        snprintf(text, 64, "%" PRId64,
                 setting->offset == AT(verbose) && value < 0 ? (int64_t)0 : value);
        break;
    }
    return text;
}

bool setting_is_equal(const struct setting *setting, const struct settings *a,
                      const struct settings *b)
{
    const char *text_a, *text_b;

    if (!is_string(setting))
        return get_number(setting, a) == get_number(setting, b);
    text_a = *(const char *const *)field_of(setting, a);
    text_b = *(const char *const *)field_of(setting, b);
    if (text_a == NULL || text_b == NULL)
        return text_a == text_b;
    return strcmp(text_a, text_b) == 0;
}

void setting_copy(const struct setting *setting, struct settings *to, const struct settings *from)
{
    if (is_string(setting))
        *setting_string(setting, to) = *(const char *const *)field_of(setting, from);
    else
        set_number(setting, to, get_number(setting, from));
}

/* One value on its way from text to field. */
struct parse {
    const struct setting *setting;
    struct config_report *report;
    const struct config_place *place;
    int64_t value;
};

static bool parse_integer(struct parse *parse, const char *text)
{
    const struct setting *setting = parse->setting;
    char *end;

    errno = 0;
    parse->value = strtoll(text, &end, 0);
    if (end == text || *end != '\0' || errno != 0) {
        config_mistake(parse->report, parse->place, "%s: \"%.100s\" is not a whole number",
                       setting->name, text);
        return false;
    }
    if (parse->value < setting->min || parse->value > setting->max) {
        config_mistake(parse->report, parse->place,
                       setting->kind == SETTING_BOOL ? "%s: \"%.100s\" is neither 0 nor 1"
                                                     : "%s: \"%.100s\" is not between %" PRId64
                                                       " and %" PRId64,
                       setting->name, text, setting->min, setting->max);
        return false;
    }
    return true;
}

/* strtod reads words and hexadecimal numbers too, which no setting means. */
static bool parse_decimal(const char *text, double *value, const char **rest)
{
    char *end;

    *value = 0;
    if (((*text < '0' || *text > '9') && *text != '.' && *text != '+') ||
        strpbrk(text, "xX") != NULL)
        return false;
    *value = strtod(text, &end);
    *rest = end;
    return end != text && isfinite(*value) && *value >= 0;
}

static bool parse_time(struct parse *parse, const char *text)
{
    const struct setting *setting = parse->setting;
    const char *rest;
    double seconds;

    if (!parse_decimal(text, &seconds, &rest) || *rest != '\0') {
        config_mistake(parse->report, parse->place,
                       "%s: \"%.100s\" is not a time (seconds without a unit, 0 or more)",
                       setting->name, text);
        return false;
    }
    if (seconds < (double)setting->min || seconds > (double)setting->max) {
        config_mistake(parse->report, parse->place,
                       "%s: \"%.100s\" is not between %" PRId64 " and %" PRId64 " seconds",
                       setting->name, text, setting->min, setting->max);
        return false;
    }
    parse->value = (int64_t)(seconds * (double)US_PER_S + 0.5);
    return true;
}

static bool parse_short_time(struct parse *parse, const char *text)
{
    static const struct {
        const char *unit;
        double factor_us;
    } units[] = {{"", 1}, {"us", 1}, {"ms", 1e3}, {"s", 1e6}};
    const struct setting *setting = parse->setting;
    const char *rest;
    double number;

    if (!parse_decimal(text, &number, &rest))
        rest = "not a number";
    rest += strspn(rest, " \t");
    for (size_t index = 0; index < COUNT_OF(units); index++) {
        if (strcmp(rest, units[index].unit) != 0)
            continue;
        if (number * units[index].factor_us > (double)setting->max * 1e6)
            break;
        parse->value = (int64_t)(number * units[index].factor_us + 0.5);
        return true;
    }
    config_mistake(parse->report, parse->place,
                   "%s: \"%.100s\" is not a time such as 50us, 1ms or 0.001s, at most %" PRId64 "s",
                   setting->name, text, setting->max);
    return false;
}

static bool find_name(const struct setting *setting, const char *text, int64_t *value)
{
    for (const struct setting_name *name = setting->names; name->name != NULL; name++)
        if (strcmp(name->name, text) == 0) {
            *value = name->value;
            return true;
        }
    return false;
}

void setting_format_names(const struct setting *setting, char names[256])
{
    size_t used = 0;

    for (const struct setting_name *name = setting->names; name->name != NULL; name++) {
        used +=
            (size_t)snprintf(names + used, 256 - used, "%s%s", used == 0 ? "" : ", ", name->name);
        assert(used < 256);
    }
    if (setting->kind == SETTING_INT_OR_NAME) {
        used += (size_t)snprintf(names + used, 256 - used, ", %" PRId64 " to %" PRId64,
                                 setting->min, setting->max);
        assert(used < 256);
    }
}

bool setting_parse_int_or_name(const struct setting *setting, const char *text, int base,
                               int64_t *value)
{
    char *end;

    assert(setting->kind == SETTING_INT_OR_NAME);
    if (find_name(setting, text, value))
        return true;
    errno = 0;
    *value = strtoll(text, &end, base);
    return end != text && *end == '\0' && errno == 0 && *value >= setting->min &&
           *value <= setting->max;
}

static bool parse_name(struct parse *parse, const char *text)
{
    const struct setting *setting = parse->setting;
    char names[256];

    if (setting->kind == SETTING_INT_OR_NAME
            ? setting_parse_int_or_name(setting, text, 0, &parse->value)
            : find_name(setting, text, &parse->value))
        return true;
    if (setting->names == syslog_facility_names) {
        /* PgBouncer takes every unknown one as daemon; files that rely on it should go on working.
         */
        config_say(parse->report, LEVEL_WARNING, parse->place,
                   "syslog_facility: \"%.100s\" is not known, daemon is used", text);
        parse->value = LOG_DAEMON;
        return true;
    }
    setting_format_names(setting, names);
    config_mistake(parse->report, parse->place, "%s: \"%.100s\" is none of %s", setting->name, text,
                   names);
    return false;
}

/* Copies the value without ` ; note`; true when there was one. */
static bool cut_note(const char *value, char *text, size_t text_bytes)
{
    const char *at = value;
    size_t bytes;

    for (;; at++) {
        at += strcspn(at, ";#");
        if (*at == '\0')
            return false;
        if (at > value && (at[-1] == ' ' || at[-1] == '\t'))
            break;
    }
    bytes = (size_t)(at - value);
    while (bytes > 0 && (value[bytes - 1] == ' ' || value[bytes - 1] == '\t'))
        bytes--;
    if (bytes >= text_bytes)
        return false;
    memcpy(text, value, bytes);
    text[bytes] = '\0';
    return true;
}

/* What it means is kept by the snapshot; here it is only looked for mistakes. */
static bool try_ldap_options(struct parse *parse, const char *value)
{
    struct arena *arena = arena_new();
    char error[LDAP_OPTIONS_ERROR_BYTES];
    bool good = ldap_options_parse(value, arena, error) != NULL;

    if (!good)
        config_mistake(parse->report, parse->place, "%s: %s", parse->setting->name, error);
    arena_free(arena);
    return good;
}

static bool parse_string(struct parse *parse, const char *value, struct settings *settings)
{
    const struct setting *setting = parse->setting;
    const char **field = setting_string(setting, settings);

    assert(field != NULL);
    if (setting->offset == AT(auth_ldap_options) && *value != '\0' &&
        !try_ldap_options(parse, value))
        return false;
    if (setting->offset == AT(auth_dbname) && strcmp(value, "pgbouncer") == 0) {
        config_mistake(parse->report, parse->place,
                       "auth_dbname: \"pgbouncer\" is the console, not a database");
        return false;
    }
    *field = value;
    return true;
}

bool setting_parse(const struct setting *setting, const char *value, struct settings *settings,
                   struct config_report *report, const struct config_place *place)
{
    struct parse parse = {.setting = setting, .report = report, .place = place};
    enum log_level level = LEVEL_LOG;
    const char *why = NULL;
    char text[256];
    bool good = false;

    if (is_string(setting))
        return parse_string(&parse, value, settings);
    if (cut_note(value, text, sizeof(text))) {
        config_say(report, LEVEL_WARNING, place, "%s: what follows \"%s\" is taken as a comment",
                   setting->name, text);
        value = text;
    }
    switch (setting->kind) {
    case SETTING_BOOL:
    case SETTING_INT:
    case SETTING_UINT:
        good = parse_integer(&parse, value);
        break;
    case SETTING_TIME_US:
        good = parse_time(&parse, value);
        break;
    case SETTING_SHORT_TIME_US:
        good = parse_short_time(&parse, value);
        break;
    case SETTING_ENUM:
    case SETTING_INT_OR_NAME:
        good = parse_name(&parse, value);
        break;
    case SETTING_STRING:
    case SETTING_LIST:
    case SETTING_PATH:
        break;
    }
    if (good && setting->judge != NULL)
        level = setting->judge(setting, parse.value, &why);
    if (level == LEVEL_ERROR) {
        config_mistake(report, place, "%s", why);
        good = false;
    } else if (level == LEVEL_WARNING) {
        config_say(report, LEVEL_WARNING, place, "%s", why);
    }
    if (good)
        set_number(setting, settings, parse.value);
    return good;
}

void settings_set_defaults(struct settings *settings)
{
    struct config_report report = {.report = NULL};
    bool good;

    *settings = (struct settings){.verbose = -1};
    for (size_t index = 0; index < settings_count; index++) {
        if (settings_table[index].default_text == NULL)
            continue;
        good = setting_parse(&settings_table[index], settings_table[index].default_text, settings,
                             &report, NULL);
        assert(good);
    }
}
