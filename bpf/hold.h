/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * By what a VM tells its network where it is now: the first thing it does on a host that it has moved to, or that
 * the hypervisor does in its name. Pure.
 *
 *     RARP            a request for the address of its own MAC address (RFC 903): QEMU, ESXi
 *     ARP             about its own address: an announcement (RFC 5227 2.3), Linux's arp_notify
 *     advertisement   of a neighbour, that nobody asked for, to all (RFC 4861 7.2.6)
 */
#ifndef VSFWD_HOLD_H
#define VSFWD_HOLD_H

#include "spoof.h"

#define ETHERTYPE_RARP 0x8035
#define RARP_REQUEST 3
#define ND_SOLICITED 0x40 /* of the flags of an advertisement */
#define ARP_FRAME (ETH_HLEN + 28)
#define ADVERTISEMENT_FRAME (ETH_HLEN + 40 + 24)

/* Of a frame of ARP_FRAME bytes. */
static __always_inline bool announces_by_arp(const u8 *frame, const u16 *mac)
{
	const struct arp *arp = (const void *)(frame + ETH_HLEN);

	if (!is_own_arp(arp, mac))
		return false;
	if (*(const u16 *)(frame + 12) == swap16(ETHERTYPE_RARP))
		return arp->operation == swap16(RARP_REQUEST) && same_mac(arp->target_mac, mac);
	return arp->sender[0] == arp->target[0] && arp->sender[1] == arp->target[1] && (arp->sender[0] | arp->sender[1]);
}

/* Of a frame of ADVERTISEMENT_FRAME bytes. */
static __always_inline bool announces_by_advertisement(const u8 *frame)
{
	const struct ipv6hdr *ip = (const void *)(frame + ETH_HLEN);
	const u8 *message = (const void *)(ip + 1);

	return ip->version == 6 && ip->nexthdr == PROTOCOL_ICMPV6 && ip->hop_limit == 255 && ip->daddr.s6_addr[0] == 0xff &&
	       message[0] == ND_ADVERTISEMENT && !message[1] && !(message[4] & ND_SOLICITED);
}

#endif
