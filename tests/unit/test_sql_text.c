#include "unit.h"

#include "wire/sql_text.h"

enum { TEXT_BYTES_MAX = 4096 };

static struct edge edge;

/* Each text is read where it ends at an unreadable page. */
static enum sql_prepare_kind read_bytes(const char *text, size_t bytes, bool standard,
                                        struct sql_prepare *out)
{
    const char *copy = (const char *)edge_copy(&edge, text, bytes);
    enum sql_prepare_kind kind;

    memset(out, 0xaa, sizeof(*out));
    kind = sql_prepare_read(copy, bytes, standard, out);
    if (kind != SQL_OTHER)
        assert_true(sql_may_be_prepare(copy, bytes));
    if (kind == SQL_PREPARE || kind == SQL_EXECUTE || kind == SQL_DEALLOCATE) {
        assert_in_range(out->name_bytes, 1, SQL_NAME_BYTES_MAX);
        assert_int_equal(strlen(out->name), out->name_bytes);
        assert_in_range(out->written_offset, 1, bytes - 1);
        assert_in_range(out->written_bytes, 1, bytes - out->written_offset);
        assert_true(out->rest_offset >= out->written_offset + out->written_bytes);
        assert_true(out->rest_offset <= bytes);
        assert_true(out->rest_bytes <= bytes - out->rest_offset);
    }
    return kind;
}

static bool cacheable(const char *text, size_t bytes)
{
    return sql_is_cacheable((const char *)edge_copy(&edge, text, bytes), bytes);
}

static void expect_kind_if(const char *text, bool standard, enum sql_prepare_kind wanted)
{
    struct sql_prepare out;
    enum sql_prepare_kind kind = read_bytes(text, strlen(text), standard, &out);

    if (kind != wanted)
        fail_msg("`%s` is of kind %d, not %d", text, kind, wanted);
}

static void expect_other(const char *text)
{
    expect_kind_if(text, true, SQL_OTHER);
    expect_kind_if(text, false, SQL_OTHER);
}

/* `written` and `rest` are where the text has them, `rest` "" for nothing. */
static void expect_name_if(const char *text, bool standard, enum sql_prepare_kind wanted,
                           const char *name, const char *written, const char *rest)
{
    struct sql_prepare out;

    expect_kind_if(text, standard, wanted);
    (void)read_bytes(text, strlen(text), standard, &out);
    assert_string_equal(out.name, name);
    assert_int_equal(out.written_bytes, strlen(written));
    assert_memory_equal(text + out.written_offset, written, out.written_bytes);
    assert_int_equal(out.rest_bytes, strlen(rest));
    assert_memory_equal(text + out.rest_offset, rest, out.rest_bytes);
}

static void expect_name(const char *text, enum sql_prepare_kind wanted, const char *name,
                        const char *written, const char *rest)
{
    expect_name_if(text, true, wanted, name, written, rest);
    expect_name_if(text, false, wanted, name, written, rest);
}

static void a_prepare_is_read_with_its_name_and_what_follows(void **state)
{
    (void)state;
    expect_name("PREPARE p AS SELECT 1", SQL_PREPARE, "p", "p", "AS SELECT 1");
    expect_name("prepare P(int)as select $1;", SQL_PREPARE, "p", "P", "(int)as select $1");
    expect_name("Prepare p (int, numeric(10, 2), text[]) AS INSERT INTO t VALUES ($1, now()) ; ",
                SQL_PREPARE, "p", "p",
                "(int, numeric(10, 2), text[]) AS INSERT INTO t VALUES ($1, now())");
    expect_name("PREPARE/**/p/* ; */AS--x\nVALUES (1)--y", SQL_PREPARE, "p", "p",
                "AS--x\nVALUES (1)");
    expect_name("PREPARE p AS (SELECT ';' || \";\" || $$;$$ || $a$;$$;$a$ || E';') ;;\n",
                SQL_PREPARE, "p", "p", "AS (SELECT ';' || \";\" || $$;$$ || $a$;$$;$a$ || E';')");
    expect_name("PREPARE transaction AS TABLE t", SQL_PREPARE, "transaction", "transaction",
                "AS TABLE t");
    expect_name("PREPARE \"as\" AS MERGE INTO t", SQL_PREPARE, "as", "\"as\"", "AS MERGE INTO t");
    expect_name("PREPARE p AS WITH x AS (SELECT 1) UPDATE t SET a = 1e5, b = .5, c = a$b$c",
                SQL_PREPARE, "p", "p",
                "AS WITH x AS (SELECT 1) UPDATE t SET a = 1e5, b = .5, c = a$b$c");
    expect_name("PREPARE p AS DELETE FROM t", SQL_PREPARE, "p", "p", "AS DELETE FROM t");
}

static void an_execute_is_found_where_postgres_runs_one(void **state)
{
    (void)state;
    expect_name("EXECUTE p", SQL_EXECUTE, "p", "p", "");
    expect_name("execute\tp ;", SQL_EXECUTE, "p", "p", "");
    expect_name("EXECUTE\"P\"", SQL_EXECUTE, "P", "\"P\"", "");
    expect_name(" /* x */ -- y\n EXECUTE p(1, ')', (2)) -- z", SQL_EXECUTE, "p", "p",
                "(1, ')', (2))");
    expect_name("EXECUTE p('a', now())", SQL_EXECUTE, "p", "p", "('a', now())");
    expect_name("EXPLAIN EXECUTE p", SQL_EXECUTE, "p", "p", "");
    expect_name("EXPLAIN ANALYZE VERBOSE EXECUTE p (1)", SQL_EXECUTE, "p", "p", "(1)");
    expect_name("explain verbose execute p", SQL_EXECUTE, "p", "p", "");
    expect_name("EXPLAIN (ANALYZE, FORMAT json) EXECUTE p", SQL_EXECUTE, "p", "p", "");
    expect_name("CREATE TABLE t AS EXECUTE p", SQL_EXECUTE, "p", "p", "");
    expect_name("CREATE TEMP TABLE IF NOT EXISTS s.as (a, b) WITH (fillfactor = 70) ON COMMIT DROP "
                "AS EXECUTE p (1) WITH NO DATA;",
                SQL_EXECUTE, "p", "p", "(1) WITH NO DATA");
    expect_name("CREATE LOCAL TEMPORARY TABLE t AS EXECUTE p WITH DATA", SQL_EXECUTE, "p", "p",
                "WITH DATA");
    expect_name("EXPLAIN ANALYSE CREATE UNLOGGED TABLE t AS EXECUTE p", SQL_EXECUTE, "p", "p", "");
}

static void deallocate_and_discard_are_read(void **state)
{
    (void)state;
    expect_name("DEALLOCATE p", SQL_DEALLOCATE, "p", "p", "");
    expect_name("DEALLOCATE PREPARE p;", SQL_DEALLOCATE, "p", "p", "");
    expect_name("DEALLOCATE prepare", SQL_DEALLOCATE, "prepare", "prepare", "");
    expect_name("DEALLOCATE prepare prepare;", SQL_DEALLOCATE, "prepare", "prepare", "");
    expect_name("DEALLOCATE \"all\"", SQL_DEALLOCATE, "all", "\"all\"", "");
    expect_kind_if("DEALLOCATE ALL", true, SQL_DEALLOCATE_ALL);
    expect_kind_if("deallocate prepare all ; --", true, SQL_DEALLOCATE_ALL);
    expect_kind_if("DISCARD ALL", true, SQL_DISCARD_ALL);
    expect_kind_if("\ndiscard/**/all;", true, SQL_DISCARD_ALL);
}

static void names_are_folded_unquoted_and_cut_as_postgres_does(void **state)
{
    char text[256], name[SQL_NAME_BYTES_MAX + 1];
    struct sql_prepare out;

    (void)state;
    expect_name("EXECUTE _A$1z", SQL_EXECUTE, "_a$1z", "_A$1z", "");
    expect_name("EXECUTE \"A\"\"b; --\"", SQL_EXECUTE, "A\"b; --", "\"A\"\"b; --\"", "");
    expect_name("EXECUTE \"\"\"\"", SQL_EXECUTE, "\"", "\"\"\"\"", "");
    expect_name("EXECUTE e", SQL_EXECUTE, "e", "e", "");
    expect_name("EXECUTE u", SQL_EXECUTE, "u", "u", "");
    expect_other("EXECUTE \"\"");
    expect_other("EXECUTE U&\"p\"");
    expect_other("EXECUTE U&\"p\" UESCAPE '!'");
    expect_other("EXECUTE s.p");
    expect_other("EXECUTE 'p'");
    expect_other("EXECUTE $1");
    expect_other("EXECUTE 1p");
    for (size_t letters = 60; letters < 70; letters++)
        for (int quoted = 0; quoted < 2; quoted++) {
            size_t count = letters < SQL_NAME_BYTES_MAX ? letters : SQL_NAME_BYTES_MAX;
            int bytes = snprintf(text, sizeof(text), "EXECUTE %s%0*d%s", quoted ? "\"x\"\"" : "x_",
                                 (int)letters - 2, 7, quoted ? "\"" : "");

            (void)snprintf(name, count + 1, "%s%0*d", quoted ? "x\"" : "x_", (int)letters - 2, 7);
            assert_int_equal(read_bytes(text, (size_t)bytes, true, &out), SQL_EXECUTE);
            assert_string_equal(out.name, name);
            assert_int_equal(out.name_bytes, count);
        }
}

static void what_is_not_exactly_one_such_statement_is_other(void **state)
{
    static const char *const texts[] = {
        "",
        ";",
        "SELECT 1",
        "SELECT 'EXECUTE p'",
        "PREPARE TRANSACTION 'x'",
        "PREPARE p",
        "PREPARE p AS",
        "PREPARE p SELECT 1",
        "PREPARE p AS EXECUTE q",
        "PREPARE p() AS SELECT 1",
        "PREPARE p AS SELECT 1)",
        "PREPARE p AS SELECT (1",
        "PREPARE p AS SELECT (1; SELECT 2)",
        "PREPARE p AS SELECT 1; SELECT 2",
        "PREPARE p AS SELECT 1 \\",
        "PREPARE p AS SELECT 1 /* open",
        "PREPARE p AS SELECT 1 /* /* */",
        "PREPARE p AS SELECT 'open",
        "PREPARE p AS SELECT \"open",
        "PREPARE p AS SELECT $$open",
        "PREPARE p AS SELECT $a$open$$ $b$ $A$",
        "PREPARED p AS SELECT 1",
        "PREPAREp AS SELECT 1",
        "EXECUTE",
        "EXECUTE ;",
        "EXECUTE p q",
        "EXECUTE p()",
        "EXECUTE p(1) (2)",
        "EXECUTE p WITH DATA",
        "EXECUTE p; EXECUTE p",
        "; EXECUTE p",
        "EXECUTE p; /* open",
        "EXECUTE p\v",
        "(EXECUTE p)",
        "BEGIN; EXECUTE p",
        "EXPLAIN SELECT 1",
        "EXPLAIN VERBOSE ANALYZE EXECUTE p",
        "EXPLAIN (SELECT 1)",
        "EXPLAIN EXPLAIN EXECUTE p",
        "CREATE TABLE t (a int)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TABLE AS EXECUTE p",
        "CREATE TABLE s.as EXECUTE p",
        "CREATE TABLE t AS EXECUTE p WITH NO",
        "CREATE MATERIALIZED VIEW v AS EXECUTE p",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'EXECUTE p'",
        "DEALLOCATE",
        "DEALLOCATE p q",
        "DEALLOCATE p (1)",
        "DEALLOCATE ALL p",
        "DEALLOCATE ALL; DEALLOCATE ALL",
        "DISCARD",
        "DISCARD PLANS",
        "DISCARD ALL ALL",
        "DISCARD \"all\"",
        "EXECUTE p -- \xc3\xa4",
        "EXECUTE p('\xc3\xa4')",
        "EXECUTE \xc3\xa4",
    };
    struct sql_prepare out;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect_other(texts[i]);
    assert_int_equal(read_bytes("EXECUTE p\0", 10, true, &out), SQL_OTHER);
    assert_int_equal(read_bytes("EXECUTE p(\0)", 12, true, &out), SQL_OTHER);
}

static void strings_end_where_postgres_says(void **state)
{
    (void)state;
    /* A backslash before a quote is an escape in E'' always and in '' by the setting. */
    expect_name("EXECUTE p(E'\\'); DISCARD ALL; --')", SQL_EXECUTE, "p", "p",
                "(E'\\'); DISCARD ALL; --')");
    expect_kind_if("EXECUTE p('\\'); DISCARD ALL; --')", true, SQL_OTHER);
    expect_kind_if("EXECUTE p('\\'); DISCARD ALL; --')", false, SQL_EXECUTE);
    expect_kind_if("EXECUTE p('\\')", true, SQL_EXECUTE);
    expect_kind_if("EXECUTE p('\\')", false, SQL_OTHER);
    expect_kind_if("EXECUTE p(N'\\')", true, SQL_EXECUTE);
    expect_kind_if("EXECUTE p(N'\\')", false, SQL_OTHER);
    expect_kind_if("EXECUTE p(U&'\\0061')", true, SQL_EXECUTE);
    expect_kind_if("EXECUTE p(U&'\\0061')", false, SQL_OTHER);
    expect_name("EXECUTE p('''', '''a''', '')", SQL_EXECUTE, "p", "p", "('''', '''a''', '')");
    expect_name("EXECUTE p(B'1', x'f')", SQL_EXECUTE, "p", "p", "(B'1', x'f')");
    expect_other("EXECUTE p(B'\\')");
    /* name'...' is a type and a string, not an E''. */
    expect_kind_if("EXECUTE p(date'\\')", true, SQL_EXECUTE);
    /* Two strings with a line feed between are one: the second is read as the first began. */
    expect_kind_if("EXECUTE p('a'\n'\\')", true, SQL_EXECUTE);
    expect_kind_if("EXECUTE p('a'\n'\\'')", false, SQL_EXECUTE);
    expect_other("EXECUTE p(E'a'\n'\\')");
    expect_other("EXECUTE p(E'a' -- x\n'\\'')");
    expect_other("EXECUTE p(B'1'\n'\\')");
    /* Dollars. */
    expect_name("EXECUTE p($$'$$, $x$ $$ $y$ $x$, $_1$\"$_1$)", SQL_EXECUTE, "p", "p",
                "($$'$$, $x$ $$ $y$ $x$, $_1$\"$_1$)");
    expect_name("EXECUTE p($a$x$$a$)", SQL_EXECUTE, "p", "p", "($a$x$$a$)");
    expect_other("EXECUTE p($a$x$aa$)");
    expect_name("EXECUTE p(a$$b, $$)$$)", SQL_EXECUTE, "p", "p", "(a$$b, $$)$$)");
    expect_name("EXECUTE p($1$$)$$)", SQL_EXECUTE, "p", "p", "($1$$)$$)");
    expect_other("EXECUTE p($1a)");
    expect_other("EXECUTE p($)");
    /* Comments inside of operators, nested comments. */
    expect_name("EXECUTE p(1 +-- )\n2 */*)/* )*/ */ 3)", SQL_EXECUTE, "p", "p",
                "(1 +-- )\n2 */*)/* )*/ */ 3)");
    expect_name("EXECUTE p/*/*/**/*/*/", SQL_EXECUTE, "p", "p", "");
    expect_other("EXECUTE p/*/");
    expect_name("EXECUTE p--\r(1)", SQL_EXECUTE, "p", "p", "(1)");
    /* Where versions of PostgreSQL disagree. */
    expect_other("EXECUTE p(1e'\\')");
    expect_other("EXECUTE p(0x1f$$)$$)");
    expect_name("EXECUTE p(1_000, 0x1f, 1e-5, 1..2)", SQL_EXECUTE, "p", "p",
                "(1_000, 0x1f, 1e-5, 1..2)");
}

static const char *const seeds[] = {
    "PREPARE p (int) AS SELECT $1, ';', E'\\'', $a$ $$ $a$, \"x\"\"y\" /* /* */ */ ; -- end",
    "EXPLAIN (ANALYZE) EXECUTE \"P\"\"q\" (1, 'a''b', U&'x', 1e5, a$b) ;",
    "CREATE TEMP TABLE IF NOT EXISTS s.t (a) AS EXECUTE p (B'1') WITH NO DATA",
    "DEALLOCATE PREPARE \"all\";",
    "/* c */ DISCARD ALL -- x",
    "SELECT \"a\"\"b\", $1 /* c */ FROM t WHERE a - b / c & d = $2; -- end",
    "WITH x AS (SELECT 1) UPDATE t SET a = $1 WHERE \"u\" &\"v\" ",
};

static void every_truncation_stays_inside(void **state)
{
    struct sql_prepare out;

    (void)state;
    for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++)
        for (size_t bytes = 0; bytes <= strlen(seeds[i]); bytes++) {
            (void)read_bytes(seeds[i], bytes, true, &out);
            (void)read_bytes(seeds[i], bytes, false, &out);
            (void)cacheable(seeds[i], bytes);
        }
}

/* What surrounds a statement changes neither what it is nor its name, and each name that was read
 * is read again when it is written in quotes. */
static void mutated_texts_keep_the_promises(void **state)
{
    static const char pieces[] = "'\"$;()/*-\\ \n.&ueEbx1aAsp,";
    uint64_t seed = 3;
    size_t known = 0;

    (void)state;
    for (int run = 0; run < 200000; run++) {
        const char *from = seeds[random_below(&seed, sizeof(seeds) / sizeof(seeds[0]))];
        size_t bytes = strlen(from);
        char text[256], around[300];
        struct sql_prepare out, again;
        bool standard = random_below(&seed, 2) == 0;
        enum sql_prepare_kind kind;
        int around_bytes;

        memcpy(text, from, bytes);
        for (uint64_t i = random_below(&seed, 4); i > 0; i--) {
            size_t at = random_below(&seed, bytes), more = random_below(&seed, 3);

            memmove(text + at + more, text + at + 1, bytes - at - 1);
            bytes = bytes + more - 1;
            while (more > 0)
                text[at + --more] = pieces[random_below(&seed, sizeof(pieces) - 1)];
        }
        kind = read_bytes(text, bytes, standard, &out);
        around_bytes = snprintf(around, sizeof(around), " --'\n%.*s\n/*'*/;", (int)bytes, text);
        if (kind != SQL_OTHER) {
            known++;
            assert_int_equal(read_bytes(around, (size_t)around_bytes, standard, &again), kind);
            assert_false(cacheable(text, bytes));
        }
        if (cacheable(text, bytes))
            assert_true(cacheable(around, (size_t)around_bytes - 1));
        if (kind == SQL_PREPARE || kind == SQL_EXECUTE || kind == SQL_DEALLOCATE) {
            assert_string_equal(again.name, out.name);
            assert_int_equal(again.rest_bytes, out.rest_bytes);
            bytes = (size_t)snprintf(around, sizeof(around), "EXECUTE \"");
            for (size_t i = 0; i < out.name_bytes; i++) {
                if (out.name[i] == '"')
                    around[bytes++] = '"';
                around[bytes++] = out.name[i];
            }
            around[bytes++] = '"';
            assert_int_equal(read_bytes(around, bytes, standard, &again), SQL_EXECUTE);
            assert_string_equal(again.name, out.name);
        }
    }
    assert_true(known > 20000);
}

static void the_first_look_is_cheap_and_never_wrong(void **state)
{
    static const char *const no[] = {"SELECT 1, 2, 3",
                                     "BEGIN",
                                     "COMMIT",
                                     "UPDATE t SET a = 1",
                                     "EXECUTE",
                                     " select 'x' from t",
                                     "/* x */ insert into t values (1)",
                                     "/* EXECUTE p",
                                     "delete from t",
                                     "DECLARE c CURSOR FOR SELECT 1"};
    static const char *const yes[] = {"EXECUTE p",         "\n\t/* x */--\nprepare p as select 1",
                                      "Deallocate x",      "DISCARD ALL",
                                      "explain execute p", "CREATE TABLE t AS EXECUTE p"};

    (void)state;
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        assert_false(sql_may_be_prepare((const char *)edge_copy(&edge, no[i], strlen(no[i])),
                                        strlen(no[i])));
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        assert_true(sql_may_be_prepare((const char *)edge_copy(&edge, yes[i], strlen(yes[i])),
                                       strlen(yes[i])));
}

static void texts_without_literals_are_cacheable(void **state)
{
    static const char *const yes[] = {
        "SELECT 1",
        "SELECT",
        "select $1, $22, a$1 from t where x = any($2) and y <> 1.5e-3",
        " \n/* it's */ -- 'now'\nSELECT 1 -- $$ it's",
        "SELECT \"a'b\", \"c\"\"d;\", \"$$\", \"U&\" FROM \"t\";",
        "SELECT a - b, a / b, a & b, a -/ b",
        "INSERT INTO t VALUES ($1);\n /* x */ --",
        "UPDATE t SET a = $1",
        "DELETE FROM t",
        "VALUES ($1)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "TABLE t",
        "SELECT/**/1",
        "SELECT\"a\"",
        "SELECT 1 /* ; */ ; /* ; */",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        if (!cacheable(yes[i], strlen(yes[i])))
            fail_msg("`%s` is cacheable", yes[i]);
}

static void doubtful_texts_are_not_cacheable(void **state)
{
    static const char *const no[] = {
        "",
        ";",
        "SELEC",
        "SELECTX 1",
        "SELECT$ 1",
        "SELECT1",
        "BEGIN",
        "SHOW x",
        "EXECUTE p",
        "(SELECT 1)",
        "SELECT 'now'",
        "SELECT 1 -- x\n, 'now'",
        "SELECT \"a\"\"b\", 'x'",
        "SELECT \"a\" 'x\"'",
        "SELECT /* /* */ 'x' */ '",
        "SELECT /* */ 'x' /* */",
        "SELECT $$now$$",
        "SELECT $a$now$a$",
        "SELECT $1$$now$$",
        "SELECT $",
        "SELECT a$",
        "SELECT 1;;",
        "SELECT 1; SELECT 2",
        "SELECT 1; \"",
        "SELECT 1; /*",
        "SELECT 1 /*",
        "SELECT \"open",
        "SELECT U&\"x\"",
        "SELECT u&1",
        "SELECT \\",
        "SELECT 1\v",
        "SELECT \x7f",
        "SELECT \xc3\xa4",
        "SELECT \"\xc3\xa4\"",
        "SELECT 1 /* \xc3\xa4 */",
        "SELECT 1 -- \xc3\xa4",
        "SELECT 1; -- \xc3\xa4",
        "/* \xc3\xa4 */ SELECT 1",
        "/* open SELECT 1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        if (cacheable(no[i], strlen(no[i])))
            fail_msg("`%s` is not cacheable", no[i]);
    assert_false(cacheable("SELECT 1\0", 9));
    assert_false(cacheable("SELECT \"\0\"", 10));
    assert_false(cacheable("SELECT 1 -- \0", 13));
}

/* One byte in the middle decides, and the bytes that may stand there are known. */
static void each_byte_is_ordinary_or_not(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char text[] = "SELECT a ? b";
        bool wanted = byte == '\t' || byte == '\n' || byte == '\f' || byte == '\r' ||
                      (byte >= ' ' && byte < 0x7f && strchr("'\"$;\\", byte) == NULL);

        text[9] = (char)byte;
        if (cacheable(text, sizeof(text) - 1) != wanted)
            fail_msg("byte %d", byte);
    }
}

/* Puts the statements into `out`, each in brackets; false: in doubt. */
static bool split_bytes(const char *text, size_t bytes, bool standard, bool is_utf8, char *out)
{
    const char *copy = (const char *)edge_copy(&edge, text, bytes);
    size_t last = 0, offset, count;
    struct sql_splitter splitter;

    *out = '\0';
    if (!sql_split_begin(&splitter, copy, bytes, standard, is_utf8))
        return false;
    for (;;)
        switch (sql_split_next(&splitter, &offset, &count)) {
        case SQL_SPLIT_STATEMENT:
            assert_true(offset >= last && count > 0 && offset + count <= bytes);
            last = offset + count;
            *out++ = '[';
            memcpy(out, copy + offset, count);
            out += count;
            *out++ = ']';
            *out = '\0';
            break;
        case SQL_SPLIT_END:
            return true;
        case SQL_SPLIT_DOUBT:
            return false;
        }
}

static void expect_split_if(const char *text, bool standard, bool is_utf8, const char *wanted)
{
    char found[2 * TEXT_BYTES_MAX];
    bool certain = split_bytes(text, strlen(text), standard, is_utf8, found);

    if (certain != (wanted != NULL) || (certain && strcmp(found, wanted) != 0))
        fail_msg("`%s` is cut into `%s`", text, certain ? found : "doubt");
}

static void expect_split(const char *text, const char *wanted)
{
    expect_split_if(text, true, false, wanted);
    expect_split_if(text, false, false, wanted);
    expect_split_if(text, true, true, wanted);
}

static void a_text_is_cut_where_postgres_does(void **state)
{
    (void)state;
    expect_split("", "");
    expect_split(" ; ;; -- ; \n /* ; */ ", "");
    expect_split("select 1", "[select 1]");
    expect_split("select 1;", "[select 1]");
    expect_split("SAVEPOINT _per_query_svp_;DEALLOCATE \"_PLAN0x1\";RELEASE _per_query_svp_",
                 "[SAVEPOINT _per_query_svp_][DEALLOCATE \"_PLAN0x1\"][RELEASE _per_query_svp_]");
    expect_split("/* ; */ a -- ;\n ;; b /* c */ ; --\n", "[a][b]");
    expect_split("a ';' \";\" $$;$$ $x$;$$;$x$ E'\\';' b; c",
                 "[a ';' \";\" $$;$$ $x$;$$;$x$ E'\\';' b][c]");
    expect_split("a '' ';\n' ';' \"\"\";\" /* /* ; */ ; */ b;c",
                 "[a '' ';\n' ';' \"\"\";\" /* /* ; */ ; */ b][c]");
    expect_split("create rule r as on insert to t do also (select 1; select 2); b",
                 "[create rule r as on insert to t do also (select 1; select 2)][b]");
    expect_split("a$b;c$d", "[a$b][c$d]");
    expect_split("select $1;b", "[select $1][b]");
    expect_split("E';';b", "[E';'][b]");
    expect_split_if("a '\\';b'", true, false, NULL);
    expect_split_if("a '\\';b';c", false, false, "[a '\\';b'][c]");
    expect_split_if("a '\\';b", true, false, "[a '\\'][b]");
}

static void what_cannot_be_cut_for_certain_is_left_alone(void **state)
{
    char out[64];

    (void)state;
    expect_split("a; select '", NULL);
    expect_split("a; select \"", NULL);
    expect_split("a; select $$ ;", NULL);
    expect_split("a; /* ", NULL);
    expect_split("a; (b", NULL);
    expect_split("a; b)", NULL);
    expect_split("a; (b;", NULL);
    expect_split("create function f() returns int begin atomic select 1; select 2; end; a", NULL);
    expect_split("a; b\v; c", NULL);
    expect_split("a; E'x'\n';'; c", NULL);
    expect_split("a; 1e';'", NULL);
    expect_split("a; \\;", NULL);
    assert_false(split_bytes("a;\0;b", 5, true, true, out));
    assert_false(split_bytes("a;'\0';b", 7, true, true, out));
    /* In SJIS and others a byte that looks like a quote or a backslash may be half a character. */
    expect_split_if("a '\xe4\xb8\xad;';b", true, false, NULL);
    expect_split_if("a '\xe4\xb8\xad;';b", true, true, "[a '\xe4\xb8\xad;'][b]");
    expect_split_if("a \"\xc3\xa9;\";/* \xc3\xa9; */ b", true, true, "[a \"\xc3\xa9;\"][b]");
    expect_split_if("\xc3\xa9;b", true, true, NULL);
    expect_split_if("$\xc3\xa9$;$\xc3\xa9$;b", true, true, NULL);
    expect_split_if("a\xc3\xa9';';b", true, true, NULL);
}

static bool may_have_more(const char *text)
{
    size_t bytes = strlen(text);

    return sql_may_have_more((const char *)edge_copy(&edge, text, bytes), bytes);
}

static void the_first_look_at_several_is_cheap(void **state)
{
    (void)state;
    assert_true(may_have_more("rollback;DEALLOCATE s"));
    assert_true(may_have_more("rollback ; \n\t execute s; select 1"));
    assert_true(may_have_more("a;b;c;Discard all"));
    assert_true(may_have_more("a;;deallocate s"));
    assert_true(may_have_more("a; -- x\n deallocate s"));
    assert_true(may_have_more("a;/**/deallocate s"));
    assert_false(may_have_more(""));
    assert_false(may_have_more("select 1"));
    assert_false(may_have_more("select 1;"));
    assert_false(may_have_more("select 1; \n"));
    assert_false(may_have_more("begin; select deallocate; commit;"));
    assert_false(may_have_more("begin;;;;"));
    assert_false(may_have_more("begin;dealloc"));
    assert_false(may_have_more("begin;-"));
    assert_true(sql_begins_with("DEALLOCATE x", 12, "deallocate"));
    assert_true(sql_begins_with("DEALLOCATE\"x\"", 13, "deallocate"));
    assert_true(sql_begins_with("deallocate", 10, "deallocate"));
    assert_false(sql_begins_with("deallocated", 11, "deallocate"));
    assert_false(sql_begins_with("deallocat", 9, "deallocate"));
}

/* A statement that the splitter finds and the reader knows is never missed by the first look. */
static void mutated_texts_are_cut_inside(void **state)
{
    static const char *const texts[] = {
        "begin;deallocate s;select ';', $$;$$, \"x\" /* ; */;execute p(1);discard all",
        "select 1; -- x\n;;deallocate all ;E'\\';';(a;b);explain execute p;",
    };
    static const char letters[] = ";'\"$/*-\\ \nEe(1)\xc3\xa9";
    char found[2 * TEXT_BYTES_MAX];
    uint32_t seed = 1;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        char text[128];
        size_t bytes = strlen(texts[round & 1]), offset, count;
        struct sql_splitter splitter;
        const char *copy;

        memcpy(text, texts[round & 1], bytes);
        for (unsigned i = 0; i < 1 + (round >> 1) % 4; i++) {
            seed = seed * 1664525 + 1013904223;
            text[(seed >> 8) % bytes] = letters[(seed >> 20) % (sizeof(letters) - 1)];
        }
        bytes -= (seed >> 5) % 16;
        (void)split_bytes(text, bytes, (round & 4) != 0, (round & 8) != 0, found);
        copy = (const char *)edge_copy(&edge, text, bytes);
        if (!sql_split_begin(&splitter, copy, bytes, true, true))
            continue;
        while (sql_split_next(&splitter, &offset, &count) == SQL_SPLIT_STATEMENT) {
            struct sql_prepare out;

            if (sql_prepare_read(copy + offset, count, true, &out) != SQL_OTHER)
                assert_true(sql_may_be_prepare(copy, bytes) || sql_may_have_more(copy, bytes));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prepare_is_read_with_its_name_and_what_follows),
        cmocka_unit_test(an_execute_is_found_where_postgres_runs_one),
        cmocka_unit_test(deallocate_and_discard_are_read),
        cmocka_unit_test(names_are_folded_unquoted_and_cut_as_postgres_does),
        cmocka_unit_test(what_is_not_exactly_one_such_statement_is_other),
        cmocka_unit_test(strings_end_where_postgres_says),
        cmocka_unit_test(every_truncation_stays_inside),
        cmocka_unit_test(mutated_texts_keep_the_promises),
        cmocka_unit_test(the_first_look_is_cheap_and_never_wrong),
        cmocka_unit_test(texts_without_literals_are_cacheable),
        cmocka_unit_test(doubtful_texts_are_not_cacheable),
        cmocka_unit_test(each_byte_is_ordinary_or_not),
        cmocka_unit_test(a_text_is_cut_where_postgres_does),
        cmocka_unit_test(what_cannot_be_cut_for_certain_is_left_alone),
        cmocka_unit_test(the_first_look_at_several_is_cheap),
        cmocka_unit_test(mutated_texts_are_cut_inside),
    };
    int failed;

    edge_init(&edge, TEXT_BYTES_MAX);
    failed = cmocka_run_group_tests_name("sql_text", tests, NULL, NULL);
    edge_release(&edge);
    return failed;
}
