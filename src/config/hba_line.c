#include "config/hba_line.h"

#include <string.h>

static bool is_blank(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static bool is_plain(char byte)
{
    return !is_blank(byte) && byte != '"' && byte != ',' && byte != '#' && byte != '\0';
}

void hba_lines_init(struct hba_lines *lines, char *text, size_t bytes)
{
    *lines = (struct hba_lines){.at = text, .end = text + bytes};
}

bool hba_lines_next(struct hba_lines *lines, struct hba_line *line)
{
    char *newline;

    if (lines->at == lines->end)
        return false;
    newline = memchr(lines->at, '\n', (size_t)(lines->end - lines->at));
    line->at = lines->at;
    line->end = newline != NULL ? newline : lines->end;
    lines->at = newline != NULL ? newline + 1 : lines->end;
    lines->line++;
    return true;
}

static void skip_blanks(struct hba_line *line)
{
    while (line->at < line->end && is_blank(*line->at))
        line->at++;
}

static struct hba_word quoted_word(struct hba_line *line)
{
    struct hba_word word = {.kind = HBA_WORD_BROKEN, .text = line->at + 1};
    char *from = line->at + 1, *to = from;

    line->at = line->end;
    for (; from < line->end && *from != '\0'; *to++ = *from++) {
        if (*from != '"')
            continue;
        if (from + 1 == line->end || from[1] != '"') {
            word.kind = HBA_WORD_QUOTED;
            word.bytes = (size_t)(to - word.text);
            line->at = from + 1;
            break;
        }
        from++;
    }
    return word;
}

struct hba_word hba_line_next(struct hba_line *line)
{
    struct hba_word word = {.kind = HBA_WORD_END};

    skip_blanks(line);
    if (line->at == line->end || *line->at == '#') {
        line->at = line->end;
        return word;
    }
    if (*line->at == '"')
        return quoted_word(line);
    word.text = line->at;
    if (*line->at == ',') {
        word.kind = HBA_WORD_COMMA;
        line->at++;
        return word;
    }
    while (line->at < line->end && is_plain(*line->at))
        line->at++;
    word.bytes = (size_t)(line->at - word.text);
    word.kind = word.bytes > 0 ? HBA_WORD_PLAIN : HBA_WORD_BROKEN;
    if (word.kind == HBA_WORD_BROKEN)
        line->at = line->end;
    return word;
}

bool hba_line_skip_comma(struct hba_line *line)
{
    skip_blanks(line);
    if (line->at == line->end || *line->at != ',')
        return false;
    line->at++;
    return true;
}

struct hba_word hba_line_rest(struct hba_line *line)
{
    struct hba_word word = {.kind = HBA_WORD_PLAIN};

    skip_blanks(line);
    word.text = line->at;
    while (line->end > line->at && is_blank(line->end[-1]))
        line->end--;
    word.bytes = (size_t)(line->end - line->at);
    line->at = line->end;
    if (memchr(word.text, '\0', word.bytes) != NULL)
        word.kind = HBA_WORD_BROKEN;
    return word;
}

bool hba_word_is(const struct hba_word *word, const char *keyword)
{
    return word->kind == HBA_WORD_PLAIN && word->bytes == strlen(keyword) &&
           memcmp(word->text, keyword, word->bytes) == 0;
}
