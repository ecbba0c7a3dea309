/* From options and files to a context of the library. */
#include "crypto/tls_context.h"

#include "crypto/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <wolfssl/error-ssl.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/dh.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/error-crypt.h>

enum {
    FILE_BYTES_MAX = 4 * 1024 * 1024, /* the bundle of a whole system is 220 KiB */
    SUITE_NAME_BYTES_MAX = 64,
    GROUP_NAME_BYTES_MAX = 16,
    GROUPS_MAX = 8,
    DH_BYTES_MAX = 256,
    EC_POINT_BYTES_MAX = 1 + 2 * 66,
    SUITES_OF_1_3 = 0x13, /* the first byte of their numbers */
    /* What OpenSSL asks for at its default security level of Debian. */
    RSA_BITS_MIN = 2048,
    ECC_BITS_MIN = 224,
    DH_BITS_MIN = 2048, /* of a server; ours may offer less where that is asked for */
};

/* A client's first group is the one that it sends a key share of. PostgreSQL before 18 takes P-256
 * only, so another one would cost a round trip there. */
static const char default_groups_of_server[] = "X25519:P-256:P-384:P-521";
static const char default_groups_of_client[] = "P-256:X25519:P-384:P-521";

static const struct {
    unsigned bit;
    int minimum;  /* as wolfSSL_CTX_SetMinVersion has it */
    long without; /* as wolfSSL_set_options has it */
} protocols[] = {
    {TLS_PROTOCOL_1_0, WOLFSSL_TLSV1, WOLFSSL_OP_NO_TLSv1},
    {TLS_PROTOCOL_1_1, WOLFSSL_TLSV1_1, WOLFSSL_OP_NO_TLSv1_1},
    {TLS_PROTOCOL_1_2, WOLFSSL_TLSV1_2, WOLFSSL_OP_NO_TLSv1_2},
    {TLS_PROTOCOL_1_3, WOLFSSL_TLSV1_3, WOLFSSL_OP_NO_TLSv1_3},
};

static const struct {
    const char *name;
    uint16_t number;
    uint16_t bytes;
} groups[] = {
    {"X25519", WOLFSSL_ECC_X25519, 32},        {"P-256", WOLFSSL_ECC_SECP256R1, 32},
    {"prime256v1", WOLFSSL_ECC_SECP256R1, 32}, {"secp256r1", WOLFSSL_ECC_SECP256R1, 32},
    {"P-384", WOLFSSL_ECC_SECP384R1, 48},      {"secp384r1", WOLFSSL_ECC_SECP384R1, 48},
    {"P-521", WOLFSSL_ECC_SECP521R1, 66},      {"secp521r1", WOLFSSL_ECC_SECP521R1, 66},
};

/* The second group of RFC 2409, 1024 bits: what `legacy` means to clients that cannot do more. */
static const uint8_t dh_1024_prime[] = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x0f, 0xda, 0xa2, 0x21, 0x68, 0xc2, 0x34,
    0xc4, 0xc6, 0x62, 0x8b, 0x80, 0xdc, 0x1c, 0xd1, 0x29, 0x02, 0x4e, 0x08, 0x8a, 0x67, 0xcc, 0x74,
    0x02, 0x0b, 0xbe, 0xa6, 0x3b, 0x13, 0x9b, 0x22, 0x51, 0x4a, 0x08, 0x79, 0x8e, 0x34, 0x04, 0xdd,
    0xef, 0x95, 0x19, 0xb3, 0xcd, 0x3a, 0x43, 0x1b, 0x30, 0x2b, 0x0a, 0x6d, 0xf2, 0x5f, 0x14, 0x37,
    0x4f, 0xe1, 0x35, 0x6d, 0x6d, 0x51, 0xc2, 0x45, 0xe4, 0x85, 0xb5, 0x76, 0x62, 0x5e, 0x7e, 0xc6,
    0xf4, 0x4c, 0x42, 0xe9, 0xa6, 0x37, 0xed, 0x6b, 0x0b, 0xff, 0x5c, 0xb6, 0xf4, 0x06, 0xb7, 0xed,
    0xee, 0x38, 0x6b, 0xfb, 0x5a, 0x89, 0x9f, 0xa5, 0xae, 0x9f, 0x24, 0x11, 0x7c, 0x4b, 0x1f, 0xe6,
    0x49, 0x28, 0x66, 0x51, 0xec, 0xe6, 0x53, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
};

/* What the options name, read once: the context is made of it and its identity too. */
struct contents {
    uint8_t *data; /* a zero byte behind it; NULL: the option names no file */
    size_t bytes;
};

struct making {
    const struct tls_options *options;
    struct tls_context *context;
    struct contents certificate, key, authorities;
    char *error;
};

static printf_like(2, 3) bool fail(struct making *making, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(making->error, TLS_ERROR_BYTES, format, arguments);
    va_end(arguments);
    return false;
}

static bool is_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static const char *library_text(int code)
{
    return wolfSSL_ERR_reason_error_string((unsigned long)code);
}

/* ---- files ---- */

static bool read_all(int fd, struct contents *contents, size_t bytes)
{
    contents->data = malloc(bytes + 1);
    if (contents->data == NULL)
        return false;
    while (contents->bytes < bytes) {
        ssize_t got = read(fd, contents->data + contents->bytes, bytes - contents->bytes);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0)
            break;
        contents->bytes += (size_t)got;
    }
    contents->data[contents->bytes] = 0;
    return true;
}

static bool read_file(struct making *making, const char *path, struct contents *contents)
{
    struct stat stat;
    bool done = false, is_known;
    int fd;

    if (!is_given(path))
        return true;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail(making, "could not open \"%s\": %s", path, strerror(errno));
    is_known = fstat(fd, &stat) == 0;
    if (is_known && !S_ISREG(stat.st_mode))
        fail(making, "\"%s\" is not a file", path);
    else if (is_known && stat.st_size > FILE_BYTES_MAX)
        fail(making, "\"%s\" is larger than %d MiB", path, FILE_BYTES_MAX / 1024 / 1024);
    else if (!is_known || !read_all(fd, contents, (size_t)stat.st_size))
        fail(making, "could not read \"%s\": %s", path, strerror(errno));
    else
        done = true;
    close(fd);
    return done;
}

static void wipe(struct contents *contents)
{
    if (contents->data != NULL)
        secret_wipe(contents->data, contents->bytes);
    free(contents->data);
}

static bool has_line(const struct contents *contents, const char *text)
{
    return memmem(contents->data, contents->bytes, text, strlen(text)) != NULL;
}

/* ---- protocols ---- */

/* Those that this build of the library has not are left out, as long as others remain: "all" is a usual
 * setting. */
static bool set_protocols(struct making *making)
{
    struct tls_context *context = making->context;
    bool has_minimum = false;

    for (size_t i = 0; i < COUNT_OF(protocols); i++) {
        if (!(making->options->protocols & protocols[i].bit))
            context->without_protocols |= protocols[i].without;
        else if (!has_minimum)
            has_minimum = wolfSSL_CTX_SetMinVersion(context->library, protocols[i].minimum) ==
                          WOLFSSL_SUCCESS;
    }
    return has_minimum ||
           fail(making, "the TLS library has none of the protocols that are allowed");
}

unsigned tls_protocols(void)
{
    WOLFSSL_CTX *library = wolfSSL_CTX_new(wolfSSLv23_client_method());
    unsigned known = 0;

    for (size_t i = 0; library != NULL && i < COUNT_OF(protocols); i++)
        if (wolfSSL_CTX_SetMinVersion(library, protocols[i].minimum) == WOLFSSL_SUCCESS)
            known |= protocols[i].bit;
    wolfSSL_CTX_free(library);
    return known;
}

/* ---- suites and groups ---- */

/* Cuts the next name off a list with ':' between. */
static bool next_name(const char **list, char *name, size_t name_bytes_max)
{
    size_t bytes = strcspn(*list, ":");
    bool fits = bytes < name_bytes_max;

    snprintf(name, name_bytes_max, "%.*s", (int)bytes, *list);
    *list += bytes;
    *list += **list == ':';
    return fits;
}

bool tls_has_suite(const char *name)
{
    const char *known;

    for (int i = 0; (known = wolfSSL_get_cipher_list(i)) != NULL; i++) {
        byte first, second;
        int flags;

        if (wolfSSL_get_cipher_suite_from_name(known, &first, &second, &flags) != 0)
            continue;
        if (first == SUITES_OF_1_3) /* the library has a name of its own for these */
            known = wolfSSL_get_cipher_name_iana_from_suite(first, second);
        if (strcmp(known, name) == 0)
            return true;
    }
    return false;
}

static bool set_suites(struct making *making)
{
    const char *list = making->options->suites;
    char name[SUITE_NAME_BYTES_MAX];

    /* The library drops what it does not know, and takes some words for whole lists: so each name is
     * looked up before. */
    if (!is_given(list))
        return fail(making, "no cipher suite is allowed");
    while (*list != '\0')
        if (!next_name(&list, name, sizeof(name)) || !tls_has_suite(name))
            return fail(making, "the TLS library has no cipher suite \"%s\"", name);
    if (wolfSSL_CTX_set_cipher_list(making->context->library, making->options->suites) !=
        WOLFSSL_SUCCESS)
        return fail(making, "the TLS library refuses the list of cipher suites");
    return true;
}

static size_t index_of_group(const char *name)
{
    size_t i = 0;

    while (i < COUNT_OF(groups) && strcasecmp(groups[i].name, name) != 0)
        i++;
    return i;
}

static bool set_groups(struct making *making)
{
    const char *list = making->options->groups;
    char name[GROUP_NAME_BYTES_MAX];
    int numbers[GROUPS_MAX];
    int count = 0;
    uint16_t bytes_min = UINT16_MAX;

    if (!is_given(list))
        list = making->options->side == TLS_SIDE_SERVER ? default_groups_of_server
                                                        : default_groups_of_client;
    while (*list != '\0') {
        size_t index;

        if (count == GROUPS_MAX)
            return fail(making, "more than %d groups (curves) are named", GROUPS_MAX);
        if (!next_name(&list, name, sizeof(name)) ||
            (index = index_of_group(name)) == COUNT_OF(groups))
            return fail(making, "unknown group (curve) \"%s\"", name);
        numbers[count++] = groups[index].number;
        bytes_min = MIN(bytes_min, groups[index].bytes);
    }
    if (wolfSSL_CTX_set_groups(making->context->library, numbers, count) != WOLFSSL_SUCCESS)
        return fail(making, "the TLS library has not all groups (curves) that are named");
    /* A server of TLS 1.2 chooses by size (the smallest that is no smaller than this), and among equals
     * the client's first: it does not look at the list. */
    if (making->options->side == TLS_SIDE_SERVER &&
        wolfSSL_CTX_SetTmpEC_DHE_Sz(making->context->library, bytes_min) != WOLFSSL_SUCCESS)
        return fail(making, "the TLS library refuses limits for groups (curves)");
    return true;
}

static bool set_dhe(struct making *making)
{
    static const uint8_t generator_of_1024[] = {2};
    WOLFSSL_CTX *library = making->context->library;
    uint8_t prime[DH_BYTES_MAX], generator[DH_BYTES_MAX];
    word32 prime_bytes = sizeof(prime), generator_bytes = sizeof(generator);
    int code = WOLFSSL_SUCCESS;

    if (making->options->side == TLS_SIDE_CLIENT || making->options->dhe == TLS_DHE_NONE)
        return true;
    if (making->options->dhe == TLS_DHE_1024)
        code = wolfSSL_CTX_SetTmpDH(library, dh_1024_prime, sizeof(dh_1024_prime),
                                    generator_of_1024, sizeof(generator_of_1024));
    else if (wc_DhCopyNamedKey(WC_FFDHE_2048, prime, &prime_bytes, generator, &generator_bytes,
                               NULL, NULL) == 0)
        code =
            wolfSSL_CTX_SetTmpDH(library, prime, (int)prime_bytes, generator, (int)generator_bytes);
    else
        code = WOLFSSL_FAILURE;
    return code == WOLFSSL_SUCCESS ||
           fail(making, "the TLS library refuses the parameters for DHE: %s", library_text(code));
}

/* ---- certificates ---- */

static bool keep_own_certificate(struct making *making)
{
    struct tls_context *context = making->context;
    struct contents *pem = &making->certificate;
    int bytes;

    context->certificate = malloc(pem->bytes);
    if (context->certificate == NULL)
        return fail(making, "no memory");
    bytes = wc_CertPemToDer(pem->data, (int)pem->bytes, context->certificate, (int)pem->bytes,
                            CERT_TYPE);
    if (bytes <= 0)
        return fail(making, "\"%s\" has no certificate in PEM form",
                    making->options->certificate_file);
    context->certificate_bytes = (size_t)bytes;
    return true;
}

/* The library without assembly takes any key of the same curve for the certificate's. */
static bool is_public_key_of(const struct making *making, ecc_key *key)
{
    const struct tls_context *context = making->context;
    struct certificate certificate = {.der = context->certificate,
                                      .bytes = context->certificate_bytes};
    uint8_t made[EC_POINT_BYTES_MAX];
    word32 made_bytes = sizeof(made);
    size_t shown_bytes;
    const uint8_t *shown = certificate_public_key(certificate, &shown_bytes);
    ecc_point *point = wc_ecc_new_point();
    bool is_same = point != NULL && wc_ecc_make_pub(key, point) == 0 &&
                   wc_ecc_export_point_der(key->idx, point, made, &made_bytes) == 0 &&
                   shown != NULL && shown_bytes == made_bytes &&
                   memcmp(shown, made, made_bytes) == 0;

    wc_ecc_del_point(point);
    return is_same;
}

static bool check_ecc_key(const struct making *making)
{
    int bytes_max = (int)making->key.bytes, bytes;
    uint8_t *der = malloc(making->key.bytes);
    bool fits = true;
    word32 index = 0;
    ecc_key key;

    if (der == NULL)
        return false;
    bytes = wc_KeyPemToDer(making->key.data, bytes_max, der, bytes_max, NULL);
    if (bytes > 0 && wc_ecc_init(&key) == 0) {
        if (wc_EccPrivateKeyDecode(der, &index, &key, (word32)bytes) == 0)
            fits = is_public_key_of(making, &key);
        wc_ecc_free(&key);
    }
    secret_wipe(der, making->key.bytes);
    free(der);
    return fits;
}

static bool set_certificate(struct making *making)
{
    const struct tls_options *options = making->options;
    WOLFSSL_CTX *library = making->context->library;
    int code;

    if (making->certificate.data == NULL && making->key.data == NULL)
        return options->side == TLS_SIDE_CLIENT || fail(making, "a server needs a certificate");
    if (making->certificate.data == NULL)
        return fail(making, "there is a key file but no certificate file");
    if (making->key.data == NULL)
        return fail(making, "there is a certificate file but no key file");
    if (!keep_own_certificate(making))
        return false;
    code = wolfSSL_CTX_use_certificate_chain_buffer(library, making->certificate.data,
                                                    (long)making->certificate.bytes);
    if (code != WOLFSSL_SUCCESS)
        return fail(making, "could not use certificate \"%s\": %s", options->certificate_file,
                    library_text(code));
    if (has_line(&making->key, "ENCRYPTED"))
        return fail(making, "key \"%s\" is encrypted: a key without a password is needed",
                    options->key_file);
    code = wolfSSL_CTX_use_PrivateKey_buffer(library, making->key.data, (long)making->key.bytes,
                                             WOLFSSL_FILETYPE_PEM);
    if (code != WOLFSSL_SUCCESS)
        return fail(making, "could not use key \"%s\": %s", options->key_file, library_text(code));
    if (wolfSSL_CTX_check_private_key(library) != WOLFSSL_SUCCESS || !check_ecc_key(making))
        return fail(making, "key \"%s\" does not belong to certificate \"%s\"", options->key_file,
                    options->certificate_file);
    return true;
}

/* Once more for our own judgement, of the PEM block that the library has taken. */
static bool keep_authority(struct making *making, const char *pem, size_t bytes)
{
    uint8_t *der = malloc(bytes);
    int der_bytes;
    bool done = false;

    if (der == NULL)
        return false;
    der_bytes = wc_CertPemToDer((const unsigned char *)pem, (int)bytes, der, (int)bytes, CA_TYPE);
    if (der_bytes > 0)
        done = tls_authorities_add(&making->context->authorities,
                                   (struct certificate){.der = der, .bytes = (size_t)der_bytes});
    free(der);
    return done;
}

/* One at a time, since a list may hold some that have expired or that the library cannot use: these are
 * not trusted, the others are. */
static bool set_authorities(struct making *making)
{
    static const char begin[] = "-----BEGIN ", end[] = "-----END ";
    const char *path = making->options->authorities_file;
    const char *at = (const char *)making->authorities.data;
    int code = 0, trusted = 0;

    if (at == NULL)
        return making->options->verify == TLS_VERIFY_NONE ||
               fail(making, "a file of trusted certificates is needed to verify");
    while ((at = strstr(at, begin)) != NULL) {
        const char *last = strstr(at, end);

        if (last == NULL)
            return fail(making, "\"%s\" ends inside a certificate", path);
        last += strcspn(last, "\n");
        /* Flags said, since a build for OpenSSL's programs forgives dates by default. */
        code = wolfSSL_CTX_load_verify_buffer_ex(making->context->library,
                                                 (const unsigned char *)at, (long)(last - at),
                                                 WOLFSSL_FILETYPE_PEM, 0, WOLFSSL_LOAD_FLAG_NONE);
        trusted += code == WOLFSSL_SUCCESS && keep_authority(making, at, (size_t)(last - at));
        at = last;
    }
    if (trusted > 0)
        return true;
    return code == 0
               ? fail(making, "\"%s\" has no certificate in PEM form", path)
               : fail(making, "\"%s\" has no usable certificate: %s", path, library_text(code));
}

static bool set_verify(struct making *making, int (*callback)(int, WOLFSSL_X509_STORE_CTX *))
{
    static const int modes[] = {
        [TLS_VERIFY_NONE] = WOLFSSL_VERIFY_NONE,
        [TLS_VERIFY_IF_GIVEN] = WOLFSSL_VERIFY_PEER,
        [TLS_VERIFY_CHAIN] = WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT,
        [TLS_VERIFY_HOST] = WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    };

    assert(making->options->verify <= TLS_VERIFY_HOST);
    wolfSSL_CTX_set_verify(making->context->library, modes[making->options->verify], callback);
    /* So that a client of TLS 1.2 without a certificate is told by an alert. */
    return making->options->side == TLS_SIDE_CLIENT || making->options->verify < TLS_VERIFY_CHAIN ||
           wolfSSL_CTX_mutual_auth(making->context->library, 1) == 0 ||
           fail(making, "the TLS library cannot ask for certificates");
}

static bool set_limits(struct making *making)
{
    WOLFSSL_CTX *library = making->context->library;

    if (making->options->side == TLS_SIDE_CLIENT &&
        wolfSSL_CTX_SetMinDhKey_Sz(library, DH_BITS_MIN) != WOLFSSL_SUCCESS)
        return fail(making, "the TLS library refuses limits for keys");
    if (wolfSSL_CTX_SetMinRsaKey_Sz(library, RSA_BITS_MIN) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_SetMinEccKey_Sz(library, ECC_BITS_MIN) != WOLFSSL_SUCCESS)
        return fail(making, "the TLS library refuses limits for keys");
    wolfSSL_CTX_set_group_messages(library); /* a flight of the handshake is one record */
#ifndef NO_SESSION_CACHE
    wolfSSL_CTX_set_session_cache_mode(library, WOLFSSL_SESS_CACHE_OFF);
#endif
    if (making->options->side == TLS_SIDE_SERVER && !making->options->gives_tickets) {
        wolfSSL_CTX_no_ticket_TLSv13(library);
        wolfSSL_CTX_NoTicketTLSv12(library);
    }
    return true;
}

/* ---- identity ---- */

struct digest {
    uint8_t bytes[16 * SHA256_BYTES];
    size_t count;
};

static void add(struct digest *digest, const void *data, size_t bytes)
{
    assert(digest->count + SHA256_BYTES <= sizeof(digest->bytes));
    sha256(data, bytes, digest->bytes + digest->count);
    digest->count += SHA256_BYTES;
}

static void add_text(struct digest *digest, const char *text)
{
    add(digest, text, is_given(text) ? strlen(text) : 0);
}

static void set_identity(struct making *making)
{
    const struct tls_options *options = making->options;
    const uint32_t numbers[] = {options->side, options->protocols, options->verify, options->dhe,
                                options->gives_tickets};
    struct digest digest = {.count = 0};

    add(&digest, numbers, sizeof(numbers));
    add_text(&digest, options->suites);
    add_text(&digest, options->groups);
    add_text(&digest, options->alpn);
    add(&digest, making->certificate.data, making->certificate.bytes);
    add(&digest, making->key.data, making->key.bytes);
    add(&digest, making->authorities.data, making->authorities.bytes);
    sha256(digest.bytes, digest.count, making->context->identity);
}

/* ---- life ---- */

static bool make(struct making *making)
{
    const struct tls_options *options = making->options;
    struct tls_context *context = making->context;
    WOLFSSL_METHOD *method =
        options->side == TLS_SIDE_SERVER ? wolfSSLv23_server_method() : wolfSSLv23_client_method();

    if (method == NULL || (context->library = wolfSSL_CTX_new(method)) == NULL)
        return fail(making, "no memory");
    if (is_given(options->alpn)) {
        if (strlen(options->alpn) >= sizeof(context->alpn))
            return fail(making, "the name for ALPN is too long");
        memcpy(context->alpn, options->alpn, strlen(options->alpn));
    }
    if (options->gives_tickets && options->verify != TLS_VERIFY_NONE)
        return fail(making, "tickets are not for sessions with certificates of clients");
    tls_session_prepare(context->library);
    /* How to verify comes before the authorities: they are read by the same rules. */
    return set_protocols(making) && set_limits(making) && set_suites(making) &&
           set_groups(making) && set_dhe(making) && set_certificate(making) &&
           set_verify(making, tls_session_on_certificate) && set_authorities(making);
}

struct tls_context *tls_context_create(const struct tls_options *options,
                                       char error[TLS_ERROR_BYTES])
{
    struct making making = {.options = options, .error = error};
    bool done;

    making.context = calloc(1, sizeof(*making.context));
    if (making.context == NULL) {
        fail(&making, "no memory");
        return NULL;
    }
    atomic_init(&making.context->references, 1);
    making.context->side = options->side;
    making.context->verify = options->verify;
    done = read_file(&making, options->certificate_file, &making.certificate) &&
           read_file(&making, options->key_file, &making.key) &&
           read_file(&making, options->authorities_file, &making.authorities) && make(&making);
    if (done)
        set_identity(&making);
    wipe(&making.certificate);
    wipe(&making.key);
    wipe(&making.authorities);
    if (done)
        return making.context;
    tls_context_release(making.context);
    return NULL;
}

struct tls_context *tls_context_reference(struct tls_context *context)
{
    unsigned before = atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);

    assert(before > 0);
    return context;
}

void tls_context_release(struct tls_context *context)
{
    unsigned before = atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel);

    assert(before > 0);
    if (before > 1)
        return;
    wolfSSL_CTX_free(context->library);
    tls_authorities_free(&context->authorities);
    free(context->certificate);
    free(context);
}

bool tls_context_is_same(const struct tls_context *a, const struct tls_context *b)
{
    return memcmp(a->identity, b->identity, sizeof(a->identity)) == 0;
}
