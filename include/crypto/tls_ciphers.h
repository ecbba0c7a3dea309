/* tls_ciphers.h - translates the words of the TLS settings (as OpenSSL and libtls have them) into what
 * tls.h takes: suites, protocols and groups, each an explicit list.
 *
 * Cipher lists are OpenSSL's language (ciphers(1)): words such as HIGH, ECDHE or AES128 stand for suites,
 * `A+B` for those that are both, names of suites (OpenSSL's or IANA's) for themselves; in front of a
 * word `!` removes for good, `-` removes, `+` moves to the end; @STRENGTH sorts, @SECLEVEL=n removes what
 * is too weak (suites only: keys of certificates are not looked at); ':' ',' ';' or blanks lie between.
 * They choose among our own table, which has no RC4, 3DES, NULL, PSK or anonymous suite and none with a
 * tag of 8 bytes, whatever the list says. What of these the library has says tls_has_suite. Within
 * what a word adds the order is OpenSSL's, with ECDHE+CHACHA20 in front where AES is slow.
 *
 * `default`, `secure`, `normal` and `fast` (and no list) are our own order: forward secret suites only,
 * AEAD before CBC, ECDHE before DHE, the fastest first. `all` is the whole table.
 *
 * A word that nobody knows adds nothing, as in OpenSSL, but it is named, so that somebody can be told.
 *
 * Pure: no allocation, any thread. Cost grows with the list, bounded by its length times the table. */
#ifndef CRYPTO_TLS_CIPHERS_H
#define CRYPTO_TLS_CIPHERS_H

#include "crypto/tls.h"

enum { TLS_SUITES_BYTES = 1536, TLS_UNKNOWN_BYTES = 256, TLS_GROUPS_BYTES = 64 };

/* What the suites are for. */
enum {
    TLS_CIPHERS_FAST_AES = 1,      /* AES is faster than ChaCha20: tls_has_fast_aes */
    TLS_CIPHERS_WITHOUT_ECDHE = 2, /* there are no curves */
    TLS_CIPHERS_WITHOUT_DHE = 4,   /* there are no DH parameters */
};

struct tls_cipher_list {
    char suites[TLS_SUITES_BYTES]; /* by preference, ':' between: for tls_options */
    /* Words that are not known, ", " between, cut when there are too many; "": none. Suites that are
     * not ours and that the list removes are not among them. */
    char unknown[TLS_UNKNOWN_BYTES];
};

/* For TLS 1.2 and lower. `list` may be NULL. False: nothing is left of it. */
must_check bool tls_ciphers_translate(const char *list, unsigned flags,
                                      struct tls_cipher_list *out);

/* For TLS 1.3: names of suites only; NULL or "": our own order. */
must_check bool tls_ciphers_translate_13(const char *list, unsigned flags,
                                         struct tls_cipher_list *out);

/* Names of versions, ',' or ':' between: tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3, tlsv1 (each of them), all
 * and legacy (as well), secure and default (1.2 and 1.3); `!name` removes, and from all of them if it
 * stands first. Case is ignored. False: a word is not known, or nothing is left. */
must_check bool tls_protocols_parse(const char *list, unsigned *protocols);

enum tls_groups_result {
    TLS_GROUPS_GOOD, /* the library's default, or `groups` has names */
    TLS_GROUPS_NONE, /* `none` */
    TLS_GROUPS_BAD,  /* a name is not one of ours */
};

/* A curve by OpenSSL's name or NIST's, or several with ':' or ',' between, case ignored; `auto` (or
 * NULL or ""): `groups` is empty, and the library's order holds. */
must_check enum tls_groups_result tls_groups_parse(const char *list, char groups[TLS_GROUPS_BYTES]);

#endif
