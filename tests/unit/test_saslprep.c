#include "crypto/saslprep.h"

#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char out[SASLPREP_OUTPUT_BYTES_MAX];
static size_t out_bytes;

static enum saslprep_result prepare(const char *text, size_t bytes)
{
    return saslprep(guarded_copy(text, bytes), bytes, out, &out_bytes);
}

#define assert_prepares(text, expected)                                                            \
    do {                                                                                           \
        assert_int_equal(prepare(text, sizeof(text) - 1), SASLPREP_OK);                            \
        assert_int_equal(out_bytes, sizeof(expected) - 1);                                         \
        assert_memory_equal(out, expected, out_bytes);                                             \
    } while (0)

#define assert_refuses(text)                                                                       \
    do {                                                                                           \
        assert_int_equal(prepare(text, sizeof(text) - 1), SASLPREP_REFUSED);                       \
        assert_int_equal(out_bytes, 0);                                                            \
    } while (0)

static void examples_of_rfc_4013_hold(void **state)
{
    (void)state;
    assert_prepares("I\xC2\xADX", "IX");   /* soft hyphen is mapped to nothing */
    assert_prepares("\xC2\xAA", "a");      /* feminine ordinal is normalized */
    assert_prepares("\xE2\x85\xA8", "IX"); /* so is the roman nine */
    assert_refuses("\xD8\xA7"
                   "1"); /* right-to-left has to end so, too */
    /* "user", "USER" stay; U+0007 is forbidden by the RFC, but PostgreSQL looks at no ASCII. */
    assert_int_equal(prepare("user", 4), SASLPREP_ASCII);
    assert_int_equal(prepare("USER", 4), SASLPREP_ASCII);
    assert_int_equal(prepare("\x07", 1), SASLPREP_ASCII);
    assert_refuses("\x07\xC3\xA9");
}

static void order_is_that_of_postgresql(void **state)
{
    (void)state;
    assert_refuses("x\xCD\x80");        /* U+0340 is forbidden, though normalized away */
    assert_refuses("\xC8\xA1x");        /* U+0221 is unassigned in Unicode 3.2 */
    assert_refuses("\xF0\x9F\x98\x80"); /* so are the emoji */
    assert_prepares("\xE2\x80\x8B"
                    "a",
                    " a"); /* U+200B is a space before it is nothing */
    assert_prepares("a\xC2\xA0"
                    "b",
                    "a b");
    assert_refuses("\xC2\xAD"); /* nothing would be left */
    assert_prepares("p\xC3\xA4ssw\xC3\xB6rd", "p\xC3\xA4ssw\xC3\xB6rd");
    assert_prepares("\xF0\xAF\xA1\xA8", "\xE3\x9B\xBC"); /* U+2F868: not as in Unicode 3.2 */
    assert_prepares("\xF0\xAF\xA6\xBF", "\xE4\x97\x97"); /* U+2F9BF */
    assert_prepares("pa\xCC\x88ss", "p\xC3\xA4ss");
}

static void text_that_is_no_utf8_is_refused(void **state)
{
    (void)state;
    assert_refuses("p\xE4ss");  /* Latin-1 */
    assert_refuses("\xC0\xAF"); /* overlong */
    assert_refuses("\xE0\x80\xAF");
    assert_refuses("\xED\xA0\x80");     /* surrogate */
    assert_refuses("\xF4\x90\x80\x80"); /* above U+10FFFF */
    assert_refuses("\xF8\x88\x80\x80\x80");
    assert_refuses("\xFF");
    assert_refuses("\x80");
    assert_refuses("\xC3"); /* cut off */
    assert_refuses("\xE2\x85");
    assert_refuses("\xF0\x9F\x98");
    assert_refuses("a\0\xC3\xA9");
}

static void long_texts_are_bounded(void **state)
{
    static char text[3 * SASLPREP_INPUT_BYTES_MAX];
    size_t count = SASLPREP_INPUT_BYTES_MAX / 3;

    (void)state;
    memset(text, 'a', sizeof(text));
    assert_int_equal(prepare(text, sizeof(text)), SASLPREP_ASCII);
    text[0] = '\xC3';
    text[1] = '\xA9';
    assert_int_equal(prepare(text, SASLPREP_INPUT_BYTES_MAX), SASLPREP_OK);
    assert_int_equal(out_bytes, SASLPREP_INPUT_BYTES_MAX);
    assert_int_equal(prepare(text, SASLPREP_INPUT_BYTES_MAX + 1), SASLPREP_REFUSED);
    /* What grows most when normalized. */
    for (size_t i = 0; i < count; i++)
        memcpy(text + 3 * i, "\xEF\xB7\xBA", 3);
    assert_int_equal(prepare(text, 3 * count), SASLPREP_OK);
    assert_int_equal(out_bytes, 33 * count);
}

static void every_pair_of_bytes_is_survived(void **state)
{
    (void)state;
    for (unsigned pair = 0; pair < 0x10000; pair++) {
        const char text[2] = {(char)(pair >> 8), (char)pair};
        enum saslprep_result result = prepare(text, 2);

        assert_int_equal(result == SASLPREP_OK, out_bytes > 0);
        assert_true(result == SASLPREP_ASCII || ((pair & 0x8080) != 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_rfc_4013_hold),
        cmocka_unit_test(order_is_that_of_postgresql),
        cmocka_unit_test(text_that_is_no_utf8_is_refused),
        cmocka_unit_test(long_texts_are_bounded),
        cmocka_unit_test(every_pair_of_bytes_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
