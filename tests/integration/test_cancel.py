"""CancelRequest: it ends the query of the client that it names, and of nobody else."""

import os

import pgwire
from harness import eventually, ours, plain, refused, same, slow
from pgwire import extended, query, sync

SLEEP = "select pg_sleep(20)"


def running(t, what="pg_sleep"):
    """Waits until PostgreSQL runs such a query."""
    with t.postgres.connect(user="postgres", database="postgres") as watcher:
        eventually(lambda: watcher.query(
            "select pid from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() "
            f"and query like '%{what}%'").rows, f"{what} runs")


def test_running_query_is_cancelled(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.send(query(SLEEP))
        running(t)
        same(pooler.cancel(c.key), [])
        result = c.results()
        same(result.errors[0].sqlstate, "57014")
        same(result.status, "I")
        same(c.value("select 1"), "1")


def test_running_query_is_cancelled_in_session_mode(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as c:
        c.send(query(SLEEP))
        running(t)
        pooler.cancel(c.key)
        same(c.results().errors[0].sqlstate, "57014")
        same(c.value("select 1"), "1")


def test_query_inside_a_transaction_is_cancelled(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.query("begin")
        c.send(query(SLEEP))
        running(t)
        pooler.cancel(c.key)
        result = c.results()
        same((result.errors[0].sqlstate, result.status), ("57014", "E"))
        c.query("rollback")


def test_extended_query_is_cancelled(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.send(extended(SLEEP) + sync())
        running(t)
        pooler.cancel(c.key)
        same(c.results().errors[0].sqlstate, "57014")


def test_cancel_works_over_the_unix_socket_and_over_unix_servers(t):
    pooler = t.pooler(pool_mode="transaction",
                      databases={"app": t.postgres.address(host=t.postgres.sockets)})
    with pooler.connect(host=pooler.folder) as c:
        c.send(query(SLEEP))
        running(t)
        pooler.cancel(c.key, host=pooler.folder)
        same(c.results().errors[0].sqlstate, "57014")


def cancel_by_senders_that_do_not_wait(t, canceller, rounds=3):
    """Many at once: whether the request or its sender's end is seen first is the kernel's affair,
    and most requests arrive at another worker than their client's."""
    pooler = t.pooler(pool_mode="transaction", default_pool_size=12, max_client_conn=13,
                      extra="[pgsplice]\nworker_threads = 4\n")
    clients = [pooler.connect() for _ in range(12)]
    with t.postgres.connect(user="postgres", database="postgres") as watcher:
        for i in range(rounds):
            for c in clients:
                c.send(query(SLEEP))
            eventually(lambda: watcher.query(
                "select 1 from pg_stat_activity where state = 'active' and query like '%sleep%'"
                " and pid <> pg_backend_pid()").tags == ["SELECT 12"], "all of them sleep")
            for c in clients:
                canceller(pooler, c.key)
            lost = 0
            for c in clients:
                if c.silent_for(2):
                    lost += 1
                else:
                    same(c.results().errors[0].sqlstate, "57014")
            same(lost, 0, f"requests lost in round {i}")
    for c in clients:
        same(c.value("select 1"), "1")
    eventually(lambda: pooler.log().count("closing because") >= rounds * len(clients),
               "all senders are gone")
    pooler.usable()  # max_client_conn: each of them is counted off


@ours
@slow(60)
def test_cancel_arrives_though_its_sender_hangs_up_at_once(t):
    # as tokio-postgres does
    cancel_by_senders_that_do_not_wait(t, lambda pooler, key: pooler.cancel(key, wait=False))


@ours
@slow(60)
def test_cancel_arrives_though_its_sender_hangs_up_at_once_over_the_unix_socket(t):
    cancel_by_senders_that_do_not_wait(
        t, lambda pooler, key: pooler.cancel(key, host=pooler.folder, wait=False))


@plain  # in TLS it may still be with a helper when the reset comes, and a broken connection is not waited for
@ours
@slow(60)
def test_cancel_arrives_though_its_sender_resets_at_once(t):
    def canceller(pooler, key):
        other = pooler.open()
        other.send(pgwire.cancel_request(*key))
        other.reset()
    cancel_by_senders_that_do_not_wait(t, canceller)


@plain
def test_cancel_after_an_encryption_request_works(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.send(query(SLEEP))
        running(t)
        with pooler.open() as other:
            other.send(pgwire.ssl_request())
            same(other.raw(1), b"N")
            other.send(pgwire.cancel_request(*c.key))
            same(other.closed(), [])
        same(c.results().errors[0].sqlstate, "57014")


def test_cancel_works_while_the_pool_is_full(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as waiter, pooler.console() as console:
        c.send(query(SLEEP))
        running(t)
        waiter.send(query("select 'next'"))
        console.wait_pool(cl_waiting=1)
        pooler.cancel(c.key)
        same(c.results().errors[0].sqlstate, "57014")
        same(waiter.results().value(), "next")


def test_wrong_key_cancels_nothing(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.send(query("select pg_sleep(0.4), 'undisturbed'"))
        running(t)
        pid, secret = c.key
        wrong_secret = bytes([secret[0] ^ 1]) + secret[1:]
        for key in ((pid, wrong_secret), (pid ^ 1, secret), (0, b"\0\0\0\0"),
                    (0xFFFFFFFF, os.urandom(4))):
            same(pooler.cancel(key), [])
        same(c.results().rows[0][1], "undisturbed")


def test_wrong_lengths_of_cancel_requests_are_refused(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.send(query("select pg_sleep(0.3), 'undisturbed'"))
        running(t)
        pid, secret = c.key
        for body in (b"", b"\0", secret, pid.to_bytes(4, "big") + secret[:3],
                     pid.to_bytes(4, "big") + secret + b"x" * 300):
            with pooler.open() as other:
                other.send(pgwire.untyped(pgwire.CANCEL_REQUEST, body))
                other.closed()
        same(c.results().rows[0][1], "undisturbed")
    pooler.usable()


def test_cancel_of_an_idle_client_is_dropped(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as idle, pooler.connect() as busy:
        idle.value("select 1")  # it had the server that `busy` has now
        busy.send(query("select pg_sleep(0.4), 'mine'"))
        running(t)
        same(pooler.cancel(idle.key), [])
        same(busy.results().rows[0][1], "mine")
        same(idle.value("select 2"), "2")


def test_cancel_of_a_waiting_client_spares_the_one_that_runs(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as busy, pooler.connect() as waiter, pooler.console() as console:
        busy.send(query("select pg_sleep(0.4), 'mine'"))
        running(t)
        waiter.send(query("select 'waiter'"))
        console.wait_pool(cl_waiting=1)
        same(pooler.cancel(waiter.key), [])
        same(busy.results().rows[0][1], "mine")
        same(waiter.results().value(), "waiter")


def test_cancel_never_hits_the_next_client_of_the_server(t):
    # The race: the query ends while its cancel request is on the way.
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, max_client_conn=500)
    with pooler.connect() as first, pooler.connect() as second:
        hits = 0
        for i in range(60):
            first.send(query("select pg_sleep(0.002)"))
            canceller = pooler.open()
            canceller.send(pgwire.cancel_request(*first.key))
            second.send(query(f"select pg_sleep(0.002), {i}"))
            hits += bool(first.results().errors)
            result = second.results()
            assert not result.errors, f"round {i}: {result.errors[0]} hit the wrong client"
            same(result.rows[0][1], str(i))
            canceller.vanish()


def test_cancel_spares_short_reads_of_others(t):
    # Reads that may share a server with the one that is cancelled: none of them may feel it.
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, max_client_conn=500)
    with pooler.connect() as victim, pooler.connect() as a, pooler.connect() as b:
        for i in range(40):
            victim.send(query("select count(*) from generate_series(1, 20000)"))
            for c in (a, b):
                c.send(query(f"select {i}") + extended(f"select {i + 1000}") + sync())
            canceller = pooler.open()
            canceller.send(pgwire.cancel_request(*victim.key))
            result = victim.results()
            same([e.sqlstate for e in result.errors] or result.rows, result.errors and ["57014"] or
                 [("20000",)])
            for c in (a, b):
                same([c.results().value() for _ in range(2)], [str(i), str(i + 1000)])
            canceller.vanish()


def test_answers_of_a_cancelled_pipeline_stay_in_order(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.send(query(SLEEP) + query("select 2") + extended("select 3") + sync())
        running(t)
        pooler.cancel(c.key)
        same(c.results().errors[0].sqlstate, "57014")
        same([c.results().value() for _ in range(2)], ["2", "3"])


def test_each_client_has_a_key_of_its_own(t):
    pooler = t.pooler(max_client_conn=200)
    clients = [pooler.connect() for _ in range(50)]
    keys = {c.key for c in clients}
    same(len(keys), 50)
    assert len({secret for _, secret in keys}) == 50
    for c in clients:
        c.vanish()


@ours
def test_pid_of_a_key_is_positive(t):
    # Drivers read it as a signed int4.
    pooler = t.pooler()
    for _ in range(20):
        with pooler.connect() as c:
            assert 0 < c.key[0] < 1 << 31, c.key


def test_key_of_a_gone_client_is_void(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as gone:
        key = gone.key
        gone.terminate()
    with pooler.connect() as c:
        c.send(query("select pg_sleep(0.3), 'mine'"))
        running(t)
        same(pooler.cancel(key), [])
        same(c.results().rows[0][1], "mine")


def test_cancel_of_a_console_session_ends_its_pause(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as busy, pooler.console() as console, pooler.console() as watcher:
        busy.query("begin")
        console.client.send(query("pause"))
        eventually(lambda: "PAUSE command issued" in pooler.log(), "PAUSE is in the log")
        assert console.client.silent_for(0.1)
        pooler.cancel(console.client.key)
        with pooler.connect() as c:
            same(c.value("select 1"), "1")
        with refused("pooler is not paused/suspended"):
            watcher.do("resume")
        busy.query("commit")
