"""A pool with shards on several workers is still one pool: a waiter gets a server that idles on another
worker, nothing goes to and fro without need, and what one shard learns all of them know."""

import os
import subprocess
import threading
import time

from harness import eventually, ours, same, slow
from pgwire import query, startup

TWO = "[pgsplice]\nworker_threads = 2\npool_shards = 2\n"


class Shards:
    """Clients of each shard, and what SHOW SHARDS says."""

    def __init__(self, pooler, console, clients):
        self.pooler, self.console = pooler, console
        self.clients = {}
        before = {}
        for _ in range(clients):
            client = pooler.connect()
            now = {w: row["cl_active"] for w, row in self.rows().items()}
            worker = next(w for w in now if now[w] != before.get(w, 0))
            self.clients.setdefault(worker, []).append(client)
            before = now
        self.workers = sorted(self.clients)

    def rows(self):
        return {int(row["worker"]): {k: int(v) for k, v in row.items() if k not in ("database", "user")}
                for row in self.console.table("show shards") if row["database"] == "app"}

    def moves(self):
        return sum(row["lent"] for row in self.rows().values())

    def hold_all(self, worker, count):
        """All servers of the pool become the worker's."""
        for c in self.clients[worker][:count]:
            c.query("begin")
        for c in self.clients[worker][:count]:
            c.query("commit")


@ours
def test_clients_are_spread_over_the_shards(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=8, extra=TWO)
    with pooler.console() as console:
        shards = Shards(pooler, console, 12)
        same([len(shards.clients[w]) for w in shards.workers], [6, 6])


@ours
def test_pool_shards_is_how_many_workers_serve_a_pool(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=20,
                      extra="[pgsplice]\nworker_threads = 4\npool_shards = 3\n")
    with pooler.console() as console:
        shards = Shards(pooler, console, 12)
        same([len(shards.clients[w]) for w in shards.workers], [4, 4, 4])


@ours
def test_small_pool_lives_on_one_worker(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=7,
                      extra="[pgsplice]\nworker_threads = 4\n")
    with pooler.console() as console:
        shards = Shards(pooler, console, 8)
        same([len(c) for c in shards.clients.values()], [8])


@ours
def test_idle_server_is_lent_and_stays(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4, extra=TWO)
    with pooler.console() as console:
        shards = Shards(pooler, console, 12)
        rich, poor = shards.workers
        shards.hold_all(rich, 4)
        same(len(t.postgres.backends()), 4)
        same(shards.rows()[rich]["sv_idle"], 4)
        before = shards.moves()
        client = shards.clients[poor][0]
        pid = client.pid()
        same(shards.moves() - before, 1)
        same((shards.rows()[rich]["sv_idle"], shards.rows()[poor]["sv_idle"]), (3, 1))
        for _ in range(20):
            same(client.pid(), pid)
        same(shards.moves() - before, 1)
        same(len(t.postgres.backends()), 4)


@ours
def test_idle_server_elsewhere_comes_before_a_new_one(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=20, extra=TWO)
    with pooler.console() as console:
        shards = Shards(pooler, console, 8)
        rich, poor = shards.workers
        shards.hold_all(rich, 2)
        for c in shards.clients[poor]:
            same(c.value("select 1"), "1")
        same(len(t.postgres.backends()), 2)


@ours
def test_borrowed_server_has_the_clients_parameters(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=2, extra=TWO)
    with pooler.console() as console:
        shards = Shards(pooler, console, 8)
        names = {}
        for w in shards.workers:
            for i, c in enumerate(shards.clients[w]):
                names[c] = f"app-{w}-{i}"
                c.query(f"set application_name = '{names[c]}'")
        for _ in range(5):
            for i in range(4):
                for w in shards.workers:
                    c = shards.clients[w][i]
                    same(c.value("show application_name"), names[c])
        assert shards.moves() > 0


@ours
@slow(20)
def test_two_busy_shards_do_not_exchange_servers(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=8, extra=TWO)
    script = os.path.join(t.folder, "sleep.sql")
    with open(script, "w") as file:
        file.write("select pg_sleep(0.002)\n")
    with pooler.console() as console:
        # 32 clients for each shard's four servers: each of them has waiters all the time
        load = subprocess.Popen(
            ["pgbench", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "app", "-n", "-c", "64", "-j",
             "2", "-T", "4", "-f", script, "app"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)

        def shards():
            return [row for row in console.table("show shards") if row["database"] == "app"]

        def moves():
            return sum(int(row["lent"]) for row in shards())
        eventually(lambda: len(shards()) == 2 and
                   all(int(row["cl_waiting"]) > 10 for row in shards()), "both are busy")
        before = moves()
        out, _ = load.communicate(timeout=20)
        count = int(next(line for line in out.splitlines() if "actually processed" in line)
                    .split(":")[1].split("/")[0])
        # At its end, when clients leave, servers go to those that are left.
        assert moves() - before <= max(40, count / 50), f"{moves() - before} moves for {count}"
        assert count > 500, count


@ours
def test_waiter_of_a_shard_without_servers_is_not_passed_over(t):
    # one server, which the clients of one shard would keep busy for ever
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, extra=TWO)
    with pooler.console() as console:
        shards = Shards(pooler, console, 12)
        rich, poor = shards.workers
        stop = threading.Event()
        served = []

        def keep_busy():
            mine = shards.clients[rich]
            for c in mine:
                c.send(query("select pg_sleep(0.002)"))
            while not stop.is_set():
                for c in mine:
                    c.results()
                    c.send(query("select pg_sleep(0.002)"))
                    served.append(time.monotonic())
            for c in mine:
                c.results()
        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:
            eventually(lambda: len(served) > 20, "busy")
            for c in shards.clients[poor]:
                before = len(served)
                same(c.value("select 1"), "1")
                # five wait before it at most, and those that came within the bound of 10 ms
                assert len(served) - before < 40, len(served) - before
        finally:
            stop.set()
            thread.join()


@ours
def test_welcome_of_one_shard_serves_the_others(t):
    # the only server is in a transaction: who comes to the other shard is welcomed all the same
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, extra=TWO)
    with pooler.connect() as holder:
        holder.query("begin")
        others = [pooler.connect() for _ in range(6)]
        for c in others:
            same(c.params["server_version"], holder.params["server_version"])


@ours
def test_reconnect_reaches_servers_wherever_they_are(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=4, extra=TWO)
    with pooler.console() as console:
        shards = Shards(pooler, console, 12)
        old = set()
        for w in shards.workers:
            shards.hold_all(w, 4)
            old |= {c.pid() for c in shards.clients[w]}
        same(console.do("reconnect"), "RECONNECT")
        for w in shards.workers:
            for c in shards.clients[w]:
                assert c.pid() not in old


@ours
def test_failure_of_one_shard_is_known_to_all(t):
    # PostgreSQL refuses: one attempt for each pause, not one for each shard, and all waiters are told
    pooler = t.pooler(databases={"app": t.postgres.address("no_such_database")},
                      server_login_retry=1, pool_mode="transaction",
                      extra="[pgsplice]\nworker_threads = 4\npool_shards = 4\n"
                            "server_login_retry_max = 1\n")
    clients = [pooler.open() for _ in range(8)]
    started = time.monotonic()
    for c in clients:
        c.send(startup({"user": "app", "database": "app"}))
    for c in clients:
        same(c.fatal().sqlstate, "3D000")
    attempts = [line for line in pooler.log().splitlines() if "new connection to server" in line]
    # The first attempts of the shards may cross; from then on it is one for each pause.
    assert len(attempts) <= 4 + 1 + time.monotonic() - started, attempts


@ours
def test_place_that_becomes_free_is_used_by_another_shard(t):
    # the pool is full with servers of one shard, and they end: the other shard opens one at once
    pooler = t.pooler(pool_mode="session", default_pool_size=2, extra=TWO)
    with pooler.console() as console:
        shards = Shards(pooler, console, 8)
        rich, poor = shards.workers
        holders = shards.clients[rich][:2]
        pids = [c.pid() for c in holders]
        waiter = shards.clients[poor][0]
        waiter.send(query("select 'served'"))
        console.wait_pool(cl_waiting=1)
        t.postgres.value(f"select pg_terminate_backend({pids[0]})")
        same(waiter.results().value(), "served")
