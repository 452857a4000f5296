/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet as it is known from its headers (parse.h writes that), what it is, and the key of its flow. Pure: no map, no
 * helper.
 */
#ifndef VSFWD_PACKET_H
#define VSFWD_PACKET_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "types.h"

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58
#define ETHERTYPE_QINQ 0x88a8

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define swap16(x) __builtin_bswap16(x)
#define swap32(x) __builtin_bswap32(x)
#define MAPPED_PREFIX swap32(0xffff) /* third word of ::ffff:0:0/96, wire */

enum fragment {
	FRAGMENT_NONE,
	FRAGMENT_ATOMIC, /* has the header, but is whole: independent of all fragments (RFC 6946) */
	FRAGMENT_FIRST,
	FRAGMENT_LATER,  /* has nothing of the protocol's header */
};

/* What passes, or is parsed, without an Ethernet rule. */
static __always_inline bool is_known(u16 ethertype)
{
	return ethertype == ETH_P_IP || ethertype == ETH_P_IPV6 || ethertype == ETH_P_ARP;
}

/* What a frame says, but for its addresses: they go straight into the key of its flow. */
struct packet {
	u32 length;           /* of the frame */
	u32 ip_length;        /* of the IP packet, as it claims */
	u32 l4;               /* offset of the protocol's header */
	u32 options_end;      /* where the options end that parse() is going over */
	u32 fragment_id;      /* wire; IPv4: 16 bits. This and the two below are of fragments only */
	u32 fragment_at;      /* where its payload begins and ends in that of the whole packet */
	u32 fragment_end;
	u16 source_port;      /* wire; 0 where there are none */
	u16 destination_port; /* wire; 0 where there are none */
	u16 echo_id;          /* wire; ICMP: bytes 4 and 5, the identifier of an echo */
	u8 family;            /* enum family */
	u8 protocol;
	u8 segment;           /* TCP: enum segment */
	u8 icmp_type;
	u8 icmp_code;
	u8 options;           /* IPv4: 1 if it has any, or is a fragment; IPv6: extension headers */
	u8 hop_limit;         /* IPv4: time to live */
	u8 fragment;          /* enum fragment */
	u8 more_fragments;    /* of fragments only: 1 unless it is the last */
	u8 group;             /* 1: to a multicast or broadcast MAC address; written by receive() */
	u8 tagged;            /* 1: with a VLAN tag that an Ethernet rule allows */
	u16 vlan;             /* its VLAN id; 0 without */
	u16 window;           /* TCP, unscaled, host order */
	u16 check;            /* TCP and ICMP: the checksum, wire */
	u32 seq;              /* TCP; host order, like those below. Of an ICMP error: the quoted segment's */
	u32 end;              /* seq and all that the segment has: data, SYN, FIN */
	u32 ack;
	u32 header;           /* TCP: bytes of its header */
};

/* A line that alg.h reads, and what it has found. */
struct line {
	u32 at;
	u32 length;
	u32 number;      /* the last one */
	u16 group[8];    /* of an IPv6 address */
	u32 groups;
	u32 gap;         /* at which group its :: is; NO_GAP */
	u16 part[6];     /* of h1,h2,h3,h4,p1,p2 */
	struct address address;
	u16 port;
	u8 zero[2];
};

/* What is known of the packet at hand. In a map and not on the stack because the verifier forgets what it knows of
 * values there: it would otherwise follow every way through the parser to the end of the program. */
struct scratch {
	struct packet packet;
	struct flow_key key;
	struct ether ether; /* what Ethernet rules are asked about */
	u32 search;         /* SEARCH_: which rules are asked again */
	u64 in_force;       /* the value of the map control that rules were asked under, when another program goes on */
	u8 asked;           /* 1: another program has begun with this packet */
	u32 way;       /* way_of() */
	u32 step;      /* enum step */
	u32 expected;  /* TCP: the sequence number that follows what its sender had sent before */
	struct line line;
	u8 bytes[520]; /* TCP options; a line; what a checksum is made of: BYTES and room for zeros behind them */
};

/* Where the addresses of a packet in `direction` stand in the key of its flow. */
static __always_inline struct address *source_of(struct flow_key *key, u8 direction)
{
	return &key->remote + (direction & 1);
}

static __always_inline struct address *destination_of(struct flow_key *key, u8 direction)
{
	return &key->remote + !(direction & 1);
}

/* What is used often from here on. A value of its own, since clang reads one that lives long from the stack for each use,
 * and calculates one that depends on the direction anew. */
#define keep_near(value) asm volatile("" : "+r"(value))

/* A number below `limit`, a power of 2, by a mask that clang does not reason away: the verifier may believe in nothing
 * else. Before Linux 6.10 it knows nothing of an OR, which clang makes of a sum of parts. */
static __always_inline u64 bounded(u64 number, u64 limit)
{
	asm volatile("" : "+r"(number));
	return number & (limit - 1);
}

/* Of bytes to load, where there is room for `room`. That there are any, a verifier before Linux 6.8 learns from `> 0`, not
 * from `!= 0`; clang must not know that here the two are one. */
static __always_inline s64 bounded_length(u64 length, u64 room)
{
	length = bounded(length, room);
	asm volatile("" : "+r"(length));
	return length;
}

static __always_inline bool is_icmp(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_ICMP || packet->protocol == PROTOCOL_ICMPV6;
}

static __always_inline bool is_fragment(const struct packet *packet)
{
	return packet->fragment >= FRAGMENT_FIRST;
}

static __always_inline struct address mapped(u32 ipv4)
{
	return (struct address){{0, 0, MAPPED_PREFIX, ipv4}};
}

static __always_inline bool is_mapped(const struct address *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == MAPPED_PREFIX;
}

static __always_inline bool same_address(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

static __always_inline u8 echo_request(u8 family)
{
	return family == FAMILY_IPV4 ? 8 : 128;
}

static __always_inline u8 echo_reply(u8 family)
{
	return family == FAMILY_IPV4 ? 0 : 129;
}

static __always_inline bool is_echo_request(const struct packet *packet)
{
	return packet->icmp_type == echo_request(packet->family);
}

static __always_inline bool is_echo(const struct packet *packet)
{
	return is_icmp(packet) && (is_echo_request(packet) || packet->icmp_type == echo_reply(packet->family));
}

/* Whether it can be part of a flow. ICMP other than echo cannot, and what goes to many cannot. */
static __always_inline bool is_tracked(const struct packet *packet)
{
	return !packet->group && (likely(!is_icmp(packet)) || is_echo(packet));
}

/* Destination unreachable, packet too big, time exceeded, parameter problem. */
static __always_inline bool is_icmp_error(const struct packet *packet)
{
	u8 type = packet->icmp_type;

	if (packet->protocol == PROTOCOL_ICMP)
		return type == 3 || type == 11 || type == 12;
	return packet->protocol == PROTOCOL_ICMPV6 && type >= 1 && type <= 4;
}

/* What the workload says to DHCP and DHCPv6 servers as a client, and they to it. */
static __always_inline bool is_dhcp(const struct packet *packet, u8 direction)
{
	bool in = direction == DIRECTION_IN;
	u16 client = swap16(in ? packet->destination_port : packet->source_port);
	u16 server = swap16(in ? packet->source_port : packet->destination_port);

	if (packet->protocol != PROTOCOL_UDP)
		return false;
	return packet->family == FAMILY_IPV4 ? client == 68 && server == 67 : client == 546 && server == 547;
}

/* The rest of the key: parse() has written its addresses. */
static __always_inline void complete_key(struct flow_key *key, const struct packet *packet, u8 direction)
{
	u16 *port = &key->remote_port;

	port[direction & 1] = packet->source_port;
	port[!(direction & 1)] = packet->destination_port;
	key->protocol = packet->protocol;
	key->query_in = 0;
	key->vlan = packet->vlan;
	if (unlikely(is_echo(packet))) {
		key->remote_port = packet->echo_id;
		key->query_in = is_echo_request(packet) == (direction == DIRECTION_IN);
	}
}

#endif
