"""The admin console: what scripts, dashboards and drivers rely on."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import time

import pgwire
import tables
from harness import as_os_user, eventually, matches, ours, plain, refused, same, slow, within
from pgwire import query


# Rows of admin_commands.tsv that have a test, and which of its errors.
COVERED = collections.defaultdict(set)


def command_row(row, *errors):
    COVERED[row].update(errors)
    return lambda function: function


# ---- SHOW ---------------------------------------------------------------------------------------

def shows():
    found = {}
    for row in tables.rows("show_columns"):
        if row["column"] != "(no rows)":
            column = (row["column"], int(row["type"].split()[0]))
            found.setdefault(row["show"], []).append(column)
    return found


def make_show(name, columns):
    @ours
    def test(t):
        pooler = t.pooler(pool_mode="transaction")
        with pooler.connect() as c, pooler.console() as console:
            c.value("select 1")
            result = console.client.query(f"show {name.lower()}")
            same(result.columns, columns)
            same(result.tags, ["SHOW"])
            for row in result.rows:
                for value, (column, oid) in zip(row, columns):
                    if oid in (20, 23, 1700) and value is not None:
                        assert re.fullmatch(r"-?\d+", value), f"{column} is {value!r}"
    test.__name__ = f"test_show_{name.lower()}_has_its_columns_and_types"
    return test


for _name, _columns in shows().items():
    _test = make_show(_name, _columns)
    globals()[_test.__name__] = _test


@ours
def test_all_tables_over_the_unix_socket(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(host=pooler.folder) as c, pooler.console(host=pooler.folder) as console:
        c.value("select 1")
        for name, columns in shows().items():
            same(console.client.query(f"show {name.lower()};").columns, columns, name)
        row = next(r for r in console.table("show clients") if r["database"] == "pgbouncer")
        same((row["user"], row["addr"], row["port"], row["local_addr"]), ("admin", "unix", str(pooler.port), "unix"))
        assert int(row["remote_pid"]) == os.getpid()


def test_show_version_is_a_name_and_a_number(t):
    with t.pooler().console() as console:
        rows = console.table("show version")
        same(len(rows), 1)
        matches(r"^\S+ \d+\.\d+", rows[0]["version"])
        first = t.run_program([t.poolers[0].command()[0], "-V"]).stdout.splitlines()[0]
        same(rows[0]["version"], first)


@ours
def test_version_and_log_say_which_tls_library_it_is(t):
    pooler = t.pooler()
    with pooler.console() as console:
        (notice,) = console.client.query("show version").notices
    library = re.search(r"^tls: (wolfSSL [\d.]+[^ ,]*, (own build|system library), (no )?AES-NI)$", notice["M"])
    assert library, notice
    pooler.wait_log("process up: .*tls: " + re.escape(library[1]))
    assert f"tls: {library[1]}" in t.run_program([pooler.command()[0], "-V"]).stdout.splitlines()
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    if library[2] == "own build" and re.search(r"^flags.* aes .*pclmulqdq|^flags.*pclmulqdq.* aes ", cpu, re.MULTILINE):
        assert not library[3], "AES-NI is there, and not used"


@command_row("SHOW HELP")
def test_show_help_is_a_notice(t):
    with t.pooler().console() as console:
        result = console.client.query("show help")
        same(result.types, "NCZ")
        notice = result.notices[0]
        same((notice["S"], notice["C"], notice["M"]), ("NOTICE", "00000", "Console usage"))
        for word in ("SHOW", "RELOAD", "PAUSE", "RESUME", "SHUTDOWN"):
            assert word in notice["D"], notice["D"]


@command_row("(any)")
def test_words_are_read_in_any_case_and_spacing(t):
    with t.pooler().console() as console:
        for command in ("SHOW POOLS", "show pools;", "  Show\tPools \n;", "sHoW\nPoOlS"):
            same(console.do(command), "SHOW", repr(command))


def test_select_of_a_word_is_show(t):
    with t.pooler().console() as console:
        same(console.client.query("select version").columns, [("version", 25)])


def test_unknown_commands_are_quoted_back(t):
    with t.pooler().console() as console:
        for command in ("nonsense", "show nothing", "show", "reload everything",
                        "show pools; show pools"):
            with refused(re.escape(f"invalid command '{command}', use SHOW HELP;"), "08P01",
                         "ERROR"):
                console.do(command)
            same(console.do("show version"), "SHOW")


def test_console_survives_odd_queries(t):
    with t.pooler().console() as console:
        for command in ("", ";", "'", '"', '"unfinished', "show " + "x" * 300, "show 'pools'",
                        "set a = 'b", "\x01\x02", "-- comment", "/* c */ show pools", "pause " * 20,
                        "show \xe4"):
            console.client.send(query(command))
            result = console.client.results()
            assert result.errors or result.types in ("IZ", "CZ") or result.tags, repr(command)
        same(console.do("show version"), "SHOW")


def test_console_survives_a_very_long_query(t):
    pooler = t.pooler()
    with pooler.console() as console:
        console.client.send(query("show " + "x" * 100000))
        errors = [m for m in console.client.until("EZ")]
        assert errors
    with pooler.console() as console:
        same(console.do("show version"), "SHOW")


@plain
@ours
@slow(30)
def test_answers_that_nobody_reads_take_no_more_than_some_memory(t):
    pooler = t.pooler()
    with pooler.console() as console, pooler.console() as other:
        same(other.do("show version"), "SHOW")
        before = pooler.memory()
        console.client.socket.setblocking(False)
        commands, sent = query("show config") * 1000, 0
        try:
            while sent < 100000000:
                sent += console.client.socket.send(commands)
        except BlockingIOError:
            pass
        same(other.do("show version"), "SHOW")
        assert pooler.memory() - before < 4 << 20, pooler.memory() - before
        console.client.socket.setblocking(True)
        for _ in range(500):  # more than was ready
            same(console.client.results().tags, ["SHOW"])


def test_pipelined_commands_are_answered_in_order(t):
    with t.pooler().console() as console:
        console.client.send(query("show version") + query("nonsense") + query("show lists"))
        first, second, third = (console.client.results() for _ in range(3))
        same((first.columns[0][0], len(second.errors), third.columns[0][0]), ("version", 1, "list"))


def test_show_pools_counts_clients_and_servers(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as a, pooler.connect() as b, pooler.connect() as idle, \
            pooler.console() as console:
        idle.value("select 1")
        console.wait_pool(cl_active=3, cl_waiting=0, sv_active=0, sv_idle=1)
        a.query("begin")
        b.send(query("select 1"))
        row = console.wait_pool(cl_active=2, cl_waiting=1, sv_active=1, sv_idle=0, sv_login=0)
        same(row["pool_mode"], "transaction")
        eventually(lambda: console.pool()["maxwait"] * 1000000 +
                   console.pool()["maxwait_us"] > 50000,
                   "the wait is measured")
        a.query("commit")
        b.results()
        console.wait_pool(cl_active=3, cl_waiting=0, maxwait=0, maxwait_us=0)


def test_show_pools_lists_the_console_itself(t):
    with t.pooler().console() as console:
        row = console.pool("pgbouncer", "pgbouncer")
        same(row["cl_active"], 1)


# ---- sharing ------------------------------------------------------------------------------------

SHARING_REASONS = ["refused_pieces", "refused_no_read", "refused_keyword", "refused_function", "refused_several",
                   "refused_doubt", "refused_batch", "refused_statement", "refused_client", "apart_unknown",
                   "apart_slow", "apart_erratic", "apart_runs_long", "apart_depth", "apart_parameters", "apart_needed"]
SHARING_COLUMNS = [("database", 25), ("user", 25), ("worker", 23), ("server_sharing", 25), ("server_limit", 23),
                   ("servers", 23), ("queued", 23), ("shared", 20), ("joined", 20), ("depth_avg", 701),
                   ("depth_max", 20), ("wait_us", 20), ("sets", 20), ("again_lost", 20), ("again_canceled", 20),
                   ("again_alone", 20), ("again_moved", 20), *((name, 20) for name in SHARING_REASONS)]
POLICY_COLUMNS = [("database", 25), ("user", 25), ("worker", 23), ("ceiling", 23), ("server_limit", 23),
                  ("limit_now", 23), ("raised", 20), ("lowered", 20), ("changed", 20), ("more_trials", 23), ("more_gain_percent", 701),
                  ("fewer_trials", 23), ("fewer_gain_percent", 701), ("double_trials", 23), ("double_gain_percent", 701),
                  ("half_trials", 23), ("half_gain_percent", 701), ("answers_per_s", 701), ("busy_avg", 701),
                  ("queued_avg", 701), ("client_us_avg", 701), ("took_us_avg", 701), ("floor_us_avg", 701)]
CLASS_COLUMNS = [("database", 25), ("user", 25), ("class", 25), ("text", 25), ("count", 20), ("mean_us", 20),
                 ("deviation_us", 20), ("floor_us", 20), ("follow", 25)]
TWO_SHARDS = "[pgsplice]\nworker_threads = 2\npool_shards = 2\n"


@ours
def test_show_sharing_has_a_row_for_each_shard(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4, extra=TWO_SHARDS)
    clients = [pooler.connect() for _ in range(4)]
    with pooler.console(user="stats") as console:
        result = console.client.query("show sharing")
        same((result.columns, result.tags), (SHARING_COLUMNS, ["SHOW"]))
        rows = [row for row in console.table("show sharing") if row["database"] == "app"]
        same([(row["user"], row["worker"], row["server_sharing"]) for row in rows],
             [("app", "0", "auto"), ("app", "1", "auto")])
        for row in rows:
            for column, oid in SHARING_COLUMNS:
                if oid in (20, 23):
                    matches(r"^\d+$", row[column])
            matches(r"^\d+\.\d\d$", row["depth_avg"])
        result = console.client.query("show sharing_policy")
        same((result.columns, result.tags), (POLICY_COLUMNS, ["SHOW"]))
        same([(row["user"], row["worker"]) for row in console.table("show sharing_policy") if row["database"] == "app"],
             [("app", "0"), ("app", "1")])
    for c in clients:
        c.terminate()


def sharing_counts(console):
    """The columns that count, added up over the shards of app."""
    total = collections.Counter()
    for row in console.table("show sharing"):
        if row["database"] == "app":
            total.update({key: int(row[key]) for key in ["shared", "joined", "sets", *SHARING_REASONS]})
    return total


@ours
def test_show_sharing_counts_each_reason_in_its_column(t):
    pooler = t.pooler(pool_mode="transaction", extra="[pgsplice]\nworker_threads = 1\nserver_sharing = 1\n")
    with pooler.connect() as c, pooler.console() as console:
        c.query("create table if not exists counted (a int)")
        values = "(" + ",".join(["1"] * 2100) + ")"
        for what, column in (("select 1", "shared"), ("values (1), (2)", "shared"),
                             ("show search_path", "refused_no_read"),
                             ("insert into counted values (1)", "refused_no_read"),
                             ("select * from counted for update", "refused_keyword"),
                             ("select pg_sleep(0)", "refused_function"), ("select 1; select 2", "refused_several"),
                             (f"select 1 in {values}", "refused_pieces"),
                             (pgwire.parse("", "select 1") + pgwire.bind() + pgwire.execute() + pgwire.flush(),
                              "refused_batch"),
                             (pgwire.parse("", "select 1") + pgwire.bind() + pgwire.describe("P") + pgwire.execute(),
                              "shared"),
                             (pgwire.bind("", "nowhere") + pgwire.execute(), "refused_statement")):
            before = sharing_counts(console)
            if isinstance(what, str):
                c.query(what)
            else:
                c.batch(what)
            after = sharing_counts(console)
            same(dict(after - before), {column: 1}, what)
        before = sharing_counts(console)
        c.send(query("select 1") + query("select 2"))
        same(c.results().rows + c.results().rows, [("1",), ("2",)])
        same(dict(sharing_counts(console) - before), {"refused_pieces": 1}, "the second one came behind it")


@ours
@slow(40)
def test_show_sharing_counts_who_was_queued_behind_others(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, extra="[pgsplice]\nworker_threads = 1\n")
    clients = [pooler.connect() for _ in range(8)]
    classes = [0]

    def counts():
        return next(row for row in console.table("show sharing") if row["database"] == "app")

    def crowd():
        """Nothing is queued behind a statement that a disturbed machine has made look slow: each time another one."""
        classes[0] += 1
        for _ in range(6):
            for c in clients:
                c.send(query("select 1" + " + 0" * classes[0]))
            for c in clients:
                same(c.results().rows, [("1",)])
        return int(counts()["joined"]) > 0
    with pooler.console() as console:
        same((counts()["joined"], counts()["depth_avg"], counts()["depth_max"], counts()["wait_us"]),
             ("0", "0.00", "0", "0"))
        eventually(crowd, "some were queued behind others", 30)
        row = counts()
        assert 1 <= float(row["depth_avg"]) <= int(row["depth_max"]) <= 7, row
        assert int(row["joined"]) < int(row["shared"]) and int(row["wait_us"]) > 0, row
        eventually(lambda: (counts()["servers"], counts()["queued"]) == ("0", "0"), "nothing is queued")
        same(counts()["server_limit"], "1")
        policy = next(row for row in console.table("show sharing_policy") if row["database"] == "app")
        same((policy["ceiling"], policy["server_limit"], policy["limit_now"]), ("1", "1", "1"))
    for c in clients:
        c.terminate()


@ours
def test_show_sharing_tells_the_servers_and_queries_of_this_moment(t):
    pooler = t.pooler(pool_mode="transaction", databases={"app": t.postgres.address(user="app")})
    with t.postgres.connect() as holder, pooler.connect() as c, pooler.console() as console:
        holder.query("create table if not exists held (a int)")
        holder.query("begin; lock held")
        c.send(query("select * from held"))

        def now():
            row = next(row for row in console.table("show sharing") if row["database"] == "app")
            return row["servers"], row["queued"]
        eventually(lambda: now() == ("1", "1"), "it waits for the lock")
        memory = {row["name"]: row["used"] for row in console.table("show mem")}
        same((memory["shared_exchange_cache"], memory["statement_times_cache"]), ("1", "1"))
        holder.query("commit")
        same(c.results().tags, ["SELECT 0"])
        same(now(), ("0", "0"))


@ours
def test_classes_of_all_workers_are_one_row_without_literals(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4, extra=TWO_SHARDS)
    clients = [pooler.connect() for _ in range(4)]
    with pooler.console() as console:
        for number in range(20):
            for c in clients:
                same(c.query(f"select {number} /* note */  + 0, '{number}secret'").rows[0][0], str(number))
        clients[0].query("select upper('x')")
        with refused('relation "nowhere" does not exist', "42P01", "ERROR"):
            clients[0].query("insert into nowhere values (1)")
        shards = [int(row["shared"]) for row in console.table("show sharing") if row["database"] == "app"]
        same((len(shards), sum(shards), min(shards) >= 20), (2, 81, True))
        rows = console.table("show sharing_classes")
        same([(row["database"], row["user"], row["text"], row["count"]) for row in rows],
             [("app", "app", "select ? + ?, ?", "80"), ("app", "app", "select upper(?)", "1")])
        for row in rows:
            matches("^[0-9a-f]{16}$", row["class"])
            same(row["follow"] in ("yes", "unknown", "slow", "erratic"), True)
        same(rows[1]["follow"], "unknown")
        assert int(rows[0]["mean_us"]) > 0 and int(rows[0]["floor_us"]) > 0, rows[0]
    for c in clients:
        c.terminate()


@ours
def test_more_classes_than_a_worker_tells_at_once_are_all_shown(t):
    databases = {name: t.postgres.address(name) for name in ("app", "app2")}
    pooler = t.pooler(pool_mode="transaction", databases=databases, extra="[pgsplice]\nworker_threads = 1\n")
    with pooler.console() as console:
        for name in databases:
            with pooler.connect(database=name) as c:
                for number in range(300):
                    c.value("select 1" + " + 0" * number)
        rows = console.table("show sharing_classes")
        for name in databases:
            mine = [row for row in rows if row["database"] == name]
            assert 150 < len(mine) <= 256, len(mine)  # a full one gives up those of least use
            same(len({row["class"] for row in mine}), len(mine))
        same([row["database"] for row in rows], sorted(row["database"] for row in rows))


def effective_sharing(console):
    return {row["database"]: row["server_sharing"] for row in console.table("show sharing")}


@ours
def test_show_sharing_tells_what_holds_for_each_pool(t):
    address = t.postgres.address(user="app")
    pooler = t.pooler(pool_mode="transaction", databases={"app": address, "own": f"{address} server_sharing=off",
                                                          "number": f"{address} server_sharing=3",
                                                          "sessions": f"{address} pool_mode=session"},
                      extra="[pgsplice]\nserver_sharing = 5\n")
    with pooler.connect(database="own"), pooler.connect(database="number"), \
            pooler.connect(database="sessions"), pooler.connect(), pooler.console() as console:
        same(effective_sharing(console), {"app": "5", "own": "off", "number": "3", "sessions": "off"})
        same({row["database"]: row["server_limit"] for row in console.table("show sharing")
              if row["server_sharing"] == "off"}, {"own": "0", "sessions": "0"})
        console.do("set server_sharing = auto")
        same(effective_sharing(console), {"app": "auto", "own": "off", "number": "3", "sessions": "off"})
        pooler.extra = "[pgsplice]\nserver_sharing = no\n"
        pooler.change()
        same(effective_sharing(console), {"app": "off", "own": "off", "number": "3", "sessions": "off"})
        console.do("set server_reset_query_always = 1")
        same(effective_sharing(console)["number"], "off", "servers are cleaned after each use")
        with refused("SET failed"):
            console.do("set server_sharing = sometimes")


@ours
def test_classes_of_statements_are_for_administrators(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.console(user="stats") as console:
        with refused("admin access needed", "08P01", "ERROR"):
            console.do("show sharing_classes")
        same(console.do("show sharing"), "SHOW")
    with pooler.console() as console:
        result = console.client.query("show sharing_classes")
        same((result.columns, result.tags), (CLASS_COLUMNS, ["SHOW"]))


@ours
def test_help_names_every_table(t):
    with t.pooler().console() as console:
        detail = console.client.query("show help").notices[0]["D"]
        for name in [*shows(), "SHARDS", "PREPARED", "SHARING", "SHARING_POLICY", "SHARING_CLASSES"]:
            if name.isupper() and name != "HELP":  # drivers' settings are not told
                assert re.search(rf"\b{name}\b", detail), name


def test_show_databases_tells_the_entries(t):
    pooler = t.pooler(databases={"zeta": t.postgres.address("app", pool_size=7,
                                                            pool_mode="statement"),
                                 "alpha": t.postgres.address("app2", user="other")},
                      max_db_connections=33)
    with pooler.console() as console:
        rows = {row["name"]: row for row in console.table("show databases")}
        same(list(rows), ["alpha", "pgbouncer", "zeta"])
        zeta, alpha = rows["zeta"], rows["alpha"]
        same((zeta["host"], zeta["port"], zeta["database"]),
             ("127.0.0.1", str(t.postgres.port), "app"))
        same((zeta["force_user"], zeta["pool_size"], zeta["pool_mode"]), (None, "7", "statement"))
        same((alpha["force_user"], alpha["pool_size"], alpha["pool_mode"]), ("other", "20", None))
        same((alpha["max_connections"], alpha["paused"], alpha["disabled"]), ("33", "0", "0"))


def test_show_clients_and_servers_point_at_each_other(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(application_name="seen") as c, pooler.console() as console:
        c.query("begin")
        pid = c.pid()
        client = next(r for r in console.table("show clients") if r["database"] == "app")
        server = next(r for r in console.table("show servers") if r["database"] == "app")
        same((client["type"], client["user"], client["state"], client["addr"]),
             ("C", "app", "active", "127.0.0.1"))
        same(client["port"], str(c.socket.getsockname()[1]))
        same((client["local_addr"], client["local_port"]), ("127.0.0.1", str(pooler.port)))
        same(client["application_name"], "seen")
        same((server["type"], server["user"], server["state"], server["port"]),
             ("S", "app", "active", str(t.postgres.port)))
        same(server["remote_pid"], str(pid))
        same((client["link"], server["link"]), (server["ptr"], client["ptr"]))
        matches(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+$", client["connect_time"])
        c.query("commit")
        client = next(r for r in console.table("show clients") if r["database"] == "app")
        server = next(r for r in console.table("show servers") if r["database"] == "app")
        same((client["link"], server["link"], server["state"]), ("", "", "idle"))


def test_ptr_of_a_client_is_the_one_in_the_log(t):
    pooler = t.pooler()
    with pooler.connect(), pooler.console() as console:
        client = next(r for r in console.table("show clients") if r["database"] == "app")
        found = re.search(r"C-(0x[0-9a-f]+): app/app@", pooler.log())
        same(client["ptr"], found.group(1))


@ours
def test_ids_are_unique_over_clients_and_servers(t):
    pooler = t.pooler(pool_mode="transaction")
    clients = [pooler.connect() for _ in range(4)]
    for c in clients:
        c.query("begin")
    with pooler.console() as console:
        ids = [r["id"] for r in console.table("show clients") + console.table("show servers")]
        same(len(ids), 9)
        same(len(set(ids)), 9)


def test_unix_clients_are_shown_as_unix(t):
    pooler = t.pooler()
    with pooler.connect(host=pooler.folder), pooler.console() as console:
        client = next(r for r in console.table("show clients") if r["database"] == "app")
        same((client["addr"], client["port"]), ("unix", str(pooler.port)))
        assert int(client["remote_pid"]) > 0


def test_show_stats_counts(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        def stats():
            return next(r for r in console.table("show stats") if r["database"] == "app")
        before = stats()
        for _ in range(10):
            c.query("select pg_sleep(0.001)")
        c.query("begin")
        c.query("select 1")
        c.query("commit")
        grown = {k: int(v) - int(before[k]) for k, v in stats().items() if k.startswith("total_")}
        same((grown["total_xact_count"], grown["total_query_count"]), (11, 13))
        assert grown["total_query_time"] >= 10000 and grown["total_xact_time"] >= 10000, grown
        assert grown["total_received"] > 200 and grown["total_sent"] > 200, grown


@ours
def test_show_stats_counts_logins_and_assignments(t):
    pooler = t.pooler(pool_mode="transaction")
    for _ in range(3):
        with pooler.connect() as c:
            c.query("begin; select 1; commit")
            c.query("select 1")
            c.terminate()
    with pooler.console() as console:
        row = next(r for r in console.table("show stats") if r["database"] == "app")
        same((row["total_client_login_count"], row["total_server_assignment_count"]), ("3", "6"))


def test_show_users_tells_auth_file_and_users(t):
    pooler = t.pooler(users={"other": "pool_mode=statement"})
    with pooler.console() as console:
        rows = {r["name"]: r for r in console.table("show users")}
        assert {"app", "other", "admin", "stats"} <= set(rows), rows
        same((rows["other"]["pool_mode"], rows["app"]["pool_mode"]), ("statement", None))


@ours
def test_show_lists_counts_in_the_usual_order(t):
    pooler = t.pooler()
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        rows = console.table("show lists")
        same([r["list"] for r in rows],
             ["databases", "users", "peers", "pools", "peer_pools", "free_clients", "used_clients",
              "login_clients", "free_servers", "used_servers", "dns_names", "dns_zones",
              "dns_queries",
              "dns_pending"])
        counts = {r["list"]: int(r["items"]) for r in rows}
        same((counts["databases"], counts["pools"], counts["used_clients"], counts["used_servers"]),
             (3, 2, 2, 1))


def test_show_config_tells_the_values(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=7, query_timeout=1.5,
                      server_reset_query="select 1")
    with pooler.console() as console:
        rows = {r["key"]: r for r in console.table("show config")}
        for key, value in (("pool_mode", "transaction"), ("default_pool_size", "7"),
                           ("query_timeout", "1.5"), ("server_reset_query", "select 1"),
                           ("listen_port", str(pooler.port)), ("max_client_conn", "100"),
                           ("server_idle_timeout", "600")):
            same(rows[key]["value"], value, key)
        same((rows["listen_port"]["changeable"], rows["pool_mode"]["changeable"]), ("no", "yes"))


@ours
def test_show_config_tells_the_defaults(t):
    with t.pooler().console() as console:
        rows = {r["key"]: r for r in console.table("show config")}
        for key, value in (("default_pool_size", "20"), ("pool_mode", "session"),
                           ("query_wait_timeout", "120"), ("auth_type", "md5"),
                           ("listen_port", "6432"), ("max_prepared_statements", "200")):
            same(rows[key]["default"], value, key)


# ---- numbers ------------------------------------------------------------------------------------

def counted(rows, *keys):
    return collections.Counter(tuple(row[key] for key in keys) for row in rows)


def each_way(t, **settings):
    """A pooler with two workers, clients in many states."""
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2, users={"other": "pool_size=1"},
                      extra="[pgsplice]\nworker_threads = 2\n", **settings)
    busy = [pooler.connect() for _ in range(2)] + [pooler.connect(user="other", database="app2")]
    for c in busy:
        c.query("begin")
    idle = [pooler.connect() for _ in range(3)] + [pooler.connect(database="app2")]
    idle[-1].value("select 1")
    waiting = [pooler.connect() for _ in range(2)] + [pooler.connect(user="other", database="app2")]
    for c in waiting:
        c.send(query("select 'waited'"))
    return pooler, busy, idle, waiting


@ours
def test_the_tables_agree(t):
    pooler, busy, idle, waiting = each_way(t)
    with pooler.console() as console, pooler.console(user="stats"):
        console.wait_pool(cl_active=5, cl_waiting=2, sv_active=2, sv_idle=0)
        console.wait_pool("app2", "other", cl_active=1, cl_waiting=1, sv_active=1)
        console.wait_pool("app2", "app", cl_active=1, cl_waiting=0, sv_active=0, sv_idle=1)
        console.wait_pool("pgbouncer", "pgbouncer", cl_active=2)
        pools = console.table("show pools")
        clients = console.table("show clients")
        servers = console.table("show servers")
        same(counted(clients, "database", "user", "state"), collections.Counter({
            ("app", "app", "active"): 2, ("app", "app", "idle"): 3, ("app", "app", "waiting"): 2,
            ("app2", "other", "active"): 1, ("app2", "other", "waiting"): 1,
            ("app2", "app", "idle"): 1,
            ("pgbouncer", "admin", "active"): 1, ("pgbouncer", "stats", "idle"): 1}))
        same(counted(servers, "database", "user", "state"), collections.Counter({
            ("app", "app", "active"): 2, ("app2", "other", "active"): 1,
            ("app2", "app", "idle"): 1}))
        links = {row["ptr"]: row["link"] for row in clients + servers}
        same({a: b for a, b in links.items() if b}, {b: a for a, b in links.items() if b})
        for row in pools[:-1]:
            mine = [c["state"] for c in clients
                    if (c["database"], c["user"]) == (row["database"], row["user"])]
            same((int(row["cl_active"]), int(row["cl_waiting"])),
                 (mine.count("active") + mine.count("idle"), mine.count("waiting")), str(row))
        databases = {row["name"]: row for row in console.table("show databases")}
        same({name: (row["current_connections"], row["current_client_connections"])
              for name, row in databases.items()},
             {"app": ("2", "7"), "app2": ("2", "3"), "pgbouncer": ("0", "2")})
        users = {row["name"]: row for row in console.table("show users")}
        same({name: (users[name]["current_connections"], users[name]["current_client_connections"],
                     users[name]["pool_size"]) for name in ("app", "other")},
             {"app": ("3", "8", ""), "other": ("1", "2", "        1")})
        def lists_now():
            return {row["list"]: int(row["items"]) for row in console.table("show lists")}
        # the harness's own probe may still be there
        eventually(lambda: lists_now()["login_clients"] == 0, "nobody is in login")
        lists = lists_now()
        same((lists["databases"], lists["users"], lists["pools"], lists["used_clients"],
              lists["used_servers"], lists["login_clients"]),
             (len(databases), len(users), len(pools), len(clients), len(servers), 0))
        sockets = console.table("show sockets")
        same({row["id"] for row in sockets}, {row["id"] for row in clients + servers})
        same(counted(sockets, "database", "state"), collections.Counter({
            ("app", "cl_active"): 5, ("app", "cl_waiting"): 2, ("app2", "cl_active"): 2,
            ("app2", "cl_waiting"): 1, ("app", "sv_active"): 2, ("app2", "sv_active"): 1,
            ("app2", "sv_idle"): 1, ("pgbouncer", "cl_active"): 2}))
        for c in busy:
            c.query("commit")
        for c in waiting:
            same(c.results().value(), "waited")
        console.wait_pool(cl_active=7, cl_waiting=0, sv_active=0, sv_idle=2)


@ours
def test_memory_is_what_connections_take(t):
    pooler = t.pooler(pool_mode="transaction", extra="[pgsplice]\nworker_threads = 2\n")
    with pooler.console() as console:
        def memory():
            rows = console.table("show mem")
            for row in rows:
                wanted = int(row["size"]) * (int(row["used"]) + int(row["free"]))
                same(int(row["memtotal"]), min(wanted, 2 ** 31 - 1), str(row))
            return {row["name"]: row for row in rows}
        # the harness's own probe may still be there
        eventually(lambda: memory()["client_cache"]["used"] == "0", "no client yet")
        before = memory()
        same(list(before)[:12],
             ["user_cache", "credentials_cache", "db_cache", "peer_cache", "peer_pool_cache", "pool_cache",
              "outstanding_request_cache", "server_cache", "client_cache", "iobuf_cache", "var_list_cache",
              "server_prepared_statement_cache"])
        same((before["user_cache"]["used"], before["db_cache"]["used"]), ("4", "2"))
        same(before["server_cache"]["used"], "0")
        clients = [pooler.connect() for _ in range(10)]
        for c in clients:
            c.batch(pgwire.parse("s", "select 1"))
            c.query("begin")
        during = memory()
        same((during["client_cache"]["used"], during["server_cache"]["used"]), ("10", "10"))
        assert int(during["iobuf_cache"]["memtotal"]) > 0
        same(int(during["server_prepared_statement_cache"]["used"]), 10)
        lists = {r["list"]: r["items"] for r in console.table("show lists")}
        same((lists["free_clients"], lists["free_servers"]),
             (during["client_cache"]["free"], during["server_cache"]["free"]))
        for c in clients:
            c.terminate()
        eventually(lambda: memory()["client_cache"]["used"] == "0", "clients give their memory back")
        after, lists = memory(), {r["list"]: r["items"] for r in console.table("show lists")}
        assert int(after["client_cache"]["free"]) >= 10
        same((lists["free_clients"], lists["free_servers"]),
             (after["client_cache"]["free"], after["server_cache"]["free"]))


@ours
def test_sockets_tell_what_waits_in_them(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.console() as console, pooler.connect() as reader, pooler.connect() as waiter, \
            pooler.connect(database="app2") as quiet, pooler.open() as early:
        def socket_of(client, table="sockets"):
            port = str(client.socket.getsockname()[1])
            return next((r for r in console.table(f"show {table}") if r["port"] == port and r["type"] == "C"), None)
        same({int(socket_of(quiet)[name]) for name in ("recv_pos", "pkt_pos", "pkt_remain", "send_pos",
                                                        "send_remain", "pkt_avail", "send_avail")}, {0})
        same(socket_of(quiet, "active_sockets"), None)
        # a slow reader: what its server sends waits for it, and so does the next client's query
        reader.send(query("select repeat('x', 1000) from generate_series(1, 100000)"))
        eventually(lambda: int(socket_of(reader)["send_avail"]) > 100000, "bytes wait for a slow reader")
        asked = query("select 'asked'")
        waiter.send(asked)
        eventually(lambda: socket_of(waiter)["state"] == "cl_waiting", "waits")
        same(socket_of(waiter)["pkt_avail"], str(len(asked)))
        # before its login
        early.send(pgwire.startup({"user": "app"})[:10])
        eventually(lambda: int(socket_of(early)["pkt_avail"]) == 10, "ten bytes of a startup packet")
        row = socket_of(early)
        same((row["state"], row["user"], row["database"]), ("cl_login", "(nouser)", "(nodb)"))
        active = console.table("show active_sockets")
        assert all(int(row["pkt_avail"]) + int(row["send_avail"]) > 0 for row in active), active
        for client in (reader, waiter, early):
            assert socket_of(client, "active_sockets") is not None
        same(len(reader.results().rows), 100000)
        same(waiter.results().value(), "asked")
        # in the middle of a message
        insert = query("select length('" + "y" * 40000 + "')")
        quiet.send(insert[:1000])
        eventually(lambda: int(socket_of(quiet)["pkt_remain"]) + int(socket_of(quiet)["pkt_avail"]) > 0, "half a message")
        quiet.send(insert[1000:])
        same(quiet.results().value(), "40000")
        same(socket_of(quiet)["pkt_remain"], "0")


@ours
@slow(30)
def test_statistics_agree(t):
    pooler = t.pooler(pool_mode="transaction", stats_period=1)
    clients = [pooler.connect(), pooler.connect(database="app2")]
    with pooler.console() as console:
        def averages():
            return {row["database"]: row for row in console.table("show stats")}

        def work():
            for c in clients:
                c.query("select 1")
                c.batch(pgwire.parse("", "select 2") + pgwire.bind() + pgwire.execute())
            return all(int(averages()[name]["avg_query_count"]) > 0 for name in ("app", "app2"))
        eventually(work, "an average", 5)
        # one table after the other: taken again until no period ended in between
        def taken():
            before = console.table("show stats")
            rest = [console.table(f"show {name}") for name in ("stats_totals", "stats_averages", "totals")]
            return console.table("show stats") == before and (before, *rest)
        stats, totals, means, sums = eventually(taken, "one moment")
        for row, total, mean in zip(stats, totals, means, strict=True):
            values = list(row.values())
            same(values[:13], list(total.values()))
            same(values[:1] + values[13:], list(mean.values()))
        wanted = [sum(int(list(row.values())[i]) for row in stats) for i in range(1, 13)]
        same([int(row["value"]) for row in sums][:12], wanted)
        same([row["name"] for row in sums],
             [f"{kind}_{name}" for kind in ("total", "avg") for name in
              ("server_assignment_count", "xact_count", "query_count", "client_bytes", "server_bytes",
               "xact_time", "query_time", "wait_time", "ps_client_parse_count", "ps_server_parse_count",
               "ps_bind_count", "client_login_count")])
        per_second = [int(row["value"]) for row in sums][12:]
        for i in (1, 2):
            assert abs(per_second[i] - sum(int(list(row.values())[13 + i]) for row in stats)) <= 2, sums


@ours
def test_statistics_of_statements_and_bytes(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as other, pooler.console() as console:
        def row():
            found = next(r for r in console.table("show stats") if r["database"] == "app")
            return {key: int(value) for key, value in found.items() if key != "database"}
        before = row()
        sent = 0
        for client in (c, other):
            for data in (pgwire.parse("s", "select 1 as one"), pgwire.bind("", "s") + pgwire.execute(),
                         pgwire.bind("", "s") + pgwire.execute()):
                sent += len(data) + len(pgwire.sync())
                client.batch(data)
        grown = {key: value - before[key] for key, value in row().items()}
        same((grown["total_client_parse_count"], grown["total_server_parse_count"], grown["total_bind_count"]), (2, 1, 4))
        same((grown["total_query_count"], grown["total_xact_count"], grown["total_server_assignment_count"]), (6, 6, 6))
        same((grown["total_received"], grown["total_client_login_count"]), (sent, 0))
        c.query("begin")
        before = row()
        other.send(query("select 1"))
        console.wait_pool(cl_waiting=1)
        eventually(lambda: int(console.pool()["maxwait_us"]) > 60000, "it has waited")
        c.query("commit")
        other.results()
        grown = row()["total_wait_time"] - before["total_wait_time"]
        assert 60000 <= grown < 5000000, grown


@ours
def test_show_config_has_the_order_of_the_page(t):
    with t.pooler().console() as console:
        keys = [row["key"] for row in console.table("show config")]
        wanted = [row["setting"] for row in tables.rows("settings")]
        same(keys[:len(wanted)], wanted)
        rows = {row["key"]: row for row in console.table("show config")}
        same((rows["unix_socket_mode"]["value"], rows["auth_query"]["default"] is not None), ("511", True))
        same((rows["verbose"]["value"], rows["user"]["value"], rows["user"]["default"]), ("0", None, None))


@ours
def test_show_state_tells_of_everything_only(t):
    with t.pooler().console() as console:
        def state():
            return [(r["key"], r["value"]) for r in console.table("show state")]
        running = [("active", "yes"), ("paused", "no"), ("suspended", "no")]
        same(state(), running)
        console.do("pause app")
        same(state(), running)
        console.do("resume app")
        console.do("pause")
        same(state(), [("active", "no"), ("paused", "yes"), ("suspended", "no")])
        console.do("resume")
        console.do("suspend")
        same(state(), [("active", "no"), ("paused", "no"), ("suspended", "yes")])
        console.do("resume")
        same(state(), running)


# ---- rights -------------------------------------------------------------------------------------

@command_row("(rights)")
def test_strangers_are_not_allowed(t):
    pooler = t.pooler()
    with refused("not allowed", "08P01", "FATAL"):
        pooler.console(user="app")


def test_strangers_are_turned_away_before_any_password(t):
    pooler = t.pooler(auth_type="md5", userlist={"app": "secret", "admin": "secret"})
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "pgbouncer"}))
        same([m.type for m in c.closed()], ["E"])


def test_admins_need_their_password(t):
    pooler = t.pooler(auth_type="md5", userlist={"admin": "secret"})
    with refused("password authentication failed"):
        pooler.console(password="wrong")
    with pooler.console(password="secret") as console:
        same(console.do("show version"), "SHOW")


def test_stats_users_may_look_and_not_touch(t):
    pooler = t.pooler()
    with pooler.connect() as c, pooler.console(user="stats") as console:
        for command in ("show pools", "show clients", "show config", "show stats",
                        "show databases"):
            same(console.do(command), "SHOW")
        for command in ("reload", "pause", "pause app", "resume", "shutdown"):
            with refused("admin access needed", "08P01", "ERROR"):
                console.do(command)
        same(c.value("select 1"), "1")


@ours
def test_stats_users_may_not_kill_or_set(t):
    pooler = t.pooler()
    with pooler.connect() as c, pooler.console(user="stats") as console:
        ident = next(r["id"] for r in console.table("show clients") if r["database"] == "app")
        for command in ("shutdown wait_for_clients", f"kill_client {ident}", "kill", "kill app",
                        "disable app", "suspend",
                        "reconnect", "set default_pool_size = 1"):
            with refused("admin access needed|invalid command .*", "08P01", "ERROR"):
                console.do(command)
        same(c.value("select 1"), "1")


def test_any_user_may_look_with_auth_type_any(t):
    pooler = t.pooler(auth_type="any", databases={"app": t.postgres.address(user="app")})
    with pooler.console(user="whoever") as console:
        same(console.do("show pools"), "SHOW")
        with refused("admin access needed"):
            console.do("reload")


@ours
def test_listed_users_keep_their_rights_with_auth_type_any(t):
    pooler = t.pooler(auth_type="any", databases={"app": t.postgres.address(user="app")})
    with pooler.console(user="admin") as console:
        same(console.do("reload"), "RELOAD")
    for user in ("stats", "nobody_we_know"):
        with pooler.console(user=user) as console:
            same(console.do("show lists"), "SHOW")
            for command in ("reload", "show fds", "pause"):
                with refused("admin access needed", "08P01", "ERROR"):
                    console.do(command)


def test_owner_of_the_process_is_admin_on_the_unix_socket(t):
    pooler = t.pooler(auth_type="md5", admin_users="", userlist={"app": "x"})
    done = subprocess.run(["psql", "-XAt", "-h", pooler.folder, "-p", str(pooler.port), "-U",
                           "pgbouncer",
                           "pgbouncer", "-c", "show version", "-c", "reload"], capture_output=True,
                          text=True, cwd="/", timeout=10, **as_os_user())
    same(done.returncode, 0, done.stderr)
    assert "RELOAD" in done.stdout, done.stdout


@command_row("(protocol)", "unsupported packet type for admin console: NUMBER")
@ours
def test_unknown_messages_end_the_console_session(t):
    pooler = t.pooler()
    for message, number in ((pgwire.function_call(1, []), 70), (pgwire.copy_data(b"x"), 100),
                            (pgwire.message("p", b"x\0"), 112)):
        with pooler.console() as console:
            console.client.send(message)
            found = console.client.closed()
            same("".join(m.type for m in found), "EZE")
            first, last = found[0].error(), found[2].error()
            same((first.severity, first.sqlstate, first.text),
                 ("ERROR", "08P01", f"unsupported packet type for admin console: {number}"))
            same((last.severity, last.sqlstate, last.text), ("FATAL", "08P01", "bad packet"))
    with pooler.console() as console:
        same(console.do("show version"), "SHOW")


# ---- RELOAD -------------------------------------------------------------------------------------

def test_reload_applies_settings_and_drops_nobody(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as second, pooler.console() as console:
        c.query("begin")
        pid = c.pid()
        second.send(query("select 'waited'"))
        console.wait_pool(cl_waiting=1)
        pooler.change(default_pool_size=2)
        same(second.results().value(), "waited")
        same(c.pid(), pid)
        c.query("commit")
        same(console.config("default_pool_size"), "2")
    pooler.wait_log("RELOAD command issued")


def test_reload_adds_and_changes_databases(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        same(c.value("select current_database()"), "app")
        pooler.databases["fresh"] = t.postgres.address("app2")
        pooler.write()
        pooler.reload()
        with pooler.connect(database="fresh") as fresh:
            same(fresh.value("select current_database()"), "app2")
        same(c.value("select 1"), "1")


def test_reload_removes_databases_with_their_clients(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(database="app2") as gone, pooler.connect() as stays:
        gone.value("select 1")
        del pooler.databases["app2"]
        pooler.write()
        pooler.reload()
        same(gone.fatal().text, "database removed")
        same(stays.value("select 1"), "1")


def test_reload_retires_servers_of_a_changed_entry(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.connect() as busy:
        busy.query("begin")
        pid = busy.pid()
        c.value("select 1")
        pooler.databases["app"] = t.postgres.address("app", host="::1")
        pooler.write()
        pooler.reload()
        same(c.value("select host(inet_server_addr())"), "::1")
        same(busy.pid(), pid)
        busy.query("commit")
        eventually(lambda: pid not in t.postgres.backends(), "the old server was closed")


def test_settings_gone_from_the_file_return_to_their_default(t):
    pooler = t.pooler(default_pool_size=3)
    pooler.change(default_pool_size=None)
    with pooler.console() as console:
        same(console.config("default_pool_size"), "20")


def test_restart_only_settings_do_not_change(t):
    pooler = t.pooler()
    port = pooler.port
    pooler.change(listen_port=port + 1)
    with pooler.console() as console:
        same(console.config("listen_port"), str(port))
    pooler.usable()


MISTAKES = {"unknown_setting": ("no_such_setting", "1"),
            "text_for_a_number": ("query_timeout", "abc"),
            "unknown_word": ("pool_mode", "sometimes")}


def make_mistake(name, key, value):
    @ours
    def test(t):
        pooler = t.pooler(pool_mode="transaction", default_pool_size=3)
        with pooler.connect() as c, pooler.console() as console:
            c.query("begin")
            before = {r["key"]: r["value"] for r in console.table("show config")}
            pooler.databases["extra"] = t.postgres.address("app2")
            pooler.change(reload=False, default_pool_size=9, max_client_conn=77, **{key: value})
            with refused("RELOAD failed, see logs for additional details", "F0000", "ERROR"):
                console.do("reload")
            same({r["key"]: r["value"] for r in console.table("show config")}, before)
            same([r["name"] for r in console.table("show databases")], ["app", "app2", "pgbouncer"])
            same(c.value("select 1"), "1")
            with refused("no such database: extra"):
                pooler.connect(database="extra")
        pooler.wait_log(r"pooler\.ini:\d+")
    test.__name__ = f"test_reload_with_{name}_changes_nothing"
    return test


for _name, (_key, _value) in MISTAKES.items():
    _test = make_mistake(_name, _key, _value)
    globals()[_test.__name__] = _test


@ours
def test_reload_with_a_broken_entry_changes_nothing(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        pooler.databases["app"] = "host=127.0.0.1 port=abc"
        pooler.change(reload=False, default_pool_size=9)
        with refused(sqlstate="F0000"):
            console.do("reload")
        same(console.config("default_pool_size"), "20")
        same(c.value("select 1"), "1")


@ours
def test_reload_of_a_missing_file_changes_nothing(t):
    pooler = t.pooler()
    with pooler.console() as console:
        os.rename(pooler.ini, pooler.ini + ".away")
        with refused(sqlstate="F0000"):
            console.do("reload")
        os.rename(pooler.ini + ".away", pooler.ini)
        same(console.do("reload"), "RELOAD")
    pooler.usable()


@ours
def test_reload_repairs_after_a_mistake(t):
    pooler = t.pooler()
    pooler.change(reload=False, pool_mode="nonsense")
    with pooler.console() as console:
        with refused(sqlstate="F0000"):
            console.do("reload")
        pooler.change(pool_mode="transaction")
        same(console.config("pool_mode"), "transaction")


def test_many_reloads_under_load_lose_nothing(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2)
    clients = [pooler.connect() for _ in range(5)]
    with pooler.console() as console:
        for i in range(30):
            for j, c in enumerate(clients):
                c.send(query(f"select {i * 10 + j}"))
            same(console.do("reload"), "RELOAD")
            for j, c in enumerate(clients):
                same(c.results().value(), str(i * 10 + j))


# ---- PAUSE and RESUME ---------------------------------------------------------------------------

def test_pause_waits_for_the_active_and_resume_goes_on(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as busy, pooler.connect() as other, pooler.console() as console, \
            pooler.console() as second:
        busy.query("begin")
        console.client.send(query("pause"))
        pooler.wait_log("PAUSE command issued")
        assert console.client.silent_for(0.1), "PAUSE did not wait"
        other.send(query("select 'held'"))
        second.wait_pool(cl_waiting=1)
        same(busy.value("select 1"), "1")
        busy.query("commit")
        same(console.client.results().tags, ["PAUSE"])
        assert other.silent_for(0.1), "a query ran during PAUSE"
        eventually(lambda: not t.postgres.backends(), "the servers are closed")
        same(second.do("resume"), "RESUME")
        same(other.results().value(), "held")
    pooler.wait_log("RESUME command issued")


def test_pause_closes_idle_servers_at_once(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        same(console.do("pause"), "PAUSE")
        eventually(lambda: not t.postgres.backends(), "the server is closed")
        pooler.wait_log("closing because: pause mode")
        same(console.do("resume"), "RESUME")
        same(c.value("select 2"), "2")


def test_pause_twice_and_resume_twice_are_errors(t):
    with t.pooler().console() as console:
        with refused("pooler is not paused/suspended", "08P01", "ERROR"):
            console.do("resume")
        same(console.do("pause"), "PAUSE")
        with refused("already suspended/paused", "08P01", "ERROR"):
            console.do("pause")
        same(console.do("resume"), "RESUME")
        with refused("pooler is not paused/suspended"):
            console.do("resume")


def test_pause_of_one_database_leaves_the_others(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as held, pooler.connect(database="app2") as free, \
            pooler.console() as console:
        held.value("select 1")
        same(console.do("pause app"), "PAUSE")
        held.send(query("select 'held'"))
        same(free.value("select 'free'"), "free")
        assert held.silent_for(0.1)
        rows = {r["name"]: r["paused"] for r in console.table("show databases")}
        same((rows["app"], rows["app2"]), ("1", "0"))
        same(console.do("resume app"), "RESUME")
        same(held.results().value(), "held")
    pooler.wait_log("PAUSE 'app' command issued")


def test_pause_and_resume_of_a_database_name_their_mistakes(t):
    with t.pooler().console() as console:
        for command, text in (("pause missing", "no such database: missing"),
                              ("resume missing", "no such database: missing"),
                              ("pause pgbouncer", "cannot pause admin db: pgbouncer"),
                              ("resume app", "database app is not paused")):
            with refused(re.escape(text), "08P01", "ERROR"):
                console.do(command)


def test_clients_log_in_while_paused_with_a_known_welcome(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        same(console.do("pause"), "PAUSE")
        with pooler.connect() as late:
            late.send(query("select 'late'"))
            assert late.silent_for(0.1)
            same(console.do("resume"), "RESUME")
            same(late.results().value(), "late")


def test_pause_counts_towards_query_wait_timeout(t):
    pooler = t.pooler(pool_mode="transaction", query_wait_timeout=0.5)
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        console.do("pause")
        c.send(query("select 1"))
        same(c.fatal(3).text, "query_wait_timeout")
        console.do("resume")
    pooler.usable()


def test_pause_in_session_mode_waits_for_the_session(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        console.client.send(query("pause"))
        assert console.client.silent_for(0.15)
        same(c.value("select 2"), "2")
        c.terminate()
        same(console.client.results().tags, ["PAUSE"])


# ---- SHUTDOWN -----------------------------------------------------------------------------------

def test_shutdown_ends_at_once(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        c.query("begin")
        started = time.monotonic()
        console.client.send(query("shutdown"))
        console.client.closed()
        same(pooler.wait_exit(), 0)
        within(started, 0, 2, "SHUTDOWN")
        c.closed()
    pooler.wait_log("SHUTDOWN command issued")


@ours
def test_shutdown_wait_for_clients_waits_for_them(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        with pooler.console() as console:
            same(console.do("shutdown wait_for_clients"), "SHUTDOWN")
            console.client.terminate()

        def refuses():
            try:
                pooler.open().vanish()
                return False
            except OSError:
                return True
        eventually(refuses, "the TCP listener is closed")
        same(c.value("select 'still served'"), "still served")
        assert pooler.runs()
        c.terminate()
        same(pooler.wait_exit(), 0)
    pooler.wait_log("SHUTDOWN WAIT_FOR_CLIENTS command issued")
    pooler.wait_log("client connections dropped, exiting")


@ours
def test_shutdown_wait_for_servers_lets_transactions_end(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as busy, pooler.connect() as waiter, pooler.console() as console:
        busy.query("begin")
        waiter.send(query("select 1"))
        console.wait_pool(cl_waiting=1)
        same(console.do("shutdown wait_for_servers"), "SHUTDOWN")
        same(waiter.fatal().text, "server shutting down")
        same(busy.value("select 1"), "1")
        same(busy.query("commit").tags, ["COMMIT"])
        same(pooler.wait_exit(), 0)
    pooler.wait_log("server connections dropped, exiting")


@ours
def test_logins_are_refused_while_shutting_down(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        same(console.do("shutdown wait_for_clients"), "SHUTDOWN")
        with refused("pooler is shutting down", "08P01", "FATAL"):
            pooler.connect(host=pooler.folder)
        with pooler.console(host=pooler.folder) as late:
            same(late.do("show version"), "SHOW")
            with refused("pooler is shutting down"):
                late.do("resume")
        c.terminate()
        console.client.terminate()
        same(pooler.wait_exit(), 0)


@ours
def test_second_signal_ends_a_shutdown_at_once(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        c.query("begin")
        same(console.do("shutdown wait_for_clients"), "SHUTDOWN")
        pooler.signal(signal.SIGTERM)
        same(pooler.wait_exit(), 0)
    pooler.wait_log("got SIGTERM while shutting down, fast exit")


def test_unknown_shutdown_word_is_an_invalid_command(t):
    with t.pooler().console() as console:
        with refused("invalid command 'shutdown wait_for_rain', use SHOW HELP;"):
            console.do("shutdown wait_for_rain")
        same(console.do("show version"), "SHOW")


# ---- the page of commands, row by row -----------------------------------------------------------

class Steps:
    """What a row of admin_commands.tsv says, tried one after the other; errors are those of
    errors.tsv, and the session goes on after each."""

    def __init__(self, console):
        self.console = console

    def tag(self, command, tag=None):
        same(self.console.do(command), tag or command.split()[0].upper(), command)

    def error(self, command, text, name="", sqlstate="08P01"):
        wanted = text.replace("NAME", name).replace("TEXT", command)
        with refused(re.escape(wanted), sqlstate, "ERROR"):
            self.console.do(command)
        same(self.console.do("show version"), "SHOW", command)


INVALID = "invalid command 'TEXT', use SHOW HELP;"
NO_DATABASE = "no such database: NAME"
PAUSED = "already suspended/paused"


@ours
@command_row("(any)", INVALID, "bad arguments")
def test_grammar(t):
    with t.pooler().console() as console:
        steps = Steps(console)
        for command in ("nonsense", "show pools clients", "show pools; show pools", "/* c */ show pools",
                        "show pools -- c", "'show' pools", "\"show\" pools", "pause a.b", "show.pools", "begin"):
            steps.error(command, INVALID)
        steps.error("a" * 15, INVALID)
        steps.error("a" * 16, "bad arguments")
        steps.error("pause " + "d" * 63, NO_DATABASE, "d" * 63)
        steps.error("pause " + "d" * 64, "bad arguments")
        steps.error('pause "a b\'""c;"', NO_DATABASE, 'a b\'"c;')
        steps.error('pause ""', "bad arguments")
        steps.tag(f"set syslog_ident = '{'v' * 255}'", f"SET syslog_ident={'v' * 255}")
        steps.error(f"set syslog_ident = '{'v' * 256}'", "bad arguments")
        for command in ("", " ", ";", " ; \n"):
            same(console.client.query(command).types, "IZ")


@ours
@command_row("(any)")
def test_errors_of_the_console_stand_twice_in_the_log(t):
    pooler = t.pooler()
    with pooler.console() as console:
        Steps(console).error("nonsense", INVALID)
        pooler.wait_log(r"ERROR .*C-0x[0-9a-f]+: pgbouncer/admin@.* invalid command 'nonsense'")
        pooler.wait_log(r"WARNING .*C-0x[0-9a-f]+: .*pooler error: invalid command 'nonsense'")


@command_row("(rights)", "admin access needed")
@ours
def test_each_command_needs_its_rights(t):
    pooler = t.pooler()
    with pooler.connect() as c, pooler.console(user="stats") as console:
        steps = Steps(console)
        for row in tables.rows("admin_commands"):
            command = re.split(";| or ", row["grammar"])[0].replace("NUMBER", "1").replace("WORD = VALUE", "pool_mode = session")
            command = command.replace("[WORD]", "").replace("WORD", "app").strip()
            if row["who"] == "admin" and not row["command"].startswith("("):
                steps.error(command, "admin access needed")
        steps.error("show fds", "admin access needed")
        for name in shows():
            if name != "FDS":
                steps.tag(f"show {name}")
        same(c.value("select 1"), "1")


@ours
@command_row("SHOW x", INVALID)
def test_show_and_select(t):
    with t.pooler().console() as console:
        steps = Steps(console)
        for command in ("show", "select", "show nothing", "select 1", "select version()", "show pool"):
            steps.error(command, INVALID)
        for command in ("show pools", "select pools", "SELECT POOLS;", 'show "pools"'):
            steps.tag(command, "SHOW")


DRIVERS_SETTINGS = {"client_encoding": "UTF-8", "default_transaction_isolation": "read committed",
                    "standard_conforming_strings": "on", "datestyle": "ISO", "timezone": "GMT"}


@ours
@command_row("SHOW/SET of driver settings", "SET failed", INVALID)
def test_settings_of_drivers_are_shown_and_not_set(t):
    pooler = t.pooler()
    with pooler.console(user="stats") as console:
        for name, value in DRIVERS_SETTINGS.items():
            same(console.client.value(f"show {name}"), value)
            for how in (f"set {name} = 'x'", f"SET {name.upper()} TO x", f"set {name} to ''"):
                result = console.client.query(how)
                same((result.types, result.tags), ("NCZ", ["SET"]))
                same([result.notices[0][k] for k in "SCM"], ["NOTICE", "00000", "SET ignored"])
            same(console.client.value(f"show {name}"), value)
    with pooler.console() as console:
        steps = Steps(console)
        steps.error("set server_version = x", "SET failed")
        steps.error("set search_path = x", "SET failed")
        for name in ("application_name", "extra_float_digits", "server_version", "search_path"):
            steps.error(f"show {name}", INVALID)


@ours
@command_row("SET", "SET failed", INVALID)
def test_set_changes_one_setting_until_reload(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.console() as console:
        steps = Steps(console)
        steps.tag("set pool_mode = transaction", "SET pool_mode=transaction")
        same(console.config("pool_mode"), "transaction")
        steps.tag("SET query_timeout TO '1.5'", "SET query_timeout=1.5")
        same(console.config("query_timeout"), "1.5")
        steps.tag("set default_pool_size=7;", "SET default_pool_size=7")
        same(console.config("default_pool_size"), "7")
        steps.tag("set server_reset_query = 'it''s'", "SET server_reset_query=it's")
        same(console.config("server_reset_query"), "it's")
        steps.tag(f"set listen_port = {pooler.port + 1}", f"SET listen_port={pooler.port + 1}")
        same(console.config("listen_port"), str(pooler.port), "needs a restart")
        for command in ("set nothing = 1", "set pool_mode = sometimes", "set default_pool_size = 'x'"):
            steps.error(command, "SET failed")
        for command in ("set", "set pool_mode", "set pool_mode session", "set query_timeout = 1.5",
                        "set query_timeout = -1", "set pool_mode = session session", "set = 1", "set pool_mode ="):
            steps.error(command, INVALID)
        steps.tag("reload")
        same((console.config("pool_mode"), console.config("query_timeout"),
              console.config("default_pool_size")), ("session", "0", "20"))


@ours
@command_row("RELOAD", "RELOAD failed, see logs for additional details", INVALID)
def test_reload_row(t):
    pooler = t.pooler()
    with pooler.console() as console:
        steps = Steps(console)
        steps.tag("reload")
        steps.error("reload x", INVALID)
        pooler.change(reload=False, pool_mode="sometimes")
        steps.error("reload", "RELOAD failed, see logs for additional details", sqlstate="F0000")
        steps.error("reload x", INVALID)


@ours
@command_row("PAUSE", PAUSED)
@command_row("PAUSE db", PAUSED, NO_DATABASE, "cannot pause admin db: NAME")
@command_row("RESUME", "pooler is not paused/suspended")
@command_row("RESUME db", NO_DATABASE, "database NAME is not paused")
def test_pause_and_resume_rows(t):
    with t.pooler().console() as console:
        steps = Steps(console)
        steps.error("resume", "pooler is not paused/suspended")
        steps.error("pause missing", NO_DATABASE, "missing")
        steps.error("resume missing", NO_DATABASE, "missing")
        steps.error("pause pgbouncer", "cannot pause admin db: NAME", "pgbouncer")
        steps.error("resume app", "database NAME is not paused", "app")
        steps.tag("pause app")
        steps.tag("pause app")
        steps.error("resume", "pooler is not paused/suspended")
        steps.tag("pause")
        for command in ("pause", "pause app", "pause app2"):
            steps.error(command, PAUSED)
        steps.tag("resume")
        steps.tag("resume app")
        steps.error("resume app", "database NAME is not paused", "app")


@ours
@command_row("RESUME", "pooler is shutting down")
def test_resume_while_shutting_down(t):
    pooler = t.pooler()
    with pooler.connect(), pooler.console() as console:
        steps = Steps(console)
        steps.tag("shutdown wait_for_clients")
        steps.error("resume", "pooler is shutting down")


@ours
@command_row("SUSPEND", PAUSED, "cannot suspend with paused databases", INVALID)
def test_suspend_row(t):
    with t.pooler().console() as console:
        steps = Steps(console)
        steps.error("suspend app", INVALID)
        steps.tag("pause app")
        steps.error("suspend", "cannot suspend with paused databases")
        steps.tag("resume app")
        steps.tag("suspend")
        for command in ("suspend", "pause", "pause app", "kill", "kill app"):
            steps.error(command, PAUSED)
        steps.tag("resume")
        steps.tag("pause")
        steps.error("suspend", PAUSED)
        steps.tag("resume")


@ours
@command_row("DISABLE db", "a database is required", NO_DATABASE, "cannot disable admin db: NAME")
@command_row("ENABLE db", "a database is required", NO_DATABASE, "cannot enable admin db: NAME")
def test_disable_and_enable_rows(t):
    pooler = t.pooler()
    with pooler.connect() as c, pooler.console() as console:
        steps = Steps(console)
        for word in ("disable", "enable"):
            steps.error(word, "a database is required")
            steps.error(f"{word} missing", NO_DATABASE, "missing")
            steps.error(f"{word} pgbouncer", f"cannot {word} admin db: NAME", "pgbouncer")
        steps.tag("disable app")
        same({r["name"]: r["disabled"] for r in console.table("show databases")},
             {"app": "1", "app2": "0", "pgbouncer": "0"})
        with refused('database "app" is disabled', "08P01", "FATAL"):
            pooler.connect()
        same(c.value("select 'goes on'"), "goes on")
        steps.tag("enable app")
        pooler.usable()


@ours
@command_row("RECONNECT", NO_DATABASE, "cannot reconnect admin db: NAME")
@command_row("WAIT_CLOSE", NO_DATABASE, "cannot wait in admin db: NAME")
def test_reconnect_and_wait_close_rows(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.connect(database="app2") as other, pooler.console() as console:
        steps = Steps(console)
        for word, what in (("reconnect", "reconnect"), ("wait_close", "wait in")):
            steps.error(f"{word} missing", NO_DATABASE, "missing")
            steps.error(f"{word} pgbouncer", f"cannot {what} admin db: NAME", "pgbouncer")
            steps.tag(word)
        pids = c.pid(), other.pid()
        steps.tag("reconnect app")
        steps.tag("wait_close app")
        assert c.pid() != pids[0]
        same(other.pid(), pids[1])


@ours
@command_row("KILL", PAUSED)
@command_row("KILL db", NO_DATABASE, PAUSED, "cannot kill admin db: NAME")
def test_kill_rows(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.connect(database="app2") as other, pooler.console() as console:
        steps = Steps(console)
        steps.error("kill missing", NO_DATABASE, "missing")
        steps.error("kill pgbouncer", "cannot kill admin db: NAME", "pgbouncer")
        steps.tag("pause")
        steps.error("kill", PAUSED)
        steps.error("kill app", PAUSED)
        steps.tag("resume")
        steps.tag("kill app")
        same(c.fatal().text, "database removed")
        same(other.value("select 1"), "1")
        steps.tag("kill")
        same(other.fatal().text, "database removed")
        same({r["name"]: r["paused"] for r in console.table("show databases")},
             {"app": "1", "app2": "1", "pgbouncer": "0"})
        steps.error("resume", "pooler is not paused/suspended")
        steps.tag("resume app")
        steps.tag("resume app2")
        pooler.usable()


@plain
@ours
@command_row("KILL_CLIENT", "invalid client pointer supplied", "client not found")
def test_kill_client_row(t):
    pooler = t.pooler()
    with pooler.connect() as c, pooler.connect() as other, pooler.open() as early, pooler.console() as console:
        steps = Steps(console)
        row = next(r for r in console.table("show clients")
                   if r["database"] == "app" and r["port"] == str(c.socket.getsockname()[1]))
        for wrong in ("", "abc", "-", "12x", row["ptr"] if not row["ptr"].isdigit() else "0x"):
            steps.error(f"kill_client {wrong}" if wrong != "-" else 'kill_client "-1"',
                        "invalid client pointer supplied")
        steps.error("kill_client 999999", "client not found")
        early.send(pgwire.ssl_request())
        same(early.raw(1), b"N")
        login = next(r for r in console.table("show sockets") if r["state"] == "cl_login")
        steps.error(f"kill_client {login['id']}", "client not found")
        steps.tag(f"kill_client {row['id']}")
        killed = c.fatal()
        same((killed.text, killed.sqlstate, killed.severity), ("admin forced disconnect", "08P01", "FATAL"))
        same(other.value("select 1"), "1")


@ours
@command_row("SHUTDOWN")
def test_shutdown_answers_nothing(t):
    pooler = t.pooler()
    with pooler.console() as console:
        console.client.send(query("shutdown"))
        same(console.client.closed(), [])
        same(pooler.wait_exit(), 0)


@ours
@command_row("SHUTDOWN WAIT_FOR_SERVERS", INVALID)
@command_row("SHUTDOWN WAIT_FOR_CLIENTS", INVALID)
def test_shutdown_waits_row(t):
    for how in ("wait_for_servers", "wait_for_clients"):
        pooler = t.pooler()
        with pooler.connect() as c, pooler.console() as console:
            c.query("begin")
            steps = Steps(console)
            steps.error("shutdown wait_for_rain", INVALID)
            steps.error("shutdown now", INVALID)
            steps.tag(f"shutdown {how}")
            with refused("pooler is shutting down"):
                console.do(f"shutdown {how}")
            with pooler.console(host=pooler.folder) as late:
                same(late.do("show version"), "SHOW")
                late.client.terminate()
            c.query("commit")
            c.terminate()
            console.client.terminate()
            same(pooler.wait_exit(), 0)


@command_row("(cancel request)")
@ours
def test_cancel_of_an_administrators_session_ends_pause(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console, pooler.console(user="stats") as stats:
        def paused():
            return {r["key"]: r["value"] for r in console.table("show state")}["paused"] == "yes"
        c.query("begin")
        console.client.send(query("pause"))
        pooler.wait_log("PAUSE command issued")
        same(pooler.cancel(stats.client.key), [])
        same(c.value("select 1"), "1")
        assert console.client.silent_for(0.05), "PAUSE was ended with the key of a stats user"
        same(pooler.cancel(console.client.key), [])
        same(console.client.results().tags, ["PAUSE"])
        eventually(lambda: not paused(), "no more PAUSE")
        c.query("commit")
        same(console.do("pause"), "PAUSE")
        assert paused()
        pooler.cancel(console.client.key)
        eventually(lambda: not paused(), "no more PAUSE")


@ours
def test_each_row_of_the_commands_page_has_a_test(t):
    """And each error that it names, but the one that is meant to be missing (test_console_extended)."""
    errors = [row["text"] for row in tables.rows("errors")
              if "console" in row["when"] and row["severity"] == "ERROR" and
              not row["text"].startswith("extended query protocol")]
    for row in tables.rows("admin_commands"):
        command = row["command"]
        assert command in COVERED, f"no test covers {command}"
        for text in errors:
            said = text.split(" 'TEXT'")[0].replace("NAME", "DB")
            if said in row["errors"]:
                assert text in COVERED[command], f"no test of {command} covers {text!r}"
