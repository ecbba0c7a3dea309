#include "control/ldap_check.h"

#include <ldap.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES_MAX = 2048, FILTER_BYTES_MAX = 8192 };

void ldap_check_start(void)
{
    LDAPAPIInfo info = {.ldapai_info_version = LDAP_API_INFO_VERSION};

    if (ldap_get_option(NULL, LDAP_OPT_API_INFO, &info) == LDAP_OPT_SUCCESS) {
        ldap_memfree(info.ldapai_vendor_name);
        ber_memvfree((void **)info.ldapai_extensions);
    }
}

static bool fail(struct password_check *check, const char *what, int result)
{
    snprintf(check->reason, sizeof(check->reason), "LDAP: %s: %s", what, ldap_err2string(result));
    return false;
}

static struct timeval timeout_of(const struct password_check *check)
{
    return (struct timeval){.tv_sec = (time_t)(check->timeout_us / US_PER_S),
                            .tv_usec = (suseconds_t)(check->timeout_us % US_PER_S)};
}

static bool set_options(struct password_check *check, LDAP *ldap)
{
    const struct timeval timeout = timeout_of(check);
    const int version = LDAP_VERSION3;
    int result = ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &version);

    if (result == LDAP_OPT_SUCCESS)
        result = ldap_set_option(ldap, LDAP_OPT_NETWORK_TIMEOUT, &timeout);
    if (result == LDAP_OPT_SUCCESS)
        result = ldap_set_option(ldap, LDAP_OPT_TIMEOUT, &timeout);
    return result == LDAP_OPT_SUCCESS || fail(check, "setting options", LDAP_LOCAL_ERROR);
}

static int bind_as(LDAP *ldap, const char *name, const char *password)
{
    struct berval credentials = {.bv_len = strlen(password), .bv_val = (char *)(uintptr_t)password};

    return ldap_sasl_bind_s(ldap, name, LDAP_SASL_SIMPLE, &credentials, NULL, NULL, NULL);
}

/* The name of the one entry that fits, freed by the caller with ldap_memfree. NULL: none, or
 * several. */
static char *search(struct password_check *check, LDAP *ldap)
{
    static const int scopes[] = {[LDAP_SEARCH_BASE] = LDAP_SCOPE_BASE,
                                 [LDAP_SEARCH_ONE] = LDAP_SCOPE_ONELEVEL,
                                 [LDAP_SEARCH_SUBTREE] = LDAP_SCOPE_SUBTREE};
    static char no_attributes[] = LDAP_NO_ATTRS;
    char *attributes[] = {no_attributes, NULL};
    const struct ldap_options *options = check->ldap;
    struct timeval timeout = timeout_of(check);
    char filter[FILTER_BYTES_MAX];
    LDAPMessage *found = NULL;
    char *name = NULL;
    int result, count;

    if (!ldap_options_filter(options, check->user, filter, sizeof(filter))) {
        (void)fail(check, "making the filter", LDAP_FILTER_ERROR);
        return NULL;
    }
    /* More than one is as bad as none: two are enough to know. */
    result = ldap_search_ext_s(ldap, options->basedn, scopes[options->scope], filter, attributes, 0,
                               NULL, NULL, &timeout, 2, &found);
    count = found != NULL ? ldap_count_entries(ldap, found) : 0;
    if (result != LDAP_SUCCESS)
        (void)fail(check, "searching for the user", result);
    else if (count != 1)
        snprintf(check->reason, sizeof(check->reason), "LDAP: %s fits the search",
                 count == 0 ? "no entry" : "more than one entry");
    else
        name = ldap_get_dn(ldap, ldap_first_entry(ldap, found));
    if (found != NULL)
        (void)ldap_msgfree(found);
    return name;
}

static bool search_and_bind(struct password_check *check, LDAP *ldap)
{
    int result = bind_as(ldap, check->ldap->binddn, check->ldap->bindpasswd);
    char *name;

    if (result != LDAP_SUCCESS)
        return fail(check, "binding as ldapbinddn for the search", result);
    name = search(check, ldap);
    if (name == NULL)
        return false;
    /* A bind without a name is anonymous, and succeeds with any password. */
    result = name[0] != '\0' ? bind_as(ldap, name, check->password) : LDAP_INVALID_CREDENTIALS;
    ldap_memfree(name);
    return result == LDAP_SUCCESS || fail(check, "binding as the user", result);
}

static bool simple_bind(struct password_check *check, LDAP *ldap)
{
    char name[NAME_BYTES_MAX];
    int result = LDAP_INVALID_CREDENTIALS;

    if (ldap_options_bind_name(check->ldap, check->user, name, sizeof(name)) && name[0] != '\0')
        result = bind_as(ldap, name, check->password);
    return result == LDAP_SUCCESS || fail(check, "binding as the user", result);
}

static bool ask(struct password_check *check, LDAP *ldap)
{
    int result;

    if (!set_options(check, ldap))
        return false;
    if (check->ldap->starttls) {
        result = ldap_start_tls_s(ldap, NULL, NULL);
        if (result != LDAP_SUCCESS)
            return fail(check, "StartTLS", result);
    }
    return check->ldap->is_search ? search_and_bind(check, ldap) : simple_bind(check, ldap);
}

void ldap_check_run(struct job *job)
{
    struct password_check *check = OWNER_OF(job, struct password_check, job);
    LDAP *ldap = NULL;
    int result;

    /* A bind with a name and no password is anonymous, and succeeds. */
    assert(check->password[0] != '\0');
    result = ldap_initialize(&ldap, check->ldap->uris);
    if (result != LDAP_SUCCESS) {
        (void)fail(check, "ldap_initialize", result);
        return;
    }
    check->is_right = ask(check, ldap);
    (void)ldap_unbind_ext_s(ldap, NULL, NULL);
}
