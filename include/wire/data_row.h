/* data_row.h - reads the bodies of RowDescription and DataRow (protocol: "Message Formats") as far as the
 * pooler needs them for its own questions: how many columns, and values in text format as C strings.
 *
 * Pure. Nothing beyond `bytes` is looked at, whatever the body says. */
#ifndef WIRE_DATA_ROW_H
#define WIRE_DATA_ROW_H

#include "base/bytes.h"

/* Of a RowDescription; 0 also if there is no number. */
unsigned row_description_columns(const uint8_t *body, size_t bytes);

/* The body of a DataRow. False: it does not have this number of values. */
must_check bool data_row_begin(struct reader *reader, const uint8_t *body, size_t bytes,
                               unsigned columns);

enum data_value {
    DATA_NULL,
    DATA_TEXT,
    DATA_BAD, /* not there, no room for it with its zero, or a zero inside */
};

/* The next value, with a closing zero; NULL is an empty text. */
must_check enum data_value data_row_next(struct reader *reader, char *text, size_t text_bytes_max);

/* All of it has been read, and nothing was missing. */
static inline bool data_row_is_over(const struct reader *reader)
{
    return !reader->bad && reader_left(reader) == 0;
}

#endif
