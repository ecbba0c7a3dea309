/* secret.h - compares and forgets bytes without telling through time what they were.
 *
 * Pure: no allocation, any thread. Bytes belong to the caller. */
#ifndef CRYPTO_SECRET_H
#define CRYPTO_SECRET_H

#include "base/base.h"

/* Takes the same time whether and wherever the two differ. */
must_check bool secret_equal(const void *left, const void *right, size_t bytes);

/* For passwords. The time depends on `given_bytes` alone, which the peer knows anyway: neither the
 * stored text nor its length shows. Two empty texts are equal; whether an empty password may log in
 * is for the caller to decide. */
must_check bool secret_text_equal(const char *stored, size_t stored_bytes, const char *given,
                                  size_t given_bytes);

/* Overwrites with zeros in a way the compiler must not leave out. */
void secret_wipe(void *data, size_t bytes);

#endif
