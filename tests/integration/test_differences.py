"""README's list of differences from PgBouncer: each line names its tests, and those of lines that fit nowhere else
are here. So are the words that an operator needs at the worst moment."""

import glob
import os
import re
import time

from harness import PASSWORD, TOP, eventually, ours, refused, same, within
from pgwire import startup


# ---- the list -----------------------------------------------------------------------------------

def differences():
    with open(os.path.join(TOP, "README.md")) as file:
        text = file.read()
    table = text.split("| PgBouncer | pgsplice | test |\n", 1)[1].split("\n\n", 1)[0]
    return [line for line in table.splitlines() if not re.fullmatch(r"[| -]+", line)]


def tests_there_are():
    """Names as the runner has them, `topic.what_is_true`, and unit tests as `unit/topic.what_is_true`.
    Tests that are made in a loop have a name that ends with `{...}`."""
    found = set()
    for prefix, pattern, function in (("", "tests/integration/test_*.py", r"test_(\w+(?:\{\w+\})?)"),
                                      ("unit/", "tests/unit/test_*.c", r"cmocka_unit_test\((\w+)\)")):
        for path in glob.glob(os.path.join(TOP, pattern)):
            topic = os.path.basename(path)[len("test_"):].rsplit(".", 1)[0]
            with open(path) as file:
                found |= {f"{prefix}{topic}.{name}" for name in re.findall(function, file.read())}
    return found


@ours
def test_every_line_of_the_list_names_tests_that_exist(t):
    known, wrong = tests_there_are(), []
    for line in differences():
        cells = line.strip("|").split(" | ")
        named = re.findall(r"`([\w/.{}]+)`", cells[-1]) if len(cells) == 3 else []
        if not named or any(name not in known for name in named):
            wrong.append(line)
    assert not wrong, "no test, or an unknown one, in:\n" + "\n".join(wrong)


# ---- files --------------------------------------------------------------------------------------

@ours
def test_a_second_header_adds_its_settings(t):
    pooler = t.pooler(default_pool_size=3, extra="[databases]\nmore = host=127.0.0.1\n"
                                                 "[pgbouncer]\nreserve_pool_size = 2\n")
    with pooler.console() as console:
        same((console.config("default_pool_size"), console.config("reserve_pool_size")), ("3", "2"))
        assert {"app", "more"} <= {row["name"] for row in console.table("show databases")}


@ours
def test_empty_lines_and_comments_in_a_list_of_hba_are_skipped(t):
    pooler = t.pooler(auth_type="hba", auth_hba_file="hba.conf", start=False)
    pooler.write_file("hba.conf", "host all admin all trust\nhost all @people all trust\n")
    pooler.write_file("people", "# who may\n\napp # always\n\n")
    pooler.start()
    pooler.usable()
    with refused():
        pooler.connect(user="other")


@ours
def test_a_setting_without_a_default_is_none_again(t):
    pooler = t.pooler(auth_user="other")
    with pooler.console() as console:
        same(console.config("auth_user"), "other")
    pooler.change(auth_user=None)
    with pooler.console() as console:
        assert not console.config("auth_user"), "still there"


@ours
def test_minus_one_is_not_set_for_the_query_wait_timeout_of_an_entry(t):
    entry = t.postgres.address("app", query_wait_timeout=-1, pool_size=1)
    pooler = t.pooler(databases={"app": entry}, query_wait_timeout=1)
    with pooler.connect() as holder, pooler.connect() as waiter:
        holder.query("begin")
        started = time.monotonic()
        with refused("query_wait_timeout"):
            waiter.query("select 1")
        within(started, 0.9, 5, "the wait")


# ---- the console --------------------------------------------------------------------------------

@ours
def test_statistics_of_the_console_stand_still(t):
    with t.pooler().console() as console:
        for _ in range(3):
            console.table("show version")
        row = next(row for row in console.table("show stats") if row["database"] == "pgbouncer")
        same({value for key, value in row.items() if key != "database"}, {"0"})


@ours
def test_an_empty_query_of_the_console_is_answered(t):
    with t.pooler().console() as console:
        for nothing in ("", " ", ";"):
            same(console.client.query(nothing).types, "IZ")
        same(console.do("show version"), "SHOW")


# ---- logins -------------------------------------------------------------------------------------

@ours
def test_keys_of_a_plain_password_are_made_once(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist={"app": PASSWORD, "other": PASSWORD}, verbose=1,
                      stats_period=1, extra="[pgsplice]\nworker_threads = 1\n")
    for _ in range(3):
        for user in ("app", "other"):
            pooler.connect(user=user, password=PASSWORD).terminate()
    seen = len(pooler.log())
    made = eventually(lambda: re.findall(r"helpers: (\d+) hashes made", pooler.log()[seen:]), "counters")
    same(made[0], "2")


# ---- several addresses --------------------------------------------------------------------------

@ours
def test_the_next_address_is_tried_before_any_pause(t):
    free = t.fake_server(lambda c: None)
    free.close()
    entry = f"host=127.0.0.2,127.0.0.1 port={t.postgres.port} dbname=app"
    pooler = t.pooler(databases={"app": entry}, server_login_retry=100)
    started = time.monotonic()
    pooler.usable()
    within(started, 0, 5, "the first query")


# ---- what the log says --------------------------------------------------------------------------

@ours
def test_the_log_names_who_could_not_log_in(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist={"app": PASSWORD, "admin": PASSWORD})
    with refused():
        pooler.connect(user="nobody-knows", password=PASSWORD)
    pooler.wait_log("LOG C-0x[0-9a-f]+: app/nobody-knows@.* no such user: nobody-knows")
    with refused():
        pooler.connect(user="app", password="wrong")
    assert "no such user: app" not in pooler.log()
    with refused():
        pooler.console(password="wrong")
    pooler.wait_log("C-0x[0-9a-f]+: pgbouncer/admin@.* closing because: SASL authentication failed")
    with refused():
        pooler.console(user="app", password=PASSWORD)
    pooler.wait_log("C-0x[0-9a-f]+: pgbouncer/app@.* closing because: not allowed")


@ours
def test_the_log_names_whom_auth_query_could_not_find(t):
    pooler = t.pooler(auth_type="scram-sha-256", auth_user="app", auth_query="select $1::text",
                      userlist={"app": ""})
    with pooler.open() as c:
        c.send(startup({"user": "late", "database": "app"}))
        c.closed()
    pooler.wait_log("C-0x[0-9a-f]+: app/late@.* closing because: bouncer config error")


@ours
def test_a_start_in_the_background_that_fails_is_said_at_the_terminal(t):
    first = t.pooler()
    second = t.pooler(listen_port=first.port, pidfile="second.pid", args=["-d"], start=False)
    ended = second.run_to_end()
    same(ended.returncode, 1)
    assert f"FATAL cannot listen on any address of listen_addr (port {first.port})" in ended.stderr, ended.stderr
    second.args.append("-q")
    same(second.run_to_end().stderr, "")


# ---- what the README tells to type --------------------------------------------------------------

@ours
def test_the_readmes_function_for_auth_query_works(t):
    with open(os.path.join(TOP, "README.md")) as file:
        function = re.search(r"    CREATE FUNCTION user_lookup.*?TO pgbouncer;", file.read(), re.S).group()
    with t.postgres.connect(user="postgres", database="app") as admin:
        admin.query("drop function if exists user_lookup")
        if not admin.query("select 1 from pg_roles where rolname = 'pgbouncer'").rows:
            admin.query("create role pgbouncer login")
        for statement in re.findall(r"(?:CREATE|REVOKE|GRANT)(?:[^;$]|\$\$.*?\$\$|\$1)*;", function, re.S):
            admin.query(statement)
    pooler = t.pooler(auth_type="scram-sha-256", userlist={"pgbouncer": ""}, auth_user="pgbouncer",
                      auth_query="SELECT * FROM user_lookup($1)")
    with pooler.connect(user="u_scram", password=PASSWORD) as c:
        same(c.value("select current_user"), "u_scram")
    with refused("no such user"):
        pooler.connect(user="nobody-knows", password=PASSWORD)
