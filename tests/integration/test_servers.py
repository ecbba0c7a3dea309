"""A PostgreSQL that misbehaves: each time its own connection ends, and nobody else's."""

import base64
import struct
import threading

import pgwire
from harness import FakeConnection, eventually, free_port, matches, ours, refused, same, slow
from pgwire import auth, error_response, message, parameter_status, query, ready


# Pauses between attempts grow; not in these tests, which fail many attempts in a row.
SHORT_PAUSES = "[pgsplice]\nserver_login_retry_max = 0\n"


def pooler_for(t, script, entry=None, **settings):
    """A pooler with the fake as `app` and the real server as `app2`."""
    fake = t.fake_server(script)
    settings.setdefault("server_login_retry", 0.2)
    settings.setdefault("pool_mode", "transaction")
    pooler = t.pooler(databases={"app": t.fake_entry(fake, **(entry or {})),
                                 "app2": t.postgres.address("app2")}, **settings)
    pooler.fake = fake
    return pooler


def healthy(pooler):
    """The other database works, and nothing is left hanging on the fake one."""
    with pooler.connect(database="app2") as c:
        same(c.value("select 1"), "1")
    assert pooler.runs()


def after_one_failure(t, fail, entry=None, **settings):
    """The first connection ends in `fail`, the next is proper: the waiting client gets it."""
    attempts = []

    def script(server):
        attempts.append(1)
        if len(attempts) == 1:
            fail(server)
        else:
            server.welcome()
            server.serve_one_value("proper")
    pooler = pooler_for(t, script, entry, **settings)
    with pooler.connect() as c:
        same(c.value("select 1"), "proper")
    assert len(attempts) >= 2
    healthy(pooler)
    return pooler


# ---- at login -----------------------------------------------------------------------------------

def test_server_that_closes_at_once_is_tried_again(t):
    after_one_failure(t, lambda server: None)


def test_server_that_closes_after_the_startup_packet_is_tried_again(t):
    after_one_failure(t, lambda server: server.startup())


@ours
def test_server_that_closes_anywhere_in_its_welcome_is_tried_again(t):
    welcome = FakeConnection.WELCOME
    cuts = [1, 4, 5, 9, 10, 30, len(welcome) - 19, len(welcome) - 6, len(welcome) - 1]
    attempts = []

    def script(server):
        server.startup()
        if cuts:
            cut = cuts.pop(0)
            attempts.append(cut)
            server.send(welcome[:cut])
        else:
            server.send(welcome)
            server.serve_one_value("proper")
    pooler = pooler_for(t, script, server_login_retry=0.05, extra=SHORT_PAUSES)
    with pooler.open(timeout=10) as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        c.authenticate("app", None)
        same(c.value("select 1"), "proper")
    same(len(attempts), 9)
    healthy(pooler)


@ours  # since 1.20
def test_server_that_is_starting_up_is_waited_for(t):
    def fail(server):
        server.startup()
        server.send(error_response(S="FATAL", V="FATAL", C="57P03",
                                   M="the database system is starting up"))
    after_one_failure(t, fail)


@ours  # its pace needs quick retries
@slow(30)
@ours
def test_garbage_instead_of_a_login_ends_that_connection(t):
    garbage = (b"\x00" * 64, b"\xff" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n",
               b"R\x00\x00\x00\x03", b"R\xff\xff\xff\xff", b"R\x7f\xff\xff\xff" + b"x" * 100,
               auth(99), message("R"), message("R", b"\0\0"), auth(5), auth(5, b"\1\2"),
               auth(0) + message("S", b"no zero"), auth(0) + message("S"),
               auth(0) + message("K", b"\0\0"), auth(0) + message("T", b"\0\0"),
               message("E"), message("E", b"S"), ready(), auth(12, b"v=x"), auth(11, b"r=x"))
    left = list(garbage)

    def script(server):
        server.startup()
        if left:
            server.send(left.pop(0))
            server.socket.settimeout(2)
            server.socket.recv(4096)
        else:
            server.send(server.WELCOME)
            server.serve_one_value("proper")
    pooler = pooler_for(t, script, server_login_retry=0.01, server_connect_timeout=1, extra=SHORT_PAUSES,
                        client_login_timeout=0, query_wait_timeout=0)

    def proper():
        try:
            with pooler.connect(timeout=12) as c:
                return c.value("select 1") == "proper"
        except (pgwire.PgError, pgwire.Closed):
            return False
    eventually(proper, "a proper login follows the garbage", 13)
    same(left, [])
    healthy(pooler)


def test_error_without_a_sqlstate_is_passed_on(t):
    def script(server):
        server.startup()
        server.send(error_response(S="FATAL", M="something is wrong here"))
    pooler = pooler_for(t, script)
    with refused("something is wrong here", severity="FATAL") as caught:
        pooler.connect()
    assert len(caught[0].sqlstate) in (0, 5)
    healthy(pooler)


def test_error_without_a_text_does_not_crash_anything(t):
    def script(server):
        server.startup()
        server.send(error_response(S="FATAL", C="XX000"))
    pooler = pooler_for(t, script, client_login_timeout=1)
    with refused():
        pooler.connect()
    healthy(pooler)


def test_very_long_server_error_is_survived(t):
    def script(server):
        server.startup()
        server.send(error_response(S="FATAL", C="XX000", M="m" * 20000))
    pooler = pooler_for(t, script, client_login_timeout=1)
    with refused() as caught:
        pooler.connect()
    assert caught[0].severity == "FATAL"
    healthy(pooler)


def scram_server(first, final=None):
    """A fake that plays SCRAM with these answers; they are made from the client's nonce."""
    def script(server):
        server.startup()
        server.send(auth(10, b"SCRAM-SHA-256\0\0"))
        nonce = server.receive().body.split(b",r=")[1]
        server.send(auth(11, first(nonce)))
        if final:
            server.receive()
            server.send(auth(12, final) + auth(0) + server.WELCOME[9:])
        server.socket.settimeout(3)
        server.socket.recv(4096)
    return script


SALT = base64.b64encode(b"0123456789abcdef")
SERVER_FIRSTS = {
    "an_overlong_nonce": lambda n: b"r=" + n + b"x" * 60000 + b",s=" + SALT + b",i=4096",
    "a_nonce_of_megabytes": lambda n: b"r=" + n + b"x" * 3000000 + b",s=" + SALT + b",i=4096",
    "a_foreign_nonce": lambda n: b"r=stranger" + n + b",s=" + SALT + b",i=4096",
    "an_unextended_nonce": lambda n: b"r=" + n[:4] + b",s=" + SALT + b",i=4096",
    "no_salt": lambda n: b"r=" + n + b"abc,i=4096",
    "a_broken_salt": lambda n: b"r=" + n + b"abc,s=!!!,i=4096",
    "a_huge_salt": lambda n: b"r=" + n + b"abc,s=" + base64.b64encode(b"s" * 30000) + b",i=zero",
    "no_rounds": lambda n: b"r=" + n + b"abc,s=" + SALT + b",i=0",
    "negative_rounds": lambda n: b"r=" + n + b"abc,s=" + SALT + b",i=-1",
    "nothing": lambda n: b"",
    "zero_bytes": lambda n: b"\0" * 50,
    "an_error_attribute": lambda n: b"e=other-error",
}


def make_scram_first(name, first):
    def test(t):
        pooler = pooler_for(t, scram_server(first), {"user": "app", "password": "secret"},
                            client_login_timeout=1)
        with refused() as caught:
            pooler.connect()
        same(caught[0].severity, "FATAL")
        healthy(pooler)
    test.__name__ = f"test_scram_server_with_{name}_is_refused"
    return test


for _name, _first in SERVER_FIRSTS.items():
    _test = make_scram_first(_name, _first)
    globals()[_test.__name__] = _test


@ours
def test_endless_scram_rounds_do_not_stop_the_pooler(t):
    first = lambda n: b"r=" + n + b"abc,s=" + SALT + b",i=2000000000"
    pooler = pooler_for(t, scram_server(first), {"user": "app", "password": "secret"},
                        client_login_timeout=2)
    with pooler.open() as c, pooler.connect(database="app2") as other:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        eventually(lambda: pooler.fake.accepted, "the fake was asked")
        for i in range(50):
            same(other.value(f"select {i}", 2), str(i))
        same(c.fatal(4).severity, "FATAL")


def test_false_server_signature_is_noticed(t):
    first = lambda n: b"r=" + n + b"abc,s=" + SALT + b",i=4096"
    for final in (b"v=" + base64.b64encode(b"\0" * 32), b"", b"v=" + b"A" * 50000):
        pooler = pooler_for(t, scram_server(first, final), {"user": "app", "password": "secret"},
                            client_login_timeout=1)
        with refused(r"server login failed: (invalid server signature|failed to verify server "
                     r"signature)|client_login_timeout \(server down\)", severity="FATAL"):
            pooler.connect()
    healthy(pooler)


@ours  # PgBouncer believes it
def test_login_without_the_servers_proof_is_refused(t):
    # AuthenticationOk right after SCRAM's first message: the server has proved nothing
    def script(server):
        server.startup()
        server.send(auth(10, b"SCRAM-SHA-256\0\0"))
        server.receive()
        server.send(server.WELCOME)
        server.serve_one_value("impostor")
    pooler = pooler_for(t, script, {"user": "app", "password": "secret"}, client_login_timeout=1)
    got = None
    try:
        with pooler.connect() as c:
            got = c.value("select 1")
    except (pgwire.PgError, pgwire.Closed):
        pass
    assert got is None, "a server that did not finish SCRAM was believed"
    healthy(pooler)


def test_server_with_unknown_sasl_mechanisms_is_refused(t):
    def script(server):
        server.startup()
        server.send(auth(10, b"SCRAM-SHA-256-PLUS\0OTHER\0\0"))
        server.socket.recv(4096)
    pooler = pooler_for(t, script, {"user": "app", "password": "secret"}, client_login_timeout=2)
    with refused("server login failed: none of the server's SASL authentication mechanisms are "
                 "supported", "08P01", "FATAL"):
        pooler.connect()


# ---- afterwards ---------------------------------------------------------------------------------

def answering(answer):
    def script(server):
        server.welcome()
        while True:
            found = server.receive()
            if found.type == "X":
                return
            if found.type == "Q":
                answer(server)
    return script


def test_server_that_closes_in_mid_answer_ends_its_client(t):
    def answer(server):
        server.send(message("T", struct.pack("!H", 0))[:4])
        server.socket.shutdown(2)
    pooler = pooler_for(t, answering(answer))
    with pooler.connect() as c:
        c.send(query("select 1"))
        same(c.fatal().text, "server conn crashed?")
    healthy(pooler)


def test_garbage_in_an_answer_ends_the_pair(t):
    garbage = (b"\0" * 50, b"D\0\0\0\1", b"Z\0\0\0\5X" + b"\xfe" * 20, b"\xff\xff\xff\xff\xff\xff")
    for data in garbage:
        def answer(server, data=data):
            server.send(data)
        pooler = pooler_for(t, answering(answer), query_timeout=1)
        with pooler.connect() as c:
            c.send(query("select 1"))
            same(c.fatal().severity, "FATAL", repr(data[:10]))
        healthy(pooler)


def test_idle_server_that_speaks_is_dropped(t):
    gate = threading.Event()
    spoken = threading.Event()
    first = []

    def script(server):
        server.welcome()
        if first:
            return server.serve_one_value("clean")
        first.append(1)
        server.receive()
        server.send(message("C", b"SELECT 0\0") + ready())
        gate.wait(5)
        server.send(message("D", b"\0\1\0\0\0\6poison"))
        spoken.set()
        server.socket.settimeout(5)
        server.socket.recv(100)
    pooler = pooler_for(t, script, default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as other:
        same(c.query("select 1").tags, ["SELECT 0"])
        gate.set()
        spoken.wait(5)
        pooler.wait_log("got dirty|closing because: .*idle server|S-0x.* closing because: ")
        same(other.value("select 2"), "clean")
        assert c.silent_for(0.05)


@ours
def test_second_ready_for_query_is_not_taken_for_an_answer(t):
    # one question, two answers: the second must never become the next client's
    state = []

    def answer(server):
        state.append(1)
        row = message("D", struct.pack("!HI", 1, 1) + str(len(state)).encode())
        one = message("T", struct.pack("!H", 1) + b"v\0" + struct.pack(
            "!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0)) + row + message("C", b"SELECT 1\0") + ready()
        server.send(one * 2 if len(state) == 1 else one)
    pooler = pooler_for(t, answering(answer), default_pool_size=1)
    with pooler.connect() as a, pooler.connect() as b:
        a.send(query("first"))
        same(a.results().value(), "1")
        b.send(query("second"))
        try:
            got = b.results(3).value()
        except (pgwire.Closed, pgwire.TimedOut):
            got = None
        assert got != "1", "an answer to one client reached another"


def test_notice_and_parameter_from_an_idle_server_are_harmless(t):
    def script(server):
        server.welcome()
        for value in ("first", "second"):
            server.receive()
            row = message("D", struct.pack("!HI", 1, len(value)) + value.encode())
            server.send(message("T", struct.pack("!H", 1) + b"v\0" + struct.pack(
                "!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0)) + row + message("C", b"SELECT 1\0") +
                        ready())
            server.send(message("N", b"SNOTICE\0C00000\0Mtold while idle\0\0") +
                        parameter_status("in_hot_standby", "on"))
        server.receive()
    pooler = pooler_for(t, script, default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as other:
        same(c.value("select 1"), "first")
        try:
            same(other.value("select 2"), "second")
        except pgwire.Closed:
            raise AssertionError("a notice from an idle server cost a client its connection")


def test_server_address_that_refuses_is_named_in_the_log(t):
    port = free_port(t.slot)
    pooler = t.pooler(databases={"app": f"host=127.0.0.1 port={port}"}, query_wait_timeout=1)
    with refused(severity="FATAL") as caught:
        pooler.connect()
    matches("query_wait_timeout|server down|server login has been failing|connect", caught[0].text)
    pooler.wait_log(rf"S-0x[0-9a-f]+: app/app@127\.0\.0\.1:{port} closing because: connect failed")


def test_unknown_host_name_does_not_stop_the_others(t):
    pooler = t.pooler(databases={"app": "host=no-such-host.invalid port=5432",
                                 "app2": t.postgres.address("app2")}, query_wait_timeout=1,
                      client_login_timeout=1)
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        healthy(pooler)
        same(c.fatal(8).severity, "FATAL")


@ours
def test_server_is_kept_while_the_client_is_inside_copy_data(t):
    """Everything is answered, a notice is half sent, and the client begins CopyData again: PostgreSQL would
    take whatever comes next for its body, so nobody else may get the server."""
    half, seen = threading.Event(), []
    notice = pgwire.message("N", b"SNOTICE\0Munasked\0\0")

    def script(server):
        server.welcome()
        server.receive()
        server.send(pgwire.message("G", b"\0\0\0"))
        server._exactly(8)  # CopyData: its header and a part of its body
        server.send(pgwire.message("E", b"SERROR\0C22P02\0Mbad\0\0") + pgwire.ready() + notice[:9])
        server._exactly(7)
        server._exactly(8)  # the second one, half
        half.set()
        server.send(notice[9:])
        seen.append(server._exactly(7))
        server.serve_one_value("proper")
    pooler = pooler_for(t, script, default_pool_size=1)
    data = pgwire.message("d", b"0123456789")
    with pooler.connect() as c, pooler.connect() as other:
        c.send(pgwire.query("copy t from stdin"))
        c.until("G")
        c.send(data[:8])
        c.until("Z")
        c.send(data[8:])
        c.send(data[:8])
        assert half.wait(5), "the second CopyData arrives"
        c.until("N")
        other.send(pgwire.query("select 1"))
        assert other.silent_for(0.2), "the server was given away inside CopyData"
        c.send(data[8:])
        same(other.results().value(), "proper")
    same(seen, [data[8:]])


@ours
def test_client_that_has_read_its_servers_last_words_does_not_go_on(t):
    """Everything is answered but the client is still inside CopyData, so it is linked when the server ends. It
    was told so, and would take the answers of another server for a mistake."""
    def script(server):
        server.welcome()
        server.receive()
        server.send(pgwire.message("G", b"\0\0\0"))
        server._exactly(8)  # CopyData: its header and a part of its body
        server.send(pgwire.message("E", b"SERROR\0C22P02\0Mbad\0\0") + pgwire.ready() +
                    pgwire.message("E", b"SFATAL\0C57P01\0Mterminating connection\0\0"))
        server._exactly(7)  # never comes
    pooler = pooler_for(t, script, default_pool_size=1)
    data = pgwire.message("d", b"0123456789")
    with pooler.connect() as c:
        c.send(pgwire.query("copy t from stdin"))
        c.until("G")
        c.send(data[:8])
        same([m.type for m in c.closed(5)], ["E", "Z", "E", "E"])


@ours
def test_last_words_end_the_client_also_where_the_count_is_uncertain(t):
    """The same after an extended COPY whose Sync was thrown away, so that an error could still be somebody's
    answer: what is FATAL is not. (Simulation, seed 144835.)"""
    def script(server):
        server.welcome()
        for _ in range(4):
            server.receive()
        server.send(pgwire.message("1") + pgwire.message("2") + pgwire.message("G", b"\0\0\0"))
        server._exactly(8)  # CopyData: its header and a part of its body
        server.send(pgwire.message("E", b"SERROR\0VERROR\0C22P02\0Mbad\0\0") + pgwire.ready() +
                    pgwire.message("E", b"SFATAAL\0VFATAL\0C57P01\0Mterminating connection\0\0"))
        server._exactly(7)  # never comes
    pooler = pooler_for(t, script, default_pool_size=1)
    data = pgwire.message("d", b"0123456789")
    with pooler.connect() as c:
        c.send(pgwire.parse("", "copy t from stdin") + pgwire.bind() + pgwire.execute() + pgwire.sync())
        c.until("G")
        c.send(data[:8])
        same([m.type for m in c.closed(5)], ["E", "Z", "E", "E"])
