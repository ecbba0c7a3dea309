/* der.h - reads DER (X.690), as certificates are written in, one value after the other.
 *
 * Foreign bytes: what does not fit its length, or is BER, is an answer of false. Pure, any thread; what is read
 * points into the caller's bytes. */
#ifndef CRYPTO_DER_H
#define CRYPTO_DER_H

#include "base/bytes.h"

enum {
    DER_BOOLEAN = 0x01,
    DER_INTEGER = 0x02,
    DER_BITS = 0x03,
    DER_OCTETS = 0x04,
    DER_OID = 0x06,
    DER_UTF8 = 0x0c,
    DER_PRINTABLE = 0x13,
    DER_T61 = 0x14,
    DER_IA5 = 0x16,
    DER_UTC_TIME = 0x17,
    DER_GENERALIZED_TIME = 0x18,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_NAME_EMAIL = 0x81, /* GeneralName [1] */
    DER_NAME_DNS = 0x82,   /* GeneralName [2] */
    DER_NAME_DIRECTORY = 0xa4,
    DER_NAME_IP = 0x87, /* GeneralName [7] */
    DER_CONTEXT_0 = 0xa0,
    DER_CONTEXT_1 = 0xa1,
    DER_CONTEXT_3 = 0xa3,
    DER_PLAIN_0 = 0x80, /* [0] IMPLICIT, not constructed */
};

/* The next value, whatever it is. */
static inline bool der_next(struct reader *from, uint8_t *tag, struct reader *content)
{
    size_t bytes;
    const uint8_t *data;

    *tag = reader_get_u8(from);
    bytes = reader_get_u8(from);
    if (bytes > 0x80) {
        unsigned length_bytes = (unsigned)bytes - 0x80;

        /* Nothing that comes by TLS has a length of more than three bytes. */
        if (length_bytes > 3)
            return false;
        for (bytes = 0; length_bytes > 0; length_bytes--)
            bytes = bytes << 8 | reader_get_u8(from);
    } else if (bytes == 0x80) {
        return false; /* indefinite: BER, not DER */
    }
    data = reader_get(from, bytes);
    if (data == NULL)
        return false;
    reader_init(content, data, bytes);
    return true;
}

/* The next value, which must be of this kind. */
static inline bool der_get(struct reader *from, uint8_t expected, struct reader *content)
{
    uint8_t tag;

    return der_next(from, &tag, content) && tag == expected;
}

static inline bool der_is_next(const struct reader *from, uint8_t tag)
{
    return reader_left(from) > 0 && from->data[from->position] == tag;
}

static inline bool der_is(const struct reader *content, const char *bytes, size_t count)
{
    return content->bytes == count && memcmp(content->data, bytes, count) == 0;
}

#define DER_IS(content, literal) der_is(content, literal, sizeof(literal) - 1)

#endif
