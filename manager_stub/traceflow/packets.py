"""What a FieldsPacketData describes, as the evaluator is asked about it. Pure.

Where NSX's shape leaves a header out, it is what the message needs: DHCP requests come from nobody and go to
everybody (RFC 2131), DHCPv6's to the servers' group (RFC 8415), neighbour solicitations to the group of their
target (RFC 4861)."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from manager_stub.model import FieldsPacketData
from manager_stub.span import Card
from vsfwd.policy.ahead import made_of
from vsfwd.policy.evaluate import Address, Packet

BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
ARP: Final = 0x0806
_NOBODY: Final = IPv4Address("0.0.0.0")
_EVERYBODY: Final = IPv4Address("255.255.255.255")
_ALL_NODES: Final = IPv6Address("ff02::1")
_DHCPV6_SERVERS: Final = IPv6Address("ff02::1:2")
_SOLICITED: Final = int(IPv6Address("ff02::1:ff00:0"))
_DNS: Final = 53
_EPHEMERAL: Final = 49152
"""The first port that RFC 6335 leaves to clients."""
_SYN, _ACK = 0x02, 0x10
_ECHO_REQUEST: Final = {4: 8, 6: 128}
_ND: Final = {"NEIGHBOR_SOLICITATION": 135, "NEIGHBOR_ADVERTISEMENT": 136}


@dataclass(frozen=True)
class Described:
    """`packet`: None where the frame has no IP in it. `destination_mac`: what is said, or a group's; None:
    that of the vNIC that gets it. `claimed`: see `ahead.Wire`. `wanted`: the address, or MAC address, whose
    vNIC it is for; `to_all`: everybody of the segment gets it, that one first."""

    packet: Packet | None
    ethertype: int
    source_mac: str | None
    destination_mac: str | None
    claimed: Address | None
    wanted: str
    to_all: bool


def described(source: Card, data: FieldsPacketData) -> Described:
    """Raises ValueError with the field in it, for a packet that cannot be."""
    eth = data.eth_header
    if arp := data.arp_header:
        to_all = arp.op_code == "ARP_REQUEST"
        mac = eth.dst_mac or (BROADCAST if to_all else None)
        found = Described(None, ARP, eth.src_mac, mac, IPv4Address(arp.src_ip), arp.dst_ip, to_all)
    elif not (data.ip_header or data.ipv6_header or _makes_header(data)):
        if eth.dst_mac is None:
            raise ValueError("packet.eth_header.dst_mac: needed, for the frame has no other address")
        to_all = is_group(eth.dst_mac)
        found = Described(None, eth.eth_type, eth.src_mac, eth.dst_mac, None, eth.dst_mac, to_all)
    else:
        found = _of_ip(source, data)
    said = {"UNICAST": (False,), "UNKNOWN": (False, True)}.get(data.transport_type, (True,))
    if "transport_type" in data.model_fields_set and found.to_all not in said:
        raise ValueError(f"packet.transport_type: {data.transport_type} is not that of its destination")
    return found


def is_group(mac: str) -> bool:
    return bool(int(mac[:2], 16) & 1)


def _makes_header(data: FieldsPacketData) -> bool:
    return data.transport_header.of_ipv4 or data.transport_header.of_ipv6


def _of_ip(source: Card, data: FieldsPacketData) -> Described:
    packet = _packet(source, data)
    ndp, to = data.transport_header.ndp_header, packet.destination
    group = _group_mac(to)
    return Described(
        packet,
        0x0800 if to.version == 4 else 0x86DD,
        data.eth_header.src_mac,
        data.eth_header.dst_mac or group,
        IPv6Address(ndp.dst_ip) if ndp and ndp.msg_type == "NEIGHBOR_ADVERTISEMENT" else None,
        ndp.dst_ip if ndp and group else str(to),
        group is not None,
    )


def _group_mac(address: Address) -> str | None:
    """RFC 1112 6.4, RFC 2464 7."""
    if address == _EVERYBODY:
        return BROADCAST
    if not address.is_multicast:
        return None
    octets = address.packed
    mac = (
        b"\x33\x33" + octets[-4:] if len(octets) == 16 else bytes((1, 0, 0x5E, octets[1] & 0x7F)) + octets[2:]
    )
    return mac.hex(":")


def _packet(source: Card, data: FieldsPacketData) -> Packet:
    sender, destination = _addresses(source, data)
    tcp, ndp = data.transport_header.tcp_header, data.transport_header.ndp_header
    source_port, port = _ports(data)
    flags = tcp.tcp_flags if tcp else 0
    return Packet(
        source=sender,
        destination=destination,
        protocol=data.protocol(),
        port=port,
        icmp_type=_ND[ndp.msg_type] if ndp else _ECHO_REQUEST[destination.version],
        midstream=bool(flags) and flags & (_SYN | _ACK) != _SYN,
        source_port=source_port,
    )


def _addresses(source: Card, data: FieldsPacketData) -> tuple[Address, Address]:
    """Of source and destination."""
    header, field = data.ip_header or data.ipv6_header, "ip_header" if data.ip_header else "ipv6_header"
    default = _default_addresses(source, data)
    if header is None:
        assert default, "a transport header made it up"
        return default
    destination = ip_address(header.dst_ip)
    own = (text for text in source.vnic.addresses if ip_address(text).version == destination.version)
    text = header.src_ip or (str(default[0]) if default else next(own, None))
    if text is None:
        raise ValueError(f"packet.{field}.src_ip: needed, for the vNIC has no such address")
    return ip_address(text), destination


def _default_addresses(source: Card, data: FieldsPacketData) -> tuple[Address, Address] | None:
    header, link_local = data.transport_header, made_of(source.vnic.mac)
    if header.dhcp_header:
        asks = header.dhcp_header.op_code == "BOOTREQUEST"
        own = next((each for each in map(ip_address, source.vnic.addresses) if each.version == 4), _NOBODY)
        return (_NOBODY if asks else own), _EVERYBODY
    if header.dhcpv6_header:
        asks = header.dhcpv6_header.msg_type in ("SOLICIT", "REQUEST")
        return link_local, _DHCPV6_SERVERS if asks else _ALL_NODES
    if header.ndp_header is None:
        return None
    target = IPv6Address(header.ndp_header.dst_ip)
    if header.ndp_header.msg_type == "NEIGHBOR_ADVERTISEMENT":
        return target, _ALL_NODES
    return link_local, IPv6Address(_SOLICITED | int(target) & 0xFFFFFF)


def _ports(data: FieldsPacketData) -> tuple[int, int]:
    """Of source and destination."""
    header = data.transport_header
    if said := header.tcp_header or header.udp_header:
        return said.src_port, said.dst_port
    if header.dhcp_header:
        return (68, 67) if header.dhcp_header.op_code == "BOOTREQUEST" else (67, 68)
    if header.dhcpv6_header:
        return (546, 547) if header.dhcpv6_header.msg_type in ("SOLICIT", "REQUEST") else (547, 546)
    if header.dns_header:
        return (_EPHEMERAL, _DNS) if header.dns_header.message_type == "QUERY" else (_DNS, _EPHEMERAL)
    return 0, 0
