#include "unit.h"

#include "wire/message.h"

enum { ROOM = 256 };

#define BYTES(literal) literal, sizeof(literal) - 1

typedef void put(struct writer *writer);

static void put_authentication(struct writer *writer)
{
    message_authentication(writer, AUTHENTICATION_MD5, "salt", 4);
}

static void put_ok(struct writer *writer)
{
    message_authentication(writer, AUTHENTICATION_OK, NULL, 0);
}

static void put_parameter(struct writer *writer)
{
    message_parameter_status(writer, "DateStyle", "ISO");
}

static void put_key(struct writer *writer)
{
    message_backend_key_data(writer, (const uint8_t *)"\0\1\2\3\4\5\6\7");
}

static void put_ready(struct writer *writer)
{
    message_ready_for_query(writer, 'T');
}

static void put_bare_error(struct writer *writer)
{
    message_error(writer, &(struct pg_error){.severity = SEVERITY_FATAL, .message = "no"});
}

static void put_full_error(struct writer *writer)
{
    message_error(writer, &(struct pg_error){.severity = SEVERITY_ERROR,
                                             .sqlstate = "57014",
                                             .message = "m",
                                             .detail = "d",
                                             .hint = "h"});
}

static void put_notice(struct writer *writer)
{
    message_error(writer, &(struct pg_error){.severity = SEVERITY_NOTICE, .message = "m"});
}

static void put_query(struct writer *writer)
{
    message_query(writer, "SELECT 1");
}

static void put_password(struct writer *writer)
{
    message_password(writer, "\0\1\2", 3);
}

static void put_complete(struct writer *writer)
{
    message_command_complete(writer, "SHOW");
}

static void put_cancel(struct writer *writer)
{
    message_cancel_request(writer, (const uint8_t *)"\7\6\5\4\3\2\1\0");
}

static const struct {
    put *put;
    const char *data;
    size_t bytes;
} messages[] = {
    {put_authentication, BYTES("R\0\0\0\14\0\0\0\5salt")},
    {put_ok, BYTES("R\0\0\0\10\0\0\0\0")},
    {put_parameter, BYTES("S\0\0\0\22DateStyle\0ISO\0")},
    {put_key, BYTES("K\0\0\0\14\0\1\2\3\4\5\6\7")},
    {put_ready, BYTES("Z\0\0\0\5T")},
    {put_bare_error, BYTES("E\0\0\0\27SFATAL\0C08P01\0Mno\0\0")},
    {put_full_error, BYTES("E\0\0\0\34SERROR\0C57014\0Mm\0Dd\0Hh\0\0")},
    {put_notice, BYTES("N\0\0\0\27SNOTICE\0C00000\0Mm\0\0")},
    {put_query, BYTES("Q\0\0\0\15SELECT 1\0")},
    {put_password, BYTES("p\0\0\0\7\0\1\2")},
    {put_complete, BYTES("C\0\0\0\11SHOW\0")},
    {put_cancel, BYTES("\0\0\0\20\4\322\26.\7\6\5\4\3\2\1\0")},
};

static void every_message_has_the_bytes_of_the_protocol(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(messages); i++) {
        uint8_t data[ROOM];
        struct writer writer;

        writer_init(&writer, data, sizeof(data));
        writer_put(&writer, "before", 6);
        messages[i].put(&writer);
        assert_false(writer.overflow);
        assert_int_equal(writer.bytes, 6 + messages[i].bytes);
        assert_memory_equal(data + 6, messages[i].data, messages[i].bytes);
    }
}

static void what_does_not_fit_overflows_and_stays_inside(void **state)
{
    struct edge edge;

    (void)state;
    edge_init(&edge, ROOM);
    for (size_t i = 0; i < COUNT_OF(messages); i++)
        for (size_t room = 0; room <= messages[i].bytes; room++) {
            struct writer writer;

            writer_init(&writer, edge.end - room, room);
            messages[i].put(&writer);
            assert_int_equal(writer.overflow, room < messages[i].bytes);
        }
    edge_release(&edge);
}

static void what_was_written_before_an_overflow_is_whole(void **state)
{
    uint8_t data[20];
    struct writer writer;

    (void)state;
    writer_init(&writer, data, sizeof(data));
    message_ready_for_query(&writer, 'I');
    message_query(&writer, "a query that is too long for it");
    assert_true(writer.overflow);
    assert_memory_equal(data, "Z\0\0\0\5I", 6);
}

static void error_fields_are_found_in_any_order(void **state)
{
    struct error_fields fields;

    (void)state;
    assert_true(
        error_fields_read((const uint8_t *)BYTES("VFATAL\0Mtext\0C57P01\0SFATAL\0\0"), &fields));
    assert_string_equal(fields.severity, "FATAL");
    assert_string_equal(fields.sqlstate, "57P01");
    assert_string_equal(fields.message, "text");
    assert_true(error_fields_read((const uint8_t *)BYTES("\0"), &fields));
    assert_string_equal(fields.severity, "");
    assert_string_equal(fields.sqlstate, "");
    assert_string_equal(fields.message, "");
}

static void every_truncation_of_error_fields_is_refused(void **state)
{
    static const char body[] = "SERROR\0C42601\0Msyntax\0";
    struct edge edge;
    struct error_fields fields;

    (void)state;
    edge_init(&edge, ROOM);
    assert_true(error_fields_read(edge_copy(&edge, body, sizeof(body)), sizeof(body), &fields));
    assert_string_equal(fields.message, "syntax");
    for (size_t bytes = 0; bytes < sizeof(body); bytes++)
        assert_false(error_fields_read(edge_copy(&edge, body, bytes), bytes, &fields));
    edge_release(&edge);
}

static void written_errors_can_be_read(void **state)
{
    uint8_t data[ROOM];
    struct writer writer;
    struct error_fields fields;

    (void)state;
    writer_init(&writer, data, sizeof(data));
    put_full_error(&writer);
    assert_true(error_fields_read(data + 5, writer.bytes - 5, &fields));
    assert_string_equal(fields.severity, "ERROR");
    assert_string_equal(fields.sqlstate, "57014");
    assert_string_equal(fields.message, "m");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_has_the_bytes_of_the_protocol),
        cmocka_unit_test(what_does_not_fit_overflows_and_stays_inside),
        cmocka_unit_test(what_was_written_before_an_overflow_is_whole),
        cmocka_unit_test(error_fields_are_found_in_any_order),
        cmocka_unit_test(every_truncation_of_error_fields_is_refused),
        cmocka_unit_test(written_errors_can_be_read),
    };

    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
