"""The same policy and the same packets through nftables with the kernel's connection tracking: another
opinion, by people who never heard of us. Where the two differ on purpose stands in `DELIBERATE`."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Final, NamedTuple

import msgspec
import pytest

from tests.harness.datapath import Host
from tests.harness.policies import after, vnic_id
from tests.oracle import frames
from tests.oracle.guarding import asks_too_small, guarded, rogue
from tests.oracle.nftables import router
from tests.oracle.policies import OWN, random_policy
from tests.oracle.reading import TCP, Read, read, read_quoted
from tests.oracle.talk import ONE_OPENS, Talk, packed
from tests.oracle.trial import Trial
from tests.oracle.walk import MACS, Change, Sent, new_talk
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import ExistingFlows, Tracking, Vnic
from vsfwd.protocol.envelope import Kind

PACKETS: Final = 100


def _quotes_tcp(packet: Read) -> bool:
    quoted = read_quoted(packet.quoted, packet.family) if packet.is_error else None
    return quoted is not None and quoted.protocol == TCP


class Difference(NamedTuple):
    """A packet that passes only one of the two: `ours`, whether that is us. `state`: of our flow of TCP that
    it belongs to or is about."""

    sent: Sent
    packet: Read
    ours: bool
    state: str | None


DELIBERATE: Final[dict[str, Callable[[Difference], bool]]] = {
    "ICMP that asks nothing and answers nothing is judged by the rules": lambda it: (
        it.ours and it.packet.is_icmp and not it.packet.is_request and not it.packet.is_error
    ),
    "an ICMP error quotes at least 8 bytes behind the IP header (RFC 792)": lambda it: (
        not it.ours and it.packet.is_error and read_quoted(it.packet.quoted, it.packet.family) is None
    ),
    "an ICMP error about TCP quotes a segment under way (RFC 5927 4.1)": lambda it: (
        not it.ours and _quotes_tcp(it.packet)
    ),
    "an ICMP error asks for no packets smaller than there are (RFC 8201)": lambda it: (
        not it.ours and it.packet.is_error and asks_too_small(it.packet)
    ),
    "IPv6 without a next header (59) is tracked like any protocol": lambda it: (
        it.ours and it.packet.family == 6 and it.packet.protocol == 59
    ),
    "neighbour discovery and MLD from beyond the link are dropped": lambda it: (
        not it.ours and guarded(it.packet, "out") is not None
    ),
    "router advertisements of a workload are dropped (X30)": lambda it: (
        not it.ours and rogue(it.packet, it.sent.direction) == "rogue_ra"
    ),
    "a connection that a RST has refused is remembered (tcpClosed)": lambda it: (
        it.ours and it.state == "closed"
    ),
}
"""What explains a difference. The same rows are in tests/README.md."""


@pytest.mark.parametrize(
    "policies", [5, pytest.param(100, marks=[pytest.mark.deep, pytest.mark.timeout(1800)])]
)
def test_nftables_has_the_same_opinion(host: Host, policies: int, seed: int | None) -> None:
    """A hundred packets a policy: each passes both or neither, or a row of the table says why."""
    unexplained = []
    for number in range(policies) if seed is None else [seed]:
        for it in _differences(host, Random(number)):
            if not any(explains(it) for explains in DELIBERATE.values()):
                who = "only we" if it.ours else "only nftables"
                unexplained.append(f"--seed {number}, {who}: {it.sent} {it.packet} {it.state or ''}")
    assert not unexplained, "\n".join(unexplained)


def _differences(host: Host, rng: Random) -> Iterator[Difference]:
    state = after(DesiredState(), _policy(rng), Kind.SNAPSHOT)
    host.unplug()
    trial = Trial(host)
    trial.take(Change(state))
    with router("nft", state) as nft:
        for direction, packet in _packets(rng):
            sent = Sent("here", direction, _frame(direction, packet))
            ours = trial.passes(sent)
            if ours != nft.passes(direction, packet) and (about := read(sent.frame)):
                yield Difference(sent, about, ours, trial.state_of(sent))


def _policy(rng: Random) -> dict[str, dict[str, object]]:
    """What nftables can say too: no rules for frames, every rule that matches decides, one address has one
    owner, connections begin with their SYN."""
    objects = random_policy(rng, decisive=True)
    plain = {"tracking": Tracking.STRICT, "existing_flows": ExistingFlows.RECHECK}
    return objects | {
        "rules": {
            id: msgspec.structs.replace(rule, **plain)
            for id, rule in objects["rules"].items()
            if rule.frames is None
        },
        "vnics": {
            vnic_id(name): Vnic("vm", name, "02:00:00:00:00:01", 0, own, tuple(rng.sample(("web", "app"), 1)))
            for name, own in OWN.items()
        },
    }


_DHCP: Final = {67, 68, 546, 547}
"""Whoever speaks from or to these is a server or is none; rules are asked later."""


def _packets(rng: Random) -> Iterator[tuple[str, bytes]]:
    """What a router sees too: nothing with the wrong address on one side. What is out of order in a TCP
    connection the two judge by tables of their own, so here nobody sends more than the other's window, no two
    conversations have the same ports, and on ports used before only one side opens."""
    talks = [new_talk(rng, "here", OWN["here"]) for _ in range(8)]
    for talk in talks:
        talk.windows = (65535,)
    talks = [talk for talk in talks if not _DHCP & {talk.lport, talk.rport}] or talks
    speakers = dict[tuple[bytes, int, bytes, int], Talk]()
    for _ in range(PACKETS):
        talk = rng.choice(talks)
        kind = rng.choices(("next", "stray", "error", "neighbour"), (70, 10, 10, 10))[0]
        if kind == "neighbour":
            talk, kind = talk.neighbour(rng), "next"
        if kind == "stray" and talk.protocol == TCP:
            kind = "next"
        direction, packet = getattr(talk, kind)(rng)
        if talk.protocol == TCP and kind == "next":
            talk.scripts, ends = ONE_OPENS, (talk.local, talk.lport, talk.remote, talk.rport)
            if speakers.setdefault(ends, talk) is not talk:
                continue
        source, destination = (
            (packet[8:24], packet[24:40]) if talk.family == 6 else (packet[12:16], packet[16:20])
        )
        own = {packed(address) for address in OWN["here"]}
        if (source in own) == (direction == "out") and (destination in own) == (direction == "in"):
            yield direction, packet


def _frame(direction: str, packet: bytes) -> bytes:
    ends = [MACS["here"], frames.PEER_MAC]
    return frames.ethernet(*(ends if direction == "in" else ends[::-1]), packet)
