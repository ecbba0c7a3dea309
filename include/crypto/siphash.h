/* siphash.h - SipHash-2-4 with 128 bits of output: a hash that nobody can aim at who does not know the
 * key. Names prepared statements, and spreads what clients choose over hash tables.
 *
 * Source: Aumasson, Bernstein, "SipHash: a fast short-input PRF" (2012), and the authors' reference
 * vectors for the 128-bit output. Pure, any thread. 16 bytes cost about 25 ns, 100 bytes 60 ns. */
#ifndef CRYPTO_SIPHASH_H
#define CRYPTO_SIPHASH_H

#include "base/assert.h"

struct siphash_key {
    uint64_t words[2];
};

struct digest {
    uint64_t words[2]; /* the 16 bytes of output, little endian */
};

/* Of a text that comes in pieces. */
struct siphash {
    uint64_t v0, v1, v2, v3;
    uint64_t tail;  /* bytes that do not fill a word yet */
    uint64_t bytes; /* so far */
};

void siphash_begin(struct siphash *siphash, const struct siphash_key *key);
void siphash_add(struct siphash *siphash, const void *data, size_t bytes);
struct digest siphash_end(struct siphash *siphash);

/* Of a text in one piece. */
struct digest siphash_of(const struct siphash_key *key, const void *data, size_t bytes);

static inline bool digest_is_same(const struct digest *a, const struct digest *b)
{
    return a->words[0] == b->words[0] && a->words[1] == b->words[1];
}

#endif
