/* hba.h - the rules of auth_hba_file: who may come from where, and how he proves who he is.
 *
 *   local                      DATABASES USERS         METHOD [map=NAME]
 *   host | hostssl | hostnossl DATABASES USERS ADDRESS METHOD [map=NAME]
 *
 * DATABASES and USERS are comma lists of names, `all`, `sameuser`, `replication` and `@file` (names,
 * keywords and further `@file`s, separated by commas or blanks, over any number of lines; relative
 * to the folder of the HBA file). ADDRESS is `all`, an address with `/bits`, or an address and a
 * mask. Words as in hba_line.h; keywords are written small. METHOD is trust, reject, md5, password,
 * scram-sha-256, cert, peer, or ldap with its options up to the end of the line.
 *
 * As in PgBouncer, a line that cannot be read is a warning and left out: host names, samehost,
 * samerole, +name, /regex, unknown methods and options among them. One whose options of ldap are not
 * understood stays, with a warning, and lets nobody in. What cannot be opened is a
 * mistake, and the load fails: a line that is missing may be one that rejects.
 *
 * The first rule that matches decides. Matching is a pure function and costs a few comparisons for
 * each rule; names of a rule are sorted. Reading allocates in an arena (control); the result is
 * immutable: any thread. */
#ifndef CONFIG_HBA_H
#define CONFIG_HBA_H

#include "config/file.h"
#include "config/ident.h"
#include "config/ldap_options.h"
#include "config/settings.h"

enum {
    HBA_RULES_MAX =
        10000, /* compared one by one by a worker: 0.1 ms; 0.5 to 2 with 99 names each */
    HBA_NAMES_MAX = 1000000,                       /* of all rules */
    HBA_LIST_DEPTH_MAX = 10,                       /* `@file` in `@file` */
    HBA_LIST_COUNT_MAX = 1000,                     /* opened in one load */
    HBA_OPTIONS_BYTES_MAX = LDAP_OPTIONS_BYTES_MAX /* of an ldap line */
};

enum hba_transport { HBA_LOCAL, HBA_HOST, HBA_HOSTSSL, HBA_HOSTNOSSL };

/* What the startup packet's `replication` asks for. Physical replication names no database. */
enum hba_replication { HBA_NO_REPLICATION, HBA_PHYSICAL, HBA_LOGICAL };

struct hba_names {
    const char *const *names; /* sorted */
    size_t count;
    bool has_all, has_sameuser, has_replication;
};

/* Matches when (client & mask) == address. */
struct hba_address {
    bool is_all;
    uint8_t family; /* AF_INET: 4 bytes count; AF_INET6: 16 */
    uint8_t address[16], mask[16];
};

struct hba_rule {
    int line;
    enum hba_transport transport;
    struct hba_names databases, users;
    struct hba_address address; /* not of local */
    enum auth_type method;
    const struct ident_map *map;     /* of peer and cert; NULL: none */
    const char *options;             /* of ldap, as they stand in the file; else NULL */
    const struct ldap_options *ldap; /* the same, read; NULL: not understood, nobody is let in */
};

struct hba {
    const struct hba_rule *rules; /* in the order of the file */
    size_t rule_count;
    struct ident ident;
};

struct hba_input {
    config_open *open;
    void *open_context;
    struct arena *arena;
    struct config_report *report;
    const char *hba_path;
    const char *ident_path;                             /* NULL or "": none */
    const struct config_place *hba_place, *ident_place; /* of the settings; NULL: of SET */
};

/* Mistakes and warnings go to the report; with a mistake `out` is of no use. */
void hba_read(const struct hba_input *input, struct hba *out);
void hba_copy(struct arena *arena, struct hba *to, const struct hba *from);

/* Who comes, before he has proved anything. */
struct hba_question {
    const char *database, *user; /* as they stand in the startup packet; the console: "pgbouncer" */
    int family;                  /* AF_UNIX, AF_INET, AF_INET6; no rule matches another one */
    const uint8_t *address;      /* in network order; unix: not looked at */
    bool has_tls;
    enum hba_replication replication;
};

/* NULL: no rule matches. */
const struct hba_rule *hba_find(const struct hba *hba, const struct hba_question *question);

/* Method peer: may the OS user `os_user` be `user`? By the rule's map; without one by the same name. */
bool hba_allows_peer(const struct hba_rule *rule, const char *os_user, const char *user);
/* Method cert, of a rule or (NULL) of auth_type: somebody with a certificate may be `user`. */
bool hba_allows_certificate(const struct hba_rule *rule, ident_has_name *has_name,
                            const void *certificate, const char *user);

#endif
