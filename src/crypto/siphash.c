#include "crypto/siphash.h"

#include <string.h>

static inline uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static inline void rounds(struct siphash *s, unsigned count)
{
    uint64_t v0 = s->v0, v1 = s->v1, v2 = s->v2, v3 = s->v3;

    while (count-- > 0) {
        v0 += v1;
        v1 = rotate(v1, 13) ^ v0;
        v0 = rotate(v0, 32);
        v2 += v3;
        v3 = rotate(v3, 16) ^ v2;
        v0 += v3;
        v3 = rotate(v3, 21) ^ v0;
        v2 += v1;
        v1 = rotate(v1, 17) ^ v2;
        v2 = rotate(v2, 32);
    }
    s->v0 = v0, s->v1 = v1, s->v2 = v2, s->v3 = v3;
}

static inline void add_word(struct siphash *s, uint64_t word)
{
    s->v3 ^= word;
    rounds(s, 2);
    s->v0 ^= word;
}

void siphash_begin(struct siphash *s, const struct siphash_key *key)
{
    *s = (struct siphash){
        .v0 = key->words[0] ^ UINT64_C(0x736f6d6570736575),
        .v1 = key->words[1] ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
        .v2 = key->words[0] ^ UINT64_C(0x6c7967656e657261),
        .v3 = key->words[1] ^ UINT64_C(0x7465646279746573),
    };
}

void siphash_add(struct siphash *s, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    unsigned held = (unsigned)(s->bytes & 7);

    s->bytes += bytes;
    if (held > 0) {
        while (held < 8 && bytes > 0) {
            s->tail |= (uint64_t)*from++ << (8 * held++);
            bytes--;
        }
        if (held < 8)
            return;
        add_word(s, s->tail);
        s->tail = 0;
    }
    for (; bytes >= 8; from += 8, bytes -= 8) {
        uint64_t word;

        memcpy(&word, from, sizeof(word)); /* little endian: Linux on x86-64 and arm64 */
        add_word(s, word);
    }
    for (unsigned i = 0; i < bytes; i++)
        s->tail |= (uint64_t)from[i] << (8 * i);
}

struct digest siphash_end(struct siphash *s)
{
    struct digest digest;

    add_word(s, s->tail | s->bytes << 56);
    s->v2 ^= 0xee;
    rounds(s, 4);
    digest.words[0] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
    s->v1 ^= 0xdd;
    rounds(s, 4);
    digest.words[1] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
    return digest;
}

struct digest siphash_of(const struct siphash_key *key, const void *data, size_t bytes)
{
    struct siphash siphash;

    siphash_begin(&siphash, key);
    siphash_add(&siphash, data, bytes);
    return siphash_end(&siphash);
}
