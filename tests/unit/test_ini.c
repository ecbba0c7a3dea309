/* test_ini.c - PgBouncer's ini grammar, fact by fact. */
#include "config_files.h"

#include "config/ini.h"

struct trace {
    char text[64 * 1024];
    size_t bytes;
};

/* "[name]" or "key=value@line", one a line. */
static void trace_item(void *context, const struct ini_item *item)
{
    struct trace *trace = context;
    size_t room = sizeof(trace->text) - trace->bytes;
    int bytes;

    if (item->kind == INI_SECTION)
        bytes =
            snprintf(trace->text + trace->bytes, room, "[%s]@%d\n", item->name, item->place.line);
    else
        bytes = snprintf(trace->text + trace->bytes, room, "%s=%s@%d\n", item->name, item->value,
                         item->place.line);
    trace->bytes += MIN((size_t)bytes, room - 1);
}

static size_t read_files(const struct test_file *files, struct trace *trace,
                         struct reported *reported)
{
    struct config_report report = {.report = test_report, .context = reported};
    struct ini_input input = {
        .open = test_open,
        .open_context = (void *)(uintptr_t)files,
        .arena = arena_new(),
        .report = &report,
        .handler = trace_item,
        .handler_context = trace,
    };

    trace->bytes = reported->bytes = 0;
    trace->text[0] = reported->text[0] = '\0';
    ini_read(&input, files[0].path);
    arena_free(input.arena);
    return report.mistake_count;
}

static void reads(const char *text, const char *expected)
{
    static struct trace trace;
    static struct reported reported;
    const struct test_file files[] = {{"f", text}, {NULL, NULL}};

    assert_int_equal(read_files(files, &trace, &reported), 0);
    assert_string_equal(trace.text, expected);
}

static void breaks(const char *text, const char *expected, int line)
{
    static struct trace trace;
    static struct reported reported;
    const struct test_file files[] = {{"f", text}, {NULL, NULL}};
    char place[32];

    assert_int_equal(read_files(files, &trace, &reported), 1);
    assert_string_equal(trace.text, expected);
    assert_reported(&reported, "syntax error");
    snprintf(place, sizeof(place), "in configuration (f:%d)", line);
    assert_reported(&reported, place);
}

static void white_space_around_lines_is_dropped(void **state)
{
    (void)state;
    reads("", "");
    reads(" \t\r\n\v\f", "");
    reads("\n \t\r [s]\r\n\v\fk = v \t\r\n  k2=w\v\f", "[s]@2\nk=v@3\nk2=w@4\n");
    reads("k = v\n w = x", "k=v@1\nw=x@2\n");
}

static void comments_begin_lines_only(void **state)
{
    (void)state;
    reads("; c\n  # c\n;\n#", "");
    reads("a = 1 ; c\nb = 2 # c\nc = ;x\n", "a=1 ; c@1\nb=2 # c@2\nc=;x@3\n");
    reads("[s] ; c\n[t];c\n", "[s]@1\n[t]@2\n");
}

static void sections_are_taken_literally(void **state)
{
    (void)state;
    reads("[ databases ]\n[DB]\n[]\n[a=b;c]", "[ databases ]@1\n[DB]@2\n[]@3\n[a=b;c]@4\n");
    reads("[s] a = 1 ]\n", "[s]@1\na=1 ]@1\n");
    reads("[s][t]", "[s]@1\n[t]@1\n");
    breaks("[s\n]", "", 1);
    breaks("[s", "", 1);
}

static void keys_are_words_or_quoted(void **state)
{
    (void)state;
    reads("aZ0_.-* = 1", "aZ0_.-*=1@1\n");
    reads("* = host=a", "*=host=a@1\n");
    reads("'my=db ;x\"' = 1\n'\xc3\xa4'=2", "my=db ;x\"=1@1\n\xc3\xa4=2@2\n");
    reads("= 1", "=1@1\n");
    breaks("'' = 1", "", 1);
    breaks("'a\n' = 1", "", 1);
    breaks("'a = 1", "", 1);
    breaks("\"a\" = 1", "", 1);
    breaks("\xc3\xa4 = 1", "", 1);
    breaks("a b = 1", "", 1);
    breaks("'a'b = 1", "", 1);
    breaks("\xef\xbb\xbf[s]", "", 1);
}

static void only_an_equals_sign_separates(void **state)
{
    (void)state;
    reads("a=b=c\nd\t= \te", "a=b=c@1\nd=e@2\n");
    breaks("ok = 1\na : 1\nb = 2", "ok=1@1\n", 2);
    breaks("a", "", 1);
    breaks("a\n= 1", "", 1);
}

static void values_keep_quotes_and_may_be_empty(void **state)
{
    (void)state;
    reads("a =\nb = \t \nc = 'x' \"y\"", "a=@1\nb=@2\nc='x' \"y\"@3\n");
}

static void values_have_no_length_limit(void **state)
{
    static struct trace trace;
    static struct reported reported;
    enum { VALUE_BYTES = 50000 };
    char *text = malloc(VALUE_BYTES + 8);
    const struct test_file files[] = {{"f", text}, {NULL, NULL}};

    (void)state;
    memcpy(text, "k = ", 4);
    memset(text + 4, 'x', VALUE_BYTES);
    strcpy(text + 4 + VALUE_BYTES, "\n");
    assert_int_equal(read_files(files, &trace, &reported), 0);
    assert_int_equal(trace.bytes, 2 + VALUE_BYTES + 3);
    free(text);
}

static void lines_that_would_mislead_inih_do_not(void **state)
{
    (void)state;
    reads("password='a ;b' dbname=y", "password='a ;b' dbname=y@1\n");
    reads("a = 1\n  b = 2", "a=1@1\nb=2@2\n");
    breaks("foo:bar = 1", "", 1);
}

static char *open_with_nul(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    static const char text[] = "a = 1\nb = 2\0c = 3\n";
    char *copy = arena_alloc(arena, sizeof(text));

    (void)context, (void)path;
    memcpy(copy, text, sizeof(text));
    *bytes = sizeof(text) - 1;
    return copy;
}

static void a_nul_byte_ends_the_file(void **state)
{
    static struct trace trace;
    struct config_report report = {.report = NULL};
    struct ini_input input = {.open = open_with_nul,
                              .arena = arena_new(),
                              .report = &report,
                              .handler = trace_item,
                              .handler_context = &trace};

    (void)state;
    ini_read(&input, "f");
    arena_free(input.arena);
    assert_int_equal(report.mistake_count, 0);
    assert_string_equal(trace.text, "a=1@1\nb=2@2\n");
}

static void includes_stand_where_lines_may(void **state)
{
    static struct trace trace;
    static struct reported reported;
    const struct test_file files[] = {
        {"f", "[s] %include g \r\n  %include\tdir/h\nz = 1"},
        {"g", "a = 1\n[t]"},
        {"dir/h", "b = 2\n"},
        {NULL, NULL},
    };

    (void)state;
    assert_int_equal(read_files(files, &trace, &reported), 0);
    assert_string_equal(trace.text, "[s]@1\na=1@1\n[t]@2\nb=2@1\nz=1@3\n");
    breaks("%include", "", 1);
    breaks("%includef", "", 1);
    breaks("%INCLUDE f", "", 1);
}

static void a_missing_include_is_a_mistake_and_reading_goes_on(void **state)
{
    static struct trace trace;
    static struct reported reported;
    const struct test_file files[] = {{"f", "\n%include gone\na = 1\n%include "}, {NULL, NULL}};

    (void)state;
    assert_int_equal(read_files(files, &trace, &reported), 2);
    assert_string_equal(trace.text, "a=1@3\n");
    assert_reported(&reported, "could not read file \"gone\": No such file or directory in "
                               "configuration (f:2)");
    assert_reported(&reported, "could not read file \"\": No such file or directory in "
                               "configuration (f:4)");
}

static void a_syntax_error_ends_only_its_own_file(void **state)
{
    static struct trace trace;
    static struct reported reported;
    const struct test_file files[] = {
        {"f", "%include g\na = 1\n!\nb = 2"}, {"g", "c = 1\n?\nd = 1"}, {NULL, NULL}};

    (void)state;
    assert_int_equal(read_files(files, &trace, &reported), 2);
    assert_string_equal(trace.text, "c=1@1\na=1@2\n");
    assert_reported(&reported, "(g:2)");
    assert_reported(&reported, "(f:3)");
}

static void includes_nest_ten_deep_and_no_deeper(void **state)
{
    static struct trace trace;
    static struct reported reported;
    struct test_file files[INI_INCLUDE_DEPTH_MAX + 3] = {{NULL, NULL}};
    char paths[INI_INCLUDE_DEPTH_MAX + 2][8], texts[INI_INCLUDE_DEPTH_MAX + 2][32];

    (void)state;
    for (int depth = 0; depth <= INI_INCLUDE_DEPTH_MAX + 1; depth++) {
        snprintf(paths[depth], sizeof(paths[depth]), "f%d", depth);
        snprintf(texts[depth], sizeof(texts[depth]), "%%include f%d\n", depth + 1);
        files[depth] = (struct test_file){paths[depth], texts[depth]};
    }
    files[INI_INCLUDE_DEPTH_MAX].text = "deep = 1";
    assert_int_equal(read_files(files, &trace, &reported), 0);
    assert_string_equal(trace.text, "deep=1@1\n");

    files[INI_INCLUDE_DEPTH_MAX].text = texts[INI_INCLUDE_DEPTH_MAX];
    files[INI_INCLUDE_DEPTH_MAX + 1].text = "deep = 1";
    assert_int_equal(read_files(files, &trace, &reported), 1);
    assert_reported(&reported, "%include goes too deep (at most 10) in configuration (f10:1)");
    assert_string_equal(trace.text, "");
}

static void files_that_include_each_other_end(void **state)
{
    static struct trace trace;
    static struct reported reported;
    const struct test_file self[] = {{"f", "%include f\n%include f\n%include f\n"}, {NULL, NULL}};
    char wide_text[4000] = "";
    const struct test_file wide[] = {
        {"f", wide_text}, {"g", wide_text + 1100}, {"h", ""}, {NULL, NULL}};

    (void)state;
    assert_int_equal(read_files(self, &trace, &reported), 1);
    for (int line = 0; line < 100; line++) {
        memcpy(wide_text + line * 11, "%include g\n", 11);
        memcpy(wide_text + 1100 + line * 11, "%include h\n", 11);
    }
    wide_text[1099] = '\0'; /* the first table ends where the second one begins */
    assert_int_equal(read_files(wide, &trace, &reported), 1);
    assert_reported(&reported, "over too many files");
}

static void a_missing_main_file_is_a_mistake(void **state)
{
    static struct reported reported;
    struct snapshot *snapshot;

    (void)state;
    memset(&reported, 0, sizeof(reported));
    snapshot = snapshot_load("/nonexistent/pgsplice.ini", test_report, &reported);
    assert_null(snapshot);
    assert_string_equal(reported.text,
                        "ERROR could not read file \"/nonexistent/pgsplice.ini\": No "
                        "such file or directory\n");
    reported.bytes = 0;
    snapshot = snapshot_load("/", test_report, &reported);
    assert_null(snapshot);
    assert_reported(&reported, "Is a directory");
}

static void endless_files_are_refused(void **state)
{
    static struct reported reported;
    struct snapshot *snapshot = snapshot_load("/dev/zero", test_report, &reported);

    (void)state;
    assert_null(snapshot);
    assert_reported(&reported, "File too large");
}

/* Every prefix, and every single byte changed to each of a few nasty ones: nothing may go wrong. */
static void any_bytes_are_survived(void **state)
{
    static const char text[] = "[a] b = c\n'q' = 'r' ; x\n%include g\n\xef[s\n";
    static const char nasty[] = "\0\n'[]=;#% \t\xff";
    static struct trace trace;
    static struct reported reported;
    char changed[sizeof(text)];
    const struct test_file files[] = {{"f", changed}, {"g", "z=1\n[x"}, {NULL, NULL}};

    (void)state;
    for (size_t at = 0; at < sizeof(text); at++)
        for (size_t byte = 0; byte < sizeof(nasty); byte++) {
            memcpy(changed, text, sizeof(text));
            changed[at] = nasty[byte];
            changed[sizeof(text) - 1] = '\0';
            read_files(files, &trace, &reported);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(white_space_around_lines_is_dropped),
        cmocka_unit_test(comments_begin_lines_only),
        cmocka_unit_test(sections_are_taken_literally),
        cmocka_unit_test(keys_are_words_or_quoted),
        cmocka_unit_test(only_an_equals_sign_separates),
        cmocka_unit_test(values_keep_quotes_and_may_be_empty),
        cmocka_unit_test(values_have_no_length_limit),
        cmocka_unit_test(lines_that_would_mislead_inih_do_not),
        cmocka_unit_test(a_nul_byte_ends_the_file),
        cmocka_unit_test(includes_stand_where_lines_may),
        cmocka_unit_test(a_missing_include_is_a_mistake_and_reading_goes_on),
        cmocka_unit_test(a_syntax_error_ends_only_its_own_file),
        cmocka_unit_test(includes_nest_ten_deep_and_no_deeper),
        cmocka_unit_test(files_that_include_each_other_end),
        cmocka_unit_test(a_missing_main_file_is_a_mistake),
        cmocka_unit_test(endless_files_are_refused),
        cmocka_unit_test(any_bytes_are_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
