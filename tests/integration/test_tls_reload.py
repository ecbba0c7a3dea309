"""Certificates and TLS settings change while the pooler runs."""

import os
import re
import signal
import threading

import certificates
import pgwire
from harness import eventually, give_to_os_user, matches, ours, refused, same, slow
from pgwire import query
from test_restart import first_of, next_of, workers
from test_tls_clients import gets_in, tls_pooler, with_certificate
from test_tls_servers import IS_TLS, Backend, pooler_for
from tls_wire import V1_2, V1_3, Offer, client_context


def install(t, pooler_folder, name, cert=None, key=None):
    """These files are now at the paths that the configuration names."""
    made = certificates.of(t)
    paths = []
    for source, target in ((cert or made.path(name), "the.crt"), (key or made.key(name), "the.key")):
        path = os.path.join(pooler_folder, target)
        with open(source) as old, open(path + ".new", "w") as new:
            new.write(old.read())
        os.chmod(path + ".new", 0o600)
        give_to_os_user(path + ".new")
        os.replace(path + ".new", path)
        paths.append(path)
    return paths


def pooler_of_files(t, sslmode="require", name="server", **settings):
    """A pooler whose certificate is a copy that the test may exchange."""
    cert, key = install(t, t.folder, name)
    pooler = tls_pooler(t, sslmode, client_tls_cert_file=cert, client_tls_key_file=key, **settings)
    return pooler


def shown(pooler):
    """The common name of the certificate that new clients see."""
    made = certificates.of(pooler.test)
    with pooler.open(tls=Offer(client_context(made.path("ca")))) as c:
        return dict(pair[0] for pair in c.socket.tls.getpeercert()["subject"])["commonName"]


def test_new_certificate_of_the_same_path_is_taken_by_a_reload(t):
    pooler = pooler_of_files(t)
    with pooler.connect(tls=Offer()) as old:
        old.query("begin")
        pid = old.pid()
        for how in ("console", "signal"):
            name = {"console": "server-new", "signal": "server"}[how]
            before = shown(pooler)
            install(t, t.folder, name)
            same(shown(pooler), before, "nobody has said RELOAD")
            if how == "console":
                pooler.reload()
            else:
                pooler.signal(signal.SIGHUP)
            eventually(lambda: shown(pooler) == name, "new clients see the new one")
            same(old.pid(), pid)
        old.query("commit")
        same(old.value("select repeat('x', 100000) = repeat('x', 100000)"), "t")


def test_another_path_is_taken_by_a_reload(t):
    made = certificates.of(t)
    pooler = tls_pooler(t)
    same(shown(pooler), "server")
    pooler.change(**made.of_clients("server-new", sslmode="require"))
    same(shown(pooler), "server-new")


@ours
def test_reload_with_broken_files_changes_nothing(t):
    made = certificates.of(t)
    pooler = pooler_of_files(t, max_client_conn=50)
    old = pooler.connect(tls=Offer())
    for cert, key in ((made.path("broken"), None), (None, os.path.join(made.folder, "broken.key")),
                      (made.path("server-new"), made.key("server")), (os.devnull, None), (None, os.devnull)):
        install(t, t.folder, "server-new", cert, key)
        pooler.change(reload=False, max_client_conn=60)
        before = len(pooler.log())
        with pooler.console() as console:
            with refused("RELOAD failed, see logs for additional details"):
                console.do("reload")
            same(console.config("max_client_conn"), "50")
        eventually(lambda: re.search(r"(?m) ERROR .*the\.(crt|key)", pooler.log()[before:]), "the file is named")
        same(shown(pooler), "server")
        same(old.value("select 1"), "1")
    os.unlink(os.path.join(t.folder, "the.key"))
    with pooler.console() as console, refused("RELOAD failed, see logs for additional details"):
        console.do("reload")
    pooler.signal(signal.SIGHUP)
    same(shown(pooler), "server")
    install(t, t.folder, "server-new")
    pooler.reload()
    same(shown(pooler), "server-new")
    with pooler.console() as console:
        same(console.config("max_client_conn"), "60")


@ours
def test_start_with_broken_files_ends_with_their_name(t):
    made = certificates.of(t)
    good = made.of_clients("server", sslmode="require")
    for key, value in (("client_tls_cert_file", "/nowhere/file.crt"), ("client_tls_key_file", "/nowhere/file.key"),
                       ("client_tls_cert_file", made.path("broken")), ("client_tls_key_file", os.path.join(made.folder, "broken.key")),
                       ("client_tls_key_file", made.key("other")), ("client_tls_ca_file", "/nowhere/ca.crt"),
                       ("client_tls_cert_file", None), ("client_tls_key_file", None),
                       ("server_tls_ca_file", "/nowhere/ca.crt"), ("server_tls_cert_file", "/nowhere/file.crt")):
        given = {**good, key: value}
        if key.startswith("server"):
            given = {"server_tls_sslmode": "verify-full", **made.of_servers("app"), key: value}
        pooler = t.pooler(start=False, **given)
        process = pooler.launch()
        eventually(lambda: process.poll() is not None or "process up" in pooler.stderr(), "it starts or ends", 10)
        same(process.poll(), 1, f"{key} = {value}: {pooler.stderr()[-300:]}")
        said = pooler.stderr() + pooler.log()
        assert (value or key) in said, f"{key} = {value}: {said}"


@ours
def test_modes_of_verification_need_an_authority(t):
    made = certificates.of(t)
    for side, mode, given in (("client", "verify-ca", made.of_clients("server", ca=None)),
                              ("client", "verify-full", made.of_clients("server", ca=None)),
                              ("server", "verify-ca", {}), ("server", "verify-full", {})):
        pooler = t.pooler(start=False, **{**given, f"{side}_tls_sslmode": mode})
        process = pooler.launch()
        eventually(lambda: process.poll() is not None or "process up" in pooler.stderr(), "it starts or ends", 10)
        same(process.poll(), 1)
        matches(f"{side}_tls_ca_file|CA", pooler.stderr() + pooler.log())


def test_tls_is_switched_on_and_off_by_a_reload(t):
    pooler = tls_pooler(t, "disable")
    with pooler.connect() as plain:
        pooler.change(client_tls_sslmode="require")
        with refused("SSL required"):
            pooler.connect()
        with pooler.connect(tls=Offer()) as secured:
            same(plain.value("select 1"), "1")
            pooler.change(client_tls_sslmode="disable")
            same((plain.value("select 2"), secured.value("select 3")), ("2", "3"))
            with pooler.connect() as again:
                same(again.value("select 4"), "4")


def test_other_authority_of_clients_holds_for_new_ones(t):
    made = certificates.of(t)
    pooler = tls_pooler(t, "verify-full")
    with pooler.connect(tls=with_certificate(t, "app")) as old:
        pooler.change(client_tls_ca_file=made.path("other-ca"))
        same([gets_in(pooler, with_certificate(t, name)) for name in ("app", "app-foreign")], [False, True])
        same(old.value("select 1"), "1")


def test_set_changes_tls_until_the_next_reload(t):
    pooler = tls_pooler(t, "require")
    with pooler.console() as console:
        same(console.do("set client_tls_sslmode = 'disable'"), "SET client_tls_sslmode=disable")
        with pooler.connect() as c:
            same(c.value("select 1"), "1")
        console.do("reload")
        with refused("SSL required"):
            pooler.connect()


@ours
def test_set_that_cannot_be_applied_says_so_and_keeps_the_old(t):
    pooler = tls_pooler(t, "require")
    with pooler.console() as console:
        for name, value in (("client_tls_cert_file", "/nowhere/file.crt"), ("client_tls_ciphers", "no-such-cipher")):
            result = console.client.query(f"set {name} = '{value}'")
            same(result.tags, [f"SET {name}={value}"])
            same([n["M"] for n in result.notices], ["TLS settings could not be applied, still using old configuration"])
            same(shown(pooler), "server")
        pooler.reload()
        same(shown(pooler), "server")


@ours
@slow(40)
def test_handshakes_go_on_while_certificates_change(t):
    """Each of them sees one certificate or the other, whole."""
    pooler = pooler_of_files(t, max_client_conn=300, extra=workers(3))
    seen, problems, is_over = {"server": 0, "server-new": 0}, [], []

    def knock(version):
        made = certificates.of(t)
        context = client_context(made.path("ca"), low=version, high=version)
        while not is_over:
            try:
                with pooler.connect(tls=Offer(context)) as c:
                    same(c.value("select 1"), "1")
                    seen[dict(pair[0] for pair in c.socket.tls.getpeercert()["subject"])["commonName"]] += 1
            except Exception as problem:
                problems.append(repr(problem))
    threads = [threading.Thread(target=knock, args=(version,)) for version in (V1_2, V1_3, V1_3)]
    for thread in threads:
        thread.start()
    with pooler.connect(tls=Offer()) as stays:
        for i in range(30):
            install(t, t.folder, ("server-new", "server")[i % 2])
            pooler.reload()
            same(stays.value(f"select {i}"), str(i))
        eventually(lambda: min(seen.values()) > 3 or problems, "both are seen")
    is_over.append(True)
    for thread in threads:
        thread.join()
    same(problems, [])


@ours
def test_servers_on_their_way_follow_a_change(t):
    """A RELOAD, a RECONNECT or a KILL in the middle of a server's handshake: the client gets a server of the new rules."""
    backend, held = Backend(t, "server"), []

    def holds(connection):
        connection._exactly(8)
        connection.send(b"S")
        connection.socket.recv(4096)
        held.append(1)
        while connection.socket.recv(4096):
            pass
    pooler = pooler_for(t, "require", databases={"app": f"host=127.0.0.1 port={backend.port}"},
                        extra="[pgsplice]\nserver_login_retry_max = 0\n", server_connect_timeout=2)
    for how in ("verify-full", "reconnect", "disable"):
        held.clear()
        backend.fake.script = holds
        with pooler.console() as console:
            console.do("reconnect")
        with pooler.open(timeout=15) as c:
            c.send(pgwire.startup({"user": "app", "database": "app"}) + query("select what()"))
            eventually(lambda: held, "a handshake is held")
            backend.fake.script = backend.serve
            if how == "reconnect":
                with pooler.console() as console:
                    console.do("reconnect")
            else:
                pooler.change(server_tls_sslmode=how)
            c.authenticate("app", None)
            same(c.results().value(), "plain" if how == "disable" else "TLS", how)


# ---- servers ------------------------------------------------------------------------------------

def test_change_of_server_tls_retires_servers(t):
    """Idle ones at once, busy ones when they are free; nobody loses a transaction."""
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    pooler = pooler_for(t, "disable", default_pool_size=2)
    with pooler.connect() as idle, pooler.connect() as busy:
        busy.query("begin")
        pids = busy.pid(), idle.pid()
        same(busy.value(IS_TLS), "f")
        for mode in ("require", "verify-full", "disable"):
            pooler.change(server_tls_sslmode=mode)
            same(busy.pid(), pids[0])
            same(idle.value(IS_TLS), "f" if mode == "disable" else "t", mode)
            assert idle.pid() not in pids
        busy.query("commit")
        eventually(lambda: pids[0] not in t.postgres.backends(), "the busy one is closed, too")
        pooler.change(server_tls_sslmode="require")
        same(busy.value(IS_TLS), "t")


@ours
def test_reload_without_a_change_keeps_servers(t):
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    pooler = pooler_for(t, "verify-full", "app")
    with pooler.connect() as c:
        pid = c.pid()
        for _ in range(3):
            pooler.reload()
            same(c.pid(), pid)


@ours
def test_new_contents_of_the_servers_authority_are_taken_by_a_reload(t):
    """Servers that are there were believed by the old one: they go, too."""
    backend = Backend(t, "server")
    cert, _ = install(t, t.folder, "server", cert=certificates.of(t).path("ca"))
    pooler = pooler_for(t, "verify-full", server_tls_ca_file=cert, databases={"app": f"host=127.0.0.1 port={backend.port}"},
                        extra="[pgsplice]\nserver_login_retry_max = 0\n")
    with pooler.connect(timeout=15) as c:
        same(c.value("select what()"), "TLS")
        same(len(backend.sessions), 1)
        install(t, t.folder, "server", cert=certificates.of(t).path("other-ca"))
        pooler.reload()
        c.send(query("select what()"))
        pooler.wait_log("S-0x.* closing because: TLS")
        install(t, t.folder, "server", cert=certificates.of(t).path("ca"))
        pooler.reload()
        same(c.results(12).value(), "TLS")


@ours
def test_broken_server_tls_files_at_reload_change_nothing(t):
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    pooler = pooler_for(t, "verify-full")
    with pooler.connect() as c:
        pid = c.pid()
        for settings in ({"server_tls_ca_file": made.path("broken")}, {"server_tls_ca_file": "/nowhere"},
                         {"server_tls_cert_file": made.path("app"), "server_tls_key_file": made.key("other")},
                         {"server_tls_ciphers": "no-such-cipher"}, {"server_tls_protocols": "tlsv9"}):
            pooler.change(reload=False, **settings)
            with pooler.console() as console, refused():
                console.do("reload")
            pooler.settings.update({key: None for key in settings}, server_tls_ca_file=made.path("ca"))
            same(c.pid(), pid, str(settings))


# ---- sessions that are resumed ------------------------------------------------------------------

def resumed(pooler, offer_of, version):
    """Whether a second connection with the first one's session was shortened."""
    context = offer_of(version)
    with pooler.connect(tls=Offer(context)) as first:
        same(first.value("select 1"), "1")
        session = first.socket.tls.session
        first.terminate()
    with pooler.connect(tls=Offer(context, session=session)) as second:
        same(second.value("select 'second'"), "second")
        return second.socket.tls.session_reused


@ours
def test_sessions_are_resumed_across_reloads(t):
    pooler = tls_pooler(t, client_tls_ca_file=None)
    for version in (V1_2, V1_3):
        context = client_context(low=version, high=version)
        same(resumed(pooler, lambda _: context, version), True, version.name)
    context = client_context(low=V1_3)
    with pooler.connect(tls=Offer(context)) as first:
        same(first.value("select 1"), "1")
        session = first.socket.tls.session
    pooler.reload()
    with pooler.connect(tls=Offer(context, session=session)) as second:
        same(second.socket.tls.session_reused, True)


@ours
def test_session_does_not_outlive_the_certificate(t):
    pooler = pooler_of_files(t, client_tls_ca_file=None)
    for version in (V1_2, V1_3):
        context = client_context(low=version, high=version)
        with pooler.connect(tls=Offer(context)) as first:
            same(first.value("select 1"), "1")
            session = first.socket.tls.session
        install(t, t.folder, "server-new" if version == V1_2 else "server")
        pooler.reload()
        with pooler.connect(tls=Offer(context, session=session)) as second:
            same(second.socket.tls.session_reused, False)


@ours
def test_resumed_session_brings_no_certificate_that_was_not_shown(t):
    """Where a certificate counts, there is none of an earlier session: it is shown each time, or there is none."""
    pooler = tls_pooler(t, "verify-full", auth_type="cert", admin_users="")
    pooler.console_host = None
    for version in (V1_2, V1_3):
        context = with_certificate(t, low=version, high=version).context
        with pooler.connect(tls=Offer(context)) as first:
            same(first.value("select 1"), "1")
            session = first.socket.tls.session
        with pooler.connect(tls=Offer(context, session=session)) as second:
            same(second.value("select 1"), "1")
            same(second.socket.tls.session_reused, False, version.name)


# ---- online restart -----------------------------------------------------------------------------

@ours
@slow(40)
def test_tls_clients_stay_with_the_old_process_and_new_ones_meet_the_new(t):
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    both = {**made.of_clients("server", sslmode="require"), **made.of_servers(sslmode="verify-full")}
    old = first_of(t, **both)
    with old.connect(tls=Offer()) as stays, old.connect(tls=Offer()) as busy:
        busy.query("begin")
        new = next_of(t, old, **{**both, **made.of_clients("server-new", sslmode="require")})
        same(shown(new), "server-new")
        with new.connect(tls=Offer()) as fresh:
            same(fresh.value(IS_TLS), "t")
            same((stays.value(IS_TLS), busy.value(IS_TLS)), ("t", "t"))
            # A cancel request over TLS finds the old process's client.
            stays.send(query("select pg_sleep(20)"))
            with t.postgres.admin() as watcher:
                eventually(lambda: watcher.query("select 1 from pg_stat_activity where state = 'active' and query like '%sleep(20)%' "
                                                 "and pid <> pg_backend_pid()").rows, "it sleeps")
            new.cancel(stays.key, tls=Offer())
            same(stays.results().errors[0].sqlstate, "57014")
            busy.query("commit")
            for c in (stays, busy):
                same(c.terminate(), [])
                same(c.socket.end, "close_notify")
            same(old.wait_exit(10), 0)
            same(fresh.value("select 1"), "1")
