"""What decides before rules for packets are asked: whose frame it is, the rule for it, and SpoofGuard."""

from dataclasses import replace
from ipaddress import ip_address

import msgspec
import pytest

from vsfwd.policy.ahead import Ahead, Wire, judge
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, Verdict
from vsfwd.policy.model import (
    ICMPV6,
    TCP,
    UDP,
    Action,
    Direction,
    Frames,
    Group,
    Match,
    Rule,
    SpoofGuard,
    Vnic,
)

IN, OUT = Direction.IN, Direction.OUT
OWN, PEER = "02:00:00:00:00:01", "02:00:00:00:00:02"
DROP = Verdict(Action.DROP, None)


def state(frames: Frames | None = None, spoofguard: SpoofGuard = SpoofGuard.DISABLED) -> DesiredState:
    """A vNIC and another; the rule, if any, is for frames that the other sends."""
    rule = Rule("l2", "ethernet", (1,), Action.DROP, sources=Match(groups=("g",)), frames=frames)
    return DesiredState(
        rules={9: rule} if frames else {},
        groups={"g": Group("theirs", macs=(PEER,))},
        vnics={
            "own": Vnic("vm1", "web", OWN, addresses=("10.0.0.1", "fd00::1"), spoofguard=spoofguard),
            "peer": Vnic("vm2", "db", PEER, addresses=("10.0.0.2", "fd00::2")),
        },
    )


def packet(source: str, destination: str) -> Packet:
    return Packet(ip_address(source), ip_address(destination), 6, 80)


def test_an_ethernet_rule_comes_first() -> None:
    """By the MAC address that the policy knows of the sender, unless another is given; of its own family."""
    ruled, question = state(Frames((0x0800,))), packet("10.0.0.2", "10.0.0.1")
    assert judge(ruled, question, "own", IN, Wire()) == Ahead(9, Verdict(Action.DROP, 9))
    assert judge(ruled, question, "own", IN, Wire(source="02:00:00:00:00:09")) == Ahead(None)
    assert judge(ruled, packet("10.0.0.9", "10.0.0.1"), "own", IN, Wire()) == Ahead(None)
    assert judge(ruled, packet("fd00::2", "fd00::1"), "own", IN, Wire()) == Ahead(None)


def test_a_tag_needs_a_rule() -> None:
    """Without one for its id the frame is dropped, by no rule."""
    question = packet("10.0.0.2", "10.0.0.1")
    assert judge(state(), question, "own", IN, Wire(vlan=7)) == Ahead(
        None, DROP, "no Ethernet rule allows its frame"
    )
    assert judge(state(Frames(None, ((7, 7),))), question, "own", IN, Wire(vlan=7)).frame_rule == 9


@pytest.mark.parametrize(("own", "other"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_spoofguard_drops_what_is_not_the_vnics_own(own: str, other: str) -> None:
    """On the way out, by address and by MAC address."""
    guarded = state(spoofguard=SpoofGuard.MANUAL)
    forged = Ahead(None, DROP, f"SpoofGuard: {other} is no address of the vNIC")
    assert judge(guarded, packet(other, own), "own", OUT, Wire()) == forged
    assert judge(guarded, packet(own, other), "own", OUT, Wire()) == Ahead(None)
    assert judge(guarded, packet(other, own), "own", IN, Wire()) == Ahead(None)
    assert judge(state(), packet(other, own), "own", OUT, Wire()) == Ahead(None)
    words = judge(guarded, packet(own, other), "own", OUT, Wire(source=PEER)).words
    assert words == f"SpoofGuard: {PEER} is not the vNIC's MAC address"


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        (Packet(ip_address("0.0.0.0"), ip_address("255.255.255.255"), UDP, 67, source_port=68), True),
        (Packet(ip_address("10.0.0.9"), ip_address("255.255.255.255"), UDP, 67, source_port=68), False),
        (Packet(ip_address("0.0.0.0"), ip_address("255.255.255.255"), UDP, 67, source_port=67), False),
        (Packet(ip_address("0.0.0.0"), ip_address("10.0.0.2"), TCP, 80), False),
        (Packet(ip_address("fe80::9"), ip_address("ff02::1:2"), UDP, 547, source_port=546), True),
        (Packet(ip_address("fd00::9"), ip_address("ff02::1:2"), UDP, 547, source_port=546), False),
        (Packet(ip_address("::"), ip_address("ff02::1:2"), UDP, 547, source_port=546), False),
        (Packet(ip_address("::"), ip_address("fd00::2"), TCP, 80), False),
        *(
            (Packet(ip_address("::"), ip_address("ff02::1"), ICMPV6, icmp_type=type), passes)
            for type, passes in {135: True, 133: True, 131: True, 132: True, 143: True, 136: False}.items()
        ),
        (Packet(ip_address("fe80::9"), ip_address("ff02::1"), ICMPV6, icmp_type=135), False),
    ],
)
def test_who_has_no_address_yet_may_ask_for_one(asked: Packet, passes: bool) -> None:
    """By DHCP, and in IPv6 as duplicate address detection and its like do; by nothing else."""
    words = f"SpoofGuard: {asked.source} is no address of the vNIC"
    expected = Ahead(None) if passes else Ahead(None, DROP, words)
    assert judge(state(spoofguard=SpoofGuard.TOFU), asked, "own", OUT, Wire()) == expected


def test_the_address_that_the_mac_makes_needs_no_trust() -> None:
    """RFC 4291, appendix A; that of another MAC address does."""
    guarded = state(spoofguard=SpoofGuard.MANUAL)
    assert judge(guarded, packet("fe80::ff:fe00:1", "fd00::2"), "own", OUT, Wire()) == Ahead(None)
    assert judge(guarded, packet("fe80::ff:fe00:2", "fd00::2"), "own", OUT, Wire()).verdict == DROP


def test_what_goes_to_another_mac_address_is_not_the_vnics() -> None:
    """The bridge has flooded it: no rule is asked. A group's frame is everybody's."""
    ruled, question = state(Frames((0x0800,))), packet("10.0.0.2", "10.0.0.1")
    words = "not mine: 02:00:00:00:00:09 is not the vNIC's MAC address"
    elsewhere = Wire(destination="02:00:00:00:00:09")
    assert judge(ruled, question, "own", IN, elsewhere) == Ahead(None, DROP, words)
    assert judge(ruled, question, "own", IN, Wire(destination="01:00:5e:00:00:01")).frame_rule == 9
    assert judge(ruled, packet("10.0.0.1", "10.0.0.2"), "own", OUT, elsewhere) == Ahead(None)


def test_a_forged_mac_address_comes_before_the_rules_for_frames() -> None:
    """The datapath counts it for SpoofGuard, whatever a rule says of it."""
    ruled = state(Frames((0x0800,)), spoofguard=SpoofGuard.MANUAL)
    ahead = judge(ruled, packet("10.0.0.1", "10.0.0.9"), "own", OUT, Wire(source=PEER))
    assert ahead == Ahead(None, DROP, f"SpoofGuard: {PEER} is not the vNIC's MAC address")


@pytest.mark.parametrize("spoofguard", [SpoofGuard.DISABLED, SpoofGuard.MANUAL])
def test_a_monitored_rule_for_frames_is_told(spoofguard: SpoofGuard) -> None:
    """It decides nothing, so what comes behind it does."""
    monitoring = state(Frames((0x0800,)), spoofguard)
    monitoring = replace(monitoring, rules={9: msgspec.structs.replace(monitoring.rules[9], monitored=True)})
    ahead = judge(monitoring, packet("10.0.0.2", "10.0.0.1"), "own", IN, Wire())
    assert ahead == Ahead(None, monitored=9)
    tagged = judge(monitoring, packet("10.0.0.2", "10.0.0.1"), "own", IN, Wire(vlan=7))
    assert tagged == Ahead(None, DROP, "no Ethernet rule allows its frame")


def marked(**marks: bool) -> DesiredState:
    unmarked = state()
    return replace(
        unmarked, vnics={**unmarked.vnics, "own": msgspec.structs.replace(unmarked.vnics["own"], **marks)}
    )


@pytest.mark.parametrize(("client", "server", "nobody"), [(68, 67, "10.0.0.9"), (546, 547, "fd00::9")])
def test_only_a_marked_vnic_is_a_dhcp_server(client: int, server: int, nobody: str) -> None:
    """Neither answers nor hears requests without the mark; asks, and hears answers, all the same."""
    own = "10.0.0.1" if "." in nobody else "fd00::1"

    def udp(out: bool, source_port: int, port: int) -> Packet:
        ends = (own, nobody) if out else (nobody, own)
        return Packet(*map(ip_address, ends), UDP, port, source_port=source_port)

    answer, request_in = udp(True, server, client), udp(False, client, server)
    assert (
        judge(state(), answer, "own", OUT, Wire()).words == "rogue: the vNIC is not marked as a DHCP server"
    )
    assert judge(state(), udp(True, 5000, client), "own", OUT, Wire()).verdict == DROP  # from any port
    assert judge(state(), request_in, "own", IN, Wire()).verdict == DROP
    assert judge(marked(dhcp_server=True), answer, "own", OUT, Wire()) == Ahead(None)
    assert judge(marked(dhcp_server=True), request_in, "own", IN, Wire()) == Ahead(None)
    assert judge(state(), udp(True, client, server), "own", OUT, Wire()) == Ahead(None)
    assert judge(state(), udp(False, server, client), "own", IN, Wire()) == Ahead(None)


def test_only_a_marked_vnic_is_a_router() -> None:
    """It advertises itself out of a marked one only; what comes in is for the rules."""
    out = Packet(ip_address("fe80::1"), ip_address("ff02::1"), ICMPV6, icmp_type=134)
    wire = Wire(destination="33:33:00:00:00:01")
    assert judge(state(), out, "own", OUT, wire).words == "rogue: the vNIC is not marked as a router"
    assert judge(marked(router=True), out, "own", OUT, wire) == Ahead(None)
    assert judge(state(), out, "own", IN, wire) == Ahead(None)


def test_a_guarded_vnic_claims_its_own_addresses() -> None:
    """In ARP and advertisements; an unspecified one claims nothing. What comes in claims what it likes."""
    guarded, ends = state(spoofguard=SpoofGuard.MANUAL), packet("fd00::1", "fd00::2")
    for claimed, words in (
        ("fd00::1", ""),
        ("fe80::ff:fe00:1", ""),
        ("::", ""),
        ("fd00::2", "SpoofGuard: fd00::2 is no address of the vNIC"),
    ):
        assert judge(guarded, ends, "own", OUT, Wire(claimed=ip_address(claimed))).words == words
    inwards = packet("fd00::2", "fd00::1")
    assert judge(guarded, inwards, "own", IN, Wire(claimed=ip_address("fd00::9"))) == Ahead(None)
    assert judge(state(), ends, "own", OUT, Wire(claimed=ip_address("fd00::2"))) == Ahead(None)
