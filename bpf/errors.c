// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * ICMP errors: they pass with the flow of the packet that they quote.
 */

/* The key of the flow that an ICMP error is about. The packet it quotes went the other way, from the very address that
 * the error goes to. A quoted IPv6 packet with extension headers names no flow. */
static __always_inline bool quoted_key(struct passage *p)
{
	struct address receiver = *destination_of(p->key, p->direction);
	bool ipv4 = p->packet->family == FAMILY_IPV4;
	struct packet quoted = {.family = p->packet->family, .vlan = p->packet->vlan};
	u32 offset = p->packet->l4 + 8, size = sizeof(struct ipv6hdr);
	union quoted_header header;
	struct address *source;
	u16 protocol[4];

	if (bpf_skb_load_bytes(p->skb, offset, &header, ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)))
		return false;
	/* Behind the header of a later fragment comes anything. */
	if (ipv4 ? header.v4.version != 4 || header.v4.ihl < 5 || header.v4.frag_off & swap16(0x1fff)
		 : header.v6.version != 6)
		return false;
	if (ipv4)
		size = header.v4.ihl * 4;
	if (offset + size + sizeof(protocol) > ETH_HLEN + p->packet->ip_length)
		return false; /* what follows the packet in its frame is not quoted */
	if (bpf_skb_load_bytes(p->skb, offset + size, protocol, sizeof(protocol)))
		return false;
	source = source_of(p->key, !p->direction);
	parse_quoted(&header, protocol, &quoted, source, destination_of(p->key, !p->direction));
	if (is_icmp(&quoted) && !is_echo(&quoted))
		return false; /* it made no flow, but would have the key of an echo with identifier 0 */
	complete_key(p->key, &quoted, !p->direction);
	p->packet->seq = quoted.seq;
	return same_address(source, &receiver);
}

/* NSX's icmpErrorReply: an echo that was answered by an error ends soon, unless more comes of it. No error lets a flow
 * live longer. */
static __always_inline void hasten(struct passage *p, struct flow *flow)
{
	u64 end = end_of(p, STATE_ECHO_ERROR);

	if (flow->state == STATE_ECHO && end < flow->expires)
		flow->expires = end;
}

/* It passes with its flow, and changes nothing about it but the timer of an echo. What it quotes has just been on its
 * way, so a flow that the policy in force has not been asked about yet has nothing to hear. No error is so long that it
 * comes in fragments (RFC 1812 4.3.2.3). */
static __always_inline int pass_error(struct passage *p)
{
	struct track t = {};
	u32 word;

	if (is_fragment(p->packet) || p->packet->group)
		return drop(REASON_ICMP_ERROR_UNRELATED);
	/* Any router on the way may send it, so its source is that of no flow and has to be asked about here. */
	if (is_martian(source_of(p->key, p->direction), destination_of(p->key, p->direction), p->packet->family))
		return drop(REASON_ADDRESS);
	if (!is_intact(p->skb, p->packet, p->key, p->scratch->bytes))
		return drop(REASON_CHECKSUM);
	if (bpf_skb_load_bytes(p->skb, p->packet->l4 + 4, &word, sizeof(word)))
		return drop(REASON_SHORT);
	if (asks_too_small(p->packet, word))
		return drop(REASON_MTU);
	if (!quoted_key(p) || find_track(p, &t) || !t.flow || t.flow->policy_seq != p->policy_seq ||
	    (p->key->protocol == PROTOCOL_TCP && !is_under_way(t.flow, p->packet->seq, !p->direction)))
		return drop(REASON_ICMP_ERROR_UNRELATED);
	hasten(p, t.flow);
	return pass(p, t.flow->counter);
}
