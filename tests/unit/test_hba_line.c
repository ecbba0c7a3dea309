/* test_hba_line.c - words of HBA and ident files: quotes, commas, comments, broken lines. */
#include "guarded.h"
#include "unit.h"

#include "config/hba_line.h"

/* All words of all lines: `plain`, `"quoted"`, `,`, `!` for a broken one, `/` behind each line. */
static const char *words_of(const char *text, size_t bytes)
{
    static char said[4096];
    struct hba_lines lines;
    struct hba_line line;
    size_t used = 0;

    hba_lines_init(&lines, guarded_copy(text, bytes), bytes);
    while (hba_lines_next(&lines, &line)) {
        struct hba_word word;

        while ((word = hba_line_next(&line)).kind != HBA_WORD_END) {
            static const char *const formats[] = {
                [HBA_WORD_COMMA] = ",%.*s ",
                [HBA_WORD_PLAIN] = "%.*s ",
                [HBA_WORD_QUOTED] = "\"%.*s\" ",
                [HBA_WORD_BROKEN] = "!%.*s ",
            };

            used += (size_t)snprintf(said + used, sizeof(said) - used, formats[word.kind],
                                     (int)word.bytes, word.bytes > 0 ? word.text : "");
            assert_true(used < sizeof(said));
        }
        used += (size_t)snprintf(said + used, sizeof(said) - used, "/");
        assert_int_equal(hba_line_next(&line).kind, HBA_WORD_END);
    }
    said[used] = '\0';
    return said;
}

static void assert_words(const char *text, const char *wanted)
{
    assert_string_equal(words_of(text, strlen(text)), wanted);
}

static void words_are_cut_at_blanks_commas_and_quotes(void **state)
{
    (void)state;
    assert_words("", "");
    assert_words("\n", "/");
    assert_words("a", "a /");
    assert_words("a\n", "a /");
    assert_words("a b\tc\v\f d\r\ne", "a b c d /e /");
    assert_words("a,b , c,,d,", "a , b , c , , d , /");
    assert_words("a\"b\"c", "a \"b\" c /");
    assert_words("\"a b,c#d\"", "\"a b,c#d\" /");
    assert_words("\"\"", "\"\" /");
    assert_words("\"\"\"\"", "\"\"\" /");
    assert_words("\"a\"\"b\" \"c\"", "\"a\"b\" \"c\" /");
    assert_words("map=\"x y\"", "map= \"x y\" /");
}

static void comments_begin_anywhere_but_in_quotes(void **state)
{
    (void)state;
    assert_words("# a\nb # c\nd#e f\n\"#\"#\n#", "/b /d /\"#\" //");
    assert_words("a,#b", "a , /");
}

static void a_line_breaks_at_open_quotes_and_nul_bytes(void **state)
{
    (void)state;
    assert_words("a \"b\nc", "a ! /c /");
    assert_words("\"", "! /");
    assert_words("\"a\"\"\n", "! /");
    assert_string_equal(words_of("a\0b c\nd", 7), "a ! /d /");
    assert_string_equal(words_of("\"a\0b\" c\nd", 9), "! /d /");
    assert_string_equal(words_of("\0", 1), "! /");
}

static void lines_are_numbered(void **state)
{
    char text[] = "a\n\n\nb\r\nc";
    struct hba_lines lines;
    struct hba_line line;
    int number = 0;

    (void)state;
    hba_lines_init(&lines, text, strlen(text));
    while (hba_lines_next(&lines, &line))
        assert_int_equal(lines.line, ++number);
    assert_int_equal(number, 5);
}

static void the_rest_of_a_line_is_left_as_it_stands(void **state)
{
    char text[] = "a  b \"c\"\" # d \r\nx";
    struct hba_lines lines;
    struct hba_line line;
    struct hba_word rest;

    (void)state;
    hba_lines_init(&lines, text, strlen(text));
    assert_true(hba_lines_next(&lines, &line));
    (void)hba_line_next(&line);
    rest = hba_line_rest(&line);
    assert_int_equal(rest.kind, HBA_WORD_PLAIN);
    assert_int_equal(rest.bytes, strlen("b \"c\"\" # d"));
    assert_memory_equal(rest.text, "b \"c\"\" # d", rest.bytes);
    assert_int_equal(hba_line_next(&line).kind, HBA_WORD_END);
    rest = hba_line_rest(&line);
    assert_int_equal(rest.bytes, 0);
}

static void keywords_are_plain_and_whole(void **state)
{
    static const struct hba_word plain = {HBA_WORD_PLAIN, "all", 3};
    static const struct hba_word quoted = {HBA_WORD_QUOTED, "all", 3};
    static const struct hba_word part = {HBA_WORD_PLAIN, "al", 2};

    (void)state;
    assert_true(hba_word_is(&plain, "all"));
    assert_false(hba_word_is(&quoted, "all"));
    assert_false(hba_word_is(&part, "all"));
    assert_false(hba_word_is(&plain, "ALL"));
    assert_false(hba_word_is(&plain, "al"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_cut_at_blanks_commas_and_quotes),
        cmocka_unit_test(comments_begin_anywhere_but_in_quotes),
        cmocka_unit_test(a_line_breaks_at_open_quotes_and_nul_bytes),
        cmocka_unit_test(lines_are_numbered),
        cmocka_unit_test(the_rest_of_a_line_is_left_as_it_stands),
        cmocka_unit_test(keywords_are_plain_and_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
