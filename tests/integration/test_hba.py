"""auth_type hba: who may come from where, and how he proves who he is; maps; peer."""

import contextlib
import os
import pwd
import re
import struct

from harness import (OS_USER, PASSWORD, POOLER_BIN, Skip, covers, eventually, ours, plain, refused,
                     same)
from pgwire import startup
from test_auth import secrets
from test_kernel import compiled

CODES = {0: "trust", 3: "password", 5: "md5", 10: "scram"}
REJECTED = "login rejected"
# PgBouncer 1.18 has one text for both.
NO_METHOD = REJECTED if os.path.basename(POOLER_BIN) == "pgbouncer" else \
    "no authentication method is found"
PEER_REFUSED = "unix socket login rejected"


def hba_pooler(t, rules, ident=None, files=None, start=True, **settings):
    """A pooler with these rules; `files` lie beside the HBA file."""
    settings.setdefault("auth_type", "hba")
    settings.setdefault("userlist", {**secrets("plain", "app", "other", "admin"), "stats": ""})
    pooler = t.pooler(start=False, listen_addr="127.0.0.1,::1", **settings)
    pooler.settings["auth_hba_file"] = pooler.write_file("hba.conf", rules)
    if ident is not None:
        pooler.settings["auth_ident_file"] = pooler.write_file("ident.conf", ident)
    for name, content in (files or {}).items():
        pooler.write_file(name, content)
    pooler.write()
    if start:
        pooler.start()
    return pooler


def places(pooler):
    return {"v4": "127.0.0.1", "v6": "::1", "unix": pooler.folder}


def asked(pooler, user="app", database="app", host="127.0.0.1", **params):
    """What a client is asked for: a word of CODES, or the error's text."""
    with pooler.open(host=host) as c:
        c.send(startup({"user": user, "database": database, **params}))
        found = c.receive()
        if found.type == "E":
            same((found.error().severity, found.error().sqlstate), ("FATAL", "08P01"))
            return found.error().text
        same(found.type, "R")
        return CODES[struct.unpack_from("!I", found.body)[0]]


def everywhere(pooler, **rest):
    return tuple(asked(pooler, host=host, **rest) for host in places(pooler).values())


def rewrite(pooler, rules):
    pooler.write_file("hba.conf", rules)
    pooler.signal(1)


@contextlib.contextmanager
def as_user(name):
    """Connects made in this block come from this OS user."""
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")
    os.seteuid(pwd.getpwnam(name).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


# ---- methods and transports ---------------------------------------------------------------------

def test_each_method_asks_for_what_it_needs(t):
    pooler = hba_pooler(t, "\n".join(
        f"{how} {method}" for method in ("trust", "password", "md5", "scram-sha-256", "reject")
        for how in (f"local all u_{method}", f"host all u_{method} 127.0.0.1/32",
                    f"host all u_{method} ::1/128")),
        userlist={f"u_{method}": PASSWORD for method in
                  ("trust", "password", "md5", "scram-sha-256", "reject")} | {"admin": ""},
        databases={"app": t.postgres.address("app", user="app")})
    for method, wanted in (("password", "password"), ("md5", "md5"), ("scram-sha-256", "scram"),
                           ("trust", "trust"), ("reject", REJECTED)):
        same(everywhere(pooler, user=f"u_{method}"), (wanted,) * 3, method)
    for method in ("password", "md5", "scram-sha-256"):
        for host in places(pooler).values():
            with pooler.connect(user=f"u_{method}", password=PASSWORD, host=host) as c:
                same(c.value("select 1"), "1")
            with refused("(SASL|password) authentication failed", "08P01", "FATAL"):
                pooler.connect(user=f"u_{method}", password="wrong", host=host)


def test_md5_becomes_scram_where_the_secret_is_scram(t):
    pooler = hba_pooler(t, "host all all 127.0.0.1/32 md5\n", userlist=secrets("scram", "app"),
                        databases={"app": t.postgres.address("app", user="app")})
    same(asked(pooler), "scram")
    with pooler.connect(password=PASSWORD) as c:
        same(c.value("select 1"), "1")


def test_trust_still_needs_a_known_name(t):
    pooler = hba_pooler(t, "host all all 127.0.0.1/32 trust\n")
    with refused('"trust" authentication failed', "08P01", "FATAL"):
        pooler.connect(user="stranger")
    for method in ("password", "md5", "scram-sha-256"):
        rewrite(pooler, f"host all all 127.0.0.1/32 {method}\n")
        eventually(lambda: asked(pooler, "stranger") == asked(pooler) == method.split("-")[0],
                   f"{method} is asked of known and unknown users")


@plain
def test_unix_sockets_have_local_lines_and_tcp_has_host_lines(t):
    pooler = hba_pooler(t, "local all all password\nhost all all 0.0.0.0/0 md5\n"
                           "hostssl all all ::/0 trust\nhostnossl all all ::/0 scram-sha-256\n")
    same(everywhere(pooler), ("md5", "scram", "password"))
    rewrite(pooler, "host all all 127.0.0.1/32 md5\n")
    eventually(lambda: everywhere(pooler) == ("md5", NO_METHOD, NO_METHOD), "only IPv4")
    rewrite(pooler, "local all all md5\n")
    eventually(lambda: everywhere(pooler) == (NO_METHOD, NO_METHOD, "md5"), "only unix")
    rewrite(pooler, "hostssl all all ::/0 md5\nhostssl all all 127.0.0.1/32 md5\n")
    eventually(lambda: everywhere(pooler) == (NO_METHOD,) * 3, "nobody has TLS")


@ours
def test_all_addresses_are_tcp_ones_of_both_kinds(t):
    pooler = hba_pooler(t, "host all all all md5\n")
    same(everywhere(pooler), ("md5", "md5", NO_METHOD))


def test_first_line_that_matches_decides(t):
    pooler = hba_pooler(t, "host app app 127.0.0.1/32 md5\nhost all other 127.0.0.1/32 reject\n"
                           "host all all 127.0.0.0/8 password\nhost all app 127.0.0.1/32 trust\n")
    same(asked(pooler), "md5")
    same(asked(pooler, database="app2"), "password")
    same(asked(pooler, user="other"), REJECTED)
    same(asked(pooler, host="::1"), NO_METHOD)


def test_refusals_are_logged_with_who_and_whence(t):
    pooler = hba_pooler(t, "host all other 127.0.0.1/32 reject\n")
    with refused(NO_METHOD, "08P01", "FATAL"):
        pooler.connect(database="app2")
    with refused(REJECTED, "08P01", "FATAL"):
        pooler.connect(user="other")
    pooler.wait_log(f"closing because: {NO_METHOD}")
    pooler.wait_log(f"pooler error: {REJECTED}")


@plain
@ours
def test_log_names_what_no_line_matched(t):
    pooler = hba_pooler(t, "host all other 127.0.0.1/32 reject\n")
    for host in places(pooler).values():
        same(asked(pooler, host=host), NO_METHOD)
    same(asked(pooler, user="other"), REJECTED)
    for host in ("127.0.0.1", "::1", r"\[local\]"):
        pooler.wait_log(rf'LOG C-0x.* no pg_hba.conf entry for host "{host}", user "app", '
                        'database "app", SSL off$')
    pooler.wait_log(r'LOG C-0x.* pg_hba.conf rejects connection for host "127.0.0.1", user '
                    '"other", database "app", SSL off$')


def test_cert_never_succeeds_without_tls(t):
    pooler = hba_pooler(t, "host all all 127.0.0.1/32 cert\nlocal all all cert\n")
    for host in ("127.0.0.1", pooler.folder):
        with refused("certificate authentication failed", "08P01", "FATAL"):
            pooler.connect(host=host)
    pooler.wait_log("ERROR C-0x.* TLS connection required")


# ---- names --------------------------------------------------------------------------------------

def test_names_lists_and_keywords(t):
    rules = """
# a comment
host app,app2 app,"other" 127.0.0.1/32 md5     # and another
host sameuser all 127.0.0.1/32 password
host "all" all 127.0.0.1/32 trust
host all "sameuser","all" 127.0.0.1/32 trust
  host "a ""b"" c" , x all 127.0.0.1/32 scram-sha-256#c
"""
    pooler = hba_pooler(t, rules)
    same([asked(pooler, user, database) for user, database in
          (("app", "app"), ("other", "app2"), ("admin", "app"), ("admin", "admin"), ("stats", "x"),
           ("stats", 'a "b" c'), ("App", "app"), ("app", "APP"))],
         ["md5", "md5", NO_METHOD, "password", "scram", "scram", NO_METHOD, NO_METHOD])
    same(pooler.log().count("WARNING"), len(re.findall("WARNING C-", pooler.log())))


def test_files_list_names(t):
    pooler = hba_pooler(t, "host @lists/databases @people 127.0.0.1/32 md5\n", start=False)
    os.mkdir(os.path.join(pooler.folder, "lists"), 0o755)
    pooler.write_file("lists/databases", "app2\nsameuser\n")
    pooler.write_file("people", 'somebody, other\n"an admin"\n@more\n')
    pooler.write_file("more", "admin")
    pooler.start()
    same([asked(pooler, user, database) for user, database in
          (("other", "app2"), ("other", "other"), ("other", "app"), ("admin", "app2"),
           ("an admin", "app2"), ("app", "app2"))],
         ["md5", "md5", NO_METHOD, "md5", "md5", NO_METHOD])


def test_masks_are_bits_or_addresses(t):
    pooler = hba_pooler(t, "")
    for address, wanted in (("127.0.0.0/8", "md5"), ("127.0.0.1/32", "md5"), ("0.0.0.0/0", "md5"),
                            ("127.0.0.0 255.255.255.0", "md5"), ("127.0.0.1/8", NO_METHOD),
                            ("127.0.0.2/32", NO_METHOD), ("::/0", NO_METHOD),
                            ("::ffff:127.0.0.1/128", NO_METHOD), ("10.0.0.0/8", NO_METHOD)):
        rewrite(pooler, f"host all all {address} md5\nhost all all ::1/128 password\n"
                        f"local {address.replace('/', '_').replace(' ', '_')} all trust\n")
        mark = address.replace("/", "_").replace(" ", "_")
        eventually(lambda: asked(pooler, database=mark, host=pooler.folder) != NO_METHOD, "reload")
        same(asked(pooler), wanted, address)
        same(asked(pooler, host="::1"), "md5" if address == "::/0" else "password", address)
    pooler.wait_log("WARNING address does not match mask")


def test_a_line_that_cannot_be_read_is_left_out(t):
    bad = ["host all all localhost md5", "host samerole all 127.0.0.1/32 trust",
           "host +app all 127.0.0.1/32 trust", "host all all 127.0.0.1/32 pam",
           "host all all 127.0.0.1/32 trust clientcert=1", "host all all 127.0.0.1/33 trust",
           'host all "app 127.0.0.1/32 trust', "host all all", "hosts all all 127.0.0.1/32 trust",
           "host all app, 127.0.0.1/32 trust", "host all all 127.0.0.1 trust",
           'host all all 127.0.0.1/32 "trust"', "host,all,all,127.0.0.1/32,trust"]
    pooler = hba_pooler(t, "\n".join(bad) + "\nhost all all 127.0.0.1/32 md5\n")
    same(asked(pooler), "md5")
    lines = re.findall(r"WARNING could not parse hba config line (\d+)", pooler.log())
    same([int(line) for line in lines], list(range(1, len(bad) + 1)))


@ours
def test_mistakes_are_named_with_file_and_line(t):
    pooler = hba_pooler(t, "\nhost all all 127.0.0.1/32 magic\nhost all all 127.0.0.1/32 md5 map=m\n",
                        ident="m root\n")
    hba, ident = pooler.settings["auth_hba_file"], pooler.settings["auth_ident_file"]
    for line in (f"hba config line 2: unsupported method: magic in configuration ({hba}:2)",
                 f'hba config line 3: there is no map "m" in auth_ident_file in configuration ({hba}:3)',
                 'ident config line 1: it is not "MAP SYSTEM-NAME USER" in configuration '
                 f"({ident}:1)"):
        assert f"WARNING could not parse {line}" in pooler.log(), (line, pooler.log())
    done = pooler.run_to_end(["--check", pooler.ini])
    same(done.returncode, 0, done.stdout)
    assert "unsupported method: magic" in done.stdout, done.stdout


# ---- the console --------------------------------------------------------------------------------

def test_console_is_the_database_pgbouncer(t):
    pooler = hba_pooler(t, "host pgbouncer admin 127.0.0.1/32 md5\n"
                           "host all all 127.0.0.1/32 reject\n")
    with pooler.console(password=PASSWORD) as console:
        same(console.do("show version"), "SHOW")
    same(asked(pooler), REJECTED)


def test_owner_of_the_process_passes_by_the_rules(t):
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")
    pooler = hba_pooler(t, "local all all reject\n")
    with as_user(OS_USER), pooler.console(user="pgbouncer", host=pooler.folder) as console:
        same(console.do("show version"), "SHOW")
    with as_user("daemon"), refused("not allowed"):
        pooler.console(user="pgbouncer", host=pooler.folder)


# ---- peer ---------------------------------------------------------------------------------------

def test_peer_is_the_os_user_of_the_same_name(t):
    pooler = hba_pooler(t, "local all all peer\nhost all all 127.0.0.1/32 peer\n",
                        userlist={"daemon": "", "games": "", "app": "", "admin": ""},
                        databases={"app": t.postgres.address("app", user="app")})
    for os_user, user in (("daemon", "daemon"), ("games", "games")):
        with as_user(os_user), pooler.connect(user=user, host=pooler.folder) as c:
            same(c.value("select current_user"), "app")
    for os_user, user in (("daemon", "games"), ("daemon", "app"), ("bin", "bin")):
        with as_user(os_user), refused(PEER_REFUSED, "08P01", "FATAL"):
            pooler.connect(user=user, host=pooler.folder)
    with as_user("daemon"), refused(PEER_REFUSED, "08P01", "FATAL"):
        pooler.connect(user="daemon")


@ours
@covers("settings", "auth_ident_file")
def test_maps_say_which_os_user_is_whom(t):
    pooler = hba_pooler(
        t, "local all app peer map=people\nlocal all other peer map=people\n"
           'local all admin peer map="all of them"\nlocal all stats peer map="quoted"\n'
           "host pgbouncer admin 127.0.0.1/32 password\n",
        ident='# a comment\npeople daemon app\npeople "games" other\npeople games app\n'
              '"all of them" bin all\nquoted bin "all"\n',
        userlist={"app": "", "other": "", "admin": PASSWORD, "stats": ""},
        databases={"app": t.postgres.address("app", user="app")})
    # In the variant of this test in which the key comes by RELOAD.
    eventually(lambda: asked_as(pooler, "daemon", "app") == "trust", "the map is there")
    allowed = {("daemon", "app"), ("games", "other"), ("games", "app"), ("bin", "admin")}
    for os_user in ("daemon", "games", "bin"):
        for user in ("app", "other", "admin", "stats"):
            same(asked_as(pooler, os_user, user),
                 "trust" if (os_user, user) in allowed else PEER_REFUSED, f"{os_user} as {user}")


def asked_as(pooler, os_user, user):
    with as_user(os_user):
        return asked(pooler, user, host=pooler.folder)


def test_os_user_without_a_name_is_nobody(t):
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")
    pooler = hba_pooler(t, "local all all peer\n", userlist={"app": "", "54321": ""})
    os.seteuid(54321)
    try:
        for user in ("app", "54321"):
            same(asked(pooler, user, host=pooler.folder), PEER_REFUSED)
    finally:
        os.seteuid(0)


@ours
def test_os_users_that_are_looked_up_for_ever_hold_up_nobody_else(t):
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")
    if b"__tsan_init" in open(POOLER_BIN, "rb").read():
        raise Skip("a user database cannot be put before the thread sanitizer's")
    library = compiled(t, "tests/integration/slow_names.c", "slow_names.so", "-fPIC", "-shared",
                       "-D_GNU_SOURCE")
    seen = os.path.join(t.folder, "lookups")
    open(seen, "w").close()
    os.chmod(seen, 0o666)
    os.chmod(t.folder, 0o755)
    os.environ.update(LD_PRELOAD=library, SLOW_NAMES_FILE=seen,
                      ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
    pooler = hba_pooler(t, "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\n",
                        userlist={"app": PASSWORD, "games": PASSWORD, "admin": PASSWORD},
                        databases={"app": t.postgres.address("app", host="localhost", user="app")},
                        client_login_timeout=2)
    del os.environ["LD_PRELOAD"]
    waiting = []
    with as_user("games"):
        for _ in range(20):
            client = pooler.open(host=pooler.folder)
            client.send(startup({"user": "games", "database": "app"}))
            waiting.append(client)
    eventually(lambda: os.path.getsize(seen) >= 1, "a lookup hangs")
    with pooler.connect(password=PASSWORD) as c:  # a hash, and the name of a host
        same(c.value("select 1"), "1")
    waiting.pop().vanish()
    for client in waiting:
        same(client.fatal().text, "client_login_timeout")
    with pooler.console(password=PASSWORD) as console:
        same(console.do("show version"), "SHOW")


# ---- the files ----------------------------------------------------------------------------------

@covers("settings", "auth_hba_file")
def test_reload_reads_the_file_again(t):
    pooler = hba_pooler(t, "host all all 127.0.0.1/32 password\nhost all all ::1/128 trust\n",
                        auth_type="trust")
    pooler.change(auth_type="hba")
    same(asked(pooler), "password")
    pooler.write_file("hba.conf", "host pgbouncer all ::1/128 trust\nhost all all 127.0.0.1/32 md5\n")
    with pooler.console(host="::1") as console:
        same(console.do("reload"), "RELOAD")
    same((asked(pooler), asked(pooler, host="::1")), ("md5", NO_METHOD))


@ours
def test_reload_without_a_file_keeps_the_old_rules(t):
    for missing in ("hba.conf", "ident.conf", "names"):
        pooler = hba_pooler(t, "host pgbouncer all 127.0.0.1/32 trust\n"
                               "host app @names 127.0.0.1/32 md5\n", ident="a b c\n",
                            files={"names": "app"})
        os.unlink(os.path.join(pooler.folder, missing))
        with pooler.console() as console, refused("RELOAD failed, see logs.*"):
            console.do("reload")
        same((asked(pooler), asked(pooler, user="other")), ("md5", NO_METHOD), missing)
        assert re.search(rf"ERROR could not open .*{missing}: No such file", pooler.log())


@ours
def test_no_start_without_the_files(t):
    for missing in ("hba.conf", "ident.conf", "names"):
        pooler = hba_pooler(t, "local all @names md5\n", ident="a b c\n", files={"names": "app"},
                            start=False)
        os.unlink(os.path.join(pooler.folder, missing))
        for arguments in ([pooler.ini], ["--check", pooler.ini]):
            done = pooler.run_to_end(arguments)
            same(done.returncode, 1)
            assert re.search(rf"could not open .*{missing}: No such file", done.stdout + done.stderr), \
                done
    pooler = t.pooler(start=False, auth_type="hba")
    done = pooler.run_to_end()
    same(done.returncode, 1)
    assert "auth_type hba needs auth_hba_file" in done.stderr, done.stderr


@ours
def test_set_reads_the_files_at_once(t):
    pooler = hba_pooler(t, "host all all 127.0.0.1/32 md5\nhost pgbouncer all ::1/128 trust\n",
                        auth_type="trust", files={"other.conf": "host all all ::1/128 reject\n"})
    with pooler.console() as console:
        same(console.do("set auth_type = hba"), "SET auth_type=hba")
        same(asked(pooler), "md5")
        with refused("SET failed"):
            console.do("set auth_hba_file = 'not.there'")
        same(asked(pooler), "md5")
        console.do(f"set auth_hba_file = '{pooler.folder}/other.conf'")
        same((asked(pooler), asked(pooler, host="::1")), (NO_METHOD, REJECTED))
        same(console.do("set auth_type = trust"), "SET auth_type=trust")
    pooler.usable()


@ours
def test_rules_are_not_read_for_another_auth_type(t):
    t.pooler(auth_type="trust", auth_hba_file="/not/there", auth_ident_file="/neither").usable()


def test_thousands_of_names_and_rules_still_decide_at_once(t):
    names = "\n".join(f"user{i}" for i in range(50000))
    rules = "".join(f"host db{i} all 10.{i // 256}.{i % 256}.0/24 reject\n" for i in range(9000))
    pooler = hba_pooler(t, rules + "host all @names 127.0.0.1/32 md5\n", files={"names": names})
    same([asked(pooler, user) for user in ("user0", "user31415", "user49999", "user50000")],
         ["md5"] * 3 + [NO_METHOD])
