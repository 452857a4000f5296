"""A traceflow: the packet asked about, and the vNIC it leaves, in the shape of NSX's TraceflowConfig. Names,
ranges and defaults are those of the NSX Policy API 4.1."""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from manager_stub.model import patterns
from manager_stub.model.fields import Byte, Entity, Id, Mac, Strict, Text
from vsfwd.policy.model import ICMP, ICMPV6, KNOWN_ETHERTYPES, TCP, UDP, parse_address


def _check_ipv4(text: str) -> str:
    return str(IPv4Address(text))


def _check_ipv6(text: str) -> str:
    parse_address(text)
    return str(IPv6Address(text))


Ipv4 = Annotated[str, Field(max_length=15), AfterValidator(_check_ipv4)]
Ipv6 = Annotated[str, Field(max_length=45), AfterValidator(_check_ipv6)]
Port = Annotated[int, Field(ge=0, le=65535)]
Source = Annotated[str, Field(pattern=patterns.PLACE)]


class EthernetHeader(Strict):
    """`eth_type` counts where there is no other header; otherwise it is that header's, whatever is said."""

    src_mac: Mac | None = None
    dst_mac: Mac | None = None
    eth_type: Annotated[int, Field(ge=1, le=65535)] = 2048


class ArpHeader(Strict):
    """Without `src_ip` it is a probe, from 0.0.0.0."""

    dst_ip: Ipv4
    src_ip: Ipv4 = "0.0.0.0"
    op_code: Literal["ARP_REQUEST", "ARP_REPLY"] = "ARP_REQUEST"


class Ipv4Header(Strict):
    src_ip: Ipv4 | None = None
    dst_ip: Ipv4
    protocol: Byte = ICMP
    ttl: Byte = 64
    flags: Annotated[int, Field(ge=0, le=8)] = 0


class Ipv6Header(Strict):
    src_ip: Ipv6 | None = None
    dst_ip: Ipv6
    next_header: Byte = ICMPV6
    hop_limit: Byte = 64


class TcpHeader(Strict):
    """Without flags, or with none of them set, it is a SYN."""

    src_port: Port = 0
    dst_port: Port
    tcp_flags: Annotated[int, Field(ge=0, le=511)] = 0


class UdpHeader(Strict):
    src_port: Port = 0
    dst_port: Port


class IcmpEchoRequestHeader(Strict):
    id: Port = 0
    sequence: Port = 0


class DhcpHeader(Strict):
    op_code: Literal["BOOTREQUEST", "BOOTREPLY"] = "BOOTREQUEST"


class Dhcpv6Header(Strict):
    msg_type: Literal["SOLICIT", "ADVERTISE", "REQUEST", "REPLY"] = "SOLICIT"


class DnsHeader(Strict):
    """No rule asks what is in it."""

    address: Annotated[str, Field(max_length=255)] = ""
    address_type: Literal["V4", "V6"] = "V4"
    message_type: Literal["QUERY", "RESPONSE"] = "QUERY"


class NdpHeader(Strict):
    """`dst_ip`: the address that is asked about, or whose MAC address is told."""

    dst_ip: Ipv6
    msg_type: Literal["NEIGHBOR_SOLICITATION", "NEIGHBOR_ADVERTISEMENT"] = "NEIGHBOR_SOLICITATION"


class TransportHeader(Strict):
    tcp_header: TcpHeader | None = None
    udp_header: UdpHeader | None = None
    icmp_echo_request_header: IcmpEchoRequestHeader | None = None
    dhcp_header: DhcpHeader | None = None
    dhcpv6_header: Dhcpv6Header | None = None
    dns_header: DnsHeader | None = None
    ndp_header: NdpHeader | None = None

    @model_validator(mode="after")
    def _one(self) -> "TransportHeader":
        if sum(header is not None for _, header in self) > 1:
            raise ValueError("a packet has one transport header")
        return self

    @property
    def of_ipv4(self) -> bool:
        """It makes up the IP header where that is left out."""
        return self.dhcp_header is not None

    @property
    def of_ipv6(self) -> bool:
        return self.dhcpv6_header is not None or self.ndp_header is not None


class FieldsPacketData(Strict):
    """What no rule asks about (`payload`, `frame_size`, TTL, flags of IP) is taken and changes nothing.
    `routed`: by a router of which nothing is known here; between segments every packet is. Without any header
    but `eth_header` it is a frame of that `eth_type`."""

    resource_type: Literal["FieldsPacketData"] = "FieldsPacketData"
    transport_type: Literal["UNICAST", "BROADCAST", "MULTICAST", "UNKNOWN"] = "UNICAST"
    routed: bool = False
    frame_size: Annotated[int, Field(ge=60, le=1000)] = 128
    payload: Annotated[str, Field(max_length=1336)] = ""
    eth_header: EthernetHeader = EthernetHeader()
    arp_header: ArpHeader | None = None
    ip_header: Ipv4Header | None = None
    ipv6_header: Ipv6Header | None = None
    transport_header: TransportHeader = TransportHeader()

    @model_validator(mode="after")
    def _one_family(self) -> "FieldsPacketData":
        transport = self.transport_header
        is_ipv4, is_ipv6 = (
            bool(self.ip_header or transport.of_ipv4),
            bool(self.ipv6_header or transport.of_ipv6),
        )
        if is_ipv4 + is_ipv6 + bool(self.arp_header) > 1:
            raise ValueError(
                "a packet has one of an ip_header or an ipv6_header or an arp_header, and what goes with it"
            )
        if not (is_ipv4 or is_ipv6) and any(header is not None for _, header in transport):
            raise ValueError("transport_header: it needs an ip_header or an ipv6_header")
        if not (is_ipv4 or is_ipv6 or self.arp_header) and self.eth_header.eth_type in KNOWN_ETHERTYPES:
            raise ValueError(
                "a packet has an ip_header or an ipv6_header, an arp_header, or another eth_type"
            )
        return self

    @model_validator(mode="after")
    def _headers_agree(self) -> "FieldsPacketData":
        if not (self.ip_header or self.ipv6_header):
            return self
        protocol, default, field = self.said_protocol()
        if protocol in (TCP, UDP) and self.transport_header == TransportHeader():
            raise ValueError(f"transport_header: {field} {protocol} needs a header with a dst_port")
        if protocol != default and self.protocol() != protocol:
            raise ValueError(f"{field}: {protocol} is not that of the transport_header, {self.protocol()}")
        return self

    def said_protocol(self) -> tuple[int, int, str]:
        """What the IP header says, NSX's default, and the field. Clients of NSX leave the default, which is
        ICMP, beside a header of TCP or UDP."""
        if self.ip_header:
            return self.ip_header.protocol, ICMP, "ip_header.protocol"
        if self.ipv6_header:
            return self.ipv6_header.next_header, ICMPV6, "ipv6_header.next_header"
        return (ICMPV6, ICMPV6, "") if self.transport_header.of_ipv6 else (ICMP, ICMP, "")

    def protocol(self) -> int:
        header = self.transport_header
        if header.tcp_header:
            return TCP
        if header.udp_header or header.dhcp_header or header.dhcpv6_header or header.dns_header:
            return UDP
        said, icmp, _ = self.said_protocol()
        return icmp if header.icmp_echo_request_header or header.ndp_header else said


class TraceflowConfig(Entity):
    """`source_id`: the vNIC, by its id or its path, or as a segment's port (`/infra/segments/ID/ports/ID`);
    `segment_port_path` is NSX's older name for it."""

    resource_type: Literal["TraceflowConfig"] = "TraceflowConfig"
    source_id: Source | None = None
    segment_port_path: Source | None = None
    packet: FieldsPacketData
    is_transient: bool = True
    timeout: Annotated[int, Field(ge=5, le=15)] = 10

    @model_validator(mode="after")
    def _one_source(self) -> "TraceflowConfig":
        if (self.source_id is None) == (self.segment_port_path is None):
            raise ValueError("source_id: say the vNIC, here or as segment_port_path")
        return self

    @property
    def source(self) -> tuple[str, str]:
        """The vNIC's id, and the field that names it."""
        field, said = ("source_id", self.source_id) if self.source_id else ("segment_port_path", None)
        return (said or self.segment_port_path or "").rpartition("/")[2], field


class TraceflowRequest(Strict):
    """The older form, of NSX's manager API: `lport_id` is the vNIC's id, `timeout` in milliseconds."""

    lport_id: Id
    packet: FieldsPacketData
    timeout: Annotated[int, Field(ge=5000, le=15000)] = 10000
    display_name: Text | None = None
