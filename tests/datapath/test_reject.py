"""A rejected sender is told at once, by packets that its own kernel accepts.

Real traffic here: two workloads in namespaces of their own on one bridge, with checksum offload on and off,
since the reply is made of a packet whose checksum its sender may have left to hardware."""

import errno
import select
import socket
import time
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6Unknown, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Padding, Raw

from tests.harness.datapath import (
    Host,
    Port,
    Seen,
    checksums_right,
    dropped,
    inside,
    rejected,
    until,
)
from tests.harness.packets import IPV4, IPV6, ISN, Net, echo, ip, other, tcp, udp, unreachable
from tests.harness.wired import VNICS, Wired

pytestmark = pytest.mark.slow

ETH_P_ALL = 3
MACS = ("02:00:00:00:00:00", "02:00:00:00:00:01")


@pytest.fixture(params=[True, False], ids=["offload", "no-offload"])
def offload(request: pytest.FixtureRequest, wired: Wired) -> None:
    wired.offload(request.param)


def _connect(wired: Wired, net: Net, kind: int) -> tuple[int, list[Packet]]:
    """`here` speaks to port 9 of `twin`: the error it gets, and what frames it saw meanwhile."""
    with _tap(wired.here, "far0") as tap, _speaker(wired.here, net, kind) as speaker:
        try:
            speaker.connect((net.twin, 9))
            speaker.send(b"x" * 100)
            speaker.recv(1)
            code = 0
        except OSError as error:
            code = error.errno or errno.ETIMEDOUT
        return code, _arrived(tap)


def _speaker(namespace: str, net: Net, kind: int) -> socket.socket:
    with inside(namespace):
        speaker = socket.socket(socket.AF_INET if net is IPV4 else socket.AF_INET6, kind)
    speaker.settimeout(3)
    return speaker


def _tap(namespace: str, device: str) -> socket.socket:
    with inside(namespace):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    tap.bind((device, ETH_P_ALL))
    return tap


def _arrived(tap: socket.socket, answers: int = 0) -> list[Packet]:
    """Frames from outside, until a moment from now, and as long as fewer of them are answers."""
    seen: list[Packet] = []

    def answered() -> bool:
        seen.extend(_heard(tap))
        return len(_answers(seen)) >= answers

    until(answered)
    return seen


def _heard(tap: socket.socket) -> list[Packet]:
    seen, deadline = [], time.monotonic() + 0.2
    while select.select([tap], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data, (_, _, type_, *_) = tap.recvfrom(65536)
        if type_ != socket.PACKET_OUTGOING:
            seen.append(Ether(data))
    return seen


def _addressed(frames: list[Packet], mac: str) -> list[Packet]:
    """What was meant for `mac`, but for the kernels' own search for neighbours."""
    search = (ARP, ICMPv6ND_NS, ICMPv6ND_NA)
    return [frame for frame in frames if frame.dst == mac and not any(kind in frame for kind in search)]


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


@pytest.mark.parametrize("net", [IPV4, IPV6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["out on web", "in on db"])
@pytest.mark.usefixtures("offload")
def test_an_open_connection_is_reset_in_the_middle_of_its_data(wired: Wired, net: Net, where: str) -> None:
    """The answer to a segment that a device is still to cut (GSO) is a RST that the sender's kernel takes."""
    wired.install(["allow"])
    with _speaker(wired.twin, net, socket.SOCK_STREAM) as listener:
        listener.bind((net.twin, 0))
        listener.listen()
        with _speaker(wired.here, net, socket.SOCK_STREAM) as speaker:
            speaker.connect((net.twin, listener.getsockname()[1]))
            wired.install(["allow service icmpv6", f"reject {where} service tcp", "allow"])
            with pytest.raises(ConnectionResetError):
                speaker.sendall(bytes(1 << 20))


@pytest.mark.parametrize("net", [IPV4, IPV6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    "rules", [["reject out on web"], ["reject in on db"], ["reject"], ["reject stateless"]], ids=" ".join
)
def test_x45_two_vms_with_a_rejecting_rule_between_them_never_loop(
    wired: Wired, net: Net, rules: list[str]
) -> None:
    """Whatever one sends, each packet that asks something gets one answer, answers get none, and the other VM
    hears nothing."""
    wired.install([*rules, "allow"])
    asking = [tcp(net.here, net.twin), udp(net.here, net.twin), echo(net.here, net.twin)]
    answering = [
        tcp(net.here, net.twin, 81, "R"),
        tcp(net.here, net.twin, 82, "RA"),
        echo(net.here, net.twin, 8, reply=True),
        unreachable(net.here, udp(net.twin, net.here)),
        unreachable(net.here, unreachable(net.twin, udp(net.here, net.twin))),
    ]
    with _tap(wired.here, "far0") as here, _tap(wired.twin, "far1") as twin:
        for packet in asking + answering:
            here.send(bytes(Ether(src=MACS[0], dst=MACS[1]) / packet))
        heard = _addressed(_arrived(here, len(asking)), MACS[0])
        assert len(_answers(heard)) == len(heard) == len(asking)
        assert _addressed(_arrived(twin), MACS[1]) == []


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
    assert (segment.flags, segment.seq, segment.ack) == ("RA", 0, ISN + 10 + 1)
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


@pytest.fixture(params=["in", "out"])
def pass_by(request: pytest.FixtureRequest, host: Host) -> Callable[[Packet], Seen]:
    """What becomes of a packet at a vNIC that rejects everything, in either direction."""
    here = _rejecting(host)
    return here.receive if request.param == "in" else here.send


SILENT = dropped("rule_reject", 1)


def test_x45_groups_and_nobody_are_not_answered(pass_by: Callable[[Packet], Seen], net: Net) -> None:
    """Multicast and broadcast, of frame or address, source or destination; the unspecified address; the
    loopback. A subnet's own broadcast address looks like any host's, and is answered as one."""
    one, two = net.here, net.peer
    v4 = ["224.0.0.251", "239.1.2.3", "255.255.255.255", "240.0.0.1", "0.0.0.0", "127.0.0.1"]
    v6 = ["ff02::1", "ff0e::1234", "::", "::1"]
    for odd in v4 if net is IPV4 else v6:
        assert pass_by(udp(odd, one)).verdict == "drop"
        assert pass_by(udp(two, odd)).verdict == "drop"
        assert pass_by(tcp(two, odd)).verdict == "drop"
    for mac in ("01:00:5e:00:00:fb", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff"):
        assert pass_by(Ether(src="02:00:00:00:99:99", dst=mac) / udp(two, one)) == SILENT
    assert pass_by(udp(two, one)) == rejected(1)


def test_x45_icmp_is_answered_where_it_asks(pass_by: Callable[[Packet], Seen], net: Net) -> None:
    """An echo request is; a reply, a solicitation and a type nobody knows are not. Other protocols are."""
    one, two = net.here, net.peer
    assert pass_by(echo(two, one)) == rejected(1)
    assert pass_by(echo(two, one, reply=True)) == SILENT
    for type_ in (10, 13, 17, 40) if net is IPV4 else (138, 139, 144, 200):
        header = ICMP(type=type_) if net is IPV4 else ICMPv6Unknown(type=type_, msgbody=bytes(4))
        assert pass_by(ip(two, one) / header) == SILENT
    assert pass_by(other(two, one, 47)) == rejected(1)


def test_x45_never_a_rst_for_a_rst_nor_an_error_for_an_error(
    pass_by: Callable[[Packet], Seen], net: Net
) -> None:
    """A RST and an ICMP error belong to a flow or are dropped; neither reaches the rule."""
    for flags in ("R", "RA"):
        assert pass_by(tcp(net.peer, net.here, 80, flags)) == dropped("no_state")
    quoted = udp(net.here, net.peer, 53)
    assert pass_by(unreachable(net.peer, quoted)) == dropped("icmp_error_unrelated")


def test_x45_never_a_rst_for_a_rst_of_no_connection(host: Host, net: Net) -> None:
    """A rule without connections does see a RST: dropped in silence, where a segment is answered."""
    here = host.port("here")
    host.install(["reject stateless"], vnics=VNICS)
    for flags in ("R", "RA"):
        assert here.receive(tcp(net.peer, net.here, 80, flags)) == SILENT
        assert here.send(tcp(net.here, net.peer, 80, flags)) == SILENT
    assert here.receive(tcp(net.peer, net.here, 80, "A")) == rejected(1)


def test_x45_fragments_are_not_answered(pass_by: Callable[[Packet], Seen], net: Net) -> None:
    """The first, one in the middle and the last one: dropped, whatever for."""
    for offset, more in ((0, 1), (185, 1), (370, 0)):
        packet = udp(net.peer, net.here, data=24)
        if net is IPV4:
            packet.flags, packet.frag = "MF" if more else 0, offset
        else:
            header = IPv6ExtHdrFragment(offset=offset, m=more, id=offset, nh=17)
            packet = ip(net.peer, net.here, nh=44) / header / Raw(bytes(packet.payload))
        assert pass_by(packet).verdict == "drop"


def test_x45_packets_with_ip_options_are_not_answered(host: Host) -> None:
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
