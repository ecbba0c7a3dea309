/* The console's grammar (control/console_command.h), and its tables against the compatibility page.
 */
#include "unit.h"

#include "base/bytes.h"
#include "control/console_command.h"
#include "control/show.h"

#include <stdlib.h>

static void expect(const char *text, enum console_result result, const char *word,
                   const char *argument, const char *value)
{
    struct console_command command;

    if (console_command_parse(text, &command) != result)
        fail_msg("%s: another result", text);
    if (result != CONSOLE_OK)
        return;
    assert_string_equal(command.word, word);
    assert_string_equal(command.argument, argument);
    assert_string_equal(command.value, value);
}

static void test_words_arguments_and_values(void **state)
{
    (void)state;
    expect("show pools", CONSOLE_OK, "SHOW", "pools", "");
    expect(" \t\nSHOW\n pools ; ", CONSOLE_OK, "SHOW", "pools", "");
    expect("reload;", CONSOLE_OK, "RELOAD", "", "");
    expect("pause \"my \"\"db\"", CONSOLE_OK, "PAUSE", "my \"db", "");
    expect("set verbose = 1", CONSOLE_OK, "SET", "verbose", "1");
    expect("set verbose=1;", CONSOLE_OK, "SET", "verbose", "1");
    expect("SET query_timeout TO '1.5'", CONSOLE_OK, "SET", "query_timeout", "1.5");
    expect("set x = 'it''s'", CONSOLE_OK, "SET", "x", "it's");
    expect("set x = ''", CONSOLE_OK, "SET", "x", "");
}

static void test_nonsense_is_refused(void **state)
{
    (void)state;
    expect("", CONSOLE_INVALID, "", "", "");
    expect(";", CONSOLE_INVALID, "", "", "");
    expect("show pools clients", CONSOLE_INVALID, "", "", "");
    expect("show; show", CONSOLE_INVALID, "", "", "");
    expect("set x", CONSOLE_INVALID, "", "", "");
    expect("set x 1", CONSOLE_INVALID, "", "", "");
    expect("set x = -1", CONSOLE_INVALID, "", "", "");
    expect("pause \"open", CONSOLE_INVALID, "", "", "");
    expect("averyverylongcommandword x", CONSOLE_BAD_ARGUMENTS, "", "", "");
    expect("pause \"\"", CONSOLE_BAD_ARGUMENTS, "", "", "");
}

/* Each row of the page has its column, in its place and of its type. */
static void test_tables_are_those_of_the_page(void **state)
{
    FILE *page = fopen("tests/compat/show_columns.tsv", "r");
    char line[1024];
    unsigned rows = 0;

    (void)state;
    assert_non_null(page);
    assert_non_null(fgets(line, sizeof(line), page));
    while (fgets(line, sizeof(line), page) != NULL) {
        char show[64], column[64];
        unsigned position;
        int type;
        const struct show_table *table;

        if (sscanf(line, "%63[^\t]\t%u\t%63[^\t]\t%d", show, &position, column, &type) != 4 ||
            strcmp(show, "HELP") == 0)
            continue;
        table = show_find(show);
        assert_non_null(table);
        assert_string_equal(table->columns[position - 1].name, column);
        assert_int_equal(table->columns[position - 1].type, type);
        rows++;
    }
    fclose(page);
    assert_true(rows > 200);
}

static void test_a_row_is_a_message_of_its_columns(void **state)
{
    struct output output = {0};
    struct show_row row;

    (void)state;
    show_row_begin(&row, &output, show_find("STATE"));
    show_text(&row, "active");
    show_text(&row, NULL);
    show_row_end(&row);
    assert_int_equal(output.bytes, 1 + 4 + 2 + 4 + 6 + 4);
    assert_memory_equal(output.data, "D\0\0\0\x14\0\2\0\0\0\6active\xff\xff\xff\xff", 21);
    output_release(&output);
}

static void expect_binary(int type, const char *text, const char *bytes, size_t count)
{
    const struct show_table table = {.columns = {{"x", type}, {NULL, 0}}};
    struct output output = {.binary_columns = 1};
    struct show_row row;

    show_row_begin(&row, &output, &table);
    show_text(&row, text);
    show_row_end(&row);
    assert_int_equal(output.bytes, 1 + 4 + 2 + 4 + count);
    assert_int_equal(bytes_get_u32(output.data + 7), count);
    assert_memory_equal(output.data + 11, bytes, count);
    output_release(&output);
}

/* numeric: digits in base 10,000, weight of the first, sign, decimals, digits. */
static void test_values_in_binary(void **state)
{
    (void)state;
    expect_binary(TYPE_INT4, "-2", "\xff\xff\xff\xfe", 4);
    expect_binary(TYPE_INT8, "4294967298", "\0\0\0\1\0\0\0\2", 8);
    expect_binary(TYPE_TEXT, "12", "12", 2);
    expect_binary(TYPE_FLOAT8, "-1.50", "\xbf\xf8\0\0\0\0\0\0", 8);
    expect_binary(TYPE_BYTEA, "\\x00ffA0", "\0\xff\xa0", 3);
    expect_binary(TYPE_BYTEA, "\\x", "", 0);
    expect_binary(TYPE_NUMERIC, "0", "\0\0\0\0\0\0\0\0", 8);
    expect_binary(TYPE_NUMERIC, "9999", "\0\1\0\0\0\0\0\0\x27\x0f", 10);
    expect_binary(TYPE_NUMERIC, "20000", "\0\1\0\1\0\0\0\0\0\2", 10);
    expect_binary(TYPE_NUMERIC, "-100000003", "\0\3\0\2\x40\0\0\0\0\1\0\0\0\3", 14);
    expect_binary(TYPE_NUMERIC, "9223372036854775807",
                  "\0\5\0\4\0\0\0\0\x03\x9a\x0d\x2c\x01\x70\x15\x65\x16\xaf", 18);
}

static void test_old_columns_are_left_out_unless_wanted(void **state)
{
    const struct show_table table = {.columns = {{"x", TYPE_TEXT}, {NULL, 0}},
                                     .old_column = {"y", TYPE_INT4}};
    struct output output = {0};
    struct show_row row;

    (void)state;
    for (unsigned wanted = 0; wanted < 2; wanted++) {
        output.has_old_columns = wanted == 1;
        output.bytes = 0;
        show_row_begin(&row, &output, &table);
        show_text(&row, "a");
        show_number(&row, 7);
        show_row_end(&row);
        assert_int_equal(bytes_get_u16(output.data + 5), 1 + wanted);
        assert_int_equal(output.bytes, 1 + 4 + 2 + 5 + 5 * wanted);
    }
    output_release(&output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_arguments_and_values),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_tables_are_those_of_the_page),
        cmocka_unit_test(test_a_row_is_a_message_of_its_columns),
        cmocka_unit_test(test_values_in_binary),
        cmocka_unit_test(test_old_columns_are_left_out_unless_wanted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
