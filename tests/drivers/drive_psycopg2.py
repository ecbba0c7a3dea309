"""psycopg2: simple queries only, values bound by the client; SQL-level PREPARE, named cursors, COPY."""

import datetime
import decimal
import io
import os
import select
import threading

import psycopg2
import psycopg2.extras

from steps import console_line, finish, rows, say, servers

TEXT = "it's \"quoted\" \\ ä€🐘"


def connect(**more):
    conn = psycopg2.connect("", **more)
    conn.autocommit = True
    return conn


def run(conn, query, args=None):
    cursor = conn.cursor()
    cursor.execute(query, args)
    return cursor


def value(conn, query, args=None):
    return run(conn, query, args).fetchone()[0]


def attempt(step, about, work):
    try:
        result = work()
    except psycopg2.Error as error:
        say(step, about, type(error).__name__, error.pgcode, error.diag.message_primary)
        return
    say(step, about, result)


def simple(conn):
    rows("simple", "values", run(conn, "select 1 as one, 'two' as two, null as nothing").fetchall())
    run(conn, "create table things (id int primary key, name text)")
    cursor = run(conn, "insert into things values (1, 'one'), (2, 'two')")
    say("simple", "insert", cursor.rowcount, cursor.statusmessage)
    rows("simple", "several", run(conn, "select 1; select 2").fetchall())


def types(conn):
    given = (-42, 9007199254740993, decimal.Decimal("12345.678900"), TEXT, psycopg2.Binary(b"\0\xff\x10"),
             True, None, datetime.datetime(2024, 2, 29, 12, 34, 56, 789000), [1, None, 3])
    rows("types", "values", run(
        conn, "select %s::int, %s::bigint, %s::numeric, %s::text, %s::bytea, %s::bool, %s::text, "
        "%s::timestamp, %s::int[]", given).fetchall())


def interleave(conns):
    for number in range(20):
        for index, conn in enumerate(conns):
            for holder in (None, conns[(index + 1) % len(conns)]):
                if holder:
                    run(holder, "begin")
                pid, tag, got = run(conn, "select pg_backend_pid(), %s, %s", (f"c{index}", number)).fetchone()
                servers.add(pid)
                if number % 5 == 0:
                    say("interleave", index, tag, got)
                if holder:
                    run(holder, "commit")


def explicit(conn):
    """SQL's PREPARE belongs to the server: in transaction mode it lives as long as the transaction."""
    run(conn, "begin")
    run(conn, "prepare adding (int, int) as select $1 + $2")
    for number in range(20):
        say("explicit", value(conn, "execute adding (%s, 100)", (number,)))
    run(conn, "deallocate adding")
    attempt("explicit", "gone", lambda: run(conn, "execute adding (1, 2)"))
    run(conn, "rollback")


def errors(conn):
    for query in ("selec 1", "select 1/0", "insert into things values (1, 'again')",
                  "select * from no_such_table", "select 'x'::int"):
        attempt("errors", "query", lambda: run(conn, query))
        say("errors", "usable", value(conn, "select 1"))


def transactions(conn, other):
    conn.autocommit = False
    run(conn, "insert into things values (10, 'ten')")
    attempt("failed_transaction", "fails", lambda: run(conn, "select 1/0"))
    attempt("failed_transaction", "ignored", lambda: run(conn, "select 1"))
    conn.rollback()
    count = "select count(*) from things where id = %s"
    say("failed_transaction", "after", value(conn, count, (10,)))
    conn.rollback()
    run(conn, "insert into things values (11, 'eleven')")
    say("visible", "before", value(other, count, (11,)))
    conn.commit()
    say("visible", "after", value(other, count, (11,)))
    run(conn, "insert into things values (12, 'twelve')")
    run(conn, "savepoint one")
    attempt("savepoint", "fails", lambda: run(conn, "insert into things values (1, 'again')"))
    run(conn, "rollback to one")
    run(conn, "insert into things values (14, 'fourteen')")
    conn.commit()
    conn.autocommit = True
    rows("savepoint", "after", run(other, "select id from things where id > 11 order by 1").fetchall())
    conn.set_session(isolation_level="serializable", autocommit=False)
    say("transaction", "isolation", value(conn, "show transaction_isolation"))
    conn.rollback()
    conn.set_session(isolation_level="default", readonly=False, autocommit=True)


def batch(conn):
    run(conn, "create table batch (id int, name text)")
    cursor = conn.cursor()
    cursor.executemany("insert into batch values (%s, %s)", [(i, f"name {i}") for i in range(100)])
    psycopg2.extras.execute_batch(cursor, "insert into batch values (%s, %s)", [(i, "b") for i in range(500)])
    psycopg2.extras.execute_values(cursor, "insert into batch values %s", [(i, "v") for i in range(500)])
    rows("batch", "sum", run(conn, "select count(*), sum(id) from batch").fetchall())


def cursors(conn):
    conn.autocommit = False
    cursor = conn.cursor("walk")
    cursor.itersize = 3
    cursor.execute("select i, 'row ' || i from generate_series(%s, 10) i", (1,))
    rows("cursor", "rows", cursor)
    conn.commit()
    conn.autocommit = True


def copy(conn):
    run(conn, "create table copied (id int, name text)")
    cursor = conn.cursor()
    cursor.copy_expert("copy copied from stdin",
                       io.StringIO("".join(f"{i}\tname {i}\n" for i in range(10000))))
    out = io.StringIO()
    cursor.copy_expert("copy copied to stdout", out)
    say("copy", cursor.rowcount, len(out.getvalue()))
    attempt("copy", "bad", lambda: cursor.copy_expert("copy copied from stdin", io.StringIO("no number\tx\n")))
    say("copy", "count", value(conn, "select count(*) from copied"))


def large(conn):
    big = "x" * 1000000
    say("large", "value", value(conn, "select %s", (big,)) == big)
    found = run(conn, "select i, repeat('y', 100) from generate_series(1, 10000) i").fetchall()
    say("large", "rows", len(found), sum(row[0] for row in found))


def timeout(conn):
    run(conn, "begin")
    run(conn, "set local statement_timeout = 50")
    attempt("timeout", "sleep", lambda: run(conn, "select pg_sleep(30)"))
    run(conn, "rollback")
    say("timeout", "usable", value(conn, "select 1"))


def cancel(conn, other):
    def canceller():
        while not value(other, "select count(*) from pg_stat_activity where datname = current_database() "
                               "and wait_event = 'PgSleep'"):
            pass
        conn.cancel()
    helper = threading.Thread(target=canceller)
    helper.start()
    attempt("cancel", "sleep", lambda: run(conn, "select pg_sleep(30)"))
    helper.join()
    say("cancel", "usable", value(conn, "select 1"))


def schema(conn, other):
    run(conn, "create table changing (id int)")
    run(conn, "insert into changing values (1)")
    rows("schema", "before", run(conn, "select * from changing").fetchall())
    run(other, "alter table changing add column name text default 'new'")
    rows("schema", "after", run(conn, "select * from changing").fetchall())


def discard(conn):
    for command in ("deallocate all", "discard all"):
        say("discard", run(conn, command).statusmessage)
        say("discard", "usable", value(conn, "select %s", ("kept",)))
    conn.set_client_encoding("LATIN1")  # a tracked parameter: it follows the client
    say("discard", "encoding", value(conn, "select 'ä'"), conn.encoding)
    conn.reset()
    conn.autocommit = True
    say("discard", "reset", conn.encoding)


def asynchronous():
    conn = psycopg2.connect("", async_=True)
    psycopg2.extras.wait_select(conn)
    cursor = conn.cursor()
    cursor.execute("select 'asynchronous'")
    psycopg2.extras.wait_select(conn)
    rows("asynchronous", "rows", cursor.fetchall())
    conn.close()


def listen(conn, other):
    run(conn, "listen news")
    run(other, "notify news, 'it is here'")
    while not conn.notifies:
        select.select([conn], [], [])
        conn.poll()
    notice = conn.notifies.pop()
    say("listen", notice.channel, notice.payload)


def reconnect(conn):
    try:
        run(conn, "select pg_terminate_backend(pg_backend_pid())")
    except psycopg2.Error as error:
        say("reconnect", type(error).__name__, error.pgcode)
    say("reconnect", "closed", conn.closed)
    again = connect()
    say("reconnect", value(again, "select 'usable'"))
    again.close()


def console():
    conn = connect()
    for _ in range(3):
        for command in os.environ["DRIVE_COMMANDS"].split("\n"):
            try:
                cursor = run(conn, command)
            except psycopg2.Error as error:
                say("console", command, "error", error.pgcode)
                continue
            if cursor.description:
                console_line(command, cursor.fetchall())
            else:
                say("console", command, "done")
    finish()


def main():
    conns = [connect() for _ in range(3)]
    conn, other = conns[0], conns[1]
    simple(conn)
    types(conn)
    interleave(conns)
    explicit(conn)
    errors(conn)
    transactions(conn, other)
    batch(conn)
    cursors(conn)
    copy(conn)
    large(conn)
    timeout(conn)
    cancel(conn, other)
    schema(conn, other)
    discard(conn)
    asynchronous()
    if os.environ["DRIVE_WAY"] in ("straight", "session"):
        listen(conn, other)
    reconnect(conn)
    finish()


console() if os.environ["DRIVE_WAY"] == "console" else main()
