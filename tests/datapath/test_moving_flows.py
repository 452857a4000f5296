"""Flows that change host, from the tables of one datapath into those of another: windows, timers, counters
and what the target's policy says of them (O30, O31, O34, O36)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scapy.packet import Packet

from tests.harness.datapath import Host, Port, Seen, dropped, inside, passed
from tests.harness.flows import realistic_flows
from tests.harness.packets import ISN, Net, echo, reply_to, tcp, udp
from vsfwd.datapath import Hold
from vsfwd.datapath.flowstate import Arrived, NoRoom, Round
from vsfwd.migration import blob
from vsfwd.migration.state import NO_FLOWS, NO_KEYS, NO_PINHOLES, Array, VmState, VnicState

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
WINDOW = 1000
UNFIT = dropped("tcp_window")
Target = tuple[Host, str]
pytestmark = pytest.mark.slow


def connect(port: Port, net: Net) -> None:
    """The peer connects; both sides offer a window of 1,000."""
    port.receive(tcp(net.peer, net.here, window=WINDOW))
    port.send(tcp(net.here, net.peer, 1000, "SA", sport=80, window=WINDOW))
    port.receive(tcp(net.peer, net.here, flags="A", window=WINDOW))


def on_the_wire(state: VnicState) -> VnicState:
    """As it comes out at the other end."""
    vm = VmState("vm", 0, True, 1, 1, [state])
    return blob.decode(blob.encode(vm)).vnics[0]


def exported(host: Host, port: Port, since: Round | None = None) -> VnicState:
    states = host.datapath.flow_states
    flows, gone = states.export(port.slot, since or Round())
    return on_the_wire(VnicState(port.id, flows, gone, states.pinholes(port.slot)))


def take(host: Host, port: Port, state: VnicState, *, same_policy: bool = True) -> int:
    states = host.datapath.flow_states
    arrived = states.arrived(state.flows, state.pinholes, same_policy=same_policy)
    return put(host, port, arrived)


def put(host: Host, port: Port, arrived: Arrived, **how: bool) -> int:
    built = host.datapath.flow_states.build(port.slot, arrived, **how)
    host.datapath.flow_states.put(port.slot, built)
    return built.flows


def move(
    target: Target, state: VnicState, rules: list[str], then: Callable[[Port], None], **how: Any
) -> None:
    """`here` comes to the target, dead, with its state, and is brought to life there."""
    host, namespace = target
    with inside(namespace):
        host.port("other")  # so that slots differ
        here = host.port("here")
        host.datapath.hold(here.id, Hold.DEAD)
        host.install(rules, vnics=VNICS)
        take(host, here, state, **how)
        assert here.receive(udp("10.0.9.9", "10.0.0.1")) == dropped("dead")
        host.datapath.hold(here.id, Hold.NONE)
        then(here)


def test_an_established_connection_goes_on_with_its_window(host: Host, target: Target, net: Net) -> None:
    """Under a strict rule, by which nothing begins in the middle: what fits passes, in both directions;
    what is outside the window does not."""
    here = host.port("here")
    host.install(["allow in", "drop"], vnics=VNICS)
    connect(here, net)
    here.receive(tcp(net.peer, net.here, flags="A", data=500, window=WINDOW))

    def then(there: Port) -> None:
        assert there.states() == ["established"]
        segment: dict[str, Any] = {"flags": "A", "window": WINDOW}
        assert there.receive(tcp(net.peer, net.here, seq=ISN + 5000, **segment)) == UNFIT
        assert there.receive(tcp(net.peer, net.here, seq=ISN + 501, ack=ISN + 5000, **segment)) == UNFIT
        answer = tcp(net.here, net.peer, 1000, "A", sport=80, data=100, ack=ISN + 501, window=WINDOW)
        assert there.send(answer) == passed(1)
        assert there.receive(tcp(net.peer, net.here, seq=ISN + 501, ack=ISN + 101, **segment)) == passed(1)
        assert there.receive(tcp(net.peer, net.here, sport=1001, flags="A")) == dropped("no_state")

    move(target, exported(host, here), ["allow in", "drop"], then)


def test_scales_counters_and_timers_go_along(host: Host, target: Target, net: Net) -> None:
    """A flow is there what it was here: but for the clock, which every host has its own of."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    here.receive(tcp(net.peer, net.here, options=[("WScale", 7)]))
    here.send(tcp(net.here, net.peer, 1000, "SA", sport=80, options=[("WScale", 3)]))
    here.receive(tcp(net.peer, net.here, flags="A"))
    here.send(udp(net.here, net.peer)), here.receive(reply_to(udp(net.here, net.peer)))
    here.receive(echo(net.peer, net.here))
    before, state = here.flows(), exported(host, here)

    def then(there: Port) -> None:
        for old, new in zip(sorted_(before), sorted_(there.flows()), strict=True):
            assert abs(old.expires_s - new.expires_s) < 5
            assert replace(old, expires_s=0, policy_seq=0) == replace(new, expires_s=0, policy_seq=0)
        again, _ = target[0].datapath.flow_states.export(there.slot, Round())
        assert by_key(again)["side"].tobytes() == by_key(state.flows)["side"].tobytes()

    move(target, state, ["allow"], then)


def sorted_(flows: list[Any]) -> list[Any]:
    return sorted(flows, key=lambda flow: flow.protocol)


def by_key(flows: Array) -> Array:
    return flows[np.argsort(flows["key"]["protocol"])]


def test_o30_a_flow_that_the_target_forbids_dies_there(host: Host, target: Target, net: Net) -> None:
    """It is asked about as its first packet, also when a reply comes first; what is allowed goes on."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    connect(here, net)
    here.send(udp(net.here, net.peer)), here.receive(reply_to(udp(net.here, net.peer)))

    def then(there: Port) -> None:
        assert there.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == dropped("rule_drop", 2)
        assert there.receive(reply_to(udp(net.here, net.peer))) == passed(1)
        assert there.states() == ["multiple"]

    move(target, exported(host, here), ["allow out", "drop"], then)


@pytest.mark.parametrize(("same_policy", "seen"), [(True, passed(1)), (False, dropped("policy_cut"))])
def test_what_is_cut_by_a_change_of_policy_is_not_cut_by_a_move(
    host: Host, target: Target, net: Net, same_policy: bool, seen: object
) -> None:
    """If the target has the very policy that the flow was decided under. And at the next change it is cut."""
    here = host.port("here")
    host.install(["allow cut"], vnics=VNICS)
    connect(here, net)

    def then(there: Port) -> None:
        assert there.receive(tcp(net.peer, net.here, flags="A")) == seen
        target[0].install(["allow cut"], vnics=VNICS)
        assert there.receive(tcp(net.peer, net.here, flags="A")).verdict == "drop"

    move(target, exported(host, here), ["allow cut"], then, same_policy=same_policy)


def test_what_was_to_be_cut_already_is_cut_at_the_target(host: Host, target: Target, net: Net) -> None:
    """The policy changed at the source, and the flow has not been asked since."""
    here = host.port("here")
    host.install(["allow cut"], vnics=VNICS)
    connect(here, net)
    host.install(["allow cut"], vnics=VNICS)
    ends = expecting(tcp(net.peer, net.here, flags="A"), dropped("policy_cut"))
    move(target, exported(host, here), ["allow cut"], ends)


def expecting(packet: Packet, seen: Seen) -> Callable[[Port], None]:
    """What comes of a packet that comes in."""

    def then(there: Port) -> None:
        assert there.receive(packet) == seen

    return then


def test_what_is_kept_is_kept_at_the_target(host: Host, target: Target, net: Net) -> None:
    """Though a new one would be denied, as on one host; and its rule counts it, if it is there."""
    here = host.port("here")
    host.install(["allow in keep"], vnics=VNICS)
    connect(here, net)

    def then(there: Port) -> None:
        assert there.receive(tcp(net.peer, net.here, flags="A")) == passed(1)
        assert there.receive(tcp(net.peer, net.here, sport=1001)) == dropped("rule_drop", 1)

    move(target, exported(host, here), ["drop keep"], then, same_policy=False)


@pytest.mark.parametrize("rule", [1, 4711])
def test_o32_a_host_that_lies_keeps_nothing_that_the_target_does_not(
    host: Host, target: Target, net: Net, rule: int
) -> None:
    """The source may be anybody's by now, and say that what it made up is kept, by a rule of the target that
    keeps nothing, or by one that is nowhere."""
    here = host.port("here")
    host.install(["allow in"], vnics=VNICS)
    connect(here, net)
    state = exported(host, here)
    state.flows["existing"], state.flows["answered"], state.flows["rule"] = 1, 1, rule
    move(target, state, ["drop"], expecting(tcp(net.peer, net.here, flags="A"), dropped("rule_drop", 1)))


def test_o36_what_is_left_of_a_lifetime_is_left_at_the_target(host: Host, target: Target, net: Net) -> None:
    """However late it is there by the clock; no longer than a packet would make it live there; and what has
    ended here is nothing there."""
    here = host.port("here")
    with host.timers(MULTIPLE=500):
        host.install(["allow"], vnics=VNICS)
        here.send(udp(net.here, net.peer)), here.receive(reply_to(udp(net.here, net.peer)))
    state = exported(host, here)
    assert abs(int(state.flows["left_ms"][0]) - 500_000) < 5_000

    for left_s, at_most in ((500, 60), (40, 40)):
        state.flows["left_ms"] = left_s * 1000

        def then(there: Port, at_most: int = at_most) -> None:
            assert at_most - 10 < there.flow().expires_s <= at_most

        with inside(target[1]):
            target[0].unplug()
        move(target, state, ["allow"], then)
    state.flows["left_ms"] = 0
    with inside(target[1]):
        there = target[0].port("twin")
        take(target[0], there, state)
        assert there.flows() == []


def test_a_later_round_has_what_has_changed(host: Host, net: Net) -> None:
    """New flows, those that have moved on, and the keys of those that are no more; all else stays unsaid."""
    here, since = host.port("here"), Round()
    host.install(["allow"], vnics=VNICS)
    for sport in (1000, 1001, 1002):
        here.receive(udp(net.peer, net.here, sport=sport))
    first = exported(host, here, since)
    assert (len(first.flows), len(first.gone)) == (3, 0)
    assert len(exported(host, here, since).flows) == 0
    here.send(reply_to(udp(net.peer, net.here, sport=1001)))
    here.receive(udp(net.peer, net.here, sport=1003))
    with host.timers(FIRST=0, SINGLE=0):
        host.install(["allow"], vnics=VNICS)
        here.receive(udp(net.peer, net.here, sport=1002))
    later = exported(host, here, since)
    assert sorted(later.flows["key"]["remote_port"].byteswap()) == [1001, 1003]
    assert later.gone["remote_port"].byteswap().tolist() == [1002]


def counted(port: Port) -> list[tuple[int, str, int, int]]:
    return sorted((flow.remote_port, flow.state, flow.packets_in, flow.packets_out) for flow in port.flows())


def test_rounds_put_together_are_the_last_table(host: Host, target: Target, net: Net) -> None:
    """While the VM runs on, and after it is frozen."""
    here, since = host.port("here"), Round()
    host.install(["allow"], vnics=VNICS)
    states, together = target[0].datapath.flow_states, None
    for sport in range(1000, 1060):
        here.receive(udp(net.peer, net.here, sport=sport))
        here.send(reply_to(udp(net.peer, net.here, sport=1000 + (sport * 7) % 60)))
        if sport % 20 == 0:
            state = exported(host, here, since)
            arrived = states.arrived(state.flows, state.pinholes, same_policy=True)
            together = arrived if together is None else states.merged(together, arrived, state.gone)
    state = exported(host, here, since)
    assert together is not None
    together = states.merged(together, states.arrived(state.flows, NO_PINHOLES, same_policy=True), state.gone)
    with inside(target[1]):
        there = target[0].port("here")
        assert put(target[0], there, together) == 60
        after = counted(there)
    assert after == counted(here)


def test_a_table_that_is_amended_is_as_one_that_is_made_anew(host: Host, target: Target, net: Net) -> None:
    """Round after round: flows that are new, that go on, that have ended, and that have begun anew since."""
    here, since, states = host.port("here"), Round(), target[0].datapath.flow_states
    host.install(["allow"], vnics=VNICS)
    together = states.arrived(NO_FLOWS, NO_PINHOLES, same_policy=True)
    with inside(target[1]):
        there = target[0].port("here")
        flows = put(target[0], there, together)
    for begins in (1000, 1050, 1080):
        for sport in range(begins, begins + 80):
            here.receive(udp(net.peer, net.here, sport=sport))
            here.send(udp(net.here, net.peer, sport, sport=53))
        state = exported(host, here, since)
        ended = state.flows["key"][:3]
        arrived = states.arrived(np.delete(state.flows, (1, 2)), NO_PINHOLES, same_policy=True)
        with inside(target[1]):
            found = states.amended(there.slot, flows, arrived, ended)
            assert found is not None
            states.amend(there.slot, found)
            amended, flows = counted(there), found.flows
            together = states.merged(together, arrived, ended)
            assert flows == len(amended) == put(target[0], there, together)
            assert amended == counted(there)
            assert states.amended(there.slot, flows + 1, arrived, NO_KEYS) is None


def test_o34_nothing_of_the_first_visit_is_left(host: Host, target: Target, net: Net) -> None:
    """There and back again: the flow that ended meanwhile is not there, and the others are as they are
    now."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    connect(here, net)
    here.send(udp(net.here, net.peer))
    state = exported(host, here)
    assert len(state.flows) == 2
    host.datapath.empty(here.id)
    assert here.flows() == []

    back: list[VnicState] = []

    def then(there: Port) -> None:
        assert there.receive(tcp(net.peer, net.here, flags="RA", window=WINDOW)) == passed(1)
        back.append(exported(target[0], there))

    move(target, state, ["allow"], then)
    assert sorted(back[0].flows["state"].tolist()) == [7, 8]
    take(host, here, back[0])
    assert sorted(here.states()) == ["closed", "first"]


@pytest.mark.parametrize("flows", [400, 512])
def test_a_table_takes_nearly_all_that_it_has_places_for(target: Target, flows: int) -> None:
    """Flows that nobody has answered may give way, as they do to new ones; no other does."""
    rows = realistic_flows(flows)
    rows["answered"][::3] = 0
    host, namespace = target
    with inside(namespace):
        there = host.port("here")
        housed = take(host, there, VnicState(there.id, rows))
        assert flows * 0.9 <= housed <= flows
        assert len(there.flows()) == housed
        assert sum(flow.packets_in > 0 for flow in there.flows()) > 0


def test_o31_a_table_that_is_too_small_is_known_before_the_switch(target: Target) -> None:
    """Nothing is installed, and what was there stays."""
    host, namespace = target
    with inside(namespace):
        there = host.port("here")
        take(host, there, VnicState(there.id, realistic_flows(3)))
        with pytest.raises(NoRoom, match="has room for 512 flows; of 600"):
            take(host, there, VnicState(there.id, realistic_flows(600)))
        assert len(there.flows()) == 3


def test_what_comes_late_gives_way_to_what_is_there(target: Target, net: Net) -> None:
    """A VM that runs here already, since nobody announced it: its own flows know better."""
    host, namespace = target
    with inside(namespace):
        there = host.port("here")
        host.install(["allow loose"], vnics=VNICS)
        there.send(udp(net.here, net.peer))
        states = host.datapath.flow_states
        late, _ = states.export(there.slot, Round())
        late["packets"], late["state"] = 1000, 10
        both = np.concatenate((late, realistic_flows(5)))
        there.send(udp(net.here, net.peer))
        arrived = states.arrived(both, NO_PINHOLES, same_policy=True)
        assert put(host, there, arrived, beside_own=True) == 6
        (own,) = [flow for flow in there.flows() if flow.rule_id == 1]
        assert (own.packets_out, own.state) == (2, "single")
        assert there.send(udp(net.here, net.peer)) == passed(1)


def test_a_data_connection_that_was_announced_is_let_by(host: Host, target: Target, net: Net) -> None:
    """The control connection has moved between PASV and SYN. Under another policy nothing is let by, nor
    for a rule that the target does not have."""
    here = host.port("here")
    host.install(["allow service tftp/69", "drop"], vnics=VNICS)
    request = udp(net.here, net.peer, 69, sport=5000)
    request.load = b"\0\1file\0octet\0"
    assert here.send(request) == passed(1, new=True)
    state = exported(host, here)
    assert state.pinholes["rule"].tolist() == [1]
    data = udp(net.peer, net.here, 5000, sport=6000)
    for rules, how, seen in (
        (["drop"], True, dropped("rule_drop", 1)),
        (["allow service tftp/69", "drop"], False, dropped("rule_drop", 2)),
        (["allow service tftp/69", "drop"], True, passed(1, new=True)),
    ):
        with inside(target[1]):
            target[0].unplug()
        move(target, state, rules, expecting(data, seen), same_policy=how)


def test_o32_a_host_that_lies_opens_nothing_by_a_rule_that_listens_to_nothing(
    host: Host, target: Target, net: Net
) -> None:
    """A data connection that was never announced, of a rule that drops."""
    here = host.port("here")
    host.install(["allow service tftp/69", "drop"], vnics=VNICS)
    request = udp(net.here, net.peer, 69, sport=5000)
    request.load = b"\0\1file\0octet\0"
    here.send(request)
    state = exported(host, here)
    state.pinholes["rule"] = 2
    data = udp(net.peer, net.here, 5000, sport=6000)
    move(target, state, ["allow service tftp/69", "drop"], expecting(data, dropped("rule_drop", 2)))


def test_an_empty_state_is_an_empty_table(target: Target) -> None:
    """A VM that has said nothing takes nothing along."""
    host, namespace = target
    with inside(namespace):
        there = host.port("here")
        assert take(host, there, on_the_wire(VnicState(there.id, NO_FLOWS, NO_KEYS))) == 0
        assert there.flows() == []
