/* Tracked parameters as interned sets (pool/params.h), and the counts of the process
 * (pool/usage.h). */
#include "unit.h"

#include "pool/params.h"
#include "pool/usage.h"

#include <pthread.h>

static struct buffer_pool buffers;
static struct param_names names;
static struct param_table table;
static char storage[128];

static int set_up(void **state)
{
    (void)state;
    assert_true(buffer_pool_init(&buffers, 1024, 16));
    param_names_init(&names, "IntervalStyle, search_path,DateStyle", storage, sizeof(storage));
    param_table_init(&table, &names, &buffers);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(buffers.parked_bytes, 0); /* every set went with its last reference */
    buffer_pool_release(&buffers);
    return 0;
}

static void test_names_are_the_five_and_the_extra_ones_once(void **state)
{
    (void)state;
    assert_int_equal(names.count, 7);
    assert_int_equal(param_names_find(&names, "datestyle"), PARAM_DATESTYLE);
    assert_int_equal(param_names_find(&names, "INTERVALSTYLE"), 5);
    assert_int_equal(param_names_find(&names, "work_mem"), -1);
}

static void test_same_values_are_the_same_set(void **state)
{
    const char *values[PARAMS_COUNT_MAX] = {"ISO, MDY", "UTF8", NULL, "on", ""};
    const char *copy[PARAMS_COUNT_MAX] = {"ISO, MDY", "UTF8", NULL, "on", ""};
    struct buffer *a = params_intern(&table, values);
    struct buffer *b = params_intern(&table, copy);
    struct buffer *c = params_with(&table, a, PARAM_TIMEZONE, "UTC");

    (void)state;
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_null(params_value(a, PARAM_TIMEZONE));
    assert_string_equal(params_value(c, PARAM_TIMEZONE), "UTC");
    assert_string_equal(params_value(c, PARAM_APPLICATION_NAME), "");
    assert_null(params_value(NULL, 0));
    params_release(&table, a);
    params_release(&table, b);
    params_release(&table, c);
}

static void test_empty_and_unknown_values_differ(void **state)
{
    const char *known[PARAMS_COUNT_MAX] = {""};
    const char *unknown[PARAMS_COUNT_MAX] = {NULL};
    struct buffer *a = params_intern(&table, known);
    struct buffer *b = params_intern(&table, unknown);

    (void)state;
    assert_ptr_not_equal(a, b);
    params_release(&table, a);
    params_release(&table, b);
}

static void expect_set(const char *const *wanted, const char *const *actual, const char *query)
{
    struct buffer *a = params_intern(&table, wanted);
    struct buffer *b = params_intern(&table, actual);
    char text[1024];

    assert_int_equal(params_write_set(&table, a, b, text, sizeof(text)), query[0] != '\0');
    assert_string_equal(text, query);
    params_release(&table, a);
    params_release(&table, b);
}

static void test_set_names_what_differs_and_quotes_it(void **state)
{
    const char *plain[PARAMS_COUNT_MAX] = {"ISO", "UTF8", "UTC", "on", "app", "postgres", "a, b"};
    const char *other_case[PARAMS_COUNT_MAX] = {"iso", "utf8",     "utc", "ON",
                                                "APP", "Postgres", "A, b"};
    const char *quotes[PARAMS_COUNT_MAX] = {"ISO",     "UTF8",     "UTC", "on",
                                            "o'brien", "postgres", "a, b"};
    const char *slashes[PARAMS_COUNT_MAX] = {"ISO",   "UTF8",     "UTC", "on",
                                             "a\\'b", "postgres", "a, b"};
    const char *path[PARAMS_COUNT_MAX] = {
        "ISO", "UTF8", "UTC", "on", "app", "postgres", "\"$user\", public"};
    const char *injected[PARAMS_COUNT_MAX] = {"ISO",      "UTF8",           "UTC", "on", "app",
                                              "postgres", "a; drop table t"};
    const char *unknown[PARAMS_COUNT_MAX] = {"ISO", NULL, "UTC", "on", "app", "postgres", "a, b"};
    const char *latin[PARAMS_COUNT_MAX] = {"ISO", "LATIN1", "UTC", "on", "app", "postgres", "a, b"};
    char long_name[200];
    const char *too_long[PARAMS_COUNT_MAX] = {"ISO",     "UTF8",     "UTC", "on",
                                              long_name, "postgres", "a, b"};

    (void)state;
    memset(long_name, 'x', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    expect_set(plain, plain, "");
    expect_set(other_case, plain, "");
    expect_set(latin, plain, "SET client_encoding='LATIN1';");
    expect_set(quotes, plain, "SET application_name='o''brien';");
    expect_set(slashes, plain, "SET application_name=E'a\\\\''b';");
    expect_set(path, plain, "SET search_path=\"$user\", public;");
    expect_set(injected, plain, "");
    expect_set(latin, unknown, "");
    expect_set(too_long, plain, "");
}

static struct usage_table usage;
static atomic_int granted;

static void *take_many(void *argument)
{
    struct usage *entry = usage_find(&usage, USAGE_DATABASE, "app");

    (void)argument;
    for (int i = 0; i < 10000; i++)
        if (usage_take(&entry->server_count, 20)) {
            if (atomic_fetch_add(&granted, 1) >= 20)
                return "above the limit";
            atomic_fetch_sub(&granted, 1);
            usage_give(&entry->server_count);
        }
    return NULL;
}

static void test_a_limit_holds_among_threads(void **state)
{
    pthread_t threads[8];

    (void)state;
    assert_true(usage_table_init(&usage));
    assert_ptr_equal(usage_find(&usage, USAGE_USER, "a"), usage_find(&usage, USAGE_USER, "a"));
    assert_ptr_not_equal(usage_find(&usage, USAGE_USER, "a"),
                         usage_find(&usage, USAGE_DATABASE, "a"));
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, NULL), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        void *result;

        pthread_join(threads[i], &result);
        assert_null(result);
    }
    assert_int_equal(usage_count(&usage_find(&usage, USAGE_DATABASE, "app")->server_count), 0);
    usage_table_release(&usage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_the_five_and_the_extra_ones_once),
        cmocka_unit_test(test_same_values_are_the_same_set),
        cmocka_unit_test(test_empty_and_unknown_values_differ),
        cmocka_unit_test(test_set_names_what_differs_and_quotes_it),
        cmocka_unit_test(test_a_limit_holds_among_threads),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
