/* manual.h - prints the tables of settings.c and database.c for people: conf/SETTINGS.md, and the
 * middle of the manual page pgsplice.ini(5). For the build and its tests only; not in the program. */
#ifndef CONFIG_MANUAL_H
#define CONFIG_MANUAL_H

#include <stdio.h>

void manual_print_markdown(FILE *file);
/* mdoc(7): sections and lists of settings, to be put into conf/pgsplice.ini.5.in. */
void manual_print_mdoc(FILE *file);

#endif
