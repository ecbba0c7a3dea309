#include "crypto/secret.h"

#include <string.h>

/* Hides a value from the optimizer, which could else end a loop early once the outcome is settled.
 */
static inline uint32_t opaque(uint32_t value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

bool secret_equal(const void *left, const void *right, size_t bytes)
{
    const uint8_t *a = left;
    const uint8_t *b = right;
    uint32_t difference = 0;

    for (size_t i = 0; i < bytes; i++)
        difference = opaque(difference | (uint32_t)(a[i] ^ b[i]));
    return difference == 0;
}

bool secret_text_equal(const char *stored, size_t stored_bytes, const char *given,
                       size_t given_bytes)
{
    static const char nothing[1] = {0};
    uint32_t difference = opaque(stored_bytes != given_bytes);
    size_t position = 0;

    /* An empty text has no byte to look at; lengths have settled that case already. */
    if (stored_bytes == 0) {
        stored = nothing;
        stored_bytes = 1;
    }
    for (size_t i = 0; i < given_bytes; i++) {
        difference = opaque(difference | (uint32_t)(uint8_t)(stored[position] ^ given[i]));
        /* Stays on the last byte when the stored text is shorter; without a branch. */
        position += opaque(position + 1 < stored_bytes);
    }
    return difference == 0;
}

void secret_wipe(void *data, size_t bytes)
{
    if (bytes > 0)
        explicit_bzero(data, bytes);
}
