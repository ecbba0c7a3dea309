"""auth_type = pam: PAM's modules say whether a password is right.

pam_wrapper gives the pooler a folder of PAM services of its own: one with pam_matrix, a file of users and passwords,
and one with a module of ours (pam_probe.c) that is slow, delays refusals and sees expired accounts."""

import glob
import os
import struct
import time

from harness import PASSWORD, POOLER_BIN, Skip, covers, eventually, give_to_os_user, ours, refused, same, within
from pgwire import message, startup, text
from test_kernel import compiled

FAILED = "PAM authentication failed"
WRAPPER = "libpam_wrapper.so"


def found(pattern):
    paths = glob.glob(f"/usr/lib/*/{pattern}")
    if not paths:
        raise Skip("pam_wrapper is not installed")
    return paths[0]


def pooler_with(t, service, **settings):
    """`service`: the lines of the PAM service `pgbouncer`."""
    binary = open(POOLER_BIN, "rb").read()
    if b"__tsan_init" in binary:
        raise Skip("PAM cannot be put before the thread sanitizer")
    if b"__asan_init" in binary:
        os.environ["UID_WRAPPER_DISABLE_DEEPBIND"] = "1"  # (sic) which the address sanitizer does not allow
    folder = os.path.join(t.folder, "services")
    os.makedirs(folder, exist_ok=True)
    for name, lines in (("pgbouncer", service), ("other", ["auth required pam_deny.so"])):
        with open(os.path.join(folder, name), "w") as file:
            file.write("\n".join(lines) + "\n")
    os.environ.update(LD_PRELOAD=found(WRAPPER), PAM_WRAPPER="1", PAM_WRAPPER_SERVICE_DIR=folder,
                      ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
    try:
        return t.pooler(**{"auth_type": "pam", "userlist": {}, **settings})
    finally:
        del os.environ["LD_PRELOAD"]


def matrix(t, options="", **people):
    """A service for these users; a name's password, and the service that it may use behind a colon."""
    path = os.path.join(t.folder, "people")
    with open(path, "w") as file:
        for user, password in people.items():
            file.write(f"{user}:{password if ':' in password else password + ':pgbouncer'}\n")
    os.chmod(path, 0o644)
    module = found("pam_wrapper/pam_matrix.so")
    return [f"{kind} required {module} passdb={path} {options}" for kind in ("auth", "account")]


def probe(t):
    """The service with our module, and the file that it writes."""
    module = compiled(t, "tests/integration/pam_probe.c", "pam_probe.so", "-fPIC", "-shared", "-lpam")
    seen = os.path.join(t.folder, "seen")
    open(seen, "w").close()
    give_to_os_user(seen)
    os.chmod(t.folder, 0o755)
    return [f"{kind} required {module} {seen}" for kind in ("auth", "account")], seen


def read(path):
    with open(path) as file:
        return file.read()


def current_user(pooler, user, password, **more):
    with pooler.connect(user=user, password=password, **more) as client:
        return client.value("select current_user")


def refuses(pooler, user, password):
    with refused(FAILED, "08P01", "FATAL"):
        pooler.connect(user=user, password=password)


@ours
@covers("settings", "auth_type")
def test_who_knows_the_password_gets_in(t):
    pooler = pooler_with(t, matrix(t, "verbose", app="Pam-pw", other="Others-pw"), admin_users="app")
    with pooler.open() as c:
        c.send(startup({"user": "app", "database": "app"}))
        same(struct.unpack_from("!I", c.receive().body)[0], 3)
    same(current_user(pooler, "app", "Pam-pw"), "app")
    refuses(pooler, "app", "Others-pw")
    refuses(pooler, "stranger", "Pam-pw")
    pooler.wait_log(r"pam_authenticate\(\) failed: Authentication failure")
    with refused("empty password returned by client", "08P01", "FATAL"):
        pooler.connect(password="")
    with pooler.console(user="app", password="Pam-pw") as console:
        same(console.config("auth_type"), "pam")


@ours
def test_accounts_are_checked_too(t):
    pooler = pooler_with(t, matrix(t, app="Pam-pw:ftp"))
    refuses(pooler, "app", "Pam-pw")
    service, _ = probe(t)
    pooler = pooler_with(t, service)
    refuses(pooler, "expired", "Probe-pw")
    pooler.wait_log(r"pam_acct_mgmt\(\) failed: User account has expired")


@ours
def test_questions_that_show_their_answer_are_not_answered(t):
    pooler = pooler_with(t, matrix(t, "echo", app="Pam-pw"))
    refuses(pooler, "app", "Pam-pw")


@ours
def test_modules_are_told_who_comes_from_where(t):
    service, seen = probe(t)
    pooler = pooler_with(t, service)
    same(current_user(pooler, "app", "Probe-pw"), "app")
    same(current_user(pooler, "app", "Probe-pw", host=pooler.folder), "app")
    same(read(seen), "pgbouncer app 127.0.0.1\npgbouncer app unix\n")


@ours
def test_password_opens_the_servers_before_that_of_auth_file(t):
    pooler = pooler_with(t, matrix(t, u_scram=PASSWORD, u_plain=PASSWORD), userlist={"u_scram": "outdated"})
    for user in ("u_scram", "u_plain", "u_scram"):
        same(current_user(pooler, user, PASSWORD), user)


@ours
def test_auth_user_and_pam_do_not_go_together(t):
    pooler = pooler_with(t, matrix(t, app="Pam-pw"), auth_user="other")
    with refused("bouncer config error", "08P01", "FATAL"):
        pooler.connect(password="Pam-pw")


@ours
def test_refusal_that_waits_holds_up_nobody_else(t):
    service, seen = probe(t)
    pooler = pooler_with(t, service)
    started = time.monotonic()
    waiting = pooler.open()
    waiting.send(startup({"user": "delayed", "database": "app"}) + message("p", text("x")))
    same(waiting.receive().type, "R")
    eventually(lambda: "delayed" in read(seen), "PAM was asked")
    same(current_user(pooler, "app", "Probe-pw"), "app")
    assert waiting.silent_for(0)
    error = waiting.fatal()
    same((error.severity, error.sqlstate, error.text), ("FATAL", "08P01", FAILED))
    within(started, 0.95, 5, "the refusal")


@ours
def test_client_that_leaves_meanwhile_is_forgotten(t):
    service, seen = probe(t)
    pooler = pooler_with(t, service, verbose=1, stats_period=1)
    for _ in range(2):
        with pooler.open() as client:
            client.send(startup({"user": "slow", "database": "app"}) + message("p", text("Probe-pw")))
            same(client.receive().type, "R")
            eventually(lambda: "slow" in read(seen), "PAM is at work")
    eventually(lambda: pooler.log().count("client unexpected eof") == 2, "both have left")
    queued = pooler.open(timeout=10)
    queued.send(startup({"user": "app", "database": "app"}) + message("p", text("Probe-pw")))
    same(queued.receive().type, "R")
    with open(seen + ".go", "w"):
        pass
    queued.until("Z")
    same(queued.value("select current_user"), "app")
    # The first was being asked for, the second never was.
    same(read(seen).count("slow"), 1)
    pooler.wait_log("2 passwords checked by PAM, 1 cancelled, 0 refused")


@ours
def test_passwords_of_pam_are_not_logged(t):
    pooler = pooler_with(t, matrix(t, "verbose", app="Pam-pw"), verbose=3)
    same(current_user(pooler, "app", "Pam-pw"), "app")
    refuses(pooler, "app", "Wrong-but-secret")
    for word in ("Pam-pw", "Wrong-but-secret"):
        assert word not in pooler.log(), f"{word} is in the log"
