/* ldap_check.h - asks an LDAP server whether a client's password is right: it is, if one can bind
 * with it.
 *
 * What is not said by the options (config/ldap_options.h) is as ldap.conf and the LDAP... variables
 * of the environment have it, above all which certificates are trusted. Connecting to one address is
 * given up after check->timeout_us, and whatever is said there after as much again, so that a
 * silent server does not hold a thread for ever. Any number of threads. The only file that knows libldap; not built with
 * WITH_LDAP=0. */
#ifndef CONTROL_LDAP_CHECK_H
#define CONTROL_LDAP_CHECK_H

#include "pool/password_check.h"

/* Once, before other threads: the library makes its globals. */
void ldap_check_start(void);

/* `job` is that of a struct password_check. */
void ldap_check_run(struct job *job);

#endif
