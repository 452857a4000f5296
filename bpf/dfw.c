// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A packet's life, top to bottom: vnic_in() sees what goes to a workload, vnic_out() what comes from it. All access to
 * maps is in this file (bcc rewrites map calls in the main text only); the headers hold what can be thought about
 * without them: packet.h (bytes to struct packet), guards.h (what no rule is asked about), conntrack.h (states),
 * classify.h (rules), reject.h (answers), spoof.h (what a workload may say about itself), alg.h (what it announces).
 *
 * Every packet passes, is dropped with its reason counted - drop() -, or becomes the answer to itself - reject().
 */
#include <linux/pkt_cls.h>

#include "types.h"
#include "packet.h"
#include "alg.h"
#include "conntrack.h"
#include "classify.h"
#include "guards.h"
#include "limit.h"
#include "reject.h"
#include "spoof.h"
#include "maps.h"

/* One packet on its way through one vNIC. */
struct passage {
	struct __sk_buff *skb;
	struct vnic *vnic;
	u32 slot;             /* the vNIC's, read once: the daemon may be giving its place in the map to another */
	struct settings *settings;
	void *flows;          /* this vNIC's */
	u32 bank;             /* the policy this packet sees, whole; read once */
	u32 policy_seq;
	u64 now;              /* jiffies */
	u8 direction;
	struct packet *packet;
	struct flow_key *key;
	u32 counter;          /* of the rule by which it passed */
	bool asked;           /* filter_frames() has been there before */
	struct ether *ether;  /* while Ethernet rules are asked; NULL afterwards */
	struct scratch *scratch;
};

static __always_inline int drop(struct passage *p, u32 reason)
{
	u32 place = (p->slot & (SLOTS - 1)) * REASONS + (reason & (REASONS - 1));
	u64 *count = drops.lookup(&place);

	if (count)
		(*count)++;
	return TC_ACT_SHOT;
}

static __always_inline void count(u32 counter, u32 length, u32 sessions)
{
	struct counters *counters = rule_counters.lookup(&counter);

	if (!counters)
		return;
	counters->packets++;
	counters->bytes += length;
	counters->sessions += sessions;
}

static __always_inline int pass(struct passage *p, u32 counter, u32 sessions)
{
	count(counter, p->packet->length, sessions);
	p->counter = counter;
	return TC_ACT_OK;
}

/* Whether there may be one more event of this rule here, and how many there might have been since the last. */
static __always_inline struct log_tokens *may_log(struct passage *p, const struct rule *rule)
{
	struct log_key key = {.ifindex = p->skb->ifindex, .rule_id = rule->id};
	struct log_tokens full = {}, *tokens = log_tokens.lookup_or_try_init(&key, &full);
	struct counters *counters;
	u32 counter = rule->counter;

	if (!tokens || spend(&tokens->full, bpf_jiffies64(), &p->settings->log))
		return tokens;
	tokens->suppressed++;
	counters = rule_counters.lookup(&counter);
	if (counters)
		counters->suppressed++;
	return NULL;
}

static __always_inline void report(struct passage *p, const struct rule *rule, u8 reason)
{
	u32 zero = 0;
	struct event *event = event_draft.lookup(&zero);
	struct log_tokens *tokens = rule->logged ? may_log(p, rule) : NULL;
	u64 *lost;

	if (!tokens || !event)
		return;
	event->time_ns = bpf_ktime_get_ns();
	event->key = *p->key;
	event->rule_id = rule->id;
	event->ifindex = p->skb->ifindex;
	event->slot = p->slot;
	event->length = p->packet->length;
	event->direction = p->direction;
	event->family = p->packet->family;
	event->action = rule->action;
	event->reason = reason;
	if (p->ether)
		event->ether = *p->ether;
	else
		__builtin_memset(&event->ether, 0, sizeof(event->ether));
	event->suppressed = tokens->suppressed;
	if (!events.ringbuf_output(event, sizeof(*event), 0)) {
		tokens->suppressed = 0;
		return;
	}
	lost = events_lost.lookup(&zero);
	if (lost)
		(*lost)++;
}

/* ---- flows ---- */

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
	u64 length = p->packet->header - 20;
	u8 scale = 0;

	asm volatile("" : "+r"(length)); /* the verifier believes in the mask only */
	length &= 63;
	if (length && !bpf_skb_load_bytes(p->skb, p->packet->l4 + 20, p->scratch->bytes, length))
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
	flow->packets[p->direction] = 1;
	flow->bytes[p->direction] = p->packet->length;
	flow->expires = end_of(p, flow->state);
	if (flow->state == STATE_SYN_SENT)
		learn_scale(p, flow);
	asm volatile("" ::: "memory");
	*t->check = t->hash | 1;
	return true;
}

/* ---- fragments ---- */

/* Where the packet is noted whose fragment this is, or would be. Its key takes the place of the flow's. */
static __always_inline struct fragments *find_fragments(struct passage *p, u64 *check)
{
	struct flow_key *key = p->key;
	u32 place;
	u64 hash;

	key->remote_port = p->packet->fragment_id;
	key->local_port = p->packet->fragment_id >> 16;
	key->protocol = p->packet->family == FAMILY_IPV4 ? p->packet->protocol : 0;
	key->query_in = p->direction;
	key->vlan = p->packet->vlan;
	hash = flow_hash(key, p->settings->seed);
	*check = hash | 1;
	place = (p->slot & (SLOTS - 1)) * FRAGMENTS + (hash >> (64 - FRAGMENT_BITS));
	return fragments.lookup(&place);
}

/* A fragment on its way in. TC_ACT_UNSPEC for the first, which is judged like any packet; those behind it go as it went,
 * if the policy is the same and each begins where the one before it ended. One that does not spoils the packet: whoever
 * puts it together never gets two opinions of one byte. */
static __always_inline int follow_first(struct passage *p)
{
	struct packet *packet = p->packet;
	struct fragments *known;
	u64 check;

	known = find_fragments(p, &check);
	if (!known)
		return drop(p, REASON_INTERNAL);
	if (known->check != check || !same_key(&known->key, p->key) || known->expires <= p->now)
		return packet->fragment == FRAGMENT_FIRST ? TC_ACT_UNSPEC : drop(p, REASON_FRAGMENT);
	if (known->policy_seq != p->policy_seq) {
		known->check = 0;
		return packet->fragment == FRAGMENT_FIRST ? TC_ACT_UNSPEC : drop(p, REASON_FRAGMENT);
	}
	if (known->next != packet->fragment_at || known->count == MAX_FRAGMENTS) {
		known->next = FRAGMENTS_POISONED;
		return drop(p, REASON_FRAGMENT_ORDER);
	}
	known->next = packet->fragment_end;
	known->count++;
	if (!packet->more_fragments)
		known->check = 0;
	return pass(p, known->counter, 0);
}

/* The first fragment has passed. Whichever packet is noted where it belongs gives way: a flood of fragments costs
 * nobody but other fragments of its vNIC. */
static __always_inline int note_first(struct passage *p)
{
	struct fragments *fresh;
	u64 check;

	fresh = find_fragments(p, &check);
	if (!fresh)
		return drop(p, REASON_INTERNAL);
	fresh->check = 0;
	asm volatile("" ::: "memory");
	fresh->key = *p->key;
	fresh->expires = end_of(p, STATE_FRAGMENTS);
	fresh->policy_seq = p->policy_seq;
	fresh->counter = p->counter;
	fresh->next = p->packet->fragment_end;
	fresh->count = 1;
	asm volatile("" ::: "memory");
	fresh->check = check;
	return TC_ACT_OK;
}

/* ---- data connections that control connections announce ---- */

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
	u64 length = ETH_HLEN + p->packet->ip_length - offset;
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
	asm volatile("" : "+r"(length)); /* the verifier believes in the mask only */
	length &= LINE_BYTES - 1;
	if (!length || bpf_skb_load_bytes(p->skb, offset, p->scratch->bytes, length))
		return;
	if (announces(line, p->scratch->bytes, side->speech & ~MID_LINE, source_of(p->key, p->direction)))
		expect(p, flow, line->port);
}

/* ---- rules ---- */

static __always_inline struct host *find_host(void *table, u32 segment, const struct address *address)
{
	struct host_key key = {.segment = segment, .address = *address};
	struct host *host = bpf_map_lookup_elem(table, &key);

	if (host || !segment)
		return host;
	key.segment = 0;
	return bpf_map_lookup_elem(table, &key);
}

static __always_inline struct prefix *find_prefix(u32 bank, u8 family, const struct address *address)
{
	struct prefix_key key = {.length = 32 + 128, .family = family, .address = *address};
	void *table = prefixes.lookup(&bank);

	return table ? bpf_map_lookup_elem(table, &key) : NULL;
}

/* Identity comes from the port: a vNIC that sends from an address another one owns is in none of its groups. */
static __always_inline u32 source_row(const struct host *host, u32 slot, u8 direction)
{
	bool foreign = host->owner != OWNER_NONE && host->owner != slot + 1;

	return direction == DIRECTION_OUT && foreign ? host->literal : host->source;
}

/* The first rule that matches, or NULL with the reason in `reason`. */
static __always_inline struct rule *classify(struct passage *p, struct policy *policy, struct question *q, u32 *reason)
{
	u32 bank = p->bank, applied, row, bit;
	void *host_table = hosts.lookup(&bank), *row_table = rows.lookup(&bank), *table = services.lookup(&bank);
	struct row *source, *destination, *service, *vnic;
	struct prefix *prefix;
	struct host *host;
	u32 *service_row;

	*reason = REASON_INTERNAL;
	if (!host_table || !row_table || !table)
		return NULL;
	service_row = bpf_map_lookup_elem(table, &q->point);
	if (!service_row)
		return NULL;
	service = bpf_map_lookup_elem(row_table, service_row);

	host = find_host(host_table, policy->segment, q->source);
	if (host) {
		row = source_row(host, p->slot, q->direction);
	} else {
		prefix = find_prefix(bank, q->family, q->source);
		if (!prefix)
			return NULL;
		row = prefix->source;
	}
	source = bpf_map_lookup_elem(row_table, &row);

	host = find_host(host_table, policy->segment, q->destination);
	if (host) {
		row = host->destination;
	} else {
		prefix = find_prefix(bank, q->family, q->destination);
		if (!prefix)
			return NULL;
		row = prefix->destination;
	}
	destination = bpf_map_lookup_elem(row_table, &row);

	applied = policy->row[(q->direction & 1) * 2 + (q->family & 1)];
	vnic = bpf_map_lookup_elem(row_table, &applied);
	if (!source || !destination || !service || !vnic)
		return NULL;

	bit = first_match(source, destination, service, vnic, NULL);
	*reason = REASON_NO_RULE;
	if (bit == NO_BIT)
		return NULL;
	table = rules.lookup(&bank);
	*reason = REASON_INTERNAL;
	return table ? bpf_map_lookup_elem(table, &bit) : NULL;
}

static __always_inline struct host *find_mac(void *table, const u8 *mac)
{
	struct host_key key = {.segment = MAC_SEGMENT};
	struct host *host;

	__builtin_memcpy((u8 *)&key.address + sizeof(key.address) - ETH_ALEN, mac, ETH_ALEN);
	host = bpf_map_lookup_elem(table, &key);
	if (host)
		return host;
	key.address = (struct address){{OTHER_MAC, 0, 0, 0}};
	return bpf_map_lookup_elem(table, &key);
}

/* classify(), for frames. */
static __always_inline struct rule *classify_frame(struct passage *p, struct policy *policy, struct ether *ether,
						   u32 *reason)
{
	u32 bank = p->bank, applied = policy->frames[p->direction & 1], row, bit;
	u32 type_point = ETHERTYPE_POINTS + ether->type, vlan_point = VLAN_POINTS + ether->vlan;
	void *host_table = hosts.lookup(&bank), *row_table = rows.lookup(&bank), *table = services.lookup(&bank);
	struct row *source, *destination, *type, *vlan, *vnic;
	struct host *from, *to;
	u32 *type_row, *vlan_row;

	*reason = REASON_INTERNAL;
	if (!host_table || !row_table || !table)
		return NULL;
	from = find_mac(host_table, ether->source);
	to = find_mac(host_table, ether->destination);
	type_row = bpf_map_lookup_elem(table, &type_point);
	vlan_row = bpf_map_lookup_elem(table, &vlan_point);
	if (!from || !to || !type_row || !vlan_row)
		return NULL;
	row = source_row(from, p->slot, p->direction);
	source = bpf_map_lookup_elem(row_table, &row);
	destination = bpf_map_lookup_elem(row_table, &to->destination);
	type = bpf_map_lookup_elem(row_table, type_row);
	vlan = bpf_map_lookup_elem(row_table, vlan_row);
	vnic = bpf_map_lookup_elem(row_table, &applied);
	if (!source || !destination || !type || !vlan || !vnic)
		return NULL;
	bit = first_match(source, destination, type, vlan, vnic);
	*reason = REASON_NO_RULE;
	if (bit == NO_BIT)
		return NULL;
	table = rules.lookup(&bank);
	*reason = REASON_INTERNAL;
	return table ? bpf_map_lookup_elem(table, &bit) : NULL;
}

static __always_inline struct policy *find_policy(struct passage *p)
{
	u32 bank = p->bank, slot = p->slot;
	void *table = policies.lookup(&bank);
	struct policy *policy = table ? bpf_map_lookup_elem(table, &slot) : NULL;

	return policy && policy->mode != MODE_CLOSED ? policy : NULL;
}

/* ---- verdicts ---- */

/* The reply leaves by the device the packet came from, marked so that only this vNIC's programs let it by: to everybody
 * else it is a packet like any other, and is tracked like one. What comes in and what goes out have replies of their
 * own to spend, so that nobody outside can use up the workload's. */
static __always_inline int reject(struct passage *p)
{
	struct address *source = source_of(p->key, p->direction), *destination = destination_of(p->key, p->direction);
	u32 zero = 0, place = (p->slot & (SLOTS - 1)) * 2 + (p->direction & 1);
	struct reply *reply = reply_draft.lookup(&zero);
	u64 *tokens = reject_tokens.lookup(&place);

	if (!reply || !tokens || p->packet->group || !may_reject(p->packet, source, destination))
		return drop(p, REASON_RULE_REJECT);
	if (!spend(tokens, bpf_jiffies64(), &p->settings->reject))
		return drop(p, REASON_REJECT_LIMITED);
	drop(p, REASON_RULE_REJECT);
	if (become_reply(p->skb, reply, p->packet, destination, source))
		return TC_ACT_SHOT;
	p->skb->mark = p->settings->mark ^ p->slot;
	return bpf_redirect(p->skb->ifindex, p->direction == DIRECTION_IN ? BPF_F_INGRESS : 0);
}

static __always_inline int deny(struct passage *p, const struct rule *rule)
{
	bool rejects = rule->action == ACTION_REJECT;

	count(rule->counter, p->packet->length, 0);
	report(p, rule, rejects ? REASON_RULE_REJECT : REASON_RULE_DROP);
	return rejects ? reject(p) : drop(p, REASON_RULE_DROP);
}

/* ---- SpoofGuard ---- */

static __always_inline bool is_guarded(struct passage *p)
{
	return p->direction == DIRECTION_OUT && p->vnic->guard & GUARD_SPOOF;
}

static __always_inline bool is_trusted(struct passage *p, const struct address *address)
{
	struct binding_key key = {.slot = p->slot, .address = *address};
	u32 *binding;

	if (is_made_of(address, p->vnic->mac))
		return true;
	binding = bindings.lookup(&key);
	return binding && *binding & BINDING_TRUSTED;
}

/* Shows the daemon a frame by which the vNIC claims `address`, if it does not know that yet; NULL: it looks itself. */
static __always_inline void snoop(struct passage *p, const struct address *address)
{
	u32 zero = 0, place = p->slot & (SLOTS - 1), length = p->skb->len;
	struct snoop *draft = snoop_draft.lookup(&zero);
	u64 *bucket = snoop_buckets.lookup(&place);

	if (address) {
		struct binding_key key = {.slot = p->slot, .address = *address};
		u32 *binding = bindings.lookup(&key);

		if (binding && *binding & BINDING_KNOWN)
			return;
	}
	if (!draft || !bucket || !spend(bucket, bpf_jiffies64(), &p->settings->snoop))
		return;
	if (length > SNOOP_BYTES - 1)
		length = SNOOP_BYTES - 1;
	asm volatile("" : "+r"(length));
	length &= SNOOP_BYTES - 1;
	if (!length || bpf_skb_load_bytes(p->skb, 0, draft->frame, length))
		return;
	draft->slot = p->slot;
	draft->length = length;
	draft->direction = p->direction;
	snoops.ringbuf_output(draft, sizeof(*draft), 0);
}

/* What a workload sends of it. A probe (RFC 5227) has no sender yet: it may ask for any address. */
static __always_inline int judge_arp(struct passage *p)
{
	struct arp arp;
	struct address sender;
	bool own;

	if (bpf_skb_load_bytes(p->skb, ETH_HLEN, &arp, sizeof(arp)))
		return is_guarded(p) ? drop(p, REASON_SHORT) : TC_ACT_OK;
	sender = mapped(arp.sender[0] | (u32)arp.sender[1] << 16);
	own = is_own_arp(&arp, (u16 *)p->vnic->mac);
	if (own && !is_unspecified(&sender))
		snoop(p, &sender);
	if (is_guarded(p) && (!own || (!is_unspecified(&sender) && !is_trusted(p, &sender))))
		return drop(p, REASON_SPOOFED_ARP);
	return TC_ACT_OK;
}

/* Whether the options of neighbour discovery, up to the end of the packet, name no MAC address but the vNIC's. */
static __always_inline bool has_own_options(struct passage *p)
{
	u32 offset = p->packet->l4 + nd_options(p->packet), end = ETH_HLEN + p->packet->ip_length;
	struct nd_option option;

	for (int i = 0; i < ND_OPTIONS && offset < end; i++) {
		if (bpf_skb_load_bytes(p->skb, offset, &option, sizeof(option)) ||
		    !says_own_mac(&option, (u16 *)p->vnic->mac))
			return false;
		offset += option.length * 8;
	}
	return offset == end;
}

/* Duplicate address detection comes from no address and may ask for any. */
static __always_inline bool is_own_discovery(struct passage *p)
{
	struct address *source = source_of(p->key, p->direction), target;

	if (!has_own_options(p) || (!is_unspecified(source) && !is_trusted(p, source)))
		return false;
	if (p->packet->icmp_type != ND_ADVERTISEMENT)
		return true;
	return !bpf_skb_load_bytes(p->skb, p->packet->l4 + 8, &target, sizeof(target)) && is_trusted(p, &target);
}

/* An advertisement and duplicate address detection claim their target, other solicitations their source. */
static __always_inline void snoop_discovery(struct passage *p)
{
	struct address claimed = p->key->local;

	if (p->packet->icmp_type == ND_ADVERTISEMENT ||
	    (p->packet->icmp_type == ND_SOLICITATION && is_unspecified(&claimed))) {
		if (bpf_skb_load_bytes(p->skb, p->packet->l4 + 8, &claimed, sizeof(claimed)))
			return;
	}
	if (!is_unspecified(&claimed))
		snoop(p, &claimed);
}

/* What every packet of a guarded vNIC is asked, of a flow or not; 0: nothing is wrong with it. Its source address is
 * asked about where a flow begins. */
static __always_inline u32 forged(struct passage *p)
{
	u16 client[3];

	if (is_neighbour_discovery(p->packet))
		return is_own_discovery(p) ? 0 : REASON_SPOOFED_ND;
	if (!is_dhcp_request(p->packet))
		return 0;
	if (is_fragment(p->packet)) /* what it says may come later */
		return REASON_FRAGMENT;
	if (bpf_skb_load_bytes(p->skb, p->packet->l4 + 8 + DHCP_CHADDR, client, sizeof(client)))
		return REASON_SHORT;
	return same_mac(client, (u16 *)p->vnic->mac) ? 0 : REASON_SPOOFED_MAC;
}

/* Whether a packet may begin a flow at the vNIC's address in its key, or go on without one. */
static __always_inline bool is_at_home(struct passage *p)
{
	return !(p->vnic->guard & GUARD_SPOOF) || needs_no_trust(p->packet, &p->key->local) ||
	       is_trusted(p, &p->key->local);
}

/* ---- a packet's life ---- */

static __always_inline struct vnic *find_vnic(u32 ifindex)
{
#pragma unroll
	for (u32 i = 0; i < VNIC_PROBES; i++) {
		u32 place = (ifindex + i) & (VNIC_PLACES - 1);
		struct vnic *vnic = vnics.lookup(&place);

		if (vnic && vnic->ifindex == ifindex)
			return vnic;
	}
	return NULL;
}

/* Whether the bridge flooded the frame here, on its way to another MAC address. */
static __always_inline bool is_not_mine(struct passage *p, const u16 *destination)
{
	return p->direction == DIRECTION_IN && !p->packet->group && !p->vnic->promiscuous &&
	       !same_mac(destination, (const u16 *)p->vnic->mac);
}

/* Whether a workload that SpoofGuard watches sends from another MAC address than its own. */
static __always_inline bool is_spoofed(struct passage *p, const u16 *frame)
{
	return is_guarded(p) && !same_mac(frame + 3, (const u16 *)p->vnic->mac);
}

/* Only a tag that the kernel has taken off is read: a second one, or one nobody took off, stands where the EtherType
 * should and is never allowed. Nor is a frame with a length there, whatever it carries (LLC, SNAP). */
static __always_inline bool may_be_asked_about(struct passage *p, u16 ethertype)
{
	if (p->skb->vlan_present && p->skb->vlan_proto != swap16(ETH_P_8021Q))
		return false;
	return ethertype >= ETH_P_802_3_MIN && ethertype != ETH_P_8021Q && ethertype != ETHERTYPE_QINQ;
}

/* The rules for frames. TC_ACT_UNSPEC to go on to what is in the frame, or the verdict. */
static __always_inline int filter_frame(struct passage *p, struct policy *policy, struct ether *ether)
{
	u16 *frame = (void *)(long)p->skb->data;
	struct rule *rule;
	u32 reason;

	if ((void *)frame + ETH_HLEN > (void *)(long)p->skb->data_end)
		return TC_ACT_UNSPEC;
	p->packet->group = frame[0] & 1;
	ether->type = swap16(frame[6]);
	if (is_not_mine(p, frame) || is_spoofed(p, frame) || !may_be_asked_about(p, ether->type))
		return TC_ACT_UNSPEC; /* receive() says why */
	__builtin_memcpy(ether, frame, 2 * ETH_ALEN);
	ether->vlan = p->skb->vlan_present ? p->skb->vlan_tci & 0xfff : UNTAGGED;
	rule = classify_frame(p, policy, ether, &reason);
	if (!rule)
		return reason == REASON_NO_RULE ? TC_ACT_UNSPEC : drop(p, reason);
	p->packet->length = p->skb->len;
	__builtin_memset(p->key, 0, sizeof(*p->key));
	count(rule->counter, p->packet->length, 0);
	p->ether = ether;
	report(p, rule, rule->action == ACTION_ALLOW ? REASON_NONE : REASON_RULE_DROP);
	p->ether = NULL;
	if (rule->action != ACTION_ALLOW)
		return drop(p, REASON_RULE_DROP);
	if (ether->vlan != UNTAGGED) {
		p->packet->tagged = 1;
		p->packet->vlan = ether->vlan;
	}
	return is_known(ether->type) ? TC_ACT_UNSPEC : TC_ACT_OK;
}

/* What the policy says of a frame as it is. TC_ACT_UNSPEC to go on, or the verdict. */
static __always_inline int ahead(struct passage *p, struct ether *ether)
{
	struct policy *policy = find_policy(p);
	u32 slot = p->slot;
	u64 *count;

	if (!policy)
		return TC_ACT_UNSPEC;
	if (policy->mode != MODE_EXCLUDED)
		return policy->frames[p->direction & 1] ? filter_frame(p, policy, ether) : TC_ACT_UNSPEC;
	count = unfiltered.lookup(&slot);
	if (count)
		(*count)++;
	return TC_ACT_OK;
}

/* Whose packet is it, and is it one at all? TC_ACT_UNSPEC to go on, or the verdict. */
static __always_inline int receive(struct passage *p)
{
	struct __sk_buff *skb = p->skb;
	u32 reason = PARSE_MORE;

	for (int attempt = 0; attempt < 2; attempt++) {
		struct frame frame = {(void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, skb->gso_size};
		u16 *mac = frame.data, ethertype;

		if (frame.data + ETH_HLEN > frame.end)
			return drop(p, REASON_SHORT);
		p->packet->group = mac[0] & 1;
		if (is_not_mine(p, mac))
			return drop(p, REASON_NOT_MINE);
		if (is_spoofed(p, mac))
			return drop(p, REASON_SPOOFED_MAC);
		ethertype = swap16(mac[6]);
		if ((skb->vlan_present && !p->packet->tagged) || ethertype == ETH_P_8021Q || ethertype == ETHERTYPE_QINQ)
			return drop(p, REASON_VLAN_TAG);
		if (ethertype == ETH_P_ARP)
			return p->direction == DIRECTION_OUT ? judge_arp(p) : TC_ACT_OK;
		if (!is_known(ethertype))
			return drop(p, REASON_ETHERTYPE);
		reason = parse(&frame, p->packet, p->key, p->direction, ethertype);
		if (!reason)
			return TC_ACT_UNSPEC;
		if (reason != PARSE_MORE || bpf_skb_pull_data(skb, frame.length < MAX_HEADERS ? frame.length : MAX_HEADERS))
			break;
	}
	return drop(p, reason == PARSE_MORE ? REASON_SHORT : reason);
}

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

/* What has passed is heard by a program of its own, since reading would be too much for the verifier here. What comes in
 * fragments is not heard, nor what follows it. */
static __always_inline void hear(struct passage *p, struct flow *flow)
{
	if (is_fragment(p->packet))
		flow->side[p->direction & 1].speech = SPEECH_NONE;
	else
		stages.call(p->skb, STAGE_SPEECH + p->direction);
}

/* A packet of a flow that its policy allows. */
static __always_inline int advance(struct passage *p, struct flow *flow)
{
	int verdict;

	flow->packets[p->direction]++;
	flow->bytes[p->direction] += p->packet->length;
	if (*(volatile u32 *)&p->scratch->step == STEP_MOVE)
		flow->expires = end_of(p, flow->state);
	if (!flow->answered && is_answered(flow, p->direction))
		flow->answered = 1;
	if (flow->side[p->direction & 1].scale == SCALE_UNREAD)
		learn_scale(p, flow);
	verdict = pass(p, flow->counter, 0);
	if (unlikely(flow->side[p->direction & 1].speech))
		hear(p, flow);
	return verdict;
}

/* A packet that the policy in force has not been asked about: the first of a flow, the first of a flow since the policy
 * changed, or one that has no flow. */
static __always_inline int decide(struct passage *p, struct track *t)
{
	struct policy *policy = find_policy(p);
	struct rule *rule = NULL;
	struct question question;
	bool stateful;
	int verdict;
	u32 reason;
	bool home;

	reason = guard(p->packet, source_of(p->key, p->direction), destination_of(p->key, p->direction), p->direction,
		       p->vnic->guard & GUARD_ROUTER);
	if (reason)
		return drop(p, reason);
	if (!policy)
		return passes_closed(p->packet, p->direction) ? TC_ACT_OK : drop(p, REASON_CLOSED);
	if (t->flow && t->flow->existing == EXISTING_CUT) {
		forget(t);
		return drop(p, REASON_POLICY_CUT);
	}
	reason = rogue(p->packet, p->key, p->direction, p->vnic->guard);
	if (reason) {
		forget(t);
		return drop(p, reason);
	}
	home = is_at_home(p);
	if (!home) {
		forget(t);
		if (p->direction == DIRECTION_OUT)
			return drop(p, REASON_SPOOFED_IP);
	}
	if (!keeps(p, t->flow)) {
		question_of(p->packet, p->key, t->flow ? t->flow->initiator : p->direction, &question);
		if (unlikely(policy->alg) && !t->flow && is_tracked(p->packet))
			rule = announced(p);
		if (!rule)
			rule = classify(p, policy, &question, &reason);
		if (!rule) {
			forget(t);
			return drop(p, reason);
		}
		if (is_tracked(p->packet) && !t->flow && p->packet->protocol == PROTOCOL_TCP &&
		    !may_begin(rule->tracking, p->packet->segment))
			return drop(p, REASON_NO_STATE);
		if (rule->action != ACTION_ALLOW || rule->tracking == TRACKING_STATELESS)
			forget(t);
		if (rule->action != ACTION_ALLOW)
			return deny(p, rule);
		if (t->flow)
			adopt(p, t->flow, rule);
	}
	if (t->flow)
		return advance(p, t->flow);
	if (!rule) /* cannot be, but the verifier cannot know */
		return drop(p, REASON_INTERNAL);
	/* What comes in for an address that is not bound opens no way out for an answer from there. */
	stateful = is_tracked(p->packet) && home && rule->tracking != TRACKING_STATELESS;
	/* An answer that nobody asked for must not open a way for questions. */
	stateful = stateful && (!is_icmp(p->packet) || is_echo_request(p->packet));
	if (stateful) {
		if (!begin(p, t, rule))
			return drop(p, REASON_TABLE_FULL);
		report(p, rule, REASON_NONE);
	}
	verdict = pass(p, rule->counter, stateful);
	if (stateful && unlikely(t->place->flow.side[p->direction & 1].speech == SPEECH_TFTP_CLIENT))
		hear(p, &t->place->flow);
	return verdict;
}

/* NSX's icmpErrorReply: an echo that was answered by an error ends soon, unless more comes of it. No error lets a flow
 * live longer. */
static __always_inline void hasten(struct passage *p, struct flow *flow)
{
	u64 end = end_of(p, STATE_ECHO_ERROR);

	if (flow->state == STATE_ECHO && end < flow->expires)
		flow->expires = end;
}

/* It passes with its flow, and changes nothing about it but the timer of an echo. What it quotes has just been on its way, so a flow that the
 * policy in force has not been asked about yet has nothing to hear. No error is so long that it comes in fragments (RFC
 * 1812 4.3.2.3). */
static __always_inline int pass_error(struct passage *p)
{
	struct track t = {};
	u32 word;

	if (is_fragment(p->packet) || p->packet->group)
		return drop(p, REASON_ICMP_ERROR_UNRELATED);
	/* Any router on the way may send it, so its source is that of no flow and has to be asked about here. */
	if (is_martian(source_of(p->key, p->direction), destination_of(p->key, p->direction), p->packet->family))
		return drop(p, REASON_ADDRESS);
	if (!is_intact(p->skb, p->packet, p->key, p->scratch->bytes))
		return drop(p, REASON_CHECKSUM);
	if (bpf_skb_load_bytes(p->skb, p->packet->l4 + 4, &word, sizeof(word)))
		return drop(p, REASON_SHORT);
	if (asks_too_small(p->packet, word))
		return drop(p, REASON_MTU);
	if (!quoted_key(p) || find_track(p, &t) || !t.flow || t.flow->policy_seq != p->policy_seq ||
	    (p->key->protocol == PROTOCOL_TCP && !is_under_way(t.flow, p->packet->seq, !p->direction)))
		return drop(p, REASON_ICMP_ERROR_UNRELATED);
	hasten(p, t.flow);
	return pass(p, t.flow->counter, 0);
}

/* What the packet does to its flow, if it has one. TC_ACT_UNSPEC to go on, or the verdict. */
static __always_inline int track(struct passage *p, struct track *t)
{
	bool tcp = p->packet->protocol == PROTOCOL_TCP;
	volatile u32 *step = &p->scratch->step;

	if (find_track(p, t))
		return drop(p, REASON_INTERNAL);
	asm volatile("" : "+r"(t->flow)); /* one pointer, so that what is checked is what is used */
	if (!t->flow)
		return TC_ACT_UNSPEC;
	/* Without a policy everything is dropped, and what is dropped changes no flow. */
	if (t->flow->policy_seq != p->policy_seq && !find_policy(p))
		return TC_ACT_UNSPEC;
	if (tcp && is_decisive(p->packet->segment) && !is_intact(p->skb, p->packet, p->key, p->scratch->bytes))
		return drop(p, REASON_CHECKSUM);
	p->scratch->expected = t->flow->side[p->direction & 1].end;
	*step = tcp ? tcp_step(t->flow, p->packet, p->direction, p->settings) : other_step(t->flow, p->direction);
	if (*step == STEP_DROP || *step == STEP_WINDOW)
		return drop(p, *step == STEP_DROP ? REASON_TCP_STATE : REASON_TCP_WINDOW);
	if (*step == STEP_NEW)
		forget(t);
	else if (t->flow->policy_seq == p->policy_seq)
		return advance(p, t->flow);
	return TC_ACT_UNSPEC;
}

/* A whole packet, or a first fragment. */
static __always_inline int judge(struct passage *p)
{
	struct track t = {};
	int verdict;
	u32 reason;

	complete_key(p->key, p->packet, p->direction);
	asm volatile("" ::: "memory"); /* nothing known of the packet from here on: the verifier has fewer ways to go */
	if (p->direction == DIRECTION_OUT && is_neighbour_discovery(p->packet))
		snoop_discovery(p);
	if (p->direction == DIRECTION_IN && is_dhcp_answer(p->packet))
		snoop(p, NULL);
	if (is_guarded(p)) {
		reason = forged(p);
		if (!reason && is_icmp_error(p->packet) && !is_trusted(p, &p->key->local))
			reason = REASON_SPOOFED_IP;
		if (reason)
			return drop(p, reason);
	}
	if (is_icmp_error(p->packet))
		return pass_error(p);
	verdict = is_tracked(p->packet) ? track(p, &t) : TC_ACT_UNSPEC;
	return verdict == TC_ACT_UNSPEC ? decide(p, &t) : verdict;
}

/* What every program begins with: whose packet it is, and under which policy. */
static __always_inline struct scratch *enter(struct passage *p, u64 *in_force)
{
	u32 zero = 0;
	struct scratch *scratch = scratches.lookup(&zero);
	u64 *now = control.lookup(&zero);

	if (!scratch)
		return NULL;
	p->asked = scratch->asked;
	scratch->asked = 0; /* of this packet only, whatever becomes of it */
	p->vnic = find_vnic(p->skb->ifindex);
	p->settings = settings.lookup(&zero);
	if (!p->vnic || !p->settings || !now)
		return NULL;
	p->packet = &scratch->packet;
	p->key = &scratch->key;
	p->scratch = scratch;
	p->slot = p->vnic->slot;
	*in_force = *(volatile u64 *)now;
	return scratch;
}

static __always_inline void under(struct passage *p, u64 in_force)
{
	p->bank = in_force & 1;
	p->policy_seq = in_force >> 1;
}

/* Only where a vNIC's policy has something to say of frames. By itself, since together with filter() it would be too
 * much for the verifier. */
static __always_inline int filter_frames(struct __sk_buff *skb, u8 direction)
{
	struct passage p = {.skb = skb, .direction = direction};
	u64 in_force;
	struct scratch *scratch = enter(&p, &in_force);
	int verdict;

	if (!scratch)
		return TC_ACT_SHOT;
	under(&p, in_force);
	p.packet->tagged = 0;
	p.packet->vlan = 0;
	verdict = ahead(&p, &scratch->ether);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	scratch->asked = 1;
	scratch->in_force = in_force;
	stages.call(skb, STAGE_PACKET + direction);
	scratch->asked = 0;
	return drop(&p, REASON_INTERNAL);
}

/* The packet has passed already, whatever is heard. */
static __always_inline int listen(struct __sk_buff *skb, u8 direction)
{
	struct passage p = {.skb = skb, .direction = direction};
	struct track t = {};
	struct tcp_side *side;
	u64 in_force;
	u32 slot;

	if (!enter(&p, &in_force))
		return TC_ACT_SHOT;
	slot = p.slot;
	p.flows = flows.lookup(&slot);
	p.now = bpf_jiffies64();
	if (!p.flows || find_track(&p, &t) || !t.flow)
		return TC_ACT_OK;
	side = &t.flow->side[direction & 1];
	if (side->speech == SPEECH_TFTP_CLIENT)
		hear_tftp(&p, t.flow);
	else
		hear_ftp(&p, t.flow, side);
	return TC_ACT_OK;
}

static __always_inline int filter(struct __sk_buff *skb, u8 direction)
{
	struct passage p = {.skb = skb, .direction = direction};
	u64 in_force;
	struct scratch *scratch = enter(&p, &in_force);
	u32 slot;
	int verdict;

	if (!scratch)
		return TC_ACT_SHOT;
	slot = p.slot;
	if (skb->mark == (p.settings->mark ^ slot)) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	if (p.asked) {
		in_force = scratch->in_force; /* one policy for the whole packet */
	} else {
		if (*(volatile u8 *)&p.vnic->ahead) { /* read after the bank, see types.h */
			stages.call(skb, STAGE_FRAME + direction);
			return drop(&p, REASON_INTERNAL);
		}
		p.packet->tagged = 0;
		p.packet->vlan = 0;
	}
	under(&p, in_force);
	verdict = receive(&p);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;

	p.flows = flows.lookup(&slot);
	if (!p.flows)
		return drop(&p, REASON_INTERNAL);
	p.now = bpf_jiffies64();

	if (unlikely(is_fragment(p.packet))) {
		verdict = follow_first(&p);
		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	verdict = judge(&p);
	return unlikely(is_fragment(p.packet)) && verdict == TC_ACT_OK ? note_first(&p) : verdict;
}

int vnic_in(struct __sk_buff *skb)
{
	return filter(skb, DIRECTION_IN);
}

int vnic_out(struct __sk_buff *skb)
{
	return filter(skb, DIRECTION_OUT);
}

/* These four are run from vnic_in() and vnic_out(), never attached. */
int frames_in(struct __sk_buff *skb)
{
	return filter_frames(skb, DIRECTION_IN);
}

int frames_out(struct __sk_buff *skb)
{
	return filter_frames(skb, DIRECTION_OUT);
}

int speech_in(struct __sk_buff *skb)
{
	return listen(skb, DIRECTION_IN);
}

int speech_out(struct __sk_buff *skb)
{
	return listen(skb, DIRECTION_OUT);
}

/* Run by the daemon, never attached: writes what time it is in the programs' clock over the first bytes of a packet. */
int jiffies(struct __sk_buff *skb)
{
	u64 now = bpf_jiffies64();

	return bpf_skb_store_bytes(skb, 0, &now, sizeof(now), 0);
}
