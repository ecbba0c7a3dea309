/* saslprep.h - the form of a password that SCRAM hashes (RFC 4013, a profile of RFC 3454).
 *
 * PostgreSQL is lenient: a password that SASLprep refuses is used as its raw bytes. It also looks
 * for forbidden, unassigned and mixed-direction characters before it normalizes, where the RFC
 * looks after; we follow PostgreSQL, else a few passwords (U+0340 in them) would not match.
 * Compared over 29,800 passwords with what PostgreSQL 15 stores: all characters outside the big
 * uniform blocks, 8,000 random mixtures. One kind is known to differ: a combining mark between the
 * parts (jamo) of a decomposed Hangul syllable, which libidn, true to Unicode 3.2, still joins.
 *
 * Any thread, no locks. Allocates for a moment inside libidn (normalization), so it is no work for
 * a worker: call it where the salted password is computed. */
#ifndef CRYPTO_SASLPREP_H
#define CRYPTO_SASLPREP_H

#include "base/base.h"

enum {
    /* A longer text with characters beyond ASCII is SASLPREP_REFUSED: bounds the stack, and
     * PostgreSQL up to 13 refused such passwords altogether. */
    SASLPREP_INPUT_BYTES_MAX = 1024,
    /* Normalization makes at most 11 bytes of one (U+FDFA: 3 bytes become 33). */
    SASLPREP_OUTPUT_BYTES_MAX = 11 * SASLPREP_INPUT_BYTES_MAX,
};

enum saslprep_result {
    SASLPREP_OK,      /* `out` holds the prepared form */
    SASLPREP_ASCII,   /* use the text itself: it is ASCII (of any length), nothing to prepare */
    SASLPREP_REFUSED, /* use the text itself: no UTF-8, forbidden characters, nothing left, too long
                       */
};

/* `text` may hold any bytes and needs no closing zero; neither gets `out` one. */
must_check enum saslprep_result saslprep(const char *text, size_t text_bytes,
                                         char out[SASLPREP_OUTPUT_BYTES_MAX], size_t *out_bytes);

#endif
