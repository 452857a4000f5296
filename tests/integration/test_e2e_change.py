"""Policy that changes while traffic flows: what was allowed and is not any more ends, what stays allowed
loses nothing, and no packet ever meets a mixture of two policies."""

import socket
import struct
import subprocess
from contextlib import suppress
from typing import Any

import pytest

from tests.harness.lab import ANY, World, allow, drop
from tests.harness.traffic import Stream
from vagrant.lab.probe import PATIENCE_S, Seen, connect, inside
from vsfwd.ipc.client import ask

ALLOWED, DROPPED = Seen.ALLOWED, Seen.DROPPED


class Session:
    """A TCP session whose two ends the test holds, from VM to VM, so that either can speak first."""

    def __init__(self, world: World, source: str, destination: str, port: int = 7000) -> None:
        with inside(world.vm(destination).namespace):
            listener = socket.create_server(("", port))
        with listener:
            self.client = connect(world.vm(source).namespace, world.address(destination), port)
            self.server, _ = listener.accept()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        """Reset, so that neither kernel sends again for a minute what nobody may hear any more: that would be
        counted as drops in the tests that follow."""
        for end in (self.client, self.server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


def arrives(
    sender: socket.socket, receiver: socket.socket, text: bytes, within_s: float = PATIENCE_S
) -> bool:
    sender.send(text)
    receiver.settimeout(within_s)
    with suppress(TimeoutError):
        return receiver.recv(2048) == text
    return False


def is_lost(sender: socket.socket, receiver: socket.socket, text: bytes) -> bool:
    """It is not received for a second, in which TCP sends it again several times."""
    return not arrives(sender, receiver, text, 1.0)


@pytest.mark.parametrize("destination", ["b", "c"])
def test_a_tag_taken_away_ends_a_session(world: World, destination: str) -> None:
    """The session was allowed for its tag; the client's next packet is checked again, and no longer
    passes."""
    world.enforce(allow("red", destination, "tcp/7000"))
    world.lab.set_tags("a", "red")
    with Session(world, "a", destination) as session:
        assert arrives(session.client, session.server, b"before")
        world.lab.set_tags("a")
        assert is_lost(session.client, session.server, b"after")


@pytest.mark.parametrize("destination", ["b", "c"])
def test_a_session_is_checked_again_on_a_reply_packet_too(world: World, destination: str) -> None:
    """The first packet after the change comes from the server. It is judged as part of the client's session:
    what the server may send by itself is not asked."""
    world.enforce(allow("red", destination, "tcp/7000"), allow(destination, ANY))
    world.lab.set_tags("a", "red")
    with Session(world, "a", destination) as session:
        assert arrives(session.server, session.client, b"before")
        world.lab.set_tags("a")
        assert is_lost(session.server, session.client, b"after")


def test_a_session_that_stays_allowed_goes_on(world: World) -> None:
    """Another rule allows it after the change, the tag is taken from somebody else: nothing is lost."""
    world.enforce(allow("red", "c", "tcp/7000"), allow("a", "c", "tcp/7000"))
    world.lab.set_tags("a", "red")
    with Session(world, "a", "c") as session:
        assert arrives(session.client, session.server, b"one")
        world.lab.set_tags("a")
        assert arrives(session.client, session.server, b"two")
        world.lab.set_tags("b", "red")
        assert arrives(session.server, session.client, b"three")
        world.enforce(drop("b", "c"), allow("a", "c", "tcp/7000"))
        assert arrives(session.client, session.server, b"four")


def test_no_packet_sees_a_mixture(world: World) -> None:
    """X44. Two policies take turns. Both forbid a's port 7001, each by a rule at another place; a mixture
    (the other's order, or no rule yet) would let it pass. Both allow port 7000, each by another rule: not one
    is lost. Every datagram is a flow of its own."""
    one = [drop("a", "c", "udp/7001"), allow(ANY, "c", "udp/7001"), allow("a", "c", "udp/7000")]
    other = [
        allow("b", "c", "udp/7001"),
        allow(ANY, "c", "udp/7000"),
        drop(ANY, ANY, "udp/7001"),
        allow("a", ANY, "udp/7001"),
    ]
    world.enforce(*one)
    with (
        Stream(world, "a", "c", 7001, fresh=True) as forbidden,
        Stream(world, "a", "c", 7000, fresh=True) as allowed,
        Stream(world, "a", "c", 7002) as unmentioned,
    ):
        for _ in range(6):
            for rules in (other, one):
                world.enforce(*rules)
                allowed.flowing()
    assert not forbidden.received
    assert not unmentioned.received
    assert len(allowed.sent) > 240
    assert not allowed.lost


def test_a_change_of_membership_disturbs_nobody_else(world: World) -> None:
    """A tag goes to and fro between b and d, in place in the tables: a's stream loses nothing, and who never
    has the tag never passes."""
    world.enforce(allow("red", "c", "udp/7001"), allow("a", "c", "udp/7000"))
    with (
        Stream(world, "a", "c", 7000, fresh=True) as allowed,
        Stream(world, "a", "c", 7001, fresh=True) as forbidden,
    ):
        for _ in range(5):
            for vm in ("b", "d"):
                world.lab.set_tags(vm, "red")
                world.lab.set_tags(vm)
        allowed.flowing()
    assert not allowed.lost
    assert not forbidden.received


def test_a_vm_that_frames_are_flooded_to_changes_nothing(world: World) -> None:
    """The bridge of host1 forgets at once whom it has heard, so it floods: b's device gets a copy of every
    frame between a and c. Each is dropped as not b's, before any rule; none becomes a flow of b or reaches
    its VM, and the session goes on."""
    world.enforce(allow("a", "c", "tcp/7000"))
    bridge = ["ip", "-n", world.lab.host("host1").namespace, "link", "set", "br-default", "type", "bridge"]
    with inside(world.vm("b").namespace):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0800))
    subprocess.run([*bridge, "ageing_time", "0"], check=True)
    try:
        with sniffer, Session(world, "a", "c") as session:
            before = drops(world, "b")
            sniffer.settimeout(0.3)
            for number in range(20):
                assert arrives(session.client, session.server, b"%d" % number)
                assert arrives(session.server, session.client, b"%d" % number)
            with suppress(TimeoutError):
                assert not sniffer.recv(2048), "a frame for another VM was delivered to b"
            after = drops(world, "b")
            assert after.pop("not_mine", 0) >= before.pop("not_mine", 0) + 40
            assert after == before
            assert locals_of_flows(world, "b") <= {world.vm("b").v4, world.vm("b").v6}
    finally:
        subprocess.run([*bridge, "ageing_time", "30000"], check=True)


def drops(world: World, vm: str) -> dict[str, int]:
    """Dropped packets of a VM by reason."""
    stats = ask(world.lab.host(world.vm(vm).host).socket, lambda vsfwd: vsfwd.Stats())["stats"]
    return next((dict(drops.reasons) for drops in stats.drops if drops.vnic == world.vm(vm).vnic), {})


def locals_of_flows(world: World, vm: str) -> set[str]:
    """The VM's own end of every connection that the datapath keeps for it."""

    async def collect(vsfwd: Any) -> set[str]:
        return {row.local async for reply in vsfwd.Flows(vnic=world.vm(vm).vnic) for row in reply["part"]}

    return ask(world.lab.host(world.vm(vm).host).socket, collect)
