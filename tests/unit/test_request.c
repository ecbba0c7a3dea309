/* One control asks three workers that the test plays: everybody at once, and nothing is told before
 * the last one has answered. */
#include "unit.h"

#include "control/request.h"

enum { WORKERS = 3 };

static struct letter *posted[WORKERS][8]; /* in the order of their mailboxes */
static unsigned posted_count[WORKERS];
static struct requests requests;
static struct request *done_request;
static unsigned done_count;

static void post(void *context, unsigned worker, struct letter *letter)
{
    assert_ptr_equal(context, &requests);
    assert_true(worker < WORKERS);
    posted[worker][posted_count[worker]++] = letter;
}

static struct letter *next_of(unsigned worker)
{
    struct letter *letter;

    assert_true(posted_count[worker] > 0);
    letter = posted[worker][0];
    posted_count[worker]--;
    memmove(&posted[worker][0], &posted[worker][1], posted_count[worker] * sizeof(letter));
    return letter;
}

static void request_was_done(struct request *request)
{
    done_request = request;
    done_count++;
}

static int setup(void **state)
{
    (void)state;
    memset(posted_count, 0, sizeof(posted_count));
    done_request = NULL;
    done_count = 0;
    requests_init(&requests, WORKERS, post, &requests);
    return 0;
}

static struct command *command_of(unsigned worker)
{
    return OWNER_OF(next_of(worker), struct command, letter);
}

static void answer_command(struct command *command, bool found)
{
    command->found = found;
    command->answered(&command->letter, NULL);
}

static struct report *report_of(unsigned worker)
{
    return OWNER_OF(next_of(worker), struct report, letter);
}

/* The worker has `count` more rows, of which the first has this id. */
static void answer_sockets(struct report *report, uint64_t first_id, uint32_t count, bool more)
{
    assert_true(count <= report->row_max);
    for (uint32_t i = 0; i < count; i++)
        report->rows.sockets[i] = (struct socket_row){.id = first_id + i, .state = "idle"};
    report->row_count = count;
    report->cursor += count;
    report->more = more;
    report->answered(&report->letter, NULL);
}

static void test_a_command_is_at_all_workers_before_any_answers(void **state)
{
    struct request *request = request_make(&requests, &requests, request_was_done);
    struct command *commands[WORKERS];

    (void)state;
    request->command.kind = COMMAND_KILL_CLIENT;
    request->command.id = 77;
    request_command(request);
    for (unsigned i = 0; i < WORKERS; i++) {
        commands[i] = command_of(i);
        assert_int_equal(commands[i]->kind, COMMAND_KILL_CLIENT);
        assert_int_equal(commands[i]->id, 77);
        assert_ptr_equal(commands[i]->letter.open, command_open);
    }
    answer_command(commands[2], false);
    answer_command(commands[0], true);
    assert_int_equal(done_count, 0);
    answer_command(commands[1], false);
    assert_int_equal(done_count, 1);
    assert_true(request->found);
    request_release(request);
}

static void test_found_is_forgotten_with_the_next_command(void **state)
{
    struct request *request = request_make(&requests, &requests, request_was_done);

    (void)state;
    request->command.kind = COMMAND_KILL_CLIENT;
    for (int round = 0; round < 2; round++) {
        request_command(request);
        for (unsigned i = 0; i < WORKERS; i++)
            answer_command(command_of(i), round == 0);
        assert_int_equal(request->found, round == 0);
    }
    assert_int_equal(done_count, 2);
    request_release(request);
}

static void test_orders_reach_every_worker_in_the_same_order(void **state)
{
    struct request *pause = request_make(&requests, &requests, request_was_done);
    struct request *resume = request_make(&requests, &requests, request_was_done);

    (void)state;
    pause->command.kind = COMMAND_PAUSE;
    resume->command.kind = COMMAND_RESUME;
    request_command(pause);
    request_command(resume);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct command *first = command_of(i);
        struct command *second = command_of(i);

        assert_int_equal(first->kind, COMMAND_PAUSE);
        assert_int_equal(second->kind, COMMAND_RESUME);
        answer_command(first, false);
        answer_command(second, false);
    }
    assert_int_equal(done_count, 2);
    request_release(pause);
    request_release(resume);
}

static void test_rows_stand_in_the_order_of_workers_whoever_answers_first(void **state)
{
    struct request *request = request_make(&requests, &requests, request_was_done);
    const struct socket_row *rows;

    (void)state;
    request_report(request, REPORT_SERVERS);
    answer_sockets(report_of(2), 200, 2, false);
    answer_sockets(report_of(0), 0, 3, false);
    assert_int_equal(done_count, 0);
    answer_sockets(report_of(1), 100, 0, false);
    assert_int_equal(done_count, 1);
    assert_int_equal(request->row_count, 5);
    rows = request->rows;
    assert_int_equal(rows[0].id, 0);
    assert_int_equal(rows[2].id, 2);
    assert_int_equal(rows[3].id, 200);
    assert_int_equal(rows[4].id, 201);
    /* Asked again, it begins anew. */
    request_report(request, REPORT_SERVERS);
    for (unsigned i = 0; i < WORKERS; i++)
        answer_sockets(report_of(i), i, 1, false);
    assert_int_equal(request->row_count, 3);
    request_release(request);
}

static void test_a_long_table_comes_in_pieces(void **state)
{
    struct request *request = request_make(&requests, &requests, request_was_done);
    const struct socket_row *rows;
    uint64_t given = 0;

    (void)state;
    request_report(request, REPORT_CLIENTS);
    answer_sockets(report_of(0), 100000, 1, false);
    answer_sockets(report_of(2), 200000, 1, false);
    for (int piece = 0; piece < 9; piece++) {
        struct report *report = report_of(1);

        assert_int_equal(report->cursor, given);
        assert_true(report->row_max > 0);
        given += report->row_max;
        answer_sockets(report, given - report->row_max, report->row_max, piece < 8);
    }
    assert_int_equal(done_count, 1);
    assert_int_equal(request->row_count, given + 2);
    rows = request->rows;
    assert_int_equal(rows[0].id, 100000);
    for (uint64_t i = 0; i < given; i++)
        assert_int_equal(rows[1 + i].id, i);
    assert_int_equal(rows[given + 1].id, 200000);
    request_release(request);
}

static void test_counts_are_summed(void **state)
{
    struct request *request = request_make(&requests, &requests, request_was_done);

    (void)state;
    for (int round = 0; round < 2; round++) {
        strcpy(request->database, "app");
        request_report(request, REPORT_COUNTS);
        for (unsigned i = 0; i < WORKERS; i++) {
            struct report *report = report_of(i);
            unsigned *counts = (unsigned *)(void *)&report->counts;

            assert_string_equal(report->database, "app");
            for (size_t k = 0; k < sizeof(struct core_counts) / sizeof(unsigned); k++)
                counts[k] = (unsigned)(10 * (i + 1) + k);
            report->answered(&report->letter, NULL);
        }
        for (size_t k = 0; k < sizeof(struct core_counts) / sizeof(unsigned); k++)
            assert_int_equal(((unsigned *)(void *)&request->counts)[k], 60 + 3 * k);
    }
    request_release(request);
}

static void test_who_has_gone_is_told_nothing(void **state)
{
    struct request *request = request_make(&requests, &requests, request_was_done);
    struct report *report;

    (void)state;
    request_report(request, REPORT_SERVERS);
    answer_sockets(report_of(0), 0, 1, false);
    answer_sockets(report_of(1), 0, 1, false);
    request->owner = NULL;
    /* No more pieces for nobody. The request frees itself (the sanitizer would tell). */
    report = report_of(2);
    answer_sockets(report, 0, report->row_max, true);
    assert_int_equal(done_count, 0);
    assert_int_equal(posted_count[2], 0);
    /* The same while it waits. */
    request = request_make(&requests, &requests, request_was_done);
    request->kind = REPORT_COUNTS;
    request_again(request, 100);
    request->owner = NULL;
    requests_run(&requests, 100);
    assert_int_equal(posted_count[0], 0);
    assert_int_equal(requests_next_us(&requests), UINT64_MAX);
}

static void test_what_waits_is_asked_again_in_time(void **state)
{
    struct request *early = request_make(&requests, &requests, request_was_done);
    struct request *late = request_make(&requests, &requests, request_was_done);

    (void)state;
    early->kind = late->kind = REPORT_COUNTS;
    assert_int_equal(requests_next_us(&requests), UINT64_MAX);
    request_again(late, 300);
    request_again(early, 200);
    assert_int_equal(requests_next_us(&requests), 200);
    requests_run(&requests, 199);
    assert_int_equal(posted_count[0], 0);
    requests_run(&requests, 250);
    assert_int_equal(posted_count[0], 1);
    assert_int_equal(requests_next_us(&requests), 300);
    requests_run(&requests, 300);
    assert_int_equal(posted_count[0], 2);
    for (unsigned i = 0; i < WORKERS; i++)
        for (int k = 0; k < 2; k++) {
            struct report *report = report_of(i);

            report->answered(&report->letter, NULL);
        }
    assert_int_equal(done_count, 2);
    request_release(early);
    request_release(late);
}

static void test_every_worker_gets_a_reference_of_the_same_configuration(void **state)
{
    struct request *request = request_make(&requests, &requests, request_was_done);
    struct snapshot snapshot = {0};

    (void)state;
    atomic_init(&snapshot.references, 1);
    request->command.kind = COMMAND_SNAPSHOT;
    request->command.snapshot = &snapshot;
    request_command(request);
    assert_int_equal(atomic_load(&snapshot.references), 1 + WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct command *command = command_of(i);

        assert_ptr_equal(command->snapshot, &snapshot);
        command->snapshot = NULL;
        answer_command(command, false);
    }
    assert_int_equal(done_count, 1);
    request_release(request);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(test_a_command_is_at_all_workers_before_any_answers),
        TEST(test_found_is_forgotten_with_the_next_command),
        TEST(test_orders_reach_every_worker_in_the_same_order),
        TEST(test_rows_stand_in_the_order_of_workers_whoever_answers_first),
        TEST(test_a_long_table_comes_in_pieces),
        TEST(test_counts_are_summed),
        TEST(test_who_has_gone_is_told_nothing),
        TEST(test_what_waits_is_asked_again_in_time),
        TEST(test_every_worker_gets_a_reference_of_the_same_configuration),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
