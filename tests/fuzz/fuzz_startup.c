/* What a client sends before it has logged in (wire/startup.h), and frames in arbitrary pieces (wire/frame.h). */
#include "wire/frame.h"
#include "wire/message.h"
#include "wire/startup.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool each(void *context, const char *name, const char *value)
{
    *(size_t *)context += strlen(name) + strlen(value) + startup_replication(value);
    return true;
}

/* Any cut of the stream gives the same messages. */
static void frames(const uint8_t *data, size_t size, size_t piece, uint64_t *hash)
{
    struct frame frame = {0};
    size_t position = 0;

    *hash = 0;
    while (position < size) {
        size_t end = MIN(size, position + piece);

        while (position < end) {
            size_t count = MIN((size_t)frame.body_left, end - position);

            if (count > 0) {
                frame.body_left -= (uint32_t)count;
                position += count;
                continue;
            }
            switch (frame_read(&frame, data + position, end - position, 1 << 20, &count)) {
            case FRAME_OK:
                *hash = *hash * 31 + frame.type + frame.body_left;
                break;
            case FRAME_NEED_MORE:
                break;
            case FRAME_BAD:
                *hash = *hash * 31 + 1;
                return;
            }
            position += count;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct startup_packet packet;
    struct error_fields fields;
    size_t sum = 0;
    bool bad;
    uint64_t whole, pieces;
    /* A copy of exactly this size, so that a byte too far is seen. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    char *text = malloc(size + 1);
    char scratch[64];

    memcpy(copy, data, size);
    memcpy(text, data, size);
    text[size] = '\0';
    if (startup_read(copy, size, &packet) == STARTUP_VERSION_3)
        (void)!startup_parameters(&packet, each, &sum, &bad);
    (void)!startup_options(text, scratch, sizeof(scratch), each, &sum, &bad);
    (void)!error_fields_read(copy, size, &fields);
    frames(copy, size, size > 0 ? size : 1, &whole);
    for (size_t piece = 1; piece < 8; piece++) {
        frames(copy, size, piece, &pieces);
        assert(pieces == whole);
    }
    free(copy);
    free(text);
    return 0;
}
