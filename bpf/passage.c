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
	u64 in_force;         /* the policy this packet sees, whole: of the map control, read once; below, its parts */
	u32 bank;
	u32 policy_seq;
	u64 now;              /* jiffies */
	u8 direction;
	struct packet *packet;
	struct flow_key *key;
	u32 counter;          /* of the rule by which it passed */
	u32 sessions;         /* 1: it begins a flow */
	bool heard;           /* alg.c has an ear for what is in it */
	bool asked;           /* another stage has begun with this packet */
	struct ether *ether;  /* while Ethernet rules are asked; NULL afterwards */
	struct scratch *scratch;
};

/* Read anew, since the verifier forgets what it knew: it would follow each direction to the end by itself. */
static __always_inline void look_again(struct passage *p)
{
	p->direction = *(volatile u32 *)&p->skb->cb[0] & 1;
}

/* What becomes of a packet, beside what the kernel knows: TC_ACT_UNSPEC, it has yet to be decided; TC_ACT_OK, it passes
 * and is not counted again; and what bpf_redirect() answers. */
enum verdict {
	PASSED = 0x100,  /* by the rule of passage.counter */
	GO_WITH_FLOW,    /* as its flow goes: advance() */
	DROPPED = 0x200, /* + enum reason */
};

static __always_inline int drop(u32 reason)
{
	return DROPPED + reason;
}

static __always_inline int pass(struct passage *p, u32 counter)
{
	p->counter = counter;
	return PASSED;
}

static __always_inline void count_drop(struct passage *p, u32 reason)
{
	u32 place = (p->slot & (SLOTS - 1)) * REASONS + (reason & (REASONS - 1));
	u64 *count = drops.lookup(&place);

	if (count)
		(*count)++;
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

/* Goes on with another program, under the same policy. */
static __always_inline int call_stage(struct passage *p, u32 stage)
{
	p->scratch->asked = 1;
	p->scratch->in_force = p->in_force;
	stages.call(p->skb, stage);
	p->scratch->asked = 0;
	return drop(REASON_INTERNAL);
}

/* The port guard lets a bridge take from a workload only what bears this (vsfwd/datapath/portguard.py). */
static __always_inline int let_by(struct passage *p)
{
	u32 stamp = p->settings->stamp;

	if (p->direction == DIRECTION_OUT && stamp)
		p->skb->mark = stamp;
	return TC_ACT_OK;
}

/* The kernel's verdict. What passes by a rule, or is dropped, is counted here: at each of the places that decide, it would
 * stand between the instructions of those that go on. */
static __always_inline int settle(struct passage *p, int verdict)
{
	if (likely(verdict == PASSED)) {
		count(p->counter, p->packet->length, p->sessions);
		let_by(p);
		if (unlikely(p->heard))
			stages.call(p->skb, STAGE_SPEECH);
		return TC_ACT_OK;
	}
	if (verdict == TC_ACT_OK)
		return let_by(p);
	if (verdict > 0 && verdict < PASSED)
		return verdict;
	count_drop(p, verdict >= DROPPED ? verdict - DROPPED : REASON_INTERNAL);
	return TC_ACT_SHOT;
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
