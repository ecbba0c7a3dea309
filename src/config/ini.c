#include "config/ini.h"

#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Debian's build of inih calls its handler with the line number, other builds do not. A handler
 * that takes the argument and never looks at it serves both. */
#define INI_HANDLER_LINENO 1
#include <ini.h>

/* inih pulls lines from next_line, which reads the real grammar, keeps what it found in `item`, and
 * hands inih one line that no build and no option of it can misread; take_item then passes the item
 * on. */
static const char harmless_line[] = "k=0\n";

struct ini_file {
    char *at;
    struct config_place place;
};

struct ini_reader {
    const struct ini_input *input;
    struct ini_file files[INI_INCLUDE_DEPTH_MAX + 1]; /* the innermost is the last */
    size_t file_count;
    size_t include_count;
    struct ini_item item;
};

enum lex_result { LEX_ITEM, LEX_INCLUDE, LEX_END, LEX_BROKEN };

/* Of the C locale: what the process's locale thinks must not change how a file reads. */
static bool is_space(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

static bool is_key_byte(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '_' || byte == '.' || byte == '-' || byte == '*';
}

static void skip_blanks(struct ini_file *file)
{
    while (is_blank(*file->at))
        file->at++;
}

/* The rest of the line without white space at its end; moves to the next line. */
static char *take_value(struct ini_file *file)
{
    char *start = file->at;
    char *end = start + strcspn(start, "\n");

    if (*end == '\n') {
        file->at = end + 1;
        file->place.line++;
    } else {
        file->at = end;
    }
    while (end > start && is_space(end[-1]))
        end--;
    *end = '\0';
    return start;
}

static enum lex_result lex_section(struct ini_file *file, struct ini_item *item)
{
    char *end = file->at + 1 + strcspn(file->at + 1, "]\n");

    if (*end != ']')
        return LEX_BROKEN;
    *end = '\0';
    item->kind = INI_SECTION;
    item->name = file->at + 1;
    item->value = NULL;
    file->at = end + 1;
    return LEX_ITEM;
}

static enum lex_result lex_entry(struct ini_file *file, struct ini_item *item)
{
    char *key = file->at;
    char *key_end;

    if (*key == '\'') {
        key++;
        key_end = key + strcspn(key, "'\n");
        if (*key_end != '\'' || key_end == key)
            return LEX_BROKEN;
        file->at = key_end + 1;
    } else {
        for (key_end = key; is_key_byte(*key_end); key_end++)
            ;
        file->at = key_end;
    }
    skip_blanks(file);
    if (*file->at != '=')
        return LEX_BROKEN;
    file->at++;
    *key_end = '\0';
    skip_blanks(file);
    item->kind = INI_ENTRY;
    item->name = key;
    item->value = take_value(file);
    return LEX_ITEM;
}

/* Finds the next item, or the name of a file to include in item->value. */
static enum lex_result lex(struct ini_file *file, struct ini_item *item)
{
    for (;;) {
        while (is_space(*file->at)) {
            file->place.line += *file->at == '\n';
            file->at++;
        }
        if (*file->at != ';' && *file->at != '#')
            break;
        file->at += strcspn(file->at, "\n");
    }
    item->place = file->place;
    if (*file->at == '\0')
        return LEX_END;
    if (*file->at == '[')
        return lex_section(file, item);
    if (strncmp(file->at, "%include", 8) == 0 && is_blank(file->at[8])) {
        file->at += 8;
        skip_blanks(file);
        item->value = take_value(file);
        return LEX_INCLUDE;
    }
    return lex_entry(file, item);
}

static void open_file(struct ini_reader *reader, const char *path, const struct config_place *place)
{
    const struct ini_input *input = reader->input;
    struct ini_file *file;
    size_t bytes;
    char *data;

    if (reader->file_count == COUNT_OF(reader->files) ||
        reader->include_count == INI_INCLUDE_COUNT_MAX) {
        config_mistake(input->report, place, "%%include goes %s (at most %d)",
                       reader->file_count == COUNT_OF(reader->files) ? "too deep"
                                                                     : "over too many files",
                       reader->file_count == COUNT_OF(reader->files) ? INI_INCLUDE_DEPTH_MAX
                                                                     : INI_INCLUDE_COUNT_MAX);
        /* Files that include each other would come here again and again. */
        reader->file_count = 0;
        return;
    }
    data = input->open(input->open_context, path, input->arena, &bytes);
    if (data == NULL) {
        config_mistake(input->report, place, "could not read file \"%.500s\": %s", path,
                       strerror(errno));
        return;
    }
    assert(data[bytes] == '\0');
    reader->include_count++;
    file = &reader->files[reader->file_count++];
    file->at = data;
    file->place.file = arena_copy_string(input->arena, path);
    file->place.line = 1;
}

static char *next_line(char *line, int bytes, void *stream)
{
    struct ini_reader *reader = stream;
    struct ini_file *file;

    while (reader->file_count > 0) {
        file = &reader->files[reader->file_count - 1];
        switch (lex(file, &reader->item)) {
        case LEX_ITEM:
            assert((size_t)bytes >= sizeof(harmless_line));
            memcpy(line, harmless_line, sizeof(harmless_line));
            return line;
        case LEX_INCLUDE:
            open_file(reader, reader->item.value, &reader->item.place);
            break;
        case LEX_BROKEN:
            config_mistake(
                reader->input->report, &reader->item.place,
                strncmp(file->at, "\xef\xbb\xbf", 3) == 0
                    ? "syntax error: a byte order mark (the rest of the file is not read)"
                    : "syntax error (the rest of the file is not read)");
            reader->file_count--;
            break;
        case LEX_END:
            reader->file_count--;
            break;
        }
    }
    return NULL;
}

static int take_item(void *user, const char *section, const char *name, const char *value, int line)
{
    struct ini_reader *reader = user;

    (void)section, (void)name, (void)value, (void)line;
    reader->input->handler(reader->input->handler_context, &reader->item);
    return 1;
}

void ini_read(const struct ini_input *input, const char *path)
{
    struct ini_reader reader = {.input = input};
    int result;

    open_file(&reader, path, NULL);
    result = ini_parse_stream(next_line, &reader, take_item, &reader);
    if (result != 0)
        config_mistake(input->report, NULL, "reading \"%.500s\" failed inside libinih (%d)", path,
                       result);
}
