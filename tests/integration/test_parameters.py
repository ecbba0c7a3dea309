"""Startup parameters, the welcome, and the settings that follow a client from server to server."""

import os
import socket

import pgwire
from harness import covers, eventually, matches, ours, refused, same
from pgwire import query

TRACKED = ("DateStyle", "client_encoding", "TimeZone", "standard_conforming_strings",
           "application_name")


# ---- the welcome --------------------------------------------------------------------------------

def test_welcome_has_the_usual_order(t):
    with t.pooler().open() as c:
        welcome = c.login()
        types = "".join(m.type for m in welcome)
        matches(r"^R(S+)KZ$", types)
        same(welcome[-1].body, b"I")
        same(len(c.key[1]), 4)


@ours
def test_tracked_parameters_come_last_and_in_order(t):
    with t.pooler().open() as c:
        c.login()
        same(c.param_order[-6:], list(TRACKED) + ["IntervalStyle"])
        same(len(c.param_order), len(set(c.param_order)))


def test_welcome_tells_what_postgresql_tells(t):
    with t.pooler().connect() as c, t.postgres.connect() as direct:
        same(c.params, direct.params)


def test_untracked_parameters_keep_the_order_of_the_server(t):
    with t.pooler().connect() as c, t.postgres.connect() as direct:
        tracked = set(TRACKED) | {"IntervalStyle"}
        same([n for n in c.param_order if n not in tracked],
             [n for n in direct.param_order if n not in tracked])


def test_welcome_echoes_what_the_client_asked_for(t):
    with t.pooler().connect(application_name="mine", TimeZone="Asia/Tokyo",
                            client_encoding="LATIN1",
                            DateStyle="German, DMY") as c:
        same([c.params[k] for k in ("application_name", "TimeZone", "client_encoding",
                                    "DateStyle")],
             ["mine", "Asia/Tokyo", "LATIN1", "German, DMY"])


@covers("settings", "login_notify_message")
@ours
def test_login_notify_message_is_a_notice_before_ready(t):
    with t.pooler(login_notify_message="maintenance at noon").open() as c:
        welcome = c.login()
        same("".join(m.type for m in welcome)[-3:], "KNZ")
        notice = welcome[-2].fields()
        same((notice["S"], notice["C"], notice["M"]), ("NOTICE", "00000", "maintenance at noon"))


def test_clients_log_in_while_postgresql_is_down_once_it_was_up(t):
    pooler = t.pooler(pool_mode="transaction", server_login_retry=0.2)
    with pooler.connect() as first:
        first.value("select 1")
        first_params = dict(first.params)
    t.postgres.stop()
    with pooler.connect() as second:
        same(second.params, first_params)
        t.postgres.start()


def test_client_waits_for_postgresql_at_its_first_login(t):
    t.postgres.stop()
    pooler = t.pooler(pool_mode="transaction", server_login_retry=0.2)
    with pooler.open() as c, pooler.console() as console:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        console.wait_pool(cl_waiting=1)
        assert c.silent_for(0.3)
        t.postgres.start()
        c.authenticate("app", None)
        same(c.value("select 1"), "1")


def test_query_while_postgresql_is_down_says_why(t):
    # PgBouncer fails it at once while the last login failed; we may let it wait first, for
    # query_wait_timeout. Either way it ends in a FATAL that names a cause.
    pooler = t.pooler(pool_mode="transaction", server_login_retry=0.2, query_wait_timeout=1)
    with pooler.connect() as c:
        c.value("select 1")
        t.postgres.stop()
        c.send(query("select 2"))
        error = c.fatal(4)
        same((error.severity, error.sqlstate), ("FATAL", "08P01"))
        matches(r"server conn crashed\?|query_wait_timeout|server login has been failing",
                error.text)


def test_query_waits_for_a_short_outage_of_postgresql(t):
    pooler = t.pooler(pool_mode="transaction", server_login_retry=0.2, server_idle_timeout=0)
    with pooler.connect() as c, pooler.console() as console:
        c.value("select 1")
        t.postgres.stop()
        console.wait_pool(sv_idle=0, sv_used=0)
        c.send(query("select 'survived'"))
        console.wait_pool(cl_waiting=1)
        assert c.silent_for(0.6)
        t.postgres.start()
        same(c.results().value(), "survived")


# ---- errors of the server's login ---------------------------------------------------------------

@ours
def test_error_of_the_servers_login_is_passed_on(t):
    pooler = t.pooler(databases={"nowhere": t.postgres.address("no_such_database")})
    with refused('database "no_such_database" does not exist', "3D000", "FATAL"):
        pooler.connect(database="nowhere")
    pooler.wait_log('WARNING .*server login failed: FATAL database "no_such_database" does not')


@ours
def test_error_of_the_servers_login_goes_to_all_waiting_clients(t):
    t.postgres.stop()
    pooler = t.pooler(databases={"nowhere": t.postgres.address("no_such_database")},
                      server_login_retry=0.2)
    clients = [pooler.open() for _ in range(3)]
    for c in clients:
        c.send(pgwire.startup({"user": "app", "database": "nowhere"}))
    with pooler.console() as console:
        console.wait_pool("nowhere", cl_waiting=3)
    t.postgres.start()
    for c in clients:
        found = c.closed()
        same([m.error().sqlstate for m in found if m.type == "E"], ["3D000"])


@ours
def test_role_that_may_not_log_in_is_told_by_postgresql(t):
    pooler = t.pooler(userlist={"nobody_may": ""})
    with refused(sqlstate="28000"):
        pooler.connect(user="nobody_may")


@ours
def test_connection_limit_of_a_role_is_told_by_postgresql(t):
    with refused(sqlstate="53300"):
        t.pooler(userlist={"limited": ""}).connect(user="limited")


def test_unknown_database_is_told_after_login(t):
    pooler = t.pooler(auth_type="plain", userlist={"app": "secret"})
    with refused("no such database: missing", "08P01", "FATAL"):
        pooler.connect(database="missing", password="secret")
    with refused("password authentication failed", "08P01", "FATAL"):
        pooler.connect(database="missing", password="wrong")


# ---- tracking -----------------------------------------------------------------------------------

def pair(t, **settings):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, **settings)
    return pooler.connect(application_name="a"), pooler.connect(application_name="b")


def test_application_name_follows_the_client(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect(application_name="first") as a, \
            pooler.connect(application_name="second") as b:
        for _ in range(3):
            same(a.value("show application_name"), "first")
            same(b.value("show application_name"), "second")


def test_set_of_a_tracked_parameter_follows_the_client(t):
    a, b = pair(t)
    for name, value in (("application_name", "set later"), ("timezone", "Asia/Tokyo"),
                        ("datestyle", "German, DMY"), ("standard_conforming_strings", "off")):
        before = b.value(f"show {name}")
        a.query(f"set {name} = '{value}'")
        same(b.value(f"show {name}"), before, name)
        same(a.value(f"show {name}"), value, name)


def test_client_encoding_follows_the_client(t):
    a, b = pair(t)
    a.query("set client_encoding = 'LATIN1'")
    same(a.params["client_encoding"], "LATIN1")
    same(b.query("select chr(228)").messages[1].body[-2:], b"\xc3\xa4")
    same(a.query("select chr(228)").messages[1].body[-1:], b"\xe4")
    same(b.value("show client_encoding"), "UTF8")


@ours
def test_interval_style_follows_the_client(t):
    a, b = pair(t)
    a.query("set intervalstyle = 'iso_8601'")
    same(b.value("select interval '90 minutes'"), "01:30:00")
    same(a.value("select interval '90 minutes'"), "PT1H30M")


@covers("settings", "track_extra_parameters")
@ours
def test_extra_parameters_are_tracked_when_listed(t):
    a, b = pair(t,
                track_extra_parameters="search_path, IntervalStyle, default_transaction_read_only")
    a.query("set default_transaction_read_only = on")
    same(b.value("show default_transaction_read_only"), "off")
    same(a.value("show default_transaction_read_only"), "on")


def test_parameters_of_startup_are_set_on_every_server(t):
    pooler = t.pooler(pool_mode="transaction", server_lifetime=0)
    with pooler.connect(TimeZone="Asia/Tokyo", DateStyle="SQL, DMY") as c:
        for _ in range(3):
            same(c.value("show timezone"), "Asia/Tokyo")
            same(c.value("select date '2026-01-31'"), "31/01/2026")


def test_parameter_names_match_without_case(t):
    with t.pooler(pool_mode="transaction").connect(TIMEZONE="Asia/Tokyo",
                                                   datestyle="SQL, DMY") as c:
        same(c.value("show timezone"), "Asia/Tokyo")
        same(c.value("show datestyle"), "SQL, DMY")


def test_values_with_quotes_and_backslashes_are_set_literally(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    for value in ("it's", "a\\b", "''", "\\'; select 1; --", "x y;z", "$1 \"q\""):
        with pooler.connect(application_name=value) as a, \
                pooler.connect(application_name="plain") as b:
            b.value("select 1")
            same(a.value("show application_name"), value)
            same(b.value("show application_name"), "plain")


@ours
def test_application_name_does_not_stay_for_a_client_without_one(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as without, pooler.connect(application_name="named") as named:
        for _ in range(2):
            same(named.value("show application_name"), "named")
            same(without.value("show application_name"), "")


def test_wrong_value_ends_the_client_at_its_first_query(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(TimeZone="No/Where") as c:
        same(c.params["TimeZone"], "No/Where")
        c.send(query("select 1"))
        error = c.fatal()
        same((error.severity, error.sqlstate, error.text),
             ("FATAL", "08P01", "invalid server parameter"))
    pooler.usable()


def test_answers_to_the_poolers_own_set_are_swallowed(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect(TimeZone="Asia/Tokyo") as a, pooler.connect(TimeZone="Asia/Seoul") as b:
        for c in (a, b, a):
            c.send(query("select 1"))
            same(c.results().types, "TDCZ")
        a.send(pgwire.extended("select 1") + pgwire.sync())
        b.send(pgwire.extended("select 1") + pgwire.sync())
        same([c.results().types for c in (a, b)], ["12TDCZ"] * 2)


def test_setting_inside_a_transaction_that_rolls_back_is_undone(t):
    a, b = pair(t)
    a.query("begin")
    a.query("set timezone = 'Asia/Tokyo'")
    same(a.params["TimeZone"], "Asia/Tokyo")
    a.query("rollback")
    same(a.params["TimeZone"], "UTC")
    b.value("select 1")
    same(a.value("show timezone"), "UTC")


# ---- startup parameters -------------------------------------------------------------------------

@ours
def test_options_may_set_tracked_parameters(t):
    pooler = t.pooler(pool_mode="transaction")
    for options in ("-c timezone=Asia/Tokyo", "-ctimezone=Asia/Tokyo", "--timezone=Asia/Tokyo",
                    " -c  datestyle=ISO  -c timezone=Asia/Tokyo "):
        with pooler.connect(options=options) as c:
            same(c.value("show timezone"), "Asia/Tokyo", options)


@ours
def test_backslashes_in_options_are_escapes(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(options="-c application_name=two\\ words\\\\") as c:
        same(c.value("show application_name"), "two words\\")


@ours
def test_unknown_settings_in_options_are_named(t):
    pooler = t.pooler()
    with refused("unsupported startup parameter in options: work_mem", "08P01", "FATAL"):
        pooler.connect(options="-c work_mem=1MB")


@ours
def test_other_switches_in_options_are_refused(t):
    pooler = t.pooler()
    for options in ("-d 5", "work_mem=1MB", "-c work_mem", "-c"):
        with refused("unsupported options startup parameter: only '-c config=val' and "
                     "'--config=val' are allowed", "08P01", "FATAL"):
            pooler.connect(options=options)


@ours
def test_ignored_options_drop_unknown_settings_only(t):
    pooler = t.pooler(pool_mode="transaction", ignore_startup_parameters="options")
    with pooler.connect(options="-c work_mem=1MB -c timezone=Asia/Tokyo") as c:
        same(c.value("show timezone"), "Asia/Tokyo")
        assert c.value("show work_mem") != "1MB"


@covers("settings", "ignore_startup_parameters")
def test_ignored_startup_parameters_are_dropped(t):
    pooler = t.pooler(ignore_startup_parameters="extra_float_digits, geqo")
    with pooler.connect(extra_float_digits="3", geqo="off") as c:
        same(c.value("show geqo"), "on")
    with refused("unsupported startup parameter: Geqo"):
        pooler.connect(Geqo="off")


def test_refused_startup_parameter_is_logged(t):
    pooler = t.pooler()
    with refused("unsupported startup parameter: search_path"):
        pooler.connect(search_path="somewhere")
    pooler.wait_log("search_path")


@covers("settings", "application_name_add_host")
def test_application_name_add_host_adds_the_client(t):
    pooler = t.pooler(pool_mode="transaction", application_name_add_host=1)
    with pooler.connect(application_name="psql") as c:
        port = c.socket.getsockname()[1]
        same(c.value("show application_name"), f"psql - 127.0.0.1:{port}")
        c.query("set application_name = 'plain'")
        same(c.value("show application_name"), "plain")
    with pooler.connect() as c:
        matches(r"^app - 127\.0\.0\.1:\d+$", c.value("show application_name"))


@ours
def test_application_name_add_host_over_ipv6_and_unix_sockets(t):
    pooler = t.pooler(listen_addr="127.0.0.1,::1", application_name_add_host=1)
    with pooler.connect(host="::1", application_name="six") as c:
        same(c.value("show application_name"), f"six - [::1]:{c.socket.getsockname()[1]}")
    with pooler.connect(host=pooler.folder) as c:
        wanted = f"app - unix({os.getpid()}@{socket.gethostname()}):{pooler.port}"
        same(c.params["application_name"], wanted)
        same(c.value("show application_name"), wanted[:63])
        with pooler.console() as console:
            same([row["application_name"] for row in console.table("show clients")
                  if row["user"] == "app"], [wanted])
    # for replication, too; a console's session has none
    with pooler.connect(replication="database", application_name="standby") as c:
        same(c.value("show application_name"),
             f"standby - 127.0.0.1:{c.socket.getsockname()[1]}")


@covers("database_options", "client_encoding", "datestyle", "timezone", "application_name")
def test_entry_may_set_parameters_of_its_servers(t):
    entry = t.postgres.address(client_encoding="LATIN1", timezone="Asia/Tokyo", datestyle="SQL",
                               application_name="of_the_entry")
    with t.pooler(databases={"app": entry}).connect() as c:
        same(c.params["client_encoding"], "LATIN1")
        same(c.value("show timezone"), "Asia/Tokyo")
        same(c.value("show datestyle"), "SQL, MDY")
        same(c.value("show application_name"), "of_the_entry")


def test_server_sees_the_clients_startup_user_and_database(t):
    fake_seen = []

    def script(server):
        server.startup()
        fake_seen.append(dict(server.params))
        server.send(server.WELCOME)
        server.serve_one_value()
    fake = t.fake_server(script)
    with t.pooler(databases={"app": t.fake_entry(fake)}).connect(TimeZone="Asia/Tokyo"):
        eventually(lambda: fake_seen, "the server was asked")
        same((fake_seen[0]["user"], fake_seen[0]["database"]), ("app", "app"))
