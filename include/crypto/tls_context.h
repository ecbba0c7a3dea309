/* tls_context.h - the inside of a context, for src/crypto/tls*.c only: everybody else includes
 * crypto/tls.h. */
#ifndef CRYPTO_TLS_CONTEXT_H
#define CRYPTO_TLS_CONTEXT_H

#include "crypto/hmac.h"
#include "crypto/tls.h"
#include "crypto/tls_chain.h"

#include <stdatomic.h>

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

enum { TLS_ALPN_BYTES_MAX = 32 };

struct tls_context {
    atomic_uint references;
    enum tls_side side;
    enum tls_verify verify;
    WOLFSSL_CTX *library;
    /* For each session: the protocols that it must not speak, in the library's bits. */
    long without_protocols;
    char alpn[TLS_ALPN_BYTES_MAX];
    /* The first certificate of certificate_file, DER; NULL: none. */
    uint8_t *certificate;
    size_t certificate_bytes;
    struct tls_authorities authorities;
    uint8_t identity[SHA256_BYTES];
};

/* tls.c's side of it: what the library calls. */
void tls_session_prepare(WOLFSSL_CTX *library);
int tls_session_on_certificate(int verified, WOLFSSL_X509_STORE_CTX *store);

#endif
