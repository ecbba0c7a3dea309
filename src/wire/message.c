#include "wire/message.h"

static const char *const severity_names[] = {"FATAL", "ERROR", "NOTICE"};

size_t message_begin(struct writer *writer, uint8_t type)
{
    size_t begin;

    if (type != 0)
        writer_put_u8(writer, type);
    begin = writer->bytes;
    writer_put_u32(writer, 0);
    return begin;
}

void message_end(struct writer *writer, size_t begin)
{
    if (!writer->overflow)
        bytes_put_u32(writer->data + begin, (uint32_t)(writer->bytes - begin));
}

void message_authentication(struct writer *writer, uint32_t code, const void *data, size_t bytes)
{
    size_t begin = message_begin(writer, 'R');

    writer_put_u32(writer, code);
    writer_put(writer, data, bytes);
    message_end(writer, begin);
}

void message_parameter_status(struct writer *writer, const char *name, const char *value)
{
    size_t begin = message_begin(writer, 'S');

    writer_put_string(writer, name);
    writer_put_string(writer, value);
    message_end(writer, begin);
}

void message_backend_key_data(struct writer *writer, const uint8_t key[8])
{
    size_t begin = message_begin(writer, 'K');

    writer_put(writer, key, 8);
    message_end(writer, begin);
}

void message_ready_for_query(struct writer *writer, uint8_t status)
{
    size_t begin = message_begin(writer, 'Z');

    writer_put_u8(writer, status);
    message_end(writer, begin);
}

static void put_field(struct writer *writer, uint8_t code, const char *value)
{
    if (value == NULL)
        return;
    writer_put_u8(writer, code);
    writer_put_string(writer, value);
}

void message_error(struct writer *writer, const struct pg_error *error)
{
    size_t begin = message_begin(writer, error->severity == SEVERITY_NOTICE ? 'N' : 'E');
    const char *sqlstate = error->severity == SEVERITY_NOTICE ? "00000" : "08P01";

    put_field(writer, 'S', severity_names[error->severity]);
    if (error->routine != NULL)
        put_field(writer, 'V', severity_names[error->severity]);
    put_field(writer, 'C', error->sqlstate != NULL ? error->sqlstate : sqlstate);
    put_field(writer, 'M', error->message);
    put_field(writer, 'D', error->detail);
    put_field(writer, 'H', error->hint);
    put_field(writer, 'R', error->routine);
    writer_put_u8(writer, 0);
    message_end(writer, begin);
}

void message_query(struct writer *writer, const char *text)
{
    size_t begin = message_begin(writer, 'Q');

    writer_put_string(writer, text);
    message_end(writer, begin);
}

void message_password(struct writer *writer, const void *data, size_t bytes)
{
    size_t begin = message_begin(writer, 'p');

    writer_put(writer, data, bytes);
    message_end(writer, begin);
}

void message_command_complete(struct writer *writer, const char *tag)
{
    size_t begin = message_begin(writer, 'C');

    writer_put_string(writer, tag);
    message_end(writer, begin);
}

void message_cancel_request(struct writer *writer, const uint8_t key[8])
{
    size_t begin = message_begin(writer, 0);

    writer_put_u32(writer, 80877102);
    writer_put(writer, key, 8);
    message_end(writer, begin);
}

bool error_fields_read(const uint8_t *body, size_t bytes, struct error_fields *fields)
{
    struct reader reader;

    *fields = (struct error_fields){"", NULL, "", "", ""};
    reader_init(&reader, body, bytes);
    for (;;) {
        uint8_t code = reader_get_u8(&reader);
        const char *value;

        if (reader.bad)
            return false;
        if (code == 0) {
            if (fields->fixed_severity == NULL)
                fields->fixed_severity = fields->severity;
            return true;
        }
        value = reader_get_string(&reader);
        if (value == NULL)
            return false;
        if (code == 'S')
            fields->severity = value;
        else if (code == 'V')
            fields->fixed_severity = value;
        else if (code == 'C')
            fields->sqlstate = value;
        else if (code == 'M')
            fields->message = value;
        else if (code == 'R')
            fields->routine = value;
    }
}
