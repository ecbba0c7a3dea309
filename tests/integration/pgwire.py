"""PostgreSQL's wire protocol by hand, so that a test can say any byte at any moment.

Nothing here is clever on purpose: a library that repairs, buffers or retries would hide what the
tests are looking for. Protocol: PostgreSQL manual, "Frontend/Backend Protocol".
"""

import base64
import hashlib
import hmac
import os
import select
import socket
import struct
import time

# A test that is expected to fail waits for less (harness.Variant).
patience = 1.0
# What makes another socket of each TCP one (runner.py --tls: tls_wire.prefer).
wrap_tcp = None


def patient(seconds):
    """How long to wait for what should come within so many seconds: less in a test that has to fail (harness.Variant),
    but long enough to see what takes a second."""
    return min(seconds, max(2.0, seconds * patience))

PROTOCOL_3_0 = 0x00030000
PROTOCOL_3_2 = 0x00030002
PROTOCOL_2_0 = 0x00020000
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102


class Closed(Exception):
    """The other side closed the connection."""


class TimedOut(Exception):
    """Nothing came in time."""


class PgError(Exception):
    """An ErrorResponse."""

    def __init__(self, fields):
        self.fields = fields
        self.severity = fields.get("S", "")
        self.sqlstate = fields.get("C", "")
        self.text = fields.get("M", "")
        super().__init__(f"{self.severity} {self.sqlstate} {self.text}")


class Message:
    __slots__ = ("type", "body")

    def __init__(self, type_, body):
        self.type = type_
        self.body = body

    def __repr__(self):
        shown = self.body if len(self.body) <= 120 else self.body[:120] + b"..."
        return f"<{self.type} {shown!r}>"

    def fields(self):
        """The fields of an ErrorResponse or NoticeResponse, by their letter."""
        found = {}
        for part in self.body.split(b"\0"):
            if part:
                found[chr(part[0])] = part[1:].decode("utf-8", "replace")
        return found

    def error(self):
        return PgError(self.fields())

    def strings(self):
        return [part.decode("utf-8", "replace") for part in self.body.split(b"\0")[:-1]]

    def row(self):
        count = struct.unpack_from("!H", self.body)[0]
        values, at = [], 2
        for _ in range(count):
            size = struct.unpack_from("!i", self.body, at)[0]
            at += 4
            if size < 0:
                values.append(None)
            else:
                values.append(self.body[at:at + size].decode("utf-8", "replace"))
                at += size
        return tuple(values)

    def columns(self):
        """RowDescription as a list of (name, type oid)."""
        count = struct.unpack_from("!H", self.body)[0]
        found, at = [], 2
        for _ in range(count):
            end = self.body.index(b"\0", at)
            name = self.body[at:end].decode()
            oid = struct.unpack_from("!I", self.body, end + 7)[0]
            found.append((name, oid))
            at = end + 19
        return found


# ---- messages -----------------------------------------------------------------------------------

def message(type_, body=b""):
    return type_.encode() + struct.pack("!I", len(body) + 4) + body


def text(value):
    return (value if isinstance(value, bytes) else value.encode()) + b"\0"


def untyped(code, body=b""):
    return struct.pack("!II", len(body) + 8, code) + body


def startup(params, version=PROTOCOL_3_0):
    pairs = params.items() if isinstance(params, dict) else params
    body = b"".join(text(key) + text(value) for key, value in pairs) + b"\0"
    return untyped(version, body)


def ssl_request():
    return untyped(SSL_REQUEST)


def gssenc_request():
    return untyped(GSSENC_REQUEST)


def cancel_request(pid, secret):
    return untyped(CANCEL_REQUEST, struct.pack("!I", pid) + secret)


def query(sql):
    return message("Q", text(sql))


def parse(name, sql, oids=()):
    body = text(name) + text(sql) + struct.pack("!H", len(oids))
    return message("P", body + b"".join(struct.pack("!I", oid) for oid in oids))


def bind(portal="", statement="", values=(), binary=False):
    """`binary`: parameters and results alike."""
    formats = struct.pack("!HH", 1, 1) if binary else struct.pack("!H", 0)
    body = text(portal) + text(statement) + formats + struct.pack("!H", len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            raw = value if isinstance(value, bytes) else str(value).encode()
            body += struct.pack("!i", len(raw)) + raw
    return message("B", body + formats)


def describe(kind, name=""):
    return message("D", kind.encode() + text(name))


def execute(portal="", rows=0):
    return message("E", text(portal) + struct.pack("!I", rows))


def close(kind, name=""):
    return message("C", kind.encode() + text(name))


def sync():
    return message("S")


def flush():
    return message("H")


def terminate():
    return message("X")


def copy_data(data):
    return message("d", data)


def copy_done():
    return message("c")


def copy_fail(reason):
    return message("f", text(reason))


def function_call(oid, values):
    body = struct.pack("!IHH", oid, 0, len(values))
    for value in values:
        raw = str(value).encode()
        body += struct.pack("!i", len(raw)) + raw
    return message("F", body + struct.pack("!H", 0))


def extended(sql, values=(), name="", oids=()):
    """Parse, Bind, Describe, Execute without a Sync."""
    return parse(name, sql, oids) + bind("", name, values) + describe("P") + execute()


# ---- messages of a server, for the tests that play one -----------------------------------------

def auth(code, body=b""):
    return message("R", struct.pack("!I", code) + body)


def error_response(**fields):
    body = b"".join(key.encode() + text(value) for key, value in fields.items())
    return message("E", body + b"\0")


def parameter_status(name, value):
    return message("S", text(name) + text(value))


def backend_key(pid, secret=b"\x01\x02\x03\x04"):
    return message("K", struct.pack("!I", pid) + secret)


def ready(status="I"):
    return message("Z", status.encode())


# ---- passwords ----------------------------------------------------------------------------------

def md5_secret(user, password):
    return "md5" + hashlib.md5((password + user).encode()).hexdigest()


def md5_answer(user, password, salt):
    secret = password if password.startswith("md5") and len(password) == 35 \
        else md5_secret(user, password)
    return "md5" + hashlib.md5(secret[3:].encode() + salt).hexdigest()


def _hmac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def scram_secret(password, salt=None, rounds=4096):
    """What PostgreSQL keeps in pg_authid for this password."""
    salt = salt or os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server = _hmac(salted, b"Server Key")
    b64 = lambda raw: base64.b64encode(raw).decode()
    return f"SCRAM-SHA-256${rounds}:{b64(salt)}${b64(stored)}:{b64(server)}"


class Scram:
    """The client's half of SCRAM-SHA-256 (RFC 7677), one message at a time."""

    def __init__(self, password, gs2="n,,", user="", binding=b""):
        self.password = password
        self.gs2 = gs2
        self.binding = binding  # what c= has behind the header
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.first_bare = f"n={user},r={self.nonce}"
        self.server_key = None
        self.signed = None

    def first(self):
        return (self.gs2 + self.first_bare).encode()

    def final(self, server_first):
        server_first = server_first.decode()
        parts = dict(part.split("=", 1) for part in server_first.split(","))
        assert parts["r"].startswith(self.nonce) and len(parts["r"]) > len(self.nonce)
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(),
                                     base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = _hmac(salted, b"Client Key")
        stored = hashlib.sha256(client_key).digest()
        bound = base64.b64encode(self.gs2.encode() + self.binding).decode()
        without_proof = f"c={bound},r={parts['r']}"
        self.signed = ",".join((self.first_bare, server_first, without_proof)).encode()
        self.server_key = _hmac(salted, b"Server Key")
        proof = bytes(a ^ b for a, b in zip(client_key, _hmac(stored, self.signed)))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def server_is_genuine(self, server_final):
        wanted = b"v=" + base64.b64encode(_hmac(self.server_key, self.signed))
        return server_final.split(b",")[0] == wanted


def sasl_initial(mechanism, data):
    return message("p", text(mechanism) + struct.pack("!i", len(data)) + data)


# ---- the client ---------------------------------------------------------------------------------

class Result:
    """What one simple Query, or everything up to one ReadyForQuery, brought."""

    def __init__(self, messages):
        self.messages = messages
        self.types = "".join(m.type for m in messages)
        self.rows = [m.row() for m in messages if m.type == "D"]
        self.tags = [m.body[:-1].decode() for m in messages if m.type == "C"]
        self.errors = [m.error() for m in messages if m.type == "E"]
        self.notices = [m.fields() for m in messages if m.type == "N"]
        self.columns = next((m.columns() for m in messages if m.type == "T"), None)
        self.status = messages[-1].body.decode() if self.types.endswith("Z") else None

    def value(self):
        assert len(self.rows) == 1 and len(self.rows[0]) == 1, self.rows
        return self.rows[0][0]


class Client:
    """A connection that does what it is told. `timeout` is for each wait."""

    def __init__(self, port, host="127.0.0.1", timeout=5.0, receive_bytes=None, tls=None):
        """`host` beginning with / is a folder of unix sockets. `tls` makes another socket of this one (tls_wire.Offer)."""
        timeout = patient(timeout)
        self.timeout = timeout
        if host.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            address = f"{host}/.s.PGSQL.{port}"
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.socket = socket.socket(family)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            address = (host, port)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(address)
            if tls or (wrap_tcp and not host.startswith("/")):
                self.socket = (tls or wrap_tcp)(self.socket)
        except (OSError, Closed):
            self.socket.close()
            raise
        self.buffer = bytearray()
        self.params = {}
        self.param_order = []
        self.key = None
        self.notices = []
        self.notifications = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vanish()

    # sending

    def send(self, data):
        self.socket.sendall(data)

    def send_split(self, data, sizes=1, pause=0.0):
        """In pieces of `sizes` bytes, or cut at the positions in a list."""
        cuts = list(range(sizes, len(data), sizes)) if isinstance(sizes, int) else list(sizes)
        for start, end in zip([0] + cuts, cuts + [len(data)]):
            self.socket.sendall(data[start:end])
            if pause:
                time.sleep(pause)

    # receiving

    def _fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimedOut()
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(262144)
        except socket.timeout:
            raise TimedOut() from None
        except (ConnectionResetError, BrokenPipeError):
            raise Closed("reset") from None
        if not data:
            raise Closed(f"closed, {len(self.buffer)} bytes left over")
        self.buffer += data

    def raw(self, count, timeout=None):
        deadline = time.monotonic() + (patient(timeout) if timeout else self.timeout)
        while len(self.buffer) < count:
            self._fill(deadline)
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def receive(self, timeout=None):
        """The next message, whatever it is."""
        deadline = time.monotonic() + (patient(timeout) if timeout else self.timeout)
        while len(self.buffer) < 5:
            self._fill(deadline)
        type_ = chr(self.buffer[0])
        size = struct.unpack_from("!I", self.buffer, 1)[0]
        assert size >= 4, f"message {type_} of length {size}"
        while len(self.buffer) < size + 1:
            self._fill(deadline)
        found = Message(type_, bytes(self.buffer[5:size + 1]))
        del self.buffer[:size + 1]
        if type_ == "S":
            name, value = found.strings()
            self.params[name] = value
            self.param_order.append(name)
        elif type_ == "N":
            self.notices.append(found.fields())
        elif type_ == "A":
            pid = struct.unpack_from("!I", found.body)[0]
            channel, payload = Message("A", found.body[4:]).strings()
            self.notifications.append((pid, channel, payload))
        elif type_ == "K":
            self.key = (struct.unpack_from("!I", found.body)[0], found.body[4:])
        return found

    def until(self, types, timeout=None):
        """All messages up to the first whose type is one of `types`."""
        deadline = time.monotonic() + (patient(timeout) if timeout else self.timeout)
        found = []
        while True:
            try:
                found.append(self.receive(max(deadline - time.monotonic(), 0.001)))
            except (Closed, TimedOut) as problem:
                raise type(problem)(f"{problem} waiting for {types} after {found}") from None
            if found[-1].type in types:
                return found

    def results(self, timeout=None):
        return Result(self.until("Z", timeout))

    def silent_for(self, seconds):
        """True when nothing at all arrives for that long. The one place where time is the point."""
        if self.buffer:
            return False
        return not select.select([self.socket], [], [], seconds)[0]

    def closed(self, timeout=None):
        """Reads to the end; the messages that still came. TimedOut when it stays open."""
        deadline = time.monotonic() + (patient(timeout) if timeout else self.timeout)
        found = []
        while True:
            try:
                found.append(self.receive(max(deadline - time.monotonic(), 0.001)))
            except Closed:
                return found

    def fatal(self, timeout=None):
        """The last error before the connection is closed."""
        found = self.closed(timeout)
        errors = [m.error() for m in found if m.type == "E"]
        assert errors, f"closed without an error: {found}"
        return errors[-1]

    # logging in

    def login(self, user="app", database="app", password=None, version=PROTOCOL_3_0, **params):
        pairs = [("user", user)]
        if database is not None:
            pairs.append(("database", database))
        self.send(startup(pairs + list(params.items()), version))
        return self.authenticate(user, password)

    def authenticate(self, user, password):
        """Answers what is asked until ReadyForQuery; gives the messages of the welcome."""
        scram, seen = None, []
        while True:
            found = self.receive()
            seen.append(found)
            if found.type == "E":
                raise found.error()
            if found.type == "Z":
                return seen
            if found.type != "R":
                continue
            code = struct.unpack_from("!I", found.body)[0]
            if code == 3:
                self.send(message("p", text(password or "")))
            elif code == 5:
                self.send(message("p", text(md5_answer(user, password or "", found.body[4:8]))))
            elif code == 10:
                scram = Scram(password or "")
                self.send(sasl_initial("SCRAM-SHA-256", scram.first()))
            elif code == 11:
                self.send(message("p", scram.final(found.body[4:])))
            elif code == 12:
                assert scram.server_is_genuine(found.body[4:]), "the pooler's signature is wrong"
            else:
                assert code == 0, f"authentication request {code}"

    # queries

    def query(self, sql, timeout=None):
        """A simple query; the first error is raised, after ReadyForQuery."""
        self.send(query(sql))
        found = []
        deadline = time.monotonic() + (patient(timeout) if timeout else self.timeout)
        while True:
            try:
                found.append(self.receive(max(deadline - time.monotonic(), 0.001)))
            except Closed:
                errors = [m.error() for m in found if m.type == "E"]
                if errors:
                    raise errors[-1] from None
                raise
            if found[-1].type == "Z":
                break
        result = Result(found)
        if result.errors:
            raise result.errors[0]
        return result

    def value(self, sql, timeout=None):
        return self.query(sql, timeout).value()

    def batch(self, data, timeout=None):
        """An extended batch, its Sync added; errors are in the result."""
        self.send(data + sync())
        return self.results(timeout)

    def pid(self):
        """The backend that answers just now."""
        return int(self.value("select pg_backend_pid()"))

    # the end

    def terminate(self):
        self.send(terminate())
        return self.closed()

    def vanish(self):
        """Gone without a word."""
        self.socket.close()

    def reset(self):
        """Gone with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def connect(port, user="app", database="app", password=None, host="127.0.0.1", timeout=5.0,
            receive_bytes=None, version=PROTOCOL_3_0, tls=None, **params):
    """A client that is logged in."""
    client = Client(port, host, timeout, receive_bytes, tls)
    try:
        client.login(user, database, password, version, **params)
    except BaseException:
        client.vanish()
        raise
    return client


def cancel(port, key, host="127.0.0.1", wait=True, tls=None):
    """Sends a cancel request and, like libpq, waits until the other side has closed."""
    with Client(port, host, tls=tls) as client:
        client.send(cancel_request(*key))
        return client.closed() if wait else None
