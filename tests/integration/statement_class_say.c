/* statement_class_say.c - says on standard output what wire/statement_class.h makes of each text on standard input.
 *
 * A line in: 0 or 1 for standard_conforming_strings, 0 or 1 for UTF-8, a space, the text in hexadecimal
 * digits. A line out: the number of its class. */
#include "wire/statement_class.h"

#include <stdio.h>
#include <stdlib.h>

/* The program needs nothing else of base/. */
_Noreturn void assert_failed(const char *condition, const char *file, int line,
                             const char *function)
{
    (void)fprintf(stderr, "%s:%d: %s: %s\n", file, line, function, condition);
    abort();
}

static int digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

int main(void)
{
    static char line[1 << 16], text[1 << 15];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        uint64_t hash;
        size_t bytes = 0;

        for (const char *at = line + 3; at[0] >= '0' && at[1] >= '0'; at += 2)
            text[bytes++] = (char)(digit(at[0]) << 4 | digit(at[1]));
        printf("%d\n", (int)statement_class(text, bytes, line[0] == '1', line[1] == '1', &hash));
    }
    return 0;
}
