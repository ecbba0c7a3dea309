"""Users who are not in auth_file: auth_query, auth_user, auth_dbname. What a lookup finds, what it costs others, and
that nothing of it reaches a client."""

import signal
import struct
import threading

import pgwire
from harness import PASSWORD, covers, eventually, ours, refused, same
from pgwire import message, startup, text

# "app" is a superuser and needs no password at the scratch PostgreSQL: it may read pg_authid.
LIST = {"app": "", "admin": PASSWORD}
AUTHID = "select rolname, rolpassword from pg_authid where rolname = $1"
CONFIG_ERROR = "bouncer config error"


def sql(t, *statements, database="app"):
    """As the administrator, outside of the pooler."""
    with t.postgres.connect(user="postgres", database=database) as admin:
        for statement in statements:
            result = admin.query(statement)
    return result


def looking_up(t, auth_type="scram-sha-256", auth_user="app", auth_query=AUTHID, **more):
    more.setdefault("userlist", LIST)
    return t.pooler(auth_type=auth_type, auth_user=auth_user, auth_query=auth_query, **more)


def who(pooler, user, password=PASSWORD, **rest):
    with pooler.connect(user=user, password=password, **rest) as c:
        return c.value("select current_user")


def begin_login(pooler, user, database="app"):
    """A client that has sent its startup packet."""
    client = pooler.open()
    client.send(startup({"user": user, "database": database}))
    return client


def in_background(function):
    """Runs it in a thread; the list holds what it returned or raised, once it has ended."""
    found = []

    def run():
        try:
            found.append(function())
        except Exception as error:
            found.append(error)
    threading.Thread(target=run, daemon=True).start()
    return found


# ---- what is found ------------------------------------------------------------------------------

@covers("settings", "auth_user")
def test_user_who_is_not_in_auth_file_is_looked_up(t):
    pooler = looking_up(t)
    same(who(pooler, "u_scram"), "u_scram")
    with refused("SASL authentication failed", "08P01", "FATAL"):
        pooler.connect(user="u_scram", password="wrong")


# What PostgreSQL has stored (md5 for u_md5, SCRAM for u_scram), what the client is asked for, and what the server
# wants of the same user.
FOUND = {("u_md5", "plain"): True, ("u_md5", "md5"): True,
         ("u_md5", "scram-sha-256"): "SASL authentication failed",
         ("u_scram", "md5"): True, ("u_scram", "scram-sha-256"): True,
         ("u_scram", "plain"): "server login failed: wrong password type"}


def make_found(user, method, works):
    def test(t):
        pooler = looking_up(t, method)
        with refused("(SASL|password) authentication failed", "08P01", "FATAL"):
            pooler.connect(user=user, password="wrong")
        if works is True:
            same(who(pooler, user), user)
        else:
            with refused(works, "08P01", "FATAL"):
                pooler.connect(user=user, password=PASSWORD)
    word = "is_enough" if works is True else "is_not_enough"
    test.__name__ = f"test_found_{user[2:]}_secret_{word}_with_{method.replace('-', '_')}"
    return test


for (_user, _method), _works in FOUND.items():
    _test = make_found(_user, _method, _works)
    globals()[_test.__name__] = _test


def make_found_plain(method):
    def test(t):
        pooler = looking_up(t, method, auth_query=f"select $1::text, '{PASSWORD}'::text")
        with refused("(SASL|password) authentication failed", "08P01", "FATAL"):
            pooler.connect(user="u_md5", password="wrong")
        for user in ("u_plain", "u_md5", "u_scram"):
            same(who(pooler, user), user)
    test.__name__ = f"test_found_plain_secret_is_enough_with_{method.replace('-', '_')}"
    return test


for _method in ("plain", "md5", "scram-sha-256"):
    _test = make_found_plain(_method)
    globals()[_test.__name__] = _test


@covers("settings", "auth_query")
def test_auth_query_is_what_is_asked(t):
    sql(t, "create table if not exists secrets (name text primary key, secret text)",
        "insert into secrets values ('u_md5', 'of a table') on conflict (name) do nothing")
    pooler = looking_up(t, "plain", auth_query="select name, secret from secrets where name = $1",
                        databases={"app": t.postgres.address(user="other")})
    same(who(pooler, "u_md5", "of a table"), "other")
    with refused("no such user"):
        pooler.connect(user="u_scram", password=PASSWORD)


@ours  # PgBouncer had another default then
def test_default_query_reads_pg_authid_and_heeds_its_dates_and_rights(t):
    sql(t, "drop role if exists expired, valid, no_login",
        f"create role expired login password '{PASSWORD}' valid until '2001-01-01'",
        f"create role valid login password '{PASSWORD}' valid until '2999-01-01'",
        f"create role no_login password '{PASSWORD}'")
    pooler = looking_up(t, auth_query=None)
    same(who(pooler, "valid"), "valid")
    with refused("SASL authentication failed"):
        pooler.connect(user="expired", password=PASSWORD)
    with refused("no such user"):
        pooler.connect(user="no_login", password=PASSWORD)


def test_function_of_the_owners_rights_may_be_asked_by_anybody(t):
    sql(t, "drop owned by asker" if sql(t, "select 1 from pg_roles where rolname = 'asker'").rows
        else "create role asker login",
        "create or replace function look_up(in i_name text, out uname text, out phash text) "
        "language sql security definer as $$ select usename::text, passwd from pg_shadow "
        "where usename = i_name $$",
        "revoke all on function look_up(text) from public",
        "grant execute on function look_up(text) to asker")
    pooler = looking_up(t, auth_user="asker", auth_query="select * from look_up($1)")
    same(who(pooler, "u_scram"), "u_scram")
    pooler = looking_up(t, auth_user="asker", name="direct")
    with refused(CONFIG_ERROR, "08P01", "FATAL"):
        pooler.connect(user="u_scram", password=PASSWORD)
    pooler.wait_log("error response from auth_query")


def test_auth_user_takes_its_password_from_auth_file(t):
    pooler = looking_up(t, auth_user="u_scram", userlist={"u_scram": PASSWORD})
    same(who(pooler, "other", PASSWORD), "other")


def test_no_row_is_no_such_user_and_no_password_is_asked(t):
    pooler = looking_up(t)
    with begin_login(pooler, "stranger") as c:
        error = c.fatal()
        same((error.severity, error.sqlstate, error.text), ("FATAL", "08P01", "no such user"))


def test_null_password_never_fits(t):
    for method, wanted in (("plain", "password authentication failed"),
                           ("md5", "password authentication failed"),
                           ("scram-sha-256", "SASL authentication failed")):
        pooler = looking_up(t, method, auth_query="select $1::text, null::text", name=method)
        for password in ("x", PASSWORD):
            with refused(wanted, "08P01", "FATAL"):
                pooler.connect(user="u_scram", password=password)


def test_trust_lets_in_whom_the_query_knows(t):
    pooler = looking_up(t, "trust")
    same(who(pooler, "other", None), "other")
    with refused("no such user", "08P01", "FATAL"):
        pooler.connect(user="stranger")


def test_name_in_the_row_is_the_login_name(t):
    pooler = looking_up(t, "plain", auth_query=f"select lower($1), '{PASSWORD}'::text")
    same(who(pooler, "U_SCRAM"), "u_scram")


def test_last_of_several_rows_counts(t):
    pooler = looking_up(t, "plain", databases={"app": t.postgres.address(user="other")}, auth_query=
                        "select $1::text, x from (values ('first'), ('last')) v (x)")
    same(who(pooler, "u_scram", "last"), "other")
    with refused("password authentication failed"):
        pooler.connect(user="u_scram", password="first")


def test_type_of_the_name_is_inferred_from_the_query(t):
    sql(t, "create extension if not exists citext", "create table if not exists users_citext "
        "(name citext primary key)", "insert into users_citext values ('Mixed') on conflict do nothing")
    pooler = looking_up(t, "plain", databases={"app": t.postgres.address(user="other")}, auth_query=
                        "select name, 'x'::text from users_citext where name = $1")
    same(who(pooler, "mIXED", "x"), "other")


def test_each_login_asks_again(t):
    sql(t, "drop role if exists changing", "create role changing login password 'first'")
    pooler = looking_up(t)
    same(who(pooler, "changing", "first"), "changing")
    sql(t, "alter role changing password 'second'")
    with refused("SASL authentication failed"):
        pooler.connect(user="changing", password="first")
    same(who(pooler, "changing", "second"), "changing")
    sql(t, "alter role changing nologin")
    pooler = looking_up(t, auth_query=AUTHID + " and rolcanlogin", name="again")
    with refused("no such user"):
        pooler.connect(user="changing", password="second")


def test_changed_password_is_used_at_the_server(t):
    # u_scram needs it there; the pool has learned the old one.
    pooler = looking_up(t, pool_mode="transaction")
    try:
        same(who(pooler, "u_scram"), "u_scram")
        sql(t, "alter role u_scram password 'another'",
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'u_scram'")
        same(who(pooler, "u_scram", "another"), "u_scram")
    finally:
        sql(t, f"alter role u_scram password '{PASSWORD}'")


@ours  # found secrets outlive a RELOAD
def test_found_secret_serves_new_servers_after_a_reload(t):
    pooler = looking_up(t, pool_mode="transaction")
    with pooler.connect(user="u_scram", password=PASSWORD) as c:
        first = c.pid()
        with pooler.console(password=PASSWORD) as console:
            same(console.do("reload"), "RELOAD")
            same(console.do("reconnect"), "RECONNECT")
        assert c.pid() != first


@ours
def test_auth_file_knows_better_after_a_reload(t):
    pooler = looking_up(t, "plain", auth_query=f"select $1::text, '{PASSWORD}'::text")
    same(who(pooler, "u_scram"), "u_scram")
    pooler.userlist["u_scram"] = "another"
    pooler.write()
    with pooler.console(password=PASSWORD) as console:
        same(console.do("reload"), "RELOAD")
        same(console.do("reconnect"), "RECONNECT")
    with refused("password authentication failed"):
        pooler.connect(user="u_scram", password=PASSWORD)
    with refused('password authentication failed for user "u_scram"'):
        pooler.connect(user="u_scram", password="another")


@ours  # 1.18 has no replication
def test_client_with_replication_is_looked_up(t):
    pooler = looking_up(t)
    with pooler.connect(user="u_scram", password=PASSWORD, replication="database") as c:
        same(c.query("IDENTIFY_SYSTEM").rows[0][3], "app")
    with refused("no such user"):
        pooler.connect(user="stranger", password=PASSWORD, replication="database")


def test_users_of_auth_file_are_not_looked_up(t):
    pooler = looking_up(t, userlist={**LIST, "u_scram": "", "other": "of the file"})
    with refused("SASL authentication failed"):
        pooler.connect(user="u_scram", password=PASSWORD)
    same(who(pooler, "other", "of the file"), "other")


@ours  # since PgBouncer 1.19 or so
def test_users_with_an_entry_of_users_only_are_looked_up(t):
    pooler = looking_up(t, users={"u_scram": "pool_mode=statement"}, pool_mode="session")
    with pooler.connect(user="u_scram", password=PASSWORD) as c:
        same(c.value("select current_user"), "u_scram")
        c.send(pgwire.query("begin"))
        same(c.fatal().text, "transaction blocks not allowed in statement pooling mode")


def test_forced_user_gets_clients_who_were_looked_up(t):
    pooler = looking_up(t, databases={"app": t.postgres.address(user="u_md5", password=PASSWORD)})
    same(who(pooler, "u_scram"), "u_md5")


# ---- where it is asked --------------------------------------------------------------------------

def only_in_app2(t):
    """A query that knows u_scram in the database app2 alone."""
    sql(t, "create schema if not exists only_here", database="app2")
    return ("select rolname, rolpassword from pg_authid where rolname = $1 "
            "and to_regnamespace('only_here') is not null")


def test_clients_database_is_asked_if_none_is_named(t):
    pooler = looking_up(t, auth_query=only_in_app2(t))
    with refused("no such user"):
        pooler.connect(user="u_scram", password=PASSWORD)
    same(who(pooler, "u_scram", database="app2"), "u_scram")


@ours
@covers("settings", "auth_dbname")
def test_auth_dbname_is_where_auth_query_runs(t):
    pooler = looking_up(t, auth_query=only_in_app2(t), auth_dbname="app2")
    with pooler.connect(user="u_scram", password=PASSWORD) as c:
        same(c.value("select current_database()"), "app")


@ours
@covers("database_options", "auth_dbname")
def test_auth_dbname_of_an_entry_wins(t):
    pooler = looking_up(t, auth_query=only_in_app2(t), auth_dbname="app", databases={
        "app": t.postgres.address("app", auth_dbname="app2"), "app2": t.postgres.address("app2")})
    same(who(pooler, "u_scram"), "u_scram")


@covers("database_options", "auth_user")
def test_auth_user_of_an_entry_wins(t):
    sql(t, "drop role if exists powerless", "create role powerless login")
    pooler = looking_up(t, auth_user="powerless", databases={
        "app": t.postgres.address("app", auth_user="app"), "app2": t.postgres.address("app2")})
    same(who(pooler, "u_scram"), "u_scram")
    with refused(CONFIG_ERROR):
        pooler.connect(user="u_scram", password=PASSWORD, database="app2")


@ours
@covers("database_options", "auth_query")
def test_auth_query_of_an_entry_wins(t):
    entry = t.postgres.address("app") + f" auth_query='select $1::text, ''{PASSWORD}''::text'"
    pooler = looking_up(t, auth_query="select $1::text, null::text",
                        databases={"app": entry, "app2": t.postgres.address("app2")})
    same(who(pooler, "u_scram"), "u_scram")
    with refused("SASL authentication failed"):
        pooler.connect(user="u_scram", password=PASSWORD, database="app2")


@ours
def test_auth_dbname_may_come_from_the_any_database_entry(t):
    entry = " ".join(w for w in t.postgres.address().split() if not w.startswith("dbname"))
    pooler = looking_up(t, auth_query=only_in_app2(t), auth_dbname="app2",
                        databases={"app": t.postgres.address(), "*": entry})
    same(who(pooler, "u_scram"), "u_scram")
    pooler.wait_log("registered new auto-database: app2")


@ours
def test_auth_dbname_that_is_not_there_is_a_config_error(t):
    pooler = looking_up(t, auth_dbname="nix")
    with refused(CONFIG_ERROR, "08P01", "FATAL"):
        pooler.connect(user="u_scram", password=PASSWORD)


@ours
def test_auth_dbname_that_is_disabled_is_told(t):
    pooler = looking_up(t, auth_dbname="app2")
    with pooler.console(password=PASSWORD) as console:
        console.do("disable app2")
        with refused('authentication database "app2" is disabled', "08P01", "FATAL"):
            pooler.connect(user="u_scram", password=PASSWORD)
        console.do("enable app2")
    same(who(pooler, "u_scram"), "u_scram")


def test_disabled_database_is_told_after_the_lookup(t):
    pooler = looking_up(t)
    with pooler.console(password=PASSWORD) as console:
        console.do("disable app")
    with refused('database "app" is disabled', "08P01", "FATAL"):
        pooler.connect(user="u_scram", password=PASSWORD)
    with refused("SASL authentication failed"):
        pooler.connect(user="u_scram", password="wrong")
    with refused("no such user"):
        pooler.connect(user="stranger", password=PASSWORD)


@ours
def test_unknown_database_is_told_after_the_password_only(t):
    pooler = looking_up(t, auth_dbname="app")
    with refused("SASL authentication failed"):
        pooler.connect(user="u_scram", password="wrong", database="nix")
    with refused("no such database: nix"):
        pooler.connect(user="u_scram", password=PASSWORD, database="nix")
    # Nobody can be asked where neither database is there.
    pooler = looking_up(t, name="without")
    with refused("SASL authentication failed"):
        pooler.connect(user="u_scram", password=PASSWORD, database="nix")


@ours
def test_users_of_the_console_are_looked_up_with_auth_dbname(t):
    pooler = looking_up(t, auth_dbname="app", admin_users="u_scram", stats_users="u_md5")
    with pooler.console("u_scram", PASSWORD) as console:
        same(console.do("reload"), "RELOAD")
    with refused("SASL authentication failed"):
        pooler.console("u_scram", "wrong")
    with refused("not allowed"):
        pooler.console("other", PASSWORD)
    pooler = looking_up(t, admin_users="u_scram", name="without")
    with refused("SASL authentication failed"):
        pooler.console("u_scram", PASSWORD)


@ours
def test_name_in_the_row_decides_over_the_console(t):
    pooler = looking_up(t, "plain", auth_dbname="app", admin_users="boss", stats_users="u_md5",
                        auth_query=f"select 'u_md5' || substr($1, 1, 0), '{PASSWORD}'::text")
    with pooler.console("boss", PASSWORD) as console:
        with refused("admin access needed"):
            console.do("pause")


# ---- with HBA -----------------------------------------------------------------------------------

def looking_up_by_hba(t, rules, **more):
    pooler = looking_up(t, "hba", start=False, **more)
    pooler.settings["auth_hba_file"] = pooler.write_file("hba.conf", rules)
    pooler.write()
    pooler.start()
    return pooler


def test_methods_of_hba_get_what_was_found(t):
    pooler = looking_up_by_hba(t, "host all other 127.0.0.1/32 trust\nhost all u_md5 127.0.0.1/32 md5\n"
                               "host all u_scram 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 reject\n")
    for user, password in (("other", None), ("u_md5", PASSWORD), ("u_scram", PASSWORD)):
        same(who(pooler, user, password), user)
    with refused("SASL authentication failed"):
        pooler.connect(user="u_scram", password="wrong")


def test_user_is_looked_up_before_hba_decides(t):
    pooler = looking_up_by_hba(t, "host all all 127.0.0.1/32 reject\n")
    with refused("no such user", "08P01", "FATAL"):
        pooler.connect(user="stranger", password=PASSWORD)
    with refused("login rejected", "08P01", "FATAL"):
        pooler.connect(user="u_scram", password=PASSWORD)


def test_hba_sees_the_name_of_the_row(t):
    pooler = looking_up_by_hba(t, "host all boss 127.0.0.1/32 reject\nhost all other 127.0.0.1/32 trust\n",
                               auth_query="select 'other' || substr($1, 1, 0), null::text")
    same(who(pooler, "boss", None), "other")


# ---- what goes wrong ----------------------------------------------------------------------------

# auth_query, and why its server is closed.
WRONG = {
    "one_column": ("select $1::text", "expected 2 columns from auth_query, not 1"),
    "three_columns": ("select $1::text, 'x'::text, 1", "expected 2 columns from auth_query, not 3"),
    "null_name": ("select null::text, $1::text", "auth_query response contained null user name"),
    "mistake": ("select 1/(length($1) - length($1)), 'x'", "error response from auth_query"),
    "syntax_error": ("selct $1", "error response from auth_query"),
    "nothing_in_it": ("", "error response from auth_query"),
    "no_result": ("do $$ begin end $$", "error response from auth_query"),
    "several_statements": ("select 1; select $1, 'x'", "error response from auth_query"),
}
WRONG_OURS = {
    "empty_name": ("select substr($1, 1, 0), 'x'::text", "unexpected response from auth_query"),
    "endless_name": ("select repeat($1, 1000), 'x'::text", "unexpected response from auth_query"),
    "endless_secret": ("select $1::text, repeat('x', 2000)", "unexpected response from auth_query"),
    "huge_secret": ("select $1::text, repeat('x', 2000000)", "bad pkt header"),
    "copy": ("copy (select $1, 1) to stdout", "(unexpected|error) response|expected 2"),
}


def make_wrong(auth_query, reason):
    def test(t):
        pooler = looking_up(t, auth_query=auth_query)
        with begin_login(pooler, "u_scram") as c:
            found = c.closed()
            same([m.type for m in found], ["E"])
            error = found[0].error()
            same((error.severity, error.sqlstate, error.text), ("FATAL", "08P01", CONFIG_ERROR))
            same(set(found[0].fields()) - set("SVCM"), set())
        pooler.wait_log("closing because: " + reason)
        eventually(lambda: not t.postgres.backends("app", "app"), "the server is closed")
    return test


for _name, _wrong in {**WRONG, **WRONG_OURS}.items():
    _test = make_wrong(*_wrong)
    _test.__name__ = f"test_config_error_of_an_auth_query_with_{_name}"
    globals()[_test.__name__] = ours(_test) if _name in WRONG_OURS else _test


@ours  # 1.18 did not log it
def test_words_of_the_server_are_for_the_log_only(t):
    pooler = looking_up(t, auth_query="select $1::text, 1/0")
    with begin_login(pooler, "u_scram") as c:
        assert all(b"division" not in m.body for m in c.closed())
    pooler.wait_log("ERROR .*error in auth_query: ERROR: division by zero")


@ours
def test_auth_user_whom_the_server_refuses_is_a_config_error(t):
    pooler = looking_up(t, auth_user="nobody_may")
    for _ in range(2):  # at once, and while the failure is remembered
        with refused(CONFIG_ERROR, "08P01", "FATAL"):
            pooler.connect(user="u_scram", password=PASSWORD)
    pooler.wait_log("pg_hba.conf rejects connection")


@ours  # there only query_wait_timeout ends it
def test_server_that_cannot_be_reached_is_waited_for_no_longer_than_the_login_may_take(t):
    pooler = looking_up(t, databases={"app": "host=127.0.0.1 port=1"}, client_login_timeout=1)
    with refused("client_login_timeout.*", "08P01", "FATAL"):
        pooler.connect(user="u_scram", password=PASSWORD)


@ours
def test_lookups_wait_no_longer_than_query_wait_timeout(t):
    pooler = looking_up(t, query_wait_timeout=0.5, auth_dbname="app2", pool_mode="session",
                        default_pool_size=1)
    with pooler.console(password=PASSWORD) as console:
        console.do("pause app2")
        with refused("query_wait_timeout", "08P01", "FATAL"):
            pooler.connect(user="u_scram", password=PASSWORD)


def test_server_that_dies_in_the_middle_is_a_config_error(t):
    pooler = looking_up(t, auth_query="select $1::text, pg_sleep(100)::text")
    found = in_background(lambda: pooler.connect(user="u_scram", password=PASSWORD))
    backend = eventually(lambda: t.postgres.backends("app", "app"), "the query runs")[0]
    eventually(lambda: sql(t, "select 1 from pg_stat_activity where query like '%pg_sleep(100)%' "
                              f"and state = 'active' and pid = {backend}").rows, "it sleeps")
    sql(t, f"select pg_terminate_backend({backend})")
    error = eventually(lambda: found, "the login has ended")[0]
    assert isinstance(error, pgwire.PgError), error
    same((error.severity, error.sqlstate, error.text), ("FATAL", "08P01", CONFIG_ERROR))


def lock_of_secrets(t):
    """A query that waits for a table, and the session that holds it."""
    sql(t, "create table if not exists guarded (x int)")
    holder = t.postgres.connect(user="postgres", database="app")
    holder.query("begin; lock table guarded")
    return ("select rolname, rolpassword from pg_authid where rolname = $1 "
            "and (select count(*) from guarded) >= 0"), holder


def waiting_for_lock(t, count):
    eventually(lambda: len(sql(t, "select 1 from pg_stat_activity where wait_event_type = 'Lock' "
                                  "and usename = 'app'").rows) == count, f"{count} wait for a lock")


def test_late_answer_is_waited_for(t):
    auth_query, holder = lock_of_secrets(t)
    pooler = looking_up(t, auth_query=auth_query)
    found = in_background(lambda: who(pooler, "u_scram"))
    waiting_for_lock(t, 1)
    same(found, [])
    holder.vanish()
    same(eventually(lambda: found, "the login goes on"), ["u_scram"])


def test_reload_in_the_middle_is_not_noticed(t):
    auth_query, holder = lock_of_secrets(t)
    pooler = looking_up(t, auth_query=auth_query)
    found = in_background(lambda: who(pooler, "u_scram"))
    waiting_for_lock(t, 1)
    pooler.signal(signal.SIGHUP)
    pooler.wait_log("got SIGHUP")
    holder.vanish()
    same(eventually(lambda: found, "the login goes on"), ["u_scram"])


@ours
def test_client_that_leaves_in_the_middle_costs_nobody_anything(t):
    auth_query, holder = lock_of_secrets(t)
    pooler = looking_up(t, auth_query=auth_query, default_pool_size=2,
                        extra="[pgsplice]\nworker_threads = 3\n")
    with pooler.console(password=PASSWORD) as console:
        clients = [begin_login(pooler, "u_scram") for _ in range(8)]
        console.wait_pool(sv_active=2, cl_waiting=6)
        for client in clients:
            client.vanish()
        # Who waited is gone at once, who was asked about when the answer is there.
        console.wait_pool(sv_active=2, cl_waiting=0)
        pids = t.postgres.backends("app", "app")
        holder.vanish()
        console.wait_pool(sv_active=0, cl_active=0, cl_waiting=0)
        same(t.postgres.backends("app", "app"), pids, "the servers are still there")
    same(who(pooler, "u_scram"), "u_scram")


@ours
def test_server_whose_answer_nobody_waits_for_is_closed_after_a_while(t):
    auth_query, holder = lock_of_secrets(t)
    pooler = looking_up(t, auth_query=auth_query)
    with pooler.console(password=PASSWORD) as console:
        client = begin_login(pooler, "u_scram")
        console.wait_pool(sv_active=1)
        client.vanish()
        console.wait_pool(sv_active=0, seconds=10)
    pooler.wait_log("closing because: client disconnect while server was not ready")
    holder.vanish()


# ---- among others -------------------------------------------------------------------------------

def test_lookups_share_the_servers_of_their_pool(t):
    pooler = looking_up(t, "plain", default_pool_size=1, pool_mode="transaction",
                        auth_query="select rolname, rolname from pg_authid where rolname = $1")
    users = ["app2user%d" % n for n in range(20)]
    sql(t, *(f"drop role if exists {user}" for user in users),
        *(f"create role {user} login" for user in users))
    found = [in_background(lambda user=user: who(pooler, user, user)) for user in users]
    eventually(lambda: all(found), "all are logged in", 10)
    same([answer for answers in found for answer in answers], users)
    same(len(t.postgres.backends("app", "app")), 1)


@ours
def test_lookups_of_several_workers_get_their_own_answers(t):
    users = ["app2user%d" % n for n in range(20)]
    sql(t, *(f"drop role if exists {user}" for user in users),
        *(f"create role {user} login" for user in users))
    for size in (3, 20):
        pooler = looking_up(t, "plain", default_pool_size=size, pool_mode="transaction",
                            name=f"size{size}", extra="[pgsplice]\nworker_threads = 4\n",
                            auth_query="select rolname, rolname from pg_authid where rolname = $1")
        for _ in range(3):
            found = [in_background(lambda user=user: who(pooler, user, user)) for user in users]
            eventually(lambda: all(found), "all are logged in", 10)
            same([answer for answers in found for answer in answers], users)


def test_paused_database_is_waited_for(t):
    pooler = looking_up(t)
    with pooler.console(password=PASSWORD) as console:
        console.do("pause app")
        found = in_background(lambda: who(pooler, "u_scram"))
        console.wait_pool(cl_waiting=1)
        same(found, [])
        console.do("resume app")
        same(eventually(lambda: found, "the login goes on"), ["u_scram"])


@ours
def test_killed_database_ends_the_lookups(t):
    auth_query, holder = lock_of_secrets(t)
    pooler = looking_up(t, auth_query=auth_query, auth_dbname="app", default_pool_size=1)
    with pooler.console(password=PASSWORD) as console:
        found = [in_background(lambda: who(pooler, "u_scram", database="app2")) for _ in range(2)]
        console.wait_pool(sv_active=1, cl_waiting=1)
        console.do("kill app")
        for answers in found:
            same(eventually(lambda: answers, "the login has ended")[0].text, CONFIG_ERROR)
        holder.vanish()
        console.do("resume app")
    same(who(pooler, "u_scram"), "u_scram")


@ours
def test_suspend_waits_for_lookups(t):
    auth_query, holder = lock_of_secrets(t)
    pooler = looking_up(t, auth_query=auth_query)
    with pooler.console(password=PASSWORD) as console:
        found = in_background(lambda: who(pooler, "u_scram"))
        waiting_for_lock(t, 1)
        suspended = in_background(lambda: console.do("suspend"))
        holder.vanish()
        same(eventually(lambda: suspended, "suspended"), ["SUSPEND"])
        console.do("resume")
    same(eventually(lambda: found, "the login goes on"), ["u_scram"])


def test_limit_of_a_users_clients_holds_for_who_was_looked_up(t):
    pooler = looking_up(t, max_user_client_connections=1)
    with pooler.connect(user="u_scram", password=PASSWORD):
        with refused(r"client connections exceeded \(max_user_client_connections\)", "08P01"):
            pooler.connect(user="u_scram", password=PASSWORD)
    eventually(lambda: who(pooler, "u_scram"), "there is room again")


def test_limit_of_a_databases_clients_comes_before_the_lookup(t):
    pooler = looking_up(t, max_db_client_connections=1)
    with pooler.connect(user="u_scram", password=PASSWORD):
        with refused(r"client connections exceeded \(max_db_client_connections\)", "08P01"):
            pooler.connect(user="stranger", password=PASSWORD)


for _test in (test_limit_of_a_users_clients_holds_for_who_was_looked_up,
              test_limit_of_a_databases_clients_comes_before_the_lookup):
    ours(_test)


# ---- nothing of it reaches a client -------------------------------------------------------------

def test_lookup_is_reset_like_a_client_in_session_mode(t):
    # The query leaves something behind; auth_user, as a client, must not find it.
    pooler = looking_up(t, "plain", userlist={**LIST, "app": "x"}, pool_mode="session",
                        default_pool_size=1, auth_query="select $1::text, "
                        "set_config('application_name', 'left behind', false)")
    with refused("password authentication failed"):
        pooler.connect(user="u_scram", password="x")
    with pooler.connect(user="app", password="x") as c:
        assert c.value("show application_name") != "left behind"


@ours
def test_statement_of_the_lookup_is_not_left_behind(t):
    pooler = looking_up(t, "plain", userlist={**LIST, "app": "x"}, pool_mode="transaction",
                        default_pool_size=1, max_prepared_statements=0)
    with pooler.connect(user="app", password="x") as c:
        same(c.value("select 1"), "1")
        with refused("password authentication failed"):
            pooler.connect(user="u_scram", password="wrong")
        result = c.batch(pgwire.bind(values=["u_scram"]) + pgwire.execute() + pgwire.sync())
        same([m.type for m in result.messages], ["E", "Z"])
        same(result.messages[0].error().sqlstate, "26000")


@ours
def test_lookup_does_not_take_a_clients_unnamed_statement_away(t):
    pooler = looking_up(t, "plain", userlist={**LIST, "app": "x"}, pool_mode="transaction",
                        default_pool_size=1)
    with pooler.connect(user="app", password="x") as c:
        for sql_text in ("select 'mine'", "select 7"):  # left alone, and one that may be cached
            for _ in range(3):
                same(c.batch(pgwire.parse("", sql_text)).errors, [])
                with refused("password authentication failed"):
                    pooler.connect(user="u_scram", password="wrong")
                result = c.batch(pgwire.bind() + pgwire.describe("P") + pgwire.execute())
                same((result.errors, result.rows), ([], [(sql_text.split()[1].strip("'"),)]))


def test_bytes_of_an_answer_reach_nobody(t):
    # Clients of auth_user's own pool, busy on the very servers that look others up.
    pooler = looking_up(t, "plain", userlist={**LIST, "app": "x"}, pool_mode="transaction",
                        default_pool_size=2,
                        auth_query="select rolname, 'canary-' || rolname from pg_authid where rolname = $1")
    stop = threading.Event()

    def busy(number):
        with pooler.connect(user="app", password="x") as c:
            count = 0
            while not stop.is_set():
                wanted = f"{number}-{count}"
                for data in (pgwire.query(f"select '{wanted}'"),
                             pgwire.extended(f"select '{wanted}'") + pgwire.sync()):
                    c.send(data)
                    result = c.results()
                    same(result.value(), wanted)
                    assert all(b"canary" not in m.body for m in result.messages)
                count += 1
            return count
    workers = [in_background(lambda number=number: busy(number)) for number in range(4)]
    for _ in range(60):
        with pooler.open() as c:
            c.send(startup({"user": "u_scram", "database": "app"}))
            same(struct.unpack_from("!I", c.receive().body)[0], 3)
            c.send(message("p", text("canary-u_md5")))
            assert all(b"canary" not in m.body for m in c.closed())
    stop.set()
    for found in workers:
        count = eventually(lambda: found, "a client has ended")[0]
        assert isinstance(count, int) and count > 0, count


def test_found_secrets_are_not_logged(t):
    pooler = looking_up(t, "plain", verbose=2, auth_query="select $1::text, 'Found-but-secret'::text")
    with refused():
        pooler.connect(user="u_scram", password="Wrong-but-secret")
    with refused():
        pooler.connect(user="u_scram", password="Found-but-secret")
    for word in ("Found-but-secret", "Wrong-but-secret"):
        assert word not in pooler.log(), f"{word} is in the log"


@ours
def test_password_that_came_with_the_startup_packet_is_used(t):
    pooler = looking_up(t, "plain", auth_query=f"select $1::text, '{PASSWORD}'::text")
    with pooler.open() as c:
        c.send(startup({"user": "u_scram", "database": "app"}) + message("p", text(PASSWORD)) +
               pgwire.query("select 'early'"))
        c.until("Z")
        same(c.results().value(), "early")
