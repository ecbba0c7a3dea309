#include "unit.h"

#include "base/list.h"

struct item {
    int number;
    struct list link;
};

static void an_empty_list_and_a_free_link_may_be_removed(void **state)
{
    struct list list;
    struct item item = {.number = 1};

    (void)state;
    list_init(&list);
    list_init(&item.link);
    list_remove(&list);
    list_remove(&item.link);
    assert_true(list_is_empty(&list));
    assert_true(list_is_empty(&item.link));
    assert_null(list_front(&list));
    assert_null(list_back(&list));
}

static void items_stand_in_the_order_in_which_they_were_pushed(void **state)
{
    struct list list;
    struct item items[6];
    int expected = 0;

    (void)state;
    list_init(&list);
    for (int i = 0; i < 6; i++) {
        items[i].number = i;
        list_init(&items[i].link);
    }
    for (int i = 3; i < 6; i++)
        list_push_back(&list, &items[i].link);
    for (int i = 2; i >= 0; i--)
        list_push_front(&list, &items[i].link);
    list_for_each(link, &list)
        assert_int_equal(OWNER_OF(link, struct item, link)->number, expected++);
    assert_int_equal(expected, 6);
    assert_ptr_equal(list_front(&list), &items[0].link);
    assert_ptr_equal(list_back(&list), &items[5].link);
}

static void the_safe_loop_survives_the_removal_of_its_link(void **state)
{
    struct list list;
    struct item items[5];
    int left = 0;
    int seen = 0;

    (void)state;
    list_init(&list);
    for (int i = 0; i < 5; i++) {
        items[i].number = i;
        list_init(&items[i].link);
        list_push_back(&list, &items[i].link);
    }
    list_for_each_safe(link, &list)
    {
        seen++;
        if (OWNER_OF(link, struct item, link)->number % 2 == 0)
            list_remove(link);
    }
    assert_int_equal(seen, 5);
    list_for_each(link, &list) left++;
    assert_int_equal(left, 2);
}

static void append_all_moves_everything_behind(void **state)
{
    struct item items[4];

    (void)state;
    for (int split = 0; split <= 4; split++) {
        struct list to, from;
        int expected = 0;

        list_init(&to);
        list_init(&from);
        for (int i = 0; i < 4; i++) {
            items[i].number = i;
            list_init(&items[i].link);
            list_push_back(i < split ? &to : &from, &items[i].link);
        }
        list_append_all(&to, &from);
        assert_true(list_is_empty(&from));
        list_for_each(link, &to)
        {
            assert_ptr_equal(link->next->prev, link);
            assert_int_equal(OWNER_OF(link, struct item, link)->number, expected++);
        }
        assert_int_equal(expected, 4);
    }
}

static void a_link_cannot_be_in_two_lists(void **state)
{
    static struct list one, two;
    static struct item item;

    (void)state;
    list_init(&one);
    list_init(&two);
    list_init(&item.link);
    list_push_back(&one, &item.link);
    expect_broken_invariant(list_push_back(&two, &item.link));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_list_and_a_free_link_may_be_removed),
        cmocka_unit_test(items_stand_in_the_order_in_which_they_were_pushed),
        cmocka_unit_test(the_safe_loop_survives_the_removal_of_its_link),
        cmocka_unit_test(append_all_moves_everything_behind),
        cmocka_unit_test(a_link_cannot_be_in_two_lists),
    };

    return cmocka_run_group_tests_name("list", tests, NULL, NULL);
}
