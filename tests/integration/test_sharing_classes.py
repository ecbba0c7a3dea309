"""What wire/statement_class.h lets share leaves no trace on a real PostgreSQL.

A generator makes SQL of all kinds, with the functions of pg_proc, and mutates it. What shares is run, as a superuser, in a session
whose state and database must be the same afterwards. SHARING_STATEMENTS=100000 runs so many, SHARING_SEED draws others.
"""

import os
import random
import re
import struct
import subprocess

import pgwire
from harness import TOP, ours, same, slow
from test_kernel import compiled

UNKNOWN, SHARES, NO_READ, KEYWORD, FUNCTION, SEVERAL, DOUBT = range(7)
BATCH = 100
PATIENCE = 60  # seconds: the machine may be busy
SOURCE = "src/wire/statement_class.c"


def classifier(t):
    return compiled(t, "tests/integration/statement_class_say.c", "statement_class_say", os.path.join(TOP, SOURCE),
                    os.path.join(TOP, "src/wire/sql_text.c"), "-I" + os.path.join(TOP, "include"), "-D_GNU_SOURCE")


def classes(binary, texts, standard=True, utf8=True):
    given = "".join(f"{int(standard)}{int(utf8)} {text.encode('utf-8').hex()}\n" for text in texts)
    done = subprocess.run([binary], input=given, capture_output=True, text=True, check=True)
    said = [int(line) for line in done.stdout.split()]
    same(len(said), len(texts))
    return said


# ---- the table of functions ---------------------------------------------------------------------

# Volatile by PostgreSQL's word, since they answer otherwise each time. They touch nothing.
VOLATILE_BUT_HARMLESS = {"clock_timestamp", "gen_random_uuid"}
# Not volatile by PostgreSQL's word, but not for us: they assign a transaction number, run SQL that they are given, or say something
# about the session or the server process. Names that are refused by a rule need not be here.
HARMFUL = """txid_current pg_current_xact_id current_setting pg_backend_pid table_to_xml database_to_xml schema_to_xml
    table_to_xml_and_xmlschema schema_to_xml_and_xmlschema database_to_xml_and_xmlschema pg_cursor pg_listening_channels
    pg_prepared_statement pg_my_temp_schema inet_client_addr inet_client_port inet_server_addr inet_server_port
    pg_trigger_depth pg_current_snapshot txid_current_snapshot pg_current_xact_id_if_assigned
    txid_current_if_assigned pg_conf_load_time pg_show_all_settings pg_get_viewdef pg_get_ruledef""".split()


def table_of_functions():
    with open(os.path.join(TOP, SOURCE)) as file:
        block = re.search(r"\{FUNCTION,(.*?)\},", file.read(), re.DOTALL)[1]
    return sorted(set(" ".join(re.findall(r'"([^"]*)"', block)).split()))


@ours
@slow(90)
def test_functions_that_share_are_known_and_harmless(t):
    binary = classifier(t)
    table = table_of_functions()
    assert len(table) > 300, len(table)
    with t.postgres.connect(timeout=PATIENCE) as client:
        rows = client.query("SELECT proname, provolatile, lanname, proname = ANY (ARRAY(SELECT word FROM pg_get_keywords() WHERE "
                            "catcode IN ('R', 'C'))), prosrc FROM pg_proc p JOIN pg_language l ON l.oid = prolang "
                            "WHERE pronamespace = 'pg_catalog'::regnamespace").rows
    volatile = {name for name, how, *_ in rows if how == "v"}
    names = {name for name, *_ in rows}
    keywords = {name for name, _, _, is_keyword, _ in rows if is_keyword == "t"}
    same([name for name in table if name not in names], [], "not in pg_catalog")
    same([name for name in table if name in volatile], sorted(VOLATILE_BUT_HARMLESS), "volatile")
    same([name for name in table if name in HARMFUL], [], "harmful")
    # These families run SQL that they are given, read the catalog by SQL, or files, or know what the server does.
    same([name for name in table if re.search("xml|query_to|cursor_to|^ts_stat|^ts_rewrite|^pg_get_|^lo_|^pg_stat|^pg_ls", name)], [])
    # Whether a function of pg_catalog shares is decided by the table alone.
    forms = ("SELECT {}(1)", "SELECT pg_catalog.{}(1)", "SELECT a, {} /* */ (1) FROM t", "VALUES (1, {}(1))")
    for form in forms:
        said = dict(zip(sorted(names), classes(binary, [form.format(name) for name in sorted(names)]), strict=True))
        shares = {name for name, class_ in said.items() if class_ == SHARES}
        same(shares - set(table) - keywords, set(), form)
        same([name for name in table if name not in shares], [], form)
    # A volatile one of one argument is called in these ways, too.
    for form in ("SELECT (a).{} FROM t", "SELECT x.{} FROM unnest(a) x", "SELECT x.\"{}\" FROM unnest(a) x",
                 "SELECT a[1].{} FROM t", "SELECT \"{}\"(1)", "SELECT TREAT(1 AS {})"):
        said = dict(zip(sorted(volatile), classes(binary, [form.format(name) for name in sorted(volatile)]), strict=True))
        with t.postgres.connect(timeout=PATIENCE) as client:
            called = {name for name, in client.query(
                "SELECT DISTINCT proname FROM pg_proc WHERE provolatile = 'v' AND pronargs - pronargdefaults <= 1 AND pronargs >= 1 "
                "AND pronamespace = 'pg_catalog'::regnamespace AND prorettype NOT IN ('trigger'::regtype) "
                "AND NOT 'internal'::regtype = ANY (proargtypes)").rows}
        same({name for name in called if said[name] == SHARES}, set(), form)


# ---- the generator ------------------------------------------------------------------------------

SETUP = """
CREATE SEQUENCE s; CREATE SEQUENCE nextval_of;
CREATE TABLE t (a int PRIMARY KEY, b text, c numeric, d timestamptz, e jsonb, f int[], g bool, "update" int, "Sp ace" text);
INSERT INTO t SELECT i, 'b' || i, i / 3.0, '2020-01-01'::timestamptz + i * interval '1 day', jsonb_build_object('k', i),
  ARRAY[i, i + 1], i % 2 = 0, i, 'x' FROM generate_series(1, 12) i;
CREATE TABLE u (a int, h text); INSERT INTO u SELECT i, 'h' FROM generate_series(1, 5) i;
CREATE TABLE "into" (x int); CREATE TABLE empty_ (a int);
CREATE FUNCTION f(int DEFAULT 1) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION g(t) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION over(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION filter(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION repeatable(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION join(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION by(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION sets(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION cube(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION rollup(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION materialized(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION recursive(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION varying(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION zone(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION system(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION ilike(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE FUNCTION tablesample(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
CREATE SCHEMA x; CREATE FUNCTION x.count(int) RETURNS int LANGUAGE sql AS 'INSERT INTO u VALUES ($1); SELECT 1';
"""
OWN = "f over filter repeatable join by sets cube rollup materialized recursive varying zone system ilike tablesample".split()

# Everything a later exchange of somebody else could notice, as one row.
STATE = """SELECT ROW(
  (SELECT md5(string_agg(name || '=' || coalesce(setting, '-'), ',' ORDER BY name)) FROM pg_settings),
  current_setting('own.setting', true), current_setting('role'),
  (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors),
  ARRAY(SELECT pg_listening_channels()),
  (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype NOT IN ('relation', 'virtualxid')),
  (SELECT count(*) FROM pg_class WHERE relpersistence = 't'), pg_my_temp_schema(),
  (SELECT ROW(count(*), sum(oid::int8), md5(string_agg(relname, ',' ORDER BY oid))) FROM pg_class),
  (SELECT ROW(count(*), sum(oid::int8)) FROM pg_proc), (SELECT count(*) FROM pg_authid),
  (SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_description), (SELECT count(*) FROM pg_db_role_setting),
  (SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM pg_replication_slots),
  (SELECT ROW(last_value, is_called, log_cnt) FROM s), (SELECT ROW(last_value, is_called) FROM nextval_of),
  txid_snapshot_xmax(txid_current_snapshot()), txid_current_if_assigned(),
  (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM t), (SELECT md5(string_agg(u::text, ',' ORDER BY u::text)) FROM u),
  (SELECT count(*) FROM "into"), (SELECT count(*) FROM empty_))::text"""

# Literals of the types of functions' arguments.
OF_TYPE = {
    'integer': "1 | 0 | -3 | 7 | a", 'bigint': "1 | 40 | a", 'smallint': "1::int2 | 2::int2", 'numeric': "1.5 | c | 0.1 | 2",
    'double precision': "0.5 | 1e0 | 30", 'real': "1.5::real", 'text': "'b' | 'abc' | b | 'UTF8' | 'a,b' | 'year' | '' | 's' | 'select 1'",
    'name': "'b'::name | 'UTF8'::name", 'boolean': "true | g | false", 'date': "'2020-02-03'::date",
    'timestamp without time zone': "'2020-02-03 04:05'::timestamp", 'timestamp with time zone': "d | now()",
    'interval': "interval '1 day' | '2 hours'::interval", 'time without time zone': "time '10:00'", 'time with time zone': "'10:00+01'::timetz",
    'json': "'{\"a\":[1,2]}'::json | '[1]'::json", 'jsonb': "e | '[1,{\"k\":2}]'::jsonb", 'anyarray': "f | ARRAY[1,2] | ARRAY['x']",
    'anyelement': "1 | 'x'::text | a", 'anycompatible': "1 | a", 'anycompatiblearray': "f | ARRAY[1,2]", 'anynonarray': "1 | 'x'::text",
    'any': "a | 'x'::text | 1", '"any"': "a | 'x'::text | 1", 'VARIADIC': "1", 'record': "ROW(1,2) | t", 'integer[]': "f | ARRAY[1,2]",
    'text[]': "ARRAY['a','b'] | '{a,1}'::text[]", 'anyrange': "int4range(1,3)", 'anymultirange': "'{[1,3)}'::int4multirange", 'anyenum': "NULL",
    'oid': "1::oid | 's'::regclass::oid", 'regclass': "'s'::regclass | 't'::regclass", 'bytea': "'\\x0102'::bytea",
    'uuid': "'00000000-0000-0000-0000-000000000001'::uuid", 'inet': "'10.0.0.1/8'::inet", 'cidr': "'10.0.0.0/8'::cidr", 'point': "point(1,2)",
    'box': "'(1,1),(0,0)'::box", 'circle': "'<(0,0),1>'::circle", 'polygon': "'((0,0),(1,1),(1,0))'::polygon", 'path': "'((0,0),(1,1))'::path",
    'lseg': "'[(0,0),(1,1)]'::lseg", 'line': "'{1,2,3}'::line", 'tsvector': "'a b:2'::tsvector | to_tsvector('x y')", 'tsquery': "'a&b'::tsquery",
    'bit': "'101'::bit(3)", 'bit varying': "'101'::varbit", 'character varying': "'v'::varchar", 'character': "'c'::char", '"char"': "'c'::\"char\"",
    'money': "'1'::money", 'jsonpath': "'$.a'::jsonpath", 'regconfig': "'simple'::regconfig", 'cstring': "'x'::cstring", 'xml': "'<a/>'::xml",
    'regprocedure': "'now()'::regprocedure", 'regtype': "'int'::regtype",
}
TABLES = ("t", "u", "t AS v", "(SELECT * FROM t) v", "(VALUES (1, 'x')) AS v (a, b)", "generate_series(1, 3) AS a", "unnest(ARRAY[1,2]) a",
          "t JOIN u USING (a)", "t LEFT JOIN (SELECT a AS z FROM u) AS w ON (t.a = w.z)", "t, LATERAL (SELECT t.a + 1) AS l (n)",
          "t NATURAL JOIN u", "json_to_recordset('[{\"a\":1}]') AS x(a int, q varchar(9))", "t TABLESAMPLE system (50) REPEATABLE (1)",
          "ROWS FROM (generate_series(1, 2), unnest(ARRAY[3])) WITH ORDINALITY AS r (a, k, o)", "pg_class", "information_schema.tables",
          "pg_catalog.pg_settings", "s", "ONLY (t)", '"into"', "public.t", "empty_", "t CROSS JOIN u")
# Parts that are more than a read, each of which would leave a trace.
WRITES = ("INSERT INTO u VALUES (9)", "UPDATE u SET a = a + 1", "DELETE FROM u", "MERGE INTO u USING t ON true WHEN MATCHED THEN DELETE",
          "SET work_mem = '1MB'", "SET own.setting = 'x'", "RESET ALL", "BEGIN", "START TRANSACTION", "PREPARE p AS SELECT 1", "LISTEN c", "NOTIFY c",
          "CREATE TABLE z (a int)", "CREATE TEMP TABLE z (a int)", "DECLARE k CURSOR WITH HOLD FOR SELECT 1", "DROP TABLE u", "TRUNCATE u",
          "LOCK TABLE u", "COMMENT ON TABLE t IS 'x'", "DO $$BEGIN END$$", "CALL f()", "VACUUM u", "ANALYZE", "SELECT 1 INTO z",
          "SELECT nextval('s')", "CREATE ROLE z", "SET ROLE other", "COPY u FROM STDIN", "REINDEX TABLE u", "GRANT SELECT ON u TO other",
          "ALTER TABLE u ADD w int", "DISCARD ALL", "EXPLAIN ANALYZE INSERT INTO u VALUES (1)", "SECURITY LABEL ON TABLE u IS ''",
          "SELECT * FROM u FOR UPDATE", "SAVEPOINT x", "SELECT pg_advisory_lock(1)", "SELECT set_config('own.setting', 'x', false)",
          "SELECT * INTO TEMP z FROM t", "VALUES (nextval('s'))", "SELECT f()", "WITH w AS (INSERT INTO u VALUES (1) RETURNING 1) TABLE w")
# Calls in every notation.
CALLS = ("nextval('s')", "setval('s', 5)", "pg_advisory_lock(1)", "set_config('own.setting', 'x', false)", "txid_current()", "pg_notify('c', '')",
         "lo_create(0)", "pg_sleep(30)", "query_to_xml('INSERT INTO u VALUES (1)', true, true, '')", "f(1)", "f()", "x.count(1)", "pg_current_xact_id()",
         "('s'::regclass).nextval", "(SELECT 's'::regclass).nextval", "(ARRAY['s'::regclass])[1].nextval", "TREAT('s'::regclass AS nextval)",
         "(1).f", "(1::int).over", "pg_catalog.nextval('s')", "\"nextval\"('s')", "nextval/**/('s')", "pg_catalog . \"nextval\" ('s')",
         "U&\"n\\0065xtval\"('s')", "nextval (VARIADIC 's')", "NextVal(E's')", "(30).pg_sleep", "ts_stat('SELECT nextval(''s'')::text::tsvector')",
         "lo_from_bytea(0, '')", "cursor_to_xml('k', 1, true, true, '')", "over(1)", "filter(1)", "recursive(1)", "join(1)", "by(1)", "rollup(1)",
         "not materialized(1)", "zone(1)", "time zone(1)", "char varying(1)", "\"over\"(1)", "public.f(1)", "f(VARIADIC => 1)", "ilike(1)", "sets(1)", "system(1)", "varying(1)", "tablesample(1)")
FROM_CALLS = ("SELECT q.nextval FROM unnest(ARRAY['s'::regclass]) q", "SELECT q.\"nextval\" FROM unnest(ARRAY['s'::regclass]) AS q",
              "SELECT q.lo_create FROM unnest(ARRAY[0::oid]) q", "SELECT q . pg_advisory_lock FROM generate_series(1::int8, 2) q",
              "SELECT * FROM nextval('s')", "SELECT DISTINCT ON (a) over(a) FROM t", "SELECT DISTINCT ON (a) filter(1), a FROM t",
              "SELECT DISTINCT ON (a) repeatable(a), count(*) OVER () FROM t", "SELECT a FROM t ORDER BY f(1)", "SELECT a FROM t GROUP BY a, cube(a)",
              "SELECT a FROM t ORDER BY rollup(a)", "SELECT 1 FROM t LIMIT f(1)", "SELECT nextval FROM nextval('s')", "SELECT a FROM t WHERE NOT materialized(1) = 1",
              "SELECT 1 FROM t JOIN u ON join(1) = 1", "SELECT * FROM t TABLESAMPLE bernoulli (f(1))", "SELECT a FROM u FOR KEY SHARE",
              "SELECT a FROM u FOR /* */ SHARE OF u", "(SELECT a FROM u) FOR UPDATE", "SELECT a FROM (SELECT a FROM u FOR UPDATE) w")
BLANKS = (" ", " ", "\n", "\t", "/**/", "/* ' */", "-- \"\n", "/* /* ; */ */", "--\r", "\f", "/*$$*/", "--/*\n", "\v", "/*/**/*/", " /*'*/--'\n")
PIECES = tuple("'\"$;()/*-\\ \n.&ueEbx1aAs,?:[]") + ("''", "--", "/*", "*/", "$$", "AS", "E'", "; SELECT 1", "; ", ";;", "''", "\\'", "$a$", "U&'", "::", "1e",
                                                     " INTO z ", " FOR ", "ä", "\u00a0", ".nextval", ").nextval", "\0"[:0], "\uff07", "$1", "N'", "AS over(1)")


class Generator:
    def __init__(self, random_, client):
        self.random = random_
        self.functions = []
        rows = client.query(
            "SELECT proname, prokind, "
            "coalesce((SELECT string_agg(format_type(x, NULL), ';' ORDER BY n) FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS y (x, n)), ''), "
            "provariadic <> 0, coalesce(aggkind, '-'), coalesce(aggnumdirectargs, 0), "
            "CASE WHEN proretset THEN '' ELSE format_type(prorettype, NULL) END "
            "FROM pg_proc p LEFT JOIN pg_aggregate ON aggfnoid = p.oid "
            "WHERE prorettype NOT IN ('trigger'::regtype, 'internal'::regtype) AND NOT 'internal'::regtype = ANY (proargtypes::regtype[])").rows
        by_name, self.safe_of_type, table = {}, {}, table_of_functions()
        for name, kind, types, variadic, aggregate, direct, result in rows:
            function = (name, kind, [x for x in types.split(";") if x], variadic == "t", aggregate, int(direct))
            self.functions.append(function)
            by_name.setdefault(name, []).append(function)
            if name in table and kind == "f" and result:
                self.safe_of_type.setdefault(result, []).append(function)
        self.safe = [by_name[name] for name in table]

    def pick(self, choices):
        return self.random.choice(choices)

    def chance(self, part):
        return self.random.random() < part

    def argument(self, type_, depth):
        """Mostly something of this type."""
        kind = self.random.random()
        if depth > 0 and kind < 0.03:
            return self.expression(depth - 1)
        if depth > 0 and kind < 0.3 and type_ in self.safe_of_type:
            return self.call(depth - 1, self.pick(self.safe_of_type[type_]))
        if type_ == "boolean" and depth > 0 and kind < 0.6:
            return self.condition(depth - 1)
        found = OF_TYPE.get(type_)
        return self.pick(found.split(" | ")) if found else f"NULL::{type_}"

    def condition(self, depth):
        type_ = self.pick(("integer", "text", "numeric", "timestamp with time zone"))
        one = lambda: self.argument(type_, depth)
        return self.pick((
            lambda: f"{one()} {self.pick(('=', '<>', '<', '>='))} {one()}", lambda: f"{one()} IS NOT DISTINCT FROM {one()}", lambda: f"NOT ({self.argument('boolean', depth)})",
            lambda: f"{self.argument('text', depth)} {self.pick(('LIKE', 'NOT LIKE', '~', 'SIMILAR TO', 'ILIKE'))} 'b%'", lambda: f"{one()} BETWEEN {one()} AND {one()}",
            lambda: f"{self.argument('boolean', depth)} {self.pick(('AND', 'OR'))} {self.argument('boolean', depth)}", lambda: f"a IN (1, 2, {self.argument('integer', depth)})",
            lambda: f"EXISTS ({self.query(depth)})", lambda: f"a = ANY ({self.argument('integer[]', depth)})", lambda: f"e @> '{{}}' AND e ? 'k'", lambda: f"{one()} IS NULL",
            lambda: f"a IN (SELECT a FROM u WHERE h LIKE {self.argument('text', depth)})", lambda: "(d, d) OVERLAPS (d, now())"))()

    def call(self, depth, function=None, of_table=0.85):
        if function is None:
            function = self.pick(self.pick(self.safe)) if self.chance(of_table) else self.pick(self.functions)
        name, kind, types, variadic, aggregate, direct = function
        arguments = [self.argument(type_, depth) for type_ in types]
        if variadic and arguments and self.chance(0.5):
            arguments += [self.argument(types[-1].replace("[]", ""), 0)]
        shown = self.pick((name, name, name, name.upper(), "pg_catalog." + name, name + " ", name + "/* ( */"))
        if aggregate in "oh" and aggregate != "-":
            return f"{shown}({', '.join(arguments[:direct])}) WITHIN GROUP (ORDER BY {', '.join(arguments[direct:]) or 'a'})"
        if kind == "a" and not arguments:
            arguments = ["*"]
        elif kind == "a" and self.chance(0.2):
            arguments[0] = "DISTINCT " + arguments[0]
        text = f"{shown}({', '.join(arguments)})"
        if kind == "a" and self.chance(0.2):
            text += " FILTER (WHERE g)"
        if kind == "w" or (kind == "a" and self.chance(0.2)):
            text += self.pick((" OVER ()", " OVER (PARTITION BY g ORDER BY a)", " OVER (ORDER BY (a) ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)", " OVER w1"))
        return text

    def expression(self, depth):
        kind = self.random.random()
        if depth <= 0 or kind < 0.2:
            return self.pick(("a", "b", "t.a", "t.b", "1", "'x'", "$$it's;$$", "E'\\'\\\\'", "1.5e-1", "NULL", "c", "d", "e->>'k'", "f[1]", "f[1:2]", '"update"',
                              't."Sp ace"', "current_date", "'$1;'", "-1", ".5", "'ä'", "t.*", "true", "now()", "interval '1 day'", "date'2020-01-01'", "$a$;$$'$a$",
                              "localtimestamp(2)", "current_user", "'a'\n'b'", "'\\'") + (("t.nextval", "v.a") if self.chance(0.05) else ()))
        if kind < 0.6:
            return self.call(depth - 1)
        deep, cond, of = lambda: self.expression(depth - 1), lambda: self.condition(depth - 1), lambda type_: self.argument(type_, depth - 1)
        if kind < 0.62:
            return self.pick(CALLS)
        return self.pick((
            lambda: f"({deep()})", lambda: f"{deep()} {self.pick(('+', '-', '||', '=', '<>', '<', '>=', 'AND', 'OR', 'LIKE', '@>', '->', '?', '~'))} {deep()}",
            lambda: f"CASE WHEN {cond()} THEN {of('text')} ELSE ({of('text')}) END", lambda: f"coalesce({of('integer')}, {of('integer')})", cond, cond,
            lambda: f"{of('integer')} {self.pick('+-*')} {of('integer')}", lambda: f"{of('text')} || {deep()}", lambda: f"c {self.pick(('/', '%', '^'))} {of('numeric')}",
            lambda: f"{deep()}::{self.pick(('text', 'int', 'numeric(10,2)', 'varchar(5)', 'timestamp(3)', 'character varying (4)', 'text[]', 'jsonb', 'regclass'))}",
            lambda: f"CAST({deep()} AS {self.pick(('text', 'numeric(9, 2)', 'char(3)', 'bit varying(3)', 'f(3)'))})",
            lambda: f"(SELECT {deep()} FROM t LIMIT 1)", lambda: f"({self.query(depth - 1)})", lambda: f"EXISTS ({self.query(depth - 1)})", lambda: f"a IN (1, 2, {deep()})",
            lambda: f"ARRAY[{deep()}, {deep()}]", lambda: f"ARRAY({self.query(depth - 1)})", lambda: f"a = ANY ({deep()})", lambda: f"NOT ({deep()})",
            lambda: f"nullif({of('integer')}, {of('integer')})", lambda: f"sum({of('integer')}) OVER (ORDER BY (a))",
            lambda: f"extract(year FROM {of('date')})", lambda: f"substring(b FROM 1 FOR {of('integer')})", lambda: f"position('b' IN {of('text')})",
            lambda: f"trim(both from {of('text')})", lambda: f"d AT TIME ZONE ('UTC')", lambda: f"(d, d) OVERLAPS (d, {deep()})", lambda: f"ROW({deep()}, 1)",
            lambda: f"greatest({of('numeric')}, {of('integer')})", lambda: f"{deep()} COLLATE \"C\"", lambda: f"overlay(b placing {deep()} from 1)",
            lambda: f"({deep()}).{self.pick(('a', 'nextval', 'f', 'lower'))}", lambda: f"{self.pick(OWN)}({deep()})"))()

    def query(self, depth):
        kind = self.random.random()
        if kind < 0.05:
            return self.pick(("TABLE t", "VALUES (1, 'x'), (2, 'y')", "VALUES (1), (2)", "SELECT", "TABLE ONLY u"))
        if kind < 0.10 and depth > 0:
            return f"{self.query(depth - 1)} {self.pick(('UNION', 'UNION ALL', 'EXCEPT', 'INTERSECT'))} {self.query(depth - 1)}"
        if kind < 0.14 and depth > 0:
            return f"({self.query(depth - 1)})"
        if kind < 0.22 and depth > 0:
            return (f"WITH {self.pick(('w', 'w(q)', 'w (q, r)', 'RECURSIVE w', 'RECURSIVE w(a)', 'over(q)', chr(34) + 'w' + chr(34)))} AS "
                    f"{self.pick(('', '', 'MATERIALIZED ', 'NOT MATERIALIZED '))}({self.query(depth - 1)}) {self.query(depth - 1)}")
        wants = [self.expression(depth) for _ in range(self.random.randint(1, 3))]
        text = "SELECT " + self.pick(("", "", "", "", "ALL ", "DISTINCT ", "DISTINCT ON (a) ")) + ", ".join(
            want + self.pick(("", "", "", " AS x", " AS \"insert\"", " y")) for want in wants)
        other = self.chance(0.2)
        if other:
            text = "SELECT " + self.pick(("*", "count(*)", "1 AS \"from\"", "DISTINCT 'x'", wants[0]))
        text += " FROM " + self.pick(TABLES if other else ("t",))
        if self.chance(0.3):
            text += " WHERE " + (self.condition(depth) if not other else "true" if self.chance(0.9) else wants[0])
        if self.chance(0.06):
            text += " GROUP BY " + self.pick(("a", "(a, b)", "ROLLUP (a, b)", "CUBE (a)", "GROUPING SETS ((a), (b), ())", "1", "DISTINCT (a)", "a, g"))
        if self.chance(0.05):
            text += " HAVING " + self.expression(depth)
        if " w1" in text:
            text += " WINDOW w1 AS (PARTITION BY g)"
        if self.chance(0.15):
            text += " ORDER BY " + ("1" if other else self.pick(("1", "a", "(a)", "a DESC NULLS LAST", "a USING <", self.expression(depth))))
        if self.chance(0.15):
            text += self.pick((" LIMIT 3", " LIMIT 2 OFFSET (1)", " FETCH FIRST 2 ROWS ONLY", " LIMIT ALL", " OFFSET 1 ROW FETCH NEXT ROW ONLY"))
        return text

    def smuggled(self):
        """Something that writes, as near to a read as it goes."""
        write = self.pick(WRITES)
        read = self.query(1)
        return self.pick((
            f"{read}; {write}", f"{read};{write}", f"SELECT ';'; {write}", f"SELECT '\\'; {write}; --'", f"SELECT E'\\'; {write}; --'",
            f"SELECT E'a'\n'\\'; {write}; --'", f"SELECT E'a'\n'\\''; {write}; --'", f"SELECT E'a' --\n '\\''; {write}; --'", f"SELECT /* /* */ ; */ 1; {write}", f"SELECT 1 -- \n; {write}", f"SELECT 1 -- \r; {write}",
            f"SELECT $a$ $A$; {write} -- $a$", f"SELECT a$$ ; {write} --$$", f"SELECT 1$$; {write} --$$", f"SELECT \"\"\";{write} --\"", f"SELECT \"a\"\";{write} --\"",
            f"SELECT U&'\\'; {write} --'", f"SELECT U&'!'';{write} --' UESCAPE '!'", f"SELECT B'';{write} --'", f"SELECT N'\\';{write} --'",
            f"SELECT x'';{write} --'", f"SELECT 1 */* */; {write} -- */", f"SELECT 1 +/*; {write} --*/", f"SELECT '\\''; {write}; --'", f"SELECT 'a' -- '\n'b'; {write}", f"SELECT E'a' -- '\n'\\'; {write} --'",
            f"WITH w AS ({write}) {read}", f"WITH w AS ({write}) SELECT 1", f"WITH w AS ({write} RETURNING 1) TABLE w", f"({write})", f"WITH w AS (SELECT 1) {write}",
            f"SELECT * FROM ({write}) w", f"SELECT ({write})", f"SELECT a INTO z FROM t", "SELECT 1INTO z", "SELECT 1.INTO z", "SELECT 'a'INTO z", "SELECT 1e0INTO z",
            "SELECT $$a$$INTO z", "SELECT \"a\"INTO z FROM t", "SELECT a.*INTO z FROM t a", "SELECT t.a INTO TEMP z FROM t", "SELECT f[1]INTO z FROM t", "SELECT(1)INTO z",
            f"SELECT 1{chr(0xa0)}; {write}", f"SELECT '\uff07; {write} --'", f"SELECT {self.pick(CALLS)}", f"SELECT {self.pick(CALLS)} FROM t", self.pick(FROM_CALLS),
            f"VALUES (1, {self.pick(CALLS)})", f"SELECT a FROM t WHERE a = {self.pick(CALLS)}", f"SELECT 1 LIMIT {self.pick(CALLS)}", f"SELECT CASE WHEN true THEN {self.pick(CALLS)} END",
            f"SELECT count(*) FILTER (WHERE {self.pick(CALLS)} IS NULL) FROM t", f"SELECT a FROM t ORDER BY {self.pick(CALLS)}", f"SELECT ARRAY[{self.pick(CALLS)}]",
            f"SELECT * FROM {self.pick(CALLS)}", f"SELECT * FROM {self.pick(CALLS)} AS q(a)", f"SELECT q.a FROM t, LATERAL {self.pick(CALLS)} q(a)", write, read + self.pick(
                (" FOR UPDATE", " FOR SHARE", " FOR NO KEY UPDATE", " FOR KEY SHARE", " FOR/**/UPDATE SKIP LOCKED", " INTO z"))))

    def mutated(self, text):
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(text) + 1)
            text = text[:at] + self.pick(PIECES) + text[at + self.random.randrange(3):]
        return text

    def text(self):
        kind = self.random.random()
        text = self.query(self.random.randint(0, 2)) if kind < 0.8 else self.smuggled()
        if self.chance(0.15):
            text = re.sub(" ", lambda _: self.pick(BLANKS) if self.chance(0.3) else " ", text)
        if self.chance(0.05):
            text = "".join(c.swapcase() if self.chance(0.5) else c for c in text)
        if self.chance(0.12):
            text = self.mutated(text)
        if self.chance(0.02):
            other = self.query(1)
            text = text[:self.random.randrange(len(text) + 1)] + other[self.random.randrange(len(other) + 1):]
        return self.pick(("",) * 9 + (" ", "/* x */", "--'\n", "(")) + text + self.pick(("",) * 9 + (";", " ; -- x", ";/* y */;", ")"))


# ---- running them -------------------------------------------------------------------------------

class Session:
    """Runs statements one behind the other, without waiting for each."""

    def __init__(self, t, database, standard):
        self.make = lambda: t.postgres.connect(database=database, standard_conforming_strings=standard, escape_string_warning="off", client_encoding="UTF8",
                                               statement_timeout="20s", timeout=PATIENCE, work_mem="4MB", temp_file_limit="20MB")
        self.client = self.make()
        self.before = self.state()

    def state(self):
        return self.client.value(STATE)

    def run(self, texts):
        """For each text its tags, its errors and the status behind it."""
        self.client.send(b"".join(pgwire.query(text) for text in texts))
        found = []
        tags, errors, buffer = [], [], self.client.buffer
        while len(found) < len(texts):
            at = 0
            while len(buffer) - at >= 5:
                type_, size = buffer[at], struct.unpack_from("!I", buffer, at + 1)[0]
                if len(buffer) - at <= size:
                    break
                if type_ in b"CEZAGHWS":
                    body = bytes(buffer[at + 5:at + 1 + size])
                    if type_ == ord("C"):
                        tags.append(body[:-1].decode())
                    elif type_ == ord("E"):
                        errors.append(pgwire.Message("E", body).error())
                    elif type_ == ord("Z"):
                        found.append((tags, errors, body))
                        tags, errors = [], []
                    else:
                        raise AssertionError(f"{chr(type_)} {body} from {texts[len(found)]!r}")
                at += size + 1
            del buffer[:at]
            if len(found) < len(texts):
                data = self.client.socket.recv(1 << 18)
                assert data, f"the server has left: {texts[len(found)]!r}"
                buffer += data
        return found

    def check(self, texts):
        """How many ran without an error, and how many took too long; whoever leaves a trace is named."""
        fine = slow_ = 0
        for text, (tags, errors, status) in zip(texts, self.run(texts), strict=True):
            same(status, b"I", repr(text))
            assert len(tags) + len(errors) == 1, f"several statements: {text!r}"
            if tags:
                fine += 1
                assert re.fullmatch(r"SELECT \d+", tags[0]), f"{tags[0]}: {text!r}"
            elif errors[0].sqlstate == "57014":
                slow_ += 1
                print(f"slow: {text!r}")
                assert re.search("(?i)generate_series|repeat|pad|fill|regexp|like|factorial|power|exp|lcm|\\*", text), f"it waits: {text!r}"
            else:
                assert errors[0].sqlstate[:2] not in ("25", "53") and errors[0].sqlstate not in ("XX001", "XX002"), f"{errors[0]}: {text!r}"
        if self.state() == self.before:
            return fine, slow_
        for text in texts:
            self.client.vanish()
            self.client = self.make()
            before = self.state()
            self.run([text])
            same(self.state(), before, repr(text))
        raise AssertionError(f"one of these left a trace, but none does alone: {texts!r}")


@ours
@slow(3000)
def test_what_shares_leaves_no_trace(t):
    wanted = int(os.environ.get("SHARING_STATEMENTS", 3000))
    random_ = random.Random(int(os.environ.get("SHARING_SEED", 7)))
    binary = classifier(t)
    with t.postgres.admin() as admin:
        admin.query("DROP DATABASE IF EXISTS sharing_classes", PATIENCE)
        admin.query("CREATE DATABASE sharing_classes", PATIENCE)
    with t.postgres.connect(database="sharing_classes", timeout=PATIENCE) as client:
        client.query(SETUP)
        generator = Generator(random_, client)
    sessions = {standard: Session(t, "sharing_classes", standard) for standard in ("on", "off")}
    made = shared = fine = slow_ = 0
    counts = [0] * 7
    while shared < wanted:
        standard = "off" if random_.random() < 0.2 else "on"
        texts = [generator.text() for _ in range(500)]
        said = classes(binary, texts, standard=standard == "on")
        made += len(texts)
        for class_ in said:
            counts[class_] += 1
        share = [text for text, class_ in zip(texts, said, strict=True) if class_ == SHARES]
        for at in range(0, len(share), BATCH):
            more = sessions[standard].check(share[at:at + BATCH])
            fine, slow_ = fine + more[0], slow_ + more[1]
        for other in sessions.values():
            other.before = other.state() if other.client is not sessions[standard].client else other.before
        shared += len(share)
    print(f"{made} made, {shared} shared ({counts}), {fine} of them ran without an error, {slow_} took too long")
    for session in sessions.values():
        session.client.vanish()
    with t.postgres.admin() as admin:
        admin.query("DROP DATABASE sharing_classes WITH (FORCE)", PATIENCE)
    assert shared >= 0.2 * made, (made, shared)
    assert fine >= 0.3 * shared, (shared, fine)
