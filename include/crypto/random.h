/* random.h - random bytes from the kernel.
 *
 * getrandom(2): no descriptor, no lock, no state of ours; any thread. It sleeps only in the first
 * seconds of a machine's life, before the kernel has gathered its first entropy. State machines do
 * not call this: their owner does and hands the bytes in, so that the simulator can own chance. */
#ifndef CRYPTO_RANDOM_H
#define CRYPTO_RANDOM_H

#include "base/base.h"

/* False: the kernel refused (a seccomp filter, a kernel before 3.17). `out` is then to be thrown
 * away; there is no weaker source to fall back to. */
must_check bool random_bytes(void *out, size_t bytes);

#endif
