"""Connections: what belongs to one passes in both directions, and nothing else does.

The policies here allow one direction only, so a reply can pass only as part of its flow."""

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import Host, Port, dropped, passed
from tests.harness.packets import IPV4, IPV6, Net, echo, other, reply_to, tcp, udp, unreachable

VNICS = {"here": "10.0.0.1 fd00::1 web"}
IN_ONLY = ["allow in", "drop out"]


@pytest.fixture
def here(host: Host) -> Port:
    """A vNIC that may be called, and may not call."""
    port = host.port("here")
    host.install(IN_ONLY, vnics=VNICS)
    return port


def opened(here: Port, net: Net, port: int = 80) -> tuple[Packet, Packet]:
    """A TCP connection from the peer, and what each side sends on it."""
    assert here.receive(tcp(net.peer, net.here, port)) == passed(1, new=True)
    assert here.send(reply_to(tcp(net.peer, net.here, port))) == passed(1)
    theirs, ours = tcp(net.peer, net.here, port, "A"), tcp(net.here, net.peer, 1000, "A", sport=port)
    assert here.receive(theirs) == passed(1)
    assert here.states() == ["established"]
    return theirs, ours


def flags(net: Net, inbound: bool, flags: str, port: int = 80) -> Packet:
    """One more segment of the connection that `opened` made."""
    if inbound:
        return tcp(net.peer, net.here, port, flags)
    return tcp(net.here, net.peer, 1000, flags, sport=port)


def test_a_tcp_connection_from_syn_to_time_wait(here: Port, net: Net) -> None:
    """Handshake, data both ways, FIN both ways: one flow through all its states, one session."""
    assert here.receive(flags(net, True, "S")) == passed(1, new=True)
    assert here.states() == ["syn_sent"]
    assert here.send(flags(net, False, "SA")) == passed(1)
    assert here.states() == ["syn_recv"]
    assert here.receive(flags(net, True, "A")) == passed(1)
    assert here.states() == ["established"]
    assert here.send(flags(net, False, "PA")) == passed(1)
    assert here.receive(flags(net, True, "FA")) == passed(1)
    assert here.states() == ["closing_initiator"]
    assert here.receive(flags(net, True, "FA")) == passed(1)
    assert here.states() == ["closing_initiator"]
    assert here.send(flags(net, False, "FA")) == passed(1)
    assert here.states() == ["fin_wait"]
    assert here.receive(flags(net, True, "A")) == passed(1)
    flow = here.flow()
    assert (flow.state, flow.packets_in, flow.packets_out, flow.initiator) == ("fin_wait", 5, 3, "in")
    assert (str(flow.local), flow.local_port, str(flow.remote), flow.remote_port) == (
        net.here,
        80,
        net.peer,
        1000,
    )


def test_the_neighbours_of_a_connection_are_strangers(here: Port, net: Net) -> None:
    """Another port, address, protocol or direction is not the connection."""
    opened(here, net)
    assert here.send(tcp(net.here, net.peer, 1001, "A", sport=80)) == dropped("no_state")
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=81)) == dropped("no_state")
    assert here.send(tcp(net.here, net.other, 1000, "A", sport=80)) == dropped("no_state")
    assert here.send(udp(net.here, net.peer, 1000, sport=80)) == dropped("rule_drop", 2)
    assert here.send(tcp(net.here, net.peer, 80, "A", sport=1000)) == dropped("no_state")


@pytest.mark.parametrize("first", ["A", "SA", "FA", "R", "RA", "PA"])
def test_only_a_syn_begins_a_connection(here: Port, net: Net, first: str) -> None:
    """Whatever else comes first has no state, leaves none, and no rule hears of it."""
    assert here.receive(flags(net, True, first)) == dropped("no_state")
    assert here.flows() == []


def test_the_handshake_in_its_order(here: Port, net: Net) -> None:
    """Before the SYN-ACK the initiator may only repeat its SYN; after it its ACK completes the handshake."""
    assert here.receive(flags(net, True, "S")) == passed(1, new=True)
    assert here.receive(flags(net, True, "S")) == passed(1)
    assert here.receive(flags(net, True, "A")) == dropped("tcp_state")
    assert here.receive(flags(net, True, "SA")) == dropped("tcp_state")
    assert here.send(flags(net, False, "A")) == passed(1)
    assert here.states() == ["syn_sent"]
    assert here.send(flags(net, False, "SA")) == passed(1)
    assert here.send(flags(net, False, "SA")) == passed(1)
    assert here.states() == ["syn_recv"]
    assert here.receive(flags(net, True, "PA")) == passed(1)
    assert here.states() == ["established"]


@pytest.mark.parametrize("bare", ["F", "FPU", "P", ""])
def test_a_segment_without_ack_changes_nothing(here: Port, net: Net, bare: str) -> None:
    """No receiver takes it (RFC 9293 3.10.7.4), so it closes nothing either. (Found by tests/oracle.)"""
    opened(here, net)
    assert here.receive(flags(net, True, bare)) == dropped("tcp_flags")
    assert here.send(flags(net, False, bare)) == dropped("tcp_flags")
    assert here.states() == ["established"]


def test_both_sides_may_open_at_once(here: Port, net: Net) -> None:
    """Simultaneous open, RFC 9293 3.5: SYN, SYN, SYN-ACK."""
    assert here.receive(flags(net, True, "S")) == passed(1, new=True)
    assert here.send(flags(net, False, "S")) == passed(1)
    assert here.states() == ["syn_recv"]
    assert here.receive(flags(net, True, "SA")) == passed(1)
    assert here.states() == ["established"]


@pytest.mark.parametrize("by_initiator", [True, False])
def test_a_reset_closes_and_a_syn_begins_anew(here: Port, net: Net, by_initiator: bool) -> None:
    """After a RST the same ports make a new session by the next SYN, and a reply cannot be the SYN."""
    opened(here, net)
    assert (here.receive if by_initiator else here.send)(flags(net, by_initiator, "R")) == passed(1)
    assert here.states() == ["closed"]
    assert here.receive(flags(net, True, "S")) == passed(1, new=True)
    assert here.states() == ["syn_sent"]


def test_reused_ports_never_inherit_a_verdict(here: Port, net: Net) -> None:
    """X19: the SYN after a closed connection is asked about as the new flow it is: out, it is denied."""
    opened(here, net)
    here.receive(flags(net, True, "FA"))
    here.send(flags(net, False, "FA"))
    assert here.states() == ["fin_wait"]
    assert here.send(flags(net, False, "S")) == dropped("rule_drop", 2)
    assert here.flows() == []


def test_a_refused_connection(here: Port, net: Net) -> None:
    """A RST answers the SYN: the flow is closed, and the next try is a new session."""
    assert here.receive(flags(net, True, "S")) == passed(1, new=True)
    assert here.send(flags(net, False, "RA")) == passed(1)
    assert here.states() == ["closed"]
    assert here.receive(flags(net, True, "S")) == passed(1, new=True)


@pytest.mark.parametrize("kind", ["udp", "echo", "gre"])
def test_a_reply_passes_without_a_rule(here: Port, net: Net, kind: str) -> None:
    """UDP, ICMP echo and protocols without ports: a reply passes as part of its flow, a stranger does not."""
    question = {
        "udp": udp(net.peer, net.here),
        "echo": echo(net.peer, net.here),
        "gre": other(net.peer, net.here, 47),
    }[kind]
    answer = reply_to(question)
    assert here.send(answer) == dropped("rule_drop", 2)
    assert here.receive(question) == passed(1, new=True)
    assert here.states() == ["echo" if kind == "echo" else "first"]
    assert here.send(answer) == passed(1)
    assert here.states() == ["echo" if kind == "echo" else "multiple"]
    assert here.receive(question) == passed(1)
    flow = here.flow()
    assert (flow.packets_in, flow.packets_out) == (2, 1)


def test_udp_without_reply_lives_shorter(here: Port, net: Net) -> None:
    """First 60 s, single 30 s, multiple 60 s."""
    lifetimes = []
    for packet, take in (
        (udp(net.peer, net.here), here.receive),
        (udp(net.peer, net.here), here.receive),
        (reply_to(udp(net.peer, net.here)), here.send),
    ):
        take(packet)
        lifetimes.append((here.flow().state, round(here.flow().expires_s, -1)))
    assert lifetimes == [("first", 60), ("single", 30), ("multiple", 60)]


def test_an_echo_request_is_no_echo_reply(here: Port, net: Net) -> None:
    """GHSA-c66w-hq56-4q97: the same identifier in the other direction is another flow; another one too."""
    assert here.receive(echo(net.peer, net.here, 7)) == passed(1, new=True)
    assert here.send(echo(net.here, net.peer, 7)) == dropped("rule_drop", 2)
    assert here.send(echo(net.here, net.peer, 8, reply=True)) == dropped("rule_drop", 2)
    assert here.send(echo(net.here, net.peer, 7, reply=True)) == passed(1)


def test_x24_an_echo_reply_that_nobody_asked_for_opens_no_way_for_requests(
    here: Port, host: Host, net: Net
) -> None:
    """It passes if a rule lets it, and is forgotten. (Found by tests/oracle, where nftables did not
    agree.)"""
    host.install(["allow out", "drop in"], vnics=VNICS)
    assert here.send(echo(net.here, net.peer, 7, reply=True)) == passed(1)
    assert here.flows() == []
    assert here.receive(echo(net.peer, net.here, 7)) == dropped("rule_drop", 2)


def test_an_icmp_error_passes_with_its_flow(here: Port, net: Net) -> None:
    """It must quote what this vNIC's flow sent the other way; it changes nothing about the flow."""
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    before = here.flow()
    assert here.send(unreachable(net.here, udp(net.peer, net.here))) == passed(1)
    after = here.flow()
    assert (after.state, after.packets_in, after.packets_out) == (before.state, 1, 0)
    assert after.expires_s <= before.expires_s


def test_an_icmp_error_about_nothing_is_dropped(here: Port, net: Net) -> None:
    """Another port, another address, the wrong direction, to somebody else: unrelated, each of them."""
    unrelated = dropped("icmp_error_unrelated")
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    assert here.send(unreachable(net.here, udp(net.peer, net.here, 54))) == unrelated
    assert here.send(unreachable(net.here, udp(net.peer, net.here, sport=1001))) == unrelated
    assert here.send(unreachable(net.here, udp(net.other, net.here))) == unrelated
    assert here.send(unreachable(net.here, tcp(net.peer, net.here, 53))) == unrelated
    assert here.receive(unreachable(net.other, udp(net.peer, net.here))) == unrelated
    error = unreachable(net.here, udp(net.peer, net.here))
    error.dst = net.other
    assert here.send(error) == unrelated


def test_x25_an_error_about_icmp_without_a_flow_is_about_no_echo(here: Port, net: Net) -> None:
    """Neighbour discovery or a timestamp, quoted, is not the echo with identifier 0. (Found by
    tests/oracle.)"""
    echo_0 = echo(net.peer, net.here, 0)
    assert here.receive(echo_0) == passed(1, new=True)
    quoted = Ether(bytes(Ether() / echo_0)).payload
    assert here.send(unreachable(net.here, quoted)) == passed(1)
    raw = bytearray(bytes(quoted))
    raw[20 if net.family == "ipv4" else 40] = 13 if net.family == "ipv4" else 135
    quoted = type(quoted)(bytes(raw))
    assert here.send(unreachable(net.here, quoted)) == dropped("icmp_error_unrelated")


def test_x13_bytes_behind_an_icmp_error_are_not_quoted(here: Port, net: Net) -> None:
    """What it quotes has to be in the packet; that the frame goes on does not help. (Found by
    tests/oracle.)"""
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    whole = unreachable(net.here, udp(net.peer, net.here))
    short = whole.copy()
    short.lastlayer().load, last = whole.lastlayer().load[:-1], whole.lastlayer().load[-1:]
    assert here.send(type(short)(bytes(short) + last)) == dropped("icmp_error_unrelated")
    assert here.send(whole) == passed(1)


@pytest.mark.parametrize("spoilt", [(0, 0x65), (0, 0x40), (6, 0x01), (7, 0x01)])
def test_x23_what_an_icmp_error_quotes_must_be_a_packet(here: Port, spoilt: tuple[int, int]) -> None:
    """Another version, a header that is too short, a later fragment (RFC 1122 3.2.2: there are no errors
    about these) name no flow, whatever stands where the ports would be."""
    question = udp("10.0.9.9", "10.0.0.1")
    assert here.receive(question) == passed(1, new=True)
    quoted = bytearray(bytes(question))
    quoted[spoilt[0]] = spoilt[1]
    error = IP(src="10.0.0.1", dst="10.0.9.9") / ICMP(type=3, code=3) / Raw(bytes(quoted))
    assert here.send(error) == dropped("icmp_error_unrelated")


def test_an_icmp_error_from_a_router_on_the_way(here: Port, host: Host, net: Net) -> None:
    """Whoever on the path sends it, what counts is what it quotes."""
    host.install(["allow out", "drop in"], vnics=VNICS)
    sent = tcp(net.here, net.peer, 80)
    assert here.send(sent) == passed(1, new=True)
    assert here.receive(unreachable(net.other, sent)) == passed(1)


def test_an_icmp_error_too_short_to_tell_is_dropped(here: Port) -> None:
    """An error that ends before the eight bytes behind the quoted header names no flow."""
    for net, tail in ((IPV4, 27), (IPV6, 47)):
        assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
        error = unreachable(net.here, udp(net.peer, net.here))
        error.lastlayer().load = bytes(udp(net.peer, net.here))[:tail]
        assert here.send(error) == dropped("icmp_error_unrelated")


def test_what_is_expired_is_missing(host: Host, net: Net) -> None:
    """A flow whose time is over does not exist: its packets are judged as strangers, to the millisecond."""
    here = host.port("here")
    host.install(IN_ONLY, vnics=VNICS)
    with host.timers(ESTABLISHED=0, FIRST=0):
        assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
        assert here.send(reply_to(udp(net.peer, net.here))) == dropped("rule_drop", 2)
        assert here.receive(flags(net, True, "S")) == passed(1, new=True)
        assert here.send(flags(net, False, "SA")) == passed(1)
        assert here.receive(flags(net, True, "A")) == passed(1)
        assert here.receive(flags(net, True, "A")) == dropped("no_state")
    assert here.flows() == []
