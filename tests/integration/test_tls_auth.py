"""Certificates instead of passwords, and rules that depend on TLS."""

import ssl

import certificates
import pgwire
from harness import PASSWORD, eventually, matches, ours, refused, same, slow
from pgwire import scram_secret
from tls_wire import V1_2, V1_3, Offer, client_context

CERT_FAILED = "certificate authentication failed"


def offer(t, name=None, **more):
    made = certificates.of(t)
    return Offer(client_context(made.path("ca"), made.path(name) if name else None, made.key(name) if name else None, **more))


def cert_pooler(t, sslmode="verify-full", **settings):
    given = certificates.of(t).of_clients("server", sslmode=sslmode)
    pooler = t.pooler(**{"pool_mode": "transaction", "auth_type": "cert", **given, **settings})
    return pooler


def comes_to(pooler, tls, user="app", **more):
    """None: he is in. Else what he is told, or "closed"."""
    try:
        with pooler.connect(user, tls=tls, **more) as c:
            same(c.value("select 1"), "1")
            return None
    except pgwire.PgError as error:
        same((error.severity, error.sqlstate), ("FATAL", "08P01"))
        return error.text
    except (ssl.SSLError, pgwire.Closed, OSError):
        return "closed"


# What a client with this certificate gets as user "app" and as "other", by auth_type=cert.
NAMES = (
    ("app", None, CERT_FAILED),
    ("app-rsa", None, CERT_FAILED),
    ("app-chain", None, CERT_FAILED),
    ("other", CERT_FAILED, None),
    ("app-san", None, CERT_FAILED),  # an alternative name counts
    ("app-and-other", None, None),  # and beside it the common name
    ("app-longer", CERT_FAILED, CERT_FAILED),
    ("outside", CERT_FAILED, CERT_FAILED),
    ("no-name", CERT_FAILED, CERT_FAILED),
    ("any-user", CERT_FAILED, CERT_FAILED),  # the common name "*"
    ("app-nul", CERT_FAILED, CERT_FAILED),
    ("app-in-capitals", None, CERT_FAILED),  # host names' rules: case does not count
    ("app-foreign", "closed", "closed"),
    ("app-expired", "closed", "closed"),
    ("app-early", "closed", "closed"),
    ("app-by-leaf", "closed", "closed"),
    ("app-as-server", "closed", "closed"),
)


def test_name_of_the_certificate_must_be_the_users(t):
    pooler = cert_pooler(t)
    for high in (V1_3, V1_2):
        for name, *wanted in NAMES:
            got = [comes_to(pooler, offer(t, name, high=high), user) for user in ("app", "other")]
            same(got, wanted, f"{name}, {high.name}")
    pooler.wait_log(f"closing because: {CERT_FAILED}")


def test_user_of_the_certificate_must_be_known(t):
    pooler = cert_pooler(t, userlist={"other": ""})
    same(comes_to(pooler, offer(t, "app")), CERT_FAILED)
    same(comes_to(pooler, offer(t, "other"), "other"), None)


def test_no_password_is_asked_of_who_shows_a_certificate(t):
    pooler = cert_pooler(t, userlist={"app": PASSWORD})
    with pooler.open(tls=offer(t, "app")) as c:
        c.send(pgwire.startup({"user": "app", "database": "app"}))
        found = c.until("ZE")
        same([m.body for m in found if m.type == "R"], [b"\0\0\0\0"])


def test_unix_sockets_have_no_certificates(t):
    pooler = cert_pooler(t)
    with refused(CERT_FAILED, "08P01", "FATAL"):
        pooler.connect(host=pooler.folder)


def test_console_by_certificate(t):
    made = certificates.of(t)
    pooler = cert_pooler(t, admin_users="app", stats_users="other")
    with pooler.console("app", tls=offer(t, "app")) as console:
        same(console.do("reload"), "RELOAD")
    with pooler.console("other", tls=offer(t, "other")) as console:
        assert console.table("show pools") is not None
        with refused("admin access needed"):
            console.do("reload")
    same(comes_to(pooler, offer(t, "other"), "app", database="pgbouncer"), CERT_FAILED)
    assert made


# ---- rules --------------------------------------------------------------------------------------

NO_METHOD = "no authentication method is found"


def hba_pooler(t, rules, sslmode="allow", ident=None, ca="ca", **settings):
    given = certificates.of(t).of_clients("server", ca=ca, sslmode=sslmode)
    pooler = t.pooler(start=False, **{"pool_mode": "transaction", "auth_type": "hba", **given, **settings})
    pooler.settings["auth_hba_file"] = pooler.write_file("hba.conf", rules)
    if ident is not None:
        pooler.settings["auth_ident_file"] = pooler.write_file("ident.conf", ident)
    pooler.write()
    pooler.start()
    return pooler


@ours
def test_hostssl_is_for_tls_and_hostnossl_is_for_plain(t):
    for rules, plain, with_tls in (("hostssl all all 127.0.0.1/32 trust\n", NO_METHOD, None),
                                   ("hostnossl all all 127.0.0.1/32 trust\n", None, NO_METHOD),
                                   ("host all all 127.0.0.1/32 trust\n", None, None),
                                   ("hostssl all all 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 trust\n", None, "login rejected")):
        pooler = hba_pooler(t, rules)
        same((comes_to(pooler, None), comes_to(pooler, offer(t))), (plain, with_tls), rules)
        pooler.stop()


@ours
def test_log_says_ssl_on(t):
    pooler = hba_pooler(t, "hostnossl all all 127.0.0.1/32 trust\nhostssl all other 127.0.0.1/32 reject\n")
    same(comes_to(pooler, offer(t)), NO_METHOD)
    same(comes_to(pooler, offer(t), "other"), "login rejected")
    pooler.wait_log(r'LOG C-0x.* no pg_hba.conf entry for host "127.0.0.1", user "app", database "app", SSL on$')
    pooler.wait_log(r'LOG C-0x.* pg_hba.conf rejects connection for host "127.0.0.1", user "other", database "app", SSL on$')


def test_cert_lines_beside_passwords(t):
    """client_tls_sslmode is weaker: only who matches the line needs a certificate."""
    secret = scram_secret(PASSWORD)
    for mode in ("allow", "require"):
        pooler = hba_pooler(t, "hostssl all app 127.0.0.1/32 cert\nhost all all 127.0.0.1/32 scram-sha-256\n", mode,
                            userlist={"app": secret, "other": secret})
        same(comes_to(pooler, offer(t, "app")), None, mode)
        same(comes_to(pooler, offer(t, "other")), CERT_FAILED, mode)
        same(comes_to(pooler, offer(t)), CERT_FAILED, mode)
        same(comes_to(pooler, offer(t), "other", password=PASSWORD), None, mode)
        same(comes_to(pooler, offer(t, "app"), "other", password=PASSWORD), None, mode)
        if mode == "allow":
            same(comes_to(pooler, None, password=PASSWORD), None, "the second line is for plain text, too")
        pooler.stop()


def test_cert_without_tls_is_refused(t):
    pooler = hba_pooler(t, "host all all 127.0.0.1/32 cert\n")
    same(comes_to(pooler, None), CERT_FAILED)
    pooler.wait_log("TLS connection required")
    same(comes_to(pooler, offer(t, "app")), None)


@ours
@slow(40)
def test_maps_of_certificates(t):
    ident = ("# names of certificates, and whom they may be\n"
             "people alice.example app\npeople other app\n"
             "people app other\nall-of-them app all\nquoted \"app\" \"other\"\n")
    for rule, wanted in (("map=people", {("outside", "app"): None, ("other", "app"): None, ("app", "other"): None,
                                         ("app", "app"): CERT_FAILED, ("other", "other"): CERT_FAILED,
                                         ("outside", "other"): CERT_FAILED, ("app-san", "other"): None,
                                         ("no-name", "app"): CERT_FAILED}),
                         ("map=all-of-them", {("app", "app"): None, ("app", "other"): None, ("other", "app"): CERT_FAILED,
                                              ("other", "other"): CERT_FAILED}),
                         ("map=quoted", {("app", "other"): None, ("app", "app"): CERT_FAILED}),
                         ("", {("app", "app"): None, ("outside", "app"): CERT_FAILED})):
        pooler = hba_pooler(t, f"hostssl all all 127.0.0.1/32 cert {rule}\n", ident=ident)
        got = {(name, user): comes_to(pooler, offer(t, name), user) for name, user in wanted}
        same(got, wanted, rule)
        pooler.stop()


# ---- passwords over TLS -------------------------------------------------------------------------

def test_passwords_of_all_kinds_within_tls(t):
    given = certificates.of(t).of_clients("server", sslmode="require")
    for auth_type, userlist in (("plain", {"app": PASSWORD}), ("md5", {"app": PASSWORD}),
                                ("scram-sha-256", {"app": PASSWORD}), ("scram-sha-256", {"app": scram_secret(PASSWORD)})):
        pooler = t.pooler(auth_type=auth_type, userlist=userlist, **given)
        for high in (V1_2, V1_3):
            same(comes_to(pooler, offer(t, high=high), password=PASSWORD), None, auth_type)
            matches("authentication failed", comes_to(pooler, offer(t, high=high), password="wrong"))
        pooler.stop()


def test_looked_up_users_within_tls(t):
    """auth_query takes its time while the client's TLS waits; servers have TLS, too."""
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    pooler = t.pooler(auth_type="scram-sha-256", auth_user="app", userlist={"app": PASSWORD}, **made.of_clients("server", sslmode="require"),
                      **made.of_servers(sslmode="verify-full"))
    same(comes_to(pooler, offer(t), "u_scram", password=PASSWORD), None)
    matches("authentication failed", comes_to(pooler, offer(t), "u_scram", password="wrong"))
    with pooler.connect("u_scram", password=PASSWORD, tls=offer(t)) as c:
        same(c.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()"), "t")


def test_limits_are_told_within_tls(t):
    pooler = cert_pooler(t, max_client_conn=2, max_user_client_connections=None)
    held = [pooler.connect(tls=offer(t, "app")) for _ in range(2)]
    got = comes_to(pooler, offer(t, "app"))
    same(got, "no more connections allowed (max_client_conn)")
    held[0].vanish()
    eventually(lambda: comes_to(pooler, offer(t, "app")) is None, "there is room again")
    held[1].vanish()
