#include "crypto/certificate.h"

#include "crypto/der.h"

#include <arpa/inet.h>
#include <strings.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/hash.h>

/* The parts of a certificate that are asked for. */
struct parts {
    struct reader subject;
    struct reader key;       /* SubjectPublicKeyInfo */
    struct reader names;     /* GeneralNames of subjectAltName; empty if there are none */
    struct reader algorithm; /* of the signature: OID and parameters */
};

#define OID_COMMON_NAME "\x55\x04\x03"
#define OID_SUBJECT_ALT_NAME "\x55\x1d\x11"
#define OID_RSA "\x2a\x86\x48\x86\xf7\x0d\x01\x01"
#define OID_ECDSA "\x2a\x86\x48\xce\x3d\x04"
#define OID_SHA2 "\x60\x86\x48\x01\x65\x03\x04\x02"

static bool read_names(struct reader *extensions, struct parts *parts)
{
    struct reader list, extension, id, value;

    if (!der_get(extensions, DER_SEQUENCE, &list))
        return false;
    while (reader_left(&list) > 0) {
        if (!der_get(&list, DER_SEQUENCE, &extension) || !der_get(&extension, DER_OID, &id))
            return false;
        if (!DER_IS(&id, OID_SUBJECT_ALT_NAME))
            continue;
        if (der_is_next(&extension, DER_BOOLEAN) && !der_get(&extension, DER_BOOLEAN, &value))
            return false;
        return der_get(&extension, DER_OCTETS, &value) &&
               der_get(&value, DER_SEQUENCE, &parts->names);
    }
    return true;
}

static bool read_parts(struct certificate certificate, struct parts *parts)
{
    struct reader all, whole, body, skipped;
    uint8_t tag;

    reader_init(&all, certificate.der, certificate.bytes);
    reader_init(&parts->names, certificate.der, 0);
    if (!der_get(&all, DER_SEQUENCE, &whole) || !der_get(&whole, DER_SEQUENCE, &body) ||
        !der_get(&whole, DER_SEQUENCE, &parts->algorithm))
        return false;
    if (der_is_next(&body, DER_CONTEXT_0) && !der_next(&body, &tag, &skipped)) /* version */
        return false;
    if (!der_get(&body, DER_INTEGER, &skipped) ||  /* serial number */
        !der_get(&body, DER_SEQUENCE, &skipped) || /* signature */
        !der_get(&body, DER_SEQUENCE, &skipped) || /* issuer */
        !der_get(&body, DER_SEQUENCE, &skipped) || /* validity */
        !der_get(&body, DER_SEQUENCE, &parts->subject) ||
        !der_get(&body, DER_SEQUENCE, &parts->key))
        return false;
    /* Then, if they are there, unique ids and extensions. */
    while (reader_left(&body) > 0) {
        if (!der_next(&body, &tag, &skipped))
            return false;
        if (tag == DER_CONTEXT_3)
            return read_names(&skipped, parts);
    }
    return true;
}

/* Its text, in one byte per character of ASCII. A name in UTF-16 or -32 fits nothing. */
static bool read_common_name(struct reader subject, struct reader *text)
{
    struct reader set, pair, id;
    uint8_t tag;

    while (reader_left(&subject) > 0) {
        if (!der_get(&subject, DER_SET, &set))
            return false;
        while (reader_left(&set) > 0) {
            if (!der_get(&set, DER_SEQUENCE, &pair) || !der_get(&pair, DER_OID, &id) ||
                !der_next(&pair, &tag, text))
                return false;
            if (DER_IS(&id, OID_COMMON_NAME))
                return tag == DER_UTF8 || tag == DER_PRINTABLE || tag == DER_T61 || tag == DER_IA5;
        }
    }
    return false;
}

static bool is_same_text(const uint8_t *text, size_t bytes, const char *name, size_t name_bytes)
{
    /* Lengths first, and a name has no zero byte: so a text with one inside is no name. */
    return bytes == name_bytes && strncasecmp((const char *)text, name, bytes) == 0;
}

static bool fits(const struct reader *text, const char *name)
{
    size_t name_bytes = strlen(name);
    const char *dot;

    if (text->bytes == 0)
        return false;
    if (is_same_text(text->data, text->bytes, name, name_bytes))
        return memchr(text->data, 0, text->bytes) == NULL;
    if (text->bytes < 3 || text->data[0] != '*' || text->data[1] != '.')
        return false;
    dot = strchr(name, '.');
    return dot != NULL && dot != name && memchr(text->data + 2, '.', text->bytes - 2) != NULL &&
           is_same_text(text->data + 1, text->bytes - 1, dot, name_bytes - (size_t)(dot - name)) &&
           memchr(text->data, 0, text->bytes) == NULL;
}

struct address {
    uint8_t bytes[16];
    size_t count; /* 0: not a literal address */
};

static struct address read_address(const char *text)
{
    struct address address = {.count = 0};

    if (inet_pton(AF_INET, text, address.bytes) == 1)
        address.count = 4;
    else if (inet_pton(AF_INET6, text, address.bytes) == 1)
        address.count = 16;
    return address;
}

enum found { FOUND_DNS = 1, FOUND_IP = 2, FOUND_FIT = 4, FOUND_BAD = 8 };

static unsigned look_through(struct reader names, const char *name, const struct address *address)
{
    unsigned found = 0;
    struct reader text;
    uint8_t tag;

    while (reader_left(&names) > 0) {
        if (!der_next(&names, &tag, &text))
            return FOUND_BAD;
        if (tag == DER_NAME_DNS) {
            found |= FOUND_DNS;
            if (address->count == 0 && fits(&text, name))
                found |= FOUND_FIT;
        } else if (tag == DER_NAME_IP) {
            found |= FOUND_IP;
            if (address->count > 0 && text.bytes == address->count &&
                memcmp(text.data, address->bytes, address->count) == 0)
                found |= FOUND_FIT;
        }
    }
    return found;
}

static bool has_common_name(const struct parts *parts, const char *name,
                            const struct address *address)
{
    struct reader text;

    if (!read_common_name(parts->subject, &text))
        return false;
    /* `*.0.0.1` is no address. */
    return fits(&text, name) && (address->count == 0 || text.data[0] != '*');
}

bool certificate_is_of_host(struct certificate certificate, const char *host)
{
    struct address address = read_address(host);
    struct parts parts;
    unsigned found, excluding = address.count == 0 ? FOUND_DNS : FOUND_DNS | FOUND_IP;

    if (host[0] == '\0' || !read_parts(certificate, &parts))
        return false;
    found = look_through(parts.names, host, &address);
    if (found & FOUND_FIT)
        return true;
    return !(found & (FOUND_BAD | excluding)) && has_common_name(&parts, host, &address);
}

bool certificate_has_name(struct certificate certificate, const char *name)
{
    struct address address = read_address(name);
    struct parts parts;
    unsigned found;

    if (name[0] == '\0' || !read_parts(certificate, &parts))
        return false;
    found = look_through(parts.names, name, &address);
    return (found & FOUND_FIT) || (!(found & FOUND_BAD) && has_common_name(&parts, name, &address));
}

const uint8_t *certificate_public_key(struct certificate certificate, size_t *bytes)
{
    struct reader algorithm, bits;
    struct parts parts;

    if (!read_parts(certificate, &parts) || !der_get(&parts.key, DER_SEQUENCE, &algorithm) ||
        !der_get(&parts.key, DER_BITS, &bits) || bits.bytes < 2)
        return NULL;
    *bytes = bits.bytes - 1; /* without the count of bits that are unused, which is none */
    return bits.data + 1;
}

static enum wc_HashType hash_of_number(uint8_t number)
{
    switch (number) {
    case 1:
        return WC_HASH_TYPE_SHA256;
    case 2:
        return WC_HASH_TYPE_SHA384;
    case 3:
        return WC_HASH_TYPE_SHA512;
    case 4:
        return WC_HASH_TYPE_SHA224;
    default:
        return WC_HASH_TYPE_NONE;
    }
}

static bool begins_with(const struct reader *oid, const char *start, size_t bytes, size_t more)
{
    return oid->bytes == bytes + more && memcmp(oid->data, start, bytes) == 0;
}

/* RSASSA-PSS-params (RFC 4055): [0] AlgorithmIdentifier of the hash, SHA-1 if it is not there. */
static enum wc_HashType hash_of_pss(struct reader *algorithm)
{
    struct reader parameters, field, hash, oid;

    if (!der_get(algorithm, DER_SEQUENCE, &parameters))
        return WC_HASH_TYPE_NONE;
    if (!der_is_next(&parameters, DER_CONTEXT_0))
        return WC_HASH_TYPE_SHA256;
    if (!der_get(&parameters, DER_CONTEXT_0, &field) || !der_get(&field, DER_SEQUENCE, &hash) ||
        !der_get(&hash, DER_OID, &oid))
        return WC_HASH_TYPE_NONE;
    if (DER_IS(&oid, "\x2b\x0e\x03\x02\x1a")) /* SHA-1 */
        return WC_HASH_TYPE_SHA256;
    if (begins_with(&oid, OID_SHA2, sizeof(OID_SHA2) - 1, 1))
        return hash_of_number(oid.data[oid.bytes - 1]);
    return WC_HASH_TYPE_NONE;
}

static enum wc_HashType hash_of_signature(struct reader *algorithm)
{
    struct reader oid;

    if (!der_get(algorithm, DER_OID, &oid))
        return WC_HASH_TYPE_NONE;
    if (begins_with(&oid, OID_RSA, sizeof(OID_RSA) - 1, 1)) {
        uint8_t number = oid.data[oid.bytes - 1];

        if (number == 10)
            return hash_of_pss(algorithm);
        if (number == 4 || number == 5) /* with MD5, with SHA-1 */
            return WC_HASH_TYPE_SHA256;
        /* 11 to 14: with SHA-256, -384, -512, -224 */
        return number > 10 ? hash_of_number((uint8_t)(number - 10)) : WC_HASH_TYPE_NONE;
    }
    if (DER_IS(&oid, OID_ECDSA "\x01")) /* with SHA-1 */
        return WC_HASH_TYPE_SHA256;
    if (begins_with(&oid, OID_ECDSA "\x03", sizeof(OID_ECDSA), 1)) {
        /* 1 to 4: with SHA-224, -256, -384, -512 */
        uint8_t number = oid.data[oid.bytes - 1];

        if (number == 1)
            return WC_HASH_TYPE_SHA224;
        return number <= 4 ? hash_of_number((uint8_t)(number - 1)) : WC_HASH_TYPE_NONE;
    }
    return WC_HASH_TYPE_NONE;
}

size_t certificate_end_point(struct certificate certificate,
                             uint8_t hash[CERTIFICATE_HASH_BYTES_MAX])
{
    struct parts parts;
    enum wc_HashType type;
    int bytes;

    if (!read_parts(certificate, &parts))
        return 0;
    type = hash_of_signature(&parts.algorithm);
    if (type == WC_HASH_TYPE_NONE)
        return 0;
    bytes = wc_HashGetDigestSize(type);
    if (bytes <= 0 || bytes > CERTIFICATE_HASH_BYTES_MAX || certificate.bytes > UINT32_MAX ||
        wc_Hash(type, certificate.der, (word32)certificate.bytes, hash, (word32)bytes) != 0)
        return 0;
    return (size_t)bytes;
}
