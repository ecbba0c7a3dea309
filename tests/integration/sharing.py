"""What the tests of shared servers stand on: poolers that must share, a load of clients whose answers name them,
and a PostgreSQL that misbehaves while several clients' questions are with it.

Each question carries its client's name and a number, and PostgreSQL computes the answer from it: an echo cannot
pass for an answer, and a row of somebody else's is seen. SERVER_SHARING=off in the environment runs the same tests
without sharing: all of them must pass then, too, but for what they say about figures."""

import os
import random
import select
import struct
import sys
import threading
import time

import pgwire
from harness import brief, eventually, same
from pgwire import bind, describe, execute, message, parse, query, ready, sync

MODULUS = 1000003
PREPARED = f"select $1::text, ($2::bigint * 7919 % {MODULUS})::text"
SETTING = os.environ.get("SERVER_SHARING")
shares = SETTING != "off"

# A thread that plays a server must not wait 5 ms for one that reads answers.
sys.setswitchinterval(0.0005)


def own(sharing="auto", workers=1, shards=None, more=""):
    """The section [pgsplice]."""
    return (f"[pgsplice]\nworker_threads = {workers}\nserver_sharing = {SETTING or sharing}\n" +
            (f"pool_shards = {shards}\n" if shards else "") + more)


def sharing_pooler(t, sharing=1, size=1, workers=1, shards=None, more="", **settings):
    """`size` servers, of which `sharing` are kept busy before clients share."""
    settings.setdefault("pool_mode", "transaction")
    settings.setdefault("max_client_conn", 500)
    return t.pooler(default_pool_size=size, extra=own(sharing, workers, shards, more), **settings)


class Figures:
    """SHOW SHARING, added up over the rows of a database."""

    def __init__(self, console, database="app"):
        self.console, self.database = console, database
        self.before = self.now()

    def now(self):
        if not shares:
            return {}
        total = {}
        for row in self.console.table("show sharing"):
            if row["database"] != self.database:
                continue
            for key, value in row.items():
                if key not in ("database", "user", "worker") and value and value.replace(".", "", 1).isdigit():
                    total[key] = total.get(key, 0) + float(value)
        return total

    def since(self, key):
        """How much more than at the beginning."""
        return self.now().get(key, 0) - self.before.get(key, 0)

    def has(self, *keys):
        """Each of these has happened since."""
        if shares:
            for key in keys:
                assert self.since(key) > 0, f"{key} has not happened: {self.now()}"

    def rest(self):
        """Nothing is queued, nobody shares."""
        if shares:
            eventually(lambda: all(self.now().get(key, 0) == 0 for key in ("servers", "queued")), "nothing is queued")


# ---- questions ----------------------------------------------------------------------------------

def row_of(name, number):
    return (name, str(number * 7919 % MODULUS))


def text_of(name, number):
    return f"select '{name}', ({number}::bigint * 7919 % {MODULUS})::text"


class Question:
    """Bytes to send, and what each ReadyForQuery must have in front of it: rows, and the error's SQLSTATE."""

    def __init__(self, data, *answers):
        self.data, self.answers = data, answers


def q_simple(name, number, _):
    return Question(query(text_of(name, number)), ([row_of(name, number)], None))


def q_commented(name, number, _):
    return Question(query(f" /* {number} */ {text_of(name, number)} -- the end\n ; "), ([row_of(name, number)], None))


def q_unnamed(name, number, _):
    return Question(parse("", text_of(name, number)) + bind() + describe("P") + execute() + sync(),
                    ([row_of(name, number)], None))


def q_values(name, number, _):
    return Question(parse("", PREPARED) + bind("", "", [name, number]) + describe("P") + execute() + sync(),
                    ([row_of(name, number)], None))


def q_prepared(name, number, _):
    return Question(bind("", "own", [name, number]) + execute() + sync(), ([row_of(name, number)], None))


def q_binary(name, number, _):
    return Question(bind("", "binary", [name.encode(), struct.pack("!q", number)], binary=True) + describe("P") +
                    execute() + sync(), ([row_of(name, number)], None))


def q_rows(name, number, draw):
    count = draw.choice((0, 1, 2, 40))
    return Question(query(f"select '{name}', (g + {number})::text from generate_series(1, {count}) g"),
                    ([(name, str(g + number)) for g in range(1, count + 1)], None))


def q_large(name, number, draw):
    size = draw.choice((3000, 17000, 70000))
    return Question(query(f"{text_of(name, number)}, repeat('{name[-1]}', {size})"),
                    ([row_of(name, number) + (name[-1] * size,)], None))


def q_error(name, number, _):
    return Question(query(f"select '{name}', 1 / ({number} - {number})"), ([], "22012"))


def q_late_error(name, number, _):
    return Question(query(f"select '{name}', (1 / ({number + 3} - g))::text from generate_series({number + 1}, {number + 5}) g"),
                    ([(name, "0"), (name, "1")], "22012"))


def q_no_table(name, number, _):
    return Question(parse("", f"select '{name}' from no_table_{number % 10}") + bind() + execute() + sync(), ([], "42P01"))


def q_longer(name, number, draw):
    count = draw.choice((2000, 3000))
    return Question(query(f"select '{name}', (count(*) + {number})::text from generate_series(1, {count})"),
                    ([(name, str(count + number))], None))


# These do not share.

def q_block(name, number, _):
    return Question(query(f"begin; {text_of(name, number)}; commit"), ([row_of(name, number)], None))


def q_transaction(name, number, _):
    return Question(query("begin") + query(text_of(name, number)) + query("rollback"),
                    ([], None), ([row_of(name, number)], None), ([], None))


def q_pipeline(name, number, _):
    return Question(query(text_of(name, number)) + parse("", text_of(name, number + 1)) + bind() + execute() + sync() +
                    query(text_of(name, number + 2)), *(([row_of(name, number + i)], None) for i in range(3)))


def q_write(name, number, _):
    return Question(query(f"insert into sharing_log values ('{name}', {number}) returning client, n::text"),
                    ([(name, str(number))], None))


def q_sleep(name, number, draw):
    return Question(query(f"select '{name}', '{number}' from pg_sleep({draw.random() * 0.01})"), ([(name, str(number))], None))


def q_limit(name, number, _):
    return Question(parse("", f"select '{name}', (g + {number})::text from generate_series(1, 5) g") + bind() +
                    execute(rows=2) + execute() + sync(),
                    ([(name, str(g + number)) for g in range(1, 6)], None))


READS = {q_simple: 6, q_commented: 1, q_unnamed: 3, q_values: 3, q_prepared: 6, q_binary: 2}
MANY_READS = {**READS, q_rows: 2, q_large: 0.3, q_error: 1, q_late_error: 0.5, q_no_table: 0.5, q_longer: 1}
ALL_KINDS = {**MANY_READS, q_block: 0.5, q_transaction: 0.5, q_pipeline: 1, q_write: 0.5, q_sleep: 0.3, q_limit: 0.3}


def tables(t, database="app"):
    """What q_write writes to, and views that the tests read."""
    with t.postgres.connect(database=database) as c:
        c.query("drop table if exists sharing_log; create unlogged table sharing_log (client text, n bigint); "
                "create or replace view me as select pg_backend_pid() as pid; "
                "create or replace view nap as select pg_sleep(0.03)::text as slept")


def prepare(connection):
    """The statements of q_prepared and q_binary."""
    result = connection.batch(parse("own", PREPARED) + parse("binary", PREPARED, (25, 20)))
    same(result.types, "11Z")


# How a client learns that his server was lost, where it is not a secret.
LOST = ("57P01", "57P02", "08P01", "57014", "25P02")


class Lost(Exception):
    pass


class Asker:
    """One client of a load. `is_hardy`: he bears a loss, but no wrong answer."""

    is_hardy = False

    def __init__(self, connection, name, seed, prepares=True):
        self.connection, self.name = connection, name
        self.draw = random.Random(seed)
        self.number = seed * 100000
        self.expected, self.messages = [], []
        self.asked = 0.0
        self.answers = 0
        if prepares:
            prepare(connection)

    def ask(self, kinds, pieces=0.0):
        self.number += 10
        kind = self.draw.choices(*kinds)[0]
        question = kind(self.name, self.number, self.draw)
        self.expected += question.answers
        self.kind = kind
        self.asked = time.monotonic()
        if pieces and self.draw.random() < pieces and len(question.data) < 2000:
            self.connection.send_split(question.data, self.draw.choice((1, 7, 50)))
        else:
            self.connection.send(question.data)

    def pump(self):
        """Reads what is there. True when all is answered."""
        c = self.connection
        c._fill(time.monotonic() + 5)
        while len(c.buffer) >= 5 and len(c.buffer) > struct.unpack_from("!I", c.buffer, 1)[0]:
            self.messages.append(c.receive())
            if self.messages[-1].type == "Z":
                result = pgwire.Result(self.messages)
                self.messages = []
                self.check(result)
                self.answers += 1
        return not self.expected

    def check(self, result):
        rows, sqlstate = self.expected.pop(0)
        got = [e.sqlstate for e in result.errors]
        if self.is_hardy and got and got[0] in LOST and got[0] != sqlstate:
            raise Lost()
        assert got == ([sqlstate] if sqlstate else []), \
            f"{self.name} {self.kind.__name__}: {result.errors}, rows {brief(result.rows)}"
        assert result.rows == rows, f"{self.name} {self.kind.__name__}: got {brief(result.rows)}, wanted {brief(rows)}"


class Load:
    """Clients at work in a thread of their own, until told to stop. A wrong answer, an error that was not
    asked for, or a lost connection is a problem, and a problem fails the test."""

    def __init__(self, pooler, clients=12, kinds=READS, seed=1, leaves=0.0, pieces=0.0, names="c", silence=10.0, connects=None,
                 is_hardy=False, **connect):
        self.pooler, self.kinds, self.leaves, self.pieces = pooler, (list(kinds), list(kinds.values())), leaves, pieces
        self.connects = connects or (lambda: pooler.connect(timeout=15, **connect))
        self.draw = random.Random(seed)
        self.names, self.silence, self.is_hardy, self.losses = names, silence, is_hardy, 0
        self.fresh, self.left_answers = 0, 0
        self.problems, self.is_over, self.is_held = [], False, False
        self.askers = [self._asker() for _ in range(clients)]
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _asker(self):
        self.fresh += 1
        asker = Asker(self.connects(), f"{self.names}{self.fresh}x", self.fresh + self.draw.randrange(1000) * 1000,
                      q_prepared in self.kinds[0])
        asker.is_hardy = self.is_hardy
        return asker

    def _leave(self, at):
        """One goes, with his question open, and another one comes."""
        asker = self.askers[at]
        self.left_answers += asker.answers
        how = self.draw.randrange(4)
        if how == 0:
            asker.connection.send(pgwire.terminate())
        elif how == 1:
            asker.connection.send(query("select 'half'")[:-3])
        (asker.connection.reset if how == 2 else asker.connection.vanish)()
        self._come(at)

    def _lost(self, asker):
        self.losses += 1
        self.left_answers += asker.answers
        asker.connection.vanish()
        self._come(self.askers.index(asker))

    def _come(self, at):
        """A hardy one tries again, as soon as he can."""
        end = time.monotonic() + 15
        while True:
            try:
                self.askers[at] = self._asker()
                return
            except (pgwire.Closed, pgwire.PgError, pgwire.TimedOut, OSError, AssertionError):
                if not self.is_hardy:
                    raise
                assert time.monotonic() < end, "no way back in"

    def _turn(self):
        now = time.monotonic()
        for at, asker in enumerate(self.askers):
            if not asker.expected and not self.is_over and not self.is_held:
                try:
                    asker.ask(self.kinds, self.pieces)
                except OSError:
                    if not self.is_hardy:
                        raise
                    self._lost(asker)
                    continue
                if self.leaves and self.draw.random() < self.leaves:
                    self._leave(at)
            assert not asker.expected or now - asker.asked < self.silence, \
                f"{asker.name} {asker.kind.__name__}: no answer for {self.silence} s, {asker.messages}"
        by_socket = {asker.connection.socket.fileno(): asker for asker in self.askers}
        for fd in select.select(list(by_socket), [], [], 0.02)[0]:
            try:
                by_socket[fd].pump()
            except (Lost, pgwire.Closed) as problem:
                asker = by_socket[fd]
                if not self.is_hardy:
                    raise AssertionError(f"{asker.name} {asker.kind.__name__} of port {asker.connection.socket.getsockname()[1]}: "
                                         f"{problem!r} after {asker.messages}") from None
                self._lost(asker)

    def _work(self):
        try:
            while not self.is_over or any(asker.expected for asker in self.askers):
                self._turn()
        except BaseException as problem:  # told by check
            self.problems.append(repr(problem) if not isinstance(problem, AssertionError) else str(problem))

    @property
    def answers(self):
        return self.left_answers + sum(asker.answers for asker in self.askers)

    def check(self):
        assert not self.problems, self.problems[:3]

    def goes_on(self, count=300, seconds=15):
        before = self.answers
        eventually(lambda: self.problems or self.answers >= before + count, "the load goes on", seconds)
        self.check()

    def holds(self):
        """Asks nothing more until `resumes`; all are answered."""
        self.is_held = True
        eventually(lambda: self.problems or not any(asker.expected for asker in self.askers), "all are answered", 15)
        self.check()

    def resumes(self):
        self.is_held = False

    def finish(self):
        self.is_over = True
        self.thread.join(30)
        assert not self.thread.is_alive(), "the load hangs"
        self.check()
        for asker in self.askers:
            asker.connection.vanish()
        return self.answers

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.finish()
        self.is_over = True


def trusted(clients, sql="select 'warm', 1", rounds=30):
    """The class of this text is known, and fast: questions may queue behind it."""
    for i in range(rounds):
        clients[i % len(clients)].send(query(sql))
        clients[i % len(clients)].results()


# ---- a PostgreSQL that is played ----------------------------------------------------------------

def two_columns():
    column = lambda name: name + b"\0" + struct.pack("!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0)
    return message("T", struct.pack("!H", 2) + column(b"tag") + column(b"number"))


def data_row(*values):
    return message("D", struct.pack("!H", len(values)) + b"".join(struct.pack("!I", len(v)) + v for v in values))


def tag(text):
    return message("C", text.encode() + b"\0")


def answer_to(sql):
    """`select 'tag', 17 as r1` brings tag and 1017."""
    name, number = sql.decode().split("'")[1], int(sql.decode().rsplit(",", 1)[1].split()[0].strip("\0"))
    return two_columns() + data_row(name.encode(), str(number + 1000).encode()) + tag("SELECT 1") + ready()


class Played:
    """Answers `select 'tag', number`. A question whose tag is in `traps` is given to that function, once: it gets the
    connection, the text, and those that came behind it on the same connection by then (the trap waits for
    `behind` of them, but not for ever); what it returns is sent, or the connection ends when it returns None."""

    def __init__(self, t, behind=2):
        self.traps, self.behind = {}, behind
        self.seen, self.caught = [], {}
        self.fake = t.fake_server(self.script)
        self.lives = 0

    def script(self, server):
        server.welcome()
        self.lives += 1
        try:
            self.serve(server)
        finally:
            self.lives -= 1

    def serve(self, server):
        buffer, waiting = bytearray(), []

        def fill(seconds):
            if select.select([server.socket], [], [], seconds)[0]:
                data = server.socket.recv(65536)
                if not data:
                    raise pgwire.Closed()
                buffer.extend(data)
            while len(buffer) >= 5 and len(buffer) > struct.unpack_from("!I", buffer, 1)[0]:
                size = struct.unpack_from("!I", buffer, 1)[0]
                waiting.append((chr(buffer[0]), bytes(buffer[5:size])))
                del buffer[:size + 1]
        while True:
            while not waiting:
                fill(1)
            type_, sql = waiting.pop(0)
            if type_ == "X":
                return
            assert type_ == "Q", f"{type_} {sql}"
            self.seen.append(sql)
            if sql.strip() == b"":
                server.send(message("I") + ready())
                continue
            if sql.upper().startswith(b"SET "):
                server.send(tag("SET") + ready())
                continue
            name = sql.split(b"'")[1].decode()
            trap = self.traps.get(name)
            if trap is None:
                server.send(answer_to(sql))
                continue
            end = time.monotonic() + 0.02
            while len(waiting) < self.behind and time.monotonic() < end:
                fill(0.001)
            self.caught[name] = self.caught.get(name, 0) + 1
            said = trap(server, sql, waiting)
            if said is None:
                return
            server.send(said)

    def pooler(self, t, sharing=1, size=1, **settings):
        settings.setdefault("server_login_retry", 0.1)
        return sharing_pooler(t, sharing, size, databases={"app": t.fake_entry(self.fake)}, **settings)
