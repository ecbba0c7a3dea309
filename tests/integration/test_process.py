"""The process: its command line, its signals, its files, its log."""

import ctypes
import errno
import grp
import os
import pwd
import re
import signal
import socket
import stat
import struct
import subprocess

import pgwire
from harness import (OS_USER, POOLER_BIN, Skip, covers, eventually, give_to_os_user, matches, ours,
                     plain, process_runs, refused, same)
from pgwire import query

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] "
                  r"(FATAL|ERROR|WARNING|LOG|DEBUG|NOISE) \S")


def pid_in(path):
    try:
        with open(path) as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


# ---- command line -------------------------------------------------------------------------------

def test_version_is_printed(t):
    for option in ("-V", "--version"):
        done = t.pooler(start=False).run_to_end([option])
        same(done.returncode, 0)
        matches(r"^\S+ \d+\.\d+", done.stdout)


def test_help_is_printed(t):
    for option in ("-h", "--help"):
        done = t.pooler(start=False).run_to_end([option])
        same(done.returncode, 0)
        for word in ("-d", "-q", "-v", "-u", "-V", "-h"):
            assert word in done.stdout, done.stdout


def test_unknown_option_is_refused(t):
    pooler = t.pooler(start=False)
    for option in ("-Z", "--no-such-option"):
        done = pooler.run_to_end([option, pooler.ini])
        same(done.returncode, 1)
        assert done.stderr


def test_one_config_file_is_demanded(t):
    pooler = t.pooler(start=False)
    for arguments in ([], [pooler.ini, pooler.ini], ["-q"]):
        done = pooler.run_to_end(arguments)
        same(done.returncode, 1)
        if "-q" not in arguments:
            matches("no configuration file specified", done.stderr)


def test_missing_config_file_ends_the_start(t):
    done = t.pooler(start=False).run_to_end(["/nonexistent/pooler.ini"])
    same(done.returncode, 1)
    assert "/nonexistent/pooler.ini" in done.stderr, done.stderr


def test_mistake_in_the_config_ends_the_start_and_is_named(t):
    pooler = t.pooler(start=False, no_such_setting="1")
    done = pooler.run_to_end()
    same(done.returncode, 1)
    matches("no_such_setting", done.stderr)
    matches(r"pooler\.ini:\d+", done.stderr)
    matches("FATAL .*cannot load config file", done.stderr)


def test_root_is_refused(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    pooler = t.pooler(start=False, as_root=True)
    done = pooler.run_to_end()
    same(done.returncode, 1)
    matches("FATAL .*root", done.stderr)


def uid_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(line.split()[1:5] for line in file if line.startswith("Uid:"))


def test_user_option_and_setting_drop_root(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    wanted = [str(pwd.getpwnam(OS_USER).pw_uid)] * 4
    for more in ({"args": ["-u", OS_USER]}, {"args": [f"--user={OS_USER}"]}, {"user": OS_USER},
                 {"args": ["-u", OS_USER], "user": "root"}):
        pooler = t.pooler(as_root=True, **more)
        same(uid_of(pooler.process.pid), wanted)
        pooler.usable()
        pooler.stop()


def test_unknown_user_ends_the_start(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    done = t.pooler(start=False, as_root=True, args=["-u", "no-such-user"]).run_to_end()
    same(done.returncode, 1)
    matches("no-such-user", done.stderr)


def test_quiet_says_nothing_on_stderr(t):
    pooler = t.pooler(args=["-q"])
    pooler.usable()
    same(pooler.stderr(), "")
    assert "login attempt" in pooler.log()


def test_stderr_is_written_besides_the_logfile(t):
    pooler = t.pooler()
    pooler.usable()
    pooler.wait_log("login attempt")
    assert "login attempt" in pooler.stderr()


@covers("settings", "verbose")
def test_verbose_of_the_file_adds_debug_lines(t):
    pooler = t.pooler(verbose=2)
    pooler.usable()
    pooler.wait_log(r"\] (DEBUG|NOISE) ")


def test_verbose_adds_debug_lines(t):
    quiet, loud = t.pooler(), t.pooler(args=["-v", "-v"])
    for pooler in (quiet, loud):
        pooler.usable()
    assert not re.search(r"\] (DEBUG|NOISE) ", quiet.log())
    loud.wait_log(r"\] (DEBUG|NOISE) ")


def test_daemon_leaves_a_pidfile_and_removes_it(t):
    pooler = t.pooler(start=False, args=["-d"], pidfile="daemon.pid")
    path = os.path.join(pooler.folder, "daemon.pid")
    done = pooler.run_to_end()
    same(done.returncode, 0, done.stderr)
    pid = eventually(lambda: pid_in(path), "the pidfile is written")

    def usable():
        try:
            pooler.usable()
            return True
        except OSError:
            return False
    eventually(usable, "the daemon listens")
    assert process_runs(pid)
    same(os.getsid(pid) != os.getsid(0), True)
    same([os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)], ["/dev/null"] * 3)
    os.kill(pid, signal.SIGINT)
    eventually(lambda: not process_runs(pid), "the daemon has ended")
    assert not os.path.exists(path), "the pidfile is still there"


def test_daemon_needs_a_pidfile(t):
    done = t.pooler(start=False, args=["-d"]).run_to_end()
    same(done.returncode, 1)
    matches("FATAL .*daemon needs pidfile configured", done.stderr)


def test_pidfile_of_a_living_process_ends_the_start(t):
    pooler = t.pooler(start=False, pidfile="pooler.pid")
    first = t.pooler(pidfile=os.path.join(pooler.folder, "pooler.pid"))
    eventually(lambda: pid_in(os.path.join(pooler.folder, "pooler.pid")) == first.process.pid,
               "the pidfile is written")
    same(pooler.run_to_end().returncode, 1)
    first.usable()
    same(pid_in(os.path.join(pooler.folder, "pooler.pid")), first.process.pid)


@covers("settings", "pidfile")
def test_stale_pidfile_is_replaced(t):
    pooler = t.pooler(start=False, pidfile="stale.pid")
    path = pooler.write_file("stale.pid", "4194301\n")
    pooler.start()
    eventually(lambda: pid_in(path) == pooler.process.pid, "the pidfile is ours")
    pooler.stop()
    assert not os.path.exists(path)


def test_two_processes_on_one_port_are_an_error(t):
    first = t.pooler(unix_socket_dir="")
    second = t.pooler(start=False, listen_port=first.port, unix_socket_dir="")
    done = second.run_to_end()
    same(done.returncode, 1)
    matches(f"{first.port}", done.stderr)
    for _ in range(5):
        first.usable()


def test_two_processes_on_one_unix_socket_are_an_error(t):
    first = t.pooler()
    second = t.pooler(start=False, listen_port=first.port, unix_socket_dir=first.folder,
                      listen_addr="")
    same(second.run_to_end().returncode, 1)
    with first.connect(host=first.folder) as c:
        same(c.value("select 1"), "1")


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def test_left_over_unix_socket_is_replaced(t):
    first = t.pooler()
    first.process.kill()
    first.wait_exit()
    first.process = None  # its violent end was meant
    path = os.path.join(first.folder, f".s.PGSQL.{first.port}")
    assert os.path.exists(path)
    eventually(lambda: not listens(first.port), "the kernel has taken its listeners down", 5)
    second = t.pooler(listen_port=first.port, unix_socket_dir=first.folder)
    with second.connect(host=first.folder) as c:
        same(c.value("select 1"), "1")
    second.stop()
    assert not os.path.exists(path), "the socket is still there"


@covers("settings", "unix_socket_mode")
def test_unix_socket_has_its_mode(t):
    for mode, wanted in (("0700", 0o700), (None, 0o777)):
        pooler = t.pooler(unix_socket_mode=mode)
        path = os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}")
        eventually(lambda: stat.S_IMODE(os.stat(path).st_mode) == wanted, f"mode {wanted:o}")


def test_without_listen_addr_there_is_no_tcp(t):
    pooler = t.pooler(start=False, listen_addr=None)
    pooler.launch()
    eventually(lambda: os.path.exists(os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}")),
               "the unix socket is there")
    with pooler.connect(host=pooler.folder) as c:
        same(c.value("select 1"), "1")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", pooler.port)) != 0


def test_included_files_count(t):
    pooler = t.pooler(start=False, default_pool_size=None)
    path = pooler.write_file("more.ini", "default_pool_size = 3\n")
    pooler.extra = f"%include {path}\n"
    pooler.write()
    pooler.start()
    with pooler.console() as console:
        same(console.config("default_pool_size"), "3")


# ---- checking a configuration -------------------------------------------------------------------

def check(pooler, option):
    done = pooler.run_to_end([option, pooler.ini])
    return done.returncode, done.stdout + done.stderr


@ours
def test_check_of_a_good_file_is_0(t):
    pooler = t.pooler(start=False)
    for option in ("-t", "--check"):
        status, output = check(pooler, option)
        same(status, 0, output)


@ours
def test_check_prints_every_mistake_with_file_and_line(t):
    pooler = t.pooler(start=False, pool_mode="sometimes", default_pool_size="many",
                      no_such_setting="1", query_timeout="5s")
    with open(pooler.ini) as file:
        lines = file.read().splitlines()
    numbers = [i + 1 for i, line in enumerate(lines)
               if re.match("pool_mode|default_pool_size|no_such_setting|query_timeout", line)]
    same(len(numbers), 4)
    for option in ("-t", "--check"):
        status, output = check(pooler, option)
        same(status, 1)
        for number in numbers:
            assert f"pooler.ini:{number}" in output, f"line {number} is missing in: {output}"


@ours
def test_check_starts_nothing(t):
    pooler = t.pooler()
    status, output = check(pooler, "--check")  # the port is taken, which is no mistake of the file
    same(status, 0, output)
    pooler.usable()


@ours
def test_check_of_a_missing_file_is_1(t):
    pooler = t.pooler(start=False)
    same(pooler.run_to_end(["-t", "/nonexistent/pooler.ini"]).returncode, 1)


@ours
def test_mistakes_in_database_entries_are_named_with_their_line(t):
    for entry in ("host=127.0.0.1 port=abc", "host=127.0.0.1 no_such_key=1", "host='unfinished",
                  "pool_size=many", "pool_mode=sometimes", "justaword"):
        pooler = t.pooler(start=False, databases={"bad": entry})
        status, output = check(pooler, "--check")
        same(status, 1, entry)
        matches(r"pooler\.ini:2", output)


@ours
def test_own_section_is_read_and_checked(t):
    pooler = t.pooler(start=False, extra="[pgsplice]\nno_such_thing = 1\n")
    status, output = check(pooler, "--check")
    same(status, 1, output)
    assert "no_such_thing" in output, output
    pooler = t.pooler(start=False, extra="[no_such_section]\nx = 1\n")
    same(check(pooler, "--check")[0], 1)


# ---- signals ------------------------------------------------------------------------------------

def test_hangup_reloads(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("begin")
        pooler.change(reload=False, default_pool_size=7)
        pooler.signal(signal.SIGHUP)
        pooler.wait_log("got SIGHUP,? re-reading config")
        with pooler.console() as console:
            eventually(lambda: console.config("default_pool_size") == "7", "the setting is new")
        same(c.value("select 1"), "1")


@ours
def test_hangup_with_a_mistake_changes_nothing(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c, pooler.console() as console:
        pooler.change(reload=False, default_pool_size=7, no_such_setting=1)
        pooler.signal(signal.SIGHUP)
        pooler.wait_log(r"no_such_setting.*pooler\.ini:\d+|pooler\.ini:\d+.*no_such_setting")
        pooler.wait_log("WARNING .*config file loading failed")
        same(console.config("default_pool_size"), "20")
        same(c.value("select 1"), "1")


def test_hangup_reopens_the_log(t):
    pooler = t.pooler()
    os.rename(pooler.log_file, pooler.log_file + ".1")
    pooler.signal(signal.SIGHUP)

    def reopened():
        pooler.usable()
        return "login attempt" in pooler.log()
    eventually(reopened, "the new log file is written")


@ours  # 1.18 leaves SIGQUIT to the kernel
def test_quit_ends_at_once(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("begin")
        pooler.signal(signal.SIGQUIT)
        same(pooler.wait_exit(), 0)


@ours
def test_terminate_waits_for_clients(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        pooler.signal(signal.SIGTERM)
        pooler.wait_log("got SIGTERM, shutting down, waiting for all clients disconnect")
        same(c.value("select 'still'"), "still")
        assert pooler.runs()
        c.terminate()
        same(pooler.wait_exit(), 0)


def test_interrupt_lets_transactions_end(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("begin")
        pooler.signal(signal.SIGINT)
        pooler.wait_log("got SIGINT, shutting down")
        same(c.value("select 'still'"), "still")
        assert pooler.runs()
        c.query("commit")
        same(pooler.wait_exit(), 0)


@ours
def test_second_interrupt_ends_at_once(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("begin")
        pooler.signal(signal.SIGINT)
        pooler.wait_log("got SIGINT, shutting down, waiting for all servers connections to be "
                        "released")
        pooler.signal(signal.SIGINT)
        same(pooler.wait_exit(), 0)


def test_shutdown_signals_end_an_idle_pooler(t):
    for number in (signal.SIGINT, signal.SIGTERM):
        pooler = t.pooler()
        pooler.signal(number)
        assert pooler.wait_exit() in (0, 1)


def test_user_signals_pause_and_resume(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.value("select 1")
        pooler.signal(signal.SIGUSR1)
        pooler.wait_log("got SIGUSR1, pausing all activity")
        c.send(query("select 'later'"))
        assert c.silent_for(0.15)
        pooler.signal(signal.SIGUSR1)
        pooler.wait_log("got SIGUSR1, but already paused/suspended")
        pooler.signal(signal.SIGUSR2)
        same(c.results().value(), "later")
        pooler.wait_log("got SIGUSR2, continuing from PAUSE")
        pooler.signal(signal.SIGUSR2)
        pooler.wait_log("got SIGUSR2, but not paused/suspended")


def test_broken_pipe_is_survived(t):
    pooler = t.pooler(pool_mode="transaction")
    pooler.signal(signal.SIGPIPE)
    pooler.usable()


# ---- the log ------------------------------------------------------------------------------------

def test_every_log_line_has_the_usual_form(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.value("select 1")
    with refused():
        pooler.connect(database="none")
    with pooler.open() as c:
        c.send(b"\0\0\0\5garbage")
    pooler.stop()
    lines = pooler.log().splitlines()
    assert len(lines) > 6
    for line in lines:
        assert LINE.match(line) or line.startswith("\t"), line


def test_start_is_logged(t):
    pooler = t.pooler()
    for pattern in (r"\] LOG kernel file descriptor limit: \d+ \(hard: \d+\); "
                    r"max_client_conn: 100, max expected fd use: \d+$",
                    rf"\] LOG listening on 127\.0\.0\.1:{pooler.port}$",
                    rf"\] LOG listening on unix:{pooler.folder}/\.s\.PGSQL\.{pooler.port}$",
                    r"\] LOG process up: \S+ \d+\.\d+"):
        pooler.wait_log(pattern)
    pid = re.search(r"\[(\d+)\] LOG process up", pooler.log()).group(1)
    same(pid, str(pooler.process.pid))


@plain
def test_life_of_a_client_and_a_server_is_logged(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        port = c.socket.getsockname()[1]
        c.value("select 1")
        c.terminate()
    client = rf"LOG C-0x[0-9a-f]+: app/app@127\.0\.0\.1:{port} "
    server = rf"LOG S-0x[0-9a-f]+: app/app@127\.0\.0\.1:{t.postgres.port} "
    pooler.wait_log(client + r"login attempt: db=app user=app tls=no( replication=no)?$")
    pooler.wait_log(server + r"new connection to server \(from 127\.0\.0\.1:\d+\)$")
    pooler.wait_log(client + r"closing because: client close request \(age=\d+s\)$")


def test_unix_connections_are_logged_as_such(t):
    pooler = t.pooler(databases={"app": t.postgres.address(host=t.postgres.sockets)})
    with pooler.connect(host=pooler.folder) as c:
        c.value("select 1")
    pooler.wait_log(rf"LOG C-0x[0-9a-f]+: app/app@unix\(\d+\):{pooler.port} login attempt: ")
    pooler.wait_log(rf"LOG S-0x[0-9a-f]+: app/app@unix(\(\d+\))?:{t.postgres.port} "
                    r"new connection to server$")


def test_errors_to_clients_are_logged_as_warnings(t):
    pooler = t.pooler()
    with refused():
        pooler.connect(geqo="off")
    reason = "unsupported startup parameter: geqo"
    pooler.wait_log(rf"LOG C-0x[0-9a-f]+: \S+ closing because: {reason} \(age=\d+s\)$")
    pooler.wait_log(rf"WARNING C-0x[0-9a-f]+: \S+ pooler error: {reason}$")
    log = pooler.log()
    assert log.index("closing because: unsupported") < log.index("pooler error: unsupported")


def test_unnamed_clients_are_logged_as_such(t):
    pooler = t.pooler()
    with pooler.open() as c:
        c.send(pgwire.untyped(pgwire.PROTOCOL_2_0, b"x" * 20))
        c.closed()
    pooler.wait_log(r"C-0x[0-9a-f]+: \(nodb\)/\(nouser\)@127\.0\.0\.1:\d+ closing because: old V2 ")


@plain
def test_client_without_a_byte_leaves_no_line(t):
    pooler = t.pooler(tcp_defer_accept=0)
    pooler.usable()
    before = pooler.wait_log("client unexpected eof") and pooler.log()
    for _ in range(3):
        pooler.open().vanish()
    pooler.usable()
    more = pooler.log()[len(before):]
    assert "(nodb)" not in more, more


@covers("settings", "log_connections", "log_disconnections")
def test_login_and_end_can_be_left_out_of_the_log(t):
    pooler = t.pooler(log_connections=0, log_disconnections=0, log_pooler_errors=0)
    pooler.usable()
    with refused():
        pooler.connect(geqo="off")
    with pooler.console() as console:
        console.do("reload")
    pooler.wait_log("RELOAD command issued")
    # A console that was there before the setting was does not count.
    said = [line for line in pooler.log().splitlines() if "pgbouncer/" not in line]
    for word in ("login attempt", "new connection to server", "closing because", "pooler error"):
        assert not any(word in line for line in said), word


@covers("settings", "stats_period")
def test_statistics_are_logged(t):
    pooler = t.pooler(pool_mode="transaction", stats_period=1)
    pooler.usable()
    pooler.wait_log(r"LOG stats: \d+ xacts/s, \d+ queries/s, (\d+ client parses/s, "
                    r"\d+ server parses/s, \d+ binds/s, \d+ client logins/s, )?in \d+ B/s, "
                    r"out \d+ B/s, xact \d+ us, query \d+ us, wait \d+ us$")


@covers("settings", "log_stats")
def test_statistics_can_be_left_out_of_the_log(t):
    pooler = t.pooler(stats_period=1, log_stats=0)
    with pooler.connect() as c:
        assert c.silent_for(1.4)
    assert "stats: " not in pooler.log()


def test_query_text_is_not_logged(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("select 'very private'")
        with refused():
            c.query("select 'also private' from nowhere")
    pooler.wait_log("client unexpected eof")
    assert "private" not in pooler.log()


# ---- syslog -------------------------------------------------------------------------------------

class Syslog:
    """/dev/log of a pooler that has a /dev of its own."""

    def __init__(self, t):
        if os.geteuid() != 0:
            raise Skip("needs root, for a /dev/log of its own")
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
            raise Skip("unshare -m is not possible here")
        self.path = os.path.join(t.folder, "syslog")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o777)
        self.socket.setblocking(False)
        self.lines = []
        script = ("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && "
                  "mknod -m 666 /dev/urandom c 1 9 && "
                  f"ln -s {self.path} /dev/log && exec \"$0\" \"$@\"")
        self.wrapper = ["unshare", "-m", "sh", "-c", script]

    def look(self):
        try:
            while True:
                self.lines.append(self.socket.recv(8192).decode())
        except BlockingIOError:
            return self.lines

    def wait(self, pattern):
        return eventually(lambda: next((line for line in self.look() if re.search(pattern, line)),
                                       None), f"syslog has {pattern!r}: {self.lines[-3:]}")


def logs_to(there, t, **settings):
    return t.pooler(wrapper=there.wrapper, as_root=True, user=OS_USER, **settings)


INFO, WARNING = 6, 4
LOCAL3, DAEMON, AUTH = 19 * 8, 3 * 8, 4 * 8


@plain
@covers("settings", "syslog", "syslog_ident", "syslog_facility")
def test_syslog_gets_the_text_with_facility_ident_and_pid(t):
    syslog = Syslog(t)
    pooler = logs_to(syslog, t, syslog=1, syslog_ident="my-pooler", syslog_facility="local3")
    pooler.usable()
    line = syslog.wait("app/app@.* login attempt")
    matches(rf"^<{LOCAL3 + INFO}>[^<\]]* my-pooler\[\d+\]: C-0x[0-9a-f]+: app/app@127\.0\.0\.1:"
            r"\d+ login attempt: db=app user=app tls=no( replication=no)?$", line)
    with refused():
        pooler.connect(geqo="off")
    matches(rf"^<{LOCAL3 + WARNING}>", syslog.wait("pooler error: unsupported startup parameter"))
    # besides the file and stderr
    pooler.wait_log("login attempt")
    assert "login attempt" in pooler.stderr()


def test_syslog_gets_no_debug_lines(t):
    syslog = Syslog(t)
    pooler = logs_to(syslog, t, syslog=1, verbose=2)
    pooler.usable()
    pooler.wait_log(" DEBUG ")
    syslog.wait("app/app@.* login attempt")
    pooler.stop()
    levels = {int(re.match(r"<(\d+)>", line).group(1)) % 8 for line in syslog.look()}
    assert levels <= {2, 3, WARNING, INFO}, levels


@ours  # 1.18 dies of it
def test_syslog_follows_a_reload(t):
    syslog = Syslog(t)
    pooler = logs_to(syslog, t, args=["-v", "-v"])
    pooler.usable()
    same(syslog.look(), [])
    pooler.change(syslog=1)
    pooler.usable()
    matches(rf"^<{DAEMON + INFO}>[^<\]]* pgbouncer\[{pooler_pid(pooler)}\]: ",
            syslog.wait("login attempt"))
    pooler.change(syslog_ident="other", syslog_facility="auth")
    pooler.usable()
    matches(rf"^<{AUTH + INFO}>[^<\]]* other\[", syslog.wait(r"other\[.*login attempt"))
    pooler.change(syslog=0)
    pooler.wait_log("RELOAD command issued")
    syslog.look()
    before = len(syslog.lines)
    pooler.usable()
    pooler.wait_log("client unexpected eof")
    same(syslog.look()[before:], [])
    # DEBUG and NOISE are for the file and stderr
    assert re.search(r"\] (DEBUG|NOISE) ", pooler.log())
    same([line for line in syslog.lines if line.startswith((f"<{DAEMON + 7}>", f"<{AUTH + 7}>"))], [])


def pooler_pid(pooler):
    return re.search(r"\[(\d+)\] LOG process up", pooler.log()).group(1)


@ours
def test_unknown_facility_is_daemon_and_said(t):
    syslog = Syslog(t)
    pooler = logs_to(syslog, t, syslog=1, syslog_facility="local9")
    pooler.wait_log("WARNING .*syslog_facility: \"local9\" is not known, daemon is used")
    pooler.usable()
    matches(rf"^<{DAEMON + INFO}>", syslog.wait("login attempt"))


@ours
def test_without_a_syslog_everything_goes_on(t):
    syslog = Syslog(t)
    pooler = logs_to(syslog, t, syslog=1)
    pooler.usable()
    syslog.wait("login attempt")
    os.unlink(syslog.path)
    syslog.socket.close()
    for _ in range(3):
        pooler.usable()
    eventually(lambda: pooler.log().count("login attempt") >= 4, "the file is written")


@ours
def test_a_syslog_that_does_not_read_holds_up_nobody(t):
    syslog = Syslog(t)
    pooler = logs_to(syslog, t, syslog=1)
    for _ in range(30):  # more than its socket takes
        pooler.usable()
    eventually(lambda: pooler.log().count("login attempt") >= 30, "the file is written")
    pooler.reload()
    pooler.usable()
    before = len(syslog.look())
    assert 0 < before < 60, before
    pooler.usable()
    matches(r"^<28>.*: \d+ log lines lost$", syslog.wait("log lines lost"))
    pooler.usable()
    syslog.look()
    assert len(syslog.lines) > before + 2
    for _ in range(30):
        pooler.usable()
    pooler.signal(signal.SIGINT)
    same(pooler.wait_exit(), 0)


# ---- sockets ------------------------------------------------------------------------------------

def sockets_of(process):
    """The sockets of another process, ours to look at."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(process.pid)
    try:
        for name in os.listdir(f"/proc/{process.pid}/fd"):
            try:
                if not os.readlink(f"/proc/{process.pid}/fd/{name}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue
            fd = libc.syscall(438, handle, int(name), 0)  # pidfd_getfd
            if fd < 0 and ctypes.get_errno() == errno.EPERM:
                raise Skip("not allowed to look into another process")
            if fd >= 0:
                with socket.socket(fileno=fd) as found:
                    yield found
    finally:
        os.close(handle)


def listeners_of(pooler, option, family=socket.AF_INET):
    """What getsockopt says of the pooler's listening sockets."""
    return [each.getsockopt(*option) for each in sockets_of(pooler.process)
            if each.family == family and each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]


def connections_of(pooler, *option):
    """(of the client's socket, of the server's socket) of one client at work."""
    with pooler.connect() as client:
        client.query("begin")
        port = client.socket.getsockname()[1]
        found = {}
        for each in sockets_of(pooler.process):
            try:
                peer = each.getpeername()
            except OSError:
                continue
            if each.family == socket.AF_INET:
                found[peer[1]] = each.getsockopt(*option)
        return found[port], found[pooler.test.postgres.port]


@covers("settings", "listen_backlog")
def test_backlog_is_the_configured_one(t):
    pooler = t.pooler(listen_backlog=37)
    infos = listeners_of(pooler, (socket.IPPROTO_TCP, socket.TCP_INFO, 104))
    assert infos
    same({struct.unpack_from("I", info, 8 + 4 * 5)[0] for info in infos}, {37})


@covers("settings", "tcp_defer_accept")
def test_clients_without_a_byte_are_left_to_the_kernel(t):
    option = (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    pooler = t.pooler(tcp_defer_accept=0)
    eventually(lambda: set(listeners_of(pooler, option)) == {0}, "not deferred")
    pooler.change(tcp_defer_accept=45)
    eventually(lambda: set(listeners_of(pooler, option)) == {1}, "deferred")
    with pooler.console() as console:
        console.do("set tcp_defer_accept = 0")
    eventually(lambda: set(listeners_of(pooler, option)) == {0}, "not deferred")
    pooler.usable()


@covers("settings", "tcp_keepalive")
def test_keepalive_can_be_turned_off(t):
    same(connections_of(t.pooler(tcp_keepalive=0), socket.SOL_SOCKET, socket.SO_KEEPALIVE), (0, 0))


def test_keepalive_is_on(t):
    same(connections_of(t.pooler(), socket.SOL_SOCKET, socket.SO_KEEPALIVE), (1, 1))


@covers("settings", "tcp_keepcnt", "tcp_keepidle", "tcp_keepintvl", "tcp_user_timeout")
def test_keepalive_and_timeout_are_the_configured_ones(t):
    pooler = t.pooler(tcp_keepcnt=7, tcp_keepidle=71, tcp_keepintvl=17, tcp_user_timeout=12345)
    for option, value in ((socket.TCP_KEEPCNT, 7), (socket.TCP_KEEPIDLE, 71),
                          (socket.TCP_KEEPINTVL, 17), (socket.TCP_USER_TIMEOUT, 12345)):
        same(connections_of(pooler, socket.IPPROTO_TCP, option), (value, value), str(option))


@covers("settings", "tcp_socket_buffer")
def test_socket_buffers_are_the_configured_ones(t):
    pooler = t.pooler(tcp_socket_buffer=50000)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # the kernel doubles it
        same(connections_of(pooler, socket.SOL_SOCKET, option), (100000, 100000))


@covers("settings", "listen_addr", "listen_port")
def test_every_configured_address_is_listened_on(t):
    pooler = t.pooler(listen_addr="127.0.0.1, ::1")
    for host in ("127.0.0.1", "::1"):
        with pooler.connect(host=host) as client:
            same(client.value("select 1"), "1")


def test_star_is_all_addresses(t):
    pooler = t.pooler(listen_addr="*")
    pooler.wait_log(rf"listening on 0\.0\.0\.0:{pooler.port}")
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        with pooler.connect(host=host) as client:
            same(client.value("select 1"), "1")


@ours  # 1.18 gives up on a name
def test_an_address_that_cannot_be_had_is_a_warning(t):
    pooler = t.pooler(listen_addr="192.0.2.1,127.0.0.1,no-such-host.invalid")
    pooler.wait_log("WARNING .*192.0.2.1")
    pooler.wait_log("WARNING .*no-such-host.invalid")
    pooler.usable()
    done = t.pooler(start=False, listen_addr="192.0.2.1").run_to_end()
    same(done.returncode, 1)


@covers("settings", "unix_socket_dir")
def test_unix_socket_is_where_it_is_wanted(t):
    folder = os.path.join(t.folder, "sockets")
    os.makedirs(folder)
    give_to_os_user(folder)
    pooler = t.pooler(unix_socket_dir=folder)
    with pooler.connect(host=folder) as client:
        same(client.value("select 1"), "1")


@ours  # 1.18 says it otherwise
def test_abstract_unix_socket(t):
    name = f"@pgsplice-test-{os.getpid()}"
    pooler = t.pooler(start=False, unix_socket_dir=name)
    pooler.launch()
    pooler.wait_log(f"listening on unix:{name}/.s.PGSQL.{pooler.port}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name[1:]}/.s.PGSQL.{pooler.port}")
    done = t.pooler(start=False, unix_socket_dir=name, listen_port=pooler.port,
                    listen_addr="").run_to_end()
    same(done.returncode, 1)
    matches("unix socket is in use", done.stderr)


@ours  # 1.18 is the user already when it gives the socket away
@covers("settings", "unix_socket_group")
def test_unix_socket_belongs_to_its_group(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    for group in ("nogroup", str(grp.getgrnam("nogroup").gr_gid)):
        pooler = t.pooler(as_root=True, user=OS_USER, unix_socket_group=group,
                          unix_socket_mode="0770")
        status = os.stat(os.path.join(pooler.folder, f".s.PGSQL.{pooler.port}"))
        same(status.st_gid, grp.getgrnam("nogroup").gr_gid)
        same(status.st_uid, pwd.getpwnam(OS_USER).pw_uid)
        same(stat.S_IMODE(status.st_mode), 0o770)
        pooler.stop()
    done = t.pooler(start=False, unix_socket_group="no-such-group").run_to_end()
    same(done.returncode, 1)
    matches("FATAL .*no-such-group", done.stderr)


def test_lock_file_of_a_server_ends_the_start(t):
    pooler = t.pooler(start=False)
    pooler.write_file(f".s.PGSQL.{pooler.port}.lock", "1\n")
    done = pooler.run_to_end()
    same(done.returncode, 1)
    matches("FATAL ", done.stderr)


@ours
def test_unix_socket_made_by_root_is_removed_by_the_user(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    folder = os.path.join(t.folder, "sticky")
    os.makedirs(folder)
    os.chmod(folder, 0o1777)
    pooler = t.pooler(as_root=True, user=OS_USER, unix_socket_dir=folder)
    assert os.listdir(folder)
    pooler.stop()
    same(os.listdir(folder), [])


@covers("settings", "so_reuseport")
def test_two_processes_share_a_port_when_both_say_so(t):
    settings = {"so_reuseport": 1, "unix_socket_dir": "", "max_client_conn": 500,
                "pool_mode": "transaction"}
    poolers = [t.pooler(**settings)]
    poolers.append(t.pooler(start=False, listen_port=poolers[0].port, **settings))
    poolers[1].write(whole=False)
    poolers[1].launch()
    poolers[1].wait_log("process up")
    clients = [poolers[0].connect() for _ in range(60)]
    for i, client in enumerate(clients):
        same(client.value(f"select {i}"), str(i))
    for pooler in poolers:
        assert pooler.log().count("login attempt") >= 5, "one of them got next to nothing"
    for client in clients:
        client.terminate()
    poolers[0].stop()
    for _ in range(20):
        poolers[1].usable()


@ours
def test_a_second_process_is_refused_whatever_the_number_of_workers(t):
    """Each worker has a listener of its own with SO_REUSEPORT: it must let no other process in."""
    for ours_, theirs in ((1, 1), (4, 1), (1, 4), (4, 4)):
        first = t.pooler(unix_socket_dir="", extra=f"[pgsplice]\nworker_threads = {ours_}\n")
        done = t.pooler(start=False, listen_port=first.port, unix_socket_dir="",
                        extra=f"[pgsplice]\nworker_threads = {theirs}\n").run_to_end()
        same(done.returncode, 1)
        matches(f"cannot listen on 127.0.0.1:{first.port}: Address already in use", done.stderr)
        for _ in range(5):
            first.usable()
        first.stop()
    # one that would share does not get in beside one that does not, either
    first = t.pooler(unix_socket_dir="", extra="[pgsplice]\nworker_threads = 1\n")
    done = t.pooler(start=False, listen_port=first.port, unix_socket_dir="",
                    so_reuseport=1).run_to_end()
    same(done.returncode, 1)


# ---- limits and rights --------------------------------------------------------------------------

def limit_of(process, name):
    with open(f"/proc/{process.pid}/limits") as file:
        return next(re.split(r"\s{2,}", line)[1:3] for line in file if line.startswith(name))


@ours
def test_descriptor_limit_is_raised_to_the_hard_one(t):
    pooler = t.pooler(wrapper=["prlimit", "--nofile=200:1000"])
    same(limit_of(pooler.process, "Max open files"), ["1000", "1000"])
    pooler.wait_log(r"LOG kernel file descriptor limit: 1000 \(hard: 1000\); max_client_conn: 100, "
                    r"max expected fd use: \d+$")
    assert "WARNING" not in pooler.log()


@ours
def test_a_descriptor_limit_that_is_too_low_is_said(t):
    for clients, pattern in ((700, r"WARNING the file descriptor limit \(600\) does not allow "
                                   r"max_client_conn = 700: raise it"),
                             (590, r"WARNING the file descriptor limit \(600\) is lower than what "
                                   r"may be needed \(\d+\): raise it")):
        pooler = t.pooler(wrapper=["prlimit", "--nofile=600:600"], max_client_conn=clients)
        pooler.wait_log(pattern)
        pooler.usable()


@ours
def test_core_dumps_stay_possible_and_their_limit_untouched(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    if b"__asan_init" in open(POOLER_BIN, "rb").read():
        raise Skip("the address sanitizer turns core dumps off")
    pooler = t.pooler(as_root=True, user=OS_USER, wrapper=["prlimit", "--core=12345:54321"])
    pooler.usable()
    same(limit_of(pooler.process, "Max core file size"), ["12345", "54321"])
    # files of a process that may not dump belong to root
    same(os.stat(f"/proc/{pooler.process.pid}/environ").st_uid, pwd.getpwnam(OS_USER).pw_uid)


@ours  # 1.18 forgets the supplementary groups
@covers("settings", "user")
def test_user_setting_makes_the_process_somebody_else(t):
    if os.geteuid() != 0:
        raise Skip("needs root")
    pooler = t.pooler(as_root=True, user=OS_USER)
    user = pwd.getpwnam(OS_USER)
    same(uid_of(pooler.process.pid), [str(user.pw_uid)] * 4)
    with open(f"/proc/{pooler.process.pid}/status") as file:
        status = file.read()
    same(re.search(r"Gid:\s+(.*)", status).group(1).split(), [str(user.pw_gid)] * 4)
    groups = {int(word) for word in re.search(r"Groups:(.*)", status).group(1).split()}
    same(groups, set(os.getgrouplist(OS_USER, user.pw_gid)))


@covers("settings", "logfile")
def test_log_is_appended_to_the_file(t):
    pooler = t.pooler(start=False)
    pooler.write_file(pooler.log_file, "what was there\n")
    pooler.start()
    pooler.usable()
    pooler.wait_log("login attempt")
    assert pooler.log().startswith("what was there\n")


def test_a_log_that_cannot_be_opened_ends_the_start(t):
    done = t.pooler(start=False, logfile="/nonexistent/folder/log").run_to_end()
    same(done.returncode, 1)
    matches("/nonexistent/folder/log", done.stderr)


@ours
def test_pidfile_of_somebody_else_is_not_removed(t):
    path = os.path.join(t.folder, "pooler.pid")
    pooler = t.pooler(pidfile=path)
    eventually(lambda: pid_in(path) == pooler.process.pid, "the pidfile is written")
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    pooler.stop()
    same(pid_in(path), os.getpid())


def test_pidfile_that_cannot_be_written_ends_the_start(t):
    done = t.pooler(start=False, pidfile="/nonexistent/folder/pid").run_to_end()
    same(done.returncode, 1)
    matches("FATAL could not open pidfile '/nonexistent/folder/pid'", done.stderr)


@ours
def test_signals_that_come_too_early_wait(t):
    fifo = os.path.join(t.folder, "slow.ini")
    os.mkfifo(fifo)
    give_to_os_user(fifo)
    pooler = t.pooler(start=False)
    pooler.extra = f"%include {fifo}\n"
    pooler.write()
    pooler.launch()
    with open(fifo, "w") as file:  # opens when the pooler reads it, and so has begun
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            pooler.signal(number)
        pooler.extra = ""
        pooler.write()
        file.write("max_client_conn = 50\n")
    for word in ("got SIGHUP, re-reading config", "got SIGUSR1, pausing", "got SIGUSR2, continuing"):
        pooler.wait_log(word)
    pooler.usable()
