/* tls_client_own.c - TLS of the benchmark's clients by the pooler's own crypto/tls.h. */
#include "crypto/tls.h"
#include "tls_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { INPUT_BYTES = 32 * 1024 };

/* What goes out is collected for the length of one call, so that a flight is one send. */
struct tls_client {
    struct tls_output output; /* first: what put gets */
    struct tls *tls;
    int fd;
};

static struct tls_context *context;
static _Thread_local uint8_t input[INPUT_BYTES], flight[INPUT_BYTES];
static _Thread_local size_t flight_bytes;
static _Thread_local char last_error[TLS_ERROR_BYTES];

static bool flush(struct tls_client *client)
{
    size_t bytes = flight_bytes;

    flight_bytes = 0;
    return bytes == 0 || send(client->fd, flight, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    if (bytes > INPUT_BYTES - flight_bytes && !flush((struct tls_client *)output))
        return false;
    if (bytes > INPUT_BYTES)
        return false;
    memcpy(flight + flight_bytes, data, bytes);
    flight_bytes += bytes;
    return true;
}

static bool fill(struct tls_client *client)
{
    ssize_t count = recv(client->fd, input, sizeof(input), 0);

    if (count <= 0)
        return false;
    tls_feed(client->tls, input, (size_t)count);
    return true;
}

bool tls_client_init(const char *protocol, const char *cipher, const char *groups)
{
    bool is_old = protocol != NULL && strcmp(protocol, "1.2") == 0;
    struct tls_options options = {
        .side = TLS_SIDE_CLIENT,
        .protocols = is_old ? TLS_PROTOCOL_1_2 : TLS_PROTOCOL_1_3,
        .suites = cipher != NULL ? cipher
                  : is_old       ? "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
                                 : "TLS_AES_256_GCM_SHA384",
        .groups = groups != NULL ? groups : "X25519:P-256:P-384",
        .verify = TLS_VERIFY_NONE,
    };

    context = tls_init() ? tls_context_create(&options, last_error) : NULL;
    return context != NULL;
}

struct tls_client *tls_client_open(int fd)
{
    struct tls_client *client = malloc(sizeof(*client));
    enum tls_result result;

    if (client == NULL)
        return NULL;
    *client = (struct tls_client){.output.put = put, .fd = fd, .tls = tls_create(context, NULL)};
    flight_bytes = 0;
    do
        result = client->tls != NULL ? tls_handshake(client->tls, &client->output) : TLS_FAILED;
    while (flush(client) && result == TLS_WANT_INPUT && fill(client));
    if (result == TLS_OK)
        return client;
    if (client->tls != NULL)
        snprintf(last_error, sizeof(last_error), "%s", tls_error(client->tls));
    tls_client_close(client, false);
    return NULL;
}

bool tls_client_send(struct tls_client *client, const void *data, size_t bytes)
{
    return tls_write(client->tls, &client->output, data, bytes) && flush(client);
}

/* What is fed must be used up before the next is: `input` belongs to one session only as long. So
 * all of it is read before anybody else's turn; what does not fit into `out` cannot be kept. */
ssize_t tls_client_receive(struct tls_client *client, void *out, size_t room)
{
    size_t total = 0, got = 0;
    enum tls_result result;

    do {
        do {
            result =
                tls_read(client->tls, &client->output, (uint8_t *)out + total, room - total, &got);
            total += got;
        } while (result == TLS_OK && total < room);
        if (result == TLS_OK || result == TLS_FAILED || result == TLS_CLOSED)
            break;
    } while (total == 0 && fill(client));
    return result == TLS_WANT_INPUT && total > 0 ? (ssize_t)total : 0;
}

void tls_client_close(struct tls_client *client, bool says_goodbye)
{
    if (client == NULL)
        return;
    if (says_goodbye) {
        tls_close_notify(client->tls, &client->output);
        (void)flush(client);
    }
    tls_destroy(client->tls);
    free(client);
}

void tls_client_describe(struct tls_client *client, char text[TLS_CLIENT_TEXT_BYTES])
{
    char name[TLS_DESCRIPTION_BYTES];

    tls_describe(client->tls, name);
    snprintf(text, TLS_CLIENT_TEXT_BYTES, "%s/", name);
}

void tls_client_explain(char *text, size_t room)
{
    snprintf(text, room, "%s", last_error);
}
