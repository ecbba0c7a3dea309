"""Each key of the configuration does what it says: the tables of tests/compat are walked.

A test names the keys that it covers (harness.covers), and the runner proves it: without the key the test fails, with
the key added by a RELOAD it passes where a reload is enough. What has a topic of its own is tested there."""

import ctypes
import glob
import importlib
import os
import re
import socket
import time

import harness
import pgwire
import tables
from harness import covers, eventually, matches, ours, refused, reload_shows_nothing, same, within
from pgwire import extended, query


# ---- the walk -----------------------------------------------------------------------------------

def covered():
    found = set()
    for path in glob.glob(os.path.join(os.path.dirname(__file__), "test_*.py")):
        module = importlib.import_module(os.path.basename(path)[:-3])
        for name, value in vars(module).items():
            if name.startswith("test_") and callable(value):
                found.update(getattr(value, "covers", []))
    return found


def test_every_key_of_the_tables_has_a_test(t):
    has_test, missing = covered(), []
    for table in tables.SECTIONS:
        keys = tables.own_keys() if table == "pgsplice" else tables.keys(table)
        idle = tables.without_effect(table)
        missing += [f"{table}: {key}" for key in keys
                    if key not in idle and (table, key) not in has_test]
    same(missing, [], "no test fails when these are ignored")


def test_every_covered_key_is_one_of_the_tables(t):
    wrong = [f"{table}: {key}" for table, key in covered()
             if key not in (tables.own_keys() if table == "pgsplice" else tables.keys(table))]
    same(wrong, [])


def test_what_has_no_effect_is_accepted_and_said_once(t):
    values = {row["setting"]: row["default"] for row in tables.rows("settings")}
    idle = tables.without_effect("settings")
    assert "pkt_buf" in idle and "job_name" in idle, idle
    # Their defaults are no wish: nothing is said of them.
    given = {key: values[key] + "1" if values[key].isdigit() else "something" for key in idle}
    pooler = t.pooler(**given)
    for key in idle:
        same(len(re.findall(rf"WARNING {key} has no effect: ", pooler.log())), 1, key)
    pooler.usable()


def by_restart_only(table):
    keys = tables.own_keys() if table == "pgsplice" else tables.keys(table)
    return [key for key in keys if not tables.is_reloadable(table, key)]


@ours
def test_what_needs_a_restart_keeps_its_value_at_a_reload_and_is_named(t):
    pooler = t.pooler(extra=own(worker_threads=1))
    other = {"disable_pqexec": 1, "job_name": "other", "listen_addr": "127.0.0.1,127.0.0.2", "listen_backlog": 77,
             "listen_port": harness.free_port(t.slot), "pidfile": f"{pooler.folder}/other.pid", "pkt_buf": 8192,
             "resolv_conf": f"{pooler.folder}/resolv.conf", "so_reuseport": 1, "track_extra_parameters": "search_path",
             "unix_socket_dir": t.folder, "unix_socket_group": harness.OS_USER, "unix_socket_mode": "0700",
             "user": "nobody"}
    own_others = {"worker_threads": 2, "cpu_affinity": max(os.sched_getaffinity(0)), "incoming_cpu": 1,
                  "huge_pages": "on", "receive_buffer_bytes": 2048, "receive_buffer_count_max": 32}
    same((sorted(other), sorted(own_others)),
         (sorted(by_restart_only("settings")), sorted(by_restart_only("pgsplice"))))
    with pooler.console() as console:
        before = console.table("show config")
        same({row["key"]: row["changeable"] for row in before},
             {key: "yes" if tables.is_reloadable(table, key) else "no"
              for table in ("settings", "pgsplice")
              for key in (tables.own_keys() if table == "pgsplice" else tables.keys(table))})
        pooler.extra = own(**own_others)
        pooler.change(reload=False, **other)
        same(console.do("reload"), "RELOAD")
        same(console.table("show config"), before)
    said = re.findall(r"WARNING (\w+) keeps its value: only a restart changes it in configuration \(\S+:\d+\)", pooler.log())
    same(sorted(said), sorted([*other, *own_others]))
    pooler.usable()


# ---- who ----------------------------------------------------------------------------------------

@covers("settings", "admin_users")
def test_admin_users_may_command(t):
    pooler = t.pooler(admin_users="other, admin")
    with pooler.console("admin") as console:
        same(console.do("pause"), "PAUSE")
        same(console.do("resume"), "RESUME")
    with pooler.console("other") as console:
        same(console.do("pause"), "PAUSE")


@covers("settings", "stats_users")
def test_stats_users_may_look_only(t):
    pooler = t.pooler(stats_users="app stats")
    for user in ("app", "stats"):
        with pooler.console(user) as console:
            assert console.table("show version")
            with refused("admin access needed", "08P01"):
                console.do("pause")
    with refused("not allowed", "08P01", "FATAL"):
        pooler.console("other")


@covers("settings", "auth_type")
def test_auth_type_is_asked_for(t):
    pooler = t.pooler(auth_type="plain", userlist={"app": harness.PASSWORD, "admin": "x"})
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        same(c.receive().body, b"\0\0\0\3")  # AuthenticationCleartextPassword


@covers("settings", "auth_file")
def test_auth_file_names_the_users(t):
    pooler = t.pooler(userlist={"app": "", "admin": "", "of_the_file": ""},
                      databases={"app": t.postgres.address(user="app")})
    with pooler.connect("of_the_file") as c:
        same(c.value("select 1"), "1")
    with refused('"trust" authentication failed', "08P01", "FATAL"):
        pooler.connect("nobody_of_the_file")


# ---- the process --------------------------------------------------------------------------------

@covers("settings", "log_pooler_errors")
def test_errors_to_clients_can_be_left_out_of_the_log(t):
    pooler = t.pooler(log_pooler_errors=0)
    with refused("no such database: nix"):
        pooler.connect(database="nix")
    pooler.usable()
    same(re.findall(r"WARNING .*pooler error.*", pooler.log()), [])


@covers("settings", "conffile")
def test_conffile_names_the_file_that_a_reload_reads(t):
    pooler = t.pooler()
    text = open(pooler.ini).read()
    other = pooler.write_file("other.ini", text + "max_client_conn = 77\n")
    if t.variant is None or t.variant.kind != harness.Variant.IGNORED:
        with pooler.console() as console:
            same(console.do(f"set conffile = '{other}'"), f"SET conffile={other}")
    with pooler.console() as console:
        same(console.do("reload"), "RELOAD")
        same(console.config("max_client_conn"), "77")


def does_not_start(pooler):
    """What it says before it ends with status 1."""
    process = pooler.launch()
    eventually(lambda: process.poll() is not None or "process up" in pooler.stderr(), "it starts or ends", 10)
    same(process.poll(), 1)
    return pooler.stderr()


# ---- limits and times ---------------------------------------------------------------------------

@covers("settings", "max_packet_size")
def test_max_packet_size_of_the_file_ends_a_longer_message(t):
    pooler = t.pooler(max_packet_size=1000)
    with pooler.connect() as c:
        c.send(query("select '" + "x" * 2000 + "'"))
        matches("^bad packet header", c.fatal().text)


@covers("settings", "max_prepared_statements")
def test_max_prepared_statements_0_tracks_nothing(t):
    pooler = t.pooler(pool_mode="transaction", max_prepared_statements=0)
    with pooler.connect() as c:
        same(c.batch(pgwire.parse("own_name", "select 1")).errors, [])
        same(c.value("select name from pg_prepared_statements"), "own_name")


@covers("settings", "pool_idle_timeout")
@ours
def test_unused_pool_is_forgotten(t):
    pooler = t.pooler(pool_mode="transaction", pool_idle_timeout=0.3, server_idle_timeout=0.2)
    with pooler.connect() as c, pooler.console() as console:
        c.query("select 1")
        assert console.pool()
    with pooler.console() as console:
        eventually(lambda: not console.pool(), "the pool is gone")
    pooler.usable()


@covers("settings", "server_fast_close")
def test_server_fast_close_ends_sessions_after_their_transaction(t):
    pooler = t.pooler(pool_mode="session", server_fast_close=1)
    with pooler.connect() as c, pooler.console() as console:
        c.query("begin")
        console.do("reconnect")
        same(c.value("select 1"), "1")
        c.query("commit")
        c.closed()


def starting_up(t):
    """A server that is not there yet, and when it was asked."""
    times = []

    def script(server):
        times.append(time.monotonic())
        server.startup()
        server.send(pgwire.error_response(S="FATAL", C="57P03", M="the database system is starting up"))
    return times, t.fake_server(script)


@covers("settings", "server_login_retry")
def test_next_attempt_waits_for_server_login_retry(t):
    times, fake = starting_up(t)
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.fake_entry(fake)},
                      server_login_retry=0.3, extra="[pgsplice]\nserver_login_retry_max = 0\n")
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        eventually(lambda: len(times) >= 4, "four attempts", 6)
        for before, after in zip(times, times[1:4]):
            assert 0.25 <= after - before <= 3, f"{after - before} s between two attempts"


@covers("settings", "cancel_wait_timeout")
def test_cancel_that_nobody_answers_is_given_up(t):
    held = []

    def script(server):
        if server.startup() == pgwire.CANCEL_REQUEST:
            held.append(server)
            server.receive()  # never comes: the request stays open until the pooler leaves
        server.send(server.WELCOME)
        server.receive()
        server.receive()

    fake = t.fake_server(script)
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.fake_entry(fake)},
                      cancel_wait_timeout=0.5)
    with pooler.connect() as c:
        c.send(query("select 'long'"))
        with pooler.console() as console:
            console.wait_pool(sv_active=1)
        with pooler.open() as other:
            started = time.monotonic()
            other.send(pgwire.cancel_request(*c.key))
            same(other.closed(), [])
            within(started, 0.3, 4, "giving up")


# ---- entries ------------------------------------------------------------------------------------

@covers("database_options", "host", "port")
def test_host_and_port_of_an_entry_are_where_its_servers_are(t):
    # without host it would be the folder of unix sockets, without port 5432
    pooler = t.pooler(databases={"app": f"host=127.0.0.1 port={t.postgres.port}"}, server_login_retry=0.2,
                      query_wait_timeout=2)
    with pooler.connect() as c:
        same(c.value("select inet_server_addr() || ' ' || inet_server_port()"),
             f"127.0.0.1/32 {t.postgres.port}")


@covers("database_options", "password")
def test_password_of_an_entry_is_used_at_the_server(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="u_scram", password=harness.PASSWORD)},
                      query_wait_timeout=2)
    with pooler.connect() as c:
        same(c.value("select current_user"), "u_scram")


@covers("database_options", "min_pool_size")
def test_min_pool_size_of_an_entry_is_kept(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="other", min_pool_size=3)})
    eventually(lambda: len(t.postgres.backends("other")) == 3, "three servers are open", 6)
    pooler.usable()


def reserve(t, **where):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, reserve_pool_timeout=0.3,
                      query_wait_timeout=5, **where)
    with pooler.connect() as a, pooler.connect() as b:
        a.query("begin")
        same(b.value("select 'by the reserve'", 4), "by the reserve")


@covers("database_options", "reserve_pool_size")
@ours
def test_reserve_pool_size_of_an_entry(t):
    reserve(t, databases={"app": t.postgres.address(reserve_pool_size=1)})


@covers("database_options", "reserve_pool")
def test_reserve_pool_is_its_old_name(t):
    reserve(t, databases={"app": t.postgres.address(reserve_pool=1)})


@covers("user_options", "reserve_pool_size")
@ours
def test_reserve_pool_size_of_a_user(t):
    reserve(t, users={"app": "reserve_pool_size=1"})


def waits_one_second(t, **where):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, **where)
    with pooler.connect() as a, pooler.connect() as b:
        a.query("begin")
        b.send(query("select 1"))
        started = time.monotonic()
        same(b.fatal(4).text, "query_wait_timeout")
        within(started, 0.6, 4, "query_wait_timeout")


@covers("database_options", "query_wait_timeout")
@ours
def test_query_wait_timeout_of_an_entry(t):
    waits_one_second(t, databases={"app": t.postgres.address(query_wait_timeout=1)})


@covers("user_options", "query_wait_timeout")
@ours
def test_query_wait_timeout_of_a_user_beats_the_entry(t):
    waits_one_second(t, databases={"app": t.postgres.address(query_wait_timeout=100)},
                     users={"app": "query_wait_timeout=1"})


@covers("database_options", "max_db_client_connections")
@ours
def test_max_db_client_connections_of_an_entry(t):
    pooler = t.pooler(databases={"app": t.postgres.address(max_db_client_connections=1),
                                 "app2": t.postgres.address("app2")})
    with pooler.connect() as first:
        same(first.value("select 1"), "1")
        with refused(r"client connections exceeded \(max_db_client_connections\)", "08P01", "FATAL"):
            pooler.connect()
        pooler.connect(database="app2").terminate()


@covers("user_options", "max_user_client_connections")
@ours
def test_max_user_client_connections_of_a_user(t):
    pooler = t.pooler(users={"app": "max_user_client_connections=1"})
    with pooler.connect() as first:
        same(first.value("select 1"), "1")
        with refused(r"client connections exceeded \(max_user_client_connections\)", "08P01", "FATAL"):
            pooler.connect()
        pooler.connect("other").terminate()


@covers("database_options", "server_lifetime")
@ours
def test_server_lifetime_of_an_entry(t):
    pooler = t.pooler(pool_mode="transaction",
                      databases={"app": t.postgres.address(server_lifetime=1)})
    with pooler.connect() as c:
        first = c.pid()
        eventually(lambda: first not in t.postgres.backends(), "the old server is closed")
        assert c.pid() != first


@covers("user_options", "idle_transaction_timeout")
@ours
def test_idle_transaction_timeout_of_a_user(t):
    pooler = t.pooler(pool_mode="transaction", users={"app": "idle_transaction_timeout=1"})
    with pooler.connect() as c, pooler.connect("other") as spared:
        spared.query("begin")
        c.query("begin")
        same(c.fatal(4).text, "idle transaction timeout")
        same(spared.value("select 1"), "1")


@covers("user_options", "transaction_timeout")
@ours
def test_transaction_timeout_of_a_user(t):
    pooler = t.pooler(pool_mode="transaction", users={"app": "transaction_timeout=1"})
    with pooler.connect() as c, pooler.connect("other") as spared:
        spared.query("begin")
        c.query("begin")
        same(c.fatal(4).text, "transaction timeout")
        same(spared.value("select 1"), "1")


# ---- what the notes of the tables say -----------------------------------------------------------

def test_max_client_conn_0_refuses_everybody(t):
    pooler = t.pooler(max_client_conn=0)
    with refused(r"no more connections allowed \(max_client_conn\)", "08P01", "FATAL"):
        pooler.connect()
    with pooler.console() as console:
        same(console.config("max_client_conn"), "0")


LIMITS = ["max_db_connections", "max_user_connections", "max_db_client_connections", "max_user_client_connections"]


def most(t, limit, **where):
    """How many of three clients may be there, or work, at a time."""
    pooler = t.pooler(pool_mode="transaction", **where)
    clients = []
    try:
        for _ in range(3):
            clients.append(pooler.connect())
    except pgwire.PgError as error:
        assert f"({limit})" in error.text, error.text
    if "client" not in limit:
        for c in clients:
            c.send(query("begin"))
        with pooler.console() as console:
            def settled():
                row = console.pool()
                return row["sv_login"] == 0 and row["cl_active"] + row["cl_waiting"] == 3 and \
                    row["sv_active"] + row["cl_waiting"] == 3 and row["sv_active"]
            found = eventually(settled, "each works or waits")
            console.wait_pool(sv_active=found, cl_waiting=3 - found, settled=True)
    else:
        found = len(clients)
    for c in clients:
        c.vanish()
    pooler.stop()
    return found


@ours
def test_limits_below_0_are_none(t):
    for limit in LIMITS:
        same(most(t, limit, **{limit: -1}), 3, limit)


@ours
def test_limits_of_0_or_less_of_an_entry_are_the_global_ones(t):
    for limit in LIMITS:
        for value in (0, -1):
            where = {"users": {"app": f"{limit}={value}"}} if "user" in limit else \
                {"databases": {"app": t.postgres.address(**{limit: value})}}
            same(most(t, limit, **{limit: 1}, **where), 1, f"{limit}={value}")


@ours
def test_own_limits_of_an_entry_are_not_bounded_by_the_global_ones(t):
    for limit in LIMITS:
        where = {"users": {"app": f"{limit}=2"}} if "user" in limit else \
            {"databases": {"app": t.postgres.address(**{limit: 2})}}
        same(most(t, limit, **{limit: 1}, **where), 2, limit)


@ours
def test_limits_of_databases_and_users_do_not_count_consoles(t):
    pooler = t.pooler(max_user_client_connections=1, max_db_client_connections=1)
    consoles = [pooler.console(user) for user in ("admin", "admin", "stats", "stats")]
    for console in consoles:
        assert console.table("show version")


def test_consoles_count_as_clients_and_are_not_refused(t):
    pooler = t.pooler(max_client_conn=2)
    with pooler.console(), pooler.console(), pooler.console() as third:
        with refused(r"no more connections allowed \(max_client_conn\)"):
            pooler.connect()
        assert third.table("show version")


@ours
def test_times_of_0_of_a_user_are_the_global_ones(t):
    pooler = t.pooler(pool_mode="transaction", query_timeout=0.6, idle_transaction_timeout=0.7, client_idle_timeout=0.8,
                      users={"app": "query_timeout=0 idle_transaction_timeout=0 client_idle_timeout=0"})
    with pooler.connect() as busy, pooler.connect() as idle, pooler.connect() as waiting:
        busy.send(query("select pg_sleep(8)"))
        idle.query("begin")
        same((busy.fatal().text, idle.fatal().text, waiting.fatal().text),
             ("query timeout", "idle transaction timeout", "client_idle_timeout"))


@ours
def test_transaction_timeout_0_of_a_user_is_the_global_one(t):
    pooler = t.pooler(pool_mode="transaction", transaction_timeout=0.5, users={"app": "transaction_timeout=0"})
    with pooler.connect() as c:
        c.query("begin")
        same(c.fatal().text, "transaction timeout")


@ours
def test_server_lifetime_0_of_an_entry_is_the_global_one(t):
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.postgres.address(server_lifetime=0)})
    with pooler.connect() as c:
        same(c.pid(), c.pid())  # and not one use, as the global 0 is


@ours
def test_sizes_below_0_of_an_entry_are_not_set(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2, reserve_pool_size=1, min_pool_size=1,
                      users={"app": "pool_size=-1 reserve_pool_size=-1"},
                      databases={"app": t.postgres.address(pool_size=-1, reserve_pool_size=-1, min_pool_size=-1)})
    with pooler.console() as console:
        row = next(row for row in console.table("show databases") if row["name"] == "app")
        same((row["pool_size"], row["min_pool_size"], row["reserve_pool_size"]), ("2", "1", "1"))


@ours
def test_pool_size_0_of_a_user_is_no_limit(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, users={"app": "pool_size=0"},
                      databases={"app": t.postgres.address(pool_size=1)})
    clients = [pooler.connect() for _ in range(3)]
    for c in clients:
        c.query("begin")


@ours
def test_reserve_pool_size_0_of_a_user_is_none(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, reserve_pool_size=1, reserve_pool_timeout=0.1,
                      users={"app": "reserve_pool_size=0"}, databases={"app": t.postgres.address(reserve_pool_size=1)})
    with pooler.connect() as a, pooler.connect() as b:
        a.query("begin")
        b.send(query("select 1"))
        assert b.silent_for(0.8)


@ours
def test_query_wait_timeout_0_of_a_user_is_never(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, query_wait_timeout=0.2,
                      users={"app": "query_wait_timeout=0"}, databases={"app": t.postgres.address(query_wait_timeout=1)})
    with pooler.connect() as a, pooler.connect() as b:
        a.query("begin")
        b.send(query("select 1"))
        assert b.silent_for(1.6)
        a.query("commit")
        same(b.results().value(), "1")


def test_min_pool_size_is_capped_by_the_pools_size(t):
    pooler = t.pooler(default_pool_size=2, databases={"app": t.postgres.address(user="other", min_pool_size=5)})
    eventually(lambda: len(t.postgres.backends("other")) == 2, "two servers are open")
    with pooler.console() as console:
        console.wait_pool(user="other", sv_idle=2, settled=True)


def test_entry_without_a_host_is_at_the_folder_of_unix_sockets(t):
    pooler = t.pooler(unix_socket_dir=t.postgres.sockets, databases={"app": f"port={t.postgres.port}"})
    with pooler.connect() as c:
        same(c.value("select inet_server_addr() is null"), "t")


@ours
def test_forced_user_is_gone_when_a_reload_takes_it_away(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="other")})
    pooler.databases["app"] = t.postgres.address()
    pooler.write()
    pooler.reload()
    with pooler.connect() as c:
        same(c.value("select current_user"), "app")


@ours
def test_settings_of_a_user_are_gone_with_its_entry(t):
    pooler = t.pooler(users={"app": "max_user_client_connections=1"})
    del pooler.users["app"]
    pooler.write()
    pooler.reload()
    with pooler.connect(), pooler.connect():
        pooler.usable()


@ours
def test_server_login_retry_0_is_no_endless_loop(t):
    times = []

    def script(server):
        times.append(time.monotonic())

    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)}, server_login_retry=0)
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        eventually(lambda: len(times) >= 2, "it is tried again")
        before = len(times)
        assert c.silent_for(0.8)
        assert 1 <= len(times) - before <= 10, len(times) - before


def test_reload_of_what_is_not_a_servers_address_keeps_the_servers(t):
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.postgres.address()})
    with pooler.connect() as c:
        pid = c.pid()
        pooler.databases["app"] = t.postgres.address(
            pool_size=3, min_pool_size=1, reserve_pool_size=1, max_db_connections=9, pool_mode="transaction",
            client_encoding="LATIN1", timezone="Asia/Tokyo", application_name="x", datestyle="SQL")
        pooler.write()
        pooler.reload()
        same(c.pid(), pid)


def test_reload_of_what_servers_depend_on_retires_them(t):
    for key, value in (("connect_query", "'select 1'"), ("auth_dbname", "app2"), ("auth_query", "'select 1'"),
                       ("load_balance_hosts", "disable"), ("dbname", "app2")):
        pooler = t.pooler(pool_mode="transaction", databases={"app": t.postgres.address()})
        with pooler.connect() as c:
            pid = c.pid()
            pooler.databases["app"] = t.postgres.address(**{"database" if key == "dbname" else key: value})
            pooler.write()
            pooler.reload()
            assert c.pid() != pid, key


def test_unix_socket_mode_is_shown_in_decimal(t):
    pooler = t.pooler(unix_socket_mode="0770")
    with pooler.console() as console:
        same(console.config("unix_socket_mode"), "504")


def test_verbose_of_the_file_replaces_the_count_of_options(t):
    pooler = t.pooler(args=["-v", "-v"], verbose=0)
    pooler.usable()
    pooler.wait_log("login attempt")
    same(re.findall(r" (?:DEBUG|NOISE) ", pooler.log()), [])


def test_listen_addr_may_be_a_name(t):
    pooler = t.pooler(listen_addr="localhost")
    pooler.usable()


@ours
def test_reload_with_a_log_that_cannot_be_opened_keeps_the_old_one(t):
    pooler = t.pooler()
    pooler.change(reload=False, logfile="/nonexistent/pooler.log")
    with pooler.console() as console:
        console.do("reload")
    pooler.wait_log("ERROR could not open logfile '/nonexistent/pooler.log': No such file or directory; the old one stays")
    pooler.usable()


def test_names_of_administrators_are_exact(t):
    pooler = t.pooler(userlist={"Admin": "", "admin": "", "app": ""}, admin_users="Admin app")
    with refused("not allowed"):
        pooler.console("admin")
    for user in ("Admin", "app"):
        with pooler.console(user) as console:
            same(console.do("pause"), "PAUSE")
            same(console.do("resume"), "RESUME")


def test_ignored_startup_parameters_are_case_sensitive(t):
    pooler = t.pooler(ignore_startup_parameters="GEQO")
    with refused("unsupported startup parameter: geqo"):
        pooler.connect(geqo="off")


@ours
def test_numbers_of_the_file_are_those_of_c(t):
    pooler = t.pooler(default_pool_size="0x10", min_pool_size="010")
    with pooler.console() as console:
        same((console.config("default_pool_size"), console.config("min_pool_size")), ("16", "8"))


def test_suspend_timeout_0_waits_for_ever(t):
    pooler = t.pooler(pool_mode="transaction", suspend_timeout=0)
    with pooler.connect() as c, pooler.console() as console:
        c.send(query("select 1")[:6])  # no whole message: it has not come to rest
        console.client.send(query("suspend"))
        assert console.client.silent_for(0.5), "answered"
        c.send(query("select 1")[6:])
        same(console.client.results().tags, ["SUSPEND"])
        same(console.do("resume"), "RESUME")
        same(c.results().value(), "1")


def test_server_idle_timeout_0_is_never(t):
    pooler = t.pooler(pool_mode="transaction", server_idle_timeout=0, server_lifetime=3600)
    with pooler.connect() as c:
        pid = c.pid()
        assert c.silent_for(0.8)
        same(c.pid(), pid)


def test_query_timeout_of_who_waits(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, users={"app": "query_timeout=1"})
    with pooler.connect() as a, pooler.connect() as b:
        a.query("begin")
        b.send(query("select 1"))
        same(b.fatal(4).text, "query_timeout")


# ---- our own ------------------------------------------------------------------------------------

def own(**settings):
    return "[pgsplice]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())


def threads(pooler, name):
    """How many threads of the pooler have a name like this."""
    found = []
    for path in glob.glob(f"/proc/{pooler.process.pid}/task/*/comm"):
        with open(path) as file:
            found.append(file.read().strip())
    return len([comm for comm in found if re.fullmatch(name, comm)])


@covers("pgsplice", "worker_threads")
@ours
def test_worker_threads_are_as_many_as_said(t):
    pooler = t.pooler(extra=own(worker_threads=5))
    same(re.search(r"(\d+) workers?, io_uring", pooler.log()).group(1), "5")


@covers("pgsplice", "cpu_affinity")
@ours
def test_cpu_affinity_pins_the_workers(t):
    cpu = max(os.sched_getaffinity(0))
    pooler = t.pooler(extra=own(worker_threads=2, cpu_affinity=cpu))
    pinned = [path for path in glob.glob(f"/proc/{pooler.process.pid}/task/*/status")
              if re.search(rf"(?m)^Name:\s*\S*worker.*\n(?:.*\n)*?Cpus_allowed_list:\s*{cpu}$", open(path).read())]
    same(len(pinned), 2)


@covers("pgsplice", "server_connect_parallel")
@ours
def test_server_connect_parallel_bounds_the_logins_at_a_time(t):
    logins = []

    def script(server):
        server.startup()
        logins.append(server)
        if len(logins) == 1:
            server.send(server.WELCOME)
        server.receive()  # the first query is not answered, the other logins stay where they are
        server.receive()

    fake = t.fake_server(script)
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.fake_entry(fake)},
                      default_pool_size=10, extra=own(server_connect_parallel=2, worker_threads=1))
    clients = [pooler.connect() for _ in range(7)]
    for c in clients:
        c.send(query("select 1"))
    eventually(lambda: len(logins) == 3, "two logins besides the first server")
    with pooler.console() as console:
        console.wait_pool(cl_waiting=6, sv_active=1, sv_login=2)


@covers("pgsplice", "server_login_retry_max")
@ours
def test_server_login_retry_max_bounds_the_growing_pauses(t):
    times, fake = starting_up(t)
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.fake_entry(fake)},
                      server_login_retry=0.1, extra=own(server_login_retry_max=0.1))
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        # looked at three times a second
        eventually(lambda: len(times) >= 6, "six attempts: 4 s if the pauses grew on", 3)


@covers("pgsplice", "cache_unnamed_statements")
@ours
def test_cache_unnamed_statements_can_be_turned_off(t):
    pooler = t.pooler(pool_mode="transaction", extra=own(cache_unnamed_statements=0))
    with pooler.connect() as c:
        for _ in range(4):
            c.batch(extended("select 1"))
        same(c.value("select count(*) from pg_prepared_statements"), "0")


@covers("pgsplice", "track_sql_prepare")
@ours
def test_track_sql_prepare_makes_prepare_follow_the_client(t):
    pooler = t.pooler(pool_mode="transaction", extra=own(track_sql_prepare=1))
    with pooler.connect() as c:
        c.query("prepare mine as select 5")
        same(c.value("select count(*) from pg_prepared_statements where name = 'mine'"), "0")
        same(c.value("execute mine"), "5")


@covers("pgsplice", "heal_statements")
@ours
def test_heal_statements_can_be_turned_off(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, extra=own(heal_statements=0))
    run = pgwire.bind("", "s") + pgwire.describe("P", "") + pgwire.execute()
    with pooler.connect() as c:
        c.query("drop table if exists healed; create table healed (a int)")
        c.batch(pgwire.parse("s", "select * from healed"))
        same(c.batch(run).errors, [])
        c.query("alter table healed add b int")
        same([error.sqlstate for error in c.batch(run).errors], ["0A000"])


@covers("pgsplice", "pool_shards")
@ours
def test_pool_shards_is_on_how_many_workers_a_pool_is(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4,
                      extra=own(worker_threads=4, pool_shards=4))
    clients = [pooler.connect() for _ in range(8)]
    with pooler.console() as console:
        rows = [row for row in console.table("show shards") if row["database"] == "app"]
        same(len(rows), 4)
    for c in clients:
        c.terminate()


@covers("pgsplice", "server_sharing")
@ours
def test_server_sharing_is_a_number_or_a_word(t):
    pooler = t.pooler(extra=own(server_sharing="no"))
    with pooler.console() as console:
        def now():
            return next(row for row in console.table("show config") if row["key"] == "server_sharing")
        same((now()["value"], now()["default"], now()["changeable"]), ("off", "auto", "yes"))
        for given, shown in (("4", "4"), ("on", "auto"), ("0", "off"), ("auto", "auto")):
            console.do(f"set server_sharing = '{given}'")
            same(now()["value"], shown)
        for wrong in ("maybe", "-1", "1001"):
            with refused("SET failed"):
                console.do(f"set server_sharing = '{wrong}'")
        same(now()["value"], "auto")


def effective_sharing(pooler):
    with pooler.connect(), pooler.console() as console:
        return next(row["server_sharing"] for row in console.table("show sharing") if row["database"] == "app")


@covers("database_options", "server_sharing")
@ours
def test_server_sharing_of_a_database(t):
    pooler = t.pooler(pool_mode="transaction", extra=own(server_sharing=7),
                      databases={"app": t.postgres.address(user="app", server_sharing="off")})
    same(effective_sharing(pooler), "off")


@covers("user_options", "server_sharing")
@ours
def test_server_sharing_of_a_user_wins_over_the_databases(t):
    pooler = t.pooler(pool_mode="transaction", extra=own(server_sharing=7), users={"app": "server_sharing=auto"},
                      databases={"app": t.postgres.address(user="app", server_sharing="off")})
    same(effective_sharing(pooler), "auto")


@covers("pgsplice", "busy_poll")
@ours
def test_busy_poll_looks_for_work_before_it_sleeps(t):
    pooler = t.pooler(pool_mode="transaction", extra=own(busy_poll="200ms", worker_threads=1))
    ticks = os.sysconf("SC_CLK_TCK")

    def seconds_of_cpu():
        with open(f"/proc/{pooler.process.pid}/stat") as file:
            words = file.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / ticks
    with pooler.connect() as c:
        before = seconds_of_cpu()

        def has_polled():
            c.value("select 1")
            time.sleep(0.05)  # what it does meanwhile is the question
            return seconds_of_cpu() - before > 0.5
        eventually(has_polled, "half a second of CPU time for a few queries", 10)


def socket_option(pid, inode, level, option):
    """An option of a socket of another process, by a copy of its descriptor (pidfd_getfd, Linux 5.6)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") != f"socket:[{inode}]":
                    continue
            except FileNotFoundError:
                continue
            copy = libc.syscall(438, pidfd, int(name), 0)
            if copy < 0:
                raise harness.Skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=copy) as copied:
                return copied.getsockopt(level, option)
    finally:
        os.close(pidfd)
    raise AssertionError(f"no descriptor of socket {inode}")


def listening_inodes(port):
    """The inodes of the TCP sockets that listen on a port of 127.0.0.1."""
    found = []
    with open("/proc/net/tcp") as file:
        for line in list(file)[1:]:
            words = line.split()
            if words[1] == f"0100007F:{port:04X}" and words[3] == "0A":
                found.append(int(words[9]))
    return found


@covers("pgsplice", "incoming_cpu")
@ours
def test_incoming_cpu_is_set_on_the_listeners_of_pinned_workers(t):
    cpus = sorted(os.sched_getaffinity(0))[:2]
    pooler = t.pooler(extra=own(incoming_cpu=1, worker_threads=len(cpus), cpu_affinity=",".join(map(str, cpus))))
    incoming_cpu = 49
    same(sorted(socket_option(pooler.process.pid, inode, socket.SOL_SOCKET, incoming_cpu)
                for inode in listening_inodes(pooler.port)), cpus)


@covers("pgsplice", "huge_pages")
@reload_shows_nothing
@ours
def test_huge_pages_on_does_not_start_without_them(t):
    with open("/proc/meminfo") as file:
        if not re.search(r"HugePages_Free:\s+0\b", file.read()):
            raise harness.Skip("there are huge pages")
    matches("huge", does_not_start(t.pooler(start=False, extra=own(huge_pages="on", worker_threads=1))))


def buffers_after_a_login(t, **settings):
    """The row of SHOW MEM for receive buffers: size, and how many there are."""
    pooler = t.pooler(extra=own(worker_threads=1, **settings))
    with pooler.connect() as c, pooler.console() as console:
        same(c.value("select repeat('x', 100000)"), "x" * 100000)
        row = next(row for row in console.table("show mem") if row["name"] == "iobuf_cache")
        return int(row["size"]), int(row["used"]) + int(row["free"])


@covers("pgsplice", "receive_buffer_bytes")
@ours
def test_receive_buffer_bytes_is_the_size_of_each(t):
    same(buffers_after_a_login(t, receive_buffer_bytes=4096)[0], 4096)


@covers("pgsplice", "receive_buffer_count_max")
@ours
def test_receive_buffer_count_max_is_the_most_of_a_worker(t):
    same(buffers_after_a_login(t, receive_buffer_count_max=16)[1], 16)
