// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Application layer gateways: data connections that a control connection announces.
 */

/* Where a data connection is noted whose first packet has this key, but for its source port. */
static __always_inline struct pinhole *find_pinhole(struct passage *p, const struct flow_key *key, u64 *check)
{
	u64 hash = flow_hash(key, p->settings->seed);
	u32 place = (p->slot & (SLOTS - 1)) * PINHOLES + (hash >> (64 - PINHOLE_BITS));

	*check = hash | 1;
	return pinholes.lookup(&place);
}

/* What a rule says of a new flow that has been announced, once; NULL if it has not been. */
static __always_inline struct rule *announced(struct passage *p)
{
	u16 *port = p->direction == DIRECTION_IN ? &p->key->remote_port : &p->key->local_port, source = *port;
	struct pinhole *pinhole;
	bool same;
	u64 check;

	if (p->key->protocol != PROTOCOL_UDP && p->packet->segment != SEGMENT_SYN)
		return NULL;
	*port = 0;
	pinhole = find_pinhole(p, p->key, &check);
	same = pinhole && pinhole->check == check && same_key(&pinhole->key, p->key);
	*port = source;
	if (!same || pinhole->expires <= p->now || pinhole->policy_seq != p->policy_seq)
		return NULL;
	pinhole->check = 0;
	return &pinhole->rule;
}

/* Who has sent this packet of a control connection expects a flow from the other side to `port` (host order). */
static __always_inline void expect(struct passage *p, const struct flow *flow, u16 port)
{
	struct flow_key key = *p->key;
	struct pinhole *pinhole;
	u64 check;

	key.remote_port = p->direction == DIRECTION_IN ? swap16(port) : 0;
	key.local_port = p->direction == DIRECTION_IN ? 0 : swap16(port);
	pinhole = find_pinhole(p, &key, &check);
	if (!pinhole)
		return;
	pinhole->check = 0;
	asm volatile("" ::: "memory");
	pinhole->key = key;
	pinhole->expires = end_of(p, STATE_PINHOLE);
	pinhole->policy_seq = flow->policy_seq;
	pinhole->rule = (struct rule){
		.id = flow->rule_id, .counter = flow->counter, .action = ACTION_ALLOW, .existing = flow->existing};
	asm volatile("" ::: "memory");
	pinhole->check = check;
}

static __always_inline void hear_tftp(struct passage *p, const struct flow *flow)
{
	u16 operation;

	if (bpf_skb_load_bytes(p->skb, p->packet->l4 + 8, &operation, sizeof(operation)))
		return;
	operation = swap16(operation);
	if ((operation == TFTP_READ || operation == TFTP_WRITE) && swap16(p->packet->source_port) >= LOWEST_PORT)
		expect(p, flow, swap16(p->packet->source_port));
}

/* A line counts only if it begins where its sender's last segment ended, and that was the end of a line: nothing is
 * heard twice, and nothing that stands in the middle of something else. */
static __always_inline void hear_ftp(struct passage *p, struct flow *flow, struct tcp_side *side)
{
	struct line *line = &p->scratch->line;
	u32 offset = p->packet->l4 + p->packet->header;
	s64 length = ETH_HLEN + p->packet->ip_length - offset;
	bool starts = !(side->speech & MID_LINE) && p->packet->seq == p->scratch->expected;
	u8 last;

	if (!length || !is_after(p->packet->end, p->scratch->expected))
		return;
	if (bpf_skb_load_bytes(p->skb, offset + length - 1, &last, 1))
		return;
	side->speech |= MID_LINE;
	if (p->packet->segment != SEGMENT_ACK || !is_intact(p->skb, p->packet, p->key, p->scratch->bytes))
		return;
	if (last == '\n')
		side->speech &= ~MID_LINE;
	if (!starts)
		return;
	if (length > LINE_BYTES - 1)
		length = LINE_BYTES - 1;
	line->length = length;
	length = bounded_length(length, LINE_BYTES);
	if (length <= 0 || bpf_skb_load_bytes(p->skb, offset, p->scratch->bytes, length))
		return;
	if (announces(line, p->scratch->bytes, side->speech & ~MID_LINE, source_of(p->key, p->direction)))
		expect(p, flow, line->port);
}
