"""TCP: a segment passes if its connection can have sent it, and only what fits exactly ends a connection.

Sequence numbers begin at ISN on both sides; each side of `Connection` says what the test has it say."""

import random
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet

from tests.harness.datapath import Host, Port, Seen, dropped, passed
from tests.harness.packets import IPV6, ISN, Net, tcp, unreachable
from vsfwd.datapath.schema import SEGMENTS
from vsfwd.datapath.transitions import SIDES, transitions

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web"}
UNFIT = dropped("tcp_window")
START = ISN + 1
WINDOW = 1000
"""What every segment here offers; a test run takes no packet over a page."""


class Connection:
    """Segments between the peer (port 1000) and port 80 of `here`; the peer is the initiator if `inbound`."""

    def __init__(self, port: Port, net: Net, inbound: bool) -> None:
        self.port, self.net, self.inbound = port, net, inbound

    def segment(self, initiator: bool, flags: str = "A", **fields: object) -> Packet:
        theirs = initiator == self.inbound
        ends = (self.net.peer, self.net.here) if theirs else (self.net.here, self.net.peer)
        sport, dport = (1000, 80) if theirs else (80, 1000)
        return tcp(*ends, dport, flags, sport=sport, **{"window": WINDOW, **fields})  # type: ignore[arg-type]

    def say(self, initiator: bool, flags: str = "A", **fields: object) -> Seen:
        theirs = initiator == self.inbound
        take: Callable[[Packet], Seen] = self.port.receive if theirs else self.port.send
        return take(self.segment(initiator, flags, **fields))

    def handshake(self, scales: tuple[int | None, int | None] = (None, None)) -> "Connection":
        first, second = ([("WScale", scale)] if scale is not None else [] for scale in scales)
        assert self.say(True, "S", options=first) == passed(1, new=True)
        assert self.say(False, "SA", options=second) == passed(1)
        assert self.say(True) == passed(1)
        assert self.port.states() == ["established"]
        return self

    @property
    def state(self) -> str:
        return self.port.flow().state


@pytest.fixture(params=["in", "out"])
def calling(request: pytest.FixtureRequest, host: Host, net: Net) -> Connection:
    """No segment yet. The rules allow one direction; the other is allowed as replies only."""
    port = host.port("here")
    inbound = request.param == "in"
    host.install([f"allow {request.param}", f"drop {'out' if inbound else 'in'}"], vnics=VNICS)
    return Connection(port, net, inbound)


@pytest.fixture
def open_(calling: Connection) -> Connection:
    return calling.handshake()


OPENINGS: dict[str, list[tuple[bool, str]]] = {
    "syn_sent": [(True, "S")],
    "syn_recv": [(True, "S"), (False, "SA")],
    "established": [(True, "S"), (False, "SA"), (True, "A")],
    "closing_initiator": [(True, "S"), (False, "SA"), (True, "A"), (True, "FA")],
    "closing_responder": [(True, "S"), (False, "SA"), (True, "A"), (False, "FA")],
    "fin_wait": [(True, "S"), (False, "SA"), (True, "A"), (True, "FA"), (False, "FA")],
    "closed": [(True, "S"), (False, "SA"), (True, "A"), (True, "R")],
}
"""How a connection gets into each state."""
FLAGS = {"SYN": "S", "SYN-ACK": "SA", "ACK": "A", "FIN": "FA", "RST": "R"}


@pytest.mark.parametrize(("state", "side", "segment"), list(transitions()))
def test_every_cell_of_the_table_of_transitions(
    calling: Connection, state: str, side: str, segment: str
) -> None:
    """Each state, each side, each kind of segment: what the table says is what the programs do."""
    for initiator, flags in OPENINGS[state]:
        calling.say(initiator, flags)
    assert calling.state == state
    cell = transitions()[state, side, segment]
    # A RST that refuses a SYN has no number of its own and acknowledges the SYN (RFC 9293 3.10.7.1).
    refuses = (state, side, segment) == ("syn_sent", "responder", "RST")
    seen = calling.say(side == "initiator", "RA" if refuses else FLAGS[segment])
    if cell == "drop":
        assert (seen, calling.state) == (dropped("tcp_state"), state)
    elif cell == "new" and side == "initiator":
        assert (seen, calling.state) == (passed(1, new=True), "syn_sent")
    elif cell == "new":
        assert seen == dropped("rule_drop", 2)
        assert calling.port.flows() == []
    else:
        assert (seen, calling.state) == (passed(1), state if cell == "-" else cell)


def test_the_table_names_every_state_and_segment() -> None:
    """No state of TCP and no kind of segment is left to chance."""
    named = transitions()
    assert {segment.replace("-", "_") for _, _, segment in named} == set(SEGMENTS)
    assert {(state, side) for state, side, _ in named} == {(s, side) for s in OPENINGS for side in SIDES}


@pytest.mark.parametrize("flags", ["", "F", "SF", "SR", "FPU", "SFRPAU", "PU", "SFA", "FR"])
def test_flags_no_tcp_sends_are_dropped(open_: Connection, flags: str) -> None:
    """Null, Xmas, SYN-FIN and the like, on a connection or outside of one: dropped, nothing changes."""
    for initiator in (True, False):
        assert open_.say(initiator, flags) == dropped("tcp_flags")
    assert open_.state == "established"


@pytest.mark.parametrize("initiator", [True, False])
def test_x18_data_outside_the_window_is_dropped(open_: Connection, initiator: bool) -> None:
    """It begins behind the window its receiver has offered, or ended more than a window ago."""
    assert open_.say(initiator, "PA", seq=START + WINDOW + 1, data=1) == UNFIT
    assert open_.say(initiator, "PA", seq=START - WINDOW - 2, data=1) == UNFIT
    assert open_.say(initiator, "PA", seq=START + (1 << 31), data=1) == UNFIT
    assert open_.say(initiator, "PA", seq=START + WINDOW, data=1) == passed(1)
    assert open_.say(initiator, "PA", seq=START, data=1) == passed(1)


@pytest.mark.parametrize("initiator", [True, False])
def test_x18_what_was_acknowledged_may_be_sent_again(open_: Connection, initiator: bool) -> None:
    """An acknowledgement gets lost: the segment comes again although it has been acknowledged, and passes."""
    assert open_.say(initiator, "PA", data=100) == passed(1)
    assert open_.say(not initiator, "A", ack=START + 100) == passed(1)
    assert open_.say(initiator, "PA", data=100) == passed(1)


@pytest.mark.parametrize("initiator", [True, False])
def test_x18_an_acknowledgement_of_what_was_never_sent_is_dropped(open_: Connection, initiator: bool) -> None:
    """Nobody acknowledges the future, nor a past that no window reaches."""
    assert open_.say(initiator, "A", ack=START + 1) == UNFIT
    assert open_.say(initiator, "A", ack=START - 66001) == UNFIT
    assert open_.say(initiator, "A", ack=START - 66000) == passed(1)


def test_the_window_slides(open_: Connection) -> None:
    """Each acknowledgement lets the other side go on, a window further."""
    at = START
    for _ in range(3):
        assert open_.say(True, "PA", seq=at, data=WINDOW) == passed(1)
        assert open_.say(True, "PA", seq=at + WINDOW + 1, data=1) == UNFIT
        at += WINDOW
        assert open_.say(False, "A", ack=at) == passed(1)


def test_sequence_numbers_wrap(calling: Connection) -> None:
    """A connection whose numbers pass 2^32 goes on."""
    last = (1 << 32) - 1
    calling.say(True, "S", seq=last)
    calling.say(False, "SA", ack=0)
    assert calling.say(True, "PA", seq=0, data=100) == passed(1)
    assert calling.say(False, "A", ack=100) == passed(1)
    assert calling.say(False, "A", ack=last - 70000) == UNFIT


@pytest.mark.parametrize(("scales", "reach"), [((0, 7), 128), ((None, 7), 1), ((7, None), 1), ((3, 0), 1)])
def test_the_window_is_scaled_if_both_syns_say_so(
    calling: Connection, scales: tuple[int | None, int | None], reach: int
) -> None:
    """RFC 7323: the responder's window of 1,000 is worth 128 times that, or once; a SYN is never scaled."""
    calling.handshake(scales)
    assert calling.say(True, "PA", seq=START + WINDOW + 1, data=1) == UNFIT
    calling.say(False, "A")
    assert calling.say(True, "PA", seq=START + WINDOW * reach + 1, data=1) == UNFIT
    assert calling.say(True, "PA", seq=START + WINDOW * reach, data=1) == passed(1)


def test_a_scale_in_odd_places_is_found(calling: Connection) -> None:
    """Behind other options; above 14 it counts as 14 (RFC 7323 2.3); in options cut short there is none."""
    first = [("MSS", 1460), ("NOP", None), ("SAckOK", b""), ("Timestamp", (1, 0)), ("WScale", 200)]
    calling.say(True, "S", options=first)
    calling.say(False, "SA", options=[("WScale", 0)])
    calling.say(True)
    assert calling.say(False, "PA", seq=START + (WINDOW << 14), data=1) == passed(1)
    assert calling.say(False, "PA", seq=START + (WINDOW << 14) + 2, data=1) == UNFIT


@pytest.mark.parametrize("options", [b"\x03", b"\x03\x03", b"\x08\x00\x03\x03\x07\x00", b"\x02\xff\x03\x03"])
def test_options_that_lie_are_no_trouble(calling: Connection, options: bytes) -> None:
    """A length of 0, one past the end, a cut one: the connection is there, without a scale."""
    padded = options.rjust(8, b"\x01")
    first = calling.segment(True, "S")
    first[TCP].dataofs = 5 + len(padded) // 4
    first[TCP].remove_payload()
    first = first / padded
    take = calling.port.receive if calling.inbound else calling.port.send
    assert take(first) == passed(1, new=True)
    calling.say(False, "SA", options=[("WScale", 7)])
    assert calling.say(True) == passed(1)
    calling.say(False)
    assert calling.say(True, "PA", seq=START + WINDOW + 1, data=1) == UNFIT


def test_a_closed_window_may_be_probed(open_: Connection) -> None:
    """A window of 0 leaves room for the one byte that asks whether it has opened (RFC 9293 3.8.6.1)."""
    assert open_.say(True, "PA", data=WINDOW) == passed(1)
    assert open_.say(False, "A", ack=START + WINDOW, window=0) == passed(1)
    assert open_.say(True, "A", seq=START + WINDOW, data=1) == passed(1)
    assert open_.say(True, "A", seq=START + WINDOW + 2, data=1) == UNFIT


def test_keepalives_pass(open_: Connection) -> None:
    """A byte before what comes next, RFC 9293 3.8.4."""
    assert open_.say(True, "A", seq=START - 1) == passed(1)
    assert open_.say(False, "A", seq=START - 1) == passed(1)


@pytest.mark.parametrize("initiator", [True, False])
def test_x16_only_an_exact_reset_closes(open_: Connection, initiator: bool) -> None:
    """Near: it passes, and its receiver asks back (RFC 5961 3.2). Far: dropped. Exact: closed."""
    assert open_.say(initiator, "R", seq=START + 1) == passed(1)
    assert open_.say(initiator, "R", seq=START + WINDOW) == passed(1)
    assert open_.say(initiator, "R", seq=START + WINDOW + 1) == UNFIT
    assert open_.say(initiator, "R", seq=START - 1) == UNFIT
    assert open_.state == "established"
    assert open_.say(initiator, "R", seq=START) == passed(1)
    assert open_.state == "closed"


def test_a_reset_behind_data_under_way_closes(open_: Connection) -> None:
    """Data, then RST, before anybody has acknowledged the data: it follows what was sent."""
    assert open_.say(True, "PA", data=100) == passed(1)
    assert open_.say(True, "R", seq=START + 100) == passed(1)
    assert open_.state == "closed"


@pytest.mark.parametrize("initiator", [True, False])
def test_x17_a_blind_syn_destroys_nothing(open_: Connection, initiator: bool) -> None:
    """It passes, the challenge it causes passes (RFC 5961 4.2), and so does the RST to one, which closes."""
    assert open_.say(initiator, "S", seq=12345) == passed(1)
    assert open_.say(not initiator, "A") == passed(1)
    assert open_.state == "established"
    assert open_.say(initiator, "PA", data=10) == passed(1)
    assert open_.say(initiator, "R", seq=START) == passed(1)
    assert open_.state == "closed"
    assert open_.say(True, "S", seq=99999) == passed(1, new=True)


def test_x17_a_challenge_of_a_forgotten_connection(calling: Connection) -> None:
    """The responder remembers an older connection: SYN, challenge, RST, SYN, and a connection."""
    assert calling.say(True, "S") == passed(1, new=True)
    assert calling.say(False, "A", seq=777, ack=555) == passed(1)
    assert calling.say(True, "R", seq=555) == passed(1)
    assert calling.state == "syn_sent"
    assert calling.say(True, "S") == passed(1)
    assert calling.say(False, "SA") == passed(1)
    assert calling.say(True) == passed(1)
    assert calling.state == "established"


def test_a_syn_ack_must_acknowledge_the_syn(calling: Connection) -> None:
    """A blind SYN-ACK, or a RST that refuses another SYN, does nothing."""
    assert calling.say(True, "S") == passed(1, new=True)
    assert calling.say(False, "SA", ack=START + 1) == UNFIT
    assert calling.say(False, "SA", ack=START + (1 << 31)) == UNFIT
    assert calling.say(False, "RA", ack=START + 1) == UNFIT
    assert calling.state == "syn_sent"
    assert calling.say(False, "SA") == passed(1)


def test_a_responder_may_speak_before_its_syn_is_acknowledged(calling: Connection) -> None:
    """RFC 7413: as much as the other's SYN has offered, and FIN. One acknowledgement is of all of it."""
    assert calling.say(True, "S", data=100) == passed(1, new=True)
    assert calling.say(False, "SA", ack=START + 100) == passed(1)
    assert calling.say(False, "PA", ack=START + 100, data=WINDOW) == passed(1)
    assert calling.say(False, "PA", seq=START + WINDOW + 1, ack=START + 100, data=1) == UNFIT
    assert calling.state == "syn_recv"
    assert calling.say(False, "FA", seq=START + WINDOW, ack=START + 100) == passed(1)
    assert calling.say(True, "A", seq=START + 100, ack=START + WINDOW + 1) == passed(1)
    assert calling.say(True, "FA", seq=START + 100, ack=START + WINDOW + 1) == passed(1)
    assert calling.state == "fin_wait"


def test_x19_half_a_connection_goes_on(open_: Connection) -> None:
    """One side has ended, the other still sends and is acknowledged."""
    assert open_.say(True, "FA") == passed(1)
    assert open_.say(False, "PA", data=100, ack=START + 1) == passed(1)
    assert open_.say(True, "A", seq=START + 1, ack=START + 100 + 1) == UNFIT
    assert open_.say(True, "A", seq=START + 1, ack=START + 100) == passed(1)
    assert open_.say(False, "FA", seq=START + 100, ack=START + 1) == passed(1)
    assert open_.state == "fin_wait"


def test_x19_both_may_open_at_once(calling: Connection) -> None:
    """Simultaneous open with data afterwards, RFC 9293 3.5."""
    assert calling.say(True, "S") == passed(1, new=True)
    assert calling.say(False, "S") == passed(1)
    assert calling.say(True, "SA") == passed(1)
    assert calling.say(False, "SA") == passed(1)
    assert calling.say(True, "PA", data=WINDOW) == passed(1)
    assert calling.say(False, "PA", data=WINDOW) == passed(1)
    assert calling.say(False, "PA", seq=START + WINDOW + 1, data=1) == UNFIT


@pytest.mark.parametrize("flags", ["SA", "FA", "R"])
def test_x14_a_wrong_checksum_changes_nothing(calling: Connection, flags: str) -> None:
    """SYN-ACK, FIN and RST are believed if their checksum is right, or left to the hardware."""
    for initiator, earlier in OPENINGS["syn_sent" if flags == "SA" else "established"]:
        calling.say(initiator, earlier)
    before = calling.state
    for damage in (1, 0x8000):
        packet = calling.segment(False, flags, data=5)
        right = type(packet)(bytes(packet))[TCP].chksum
        wrong = calling.segment(False, flags, data=5, chksum=right ^ damage)
        take = calling.port.send if calling.inbound else calling.port.receive
        assert take(wrong) == dropped("checksum")
    assert calling.state == before
    assert calling.say(False, flags, data=5) == passed(1)
    assert calling.state != before


@pytest.mark.parametrize("size", [0, 1, 2, 3, 491, 492, 493, 1003, 1004, 1005, 3000])
def test_checksums_of_any_length(open_: Connection, size: int) -> None:
    """Odd and even, one chunk of 512 bytes, a byte less and a byte more, several chunks."""
    assert open_.say(True, "FA", data=size, window=1) == passed(1)
    packet = open_.segment(False, "FA", data=size)
    packet = type(packet)(bytes(packet))
    packet[TCP].chksum ^= 0x0101
    take = open_.port.send if open_.inbound else open_.port.receive
    assert take(packet) == dropped("checksum")


@pytest.mark.parametrize("seed", [*range(6), 3711])
def test_checksums_of_any_addresses(host: Host, seed: int) -> None:
    """Long addresses with many bits set: whatever their sum carries over is part of it. With the last pair,
    what it carries over carries over again."""
    chosen = random.Random(seed)
    peer, address = (str(IPv6Address(2 << 124 | chosen.getrandbits(124))) for _ in range(2))
    port = host.port("here")
    host.install(["allow"], vnics=VNICS)
    connection = Connection(port, replace(IPV6, peer=peer, here=address), True).handshake()
    assert connection.say(True, "FA") == passed(1)
    packet = connection.segment(False, "FA")
    packet = type(packet)(bytes(packet))
    packet[TCP].chksum ^= 0x0101
    assert port.send(packet) == dropped("checksum")


@pytest.mark.parametrize("quoted", [START - 1, START + 101, START + (1 << 31)])
def test_x23_an_icmp_error_about_no_segment_under_way_is_dropped(open_: Connection, quoted: int) -> None:
    """RFC 5927 4.1: what it quotes lies between what was acknowledged and what was sent, or it is forged."""
    assert open_.say(True, "PA", data=100) == passed(1)
    victim = open_.net.peer if open_.inbound else open_.net.here
    take = open_.port.send if open_.inbound else open_.port.receive
    router = open_.net.here if open_.inbound else open_.net.other
    assert open_.segment(True, "PA").src == victim
    assert take(unreachable(router, open_.segment(True, "PA", seq=quoted))) == dropped("icmp_error_unrelated")
    assert take(unreachable(router, open_.segment(True, "PA", seq=START))) == passed(1)


def test_x16_zero_resets_no_handshake(calling: Connection) -> None:
    """Before the initiator has acknowledged anything, a blind RST with the number that stands in the empty
    field of its SYN closes nothing. Found by tests/oracle."""
    assert calling.say(True, "S") == passed(1, new=True)
    assert calling.say(False, "SA") == passed(1)
    assert calling.say(False, "R", seq=0) == UNFIT
    assert calling.state == "syn_recv"
    assert calling.say(False, "R", seq=START) == passed(1)
    assert calling.state == "closed"


def test_a_blind_syn_ack_near_the_number_of_the_syn_is_dropped(calling: Connection) -> None:
    """It acknowledges what was sent before there was a connection. Found by tests/oracle."""
    assert calling.say(True, "S") == passed(1, new=True)
    assert calling.say(False, "SA", ack=ISN - 1) == UNFIT
    assert calling.state == "syn_sent"


def test_x23_an_icmp_error_about_a_syn_ack_passes(calling: Connection) -> None:
    """Wherever the numbers begin, it is under way until it is acknowledged. Found by tests/oracle."""
    isn = (1 << 32) - 20
    assert calling.say(True, "S") == passed(1, new=True)
    assert calling.say(False, "SA", seq=isn) == passed(1)
    take = calling.port.receive if calling.inbound else calling.port.send
    router = calling.net.other if calling.inbound else calling.net.here
    assert take(unreachable(router, calling.segment(False, "SA", seq=isn))) == passed(1)


@pytest.mark.parametrize("side", [True, False], ids=["initiator", "responder"])
def test_x15_a_segment_that_dies_on_the_way_is_like_any(open_: Connection, side: bool) -> None:
    """Nobody here asks how far a packet will get. A segment that reaches the firewall and not its receiver
    has to fit like any; and what it ends is ended here: nothing revives the flow, and its time runs out."""

    def dying(flags: str, **fields: object) -> Seen:
        packet = open_.segment(side, flags, **fields)
        setattr(packet, "ttl" if open_.net.family == "ipv4" else "hlim", 1)
        take = open_.port.receive if side == open_.inbound else open_.port.send
        return take(packet)

    assert dying("R", seq=START + 2 * WINDOW) == UNFIT
    assert dying("R", seq=START + 5) == passed(1)
    assert dying("PA", seq=START + 2 * WINDOW, data=10) == UNFIT
    assert open_.state == "established"
    assert dying("R", seq=START) == passed(1)
    ends = open_.port.flow().expires_s
    open_.say(not side, "PA", data=10)
    open_.say(side, "PA", data=10)
    assert open_.state == "closed"
    assert open_.port.flow().expires_s <= ends


def test_a_segment_in_fragments_does_not_end_its_connection(calling: Connection) -> None:
    """How long it is the first fragment does not say; what comes next still fits."""
    calling.handshake()
    first = calling.segment(True, data=60)
    if IP in first:
        first.flags = "MF"
    else:
        first = IPv6(src=first.src, dst=first.dst) / IPv6ExtHdrFragment(m=1, id=7, nh=6) / first[TCP]
    take = calling.port.receive if calling.inbound else calling.port.send
    assert take(first) == passed(1)
    assert calling.say(False, ack=START + WINDOW) == passed(1)
    assert calling.say(True, seq=START + WINDOW, data=10) == passed(1)
