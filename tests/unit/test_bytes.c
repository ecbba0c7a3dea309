#include "unit.h"

#include "base/bytes.h"

static void numbers_stand_in_network_order(void **state)
{
    uint8_t data[4];

    (void)state;
    bytes_put_u32(data, 0x01020304);
    assert_memory_equal(data, "\1\2\3\4", 4);
    assert_int_equal(bytes_get_u32(data), 0x01020304);
    bytes_put_u16(data, 0xfffe);
    assert_memory_equal(data, "\377\376", 2);
    assert_int_equal(bytes_get_u16(data), 0xfffe);
    assert_int_equal(bytes_get_u32((const uint8_t *)"\377\377\377\377"), UINT32_MAX);
}

static void put_all(struct writer *writer)
{
    writer_put_u8(writer, 7);
    writer_put_u16(writer, 0x0102);
    writer_put_u32(writer, 0x03040506);
    writer_put_string(writer, "ab");
    writer_put(writer, "xyz", 3);
    writer_put(writer, NULL, 0);
}

static const char all[] = "\7\1\2\3\4\5\6ab\0xyz";

static void a_writer_fills_its_room_and_not_a_byte_more(void **state)
{
    struct edge edge;

    (void)state;
    edge_init(&edge, 64);
    for (size_t room = 0; room <= sizeof(all) + 3; room++) {
        struct writer writer;

        writer_init(&writer, edge.end - room, room);
        put_all(&writer);
        assert_int_equal(writer.overflow, room < sizeof(all) - 1);
        if (!writer.overflow) {
            assert_int_equal(writer.bytes, sizeof(all) - 1);
            assert_memory_equal(writer.data, all, sizeof(all) - 1);
        }
        assert_true(writer.bytes <= room);
    }
    edge_release(&edge);
}

static void after_an_overflow_nothing_is_written(void **state)
{
    uint8_t data[4] = {9, 9, 9, 9};
    struct writer writer;

    (void)state;
    writer_init(&writer, data, 3);
    writer_put_u32(&writer, 1);
    writer_put_u8(&writer, 1);
    assert_true(writer.overflow);
    assert_int_equal(writer.bytes, 0);
    assert_memory_equal(data, "\t\t\t\t", 4);
    writer_init(&writer, data, 3);
    writer_put_u8(&writer, 1);
    writer_put(&writer, data, SIZE_MAX);
    assert_true(writer.overflow);
}

static void a_reader_stops_at_its_end_for_every_truncation(void **state)
{
    struct edge edge;

    (void)state;
    edge_init(&edge, 64);
    for (size_t bytes = 0; bytes <= sizeof(all) - 1; bytes++) {
        struct reader reader;
        const char *text;
        const uint8_t *rest;

        reader_init(&reader, edge_copy(&edge, all, bytes), bytes);
        assert_int_equal(reader_get_u8(&reader), bytes >= 1 ? 7 : 0);
        assert_int_equal(reader_get_u16(&reader), bytes >= 3 ? 0x0102 : 0);
        assert_int_equal(reader_get_u32(&reader), bytes >= 7 ? 0x03040506 : 0);
        text = reader_get_string(&reader);
        if (bytes >= 10)
            assert_string_equal(text, "ab");
        else
            assert_null(text);
        rest = reader_get(&reader, 3);
        assert_int_equal(rest != NULL, bytes >= 13);
        assert_int_equal(reader.bad, bytes < 13);
        if (!reader.bad)
            assert_int_equal(reader_left(&reader), 0);
    }
    edge_release(&edge);
}

static void a_bad_reader_stays_bad(void **state)
{
    struct reader reader;

    (void)state;
    reader_init(&reader, "\1\2\3", 3);
    assert_null(reader_get(&reader, 4));
    assert_int_equal(reader_get_u8(&reader), 0);
    assert_null(reader_get_string(&reader));
    assert_int_equal(reader.position, 0);
    reader_init(&reader, "\1", 1);
    assert_null(reader_get(&reader, SIZE_MAX));
    reader_init(&reader, "", 1);
    assert_string_equal(reader_get_string(&reader), "");
    assert_false(reader.bad);
    assert_null(reader_get_string(&reader));
    assert_true(reader.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_stand_in_network_order),
        cmocka_unit_test(a_writer_fills_its_room_and_not_a_byte_more),
        cmocka_unit_test(after_an_overflow_nothing_is_written),
        cmocka_unit_test(a_reader_stops_at_its_end_for_every_truncation),
        cmocka_unit_test(a_bad_reader_stays_bad),
    };

    return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
