"""A rejected sender is told at once, by packets that its own kernel accepts.

Real traffic here: two workloads in namespaces of their own on one bridge, with checksum offload on and off,
since the reply is made of a packet whose checksum its sender may have left to hardware."""

import errno
import select
import socket
import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Padding, Raw

from tests.harness.datapath import (
    Host,
    Port,
    checksums_right,
    dropped,
    inside,
    rejected,
)
from tests.harness.packets import IPV4, IPV6, Net, echo, ip, other, tcp, udp, unreachable
from tests.harness.wired import VNICS, Wired

ETH_P_ALL = 3


@pytest.fixture(params=[True, False], ids=["offload", "no-offload"])
def offload(request: pytest.FixtureRequest, wired: Wired) -> None:
    wired.offload(request.param)


def _connect(wired: Wired, net: Net, kind: int) -> tuple[int, list[Packet]]:
    """`here` speaks to port 9 of `twin`: the error it gets, and what frames it saw meanwhile."""
    family = socket.AF_INET6 if ":" in net.twin else socket.AF_INET
    with inside(wired.here):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        speaker = socket.socket(family, kind)
    with tap, speaker:
        tap.bind(("far0", ETH_P_ALL))
        speaker.settimeout(3)
        try:
            speaker.connect((net.twin, 9))
            speaker.send(b"x" * 100)
            speaker.recv(1)
            code = 0
        except OSError as error:
            code = error.errno or errno.ETIMEDOUT
        seen, deadline = [], time.monotonic() + 0.2
        while select.select([tap], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data, (_, _, type_, *_) = tap.recvfrom(65536)
            if type_ != socket.PACKET_OUTGOING:
                seen.append(Ether(data))
    return code, seen


def _answers(frames: list[Packet]) -> list[Packet]:
    return [
        frame
        for frame in frames
        if TCP in frame or (ICMP in frame and frame[ICMP].type == 3) or ICMPv6DestUnreach in frame
    ]


@pytest.mark.parametrize("net", [IPV4, IPV6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["out on web", "in on db"])
@pytest.mark.usefixtures("offload")
def test_tcp_is_refused_at_once(wired: Wired, net: Net, where: str) -> None:
    """connect() fails with ECONNREFUSED, wherever the rule is, by a RST with the right checksum."""
    wired.install(["allow service icmpv6", f"reject {where} service tcp/9", "allow"])
    code, frames = _connect(wired, net, socket.SOCK_STREAM)
    (answer,) = _answers(frames)
    assert code == errno.ECONNREFUSED
    assert answer[TCP].flags == "RA"
    assert checksums_right(answer)


@pytest.mark.parametrize("net", [IPV4, IPV6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["out on web", "in on db"])
@pytest.mark.usefixtures("offload")
def test_udp_is_refused_by_icmp(wired: Wired, net: Net, where: str) -> None:
    """A UDP sender is told "administratively prohibited", wherever the rule is."""
    wired.install(["allow service icmpv6", f"reject {where} service udp/9", "allow"])
    code, frames = _connect(wired, net, socket.SOCK_DGRAM)
    (answer,) = _answers(frames)
    assert code == (errno.EACCES if net is IPV6 else errno.EHOSTUNREACH)
    assert checksums_right(answer)


def test_a_dropped_connection_is_not_answered(wired: Wired) -> None:
    """The guard: where the rule says drop, connect() times out and nothing comes back."""
    wired.install(["allow service icmpv6", "drop in on db service tcp/9", "allow"])
    code, frames = _connect(wired, IPV4, socket.SOCK_STREAM)
    assert code == errno.ETIMEDOUT
    assert _answers(frames) == []


REJECT_ALL = ["reject"]


def _rejecting(host: Host) -> Port:
    here = host.port("here")
    host.install(REJECT_ALL, vnics=VNICS)
    return here


def test_a_rst_answers_what_the_segment_says(host: Host, net: Net) -> None:
    """RFC 9293 3.10.7.1: to a SYN a RST with ACK of SEQ + LEN, to an ACK a RST with its ACK as SEQ."""
    here = _rejecting(host)
    seen = here.receive(tcp(net.peer, net.here, 80, "S", data=10))
    assert seen == rejected(1)
    assert seen.reply is not None
    segment = seen.reply[TCP]
    assert (segment.flags, segment.seq, segment.ack) == ("RA", 0, 100 + 10 + 1)
    assert (segment.sport, segment.dport) == (80, 1000)
    assert (seen.reply.src, seen.reply.dst) == (here.mac, "02:00:00:00:99:99")
    assert checksums_right(seen.reply)


def test_icmp_quotes_the_rejected_packet(host: Host, net: Net) -> None:
    """The error names its reason and carries the IP header and the first eight bytes behind it."""
    here = _rejecting(host)
    packet = udp(net.here, net.peer, 53)
    seen = here.send(packet)
    assert seen == rejected(1)
    assert seen.reply is not None
    layer = seen.reply[ICMP] if net is IPV4 else seen.reply[ICMPv6DestUnreach]
    assert (layer.type, layer.code) == ((3, 13) if net is IPV4 else (1, 1))
    quoted = bytes(layer)[8:]
    assert quoted == bytes(packet)[: len(quoted)]
    assert len(quoted) == (28 if net is IPV4 else 48)
    assert checksums_right(seen.reply)


@pytest.mark.parametrize("length", range(9))
def test_x13_no_byte_behind_the_packet_is_quoted(host: Host, net: Net, length: int) -> None:
    """What follows the packet in its frame is not its own: the error quotes as much as the packet claims."""
    here = _rejecting(host)
    packet = other(net.peer, net.here, 47)
    packet[Raw].load = b"12345678"[:length]
    seen = here.receive(here.frame_in(packet) / Padding(b"another's"))
    assert seen == rejected(1)
    assert seen.reply is not None
    layer = seen.reply[ICMP] if net is IPV4 else seen.reply[ICMPv6DestUnreach]
    assert bytes(layer)[8:] == bytes(packet)
    assert checksums_right(seen.reply)


def test_what_must_not_be_answered_is_only_dropped(host: Host, net: Net) -> None:
    """No answer to groups and broadcasts, to packets with options, to ICMP that asks nothing, or to
    nobody."""
    here = _rejecting(host)
    silent = dropped("rule_reject", 1)
    multicast = "224.0.0.251" if net is IPV4 else "ff02::fb"
    group = Ether(src="02:00:00:00:99:99", dst="01:00:5e:00:00:fb") / udp(net.peer, multicast, 5353)
    assert here.receive(group) == silent
    nobody = "0.0.0.0" if net is IPV4 else "::"
    assert here.receive(udp(nobody, net.here, 53)) == silent
    assert here.receive(udp(net.peer, multicast, 53)) == silent
    assert here.receive(other(net.peer, net.here, 47)) == rejected(1)
    assert here.receive(echo(net.peer, net.here)) == rejected(1)
    assert here.receive(echo(net.peer, net.here, reply=True)) == silent


def test_never_a_rst_for_a_rst_nor_an_error_for_an_error(host: Host, net: Net) -> None:
    """A RST and an ICMP error belong to a flow or are dropped; neither reaches the rule."""
    here = _rejecting(host)
    assert here.receive(tcp(net.peer, net.here, 80, "R")) == dropped("no_state")
    quoted = udp(net.here, net.peer, 53)
    assert here.receive(unreachable(net.peer, quoted)) == dropped("icmp_error_unrelated")


def test_packets_with_ip_options_are_not_answered(host: Host) -> None:
    """IPv4 options: dropped without a reply; the same packet without them is answered."""
    here = _rejecting(host)
    packet = (
        IP(src="10.0.9.9", dst="10.0.0.1", options=[IPOption_NOP()]) / udp("10.0.9.9", "10.0.0.1").payload
    )
    assert here.receive(packet) == dropped("rule_reject", 1)
    assert here.receive(udp("10.0.9.9", "10.0.0.1")) == rejected(1)


def test_our_own_reply_passes_this_port_only(host: Host, net: Net) -> None:
    """The mark of a reply lets it by at the port that made it, and nowhere else."""
    here, twin = host.port("here"), host.port("twin")
    host.install(REJECT_ALL, vnics=VNICS)
    frame = bytes(here.frame_in(ip(net.peer, net.here) / tcp(net.peer, net.here, 80, "R").payload))
    marks = {port.slot: host.mark(port) for port in (here, twin)}
    assert here.run_raw(host.datapath.vnic_in, frame, marks[here.slot]) == 0
    assert here.run_raw(host.datapath.vnic_in, frame, marks[twin.slot]) == 2
    assert here.run_raw(host.datapath.vnic_in, frame) == 2
