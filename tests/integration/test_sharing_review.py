"""Servers that are shared, seen by somebody who wants to break them."""

import subprocess
import threading

from harness import POSTGRES_BIN, eventually, ours, same, slow
from pgwire import Closed, bind, describe, execute, parse, query, sync
from sharing import Figures, Played, answer_to, sharing_pooler, tables, trusted


@ours
@slow(40)
def test_error_as_large_as_the_value_it_names_ends_nothing(t):
    # PostgreSQL puts the whole value into the message: more than what is gathered of one.
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with pooler.console() as console, pooler.connect() as c:
        figures = Figures(console)
        c.query("select 1")
        pids = {row["ptr"] for row in console.table("show servers")}
        for size in (20000, 40000, 70000, 300000):
            sql = f"select repeat('x', {size})::int"
            c.send(query(sql))
            found = c.results()
            assert [e.sqlstate for e in found.errors] == ["22P02"] and len(found.errors[0].text) > size, f"{size}: {found.errors}"
            c.send(parse("", sql) + bind() + describe("P") + execute() + sync())
            found = c.results()
            assert [e.sqlstate for e in found.errors] == ["22P02"] and len(found.errors[0].text) > size, f"{size}: {found.errors}"
        now = {row["ptr"] for row in console.table("show servers")}
        assert pids <= now, f"a server was lost: {pids} {now} {figures.now()}"
        figures.has("shared")


def locked_table(t):
    with t.postgres.connect() as c:
        c.query("drop table if exists locked_t; create table locked_t (a int); insert into locked_t values (1)")


def steady(t, pooler, clients=60, seconds=40):
    """Short reads without a pause: a server that they share is never idle."""
    script = f"{t.folder}/read.sql"
    with open(script, "w") as file:
        file.write("select 'pgbench', :client_id;\n")
    return subprocess.Popen([f"{POSTGRES_BIN}/pgbench", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "app", "-n", "-f", script,
                             "-c", str(clients), "-j", "4", "-T", str(seconds), "app"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@ours
@slow(60)
def test_who_was_moved_already_is_moved_again(t):
    locked_table(t)
    pooler = sharing_pooler(t, sharing=1, size=6)
    with t.postgres.connect() as admin:
        clients = [pooler.connect(timeout=10) for _ in range(5)]
        trusted(clients, "select count(*) from locked_t where a = 1", rounds=100)
        trusted(clients, "select 'warm', 1", rounds=100)
        admin.query("begin; lock table locked_t")
        # Each of them is behind the one before it, wherever it goes.
        for number, c in enumerate(clients[:4]):
            c.send(query(f"select count(*) from locked_t where a = {number}"))
        clients[4].send(query("select 'free', 1"))
        clients[4].until("Z")
        admin.query("commit")
        for c in clients[:4]:
            c.until("Z")
            c.vanish()


@ours
@slow(60)
def test_who_waits_in_line_is_not_overtaken_for_ever(t):
    # While something takes longer than usual, but not long enough for the queue to be closed, newcomers wait in line.
    pooler = sharing_pooler(t, sharing=1, size=1)
    clients = [pooler.connect(timeout=20) for _ in range(10)]
    longer = pooler.connect(timeout=20)
    text = "select count(*) from generate_series(1, {})"
    trusted(clients)
    trusted(clients, text.format(10), rounds=200)
    load = steady(t, pooler)
    with pooler.console() as console:
        figures = Figures(console)
        eventually(lambda: figures.since("shared") > 1000, "the load is at work")
        often = []
        for turn in range(60):
            longer.send(query(text.format(10000 + 1000 * turn)))
            before = figures.since("shared")
            for c in clients:
                c.send(query(f"select 'patient', {turn}"))
            for number, c in enumerate(clients):
                c.until("Z")
            longer.until("Z")
            overtaken = figures.since("shared") - before
            often += [overtaken] if overtaken > 600 else []
    # A test that does not get the CPU for a while finds many answered meanwhile, whoever was first.
    assert len(often) < 5, f"overtaken {often} times"
    load.terminate()
    load.communicate()


@ours
@slow(60)
def test_fewer_statements_than_a_server_has_by_far_end_nothing(t):
    pooler = sharing_pooler(t, size=1, max_prepared_statements=500)
    with pooler.console() as console, pooler.connect() as c:
        figures = Figures(console)
        for number in range(400):
            c.send(parse(f"s{number}", f"select {number}, $1::text") + sync())
            c.until("Z")
            c.send(bind("", f"s{number}", ["x"]) + execute() + sync())
            c.until("Z")
        ids = [row["ptr"] for row in console.table("show servers")]
        pooler.change(max_prepared_statements=1)
        # The second time it is kept under a name, and all others have to go for it.
        for turn in range(4):
            c.send(parse("", "select $1::int + 1") + bind("", "", [turn]) + execute() + sync())
            found = c.results()
            same(found.types, "12DCZ")
            same(found.rows, [(str(turn + 1),)])
        assert [row["ptr"] for row in console.table("show servers")] == ids, f"the server was lost: {figures.now()}"
        figures.has("shared")


@ours
def test_parameter_of_any_length_ends_nobody_else(t):
    pooler = t.pooler(default_pool_size=2)
    with pooler.connect() as c:
        for size in (20000, 70000, 200000):
            c.send(query(f"set application_name = '{'x' * size}'"))
            try:
                c.until("Z")
            except Closed:
                break
    pooler.usable()


@ours
@slow(40)
def test_result_of_very_many_columns_ends_no_server(t):
    # RowDescription of 1,600 columns is longer than what is gathered of a message.
    columns = [f"a_column_with_a_long_name_{i}" for i in range(1600)]
    with t.postgres.connect() as c:
        c.query(f"drop table if exists wide; create table wide ({', '.join(f'{name} bool' for name in columns)})")
    pooler = sharing_pooler(t)
    with pooler.console() as console, pooler.connect() as c:
        figures = Figures(console)
        c.send(parse("s", "select * from wide") + sync())
        c.until("Z")
        ids = [row["ptr"] for row in console.table("show servers")]
        for before in (b"", b"", describe("S", "s") + sync(), b""):
            c.send(before)
            if before:
                c.until("Z")
            c.send(bind("", "s") + describe("P") + execute() + sync())
            assert [name for name, _ in c.results().columns] == columns
            c.send(bind("", "s") + execute() + sync())
            same(c.results().types, "2CZ")
        assert [row["ptr"] for row in console.table("show servers")] == ids, f"the server was lost {figures.now()}"
        figures.has("shared")


@ours
@slow(60)
def test_room_is_made_where_it_comes_soon(t):
    # One server has a slow read, the other one a short one: who comes behind a client that needs a server for himself
    # does not join the short one.
    over, seen_late = threading.Event(), 0
    played = Played(t)
    played.traps["slow"] = lambda server, sql, waiting: over.wait(20) and answer_to(sql)
    played.traps["short"] = lambda server, sql, waiting: answer_to(sql)
    pooler = played.pooler(t, sharing=2, size=2)
    clients = [pooler.connect(timeout=10) for _ in range(6)]
    slow, short, own, *late = clients
    trusted(clients, "select 'warm', 1 as r1", rounds=60)
    slow.send(query("select 'slow', 1 as slowly"))
    eventually(lambda: played.caught.get("slow"), "the slow one runs")
    for turn in range(40):
        del played.seen[:]
        short.send(query(f"select 'short', {turn} as r1"))
        own.send(query(f"select 'own', {turn} as r1 for update"))
        for c in late:
            c.send(query(f"select 'late', {turn} as r1"))
        for c in (short, own, *late):
            c.until("Z")
        names = [sql.split(b"'")[1] for sql in played.seen]
        seen_late += names.index(b"own") > names.index(b"late")
    over.set()
    slow.until("Z")
    assert seen_late == 0, f"who came later was served earlier {seen_late} times of 40"


@ours
@slow(60)
def test_server_that_works_for_nobody_any_more_is_given_up(t):
    # The class is known to be short, so what is asked is not given up at once when its client leaves; but it is blocked.
    locked_table(t)
    pooler = sharing_pooler(t, size=1)
    with t.postgres.connect() as admin, pooler.connect() as other:
        for with_others in (False, True, False):
            leaver = pooler.connect()
            trusted([leaver], "select count(*) from locked_t where a = 1", rounds=100)
            admin.query("begin; lock table locked_t")
            leaver.send(query("select count(*) from locked_t where a = 2"))
            eventually(lambda: t.postgres.value("select count(*) from pg_locks where not granted") == "1", "it is blocked")
            if with_others:
                other.send(query("select 'other', 1"))
            leaver.vanish()
            if not with_others:
                other.send(query("select 'other', 1"))
            other.until("Z")
            admin.query("commit")
