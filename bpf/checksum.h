/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Internet checksums (RFC 1071): of our own replies, and of packets that are about to change a flow. No map access.
 */
#ifndef VSFWD_CHECKSUM_H
#define VSFWD_CHECKSUM_H

#include "packet.h"

#define BYTES 512 /* summed at once */
#define CHUNKS 32 /* so the longest packet that is verified has 16,384 bytes; what is longer is GSO, or refused */

/* Of at most nine words of 32 bits, so that what the second step leaves over carries once more and no further. */
static __always_inline u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* Of the protocol's header and data. A checksum that equals the sum of the pseudo header has been left to the hardware
 * by a sender on this host, and is taken as right: who forges that from elsewhere has forged no checksum that the
 * receiver would accept. `key` still has the packet's own addresses: those of IPv4 have 0xffff twice beside them, which
 * adds nothing to a sum of ones' complement. `bytes` is that of struct scratch. */
static __always_inline bool is_intact(struct __sk_buff *skb, const struct packet *packet, const struct flow_key *key,
				      u8 *bytes)
{
	u32 length = packet->ip_length + ETH_HLEN - packet->l4, done = 0;
	const u32 *word = (const u32 *)&key->remote;
	u64 sum = 0;
	s64 rest;

	if (skb->gso_size)
		return true;
	if (packet->protocol != PROTOCOL_ICMP) {
		sum = swap32(length + packet->protocol);
#pragma unroll
		for (u32 i = 0; i < 8; i++)
			sum += word[i];
		sum = (u16)~fold(sum);
		if (packet->check == sum)
			return true;
	}
	for (u32 i = 0; i < CHUNKS && done + BYTES <= length; i++) {
		if (bpf_skb_load_bytes(skb, packet->l4 + done, bytes, BYTES))
			return false;
		sum = bpf_csum_diff(0, 0, (void *)bytes, BYTES, sum);
		done += BYTES;
	}
	rest = length - done;
	if (rest >= BYTES)
		return false;
	rest = bounded_length(rest, BYTES);
	*(u32 *)(bytes + (rest & ~3)) = 0;
	if (rest > 0 && bpf_skb_load_bytes(skb, packet->l4 + done, bytes, rest))
		return false;
	return !fold(bpf_csum_diff(0, 0, (void *)bytes, (rest + 3) & ~3, sum));
}

#endif
