/* base64.h - base64 as RFC 4648 section 4 writes it: padded, one line, one spelling for each value.
 *
 * Pure: no allocation, any thread. Strict, because a second spelling of a value would let a changed
 * message pass as the same one. Not constant-time: what goes through here is on the wire or is read
 * from a file at start. */
#ifndef CRYPTO_BASE64_H
#define CRYPTO_BASE64_H

#include "base/base.h"

/* Length of the text for `bytes` bytes, without a closing zero. */
#define BASE64_TEXT_BYTES(bytes) (((bytes) + 2) / 3 * 4)

/* Writes BASE64_TEXT_BYTES(bytes) characters, no closing zero. Returns their number. */
size_t base64_encode(const void *data, size_t bytes, char *text);

/* False, with `out` in any state up to `out_bytes_max`: a foreign character (white space too),
 * wrong or missing padding, bits set behind the last byte, or more than `out_bytes_max` bytes. The
 * empty text is zero bytes. */
must_check bool base64_decode(const char *text, size_t text_bytes, void *out, size_t out_bytes_max,
                              size_t *out_bytes);

#endif
