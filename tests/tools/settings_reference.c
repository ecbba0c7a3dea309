/* settings_reference.c - prints the tables of settings: conf/SETTINGS.md, or with --mdoc the middle of
 * pgsplice.ini(5). */
#include "config/manual.h"

#include <string.h>

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--mdoc") == 0)
        manual_print_mdoc(stdout);
    else
        manual_print_markdown(stdout);
    return 0;
}
