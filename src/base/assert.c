#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

static void (*assert_hook)(void);

void assert_set_hook(void (*hook)(void))
{
    assert_hook = hook;
}

_Noreturn void assert_failed(const char *condition, const char *file, int line,
                             const char *function)
{
    void (*hook)(void) = assert_hook;

    fprintf(stderr, "pgsplice: broken invariant `%s` in %s (%s:%d)\n", condition, function, file,
            line);
    assert_hook = NULL;
    if (hook != NULL)
        hook();
    abort();
}
