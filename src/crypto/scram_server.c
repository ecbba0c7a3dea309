/* SCRAM as server.
 *
 *   SCRAM_START --client-first--> SCRAM_SENT_FIRST --client-final--> SCRAM_SENT_FINAL
 *        \______________________________\___________________________> SCRAM_ENDED (anything wrong)
 *
 * SENT_FIRST: client_first_bare, server_first, gs2_flag, channel and the keys are set. Others:
 * nothing may be relied on. */
#include "crypto/scram.h"

#include "base/assert.h"
#include "crypto/base64.h"
#include "crypto/hmac.h"
#include "crypto/scram_message.h"
#include "crypto/secret.h"

#include <string.h>

static_assert(sizeof(struct scram_server) <= 1152, "lies in a slab, one for each login");
/* "r=" both nonces ",s=" salt ",i=" iterations */
static_assert(2 + SCRAM_PEER_NONCE_BYTES_MAX + SCRAM_NONCE_TEXT_BYTES_MAX + 3 +
                      SCRAM_SALT_TEXT_BYTES_MAX + 3 + 10 <=
                  SCRAM_SERVER_FIRST_BYTES_MAX,
              "our own first message fits");

unsigned scram_server_offers(const struct scram_channel *channel)
{
    return channel->binding_bytes > 0 ? SCRAM_OFFER_PLUS | SCRAM_OFFER_PLAIN : SCRAM_OFFER_PLAIN;
}

/* Keeps what stands behind "p=", for the error, where else client_first_bare would be. */
static void keep_binding_type(struct scram_server *server, const struct scram_value *type)
{
    size_t bytes = MIN(type->bytes, (size_t)30);

    for (size_t i = 0; i < bytes; i++) {
        char byte = type->text[i];

        server->client_first_bare[i] = byte >= 0x21 && byte <= 0x7e ? byte : '?';
    }
    server->client_first_bare[bytes] = '\0';
}

const char *scram_server_binding_type(const struct scram_server *server)
{
    assert(server->state == SCRAM_ENDED);
    return server->client_first_bare;
}

/* Reads the flag of the gs2-header up to and with its comma, and judges it. */
static enum scram_result read_gs2_flag(struct scram_server *server, unsigned mechanism,
                                       const char *message, size_t bytes, size_t *flag_bytes)
{
    static const char bound[] = SCRAM_BINDING_TYPE_TEXT;
    bool is_plus = mechanism == SCRAM_OFFER_PLUS;
    struct scram_attributes attributes;
    struct scram_value type;
    char name;

    switch (message[0]) {
    case SCRAM_GS2_BOUND:
        if (!is_plus)
            return SCRAM_CHANNEL_BINDING;
        scram_attributes_init(&attributes, message, bytes);
        if (!scram_attributes_next(&attributes, &name, &type) || attributes.is_finished)
            return SCRAM_BAD;
        if (type.bytes != sizeof(bound) - 1 || memcmp(type.text, bound, type.bytes) != 0) {
            keep_binding_type(server, &type);
            return SCRAM_BINDING_TYPE;
        }
        *flag_bytes = (size_t)(attributes.at - message);
        break;
    case SCRAM_GS2_NO:
    case SCRAM_GS2_NOT_OFFERED:
        if (bytes < 2 || message[1] != ',')
            return SCRAM_BAD;
        if (is_plus)
            return SCRAM_NOT_BOUND;
        /* Right where we have not offered it. Else somebody has changed our list on its way. */
        if (message[0] == SCRAM_GS2_NOT_OFFERED && server->channel.binding_bytes > 0)
            return SCRAM_DOWNGRADED;
        *flag_bytes = 2;
        break;
    default:
        return SCRAM_BAD;
    }
    server->gs2_flag = (uint8_t)message[0];
    return SCRAM_OK;
}

/* Reads the client-first-message; `nonce` is the client's half of the nonce. */
static enum scram_result read_first(struct scram_server *server, unsigned mechanism,
                                    const char *message, size_t bytes, struct scram_value *nonce)
{
    struct scram_attributes attributes;
    struct scram_value ignored;
    enum scram_result result = scram_message_check(message, bytes);
    size_t flag_bytes;
    char name;

    if (result == SCRAM_OK)
        result = read_gs2_flag(server, mechanism, message, bytes, &flag_bytes);
    if (result != SCRAM_OK)
        return result;
    message += flag_bytes;
    bytes -= flag_bytes;
    if (bytes == 0)
        return SCRAM_BAD;
    if (message[0] == 'a')
        return SCRAM_AUTHZID;
    if (message[0] != ',')
        return SCRAM_BAD;
    message++;
    bytes--;
    if (bytes > SCRAM_CLIENT_FIRST_BARE_BYTES_MAX)
        return SCRAM_TOO_LONG;

    scram_attributes_init(&attributes, message, bytes);
    if (scram_attributes_demand_extension(&attributes))
        return SCRAM_BAD_EXTENSION;
    if (!scram_attributes_expect(&attributes, 'n', &ignored) ||
        !scram_attributes_expect(&attributes, 'r', nonce) ||
        !scram_is_nonce(nonce->text, nonce->bytes))
        return SCRAM_BAD;
    if (nonce->bytes > SCRAM_PEER_NONCE_BYTES_MAX)
        return SCRAM_TOO_LONG;
    /* Extensions may follow; what is not known is ignored. */
    while (!attributes.is_finished) {
        if (!scram_attributes_next(&attributes, &name, &ignored))
            return SCRAM_BAD;
    }
    memcpy(server->client_first_bare, message, bytes);
    server->client_first_bare_bytes = (uint16_t)bytes;
    return SCRAM_OK;
}

static void write_number(struct writer *out, uint32_t number)
{
    char digits[10];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    writer_put(out, digits + at, sizeof(digits) - at);
}

static void make_first(struct scram_server *server, const struct scram_value *client_nonce,
                       const char *nonce, const struct scram_secret *secret)
{
    struct writer first;

    writer_init(&first, server->server_first, sizeof(server->server_first));
    writer_put(&first, "r=", 2);
    writer_put(&first, client_nonce->text, client_nonce->bytes);
    writer_put(&first, nonce, strlen(nonce));
    server->nonce_bytes = (uint16_t)(first.bytes - 2);
    writer_put(&first, ",s=", 3);
    writer_put(&first, secret->salt_text, strlen(secret->salt_text));
    writer_put(&first, ",i=", 3);
    write_number(&first, secret->iterations);
    assert(!first.overflow);
    server->server_first_bytes = (uint16_t)first.bytes;
}

enum scram_result scram_server_start(struct scram_server *server,
                                     const struct scram_channel *channel, unsigned mechanism,
                                     const void *message, size_t bytes, const char *nonce,
                                     const struct scram_secret *secret, struct writer *out)
{
    struct scram_value client_nonce;
    enum scram_result result;

    assert(mechanism == SCRAM_OFFER_PLAIN || mechanism == SCRAM_OFFER_PLUS);
    assert(scram_server_offers(channel) & mechanism);
    assert(scram_is_nonce(nonce, strlen(nonce)));
    assert(strlen(nonce) < SCRAM_NONCE_TEXT_BYTES_MAX);
    assert(secret->iterations > 0);
    assert(secret->salt_bytes > 0);
    assert(out->bytes_max - out->bytes >= SCRAM_SERVER_FIRST_ROOM);

    server->state = SCRAM_ENDED;
    server->channel = *channel;
    result = read_first(server, mechanism, message, bytes, &client_nonce);
    if (result != SCRAM_OK)
        return result;
    make_first(server, &client_nonce, nonce, secret);
    memcpy(server->stored_key, secret->stored_key, SCRAM_KEY_BYTES);
    memcpy(server->server_key, secret->server_key, SCRAM_KEY_BYTES);
    server->is_mock = secret->is_mock;
    server->state = SCRAM_SENT_FIRST;
    writer_put(out, server->server_first, server->server_first_bytes);
    return SCRAM_OK;
}

/* Reads the client-final-message. `bare` is what stands before ",p=". */
static enum scram_result read_final(const struct scram_server *server, const char *message,
                                    size_t bytes, struct scram_value *bare,
                                    uint8_t proof[SCRAM_KEY_BYTES])
{
    struct scram_attributes attributes;
    struct scram_value binding, nonce, value;
    enum scram_result result = scram_message_check(message, bytes);
    char expected[SCRAM_BINDING_TEXT_BYTES_MAX];
    size_t expected_bytes =
        scram_binding_text((enum scram_gs2_flag)server->gs2_flag, &server->channel, expected);
    size_t proof_bytes;
    char name;

    if (result != SCRAM_OK)
        return result;
    scram_attributes_init(&attributes, message, bytes);
    if (!scram_attributes_expect(&attributes, 'c', &binding) ||
        !scram_attributes_expect(&attributes, 'r', &nonce))
        return SCRAM_BAD;
    do { /* extensions, then the proof, which is the last */
        bare->text = message;
        bare->bytes = (size_t)(attributes.at - message) - 1;
        if (!scram_attributes_next(&attributes, &name, &value))
            return SCRAM_BAD;
    } while (name != 'p');
    if (!attributes.is_finished ||
        !base64_decode(value.text, value.bytes, proof, SCRAM_KEY_BYTES, &proof_bytes) ||
        proof_bytes != SCRAM_KEY_BYTES)
        return SCRAM_BAD;

    if (binding.bytes != expected_bytes || memcmp(binding.text, expected, expected_bytes) != 0)
        return server->gs2_flag == SCRAM_GS2_BOUND ? SCRAM_WRONG_BINDING : SCRAM_BINDING_CHANGED;
    if (nonce.bytes != server->nonce_bytes ||
        memcmp(nonce.text, server->server_first + 2, nonce.bytes) != 0)
        return SCRAM_BAD_NONCE;
    return SCRAM_OK;
}

/* ClientKey is what the proof was XORed from; the client knows it if it hashes to StoredKey. */
static bool check_proof(const struct scram_server *server, const struct scram_value *final_bare,
                        const uint8_t proof[SCRAM_KEY_BYTES], uint8_t client_key[SCRAM_KEY_BYTES],
                        uint8_t server_signature[SCRAM_KEY_BYTES])
{
    const struct scram_value client_first = {server->client_first_bare,
                                             server->client_first_bare_bytes};
    const struct scram_value server_first = {server->server_first, server->server_first_bytes};
    uint8_t signature[SCRAM_KEY_BYTES];
    uint8_t hashed[SCRAM_KEY_BYTES];
    bool is_right;

    scram_sign(server->stored_key, &client_first, &server_first, final_bare, signature);
    for (size_t i = 0; i < SCRAM_KEY_BYTES; i++)
        client_key[i] = proof[i] ^ signature[i];
    sha256(client_key, SCRAM_KEY_BYTES, hashed);
    scram_sign(server->server_key, &client_first, &server_first, final_bare, server_signature);
    is_right = secret_equal(hashed, server->stored_key, SCRAM_KEY_BYTES);
    secret_wipe(signature, sizeof(signature)); /* with the proof it makes the ClientKey */
    return is_right & !server->is_mock; /* & as both sides count: no shorter way for a mock */
}

enum scram_result scram_server_finish(struct scram_server *server, const void *message,
                                      size_t bytes, uint8_t client_key[SCRAM_KEY_BYTES],
                                      struct writer *out)
{
    struct scram_value final_bare;
    uint8_t proof[SCRAM_KEY_BYTES], key[SCRAM_KEY_BYTES], signature[SCRAM_KEY_BYTES];
    char text[BASE64_TEXT_BYTES(SCRAM_KEY_BYTES)];
    enum scram_result result;

    assert(server->state == SCRAM_SENT_FIRST);
    assert(out->bytes_max - out->bytes >= SCRAM_SERVER_FINAL_ROOM);

    server->state = SCRAM_ENDED;
    result = read_final(server, message, bytes, &final_bare, proof);
    if (result != SCRAM_OK)
        return result;
    if (check_proof(server, &final_bare, proof, key, signature)) {
        memcpy(client_key, key, SCRAM_KEY_BYTES);
        writer_put(out, "v=", 2);
        writer_put(out, text, base64_encode(signature, SCRAM_KEY_BYTES, text));
        server->state = SCRAM_SENT_FINAL;
    } else {
        result = SCRAM_WRONG_PROOF;
    }
    secret_wipe(key, sizeof(key));
    secret_wipe(signature, sizeof(signature));
    return result;
}

void scram_server_wipe(struct scram_server *server)
{
    secret_wipe(server, sizeof(*server));
}
