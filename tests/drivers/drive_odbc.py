"""psqlODBC through pyodbc: UseServerSidePrepare on and off, UseDeclareFetch, Protocol's error rollback.
The one argument says which."""

import datetime
import decimal
import glob
import os
import sys
import threading

import pyodbc

from steps import finish, rows, say, servers

TEXT = "it's \"quoted\" \\ ä€🐘"
pyodbc.pooling = False


def connect(autocommit=True, **more):
    library = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")[0]
    words = {"Driver": library, "Server": os.environ["PGHOST"], "Port": os.environ["PGPORT"],
             "Database": os.environ["PGDATABASE"], "Uid": os.environ["PGUSER"],
             "Pwd": os.environ["PGPASSWORD"], "SSLmode": os.environ["PGSSLMODE"], **more}
    return pyodbc.connect(";".join(f"{key}={value}" for key, value in words.items()), autocommit=autocommit)


def query(conn, sql, *args):
    return [tuple(row) for row in conn.execute(sql, *args).fetchall()]


def attempt(step, about, work):
    try:
        result = work()
    except pyodbc.Error as error:
        text = str(error.args[1]) if len(error.args) > 1 else ""
        say(step, about, type(error).__name__, error.args[0], text.splitlines()[0].split(";")[0] if text else "")
        return
    say(step, about, result)


def one_kind(more, is_fetch):
    conns = [connect(**more) for _ in range(3)]
    conn, other = conns[0], conns[1]
    rows("simple", "values", query(conn, "select 1 as one, 'two' as two, null as nothing"))
    conn.execute("create table things (id int primary key, name text)")
    say("simple", "insert", conn.execute("insert into things values (1, 'one'), (2, 'two')").rowcount)

    given = (-42, 9007199254740993, decimal.Decimal("12345.678900"), TEXT, b"\0\xff\x10", True,
             datetime.datetime(2024, 2, 29, 12, 34, 56, 789000), "{1,NULL,3}")
    for _ in range(3):
        rows("types", "values", query(
            conn, "select ?::int, ?::bigint, ?::numeric, ?::text, ?::bytea, ?::bool, ?::timestamp, ?::int[]", *given))

    cursor = conn.cursor()  # the same text on the same cursor is prepared once
    for number in range(20):
        say("repeat", cursor.execute("select ?::int * 2", number).fetchone()[0])
    cursor.close()
    for number in range(10):  # and another is prepared, and let go, each time
        say("repeat", query(conn, f"select ?::int + {number % 3}", number))

    cursors = [one.cursor() for one in conns]
    for number in range(20):
        for index, mine in enumerate(cursors):
            for holder in (None, conns[(index + 1) % 3]):
                if holder:
                    holder.autocommit = False
                    query(holder, "select 1")
                pid, tag, got = mine.execute("select pg_backend_pid(), ?::text, ?::int", f"c{index}", number).fetchone()
                mine.fetchall()
                servers.add(pid)
                if number % 5 == 0:
                    say("interleave", index, tag, got)
                if holder:
                    holder.commit()
                    holder.autocommit = True
    for mine in cursors:
        mine.close()

    for sql in ("selec 1", "select 1/0", "insert into things values (1, 'again')", "select * from no_such_table",
                "select 'x'::int"):
        attempt("errors", "direct", lambda: query(conn, sql))
        attempt("errors", "prepared", lambda: query(conn, sql + " -- "))
        say("errors", "usable", query(conn, "select 1"))
    cursor = conn.cursor()
    for divisor in (5, 0, 2):
        attempt("errors", "divide", lambda: cursor.execute("select 10 / ?::int", divisor).fetchone()[0])
    cursor.close()

    count = "select count(*) from things where id = ?"
    conn.autocommit = False
    conn.execute("insert into things values (?, ?)", 10, "ten")
    attempt("failed_transaction", "fails", lambda: query(conn, "select 1 / ?::int", 0))
    attempt("failed_transaction", "next", lambda: query(conn, "select ?::int", 1))
    conn.rollback()
    say("failed_transaction", "after", query(conn, count, 10))
    conn.rollback()
    conn.execute("insert into things values (?, ?)", 11, "eleven")
    say("visible", "before", query(other, count, 11))
    conn.commit()
    say("visible", "after", query(other, count, 11))
    conn.execute("insert into things values (?, ?)", 12, "twelve")
    conn.execute("savepoint one")
    attempt("savepoint", "fails", lambda: conn.execute("insert into things values (?, ?)", 1, "again"))
    conn.execute("rollback to one")
    conn.execute("insert into things values (?, ?)", 14, "fourteen")
    conn.commit()
    say("savepoint", "after", query(other, "select id from things where id > 11 order by 1"))
    rows("cursor", "rows", query(conn, "select i, 'row ' || i from generate_series(1, ?::int) i", 20))
    conn.commit()
    conn.autocommit = True

    conn.execute("create table batch (id int, name text)")
    cursor = conn.cursor()
    for fast in (False, True):
        cursor.fast_executemany = fast
        cursor.executemany("insert into batch values (?, ?)", [(i, f"name {i}") for i in range(200)])
    cursor.close()
    say("batch", query(conn, "select count(*), sum(id) from batch"))

    big = "x" * 1000000
    cursor = conn.cursor()
    for _ in range(3):
        say("large", cursor.execute("select length(?::text)", big).fetchone()[0])
    cursor.close()
    found = query(conn, "select i, repeat('y', 100) from generate_series(1, ?::int) i", 10000)
    say("large", len(found), sum(row[0] for row in found))

    conn.autocommit = False
    conn.execute("set local statement_timeout = 50")
    attempt("timeout", "sleep", lambda: query(conn, "select pg_sleep(?)", 30))
    conn.rollback()
    conn.autocommit = True
    asleep = conn.cursor()

    def canceller():
        while query(other, "select count(*) from pg_stat_activity where datname = current_database() "
                           "and wait_event = 'PgSleep'")[0][0] != 1:
            pass
        asleep.cancel()
    helper = threading.Thread(target=canceller)
    helper.start()
    attempt("cancel", "sleep", lambda: asleep.execute("select pg_sleep(30)").fetchall())
    helper.join()
    asleep.close()
    say("cancel", "usable", query(conn, "select 1"))

    if not is_fetch:  # whose cursor keeps its transaction open, and with it the table
        conn.execute("create table changing (id int)")
        conn.execute("insert into changing values (1)")
        cursor = conn.cursor()
        everything = "select * from changing where id = ?"
        for number in range(2):
            attempt("schema", "before", lambda: [tuple(row) for row in cursor.execute(everything, 1).fetchall()])
        other.execute("alter table changing add column name text default 'new'")
        for number in range(2):
            attempt("schema", "after", lambda: [tuple(row) for row in cursor.execute(everything, 1).fetchall()])
        cursor.close()

    for command in ("deallocate all", "discard all"):
        conn.execute(command)
        say("discard", query(conn, "select ?::text || ' kept'", "a"), query(other, "select ?::text || ' kept'", "b"))
    try:
        query(conn, "select pg_terminate_backend(pg_backend_pid())")
    except pyodbc.Error as error:
        say("reconnect", error.args[0])
    again = connect(**more)
    say("reconnect", query(again, "select ?::text", "usable"))
    again.execute("drop table if exists things, batch, changing")
    again.close()


KINDS = {"prepared": {"UseServerSidePrepare": 1}, "bound": {"UseServerSidePrepare": 0},
         "fetch": {"UseDeclareFetch": 1, "Fetch": 7}, "statement": {"Protocol": "7.4-2"},
         "plain": {"Protocol": "7.4-0"}}
one_kind(KINDS[sys.argv[1]], sys.argv[1] == "fetch")
finish()
