"""PostgreSQL is slow to answer, away, starting, promoted, or refuses: clients wait or are told why, and all
is well by itself when it is."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pgwire
from harness import (Postgres, as_os_user, eventually, free_port, give_to_os_user, matches, ours, refused, same,
                     slow)
from pgwire import error_response, query


def quick(**more):
    """Settings for attempts that follow each other closely; all else as a user has it."""
    return {"pool_mode": "transaction", "server_login_retry": 0.2, **more}


def splice(text):
    return "[pgsplice]\n" + text


class Relay:
    """Stands before PostgreSQL and keeps the first bytes of each connection for a while, as a slow login
    does."""

    def __init__(self, slot, target, delay):
        self.target = target
        self.delay = delay
        self.port = free_port(slot)
        self.opening = self.opening_most = self.accepted = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self._accept, daemon=True).start()

    def _count(self, change):
        with self.lock:
            self.opening += change
            self.accepted += change > 0
            self.opening_most = max(self.opening_most, self.opening)

    def _accept(self):
        while True:
            taken, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken):
        self._count(1)
        time.sleep(self.delay)
        self._count(-1)
        with taken, socket.create_connection(("127.0.0.1", self.target)) as server:
            while True:
                for ready in select.select([taken, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is taken else taken).sendall(data)


def relayed(t, delay, **settings):
    relay = Relay(t.slot, t.postgres.port, delay)
    pooler = t.pooler(databases={"app": f"host=127.0.0.1 port={relay.port} dbname=app"}, **quick(**settings))
    return relay, pooler


def fails(pooler, text, sqlstate, user="app", database="app"):
    """A login ends like this; gives its DETAIL and HINT."""
    with pooler.open() as c:
        c.send(pgwire.startup({"user": user, "database": database}))
        error = [m for m in c.closed() if m.type == "E"][-1].fields()
    matches(text, error["M"])
    same((error["S"], error["C"]), ("FATAL", sqlstate))
    return error.get("D", ""), error.get("H", "")


# ---- several at a time --------------------------------------------------------------------------

@ours
def test_twenty_cold_servers_take_about_as_long_as_one(t):
    relay, pooler = relayed(t, 0.4, extra=splice("worker_threads = 1\n"))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pooler.open()) for _ in range(20)]
        started = time.monotonic()
        for c in clients:
            c.send(pgwire.startup({"user": "app", "database": "app"}))
        for c in clients:
            c.authenticate("app", None)
        # one login makes the welcome for all of them; no other was needed so far
        same(relay.accepted, 1)
        asked = time.monotonic()
        for c in clients:
            c.send(query("select pg_sleep(1), 'slept'"))
        for c in clients:
            same(c.results().rows[0][1], "slept")
        took = time.monotonic() - asked - 1
        same(relay.accepted, 20)
        assert took < 0.4 * 2.5, f"nineteen more took {took:.2f} s, one {asked - started:.2f} s"


@ours
def test_no_more_are_opened_at_a_time_than_server_connect_parallel(t):
    relay, pooler = relayed(t, 0.2, extra=splice("worker_threads = 3\nserver_connect_parallel = 4\n"))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pooler.connect()) for _ in range(16)]
        for c in clients:
            c.send(query("select pg_sleep(2)"))
        for c in clients:
            c.results(10)
    same((relay.accepted, relay.opening_most), (16, 4))
