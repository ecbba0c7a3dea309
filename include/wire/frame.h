/* frame.h - cuts a byte stream into PostgreSQL messages without copying (protocol: "Message
 * Formats").
 *
 * A message is a type byte, a length word that counts itself but not the type, and a body. The
 * scanner walks a stream that arrives in pieces of any size. It holds back the bytes of a header
 * that is not complete, at most four; everything else stays where it was received.
 *
 * Pure: no allocation, no I/O, any thread. Bytes belong to the caller. */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include "base/bytes.h"

enum { FRAME_HEADER_BYTES = 5 };

enum frame_result { FRAME_OK, FRAME_NEED_MORE, FRAME_BAD };

struct frame {
    uint32_t body_left; /* of the message whose header was read last */
    uint8_t type;
    uint8_t held_count; /* header bytes held back */
    uint8_t held[FRAME_HEADER_BYTES];
};

/* Reads a header from `data` (with what is held before it) when no body is left to walk over.
 * FRAME_OK: type and body_left are set, *consumed bytes of `data` belonged to the header. The
 * header bytes are at held[0..4] if held_count was above 0 before the call, else at `data`.
 * FRAME_NEED_MORE: all of `data` is held.
 * FRAME_BAD: a length below 4 or a message above `limit_bytes` (type and length word included). */
static inline must_check enum frame_result frame_read(struct frame *frame, const uint8_t *data,
                                                      size_t bytes, uint32_t limit_bytes,
                                                      size_t *consumed)
{
    const uint8_t *header = data;
    uint32_t length;

    assert(frame->body_left == 0);
    if (likely(frame->held_count == 0 && bytes >= FRAME_HEADER_BYTES)) {
        *consumed = FRAME_HEADER_BYTES;
    } else {
        size_t missing = FRAME_HEADER_BYTES - (size_t)frame->held_count;
        size_t count = MIN(bytes, missing);

        memcpy(frame->held + frame->held_count, data, count);
        *consumed = count;
        if (count < missing) {
            frame->held_count = (uint8_t)(frame->held_count + count);
            return FRAME_NEED_MORE;
        }
        frame->held_count = 0;
        header = frame->held;
    }
    length = bytes_get_u32(header + 1);
    frame->type = header[0];
    if (unlikely(length < 4 || length > INT32_MAX || length - 4 > limit_bytes - 5))
        return FRAME_BAD;
    frame->body_left = length - 4;
    return FRAME_OK;
}

#endif
