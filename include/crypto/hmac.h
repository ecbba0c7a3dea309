/* hmac.h - SHA-256 and HMAC-SHA-256 (RFC 2104) over pieces; for the files of crypto/ only.
 *
 * Ours over wolfCrypt's SHA-256 rather than wolfCrypt's HMAC, because that one hashes the key anew
 * for each message: with the key hashed once, PBKDF2 takes half the time.
 *
 * Pure: no allocation, any thread. */
#ifndef CRYPTO_HMAC_H
#define CRYPTO_HMAC_H

#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/sha256.h>

#include "base/base.h"

enum { SHA256_BYTES = 32 };

/* A key, ready for any number of messages. */
struct hmac_key {
    wc_Sha256 inner;
    wc_Sha256 outer;
};

/* One message in the making. */
struct hmac {
    wc_Sha256 inner;
    const struct hmac_key *key;
};

void sha256(const void *data, size_t bytes, uint8_t out[SHA256_BYTES]);

void hmac_key_init(struct hmac_key *key, const void *data, size_t bytes);
void hmac_key_wipe(struct hmac_key *key);

/* The key has to stay until hmac_end. */
void hmac_start(struct hmac *hmac, const struct hmac_key *key);
void hmac_add(struct hmac *hmac, const void *data, size_t bytes);
void hmac_end(struct hmac *hmac, uint8_t out[SHA256_BYTES]);

/* One key, one message. */
void hmac_once(const void *key, size_t key_bytes, const void *data, size_t bytes,
               uint8_t out[SHA256_BYTES]);

#endif
