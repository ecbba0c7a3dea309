/* Keys and secrets; the two roles are in scram_server.c and scram_client.c. */
#include "crypto/scram.h"

#include "base/assert.h"
#include "crypto/base64.h"
#include "crypto/hmac.h"
#include "crypto/saslprep.h"
#include "crypto/scram_message.h"
#include "crypto/secret.h"

#include <stdio.h>
#include <string.h>

static_assert(SCRAM_SALT_TEXT_BYTES_MAX == BASE64_TEXT_BYTES(SCRAM_SALT_BYTES_MAX) + 1,
              "room for the longest salt as text");
static_assert((int)SCRAM_KEY_BYTES == (int)SHA256_BYTES, "SCRAM-SHA-256");

const char *scram_result_text(enum scram_result result)
{
    switch (result) {
    case SCRAM_OK:
        return "ok";
    case SCRAM_BAD:
        return "malformed SCRAM message";
    case SCRAM_TOO_LONG:
        return "SCRAM message too long";
    case SCRAM_BAD_EXTENSION:
        return "unsupported SCRAM extension";
    case SCRAM_BAD_NONCE:
        return "SCRAM nonce does not match";
    case SCRAM_BAD_SALT:
        return "malformed SCRAM salt";
    case SCRAM_BAD_ITERATIONS:
        return "SCRAM iteration count out of range";
    case SCRAM_CHANNEL_BINDING:
        return "SCRAM channel binding in a mechanism without it";
    case SCRAM_NOT_BOUND:
        return "no SCRAM channel binding in a mechanism with it";
    case SCRAM_DOWNGRADED:
        return "SCRAM channel binding negotiation error";
    case SCRAM_BINDING_TYPE:
        return "unsupported SCRAM channel-binding type";
    case SCRAM_BINDING_CHANGED:
        return "unexpected SCRAM channel-binding attribute";
    case SCRAM_WRONG_BINDING:
        return "SCRAM channel binding check failed";
    case SCRAM_AUTHZID:
        return "SCRAM authorization identity not supported";
    case SCRAM_WRONG_PROOF:
        return "wrong password";
    case SCRAM_SERVER_ERROR:
        return "server refused the SCRAM exchange";
    case SCRAM_BAD_SIGNATURE:
        return "malformed SCRAM server signature";
    case SCRAM_WRONG_SIGNATURE:
        return "invalid server signature";
    }
    return "unknown SCRAM result";
}

/* ---- keys ---- */

/* PBKDF2 (RFC 8018 section 5.2) for one block of output, which is all that SCRAM asks for. */
static void stretch(const void *password, size_t password_bytes, const uint8_t *salt,
                    size_t salt_bytes, uint32_t iterations, uint8_t out[SCRAM_KEY_BYTES])
{
    static const uint8_t first_block[4] = {0, 0, 0, 1};
    uint8_t round[SCRAM_KEY_BYTES];
    struct hmac_key key;
    struct hmac hmac;

    hmac_key_init(&key, password, password_bytes);
    hmac_start(&hmac, &key);
    hmac_add(&hmac, salt, salt_bytes);
    hmac_add(&hmac, first_block, sizeof(first_block));
    hmac_end(&hmac, round);
    memcpy(out, round, SCRAM_KEY_BYTES);
    for (uint32_t i = 1; i < iterations; i++) {
        hmac_start(&hmac, &key);
        hmac_add(&hmac, round, sizeof(round));
        hmac_end(&hmac, round);
        for (size_t j = 0; j < SCRAM_KEY_BYTES; j++)
            out[j] ^= round[j];
    }
    hmac_key_wipe(&key);
    secret_wipe(round, sizeof(round));
}

void scram_salted_password(const char *password, size_t password_bytes, const uint8_t *salt,
                           size_t salt_bytes, uint32_t iterations, uint8_t out[SCRAM_KEY_BYTES])
{
    char prepared[SASLPREP_OUTPUT_BYTES_MAX];
    size_t prepared_bytes;

    assert(iterations > 0);
    if (saslprep(password, password_bytes, prepared, &prepared_bytes) == SASLPREP_OK)
        stretch(prepared, prepared_bytes, salt, salt_bytes, iterations, out);
    else
        stretch(password, password_bytes, salt, salt_bytes, iterations, out);
    secret_wipe(prepared, prepared_bytes);
}

void scram_keys_from_salted(const uint8_t salted[SCRAM_KEY_BYTES],
                            uint8_t client_key[SCRAM_KEY_BYTES],
                            uint8_t stored_key[SCRAM_KEY_BYTES],
                            uint8_t server_key[SCRAM_KEY_BYTES])
{
    static const char client_label[] = "Client Key";
    static const char server_label[] = "Server Key";

    hmac_once(salted, SCRAM_KEY_BYTES, client_label, sizeof(client_label) - 1, client_key);
    sha256(client_key, SCRAM_KEY_BYTES, stored_key);
    hmac_once(salted, SCRAM_KEY_BYTES, server_label, sizeof(server_label) - 1, server_key);
}

void scram_nonce_text(const uint8_t random[SCRAM_NONCE_BYTES],
                      char text[SCRAM_NONCE_TEXT_BYTES_MAX])
{
    static_assert(BASE64_TEXT_BYTES(SCRAM_NONCE_BYTES) < SCRAM_NONCE_TEXT_BYTES_MAX, "room");
    text[base64_encode(random, SCRAM_NONCE_BYTES, text)] = '\0';
}

/* ---- secrets ---- */

/* Finds what stands before `delimiter` and steps behind it. */
static bool cut(const char **at, char delimiter, struct scram_value *part)
{
    const char *end = strchr(*at, delimiter);

    if (end == NULL)
        return false;
    *part = (struct scram_value){.text = *at, .bytes = (size_t)(end - *at)};
    *at = delimiter == '\0' ? end : end + 1;
    return true;
}

static bool read_key(const struct scram_value *text, uint8_t key[SCRAM_KEY_BYTES])
{
    size_t bytes;

    return base64_decode(text->text, text->bytes, key, SCRAM_KEY_BYTES, &bytes) &&
           bytes == SCRAM_KEY_BYTES;
}

static void set_salt(struct scram_secret *secret, const uint8_t *salt, size_t bytes)
{
    assert(bytes > 0);
    assert(bytes <= SCRAM_SALT_BYTES_MAX);
    memcpy(secret->salt, salt, bytes);
    secret->salt_bytes = (uint8_t)bytes;
    secret->salt_text[base64_encode(salt, bytes, secret->salt_text)] = '\0';
}

bool scram_secret_parse(struct scram_secret *secret, const char *text)
{
    static const char prefix[] = SCRAM_MECHANISM "$";
    struct scram_value iterations, salt, stored_key, server_key;
    uint8_t salt_data[SCRAM_SALT_BYTES_MAX];
    size_t salt_bytes;
    const char *at = text + sizeof(prefix) - 1;

    *secret = (struct scram_secret){0};
    if (strncmp(text, prefix, sizeof(prefix) - 1) != 0)
        return false;
    if (!cut(&at, ':', &iterations) || !cut(&at, '$', &salt) || !cut(&at, ':', &stored_key) ||
        !cut(&at, '\0', &server_key))
        return false;

    secret->iterations = scram_read_iterations(iterations.text, iterations.bytes, INT32_MAX);
    if (secret->iterations == 0)
        return false;
    if (!base64_decode(salt.text, salt.bytes, salt_data, sizeof(salt_data), &salt_bytes) ||
        salt_bytes == 0)
        return false;
    /* Each value has one spelling in base64, so this writes the text as it stands in the secret. */
    set_salt(secret, salt_data, salt_bytes);
    return read_key(&stored_key, secret->stored_key) && read_key(&server_key, secret->server_key);
}

size_t scram_secret_format(const struct scram_secret *secret,
                           char text[SCRAM_SECRET_TEXT_BYTES_MAX])
{
    char stored_key[BASE64_TEXT_BYTES(SCRAM_KEY_BYTES)];
    char server_key[BASE64_TEXT_BYTES(SCRAM_KEY_BYTES)];
    int bytes;

    base64_encode(secret->stored_key, SCRAM_KEY_BYTES, stored_key);
    base64_encode(secret->server_key, SCRAM_KEY_BYTES, server_key);
    bytes = snprintf(text, SCRAM_SECRET_TEXT_BYTES_MAX, SCRAM_MECHANISM "$%u:%s$%.*s:%.*s",
                     secret->iterations, secret->salt_text, (int)sizeof(stored_key), stored_key,
                     (int)sizeof(server_key), server_key);
    assert(bytes > 0);
    assert(bytes < SCRAM_SECRET_TEXT_BYTES_MAX);
    return (size_t)bytes;
}

void scram_secret_make(struct scram_secret *secret, const uint8_t salted[SCRAM_KEY_BYTES],
                       const uint8_t *salt, size_t salt_bytes, uint32_t iterations)
{
    uint8_t client_key[SCRAM_KEY_BYTES];

    assert(iterations > 0);
    *secret = (struct scram_secret){.iterations = iterations};
    set_salt(secret, salt, salt_bytes);
    scram_keys_from_salted(salted, client_key, secret->stored_key, secret->server_key);
    secret_wipe(client_key, sizeof(client_key));
}

void scram_secret_mock(struct scram_secret *secret, const uint8_t process_key[SCRAM_KEY_BYTES],
                       const char *user, size_t user_bytes, uint32_t iterations)
{
    uint8_t derived[SCRAM_KEY_BYTES];

    assert(iterations > 0);
    *secret = (struct scram_secret){.iterations = iterations, .is_mock = true};
    hmac_once(process_key, SCRAM_KEY_BYTES, user, user_bytes, derived);
    set_salt(secret, derived, SCRAM_SALT_DEFAULT_BYTES);
    /* The half that is not sent makes the keys, so that nobody can compute them from the salt. */
    hmac_once(process_key, SCRAM_KEY_BYTES, derived, sizeof(derived), secret->stored_key);
    hmac_once(process_key, SCRAM_KEY_BYTES, secret->stored_key, SCRAM_KEY_BYTES,
              secret->server_key);
    secret_wipe(derived, sizeof(derived));
}

bool scram_secret_check(const struct scram_secret *secret, const uint8_t salted[SCRAM_KEY_BYTES])
{
    uint8_t client_key[SCRAM_KEY_BYTES], stored_key[SCRAM_KEY_BYTES], server_key[SCRAM_KEY_BYTES];
    bool is_equal;

    scram_keys_from_salted(salted, client_key, stored_key, server_key);
    is_equal = secret_equal(stored_key, secret->stored_key, SCRAM_KEY_BYTES) && !secret->is_mock;
    secret_wipe(client_key, sizeof(client_key));
    secret_wipe(stored_key, sizeof(stored_key));
    secret_wipe(server_key, sizeof(server_key));
    return is_equal;
}

bool scram_secret_equal(const struct scram_secret *left, const struct scram_secret *right)
{
    return left->iterations == right->iterations && left->is_mock == right->is_mock &&
           left->salt_bytes == right->salt_bytes &&
           memcmp(left->salt, right->salt, left->salt_bytes) == 0 &&
           secret_equal(left->stored_key, right->stored_key, SCRAM_KEY_BYTES) &&
           secret_equal(left->server_key, right->server_key, SCRAM_KEY_BYTES);
}
