/* bytes.h - network byte order, and a writer and a reader that cannot leave their bounds.
 *
 * Pure: any thread. Bytes belong to the caller. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include "base/assert.h"

#include <string.h>

static inline uint16_t bytes_get_u16(const uint8_t *data)
{
    return (uint16_t)((unsigned)data[0] << 8 | data[1]);
}

static inline uint32_t bytes_get_u32(const uint8_t *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof(value));
    return __builtin_bswap32(value);
}

static inline void bytes_put_u16(uint8_t *data, uint16_t value)
{
    data[0] = (uint8_t)(value >> 8);
    data[1] = (uint8_t)value;
}

static inline void bytes_put_u32(uint8_t *data, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(data, &value, sizeof(value));
}

/* Writes into a caller's array. What does not fit is dropped and `overflow` stays set:
 * check once, at the end. */
struct writer {
    uint8_t *data;
    size_t bytes;     /* written so far */
    size_t bytes_max; /* room */
    bool overflow;
};

static inline void writer_init(struct writer *writer, void *data, size_t bytes_max)
{
    *writer = (struct writer){.data = data, .bytes_max = bytes_max};
}

static inline void writer_put(struct writer *writer, const void *data, size_t bytes)
{
    if (writer->overflow || bytes > writer->bytes_max - writer->bytes) {
        writer->overflow = true;
        return;
    }
    if (bytes > 0)
        memcpy(writer->data + writer->bytes, data, bytes);
    writer->bytes += bytes;
}

static inline void writer_put_u8(struct writer *writer, uint8_t value)
{
    writer_put(writer, &value, 1);
}

static inline void writer_put_u16(struct writer *writer, uint16_t value)
{
    uint8_t data[2];

    bytes_put_u16(data, value);
    writer_put(writer, data, sizeof(data));
}

static inline void writer_put_u32(struct writer *writer, uint32_t value)
{
    uint8_t data[4];

    bytes_put_u32(data, value);
    writer_put(writer, data, sizeof(data));
}

/* With the closing zero. */
static inline void writer_put_string(struct writer *writer, const char *text)
{
    writer_put(writer, text, strlen(text) + 1);
}

/* Reads from a caller's array. What is not there reads as zero, empty or NULL and `bad` stays set.
 */
struct reader {
    const uint8_t *data;
    size_t bytes;
    size_t position;
    bool bad;
};

static inline void reader_init(struct reader *reader, const void *data, size_t bytes)
{
    *reader = (struct reader){.data = data, .bytes = bytes};
}

static inline size_t reader_left(const struct reader *reader)
{
    return reader->bytes - reader->position;
}

static inline const uint8_t *reader_get(struct reader *reader, size_t bytes)
{
    const uint8_t *data = reader->data + reader->position;

    if (reader->bad || bytes > reader_left(reader)) {
        reader->bad = true;
        return NULL;
    }
    reader->position += bytes;
    return data;
}

static inline uint8_t reader_get_u8(struct reader *reader)
{
    const uint8_t *data = reader_get(reader, 1);

    return data == NULL ? 0 : *data;
}

static inline uint16_t reader_get_u16(struct reader *reader)
{
    const uint8_t *data = reader_get(reader, 2);

    return data == NULL ? 0 : bytes_get_u16(data);
}

static inline uint32_t reader_get_u32(struct reader *reader)
{
    const uint8_t *data = reader_get(reader, 4);

    return data == NULL ? 0 : bytes_get_u32(data);
}

/* A zero-terminated string inside the bounds, or NULL. */
static inline const char *reader_get_string(struct reader *reader)
{
    const uint8_t *start = reader->data + reader->position;
    const uint8_t *end;

    if (reader->bad || reader_left(reader) == 0 ||
        (end = memchr(start, 0, reader_left(reader))) == NULL) {
        reader->bad = true;
        return NULL;
    }
    reader->position += (size_t)(end - start) + 1;
    return (const char *)start;
}

#endif
