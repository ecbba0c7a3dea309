/* fuzz_scram.c - feeds SCRAM's three readers of foreign bytes: the server role, the client role,
 * the stored secret.
 *
 * The input is a letter and up to three pieces with line feeds between them (no SCRAM message has
 * one):
 *
 *   's' client-first LF client-final      we are the server
 *   'S'                                   on TLS, the client has chosen PLUS
 *   't'                                   on TLS, the client has not chosen PLUS
 *   'c' server-first LF server-final      we are the client
 *   'C'                                   with PLUS
 *   'p' secret                            scram_secret_parse
 *   'w' password                          saslprep
 *
 * A byte "@" in a message stands for our half of the nonce, so that the fuzzer gets past it, and "#" for
 * what c= has to be with PLUS. Nobody here knows a password: no exchange may succeed. Build with -fsanitize=fuzzer,address,undefined.
 */
#include "crypto/saslprep.h"
#include "crypto/scram.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char nonce[] = "fyko+d2lbbFgONRv9qkxdawL";
static const char binding[] = /* base64 of "p=tls-server-end-point,," and 32 spaces */
    "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICA=";
static const uint8_t key[SCRAM_KEY_BYTES] = "bytes that nobody can guess";

static void check(bool holds)
{
    if (!holds)
        abort();
}

static struct scram_channel make_channel(bool is_tls)
{
    struct scram_channel channel = {.is_tls = is_tls};

    if (is_tls) {
        channel.binding_bytes = 32;
        memset(channel.binding, ' ', channel.binding_bytes);
    }
    return channel;
}

/* What a byte of a message stands for; NULL: itself. */
static const char *replacement(uint8_t byte)
{
    return byte == '@' ? nonce : byte == '#' ? binding : NULL;
}

/* Copies a piece to memory of exactly its size, for the address sanitizer's sake; "@" and "#" are
 * replaced. */
static uint8_t *take_piece(const uint8_t **data, size_t *bytes, size_t *piece_bytes)
{
    const uint8_t *end = *bytes > 0 ? memchr(*data, '\n', *bytes) : NULL;
    size_t length = end == NULL ? *bytes : (size_t)(end - *data);
    uint8_t *piece;
    size_t count = 0;

    for (size_t i = 0; i < length; i++)
        count += replacement((*data)[i]) != NULL ? strlen(replacement((*data)[i])) : 1;
    piece = malloc(count);
    check(piece != NULL || count == 0);
    *piece_bytes = 0;
    for (size_t i = 0; i < length; i++) {
        const char *text = replacement((*data)[i]);

        if (text != NULL) {
            memcpy(piece + *piece_bytes, text, strlen(text));
            *piece_bytes += strlen(text);
        } else {
            piece[(*piece_bytes)++] = (*data)[i];
        }
    }
    if (end != NULL)
        length++;
    *data += length;
    *bytes -= length;
    return piece;
}

static void fuzz_server(bool is_tls, unsigned mechanism, const uint8_t *data, size_t bytes)
{
    const struct scram_channel channel = make_channel(is_tls);
    enum scram_result result;
    struct scram_server server = {0};
    struct scram_secret secret;
    uint8_t client_key[SCRAM_KEY_BYTES];
    struct writer out;
    char room[SCRAM_SERVER_FIRST_ROOM];
    size_t piece_bytes;
    uint8_t *piece = take_piece(&data, &bytes, &piece_bytes);

    scram_secret_mock(&secret, key, "user", 4, 4096);
    secret.is_mock = false; /* so that the proof alone has to stop it */
    writer_init(&out, room, sizeof(room));
    result =
        scram_server_start(&server, &channel, mechanism, piece, piece_bytes, nonce, &secret, &out);
    if (result == SCRAM_BINDING_TYPE) {
        check(mechanism == SCRAM_OFFER_PLUS);
        check(strlen(scram_server_binding_type(&server)) <= 30);
    }
    if (result == SCRAM_OK) {
        /* Who binds says so, and who could have bound has not been told otherwise. */
        check((mechanism == SCRAM_OFFER_PLUS) == (piece[0] == 'p'));
        check(!is_tls || piece[0] != 'y');
        check(!out.overflow && out.bytes > 0);
        free(piece);
        piece = take_piece(&data, &bytes, &piece_bytes);
        out.bytes = 0;
        result = scram_server_finish(&server, piece, piece_bytes, client_key, &out);
        check(result != SCRAM_OK);
        if (result == SCRAM_WRONG_PROOF && mechanism == SCRAM_OFFER_PLUS)
            check(memcmp(piece + 2, binding, sizeof(binding) - 1) == 0);
        check(out.bytes == 0);
    }
    free(piece);
}

static void fuzz_client(bool is_tls, const uint8_t *data, size_t bytes)
{
    const struct scram_channel channel = make_channel(is_tls);
    struct scram_client client;
    struct writer out;
    char room[SCRAM_CLIENT_FINAL_ROOM];
    size_t piece_bytes;
    uint8_t *piece = take_piece(&data, &bytes, &piece_bytes);

    writer_init(&out, room, sizeof(room));
    check(scram_client_start(&client, &channel, SCRAM_OFFER_PLAIN | SCRAM_OFFER_PLUS, nonce,
                             &out) != NULL);
    if (scram_client_challenge(&client, piece, piece_bytes) == SCRAM_OK) {
        check(client.iterations >= 1 && client.iterations <= SCRAM_ITERATION_COUNT_MAX);
        check(client.salt_bytes >= 1 && client.salt_bytes <= SCRAM_SALT_BYTES_MAX);
        out.bytes = 0;
        scram_client_prove(&client, key, key, &out);
        check(!out.overflow);
        free(piece);
        piece = take_piece(&data, &bytes, &piece_bytes);
        check(scram_client_finish(&client, piece, piece_bytes) != SCRAM_OK);
    }
    free(piece);
}

/* What is read as a secret is written as the same text. */
static void fuzz_secret(const uint8_t *data, size_t bytes)
{
    struct scram_secret secret;
    char text[SCRAM_SECRET_TEXT_BYTES_MAX];
    char *copy = malloc(bytes + 1);

    check(copy != NULL);
    if (bytes > 0)
        memcpy(copy, data, bytes);
    copy[bytes] = '\0';
    if (scram_secret_parse(&secret, copy)) {
        check(scram_secret_format(&secret, text) == strlen(copy));
        check(strcmp(text, copy) == 0);
    }
    free(copy);
}

static void fuzz_saslprep(const uint8_t *data, size_t bytes)
{
    static char out[SASLPREP_OUTPUT_BYTES_MAX];
    size_t out_bytes;
    char *copy = malloc(bytes);

    check(copy != NULL || bytes == 0);
    if (bytes > 0)
        memcpy(copy, data, bytes);
    check((saslprep(copy, bytes, out, &out_bytes) == SASLPREP_OK) == (out_bytes > 0));
    check(out_bytes <= sizeof(out));
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    switch (data[0]) {
    case 's':
        fuzz_server(false, SCRAM_OFFER_PLAIN, data + 1, bytes - 1);
        break;
    case 'S':
        fuzz_server(true, SCRAM_OFFER_PLUS, data + 1, bytes - 1);
        break;
    case 't':
        fuzz_server(true, SCRAM_OFFER_PLAIN, data + 1, bytes - 1);
        break;
    case 'c':
        fuzz_client(false, data + 1, bytes - 1);
        break;
    case 'C':
        fuzz_client(true, data + 1, bytes - 1);
        break;
    case 'p':
        fuzz_secret(data + 1, bytes - 1);
        break;
    case 'w':
        fuzz_saslprep(data + 1, bytes - 1);
        break;
    default:
        break;
    }
    return 0;
}
