/* Prepared statements as a core knows them (pool/statement.h): one for each text, types and parameters, whatever
 * pieces the Parse came in. */
#include "unit.h"

#include "base/bytes.h"
#include "pool/core.h"
#include "pool/report.h"

#include <stdlib.h>

enum { PIECES_MAX = 8, LONG_BYTES = 200 * 1000 };

static struct buffer_pool buffers;
static struct core core;
static const uint8_t secret[32] = "what nobody but us has ever seen";

static int set_up(void **state)
{
    (void)state;
    assert_true(buffer_pool_init(&buffers, 1024, 16));
    memset(&core, 0, sizeof(core));
    assert_true(conn_loop_init(&core.loop, NULL, &buffers, 10000));
    assert_true(statement_store_init(&core.statements, 10, secret));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(core.statements.statements.used_count, 0);
    assert_int_equal(core.statements.text_bytes, 0);
    assert_int_equal(core.loop.spans.used_count, 0);
    assert_int_equal(buffers.parked_bytes, 0);
    statement_store_release(&core.statements);
    conn_loop_release(&core.loop);
    buffer_pool_release(&buffers);
    return 0;
}

/* Bytes in pieces, each in memory of exactly its size. */
struct chain {
    struct span spans[PIECES_MAX];
    struct buffer pieces[PIECES_MAX];
    unsigned count;
};

static void chain_add(struct chain *chain, const void *data, size_t bytes)
{
    struct buffer *piece = &chain->pieces[chain->count];
    struct span *span = &chain->spans[chain->count];

    if (bytes == 0)
        return;
    assert_true(chain->count < PIECES_MAX);
    *piece =
        (struct buffer){.data = malloc(bytes), .bytes_max = (uint32_t)bytes, .reference_count = 1};
    assert_non_null(piece->data);
    memcpy(piece->data, data, bytes);
    *span = (struct span){.buffer = piece, .bytes = (uint32_t)bytes};
    if (chain->count > 0)
        span[-1].next = span;
    chain->count++;
}

static void chain_free(struct chain *chain)
{
    while (chain->count > 0)
        free(chain->pieces[--chain->count].data);
}

/* Three pieces; what stands behind the body in the last one belongs to the next message. */
static void chain_cut(struct chain *chain, const uint8_t *body, size_t bytes, size_t first,
                      size_t second)
{
    chain_add(chain, body, first);
    chain_add(chain, body + first, second - first);
    chain_add(chain, body + second, bytes - second);
}

/* Text, zero, count of types, types 1, 2, ...; returns its bytes. */
static size_t body_make(uint8_t *body, const char *text, unsigned type_count)
{
    size_t bytes = strlen(text) + 1;

    memcpy(body, text, bytes);
    bytes_put_u16(body + bytes, (uint16_t)type_count);
    bytes += 2;
    for (unsigned i = 0; i < type_count; i++, bytes += 4)
        bytes_put_u32(body + bytes, i + 1);
    return bytes;
}

static struct statement *intern(const uint8_t *body, size_t bytes, size_t first, size_t second,
                                uint64_t params_hash)
{
    struct chain chain = {0};
    struct statement *statement;

    chain_cut(&chain, body, bytes, first, second);
    statement = statement_intern(&core, chain.spans, (uint32_t)bytes,
                                 (uint32_t)strnlen((const char *)body, bytes), params_hash);
    chain_free(&chain);
    assert_non_null(statement);
    return statement;
}

/* ---- the body of a Parse ---- */

static bool body_is_good(const uint8_t *body, size_t bytes, size_t first, size_t second,
                         uint32_t *text_bytes)
{
    struct chain chain = {0};
    bool is_good;

    chain_cut(&chain, body, bytes, first, second);
    is_good = parse_body_read(chain.spans, (uint32_t)bytes, text_bytes);
    chain_free(&chain);
    return is_good;
}

static void test_a_body_is_read_the_same_however_it_is_cut(void **state)
{
    static const char *const texts[] = {"", "x", "select $1"};
    uint8_t body[64];
    uint32_t text_bytes;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        for (unsigned types = 0; types < 4; types++) {
            size_t bytes = body_make(body, texts[i], types);

            for (size_t second = 0; second <= bytes; second++) {
                for (size_t first = 0; first <= second; first++) {
                    assert_true(body_is_good(body, bytes, first, second, &text_bytes));
                    assert_int_equal(text_bytes, strlen(texts[i]));
                }
            }
        }
    }
}

static void test_every_other_length_is_broken_however_it_is_cut(void **state)
{
    uint8_t body[64] = {0};
    size_t good = body_make(body, "select", 2);
    uint32_t text_bytes;

    (void)state;
    for (size_t bytes = 1; bytes < good + 8; bytes++)
        for (size_t second = 0; second <= bytes; second++)
            for (size_t first = 0; first <= second; first++)
                assert_int_equal(body_is_good(body, bytes, first, second, &text_bytes),
                                 bytes == good);
    assert_false(parse_body_read(NULL, 0, &text_bytes));
}

static void test_what_stands_behind_the_body_is_not_read(void **state)
{
    uint8_t bytes_and_more[64];
    size_t bytes = body_make(bytes_and_more, "select", 1);
    uint32_t text_bytes;

    (void)state;
    memset(bytes_and_more + bytes, 0xff, sizeof(bytes_and_more) - bytes);
    for (size_t cut = 0; cut <= bytes; cut++) {
        struct chain chain = {0};
        struct statement *alone = intern(bytes_and_more, bytes, cut, cut, 0);
        struct statement *statement;

        chain_cut(&chain, bytes_and_more, sizeof(bytes_and_more), cut, cut);
        assert_true(parse_body_read(chain.spans, (uint32_t)bytes, &text_bytes));
        assert_int_equal(text_bytes, 6);
        statement = statement_intern(&core, chain.spans, (uint32_t)bytes, text_bytes, 0);
        assert_ptr_equal(statement, alone);
        statement_release(&core, statement);
        statement_release(&core, alone);
        chain_free(&chain);
    }
}

/* As many types as the number can say, and a number that says more than there is. */
static void test_most_types_and_one_too_many(void **state)
{
    size_t room = 2 + 2 + 65535 * 4;
    uint8_t *body = calloc(1, room + 4);
    uint32_t text_bytes;

    (void)state;
    assert_non_null(body);
    body[0] = 'x';
    bytes_put_u16(body + 2, 65535);
    assert_true(body_is_good(body, room, 3, 4, &text_bytes));
    assert_int_equal(text_bytes, 1);
    assert_false(body_is_good(body, room - 4, 3, 4, &text_bytes));
    assert_false(body_is_good(body, room + 4, 3, 4, &text_bytes));
    free(body);
}

/* ---- one for all ---- */

static void test_the_same_body_is_the_same_statement_however_it_is_cut(void **state)
{
    uint8_t body[64];
    size_t bytes = body_make(body, "select $1, $2", 2);
    struct statement *statement = intern(body, bytes, 0, 0, 5);

    (void)state;
    for (size_t second = 0; second <= bytes; second++) {
        for (size_t first = 0; first <= second; first++) {
            struct statement *again = intern(body, bytes, first, second, 5);

            assert_ptr_equal(again, statement);
            assert_int_equal(statement->reference_count, 2);
            statement_release(&core, again);
        }
    }
    assert_int_equal(core.statements.statements.used_count, 1);
    assert_int_equal(core.statements.text_bytes, bytes);
    statement_release(&core, statement);
}

static void check_different(const uint8_t *a, size_t a_bytes, uint64_t a_params, const uint8_t *b,
                            size_t b_bytes, uint64_t b_params)
{
    struct statement *first = intern(a, a_bytes, 0, 0, a_params);
    struct statement *second = intern(b, b_bytes, 0, 0, b_params);

    assert_ptr_not_equal(first, second);
    assert_false(digest_is_same(&first->digest, &second->digest));
    assert_string_not_equal(first->name, second->name);
    assert_int_equal(first->reference_count, 1);
    assert_int_equal(second->reference_count, 1);
    assert_int_equal(core.statements.statements.used_count, 2);
    statement_release(&core, first);
    assert_int_equal(core.statements.text_bytes, b_bytes);
    statement_release(&core, second);
}

static void test_text_types_and_parameters_make_another_statement(void **state)
{
    uint8_t plain[64], other[64];
    size_t bytes = body_make(plain, "select $1", 1);

    (void)state;
    check_different(plain, bytes, 0, other, body_make(other, "select $2", 1), 0);
    check_different(plain, bytes, 0, other, body_make(other, "select $1", 0), 0);
    check_different(plain, bytes, 0, other, body_make(other, "select $1", 2), 0);
    check_different(plain, bytes, 0, plain, bytes, 1);
    memcpy(other, plain, bytes);
    other[bytes - 1]++; /* another type */
    check_different(plain, bytes, 0, other, bytes, 0);
}

static void test_a_long_text_is_kept_and_compared_to_its_last_byte(void **state)
{
    uint8_t *body = malloc(LONG_BYTES + 3);
    struct statement *statement, *again, *other;
    size_t at = 0;

    (void)state;
    assert_non_null(body);
    for (size_t i = 0; i < LONG_BYTES; i++)
        body[i] = (uint8_t)(1 + i % 255);
    memset(body + LONG_BYTES, 0, 3);
    statement = intern(body, LONG_BYTES + 3, 1000, 150000, 0);
    for (struct span *span = statement->body.first; span != NULL;
         at += span->bytes, span = span->next)
        assert_memory_equal(span->buffer->data + span->offset, body + at, span->bytes);
    assert_int_equal(at, LONG_BYTES + 3);
    assert_int_equal(statement->text_bytes, LONG_BYTES);
    again = intern(body, LONG_BYTES + 3, 64 * 1024, 64 * 1024 + 1, 0);
    assert_ptr_equal(again, statement);
    body[LONG_BYTES - 1]++;
    other = intern(body, LONG_BYTES + 3, 0, 0, 0);
    assert_ptr_not_equal(other, statement);
    statement_release(&core, again);
    statement_release(&core, other);
    statement_release(&core, statement);
    free(body);
}

static void test_a_statement_goes_with_its_last_reference(void **state)
{
    uint8_t body[64];
    size_t bytes = body_make(body, "select 1", 0);
    struct statement *statement = intern(body, bytes, 0, 0, 0);
    struct statement_row row;

    (void)state;
    assert_ptr_equal(statement_reference(statement), statement);
    statement_release(&core, statement);
    assert_int_equal(core.statements.statements.used_count, 1);
    assert_true(statement_fill_row(statement, &row));
    statement_release(&core, statement);
    assert_int_equal(core.statements.statements.used_count, 0);
    assert_false(statement_fill_row(statement, &row)); /* SHOW looks at slots that are free */
    statement_release(&core, NULL);
    statement = intern(body, bytes, 0, 0, 0);
    assert_int_equal(statement->reference_count, 1);
    statement_release(&core, statement);
}

static void test_many_statements_in_one_bucket_are_told_apart(void **state)
{
    enum { COUNT = 3000 };
    static struct statement *statements[COUNT];
    uint8_t body[64];
    char text[32];

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            struct statement *statement;

            snprintf(text, sizeof(text), "select %u", i);
            statement = intern(body, body_make(body, text, 0), 0, 0, 0);
            if (round == 0)
                statements[i] = statement;
            else
                assert_ptr_equal(statement, statements[i]);
        }
    }
    /* In another order than they came in: out of the middle of chains. */
    for (unsigned i = 0; i < COUNT; i++) {
        struct statement *statement = statements[i * 7 % COUNT];

        statement_release(&core, statement);
        statement_release(&core, statement);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        struct statement_row row;

        assert_false(statement_fill_row(statements[i], &row));
    }
}

static void test_without_memory_nothing_is_left_over(void **state)
{
    uint8_t *body = calloc(1, LONG_BYTES);
    struct chain chain = {0};
    uint32_t count_max = buffers.parked[PARKED_CLASSES - 1].count_max;

    (void)state;
    assert_non_null(body);
    memset(body, 'x', LONG_BYTES - 3);
    chain_add(&chain, body, LONG_BYTES);
    buffers.parked[PARKED_CLASSES - 1].count_max =
        1; /* the first piece fits, the second does not */
    assert_null(statement_intern(&core, chain.spans, LONG_BYTES, LONG_BYTES - 3, 0));
    assert_int_equal(buffers.parked_bytes, 0);
    buffers.parked[PARKED_CLASSES - 1].count_max = count_max;
    count_max = core.statements.statements.count_max;
    core.statements.statements.count_max = core.statements.statements.touched_count;
    core.statements.statements.free_first = NULL;
    assert_null(statement_intern(&core, chain.spans, LONG_BYTES, LONG_BYTES - 3, 0));
    core.statements.statements.count_max = count_max;
    chain_free(&chain);
    free(body);
}

static void test_what_is_still_held_by_a_name_is_not_released(void **state)
{
    uint8_t body[64];
    struct statement *statement = intern(body, body_make(body, "select 1", 0), 0, 0, 0);

    (void)state;
    statement->client_count = 1;
    expect_broken_invariant(statement_release(&core, statement));
    statement->reference_count = 1;
    statement->client_count = 0;
    statement_release(&core, statement);
}

/* ---- names ---- */

static void test_a_name_is_lower_case_and_as_long_as_it_is_said_to_be(void **state)
{
    char name[STATEMENT_NAME_BYTES + 1];
    struct digest digest = {{0, 0}};
    struct digest all = {{UINT64_MAX, UINT64_MAX}};

    (void)state;
    statement_name(&digest, name);
    assert_string_equal(name, "pgsplice_aaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_int_equal(strlen(name), STATEMENT_NAME_BYTES);
    statement_name(&all, name);
    assert_string_equal(name, "pgsplice_7777777777777777777777777h");
    for (unsigned bit = 0; bit < 128; bit++) {
        char other[STATEMENT_NAME_BYTES + 1];

        digest.words[bit / 64] = UINT64_C(1) << bit % 64;
        statement_name(&digest, other);
        assert_string_not_equal(other, name);
        assert_int_equal(strspn(other + 9, "abcdefghijklmnopqrstuvwxyz234567"), 26);
        digest.words[bit / 64] = 0;
    }
}

/* All cores of a process call it the same, and nobody else can know how. */
static void test_a_name_depends_on_the_secret_and_on_nothing_else(void **state)
{
    uint8_t body[64], other_secret[32];
    size_t bytes = body_make(body, "select 1", 0);
    struct statement *statement = intern(body, bytes, 0, 0, 3);
    char name[STATEMENT_NAME_BYTES + 1], no_name[STATEMENT_NAME_BYTES + 1];

    (void)state;
    strcpy(name, statement->name);
    strcpy(no_name, core.statements.no_name);
    statement_release(&core, statement);
    for (size_t i = 0; i <= sizeof(secret); i++) {
        memcpy(other_secret, secret, sizeof(secret));
        if (i < sizeof(secret))
            other_secret[i] ^= 1;
        statement_store_release(&core.statements);
        assert_true(statement_store_init(&core.statements, 10, other_secret));
        statement = intern(body, bytes, 0, 0, 3);
        assert_int_equal(strcmp(statement->name, name) == 0, i == sizeof(secret));
        assert_int_equal(strcmp(core.statements.no_name, no_name) == 0, i == sizeof(secret));
        statement_release(&core, statement);
    }
}

static void test_names_of_no_statement_are_like_none(void **state)
{
    const struct statement_store *store = &core.statements;

    (void)state;
    assert_int_equal(strlen(store->no_name), STATEMENT_NAME_BYTES);
    assert_int_equal(strlen(store->spare_name), STATEMENT_NAME_BYTES);
    assert_string_not_equal(store->no_name, store->spare_name);
    assert_null(strstr(store->no_name, STATEMENT_NAME_PREFIX));
    assert_null(strstr(store->spare_name, STATEMENT_NAME_PREFIX));
}

/* ---- what else it knows ---- */

static void test_an_unnamed_statement_is_seen_before_the_second_time(void **state)
{
    uint8_t body[64];
    struct statement *a = intern(body, body_make(body, "select 1", 0), 0, 0, 0);
    struct statement *b = intern(body, body_make(body, "select 2", 0), 0, 0, 0);

    (void)state;
    assert_false(statement_seen_before(&core.statements, a));
    assert_false(statement_seen_before(&core.statements, b));
    assert_true(statement_seen_before(&core.statements, a));
    assert_true(statement_seen_before(&core.statements, b));
    statement_release(&core, a);
    statement_release(&core, b);
    a = intern(body, body_make(body, "select 1", 0), 0, 0, 0);
    assert_true(statement_seen_before(&core.statements, a)); /* though nobody had it in between */
    statement_release(&core, a);
}

static void test_a_row_shows_text_and_types_as_far_as_there_is_room(void **state)
{
    uint8_t body[4096];
    char text[1024];
    struct statement_row row;
    struct statement *statement = intern(body, body_make(body, "select $1, $2", 2), 0, 0, 0);

    (void)state;
    statement->bind_count = 7;
    assert_true(statement_fill_row(statement, &row));
    assert_string_equal(row.name, statement->name);
    assert_string_equal(row.text, "select $1, $2");
    assert_string_equal(row.types, "1,2");
    assert_int_equal(row.bytes, 13 + 1 + 2 + 8);
    assert_int_equal(row.bind_count, 7);
    statement->is_sql = true;
    assert_true(statement_fill_row(statement, &row));
    assert_string_equal(row.text, "PREPARE ... select $1, $2");
    assert_string_equal(row.types, "");
    statement_release(&core, statement);
    for (size_t bytes = STATEMENT_ROW_TEXT_BYTES - 2; bytes < STATEMENT_ROW_TEXT_BYTES + 3;
         bytes++) {
        memset(text, 'x', bytes);
        text[bytes] = '\0';
        statement = intern(body, body_make(body, text, 500), 0, 0, 0);
        assert_true(statement_fill_row(statement, &row));
        assert_int_equal(strlen(row.text),
                         bytes <= STATEMENT_ROW_TEXT_BYTES ? bytes : STATEMENT_ROW_TEXT_BYTES + 3);
        assert_int_equal(strcmp(row.text, text) == 0, bytes <= STATEMENT_ROW_TEXT_BYTES);
        assert_int_equal(strlen(row.types), STATEMENT_ROW_TYPES_BYTES - 1);
        assert_string_equal(row.types + STATEMENT_ROW_TYPES_BYTES - 4, "...");
        statement_release(&core, statement);
    }
}

/* A RowDescription of two columns; 'a' of name, table, type, modifier, format can be changed. */
static uint64_t shape_with(size_t changed)
{
    uint8_t body[2 + 2 * 20] = {0, 2};

    for (size_t column = 0; column < 2; column++) {
        uint8_t *at = body + 2 + column * 20;

        memset(at, 'a', 20);
        at[1] = '\0';
    }
    if (changed > 0)
        body[changed]++;
    return shape_of(&core.statements, body, sizeof(body));
}

static void test_a_shape_is_names_and_types_and_modifiers(void **state)
{
    uint64_t plain = shape_with(0);
    uint8_t body[64] = {0, 1, 'a', 0};

    (void)state;
    assert_int_equal(shape_with(0), plain);
    for (size_t column = 0; column < 2; column++) {
        size_t at = 2 + column * 20;

        assert_int_not_equal(shape_with(at), plain);
        for (size_t byte = 2; byte < 8; byte++) /* table and number of the column */
            assert_int_equal(shape_with(at + byte), plain);
        for (size_t byte = 8; byte < 18; byte++)
            assert_int_not_equal(shape_with(at + byte), plain);
        for (size_t byte = 18; byte < 20; byte++) /* format */
            assert_int_equal(shape_with(at + byte), plain);
    }
    assert_int_not_equal(shape_of(&core.statements, body, 0), plain);
    /* Broken in every place: some shape, and nothing behind the end is read. */
    for (size_t bytes = 0; bytes < 2 + 18; bytes++) {
        uint8_t *copy = malloc(bytes > 0 ? bytes : 1);

        assert_non_null(copy);
        memcpy(copy, body, bytes);
        assert_int_not_equal(shape_of(&core.statements, copy, bytes), 0);
        free(copy);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_body_is_read_the_same_however_it_is_cut),
        TEST(test_every_other_length_is_broken_however_it_is_cut),
        TEST(test_what_stands_behind_the_body_is_not_read),
        TEST(test_most_types_and_one_too_many),
        TEST(test_the_same_body_is_the_same_statement_however_it_is_cut),
        TEST(test_text_types_and_parameters_make_another_statement),
        TEST(test_a_long_text_is_kept_and_compared_to_its_last_byte),
        TEST(test_a_statement_goes_with_its_last_reference),
        TEST(test_many_statements_in_one_bucket_are_told_apart),
        TEST(test_without_memory_nothing_is_left_over),
        TEST(test_what_is_still_held_by_a_name_is_not_released),
        TEST(test_a_name_is_lower_case_and_as_long_as_it_is_said_to_be),
        TEST(test_a_name_depends_on_the_secret_and_on_nothing_else),
        TEST(test_names_of_no_statement_are_like_none),
        TEST(test_an_unnamed_statement_is_seen_before_the_second_time),
        TEST(test_a_row_shows_text_and_types_as_far_as_there_is_room),
        TEST(test_a_shape_is_names_and_types_and_modifiers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
