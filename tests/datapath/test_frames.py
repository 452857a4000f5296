"""Frames that are not a plain IP packet behind 14 bytes of Ethernet: tags, other encapsulations, tunnels, and
packets of which the programs see only the beginning. The policy allows everything."""

import socket
import subprocess
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, LLC, SNAP, STP, Dot3, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tests.harness.datapath import Host, Port, dropped, until
from tests.harness.journey import VNICS, Journey
from tests.harness.packets import IPV4, Net, tcp, udp
from vagrant.lab.network import wait_carrying

pytestmark = pytest.mark.slow

TAGS = {
    "8021q": [(0x8100, 5)],
    "8021ad": [(0x88A8, 5)],
    "priority": [(0x8100, 0)],
    "double": [(0x8100, 5), (0x8100, 6)],
    "qinq": [(0x88A8, 5), (0x8100, 6)],
}
OLDER_TAGS = {"9100": [(0x9100, 5)], "9200": [(0x9200, 5)], "8100 behind 9100": [(0x9100, 5), (0x8100, 6)]}


def tagged(frame: Packet, tags: list[tuple[int, int]]) -> bytes:
    raw = bytes(frame)
    return (
        raw[:12]
        + b"".join(type_.to_bytes(2, "big") + vid.to_bytes(2, "big") for type_, vid in tags)
        + raw[12:]
    )


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_x34_a_tag_is_dropped(journey: Journey, tags: list[tuple[int, int]]) -> None:
    """A tag in the data, also that of priority, also two."""
    frame = journey.frame(udp(*journey.ends))
    assert journey.take(Ether(tagged(frame, tags))) == dropped("vlan_tag")


@pytest.mark.parametrize("tags", OLDER_TAGS.values(), ids=OLDER_TAGS)
def test_x34_a_tag_of_another_time_is_an_unknown_ethertype(
    journey: Journey, tags: list[tuple[int, int]]
) -> None:
    """Tags of vendors before 802.1ad: not looked behind either."""
    frame = journey.frame(udp(*journey.ends))
    assert journey.take(Ether(tagged(frame, tags))) == dropped("ethertype")


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_x34_a_tag_is_dropped_on_a_device(journey: Journey, tags: list[tuple[int, int]]) -> None:
    """From a workload, where the kernel takes the outer tag off into its metadata before we look."""
    frame = Ether(src=journey.port.mac, dst="02:00:00:00:99:99") / udp(journey.net.here, journey.net.peer)
    journey.port.wire(tagged(frame, tags))
    until(lambda: journey.port.drops() == {"vlan_tag": 1})


@pytest.fixture
def bridged(host: Host) -> Iterator[Port]:
    """A vNIC on a bridge, which floods what comes in at `far1`."""
    port = host.port("here")
    host.install(["allow"], vnics=VNICS)
    subprocess.run(["ip", "link", "add", "flooding", "up", "type", "bridge"], check=True)
    try:
        for device in ("port0", "port1"):
            subprocess.run(["ip", "link", "set", device, "master", "flooding"], check=True)
        wait_carrying(None)
        yield port
    finally:
        subprocess.run(["ip", "link", "del", "flooding"], check=True)


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_x34_a_tag_is_dropped_behind_a_bridge(bridged: Port, net: Net, tags: list[tuple[int, int]]) -> None:
    """To a workload, from a device where the kernel has taken the tag off."""
    frame = bridged.frame_in(udp(net.peer, net.here))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("far1", 0))
        sender.send(tagged(frame, tags))
    until(lambda: bridged.drops().get("vlan_tag") == 1)
    assert bridged.flows() == []


def snap(packet: Packet, ethertype: int) -> Packet:
    return LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=ethertype) / packet


def test_x35_a_length_in_place_of_an_ethertype_is_dropped(journey: Journey) -> None:
    """IEEE 802.3 frames, also those with an IP packet behind LLC and SNAP, also those that lie about it."""
    packet = udp(*journey.ends)
    ethertype = 0x0800 if journey.net is IPV4 else 0x86DD
    for payload in (snap(packet, ethertype), LLC() / packet, packet):
        for length in (len(payload), 0, 1500):
            frame = journey.frame(payload)
            frame.type = length
            assert journey.take(Ether(bytes(frame))) == dropped("ethertype")


@pytest.mark.parametrize(
    "ethertype",
    [0x0600, 0x0801, 0x86DC, 0x6003, 0x8137, 0x8847, 0x8848, 0x8863, 0x8864, 0x8808, 0x8809, 0x88CC, 0x88E5],
)
def test_x35_other_ethertypes_are_dropped(journey: Journey, ethertype: int) -> None:
    """MPLS, PPPoE, pause, 802.3ad, LLDP, MACsec and the neighbours of IP's numbers, with IP inside or not."""
    for payload in (udp(*journey.ends), Raw(bytes(46))):
        frame = journey.frame(payload)
        frame.type = ethertype
        assert journey.take(frame) == dropped("ethertype")


def test_x35_a_bridge_protocol_unit_is_dropped(journey: Journey) -> None:
    """Nobody talks spanning tree with the switch."""
    unit = Dot3(src=journey.port.mac, dst="01:80:c2:00:00:00") / LLC() / STP()
    assert journey.take(Ether(bytes(unit) + bytes(8))) == dropped("ethertype")


def tunnels(journey: Journey, inner: Packet) -> dict[int, Packet]:
    """`inner` in every wrapping, by protocol number."""
    net = journey.net
    outer = IP if net is IPV4 else IPv6
    ends = {"src": journey.source, "dst": journey.destination}
    plain = 4 if IP in inner else 41
    number = {"proto": plain} if net is IPV4 else {"nh": plain}
    return {47: outer(**ends) / GRE() / inner, plain: outer(**ends, **number) / inner}


def test_x36_a_tunnel_is_its_outer_protocol(journey: Journey) -> None:
    """What GRE, IPIP and 6in4 carry is not looked at: TCP and UDP rules never match it, neither the rule that
    would allow nor the one that would drop what is inside."""
    for inner in (tcp("10.0.9.9", "10.0.0.1", 80), tcp("fd00::9:9", "fd00::1", 80)):
        for protocol, packet in tunnels(journey, inner).items():
            journey.install("allow service tcp,udp", "drop")
            assert journey.take(packet) == dropped("rule_drop", 2)
            journey.install("drop service tcp,udp", f"allow service {protocol}")
            seen = journey.take(packet)
            assert (seen.verdict, set(seen.counted)) == ("pass", {2})


def test_x36_vxlan_is_udp_to_its_port(journey: Journey) -> None:
    """A frame in VXLAN or Geneve is UDP to 4789 or 6081, which one rule stops."""
    journey.install("drop service udp/4789,udp/6081", "allow")
    inner = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / tcp(*journey.ends)
    for port in (4789, 6081):
        wrapped = udp(*journey.ends, port, data=0) / Raw(bytes(VXLAN(vni=5) / inner))
        assert journey.take(wrapped) == dropped("rule_drop", 1)


@pytest.fixture
def wide(journey: Journey) -> Iterator[Journey]:
    """Devices that carry frames of more than a page."""
    devices = ("port0", "far0")
    for device in devices:
        subprocess.run(["ip", "link", "set", device, "mtu", "9000"], check=True)
    yield journey
    for device in devices:
        subprocess.run(["ip", "link", "set", device, "mtu", "1500"], check=True)


def test_x37_headers_outside_the_linear_part_are_read(wide: Journey) -> None:
    """A packet socket keeps only the Ethernet header of a frame larger than a page in the linear part: what
    the rules ask for has to be pulled first."""
    wide.install("allow service udp/4242", "drop")
    ours = wide.frame(udp(*wide.ends, 4242, data=6000))
    other = wide.frame(udp(*wide.ends, 4243, data=6000))
    wide.wire(bytes(ours), bytes(other))
    until(lambda: wide.port.drops() == {"rule_drop": 1})
    flow = wide.port.flow()
    assert 4242 in (flow.local_port, flow.remote_port)


def test_x37_a_length_of_zero_is_only_a_large_segments(journey: Journey) -> None:
    """A packet that has yet to be cut may be too long to say its length (tests/datapath/test_wire.py); any
    other without a length lies."""
    packet = tcp(*journey.ends)
    if IP in packet:
        packet.len = 0
    else:
        packet.plen = 0
    assert journey.take(packet) == dropped("length" if IP in packet else "short")
