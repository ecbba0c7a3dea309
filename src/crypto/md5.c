#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/md5.h>

#include "crypto/md5.h"

#include "base/assert.h"
#include "crypto/secret.h"

#include <string.h>

static const char prefix[] = "md5";

enum { PREFIX_BYTES = sizeof(prefix) - 1, DIGEST_BYTES = 16, HEX_BYTES = 2 * DIGEST_BYTES };

static_assert(PREFIX_BYTES + HEX_BYTES + 1 == MD5_TEXT_BYTES,
              "the text holds prefix, hex and zero");
static_assert((int)WC_MD5_DIGEST_SIZE == (int)DIGEST_BYTES, "md5 is 128 bits");

bool md5_is_secret(const char *text)
{
    if (strncmp(text, prefix, PREFIX_BYTES) != 0)
        return false;
    return strspn(text + PREFIX_BYTES, "0123456789abcdef") == HEX_BYTES &&
           text[MD5_TEXT_BYTES - 1] == '\0';
}

/* The text form of md5(first, second). wolfCrypt fails only on bad arguments or a crypto device,
 * and neither is there. */
static void digest_text(const void *first, size_t first_bytes, const void *second,
                        size_t second_bytes, char text[MD5_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t digest[DIGEST_BYTES];
    wc_Md5 md5;

    assert(first_bytes <= UINT32_MAX);
    assert(second_bytes <= UINT32_MAX);
    assert(wc_InitMd5(&md5) == 0);
    assert(wc_Md5Update(&md5, first, (word32)first_bytes) == 0);
    assert(wc_Md5Update(&md5, second, (word32)second_bytes) == 0);
    assert(wc_Md5Final(&md5, digest) == 0);
    wc_Md5Free(&md5);

    memcpy(text, prefix, PREFIX_BYTES);
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        text[PREFIX_BYTES + 2 * i] = digits[digest[i] >> 4];
        text[PREFIX_BYTES + 2 * i + 1] = digits[digest[i] & 15];
    }
    text[MD5_TEXT_BYTES - 1] = '\0';
    secret_wipe(&md5, sizeof(md5));
    secret_wipe(digest, sizeof(digest));
}

void md5_make_secret(const char *password, size_t password_bytes, const char *user,
                     size_t user_bytes, char secret[MD5_TEXT_BYTES])
{
    digest_text(password, password_bytes, user, user_bytes, secret);
}

void md5_make_answer(const char *secret, const uint8_t salt[MD5_SALT_BYTES],
                     char answer[MD5_TEXT_BYTES])
{
    assert(md5_is_secret(secret));
    digest_text(secret + PREFIX_BYTES, HEX_BYTES, salt, MD5_SALT_BYTES, answer);
}

bool md5_check_answer(const char *secret, const uint8_t salt[MD5_SALT_BYTES], const char *answer,
                      size_t answer_bytes)
{
    char expected[MD5_TEXT_BYTES];
    bool is_equal;

    md5_make_answer(secret, salt, expected);
    is_equal = secret_text_equal(expected, MD5_TEXT_BYTES - 1, answer, answer_bytes);
    secret_wipe(expected, sizeof(expected));
    return is_equal;
}
