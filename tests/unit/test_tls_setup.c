/* test_tls_setup.c - from the TLS settings to contexts: what each mode needs is demanded by name, what is the same
 * stays the same context, and a failure leaves the old one in force. Certificates: tls/make.sh. */
#include "unit.h"

#include "config_files.h"
#include "control/tls_setup.h"
#include "crypto/tls.h"

#define FOLDER "tests/unit/tls/"
#define CERTIFICATE FOLDER "p256.pem"
#define KEY FOLDER "p256.key"
#define AUTHORITY FOLDER "root.pem"
#define OTHER_CERTIFICATE FOLDER "rsa.pem"
#define OTHER_KEY FOLDER "rsa.key"
#define WITH_KEY "client_tls_key_file = " KEY "\nclient_tls_cert_file = " CERTIFICATE "\n"
#define WITH_CA "client_tls_ca_file = " AUTHORITY "\n"

static struct reported said;

static struct snapshot *load(const char *settings)
{
    char text[4096];

    snprintf(text, sizeof(text), "[pgbouncer]\n%s", settings);
    return load_silent(text);
}

static bool set_up(struct snapshot *snapshot, const struct snapshot *running)
{
    said.bytes = 0;
    said.text[0] = '\0';
    return tls_setup_load(snapshot, running, test_report, &said);
}

/* Sets up, and says nothing. */
static struct snapshot *takes(const char *settings, const struct snapshot *running)
{
    struct snapshot *snapshot = load(settings);

    if (!set_up(snapshot, running) || said.bytes > 0)
        fail_msg("%s: %s", settings, said.text);
    return snapshot;
}

static void refuses(const char *settings, const char *why)
{
    struct snapshot *snapshot = load(settings);

    if (set_up(snapshot, NULL))
        fail_msg("taken: %s", settings);
    assert_reported(&said, why);
    assert_int_equal(count_lines(said.text, "ERROR "), 1);
    assert_null(snapshot->client_tls);
    assert_null(snapshot->server_tls);
    snapshot_release(snapshot);
}

static void warns(const char *settings, const char *what)
{
    struct snapshot *snapshot = load(settings);

    assert_true(set_up(snapshot, NULL));
    assert_reported(&said, what);
    assert_int_equal(count_lines(said.text, ""), 1);
    snapshot_release(snapshot);
}

static void defaults_are_prefer_to_servers_and_nothing_to_clients(void **state)
{
    struct snapshot *snapshot = takes("", NULL);

    (void)state;
    assert_null(snapshot->client_tls);
    assert_non_null(snapshot->server_tls);
    snapshot_release(snapshot);
    snapshot = takes("server_tls_sslmode = disable", NULL);
    assert_null(snapshot->server_tls);
    snapshot_release(snapshot);
}

static void clients_need_a_key_a_certificate_and_authorities_to_verify(void **state)
{
    static const char *const modes[] = {"allow", "prefer", "require", "verify-ca", "verify-full"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        static const char needed[] =
            "ERROR client_tls_sslmode needs client_tls_key_file and client_tls_cert_file";
        char text[512];

        snprintf(text, sizeof(text), "client_tls_sslmode = %s\n" WITH_CA, modes[i]);
        refuses(text, needed);
        strcat(text, "client_tls_key_file = " KEY "\n");
        refuses(text, needed);
        strcat(text, "client_tls_cert_file = " CERTIFICATE "\n");
        snapshot_release(takes(text, NULL));
        snprintf(text, sizeof(text), "client_tls_sslmode = %s\n" WITH_KEY, modes[i]);
        if (i < 3)
            snapshot_release(takes(text, NULL));
        else
            refuses(text,
                    "ERROR client_tls_sslmode verify-ca and verify-full need client_tls_ca_file");
    }
    refuses("client_tls_sslmode = allow\nclient_tls_key_file = " OTHER_KEY
            "\nclient_tls_cert_file = " CERTIFICATE "\n",
            "ERROR client_tls: ");
    refuses("client_tls_sslmode = allow\nclient_tls_key_file = " KEY
            "\nclient_tls_cert_file = /not/there\n",
            "/not/there");
}

static void auth_type_cert_needs_certificates(void **state)
{
    (void)state;
    refuses("auth_type = cert\n",
            "ERROR client_tls_sslmode has to be verify-full for auth_type cert");
    refuses("auth_type = cert\nclient_tls_sslmode = require\n" WITH_KEY WITH_CA,
            "ERROR client_tls_sslmode has to be verify-full for auth_type cert");
    snapshot_release(
        takes("auth_type = cert\nclient_tls_sslmode = verify-full\n" WITH_KEY WITH_CA, NULL));
}

static void servers_need_authorities_to_verify_and_keys_their_certificates(void **state)
{
    static const char *const modes[] = {"allow", "prefer", "require", "verify-ca", "verify-full"};
    static const char pair[] = "ERROR server_tls_key_file and server_tls_cert_file need each other";

    (void)state;
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        char text[512];

        snprintf(text, sizeof(text), "server_tls_sslmode = %s\n", modes[i]);
        if (i < 3)
            snapshot_release(takes(text, NULL));
        else
            refuses(text,
                    "ERROR server_tls_sslmode verify-ca and verify-full need server_tls_ca_file");
        strcat(text, "server_tls_ca_file = " AUTHORITY "\n");
        snapshot_release(takes(text, NULL));
    }
    refuses("server_tls_key_file = " KEY, pair);
    refuses("server_tls_cert_file = " CERTIFICATE, pair);
    snapshot_release(
        takes("server_tls_key_file = " KEY "\nserver_tls_cert_file = " CERTIFICATE, NULL));
    /* Nobody asks for what is not used. */
    snapshot_release(takes("server_tls_ca_file = /not/there", NULL));
    snapshot_release(takes("server_tls_sslmode=disable\nserver_tls_key_file = /not/there", NULL));
    refuses("server_tls_sslmode = verify-ca\nserver_tls_ca_file = /not/there", "/not/there");
}

static void words_are_judged_with_the_name_of_their_setting(void **state)
{
    (void)state;
    refuses("server_tls_protocols = tlsv1.4",
            "ERROR server_tls_protocols: \"tlsv1.4\" is no list of");
    refuses("server_tls_protocols = tlsv1.0", "ERROR server_tls_protocols: \"tlsv1.0\" has none");
    warns("server_tls_protocols = tlsv1.0, tlsv1.2",
          "WARNING server_tls_protocols: the TLS library has no tlsv1.0");
    snapshot_release(takes("server_tls_protocols = all", NULL));
    refuses("server_tls_ciphers = aNULL", "ERROR server_tls_ciphers: \"aNULL\" leaves no suite");
    warns("server_tls_ciphers = HIGH:NIX",
          "WARNING server_tls_ciphers: not known or not offered, left out: NIX");
    refuses("server_tls13_ciphers = TLS_AES_128_CCM_8_SHA256", "ERROR server_tls13_ciphers: ");
    snapshot_release(takes("server_tls_ciphers = aNULL\nserver_tls_protocols = tlsv1.3", NULL));
    snapshot_release(takes("server_tls13_ciphers = NIX\nserver_tls_protocols = tlsv1.2", NULL));
    snapshot_release(takes("server_tls_ciphers = ALL", NULL));
    snapshot_release(takes("client_tls_sslmode = allow\nclient_tls_ecdhcurve = secp384r1\n"
                           "client_tls_dheparams = legacy\n" WITH_KEY,
                           NULL));
    refuses("client_tls_sslmode = allow\nclient_tls_ecdhcurve = secp256k1\n" WITH_KEY,
            "ERROR client_tls_ecdhcurve: \"secp256k1\" is none of");
    /* A certificate of ECDSA has no suite left, but TLS 1.3 needs none of these. */
    snapshot_release(
        takes("client_tls_sslmode = allow\nclient_tls_ecdhcurve = none\n" WITH_KEY, NULL));
    refuses("client_tls_sslmode = allow\nclient_tls_ecdhcurve = none\nclient_tls_dheparams = none\n"
            "client_tls_protocols = tlsv1.2\n" WITH_KEY,
            "ERROR client_tls_ciphers: \"default\" leaves no suite");
    /* Where TLS is off, its settings may be anything. */
    snapshot_release(takes("client_tls_protocols = nix\nclient_tls_ciphers = nix\n", NULL));
}

static void what_is_the_same_is_the_running_context(void **state)
{
    static const char both[] = "client_tls_sslmode = require\n" WITH_KEY;
    struct snapshot *running = takes(both, NULL);
    struct snapshot *next = takes(both, running), *other;

    (void)state;
    assert_ptr_equal(next->client_tls, running->client_tls);
    assert_ptr_equal(next->server_tls, running->server_tls);
    snapshot_release(running);
    /* The same rules for another mode. */
    other = takes("client_tls_sslmode = prefer\nserver_tls_sslmode = require\n" WITH_KEY, next);
    assert_ptr_equal(other->client_tls, next->client_tls);
    assert_ptr_equal(other->server_tls, next->server_tls);
    snapshot_release(other);
    other =
        takes("client_tls_sslmode = require\nserver_tls_ciphers = HIGH\n" WITH_KEY WITH_CA, next);
    assert_ptr_not_equal(other->client_tls, next->client_tls);
    assert_ptr_not_equal(other->server_tls, next->server_tls);
    snapshot_release(other);
    snapshot_release(next);
}

static void copy_file(const char *from, const char *to)
{
    char data[16 * 1024];
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    size_t bytes;

    assert_non_null(in);
    assert_non_null(out);
    bytes = fread(data, 1, sizeof(data), in);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    fclose(in);
    fclose(out);
}

static void new_contents_of_the_same_path_are_a_new_context(void **state)
{
    char folder[] = "/tmp/pgsplice-test-XXXXXX", key[64], certificate[64], settings[512];
    struct snapshot *running, *next;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(key, sizeof(key), "%s/key", folder);
    snprintf(certificate, sizeof(certificate), "%s/certificate", folder);
    copy_file(KEY, key);
    copy_file(CERTIFICATE, certificate);
    snprintf(settings, sizeof(settings),
             "client_tls_sslmode = allow\nclient_tls_key_file = %s\nclient_tls_cert_file = %s\n",
             key, certificate);
    running = takes(settings, NULL);
    copy_file(OTHER_KEY, key);
    refuses(settings, "ERROR client_tls: "); /* in the middle of the change */
    copy_file(OTHER_CERTIFICATE, certificate);
    next = takes(settings, running);
    assert_ptr_not_equal(next->client_tls, running->client_tls);
    assert_ptr_equal(next->server_tls, running->server_tls);
    snapshot_release(running);
    snapshot_release(next);
    unlink(key);
    unlink(certificate);
    rmdir(folder);
}

static void what_set_cannot_apply_leaves_modes_and_contexts(void **state)
{
    struct snapshot *running = takes("client_tls_sslmode = allow\n" WITH_KEY, NULL);
    struct snapshot *changed = snapshot_with_setting(running, "client_tls_sslmode", "verify-full");

    (void)state;
    assert_false(set_up(changed, running)); /* no authorities */
    tls_setup_keep(changed, running);
    assert_int_equal(changed->settings.client_tls_sslmode, TLS_MODE_ALLOW);
    assert_ptr_equal(changed->client_tls, running->client_tls);
    assert_ptr_equal(changed->server_tls, running->server_tls);
    snapshot_release(running);
    /* One of two that go together only: it is kept, and the second one puts both in force. */
    running = changed;
    changed = snapshot_with_setting(running, "client_tls_key_file", OTHER_KEY);
    assert_false(set_up(changed, running));
    tls_setup_keep(changed, running);
    assert_ptr_equal(changed->client_tls, running->client_tls);
    snapshot_release(running);
    running = changed;
    changed = snapshot_with_setting(running, "client_tls_cert_file", OTHER_CERTIFICATE);
    assert_true(set_up(changed, running));
    assert_ptr_not_equal(changed->client_tls, running->client_tls);
    snapshot_release(running);
    snapshot_release(changed);
}

static void settings_of_tls_are_known_by_their_names(void **state)
{
    size_t count = 0;

    (void)state;
    for (size_t i = 0; i < settings_count; i++)
        count += tls_setup_is_about(settings_table[i].name);
    assert_int_equal(count, 16);
    assert_true(tls_setup_is_about("client_tls13_ciphers"));
    assert_true(tls_setup_is_about("server_tls_sslmode"));
    assert_false(tls_setup_is_about("server_lifetime"));
    assert_false(tls_setup_is_about("auth_type"));
}

static int init(void **state)
{
    (void)state;
    return tls_init() ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_prefer_to_servers_and_nothing_to_clients),
        cmocka_unit_test(clients_need_a_key_a_certificate_and_authorities_to_verify),
        cmocka_unit_test(auth_type_cert_needs_certificates),
        cmocka_unit_test(servers_need_authorities_to_verify_and_keys_their_certificates),
        cmocka_unit_test(words_are_judged_with_the_name_of_their_setting),
        cmocka_unit_test(what_is_the_same_is_the_running_context),
        cmocka_unit_test(new_contents_of_the_same_path_are_a_new_context),
        cmocka_unit_test(what_set_cannot_apply_leaves_modes_and_contexts),
        cmocka_unit_test(settings_of_tls_are_known_by_their_names),
    };

    return cmocka_run_group_tests(tests, init, NULL);
}
