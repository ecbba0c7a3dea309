#include "config/manual.h"

#include "config/database.h"

#include <inttypes.h>
#include <string.h>

static void print_limits(const struct setting *setting, FILE *file)
{
    char names[256];

    switch (setting->kind) {
    case SETTING_BOOL:
        fprintf(file, "0 or 1");
        break;
    case SETTING_INT: /* a mode is read in octal */
        fprintf(file,
                setting->offset == offsetof(struct settings, unix_socket_mode)
                    ? "%#" PRIo64 " to %#" PRIo64
                    : "%" PRId64 " to %" PRId64,
                setting->min, setting->max);
        break;
    case SETTING_UINT:
        fprintf(file, "%" PRId64 " to %" PRId64, setting->min, setting->max);
        break;
    case SETTING_TIME_US:
        fprintf(file, "seconds");
        break;
    case SETTING_SHORT_TIME_US:
        fprintf(file, "time, at most %" PRId64 "s", setting->max);
        break;
    case SETTING_ENUM:
    case SETTING_INT_OR_NAME:
        setting_format_names(setting, names);
        fprintf(file, "%s", names);
        break;
    case SETTING_STRING:
        fprintf(file, "text");
        break;
    case SETTING_LIST:
        fprintf(file, "list");
        break;
    case SETTING_PATH:
        fprintf(file, "path");
        break;
    }
}

static const char *const entry_limits[] = {
    [ENTRY_STRING] = "text",
    [ENTRY_USER] = "user name",
    [ENTRY_PORT] = "1 to 65535",
    [ENTRY_SIZE] = "number, negative: not set",
    [ENTRY_LIMIT] = "number, 0: not set",
    [ENTRY_SECONDS] = "whole seconds, 0: not set",
    [ENTRY_SECONDS_OR_NEVER] = "whole seconds, negative: not set",
    [ENTRY_POOL_MODE] = "session, transaction, statement",
    [ENTRY_LOAD_BALANCE_HOSTS] = "disable, round-robin",
    [ENTRY_SERVER_SHARING] = "as the setting server_sharing",
};

static const struct entries {
    const char *section;
    const struct entry_option *options;
} entries[] = {
    {"databases", database_options},
    {"users", user_options},
    {"peers", peer_options},
};

/* ---- conf/SETTINGS.md ---- */

static void setting_markdown(const struct setting *setting, FILE *file)
{
    fprintf(file, "| %s | ", setting->name);
    print_limits(setting, file);
    if (setting->default_text == NULL)
        fprintf(file, " | (unset)");
    else if (*setting->default_text == '\0')
        fprintf(file, " | (empty)");
    else
        fprintf(file, " | `%s`", setting->default_text);
    fprintf(file, " | %s | %s", setting->on_reload ? "reload" : "restart", setting->meaning);
    if (setting->unused_reason != NULL)
        fprintf(file, " **%s:** %s.", setting->judge != NULL ? "Note" : "No effect",
                setting->unused_reason);
    fprintf(file, " |\n");
}

void manual_print_markdown(FILE *file)
{
    const char *section = "";

    fprintf(file,
            "# Settings\n\nPrinted from the tables in src/config (`make reference`); not to be "
            "edited by hand.\n");
    for (size_t index = 0; index < settings_count; index++) {
        if (strcmp(section, settings_table[index].section) != 0) {
            section = settings_table[index].section;
            fprintf(file, "\n## [%s]\n\n", section);
            fprintf(file, "| setting | value | default | applies | what it does |\n");
            fprintf(file, "| --- | --- | --- | --- | --- |\n");
        }
        setting_markdown(&settings_table[index], file);
    }
    for (size_t index = 0; index < COUNT_OF(entries); index++) {
        fprintf(file, "\n## Entries of [%s]\n\n", entries[index].section);
        fprintf(file, "| key | value | what it does |\n| --- | --- | --- |\n");
        for (const struct entry_option *option = entries[index].options; option->key != NULL;
             option++) {
            fprintf(file, "| %s | %s | %s", option->key, entry_limits[option->kind],
                    option->meaning);
            if (option->unused_reason != NULL)
                fprintf(file, " **No effect:** %s.", option->unused_reason);
            fprintf(file, " |\n");
        }
    }
}

/* ---- pgsplice.ini(5) ---- */

/* Text of the tables in mdoc: each sentence on a line of its own, `code` without its marks. */
static void print_mdoc_text(const char *text, FILE *file)
{
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            fputs("\\e", file);
        else if (text[0] == '.' && text[1] == ' ')
            fputs(".\n", file), text++;
        else if (*text != '`')
            fputc(*text, file);
    }
}

static void print_note(const char *note, FILE *file)
{
    fprintf(file, "\n.Pp\nNote: ");
    print_mdoc_text(note, file);
    fputc('.', file);
}

static void setting_mdoc(const struct setting *setting, FILE *file)
{
    fprintf(file, ".It Ic %s\n", setting->name);
    print_mdoc_text(setting->meaning, file);
    fprintf(file, "\n.br\nValue: ");
    print_limits(setting, file);
    if (setting->default_text == NULL) {
        fprintf(file, "; not set");
    } else if (*setting->default_text == '\0') {
        fprintf(file, "; empty");
    } else {
        fprintf(file, "; default ");
        print_mdoc_text(setting->default_text, file);
    }
    fprintf(file, setting->on_reload ? "; on reload." : "; at start only.");
    if (setting->unused_reason != NULL)
        print_note(setting->unused_reason, file);
    fputc('\n', file);
}

void manual_print_mdoc(FILE *file)
{
    const char *section = "";

    for (size_t index = 0; index < settings_count; index++) {
        if (strcmp(section, settings_table[index].section) != 0) {
            if (*section != '\0')
                fprintf(file, ".El\n");
            section = settings_table[index].section;
            fprintf(file, ".Sh SETTINGS OF [%s]\n.Bl -tag -width Ds\n", section);
        }
        setting_mdoc(&settings_table[index], file);
    }
    fprintf(file, ".El\n");
    for (size_t index = 0; index < COUNT_OF(entries); index++) {
        fprintf(file, ".Sh ENTRIES OF [%s]\n.Bl -tag -width Ds\n", entries[index].section);
        for (const struct entry_option *option = entries[index].options; option->key != NULL;
             option++) {
            fprintf(file, ".It Ic %s\n", option->key);
            print_mdoc_text(option->meaning, file);
            fprintf(file, "\n.br\nValue: %s.", entry_limits[option->kind]);
            if (option->unused_reason != NULL)
                print_note(option->unused_reason, file);
            fputc('\n', file);
        }
        fprintf(file, ".El\n");
    }
}
