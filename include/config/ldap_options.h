/* ldap_options.h - the options of auth_type ldap and of `ldap` lines in HBA files: as in pg_hba.conf.
 *
 * `name=value` pairs, separated by blanks or commas; "..." around a value, or a part of it, keeps
 * both ("" inside is one quote). `#` outside of quotes begins a comment. A later option of the same
 * name replaces an earlier one.
 *
 *   simple bind     the name to bind as is made of ldapprefix, the user and ldapsuffix
 *   search + bind   ldapbinddn (or nobody) looks below ldapbasedn for the one entry that fits
 *                   ldapsearchfilter, or whose ldapsearchattribute (uid) is the user; then the
 *                   name to bind as is that entry's
 *
 * Pure: any thread; strings of the result live in the arena. Texts of errors never hold a value,
 * since one may be a password. */
#ifndef CONFIG_LDAP_OPTIONS_H
#define CONFIG_LDAP_OPTIONS_H

#include "config/arena.h"

enum {
    LDAP_OPTIONS_BYTES_MAX = 1023, /* PgBouncer's */
    LDAP_OPTIONS_ERROR_BYTES = 200,
};

enum ldap_scope { LDAP_SEARCH_BASE, LDAP_SEARCH_ONE, LDAP_SEARCH_SUBTREE };

struct ldap_options {
    const char *uris; /* "ldap://a:389 ldap://b:389", in the order in which they are tried */
    bool starttls;
    bool is_search; /* else simple bind: only prefix and suffix count */
    const char *prefix, *suffix;
    /* Search and bind; never NULL then. */
    const char *basedn, *binddn, *bindpasswd;
    const char *searchfilter; /* with $username in it, or made of the attribute */
    enum ldap_scope scope;
};

/* NULL: a mistake, which `error` names. */
struct ldap_options *ldap_options_parse(const char *text, struct arena *arena,
                                        char error[LDAP_OPTIONS_ERROR_BYTES]) must_check;

/* Simple bind: the name to bind as. False: no room. */
bool ldap_options_bind_name(const struct ldap_options *options, const char *user, char *out,
                            size_t out_bytes) must_check;

/* Search: the filter for this user, whose name is escaped (RFC 4515) so that it is a value and
 * nothing else. False: no room. */
bool ldap_options_filter(const struct ldap_options *options, const char *user, char *out,
                         size_t out_bytes) must_check;

#endif
