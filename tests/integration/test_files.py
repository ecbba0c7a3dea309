"""The files that come with the program: configurations that work, manual pages without mistakes."""

import glob
import json
import os
import re
import shutil
import subprocess

import certificates
import harness
from harness import TOP, eventually, ours, same

CONFIGURATIONS = [os.path.join(TOP, "conf", name) for name in ("pgsplice.ini", "pgbouncer.ini")] + sorted(
    glob.glob(os.path.join(TOP, "conf", "examples", "*.ini")))


def at_home(t, path, folder):
    """A configuration of conf/ with the paths, addresses and ports of this test, and nothing else changed."""
    with open(path) as file:
        text = file.read()
    port = harness.free_port(t.slot)
    for pattern, value in (
            (r"(?m)^(logfile|pidfile) = .*/", rf"\1 = {folder}/"),
            (r"(?m)^(auth_file) = .*", rf"\1 = {folder}/userlist.txt"),
            (r"(?m)^(server_tls_ca_file) = .*", rf"\1 = {certificates.of(t).path('ca')}"),
            (r"(?m)^(unix_socket_dir) = .+", rf"\1 = {folder}"),
            (r"(?m)^(listen_port) = .*", rf"\1 = {port}"),
            (r"(?m)^(listen_addr) = \*", r"\1 = 127.0.0.1"),
            (r"host=[\w.,/]+", "host=127.0.0.1"),
            (r"port=5432", f"port={t.postgres.port}"),
            (r"%include .*", f"%include {folder}/pgbouncer.ini")):
        text = re.sub(pattern, value, text)
    copy = os.path.join(folder, os.path.basename(path))
    with open(copy, "w") as file:
        file.write(text)
    harness.give_to_os_user(copy)
    return copy, port


def home(t, name):
    folder = os.path.join(t.folder, name)
    os.makedirs(folder)
    harness.give_to_os_user(folder)
    users = os.path.join(folder, "userlist.txt")
    with open(os.path.join(TOP, "conf", "userlist.txt")) as file, open(users, "w") as out:
        # the secrets of the scratch server instead of those that shall be changed
        out.write(re.sub(r'"app" ".*"', f'"app" "{harness.PASSWORD}"', file.read()))
    harness.give_to_os_user(users)
    return folder


@ours
def test_every_configuration_of_conf_passes_the_check(t):
    assert len(CONFIGURATIONS) >= 6
    folder = home(t, "all")
    for path in CONFIGURATIONS:
        at_home(t, path, folder)
    for path in CONFIGURATIONS:
        done = subprocess.run([harness.POOLER_BIN, "--check", os.path.join(folder, os.path.basename(path))],
                              capture_output=True, text=True, timeout=10)
        same((done.returncode, "no mistakes" in done.stdout, "WARNING" in done.stdout), (0, True, False),
             f"{path}: {done.stdout}")


def serve(t, binary, path, folder, port):
    """Starts `binary` with a file and asks it for a value; the pooler ends with the test."""
    with open(os.path.join(folder, "stderr"), "ab") as stderr:
        process = subprocess.Popen([binary, path], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                                   cwd=folder, **harness.as_os_user())

    def answers():
        assert process.poll() is None, open(os.path.join(folder, "stderr")).read()[-1500:]
        try:
            with harness.pgwire.connect(port, "app", "app", harness.PASSWORD) as c:
                return c.value("select 40 + 2")
        except OSError:
            return None
    same(eventually(answers, f"{binary} answers", 10), "42")
    process.terminate()
    process.wait(10)


def test_pgbouncer_ini_runs_under_both_programs(t):
    folder = home(t, "both")
    path, port = at_home(t, os.path.join(TOP, "conf", "pgbouncer.ini"), folder)
    serve(t, harness.POOLER_BIN, path, folder, port)
    other = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not os.path.exists(other):
        raise harness.Skip("PgBouncer is not installed here (make bench installs it)")
    serve(t, other, path, folder, port)
    serve(t, harness.POOLER_BIN, path, folder, port)


@ours
def test_configurations_of_deployments_serve(t):
    t.postgres.of_one_test(**certificates.of(t).of_postgres())  # a sidecar believes no other
    for name in ("sidecar.ini", "pgsplice-own.ini"):
        folder = home(t, name)
        _, port = at_home(t, os.path.join(TOP, "conf", "pgbouncer.ini"), folder)
        path, own_port = at_home(t, os.path.join(TOP, "conf", "examples", name), folder)
        serve(t, harness.POOLER_BIN, path, folder, port if name == "pgsplice-own.ini" else own_port)


@ours
def test_manual_pages_have_no_mistakes(t):
    pages = [os.path.join(TOP, "conf", "pgsplice.8"), os.path.join(TOP, "build", "pgsplice.ini.5")]
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True)
    same((done.returncode, done.stdout), (0, ""))
    shown = subprocess.run(["mandoc", "-T", "ascii", pages[1]], capture_output=True, text=True).stdout
    shown = re.sub(r".\x08", "", shown)
    for key in ("max_client_conn", "server_connect_parallel", "load_balance_hosts"):
        assert re.search(rf"(?m)^ +{key}$", shown), f"{key} is not in the manual page"


@ours
def test_manual_page_knows_every_option(t):
    usage = subprocess.run([harness.POOLER_BIN, "--help"], capture_output=True, text=True).stdout
    with open(os.path.join(TOP, "conf", "pgsplice.8")) as file:
        page = file.read()
    options = re.findall(r"--([a-z]+)", usage)
    assert len(options) >= 7, usage
    same([option for option in options if f"-{option}" not in page], [])


@ours
def test_install_puts_everything_in_place(t):
    target = os.path.join(t.folder, "root")
    subprocess.run(["make", "-s", "-C", TOP, "install", f"DESTDIR={target}", "PREFIX=/usr"], check=True,
                   capture_output=True, timeout=60)
    for path in ("bin/pgsplice", "share/man/man8/pgsplice.8", "share/man/man5/pgsplice.ini.5",
                 "share/doc/pgsplice/pgbouncer.ini", "share/doc/pgsplice/userlist.txt", "share/doc/pgsplice/SETTINGS.md",
                 "share/doc/pgsplice/pgsplice.service", "share/doc/pgsplice/examples/Dockerfile",
                 "share/doc/pgsplice/examples/sidecar.ini"):
        assert os.path.getsize(os.path.join(target, "usr", path)) > 0, path


@ours
def test_container_files_are_well_formed(t):
    examples = os.path.join(TOP, "conf", "examples")
    with open(os.path.join(examples, "seccomp.json")) as file:
        profile = json.load(file)
    denied = {name for rule in profile["syscalls"] for name in rule["names"]}
    assert "mount" in denied and not any(name.startswith("io_uring") for name in denied)
    # what the manifest's config map says is a configuration, too
    with open(os.path.join(examples, "kubernetes-sidecar.yaml")) as file:
        block = re.search(r"pgsplice.ini: \|\n((?:    .*\n)+)", file.read()).group(1)
    folder = home(t, "manifest")
    path = os.path.join(folder, "from-manifest.ini")
    with open(path, "w") as file:
        file.write(re.sub(r"(?m)^    ", "", block))
    path, _ = at_home(t, path, folder)
    done = subprocess.run([harness.POOLER_BIN, "--check", path], capture_output=True, text=True)
    same((done.returncode, "WARNING" in done.stdout), (0, False), done.stdout)
