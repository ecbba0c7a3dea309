/* test_userlist.c - the auth_file, fact by fact. */
#include "config_files.h"

#include "config/userlist.h"

/* Reads all users as "name:secret@line" lines; returns how it ended. */
static enum userlist_result read_all(const char *text, char *out, size_t out_bytes, int *line)
{
    char *copy = strdup(text);
    struct userlist userlist;
    enum userlist_result result;
    const char *name, *secret;
    size_t used = 0;

    out[0] = '\0';
    userlist_init(&userlist, copy);
    while ((result = userlist_next(&userlist, &name, &secret)) == USERLIST_OK)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s:%s@%d\n", name, secret,
                                 userlist.line);
    *line = userlist.line;
    free(copy);
    return result;
}

static void reads(const char *text, const char *expected)
{
    char out[512];
    int line;

    assert_int_equal(read_all(text, out, sizeof(out), &line), USERLIST_END);
    assert_string_equal(out, expected);
}

static void breaks(const char *text, const char *expected, int line_expected)
{
    char out[512];
    int line;

    assert_int_equal(read_all(text, out, sizeof(out), &line), USERLIST_BROKEN);
    assert_string_equal(out, expected);
    assert_int_equal(line, line_expected);
}

static void a_line_is_a_user(void **state)
{
    (void)state;
    reads("", "");
    reads("\"a\" \"b\"\n\"c\" \"d\"", "a:b@1\nc:d@2\n");
    reads("\"a\" \"b\" rest \"ignored\" ; x\r\n\"c\" \"d\"", "a:b@1\nc:d@2\n");
    reads("\"a\" \"\"\n\"\" \"b\"", "a:@1\n:b@2\n");
}

static void white_space_and_comments_are_skipped(void **state)
{
    (void)state;
    reads("\n \t\r\n  \"a\" \"b\"\n; \"x\" \"y\"\n  ;\n;", "a:b@3\n");
    breaks("\"a\" \"b\"\n# no comment\n\"c\" \"d\"", "a:b@1\n", 2);
}

static void doubled_quotes_are_one(void **state)
{
    (void)state;
    reads("\"a\"\"b\" \"\"\"\"", "a\"b:\"@1\n");
    reads("\"a\":\t=\"b\"", "a:b@1\n");
    reads("\"a\"\n\n\"b\"\n\"c\" \"d\"", "a:b@1\nc:d@4\n");
}

static void a_field_may_span_lines(void **state)
{
    (void)state;
    reads("\"a\nb\" \"c\nd\"\n\"e\" \"f\"", "a\nb:c\nd@1\ne:f@4\n");
}

static void a_broken_line_ends_the_reading(void **state)
{
    (void)state;
    breaks("\"a\" \"b\"\nc d\n\"e\" \"f\"", "a:b@1\n", 2);
    breaks("\"a", "", 1);
    breaks("\"a\"", "", 1);
    breaks("\"a\" \"b", "", 1);
    breaks("\n\n\"a\" b\n\n", "", 3);
}

static void names_and_secrets_have_limits(void **state)
{
    enum { ROOM = USERLIST_SECRET_BYTES_MAX + 300 };
    char *text = malloc(ROOM), *out = malloc(ROOM);
    int line;

    (void)state;
    snprintf(text, ROOM, "\"%0127d\" \"x\"", 1);
    assert_int_equal(read_all(text, out, ROOM, &line), USERLIST_END);
    assert_int_equal(strlen(out), 127 + strlen(":x@1\n"));
    snprintf(text, ROOM, "\"%0128d\" \"x\"", 1);
    assert_int_equal(read_all(text, out, ROOM, &line), USERLIST_NAME_TOO_LONG);
    snprintf(text, ROOM, "\"a\" \"%0*d\"", USERLIST_SECRET_BYTES_MAX, 1);
    assert_int_equal(read_all(text, out, ROOM, &line), USERLIST_END);
    snprintf(text, ROOM, "\"a\" \"%0*d\"", USERLIST_SECRET_BYTES_MAX + 1, 1);
    assert_int_equal(read_all(text, out, ROOM, &line), USERLIST_SECRET_TOO_LONG);
    free(text);
    free(out);
}

static void a_missing_file_is_told_but_loads(void **state)
{
    static struct reported reported;
    struct snapshot *snapshot = load_text("[pgbouncer]\nauth_file = gone\n", &reported);

    (void)state;
    assert_non_null(snapshot);
    assert_string_equal(reported.text,
                        "ERROR could not open auth_file gone: No such file or directory\n");
    snapshot_release(snapshot);
}

static void users_before_a_broken_line_are_kept(void **state)
{
    static struct reported reported;
    const struct test_file files[] = {
        {"t.ini", "[pgbouncer]\nauth_file = users\n"},
        {"users", "\"joe\" \"secret-1\"\n\"ann\" \"secret-2\n"},
        {NULL, NULL},
    };
    struct snapshot *snapshot = load_files(files, &reported);

    (void)state;
    assert_non_null(snapshot);
    assert_reported(&reported, "ERROR broken auth file");
    assert_reported(&reported, "(users:2)");
    assert_null(strstr(reported.text, "secret"));
    assert_int_equal(snapshot->user_count, 1);
    assert_string_equal(snapshot_find_user(snapshot, "joe")->secret, "secret-1");
    assert_true(snapshot_find_user(snapshot, "joe")->is_in_auth_file);
    snapshot_release(snapshot);
}

static void the_last_duplicate_wins(void **state)
{
    static struct reported reported;
    const struct test_file files[] = {
        {"t.ini", "[pgbouncer]\nauth_file = users\n"},
        {"users", "\"joe\" \"1\"\n\"ann\" \"2\"\n\"joe\" \"3\"\n\"joe\" \"\"\n"},
        {NULL, NULL},
    };
    struct snapshot *snapshot = load_files(files, &reported);

    (void)state;
    assert_non_null(snapshot);
    assert_int_equal(snapshot->user_count, 2);
    assert_string_equal(snapshot_find_user(snapshot, "joe")->secret, "");
    snapshot_release(snapshot);
}

static void any_bytes_are_survived(void **state)
{
    static const char text[] = "\"a\"\"\" \"b\n\" x\n;c\n\"d\" \"e\"";
    static const char nasty[] = "\0\n\"; \xff";
    char changed[sizeof(text)], out[512];
    int line;

    (void)state;
    for (size_t at = 0; at < sizeof(text); at++)
        for (size_t byte = 0; byte < sizeof(nasty); byte++) {
            memcpy(changed, text, sizeof(text));
            changed[at] = nasty[byte];
            changed[sizeof(text) - 1] = '\0';
            (void)read_all(changed, out, sizeof(out), &line);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_a_user),
        cmocka_unit_test(white_space_and_comments_are_skipped),
        cmocka_unit_test(doubled_quotes_are_one),
        cmocka_unit_test(a_field_may_span_lines),
        cmocka_unit_test(a_broken_line_ends_the_reading),
        cmocka_unit_test(names_and_secrets_have_limits),
        cmocka_unit_test(a_missing_file_is_told_but_loads),
        cmocka_unit_test(users_before_a_broken_line_are_kept),
        cmocka_unit_test(the_last_duplicate_wins),
        cmocka_unit_test(any_bytes_are_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
