/* test_database.c - connect strings of [databases], [users] and [peers]. */
#include "config_files.h"

/* One database named `a`; the caller releases. */
static struct snapshot *database(const char *value)
{
    char text[4096];

    snprintf(text, sizeof(text), "[pgbouncer]\n[databases]\na = %s\n", value);
    return load_silent(text);
}

static void mistake_in(const char *section, const char *value, const char *mistake)
{
    char text[4096];

    snprintf(text, sizeof(text), "[pgbouncer]\n[%s]\n1 = %s\n", section, value);
    assert_mistake(text, mistake);
    assert_mistake(text, "in configuration (t.ini:3)");
}

static void an_empty_entry_has_the_defaults(void **state)
{
    struct snapshot *snapshot = database("");
    const struct database_config *config = snapshot_find_database(snapshot, "a");

    (void)state;
    assert_int_equal(snapshot->database_count, 1);
    assert_string_equal(config->name, "a");
    assert_string_equal(config->dbname, "a");
    assert_null(config->host);
    assert_int_equal(config->port, 5432);
    assert_null(config->user);
    assert_int_equal(config->pool_size, -1);
    assert_int_equal(config->min_pool_size, -1);
    assert_int_equal(config->reserve_pool_size, -1);
    assert_int_equal(config->pool_mode, -1);
    assert_int_equal(config->query_wait_timeout_us, -1);
    assert_int_equal(config->server_lifetime_us, -1);
    assert_int_equal(config->load_balance_hosts, LOAD_BALANCE_ROUND_ROBIN);
    assert_false(config->is_auto);
    snapshot_release(snapshot);
}

static void every_key_reaches_its_field(void **state)
{
    struct snapshot *snapshot = database(
        "dbname=d host=h port=1 user=u password=p pool_size=2 min_pool_size=3 reserve_pool_size=4 "
        "connect_query='select 1' pool_mode=statement query_wait_timeout=5 "
        "load_balance_hosts=disable max_db_connections=6 max_db_client_connections=7 "
        "server_lifetime=8 client_encoding=ce datestyle=ds timezone=tz application_name=an");
    const struct database_config *config = snapshot->databases;

    (void)state;
    assert_string_equal(config->dbname, "d");
    assert_string_equal(config->host, "h");
    assert_int_equal(config->port, 1);
    assert_string_equal(config->user, "u");
    assert_string_equal(config->password, "p");
    assert_int_equal(config->pool_size, 2);
    assert_int_equal(config->min_pool_size, 3);
    assert_int_equal(config->reserve_pool_size, 4);
    assert_string_equal(config->connect_query, "select 1");
    assert_int_equal(config->pool_mode, POOL_MODE_STATEMENT);
    assert_int_equal(config->query_wait_timeout_us, 5 * US_PER_S);
    assert_int_equal(config->load_balance_hosts, LOAD_BALANCE_DISABLE);
    assert_int_equal(config->max_db_connections, 6);
    assert_int_equal(config->max_db_client_connections, 7);
    assert_int_equal(config->server_lifetime_us, 8 * US_PER_S);
    assert_string_equal(config->client_encoding, "ce");
    assert_string_equal(config->datestyle, "ds");
    assert_string_equal(config->timezone, "tz");
    assert_string_equal(config->application_name, "an");
    snapshot_release(snapshot);
}

static void blanks_separate_and_may_surround_the_sign(void **state)
{
    struct snapshot *snapshot = database("  host  =  a   port =  1  ");

    (void)state;
    assert_string_equal(snapshot->databases->host, "a");
    assert_int_equal(snapshot->databases->port, 1);
    snapshot_release(snapshot);
}

static void quotes_hold_blanks_and_doubled_quotes(void **state)
{
    struct snapshot *snapshot = database("password = 'a ''b'' =;#' user='''' dbname=x'y");

    (void)state;
    assert_string_equal(snapshot->databases->password, "a 'b' =;#");
    assert_string_equal(snapshot->databases->user, "'");
    assert_string_equal(snapshot->databases->dbname, "x'y");
    snapshot_release(snapshot);
}

static void numbers_are_decimal_and_negative_is_not_set(void **state)
{
    struct snapshot *snapshot =
        database("port=010 pool_size=-7 reserve_pool=3 max_db_connections=-5 query_wait_timeout=0 "
                 "server_lifetime=0");

    (void)state;
    assert_int_equal(snapshot->databases->port, 10);
    assert_int_equal(snapshot->databases->pool_size, -1);
    assert_int_equal(snapshot->databases->reserve_pool_size, 3);
    assert_true(snapshot->databases->max_db_connections <= 0);
    assert_int_equal(snapshot->databases->query_wait_timeout_us, 0);
    assert_int_equal(snapshot->databases->server_lifetime_us, -1);
    snapshot_release(snapshot);
}

static void mistakes_are_named(void **state)
{
    char long_user[200] = "user=";

    (void)state;
    mistake_in("databases", "port=0", "database \"1\": port: \"0\" is not between 1 and 65535");
    mistake_in("databases", "port=65536", "port: \"65536\" is not between");
    mistake_in("databases", "port=abc", "port: \"abc\" is not a whole number");
    mistake_in("databases", "port=5433,5434", "port: \"5433,5434\" is not a whole number");
    mistake_in("databases", "pool_size=1.5", "pool_size: \"1.5\" is not a whole number");
    mistake_in("databases", "pool_size=0x10", "pool_size: \"0x10\" is not a whole number");
    mistake_in("databases", "pool_size=99999999999999999999", "is not a whole number");
    mistake_in("databases", "query_wait_timeout=5s", "\"5s\" is not a whole number");
    mistake_in("databases", "pool_mode=Session", "is none of session, transaction, statement");
    mistake_in("databases", "load_balance_hosts=on", "is none of disable, round-robin");
    mistake_in("databases", "server_sharing=maybe",
               "server_sharing: \"maybe\" is none of auto, on, off, no, 0 to 1000");
    mistake_in("users", "server_sharing=0x10", "is none of auto, on, off, no, 0 to 1000");
    mistake_in("databases", "Host=a", "key \"Host\" is not known");
    mistake_in("databases", "hots=a port=1", "key \"hots\" is not known");
    mistake_in("databases", "host", "key=value is expected at byte 1");
    mistake_in("databases", "port=1 host", "key=value is expected at byte 8");
    mistake_in("databases", "=a", "key=value is expected at byte 1");
    mistake_in("databases", "host=", "an empty value at byte 1");
    mistake_in("databases", "host=''", "an empty value at byte 1");
    mistake_in("databases", "password='abc", "the quoted text has no end at byte 10");
    mistake_in("databases", "password='a'b", "a blank is expected behind the quote at byte 13");
    mistake_in("databases", "auth_dbname=pgbouncer", "is the console");
    memset(long_user + 5, 'u', USER_NAME_BYTES_MAX);
    mistake_in("databases", long_user, "user is longer than 127 bytes");
    mistake_in("users", "host=a", "user \"1\": key \"host\" is not known");
    mistake_in("users", "pool_size=x", "user \"1\": pool_size: \"x\" is not a whole number");
    mistake_in("peers", "port=1", "peer \"1\": host is missing");
    mistake_in("peers", "dbname=1", "key \"dbname\" is not known");
}

static void names_have_limits(void **state)
{
    char text[512];

    (void)state;
    snprintf(text, sizeof(text), "[pgbouncer]\n[databases]\n%063d = host=a\n", 1);
    snapshot_release(load_silent(text));
    snprintf(text, sizeof(text), "[pgbouncer]\n[databases]\n%064d = host=a\n", 1);
    assert_mistake(text, "the name is longer than 63 bytes");
    snprintf(text, sizeof(text), "[pgbouncer]\n[users]\n%0127d = pool_size=1\n", 1);
    snapshot_release(load_silent(text));
    snprintf(text, sizeof(text), "[pgbouncer]\n[users]\n%0128d = pool_size=1\n", 1);
    assert_mistake(text, "the name is longer than 127 bytes");
    assert_mistake("[pgbouncer]\n[databases]\npgbouncer =\n", "console");
    assert_mistake("[pgbouncer]\n[databases]\n = host=a\n", "a database without a name");
    assert_mistake("[pgbouncer]\n[peers]\n0 = host=a\n", "is not between 1 and 65535");
    assert_mistake("[pgbouncer]\n[peers]\n65536 = host=a\n", "is not between 1 and 65535");
    assert_mistake("[pgbouncer]\n[peers]\nx = host=a\n", "is not a whole number");
}

static void secrets_stay_out_of_messages(void **state)
{
    static const char *const values[] = {
        "password=secret'",      "password=se cret",     "password='secret",
        "password='x'secret",    "password=x sec*ret=1", "password=x secret9=1",
        "host= password=secret",
    };
    static struct reported reported;
    char text[256];

    (void)state;
    for (size_t index = 0; index < COUNT_OF(values); index++) {
        struct snapshot *snapshot;

        snprintf(text, sizeof(text), "[pgbouncer]\n[databases]\na = %s x=\n", values[index]);
        snapshot = load_text(text, &reported);
        assert_null(snapshot);
        assert_null(strstr(reported.text, "secret"));
        assert_null(strstr(reported.text, "cret"));
        assert_null(strstr(reported.text, "sec*"));
    }
}

static void traps_are_warned_of(void **state)
{
    struct snapshot *snapshot;

    (void)state;
    snapshot = load_warned("[pgbouncer]\n[databases]\na = host= port=1", "host holds a `=`");
    assert_string_equal(snapshot->databases->host, "port=1");
    snapshot_release(snapshot);
    snapshot = load_warned("[pgbouncer]\n[databases]\na = dbname=x\tport=1", "dbname holds a tab");
    assert_string_equal(snapshot->databases->dbname, "x\tport=1");
    snapshot_release(snapshot);
    snapshot = load_warned("[pgbouncer]\n[databases]\na = port=1 port=2", "port is given twice");
    assert_int_equal(snapshot->databases->port, 2);
    snapshot_release(snapshot);
}

static void users_have_settings(void **state)
{
    struct snapshot *snapshot = load_silent(
        "[pgbouncer]\n[users]\n* = pool_mode=session\n'a b' = pool_mode=transaction pool_size=1 "
        "reserve_pool_size=2 max_user_connections=3 max_user_client_connections=4 query_timeout=5 "
        "query_wait_timeout=0 idle_transaction_timeout=6 transaction_timeout=7 "
        "client_idle_timeout=8\nc =\n");
    const struct user_config *user = snapshot_find_user(snapshot, "a b");

    (void)state;
    assert_int_equal(snapshot->user_count, 3);
    assert_int_equal(user->pool_mode, POOL_MODE_TRANSACTION);
    assert_int_equal(user->pool_size, 1);
    assert_int_equal(user->reserve_pool_size, 2);
    assert_int_equal(user->max_user_connections, 3);
    assert_int_equal(user->max_user_client_connections, 4);
    assert_int_equal(user->query_timeout_us, 5 * US_PER_S);
    assert_int_equal(user->query_wait_timeout_us, 0);
    assert_int_equal(user->idle_transaction_timeout_us, 6 * US_PER_S);
    assert_int_equal(user->transaction_timeout_us, 7 * US_PER_S);
    assert_int_equal(user->client_idle_timeout_us, 8 * US_PER_S);
    assert_string_equal(user->secret, "");
    assert_false(user->is_in_auth_file);
    assert_int_equal(snapshot_find_user(snapshot, "*")->pool_mode, POOL_MODE_SESSION);
    assert_int_equal(snapshot_find_user(snapshot, "c")->query_timeout_us, -1);
    assert_null(snapshot_find_user(snapshot, "nobody"));
    snapshot_release(snapshot);
}

static void peers_are_sorted_by_number(void **state)
{
    static struct reported reported;
    struct snapshot *snapshot = load_text("[pgbouncer]\n[peers]\n12 = host=/b port=1 pool_size=3\n"
                                          "007 = host=/x\n7 = host=/a\n",
                                          &reported);

    (void)state;
    assert_non_null(snapshot);
    assert_reported(&reported, "is given twice, this one replaces (t.ini:4)");
    assert_int_equal(snapshot->peer_count, 2);
    assert_int_equal(snapshot->peers[0].peer_id, 7);
    assert_string_equal(snapshot->peers[0].host, "/a");
    assert_int_equal(snapshot->peers[0].port, 6432);
    assert_int_equal(snapshot->peers[0].pool_size, -1);
    assert_int_equal(snapshot->peers[1].peer_id, 12);
    assert_int_equal(snapshot->peers[1].port, 1);
    assert_int_equal(snapshot->peers[1].pool_size, 3);
    snapshot_release(snapshot);
}

static void only_the_destination_moves_a_database(void **state)
{
    static const struct {
        const char *key;
        bool moves;
    } cases[] = {
        {"dbname=x", true},
        {"host=x", true},
        {"port=1", true},
        {"user=x", true},
        {"connect_query=x", true},
        {"load_balance_hosts=disable", true},
        {"auth_dbname=x", true},
        {"auth_query=x", true},
        {"pool_size=1", false},
        {"password=x", false},
        {"pool_mode=session", false},
        {"client_encoding=x", false},
        {"auth_user=x", false},
        {"server_lifetime=1", false},
    };
    static struct reported reported;
    struct snapshot *plain = database(""), *again = database("dbname=a port=5432");

    (void)state;
    assert_false(database_config_moved(plain->databases, again->databases));
    for (size_t index = 0; index < COUNT_OF(cases); index++) {
        char text[128];
        struct snapshot *changed;

        snprintf(text, sizeof(text), "[pgbouncer]\n[databases]\na = %s", cases[index].key);
        changed = load_text(text, &reported);
        assert_non_null(changed);
        assert_int_equal(database_config_moved(plain->databases, changed->databases),
                         cases[index].moves);
        assert_int_equal(database_config_moved(changed->databases, plain->databases),
                         cases[index].moves);
        assert_false(database_config_moved(changed->databases, changed->databases));
        snapshot_release(changed);
    }
    snapshot_release(plain);
    snapshot_release(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_entry_has_the_defaults),
        cmocka_unit_test(every_key_reaches_its_field),
        cmocka_unit_test(blanks_separate_and_may_surround_the_sign),
        cmocka_unit_test(quotes_hold_blanks_and_doubled_quotes),
        cmocka_unit_test(numbers_are_decimal_and_negative_is_not_set),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(names_have_limits),
        cmocka_unit_test(secrets_stay_out_of_messages),
        cmocka_unit_test(traps_are_warned_of),
        cmocka_unit_test(users_have_settings),
        cmocka_unit_test(peers_are_sorted_by_number),
        cmocka_unit_test(only_the_destination_moves_a_database),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
