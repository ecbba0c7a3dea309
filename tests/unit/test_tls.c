/* Two sessions in memory, one of each side, against each other. The certificates are made by tls/make.sh. */
#include "unit.h"

#include "crypto/certificate.h"
#include "crypto/tls.h"
#include "crypto/tls_memory.h"

#include <pthread.h>
#include <stdlib.h>

#if PGSPLICE_WOLFSSL_OWN
#include "crypto/tls_context.h"

#include <wolfssl/internal.h>
#endif

#define FOLDER "tests/unit/tls/"
#define PEM(name) FOLDER name ".pem"
#define KEY(name) FOLDER name ".key"

static const char all_suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/* Each nth byte of handshakes is changed: a sanitized handshake takes long. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { FLIP_STEP = 13 };
#else
enum { FLIP_STEP = 1 };
#endif

/* ---- two ends ---- */

/* What one end has put out and the other has not been fed yet. */
struct pipe {
    struct tls_output output;
    uint8_t *data;
    size_t bytes;
    size_t room;
    size_t puts;
    size_t total_bytes;
    bool fails;
};

static bool pipe_put(struct tls_output *output, const void *data, size_t bytes)
{
    struct pipe *pipe = OWNER_OF(output, struct pipe, output);

    if (pipe->fails)
        return false;
    if (pipe->bytes + bytes > pipe->room) {
        pipe->room = (pipe->bytes + bytes) * 2;
        pipe->data = realloc(pipe->data, pipe->room);
        assert_non_null(pipe->data);
    }
    memcpy(pipe->data + pipe->bytes, data, bytes);
    pipe->bytes += bytes;
    pipe->total_bytes += bytes;
    pipe->puts++;
    return true;
}

struct end {
    struct tls *tls;
    struct pipe out;
    uint8_t *fed; /* must stay while it is read */
    enum tls_result result;
};

static void end_open(struct end *end, struct tls_context *context, const char *host)
{
    *end = (struct end){.out.output.put = pipe_put, .result = TLS_WANT_INPUT};
    end->tls = tls_create(context, host);
    assert_non_null(end->tls);
}

static void end_close(struct end *end)
{
    tls_destroy(end->tls);
    free(end->out.data);
    free(end->fed);
}

/* Takes `bytes` out of the pipe's front and gives them to the end. */
static void feed(struct end *end, struct pipe *from, size_t bytes)
{
    assert_int_equal(tls_unread_bytes(end->tls), 0);
    free(end->fed);
    end->fed = malloc(bytes + 1);
    memcpy(end->fed, from->data, bytes);
    memmove(from->data, from->data + bytes, from->bytes - bytes);
    from->bytes -= bytes;
    tls_feed(end->tls, end->fed, bytes);
}

static void feed_rest(struct end *end, struct pipe *from)
{
    feed(end, from, from->bytes);
}

/* Until neither has anything to say, `piece` bytes at a time; 0: all there is. */
static void shake(struct end *client, struct end *server, size_t piece)
{
    client->result = tls_handshake(client->tls, &client->out.output);
    while (client->out.bytes > 0 || server->out.bytes > 0) {
        bool for_server = client->out.bytes > 0;
        struct end *end = for_server ? server : client;
        struct pipe *from = for_server ? &client->out : &server->out;

        if (end->result != TLS_WANT_INPUT) {
            /* It is done: what is left is for tls_read. */
            if (for_server && server->out.bytes == 0)
                return;
            if (!for_server || client->result != TLS_WANT_INPUT)
                return;
        }
        feed(end, from, piece == 0 ? from->bytes : MIN(piece, from->bytes));
        end->result = tls_handshake(end->tls, &end->out.output);
    }
}

/* ---- contexts ---- */

static struct tls_context *make_context(const struct tls_options *options)
{
    char error[TLS_ERROR_BYTES] = "";
    struct tls_context *context = tls_context_create(options, error);

    if (context == NULL)
        fail_msg("no context: %s", error);
    return context;
}

static struct tls_options server_options(void)
{
    return (struct tls_options){.side = TLS_SIDE_SERVER,
                                .protocols = TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3,
                                .certificate_file = PEM("p256"),
                                .key_file = KEY("p256"),
                                .suites = all_suites};
}

static struct tls_options client_options(void)
{
    return (struct tls_options){.side = TLS_SIDE_CLIENT,
                                .protocols = TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3,
                                .authorities_file = PEM("root"),
                                .verify = TLS_VERIFY_HOST,
                                .suites = all_suites};
}

static void use_certificate(struct tls_options *options, const char *name)
{
    static char paths[4][2][64];
    static unsigned next;
    char(*path)[64] = paths[next++ % 4];

    snprintf(path[0], sizeof(path[0]), FOLDER "%s.pem", name);
    snprintf(path[1], sizeof(path[1]), FOLDER "%s.key", name);
    options->certificate_file = path[0];
    options->key_file = path[1];
}

static void copy_into(int fd, const char *path)
{
    static char data[16384];
    FILE *file = fopen(path, "r");
    size_t bytes;

    assert_non_null(file);
    bytes = fread(data, 1, sizeof(data), file);
    fclose(file);
    assert_int_equal(write(fd, data, bytes), bytes);
}

struct pair {
    struct end client, server;
};

/* Opens both and lets them shake hands; how that ends is in their results. */
static void pair_open(struct pair *pair, const struct tls_options *client,
                      const struct tls_options *server, const char *host, size_t piece)
{
    struct tls_context *client_context = make_context(client);
    struct tls_context *server_context = make_context(server);

    end_open(&pair->client, client_context, host);
    end_open(&pair->server, server_context, NULL);
    tls_context_release(client_context);
    tls_context_release(server_context);
    shake(&pair->client, &pair->server, piece);
}

static void pair_close(struct pair *pair)
{
    end_close(&pair->client);
    end_close(&pair->server);
}

static void pair_must_be_up(struct pair *pair)
{
    if (pair->client.result != TLS_OK || pair->server.result != TLS_OK)
        fail_msg("client %d \"%s\", server %d \"%s\"", pair->client.result,
                 tls_error(pair->client.tls), pair->server.result, tls_error(pair->server.tls));
}

/* All of it through, in calls of `write_bytes` and `read_bytes`. */
static void send_through(struct end *from, struct end *to, size_t bytes, size_t write_bytes,
                         size_t read_bytes)
{
    uint8_t *data = malloc(bytes + 1), *got = malloc(bytes + read_bytes + 1);
    uint64_t seed = bytes;
    size_t have = 0;

    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)random_next(&seed);
    for (size_t at = 0; at < bytes; at += write_bytes)
        assert_true(
            tls_write(from->tls, &from->out.output, data + at, MIN(write_bytes, bytes - at)));
    feed(to, &from->out, from->out.bytes);
    for (;;) {
        size_t max = tls_read_bytes_max(to->tls);
        size_t part;
        enum tls_result result = tls_read(to->tls, &to->out.output, got + have, read_bytes, &part);

        assert_true(part <= max);
        have += part;
        assert_true(have <= bytes);
        if (result == TLS_WANT_INPUT)
            break;
        if (result != TLS_OK)
            fail_msg("read: %d \"%s\"", result, tls_error(to->tls));
        assert_int_equal(part, read_bytes);
    }
    assert_int_equal(have, bytes);
    assert_memory_equal(got, data, bytes);
    free(data);
    free(got);
}

static void exchange_some(struct pair *pair)
{
    static const size_t sizes[] = {1, 60, 1000, 16383, 16384, 16385, 40000};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        send_through(&pair->client, &pair->server, sizes[i], sizes[i], 70000);
        send_through(&pair->server, &pair->client, sizes[i], sizes[i], 70000);
    }
}

/* ---- tests ---- */

static void protocol_is_the_highest_that_both_allow(void **state)
{
    static const struct {
        unsigned client, server;
        const char *agreed; /* NULL: none */
    } cases[] = {
        {TLS_PROTOCOL_1_2, TLS_PROTOCOL_1_2, "TLSv1.2"},
        {TLS_PROTOCOL_1_3, TLS_PROTOCOL_1_3, "TLSv1.3"},
        {TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3, TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3, "TLSv1.3"},
        {TLS_PROTOCOL_1_2, TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3, "TLSv1.2"},
        {TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3, TLS_PROTOCOL_1_2, "TLSv1.2"},
        {TLS_PROTOCOL_1_0 | TLS_PROTOCOL_1_2, TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3, "TLSv1.2"},
        {TLS_PROTOCOL_1_2, TLS_PROTOCOL_1_3, NULL},
        {TLS_PROTOCOL_1_3, TLS_PROTOCOL_1_2, NULL},
        {TLS_PROTOCOL_1_0 | TLS_PROTOCOL_1_3, TLS_PROTOCOL_1_2, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_options client = client_options(), server = server_options();
        char text[TLS_DESCRIPTION_BYTES];
        struct pair pair;

        client.protocols = cases[i].client;
        server.protocols = cases[i].server;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        if (cases[i].agreed != NULL) {
            pair_must_be_up(&pair);
            tls_describe(pair.client.tls, text);
            assert_memory_equal(text, cases[i].agreed, strlen(cases[i].agreed));
            exchange_some(&pair);
        } else {
            assert_int_not_equal(pair.client.result, TLS_OK);
            assert_int_not_equal(pair.server.result, TLS_OK);
        }
        pair_close(&pair);
    }
}

/* With those that the library in use has. */
static void each_suite_carries_data(void **state)
{
    static const struct {
        const char *name;
        const char *certificate;
        const char *description;
    } suites[] = {
        {"TLS_AES_128_GCM_SHA256", "p256", "TLSv1.3/TLS_AES_128_GCM_SHA256"},
        {"TLS_AES_256_GCM_SHA384", "rsa", "TLSv1.3/TLS_AES_256_GCM_SHA384"},
        {"TLS_CHACHA20_POLY1305_SHA256", "p256", "TLSv1.3/TLS_CHACHA20_POLY1305_SHA256"},
        {"ECDHE-ECDSA-AES128-GCM-SHA256", "p256",
         "TLSv1.2/ECDHE-ECDSA-AES128-GCM-SHA256/ECDH=prime256v1"},
        {"ECDHE-ECDSA-AES256-GCM-SHA384", "p256", NULL},
        {"ECDHE-ECDSA-CHACHA20-POLY1305", "p256", NULL},
        {"ECDHE-ECDSA-AES128-SHA256", "p256", NULL},
        {"ECDHE-ECDSA-AES256-SHA384", "p256", NULL},
        {"ECDHE-ECDSA-AES128-SHA", "p256", NULL},
        {"ECDHE-ECDSA-AES256-SHA", "p256", NULL},
        {"ECDHE-RSA-AES128-GCM-SHA256", "rsa", NULL},
        {"ECDHE-RSA-AES256-GCM-SHA384", "rsa", NULL},
        {"ECDHE-RSA-CHACHA20-POLY1305", "rsa", NULL},
        {"ECDHE-RSA-AES128-SHA256", "rsa", NULL},
        {"ECDHE-RSA-AES256-SHA384", "rsa", NULL},
        {"ECDHE-RSA-AES128-SHA", "rsa", NULL},
        {"ECDHE-RSA-AES256-SHA", "rsa", NULL},
        {"DHE-RSA-AES128-GCM-SHA256", "rsa", "TLSv1.2/DHE-RSA-AES128-GCM-SHA256/DH=2048"},
        {"DHE-RSA-AES256-GCM-SHA384", "rsa", NULL},
        {"DHE-RSA-CHACHA20-POLY1305", "rsa", NULL},
        {"DHE-RSA-AES128-SHA256", "rsa", NULL},
        {"DHE-RSA-AES256-SHA256", "rsa", NULL},
        {"AES128-GCM-SHA256", "rsa", "TLSv1.2/AES128-GCM-SHA256"},
        {"AES256-GCM-SHA384", "rsa", NULL},
        {"AES128-SHA256", "rsa", NULL},
        {"AES256-SHA256", "rsa", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(suites); i++) {
        struct tls_options client = client_options(), server = server_options();
        char text[TLS_DESCRIPTION_BYTES];
        struct pair pair;

        if (!tls_has_suite(suites[i].name)) {
            assert_true(i >= 3); /* those of TLS 1.3 must be there */
            continue;
        }
        client.suites = server.suites = suites[i].name;
        client.protocols = server.protocols = i < 3 ? TLS_PROTOCOL_1_3 : TLS_PROTOCOL_1_2;
        server.dhe = TLS_DHE_2048;
        use_certificate(&server, suites[i].certificate);
        pair_open(&pair, &client, &server, "db.example.com", 0);
        if (pair.client.result != TLS_OK)
            fail_msg("%s: %s", suites[i].name, tls_error(pair.client.tls));
        pair_must_be_up(&pair);
        tls_describe(pair.client.tls, text);
        assert_non_null(strstr(text, suites[i].name));
        if (suites[i].description != NULL)
            assert_string_equal(text, suites[i].description);
        tls_describe(pair.server.tls, text);
        assert_non_null(strstr(text, suites[i].name));
        exchange_some(&pair);
        pair_close(&pair);
    }
}

/* The list is taken as it is: order of the server, nothing that is not in it. */
static void suites_are_those_asked_for(void **state)
{
    static const struct {
        const char *client, *server;
        const char *chosen;
    } cases[] = {
        {"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256",
         "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"},
        {"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
         "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"},
        {"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
         "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
         "ECDHE-ECDSA-AES256-GCM-SHA384"},
        {"ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
         "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
         "ECDHE-ECDSA-AES256-GCM-SHA384"},
        {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", NULL},
        {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", NULL},
        {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", NULL}, /* ours is ECDSA */
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_options client = client_options(), server = server_options();
        char text[TLS_DESCRIPTION_BYTES];
        struct pair pair;

        client.suites = cases[i].client;
        server.suites = cases[i].server;
        client.protocols = server.protocols =
            strstr(cases[i].client, "TLS_") != NULL ? TLS_PROTOCOL_1_3 : TLS_PROTOCOL_1_2;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        if (cases[i].chosen != NULL) {
            pair_must_be_up(&pair);
            tls_describe(pair.server.tls, text);
            assert_non_null(strstr(text, cases[i].chosen));
        } else {
            assert_int_equal(pair.server.result, TLS_FAILED);
            assert_string_equal(tls_error(pair.server.tls), "no shared cipher");
            assert_string_equal(tls_error(pair.client.tls), "peer's alert: handshake_failure");
        }
        pair_close(&pair);
    }
}

static void each_group_works(void **state)
{
    static const struct {
        const char *name;
        const char *shown;
        unsigned bits;
    } groups[] = {{"X25519", "X25519", 256},
                  {"P-256", "prime256v1", 256},
                  {"prime256v1", "prime256v1", 256},
                  {"P-384", "secp384r1", 384},
                  {"secp521r1", "secp521r1", 521}};

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(groups); i++) {
        const char *name = groups[i / 2].name;
        struct tls_options client = client_options(), server = server_options();
        char text[TLS_DESCRIPTION_BYTES], expected[64];
        struct pair pair;

        client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        snprintf(expected, sizeof(expected), "/ECDH=%s", groups[i / 2].shown);
        server.groups = name; /* the client names all, and is asked again */
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        tls_describe(pair.client.tls, text);
        /* Of TLS 1.2 it chooses by size. */
        if (i % 2 && groups[i / 2].bits > 256)
            assert_non_null(strstr(text, expected));
        exchange_some(&pair);
        pair_close(&pair);

        client.groups = name;
        server.groups = NULL;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        tls_describe(pair.client.tls, text);
        if (i % 2)
            assert_non_null(strstr(text, expected));
        exchange_some(&pair);
        pair_close(&pair);

        if (i % 2)
            continue;
        client.groups = strcmp(name, "P-384") == 0 ? "P-256" : "P-384";
        server.groups = name;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        assert_int_equal(pair.server.result, TLS_FAILED);
        assert_memory_equal(tls_error(pair.server.tls), "no shared ", 10);
        assert_int_not_equal(pair.client.result, TLS_OK);
        pair_close(&pair);
    }
}

static void dhe_needs_its_parameters(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct pair pair;

    (void)state;
    if (!tls_has_suite("DHE-RSA-AES128-GCM-SHA256"))
        skip();
    client.protocols = server.protocols = TLS_PROTOCOL_1_2;
    client.suites = "DHE-RSA-AES128-GCM-SHA256";
    server.suites = "DHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
    use_certificate(&server, "rsa");
    pair_open(&pair, &client, &server, "db.example.com", 0);
    assert_int_equal(pair.server.result, TLS_FAILED);
    pair_close(&pair);
    server.dhe = TLS_DHE_1024;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    /* We are a client that does not take so little. */
    assert_string_equal(tls_error(pair.client.tls), "peer's key is too short");
    pair_close(&pair);
}

static void certificates_of_all_kinds_verify(void **state)
{
    static const char *const names[] = {"p256", "p384", "rsa", "ed25519", "chain"};
    static const char *const hosts[] = {"db.example.com", "x.wild.example.com", "192.0.2.1",
                                        "2001:db8::1", "2001:0db8:0:0:0:0:0:1"};

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(names); i++)
        for (size_t j = 0; j < COUNT_OF(hosts); j++) {
            struct tls_options client = client_options(), server = server_options();
            struct pair pair;

            client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
            use_certificate(&server, names[i / 2]);
            pair_open(&pair, &client, &server, hosts[j], 0);
            if (pair.client.result != TLS_OK)
                fail_msg("%s of %s: %s", names[i / 2], hosts[j], tls_error(pair.client.tls));
            pair_must_be_up(&pair);
            pair_close(&pair);
        }
}

/* As `openssl req -x509` makes them. */
static void certificate_that_signs_itself_may_be_trusted(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct pair pair;

    (void)state;
    client.authorities_file = PEM("self");
    use_certificate(&server, "self");
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    pair_close(&pair);
}

static void certificate_at_fault_is_refused(void **state)
{
    static const struct {
        const char *name;
        const char *host;
        enum tls_verify verify;
        const char *error; /* NULL: it is accepted */
        const char *alert; /* NULL: any */
    } cases[] = {
        {"p256", "db.example.org", TLS_VERIFY_HOST,
         "certificate is not for host \"db.example.org\"", NULL},
        {"p256", "192.0.2.9", TLS_VERIFY_HOST, "certificate is not for host \"192.0.2.9\"", NULL},
        {"p256", "db.example.org", TLS_VERIFY_CHAIN, NULL, NULL},
        {"common", "db.example.com", TLS_VERIFY_HOST, NULL, NULL},
        {"expired", "db.example.com", TLS_VERIFY_HOST, "certificate has expired",
         "peer's alert: certificate_expired"},
        {"expired", "db.example.com", TLS_VERIFY_CHAIN, "certificate has expired", NULL},
        {"expired", "db.example.com", TLS_VERIFY_NONE, NULL, NULL},
        {"early", "db.example.com", TLS_VERIFY_HOST, "certificate is not valid yet", NULL},
        {"early", "db.example.com", TLS_VERIFY_NONE, NULL, NULL},
        {"foreign", "db.example.com", TLS_VERIFY_HOST, "certificate is not of a trusted authority",
         "peer's alert: unknown_ca"},
        {"foreign", "db.example.com", TLS_VERIFY_CHAIN, "certificate is not of a trusted authority",
         NULL},
        {"foreign", "db.example.com", TLS_VERIFY_NONE, NULL, NULL},
        {"bare", "db.example.com", TLS_VERIFY_CHAIN, "certificate is not of a trusted authority",
         NULL},
        {"self", "db.example.com", TLS_VERIFY_CHAIN, "certificate is not of a trusted authority",
         NULL},
        {"alice", "bob", TLS_VERIFY_HOST, "certificate is not for this use", NULL},
    };

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(cases); i++) {
        struct tls_options client = client_options(), server = server_options();
        struct pair pair;

        client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        client.verify = cases[i / 2].verify;
        use_certificate(&server, cases[i / 2].name);
        pair_open(&pair, &client, &server, cases[i / 2].host, 0);
        if (cases[i / 2].error == NULL) {
            if (pair.client.result != TLS_OK)
                fail_msg("%s: %s", cases[i / 2].name, tls_error(pair.client.tls));
            pair_must_be_up(&pair);
            exchange_some(&pair);
        } else {
            if (pair.client.result != TLS_FAILED ||
                strcmp(tls_error(pair.client.tls), cases[i / 2].error) != 0)
                fail_msg("%s for %s: \"%s\"", cases[i / 2].name, cases[i / 2].host,
                         tls_error(pair.client.tls));
            assert_int_equal(pair.server.result, TLS_FAILED);
            assert_memory_equal(tls_error(pair.server.tls), "peer's alert: ", 14);
            if (cases[i / 2].alert != NULL)
                assert_string_equal(tls_error(pair.server.tls), cases[i / 2].alert);
        }
        pair_close(&pair);
    }
}

/* The library keeps what it has verified, for all sessions of a context: each is judged by what it shows. */
static void certificate_between_helps_no_other_session(void **state)
{
    static const char *const names[] = {"bare", "chain", "bare", "chain"};

    (void)state;
    for (size_t side = 0; side < 2; side++) {
        struct tls_options options = side == 0 ? client_options() : server_options();
        struct tls_context *judge;

        if (side == 1)
            options.verify = TLS_VERIFY_CHAIN;
        options.authorities_file = PEM("root");
        judge = make_context(&options);
        for (size_t i = 0; i < 2 * COUNT_OF(names); i++) {
            struct tls_options others = side == 0 ? server_options() : client_options();
            struct tls_context *context;
            struct pair pair;
            struct end *end = side == 0 ? &pair.client : &pair.server;
            bool is_whole = i / 2 % 2 == 1;

            use_certificate(&others, side == 0  ? names[i / 2]
                                     : is_whole ? "user_chain"
                                                : "user_bare");
            others.verify = TLS_VERIFY_NONE;
            others.protocols = i % 2 == 0 ? TLS_PROTOCOL_1_3 : TLS_PROTOCOL_1_2;
            context = make_context(&others);
            end_open(&pair.client, side == 0 ? judge : context, "db.example.com");
            end_open(&pair.server, side == 0 ? context : judge, NULL);
            shake(&pair.client, &pair.server, 0);
            if (is_whole && end->result != TLS_OK)
                fail_msg("side %zu: %s", side, tls_error(end->tls));
            if (!is_whole) {
                assert_int_equal(end->result, TLS_FAILED);
                assert_string_equal(tls_error(end->tls),
                                    "certificate is not of a trusted authority");
            }
            assert_int_equal(tls_peer_has_certificate(end->tls), is_whole);
            pair_close(&pair);
            tls_context_release(context);
        }
        tls_context_release(judge);
    }
}

#if PGSPLICE_WOLFSSL_OWN
/* The callback is not called: as if the library had found a way past it. */
static void handshake_without_a_judgement_fails(void **state)
{
    static const struct {
        enum tls_verify verify;
        enum tls_result result;
    } cases[] = {
        {TLS_VERIFY_NONE, TLS_OK}, {TLS_VERIFY_CHAIN, TLS_FAILED}, {TLS_VERIFY_HOST, TLS_FAILED}};

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(cases); i++) {
        struct tls_options client = client_options(), server = server_options();
        struct tls_context *client_context, *server_context;
        struct pair pair;

        client.verify = cases[i / 2].verify;
        client.protocols = i % 2 == 0 ? TLS_PROTOCOL_1_3 : TLS_PROTOCOL_1_2;
        client_context = make_context(&client);
        server_context = make_context(&server);
        wolfSSL_CTX_set_verify(client_context->library, WOLFSSL_VERIFY_PEER, NULL);
        end_open(&pair.client, client_context, "db.example.com");
        end_open(&pair.server, server_context, NULL);
        shake(&pair.client, &pair.server, 0);
        assert_int_equal(pair.client.result, cases[i / 2].result);
        if (cases[i / 2].result == TLS_FAILED)
            assert_string_equal(tls_error(pair.client.tls), "peer's certificate was not verified");
        assert_false(tls_peer_has_certificate(pair.client.tls));
        assert_false(tls_peer_has_name(pair.client.tls, "db.example.com"));
        pair_close(&pair);
        tls_context_release(client_context);
        tls_context_release(server_context);
    }
}
#else
static void handshake_without_a_judgement_fails(void **state)
{
    (void)state;
    skip();
}
#endif

/* Without a check of the chain too: channel binding asks whether both see the same certificate. */
static void end_point_is_the_same_on_both_sides(void **state)
{
    static const char *const names[] = {"p256", "p384", "rsa", "sha512", "sha1", "pss"};
    static const uint8_t bytes[] = {32, 48, 32, 64, 32, 48};

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(names); i++) {
        struct tls_options client = client_options(), server = server_options();
        uint8_t of_client[TLS_END_POINT_BYTES_MAX], of_server[TLS_END_POINT_BYTES_MAX];
        struct pair pair;

        client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        client.verify = TLS_VERIFY_NONE;
        client.authorities_file = NULL;
        use_certificate(&server, names[i / 2]);
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        assert_false(tls_peer_has_certificate(pair.client.tls)); /* none that counts */
        assert_false(tls_peer_has_certificate(pair.server.tls));
        assert_int_equal(tls_end_point(pair.client.tls, of_client), bytes[i / 2]);
        assert_int_equal(tls_end_point(pair.server.tls, of_server), bytes[i / 2]);
        assert_memory_equal(of_client, of_server, bytes[i / 2]);
        tls_forget_peer(pair.client.tls);
        assert_false(tls_peer_has_certificate(pair.client.tls));
        assert_int_equal(tls_end_point(pair.client.tls, of_client), 0);
        pair_close(&pair);
    }
}

static void client_certificates_are_asked_for(void **state)
{
    static const struct {
        enum tls_verify verify;
        const char *name; /* NULL: none */
        const char *error;
        bool is_seen;
    } cases[] = {
        {TLS_VERIFY_NONE, "alice", NULL, false},
        {TLS_VERIFY_NONE, NULL, NULL, false},
        {TLS_VERIFY_IF_GIVEN, "alice", NULL, true},
        {TLS_VERIFY_IF_GIVEN, NULL, NULL, false},
        {TLS_VERIFY_IF_GIVEN, "mallory", "certificate is not of a trusted authority", false},
        {TLS_VERIFY_IF_GIVEN, "late", "certificate has expired", false},
        {TLS_VERIFY_CHAIN, "alice", NULL, true},
        {TLS_VERIFY_CHAIN, NULL, "no certificate was shown", false},
        {TLS_VERIFY_CHAIN, "mallory", "certificate is not of a trusted authority", false},
        {TLS_VERIFY_CHAIN, "p256", "certificate is not for this use", false},
    };

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(cases); i++) {
        struct tls_options client = client_options(), server = server_options();
        struct pair pair;

        client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        server.verify = cases[i / 2].verify;
        server.authorities_file = PEM("root");
        if (cases[i / 2].name != NULL)
            use_certificate(&client, cases[i / 2].name);
        pair_open(&pair, &client, &server, "db.example.com", 0);
        if (cases[i / 2].error != NULL) {
            assert_int_equal(pair.server.result, TLS_FAILED);
            if (strcmp(tls_error(pair.server.tls), cases[i / 2].error) != 0)
                fail_msg("case %zu: %s", i, tls_error(pair.server.tls));
            assert_false(tls_peer_has_name(pair.server.tls, "alice"));
            /* With TLS 1.3 the client has been done for a while when the alert comes. */
            if (pair.client.result == TLS_OK) {
                uint8_t got[16];
                size_t bytes;

                feed_rest(&pair.client, &pair.server.out);
                assert_int_equal(
                    tls_read(pair.client.tls, &pair.client.out.output, got, sizeof(got), &bytes),
                    TLS_FAILED);
            }
            assert_memory_equal(tls_error(pair.client.tls), "peer's alert: ", 14);
        } else {
            pair_must_be_up(&pair);
            assert_int_equal(tls_peer_has_certificate(pair.server.tls), cases[i / 2].is_seen);
            assert_int_equal(tls_peer_has_name(pair.server.tls, "alice"), cases[i / 2].is_seen);
            assert_false(tls_peer_has_name(pair.server.tls, "mallory"));
            exchange_some(&pair);
        }
        pair_close(&pair);
    }
}

#if PGSPLICE_WOLFSSL_OWN
/* Makes a client of the library send its certificate though nobody has asked for it. */
static int send_unasked(int verified, WOLFSSL_X509_STORE_CTX *store)
{
    WOLFSSL *library = *(WOLFSSL **)store->userCtx; /* the first that struct tls has */

    (void)verified;
    library->options.sendVerify = SEND_CERT;
    library->suites->hashAlgo = sha256_mac;
    library->suites->sigAlgo = ecc_dsa_sa_algo;
    return 1;
}
#endif

static void certificate_that_nobody_asked_for_is_refused(void **state)
{
    (void)state;
#if PGSPLICE_WOLFSSL_OWN /* the packaged library has no header of its inside */
    for (size_t i = 0; i < 2; i++) {
        struct tls_options client = client_options(), server = server_options();
        struct tls_context *client_context, *server_context;
        struct pair pair;

        client.verify = TLS_VERIFY_NONE;
        client.protocols = i == 0 ? TLS_PROTOCOL_1_3 : TLS_PROTOCOL_1_2;
        use_certificate(&client, "mallory");
        client_context = make_context(&client);
        server_context = make_context(&server);
        wolfSSL_CTX_set_verify(client_context->library, WOLFSSL_VERIFY_NONE, send_unasked);
        end_open(&pair.client, client_context, NULL);
        end_open(&pair.server, server_context, NULL);
        tls_context_release(client_context);
        tls_context_release(server_context);
        shake(&pair.client, &pair.server, 0);
        assert_int_equal(pair.server.result, TLS_FAILED);
        assert_string_equal(tls_error(pair.server.tls), "certificate is refused");
        assert_false(tls_peer_has_certificate(pair.server.tls));
        pair_close(&pair);
    }
#else
    skip();
#endif
}

static void handshake_one_byte_at_a_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tls_options client = client_options(), server = server_options();
        struct pair pair;

        client.protocols = i ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        server.verify = TLS_VERIFY_CHAIN;
        server.authorities_file = PEM("root");
        use_certificate(&client, "alice");
        use_certificate(&server, "chain");
        pair_open(&pair, &client, &server, "db.example.com", 1);
        pair_must_be_up(&pair);
        assert_true(tls_peer_has_name(pair.server.tls, "alice"));
        /* A flight is one record. */
        assert_int_equal(pair.client.out.puts, 2);
        assert_true(pair.server.out.puts <= 2);
        exchange_some(&pair);
        pair_close(&pair);
    }
}

/* A client says its first words in the same breath as the last ones of the handshake. */
static void data_behind_the_handshake_is_kept(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct tls_context *client_context, *server_context;
    struct pair pair;
    uint8_t got[100];
    size_t bytes;

    (void)state;
    client.protocols = TLS_PROTOCOL_1_3;
    server.gives_tickets = true;
    client_context = make_context(&client);
    server_context = make_context(&server);
    end_open(&pair.client, client_context, "db.example.com");
    end_open(&pair.server, server_context, NULL);
    assert_int_equal(tls_handshake(pair.client.tls, &pair.client.out.output), TLS_WANT_INPUT);
    feed_rest(&pair.server, &pair.client.out);
    assert_int_equal(tls_handshake(pair.server.tls, &pair.server.out.output), TLS_WANT_INPUT);
    feed_rest(&pair.client, &pair.server.out);
    assert_int_equal(tls_handshake(pair.client.tls, &pair.client.out.output), TLS_OK);
    assert_true(tls_write(pair.client.tls, &pair.client.out.output, "first words", 11));
    feed_rest(&pair.server, &pair.client.out);
    assert_int_equal(tls_handshake(pair.server.tls, &pair.server.out.output), TLS_OK);
    assert_true(tls_unread_bytes(pair.server.tls) > 11);
    assert_true(tls_read_bytes_max(pair.server.tls) >= 11);
    assert_int_equal(tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                     TLS_WANT_INPUT);
    assert_int_equal(bytes, 11);
    assert_memory_equal(got, "first words", 11);
    exchange_some(&pair); /* behind the tickets */
    pair_close(&pair);
    tls_context_release(client_context);
    tls_context_release(server_context);
}

static void data_one_byte_at_a_time(void **state)
{
    static const uint8_t text[] = "select 1";
    struct tls_options client = client_options(), server = server_options();
    uint8_t got[64];
    size_t have = 0, part;
    struct pair pair;

    (void)state;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    for (unsigned i = 0; i < 3; i++)
        assert_true(tls_write(pair.client.tls, &pair.client.out.output, text, sizeof(text)));
    while (pair.client.out.bytes > 0) {
        feed(&pair.server, &pair.client.out, 1);
        assert_int_equal(tls_read(pair.server.tls, &pair.server.out.output, got + have,
                                  sizeof(got) - have, &part),
                         TLS_WANT_INPUT);
        have += part;
        assert_int_equal(have % sizeof(text), 0); /* never a part of a record */
    }
    assert_int_equal(have, 3 * sizeof(text));
    for (unsigned i = 0; i < 3; i++)
        assert_memory_equal(got + i * sizeof(text), text, sizeof(text));
    pair_close(&pair);
}

/* The bytes of both directions of one handshake, the `flipped`th with a wrong bit. True: it was there. */
static bool shake_with_flip(struct pair *pair, bool of_client, size_t flipped)
{
    struct end *client = &pair->client, *server = &pair->server;
    size_t passed[2] = {0};
    bool done = false;

    client->result = tls_handshake(client->tls, &client->out.output);
    while ((client->out.bytes > 0 && server->result == TLS_WANT_INPUT) ||
           (server->out.bytes > 0 && client->result == TLS_WANT_INPUT)) {
        bool for_server = client->out.bytes > 0 && server->result == TLS_WANT_INPUT;
        struct end *end = for_server ? server : client;
        struct pipe *from = for_server ? &client->out : &server->out;
        size_t at = passed[for_server];

        if (for_server == of_client && flipped >= at && flipped - at < from->bytes) {
            from->data[flipped - at] ^= (uint8_t)BIT(flipped % 8);
            done = true;
        }
        passed[for_server] += from->bytes;
        feed(end, from, from->bytes);
        end->result = tls_handshake(end->tls, &end->out.output);
    }
    return done;
}

/* It may work (a version in a record's head counts for nothing), but then data must go through, or it
 * fails. Nobody is taken for somebody else. */
static void handshake_with_a_wrong_bit_is_safe(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    unsigned worked = 0, failed = 0;

    (void)state;
    server.verify = TLS_VERIFY_CHAIN;
    server.authorities_file = PEM("root");
    use_certificate(&client, "alice");
    for (unsigned i = 0; i < 4; i++) {
        struct tls_context *server_context = make_context(&server), *client_context;
        bool go_on = true;

        client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        client_context = make_context(&client);
        for (size_t flipped = 0; go_on; flipped += FLIP_STEP) {
            struct pair pair;

            end_open(&pair.client, client_context, "db.example.com");
            end_open(&pair.server, server_context, NULL);
            go_on = shake_with_flip(&pair, i / 2, flipped);
            if (pair.client.result == TLS_OK)
                assert_true(tls_peer_has_name(pair.client.tls, "db.example.com"));
            if (pair.server.result == TLS_OK)
                assert_true(tls_peer_has_name(pair.server.tls, "alice"));
            if (pair.client.result == TLS_OK && pair.server.result == TLS_OK) {
                send_through(&pair.client, &pair.server, 100, 100, 200);
                worked++;
            } else {
                failed++;
            }
            pair_close(&pair);
        }
        tls_context_release(client_context);
        tls_context_release(server_context);
    }
    assert_true(failed > 50 * worked / FLIP_STEP);
}

static void handshake_cut_off_waits_for_more(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct pair whole;
    size_t hello_bytes;

    (void)state;
    pair_open(&whole, &client, &server, "db.example.com", 0);
    pair_must_be_up(&whole);
    hello_bytes = whole.client.out.total_bytes;
    pair_close(&whole);
    for (size_t bytes = 1; bytes < hello_bytes; bytes += 7) {
        struct tls_context *client_context = make_context(&client);
        struct tls_context *server_context = make_context(&server);
        struct pair pair;

        end_open(&pair.client, client_context, "db.example.com");
        end_open(&pair.server, server_context, NULL);
        tls_context_release(client_context);
        tls_context_release(server_context);
        assert_int_equal(tls_handshake(pair.client.tls, &pair.client.out.output), TLS_WANT_INPUT);
        if (bytes < pair.client.out.bytes) {
            feed(&pair.server, &pair.client.out, bytes);
            assert_int_equal(tls_handshake(pair.server.tls, &pair.server.out.output),
                             TLS_WANT_INPUT);
            assert_int_equal(pair.server.out.bytes, 0);
        }
        pair_close(&pair);
    }
}

static void what_is_no_tls_is_refused(void **state)
{
    static const char *const inputs[] = {"GET / HTTP/1.0\r\n\r\n", "Q\0\0\0\x0dselect 1\0",
                                         "\x15\x03\x01\x00\x02\x02\x28",
                                         "\x16\x03\x01\xff\xff\x01\x00\xff\xfb"};
    static const size_t bytes[] = {18, 14, 7, 9};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(inputs); i++) {
        struct tls_options server = server_options();
        struct tls_context *context = make_context(&server);
        struct end end;

        end_open(&end, context, NULL);
        tls_context_release(context);
        tls_feed(end.tls, inputs[i], bytes[i]);
        assert_int_equal(tls_handshake(end.tls, &end.out.output), TLS_FAILED);
        assert_true(strlen(tls_error(end.tls)) > 0);
        assert_int_equal(tls_handshake(end.tls, &end.out.output), TLS_FAILED);
        end_close(&end);
    }
}

static void data_of_any_size_goes_through(void **state)
{
    static const size_t sizes[] = {0,     1,     60,    1000,  4096,   16383,
                                   16384, 16385, 32768, 70000, 1 << 20};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tls_options client = client_options(), server = server_options();
        struct pair pair;

        client.protocols = i ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        for (size_t j = 0; j < COUNT_OF(sizes); j++) {
            /* With more room than a record, and with less. */
            send_through(&pair.client, &pair.server, sizes[j], sizes[j] + 1, sizes[j] + 1);
            send_through(&pair.server, &pair.client, sizes[j], sizes[j] + 1, 1000);
            send_through(&pair.client, &pair.server, sizes[j], 1000, 16384);
            if (sizes[j] <= 4096)
                send_through(&pair.server, &pair.client, sizes[j], 7, 1);
        }
        pair_close(&pair);
    }
}

static void answer_of_60_bytes_is_one_small_record(void **state)
{
    static const uint8_t data[TLS_RECORD_BYTES_MAX] = {0};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tls_options client = client_options(), server = server_options();
        /* Header and tag, and the record's kind (1.3) or a nonce (1.2). */
        size_t extra = 5 + 16 + (i ? 8 : 1);
        struct pair pair;

        client.protocols = i ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        pair.server.out.bytes = pair.server.out.puts = 0;
        assert_true(tls_write(pair.server.tls, &pair.server.out.output, data, 60));
        assert_int_equal(pair.server.out.bytes, 60 + extra);
        assert_int_equal(pair.server.out.puts, 1);
        pair.server.out.bytes = pair.server.out.puts = 0;
        assert_true(tls_write(pair.server.tls, &pair.server.out.output, data, sizeof(data)));
        assert_int_equal(pair.server.out.bytes, sizeof(data) + extra);
        assert_int_equal(pair.server.out.puts, 1);
        pair.server.out.puts = 0;
        assert_true(tls_write(pair.server.tls, &pair.server.out.output, data, 0));
        assert_int_equal(pair.server.out.puts, 0);
        assert_true(extra <= TLS_RECORD_EXTRA_BYTES);
        pair_close(&pair);
    }
}

static void record_with_a_wrong_bit_ends_the_session(void **state)
{
    static const uint8_t data[] = "insert into t values (1)";

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        for (size_t at = 0; at < sizeof(data) + 22; at++) {
            struct tls_options client = client_options(), server = server_options();
            uint8_t got[100];
            size_t bytes;
            struct pair pair;
            enum tls_result result;

            client.protocols = i ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
            pair_open(&pair, &client, &server, "db.example.com", 0);
            pair_must_be_up(&pair);
            assert_true(tls_write(pair.client.tls, &pair.client.out.output, data, sizeof(data)));
            pair.client.out.data[at] ^= 1;
            feed(&pair.server, &pair.client.out, pair.client.out.bytes);
            result = tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes);
            assert_int_equal(bytes, 0);
            if (at == 3 || at == 4) /* a longer record: more must come */
                assert_true(result == TLS_WANT_INPUT || result == TLS_FAILED);
            else
                assert_int_equal(result, TLS_FAILED);
            if (result == TLS_FAILED) {
                assert_true(strlen(tls_error(pair.server.tls)) > 0);
                assert_int_equal(
                    tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                    TLS_FAILED);
                assert_false(
                    tls_write(pair.server.tls, &pair.server.out.output, data, sizeof(data)));
            }
            if (at > 4)
                assert_string_equal(tls_error(pair.server.tls), "a record does not decrypt");
            pair_close(&pair);
        }
    }
}

/* A record that is sent twice, or late, is one with a wrong number. */
static void repeated_record_ends_the_session(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    uint8_t copy[200], got[100];
    struct pair pair;
    size_t bytes;

    (void)state;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    assert_true(tls_write(pair.client.tls, &pair.client.out.output, "one", 3));
    memcpy(copy, pair.client.out.data, pair.client.out.bytes);
    memcpy(copy + pair.client.out.bytes, pair.client.out.data, pair.client.out.bytes);
    tls_feed(pair.server.tls, copy, 2 * pair.client.out.bytes);
    assert_int_equal(tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                     TLS_FAILED);
    assert_int_equal(bytes, 3); /* what came before is good */
    assert_memory_equal(got, "one", 3);
    pair_close(&pair);
}

static void close_notify_ends_what_the_peer_says(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tls_options client = client_options(), server = server_options();
        uint8_t got[100];
        struct pair pair;
        size_t bytes;

        client.protocols = i ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        pair.client.out.bytes = 0;
        assert_true(tls_write(pair.client.tls, &pair.client.out.output, "last words", 10));
        tls_close_notify(pair.client.tls, &pair.client.out.output);
        feed(&pair.server, &pair.client.out, pair.client.out.bytes);
        assert_int_equal(
            tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
            TLS_CLOSED);
        assert_int_equal(bytes, 10);
        assert_memory_equal(got, "last words", 10);
        assert_int_equal(
            tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
            TLS_CLOSED);
        assert_int_equal(bytes, 0);
        /* Our own direction is open until we close it. */
        tls_close_notify(pair.server.tls, &pair.server.out.output);
        assert_true(pair.server.out.bytes > 0);
        pair_close(&pair);
    }
}

/* Neither when it ends in the middle of a record nor between two: the caller sees the connection's end and
 * no TLS_CLOSED before it. */
static void end_without_close_notify_is_no_close(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    uint8_t got[100];
    struct pair pair;
    size_t bytes;

    (void)state;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    assert_true(tls_write(pair.client.tls, &pair.client.out.output, "one", 3));
    assert_true(tls_write(pair.client.tls, &pair.client.out.output, "two", 3));
    feed(&pair.server, &pair.client.out, pair.client.out.bytes - 1);
    assert_int_equal(tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                     TLS_WANT_INPUT);
    assert_int_equal(bytes, 3);
    /* The record's end: what its beginning brought counts for the room that is needed. */
    feed(&pair.server, &pair.client.out, 1);
    assert_true(tls_read_bytes_max(pair.server.tls) >= 3);
    assert_int_equal(tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                     TLS_WANT_INPUT);
    assert_int_equal(bytes, 3);
    assert_memory_equal(got, "two", 3);
    pair_close(&pair);
}

static void keys_are_renewed_when_a_side_asks(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    uint8_t got[100];
    struct pair pair;
    size_t bytes;

    (void)state;
    client.protocols = TLS_PROTOCOL_1_3;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    for (unsigned i = 0; i < 10; i++) {
        struct end *end = i % 2 ? &pair.client : &pair.server;
        struct end *peer = i % 2 ? &pair.server : &pair.client;

        assert_true(tls_update_keys(end->tls, &end->out.output));
        assert_true(end->out.bytes > 0);
        /* The peer's answer goes out while it reads, before what it says next. */
        feed(peer, &end->out, end->out.bytes);
        assert_int_equal(tls_read(peer->tls, &peer->out.output, got, sizeof(got), &bytes),
                         TLS_WANT_INPUT);
        assert_int_equal(bytes, 0);
        assert_true(peer->out.bytes > 0);
        send_through(peer, end, 20000, 20000, 70000);
        send_through(end, peer, 20000, 20000, 70000);
    }
    pair_close(&pair);

    client.protocols = TLS_PROTOCOL_1_2;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    assert_false(tls_update_keys(pair.client.tls, &pair.client.out.output));
    exchange_some(&pair);
    pair_close(&pair);
}

/* New keys again and again, without a byte of data: each costs the other side more than the sender. */
static void messages_without_data_have_an_end(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    enum tls_result result = TLS_WANT_INPUT;
    uint8_t got[100];
    struct pair pair;
    unsigned taken = 0;
    size_t bytes;

    (void)state;
    client.protocols = TLS_PROTOCOL_1_3;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    for (unsigned i = 0; i < 100; i++) { /* with some data in between they may go on for ever */
        assert_true(tls_update_keys(pair.client.tls, &pair.client.out.output));
        send_through(&pair.client, &pair.server, 10, 10, 100);
        pair.server.out.bytes = 0;
    }
    for (; result == TLS_WANT_INPUT && taken < 1000; taken++) {
        assert_true(tls_update_keys(pair.client.tls, &pair.client.out.output));
        feed(&pair.server, &pair.client.out, pair.client.out.bytes);
        result = tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes);
    }
    assert_int_equal(result, TLS_FAILED);
    assert_string_equal(tls_error(pair.server.tls), "too many messages without data");
    assert_true(taken > 20);
    assert_true(taken < 50);
    pair_close(&pair);
}

/* The library asks for as many bytes as a header has when a record's last five are missing: that is no
 * new record, however long the one is. */
static void long_records_come_in_parts_of_any_size(void **state)
{
    static uint8_t data[TLS_RECORD_BYTES_MAX], got[TLS_RECORD_BYTES_MAX + 100];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tls_options client = client_options(), server = server_options();
        struct pair pair;

        client.protocols = i ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        for (size_t left = 1; left < 20; left++) {
            size_t bytes;

            assert_true(tls_write(pair.client.tls, &pair.client.out.output, data, sizeof(data)));
            feed(&pair.server, &pair.client.out, 3); /* a header in parts, too */
            assert_int_equal(
                tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                TLS_WANT_INPUT);
            feed(&pair.server, &pair.client.out, pair.client.out.bytes - left);
            assert_int_equal(
                tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                TLS_WANT_INPUT);
            feed(&pair.server, &pair.client.out, left);
            assert_int_equal(
                tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
                TLS_WANT_INPUT);
            assert_int_equal(bytes, sizeof(data));
        }
        pair_close(&pair);
    }
}

/* However it is cut, also where as much is missing as a header has. */
static void large_record_in_two_pieces_is_data(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    static uint8_t data[TLS_RECORD_BYTES_MAX], got[TLS_RECORD_BYTES_MAX];
    struct pair pair;
    size_t bytes;

    (void)state;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    for (size_t missing = 1; missing < 40; missing++) {
        memset(data, (int)missing, sizeof(data));
        assert_true(tls_write(pair.client.tls, &pair.client.out.output, data, sizeof(data)));
        feed(&pair.server, &pair.client.out, pair.client.out.bytes - missing);
        assert_int_equal(
            tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
            TLS_WANT_INPUT);
        assert_int_equal(bytes, 0);
        feed(&pair.server, &pair.client.out, missing);
        assert_int_equal(
            tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes), TLS_OK);
        assert_int_equal(bytes, sizeof(got));
        assert_memory_equal(got, data, sizeof(got));
    }
    pair_close(&pair);
}

static void protocol_name_is_agreed_or_refused(void **state)
{
    static const struct {
        const char *client, *server;
        const char *error;
    } cases[] = {
        {"postgresql", "postgresql", NULL},
        {NULL, "postgresql", NULL},
        {"postgresql", NULL, NULL},
        {"http", "postgresql", "no shared application protocol (ALPN)"},
        {"postgresq", "postgresql", "no shared application protocol (ALPN)"},
        {"http,postgresql", "postgresql", NULL},
    };

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(cases); i++) {
        struct tls_options client = client_options(), server = server_options();
        struct pair pair;

        client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        client.alpn = cases[i / 2].client;
        server.alpn = cases[i / 2].server;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        if (cases[i / 2].error == NULL) {
            pair_must_be_up(&pair);
        } else {
            assert_int_equal(pair.server.result, TLS_FAILED);
            assert_string_equal(tls_error(pair.server.tls), cases[i / 2].error);
            assert_string_equal(tls_error(pair.client.tls),
                                "peer's alert: no_application_protocol");
        }
        pair_close(&pair);
    }
}

/* A client gets tickets between its handshake and the first data, and has no use for them. */
static void tickets_do_not_disturb(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct tls_options client = client_options(), server = server_options();
        size_t without;
        struct pair pair;

        client.protocols = i % 2 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        without = pair.server.out.total_bytes;
        pair_close(&pair);
        server.gives_tickets = true;
        pair_open(&pair, &client, &server, "db.example.com", i / 2);
        pair_must_be_up(&pair);
        if (client.protocols == TLS_PROTOCOL_1_3)
            assert_true(pair.server.out.total_bytes > without + 50);
        assert_false(tls_was_resumed(pair.server.tls));
        exchange_some(&pair);
        pair_close(&pair);
    }
}

static void output_without_memory_ends_the_session(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct tls_context *context = make_context(&client);
    struct end end;
    struct pair pair;

    (void)state;
    end_open(&end, context, "db.example.com");
    tls_context_release(context);
    end.out.fails = true;
    assert_int_equal(tls_handshake(end.tls, &end.out.output), TLS_FAILED);
    assert_string_equal(tls_error(end.tls), "no memory for what must be sent");
    end.out.fails = false;
    assert_int_equal(tls_handshake(end.tls, &end.out.output), TLS_FAILED);
    assert_int_equal(end.out.bytes, 0);
    end_close(&end);

    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    pair.client.out.fails = true;
    assert_false(tls_write(pair.client.tls, &pair.client.out.output, "lost", 4));
    pair.client.out.fails = false;
    pair.client.out.bytes = 0;
    assert_false(tls_write(pair.client.tls, &pair.client.out.output, "lost", 4));
    tls_close_notify(pair.client.tls, &pair.client.out.output);
    assert_int_equal(pair.client.out.bytes, 0); /* nothing half */
    pair_close(&pair);

    /* The answer to new keys cannot be put out either. */
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    assert_true(tls_update_keys(pair.client.tls, &pair.client.out.output));
    feed(&pair.server, &pair.client.out, pair.client.out.bytes);
    pair.server.out.fails = true;
    {
        uint8_t got[10];
        size_t bytes;

        assert_int_equal(
            tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
            TLS_FAILED);
    }
    pair_close(&pair);
}

static void bad_options_are_refused_in_words(void **state)
{
    static const struct {
        enum tls_side side;
        const char *certificate, *key, *authorities, *suites, *groups;
        enum tls_verify verify;
        const char *error; /* its beginning */
    } cases[] = {
        {TLS_SIDE_SERVER, NULL, NULL, NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "a server needs a certificate"},
        {TLS_SIDE_SERVER, PEM("p256"), NULL, NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "there is a certificate file but no key file"},
        {TLS_SIDE_CLIENT, NULL, KEY("p256"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "there is a key file but no certificate file"},
        {TLS_SIDE_SERVER, PEM("none"), KEY("p256"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "could not open \"" PEM("none") "\": No such file or directory"},
        {TLS_SIDE_SERVER, FOLDER, KEY("p256"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "\"" FOLDER "\" is not a file"},
        {TLS_SIDE_SERVER, "/dev/zero", KEY("p256"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "\"/dev/zero\" is not a file"},
        {TLS_SIDE_SERVER, KEY("p256"), KEY("p256"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "\"" KEY("p256") "\" has no certificate in PEM form"},
        {TLS_SIDE_SERVER, PEM("p256"), PEM("p256"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "could not use key \"" PEM("p256") "\": "},
        {TLS_SIDE_SERVER, PEM("p256"), KEY("rsa"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "key \"" KEY("rsa") "\" does not belong to certificate \"" PEM("p256") "\""},
        {TLS_SIDE_SERVER, PEM("p256"), KEY("common"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "key \"" KEY("common") "\" does not belong to certificate \"" PEM("p256") "\""},
        {TLS_SIDE_SERVER, PEM("rsa"), KEY("rsa_root"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "key \"" KEY("rsa_root") "\" does not belong to certificate \"" PEM("rsa") "\""},
        {TLS_SIDE_SERVER, PEM("ed25519"), KEY("ed_root"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "key \"" KEY("ed_root") "\" does not belong to certificate \"" PEM("ed25519") "\""},
        {TLS_SIDE_SERVER, PEM("p256"), FOLDER "encrypted.key", NULL, all_suites, NULL,
         TLS_VERIFY_NONE,
         "key \"" FOLDER "encrypted.key\" is encrypted: a key without a password is needed"},
        {TLS_SIDE_SERVER, PEM("rsa1024"), KEY("rsa1024"), NULL, all_suites, NULL, TLS_VERIFY_NONE,
         "could not use "} /* the certificate, or the key */,
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, all_suites, NULL, TLS_VERIFY_CHAIN,
         "a file of trusted certificates is needed to verify"},
        {TLS_SIDE_CLIENT, NULL, NULL, KEY("p256"), all_suites, NULL, TLS_VERIFY_CHAIN,
         "\"" KEY("p256") "\" has no usable certificate: "},
        {TLS_SIDE_CLIENT, NULL, NULL, FOLDER "make.sh", all_suites, NULL, TLS_VERIFY_CHAIN,
         "\"" FOLDER "make.sh\" has no certificate in PEM form"},
        {TLS_SIDE_CLIENT, NULL, NULL, PEM("old_root"), all_suites, NULL, TLS_VERIFY_CHAIN,
         "\"" PEM("old_root") "\" has no usable certificate: "},
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, "", NULL, TLS_VERIFY_NONE,
         "no cipher suite is allowed"},
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, NULL, NULL, TLS_VERIFY_NONE,
         "no cipher suite is allowed"},
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, "TLS_AES_128_GCM_SHA256:HIGH", NULL, TLS_VERIFY_NONE,
         "the TLS library has no cipher suite \"HIGH\""},
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, "DEFAULT", NULL, TLS_VERIFY_NONE,
         "the TLS library has no cipher suite \"DEFAULT\""},
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, ":TLS_AES_128_GCM_SHA256", NULL, TLS_VERIFY_NONE,
         "the TLS library has no cipher suite \"\""},
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, all_suites, "X25519:P-999", TLS_VERIFY_NONE,
         "unknown group (curve) \"P-999\""},
        {TLS_SIDE_CLIENT, NULL, NULL, NULL, all_suites,
         "P-256:P-256:P-256:P-256:P-256:P-256:P-256:P-256:P-256", TLS_VERIFY_NONE,
         "more than 8 groups (curves) are named"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_options options = {.side = cases[i].side,
                                      .protocols = TLS_PROTOCOL_1_3,
                                      .certificate_file = cases[i].certificate,
                                      .key_file = cases[i].key,
                                      .authorities_file = cases[i].authorities,
                                      .suites = cases[i].suites,
                                      .groups = cases[i].groups,
                                      .verify = cases[i].verify};
        char error[TLS_ERROR_BYTES] = "";

        if (tls_context_create(&options, error) != NULL)
            fail_msg("not refused: %s", cases[i].error);
        if (strncmp(error, cases[i].error, strlen(cases[i].error)) != 0)
            fail_msg("\"%s\" instead of \"%s\"", error, cases[i].error);
    }
}

static void one_bad_authority_does_not_spoil_the_others(void **state)
{
    char path[] = "/tmp/test_tls_XXXXXX";
    int fd = mkstemp(path);
    struct tls_options client = client_options(), server = server_options();
    struct pair pair;

    (void)state;
    assert_true(fd >= 0);
    copy_into(fd, PEM("old_root"));
    copy_into(fd, KEY("p256"));
    copy_into(fd, PEM("other"));
    copy_into(fd, PEM("root"));
    close(fd);
    client.authorities_file = path;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    pair_close(&pair);
    unlink(path);
}

static void context_is_the_same_when_all_is(void **state)
{
    struct tls_options options = server_options(), other;
    struct tls_context *one = make_context(&options), *two = make_context(&options);
    char path[] = "/tmp/test_tls_XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(tls_context_is_same(one, two));
    tls_context_release(two);
    for (unsigned i = 0; i < 9; i++) {
        other = options;
        if (i == 0)
            other.protocols = TLS_PROTOCOL_1_3;
        else if (i == 1)
            other.suites = "TLS_AES_128_GCM_SHA256";
        else if (i == 2)
            other.groups = "P-256";
        else if (i == 3)
            other.alpn = "postgresql";
        else if (i == 4)
            other.gives_tickets = true;
        else if (i == 5)
            other.authorities_file = PEM("root");
        else if (i == 6)
            other.dhe = TLS_DHE_2048;
        else if (i == 7)
            use_certificate(&other, "p384");
        else
            other.side = TLS_SIDE_CLIENT;
        two = make_context(&other);
        assert_false(tls_context_is_same(one, two));
        tls_context_release(two);
    }
    /* The same file with other contents is another one. */
    assert_true(fd >= 0);
    copy_into(fd, PEM("root"));
    other = options;
    other.authorities_file = path;
    two = make_context(&other);
    tls_context_release(one);
    copy_into(fd, PEM("other"));
    close(fd);
    one = make_context(&other);
    assert_false(tls_context_is_same(one, two));
    tls_context_release(one);
    tls_context_release(two);
    unlink(path);
}

/* A reload releases the context while sessions live. */
static void sessions_outlive_their_context(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct tls_context *old = make_context(&server), *new;
    struct tls_context *of_client = make_context(&client);
    uint8_t hash[TLS_END_POINT_BYTES_MAX];
    struct pair pair;

    (void)state;
    end_open(&pair.client, of_client, "db.example.com");
    end_open(&pair.server, old, NULL);
    tls_context_release(of_client);
    tls_context_release(old); /* the last but the session's: the handshake is still to come */
    shake(&pair.client, &pair.server, 0);
    pair_must_be_up(&pair);
    use_certificate(&server, "rsa");
    new = make_context(&server);
    exchange_some(&pair);
    assert_int_equal(tls_end_point(pair.server.tls, hash), 32);
    tls_context_release(new);
    exchange_some(&pair);
    pair_close(&pair);
}

/* ---- memory ---- */

static void records_cost_no_allocation(void **state)
{
    static const size_t sizes[] = {1, 60, 500, 1000, 3000, 8000, 16384, 100000};
    static uint8_t data[100000], got[100000];

    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip();
#endif
    for (unsigned i = 0; i < 2; i++) {
        struct tls_options client = client_options(), server = server_options();
        struct tls_memory_counts before = {0}, after;
        struct pair pair;

        client.protocols = i ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3;
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        for (unsigned round = 0; round < 200; round++) {
            if (round == 2)
                before = tls_memory_counts();
            for (size_t j = 0; j < COUNT_OF(sizes); j++) {
                enum tls_result result;
                size_t bytes;

                assert_true(tls_write(pair.client.tls, &pair.client.out.output, data, sizes[j]));
                feed(&pair.server, &pair.client.out, pair.client.out.bytes);
                result =
                    tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes);
                assert_int_equal(result, bytes == sizeof(got) ? TLS_OK : TLS_WANT_INPUT);
                assert_int_equal(bytes, sizes[j]);
                if (bytes == sizeof(got))
                    assert_int_equal(tls_read(pair.server.tls, &pair.server.out.output, got,
                                              sizeof(got), &bytes),
                                     TLS_WANT_INPUT);
            }
        }
        after = tls_memory_counts();
        assert_true(after.taken > before.taken);
        assert_int_equal(after.from_libc - before.from_libc, 0);
        pair_close(&pair);
    }
}

struct moved {
    struct pair *pair;
};

static void *use_in_another_thread(void *argument)
{
    struct moved *moved = argument;

    exchange_some(moved->pair);
    return NULL;
}

/* Shaken here, used by threads that come and go, destroyed here. The sanitizers are its judges. */
static void sessions_move_between_threads(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct pair pair;

    (void)state;
    pair_open(&pair, &client, &server, "db.example.com", 0);
    pair_must_be_up(&pair);
    for (unsigned i = 0; i < 4; i++) {
        struct moved moved = {.pair = &pair};
        pthread_t thread;
        uint8_t got[10];
        size_t bytes;

        /* Half a record stays in the library's buffer while the session moves. */
        assert_true(tls_write(pair.client.tls, &pair.client.out.output, "moved", 5));
        feed(&pair.server, &pair.client.out, 10);
        assert_int_equal(
            tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
            TLS_WANT_INPUT);
        feed(&pair.server, &pair.client.out, pair.client.out.bytes);
        assert_int_equal(
            tls_read(pair.server.tls, &pair.server.out.output, got, sizeof(got), &bytes),
            TLS_WANT_INPUT);
        assert_int_equal(bytes, 5);
        assert_int_equal(pthread_create(&thread, NULL, use_in_another_thread, &moved), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    pair_close(&pair);
}

struct shared {
    struct tls_context *client, *server;
};

static void *shake_many(void *argument)
{
    struct shared *shared = argument;

    for (unsigned i = 0; i < 20; i++) {
        struct pair pair;

        end_open(&pair.client, shared->client, "db.example.com");
        end_open(&pair.server, shared->server, NULL);
        shake(&pair.client, &pair.server, 0);
        pair_must_be_up(&pair);
        assert_true(tls_peer_has_name(pair.server.tls, "alice"));
        exchange_some(&pair);
        pair_close(&pair);
    }
    return NULL;
}

/* As helpers do it. The chain's certificate in the middle is remembered by the context, for all. */
static void contexts_are_shared_by_threads(void **state)
{
    struct tls_options client = client_options(), server = server_options();
    struct shared shared;
    pthread_t threads[4];

    (void)state;
    server.verify = TLS_VERIFY_CHAIN;
    server.authorities_file = PEM("root");
    use_certificate(&client, "alice");
    use_certificate(&server, "chain");
    shared = (struct shared){.client = make_context(&client), .server = make_context(&server)};
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, shake_many, &shared), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    tls_context_release(shared.client);
    tls_context_release(shared.server);
}

static uint64_t state_of_seed;

static void seed_of_test(void *out, size_t bytes)
{
    uint8_t *at = out;

    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)random_next(&state_of_seed);
}

static void hello_with_a_seed_can_be_repeated(void **state)
{
    struct tls_options client = client_options();
    struct tls_context *context = make_context(&client);
    struct end one, two;

    (void)state;
    if (!tls_set_seed(seed_of_test)) {
        tls_context_release(context);
        skip();
    }
    state_of_seed = 1;
    end_open(&one, context, "db.example.com");
    state_of_seed = 1;
    end_open(&two, context, "db.example.com");
    tls_context_release(context);
    assert_int_equal(tls_handshake(one.tls, &one.out.output), TLS_WANT_INPUT);
    assert_int_equal(tls_handshake(two.tls, &two.out.output), TLS_WANT_INPUT);
    assert_int_equal(one.out.bytes, two.out.bytes);
    assert_memory_equal(one.out.data, two.out.data, one.out.bytes);
    end_close(&one);
    end_close(&two);
    assert_true(tls_set_seed(NULL));
}

static void library_says_what_it_is(void **state)
{
    (void)state;
    assert_memory_equal(tls_library(), "wolfSSL 5.", 10);
    assert_true(tls_protocols() & TLS_PROTOCOL_1_2);
    assert_true(tls_protocols() & TLS_PROTOCOL_1_3);
    assert_false(tls_has_suite("RC4"));
    assert_false(tls_has_suite("TLS13-AES128-GCM-SHA256"));
    assert_true(tls_has_suite("ECDHE-RSA-AES256-GCM-SHA384"));
}

static int init(void **state)
{
    (void)state;
    return tls_init() ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(protocol_is_the_highest_that_both_allow),
        cmocka_unit_test(each_suite_carries_data),
        cmocka_unit_test(suites_are_those_asked_for),
        cmocka_unit_test(each_group_works),
        cmocka_unit_test(dhe_needs_its_parameters),
        cmocka_unit_test(certificates_of_all_kinds_verify),
        cmocka_unit_test(certificate_that_signs_itself_may_be_trusted),
        cmocka_unit_test(certificate_at_fault_is_refused),
        cmocka_unit_test(certificate_between_helps_no_other_session),
        cmocka_unit_test(handshake_without_a_judgement_fails),
        cmocka_unit_test(end_point_is_the_same_on_both_sides),
        cmocka_unit_test(client_certificates_are_asked_for),
        cmocka_unit_test(certificate_that_nobody_asked_for_is_refused),
        cmocka_unit_test(handshake_one_byte_at_a_time),
        cmocka_unit_test(data_behind_the_handshake_is_kept),
        cmocka_unit_test(data_one_byte_at_a_time),
        cmocka_unit_test(handshake_with_a_wrong_bit_is_safe),
        cmocka_unit_test(handshake_cut_off_waits_for_more),
        cmocka_unit_test(what_is_no_tls_is_refused),
        cmocka_unit_test(data_of_any_size_goes_through),
        cmocka_unit_test(answer_of_60_bytes_is_one_small_record),
        cmocka_unit_test(record_with_a_wrong_bit_ends_the_session),
        cmocka_unit_test(repeated_record_ends_the_session),
        cmocka_unit_test(close_notify_ends_what_the_peer_says),
        cmocka_unit_test(end_without_close_notify_is_no_close),
        cmocka_unit_test(keys_are_renewed_when_a_side_asks),
        cmocka_unit_test(messages_without_data_have_an_end),
        cmocka_unit_test(long_records_come_in_parts_of_any_size),
        cmocka_unit_test(large_record_in_two_pieces_is_data),
        cmocka_unit_test(protocol_name_is_agreed_or_refused),
        cmocka_unit_test(tickets_do_not_disturb),
        cmocka_unit_test(output_without_memory_ends_the_session),
        cmocka_unit_test(bad_options_are_refused_in_words),
        cmocka_unit_test(one_bad_authority_does_not_spoil_the_others),
        cmocka_unit_test(context_is_the_same_when_all_is),
        cmocka_unit_test(sessions_outlive_their_context),
        cmocka_unit_test(records_cost_no_allocation),
        cmocka_unit_test(sessions_move_between_threads),
        cmocka_unit_test(contexts_are_shared_by_threads),
        cmocka_unit_test(hello_with_a_seed_can_be_repeated),
        cmocka_unit_test(library_says_what_it_is),
    };

    return cmocka_run_group_tests(tests, init, NULL);
}
