#include "crypto/base64.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encode(const void *data, size_t bytes, char *text)
{
    const uint8_t *in = data;
    char *at = text;

    for (; bytes >= 3; bytes -= 3, in += 3) {
        *at++ = letters[in[0] >> 2];
        *at++ = letters[(in[0] & 3) << 4 | in[1] >> 4];
        *at++ = letters[(in[1] & 15) << 2 | in[2] >> 6];
        *at++ = letters[in[2] & 63];
    }
    if (bytes > 0) {
        unsigned second = bytes == 2 ? in[1] : 0;

        *at++ = letters[in[0] >> 2];
        *at++ = letters[(in[0] & 3u) << 4 | second >> 4];
        *at++ = bytes == 2 ? letters[(second & 15) << 2] : '=';
        *at++ = '=';
    }
    return (size_t)(at - text);
}

/* 0 to 63, or -1. */
static int value_of(char letter)
{
    if (letter >= 'A' && letter <= 'Z')
        return letter - 'A';
    if (letter >= 'a' && letter <= 'z')
        return letter - 'a' + 26;
    if (letter >= '0' && letter <= '9')
        return letter - '0' + 52;
    if (letter == '+')
        return 62;
    return letter == '/' ? 63 : -1;
}

bool base64_decode(const char *text, size_t text_bytes, void *out, size_t out_bytes_max,
                   size_t *out_bytes)
{
    uint8_t *at = out;
    size_t padding = 0;
    size_t bytes;
    uint32_t bits = 0;

    *out_bytes = 0;
    if (text_bytes == 0)
        return true;
    if (text_bytes % 4 != 0)
        return false;
    if (text[text_bytes - 1] == '=')
        padding = text[text_bytes - 2] == '=' ? 2 : 1;
    bytes = text_bytes / 4 * 3 - padding;
    if (bytes > out_bytes_max)
        return false;

    for (size_t i = 0; i < text_bytes; i++) {
        int value = i < text_bytes - padding ? value_of(text[i]) : 0;

        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 != 3)
            continue;
        for (size_t j = 0; j < 3; j++) {
            uint8_t byte = (uint8_t)(bits >> (16 - 8 * j));

            if ((size_t)(at - (uint8_t *)out) < bytes)
                *at++ = byte;
            else if (byte != 0)
                return false;
        }
        bits = 0;
    }
    *out_bytes = bytes;
    return true;
}
