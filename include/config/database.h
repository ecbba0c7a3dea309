/* database.h - reads the entries of [databases], [users] and [peers].
 *
 * A value is a list of `key=value` pairs, separated by blanks (a tab belongs to the value); blanks
 * around
 * `=` are allowed; '...' quotes a value, '' inside is one quote. An empty value is a mistake. The
 * keys and what they take are tables, which the manual is printed from (tests/compat has
 * PgBouncer's; those that only we have stand at the end).
 *
 * Each function reads `text` (and writes in it: strings of the result point into it), tells every
 * mistake, and fills `out` as far as it can. Pure: any thread. */
#ifndef CONFIG_DATABASE_H
#define CONFIG_DATABASE_H

#include "config/snapshot.h"

/* If not set. */
#define DATABASE_PORT_DEFAULT 5432
#define PEER_PORT_DEFAULT 6432

enum entry_kind {
    ENTRY_STRING,
    ENTRY_USER, /* a user's name */
    ENTRY_PORT,
    ENTRY_SIZE,             /* int; negative is -1, "not set" */
    ENTRY_LIMIT,            /* int; 0 or less is the global value */
    ENTRY_SECONDS,          /* int64_t, microseconds; 0 or less is -1, "not set" */
    ENTRY_SECONDS_OR_NEVER, /* the same, but 0 is a value: never */
    ENTRY_POOL_MODE,
    ENTRY_LOAD_BALANCE_HOSTS,
    ENTRY_SERVER_SHARING, /* int; the values of the setting */
};

/* One key of an entry. */
struct entry_option {
    const char *key;
    enum entry_kind kind;
    size_t offset;             /* of the field in the struct of that section */
    const char *unused_reason; /* as in struct setting */
    const char *meaning;
};

/* End with a NULL key. */
extern const struct entry_option database_options[], user_options[], peer_options[];

void database_config_init(struct database_config *config, const char *name);
void user_config_init(struct user_config *config, const char *name);

void database_parse(const char *name, char *text, struct config_report *report,
                    const struct config_place *place, struct database_config *out);
void user_parse(const char *name, char *text, struct config_report *report,
                const struct config_place *place, struct user_config *out);
void peer_parse(const char *name, char *text, struct config_report *report,
                const struct config_place *place, struct peer_config *out);

#endif
