"""What systemd and the pooler tell each other, with sockets of the test's own in systemd's place."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pgwire
from harness import (OS_USER, POOLER_BIN, Skip, TOP, eventually, free_port, give_to_os_user, matches,
                     ours, refused, same, slow)


class Manager:
    """The end of $NOTIFY_SOCKET that is systemd's."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path[0] == "@" else path)
        if path[0] != "@":
            os.chmod(path, 0o777)
        self.socket.settimeout(0.01)
        self.seen = []

    def look(self):
        with contextlib.suppress(TimeoutError):
            while True:
                self.seen.append((time.monotonic(), self.socket.recv(4096).decode()))
        return self.seen

    def wait(self, pattern, seconds=5.0):
        def found():
            return next((text for _, text in self.look() if re.search(pattern, text, re.M)), None)
        return eventually(found, f"systemd is told {pattern!r}: {self.seen}", seconds)

    def forget(self):
        self.look()
        self.seen.clear()


def manager_of(t, name="notify"):
    return Manager(os.path.join(t.folder, name))


# ---- how it is ----------------------------------------------------------------------------------

@ours
def test_start_reload_and_end_are_told(t):
    for path in (os.path.join(t.folder, "notify"), f"@pgsplice-test-{os.getpid()}"):
        manager = Manager(path)
        pooler = t.pooler(env={"NOTIFY_SOCKET": path})
        text = manager.wait("^READY=1$")
        matches(f"(?m)^MAINPID={pooler.process.pid}$", text)
        pooler.usable()
        manager.forget()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        pooler.signal(signal.SIGHUP)
        text = manager.wait("^RELOADING=1$")
        moment = int(re.search(r"(?m)^MONOTONIC_USEC=(\d+)$", text).group(1))
        assert before <= moment <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        manager.wait("^READY=1$")
        pooler.change(reload=False, no_such_setting=1)
        manager.forget()
        pooler.signal(signal.SIGHUP)
        manager.wait("^RELOADING=1$")
        manager.wait("^READY=1$")  # it goes on with what it had
        with pooler.connect() as client:
            manager.forget()
            pooler.signal(signal.SIGTERM)
            manager.wait("^STOPPING=1$")
            assert pooler.runs()
            client.terminate()
        same(pooler.wait_exit(), 0)


@ours
def test_ready_is_told_when_clients_are_served(t):
    manager = manager_of(t)
    pooler = t.pooler(start=False, env={"NOTIFY_SOCKET": manager.path})
    pooler.launch()
    manager.wait("^READY=1$")
    pooler.usable()


@ours
def test_status_is_told_each_period(t):
    manager = manager_of(t)
    pooler = t.pooler(stats_period=1, log_stats=0, env={"NOTIFY_SOCKET": manager.path})
    pooler.usable()
    manager.wait(r"^STATUS=stats: \d+ xacts/s, \d+ queries/s, ")
    manager.forget()
    manager.wait(r"^STATUS=stats: ")


@ours
def test_in_the_background_the_other_process_is_named(t):
    manager = manager_of(t)
    pooler = t.pooler(start=False, args=["-d"], pidfile="daemon.pid",
                      env={"NOTIFY_SOCKET": manager.path})
    same(pooler.run_to_end().returncode, 0)
    with open(os.path.join(pooler.folder, "daemon.pid")) as file:
        pid = int(file.read())
    matches(f"(?m)^MAINPID={pid}$", manager.wait("^READY=1$"))
    os.kill(pid, signal.SIGINT)
    manager.wait("^STOPPING=1$")


@ours
def test_after_a_takeover_the_new_process_is_named_and_nothing_stops(t):
    manager = manager_of(t)
    env = {"NOTIFY_SOCKET": manager.path}
    pooler = t.pooler(env=env)
    manager.wait("^READY=1$")
    manager.forget()
    after = t.pooler(start=False, args=["-R"], listen_port=pooler.port,
                     unix_socket_dir=pooler.folder, env=env)
    after.launch()
    matches(f"(?m)^MAINPID={after.process.pid}$", manager.wait("^READY=1$"))
    same(pooler.wait_exit(), 0)
    assert not [text for _, text in manager.look() if "STOPPING" in text], manager.seen


# ---- the watchdog -------------------------------------------------------------------------------

PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207
WALL = 0x40000000


@contextlib.contextmanager
def stopped(thread):
    """One thread of another process stands still."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def trace(request):
        if libc.ptrace(request, thread, None, None) != 0:
            raise Skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
    trace(PTRACE_SEIZE)
    trace(PTRACE_INTERRUPT)
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        trace(PTRACE_DETACH)


def threads_named(pid, pattern):
    folder = f"/proc/{pid}/task"
    found = []
    for thread in os.listdir(folder):
        with open(f"{folder}/{thread}/comm") as file:
            if re.fullmatch(pattern, file.read().strip()):
                found.append(int(thread))
    return sorted(found)


@ours
@slow(30)
def test_watchdog_is_fed_while_all_workers_turn(t):
    manager = manager_of(t)
    pooler = t.pooler(extra="[pgsplice]\nworker_threads = 3\n",
                      env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"})

    def fed():
        return len([text for _, text in manager.look() if text == "WATCHDOG=1"])
    eventually(lambda: fed() >= 5, "it is fed")
    times = [moment for moment, text in manager.seen if text == "WATCHDOG=1"]
    assert times[-1] - times[0] > 0.1 * (len(times) - 1), "far more often than asked for"
    for thread in threads_named(pooler.process.pid, r"worker-\d"):
        with stopped(thread):
            pooler.wait_log("WARNING a worker does not answer")
            manager.forget()
            # as long as systemd would wait
            end = time.monotonic() + 0.5
            eventually(lambda: time.monotonic() > end, "half a second")
            same(fed(), 0, "fed while a worker stands still")
        eventually(lambda: fed() >= 2, "it is fed again")
        os.rename(pooler.log_file, pooler.log_file + f".{thread}")
        pooler.reload()
    pooler.usable()


@ours
def test_without_a_watchdog_nothing_is_fed(t):
    manager = manager_of(t)
    pooler = t.pooler(stats_period=1, env={"NOTIFY_SOCKET": manager.path})
    manager.wait("^STATUS=")
    assert not [text for _, text in manager.look() if "WATCHDOG" in text], manager.seen
    other = t.pooler(stats_period=1, env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_PID": "1",
                                          "WATCHDOG_USEC": "100000"})
    manager.forget()
    manager.wait("^STATUS=")
    manager.wait("^STATUS=")
    assert not [text for _, text in manager.look() if "WATCHDOG" in text], manager.seen
    assert pooler.runs() and other.runs()


# ---- socket activation --------------------------------------------------------------------------

PASS = ["/usr/bin/python3", "-c", """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
spare = [os.dup(fd) for fd in fds]
while min(spare) < 3 + len(fds):
    spare = [os.dup(fd) for fd in spare]
for i, fd in enumerate(spare):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_PID"] = str(os.getpid() + int(os.environ.get("PID_OFFSET", "0")))
os.execv(sys.argv[2], sys.argv[2:])
"""]


def passing(*sockets, **more):
    """Settings of a pooler to which these sockets are passed."""
    fds = [each.fileno() for each in sockets]
    return {"wrapper": [*PASS, ",".join(map(str, fds))], "pass_fds": fds, "start": False,
            **more}


def tcp_listener(t, address="127.0.0.1", port=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port or free_port(t.slot)), family=family, backlog=64)


def unix_listener(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(64)
    return listener


@ours
def test_a_passed_socket_for_both_families_keeps_the_rules_for_ipv4(t):
    listener = socket.create_server(("::", free_port(t.slot)), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener:
        port = listener.getsockname()[1]
        pooler = t.pooler(**passing(listener), listen_port=port, unix_socket_dir="", auth_type="hba",
                          auth_hba_file="hba.conf")
        pooler.write_file("hba.conf", "host all all ::/0 reject\nhost all app 127.0.0.1/32 trust\n")
        pooler.launch()
        pooler.wait_log("process up")
        pooler.usable()
        pooler.wait_log(r"app/app@127\.0\.0\.1:\d+ login attempt")
        with refused("login rejected"):
            pgwire.connect(port, host="::1")


@ours
def test_passed_sockets_are_the_ones_that_are_listened_on(t):
    port = free_port(t.slot)
    path = os.path.join(t.folder, f".s.PGSQL.{port}")
    own = os.path.join(t.folder, "own")
    os.makedirs(own)
    give_to_os_user(own)
    with tcp_listener(t, port=port) as tcp, tcp_listener(t, "::1", port) as tcp6, \
            unix_listener(path) as unix:
        other = free_port(t.slot)
        pooler = t.pooler(**passing(tcp, tcp6, unix), listen_port=other, unix_socket_dir=own,
                          pool_mode="transaction", tcp_defer_accept=0,
                          extra="[pgsplice]\nworker_threads = 3\n")
        pooler.launch()
        for shown in (f"127.0.0.1:{port}", f"[::1]:{port}", f"unix:{path}"):
            pooler.wait_log(rf"LOG listening on {re.escape(shown)} \(socket activation\)")
        pooler.wait_log("WARNING listen_addr is ignored, because of socket activation")
        pooler.wait_log("WARNING unix_socket_dir is no place to listen on")
        clients = []
        for i in range(30):
            host = ("127.0.0.1", "::1", t.folder)[i % 3]
            clients.append(pgwire.connect(port, host=host))
        for i, client in enumerate(clients):
            same(client.value(f"select {i}"), str(i))
        same(os.listdir(own), [], "another unix socket was made")
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", other)) != 0
        # each was accepted once
        with pgwire.connect(port, user="admin", database="pgbouncer") as admin:
            rows = admin.query("show clients").rows
            same(len([row for row in rows if row[2] == "app"]), 30)
            same(len(admin.query("show fds").rows), 3)
        for client in clients:
            client.terminate()
        pooler.stop()
        assert os.path.exists(path), "the unix socket is systemd's"


@ours
@slow(30)
def test_who_connects_between_two_processes_waits_and_is_served(t):
    with tcp_listener(t) as tcp:
        port = tcp.getsockname()[1]
        problems, served, is_over = [], [], False

        def knock():
            while not is_over:
                try:
                    with pgwire.connect(port, timeout=10) as client:
                        same(client.value("select 1"), "1")
                        served.append(1)
                except Exception as problem:
                    problems.append(repr(problem))
        threads = [threading.Thread(target=knock) for _ in range(3)]
        pooler = None
        for i in range(4):
            before, pooler = pooler, t.pooler(**passing(tcp), listen_port=port, unix_socket_dir="",
                                              extra="[pgsplice]\nworker_threads = 2\n")
            if before is not None:
                before.signal(signal.SIGTERM)
                same(before.wait_exit(), 0)
            pooler.launch()
            if i == 0:
                for thread in threads:
                    thread.start()
            seen = len(served)
            # not before it serves: until its signals are held SIGTERM would just kill it
            eventually(lambda: len(served) > seen + 20, "clients are served")
        is_over = True
        for thread in threads:
            thread.join()
        # SIGTERM turns away who has been accepted and has not logged in: nobody else is lost
        same([one for one in problems if "pooler is shutting down" not in one], [])


@ours
def test_what_is_no_listening_socket_is_refused(t):
    with socket.socket() as plain, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, \
            open("/dev/null") as null:
        for each in (plain, datagrams, null):
            done = t.pooler(**passing(each)).run_to_end()
            same(done.returncode, 1, done.stderr)
            matches("FATAL descriptor 3 of socket activation is no listening stream socket",
                    done.stderr)


@ours
def test_takeover_and_socket_activation_exclude_each_other(t):
    with tcp_listener(t) as tcp:
        done = t.pooler(**passing(tcp), args=["-R"]).run_to_end()
        same(done.returncode, 1, done.stderr)
        matches("FATAL -R does not go together with socket activation", done.stderr)


@ours
def test_sockets_for_another_process_are_left_alone(t):
    with tcp_listener(t) as tcp:
        pooler = t.pooler(**passing(tcp), env={"PID_OFFSET": "1"})
        pooler.start()
        pooler.usable()
        assert "socket activation" not in pooler.log()


# ---- the journal --------------------------------------------------------------------------------

@ours
def test_stderr_that_is_the_journal_gets_priorities(t):
    if os.geteuid() != 0:
        raise Skip("needs root, for a journal of its own")
    fake = os.path.join(t.folder, "journal")
    script = ("mount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && "
              f"ln -s {fake} /run/systemd/journal/socket && chmod -R 755 /run/systemd && "
              "exec \"$0\" \"$@\"")
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if done.returncode != 0:
        raise Skip("unshare -m is not possible here")
    journal = Manager(fake)
    pooler = t.pooler(start=False, as_root=True, user=OS_USER, logfile="",
                      wrapper=["unshare", "-m", "sh", "-c", script])
    with open(pooler.stderr_file, "w"):
        status = os.stat(pooler.stderr_file)
    pooler.more["env"]["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    pooler.start()
    pooler.usable()
    with contextlib.suppress(pgwire.PgError):
        pooler.connect(geqo="off")
    text = journal.wait("^MESSAGE=C-0x[0-9a-f]+: .* login attempt: ")
    matches("(?m)^PRIORITY=6$", text)
    matches("(?m)^PRIORITY=4$", journal.wait("^MESSAGE=C-0x[0-9a-f]+: .* pooler error: "))
    assert "login attempt" not in pooler.stderr()


# ---- the units that come with it ----------------------------------------------------------------

UNITS = ("pgsplice.service", "pgsplice.socket")


def analyze(*arguments):
    if shutil.which("systemd-analyze") is None:
        raise Skip("no systemd-analyze")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def allowed_calls(group, seen=None):
    """The system calls of a group of systemd's, with those of the groups in it."""
    seen = set() if seen is None else seen
    for line in analyze("syscall-filter", group).stdout.splitlines()[1:]:
        word = line.strip()
        if word and not word.startswith("#") and word not in seen:
            seen.add(word)
            if word.startswith("@"):
                allowed_calls(word, seen)
    return {word for word in seen if not word.startswith("@")}


# Runs what follows under a filter: the numbers in the first argument are allowed, the rest is EPERM.
FILTER = """
import ctypes, os, struct, sys
numbers = [int(word) for word in sys.argv[1].split(",")]
code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
for number in numbers:
    code += [struct.pack("HBBI", 0x15, 0, 1, number), struct.pack("HBBI", 0x06, 0, 0, 0x7fff0000)]
code.append(struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | 1))
program = ctypes.create_string_buffer(b"".join(code))
head = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, head, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@ours
def test_units_are_well_formed(t):
    for name in UNITS:
        with open(os.path.join(TOP, "conf", name)) as file:
            text = file.read()
        # neither the program nor its manual is installed here
        text = re.sub(r"(?m)^(ExecStart=)\S+", rf"\1{POOLER_BIN}", text)
        text = re.sub(r"(?m)^Documentation=.*\n", "", text)
        with open(os.path.join(t.folder, name), "w") as file:
            file.write(text)
    done = analyze("verify", *(os.path.join(t.folder, name) for name in UNITS))
    same((done.returncode, done.stdout + done.stderr), (0, ""))


@ours
def test_io_uring_survives_the_filter_of_the_unit(t):
    with open(os.path.join(TOP, "conf", "pgsplice.service")) as file:
        groups = re.findall(r"(?m)^SystemCallFilter=(.*)", file.read())
    same(groups, ["@system-service"])
    names = allowed_calls(groups[0])
    assert "io_uring_enter" in names
    header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
    if not os.path.exists(header):
        raise Skip("knows the numbers of x86-64 only")
    with open(header) as file:
        numbers = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", file.read()))
    allowed = ",".join(numbers[name] for name in sorted(names) if name in numbers)
    pooler = t.pooler(wrapper=["/usr/bin/python3", "-c", FILTER, allowed], pool_mode="transaction",
                      auth_type="scram-sha-256", userlist={"app": "secret", "admin": "secret"},
                      databases={"app": t.postgres.address(host="localhost")},
                      extra="[pgsplice]\nworker_threads = 2\n", as_root=False)
    for host in ("127.0.0.1", pooler.folder):
        with pooler.connect(password="secret", host=host) as client:
            same(client.value("select 1"), "1")
    with pooler.console(password="secret") as console:
        console.do("reload")
    assert "too high" not in pooler.log(), "a helper could not lower its priority"
    pooler.stop()
    # and it is a filter indeed
    without = ",".join(word for word in allowed.split(",") if word != numbers["io_uring_setup"])
    pooler = t.pooler(start=False, wrapper=["/usr/bin/python3", "-c", FILTER, without])
    done = pooler.run_to_end()
    same(done.returncode, 1)
    matches("io_uring is forbidden to this process", done.stderr)
