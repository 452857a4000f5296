"""What decides before rules for packets are asked: the rule for a packet's frame, and SpoofGuard."""

from ipaddress import ip_address

import pytest

from vsfwd.policy.ahead import Ahead, Wire, judge
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, Verdict
from vsfwd.policy.model import Action, Direction, Frames, Group, Match, Rule, SpoofGuard, Vnic

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
    """On the way out, by address and by MAC address; not the unspecified address of who asks for one."""
    guarded = state(spoofguard=SpoofGuard.MANUAL)
    forged = Ahead(None, DROP, f"SpoofGuard: {other} is no address of the vNIC")
    assert judge(guarded, packet(other, own), "own", OUT, Wire()) == forged
    assert judge(guarded, packet(own, other), "own", OUT, Wire()) == Ahead(None)
    assert judge(guarded, packet(other, own), "own", IN, Wire()) == Ahead(None)
    assert judge(state(), packet(other, own), "own", OUT, Wire()) == Ahead(None)
    words = judge(guarded, packet(own, other), "own", OUT, Wire(source=PEER)).words
    assert words == f"SpoofGuard: {PEER} is not the vNIC's MAC address"
    nobody = "::" if ":" in own else "0.0.0.0"
    assert judge(guarded, packet(nobody, other), "own", OUT, Wire()) == Ahead(None)
