#include "control/console_command.h"

#include <string.h>

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static bool is_word(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '_';
}

static char upper(char byte)
{
    return byte >= 'a' && byte <= 'z' ? (char)(byte - 'a' + 'A') : byte;
}

static const char *skip_blanks(const char *text)
{
    while (is_blank(*text))
        text++;
    return text;
}

/* Reads a word, or what stands between `quote`s; NULL: neither. */
static const char *read_word(const char *text, char quote, char *out, size_t out_bytes,
                             bool *too_long)
{
    size_t count = 0;

    if (quote != '\0' && *text == quote) {
        text++;
        for (;;) {
            if (*text == '\0')
                return NULL;
            if (*text == quote) {
                if (text[1] != quote)
                    break;
                text++;
            }
            if (count + 1 >= out_bytes)
                *too_long = true;
            else
                out[count++] = *text;
            text++;
        }
        text++;
    } else {
        if (!is_word(*text))
            return NULL;
        for (; is_word(*text); text++) {
            if (count + 1 >= out_bytes)
                *too_long = true;
            else
                out[count++] = *text;
        }
    }
    out[count] = '\0';
    if (count == 0)
        *too_long = true; /* an empty word is as bad */
    return text;
}

static bool is_end(const char *text)
{
    text = skip_blanks(text);
    if (*text == ';')
        text = skip_blanks(text + 1);
    return *text == '\0';
}

enum console_result console_command_parse(const char *text, struct console_command *command)
{
    bool too_long = false;

    *command = (struct console_command){0};
    text = read_word(skip_blanks(text), '\0', command->word, sizeof(command->word), &too_long);
    if (text == NULL)
        return CONSOLE_INVALID;
    for (char *byte = command->word; *byte != '\0'; byte++)
        *byte = upper(*byte);
    if (is_end(text))
        return too_long ? CONSOLE_BAD_ARGUMENTS : CONSOLE_OK;
    text =
        read_word(skip_blanks(text), '"', command->argument, sizeof(command->argument), &too_long);
    if (text == NULL)
        return CONSOLE_INVALID;
    command->has_argument = true;
    if (strcmp(command->word, "SET") == 0) {
        text = skip_blanks(text);
        if (*text == '=')
            text++;
        else if (upper(text[0]) == 'T' && upper(text[1]) == 'O' && is_blank(text[2]))
            text += 2;
        else
            return CONSOLE_INVALID;
        text = skip_blanks(text);
        if (text[0] == '\'' && text[1] == '\'' && text[2] != '\'')
            text += 2; /* an empty value is a value */
        else if ((text = read_word(text, '\'', command->value, sizeof(command->value),
                                   &too_long)) == NULL)
            return CONSOLE_INVALID;
    }
    if (!is_end(text))
        return CONSOLE_INVALID;
    return too_long ? CONSOLE_BAD_ARGUMENTS : CONSOLE_OK;
}
