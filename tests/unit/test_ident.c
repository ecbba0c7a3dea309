/* test_ident.c - maps of outside names to users. */
#include "config_files.h"

#include "config/ident.h"

static struct arena *arena;
static struct reported reported;

static struct ident read_text(const char *text)
{
    struct config_report report = {.report = test_report, .context = &reported};
    struct ident ident, copy;

    reported.bytes = 0;
    reported.text[0] = '\0';
    ident_read(arena_copy_string(arena, text), strlen(text), "i", arena, &report, &ident);
    ident_copy(arena, &copy, &ident);
    return copy;
}

static bool allows(const struct ident *ident, const char *map, const char *system_name,
                   const char *user)
{
    const struct ident_map *found = ident_find(ident, map);

    assert_non_null(found);
    return ident_allows(found, system_name, user);
}

static void lines_of_a_map_add_up(void **state)
{
    struct ident ident = read_text("m joe ann\nother joe joe\n# c\n\nm joe bob # c\nm eve all\n"
                                   "M joe sam\n\"m m\" \"j \"\"x\" \"all\"\n");

    (void)state;
    assert_string_equal(reported.text, "");
    assert_int_equal(ident.map_count, 4);
    assert_true(allows(&ident, "m", "joe", "ann"));
    assert_true(allows(&ident, "m", "joe", "bob"));
    assert_false(allows(&ident, "m", "joe", "joe"));
    assert_false(allows(&ident, "m", "joe", "sam"));
    assert_false(allows(&ident, "m", "Joe", "ann"));
    assert_false(allows(&ident, "m", "joe", "Ann"));
    assert_true(allows(&ident, "m", "eve", "whoever"));
    assert_true(allows(&ident, "M", "joe", "sam"));
    assert_true(allows(&ident, "other", "joe", "joe"));
    /* Quoted, it is a user who is called so. */
    assert_true(allows(&ident, "m m", "j \"x", "all"));
    assert_false(allows(&ident, "m m", "j \"x", "ann"));
    assert_null(ident_find(&ident, "mm"));
    assert_null(ident_find(&ident, ""));
}

static void no_line_is_no_map(void **state)
{
    struct ident ident = read_text("");

    (void)state;
    assert_int_equal(ident.map_count, 0);
    assert_null(ident_find(&ident, "m"));
}

static void lines_that_cannot_be_read_are_left_out(void **state)
{
    struct ident ident = read_text("m\nm a\nm a b c\nm,a,b\nm a \"b\nm a b,\n\"m\" a b\n");

    (void)state;
    assert_int_equal(count_lines(reported.text, "WARNING could not parse ident config line"), 6);
    assert_reported(&reported, "WARNING could not parse ident config line 6: it is not \"MAP "
                               "SYSTEM-NAME USER\" in configuration (i:6)");
    assert_int_equal(ident.map_count, 1);
    assert_true(allows(&ident, "m", "a", "b"));
}

static void there_may_not_be_too_many(void **state)
{
    char *text = malloc(IDENT_LINES_MAX * 16 + 64);
    size_t used = 0;
    struct ident ident;

    (void)state;
    for (int i = 0; i < IDENT_LINES_MAX; i++)
        used += (size_t)sprintf(text + used, "m%d a b\n", i % 100);
    ident = read_text(text);
    assert_string_equal(reported.text, "");
    assert_int_equal(ident.map_count, 100);
    strcpy(text + used, "m a b\nm a b\n");
    ident = read_text(text);
    assert_string_equal(reported.text, "ERROR auth_ident_file has more than 10000 lines in "
                                       "configuration (i:10001)\n");
    free(text);
}

static int make_arena(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

static int free_arena(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_a_map_add_up),
        cmocka_unit_test(no_line_is_no_map),
        cmocka_unit_test(lines_that_cannot_be_read_are_left_out),
        cmocka_unit_test(there_may_not_be_too_many),
    };

    return cmocka_run_group_tests(tests, make_arena, free_arena);
}
