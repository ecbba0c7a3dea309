#include "wire/data_row.h"

unsigned row_description_columns(const uint8_t *body, size_t bytes)
{
    return bytes >= 2 ? bytes_get_u16(body) : 0;
}

bool data_row_begin(struct reader *reader, const uint8_t *body, size_t bytes, unsigned columns)
{
    reader_init(reader, body, bytes);
    return reader_get_u16(reader) == columns && !reader->bad;
}

enum data_value data_row_next(struct reader *reader, char *text, size_t text_bytes_max)
{
    uint32_t bytes = reader_get_u32(reader);
    const uint8_t *data;

    assert(text_bytes_max > 0);
    text[0] = '\0';
    if (reader->bad)
        return DATA_BAD;
    if (bytes == UINT32_MAX)
        return DATA_NULL;
    data = reader_get(reader, bytes);
    if (data == NULL || bytes >= text_bytes_max || memchr(data, '\0', bytes) != NULL)
        return DATA_BAD;
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    return DATA_TEXT;
}
