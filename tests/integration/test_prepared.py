"""Prepared statements in transaction mode: PostgreSQL itself says what the answers must be. Each script of
messages runs straight at PostgreSQL and, between other clients, through the pooler, and what comes
back is compared message by message."""

import random
import re

import pgwire
from harness import eventually, ours, refused, same, slow
from pgwire import (bind, close, describe, execute, extended, flush, message, parse, query, sync)

OWN_NAME = "pgsplice_"


def brief_message(found):
    """What is not the same: a name longer than 63 bytes is cut off in our errors, and where a client has
    given a text two names PostgreSQL's errors may come with the other one."""
    if found.type != "E":
        return (found.type, found.body)
    fields = found.fields()
    text = fields["M"]
    assert OWN_NAME not in text, text
    if "does not exist" in text or "already exists" in text:
        text = re.sub(r'"(.{63}).*"', r'"\1"', text)
    elif "bind message supplies" in text:
        text = re.sub(r'"(.*)"', '"..."', text)
    return ("E", fields["S"], fields["C"], text)


def by_batch(seen):
    """A transcript, cut after each ReadyForQuery."""
    batches = [[]]
    for found in seen:
        batches[-1].append(found)
        if found[0] == "Z":
            batches.append([])
    return batches[:-1]


def has_parted(got, wanted):
    """In an aborted transaction a statement that would have to be prepared first is refused (25P02), where
    one that is there can still be described. From there on the two are in different transactions."""
    refusals = [i for i, found in enumerate(got) if found[0] == "E" and found[2] == "25P02"]
    return bool(refusals) and got[:refusals[0]] == wanted[:refusals[0]] and got != wanted


def transcript(client, syncs, timeout=10.0):
    """Everything up to that many ReadyForQuery."""
    seen = []
    for _ in range(syncs):
        seen += [brief_message(m) for m in client.until("Z", timeout) if m.type not in "NSA"]
    return seen


# ---- random scripts ------------------------------------------------------------------------------

TEXTS = (
    ("select 1", 0), ("select $1::int + 1", 1), ("select 'a' || $1::text, 2", 1), ("select 1/$1::int", 1),
    ("select * from no_such_table", 0), ("selct", 0), ("values (1), (2), (3)", 0), ("", 0),
    ("select " + "1 + " * 6000 + "1", 0), ("insert into prepared_t values ($1)", 1),
    ("select count(*) >= 0 from prepared_t where a = $1", 1), ("rollback", 0), ("begin", 0), ("commit", 0),
)
NAMES = ("", "a", "b", "a name of more than twenty-four bytes", "x" * 70)


class Script:
    """One client's rounds: bytes, and how many ReadyForQuery they bring. The unnamed statement is only parsed
    at the beginning of a batch: where an error skips its Parse, PostgreSQL keeps the older one, and the
    pooler says that there is none. DISCARD ALL is not followed by anything in the same round, for a Bind
    of what it has dropped would find it again."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.rounds = []
        self.known = {}
        for _ in range(self.random.randint(3, 14)):
            self.rounds.append(self._round())

    def _round(self):
        if self.random.random() < 0.08:
            return query(self.random.choice(("deallocate all", "discard all"))), 1
        data, syncs = b"", 0
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            if self.random.random() < 0.2:
                data += query(self.random.choice((
                    "select 1", "begin", "commit", "rollback", "select 1/0", "begin; select 1/0",
                    "select 2; select 3")))
            else:
                data += self._batch()
            syncs += 1
        return data, syncs

    def _batch(self):
        data = b""
        if self.random.random() < 0.4:
            data += self._parse("") + (self._run("") if self.random.random() < 0.8 else b"")
        for _ in range(self.random.choice((1, 2, 3, 3, 4, 6, 9))):
            data += self._step()
            if self.random.random() < 0.05:
                data += flush()
        return data + sync()

    def _step(self):
        name = self.random.choice(NAMES)
        choice = self.random.random()
        if choice < 0.35:
            name = name or "a"
            data = close("S", name) if self.random.random() < 0.5 else b""
            data += self._parse(name)
            if self.random.random() < 0.6:
                data += self._run(name)
            return data
        if choice < 0.7:
            return self._run(name)
        if choice < 0.8:
            return describe("S", name)
        if choice < 0.9:
            return close("S", name)
        if choice < 0.95:
            return close("P", "")
        return execute()

    def _parse(self, name):
        sql, self.known[name[:63]] = self.random.choice(TEXTS)
        return parse(name, sql)

    def _run(self, name):
        count = self.known.get(name[:63], 0)
        if self.random.random() < 0.05:
            count += 1
        data = bind("", name, [self.random.choice((0, 1, 7))] * count)
        if self.random.random() < 0.5:
            data += describe("P")
        return data + execute(rows=self.random.choice((0, 0, 1)))


def run_scripts(t, pooler, scripts, split):
    """All clients' rounds in turn, so that their servers change."""
    straight = [t.postgres.connect() for _ in scripts]
    pooled = [pooler.connect() for _ in scripts]
    parted = set()
    for number in range(max(len(script.rounds) for script in scripts)):
        for i, script in enumerate(scripts):
            if number >= len(script.rounds) or i in parted:
                continue
            data, syncs = script.rounds[number]
            straight[i].send(data)
            wanted = transcript(straight[i], syncs)
            if split:
                cuts = sorted(script.random.sample(range(1, len(data)), min(len(data) - 1, 5)))
                pooled[i].send_split(data, cuts)
            else:
                pooled[i].send(data)
            got = transcript(pooled[i], syncs)
            if any(has_parted(g, w) for g, w in zip(by_batch(got), by_batch(wanted))):
                parted.add(i)
                continue
            assert got == wanted, \
                f"client {i}, round {number}, {data!r}\n got {got}\n wanted {wanted}"
    for client in straight + pooled:
        client.vanish()


def make_random_test(first, count, **settings):
    @slow(60)
    @ours
    def test(t):
        with t.postgres.connect() as c:
            c.query("drop table if exists prepared_t; create table prepared_t (a int)")
        pooler = t.pooler(**{"pool_mode": "transaction", "default_pool_size": 8, **settings})
        for seed in range(first, first + count):
            scripts = [Script(seed * 3 + i) for i in range(3)]
            try:
                run_scripts(t, pooler, scripts, split=seed % 2 == 1)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from None
    return test


test_random_scripts_are_answered_as_by_postgresql = make_random_test(0, 60)
test_random_scripts_with_room_for_one_statement = make_random_test(100, 40, max_prepared_statements=1)
test_random_scripts_with_room_for_two_statements = make_random_test(200, 40, max_prepared_statements=2)


