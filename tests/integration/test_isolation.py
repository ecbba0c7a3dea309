"""Promise 1: a byte of one client's data never reaches another client, whatever the rest does.

Each question carries a number; the answer is computed from it by PostgreSQL, so that an echo cannot
pass for an answer, and names its client. (PgBouncer 1.18 fails the pipelined ones: it may release a
server on whose way half of the next request is.)"""

import random
import select
import time

import pgwire
from harness import eventually, ours, same, slow
from pgwire import bind, copy_data, copy_done, describe, execute, parse, query, sync

MODULUS = 1000003


def wanted(client, number):
    return (f"client {client}", str(number * 7919 % MODULUS))


def sql(client, number, extra=""):
    return f"select 'client {client}', ({number}::bigint * 7919 % {MODULUS})::text{extra}"


class Talker:
    """Sends random requests, many ahead, and knows what must come back for each."""

    def __init__(self, connection, client, seed):
        self.connection = connection
        self.client = client
        self.random = random.Random(seed)
        self.expected = []
        self.number = seed * 100000
        self.answers = 0
        self.in_transaction = False

    def request(self):
        self.number += 1
        number, draw = self.number, self.random.random()
        row = wanted(self.client, number)
        if draw < 0.35:
            self.expected.append([row])
            return query(sql(self.client, number))
        if draw < 0.5:
            self.expected.append([row])
            return (parse("", sql(self.client, number)) + bind() + describe("P") + execute() +
                    sync())
        if draw < 0.6:
            second = wanted(self.client, number + 500000)
            self.expected.append([row, second])
            return (parse("", sql(self.client, number)) + bind() + execute() +
                    parse("", sql(self.client, number + 500000)) + bind() + execute() + sync())
        if draw < 0.7:
            self.expected.append([row])
            return query("begin; " + sql(self.client, number) + "; commit")
        if draw < 0.78:
            self.expected.append("error")
            return query(f"select 1/0 /* client {self.client} */")
        if draw < 0.84:
            self.expected.append("error")
            return parse("", "no sql at all") + bind() + execute() + sync()
        if draw < 0.92:
            big = self.random.choice((10, 3000, 9000, 70000))
            self.expected.append([row + ("x" * big,)])
            return query(sql(self.client, number, f", repeat('x', {big})"))
        if draw < 0.96:
            self.expected.extend([[], [row], []])
            return query("begin") + query(sql(self.client, number)) + query("rollback")
        self.expected.append([row])
        return (parse("", f"select 'client {self.client}', ($1::bigint * 7919 % {MODULUS})::text") +
                bind("", "", [number]) + execute() + sync())

    def send(self, count):
        data = b"".join(self.request() for _ in range(count))
        if self.random.random() < 0.3 and len(data) < 2000:
            self.connection.send_split(data, self.random.choice((1, 7, 50)))
        else:
            self.connection.send(data)

    def check_one(self):
        result = self.connection.results(10)
        expected = self.expected.pop(0)
        self.answers += 1
        if expected == "error":
            same(len(result.errors), 1, f"client {self.client}")
            same(result.rows, [])
        else:
            assert not result.errors, f"client {self.client}: {result.errors[0]}"
            same(result.rows, expected, f"client {self.client}")


def converse(pooler, clients, seconds, seed, abandon=False):
    chance = random.Random(seed)
    talkers = [Talker(pooler.connect(timeout=10), i, seed + i) for i in range(clients)]
    end = time.monotonic() + seconds
    fresh, total = clients, 0
    while time.monotonic() < end:
        for talker in talkers:
            if len(talker.expected) < 8:
                talker.send(chance.randint(1, 6))
        readable = select.select([x.connection.socket for x in talkers], [], [], 0.05)[0]
        for at, talker in enumerate(talkers):
            if talker.connection.socket in readable or talker.connection.buffer:
                talker.check_one()
            if abandon and talker.expected and chance.random() < 0.02:
                # gone with questions open; the answers must reach nobody
                chance.choice((talker.connection.vanish, talker.connection.reset))()
                total += talker.answers
                talkers[at] = Talker(pooler.connect(timeout=10), fresh, seed + fresh)
                fresh += 1
    for talker in talkers:
        while talker.expected:
            talker.check_one()
        total += talker.answers
        talker.connection.terminate()
    return total


@ours
@slow(30)
def test_answers_reach_who_asked_with_few_servers(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2)
    assert converse(pooler, 24, 3, 1) > 200
    with pooler.console() as console:
        console.wait_pool(cl_active=0, cl_waiting=0, sv_active=0)


@ours
@slow(30)
def test_answers_reach_who_asked_with_one_server(t):
    assert converse(t.pooler(pool_mode="transaction", default_pool_size=1), 10, 2, 2) > 100


@ours
@slow(30)
def test_answers_reach_who_asked_with_many_servers(t):
    assert converse(t.pooler(pool_mode="transaction", default_pool_size=20), 16, 2, 3) > 200


@ours
@slow(30)
def test_answers_reach_who_asked_while_clients_vanish(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4, max_client_conn=500)
    assert converse(pooler, 16, 3, 4, abandon=True) > 100
    pooler.usable()


@slow(30)
def test_answers_reach_who_asked_while_backends_are_terminated(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=3, max_client_conn=500)
    chance = random.Random(5)
    admin = t.postgres.connect(user="postgres", database="postgres")
    lost, answers, ended = 0, 0, []
    talkers = [Talker(pooler.connect(timeout=10), i, i) for i in range(10)]
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        at = chance.randrange(len(talkers))
        talker = talkers[at]
        try:
            talker.send(chance.randint(1, 4))
            while talker.expected:
                result = talker.connection.results(10)
                expected = talker.expected.pop(0)
                if any(e.sqlstate in ("57P01", "08P01") for e in result.errors):
                    continue
                if expected != "error":
                    same(result.rows, expected, f"client {talker.client}")
                answers += 1
        except (pgwire.Closed, OSError):
            lost += 1
            talkers[at] = Talker(pooler.connect(timeout=10), 1000 + lost, 1000 + lost)
        if chance.random() < 0.05:
            ended += admin.query("select pid, pg_terminate_backend(pid) from pg_stat_activity "
                                 "where usename = 'app' order by random() limit 1").rows
    assert answers > 100, answers
    # A signal may be on its way still, and would hit whoever comes next.
    ended = {pid for pid, _ in ended}
    eventually(lambda: not ended & {pid for pid, in admin.query(
        "select pid from pg_stat_activity where usename = 'app'").rows},
        "those that were terminated have ended")
    admin.vanish()
    for talker in talkers:
        talker.connection.vanish()
    pooler.usable()


def test_copies_of_two_clients_do_not_mix(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2)
    clients = [pooler.connect() for _ in range(2)]
    with t.postgres.connect() as setup:
        setup.query("drop table if exists copies; create table copies (client int, n int)")
    for c in clients:
        c.send(query("copy copies from stdin"))
        same(c.receive().type, "G")
    for i in range(300):
        for number, c in enumerate(clients):
            c.send(copy_data(b"%d\t%d\n" % (number, i)))
    for c in clients:
        c.send(copy_done())
        same(c.results().tags, ["COPY 300"])
    same(t.postgres.value("select count(distinct (client, n)) from copies"), "600")


def test_sessions_keep_their_settings_apart_in_session_mode(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=8)
    clients = [pooler.connect() for _ in range(6)]
    for i, c in enumerate(clients):
        c.query(f"set work_mem = '{100 + i}kB'; create temp table own (n int); "
                f"insert into own values ({i})")
    for i, c in enumerate(clients):
        same((c.value("show work_mem"), c.value("select n from own")), (f"{100 + i}kB", str(i)))
        c.terminate()
    with pooler.connect() as c:
        same(c.value("select to_regclass('own') is null"), "t")
