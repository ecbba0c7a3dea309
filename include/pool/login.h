/* login.h - a client before it has a pool: TLS, startup packet, authentication, and the way to the core
 * of its pool.
 *
 *   startup <-> tls     SSLRequest, or a first byte of 0x16 (tls_handshake.h)
 *   startup -> password (plain, md5) -----------> done
 *           -> keys -> sasl first -> sasl final -> done     keys, check: a helper thread is at work
 *           -> check (a plain password: against a SCRAM secret, by PAM, by LDAP; or the name of an
 *              OS user; or keys of a secret that auth_query has found) -> done
 *                       -> refused (PAM: told later)
 *           -> lookup (a user who is not in auth_file: auth_query.h) -> password, check, sasl first
 *
 * A client in login costs no server and has a byte budget (LOGIN_BYTES_MAX) and
 * client_login_timeout. The order of checks is PgBouncer's (tests/compat/protocol_behaviour.md):
 * parameters, user, max_client_conn, protocol negotiation, limits (as far as the names are known:
 * find_usages), authentication, and only then whether the database exists. Unknown users see the same
 * exchange as known ones.
 *
 * From a slab; lives as long as its client is in login, and longer while a helper's job or a letter
 * is on its way. */
#ifndef POOL_LOGIN_H
#define POOL_LOGIN_H

#include "crypto/scram.h"
#include "pool/client.h"
#include "pool/handover.h"
#include "pool/password_check.h"

enum {
    LOGIN_BYTES_MAX = 128 * 1024,   /* all that a client may send before it is authenticated */
    LOGIN_MESSAGE_BYTES_MAX = 4096, /* a password or SASL message */
    OS_USER_BYTES_MAX = 256,
    FOUND_SECRET_BYTES_MAX = 1024, /* of auth_query, with its zero; a longer one is refused */
};

enum login_phase {
    LOGIN_STARTUP,
    LOGIN_TLS,    /* the handshake is under way */
    LOGIN_LOOKUP, /* auth_query is under way */
    LOGIN_PASSWORD,
    LOGIN_KEYS, /* SCRAM keys of a plain password are being made */
    LOGIN_SASL_FIRST,
    LOGIN_SASL_FINAL,
    LOGIN_CHECK,   /* a helper checks a plain password, looks an OS user up, or makes keys */
    LOGIN_REFUSED, /* it was wrong, and the client is told at refused_us + refusal_delay_us */
    LOGIN_DONE,
};

struct auth_query;
struct tls_handshake;

struct login {
    struct handover handover;
    struct password_check check;     /* LOGIN_CHECK */
    bool job_in_flight;              /* check.job */
    struct client *client;           /* NULL: gone, or moved */
    struct scram_entry *scram_entry; /* whose keys it waits for */
    struct list key_link;
    struct snapshot *snapshot;       /* one reference: `user` is of it */
    const struct user_config *user;  /* NULL: not in the configuration */
    struct auth_query *auth_query;   /* is under way */
    struct tls_handshake *handshake; /* LOGIN_TLS */
    bool is_looked_up;               /* auth_query knows the user */
    const char *secret_text;         /* that the client must know, in any form; "": nothing fits */
    const struct ldap_options *ldap; /* of `snapshot`, for AUTH_LDAP; NULL: there are none */
    uint8_t phase;
    uint8_t method;              /* enum auth_type that is carried out: with HBA, that of `rule` */
    const struct hba_rule *rule; /* auth_type hba; of the login's snapshot */
    bool wants_negotiation;
    bool is_admin, is_console;
    uint8_t md5_salt[4];
    uint32_t received_bytes;
    uint32_t request_count; /* SSLRequest and GSSENCRequest */
    struct buffer *input;   /* not yet used */
    uint32_t input_bytes;
    struct scram_secret secret;
    struct scram_channel channel; /* LOGIN_SASL_FIRST: what was offered is for this */
    struct scram_server scram;
    char password[LOGIN_MESSAGE_BYTES_MAX];    /* LOGIN_CHECK, for the helper and for the pool */
    uint64_t refused_us, refusal_delay_us;     /* LOGIN_REFUSED */
    char found_secret[FOUND_SECRET_BYTES_MAX]; /* by auth_query */
    uint8_t salted[SCRAM_KEY_BYTES];
    uint32_t peer_uid;               /* method peer: for the helper */
    char os_user[OS_USER_BYTES_MAX]; /* from the helper; "": there is no such user */
    uint16_t unknown_options_bytes;
    char unknown_options[1024]; /* `_pq_.` names for NegotiateProtocolVersion */
    unsigned unknown_options_count;
    const char *param_values[PARAMS_COUNT_MAX]; /* into handover.params */
    char error[160];
};

must_check bool login_start(struct client *client);
void login_received(struct client *client, const uint8_t *data, size_t bytes);
/* After the login is done, while the connection still falls quiet. */
void login_received_late(struct client *client, const uint8_t *data, size_t bytes);
/* The peer has ended. True: not yet (tls_handshake_defers_end). */
must_check bool login_defers_end(struct login *login);
/* The connection of a client in state moving is quiet: off it goes. */
void login_moved(struct client *client);
/* The client has ended, or is logged in: frees the login, now or when what is under way has come
 * back. */
void login_end(struct client *client);

/* Nothing of what has arrived is left to be worked on (SUSPEND). */
static inline bool login_is_between_messages(const struct login *login)
{
    return login->input_bytes == 0 && !login->job_in_flight && login->phase != LOGIN_KEYS &&
           login->phase != LOGIN_CHECK && login->phase != LOGIN_LOOKUP && login->phase != LOGIN_TLS;
}

/* A name of the configuration's, or one that auth_query knows. */
static inline bool login_knows_user(const struct login *login)
{
    return login->user != NULL || login->is_looked_up;
}

/* ---- for auth_query.c ---- */

/* Its auth_query is over. */
void login_looked_up(struct login *login, const struct auth_query *query);

/* ---- for login_auth.c ---- */

/* The client is who it says: on to its pool, or to the console. */
void login_authenticated(struct client *client);
/* Nobody needs it any more, no job is in flight. */
void login_free(struct core *core, struct login *login);

#endif
