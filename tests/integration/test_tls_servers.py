"""TLS between the pooler and servers: whom it believes, and what it does when a server does it wrong."""

import re
import socket
import ssl
import threading

import certificates
import pgwire
import tls_wire
from harness import PASSWORD, POSTGRES_BIN, eventually, matches, ours, same, slow
from name_server import NameServer
from pgwire import query
from tls_wire import RECORD_ALERT, RECORD_DATA, RECORD_HANDSHAKE, V1_2, V1_3, TlsSocket, record, server_context

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
BRISK = "[pgsplice]\nserver_login_retry_max = 0\n"


def pooler_for(t, sslmode, name=None, ca="ca", **settings):
    """A pooler whose servers are spoken to in this way; `name` is the certificate that it shows them. PgBouncer does not say
    what it does not like before server_connect_timeout."""
    given = certificates.of(t).of_servers(name, ca, sslmode=sslmode)
    return t.pooler(**{"pool_mode": "transaction", "server_login_retry": 0.1, "server_connect_timeout": 4, **given, **settings})


class Backend:
    """Speaks for a PostgreSQL with this certificate (None: without TLS). Each query is answered with "plain" or "TLS", and
    in TLS with the common name of the pooler's certificate, if it was asked for one."""

    def __init__(self, t, certificate, host="127.0.0.1", wants=None, **context):
        made = certificates.of(t)
        self.context = certificate and server_context(made.path(certificate), made.key(certificate),
                                                      made.path(wants) if wants else None, **context)
        self.sessions = []
        self.fake = t.fake_server(self.serve, host=host)
        self.port = self.fake.port

    def secure(self, raw):
        secured = TlsSocket(raw, self.context, server_side=True)
        self.sessions.append(secured)
        return secured.handshake()

    def serve(self, connection):
        connection.welcome(self.secure if self.context else None)
        said = "plain"
        if isinstance(connection.socket, TlsSocket):
            said, shown = "TLS", connection.socket.tls.getpeercert()
            if shown:
                said += " " + dict(pair[0] for pair in shown["subject"])["commonName"]
        connection.serve_one_value(said)


# ---- whom we believe ----------------------------------------------------------------------------

NO, TLS, PLAIN = "refused", "TLS", "plain"
ALL = (PLAIN, TLS, TLS, TLS, TLS, TLS)
NO_FULL = (PLAIN, TLS, TLS, TLS, TLS, NO)
NO_VERIFY = (PLAIN, TLS, TLS, TLS, NO, NO)

# The server's certificate (None: it has no TLS), the host of the entry, where that is; and what each of MODES comes to. In
# `allow` TLS is tried first, as in `prefer`; `require` verifies nothing although there is an authority.
SERVERS = (
    (None, "127.0.0.1", "127.0.0.1", (PLAIN, PLAIN, PLAIN, NO, NO, NO)),
    ("server", "localhost", "127.0.0.1", ALL),
    ("server", "127.0.0.1", "127.0.0.1", ALL),
    ("server", "::1", "::1", ALL),
    ("server-rsa", "127.0.0.1", "127.0.0.1", ALL),
    ("server-ed25519", "127.0.0.1", "127.0.0.1", ALL),
    ("localhost", "localhost", "127.0.0.1", ALL),
    ("localhost", "127.0.0.1", "127.0.0.1", NO_FULL),
    ("upper-case", "localhost", "127.0.0.1", ALL),
    ("localhost", "LocalHost", "127.0.0.1", ALL),
    ("address", "127.0.0.1", "127.0.0.1", ALL),
    ("address", "::1", "::1", ALL),
    ("address", "localhost", "127.0.0.1", NO_FULL),
    ("address-as-name", "127.0.0.1", "127.0.0.1", NO_FULL),
    ("address-as-name", "::1", "::1", NO_FULL),
    ("cn-localhost", "localhost", "127.0.0.1", ALL),
    ("cn-localhost", "127.0.0.1", "127.0.0.1", NO_FULL),
    ("cn-address", "127.0.0.1", "127.0.0.1", ALL),
    ("elsewhere", "localhost", "127.0.0.1", NO_FULL),
    ("elsewhere", "127.0.0.1", "127.0.0.1", NO_FULL),
    ("nul-host", "localhost", "127.0.0.1", NO_FULL),
    ("server-other", "localhost", "127.0.0.1", NO_VERIFY),
    ("expired", "localhost", "127.0.0.1", NO_VERIFY),
    ("early", "localhost", "127.0.0.1", NO_VERIFY),
    ("server-chain", "localhost", "127.0.0.1", ALL),
    ("server-by-leaf", "localhost", "127.0.0.1", NO_VERIFY),
    ("server-as-client", "localhost", "127.0.0.1", NO_VERIFY),
)


class Asking:
    """A client that logs in and asks; `outcome` is what came of it, or why its server connection was closed."""

    def __init__(self, pooler, database):
        self.pooler, self.database = pooler, database
        self.client = pooler.open(timeout=20)
        self.client.send(pgwire.startup({"user": "app", "database": database}))

    def reason(self):
        return re.search(rf"(?m)S-0x\S+ {self.database}/app@.* closing because: (.*) \(age", self.pooler.log())

    def outcome(self):
        eventually(lambda: self.reason() or not self.client.silent_for(0.002), f"{self.database} comes to something", 10)
        if self.reason():
            self.client.vanish()
            return NO
        with self.client:
            self.client.authenticate("app", None)
            return self.client.value("select what()")


def check_servers(t, sslmode, servers=SERVERS, **settings):
    backends = [Backend(t, certificate, where) for certificate, _, where, _ in servers]
    pooler = pooler_for(t, sslmode, databases={f"d{i}": f"host={host} port={backends[i].port} dbname=app"
                                               for i, (_, host, _, _) in enumerate(servers)}, **settings)
    asking = [Asking(pooler, f"d{i}") for i in range(len(servers))]
    problems = []
    for one, (certificate, host, _, wanted) in zip(asking, servers):
        got, wanted = one.outcome(), wanted[MODES.index(sslmode)]
        if got != wanted:
            problems.append(f"{certificate} as {host}: got {got} ({one.reason() and one.reason()[1]}), wanted {wanted}")
    same(problems, [], sslmode)


def test_servers_are_spoken_to_in_mode_disable(t):
    check_servers(t, "disable")


def test_servers_are_spoken_to_in_mode_allow(t):
    check_servers(t, "allow")


def test_servers_are_spoken_to_in_mode_prefer(t):
    check_servers(t, "prefer")


def test_servers_are_believed_in_mode_require(t):
    check_servers(t, "require")


def test_servers_are_believed_in_mode_verify_ca(t):
    check_servers(t, "verify-ca")


def test_servers_are_believed_in_mode_verify_full(t):
    check_servers(t, "verify-full")


def test_chain_must_come_with_the_certificate(t):
    for mode in ("verify-ca", "verify-full"):
        check_servers(t, mode, [("server-chain-alone", "localhost", "127.0.0.1", NO_VERIFY)])


@ours
def test_common_name_does_not_count_beside_alternative_names(t):
    """As RFC 6125 and libpq have it. PgBouncer takes it when no other name fits."""
    check_servers(t, "verify-full", [("cn-beside-names", "localhost", "127.0.0.1", NO_FULL)])


@ours
def test_wildcards_stand_for_one_label(t):
    """By the name of the entry, whatever its address is."""
    names = NameServer(t, {name: {"A": ["127.0.0.1"]} for name in
                           ("db.pooler.test", "DB.POOLER.TEST", "a.b.pooler.test", "pooler.test", "db.other.test", "dbpooler.test")})
    wanted = {"db.pooler.test": ALL, "DB.POOLER.TEST": ALL, "a.b.pooler.test": NO_FULL, "pooler.test": NO_FULL,
              "db.other.test": NO_FULL, "dbpooler.test": NO_FULL}
    check_servers(t, "verify-full", [("wildcard", name, "127.0.0.1", row) for name, row in wanted.items()],
                  resolv_conf=names.resolv_conf)


@ours
def test_name_of_a_list_is_that_of_its_member(t):
    names = NameServer(t, {name: {"A": ["127.0.0.1"]} for name in ("one.pooler.test", "two.elsewhere.test")})
    backend = Backend(t, "wildcard")
    pooler = pooler_for(t, "verify-full", resolv_conf=names.resolv_conf, extra=BRISK, databases={
        "app": f"host=two.elsewhere.test,one.pooler.test port={backend.port} dbname=app"})
    with pooler.connect(timeout=10) as c:
        same(c.value("select what()"), "TLS")


def test_authorities_may_be_several(t):
    for name in ("server", "server-other"):
        backend = Backend(t, name)
        pooler = pooler_for(t, "verify-full", ca="both-ca", databases={"app": f"host=127.0.0.1 port={backend.port}"})
        with pooler.connect() as c:
            same(c.value("select what()"), "TLS")


def test_intermediate_authority_may_be_trusted_alone_with_its_root(t):
    backend = Backend(t, "server-chain-alone")
    made = certificates.of(t)
    pooler = pooler_for(t, "verify-full", start=False, databases={"app": f"host=127.0.0.1 port={backend.port}"})
    path = pooler.write_file("authorities", "".join(open(made.path(name)).read() for name in ("intermediate", "ca")))
    pooler.settings["server_tls_ca_file"] = path
    pooler.write()
    pooler.start()
    with pooler.connect() as c:
        same(c.value("select what()"), "TLS")


def test_refusal_of_a_server_is_logged_with_its_reason(t):
    plain, foreign = Backend(t, None), Backend(t, "server-other")
    pooler = pooler_for(t, "verify-full", databases={"plain": f"host=127.0.0.1 port={plain.port}",
                                                     "foreign": f"host=127.0.0.1 port={foreign.port}"})
    asking = [Asking(pooler, name) for name in ("plain", "foreign")]
    same([one.outcome() for one in asking], [NO, NO])
    matches("^server refused SSL", asking[0].reason()[1])
    pooler.wait_log(r"(?i)certificate verify failed|TLS")


@ours
def test_clients_hear_why_a_server_is_not_believed(t):
    """The DETAIL of query_wait_timeout says what is wrong, as with any server that cannot be reached."""
    for certificate, detail in ((None, "SSL|TLS"), ("server-other", "(?i)certificate|TLS"), ("expired", "(?i)certificate|expired|TLS")):
        backend = Backend(t, certificate)
        pooler = pooler_for(t, "verify-full", query_wait_timeout=1, extra=BRISK, databases={"app": f"host=127.0.0.1 port={backend.port}"})
        with pooler.open() as c:
            c.send(pgwire.startup({"user": "app", "database": "app"}))
            error = c.fatal(8)
            matches(detail, error.fields.get("D", ""))
        pooler.stop()


# ---- our own certificate ------------------------------------------------------------------------

def test_certificate_is_shown_to_servers_that_want_one(t):
    backends = {wants: Backend(t, "server", wants=wants) for wants in (None, "ca", "other-ca")}
    databases = {f"d{i}": f"host=127.0.0.1 port={backend.port} dbname=app" for i, backend in enumerate(backends.values())}
    for name, wanted in ((None, ("TLS", NO, NO)), ("app", ("TLS", "TLS app", NO)), ("app-rsa", ("TLS", "TLS app", NO)),
                         ("app-foreign", ("TLS", NO, "TLS app")), ("app-expired", ("TLS", NO, NO))):
        pooler = pooler_for(t, "verify-full", name, databases=databases)
        same(tuple(Asking(pooler, database).outcome() for database in databases), wanted, f"our {name}")
        pooler.stop()
    chain = Backend(t, "server", wants="ca")
    pooler = pooler_for(t, "require", "app-chain", databases={"app": f"host=127.0.0.1 port={chain.port}"})
    with pooler.connect() as c:
        same(c.value("select what()"), "TLS app")


def test_no_plain_text_after_a_failed_handshake(t):
    """prefer and allow go without TLS when the server says N, not when TLS fails: that may be an attacker's doing."""
    for mode in ("allow", "prefer"):
        seen = []

        def script(connection):
            size, code = 8, None
            code = int.from_bytes(connection._exactly(8)[4:])
            seen.append(code)
            connection.send(b"S")
            connection.socket.recv(100)
            connection.send(record(RECORD_ALERT, bytes([2, 40])))
        fake = t.fake_server(script)
        pooler = pooler_for(t, mode, databases={"app": t.fake_entry(fake)})
        same(Asking(pooler, "app").outcome(), NO)
        eventually(lambda: len(seen) >= 1, "it was asked")
        same(set(seen), {pgwire.SSL_REQUEST})
        pooler.stop()


# ---- a real PostgreSQL --------------------------------------------------------------------------

IS_TLS = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"


def test_postgres_with_and_without_tls(t):
    made = certificates.of(t)
    for is_on in (True, False):
        t.postgres.of_one_test(**(made.of_postgres() if is_on else {}))
        for mode in MODES:
            pooler = pooler_for(t, mode, server_tls_ca_file=made.path("ca"))
            if not is_on and mode in ("require", "verify-ca", "verify-full"):
                same(Asking(pooler, "app").outcome(), NO, mode)
            else:
                with pooler.connect() as c:
                    same(c.value(IS_TLS), "t" if is_on and mode != "disable" else "f", mode)
            pooler.stop()


def test_hostssl_and_hostnossl_lines_of_postgres(t):
    made = certificates.of(t)
    for hba, wanted in (("hostssl all all all trust\n", [NO, "t", "t"]), ("hostnossl all all all trust\n", ["f", NO, NO])):
        t.postgres.of_one_test(hba, **made.of_postgres())
        got = []
        for mode in ("disable", "prefer", "require"):
            pooler = pooler_for(t, mode)
            try:
                with pooler.connect() as c:
                    got.append(c.value(IS_TLS))
            except pgwire.PgError as error:
                matches("no pg_hba.conf entry", error.text)
                got.append(NO)
            pooler.stop()
        same(got, wanted, hba)


def test_postgres_that_wants_a_certificate_of_the_user(t):
    """clientcert=verify-full and the method cert: the common name must be the user's."""
    made = certificates.of(t)
    for method in ("trust clientcert=verify-full", "cert"):
        t.postgres.of_one_test(f"hostssl all all all {method}\n", **made.of_postgres(ca="ca", ssl_crl_file=made.revoked))
        for name, wanted in (("app", "app"), (None, None), ("other", None), ("app-foreign", None), ("app-expired", None),
                             ("app-revoked", None)):
            pooler = pooler_for(t, "verify-full", name)
            try:
                asking = Asking(pooler, "app")
                eventually(lambda: asking.reason() or not asking.client.silent_for(0.002), "it comes to something", 10)
                if asking.reason():
                    got = None
                else:
                    asking.client.authenticate("app", None)
                    got = asking.client.value("select regexp_replace(client_dn, '/CN=', '') from pg_stat_ssl "
                                              "where pid = pg_backend_pid()")
            except pgwire.PgError:
                got = None
            same(got, wanted, f"{name} with {method}")
            pooler.stop()


def test_passwords_of_all_kinds_over_tls(t):
    t.postgres.of_one_test(**certificates.of(t).of_postgres())
    users = ("u_plain", "u_md5", "u_scram")
    pooler = pooler_for(t, "verify-full", userlist={name: PASSWORD for name in users}, auth_type="plain")
    for name in users:
        with pooler.connect(name, password=PASSWORD) as c:
            same(c.value(IS_TLS), "t")


def test_tls_of_servers_is_shown_and_logged(t):
    made = certificates.of(t)
    for low, pattern in (("TLSv1.2", r"TLSv1\.2/ECDHE-ECDSA-[A-Z0-9-]+/ECDH=\w+"), ("TLSv1.3", r"TLSv1\.3/TLS_[A-Z0-9_]+(/ECDH=\w+)?")):
        t.postgres.of_one_test(**made.of_postgres(ssl_min_protocol_version=low, ssl_max_protocol_version=low))
        pooler = pooler_for(t, "verify-full")
        with pooler.connect() as c, pooler.console() as console:
            cipher = c.value("select version || '/' || cipher from pg_stat_ssl where pid = pg_backend_pid()")
            row = next(r for r in console.table("show servers"))
            matches(f"^{pattern}$", row["tls"])
            assert row["tls"].startswith(cipher), (row["tls"], cipher)
            row = next(r for r in console.table("show sockets") if r["type"] == "S")
            matches(f"^{pattern}$", row["tls"])
            pooler.wait_log(rf"S-0x.*LOG .*SSL established: {pattern}$|LOG S-0x.*SSL established: {pattern}$")
        pooler.stop()


def test_protocols_and_ciphers_towards_servers(t):
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres("server-rsa"))
    asked = "select version || ' ' || cipher from pg_stat_ssl where pid = pg_backend_pid()"
    for settings, wanted in (({"server_tls_protocols": "tlsv1.2"}, "TLSv1.2 "), ({"server_tls_protocols": "tlsv1.3"}, "TLSv1.3 "),
                             ({"server_tls_protocols": "tlsv1.2", "server_tls_ciphers": "ECDHE-RSA-AES128-GCM-SHA256"},
                              "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256"),
                             ({"server_tls_protocols": "tlsv1.2", "server_tls_ciphers": "ECDHE-RSA-AES256-GCM-SHA384"},
                              "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384")):
        pooler = pooler_for(t, "verify-full", **settings)
        with pooler.connect() as c:
            matches("^" + wanted, c.value(asked))
        pooler.stop()


@ours
def test_tls_1_3_ciphers_towards_servers(t):
    t.postgres.of_one_test(**certificates.of(t).of_postgres())
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        pooler = pooler_for(t, "verify-full", server_tls13_ciphers=suite)
        with pooler.connect() as c:
            same(c.value("select cipher from pg_stat_ssl where pid = pg_backend_pid()"), suite)
        pooler.stop()


def test_nothing_in_common_is_a_failure_that_is_said(t):
    backend = Backend(t, "server", low=V1_3)
    pooler = pooler_for(t, "require", server_tls_protocols="tlsv1.2", databases={"app": f"host=127.0.0.1 port={backend.port}"})
    same(Asking(pooler, "app").outcome(), NO)


def test_unix_sockets_of_servers_never_have_tls(t):
    t.postgres.of_one_test(**certificates.of(t).of_postgres())
    for mode in ("prefer", "require", "verify-full"):
        pooler = pooler_for(t, mode, databases={"app": t.postgres.address("app", host=t.postgres.sockets)})
        with pooler.connect() as c:
            same(c.value("select coalesce(ssl, false) from pg_stat_ssl where pid = pg_backend_pid()"), "f", mode)
        pooler.stop()


def test_sidecar_plain_on_loopback_and_verified_to_the_remote_server(t):
    """What stands in conf/examples: clients of this machine without TLS, the server far away with all of it."""
    t.postgres.of_one_test("hostssl all all all scram-sha-256\n", **certificates.of(t).of_postgres())
    pooler = pooler_for(t, "verify-full", client_tls_sslmode="disable", auth_type="scram-sha-256", userlist={"u_scram": PASSWORD, "admin": "a"},
                        databases={"app": t.postgres.address("app", host="localhost")})
    done = t.run_program([f"{POSTGRES_BIN}/psql", "-XAtd", f"host=127.0.0.1 port={pooler.port} user=u_scram dbname=app "
                          f"password={PASSWORD} sslmode=disable", "-c", IS_TLS])
    same(done.stdout, "t\n")
    # And if another has taken its place, nobody's data goes there.
    t.postgres.of_one_test("hostssl all all all scram-sha-256\n", **certificates.of(t).of_postgres("elsewhere"))
    with pooler.connect("u_scram", password=PASSWORD) as c, pooler.console(password="a") as console:
        console.do("reconnect")
        c.send(query("select 'secret'"))
        pooler.wait_log("S-0x.*closing because: (?!.*RECONNECT|close_needed|.*configuration)")
        same(t.postgres.backends("u_scram"), [])


# ---- servers that do it wrong -------------------------------------------------------------------

def first_fails(t, script, sslmode="require", then="server", **settings):
    """The first connections go wrong by `script`; what comes later is served. The client gets its answer."""
    backend = Backend.__new__(Backend)
    made = certificates.of(t)
    backend.context, backend.sessions = server_context(made.path(then), made.key(then)), []
    count = [0]

    def serve(connection):
        count[0] += 1
        if count[0] == 1:
            script(connection, backend)
        else:
            backend.serve(connection)
    fake = t.fake_server(serve)
    settings.setdefault("extra", BRISK)
    pooler = pooler_for(t, sslmode, databases={"app": t.fake_entry(fake)}, **settings)
    with pooler.connect(timeout=12) as c:
        same(c.value("select what()"), "TLS")
    same(fake.problems, [])
    return pooler


ANSWERS = {"X": b"X", "an error": pgwire.error_response(S="FATAL", C="08P01", M="no SSL here"), "H": b"H",
           "zeros": bytes(8), "nothing": b""}


@ours
def test_wrong_answers_to_sslrequest(t):
    for name, answer in ANSWERS.items():
        def script(connection, _):
            connection._exactly(8)
            connection.send(answer)
        pooler = first_fails(t, script)
        pooler.wait_log("S-0x.*closing because:")
        pooler.stop()


@ours
def test_bytes_behind_the_servers_s_are_refused(t):
    """CVE-2021-23222 itself: what came before TLS must not be read as if it had come in it."""
    def script(connection, backend):
        connection._exactly(8)
        connection.send(b"S" + connection.WELCOME)
        try:
            connection.socket = backend.secure(connection.socket)
            connection.startup()
            connection.receive()
        except ssl.SSLError:
            pass
    pooler = first_fails(t, script)
    pooler.wait_log("closing because: received unencrypted data after SSL response")
    same(pooler.log().count("invalid server parameter"), 0)


@ours
def test_bytes_behind_the_servers_n_are_refused_where_it_may_be_plain(t):
    def script(connection, _):
        connection._exactly(8)
        connection.send(b"N" + connection.WELCOME)
    first_fails(t, script, "prefer")


GARBAGE = {
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n", "zeros": bytes(100),
    "an empty record": record(RECORD_HANDSHAKE, b""), "a long record": record(RECORD_HANDSHAKE, bytes(17000)),
    "an alert": record(RECORD_ALERT, bytes([2, 40])), "half an alert": record(RECORD_ALERT, b"\2"),
    "data": record(RECORD_DATA, b"hello"), "a hello of zeros": record(RECORD_HANDSHAKE, bytes([2, 0, 0, 70]) + bytes(70)),
    "a hello without end": record(RECORD_HANDSHAKE, bytes([2, 255, 255, 255]) + bytes(16000)) * 40,
    "a certificate first": record(RECORD_HANDSHAKE, bytes([11, 0, 0, 3]) + bytes(3)),
    "nothing, and the end": b"",
}


@ours
@slow(40)
def test_garbage_instead_of_serverhello(t):
    for name, data in GARBAGE.items():
        def script(connection, _):
            connection._exactly(8)
            connection.send(b"S")
            connection.socket.recv(4096)
            connection.send(data)
        pooler = first_fails(t, script)
        pooler.wait_log("S-0x.*closing because:")
        pooler.stop()


@ours
def test_server_that_stalls_in_the_handshake_is_given_up_after_server_connect_timeout(t):
    def script(connection, _):
        connection._exactly(8)
        connection.send(b"S")
        connection.socket.recv(4096)
        while connection.socket.recv(4096):
            pass
    pooler = first_fails(t, script, server_connect_timeout=1)
    pooler.wait_log("closing because: connect timeout")

    def answers_nothing(connection, _):
        while connection.socket.recv(4096):
            pass
    pooler = first_fails(t, answers_nothing, server_connect_timeout=1)
    pooler.wait_log("closing because: connect timeout")


class InPieces:
    def __init__(self, raw, bytes_):
        self.raw, self.bytes = raw, bytes_
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def sendall(self, data):
        for start in range(0, len(data), self.bytes):
            self.raw.sendall(data[start:start + self.bytes])

    def __getattr__(self, name):
        return getattr(self.raw, name)


def test_server_that_speaks_byte_by_byte(t):
    for high in (V1_2, V1_3):
        backend = Backend(t, "server", high=high)
        backend.secure = lambda raw: TlsSocket(InPieces(raw, 1), backend.context, server_side=True).handshake()
        pooler = pooler_for(t, "verify-full", databases={"app": f"host=127.0.0.1 port={backend.port}"})
        with pooler.connect() as c:
            for _ in range(3):
                same(c.value("select what()"), "TLS")
        pooler.stop()


@ours
def test_wrong_records_of_a_server_end_that_server(t):
    """The client gets no byte of them."""
    made = certificates.of(t)

    def broken(kind):
        def script(connection):
            connection.welcome(backend.secure)
            while connection.receive().type != "Q":
                pass
            secured = connection.socket
            row = pgwire.message("C", b"SELECT 1\0") + pgwire.ready()
            wrong = {"flipped": lambda: secured.sealed(row)[:-1] + b"\0", "plain text": lambda: row,
                     "an alert": lambda: record(RECORD_ALERT, bytes([2, 40])), "long": lambda: record(RECORD_DATA, bytes(20000)),
                     "cut off": lambda: secured.sealed(row)[:-1],
                     "unknown": lambda: record(99, bytes(10))}[kind]()
            secured.raw.sendall(wrong)
            if kind != "cut off":
                while secured.raw.recv(4096):
                    pass
        return script
    for high in (V1_2, V1_3):
        backend = Backend.__new__(Backend)
        backend.context, backend.sessions = server_context(made.path("server"), made.key("server"), high=high), []
        for kind in ("flipped", "plain text", "an alert", "long", "cut off", "unknown"):
            fake = t.fake_server(broken(kind))
            pooler = pooler_for(t, "verify-full", databases={"app": t.fake_entry(fake)})
            with pooler.connect() as c:
                c.send(query("select 1"))
                found = c.closed()
                same([m.type for m in found], ["E"], f"{kind}, {high.name}")
                same(found[0].error().text, "server conn crashed?", kind)
            same(fake.problems, [], kind)
            pooler.stop()


def test_truncation_of_an_answer_is_no_answer(t):
    """A server's TCP connection ends without close_notify in the middle of a row: what had come is passed on, and then an error."""
    def script(connection):
        connection.welcome(backend.secure)
        while connection.receive().type != "Q":
            pass
        row = pgwire.message("D", b"\0\1" + (100000).to_bytes(4) + b"x" * 100000)
        connection.send(row[:50000])
    backend = Backend.__new__(Backend)
    made = certificates.of(t)
    backend.context, backend.sessions = server_context(made.path("server"), made.key("server")), []
    fake = t.fake_server(script)
    pooler = pooler_for(t, "verify-full", databases={"app": t.fake_entry(fake)})
    with pooler.connect() as c:
        c.send(query("select 1"))
        try:
            while True:
                assert c.receive().type != "Z"
        except pgwire.Closed:
            pass
    pooler.wait_log("closing because: server conn crashed\\?|closing because: server_lifetime|S-0x.*closing because")


def test_servers_are_told_close_notify(t):
    """Terminate, then close_notify, then the end."""
    backend = Backend(t, "server")
    pooler = pooler_for(t, "verify-full", databases={"app": f"host=127.0.0.1 port={backend.port}"})

    def serve(connection):
        connection.welcome(backend.secure)
        connection.serve_one_value()
        connection.socket.recv(100)
        ends.append(connection.socket.end)
    ends = []
    backend.fake.script = serve
    with pooler.connect() as c, pooler.console() as console:
        same(c.value("select what()"), "1")
        console.do("reconnect")
        eventually(lambda: ends, "the server's end")
        same(ends, ["close_notify"])


def test_server_that_says_close_notify_is_gone(t):
    backend = Backend(t, "server")

    def serve(connection):
        connection.welcome(backend.secure)
        while connection.receive().type != "Q":
            pass
        connection.send(pgwire.message("C", b"SELECT 0\0") + pgwire.ready())
        go.wait(5)
        connection.socket.close_notify()
        connection.socket.recv(100)
        ended.append(1)
    go, ended = threading.Event(), []
    backend.fake.script = serve
    pooler = pooler_for(t, "verify-full", databases={"app": f"host=127.0.0.1 port={backend.port}"})
    with pooler.connect() as c, pooler.console() as console:
        same(c.query("select 1").tags, ["SELECT 0"])
        go.set()
        eventually(lambda: ended and not console.table("show servers"), "it is closed")
        backend.fake.script = backend.serve
        same(c.value("select what()"), "TLS")


def test_new_keys_and_tickets_of_a_server_are_nothing_special(t):
    """TLS 1.3 servers send session tickets whenever they like."""
    backend = Backend(t, "server")
    backend.context.num_tickets = 6
    pooler = pooler_for(t, "verify-full", databases={"app": f"host=127.0.0.1 port={backend.port}"})
    with pooler.connect() as c:
        for _ in range(3):
            same(c.value("select what()"), "TLS")


def test_server_may_cut_its_answers_into_records_as_it_likes(t):
    for high in (V1_2, V1_3):
        backend = Backend(t, "server", high=high)

        def serve(connection):
            connection.welcome(backend.secure)
            secured = connection.socket

            def in_small_records(data):
                secured.raw.sendall(b"".join(secured.sealed(data[i:i + 1]) for i in range(len(data))))
            secured.sendall = in_small_records
            connection.serve_one_value("x" * 3000)
        backend.fake.script = serve
        pooler = pooler_for(t, "verify-full", databases={"app": f"host=127.0.0.1 port={backend.port}"})
        with pooler.connect() as c:
            for _ in range(5):
                same(c.value("select what()"), "x" * 3000)
        pooler.stop()
