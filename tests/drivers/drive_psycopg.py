"""psycopg 3: server-side binding, its own preparing (prepare_threshold), binary results, pipeline
mode, server-side cursors, COPY, notifications."""

import datetime
import decimal
import os
import threading

import psycopg
from psycopg import errors, rows as row_makers, sql

from steps import console_line, finish, rows, say, servers

TEXT = "it's \"quoted\" \\ ä€🐘"


def connect(**more):
    return psycopg.connect("", autocommit=True, **more)


def attempt(step, about, work):
    """What work() gives, or its error."""
    try:
        result = work()
    except psycopg.Error as error:
        say(step, about, type(error).__name__, error.sqlstate, error.diag.message_primary)
        return None
    say(step, about, result)
    return result


def value(conn, query, *args, **how):
    return conn.execute(query, *args, **how).fetchone()[0]


def simple(conn):
    rows("simple", "values", conn.execute("select 1 as one, 'two' as two, null as nothing").fetchall())
    conn.execute("create table things (id int primary key, name text)")
    cursor = conn.execute("insert into things values (1, 'one'), (2, 'two')")
    say("simple", "insert", cursor.rowcount, cursor.statusmessage)
    cursor = conn.execute("select 1; select 2")
    rows("simple", "first", cursor.fetchall())
    say("simple", "more", cursor.nextset())
    rows("simple", "second", cursor.fetchall())


def types(conn):
    given = (-42, 9007199254740993, decimal.Decimal("12345.678900"), TEXT, b"\0\xff\x10", True, None,
             datetime.datetime(2024, 2, 29, 12, 34, 56, 789000), [1, None, 3])
    query = ("select %s::int, %s::bigint, %s::numeric, %s::text, %s::bytea, %s::bool, %s::text, "
             "%s::timestamp, %s::int[]")
    for binary in (False, True):
        for prepare in (False, True):
            rows("types", f"{binary} {prepare}",
                 conn.cursor(binary=binary).execute(query, given, prepare=prepare).fetchall())


def repeat(conn):
    """prepare_threshold is 5: from the fifth time on a server-side statement is used."""
    for number in range(20):
        say("repeat", value(conn, "select %s::int * 2", (number,)))
    say("repeat", "prepared", len(conn._prepared._names))
    eager = connect(prepare_threshold=0)
    for number in range(3):
        say("repeat", "at once", value(eager, "select %s::text || '!'", (str(number),)))
    eager.close()
    few = connect(prepare_threshold=0)
    few.prepared_max = 2  # the driver itself deallocates
    for number in range(12):
        attempt("repeat", "few", lambda: value(few, f"select {number % 4} + %s::int", (number,)))
    few.close()


def explicit(conn):
    for number in range(3):
        say("explicit", value(conn, "select %s::int + 1000", (number,), prepare=True))


def interleave(conns):
    for number in range(20):
        for index, conn in enumerate(conns):
            for holder in (None, conns[(index + 1) % len(conns)]):
                if holder:
                    holder.execute("begin")
                pid, tag, got = conn.execute(
                    "select pg_backend_pid(), %s::text, %s::int", (f"c{index}", number)).fetchone()
                servers.add(pid)
                if number % 5 == 0:
                    say("interleave", index, tag, got)
                if holder:
                    holder.execute("commit")


def failures(conn):
    for prepare in (False, True):
        for query in ("selec 1", "select 1/0", "insert into things values (1, 'again')",
                      "select * from no_such_table", "select 'x'::int"):
            attempt("errors", prepare, lambda: conn.execute(query, prepare=prepare).fetchall())
            say("errors", "usable", value(conn, "select 1"))
    for divisor in (5, 0, 2):
        attempt("errors", "prepared", lambda: value(conn, "select 10 / %s::int", (divisor,), prepare=True))


def transactions(conn, other):
    def inside():
        with conn.transaction():
            conn.execute("insert into things values (10, 'ten')", prepare=True)
            conn.execute("select 1/0", prepare=True)
    attempt("failed_transaction", "block", inside)
    say("failed_transaction", "after", value(conn, "select count(*) from things"))
    conn.execute("begin")
    attempt("failed_transaction", "fails", lambda: conn.execute("select 1/0"))
    attempt("failed_transaction", "ignored", lambda: conn.execute("select 'never prepared'", prepare=True))
    conn.execute("rollback")
    say("failed_transaction", "late", value(conn, "select 'never prepared'", prepare=True))
    count = "select count(*) from things where id = %s"
    with conn.transaction():
        conn.execute("insert into things values (%s, 'eleven')", (11,), prepare=True)
        say("visible", "before", value(other, count, (11,), prepare=True))
    say("visible", "after", value(other, count, (11,), prepare=True))
    with conn.transaction():
        conn.execute("insert into things values (%s, 'twelve')", (12,), prepare=True)
        try:
            with conn.transaction():
                conn.execute("insert into things values (%s, 'thirteen')", (13,), prepare=True)
                conn.execute("insert into things values (%s, 'again')", (1,), prepare=True)
        except errors.UniqueViolation:
            say("savepoint", "rolled back")
        conn.execute("insert into things values (%s, 'fourteen')", (14,), prepare=True)
    rows("savepoint", "after", other.execute("select id from things where id > 11 order by 1").fetchall())


def batch(conn):
    conn.execute("create table batch (id int, name text)")
    cursor = conn.cursor()
    cursor.executemany("insert into batch values (%s, %s)", [(i, f"name {i}") for i in range(500)])
    say("batch", cursor.rowcount)
    cursor.executemany("insert into batch values (%s, %s) returning id", [(i, "x") for i in range(3)],
                       returning=True)
    while True:
        rows("batch", "returned", cursor.fetchall())
        if not cursor.nextset():
            break
    rows("batch", "sum", conn.execute("select count(*), sum(id) from batch").fetchall())


def pipeline(conn):
    with conn.pipeline() as pipe:
        cursors = [conn.execute("select %s::int * 3", (i,)) for i in range(20)]
        pipe.sync()
        say("pipeline", *(cursor.fetchone()[0] for cursor in cursors))
    for prepare in (False, True):
        def failing():
            with conn.pipeline():
                conn.execute("insert into things values (%s, 'twenty')", (20,), prepare=prepare)
                conn.execute("select 1 / %s::int", (0,), prepare=prepare)
                conn.execute("insert into things values (%s, 'skipped')", (21,), prepare=prepare)
        attempt("pipeline", f"fails {prepare}", failing)
        say("pipeline", "after", value(conn, "select count(*) from things where id in (20, 21)"))
    with conn.pipeline():
        first = conn.execute("select %s::int", (1,), prepare=True)
        with conn.transaction():
            second = conn.execute("select %s::text", ("inside",), prepare=True)
        try:
            with conn.transaction():
                conn.execute("select 1 / %s::int", (0,), prepare=True).fetchone()
        except errors.DivisionByZero:
            say("pipeline", "rolled back")
        third = conn.execute("select %s::text", ("after",), prepare=True)
        say("pipeline", "mixed", first.fetchone(), second.fetchone(), third.fetchone())


def cursors(conn):
    with conn.transaction():
        with conn.cursor("walk") as cursor:
            cursor.itersize = 3
            cursor.execute("select i, 'row ' || i from generate_series(%s::int, 10) i", (1,))
            rows("cursor", "rows", cursor)
        with conn.cursor("scroll", scrollable=True) as cursor:
            cursor.execute("select i from generate_series(1, 10) i")
            rows("cursor", "fetch", cursor.fetchmany(4))
            cursor.scroll(-2)
            rows("cursor", "again", cursor.fetchmany(2))
    say("cursor", "streamed", sum(row[0] for row in conn.cursor().stream("select generate_series(1, %s)", (1000,))))


def copy(conn):
    conn.execute("create table copied (id int, name text)")
    with conn.cursor().copy("copy copied from stdin") as writer:
        for number in range(10000):
            writer.write_row((number, f"name {number}"))
    with conn.cursor().copy("copy (select * from copied order by id) to stdout") as reader:
        found = list(reader.rows())
    say("copy", len(found), found[0], found[-1])

    def bad():
        with conn.cursor().copy("copy copied from stdin") as writer:
            writer.write("no number\tx\n")
    attempt("copy", "bad", bad)
    with conn.cursor().copy("copy copied from stdin (format binary)") as writer:
        writer.set_types(("int4", "text"))
        writer.write_row((-1, TEXT))
    say("copy", "binary", conn.execute("select name from copied where id = -1").fetchone()[0])
    say("copy", "count", value(conn, "select count(*) from copied", prepare=True))


def large(conn):
    big = "x" * 1000000
    for _ in range(3):
        say("large", "value", value(conn, "select %s::text", (big,), prepare=True) == big)
        say("large", "bytes", bytes(value(conn, "select %b::bytea", (big.encode(),), prepare=True)) == big.encode())
    found = conn.execute("select i, repeat('y', 100) from generate_series(1, %s) i", (10000,)).fetchall()
    say("large", "rows", len(found), sum(row[0] for row in found))


def timeout(conn):
    def slow():
        with conn.transaction():
            conn.execute("set local statement_timeout = 50")
            conn.execute("select pg_sleep(%s)", (30,), prepare=True)
    attempt("timeout", "sleep", slow)
    say("timeout", "usable", value(conn, "select 1"))


def cancel(conn, other):
    def canceller():
        while not value(other, "select count(*) from pg_stat_activity where datname = current_database() "
                               "and wait_event = 'PgSleep'"):
            pass
        conn.cancel()
    helper = threading.Thread(target=canceller)
    helper.start()
    attempt("cancel", "sleep", lambda: conn.execute("select pg_sleep(%s)", (30,), prepare=True))
    helper.join()
    say("cancel", "usable", value(conn, "select 1", prepare=True))


def schema(conn, other):
    conn.execute("create table changing (id int)")
    conn.execute("insert into changing values (1)")
    everything = "select * from changing where id = %s"

    def look():
        return conn.execute(everything, (1,), prepare=True).fetchall()
    attempt("schema", "before", look)
    other.execute("alter table changing add column name text default 'new'")
    attempt("schema", "after", look)
    with_names = conn.cursor(row_factory=row_makers.dict_row)
    attempt("schema", "names", lambda: with_names.execute(everything, (1,), prepare=True).fetchall())


def discard(conn, other):
    """This version of psycopg does not see that its statements are gone: the error must come."""
    for number, command in enumerate(("deallocate all", "discard all", "discard plans")):
        query = f"select %s::text || ' kept {number}'"
        attempt("discard", "before", lambda: value(conn, query, ("a",), prepare=True))
        attempt("discard", "before", lambda: value(other, query, ("a",), prepare=True))
        say("discard", conn.execute(command).statusmessage)
        attempt("discard", "after", lambda: value(conn, query, ("b",), prepare=True))
        attempt("discard", "other", lambda: value(other, query, ("c",), prepare=True))
        say("discard", "new", value(conn, query + " anew", ("d",), prepare=True))


def listen(conn, other):
    conn.execute("listen news")
    other.execute("select pg_notify('news', %s)", ("it is here",))
    notice = next(conn.notifies())
    say("listen", notice.channel, notice.payload)


def reconnect(conn):
    try:
        conn.execute("select pg_terminate_backend(pg_backend_pid())")
    except psycopg.OperationalError as error:
        say("reconnect", type(error).__name__, error.sqlstate)
    say("reconnect", "closed", conn.closed)
    again = connect()
    say("reconnect", value(again, "select %s::text || ' kept'", ("e",), prepare=True))
    again.close()


def console():
    """Simple, prepared, with values in binary."""
    conn = connect()
    for how in ({}, {"prepare": True}, {"binary": True}):
        for command in os.environ["DRIVE_COMMANDS"].split("\n"):
            try:
                cursor = conn.cursor(binary=how.get("binary", False))
                cursor.execute(command, prepare=how.get("prepare"))
            except psycopg.Error as error:
                say("console", command, "error", error.sqlstate)
                continue
            if cursor.description:
                console_line(command, cursor.fetchall())
            else:
                say("console", command, "done")
    with conn.pipeline():
        both = [conn.execute("show version"), conn.execute("show state")]
    assert [len(cursor.fetchall()) for cursor in both] == [1, 3]
    finish()


def main():
    conns = [connect() for _ in range(3)]
    conn, other = conns[0], conns[1]
    simple(conn)
    types(conn)
    repeat(conn)
    explicit(conn)
    interleave(conns)
    failures(conn)
    transactions(conn, other)
    batch(conn)
    pipeline(conn)
    cursors(conn)
    copy(conn)
    large(conn)
    timeout(conn)
    cancel(conn, other)
    schema(conn, other)
    discard(conn, other)
    if os.environ["DRIVE_WAY"] in ("straight", "session"):
        listen(conn, other)
    reconnect(conn)
    conns[1].close()
    conns[2].close()
    finish()


console() if os.environ["DRIVE_WAY"] == "console" else main()
