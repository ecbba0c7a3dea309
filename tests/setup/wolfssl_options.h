/* What our build of wolfSSL has in it. tests/setup/wolfssl.sh installs this as <wolfssl/options.h>, compiles the
 * library with it, and the Makefile puts it before the first line of every file of ours: the sizes of the library's
 * structs depend on it, so there is one truth.
 *
 * It stands in for ./configure; the script adds WOLFSSL_DEBIAN_VERSION to it. Each line says what it is for; what is not named is not built. So there is no RC4,
 * 3DES, NULL, PSK, anonymous or static key suite, no DTLS, no TLS below 1.2, and no session cache. */
#ifndef WOLFSSL_OPTIONS_H
#define WOLFSSL_OPTIONS_H

#include <wolfssl/version.h>

/* ---- the machine ---- */
#define HAVE_THREAD_LS
#define HAVE_GMTIME_R
#define HAVE_LIMITS_H
#define HAVE___UINT128_T 1
#define SIZEOF_LONG 8
#define SIZEOF_LONG_LONG 8
/* Bytes come and go by our callbacks; nothing in it opens a socket or reads a folder. */
#define WOLFSSL_USER_IO
#define NO_WOLFSSL_DIR
#define NO_WRITEV
#define WC_NO_ASYNC_THREADING
#define NO_DO178

/* Seeds come from a function of ours (getrandom(2)), not from an open of /dev/urandom for each session. */
#define WC_RNG_SEED_CB
#define HAVE_HASHDRBG

/* ---- assembly, chosen at run time by what the CPU can do ---- */
#if defined(__x86_64__)
#define WOLFSSL_X86_64_BUILD
#define WOLFSSL_AESNI
#define USE_INTEL_SPEEDUP
#define WOLFSSL_USE_ALIGN
#define WOLFSSL_SP_X86_64
#define WOLFSSL_SP_X86_64_ASM
#elif defined(__aarch64__)
#define WOLFSSL_SP_ARM64
#define WOLFSSL_SP_ARM64_ASM
/* Here the library does not ask the CPU, so it must be promised: wolfssl.sh with -march=armv8-a+crypto. */
#if defined(__ARM_FEATURE_CRYPTO)
#define WOLFSSL_ARMASM
#endif
#endif
/* For a CPU without AES instructions, or with them hidden by a hypervisor: 1 KiB a session. */
#define GCM_TABLE_4BIT

/* ---- big numbers: constant time, RSA and DH of 2048 to 4096 bits, the three NIST curves ---- */
/* Twice the bits (SP_INT_BITS) would make each ECDSA handshake a seventh slower, for authorities that are rare. */
#define WOLFSSL_SP_MATH_ALL
#define WOLFSSL_SP_ASM
#define WOLFSSL_SP_LARGE_CODE
#define WOLFSSL_HAVE_SP_RSA
#define WOLFSSL_HAVE_SP_DH
#define WOLFSSL_SP_4096
#define WOLFSSL_HAVE_SP_ECC
#define WOLFSSL_SP_384
#define WOLFSSL_SP_521
#define TFM_TIMING_RESISTANT
#define ECC_TIMING_RESISTANT
#define WC_RSA_BLINDING

/* ---- ciphers and hashes ---- */
#define HAVE_AESGCM
#define HAVE_CHACHA
#define HAVE_POLY1305
#define WOLFSSL_SHA224
#define WOLFSSL_SHA384
#define WOLFSSL_SHA512
#define HAVE_HKDF
#define WOLFSSL_BASE64_ENCODE
#define NO_RC4
#define NO_DES3
#define NO_MD4
#define NO_DSA
#define NO_PSK
#define NO_PKCS12

/* ---- signatures, key exchange ---- */
#define HAVE_ECC
#define ECC_USER_CURVES
#define HAVE_ECC384
#define HAVE_ECC521
#define ECC_SHAMIR
#define HAVE_CURVE25519
#define HAVE_ED25519
#define WC_RSA_PSS
#define WOLFSSL_PSS_LONG_SALT
#define HAVE_DH_DEFAULT_PARAMS
#define HAVE_FFDHE_2048
#define HAVE_FFDHE_3072

/* ---- TLS 1.2 and 1.3 ---- */
#define WOLFSSL_TLS13
#define NO_OLD_TLS
#define HAVE_TLS_EXTENSIONS
#define HAVE_SUPPORTED_CURVES
#define HAVE_EXTENDED_MASTER
#define HAVE_ENCRYPT_THEN_MAC
/* The empty extension only, without which OpenSSL 3 refuses a TLS 1.2 server; there is no renegotiation. */
#define HAVE_SERVER_RENEGOTIATION_INFO
#define HAVE_SNI
#define HAVE_ALPN
#define HAVE_SESSION_TICKET
#define NO_CLIENT_CACHE
/* Later ones (5.7.2) do not link tickets without a cache; it stays off in them too, by a call. */
#if LIBWOLFSSL_VERSION_HEX <= 0x05005004
#define NO_SESSION_CACHE
#else
#define SMALL_SESSION_CACHE
#define NO_SESSION_CACHE_REF
#endif
#define WOLFSSL_EXTRA_ALERTS

/* ---- certificates ---- */
#define WOLFSSL_IP_ALT_NAME
/* The callback sees each certificate of the chain, also when all is well. */
#define WOLFSSL_ALWAYS_VERIFY_CB
#define WOLFSSL_VERIFY_CB_ALL_CERTS
/* An authority whose issuer is unknown is left aside, not trusted and no fault: chains often have one too many on top.
 * Which of them lead to one that is trusted is judged by src/crypto/tls_chain.c. The packaged library has it too. */
#define WOLFSSL_ALT_CERT_CHAINS
/* An authority without a key usage may sign; one whose usage says no is refused in tls_chain.c. */
#define ALLOW_INVALID_CERTSIGN
#define WOLFSSL_ENCRYPTED_KEYS

#endif
