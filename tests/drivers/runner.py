#!/usr/bin/python3
"""The driver matrix: tests/drivers/runner.py [--ways W,W] [--show] [--keep] [driver ...]

Each driver's program does its named steps straight at PostgreSQL, and then through the pooler in
each way of WAYS. The transcripts must be the same. One line for each driver and way: same, differs,
failed or skipped; the status is 1 when one differs or failed. README.md says how to add a driver.
"""

import argparse
import concurrent.futures
import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.abspath(os.path.join(HERE, "..", ".."))
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
sys.dont_write_bytecode = True

import certificates  # noqa: E402
import harness  # noqa: E402
import sharing  # noqa: E402

BUILD = os.path.join(os.path.dirname(harness.POOLER_BIN), "drivers")
INSTALL = os.path.join(TOP, "tests", "setup", "install.sh")
SECONDS_MAX = 30
INSTALL_SECONDS_MAX = 900
LOG_TAIL = 1000
PYTHON = "/usr/bin/python3"

# How the pooler stands between; None is no pooler. Two servers and at least three clients of each
# program, so that a client's server really changes. `evict`: a server keeps one statement only, so
# that nearly each Bind needs a Parse first. `workers`: the two servers are on different cores. `tls`: both sides are in TLS,
# the driver's by its own library. `sharing`: clients of ours are at work on the same database all the time, and share servers
# with the program's.
TRANSACTION = {"pool_mode": "transaction"}
WAYS = {
    "straight": None,
    "session": {"pool_mode": "session", "default_pool_size": 10},
    "transaction": TRANSACTION,
    "evict": {**TRANSACTION, "max_prepared_statements": 1},
    "workers": TRANSACTION,
    "tls": TRANSACTION,
    "sharing": TRANSACTION,
    "off": {**TRANSACTION, "max_prepared_statements": 0},
}
# What the way `console` asks, each driver in each way it has of asking; what must come is made of the plain protocol's
# answers. There is no `straight` for it.
CONSOLE_COMMANDS = ["show version", "show state", "show lists", "show databases", "show pools", "show stats", "show totals",
                    "SHOW CONFIG;", "show help", "set pool_mode = statement", "reload", "nonsense", "kill_client 999999",
                    "show pools clients", "show timezone", "set application_name = x", "show users"]
CONSOLE_DRIVERS = ("psycopg", "asyncpg", "psycopg2", "jdbc", "node-pg", "go", "pgx")

# `off` shows that a difference is seen: without tracking most drivers must fail. Not run unless named.
WAYS_RUN = [way for way in WAYS if way != "off"]
OWN_SETTINGS = {"workers": "[pgsplice]\nworker_threads = 2\npool_shards = 2\n",
                "sharing": "[pgsplice]\nworker_threads = 1\nserver_sharing = 1\n"}
OWN_SETTINGS_ELSE = "[pgsplice]\nworker_threads = 1\n"
SHARED_SERVERS = ("transaction", "evict", "workers", "tls", "sharing", "off")
NEIGHBOURS = 4
OTHER_THAN_TLS = {"server_tls_sslmode": "disable"}

# Steps that some ways cannot do: a NOTIFY finds a listening server only where the client owns it.
STEPS_LEFT_OUT = {way: ("listen",) for way in SHARED_SERVERS}


class Driver:
    """What there is to run: `have` succeeds when the packages are there (group driver-NAME of
    tests/setup/packages.txt otherwise, or driver-`packages`); `fetch` gets what Debian does not have, and may fail for want
    of it; `build` makes what is run under BUILD, and may not fail."""

    def __init__(self, name, have, run, build=None, env=None, fetch=None, packages=None,
                 servers=2, has_tls=True):
        self.has_tls = has_tls
        self.name, self.have, self.run, self.env = name, have, run, env or {}
        self.fetch, self.build, self.packages = fetch or [], build or [], packages or name
        self.servers = servers  # of the pool, where clients share them


def here(name):
    return os.path.join(HERE, name)


def built(name):
    return os.path.join(BUILD, name)


def python(name, module):
    return Driver(name, [PYTHON, "-c", f"import {module}"], [PYTHON, here(f"drive_{name}.py")])


# Debian has node-pg and not postgres.js; its node-pg cannot stand beside a Node.js from elsewhere.
# So both come from npm, in the versions of package-lock.json.
def node(name):
    folder = built("node")
    return Driver(name, ["sh", "-c", "command -v node && command -v npm"],
                  ["node", here(f"drive_{name.replace('-', '_')}.js")],
                  env={"NODE_PATH": os.path.join(folder, "node_modules")},
                  fetch=[["sh", "-c", f"cmp -s {here('package-lock.json')} {folder}/package-lock.json && "
                          f"test -d {folder}/node_modules/postgres || {{ mkdir -p {folder} && "
                          f"cp {here('package.json')} {here('package-lock.json')} {folder} && "
                          f"cd {folder} && npm ci --no-audit --no-fund; }}"]])


# Debian's crates only, and its own cargo: another one in PATH has no use for them.
def rust():
    home = built("cargo")
    config = '[source.crates-io]\nreplace-with = "debian"\n[source.debian]\n' \
             'directory = "/usr/share/cargo/registry"\n'
    target = built("rust")
    return Driver("rust", ["sh", "-c", "test -x /usr/bin/cargo && ls -d /usr/share/cargo/registry/tokio-postgres-*"],
                  [os.path.join(target, "debug", "drive_rust")],
                  [["sh", "-c", f"mkdir -p {home} && printf '%s' '{config}' > {home}/config.toml && "
                    f"rm -rf {home}/source && cp -r {here('rust')} {home}/source"],
                   ["/usr/bin/cargo", "build", "--offline", "--jobs", "2", "--quiet",
                    "--manifest-path", f"{home}/source/Cargo.toml"]],
                  has_tls=False, env={"CARGO_HOME": home, "CARGO_TARGET_DIR": target, "RUSTC": "/usr/bin/rustc"})


def go(name, package):
    return Driver(name, ["sh", "-c", f"command -v go && test -d /usr/share/gocode/src/{package}"],
                  [built(f"drive_{name}")],
                  [["go", "build", "-o", built(f"drive_{name}"), here(f"drive_{name}.go")]],
                  env={"GOPATH": "/usr/share/gocode", "GO111MODULE": "off", "GOFLAGS": "-p=2",
                       "GOCACHE": built("go-cache")})


def odbc(kind):
    return Driver(f"odbc-{kind}", ["sh", "-c", f"{PYTHON} -c 'import pyodbc' && ls /usr/lib/*/odbc/psqlodbcw.so"],
                  [PYTHON, here("drive_odbc.py"), kind], packages="odbc",
                  # this kind keeps a transaction open on each connection that has read a cursor
                  servers=4 if kind == "fetch" else 2)


DRIVERS = [
    Driver("libpq", ["sh", "-c", "command -v gcc && test -e /usr/include/postgresql/libpq-fe.h"],
           [built("drive_libpq")],
           [["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-I/usr/include/postgresql", "-o",
             built("drive_libpq"), here("drive_libpq.c"), "-lpq"]]),
    python("psycopg", "psycopg"),
    python("asyncpg", "asyncpg"),
    python("psycopg2", "psycopg2"),
    Driver("jdbc", ["sh", "-c", "command -v javac && test -e /usr/share/java/postgresql.jar"],
           ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp",
            BUILD + ":/usr/share/java/postgresql.jar", "DriveJdbc"],
           [["javac", "-d", BUILD, "-cp", "/usr/share/java/postgresql.jar", here("DriveJdbc.java")]]),
    node("node-pg"),
    go("go", "github.com/lib/pq"),
    go("pgx", "github.com/jackc/pgx/v4"),
    node("postgres-js"),
    python("sqlalchemy", "sqlalchemy, psycopg2"),
    Driver("ruby", ["/usr/bin/ruby", "-e", "require 'pg'"], ["/usr/bin/ruby", here("drive_ruby.rb")]),
    Driver("perl", ["/usr/bin/perl", "-e", "use DBD::Pg"], ["/usr/bin/perl", here("drive_perl.pl")]),
    Driver("php", ["/usr/bin/php", "-r", "exit(function_exists('pg_connect') && "
                   "in_array('pgsql', PDO::getAvailableDrivers()) ? 0 : 1);"],
           ["/usr/bin/php", "-d", "display_errors=stderr", here("drive_php.php")]),
    *map(odbc, ("prepared", "bound", "fetch", "statement", "plain")),
    rust(),
    python("django", "django, psycopg2"),
    Driver("rails", ["/usr/bin/ruby", "-e", "require 'active_record'; require 'pg'"],
           ["/usr/bin/ruby", "-W0", here("drive_rails.rb")]),
]

# Differences that are meant: driver, ways, step, what is seen straight, what through the pooler, why.
# The lines of a step are joined by newlines and must match the whole expression.
ALLOWED = [
    (".*", [way for way in SHARED_SERVERS if way != "sharing"], r"(\w+_)?schema", r"(?s).*0A000 .*cached plan must not change result type.*",
     r"(\w+ (before|begin|rollback) .*\n?|\w+ \w+ .*\bnew\b.*\n?)+",
     "a statement whose columns have changed is prepared again, unseen"),
    (".*", ("sharing",), r"(\w+_)?schema", r"(?s).*0A000 .*cached plan must not change result type.*",
     r"(\w+ (before|begin|rollback) .*\n?|\w+ inside .*0A000.*\n?|\w+ \w+ .*\bnew\b.*\n?)+",
     "the same, but not in a transaction on the server where the neighbours were not"),
]


# ---- getting what a driver needs ----------------------------------------------------------------

def succeeds(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, cwd="/").returncode == 0


def install(drivers):
    """None, or why not."""
    done = subprocess.run([INSTALL, *(f"driver-{driver.packages}" for driver in drivers)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=INSTALL_SECONDS_MAX)
    lines = (done.stderr or done.stdout).strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else "no reason given")


def prepare(drivers):
    """Installs and builds; a dictionary of those that cannot be had, with the reason."""
    missing = [driver for driver in drivers if not succeeds(driver.have)]
    if missing and install(missing) is not None:
        for driver in missing:  # one that cannot be had must not keep the others out
            install([driver])
    without, failed = {}, {}
    os.makedirs(BUILD, exist_ok=True)
    for driver in drivers:
        if driver in missing and not succeeds(driver.have):
            without[driver.name] = f"packages: {install([driver]) or 'installed, and still not usable'}"
            continue
        for command in driver.fetch + driver.build:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  cwd=BUILD, env={**os.environ, **driver.env},
                                  timeout=INSTALL_SECONDS_MAX)
            if done.returncode == 0:
                continue
            text = (done.stdout + done.stderr).strip()
            if command in driver.fetch:
                without[driver.name] = "npm: " + " ".join(text.split())[-200:]
            else:
                failed[driver.name] = f"{command[0]} gave {done.returncode}:\n{text[-3000:]}"
            break
    return without, failed


# ---- one run ------------------------------------------------------------------------------------

class Run:
    """The transcript of one driver's program in one way, or what went wrong."""

    def __init__(self, driver, way):
        self.driver, self.way = driver, way
        self.lines, self.notes = [], {}
        self.problem = None
        self.took = 0.0

    def read(self, text):
        for line in text.splitlines():
            if line.startswith("# "):
                key, _, value = line[2:].partition(" ")
                self.notes[key] = value
            elif line.split(" ", 1)[0] not in STEPS_LEFT_OUT.get(self.way, ()):
                self.lines.append(line)

    def steps(self):
        """The lines by step, in order."""
        found = {}
        for line in self.lines:
            found.setdefault(line.split(" ", 1)[0], []).append(line)
        return found


class Bench:
    """Stands for harness.Test: where a pooler lives."""

    def __init__(self, postgres, folder):
        self.postgres, self.folder, self.slot = postgres, folder, 1
        self.variant = None


def run_program(run, port, database, folder):
    env = {**os.environ, **run.driver.env, "DRIVE_COMMANDS": "\n".join(CONSOLE_COMMANDS), "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "u_scram",
           "PGPASSWORD": harness.PASSWORD, "PGDATABASE": database, "DRIVE_WAY": run.way,
           "PGSSLMODE": "require" if run.way == "tls" else "disable", "NODE_TLS_REJECT_UNAUTHORIZED": "0",
           "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    out, errors = os.path.join(folder, "transcript"), os.path.join(folder, "errors")
    started = time.monotonic()
    with open(out, "wb") as stdout, open(errors, "wb") as stderr:
        process = subprocess.Popen(run.driver.run, stdin=subprocess.DEVNULL, stdout=stdout,
                                   stderr=stderr, cwd=folder, env=env, start_new_session=True)
        try:
            status = process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            status = None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    run.took = time.monotonic() - started
    with open(out, errors="replace") as file:
        run.read(file.read())
    with open(errors, errors="replace") as file:
        text = file.read().strip()
    if status is None:
        run.problem = f"stuck: killed after {SECONDS_MAX} s"
    elif status != 0 or run.lines[-1:] != ["end"]:
        run.problem = f"the program ended with status {status}\n{text[-1500:]}"
    if run.problem:
        run.problem += "\nthe last it said:\n" + "\n".join(line[:300] for line in run.lines[-8:])


def run_way(driver, way, postgres, folder):
    """Each run has a new database and a pooler of its own."""
    run = Run(driver, way)
    folder = os.path.join(folder, f"{driver.name}-{way}")
    os.makedirs(folder, mode=0o755)
    harness.give_to_os_user(folder)
    database = f"drive_{driver.name}".replace("-", "_")
    with postgres.connect(user="postgres", database="postgres") as admin:
        admin.query(f"drop database if exists {database} with (force)")
        admin.query(f"create database {database}")
    if WAYS[way] is None:
        run_program(run, postgres.port, database, folder)
        return run
    bench, tls = Bench(postgres, folder), OTHER_THAN_TLS
    if way == "tls":
        made = certificates.of(bench)
        tls = {**made.of_clients("server", sslmode="require"), **made.of_servers(sslmode="verify-full")}
    pooler = harness.Pooler(
        bench, databases={database: postgres.address(database)},
        userlist={"u_scram": harness.PASSWORD, "admin": ""}, name="p",
        extra=OWN_SETTINGS.get(way, OWN_SETTINGS_ELSE), auth_type="scram-sha-256",
        ignore_startup_parameters="extra_float_digits", log_connections=0, server_login_retry=1,
        **{"default_pool_size": driver.servers, **WAYS[way], **tls})
    neighbours = None
    try:
        if way == "sharing":
            neighbours = sharing.Load(pooler, NEIGHBOURS, connects=lambda: pooler.connect(
                "u_scram", database, harness.PASSWORD, timeout=20), silence=20)
        run_program(run, pooler.port, database, folder)
        if neighbours:
            try:
                neighbours.finish()
            except AssertionError as problem:
                run.problem = f"its neighbours: {problem}\n{run.problem or ''}"
        if pooler.process.poll() is not None:
            run.problem = f"the pooler ended with status {pooler.process.returncode}\n{run.problem or ''}"
        if run.problem:
            run.problem += f"\nthe end of the pooler's log:\n{pooler.log()[-LOG_TAIL:]}"
        elif way in SHARED_SERVERS and int(run.notes.get("servers", 0)) < 2:
            run.problem = "its clients saw one server only: nothing of interest was tested"
    finally:
        if pooler.process.poll() is None:
            pooler.process.kill()
            pooler.process.wait()
    return run


def console_answers(pooler):
    """A line for each command, as the programs write it."""
    lines = []
    with pooler.console(user="u_scram", password=harness.PASSWORD) as console:
        for command in CONSOLE_COMMANDS:
            try:
                rows = console.client.query(command).rows
                said = " ".join([str(len(rows)), *("-" if value is None else value for value in rows[0][:5])]) \
                    if rows else "done"
            except harness.pgwire.PgError as error:
                said = f"error {error.sqlstate}"
            lines.append(f"console {command} {said}")
        console.client.terminate()  # until it has gone: it counts in some tables
    return lines


def run_console(driver, postgres, folder):
    """(the report's line, whether all is well)"""
    run = Run(driver, "console")
    folder = os.path.join(folder, f"{driver.name}-console")
    os.makedirs(folder, mode=0o755)
    harness.give_to_os_user(folder)
    pooler = harness.Pooler(Bench(postgres, folder), userlist={"u_scram": harness.PASSWORD}, name="p",
                            admin_users="u_scram", auth_type="scram-sha-256", extra=OWN_SETTINGS_ELSE)
    try:
        wanted = console_answers(pooler)
        run_program(run, pooler.port, "pgbouncer", folder)
    finally:
        pooler.process.kill()
        pooler.process.wait()
    label = f"{driver.name} console"
    if run.problem:
        return f"failed  {label}: {run.problem}\nthe end of the pooler's log:\n{pooler.log()[-LOG_TAIL:]}", False
    seen = [line.rstrip() for line in run.lines[:-1]]
    text = "\n".join(line for start in range(0, max(len(seen), 1), len(wanted)) for line in difflib.unified_diff(
        [line.rstrip() for line in wanted], seen[start:start + len(wanted)], "plain", "console", n=0, lineterm=""))
    if text:
        return f"differs {label}\n    " + text.replace("\n", "\n    "), False
    return f"same    {label} ({len(seen)} lines, {run.took:.1f} s)", True


def allowed(driver, way, step, straight, pooled):
    for rule in ALLOWED:
        name, ways, rule_step, before, after, _ = rule
        if (re.fullmatch(name, driver) and way in ways and re.fullmatch(rule_step, step) and
                re.fullmatch(before, "\n".join(straight)) and re.fullmatch(after, "\n".join(pooled))):
            return rule
    return None


def short(line):
    return line if len(line) <= 400 else line[:390] + f" ... ({len(line)} characters)"


def compare(straight, pooled):
    """(what differs as text, the steps that may differ, each with its rule)"""
    text, rules = [], []
    before, after = straight.steps(), pooled.steps()
    for step in list(before) + [step for step in after if step not in before]:
        if step in STEPS_LEFT_OUT.get(pooled.way, ()) or before.get(step) == after.get(step):
            continue
        rule = allowed(pooled.driver.name, pooled.way, step, before.get(step, []), after.get(step, []))
        if rule:
            rules.append((step, rule))
            continue
        text += [short(line) for line in difflib.unified_diff(
            before.get(step, []), after.get(step, []), "straight", pooled.way, n=1, lineterm="")]
    return "\n".join(text), rules


def run_driver(driver, ways, postgres, folder, show):
    """The report's lines, whether all is well, and the rules that were used."""
    report, well, used = [], True, []
    if "console" in ways:
        ways = [way for way in ways if way != "console"]
        if driver.name in CONSOLE_DRIVERS:
            line, well = run_console(driver, postgres, folder)
            report.append(line)
        if not ways:
            return report, well, used
    straight = run_way(driver, "straight", postgres, folder)
    if straight.problem:
        return [*report, f"failed  {driver.name} straight: {straight.problem}"], False, []
    if show:
        report += ["    " + short(line) for line in straight.lines]
    if not ways:
        report.append(f"ran     {driver.name} straight ({len(straight.lines)} lines, {straight.took:.1f} s)")
    for way in ways:
        if way == "tls" and not driver.has_tls:
            report.append(f"skipped {driver.name} tls: its TLS library is not among Debian's crates")
            continue
        run = run_way(driver, way, postgres, folder)
        differs, rules = compare(straight, run) if not run.problem else ("", [])
        used += [rule for _, rule in rules]
        label = f"{driver.name} {way}"
        about = f"{len(run.lines)} lines, {len(run.steps())} steps, {run.took:.1f} s"
        if run.problem:
            report.append(f"failed  {label}: {run.problem}")
        elif differs:
            report.append(f"differs {label} ({about})\n    " + differs.replace("\n", "\n    "))
        else:
            report.append(f"same    {label} ({about})" +
                          "".join(f"\n        but for {step}: {rule[5]}" for step, rule in rules))
        well = well and not run.problem and not differs
    return report, well, used


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("drivers", nargs="*", help="only these")
    options.add_argument("--ways", default=",".join([*WAYS_RUN, "console"]), help="only these, with commas")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--show", action="store_true", help="print the straight transcripts")
    options.add_argument("--keep", action="store_true", help="keep transcripts, logs, configurations")
    options.add_argument("--list", action="store_true", help="only print the names")
    arguments = options.parse_args()
    chosen = [driver for driver in DRIVERS if not arguments.drivers or
              driver.name in arguments.drivers]
    unknown = set(arguments.drivers) - {driver.name for driver in DRIVERS}
    ways = [way for way in arguments.ways.split(",") if way != "straight"]
    if unknown or any(way not in (*WAYS, "console") for way in ways):
        print(f"drivers: {' '.join(driver.name for driver in DRIVERS)}\nways: {' '.join(WAYS)} console")
        return 1
    if arguments.list:
        print("\n".join(driver.name for driver in chosen))
        return 0
    without, failed = prepare(chosen)
    well = not failed
    for name, reason in without.items():
        print(f"skipped {name}: {reason}")
    for name, reason in failed.items():
        print(f"failed  {name}: {reason}")
    sys.stdout.flush()
    chosen = [driver for driver in chosen if driver.name not in without and driver.name not in failed]

    folder = tempfile.mkdtemp(prefix="pgsplice-drivers-", dir="/tmp")
    os.chmod(folder, 0o755)
    harness.give_to_os_user(folder)
    postgres, used, turn = None, [], threading.Lock()
    try:
        postgres = harness.Postgres.create(os.path.join(folder, "postgres"))
        postgres.start()
        if "tls" in ways:
            postgres.of_one_test(**certificates.of_run(folder).of_postgres())

        def one(driver):
            try:
                report, fine, rules = run_driver(driver, ways, postgres, folder, arguments.show)
            except Exception as problem:
                report, fine, rules = [f"failed  {driver.name}: {problem!r}"], False, []
            with turn:
                print("\n".join(report), flush=True)
            return fine, rules

        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            for fine, rules in pool.map(one, chosen):
                well = well and fine
                used += rules
    finally:
        if postgres:
            postgres.stop(signal.SIGQUIT)
        if arguments.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    for rule in ALLOWED if not arguments.drivers else []:
        if rule not in used and set(rule[1]) & set(ways):
            print(f"note: no longer seen with {rule[0]}, step {rule[2]}: {rule[5]}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
