/* assert.h - assertions that stay on in production (house style: a broken invariant of ours stops
 * the program).
 *
 * Never for what comes from a socket, a file, an operator or the kernel. One condition each.
 * `assert_slow` is for checks that cost: they are compiled in with -DASSERT_SLOW (tests,
 * simulator). */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include "base/base.h"

#undef assert
#define assert(condition)                                                                          \
    (likely(condition) ? (void)0 : assert_failed(#condition, __FILE__, __LINE__, __func__))

#ifdef ASSERT_SLOW
#define assert_slow(condition) assert(condition)
#else
#define assert_slow(condition) ((void)sizeof(!!(condition)))
#endif

#ifndef static_assert
#define static_assert _Static_assert
#endif

/* Writes the broken condition to stderr, calls the hook (the log's flush, the last events), aborts.
 */
_Noreturn void assert_failed(const char *condition, const char *file, int line,
                             const char *function);

/* Called once before abort; set it before threads start. NULL for none. */
void assert_set_hook(void (*hook)(void));

#endif
