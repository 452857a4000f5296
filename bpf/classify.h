/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How a packet finds its rule: equivalence classes and aggregated bit vectors.
 *
 * The problem. A rule says: from these groups, to those groups, for these services, on these vNICs, in this direction
 * and family. There are up to 16,384 of them, in order, and the first that matches decides. Trying them one by one
 * costs what there is; the answer should cost the same for ten rules and for ten thousand.
 *
 * The structure. Many addresses are in exactly the same groups: they are one class, and for the rules they are one
 * address. Of each class the compiler writes down, as a row of bits, which rules name it as source, and in a second
 * row, which name it as destination. The same for services, and for vNICs by direction and family. A packet looks up
 * four rows - its source, its destination, its service, its vNIC - and a rule matches it exactly if its bit is set in
 * all four. Rules are numbered in order, so the answer is the lowest bit of the AND.
 *
 * Sixteen thousand bits are 256 words, and nearly all of them are zero. So each row has a summary: one bit for each
 * word, set if the word is not zero. AND the four summaries first (4 words each), and look only into words whose bit
 * survives. A bit may survive for nothing - each row has something in that word, but not the same rule - and then the
 * next one is tried.
 *
 * Example, with words of 4 bits (bit 0 left) and these rules, all applied to every vNIC:
 *
 *     0  web -> db   tcp 22    drop         4  any -> app  any       allow
 *     1  app -> db   tcp 5432  allow        5  web -> any  tcp 80    allow
 *     2  any -> web  tcp 443   allow        6  any -> any  udp 53    allow
 *     3  web -> app  tcp 443   allow        7  any -> any  any       drop
 *
 * A packet from web to db, TCP port 80:
 *
 *     source web       word 0: 1011   word 1: 1111   summary 11
 *     destination db   word 0: 1100   word 1: 0111   summary 11
 *     service tcp 80   word 0: 0000   word 1: 1101   summary 01
 *     vNIC             word 0: 1111   word 1: 1111   summary 11
 *                                               AND: summary 01
 *     only word 1:                    1111 & 0111 & 1101 & 1111 = 0101: bit 1, rule 5, allow.
 *
 * Ethernet rules are in the same order, before all others, and found the same way: rows of the two MAC addresses, the
 * EtherType, the VLAN id and the vNIC.
 *
 * A rule may also name source ports. They are a fifth row; where no such rule is applied to the vNIC, the vNIC's row is
 * taken twice. A rule whose services differ in their source ports is several lines here, one behind the other, so that
 * each is a product of rows.
 *
 * A rule that matches may not be the answer: one that is only monitored, or one that jumps to the category Application.
 * Then the search is done again, once or twice, with another row of the vNIC: one without monitored rules, one without what
 * comes before that category, or one without both.
 *
 * Cost: five row lookups, 5 x 4 summary words, and a word of each row for every summary bit that survives - usually
 * one. An address costs one hash lookup if it is known exactly; otherwise one more in a trie of prefixes.
 *
 * References: Lakshman and Stiliadis, "High-speed policy-based packet forwarding using efficient multi-dimensional
 * range matching" (SIGCOMM 1998), for the bit vectors; Baboescu and Varghese, "Scalable packet classification"
 * (SIGCOMM 2001), for their aggregation.
 */
#ifndef VSFWD_CLASSIFY_H
#define VSFWD_CLASSIFY_H

#include "packet.h"

#define NO_BIT 0xffffffff

/* What a packet asks the policy, in the orientation of the flow's initiator. */
struct question {
	const struct address *source;
	const struct address *destination;
	u32 point;        /* service_point() */
	u32 source_point; /* of TCP and UDP only */
	u8 direction; /* enum direction, of the initiator's packets */
	u8 family;    /* enum family */
};

/* Index of the lowest bit set in x, which is not 0. Without a branch, since each one doubles what is to be verified:
 * (x & -x) - 1 has as many ones as x has zeros below its lowest one; they are counted in parallel (Warren, "Hacker's
 * Delight", 5-1). */
static __always_inline u32 lowest_bit(u64 x)
{
	x = (x & -x) - 1;
	asm("" : "+r"(x)); /* LLVM 19 sees what is meant, and looks it up in a table, for which bcc has no place */
	x = x - ((x >> 1) & 0x5555555555555555ULL);
	x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (x * 0x0101010101010101ULL) >> 56;
}

/* The lowest bit that is set in all rows, or NO_BIT. */
static __always_inline u32 first_match(const struct row *a, const struct row *b, const struct row *c,
				       const struct row *d, const struct row *e)
{
#pragma unroll
	for (u32 s = 0; s < SUMMARIES; s++) {
		u64 summary = a->summary[s] & b->summary[s] & c->summary[s] & d->summary[s] & e->summary[s];

		for (u32 tries = 0; tries < 64; tries++) {
			u32 w;
			u64 word;

			if (!summary)
				break;
			w = s * 64 + lowest_bit(summary);
			asm volatile("" : "+r"(w)); /* keep the verifier from following each value of w by itself */
			w &= WORDS - 1;
			word = a->word[w] & b->word[w] & c->word[w] & d->word[w] & e->word[w];
			if (word)
				return w * 64 + lowest_bit(word);
			summary &= summary - 1;
		}
	}
	return NO_BIT;
}

/* Where a service is in the map services: TCP and UDP by destination port, ICMP and ICMPv6 by type and code,
 * everything else by protocol number. The compiler counts the same way (POINTS in vsfwd/image.py). */
static __always_inline u32 service_point(u8 protocol, u16 port, u8 type, u8 code)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return port;
	case PROTOCOL_UDP:
		return 65536 + port;
	case PROTOCOL_ICMP:
		return 2 * 65536 + (type << 8 | code);
	case PROTOCOL_ICMPV6:
		return 3 * 65536 + (type << 8 | code);
	default:
		return 4 * 65536 + protocol;
	}
}

/* Where an EtherType, and a VLAN id or UNTAGGED, is in the map services: behind the service points of packets. */
#define ETHERTYPE_POINTS (4 * 65536 + 256)
#define VLAN_POINTS (ETHERTYPE_POINTS + 65536)
/* Where a source port is, behind those: of TCP and UDP alike, since their rules differ by service point already. Only
 * where a rule names source ports. */
#define SOURCE_POINTS (VLAN_POINTS + UNTAGGED + 1)

/* `initiator` is the direction of the flow's first packet. A reply asks for that packet, not for itself. */
static __always_inline void question_of(const struct packet *packet, const struct flow_key *key, u8 initiator,
					struct question *question)
{
	const u16 *port = &key->remote_port;
	u8 type = packet->icmp_type;

	if (is_echo(packet))
		type = key->query_in == (initiator == DIRECTION_IN) ? echo_request(packet->family) : echo_reply(packet->family);
	question->source = &key->remote + (initiator & 1);
	question->destination = &key->remote + !(initiator & 1);
	question->point = service_point(packet->protocol, swap16(port[!(initiator & 1)]), type, packet->icmp_code);
	question->source_point = SOURCE_POINTS + swap16(port[initiator & 1]);
	question->direction = initiator;
	question->family = packet->family;
}

/* Strongly universal in its upper half: without the seeds nobody finds keys that collide (Lemire and Kaser, "Strongly
 * universal string hashing is fast", The Computer Journal 2014, MULTILINEAR). Ports that a client takes in turn are
 * evenly spaced in it, which under one seed in fifty fills few buckets; the last steps, which are one-to-one and so keep
 * the rest, scatter them (the multiplier: MurmurHash3's). */
static __always_inline u64 flow_hash(const struct flow_key *key, const u64 *seed)
{
	const u32 *word = (const u32 *)key;
	u64 hash = seed[0];
	u32 upper;

#pragma unroll
	for (int i = 0; i < SEEDS - 1; i++)
		hash += seed[i + 1] * word[i];
	upper = hash >> 32;
	upper = (upper ^ upper >> 16) * 0x85ebca6b;
	return (u64)upper << 32 | (u32)hash;
}

#endif
