/* The reference vectors: key 00 01 .. 0f, text 00 01 .. of the length; and a text in pieces. */
#include "crypto/siphash.h"

#include "unit.h"

static const struct siphash_key reference_key = {
    {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};

static const struct {
    unsigned bytes;
    uint8_t digest[16];
} vectors[] = {
    {0,
     {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02,
      0x93}},
    {1,
     {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc,
      0x45}},
    {2,
     {0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff,
      0xe4}},
    {7,
     {0xa1, 0xf1, 0xeb, 0xbe, 0xd8, 0xdb, 0xc1, 0x53, 0xc0, 0xb8, 0x4a, 0xa6, 0x1f, 0xf0, 0x82,
      0x39}},
    {8,
     {0x3b, 0x62, 0xa9, 0xba, 0x62, 0x58, 0xf5, 0x61, 0x0f, 0x83, 0xe2, 0x64, 0xf3, 0x14, 0x97,
      0xb4}},
    {15,
     {0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11, 0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3,
      0xd9}},
    {16,
     {0x6e, 0xe2, 0xa4, 0xca, 0x67, 0xb0, 0x54, 0xbb, 0xfd, 0x33, 0x15, 0xbf, 0x85, 0x23, 0x05,
      0x77}},
    {17,
     {0x47, 0x3d, 0x06, 0xe8, 0x73, 0x8d, 0xb8, 0x98, 0x54, 0xc0, 0x66, 0xc4, 0x7a, 0xe4, 0x77,
      0x40}},
    {40,
     {0xdf, 0x6a, 0x30, 0x1e, 0x95, 0xc9, 0x5d, 0xad, 0x97, 0xae, 0x0c, 0xc8, 0xc6, 0x91, 0x3b,
      0xd8}},
    {63,
     {0x51, 0x50, 0xd1, 0x77, 0x2f, 0x50, 0x83, 0x4a, 0x50, 0x3e, 0x06, 0x9a, 0x97, 0x3f, 0xbd,
      0x7c}},
};

static void reference_vectors(void **state)
{
    uint8_t text[64];

    (void)state;
    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)i;
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        struct digest digest = siphash_of(&reference_key, text, vectors[i].bytes);

        assert_memory_equal(digest.words, vectors[i].digest, 16);
    }
}

static void pieces_make_no_difference(void **state)
{
    uint8_t text[100];

    (void)state;
    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i * 37 + 1);
    for (size_t bytes = 0; bytes <= sizeof(text); bytes++) {
        struct digest whole = siphash_of(&reference_key, text, bytes);

        for (size_t first = 0; first <= bytes; first++) {
            for (size_t second = first; second <= bytes; second += 3) {
                struct siphash siphash;
                struct digest digest;

                siphash_begin(&siphash, &reference_key);
                siphash_add(&siphash, text, first);
                siphash_add(&siphash, text + first, second - first);
                siphash_add(&siphash, text + second, bytes - second);
                digest = siphash_end(&siphash);
                assert_true(digest_is_same(&digest, &whole));
            }
        }
    }
}

static void every_bit_counts(void **state)
{
    uint8_t text[40] = {0};
    struct digest plain = siphash_of(&reference_key, text, sizeof(text));
    struct digest shorter = siphash_of(&reference_key, text, sizeof(text) - 1);

    (void)state;
    assert_false(digest_is_same(&plain, &shorter));
    for (size_t bit = 0; bit < sizeof(text) * 8; bit++) {
        struct digest changed;

        text[bit / 8] ^= (uint8_t)(1u << bit % 8);
        changed = siphash_of(&reference_key, text, sizeof(text));
        assert_int_not_equal(changed.words[0], plain.words[0]);
        assert_int_not_equal(changed.words[1], plain.words[1]);
        text[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_vectors),
        cmocka_unit_test(pieces_make_no_difference),
        cmocka_unit_test(every_bit_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
