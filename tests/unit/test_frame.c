#include "unit.h"

#include "wire/frame.h"

enum { LIMIT_BYTES = 1 << 20, STREAM_BYTES_MAX = 4096, MESSAGES_MAX = 64 };

/* Every type that the protocol knows, from both sides. */
static const char types[] = "BCcdDEfFHpPQSXRKkItnNZAGWvVsT123";

struct stream {
    uint8_t data[STREAM_BYTES_MAX];
    size_t bytes;
    uint8_t type[MESSAGES_MAX];
    uint32_t body_bytes[MESSAGES_MAX];
    size_t count;
};

static void stream_add(struct stream *stream, uint8_t type, uint32_t body_bytes)
{
    uint8_t *at = stream->data + stream->bytes;

    at[0] = type;
    bytes_put_u32(at + 1, body_bytes + 4);
    for (uint32_t i = 0; i < body_bytes; i++)
        at[5 + i] = (uint8_t)(stream->count * 31 + i);
    stream->type[stream->count] = type;
    stream->body_bytes[stream->count++] = body_bytes;
    stream->bytes += 5 + body_bytes;
}

struct walk {
    struct frame frame;
    size_t messages;  /* headers read */
    size_t body_seen; /* of the last one */
};

/* As a conn would: one piece of a stream, that ends at an unreadable page. */
static void walk_piece(struct walk *walk, const struct stream *stream, const uint8_t *piece,
                       size_t bytes)
{
    while (bytes > 0) {
        if (walk->frame.body_left == 0) {
            size_t consumed = SIZE_MAX;
            uint8_t held_count = walk->frame.held_count;
            enum frame_result result =
                frame_read(&walk->frame, piece, bytes, LIMIT_BYTES, &consumed);
            const uint8_t *header = held_count > 0 ? walk->frame.held : piece;

            assert_true(consumed <= bytes);
            if (walk->messages > 0)
                assert_int_equal(walk->body_seen, stream->body_bytes[walk->messages - 1]);
            if (result == FRAME_NEED_MORE) {
                assert_int_equal(consumed, bytes);
                assert_in_range(walk->frame.held_count, 1, FRAME_HEADER_BYTES - 1);
                return;
            }
            assert_int_equal(result, FRAME_OK);
            assert_int_equal(consumed, FRAME_HEADER_BYTES - held_count);
            assert_int_equal(walk->frame.held_count, 0);
            assert_int_equal(walk->frame.type, stream->type[walk->messages]);
            assert_int_equal(walk->frame.body_left, stream->body_bytes[walk->messages]);
            if (held_count > 0 || consumed == FRAME_HEADER_BYTES) {
                assert_int_equal(header[0], stream->type[walk->messages]);
                assert_int_equal(bytes_get_u32(header + 1), stream->body_bytes[walk->messages] + 4);
            }
            walk->messages++;
            walk->body_seen = 0;
            piece += consumed;
            bytes -= consumed;
        } else {
            uint32_t count = (uint32_t)MIN(bytes, (size_t)walk->frame.body_left);

            for (uint32_t i = 0; i < count; i++)
                assert_int_equal(piece[i],
                                 (uint8_t)((walk->messages - 1) * 31 + walk->body_seen + i));
            walk->body_seen += count;
            walk->frame.body_left -= count;
            piece += count;
            bytes -= count;
        }
    }
}

static void every_type_survives_every_split_into_three(void **state)
{
    struct edge edge;

    (void)state;
    edge_init(&edge, STREAM_BYTES_MAX);
    for (size_t kind = 0; kind < sizeof(types) - 1; kind++)
        for (uint32_t body = 0; body <= 9; body += 3) {
            struct stream stream = {0};

            stream_add(&stream, (uint8_t)types[kind], body);
            stream_add(&stream, (uint8_t)types[(kind + 7) % (sizeof(types) - 1)], 1);
            for (size_t first = 0; first <= stream.bytes; first++)
                for (size_t second = first; second <= stream.bytes; second++) {
                    struct walk walk = {0};

                    walk_piece(&walk, &stream, edge_copy(&edge, stream.data, first), first);
                    walk_piece(&walk, &stream,
                               edge_copy(&edge, stream.data + first, second - first),
                               second - first);
                    walk_piece(&walk, &stream,
                               edge_copy(&edge, stream.data + second, stream.bytes - second),
                               stream.bytes - second);
                    assert_int_equal(walk.messages, stream.count);
                    assert_int_equal(walk.frame.body_left, 0);
                    assert_int_equal(walk.frame.held_count, 0);
                }
        }
    edge_release(&edge);
}

static void long_streams_survive_random_splits_and_single_bytes(void **state)
{
    struct edge edge;
    uint64_t seed = 11;

    (void)state;
    edge_init(&edge, STREAM_BYTES_MAX);
    for (int run = 0; run < 2000; run++) {
        struct stream stream = {0};
        struct walk walk = {0};
        uint64_t piece_max = 1 + random_below(&seed, run % 3 == 0 ? 1 : 40);

        while (stream.count < 40)
            stream_add(&stream, (uint8_t)types[random_below(&seed, sizeof(types) - 1)],
                       (uint32_t)random_below(&seed, 60));
        for (size_t at = 0; at < stream.bytes;) {
            size_t bytes = 1 + random_below(&seed, piece_max);

            bytes = MIN(bytes, stream.bytes - at);
            walk_piece(&walk, &stream, edge_copy(&edge, stream.data + at, bytes), bytes);
            at += bytes;
        }
        assert_int_equal(walk.messages, stream.count);
        assert_int_equal(walk.frame.body_left, 0);
    }
    edge_release(&edge);
}

static enum frame_result read_length(uint32_t length, uint32_t limit_bytes, size_t split)
{
    struct frame frame = {0};
    uint8_t header[5] = {'Q'};
    size_t consumed;

    bytes_put_u32(header + 1, length);
    if (split > 0)
        assert_int_equal(frame_read(&frame, header, split, limit_bytes, &consumed),
                         FRAME_NEED_MORE);
    return frame_read(&frame, header + split, 5 - split, limit_bytes, &consumed);
}

static void bad_lengths_are_bad_however_they_arrive(void **state)
{
    (void)state;
    for (size_t split = 0; split < 5; split++) {
        for (uint32_t length = 0; length < 4; length++)
            assert_int_equal(read_length(length, LIMIT_BYTES, split), FRAME_BAD);
        assert_int_equal(read_length(4, LIMIT_BYTES, split), FRAME_OK);
        /* The limit counts the type byte too. */
        assert_int_equal(read_length(999, 1000, split), FRAME_OK);
        assert_int_equal(read_length(1000, 1000, split), FRAME_BAD);
        assert_int_equal(read_length(INT32_MAX, UINT32_MAX, split), FRAME_OK);
        assert_int_equal(read_length((uint32_t)INT32_MAX + 1, UINT32_MAX, split), FRAME_BAD);
        assert_int_equal(read_length(UINT32_MAX, UINT32_MAX, split), FRAME_BAD);
        assert_int_equal(read_length(4, 5, split), FRAME_OK);
        assert_int_equal(read_length(5, 5, split), FRAME_BAD);
    }
}

static void the_fast_path_and_the_held_path_agree(void **state)
{
    uint64_t seed = 5;

    (void)state;
    for (int run = 0; run < 20000; run++) {
        uint32_t length = (uint32_t)(random_next(&seed) >> (random_next(&seed) % 33 + 31));
        uint32_t limit = 5 + (uint32_t)(random_next(&seed) >> (random_next(&seed) % 30 + 34));
        enum frame_result whole = read_length(length, limit, 0);

        for (size_t split = 1; split < 5; split++)
            assert_int_equal(read_length(length, limit, split), whole);
    }
}

static void a_header_is_not_read_inside_a_body(void **state)
{
    static struct frame frame = {.body_left = 1};
    static size_t consumed;

    (void)state;
    expect_broken_invariant(
        (void)!frame_read(&frame, (const uint8_t *)"Q\0\0\0\4", 5, 100, &consumed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_survives_every_split_into_three),
        cmocka_unit_test(long_streams_survive_random_splits_and_single_bytes),
        cmocka_unit_test(bad_lengths_are_bad_however_they_arrive),
        cmocka_unit_test(the_fast_path_and_the_held_path_agree),
        cmocka_unit_test(a_header_is_not_read_inside_a_body),
    };

    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
