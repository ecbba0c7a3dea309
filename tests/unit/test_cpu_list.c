#include "unit.h"

#include "config/cpu_list.h"

static void test_lists(void **state)
{
    static const struct {
        const char *text;
        int cpus[8];
        unsigned count;
    } good[] = {
        {"", {0}, 0},
        {"  ", {0}, 0},
        {"0", {0}, 1},
        {"3", {3}, 1},
        {"0-3", {0, 1, 2, 3}, 4},
        {"0-1,8,10-11", {0, 1, 8, 10, 11}, 5},
        {" 2 , 0 - 1 ", {2, 0, 1}, 3},
        {"5-5", {5}, 1},
        {"1,1", {1, 1}, 2},
        {"1023", {1023}, 1},
        {"007", {7}, 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        int cpus[8];
        unsigned count;
        const char *why = NULL;

        assert_true(cpu_list_parse(good[i].text, cpus, COUNT_OF(cpus), &count, &why));
        assert_int_equal(count, good[i].count);
        for (unsigned k = 0; k < count; k++)
            assert_int_equal(cpus[k], good[i].cpus[k]);
    }
}

static void test_what_is_no_list_is_refused_with_a_reason(void **state)
{
    static const char *const bad[] = {",",
                                      "0,",
                                      ",0",
                                      "0,,1",
                                      "a",
                                      "0-",
                                      "-1",
                                      "3-1",
                                      "1 2",
                                      "0;1",
                                      "0x1",
                                      "1024",
                                      "99999999999999999999",
                                      "0-1024",
                                      "1-2-3",
                                      "all"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        int cpus[8];
        unsigned count;
        const char *why = NULL;

        if (cpu_list_parse(bad[i], cpus, COUNT_OF(cpus), &count, &why))
            fail_msg("'%s' was accepted", bad[i]);
        assert_non_null(why);
    }
}

static void test_a_list_that_is_too_long_is_refused(void **state)
{
    int cpus[4];
    unsigned count;
    const char *why = NULL;

    (void)state;
    assert_true(cpu_list_parse("0-3", cpus, 4, &count, &why));
    assert_false(cpu_list_parse("0-4", cpus, 4, &count, &why));
    assert_string_equal(why, "more CPUs than there can be workers");
    assert_false(cpu_list_parse("0,1,2,3,4", cpus, 4, &count, &why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_what_is_no_list_is_refused_with_a_reason),
        cmocka_unit_test(test_a_list_that_is_too_long_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
