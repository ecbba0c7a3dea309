/* test_tls_ciphers.c - the words of the TLS settings: cipher lists mean what OpenSSL's program says that they
 * mean, as far as our table goes; what is never offered is not offered whatever a list says. */
#include "unit.h"

#include "crypto/tls_ciphers.h"

#include <stdio.h>
#include <stdlib.h>

static struct tls_cipher_list list;

static const char *translate(const char *text, unsigned flags)
{
    if (!tls_ciphers_translate(text, flags, &list))
        assert_string_equal(list.suites, "");
    return list.suites;
}

/* `text` may be NULL. */
static bool has_suite(const char *text, const char *suite)
{
    size_t bytes = strlen(suite);

    for (const char *at = text; (at = strstr(at, suite)) != NULL; at += bytes)
        if ((at == text || at[-1] == ':') && (at[bytes] == ':' || at[bytes] == '\0'))
            return true;
    return false;
}

/* ---- against OpenSSL ---- */

/* What OpenSSL makes of a list, without the suites that we do not have. */
static void ask_openssl(const char *text, char answer[TLS_SUITES_BYTES])
{
    static char ours[TLS_SUITES_BYTES];
    char command[1024], line[16 * 1024] = "";
    FILE *pipe;

    assert_true(tls_ciphers_translate("ALL", TLS_CIPHERS_FAST_AES, &list));
    memcpy(ours, list.suites, sizeof(ours));
    assert_null(strchr(text, '\''));
    snprintf(command, sizeof(command),
             "OPENSSL_CONF=/dev/null openssl ciphers -s -tls1_2 '%s%s' 2>/dev/null",
             *text == '-' ? ":" : "" /* no option */, text);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    if (fgets(line, sizeof(line), pipe) == NULL)
        line[0] = '\0';
    (void)pclose(pipe);
    line[strcspn(line, "\n")] = '\0';
    answer[0] = '\0';
    for (char *name = strtok(line, ":"); name != NULL; name = strtok(NULL, ":"))
        if (has_suite(ours, name)) {
            if (answer[0] != '\0')
                strcat(answer, ":");
            strcat(answer, name);
        }
}

static void check_against_openssl(const char *text)
{
    char expected[TLS_SUITES_BYTES];

    ask_openssl(text, expected);
    translate(text, TLS_CIPHERS_FAST_AES);
    if (strcmp(expected, list.suites) != 0)
        fail_msg("%s\nOpenSSL: %s\nhere:    %s", text, expected, list.suites);
}

static void lists_mean_what_openssl_means(void **state)
{
    static const char *const lists[] = {
        "ALL",
        "HIGH",
        "HIGH:!aNULL",
        "HIGH:!aNULL:!MD5:!RC4:!3DES",
        "HIGH:MEDIUM:+3DES:!aNULL",
        "HIGH:+SHA256:+kRSA:!kRSA",
        "DEFAULT:!kRSA",
        "DEFAULT@SECLEVEL=1",
        "DEFAULT:@SECLEVEL=3",
        "ALL:@SECLEVEL=4",
        "ALL:@SECLEVEL=5",
        "HIGH:!kRSA:@STRENGTH",
        "AES128:AES256:@STRENGTH",
        "AES128:AES256",
        "AESGCM",
        "AESCCM",
        "AES:-AESGCM",
        "AES:-AESGCM:AESGCM",
        "AES:!AESGCM:AESGCM",
        "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM",
        "ECDHE+aECDSA+AESGCM,ECDHE+aRSA+AESGCM",
        "EECDH+AESGCM:EDH+AESGCM:AES256+EECDH:AES256+EDH",
        "kEECDH+ECDSA:kEECDH:kEDH:HIGH:+SHA:+RC4:RC4:!aNULL:!eNULL:!LOW:!MD5:!EXP:!DSS:!PSK",
        "TLSv1.2+FIPS:kRSA+FIPS:!eNULL:!aNULL",
        "TLSv1.2",
        "TLSv1",
        "TLSv1.0",
        "SSLv3",
        "CHACHA20",
        "CHACHA20:AES128+SHA256",
        "SHA1",
        "SHA:SHA384",
        "CBC",
        "RSA",
        "kRSA:aECDSA",
        "ECDSA+AES128 ECDH+AES256;DH",
        "COMPLEMENTOFDEFAULT",
        "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
        "AES128-SHA:AES256-SHA:ALL:+AES256-SHA",
        "ALL:-AES256-SHA:AES256-SHA",
        "ALL:!ECDHE-RSA-AES128-SHA+ECDHE",
        "HIGH!aNULL!kRSA",
        "HIGH@STRENGTH",
        "ALL:+AESGCM:+CHACHA20",
        "HIGH:NOSUCHWORD:+NOSUCHWORD",
        "ECDHE+NOSUCHWORD:AES128-SHA",
        "AES128:-ALL:ALL",
        "RC4:3DES:aNULL:eNULL:PSK",
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
        "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
        "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-DES-CBC3-SHA:AES128-GCM-SHA256:DES-CBC3-SHA:!DSS",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        check_against_openssl(lists[i]);
}

static void random_lists_mean_what_openssl_means(void **state)
{
    static const char *const words[] = {
        "ALL",      "HIGH",  "ECDHE",     "DHE",    "kRSA",       "aRSA",
        "ECDSA",    "AES",   "AES128",    "AES256", "AESGCM",     "AESCCM",
        "CHACHA20", "SHA1",  "SHA256",    "SHA384", "TLSv1.2",    "CBC",
        "aNULL",    "3DES",  "MEDIUM",    "FIPS",   "AES256-SHA", "ECDHE-RSA-AES128-GCM-SHA256",
        "EDH",      "SSLv3", "@STRENGTH", "kEECDH", "DH",         "COMPLEMENTOFDEFAULT",
    };
    static const char marks[] = {'\0', '\0', '\0', '\0', '!', '-', '-', '+', '+'};

    uint64_t seed = 1;

    (void)state;
    for (unsigned round = 0; round < 150; round++) {
        char text[512] = "";
        size_t used = 0;
        uint64_t parts = 1 + random_below(&seed, 7);

        for (uint64_t i = 0; i < parts; i++) {
            const char *word = words[random_below(&seed, COUNT_OF(words))];
            char mark = *word == '@' ? '\0' : marks[random_below(&seed, COUNT_OF(marks))];

            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%.1s%s",
                                     used == 0 ? "" : ":", &mark, word);
            if (*word != '@' && random_below(&seed, 3) == 0) {
                do
                    word = words[random_below(&seed, COUNT_OF(words))];
                while (*word == '@');
                used += (size_t)snprintf(text + used, sizeof(text) - used, "+%s", word);
            }
        }
        check_against_openssl(text);
    }
}

static void names_of_iana_are_names_too(void **state)
{
    (void)state;
    assert_string_equal(
        translate("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:"
                  "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:TLS_RSA_WITH_AES_128_CBC_SHA",
                  0),
        "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:AES128-SHA");
    assert_string_equal(list.unknown, "");
}

/* ---- our own words ---- */

static void our_default_is_the_fastest_first(void **state)
{
    static const char *const words[] = {"", "default", "secure", "normal", "fast", "DEFAULT", NULL};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        static const char first[] =
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
            "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
            "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:";
        static const char first_slow[] =
            "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
            "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305:";

        assert_memory_equal(translate(words[i], TLS_CIPHERS_FAST_AES), first, strlen(first));
        assert_false(has_suite(list.suites, "AES128-SHA"));
        assert_false(has_suite(list.suites, "AES256-GCM-SHA384"));
        assert_true(has_suite(list.suites, "DHE-RSA-AES128-SHA"));
        assert_memory_equal(translate(words[i], 0), first_slow, strlen(first_slow));
        assert_string_equal(list.unknown, "");
    }
}

static void words_of_groups_have_chacha_first_where_aes_is_slow(void **state)
{
    static const char chacha[] =
        "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256";

    (void)state;
    assert_memory_equal(translate("HIGH:!aNULL", 0), chacha, strlen(chacha));
    /* Names keep the order in which they stand. */
    assert_string_equal(translate("AES128-SHA:ECDHE-RSA-CHACHA20-POLY1305", 0),
                        "AES128-SHA:ECDHE-RSA-CHACHA20-POLY1305");
}

static void all_has_static_rsa_last_and_nothing_weak(void **state)
{
    static const char last[] = ":AES256-GCM-SHA384:AES128-GCM-SHA256:AES256-SHA256:AES128-SHA256:"
                               "AES256-SHA:AES128-SHA";
    static const char *const weak[] = {"RC4", "DES", "NULL", "PSK", "ADH", "AECDH", "MD5", "CCM8"};

    (void)state;
    translate("all", TLS_CIPHERS_FAST_AES);
    assert_string_equal(list.suites + strlen(list.suites) - strlen(last), last);
    translate("ALL:COMPLEMENTOFALL:eNULL:aNULL:RC4:3DES:PSK:ADH:LOW:EXP:AESCCM8@SECLEVEL=0", 0);
    for (size_t i = 0; i < COUNT_OF(weak); i++)
        assert_null(strstr(list.suites, weak[i]));
    assert_string_equal(list.unknown, "");
}

static void without_curves_or_parameters_their_suites_are_gone(void **state)
{
    (void)state;
    translate("ALL", TLS_CIPHERS_WITHOUT_ECDHE);
    assert_null(strstr(list.suites, "ECDHE"));
    assert_true(has_suite(list.suites, "DHE-RSA-AES128-SHA"));
    translate("ALL", TLS_CIPHERS_WITHOUT_DHE);
    assert_false(has_suite(list.suites, "DHE-RSA-AES128-SHA"));
    assert_true(has_suite(list.suites, "ECDHE-RSA-AES128-SHA"));
    assert_false(tls_ciphers_translate("default",
                                       TLS_CIPHERS_WITHOUT_DHE | TLS_CIPHERS_WITHOUT_ECDHE, &list));
}

static void what_is_not_known_is_named(void **state)
{
    static const struct {
        const char *list, *unknown;
        bool is_good;
    } cases[] = {
        {"HIGH:high", "high", true},
        {"NIX", "NIX", false},
        {"HIGH:!NIX:AES12", "NIX, AES12", true},
        {"RC4-SHA:AES128-SHA", "RC4-SHA", true},
        {"RC4-SHA", "RC4-SHA", false},
        {"HIGH:!RC4-SHA:-DES-CBC3-SHA:!aNULL", "", true}, /* not ours, so it is not there */
        {"TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", false},
        {"HIGH:@NIX:@SECLEVEL=6:@SECLEVEL", "@NIX, @SECLEVEL=6, @SECLEVEL", true},
        {"HIGH:!", "!", true},
        {"HIGH:AES+", "AES+", true},
        {"HIGH:+", "+", true},
        {"HIGH:/etc/passwd", "/etc/passwd", true},
        {"HIGH:\001\377", "(not printable)", true},
        {"!ALL:HIGH", "", false},
        {"aNULL:eNULL", "", false},
        {":", "", false},
        {"@STRENGTH", "", false},
        {"NIX:DEFAULT", "NIX, DEFAULT", false}, /* OpenSSL knows it at the beginning only */
    };
    char text[2048] = "HIGH";

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        bool is_good = tls_ciphers_translate(cases[i].list, TLS_CIPHERS_FAST_AES, &list);

        if (is_good != cases[i].is_good || strcmp(list.unknown, cases[i].unknown) != 0)
            fail_msg("%s: %d, \"%s\"", cases[i].list, is_good, list.unknown);
    }
    for (size_t i = 0; i < 100; i++)
        strcat(text, ":UNKNOWN");
    assert_true(tls_ciphers_translate(text, 0, &list));
    assert_true(strlen(list.unknown) < sizeof(list.unknown));
    assert_string_equal(list.unknown + strlen(list.unknown) - 8, "OWN, ...");
}

/* ---- TLS 1.3 ---- */

static void suites_of_tls_13_are_names(void **state)
{
    (void)state;
    assert_true(tls_ciphers_translate_13(NULL, TLS_CIPHERS_FAST_AES, &list));
    assert_string_equal(
        list.suites, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
    assert_true(tls_ciphers_translate_13("", 0, &list));
    assert_string_equal(
        list.suites, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384");
    assert_true(tls_ciphers_translate_13("TLS_AES_256_GCM_SHA384:NIX:TLS_AES_128_CCM_SHA256:"
                                         "TLS_AES_256_GCM_SHA384 TLS_AES_128_GCM_SHA25",
                                         0, &list));
    assert_string_equal(list.suites, "TLS_AES_256_GCM_SHA384:TLS_AES_128_CCM_SHA256");
    assert_string_equal(list.unknown, "NIX, TLS_AES_128_GCM_SHA25");
    assert_false(tls_ciphers_translate_13("HIGH", 0, &list));
    assert_false(tls_ciphers_translate_13(":", 0, &list));
}

/* ---- versions and curves ---- */

static void protocols_are_versions_or_words(void **state)
{
    enum {
        P10 = TLS_PROTOCOL_1_0,
        P11 = TLS_PROTOCOL_1_1,
        P12 = TLS_PROTOCOL_1_2,
        P13 = TLS_PROTOCOL_1_3
    };
    static const struct {
        const char *list;
        unsigned protocols; /* 0: refused */
    } cases[] = {
        {"secure", P12 | P13},
        {"default", P12 | P13},
        {"all", P10 | P11 | P12 | P13},
        {"legacy", P10 | P11 | P12 | P13},
        {"tlsv1", P10 | P11 | P12 | P13},
        {"tlsv1.0", P10},
        {"tlsv1.1", P11},
        {"tlsv1.2", P12},
        {"TLSv1.3", P13},
        {" tlsv1.1 ,\ttlsv1.2", P11 | P12},
        {"tlsv1.2:tlsv1.3", P12 | P13},
        {"tlsv1.2,tlsv1.2", P12},
        {"!tlsv1.0", P11 | P12 | P13},
        {"!tlsv1.0,!tlsv1.1", P12 | P13},
        {"all,!tlsv1.0", P11 | P12 | P13},
        {"secure,!tlsv1.3", P12},
        {"tlsv1.2,!secure", 0},
        {"!all", 0},
        {"tlsv1.3,!tlsv1.3,tlsv1.2", P12},
        {"", 0},
        {",", 0},
        {"tlsv1.2,", 0},
        {"tlsv1.4", 0},
        {"sslv3", 0},
        {"tlsv1.2 tlsv1.3", 0},
        {"! tlsv1.2", 0},
        {"!", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        unsigned protocols = 99;
        bool is_good = tls_protocols_parse(cases[i].list, &protocols);

        if (is_good != (cases[i].protocols != 0) || (is_good && protocols != cases[i].protocols))
            fail_msg("%s: %d, %x", cases[i].list, is_good, protocols);
    }
}

static void curves_have_two_names(void **state)
{
    static const struct {
        const char *list;
        enum tls_groups_result result;
        const char *groups;
    } cases[] = {
        {NULL, TLS_GROUPS_GOOD, ""},
        {"", TLS_GROUPS_GOOD, ""},
        {"auto", TLS_GROUPS_GOOD, ""},
        {"AUTO", TLS_GROUPS_GOOD, ""},
        {"none", TLS_GROUPS_NONE, ""},
        {"prime256v1", TLS_GROUPS_GOOD, "P-256"},
        {"P-256", TLS_GROUPS_GOOD, "P-256"},
        {"secp384r1", TLS_GROUPS_GOOD, "P-384"},
        {"secp521r1", TLS_GROUPS_GOOD, "P-521"},
        {"x25519", TLS_GROUPS_GOOD, "X25519"},
        {"X25519:prime256v1, P-384", TLS_GROUPS_GOOD, "X25519:P-256:P-384"},
        {"P-256:prime256v1:secp256r1", TLS_GROUPS_GOOD, "P-256"},
        {"X25519:P-256:P-384:P-521:X25519", TLS_GROUPS_GOOD, "X25519:P-256:P-384:P-521"},
        {"brainpoolP256r1", TLS_GROUPS_BAD, NULL},
        {"auto:P-256", TLS_GROUPS_BAD, NULL},
        {"P-256:", TLS_GROUPS_BAD, NULL},
        {":", TLS_GROUPS_BAD, NULL},
    };
    char groups[TLS_GROUPS_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        enum tls_groups_result result = tls_groups_parse(cases[i].list, groups);

        if (result != cases[i].result ||
            (cases[i].groups != NULL && strcmp(groups, cases[i].groups) != 0))
            fail_msg("%s: %d, \"%s\"", cases[i].list, (int)result, groups);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_mean_what_openssl_means),
        cmocka_unit_test(random_lists_mean_what_openssl_means),
        cmocka_unit_test(names_of_iana_are_names_too),
        cmocka_unit_test(our_default_is_the_fastest_first),
        cmocka_unit_test(words_of_groups_have_chacha_first_where_aes_is_slow),
        cmocka_unit_test(all_has_static_rsa_last_and_nothing_weak),
        cmocka_unit_test(without_curves_or_parameters_their_suites_are_gone),
        cmocka_unit_test(what_is_not_known_is_named),
        cmocka_unit_test(suites_of_tls_13_are_names),
        cmocka_unit_test(protocols_are_versions_or_words),
        cmocka_unit_test(curves_have_two_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
