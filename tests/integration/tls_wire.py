"""TLS by hand over a socket of ours: a test may cut the ciphertext anywhere, put other bytes in between, and end without
a word. TLS itself is Python's (OpenSSL), over memory."""

import contextlib
import socket
import ssl

import pgwire

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
RECORD_ALERT, RECORD_HANDSHAKE, RECORD_DATA = 21, 22, 23


def client_context(ca=None, certificate=None, key=None, low=V1_2, high=V1_3, ciphers=None, alpn=None, checks_name=False):
    """`ca`: None believes everything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = checks_name
    context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    if ca:
        context.load_verify_locations(ca)
    return _common(context, certificate, key, low, high, ciphers, alpn)


def server_context(certificate, key, ca=None, low=V1_2, high=V1_3, ciphers=None, alpn=None):
    """`ca`: of the certificate that a client must have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
    return _common(context, certificate, key, low, high, ciphers, alpn)


def _common(context, certificate, key, low, high, ciphers, alpn):
    context.minimum_version, context.maximum_version = low, high
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # else the end of TCP is taken for close_notify
    if certificate:
        context.load_cert_chain(certificate, key)
    if ciphers:
        context.set_ciphers(ciphers)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


class Offer:
    """How a client turns its connection into one of TLS: given to pgwire as `tls`."""

    def __init__(self, context=None, server_name=None, direct=False, session=None):
        self.context = context or client_context()
        self.server_name, self.direct, self.session = server_name, direct, session

    def __call__(self, raw):
        if not self.direct:
            ask(raw)
        secured = TlsSocket(raw, self.context, server_name=self.server_name, session=self.session)
        secured.handshake()
        return secured


def prefer(raw):
    """TLS if the other side has it (runner.py --tls)."""
    raw.sendall(pgwire.ssl_request())
    return TlsSocket(raw, client_context()).handshake() if raw.recv(1) == b"S" else raw


def ask(raw):
    """SSLRequest, which must be granted."""
    raw.sendall(pgwire.ssl_request())
    answer = raw.recv(1)
    if answer != b"S":
        raise pgwire.Closed(f"answer to SSLRequest: {answer!r}")


class TlsSocket:
    """Looks like a socket to pgwire. `end` tells how the other side has ended: "close_notify", "cut off", or an alert."""

    def __init__(self, raw, context, server_side=False, server_name=None, session=None):
        self.raw = raw
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, server_name, session)
        self.plain = bytearray()
        self.end = None

    # the wire

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.raw.sendall(data)

    def pull(self):
        """More ciphertext from the wire."""
        data = self.raw.recv(131072)  # so that a recv of pgwire empties `plain`
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                return self
            except ssl.SSLWantReadError:
                self.flush()
                self.pull()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self.flush()  # the alert
                raise

    def hello(self):
        """The first flight, not sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def sealed(self, data):
        """Ciphertext, not sent."""
        self.tls.write(data)
        return self.outgoing.read()

    def _read(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            while not self.end:
                try:
                    data = self.tls.read(65536)
                    if not data:
                        self.end = "close_notify"
                    self.plain += data
                except ssl.SSLZeroReturnError:
                    self.end = "close_notify"
                except ssl.SSLEOFError:
                    self.end = "cut off"
                except ssl.SSLWantReadError:
                    raise
                except ssl.SSLError as problem:
                    self.end = "cut off" if problem.reason == "UNEXPECTED_EOF_WHILE_READING" else problem.reason
                    if self.end != "cut off":
                        raise
        self.flush()  # what TLS has to say meanwhile

    # like a socket

    def sendall(self, data):
        if data:
            for start in range(0, len(data), 1 << 20):
                self.tls.write(data[start:start + (1 << 20)])
                self.flush()

    def recv(self, count):
        while True:
            if not self.plain:
                self._read()
            if self.plain or self.end:
                data = bytes(self.plain[:count])
                del self.plain[:count]
                return data
            self.pull()

    def close_notify(self):
        """We say no more."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
            self.tls.unwrap()
        self.flush()

    def fileno(self):
        return self.raw.fileno()

    def __getattr__(self, name):
        return getattr(self.raw, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def record(kind, body, version=0x0303):
    return bytes([kind, version >> 8, version & 255, len(body) >> 8, len(body) & 255]) + body


def raw_bytes(client, seconds=5.0):
    """What comes on the wire itself until it ends."""
    raw = client.socket.raw if isinstance(client.socket, TlsSocket) else client.socket
    raw.settimeout(pgwire.patient(seconds))
    found = bytes(client.buffer)
    try:
        while True:
            more = raw.recv(65536)
            if not more:
                return found
            found += more
    except ConnectionResetError:
        return found
    except socket.timeout:
        raise pgwire.TimedOut(f"still open after {found!r}") from None
