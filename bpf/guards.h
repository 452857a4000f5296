/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What no rule is asked about: packets that nobody sends who means well. Pure.
 *
 * Looked for only where rules are asked, and of ICMP errors: the packets of a flow have the addresses of its first, and
 * none of the messages below has a flow.
 */
#ifndef VSFWD_GUARDS_H
#define VSFWD_GUARDS_H

#include "packet.h"

#define ICMP_REDIRECT_TYPE 5
#define ICMP_UNREACHABLE 3
#define FRAGMENTATION_NEEDED 4 /* its code for an MTU */
#define IPV4_LEAST_MTU 68      /* RFC 791 */
#define PACKET_TOO_BIG 2
#define IPV6_LEAST_MTU 1280    /* RFC 8200 5 */
#define MLD_QUERY 130
#define MLD_REPORT 131
#define MLD_DONE 132
#define ND_FIRST 133 /* router solicitation; then router advertisement, neighbour solicitation and advertisement */
#define ND_REDIRECT 137
#define MLD2_REPORT 143

/* RFC 1812 5.3.7, RFC 4291 2.5.2, 2.5.3 and 2.7: no source is a group or the loopback, no destination is the loopback
 * or unspecified. An unspecified source may be: DHCP and duplicate address detection have no other. */
static __always_inline bool is_martian(const struct address *source, const struct address *destination, u8 family)
{
	u32 from = swap32(source->word[3]), to = swap32(destination->word[3]);

	if (same_address(source, destination))
		return true;
	if (family == FAMILY_IPV4)
		return from >> 28 == 14 || from == 0xffffffff || from >> 24 == 127 || to >> 24 == 127 || !to;
	if ((source->word[0] & 0xff) == 0xff)
		return true;
	return (!source->word[0] && !source->word[1] && !source->word[2] && from == 1) ||
	       (!destination->word[0] && !destination->word[1] && !destination->word[2] && to <= 1);
}

static __always_inline bool is_link_local(const struct address *address)
{
	return (swap32(address->word[0]) & 0xffc00000) == 0xfe800000;
}

/* Neighbour discovery counts only if no router has touched it (RFC 4861 6.1, 7.1, 8.1) and nothing hides it from those
 * who look (RFC 6980, which asks it of fragments; extension headers hide it as well). MLD stays on its link and its
 * queries come from a link-local address (RFC 2710 3 and 4, RFC 3810 5). */
static __always_inline bool is_not_on_link(const struct packet *packet, const struct address *source)
{
	u8 type = packet->icmp_type;

	if (packet->protocol != PROTOCOL_ICMPV6)
		return false;
	if (type >= ND_FIRST && type <= ND_REDIRECT)
		return packet->hop_limit != 255 || packet->options;
	if (type == MLD_QUERY)
		return packet->hop_limit != 1 || !is_link_local(source);
	return (type == MLD_REPORT || type == MLD_DONE || type == MLD2_REPORT) && packet->hop_limit != 1;
}

static __always_inline bool is_redirect(const struct packet *packet)
{
	return is_icmp(packet) && packet->icmp_type == (packet->family == FAMILY_IPV4 ? ICMP_REDIRECT_TYPE : ND_REDIRECT);
}

/* Whether an ICMP error with this in its second word asks for packets smaller than any link makes them (RFC 8201 4: such
 * a message is discarded). A router from before RFC 1191 says 0, which asks for nothing. */
static __always_inline bool asks_too_small(const struct packet *packet, u32 word)
{
	u32 mtu = swap32(word);

	if (packet->family == FAMILY_IPV6)
		return packet->icmp_type == PACKET_TOO_BIG && mtu < IPV6_LEAST_MTU;
	mtu &= 0xffff;
	return packet->icmp_type == ICMP_UNREACHABLE && packet->icmp_code == FRAGMENTATION_NEEDED && mtu &&
	       mtu < IPV4_LEAST_MTU;
}

/* Why a packet is dropped whatever the rules say; 0 if it is not. */
static __always_inline u32 guard(const struct packet *packet, const struct address *source,
				 const struct address *destination, u8 direction, bool router)
{
	if (is_martian(source, destination, packet->family))
		return REASON_ADDRESS;
	if (is_not_on_link(packet, source))
		return REASON_NOT_ON_LINK;
	return direction == DIRECTION_OUT && !router && is_redirect(packet) ? REASON_REDIRECT : 0;
}

#endif
