/* md5.h - PostgreSQL's md5 passwords (protocol: "AuthenticationMD5Password").
 *
 * A secret is "md5" and 32 lower-case hex digits of md5(password, user name). The answer to the
 * server's four-byte salt is "md5" and the hex of md5(those 32 digits, salt). The secret alone is
 * thus enough to log in: it is to be kept as a password is.
 *
 * Pure: no allocation, any thread. */
#ifndef CRYPTO_MD5_H
#define CRYPTO_MD5_H

#include "base/base.h"

/* A secret or an answer, with the closing zero. */
enum { MD5_TEXT_BYTES = 36, MD5_SALT_BYTES = 4 };

/* "md5" and 32 of 0-9 a-f, nothing else. */
must_check bool md5_is_secret(const char *text);

void md5_make_secret(const char *password, size_t password_bytes, const char *user,
                     size_t user_bytes, char secret[MD5_TEXT_BYTES]);

/* `secret` has to be one (asserted). */
void md5_make_answer(const char *secret, const uint8_t salt[MD5_SALT_BYTES],
                     char answer[MD5_TEXT_BYTES]);

/* Is this what the owner of `secret` would answer? Constant-time; `answer` comes from the peer and
 * may be anything, without a closing zero. */
must_check bool md5_check_answer(const char *secret, const uint8_t salt[MD5_SALT_BYTES],
                                 const char *answer, size_t answer_bytes);

#endif
