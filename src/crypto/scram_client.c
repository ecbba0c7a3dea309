/* SCRAM as client.
 *
 *   SCRAM_START --start--> SCRAM_SENT_FIRST --challenge, prove--> SCRAM_SENT_FINAL --finish-->
 * SCRAM_ENDED
 *                               \__________________________________\____(anything wrong)____/
 *
 * SENT_FIRST: nonce is set; once is_challenged is true also salt, iterations, server_first.
 * SENT_FINAL: server_signature is what the server has to send. */
#include "crypto/scram.h"

#include "base/assert.h"
#include "crypto/base64.h"
#include "crypto/hmac.h"
#include "crypto/scram_message.h"
#include "crypto/secret.h"

#include <string.h>

static_assert(sizeof(struct scram_client) <= 576, "lies in a slab, one for each login");
/* gs2-header "n=,r=" nonce */
static_assert(SCRAM_GS2_HEADER_BYTES_MAX + 5 + SCRAM_NONCE_TEXT_BYTES_MAX <=
                  SCRAM_CLIENT_FIRST_ROOM,
              "first message fits");
/* "c=" binding ",r=" nonces ",p=" proof */
static_assert(2 + SCRAM_BINDING_TEXT_BYTES_MAX + 3 + SCRAM_NONCE_TEXT_BYTES_MAX +
                      SCRAM_PEER_NONCE_BYTES_MAX + 3 + BASE64_TEXT_BYTES(SCRAM_KEY_BYTES) <=
                  SCRAM_CLIENT_FINAL_ROOM,
              "final message fits");

static const char first_bare[] = "n=,r="; /* no name: PostgreSQL has it from the startup message */

const char *scram_client_start(struct scram_client *client, const struct scram_channel *channel,
                               unsigned offers, const char *nonce, struct writer *out)
{
    enum scram_gs2_flag flag = SCRAM_GS2_NO;
    char header[SCRAM_GS2_HEADER_BYTES_MAX];
    size_t nonce_bytes = strlen(nonce);

    assert(scram_is_nonce(nonce, nonce_bytes));
    assert(nonce_bytes < SCRAM_NONCE_TEXT_BYTES_MAX);
    assert(out->bytes_max - out->bytes >= SCRAM_CLIENT_FIRST_ROOM);

    if ((offers & SCRAM_OFFER_PLUS) && channel->binding_bytes > 0)
        flag = SCRAM_GS2_BOUND;
    else if (!(offers & SCRAM_OFFER_PLAIN))
        return NULL;
    else if (channel->is_tls && !(offers & SCRAM_OFFER_PLUS))
        flag = SCRAM_GS2_NOT_OFFERED;

    *client = (struct scram_client){
        .state = SCRAM_SENT_FIRST, .gs2_flag = (uint8_t)flag, .channel = *channel};
    memcpy(client->nonce, nonce, nonce_bytes + 1);
    writer_put(out, header, scram_gs2_header(flag, header));
    writer_put(out, first_bare, sizeof(first_bare) - 1);
    writer_put(out, nonce, nonce_bytes);
    return flag == SCRAM_GS2_BOUND ? SCRAM_MECHANISM_PLUS : SCRAM_MECHANISM;
}

/* Both halves; the first has to be ours and the second not empty. */
static enum scram_result check_nonce(const struct scram_client *client,
                                     const struct scram_value *nonce)
{
    size_t own_bytes = strlen(client->nonce);

    if (!scram_is_nonce(nonce->text, nonce->bytes))
        return SCRAM_BAD;
    if (nonce->bytes <= own_bytes || memcmp(nonce->text, client->nonce, own_bytes) != 0)
        return SCRAM_BAD_NONCE;
    return nonce->bytes - own_bytes > SCRAM_PEER_NONCE_BYTES_MAX ? SCRAM_TOO_LONG : SCRAM_OK;
}

static enum scram_result read_salt(struct scram_client *client, const struct scram_value *text)
{
    size_t bytes;

    if (text->bytes >= SCRAM_SALT_TEXT_BYTES_MAX)
        return SCRAM_TOO_LONG;
    if (!base64_decode(text->text, text->bytes, client->salt, sizeof(client->salt), &bytes) ||
        bytes == 0)
        return SCRAM_BAD_SALT;
    client->salt_bytes = (uint8_t)bytes;
    return SCRAM_OK;
}

static enum scram_result read_challenge(struct scram_client *client, const char *message,
                                        size_t bytes)
{
    struct scram_attributes attributes;
    struct scram_value nonce, salt, iterations, ignored;
    enum scram_result result = scram_message_check(message, bytes);
    char name;

    if (result != SCRAM_OK)
        return result;
    scram_attributes_init(&attributes, message, bytes);
    if (scram_attributes_demand_extension(&attributes))
        return SCRAM_BAD_EXTENSION;
    if (!scram_attributes_expect(&attributes, 'r', &nonce))
        return SCRAM_BAD;
    result = check_nonce(client, &nonce);
    if (result != SCRAM_OK)
        return result;
    if (!scram_attributes_expect(&attributes, 's', &salt))
        return SCRAM_BAD;
    result = read_salt(client, &salt);
    if (result != SCRAM_OK)
        return result;
    if (!scram_attributes_expect(&attributes, 'i', &iterations))
        return SCRAM_BAD;
    client->iterations =
        scram_read_iterations(iterations.text, iterations.bytes, SCRAM_ITERATION_COUNT_MAX);
    if (client->iterations == 0)
        return SCRAM_BAD_ITERATIONS;
    while (!attributes.is_finished) {
        if (!scram_attributes_next(&attributes, &name, &ignored))
            return SCRAM_BAD;
    }
    if (bytes > sizeof(client->server_first))
        return SCRAM_TOO_LONG;
    memcpy(client->server_first, message, bytes);
    client->server_first_bytes = (uint16_t)bytes;
    client->nonce_bytes = (uint16_t)nonce.bytes;
    return SCRAM_OK;
}

enum scram_result scram_client_challenge(struct scram_client *client, const void *message,
                                         size_t bytes)
{
    enum scram_result result;

    assert(client->state == SCRAM_SENT_FIRST);
    assert(!client->is_challenged);

    result = read_challenge(client, message, bytes);
    client->is_challenged = result == SCRAM_OK;
    if (result != SCRAM_OK)
        client->state = SCRAM_ENDED;
    return result;
}

bool scram_client_matches(const struct scram_client *client, const struct scram_secret *secret)
{
    assert(client->is_challenged);
    return client->iterations == secret->iterations && client->salt_bytes == secret->salt_bytes &&
           memcmp(client->salt, secret->salt, client->salt_bytes) == 0;
}

void scram_client_prove(struct scram_client *client, const uint8_t client_key[SCRAM_KEY_BYTES],
                        const uint8_t server_key[SCRAM_KEY_BYTES], struct writer *out)
{
    char client_first_data[sizeof(first_bare) + SCRAM_NONCE_TEXT_BYTES_MAX];
    struct scram_value client_first = {.text = client_first_data};
    const struct scram_value server_first = {client->server_first, client->server_first_bytes};
    struct scram_value final_bare = {.text = (const char *)out->data + out->bytes};
    uint8_t stored_key[SCRAM_KEY_BYTES], proof[SCRAM_KEY_BYTES];
    char text[BASE64_TEXT_BYTES(SCRAM_KEY_BYTES)];
    char binding[SCRAM_BINDING_TEXT_BYTES_MAX];
    struct writer first;
    size_t start = out->bytes;

    assert(client->state == SCRAM_SENT_FIRST);
    assert(client->is_challenged);
    assert(out->bytes_max - out->bytes >= SCRAM_CLIENT_FINAL_ROOM);

    writer_init(&first, client_first_data, sizeof(client_first_data));
    writer_put(&first, first_bare, sizeof(first_bare) - 1);
    writer_put(&first, client->nonce, strlen(client->nonce));
    client_first.bytes = first.bytes;

    writer_put(out, "c=", 2);
    writer_put(
        out, binding,
        scram_binding_text((enum scram_gs2_flag)client->gs2_flag, &client->channel, binding));
    writer_put(out, ",r=", 3);
    writer_put(out, client->server_first + 2, client->nonce_bytes);
    final_bare.bytes = out->bytes - start;

    sha256(client_key, SCRAM_KEY_BYTES, stored_key);
    scram_sign(stored_key, &client_first, &server_first, &final_bare, proof);
    for (size_t i = 0; i < SCRAM_KEY_BYTES; i++)
        proof[i] ^= client_key[i];
    scram_sign(server_key, &client_first, &server_first, &final_bare, client->server_signature);

    writer_put(out, ",p=", 3);
    writer_put(out, text, base64_encode(proof, SCRAM_KEY_BYTES, text));
    assert(!first.overflow);
    assert(!out->overflow);
    client->state = SCRAM_SENT_FINAL;
    secret_wipe(stored_key, sizeof(stored_key));
}

static enum scram_result read_verdict(const struct scram_client *client, const char *message,
                                      size_t bytes)
{
    struct scram_attributes attributes;
    struct scram_value value;
    enum scram_result result = scram_message_check(message, bytes);
    uint8_t signature[SCRAM_KEY_BYTES];
    size_t signature_bytes;
    char name;

    if (result != SCRAM_OK)
        return result;
    scram_attributes_init(&attributes, message, bytes);
    if (!scram_attributes_next(&attributes, &name, &value))
        return SCRAM_BAD;
    if (name == 'e') {
        /* It goes into a log, so nothing that could forge a line or steer a terminal. */
        for (size_t i = 2; i < bytes; i++) {
            if (message[i] < 0x20 || message[i] > 0x7e)
                return SCRAM_BAD;
        }
        return SCRAM_SERVER_ERROR;
    }
    if (name != 'v' || !attributes.is_finished)
        return SCRAM_BAD;
    if (!base64_decode(value.text, value.bytes, signature, sizeof(signature), &signature_bytes) ||
        signature_bytes != sizeof(signature))
        return SCRAM_BAD_SIGNATURE;
    return secret_equal(signature, client->server_signature, sizeof(signature))
               ? SCRAM_OK
               : SCRAM_WRONG_SIGNATURE;
}

enum scram_result scram_client_finish(struct scram_client *client, const void *message,
                                      size_t bytes)
{
    assert(client->state == SCRAM_SENT_FINAL);
    client->state = SCRAM_ENDED;
    return read_verdict(client, message, bytes);
}

void scram_client_wipe(struct scram_client *client)
{
    secret_wipe(client, sizeof(*client));
}
