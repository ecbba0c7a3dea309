/* sql_text_say.c - says on standard output what wire/sql_text.h makes of each text on standard input.
 *
 * A line in: 0 or 1 for standard_conforming_strings, a space, the text in hexadecimal digits.
 * A line out: the kind's number, 0 or 1 for cacheable, the places of the name and of what follows,
 * the name in hexadecimal digits; without a name -1 for each place. */
#include "wire/sql_text.h"

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
        struct sql_prepare found;
        enum sql_prepare_kind kind;
        size_t bytes = 0;

        for (const char *at = line + 2; at[0] >= '0' && at[1] >= '0'; at += 2)
            text[bytes++] = (char)(digit(at[0]) << 4 | digit(at[1]));
        kind = sql_prepare_read(text, bytes, line[0] == '1', &found);
        printf("%d %d ", (int)kind, sql_is_cacheable(text, bytes));
        if (kind == SQL_PREPARE || kind == SQL_EXECUTE || kind == SQL_DEALLOCATE) {
            printf("%zu %zu %zu %zu ", found.written_offset, found.written_bytes, found.rest_offset,
                   found.rest_bytes);
            for (size_t i = 0; i < found.name_bytes; i++)
                printf("%02x", (unsigned)(uint8_t)found.name[i]);
        } else {
            printf("-1 -1 -1 -1 ");
        }
        printf("\n");
    }
    return 0;
}
