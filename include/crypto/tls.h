/* tls.h - TLS over memory: the context of one side's certificates and rules, and one session.
 *
 * No sockets: the caller feeds what has come from the peer, and what must go to the peer is put
 * into an output of the caller's. So no call blocks, and the simulator can own both ends.
 *
 * A session is used by one thread at a time. It may move between threads (a helper makes it and
 * does the handshake, a worker reads and writes, another worker takes the connection over); the
 * hand-over itself must be a message, so that memory is ordered. A context is immutable, counted,
 * and shared by any number of threads.
 *
 * Calls that cost: tls_context_create reads files. tls_create and tls_handshake burn CPU (0.1 to 2
 * ms: private key, key exchange, chain) and take memory from the heap: helper threads only.
 * tls_read and tls_write copy and encrypt; what wolfSSL needs meanwhile comes from a cache of the
 * thread's own, so that a connection that is up costs no heap allocation.
 *
 * Only src/crypto/tls*.c name wolfSSL. */
#ifndef CRYPTO_TLS_H
#define CRYPTO_TLS_H

#include "base/bytes.h"

enum tls_side { TLS_SIDE_CLIENT, TLS_SIDE_SERVER };

enum { TLS_PROTOCOL_1_0 = 1, TLS_PROTOCOL_1_1 = 2, TLS_PROTOCOL_1_2 = 4, TLS_PROTOCOL_1_3 = 8 };

enum tls_verify {
    /* Server: asks for no certificate, and refuses one that comes all the same. Client: believes any. */
    TLS_VERIFY_NONE,
    /* Server: asks for a certificate; one that is sent must verify. */
    TLS_VERIFY_IF_GIVEN,
    /* There must be a certificate, valid now, that leads to one of `authorities_file`. What leads there is
     * judged by what this peer shows (tls_chain.h); a certificate that signs itself may stand in the file. */
    TLS_VERIFY_CHAIN,
    /* Client: and it must be the name's that tls_create was given. */
    TLS_VERIFY_HOST,
};

enum tls_dhe { TLS_DHE_NONE, TLS_DHE_2048, TLS_DHE_1024 };

/* NULL and "" both mean: none. */
struct tls_options {
    enum tls_side side;
    unsigned protocols;           /* TLS_PROTOCOL_ bits; at least one that the library has */
    const char *certificate_file; /* PEM, chain behind it; a server must have one */
    const char *key_file;         /* PEM, without a password */
    const char *authorities_file; /* PEM; NULL with TLS_VERIFY_NONE only. Those that have expired
                                     are not trusted, then or later. The library keeps the authorities between
                                     that peers show, one entry for each that these have issued */
    const char *suites;           /* explicit, by preference, OpenSSL's names for TLS 1.2 and lower
                                     and RFC names for 1.3, ':' between: tls_ciphers.h makes it */
    /* By preference: "X25519:P-256:P-384"; NULL: a good default. A server of TLS 1.2 only takes
     * the sizes from it: no group that is smaller than the smallest. */
    const char *groups;
    enum tls_verify verify;
    enum tls_dhe dhe;
    /* Server: chosen when offered; a list without it is refused (RFC 7301), no list is accepted.
     * Client: offered. */
    const char *alpn;
    bool gives_tickets; /* server, TLS_VERIFY_NONE only: a resumed session shows no certificate */
};

enum {
    TLS_ERROR_BYTES = 256,
    TLS_DESCRIPTION_BYTES = 96,
    TLS_END_POINT_BYTES_MAX = 64,
    TLS_RECORD_BYTES_MAX = 16 * 1024, /* of plain text */
    TLS_RECORD_EXTRA_BYTES = 256,     /* of header, padding and tag, at most */
};

struct tls_context;
struct tls;

/* Where ciphertext goes. `put` copies; false: no memory, the session fails. */
struct tls_output {
    bool (*put)(struct tls_output *output, const void *data, size_t bytes);
};

enum tls_result {
    TLS_OK,
    TLS_WANT_INPUT, /* all that was fed is used up */
    TLS_CLOSED,     /* the peer's close_notify: it says no more */
    TLS_FAILED,     /* tls_error says why; an alert may have been put out */
};

/* Once, in the main thread, before any other call of tls*.h. False: the library cannot be used. */
must_check bool tls_init(void);
/* "wolfSSL 5.5.4-2+deb12u3, own build, AES-NI" or "..., system library, no AES-NI". */
const char *tls_library(void);
/* Whether AES-GCM runs on the processor's own instructions: else ChaCha20 is faster. */
bool tls_has_fast_aes(void);
/* TLS_PROTOCOL_ bits of the versions that the library has. */
unsigned tls_protocols(void);
/* Whether the library has the cipher suite of this name (see tls_options.suites). */
bool tls_has_suite(const char *name);
/* Tests and simulation: where seeds come from, so that a run can be repeated; they must look random, since
 * the library refuses those that repeat themselves. NULL: the kernel again. False: this build of the
 * library cannot. */
must_check bool tls_set_seed(void (*seed)(void *out, size_t bytes));

/* One reference, the caller's. NULL: `error` says what is wrong with which file or option. */
struct tls_context *tls_context_create(const struct tls_options *options,
                                       char error[TLS_ERROR_BYTES]) must_check;
/* Any thread. */
struct tls_context *tls_context_reference(struct tls_context *context) must_check;
void tls_context_release(struct tls_context *context);
/* Made of the same options and of files with the same contents. */
bool tls_context_is_same(const struct tls_context *a, const struct tls_context *b);

/* `host`: for TLS_VERIFY_HOST the name or literal address that the certificate must have; it is sent
 * as SNI too, if it is a name; NULL: none. NULL: no memory. Takes a reference of its own. */
struct tls *tls_create(struct tls_context *context, const char *host) must_check;
/* What it was made of: the session's reference. */
struct tls_context *tls_context_of(const struct tls *tls);
/* Client: the host that tls_create was given; "": none. */
const char *tls_host_of(const struct tls *tls);
/* NULL is fine. Any thread. */
void tls_destroy(struct tls *tls);

/* What has come from the peer: read by the calls that follow, and must stay until one of them has
 * said TLS_WANT_INPUT. What was fed before must be used up. */
void tls_feed(struct tls *tls, const void *data, size_t bytes);
/* Of what was fed, the part that no call has looked at yet. */
size_t tls_unread_bytes(const struct tls *tls);
/* That part goes away: the connection has ended, so nobody needs it. */
void tls_drop_input(struct tls *tls);

/* TLS_OK: it is done; what is left of the input belongs to tls_read. Never TLS_CLOSED. */
must_check enum tls_result tls_handshake(struct tls *tls, struct tls_output *output);

/* Decrypts into `out` until `room` is full (TLS_OK; there may be more) or the input is used up.
 * `got` counts with each result: what came before an end is good. */
must_check enum tls_result tls_read(struct tls *tls, struct tls_output *output, void *out,
                                    size_t room, size_t *got);
/* No tls_read of what was fed so far gives more than this. */
size_t tls_read_bytes_max(const struct tls *tls);

/* In records of at most TLS_RECORD_BYTES_MAX. False: the session has failed. */
must_check bool tls_write(struct tls *tls, struct tls_output *output, const void *data,
                          size_t bytes);
/* TLS 1.3, else false: new keys for what we say, and the peer is asked for new ones too. A peer may do
 * this at any time (tls_read answers it); the library does it by itself before a key is worn out. */
must_check bool tls_update_keys(struct tls *tls, struct tls_output *output);
/* At the end, once; nothing may be written behind it. */
void tls_close_notify(struct tls *tls, struct tls_output *output);

/* After TLS_FAILED: what went wrong, in words; the peer's alert by its name. */
const char *tls_error(const struct tls *tls);

/* Handshake done: "TLSv1.3/TLS_AES_256_GCM_SHA384" or
 * "TLSv1.2/ECDHE-RSA-AES128-GCM-SHA256/ECDH=prime256v1", as SHOW and the log have it. */
void tls_describe(const struct tls *tls, char text[TLS_DESCRIPTION_BYTES]);
bool tls_was_resumed(const struct tls *tls);

/* Of the peer's certificate; until tls_forget_peer. One that was not asked for by the context's rules, or has not
 * been verified, is none. */
bool tls_peer_has_certificate(const struct tls *tls);
/* Its alternative names (DNS, addresses), and if none of them fits its common name: `*.` stands for one
 * label, case is ignored. */
bool tls_peer_has_name(const struct tls *tls, const char *name);
/* The hash of the server's certificate that channel binding uses (tls-server-end-point, RFC 5929): on
 * the server's side of its own, on the client's of the peer's. Bytes written; 0: there is none for this
 * kind of certificate. */
size_t tls_end_point(const struct tls *tls, uint8_t hash[TLS_END_POINT_BYTES_MAX]);
/* The login is over: gives back what only it needed. */
void tls_forget_peer(struct tls *tls);

#endif
