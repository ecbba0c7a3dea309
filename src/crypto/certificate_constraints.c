/* Which names an authority may give: NameConstraints (RFC 5280, 4.2.1.10). */
#include "crypto/certificate.h"

#include "crypto/der.h"

#include <strings.h>

#define OID_COMMON_NAME "\x55\x04\x03"
#define OID_EMAIL "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"

/* Whether `base` is the name or what it ends in, at the start of a label. A base that begins with a dot wants at
 * least one more label. */
static bool ends_in(const struct reader *name, const struct reader *base)
{
    size_t more;

    if (base->bytes == 0)
        return true;
    if (base->bytes > name->bytes)
        return false;
    more = name->bytes - base->bytes;
    if (strncasecmp((const char *)name->data + more, (const char *)base->data, base->bytes) != 0)
        return false;
    if (base->data[0] == '.')
        return more > 0;
    return more == 0 || name->data[more - 1] == '.';
}

/* A base is a mailbox, a host, or, with a dot in front, what hosts end in. */
static bool mail_fits(const struct reader *name, const struct reader *base)
{
    const uint8_t *at = memrchr(name->data, '@', name->bytes);
    struct reader host;

    if (base->bytes == 0)
        return true;
    if (at == NULL)
        return false;
    if (memchr(base->data, '@', base->bytes) != NULL)
        return name->bytes == base->bytes && memcmp(name->data, base->data, base->bytes) == 0;
    reader_init(&host, at + 1, name->bytes - (size_t)(at + 1 - name->data));
    if (base->data[0] == '.')
        return ends_in(&host, base);
    return host.bytes == base->bytes &&
           strncasecmp((const char *)host.data, (const char *)base->data, host.bytes) == 0;
}

/* A base is an address and a mask. */
static bool address_fits(const struct reader *name, const struct reader *base)
{
    if (base->bytes != 2 * name->bytes)
        return false;
    for (size_t i = 0; i < name->bytes; i++)
        if ((name->data[i] ^ base->data[i]) & base->data[name->bytes + i])
            return false;
    return true;
}

/* A base is the first parts of the name. Both are the contents of the sequence. */
static bool directory_fits(const struct reader *name, const struct reader *base)
{
    return base->bytes <= name->bytes && memcmp(name->data, base->data, base->bytes) == 0;
}

static bool name_fits(uint8_t kind, const struct reader *name, const struct reader *base)
{
    struct reader whole = *base, list;

    switch (kind) {
    case DER_NAME_DNS:
        return ends_in(name, base);
    case DER_NAME_EMAIL:
        return mail_fits(name, base);
    case DER_NAME_IP:
        return address_fits(name, base);
    default:
        return der_get(&whole, DER_SEQUENCE, &list) && directory_fits(name, &list);
    }
}

static bool is_known(uint8_t kind)
{
    return kind == DER_NAME_DNS || kind == DER_NAME_EMAIL || kind == DER_NAME_IP ||
           kind == DER_NAME_DIRECTORY;
}

enum found { FOUND_NONE, FOUND_OTHERS, FOUND_FIT, FOUND_BAD };

/* GeneralSubtrees: whether one of this kind is there, and fits. */
static enum found look_through(struct reader subtrees, uint8_t kind, const struct reader *name)
{
    enum found found = FOUND_NONE;
    struct reader subtree, base;
    uint8_t tag;

    while (reader_left(&subtrees) > 0) {
        /* Minimum and maximum, which may follow, must not be used (RFC 5280). */
        if (!der_get(&subtrees, DER_SEQUENCE, &subtree) || !der_next(&subtree, &tag, &base) ||
            reader_left(&subtree) > 0)
            return FOUND_BAD;
        if (tag != kind)
            continue;
        if (!is_known(kind))
            return FOUND_BAD;
        if (name_fits(kind, name, &base))
            return FOUND_FIT;
        found = FOUND_OTHERS;
    }
    return found;
}

struct constraints {
    struct reader permitted, excluded;
};

static bool is_allowed(const struct constraints *constraints, uint8_t kind,
                       const struct reader *name)
{
    enum found permitted = look_through(constraints->permitted, kind, name);
    enum found excluded = look_through(constraints->excluded, kind, name);

    return (permitted == FOUND_NONE || permitted == FOUND_FIT) &&
           (excluded == FOUND_NONE || excluded == FOUND_OTHERS);
}

static bool looks_like_host(const struct reader *text)
{
    const uint8_t *dot = memchr(text->data, '.', text->bytes);

    return dot != NULL && dot != text->data && memchr(text->data, ' ', text->bytes) == NULL;
}

/* Names inside the subject: of mail, and of a host where nothing else names one. */
static bool is_subject_allowed(const struct constraints *constraints, struct reader subject,
                               bool names_host)
{
    struct reader set, pair, id, text;
    uint8_t tag;

    if (!is_allowed(constraints, DER_NAME_DIRECTORY, &subject))
        return false;
    while (reader_left(&subject) > 0) {
        if (!der_get(&subject, DER_SET, &set))
            return false;
        while (reader_left(&set) > 0) {
            if (!der_get(&set, DER_SEQUENCE, &pair) || !der_get(&pair, DER_OID, &id) ||
                !der_next(&pair, &tag, &text))
                return false;
            if (DER_IS(&id, OID_EMAIL) && !is_allowed(constraints, DER_NAME_EMAIL, &text))
                return false;
            if (names_host && DER_IS(&id, OID_COMMON_NAME) && looks_like_host(&text) &&
                !is_allowed(constraints, DER_NAME_DNS, &text))
                return false;
        }
    }
    return true;
}

bool certificate_fits_constraints(const struct certificate_facts *facts,
                                  struct certificate_part part, bool is_leaf)
{
    struct constraints constraints;
    struct reader all, names, subject, name, whole;
    bool has_dns = false;
    uint8_t tag;

    reader_init(&all, part.data, part.bytes);
    reader_init(&constraints.permitted, part.data, 0);
    reader_init(&constraints.excluded, part.data, 0);
    if (der_is_next(&all, DER_CONTEXT_0) && !der_get(&all, DER_CONTEXT_0, &constraints.permitted))
        return false;
    if (der_is_next(&all, DER_CONTEXT_1) && !der_get(&all, DER_CONTEXT_1, &constraints.excluded))
        return false;
    reader_init(&names, facts->names.data, facts->names.bytes);
    while (reader_left(&names) > 0) {
        if (!der_next(&names, &tag, &name))
            return false;
        has_dns |= tag == DER_NAME_DNS;
        if (tag == DER_NAME_DIRECTORY) {
            whole = name;
            if (!der_get(&whole, DER_SEQUENCE, &name))
                return false;
        }
        if (!is_allowed(&constraints, tag, &name))
            return false;
    }
    reader_init(&subject, facts->subject.data, facts->subject.bytes);
    return is_subject_allowed(&constraints, subject, is_leaf && !has_dns);
}
