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

static void expect_lost(const char *script, bool is_lost)
{
    struct exchange exchange = play(script);

    if (exchange.is_lost != is_lost)
        fail_msg("%s: lost %d", script, exchange.is_lost);
    if (exchange.is_lost && !exchange.is_uncertain)
        fail_msg("%s: lost, but not uncertain", script);
}

static void test_lost_is_where_nobody_knows_what_an_answer_belongs_to(void **state)
{
    (void)state;
    expect_lost("Q <CZ", false);
    expect_lost("PBES PBES <12EZ 12CZ", false);
    expect_lost("PBDES <12nG> dd c S <CZ", false);
    expect_lost("PBDES <12nG> d <E> c S <Z", false);
    /* Something else than the end of the COPY, while the server reads COPY data. */
    expect_lost("Q <G> Q", true);
    expect_lost("Q <G> F", true);
    expect_lost("Q <G> P", true);
    expect_lost("Q <G> B", true);
    expect_lost("Q <G> D", true);
    expect_lost("Q <G> E", true);
    expect_lost("Q <G> C", true);
    expect_lost("Q <G> dHS", false);
    /* The same was on its way when the COPY began. */
    expect_lost("QQ <G", true);
    expect_lost("Q PBES <G", true);
    expect_lost("PBES PBES <12G", true);
    expect_lost("PBES c PBES <12G", false);
    /* A COPY that nobody asked for. */
    expect_lost("<G", true);
    expect_lost("S <ZG", true);
    /* A Query behind an open batch: run or skipped, when the error comes. */
    expect_lost("PB Q <12E", true);
    expect_lost("PB Q <12C", false);
    expect_lost("PBES Q <12E", false);
}

static void test_what_a_failed_batch_skips_is_owed_nothing(void **state)
{
    struct exchange exchange = play("PB <1E");

    (void)state;
    assert_true(exchange.is_skipping);
    assert_false(exchange_sent(&exchange, 'Q'));
    assert_false(exchange_sent(&exchange, 'F'));
    assert_true(exchange_is_open(&exchange)); /* until its Sync */
    assert_int_equal(exchange_owed(&exchange), 0);
    assert_true(exchange_sent(&exchange, 'S'));
    assert_false(exchange.is_skipping);
    assert_true(exchange_sent(&exchange, 'Q'));
    assert_int_equal(exchange_owed(&exchange), 2);
    expect("PB <1E> QS <Z", true, false);
    expect("PB <1E> QFPBEQS Q <ZCZ", true, false);
    /* The error was that of a batch before, or of a Query. */
    assert_false(play("PBES PB <12E").is_skipping);
    assert_false(play("Q PB <E").is_skipping);
    assert_false(play("Q <E").is_skipping);
    expect("PBES PB <12E> Q <Z12CZ", true, false);
}

static void test_each_type_says_whether_it_is_owed_an_answer(void **state)
{
    struct exchange exchange = play("");

    (void)state;
    for (const char *type = "PBDECHdcf"; *type != '\0'; type++)
        assert_false(exchange_sent(&exchange, (uint8_t)*type));
    assert_true(exchange_sent(&exchange, 'S'));
    assert_true(exchange_sent(&exchange, 'Q'));
    assert_true(exchange_sent(&exchange, 'F'));
    exchange = play("Q <G");
    assert_false(exchange_sent(&exchange, 'S')); /* thrown away */
}

static void test_a_batch_is_open_behind_the_end_of_a_copy(void **state)
{
    static const char *const open[] = {"P", "PBE <12C", "PBE c", "PBE f", "PBE dddcc", "Q PBE c",
                                       "PBES PBE c"};
    static const char *const closed[] = {"", "Q", "PBES", "PBES c", "PBE c S", "Q c", "PBE <12C> S <Z"};
    struct exchange exchange;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(open); i++) {
        exchange = play(open[i]);
        assert_true(exchange_is_open(&exchange));
    }
    for (size_t i = 0; i < COUNT_OF(closed); i++) {
        exchange = play(closed[i]);
        assert_false(exchange_is_open(&exchange));
    }
    /* So its Sync is none without a batch. */
    exchange = play("PBE c S");
    assert_int_equal(exchange.runs[exchange.run_count - 1].kind, RUN_SYNC);
    exchange = play("Q S");
    assert_int_equal(exchange.runs[exchange.run_count - 1].kind, RUN_BARE_SYNC);
}

static void expect_surplus(const char *script, bool has_surplus)
{
    struct exchange exchange = play(script);

    if (exchange_has_surplus(&exchange) != has_surplus)
        fail_msg("%s: surplus %d", script, exchange_has_surplus(&exchange));
}

/* The Sync that COPY IN was thought to have thrown away was read after all. */
static void test_a_bare_answer_belongs_to_no_batch_that_has_messages(void **state)
{
    struct exchange exchange;

    (void)state;
    /* COPY fails, its Sync is answered; then comes that of CopyDone's, with the next batch behind. */
    expect_surplus("PBES <12GE> c S PBES <Z", true);
    expect_surplus("PBES <12GE> c S PBES <Z1", false);
    expect_surplus("PBES <12GE> c S Q <Z", true);
    expect_surplus("PBES <12GE> c S Q <ZC", false);
    expect_surplus("PBES <12GE> c S S <Z", false); /* a Sync that has no batch has no other answer */
    expect_surplus("PBES <12GE> c S <Z", false);   /* nothing is owed */
    expect_surplus("PBES PBES <12CZ", false);      /* no COPY */
    exchange = play("PBES <12GE> c S PBES <ZZ");
    assert_int_equal(exchange_owed(&exchange), 1);
    exchange = play("PBES <12GE> c S PBES <ZZ12CZ");
    assert_int_equal(exchange_owed(&exchange), 0);
    assert_true(exchange_is_answered(&exchange));
    exchange = play("PBES <12GE> c S PBES <Z12CZ");
    assert_true(exchange_is_answered(&exchange));
}

/* All that answers is told only as long as it matters. */
static void test_all_answers_are_wanted_while_a_sync_may_have_been_thrown_away(void **state)
{
    struct exchange exchange = play("PBES <1");

    (void)state;
    assert_false(exchange_wants_all(&exchange));
    exchange = play("PBES <12G");
    assert_true(exchange_wants_all(&exchange));
    exchange = play("Q <G> c <CZ");
    assert_false(exchange_wants_all(&exchange));
    exchange_reset(&exchange);
    assert_false(exchange_wants_all(&exchange));
}

/* Found by the fuzzer: it outlived the ReadyForQuery, and no Query was counted from then on. */
static void test_skipping_is_over_with_the_answer_to_the_sync(void **state)
{
    struct exchange exchange = play("PBES <12GE");

    (void)state;
    exchange_received(&exchange, 'Z');
    assert_false(exchange.is_skipping);
    assert_true(exchange_sent(&exchange, 'Q'));
    assert_int_equal(exchange_owed(&exchange), 1);
}

/* Found by the fuzzer. */
static void test_a_query_behind_the_end_of_a_copy_in_a_batch_that_fails_is_lost(void **state)
{
    (void)state;
    expect_lost("PBE c Q <12E", true);
    expect_lost("PBE c PB Q <12E", true);
    expect_lost("PBE c <12E", false);
    assert_true(play("PBE c <12E").is_skipping);
}

/* START_REPLICATION: CopyData both ways, CopyDone from both, and then what ends the Query. */
static void test_copy_both_ends_with_the_query_that_began_it(void **state)
{
    struct exchange exchange;

    (void)state;
    expect("Q <W", false, false);
    expect("Q <Wdd> dd <d> d", false, false);
    expect("Q <Wdd> dc <dc", false, false);
    expect("Q <Wdd> dc <dcCCZ", true, false);
    expect("Q <Wddc> dc <CCZ", true, false);       /* the server ends first */
    expect("Q <Wdd> f <EZ", true, false);          /* CopyFail */
    expect("Q <Wd> d <E> dc <Z", true, false);     /* it fails while the client still sends */
    expect("Q <Wc> c <TDCCZ> Q <W", false, false); /* physical: the next timeline */
    expect("Q <Wc> c <TDCCZ> Q <WdcC> c <CZ", true, false);
    assert_true(play("Q <W").in_copy_both);
    assert_true(play("Q <Wd> d").in_copy_both);
    assert_false(play("Q <W> c").in_copy_both);
    assert_false(play("Q <WE").in_copy_both);
    assert_false(play("Q <WE").in_copy_in);
    assert_false(play("Q <W").in_copy_in); /* a Sync is not thrown away */
    exchange = play("Q <W> S");
    assert_int_equal(exchange_owed(&exchange), 2);
}

static void test_copy_both_that_nobody_asked_for_is_lost(void **state)
{
    (void)state;
    expect_lost("<W", true);
    expect_lost("S <W", true);
    expect_lost("PBES <12W", true);
    expect_lost("QQ <W", true);
    expect_lost("Q <W> Q", true);
    expect_lost("Q <W> dcQ", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_both_ends_with_the_query_that_began_it),
        cmocka_unit_test(test_copy_both_that_nobody_asked_for_is_lost),
        cmocka_unit_test(test_lost_is_where_nobody_knows_what_an_answer_belongs_to),
        cmocka_unit_test(test_what_a_failed_batch_skips_is_owed_nothing),
        cmocka_unit_test(test_each_type_says_whether_it_is_owed_an_answer),
        cmocka_unit_test(test_a_batch_is_open_behind_the_end_of_a_copy),
        cmocka_unit_test(test_a_bare_answer_belongs_to_no_batch_that_has_messages),
        cmocka_unit_test(test_all_answers_are_wanted_while_a_sync_may_have_been_thrown_away),
        cmocka_unit_test(test_skipping_is_over_with_the_answer_to_the_sync),
        cmocka_unit_test(test_a_query_behind_the_end_of_a_copy_in_a_batch_that_fails_is_lost),
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
