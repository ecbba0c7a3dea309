"""What a test stands on: a scratch PostgreSQL, a pooler with its own configuration, and waiting.

A test is a function `test_...(t)`; `t` is a Test. Each test runs in a process of its own
(runner.py), so whatever it leaves behind ends with that process group. Nothing here sleeps for a
while and hopes: what has to happen is asked for until it has happened or the time is over.

The pooler is build/pgsplice, or what PGSPLICE_BIN names. Debian's PgBouncer works too, and that is
how the tests of shared behaviour were checked; tests of what only we do are marked with @ours.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pgwire

POSTGRES_BIN = os.environ.get("POSTGRES_BIN", "/usr/lib/postgresql/15/bin")
TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
POOLER_BIN = os.path.abspath(os.environ.get("PGSPLICE_BIN", os.path.join(TOP, "build", "pgsplice")))
# Put into the section [pgsplice] of each configuration, for a run with other defaults.
OWN_SETTINGS = os.environ.get("PGSPLICE_SETTINGS")
OS_USER = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

# Who can log in at the scratch PostgreSQL, and how. PASSWORD is everybody's.
PASSWORD = "Pw-of-all-1"
LOGINS = {"app": "trust", "other": "trust", "u_plain": "password", "u_md5": "md5",
          "u_scram": "scram-sha-256"}


class Skip(Exception):
    pass


def ours(function):
    """A test of something that PgBouncer 1.18 lacks or does otherwise."""
    function.ours = True
    return function


# All TCP connections of clients and servers are in TLS (runner.py --tls).
all_in_tls = False


def plain(function):
    """A test that is about connections without TLS, or about bytes where TLS would be."""
    function.plain = True
    return function


def slow(seconds):
    """A test that may take longer than the usual limit."""
    def mark(function):
        function.seconds_max = seconds
        return function
    return mark


def covers(table, *keys):
    """A test that fails when any of these keys is ignored. `table` names the file of tests/compat
    that lists them (or "pgsplice"). `make check` runs the test as it is; with the key left out of
    every file, where it must fail; and with the key added by a RELOAD, where it must pass if a
    reload is enough for the key, else fail (test_settings.py, Variant)."""
    def mark(function):
        function.covers = getattr(function, "covers", []) + [(table, key) for key in keys]
        return function
    return mark


def reload_shows_nothing(function):
    """What the test looks at is over when a RELOAD can come, though the key is taken by one."""
    function.reload_shows_nothing = True
    return function


class Variant:
    """A test, run with a key left out of the configuration or added by a RELOAD only."""

    IGNORED, RELOADED = "ignored", "reloaded"

    def __init__(self, function, table, key, kind, must_fail):
        self.function, self.table, self.key, self.kind = function, table, key, kind
        self.must_fail = must_fail
        self.seconds_max = getattr(function, "seconds_max", 15.0)
        self.ours = getattr(function, "ours", False)

    def __call__(self, test):
        test.variant = self
        if not self.must_fail:
            self.function(test)
            return
        pgwire.patience = 0.3  # it will wait for what does not come
        try:
            self.function(test)
        except Skip:
            raise
        except (AssertionError, AttributeError, OSError, LookupError, TypeError, ValueError, pgwire.PgError,
                pgwire.Closed, pgwire.TimedOut, subprocess.SubprocessError) as problem:
            print(f"fails as it must: {brief(problem)}")
            return
        raise AssertionError(f"passes although {self.key} of {self.table} was not there")

    def strips(self, table):
        return self.key if table == self.table else None


def is_sanitized():
    """Memory is not what it would be."""
    with open(POOLER_BIN, "rb") as file:
        binary = file.read()
    return b"__asan_init" in binary or b"__tsan_init" in binary


def without_option(entry, key):
    """An entry of [databases] or the like without `key=value`."""
    return re.sub(rf"(?<!\S){key}\s*=\s*('(?:[^']|'')*'|\S+)\s*", "", entry)


def brief(value):
    shown = repr(value)
    return shown if len(shown) <= 600 else shown[:300] + " ... " + shown[-300:]


def same(got, wanted, about=""):
    assert got == wanted, f"{about + ': ' if about else ''}got {brief(got)}, wanted {brief(wanted)}"


def matches(pattern, got):
    assert re.search(pattern, got), f"{got!r} does not match {pattern!r}"


@contextlib.contextmanager
def refused(pattern=None, sqlstate=None, severity=None):
    """The block must end in an ErrorResponse like this one."""
    caught = []
    try:
        yield caught
    except pgwire.PgError as error:
        caught.append(error)
    assert caught, f"no error, wanted {pattern or sqlstate}"
    if pattern is not None:
        assert re.fullmatch(pattern, caught[0].text), f"{caught[0]} does not match {pattern!r}"
    if sqlstate is not None:
        same(caught[0].sqlstate, sqlstate, str(caught[0]))
    if severity is not None:
        same(caught[0].severity, severity, str(caught[0]))


def eventually(condition, what, seconds=5.0):
    """Asks until the answer is true, and gives it back."""
    end = time.monotonic() + pgwire.patient(seconds)
    pause = 0.002
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def within(started, least, most, what):
    """Checks a duration; `most` is generous because the machine may be busy."""
    took = time.monotonic() - started
    assert least <= took <= most, f"{what} took {took:.2f} s, wanted {least} to {most}"


def free_port(slot):
    """A port that nobody has, from a range of this slot's own (below the ephemeral ones)."""
    for _ in range(200):
        port = 20000 + slot * 1000 + struct.unpack("!H", os.urandom(2))[0] % 1000
        with socket.socket(socket.AF_INET6) as six, socket.socket() as four:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                four.bind(("127.0.0.1", port))
                six.bind(("::1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


def as_os_user():
    return {"user": OS_USER, "group": OS_USER, "extra_groups": []} if os.geteuid() == 0 else {}


def give_to_os_user(path):
    if os.geteuid() == 0:
        shutil.chown(path, OS_USER, OS_USER)


def process_runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def certificates_of_run(folder):
    import certificates  # which stands on this file
    return certificates.of_run(folder)


# ---- PostgreSQL ---------------------------------------------------------------------------------

class Postgres:
    """One scratch server. Made once from nothing, then copied for each slot of the runner."""

    HBA = "".join(f"{where} all {user}{address} {method}\n"
                  for user, method in LOGINS.items() if method != "trust"
                  for where, address in (("local", ""), ("host", " all"))) + (
        "local all nobody_may reject\nhost all nobody_may all reject\n"
        "local all all trust\nhost all all all trust\n"
        "local replication all trust\nhost replication all all trust\n")

    CONF = """
listen_addresses = '127.0.0.1,::1'
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_connections = 120
shared_buffers = 32MB
max_wal_size = 256MB
wal_level = logical
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_connections = on
log_disconnections = on
logging_collector = off
include_if_exists = 'of_one_test.conf'
"""

    def __init__(self, folder, slot):
        self.folder = folder
        self.data = os.path.join(folder, "data")
        self.sockets = folder
        self.log = os.path.join(folder, "postgres.log")
        self.port = free_port(slot)

    @classmethod
    def create(cls, folder):
        """initdb and the roles; leaves it stopped."""
        os.makedirs(folder, mode=0o755)
        give_to_os_user(folder)
        new = cls(folder, 0)
        subprocess.run([f"{POSTGRES_BIN}/initdb", "-D", new.data, "-U", "postgres", "-A", "trust",
                        "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **as_os_user())
        for name, content in (("pg_hba.conf", cls.HBA), ("postgresql.conf", cls.CONF)):
            with open(os.path.join(new.data, name), "w") as file:
                file.write(content)
        new.start()
        with new.connect(user="postgres", database="postgres") as admin:
            for user, method in LOGINS.items():
                kind = "md5" if method == "md5" else "scram-sha-256"
                admin.query(f"set password_encryption = '{kind}'")
                admin.query(f"create role {user} login superuser password '{PASSWORD}'")
            admin.query("create role nobody_may login")
            admin.query("create role limited login connection limit 0")
            admin.query("create database app owner app")
            admin.query("create database app2 owner app")
        new.stop()
        return new

    def copy(self, folder, slot):
        shutil.copytree(self.folder, folder, symlinks=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{OS_USER}:", folder], check=True)
        return Postgres(folder, slot)

    def pid(self):
        try:
            with open(os.path.join(self.data, "postmaster.pid")) as file:
                return int(file.readline())
        except (FileNotFoundError, ValueError):
            return None

    def runs(self):
        pid = self.pid()
        return pid is not None and process_runs(pid)

    def start(self):
        with open(self.log, "ab") as log:
            # A session of its own: it outlives the test that restarted it.
            subprocess.Popen([f"{POSTGRES_BIN}/postgres", "-D", self.data, "-p", str(self.port),
                              "-k", self.sockets], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                             cwd="/", start_new_session=True, **as_os_user())
        self.wait_ready()

    def wait_ready(self):
        def ready():
            try:
                with self.connect(user="postgres", database="postgres"):
                    return True
            except (OSError, pgwire.PgError, pgwire.Closed):
                return False
        eventually(ready, "PostgreSQL accepts connections", 30)

    def stop(self, how=signal.SIGINT):
        pid = self.pid()
        if pid is not None and process_runs(pid):
            os.kill(pid, how)
            eventually(lambda: not process_runs(pid), "PostgreSQL has ended", 20)

    def connect(self, user="app", database="app", password=PASSWORD, **rest):
        return pgwire.connect(self.port, user, database, password, **rest)

    def value(self, sql, database="app"):
        with self.connect(database=database) as client:
            return client.value(sql)

    def backends(self, user="app", database="app"):
        """The pids of this user's backends, without the one that looks."""
        with self.admin() as admin:
            rows = admin.query("select pid from pg_stat_activity where "
                               f"usename = '{user}' and datname = '{database}'").rows
        return sorted(int(row[0]) for row in rows)

    def admin(self):
        """Gets in whatever of_one_test says."""
        return self.connect(user="postgres", database="postgres", host=self.sockets)

    def of_one_test(self, hba=None, **settings):
        """Other settings, which a reload is enough for, and other lines of pg_hba.conf, until this test is over."""
        with open(os.path.join(self.data, "of_one_test.conf"), "w") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in settings.items())
        with open(os.path.join(self.data, "pg_hba.conf"), "w") as file:
            file.write("local all postgres trust\n" + hba if hba is not None else self.HBA)
        self.reload()

    def reload(self):
        with self.admin() as admin:
            before = admin.value("select pg_conf_load_time()")
            admin.query("select pg_reload_conf()")

        def has_read_it():
            with self.admin() as admin:
                return admin.value("select pg_conf_load_time()") != before
        eventually(has_read_it, "PostgreSQL has read its files")

    def clear(self):
        """Ends whatever an earlier test left behind."""
        def lets_in():
            try:
                self.admin().vanish()
                return True
            except (OSError, pgwire.PgError, pgwire.Closed):
                return False
        eventually(lets_in, "PostgreSQL has recovered", 30)
        left = os.path.join(self.data, "of_one_test.conf")
        if os.path.exists(left):
            os.unlink(left)
            with open(os.path.join(self.data, "pg_hba.conf"), "w") as file:
                file.write(self.HBA)
            self.reload()
        if all_in_tls:
            self.of_one_test(**certificates_of_run(os.path.dirname(self.folder)).of_postgres())
        with self.admin() as admin:
            admin.query("select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                        "where backend_type = 'client backend' and pid <> pg_backend_pid()")

    def address(self, database="app", **more):
        """The value of a [databases] entry."""
        words = {"host": "127.0.0.1", "port": self.port, "dbname": database, **more}
        return " ".join(f"{key}={value}" for key, value in words.items() if value is not None)


# ---- a PostgreSQL that misbehaves ---------------------------------------------------------------

class FakeServer:
    """Listens and lets `script(connection)` speak for PostgreSQL, in one thread per connection."""

    def __init__(self, script, port, host="127.0.0.1"):
        self.script = script
        self.port = port
        self.accepted = 0
        self.problems = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                taken, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken):
        with taken:
            try:
                self.script(FakeConnection(taken))
            except (OSError, pgwire.Closed):
                pass
            except Exception as problem:  # shown by the test, which sees only silence otherwise
                self.problems.append(problem)

    def close(self):
        self.listener.close()


class FakeConnection:
    """The server's end of one connection."""

    def __init__(self, taken):
        self.socket = taken
        self.params = {}

    def send(self, data):
        self.socket.sendall(data)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise pgwire.Closed()
            data += more
        return data

    def receive(self):
        type_ = chr(self._exactly(1)[0])
        size = struct.unpack("!I", self._exactly(4))[0]
        return pgwire.Message(type_, self._exactly(size - 4))

    def startup(self, tls=None):
        """Gives the code of the first packet that asks for no encryption. `tls` makes another socket of ours when
        it is asked for; without it, and in it, the answer is N."""
        while True:
            size, code = struct.unpack("!II", self._exactly(8))
            body = self._exactly(size - 8)
            if code == pgwire.SSL_REQUEST and tls:
                self.send(b"S")
                self.socket, tls = tls(self.socket), None
                continue
            if code in (pgwire.SSL_REQUEST, pgwire.GSSENC_REQUEST):
                self.send(b"N")
                continue
            if code != pgwire.CANCEL_REQUEST:
                words = body.split(b"\0")
                pairs = zip(words[0::2], words[1::2])
                self.params = {key.decode(): value.decode() for key, value in pairs if key}
            return code

    WELCOME = (pgwire.auth(0) + pgwire.parameter_status("server_version", "15.0") +
               pgwire.parameter_status("client_encoding", "UTF8") +
               pgwire.parameter_status("DateStyle", "ISO, MDY") +
               pgwire.parameter_status("TimeZone", "UTC") +
               pgwire.parameter_status("standard_conforming_strings", "on") +
               pgwire.parameter_status("IntervalStyle", "postgres") +
               pgwire.parameter_status("application_name", "") +
               pgwire.backend_key(4711) + pgwire.ready())

    def welcome(self, tls=None):
        self.startup(tls)
        self.send(self.WELCOME)

    def serve_one_value(self, value="1"):
        """Answers every Query with one row until the other side leaves."""
        row = struct.pack("!HI", 1, len(value)) + value.encode()
        column = struct.pack("!H", 1) + b"v\0" + struct.pack("!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0)
        while True:
            found = self.receive()
            if found.type == "X":
                return
            if found.type == "Q" and found.body[:-1].strip() == b"":
                self.send(pgwire.message("I") + pgwire.ready())
            elif found.type == "Q":
                self.send(pgwire.message("T", column) + pgwire.message("D", row) +
                          pgwire.message("C", b"SELECT 1\0") + pgwire.ready())


# ---- the pooler ---------------------------------------------------------------------------------

class Console:
    """A session with the database pgbouncer."""

    def __init__(self, client):
        self.client = client

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.vanish()

    def table(self, command):
        result = self.client.query(command)
        names = [name for name, _ in result.columns]
        return [dict(zip(names, row)) for row in result.rows]

    def do(self, command, timeout=None):
        """Runs a command and gives its tag."""
        result = self.client.query(command, timeout)
        same(len(result.tags), 1, f"{command}: {result.messages}")
        return result.tags[0]

    def pool(self, database="app", user="app"):
        """The row of SHOW POOLS, numbers as numbers; empty when the pool is not there yet."""
        for row in self.table("show pools"):
            if (row["database"], row["user"]) == (database, user):
                return {key: int(value) if value and value.isdigit() else value
                        for key, value in row.items()}
        return {}

    # A pool on several cores may ask the others for an idle server before it opens one (pool/lending.h).
    SETTLED_SECONDS = 0.1

    def wait_pool(self, database="app", user="app", seconds=5.0, settled=False, **wanted):
        """Waits until the pool's counters are these. `settled`: and stay, with no server on its way: what waits
        then is not about to be served. Without it a pool that is still opening servers may look the same."""
        last, since = {}, None
        if settled:
            wanted = {"sv_login": 0, "sv_idle": 0, **wanted}

        def reached():
            nonlocal since
            last.clear()
            last.update(self.pool(database, user))
            if not last or any(last.get(key) != value for key, value in wanted.items()):
                since = None
                return False
            since = since or time.monotonic()
            return not settled or time.monotonic() - since >= self.SETTLED_SECONDS
        try:
            eventually(reached, f"pool {wanted}", seconds)
        except AssertionError:
            seen = {key: last.get(key) for key in wanted}
            raise AssertionError(f"pool {database}/{user}: got {seen}, wanted {wanted}") from None
        return last

    def config(self, key):
        return next(row["value"] for row in self.table("show config") if row["key"] == key)


class Pooler:
    """The program under test with a configuration of its own. Settings: None leaves one out."""

    def __init__(self, test, databases=None, users=None, userlist=None, args=(), start=True,
                 name="pooler", extra="", as_root=False, peers=None, wrapper=(),
                 env=None, pass_fds=(), **settings):
        self.test = test
        self.folder = os.path.join(test.folder, name)
        os.makedirs(self.folder, mode=0o755)
        give_to_os_user(self.folder)
        self.port = settings.get("listen_port") or free_port(test.slot)
        self.log_file = os.path.join(self.folder, "pooler.log")
        self.ini = os.path.join(self.folder, "pooler.ini")
        self.userlist_file = os.path.join(self.folder, "userlist.txt")
        self.stderr_file = os.path.join(self.folder, "stderr")
        self.args = list(args)
        self.wrapper = list(wrapper)  # a command that runs the one that follows
        self.more = {"env": {**os.environ, **(env or {})}, "pass_fds": pass_fds}
        self.who = {} if as_root else as_os_user()
        self.process = None
        self.console_host = "127.0.0.1"  # the unix socket's folder where TCP is not for everybody
        postgres = test.postgres
        self.databases = {"app": postgres.address("app"), "app2": postgres.address("app2")} \
            if databases is None else dict(databases)
        self.users = dict(users or {})
        self.userlist = {name: "" for name in ("app", "other", "admin", "stats")} \
            if userlist is None else dict(userlist)
        self.settings = {"listen_addr": "127.0.0.1", "listen_port": self.port,
                         "unix_socket_dir": self.folder, "auth_type": "trust",
                         "auth_file": self.userlist_file, "admin_users": "admin",
                         "stats_users": "stats", "logfile": self.log_file}
        if all_in_tls:
            self.settings.update(certificates_of_run(os.path.dirname(test.folder)).of_clients("server", sslmode="allow"))
        self.settings.update(settings)
        self.peers = dict(peers or {})
        self.extra = extra
        self.write()
        if start:
            self.start()

    # configuration

    def write(self, whole=True):
        """The files; with whole=False without the key that comes by RELOAD."""
        variant = self.test.variant
        hidden = variant is not None and (variant.kind == Variant.IGNORED or not whole)
        strips = variant.strips if hidden else lambda _: None

        def entries(section, table, named):
            key = strips(table)
            return [f"[{section}]"] + [
                f"{name} = {without_option(str(value), key) if key else value}"
                for name, value in named.items()] if named else []
        lines = entries("databases", "database_options", self.databases) or ["[databases]"]
        lines += entries("users", "user_options", self.users)
        lines += entries("peers", "peer_options", self.peers)
        lines += ["[pgbouncer]"]
        lines += [f"{key} = {value}" for key, value in self.settings.items()
                  if value is not None and key != strips("settings")]
        extra = self.extra
        for table in ("settings", "pgsplice"):
            if strips(table):
                extra = re.sub(rf"(?m)^{strips(table)}\s*=.*\n?", "", extra)
        if OWN_SETTINGS and "server_sharing" not in extra:
            heading = "[pgsplice]\n"
            extra = extra.replace(heading, heading + OWN_SETTINGS + "\n") if heading in extra else \
                f"{extra}\n{heading}{OWN_SETTINGS}\n"
        self.write_file(self.ini, "\n".join(lines) + "\n" + extra)
        quoted = lambda word: '"' + word.replace('"', '""') + '"'
        self.write_file(self.userlist_file, "".join(
            f"{quoted(user)} {quoted(secret)}\n" for user, secret in self.userlist.items()))

    def write_file(self, path, content):
        path = os.path.join(self.folder, path)
        with open(path, "w") as file:
            file.write(content)
        give_to_os_user(path)
        return path

    def change(self, reload=True, **settings):
        """Other settings, written and reloaded."""
        self.settings.update(settings)
        self.write()
        if reload:
            self.reload()

    def reload(self):
        with self.console() as console:
            same(console.do("reload"), "RELOAD")

    # the process

    def command(self):
        return [*self.wrapper, POOLER_BIN, *self.args, self.ini]

    def launch(self):
        """Starts it and does not wait."""
        with open(self.stderr_file, "ab") as stderr:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=stderr,
                                            stderr=stderr, cwd=self.folder, **self.more,
                                            **self.who)
        return self.process

    def run_to_end(self, arguments=None, seconds=10):
        """Runs the binary until it ends by itself; a CompletedProcess."""
        command = self.command() if arguments is None else [POOLER_BIN, *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=seconds, cwd=self.folder, **self.more, **self.who)

    def start(self):
        """Waits until every listener is there."""
        variant = self.test.variant
        late = variant is not None and variant.kind == Variant.RELOADED
        if late:
            self.write(whole=False)
        self._start()
        if late:
            self.write()
            self.signal(signal.SIGHUP)
            eventually(lambda: re.search(r"(?m)got SIGHUP", self.log() + self.stderr()),
                       "the reload was seen")
            try:
                with self.console() as console:  # workers answer it after they took the new one
                    console.do("show pools")
            except (pgwire.PgError, pgwire.Closed, OSError):
                pass  # no console in this test; it has to wait for the effect itself

    def _start(self):
        said = {path: os.path.getsize(path) if os.path.exists(path) else 0 for path in (self.stderr_file, self.log_file)}
        self.launch()
        sockets = self.settings.get("unix_socket_dir")
        unix = os.path.join(sockets, f".s.PGSQL.{self.port}") if sockets else None

        def listens():
            if self.process.poll() is not None:
                # RLIMIT_MEMLOCK is the OS user's, whose poolers other tests run as well: this one comes when those have gone.
                assert "no memory for an io_uring ring" in self.stderr()[said[self.stderr_file]:], \
                    f"{POOLER_BIN} ended with status {self.process.returncode}: {self.stderr()[-1500:]}"
                for path, size in said.items():
                    if os.path.exists(path):
                        os.truncate(path, size)
                self.launch()
                return False
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return unix is None or os.path.exists(unix)
            except OSError:
                return False
        eventually(listens, "the pooler listens", 10)

    def stop(self):
        """Ends it, with clients or without: the second SIGINT does not wait for them."""
        def ended():
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
            return self.process.poll() is not None
        if self.process:
            eventually(ended, "the pooler has ended")

    def signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, seconds=5.0):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pooler did not end within {seconds} s") from None

    def runs(self):
        return self.process.poll() is None

    def memory(self, what="VmRSS"):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/status") as file:
            for line in file:
                if line.startswith(what + ":"):
                    return int(line.split()[1]) * 1024
        raise AssertionError(what)

    # looking at it

    def _read(self, path):
        try:
            with open(path, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def log(self):
        return self._read(self.log_file)

    def stderr(self):
        return self._read(self.stderr_file)

    def wait_log(self, pattern, seconds=5.0):
        return eventually(lambda: re.search(pattern, self.log(), re.M), f"log has {pattern!r}",
                          seconds)

    # talking to it

    def connect(self, user="app", database="app", password=None, **rest):
        return pgwire.connect(self.port, user, database, password, **rest)

    def open(self, host="127.0.0.1", **rest):
        """A connection that has not said anything."""
        return pgwire.Client(self.port, host, **rest)

    def console(self, user="admin", password=None, **rest):
        rest.setdefault("host", self.console_host)
        return Console(self.connect(user, "pgbouncer", password, **rest))

    def cancel(self, key, **rest):
        return pgwire.cancel(self.port, key, **rest)

    def usable(self):
        """A plain query by a new client works: what came before has harmed nobody."""
        with self.connect() as client:
            same(client.value("select 1"), "1")


# ---- one test -----------------------------------------------------------------------------------

class Test:
    def __init__(self, postgres, slot, folder):
        self.postgres = postgres
        self.slot = slot
        self.folder = folder
        self.poolers = []
        self.variant = None
        self._names = 0

    def pooler(self, **settings):
        self._names += 1
        settings.setdefault("name", f"p{self._names}")
        new = Pooler.__new__(Pooler)
        self.poolers.append(new)  # before it starts: a start that fails is explained by its log
        new.__init__(self, **settings)
        return new

    def fake_server(self, script, **more):
        return FakeServer(script, free_port(self.slot), **more)

    def fake_entry(self, fake, **more):
        words = {"host": "127.0.0.1", "port": fake.port, "dbname": "app", **more}
        return " ".join(f"{key}={value}" for key, value in words.items())

    def finish(self):
        """A pooler that the test started must still be there, or have ended as it was told."""
        for pooler in self.poolers:
            if pooler.process is not None and pooler.process.poll() is not None:
                status = pooler.process.returncode
                assert status >= 0, f"the pooler died of signal {-status}"

    def run_program(self, arguments, input=None, env=None, seconds=20, check=True):
        """A command-line client; its output and errors as text."""
        done = subprocess.run(arguments, input=input, capture_output=True, text=True,
                              timeout=seconds, env={**os.environ, **(env or {})}, cwd=self.folder)
        if check:
            assert done.returncode == 0, \
                f"{arguments[0]} gave {done.returncode}: {done.stdout[-800:]}{done.stderr[-1200:]}"
        return done
