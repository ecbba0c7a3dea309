"""PostgreSQL is slow to answer, away, starting, promoted, or refuses: clients wait or are told why, and all
is well by itself when it is."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pgwire
from harness import (Postgres, as_os_user, eventually, free_port, give_to_os_user, matches, ours, refused, same,
                     slow)
from pgwire import error_response, query


def quick(**more):
    """Settings for attempts that follow each other closely; all else as a user has it."""
    return {"pool_mode": "transaction", "server_login_retry": 0.2, **more}


def splice(text):
    return "[pgsplice]\n" + text


class Relay:
    """Stands before PostgreSQL and keeps the first bytes of each connection for a while, as a slow login
    does."""

    def __init__(self, slot, target, delay):
        self.target = target
        self.delay = delay
        self.port = free_port(slot)
        self.opening = self.opening_most = self.accepted = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self._accept, daemon=True).start()

    def _count(self, change):
        with self.lock:
            self.opening += change
            self.accepted += change > 0
            self.opening_most = max(self.opening_most, self.opening)

    def _accept(self):
        while True:
            taken, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken):
        self._count(1)
        time.sleep(self.delay)
        self._count(-1)
        with taken, socket.create_connection(("127.0.0.1", self.target)) as server:
            while True:
                for ready in select.select([taken, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is taken else taken).sendall(data)


def relayed(t, delay, **settings):
    relay = Relay(t.slot, t.postgres.port, delay)
    pooler = t.pooler(databases={"app": f"host=127.0.0.1 port={relay.port} dbname=app"}, **quick(**settings))
    return relay, pooler


def fails(pooler, text, sqlstate, user="app", database="app"):
    """A login ends like this; gives its DETAIL and HINT."""
    with pooler.open() as c:
        c.send(pgwire.startup({"user": user, "database": database}))
        error = [m for m in c.closed() if m.type == "E"][-1].fields()
    matches(text, error["M"])
    same((error["S"], error["C"]), ("FATAL", sqlstate))
    return error.get("D", ""), error.get("H", "")


# ---- several at a time --------------------------------------------------------------------------

@ours
def test_twenty_cold_servers_take_about_as_long_as_one(t):
    relay, pooler = relayed(t, 1, extra=splice("worker_threads = 1\n"))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pooler.open()) for _ in range(20)]
        started = time.monotonic()
        for c in clients:
            c.send(pgwire.startup({"user": "app", "database": "app"}))
        for c in clients:
            c.authenticate("app", None)
        # one login makes the welcome for all of them; no other was needed so far
        same(relay.accepted, 1)
        asked = time.monotonic()
        for c in clients:
            c.send(query("select pg_sleep(1), 'slept'"))
        for c in clients:
            same(c.results(10).rows[0][1], "slept")
        took = time.monotonic() - asked - 1
        same(relay.accepted, 20)
        assert took < 2.5, f"nineteen more took {took:.2f} s, one {asked - started:.2f} s"


@ours
def test_no_more_are_opened_at_a_time_than_server_connect_parallel(t):
    relay, pooler = relayed(t, 0.2, extra=splice("worker_threads = 3\nserver_connect_parallel = 4\n"))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pooler.connect()) for _ in range(16)]
        for c in clients:
            c.send(query("select pg_sleep(2)"))
        for c in clients:
            c.results(10)
    same((relay.accepted, relay.opening_most), (16, 4))


# ---- away ---------------------------------------------------------------------------------------

def dead_entry(t):
    port = free_port(t.slot)
    return port, f"host=127.0.0.1 port={port} dbname=app"


@ours
def test_restart_of_postgresql_is_survived_by_all_who_were_between_transactions(t):
    for how in (signal.SIGINT, signal.SIGQUIT):
        pooler = t.pooler(**quick(default_pool_size=5, extra=splice("worker_threads = 2\n")))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(pooler.connect()) for _ in range(30)]
            for i, c in enumerate(clients):
                same(c.value(f"select {i}"), str(i))
            busy = clients.pop()
            busy.query("begin")
            t.postgres.stop(how)
            found = [m.error() for m in busy.closed() if m.type == "E"]
            same((found[-1].text, found[-1].sqlstate), ("server conn crashed?", "08P01"))
            if how == signal.SIGINT:
                same(found[0].sqlstate, "57P01")
            for i, c in enumerate(clients):
                c.send(query(f"select {i}"))
            with pooler.console() as console:
                console.wait_pool(cl_waiting=len(clients))
            t.postgres.start()
            for i, c in enumerate(clients):
                same(c.results(10).value(), str(i))
        pooler.stop()


@ours
def test_who_waited_too_long_for_a_dead_server_hears_why_and_when_it_is_tried_again(t):
    port, entry = dead_entry(t)
    pooler = t.pooler(databases={"app": entry}, query_wait_timeout=0.5, server_login_retry=20)
    detail, hint = fails(pooler, "query_wait_timeout", "08P01")
    same(detail, "The last connection to the server failed: connect failed: Connection refused "
                 f"(127.0.0.1:{port})")
    matches(r"^The next attempt to connect to the server is in (20|19\.\d)(\.\d)? seconds\.$", hint)


@ours
def test_pauses_between_attempts_double_up_to_server_login_retry_max(t):
    times = []

    def script(server):
        times.append(time.monotonic())
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)}, server_login_retry=0.4,
                      extra=splice("server_login_retry_max = 1.5\nworker_threads = 1\n"))
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        eventually(lambda: len(times) == 5, "five attempts", 10)
    # attempts are made three times a second, or when the pause is over
    for i, pause in enumerate((0.4, 0.8, 1.5, 1.5)):
        gap = times[i + 1] - times[i]
        assert pause <= gap + 0.01 and gap < pause + 1.4, f"pause {i} was {gap:.2f} s, wanted {pause}"
    pooler.wait_log(r"WARNING pool app/app: connecting to the server failed: .*; next attempt in 0.4 s")


@ours
def test_pauses_start_again_when_the_server_was_there(t):
    times = []

    def script(server):
        times.append(time.monotonic())
        if len(times) == 4:
            server.welcome()
            gate.wait(10)
    gate = threading.Event()
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)}, server_login_retry=0.2, pool_mode="transaction",
                      extra=splice("server_login_retry_max = 10\nworker_threads = 1\n"))
    with pooler.connect(timeout=15) as c, pooler.console() as console:
        console.wait_pool(sv_idle=1)
        gate.set()
        console.wait_pool(sv_idle=0)
        c.send(query("select 1"))
        eventually(lambda: len(times) >= 7, "three more attempts", 10)
        assert times[5] - times[4] < 0.9, times
    eventually(lambda: pooler.log().count("the server can be reached again") == 1, "said once")


@ours
def test_stopped_postmaster_is_given_up_after_server_connect_timeout(t):
    # the kernel accepts for it, and nothing is ever said
    pooler = t.pooler(**quick(server_connect_timeout=1, default_pool_size=2, query_wait_timeout=3))
    with pooler.connect() as holder, pooler.connect() as idle, pooler.connect() as waiter:
        holder.query("begin")
        pid = t.postgres.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            idle.send(query("select 'idle'"))
            pooler.wait_log("closing because: connect timeout")
            same(holder.value("select 1"), "1")  # who has a server feels nothing
            waiter.send(query("select 'waiter'"))
            error = [m for m in idle.closed() if m.type == "E"][-1].fields()
            same(error["M"], "query_wait_timeout")
            matches("^The last connection to the server failed: connect timeout", error["D"])
        finally:
            os.kill(pid, signal.SIGCONT)
        same(waiter.results(10).value(), "waiter")
        holder.query("commit")


@ours
def test_unreachable_host_is_given_up_and_named(t):
    # of the network for documentation: refused, unreachable or silent, as this machine's network has it
    pooler = t.pooler(databases={"app": "host=192.0.2.1 port=5432", "app2": t.postgres.address("app2")},
                      **quick(server_connect_timeout=0.5, query_wait_timeout=1.5))
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        with pooler.connect(database="app2") as other:
            same(other.value("select 1"), "1")
        error = [m for m in c.closed() if m.type == "E"][-1].fields()
    same(error["M"], "query_wait_timeout")
    matches(r"^The last connection to the server failed: connect (timeout|failed: .*) \(192\.0\.2\.1:5432\)$",
            error["D"])


# ---- starting, promoted -------------------------------------------------------------------------

@contextlib.contextmanager
def standby(t, wait=True, **conf):
    """Another PostgreSQL that follows the test's own."""
    folder = os.path.join(t.folder, "standby")
    os.makedirs(folder, mode=0o755)
    give_to_os_user(folder)
    new = Postgres(folder, t.slot)
    subprocess.run(["pg_basebackup", "-h", "127.0.0.1", "-p", str(t.postgres.port), "-U", "postgres", "-D", new.data,
                    "-R", "-c", "fast", "--no-sync"], check=True, cwd="/", **as_os_user())
    with open(os.path.join(new.data, "postgresql.auto.conf"), "a") as file:
        file.write("".join(f"{key} = '{value}'\n" for key, value in conf.items()))
    if not wait:
        new.wait_ready = lambda: None
    try:
        new.start()
        yield new
    finally:
        eventually(lambda: new.pid() is not None, "the standby has its pid file")
        new.stop(signal.SIGQUIT)


def promote(server):
    subprocess.run(["/usr/lib/postgresql/15/bin/pg_ctl", "promote", "-D", server.data, "-w", "-s"], check=True, cwd="/",
                   **as_os_user())


@ours
@slow(60)
def test_clients_wait_while_postgresql_is_starting_up(t):
    # a standby that does not let anybody in: 57P03 to each login, until it is promoted
    with standby(t, wait=False, hot_standby="off") as server:
        pooler = t.pooler(databases={"app": server.address()}, **quick(extra=splice("worker_threads = 2\n")))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(pooler.open(timeout=20)) for _ in range(10)]
            for c in clients:
                c.send(pgwire.startup({"user": "app", "database": "app"}))
            pooler.wait_log("connecting to the server failed: the database system is", 10)
            for c in clients:
                assert c.silent_for(0.1)
            promote(server)
            for c in clients:
                c.authenticate("app", None)
                same(c.value("select 1"), "1")
        with pooler.connect() as c:
            same(c.value("select 2"), "2")


@ours
@slow(60)
def test_promotion_is_seen_by_those_who_are_there_and_by_those_who_come(t):
    with standby(t) as server:
        pooler = t.pooler(databases={"app": server.address()}, **quick(extra=splice("worker_threads = 2\n")))
        with pooler.connect() as c, pooler.connect() as quiet:
            same(c.params["in_hot_standby"], "on")
            same(c.value("select pg_is_in_recovery()"), "t")
            pid = c.pid()
            with refused(sqlstate="25006"):
                c.query("create table promoted ()")
            promote(server)
            # its server stays, and it is told with its next answer, as without a pooler
            same(c.query("create table promoted ()").errors, [])
            same((c.pid(), c.params["in_hot_standby"]), (pid, "off"))
            same(quiet.query("insert into promoted default values").errors, [])

            def told():
                with pooler.connect() as new:
                    return new.params["in_hot_standby"] == "off"
            for _ in range(4):  # on each of the workers
                eventually(told, "new clients are told")


@ours
@slow(60)
def test_promotion_is_seen_by_clients_that_only_ask_whether_there_was_one(t):
    # libpq's target_session_attrs=read-write looks at the welcome and runs nothing
    with standby(t) as server:
        pooler = t.pooler(databases={"app": server.address()}, **quick(extra=splice("worker_threads = 2\n")))
        pooler.connect().value("select 1")

        def told():
            with pooler.connect() as new:
                return new.params["in_hot_standby"] == "off"
        assert not told()
        promote(server)
        for _ in range(4):
            eventually(told, "new clients are told")


@ours
def test_welcome_is_that_of_the_newest_server(t):
    # a failover behind one address, for example
    pooler = t.pooler(**quick(extra=splice("worker_threads = 2\n")))
    with pooler.connect() as c:
        same(c.params["default_transaction_read_only"], "off")
        c.value("select 1")
        with t.postgres.connect() as admin:
            admin.query("alter role app set default_transaction_read_only = on")
        try:
            t.postgres.clear()
            eventually(lambda: c.value("show default_transaction_read_only") == "on", "the new server is used")
            for _ in range(4):
                with pooler.connect() as new:
                    same(new.params["default_transaction_read_only"], "on")
            # what a client sets for itself is not everybody's
            c.query("begin; set default_transaction_read_only = off; rollback")
        finally:
            with t.postgres.connect() as admin:
                admin.query("set default_transaction_read_only = off")
                admin.query("alter role app reset all")


# ---- refused ------------------------------------------------------------------------------------

def limit_connections(t, count):
    with t.postgres.connect() as admin:
        admin.query(f"alter role limited connection limit {count}")


@contextlib.contextmanager
def connection_limit(t, count):
    try:
        limit_connections(t, count)
        yield
    finally:
        limit_connections(t, 0)


@ours
def test_clients_share_the_servers_there_are_when_postgresql_has_too_many(t):
    with connection_limit(t, 2):
        pooler = t.pooler(userlist={"limited": "", "admin": ""}, **quick(default_pool_size=10))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(pooler.connect(user="limited")) for _ in range(10)]
            for round in range(3):
                for i, c in enumerate(clients):
                    c.send(query(f"select pg_sleep(0.05), {i}"))
                for i, c in enumerate(clients):
                    same(c.results(10).rows[0][1], str(i))
            same(len(t.postgres.backends("limited")), 2)
            limit_connections(t, 10)
            for c in clients:
                c.send(query("select pg_sleep(1.5)"))
            eventually(lambda: len(t.postgres.backends("limited")) == 10, "more are opened")
            for c in clients:
                same(c.results(10).errors, [])


@ours
def test_refused_clients_hear_what_the_server_said_and_when_it_is_tried_again(t):
    pooler = t.pooler(userlist={"limited": "", "admin": ""}, server_login_retry=1.5)
    said = 'too many connections for role "limited"'
    same(fails(pooler, f"^{said}$", "53300", user="limited"),
         (f"The server said: {said}", "The next attempt to connect to the server is in 1.5 seconds."))
    # until then nobody waits for what is known
    started = time.monotonic()
    detail, hint = fails(pooler, f"^{said}$", "53300", user="limited")
    assert time.monotonic() - started < 0.5
    same(detail, f"The server said: {said}")
    matches(r"^The next attempt to connect to the server is in (1\.\d|0\.\d) seconds\.$", hint)
    with connection_limit(t, 2):
        def served():
            try:
                with pooler.connect(user="limited") as c:
                    return c.value("select 1") == "1"
            except pgwire.PgError:
                return False
        eventually(served, "well again by itself")


@ours
def test_wrong_password_is_told_and_a_reload_with_the_right_one_helps_at_once(t):
    for user in ("u_scram", "u_md5", "u_plain"):
        pooler = t.pooler(userlist={user: "wrong", "admin": ""})
        detail, _ = fails(pooler, f'^password authentication failed for user "{user}"$', "28P01", user=user)
        same(detail, f'The server said: password authentication failed for user "{user}"')
        fails(pooler, "^password authentication failed", "28P01", user=user)
        pooler.userlist[user] = "Pw-of-all-1"
        pooler.write()
        pooler.reload()
        with pooler.connect(user=user) as c:
            same(c.value("select current_user"), user)
        pooler.stop()


@ours
def test_reject_of_the_servers_hba_is_told_and_reconnect_tries_at_once(t):
    pooler = t.pooler(userlist={"nobody_may": "", "admin": ""}, server_login_retry=20)
    said = r'^pg_hba.conf rejects connection for host "127.0.0.1", user "nobody_may", database "app", .*$'
    fails(pooler, said, "28000", user="nobody_may")
    started = time.monotonic()
    fails(pooler, said, "28000", user="nobody_may")
    assert time.monotonic() - started < 0.5
    eventually(lambda: pooler.log().count("new connection to server") == 1, "one attempt so far")
    with pooler.console() as console:
        same(console.do("reconnect"), "RECONNECT")
    fails(pooler, said, "28000", user="nobody_may")


@ours
def test_query_of_a_client_that_is_logged_in_gets_the_cached_error(t):
    said = 'too many connections for role "limited"'
    with connection_limit(t, 5):
        pooler = t.pooler(userlist={"limited": "", "admin": ""}, pool_mode="transaction", server_login_retry=1.5)
        clients = [pooler.connect(user="limited") for _ in range(3)]
        clients[0].value("select 1")
    t.postgres.clear()
    with pooler.console() as console:
        console.wait_pool(user="limited", sv_idle=0, sv_used=0, sv_active=0)
        got = []
        for c in clients[:2]:
            c.send(query("select 2"))
            got.append([m for m in c.closed() if m.type == "E"][-1].fields())
    same([(error["C"], error["M"]) for error in got],
         [("53300", said), ("08P01", f"server login has been failing, cached error: {said} (server_login_retry)")])
    for error in got:
        same(error["D"], f"The server said: {said}")
        matches(r"^The next attempt to connect to the server is in [01]\.\d seconds\.$", error["H"])
    with connection_limit(t, 5):
        pooler.wait_log("next attempt in")

        def served():
            # when the pause is over a query makes the next attempt
            try:
                with pooler.connect(user="limited") as c:
                    return c.value("select 3") == "3"
            except pgwire.PgError:
                return False
        eventually(served, "well again by itself")
        same(clients[2].value("select 4"), "4")


# ---- the log ------------------------------------------------------------------------------------

def lines_about(pooler, pattern):
    return [line for line in pooler.log().splitlines() if re.search(pattern, line)]


@ours
@slow(40)
def test_dead_server_is_named_once_however_many_ask_for_it(t):
    port, entry = dead_entry(t)
    pooler = t.pooler(databases={"app": entry}, max_client_conn=500, server_login_retry=0.05, query_wait_timeout=1,
                      extra=splice("worker_threads = 2\nserver_login_retry_max = 0.05\n"))
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(pooler.open()) for _ in range(200)]
            for c in clients:
                c.send(pgwire.startup({"user": "app", "database": "app"}))
            for c in clients:
                same(c.fatal().text, "query_wait_timeout")
    pooler.wait_log("WARNING pool app/app: connecting to the server failed: connect failed: Connection refused")
    assert len(lines_about(pooler, r"S-0x|pool app/app")) <= 6, lines_about(pooler, r"S-0x|pool app/app")


@ours
@slow(40)
def test_refusing_server_is_named_once_however_many_ask_for_it(t):
    attempts = []

    def script(server):
        server.startup()
        attempts.append(1)
        server.send(error_response(S="FATAL", C="53300", M="sorry, too many clients already"))
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)}, max_client_conn=500, server_login_retry=0.05,
                      extra=splice("worker_threads = 2\nserver_login_retry_max = 0.05\n"))
    asked = 0
    while len(attempts) < 20:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(pooler.open()) for _ in range(50)]
            asked += 50
            for c in clients:
                c.send(pgwire.startup({"user": "app", "database": "app"}))
            for c in clients:
                assert "sorry, too many clients already" in c.fatal().text
    assert asked >= 200
    found = lines_about(pooler, r"S-0x|pool app/app|WARNING|ERROR")
    assert len(found) <= 12, f"{asked} clients, {len(attempts)} attempts, {len(found)} lines: " + "\n".join(found[:30])
