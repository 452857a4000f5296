// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The flow table of a vNIC: finding, making room, beginning. What a packet means for its flow is in conntrack.h.
 */

/* Where the packet's flow is, if it has one. */
struct track {
	struct flow *flow;   /* NULL: it has none */
	struct place *place; /* the place that bears its key, alive or not */
	u64 *check;          /* of that place */
	u64 hash;
};

static __always_inline bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	const u32 *x = (const u32 *)a, *y = (const u32 *)b;
	u32 difference = 0;

	keep_near(x);
	keep_near(y);
#pragma unroll
	for (int i = 0; i < SEEDS - 1; i++)
		difference |= x[i] ^ y[i];
	return !difference;
}

/* One of the two buckets where a flow with this hash may be: the hash's upper bits are the ones that nobody can aim. */
static __always_inline struct bucket *find_bucket(struct passage *p, u64 hash, u32 choice)
{
	u32 index = (u32)(hash >> (choice ? 48 : 32) & 0xffff) * p->vnic->buckets >> 16;

	return bpf_map_lookup_elem(p->flows, &index);
}

/* Where in a bucket this check is, or WAYS. The answer goes by way of memory, since the verifier would follow each
 * place to the end of the program. */
static __always_inline u32 way_of(const struct bucket *bucket, u64 check, volatile u32 *way)
{
	*way = WAYS;
#pragma unroll
	for (u32 i = 0; i < WAYS; i++)
		if (bucket->check[i] == check)
			*way = i;
	return *way;
}

static __always_inline void take(struct track *t, struct bucket *bucket, u32 way)
{
	t->place = &bucket->place[way & (WAYS - 1)];
	t->check = &bucket->check[way & (WAYS - 1)];
}

static __always_inline int find_track(struct passage *p, struct track *t)
{
	t->hash = flow_hash(p->key, p->settings->seed);
	for (u32 choice = 0; choice < 2; choice++) {
		struct bucket *bucket = find_bucket(p, t->hash, choice);
		u32 way;

		if (!bucket)
			return REASON_INTERNAL;
		way = way_of(bucket, t->hash | 1, &p->scratch->way);
		if (way == WAYS || !same_key(&bucket->place[way & (WAYS - 1)].key, p->key))
			continue;
		take(t, bucket, way);
		if (!is_expired(&t->place->flow, p->now))
			t->flow = &t->place->flow;
		return 0;
	}
	return 0;
}

static __always_inline u32 occupied(const struct bucket *bucket)
{
	u32 places = 0;

#pragma unroll
	for (u32 i = 0; i < WAYS; i++)
		places += bucket->check[i] & 1;
	return places;
}

/* A place for a new flow: its own from before; a free one, of the first bucket unless it is half full and fuller than
 * the second; or that of one which gives way. The programs need no daemon for that. Two CPUs that take one place at the
 * same moment lose one of the two flows. */
static __always_inline bool find_room(struct passage *p, struct track *t)
{
	u32 way, used, start = bpf_get_prandom_u32();
	struct bucket *bucket, *second;

	if (t->place)
		return true;
	bucket = find_bucket(p, t->hash, 0);
	second = find_bucket(p, t->hash, 1);
	if (!bucket || !second)
		return false;
	used = occupied(bucket);
	if (used >= WAYS / 2 && used > occupied(second))
		bucket = second;
	way = way_of(bucket, 0, &p->scratch->way);
	if (way != WAYS) {
		take(t, bucket, way);
		return true;
	}
	for (u32 tries = 0; tries < 2 * WAYS; tries++) {
		u32 at = start + tries;

		bucket = find_bucket(p, t->hash, at & WAYS);
		if (!bucket)
			return false;
		if (!gives_way(&bucket->place[at & (WAYS - 1)].flow, p->now, tries))
			continue;
		take(t, bucket, at);
		return true;
	}
	return false;
}

/* When a flow ends, or what is kept with a timer like a flow's, if nothing more comes. */
static __always_inline u64 end_of(struct passage *p, u32 state)
{
	u32 place = (p->slot & (SLOTS - 1)) * STATES + (state & (STATES - 1));
	u64 *lifetime = timers.lookup(&place);

	return p->now + (lifetime ? *lifetime : 0);
}

static __always_inline void forget(struct track *t)
{
	if (t->flow)
		t->flow->expires = 0;
	t->flow = NULL;
}

static __always_inline u8 first_state(const struct packet *packet)
{
	if (packet->protocol == PROTOCOL_TCP)
		return packet->segment == SEGMENT_SYN ? STATE_SYN_SENT : STATE_ESTABLISHED;
	return is_icmp(packet) ? STATE_ECHO : STATE_FIRST;
}

/* What a flow remembers of the rule that allows it. */
static __always_inline void adopt(struct passage *p, struct flow *flow, const struct rule *rule)
{
	flow->policy_seq = p->policy_seq;
	flow->counter = rule->counter;
	flow->rule_id = rule->id;
	flow->existing = rule->existing;
	attend(flow, p->key, rule);
	if (is_dhcp(p->packet, p->direction))
		flow->side[0].speech = flow->side[1].speech = SPEECH_DHCP;
}

/* Whether a flow goes on under the decision it had, although the policy has changed. Its rule may be gone, and its
 * counter be another's. */
static __always_inline bool keeps(struct passage *p, struct flow *flow)
{
	u32 *owner;

	if (!flow || flow->existing != EXISTING_KEEP || !flow->answered)
		return false;
	owner = counter_rule.lookup(&flow->counter);
	if (!owner || *owner != flow->rule_id)
		flow->counter = NO_COUNTER;
	flow->policy_seq = p->policy_seq;
	return true;
}

/* Only a SYN has options that matter here. Read last, where little is left to verify: they are a loop. */
static __always_inline void learn_scale(struct passage *p, struct flow *flow)
{
	s64 length = bounded_length(p->packet->header - 20, 64);
	u8 scale = 0;

	if (length > 0 && !bpf_skb_load_bytes(p->skb, p->packet->l4 + 20, p->scratch->bytes, length))
		scale = window_scale(p->scratch->bytes, length, &p->scratch->way);
	scale_side(&flow->side[p->direction & 1], &flow->side[!(p->direction & 1)], scale);
}

static __always_inline bool begin(struct passage *p, struct track *t, const struct rule *rule)
{
	struct flow *flow;

	if (!find_room(p, t))
		return false;
	*t->check = 0;
	asm volatile("" ::: "memory");
	t->place->key = *p->key;
	flow = &t->place->flow;
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->initiator = p->direction;
	flow->state = first_state(p->packet);
	if (flow->state == STATE_SYN_SENT)
		open_side(&flow->side[p->direction & 1], &flow->side[!(p->direction & 1)], p->packet);
	else if (flow->state == STATE_ESTABLISHED)
		pick_up_side(&flow->side[p->direction & 1], p->packet);
	adopt(p, flow, rule);
	attend_from_start(flow, p->packet);
	flow->expires = end_of(p, flow->state);
	asm volatile("" ::: "memory");
	*t->check = t->hash | 1;
	t->flow = flow;
	p->scratch->step = STEP_STAY;
	p->scratch->expected = p->packet->seq;
	return true;
}
