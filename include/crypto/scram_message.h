/* scram_message.h - the attributes that SCRAM messages consist of (RFC 5802 section 7); for the
 * files of crypto/ only.
 *
 * Pure: no allocation, any thread; values point into the message. */
#ifndef CRYPTO_SCRAM_MESSAGE_H
#define CRYPTO_SCRAM_MESSAGE_H

#include "base/base.h"
#include "crypto/base64.h"
#include "crypto/hmac.h"
#include "crypto/scram.h"

/* What is still to be read: "x=value,y=value". */
struct scram_attributes {
    const char *at;
    const char *end;
    bool is_finished; /* the last attribute has been read, no comma followed */
};

struct scram_value {
    const char *text;
    size_t bytes;
};

/* Bounds the message: SCRAM_BAD if it is empty or holds a zero byte, SCRAM_TOO_LONG. */
must_check enum scram_result scram_message_check(const char *message, size_t bytes);

void scram_attributes_init(struct scram_attributes *attributes, const char *text, size_t bytes);

/* Reads the next attribute: a letter, '=', anything but a comma. */
must_check bool scram_attributes_next(struct scram_attributes *attributes, char *name,
                                      struct scram_value *value);

/* Reads the next attribute, which has to be `name`. */
must_check bool scram_attributes_expect(struct scram_attributes *attributes, char name,
                                        struct scram_value *value);

/* Is the next attribute the reserved "m="? */
must_check bool scram_attributes_demand_extension(const struct scram_attributes *attributes);

/* At least one character, and all of them printable ASCII without space and comma. */
must_check bool scram_is_nonce(const char *text, size_t bytes);

/* 1 to `max`, decimal digits only, the first no zero; 0 if not so. */
must_check uint32_t scram_read_iterations(const char *text, size_t bytes, uint32_t max);

#define SCRAM_BINDING_TYPE_TEXT "tls-server-end-point"

enum {
    SCRAM_GS2_HEADER_BYTES_MAX = 2 + sizeof(SCRAM_BINDING_TYPE_TEXT) - 1 + 2, /* "p=...,," */
    SCRAM_BINDING_TEXT_BYTES_MAX =
        BASE64_TEXT_BYTES(SCRAM_GS2_HEADER_BYTES_MAX + SCRAM_BINDING_BYTES_MAX),
};

/* The gs2-header without authorization identity. Returns its length; no closing zero. */
size_t scram_gs2_header(enum scram_gs2_flag flag, char header[SCRAM_GS2_HEADER_BYTES_MAX]);

/* The value of "c=": the header, and what is bound to, as base64. Returns its length. */
size_t scram_binding_text(enum scram_gs2_flag flag, const struct scram_channel *channel,
                          char text[SCRAM_BINDING_TEXT_BYTES_MAX]);

/* The signature of an exchange: HMAC(key, AuthMessage), RFC 5802 section 3. */
void scram_sign(const uint8_t key[SCRAM_KEY_BYTES], const struct scram_value *client_first_bare,
                const struct scram_value *server_first, const struct scram_value *client_final_bare,
                uint8_t signature[SCRAM_KEY_BYTES]);

#endif
