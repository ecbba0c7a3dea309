/* test_settings.c - the table of settings against PgBouncer's, the manual and the sample; values.
 */
#include "config_files.h"

#include "config/database.h"
#include "config/manual.h"

#include <syslog.h>

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 256 * 1024);

    if (file == NULL)
        fail_msg("%s is missing: tests run at the top of the tree", path);
    assert_true(fread(text, 1, 256 * 1024 - 1, file) > 0);
    fclose(file);
    return text;
}

/* The next cell of a row of a table with tabs. */
static const char *next_cell(char **row)
{
    char *cell = *row;

    *row += strcspn(*row, "\t");
    if (**row == '\t')
        *(*row)++ = '\0';
    return cell;
}

static const char *kind_in_table(const struct setting *setting)
{
    static const char *const kinds[] = {
        [SETTING_BOOL] = "bool",          [SETTING_INT] = "int",
        [SETTING_UINT] = "uint",          [SETTING_ENUM] = "enum{",
        [SETTING_STRING] = "string",      [SETTING_LIST] = "list",
        [SETTING_PATH] = "path",          [SETTING_TIME_US] = "duration-us",
        [SETTING_SHORT_TIME_US] = "none", [SETTING_INT_OR_NAME] = "none",
    };

    return kinds[setting->kind];
}

static void assert_names_of_enum(const struct setting *setting, const char *type)
{
    char names[256] = "enum{";

    for (const struct setting_name *name = setting->names; name->name != NULL; name++) {
        strcat(names, name->name);
        strcat(names, name[1].name == NULL ? "}" : ",");
    }
    if (strstr(type, "local0..local7") != NULL) {
        assert_non_null(strstr(names, "user,local0,local1,local2,local3,local4,local5,local6,"));
        return;
    }
    /* The table keeps no order. */
    assert_int_equal(strlen(names), strlen(type));
    for (const struct setting_name *name = setting->names; name->name != NULL; name++)
        assert_non_null(strstr(type, name->name));
}

static void the_table_is_pgbouncers(void **state)
{
    char *text = read_file("tests/compat/settings.tsv");
    char *save, *row = strtok_r(text, "\n", &save);
    size_t index = 0;

    (void)state;
    while ((row = strtok_r(NULL, "\n", &save)) != NULL) {
        const struct setting *setting = &settings_table[index++];
        const char *name = next_cell(&row), *type = next_cell(&row), *value = next_cell(&row);
        const char *changeable = next_cell(&row);

        assert_true(index <= settings_count);
        assert_string_equal(setting->section, "pgbouncer");
        assert_string_equal(setting->name, name);
        assert_int_equal(strncmp(type, kind_in_table(setting), strlen(kind_in_table(setting))), 0);
        if (setting->kind == SETTING_ENUM)
            assert_names_of_enum(setting, type);
        if (strcmp(value, "(empty)") == 0)
            assert_string_equal(setting->default_text, "");
        else if (value[0] == '(')
            assert_null(setting->default_text);
        else if (strcmp(value, "1 on Linux") == 0)
            assert_string_equal(setting->default_text, "1");
        else
            assert_string_equal(setting->default_text, value);
        assert_int_equal(setting->on_reload, strcmp(changeable, "reload") == 0);
    }
    for (; index < settings_count; index++)
        assert_string_equal(settings_table[index].section, "pgsplice");
    free(text);
}

static void entry_table_is(const char *path, const struct entry_option *options)
{
    char *text = read_file(path);
    char *save, *row = strtok_r(text, "\n", &save);

    while ((row = strtok_r(NULL, "\n", &save)) != NULL) {
        const char *name = next_cell(&row), *type = next_cell(&row);

        assert_non_null(options->key);
        assert_string_equal(options->key, name);
        assert_int_equal(strncmp(type, "string", 6) == 0,
                         options->kind == ENTRY_STRING || options->kind == ENTRY_USER);
        assert_int_equal(strncmp(type, "enum", 4) == 0,
                         options->kind == ENTRY_POOL_MODE ||
                             options->kind == ENTRY_LOAD_BALANCE_HOSTS);
        options++;
    }
    for (; options->key != NULL; options++) /* ours alone */
        assert_int_equal(options->kind, ENTRY_SERVER_SHARING);
    free(text);
}

static void the_keys_of_entries_are_pgbouncers(void **state)
{
    (void)state;
    entry_table_is("tests/compat/database_options.tsv", database_options);
    entry_table_is("tests/compat/user_options.tsv", user_options);
    entry_table_is("tests/compat/peer_options.tsv", peer_options);
}

static void rows_are_complete(void **state)
{
    (void)state;
    for (size_t index = 0; index < settings_count; index++) {
        const struct setting *setting = &settings_table[index];

        assert_non_null(setting->meaning);
        assert_int_equal(setting->meaning[strlen(setting->meaning) - 1], '.');
        assert_ptr_equal(setting_find(setting->section, setting->name), setting);
        assert_int_equal(setting->names != NULL,
                         setting->kind == SETTING_ENUM || setting->kind == SETTING_INT_OR_NAME);
        for (size_t other = 0; other < index; other++)
            assert_int_not_equal(setting->offset, settings_table[other].offset);
    }
    assert_null(setting_find("pgbouncer", "worker_threads"));
    assert_null(setting_find("pgsplice", "listen_port"));
    assert_null(setting_find("pgbouncer", "LISTEN_PORT"));
}

static void the_manual_is_up_to_date(void **state)
{
    char *manual = read_file("conf/SETTINGS.md");
    char *printed = NULL;
    size_t bytes;
    FILE *file = open_memstream(&printed, &bytes);

    (void)state;
    manual_print_markdown(file);
    fclose(file);
    if (strcmp(manual, printed) != 0)
        fail_msg("conf/SETTINGS.md is stale: make reference");
    free(printed);
    free(manual);
}

/* Each setting stands there, commented out with its default or with a value of its own. */
static void the_sample_has_every_setting(void **state)
{
    char *sample = read_file("conf/pgsplice.ini");
    char line[512];

    (void)state;
    for (size_t index = 0; index < settings_count; index++) {
        const struct setting *setting = &settings_table[index];
        const char *text = setting->default_text == NULL ? "" : setting->default_text;

        snprintf(line, sizeof(line), "\n;%s =%s%s\n", setting->name, *text == '\0' ? "" : " ",
                 text);
        if (strstr(sample, line) != NULL)
            continue;
        snprintf(line, sizeof(line), "\n%s = ", setting->name);
        if (strstr(sample, line) == NULL)
            fail_msg("conf/pgsplice.ini lacks %s, or its default is another", setting->name);
    }
    for (const struct entry_option *option = database_options; option->key != NULL; option++)
        if (strcmp(option->key, "reserve_pool") != 0)
            assert_non_null(strstr(sample, option->key));
    free(sample);
}

static void the_sample_loads_without_a_word(void **state)
{
    static struct reported reported;
    struct snapshot *snapshot = snapshot_load("conf/pgsplice.ini", test_report, &reported);

    (void)state;
    assert_non_null(snapshot);
    assert_string_equal(reported.text, "");
    assert_non_null(snapshot->auto_database);
    assert_string_equal(snapshot->auto_database->host, "/tmp");
    assert_int_equal(snapshot->settings.listen_port, 6432);
    assert_int_equal(snapshot->settings.pool_mode, POOL_MODE_TRANSACTION);
    assert_int_equal(snapshot->settings.default_pool_size, 20);
    assert_true(snapshot->user_count > 0);
    snapshot_release(snapshot);
}

static void defaults_format_as_themselves(void **state)
{
    struct settings settings;
    char text[64];

    (void)state;
    settings_set_defaults(&settings);
    for (size_t index = 0; index < settings_count; index++) {
        const struct setting *setting = &settings_table[index];
        const char *value = setting_format(setting, &settings, text);

        if (setting->default_text == NULL && setting_string(setting, &settings) != NULL)
            assert_null(value);
        else if (strcmp(setting->name, "unix_socket_mode") == 0)
            assert_string_equal(value, "511");
        else if (strcmp(setting->name, "verbose") == 0)
            assert_string_equal(value, "0");
        else
            assert_string_equal(value, setting->default_text);
    }
    assert_int_equal(settings.verbose, -1);
    assert_int_equal(settings.server_lifetime_us, 3600 * US_PER_S);
    assert_int_equal(settings.server_login_retry_max_us, 32 * US_PER_S);
    assert_int_equal(settings.syslog_facility, LOG_DAEMON);
}

static const char *take(const char *name, const char *value, const char *section)
{
    static struct settings settings;
    static struct reported reported;
    static char text[64];
    struct config_report report = {.report = test_report, .context = &reported};
    const struct setting *setting = setting_find(section, name);

    assert_non_null(setting);
    settings_set_defaults(&settings);
    reported.bytes = 0;
    reported.text[0] = '\0';
    if (!setting_parse(setting, value, &settings, &report, NULL)) {
        assert_int_equal(report.mistake_count, 1);
        return reported.text;
    }
    assert_int_equal(report.mistake_count, 0);
    return setting_format(setting, &settings, text);
}

static void takes(const char *name, const char *value, const char *expected)
{
    const char *result = take(name, value, "pgbouncer");

    if (strcmp(result, expected) != 0)
        fail_msg("%s = %s gives %s", name, value, result);
}

static void refuses(const char *name, const char *value)
{
    const char *result = take(name, value, "pgbouncer");

    if (strncmp(result, "ERROR ", 6) != 0 || strstr(result, name) == NULL)
        fail_msg("%s = %s gives %s", name, value, result);
}

static void whole_numbers_are_written_as_in_c(void **state)
{
    (void)state;
    takes("max_client_conn", "100", "100");
    takes("max_client_conn", "0x10", "16");
    takes("max_client_conn", "010", "8");
    takes("max_client_conn", "+5", "5");
    takes("max_db_connections", "-1", "-1");
    takes("unix_socket_mode", "0700", "448");
    takes("max_packet_size", "4294967295", "4294967295");
    refuses("max_client_conn", "");
    refuses("max_client_conn", "abc");
    refuses("max_client_conn", "1k");
    refuses("max_client_conn", "1.5");
    refuses("max_client_conn", "1 2");
    refuses("max_client_conn", "0x");
    refuses("max_client_conn", "09");
}

static void ranges_are_checked(void **state)
{
    (void)state;
    takes("listen_port", "65535", "65535");
    refuses("listen_port", "65536");
    refuses("listen_port", "-1");
    refuses("default_pool_size", "-1");
    refuses("max_client_conn", "99999999999999999999");
    refuses("max_client_conn", "4294967297");
    refuses("max_packet_size", "4294967296");
    refuses("max_packet_size", "-1");
    refuses("stats_period", "0");
    refuses("scram_iterations", "0");
    refuses("verbose", "-1");
    refuses("unix_socket_mode", "010000");
}

static void truth_is_0_or_1(void **state)
{
    (void)state;
    takes("log_stats", "0", "0");
    takes("log_stats", "1", "1");
    takes("log_stats", "0x1", "1");
    refuses("log_stats", "2");
    refuses("log_stats", "-1");
    refuses("log_stats", "on");
    refuses("log_stats", "true");
    refuses("log_stats", "");
}

static void times_are_seconds_with_a_fraction(void **state)
{
    (void)state;
    takes("query_timeout", "0", "0");
    takes("query_timeout", "12", "12");
    takes("query_timeout", "0.5", "0.5");
    takes("query_timeout", ".25", "0.25");
    takes("query_timeout", "0.000001", "1e-06");
    takes("query_timeout", "1e3", "1000");
    takes("query_timeout", "010", "10");
    refuses("query_timeout", "");
    refuses("query_timeout", "-1");
    refuses("query_timeout", "5s");
    refuses("query_timeout", "0x10");
    refuses("query_timeout", "inf");
    refuses("query_timeout", "+inf");
    refuses("query_timeout", "nan");
    refuses("query_timeout", "1e400");
    refuses("query_timeout", "1e30");
    refuses("query_timeout", "1,5");
}

static void names_are_exact(void **state)
{
    (void)state;
    takes("pool_mode", "statement", "statement");
    refuses("pool_mode", "Session");
    refuses("pool_mode", "sess");
    refuses("pool_mode", "");
    takes("syslog_facility", "local7", "local7");
    takes("syslog_facility", "LOCAL7", "daemon");
}

static void strings_are_taken_as_they_stand(void **state)
{
    char long_text[1100];

    (void)state;
    takes("server_reset_query", "", "");
    takes("server_reset_query", "a ; b # c", "a ; b # c");
    takes("admin_users", "'a', b", "'a', b");
    refuses("auth_dbname", "pgbouncer");
    takes("auth_ldap_options", "", "");
    snprintf(long_text, sizeof(long_text), "ldapserver=a ldapprefix=%01000d", 0);
    long_text[1024] = '\0';
    refuses("auth_ldap_options", long_text);
    long_text[1023] = '\0';
    takes("auth_ldap_options", long_text, long_text);
}

static void short_times_have_units(void **state)
{
    static const char *const cases[][2] = {
        {"0", "0"},         {"50", "50us"},       {"50us", "50us"},    {"1ms", "1000us"},
        {"0.5ms", "500us"}, {"0.00005s", "50us"}, {"1s", "1000000us"}, {"50 us", "50us"},
    };
    static const char *const mistakes[] = {"", "us", "-1", "1m", "50 u s", "2s", "1e9", "0x10us"};

    (void)state;
    for (size_t index = 0; index < COUNT_OF(cases); index++)
        assert_string_equal(take("busy_poll", cases[index][0], "pgsplice"), cases[index][1]);
    for (size_t index = 0; index < COUNT_OF(mistakes); index++)
        assert_non_null(strstr(take("busy_poll", mistakes[index], "pgsplice"), "ERROR busy_poll"));
}

static void settings_of_pgsplice_are_checked(void **state)
{
    (void)state;
    assert_string_equal(take("receive_buffer_count_max", "1024", "pgsplice"), "1024");
    assert_non_null(strstr(take("receive_buffer_count_max", "1000", "pgsplice"), "power of two"));
    assert_non_null(strstr(take("receive_buffer_bytes", "100", "pgsplice"), "not between"));
    assert_non_null(strstr(take("server_connect_parallel", "0", "pgsplice"), "not between"));
}

static void numbers_may_have_names(void **state)
{
    static const char *const cases[][2] = {
        {"auto", "auto"}, {"on", "auto"}, {"off", "off"},   {"no", "off"},
        {"0", "off"},     {"1", "1"},     {"1000", "1000"}, {"0x10", "16"},
    };
    static const char *const mistakes[] = {"",     "-1", "-2",     "1001", "yes",       "OFF",
                                           "true", "4x", "auto 4", "1.5",  "4294967297"};

    (void)state;
    for (size_t index = 0; index < COUNT_OF(cases); index++)
        assert_string_equal(take("server_sharing", cases[index][0], "pgsplice"), cases[index][1]);
    for (size_t index = 0; index < COUNT_OF(mistakes); index++)
        assert_non_null(strstr(take("server_sharing", mistakes[index], "pgsplice"),
                               "is none of auto, on, off, no, 0 to 1000"));
}

static void notes_behind_numbers_are_dropped_with_a_warning(void **state)
{
    struct snapshot *snapshot;

    (void)state;
    snapshot = load_warned("[pgbouncer]\nlisten_port = 7000 ; note ; two\n",
                           "WARNING listen_port: what follows \"7000\" is taken as a comment in "
                           "configuration (t.ini:2)");
    assert_int_equal(snapshot->settings.listen_port, 7000);
    snapshot_release(snapshot);
    snapshot = load_warned("[pgbouncer]\nlog_stats = 0\t# note", "log_stats");
    assert_false(snapshot->settings.log_stats);
    snapshot_release(snapshot);
    snapshot = load_warned("[pgbouncer]\nquery_timeout = 0.5  ;", "query_timeout");
    assert_int_equal(snapshot->settings.query_timeout_us, 500000);
    snapshot_release(snapshot);
    snapshot = load_warned("[pgbouncer]\npool_mode = transaction #x", "pool_mode");
    assert_int_equal(snapshot->settings.pool_mode, POOL_MODE_TRANSACTION);
    snapshot_release(snapshot);
    snapshot = load_silent("[pgbouncer]\nserver_reset_query = a ; b");
    assert_string_equal(snapshot->settings.server_reset_query, "a ; b");
    snapshot_release(snapshot);
    assert_mistake("[pgbouncer]\nlisten_port = 7000;x", "listen_port");
    assert_mistake("[pgbouncer]\nlisten_port = ; x", "listen_port");
}

static void what_would_weaken_security_is_refused(void **state)
{
    static const char *const modes[] = {"disable", "allow",     "prefer",
                                        "require", "verify-ca", "verify-full"};
    struct snapshot *snapshot;

    (void)state;
    if (!BUILD_HAS_LDAP)
        assert_mistake("[pgbouncer]\nauth_type=ldap",
                       "auth_type ldap is not supported by this build");
    if (!BUILD_HAS_PAM)
        assert_mistake("[pgbouncer]\nauth_type=pam",
                       "auth_type pam is not supported by this build");
    /* What TLS needs besides is control's to judge: test_tls_setup.c. */
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        char text[128];

        snprintf(text, sizeof(text), "[pgbouncer]\nclient_tls_sslmode=%s\nserver_tls_sslmode=%s\n",
                 modes[i], modes[i]);
        snapshot = load_silent(text);
        assert_int_equal(snapshot->settings.client_tls_sslmode, TLS_MODE_DISABLE + (int)i);
        assert_int_equal(snapshot->settings.server_tls_sslmode, TLS_MODE_DISABLE + (int)i);
        assert_null(snapshot->client_tls);
        assert_null(snapshot->server_tls);
        snapshot_release(snapshot);
    }
    assert_mistake("[pgbouncer]\nclient_tls_sslmode = on", "client_tls_sslmode: \"on\" is none of");
    snapshot = load_silent("[pgbouncer]\nclient_tls_sslmode=disable\nserver_tls_sslmode=allow\n");
    snapshot_release(snapshot);
    snapshot = load_silent("[pgbouncer]\nauth_type = scram-sha-256\nserver_tls_sslmode=prefer\n");
    assert_int_equal(snapshot->settings.auth_type, AUTH_SCRAM_SHA_256);
    snapshot_release(snapshot);
}

static void options_of_ldap_are_read_at_load(void **state)
{
    struct snapshot *snapshot, *changed;

    (void)state;
    snapshot = load_silent("[pgbouncer]\nauth_ldap_options = ldapserver=a ldapprefix=\"x \"\n");
    assert_string_equal(snapshot->ldap->uris, "ldap://a:389");
    assert_string_equal(snapshot->ldap->prefix, "x ");
    changed = snapshot_with_setting(snapshot, "auth_ldap_options", "ldapserver=b ldapprefix=y");
    assert_string_equal(changed->ldap->uris, "ldap://b:389");
    snapshot_release(changed);
    assert_null(snapshot_with_setting(snapshot, "auth_ldap_options", "ldapserver=b"));
    snapshot_release(snapshot);
    assert_mistake("[pgbouncer]\n\nauth_ldap_options = ldapserver=a ldapport=x ldapprefix=y\n",
                   "ERROR auth_ldap_options: ldapport has no port between 1 and 65535 in "
                   "configuration (t.ini:3)");
    if (!BUILD_HAS_LDAP)
        return;
    snapshot = load_warned("[pgbouncer]\nauth_type=ldap\nauth_ldap_options=\n",
                           "without auth_ldap_options in configuration (t.ini:2)");
    assert_null(snapshot->ldap);
    snapshot_release(snapshot);
    snapshot_release(load_silent("[pgbouncer]\nauth_type=ldap\n"
                                 "auth_ldap_options=ldapserver=a ldapsuffix=b\n"));
}

static void what_has_no_effect_is_said_once(void **state)
{
    (void)state;
    snapshot_release(
        load_warned("[pgbouncer]\npkt_buf = 8192\n", "WARNING pkt_buf has no effect: "));
    snapshot_release(
        load_silent("[pgbouncer]\npkt_buf = 4096\nauth_hba_file =\nauth_user = joe\n"));
    snapshot_release(load_silent("[pgbouncer]\n[databases]\na=auth_user=joe auth_dbname=b\n"));
    snapshot_release(load_warned("[pgbouncer]\n[peers]\n1=host=a\n2=host=b\n", "[peers] has no"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_pgbouncers),
        cmocka_unit_test(the_keys_of_entries_are_pgbouncers),
        cmocka_unit_test(rows_are_complete),
        cmocka_unit_test(the_manual_is_up_to_date),
        cmocka_unit_test(the_sample_has_every_setting),
        cmocka_unit_test(the_sample_loads_without_a_word),
        cmocka_unit_test(defaults_format_as_themselves),
        cmocka_unit_test(whole_numbers_are_written_as_in_c),
        cmocka_unit_test(ranges_are_checked),
        cmocka_unit_test(truth_is_0_or_1),
        cmocka_unit_test(times_are_seconds_with_a_fraction),
        cmocka_unit_test(names_are_exact),
        cmocka_unit_test(strings_are_taken_as_they_stand),
        cmocka_unit_test(short_times_have_units),
        cmocka_unit_test(settings_of_pgsplice_are_checked),
        cmocka_unit_test(numbers_may_have_names),
        cmocka_unit_test(notes_behind_numbers_are_dropped_with_a_warning),
        cmocka_unit_test(what_would_weaken_security_is_refused),
        cmocka_unit_test(options_of_ldap_are_read_at_load),
        cmocka_unit_test(what_has_no_effect_is_said_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
