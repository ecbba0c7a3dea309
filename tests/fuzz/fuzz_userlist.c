/* fuzz_userlist.c - the auth_file from foreign bytes. */
#include "config/userlist.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    /* Its own allocation, so that the address sanitizer sees each step beyond the end. */
    char *text = malloc(bytes + 1);
    struct userlist userlist;
    const char *name, *secret;
    int line = 1;

    if (text == NULL)
        return 0;
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    userlist_init(&userlist, text);
    while (userlist_next(&userlist, &name, &secret) == USERLIST_OK) {
        assert(strlen(name) < USER_NAME_BYTES_MAX);
        assert(strlen(secret) <= USERLIST_SECRET_BYTES_MAX);
        assert(userlist.line >= line);
        line = userlist.line;
    }
    free(text);
    return 0;
}
