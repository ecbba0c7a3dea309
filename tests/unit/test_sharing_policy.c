/* The policy finds how many servers to keep busy: on model machines, whose best number is found by trying them all. */
#include "sharing_model.h"

static struct model model;

/* ---- what it is told ---- */

static void test_the_limit_is_what_the_operator_says(void **state)
{
    struct sharing_policy policy = {0};

    (void)state;
    sharing_policy_set(&policy, 5, 10);
    assert_int_equal(policy.limit, 5);
    for (uint64_t now_us = 1; now_us < 10 * US_PER_S; now_us += 50) {
        sharing_policy_answered(&policy, now_us, 50, 40, 5, 64);
        assert_int_equal(policy.limit, 5);
    }
    sharing_policy_set(&policy, 50, 10);
    assert_int_equal(policy.limit, 10);
    sharing_policy_set(&policy, SHARING_OFF, 10);
    assert_int_equal(policy.limit, 10);
}

static void test_the_limit_stays_within_pool_size_when_that_changes(void **state)
{
    struct sharing_policy policy = {0};

    (void)state;
    sharing_policy_set(&policy, SHARING_AUTO, 1);
    assert_int_equal(policy.limit, 1);
    for (uint64_t now_us = 1; now_us < 10 * US_PER_S; now_us += 50) {
        unsigned ceiling = now_us < 5 * US_PER_S ? 1 : 3;

        if (ceiling != policy.ceiling)
            sharing_policy_set(&policy, SHARING_AUTO, ceiling);
        sharing_policy_answered(&policy, now_us, 50, 40, policy.limit, 64);
        assert_in_range(policy.limit, 1, ceiling);
        if (ceiling > 1)
            assert_in_range(policy.limit, 2, ceiling);
    }
    policy.base = 3;
    sharing_policy_set(&policy, SHARING_AUTO, 2);
    assert_int_equal(policy.limit, 2);
}

static void test_what_was_learned_survives_a_reload(void **state)
{
    struct sharing_policy policy = {0};

    (void)state;
    sharing_policy_set(&policy, SHARING_AUTO, 10);
    policy.base = 7;
    sharing_policy_set(&policy, SHARING_OFF, 10);
    sharing_policy_set(&policy, SHARING_AUTO, 20);
    assert_int_equal(policy.limit, 7);
}

/* ---- trials ---- */

static void test_shards_try_the_same_at_the_same_time(void **state)
{
    struct sharing_policy one = {0}, other = {0};
    uint64_t seed = 1;
    unsigned tried_more = 0, tried_fewer = 0, steps = 0;

    (void)state;
    sharing_policy_set(&one, SHARING_AUTO, 20);
    sharing_policy_set(&other, SHARING_AUTO, 20);
    one.base = other.base = 8;
    for (uint64_t now_us = 1; now_us < US_PER_S / 4; now_us += 20) {
        sharing_policy_answered(&one, now_us, 100, 40, 8, 64);
        sharing_policy_answered(&other, now_us + random_below(&seed, 20), 100, 40, 8, 64);
        if (one.base == 8 && other.base == 8 && one.slot == other.slot) {
            assert_int_equal(one.limit, other.limit);
            tried_more += one.limit > 8;
            tried_fewer += one.limit < 8;
            steps++;
        }
    }
    assert_true(tried_more > steps / 8);
    assert_true(tried_fewer > steps / 8);
}

/* Whatever the rhythm of the load, it is not that of the trials. */
static void test_the_trial_comes_first_in_half_of_the_pairs(void **state)
{
    struct sharing_policy policy = {0};
    unsigned first = 0, second = 0;
    uint64_t last_slot = 0;
    bool last_was_trial = false;

    (void)state;
    sharing_policy_set(&policy, SHARING_AUTO, 20);
    for (uint64_t now_us = US_PER_S; now_us < 21 * US_PER_S; now_us += 100) {
        bool is_odd;

        policy.base = 8;
        memset(policy.trials, 0, sizeof(policy.trials));
        sharing_policy_answered(&policy, now_us, 100, 40, 8, 64);
        is_odd = (policy.slot & 1) != 0;
        if (policy.slot != last_slot && policy.limit != 8) {
            *(is_odd ? &second : &first) += 1;
            /* Never both. */
            assert_false(is_odd && last_was_trial);
        }
        last_slot = policy.slot;
        last_was_trial = policy.limit != 8;
    }
    assert_true(first > 200 && second > 200);
    assert_in_range(first * 100 / (first + second), 45, 55);
}

static void test_few_answers_move_nothing(void **state)
{
    struct sharing_policy policy = {0};

    (void)state;
    sharing_policy_set(&policy, SHARING_AUTO, 20);
    policy.base = 5;
    for (uint64_t now_us = 1; now_us < 600 * US_PER_S; now_us += 100 * US_PER_MS) {
        sharing_policy_answered(&policy, now_us, 100, 40, 1, 1);
        assert_int_equal(policy.base, 5);
    }
}

/* ---- how many may queue on one server ---- */

static void test_the_queue_is_bounded_by_time_until_trials_have_found_the_limit(void **state)
{
    struct sharing_policy policy = {0};

    (void)state;
    sharing_policy_set(&policy, SHARING_AUTO, 10);
    assert_true(sharing_policy_has_room(&policy, 1000, 40, 40 * 30.0f));
    assert_false(sharing_policy_has_room(&policy, 1000, 5, 5 * 500.0f));
    for (uint64_t now_us = 1; now_us < US_PER_S / 2; now_us += 50)
        sharing_policy_answered(&policy, now_us, 50, 40, policy.limit, 64);
    assert_true(sharing_policy_has_room(&policy, US_PER_S, 5, 5 * 500.0f));
    assert_true(sharing_policy_has_room(&policy, US_PER_S, SHARING_DEPTH_MAX - 1, 1e6f));
    assert_false(sharing_policy_has_room(&policy, US_PER_S, SHARING_DEPTH_MAX, 0));
    /* It is forgotten. */
    assert_false(sharing_policy_has_room(&policy, 10 * US_PER_S, 5, 5 * 500.0f));
    /* A number is an order. */
    sharing_policy_set(&policy, 4, 10);
    assert_true(sharing_policy_has_room(&policy, 10 * US_PER_S, 5, 5 * 500.0f));
}

/* ---- what a slow answer means ---- */

static void test_what_everybody_waits_is_no_sign_of_a_slow_statement(void **state)
{
    struct sharing_policy policy = {0};
    uint64_t now_us = US_PER_S;

    (void)state;
    sharing_policy_set(&policy, SHARING_AUTO, 10);
    assert_false(sharing_policy_is_crowded(&policy, 2, 5000));
    /* More servers are busy than wanted. */
    assert_true(sharing_policy_is_crowded(&policy, 5, 5000));
    /* 64 wait, 4000 are answered in a second: 16 ms. */
    for (unsigned i = 0; i < 1000; i++)
        sharing_policy_answered(&policy, now_us += 250, 500, 40, 2, 64);
    assert_true(policy.wait_us > 15000 && policy.wait_us < 17000);
    assert_true(sharing_policy_is_crowded(&policy, 2, 30000));
    assert_false(sharing_policy_is_crowded(&policy, 2, SHARING_CROWDED_US_MAX));
    /* A pool with little to do, 50 us each. */
    for (unsigned i = 0; i < 1000; i++)
        sharing_policy_answered(&policy, now_us += 100000, 50, 40, 1, 1);
    assert_true(policy.wait_us > 45 && policy.wait_us < 55);
    assert_false(sharing_policy_is_crowded(&policy, 1, 5000));
}

/* ---- machines ---- */

enum { SETTLE_S = 2, LOOK_S = 2 };

/* Where who wakes up waits for its turn, so that workers take much at a time: few servers are best. */
static const struct model_setup patient = {.cores = 2, .cache = 0.05, .credit_us = 0};
/* Where it gets a core at once, and workers take little at a time: some more are. */
static const struct model_setup hasty = {.cores = 2, .cache = 0.03, .credit_us = 3000};

static struct model_setup machine(const struct model_setup *base, unsigned clients, double cpu_us)
{
    struct model_setup setup = *base;

    setup.seed = 1;
    setup.shards = 2;
    setup.ceiling = 10;
    setup.clients = clients;
    setup.classes[0] = (struct model_class){.cpu_us = cpu_us, .weight = 1};
    setup.setting = SHARING_AUTO;
    return setup;
}

static double rate_with(const struct model_setup *setup, int setting)
{
    struct model_setup fixed = *setup;

    fixed.setting = setting;
    model_init(&model, &fixed);
    model_run(&model, 0.4);
    model_run(&model, 0.6);
    return model_rate(&model);
}

/* The best rate with a fixed limit; `*found`: with how many servers, all shards together. */
static double best_rate(const struct model_setup *setup, unsigned *found)
{
    static const unsigned tried[] = {2, 3, 4, 5, 6, 8, 10, 13, 16, 20};
    double best = 0;

    for (unsigned i = 0; i < COUNT_OF(tried) && tried[i] <= setup->ceiling; i++) {
        double rate = rate_with(setup, (int)tried[i]);

        if (rate > best) {
            best = rate;
            *found = tried[i] * setup->shards;
        }
    }
    return best;
}

static void say(const char *name, double best, unsigned found)
{
    print_message(
        "%-28s %7.0f/s, %3.0f %% of the best (limit %u), limit %.1f (%u to %u), busy %.1f, "
        "p99.9 %.0f us\n",
        name, model_rate(&model), 100 * model_rate(&model) / best, found, model_limit(&model),
        model.limit_min, model.limit_max, model_busy(&model), model_percentile_us(&model, 99.9));
}

/* After two seconds it is as good as the best fixed limit but for a few percent, and does not swing. */
static void settles_after(const char *name, const struct model_setup *setup, double part,
                          double seconds)
{
    unsigned found = 0;
    double best = best_rate(setup, &found);

    for (unsigned i = 0; i < 2; i++) {
        struct model_setup seeded = *setup;

        seeded.seed = 100 + i;
        model_init(&model, &seeded);
        model_run(&model, seconds);
        model_run(&model, LOOK_S);
        say(name, best, found);
        assert_true(model_rate(&model) > part * best);
        /* One step for each shard. */
        assert_true(model.limit_max - model.limit_min <= model.limit_max / 3 + setup->shards);
    }
}

static void settles(const char *name, const struct model_setup *setup, double part)
{
    settles_after(name, setup, part, SETTLE_S);
}

static void test_two_cores_that_all_share_need_few_servers(void **state)
{
    struct model_setup setup = machine(&patient, 64, 17);

    (void)state;
    settles("2 cores, 64 clients", &setup, 0.95);
    assert_true(model_busy(&model) >= 3 && model_busy(&model) <= 6.5);
    /* It matters: with a server for each client there is much less. */
    assert_true(rate_with(&setup, 10) < 0.8 * rate_with(&setup, 2));
    setup.clients = 200;
    settles("2 cores, 200 clients", &setup, 0.95);
    assert_true(model_busy(&model) >= 3 && model_busy(&model) <= 6.5);
    setup = machine(&hasty, 64, 17);
    settles("2 hasty cores, 64 clients", &setup, 0.94);
    assert_true(model_busy(&model) >= 3 && model_busy(&model) <= 8);
    setup.clients = 200;
    settles("2 hasty cores, 200 clients", &setup, 0.92);
    assert_true(model_busy(&model) >= 3 && model_busy(&model) <= 8);
}

static void test_one_shard_needs_few_servers(void **state)
{
    struct model_setup setup = machine(&patient, 64, 17);

    (void)state;
    setup.shards = 1;
    setup.ceiling = 20;
    settles("one shard", &setup, 0.92);
    assert_true(model_busy(&model) >= 2 && model_busy(&model) <= 6.5);
}

static void test_four_shards_on_eight_cores(void **state)
{
    struct model_setup setup = machine(&hasty, 64, 17);

    (void)state;
    setup.shards = 4;
    setup.cores = 8;
    setup.ceiling = 5;
    settles("8 cores, 4 shards", &setup, 0.94);
}

static void test_a_remote_server_with_many_cores_gets_more(void **state)
{
    struct model_setup setup = machine(&patient, 200, 17);

    (void)state;
    setup.cores = 4;
    setup.remote_cores = 32;
    setup.network_us = 200;
    setup.ceiling = 20;
    settles("32 remote cores", &setup, 0.95);
    assert_true(model_busy(&model) >= 8);
    setup.classes[0].cpu_us = 150;
    settles("32 remote cores, 150 us", &setup, 0.93);
    assert_true(model_busy(&model) >= 24);
    setup.network_us = 1000;
    setup.classes[0].cpu_us = 17;
    settles("1 ms away", &setup, 0.93);
}

static void test_statements_that_wait_for_a_disk_get_all_servers(void **state)
{
    struct model_setup setup = machine(&patient, 64, 50);

    (void)state;
    setup.cores = 16;
    setup.ceiling = 20;
    setup.classes[0].io_us = 400;
    settles("400 us of disk", &setup, 0.93);
    assert_true(model_busy(&model) >= 34);
    /* 1 ms of 1.2 ms: hardly followed. Few answers come, so slots are long. */
    setup.classes[0].io_us = 1000;
    setup.classes[0].cpu_us = 200;
    settles_after("1 ms of disk", &setup, 0.85, 2 * SETTLE_S);
    assert_true(model_busy(&model) >= 34);
}

static void test_eight_clients_are_served_as_well_as_with_a_server_each(void **state)
{
    const struct model_setup *machines[] = {&patient, &hasty};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct model_setup setup = machine(machines[i], 8, 17);
        double p50, p99;

        (void)rate_with(&setup, 10);
        p50 = model_percentile_us(&model, 50);
        p99 = model_percentile_us(&model, 99);
        settles("8 clients", &setup, 0.95);
        assert_true(model_percentile_us(&model, 50) <= p50 + 10);
        assert_true(model_percentile_us(&model, 99) <= p99 + 30);
    }
}

static void test_clients_that_pause_do_not_wait_for_a_low_limit(void **state)
{
    struct model_setup setup = machine(&patient, 64, 17);
    double p50;

    (void)state;
    setup.think_us = 2000;
    (void)rate_with(&setup, 10);
    p50 = model_percentile_us(&model, 50);
    settles("clients that pause", &setup, 0.97);
    assert_true(model_percentile_us(&model, 50) <= p50 + 10);
}

static void test_mixed_classes(void **state)
{
    struct model_setup setup = machine(&patient, 64, 17);

    (void)state;
    setup.classes[0].weight = 20;
    setup.classes[1] = (struct model_class){.cpu_us = 60, .weight = 5};
    setup.classes[2] = (struct model_class){.cpu_us = 300, .weight = 1};
    settles("mixed, 2 cores", &setup, 0.88);
    setup.cores = 16;
    setup.ceiling = 20;
    settles("mixed, 16 cores", &setup, 0.92);
}

static void test_backends_that_lose_their_core_now_and_then(void **state)
{
    struct model_setup setup = machine(&patient, 64, 17);

    (void)state;
    setup.hiccup_chance = 2e-4;
    settles("hiccups", &setup, 0.95);
    assert_true(model_busy(&model) <= 8);
}

static void test_demand_comes_and_goes(void **state)
{
    struct model_setup setup = machine(&patient, 200, 17);
    static const unsigned demand[] = {64, 8, 200, 16, 64};

    (void)state;
    model_init(&model, &setup);
    for (unsigned i = 0; i < COUNT_OF(demand); i++) {
        struct model_setup alike = setup;
        unsigned found = 0;
        double best, rate, busy;

        model_demand(&model, demand[i], 0);
        model_run(&model, SETTLE_S);
        model_run(&model, LOOK_S);
        rate = model_rate(&model);
        busy = model_busy(&model);
        {
            static struct model kept;

            kept = model;
            alike.clients = demand[i];
            best = best_rate(&alike, &found);
            model = kept;
        }
        print_message("%u clients: %.0f/s, %.0f %% of the best, busy %.1f\n", demand[i], rate,
                      100 * rate / best, busy);
        assert_true(rate > 0.94 * best);
        assert_true(busy <= 7.5);
    }
}

/* Two programs that compute all the time take half of the machine for two seconds. */
static void test_other_load_comes_and_goes(void **state)
{
    struct model_setup setup = machine(&hasty, 64, 17);
    double before, during, after;

    (void)state;
    setup.others = 2;
    model_init(&model, &setup);
    model_run(&model, SETTLE_S);
    model_run(&model, LOOK_S);
    before = model_rate(&model);
    model_demand(&model, 64, 2);
    model_run(&model, SETTLE_S);
    model_run(&model, LOOK_S);
    during = model_rate(&model);
    say("beside others", before, 0);
    model_demand(&model, 64, 0);
    model_run(&model, SETTLE_S);
    model_run(&model, LOOK_S);
    after = model_rate(&model);
    say("others have gone", before, 0);
    assert_true(during > 0.4 * before);
    assert_true(after > 0.95 * before);
}

/* Ten programs that compute all the time: each answer takes milliseconds, whatever its statement. Sharing is worth
 * most there, and must not be lost, nor must it be for good if it was. */
static void test_a_machine_that_is_full_of_others_does_not_end_sharing(void **state)
{
    const struct model_setup *machines[] = {&patient, &hasty};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct model_setup setup = machine(machines[i], 64, 17);
        double alone;

        setup.others = 10;
        setup.setting = 10;
        model_init(&model, &setup);
        model_demand(&model, 64, 10);
        model_run(&model, SETTLE_S);
        model_run(&model, LOOK_S);
        alone = model_rate(&model);
        say("full, all servers", alone, 20);
        setup.setting = SHARING_AUTO;
        model_init(&model, &setup);
        model_demand(&model, 64, 10);
        model_run(&model, SETTLE_S);
        model_run(&model, LOOK_S);
        say("full", alone, 20);
        assert_true(model_rate(&model) > 0.95 * alone);
        assert_true(model_busy(&model) <= 10);
    }
}

/* Nothing in memory, then everything, then nothing again. */
static void test_statements_change_what_they_need(void **state)
{
    struct model_setup setup = machine(&patient, 64, 50);
    struct model_setup disk;
    double best, best_disk;
    unsigned found = 0, found_disk = 0;

    (void)state;
    setup.cores = 8;
    setup.ceiling = 20;
    disk = setup;
    disk.classes[0].io_us = 400;
    best = best_rate(&setup, &found);
    best_disk = best_rate(&disk, &found_disk);
    model_init(&model, &setup);
    for (unsigned i = 0; i < 4; i++) {
        model.setup.classes[0].io_us = i % 2 == 0 ? 400 : 0;
        model_run(&model, 2 * SETTLE_S);
        model_run(&model, LOOK_S);
        say(i % 2 == 0 ? "from disk" : "from memory", i % 2 == 0 ? best_disk : best,
            i % 2 == 0 ? found_disk : found);
        assert_true(model_rate(&model) > 0.9 * (i % 2 == 0 ? best_disk : best));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_limit_is_what_the_operator_says),
        cmocka_unit_test(test_the_limit_stays_within_pool_size_when_that_changes),
        cmocka_unit_test(test_what_was_learned_survives_a_reload),
        cmocka_unit_test(test_shards_try_the_same_at_the_same_time),
        cmocka_unit_test(test_the_trial_comes_first_in_half_of_the_pairs),
        cmocka_unit_test(test_few_answers_move_nothing),
        cmocka_unit_test(test_the_queue_is_bounded_by_time_until_trials_have_found_the_limit),
        cmocka_unit_test(test_what_everybody_waits_is_no_sign_of_a_slow_statement),
        cmocka_unit_test(test_two_cores_that_all_share_need_few_servers),
        cmocka_unit_test(test_one_shard_needs_few_servers),
        cmocka_unit_test(test_four_shards_on_eight_cores),
        cmocka_unit_test(test_a_remote_server_with_many_cores_gets_more),
        cmocka_unit_test(test_statements_that_wait_for_a_disk_get_all_servers),
        cmocka_unit_test(test_eight_clients_are_served_as_well_as_with_a_server_each),
        cmocka_unit_test(test_clients_that_pause_do_not_wait_for_a_low_limit),
        cmocka_unit_test(test_mixed_classes),
        cmocka_unit_test(test_backends_that_lose_their_core_now_and_then),
        cmocka_unit_test(test_demand_comes_and_goes),
        cmocka_unit_test(test_other_load_comes_and_goes),
        cmocka_unit_test(test_a_machine_that_is_full_of_others_does_not_end_sharing),
        cmocka_unit_test(test_statements_change_what_they_need),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
