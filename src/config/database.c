#include "config/database.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIZE_MAX_SENSIBLE = 100000,
    LIMIT_MAX_SENSIBLE = 10000000,
    SECONDS_MAX_SENSIBLE = 1000000000,
    PEER_ID_MAX = 65535,
};

/* clang-format off */
#define AT(field) offsetof(struct database_config, field)
const struct entry_option database_options[] = {
    {"dbname",                    ENTRY_STRING,             AT(dbname), NULL, "Name of the database on the server; the entry's own name if not set."},
    {"host",                      ENTRY_STRING,             AT(host), NULL, "Name, address, directory of a unix socket, or a comma list of them; not set: unix_socket_dir."},
    {"port",                      ENTRY_PORT,               AT(port), NULL, "One port for all hosts; 5432 if not set."},
    {"user",                      ENTRY_USER,               AT(user), NULL, "All clients use the server as this user, in one pool."},
    {"password",                  ENTRY_STRING,             AT(password), NULL, "Password of that user; not set: the secret in auth_file."},
    {"auth_user",                 ENTRY_USER,               AT(auth_user), NULL, "Instead of the global auth_user."},
    {"auth_query",                ENTRY_STRING,             AT(auth_query), NULL, "Instead of the global auth_query."},
    {"auth_dbname",               ENTRY_STRING,             AT(auth_dbname), NULL, "Instead of the global auth_dbname."},
    {"pool_size",                 ENTRY_SIZE,               AT(pool_size), NULL, "Instead of default_pool_size; 0: no limit."},
    {"min_pool_size",             ENTRY_SIZE,               AT(min_pool_size), NULL, "Instead of the global min_pool_size."},
    {"reserve_pool_size",         ENTRY_SIZE,               AT(reserve_pool_size), NULL, "Instead of the global reserve_pool_size."},
    {"reserve_pool",              ENTRY_SIZE,               AT(reserve_pool_size), NULL, "Old name of reserve_pool_size."},
    {"connect_query",             ENTRY_STRING,             AT(connect_query), NULL, "Query that each new server connection runs first."},
    {"pool_mode",                 ENTRY_POOL_MODE,          AT(pool_mode), NULL, "Instead of the global pool_mode."},
    {"query_wait_timeout",        ENTRY_SECONDS_OR_NEVER,   AT(query_wait_timeout_us), NULL, "Instead of the global query_wait_timeout; 0: no limit."},
    {"load_balance_hosts",        ENTRY_LOAD_BALANCE_HOSTS, AT(load_balance_hosts), NULL, "Each new connection takes the next host, or stays with one until it fails."},
    {"max_db_connections",        ENTRY_LIMIT,              AT(max_db_connections), NULL, "Instead of the global max_db_connections."},
    {"max_db_client_connections", ENTRY_LIMIT,              AT(max_db_client_connections), NULL, "Instead of the global max_db_client_connections."},
    {"server_lifetime",           ENTRY_SECONDS,            AT(server_lifetime_us), NULL, "Instead of the global server_lifetime."},
    {"client_encoding",           ENTRY_STRING,             AT(client_encoding), NULL, "Sent when a server connection starts."},
    {"datestyle",                 ENTRY_STRING,             AT(datestyle), NULL, "Sent when a server connection starts."},
    {"timezone",                  ENTRY_STRING,             AT(timezone), NULL, "Sent when a server connection starts."},
    {"application_name",          ENTRY_STRING,             AT(application_name), NULL, "Sent when a server connection starts."},
    {"server_sharing",            ENTRY_SERVER_SHARING,     AT(server_sharing), NULL, "Instead of the global server_sharing of [pgsplice]; PgBouncer refuses this key."},
    {NULL, ENTRY_STRING, 0, NULL, NULL},
};
#undef AT

#define AT(field) offsetof(struct user_config, field)
const struct entry_option user_options[] = {
    {"pool_mode",                   ENTRY_POOL_MODE,        AT(pool_mode), NULL, "Wins over the database's and the global one."},
    {"pool_size",                   ENTRY_SIZE,             AT(pool_size), NULL, "Wins over the database's and the global one; 0: no limit."},
    {"reserve_pool_size",           ENTRY_SIZE,             AT(reserve_pool_size), NULL, "Wins over the database's and the global one."},
    {"max_user_connections",        ENTRY_LIMIT,            AT(max_user_connections), NULL, "Instead of the global one."},
    {"max_user_client_connections", ENTRY_LIMIT,            AT(max_user_client_connections), NULL, "Instead of the global one."},
    {"query_timeout",               ENTRY_SECONDS,          AT(query_timeout_us), NULL, "Instead of the global one."},
    {"query_wait_timeout",          ENTRY_SECONDS_OR_NEVER, AT(query_wait_timeout_us), NULL, "Wins over the database's and the global one; 0: no limit."},
    {"idle_transaction_timeout",    ENTRY_SECONDS,          AT(idle_transaction_timeout_us), NULL, "Instead of the global one."},
    {"transaction_timeout",         ENTRY_SECONDS,          AT(transaction_timeout_us), NULL, "Instead of the global one."},
    {"client_idle_timeout",         ENTRY_SECONDS,          AT(client_idle_timeout_us), NULL, "Instead of the global one."},
    {"server_sharing",              ENTRY_SERVER_SHARING,   AT(server_sharing), NULL, "Wins over the database's and the global one; PgBouncer refuses this key."},
    {NULL, ENTRY_STRING, 0, NULL, NULL},
};
#undef AT

#define AT(field) offsetof(struct peer_config, field)
const struct entry_option peer_options[] = {
    {"host",      ENTRY_STRING, AT(host), NULL, "Name, address or directory of the unix socket of the other process; required."},
    {"port",      ENTRY_PORT,   AT(port), NULL, "Its port, also part of the name of its unix socket; 6432 if not set."},
    {"pool_size", ENTRY_SIZE,   AT(pool_size), NULL, "Cancel requests in flight to it; default_pool_size if not set."},
    {NULL, ENTRY_STRING, 0, NULL, NULL},
};
#undef AT
/* clang-format on */

static_assert(sizeof(enum load_balance_hosts) == sizeof(int), "stored as int");

/* What is being read, for messages. */
struct entry {
    const char *section; /* "database", "user", "peer" */
    const char *name;
    const struct entry_option *options;
    void *out;
    struct config_report *report;
    const struct config_place *place;
    uint64_t seen; /* a bit for each option, to find those that are given twice */
};

/* Values stay out of messages where they may be secrets: everything but numbers and fixed names. */
#define ENTRY_FORMAT "%s \"%.100s\": "
#define ENTRY_NAMES(entry) (entry)->section, (entry)->name

enum pair_result { PAIR_OK, PAIR_END, PAIR_BROKEN };

static enum pair_result broken_pair(const struct entry *entry, const char *what, const char *text,
                                    const char *at)
{
    config_mistake(entry->report, entry->place, ENTRY_FORMAT "%s at byte %zu of the value",
                   ENTRY_NAMES(entry), what, (size_t)(at - text) + 1);
    return PAIR_BROKEN;
}

/* Unquotes in place; returns the first byte behind the closing quote, or NULL. */
static char *unquote(char *at)
{
    char *to = at;

    for (at++;; at++) {
        if (*at == '\0')
            return NULL;
        if (*at == '\'') {
            if (at[1] != '\'')
                break;
            at++;
        }
        *to++ = *at;
    }
    *to = '\0';
    return at + 1;
}

/* Cuts the pair at *position out of `text`. */
static enum pair_result next_pair(const struct entry *entry, char *text, char **position,
                                  const char **key, char **value)
{
    char *at = *position;
    char *key_end, *end;

    at += strspn(at, " ");
    if (*at == '\0')
        return PAIR_END;
    *key = at;
    key_end = at + strcspn(at, " =");
    at = key_end + strspn(key_end, " ");
    if (*at != '=' || key_end == *key)
        return broken_pair(entry, "key=value is expected", text, *key);
    at++;
    at += strspn(at, " ");
    *key_end = '\0';
    if (*at == '\'') {
        *value = at;
        end = unquote(at);
        if (end == NULL)
            return broken_pair(entry, "the quoted text has no end", text, at);
        if (*end != '\0' && *end != ' ')
            return broken_pair(entry, "a blank is expected behind the quote", text, end);
    } else {
        *value = at;
        end = at + strcspn(at, " ");
        if (memchr(at, '\t', (size_t)(end - at)) != NULL)
            config_say(entry->report, LEVEL_WARNING, entry->place,
                       ENTRY_FORMAT "the value of %s holds a tab: only blanks separate",
                       ENTRY_NAMES(entry), *key);
    }
    if (*end != '\0')
        *end++ = '\0';
    if (**value == '\0')
        return broken_pair(entry, "an empty value", text, *key);
    *position = end;
    return PAIR_OK;
}

/* Base 10, as PgBouncer reads numbers here (010 is ten); but nothing may follow them. */
static bool parse_number(const struct entry *entry, const char *key, const char *text, long min,
                         long max, long *number)
{
    char *end;

    errno = 0;
    *number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0) {
        config_mistake(entry->report, entry->place,
                       ENTRY_FORMAT "%s: \"%.100s\" is not a whole number", ENTRY_NAMES(entry), key,
                       text);
        return false;
    }
    if (*number > max || *number < min) {
        config_mistake(entry->report, entry->place,
                       ENTRY_FORMAT "%s: \"%.100s\" is not between %ld and %ld", ENTRY_NAMES(entry),
                       key, text, min, max);
        return false;
    }
    return true;
}

static bool parse_name(const struct entry *entry, const char *key, const char *text,
                       const char *const *names, int count, int *value)
{
    for (int index = 0; index < count; index++)
        if (strcmp(text, names[index]) == 0) {
            *value = index;
            return true;
        }
    config_mistake(entry->report, entry->place, ENTRY_FORMAT "%s: \"%.100s\" is none of %s%s%s%s%s",
                   ENTRY_NAMES(entry), key, text, names[0], count > 1 ? ", " : "",
                   count > 1 ? names[1] : "", count > 2 ? ", " : "", count > 2 ? names[2] : "");
    return false;
}

static void set_server_sharing(const struct entry *entry, const char *key, const char *text,
                               int *value)
{
    const struct setting *setting = setting_find("pgsplice", "server_sharing");
    int64_t number;
    char names[256];

    if (setting_parse_int_or_name(setting, text, 10, &number)) {
        *value = (int)number;
        return;
    }
    setting_format_names(setting, names);
    config_mistake(entry->report, entry->place, ENTRY_FORMAT "%s: \"%.100s\" is none of %s",
                   ENTRY_NAMES(entry), key, text, names);
}

static void set_option(const struct entry *entry, const struct entry_option *option, char *value)
{
    static const char *const pool_modes[] = {
        [POOL_MODE_SESSION] = "session",
        [POOL_MODE_TRANSACTION] = "transaction",
        [POOL_MODE_STATEMENT] = "statement",
    };
    static const char *const load_balance_hosts[] = {
        [LOAD_BALANCE_DISABLE] = "disable",
        [LOAD_BALANCE_ROUND_ROBIN] = "round-robin",
    };
    void *field = (char *)entry->out + option->offset;
    long number = 0;
    int index = 0;

    switch (option->kind) {
    case ENTRY_USER:
        if (strlen(value) >= USER_NAME_BYTES_MAX) {
            config_mistake(entry->report, entry->place, ENTRY_FORMAT "%s is longer than %d bytes",
                           ENTRY_NAMES(entry), option->key, USER_NAME_BYTES_MAX - 1);
            break;
        }
        *(const char **)field = value;
        break;
    case ENTRY_STRING:
        *(const char **)field = value;
        break;
    case ENTRY_PORT:
        if (parse_number(entry, option->key, value, 1, 65535, &number))
            *(uint16_t *)field = (uint16_t)number;
        break;
    case ENTRY_SIZE:
        if (parse_number(entry, option->key, value, INT32_MIN, SIZE_MAX_SENSIBLE, &number))
            *(int *)field = (int)MAX(number, -1L);
        break;
    case ENTRY_LIMIT:
        if (parse_number(entry, option->key, value, INT32_MIN, LIMIT_MAX_SENSIBLE, &number))
            *(int *)field = (int)MAX(number, -1L);
        break;
    case ENTRY_SECONDS:
    case ENTRY_SECONDS_OR_NEVER:
        if (!parse_number(entry, option->key, value, INT32_MIN, SECONDS_MAX_SENSIBLE, &number))
            break;
        if (number < 0 || (number == 0 && option->kind == ENTRY_SECONDS))
            *(int64_t *)field = -1;
        else
            *(int64_t *)field = number * (int64_t)US_PER_S;
        break;
    case ENTRY_POOL_MODE:
        if (parse_name(entry, option->key, value, pool_modes, COUNT_OF(pool_modes), &index))
            *(int *)field = index;
        break;
    case ENTRY_LOAD_BALANCE_HOSTS:
        if (parse_name(entry, option->key, value, load_balance_hosts, COUNT_OF(load_balance_hosts),
                       &index))
            *(enum load_balance_hosts *)field = (enum load_balance_hosts)index;
        break;
    case ENTRY_SERVER_SHARING:
        set_server_sharing(entry, option->key, value, field);
        break;
    }
}

/* What does not look like a key may be the rest of a password with a blank in it. */
static void unknown_key(const struct entry *entry, const char *text, const char *key)
{
    if (key[strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-")] == '\0')
        config_mistake(entry->report, entry->place, ENTRY_FORMAT "key \"%.100s\" is not known",
                       ENTRY_NAMES(entry), key);
    else
        broken_pair(entry, "an unknown key", text, key);
}

static void parse_entry(struct entry *entry, char *text)
{
    const struct entry_option *option;
    enum pair_result result;
    char *position = text;
    const char *key;
    char *value;

    while ((result = next_pair(entry, text, &position, &key, &value)) == PAIR_OK) {
        for (option = entry->options; option->key != NULL; option++)
            if (strcmp(option->key, key) == 0)
                break;
        if (option->key == NULL) {
            unknown_key(entry, text, key);
            continue;
        }
        if (entry->seen & UINT64_C(1) << (option - entry->options))
            config_say(entry->report, LEVEL_WARNING, entry->place,
                       ENTRY_FORMAT "%s is given twice, the last one counts", ENTRY_NAMES(entry),
                       key);
        entry->seen |= UINT64_C(1) << (option - entry->options);
        set_option(entry, option, value);
    }
    /* After a broken pair nobody can say where the next one begins. */
}

static_assert(COUNT_OF(database_options) <= 64, "struct entry counts them in 64 bits");

void database_config_init(struct database_config *config, const char *name)
{
    *config = (struct database_config){
        .name = name,
        .dbname = name,
        .port = DATABASE_PORT_DEFAULT,
        .pool_size = -1,
        .min_pool_size = -1,
        .reserve_pool_size = -1,
        .pool_mode = -1,
        .query_wait_timeout_us = -1,
        .load_balance_hosts = LOAD_BALANCE_ROUND_ROBIN,
        .server_lifetime_us = -1,
        .server_sharing = SHARING_NOT_SET,
        .is_auto = strcmp(name, "*") == 0,
    };
}

void user_config_init(struct user_config *config, const char *name)
{
    *config = (struct user_config){
        .name = name,
        .secret = "",
        .pool_mode = -1,
        .pool_size = -1,
        .reserve_pool_size = -1,
        .query_timeout_us = -1,
        .query_wait_timeout_us = -1,
        .idle_transaction_timeout_us = -1,
        .transaction_timeout_us = -1,
        .client_idle_timeout_us = -1,
        .server_sharing = SHARING_NOT_SET,
    };
}

static void check_name(const struct entry *entry, size_t bytes_max)
{
    if (*entry->name == '\0')
        config_mistake(entry->report, entry->place, "a %s without a name", entry->section);
    else if (strlen(entry->name) >= bytes_max)
        config_mistake(entry->report, entry->place,
                       ENTRY_FORMAT "the name is longer than %zu bytes", ENTRY_NAMES(entry),
                       bytes_max - 1);
}

void database_parse(const char *name, char *text, struct config_report *report,
                    const struct config_place *place, struct database_config *out)
{
    struct entry entry = {.section = "database",
                          .name = name,
                          .options = database_options,
                          .out = out,
                          .report = report,
                          .place = place};

    database_config_init(out, name);
    check_name(&entry, DATABASE_NAME_BYTES_MAX);
    if (strcmp(name, "pgbouncer") == 0)
        config_mistake(report, place, "database \"pgbouncer\" is the console's name");
    parse_entry(&entry, text);
    if (out->auth_dbname != NULL && strcmp(out->auth_dbname, "pgbouncer") == 0)
        config_mistake(report, place,
                       ENTRY_FORMAT "auth_dbname: \"pgbouncer\" is the console, not a database",
                       ENTRY_NAMES(&entry));
    /* `host= password=x` reads so. The value is not quoted here: it may be a secret. */
    if (out->host != NULL && strchr(out->host, '=') != NULL)
        config_say(report, LEVEL_WARNING, place,
                   ENTRY_FORMAT "host holds a `=`: was its value left out?", ENTRY_NAMES(&entry));
}

void user_parse(const char *name, char *text, struct config_report *report,
                const struct config_place *place, struct user_config *out)
{
    struct entry entry = {.section = "user",
                          .name = name,
                          .options = user_options,
                          .out = out,
                          .report = report,
                          .place = place};

    user_config_init(out, name);
    check_name(&entry, USER_NAME_BYTES_MAX);
    parse_entry(&entry, text);
}

void peer_parse(const char *name, char *text, struct config_report *report,
                const struct config_place *place, struct peer_config *out)
{
    struct entry entry = {.section = "peer",
                          .name = name,
                          .options = peer_options,
                          .out = out,
                          .report = report,
                          .place = place};
    long peer_id;
    size_t mistake_count = report->mistake_count;

    *out = (struct peer_config){.port = PEER_PORT_DEFAULT, .pool_size = -1};
    if (parse_number(&entry, "peer_id", name, 1, PEER_ID_MAX, &peer_id))
        out->peer_id = (int)peer_id;
    parse_entry(&entry, text);
    if (out->host == NULL && report->mistake_count == mistake_count)
        config_mistake(report, place, ENTRY_FORMAT "host is missing", ENTRY_NAMES(&entry));
}
