/* test_snapshot.c - the whole load: sections, duplicates, all mistakes at once, what applies to a
 * pool. */
#include "config_files.h"

#include <pthread.h>

static void a_minimal_file_has_the_defaults(void **state)
{
    struct snapshot *snapshot = load_silent("[pgbouncer]\n");

    (void)state;
    assert_int_equal(snapshot->settings.listen_port, 6432);
    assert_int_equal(snapshot->settings.auth_type, AUTH_MD5);
    assert_int_equal(snapshot->settings.query_wait_timeout_us, 120 * US_PER_S);
    assert_int_equal(snapshot->settings.worker_threads, 0);
    assert_string_equal(snapshot->settings.conffile, "t.ini");
    assert_string_equal(snapshot->settings.unix_socket_dir, "/tmp");
    assert_null(snapshot->settings.auth_file);
    assert_int_equal(snapshot->database_count, 0);
    assert_null(snapshot->auto_database);
    assert_null(snapshot_find_database(snapshot, "a"));
    assert_null(snapshot_find_user(snapshot, "a"));
    snapshot_release(snapshot);
}

static void sections_come_in_any_order_and_add_up(void **state)
{
    struct snapshot *snapshot =
        load_silent("[databases]\nb = host=b\n[pgsplice]\nworker_threads = 2\n[pgbouncer]\n"
                    "listen_port = 1\n[databases]\na = host=a\n[pgbouncer]\nmax_client_conn = 2\n");

    (void)state;
    assert_int_equal(snapshot->settings.listen_port, 1);
    assert_int_equal(snapshot->settings.max_client_conn, 2);
    assert_int_equal(snapshot->settings.worker_threads, 2);
    assert_int_equal(snapshot->database_count, 2);
    assert_string_equal(snapshot->databases[0].name, "a");
    assert_string_equal(snapshot->databases[1].name, "b");
    snapshot_release(snapshot);
}

static void sections_and_keys_have_to_be_known(void **state)
{
    (void)state;
    assert_mistake("", "there is no section [pgbouncer] in configuration (t.ini)");
    assert_mistake("[databases]\n", "there is no section [pgbouncer]");
    assert_mistake("[pgbouncer]\n[nix]\na = b\nc = d", "section [nix] is not known in "
                                                       "configuration (t.ini:2)");
    assert_mistake("[pgbouncer]\n[ databases ]", "not known");
    assert_mistake("[PgBouncer]\n", "[PgBouncer] is not known");
    assert_mistake("a = b\n[pgbouncer]\n", "\"a\" stands before any section");
    assert_mistake("[pgbouncer]\nListen_port = 1", "[pgbouncer] has no setting \"Listen_port\"");
    assert_mistake("[pgbouncer]\nworker_threads = 1", "has no setting \"worker_threads\"");
    assert_mistake("[pgbouncer]\n[pgsplice]\nlisten_port = 1", "[pgsplice] has no setting");
    assert_mistake("[pgbouncer]\n= 1", "has no setting \"\"");
}

static void all_mistakes_are_named(void **state)
{
    static struct reported reported;
    const struct test_file files[] = {
        {"t.ini", "[pgbouncer]\nfoo = 1\nlisten_port = x\nauth_type = nix\n%include inc\n"
                  "[databases]\na = port=0 pool_size=y nix=1\n[nix]\nx = y\n!\nfoo = 1\n"},
        {"inc", "max_client_conn = -1\n[\nmax_client_conn = -1\n"},
        {NULL, NULL},
    };
    static const char *const expected[] = {"(t.ini:2)", "(t.ini:3)", "(t.ini:4)", "(inc:1)",
                                           "(inc:2)",   "(t.ini:7)", "(t.ini:8)", "(t.ini:10)"};

    (void)state;
    assert_null(load_files(files, &reported));
    for (size_t index = 0; index < COUNT_OF(expected); index++)
        assert_reported(&reported, expected[index]);
    assert_int_equal(count_lines(reported.text, "ERROR "), 10);
    assert_int_equal(count_lines(reported.text, ""), 10);
}

static void reports_have_an_end(void **state)
{
    static struct reported reported;
    enum { LINES = CONFIG_MISTAKES_TOLD_MAX * 2 };
    char *text = malloc(LINES * 4 + 1);

    (void)state;
    for (size_t line = 0; line < LINES; line++)
        memcpy(text + line * 4, "a=b\n", 5);
    assert_null(load_text(text, &reported));
    assert_true(count_lines(reported.text, "") <= CONFIG_MISTAKES_TOLD_MAX + 1);
    free(text);
}

static void control_characters_do_not_reach_the_log(void **state)
{
    static struct reported reported;

    (void)state;
    assert_null(load_text("[pgbouncer]\n'\033[2J\x7f' = 1\nlisten_port = \033]0;x\a\n", &reported));
    assert_null(strchr(reported.text, '\033'));
    assert_null(strchr(reported.text, '\a'));
    assert_null(strchr(reported.text, '\x7f'));
}

static void the_last_duplicate_wins_with_a_warning(void **state)
{
    static struct reported reported;
    const struct test_file files[] = {
        {"t.ini", "%include other\n[pgbouncer]\nlisten_port = 2\n"},
        {"other", "[pgbouncer]\nlisten_port = 1\n"},
        {NULL, NULL},
    };
    struct snapshot *snapshot = load_files(files, &reported);

    (void)state;
    assert_non_null(snapshot);
    assert_string_equal(reported.text, "WARNING setting \"listen_port\" is given twice, this one "
                                       "replaces (other:2) in configuration (t.ini:3)\n");
    assert_int_equal(snapshot->settings.listen_port, 2);
    snapshot_release(snapshot);

    snapshot = load_warned("[pgbouncer]\n[databases]\na = host=x pool_size=1\na = host=y\n",
                           "database \"a\" is given twice, this one replaces (t.ini:3) in "
                           "configuration (t.ini:4)");
    assert_int_equal(snapshot->database_count, 1);
    assert_string_equal(snapshot->databases->host, "y");
    assert_int_equal(snapshot->databases->pool_size, -1); /* replaced, not merged */
    snapshot_release(snapshot);

    snapshot = load_warned("[pgbouncer]\n[databases]\n* = host=x\n* = host=y\n", "given twice");
    assert_string_equal(snapshot->auto_database->host, "y");
    snapshot_release(snapshot);

    snapshot = load_warned("[pgbouncer]\n[users]\na = pool_size=1\na = pool_mode=session\n",
                           "user \"a\" is given twice");
    assert_int_equal(snapshot->users->pool_size, -1);
    snapshot_release(snapshot);

    snapshot = load_text("[pgbouncer]\nverbose=1\nverbose=2\nverbose=3\n", &reported);
    assert_non_null(snapshot);
    assert_int_equal(count_lines(reported.text, "WARNING "), 2);
    assert_int_equal(snapshot->settings.verbose, 3);
    snapshot_release(snapshot);
}

static void the_star_entry_answers_for_names_not_listed(void **state)
{
    struct snapshot *snapshot =
        load_silent("[pgbouncer]\n[databases]\nb = host=b\na = host=a\n* = host=c port=1\n");
    char name[DATABASE_NAME_BYTES_MAX + 1];

    (void)state;
    assert_string_equal(snapshot_find_database(snapshot, "a")->host, "a");
    assert_string_equal(snapshot_find_database(snapshot, "b")->host, "b");
    assert_ptr_equal(snapshot_find_database(snapshot, "c"), snapshot->auto_database);
    assert_true(snapshot->auto_database->is_auto);
    assert_string_equal(snapshot->auto_database->dbname, "*");
    assert_int_equal(snapshot->database_count, 2);
    assert_null(snapshot_find_database(snapshot, "pgbouncer"));
    memset(name, 'x', sizeof(name));
    name[DATABASE_NAME_BYTES_MAX] = '\0';
    assert_null(snapshot_find_database(snapshot, name));
    name[DATABASE_NAME_BYTES_MAX - 1] = '\0';
    assert_non_null(snapshot_find_database(snapshot, name));
    snapshot_release(snapshot);
}

static void users_come_from_everywhere(void **state)
{
    static struct reported reported;
    const struct test_file files[] = {
        {"t.ini", "[pgbouncer]\nauth_file = u\nauth_user = global\n"
                  "[databases]\na = user=forced auth_user=asker\n* = user=joe\n"
                  "[users]\njoe = pool_size=1\nann = pool_size=2\n"},
        {"u", "\"joe\" \"1\"\n\"empty\" \"\"\n\"forced\" \"2\"\n"},
        {NULL, NULL},
    };
    struct snapshot *snapshot = load_files(files, &reported);

    (void)state;
    assert_non_null(snapshot);
    assert_int_equal(count_lines(reported.text, "ERROR"), 0);
    assert_int_equal(snapshot->user_count, 6);
    for (size_t index = 1; index < snapshot->user_count; index++)
        assert_true(strcmp(snapshot->users[index - 1].name, snapshot->users[index].name) < 0);
    assert_string_equal(snapshot_find_user(snapshot, "joe")->secret, "1");
    assert_int_equal(snapshot_find_user(snapshot, "joe")->pool_size, 1);
    assert_true(snapshot_find_user(snapshot, "joe")->is_in_auth_file);
    assert_string_equal(snapshot_find_user(snapshot, "ann")->secret, "");
    assert_false(snapshot_find_user(snapshot, "ann")->is_in_auth_file);
    assert_true(snapshot_find_user(snapshot, "empty")->is_in_auth_file);
    assert_string_equal(snapshot_find_user(snapshot, "forced")->secret, "2");
    assert_false(snapshot_find_user(snapshot, "asker")->is_in_auth_file);
    assert_false(snapshot_find_user(snapshot, "global")->is_in_auth_file);
    snapshot_release(snapshot);
}

static void user_beats_database_beats_global(void **state)
{
    struct snapshot *snapshot = load_silent(
        "[pgbouncer]\npool_mode=session\ndefault_pool_size=20\nmin_pool_size=9\n"
        "reserve_pool_size=1\nmax_db_connections=50\nmax_user_connections=60\n"
        "max_db_client_connections=70\nmax_user_client_connections=-1\nserver_lifetime=100\n"
        "query_timeout=1\nquery_wait_timeout=2\nidle_transaction_timeout=3\n"
        "transaction_timeout=4\nclient_idle_timeout=5\n[pgsplice]\nserver_sharing=6\n"
        "[databases]\nplain =\nown = pool_mode=transaction pool_size=5 min_pool_size=4 "
        "reserve_pool_size=2 max_db_connections=51 max_db_client_connections=71 "
        "server_lifetime=101 query_wait_timeout=12 server_sharing=off\nfree = pool_size=0\n"
        "[users]\nnone =\nown = pool_mode=statement pool_size=3 reserve_pool_size=0 "
        "max_user_connections=61 max_user_client_connections=81 query_timeout=11 "
        "query_wait_timeout=0 idle_transaction_timeout=13 transaction_timeout=14 "
        "client_idle_timeout=15 server_sharing=auto\n");
    const struct database_config *plain = snapshot_find_database(snapshot, "plain");
    const struct database_config *own = snapshot_find_database(snapshot, "own");
    const struct user_config *users[] = {NULL, snapshot_find_user(snapshot, "none")};
    struct pool_settings pool;

    (void)state;
    for (size_t index = 0; index < COUNT_OF(users); index++) {
        snapshot_pool_settings(snapshot, plain, users[index], &pool);
        assert_int_equal(pool.pool_mode, POOL_MODE_SESSION);
        assert_int_equal(pool.pool_size, 20);
        assert_int_equal(pool.min_pool_size, 9);
        assert_int_equal(pool.reserve_pool_size, 1);
        assert_int_equal(pool.max_db_connections, 50);
        assert_int_equal(pool.max_user_connections, 60);
        assert_int_equal(pool.max_db_client_connections, 70);
        assert_int_equal(pool.max_user_client_connections, 0);
        assert_int_equal(pool.server_lifetime_us, 100 * US_PER_S);
        assert_int_equal(pool.query_timeout_us, 1 * US_PER_S);
        assert_int_equal(pool.query_wait_timeout_us, 2 * US_PER_S);
        assert_int_equal(pool.idle_transaction_timeout_us, 3 * US_PER_S);
        assert_int_equal(pool.transaction_timeout_us, 4 * US_PER_S);
        assert_int_equal(pool.client_idle_timeout_us, 5 * US_PER_S);
        assert_int_equal(pool.server_sharing, 6);

        snapshot_pool_settings(snapshot, own, users[index], &pool);
        assert_int_equal(pool.pool_mode, POOL_MODE_TRANSACTION);
        assert_int_equal(pool.pool_size, 5);
        assert_int_equal(pool.min_pool_size, 4);
        assert_int_equal(pool.reserve_pool_size, 2);
        assert_int_equal(pool.max_db_connections, 51);
        assert_int_equal(pool.max_db_client_connections, 71);
        assert_int_equal(pool.server_lifetime_us, 101 * US_PER_S);
        assert_int_equal(pool.query_wait_timeout_us, 12 * US_PER_S);
        assert_int_equal(pool.server_sharing, SHARING_OFF);
    }

    snapshot_pool_settings(snapshot, own, snapshot_find_user(snapshot, "own"), &pool);
    assert_int_equal(pool.pool_mode, POOL_MODE_STATEMENT);
    assert_int_equal(pool.pool_size, 3);
    assert_int_equal(pool.min_pool_size, 3); /* capped */
    assert_int_equal(pool.reserve_pool_size, 0);
    assert_int_equal(pool.max_user_connections, 61);
    assert_int_equal(pool.max_user_client_connections, 81);
    assert_int_equal(pool.query_timeout_us, 11 * US_PER_S);
    assert_int_equal(pool.query_wait_timeout_us, 0); /* never */
    assert_int_equal(pool.idle_transaction_timeout_us, 13 * US_PER_S);
    assert_int_equal(pool.transaction_timeout_us, 14 * US_PER_S);
    assert_int_equal(pool.client_idle_timeout_us, 15 * US_PER_S);
    assert_int_equal(pool.server_sharing, SHARING_AUTO);

    snapshot_pool_settings(snapshot, snapshot_find_database(snapshot, "free"), NULL, &pool);
    assert_int_equal(pool.pool_size, 0); /* no limit, so nothing caps */
    assert_int_equal(pool.min_pool_size, 9);
    snapshot_release(snapshot);
}

static void set_makes_a_whole_copy(void **state)
{
    struct snapshot *base =
        load_silent("[pgbouncer]\nadmin_users = joe\n[databases]\na = host=h password=p\n"
                    "* = host=star\n[users]\njoe = pool_size=3\n");
    struct snapshot *changed = snapshot_with_setting(base, "default_pool_size", "7");
    struct snapshot *again;

    (void)state;
    assert_non_null(changed);
    assert_int_equal(base->settings.default_pool_size, 20);
    snapshot_release(base); /* the copy leans on nothing */
    assert_int_equal(changed->settings.default_pool_size, 7);
    assert_string_equal(changed->settings.admin_users, "joe");
    assert_string_equal(snapshot_find_database(changed, "a")->password, "p");
    assert_string_equal(snapshot_find_database(changed, "b")->host, "star");
    assert_int_equal(snapshot_find_user(changed, "joe")->pool_size, 3);

    again = snapshot_with_setting(changed, "server_reset_query", "");
    assert_non_null(again);
    assert_string_equal(again->settings.server_reset_query, "");
    assert_int_equal(again->settings.default_pool_size, 7);
    snapshot_release(again);

    again = snapshot_with_setting(changed, "busy_poll", "50us");
    assert_non_null(again);
    assert_int_equal(again->settings.busy_poll_us, 50);
    snapshot_release(again);

    again = snapshot_with_setting(changed, "listen_port", "1"); /* only a restart */
    assert_non_null(again);
    assert_int_equal(again->settings.listen_port, 6432);
    snapshot_release(again);

    assert_null(snapshot_with_setting(changed, "nix", "1"));
    assert_null(snapshot_with_setting(changed, "default_pool_size", "x"));
    assert_null(snapshot_with_setting(changed, "auth_type", "hba"));
    assert_null(snapshot_with_setting(changed, "listen_port", "x"));
    snapshot_release(changed);
}

static void a_reload_keeps_what_only_a_restart_changes(void **state)
{
    static struct reported reported;
    struct snapshot *running = load_silent("[pgbouncer]\nlisten_port = 1\nlisten_addr = a\n"
                                           "default_pool_size = 1\n");
    const struct test_file files[] = {
        {"t.ini", "[pgbouncer]\nlisten_port = 2\ndefault_pool_size = 2\n"}, {NULL, NULL}};
    struct snapshot *next = snapshot_load_through(test_open, (void *)(uintptr_t)files, "t.ini",
                                                  running, test_report, &reported);

    (void)state;
    assert_non_null(next);
    snapshot_release(running);
    assert_int_equal(next->settings.listen_port, 1);
    assert_string_equal(next->settings.listen_addr, "a");
    assert_int_equal(next->settings.default_pool_size, 2);
    assert_int_equal(count_lines(reported.text, "WARNING "), 2);
    assert_reported(&reported, "WARNING listen_port keeps its value: only a restart changes it in "
                               "configuration (t.ini:2)");
    snapshot_release(next);
}

static void a_reload_without_its_auth_file_keeps_the_users(void **state)
{
    static struct reported reported;
    const struct test_file before[] = {{"t.ini", "[pgbouncer]\nauth_file = u\n[users]\nann =\n"},
                                       {"u", "\"joe\" \"1\""},
                                       {NULL, NULL}};
    const struct test_file after[] = {{"t.ini", "[pgbouncer]\nauth_file = u\n"}, {NULL, NULL}};
    struct snapshot *running = load_files(before, &reported);
    struct snapshot *next = snapshot_load_through(test_open, (void *)(uintptr_t)after, "t.ini",
                                                  running, test_report, &reported);

    (void)state;
    assert_non_null(next);
    snapshot_release(running);
    assert_reported(&reported, "ERROR could not open auth_file u");
    assert_int_equal(next->user_count, 1);
    assert_string_equal(snapshot_find_user(next, "joe")->secret, "1");
    snapshot_release(next);
}

static void lists_hold_whole_names(void **state)
{
    (void)state;
    assert_true(list_contains("a, bc,d", "a", false));
    assert_true(list_contains("a, bc,d", "bc", false));
    assert_true(list_contains("a, bc,d", "d", false));
    assert_true(list_contains("a bc\td", "bc", false));
    assert_true(list_contains(" ,,a,, ", "a", false));
    assert_false(list_contains("a, bc,d", "b", false));
    assert_false(list_contains("a, bc,d", "c", false));
    assert_false(list_contains("a, bc,d", "bcd", false));
    assert_false(list_contains("a, bc,d", "BC", false));
    assert_true(list_contains("a, bc,d", "BC", true));
    assert_false(list_contains("a, bc,d", "", false));
    assert_false(list_contains("", "a", false));
    assert_false(list_contains(NULL, "a", false));
}

static void *reference_often(void *context)
{
    for (int round = 0; round < 10000; round++) {
        snapshot_reference(context);
        snapshot_release(context);
    }
    return NULL;
}

static void references_are_counted_between_threads(void **state)
{
    struct snapshot *snapshot = load_silent("[pgbouncer]\n");
    pthread_t threads[4];

    (void)state;
    for (size_t index = 0; index < COUNT_OF(threads); index++)
        assert_int_equal(pthread_create(&threads[index], NULL, reference_often, snapshot), 0);
    for (size_t index = 0; index < COUNT_OF(threads); index++)
        pthread_join(threads[index], NULL);
    assert_int_equal(atomic_load(&snapshot->references), 1);
    snapshot_release(snapshot);
}

static void many_entries_are_no_burden(void **state)
{
    enum { ENTRIES = 20000 };
    char *text = malloc(ENTRIES * 40 + 64), name[16];
    size_t used = (size_t)sprintf(text, "[pgbouncer]\n[databases]\n");
    struct snapshot *snapshot;

    (void)state;
    for (int index = 0; index < ENTRIES; index++)
        used += (size_t)sprintf(text + used, "d%d = host=h%d\n", (index * 7919) % ENTRIES, index);
    snapshot = load_silent(text);
    assert_int_equal(snapshot->database_count, ENTRIES);
    for (int index = 0; index < ENTRIES; index += 37) {
        snprintf(name, sizeof(name), "d%d", index);
        assert_string_equal(snapshot_find_database(snapshot, name)->name, name);
    }
    snapshot_release(snapshot);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_minimal_file_has_the_defaults),
        cmocka_unit_test(sections_come_in_any_order_and_add_up),
        cmocka_unit_test(sections_and_keys_have_to_be_known),
        cmocka_unit_test(all_mistakes_are_named),
        cmocka_unit_test(reports_have_an_end),
        cmocka_unit_test(control_characters_do_not_reach_the_log),
        cmocka_unit_test(the_last_duplicate_wins_with_a_warning),
        cmocka_unit_test(the_star_entry_answers_for_names_not_listed),
        cmocka_unit_test(users_come_from_everywhere),
        cmocka_unit_test(user_beats_database_beats_global),
        cmocka_unit_test(set_makes_a_whole_copy),
        cmocka_unit_test(a_reload_keeps_what_only_a_restart_changes),
        cmocka_unit_test(a_reload_without_its_auth_file_keeps_the_users),
        cmocka_unit_test(lists_hold_whole_names),
        cmocka_unit_test(references_are_counted_between_threads),
        cmocka_unit_test(many_entries_are_no_burden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
