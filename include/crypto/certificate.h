/* certificate.h - reads from an X.509 certificate (DER, RFC 5280) what the library's own reader does not
 * give with all its builds: names, and the hash that channel binding uses.
 *
 * It judges nothing: whether the certificate is valid has been found out before. Bytes that are no
 * certificate have no names and no hash. Pure: no allocation, any thread, bytes belong to the caller. */
#ifndef CRYPTO_CERTIFICATE_H
#define CRYPTO_CERTIFICATE_H

#include "base/base.h"

enum { CERTIFICATE_HASH_BYTES_MAX = 64 };

struct certificate {
    const uint8_t *der;
    size_t bytes;
};

/* Whether it was made out to this host (RFC 6125): a name is compared with the alternative names of kind
 * DNS, and with the common name only if there is none of them; a literal address with those of kind IP,
 * as bytes, and with the common name only if there are alternative names of neither kind. Case is
 * ignored; `*.` at the start stands for one label in front of at least two more. */
bool certificate_is_of_host(struct certificate certificate, const char *host);

/* Whether one of its alternative names is `name`, or, if none is, its common name. Compared as above. */
bool certificate_has_name(struct certificate certificate, const char *name);

/* A part of it, as it stands there. */
struct certificate_part {
    const uint8_t *data; /* NULL: it is not there */
    size_t bytes;
};

/* What a TLS session uses it for: the end that shows it. */
enum certificate_use { CERTIFICATE_OF_SERVER, CERTIFICATE_OF_CLIENT };

/* What a chain is judged by. */
struct certificate_facts {
    struct certificate_part subject, issuer; /* names, compared as bytes */
    struct certificate_part key_id, issuer_key_id;
    struct certificate_part constraints; /* of names: certificate_fits_constraints */
    struct certificate_part names;       /* its alternative names */
    int64_t not_before, not_after;       /* seconds since 1970 */
    int path_length_max;                 /* authorities below it; -1: any number */
    bool is_self_issued;
    bool is_authority;           /* it may sign certificates, if it is one that is trusted */
    bool is_authority_by_limits; /* its basic constraints say so: any other one must have them */
    bool is_for_use[2]; /* by certificate_use: its own key usage and extended key usage allow it */
    bool may_sign_for_use[2]; /* by certificate_use: its extended key usage does not forbid it */
    bool is_weakly_signed;    /* by MD5, SHA-1 or what is unknown */
    bool has_short_key;       /* RSA below 2048 bits, curves below 224 */
};

/* False: it cannot be read, or says a thing twice. The facts point into it. */
must_check bool certificate_read_facts(struct certificate certificate,
                                       struct certificate_facts *facts);

/* Whether the names of `facts` are those that `constraints` of an authority above allow (RFC 5280, 4.2.1.10):
 * subject, DNS, addresses of hosts and of mail; for a leaf without a name of kind DNS the common name too, if it
 * looks like one. A name of another kind that is constrained is not allowed. */
bool certificate_fits_constraints(const struct certificate_facts *facts,
                                  struct certificate_part constraints, bool is_leaf);

/* The bits of its public key, as they stand in it. NULL: it cannot be read. */
const uint8_t *certificate_public_key(struct certificate certificate, size_t *bytes);

/* tls-server-end-point (RFC 5929): the hash of the certificate by its signature's hash function; MD5 and
 * SHA-1 are replaced by SHA-256. Bytes written; 0: its signature has no hash function (Ed25519), or an
 * unknown one. */
size_t certificate_end_point(struct certificate certificate,
                             uint8_t hash[CERTIFICATE_HASH_BYTES_MAX]);

#endif
