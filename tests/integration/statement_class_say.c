/* statement_class_say.c - says on standard output what wire/statement_class.h makes of each text on standard input.
 *
 * A line in: 0 or 1 for standard_conforming_strings, 0 or 1 for UTF-8, a space, the text in hexadecimal
 * digits. A line out: the number of its class. */
#include "wire/statement_class.h"

#include "say.h"

int main(void)
{
    static char line[1 << 16], text[1 << 15];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        uint64_t hash;
        size_t bytes = say_bytes(line + 3, text);

        printf("%d\n", (int)statement_class(text, bytes, line[0] == '1', line[1] == '1', &hash));
    }
    return 0;
}
