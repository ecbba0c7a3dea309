/* fuzz_ldap_options.c - options of LDAP, and a user's name: what comes out is well-formed, and the name
 * is never more than a value in the filter. The first line is the name, the rest the options. */
#include "config/ldap_options.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int count(const char *text, char byte)
{
    int found = 0;

    for (; *text != '\0'; text++)
        found += *text == byte;
    return found;
}

static void check(const struct ldap_options *options, const char *user)
{
    size_t room = (strlen(user) * 3 + 16) * 1024;
    char *harmless = malloc(room), *filter = malloc(room);

    assert(harmless != NULL && filter != NULL);
    assert(options->uris[0] != '\0');
    assert(strncmp(options->uris, "ldap://", 7) == 0 || strncmp(options->uris, "ldaps://", 8) == 0);
    if (options->is_search) {
        assert(options->basedn != NULL && options->binddn != NULL && options->bindpasswd != NULL);
        assert(ldap_options_filter(options, "x", harmless, room));
        assert(ldap_options_filter(options, user, filter, room));
        assert(count(filter, '(') == count(harmless, '('));
        assert(count(filter, ')') == count(harmless, ')'));
        assert(count(filter, '*') == count(harmless, '*'));
        /* The last byte that fits, and no more. */
        assert(!ldap_options_filter(options, user, filter, strlen(filter)) || filter[0] == '\0');
    } else {
        assert(ldap_options_bind_name(options, user, filter, room));
        assert(strlen(filter) == strlen(options->prefix) + strlen(user) + strlen(options->suffix));
    }
    free(harmless);
    free(filter);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct arena *arena = arena_new();
    /* Its own allocations, so that the address sanitizer sees each step beyond the end. */
    char *user = strndup((const char *)data, bytes);
    char *text = strdup(user != NULL && strchr(user, '\n') != NULL ? strchr(user, '\n') + 1 : "");
    char error[LDAP_OPTIONS_ERROR_BYTES] = "";
    const struct ldap_options *options;

    if (user == NULL || text == NULL)
        abort();
    if (strchr(user, '\n') != NULL)
        *strchr(user, '\n') = '\0';
    options = ldap_options_parse(text, arena, error);
    assert((options != NULL) == (error[0] == '\0'));
    if (options != NULL)
        check(options, user);
    arena_free(arena);
    free(user);
    free(text);
    return 0;
}
