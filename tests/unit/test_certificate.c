#include "unit.h"

#include "crypto/certificate.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn_public.h>

#define FOLDER "tests/unit/tls/"

/* ---- certificates from files ---- */

static struct certificate load(const char *name)
{
    static uint8_t pem[16384], der[16384];
    char path[256];
    FILE *file;
    size_t bytes;
    int der_bytes;

    snprintf(path, sizeof(path), FOLDER "%s.pem", name);
    file = fopen(path, "r");
    assert_non_null(file);
    bytes = fread(pem, 1, sizeof(pem), file);
    fclose(file);
    der_bytes = wc_CertPemToDer(pem, (int)bytes, der, sizeof(der), CERT_TYPE);
    assert_true(der_bytes > 0);
    return (struct certificate){.der = der, .bytes = (size_t)der_bytes};
}

static void host_is_one_of_the_alternative_names(void **state)
{
    static const struct {
        const char *certificate;
        const char *host;
        bool fits;
    } cases[] = {
        {"p256", "db.example.com", true},
        {"p256", "DB.Example.COM", true},
        {"p256", "db.example.co", false},
        {"p256", "db.example.comm", false},
        {"p256", "b.example.com", false},
        {"p256", "", false},
        {"p256", "unused.example.com", false}, /* the common name, but there are others */
        {"p256", "a.wild.example.com", true},
        {"p256", "A.WILD.example.com", true},
        {"p256", "a.b.wild.example.com", false},
        {"p256", "wild.example.com", false},
        {"p256", ".wild.example.com", false},
        {"p256", "*.wild.example.com", true},
        {"p256", "192.0.2.1", true},
        {"p256", "192.0.2.2", false},
        {"p256", "2001:db8::1", true},
        {"p256", "2001:0DB8:0:0::0001", true},
        {"p256", "2001:db8::2", false},
        {"p256", "::ffff:192.0.2.1", false},
        {"common", "db.example.com", true},
        {"common", "other.example.com", false},
        {"common", "192.0.2.1", false},
        {"common_ip", "192.0.2.1", true},
        {"common_ip", "192.0.2.2", false},
        {"only_ip", "db.example.com", true}, /* no alternative name of kind DNS */
        {"only_ip", "192.0.2.1", true},
        {"wild", "a.wild.example.com", true},
        {"wild", "a.b.wild.example.com", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (certificate_is_of_host(load(cases[i].certificate), cases[i].host) != cases[i].fits)
            fail_msg("%s of %s", cases[i].certificate, cases[i].host);
}

static void name_is_an_alternative_or_the_common_name(void **state)
{
    (void)state;
    assert_true(certificate_has_name(load("alice"), "alice"));
    assert_true(certificate_has_name(load("alice"), "Alice"));
    assert_true(certificate_has_name(load("alice"), "bob"));
    assert_false(certificate_has_name(load("alice"), "carol"));
    assert_false(certificate_has_name(load("alice"), "carol@example.com"));
    assert_false(certificate_has_name(load("alice"), "alic"));
    assert_false(certificate_has_name(load("alice"), "alicee"));
    assert_false(certificate_has_name(load("alice"), ""));
    assert_true(certificate_has_name(load("p256"), "unused.example.com"));
    assert_true(certificate_has_name(load("p256"), "192.0.2.1"));
}

static void end_point_is_what_openssl_says(void **state)
{
    FILE *file = fopen(FOLDER "end_points", "r");
    char name[32], expected[160];
    uint8_t hash[CERTIFICATE_HASH_BYTES_MAX];
    unsigned count = 0;

    (void)state;
    assert_non_null(file);
    while (fscanf(file, "%31s %159s", name, expected) == 2) {
        char text[2 * CERTIFICATE_HASH_BYTES_MAX + 1] = "";
        size_t bytes = certificate_end_point(load(name), hash);

        for (size_t i = 0; i < bytes; i++)
            snprintf(text + 2 * i, 3, "%02x", hash[i]);
        assert_string_equal(text, expected);
        count++;
    }
    fclose(file);
    assert_int_equal(count, 6);
    assert_int_equal(certificate_end_point(load("ed_signed"), hash), 0);
}

/* ---- certificates made by hand ---- */

struct der {
    uint8_t data[1024];
    size_t bytes;
};

static struct der der(uint8_t tag, const void *content, size_t bytes)
{
    struct der made = {.bytes = 0};

    made.data[made.bytes++] = tag;
    if (bytes >= 128) {
        made.data[made.bytes++] = 0x82;
        made.data[made.bytes++] = (uint8_t)(bytes >> 8);
    }
    made.data[made.bytes++] = (uint8_t)bytes;
    memcpy(made.data + made.bytes, content, bytes);
    made.bytes += bytes;
    return made;
}

static void append(struct der *to, struct der one)
{
    memcpy(to->data + to->bytes, one.data, one.bytes);
    to->bytes += one.bytes;
}

static struct der wrap(uint8_t tag, struct der content)
{
    return der(tag, content.data, content.bytes);
}

/* `names`: the inside of subjectAltName; empty: none. */
static struct der make(uint8_t text_tag, const char *common, size_t common_bytes, struct der names)
{
    struct der body = {.bytes = 0}, whole, pair = {.bytes = 0};
    struct der empty = der(0x30, "", 0);

    append(&pair, der(0x06, "\x55\x04\x03", 3));
    append(&pair, der(text_tag, common, common_bytes));
    append(&body, der(0xa0, "\x02\x01\x02", 3));
    append(&body, der(0x02, "\x01", 1));
    append(&body, empty);
    append(&body, empty);
    append(&body, empty);
    append(&body, wrap(0x30, wrap(0x31, wrap(0x30, pair))));
    append(&body, empty);
    if (names.bytes > 0) {
        struct der extension = {.bytes = 0};

        append(&extension, der(0x06, "\x55\x1d\x11", 3));
        append(&extension, der(0x01, "\xff", 1));
        append(&extension, wrap(0x04, wrap(0x30, names)));
        append(&body, wrap(0xa3, wrap(0x30, wrap(0x30, extension))));
    }
    whole = wrap(0x30, body);
    append(&whole, wrap(0x30, der(0x06, "\x2a\x86\x48\xce\x3d\x04\x03\x02", 8)));
    return wrap(0x30, whole);
}

static struct certificate of(const struct der *made)
{
    return (struct certificate){.der = made->data, .bytes = made->bytes};
}

static void zero_byte_ends_no_name(void **state)
{
    static const char evil[] = "db.example.com\0.evil.org";
    struct der none = {.bytes = 0};
    struct der by_common = make(0x0c, evil, sizeof(evil) - 1, none);
    struct der by_dns = make(0x0c, "x", 1, der(0x82, evil, sizeof(evil) - 1));
    struct der closed = make(0x0c, "db.example.com", sizeof("db.example.com"), none);
    struct der good = make(0x0c, "db.example.com", sizeof("db.example.com") - 1, none);

    (void)state;
    assert_true(certificate_is_of_host(of(&good), "db.example.com"));
    assert_false(certificate_is_of_host(of(&by_common), "db.example.com"));
    assert_false(certificate_is_of_host(of(&by_dns), "db.example.com"));
    assert_false(certificate_is_of_host(of(&closed), "db.example.com"));
    assert_false(certificate_has_name(of(&by_common), "db.example.com"));
    assert_false(certificate_has_name(of(&by_dns), "db.example.com"));
}

static void wildcard_is_one_whole_label(void **state)
{
    static const struct {
        const char *pattern;
        const char *host;
        bool fits;
    } cases[] = {
        {"*.b.c", "a.b.c", true},   {"*.b.c", "a.a.b.c", false}, {"*.b.c", ".b.c", false},
        {"*.c", "b.c", false},      {"*.", "a.", false},         {"*", "a", false},
        {"**.b.c", "a.b.c", false}, {"a*.b.c", "aa.b.c", false}, {"*a.b.c", "aa.b.c", false},
        {"a.*.c", "a.b.c", false},  {"*.*.c", "a.b.c", false},   {"*.0.0.1", "10.0.0.1", false},
        {"", "a", false},
    };
    struct der none = {.bytes = 0};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t bytes = strlen(cases[i].pattern);
        struct der common = make(0x13, cases[i].pattern, bytes, none);
        struct der dns = make(0x13, "x", 1, der(0x82, cases[i].pattern, bytes));

        if (certificate_is_of_host(of(&common), cases[i].host) != cases[i].fits ||
            certificate_is_of_host(of(&dns), cases[i].host) != cases[i].fits)
            fail_msg("\"%s\" and \"%s\"", cases[i].pattern, cases[i].host);
    }
}

static void text_of_an_address_is_no_address(void **state)
{
    struct der dns = make(0x0c, "x", 1, der(0x82, "192.0.2.1", 9));
    struct der short_ip = make(0x0c, "x", 1, der(0x87, "\xc0\x00\x02", 3));
    struct der utf16 = make(0x1e, "\0a", 2, (struct der){.bytes = 0});

    (void)state;
    assert_false(certificate_is_of_host(of(&dns), "192.0.2.1"));
    assert_false(certificate_is_of_host(of(&short_ip), "192.0.2.1"));
    assert_false(certificate_is_of_host(of(&utf16), "a"));
}

/* A list of names that cannot be read to its end says nothing: not even the common name counts. */
static void broken_list_of_names_fits_nothing(void **state)
{
    struct der names = der(0x86, "http://x", 8);
    struct der made;

    (void)state;
    append(&names, (struct der){.data = {0x82, 0x7f, 'a'}, .bytes = 3});
    made = make(0x0c, "a", 1, names);
    assert_false(certificate_is_of_host(of(&made), "a"));
    assert_false(certificate_has_name(of(&made), "a"));
}

/* Cut off anywhere, or with any bit wrong, nothing outside is read. */
static void broken_bytes_are_read_within_their_bounds(void **state)
{
    static const char *const names[] = {"p256", "pss", "rsa"};
    uint8_t hash[CERTIFICATE_HASH_BYTES_MAX];
    struct edge edge;
    size_t key_bytes;

    (void)state;
    edge_init(&edge, 4096);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct certificate whole = load(names[i]);

        for (size_t bytes = 0; bytes < whole.bytes; bytes++) {
            struct certificate cut = {.der = edge_copy(&edge, whole.der, bytes), .bytes = bytes};

            assert_false(certificate_is_of_host(cut, "db.example.com"));
            assert_false(certificate_has_name(cut, "db.example.com"));
            assert_int_equal(certificate_end_point(cut, hash), 0);
        }
        for (size_t bit = 0; bit < whole.bytes * 8; bit++) {
            uint8_t *copy = edge_copy(&edge, whole.der, whole.bytes);
            struct certificate wrong = {.der = copy, .bytes = whole.bytes};

            copy[bit / 8] ^= (uint8_t)BIT(bit % 8);
            (void)certificate_is_of_host(wrong, "db.example.com");
            (void)certificate_is_of_host(wrong, "192.0.2.1");
            (void)certificate_has_name(wrong, "unused.example.com");
            (void)certificate_end_point(wrong, hash);
            (void)certificate_public_key(wrong, &key_bytes);
        }
    }
    edge_release(&edge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_is_one_of_the_alternative_names),
        cmocka_unit_test(name_is_an_alternative_or_the_common_name),
        cmocka_unit_test(end_point_is_what_openssl_says),
        cmocka_unit_test(zero_byte_ends_no_name),
        cmocka_unit_test(wildcard_is_one_whole_label),
        cmocka_unit_test(text_of_an_address_is_no_address),
        cmocka_unit_test(broken_list_of_names_fits_nothing),
        cmocka_unit_test(broken_bytes_are_read_within_their_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
