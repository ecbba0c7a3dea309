#include "crypto/tls_chain.h"

#include <stdlib.h>
#include <string.h>

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

/* ---- what is trusted ---- */

bool tls_authorities_add(struct tls_authorities *authorities, struct certificate certificate)
{
    struct tls_authority *items =
        reallocarray(authorities->items, authorities->count + 1, sizeof(*items));
    struct tls_authority *one;
    uint8_t *copy;

    if (items == NULL)
        return false;
    authorities->items = items;
    copy = malloc(certificate.bytes);
    if (copy == NULL)
        return false;
    memcpy(copy, certificate.der, certificate.bytes);
    one = &items[authorities->count];
    one->certificate = (struct certificate){.der = copy, .bytes = certificate.bytes};
    if (certificate_read_facts(one->certificate, &one->facts)) {
        authorities->count++;
        return true;
    }
    free(copy);
    return false;
}

void tls_authorities_free(struct tls_authorities *authorities)
{
    for (size_t i = 0; i < authorities->count; i++)
        free((void *)authorities->items[i].certificate.der);
    free(authorities->items);
    *authorities = (struct tls_authorities){.items = NULL};
}

/* ---- the search ---- */

static const char no_authority[] = "certificate is not of a trusted authority";
static const char not_an_authority[] =
    "certificate's chain has a certificate that is no authority's";

struct search {
    const struct tls_chain *chain;
    struct certificate_facts leaf;
    struct certificate_facts facts[TLS_CHAIN_BETWEEN_MAX]; /* of what was shown beside the leaf */
    bool is_usable[TLS_CHAIN_BETWEEN_MAX]; /* it can be read and is not in the path */
    size_t facts_count;
    size_t path[TLS_CHAIN_BETWEEN_MAX]; /* indices of `facts`, from the leaf upward */
    size_t path_count;
    const struct tls_authority *authority;
    unsigned steps;
    const char *fault; /* of the last that would have been an issuer */
};

static bool is_same(struct certificate_part a, struct certificate_part b)
{
    return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}

static bool may_be_issuer(const struct certificate_facts *of,
                          const struct certificate_facts *issuer)
{
    return is_same(of->issuer, issuer->subject) &&
           (of->issuer_key_id.data == NULL || issuer->key_id.data == NULL ||
            is_same(of->issuer_key_id, issuer->key_id));
}

/* Authorities in the path that count for a limit of its length. */
static int path_length(const struct search *search)
{
    int length = 0;

    for (size_t i = 0; i < search->path_count; i++)
        length += !search->facts[search->path[i]].is_self_issued;
    return length;
}

static bool has_allowed_names(const struct search *search, struct certificate_part constraints)
{
    if (!certificate_fits_constraints(&search->leaf, constraints, true))
        return false;
    for (size_t i = 0; i < search->path_count; i++) {
        const struct certificate_facts *one = &search->facts[search->path[i]];

        if (!one->is_self_issued && !certificate_fits_constraints(one, constraints, false))
            return false;
    }
    return true;
}

/* Why this one cannot be the issuer of the path's last. */
static const char *fault_of_issuer(const struct search *search, const struct certificate_facts *one)
{
    const struct tls_chain *chain = search->chain;

    if (!one->is_authority)
        return not_an_authority;
    if (chain->now < one->not_before)
        return "an authority of the certificate is not valid yet";
    if (chain->now > one->not_after)
        return "an authority of the certificate has expired";
    if (one->path_length_max >= 0 && path_length(search) > one->path_length_max)
        return "certificate's chain is longer than its authority allows";
    if (!one->may_sign_for_use[chain->use])
        return "an authority of the certificate is not for this use";
    if (one->has_short_key)
        return "an authority of the certificate has a key that is too short";
    if (one->constraints.data != NULL && !has_allowed_names(search, one->constraints))
        return "certificate has a name that its authority may not give";
    return NULL;
}

static bool is_at_top(struct search *search, const struct certificate_facts *last)
{
    const struct tls_authorities *authorities = search->chain->authorities;

    for (size_t i = 0; i < authorities->count; i++) {
        const struct tls_authority *one = &authorities->items[i];
        const char *fault;

        if (!may_be_issuer(last, &one->facts))
            continue;
        fault = fault_of_issuer(search, &one->facts);
        if (fault == NULL) {
            search->authority = one;
            return true;
        }
        search->fault = fault;
    }
    return false;
}

static const char *fault_of_shown(const struct search *search, const struct certificate_facts *one)
{
    if (!one->is_authority_by_limits)
        return not_an_authority;
    if (one->is_weakly_signed)
        return "an authority of the certificate is signed by a weak hash (MD5, SHA-1)";
    return fault_of_issuer(search, one);
}

/* What is trusted comes first, so that an odd end on top does no harm; then, one by one, what was shown. Depth is
 * bounded by what can be shown. */
static bool climb(struct search *search, const struct certificate_facts *last)
{
    if (is_at_top(search, last))
        return true;
    for (size_t i = 0; i < search->facts_count; i++) {
        const struct certificate_facts *one = &search->facts[i];
        const char *fault;

        if (!search->is_usable[i] || !may_be_issuer(last, one))
            continue;
        if (search->steps++ == TLS_CHAIN_STEPS_MAX)
            return false;
        fault = fault_of_shown(search, one);
        if (fault != NULL) {
            search->fault = fault;
            continue;
        }
        search->is_usable[i] = false;
        search->path[search->path_count++] = i;
        if (climb(search, one))
            return true;
        search->path_count--;
        search->is_usable[i] = true;
    }
    return false;
}

/* ---- signatures ---- */

static bool trust(WOLFSSL_CERT_MANAGER *table, struct certificate one)
{
    return wolfSSL_CertManagerLoadCABuffer(table, one.der, (long)one.bytes,
                                           WOLFSSL_FILETYPE_ASN1) == WOLFSSL_SUCCESS;
}

/* Nothing less than success: which other answers come before the signature has been looked at, and which behind,
 * is the library's own affair. */
static bool verifies(WOLFSSL_CERT_MANAGER *table, struct certificate one)
{
    return wolfSSL_CertManagerVerifyBuffer(table, one.der, (long)one.bytes,
                                           WOLFSSL_FILETYPE_ASN1) == WOLFSSL_SUCCESS;
}

/* From the authority downward: each is verified, then trusted for the next. */
static bool is_path_signed(const struct search *search)
{
    WOLFSSL_CERT_MANAGER *table = wolfSSL_CertManagerNew();
    const struct certificate *shown = search->chain->shown;
    bool is_good = table != NULL && trust(table, search->authority->certificate);

    for (size_t i = search->path_count; is_good && i > 0; i--) {
        struct certificate one = shown[search->path[i - 1] + 1];

        is_good = verifies(table, one) && trust(table, one);
    }
    is_good = is_good && verifies(table, shown[0]);
    wolfSSL_CertManagerFree(table);
    return is_good;
}

/* ---- the judgement ---- */

static bool is_trusted_itself(const struct tls_chain *chain)
{
    for (size_t i = 0; i < chain->authorities->count; i++) {
        struct certificate one = chain->authorities->items[i].certificate;

        if (one.bytes == chain->shown[0].bytes &&
            memcmp(one.der, chain->shown[0].der, one.bytes) == 0)
            return true;
    }
    return false;
}

static const char *fault_of_leaf(const struct tls_chain *chain,
                                 const struct certificate_facts *leaf)
{
    if (chain->now < leaf->not_before)
        return "certificate is not valid yet";
    if (chain->now > leaf->not_after)
        return "certificate has expired";
    if (!leaf->is_for_use[chain->use])
        return "certificate is not for this use";
    if (leaf->has_short_key)
        return "peer's key is too short";
    return NULL;
}

const char *tls_chain_fault(const struct tls_chain *chain)
{
    struct search search = {.chain = chain, .fault = no_authority};
    const char *fault;

    if (!certificate_read_facts(chain->shown[0], &search.leaf))
        return "certificate cannot be read";
    fault = fault_of_leaf(chain, &search.leaf);
    if (fault != NULL)
        return fault;
    if (search.leaf.is_self_issued && is_trusted_itself(chain))
        return chain->is_leaf_verified ? NULL : no_authority;
    if (search.leaf.is_weakly_signed)
        return "certificate is signed by a weak hash (MD5, SHA-1)";
    for (size_t i = 1; i < chain->shown_count && i <= TLS_CHAIN_BETWEEN_MAX; i++) {
        search.is_usable[i - 1] = certificate_read_facts(chain->shown[i], &search.facts[i - 1]);
        search.facts_count = i;
    }
    if (!climb(&search, &search.leaf))
        return search.fault;
    if (search.path_count == 0 && chain->is_leaf_verified)
        return NULL;
    return is_path_signed(&search) ? NULL : no_authority;
}
