"""SCRAM bound to the TLS below it (SCRAM-SHA-256-PLUS): clients to the pooler, the pooler to servers, and who sits in between."""

import base64
import hashlib
import os
import re
import select
import socket
import shutil
import struct
import threading

import certificates
import pgwire
from harness import PASSWORD, POSTGRES_BIN, TOP, free_port, give_to_os_user, matches, same, slow
from pgwire import auth, error_response, message, sasl_initial, scram_secret, startup, text
from tls_wire import Offer, TlsSocket, ask, client_context, server_context

PLUS, PLAIN = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"
BOUND = "p=tls-server-end-point,,"
BOTH_LISTED, PLAIN_LISTED = text(PLUS) + text(PLAIN) + b"\0", text(PLAIN) + b"\0"
CHECK_FAILED = "SCRAM channel binding check failed"
NEGOTIATION = "SCRAM channel binding negotiation error"

UNBINDABLE = "ed_signed"  # signed with Ed25519: RFC 5929 has no hash for that
UNIT_CERTIFICATES = os.path.join(TOP, "tests", "unit", "tls")


def tls_pooler(t, certificate="server", **settings):
    settings = {"auth_type": "scram-sha-256", "userlist": {"app": PASSWORD, "admin": PASSWORD},
                **certificates.of(t).of_clients(certificate, sslmode="require"), **settings}
    pooler = t.pooler(**settings)
    pooler.console_host = pooler.folder
    return pooler


def unit_certificate(t, name):
    """Files of the pooler's own: certificate and key."""
    paths = []
    for end in ("pem", "key"):
        path = os.path.join(t.folder, f"{name}.{end}")
        shutil.copy(os.path.join(UNIT_CERTIFICATES, f"{name}.{end}"), path)
        os.chmod(path, 0o600)
        give_to_os_user(path)
        paths.append(path)
    return paths


def psql(t, port, more="", user="app", database="app", sslmode="require", password=PASSWORD, sql="select 'in'"):
    """What it prints, or why it did not get in."""
    words = f"host=127.0.0.1 port={port} user={user} dbname={database} sslmode={sslmode} sslrootcert=/none {more}"
    if "sslcert" not in more:
        words += " sslcert=/none"
    done = t.run_program([f"{POSTGRES_BIN}/psql", "-XAtd", words], input=sql, check=False,
                         env={**os.environ, "PGPASSWORD": password})
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def end_point(certificate, how="sha256"):
    """The hash of this PEM file's first certificate."""
    with open(certificate) as file:
        body = re.search("-----BEGIN CERTIFICATE-----(.*?)-----END", file.read(), re.S)[1]
    return hashlib.new(how, base64.b64decode(body)).digest()


# ---- clients ------------------------------------------------------------------------------------

IN = "^in$"
NOT_BOUND = "channel binding required"

# auth_type, the secret of the user, and what comes to a client with channel_binding = disable, prefer, require.
WISHES = ("disable", "prefer", "require")
CLIENTS = (
    ("scram-sha-256", PASSWORD, (IN, IN, IN)),
    ("scram-sha-256", scram_secret(PASSWORD), (IN, IN, IN)),
    ("md5", scram_secret(PASSWORD), (IN, IN, IN)),
    ("md5", PASSWORD, (IN, IN, NOT_BOUND)),
    ("plain", PASSWORD, (IN, IN, NOT_BOUND)),
    ("trust", PASSWORD, (IN, IN, NOT_BOUND)),
)


@slow(40)
def test_clients_bind_where_they_want_to(t):
    for auth_type, secret, row in CLIENTS:
        pooler = tls_pooler(t, auth_type=auth_type, userlist={"app": secret, "admin": ""})
        for wish, wanted in zip(WISHES, row):
            for version in ("TLSv1.2", "TLSv1.3"):
                got = psql(t, pooler.port, f"channel_binding={wish} ssl_min_protocol_version={version} "
                                           f"ssl_max_protocol_version={version}")
                assert re.search(wanted, got), f"{auth_type}, {secret[:8]}, {wish}, {version}: {got}"
        pooler.stop()


def test_clients_of_hba_lines_and_of_auth_query_bind(t):
    pooler = tls_pooler(t, auth_type="hba", auth_hba_file="hba", start=False, auth_user="lookup_admin",
                        userlist={"app": PASSWORD, "lookup_admin": ""},
                        auth_query="select usename::text, passwd from pg_shadow where usename = $1")
    with t.postgres.connect("postgres", "postgres") as admin:
        admin.query("drop role if exists lookup_admin")
        admin.query("create role lookup_admin login superuser")
    pooler.settings["auth_hba_file"] = pooler.write_file("hba", "hostssl all all all scram-sha-256\n")
    pooler.write()
    pooler.start()
    for user in ("app", "u_scram"):
        for wish in WISHES:
            matches(IN, psql(t, pooler.port, f"channel_binding={wish}", user=user))
    same("SASL authentication failed" in psql(t, pooler.port, "channel_binding=require", user="u_scram", password="x"), True)
    with t.postgres.connect("postgres", "postgres") as admin:
        pooler.stop()
        admin.query("drop role lookup_admin")


def test_sessions_of_the_console_bind(t):
    pooler = tls_pooler(t)
    matches("pgsplice", psql(t, pooler.port, "channel_binding=require", user="admin", database="pgbouncer", sql="show version"))


# The file among the unit tests' certificates, and the hash that RFC 5929 says for its signature; None: nothing to bind to.
KINDS = (("p256", "sha256"), ("pss", "sha384"), ("p384", "sha384"), ("rsa", "sha256"), ("sha512", "sha512"), ("sha1", "sha256"),
         (UNBINDABLE, None))


@slow(40)
def test_hash_is_that_of_the_certificates_signature(t):
    for name, how in KINDS:
        certificate, key = unit_certificate(t, name)
        pooler = t.pooler(auth_type="scram-sha-256", userlist={"app": PASSWORD}, client_tls_sslmode="require",
                          client_tls_cert_file=certificate, client_tls_key_file=key)
        for wish in WISHES:
            if how is None and wish == "require":
                matches("did not offer an authentication method that supports channel binding",
                        psql(t, pooler.port, "channel_binding=require"))
            elif name == "sha1" and wish == "prefer":
                continue
            else:
                got = psql(t, pooler.port, f"channel_binding={wish} ssl_min_protocol_version=TLSv1.2")
                assert got == "in", f"{name}, {wish}: {got}"
        if how is not None:
            with at_sasl(pooler) as c:
                same(bound_login(c, end_point(certificate, how)), "in", name)
        for user in ("app", "stranger"):
            at_sasl(pooler, user, lists=BOTH_LISTED if how else PLAIN_LISTED).vanish()
        pooler.stop()


def at_sasl(pooler, user="app", tls=True, lists=None):
    c = pooler.open(tls=Offer() if tls else None)
    c.send(startup({"user": user, "database": "app"}))
    body = c.receive().body
    same(struct.unpack_from("!I", body)[0], 10)
    if lists is not None:
        same(body[4:], lists)
    return c


def bound_login(c, binding, mechanism=PLUS, gs2=BOUND, password=PASSWORD, first=None):
    """"in", or the error."""
    scram = pgwire.Scram(password, gs2=gs2, binding=binding)
    c.send(sasl_initial(mechanism, scram.first() if first is None else first))
    found = c.receive()
    if found.type == "E":
        return found.error()
    c.send(message("p", scram.final(found.body[4:])))
    found = c.receive()
    if found.type == "E":
        return found.error()
    same(struct.unpack_from("!I", found.body)[0], 12)
    assert scram.server_is_genuine(found.body[4:])
    same(struct.unpack_from("!I", c.receive().body)[0], 0)
    return "in"


def test_plus_is_listed_first_where_there_is_something_to_bind_to(t):
    pooler = tls_pooler(t, client_tls_sslmode="allow")
    for user in ("app", "stranger"):
        at_sasl(pooler, user, lists=BOTH_LISTED).vanish()
        at_sasl(pooler, user, tls=False, lists=PLAIN_LISTED).vanish()
    with at_sasl(pooler, tls=False) as c:
        c.send(sasl_initial(PLUS, pgwire.Scram("x", gs2=BOUND).first()))
        same(c.fatal().text, "client selected an invalid SASL authentication mechanism")


def test_stranger_who_binds_cannot_be_told_from_others_before_the_end(t):
    made = certificates.of(t)
    pooler = tls_pooler(t, userlist={"app": scram_secret(PASSWORD)})
    firsts = []
    for user in ("app", "stranger", "stranger"):
        with at_sasl(pooler, user) as c:
            scram = pgwire.Scram("wrong", gs2=BOUND, binding=end_point(made.path("server")))
            c.send(sasl_initial(PLUS, scram.first()))
            found = c.receive()
            same(struct.unpack_from("!I", found.body)[0], 11)
            parts = dict(p.split("=", 1) for p in found.body[4:].decode().split(","))
            firsts.append((list(parts), len(parts["r"]), len(parts["s"]), parts["i"]))
            c.send(message("p", scram.final(found.body[4:])))
            error = c.fatal()
            same((error.text, error.sqlstate), ("SASL authentication failed", "08P01"))
    same(firsts[0], firsts[1])
    same(firsts[1], firsts[2])
    # A wrong binding is found before the proof is looked at: that, too, is the same for both.
    for user in ("app", "stranger"):
        with at_sasl(pooler, user) as c:
            same(bound_login(c, b"x" * 32).text, CHECK_FAILED)


def test_wrong_bindings_are_refused_in_postgresqls_words(t):
    made = certificates.of(t)
    pooler = tls_pooler(t)
    right = end_point(made.path("server"))
    with at_sasl(pooler) as c:
        same(bound_login(c, right), "in")
    with at_sasl(pooler) as c:
        same(bound_login(c, b"", PLAIN, "n,,"), "in")
    usual = ("SASL authentication failed", "08P01", None)
    check = (CHECK_FAILED, "28000", None)
    for wanted, arguments in (
            (check, (end_point(made.path("server-rsa")),)),
            (check, (right[:-1],)),
            (check, (right + b"\0",)),
            (check, (b"",)),
            (check, (right[:-1] + bytes([right[-1] ^ 1]),)),
            (usual, (right, PLUS, BOUND, "wrong")),
            (("malformed SCRAM message", "08P01", "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not "
              "include channel binding data."), (b"", PLUS, "n,,")),
            (("malformed SCRAM message", "08P01", "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not "
              "include channel binding data."), (b"", PLUS, "y,,")),
            ((NEGOTIATION, "28000", "The client supports SCRAM channel binding but thinks the server does not.  However, "
              "this server does support channel binding."), (b"", PLAIN, "y,,")),
            (('unsupported SCRAM channel-binding type "tls-unique"', "08P01", None), (right, PLUS, "p=tls-unique,,")),
            (('unsupported SCRAM channel-binding type "a?b?"', "08P01", None), (right, PLUS, "p=a\x1bb\n,,")),
            (usual, (right, PLAIN, BOUND)),
            (usual, (right, PLUS, "p=tls-server-end-point,a=other,")),
            (('unsupported SCRAM channel-binding type "tls-server-end-pointn="', "08P01", None), (right, PLUS, BOUND[:-2])),
            (usual, (b"", PLAIN, "n,,", PASSWORD, b"p")),
            (usual, (b"", PLUS, "n,,", PASSWORD, b"")),
    ):
        with at_sasl(pooler) as c:
            error = bound_login(c, *arguments)
            same((error.text, error.sqlstate, error.fields.get("D")), wanted, repr(arguments))
            c.closed()
    with at_sasl(pooler) as c:
        same(bound_login(c, right), "in")


def test_binding_is_to_the_certificate_that_the_client_has_seen(t):
    made = certificates.of(t)
    pooler = tls_pooler(t)
    old, new = end_point(made.path("server")), end_point(made.path("server-new"))
    with at_sasl(pooler) as here, pooler.open(tls=Offer()) as before:
        pooler.change(reload=False, client_tls_cert_file=made.path("server-new"), client_tls_key_file=made.key("server-new"))
        with pooler.console(password=PASSWORD) as console:
            same(console.do("reload"), "RELOAD")
        same(bound_login(here, old), "in")
        before.send(startup({"user": "app", "database": "app"}))
        same(before.receive().body[4:], BOTH_LISTED)
        same(bound_login(before, old), "in")
    with at_sasl(pooler) as c:
        same(bound_login(c, new), "in")
    with at_sasl(pooler) as c:
        same(bound_login(c, old).text, CHECK_FAILED)


# ---- somebody in between ------------------------------------------------------------------------

class Between:
    """Ends TLS with a certificate of his own, begins it anew to `port`, and passes everything on; `change` may do something to
    what the server says. `certificate` None: plain towards whoever connects."""

    def __init__(self, t, port, certificate="server-other", change=lambda data: data):
        made = certificates.of(t)
        self.context = certificate and server_context(made.path(certificate), made.key(certificate))
        self.to, self.change = port, change
        self.port = free_port(t.slot)
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.problems = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            taken, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(taken,), daemon=True).start()

    def serve(self, taken):
        try:
            with taken, socket.create_connection(("127.0.0.1", self.to)) as raw:
                if self.context:
                    assert taken.recv(8) == pgwire.ssl_request()
                    taken.sendall(b"S")
                    taken = TlsSocket(taken, self.context, server_side=True).handshake()
                ask(raw)
                self.pump(taken, TlsSocket(raw, client_context()).handshake())
        except OSError:
            pass
        except Exception as problem:
            self.problems.append(problem)

    def pump(self, client, server):
        other = {client: server, server: client}
        ready = [one for one in other if isinstance(one, TlsSocket)]  # what came with the end of the handshake
        while True:
            for one in ready:
                if isinstance(one, TlsSocket):
                    if select.select([one], [], [], 0)[0]:
                        one.pull()
                    one._read()
                    data, is_over = bytes(one.plain), one.end
                    one.plain.clear()
                else:
                    data = one.recv(65536)
                    is_over = not data
                if data:
                    other[one].sendall(self.change(data) if one is server else data)
                if is_over:
                    return
            ready = select.select([client, server], [], [])[0]


def hides_plus(data):
    """AuthenticationSASL without PLUS."""
    return data.replace(auth(10, BOTH_LISTED), auth(10, PLAIN_LISTED))


def test_psql_and_we_notice_who_sits_in_between(t):
    pooler = tls_pooler(t)
    between, hider = Between(t, pooler.port), Between(t, pooler.port, change=hides_plus)
    for to, wish, wanted in ((between, "disable", IN), (between, "prefer", CHECK_FAILED), (between, "require", CHECK_FAILED),
                             (hider, "disable", IN), (hider, "prefer", NEGOTIATION),
                             (hider, "require", "did not offer an authentication method that supports channel binding")):
        matches(wanted, psql(t, to.port, f"channel_binding={wish}"))
        same(to.problems, [])
    pooler.wait_log(f"closing because: {CHECK_FAILED}")
    pooler.wait_log(f"closing because: {NEGOTIATION}")
    matches(IN, psql(t, pooler.port, "channel_binding=require"))


# ---- servers ------------------------------------------------------------------------------------

def scram_only(t, certificate="server"):
    """PostgreSQL asks everybody for SCRAM over TLS; it has the users' own passwords."""
    t.postgres.of_one_test("hostssl all all all scram-sha-256\n", **certificates.of(t).of_postgres(certificate))


def pooler_to(t, port, sslmode="require", userlist=None, **settings):
    """To servers at this port, as user u_scram with a plain password."""
    return t.pooler(**{"databases": {"app": f"host=127.0.0.1 port={port} dbname=app"}, "server_tls_sslmode": sslmode,
                       "userlist": userlist or {"u_scram": PASSWORD}, "server_login_retry": 0.1,
                       "extra": "[pgsplice]\nserver_login_retry_max = 0\n", **settings})


def answer(pooler, password=None):
    """Of the server to a query, or the error."""
    try:
        with pooler.connect("u_scram", password=password) as c:
            return c.value("select 'in'")
    except pgwire.PgError as error:
        return error.text


def test_servers_are_bound_to(t):
    """That PostgreSQL accepts it is not enough, since it accepts SCRAM without binding, too: who sits in between has to fail."""
    scram_only(t)
    for to, wanted in ((t.postgres, IN), (Between(t, t.postgres.port), CHECK_FAILED),
                       (Between(t, t.postgres.port, change=hides_plus), NEGOTIATION)):
        pooler = pooler_to(t, to.port)
        matches(wanted, answer(pooler))
        pooler.stop()


def test_servers_with_certificates_of_all_kinds_are_logged_in_to(t):
    for certificate in ("server", "server-rsa", "server-chain", "server-ed25519"):
        scram_only(t, certificate)
        pooler = pooler_to(t, t.postgres.port)
        same(answer(pooler), "in", certificate)
        pooler.stop()


def test_keys_of_a_client_that_binds_open_a_server_that_is_bound_to(t):
    """Two channels, one secret."""
    scram_only(t)
    made = certificates.of(t)
    with t.postgres.admin() as admin:
        stored = admin.value("select rolpassword from pg_authid where rolname = 'u_scram'")
    pooler = pooler_to(t, t.postgres.port, userlist={"u_scram": stored}, auth_type="scram-sha-256",
                       **made.of_clients("server-rsa", sslmode="require"))
    for wish in ("require", "disable"):
        matches(IN, psql(t, pooler.port, f"channel_binding={wish}", user="u_scram"))
    pooler.stop()
    pooler = pooler_to(t, Between(t, t.postgres.port).port, userlist={"u_scram": stored}, auth_type="scram-sha-256",
                       **made.of_clients("server-rsa", sslmode="require"))
    matches(CHECK_FAILED, psql(t, pooler.port, "channel_binding=require", user="u_scram"))


def test_server_behind_somebody_elses_tls_is_logged_in_to(t):
    """A sidecar: plain to us, TLS to the server, which lists PLUS."""
    scram_only(t)
    for sslmode in ("disable", "prefer"):
        pooler = pooler_to(t, Plain(t, t.postgres.port).port, sslmode)
        same(answer(pooler), "in", sslmode)
        pooler.stop()


class Plain(Between):
    """Has no TLS towards us."""

    def __init__(self, t, port):
        super().__init__(t, port, certificate=None)

    def serve(self, taken):
        if taken.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL) == pgwire.ssl_request():
            taken.recv(8)
            taken.sendall(b"N")
        super().serve(taken)


class SaslServer:
    """A PostgreSQL that lists these mechanisms, writes down what it is told, and lets nobody in but who knows PASSWORD."""

    def __init__(self, t, lists, certificate="server", final=None):
        made = certificates.of(t)
        if certificate == UNBINDABLE:
            self.context = server_context(*unit_certificate(t, certificate))
        else:
            self.context = certificate and server_context(made.path(certificate), made.key(certificate))
        self.lists, self.final, self.told = lists, final, []
        self.secret = scram_secret(PASSWORD, b"salt of 16 bytes")
        self.fake = t.fake_server(self.serve)

    def secure(self, raw):
        return TlsSocket(raw, self.context, server_side=True).handshake()

    def serve(self, connection):
        connection.startup(self.secure if self.context else None)
        connection.send(auth(10, b"".join(text(name) for name in self.lists) + b"\0"))
        body = connection.receive().body
        mechanism, rest = body.split(b"\0", 1)
        first = rest[4:].decode()
        gs2, bare = re.fullmatch("([^,]*,[^,]*,)(.*)", first).groups()
        self.told.append((mechanism.decode(), gs2))
        nonce = re.search("r=(.*)", bare)[1]
        _, keys = self.secret.split("$")[1:]
        stored, server_key = (base64.b64decode(key) for key in keys.split(":"))
        challenge = f"r={nonce}ours,s={self.secret.split('$')[1].split(':')[1]},i=4096"
        connection.send(auth(11, challenge.encode()))
        without_proof, proof = connection.receive().body.decode().rsplit(",p=", 1)
        self.told.append(base64.b64decode(re.match("c=([^,]*),", without_proof)[1]))
        signed = ",".join((bare, challenge, without_proof)).encode()
        client_key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), pgwire._hmac(stored, signed)))
        if hashlib.sha256(client_key).digest() != stored:
            connection.send(error_response(S="FATAL", C="28P01", M="wrong password"))
            return
        signature = base64.b64encode(pgwire._hmac(server_key, signed))
        connection.send(auth(12, b"v=" + signature) if self.final is None else self.final)
        connection.send(connection.WELCOME)
        connection.serve_one_value("in")


NONE_SUPPORTED = "none of the server's SASL authentication mechanisms are supported"


def test_best_mechanism_that_both_can_is_chosen(t):
    made = certificates.of(t)
    ec, rsa = (BOUND.encode() + end_point(made.path(name)) for name in ("server", "server-rsa"))
    for lists, certificate, wanted in (
            ([PLUS, PLAIN], "server", (PLUS, BOUND, ec)),
            ([PLUS, PLAIN], "server-rsa", (PLUS, BOUND, rsa)),
            ([PLAIN, PLUS], "server", (PLUS, BOUND, ec)),
            (["SCRAM-SHA-512-PLUS", PLUS, "X"], "server", (PLUS, BOUND, ec)),
            ([PLUS], "server", (PLUS, BOUND, ec)),
            ([PLAIN], "server", (PLAIN, "y,,", b"y,,")),
            ([PLAIN], UNBINDABLE, (PLAIN, "y,,", b"y,,")),
            ([PLUS, PLAIN], UNBINDABLE, (PLAIN, "n,,", b"n,,")),
            ([PLUS], UNBINDABLE, None),
            ([PLAIN], None, (PLAIN, "n,,", b"n,,")),
            ([PLUS, PLAIN], None, (PLAIN, "n,,", b"n,,")),
            ([PLUS], None, None),
            (["SCRAM-SHA-1"], "server", None),
            ([], "server", None),
    ):
        server = SaslServer(t, lists, certificate)
        pooler = pooler_to(t, server.fake.port, "prefer")
        about = f"{lists}, {certificate}"
        if wanted is None:
            matches(NONE_SUPPORTED, answer(pooler))
            same(server.told, [], about)
        else:
            same(answer(pooler), "in", about)
            same((*server.told[0], server.told[1]), wanted, about)
        same(server.fake.problems, [], about)
        pooler.stop()


def test_server_that_binds_and_does_not_prove_itself_is_refused(t):
    for final in (auth(12, b"v=" + base64.b64encode(b"x" * 32)), auth(12, b"e=channel-bindings-dont-match"),
                  auth(12, b"e=server-does-support-channel-binding"), b"", auth(0)):
        server = SaslServer(t, [PLUS, PLAIN], final=final)
        pooler = pooler_to(t, server.fake.port)
        matches("invalid server signature|failed to verify server signature", answer(pooler))
        pooler.stop()
