"""What wire/sql_text.h says of a text is what PostgreSQL does with it."""

import os
import random
import re
import subprocess

import pgwire
from harness import TOP, ours, same, slow
from test_kernel import compiled

OTHER, PREPARE, EXECUTE, DEALLOCATE, DEALLOCATE_ALL, DISCARD_ALL = range(6)
NAMES = ("p", "P", "Mixed_1$", "prepare", "transaction", "e", "U", "n", '"p"', '"P q"', '"a""b"', '""""', '"all"',
         '"select"', '";"', '"--"', "l" * 62, "l" * 63, "L" * 64, "l" * 70, '"' + "q" * 62 + '""x"', '"/*"',
         '""', 'U&"p"', 'u & "p"', "s.p", "1p", "p1", "'p'", "$1", "ä", "all", "select", '"x')
BLANKS = (" ", " ", " ", "\n", "\t", "/**/", "/* ' */", "-- \"\n", "/* /* ; */ */", "--\r", "\f", "", "\v")
VALUES = ("1", "'a'", "'a''b'", "')'", "E'\\''", "'\\'", "'\\''", "$$;$$", "$a$)$$'$a$", "$1", "$1$$)$$", "B'01'", "x'f'",
          "N'x'", "N'\\'", "U&'\\0061'", "U&'!0061' UESCAPE '!'", "1e5", ".5", "1..2", "1e'", "0x1f", "1_0", "1a", "now()",
          "(1)", '"c""d"', "a$b", "a$$b", "1 +-- )\n2", "2 */* ) */ 3", "'a'\n'b'", "E'a'\n'\\''", "'a'\n'\\''",
          "'\\'); --'", "E'a'\n'\\'); --'", "'a' 'b'", "E'\\\\'", "date'\\'", "array[1,2]", "'ä'", "$ä$x$ä$", "a::int", "x => 1", "\\", "{", "@-1")
BODIES = ("SELECT 1", "SELECT {v}", "SELECT {v}, {v}", "VALUES ({v})", "(SELECT {v})", "WITH w AS (SELECT {v}) SELECT 1",
          "INSERT INTO t VALUES ({v})", "UPDATE t SET a = {v}", "DELETE FROM t", "TABLE t", "SELECT 1 AS as",
          "MERGE INTO t USING t AS u ON true WHEN MATCHED THEN DELETE", "EXECUTE q", "SHOW all", "SELECT now()")
FORMS = ("PREPARE {n} AS {b}", "PREPARE {n} (int, numeric(3, 1), text[]) AS {b}", "PREPARE {n}(int)AS {b}",
         "EXECUTE {n}", "EXECUTE {n} ({v})", "EXECUTE {n}({v}, {v})", "EXECUTE {n}()", "EXPLAIN EXECUTE {n}",
         "EXPLAIN ANALYZE VERBOSE EXECUTE {n}({v})", "EXPLAIN (ANALYZE, COSTS off) EXECUTE {n}",
         "EXPLAIN VERBOSE EXECUTE {n}", "EXPLAIN ANALYSE CREATE TABLE x AS EXECUTE {n}",
         "CREATE TABLE x AS EXECUTE {n}", "CREATE TEMP TABLE IF NOT EXISTS x (a, b) AS EXECUTE {n} ({v}) WITH NO DATA",
         "CREATE TABLE s.as AS EXECUTE {n} WITH DATA", "CREATE UNLOGGED TABLE x WITH (fillfactor=70) AS EXECUTE {n}",
         "CREATE LOCAL TEMPORARY TABLE x ON COMMIT DROP AS EXECUTE {n}", "CREATE TABLE x AS {b}",
         "DEALLOCATE {n}", "DEALLOCATE PREPARE {n}", "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL", "DEALLOCATE PREPARE",
         "DISCARD ALL", "DISCARD PLANS", "PREPARE TRANSACTION 'x'", "{b}", "{b}")
PIECES = tuple("'\"$;()/*-\\ \n.&ueEbx1aAs,") + ("''", "--", "/*", "*/", "$$", "AS", "E'", "; SELECT 1", "; ", ";;")


def make_text(random_):
    """A statement, or something near to one."""
    text = random_.choice(FORMS)
    for key, choices in (("{b}", BODIES), ("{v}", VALUES[:18] * 2 + VALUES), ("{n}", NAMES[:22] * 4 + NAMES)):
        while key in text:
            text = text.replace(key, random_.choice(choices), 1)
    text = re.sub(" ", lambda _: random_.choice(BLANKS) if random_.random() < 0.1 else " ", text)
    text = random_.choice(("", "", "", " ", "/* x */", "--'\n", ";")) + text
    text += random_.choice(("", "", "", ";", " ; -- x", ";/* y */;", "; SELECT 1", " /*", "\\"))
    if random_.random() < 0.1:
        text = "".join(c.swapcase() for c in text)
    if random_.random() < 0.2:
        for _ in range(random_.randint(1, 3)):
            at = random_.randrange(len(text) + 1)
            text = text[:at] + random_.choice(PIECES) + text[at + random_.randrange(3):]
    return text


class Said:
    def __init__(self, line):
        kind, cacheable, *places, name = (line + " ").split(" ")[:7]
        self.kind, self.cacheable = int(kind), cacheable == "1"
        self.written, self.written_bytes, self.rest, self.rest_bytes = map(int, places)
        self.name = bytes.fromhex(name).decode()


def say(binary, texts):
    given = "".join(f"{int(standard)} {text.encode().hex()}\n" for standard, text in texts)
    done = subprocess.run([binary], input=given, capture_output=True, text=True, check=True)
    return [Said(line) for line in done.stdout.splitlines()]


def run(client, text):
    client.send(pgwire.query(text))
    return client.results()


def prepared(client):
    return [name for name, in client.query("SELECT name FROM pg_prepared_statements").rows]


def missing(result):
    """The name that PostgreSQL did not find."""
    for error in result.errors:
        if error.sqlstate == "26000":
            return re.fullmatch(r'prepared statement "(.*)" does not exist', error.text, re.DOTALL)[1]
    return None


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def check(client, text, said):
    """One text. Gives back the kind that PostgreSQL makes of it."""
    parsed = client.batch(pgwire.parse("", text))
    if parsed.errors:
        # Refused: nothing is wrong with any answer, unless it is refused for being several.
        if "multiple commands" in parsed.errors[0].text:
            same((said.kind, said.cacheable), (OTHER, False))
        return OTHER
    if said.cacheable:
        same(said.kind, OTHER)
    result = run(client, text)
    if result.tags in (["DEALLOCATE ALL"], ["DISCARD ALL"]):
        kind = DEALLOCATE_ALL if result.tags == ["DEALLOCATE ALL"] else DISCARD_ALL
        assert said.kind in (kind, OTHER), said.kind
        return kind
    if result.tags == ["PREPARE"]:
        assert said.kind in (PREPARE, OTHER), said.kind
        if said.kind == PREPARE:
            same(prepared(client), [said.name])
            client.query("DEALLOCATE ALL")
            # The same with what follows the name behind another one.
            rest = text.encode()[said.rest:said.rest + said.rest_bytes].decode()
            same(run(client, f'PREPARE "x;""" {rest}').tags, ["PREPARE"])
            same(prepared(client), ['x;"'])
        client.query("DEALLOCATE ALL")
        return PREPARE
    name = missing(result)
    if name is None:
        # A PREPARE or CREATE can fail for other reasons; nothing else may be taken for one of ours.
        assert said.kind == OTHER or (said.kind in (PREPARE, EXECUTE) and result.errors), said.kind
        return OTHER
    assert said.kind in (EXECUTE, DEALLOCATE, OTHER), said.kind
    if said.kind == OTHER:
        return EXECUTE
    same(said.name, name)
    data = text.encode()
    other = data[:said.written] + b'"x;"""' + data[said.written + said.written_bytes:]
    same(missing(run(client, other.decode())), 'x;"')
    # What follows the name ends where a literal or a parenthesis does not go on.
    same(missing(run(client, data[:said.rest + said.rest_bytes].decode())), name)
    # With the statement there, it is gone after a DEALLOCATE only.
    client.query("BEGIN; PREPARE " + quoted(name) + " AS SELECT 1")
    result = run(client, text)
    client.query("ROLLBACK")
    if said.kind == DEALLOCATE:
        same(result.tags, ["DEALLOCATE"])
    same(len(prepared(client)), 0 if said.kind == DEALLOCATE else 1)
    client.query("DEALLOCATE ALL")
    return said.kind


@ours
@slow(90)
def test_statements_are_read_as_postgres_reads_them(t):
    random_ = random.Random(15)
    binary = compiled(t, "tests/integration/sql_text_say.c", "sql_text_say", os.path.join(TOP, "src/wire/sql_text.c"),
                      "-I" + os.path.join(TOP, "include"), "-D_GNU_SOURCE")
    texts = [(random_.random() < 0.6, make_text(random_)) for _ in range(4000)]
    clients = {}
    for standard, value in ((True, "on"), (False, "off")):
        clients[standard] = t.postgres.connect(standard_conforming_strings=value, escape_string_warning="off")
        clients[standard].query("CREATE TABLE IF NOT EXISTS t (a int)")
    counts = {kind: [0, 0] for kind in range(6)}
    for (standard, text), said in zip(texts, say(binary, texts), strict=True):
        try:
            kind = check(clients[standard], text, said)
        except Exception as problem:
            raise AssertionError(f"standard {standard}: {text!r}, said kind {said.kind} of {said.name!r}: "
                                 f"{problem!r}") from problem
        if text.isascii() and not text.startswith(";"):
            counts[kind][0] += 1
            counts[kind][1] += said.kind != OTHER
    print(counts)
    # Doubt is allowed, but must stay rare.
    for kind in (PREPARE, EXECUTE, DEALLOCATE, DEALLOCATE_ALL, DISCARD_ALL):
        seen, named = counts[kind]
        assert seen >= 30 and named >= 0.95 * seen, counts
