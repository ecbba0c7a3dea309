"""Replication connections: each has a server of its own, from its login to its end."""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

import pgwire
from harness import (PASSWORD, POSTGRES_BIN, as_os_user, eventually, free_port, give_to_os_user,
                     matches, ours, plain, process_runs, refused, same, slow)
from pgwire import copy_data, copy_done, message, query
from test_programs import conninfo
from test_restart import first_of, next_of

FOUR = "[pgsplice]\nworker_threads = 4\n"


# ---- helpers ------------------------------------------------------------------------------------

def rows(console, table, **wanted):
    """The rows of SHOW CLIENTS or SERVERS with these values."""
    return [row for row in console.table(f"show {table}")
            if all(row[key] == value for key, value in wanted.items())]


def kinds(console, table, user="app"):
    return sorted(row["replication"] for row in rows(console, table, user=user))


def drop_slot(postgres, name):
    """Whoever still uses it."""
    with postgres.connect() as admin:
        def dropped():
            with contextlib.suppress(pgwire.PgError):
                admin.query("select pg_terminate_backend(active_pid) from pg_replication_slots "
                            f"where slot_name = '{name}' and active")
                admin.query("select pg_drop_replication_slot(slot_name) from "
                            f"pg_replication_slots where slot_name = '{name}'")
                return True
        eventually(dropped, f"slot {name} is dropped")


@contextlib.contextmanager
def slot(postgres, name, plugin=None):
    """A replication slot for the time of a block; gone afterwards, whoever still uses it."""
    with postgres.connect() as admin:
        if plugin:
            admin.query(f"select pg_create_logical_replication_slot('{name}', '{plugin}')")
        else:
            admin.query(f"select pg_create_physical_replication_slot('{name}', true)")
    try:
        yield
    finally:
        drop_slot(postgres, name)


def position(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def status_update(lsn, reply=0):
    return copy_data(struct.pack("!cQQQqB", b"r", lsn, lsn, lsn, 0, reply))


def stream(c, start="0/0", plugin_slot=None):
    """Begins to stream; the client is in CopyBoth afterwards."""
    if plugin_slot:
        c.send(query(f"START_REPLICATION SLOT {plugin_slot} LOGICAL {start}"))
    else:
        c.send(query(f"START_REPLICATION PHYSICAL {start}"))
    found = c.receive()
    assert found.type == "W", found
    return c


def changes(c, until, timeout=5.0):
    """The texts of test_decoding up to the first one that has `until` in it; says that it is alive when asked."""
    texts = []
    deadline = time.monotonic() + timeout
    while True:
        found = c.receive(max(deadline - time.monotonic(), 0.001))
        assert found.type == "d", found
        if found.body[:1] == b"w":
            texts.append(found.body[25:].decode())
            if until in texts[-1]:
                return texts
        elif found.body[:1] == b"k" and found.body[17] == 1:
            c.send(status_update(struct.unpack_from("!Q", found.body, 1)[0]))


def write(postgres, text, database="app"):
    with postgres.connect(database=database) as c:
        c.query("set synchronous_commit = on; create table if not exists replicated (t text)")
        c.query(f"insert into replicated values ('{text}')")


def physical(t, **settings):
    """A pooler with the entry that physical replicas ask for."""
    return t.pooler(databases={"app": t.postgres.address("app"),
                               "replication": t.postgres.address("app")}, **settings)


# ---- login --------------------------------------------------------------------------------------

@plain
@ours
def test_logical_client_has_a_server_of_its_own(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=5)
    with pooler.connect() as plain, pooler.connect(replication="database") as c, \
            pooler.console() as console:
        plain.value("select 1")
        same(c.query("IDENTIFY_SYSTEM").rows[0][3], "app")
        same(kinds(console, "clients"), ["logical", "none"])
        same(kinds(console, "servers"), ["logical", "none"])
        pids = {c.value("select pg_backend_pid()") for _ in range(3)}
        same(len(pids), 1)
        assert plain.value("select pg_backend_pid()") not in pids
        console.wait_pool(sv_active=1, sv_idle=1)
    pooler.wait_log("login attempt: db=app user=app tls=no replication=database")
    pooler.wait_log("login attempt: db=app user=app tls=no replication=no")


@plain
@ours
def test_physical_client_has_a_server_of_its_own(t):
    pooler = physical(t)
    for word in ("true", "on", "yes", "1", "T", "yE"):
        with pooler.connect(database="replication", replication=word) as c, \
                pooler.console() as console:
            same(c.query("IDENTIFY_SYSTEM").rows[0][3], None)
            with refused("cannot execute SQL commands in WAL sender for physical replication"):
                c.query("select 1")
            same(kinds(console, "clients"), ["physical"])
            same(kinds(console, "servers"), ["physical"])
    pooler.wait_log("login attempt: db=replication user=app tls=no replication=yes")


@ours
def test_words_that_are_not_true_ask_for_no_replication(t):
    pooler = t.pooler()
    with pooler.console() as console:
        for word in ("false", "off", "no", "0", "o", "DATABASE", "nonsense", ""):
            with pooler.connect(replication=word) as c:
                same(c.value("select 1"), "1")
                same(kinds(console, "clients"), ["none"])


@ours
def test_database_name_of_a_physical_client_defaults_to_the_user(t):
    pooler = t.pooler()
    with pooler.connect(database=None, replication="true") as c, pooler.console() as console:
        same(c.query("IDENTIFY_SYSTEM").rows[0][3], None)
        same(rows(console, "clients", replication="physical")[0]["database"], "app")


@ours
def test_entry_for_any_database_serves_physical_replicas(t):
    pooler = t.pooler(databases={"*": f"host=127.0.0.1 port={t.postgres.port}"})
    with pooler.connect(database="replication", replication="true") as c:
        same(c.query("IDENTIFY_SYSTEM").rows[0][3], None)


@ours
def test_what_a_client_asks_for_is_in_its_servers_startup_message(t):
    seen = []

    def script(c):
        c.startup()
        seen.append(c.params)
        c.send(c.WELCOME)
        c.serve_one_value()
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake, timezone="Asia/Tokyo",
                                                     datestyle="German"),
                                 "replication": t.fake_entry(fake)})
    options = r"-c datestyle=ISO --work-mem=64kB -c unknown.name=a\ b -x"
    with pooler.connect(options=options, DateStyle="SQL", replication="database",
                        application_name="mine", client_encoding="LATIN1"):
        same(seen.pop(), {"user": "app", "database": "app", "replication": "database",
                          "DateStyle": "SQL", "client_encoding": "LATIN1", "timezone": "Asia/Tokyo",
                          "datestyle": "German", "application_name": "mine", "options": options})
    with pooler.connect(replication="on", database="replication"):
        same(seen.pop(), {"user": "app", "database": "app", "replication": "yes"})
    # Where there is no replication they are looked at.
    with refused("unsupported startup parameter in options: work_mem"):
        pooler.connect(options="--work-mem=64kB")


@ours
def test_welcome_is_that_of_the_clients_own_server(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as plain:
        ordinary = dict(plain.params)
    with pooler.connect(replication="database", TimeZone="Asia/Tokyo",
                        options="-c IntervalStyle=iso_8601 -c DateStyle=SQL,DMY") as c:
        same([c.params[name] for name in ("TimeZone", "IntervalStyle", "DateStyle")],
             ["Asia/Tokyo", "iso_8601", "SQL, DMY"])
        same(sorted(c.params), sorted(ordinary))
        same(c.value("show IntervalStyle"), "iso_8601")
    # and nobody else's
    with pooler.connect() as plain:
        same(plain.params, ordinary)
        same(plain.value("show IntervalStyle"), "postgres")


@ours
def test_welcome_of_a_replication_server_is_not_cached(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(replication="database", options="-c IntervalStyle=iso_8601"), \
            pooler.connect() as plain:
        same(plain.params["IntervalStyle"], "postgres")


@ours
def test_login_notify_message_is_told_to_replication_too(t):
    with t.pooler(login_notify_message="maintenance at noon").open() as c:
        welcome = c.login(replication="database")
        same("".join(m.type for m in welcome)[-3:], "KNZ")
        same(welcome[-2].fields()["M"], "maintenance at noon")


@ours
def test_login_by_password_works_on_both_sides(t):
    for user in ("u_plain", "u_md5", "u_scram"):
        with t.pooler(auth_type="scram-sha-256", userlist={user: PASSWORD}).connect(
                user, password=PASSWORD, replication="database") as c:
            same(c.query("IDENTIFY_SYSTEM").rows[0][3], "app")


@ours
def test_cancel_request_reaches_the_server_of_a_logical_client(t):
    pooler = t.pooler()
    with pooler.connect(replication="database") as c:
        c.send(query("select pg_sleep(20)"))
        eventually(lambda: t.postgres.value("select count(*) from pg_stat_activity where query like "
                                            "'%pg_sleep(20)%' and pid <> pg_backend_pid()") == "1",
                   "the query runs")
        pooler.cancel(c.key)
        same(c.results().errors[0].sqlstate, "57014")
        same(c.value("select 1"), "1")


@ours
def test_hba_files_tell_physical_replication_from_the_rest(t):
    pooler = physical(t, auth_type="hba", start=False)
    pooler.settings["auth_hba_file"] = pooler.write_file(
        "hba", "host replication app all trust\nhost app other all trust\n"
               "host pgbouncer all all trust\nhost all app all reject\n")
    pooler.write()
    pooler.start()
    # a physical one is matched by the keyword, whatever database it names
    for database in ("replication", "app"):
        with pooler.connect(database=database, replication="true") as c:
            same(len(c.query("IDENTIFY_SYSTEM").rows), 1)
    # by nothing else
    with refused("no authentication method is found"):
        pooler.connect("other", replication="true")
    # a logical one by its database
    with pooler.connect("other", replication="database") as c:
        same(c.query("IDENTIFY_SYSTEM").rows[0][3], "app")
    for rest in ({"replication": "database"}, {}):
        with refused("login rejected"):
            pooler.connect(database="replication", **rest)


@ours
def test_line_for_replicas_does_not_open_the_console(t):
    """Else `replication` in a startup message would be a way past the lines that guard the console."""
    pooler = t.pooler(auth_type="hba", start=False, userlist={"app": "", "admin": "secret"})
    pooler.settings["auth_hba_file"] = pooler.write_file(
        "hba", "host replication all all trust\nhost all all all scram-sha-256\n")
    pooler.write()
    pooler.start()
    for replication in ("true", "database", "false"):
        with pooler.open() as c:
            c.send(pgwire.startup({"user": "admin", "database": "pgbouncer",
                                   "replication": replication}))
            same((c.receive().body[:4]), b"\0\0\0\x0a", replication)  # SASL is asked for
        with pooler.console(password="secret", replication=replication) as console:
            same(rows(console, "clients", database="pgbouncer")[0]["replication"], "none")


# ---- failures -----------------------------------------------------------------------------------

@ours
def test_server_that_refuses_the_login_is_said_and_hurts_nobody_else(t):
    with t.postgres.connect() as admin:
        admin.query("drop role if exists may_not; create role may_not login")
    pooler = t.pooler(userlist={"may_not": "", "app": ""},
                      databases={"app": t.postgres.address("app"),
                                 "none": t.postgres.address("no_such")})
    with refused("login failed", "08P01", "FATAL") as caught:
        pooler.connect(database="none", replication="database")
    matches('The server\'s login ended with: database "no_such" does not exist',
            caught[0].fields["D"])
    # PostgreSQL refuses replication to this one, and nothing else
    for _ in range(3):
        with refused("login failed"):
            pooler.connect("may_not", replication="database")
        with pooler.connect("may_not") as c:
            same(c.value("select 1"), "1")


@ours
def test_server_that_cannot_be_reached_is_said_at_once(t):
    port = free_port(t.slot)
    pooler = t.pooler(databases={"app": f"host=127.0.0.1 port={port}"})
    started = time.monotonic()
    for _ in range(3):
        with refused("connect failed", "08P01", "FATAL"):
            pooler.connect(replication="database")
    assert time.monotonic() - started < 3
    with pooler.console() as console:
        console.wait_pool(cl_waiting=0, sv_login=0)


@ours
def test_each_address_of_a_host_is_tried(t):
    # nobody listens at the first one
    hosts = "host=127.0.0.2,127.0.0.1"
    pooler = t.pooler(databases={"app": f"{hosts} port={free_port(t.slot)}"})
    with refused("connect failed"):
        pooler.connect(replication="database")
    fake = t.fake_server(lambda c: (c.welcome(), c.serve_one_value()))
    pooler = t.pooler(databases={"app": f"{hosts} port={fake.port}"})
    for _ in range(4):
        with pooler.connect(replication="database") as c:
            same(c.value("select 1"), "1")
    clients = [pooler.open() for _ in range(6)]
    for c in clients:
        c.send(pgwire.startup({"user": "app", "database": "app", "replication": "database"}))
    for c in clients:
        c.authenticate("app", None)


@ours
def test_server_that_does_not_answer_is_a_connect_timeout(t):
    fake = t.fake_server(lambda c: c.startup() and c.receive())
    pooler = t.pooler(databases={"app": t.fake_entry(fake)}, server_connect_timeout=0.3)
    with refused("connect timeout", "08P01", "FATAL"):
        pooler.connect(replication="database")


@ours
def test_host_that_has_no_address_is_a_dns_failure(t):
    pooler = t.pooler(databases={"app": "host=no-such-host.invalid"})
    with refused("server DNS lookup failed", "08P01", "FATAL"):
        pooler.connect(replication="database", timeout=12)


@ours
def test_server_that_ends_takes_its_client_along(t):
    pooler = t.pooler()
    with pooler.connect(replication="database") as c:
        pid = c.value("select pg_backend_pid()")
        t.postgres.value(f"select pg_terminate_backend({pid})")
        found = [m.error().text for m in c.closed() if m.type == "E"]
        same(found, ["terminating connection due to administrator command",
                     "server conn crashed?"])


@ours
def test_client_that_ends_takes_its_server_along(t):
    pooler = t.pooler()
    leave = {"Terminate": lambda c: c.terminate(), "EOF": lambda c: c.vanish(),
             "RST": lambda c: c.reset()}
    for way, go in leave.items():
        with pooler.connect(replication="database") as c:
            c.value("select 1")
            same(len(t.postgres.backends()), 1, way)
            go(c)
        eventually(lambda: t.postgres.backends() == [], way)
    pooler.wait_log("closing because: replication client disconnected")
    matches("disconnection: session time", open(t.postgres.log).read())


# ---- limits -------------------------------------------------------------------------------------

def knock(pooler, kind="database", database="app"):
    """A client that has sent its startup message and waits."""
    c = pooler.open()
    c.send(pgwire.startup({"user": "app", "database": database, "replication": kind}))
    return c


@ours
def test_pool_size_counts_replication_and_the_next_one_waits(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2)
    first, second = (pooler.connect(replication="database") for _ in range(2))
    third = knock(pooler)
    with pooler.console() as console, pooler.connect("other") as other:
        console.wait_pool(cl_waiting=1, sv_active=2)
        same(other.value("select 1"), "1")
        same([row["state"] for row in rows(console, "clients", user="app", replication="logical")],
             ["active", "active", "waiting"])
        assert third.silent_for(0.5)
        same(len(t.postgres.backends()), 2)
        first.terminate()
        third.authenticate("app", None)
        same(third.value("select 1"), "1")
        console.wait_pool(cl_waiting=0, sv_active=2)
    second.vanish()


@ours
def test_idle_server_gives_way_to_replication(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as plain:
        plain.value("select 1")
        with pooler.connect(replication="database") as c:
            c.value("select 1")
            same(len(t.postgres.backends()), 1)
            # and what it holds is nobody else's
            plain.send(query("select 'later'"))
            assert plain.silent_for(0.4)
            c.terminate()
        same(plain.results().value(), "later")
    pooler.wait_log("closing because: evicted")


@ours
def test_idle_server_on_another_worker_gives_way_to_replication(t):
    # The second client goes to the worker that has none of the pool yet.
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1,
                      extra=FOUR + "pool_shards = 4\n")
    with pooler.connect() as plain, pooler.console() as console:
        plain.value("select 1")
        with pooler.connect(replication="database") as c:
            same(c.value("select 1"), "1")
            console.wait_pool(sv_idle=0, sv_active=1)
            same(len([row for row in console.table("show shards") if row["database"] == "app"]), 2)
            same(len(t.postgres.backends()), 1)
        same(plain.value("select 2", 10), "2")


@ours
def test_replication_that_waits_longest_gets_the_next_free_place(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as holder, pooler.connect() as later, pooler.console() as console:
        holder.query("begin")
        c = knock(pooler)
        console.wait_pool(cl_waiting=1)
        later.send(query("select 'later'"))
        console.wait_pool(cl_waiting=2)
        holder.query("commit")
        c.authenticate("app", None)
        assert later.silent_for(0.4)
        c.terminate()
        same(later.results().value(), "later")


@ours
def test_limits_of_database_and_user_hold_for_replication(t):
    for name in ("max_db_connections", "max_user_connections"):
        pooler = t.pooler(pool_mode="transaction", **{name: 2})
        with pooler.connect() as plain, pooler.console() as console:
            plain.value("select 1")
            held = [pooler.connect(replication="database") for _ in range(2)]
            third = knock(pooler)
            console.wait_pool(cl_waiting=1, sv_active=2, sv_idle=0)
            same(len(t.postgres.backends()), 2)
            held[0].terminate()
            third.authenticate("app", None)
        for c in (*held, third):
            c.vanish()


@ours
def test_replication_that_waits_in_vain_is_told(t):
    pooler = t.pooler(default_pool_size=1, query_wait_timeout=0.6)
    with pooler.connect(replication="database"):
        with refused("query_wait_timeout", "08P01", "FATAL"):
            pooler.connect(replication="database")


@ours
def test_client_limits_count_replication(t):
    pooler = t.pooler(max_client_conn=3, max_user_client_connections=2)
    with pooler.connect(replication="database"), pooler.connect(replication="database"), \
            refused(r"client connections exceeded \(max_user_client_connections\)"):
        pooler.connect(replication="database")


@ours
def test_timeouts_of_queries_do_not_hold_for_replication(t):
    timeouts = ("query_timeout", "transaction_timeout", "idle_transaction_timeout",
                "client_idle_timeout", "server_idle_timeout", "server_lifetime",
                "client_login_timeout")
    pooler = t.pooler(pool_mode="statement", query_wait_timeout=5, **{name: 0.4 for name in timeouts})
    with pooler.connect(replication="database") as c, pooler.connect(replication="database") as s:
        c.query("begin")
        s.value("select 1")
        c.send(query("select pg_sleep(1.2)"))
        with pooler.connect() as plain, refused("query timeout"):
            plain.query("select pg_sleep(2)")
        same(c.results().types, "TDCZ")
        same(c.query("commit").tags, ["COMMIT"])
        same(s.value("select 1"), "1")


@ours
def test_connect_query_is_not_run_for_replication(t):
    pooler = t.pooler(databases={"app": t.postgres.address(
        "app", connect_query="'set work_mem = 12345'")})
    with pooler.connect() as plain, pooler.connect(replication="database") as c:
        same(plain.value("show work_mem"), "12345kB")
        same(c.value("show work_mem"), "4MB")


# ---- streams ------------------------------------------------------------------------------------

@ours
def test_stream_brings_changes_as_they_come(t):
    write(t.postgres, "before")
    with slot(t.postgres, "s_changes", "test_decoding"):
        pooler = t.pooler(pool_mode="transaction")
        with pooler.connect(replication="database") as c:
            stream(c, plugin_slot="s_changes")
            for text in ("one", "two", "x" * 300000, "three"):
                write(t.postgres, text)
                matches(f"INSERT: t\\[text\\]:'{text[:20]}", "\n".join(changes(c, text[:20])))
            # the end: each side says that it is done, then the session goes on
            c.send(copy_done())
            found = c.until("Z")
            same([m.type for m in found if m.type not in "dN"], ["c", "C", "C", "Z"])
            same(c.query("IDENTIFY_SYSTEM").rows[0][3], "app")


@ours
def test_what_the_replica_has_confirmed_reaches_postgresql(t):
    write(t.postgres, "before")
    with slot(t.postgres, "s_confirmed", "test_decoding"):
        pooler = t.pooler()
        with pooler.connect(replication="database") as c:
            stream(c, plugin_slot="s_confirmed")
            write(t.postgres, "confirmed")
            changes(c, "confirmed")
            lsn = position(t.postgres.value("select pg_current_wal_lsn()"))
            confirmed = "select confirmed_flush_lsn from pg_replication_slots"
            c.send(status_update(lsn))
            eventually(lambda: position(t.postgres.value(confirmed)) == lsn, "it is confirmed")
            # the very last words, too
            write(t.postgres, "more")
            changes(c, "more")
            lsn = position(t.postgres.value("select pg_current_wal_lsn()"))
            c.send(status_update(lsn) + copy_done() + pgwire.terminate())
        eventually(lambda: position(t.postgres.value(confirmed)) == lsn, "the last one")


@ours
def test_stream_whose_client_leaves_ends_without_an_accident(t):
    write(t.postgres, "before")
    with slot(t.postgres, "s_leaves", "test_decoding"):
        pooler = t.pooler()
        for leave in (lambda c: c.terminate(), lambda c: c.vanish()):
            with pooler.connect(replication="database") as c:
                stream(c, plugin_slot="s_leaves")
                pid = t.postgres.value("select active_pid from pg_replication_slots")
                leave(c)
            eventually(lambda: t.postgres.value("select active from pg_replication_slots") == "f",
                       "the stream has ended")
            matches(rf"\[{pid}\] LOG:  disconnection", open(t.postgres.log).read())
            assert f"[{pid}] LOG:  unexpected EOF" not in open(t.postgres.log).read()


@ours
def test_keepalives_pass_both_ways(t):
    write(t.postgres, "before")
    with slot(t.postgres, "s_alive", "test_decoding"):
        pooler = t.pooler()
        with pooler.connect(replication="database", options="-c wal_sender_timeout=1500ms") as c:
            stream(c, plugin_slot="s_alive")
            # PostgreSQL ends whoever is silent for the timeout: it asks, and is answered
            asked = 0
            while asked < 3:
                found = c.receive(3)
                if found.type == "d" and found.body[:1] == b"k" and found.body[17] == 1:
                    asked += 1
                    c.send(status_update(struct.unpack_from("!Q", found.body, 1)[0]))
            # and the client asks
            c.send(status_update(1, reply=1))
            while c.receive().body[:1] != b"k":
                pass
            # and who does not answer is cut off, so that the test can fail
            matches("terminating walsender|server conn crashed", c.fatal(5).text)


def wait_standstill(console, counter):
    """Waits until so many bytes have passed and no more do."""
    seen = [0]

    def stands():
        value = next(int(row[counter]) for row in console.table("show stats_totals")
                     if row["database"] == "app")
        seen.append(value)
        return value > 100000 and seen[-6:].count(value) == 6
    eventually(stands, f"{counter} stands still", 10)


@ours
@slow(40)
def test_slow_replica_costs_little_memory_and_can_say_that_it_is_alive(t):
    heard = []

    def script(c):
        def listen():
            with contextlib.suppress(OSError, pgwire.Closed):
                while True:
                    heard.append(c.receive())
        c.welcome()
        same(c.receive().type, "Q")
        c.send(message("W", struct.pack("!bH", 0, 0)))
        threading.Thread(target=listen, daemon=True).start()
        block = message("d", b"w" + bytes(60000)) * 20
        for _ in range(500):
            c.send(block)
        c.send(message("c"))
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)})
    with pooler.connect(replication="database", receive_bytes=65536) as c:
        before = pooler.memory()
        c.send(query("START_REPLICATION"))
        same(c.receive().type, "W")
        with pooler.console() as console:
            wait_standstill(console, "bytes_sent")
        assert pooler.memory() - before < 24 << 20, (pooler.memory() - before) >> 20
        for number in range(10):
            c.send(status_update(number))
            eventually(lambda: len(heard) == number + 1, "what the replica says arrives")
            same(heard[-1].body[:9], struct.pack("!cQ", b"r", number))
        total = 0
        while True:
            found = c.receive(10)
            if found.type == "c":
                break
            total += len(found.body)
        same(total, 500 * 20 * 60001)
        assert pooler.memory() - before < 24 << 20
    same(fake.problems, [])


@ours
@slow(40)
def test_server_that_does_not_read_stops_the_replica_only(t):
    reads_now = threading.Event()

    def stubborn(c):
        c.welcome()
        same(c.receive().type, "Q")
        c.send(message("W", struct.pack("!bH", 0, 0)))
        reads_now.wait(30)
        got = 0
        while got < 200 * 100000:
            got += len(c.receive().body)
        c.send(message("d", b"k" + struct.pack("!QQB", got, 0, 0)))
    fake = t.fake_server(stubborn)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)})
    with pooler.connect(replication="database", timeout=20) as c:
        before = pooler.memory()
        c.send(query("START_REPLICATION"))
        same(c.receive().type, "W")
        sender = threading.Thread(target=lambda: c.send(copy_data(bytes(100000)) * 200))
        sender.start()
        with pooler.console() as console:
            wait_standstill(console, "bytes_received")
        assert pooler.memory() - before < 24 << 20
        reads_now.set()
        sender.join(20)
        found = c.receive(10)
        same(struct.unpack_from("!Q", found.body, 1)[0], 200 * 100000)


# ---- the console and signals --------------------------------------------------------------------

@ours
def test_reconnect_and_reload_of_the_entry_close_streams_at_once(t):
    write(t.postgres, "before")
    with slot(t.postgres, "s_marked", "test_decoding"):
        pooler = t.pooler(pool_mode="transaction")

        def moved():
            pooler.databases["app"] = t.postgres.address("app", application_name="other")
            pooler.databases["app2"] = t.postgres.address("app2", connect_query="'select 1'")
            pooler.change()
        marks = {"app": lambda console: console.do("reconnect"),
                 "app2": lambda console: moved()}
        for database, mark in marks.items():
            with pooler.connect(replication="database", database=database) as c, \
                    pooler.connect(database=database) as plain, pooler.console() as console:
                plain.query("begin")
                if database == "app":
                    stream(c, plugin_slot="s_marked")
                else:
                    c.value("select 1")
                mark(console)
                error = c.fatal()
                same((error.text, error.sqlstate), ("database configuration changed", "08P01"))
                same(plain.query("commit").tags, ["COMMIT"])
        # what has not changed stays
        with pooler.connect(replication="database") as c:
            pooler.reload()
            same(c.value("select 1"), "1")


@ours
def test_reconnect_during_a_login_makes_another_one(t):
    logins, go_on = [], threading.Event()

    def script(c):
        c.startup()
        logins.append(c)
        if len(logins) == 1:
            go_on.wait(10)
        c.send(c.WELCOME)
        c.serve_one_value("of the second")
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)})
    with pooler.console() as console:
        c = knock(pooler)
        eventually(lambda: len(logins) == 1, "the first login")
        same(console.do("reconnect"), "RECONNECT")
        c.authenticate("app", None)
        same(c.value("select 1"), "of the second")
        go_on.set()


@ours
def test_pause_waits_for_streams_and_holds_new_ones(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.console() as console, pooler.console() as other:
        c = pooler.connect(replication="database")
        c.value("select 1")
        console.client.send(query("pause"))
        late = knock(pooler)
        other.wait_pool(cl_waiting=1)
        assert console.client.silent_for(0.4)
        assert late.silent_for(0.1)
        same(c.value("select 'it goes on'"), "it goes on")
        c.terminate()
        same(console.client.results().tags, ["PAUSE"])
        assert late.silent_for(0.4)
        same(t.postgres.backends(), [])
        same(console.do("resume"), "RESUME")
        late.authenticate("app", None)
        same(late.value("select 1"), "1")
        late.vanish()


@ours
def test_login_that_ends_during_a_pause_waits_for_its_end(t):
    logins, go_on = [], threading.Event()

    def script(c):
        c.startup()
        logins.append(c)
        go_on.wait(10)
        c.send(c.WELCOME)
        c.serve_one_value()
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)})
    with pooler.console() as console:
        c = knock(pooler)
        eventually(lambda: len(logins) == 1, "the first login")
        same(console.do("pause"), "PAUSE")
        go_on.set()
        pooler.wait_log("closing because: pause mode")
        assert c.silent_for(0.4)
        same(console.do("resume"), "RESUME")
        c.authenticate("app", None)
        same(c.value("select 1"), "1")


@ours
def test_suspend_stops_a_stream_and_resume_lets_it_go_on(t):
    write(t.postgres, "before")
    with slot(t.postgres, "s_suspended", "test_decoding"):
        pooler = t.pooler()
        with pooler.connect(replication="database") as c, pooler.console() as console:
            stream(c, plugin_slot="s_suspended")
            write(t.postgres, "first")
            changes(c, "first")
            same(console.do("suspend", 10), "SUSPEND")
            write(t.postgres, "second")
            eventually(lambda: not c.silent_for(0.3) or True, "quiet")
            assert not c.buffer or b"second" not in c.buffer
            same(console.do("resume"), "RESUME")
            changes(c, "second")


@ours
def test_kill_closes_streams_and_who_waits_for_one(t):
    pooler = t.pooler(default_pool_size=1)
    with pooler.console() as console:
        c = pooler.connect(replication="database")
        waits = knock(pooler)
        console.wait_pool(cl_waiting=1)
        same(console.do("kill app"), "KILL")
        for one in (c, waits):
            same(one.fatal().text, "database removed")
        eventually(lambda: t.postgres.backends() == [], "no server is left")
        same(console.do("resume app"), "RESUME")
    with pooler.connect(replication="database") as c:
        same(c.value("select 1"), "1")


@ours
def test_kill_client_closes_a_stream(t):
    pooler = t.pooler()
    with pooler.console() as console, pooler.connect(replication="database") as c:
        number = rows(console, "clients", replication="logical")[0]["id"]
        same(console.do(f"kill_client {number}"), "KILL_CLIENT")
        same(c.fatal().text, "admin forced disconnect")


@ours
def test_removed_database_ends_its_streams(t):
    pooler = t.pooler()
    with pooler.connect(replication="database", database="app2") as c:
        del pooler.databases["app2"]
        pooler.change()
        same(c.fatal().text, "database removed")


@ours
def test_shutdown_waits_for_streams(t):
    for command, number in (("shutdown wait_for_servers", None), ("shutdown wait_for_clients", None),
                            (None, signal.SIGTERM)):
        pooler = t.pooler(default_pool_size=1)
        c = pooler.connect(replication="database")
        waits = knock(pooler)
        with pooler.console(host=pooler.folder) as console:
            console.wait_pool(cl_waiting=1)
            if command:
                same(console.do(command), "SHUTDOWN")
            else:
                pooler.signal(number)
        if command == "shutdown wait_for_servers":
            same(waits.fatal().text, "server shutting down")
        same(c.value("select 1"), "1")
        assert pooler.runs()
        c.terminate()
        waits.vanish()
        same(pooler.wait_exit(), 0)


@ours
def test_online_restart_leaves_streams_where_they_are(t):
    write(t.postgres, "before")
    with slot(t.postgres, "s_restart", "test_decoding"):
        before = first_of(t)
        with before.connect(replication="database") as c:
            stream(c, plugin_slot="s_restart")
            after = next_of(t, before)
            write(t.postgres, "through the old one")
            changes(c, "through the old one")
            with after.connect(replication="database") as fresh:
                same(fresh.value("select 1"), "1")
            assert before.runs()
            c.terminate()
        same(before.wait_exit(10), 0)


@ours
def test_disabled_database_takes_no_replication(t):
    pooler = t.pooler()
    with pooler.console() as console:
        console.do("disable app")
        with refused('database "app" is disabled'):
            pooler.connect(replication="database")


@ours
def test_console_session_has_no_replication(t):
    with t.pooler().console(replication="database") as console:
        same(rows(console, "clients", database="pgbouncer")[0]["replication"], "none")


# ---- programs of PostgreSQL ---------------------------------------------------------------------

def tool(name, *arguments):
    return [f"{POSTGRES_BIN}/{name}", *arguments]


@contextlib.contextmanager
def running(t, arguments, how=signal.SIGINT):
    """A program for the time of a block; its output is shown when it fails."""
    path = os.path.join(t.folder, "program.out")
    with open(path, "ab") as out:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   cwd=t.folder)
    try:
        yield process
    except BaseException:
        print(open(path, errors="replace").read()[-2000:])
        raise
    finally:
        if process.poll() is None:
            process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def segment(postgres):
    """The name of the current WAL file, and then the next one begins."""
    with postgres.connect() as c:
        write(postgres, "in the segment")
        name = c.value("select pg_walfile_name(pg_current_wal_lsn())")
        c.query("select pg_switch_wal()")
    return name


@ours
@slow(60)
def test_pg_receivewal_streams_through_the_pooler(t):
    for workers in (1, 2):
        pooler = physical(t, pool_mode="transaction",
                          extra=f"[pgsplice]\nworker_threads = {workers}\n")
        folder = os.path.join(t.folder, f"wal{workers}")
        os.mkdir(folder)
        info = conninfo(pooler)
        t.run_program(tool("pg_receivewal", "-d", info, "-S", f"wal_{workers}", "--create-slot"))
        with slot_of(t.postgres, f"wal_{workers}"):
            with running(t, tool("pg_receivewal", "-d", info, "-D", folder, "-s", "1",
                                 "-S", f"wal_{workers}", "--synchronous")) as process:
                eventually(lambda: t.postgres.value(
                    "select active from pg_replication_slots") == "t", "it streams", 10)
                names = [segment(t.postgres) for _ in range(3)]
                for name in names:
                    eventually(lambda: os.path.exists(os.path.join(folder, name)), name, 20)
                process.send_signal(signal.SIGINT)
                same(process.wait(10), 0)
            for name in names:
                same(open(os.path.join(folder, name), "rb").read(),
                     open(os.path.join(t.postgres.data, "pg_wal", name), "rb").read(), name)


@contextlib.contextmanager
def slot_of(postgres, name):
    """Drops a slot that a program has made."""
    try:
        yield
    finally:
        drop_slot(postgres, name)


@ours
@slow(90)
def test_pg_basebackup_makes_a_backup_that_verifies(t):
    write(t.postgres, "in the backup")
    pooler = physical(t, pool_mode="transaction", query_timeout=1)
    folder = os.path.join(t.folder, "backup")
    t.run_program(tool("pg_basebackup", "-d", conninfo(pooler), "-D", folder, "-X", "stream",
                       "-c", "fast", "--no-sync"), seconds=60)
    t.run_program(tool("pg_verifybackup", folder), seconds=30)


@ours
@slow(60)
def test_pg_recvlogical_brings_the_changes(t):
    pooler = t.pooler(pool_mode="transaction")
    write(t.postgres, "before")
    info = conninfo(pooler)
    path = os.path.join(t.folder, "changes.txt")
    t.run_program(tool("pg_recvlogical", "-d", info, "-S", "recv", "-P", "test_decoding",
                       "--create-slot"))
    with slot_of(t.postgres, "recv"):
        for i in range(20):
            write(t.postgres, f"change {i}")
        end = t.postgres.value("select pg_current_wal_lsn()")
        t.run_program(tool("pg_recvlogical", "-d", info, "-S", "recv", "--start", "-f", path,
                           "--endpos", end, "--no-loop"))
        text = open(path).read()
        for i in range(20):
            matches(f"INSERT: t\\[text\\]:'change {i}'", text)
        # what it has confirmed at its end has arrived
        t.run_program(tool("pg_recvlogical", "-d", info, "-S", "recv", "--drop-slot"))


@ours
@slow(60)
def test_subscription_through_the_pooler_copies_and_follows(t):
    for workers in (1, 3):
        pooler = t.pooler(pool_mode="transaction",
                          extra=f"[pgsplice]\nworker_threads = {workers}\n")
        source, target = t.postgres.connect(), t.postgres.connect(database="app2")
        for c in (source, target):
            c.query("drop table if exists followed; create table followed (n int primary key, t text)")
        source.query("insert into followed select n, 'copied' from generate_series(1, 1000) n")
        source.query("drop publication if exists pub; create publication pub for table followed")
        source.query("select pg_create_logical_replication_slot('sub', 'pgoutput')")
        with slot_of(t.postgres, "sub"):
            target.query(f"create subscription sub connection '{conninfo(pooler)}' publication pub "
                         "with (create_slot = false, slot_name = 'sub')")
            try:
                count = "select count(*) from followed where t = "
                eventually(lambda: target.value(count + "'copied'") == "1000", "the copy", 20)
                with pooler.console() as console:
                    eventually(lambda: kinds(console, "servers") == ["logical"], "one stream", 10)
                source.query("insert into followed select n, 'followed' "
                             "from generate_series(1001, 3000) n")
                eventually(lambda: target.value(count + "'followed'") == "2000", "the changes", 20)
                with pooler.console() as console:
                    console.do("reconnect")
                source.query("update followed set t = 'again' where n <= 100")
                eventually(lambda: target.value(count + "'again'") == "100", "after RECONNECT", 20)
            finally:
                target.query("alter subscription sub disable")
                target.query("alter subscription sub set (slot_name = none)")
                target.query("drop subscription sub")
        source.vanish()
        target.vanish()


@ours
@slow(90)
def test_standby_streams_through_the_pooler(t):
    write(t.postgres, "before the standby")
    pooler = physical(t, pool_mode="transaction", query_timeout=2, client_idle_timeout=2,
                      extra="[pgsplice]\nworker_threads = 2\n")
    folder = os.path.join(t.folder, "standby")
    t.run_program(tool("pg_basebackup", "-d", conninfo(pooler, application_name="the_standby"), "-D",
                       folder, "-R", "-c", "fast", "--no-sync", "-C", "-S", "standby"), seconds=60)
    os.chmod(folder, 0o700)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "postgres:", folder], check=True)
    port = free_port(t.slot)
    with slot_of(t.postgres, "standby"):
        log = open(os.path.join(t.folder, "standby.log"), "ab")
        standby = subprocess.Popen(
            tool("postgres", "-D", folder, "-p", str(port), "-k", t.folder), stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, cwd="/", **as_os_user())
        try:
            def seen(text):
                def look():
                    with contextlib.suppress(OSError, pgwire.PgError, pgwire.Closed):
                        with pgwire.connect(port, "app", "app") as c:
                            return c.value("select count(*) from replicated where t = "
                                           f"'{text}'") == "1"
                return look
            eventually(seen("before the standby"), "the standby is there", 30)
            write(t.postgres, "streamed")
            eventually(seen("streamed"), "it streams", 20)
            with t.postgres.connect() as c:
                same(c.value("select application_name from pg_stat_replication"), "the_standby")
                c.query("create table if not exists wide as select repeat('w', 1000) "
                        "from generate_series(1, 20000)")
                c.query("drop table wide")
            write(t.postgres, "after much")
            eventually(seen("after much"), "it keeps up", 30)
            # longer than the timeouts of queries and idle clients, which are not its own
            with pooler.console() as console:
                same(len(rows(console, "servers", replication="physical")), 1)
                client = rows(console, "clients", replication="physical")[0]["id"]
                eventually(lambda: time.time() - begun(console) > 3, "3 s of streaming", 10)
                same(rows(console, "clients", replication="physical")[0]["id"], client)
                console.do("reconnect")
            write(t.postgres, "after RECONNECT")
            eventually(seen("after RECONNECT"), "it comes back by itself", 30)
        except BaseException:
            print(open(os.path.join(t.folder, "standby.log"), errors="replace").read()[-3000:])
            raise
        finally:
            standby.send_signal(signal.SIGINT)
            standby.wait(20)


def begun(console):
    """When the standby's client came."""
    text = rows(console, "clients", replication="physical")[0]["connect_time"]
    return time.mktime(time.strptime(text.rsplit(" ", 1)[0], "%Y-%m-%d %H:%M:%S"))
