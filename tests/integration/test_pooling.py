"""When a client gets a server, which one, and in what state it is given on."""

import signal
import time

import pgwire
from harness import covers, eventually, matches, ours, refused, same, slow, within
from pgwire import copy_data, extended, flush, parse, query, ready, sync


def pids(clients):
    return [c.pid() for c in clients]


# ---- the three modes ----------------------------------------------------------------------------

def test_session_mode_keeps_the_server_until_the_client_leaves(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first, pooler.console() as console:
        pid = first.pid()
        with pooler.connect() as second:
            second.send(query("select pg_backend_pid()"))
            console.wait_pool(cl_waiting=1)
            assert second.silent_for(0.05)
            same(first.pid(), pid)
            first.terminate()
            same(second.results().value(), str(pid))


@covers("settings", "pool_mode")
def test_transaction_mode_shares_a_server_between_transactions(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second:
        same(first.pid(), second.pid())
        first.query("begin")
        second.send(query("select 2"))
        assert second.silent_for(0.05)
        first.query("commit")
        same(second.results().value(), "2")


def test_failed_transaction_keeps_its_server(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second:
        first.query("begin")
        with refused(sqlstate="22012"):
            first.query("select 1/0")
        second.send(query("select 2"))
        assert second.silent_for(0.05)
        with refused(sqlstate="25P02"):
            first.query("select 1")
        first.query("rollback")
        same(second.results().value(), "2")


def test_implicit_transaction_of_a_pipeline_keeps_its_server(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second:
        first.send(extended("select 1") + flush())
        first.until("C")
        second.send(query("select 2"))
        assert second.silent_for(0.05)
        first.send(sync())
        first.until("Z")
        same(second.results().value(), "2")


def test_statement_mode_refuses_transactions(t):
    pooler = t.pooler(pool_mode="statement")
    for sql in ("begin", "begin; select 1"):
        with pooler.connect() as c:
            c.send(query(sql))
            error = c.fatal()
            same(error.text, "transaction blocks not allowed in statement pooling mode")
            same((error.severity, error.sqlstate), ("FATAL", "08P01"))
    pooler.usable()


def test_statement_mode_takes_a_whole_transaction_in_one_query(t):
    with t.pooler(pool_mode="statement").connect() as c:
        same(c.query("begin; select 1; commit").tags, ["BEGIN", "SELECT 1", "COMMIT"])
        same(c.value("select 2"), "2")


@covers("database_options", "pool_mode")
def test_pool_mode_of_a_database_beats_the_global_one(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1, databases={
        "app": t.postgres.address("app", pool_mode="transaction"),
        "app2": t.postgres.address("app2")})
    with pooler.connect() as first, pooler.connect() as second:
        same(first.pid(), second.pid())
    with pooler.console() as console:
        same(console.pool()["pool_mode"], "transaction")


@covers("user_options", "pool_mode")
def test_pool_mode_of_a_user_beats_the_database(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1,
                      users={"app": "pool_mode=transaction"},
                      databases={"app": t.postgres.address("app", pool_mode="session")})
    with pooler.connect() as first, pooler.connect() as second:
        same(first.pid(), second.pid())


def test_server_is_taken_at_the_first_query_and_not_at_login(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first:
        first.value("select 1")
        with pooler.connect() as second, pooler.console() as console:
            assert second.key  # logged in, though the only server is taken
            console.wait_pool(cl_active=2, sv_active=1, cl_waiting=0)


# ---- which server -------------------------------------------------------------------------------

def three_servers(pooler):
    """Opens three servers, frees them one after the other; the pids in the order of release."""
    clients = [pooler.connect() for _ in range(3)]
    for c in clients:
        c.query("begin")
    order = pids(clients)
    assert len(set(order)) == 3, order
    for c in clients:
        c.query("commit")
    return clients, order


def test_last_released_server_is_used_first(t):
    clients, order = three_servers(t.pooler(pool_mode="transaction", default_pool_size=3))
    same([clients[0].pid() for _ in range(5)], [order[2]] * 5)
    for c in clients:
        c.query("begin")
    same(pids(clients), order[::-1])


@covers("settings", "server_round_robin")
def test_round_robin_uses_the_first_released_server(t):
    clients, order = three_servers(t.pooler(pool_mode="transaction", default_pool_size=3,
                                            server_round_robin=1))
    same([clients[0].pid() for _ in range(6)], order * 2)


def test_pools_are_separate_by_user_and_database(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as a, pooler.connect(user="other") as b, \
            pooler.connect(database="app2") as c:
        same(len({a.pid(), b.pid(), c.pid()}), 3)
        same([x.value("select current_user || '/' || current_database()") for x in (a, b, c)],
             ["app/app", "other/app", "app/app2"])


@covers("database_options", "user")
def test_forced_user_shares_one_pool(t):
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.postgres.address(user="other")})
    with pooler.connect(user="app") as a, pooler.connect(user="other") as b:
        same(a.pid(), b.pid())
        same(a.value("select current_user"), "other")


@covers("database_options", "dbname")
def test_entry_may_rename_the_database(t):
    with t.pooler(databases={"alias": t.postgres.address("app2")}).connect(database="alias") as c:
        same(c.value("select current_database()"), "app2")


def test_waiters_are_served_in_the_order_they_came(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as holder, pooler.console() as console:
        holder.query("begin")
        waiters = [pooler.connect() for _ in range(5)]
        for i, c in enumerate(waiters):
            # each takes a number from a sequence that nobody else uses
            c.send(query("select nextval('turn')"))
            console.wait_pool(cl_waiting=i + 1)
        holder.query("create sequence turn")
        holder.query("commit")
        same([c.results().value() for c in waiters], ["1", "2", "3", "4", "5"])
        holder.query("drop sequence turn")


@covers("settings", "default_pool_size")
def test_pool_size_is_the_most_servers_of_a_pool(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=3)
    clients = [pooler.connect() for _ in range(8)]
    for c in clients:
        c.send(query("begin"))
    with pooler.console() as console:
        console.wait_pool(sv_active=3, cl_waiting=5, settled=True)
    same(len(t.postgres.backends()), 3)
    same(len([c for c in clients if not c.silent_for(0)]), 3)
    for c in clients:
        c.send(query("commit"))  # the waiting get a server in their turn
    for c in clients:
        same([c.results().tags, c.results().tags], [["BEGIN"], ["COMMIT"]])
    same(len(t.postgres.backends()), 3)


@covers("database_options", "pool_size")
def test_pool_size_of_the_entry_beats_the_default(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=5,
                      databases={"app": t.postgres.address(pool_size=2)})
    clients = [pooler.connect() for _ in range(4)]
    for c in clients:
        c.send(query("begin"))
    with pooler.console() as console:
        console.wait_pool(sv_active=2, cl_waiting=2, settled=True)


@covers("user_options", "pool_size")
@ours
def test_pool_size_of_a_user_beats_the_entry(t):
    pooler = t.pooler(pool_mode="transaction", users={"app": "pool_size=1"},
                      databases={"app": t.postgres.address(pool_size=3)})
    with pooler.connect() as a, pooler.connect() as b, pooler.console() as console:
        a.query("begin")
        b.send(query("select 'b'"))
        console.wait_pool(sv_active=1, cl_waiting=1, settled=True)
        a.query("commit")
        same(b.results().value(), "b")


@ours
def test_pool_size_0_is_no_limit(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=0)
    clients = [pooler.connect() for _ in range(25)]
    for c in clients:
        c.send(query("begin"))
    with pooler.console() as console:
        console.wait_pool(sv_active=25, cl_waiting=0)


@ours
def test_twenty_servers_are_opened_in_parallel(t):
    # Each login takes 0.1 s: one after the other would be 2 s.
    def script(server):
        server.startup()
        time.sleep(0.1)
        server.send(server.WELCOME)
        while server.receive().type != "X":
            server.send(pgwire.message("C", b"BEGIN\0") + ready("T"))
    fake = t.fake_server(script)
    pooler = t.pooler(pool_mode="transaction", default_pool_size=20,
                      databases={"app": t.fake_entry(fake)})
    clients = [pooler.open() for _ in range(20)]
    started = time.monotonic()
    for c in clients:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
    for c in clients:
        c.authenticate("app", None)
    for c in clients:
        c.send(query("begin"))
    for c in clients:
        same(c.results().status, "T")
    within(started, 0, 1.2, "opening 20 servers")


# ---- what is handed on --------------------------------------------------------------------------

def test_session_is_reset_for_the_next_client(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first:
        pid = first.pid()
        first.query("create temp table leftover (n int)")
        first.query("set work_mem = '1234kB'")
        first.query("listen something")
        first.query("select pg_advisory_lock(42)")
        first.query("prepare mine as select 1")
        first.terminate()
    with pooler.connect() as second:
        same(second.pid(), pid)
        same(second.value("select to_regclass('leftover') is null"), "t")
        assert second.value("show work_mem") != "1234kB"
        same(second.query("select pg_listening_channels()").rows, [])
        same(second.value("select count(*) from pg_locks where locktype = 'advisory'"), "0")
        same(second.value("select count(*) from pg_prepared_statements"), "0")


def test_vanished_session_is_reset_for_the_next_client(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1)
    first = pooler.connect()
    pid = first.pid()
    first.query("set work_mem = '1234kB'")
    first.vanish()
    with pooler.connect() as second:
        same(second.pid(), pid)
        assert second.value("show work_mem") != "1234kB"


@covers("settings", "server_reset_query")
def test_reset_query_is_the_configured_one(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1,
                      server_reset_query="set work_mem = '4321kB'")
    with pooler.connect() as first:
        pid = first.pid()
        first.query("create temp table kept (n int)")
        first.terminate()
    with pooler.connect() as second:
        same(second.pid(), pid)
        same(second.value("show work_mem"), "4321kB")
        same(second.value("select to_regclass('kept') is null"), "f")


def test_empty_reset_query_is_no_reset(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1, server_reset_query="")
    with pooler.connect() as first:
        first.query("set work_mem = '1234kB'")
        first.terminate()
    with pooler.connect() as second:
        same(second.value("show work_mem"), "1234kB")


def test_transaction_mode_has_no_reset_query(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second:
        first.query("set work_mem = '1234kB'")
        same(second.value("show work_mem"), "1234kB")


@covers("settings", "server_reset_query_always")
def test_reset_query_always_runs_in_transaction_mode(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, server_reset_query_always=1)
    with pooler.connect() as first, pooler.connect() as second:
        pid = first.pid()
        first.query("set work_mem = '1234kB'")
        assert second.value("show work_mem") != "1234kB"
        same(second.pid(), pid)


@ours
def test_reset_query_that_leaves_a_transaction_open_closes_the_server(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1, server_reset_query="begin")
    with pooler.connect() as first:
        pid = first.pid()
        first.terminate()
    with pooler.connect() as second:
        assert second.pid() != pid
        same(second.query("select 1").status, "I")


def test_server_that_dies_in_its_reset_query_is_replaced(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1,
                      server_reset_query="select pg_terminate_backend(pg_backend_pid())")
    for i in range(3):
        with pooler.connect() as c:
            same(c.value(f"select {i}"), str(i))


@covers("database_options", "connect_query")
def test_connect_query_runs_once_on_each_new_server(t):
    entry = t.postgres.address() + " connect_query='set work_mem = ''2345kB'''"
    pooler = t.pooler(pool_mode="transaction", databases={"app": entry})
    with pooler.connect() as c:
        same(c.value("show work_mem"), "2345kB")


@ours
def test_connect_query_that_fails_is_logged_and_the_server_serves(t):
    pooler = t.pooler(databases={"app": t.postgres.address(connect_query="'select 1/0'")})
    with pooler.connect() as c:
        same(c.value("select 1"), "1")
        same(c.query("begin").status, "T")
    matches("WARNING .*query of the pooler failed: ERROR division by zero", pooler.log())


@ours
def test_connect_query_that_leaves_no_usable_server_is_tried_again_later(t):
    for connect_query, reason in (("'begin'", "exec_on_connect query failed"),
                                  ("'select pg_terminate_backend(pg_backend_pid())'",
                                   r"server conn crashed\?")):
        pooler = t.pooler(databases={"app": t.postgres.address(connect_query=connect_query)},
                          query_wait_timeout=1)
        with refused("query_wait_timeout") as caught:
            pooler.connect()
        matches(reason, caught[0].fields["D"])
        matches(f"S-.*closing because: {reason}", pooler.log())
        same(pooler.log().count("new connection to server"), 1)


@ours
def test_other_connect_query_after_a_reload_is_that_of_all_servers(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1,
                      databases={"app": t.postgres.address(connect_query="'set work_mem = 1111'")})
    with pooler.connect() as c:
        same(c.value("show work_mem"), "1111kB")
        pooler.databases["app"] = t.postgres.address(connect_query="'set work_mem = 2222'")
        pooler.change()
        same(c.value("show work_mem"), "2222kB")
        pid = c.pid()
        pooler.change()
        same(c.pid(), pid)


def leave_dirty(t, how, mode="transaction"):
    """A client does something, `how(client)`, and vanishes; its server must be gone or clean."""
    pooler = t.pooler(pool_mode=mode, default_pool_size=1)
    with t.postgres.connect() as setup:
        setup.query("drop table if exists dirty; create table dirty (n int)")
    first = pooler.connect()
    pid = first.pid()
    how(first)
    first.vanish()
    with pooler.connect() as second:
        same(second.value("select count(*) from dirty", 8), "0")
        same(second.query("begin").status, "T")
        same(second.query("rollback").status, "I")
        assert second.pid() != pid, "a dirty server was handed on"
    eventually(lambda: pid not in t.postgres.backends(), "the dirty backend has ended", 8)
    same(t.postgres.value("select count(*) from dirty"), "0")
    return pooler


def test_client_that_vanishes_in_a_transaction_takes_its_server_along(t):
    def how(c):
        c.query("begin; insert into dirty values (1)")
    leave_dirty(t, how)
    leave_dirty(t, how, "session")


def test_client_that_terminates_in_a_transaction_takes_its_server_along(t):
    def how(c):
        c.query("begin; insert into dirty values (1)")
        c.terminate()
    pooler = leave_dirty(t, how)
    assert "client disconnect while server was not ready" in pooler.log() or \
        "client close request" in pooler.log()


def test_client_that_vanishes_in_a_failed_transaction_takes_its_server_along(t):
    def how(c):
        c.query("begin")
        with refused():
            c.query("nonsense")
    leave_dirty(t, how)


def test_client_that_vanishes_in_mid_query_takes_its_server_along(t):
    def how(c):
        c.send(query("select pg_sleep(0.7)"))
        assert c.silent_for(0.05)
    leave_dirty(t, how)


def test_client_that_resets_in_mid_query_takes_its_server_along(t):
    def how(c):
        c.send(query("select pg_sleep(0.7)"))
        assert c.silent_for(0.05)
        c.reset()
    leave_dirty(t, how)


def test_client_that_vanishes_with_unread_answers_takes_its_server_along(t):
    def how(c):
        c.send(query("select repeat('u', 20000000)"))
        c.raw(1000)
    leave_dirty(t, how)


def test_client_that_vanishes_in_copy_in_takes_its_server_along(t):
    def how(c):
        c.send(query("copy dirty from stdin"))
        same(c.receive().type, "G")
        c.send(copy_data(b"1\n"))
    leave_dirty(t, how)


def test_client_that_vanishes_in_copy_out_takes_its_server_along(t):
    def how(c):
        c.send(query("copy (select generate_series(1, 5000000)) to stdout"))
        c.raw(1000)
    leave_dirty(t, how)


def test_client_that_vanishes_between_parse_and_sync_takes_its_server_along(t):
    def how(c):
        c.send(parse("", "select 1") + flush())
        same(c.receive().type, "1")
    leave_dirty(t, how)


def test_client_that_vanishes_in_mid_message_takes_its_server_along(t):
    def how(c):
        # the header has been passed on, the body never comes
        c.send(query("insert into dirty values (1)" + " " * 100000)[:-10])
        assert c.silent_for(0.05)
    leave_dirty(t, how)


def test_half_message_of_an_idle_client_harms_nobody(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    for size in (1, 3, 5, 9):
        with pooler.connect() as c:
            c.send(query("select 1")[:size])
    pooler.usable()


def test_client_that_vanishes_while_idle_leaves_its_server(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    first = pooler.connect()
    pid = first.pid()
    first.vanish()
    with pooler.connect() as second:
        same(second.pid(), pid)


def test_client_that_vanishes_while_waiting_does_not_hold_up_the_queue(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as holder, pooler.connect() as last, pooler.console() as console:
        holder.query("begin")
        gone = pooler.connect()
        gone.send(query("select 'gone'"))
        console.wait_pool(cl_waiting=1)
        gone.vanish()
        last.send(query("select 'last'"))
        eventually(lambda: console.pool()["cl_waiting"] in (1, 2), "the other waits")
        holder.query("commit")
        same(last.results().value(), "last")
        console.wait_pool(cl_waiting=0, cl_active=2)


def test_half_closed_client_still_gets_nothing_of_others(t):
    import socket
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as other:
        c.send(query("select 'half'"))
        c.socket.shutdown(socket.SHUT_WR)
        found = c.closed()
        rows = [m.row()[0] for m in found if m.type == "D"]
        assert rows in ([], ["half"]), rows
        same(other.value("select 'other'"), "other")


# ---- servers that end ---------------------------------------------------------------------------

def test_terminated_backend_ends_its_client_with_its_error(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("begin")
        pid = c.pid()
        t.postgres.value(f"select pg_terminate_backend({pid})")
        found = [m.error() for m in c.closed() if m.type == "E"]
        same([e.sqlstate for e in found], ["57P01", "08P01"])
        same(found[-1].text, "server conn crashed?")
    pooler.usable()


def test_terminated_idle_backend_is_not_noticed(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        pid = c.pid()
        t.postgres.value(f"select pg_terminate_backend({pid})")
        eventually(lambda: pid not in t.postgres.backends(), "the backend has ended")
        with pooler.console() as console:
            console.wait_pool(sv_idle=0, sv_used=0)
        assert c.pid() != pid


def test_restarted_postgresql_is_used_again(t):
    pooler = t.pooler(pool_mode="transaction", server_login_retry=0.1)
    with pooler.connect() as c:
        c.value("select 1")
        t.postgres.stop()
        t.postgres.start()
        same(c.value("select 2"), "2")


def test_waiter_gets_another_server_when_one_dies(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as waiter, pooler.console() as console:
        c.query("begin")
        pid = c.pid()
        waiter.send(query("select 'served'"))
        console.wait_pool(cl_waiting=1)
        t.postgres.value(f"select pg_terminate_backend({pid})")
        same(waiter.results().value(), "served")
        c.fatal()


def test_killed_postmaster_ends_clients_and_only_them(t):
    pooler = t.pooler(pool_mode="transaction", server_login_retry=0.1)
    with pooler.connect() as busy, pooler.connect() as idle:
        busy.query("begin")
        t.postgres.stop(signal.SIGQUIT)
        found = [m.error() for m in busy.closed() if m.type == "E"]
        same(found[-1].text, "server conn crashed?")
        t.postgres.start()
        same(idle.value("select 3"), "3")


# ---- the age of servers -------------------------------------------------------------------------

@covers("settings", "server_idle_timeout")
def test_idle_server_is_closed_after_its_timeout(t):
    pooler = t.pooler(pool_mode="transaction", server_idle_timeout=0.4)
    with pooler.connect() as c:
        pid = c.pid()
        eventually(lambda: pid not in t.postgres.backends(), "the server was closed", 4)
        pooler.wait_log("closing because: server idle timeout")
        same(c.value("select 1"), "1")


@covers("settings", "server_lifetime")
def test_old_server_is_closed_when_unused(t):
    pooler = t.pooler(pool_mode="transaction", server_lifetime=0.5)
    with pooler.connect() as c:
        pid = c.pid()
        eventually(lambda: pid not in t.postgres.backends(), "the server was closed", 4)
        pooler.wait_log("closing because: server lifetime over")
        assert c.pid() != pid


def test_server_lifetime_0_is_one_use(t):
    pooler = t.pooler(pool_mode="transaction", server_lifetime=0)
    with pooler.connect() as c:
        same(len({c.pid() for _ in range(4)}), 4)


def test_old_server_stays_with_its_transaction(t):
    pooler = t.pooler(pool_mode="transaction", server_lifetime=0.3)
    with pooler.connect() as c:
        c.query("begin")
        pid = c.pid()
        c.query("select pg_sleep(0.8)")
        same(c.pid(), pid)
        c.query("commit")
        assert c.pid() != pid


@covers("settings", "min_pool_size")
def test_min_pool_size_is_kept_while_a_client_is_there(t):
    pooler = t.pooler(pool_mode="transaction", min_pool_size=3)
    with pooler.connect() as c:
        c.value("select 1")
        eventually(lambda: len(t.postgres.backends()) == 3, "three servers are open", 5)
        with pooler.console() as console:
            console.wait_pool(sv_idle=3)


@ours
def test_min_pool_size_of_a_forced_user_needs_no_client(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="other", min_pool_size=2)})
    eventually(lambda: len(t.postgres.backends("other")) == 2, "two servers are open", 5)
    same(len(t.postgres.backends("app")), 0)
    assert pooler.runs()


def test_min_pool_size_outlives_the_idle_timeout(t):
    pooler = t.pooler(pool_mode="transaction", min_pool_size=1, server_idle_timeout=0.3)
    clients = [pooler.connect() for _ in range(3)]
    for c in clients:
        c.query("begin")
    for c in clients:
        c.query("commit")
    same(len(t.postgres.backends()), 3)
    eventually(lambda: len(t.postgres.backends()) == 1, "one server is left", 4)


@covers("settings", "server_check_delay", "server_check_query")
def test_stale_server_is_checked_before_use(t):
    pooler = t.pooler(pool_mode="transaction", server_check_delay=0.1,
                      server_check_query="select set_config('check.ran', 'yes', false)")
    with pooler.connect() as c, pooler.console() as console:
        pid = c.pid()
        same(c.value("select coalesce(current_setting('check.ran', true), 'no')"), "no")
        console.wait_pool(sv_used=1, sv_idle=0)
        same(c.value("select current_setting('check.ran', true)"), "yes")
        same(c.pid(), pid)


def queries_of_a_fake(t, **settings):
    """A pooler in front of a server that notes each Query."""
    seen = []

    def script(server):
        server.welcome()
        while True:
            found = server.receive()
            if found.type == "X":
                return
            seen.append(found.body[:-1].decode())
            server.send((pgwire.message("C", b"SELECT 0\0") if seen[-1] else pgwire.message("I")) +
                        pgwire.ready())
    fake = t.fake_server(script)
    return seen, t.pooler(databases={"app": t.fake_entry(fake)}, default_pool_size=1, **settings)


@ours
def test_check_query_is_an_empty_one_by_default(t):
    for given in ({}, {"server_check_query": "<empty>"}):
        seen, pooler = queries_of_a_fake(t, pool_mode="transaction", server_check_delay=0.1, **given)
        with pooler.connect() as c, pooler.console() as console:
            c.query("first")
            c.query("at once")
            same(seen, ["first", "at once"])
            console.wait_pool(sv_used=1)
            c.query("late")
            same(seen, ["first", "at once", "", "late"])


@ours
def test_server_check_delay_0_checks_when_a_server_goes_back(t):
    for given, check in (({}, ""), ({"server_check_query": "look"}, "look")):
        seen, pooler = queries_of_a_fake(t, pool_mode="transaction", server_check_delay=0, **given)
        with pooler.connect() as c:
            c.query("one")
            eventually(lambda: seen == ["one", check], seen)
            c.query("two")
            eventually(lambda: seen == ["one", check, "two", check], seen)
    # a reset is check enough, and no query no check
    for given in ({"pool_mode": "session"}, {"server_reset_query_always": 1},
                  {"server_reset_query": "", "server_check_query": ""}):
        seen, pooler = queries_of_a_fake(t, server_check_delay=0, **given)
        for text in ("one", "two"):
            with pooler.connect() as c:
                c.query(text)
                c.terminate()
        reset = [] if "server_reset_query" in given else ["DISCARD ALL"]
        eventually(lambda: seen == ["one"] + reset + ["two"] + reset, seen)


def test_empty_check_query_is_no_check(t):
    pooler = t.pooler(pool_mode="transaction", server_check_delay=0.1, server_check_query="")
    with pooler.connect() as c:
        pid = c.pid()
        eventually(lambda: t.postgres.value(
            "select now() - state_change > interval '0.6 s' from pg_stat_activity "
            f"where pid = {pid}") == "t", "the server has been idle for long")
        same(c.pid(), pid)


def test_failed_check_takes_another_server_and_nobody_notices(t):
    pooler = t.pooler(pool_mode="transaction", server_check_delay=0.1,
                      server_check_query="select pg_terminate_backend(pg_backend_pid())")
    with pooler.connect() as c, pooler.console() as console:
        pid = c.pid()
        console.wait_pool(sv_used=1)
        assert c.pid() != pid


def test_reconnecting_after_database_address_changes_uses_the_new_one(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        same(c.value("select current_database()"), "app")
        pooler.databases["app"] = t.postgres.address("app2")
        pooler.write()
        pooler.reload()
        same(c.value("select current_database()"), "app2")


@slow(20)
def test_hosts_of_a_list_take_turns(t):
    entry = t.postgres.address(host="127.0.0.1,::1")
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4, databases={"app": entry})
    clients = [pooler.connect() for _ in range(4)]
    for c in clients:
        c.query("begin")
    same(sorted(c.value("select host(inet_server_addr())") for c in clients),
         ["127.0.0.1", "127.0.0.1", "::1", "::1"])


# ---- databases that `*` makes -------------------------------------------------------------------

def any_database(t):
    return " ".join(word for word in t.postgres.address().split() if not word.startswith("dbname"))


def databases_of(console):
    return {row["name"] for row in console.table("show databases")}


@covers("settings", "autodb_idle_timeout")
def test_idle_database_of_the_any_database_entry_is_dropped_with_its_statistics(t):
    pooler = t.pooler(databases={"*": any_database(t), "app": t.postgres.address()},
                      autodb_idle_timeout=1, server_idle_timeout=0.3)
    pooler.usable()
    with pooler.console() as console, pooler.connect(database="app2") as c:
        same(c.value("select current_database()"), "app2")
        assert "app2" in databases_of(console)
        c.terminate()
        eventually(lambda: "app2" not in {row["database"] for row in console.table("show stats")},
                   "the database is dropped", 8)
        assert "app2" not in databases_of(console)
        assert "app2" not in {row["database"] for row in console.table("show pools")}
        assert "app" in databases_of(console), "an entry of its own stays"
        # It comes back, and begins anew.
        with pooler.connect(database="app2") as again:
            again.query("select 1")
            row = next(row for row in console.table("show stats") if row["database"] == "app2")
            same(row["total_query_count"], "1")


@ours
def test_database_of_the_any_database_entry_stays_while_anybody_uses_it(t):
    # Two users: the pool of the one is empty for long, the other one's is not.
    pooler = t.pooler(databases={"*": any_database(t)}, autodb_idle_timeout=0.5,
                      server_idle_timeout=0.3)

    def queries(console):
        return [int(row["total_query_count"]) for row in console.table("show stats")
                if row["database"] == "app2"]
    with pooler.console() as console, pooler.connect("app", "app2") as app:
        with pooler.connect("other", "app2") as other:
            for _ in range(3):
                other.query("select 1")
        # A third user's pool comes and goes in another database: as much time as that takes.
        with pooler.connect("other", "app") as other:
            other.query("select 1")
        eventually(lambda: "app" not in databases_of(console), "the other database is dropped", 8)
        same(queries(console), [3])
        assert console.pool("app2", "other"), "its figures are part of the database's"
        app.terminate()
        eventually(lambda: "app2" not in databases_of(console), "the database is dropped", 8)


def stays(t, pooler, prepare):
    """Another pooler, started later, drops its database; this one must not have."""
    with pooler.console() as console, pooler.connect(database="app2") as c:
        c.query("select 1")
        c.terminate()
        eventually(lambda: not t.postgres.backends("app", "app2"), "the server is closed")
        prepare(console)
        other = t.pooler(name="other", databases={"*": any_database(t)}, autodb_idle_timeout=1,
                         server_idle_timeout=0.3)
        with other.console() as there, other.connect(database="app2") as c:
            c.query("select 1")
            c.terminate()
            eventually(lambda: "app2" not in databases_of(there), "the database is dropped", 8)
        assert "app2" in databases_of(console)


@ours  # PgBouncer 1.18 checks too seldom for a test
def test_database_of_the_any_database_entry_is_kept_for_ever_with_autodb_idle_timeout_0(t):
    stays(t, t.pooler(databases={"*": any_database(t)}, autodb_idle_timeout=0,
                      server_idle_timeout=0.3), lambda console: None)


@ours
def test_paused_database_of_the_any_database_entry_is_kept(t):
    stays(t, t.pooler(databases={"*": any_database(t)}, autodb_idle_timeout=0.4, pool_mode="session",
                      server_idle_timeout=0.2), lambda console: console.do("pause app2"))
