/* tls_chain.h - whether a chain of certificates leads to a trusted authority, judged by what its peer has shown
 * and by the configuration alone. For src/crypto/tls*.c only.
 *
 * The library verifies each chain too, but against a table that all sessions of a context share: it keeps there
 * the authorities between that peers show, so one peer would help the next, and it looks neither at the dates of
 * what is trusted, nor whether that may sign at all, nor at limits from further above than one step. So a path is
 * looked for here, from the peer's own certificate upward; its order in the message does not matter, what is of no
 * use is left aside. The library's word is what signatures, critical extensions and dates of the leaf rest on. A
 * path with something between leaf and authority is verified once more, with a table of its own. */
#ifndef CRYPTO_TLS_CHAIN_H
#define CRYPTO_TLS_CHAIN_H

#include "crypto/certificate.h"

enum {
    TLS_CHAIN_BETWEEN_MAX = 8, /* the library takes nine certificates */
    TLS_CHAIN_STEPS_MAX = 100, /* of the search; a chain that is made to cost takes no more */
};

struct tls_authority {
    struct certificate certificate; /* its bytes belong to the list */
    struct certificate_facts facts;
};

/* What is trusted. Immutable once it is filled. */
struct tls_authorities {
    struct tls_authority *items;
    size_t count;
};

/* Copies it. False: no memory, or it cannot be read (then it is not trusted). */
must_check bool tls_authorities_add(struct tls_authorities *authorities,
                                    struct certificate certificate);
void tls_authorities_free(struct tls_authorities *authorities);

struct tls_chain {
    const struct tls_authorities *authorities;
    const struct certificate *shown; /* the peer's own comes first */
    size_t shown_count;              /* one at least */
    enum certificate_use use;
    int64_t now;           /* seconds since 1970 */
    bool is_leaf_verified; /* the library has found an issuer and the signature is his */
};

/* NULL: it may be believed. Else why not; constant. */
const char *tls_chain_fault(const struct tls_chain *chain) must_check;

#endif
