#include "unit.h"

#include "wire/startup.h"

enum { ROOM = STARTUP_BYTES_MAX };

#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1

static const struct {
    enum startup_kind kind;
    const uint8_t *data;
    size_t bytes;
} packets[] = {
    {STARTUP_SSL_REQUEST, BYTES("\0\0\0\10\4\322\26/")},
    {STARTUP_GSSENC_REQUEST, BYTES("\0\0\0\10\4\322\0260")},
    {STARTUP_CANCEL_REQUEST, BYTES("\0\0\0\20\4\322\26.\1\2\3\4\5\6\7\10")},
    {STARTUP_VERSION_3, BYTES("\0\0\0\23\0\3\0\0user\0bob\0\0\0")},
    {STARTUP_VERSION_3, BYTES("\0\0\0\11\0\3\0\2\0")},
    {STARTUP_VERSION_3, BYTES("\0\0\0\10\0\3\0\0")},
    {STARTUP_VERSION_2, BYTES("\0\0\0\12\0\2\0\0ab")},
};

static void every_truncation_of_every_kind_needs_more(void **state)
{
    struct edge edge;

    (void)state;
    edge_init(&edge, ROOM);
    for (size_t i = 0; i < COUNT_OF(packets); i++) {
        struct startup_packet packet;
        uint8_t *data;

        for (size_t bytes = 0; bytes < packets[i].bytes; bytes++)
            assert_int_equal(startup_read(edge_copy(&edge, packets[i].data, bytes), bytes, &packet),
                             STARTUP_NEED_MORE);
        data = edge_copy(&edge, packets[i].data, packets[i].bytes);
        assert_int_equal(startup_read(data, packets[i].bytes, &packet), packets[i].kind);
        assert_int_equal(packet.packet_bytes, packets[i].bytes);
        assert_ptr_equal(packet.body, data + 8);
        assert_int_equal(packet.body_bytes, packets[i].bytes - 8);
    }
    edge_release(&edge);
}

static void what_follows_a_packet_is_left_alone(void **state)
{
    uint8_t data[64];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(packets); i++) {
        struct startup_packet packet;

        memset(data, 0xff, sizeof(data));
        memcpy(data, packets[i].data, packets[i].bytes);
        assert_int_equal(startup_read(data, sizeof(data), &packet), packets[i].kind);
        assert_int_equal(packet.packet_bytes, packets[i].bytes);
    }
}

static void the_minor_version_is_told(void **state)
{
    struct startup_packet packet;

    (void)state;
    assert_int_equal(startup_read(BYTES("\0\0\0\10\0\3\377\376"), &packet), STARTUP_VERSION_3);
    assert_int_equal(packet.minor, 0xfffe);
}

static void foreign_and_broken_packets_are_told_apart(void **state)
{
    static const struct {
        enum startup_kind kind;
        const uint8_t *data;
        size_t bytes;
    } cases[] = {
        {STARTUP_TYPED_MESSAGE, BYTES("Q")},
        {STARTUP_TYPED_MESSAGE, BYTES("\26\3\1")},
        {STARTUP_TYPED_MESSAGE, BYTES("GET / HTTP/1.1\r\n")},
        {STARTUP_BAD, BYTES("\0\1")},
        {STARTUP_BAD, BYTES("\0\1\0\0")},
        {STARTUP_BAD, BYTES("\0\0\0\0")},
        {STARTUP_BAD, BYTES("\0\0\0\7")},
        {STARTUP_BAD, BYTES("\0\0\0\11\4\322\26/\0")},
        {STARTUP_BAD, BYTES("\0\0\0\11\4\322\0260\0")},
        {STARTUP_BAD, BYTES("\0\0\0\21\4\322\26.\1\2\3\4\5\6\7\10\11")},
        {STARTUP_BAD, BYTES("\0\0\0\17\4\322\26.\1\2\3\4\5\6\7")},
        {STARTUP_BAD, BYTES("\0\0\0\10\0\1\0\0")},
        {STARTUP_BAD, BYTES("\0\0\0\10\0\4\0\0")},
        {STARTUP_BAD, BYTES("\0\0\0\10\4\322\26-")},
        {STARTUP_BAD, BYTES("\0\0\0\10\377\377\377\377")},
    };
    struct edge edge;

    (void)state;
    edge_init(&edge, ROOM);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct startup_packet packet;

        assert_int_equal(
            startup_read(edge_copy(&edge, cases[i].data, cases[i].bytes), cases[i].bytes, &packet),
            cases[i].kind);
    }
    edge_release(&edge);
}

static void the_longest_packet_is_the_one_of_16_bits(void **state)
{
    static uint8_t data[STARTUP_BYTES_MAX];
    struct startup_packet packet;

    (void)state;
    memcpy(data, "\0\0\377\377\0\3\0\0", 8);
    assert_int_equal(startup_read(data, sizeof(data) - 1, &packet), STARTUP_NEED_MORE);
    assert_int_equal(startup_read(data, sizeof(data), &packet), STARTUP_VERSION_3);
}

/* What a walk saw, as `name=value;`. */
struct seen {
    char text[512];
    unsigned count;
    unsigned stop_after; /* 0: never */
};

static bool see(void *context, const char *name, const char *value)
{
    struct seen *seen = context;
    size_t used = strlen(seen->text);

    snprintf(seen->text + used, sizeof(seen->text) - used, "%s=%s;", name, value);
    return ++seen->count != seen->stop_after;
}

static bool parameters(const uint8_t *body, size_t bytes, struct seen *seen, bool *layout_is_bad)
{
    struct startup_packet packet = {.body = body, .body_bytes = bytes};

    return startup_parameters(&packet, see, seen, layout_is_bad);
}

static void parameters_come_in_order_up_to_the_final_zero(void **state)
{
    struct seen seen = {0};
    bool layout_is_bad;

    (void)state;
    assert_true(parameters(BYTES("user\0bob\0database\0\0a\0b c\0\0"), &seen, &layout_is_bad));
    assert_false(layout_is_bad);
    assert_string_equal(seen.text, "user=bob;database=;a=b c;");
    seen = (struct seen){0};
    assert_true(parameters(BYTES("\0"), &seen, &layout_is_bad));
    assert_int_equal(seen.count, 0);
    seen = (struct seen){.stop_after = 1};
    assert_false(parameters(BYTES("user\0bob\0a\0b\0\0"), &seen, &layout_is_bad));
    assert_false(layout_is_bad);
    assert_string_equal(seen.text, "user=bob;");
}

static void every_truncation_of_parameters_has_a_bad_layout(void **state)
{
    static const char body[] = "user\0bob\0database\0shop\0";
    struct edge edge;

    (void)state;
    edge_init(&edge, ROOM);
    for (size_t bytes = 0; bytes < sizeof(body); bytes++) {
        struct seen seen = {0};
        bool layout_is_bad;

        assert_false(parameters(edge_copy(&edge, body, bytes), bytes, &seen, &layout_is_bad));
        assert_true(layout_is_bad);
    }
    for (size_t more = 1; more < 4; more++) {
        struct seen seen = {0};
        char longer[sizeof(body) + 4] = {0};
        bool layout_is_bad;

        memcpy(longer, body, sizeof(body));
        assert_false(parameters(edge_copy(&edge, longer, sizeof(body) + more), sizeof(body) + more,
                                &seen, &layout_is_bad));
        assert_true(layout_is_bad);
    }
    edge_release(&edge);
}

static void options_follow_the_grammar_of_postgres(void **state)
{
    static const struct {
        const char *options;
        const char *seen; /* NULL: bad form */
    } cases[] = {
        {"", ""},
        {"   \t\n", ""},
        {"-c a=1", "a=1;"},
        {"-ca=1", "a=1;"},
        {"--a=1", "a=1;"},
        {"  -c   a=1  ", "a=1;"},
        {"-c a=1 --b=2 -cc=3", "a=1;b=2;c=3;"},
        {"--search-path=x-y", "search_path=x-y;"},
        {"-c search-path=x-y", "search_path=x-y;"},
        {"-c a=", "a=;"},
        {"-c a=b=c", "a=b=c;"},
        {"-c a=one\\ two", "a=one two;"},
        {"-c a=back\\\\slash", "a=back\\slash;"},
        {"--a=x\\\ty", "a=x\ty;"},
        {"-c a=\\=", "a==;"},
        {"-c", NULL},
        {"-c ", NULL},
        {"-c a", NULL},
        {"-c =1", NULL},
        {"--", NULL},
        {"-- a=1", NULL},
        {"--=1", NULL},
        {"--a", NULL},
        {"-d 5", NULL},
        {"-", NULL},
        {"a=1", NULL},
        {"-c a=1 junk", NULL},
        {"\\-c a=1", "a=1;"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct edge edge;
        struct seen seen = {0};
        char scratch[64];
        bool form_is_bad;
        const char *options;
        bool ok;

        edge_init(&edge, 64);
        options = (const char *)edge_copy(&edge, cases[i].options, strlen(cases[i].options) + 1);
        ok = startup_options(options, scratch, sizeof(scratch), see, &seen, &form_is_bad);
        if ((cases[i].seen != NULL) != ok)
            print_error("options: '%s'\n", cases[i].options);
        assert_int_equal(ok, cases[i].seen != NULL);
        assert_int_equal(form_is_bad, !ok);
        if (ok)
            assert_string_equal(seen.text, cases[i].seen);
        edge_release(&edge);
    }
}

static void a_word_that_does_not_fit_the_scratch_is_bad(void **state)
{
    (void)state;
    for (size_t room = 1; room < 12; room++) {
        struct edge edge;
        struct seen seen = {0};
        bool form_is_bad;
        bool ok;

        edge_init(&edge, room);
        ok = startup_options("--ab=cdef", (char *)edge.end - room, room, see, &seen, &form_is_bad);
        assert_int_equal(ok, room >= 10);
        assert_int_equal(form_is_bad, room < 10);
        ok = startup_options("-c abcd=efgh", (char *)edge.end - room, room, see, &seen,
                             &form_is_bad);
        assert_int_equal(ok, room >= 10);
        edge_release(&edge);
    }
}

static void the_callee_may_stop_the_options(void **state)
{
    struct seen seen = {.stop_after = 1};
    char scratch[64];
    bool form_is_bad;

    (void)state;
    assert_false(
        startup_options("-c a=1 -c b=2", scratch, sizeof(scratch), see, &seen, &form_is_bad));
    assert_false(form_is_bad);
    assert_string_equal(seen.text, "a=1;");
}

static void replication_is_asked_for_by_the_words_of_postgres(void **state)
{
    static const char *const physical[] = {"true", "TRUE", "tru", "t",  "yes", "Ye",
                                           "y",    "on",   "ON",  "On", "1"};
    static const char *const none[] = {"",     "false", "f",   "no",       "off",     "of",
                                       "o",    "0",     "2",   "11",       "true ",   "truely",
                                       "yess", "onn",   " on", "Database", "databas", "database "};

    (void)state;
    assert_int_equal(startup_replication("database"), REPLICATION_LOGICAL);
    for (size_t i = 0; i < COUNT_OF(physical); i++)
        assert_int_equal(startup_replication(physical[i]), REPLICATION_PHYSICAL);
    for (size_t i = 0; i < COUNT_OF(none); i++)
        assert_int_equal(startup_replication(none[i]), REPLICATION_NONE);
    /* What is sent on means the same. */
    for (unsigned i = REPLICATION_NONE; i <= REPLICATION_PHYSICAL; i++)
        assert_int_equal(startup_replication(startup_replication_value(i)), i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replication_is_asked_for_by_the_words_of_postgres),
        cmocka_unit_test(every_truncation_of_every_kind_needs_more),
        cmocka_unit_test(what_follows_a_packet_is_left_alone),
        cmocka_unit_test(the_minor_version_is_told),
        cmocka_unit_test(foreign_and_broken_packets_are_told_apart),
        cmocka_unit_test(the_longest_packet_is_the_one_of_16_bits),
        cmocka_unit_test(parameters_come_in_order_up_to_the_final_zero),
        cmocka_unit_test(every_truncation_of_parameters_has_a_bad_layout),
        cmocka_unit_test(options_follow_the_grammar_of_postgres),
        cmocka_unit_test(a_word_that_does_not_fit_the_scratch_is_bad),
        cmocka_unit_test(the_callee_may_stop_the_options),
    };

    return cmocka_run_group_tests_name("startup", tests, NULL, NULL);
}
