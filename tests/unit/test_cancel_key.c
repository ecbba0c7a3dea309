/* test_cancel_key.c - whose a cancel key is, and how far it may still go (pool/peer.h). */
#include "unit.h"

#include "pool/peer.h"

static void marked_key_names_its_process(void **state)
{
    static const int ids[] = {1, 2, 255, 256, 0x1234, 65535};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        uint8_t key[8];

        memset(key, 0xff, sizeof(key));
        cancel_key_mark(key, ids[i]);
        assert_int_equal(key[0], 0x7f);
        assert_int_equal(key[1], ids[i] & 0xff);
        assert_int_equal(key[2], ids[i] >> 8);
        assert_int_equal(cancel_key_peer(key), ids[i]);
        assert_int_equal(cancel_key_hops(key), 3);
        assert_false(cancel_key_is_foreign(key, ids[i]));
        assert_true(cancel_key_is_foreign(key, ids[i] ^ 1 ? ids[i] ^ 1 : 2));
    }
}

static void without_a_peer_id_a_key_is_random_but_for_its_first_bit(void **state)
{
    uint8_t key[8] = {0xff, 2, 3, 4, 5, 6, 7, 0xf8};
    static const uint8_t wanted[8] = {0x7f, 2, 3, 4, 5, 6, 7, 0xf8};

    (void)state;
    cancel_key_mark(key, 0);
    assert_memory_equal(key, wanted, sizeof(key));
    assert_false(cancel_key_is_foreign(key, 0));
}

static void keys_are_compared_without_their_hops(void **state)
{
    uint8_t key[8] = {1, 2, 3, 4, 5, 6, 7, 8 | 3};

    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint8_t other[8];

        memcpy(other, key, sizeof(other));
        other[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(cancel_key_is_same(key, other), bit == 56 || bit == 57);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marked_key_names_its_process),
        cmocka_unit_test(without_a_peer_id_a_key_is_random_but_for_its_first_bit),
        cmocka_unit_test(keys_are_compared_without_their_hops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
