#include "crypto/scram_message.h"

#include "base/assert.h"

#include <string.h>

enum scram_result scram_message_check(const char *message, size_t bytes)
{
    if (bytes == 0)
        return SCRAM_BAD;
    if (bytes > SCRAM_MESSAGE_BYTES_MAX)
        return SCRAM_TOO_LONG;
    return memchr(message, 0, bytes) == NULL ? SCRAM_OK : SCRAM_BAD;
}

void scram_attributes_init(struct scram_attributes *attributes, const char *text, size_t bytes)
{
    *attributes = (struct scram_attributes){.at = text, .end = text + bytes};
}

bool scram_attributes_next(struct scram_attributes *attributes, char *name,
                           struct scram_value *value)
{
    const char *at = attributes->at;
    size_t left = (size_t)(attributes->end - at);
    const char *comma;

    /* At the end with is_finished unset: the message ends with a comma. */
    if (attributes->is_finished || left < 2 || at[1] != '=')
        return false;
    if (!((at[0] >= 'a' && at[0] <= 'z') || (at[0] >= 'A' && at[0] <= 'Z')))
        return false;
    *name = at[0];
    value->text = at + 2;
    comma = memchr(at + 2, ',', left - 2);
    value->bytes = (size_t)((comma == NULL ? attributes->end : comma) - value->text);
    attributes->is_finished = comma == NULL;
    attributes->at = comma == NULL ? attributes->end : comma + 1;
    return true;
}

bool scram_attributes_expect(struct scram_attributes *attributes, char name,
                             struct scram_value *value)
{
    char found;

    return scram_attributes_next(attributes, &found, value) && found == name;
}

bool scram_attributes_demand_extension(const struct scram_attributes *attributes)
{
    return attributes->end - attributes->at >= 2 && memcmp(attributes->at, "m=", 2) == 0;
}

bool scram_is_nonce(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < 0x21 || text[i] > 0x7e || text[i] == ',')
            return false;
    }
    return bytes > 0;
}

uint32_t scram_read_iterations(const char *text, size_t bytes, uint32_t max)
{
    uint64_t count = 0;

    if (bytes == 0 || bytes > 10 || text[0] == '0')
        return 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        count = count * 10 + (uint64_t)(text[i] - '0');
    }
    return count <= max ? (uint32_t)count : 0;
}

size_t scram_gs2_header(enum scram_gs2_flag flag, char header[SCRAM_GS2_HEADER_BYTES_MAX])
{
    static const char bound[] = "p=" SCRAM_BINDING_TYPE_TEXT ",,";

    static_assert(sizeof(bound) - 1 == SCRAM_GS2_HEADER_BYTES_MAX, "the longest");
    if (flag == SCRAM_GS2_BOUND) {
        memcpy(header, bound, sizeof(bound) - 1);
        return sizeof(bound) - 1;
    }
    assert(flag == SCRAM_GS2_NO || flag == SCRAM_GS2_NOT_OFFERED);
    header[0] = (char)flag;
    header[1] = ',';
    header[2] = ',';
    return 3;
}

size_t scram_binding_text(enum scram_gs2_flag flag, const struct scram_channel *channel,
                          char text[SCRAM_BINDING_TEXT_BYTES_MAX])
{
    char data[SCRAM_GS2_HEADER_BYTES_MAX + SCRAM_BINDING_BYTES_MAX];
    size_t bytes = scram_gs2_header(flag, data);

    if (flag == SCRAM_GS2_BOUND) {
        assert(channel->binding_bytes > 0);
        assert(channel->binding_bytes <= SCRAM_BINDING_BYTES_MAX);
        memcpy(data + bytes, channel->binding, channel->binding_bytes);
        bytes += channel->binding_bytes;
    }
    return base64_encode(data, bytes, text);
}

void scram_sign(const uint8_t key[SCRAM_KEY_BYTES], const struct scram_value *client_first_bare,
                const struct scram_value *server_first, const struct scram_value *client_final_bare,
                uint8_t signature[SCRAM_KEY_BYTES])
{
    struct hmac_key ready;
    struct hmac hmac;

    hmac_key_init(&ready, key, SCRAM_KEY_BYTES);
    hmac_start(&hmac, &ready);
    hmac_add(&hmac, client_first_bare->text, client_first_bare->bytes);
    hmac_add(&hmac, ",", 1);
    hmac_add(&hmac, server_first->text, server_first->bytes);
    hmac_add(&hmac, ",", 1);
    hmac_add(&hmac, client_final_bare->text, client_final_bare->bytes);
    hmac_end(&hmac, signature);
    hmac_key_wipe(&ready);
}
