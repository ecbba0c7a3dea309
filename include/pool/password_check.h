/* password_check.h - a password that somebody else judges: PAM, or an LDAP server.
 *
 * A core fills in what is asked and posts `job` (JOB_PAM, JOB_LDAP); a helper sets the result before
 * the letter comes back. All pointers are the asker's, and stay as they are until then. */
#ifndef POOL_PASSWORD_CHECK_H
#define POOL_PASSWORD_CHECK_H

#include "config/ldap_options.h"
#include "pool/core.h"

enum {
    PASSWORD_CHECK_REASON_BYTES = 160,
    PASSWORD_CHECK_TIMEOUT_MAX_S = 10, /* see ldap_check.h */
};

struct password_check {
    struct job job;
    const char *user, *password;
    const struct ldap_options *ldap;
    char host[64]; /* the client's address, as PAM_RHOST has it */
    /* A silent LDAP server is given up after so long: nobody waits any more. */
    uint64_t timeout_us;
    /* The result, if job.was_run. */
    bool is_right;
    uint64_t delay_us;                        /* PAM wants the refusal to be told that much later */
    char reason[PASSWORD_CHECK_REASON_BYTES]; /* for the log, why it is not right */
};

#endif
