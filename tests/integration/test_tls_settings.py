"""The settings of TLS: each does what it says (harness.covers), and what becomes of them at the start, with RELOAD and
with SET."""

import os
import re
import shutil
import ssl

import certificates
import harness
import pgwire
from harness import covers, eventually, give_to_os_user, matches, ours, refused, same
from test_tls_servers import Backend
from tls_wire import V1_2, V1_3, Offer, client_context


def made_pooler(t, sslmode="allow", certificate="server", **settings):
    """A pooler with a certificate for clients; its console is reached by the unix socket, which never needs TLS."""
    made = certificates.of(t)
    given = {"client_tls_key_file": made.key(certificate), "client_tls_cert_file": made.path(certificate),
             "client_tls_sslmode": sslmode}
    pooler = t.pooler(**{"pool_mode": "transaction", **given, **settings})
    pooler.console_host = pooler.folder
    return pooler


def seen(t, pooler, name=None, **offer):
    """Version, cipher and certificate's common name of a login over TLS. `name`: with this certificate."""
    made = certificates.of(t)
    context = client_context(made.path("ca"), made.path(name) if name else None, made.key(name) if name else None, **offer)
    with pooler.connect(tls=Offer(context)) as c:
        same(c.value("select 1"), "1")
        tls = c.socket.tls
        return tls.version(), tls.cipher()[0], dict(pair[0] for pair in tls.getpeercert()["subject"])["commonName"]


def fails(t, pooler, **more):
    try:
        got = seen(t, pooler, **more)
    except (ssl.SSLError, OSError, pgwire.Closed):
        return
    raise AssertionError(f"gets in: {got}")


# ---- each setting, towards clients --------------------------------------------------------------

@covers("settings", "client_tls_sslmode")
def test_client_tls_sslmode_demands_tls(t):
    pooler = made_pooler(t, "require")
    seen(t, pooler)
    with refused("SSL required", "08P01", "FATAL"):
        pooler.connect()


@covers("settings", "client_tls_key_file", "client_tls_cert_file")
def test_clients_are_shown_the_certificate(t):
    pooler = made_pooler(t, "disable", "server-new")
    pooler.change(client_tls_sslmode="require")
    same(seen(t, pooler)[2], "server-new")


@covers("settings", "client_tls_ca_file")
def test_certificates_of_clients_are_verified_where_there_are_authorities(t):
    pooler = made_pooler(t, client_tls_ca_file=certificates.of(t).path("ca"))
    seen(t, pooler)
    seen(t, pooler, "app")
    fails(t, pooler, name="app-foreign")


@covers("settings", "client_tls_protocols")
def test_client_tls_protocols_names_the_versions(t):
    pooler = made_pooler(t, client_tls_protocols="tlsv1.2")
    same(seen(t, pooler)[0], "TLSv1.2")
    fails(t, pooler, low=V1_3)


@covers("settings", "client_tls_ciphers")
def test_client_tls_ciphers_names_the_suites_of_tls_1_2(t):
    pooler = made_pooler(t, client_tls_ciphers="ECDHE+AESGCM:!AES128")
    same(seen(t, pooler, high=V1_2)[1], "ECDHE-ECDSA-AES256-GCM-SHA384")
    fails(t, pooler, high=V1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")


@covers("settings", "client_tls13_ciphers")
@ours
def test_client_tls13_ciphers_names_the_suites_of_tls_1_3(t):
    pooler = made_pooler(t, client_tls13_ciphers="TLS_CHACHA20_POLY1305_SHA256")
    same(seen(t, pooler, low=V1_3)[1], "TLS_CHACHA20_POLY1305_SHA256")


@covers("settings", "client_tls_ecdhcurve")
def test_client_tls_ecdhcurve_names_the_curve(t):
    pooler = made_pooler(t, client_tls_ecdhcurve="secp384r1")
    context = client_context(certificates.of(t).path("ca"), low=V1_3)
    context.set_ecdh_curve("prime256v1")  # the only one that is offered
    try:
        pooler.connect(tls=Offer(context))
    except (ssl.SSLError, OSError, pgwire.Closed):
        return
    raise AssertionError("gets in with another curve")


@covers("settings", "client_tls_dheparams")
def test_client_tls_dheparams_none_is_no_dhe(t):
    pooler = made_pooler(t, certificate="server-rsa", client_tls_dheparams="none")
    fails(t, pooler, high=V1_2, ciphers="DHE+AESGCM")
    same(seen(t, pooler, high=V1_2, ciphers="DHE+AESGCM:ECDHE-RSA-AES256-GCM-SHA384")[1], "ECDHE-RSA-AES256-GCM-SHA384")


# ---- each setting, towards servers --------------------------------------------------------------

def for_backend(t, backend, **settings):
    return t.pooler(pool_mode="transaction", server_login_retry=0.2, query_wait_timeout=3,
                    databases={"app": f"host=localhost port={backend.port} dbname=app"},
                    extra="[pgsplice]\nserver_login_retry_max = 0\n", **settings)


def what(pooler):
    with pooler.connect() as c:
        return c.value("select what()")


def last(backend):
    return backend.sessions[-1].tls


@covers("settings", "server_tls_sslmode")
def test_server_tls_sslmode_demands_tls(t):
    pooler = for_backend(t, Backend(t, None), server_tls_sslmode="require")
    with pooler.open() as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        pooler.wait_log("S-0x.* closing because: server refused SSL|S-0x.* closing because: .*SSL")


@covers("settings", "server_tls_ca_file")
def test_servers_are_verified_with_server_tls_ca_file(t):
    pooler = for_backend(t, Backend(t, "server"), server_tls_ca_file=certificates.of(t).path("ca"))
    pooler.change(server_tls_sslmode="verify-full")
    same(what(pooler), "TLS")


@covers("settings", "server_tls_key_file", "server_tls_cert_file")
def test_servers_are_shown_the_certificate(t):
    made = certificates.of(t)
    pooler = for_backend(t, Backend(t, "server", wants="ca"), server_tls_sslmode="disable",
                         server_tls_key_file=made.key("app"), server_tls_cert_file=made.path("app"))
    pooler.change(server_tls_sslmode="require")
    same(what(pooler), "TLS app")


@covers("settings", "server_tls_protocols")
def test_server_tls_protocols_names_the_versions(t):
    backend = Backend(t, "server")
    same(what(for_backend(t, backend, server_tls_protocols="tlsv1.2")), "TLS")
    same(last(backend).version(), "TLSv1.2")


@covers("settings", "server_tls_ciphers")
def test_server_tls_ciphers_names_the_suites_of_tls_1_2(t):
    backend = Backend(t, "server", high=V1_2)
    same(what(for_backend(t, backend, server_tls_ciphers="CHACHA20")), "TLS")
    same(last(backend).cipher()[0], "ECDHE-ECDSA-CHACHA20-POLY1305")


@covers("settings", "server_tls13_ciphers")
@ours
def test_server_tls13_ciphers_names_the_suites_of_tls_1_3(t):
    backend = Backend(t, "server")
    same(what(for_backend(t, backend, server_tls13_ciphers="TLS_CHACHA20_POLY1305_SHA256")), "TLS")
    same(last(backend).cipher()[0], "TLS_CHACHA20_POLY1305_SHA256")


# ---- the start ----------------------------------------------------------------------------------

def of_clients(t, name="server", **more):
    return certificates.of(t).of_clients(name, **{"sslmode": "require", **more})


# What is set beside a good configuration, and what is said of it.
MISTAKES = (
    ({"client_tls_key_file": None}, "client_tls_sslmode needs client_tls_key_file and client_tls_cert_file, unless it is disable"),
    ({"client_tls_cert_file": None}, "client_tls_sslmode needs client_tls_key_file and client_tls_cert_file, unless it is disable"),
    ({"client_tls_cert_file": "/not/there"}, 'client_tls: could not open "/not/there": No such file or directory'),
    ({"client_tls_key_file": "/not/there"}, 'client_tls: could not open "/not/there": No such file or directory'),
    ({"client_tls_ca_file": "/"}, 'client_tls: "/" is not a file'),
    ({"client_tls_ca_file": None, "client_tls_sslmode": "verify-ca"},
     "client_tls_sslmode verify-ca and verify-full need client_tls_ca_file"),
    ({"client_tls_sslmode": "require", "auth_type": "cert"}, "client_tls_sslmode has to be verify-full for auth_type cert"),
    ({"client_tls_protocols": "sslv3"}, 'client_tls_protocols: "sslv3" is no list of tlsv1.0, tlsv1.1, '),
    ({"client_tls_ciphers": "RC4:3DES"}, 'client_tls_ciphers: "RC4:3DES" leaves no suite'),
    ({"client_tls13_ciphers": "NIX"}, 'client_tls13_ciphers: "NIX" leaves no suite'),
    ({"client_tls_ecdhcurve": "brainpoolP256r1"}, 'client_tls_ecdhcurve: "brainpoolP256r1" is none of none, auto, '),
    ({"server_tls_sslmode": "verify-full"}, "server_tls_sslmode verify-ca and verify-full need server_tls_ca_file"),
    ({"server_tls_key_file": "/not/there"}, "server_tls_key_file and server_tls_cert_file need each other"),
    ({"server_tls_protocols": ""}, 'server_tls_protocols: "" is no list of '),
    ({"server_tls_ciphers": "nix"}, 'server_tls_ciphers: "nix" leaves no suite'),
)


@ours
def test_mistakes_end_the_start_and_are_found_by_a_check(t):
    pooler = t.pooler(start=False, **of_clients(t))
    good = dict(pooler.settings)
    for wrong, said in MISTAKES:
        pooler.settings = {**good, "logfile": "", **wrong}
        pooler.write()
        done = pooler.run_to_end()
        same(done.returncode, 1, said)
        matches(f"ERROR {re.escape(said)}", done.stderr)
        matches("FATAL cannot set up TLS", done.stderr)
        done = pooler.run_to_end(["-t", pooler.ini])
        same(done.returncode, 1, said)
        matches(f"(?m)^ERROR {re.escape(said)}", done.stdout)
    pooler.settings = good
    pooler.write()
    same(pooler.run_to_end(["-t", pooler.ini]).returncode, 0)


@ours
def test_key_of_another_certificate_ends_the_start(t):
    made = certificates.of(t)
    pooler = t.pooler(start=False, **{**of_clients(t), "client_tls_key_file": made.key("app")})
    done = pooler.run_to_end()
    same(done.returncode, 1)
    matches("ERROR client_tls: key .*app.key.* does not belong to certificate .*server.crt", done.stderr)


@ours
def test_words_that_nobody_knows_are_warned_of(t):
    pooler = made_pooler(t, client_tls_ciphers="HIGH:NIX:!aNULL:!RC4-SHA", client_tls13_ciphers="TLS_AES_128_GCM_SHA256:TLS_NIX",
                         client_tls_protocols="tlsv1.0,tlsv1.2,tlsv1.3")
    log = pooler.log()
    matches("WARNING client_tls_ciphers: not known or not offered, left out: NIX\n", log)
    matches("WARNING client_tls13_ciphers: not known or not offered, left out: TLS_NIX\n", log)
    matches("WARNING client_tls_protocols: the TLS library has no tlsv1.0.*, left out\n", log)
    seen(t, pooler)


@ours
def test_key_that_only_root_may_read_is_enough_for_the_start_not_for_a_reload(t):
    if os.geteuid() != 0:
        raise harness.Skip("not root")
    made = certificates.of(t)
    key = os.path.join(t.folder, "roots.key")
    shutil.copy(made.key("server"), key)
    os.chown(key, 0, 0)
    os.chmod(key, 0o600)
    pooler = t.pooler(as_root=True, user=harness.OS_USER, pool_mode="transaction", client_tls_sslmode="require",
                      client_tls_key_file=key, client_tls_cert_file=made.path("server"))
    pooler.console_host = pooler.folder
    seen(t, pooler)
    with pooler.console() as console, refused("RELOAD failed, see logs for additional details", "F0000"):
        console.do("reload")
    pooler.wait_log('ERROR client_tls: could not open ".*roots.key": Permission denied')
    seen(t, pooler)


# ---- RELOAD -------------------------------------------------------------------------------------

def own_copy(t, name):
    """A key and a certificate that a test may replace."""
    made = certificates.of(t)
    paths = os.path.join(t.folder, "own.key"), os.path.join(t.folder, "own.crt")
    for from_, to in zip((made.key(name), made.path(name)), paths):
        shutil.copy(from_, to)
        give_to_os_user(to)
    return paths


def test_reload_takes_new_contents_and_drops_nobody(t):
    key, certificate = own_copy(t, "server")
    pooler = made_pooler(t, client_tls_key_file=key, client_tls_cert_file=certificate)
    with pooler.connect(tls=Offer(client_context(certificates.of(t).path("ca")))) as c:
        server = c.value("select pg_backend_pid()")
        same(seen(t, pooler)[2], "server")
        own_copy(t, "server-new")
        same(seen(t, pooler)[2], "server")
        pooler.reload()
        same(seen(t, pooler)[2], "server-new")
        same(c.value("select pg_backend_pid()"), server)  # and servers stay


@ours
def test_reload_that_fails_leaves_all_as_it_was(t):
    pooler = made_pooler(t, "require", max_client_conn=50)
    for wrong, said in MISTAKES:
        before = dict(pooler.settings)
        pooler.change(reload=False, max_client_conn=60, **wrong)
        with pooler.console() as console:
            with refused("RELOAD failed, see logs for additional details", "F0000"):
                console.do("reload")
            same((console.config("max_client_conn"), console.config("client_tls_sslmode")), ("50", "require"))
        pooler.wait_log(re.escape(f"ERROR {said}"))
        pooler.settings = before
    same(seen(t, pooler)[2], "server")
    with refused("SSL required", "08P01", "FATAL"):
        pooler.connect()


def test_tls_is_turned_on_and_off_by_reload(t):
    pooler = made_pooler(t, "disable")
    with pooler.connect() as plain:
        pooler.change(client_tls_sslmode="require")
        with refused("SSL required", "08P01", "FATAL"):
            pooler.connect()
        with pooler.connect(tls=Offer(client_context())) as secured:
            same(plain.value("select 1"), "1")  # who is in stays
            pooler.change(client_tls_sslmode="disable")
            same(secured.value("select 1"), "1")
            same(plain.value("select 1"), "1")
            with pooler.connect() as other:
                same(other.value("select 1"), "1")


def backend_pid(pooler):
    with pooler.connect() as c:
        return c.value("select pg_backend_pid()")


def test_other_rules_for_servers_retire_them_and_the_same_ones_do_not(t):
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    authorities = os.path.join(t.folder, "authorities.crt")
    shutil.copy(made.path("ca"), authorities)
    give_to_os_user(authorities)
    pooler = t.pooler(pool_mode="transaction", server_tls_sslmode="verify-ca", server_tls_ca_file=authorities)
    before = backend_pid(pooler)
    pooler.reload()
    same(backend_pid(pooler), before)
    pooler.change(max_client_conn=70)
    same(backend_pid(pooler), before)
    for change in ({"server_tls_sslmode": "require"}, {"server_tls_sslmode": "verify-full"}, {"server_tls_protocols": "tlsv1.2"},
                   {"server_tls_protocols": None}, {"server_tls_sslmode": "disable"}, {"server_tls_sslmode": "verify-full"}):
        pooler.change(**change)
        now = backend_pid(pooler)
        assert now != before, change
        before = now
    # The same path with other contents.
    shutil.copy(made.path("both-ca"), authorities)
    pooler.reload()
    assert backend_pid(pooler) != before


def test_server_in_a_transaction_is_retired_after_it(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("begin")
        before = c.value("select pg_backend_pid()")
        pooler.change(server_tls_sslmode="disable")
        same(c.value("select pg_backend_pid()"), before)
        c.query("commit")
        assert c.value("select pg_backend_pid()") != before


# ---- SET ----------------------------------------------------------------------------------------

NOT_APPLIED = "TLS settings could not be applied, still using old configuration"


def set_to(console, key, value):
    """The tag and the notices."""
    result = console.client.query(f"set {key} = '{value}'")
    same(result.tags, [f"SET {key}={value}"])
    return result.notices


@ours
def test_set_applies_or_says_that_it_does_not(t):
    made = certificates.of(t)
    pooler = t.pooler(pool_mode="transaction")
    pooler.console_host = pooler.folder
    with pooler.console() as console:
        notices = set_to(console, "client_tls_sslmode", "require")
        same([(n["S"], n["C"], n["M"]) for n in notices], [("NOTICE", "00000", NOT_APPLIED)])
        pooler.wait_log("ERROR client_tls_sslmode needs client_tls_key_file and client_tls_cert_file")
        same(console.config("client_tls_sslmode"), "disable")
        pooler.usable()
        same(set_to(console, "client_tls_key_file", made.key("server")), [])
        same(set_to(console, "client_tls_cert_file", made.path("server")), [])
        same(set_to(console, "client_tls_sslmode", "require"), [])
        same(console.config("client_tls_sslmode"), "require")
        same(seen(t, pooler)[2], "server")
        with refused("SSL required", "08P01", "FATAL"):
            pooler.connect()
        # Two that belong together: the first one alone is not applied, but kept.
        same(len(set_to(console, "client_tls_key_file", made.key("server-new"))), 1)
        same(seen(t, pooler)[2], "server")
        same(set_to(console, "client_tls_cert_file", made.path("server-new")), [])
        same(seen(t, pooler)[2], "server-new")
        same(len(set_to(console, "client_tls13_ciphers", "NIX")), 1)
        same(seen(t, pooler)[2], "server-new")
        same(set_to(console, "client_tls13_ciphers", "TLS_CHACHA20_POLY1305_SHA256"), [])
        same(seen(t, pooler)[1], "TLS_CHACHA20_POLY1305_SHA256")
        # Others leave TLS alone, though its file has gone bad.
        same(set_to(console, "client_tls_sslmode", "allow"), [])
        pooler.usable()
        same(set_to(console, "max_client_conn", "70"), [])
        same(seen(t, pooler)[2], "server-new")
        same(console.do("reload"), "RELOAD")  # back to the file: no TLS
    with pooler.open() as c:
        c.send(pgwire.ssl_request())
        same(c.socket.recv(1), b"N")


@ours
def test_set_of_a_servers_rule_retires_servers(t):
    pooler = t.pooler(pool_mode="transaction")
    before = backend_pid(pooler)
    with pooler.console() as console:
        same(set_to(console, "max_client_conn", "70"), [])
        same(backend_pid(pooler), before)
        same(set_to(console, "server_tls_ciphers", "HIGH:!aNULL"), [])
        eventually(lambda: backend_pid(pooler) != before, "the server is another one")
