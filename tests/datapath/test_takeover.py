"""The daemon goes and comes; what the kernel enforces stays."""

import socket
import subprocess
import threading

import pytest

from tests.harness.datapath import DEVICES, Host, Port, dropped, passed, until
from tests.harness.packets import Net, reply_to, tcp, udp
from tests.harness.policies import policy
from vsfwd.datapath import DatapathError
from vsfwd.image import InPlace

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}


def filters(device: str) -> str:
    command = ["tc", "filter", "show", "dev", device]
    return "".join(
        subprocess.run([*command, side], check=True, capture_output=True, text=True).stdout
        for side in ("ingress", "egress")
    )


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
    host.port("twin")
    assert host.datapath.open_slots() == {here.slot}
    host.restart()
    assert host.datapath.open_slots() == {here.slot}
    host.datapath.detach(here.id)
    assert host.datapath.open_slots() == set()


def test_half_open_flows_survive_too(host: Host, net: Net) -> None:
    """The secret that says where they lie is kept: an answer after the restart finds its question."""
    here = host.port("here")
    host.install(["allow in", "drop"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    host.restart()
    assert here.send(reply_to(udp(net.peer, net.here))) == passed(1)


def test_programs_are_replaced_in_one_step(host: Host) -> None:
    """One filter a side before and after, in the same place, of another program."""
    here = host.port("here")
    before = filters(here.device)
    host.restart()
    after = filters(here.device)
    assert before.count("handle 0x1") == after.count("handle 0x1") == 2
    assert before != after


def test_frames_never_pass_unseen_while_programs_are_replaced(host: Host, net: Net) -> None:
    """Every frame that a workload sends through the wire during takeovers meets a program."""
    here = host.port("here")
    host.install(["drop"], vnics=VNICS)
    frames = [bytes(here.frame_out(udp(net.here, net.peer)))] * 20_000
    workload = threading.Thread(target=here.wire, args=frames)
    workload.start()
    while workload.is_alive():
        host.datapath.attach(here.id, here.ifindex, here.mac)
    until(lambda: here.drops() == {"rule_drop": len(frames)})


def test_a_rule_keeps_its_counters_in_every_policy(host: Host, net: Net) -> None:
    """Counters belong to the rule's id: they go on when the policy around it changes, and end with the
    rule."""
    here = host.port("here")
    host.install(["allow service udp", "drop"], vnics=VNICS)
    host.install(["drop"], vnics=VNICS)
    host.install(["drop", "allow service udp"], vnics=VNICS)
    assert host.datapath.rule_counters()[2].packets == 0
    here.receive(udp(net.peer, net.here))
    counted = host.datapath.rule_counters()[1].packets
    host.install(["allow service tcp", "drop", "drop"], vnics=VNICS)
    host.restart()
    host.install(["allow service tcp", "drop"], vnics=VNICS)
    assert host.datapath.rule_counters()[1].packets == counted


def test_attach_is_idempotent(host: Host, net: Net) -> None:
    """Announced again, a vNIC keeps slot, flows and policy; on another device too."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    assert host.datapath.attach(here.id, here.ifindex, here.mac) == here.slot
    assert here.receive(udp(net.peer, net.here)) == passed(1)
    moved = Port(host, "here", DEVICES - 1)
    assert moved.slot == here.slot
    assert moved.receive(udp(net.peer, net.here)) == passed(1)
    assert "bpf" not in filters(here.device)
    assert host.datapath.slots == {here.id: here.slot}


def test_a_device_number_proves_nothing(host: Host, net: Net) -> None:
    """A vNIC's device went while no daemon ran, and its number is another device's: that one is left
    alone."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    command = ["tc", "qdisc", "del", "dev", here.device, "clsact"]
    subprocess.run(command, check=True)
    host.restart()
    assert "bpf" not in filters(here.device)
    assert host.datapath.slots == {here.id: here.slot}
    assert host.datapath.attach(here.id, here.ifindex, here.mac) == here.slot
    assert filters(here.device).count("vsfwd_") == 2


def test_a_number_that_changes_hands(host: Host, net: Net) -> None:
    """Another vNIC is announced on the number of one that is gone: it starts closed, and to withdraw the old
    one later does not touch it."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    twin = Port(host, "twin", 0)
    assert twin.ifindex == here.ifindex
    assert twin.receive(tcp(net.peer, net.here)) == dropped("closed")
    host.datapath.detach(here.id)
    assert filters(twin.device).count("vsfwd_") == 2
    assert host.datapath.slots == {twin.id: twin.slot}


def test_detach_takes_the_programs_off(host: Host) -> None:
    """A vNIC that is withdrawn leaves no filter; to withdraw it twice, or after its device is gone, is
    fine."""
    here = host.port("here")
    host.datapath.detach(here.id)
    assert "bpf" not in filters(here.device)
    host.datapath.detach(here.id)
    subprocess.run(["ip", "link", "add", "passing", "type", "veth", "peer", "passed"], check=True)
    gone = host.datapath.attach(here.id, socket.if_nametoindex("passing"), "02:00:00:00:00:77")
    subprocess.run(["ip", "link", "del", "passing"], check=True)
    host.datapath.detach(here.id)
    assert gone not in host.datapath.slots.values()


def test_what_the_kernel_refuses_changes_nothing(host: Host, net: Net) -> None:
    """A device that is not there is an error with a sentence; no vNIC remains of it, and all others stay."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    status = host.datapath.status()
    with pytest.raises(DatapathError, match="attach the programs to device"):
        host.datapath.attach("00000000-0000-4000-8000-000000000009", 999999, "02:00:00:00:00:09")
    assert host.datapath.status()["vnics"] == status["vnics"]
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)


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
