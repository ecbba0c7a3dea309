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

/* The bits of its public key, as they stand in it. NULL: it cannot be read. */
const uint8_t *certificate_public_key(struct certificate certificate, size_t *bytes);

/* tls-server-end-point (RFC 5929): the hash of the certificate by its signature's hash function; MD5 and
 * SHA-1 are replaced by SHA-256. Bytes written; 0: its signature has no hash function (Ed25519), or an
 * unknown one. */
size_t certificate_end_point(struct certificate certificate,
                             uint8_t hash[CERTIFICATE_HASH_BYTES_MAX]);

#endif
