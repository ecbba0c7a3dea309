"""What the kernel may refuse, and what the data path may not ask for."""

import os
import resource
import struct
import subprocess

import certificates
from harness import POOLER_BIN, TOP, Skip, ours, plain, same
from pgwire import query
from test_tls_servers import Backend
from tls_wire import Offer, client_context

IO_URING_SETUP, IO_URING_REGISTER = 425, 427


def compiled(t, source, output, *flags):
    path = os.path.join(t.folder, output)
    subprocess.run(["cc", "-O1", "-o", path, os.path.join(TOP, source), *flags], check=True)
    os.chmod(path, 0o755)
    return path


def refused_start(t, command, preexec=None):
    """Runs the pooler until it gives up; what it said."""
    pooler = t.pooler(start=False)
    done = subprocess.run(command + [POOLER_BIN, pooler.ini], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=10, cwd=pooler.folder, preexec_fn=preexec, **pooler.who)
    same(done.returncode, 1)
    fatal = [line for line in done.stderr.splitlines() if " FATAL " in line]
    same(len(fatal), 1, done.stderr)
    return fatal[0]


@ours
def test_forbidden_setup_is_explained(t):
    said = refused_start(t, [compiled(t, "tests/integration/forbid.c", "forbid"), str(IO_URING_SETUP)])
    assert "io_uring is forbidden" in said and "seccomp" in said and "io_uring_setup" in said, said


@ours
def test_forbidden_register_is_explained(t):
    said = refused_start(t, [compiled(t, "tests/integration/forbid.c", "forbid"), str(IO_URING_REGISTER)])
    assert "io_uring is forbidden" in said and "io_uring_register" in said, said


@ours
def test_too_little_locked_memory_is_explained(t):
    def limit():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (16384, 16384))
    said = refused_start(t, [], limit)
    assert "RLIMIT_MEMLOCK" in said and "LimitMEMLOCK" in said and "16 KiB" in said, said


class Counted:
    """A pooler whose heap allocations are counted."""

    def __init__(self, t, **settings):
        if b"__asan_init" in open(POOLER_BIN, "rb").read() or b"__tsan_init" in open(POOLER_BIN, "rb").read():
            raise Skip("sanitizers have an allocator of their own")
        library = compiled(t, "bench/malloc_count.c", "malloc_count.so", "-fPIC", "-shared")
        self.counter = os.path.join(t.folder, "count")
        with open(self.counter, "wb") as file:
            file.write(bytes(8))
        os.chmod(self.counter, 0o666)
        os.environ.update(LD_PRELOAD=library, MALLOC_COUNT_FILE=self.counter)
        self.pooler = t.pooler(pool_mode="transaction", **settings)
        del os.environ["LD_PRELOAD"]

    def count(self):
        with open(self.counter, "rb") as file:
            return struct.unpack("Q", file.read(8))[0]


@plain  # here a server is opened in the middle, and its handshake allocates
@ours
def test_transactions_allocate_nothing(t):
    counted = Counted(t)
    with counted.pooler.connect() as c, counted.pooler.connect() as d:
        c.value("select 1")
        d.value("select 1")
        before = counted.count()
        assert before > 0, "nothing is counted"
        for _ in range(500):
            c.send(query("select 1"))
            d.send(query("begin"))
            same(c.results().value(), "1")
            d.results()
            d.query("commit")
        same(counted.count(), before)


@ours
def test_transactions_over_tls_allocate_nothing(t):
    made = certificates.of(t)
    backend = Backend(t, "server")
    counted = Counted(t, databases={"d": f"host=localhost port={backend.port}"},
                      **made.of_clients("server", sslmode="require"), **made.of_servers(sslmode="verify-full"))
    secured = Offer(client_context(made.path("ca")))
    with counted.pooler.connect("app", "d", tls=secured) as c, counted.pooler.connect("app", "d", tls=secured) as d:
        for _ in range(3):  # the first records of each size
            same(c.value("select 1"), "TLS")
            same(d.value("select '" + "x" * 10000 + "'"), "TLS")
        before = counted.count()
        assert before > 0, "nothing is counted"
        for _ in range(300):
            same(c.value("select 1"), "TLS")
            same(d.value("select '" + "x" * 10000 + "'"), "TLS")
        same(counted.count(), before)
