#include "tls_count.h"

#include "crypto/tls.h"

static unsigned session_count;

struct tls *__real_tls_create(struct tls_context *context, const char *host);
void __real_tls_destroy(struct tls *tls);
struct tls *__wrap_tls_create(struct tls_context *context, const char *host);
void __wrap_tls_destroy(struct tls *tls);

struct tls *__wrap_tls_create(struct tls_context *context, const char *host)
{
    struct tls *tls = __real_tls_create(context, host);

    session_count += tls != NULL;
    return tls;
}

void __wrap_tls_destroy(struct tls *tls)
{
    assert(tls == NULL || session_count > 0);
    session_count -= tls != NULL;
    __real_tls_destroy(tls);
}

unsigned tls_session_count(void)
{
    return session_count;
}
