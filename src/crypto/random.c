#include "crypto/random.h"

#include <errno.h>
#include <sys/random.h>

bool random_bytes(void *out, size_t bytes)
{
    uint8_t *at = out;

    /* Above 256 bytes a signal may cut the answer short, so short answers are continued. */
    while (bytes > 0) {
        ssize_t got = getrandom(at, bytes, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}
