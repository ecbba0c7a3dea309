"""Online restart: a new process (-R) takes over the listening sockets, the old one serves its clients."""

import contextlib
import os
import pwd
import signal
import socket
import struct
import subprocess
import threading

import pgwire
from harness import (OS_USER, Skip, eventually, free_port, give_to_os_user, matches, ours,
                     process_runs, same, slow)
from pgwire import query
from test_process import pid_in


@contextlib.contextmanager
def as_owner():
    """The test is who the poolers are, to those who ask a socket."""
    user = os.geteuid()
    os.seteuid(pwd.getpwnam(OS_USER).pw_uid)
    try:
        yield
    finally:
        os.seteuid(user)


def workers(count):
    return f"[pgsplice]\nworker_threads = {count}\n"


def first_of(t, **settings):
    settings.setdefault("extra", workers(2))
    return t.pooler(pool_mode="transaction", pidfile=os.path.join(t.folder, "pooler.pid"),
                    **settings)


def next_of(t, before, start=True, **settings):
    """The process after `before`, with a configuration (and a log) of its own."""
    settings.setdefault("extra", workers(2))
    settings.setdefault("unix_socket_dir", before.settings["unix_socket_dir"])
    settings.setdefault("pidfile", before.settings["pidfile"])
    pooler = t.pooler(start=False, listen_port=before.port, pool_mode="transaction", args=["-R"],
                      **settings)
    if start:
        pooler.launch()
        pooler.wait_log("process up")
        same(pid_in(before.settings["pidfile"]), pooler.process.pid)
    return pooler


def who(client):
    """The process that serves this console session: its settings tell."""
    return next(row["value"] for row in client.table("show config") if row["key"] == "logfile")


class Knockers:
    """Threads that connect, ask and leave, over TCP and the unix socket, until told to stop."""

    def __init__(self, pooler, count):
        self.pooler, self.count = pooler, count
        self.served, self.problems, self.is_over = 0, [], False

    def _knock(self, index):
        host = self.pooler.settings["unix_socket_dir"] if index % 2 else "127.0.0.1"
        while not self.is_over:
            try:
                with self.pooler.connect(host=host) as client:
                    same(client.value(f"select {index}"), str(index))
                    self.served += 1
            except Exception as problem:
                self.problems.append(repr(problem))

    def __enter__(self):
        self.threads = [threading.Thread(target=self._knock, args=(i,)) for i in range(self.count)]
        for thread in self.threads:
            thread.start()
        eventually(lambda: self.served > 20, "they are served")
        return self

    def __exit__(self, *_):
        self.is_over = True
        for thread in self.threads:
            thread.join()
        same(self.problems, [])

    def more(self, count=60):
        seen = self.served
        eventually(lambda: self.served > seen + count or self.problems, "they are served", 10)
        same(self.problems, [])


@ours
@slow(60)
def test_no_connection_is_lost_whatever_the_number_of_workers(t):
    pooler = first_of(t, extra=workers(1), max_client_conn=300)
    with Knockers(pooler, 6) as knockers:
        for count in (3, 1, 4, 2, 2, 1):
            after = next_of(t, pooler, extra=workers(count), max_client_conn=300)
            same(pooler.wait_exit(10), 0)
            knockers.more()
            pooler = after
    assert knockers.served > 300, knockers.served


@ours
@slow(60)
def test_no_connection_is_lost_by_many_restarts_in_a_row(t):
    pooler = first_of(t, max_client_conn=300)
    with Knockers(pooler, 4) as knockers:
        for _ in range(12):
            after = next_of(t, pooler, max_client_conn=300)
            same(pooler.wait_exit(10), 0)
            pooler = after
        knockers.more()


@ours
@slow(40)
def test_a_running_pgbench_ends_well(t):
    pooler = first_of(t)
    script = pooler.write_file("script.sql", "select 1;\n")
    bench = subprocess.Popen(
        ["/usr/lib/postgresql/15/bin/pgbench", "-n", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "app",
         "-c", "8", "-T", "4", "-f", script, "app"], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)
    with pooler.console() as console:
        eventually(lambda: int(console.pool().get("cl_active") or 0) > 0, "pgbench runs")
    after = next_of(t, pooler)
    assert pooler.runs()
    output = bench.communicate()[0]
    same(bench.returncode, 0, output)
    matches("number of failed transactions: 0", output)
    same(pooler.wait_exit(), 0)
    after.usable()


@ours
def test_who_was_there_stays_and_who_comes_meets_the_new_process(t):
    pooler = first_of(t)
    with pooler.connect() as old:
        old.query("begin")
        after = next_of(t, pooler)
        pooler.wait_log("another process takes over, waiting for all clients disconnect")
        for host in ("127.0.0.1", pooler.folder):
            for _ in range(5):
                with pooler.console(host=host) as console:
                    same(who(console), after.log_file)
        same(old.value("select 'still'"), "still")
        old.query("commit")
        same(old.value("select 'there'"), "there")
        assert pooler.runs()
        old.terminate()
        same(pooler.wait_exit(), 0)
    after.wait_log("the process before us has ended")
    path = os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}")
    assert os.path.exists(path), "the old process has removed the unix socket"
    same(pid_in(pooler.settings["pidfile"]), after.process.pid, "pidfile")
    after.stop()
    assert not os.path.exists(path)
    assert not os.path.exists(pooler.settings["pidfile"])


@ours
def test_who_was_accepted_before_may_log_in(t):
    users = {"userlist": {"app": "secret"}, "auth_type": "md5", "tcp_defer_accept": 0}
    pooler = first_of(t, **users)
    silent, asked = ([pooler.open(host=host) for host in ("127.0.0.1", pooler.folder)
                      for _ in range(4)] for _ in range(2))
    salts = []
    for client in asked:
        client.send(pgwire.startup([("user", "app"), ("database", "app")]))
        salts.append(client.receive().body[4:])
    next_of(t, pooler, **users)
    pooler.wait_log("another process takes over")
    for client, salt in zip(asked, salts):
        client.send(pgwire.message("p", pgwire.text(pgwire.md5_answer("app", "secret", salt))))
        same(client.until("Z")[0].body[:4], b"\0\0\0\0")
    for client in silent:
        client.login("app", "app", "secret")
    for client in silent + asked:
        same(client.value("select 1"), "1")
    assert pooler.runs()
    for client in silent + asked:
        client.terminate()
    same(pooler.wait_exit(), 0)


@ours
def test_cancel_requests_reach_clients_of_the_old_processes(t):
    first = first_of(t)
    a = first.connect()
    second = next_of(t, first)
    b = second.connect()
    third = next_of(t, second)
    c = third.connect()
    for client in (a, b, c):
        client.send(query("select pg_sleep(20)"))
        eventually(lambda: third.cancel(client.key) == [] and not client.silent_for(0.05),
                   "cancelled")
        same(client.results().errors[0].sqlstate, "57014")
        same(client.value("select 1"), "1")
    # one that nobody knows harms nobody
    same(third.cancel((4711, b"none")), [])
    # the second has no clients any more, and stays because the first one has
    b.terminate()
    with third.console() as console:
        same(who(console), third.log_file)
    assert second.runs()
    a.terminate()
    same(first.wait_exit(), 0)
    same(second.wait_exit(), 0)
    same(c.value("select 1"), "1")


@ours
def test_without_a_running_process_it_is_an_ordinary_start(t):
    pooler = t.pooler(args=["-R"], pidfile=os.path.join(t.folder, "pooler.pid"))
    pooler.wait_log("there is no running process to take over from")
    pooler.usable()
    # and the same with what one leaves that was killed
    pooler.process.kill()
    pooler.wait_exit()
    pooler.process = None
    after = next_of(t, pooler)
    after.wait_log("there is no running process to take over from")
    after.usable()


@ours
def test_in_the_background(t):
    pooler = first_of(t, start=False)
    pooler.args = ["-d"]
    path = pooler.settings["pidfile"]
    same(pooler.run_to_end().returncode, 0)
    first = pid_in(path)
    with pooler.connect() as client:
        pooler.args = ["-R", "-d"]
        done = pooler.run_to_end()
        same(done.returncode, 0, done.stderr)
        second = pid_in(path)  # there before the command returns
        assert second != first and process_runs(second)
        same(client.value("select 1"), "1")
        assert process_runs(first)
    eventually(lambda: not process_runs(first), "the old process has ended")
    pooler.usable()
    os.kill(second, signal.SIGINT)
    eventually(lambda: not process_runs(second), "the new process has ended")


@ours
def test_addresses_follow_the_new_configuration(t):
    pooler = first_of(t)
    after = next_of(t, pooler, listen_addr="::1")
    after.wait_log(rf"WARNING no longer listening on 127\.0\.0\.1:{pooler.port}")
    same(pooler.wait_exit(), 0)
    with after.connect(host="::1") as client:
        same(client.value("select 1"), "1")
    with after.connect(host=pooler.folder) as client:
        same(client.value("select 1"), "1")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", pooler.port)) != 0


@ours
def test_a_new_process_that_cannot_start_leaves_the_old_one_as_it_is(t):
    pooler = first_of(t)
    pid = pooler.process.pid
    for settings in ({"listen_addr": "no-such-host.invalid"}, {"pidfile": "/nonexistent/pid"},
                     {"extra": "[pgsplice]\nhuge_pages = on\nreceive_buffer_count_max = 65536\n"}):
        done = next_of(t, pooler, start=False, **settings).run_to_end()
        same(done.returncode, 1, done.stderr)
        matches("FATAL", done.stderr)
        same(pid_in(pooler.settings["pidfile"]), pid)
        pooler.usable()
        with pooler.connect(host=pooler.folder) as client:
            same(client.value("select 1"), "1")
    next_of(t, pooler).usable()
    same(pooler.wait_exit(), 0)


@ours
def test_what_cannot_be_taken_over_is_refused(t):
    pooler = first_of(t)

    def refused_with(pattern, **settings):
        done = next_of(t, pooler, start=False, **settings).run_to_end()
        same(done.returncode, 1, done.stderr)
        matches("FATAL .*" + pattern, done.stderr)
        pooler.usable()
    refused_with("-R needs a unix socket", unix_socket_dir="")
    refused_with("-R needs a unix socket", unix_socket_dir="@abstract")
    with pooler.console() as console:
        console.do("pause")
        done = next_of(t, pooler, start=False).run_to_end()
        console.do("resume")
        same(done.returncode, 1, done.stderr)
        matches("gives no sockets: it is paused, suspended or shutting down", done.stderr)
    pooler.usable()


@ours
def test_a_process_that_does_not_answer_is_not_taken_over(t):
    pooler = first_of(t)
    with pooler.console() as console:
        console.do("suspend")
        done = next_of(t, pooler, start=False).run_to_end()
        same(done.returncode, 1, done.stderr)
        matches("does not let us take over: it does not answer", done.stderr)
        console.do("resume")
    pooler.usable()


@ours
def test_another_user_cannot_take_over(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    pooler = first_of(t)
    done = next_of(t, pooler, start=False, as_root=True, user="nobody",
                   logfile="").run_to_end()
    same(done.returncode, 1, done.stderr)
    matches("FATAL .*is another user's", done.stderr)
    pooler.usable()
    # root that will be the same user can
    after = next_of(t, pooler, as_root=True, user=OS_USER)
    same(pooler.wait_exit(), 0)
    after.usable()
    after.stop()
    path = os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}")
    assert not os.path.exists(path), "the new process could not remove the unix socket"


@ours
def test_another_program_is_not_taken_over(t):
    folder = os.path.join(t.folder, "other")
    os.makedirs(folder)
    give_to_os_user(folder)
    port = free_port(t.slot)

    def answer(listener, version):
        with contextlib.suppress(OSError):
            taken, _ = listener.accept()
            with taken:
                taken.recv(1000)
                taken.sendall(pgwire.auth(0) + pgwire.parameter_status("server_version", version) +
                              pgwire.ready())
                taken.recv(1000)
    for version in ("pgsplice", "15.4 (Debian 15.4-2)", "x" * 5000):
        with socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(folder, f".s.PGSQL.{port}")
            if os.path.exists(path):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o777)
            with as_owner():
                listener.listen()
            thread = threading.Thread(target=answer, args=(listener, version))
            thread.start()
            pooler = t.pooler(start=False, listen_port=port, unix_socket_dir=folder, args=["-R"])
            done = pooler.run_to_end()
            thread.join()
            same(done.returncode, 1, done.stderr)
            matches("FATAL .*is neither pgsplice nor PgBouncer", done.stderr)


@ours
def test_sockets_of_another_user_are_not_taken(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    folder = os.path.join(t.folder, "other")
    os.makedirs(folder)
    port = free_port(t.slot)
    with socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, f".s.PGSQL.{port}")
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen()
        pooler = t.pooler(start=False, listen_port=port, unix_socket_dir=folder, args=["-R"])
        done = pooler.run_to_end()
        same(done.returncode, 1, done.stderr)
        matches("FATAL .*is another user's", done.stderr)


@ours
def test_nonsense_instead_of_an_answer_ends_the_start(t):
    folder = os.path.join(t.folder, "other")
    os.makedirs(folder)
    give_to_os_user(folder)
    port = free_port(t.slot)
    for nonsense in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"R\0\0\0\3", b"R\xff\xff\xff\xff",
                     b"R\0\0\0\x08\0\0\0\5", b"E\0\0\0\x0aSERROR", b"S\0\0\0\x05x",
                     b"Z" * 20000, pgwire.auth(0) + b"Z\0\0\0\4"):
        with socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(folder, f".s.PGSQL.{port}")
            if os.path.exists(path):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o777)
            with as_owner():
                listener.listen()
            pooler = t.pooler(start=False, listen_port=port, unix_socket_dir=folder, args=["-R"])
            process = pooler.launch()
            taken, _ = listener.accept()
            with taken:
                taken.recv(1000)
                with contextlib.suppress(OSError):
                    taken.sendall(nonsense)
            same(process.wait(5), 1)
            matches("FATAL ", pooler.stderr())


def show_fds(path, user="pgbouncer"):
    """SHOW FDS over the unix socket: (rows, descriptors that came along)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.settimeout(5)
        words = f"user\0{user}\0database\0pgbouncer\0\0".encode()
        client.sendall(struct.pack("!II", len(words) + 8, 3 << 16) + words)
        data = b""
        while b"Z\0\0\0\5" not in data:
            data += client.recv(4096)
        client.sendall(query("SHOW FDS"))
        data, fds = b"", []
        while b"Z\0\0\0\5" not in data:
            more, got, _, _ = socket.recv_fds(client, 4096, 64)
            assert more, data
            data += more
            fds += got
    rows = 0
    while data:
        rows += data[:1] == b"D"
        data = data[1 + struct.unpack("!I", data[1:5])[0]:]
    return rows, fds


@ours
def test_show_fds_gives_the_listening_sockets_to_their_owner_only(t):
    pooler = first_of(t, extra=workers(3), as_root=False)
    path = os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}")
    with pooler.console() as console:
        table = console.table("show fds")
        same(len(table), 4)
        same(sorted({(row["task"], row["addr"], row["port"], row["cancel"], row["link"], row["user"])
                     for row in table}),
             [("pooler", address, str(pooler.port), "0", "0", None)
              for address in ("127.0.0.1", "unix")])
    same(show_fds(path, "admin"), (4, []), "somebody else")

    with as_owner():
        rows, fds = show_fds(path)
    same((rows, len(fds)), (4, 4))
    for fd in fds:
        with socket.socket(fileno=fd) as taken:
            assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    # asking takes nothing away
    pooler.usable()


# ---- taking over from PgBouncer -----------------------------------------------------------------

PGBOUNCER = "/usr/sbin/pgbouncer"


class PgBouncer:
    """A running PgBouncer that has the configuration of a pooler of ours which was not started."""

    def __init__(self, pooler):
        if not os.path.exists(PGBOUNCER):
            raise Skip("PgBouncer is not installed (make bench installs it)")
        with open(pooler.ini) as file:
            text = file.read()
        self.ini = pooler.write_file("pgbouncer.ini", text.split("[pgsplice]")[0])
        self.process = subprocess.Popen([PGBOUNCER, "-q", self.ini], stdin=subprocess.DEVNULL, cwd=pooler.folder,
                                        **pooler.who)
        eventually(lambda: pid_in(pooler.settings["pidfile"]) == self.process.pid, "PgBouncer runs")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        same(self.process.wait(10), 0)


@ours
@slow(40)
def test_sockets_of_a_running_pgbouncer_are_taken_over(t):
    pooler = t.pooler(start=False, pool_mode="transaction", pidfile=os.path.join(t.folder, "pooler.pid"),
                      max_client_conn=300, args=["-R"])
    unix = os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}")
    before = PgBouncer(pooler)
    with pooler.connect() as stays, Knockers(pooler, 6) as knockers:
        stays.query("begin")
        backend = stays.value("select pg_backend_pid()")
        pooler.launch()
        pooler.wait_log("process up: pgsplice")
        knockers.more()
        # This PgBouncer (before 1.23) cannot be told to stop accepting.
        pooler.wait_log(rf"WARNING PgBouncer 1\.1.* goes on accepting beside us .*process {before.process.pid};")
        same(stays.value("select pg_backend_pid()"), backend)
        stays.query("commit")
        same(pid_in(pooler.settings["pidfile"]), pooler.process.pid)
        knockers.more()
    before.stop()
    pooler.wait_log("the process before us has ended")
    # It has removed both.
    eventually(lambda: pid_in(pooler.settings["pidfile"]) == pooler.process.pid, "the pidfile is back")
    assert os.path.exists(unix) and not os.path.exists(unix + ".kept")
    with Knockers(pooler, 4) as knockers:
        knockers.more()
    pooler.stop()
    assert not os.path.exists(unix) and not os.path.exists(pooler.settings["pidfile"])


class NewerPgBouncer:
    """What a PgBouncer of 1.23 or later says to whoever takes over; the facts of tests/compat."""

    ROW = (b"fd", b"task", b"user", b"database", b"addr", b"port", b"cancel", b"link")

    def __init__(self, folder, port):
        self.path = os.path.join(folder, f".s.PGSQL.{port}")
        self.tcp = socket.create_server(("127.0.0.1", port))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.path)
        os.chmod(self.path, 0o777)
        give_to_os_user(self.path)
        with as_owner():
            self.unix.listen()
        self.asked, self.is_closed = [], False

    def answer(self):
        taken, _ = self.unix.accept()
        with taken:
            taken.recv(1000)
            taken.sendall(pgwire.auth(0) + pgwire.parameter_status("server_version", "1.25.2/bouncer") +
                          pgwire.ready())
            while True:
                packet = taken.recv(1000)
                if not packet:
                    break
                command = packet[5:].rstrip(b"\0").decode()
                self.asked.append(command)
                if command == "SHOW FDS":
                    self.show_fds(taken)
                taken.sendall(pgwire.message("C", command.split()[0].encode() + b"\0") + pgwire.ready())
        self.is_closed = True

    def show_fds(self, taken):
        near, far = socket.socketpair()
        self.client = far
        with near:
            for task, fd in ((b"client", near.fileno()), (b"pooler", self.tcp.fileno()),
                             (b"server", near.fileno()), (b"pooler", self.unix.fileno()), (b"client", near.fileno())):
                values = [str(fd).encode(), task] + [b"x"] * 6
                row = struct.pack("!H", len(values)) + b"".join(struct.pack("!I", len(v)) + v for v in values)
                socket.send_fds(taken, [pgwire.message("D", row)], [fd])


@ours
def test_a_newer_pgbouncer_is_told_to_wait_for_its_clients(t):
    folder = os.path.join(t.folder, "other")
    os.makedirs(folder)
    give_to_os_user(folder)
    before = NewerPgBouncer(folder, free_port(t.slot))
    thread = threading.Thread(target=before.answer)
    thread.start()
    pooler = t.pooler(start=False, listen_port=before.tcp.getsockname()[1], unix_socket_dir=folder, args=["-R"])
    pooler.launch()
    pooler.wait_log("LOG PgBouncer 1.25.2/bouncer has stopped accepting, its clients stay with it")
    same(before.asked, ["SHOW FDS", "SHUTDOWN WAIT_FOR_CLIENTS"])
    # Our session would be one of its clients: it has to go. Nor do we keep what its clients have.
    thread.join(5)
    same(before.is_closed, True)
    before.client.settimeout(3)
    same(before.client.recv(1), b"")
    pooler.wait_log("process up")
    pooler.usable()
