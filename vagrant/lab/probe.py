"""Real traffic between VMs: sockets that live in a VM's network namespace, whatever thread uses them.

A probe is one attempt at a service, and what became of it: *allowed* (an answer came back), *dropped*
(silence) or *rejected* (a TCP RST, or ICMP saying that it is prohibited). `Servers` answers in a VM whatever
is asked of it. Nothing runs in a VM but these sockets, so nothing of a probe can stay behind.
"""

import ctypes
import errno
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000

TIMEOUT_S: Final = 2.0
"""After this long silence is a drop. An answer takes a few milliseconds, unless the first SYN is lost, or the
first request of who has to find its neighbour is lost or forbidden: both are repeated after a second."""
PATIENCE_S: Final = 15.0
"""For an answer that must come: TCP asks again after pauses that double."""
_REJECTED: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.ECONNRESET})
"""What the kernel makes of a RST, of ICMP 3/9, 3/10, 3/13 and of ICMPv6 1/1."""
_ECHO: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_MESSAGE: Final = b"vsfwd probe"


class Seen(StrEnum):
    ALLOWED = "allowed"
    DROPPED = "dropped"
    REJECTED = "rejected"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


@dataclass(frozen=True)
class Attempt:
    """From the VM in `namespace` to a service at `address`; an ICMP attempt (echo, either family) has no
    port."""

    namespace: str
    protocol: Protocol
    address: str
    port: int = 0


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in the network namespace meanwhile: sockets opened here stay there for good."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def probe(attempt: Attempt, timeout_s: float = TIMEOUT_S) -> Seen:
    """Make one attempt. Raises OSError when it could not even be made (no route, no such namespace)."""
    with _socket(attempt.namespace, attempt.protocol, attempt.address) as client:
        client.settimeout(timeout_s)
        try:
            client.connect((attempt.address, attempt.port))
            client.send(_request(attempt.protocol, client.family))
            return Seen.ALLOWED if client.recv(2048) else Seen.REJECTED
        except TimeoutError:
            return Seen.DROPPED
        except OSError as error:
            if error.errno not in _REJECTED:
                raise
            return Seen.REJECTED


def probe_all(attempts: Sequence[Attempt], timeout_s: float = TIMEOUT_S) -> list[Seen]:
    """All at once, answers in the order of the attempts: a long list takes as long as its slowest."""
    with ThreadPoolExecutor(max_workers=min(64, len(attempts)) or 1) as pool:
        return list(pool.map(lambda attempt: probe(attempt, timeout_s), attempts))


def connect(namespace: str, address: str, port: int, timeout_s: float = PATIENCE_S) -> socket.socket:
    """A TCP session that stays open, for tests that change the policy under it; `timeout_s` is that of all
    that is done with it. Raises OSError."""
    client = _socket(namespace, Protocol.TCP, address)
    try:
        client.settimeout(timeout_s)
        client.connect((address, port))
    except BaseException:
        client.close()
        raise
    return client


class Servers:
    """Echo servers in one VM, TCP and UDP, both families, in one thread. A context manager; ready when
    made."""

    def __init__(self, namespace: str, tcp: Iterable[int] = (), udp: Iterable[int] = ()) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        with inside(namespace):
            for port in tcp:
                self._listen(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True))
            for port in udp:
                self._listen(_udp_server(port))
        self._thread = threading.Thread(target=self._run, name=f"servers in {namespace}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._end(key.fileobj)  # type: ignore[arg-type]
        self._selector.close()

    def _listen(self, server: socket.socket) -> None:
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._woken:
                    return
                # A peer may be gone by the time we look: that is its matter.
                with suppress(BlockingIOError):
                    self._serve(ready)

    def _serve(self, ready: socket.socket) -> None:
        if ready.type == socket.SOCK_DGRAM:
            with suppress(OSError):
                data, peer = ready.recvfrom(2048)
                ready.sendto(data, peer)
        elif ready.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            session, _ = ready.accept()
            self._listen(session)
        else:
            try:
                data = ready.recv(65536)
                ready.send(data)
            except ConnectionError:
                data = b""
            if not data:
                self._end(ready)

    def _end(self, ended: socket.socket) -> None:
        self._selector.unregister(ended)
        ended.close()


def _socket(namespace: str, protocol: Protocol, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(namespace):
        if protocol is Protocol.TCP:
            return socket.socket(family, socket.SOCK_STREAM)
        if protocol is Protocol.UDP:
            return socket.socket(family, socket.SOCK_DGRAM)
        # The kernel's own ping sockets (ping_group_range): it matches replies and errors to the request.
        number = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
        return socket.socket(family, socket.SOCK_DGRAM, number)


def _request(protocol: Protocol, family: int) -> bytes:
    if protocol is not Protocol.ICMP:
        return _MESSAGE
    return struct.pack("!BBHHH", _ECHO[socket.AddressFamily(family)], 0, 0, 0, 1) + _MESSAGE


def _udp_server(port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    return server


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")
