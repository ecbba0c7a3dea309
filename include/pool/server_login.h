/* server_login.h - from a connected socket to a server that is ready: startup packet,
 * authentication, and what the server tells about itself (protocol: "Start-up").
 *
 * A rogue server is doubted like a rogue client: each message is bounded, each length checked,
 * SCRAM verifies the server's own signature, and is bound to the TLS below it (channel.h) where the
 * server offers that. A PBKDF2 goes to a helper thread; its result is kept
 * in the pool. */
#ifndef POOL_SERVER_LOGIN_H
#define POOL_SERVER_LOGIN_H

#include "crypto/scram.h"
#include "pool/server.h"

struct tls_handshake;

struct server_login {
    struct tls_handshake *handshake; /* under way: what comes is its */
    struct job job;                  /* PBKDF2 */
    bool job_in_flight;
    struct server *server; /* NULL: it has ended while the helper was at work */
    struct scram_client scram;
    uint8_t sasl_step; /* 0: none, 1: first sent, 2: final sent, 3: verified */
    bool is_authenticated;
    bool has_key;
    unsigned client_password_count; /* the pool's when it began */
    /* For the helper: copied, since the configuration may change meanwhile. */
    char password[1024];
    uint8_t salted_password[32];
    uint16_t welcome_bytes;
    uint8_t welcome[POOL_WELCOME_BYTES];
};

/* Connected: TLS first, if it is wanted here, then the startup packet. */
void server_login_start(struct server *server);
/* A whole message of the server. May close the server. True: ReadyForQuery came, the login is done.
 */
must_check bool server_login_message(struct server *server, uint8_t type, const uint8_t *body,
                                     size_t bytes);
/* Wipes and frees, now or when the helper's job has come back. */
void server_login_end(struct server *server);
/* The error that the waiting clients get: `text` with PgBouncer's wording. */
void server_login_fail(struct server *server, const char *text);

#endif
