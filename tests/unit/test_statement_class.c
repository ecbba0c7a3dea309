#include "unit.h"

#include "wire/statement_class.h"

static struct edge edge;

static const char *const names[STATEMENT_CLASSES] = {
    [STATEMENT_UNKNOWN] = "UNKNOWN",   [STATEMENT_SHARES] = "SHARES",
    [STATEMENT_NO_READ] = "NO_READ",   [STATEMENT_KEYWORD] = "KEYWORD",
    [STATEMENT_FUNCTION] = "FUNCTION", [STATEMENT_SEVERAL] = "SEVERAL",
    [STATEMENT_DOUBT] = "DOUBT",
};

/* Each text is read where it ends at an unreadable page. */
static enum statement_class class_of(const char *text, size_t bytes, bool standard, bool is_utf8,
                                     uint64_t *hash)
{
    const char *copy = (const char *)edge_copy(&edge, text, bytes);
    enum statement_class class = statement_class(copy, bytes, standard, is_utf8, hash);

    if (class == STATEMENT_SHARES)
        assert_true(*hash != 0);
    return class;
}

static void expect_as(const char *text, bool standard, bool is_utf8, enum statement_class wanted)
{
    uint64_t hash;
    enum statement_class class = class_of(text, strlen(text), standard, is_utf8, &hash);

    if (class != wanted)
        fail_msg("`%s` is %s, not %s", text, names[class], names[wanted]);
}

static void expect(const char *text, enum statement_class wanted)
{
    expect_as(text, true, true, wanted);
}

static void expect_all(const char *const *texts, size_t count, enum statement_class wanted)
{
    for (size_t i = 0; i < count; i++)
        expect(texts[i], wanted);
}

#define EXPECT_ALL(texts, wanted) expect_all(texts, sizeof(texts) / sizeof((texts)[0]), wanted)

static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0;

    expect(text, STATEMENT_SHARES);
    assert_int_equal(class_of(text, strlen(text), true, true, &hash), STATEMENT_SHARES);
    return hash;
}

static void reads_share(void **state)
{
    static const char *const texts[] = {
        "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
        "select 1",
        "Select*from t",
        "SELECT",
        " \n/* a */ SELECT 1 ; -- b",
        "SELECT 1;;",
        "VALUES (1), (2)",
        "TABLE t",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "((select 1))",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT "
        "sum(i) FROM n",
        "WITH a AS MATERIALIZED (SELECT 1), b AS NOT MATERIALIZED (SELECT 2) SELECT * FROM a, b",
        "SELECT t.comment, t.\"set\", t.update FROM t",
        "SELECT \"update\", \"a\"\"b\" FROM \"insert into\"",
        "SELECT 'INSERT', $$DELETE$$, $a$ $$;' $a$, E'\\';\\\\', 'it''s; UPDATE' FROM t",
        "SELECT CASE WHEN a THEN (1) ELSE (2) END FROM t WHERE b IN (1, 2) AND NOT (c OR (d))",
        "SELECT count(*), pg_catalog.max(a) FILTER (WHERE b > 1) OVER (PARTITION BY c ORDER BY (d))"
        " FROM t GROUP BY ROLLUP (a, b)",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t GROUP BY GROUPING SETS "
        "((a), (b))",
        "SELECT a::numeric(10, 2), CAST(b AS character varying(20)), c::timestamp(3) FROM t",
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC NULLS LAST LIMIT 10 OFFSET (5)",
        "SELECT * FROM a JOIN (SELECT 1) AS b(c) USING (c) LEFT JOIN LATERAL (VALUES (1)) d ON (e)",
        "SELECT * FROM a JOIN (VALUES (1), (2)) AS b (c) ON true",
        "SELECT * FROM unnest(ARRAY[1, 2], ARRAY(SELECT 3)) WITH ORDINALITY AS t (a, b)",
        "SELECT * FROM json_to_recordset('[]') AS x(a int, b varchar(20))",
        "SELECT substring(a FROM 1 FOR 2), extract(year FROM now()), trim(both from b) FROM t",
        "SELECT * FROM t TABLESAMPLE system (10) REPEATABLE (1)",
        "SELECT * FROM t FETCH FIRST 10 ROWS ONLY",
        "SELECT a AT TIME ZONE ('UTC') FROM t",
        "SELECT a, b FROM t WHERE (a, b) = ($1, $2) AND c ->> 'x' ? 'y' AND d @> '{}'",
        "SELECT 1e5, 1.5, .5, 1., 1.5e-3, -1, a[1:2], $1 FROM t",
        "SELECT/**/count/* x */( /* ( */ 1 )-- )\n",
        "SELECT share, key FROM t WHERE \xc3\xa4 = '\xc3\xa4'",
        "SELECT current_date, current_timestamp(3), current_user",
        "SELECT a/*/* ; */ /* */*/, b",
        "SELECT date'2020-01-01', interval'1 day'",
        "SELECT 'a'\n'b'",
    };

    (void)state;
    EXPECT_ALL(texts, STATEMENT_SHARES);
}

static void what_begins_otherwise_does_not(void **state)
{
    static const char *const texts[] = {
        "",
        ";",
        "()",
        "INSERT INTO t VALUES (1)",
        "EXPLAIN SELECT 1",
        "1",
        "\"SELECT\"",
        "'a'",
        "SELECTA",
        "SHOW all",
        "-- a",
        "BEGIN",
        "$1",
        ", SELECT 1",
        ".select",
        "(((a))",
        "COPY t TO STDOUT",
    };

    (void)state;
    EXPECT_ALL(texts, STATEMENT_NO_READ);
}

static void words_that_are_more_than_a_read_do_not_share(void **state)
{
    static const char *const texts[] = {
        "WITH a AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM a",
        "WITH a AS (DELETE FROM t) SELECT 1",
        "WITH a AS(UPDATE t SET b = 1)SELECT 1",
        "WITH a AS (MERGE/**/ USING b) SELECT 1",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "SELECT * INTO b FROM t",
        "SELECT 1 iNtO b",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR--\nSHARE",
        "SELECT * FROM t FOR NO KEY UPDATE",
        "SELECT * FROM t FOR KEY/* */SHARE SKIP LOCKED",
        "SELECT * FROM (SELECT * FROM t FOR UPDATE) s",
        "SELECT 'a' 'b' into c",
        "SELECT t.* INTO b FROM t",
        "SELECT comment FROM t",
        "SELECT 1 AS start",
        "SELECT atomic",
        "SELECT t.atomic FROM t",
        "SELECT \"a\"into b",
        "SELECT 'a'into b",
        "SELECT $1 into b",
        "SELECT $$a$$into b",
        "SELECT(1)into b",
    };

    (void)state;
    EXPECT_ALL(texts, STATEMENT_KEYWORD);
}

static void functions_that_are_not_known_do_not_share(void **state)
{
    static const char *const texts[] = {
        "SELECT nextval('s')", "SELECT nextval ('s')", "SELECT nextval/* */('s')",
        "SELECT nextval--\n('s')", "SELECT pg_sleep(1)", "SELECT pg_catalog.nextval('s')",
        "SELECT pg_catalog . nextval('s')", "SELECT \"nextval\"('s')", "SELECT \"count\"(1)",
        "SELECT public.count(1)", "SELECT x.pg_catalog.count(1)",
        "SELECT \"pg_catalog\".nextval(1)", "SELECT \"pg_catalog\".count(1)",
        "SELECT pg_catalog.\"nextval\"('s')", "SELECT pg_catalog.coalesce(1)",
        "SELECT set_config('a', 'b', false), current_setting('a')", "SELECT f(1) FROM t",
        "SELECT * FROM (VALUES (1)) t(a)", "SELECT count\xc3\xa4(1)", "SELECT count$(1)",
        "SELECT _count(1)", "SELECT query_to_xml('DELETE FROM t', true, true, '')",
        "SELECT random(), setseed(0)",
        /* A value behind which a dot stands is an argument. */
        "SELECT (1.5).pg_sleep", "SELECT (1).f", "SELECT f[1].g FROM t", "SELECT $1.f",
        "SELECT ('s'::regclass).nextval", "SELECT (ARRAY['s'::regclass])[1].nextval",
        "SELECT (ARRAY['s'::regclass])[1] . \"nextval\"", "SELECT $1.pg_sleep",
        "SELECT ((SELECT 1.5)).pg_sleep", "SELECT x.pg_sleep FROM generate_series(0.1, 0.2) x",
        "SELECT x.\"pg_sleep\" FROM generate_series(0.1, 0.2) x",
        "SELECT \"x\".nextval FROM unnest(ARRAY['s'::regclass]) x",
        "SELECT x.LO_unlink FROM unnest(ARRAY[1::oid]) x", "SELECT TREAT(1.5 AS pg_sleep)",
        /* Keywords that a function may have as its name. */
        "SELECT over(1)", "SELECT DISTINCT ON (a) over(1) FROM t",
        "SELECT DISTINCT ON (a) b, filter(1) FROM t",
        "SELECT DISTINCT/**/ON (a) (a), 1 FROM t WHERE (a) repeatable(1)",
        "SELECT DISTINCT ON (a) nextval('s') FROM t", "SELECT by(1)", "SELECT cube(1)",
        "SELECT a FROM t ORDER BY rollup(1)", "SELECT sets(1)", "SELECT NOT materialized(1)",
        "SELECT varying(1)", "SELECT zone(1)", "SELECT system('ls')", "SELECT join(1)",
        "SELECT join((SELECT 1))", "SELECT join(values)", "SELECT t.as lower2(1) FROM t",
        "SELECT \"as\" f(1)", "SELECT 1 OPERATOR(public.+) 2",
        "WITH a AS (SELECT 1), b(c) AS (SELECT 2) SELECT 1", /* may be shared one day */
    };

    (void)state;
    EXPECT_ALL(texts, STATEMENT_FUNCTION);
}

static void several_statements_do_not_share(void **state)
{
    static const char *const texts[] = {
        "SELECT 1; SELECT 2", "SELECT 1;DELETE FROM t", "SELECT 1;/* */x",
        "SELECT ';'; x",      "SELECT $$;$$;;;x",       "SELECT '\\';DELETE FROM t; --'",
    };

    (void)state;
    EXPECT_ALL(texts, STATEMENT_SEVERAL);
}

static void doubtful_texts_do_not_share(void **state)
{
    static const char *const texts[] = {
        "SELECT 'a",
        "SELECT \"a",
        "SELECT \"\"",
        "SELECT $$a",
        "SELECT $a$b$A$",
        "SELECT $\xc3\xa4$a$\xc3\xa4$",
        "SELECT E'\\'",
        "SELECT E'\xc3\xa4'",
        "SELECT E'\\\xc3\xa4'",
        "SELECT E'a'\n'\\''; DELETE FROM t --'",
        "SELECT E'a' /* */'b'",
        "SELECT $$a$$'b'",
        "SELECT /* a",
        "SELECT /* /* */",
        "SELECT U&'a'",
        "SELECT u&\"a\"",
        "SELECT B'1', 1",
        "SELECT x'1'",
        "SELECT N'a'",
        "SELECT 1into b",
        "SELECT 1.into b",
        "SELECT 1e5into b",
        "SELECT 0x1f",
        "SELECT 1_000",
        "SELECT 1e",
        "SELECT 1e+",
        "SELECT 1..2",
        "SELECT 1.2.3",
        "SELECT 1$$into$$",
        "SELECT $1into b",
        "SELECT $1$$a$$",
        "SELECT $",
        "SELECT $a",
        "SELECT \\",
        "SELECT {",
        "SELECT \v1",
        "SELECT \x7f",
        "SELECT )",
        "SELECT (",
        "SELECT (1;)",
        "SELECT (1;",
        "SELECT (1));",
    };

    (void)state;
    EXPECT_ALL(texts, STATEMENT_DOUBT);
}

static void a_zero_is_doubtful(void **state)
{
    uint64_t hash;

    (void)state;
    assert_int_equal(class_of("SELECT 1\0", 9, true, true, &hash), STATEMENT_DOUBT);
    assert_int_equal(class_of("SELECT '\0'", 10, true, true, &hash), STATEMENT_DOUBT);
}

static void other_bytes_than_ascii_need_utf8(void **state)
{
    static const char *const texts[] = {"SELECT '\xc3\xa4'", "SELECT \xc3\xa4",
                                        "SELECT 1 -- \xc3\xa4", "SELECT \"\xc3\xa4\"",
                                        "SELECT 1 /* long enough \xc3\xa4 */"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        expect_as(texts[i], true, true, STATEMENT_SHARES);
        expect_as(texts[i], true, false, STATEMENT_DOUBT);
    }
}

static void backslashes_need_standard_conforming_strings(void **state)
{
    (void)state;
    expect_as("SELECT '\\'", true, true, STATEMENT_SHARES);
    expect_as("SELECT '\\'", false, true, STATEMENT_DOUBT);
    expect_as("SELECT '\\''", false, true, STATEMENT_DOUBT);
    expect_as("SELECT E'\\''", false, true, STATEMENT_SHARES);
    expect_as("SELECT 'a'", false, true, STATEMENT_SHARES);
    expect_as("SELECT '\\'';DELETE FROM t--'", false, true, STATEMENT_DOUBT);
}

static void long_texts_are_not_looked_at(void **state)
{
    static char text[STATEMENT_CLASS_BYTES_MAX + 2];
    uint64_t hash;

    (void)state;
    memset(text, ' ', sizeof(text));
    memcpy(text, "SELECT 1", 8);
    assert_int_equal(class_of(text, STATEMENT_CLASS_BYTES_MAX, true, true, &hash),
                     STATEMENT_SHARES);
    assert_int_equal(class_of(text, STATEMENT_CLASS_BYTES_MAX + 1, true, true, &hash),
                     STATEMENT_DOUBT);
}

static void a_class_is_a_text_without_its_values(void **state)
{
    uint64_t hash = hash_of("SELECT a FROM t WHERE aid = 1");

    (void)state;
    assert_true(hash == hash_of("SELECT a FROM t WHERE aid = 2;"));
    assert_true(hash == hash_of("SELECT a FROM t WHERE aid = $1"));
    assert_true(hash == hash_of("select A from T where AID='x''y'"));
    assert_true(hash == hash_of(" SELECT/**/a FROM t--\nWHERE aid = $$x$$ ;; "));
    assert_true(hash == hash_of("SELECT a FROM t WHERE aid = E'\\''"));
    assert_true(hash != hash_of("SELECT a FROM t WHERE bid = 1"));
    assert_true(hash != hash_of("SELECT a FROM t WHERE aid = b"));
    assert_true(hash != hash_of("SELECT a FROM t WHERE aid > 1"));
    assert_true(hash != hash_of("SELECT \"a\" FROM t WHERE aid = 1"));
    assert_true(hash != hash_of("SELECT a FROM t WHERE aid = 1, 2"
                                " OR b"));
    hash = hash_of("SELECT 1 FROM t WHERE a IN (1)");
    assert_true(hash == hash_of("SELECT 1 FROM t WHERE a IN (1, 2)"));
    assert_true(hash == hash_of("SELECT 1 FROM t WHERE a IN (1,'2' , $3)"));
    assert_true(hash != hash_of("SELECT 1 FROM t WHERE a IN (1, b)"));
    assert_true(hash != hash_of("SELECT 1 FROM t WHERE a IN (1,)"));
    assert_true(hash_of("SELECT a, b FROM a_long_name_of_a_table_a") !=
                hash_of("SELECT a, b FROM a_long_name_of_a_table_b"));
    assert_true(hash_of("SELECT a_long_name_1_of_a_column") !=
                hash_of("SELECT a_long_name_2_of_a_column"));
}

static void expect_text(const char *text, size_t room, const char *wanted)
{
    char out[256];

    memset(out, 'x', sizeof(out));
    expect(text, STATEMENT_SHARES);
    statement_class_text((const char *)edge_copy(&edge, text, strlen(text)), strlen(text), true,
                         out, room);
    assert_string_equal(out, wanted);
    assert_int_equal(out[room], 'x');
}

static void the_text_of_a_class_can_be_read(void **state)
{
    (void)state;
    expect_text(" SELECT  a,b /* x */ FROM\nt WHERE aid = 12 AND b='it''s' ; ", 200,
                "SELECT a,b FROM t WHERE aid = ? AND b=?");
    expect_text("SELECT E'\\'', $$a$$, $1, 1.5e3, \"a b\"", 200, "SELECT ?, ?, ?, ?, \"a b\"");
    expect_text("SELECT abc", 11, "SELECT abc");
    expect_text("SELECT abc", 10, "SELECT ab");
    expect_text("SELECT abc FROM t", 9, "SELECT a");
    expect_text("SELECT 1", 1, "");
    expect_text("SELECT \xc3\xa4 FROM t", 9, "SELECT ");
    expect_text("SELECT \xc3\xa4 FROM t", 10, "SELECT ");
    expect_text("SELECT \xc3\xa4 FROM t", 11, "SELECT \xc3\xa4 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_share),
        cmocka_unit_test(what_begins_otherwise_does_not),
        cmocka_unit_test(words_that_are_more_than_a_read_do_not_share),
        cmocka_unit_test(functions_that_are_not_known_do_not_share),
        cmocka_unit_test(several_statements_do_not_share),
        cmocka_unit_test(doubtful_texts_do_not_share),
        cmocka_unit_test(a_zero_is_doubtful),
        cmocka_unit_test(other_bytes_than_ascii_need_utf8),
        cmocka_unit_test(backslashes_need_standard_conforming_strings),
        cmocka_unit_test(long_texts_are_not_looked_at),
        cmocka_unit_test(a_class_is_a_text_without_its_values),
        cmocka_unit_test(the_text_of_a_class_can_be_read),
    };
    int failed;

    edge_init(&edge, STATEMENT_CLASS_BYTES_MAX + 2);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    edge_release(&edge);
    return failed;
}
