/* Chains of certificates, good and bad, shown by both sides: believed are those that openssl believes. The chains
 * and openssl's verdicts are made by tls_chains/make.sh. */
#include "unit.h"

#include "crypto/tls.h"
#include "crypto/tls_chain.h"

#include <stdlib.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn_public.h>

#define FOLDER "tests/unit/tls_chains/"

/* ---- where we differ, and why ---- */

enum { REFUSED, BELIEVED, REFUSED_BY_TLS_1_2 };

static const struct {
    const char *name;
    int verdict;
    const char *why;
} differences[] = {
    {"root_missing", BELIEVED, "who is in the file is trusted, also without an issuer"},
    {"good_and_wrong_between", REFUSED, "the library ends at a wrong signature, needed or not"},
    {"use_anyExtendedKeyUsage", BELIEVED, "RFC 5280, 4.2.1.12"},
    {"use_critical_anyExtendedKeyUsage", BELIEVED, "the same"},
    {"limit_from_above_dns_good", REFUSED,
     "the library holds an authority's common name for a host's"},
    {"limit_from_above_dns_same", REFUSED, "the same"},
    {"limit_from_above_dns_without_name", REFUSED, "the same"},
    {"limit_from_above_common_name_good", REFUSED, "the same"},
    {"limit_from_above_common_name_beside", REFUSED, "the same"},
    {"limit_dns_without_name", REFUSED, "the same for a user's"},
    {"limit_of_root_dns_without_name", REFUSED, "the same"},
    {"limit_uri", REFUSED, "limits for addresses of the web are not understood"},
    {"limit_of_root_uri", REFUSED, "the same"},
    {"limit_from_above_uri", REFUSED, "the same"},
#if !PGSPLICE_WOLFSSL_OWN
    {"between_bare_ca", REFUSED, "the packaged library wants a key usage"},
    {"between_for_servers", REFUSED, "the same"},
    {"between_for_clients", REFUSED, "the same"},
#endif
    {"root_rsa8192", REFUSED, "the library ends at 4096 bits"},
    {"key_keyEncipherment", REFUSED_BY_TLS_1_2,
     "no key exchange of ours is by its key: openssl's, too, ends then"},
    {"key_keyAgreement", REFUSED_BY_TLS_1_2, "the same"},
};

/* ---- the file ---- */

enum { NAMES_MAX = 12, CASES_MAX = 400, ITEMS_MAX = 600 };

struct item {
    char name[48];
    const char *pem;
    size_t bytes;
};

struct one {
    char name[64];
    char key[32];
    char trusted[128];
    char shown[256];
    int as_server, as_client;
};

static char *text;
static struct item certificates[ITEMS_MAX], keys[ITEMS_MAX];
static size_t certificate_count, key_count;
static struct one cases[CASES_MAX];
static size_t case_count;
static char folder[64];

static void add_item(struct item *items, size_t *count, const char *line, const char *name)
{
    const char *start = strchr(line, '\n') + 1;
    const char *end = strstr(strstr(start, "-----END"), "\n") + 1;

    assert_true(*count < ITEMS_MAX);
    items[*count].pem = start;
    items[*count].bytes = (size_t)(end - start);
    snprintf(items[(*count)++].name, sizeof(items->name), "%s", name);
}

static void read_file(void)
{
    FILE *file = fopen(FOLDER "chains", "r");
    char name[64];

    assert_non_null(file);
    text = calloc(1, 1 << 20);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    assert_true(feof(file));
    fclose(file);
    for (const char *line = text; line != NULL && *line != '\0';
         line = strchr(line, '\n'), line += line != NULL) {
        struct one *one = &cases[case_count];

        if (sscanf(line, "certificate %47s", name) == 1)
            add_item(certificates, &certificate_count, line, name);
        else if (sscanf(line, "key %47s", name) == 1)
            add_item(keys, &key_count, line, name);
        else if (sscanf(line, "case %63s %31s %127s %255s %d %d", one->name, one->key, one->trusted,
                        one->shown, &one->as_server, &one->as_client) == 6)
            assert_true(++case_count < CASES_MAX);
    }
    assert_true(case_count > 150);
}

static const struct item *find(const struct item *items, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(items[i].name, name) == 0)
            return &items[i];
    fail_msg("there is no %s", name);
    return NULL;
}

/* Writes those of the list into a file of the folder. */
static const char *write_list(const char *file_name, const struct item *items, size_t count,
                              const char *list)
{
    static char paths[4][96];
    static unsigned next;
    char *path = paths[next++ % 4], copy[256], *rest = copy, *name;
    FILE *file;

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, file_name);
    file = fopen(path, "w");
    assert_non_null(file);
    snprintf(copy, sizeof(copy), "%s", list);
    while ((name = strsep(&rest, ",")) != NULL) {
        const struct item *item = find(items, count, name);

        fwrite(item->pem, 1, item->bytes, file);
    }
    fclose(file);
    return path;
}

/* ---- two ends ---- */

struct pipe {
    struct tls_output output;
    uint8_t data[65536];
    size_t bytes;
};

static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    struct pipe *pipe = OWNER_OF(output, struct pipe, output);

    assert_true(pipe->bytes + bytes <= sizeof(pipe->data));
    memcpy(pipe->data + pipe->bytes, data, bytes);
    pipe->bytes += bytes;
    return true;
}

/* All of what has come goes in; what is left is not for the handshake. */
static enum tls_result step(struct tls *tls, struct pipe *in, struct pipe *out)
{
    enum tls_result result;

    tls_feed(tls, in->data, in->bytes);
    result = tls_handshake(tls, &out->output);
    tls_drop_input(tls);
    in->bytes = 0;
    return result;
}

static enum tls_result ends[2]; /* of client and server */
static char errors[2][TLS_ERROR_BYTES];

static void shake(struct tls_context *client_context, struct tls_context *server_context)
{
    static struct pipe to_server, to_client;
    struct tls *client = tls_create(client_context, NULL);
    struct tls *server = tls_create(server_context, NULL);

    to_server = (struct pipe){.output.put = put};
    to_client = (struct pipe){.output.put = put};
    ends[0] = ends[1] = TLS_WANT_INPUT;
    ends[0] = tls_handshake(client, &to_server.output);
    for (bool moved = true; moved;) {
        moved = false;
        if (ends[1] == TLS_WANT_INPUT && to_server.bytes > 0) {
            ends[1] = step(server, &to_server, &to_client);
            moved = true;
        }
        if (ends[0] == TLS_WANT_INPUT && to_client.bytes > 0) {
            ends[0] = step(client, &to_client, &to_server);
            moved = true;
        }
    }
    snprintf(errors[0], TLS_ERROR_BYTES, "%s", tls_error(client));
    snprintf(errors[1], TLS_ERROR_BYTES, "%s", tls_error(server));
    tls_destroy(client);
    tls_destroy(server);
}

static const char suites[] =
    "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";

/* Our own end would not use these: see short_keys_are_refused, between_critical_unknown. */
static bool cannot_be_shown(const struct one *one)
{
    return strncmp(one->name, "leaf_rsa1", 9) == 0 || strcmp(one->name, "leaf_prime192v1") == 0 ||
           strcmp(one->name, "critical_unknown") == 0;
}

/* What is said of the chain: NULL, it is believed. */
static const char *judge(const struct one *one, enum tls_side judge_side, unsigned protocol)
{
    static char error[TLS_ERROR_BYTES];
    bool by_client = judge_side == TLS_SIDE_CLIENT;
    struct tls_options judging = {
        .side = judge_side, .protocols = protocol, .verify = TLS_VERIFY_CHAIN, .suites = suites};
    struct tls_options showing = {.side = by_client ? TLS_SIDE_SERVER : TLS_SIDE_CLIENT,
                                  .protocols = protocol,
                                  .suites = suites};
    struct tls_context *judge_context, *show_context;

    judging.authorities_file = write_list("trusted", certificates, certificate_count, one->trusted);
    showing.certificate_file = write_list("shown", certificates, certificate_count, one->shown);
    showing.key_file = write_list("key", keys, key_count, one->key);
    if (!by_client) {
        judging.certificate_file = "tests/unit/tls/p256.pem";
        judging.key_file = "tests/unit/tls/p256.key";
    }
    judge_context = tls_context_create(&judging, error);
    if (judge_context == NULL)
        return error;
    show_context = tls_context_create(&showing, error);
    if (show_context == NULL) {
        if (!cannot_be_shown(one))
            print_error("%s is not tried: %s\n", one->name, error);
        tls_context_release(judge_context);
        return error;
    }
    shake(by_client ? judge_context : show_context, by_client ? show_context : judge_context);
    tls_context_release(judge_context);
    tls_context_release(show_context);
    snprintf(error, sizeof(error), "%s", errors[by_client ? 0 : 1]);
    if (ends[by_client ? 0 : 1] == TLS_OK)
        return NULL;
    if (error[0] == '\0')
        snprintf(error, sizeof(error), "no word, the other end: %s", errors[by_client ? 1 : 0]);
    return error;
}

/* ---- tests ---- */

static bool is_expected(const struct one *one, int of_openssl, bool is_believed, unsigned protocol)
{
    for (size_t i = 0; i < COUNT_OF(differences); i++)
        if (strcmp(differences[i].name, one->name) == 0)
            return differences[i].verdict == REFUSED_BY_TLS_1_2
                       ? is_believed == (of_openssl && protocol == TLS_PROTOCOL_1_3)
                       : is_believed == (differences[i].verdict == BELIEVED);
    return of_openssl == is_believed;
}

static void believed_is_what_openssl_believes(void **state)
{
    unsigned wrong = 0;

    (void)state;
    for (size_t i = 0; i < 4 * case_count; i++) {
        const struct one *one = &cases[i / 4];
        unsigned protocol = i % 2 == 0 ? TLS_PROTOCOL_1_3 : TLS_PROTOCOL_1_2;
        bool by_client = i / 2 % 2 == 0;
        const char *error = judge(one, by_client ? TLS_SIDE_CLIENT : TLS_SIDE_SERVER, protocol);
        int of_openssl = by_client ? one->as_server : one->as_client;

        if (getenv("CHAINS_SHOW") != NULL)
            print_message("%s by %s: %s\n", one->name, by_client ? "client" : "server", error);
        if (is_expected(one, of_openssl, error == NULL, protocol))
            continue;
        print_error("%s by the %s, TLS 1.%c: openssl %d, we: %s\n", one->name,
                    by_client ? "client" : "server", i % 2 == 0 ? '3' : '2', of_openssl,
                    error == NULL ? "believed" : error);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- what the handshakes above cannot show ---- */

static struct certificate der_of(const char *name)
{
    static uint8_t der[8][8192];
    static unsigned next;
    const struct item *item = find(certificates, certificate_count, name);
    uint8_t *data = der[next++ % 8];
    int bytes = wc_CertPemToDer((const unsigned char *)item->pem, (int)item->bytes, data,
                                sizeof(der[0]), CERT_TYPE);

    assert_true(bytes > 0);
    return (struct certificate){.der = data, .bytes = (size_t)bytes};
}

/* At each handshake, not only when the file is read. */
static void authority_that_has_expired_meanwhile_is_not_believed(void **state)
{
    enum { YEAR = 31556952 };
    struct certificate shown = der_of("plain");
    struct tls_authorities authorities = {.items = NULL};
    struct tls_chain chain = {.authorities = &authorities,
                              .shown = &shown,
                              .shown_count = 1,
                              .use = CERTIFICATE_OF_SERVER,
                              .is_leaf_verified = true};

    (void)state;
    assert_true(tls_authorities_add(&authorities, der_of("until_2049")));
    chain.now = INT64_C(70) * YEAR;
    assert_null(tls_chain_fault(&chain));
    chain.now = INT64_C(90) * YEAR;
    assert_string_equal(tls_chain_fault(&chain), "an authority of the certificate has expired");
    /* Another one of the same name and key may be valid. */
    assert_true(tls_authorities_add(&authorities, der_of("root")));
    assert_null(tls_chain_fault(&chain));
    chain.now = INT64_C(40) * YEAR;
    assert_string_equal(tls_chain_fault(&chain), "certificate is not valid yet");
    chain.now = INT64_C(170) * YEAR;
    assert_string_equal(tls_chain_fault(&chain), "certificate has expired");
    tls_authorities_free(&authorities);
}

static void short_keys_are_refused(void **state)
{
    static const char *const names[] = {"leaf_rsa1024", "leaf_rsa1536", "leaf_prime192v1",
                                        "leaf_rsa2048", "leaf_secp384r1"};
    struct tls_authorities authorities = {.items = NULL};

    (void)state;
    assert_true(tls_authorities_add(&authorities, der_of("root")));
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct certificate shown = der_of(names[i]);
        struct tls_chain chain = {.authorities = &authorities,
                                  .shown = &shown,
                                  .shown_count = 1,
                                  .now = 1800000000,
                                  .is_leaf_verified = true};
        const char *fault = tls_chain_fault(&chain);

        if (i < 3)
            assert_string_equal(fault, "peer's key is too short");
        else
            assert_null(fault);
    }
    tls_authorities_free(&authorities);
}

/* Names alone are no path: whoever makes a certificate chooses them. */
static void signatures_are_what_counts(void **state)
{
    static const struct {
        const char *trusted;
        const char *shown[3];
        bool is_leaf_verified;
        bool is_good;
    } paths[] = {
        {"root", {"plain"}, false, true},
        {"root", {"wrong"}, false, false}, /* another last byte of the signature */
        {"root", {"of_mid", "mid"}, false, true},
        {"root", {"of_mid", "mid"}, true, true},
        {"root", {"of_mid", "stolen"}, true, false}, /* the same for one between */
        {"root", {"of_mid", "fake_same"}, true, false},
        {"root", {"of_fake", "mid"}, true, false},
        {"root", {"of_fake", "mid"}, false, false},
        {"root", {"of_low", "mid", "low"}, false, true}, /* not in order */
        {"root", {"of_low", "stolen", "low"}, false, false},
        {"root", {"of_mid"}, true, false}, /* the library knows more than was shown */
        {"mid", {"of_mid"}, true, true},
        {"fake_mid", {"of_mid"}, true, false}, /* its name, another key */
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        struct tls_authorities authorities = {.items = NULL};
        struct certificate shown[3];
        struct tls_chain chain = {.authorities = &authorities,
                                  .shown = shown,
                                  .now = 1800000000,
                                  .is_leaf_verified = paths[i].is_leaf_verified};
        const char *fault;

        while (chain.shown_count < 3 && paths[i].shown[chain.shown_count] != NULL) {
            shown[chain.shown_count] = der_of(paths[i].shown[chain.shown_count]);
            chain.shown_count++;
        }
        assert_true(tls_authorities_add(&authorities, der_of(paths[i].trusted)));
        fault = tls_chain_fault(&chain);
        if ((fault == NULL) != paths[i].is_good)
            fail_msg("path %zu: %s", i, fault);
        tls_authorities_free(&authorities);
    }
}

static void dates_are_read_to_the_second(void **state)
{
    struct certificate_facts facts;

    (void)state;
    assert_true(certificate_read_facts(der_of("until_2049"), &facts));
    assert_int_equal(facts.not_before, 1767225600); /* 2026-01-01 */
    assert_int_equal(facts.not_after,
                     2493072000); /* 2049-01-01, the last years of the short form */
    assert_true(certificate_read_facts(der_of("dates_far"), &facts));
    assert_int_equal(facts.not_before, -631152000);         /* 1950-01-01, the first */
    assert_int_equal(facts.not_after, INT64_C(7258118400)); /* 2200-01-01 */
}

static void refusals_say_why(void **state)
{
    static const struct {
        const char *name;
        const char *error;
    } words[] = {
        {"leaf_rsa_md5", "certificate is signed by a weak hash (MD5, SHA-1)"},
        {"leaf_sha1", "certificate is signed by a weak hash (MD5, SHA-1)"},
        {"signed_pss_sha1", "certificate is signed by a weak hash (MD5, SHA-1)"},
        {"between_sha1", "an authority of the certificate is signed by a weak hash (MD5, SHA-1)"},
        {"root_rsa8192",
         "certificate cannot be read, or is signed by an RSA key of more than 4096 bits"},
        {"between_alone", "certificate is not of a trusted authority"},
        {"fake_of_the_same_id", "certificate is not of a trusted authority"},
        {"by_trusted_leaf", "certificate's chain has a certificate that is no authority's"},
        {"root_length_0_between", "certificate's chain is longer than its authority allows"},
#if PGSPLICE_WOLFSSL_OWN /* see the differences */
        {"between_for_mail", "an authority of the certificate is not for this use"},
#endif
        {"limit_of_root_ip_bad", "certificate has a name that its authority may not give"},
        {"limit_from_above_ip_bad", "certificate has a name that its authority may not give"},
        {"limit_of_root_dns_suffix", "certificate has a name that its authority may not give"},
        {"between_critical_unknown", "certificate has a critical extension that is not known"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        const struct one *one = cases;
        const char *error;

        while (one < cases + case_count && strcmp(one->name, words[i].name) != 0)
            one++;
        assert_true(one < cases + case_count);
        error = judge(one, TLS_SIDE_CLIENT, TLS_PROTOCOL_1_3);
        if (error == NULL || strcmp(error, words[i].error) != 0)
            fail_msg("%s: %s", words[i].name, error);
    }
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/tls_chains_XXXXXX");
    if (mkdtemp(folder) == NULL || !tls_init())
        return 1;
    read_file();
    return 0;
}

static int take_down(void **state)
{
    static const char *const names[] = {"trusted", "shown", "key"};
    char path[96];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        unlink(path);
    }
    free(text);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(believed_is_what_openssl_believes),
        cmocka_unit_test(refusals_say_why),
        cmocka_unit_test(authority_that_has_expired_meanwhile_is_not_believed),
        cmocka_unit_test(signatures_are_what_counts),
        cmocka_unit_test(short_keys_are_refused),
        cmocka_unit_test(dates_are_read_to_the_second),
    };

    return cmocka_run_group_tests(tests, set_up, take_down);
}
