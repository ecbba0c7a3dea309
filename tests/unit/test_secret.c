#include "crypto/base64.h"
#include "crypto/random.h"
#include "crypto/secret.h"

#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void a_difference_anywhere_is_seen(void **state)
{
    uint8_t left[67], right[67];

    (void)state;
    assert_true(random_bytes(left, sizeof(left)));
    memcpy(right, left, sizeof(left));
    assert_true(secret_equal(left, right, sizeof(left)));
    assert_true(secret_equal(left, right, 0));
    for (size_t i = 0; i < sizeof(left); i++) {
        for (int bit = 0; bit < 8; bit++) {
            right[i] ^= (uint8_t)(1 << bit);
            assert_false(secret_equal(left, right, sizeof(left)));
            right[i] = left[i];
        }
    }
}

static bool texts_equal(const char *stored, const char *given)
{
    char *copy = strdup(stored);
    size_t bytes = strlen(stored);
    bool is_equal;

    /* Both ends are watched in turn. */
    is_equal = secret_text_equal(copy, bytes, guarded_copy(given, strlen(given)), strlen(given));
    assert_int_equal(is_equal,
                     secret_text_equal(guarded_copy(stored, bytes), bytes, given, strlen(given)));
    free(copy);
    return is_equal;
}

static void texts_of_different_lengths_differ(void **state)
{
    (void)state;
    assert_true(texts_equal("", ""));
    assert_true(texts_equal("a", "a"));
    assert_true(texts_equal("secret", "secret"));
    assert_false(texts_equal("secret", ""));
    assert_false(texts_equal("", "secret"));
    assert_false(texts_equal("secret", "secre"));
    assert_false(texts_equal("secre", "secret"));
    assert_false(texts_equal("secret", "Secret"));
    assert_false(texts_equal("secret", "secrez"));
    assert_false(texts_equal("a", "aaaa"));
    assert_false(texts_equal("aaaa", "a"));
    assert_false(secret_text_equal("", 0, "\0", 1));
    assert_false(secret_text_equal("a", 1, "a\0", 2));
}

static void wiping_leaves_zeros_and_nothing_beyond(void **state)
{
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const uint8_t expected[8] = {1, 0, 0, 0, 0, 0, 7, 8};

    (void)state;
    secret_wipe(data + 1, 5);
    secret_wipe(data, 0);
    assert_memory_equal(data, expected, sizeof(data));
}

static void random_fills_every_byte(void **state)
{
    static uint8_t data[1 << 16];
    unsigned seen[256] = {0};

    (void)state;
    assert_true(random_bytes(data, 0));
    assert_true(random_bytes(data, sizeof(data)));
    for (size_t i = 0; i < sizeof(data); i++)
        seen[data[i]]++;
    /* 256 expected of each; ten standard deviations away never happens. */
    for (size_t i = 0; i < 256; i++)
        assert_in_range(seen[i], 96, 416);
}

static bool decodes(const char *text, const char *expected)
{
    uint8_t out[16];
    size_t bytes;

    if (!base64_decode(guarded_copy(text, strlen(text)), strlen(text), out, sizeof(out), &bytes))
        return false;
    return bytes == strlen(expected) && memcmp(out, expected, bytes) == 0;
}

static void base64_has_one_spelling(void **state)
{
    static const char *const pairs[][2] = {/* RFC 4648 section 10 */
                                           {"", ""},
                                           {"Zg==", "f"},
                                           {"Zm8=", "fo"},
                                           {"Zm9v", "foo"},
                                           {"Zm9vYg==", "foob"},
                                           {"Zm9vYmE=", "fooba"},
                                           {"Zm9vYmFy", "foobar"}};
    static const char *const wrong[] = {"Z",          "Zg",
                                        "Zg=",        "=",
                                        "==",         "====",
                                        "Z===",       "Zg==Zg==",
                                        "Zh==",       "Zm9=",
                                        "Zm 9",       "Zm9\n",
                                        "Zm9vYmFyC",  "Zm-v",
                                        "Zm9v=",      "=m9v",
                                        "Zm=v",       "Z=9v",
                                        "\xffm9v",    "Zm9v====",
                                        "Zm9vYg==\n", "MDEyMzQ1Njc4OWFiY2RlZmc="};
    char text[16];

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        size_t bytes = base64_encode(pairs[i][1], strlen(pairs[i][1]), text);

        assert_int_equal(bytes, strlen(pairs[i][0]));
        assert_memory_equal(text, pairs[i][0], bytes);
        assert_true(decodes(pairs[i][0], pairs[i][1]));
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(decodes(wrong[i], "f"));
    assert_true(decodes("MDEyMzQ1Njc4OWFiY2RlZg==", "0123456789abcdef"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_difference_anywhere_is_seen),
        cmocka_unit_test(texts_of_different_lengths_differ),
        cmocka_unit_test(wiping_leaves_zeros_and_nothing_beyond),
        cmocka_unit_test(random_fills_every_byte),
        cmocka_unit_test(base64_has_one_spelling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
