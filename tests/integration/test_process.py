"""The process: its command line, its signals, its files, its log."""

import os
import pwd
import re
import signal
import socket
import stat

import pgwire
from harness import covers, OS_USER, Skip, eventually, matches, ours, process_runs, refused, same
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
    for word in ("login attempt", "new connection to server", "closing because", "pooler error"):
        assert word not in pooler.log(), word


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
