"""Servers that are lost, terminated, slow or mad while several clients share them: whoever has got nothing of his answer
yet is asked again elsewhere and does not notice; whoever has is told; and nobody ever gets a byte of somebody else's."""

import os
import signal
import subprocess
import threading

import pgwire
from harness import POSTGRES_BIN, eventually, ours, same, slow
from pgwire import error_response, message, parameter_status, query, ready
from sharing import (Figures, Load, Played, answer_to, data_row, shares, sharing_pooler, tables, tag, trusted, two_columns)


# ---- backends that are terminated ---------------------------------------------------------------

class Terminator:
    """pg_terminate_backend for one of the users' backends after another, until told to stop."""

    def __init__(self, t, pause=0.02, user="app"):
        self.admin = t.postgres.admin()
        self.ended, self.is_over = 0, threading.Event()
        self.sql = ("select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity where usename = '"
                    f"{user}' order by random() limit 1) one")
        self.pause = pause
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self):
        while not self.is_over.wait(self.pause):
            self.ended += int(self.admin.value(self.sql))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join(10)
        self.admin.vanish()


@ours
@slow(90)
def test_terminated_backends_are_not_noticed_by_who_shares(t):
    tables(t)
    pooler = sharing_pooler(t, sharing=2, size=3, workers=2)
    with pooler.console() as console:
        figures = Figures(console)
        with Load(pooler, 16) as load, Terminator(t) as terminator:
            if shares:
                eventually(lambda: load.problems or terminator.ended > 100, "a hundred backends are terminated", 40)
            elif terminator:
                eventually(lambda: load.problems, "without sharing it is noticed", 20)
                load.problems.clear()
                for asker in load.askers:
                    asker.expected.clear()
            load.check()
        figures.has("again_lost", "joined")
        figures.rest()
    pooler.usable()


@ours
@slow(90)
def test_terminated_backends_are_not_noticed_by_pgbench(t):
    t.run_program([f"{POSTGRES_BIN}/pgbench", "-h", "127.0.0.1", "-p", str(t.postgres.port), "-U", "app", "-i", "-q", "app"])
    if not shares:
        return
    pooler = sharing_pooler(t, sharing="auto", size=5)
    with pooler.console() as console:
        for mode in ("simple", "extended", "prepared"):
            figures = Figures(console)
            pgbench = subprocess.Popen([f"{POSTGRES_BIN}/pgbench", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "app", "-n", "-S",
                                        "-M", mode, "-c", "16", "-T", "4", "app"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True)
            # What prepares statements does not share.
            eventually(lambda: figures.since("shared") > 1000, "all of them are at work")
            with Terminator(t, 0.01) as terminator:
                out, errors = pgbench.communicate(timeout=40)
            assert pgbench.returncode == 0 and "failed transactions: 0 " in out and "FATAL" not in errors, f"{mode}: {out}{errors}"
            assert terminator.ended > 5, terminator.ended
            figures.has("again_lost")


@ours
@slow(90)
def test_who_had_rows_already_is_told_and_the_others_do_not_notice(t):
    # An answer that does not fit into the sockets is under way when its backend is terminated.
    tables(t)
    pooler = sharing_pooler(t, size=2)
    told = 0
    with Load(pooler, 8) as load, t.postgres.admin() as admin:
        for turn in range(6):
            with pooler.connect(receive_bytes=4096, timeout=20) as lazy:
                lazy.send(query(f"select 'lazy', repeat('z', 1000) from generate_series(1, 40000) where {turn} = {turn}"))
                pid = eventually(lambda: [row[0] for row in admin.query(
                    "select pid from pg_stat_activity where usename = 'app' and state = 'active' and query like '%lazy%' "
                    "and wait_event = 'ClientWrite'").rows], "its server waits for it")[0]
                admin.query(f"select pg_terminate_backend({pid}, 5000)")
                found = []
                try:
                    while not found or found[-1].type != "Z":
                        found.append(lazy.receive(20))
                except pgwire.Closed:
                    told += 1
                rows = [m.row() for m in found if m.type == "D"]
                if found and found[-1].type == "Z":
                    # That was a backend whose answer nobody wanted any more: the question had been moved from it.
                    assert rows == [("lazy", "z" * 1000)] * 40000 and not any(m.type == "E" for m in found), len(rows)
                    continue
                assert set(rows) == {("lazy", "z" * 1000)} and len(rows) < 40000, len(rows)
                # An error has no place in the middle of a row that he has a part of.
                assert not any(m.type in "CZ" for m in found), "an answer that seems to be whole"
            load.goes_on(50)
    assert told > 0, "nobody was in the middle of an answer"


@ours
@slow(90)
def test_restarted_postgresql_is_not_noticed_by_who_shares(t):
    tables(t)
    if not shares:
        return
    pooler = sharing_pooler(t, size=2, server_login_retry=0.1, more="server_login_retry_max = 0\n")
    with Load(pooler, 10, silence=40) as load:
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGINT):
            load.goes_on(300)
            t.postgres.stop(how)
            t.postgres.start()
            load.goes_on(300, 30)


@ours
@slow(90)
def test_killed_backend_is_not_noticed_by_who_shares(t):
    # PostgreSQL ends all backends then, and starts anew.
    tables(t)
    if not shares:
        return
    pooler = sharing_pooler(t, size=2, server_login_retry=0.1, more="server_login_retry_max = 0\n")
    with Load(pooler, 10, silence=40) as load:
        for _ in range(3):
            load.goes_on(300)
            t.postgres.wait_ready()
            os.kill(eventually(t.postgres.backends, "there is a backend")[0], signal.SIGKILL)
            load.goes_on(300, 30)
        t.postgres.wait_ready()


# ---- servers that are played ----------------------------------------------------------------------

def company(t, trap, check_head, rounds=4, behind=3, always=False, name="trap", sharing=1, size=1, behind_first=None, **settings):
    """One client asks what springs the trap, others ask at the same moment: again and again until the trap was sprung so
    often with others behind it. `check_head(client, number)` judges the first one's answer; the others must get theirs.
    Gives the played server and the pooler."""
    played = Played(t, behind)
    pooler = played.pooler(t, sharing, size, **settings)
    clients = [pooler.connect(timeout=10) for _ in range(behind + 2)]
    done, turn = 0, 0
    while done < (rounds if shares else 2):
        turn += 1
        assert turn < 150, f"of {turn} times only {done} with others behind: {played.caught}"
        head, *others = clients
        # A class of its own for each turn, for what springs the trap is slow or worse from then on.
        what = f"{turn} as r{turn}"
        trusted(clients[1:], f"select 'warm', {what}", rounds=16)
        sprung = []

        def spring(server, sql, waiting):
            if not always:
                played.traps.pop(name, None)
            sprung.append(len(waiting) >= behind)
            return trap(played, server, sql, waiting)
        played.traps[name] = spring
        head.send(query(f"select '{name}', {what}"))
        for i, c in enumerate(others[:behind]):
            c.send(query(f"select 'c{i}', {what}"))
        if behind_first:
            for i, c in enumerate(others[:behind]):
                same(c.results().rows, [(f"c{i}", str(turn + 1000))])
            behind_first.set()
        is_there = check_head(head, turn)
        if not behind_first:
            for i, c in enumerate(others[:behind]):
                same(c.results().rows, [(f"c{i}", str(turn + 1000))])
        else:
            behind_first.clear()
        played.traps.clear()
        if is_there is False:
            head.vanish()
            clients[0] = pooler.connect(timeout=10)
        done += bool(sprung and sprung[0]) or not shares
        assert not played.fake.problems, played.fake.problems
    for i, c in enumerate(clients):
        same(c.query(f"select 'after {i}', 5").rows, [(f"after {i}", "1005")])
    with pooler.console() as console:
        Figures(console).rest()
    return played, pooler, clients


def right(head, turn):
    result = head.results()
    same((result.errors, result.rows), ([], [("trap", str(turn + 1000))]))


def right_if_shared(head, turn):
    """Without sharing the error is his."""
    if shares:
        return right(head, turn)
    assert head.closed()[-1].type == "E"
    return False


def told(head, turn, rows=((), (("trap", "half"),))):
    """An error in the end, and of rows only his own; whether he stays connected is not looked at."""
    found = []
    try:
        while not found or found[-1].type != "Z":
            found.append(head.receive())
    except pgwire.Closed:
        pass
    result = pgwire.Result(found)
    assert result.errors and tuple(result.rows) in rows, found
    return False


def right_or_told(head, turn):
    found = []
    try:
        while not found or found[-1].type != "Z":
            found.append(head.receive())
    except pgwire.Closed:
        pass
    result = pgwire.Result(found)
    if result.errors:
        assert set(result.rows) <= {("trap", "half")}, found
        return False
    same(result.rows, [("trap", str(turn + 1000))])


@ours
@slow(60)
def test_server_that_closes_without_a_word_is_not_noticed(t):
    company(t, lambda *_: None, right_if_shared)


@ours
@slow(60)
def test_server_that_ends_with_an_error_is_not_noticed(t):
    company(t, lambda p, server, *_: server.send(error_response(S="FATAL", V="FATAL", C="57P01", M="terminating connection")),
            right_if_shared)


@ours
@slow(60)
def test_server_that_ends_between_its_answer_and_ready_is_not_noticed(t):
    """As a backend that is terminated before it reads the Sync of a batch: all but ReadyForQuery, and FATAL, at once."""
    fatal = error_response(S="FATAL", V="FATAL", C="57P01", M="terminating connection")
    company(t, lambda p, server, sql, *_: server.send(answer_to(sql)[:-len(ready())] + fatal), right_if_shared)


@ours
@slow(60)
def test_question_that_kills_each_server_is_asked_a_few_times_and_the_others_do_not_notice(t):
    asked = {}

    def trap(played, server, sql, waiting):
        asked[sql] = asked.get(sql, 0) + 1
    company(t, trap, told, always=True, rounds=3)
    assert max(asked.values()) <= 4, asked  # the last time alone, in the ordinary way


@ours
@slow(60)
def test_question_that_kills_servers_is_not_asked_for_ever(t):
    played = Played(t, 0)
    pooler = played.pooler(t)
    with pooler.connect() as c:
        trusted([c])
        played.traps["trap"] = lambda *_: None
        c.send(query("select 'trap', 1"))
        told(c, 1)
        assert 1 <= played.caught["trap"] <= 4, played.caught  # the last time alone, in the ordinary way
    with pooler.connect() as c:
        same(c.query("select 'after', 2").rows, [("after", "1002")])


@ours
@slow(60)
def test_server_that_closes_in_the_middle_of_rows(t):
    def trap(played, server, sql, waiting):
        server.send(two_columns() + data_row(b"trap", b"half"))
    company(t, trap, right_or_told)


@ours
@slow(60)
def test_server_that_closes_in_the_middle_of_a_message(t):
    def trap(played, server, sql, waiting):
        server.send(answer_to(sql)[:-9])
    company(t, trap, lambda head, turn: right_or_told_whole(head, turn))


def right_or_told_whole(head, turn):
    """He may have his row, and then the error."""
    found = []
    try:
        while not found or found[-1].type != "Z":
            found.append(head.receive())
    except pgwire.Closed:
        pass
    result = pgwire.Result(found)
    assert result.rows in ([], [("trap", str(turn + 1000))]), found
    return None if found[-1].type == "Z" and not result.errors else False


@ours
@slow(60)
def test_server_that_ends_with_an_error_in_the_middle_of_rows(t):
    def trap(played, server, sql, waiting):
        server.send(two_columns() + data_row(b"trap", b"half") +
                    error_response(S="FATAL", V="FATAL", C="57P01", M="terminating connection"))
    company(t, trap, right_or_told)


@ours
@slow(60)
def test_garbage_in_the_middle_of_an_answer_concerns_only_its_owner(t):
    for garbage in (b"\xff" * 40, message("D", b"")[:1] + b"\0\0\0\1", message("x", b"what"), message("Z", b""), message("Z", b"?"),
                    message("R", b"\0\0\0\0")):
        def trap(played, server, sql, waiting):
            server.send(two_columns() + data_row(b"trap", b"half") + garbage)
            select_end(server)
        company(t, trap, right_or_told_or_odd, rounds=1)


def select_end(server, seconds=0.5):
    """Until the other side has closed, but not for ever."""
    server.socket.settimeout(seconds)
    try:
        while server.socket.recv(65536):
            pass
    except OSError:
        pass


def right_or_told_or_odd(head, turn):
    """What a mad server says of its own accord may reach the one who asked it."""
    found = []
    try:
        while not found or found[-1].type != "Z":
            found.append(head.receive())
    except (pgwire.Closed, AssertionError):
        pass
    rows = [m.row() for m in found if m.type == "D" and m.body]
    assert set(rows) <= {("trap", "half"), ("trap", str(turn + 1000))}, found
    return False


@ours
@slow(60)
def test_server_that_says_it_is_in_a_transaction_is_not_used_by_the_others(t):
    def trap(played, server, sql, waiting):
        # What waits is answered as in a transaction: nobody may see that.
        data = answer_to(sql)[:-6] + ready("T")
        for _, other in waiting:
            if other.startswith(b"select"):
                name = other.split(b"'")[1]
                data += two_columns() + data_row(name, b"in a transaction") + tag("SELECT 1") + ready("T")
        server.send(data)
        select_end(server)
    company(t, trap, lambda head, turn: (right_or_told_whole(head, turn), False)[1])


@ours
@slow(60)
def test_copy_instead_of_rows_concerns_only_its_owner(t):
    def trap(played, server, sql, waiting):
        server.send(message("G", b"\0\0\0"))
        select_end(server)

    def check(head, turn):
        first = head.receive()
        if first.type == "G":
            return False
        found = [first]
        try:
            while found[-1].type != "Z":
                found.append(head.receive())
        except pgwire.Closed:
            return False
        same(pgwire.Result(found).rows, [("trap", str(turn + 1000))])
    company(t, trap, check, rounds=2)


@ours
@slow(60)
def test_notices_reach_who_asked(t):
    def trap(played, server, sql, waiting):
        return message("N", b"SNOTICE\0C00000\0Mof the trap\0\0") + answer_to(sql)

    def check(head, turn):
        result = head.results()
        same((result.rows, [n["M"] for n in result.notices]), ([("trap", str(turn + 1000))], ["of the trap"]))
    *_, clients = company(t, trap, check)
    for c in clients[1:]:
        same(c.notices, [])


@ours
@slow(60)
def test_changed_parameters_harm_nobody(t):
    for name, value in (("TimeZone", "Asia/Tokyo"), ("is_superuser", "off"), ("client_encoding", "LATIN1")):
        def trap(played, server, sql, waiting):
            return parameter_status(name, value) + answer_to(sql)
        company(t, trap, right, rounds=2)


@ours
@slow(60)
def test_answer_that_nobody_asked_for_reaches_nobody(t):
    played = Played(t, 0)
    pooler = played.pooler(t)
    with pooler.connect() as a, pooler.connect() as b:
        for turn in range(10):
            trusted([a, b])

            def trap(server, sql, waiting):
                played.traps.clear()
                return answer_to(sql) + answer_to(b"select 'foreign', 1")
            played.traps["trap"] = trap
            same(a.query(f"select 'trap', {turn}").rows, [("trap", str(turn + 1000))])
            same(b.query(f"select 'b', {turn}").rows, [("b", str(turn + 1000))])
            same(a.query(f"select 'a', {turn}").rows, [("a", str(turn + 1000))])


@ours
@slow(60)
def test_asynchronous_messages_between_answers_are_nobodys(t):
    played = Played(t, 0)
    pooler = played.pooler(t)
    with pooler.connect() as a, pooler.connect() as b:
        for turn in range(10):
            trusted([a, b])

            def trap(server, sql, waiting):
                played.traps.clear()
                return (answer_to(sql) + message("N", b"SWARNING\0C00000\0Mto all\0\0") +
                        message("A", b"\0\0\0\7channel\0payload\0") + parameter_status("is_superuser", "off"))
            played.traps["trap"] = trap
            same(a.query(f"select 'trap', {turn}").rows, [("trap", str(turn + 1000))])
            for _ in range(3):
                same(b.query(f"select 'b', {turn}").rows, [("b", str(turn + 1000))])
                same(a.query(f"select 'a', {turn}").rows, [("a", str(turn + 1000))])


@ours
@slow(60)
def test_who_is_behind_a_slow_one_is_asked_again_elsewhere(t):
    # It is held until the others have their answers.
    others_are_served = threading.Event()

    def trap(played, server, sql, waiting):
        assert others_are_served.wait(8), "those behind waited for the slow one"
        return answer_to(sql)
    if shares:
        company(t, trap, right, size=2, behind_first=others_are_served)


@ours
@slow(60)
def test_query_timeout_is_that_of_the_slow_one_alone(t):
    def trap(played, server, sql, waiting):
        select_end(server, 10)

    def check(head, turn):
        found = head.closed()
        same([m.error().text for m in found if m.type == "E"], ["query timeout"])
        return False
    if shares:
        company(t, trap, check, rounds=2, size=2, query_timeout=1)


@ours
@slow(60)
def test_client_that_leaves_takes_his_answer_along(t):
    for how in ("vanish", "reset", "terminate"):
        is_asked, has_left = threading.Event(), threading.Event()

        def trap(played, server, sql, waiting):
            is_asked.set()
            has_left.wait(5)
            return answer_to(sql)

        def check(head, turn):
            assert is_asked.wait(5)
            if how == "terminate":
                head.send(pgwire.terminate())
                head.vanish()
            else:
                getattr(head, how)()
            is_asked.clear()
            has_left.set()
            return False

        def trap_once(*arguments):
            has_left.clear()
            return trap(*arguments)
        company(t, trap_once, check, rounds=3)


# ---- timeouts and errors of PostgreSQL itself -------------------------------------------------------

@ours
@slow(60)
def test_statement_timeout_is_that_of_its_statement(t):
    tables(t)
    with t.postgres.connect() as c:
        c.query("create or replace view long_nap as select pg_sleep(20)::text as slept")
    pooler = sharing_pooler(t, size=2, databases={
        "app": t.postgres.address("app", connect_query="'set statement_timeout = 300'")})
    with Load(pooler, 8) as load, pooler.connect() as c:
        for _ in range(4):
            c.send(query("select 'x', slept from long_nap"))
            result = c.results(10)
            same((result.errors[0].sqlstate, result.status), ("57014", "I"))
            load.goes_on(50)


@ours
@slow(60)
def test_query_timeout_ends_only_who_is_slow(t):
    tables(t)
    with t.postgres.connect() as c:
        c.query("create or replace view long_nap as select pg_sleep(20)::text as slept")
    pooler = sharing_pooler(t, size=2, query_timeout=1)
    with Load(pooler, 8) as load:
        for _ in range(3):
            with pooler.connect() as c:
                c.send(query("select 'x', slept from long_nap"))
                found = c.closed(10)
                same([m.error().text for m in found if m.type == "E"], ["query timeout"])
            load.goes_on(50)


@ours
@slow(60)
def test_query_wait_timeout_counts_for_who_waits_to_share(t):
    tables(t)
    pooler = sharing_pooler(t, size=1, query_wait_timeout=1)
    with pooler.connect() as owner, pooler.connect() as c:
        for sql in ("select 'x', 1",) * 10:
            c.query(sql)
        owner.query("begin")
        c.send(query("select 'x', 1"))
        found = c.closed(10)
        same([m.error().text for m in found if m.type == "E"], ["query_wait_timeout"])
        owner.query("commit")
    pooler.usable()


@ours
@slow(60)
def test_deadlocked_or_locked_tables_hold_up_only_who_reads_them(t):
    tables(t)
    with t.postgres.connect() as owner:
        owner.query("drop table if exists sharing_locked; create table sharing_locked (a int); insert into sharing_locked values (1)")
        pooler = sharing_pooler(t, size=3)
        with Load(pooler, 8) as load, pooler.connect(timeout=20) as c:
            for _ in range(20):
                same(c.value("select a from sharing_locked"), "1")
            for turn in range(3):
                owner.query("begin; lock table sharing_locked")
                c.send(query("select a from sharing_locked"))
                load.goes_on(300)
                assert not c.buffer and c.silent_for(0.01)
                owner.query("commit")
                same(c.results().value(), "1")
                load.goes_on(50)
