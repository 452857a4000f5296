"""What the evaluator says of an excerpt is what it says of the whole policy."""

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import strategies
from tests.harness.policies import after, policy, vnic_id
from vsfwd.policy.ahead import Wire
from vsfwd.policy.decision import decide
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet
from vsfwd.policy.excerpt import Excerpts
from vsfwd.policy.model import Direction
from vsfwd.protocol.envelope import Kind

DIRECTIONS = (Direction.IN, Direction.OUT)


@settings(max_examples=150, deadline=None)
@given(
    strategies.policies | strategies.mixed_policies,
    st.lists(strategies.packets(), min_size=1, max_size=20),
    st.sampled_from((None, 5, 10)),
)
def test_an_excerpt_decides_as_the_whole_policy(policy, packets, vlan) -> None:  # type: ignore[no-untyped-def]
    """Random policies, with Ethernet rules, exclusions, monitored rules and jumps; every vNIC, both
    directions, one excerpt after the other from the same memory."""
    state = after(DesiredState(), policy, Kind.SNAPSHOT)
    excerpts, wire = Excerpts(state), Wire(vlan=vlan)
    for packet in packets:
        for vnic in state.vnics:
            for direction in DIRECTIONS:
                whole = decide(state, packet, vnic, direction, wire)
                part = decide(excerpts.about(packet, vnic, direction), packet, vnic, direction, wire)
                assert (part.verdict, part.words, part.frame_rule) == (
                    whole.verdict,
                    whole.words,
                    whole.frame_rule,
                )


def test_an_excerpt_knows_what_is_applied_by_an_address_that_the_packet_does_not_have() -> None:
    """The scope lists an address of the vNIC; the packet goes to another one of it."""
    state = policy(["drop on listed", "allow"], {"listed": ["10.0.0.1"]}, {"web": "10.0.0.1 10.0.0.2"})
    packet = Packet(ip_address("10.0.0.9"), ip_address("10.0.0.2"), 6, 80)
    question = (packet, vnic_id("web"), Direction.IN)
    assert decide(Excerpts(state).about(*question), *question, Wire()).verdict.rule_id == 1
