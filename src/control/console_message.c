#include "control/console_message.h"

#include "base/bytes.h"

static void read_parse(struct reader *reader, struct console_message *message)
{
    unsigned type_count;

    message->name = reader_get_string(reader);
    message->source = reader_get_string(reader);
    type_count = reader_get_u16(reader);
    (void)reader_get(reader, type_count * sizeof(uint32_t));
}

/* Returns the format; one that nobody knows is kept. */
static unsigned read_format(struct reader *reader, struct console_message *message)
{
    unsigned format = reader_get_u16(reader);

    if (format > 1 && message->bad_format == 0)
        message->bad_format = (int)format;
    return format;
}

static void read_bind(struct reader *reader, struct console_message *message)
{
    unsigned count;

    message->name = reader_get_string(reader);
    message->source = reader_get_string(reader);
    count = reader_get_u16(reader);
    for (unsigned i = 0; i < count && !reader->bad; i++)
        (void)read_format(reader, message);
    message->parameter_count = reader_get_u16(reader);
    for (unsigned i = 0; i < message->parameter_count && !reader->bad; i++) {
        uint32_t bytes = reader_get_u32(reader);

        if (bytes != UINT32_MAX) /* a null */
            (void)reader_get(reader, bytes);
    }
    message->format_count = reader_get_u16(reader);
    for (unsigned i = 0; i < message->format_count && !reader->bad; i++)
        if (read_format(reader, message) == 1 && i < 64)
            message->binary_columns |= UINT64_C(1) << i;
}

bool console_message_read(uint8_t type, const uint8_t *body, size_t bytes,
                          struct console_message *message)
{
    struct reader reader;
    uint8_t what;

    *message = (struct console_message){0};
    reader_init(&reader, body, bytes);
    switch (type) {
    case 'P':
        read_parse(&reader, message);
        break;
    case 'B':
        read_bind(&reader, message);
        break;
    case 'D':
    case 'C':
        what = reader_get_u8(&reader);
        if (what != 'P' && what != 'S')
            return false;
        message->is_portal = what == 'P';
        message->name = reader_get_string(&reader);
        break;
    case 'E':
        message->name = reader_get_string(&reader);
        message->row_limit = reader_get_u32(&reader);
        if (message->row_limit > INT32_MAX)
            message->row_limit = 0; /* as PostgreSQL reads it */
        break;
    default:
        return false;
    }
    return !reader.bad && reader_left(&reader) == 0;
}
