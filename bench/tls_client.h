/* tls_client.h - the TLS of tls_storm.c: OpenSSL (tls_client_openssl.c, the usual one) or the
 * pooler's own (tls_client_own.c, which leaves more of a small machine to the poolers). Blocking.
 *
 * Environment: TLS_PROTOCOL 1.2 or 1.3 (the default), TLS_CIPHER, TLS_GROUPS: names of the library.
 * Nothing is resumed, the chain is not looked at; that the peer has the key is proved all the same.
 */
#ifndef TLS_CLIENT_H
#define TLS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { TLS_CLIENT_TEXT_BYTES = 128 };

struct tls_client;

bool tls_client_init(const char *protocol, const char *cipher, const char *groups);
/* With the handshake done. NULL: it failed. */
struct tls_client *tls_client_open(int fd);
bool tls_client_send(struct tls_client *client, const void *data, size_t bytes);
/* At least one byte; 0 or less: the end, or failed. */
ssize_t tls_client_receive(struct tls_client *client, void *out, size_t room);
/* NULL is fine; not the descriptor. */
void tls_client_close(struct tls_client *client, bool says_goodbye);
/* "TLSv1.3/TLS_AES_256_GCM_SHA384", and what else the library tells. */
void tls_client_describe(struct tls_client *client, char text[TLS_CLIENT_TEXT_BYTES]);
void tls_client_explain(char *text, size_t room);

#endif
