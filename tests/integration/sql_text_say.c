/* sql_text_say.c - says on standard output what wire/sql_text.h makes of each text on standard input.
 *
 * A line in: 0 or 1 for standard_conforming_strings, a space, the text in hexadecimal digits.
 * A line out: the kind's number, 0 or 1 for cacheable, the places of the name and of what follows,
 * the name in hexadecimal digits; without a name -1 for each place. */
#include "wire/sql_text.h"

#include "say.h"

int main(void)
{
    static char line[1 << 16], text[1 << 15];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct sql_prepare found;
        enum sql_prepare_kind kind;
        size_t bytes = say_bytes(line + 2, text);

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
