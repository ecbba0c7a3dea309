"""The helper threads: what is slow is slow for whoever asked for it only, and never without end."""

import os
import re
import resource
import time

import pgwire
from harness import PASSWORD, Skip, eventually, ours, plain, same, slow
from pgwire import message, startup, text

HASH_THREADS, LATE_THREADS, WAITING_MAX = 2, 1, 4096
HASHING = HASH_THREADS + LATE_THREADS
SCHED_OTHER, SCHED_IDLE = 0, 5
REFUSED = "too many logins are waiting for a helper"


def endless_secret(rounds):
    """A secret that takes `rounds` to check; who has its password does not matter here."""
    rest = pgwire.scram_secret(PASSWORD, rounds=1).split("$", 2)[2]
    salt = pgwire.scram_secret(PASSWORD, rounds=1).split("$")[1].split(":")[1]
    return f"SCRAM-SHA-256${rounds}:{salt}${rest}"


def knock(pooler, user):
    """Sends startup packet and password in one piece, and goes on."""
    client = pooler.open()
    client.send(startup({"user": user, "database": "app"}) + message("p", text(PASSWORD)))
    return client


def counts(pooler):
    """The last line of the helpers' counters: hashes made, cancelled, refused."""
    lines = re.findall(r"helpers: (\d+) hashes made, (\d+) cancelled, (\d+) refused", pooler.log())
    return tuple(int(word) for word in lines[-1]) if lines else (0,) * 3


@ours
def test_hashing_has_the_lowest_priority_and_workers_have_not(t):
    pooler = t.pooler()
    pooler.usable()
    found = {}
    folder = f"/proc/{pooler.process.pid}/task"
    for task in os.listdir(folder):
        with open(f"{folder}/{task}/stat") as file:
            name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        words = rest.split()
        found.setdefault(name, []).append((int(words[38]), int(words[16])))  # policy, nice
    same(found["hash"], [(SCHED_IDLE, 0)] * HASH_THREADS)
    same(found["hash-late"], [(SCHED_OTHER, 10)] * LATE_THREADS)
    same(set(found["worker-0"]), {(SCHED_OTHER, 0)})


@plain
@ours
@slow(60)
def test_a_full_queue_refuses_more_logins_and_nobody_else_notices(t):
    count = WAITING_MAX + HASHING
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    except ValueError:
        raise Skip("not enough descriptors allowed") from None
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * count:
        raise Skip("not enough descriptors allowed")
    entry = t.postgres.address("app", user="u_scram", password=PASSWORD)
    pooler = t.pooler(auth_type="plain", max_client_conn=count + 1000, server_login_retry=0.2,
                      databases={"app": t.postgres.address("app"), "late": entry},
                      userlist={"app": PASSWORD, "slow": endless_secret(10_000_000), "admin": PASSWORD},
                      listen_backlog=4096, verbose=1, stats_period=1, log_disconnections=0,
                      extra="[pgsplice]\nserver_login_retry_max = 0.5\n")
    before = pooler.connect(password=PASSWORD)
    started = time.monotonic()
    crowd = [knock(pooler, "slow") for _ in range(count)]
    for client in crowd:
        same(client.receive().type, "R")
    # All places are taken: some in the hands of the helpers, the rest in the queue.
    for _ in range(300):
        last = knock(pooler, "slow")
        same(last.receive().type, "R")
        error = last.fatal()
        same((error.severity, error.sqlstate, error.text), ("FATAL", "53000", REFUSED))
        last.vanish()
    took = time.monotonic() - started
    lines = len(re.findall(rf"WARNING {REFUSED} \({WAITING_MAX}\): \d+ refused so far", pooler.log()))
    assert 1 <= lines <= took + 1, f"{lines} lines in {took:.1f} s"
    # Who needs no helper does not notice.
    same(before.value("select 1"), "1")
    pooler.connect(password=PASSWORD).terminate()
    # A server that needs one is tried again until there is room: the client waits for it.
    late = pooler.open(timeout=40)
    late.send(startup({"user": "app", "database": "late"}) + message("p", text(PASSWORD)))
    pooler.wait_log(f"pool late/u_scram: connecting to the server failed: {REFUSED}")
    for client in crowd:
        client.vanish()
    late.until("Z")
    same(late.value("select current_user"), "u_scram")
    # Those who left cost nothing any more: only what the helpers had begun was made.
    eventually(lambda: counts(pooler)[1] == WAITING_MAX, "the rest was cancelled", 10)
    assert counts(pooler)[0] <= HASHING + 1
    assert counts(pooler)[2] >= 300


@ours
@slow(120)
def test_keys_are_not_made_for_a_client_that_has_left(t):
    busy = [f"busy{i}" for i in range(HASHING)]
    pooler = t.pooler(auth_type="scram-sha-256", scram_iterations=1_000_000, verbose=1, stats_period=1,
                      userlist={name: PASSWORD for name in busy + ["app", "other"]},
                      extra="[pgsplice]\nworker_threads = 1\n")  # each core makes keys of its own
    makers = [pooler.open() for _ in busy]
    for name, client in zip(busy, makers):
        client.send(startup({"user": name, "database": "app"}))
    eventually(lambda: hashing_threads(pooler) == HASHING, "all helpers are at work")
    leavers = [pooler.open() for _ in range(3)]
    for client in leavers:
        client.send(startup({"user": "app", "database": "app"}))
    stayer = pooler.open(timeout=50)
    stayer.send(startup({"user": "other", "database": "app"}))
    for client in leavers:
        pooler.wait_log(f"{client.socket.getsockname()[1]} login attempt")
        client.vanish()
    same(stayer.receive().type, "R")
    eventually(lambda: counts(pooler)[1] == 1, "the leavers' keys were not made", 50)
    # And they are made when somebody comes again.
    with pooler.open(timeout=50) as client:
        client.login("app", password=PASSWORD)
        same(client.value("select 1"), "1")


def hashing_threads(pooler):
    """How many of the threads that hash are running now."""
    running = 0
    folder = f"/proc/{pooler.process.pid}/task"
    for task in os.listdir(folder):
        with open(f"{folder}/{task}/stat") as file:
            name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        running += name.startswith("hash") and rest.split()[0] == "R"
    return running
