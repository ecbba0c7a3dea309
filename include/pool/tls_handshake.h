/* tls_handshake.h - a connection on its way to TLS, on either side.
 *
 *   client side of us (a server's):  connected -> asking (SSLRequest) -> handshake -> over
 *                                                       \-> over, plain (the server said 'N')
 *   server side of us (a client's):  handshake -> over
 *
 * The conn stays its owner's: who receives gives the bytes to tls_handshake_received, and `over` says
 * how it ended. While helper threads work (private key, key exchange, chain) the worker
 * goes on with others; what comes meanwhile waits here, TLS_HANDSHAKE_BYTES_MAX in all. Nobody's
 * deadline but the owner's runs.
 *
 * From a slab of the core's; the helper may have it for longer than its owner lives. */
#ifndef POOL_TLS_HANDSHAKE_H
#define POOL_TLS_HANDSHAKE_H

#include "pool/core.h"

enum {
    TLS_HANDSHAKE_BYTES_MAX = 48 * 1024, /* from the peer: a chain of certificates, mostly */
    /* Of them a client's before our first answer: two KiB are much for a ClientHello, and 17 can be made
     * to cost a helper 13 ms. */
    TLS_HELLO_BYTES_MAX = 8 * 1024,
    TLS_HANDSHAKE_OUTPUT_BYTES_MAX = 128 * 1024,
};

enum tls_handshake_end {
    TLS_HANDSHAKE_TLS,     /* conn is on TLS */
    TLS_HANDSHAKE_PLAIN,   /* the server has none, and it need not be */
    TLS_HANDSHAKE_REFUSED, /* the server has none, and it must be */
    TLS_HANDSHAKE_BAD_ANSWER,
    TLS_HANDSHAKE_SMUGGLED, /* there were bytes behind the server's 'S' */
    TLS_HANDSHAKE_FAILED,   /* `error` says why; an alert is queued: close with flush */
    TLS_HANDSHAKE_BUSY,     /* the helpers have too much to do */
};

/* Once; the handshake is not the owner's any more. With TLS_HANDSHAKE_TLS bytes that came with its end
 * follow as the conn's event `received`, before this module returns. `error` is never NULL. */
typedef void tls_handshake_over(struct conn *conn, enum tls_handshake_end end, const char *error);

struct tls_handshake {
    struct job job;
    struct conn *conn; /* NULL: nobody wants it any more */
    tls_handshake_over *over;
    struct tls_context *context; /* one reference */
    bool accepts, has_answered;  /* a client's; we have */
    bool is_asking, must_have_tls;
    bool job_in_flight;
    struct tls *session; /* the helper's, while it has the job */
    enum tls_result result;
    struct buffer *given, *waiting; /* with the helper; come meanwhile */
    uint32_t given_bytes, waiting_bytes, total_bytes;
    struct tls_output sink;
    uint8_t *output; /* the helper's, from the heap */
    size_t output_bytes;
    char host[HOST_NAME_BYTES_MAX]; /* of a server, for verification; "" */
};

/* For a client. NULL: no memory. */
struct tls_handshake *tls_handshake_accept(struct conn *conn, struct tls_context *context,
                                           tls_handshake_over *over) must_check;
/* For a server: asks it. `must_have_tls`: its 'N' is the end. */
struct tls_handshake *tls_handshake_connect(struct conn *conn, struct tls_context *context,
                                            const char *host, bool must_have_tls,
                                            tls_handshake_over *over) must_check;
/* May call `over`. */
void tls_handshake_received(struct tls_handshake *handshake, const void *data, size_t bytes);
/* The conn's event `ended`. True: a helper still has bytes that came before it; it is said again when they
 * have been read (conn_defer_end). */
must_check bool tls_handshake_defers_end(struct tls_handshake *handshake);
/* The owner has ended: nothing more is called. */
void tls_handshake_abandon(struct tls_handshake *handshake);

#endif
