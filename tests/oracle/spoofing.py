"""SpoofGuard: what a workload may say about itself, where its vNIC is watched (bpf/README.md, "Guards"; RFC
826, RFC 2131, RFC 4861, RFC 4862)."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from tests.oracle.reading import ICMP, UDP, Read
from vsfwd.policy.model import SpoofGuard, Vnic

_SOLICITS_ROUTER, _SOLICITS, _ADVERTISES = 133, 135, 136
_FROM_NOBODY: Final = (_SOLICITS_ROUTER, _SOLICITS, 131, 132, 143)
"""Duplicate address detection, and reports of MLD before there is an address (RFC 4862, RFC 3590)."""
_LINK_LAYER: Final = (1, 2)
"""Options that name a MAC address: RFC 4861 4.6.1."""
_MAX_OPTIONS: Final = 4
_CLIENT_MAC: Final = 28
"""Where a DHCP message has it: RFC 2131 2."""
_DHCP_REQUEST: Final = (4, UDP, 68, 67)
_DHCPV6_REQUEST: Final = (6, UDP, 546, 547)


@dataclass(frozen=True)
class Speaker:
    """A watched vNIC: its MAC address, and the addresses it may have."""

    mac: bytes
    addresses: frozenset[bytes]

    @classmethod
    def at(cls, vnic: Vnic | None, mac: bytes) -> "Speaker | None":
        """None: nobody watches. Without a policy somebody does, and no address is its own."""
        if vnic and vnic.spoofguard is SpoofGuard.DISABLED:
            return None
        # The link-local address that is made of the MAC address: RFC 4291 appendix A.
        made = bytes.fromhex("fe80") + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
        bound = vnic.addresses if vnic else ()
        return cls(mac, frozenset((made, *(ip_address(address).packed for address in bound))))

    def may_have(self, packet: Read, local: bytes) -> bool:
        """Whether a packet may begin a flow at this address, or leave it."""
        if local in self.addresses:
            return True
        kind = packet.family, packet.protocol, packet.sport, packet.dport
        if kind == _DHCP_REQUEST:
            return not any(local)
        if kind == _DHCPV6_REQUEST:
            return local[0] == 0xFE and local[1] >> 6 == 2
        return packet.protocol == ICMP[6] and not any(local) and packet.type in _FROM_NOBODY

    def forges_arp(self, frame: bytes) -> str | None:
        """The reason to drop it. A probe (RFC 5227) has no sender address."""
        arp = frame[14:42]
        if len(arp) < 28:
            return "short"
        own = arp[:6] == bytes.fromhex("000108000604") and arp[8:14] == self.mac
        sender = arp[14:18]
        return None if own and (sender in self.addresses or not any(sender)) else "spoofed_arp"

    def forges(self, packet: Read) -> frozenset[str]:
        """The reasons to drop what it says with a packet, of a flow or not."""
        if packet.protocol == ICMP[6] and packet.type in (_SOLICITS_ROUTER, _SOLICITS, _ADVERTISES):
            return frozenset() if self._discovers(packet) else frozenset({"spoofed_nd"})
        if (packet.family, packet.protocol, packet.sport, packet.dport) == _DHCP_REQUEST:
            if packet.fragment:
                return frozenset({"fragment"})
            client = packet.said[_CLIENT_MAC : _CLIENT_MAC + 6]
            # What the frame has behind a packet that is too short may be read, and is not its MAC address.
            if len(client) < 6:
                return frozenset({"short", "spoofed_mac"})
            return frozenset() if client == self.mac else frozenset({"spoofed_mac"})
        if packet.is_error and packet.source not in self.addresses:
            return frozenset({"spoofed_ip"})
        return frozenset()

    def _discovers(self, packet: Read) -> bool:
        target, options = packet.quoted[:16], packet.quoted[0 if packet.type == _SOLICITS_ROUTER else 16 :]
        if packet.type != _SOLICITS_ROUTER and len(target) < 16:
            return False
        if not self._has_own(options) or (any(packet.source) and packet.source not in self.addresses):
            return False
        return packet.type != _ADVERTISES or target in self.addresses

    def _has_own(self, options: bytes) -> bool:
        """Whole options, not many, and no MAC address among them but the vNIC's."""
        for _ in range(_MAX_OPTIONS):
            if not options:
                return True
            if len(options) < 8 or not options[1] or len(options) < options[1] * 8:
                return False
            if options[0] in _LINK_LAYER and (options[1] != 1 or options[2:8] != self.mac):
                return False
            options = options[options[1] * 8 :]
        return not options
