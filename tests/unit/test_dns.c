/* Names: who asks the same shares an answer, answers hold as long as they should, and what is gone from
 * one is told before anybody gets it. Name servers are simulated by the tests themselves. */
#include "unit.h"

#include "base/log.h"
#include "control/dns.h"

#include <stdlib.h>
#include <sys/socket.h>

enum { QUESTIONS_MAX = DNS_QUESTIONS_MAX + 8 };

static struct dns dns;
static struct settings settings;
static uint64_t now_us;
static struct dns_question *asked[QUESTIONS_MAX]; /* in order; answered ones stay */
static unsigned asked_count;
static struct resolution *replied[16];
static unsigned replied_count, changed_count;
static struct host_answer changed_to;
static bool answers_at_once;

static void answer(struct dns_question *question, enum dns_family family, enum dns_result result,
                   const char *last_bytes)
{
    struct host_address addresses[64] = {0};
    unsigned count = (unsigned)strlen(last_bytes);

    for (unsigned i = 0; i < count; i++) {
        addresses[i].family = family == DNS_V4 ? AF_INET : AF_INET6;
        addresses[i].bytes[3] = (uint8_t)last_bytes[i];
    }
    dns_answer_addresses(question, family, result, addresses, count, "nothing there", now_us);
}

/* Both families; NULL: none. */
static void answer_both(struct dns_question *question, const char *v4, const char *v6)
{
    answer(question, DNS_V4, v4 != NULL ? DNS_FOUND : DNS_NONE, v4 != NULL ? v4 : "");
    answer(question, DNS_V6, v6 != NULL ? DNS_FOUND : DNS_NONE, v6 != NULL ? v6 : "");
}

static void ask(void *context, struct dns_question *question)
{
    (void)context;
    assert_true(asked_count < QUESTIONS_MAX);
    asked[asked_count++] = question;
    if (answers_at_once && !question->is_for_serial)
        answer_both(question, "a", NULL);
}

static void reply(void *context, struct resolution *resolution)
{
    (void)context;
    replied[replied_count++ % COUNT_OF(replied)] = resolution;
}

static void changed(void *context, const char *name, const struct host_answer *news)
{
    (void)context;
    assert_int_equal(replied_count, 0); /* nobody has it yet */
    assert_string_equal(name, "db.example");
    changed_count++;
    changed_to = *news;
}

static const struct dns_ports ports = {.ask = ask, .reply = reply, .changed = changed};

static int setup(void **state)
{
    (void)state;
    settings = (struct settings){.dns_max_ttl_us = 15 * US_PER_S,
                                 .dns_nxdomain_ttl_us = 5 * US_PER_S,
                                 .server_connect_timeout_us = 10 * US_PER_S};
    now_us = 1000 * US_PER_S;
    asked_count = replied_count = changed_count = 0;
    answers_at_once = false;
    dns_init(&dns, &ports, NULL, &settings, now_us);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_release(&dns);
    return 0;
}

static struct resolution *resolve(struct resolution *resolution, const char *name)
{
    memset(resolution, 0, sizeof(*resolution));
    snprintf(resolution->name, sizeof(resolution->name), "%s", name);
    replied_count = 0;
    dns_resolve(&dns, resolution, now_us);
    return resolution;
}

/* The addresses of the answer as the letters that they were given by. */
static void assert_answer(const struct resolution *resolution, const char *last_bytes)
{
    assert_int_equal(resolution->answer.address_count, strlen(last_bytes));
    for (unsigned i = 0; last_bytes[i] != '\0'; i++)
        assert_int_equal(resolution->answer.addresses[i].bytes[3], (uint8_t)last_bytes[i]);
}

static void pass(uint64_t us)
{
    now_us += us;
    dns_run(&dns, now_us);
}

static void who_asks_meanwhile_shares_the_question(void **state)
{
    struct resolution one, other;

    (void)state;
    resolve(&one, "db.example");
    resolve(&other, "db.example");
    assert_int_equal(asked_count, 1);
    answer_both(asked[0], "ba", "c");
    assert_int_equal(replied_count, 2);
    assert_answer(&one, "abc");
    assert_answer(&other, "abc");
    assert_int_equal(dns.question_count, 0);
}

static void an_answer_holds_until_its_time_is_over(void **state)
{
    struct resolution one;

    (void)state;
    resolve(&one, "db.example");
    answer_both(asked[0], "a", NULL);
    assert_int_equal(one.answer.until_us, now_us + 15 * US_PER_S);
    pass(15 * US_PER_S - 1);
    resolve(&one, "db.example");
    assert_int_equal(replied_count, 1);
    assert_answer(&one, "a");
    pass(1);
    resolve(&one, "db.example");
    assert_int_equal(replied_count, 0);
    assert_int_equal(asked_count, 2);
    answer_both(asked[1], "a", NULL);
    assert_int_equal(changed_count, 0);
}

static void a_failure_holds_until_its_own_time_is_over_or_reload(void **state)
{
    struct resolution one;

    (void)state;
    for (int i = 0; i < 2; i++) {
        resolve(&one, "db.example");
        assert_int_equal(asked_count, 1 + i);
        answer_both(asked[i], NULL, NULL);
        assert_int_equal(one.answer.address_count, 0);
        assert_string_equal(one.answer.error, "nothing there");
        pass(5 * US_PER_S - 1);
        resolve(&one, "db.example");
        assert_int_equal(replied_count, 1);
        assert_int_equal(asked_count, 1 + i);
        pass(1);
    }
    resolve(&one, "db.example");
    answer_both(asked[2], NULL, NULL);
    dns_configure(&dns, &settings, now_us);
    resolve(&one, "db.example");
    assert_int_equal(asked_count, 4);
    answer_both(asked[3], "a", NULL);
    assert_answer(&one, "a");
    dns_configure(&dns, &settings, now_us);
    resolve(&one, "db.example");
    assert_int_equal(replied_count, 1);
}

static void other_times_hold_for_what_is_known(void **state)
{
    struct resolution one;

    (void)state;
    resolve(&one, "db.example");
    answer_both(asked[0], "a", NULL);
    settings.dns_max_ttl_us = US_PER_S;
    dns_configure(&dns, &settings, now_us);
    pass(US_PER_S);
    resolve(&one, "db.example");
    assert_int_equal(asked_count, 2);
    answer_both(asked[1], "a", NULL);
}

static void an_address_that_is_gone_is_told(void **state)
{
    struct resolution one;
    static const struct {
        const char *v4, *v6;
        bool is_told;
        const char *all;
    } steps[] = {
        {"ab", NULL, false, "ab"},  {"abc", NULL, false, "abc"}, {"cab", "d", false, "abcd"},
        {"abc", NULL, true, "abc"}, {"b", NULL, true, "b"},      {"c", NULL, true, "c"},
        {NULL, "c", true, "c"},
    };

    (void)state;
    for (unsigned i = 0; i < COUNT_OF(steps); i++) {
        changed_count = 0;
        resolve(&one, "db.example");
        answer_both(asked[i], steps[i].v4, steps[i].v6);
        assert_int_equal(changed_count, steps[i].is_told);
        assert_answer(&one, steps[i].all);
        if (steps[i].is_told)
            assert_memory_equal(changed_to.addresses, one.answer.addresses,
                                one.answer.address_count * sizeof(one.answer.addresses[0]));
        pass(15 * US_PER_S);
    }
}

static void a_failure_in_between_hides_no_change(void **state)
{
    struct resolution one;

    (void)state;
    resolve(&one, "db.example");
    answer_both(asked[0], "a", NULL);
    pass(15 * US_PER_S);
    resolve(&one, "db.example");
    answer_both(asked[1], NULL, NULL);
    assert_int_equal(changed_count, 0);
    pass(5 * US_PER_S);
    resolve(&one, "db.example");
    answer_both(asked[2], "b", NULL);
    assert_int_equal(changed_count, 1);
}

static void a_family_without_a_clear_answer_keeps_what_it_had(void **state)
{
    struct resolution one;

    (void)state;
    resolve(&one, "db.example");
    answer_both(asked[0], "a", "b");
    pass(15 * US_PER_S);
    resolve(&one, "db.example");
    answer(asked[1], DNS_V6, DNS_UNKNOWN, "");
    answer(asked[1], DNS_V4, DNS_FOUND, "c");
    assert_answer(&one, "cb");
    assert_int_equal(changed_count, 1); /* "a" is gone */
    pass(15 * US_PER_S);
    resolve(&one, "db.example");
    answer(asked[2], DNS_V4, DNS_FOUND, "c");
    assert_int_equal(replied_count, 0);
    pass(DNS_PATIENCE_US + 2000);
    assert_int_equal(replied_count, 1);
    assert_answer(&one, "cb");
    assert_int_equal(changed_count, 1);
    assert_int_equal(dns.question_count, 1);
    answer(asked[2], DNS_V6, DNS_FOUND, "z"); /* too late, and nobody's */
    resolve(&one, "db.example");
    assert_answer(&one, "cb");
}

static void silence_ends_in_time_and_is_asked_again(void **state)
{
    struct resolution one;

    (void)state;
    resolve(&one, "db.example");
    answer(asked[0], DNS_V4, DNS_NONE, "");
    pass(10 * US_PER_S - 1);
    assert_int_equal(replied_count, 0);
    pass(2001);
    assert_int_equal(replied_count, 1);
    assert_int_equal(one.answer.address_count, 0);
    assert_string_equal(one.answer.error, "no answer in time");
    pass(5 * US_PER_S);
    resolve(&one, "db.example");
    assert_int_equal(asked_count, 2);
    assert_int_equal(dns.question_count, 2);
    answer(asked[0], DNS_V6, DNS_FOUND, "z");
    assert_int_equal(replied_count, 0);
    answer_both(asked[1], "a", NULL);
    assert_answer(&one, "a");
    assert_int_equal(dns.question_count, 0);
}

static void an_answer_may_come_at_once(void **state)
{
    struct resolution one;

    (void)state;
    answers_at_once = true;
    settings.dns_zone_check_period_us = 0;
    resolve(&one, "db.example");
    assert_int_equal(replied_count, 1);
    assert_answer(&one, "a");
    assert_int_equal(dns.question_count, 0);
}

static void more_addresses_than_we_keep_are_always_the_same_ones(void **state)
{
    static const char many[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop";
    char turned[sizeof(many)];
    struct resolution one;

    (void)state;
    for (unsigned i = 0; i < sizeof(many) - 1; i++) {
        for (unsigned k = 0; k < sizeof(many) - 1; k++)
            turned[k] = many[(i + k) % (sizeof(many) - 1)];
        turned[sizeof(many) - 1] = '\0';
        resolve(&one, "db.example");
        answer_both(asked[i], turned, "z");
        assert_int_equal(one.answer.address_count, HOST_ADDRESSES_MAX);
        assert_int_equal(changed_count, 0);
        pass(15 * US_PER_S);
    }
}

/* ---- zones ---- */

static struct dns_zone *zone(void)
{
    return OWNER_OF(list_front(&dns.zones), struct dns_zone, link);
}

static void begin_zone(struct resolution *one)
{
    settings.dns_zone_check_period_us = US_PER_S;
    dns_configure(&dns, &settings, now_us);
    resolve(one, "db.example");
    assert_int_equal(asked_count, 2);
    assert_true(asked[1]->is_for_serial);
    assert_string_equal(asked[1]->name, "example");
    answer_both(asked[0], "a", NULL);
    dns_answer_serial(asked[1], true, 7, now_us);
    assert_int_equal(zone()->serial, 7);
    assert_int_equal(zone()->host_count, 1);
}

static void a_new_serial_looks_the_hosts_up_again(void **state)
{
    struct resolution one, other;

    (void)state;
    begin_zone(&one);
    resolve(&other, "web.example");
    resolve(&other, "example"); /* of no zone */
    assert_int_equal(zone()->host_count, 2);
    assert_int_equal(dns.zone_count, 1);
    answer_both(asked[2], "w", NULL);
    answer_both(asked[3], "x", NULL);
    pass(US_PER_S + 2000);
    assert_true(asked_count == 5 && asked[4]->is_for_serial);
    dns_answer_serial(asked[4], true, 7, now_us);
    assert_int_equal(asked_count, 5);
    pass(US_PER_S + 2000);
    dns_answer_serial(asked[5], false, 0, now_us);
    assert_int_equal(asked_count, 6);
    pass(US_PER_S + 2000);
    dns_answer_serial(asked[6], true, 8, now_us);
    assert_int_equal(asked_count, 9);
    assert_string_equal(asked[7]->name, "db.example");
    assert_string_equal(asked[8]->name, "web.example");
    /* Until it is answered the old one holds; when it fails, too. */
    resolve(&one, "db.example");
    assert_answer(&one, "a");
    replied_count = 0;
    answer_both(asked[7], "b", NULL);
    assert_int_equal(changed_count, 1);
    answer_both(asked[8], NULL, NULL);
    resolve(&one, "db.example");
    assert_answer(&one, "b");
    resolve(&one, "web.example");
    assert_answer(&one, "w");
}

static void an_answer_from_before_the_new_serial_is_doubted(void **state)
{
    struct resolution one;

    (void)state;
    begin_zone(&one);
    pass(15 * US_PER_S);
    resolve(&one, "db.example"); /* asked[2] was the serial */
    assert_int_equal(asked_count, 4);
    dns_answer_serial(asked[2], true, 8, now_us);
    assert_int_equal(asked_count, 4);
    answer_both(asked[3], "a", NULL);
    assert_int_equal(asked_count, 5);
    replied_count = 0;
    answer_both(asked[4], "b", NULL);
    assert_int_equal(changed_count, 1);
}

static void zones_come_and_go_with_the_setting(void **state)
{
    struct resolution one;

    (void)state;
    begin_zone(&one);
    pass(US_PER_S + 2000);
    pass(US_PER_S + 2000); /* one question at a time */
    assert_int_equal(asked_count, 3);
    settings.dns_zone_check_period_us = 0;
    dns_configure(&dns, &settings, now_us);
    assert_int_equal(dns.zone_count, 0);
    dns_answer_serial(asked[2], true, 8, now_us); /* nobody's */
    assert_int_equal(asked_count, 3);
    pass(100 * US_PER_S);
    assert_int_equal(asked_count, 3);
    settings.dns_zone_check_period_us = 50 * US_PER_S;
    dns_configure(&dns, &settings, now_us);
    assert_int_equal(asked_count, 4);
    dns_answer_serial(asked[3], true, 8, now_us);
    settings.dns_zone_check_period_us = US_PER_S;
    dns_configure(&dns, &settings, now_us);
    pass(US_PER_S + 2000);
    assert_int_equal(asked_count, 5);
    dns_answer_serial(asked[4], true, 8, now_us);
}

/* ---- limits ---- */

static void the_name_that_was_not_asked_for_longest_makes_room(void **state)
{
    struct resolution one;
    char name[32];

    (void)state;
    answers_at_once = true;
    settings.dns_max_ttl_us = 1000 * US_PER_S;
    dns_configure(&dns, &settings, now_us);
    for (unsigned i = 0; i < DNS_HOSTS_MAX; i++) {
        snprintf(name, sizeof(name), "db%u.example", i);
        pass(1);
        resolve(&one, name);
    }
    pass(1);
    resolve(&one, "db0.example");
    pass(1);
    resolve(&one, "one.more");
    assert_int_equal(dns.host_count, DNS_HOSTS_MAX);
    asked_count = 0;
    resolve(&one, "db0.example");
    assert_int_equal(asked_count, 0);
    resolve(&one, "db1.example");
    assert_int_equal(asked_count, 1);
}

static void more_names_than_there_is_room_for_are_refused(void **state)
{
    static struct resolution waiting[DNS_HOSTS_MAX];
    struct resolution one;
    char name[32];

    (void)state;
    for (unsigned i = 0; i < DNS_HOSTS_MAX; i++) {
        snprintf(name, sizeof(name), "db%u.example", i);
        resolve(&waiting[i], name);
    }
    resolve(&one, "one.more");
    assert_int_equal(replied_count, 1);
    assert_int_equal(one.answer.address_count, 0);
    assert_string_equal(one.answer.error, "too many lookups are waiting");
    for (unsigned i = 0; i < DNS_HOSTS_MAX; i++)
        answer_both(asked[i], "a", NULL);
}

static void questions_that_nobody_waits_for_are_bounded_too(void **state)
{
    struct resolution one;
    unsigned open;

    (void)state;
    settings.dns_nxdomain_ttl_us = 0;
    dns_configure(&dns, &settings, now_us);
    for (open = 0; open < DNS_QUESTIONS_MAX; open++) {
        resolve(&one, "db.example");
        pass(10 * US_PER_S + 2000);
        assert_int_equal(replied_count, 1);
    }
    assert_int_equal(dns.question_count, DNS_QUESTIONS_MAX);
    resolve(&one, "db.example");
    assert_int_equal(asked_count, DNS_QUESTIONS_MAX);
    assert_int_equal(replied_count, 1);
    assert_string_equal(one.answer.error, "too many lookups are waiting");
    for (open = 0; open < asked_count; open++)
        answer_both(asked[open], "a", NULL);
    assert_int_equal(dns.question_count, 0);
}

static void a_name_that_is_forgotten_leaves_its_zone(void **state)
{
    struct resolution one;

    (void)state;
    begin_zone(&one);
    dns_release(&dns);
    assert_int_equal(dns.zone_count, 0);
    dns_init(&dns, &ports, NULL, &settings, now_us);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(who_asks_meanwhile_shares_the_question),
        TEST(an_answer_holds_until_its_time_is_over),
        TEST(a_failure_holds_until_its_own_time_is_over_or_reload),
        TEST(other_times_hold_for_what_is_known),
        TEST(an_address_that_is_gone_is_told),
        TEST(a_failure_in_between_hides_no_change),
        TEST(a_family_without_a_clear_answer_keeps_what_it_had),
        TEST(silence_ends_in_time_and_is_asked_again),
        TEST(an_answer_may_come_at_once),
        TEST(more_addresses_than_we_keep_are_always_the_same_ones),
        TEST(a_new_serial_looks_the_hosts_up_again),
        TEST(an_answer_from_before_the_new_serial_is_doubted),
        TEST(zones_come_and_go_with_the_setting),
        TEST(the_name_that_was_not_asked_for_longest_makes_room),
        TEST(more_names_than_there_is_room_for_are_refused),
        TEST(questions_that_nobody_waits_for_are_bounded_too),
        TEST(a_name_that_is_forgotten_leaves_its_zone),
    };

    log_set_level(LEVEL_FATAL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
