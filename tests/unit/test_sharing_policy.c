#include "unit.h"
#include "pool/sharing_policy.h"
static void test_set(void **state)
{
    struct sharing_policy policy = {0};
    (void)state;
    sharing_policy_set(&policy, SHARING_AUTO, 10);
    assert_int_equal(policy.limit, 2);
    sharing_policy_set(&policy, SHARING_AUTO, 1);
    assert_int_equal(policy.limit, 1);
    sharing_policy_set(&policy, 5, 10);
    assert_int_equal(policy.limit, 5);
    sharing_policy_set(&policy, SHARING_OFF, 10);
    assert_int_equal(policy.limit, 10);
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
