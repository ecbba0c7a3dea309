"""Cancel requests while servers are shared: they end the statement of the client that they name, and nobody else ever
sees one. SHARING_CANCELS=10000 is the run at length."""

import os
import random
import select
import socket
import threading
import time

import pgwire
from harness import eventually, ours, same, slow
from pgwire import bind, describe, execute, parse, query, sync
from sharing import (Asker, Figures, Load, Played, Question, answer_to, q_pipeline, q_prepared, q_simple, q_unnamed,
                     row_of, shares, sharing_pooler, tables, text_of, trusted)

CANCELS = int(os.environ.get("SHARING_CANCELS", 300))


def q_longer(name, number, draw):
    """0.5 to 20 ms, of a class for each length, so that the short ones may be followed."""
    count, what = draw.choice(((3000, "a"), (3000, "a"), (3000, "a"), (20000, "b"), (100000, "c")))
    return Question(query(f"select '{name}' as {what}, (count(*) + {number})::text from generate_series(1, {count})"),
                    ([(name, str(count + number))], None))


def q_longer_batch(name, number, draw):
    return Question(parse("", "select $1::text, (count(*) + $2::bigint)::text from generate_series(1, 4000)") +
                    bind("", "", [name, number]) + describe("P") + execute() + sync(), ([(name, str(4000 + number))], None))


def q_longer_pipeline(name, number, draw):
    """What is behind the cancelled one must be answered."""
    first = q_longer(name, number, draw)
    return Question(first.data + query(text_of(name, number)) + query(text_of(name, number + 1)),
                    *first.answers, ([row_of(name, number)], None), ([row_of(name, number + 1)], None))


KINDS = {q_simple: 3, q_unnamed: 1, q_prepared: 3, q_longer: 5, q_longer_batch: 2, q_longer_pipeline: 1, q_pipeline: 1}


class Cancelled(Asker):
    """May be cancelled: each of his answers while a request was under way may be 57014 instead."""

    def __init__(self, *rest):
        super().__init__(*rest)
        self.open_requests, self.hits, self.may_be_hit = [], 0, False

    def cancel(self, pooler):
        self.may_be_hit = True
        sock = socket.create_connection(("127.0.0.1", pooler.port), 5)
        sock.sendall(pgwire.cancel_request(*self.connection.key))
        self.open_requests.append(sock)

    def settle(self):
        """Requests whose connection has been closed are over; the answer that comes next may still be of theirs."""
        for sock in select.select(self.open_requests, [], [], 0)[0] if self.open_requests else ():
            same(sock.recv(10), b"")
            sock.close()
            self.open_requests.remove(sock)

    def ask(self, *rest):
        self.settle()
        self.may_be_hit = bool(self.open_requests)
        super().ask(*rest)

    def check(self, result):
        # The row may be on its way already, when the signal comes.
        if self.may_be_hit and [e.sqlstate for e in result.errors] == ["57014"] and \
                result.rows == self.expected[0][0][:len(result.rows)]:
            self.hits += 1
            self.expected.pop(0)
            return
        super().check(result)


def storm(t, cancels, clients=16, most_open=6, seed=3, kinds=KINDS, needs=("joined",), **settings):
    tables(t)
    pooler = sharing_pooler(t, max_client_conn=1000, **{"size": 1, **settings})
    draw = random.Random(seed)
    if "default_pool_size" in settings:
        raise ValueError
    askers = [(Cancelled if i % 2 else Asker)(pooler.connect(timeout=20), f"c{i}x", seed * 1000 + i) for i in range(clients)]
    victims = [asker for asker in askers if isinstance(asker, Cancelled)]
    weights = (list(kinds), list(kinds.values()))
    sent, end = 0, time.monotonic() + 30 + cancels / 10
    with pooler.console(timeout=20) as console:
        figures = Figures(console)
        while sent < cancels or any(asker.expected for asker in askers):
            assert time.monotonic() < end, f"{sent} cancel requests sent"
            for asker in askers:
                if not asker.expected and sent < cancels:
                    asker.ask(weights)
                assert not asker.expected or time.monotonic() - asker.asked < 15, \
                    f"{asker.name} {asker.kind.__name__}: no answer, {asker.messages}"
            if sent < cancels and sent * 4 < sum(asker.answers for asker in askers) and draw.random() < 0.5:
                longer = [v for v in victims if v.expected and "longer" in v.kind.__name__]
                victim = draw.choice(longer if longer and draw.random() < 0.7 else victims)
                victim.settle()
                if sum(len(v.open_requests) for v in victims) < most_open:
                    victim.cancel(pooler)
                    sent += 1
            by_socket = {asker.connection.socket.fileno(): asker for asker in askers}
            for fd in select.select(list(by_socket), [], [], 0.001)[0]:
                by_socket[fd].pump()
        hits = sum(victim.hits for victim in victims)
        print(f"{sent} requests, {hits} hits, {sum(a.answers for a in askers)} answers, {figures.now()}")
        assert hits >= cancels / 100, f"{hits} hits of {cancels}"
        figures.has(*needs)
        for victim in victims:
            eventually(lambda: (victim.settle(), not victim.open_requests)[1], "all requests are closed")
        figures.rest()
    for asker in askers:  # nothing came that nobody asked for
        assert not asker.connection.buffer and asker.connection.silent_for(0.001), asker.name
        asker.connection.vanish()
    pooler.usable()


@ours
@slow(120 + CANCELS)
def test_nobody_sees_the_cancel_of_another_on_one_server(t):
    storm(t, CANCELS)


@ours
@slow(120 + CANCELS)
def test_nobody_sees_the_cancel_of_another_on_three_servers(t):
    storm(t, CANCELS, size=3, sharing=2, seed=5)


@ours
@slow(120 + CANCELS)
def test_nobody_sees_the_cancel_of_another_on_two_workers(t):
    storm(t, CANCELS, size=2, workers=2, shards=2, seed=7)


@ours
@slow(120 + CANCELS)
def test_nobody_sees_the_cancel_of_another_when_the_pooler_decides(t):
    storm(t, CANCELS, size=4, sharing="auto", workers=2, shards=2, seed=9, needs=())


# ---- one at a time, on a server that is played ---------------------------------------------------------

class PlayedWithCancels(Played):
    """Takes cancel requests, too: `canceled` counts them, and each ends what the trap runs."""

    def __init__(self, t, behind=2):
        self.canceled = threading.Semaphore(0)
        self.requests = 0
        self.may_close = threading.Event()
        self.may_close.set()
        super().__init__(t, behind)

    def script(self, server):
        code = server.startup()
        if code == pgwire.CANCEL_REQUEST:
            self.requests += 1
            self.canceled.release()
            self.may_close.wait(5)
            return
        server.send(server.WELCOME)
        self.serve(server)


HIT = pgwire.error_response(S="ERROR", V="ERROR", C="57014", M="canceling statement due to user request") + pgwire.ready()


def rounds(t, played, play, count=4, behind=3, size=1):
    """`play(head, others, turn, company)`: until it was so often true."""
    pooler = played.pooler(t, 1, size)
    clients = [pooler.connect(timeout=10) for _ in range(behind + 1)]
    done = turn = 0
    while done < count:
        turn += 1
        assert turn < 150, f"{done} of {turn}"
        # A class of its own for each turn, for what is held is slow from then on.
        trusted(clients[1:], f"select 'warm', 1 as r{turn}", rounds=16)
        done += bool(play(pooler, clients[0], clients[1:], turn))
        assert not played.fake.problems, played.fake.problems
    with pooler.console() as console:
        Figures(console).rest()
    for i, c in enumerate(clients):
        same(c.query(f"select 'after {i}', 5").rows, [(f"after {i}", "1005")])


@ours
@slow(60)
def test_cancel_of_the_oldest_spares_those_behind(t):
    # The signal comes late: it hits the one behind, who is asked again and does not notice.
    for late in (0, 1, 2):
        played = PlayedWithCancels(t, 3)
        seen = {}

        def trap(server, sql, waiting):
            played.traps.clear()
            seen["company"] = len(waiting) >= 3
            ready_.set()
            assert played.canceled.acquire(timeout=8), "no cancel request has come"
            if late == 0:
                return HIT
            # answered just before; the ones behind are hit
            data = answer_to(sql)
            for number in range(1, late + 1):
                if len(waiting) >= 1 and number == late:
                    waiting.pop(0)
                    data += HIT
                elif waiting:
                    data += answer_to(waiting.pop(0)[1])
            return data

        def play(pooler, head, others, turn):
            ready_.clear()
            played.traps["trap"] = trap
            head.send(query(f"select 'trap', {turn} as r{turn}"))
            for i, c in enumerate(others):
                c.send(query(f"select 'c{i}', {turn} as r{turn}"))
            assert ready_.wait(5)
            pooler.cancel(head.key, wait=False)
            result = head.results()
            if late == 0:
                same([e.sqlstate for e in result.errors], ["57014"])
            else:
                same((result.errors, result.rows), ([], [("trap", str(turn + 1000))]))
            for i, c in enumerate(others):
                same(c.results().rows, [(f"c{i}", str(turn + 1000))])
            return seen["company"] or not shares
        ready_ = threading.Event()
        if not shares and late:
            continue
        rounds(t, played, play)


@ours
@slow(60)
def test_cancel_of_one_behind_is_answered_at_once(t):
    # While the oldest is held: the answer comes from the pooler.
    played = PlayedWithCancels(t, 3)
    ready_, go_on, seen = threading.Event(), threading.Event(), {}

    def trap(server, sql, waiting):
        played.traps.clear()
        seen["company"] = len(waiting) >= 3
        ready_.set()
        go_on.wait(8)
        return answer_to(sql)

    def play(pooler, head, others, turn):
        ready_.clear()
        go_on.clear()
        played.traps["trap"] = trap
        head.send(query(f"select 'trap', {turn} as r{turn}"))
        for i, c in enumerate(others):
            c.send(query(f"select 'c{i}', {turn} as r{turn}"))
        assert ready_.wait(5)
        if seen["company"]:
            with pooler.console() as console:
                if Figures(console).now().get("queued", 0) < 4:
                    seen["company"] = False  # it took too long: they wait for another server now
        if seen["company"]:
            pooler.cancel(others[1].key)
            result = others[1].results()
            same(([e.sqlstate for e in result.errors], result.status), (["57014"], "I"))
            same(played.requests, 0)
        go_on.set()
        same(head.results().rows, [("trap", str(turn + 1000))])
        for i, c in enumerate(others):
            if i != 1 or not seen["company"]:
                same(c.results().rows, [(f"c{i}", str(turn + 1000))])
        same(others[1].query(f"select 'again', {turn}").rows, [("again", str(turn + 1000))])
        return seen["company"]
    if shares:
        rounds(t, played, play)


@ours
@slow(60)
def test_cancel_ends_a_long_read_while_others_share(t):
    tables(t)
    with t.postgres.connect() as c:
        c.query("create or replace view long_nap as select pg_sleep(20)::text as slept")
    pooler = sharing_pooler(t, size=2)
    with Load(pooler, 8) as load, pooler.connect() as c, t.postgres.admin() as admin:
        for _ in range(5):
            c.send(query("select 'x', slept from long_nap"))
            eventually(lambda: admin.query("select 1 from pg_stat_activity where wait_event = 'PgSleep'").rows, "it sleeps")
            pooler.cancel(c.key)
            result = c.results(10)
            same(([e.sqlstate for e in result.errors], result.status), (["57014"], "I"))
            load.goes_on(50)


@ours
@slow(60)
def test_cancels_of_clients_that_leave_hit_nobody(t):
    tables(t)
    pooler = sharing_pooler(t, size=1)
    with Load(pooler, 8, {q_simple: 2, q_longer: 3}) as load:
        for turn in range(60):
            with pooler.connect() as c:
                c.send(query(f"select 'leaver', count(*) from generate_series(1, 20000) where {turn} = {turn}"))
                pooler.cancel(c.key, wait=turn % 2 == 0)
            load.goes_on(5)


@ours
@slow(60)
def test_cancels_and_terminated_backends_at_once(t):
    from test_sharing_failures import Terminator
    if not shares:
        return
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with Load(pooler, 8) as load, Terminator(t, 0.03), pooler.connect(timeout=20) as c:
        for turn in range(100):
            c.send(query(f"select 'x', count(*) from generate_series(1, 5000) where {turn} = {turn}"))
            pooler.cancel(c.key, wait=False)
            result = c.results()
            assert result.rows == [("x", "5000")] or [e.sqlstate for e in result.errors] == ["57014"], result.messages
            load.goes_on(5)
