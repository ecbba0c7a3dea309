/* fuzz_console.c - what a console session sends: its grammar (control/console_command.h) and the messages of the
 * extended protocol (control/console_message.h). */
#include "base/bytes.h"
#include "control/console_command.h"
#include "control/console_message.h"
#include "control/show.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static size_t quote(char *to, const char *text, char mark)
{
    size_t count = 0;

    to[count++] = mark;
    for (; *text != '\0'; text++) {
        if (*text == mark)
            to[count++] = mark;
        to[count++] = *text;
    }
    to[count++] = mark;
    to[count] = '\0';
    return count;
}

/* What was read is read again when it is written in another way. */
static void check_again(const struct console_command *command)
{
    struct console_command again;
    char text[1024];
    size_t count = 0;

    for (const char *byte = command->word; *byte != '\0'; byte++)
        text[count++] = *byte >= 'A' && *byte <= 'Z' ? (char)(*byte - 'A' + 'a') : *byte;
    text[count] = '\0';
    if (command->has_argument) {
        text[count++] = '\n';
        count += quote(text + count, command->argument, '"');
    }
    if (strcmp(command->word, "SET") == 0 && command->has_argument) {
        memcpy(text + count, "\tto\r", 4);
        count += 4 + quote(text + count + 4, command->value, '\'');
    }
    strcpy(text + count, " ; ");
    assert(console_command_parse(text, &again) == CONSOLE_OK);
    assert(memcmp(&again, command, sizeof(again)) == 0);
}

/* Any name can be said. */
static void check_name(const uint8_t *data, size_t bytes)
{
    struct console_command command = {.word = "SET", .has_argument = true};

    for (size_t i = 0, to = 0; i < bytes && to < sizeof(command.argument) - 1; i++)
        if (data[i] != 0)
            command.argument[to++] = (char)data[i];
    if (command.argument[0] == '\0')
        return;
    strcpy(command.value, command.argument);
    check_again(&command);
}

static void check_command(const uint8_t *data, size_t bytes)
{
    struct console_command command;
    /* A copy of exactly this size, so that a byte too far is seen. */
    char *text = malloc(bytes + 1);

    assert(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    if (console_command_parse(text, &command) == CONSOLE_OK) {
        assert(command.word[0] != '\0');
        assert(strlen(command.word) < sizeof(command.word));
        assert(strlen(command.argument) < sizeof(command.argument));
        assert(strlen(command.value) < sizeof(command.value));
        assert(command.has_argument == (command.argument[0] != '\0'));
        check_again(&command);
        if (show_find(command.argument) != NULL) {
            struct output output = {0};

            show_row_description(&output, show_find(command.argument));
            assert(output.data[0] == 'T');
            assert(bytes_get_u32(output.data + 1) == output.bytes - 1);
            output_release(&output);
        }
    }
    free(text);
}

static void check_inside(const char *text, const uint8_t *body, size_t bytes)
{
    if (text == NULL)
        return;
    assert((const uint8_t *)text >= body);
    assert((const uint8_t *)text + strlen(text) < body + bytes);
}

/* A message that is whole is not whole with a byte less, or one more. */
static void check_message(uint8_t type, const uint8_t *data, size_t bytes)
{
    struct console_message message, other;
    uint8_t *body = malloc(bytes + 1);

    assert(body != NULL);
    if (bytes > 0)
        memcpy(body, data, bytes);
    body[bytes] = 0;
    if (console_message_read(type, body, bytes, &message)) {
        assert(message.name != NULL);
        assert((message.source != NULL) == (type == 'P' || type == 'B'));
        assert(message.format_count > 0 || message.binary_columns == 0);
        assert(message.row_limit <= INT32_MAX);
        check_inside(message.name, body, bytes);
        check_inside(message.source, body, bytes);
        assert(!console_message_read(type, body, bytes - 1, &other));
        assert(!console_message_read(type, body, bytes + 1, &other));
    }
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    if (data[0] == 'Q')
        check_command(data + 1, bytes - 1);
    else if (data[0] == 'N')
        check_name(data + 1, bytes - 1);
    else
        check_message(data[0], data + 1, bytes - 1);
    return 0;
}
