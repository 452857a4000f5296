"""Flows of the last minutes, as a dry run asks for them: live ones, and those that have ended."""

from tests.harness.datapath import Host, until
from tests.harness.packets import Net, echo, reply_to, tcp, udp
from vsfwd.datapath import TIMEOUTS_S

VNICS = {"here": "10.0.0.1 fd00::1"}


def test_flows_that_have_ended_are_seen_until_another_takes_their_place(host: Host, net: Net) -> None:
    """Expired, so it is no flow any more, but known by its age; asked for less, it is not told."""
    here = host.port("here")
    host.install(["allow in"], vnics=VNICS)
    here.receive(udp(net.peer, net.here, 53))
    with host.timers(**dict.fromkeys(TIMEOUTS_S, 0.1)):
        here.send(reply_to(udp(net.peer, net.here, 53)))
        until(lambda: not here.flows())
        ((flow, age_s),) = host.datapath.seen(here.slot, 60)
        assert (flow.initiator, flow.local_port, str(flow.remote)) == ("in", 53, net.peer)
        assert (flow.packets_in, flow.packets_out) == (1, 1)
        assert 0.1 <= age_s < 10
        assert host.datapath.seen(here.slot, 0.05) == []


def test_a_live_flow_is_as_old_as_its_last_packet(host: Host, net: Net) -> None:
    """Not as old as itself, and not as long as it may live."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    for packet in (tcp(net.peer, net.here, 80), echo(net.peer, net.here)):
        here.receive(packet)
        here.send(reply_to(packet))
    ages = {flow.protocol: age_s for flow, age_s in host.datapath.seen(here.slot, 60)}
    assert len(ages) == 2
    assert max(ages.values()) < 10


def test_a_flow_that_was_forbidden_since_is_not_seen(host: Host, net: Net) -> None:
    """The policy changes, its next packet is dropped: what it was is gone."""
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    here.receive(udp(net.peer, net.here, 53))
    assert len(host.datapath.seen(here.slot, 60)) == 1
    host.install(["drop"], vnics=VNICS)
    here.receive(udp(net.peer, net.here, 53))
    assert host.datapath.seen(here.slot, 60) == []


def test_a_logged_echo_says_whether_it_asks(host: Host, net: Net) -> None:
    """By its ICMP type, in both directions; other packets say none."""
    here = host.port("here")
    host.install(["drop logged"], vnics=VNICS)
    asks, answers = (8, 0) if net.family == "ipv4" else (128, 129)
    for take, ends in ((here.receive, (net.peer, net.here)), (here.send, (net.here, net.peer))):
        assert [each.icmp_type for each in take(echo(*ends)).events] == [asks]
        assert [each.icmp_type for each in take(echo(*ends, reply=True)).events] == [answers]
        assert [each.icmp_type for each in take(udp(*ends)).events] == [None]
