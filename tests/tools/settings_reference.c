/* settings_reference.c - prints conf/SETTINGS.md from the tables of settings. */
#include "config/database.h"

int main(void)
{
    settings_print_markdown(stdout);
    entry_options_print_markdown(stdout);
    return 0;
}
