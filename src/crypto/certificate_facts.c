/* What a chain is judged by, out of its certificates. */
#include "crypto/certificate.h"

#include "crypto/der.h"

#define OID_SUBJECT_KEY_ID "\x55\x1d\x0e"
#define OID_KEY_USAGE "\x55\x1d\x0f"
#define OID_SUBJECT_ALT_NAME "\x55\x1d\x11"
#define OID_BASIC_CONSTRAINTS "\x55\x1d\x13"
#define OID_NAME_CONSTRAINTS "\x55\x1d\x1e"
#define OID_AUTHORITY_KEY_ID "\x55\x1d\x23"
#define OID_EXTENDED_KEY_USAGE "\x55\x1d\x25"
#define OID_USE_ANY "\x55\x1d\x25\x00"
#define OID_USE_SERVER "\x2b\x06\x01\x05\x05\x07\x03\x01"
#define OID_USE_CLIENT "\x2b\x06\x01\x05\x05\x07\x03\x02"
#define OID_RSA "\x2a\x86\x48\x86\xf7\x0d\x01\x01" /* and a number */
#define OID_RSA_KEY OID_RSA "\x01"
#define OID_PSS_KEY OID_RSA "\x0a"
#define OID_EC_KEY "\x2a\x86\x48\xce\x3d\x02\x01"
#define OID_ECDSA_SHA2 "\x2a\x86\x48\xce\x3d\x04\x03" /* and a number */
#define OID_ED25519 "\x2b\x65\x70"
#define OID_ED448 "\x2b\x65\x71"
#define OID_SHA2 "\x60\x86\x48\x01\x65\x03\x04\x02" /* and a number */

/* Bits of key usage, the first byte as it stands there. */
enum {
    KEY_SIGNS = 0x80,
    KEY_ENCIPHERS = 0x20,
    KEY_AGREES = 0x08,
    KEY_SIGNS_CERTIFICATES = 0x04,
};

enum {
    RSA_BITS_MIN = 2048,
    /* Of both coordinates, and the byte in front: curves of 224 bits. */
    EC_POINT_BYTES_MIN = 1 + 2 * 28,
};

static struct certificate_part part_of(const struct reader *content)
{
    return (struct certificate_part){.data = content->data, .bytes = content->bytes};
}

/* ---- dates ---- */

static bool get_number(struct reader *text, unsigned digits, int64_t *number)
{
    *number = 0;
    for (; digits > 0; digits--) {
        uint8_t digit = reader_get_u8(text);

        if (digit < '0' || digit > '9')
            return false;
        *number = *number * 10 + (digit - '0');
    }
    return true;
}

/* Since 1970, of the proleptic Gregorian calendar: years begin in March, so that the leap day is last. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    int64_t from_march = (month + 9) % 12;

    year -= month < 3;
    return year * 365 + year / 4 - year / 100 + year / 400 + (from_march * 306 + 5) / 10 + day - 1 -
           719468;
}

/* Both forms as RFC 5280 has them: with seconds, in UTC. */
static bool get_time(struct reader *from, int64_t *seconds)
{
    struct reader text;
    int64_t year, month, day, hour, minute, second;
    uint8_t tag;

    if (!der_next(from, &tag, &text) || (tag != DER_UTC_TIME && tag != DER_GENERALIZED_TIME))
        return false;
    if (!get_number(&text, tag == DER_UTC_TIME ? 2 : 4, &year) || !get_number(&text, 2, &month) ||
        !get_number(&text, 2, &day) || !get_number(&text, 2, &hour) ||
        !get_number(&text, 2, &minute) || !get_number(&text, 2, &second) ||
        reader_get_u8(&text) != 'Z' || reader_left(&text) > 0 || month < 1 || month > 12)
        return false;
    if (tag == DER_UTC_TIME)
        year += year < 50 ? 2000 : 1900;
    *seconds = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    return true;
}

/* ---- extensions ---- */

struct extensions {
    bool has_any; /* it has some */
    bool has_basic_constraints, is_authority;
    bool has_key_usage;
    uint8_t key_usage;
    bool has_uses, is_for[2], is_for_any;
};

static bool read_basic_constraints(struct reader value, struct certificate_facts *facts,
                                   struct extensions *extensions)
{
    struct reader list, field;

    extensions->has_basic_constraints = true;
    if (!der_get(&value, DER_SEQUENCE, &list))
        return false;
    if (der_is_next(&list, DER_BOOLEAN)) {
        if (!der_get(&list, DER_BOOLEAN, &field) || field.bytes != 1)
            return false;
        extensions->is_authority = field.data[0] != 0;
    }
    if (reader_left(&list) == 0)
        return true;
    /* A length of two bytes is as good as none; one that is negative allows nothing. */
    if (!der_get(&list, DER_INTEGER, &field) || field.bytes == 0)
        return false;
    if (field.data[0] & 0x80)
        return false;
    if (field.bytes == 1)
        facts->path_length_max = field.data[0];
    return true;
}

static bool read_key_usage(struct reader value, struct extensions *extensions)
{
    struct reader bits;

    extensions->has_key_usage = true;
    if (!der_get(&value, DER_BITS, &bits) || bits.bytes < 1)
        return false;
    extensions->key_usage = bits.bytes < 2 ? 0 : bits.data[1];
    return true;
}

static bool read_uses(struct reader value, struct extensions *extensions)
{
    struct reader list, id;

    extensions->has_uses = true;
    if (!der_get(&value, DER_SEQUENCE, &list))
        return false;
    while (reader_left(&list) > 0) {
        if (!der_get(&list, DER_OID, &id))
            return false;
        extensions->is_for_any |= DER_IS(&id, OID_USE_ANY);
        extensions->is_for[CERTIFICATE_OF_SERVER] |= DER_IS(&id, OID_USE_SERVER);
        extensions->is_for[CERTIFICATE_OF_CLIENT] |= DER_IS(&id, OID_USE_CLIENT);
    }
    return true;
}

static bool read_whole(struct reader value, uint8_t tag, struct certificate_part *part)
{
    struct reader content;

    if (part->data != NULL || !der_get(&value, tag, &content))
        return false;
    *part = part_of(&content);
    return true;
}

static bool read_issuer_key_id(struct reader value, struct certificate_facts *facts)
{
    struct reader list;

    if (!der_get(&value, DER_SEQUENCE, &list))
        return false;
    return !der_is_next(&list, DER_PLAIN_0) || read_whole(list, DER_PLAIN_0, &facts->issuer_key_id);
}

static bool read_extension(struct reader id, struct reader value, struct certificate_facts *facts,
                           struct extensions *extensions)
{
    extensions->has_any = true;
    if (DER_IS(&id, OID_SUBJECT_KEY_ID))
        return read_whole(value, DER_OCTETS, &facts->key_id);
    if (DER_IS(&id, OID_AUTHORITY_KEY_ID))
        return read_issuer_key_id(value, facts);
    if (DER_IS(&id, OID_SUBJECT_ALT_NAME))
        return read_whole(value, DER_SEQUENCE, &facts->names);
    if (DER_IS(&id, OID_NAME_CONSTRAINTS))
        return read_whole(value, DER_SEQUENCE, &facts->constraints);
    if (DER_IS(&id, OID_BASIC_CONSTRAINTS))
        return !extensions->has_basic_constraints &&
               read_basic_constraints(value, facts, extensions);
    if (DER_IS(&id, OID_KEY_USAGE))
        return !extensions->has_key_usage && read_key_usage(value, extensions);
    if (DER_IS(&id, OID_EXTENDED_KEY_USAGE))
        return !extensions->has_uses && read_uses(value, extensions);
    return true;
}

static bool read_extensions(struct reader content, struct certificate_facts *facts,
                            struct extensions *extensions)
{
    struct reader list, extension, id, value;

    if (!der_get(&content, DER_SEQUENCE, &list))
        return false;
    while (reader_left(&list) > 0) {
        if (!der_get(&list, DER_SEQUENCE, &extension) || !der_get(&extension, DER_OID, &id))
            return false;
        if (der_is_next(&extension, DER_BOOLEAN) && !der_get(&extension, DER_BOOLEAN, &value))
            return false;
        if (!der_get(&extension, DER_OCTETS, &value) ||
            !read_extension(id, value, facts, extensions))
            return false;
    }
    return true;
}

/* As OpenSSL: without basic constraints only a certificate of version 1 that signs itself is an authority's, or
 * one whose key usage says so. */
static void judge_extensions(const struct extensions *extensions, struct certificate_facts *facts)
{
    bool may_sign = !extensions->has_key_usage || extensions->key_usage & KEY_SIGNS_CERTIFICATES;
    static const uint8_t wanted[] = {
        [CERTIFICATE_OF_SERVER] = KEY_SIGNS | KEY_ENCIPHERS | KEY_AGREES,
        [CERTIFICATE_OF_CLIENT] = KEY_SIGNS | KEY_AGREES,
    };

    facts->is_authority_by_limits = extensions->is_authority && may_sign;
    if (extensions->has_basic_constraints)
        facts->is_authority = extensions->is_authority && may_sign;
    else if (!extensions->has_any)
        facts->is_authority = facts->is_self_issued;
    else
        facts->is_authority = extensions->has_key_usage && may_sign;
    for (size_t use = 0; use < COUNT_OF(wanted); use++) {
        facts->may_sign_for_use[use] =
            !extensions->has_uses || extensions->is_for[use] || extensions->is_for_any;
        facts->is_for_use[use] =
            facts->may_sign_for_use[use] &&
            (!extensions->has_key_usage || extensions->key_usage & wanted[use]);
    }
}

/* ---- keys, signatures ---- */

static bool begins_with(const struct reader *oid, const char *start, size_t bytes)
{
    return oid->bytes == bytes + 1 && memcmp(oid->data, start, bytes) == 0;
}

static bool is_strong_pss(struct reader *algorithm)
{
    struct reader parameters, field, hash, oid;

    return der_get(algorithm, DER_SEQUENCE, &parameters) &&
           der_get(&parameters, DER_CONTEXT_0, &field) && der_get(&field, DER_SEQUENCE, &hash) &&
           der_get(&hash, DER_OID, &oid) && begins_with(&oid, OID_SHA2, sizeof(OID_SHA2) - 1) &&
           oid.data[oid.bytes - 1] >= 1 && oid.data[oid.bytes - 1] <= 4;
}

static bool is_strong(struct reader algorithm)
{
    struct reader oid;
    uint8_t number;

    if (!der_get(&algorithm, DER_OID, &oid) || oid.bytes == 0)
        return false;
    number = oid.data[oid.bytes - 1];
    if (begins_with(&oid, OID_RSA, sizeof(OID_RSA) - 1))
        return number == 10 ? is_strong_pss(&algorithm) : number >= 11 && number <= 14;
    if (begins_with(&oid, OID_ECDSA_SHA2, sizeof(OID_ECDSA_SHA2) - 1))
        return number >= 1 && number <= 4;
    return DER_IS(&oid, OID_ED25519) || DER_IS(&oid, OID_ED448);
}

static bool is_short_rsa(struct reader bits)
{
    struct reader list, modulus;

    if (!der_get(&bits, DER_SEQUENCE, &list) || !der_get(&list, DER_INTEGER, &modulus))
        return true;
    while (modulus.bytes > 0 && modulus.data[0] == 0) {
        modulus.data++;
        modulus.bytes--;
    }
    return modulus.bytes == 0 ||
           modulus.bytes * 8 - (size_t)(__builtin_clz(modulus.data[0]) - 24) < RSA_BITS_MIN;
}

static bool is_short(struct reader key)
{
    struct reader algorithm, oid, bits, content;

    if (!der_get(&key, DER_SEQUENCE, &algorithm) || !der_get(&algorithm, DER_OID, &oid) ||
        !der_get(&key, DER_BITS, &bits) || bits.bytes < 2)
        return true;
    reader_init(&content, bits.data + 1, bits.bytes - 1);
    if (DER_IS(&oid, OID_RSA_KEY) || DER_IS(&oid, OID_PSS_KEY))
        return is_short_rsa(content);
    return DER_IS(&oid, OID_EC_KEY) && content.bytes < EC_POINT_BYTES_MIN;
}

/* ---- the whole ---- */

static bool read_dates(struct reader *body, struct certificate_facts *facts)
{
    struct reader dates;

    return der_get(body, DER_SEQUENCE, &dates) && get_time(&dates, &facts->not_before) &&
           get_time(&dates, &facts->not_after);
}

bool certificate_read_facts(struct certificate certificate, struct certificate_facts *facts)
{
    struct extensions extensions = {.has_any = false};
    struct reader all, whole, body, skipped, issuer, subject, key, algorithm;
    uint8_t tag;

    *facts = (struct certificate_facts){.path_length_max = -1};
    reader_init(&all, certificate.der, certificate.bytes);
    if (!der_get(&all, DER_SEQUENCE, &whole) || !der_get(&whole, DER_SEQUENCE, &body) ||
        !der_get(&whole, DER_SEQUENCE, &algorithm))
        return false;
    if (der_is_next(&body, DER_CONTEXT_0) && !der_next(&body, &tag, &skipped)) /* version */
        return false;
    if (!der_get(&body, DER_INTEGER, &skipped) ||  /* serial number */
        !der_get(&body, DER_SEQUENCE, &skipped) || /* signature */
        !der_get(&body, DER_SEQUENCE, &issuer) || !read_dates(&body, facts) ||
        !der_get(&body, DER_SEQUENCE, &subject) || !der_get(&body, DER_SEQUENCE, &key))
        return false;
    facts->issuer = part_of(&issuer);
    facts->subject = part_of(&subject);
    facts->is_self_issued =
        issuer.bytes == subject.bytes && memcmp(issuer.data, subject.data, issuer.bytes) == 0;
    facts->is_weakly_signed = !is_strong(algorithm);
    facts->has_short_key = is_short(key);
    while (reader_left(&body) > 0)
        if (!der_next(&body, &tag, &skipped) ||
            (tag == DER_CONTEXT_3 && !read_extensions(skipped, facts, &extensions)))
            return false;
    judge_extensions(&extensions, facts);
    return true;
}
