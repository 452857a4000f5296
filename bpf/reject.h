/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The answer to a rejected packet: a RST for TCP (RFC 9293 3.10.7.1), "administratively prohibited" for the rest (RFC
 * 1812 5.2.7.1, RFC 4443 3.1). No map access.
 *
 * The rejected skb becomes the reply, and must keep nothing of what its sender left on it: no GSO, and no checksum to
 * be completed by hardware. bpf_skb_change_tail() drops the first; cutting 64 bytes off the front of the network layer
 * drops the second, for the kernel then finds that the place where the checksum would start is gone.
 */
#ifndef VSFWD_REJECT_H
#define VSFWD_REJECT_H

#include <linux/tcp.h>

#include "checksum.h"

#define CUT 64         /* more than Ethernet, IPv6 and the bytes up to a checksum field */
#define ROOM 128       /* CUT + Ethernet + IPv6, and some */
#define QUOTED 8       /* bytes of the rejected packet behind its IP header that an ICMP error carries */
#define TTL 64
#define ADJUST_NET 0   /* BPF_ADJ_ROOM_NET */
#define RECOMPUTE 1    /* BPF_F_RECOMPUTE_CSUM */

struct icmp_error {
	u8 type;
	u8 code;
	u16 checksum; /* wire */
	u32 unused;
	u8 quote[sizeof(struct ipv6hdr) + QUOTED];
};

struct reply {
	u16 zero; /* so that the IP header is aligned */
	struct ethhdr ethernet;
	union {
		struct {
			struct iphdr ip;
			union {
				struct tcphdr tcp;
				struct icmp_error icmp;
			};
		} v4;
		struct {
			struct ipv6hdr ip;
			union {
				struct tcphdr tcp;
				struct icmp_error icmp;
			};
		} v6;
	};
	u8 spare[16]; /* so that any length below 128 is inside */
};

/* One host's address, as seen on a wire: neither unspecified nor loopback nor of a group. */
static __always_inline bool is_host(const struct address *address, u8 family)
{
	u32 first = address->word[0], last = swap32(address->word[3]);

	if (family == FAMILY_IPV4)
		return last && last >> 24 != 127 && last >> 28 < 14;
	return (first || address->word[1] || address->word[2] || last > 1) && (first & 0xff) != 0xff;
}

/* Never answer an answer, a packet that many may answer, or one whose answer would need more care than it is worth. */
static __always_inline bool may_reject(const struct packet *packet, const struct address *source,
				       const struct address *destination)
{
	if (packet->options || !is_host(source, packet->family) || !is_host(destination, packet->family))
		return false;
	if (packet->protocol == PROTOCOL_TCP)
		return packet->segment != SEGMENT_RST;
	return !is_icmp(packet) || is_echo_request(packet);
}

/* A RST that the sender of `segment` accepts; its checksum starts from `sum`, that of the pseudo header. */
static __always_inline void build_rst(struct tcphdr *rst, const struct tcphdr *segment, u32 payload, u32 sum)
{
	__builtin_memset(rst, 0, sizeof(*rst));
	rst->source = segment->dest;
	rst->dest = segment->source;
	rst->doff = sizeof(*rst) / 4;
	rst->rst = 1;
	if (segment->ack) {
		rst->seq = segment->ack_seq;
	} else {
		rst->ack = 1;
		rst->ack_seq = swap32(swap32(segment->seq) + payload + segment->syn + segment->fin);
	}
	rst->check = fold(bpf_csum_diff(0, 0, (void *)rst, sizeof(*rst), sum));
}

/* An error about the packet, but for its checksum: its length, or 0. It quotes the IP header and what follows, and
 * never a byte behind the packet's own end, which would be somebody else's (padding, memory). */
static __always_inline u32 build_icmp(struct __sk_buff *skb, struct icmp_error *icmp, const struct packet *packet,
				      u32 header, u8 type, u8 code)
{
	u32 behind = packet->ip_length - header, quoted;

	if (behind > QUOTED)
		behind = QUOTED;
	asm volatile("" : "+r"(behind));
	quoted = header + (behind & (2 * QUOTED - 1)); /* the mask is for the verifier */
	__builtin_memset(icmp, 0, sizeof(*icmp));
	icmp->type = type;
	icmp->code = code;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, icmp->quote, quoted))
		return 0;
	return 8 + quoted;
}

static __always_inline int build_ipv4(struct __sk_buff *skb, struct reply *reply, const struct packet *packet,
				      const struct address *from, const struct address *to)
{
	struct iphdr *ip = &reply->v4.ip;
	struct icmp_error *icmp = &reply->v4.icmp;
	struct tcphdr segment;
	u32 size = sizeof(segment);

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->ttl = TTL;
	ip->saddr = from->word[3];
	ip->daddr = to->word[3];
	if (packet->protocol == PROTOCOL_TCP) {
		if (bpf_skb_load_bytes(skb, packet->l4, &segment, sizeof(segment)))
			return 0;
		ip->protocol = PROTOCOL_TCP;
		build_rst(&reply->v4.tcp, &segment, packet->ip_length - sizeof(*ip) - segment.doff * 4,
			  bpf_csum_diff(0, 0, (void *)&ip->saddr, 8, swap32(PROTOCOL_TCP + size)));
	} else {
		size = build_icmp(skb, icmp, packet, sizeof(*ip), 3, 13);
		if (!size)
			return 0;
		ip->protocol = PROTOCOL_ICMP;
		icmp->checksum = fold(bpf_csum_diff(0, 0, (void *)icmp, sizeof(*icmp), 0));
	}
	ip->tot_len = swap16(sizeof(*ip) + size);
	ip->check = fold(bpf_csum_diff(0, 0, (void *)ip, sizeof(*ip), 0));
	return ETH_HLEN + sizeof(*ip) + size;
}

static __always_inline int build_ipv6(struct __sk_buff *skb, struct reply *reply, const struct packet *packet,
				      const struct address *from, const struct address *to)
{
	struct ipv6hdr *ip = &reply->v6.ip;
	struct icmp_error *icmp = &reply->v6.icmp;
	struct tcphdr segment;
	u32 size = sizeof(segment);
	u32 sum;

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->hop_limit = TTL;
	__builtin_memcpy(&ip->saddr, from, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, to, sizeof(ip->daddr));
	if (packet->protocol == PROTOCOL_TCP) {
		if (bpf_skb_load_bytes(skb, packet->l4, &segment, sizeof(segment)))
			return 0;
		ip->nexthdr = PROTOCOL_TCP;
		sum = bpf_csum_diff(0, 0, (void *)&ip->saddr, 32, swap32(PROTOCOL_TCP + size));
		build_rst(&reply->v6.tcp, &segment, packet->ip_length - sizeof(*ip) - segment.doff * 4, sum);
	} else {
		size = build_icmp(skb, icmp, packet, sizeof(*ip), 1, 1);
		if (!size)
			return 0;
		ip->nexthdr = PROTOCOL_ICMPV6;
		sum = bpf_csum_diff(0, 0, (void *)&ip->saddr, 32, swap32(PROTOCOL_ICMPV6 + size));
		icmp->checksum = fold(bpf_csum_diff(0, 0, (void *)icmp, sizeof(*icmp), sum));
	}
	ip->payload_len = swap16(size);
	return ETH_HLEN + sizeof(*ip) + size;
}

/* Turns the skb into the answer to itself, `from` its destination `to` its source. 0, or the kernel's error. */
static __always_inline int become_reply(struct __sk_buff *skb, struct reply *reply, const struct packet *packet,
					const struct address *from, const struct address *to)
{
	bool ipv4 = packet->family == FAMILY_IPV4;
	struct ethhdr received;
	u32 length;

	if (bpf_skb_load_bytes(skb, 0, &received, sizeof(received)))
		return -1;
	__builtin_memcpy(reply->ethernet.h_dest, received.h_source, ETH_ALEN);
	__builtin_memcpy(reply->ethernet.h_source, received.h_dest, ETH_ALEN);
	reply->ethernet.h_proto = received.h_proto;
	length = ipv4 ? build_ipv4(skb, reply, packet, from, to) : build_ipv6(skb, reply, packet, from, to);
	if (!length || bpf_skb_change_tail(skb, ROOM, 0) || bpf_skb_adjust_room(skb, -CUT, ADJUST_NET, 0) ||
	    bpf_skb_change_tail(skb, length, 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, &reply->ethernet, length, RECOMPUTE);
}

#endif
