/* Until tls.c is here: contexts that can be counted, so that what makes them can be built and tested.
 * Gone as soon as it is; whoever merges the two removes this file. */
#if !__has_include("tls.c")

#include "crypto/tls.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct tls_context {
    atomic_uint references;
    char identity[4096];
};

bool tls_init(void)
{
    return true;
}

const char *tls_library(void)
{
    return "stub";
}

bool tls_has_fast_aes(void)
{
    return true;
}

static const char *text_of(const char *text)
{
    return text == NULL ? "" : text;
}

struct tls_context *tls_context_create(const struct tls_options *options,
                                       char error[TLS_ERROR_BYTES])
{
    const char *files[] = {options->certificate_file, options->key_file, options->authorities_file};
    struct tls_context *context;

    for (size_t i = 0; i < COUNT_OF(files); i++)
        if (text_of(files[i])[0] != '\0' && access(files[i], R_OK) != 0) {
            snprintf(error, TLS_ERROR_BYTES, "%s: cannot be read", files[i]);
            return NULL;
        }
    context = calloc(1, sizeof(*context));
    assert(context != NULL);
    atomic_init(&context->references, 1);
    snprintf(context->identity, sizeof(context->identity), "%d %u %s %s %s %s %s %d %d %s %d",
             (int)options->side, options->protocols, text_of(files[0]), text_of(files[1]),
             text_of(files[2]), text_of(options->suites), text_of(options->groups),
             (int)options->verify, (int)options->dhe, text_of(options->alpn),
             options->gives_tickets);
    return context;
}

struct tls_context *tls_context_reference(struct tls_context *context)
{
    atomic_fetch_add(&context->references, 1);
    return context;
}

void tls_context_release(struct tls_context *context)
{
    if (atomic_fetch_sub(&context->references, 1) == 1)
        free(context);
}

bool tls_context_is_same(const struct tls_context *a, const struct tls_context *b)
{
    return strcmp(a->identity, b->identity) == 0;
}

#endif
