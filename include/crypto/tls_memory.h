/* tls_memory.h - what wolfSSL allocates while it reads and writes records comes from a cache of the
 * thread's own, without libc's locks. Used by tls.c only.
 *
 * For each record wolfSSL takes a buffer of about the record's size and gives it back at once. Between
 * tls_memory_begin and tls_memory_end its requests are rounded up to a few sizes, and what it frees
 * is kept by the thread, at most TLS_MEMORY_KEPT_PER_SIZE of each size. Outside of that, above all in
 * handshakes, all goes straight to libc, so that what an idle session keeps is not rounded up.
 *
 * Every block is a plain one of libc's, so any thread may free it: it joins that thread's cache or goes
 * back. A thread that exits gives its cache back. Under the address sanitizer nothing is kept, so that
 * use after free is seen. */
#ifndef CRYPTO_TLS_MEMORY_H
#define CRYPTO_TLS_MEMORY_H

#include "base/base.h"

enum { TLS_MEMORY_KEPT_PER_SIZE = 4 };

/* Before the library is used. */
must_check bool tls_memory_init(void);

void tls_memory_begin(void);
void tls_memory_end(void);

/* Of the calling thread, between begin and end; for tests. */
struct tls_memory_counts {
    uint64_t taken;     /* blocks that wolfSSL asked for */
    uint64_t from_libc; /* of them, those that the cache did not have */
};
struct tls_memory_counts tls_memory_counts(void);

#endif
