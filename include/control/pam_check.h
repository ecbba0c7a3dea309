/* pam_check.h - asks PAM whether a client's password is right (service "pgbouncer", as PgBouncer's).
 *
 * Authentication and account management; the modules are told the user and, as PAM_RHOST, where the
 * client comes from ("unix" for a unix socket). Each question that hides its answer gets the
 * password; any other question is an error, since nobody is there to answer it. A pause that a
 * module wants after a wrong password (pam_unix: 2 s) is not slept here but told to the asker, who
 * holds back the refusal for so long.
 *
 * Blocks as long as the modules do. One thread at a time: PgBouncer has one, so modules that cannot
 * bear more may be configured. The only file that knows libpam; not built with WITH_PAM=0. */
#ifndef CONTROL_PAM_CHECK_H
#define CONTROL_PAM_CHECK_H

#include "pool/password_check.h"

/* `job` is that of a struct password_check. */
void pam_check_run(struct job *job);

#endif
