"""Logging in: towards the client, towards the server, and with the secrets of auth_file."""

import base64
import os
import signal
import struct

import pgwire
from harness import PASSWORD, covers, eventually, ours, plain, refused, same
from pgwire import message, sasl_initial, scram_secret, startup, text

SECRETS = {"plain": lambda user: PASSWORD,
           "md5": lambda user: pgwire.md5_secret(user, PASSWORD),
           "scram": lambda user: scram_secret(PASSWORD)}


def secrets(kind, *users):
    return {user: SECRETS[kind](user) for user in users or ("app", "u_plain", "u_md5", "u_scram")}


def asked(pooler, user="app"):
    """The authentication request that this user gets."""
    with pooler.open() as c:
        c.send(startup({"user": user, "database": "app"}))
        found = c.receive()
        if found.type == "E":
            raise found.error()
        same(found.type, "R")
        return struct.unpack_from("!I", found.body)[0]


# ---- client side --------------------------------------------------------------------------------

def test_trust_asks_nothing_but_a_known_name(t):
    pooler = t.pooler(auth_type="trust")
    pooler.usable()
    with refused('"trust" authentication failed', "08P01", "FATAL"):
        pooler.connect(user="stranger")


def test_any_ignores_the_name_and_needs_a_forced_user(t):
    pooler = t.pooler(auth_type="any", databases={"app": t.postgres.address(user="other"),
                                                  "app2": t.postgres.address("app2")})
    with pooler.connect(user="whoever") as c:
        same(c.value("select current_user"), "other")
    with refused("bouncer config error", "08P01", "FATAL"):
        pooler.connect(user="whoever", database="app2")


def test_plain_asks_for_the_password_in_clear(t):
    pooler = t.pooler(auth_type="plain", userlist=secrets("plain"))
    same(asked(pooler), 3)
    with pooler.connect(password=PASSWORD) as c:
        same(c.value("select 1"), "1")


def test_md5_asks_with_a_fresh_salt(t):
    pooler = t.pooler(auth_type="md5", userlist=secrets("plain"))
    salts = set()
    for _ in range(3):
        with pooler.open() as c:
            c.send(startup({"user": "app", "database": "app"}))
            body = c.receive().body
            same(struct.unpack_from("!I", body)[0], 5)
            salts.add(body[4:])
    same(len(salts), 3)
    with pooler.connect(password=PASSWORD) as c:
        same(c.value("select 1"), "1")


@plain
def test_scram_offers_one_mechanism(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("plain"))
    with pooler.open() as c:
        c.send(startup({"user": "app", "database": "app"}))
        same(c.receive().body, struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")
    with pooler.connect(password=PASSWORD) as c:
        same(c.value("select 1"), "1")


def test_wrong_passwords_are_refused_in_the_usual_words(t):
    for method, wanted in (("plain", "password authentication failed"),
                           ("md5", "password authentication failed"),
                           ("scram-sha-256", "SASL authentication failed")):
        pooler = t.pooler(auth_type=method, userlist=secrets("plain"))
        for user in ("app", "stranger"):
            with refused(wanted, "08P01", "FATAL"):
                pooler.connect(user=user, password="wrong")
        pooler.wait_log("login failed: db=app user=app|closing because: " + wanted)


def test_unknown_users_cannot_be_told_from_known_ones_before_the_end(t):
    for method, code in (("plain", 3), ("md5", 5), ("scram-sha-256", 10)):
        pooler = t.pooler(auth_type=method, userlist=secrets("plain"))
        same([asked(pooler, user) for user in ("app", "stranger")], [code, code])


def test_mock_scram_exchange_looks_like_a_real_one(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("scram"))
    firsts = []
    for user in ("app", "stranger", "stranger"):
        with pooler.open() as c:
            c.send(startup({"user": user, "database": "app"}))
            c.receive()
            scram = pgwire.Scram(PASSWORD)
            c.send(sasl_initial("SCRAM-SHA-256", scram.first()))
            found = c.receive()
            same(struct.unpack_from("!I", found.body)[0], 11)
            parts = dict(p.split("=", 1) for p in found.body[4:].decode().split(","))
            same(list(parts), ["r", "s", "i"])
            firsts.append((len(parts["r"]), len(parts["s"]), parts["i"], parts["s"]))
            c.send(message("p", scram.final(found.body[4:])))
            if user == "stranger":
                same(c.fatal().text, "SASL authentication failed")
            else:
                same(c.receive().type, "R")
    same(firsts[0][:3], firsts[1][:3])
    same(firsts[1][3], firsts[2][3], "the salt of an unknown name changes, a known one's does not")


def test_empty_password_is_refused(t):
    for method in ("plain", "md5"):
        pooler = t.pooler(auth_type=method, userlist={"app": ""})
        with refused():
            pooler.connect(password="")
        with refused():
            pooler.connect(password="x")
    with t.pooler(auth_type="plain", userlist=secrets("plain")).open() as c:
        c.send(startup({"user": "app", "database": "app"}))
        c.receive()
        c.send(message("p", text("")))
        same(c.fatal().text, "empty password returned by client")


# The table of userlist_format.md: stored secret against what the client is asked for.
CLIENT_SIDE = {("plain", "plain"): True, ("plain", "md5"): True, ("plain", "scram-sha-256"): True,
               ("md5", "plain"): True, ("md5", "md5"): True, ("md5", "scram-sha-256"): False,
               ("scram", "plain"): True, ("scram", "md5"): True, ("scram", "scram-sha-256"): True}


def make_client_side(stored, method, works):
    def test(t):
        pooler = t.pooler(auth_type=method, userlist=secrets(stored, "app"))
        with refused():
            pooler.connect(password="wrong")
        if works:
            with pooler.connect(password=PASSWORD) as c:
                same(c.value("select 1"), "1")
        else:
            with refused("SASL authentication failed", "08P01", "FATAL"):
                pooler.connect(password=PASSWORD)
    word = "logs_in" if works else "is_refused"
    test.__name__ = f"test_client_{word}_with_{method.replace('-', '_')}_and_a_{stored}_secret"
    return test


for (_stored, _method), _works in CLIENT_SIDE.items():
    _test = make_client_side(_stored, _method, _works)
    globals()[_test.__name__] = _test


def test_md5_becomes_scram_for_a_scram_secret(t):
    pooler = t.pooler(auth_type="md5", userlist={**secrets("plain", "app"),
                                                 **secrets("scram", "u_scram")})
    same([asked(pooler, user) for user in ("app", "u_scram", "stranger")], [5, 10, 5])


# Stored secret against what the server asks for. The client itself logs in by trust.
SERVER_SIDE = {("plain", "u_plain"): True, ("plain", "u_md5"): True, ("plain", "u_scram"): True,
               ("md5", "u_md5"): True, ("md5", "u_scram"): False, ("scram", "u_md5"): False}


def make_server_side(stored, user, works):
    def test(t):
        pooler = t.pooler(auth_type="trust", userlist=secrets(stored, user))
        if works:
            with pooler.connect(user=user) as c:
                same(c.value("select current_user"), user)
        else:
            with refused("server login failed: wrong password type", "08P01", "FATAL"):
                pooler.connect(user=user)
    word = "accepts" if works else "does_not_accept"
    test.__name__ = f"test_server_{word}_a_{stored}_secret_for_{user[2:]}"
    return test


for (_stored, _user), _works in SERVER_SIDE.items():
    _test = make_server_side(_stored, _user, _works)
    globals()[_test.__name__] = _test


def test_scram_keys_of_the_client_log_in_at_the_server(t):
    with t.postgres.connect(user="postgres", database="postgres") as admin:
        stored = admin.value("select rolpassword from pg_authid where rolname = 'u_scram'")
    pooler = t.pooler(auth_type="scram-sha-256", userlist={"u_scram": stored})
    with pooler.connect(user="u_scram", password=PASSWORD) as c:
        same(c.value("select current_user"), "u_scram")


def test_scram_keys_of_a_client_outlive_a_reload(t):
    with t.postgres.connect(user="postgres", database="postgres") as admin:
        stored = admin.value("select rolpassword from pg_authid where rolname = 'u_scram'")
    pooler = t.pooler(auth_type="scram-sha-256", userlist={"u_scram": stored, "admin": PASSWORD},
                      pool_mode="transaction")
    with pooler.connect(user="u_scram", password=PASSWORD) as c:
        first = c.pid()
        with pooler.console(password=PASSWORD) as console:
            same(console.do("reload"), "RELOAD")
            same(console.do("reconnect"), "RECONNECT")
        assert c.pid() != first


def test_scram_secret_of_another_salt_is_refused_by_the_server(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("scram", "u_scram"))
    with refused():
        pooler.connect(user="u_scram", password=PASSWORD)


def test_scram_secret_without_a_scram_client_cannot_log_in_at_the_server(t):
    pooler = t.pooler(auth_type="trust", userlist=secrets("scram", "u_scram"))
    with refused("server login failed: wrong password type", "08P01", "FATAL"):
        pooler.connect(user="u_scram")


def test_entry_may_hold_the_servers_password(t):
    for user in ("u_plain", "u_md5", "u_scram"):
        pooler = t.pooler(databases={"app": t.postgres.address(user=user, password=PASSWORD)})
        with pooler.connect() as c:
            same(c.value("select current_user"), user)


def test_password_of_an_entry_without_a_user_is_nobodys(t):
    pooler = t.pooler(databases={"app": t.postgres.address(password="wrong")},
                      userlist=secrets("plain", "u_scram"))
    with pooler.connect(user="u_scram") as c:
        same(c.value("select current_user"), "u_scram")
    pooler = t.pooler(databases={"app": t.postgres.address(password=PASSWORD)},
                      userlist={"u_plain": ""}, name="right")
    with refused():
        pooler.connect(user="u_plain")


def test_forced_user_takes_its_password_from_auth_file(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="u_scram")},
                      userlist={"app": "", **secrets("plain", "u_scram")})
    with pooler.connect() as c:
        same(c.value("select current_user"), "u_scram")


def test_wrong_server_password_is_told_with_the_servers_words(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="u_scram", password="wrong")})
    with refused('password authentication failed for user "u_scram"', severity="FATAL"):
        pooler.connect()


# ---- auth_file ----------------------------------------------------------------------------------

def test_names_and_secrets_may_hold_quotes_and_blanks(t):
    pooler = t.pooler(auth_type="plain", userlist={'we"ird name': 'p"w d'},
                      databases={"app": t.postgres.address(user="app")})
    with pooler.connect(user='we"ird name', password='p"w d') as c:
        same(c.value("select 1"), "1")


def test_later_line_of_a_user_wins_and_comments_are_skipped(t):
    pooler = t.pooler(auth_type="plain", start=False)
    pooler.write_file("userlist.txt", '; a comment\n\n"app" "first"\n  "app" "second" anything\n')
    pooler.start()
    with refused("password authentication failed"):
        pooler.connect(password="first")
    with pooler.connect(password="second") as c:
        same(c.value("select 1"), "1")


def test_users_before_a_broken_line_are_known(t):
    pooler = t.pooler(auth_type="plain", start=False)
    pooler.write_file("userlist.txt", '"app" "fine"\n# no comment here\n"other" "lost"\n')
    pooler.start()
    pooler.wait_log("ERROR .*broken auth file")
    with pooler.connect(password="fine") as c:
        same(c.value("select 1"), "1")
    with refused():
        pooler.connect(user="other", password="lost")


def test_missing_auth_file_is_logged_and_not_fatal(t):
    pooler = t.pooler(auth_type="trust", auth_file="/nonexistent/userlist.txt",
                      users={"app": "pool_mode=session"})
    pooler.wait_log(r"(ERROR|WARNING) .*/nonexistent/userlist\.txt")
    assert pooler.runs()


def test_new_users_are_known_after_reload(t):
    pooler = t.pooler(auth_type="plain", userlist=secrets("plain", "app"))
    with pooler.connect(password=PASSWORD) as old:
        pooler.userlist["other"] = "new secret"
        pooler.write()
        with refused("password authentication failed"):
            pooler.connect(user="other", password="new secret")
        pooler.signal(signal.SIGHUP)
        pooler.wait_log("got SIGHUP, re-reading config")

        def known():
            try:
                with pooler.connect(user="other", password="new secret") as c:
                    return c.value("select 1") == "1"
            except pgwire.PgError:
                return False
        eventually(known, "the new user is known")
        same(old.value("select 1"), "1")


def test_changed_password_counts_after_reload(t):
    pooler = t.pooler(auth_type="plain", admin_users="app", userlist={"app": "old"})
    pooler.userlist["app"] = "newer"  # another size: the file counts as changed within one second
    pooler.write()
    with pooler.console(user="app", password="old") as console:
        same(console.do("reload"), "RELOAD")
    with refused("password authentication failed"):
        pooler.connect(password="old")
    with pooler.connect(password="newer") as c:
        same(c.value("select 1"), "1")


# ---- malformed SASL -----------------------------------------------------------------------------

def at_sasl(pooler, user="app"):
    c = pooler.open()
    c.send(startup({"user": user, "database": "app"}))
    same(struct.unpack_from("!I", c.receive().body)[0], 10)
    return c


@plain
def test_other_mechanisms_are_refused(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("plain"))
    for mechanism in ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "PLAIN", ""):
        with at_sasl(pooler) as c:
            c.send(sasl_initial(mechanism, pgwire.Scram("x").first()))
            same(c.fatal().text, "client selected an invalid SASL authentication mechanism")


@plain
def test_channel_binding_is_refused(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("plain"))
    with at_sasl(pooler) as c:
        c.send(sasl_initial("SCRAM-SHA-256", b"p=tls-server-end-point,,n=,r=abcdefghijkl"))
        same(c.fatal().text, "SASL authentication failed")
    with at_sasl(pooler) as c:  # "y": the client could, and believes that we cannot
        scram = pgwire.Scram(PASSWORD, gs2="y,,")
        c.send(sasl_initial("SCRAM-SHA-256", scram.first()))
        c.send(message("p", scram.final(c.receive().body[4:])))
        same(struct.unpack_from("!I", c.receive().body)[0], 12)


@ours
def test_malformed_first_messages_end_the_login(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("plain"), client_login_timeout=2)
    raw = lambda size, data: message("p", text("SCRAM-SHA-256") + struct.pack("!i", size) + data)
    good = pgwire.Scram("x").first()
    for packet in (raw(0, b""), raw(0x7FFFFFFF, good), raw(-5, good),
                   raw(len(good) + 1, good), raw(len(good) - 1, good),
                   message("p", b""), message("p", b"SCRAM-SHA-256"),
                   message("p", text("SCRAM-SHA-256")),
                   message("p", text("SCRAM-SHA-256") + b"\0\0"),
                   raw(3, b"n,,"), raw(5, b"n,,r="), raw(7, b"n,,n=x,"), raw(8, b"\0" * 8),
                   raw(9, b"n,,m=x,r="), raw(6, b"x,,n=,"), raw(4, b"\xff\xfe\xfd\xfc")):
        with at_sasl(pooler) as c:
            c.send(packet)
            errors = [m.error() for m in c.closed() if m.type == "E"]
            assert errors and errors[-1].severity == "FATAL", (packet, errors)
    with pooler.connect(password=PASSWORD) as c:
        same(c.value("select 1"), "1")


def test_huge_lengths_before_login_cost_nothing(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("plain"), client_login_timeout=1)
    before = pooler.memory()
    clients = []
    for size in (0x7FFFFFFF, 0x10000000, 100000, 0xFFFFFFFF, 3, 0):
        c = at_sasl(pooler)
        clients.append(c)
        c.send(b"p" + struct.pack("!I", size) + b"SCRAM-SHA-256\0")
        try:
            for _ in range(20):
                c.socket.send(b"x" * 50000, 0x40)  # MSG_DONTWAIT: never blocks
        except OSError:
            pass
    for c in clients:
        try:
            c.raw(1 << 20, 4)
        except pgwire.Closed:
            pass
        except OSError:
            pass
        c.vanish()
    grown = (pooler.memory("VmHWM") - before) / (1 << 20)
    assert grown < 10, f"grew by {grown:.1f} MB"
    with pooler.connect(password=PASSWORD) as c:
        same(c.value("select 1"), "1")


def test_malformed_final_messages_are_refused(t):
    pooler = t.pooler(auth_type="scram-sha-256", userlist=secrets("plain"))

    def final(change):
        with at_sasl(pooler) as c:
            scram = pgwire.Scram(PASSWORD)
            c.send(sasl_initial("SCRAM-SHA-256", scram.first()))
            c.send(message("p", change(scram.final(c.receive().body[4:]))))
            return [m.error().severity for m in c.closed() if m.type == "E"]

    proof = lambda raw: base64.b64encode(raw)
    changes = (lambda m: b"", lambda m: m[:-4], lambda m: m + b"A",
               lambda m: m.replace(b"c=biws", b"c=eSws"),
               lambda m: m.split(b",p=")[0],
               lambda m: m.split(b",p=")[0] + b",p=" + proof(b"\0" * 32),
               lambda m: m.split(b",p=")[0] + b",p=" + proof(b"\0" * 3000),
               lambda m: m.split(b",p=")[0] + b",p=!!!!", lambda m: m.replace(b"r=", b"r=x", 1),
               lambda m: m + b"\0" * 5000, lambda m: b"\0" + m)
    for change in changes:
        same(final(change), ["FATAL"])


def test_password_message_of_absurd_size_is_refused(t):
    for method in ("plain", "md5"):
        pooler = t.pooler(auth_type=method, userlist=secrets("plain"), client_login_timeout=1)
        with pooler.open() as c:
            c.send(startup({"user": "app", "database": "app"}))
            c.receive()
            c.send(message("p", text("x" * 60000)))
            errors = [m.error() for m in c.closed() if m.type == "E"]
            assert errors and errors[-1].severity == "FATAL", errors
        with pooler.connect(password=PASSWORD) as c:
            same(c.value("select 1"), "1")


def test_messages_before_the_password_are_refused(t):
    pooler = t.pooler(auth_type="md5", userlist=secrets("plain"))
    for packet in (pgwire.query("select 1"), pgwire.sync(), pgwire.parse("", "select 1")):
        with pooler.open() as c:
            c.send(startup({"user": "app", "database": "app"}))
            same(c.receive().type, "R")
            c.send(packet)
            found = c.closed()
            assert not any(m.type in "DCZK" for m in found), found


def test_query_sent_along_with_the_password_is_answered(t):
    # pipelined by an impatient driver: everything in one segment
    pooler = t.pooler(auth_type="plain", userlist=secrets("plain"))
    with pooler.open() as c:
        c.send(startup({"user": "app", "database": "app"}))
        same(c.receive().type, "R")
        c.send(message("p", text(PASSWORD)) + pgwire.query("select 'early'"))
        c.until("Z")
        same(c.results().value(), "early")


def test_passwords_are_not_logged(t):
    pooler = t.pooler(auth_type="plain", userlist=secrets("plain"), verbose=2)
    with pooler.connect(password=PASSWORD) as c:
        c.value("select 'Secret-in-a-query'")
    with refused():
        pooler.connect(password="Wrong-but-secret")
    for word in (PASSWORD, "Wrong-but-secret"):
        assert word not in pooler.log(), f"{word} is in the log"


# ---- forced users -------------------------------------------------------------------------------

# What is configured for the server's user, plain, md5 or SCRAM, and what the server asks for: the table of
# userlist_format.md. "text": the stored text is sent as it is, which is not the password.
FORCED = {("plain", "u_plain"): True, ("plain", "u_md5"): True, ("plain", "u_scram"): True,
          ("md5", "u_plain"): "text", ("md5", "u_md5"): True, ("md5", "u_scram"): False,
          ("scram", "u_plain"): "text", ("scram", "u_md5"): False, ("scram", "u_scram"): False}


def make_forced(stored, user, works, in_entry):
    def test(t):
        secret = SECRETS[stored](user)
        if stored == "scram":  # the server's very own: it opens nothing without a client's key
            with t.postgres.connect(user="postgres", database="postgres") as admin:
                secret = admin.value(f"select rolpassword from pg_authid where rolname = 'u_scram'")
        entry = t.postgres.address(user=user) + (f" password='{secret}'" if in_entry else "")
        pooler = t.pooler(databases={"app": entry},
                          userlist={"app": "", **({} if in_entry else {user: secret})})
        if works is True:
            with pooler.connect() as c:
                same(c.value("select current_user"), user)
        elif works == "text":
            with refused(f'password authentication failed for user "{user}"', severity="FATAL"):
                pooler.connect()
        else:
            with refused("server login failed: wrong password type", "08P01", "FATAL"):
                pooler.connect()
    test.__name__ = "test_forced_%s_%s_a_%s_secret_%s" % (
        user[2:], "accepts" if works is True else "does_not_accept", stored,
        "of_its_entry" if in_entry else "of_auth_file")
    return test


for (_stored, _user), _works in FORCED.items():
    for _in_entry in (False, True):
        _test = make_forced(_stored, _user, _works, _in_entry)
        globals()[_test.__name__] = _test


def test_scram_keys_of_a_client_do_not_open_the_server_for_a_forced_user(t):
    with t.postgres.connect(user="postgres", database="postgres") as admin:
        stored = admin.value("select rolpassword from pg_authid where rolname = 'u_scram'")
    pooler = t.pooler(auth_type="scram-sha-256", userlist={"u_scram": stored},
                      databases={"app": t.postgres.address(user="u_scram")})
    with refused("server login failed: wrong password type", "08P01", "FATAL"):
        pooler.connect(user="u_scram", password=PASSWORD)


def test_password_of_an_entry_comes_before_auth_file(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="u_scram", password=PASSWORD)},
                      userlist={"app": "", "u_scram": "wrong"})
    with pooler.connect() as c:
        same(c.value("select current_user"), "u_scram")


def test_forced_user_is_not_looked_up_for_its_password(t):
    pooler = t.pooler(databases={"app": t.postgres.address(user="u_scram")}, auth_user="app",
                      auth_query=f"select $1::text, '{PASSWORD}'::text")
    with refused("(server login failed: wrong password type|password authentication failed.*)"):
        pooler.connect()


# ---- auth_file, again ---------------------------------------------------------------------------

@ours  # PgBouncer keeps them, without a secret
def test_users_gone_from_auth_file_are_unknown_after_reload(t):
    pooler = t.pooler(auth_type="trust")
    with pooler.connect(user="other") as c:
        del pooler.userlist["other"]
        pooler.change()
        with refused('"trust" authentication failed', "08P01", "FATAL"):
            pooler.connect(user="other")
        same(c.value("select current_user"), "other", "who is there stays")


@ours
def test_reload_of_a_broken_auth_file_knows_the_users_before_the_mistake(t):
    pooler = t.pooler(auth_type="plain", userlist={"admin": "x", "app": "old", "other": "old"})
    pooler.write_file("userlist.txt", '"admin" "x"\n"app" "newer"\nnonsense\n"other" "newer"\n')
    with pooler.console(password="x") as console:
        same(console.do("reload"), "RELOAD")
    pooler.wait_log(r"ERROR broken auth file .*userlist\.txt:3")
    with pooler.connect(password="newer") as c:
        same(c.value("select 1"), "1")
    with refused("password authentication failed"):
        pooler.connect(user="other", password="newer")


@ours
def test_reload_without_its_auth_file_keeps_the_users(t):
    pooler = t.pooler(auth_type="plain", userlist={"admin": "x", "app": "secret"})
    os.unlink(pooler.userlist_file)
    with pooler.console(password="x") as console:
        same(console.do("reload"), "RELOAD")
    pooler.wait_log("ERROR .*could not open auth_file")
    with pooler.connect(password="secret") as c:
        same(c.value("select 1"), "1")


@ours  # there the pause after the failure is waited for
def test_changed_secret_of_auth_file_is_used_at_the_server(t):
    pooler = t.pooler(auth_type="trust", userlist={"u_scram": "wrong", "admin": ""},
                      pool_mode="transaction")
    with refused('password authentication failed for user "u_scram"'):
        pooler.connect(user="u_scram")
    pooler.userlist["u_scram"] = PASSWORD
    pooler.change()
    with pooler.connect(user="u_scram") as c:
        same(c.value("select current_user"), "u_scram")


# ---- scram_iterations ---------------------------------------------------------------------------

@ours  # since 1.25
@covers("settings", "scram_iterations")
def test_scram_iterations_are_those_of_secrets_made_from_plain_ones(t):
    pooler = t.pooler(auth_type="scram-sha-256", scram_iterations=1234,
                      userlist={**secrets("plain", "app"), **secrets("scram", "u_scram")})
    for user, rounds in (("app", "1234"), ("u_scram", "4096"), ("stranger", "1234")):
        with at_sasl(pooler, user) as c:
            c.send(sasl_initial("SCRAM-SHA-256", pgwire.Scram("x").first()))
            parts = dict(p.split("=", 1) for p in c.receive().body[4:].decode().split(","))
            same(parts["i"], rounds, user)
    with pooler.connect(password=PASSWORD) as c:
        same(c.value("select 1"), "1")


@ours
def test_scram_iterations_count_for_what_auth_query_finds(t):
    pooler = t.pooler(auth_type="scram-sha-256", scram_iterations=77, auth_user="app",
                      auth_query=f"select $1::text, '{PASSWORD}'::text")
    salts = set()
    for _ in range(2):
        with at_sasl(pooler, "u_scram") as c:
            c.send(sasl_initial("SCRAM-SHA-256", pgwire.Scram("x").first()))
            parts = dict(p.split("=", 1) for p in c.receive().body[4:].decode().split(","))
            same(parts["i"], "77")
            salts.add(parts["s"])
    same(len(salts), 1, "the salt of a name stays the same")
