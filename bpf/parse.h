/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From bytes to struct packet, once, with every bound checked here. Pure: no map, no helper.
 *
 * parse() answers 0, PARSE_MORE when a header is in the packet but not yet in its linear part (pull it, parse again),
 * or the reason to drop. What it lets through has whole headers (or is a fragment behind the first), claims no more
 * bytes than it has and has addresses that mean what they say.
 */
#ifndef VSFWD_PARSE_H
#define VSFWD_PARSE_H

#include "packet.h"

#define PARSE_MORE 255
#define MAX_HEADERS 512   /* bytes that parse() may ask to be pulled */
#define MAX_EXTENSIONS 6  /* IPv6 extension headers before the protocol */
#define MAX_WALK 24       /* those and options, IPv4's too: Linux takes 8 options and 7 bytes of padding in an IPv6 header */

#define EXTENSION_HOP_BY_HOP 0
#define EXTENSION_ROUTING 43
#define EXTENSION_FRAGMENT 44
#define EXTENSION_DESTINATION 60

#define IPV4_END_OF_OPTIONS 0
#define IPV4_NO_OPERATION 1
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV6_PAD1 0
#define ROUTING_TYPE_0 0

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

union quoted_header {
	struct iphdr v4;
	struct ipv6hdr v6;
};

/* The bytes of a frame that a program may touch. */
struct frame {
	void *data;
	void *end;
	u32 length; /* of the whole frame */
	u32 gso;    /* not 0: segments come later, so a length of 0 may stand for one over 65,535 (BIG TCP) */
};

/* An offset into the headers, read back from the map: the verifier forgets what it knew of it, and ways join. */
static __always_inline u32 reread(const u32 *offset)
{
	return *(volatile const u32 *)offset & (2 * MAX_HEADERS - 1);
}

/* The header that ends at `offset` is not in the linear part: is it in the packet at all? */
static __always_inline int beyond(const struct frame *frame, u32 offset)
{
	return offset > frame->length || offset > MAX_HEADERS ? REASON_SHORT : PARSE_MORE;
}

/* PSH, URG and what ECN uses may stand beside these; no other combination is one that TCP sends. */
static __always_inline int parse_flags(struct packet *packet, u8 flags)
{
	if (flags == TCP_ACK) {
		packet->segment = SEGMENT_ACK;
	} else if (flags == TCP_SYN || flags == (TCP_SYN | TCP_ACK)) {
		packet->segment = flags == TCP_SYN ? SEGMENT_SYN : SEGMENT_SYN_ACK;
		packet->end++;
	} else if (flags == (TCP_FIN | TCP_ACK)) {
		packet->segment = SEGMENT_FIN;
		packet->end++;
	} else if (flags == TCP_RST || flags == (TCP_RST | TCP_ACK)) {
		packet->segment = SEGMENT_RST;
	} else {
		return REASON_TCP_FLAGS;
	}
	return 0;
}

static __always_inline int parse_tcp(const struct frame *frame, struct packet *packet, u8 *header, u64 l4, u64 end)
{
	u64 size;

	if (l4 + 20 > end)
		return REASON_SHORT;
	if ((void *)header + 20 > frame->end)
		return beyond(frame, l4 + 20);
	size = (header[12] >> 4) * 4;
	if (size < 20 || l4 + size > end)
		return REASON_HEADER;
	packet->source_port = *(u16 *)header;
	packet->destination_port = *(u16 *)(header + 2);
	packet->header = size;
	packet->seq = swap32(*(u32 *)(header + 4));
	packet->ack = swap32(*(u32 *)(header + 8));
	packet->window = swap16(*(u16 *)(header + 14));
	packet->check = *(u16 *)(header + 16);
	/* Of a first fragment: as if it were as long as can be, for the rest is never looked at. */
	packet->end = packet->seq + (is_fragment(packet) ? 0xffff : end - l4 - size);
	return parse_flags(packet, header[13] & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK));
}

/* Ports, flags, types. The protocol's header is at `l4`, the IP packet ends at `end`. */
static __always_inline int parse_protocol(const struct frame *frame, struct packet *packet, u64 l4, u64 end)
{
	u8 *header = frame->data + l4;
	u64 size;

	keep_near(header); /* and one pointer, so that what is checked is what is read */
	keep_near(packet);
	if (likely(packet->protocol == PROTOCOL_TCP))
		return parse_tcp(frame, packet, header, l4, end);
	if (packet->protocol != PROTOCOL_UDP && !is_icmp(packet))
		return 0;
	if (packet->protocol == (packet->family == FAMILY_IPV6 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6))
		return REASON_ICMP_FAMILY;
	if (l4 + 8 > end)
		return REASON_SHORT;
	if ((void *)header + 8 > frame->end)
		return beyond(frame, l4 + 8);
	if (is_icmp(packet)) {
		packet->icmp_type = header[0];
		packet->icmp_code = header[1];
		packet->check = *(u16 *)(header + 2);
		packet->echo_id = *(u16 *)(header + 4);
		return 0;
	}
	packet->source_port = *(u16 *)header;
	packet->destination_port = *(u16 *)(header + 2);
	size = swap16(*(u16 *)(header + 4));
	if (!size && frame->gso)
		return 0;
	return size < 8 || (l4 + size > end && !is_fragment(packet)) ? REASON_LENGTH : 0;
}

/* LSRR or SSRR, be it copied into fragments or not. */
static __always_inline bool is_source_route(u8 option)
{
	return (option & 0x7f) == 3 || (option & 0x7f) == 9;
}

static __always_inline bool is_extension(u8 next)
{
	return next == EXTENSION_HOP_BY_HOP || next == EXTENSION_ROUTING || next == EXTENSION_FRAGMENT ||
	       next == EXTENSION_DESTINATION;
}

/* A fragment, whose payload begins at `at` in that of the whole packet. All but the last carry whole multiples of 8
 * bytes; no packet is longer than 65,535 (IPv6: behind its header), whatever its fragments say. */
static __always_inline int note_fragment(struct packet *packet, u32 id, u32 at, bool more, u32 payload)
{
	u32 most = 65535 + (packet->family == FAMILY_IPV6 ? sizeof(struct ipv6hdr) + 8 : 0);

	packet->fragment = at ? FRAGMENT_LATER : more ? FRAGMENT_FIRST : FRAGMENT_ATOMIC;
	packet->fragment_id = id;
	packet->fragment_at = at;
	packet->fragment_end = at + payload;
	packet->more_fragments = more;
	if (!is_fragment(packet))
		return 0;
	return !payload || (more && payload % 8) || at + packet->ip_length > most ? REASON_LENGTH : 0;
}

/* One option, at packet->l4 and from there to the next. In IPv4 a length counts its type and itself, in IPv6 it does
 * not; each has a type that is one byte of padding (RFC 791 3.1, RFC 8200 4.2). */
static __always_inline int walk_option(const struct frame *frame, struct packet *packet)
{
	u32 at = reread(&packet->l4), end = reread(&packet->options_end), size = 1;
	bool ipv4 = packet->family == FAMILY_IPV4;
	u8 *option = frame->data + at;

	if ((void *)option + 1 > frame->end)
		return beyond(frame, at + 1);
	if (ipv4 && option[0] == IPV4_END_OF_OPTIONS) {
		size = end - at;
	} else if (option[0] != (ipv4 ? IPV4_NO_OPERATION : IPV6_PAD1)) {
		if ((void *)option + 2 > frame->end)
			return beyond(frame, at + 2);
		if (ipv4 && is_source_route(option[0]))
			return REASON_SOURCE_ROUTE;
		size = option[1] + (ipv4 ? 0 : 2);
		if (size < 2)
			return REASON_HEADER;
	}
	packet->l4 = at + size;
	return at + size > end ? REASON_HEADER : 0;
}

/* One extension header. Its options, if it has such, are walked next. */
static __always_inline int walk_extension(const struct frame *frame, struct packet *packet)
{
	u32 at = reread(&packet->l4), end = ETH_HLEN + packet->ip_length, size;
	u8 next = packet->protocol, *extension = frame->data + at;
	u16 field;

	if (++packet->options > MAX_EXTENSIONS)
		return REASON_EXTENSIONS;
	if (next == EXTENSION_HOP_BY_HOP && packet->options > 1) /* RFC 8200 4.1: the first, or none */
		return REASON_EXTENSIONS;
	if ((void *)extension + 8 > frame->end)
		return beyond(frame, at + 8);
	if (next == EXTENSION_FRAGMENT) {
		if (packet->fragment)
			return REASON_EXTENSIONS;
		if (at + 8 > end)
			return REASON_SHORT;
		packet->protocol = extension[0];
		packet->l4 = at + 8;
		field = swap16(*(u16 *)(extension + 2));
		return note_fragment(packet, *(u32 *)(extension + 4), field & ~7, field & 1, end - at - 8);
	}
	size = (extension[1] + 1) * 8;
	if (at + size > end)
		return REASON_SHORT;
	if (at + size > MAX_HEADERS)
		return REASON_EXTENSIONS;
	if (next == EXTENSION_ROUTING && (extension[2] == ROUTING_TYPE_0 || extension[3]))
		return REASON_SOURCE_ROUTE;
	packet->protocol = extension[0];
	packet->l4 = at + (next == EXTENSION_ROUTING ? size : 2);
	packet->options_end = at + size;
	return 0;
}

/* IPv4 options, or IPv6 extension headers with theirs: packet->l4 goes over them, packet->protocol is what comes there.
 * A header that is no extension is the packet's protocol, also where more might follow (ESP, AH, unknown numbers). */
static __always_inline int walk_headers(const struct frame *frame, struct packet *packet)
{
	for (u32 i = 0; i < MAX_WALK; i++) {
		int reason;

		asm volatile("" ::: "memory"); /* read everything anew: what is read the verifier knows nothing of, so ways join */
		if (packet->l4 < packet->options_end)
			reason = walk_option(frame, packet);
		else if (packet->family == FAMILY_IPV6 && packet->fragment != FRAGMENT_LATER && is_extension(packet->protocol))
			reason = walk_extension(frame, packet);
		else
			return 0;
		if (reason)
			return reason;
	}
	return REASON_EXTENSIONS;
}

static __always_inline int parse_ipv4(const struct frame *frame, struct packet *packet, struct address *source,
				      struct address *destination)
{
	struct iphdr *ip = frame->data + ETH_HLEN;
	u64 header, field, length;

	if ((void *)(ip + 1) > frame->end)
		return beyond(frame, ETH_HLEN + sizeof(*ip));
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return REASON_HEADER;
	packet->family = FAMILY_IPV4;
	packet->options = header > sizeof(*ip);
	packet->options_end = ETH_HLEN + header;
	packet->protocol = ip->protocol;
	packet->hop_limit = ip->ttl;
	*source = mapped(ip->saddr);
	*destination = mapped(ip->daddr);
	length = swap16(ip->tot_len);
	if (!length && frame->gso)
		length = frame->length - ETH_HLEN;
	packet->ip_length = length;
	if (length < header || ETH_HLEN + length > frame->length)
		return REASON_LENGTH;
	field = swap16(ip->frag_off) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET);
	if (likely(!field))
		return 0;
	packet->options = 1;
	return note_fragment(packet, ip->id, (field & IPV4_OFFSET) * 8, field & IPV4_MORE_FRAGMENTS, length - header);
}

static __always_inline int parse_ipv6(const struct frame *frame, struct packet *packet, struct address *source,
				      struct address *destination)
{
	struct ipv6hdr *ip = frame->data + ETH_HLEN;

	if ((void *)(ip + 1) > frame->end)
		return beyond(frame, ETH_HLEN + sizeof(*ip));
	if (ip->version != 6)
		return REASON_HEADER;
	packet->family = FAMILY_IPV6;
	packet->options = 0;
	packet->options_end = 0;
	packet->protocol = ip->nexthdr;
	packet->hop_limit = ip->hop_limit;
	packet->ip_length = sizeof(*ip) + swap16(ip->payload_len);
	if (!ip->payload_len && frame->gso)
		packet->ip_length = frame->length - ETH_HLEN;
	if (packet->ip_length > frame->length - ETH_HLEN)
		return REASON_LENGTH;
	__builtin_memcpy(source, &ip->saddr, sizeof(struct address));
	__builtin_memcpy(destination, &ip->daddr, sizeof(struct address));
	return is_mapped(source) || is_mapped(destination) ? REASON_MAPPED : 0;
}

/* The IP packet behind the Ethernet header; `ethertype` is in host order. Its key is not yet whole: complete_key(). */
static __always_inline int parse(const struct frame *frame, struct packet *packet, struct flow_key *key, u8 direction,
				 u16 ethertype)
{
	struct address *source = source_of(key, direction), *destination = destination_of(key, direction);
	bool ipv4 = ethertype == ETH_P_IP;
	u64 l4 = ETH_HLEN + (ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)), end;
	int reason;

	keep_near(packet);
	keep_near(source);
	keep_near(destination);

	packet->length = frame->length;
	packet->source_port = 0;
	packet->destination_port = 0;
	packet->icmp_type = 0;
	packet->icmp_code = 0;
	packet->fragment = FRAGMENT_NONE;
	reason = likely(ipv4) ? parse_ipv4(frame, packet, source, destination) : parse_ipv6(frame, packet, source, destination);
	if (reason)
		return reason;
	packet->l4 = l4;
	end = ETH_HLEN + packet->ip_length;
	if (unlikely(packet->options || (!ipv4 && is_extension(packet->protocol)))) {
		reason = walk_headers(frame, packet);
		if (reason)
			return reason;
		if (packet->fragment == FRAGMENT_LATER)
			return 0;
		l4 = reread(&packet->l4);
	}
	return parse_protocol(frame, packet, l4, end);
}

/* The packet that an ICMP error quotes, as far as it names a flow: `header` is its IP header, `protocol` the 8 bytes
 * behind it. */
static __always_inline void parse_quoted(const union quoted_header *header, const u16 *protocol, struct packet *packet,
					 struct address *source, struct address *destination)
{
	if (packet->family == FAMILY_IPV4) {
		packet->protocol = header->v4.protocol;
		*source = mapped(header->v4.saddr);
		*destination = mapped(header->v4.daddr);
	} else {
		packet->protocol = header->v6.nexthdr;
		__builtin_memcpy(source, &header->v6.saddr, sizeof(struct address));
		__builtin_memcpy(destination, &header->v6.daddr, sizeof(struct address));
	}
	if (is_icmp(packet)) {
		packet->icmp_type = *(u8 *)protocol;
		packet->echo_id = protocol[2];
	} else if (packet->protocol == PROTOCOL_TCP || packet->protocol == PROTOCOL_UDP) {
		packet->source_port = protocol[0];
		packet->destination_port = protocol[1];
		packet->seq = swap32(*(u32 *)(protocol + 2));
	}
}

#endif
