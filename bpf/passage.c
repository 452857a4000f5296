// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What every part of the programs works on, and how they count: one packet on its way through one vNIC. Part of dfw.c's
 * text, as all files .c here are: bcc rewrites map calls there only.
 */

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
	event->monitored = rule->monitored;
	if (!events.ringbuf_output(event, sizeof(*event), 0)) {
		tokens->suppressed = 0;
		return;
	}
	lost = events_lost.lookup(&zero);
	if (lost)
		(*lost)++;
}
