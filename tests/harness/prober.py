"""Traffic that looks for gaps in a firewall, constant while a test does something to it, in both families.

    with Prober(client, server, addresses) as prober:
        for number in range(20):
            prober.note(f"kill {number}")
            ...
    assert prober.violations() == []

Between the two namespaces are the programs, with a policy that says `RULES`. Four
kinds of traffic, once every tick, all with the tick's number in them:

    must-pass    a datagram of a new flow. Lost: the firewall was closed
    must-drop    a datagram of a new flow. Delivered: it was open
    established  a datagram of one flow and its echo, which passes because of the flow only
    stream       a record of one TCP connection and its echo. A segment sent again was lost on the way; one of
                 which TCP says that it had come already (RFC 2883) was only late
    changing     where a test keeps a `History` of its policies: a datagram of a new flow. Lost or delivered:
                 no policy that may have been in force then does that

Every number that is lost or delivered is told with the last note before it. Sockets stand in the namespaces,
the threads in this process: give it a process of its own where the test would keep it from its work."""

import math
import selectors
import socket
import struct
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self

from tests.harness.history import History
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until

PASS, DROP, ESTABLISHED, STREAM = "must-pass", "must-drop", "established", "stream"
CHANGING = "changing"
PORTS: Final = {PASS: 7000, DROP: 7001, ESTABLISHED: 7002, STREAM: 7003, CHANGING: 7004}
RULES: Final = (
    "allow service icmpv6",
    "allow service udp/7000",
    "allow service udp/7002",
    "allow service tcp/7003",
    "drop",
)
"""For the vNIC of an end, or of both, in the words of tests/harness/policies.py."""
PATIENCE_S: Final = 5
"""For a connection that waits until it may send again."""
OPENED_S: Final = 20
"""For one that is opened, and what is lost of that said again."""
SILENCE_S: Final = 1.0
"""No queue on the way holds a datagram for longer."""
LATE_S: Final = 0.25
"""Between the end of a tick and the last of its probes at the programs, on a busy machine."""
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NUMBER: Final = struct.Struct("!Q")
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
"""Of asm-generic/socket.h."""
_ROOM: Final = 1 << 24
"""Bytes of a buffer: what is lost for want of it would be the test's fault. A stream that waits for seconds
fills 69 kB with records of eight bytes."""
_RETRANSMITTED, _TWICE = 100, 216
"""struct tcp_info of linux/tcp.h: tcpi_total_retrans and tcpi_dsack_dups."""


@dataclass
class Tally:
    """One kind in one family. `missing`: sent, and not arrived yet."""

    kind: str
    family: int
    sent: int = 0
    arrived: int = 0
    missing: set[int] = field(default_factory=set)
    delivered: list[int] = field(default_factory=list)
    resent: int = 0
    """TCP segments that were sent again because they had not come."""

    def send(self, number: int) -> None:
        self.sent += 1
        if self.kind != DROP:
            self.missing.add(number)

    def arrive(self, number: int) -> None:
        self.arrived += 1
        self.missing.discard(number)
        if self.kind == DROP:
            self.delivered.append(number)

    def __str__(self) -> str:
        return f"{self.kind} IPv{self.family}: {self.arrived} of {self.sent}"


class Prober:
    """`addresses` are the server's, one of each family; `rate` is ticks a second. `tallies` may be read at
    any time; after the `with` block nothing is under way any more."""

    def __init__(
        self,
        client: str,
        server: str,
        addresses: Sequence[str],
        *,
        rate: int = 200,
        history: History | None = None,
    ) -> None:
        self.ticks = 0
        self.tallies: list[Tally] = []
        self._client, self._server = client, server
        self._addresses = addresses
        self._pause_s = 1 / rate
        self._notes: list[tuple[int, str]] = []
        self._history = history
        self._took: list[tuple[float, float]] = []
        """When each tick began, and when all of it was sent."""
        self._excuses: list[tuple[str, range]] = []
        self._stop, self._silent = threading.Event(), threading.Event()
        self._sends: list[Callable[[int], None]] = []
        self._selector = selectors.DefaultSelector()
        self._streams: list[tuple[Tally, socket.socket]] = []
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        self._last_arrival_s = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            stack.enter_context(self._selector)
            for address in self._addresses:
                self._add_datagrams(address)
                self._add_stream(address)
            self._stack = stack.pop_all()
        for thread in reversed(self._threads):
            thread.start()
        self.flowing(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        sender, receiver = self._threads
        sender.join()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and (self._awaited() or not self._quiet()):
            self._silent.wait(0.02)
        self._silent.set()
        receiver.join()
        for tally, end in self._streams:
            tally.resent += _resent(end)
        self._stack.close()

    def note(self, text: str) -> None:
        """What happens now, for the report."""
        self._notes.append((self.ticks, text))

    def flowing(self, more: int = 20) -> None:
        """Returns when `more` ticks from now on have been sent."""
        wanted = self.ticks + more
        wait_until(lambda: self.ticks >= wanted, "probes sent", every_s=0.005)

    def violations(self) -> list[str]:
        """A line for every kind that did what it must not."""
        return [
            *(
                f"{tally}, {len(numbers)} {what}: {self._told(numbers)}"
                for tally, what, numbers in self._wrong()
            ),
            *(f"{tally}, {tally.resent} segments lost" for tally in self._interrupted()),
        ]

    def counted(self) -> Counter[str]:
        """`probes`, and how many of them were `delivered` or `lost` that must not be."""
        counts = Counter(probes=sum(tally.sent for tally in self.tallies))
        for _, what, numbers in self._wrong():
            counts[what] += len(numbers)
        counts["lost"] += sum(tally.resent for tally in self._interrupted())
        return counts

    def _interrupted(self) -> list[Tally]:
        """Streams of which segments were lost."""
        return [tally for tally in self.tallies if tally.resent and not self._excuses]

    def _wrong(self) -> Iterator[tuple[Tally, str, list[int]]]:
        for tally in self.tallies:
            for what, did in self._forbidden(tally).items():
                if numbers := [number for number in did if not self._is_excused(tally, what, number)]:
                    yield tally, what, numbers

    def _is_excused(self, tally: Tally, what: str, number: int) -> bool:
        """A stream says again what was lost."""
        what = "connections" if tally.kind == STREAM else what
        return any(kind == what and number in numbers for kind, numbers in self._excuses)

    def _forbidden(self, tally: Tally) -> dict[str, list[int]]:
        if tally.kind != CHANGING:
            return {"lost": sorted(tally.missing), "delivered": tally.delivered}
        assert self._history
        did: dict[str, list[int]] = {"lost": [], "delivered": []}
        for number, (begun, ended) in enumerate(self._took):
            passed = number not in tally.missing
            if passed not in self._history.admissible(begun, ended + LATE_S):
                did["delivered" if passed else "lost"].append(number)
        return did

    @contextmanager
    def excused(self, *what: str) -> Iterator[None]:
        """Of what is sent meanwhile may be `lost`, or `delivered`, what must not; the `connections` from
        before may end for good."""
        begun = self.ticks - math.ceil(LATE_S / self._pause_s)  # what was on its way, or not echoed yet
        if "connections" in what:
            self._excuses.append(("connections", range(begun, sys.maxsize)))
        try:
            yield
        finally:
            self._excuses += [(each, range(begun, self.ticks + 3)) for each in what]

    def report(self) -> str:
        return "\n".join([*map(str, self.tallies), *self.violations()])

    def _told(self, numbers: Sequence[int]) -> str:
        """The first ones, each with what was noted last before it."""
        begins = [tick for tick, _ in self._notes]
        told = []
        for number in numbers[:10]:
            place = bisect_right(begins, number)
            told.append(f"{number} ({self._notes[place - 1][1]})" if place else str(number))
        return ", ".join(told) + ("" if len(numbers) <= 10 else ", ...")

    def _awaited(self) -> bool:
        return any(
            not self._is_excused(tally, "lost", number)
            for tally in self.tallies
            if tally.kind == STREAM
            for number in list(tally.missing)
        )

    def _quiet(self) -> bool:
        return time.monotonic() - self._last_arrival_s > SILENCE_S

    # -- sockets ---------------------------------------------------------------------------------------

    def _tally(self, kind: str, address: str) -> Tally:
        self.tallies.append(Tally(kind, 6 if ":" in address else 4))
        return self.tallies[-1]

    def _open(self, namespace: str, address: str, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        with inside(namespace):
            opened = socket.socket(_FAMILY[6 if ":" in address else 4], kind)
        self._stack.callback(opened.close)
        for buffer in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            opened.setsockopt(socket.SOL_SOCKET, buffer, _ROOM)
        return opened

    def _listen(self, readable: socket.socket, arrived: Callable[[socket.socket], None]) -> None:
        readable.setblocking(False)
        self._selector.register(readable, selectors.EVENT_READ, arrived)

    def _add_datagrams(self, address: str) -> None:
        for kind in (PASS, DROP, ESTABLISHED, *([CHANGING] if self._history else [])):
            server = self._open(self._server, address)
            server.bind((address, PORTS[kind]))
            client = self._open(self._client, address) if kind == ESTABLISHED else None
            if client:
                _establish(client, server)
            datagrams = _Datagrams(self._tally(kind, address), (address, PORTS[kind]), client)
            if client:
                self._listen(client, datagrams.read)
            self._listen(server, _echo if client else datagrams.read)
            self._sends.append(datagrams.say)

    def _add_stream(self, address: str) -> None:
        tally, where = self._tally(STREAM, address), (address, PORTS[STREAM])
        listener = self._open(self._server, address, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
        client = self._open(self._client, address, socket.SOCK_STREAM)
        client.settimeout(OPENED_S)
        client.connect(where)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server, _ = listener.accept()
        self._stack.callback(server.close)
        records = _Records(tally, client)
        self._listen(server, _echo_stream)
        self._listen(client, records.read)
        self._sends.append(records.say)
        self._streams += [(tally, client), (tally, server)]

    # -- threads ---------------------------------------------------------------------------------------

    def _send(self) -> None:
        with inside(self._client):  # where new sockets are opened
            due = time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                begun = time.monotonic()
                for send in self._sends:
                    send(self.ticks)
                self._took.append((begun, time.monotonic()))
                self.ticks += 1
                due = max(due + self._pause_s, time.monotonic())

    def _receive(self) -> None:
        while not self._silent.is_set():
            for key, _ in self._selector.select(0.05):
                self._last_arrival_s = time.monotonic()
                with suppress(OSError):  # nothing more is there, or the device is gone for a while
                    key.data(key.fileobj)


@dataclass(frozen=True)
class _Datagrams:
    """From `client`, or each from a socket of its own in the namespace of the thread."""

    tally: Tally
    where: tuple[str, int]
    client: socket.socket | None

    def say(self, number: int) -> None:
        self.tally.send(number)
        if self.client:
            self._say(self.client, number)
        else:
            with socket.socket(_FAMILY[self.tally.family], socket.SOCK_DGRAM) as new:
                self._say(new, number)

    def _say(self, client: socket.socket, number: int) -> None:
        with suppress(OSError):  # what cannot be sent is missing at the other end
            client.sendto(_NUMBER.pack(number), self.where)

    def read(self, end: socket.socket) -> None:
        while True:
            if datagram := end.recv(64):  # without a number: late, of those that established the flow
                self.tally.arrive(*_NUMBER.unpack(datagram))


@dataclass
class _Records:
    """Numbers one after the other, in a stream."""

    tally: Tally
    client: socket.socket
    read_so_far: bytes = b""

    def say(self, number: int) -> None:
        self.tally.send(number)
        with suppress(OSError):  # a connection that has ended
            self.client.send(_NUMBER.pack(number))

    def read(self, end: socket.socket) -> None:
        self.read_so_far += end.recv(65536)
        whole = len(self.read_so_far) // _NUMBER.size * _NUMBER.size
        for (number,) in _NUMBER.iter_unpack(self.read_so_far[:whole]):
            self.tally.arrive(number)
        self.read_so_far = self.read_so_far[whole:]


def figures(counts: Iterable[Counter[str]]) -> str:
    """Of several probers, in words."""
    all_ = sum(counts, Counter[str]())
    wrong = f"{all_['delivered']:,} delivered and {all_['lost']:,} lost that must not be"
    return f"{all_['probes']:,} probes, {wrong}"


def _establish(client: socket.socket, server: socket.socket) -> None:
    """A flow that nobody has answered yet makes room for others in a full table (bpf/README.md, "Room"): so
    this one is answered before it counts, and said again until it is, as TCP does; also what the kernel does
    not send, as it did once, by EINVAL, on a device that had just come up."""

    def answered() -> bool:
        with suppress(OSError):
            client.sendto(b"", server.getsockname())
            _, sender = server.recvfrom(64)
            server.sendto(b"", sender)
            client.recv(64)
            return True
        return False

    for end in (client, server):
        end.settimeout(0.5)
    wait_until(answered, "a flow that is answered", OPENED_S)


def _echo(server: socket.socket) -> None:
    while True:
        datagram, sender = server.recvfrom(64)
        server.sendto(datagram, sender)


def _echo_stream(server: socket.socket) -> None:
    server.sendall(server.recv(65536))


def _resent(end: socket.socket) -> int:
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (sent_again,), (had_come,) = (struct.unpack_from("=I", info, at) for at in (_RETRANSMITTED, _TWICE))
    return max(0, int(sent_again - had_come))
