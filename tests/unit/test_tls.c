/* Two sessions in memory, one of each side, against each other. The certificates are made by tls/make.sh. */
#include "unit.h"

#include "crypto/certificate.h"
#include "crypto/tls.h"
#include "crypto/tls_memory.h"

#include <pthread.h>
#include <stdlib.h>

#define FOLDER "tests/unit/tls/"
#define PEM(name) FOLDER name ".pem"
#define KEY(name) FOLDER name ".key"

static const char suites_of_1_3[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char all_suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

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

static void handshake_and_data(void **state)
{
    static const unsigned protocols[] = {TLS_PROTOCOL_1_2, TLS_PROTOCOL_1_3,
                                         TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(protocols); i++) {
        struct tls_options client = client_options(), server = server_options();
        char text[TLS_DESCRIPTION_BYTES];
        struct pair pair;

        client.protocols = protocols[i];
        pair_open(&pair, &client, &server, "db.example.com", 0);
        pair_must_be_up(&pair);
        tls_describe(pair.client.tls, text);
        assert_string_equal(text, protocols[i] & TLS_PROTOCOL_1_3
                                      ? "TLSv1.3/TLS_AES_128_GCM_SHA256"
                                      : "TLSv1.2/ECDHE-ECDSA-AES128-GCM-SHA256/ECDH=prime256v1");
        exchange_some(&pair);
        pair_close(&pair);
    }
}

static int init(void **state)
{
    (void)state;
    return tls_init() ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshake_and_data),
    };

    (void)suites_of_1_3;
    return cmocka_run_group_tests(tests, init, NULL);
}
