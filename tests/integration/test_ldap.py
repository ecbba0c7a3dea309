"""auth_type = ldap: a real LDAP server says whether a password is right."""

import os
import re
import socket
import struct
import time

import pgwire
from harness import PASSWORD, covers, eventually, free_port, ours, refused, same, slow, within
from ldap_server import BASE, PEOPLE, READER, READER_PASSWORD, Slapd
from pgwire import message, startup, text
from test_hba import hba_pooler

FAILED = "LDAP authentication failed"
SIMPLE = f'ldapprefix="uid=" ldapsuffix=",{PEOPLE}"'
SEARCH = f'ldapbasedn="{BASE}" ldapbinddn="{READER}" ldapbindpasswd="{READER_PASSWORD}"'
PEOPLE_OF_TESTS = {"app": "Ldap-pw", "u_scram": PASSWORD, "u_plain": PASSWORD, "other": "Others-pw"}


def slapd(t, **more):
    return Slapd(t, PEOPLE_OF_TESTS, **more)


def pooler_with(t, options, **settings):
    """Nobody is in auth_file but the administrator, who has no entry in the directory."""
    return t.pooler(auth_type="ldap", auth_ldap_options=options, userlist={}, **settings)


def current_user(pooler, user, password):
    with pooler.connect(user=user, password=password) as client:
        return client.value("select current_user")


def refuses(pooler, user, password):
    with refused(FAILED, "08P01", "FATAL"):
        pooler.connect(user=user, password=password)


@ours
@covers("settings", "auth_type", "auth_ldap_options")
def test_simple_bind_lets_in_who_knows_the_password(t):
    pooler = pooler_with(t, slapd(t).options(SIMPLE))
    with pooler.open() as c:
        c.send(startup({"user": "app", "database": "app"}))
        same(struct.unpack_from("!I", c.receive().body)[0], 3)
    same(current_user(pooler, "app", "Ldap-pw"), "app")
    refuses(pooler, "app", "Others-pw")
    refuses(pooler, "stranger", "Ldap-pw")
    pooler.wait_log("LDAP: binding as the user: Invalid credentials")


@ours
def test_search_and_bind_finds_the_name_to_bind_as(t):
    server = slapd(t, mails={"app": "app@example", "other": "both@example", "u_scram": "both@example"})
    pooler = pooler_with(t, server.options(SEARCH))
    same(current_user(pooler, "app", "Ldap-pw"), "app")
    refuses(pooler, "app", "wrong")
    refuses(pooler, "stranger", "Ldap-pw")
    pooler.wait_log("LDAP: no entry fits the search")
    pooler.change(reload=False, auth_ldap_options=server.options(
        f'{SEARCH} ldapsearchfilter="(|(uid=$username)(mail=$username))"'), databases=None)
    pooler.databases["app"] = t.postgres.address("app", user="app")
    pooler = pooler_with(t, pooler.settings["auth_ldap_options"], databases=pooler.databases)
    same(current_user(pooler, "app@example", "Ldap-pw"), "app")
    refuses(pooler, "both@example", "Others-pw")
    pooler.wait_log("LDAP: (more than one entry fits the search|searching for the user: Size limit)")


@ours
def test_urls_and_attributes_are_those_of_pg_hba(t):
    server = slapd(t)
    url = f"ldap://127.0.0.1:{server.port}/{BASE}?cn?sub"
    bind = f'ldapbinddn="{READER}" ldapbindpasswd="{READER_PASSWORD}"'
    same(current_user(pooler_with(t, f'ldapurl="{url}" {bind}'), "app", "Ldap-pw"), "app")
    # Without a scope only the base itself is looked at.
    refuses(pooler_with(t, f'ldapurl="{url[:-4]}" {bind}'), "app", "Ldap-pw")
    refuses(pooler_with(t, server.options(f'{SEARCH} ldapsearchattribute=ou')), "app", "Ldap-pw")


@ours
def test_wrong_password_of_the_searcher_lets_nobody_in(t):
    options = slapd(t).options(f'ldapbasedn="{BASE}" ldapbinddn="{READER}" ldapbindpasswd=wrong')
    pooler = pooler_with(t, options)
    refuses(pooler, "app", "Ldap-pw")
    pooler.wait_log("LDAP: binding as ldapbinddn for the search: Invalid credentials")


@ours
def test_empty_password_never_reaches_the_server(t):
    server = slapd(t)
    # The trap is there: the directory takes a bind without a password for a success.
    t.run_program(["ldapwhoami", "-x", "-H", f"ldap://127.0.0.1:{server.port}", "-D", f"uid=app,{PEOPLE}", "-w", ""])
    for options in (SIMPLE, SEARCH):
        pooler = pooler_with(t, server.options(options))
        with refused("empty password returned by client", "08P01", "FATAL"):
            pooler.connect(password="")


@ours
def test_a_name_is_never_part_of_the_filter(t):
    pooler = pooler_with(t, slapd(t).options(SEARCH))
    for name in ("*", "*)(uid=*", "app)(uid=app", "ap*", "app)(|(uid=*", "\\61pp", "(app)", "app\\"):
        refuses(pooler, name, "Ldap-pw")
    same(current_user(pooler, "app", "Ldap-pw"), "app")
    eventually(lambda: pooler.log().count("LDAP: no entry fits the search") == 8, "all were searched for")


@ours
def test_password_opens_the_servers(t):
    server = slapd(t)
    for workers in (1, 2):
        pooler = pooler_with(t, server.options(SIMPLE), extra=f"[pgsplice]\nworker_threads = {workers}\n"
                             "pool_shards = 1\n", name=f"w{workers}", pool_mode="transaction")
        for user in ("u_scram", "u_plain", "u_scram"):
            for _ in range(4):  # on either core, the one that has the pool or not
                same(current_user(pooler, user, PASSWORD), user)


@ours
def test_new_password_is_used_at_once(t):
    server = Slapd(t, {"u_scram": "Old-pw"})
    pooler = pooler_with(t, server.options(SIMPLE), server_login_retry=60)
    with refused('password authentication failed for user "u_scram"'):
        pooler.connect(user="u_scram", password="Old-pw")
    server.stop()
    other = Slapd.__new__(Slapd)
    os.rename(server.folder, server.folder + ".old")
    other.__init__(t, {"u_scram": PASSWORD})
    options = other.options(SIMPLE)
    pooler.settings["auth_ldap_options"] = options
    pooler.write()
    pooler.signal(1)
    pooler.wait_log("got SIGHUP")
    eventually(lambda: logs_in(pooler, "u_scram", PASSWORD), "the new password opens a server")


def logs_in(pooler, user, password):
    try:
        return current_user(pooler, user, password) == user
    except pgwire.PgError:
        return False


@ours
def test_password_of_a_forced_user_is_the_entrys(t):
    pooler = pooler_with(t, slapd(t).options(SIMPLE), databases={
        "app": t.postgres.address(user="u_scram", password=PASSWORD),
        "app2": t.postgres.address(user="u_md5")})
    same(current_user(pooler, "app", "Ldap-pw"), "u_scram")
    # The client's own password is not tried for another user.
    with refused("server login failed: wrong password type"):
        pooler.connect(user="app", database="app2", password="Ldap-pw")


@ours
def test_password_is_forgotten_with_the_method(t):
    pooler = pooler_with(t, slapd(t).options(SIMPLE), pool_mode="transaction")
    with pooler.connect(user="u_scram", password=PASSWORD) as old:
        first = old.pid()
        pooler.userlist["u_scram"] = ""
        pooler.userlist["admin"] = ""
        pooler.settings["auth_type"] = "trust"
        pooler.write()
        pooler.signal(1)
        eventually(lambda: console_opens(pooler), "trust holds")
        with pooler.console() as console:
            same(console.do("reconnect"), "RECONNECT")
        with refused("server login failed: wrong password type"):
            assert old.pid() != first


def console_opens(pooler):
    try:
        with pooler.console() as console:
            return console.table("show pools") is not None
    except pgwire.PgError:
        return False


@ours
def test_console_is_for_administrators_of_the_directory(t):
    pooler = pooler_with(t, slapd(t).options(SIMPLE), admin_users="app")
    with pooler.console(user="app", password="Ldap-pw") as console:
        same(console.config("auth_type"), "ldap")
    with refused(FAILED):
        pooler.console(user="app", password="wrong")
    with refused("not allowed"):
        pooler.console(user="other", password="Others-pw")


@ours
def test_missing_options_are_told_at_load_and_at_login(t):
    pooler = t.pooler(auth_type="ldap", userlist={})
    pooler.wait_log("WARNING auth_type ldap lets nobody in without auth_ldap_options")
    with refused("auth_ldap_options is null", "08P01", "FATAL"):
        pooler.connect(password="x")


@ours
def test_mistakes_in_the_options_are_named_with_their_line(t):
    pooler = t.pooler(auth_type="ldap", auth_ldap_options="ldapserver=a ldapbindpasswd=Se cret", start=False)
    done = pooler.run_to_end(["--check", pooler.ini])
    same(done.returncode, 1)
    assert re.search(r"ERROR auth_ldap_options: what follows ldapbindpasswd is no option; .*pooler\.ini:\d+\)",
                     done.stdout), done.stdout
    assert "cret" not in done.stdout


@ours
def test_auth_user_and_ldap_do_not_go_together(t):
    options = slapd(t).options(SIMPLE)
    pooler = pooler_with(t, options, databases={"app": t.postgres.address(auth_user="other"),
                                                "app2": t.postgres.address("app2")})
    with refused("bouncer config error", "08P01", "FATAL"):
        pooler.connect(password="Ldap-pw")
    with pooler.connect(database="app2", password="Ldap-pw") as c:
        same(c.value("select 1"), "1")


@ours
def test_another_server_is_asked_when_the_first_is_away(t):
    server = slapd(t)
    gone = free_port(t.slot)
    # All of them have one port: the address that nobody has is another one of loopback.
    options = f'ldapserver="127.0.0.2 127.0.0.1" ldapport={server.port} {SIMPLE}'
    same(current_user(pooler_with(t, options), "app", "Ldap-pw"), "app")
    pooler = pooler_with(t, f"ldapserver=127.0.0.1 ldapport={gone} {SIMPLE}")
    refuses(pooler, "app", "Ldap-pw")
    pooler.wait_log("LDAP: binding as the user: Can't contact LDAP server")
    server.stop()
    server.start()
    same(current_user(pooler_with(t, options), "app", "Ldap-pw"), "app")


def silent_server(t):
    """Takes connections and never says anything."""
    return t.fake_server(lambda connection: connection.receive() and time.sleep(3600))


@ours
def test_silent_server_costs_its_time_and_no_more(t):
    fake = silent_server(t)
    for tls in ("", "ldaptls=1", "ldapscheme=ldaps"):
        pooler = pooler_with(t, f"ldapserver=127.0.0.1 ldapport={fake.port} {SIMPLE} {tls}",
                             client_login_timeout=1, verbose=1, stats_period=1)
        started = time.monotonic()
        with refused("client_login_timeout|" + FAILED, "08P01", "FATAL"):
            pooler.connect(password="Ldap-pw")
        within(started, 0.9, 3, "the login")
        # The helper is free again.
        pooler.wait_log("1 passwords checked by LDAP, 0 cancelled, 0 refused")


@ours
@slow(60)
def test_logins_that_wait_for_a_silent_server_hold_up_nobody_else(t):
    fake = silent_server(t)
    pooler = hba_pooler(t, f"host all app all ldap ldapserver=127.0.0.1 ldapport={fake.port} {SIMPLE}\n"
                        "host all all all scram-sha-256\n", max_client_conn=1000, listen_backlog=1000,
                        databases={"app": t.postgres.address(user="u_scram", password=PASSWORD)},
                        verbose=1, stats_period=1)
    crowd = []
    for _ in range(200):
        client = pooler.open()
        client.send(startup({"user": "app", "database": "app"}) + message("p", text("Ldap-pw")))
        crowd.append(client)
    for client in crowd:
        same(client.receive().type, "R")
    eventually(lambda: fake.accepted >= 8, "all helpers of LDAP wait")
    # The others' keys, and those for the server's login, are made by other helpers.
    started = time.monotonic()
    for _ in range(5):
        same(current_user(pooler, "other", PASSWORD), "u_scram")
    within(started, 0, 5, "five logins by SCRAM")
    same([client.silent_for(0) for client in crowd], [True] * len(crowd))
    # Who leaves takes his question along, unless it is being asked.
    for client in crowd:
        client.vanish()
    pooler.wait_log(r"by LDAP, 19[0-9] cancelled, 0 refused", 30)


@ours
@slow(40)
def test_starttls_and_ldaps_check_the_certificate(t):
    server = slapd(t, tls=True)
    starttls = f"ldapserver=127.0.0.1 ldapport={server.port} ldaptls=1 {SIMPLE}"
    ldaps = f"ldapserver=127.0.0.1 ldapport={server.tls_port} ldapscheme=ldaps {SEARCH}"
    for options, why in ((starttls, "StartTLS: Connect error"),
                         (ldaps, "binding as ldapbinddn for the search: Can't contact LDAP server")):
        os.environ.pop("LDAPTLS_CACERT", None)
        pooler = pooler_with(t, options)
        refuses(pooler, "app", "Ldap-pw")
        pooler.wait_log("LDAP: " + why)
        os.environ["LDAPTLS_CACERT"] = server.certificate
        pooler = pooler_with(t, options)
        same(current_user(pooler, "app", "Ldap-pw"), "app")
        refuses(pooler, "app", "wrong")
    # StartTLS it was, not merely another port.
    same(server.log().count("STARTTLS"), 3)
    # The certificate is not this address's.
    refuses(pooler_with(t, starttls.replace("127.0.0.1", "127.0.0.2")), "app", "Ldap-pw")


@ours
def test_lines_of_hba_have_options_of_their_own(t):
    server = slapd(t)
    pooler = hba_pooler(t, f"local all all ldap {server.options(SIMPLE)} # for those who are here\n"
                        f"host all app all ldap {server.options(SEARCH)}\nhost all all all scram-sha-256\n",
                        userlist={"other": PASSWORD})
    same(current_user(pooler, "app", "Ldap-pw"), "app")
    refuses(pooler, "app", "wrong")
    same(current_user(pooler, "other", PASSWORD), "other")
    with pooler.connect(host=pooler.folder, user="other", password="Others-pw") as client:
        same(client.value("select current_user"), "other")
    pooler.write_file("hba.conf", f"host all all all ldap {server.options(SIMPLE)}\n")
    pooler.signal(1)
    eventually(lambda: logs_in(pooler, "other", "Others-pw"), "the new rules hold")


@ours
def test_line_of_hba_with_a_mistake_lets_nobody_in(t):
    pooler = hba_pooler(t, "host all app all ldap ldapserver=a ldapport=x ldapprefix=y\nhost all all all trust\n")
    pooler.wait_log(r"WARNING this line lets nobody in: ldap: ldapport has no port .*hba\.conf:1\)")
    refuses(pooler, "app", PASSWORD)
    pooler.connect(user="other").terminate()


@ours
def test_passwords_of_ldap_are_not_logged(t):
    pooler = pooler_with(t, slapd(t).options(SEARCH), verbose=3)
    same(current_user(pooler, "app", "Ldap-pw"), "app")
    refuses(pooler, "app", "Wrong-but-secret")
    for word in ("Ldap-pw", "Wrong-but-secret", READER_PASSWORD):
        assert word not in pooler.log(), f"{word} is in the log"


@ours
def test_bind_password_is_not_shown(t):
    pooler = t.pooler(auth_ldap_options="ldapserver=127.0.0.1 ldapbasedn=o=x ldapbindpasswd=Hidden-1")
    with pooler.console() as console:
        same(console.config("auth_ldap_options"), "***")
        assert "Hidden-1" not in repr(console.table("show config"))
    assert "Hidden-1" not in pooler.log()
