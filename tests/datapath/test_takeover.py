"""The daemon goes and comes; what the kernel enforces stays."""

import struct

import pytest

from tests.harness.datapath import Host, dropped, passed
from tests.harness.packets import IPV4, IPV6, Net, reply_to, tcp, udp
from tests.harness.policies import policy
from vagrant.lab.layout import CACHE
from vsfwd.datapath import DatapathError, bpf
from vsfwd.datapath.attach import Hooks, Twins
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.schema import STAGES
from vsfwd.image import InPlace

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}


def test_everything_survives_the_daemon(host: Host, net: Net) -> None:
    """Slots, policy, flows, counters and drops are as they were when a second daemon opens the same pins."""
    here = host.port("here")
    host.install(["allow in service tcp", "drop"], vnics=VNICS)
    here.receive(tcp(net.peer, net.here))
    here.send(reply_to(tcp(net.peer, net.here)))
    here.receive(tcp(net.peer, net.here, flags="A"))
    here.receive(udp(net.peer, net.here))
    slots, counters, drops = host.datapath.slots, host.datapath.rule_counters(), here.drops()
    sequence = host.datapath.status()["policy_seq"]
    host.restart()
    assert host.datapath.slots == slots
    assert host.datapath.rule_counters() == counters
    assert here.drops() == drops == {"rule_drop": 1}
    assert host.datapath.status()["policy_seq"] == sequence
    assert here.states() == ["established"]
    assert here.send(tcp(net.here, net.peer, 1000, "A", sport=80)) == passed(1)
    assert here.send(udp(net.here, net.peer)) == dropped("rule_drop", 2)


def test_a_takeover_shows_what_the_kernel_enforces(host: Host) -> None:
    """Before the new daemon installs anything: a vNIC under the old policy is open, another is closed."""
    here = host.port("here")
    host.install(["allow in", "drop"], vnics={"here": VNICS["here"]})
    twin = host.port("twin")
    assert host.datapath.modes() == {here.slot: "enforced", twin.slot: "closed"}
    host.restart()
    assert host.datapath.modes() == {here.slot: "enforced", twin.slot: "closed"}
    host.datapath.detach(here.id)
    assert host.datapath.modes() == {twin.slot: "closed"}


def test_a_device_that_takes_no_programs_holds_up_no_start(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with those that it has; all others get those of now."""
    here, twin = host.port("here"), host.port("twin")
    host.install(["allow"], vnics=VNICS)
    attach, attached = Hooks.attach, list[int]()

    def attach_all_but_one(hooks: Hooks, ifindex: int, twins: Twins) -> None:
        if ifindex == here.ifindex:
            raise DatapathError("there is no room for them")
        attach(hooks, ifindex, twins)
        attached.append(ifindex)

    monkeypatch.setattr(Hooks, "attach", attach_all_but_one)
    host.restart()
    assert attached == [twin.ifindex]
    assert set(host.datapath.modes().values()) == {"enforced"}


def test_half_open_flows_survive_too(host: Host) -> None:
    """The secret that says where they lie is kept: an answer after the restart finds its question."""
    here = host.port("here")
    host.install(["allow in", "drop"], vnics=VNICS)
    questions = [udp(net.peer, net.here) for net in (IPV4, IPV6)]
    for question in questions:
        assert here.receive(question) == passed(1, new=True)
    host.restart()
    for question in questions:
        assert here.send(reply_to(question)) == passed(1)


def test_a_rule_keeps_its_counters_in_every_policy(host: Host) -> None:
    """Counters belong to the rule's id: they go on when the policy around it changes, and end with the
    rule."""
    here = host.port("here")
    host.install(["allow service udp", "drop"], vnics=VNICS)
    host.install(["drop"], vnics=VNICS)
    host.install(["drop", "allow service udp"], vnics=VNICS)
    assert host.datapath.rule_counters()[2].packets == 0
    here.receive(udp(IPV4.peer, IPV4.here))
    counted = host.datapath.rule_counters()[1].packets
    host.install(["allow service tcp", "drop", "drop"], vnics=VNICS)
    host.restart()
    host.install(["allow service tcp", "drop"], vnics=VNICS)
    assert host.datapath.rule_counters()[1].packets == counted


def test_in_place_needs_a_bank_that_this_daemon_wrote(host: Host) -> None:
    """After a takeover the first plan must be a flip; anything else is refused and changes nothing."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    host.restart()
    image = host.image(policy(["allow"], vnics=VNICS))
    key = next(iter(image.hosts))
    with pytest.raises(DatapathError, match="in place"):
        host.datapath.install(InPlace(image, (), key, None))
    assert here.receive(udp("10.0.9.9", "10.0.0.1")) == passed(1, new=True)


def test_programs_of_before_go_on_with_stages_of_now(host: Host, net: Net) -> None:
    """After a new daemon has loaded, before it attaches, the old programs still know where a packet goes."""
    here = host.port("here")
    host.install(["allow out", "drop"], vnics=VNICS)
    host.unpin()
    try:
        with Programs(host.pins, CACHE):
            assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
            assert here.receive(tcp(net.peer, net.here)) == dropped("rule_drop", 2)
    finally:
        host.restart()


def test_without_a_stage_every_packet_is_dropped_and_counted(host: Host, net: Net) -> None:
    """Somebody has emptied the map of programs: nothing passes, until the daemon comes again."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    stages = host.datapath._programs.fd("stages")
    try:
        assert bpf.delete(stages, bytes(4))
        assert here.send(udp(net.here, net.peer)) == dropped("internal")
        assert here.receive(udp(net.peer, net.here)) == dropped("internal")
    finally:
        host.restart()
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)


@pytest.mark.parametrize("order", ["packet first", "search first"])
def test_stages_of_two_daemons_speak_of_one_packet(host: Host, net: Net, order: str) -> None:
    """While a new daemon puts its programs in place, one by one: a stage goes on with what another found."""
    here = host.port("here")
    host.install(["drop monitored", "allow out", "drop"], vnics=VNICS)
    stages = host.datapath._programs.fd("stages")
    stage = STAGES["PACKET" if order == "packet first" else "SEARCH"]
    host.unpin()
    try:
        with Programs(host.pins, CACHE) as later:
            for number, name in enumerate(STAGES):
                if number != stage:
                    program = host.datapath._programs._programs[name.lower()]
                    bpf.update(stages, struct.pack("<I", number), struct.pack("<I", program))
            for _ in range(2):
                assert here.receive(tcp(net.peer, net.here)).reason == "rule_drop"
            assert here.send(udp(net.here, net.peer)).verdict == "pass"
            assert later.vnic_in
    finally:
        host.restart()
