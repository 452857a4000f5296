"""A random walk from one integer: policies, and the packets of a few conversations between the vNICs of
a host and others, as they should be and as they should not.

Nothing here depends on what comes of a packet, so any step can be left out and the others stay the same."""

from dataclasses import dataclass
from random import Random
from typing import Final

from tests.harness.policies import after, policy
from tests.oracle import frames
from tests.oracle.claims import random_claim
from tests.oracle.clock import random_pause
from tests.oracle.malformed import least, malformed
from tests.oracle.policies import HERE, OUTSIDE, OWN, PORTS, PROTOCOLS, changed, random_policy
from tests.oracle.reading import UDP
from tests.oracle.talk import Talk, packed
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import MAX_TIMER, SessionTimers
from vsfwd.protocol.envelope import Kind

MACS: Final = {name: bytes([2, 0, 0, 0, 0, number]) for number, name in enumerate(HERE)}
GROUP_MAC: Final = bytes.fromhex("333300000001")
PACKETS_A_POLICY: Final = 200
PAUSES: Final = 0.015
"""Of the packets, those that come late."""
TALKS: Final = 10


@dataclass(frozen=True)
class Change:
    state: DesiredState

    def __str__(self) -> str:
        """As it travels: what is not said has its default."""
        lines = [
            f"{kind} {id} {raw.decode()}"
            for kind in self.state.raw
            for id, raw in self.state.raw[kind].items()
        ]
        return "\n    ".join(["policy", *lines])


@dataclass(frozen=True)
class Sent:
    """A frame at a vNIC, `direction` as the workload sees it."""

    port: str
    direction: str
    frame: bytes

    def __str__(self) -> str:
        return f"{self.port} {self.direction} {self.frame.hex()}"


@dataclass(frozen=True)
class Pause:
    """Nothing for a while."""

    seconds: int

    def __str__(self) -> str:
        return f"{self.seconds} seconds later"


Step = Change | Sent | Pause


def walk(seed: int, packets: int) -> list[Step]:
    return _Walk(seed).steps(packets)


def storm(seed: int, packets: int) -> list[Step]:
    """Hardly a frame as it should be, under a policy that allows everything that is a packet."""
    rng, source = Random(-1 - seed), _Walk(seed)
    timers = [f"{name}={MAX_TIMER}" for name in SessionTimers().seconds()]  # so that time does not matter
    allow = policy(["allow"], vnics={name: " ".join((*OWN[name], *timers)) for name in HERE})
    return [Change(allow), *(source.spoilt(rng) for _ in range(packets))]


def _others(port: str) -> tuple[str, ...]:
    return (*(address for name in OWN for address in OWN[name] if name != port), *OUTSIDE)


def new_talk(rng: Random, port: str, local: tuple[str, ...]) -> Talk:
    """Between one of the local addresses and one that is no address of this vNIC."""
    family = rng.choice((4, 6))
    ends = [rng.choice([a for a in side if (":" in a) == (family == 6)]) for side in (local, _others(port))]
    protocol = rng.choices((6, 17, 1 if family == 4 else 58, rng.choice(PROTOCOLS[1:])), (6, 3, 3, 1))[0]
    ports = [rng.choice((1000, 1001, *PORTS)), rng.choice(PORTS)]
    if protocol == UDP and rng.random() < 0.2:
        ports = rng.sample((67, 68, 546, 547), 2)
    initiator = rng.choice(("in", "out"))
    if initiator == "in":
        ports.reverse()
    if protocol in (1, 58):
        ports[1] = rng.choice((0, 7, 8))
    return Talk(port, family, protocol, *map(packed, ends), *ports, initiator)


class _Walk:
    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._talks: list[Talk] = []
        self._pieces: list[Sent] = []
        """Of packets on their way in fragments."""

    def steps(self, packets: int) -> list[Step]:
        rng, steps = self._rng, list[Step]()
        objects, state = random_policy(rng), DesiredState()
        for number in range(packets):
            if number % PACKETS_A_POLICY == 0:
                objects = changed(rng, objects) if number else objects
                state = after(state, objects, Kind.SNAPSHOT)
                steps.append(Change(state))
            if rng.random() < PAUSES:
                steps.append(Pause(random_pause(rng)))
            steps.append(self._packet())
        return steps

    def spoilt(self, rng: Random) -> Sent:
        """Often one that is spoilt a little, since most ways to be wrong are behind a header that is
        right."""
        sent = self._packet()
        if rng.random() < 0.1:
            size = rng.choice((1, 20, 40, 60, 200))
            frame = sent.frame[:12] + rng.choice((b"\x08\0", b"\x86\xdd")) + rng.randbytes(size)
            frame += bytes(max(0, least(frame) - len(frame)))
        else:
            frame = sent.frame
            for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
                frame = malformed(rng, frame)
        return Sent(sent.port, sent.direction, frame)

    def _packet(self) -> Sent:
        """Pieces come one after the other, mostly."""
        if self._pieces and self._rng.random() < 0.7:
            return self._pieces.pop(0)
        if self._rng.random() < 0.02:
            talk = self._talk()
            direction, pieces = talk.pieces(self._rng)
            frames_ = [self._frame(talk.port, direction, piece) for piece in pieces]
            self._pieces += [Sent(talk.port, direction, frame) for frame in frames_]
        return self._other_packet()

    def _other_packet(self) -> Sent:
        rng, talk = self._rng, self._talk()
        kind = rng.choices(
            ("next", "stray", "error", "extra", "neighbour", "frame", "malformed", "claim"),
            (55, 14, 9, 4, 6, 4, 8, 5),
        )[0]
        if kind == "claim":
            return self._claim(talk.port)
        if kind == "neighbour":
            talk = talk.neighbour(rng)
        direction, packet = talk.next(rng) if kind != "stray" else talk.stray(rng)
        if kind == "error":
            direction, packet = talk.error(rng)
        if kind == "extra":
            packet = talk.with_extra(rng, direction)
        else:
            packet = rng.choices(
                (packet, frames.left_to_hardware(packet), frames.miscounted(packet)), (8, 1, 1)
            )[0]
        frame = self._frame(talk.port, direction, packet)
        if kind == "malformed":
            frame = malformed(rng, frame)
        elif kind == "frame":
            frame = self._odd(frame)
        return Sent(talk.port, direction, frame)

    def _claim(self, port: str) -> Sent:
        own = packed(OWN[port][0]), packed(OWN[port][1])
        return Sent(port, "out", random_claim(self._rng, MACS[port], own, [*map(packed, _others(port))]))

    def _talk(self) -> Talk:
        """One of the conversations that go on, or a new one in place of the oldest."""
        rng = self._rng
        if len(self._talks) < 2 or rng.random() < 0.04:
            self._talks = [*self._talks[-TALKS + 1 :], self._new_talk()]
        return rng.choice(self._talks)

    def _new_talk(self) -> Talk:
        """Mostly from an address of the vNIC, now and then from another's."""
        port = self._rng.choice(HERE)
        return new_talk(self._rng, port, OWN[port] if self._rng.random() < 0.85 else _others(port))

    def _frame(self, port: str, direction: str, packet: bytes) -> bytes:
        ends = [MACS[port], frames.PEER_MAC]
        return frames.ethernet(*(ends if direction == "in" else ends[::-1]), packet)

    def _odd(self, frame: bytes) -> bytes:
        """To a group, to another MAC address, from another, of another ethertype."""
        rng = self._rng
        kind = rng.choice(("group", "group", "other", "source", "ethertype"))
        if kind == "source":
            return frame[:6] + bytes.fromhex("020000000001") + frame[12:]
        if kind == "ethertype":
            return (
                frame[:12]
                + rng.choice((0x0806, 0x8100, 0x88A8, 0x0004, 0x8847)).to_bytes(2, "big")
                + frame[14:]
            )
        return (GROUP_MAC if kind == "group" else bytes.fromhex("020000000001")) + frame[6:]
