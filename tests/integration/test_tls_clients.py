"""TLS between clients and the pooler: who gets in how, and what happens to those who do it wrong."""

import os
import contextlib
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import time

import certificates
import pgwire
import tls_wire
from harness import POSTGRES_BIN, eventually, is_sanitized, matches, ours, refused, same, slow, within
from pgwire import message, query, ssl_request, startup
from tls_wire import RECORD_ALERT, RECORD_DATA, RECORD_HANDSHAKE, V1_2, V1_3, Offer, TlsSocket, client_context, record

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def tls_pooler(t, sslmode="require", certificate="server", **settings):
    given = certificates.of(t).of_clients(certificate, sslmode=sslmode)
    pooler = t.pooler(**{"pool_mode": "transaction", **given, **settings})
    pooler.console_host = pooler.folder
    return pooler


def with_certificate(t, name="app", **more):
    """An offer of a client that has this certificate."""
    made = certificates.of(t)
    return Offer(client_context(made.path("ca"), made.path(name), made.key(name), **more))


# ---- psql's sslmodes and ours -------------------------------------------------------------------

PLAIN, TLS = "plain", "TLS"
NO_SERVER_TLS = "server does not support SSL"
REQUIRED = "SSL required"
HANDSHAKE = "SSL error|server closed the connection|SSL SYSCALL"
VERIFY = "certificate verify failed"

# client_tls_sslmode: what each sslmode of psql comes to, in the order of MODES, by a client without a certificate.
WITHOUT_CERTIFICATE = {
    "disable": (PLAIN, PLAIN, PLAIN, NO_SERVER_TLS, NO_SERVER_TLS, NO_SERVER_TLS),
    "allow": (PLAIN, PLAIN, TLS, TLS, TLS, TLS),
    "prefer": (PLAIN, PLAIN, TLS, TLS, TLS, TLS),
    "require": (REQUIRED, TLS, TLS, TLS, TLS, TLS),
    "verify-ca": (REQUIRED, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE),
    "verify-full": (REQUIRED, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE),
}
# The same with a certificate of ours.
WITH_CERTIFICATE = {**WITHOUT_CERTIFICATE,
                    "verify-ca": (REQUIRED, TLS, TLS, TLS, TLS, TLS),
                    "verify-full": (REQUIRED, TLS, TLS, TLS, TLS, TLS)}
# And with one that another authority has made: who shows a certificate must have a good one.
WITH_FOREIGN_CERTIFICATE = {
    "disable": WITHOUT_CERTIFICATE["disable"],
    "allow": (PLAIN, PLAIN, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE),
    "prefer": (PLAIN, PLAIN, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE),
    "require": (REQUIRED, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE),
    "verify-ca": (REQUIRED, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE),
    "verify-full": (REQUIRED, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE, HANDSHAKE),
}


def psql(t, pooler, sslmode, sql="\\conninfo", certificate=None, ca="ca", host="localhost", check=False, more="", **rest):
    made = certificates.of(t)
    words = f"host={host} hostaddr=127.0.0.1 port={pooler.port} user=app dbname=app sslmode={sslmode} {more}"
    words += f" sslcert={made.path(certificate)} sslkey={made.key(certificate)}" if certificate else " sslcert=/none"
    if sslmode.startswith("verify"):
        words += f" sslrootcert={made.path(ca)}"
    else:
        words += " sslrootcert=/none"
    return t.run_program([f"{POSTGRES_BIN}/psql", "-XAtd", words], input=sql, check=check, **rest)


def outcome(done):
    if done.returncode == 0:
        return TLS if "SSL connection" in done.stdout else PLAIN
    return done.stderr


def check_matrix(t, table, certificate):
    pooler = tls_pooler(t, "disable")
    for ours_, row in table.items():
        pooler.change(client_tls_sslmode=ours_)
        for theirs, wanted in zip(MODES, row):
            got = outcome(psql(t, pooler, theirs, certificate=certificate))
            about = f"client_tls_sslmode={ours_}, psql's sslmode={theirs}: {got}"
            assert re.search(wanted, got), about + ", wanted " + wanted


@slow(40)
def test_every_sslmode_of_psql_meets_every_mode_of_ours(t):
    check_matrix(t, WITHOUT_CERTIFICATE, None)


@slow(40)
def test_every_sslmode_of_psql_with_a_certificate_meets_every_mode_of_ours(t):
    check_matrix(t, WITH_CERTIFICATE, "app")


@slow(40)
def test_every_sslmode_of_psql_with_a_foreign_certificate_meets_every_mode_of_ours(t):
    check_matrix(t, WITH_FOREIGN_CERTIFICATE, "app-foreign")


# The certificate that we show: by which host name, with which authority it satisfies psql's verify-ca and verify-full.
SHOWN = (
    ("server", "localhost", "ca", TLS, TLS),
    ("server", "127.0.0.1", "ca", TLS, TLS),
    ("server", "elsewhere.test", "ca", TLS, "does not match host name"),
    ("server", "localhost", "other-ca", VERIFY, VERIFY),
    ("server-other", "localhost", "ca", VERIFY, VERIFY),
    ("server-rsa", "localhost", "ca", TLS, TLS),
    ("server-ed25519", "localhost", "ca", TLS, TLS),
    ("server-chain", "localhost", "ca", TLS, TLS),
    ("server-chain-alone", "localhost", "ca", VERIFY, VERIFY),
    ("expired", "localhost", "ca", VERIFY, VERIFY),
    ("early", "localhost", "ca", VERIFY, VERIFY),
    ("cn-localhost", "localhost", "ca", TLS, TLS),
    ("wildcard", "db.pooler.test", "ca", TLS, TLS),
)


@slow(40)
def test_our_certificate_is_what_psql_verifies(t):
    pooler = tls_pooler(t)
    for certificate, host, ca, *wanted in SHOWN:
        pooler.change(**certificates.of(t).of_clients(certificate, sslmode="require"))
        for mode, want in zip(("verify-ca", "verify-full"), wanted):
            got = outcome(psql(t, pooler, mode, ca=ca, host=host))
            assert re.search(want, got), f"{certificate} as {host} by {mode}: {got}, wanted {want}"


def test_revoked_certificate_of_ours_is_refused_by_psql(t):
    revoked = certificates.of(t).revoked
    for certificate, want in (("server", TLS), ("server-revoked", VERIFY)):
        pooler = tls_pooler(t, certificate=certificate)
        matches(want, outcome(psql(t, pooler, "verify-full", more=f"sslcrl={revoked}")))


# Certificates of clients, by which verify-ca and verify-full let in, or not.
CLIENTS = (("app", True), ("app-rsa", True), ("app-chain", True), ("app-san", True), ("no-name", True), ("outside", True),
           ("app-foreign", False), ("app-expired", False), ("app-early", False),
           ("app-as-server", False), ("app-by-leaf", False))


def test_certificates_of_clients_are_verified(t):
    made = certificates.of(t)
    for mode in ("verify-ca", "verify-full"):
        pooler = tls_pooler(t, mode)
        for high in (V1_2, V1_3):
            for name, is_good in CLIENTS:
                offer = Offer(client_context(made.path("ca"), made.path(name), made.key(name), high=high))
                same(gets_in(pooler, offer), is_good, f"{name} with {mode}, {high.name}")
        pooler.stop()


def gets_in(pooler, offer):
    try:
        with pooler.connect(tls=offer) as c:
            return c.value("select 1") == "1"
    except (ssl.SSLError, pgwire.Closed, OSError):
        return False


def test_chain_must_come_with_a_clients_certificate(t):
    pooler = tls_pooler(t, "verify-full")
    same([gets_in(pooler, with_certificate(t, name)) for name in ("app-chain-alone", "app-chain", "app-chain-alone")],
         [False, True, False])


# ---- before TLS ---------------------------------------------------------------------------------

def test_answer_to_sslrequest_depends_on_the_mode(t):
    pooler = tls_pooler(t, "disable")
    for mode in MODES:
        pooler.change(client_tls_sslmode=mode)
        with pooler.open() as c:
            c.send(ssl_request())
            same(c.raw(1), b"N" if mode == "disable" else b"S", mode)
        with pooler.open(pooler.folder) as c:  # never on unix sockets
            c.send(ssl_request())
            same(c.raw(1), b"N", mode)
            c.login()
            same(c.value("select 1"), "1", mode)


def test_plain_startup_where_tls_is_required_is_refused(t):
    pooler = tls_pooler(t)
    for mode in ("require", "verify-ca", "verify-full"):
        pooler.change(client_tls_sslmode=mode)
        with refused("SSL required", "08P01", "FATAL"):
            pooler.connect()
        with refused("SSL required", "08P01", "FATAL"):
            pooler.connect("admin", "pgbouncer")
    pooler.wait_log("C-0x.* closing because: SSL required")
    pooler.wait_log("pooler error: SSL required")


def test_gssenc_before_tls_is_declined(t):
    pooler = tls_pooler(t)
    for order in ("g", "gg", "ggg"):
        with pooler.open() as c:
            for _ in order:
                c.send(pgwire.gssenc_request())
                same(c.raw(1), b"N")
            c.socket = Offer()(c.socket)
            c.login()
            same(c.value("select 1"), "1")


def test_bytes_between_sslrequest_and_tls_are_refused(t):
    """CVE-2021-23222's like: what a man in the middle puts before TLS must not be taken for what comes in it."""
    pooler = tls_pooler(t, "allow")
    plain = startup({"user": "app", "database": "app"}) + query("select 1")
    for behind in (plain, plain[:1], b"\0", message("Q", b"select 1\0")):
        with pooler.open() as c:
            c.send(ssl_request() + behind)
            if c.raw(1) != b"S":
                c.buffer[:0] = b"E"
            same(c.fatal().text, "received unencrypted data after SSL request", brief_of(behind))
    pooler.wait_log("closing because: received unencrypted data after SSL request")
    pooler.usable()


def brief_of(data):
    return repr(data[:12])


def test_client_that_does_not_wait_for_the_answer_is_refused(t):
    """Its ClientHello comes with SSLRequest: nobody knows whether the pooler has been asked by its peer."""
    pooler = tls_pooler(t)
    with pooler.open() as c:
        hello = TlsSocket(c.socket, client_context()).hello()
        c.send(ssl_request() + hello)
        found = tls_wire.raw_bytes(c)
        matches(b"received unencrypted data after SSL request", found)


@ours
def test_plaintext_between_the_answer_and_clienthello_is_no_message(t):
    pooler = tls_pooler(t, "allow")
    with pooler.open() as c:
        c.send(ssl_request())
        same(c.raw(1), b"S")
        c.send(startup({"user": "app", "database": "app"}))
        end(c)
        found = tls_wire.raw_bytes(c)
        assert b"R\0\0\0" not in found, found
    with pooler.open() as c:
        c.send(ssl_request())
        same(c.raw(1), b"S")
        c.send(startup({"user": "app", "database": "app"}) + TlsSocket(c.socket, client_context()).hello())
        end(c)
        assert b"R\0\0\0" not in tls_wire.raw_bytes(c)
    pooler.usable()


def test_sslrequest_in_tls_closes_without_a_word(t):
    pooler = tls_pooler(t)
    with pooler.open(tls=Offer()) as c:
        c.send(ssl_request())
        same(c.closed(), [])
    pooler.wait_log("closing because: SSL req inside SSL")
    with pooler.open(tls=Offer()) as c:  # before the startup packet only; GSSAPI is declined there, too
        c.send(pgwire.gssenc_request())
        same(c.raw(1), b"N")
        c.login()
        same(c.value("select 1"), "1")


def test_second_tls_within_tls_is_refused(t):
    pooler = tls_pooler(t, client_login_timeout=1)
    with pooler.open(tls=Offer()) as c:
        c.send(TlsSocket(c.socket, client_context()).hello())
        found = c.closed(10)
        assert all(m.type == "E" for m in found), found
    with pooler.connect(tls=Offer()) as c:
        same(c.value("select 1"), "1")


# ---- direct TLS ---------------------------------------------------------------------------------

@ours
def test_tls_may_begin_at_once(t):
    pooler = tls_pooler(t)
    for alpn in (["postgresql"], ["h2", "postgresql"], None):
        with pooler.connect(tls=Offer(client_context(alpn=alpn), direct=True)) as c:
            same(c.socket.tls.selected_alpn_protocol(), "postgresql" if alpn else None)
            same(c.value("select 1"), "1")
        with pooler.connect(tls=Offer(client_context(alpn=alpn))) as c:
            same(c.socket.tls.selected_alpn_protocol(), "postgresql" if alpn else None)


@ours
def test_other_protocols_are_refused(t):
    pooler = tls_pooler(t)
    for direct in (True, False):
        for high in (V1_2, V1_3):
            try:
                pooler.open(tls=Offer(client_context(alpn=["h2", "http/1.1"], high=high), direct=direct))
                raise AssertionError("let in")
            except ssl.SSLError as problem:
                matches("(?i)no.application.protocol", str(problem))
    with pooler.connect(tls=Offer()) as c:
        same(c.value("select 1"), "1")


@ours
def test_direct_tls_is_for_tcp_and_where_tls_is_on(t):
    pooler = tls_pooler(t, "disable", client_login_timeout=1)
    for mode, host in (("disable", "127.0.0.1"), ("disable", pooler.folder), ("allow", pooler.folder)):
        pooler.change(client_tls_sslmode=mode)
        try:
            pooler.open(host, tls=Offer(direct=True))
            raise AssertionError("TLS there")
        except (ssl.SSLError, pgwire.TimedOut, pgwire.Closed, OSError):
            pass
    pooler.usable()


def test_tls_on_ipv6(t):
    pooler = tls_pooler(t, "require", listen_addr="127.0.0.1,::1")
    made = certificates.of(t)
    context = client_context(made.path("ca"), checks_name=True)
    with pooler.connect(host="::1", tls=Offer(context, server_name="::1")) as c:
        same(c.value("select 1"), "1")
    with refused("SSL required"):
        pooler.connect(host="::1")


# ---- openssl's own client -----------------------------------------------------------------------

def s_client(t, pooler, *arguments, input=b"Q\n", direct=False, seconds=10):
    """Its output. A Q at a line's beginning ends it, R renegotiates."""
    command = [certificates.OPENSSL, "s_client", "-connect", f"127.0.0.1:{pooler.port}"]
    command += ["-alpn", "postgresql"] if direct else ["-starttls", "postgres"]
    done = subprocess.run([*command, *arguments], input=input, capture_output=True, timeout=seconds)
    said = (done.stdout + done.stderr).decode(errors="replace")
    return re.sub(r"(?s)-----BEGIN CERTIFICATE.*?-----END CERTIFICATE-----\n", "", said)


def test_s_client_sees_our_chain(t):
    pooler = tls_pooler(t, certificate="server-chain")
    said = s_client(t, pooler, "-CAfile", certificates.of(t).path("ca"), "-showcerts")
    matches("Verify return code: 0", said)
    matches("(?s) 0 s:CN = server\n   i:CN = CA below the CA.* 1 s:CN = CA below the CA\n   i:CN = CA of the tests", said)


@ours
def test_s_client_connects_directly(t):
    said = s_client(t, tls_pooler(t), "-CAfile", certificates.of(t).path("ca"), direct=True)
    matches("Verify return code: 0", said)
    matches("ALPN protocol: postgresql", said)


def test_tls_1_2_does_not_renegotiate(t):
    pooler = tls_pooler(t)
    said = s_client(t, pooler, "-tls1_2", input=b"R\nQ\n")
    matches("RENEGOTIATING", said)
    matches("no renegotiation|handshake failure|ssl handshake failure|unexpected message", said)
    with pooler.connect(tls=Offer(client_context(high=V1_2))) as c:
        same(c.value("select 1"), "1")


def test_keys_are_updated_when_a_tls_1_3_client_asks(t):
    """s_client's K asks for new keys of both sides: it goes on. What it then sends is no PostgreSQL, so it ends with our error."""
    pooler = tls_pooler(t)
    said = s_client(t, pooler, "-tls1_3", input=b"K\nk\nHELLO THERE\n")
    matches("KEYUPDATE", said)
    assert "unexpected message" not in said and "bad record mac" not in said, said


# ---- versions, suites, groups -------------------------------------------------------------------

def versions(t, pooler):
    got = []
    for version in (V1_2, V1_3):
        try:
            with pooler.connect(tls=Offer(client_context(low=version, high=version))) as c:
                same(c.value("select 1"), "1")
                got.append(c.socket.tls.version())
        except (ssl.SSLError, OSError, pgwire.Closed):
            pass
    return got


def test_protocols_are_those_of_the_setting(t):
    pooler = tls_pooler(t)
    for setting, wanted in (("secure", ["TLSv1.2", "TLSv1.3"]), ("default", ["TLSv1.2", "TLSv1.3"]),
                            ("all", ["TLSv1.2", "TLSv1.3"]), ("tlsv1.2", ["TLSv1.2"]), ("tlsv1.3", ["TLSv1.3"]),
                            ("TLSv1.2,TLSv1.3", ["TLSv1.2", "TLSv1.3"]), ("tlsv1.2, tlsv1.3", ["TLSv1.2", "TLSv1.3"])):
        pooler.change(client_tls_protocols=setting)
        same(versions(t, pooler), wanted, setting)


def test_old_protocols_are_refused(t):
    pooler = tls_pooler(t)
    for version in ("-tls1", "-tls1_1"):
        said = s_client(t, pooler, version, "-cipher", "ALL:@SECLEVEL=0")
        matches("protocol version|unsupported protocol|no protocols available|handshake failure", said)
        matches(r"Cipher is \(NONE\)", said)


def agreed(t, pooler, ciphers=None, version=V1_2, certificate=None):
    """The suite, or None."""
    try:
        with pooler.connect(tls=Offer(client_context(low=version, high=version, ciphers=ciphers))) as c:
            same(c.value("select 1"), "1")
            return c.socket.tls.cipher()[0]
    except (ssl.SSLError, OSError, pgwire.Closed):
        return None


def test_ciphers_are_those_of_the_setting(t):
    pooler = tls_pooler(t, certificate="server-rsa")
    both = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"
    chacha = "ECDHE-RSA-CHACHA20-POLY1305"
    for setting, offered, wanted in (
            ("ECDHE-RSA-AES128-GCM-SHA256", both, "ECDHE-RSA-AES128-GCM-SHA256"),
            ("ECDHE-RSA-AES256-GCM-SHA384", both, "ECDHE-RSA-AES256-GCM-SHA384"),
            ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256", None),
            ("AES256+ECDHE", both, "ECDHE-RSA-AES256-GCM-SHA384"),
            (chacha, both, None),
            (chacha, both + ":" + chacha, chacha),
            ("HIGH:!AES128:!CHACHA20", both + ":" + chacha, "ECDHE-RSA-AES256-GCM-SHA384"),
            # Ours is the choice: the order is the setting's.
            (both, ":".join(reversed(both.split(":"))), "ECDHE-RSA-AES256-GCM-SHA384"),
            (":".join(reversed(both.split(":"))), both, "ECDHE-RSA-AES128-GCM-SHA256")):
        pooler.change(client_tls_ciphers=setting)
        same(agreed(t, pooler, offered), wanted, f"{setting} for {offered}")


@ours
def test_weak_suites_are_never_agreed_on(t):
    pooler = tls_pooler(t, certificate="server-rsa")
    for setting in ("default", "secure", "normal", "fast", "all", "ALL:COMPLEMENTOFALL", "ALL:eNULL:aNULL:@SECLEVEL=0"):
        pooler.change(client_tls_ciphers=setting)
        for weak in ("NULL", "aNULL", "PSK", "3DES", "RC4", "SEED", "IDEA", "MD5"):
            said = s_client(t, pooler, "-tls1_2", "-cipher", f"{weak}:@SECLEVEL=0")
            assert "Cipher is (NONE)" in said or "no cipher match" in said or "no ciphers available" in said, \
                f"{weak} with {setting}: {said}"


@ours
def test_tls_1_3_ciphers_are_those_of_the_setting(t):
    pooler = tls_pooler(t)
    for suite in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"):
        pooler.change(client_tls13_ciphers=suite)
        same(agreed(t, pooler, version=V1_3), suite)
    pooler.change(client_tls13_ciphers="TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")
    same(agreed(t, pooler, version=V1_3), "TLS_CHACHA20_POLY1305_SHA256")
    pooler.change(client_tls13_ciphers=None)
    matches("^TLS_", agreed(t, pooler, version=V1_3))


def test_curve_is_that_of_the_setting(t):
    pooler = tls_pooler(t)
    for setting, offered, is_good in (("auto", "X25519", True), ("auto", "P-256", True), ("auto", "P-384", True),
                                      ("prime256v1", "P-256", True), ("prime256v1", "P-384", False),
                                      ("secp384r1", "P-384", True), ("secp384r1", "X25519:P-256", False),
                                      ("secp384r1", "X25519:P-384", True)):
        pooler.change(client_tls_ecdhcurve=setting)
        for version in ("-tls1_2", "-tls1_3"):
            said = s_client(t, pooler, version, "-groups", offered)
            # The certificate's own curve counts in TLS 1.2.
            if version == "-tls1_2" and "P-256" not in offered:
                continue
            same("Cipher is (NONE)" not in said, is_good, f"{setting} for {offered} {version}: {said}")


def test_handshake_with_a_group_that_has_to_be_asked_for_again(t):
    """The client guesses X25519 and is told to take P-384 (HelloRetryRequest)."""
    pooler = tls_pooler(t, client_tls_ecdhcurve="secp384r1")
    said = s_client(t, pooler, "-tls1_3", "-groups", "X25519:P-384")
    matches("Server Temp Key: ECDH, secp384r1, 384 bits", said)


def test_old_diffie_hellman_as_the_setting_says(t):
    pooler = tls_pooler(t, certificate="server-rsa", client_tls_ciphers="DHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    for setting, wanted in (("auto", "Server Temp Key: DH, 2048 bits"), ("none", r"Cipher is \(NONE\)"),
                            ("legacy", r"Server Temp Key: DH, 1024 bits|Cipher is \(NONE\)")):
        pooler.change(client_tls_dheparams=setting)
        said = s_client(t, pooler, "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
        matches(wanted, said)


# ---- what operators see -------------------------------------------------------------------------

DESCRIBED = {V1_2: r"TLSv1\.2/ECDHE-ECDSA-[A-Z0-9-]+/ECDH=(prime256v1|X25519|secp384r1)", V1_3: r"TLSv1\.3/TLS_[A-Z0-9_]+"}


def test_tls_is_shown_and_logged(t):
    pooler = tls_pooler(t, "allow")
    for version, pattern in DESCRIBED.items():
        with pooler.connect(tls=Offer(client_context(low=version, high=version)), application_name=version.name) as c:
            c.query("begin")
            suite = c.socket.tls.cipher()[0]
            matches(suite, {"x": pattern} and suite)
            pooler.wait_log(rf"C-0x.*login attempt: db=app user=app tls={pattern}( replication=no)?$")
            with pooler.console() as console:
                for show in ("clients", "sockets"):
                    row = next(r for r in console.table(f"show {show}")
                               if r.get("application_name") == version.name or r["type"] == "C" and r["user"] == "app")
                    matches(f"^{pattern}$", row["tls"])
                    assert suite in row["tls"], (suite, row["tls"])
                admin = next(r for r in console.table("show clients") if r["user"] == "admin")
                same(admin["tls"], "")
    pooler.wait_log(r"C-0x.*login attempt: db=pgbouncer user=admin tls=no( replication=no)?$")


@ours
def test_log_tells_why_a_handshake_failed(t):
    pooler = tls_pooler(t, "verify-full")
    for name in (None, "app-foreign", "app-expired"):
        before = len(pooler.log())
        try:
            with pooler.connect(tls=with_certificate(t, name) if name else Offer()):
                raise AssertionError("let in")
        except (ssl.SSLError, pgwire.Closed, OSError):
            pass
        eventually(lambda: re.search(r"(?m)C-0x.* closing because: .*(TLS|handshake)", pooler.log()[before:]), f"{name}: the log has a reason")


def test_console_over_tls(t):
    pooler = tls_pooler(t, "require")
    for version in (V1_2, V1_3):
        with pooler.console(host="127.0.0.1", tls=Offer(client_context(low=version, high=version))) as console:
            rows = console.table("show clients")
            mine = next(r for r in rows if r["user"] == "admin" and r["tls"])
            matches(f"^{DESCRIBED[version]}$", mine["tls"])
            assert len(console.table("show config")) > 50
            same(console.do("reload"), "RELOAD")
            same(console.do("pause"), "PAUSE")
            same(console.do("resume"), "RESUME")
            console.client.send(query("show version") * 50)
            for _ in range(50):
                same(len(console.client.results().rows), 1)
            same(console.client.terminate(), [])
            same(console.client.socket.end, "close_notify")


def test_rubbish_in_a_console_session_ends_that_session_only(t):
    """Behind a good message, in one segment and in two: what the library has not looked at must not wait for the next."""
    pooler = tls_pooler(t, "allow", stats_users="app")
    rubbish = os.urandom(100)
    for version in (V1_2, V1_3):
        offer = Offer(client_context(low=version, high=version))
        for behind in (record(RECORD_DATA, rubbish), None):
            with pooler.console("app", host="127.0.0.1", tls=offer) as console:
                tls = console.client.socket
                first = tls.sealed(query("show version"))
                if behind is None:  # the end, and something behind it
                    with contextlib.suppress(ssl.SSLError):
                        tls.tls.unwrap()
                    behind = tls.outgoing.read() + record(RECORD_DATA, rubbish)
                tls.raw.sendall(first + behind + rubbish)
                with contextlib.suppress(OSError):
                    for _ in range(3):
                        tls.raw.sendall(rubbish)
                tls_wire.raw_bytes(console.client)
        pooler.usable()


# ---- how it ends --------------------------------------------------------------------------------

def test_close_notify_is_the_last_word(t):
    pooler = tls_pooler(t)
    for version in (V1_2, V1_3):
        offer = Offer(client_context(low=version, high=version))
        with pooler.connect(tls=offer) as c:
            same(c.value("select 1"), "1")
            same(c.terminate(), [])
            same(c.socket.end, "close_notify", version.name)
        with pooler.open(tls=offer) as c, refused("no such database: missing"):
            c.login(database="missing")
        with pooler.connect(tls=offer, database="app") as c:  # and behind an error
            with pooler.console() as console:
                console.do("kill app")
                console.do("resume app")
            c.fatal()
            same(c.socket.end, "close_notify", version.name)


def test_client_that_says_close_notify_is_gone(t):
    pooler = tls_pooler(t)
    for version in (V1_2, V1_3):
        with pooler.connect(tls=Offer(client_context(low=version, high=version))) as c:
            same(c.value("select 1"), "1")
            c.socket.close_notify()
            same(c.closed(), [])
            same(c.socket.end, "close_notify", version.name)
    with pooler.console() as console:
        eventually(lambda: not [r for r in console.table("show clients") if r["user"] == "app"], "they are gone")
    pooler.wait_log("closing because: client unexpected eof")


def test_client_cut_off_in_the_middle_of_a_message_is_gone(t):
    """What had come of its query must not be run."""
    pooler = tls_pooler(t, default_pool_size=1)
    with t.postgres.connect() as setup:
        setup.query("drop table if exists cut; create table cut (n int)")
    insert = query("insert into cut values (1)")
    with pooler.connect(tls=Offer()) as other:
        for how in ("vanish", "reset"):
            for cut in (1, 5, len(insert) - 1):
                c = pooler.connect(tls=Offer())
                c.send(insert[:cut])
                getattr(c, how)()
            c = pooler.connect(tls=Offer())  # a record that is not whole
            c.socket.raw.sendall(c.socket.sealed(insert)[:-1])
            getattr(c, how)()
        same(other.value("select count(*) from cut"), "0")
    with pooler.console() as console:
        eventually(lambda: not [r for r in console.table("show clients") if r["user"] == "app"], "they are gone")
    pooler.wait_log("closing because: client unexpected eof")


def test_query_before_close_notify_is_answered_or_dropped_as_without_tls(t):
    """Terminate, close_notify and FIN right behind a query."""
    pooler = tls_pooler(t, default_pool_size=1)
    with t.postgres.connect() as setup:
        setup.query("drop table if exists cut; create table cut (n int)")
    c = pooler.connect(tls=Offer())
    c.send(query("insert into cut values (7)"))
    same(c.results().tags, ["INSERT 0 1"])
    c.send(pgwire.terminate())
    c.socket.close_notify()
    c.closed()
    same(t.postgres.value("select count(*) from cut"), "1")


# ---- what is no TLS, or wrong TLS ---------------------------------------------------------------

def end(client):
    """FIN: nothing more will come."""
    with contextlib.suppress(OSError):
        client.socket.shutdown(socket.SHUT_WR)


def client_hello(t):
    with socket.socketpair()[0] as nobody:
        return TlsSocket(nobody, client_context()).hello()


GARBAGE = {
    "zeros": bytes(64),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a startup packet": startup({"user": "app"}),
    "SSL 2": bytes([0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]) + bytes(40),
    "an empty handshake record": record(RECORD_HANDSHAKE, b""),
    "a record of 16385 + 256 bytes": record(RECORD_HANDSHAKE, bytes(16641)),
    "a record of 65535 bytes": record(RECORD_HANDSHAKE, bytes(65535)),
    "data first": record(RECORD_DATA, b"hello"),
    "an alert": record(RECORD_ALERT, bytes([2, 40])),
    "a warning": record(RECORD_ALERT, bytes([1, 0])),
    "half an alert": record(RECORD_ALERT, bytes([2])),
    "a long alert": record(RECORD_ALERT, bytes(300)),
    "a hello that is all length": record(RECORD_HANDSHAKE, bytes([1, 255, 255, 255]) + bytes(100)),
    "a hello of zeros": record(RECORD_HANDSHAKE, bytes([1, 0, 0, 100]) + bytes(100)),
    "a server's hello": record(RECORD_HANDSHAKE, bytes([2, 0, 0, 100]) + bytes(100)),
    "finished": record(RECORD_HANDSHAKE, bytes([20, 0, 0, 12]) + bytes(12)),
    "a change of ciphers": record(20, b"\1"),
    "an unknown kind": record(99, bytes(20)),
    "an unknown version": record(RECORD_HANDSHAKE, bytes(20), version=0x0909),
}


@ours
def test_garbage_instead_of_clienthello_ends_that_connection_only(t):
    pooler = tls_pooler(t)
    other = pooler.connect(tls=Offer())
    for name, data in GARBAGE.items():
        for direct in (False, True):
            if direct and data[:1] != b"\x16":
                continue
            with pooler.open() as c:
                if not direct:
                    c.send(ssl_request())
                    same(c.raw(1), b"S")
                c.send(data)
                end(c)
                found = tls_wire.raw_bytes(c)
                assert found == b"" or found[0] in (RECORD_ALERT, RECORD_HANDSHAKE), f"{name}: {found!r}"
        same(other.value("select 1"), "1", name)


@ours
def test_flipped_bits_in_a_handshake_end_that_connection_only(t):
    pooler = tls_pooler(t)
    other = pooler.connect(tls=Offer())
    hello = client_hello(t)
    for at in range(5, len(hello), 29):
        with pooler.open() as c:
            c.send(ssl_request())
            same(c.raw(1), b"S")
            c.send(hello[:at] + bytes([hello[at] ^ 0x41]) + hello[at + 1:])
            end(c)
            tls_wire.raw_bytes(c)
    same(other.value("select 1"), "1")


def test_wrong_records_after_the_handshake_end_that_connection_only(t):
    pooler = tls_pooler(t)
    other = pooler.connect(tls=Offer())
    asked = query("select 'not to be run'")
    for version in (V1_2, V1_3):
        offer = Offer(client_context(low=version, high=version))

        def flipped(c):
            data = bytearray(c.socket.sealed(asked))
            data[-1] ^= 1
            return bytes(data)

        def twice(c):
            return c.socket.sealed(asked) * 2
        cases = {"flipped": flipped, "replayed": twice,
                 "plain text": lambda c: asked,
                 "data of nothing": lambda c: record(RECORD_DATA, b"") * 3,
                 "too long": lambda c: record(RECORD_DATA, bytes(16384 + 257)),
                 "way too long": lambda c: record(RECORD_DATA, bytes(65535)),
                 "a handshake in plain text": lambda c: client_hello(t),
                 "an alert in plain text": lambda c: record(RECORD_ALERT, bytes([2, 40])),
                 "alerts without end": lambda c: record(RECORD_ALERT, bytes([1, 90])) * 2000,
                 "changes of ciphers without end": lambda c: record(20, b"\1") * 2000,
                 "an unknown kind": lambda c: record(99, bytes(20))}
        for name, make in cases.items():
            with pooler.connect(tls=offer, timeout=8) as c:
                same(c.value("select 1"), "1")
                data = make(c)
                try:
                    c.socket.raw.sendall(data)
                    c.socket.raw.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                try:
                    found = c.closed()
                except (ssl.SSLError, OSError):
                    continue  # our alert, or a reset
                answers = [m for m in found if m.type == "Z"]
                same(len(answers), 1 if name == "replayed" and answers else 0, f"{name}, {version.name}: {found}")
        same(other.value("select 1"), "1", version.name)


@ours
def test_alert_of_the_client_ends_its_connection(t):
    """A client that does not like our certificate says so: the log has its reason."""
    pooler = tls_pooler(t)
    made = certificates.of(t)
    try:
        pooler.open(tls=Offer(client_context(made.path("other-ca"))))
        raise AssertionError("it should not believe us")
    except ssl.SSLError:
        pass
    pooler.wait_log(r"C-0x.*closing because:")


# ---- slow, many, large --------------------------------------------------------------------------

def test_handshake_comes_byte_by_byte(t):
    pooler = tls_pooler(t)
    for version in (V1_2, V1_3):
        c = pooler.open()
        for byte in ssl_request():
            c.send(bytes([byte]))
        same(c.raw(1), b"S")
        secured = TlsSocket(ByteByByte(c.socket), client_context(low=version, high=version))
        c.socket = secured.handshake()
        c.login()
        same(c.value("select 'byte by byte'"), "byte by byte")
        c.vanish()


class ByteByByte:
    """Sends each byte on its own, TCP_NODELAY is set."""

    def __init__(self, raw):
        self.raw = raw

    def sendall(self, data):
        for byte in data:
            self.raw.send(bytes([byte]))

    def __getattr__(self, name):
        return getattr(self.raw, name)


def test_handshake_that_stalls_ends_with_client_login_timeout(t):
    pooler = tls_pooler(t, client_login_timeout=1)
    hello = client_hello(t)
    started = time.monotonic()
    stalled = []
    for sent in (b"", hello[:1], hello[:5], hello[:100], hello):
        c = pooler.open()
        c.send(ssl_request())
        same(c.raw(1), b"S")
        c.send(sent)
        stalled.append(c)
    done = pooler.open(tls=Offer())  # and one who has nothing to say after the handshake
    with pooler.connect(tls=Offer()) as c:
        same(c.value("select 1"), "1")
        for stuck in stalled:
            found = tls_wire.raw_bytes(stuck, 4)
            assert found == b"" or found[0] in (RECORD_ALERT, RECORD_HANDSHAKE), found  # no error in plain text
        done.closed(4)
        within(started, 0.9, 4, "client_login_timeout")
        eventually(lambda: len(re.findall("closing because: client_login_timeout", pooler.log())) == 6, "six are logged")
        same(c.value("select 1"), "1")


def test_hundreds_of_half_open_handshakes_leave_queries_alone(t):
    pooler = tls_pooler(t, client_login_timeout=3, max_client_conn=1000)
    hello = client_hello(t)
    with pooler.connect(tls=Offer()) as c:
        half = []
        for i in range(300):
            one = pooler.open()
            one.send(ssl_request())
            half.append(one)
        for i, one in enumerate(half):
            same(one.raw(1), b"S")
            one.send(hello[:5 + i % (len(hello) - 5)])
            if i % 10 == 0:
                same(c.value("select 1", timeout=2), "1")
        same(c.value("select 1", timeout=2), "1")
        with pooler.connect(tls=Offer()) as new:
            same(new.value("select 1"), "1")
        for one in half:
            found = tls_wire.raw_bytes(one, 8)
            assert found == b"" or found[0] in (RECORD_ALERT, RECORD_HANDSHAKE), found
        same(c.value("select 1"), "1")


def seconds_of_threads(pooler):
    """CPU time by the beginning of the threads' names: "tls" are the helpers of handshakes."""
    found = {}
    folder = f"/proc/{pooler.process.pid}/task"
    for task in os.listdir(folder):
        with open(f"{folder}/{task}/stat") as file:
            name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        name = re.match("[a-z]*", name)[0]
        found[name] = found.get(name, 0) + sum(int(ticks) for ticks in rest.split()[11:13]) / os.sysconf("SC_CLK_TCK")
    return found


@ours
@slow(60)
def test_storm_of_handshakes_leaves_queries_alone(t):
    """Private keys are the helpers' work, all of it: a query waits for a worker that has nothing else to do."""
    pooler = tls_pooler(t, certificate="server-rsa", max_client_conn=1000, extra="[pgsplice]\nworker_threads = 1\n")
    hello = client_hello(t)
    stop, served = threading.Event(), [0]
    before = seconds_of_threads(pooler)
    with pooler.connect(tls=Offer(), timeout=10) as c:
        def knock():
            while not stop.is_set():
                several = [pooler.open(timeout=20) for _ in range(8)]
                for one in several:
                    one.send(ssl_request())
                for one in several:
                    one.raw(1)
                    one.send(hello)  # the private key's work
                for one in several:
                    one.raw(5)
                    served[0] += 1
                    one.vanish()
        threads = [threading.Thread(target=knock) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            i = 0
            while served[0] < 1000:
                same(c.value(f"select {i}"), str(i))
                i += 1
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    after = seconds_of_threads(pooler)
    spent = {name: after[name] - before.get(name, 0) for name in after}
    assert spent["tls"] > 1.5 * spent["worker"], spent


def big_hello(bytes_):
    """A ClientHello with one extension of so many bytes, in records of 16 KiB."""
    padding = struct.pack("!HH", 21, min(bytes_, 65000)) + bytes(min(bytes_, 65000))
    extensions = struct.pack("!HH", 43, 3) + b"\2\3\4" + padding
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + struct.pack("!H", min(len(extensions), 65535)) + extensions
    whole = bytes([1]) + struct.pack("!I", len(body))[1:] + body
    return b"".join(record(RECORD_HANDSHAKE, whole[i:i + 16384]) for i in range(0, len(whole), 16384))


def test_huge_clienthello_is_taken_or_refused(t):
    pooler = tls_pooler(t, client_login_timeout=2)
    with pooler.connect(tls=Offer()) as c:
        for size in (1000, 16000, 17000, 40000, 64000):
            with pooler.open() as one:
                one.send(ssl_request())
                same(one.raw(1), b"S")
                try:
                    one.send(big_hello(size))
                    end(one)
                except OSError:
                    pass
                tls_wire.raw_bytes(one)
            same(c.value("select 1"), "1")
        # And one that never ends.
        with pooler.open() as one:
            one.send(ssl_request())
            same(one.raw(1), b"S")
            start = bytes([1, 255, 255, 255]) + bytes(16380)
            before = pooler.memory()
            try:
                one.send(record(RECORD_HANDSHAKE, start))
                for _ in range(1000):
                    one.send(record(RECORD_HANDSHAKE, bytes(16384)))
            except OSError:
                pass
            tls_wire.raw_bytes(one)
            assert pooler.memory() - before < 8 << 20, pooler.memory() - before
        same(c.value("select 1"), "1")


def test_empty_and_tiny_records_are_nothing_special(t):
    """A client may cut its messages into records as it likes."""
    pooler = tls_pooler(t)
    for version in (V1_2, V1_3):
        with pooler.connect(tls=Offer(client_context(low=version, high=version))) as c:
            data = query("select 'in records of one byte'")
            wire = b"".join(c.socket.sealed(data[i:i + 1]) for i in range(len(data)))
            c.socket.raw.sendall(wire)
            same(c.results().value(), "in records of one byte")
            for byte in c.socket.sealed(data):
                c.socket.raw.sendall(bytes([byte]))
            same(c.results().value(), "in records of one byte")
            # Two records, the second of which is not whole when the first comes.
            first, second = c.socket.sealed(data), c.socket.sealed(data)
            c.socket.raw.sendall(first + second[:-3])
            same(c.results().value(), "in records of one byte")
            c.socket.raw.sendall(second[-3:])
            same(c.results().value(), "in records of one byte")


# ---- what comes with the handshake's end --------------------------------------------------------

def last_flight(pooler, context, session=None):
    """A client whose next bytes end the handshake; they are not sent, so that others may follow them at once."""
    c = pooler.open()
    tls_wire.ask(c.socket)
    secured = TlsSocket(c.socket, context, session=session)
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            secured.tls.do_handshake()
            break
        secured.flush()
        secured.pull()
    raw, c.socket = c.socket, secured
    return c, raw, secured.outgoing.read()


def resumable(pooler, version):
    """A context and a session with which the client is the one who ends the handshake."""
    context = client_context(low=version, high=version)
    with pooler.connect(tls=Offer(context)) as c:
        same(c.value("select 1"), "1")
        return context, c.socket.tls.session


@ours
@slow(30)
def test_queries_may_come_with_the_end_of_the_handshake(t):
    """Startup packet and pipelined queries in the segment of Finished, or cut from it anywhere. In TLS 1.2 that is so when
    a session is resumed."""
    pooler = tls_pooler(t, client_tls_ca_file=None, extra="[pgsplice]\nworker_threads = 2\npool_shards = 1\n")
    for version in (V1_2, V1_3):
        context, session = resumable(pooler, version)
        for cut in [None] + list(range(1, 260, 11)):
            c, raw, finished = last_flight(pooler, context, session if version == V1_2 else None)
            data = finished + c.socket.sealed(pgwire.startup({"user": "app", "database": "app"}))
            data += c.socket.sealed(query("select 'first'")) + c.socket.sealed(query("select 'second', repeat('x', 20000)"))
            if cut is None:
                raw.sendall(data)
            else:
                raw.sendall(data[:cut])
                raw.sendall(data[cut:])
            c.authenticate("app", None)
            same(c.results().value(), "first", f"{version.name}, cut at {cut}")
            same(c.results().rows, [("second", "x" * 20000)])
            same(c.terminate(), [])
            same(c.socket.end, "close_notify")


@ours
@slow(30)
def test_queries_may_come_while_the_handshakes_end_waits_for_a_helper(t):
    """The helpers have the private key's work of many others before it."""
    pooler = tls_pooler(t, certificate="server-rsa", client_tls_ca_file=None, extra="[pgsplice]\nworker_threads = 1\n")
    hello = client_hello(t)
    with pooler.connect(tls=Offer()) as other:
        for version in (V1_2, V1_3) * 3:
            context, session = resumable(pooler, version)
            storm = [pooler.open() for _ in range(60)]
            for one in storm:
                tls_wire.ask(one.socket)
            c, raw, finished = last_flight(pooler, context, session if version == V1_2 else None)
            for one in storm:
                one.send(hello)
            raw.sendall(finished)
            same(other.value("select 1"), "1")  # the worker has seen it by now
            raw.sendall(c.socket.sealed(pgwire.startup({"user": "app", "database": "app"})))
            same(other.value("select 2"), "2")
            raw.sendall(c.socket.sealed(query("select 'first'")) + c.socket.sealed(query("select 'second'")))
            c.authenticate("app", None)
            same((c.results().value(), c.results().value()), ("first", "second"), version.name)
            for one in [c, *storm]:
                one.vanish()


def descriptors(pooler):
    return len(os.listdir(f"/proc/{pooler.process.pid}/fd"))


@ours
@slow(40)
def test_clients_who_leave_in_the_handshake_leave_nothing_behind(t):
    pooler = tls_pooler(t, "verify-full", max_client_conn=1000, client_login_timeout=3)
    offer = with_certificate(t, low=V1_3)
    with pooler.connect(tls=offer) as c:
        before = descriptors(pooler)
        for i in range(480):
            if i == 240:
                memory = pooler.memory()  # by now the heap has what it needs
            leaves = pooler.open()
            tls_wire.ask(leaves.socket)
            secured = TlsSocket(leaves.socket, offer.context)
            hello = secured.hello()
            if i % 4 == 0:
                leaves.send(hello)
            elif i % 4 == 1:
                leaves.send(hello[:-1])
            elif i % 4 == 2:
                leaves.send(hello)
                leaves.raw(1)
            else:
                leaves.send(hello)
                secured.handshake()  # Finished and the certificate are on their way
            (leaves.vanish if i % 3 else leaves.reset)()
            if i % 60 == 0:
                pooler.reload()
        eventually(lambda: descriptors(pooler) <= before, "all descriptors are back", 8)
        if not is_sanitized():
            assert pooler.memory() - memory < 300 << 10, pooler.memory() - memory
        with pooler.console() as console:
            eventually(lambda: {row["list"]: row["items"] for row in console.table("show lists")}["login_clients"] == "0",
                       "nobody logs in")
        same(c.value("select 1"), "1")
