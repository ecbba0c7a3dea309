"""Real programs through the pooler: psql, pgbench, pg_dump, and one on libpq."""

import os
import re
import subprocess

from harness import PASSWORD, POSTGRES_BIN, Skip, eventually, matches, ours, plain, same, slow

HERE = os.path.dirname(os.path.abspath(__file__))


def conninfo(pooler, database="app", user="app", host="127.0.0.1", **more):
    words = {"host": host, "port": pooler.port, "dbname": database, "user": user,
             "connect_timeout": 5, **more}
    return " ".join(f"{key}={value}" for key, value in words.items())


def psql(t, pooler, *commands, check=True, database="app", input=None, **more):
    arguments = [f"{POSTGRES_BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1",
                 conninfo(pooler, database, **more)]
    for command in commands:
        arguments += ["-c", command]
    return t.run_program(arguments, input=input, check=check)


# ---- psql ---------------------------------------------------------------------------------------

def test_psql_runs_queries(t):
    pooler = t.pooler(pool_mode="transaction")
    same(psql(t, pooler, "select 1", "select 'two'").stdout, "1\ntwo\n")


def test_psql_shows_errors_and_goes_on(t):
    pooler = t.pooler(pool_mode="transaction")
    done = t.run_program([f"{POSTGRES_BIN}/psql", "-XAtq", conninfo(pooler)],
                         input="select 1/0;\nselect 'after';\n")
    matches("division by zero", done.stderr)
    same(done.stdout, "after\n")


def test_psql_describes_tables(t):
    pooler = t.pooler(pool_mode="transaction")
    psql(t, pooler, "drop table if exists described", "create table described (n int primary key)")
    matches(r"n\|integer", psql(t, pooler, "\\d described").stdout)
    matches("app", psql(t, pooler, "\\l").stdout)


def test_psql_copies_in_and_out(t):
    pooler = t.pooler(pool_mode="transaction")
    rows = "".join(f"{i}\ttext {i}\n" for i in range(5000))
    psql(t, pooler, "drop table if exists copied", "create table copied (n int, s text)")
    psql(t, pooler, "\\copy copied from pstdin", input=rows)
    same(psql(t, pooler, "\\copy (select * from copied order by n) to pstdout").stdout, rows)


def test_psql_script_with_a_transaction(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    done = psql(t, pooler, input="begin;\ncreate table in_script (n int);\ninsert into in_script "
                "select generate_series(1,10);\nselect sum(n) from in_script;\nrollback;\n"
                "select to_regclass('in_script') is null;\n")
    same(done.stdout, "55\nt\n")


def test_psql_logs_in_with_a_password(t):
    for method in ("plain", "md5", "scram-sha-256"):
        pooler = t.pooler(auth_type=method, userlist={"u_scram": PASSWORD})
        same(psql(t, pooler, "select current_user", user="u_scram", password=PASSWORD).stdout,
             "u_scram\n")


def test_psql_speaks_to_the_console(t):
    pooler = t.pooler()
    done = psql(t, pooler, "show pools", "reload", "show version", database="pgbouncer",
                user="admin")
    matches(r"pgbouncer\|pgbouncer\|1\|0", done.stdout)
    done = psql(t, pooler, "nonsense", database="pgbouncer", user="admin", check=False)
    matches("ERROR:  invalid command 'nonsense', use SHOW HELP;", done.stderr)
    assert done.returncode != 0


def test_psql_over_the_unix_socket(t):
    pooler = t.pooler()
    same(psql(t, pooler, "select 1", host=pooler.folder).stdout, "1\n")


@plain
def test_psql_with_tls_preferred_falls_back(t):
    pooler = t.pooler()
    for mode in ("prefer", "allow", "disable"):
        same(psql(t, pooler, "select 1", sslmode=mode).stdout, "1\n")
    done = psql(t, pooler, "select 1", sslmode="require", check=False)
    matches("server does not support SSL", done.stderr)


def test_psql_shows_a_fatal_error_of_the_pooler(t):
    done = psql(t, t.pooler(), "select 1", database="missing", check=False)
    matches(r"FATAL:  no such database: missing", done.stderr)


def test_pg_isready_says_yes(t):
    pooler = t.pooler()
    done = t.run_program([f"{POSTGRES_BIN}/pg_isready", "-d", conninfo(pooler)])
    matches("accepting connections", done.stdout)


@slow(30)
def test_pg_dump_in_session_mode_is_the_same_as_direct(t):
    pooler = t.pooler(pool_mode="session", ignore_startup_parameters="extra_float_digits")
    with t.postgres.connect() as c:
        c.query("drop table if exists dumped; create table dumped as "
                "select n, repeat('d', n % 50) from generate_series(1, 3000) n")

    def dump(info):
        text = t.run_program([f"{POSTGRES_BIN}/pg_dump", "-t", "dumped", "-d", info]).stdout
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", text)  # a random word in each dump
    through = dump(conninfo(pooler))
    same(through, dump(f"host=127.0.0.1 port={t.postgres.port} user=app dbname=app"))
    assert len(through) > 50000


# ---- pgbench ------------------------------------------------------------------------------------

def pgbench(t, pooler, *arguments):
    done = t.run_program([f"{POSTGRES_BIN}/pgbench", "-n", *arguments, conninfo(pooler)],
                         seconds=30)
    matches(r"number of failed transactions: 0 ", done.stdout)
    return done.stdout


def fill(t):
    t.run_program([f"{POSTGRES_BIN}/pgbench", "-q", "-i", "-s", "1", "-h", "127.0.0.1", "-p",
                   str(t.postgres.port), "-U", "app", "app"], seconds=30)


def balances_agree(t):
    sums = [t.postgres.value(f"select coalesce(sum({column}), 0) from pgbench_{table}")
            for table, column in (("accounts", "abalance"), ("branches", "bbalance"),
                                  ("tellers", "tbalance"), ("history", "delta"))]
    same(len(set(sums)), 1, f"sums {sums}")


@slow(40)
def test_pgbench_initializes_through_the_pooler(t):
    pooler = t.pooler(pool_mode="session")
    t.run_program([f"{POSTGRES_BIN}/pgbench", "-q", "-i", "-s", "1", conninfo(pooler)], seconds=30)
    same(t.postgres.value("select count(*) from pgbench_accounts"), "100000")


@slow(40)
def test_pgbench_tpcb_keeps_its_books_in_each_query_mode(t):
    fill(t)
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4)
    for mode in ("simple", "extended"):
        pgbench(t, pooler, "-M", mode, "-c", "12", "-j", "2", "-t", "30")
        balances_agree(t)
    same(t.postgres.value("select count(*) from pgbench_history"), "720")
    # that of the count above may still be going
    eventually(lambda: len(t.postgres.backends()) <= 4, "as many servers as the pool may have")


@slow(40)
def test_pgbench_prepared_works_in_session_mode(t):
    fill(t)
    pooler = t.pooler(pool_mode="session", default_pool_size=8)
    pgbench(t, pooler, "-M", "prepared", "-c", "8", "-j", "2", "-t", "30")
    balances_agree(t)


@slow(40)
def test_pgbench_select_only_with_more_clients_than_servers(t):
    fill(t)
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4, max_client_conn=200)
    for mode in ("simple", "extended"):
        pgbench(t, pooler, "-S", "-M", mode, "-c", "60", "-j", "2", "-t", "40")


@slow(40)
def test_pgbench_reconnecting_for_each_transaction(t):
    fill(t)
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4)
    pgbench(t, pooler, "-S", "-C", "-c", "8", "-j", "2", "-t", "30")


@slow(40)
def test_pgbench_pipelines(t):
    fill(t)
    pooler = t.pooler(pool_mode="transaction", default_pool_size=3)
    script = os.path.join(t.folder, "pipeline.sql")
    with open(script, "w") as file:
        file.write("\\set aid random(1, 100000)\n\\startpipeline\n" +
                   "select abalance from pgbench_accounts where aid = :aid;\n" * 5 +
                   "\\endpipeline\n")
    pgbench(t, pooler, "-M", "extended", "-f", script, "-c", "10", "-j", "2", "-t", "20")


# ---- libpq --------------------------------------------------------------------------------------

def smoke_binary(t):
    """Compiled once for a run."""
    binary = os.path.join(os.path.dirname(t.folder), "libpq_smoke")
    if not os.path.exists(binary):
        try:
            include = subprocess.run([os.path.join(POSTGRES_BIN, "pg_config"), "--includedir"],
                                     capture_output=True, text=True).stdout.strip()
        except FileNotFoundError:
            include = ""
        own = f"{binary}.{t.slot}"
        done = subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu11", "-Wall", "-Wextra", "-o",
                               own,
                               os.path.join(HERE, "libpq_smoke.c"), f"-I{include or '.'}",
                               "-I/usr/include/postgresql", "-lpq"], capture_output=True, text=True)
        if done.returncode != 0 and "libpq-fe.h" in done.stderr:
            raise Skip("libpq's header is not installed")
        same(done.returncode, 0, done.stderr)
        os.rename(own, binary)
    return binary


SCENARIOS = ("pipeline", "pipeline_flush", "pipeline_error", "prepared", "copy", "copy_extended",
             "cancel", "nonblocking", "single_row")


def make_scenario(name):
    @slow(30)
    def test(t):
        for mode in ("transaction", "session"):
            pooler = t.pooler(pool_mode=mode, default_pool_size=2)
            t.run_program([smoke_binary(t), conninfo(pooler), name])
            pooler.usable()
    test.__name__ = f"test_libpq_{name}_works_in_both_modes"
    return test


for _name in SCENARIOS:
    _test = make_scenario(_name)
    globals()[_test.__name__] = _test


def test_libpq_speaks_to_the_console(t):
    pooler = t.pooler()
    t.run_program([smoke_binary(t), conninfo(pooler, "pgbouncer", "admin"), "console"])


@ours
def test_libpq_speaks_to_the_console_in_the_extended_protocol(t):
    pooler = t.pooler()
    t.run_program([smoke_binary(t), conninfo(pooler, "pgbouncer", "admin"), "console_extended"])
