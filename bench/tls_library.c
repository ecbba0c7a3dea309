/* tls_library.c - what crypto/tls.h costs without a pooler around it: both ends in one thread, bytes
 * over memory.
 *
 *   tls_library CERTIFICATE KEY PROTOCOL SUITES [GROUPS [AUTHORITIES]]     PROTOCOL: 1.2 or 1.3
 *
 * With AUTHORITIES ("" as GROUPS: the default) the client verifies the chain.
 *
 * Says, for each side: microseconds of a full handshake, bytes of heap of a session that is up (and
 * after the first records), microseconds of a record of 64 bytes, MB/s of full ones. */
#include "base/clock.h"
#include "crypto/tls.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PIPE_BYTES = 64 * 1024, SESSIONS = 1000, HANDSHAKES = 1000, FULL_BYTES = 16384 };

struct end {
    struct tls_output output; /* first: what put gets */
    struct tls *tls;
    uint8_t data[PIPE_BYTES]; /* for the other end */
    size_t bytes;
    double cpu_us;
    bool is_done;
};

static uint8_t plain[FULL_BYTES], opened[FULL_BYTES + TLS_RECORD_EXTRA_BYTES];

static double cpu_us(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    struct end *end = (struct end *)output;

    if (bytes > PIPE_BYTES - end->bytes)
        return false;
    memcpy(end->data + end->bytes, data, bytes);
    end->bytes += bytes;
    return true;
}

static void stop(const char *what, const struct tls *tls)
{
    fprintf(stderr, "%s: %s\n", what, tls != NULL ? tls_error(tls) : "");
    exit(1);
}

/* One step of a handshake with what the other end has said. */
static void step(struct end *end, struct end *other)
{
    uint8_t input[PIPE_BYTES];
    size_t bytes = other->bytes, got;
    double begin = cpu_us();

    memcpy(input, other->data, bytes);
    other->bytes = 0;
    tls_feed(end->tls, input, bytes);
    if (!end->is_done) {
        enum tls_result result = tls_handshake(end->tls, &end->output);

        if (result == TLS_FAILED)
            stop("handshake", end->tls);
        end->is_done = result == TLS_OK;
    }
    /* Tickets, for example. */
    if (end->is_done &&
        tls_read(end->tls, &end->output, opened, sizeof(opened), &got) != TLS_WANT_INPUT)
        stop("read", end->tls);
    end->cpu_us += cpu_us() - begin;
}

static void shake_hands(struct end *client, struct end *server, struct tls_context *contexts[2])
{
    double begin = cpu_us();

    server->tls = tls_create(contexts[0], NULL);
    server->cpu_us += cpu_us() - begin;
    begin = cpu_us();
    client->tls = tls_create(contexts[1], NULL);
    client->cpu_us += cpu_us() - begin;
    client->bytes = server->bytes = 0;
    client->is_done = server->is_done = false;
    if (server->tls == NULL || client->tls == NULL)
        stop("no session", NULL);
    while (!client->is_done || !server->is_done || client->bytes > 0 || server->bytes > 0) {
        step(client, server);
        step(server, client);
    }
    tls_forget_peer(server->tls);
    tls_forget_peer(client->tls);
}

/* Heap that is in use, larger mappings included. */
static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* The clock costs as much as a small record: so many of them between two looks at it. */
static void send_some(struct end *from, struct end *to, size_t bytes, unsigned count)
{
    double begin = cpu_us();
    size_t got = 0, total = 0;
    enum tls_result result;

    for (unsigned i = 0; i < count; i++)
        if (!tls_write(from->tls, &from->output, plain, bytes))
            stop("write", from->tls);
    from->cpu_us += cpu_us() - begin;
    begin = cpu_us();
    tls_feed(to->tls, from->data, from->bytes);
    do {
        result = tls_read(to->tls, &to->output, opened, sizeof(opened), &got);
        total += got;
    } while (result == TLS_OK);
    from->bytes = 0;
    to->cpu_us += cpu_us() - begin;
    if (result != TLS_WANT_INPUT || total < bytes * count)
        stop("read", to->tls);
}

static void records(const char *what, struct end *from, struct end *to, size_t bytes)
{
    unsigned at_once = (unsigned)(PIPE_BYTES / (bytes + TLS_RECORD_EXTRA_BYTES)), rounds;

    at_once = at_once > 50 ? 50 : at_once;
    rounds = 20000 / at_once;
    for (unsigned i = 0; i < 10; i++)
        send_some(from, to, bytes, at_once);
    from->cpu_us = to->cpu_us = 0;
    for (unsigned i = 0; i < rounds; i++)
        send_some(from, to, bytes, at_once);
    printf("%s, %zu bytes: write %.2f us (%.0f MB/s), read %.2f us (%.0f MB/s)\n", what, bytes,
           from->cpu_us / at_once / rounds, (double)bytes * at_once * rounds / from->cpu_us,
           to->cpu_us / at_once / rounds, (double)bytes * at_once * rounds / to->cpu_us);
}

static struct tls_context *context(enum tls_side side, char **argv, const char *groups,
                                   const char *authorities)
{
    struct tls_options options = {
        .side = side,
        .protocols = strcmp(argv[3], "1.2") == 0 ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3,
        .suites = argv[4],
        .groups = groups,
        .verify = TLS_VERIFY_NONE,
        .dhe = TLS_DHE_NONE,
    };
    char error[TLS_ERROR_BYTES];
    struct tls_context *made;

    if (side == TLS_SIDE_SERVER) {
        options.certificate_file = argv[1];
        options.key_file = argv[2];
    } else if (authorities != NULL) {
        options.authorities_file = authorities;
        options.verify = TLS_VERIFY_CHAIN;
    }
    made = tls_context_create(&options, error);
    if (made == NULL) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    return made;
}

int main(int argc, char **argv)
{
    static struct end client = {.output.put = put}, server = {.output.put = put};
    static struct tls *kept[2][SESSIONS];
    struct tls_context *contexts[2];
    char text[TLS_DESCRIPTION_BYTES];
    size_t before, after_servers, after;

    if (argc < 5 || !tls_init()) {
        fprintf(stderr, "see the head of bench/tls_library.c\n");
        return 2;
    }
    contexts[0] = context(TLS_SIDE_SERVER, argv, argc > 5 ? argv[5] : NULL, NULL);
    contexts[1] =
        context(TLS_SIDE_CLIENT, argv, argc > 5 ? argv[5] : NULL, argc > 6 ? argv[6] : NULL);
    for (int i = 0; i < HANDSHAKES; i++) {
        if (i == 20)
            client.cpu_us = server.cpu_us = 0;
        shake_hands(&client, &server, contexts);
        if (i == 0)
            tls_describe(server.tls, text);
        tls_destroy(client.tls);
        tls_destroy(server.tls);
    }
    printf("%s\n%s\nhandshake: server %.0f us, client %.0f us\n", tls_library(), text,
           server.cpu_us / (HANDSHAKES - 20), client.cpu_us / (HANDSHAKES - 20));
    before = heap_bytes();
    for (int i = 0; i < SESSIONS; i++) {
        shake_hands(&client, &server, contexts);
        send_some(&client, &server, 100, 1);
        send_some(&server, &client, 400, 1);
        kept[0][i] = server.tls;
        kept[1][i] = client.tls;
    }
    after = heap_bytes();
    for (int i = 0; i < SESSIONS; i++)
        tls_destroy(kept[1][i]);
    after_servers = heap_bytes();
    printf("heap of a session: server %zu bytes, client %zu bytes\n",
           (after_servers - before) / SESSIONS, (after - after_servers) / SESSIONS);
    shake_hands(&client, &server, contexts);
    records("server to client", &server, &client, 64);
    records("server to client", &server, &client, 400);
    records("server to client", &server, &client, FULL_BYTES);
    records("client to server", &client, &server, 64);
    return 0;
}
