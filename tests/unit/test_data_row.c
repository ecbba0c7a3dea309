#include "guarded.h"
#include "unit.h"

#include "wire/data_row.h"

#define BYTES(literal) literal, sizeof(literal) - 1

static struct reader reader;
static char text[4];

static enum data_value next(void)
{
    return data_row_next(&reader, text, sizeof(text));
}

static bool begins(const void *body, size_t bytes, unsigned columns)
{
    return data_row_begin(&reader, guarded_copy(body, bytes), bytes, columns);
}

static void columns_are_counted(void **state)
{
    (void)state;
    assert_int_equal(row_description_columns(guarded_copy(BYTES("\0\2more")), 6), 2);
    assert_int_equal(row_description_columns(guarded_copy(BYTES("\1\0")), 2), 256);
    assert_int_equal(row_description_columns(guarded_copy(BYTES("\1")), 1), 0);
    assert_int_equal(row_description_columns(NULL, 0), 0);
}

static void values_are_read_in_turn(void **state)
{
    (void)state;
    assert_true(begins(BYTES("\0\3\0\0\0\3bob\xff\xff\xff\xff\0\0\0\0"), 3));
    assert_int_equal(next(), DATA_TEXT);
    assert_string_equal(text, "bob");
    assert_false(data_row_is_over(&reader));
    assert_int_equal(next(), DATA_NULL);
    assert_string_equal(text, "");
    assert_int_equal(next(), DATA_TEXT);
    assert_string_equal(text, "");
    assert_true(data_row_is_over(&reader));
    assert_int_equal(next(), DATA_BAD);
    assert_false(data_row_is_over(&reader));
}

static void another_number_of_values_is_refused(void **state)
{
    (void)state;
    assert_false(begins(BYTES("\0\1\0\0\0\0"), 2));
    assert_false(begins(BYTES("\0"), 0));
    assert_false(begins(BYTES(""), 0));
    assert_true(begins(BYTES("\0\0"), 0));
}

static void bad_values_are_refused(void **state)
{
    static const struct {
        const char *body;
        size_t bytes;
    } bad[] = {
        {BYTES("\0\1\0\0\0\4four")}, /* no room for its zero */
        {BYTES("\0\1\0\0\0\3a\0b")}, /* a zero inside */
        {BYTES("\0\1\0\0\0\3ab")},   /* cut off */
        {BYTES("\0\1\x7f\xff\xff\xff"
               "ab")}, /* absurd */
        {BYTES("\0\1\xff\xff\xff\xfe"
               "ab")},         /* negative, and not -1 */
        {BYTES("\0\1\0\0\0")}, /* not even a length */
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_true(begins(bad[i].body, bad[i].bytes, 1));
        assert_int_equal(next(), DATA_BAD);
        assert_string_equal(text, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_counted),
        cmocka_unit_test(values_are_read_in_turn),
        cmocka_unit_test(another_number_of_values_is_refused),
        cmocka_unit_test(bad_values_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
