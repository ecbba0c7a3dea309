/* say.h - what programs share that say on standard output what a function makes of each line of standard input. */
#ifndef TESTS_INTEGRATION_SAY_H
#define TESTS_INTEGRATION_SAY_H

#include <stdio.h>
#include <stdlib.h>

/* The program needs nothing else of base/. */
_Noreturn void assert_failed(const char *condition, const char *file, int line,
                             const char *function)
{
    (void)fprintf(stderr, "%s:%d: %s: %s\n", file, line, function, condition);
    abort();
}

static int say_digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* The bytes of these hexadecimal digits; how many. */
static size_t say_bytes(const char *digits, char *bytes)
{
    size_t count = 0;

    for (const char *at = digits; at[0] >= '0' && at[1] >= '0'; at += 2)
        bytes[count++] = (char)(say_digit(at[0]) << 4 | say_digit(at[1]));
    return count;
}

#endif
