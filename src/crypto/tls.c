/* One session: the library in the middle, what was fed on one side, an output on the other. */
#include "crypto/tls_context.h"

#include "crypto/random.h"
#include "crypto/tls_memory.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <wolfssl/error-ssl.h>
#include <wolfssl/wolfcrypt/error-crypt.h>
#include <wolfssl/wolfcrypt/random.h>

#if defined(LIBWOLFSSL_VERSION_HEX) && !defined(WOLFSSL_ALWAYS_VERIFY_CB)
#error "wolfSSL must be built with WOLFSSL_ALWAYS_VERIFY_CB: the peer's certificate comes that way"
#endif
#ifndef PGSPLICE_WOLFSSL_OWN
#define PGSPLICE_WOLFSSL_OWN 0
#endif

static_assert((int)CERTIFICATE_HASH_BYTES_MAX == (int)TLS_END_POINT_BYTES_MAX,
              "one buffer for both");

/* Records without data between two with some: tickets, new keys, empty ones. Each costs microseconds, and
 * nobody pays for them. The library takes many in one record, too, so that bytes count as well. */
enum { RECORDS_WITHOUT_DATA_MAX = 32, BYTES_WITHOUT_DATA_MAX = 8 * 1024, RECORD_HEADER_BYTES = 5 };

enum state {
    TLS_SHAKING,
    TLS_UP,
    TLS_PEER_CLOSED, /* by close_notify; we may still write */
    TLS_BROKEN,
};

struct tls {
    WOLFSSL *library;
    struct tls_context *context;
    struct tls_output *output; /* during a call */
    const uint8_t *input;
    size_t input_bytes; /* not looked at yet */
    /* Ciphertext that the library has taken and not given as plain text yet, or more. */
    size_t held_bytes;
    size_t asked_bytes; /* by the library, which has got a part only */
    enum state state;
    unsigned records_without_data;
    size_t bytes_without_data; /* since the last record with some, the one at hand included */
    bool output_failed;
    bool has_only_messages; /* too many of them */
    const char *error;      /* constant, or `own_error` */
    char *own_error;
    const char *fault; /* of the peer's chain; constant */
    char *host;
    uint8_t *peer; /* its certificate, DER; until tls_forget_peer */
    size_t peer_bytes;
    bool is_peer_verified; /* by the context's rules, which ask for it */
    bool is_peer_of_host;
};

/* ---- the library ---- */

#ifdef WC_RNG_SEED_CB
static void (*seed_of_test)(void *out, size_t bytes);

static int seed(OS_Seed *os, byte *out, word32 bytes)
{
    (void)os;
    if (seed_of_test != NULL)
        seed_of_test(out, bytes);
    else if (!random_bytes(out, bytes))
        return RNG_FAILURE_E;
    return 0;
}

bool tls_set_seed(void (*function)(void *out, size_t bytes))
{
    seed_of_test = function;
    return true;
}
#else
bool tls_set_seed(void (*function)(void *out, size_t bytes))
{
    return function == NULL;
}
#endif

bool tls_init(void)
{
    /* Sizes of structs are those of the header: another version's library must not be used. */
    if (wolfSSL_lib_version_hex() != LIBWOLFSSL_VERSION_HEX || !tls_memory_init() ||
        wolfSSL_Init() != WOLFSSL_SUCCESS)
        return false;
#ifdef WC_RNG_SEED_CB
    return wc_SetSeed_Cb(seed) == 0;
#else
    return true;
#endif
}

bool tls_has_fast_aes(void)
{
#if defined(WOLFSSL_AESNI)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(WOLFSSL_ARMASM)
    return true; /* the library runs on nothing less */
#else
    return false;
#endif
}

const char *tls_library(void)
{
#ifdef WOLFSSL_DEBIAN_VERSION
    const char *version = WOLFSSL_DEBIAN_VERSION;
#else
    const char *version = wolfSSL_lib_version();
#endif
    static char text[64];

    snprintf(text, sizeof(text), "wolfSSL %s, %s, %s", version,
             PGSPLICE_WOLFSSL_OWN ? "own build" : "system library",
             tls_has_fast_aes() ? "AES-NI" : "no AES-NI");
    return text;
}

/* ---- words for what goes wrong ---- */

static const struct {
    int code;
    const char *text;
} alerts[] = {
    {unexpected_message, "peer's alert: unexpected_message"},
    {bad_record_mac, "peer's alert: bad_record_mac"},
    {record_overflow, "peer's alert: record_overflow"},
    {handshake_failure, "peer's alert: handshake_failure"},
    {no_certificate, "peer's alert: no_certificate"},
    {bad_certificate, "peer's alert: bad_certificate"},
    {unsupported_certificate, "peer's alert: unsupported_certificate"},
    {certificate_revoked, "peer's alert: certificate_revoked"},
    {certificate_expired, "peer's alert: certificate_expired"},
    {certificate_unknown, "peer's alert: certificate_unknown"},
    {illegal_parameter, "peer's alert: illegal_parameter"},
    {unknown_ca, "peer's alert: unknown_ca"},
    {access_denied, "peer's alert: access_denied"},
    {decode_error, "peer's alert: decode_error"},
    {decrypt_error, "peer's alert: decrypt_error"},
    {wolfssl_alert_protocol_version, "peer's alert: protocol_version"},
    {insufficient_security, "peer's alert: insufficient_security"},
    {internal_error, "peer's alert: internal_error"},
    {inappropriate_fallback, "peer's alert: inappropriate_fallback"},
    {user_canceled, "peer's alert: user_canceled"},
    {no_renegotiation, "peer's alert: no_renegotiation"},
    {missing_extension, "peer's alert: missing_extension"},
    {unsupported_extension, "peer's alert: unsupported_extension"},
    {unrecognized_name, "peer's alert: unrecognized_name"},
    {certificate_required, "peer's alert: certificate_required"},
    {no_application_protocol, "peer's alert: no_application_protocol"},
};

static const struct {
    int code;
    const char *text;
} errors[] = {
    {ASN_NO_SIGNER_E, "certificate is not of a trusted authority"},
    {ASN_SELF_SIGNED_E, "certificate is not of a trusted authority"},
    {ASN_SIG_CONFIRM_E, "certificate has a wrong signature"},
    {ASN_AFTER_DATE_E, "certificate has expired"},
    {ASN_BEFORE_DATE_E, "certificate is not valid yet"},
    {ASN_NAME_INVALID_E, "certificate has a name that its authority may not give"},
    {ASN_CRIT_EXT_E, "certificate has a critical extension that is not known"},
    {ASN_PATHLEN_INV_E, "certificate's chain is longer than its authority allows"},
    {ASN_PATHLEN_SIZE_E, "certificate's chain is longer than its authority allows"},
    {ASN_PARSE_E, "certificate cannot be read"},
    {BUFFER_E, "certificate cannot be read, or is signed by an RSA key of more than 4096 bits"},
    {NOT_CA_ERROR, "certificate's chain has a certificate that is no authority's"},
    {MAX_CHAIN_ERROR, "certificate's chain is too long"},
    {EXTKEYUSE_AUTH_E, "certificate is not for this use"},
    {KEYUSE_SIGNATURE_E, "certificate is not for this use"},
    {KEYUSE_ENCIPHER_E, "certificate is not for this use"},
    {RSA_KEY_SIZE_E, "peer's key is too short"},
    {ECC_KEY_SIZE_E, "peer's key is too short"},
    {DH_KEY_SIZE_E, "peer's key is too short"},
    {NO_PEER_CERT, "no certificate was shown"},
    {VERIFY_CERT_ERROR, "certificate is refused"},
    {VERSION_ERROR, "no common protocol version"},
    {UNSUPPORTED_PROTO_VERSION, "no common protocol version"},
    {MATCH_SUITE_ERROR, "no shared cipher"},
    {UNSUPPORTED_SUITE, "no shared cipher"},
    {KEY_SHARE_ERROR, "no shared group (curve)"},
    {ECC_CURVE_ERROR, "no shared group (curve)"},
    /* What 5.5.4 says as a server of TLS 1.3 when there is no shared group. */
    {BAD_FUNC_ARG, "no shared group (curve), or a message that makes no sense"},
    {UNKNOWN_ALPN_PROTOCOL_NAME_E, "no shared application protocol (ALPN)"},
    {UNKNOWN_RECORD_TYPE, "this is not TLS"},
    {VERIFY_MAC_ERROR, "a record does not decrypt"},
    {DECRYPT_ERROR, "a record does not decrypt"},
    {AES_GCM_AUTH_E, "a record does not decrypt"},
    {MAC_CMP_FAILED_E, "a record does not decrypt"},
    {VERIFY_FINISHED_ERROR, "the handshake was changed on its way"},
    {VERIFY_SIGN_ERROR, "the handshake's signature is wrong"},
    {LENGTH_ERROR, "a record is too long"},
    {MEMORY_E, "no memory"},
    {MEMORY_ERROR, "no memory"},
    {RNG_FAILURE_E, "no random bytes"},
};

static const char *text_of_alert(const WOLFSSL_ALERT *alert)
{
    for (size_t i = 0; i < COUNT_OF(alerts); i++)
        if (alerts[i].code == alert->code)
            return alerts[i].text;
    return "peer's alert: unknown";
}

/* NULL: there is none. */
static const char *text_of_code(int code)
{
    for (size_t i = 0; i < COUNT_OF(errors); i++)
        if (errors[i].code == code)
            return errors[i].text;
    return NULL;
}

/* An answer of the library that is an end: why. */
static const char *text_of_error(struct tls *tls, int code)
{
    WOLFSSL_ALERT_HISTORY history;

    if (tls->output_failed)
        return "no memory for what must be sent";
    if (tls->has_only_messages)
        return "too many messages without data";
    if (code == FATAL_ERROR &&
        wolfSSL_get_alert_history(tls->library, &history) == WOLFSSL_SUCCESS) {
        if (history.last_rx.level == alert_fatal)
            return text_of_alert(&history.last_rx);
        if (history.last_tx.code == unexpected_message)
            return "an unexpected message";
    }
    if (code == DUPLICATE_MSG_E && tls->state == TLS_UP)
        return "a second handshake (renegotiation) is refused";
    if (text_of_code(code) != NULL)
        return text_of_code(code);
    return wolfSSL_ERR_reason_error_string((unsigned long)code);
}

static enum tls_result fail(struct tls *tls, const char *error)
{
    tls->state = TLS_BROKEN;
    if (tls->own_error != NULL)
        error = tls->own_error;
    else if (tls->fault != NULL)
        error = tls->fault;
    tls->error = error;
    return TLS_FAILED;
}

const char *tls_error(const struct tls *tls)
{
    return tls->error == NULL ? "" : tls->error;
}

/* ---- what the library calls ---- */

static int on_receive(WOLFSSL *library, char *out, int room, void *argument)
{
    struct tls *tls = argument;
    size_t bytes = MIN((size_t)room, tls->input_bytes);
    bool begins;

    (void)library;
    if (bytes == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    /* The library asks for a header first, then for the rest, of which five bytes may be left, too: so what it has
     * asked for must be complete before a question is a new one. */
    begins = tls->asked_bytes == 0;
    if (begins)
        tls->asked_bytes = (size_t)room;
    tls->asked_bytes -= MIN(bytes, tls->asked_bytes);
    if (tls->state == TLS_UP && begins && room == RECORD_HEADER_BYTES &&
        (++tls->records_without_data > RECORDS_WITHOUT_DATA_MAX ||
         tls->bytes_without_data > BYTES_WITHOUT_DATA_MAX)) {
        tls->has_only_messages = true;
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    if (tls->state == TLS_UP)
        tls->bytes_without_data += bytes;
    memcpy(out, tls->input, bytes);
    tls->input += bytes;
    tls->input_bytes -= bytes;
    tls->held_bytes += bytes;
    return (int)bytes;
}

static int on_send(WOLFSSL *library, char *data, int bytes, void *argument)
{
    struct tls *tls = argument;

    (void)library;
    if (tls->output_failed || !tls->output->put(tls->output, data, (size_t)bytes)) {
        tls->output_failed = true;
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    return bytes;
}

static bool keep_peer(struct tls *tls, const WOLFSSL_BUFFER_INFO *certificate)
{
    free(tls->peer);
    tls->peer = malloc(certificate->length);
    if (tls->peer == NULL)
        return false;
    memcpy(tls->peer, certificate->buffer, certificate->length);
    tls->peer_bytes = certificate->length;
    return true;
}

static struct certificate peer_of(const struct tls *tls)
{
    return (struct certificate){.der = tls->peer, .bytes = tls->peer_bytes};
}

static bool is_of_host(struct tls *tls)
{
    if (tls->host != NULL && certificate_is_of_host(peer_of(tls), tls->host))
        return true;
    if (asprintf(&tls->own_error, "certificate is not for host \"%s\"",
                 tls->host == NULL ? "" : tls->host) < 0)
        tls->own_error = NULL;
    return false;
}

/* What the library cannot find an issuer for may be shown in an order that it does not understand. And it
 * refuses certificates of version 1 of clients, which are what openssl has made by default for years. Both are
 * verified here as a whole. Any other fault is final. */
static bool may_be_judged(struct tls *tls, int verified, const WOLFSSL_X509_STORE_CTX *store)
{
    WOLFSSL_ALERT_HISTORY history;

    if (verified)
        return true;
    /* The peer has been told already that it is refused. */
    if (wolfSSL_get_alert_history(tls->library, &history) == WOLFSSL_SUCCESS &&
        history.last_tx.level == alert_fatal)
        return false;
#ifdef OPENSSL_COMPATIBLE_DEFAULTS /* the packaged library translates */
    if (store->error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
        store->error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT)
        return true;
#endif
    return store->error == ASN_NO_SIGNER_E || store->error == ASN_SELF_SIGNED_E ||
           store->error == ASN_VERSION_E;
}

static bool is_chain_good(struct tls *tls, int verified, const WOLFSSL_X509_STORE_CTX *store)
{
    struct certificate shown[1 + TLS_CHAIN_BETWEEN_MAX];
    struct tls_chain chain = {
        .authorities = &tls->context->authorities,
        .shown = shown,
        .shown_count = MIN((size_t)store->totalCerts, COUNT_OF(shown)),
        .use =
            tls->context->side == TLS_SIDE_SERVER ? CERTIFICATE_OF_CLIENT : CERTIFICATE_OF_SERVER,
        .now = time(NULL),
        .is_leaf_verified = verified,
    };

    for (size_t i = 0; i < chain.shown_count; i++)
        shown[i] =
            (struct certificate){.der = store->certs[i].buffer, .bytes = store->certs[i].length};
    tls->fault = tls_chain_fault(&chain);
    return tls->fault == NULL;
}

/* The peer's own certificate. What is said good here, and nothing else, is believed later. */
static bool is_peer_good(struct tls *tls, int verified, const WOLFSSL_X509_STORE_CTX *store)
{
    enum tls_verify verify = tls->context->verify;

    if (verify == TLS_VERIFY_NONE)
        return keep_peer(tls, &store->certs[0]);
    if (!may_be_judged(tls, verified, store) || !is_chain_good(tls, verified, store) ||
        !keep_peer(tls, &store->certs[0]))
        return false;
    tls->is_peer_verified = true;
    tls->is_peer_of_host = verify == TLS_VERIFY_HOST && is_of_host(tls);
    return verify != TLS_VERIFY_HOST || tls->is_peer_of_host;
}

/* For each certificate of the peer's chain, its own (depth 0) at last; `verified` is false where the library has
 * found a fault, and true for an authority's whose issuer it does not know: that one it leaves aside. A zero is
 * final; a one makes good what was found bad, and above the leaf it would be trusted from then on. */
int tls_session_on_certificate(int verified, WOLFSSL_X509_STORE_CTX *store)
{
    struct tls *tls = store->userCtx;
    enum tls_verify verify = tls->context->verify;

    /* A client may send a certificate that nobody has asked for. The library takes it (5.5.4), and has
     * verified nothing: it must not become the name of a user. */
    if (verify == TLS_VERIFY_NONE && tls->context->side == TLS_SIDE_SERVER)
        return 0;
    if (tls->state != TLS_SHAKING) /* who somebody is does not change later */
        return 0;
    if (store->error_depth > 0) {
        /* It will say of the leaf that it knows no issuer. */
        if (verify != TLS_VERIFY_NONE && !verified)
            tls->fault = text_of_code(store->error);
        return verify == TLS_VERIFY_NONE || verified;
    }
    if (store->totalCerts > 0)
        return is_peer_good(tls, verified, store);
    return verify < TLS_VERIFY_CHAIN && verified;
}

/* That a handshake is done does not show that the callback was called: the library has ways past it (a session
 * that is resumed, no certificate). None may lead here. */
static bool is_believed(const struct tls *tls)
{
    switch (tls->context->verify) {
    case TLS_VERIFY_NONE:
    case TLS_VERIFY_IF_GIVEN:
        return true;
    case TLS_VERIFY_CHAIN:
        return tls->is_peer_verified;
    case TLS_VERIFY_HOST:
        return tls->is_peer_verified && tls->is_peer_of_host;
    }
    return false;
}

void tls_session_prepare(WOLFSSL_CTX *library)
{
    wolfSSL_CTX_SetIORecv(library, on_receive);
    wolfSSL_CTX_SetIOSend(library, on_send);
}

/* ---- life ---- */

static bool is_literal_address(const char *host)
{
    uint8_t address[16];

    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static bool set_up(struct tls *tls, const char *host)
{
    struct tls_context *context = tls->context;

    tls->library = wolfSSL_new(context->library);
    if (tls->library == NULL)
        return false;
    wolfSSL_SetIOReadCtx(tls->library, tls);
    wolfSSL_SetIOWriteCtx(tls->library, tls);
    wolfSSL_SetCertCbCtx(tls->library, tls);
    if (context->without_protocols != 0)
        wolfSSL_set_options(tls->library, context->without_protocols);
    if (context->alpn[0] != '\0' &&
        wolfSSL_UseALPN(tls->library, context->alpn, (word32)strlen(context->alpn),
                        context->side == TLS_SIDE_SERVER
                            ? WOLFSSL_ALPN_FAILED_ON_MISMATCH
                            : WOLFSSL_ALPN_CONTINUE_ON_MISMATCH) != WOLFSSL_SUCCESS)
        return false;
    if (host == NULL || context->side == TLS_SIDE_SERVER)
        return true;
    tls->host = strdup(host);
    if (tls->host == NULL)
        return false;
    return is_literal_address(host) || strlen(host) > UINT16_MAX ||
           wolfSSL_UseSNI(tls->library, WOLFSSL_SNI_HOST_NAME, host, (uint16_t)strlen(host)) ==
               WOLFSSL_SUCCESS;
}

struct tls *tls_create(struct tls_context *context, const char *host)
{
    struct tls *tls = calloc(1, sizeof(*tls));

    if (tls == NULL)
        return NULL;
    tls->context = tls_context_reference(context);
    if (set_up(tls, host))
        return tls;
    tls_destroy(tls);
    return NULL;
}

void tls_forget_peer(struct tls *tls)
{
    free(tls->peer);
    tls->peer = NULL;
    tls->peer_bytes = 0;
}

struct tls_context *tls_context_of(const struct tls *tls)
{
    return tls->context;
}

const char *tls_host_of(const struct tls *tls)
{
    return tls->host == NULL ? "" : tls->host;
}

void tls_destroy(struct tls *tls)
{
    if (tls == NULL)
        return;
    tls_forget_peer(tls);
    wolfSSL_free(tls->library);
    tls_context_release(tls->context);
    free(tls->host);
    free(tls->own_error);
    free(tls);
}

/* ---- bytes ---- */

void tls_feed(struct tls *tls, const void *data, size_t bytes)
{
    assert(tls->input_bytes == 0);
    tls->input = data;
    tls->input_bytes = bytes;
}

size_t tls_unread_bytes(const struct tls *tls)
{
    return tls->input_bytes;
}

void tls_drop_input(struct tls *tls)
{
    tls->input = NULL;
    tls->input_bytes = 0;
}

enum tls_result tls_handshake(struct tls *tls, struct tls_output *output)
{
    int answer, code;

    if (tls->state == TLS_BROKEN)
        return TLS_FAILED;
    assert(tls->state == TLS_SHAKING);
    tls->output = output;
    answer = tls->context->side == TLS_SIDE_SERVER ? wolfSSL_accept(tls->library)
                                                   : wolfSSL_connect(tls->library);
    tls->output = NULL;
    if (answer == WOLFSSL_SUCCESS && !is_believed(tls))
        return fail(tls, "peer's certificate was not verified");
    if (answer == WOLFSSL_SUCCESS) {
        tls->state = TLS_UP;
        tls->held_bytes = 0;
        wolfSSL_FreeArrays(tls->library);
        return TLS_OK;
    }
    code = wolfSSL_get_error(tls->library, answer);
    if (code == WOLFSSL_ERROR_WANT_READ && !tls->output_failed) {
        assert(tls->input_bytes == 0);
        return TLS_WANT_INPUT;
    }
    if (code == WOLFSSL_ERROR_ZERO_RETURN)
        return fail(tls, "peer closed during the handshake");
    return fail(tls, text_of_error(tls, code));
}

/* What an answer of wolfSSL_read below one means. */
static enum tls_result read_end(struct tls *tls, int answer)
{
    int code = wolfSSL_get_error(tls->library, answer);

    if (tls->output_failed)
        return fail(tls, text_of_error(tls, code));
    if (code == WOLFSSL_ERROR_WANT_READ) {
        assert(tls->input_bytes == 0);
        return TLS_WANT_INPUT;
    }
    if (code == WOLFSSL_ERROR_ZERO_RETURN) {
        tls->state = TLS_PEER_CLOSED;
        return TLS_CLOSED;
    }
    return fail(tls, text_of_error(tls, code));
}

static enum tls_result read_records(struct tls *tls, uint8_t *out, size_t room, size_t *got)
{
    while (*got < room) {
        int answer;

        /* Saves a call: the library takes whole records, so it holds nothing else. */
        if (tls->input_bytes == 0 && wolfSSL_pending(tls->library) == 0)
            return TLS_WANT_INPUT;
        answer = wolfSSL_read(tls->library, out + *got, (int)MIN(room - *got, (size_t)INT_MAX));
        if (answer <= 0)
            return read_end(tls, answer);
        *got += (size_t)answer;
        tls->records_without_data = 0;
        tls->bytes_without_data = 0;
        tls->held_bytes = (size_t)wolfSSL_pending(tls->library);
    }
    return TLS_OK;
}

enum tls_result tls_read(struct tls *tls, struct tls_output *output, void *out, size_t room,
                         size_t *got)
{
    enum tls_result result;

    *got = 0;
    if (tls->state == TLS_PEER_CLOSED)
        return TLS_CLOSED;
    if (tls->state == TLS_BROKEN)
        return TLS_FAILED;
    assert(tls->state == TLS_UP);
    assert(room > 0);
    tls->output = output;
    tls_memory_begin();
    result = read_records(tls, out, room, got);
    tls_memory_end();
    tls->output = NULL;
    return result;
}

size_t tls_read_bytes_max(const struct tls *tls)
{
    /* The library holds at most one record. */
    return tls->input_bytes + MIN(tls->held_bytes, (size_t)TLS_RECORD_BYTES_MAX);
}

bool tls_write(struct tls *tls, struct tls_output *output, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    bool done = true;

    if (tls->state == TLS_BROKEN)
        return false;
    assert(tls->state != TLS_SHAKING);
    tls->output = output;
    tls_memory_begin();
    while (done && bytes > 0) {
        int part = (int)MIN(bytes, (size_t)TLS_RECORD_BYTES_MAX);
        int answer = wolfSSL_write(tls->library, at, part);

        done = answer == part && !tls->output_failed;
        if (!done)
            fail(tls, text_of_error(tls, wolfSSL_get_error(tls->library, answer)));
        at += part;
        bytes -= (size_t)part;
    }
    tls_memory_end();
    tls->output = NULL;
    return done;
}

bool tls_update_keys(struct tls *tls, struct tls_output *output)
{
    int answer;

    if (tls->state != TLS_UP || wolfSSL_GetVersion(tls->library) != WOLFSSL_TLSV1_3)
        return false;
    tls->output = output;
    tls_memory_begin();
    answer = wolfSSL_update_keys(tls->library);
    tls_memory_end();
    tls->output = NULL;
    if (answer == WOLFSSL_SUCCESS && !tls->output_failed)
        return true;
    fail(tls, text_of_error(tls, wolfSSL_get_error(tls->library, answer)));
    return false;
}

void tls_close_notify(struct tls *tls, struct tls_output *output)
{
    if (tls->state == TLS_SHAKING || tls->state == TLS_BROKEN)
        return;
    tls->output = output;
    tls_memory_begin();
    (void)wolfSSL_shutdown(tls->library);
    tls_memory_end();
    tls->output = NULL;
    fail(tls, "closed");
}

/* ---- what was agreed, and with whom ---- */

static const char *suite_name(WOLFSSL *library)
{
    int suite = wolfSSL_get_current_cipher_suite(library);

    return wolfSSL_GetVersion(library) == WOLFSSL_TLSV1_3
               ? wolfSSL_get_cipher_name_iana_from_suite((byte)(suite >> 8), (byte)suite)
               : wolfSSL_get_cipher_name(library);
}

/* OpenSSL's names, which PgBouncer shows. */
static const char *curve_name(const char *name)
{
    static const char *const names[][2] = {
        {"SECP256R1", "prime256v1"}, {"SECP384R1", "secp384r1"}, {"SECP521R1", "secp521r1"}};

    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(name, names[i][0]) == 0)
            return names[i][1];
    return name;
}

void tls_describe(const struct tls *tls, char text[TLS_DESCRIPTION_BYTES])
{
    WOLFSSL *library = tls->library;
    const char *suite = suite_name(library);
    const char *version = wolfSSL_get_version(library);
    const char *curve = wolfSSL_get_curve_name(library);

    if (suite == NULL)
        suite = "?";
    /* Names of suites of TLS 1.3 begin with neither. */
    if (strncmp(suite, "ECDHE", 5) == 0 && curve != NULL)
        snprintf(text, TLS_DESCRIPTION_BYTES, "%s/%s/ECDH=%s", version, suite, curve_name(curve));
    else if (strncmp(suite, "DHE", 3) == 0)
        snprintf(text, TLS_DESCRIPTION_BYTES, "%s/%s/DH=%d", version, suite,
                 wolfSSL_GetDhKey_Sz(library));
    else
        snprintf(text, TLS_DESCRIPTION_BYTES, "%s/%s", version, suite);
}

bool tls_was_resumed(const struct tls *tls)
{
    return wolfSSL_session_reused(tls->library) != 0;
}

bool tls_peer_has_certificate(const struct tls *tls)
{
    return tls->is_peer_verified && tls->peer != NULL;
}

bool tls_peer_has_name(const struct tls *tls, const char *name)
{
    return tls_peer_has_certificate(tls) && certificate_has_name(peer_of(tls), name);
}

size_t tls_end_point(const struct tls *tls, uint8_t hash[TLS_END_POINT_BYTES_MAX])
{
    const struct tls_context *context = tls->context;
    struct certificate certificate = peer_of(tls);

    if (context->side == TLS_SIDE_SERVER)
        certificate =
            (struct certificate){.der = context->certificate, .bytes = context->certificate_bytes};
    return certificate.der == NULL ? 0 : certificate_end_point(certificate, hash);
}
