/* tls_client_openssl.c - TLS of the benchmark's clients as libpq's is. */
#include "tls_client.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

static SSL_CTX *context;

static int trust_anybody(X509_STORE_CTX *store, void *argument)
{
    (void)store;
    (void)argument;
    return 1;
}

bool tls_client_init(const char *protocol, const char *cipher, const char *groups)
{
    bool is_old = protocol != NULL && strcmp(protocol, "1.2") == 0;
    int version = is_old ? TLS1_2_VERSION : TLS1_3_VERSION;

    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || !SSL_CTX_set_min_proto_version(context, version) ||
        !SSL_CTX_set_max_proto_version(context, version))
        return false;
    /* Less memory here: thousands of sessions are held. */
    SSL_CTX_set_mode(context, SSL_MODE_AUTO_RETRY | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_cert_verify_callback(context, trust_anybody, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (cipher != NULL && (is_old ? SSL_CTX_set_cipher_list(context, cipher)
                                  : SSL_CTX_set_ciphersuites(context, cipher)) != 1)
        return false;
    return groups == NULL || SSL_CTX_set1_groups_list(context, groups) == 1;
}

struct tls_client *tls_client_open(int fd)
{
    SSL *ssl = SSL_new(context);

    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    return (struct tls_client *)ssl;
}

bool tls_client_send(struct tls_client *client, const void *data, size_t bytes)
{
    return SSL_write((SSL *)client, data, (int)bytes) == (int)bytes;
}

ssize_t tls_client_receive(struct tls_client *client, void *out, size_t room)
{
    return SSL_read((SSL *)client, out, (int)room);
}

void tls_client_close(struct tls_client *client, bool says_goodbye)
{
    if (says_goodbye && client != NULL)
        (void)SSL_shutdown((SSL *)client);
    SSL_free((SSL *)client);
}

void tls_client_describe(struct tls_client *client, char text[TLS_CLIENT_TEXT_BYTES])
{
    SSL *ssl = (SSL *)client;
    const char *group = OBJ_nid2sn((int)SSL_get_negotiated_group(ssl));

    snprintf(text, TLS_CLIENT_TEXT_BYTES, "%s/%s/%s", SSL_get_version(ssl),
             SSL_get_cipher_name(ssl), group != NULL ? group : "?");
}

void tls_client_explain(char *text, size_t room)
{
    ERR_error_string_n(ERR_peek_error(), text, room);
}
