/* What a server still owes, for every way in which a client may ask (pool/exchange.h). */
#include "unit.h"

#include "pool/exchange.h"

/* Lower: "client sends", then after '<' what the server answers; 'z' in the script stands for
 * ReadyForQuery. */
static struct exchange play(const char *script)
{
    struct exchange exchange;
    bool from_server = false;

    exchange_reset(&exchange);
    for (; *script != '\0'; script++) {
        if (*script == '<')
            from_server = true;
        else if (*script == '>')
            from_server = false;
        else if (*script != ' ' && from_server)
            exchange_received(&exchange, (uint8_t)*script);
        else if (*script != ' ')
            exchange_sent(&exchange, (uint8_t)*script);
    }
    return exchange;
}

static void expect(const char *script, bool answered, bool uncertain)
{
    struct exchange exchange = play(script);

    if (exchange_is_answered(&exchange) != answered || exchange.is_uncertain != uncertain)
        fail_msg("%s: answered %d, uncertain %d", script, exchange_is_answered(&exchange),
                 exchange.is_uncertain);
}

static void test_each_query_and_sync_is_answered_once(void **state)
{
    (void)state;
    expect("", true, false);
    expect("Q", false, false);
    expect("Q <TDCZ", true, false);
    expect("QQQ <CZCZ", false, false);
    expect("QQQ <CZCZCZ", true, false);
    expect("F <VZ", true, false);
    expect("S <Z", true, false);
    expect("PBDES <12TDCZ", true, false);
    expect("PBES PBES <12CZ", false, false);
    expect("PBES PBES <12CZ12CZ", true, false);
    expect("Q PBES Q <CZ12CZCZ", true, false);
}

static void test_open_batch_holds_the_server(void **state)
{
    (void)state;
    expect("P", false, false);
    expect("PBE <12C", false, false);
    expect("PBE <12C> S <Z", true, false);
    expect("Q PB <CZ", false, false);
    expect("Q PB <CZ> ES <12CZ", true, false);
    expect("PBES P <12CZ", false, false);
}

static void test_error_in_a_batch_is_over_with_its_sync(void **state)
{
    (void)state;
    expect("PBES <EZ", true, false);
    expect("PB <E> ES <Z", true, false);
    expect("PBES PBES <EZ", false, false);
    /* A Query in an open batch: skipped after an error, answered otherwise. */
    expect("PB Q <12CZ", true, false);
    expect("PB Q S <EZ", false, true);
}

static void test_copy_in_by_simple_query(void **state)
{
    (void)state;
    expect("Q <G> ddd", false, false);
    expect("Q <G> ddd c <CZ", true, false);
    expect("Q <G> ddd f <EZ", true, false);
    expect("Q <G> d <E> dd c <Z", true, false);
    /* Blindly ahead. */
    expect("Q ddc Q <GCZ", false, false);
    expect("Q ddc Q <GCZ CZ", true, false);
}

static void test_copy_in_throws_syncs_away(void **state)
{
    (void)state;
    /* libpq's PQexecParams: a Sync behind Execute, another after CopyDone. */
    expect("PBDES <12nG> dd c S <CZ", true, false);
    expect("PBDES <12nG> dd", false, false);
    expect("PBDE <12nG> S dd c S <CZ", true, false);
    expect("PBDES ddcS <12nG CZ", true, false);
    /* An error may have come before or behind the Sync that we took for thrown away. */
    expect("PBDES <12nG> d <E> c S <Z", true, true);
    expect("PBDES <12nGEZ", true, true);
}

static void test_nonsense_is_uncertain_never_lost(void **state)
{
    (void)state;
    expect("<Z", true, true);
    expect("<G", true, true);
    expect("Q <GZ", true, false);
    expect("Q <G> Q <EZ", false, true);
    expect("QQ <GEZ", false, true);
    expect("c", true, false);
    expect("Q c <CZ", true, false);
}

/* CopyDone may stand where the runs were used up: a Sync behind it must count (found by simulation,
 * seed 21598). */
static void test_copy_behind_a_long_pipeline_loses_no_sync(void **state)
{
    struct exchange exchange;

    (void)state;
    exchange_reset(&exchange);
    for (int i = 0; i < 20; i++) {
        exchange_sent(&exchange, 'Q');
        exchange_sent(&exchange, 'P');
        exchange_sent(&exchange, 'S');
    }
    exchange_sent(&exchange, 'Q'); /* COPY FROM STDIN */
    exchange_sent(&exchange, 'd');
    exchange_sent(&exchange, 'c');
    for (int i = 0; i < 40; i++)
        exchange_received(&exchange, 'Z');
    exchange_received(&exchange, 'G');
    exchange_sent(&exchange, 'P');
    exchange_sent(&exchange, 'S');
    exchange_received(&exchange, 'Z'); /* of the COPY */
    assert_false(exchange_is_answered(&exchange));
    exchange_received(&exchange, 'Z');
    assert_true(exchange_is_answered(&exchange));
}

/* However long and however mixed: as many answers as questions, not one fewer. */
static void test_long_mixed_pipelines_keep_their_count(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 2000; seed++) {
        struct exchange exchange;
        unsigned random = seed;
        unsigned asked = 0;

        exchange_reset(&exchange);
        for (unsigned i = 0; i < 100; i++) {
            random = random * 1103515245 + 12345;
            if ((random >> 16) % 3 == 0) {
                exchange_sent(&exchange, 'Q');
            } else {
                exchange_sent(&exchange, 'P');
                exchange_sent(&exchange, 'B');
                exchange_sent(&exchange, 'S');
            }
            asked++;
            if ((random >> 20) % 4 == 0) {
                exchange_received(&exchange, 'Z');
                asked--;
            }
            assert_int_equal(exchange_is_answered(&exchange), asked == 0);
        }
        for (; asked > 0; asked--) {
            assert_false(exchange_is_answered(&exchange));
            exchange_received(&exchange, 'Z');
        }
        assert_true(exchange_is_answered(&exchange));
        exchange_sent(&exchange, 'P');
        assert_false(exchange_is_answered(&exchange));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_query_and_sync_is_answered_once),
        cmocka_unit_test(test_open_batch_holds_the_server),
        cmocka_unit_test(test_error_in_a_batch_is_over_with_its_sync),
        cmocka_unit_test(test_copy_in_by_simple_query),
        cmocka_unit_test(test_copy_in_throws_syncs_away),
        cmocka_unit_test(test_nonsense_is_uncertain_never_lost),
        cmocka_unit_test(test_copy_behind_a_long_pipeline_loses_no_sync),
        cmocka_unit_test(test_long_mixed_pipelines_keep_their_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
