/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a workload may say about itself. Pure: no map, no helper; whether an address is the vNIC's is asked in dfw.c.
 *
 * SpoofGuard, where a vNIC has it: MAC address, source address, ARP and neighbour discovery are the vNIC's own. The
 * guards against rogue servers and routers are every port's: only a port that is marked may be one.
 */
#ifndef VSFWD_SPOOF_H
#define VSFWD_SPOOF_H

#include "guards.h"

#define DHCP_SERVER swap16(67)
#define DHCP_CLIENT swap16(68)
#define DHCPV6_CLIENT swap16(546)
#define DHCPV6_SERVER swap16(547)
#define DHCP_CHADDR 28 /* offset of the client's MAC address in a DHCP message, RFC 2131 */
#define DHCP_XID 4     /* and of the number of its request */
#define DHCP_ANSWER_NS (64 * 1000000000ull) /* the longest that a client waits before it asks again, RFC 2131 4.1 */

#define ICMP_ROUTER_ADVERTISEMENT 9
#define ND_ROUTER_SOLICITATION 133
#define ND_ROUTER_ADVERTISEMENT 134
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136

#define ND_SOURCE_MAC 1 /* option: source link-layer address */
#define ND_TARGET_MAC 2 /* option: target link-layer address */
#define ND_OPTIONS 4    /* options that a solicitation or advertisement may have; two are usual */

/* ARP over Ethernet about IPv4, RFC 826. In 16-bit words, so that nothing needs alignment. Everything is wire. */
struct arp {
	u16 hardware;
	u16 protocol;
	u16 lengths;
	u16 operation;
	u16 sender_mac[3];
	u16 sender[2];
	u16 target_mac[3];
	u16 target[2];
};

/* An option of neighbour discovery, RFC 4861, as far as it is one of a link-layer address. */
struct nd_option {
	u8 type;
	u8 length; /* in 8 bytes */
	u16 mac[3];
};

static __always_inline bool same_mac(const u16 *a, const u16 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static __always_inline bool is_unspecified(const struct address *address)
{
	return !address->word[0] && !address->word[1] && !address->word[3] &&
	       (!address->word[2] || address->word[2] == MAPPED_PREFIX);
}

/* The link-local address that is made of the MAC address (RFC 4291, appendix A) needs nobody's trust. */
static __always_inline bool is_made_of(const struct address *address, const u8 *mac)
{
	return address->word[0] == swap32(0xfe800000) && !address->word[1] &&
	       address->word[2] == swap32((u32)(mac[0] ^ 2) << 24 | mac[1] << 16 | mac[2] << 8 | 0xff) &&
	       address->word[3] == swap32(0xfe000000 | mac[3] << 16 | mac[4] << 8 | mac[5]);
}

/* Whether ARP is well formed and speaks of the vNIC's own MAC address. Its sender address is another question. */
static __always_inline bool is_own_arp(const struct arp *arp, const u16 *mac)
{
	return arp->hardware == swap16(1) && arp->protocol == swap16(ETH_P_IP) && arp->lengths == swap16(0x0604) &&
	       same_mac(arp->sender_mac, mac);
}

/* Of these a workload sends three: solicitations of routers and neighbours, and advertisements. */
static __always_inline bool is_neighbour_discovery(const struct packet *packet)
{
	u8 type = packet->icmp_type;

	return packet->protocol == PROTOCOL_ICMPV6 &&
	       (type == ND_ROUTER_SOLICITATION || type == ND_SOLICITATION || type == ND_ADVERTISEMENT);
}

/* Where its options begin, in the ICMPv6 message. */
static __always_inline u32 nd_options(const struct packet *packet)
{
	return packet->icmp_type == ND_ROUTER_SOLICITATION ? 8 : 24;
}

/* Whether the option, if it is of a link-layer address, is of `mac`. */
static __always_inline bool says_own_mac(const struct nd_option *option, const u16 *mac)
{
	if (option->type != ND_SOURCE_MAC && option->type != ND_TARGET_MAC)
		return option->length;
	return option->length == 1 && same_mac(option->mac, mac);
}

static __always_inline bool is_dhcp_request(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_UDP && packet->family == FAMILY_IPV4 &&
	       packet->source_port == DHCP_CLIENT && packet->destination_port == DHCP_SERVER;
}

static __always_inline bool is_dhcpv6_request(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_UDP && packet->family == FAMILY_IPV6 &&
	       packet->source_port == DHCPV6_CLIENT && packet->destination_port == DHCPV6_SERVER;
}

/* What may come from an address that nobody has trusted yet: DHCP requests, and from no address at all duplicate
 * address detection, router solicitations and multicast reports (RFC 4862, RFC 3590). */
static __always_inline bool needs_no_trust(const struct packet *packet, const struct address *source)
{
	u8 type = packet->icmp_type;

	if (packet->protocol == PROTOCOL_UDP)
		return (is_dhcp_request(packet) && is_unspecified(source)) || (is_dhcpv6_request(packet) && is_link_local(source));
	return packet->protocol == PROTOCOL_ICMPV6 && is_unspecified(source) &&
	       (type == ND_SOLICITATION || type == ND_ROUTER_SOLICITATION || type == MLD2_REPORT ||
		type == MLD_REPORT || type == MLD_DONE);
}

/* What a workload needs to come up, and all that passes before a policy is in: neighbour discovery, but for router
 * advertisements of its own, and DHCP as a client. SpoofGuard is on meanwhile, with no address bound. */
static __always_inline bool passes_closed(const struct packet *packet, const struct address *local, u8 direction)
{
	if (packet->protocol == PROTOCOL_ICMPV6)
		return packet->icmp_type >= ND_ROUTER_SOLICITATION && packet->icmp_type <= ND_ADVERTISEMENT &&
		       (direction == DIRECTION_IN || packet->icmp_type != ND_ROUTER_ADVERTISEMENT);
	if (direction == DIRECTION_IN)
		return is_dhcp(packet, DIRECTION_IN);
	return packet->protocol == PROTOCOL_UDP && needs_no_trust(packet, local);
}

/* Whether the vNIC would be a DHCP server in this conversation: it sends to a client's port or from a server's, or
 * receives what clients say to servers. Whatever port a server sends from, a client reads it. */
static __always_inline bool is_dhcp_service(const struct packet *packet, const struct flow_key *key)
{
	bool ipv4 = packet->family == FAMILY_IPV4;

	if (packet->protocol != PROTOCOL_UDP)
		return false;
	return key->local_port == (ipv4 ? DHCP_SERVER : DHCPV6_SERVER) ||
	       key->remote_port == (ipv4 ? DHCP_CLIENT : DHCPV6_CLIENT);
}

/* What this port may not say or hear; 0: nothing of the kind. Redirects are the other way of being a router (guards.h). */
static __always_inline u32 rogue(const struct packet *packet, const struct flow_key *key, u8 direction, u8 guard)
{
	u8 advertisement = packet->family == FAMILY_IPV4 ? ICMP_ROUTER_ADVERTISEMENT : ND_ROUTER_ADVERTISEMENT;

	if (is_dhcp_service(packet, key) && !(guard & GUARD_DHCP_SERVER))
		return REASON_ROGUE_DHCP;
	if (direction == DIRECTION_OUT && is_icmp(packet) && packet->icmp_type == advertisement && !(guard & GUARD_ROUTER))
		return REASON_ROGUE_RA;
	return 0;
}

#endif
