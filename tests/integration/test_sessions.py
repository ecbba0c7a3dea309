"""What belongs to a session: LISTEN and NOTIFY, large objects, COPY, and who gets what of it."""

import os
import struct

import pgwire
from harness import ours, refused, same, slow
from pgwire import copy_data, copy_done, extended, query
from test_programs import psql

LO_CREAT, LO_OPEN, LO_READ, LO_WRITE, LO_LSEEK64 = 957, 952, 954, 955, 3170
INV_WRITE, INV_READ = 0x20000, 0x40000


def notify(t, channel, payload="", database="app"):
    with t.postgres.connect(database=database) as other:
        other.query(f"notify {channel}, '{payload}'")


def notified(c, wanted, timeout=5.0):
    """Reads until the client has had these notifications, and nothing else that is its own."""
    while len(c.notifications) < len(wanted):
        found = c.receive(timeout)
        assert found.type == "A", found
    same([(channel, payload) for _, channel, payload in c.notifications], wanted)


# ---- LISTEN and NOTIFY --------------------------------------------------------------------------

def test_notification_reaches_an_idle_client_of_its_database_only(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as c, pooler.connect(database="app2") as other:
        c.query("listen news")
        other.query("listen news")
        notify(t, "news", "for app")
        notified(c, [("news", "for app")])
        notify(t, "news", "for app2", "app2")
        notified(other, [("news", "for app2")])
        same(c.value("select 1"), "1")
        same(len(c.notifications), 1)


def test_notification_of_a_transaction_comes_when_it_is_over(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as c:
        c.query("listen news")
        c.query("begin")
        notify(t, "news", "during")
        same(c.value("select 1"), "1")
        assert c.silent_for(0.3)
        same(c.notifications, [])
        c.query("commit")
        if not c.notifications:
            notified(c, [("news", "during")])
        same([n[1:] for n in c.notifications], [("news", "during")])


def test_notifications_come_between_the_answers_of_a_pipeline(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as c:
        c.query("listen own")
        count = 40
        c.send(b"".join(query(f"notify own, '{i}'") + extended(f"select {i}") + pgwire.sync()
                        for i in range(count)))
        values = []
        while len(values) < count or len(c.notifications) < count:
            found = c.receive()
            assert found.type in "CZA12TD", found
            if found.type == "D":
                values.append(found.row()[0])
        same(values, [str(i) for i in range(count)])
        same([payload for _, _, payload in c.notifications], [str(i) for i in range(count)])


def test_long_notifications_arrive_whole(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as c:
        c.query("listen long")
        with t.postgres.connect() as other:
            other.query("begin")
            for i in range(200):
                other.query(f"notify long, '{str(i).rjust(7900, 'x')}'")
            other.query("commit")
        notified(c, [("long", str(i).rjust(7900, "x")) for i in range(200)])


def test_notifications_reach_many_listeners_each(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=12)
    clients = [pooler.connect() for _ in range(10)]
    for c in clients:
        c.query("listen all_of_you")
    for i in range(5):
        notify(t, "all_of_you", str(i))
    for c in clients:
        notified(c, [("all_of_you", str(i)) for i in range(5)])
        c.vanish()


def test_who_gets_the_server_next_hears_nothing_of_the_one_before(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first:
        pid = first.pid()
        first.query("listen mine")
        first.terminate()
    with pooler.connect() as second:
        same(second.pid(), pid)
        notify(t, "mine")
        assert second.silent_for(0.3)
        same(second.value("select count(*) from pg_listening_channels()"), "0")
        same(second.notifications, [])


@ours
def test_notification_for_a_server_that_nobody_has_is_dropped_and_said(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c:
        c.query("listen nobody")
        notify(t, "nobody")
        pooler.wait_log(r"WARNING S-.*dropped a message \(A\) that came while no client is linked")
        same(c.value("select 1"), "1")
        same(c.notifications, [])


@ours
def test_notification_during_suspend_comes_after_resume(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as c, pooler.console() as console:
        c.query("listen later")
        same(console.do("suspend"), "SUSPEND")
        notify(t, "later", "on")
        assert c.silent_for(0.3)
        same(console.do("resume"), "RESUME")
        notified(c, [("later", "on")])


@ours
def test_listener_is_no_idle_client(t):
    # It holds its server: client_idle_timeout is for those who hold none.
    pooler = t.pooler(pool_mode="session", client_idle_timeout=0.4)
    with pooler.connect() as c, pooler.connect() as idle:
        c.query("listen slow")
        same(idle.fatal().text, "client_idle_timeout")
        notify(t, "slow", "still there")
        notified(c, [("slow", "still there")])


# ---- large objects ------------------------------------------------------------------------------

def call(c, oid, *values):
    """A FunctionCall, all of it binary as libpq's; its value."""
    arguments = b"".join(struct.pack("!I", len(value)) + value for value in values)
    c.send(pgwire.message("F", struct.pack("!IHHH", oid, 1, 1, len(values)) + arguments +
                          struct.pack("!H", 1)))
    found = c.until("Z")
    errors = [m.error() for m in found if m.type == "E"]
    if errors:
        raise errors[0]
    return next(m for m in found if m.type == "V").body[4:]


def int4(number):
    return number.to_bytes(4, "big", signed=True)


def test_large_object_by_function_calls_in_a_transaction(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    content = os.urandom(300000)
    with pooler.connect() as c, pooler.connect() as other:
        c.query("begin")
        oid = call(c, LO_CREAT, int4(INV_READ | INV_WRITE))
        fd = call(c, LO_OPEN, oid, int4(INV_READ | INV_WRITE))
        for at in range(0, len(content), 60000):
            same(call(c, LO_WRITE, fd, content[at:at + 60000]), int4(60000))
        call(c, LO_LSEEK64, fd, bytes(8), int4(0))
        got = b""
        while len(got) < len(content):
            got += call(c, LO_READ, fd, int4(70000))
        assert got == content
        # the transaction holds the server
        other.send(query("select 'after it'"))
        assert other.silent_for(0.3)
        c.query("commit")
        same(other.results().value(), "after it")
        # outside a transaction there is no descriptor
        with refused("invalid large-object descriptor: 0", "42704"):
            call(c, LO_READ, fd, int4(10))
        same(c.value(f"select lo_unlink({int.from_bytes(oid, 'big')})"), "1")


@slow(30)
def test_psql_imports_and_exports_large_objects(t):
    content = os.urandom(5 << 20)
    path, copy = os.path.join(t.folder, "object"), os.path.join(t.folder, "copy")
    with open(path, "wb") as file:
        file.write(content)
    for mode in ("transaction", "session"):
        pooler = t.pooler(pool_mode=mode, default_pool_size=1)
        psql(t, pooler, input=f"\\lo_import {path}\n\\set oid :LASTOID\n\\lo_export :oid {copy}\n"
             "\\lo_unlink :oid\n")
        assert open(copy, "rb").read() == content
        os.unlink(copy)
    # with other clients at work in between
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2)
    with pooler.connect() as busy:
        busy.send(query("select pg_sleep(1)"))
        psql(t, pooler, input=f"\\lo_import {path}\n\\set oid :LASTOID\n\\lo_export :oid {copy}\n"
             "\\lo_unlink :oid\n")
        assert open(copy, "rb").read() == content


def test_function_call_passes_where_simple_queries_are_disallowed(t):
    pooler = t.pooler(disable_pqexec=1)
    with pooler.connect() as c:
        same(len(call(c, 1299)), 8)  # now()
        c.send(query("select 1"))
        same(c.fatal().text, "PQexec disallowed")


# ---- COPY ---------------------------------------------------------------------------------------

def test_copy_from_one_client_to_another_through_one_server(t):
    # Out and in in one transaction each, all through the one server of the pool.
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c:
        c.query("drop table if exists source, target; create table source as select n, repeat('s', "
                "n % 500) as t from generate_series(1, 5000) n; create table target (n int, t text)")
        c.send(query("copy source to stdout"))
        rows = [m.body for m in c.until("Z") if m.type == "d"]
        same(len(rows), 5000)
        c.query("begin")
        c.send(query("copy target from stdin"))
        same(c.receive().type, "G")
        c.send(b"".join(copy_data(row) for row in rows) + copy_done())
        same([m.type for m in c.until("Z")], ["C", "Z"])
        c.query("commit")
        same(c.value("select count(*) from (table source except table target) d"), "0")
        c.query("drop table source, target")


def test_psql_pipes_a_copy_through_two_databases(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with t.postgres.connect() as c, t.postgres.connect(database="app2") as other:
        c.query("drop table if exists piped; create table piped as select n from "
                "generate_series(1, 20000) n")
        other.query("drop table if exists piped; create table piped (n int)")
    out = psql(t, pooler, "\\copy piped to pstdout").stdout
    psql(t, pooler, "\\copy piped from pstdin", database="app2", input=out)
    same(psql(t, pooler, "select count(*), sum(n) from piped", database="app2").stdout,
         "20000|200010000\n")
