/* console_command.h - the console's grammar: one command in one Query message.
 *
 * WORD [WORD] [;], or SET WORD = VALUE, or SET WORD TO VALUE; white space around, keywords in any
 * case. A word is letters, digits and _, or anything between double quotes ("" is one quote). Pure:
 * any thread. */
#ifndef CONTROL_CONSOLE_COMMAND_H
#define CONTROL_CONSOLE_COMMAND_H

#include "base/base.h"

enum console_result { CONSOLE_OK, CONSOLE_INVALID, CONSOLE_BAD_ARGUMENTS };

struct console_command {
    char word[16];     /* upper case */
    char argument[64]; /* as written; "" when there is none */
    char value[256];   /* of SET */
    bool has_argument;
};

/* `text` is zero-terminated. */
enum console_result console_command_parse(const char *text, struct console_command *command);

#endif
