/* fuzz_tls_ciphers.c - the words of the TLS settings: whatever they are, what comes out is a list of suites (versions,
 * curves) that are offered, each once. */
#include "crypto/tls_ciphers.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* `list` is part of `all`, without a name twice. */
static void check_names(const char *list, const char *all)
{
    char text[TLS_SUITES_BYTES], padded[TLS_SUITES_BYTES + 2], seen[TLS_SUITES_BYTES + 2] = ":";
    char *rest = text;

    snprintf(text, sizeof(text), "%s", list);
    snprintf(padded, sizeof(padded), ":%s:", all);
    for (char *name; *list != '\0' && (name = strsep(&rest, ":")) != NULL;) {
        char wanted[128];

        assert(*name != '\0');
        snprintf(wanted, sizeof(wanted), ":%s:", name);
        assert(strstr(padded, wanted) != NULL);
        assert(strstr(seen, wanted) == NULL);
        strcat(seen, wanted + 1);
    }
}

static void check(const struct tls_cipher_list *list, bool is_good, const char *all)
{
    assert(is_good == (list->suites[0] != '\0'));
    assert(memchr(list->suites, '\0', sizeof(list->suites)) != NULL);
    assert(memchr(list->unknown, '\0', sizeof(list->unknown)) != NULL);
    for (const char *at = list->unknown; *at != '\0'; at++)
        assert(*at >= ' ' && *at < 0x7f);
    check_names(list->suites, all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char all_13[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                 "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256";
    static struct tls_cipher_list all;
    struct tls_cipher_list list, again;
    unsigned flags = bytes > 0 ? data[0] % 8 : 0;
    unsigned protocols;
    /* Its own allocation, so that the address sanitizer sees each step beyond the end. */
    char *text = bytes > 0 ? strndup((const char *)data + 1, bytes - 1) : strdup("");
    char groups[TLS_GROUPS_BYTES];
    bool is_good;

    if (text == NULL)
        abort();
    if (all.suites[0] == '\0')
        assert(tls_ciphers_translate("ALL", 0, &all));
    is_good = tls_ciphers_translate(text, flags, &list);
    check(&list, is_good, all.suites);
    if (is_good) { /* An explicit list is what it says. */
        assert(tls_ciphers_translate(list.suites, flags, &again));
        assert(strcmp(list.suites, again.suites) == 0 && again.unknown[0] == '\0');
    }
    is_good = tls_ciphers_translate_13(text, flags, &list);
    check(&list, is_good, all_13);
    if (tls_protocols_parse(text, &protocols))
        assert(protocols > 0 && protocols < 16);
    if (tls_groups_parse(text, groups) == TLS_GROUPS_GOOD)
        check_names(groups, "X25519:P-256:P-384:P-521");
    free(text);
    return 0;
}
