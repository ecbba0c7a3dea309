/* fuzz_data_row.c - a server's row from foreign bytes: first the room for a value, then the body. */
#include "wire/data_row.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint8_t *body;
    char *text;
    size_t room;
    unsigned columns;
    struct reader reader;

    if (bytes == 0)
        return 0;
    room = (size_t)data[0] + 1;
    /* Allocations of their own, so that the address sanitizer sees each step beyond an end. */
    body = malloc(bytes);
    text = malloc(room);
    if (body != NULL && text != NULL) {
        memcpy(body, data + 1, bytes - 1);
        body = realloc(body, bytes - 1 > 0 ? bytes - 1 : 1);
        columns = row_description_columns(body, bytes - 1);
        if (data_row_begin(&reader, body, bytes - 1, columns)) {
            size_t left = reader_left(&reader);

            for (unsigned i = 0; i < columns; i++) {
                enum data_value value = data_row_next(&reader, text, room);

                assert(strlen(text) < room);
                if (value != DATA_TEXT)
                    assert(text[0] == '\0');
                if (value == DATA_BAD)
                    break;
                assert(reader_left(&reader) + 4 + strlen(text) == left);
                left = reader_left(&reader);
            }
        }
        (void)data_row_is_over(&reader);
    }
    free(body);
    free(text);
    return 0;
}
