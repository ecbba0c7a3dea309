#include "crypto/hmac.h"

#include "base/assert.h"
#include "crypto/secret.h"

#include <string.h>

static_assert((int)WC_SHA256_DIGEST_SIZE == (int)SHA256_BYTES, "SHA-256 is 32 bytes");

/* wolfCrypt's hashing fails only on bad arguments or a crypto device, and neither is there: so the
 * results are asserted. */
static void add(wc_Sha256 *state, const void *data, size_t bytes)
{
    assert(bytes <= UINT32_MAX);
    assert(wc_Sha256Update(state, data, (word32)bytes) == 0);
}

static void copy(wc_Sha256 *from, wc_Sha256 *to)
{
    assert(wc_Sha256Copy(from, to) == 0);
}

static void wipe(wc_Sha256 *state)
{
    wc_Sha256Free(state);
    secret_wipe(state, sizeof(*state));
}

void sha256(const void *data, size_t bytes, uint8_t out[SHA256_BYTES])
{
    wc_Sha256 state;

    assert(wc_InitSha256(&state) == 0);
    add(&state, data, bytes);
    assert(wc_Sha256Final(&state, out) == 0);
    wipe(&state);
}

void hmac_key_init(struct hmac_key *key, const void *data, size_t bytes)
{
    uint8_t block[WC_SHA256_BLOCK_SIZE] = {0};

    if (bytes > sizeof(block))
        sha256(data, bytes, block);
    else if (bytes > 0)
        memcpy(block, data, bytes);

    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36;
    assert(wc_InitSha256(&key->inner) == 0);
    add(&key->inner, block, sizeof(block));

    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36 ^ 0x5c;
    assert(wc_InitSha256(&key->outer) == 0);
    add(&key->outer, block, sizeof(block));
    secret_wipe(block, sizeof(block));
}

void hmac_key_wipe(struct hmac_key *key)
{
    wipe(&key->inner);
    wipe(&key->outer);
}

void hmac_start(struct hmac *hmac, const struct hmac_key *key)
{
    hmac->key = key;
    copy((wc_Sha256 *)&key->inner, &hmac->inner);
}

void hmac_add(struct hmac *hmac, const void *data, size_t bytes)
{
    add(&hmac->inner, data, bytes);
}

void hmac_end(struct hmac *hmac, uint8_t out[SHA256_BYTES])
{
    wc_Sha256 outer;

    assert(wc_Sha256Final(&hmac->inner, out) == 0);
    copy((wc_Sha256 *)&hmac->key->outer, &outer);
    add(&outer, out, SHA256_BYTES);
    assert(wc_Sha256Final(&outer, out) == 0);
    wipe(&outer);
    wipe(&hmac->inner);
}

void hmac_once(const void *key, size_t key_bytes, const void *data, size_t bytes,
               uint8_t out[SHA256_BYTES])
{
    struct hmac_key ready;
    struct hmac hmac;

    hmac_key_init(&ready, key, key_bytes);
    hmac_start(&hmac, &ready);
    hmac_add(&hmac, data, bytes);
    hmac_end(&hmac, out);
    hmac_key_wipe(&ready);
}
