"""What dashboards are made of: the exporter that Debian packages, the queries of others, psql in a
script. Their numbers are those of SHOW, and SHOW's those of what clients did."""

import csv
import os
import re
import socket
import subprocess
import urllib.request

from harness import Skip, as_os_user, covers, eventually, free_port, ours, same, slow
from pgwire import query

EXPORTER = "/usr/bin/prometheus-pgbouncer-exporter"
OLD_COLUMNS = "[pgsplice]\nconsole_old_columns = 1\n"


# ---- Debian's exporter --------------------------------------------------------------------------

class Exporter:
    """prometheus-pgbouncer-exporter 1.7, unchanged."""

    def __init__(self, t, pooler, *arguments):
        if not os.path.exists(EXPORTER):
            raise Skip("prometheus-pgbouncer-exporter is not installed")
        self.port = free_port(t.slot)
        self.log = os.path.join(t.folder, "exporter.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [EXPORTER, "--host", "127.0.0.1", "--port", str(self.port), "--pgbouncer-port",
                 str(pooler.port), "--pgbouncer-host", "127.0.0.1", "--pgbouncer-user", "stats",
                 *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

        def listens():
            assert self.process.poll() is None, f"the exporter ended: {self.said()[-1500:]}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        eventually(listens, "the exporter listens", 10)

    def said(self):
        with open(self.log, errors="replace") as file:
            return file.read()

    def scrape(self):
        """{(name, labels): value}; every line of the answer must be understood."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            same(answer.status, 200)
            found = {}
            for line in answer.read().decode().splitlines():
                if line.startswith("#"):
                    continue
                name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
                pairs = tuple(re.findall(r'(\w+)="([^"]*)"', labels or ""))
                found[name, pairs] = float(value)
            return found

    def end(self):
        self.process.terminate()
        self.process.wait(5)
        assert "Traceback" not in self.said(), self.said()[-1500:]


def expected(console):
    """What the exporter makes of the tables, as its documentation names it."""
    found = {}
    for row in console.table("show stats"):
        of = (("database", row["database"]),)
        for name, column in (("requests_total", "total_query_count"),
                             ("received_bytes_total", "total_received"),
                             ("sent_bytes_total", "total_sent"),
                             ("query_microseconds_total", "total_query_time")):
            found[f"pgbouncer_{name}", of] = float(row[column])
    for row in console.table("show pools"):
        of = (("database", row["database"]), ("user", row["user"]))
        found["pgbouncer_active_clients", of] = float(row["cl_active"])
        found["pgbouncer_waiting_clients", of] = float(row["cl_waiting"])
    for row in console.table("show databases"):
        of = (("database", row["name"]),)
        found["pgbouncer_pool_size", of] = float(row["pool_size"])
        found["pgbouncer_reserve_pool", of] = float(row["reserve_pool_size"])
    for row in console.table("show lists"):
        if not row["list"].startswith("peer"):
            found[f"pgbouncer_{row['list']}", ()] = float(row["items"])
    return found


@ours
@slow(40)
def test_debians_exporter_works_unchanged(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2, reserve_pool_size=3, extra=OLD_COLUMNS,
                      databases={"app": t.postgres.address("app", pool_size=1), "app2": t.postgres.address("app2")})
    exporter = Exporter(t, pooler)
    with pooler.console() as console:
        for turn in range(3):
            with pooler.connect() as a, pooler.connect() as b, pooler.connect(database="app2") as c:
                for number in range(10 * turn):
                    a.value(f"select {number}")
                    c.value("select repeat('x', 5000)")
                a.query("begin")
                b.send(query("select 1"))
                console.wait_pool(cl_active=1, cl_waiting=1)

                def quiet():
                    """Clients of before may still be on their way out."""
                    before, seen = expected(console), exporter.scrape()
                    return expected(console) == before and (seen, before)
                seen, wanted = eventually(quiet, "nothing changes while one looks")
                mine = {key: value for key, value in seen.items() if key[0].startswith("pgbouncer_")}
                same(mine, wanted)
                app = (("database", "app"),)
                same((mine["pgbouncer_pool_size", app], mine["pgbouncer_reserve_pool", app]), (1, 3))
                same(mine["pgbouncer_waiting_clients", (("database", "app"), ("user", "app"))], 1)
                assert mine["pgbouncer_requests_total", app] >= 10 * turn
                # what the exporter tells of itself has come too, so the answer is whole
                assert ("process_open_fds", ()) in seen, seen
                a.query("commit")
                b.results()
    exporter.end()


@ours
@slow(40)
def test_debians_exporter_survives_pause_and_reload(t):
    pooler = t.pooler(pool_mode="transaction", extra=OLD_COLUMNS)
    exporter = Exporter(t, pooler, "--database", "app")
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        for command in ("pause", "resume", "reload", "kill app", "resume app", "reconnect"):
            same(console.do(command), command.split()[0].upper())
            names = {key[0] for key in exporter.scrape() if key[0].startswith("pgbouncer_")}
            assert {"pgbouncer_pools", "pgbouncer_pool_size"} <= names, names
    exporter.end()


@ours
@covers("pgsplice", "console_old_columns")
def test_old_columns_stand_behind_the_others(t):
    pooler = t.pooler(reserve_pool_size=4, extra=OLD_COLUMNS)
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        stats = console.client.query("show stats")
        same(stats.columns[-2:], [("avg_client_login_count", 1700), ("total_requests", 1700)])
        row = next(row for row in console.table("show stats") if row["database"] == "app")
        same((row["total_requests"], row["total_query_count"]), ("1", "1"))
        databases = console.client.query("show databases")
        same(databases.columns[-2:], [("disabled", 23), ("reserve_pool", 23)])
        same({row["name"]: row["reserve_pool"] for row in console.table("show databases")},
             {"app": "4", "app2": "4", "pgbouncer": "0"})


# ---- other exporters, other ways ----------------------------------------------------------------

# Columns that exporters and monitoring templates ask for by name.
WANTED = {
    "stats": "database total_xact_count total_query_count total_received total_sent total_xact_time total_query_time "
             "total_wait_time total_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time "
             "avg_query_time avg_wait_time",
    "pools": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel "
             "sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode",
    "databases": "name host port database force_user pool_size min_pool_size reserve_pool_size pool_mode max_connections "
                 "current_connections paused disabled",
    "lists": "list items",
    "config": "key value default changeable",
    "version": "version",
}


@ours
def test_documented_queries_have_their_columns(t):
    pooler = t.pooler(pool_mode="transaction", max_client_conn=77, max_user_connections=5)
    with pooler.connect() as c, pooler.console(user="stats") as console:
        c.value("select 1")
        for table, columns in WANTED.items():
            for command in (f"SHOW {table.upper()}", f"SHOW {table.upper()};"):
                result = console.client.query(command)
                missing = set(columns.split()) - {name for name, _ in result.columns}
                assert result.rows and not missing, f"{command} lacks {missing}"
        # the community's exporter makes gauges of these two
        config = {row["key"]: row["value"] for row in console.table("SHOW CONFIG")}
        same((config["max_client_conn"], config["max_user_connections"]), ("77", "5"))
        # and takes the version from behind the blank
        version = console.client.value("SHOW VERSION").split(" ")
        assert len(version) == 2 and re.fullmatch(r"\d+\.\d+\.\d+", version[1]), version


def psql(t, pooler, *arguments, user="stats"):
    return t.run_program(["psql", "-X", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", user, *arguments,
                          "pgbouncer"]).stdout


def test_psql_in_a_script(t):
    """As check_postgres and shell scripts do: unaligned, with and without names, by column number."""
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.value("select 1")
        lines = psql(t, pooler, "-A", "-c", "show pools").splitlines()
        names = lines[0].split("|")
        same(lines[-1], "(2 rows)")
        rows = [dict(zip(names, line.split("|"))) for line in lines[1:-1]]
        same([(row["database"], row["user"], row["cl_active"], row["cl_waiting"], row["maxwait"]) for row in rows],
             [("app", "app", "1", "0", "0"), ("pgbouncer", "pgbouncer", "1", "0", "0")])
        plain = psql(t, pooler, "-AqtF", "\t", "-c", "SHOW POOLS;")
        same([line.split("\t")[:4] for line in plain.splitlines()],
             [["app", "app", "1", "0"], ["pgbouncer", "pgbouncer", "1", "0"]])
        table = psql(t, pooler, "-c", "show databases")
        assert re.search(r"^ app +\| 127\.0\.0\.1 +\| +\d+ \| app ", table, re.M), table
        found = list(csv.DictReader(psql(t, pooler, "--csv", "-c", "show lists").splitlines()))
        same({row["list"]: row["items"] for row in found}["used_servers"], "1")


def test_psqls_own_commands_are_refused_clearly(t):
    pooler = t.pooler()
    done = subprocess.run(["psql", "-X", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "admin", "pgbouncer",
                           "-c", "\\d", "-c", "show version"], capture_output=True, text=True, timeout=10)
    assert "ERROR:  invalid command 'SELECT n.nspname" in done.stderr and "use SHOW HELP;" in done.stderr, done.stderr
    assert "(1 row)" in done.stdout, done.stdout


@ours
def test_psql_as_the_owner_on_the_unix_socket(t):
    pooler = t.pooler(auth_type="scram-sha-256", admin_users="", stats_users="", userlist={"app": "x"})
    command = ["psql", "-XAt", "-h", pooler.folder, "-p", str(pooler.port), "-U", "pgbouncer", "pgbouncer"]
    done = subprocess.run([*command, "-c", "show fds", "-c", "show state", "-c", "reload"], capture_output=True,
                          text=True, cwd="/", timeout=10, **as_os_user())
    same((done.returncode, done.stderr), (0, ""))
    assert "active|yes" in done.stdout and "RELOAD" in done.stdout, done.stdout
    # nobody else, and not under another name
    other = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    if os.geteuid() == 0:
        os.chmod(os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}"), 0o777)
        done = subprocess.run([*command, "-c", "show version"], capture_output=True, text=True, cwd="/", timeout=10,
                              **other)
        assert done.returncode != 0 and "not allowed" in done.stderr, done.stderr
    command[command.index("pgbouncer")] = "app"
    done = subprocess.run([*command, "-c", "show version"], capture_output=True, text=True, cwd="/", timeout=10,
                          **as_os_user())
    assert done.returncode != 0 and "not allowed" in done.stderr, done.stderr
