/* scram.h - SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both ends (RFC 5802, RFC 7677, RFC 5929), in the
 * dialect that PostgreSQL speaks.
 *
 * We are the server towards a client (struct scram_server) and the client towards PostgreSQL
 * (struct scram_client). Both are state machines over byte arrays: pure, no allocation, no I/O, no
 * clock, no chance (nonces are arguments), any thread, one owner. Bytes belong to the caller; what
 * is needed later is copied. Messages are the SASL data alone, without the frames of the protocol,
 * and have no closing zero.
 *
 * Everything takes microseconds except scram_salted_password, which takes milliseconds on purpose:
 * run it in a helper thread only.
 *
 * The dialect: channel binding is tls-server-end-point, the hash of the server's certificate, and no
 * other; no authorization identity; the user name in the first message is not looked at, that of the
 * startup message counts; passwords that SASLprep refuses are used raw.
 *
 * What channel binding is good for: who sits between the ends with a certificate of his own (an end
 * that does not verify certificates lets him) can pass SCRAM on as it is, but not SCRAM-PLUS, whose
 * proof holds for one certificate. He could take PLUS from the server's list: so who can bind and
 * finds no PLUS says so (`y`), under the proof, and a server that had offered it ends the exchange.
 *
 * Any result but SCRAM_OK ends the login: the struct may only be wiped or started anew. Calls out
 * of order are our own mistakes and asserted. */
#ifndef CRYPTO_SCRAM_H
#define CRYPTO_SCRAM_H

#include "base/base.h"
#include "base/bytes.h"

#define SCRAM_MECHANISM "SCRAM-SHA-256"
#define SCRAM_MECHANISM_PLUS "SCRAM-SHA-256-PLUS"

enum {
    SCRAM_KEY_BYTES = 32,

    /* PostgreSQL makes salts of 16 bytes. */
    SCRAM_SALT_BYTES_MAX = 64,
    SCRAM_SALT_DEFAULT_BYTES = 16,
    SCRAM_SALT_TEXT_BYTES_MAX = 89, /* base64, with the closing zero */

    /* A stored secret as text, with the closing zero. */
    SCRAM_SECRET_TEXT_BYTES_MAX = 208,

    /* What a server may ask of us as a client. At half a microsecond for each, the most is five
     * seconds of a helper thread: room for a hundred times more than anyone uses, but no way to
     * stop the helper for hours. The nonces travel in each message; PostgreSQL's have 24
     * characters. */
    SCRAM_ITERATION_COUNT_MAX = 10 * 1000 * 1000,

    /* Our half of a nonce, as text, with the closing zero. RFC 5802 has 18 random bytes in mind. */
    SCRAM_NONCE_BYTES = 18,
    SCRAM_NONCE_TEXT_BYTES_MAX = 33,
    /* The peer's half. */
    SCRAM_PEER_NONCE_BYTES_MAX = 128,

    /* Hash of a certificate: SHA-512 at most. */
    SCRAM_BINDING_BYTES_MAX = 64,

    /* What a peer may send at most in one message; PostgreSQL has the same limit. */
    SCRAM_MESSAGE_BYTES_MAX = 1024,
    /* Of these, messages that have to be remembered: room for nonce, escaped user name, salt. */
    SCRAM_CLIENT_FIRST_BARE_BYTES_MAX = 640,
    SCRAM_SERVER_FIRST_BYTES_MAX = 320,

    /* What our messages take at most: the room that the writers must have. */
    SCRAM_CLIENT_FIRST_ROOM = 64,
    SCRAM_SERVER_FIRST_ROOM = SCRAM_SERVER_FIRST_BYTES_MAX,
    SCRAM_CLIENT_FINAL_ROOM = 336,
    SCRAM_SERVER_FINAL_ROOM = 64,
};

enum scram_result {
    SCRAM_OK,
    SCRAM_BAD,             /* not the message that RFC 5802 section 7 says */
    SCRAM_TOO_LONG,        /* well-formed perhaps, but above a limit from above */
    SCRAM_BAD_EXTENSION,   /* "m=": the peer demands an extension, and none exists */
    SCRAM_BAD_NONCE,       /* not an extension of ours; somebody answers another exchange */
    SCRAM_BAD_SALT,        /* as client: no base64, or empty */
    SCRAM_BAD_ITERATIONS,  /* as client: no number, or not in 1 to SCRAM_ITERATION_COUNT_MAX */
    SCRAM_CHANNEL_BINDING, /* as server: the client binds ("p=") in the mechanism without PLUS */
    SCRAM_NOT_BOUND,       /* as server: the client chose PLUS and does not bind ("n", "y") */
    SCRAM_DOWNGRADED,      /* as server: the client could bind and was told that we cannot ("y") */
    SCRAM_BINDING_TYPE,    /* as server: PLUS with another type than tls-server-end-point */
    SCRAM_BINDING_CHANGED, /* as server: c= is not what the first message began with */
    SCRAM_WRONG_BINDING,   /* as server: c= is bound to another channel than this one */
    SCRAM_AUTHZID,         /* as server: the client wants to act as somebody else ("a=") */
    SCRAM_WRONG_PROOF,     /* as server: the password is wrong, or the secret is a mock */
    SCRAM_SERVER_ERROR,    /* as client: the server's last message is "e=..." */
    SCRAM_BAD_SIGNATURE,   /* as client: v= is not the base64 of 32 bytes */
    SCRAM_WRONG_SIGNATURE, /* as client: the server does not know our secret */
};

/* For logs: "malformed SCRAM message" ... */
const char *scram_result_text(enum scram_result result);

/* ---- Secrets: what a server stores instead of a password ---- */

/* About 220 bytes. Not as secret as a password, but who has one can try passwords against it. */
struct scram_secret {
    uint32_t iterations;
    bool is_mock; /* nobody's: the exchange runs to its end and fails there */
    uint8_t salt_bytes;
    uint8_t salt[SCRAM_SALT_BYTES_MAX];
    char salt_text[SCRAM_SALT_TEXT_BYTES_MAX]; /* base64 of it, as stored */
    uint8_t stored_key[SCRAM_KEY_BYTES];
    uint8_t server_key[SCRAM_KEY_BYTES];
};

/* Reads `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`. False: it is no such secret, and an
 * auth_file then takes it as a plain password; `secret` is in any state. Iterations: 1 to 2^31-1,
 * as checking costs us nothing whatever their number. Salt: 1 to SCRAM_SALT_BYTES_MAX bytes. */
must_check bool scram_secret_parse(struct scram_secret *secret, const char *text);

/* The reverse, with closing zero. Returns the length without it. */
size_t scram_secret_format(const struct scram_secret *secret,
                           char text[SCRAM_SECRET_TEXT_BYTES_MAX]);

/* From a plain password, once a helper has computed `salted`. 1 to SCRAM_SALT_BYTES_MAX salt bytes
 * (asserted). */
void scram_secret_make(struct scram_secret *secret, const uint8_t salted[SCRAM_KEY_BYTES],
                       const uint8_t *salt, size_t salt_bytes, uint32_t iterations);

/* For a user that does not exist: the same salt for the same name as long as `process_key` (32
 * random bytes, made at start, one for all threads) lives, as for a real user. Nobody knows a
 * password for it, and is_mock is set besides. Use the `iterations` that real users mostly have. */
void scram_secret_mock(struct scram_secret *secret, const uint8_t process_key[SCRAM_KEY_BYTES],
                       const char *user, size_t user_bytes, uint32_t iterations);

/* Is this the salted password that the secret was made from? For clients that sent their password
 * in clear text. Constant-time. */
must_check bool scram_secret_check(const struct scram_secret *secret,
                                   const uint8_t salted[SCRAM_KEY_BYTES]);

/* Do both ask the same of a password? Then ClientKey and ServerKey of one log in with the other. */
must_check bool scram_secret_equal(const struct scram_secret *left,
                                   const struct scram_secret *right);

/* ---- Keys (RFC 5802 section 3) ---- */

/* SLOW: half a microsecond for each iteration. Helper threads only. Prepares the password with
 * SASLprep as PostgreSQL does. About 36 KiB of stack. `password` may hold any bytes, of any length.
 */
void scram_salted_password(const char *password, size_t password_bytes, const uint8_t *salt,
                           size_t salt_bytes, uint32_t iterations, uint8_t out[SCRAM_KEY_BYTES]);

/* ClientKey logs in to every server that has the same secret: keep it as a password is kept. */
void scram_keys_from_salted(const uint8_t salted[SCRAM_KEY_BYTES],
                            uint8_t client_key[SCRAM_KEY_BYTES],
                            uint8_t stored_key[SCRAM_KEY_BYTES],
                            uint8_t server_key[SCRAM_KEY_BYTES]);

/* 18 random bytes as 24 printable characters and the closing zero. */
void scram_nonce_text(const uint8_t random[SCRAM_NONCE_BYTES],
                      char text[SCRAM_NONCE_TEXT_BYTES_MAX]);

/* ---- What lies below an exchange ---- */

/* All zero: a plain connection. */
struct scram_channel {
    bool is_tls;
    uint8_t binding_bytes;                    /* 0: there is nothing to bind to */
    uint8_t binding[SCRAM_BINDING_BYTES_MAX]; /* tls-server-end-point of this connection */
};

/* Mechanisms, as they are offered. */
enum { SCRAM_OFFER_PLAIN = 1, SCRAM_OFFER_PLUS = 2 };

/* "n": this end does not bind. "y": it could, but the other end does not offer it. "p": it does. */
enum scram_gs2_flag { SCRAM_GS2_NO = 'n', SCRAM_GS2_NOT_OFFERED = 'y', SCRAM_GS2_BOUND = 'p' };

/* ---- As server: a client logs in to us ----
 *
 *   start(client-first) -> server-first ; finish(client-final) -> server-final, ClientKey */

enum scram_state { SCRAM_START, SCRAM_SENT_FIRST, SCRAM_SENT_FINAL, SCRAM_ENDED };

/* What we offer on this channel, SCRAM_OFFER_ bits: PLUS where there is something to bind to. */
unsigned scram_server_offers(const struct scram_channel *channel);

/* About 1.1 KiB; needs no clean-up but scram_server_wipe. */
struct scram_server {
    /* for scram*.c only */
    uint8_t state; /* enum scram_state; SCRAM_START is 0 */
    bool is_mock;
    uint8_t gs2_flag; /* enum scram_gs2_flag */
    struct scram_channel channel;
    uint16_t client_first_bare_bytes;
    uint16_t server_first_bytes;
    uint16_t nonce_bytes; /* of both halves; they stand in server_first behind "r=" */
    uint8_t stored_key[SCRAM_KEY_BYTES];
    uint8_t server_key[SCRAM_KEY_BYTES];
    char client_first_bare[SCRAM_CLIENT_FIRST_BARE_BYTES_MAX];
    char server_first[SCRAM_SERVER_FIRST_BYTES_MAX];
};

/* `mechanism`: the one that the client has chosen of our offers (asserted). `message`: the
 * client-first-message (any bytes). `nonce`: our half, see scram_nonce_text; printable without comma
 * (asserted). `out` has to have SCRAM_SERVER_FIRST_ROOM (asserted). May be: BAD, TOO_LONG,
 * BAD_EXTENSION, CHANNEL_BINDING, NOT_BOUND, DOWNGRADED, BINDING_TYPE, AUTHZID. */
must_check enum scram_result
scram_server_start(struct scram_server *server, const struct scram_channel *channel,
                   unsigned mechanism, const void *message, size_t bytes, const char *nonce,
                   const struct scram_secret *secret, struct writer *out);

/* After SCRAM_BINDING_TYPE: the type, for the error; 30 characters at most, '?' for what is not
 * printable ASCII. */
const char *scram_server_binding_type(const struct scram_server *server);

/* `message`: the client-final-message (any bytes). On SCRAM_OK the client knows the password,
 * `client_key` is its ClientKey (for PostgreSQL, if that has the same secret), and `out` has got
 * the server-final-message. Else both are untouched. `out` has to have SCRAM_SERVER_FINAL_ROOM
 * (asserted). May be: BAD, TOO_LONG, BAD_NONCE, BINDING_CHANGED, WRONG_BINDING, WRONG_PROOF. */
must_check enum scram_result scram_server_finish(struct scram_server *server, const void *message,
                                                 size_t bytes, uint8_t client_key[SCRAM_KEY_BYTES],
                                                 struct writer *out);

void scram_server_wipe(struct scram_server *server);

/* ---- As client: we log in to PostgreSQL ----
 *
 *   start -> client-first ; challenge(server-first) -> salt, iterations
 *   (the keys: known from a client's login, or a helper computes them)
 *   prove(keys) -> client-final ; finish(server-final) */

/* About 0.6 KiB; needs no clean-up but scram_client_wipe. */
struct scram_client {
    /* For the reader, after scram_client_challenge: what scram_salted_password is to be called
     * with. */
    uint32_t iterations;
    uint8_t salt_bytes;
    uint8_t salt[SCRAM_SALT_BYTES_MAX];
    /* for scram*.c only */
    uint8_t state; /* enum scram_state */
    bool is_challenged;
    uint8_t gs2_flag; /* enum scram_gs2_flag */
    struct scram_channel channel;
    uint16_t server_first_bytes;
    uint16_t nonce_bytes; /* of both halves; they stand in server_first behind "r=" */
    char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
    uint8_t server_signature[SCRAM_KEY_BYTES];
    char server_first[SCRAM_SERVER_FIRST_BYTES_MAX];
};

/* `offers`: SCRAM_OFFER_ bits that the server has listed. PLUS is taken where both ends can bind. NULL:
 * there is nothing that we can take, `client` and `out` are untouched. Else the mechanism's name. `nonce`
 * as above. `out` has to have SCRAM_CLIENT_FIRST_ROOM (asserted). */
must_check const char *scram_client_start(struct scram_client *client,
                                          const struct scram_channel *channel, unsigned offers,
                                          const char *nonce, struct writer *out);

/* `message`: the server-first-message (any bytes).
 * May be: BAD, TOO_LONG, BAD_EXTENSION, BAD_NONCE, BAD_SALT, BAD_ITERATIONS. */
must_check enum scram_result scram_client_challenge(struct scram_client *client,
                                                    const void *message, size_t bytes);

/* After the challenge: does it have the salt and the iterations of this secret? Then the keys of a
 * client that logged in to us with it are right here too. */
must_check bool scram_client_matches(const struct scram_client *client,
                                     const struct scram_secret *secret);

/* Writes the client-final-message. The keys are those of scram_keys_from_salted, or the
 * `client_key` of scram_server_finish with the secret's server_key. `out` has to have
 * SCRAM_CLIENT_FINAL_ROOM (asserted). */
void scram_client_prove(struct scram_client *client, const uint8_t client_key[SCRAM_KEY_BYTES],
                        const uint8_t server_key[SCRAM_KEY_BYTES], struct writer *out);

/* `message`: the server-final-message (any bytes). SCRAM_OK: the server knows our secret. That has
 * to be seen before AuthenticationOk is believed. On SCRAM_SERVER_ERROR the server's reason stands
 * in the message from byte 2 on: printable ASCII, scram_client_finish has looked. May be: BAD,
 * TOO_LONG, SERVER_ERROR, BAD_SIGNATURE, WRONG_SIGNATURE. */
must_check enum scram_result scram_client_finish(struct scram_client *client, const void *message,
                                                 size_t bytes);

void scram_client_wipe(struct scram_client *client);

#endif
