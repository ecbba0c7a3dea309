/* login_auth.h - how a client proves who it is: auth_type, or the HBA line that matches; from the
 * request for a password or SASL to login_authenticated() or the client's end.
 *
 * Knows the login's user and secret_text, nothing of databases and pools (but that forced users and
 * auth_user bar some methods). What costs time (PBKDF2, the name of an OS user, PAM, LDAP) is a job; the client may be gone when it is back. Keys of plain secrets are kept for each core
 * (core.scram_entries). SCRAM can be bound to the TLS below it (channel.h): then that is offered first,
 * to everybody alike. Texts of errors: tests/compat/errors.tsv. Thread: the core's. */
#ifndef POOL_LOGIN_AUTH_H
#define POOL_LOGIN_AUTH_H

#include "pool/login.h"

#define LOGIN_PAM_REFUSED_TEXT "PAM authentication failed"

/* Asks for what auth_type asks for; may be done at once (trust), or close the client. */
void login_auth_begin(struct client *client);

/* A 'p' message, without its header, in phase password, sasl first or sasl final. */
void login_auth_received(struct client *client, const uint8_t *body, size_t bytes);

/* The login has lost its client. True: a job is in flight, and frees the login when it is back. */
must_check bool login_auth_leave(struct login *login);

/* New configuration: keys that were made of old secrets are forgotten. */
void login_forget_keys(struct core *core);
size_t login_scram_entry_bytes(void);

#endif
