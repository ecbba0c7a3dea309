"""Everything has a limit: of connections and of time. What a client hears when it is reached."""

import os
import time

import pgwire
from harness import covers, eventually, ours, refused, same, within
from pgwire import extended, query


def fatal(client, wanted, seconds=5.0):
    error = client.fatal(seconds)
    same((error.severity, error.sqlstate, error.text), ("FATAL", "08P01", wanted))


# ---- how many -----------------------------------------------------------------------------------

@covers("settings", "max_client_conn")
def test_max_client_conn_refuses_one_more(t):
    pooler = t.pooler(max_client_conn=3)
    clients = [pooler.connect() for _ in range(3)]
    with refused(r"no more connections allowed \(max_client_conn\)", "08P01", "FATAL"):
        pooler.connect()
    clients[0].terminate()
    eventually(lambda: "client close request" in pooler.log(), "the first has left")
    pooler.usable()


def test_max_client_conn_does_not_refuse_the_console(t):
    pooler = t.pooler(max_client_conn=2)
    clients = [pooler.connect() for _ in range(2)]
    with pooler.console() as console:
        same(console.pool()["cl_active"], 2)
    assert clients


@covers("settings", "max_db_connections")
def test_max_db_connections_counts_all_users(t):
    pooler = t.pooler(pool_mode="transaction", max_db_connections=2, default_pool_size=5)
    a, b = pooler.connect(), pooler.connect(user="other")
    a.query("begin")
    b.query("begin")
    with pooler.connect() as c:
        c.send(query("select 'third'"))
        with pooler.console() as console:
            console.wait_pool(cl_waiting=1, sv_active=1, settled=True)
        a.query("commit")
        same(c.results().value(), "third")
    same(len(t.postgres.backends("app") + t.postgres.backends("other")), 2)


def test_max_db_connections_evicts_an_idle_server_of_another_user(t):
    pooler = t.pooler(pool_mode="transaction", max_db_connections=1, default_pool_size=5)
    with pooler.connect() as a, pooler.connect(user="other") as b:
        pid = a.pid()
        same(b.value("select current_user"), "other")
        eventually(lambda: pid not in t.postgres.backends("app"), "the idle server was closed")
        pooler.wait_log("closing because: evicted")
        same(a.value("select current_user"), "app")


@covers("database_options", "max_db_connections")
def test_max_db_connections_of_the_entry(t):
    pooler = t.pooler(pool_mode="transaction",
                      databases={"app": t.postgres.address(max_db_connections=1)})
    with pooler.connect() as a, pooler.connect() as b, pooler.console() as console:
        a.query("begin")
        b.send(query("select 'b'"))
        console.wait_pool(cl_waiting=1, sv_active=1, settled=True)
        a.query("commit")
        same(b.results().value(), "b")


@covers("settings", "max_user_connections")
def test_max_user_connections_counts_all_databases(t):
    pooler = t.pooler(pool_mode="transaction", max_user_connections=1, default_pool_size=5)
    with pooler.connect() as a, pooler.connect(database="app2") as b, pooler.console() as console:
        a.query("begin")
        b.send(query("select current_database()"))
        console.wait_pool("app2", cl_waiting=1, settled=True)
        a.query("commit")
        same(b.results().value(), "app2")
        same(len(t.postgres.backends(database="app") + t.postgres.backends(database="app2")), 1)


@covers("user_options", "max_user_connections")
def test_max_user_connections_of_a_user(t):
    pooler = t.pooler(pool_mode="transaction", users={"app": "max_user_connections=1"})
    with pooler.connect() as a, pooler.connect() as b, pooler.console() as console:
        a.query("begin")
        b.send(query("select 'b'"))
        console.wait_pool(cl_waiting=1, sv_active=1, settled=True)
        a.query("commit")
        same(b.results().value(), "b")


@covers("settings", "max_db_client_connections")
@ours
def test_max_db_client_connections_refuses_one_more(t):
    pooler = t.pooler(max_db_client_connections=2)
    clients = [pooler.connect() for _ in range(2)]
    with refused(r"client connections exceeded \(max_db_client_connections\)", "08P01", "FATAL"):
        pooler.connect()
    with pooler.connect(database="app2"):
        pass
    clients[0].terminate()
    pooler.usable()


@covers("settings", "max_user_client_connections")
@ours
def test_max_user_client_connections_refuses_one_more(t):
    pooler = t.pooler(max_user_client_connections=2)
    clients = [pooler.connect(), pooler.connect(database="app2")]
    with refused(r"client connections exceeded \(max_user_client_connections\)", "08P01", "FATAL"):
        pooler.connect()
    with pooler.connect(user="other"):
        pass
    clients[0].terminate()
    pooler.usable()


@covers("settings", "reserve_pool_size", "reserve_pool_timeout")
def test_reserve_pool_helps_who_waits_long(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, reserve_pool_size=1,
                      reserve_pool_timeout=0.4)
    with pooler.connect() as a, pooler.connect() as b, pooler.connect() as c:
        a.query("begin")
        started = time.monotonic()
        b.query("begin")
        within(started, 0.35, 2.5, "the wait for the reserve")
        pooler.wait_log("taking connection from reserve_pool")
        c.send(query("select 'c'"))
        with pooler.console() as console:
            console.wait_pool(sv_active=2, cl_waiting=1)
        assert c.silent_for(0.6), "the reserve gave more than its size"
        b.query("commit")
        same(c.results().value(), "c")


def test_no_reserve_without_reserve_pool_timeout(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, reserve_pool_size=1,
                      reserve_pool_timeout=0)
    with pooler.connect() as a, pooler.connect() as b:
        a.query("begin")
        b.send(query("select 'b'"))
        assert b.silent_for(0.6)
        a.query("commit")
        same(b.results().value(), "b")


# ---- how long -----------------------------------------------------------------------------------

@covers("settings", "query_wait_timeout")
def test_query_wait_timeout_ends_the_waiter_only(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, query_wait_timeout=0.5)
    with pooler.connect() as holder, pooler.connect() as waiter:
        holder.query("begin")
        started = time.monotonic()
        waiter.send(query("select 1"))
        fatal(waiter, "query_wait_timeout")
        within(started, 0.45, 2, "query_wait_timeout")
        holder.query("commit")
    pooler.wait_log("WARNING .*pooler error: query_wait_timeout")
    pooler.usable()


@ours
def test_query_wait_timeout_says_what_was_waited_for(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, query_wait_timeout=0.3)
    with pooler.connect() as holder, pooler.connect() as waiter, pooler.console() as console:
        holder.query("begin")
        waiter.send(query("select 1"))
        same(waiter.fatal().fields["D"],
             "No server became free; the pool has 1 of at most 1 (pool_size; 0: no limit).")
        holder.query("commit")
        console.do("pause app")
        with pooler.connect() as other:
            other.send(query("select 1"))
            same(other.fatal().fields["D"], "The database is paused.")


@covers("settings", "query_timeout")
def test_query_timeout_ends_the_query_and_its_server(t):
    pooler = t.pooler(pool_mode="transaction", query_timeout=0.5)
    with pooler.connect() as c:
        pid = c.pid()
        started = time.monotonic()
        c.send(query("select pg_sleep(3)"))
        fatal(c, "query timeout")
        within(started, 0.45, 2, "query_timeout")
    pooler.wait_log("S-0x.*closing because: query timeout")
    with pooler.connect() as c:
        assert c.pid() != pid


@ours
def test_query_timeout_does_not_count_idle_transactions(t):
    pooler = t.pooler(pool_mode="transaction", query_timeout=0.4)
    with pooler.connect() as c:
        c.query("begin")
        assert c.silent_for(0.9)
        c.query("commit")


def test_query_timeout_ends_who_waits_longer(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, query_timeout=0.5)
    with pooler.connect() as holder, pooler.connect() as waiter:
        holder.query("begin")
        waiter.send(query("select 1"))
        fatal(waiter, "query_timeout")


@covers("settings", "idle_transaction_timeout")
def test_idle_transaction_timeout_ends_both(t):
    pooler = t.pooler(pool_mode="transaction", idle_transaction_timeout=0.5)
    with pooler.connect() as c, pooler.connect() as idle:
        c.query("begin")
        pid = c.pid()
        started = time.monotonic()
        fatal(c, "idle transaction timeout")
        within(started, 0.4, 2, "idle_transaction_timeout")
        eventually(lambda: pid not in t.postgres.backends(), "the server was closed")
        same(idle.value("select 1"), "1")


def test_idle_transaction_timeout_spares_a_running_query(t):
    pooler = t.pooler(pool_mode="transaction", idle_transaction_timeout=0.3)
    with pooler.connect() as c:
        c.query("begin")
        c.query("select pg_sleep(0.9)")
        c.query("commit")


@covers("settings", "transaction_timeout")
@ours
def test_transaction_timeout_ends_a_busy_transaction(t):
    pooler = t.pooler(pool_mode="transaction", transaction_timeout=0.5)
    with pooler.connect() as c:
        c.query("begin")
        started = time.monotonic()
        error = None
        while error is None and time.monotonic() < started + 3:
            try:
                c.query("select pg_sleep(0.1)")
            except pgwire.PgError as found:
                error = found
        same((error.severity, error.sqlstate, error.text),
             ("FATAL", "08P01", "transaction timeout"))
        within(started, 0.4, 2, "transaction_timeout")
    pooler.usable()


@covers("settings", "client_idle_timeout")
def test_client_idle_timeout_ends_the_idle_only(t):
    pooler = t.pooler(pool_mode="transaction", client_idle_timeout=0.5)
    with pooler.connect() as idle, pooler.connect() as busy:
        idle.value("select 1")
        busy.query("begin")
        fatal(idle, "client_idle_timeout")
        same(busy.value("select 2"), "2")


@covers("user_options", "client_idle_timeout")
@ours
def test_client_idle_timeout_of_one_user_spares_the_others(t):
    pooler = t.pooler(pool_mode="transaction", users={"app": "client_idle_timeout=1"})
    with pooler.connect() as mine, pooler.connect(user="other") as other:
        mine.value("select 1")
        other.value("select 1")
        fatal(mine, "client_idle_timeout")
        assert other.silent_for(0.7)
        same(other.value("select 2"), "2")


@covers("user_options", "query_timeout")
@ours
def test_query_timeout_of_a_user_beats_the_global_one(t):
    pooler = t.pooler(pool_mode="transaction", query_timeout=20, users={"app": "query_timeout=1"})
    with pooler.connect() as c, pooler.connect(user="other") as other:
        other.send(query("select pg_sleep(1.7), 'spared'"))
        c.send(query("select pg_sleep(10)"))
        fatal(c, "query timeout")
        same(other.results().rows[0][1], "spared")


@covers("settings", "client_login_timeout")
def test_client_login_timeout_ends_the_silent(t):
    pooler = t.pooler(client_login_timeout=0.5, tcp_defer_accept=0)
    with pooler.open() as c:
        started = time.monotonic()
        fatal(c, "client_login_timeout")
        within(started, 0.4, 3, "client_login_timeout")
    pooler.usable()


@ours
def test_client_login_timeout_ends_who_stops_in_mid_startup(t):
    pooler = t.pooler(client_login_timeout=0.5)
    with pooler.open() as c:
        started = time.monotonic()
        c.send(pgwire.startup({"user": "app", "database": "app"})[:12])
        fatal(c, "client_login_timeout")
        within(started, 0.4, 3, "client_login_timeout")


def test_client_login_timeout_ends_who_never_sends_a_password(t):
    pooler = t.pooler(client_login_timeout=0.5, auth_type="md5", userlist={"app": "secret"})
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        same(c.receive().type, "R")
        fatal(c, "client_login_timeout")


def test_client_login_timeout_without_any_server_says_so(t):
    fake = t.fake_server(lambda server: server.socket.recv(1))
    pooler = t.pooler(client_login_timeout=0.6, databases={"app": t.fake_entry(fake)})
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        fatal(c, "client_login_timeout (server down)")


@covers("settings", "query_wait_notify")
@ours
def test_query_wait_notify_tells_the_waiter_once(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, query_wait_notify=1)
    with pooler.connect() as holder, pooler.connect() as waiter:
        holder.query("begin")
        waiter.send(query("select 'served'"))
        first = waiter.receive(3)  # less than the default
        same(first.type, "N")
        fields = first.fields()
        same((fields["S"], fields["C"], fields["M"]), (
            "NOTICE", "00000",
            "No server connection available in postgres backend, client being queued"))
        assert waiter.silent_for(1.4), "a second notice"
        holder.query("commit")
        same(waiter.results().value(), "served")


@covers("settings", "server_connect_timeout")
def test_server_connect_timeout_frees_the_pool_for_another_attempt(t):
    attempts = []

    def script(server):
        attempts.append(1)
        if len(attempts) == 1:
            server.socket.recv(4096)  # and never an answer
            server.socket.recv(1)
        else:
            server.welcome()
            server.serve_one_value("late")
    fake = t.fake_server(script)
    pooler = t.pooler(pool_mode="transaction", server_connect_timeout=1, server_login_retry=0.2,
                      databases={"app": t.fake_entry(fake)})
    with pooler.connect() as c:
        same(c.value("select 1"), "late")
    pooler.wait_log("closing because: connect timeout")


def test_no_timeout_strikes_when_all_are_0(t):
    pooler = t.pooler(pool_mode="transaction", query_timeout=0, query_wait_timeout=0,
                      client_idle_timeout=0, idle_transaction_timeout=0, client_login_timeout=0,
                      server_idle_timeout=0, default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as waiter:
        c.query("begin")
        pid = c.pid()
        waiter.send(query("select pg_backend_pid()"))
        assert c.silent_for(0.8) and waiter.silent_for(0.1)
        c.query("commit")
        same(waiter.results().value(), str(pid))


@covers("settings", "disable_pqexec")
def test_disable_pqexec_refuses_simple_queries_only(t):
    pooler = t.pooler(pool_mode="transaction", disable_pqexec=1)
    with pooler.connect() as c:
        same(c.batch(extended("select 1")).value(), "1")
        c.send(query("select 2"))
        fatal(c, "PQexec disallowed")


@ours
def test_disable_pqexec_holds_for_the_console_and_replication_too(t):
    pooler = t.pooler(disable_pqexec=1)
    with pooler.connect("admin", "pgbouncer") as c:
        c.send(query("show version"))
        fatal(c, "PQexec disallowed")
    with pooler.connect(replication="database") as c:
        c.send(query("IDENTIFY_SYSTEM"))
        fatal(c, "PQexec disallowed")


def test_more_waiters_than_servers_are_all_served(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2, max_client_conn=300)
    clients = [pooler.connect() for _ in range(200)]
    for i, c in enumerate(clients):
        c.send(query(f"select {i}"))
    same([c.results(10).value() for c in clients], [str(i) for i in range(200)])


def test_descriptors_come_back_when_clients_leave(t):
    pooler = t.pooler(pool_mode="transaction")
    pooler.usable()

    def count():
        return len(os.listdir(f"/proc/{pooler.process.pid}/fd"))
    before = count()
    for i in range(60):
        c = pooler.connect()
        if i % 3 == 0:
            c.terminate()
        elif i % 3 == 1:
            c.vanish()
        else:
            c.reset()
    for _ in range(20):
        pooler.open().vanish()
        with pooler.open() as c:
            c.send(pgwire.ssl_request())
    eventually(lambda: count() <= before, "the descriptors are closed")
