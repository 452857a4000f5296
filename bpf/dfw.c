// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A packet's life: vnic_in() sees what goes to a workload, vnic_out() what comes from it, packet() decides. The headers hold
 * what can be thought about without maps: parse.h (bytes to struct packet), guards.h (what no rule is asked about),
 * conntrack.h (states), classify.h (rules), reject.h (answers), spoof.h and alg.h (what is said inside). All access to
 * maps is here and in the parts, the files .c below: build.py puts their text in place of the include, since bcc
 * rewrites map calls in the main text only.
 *
 * Every packet passes, is dropped with its reason counted - settle() -, or becomes the answer to itself - reject().
 */
#include <linux/pkt_cls.h>

#include "types.h"
#include "packet.h"
#include "parse.h"
#include "alg.h"
#include "conntrack.h"
#include "classify.h"
#include "guards.h"
#include "hold.h"
#include "limit.h"
#include "reject.h"
#include "spoof.h"
#include "maps.h"

#include "passage.c"
#include "flows.c"
#include "fragments.c"
#include "alg.c"
#include "rules.c"
#include "spoofguard.c"
#include "hold.c"
#include "frames.c"
#include "errors.c"

static __always_inline struct vnic *find_vnic(u32 ifindex)
{
#pragma unroll
	for (u32 i = 0; i < VNIC_PROBES; i++) {
		u32 place = (ifindex + i) & (VNIC_PLACES - 1);
		struct vnic *vnic = vnics.lookup(&place);

		if (likely(vnic && vnic->ifindex == ifindex))
			return vnic;
	}
	return NULL;
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
			return drop(REASON_SHORT);
		p->packet->group = mac[0] & 1;
		if (is_not_mine(p, mac))
			return drop(REASON_NOT_MINE);
		if (is_spoofed(p, mac))
			return drop(REASON_SPOOFED_MAC);
		look_again(p);
		ethertype = swap16(mac[6]);
		if (skb->vlan_present && !p->packet->tagged)
			return drop(REASON_VLAN_TAG);
		if (unlikely(ethertype != ETH_P_IP && ethertype != ETH_P_IPV6))
			return judge_frame(p, ethertype);
		reason = parse(&frame, p->packet, p->key, p->direction, ethertype);
		if (!reason)
			return TC_ACT_UNSPEC;
		if (reason != PARSE_MORE || bpf_skb_pull_data(skb, frame.length < MAX_HEADERS ? frame.length : MAX_HEADERS))
			break;
	}
	return drop(reason == PARSE_MORE ? REASON_SHORT : reason);
}

/* What has passed is heard by a program of its own, since reading would be too much for the verifier here. What comes in
 * fragments is not heard, nor what an ALG would hear behind it. */
static __always_inline void hear(struct passage *p, struct flow *flow)
{
	struct tcp_side *side = &flow->side[p->direction & 1];

	if (!is_fragment(p->packet))
		p->heard = true;
	else if (side->speech != SPEECH_DHCP)
		side->speech = SPEECH_NONE;
}

/* It has no flow to be heard by. */
static __always_inline int pass_alone(struct passage *p, u32 counter)
{
	p->heard = !is_fragment(p->packet) && is_dhcp(p->packet, p->direction);
	return pass(p, counter);
}

/* A packet of a flow that its policy allows. */
static __always_inline int advance(struct passage *p, struct flow *flow)
{
	keep_near(flow);
	flow->packets[p->direction]++;
	flow->bytes[p->direction] += p->packet->length;
	if (*(volatile u32 *)&p->scratch->step == STEP_MOVE)
		flow->expires = end_of(p, flow->state);
	if (unlikely(!flow->answered) && is_answered(flow, p->direction))
		flow->answered = 1;
	if (unlikely(flow->side[p->direction & 1].scale == SCALE_UNREAD))
		learn_scale(p, flow);
	if (unlikely(flow->side[p->direction & 1].speech))
		hear(p, flow);
	return pass(p, flow->counter);
}

/* What follows from the rule that decides. */
static __always_inline int conclude(struct passage *p, struct track *t, struct rule *rule, bool home)
{
	if (is_tracked(p->packet) && !t->flow && p->packet->protocol == PROTOCOL_TCP &&
	    !may_begin(rule->tracking, p->packet->segment))
		return drop(REASON_NO_STATE);
	if (rule->action != ACTION_ALLOW || rule->tracking == TRACKING_STATELESS)
		forget(t);
	if (rule->action != ACTION_ALLOW)
		return deny(p, rule);
	if (t->flow) {
		adopt(p, t->flow, rule);
		return GO_WITH_FLOW;
	}
	/* What comes in for an address that is not bound opens no way out for an answer from there. */
	if (!is_tracked(p->packet) || !home || rule->tracking == TRACKING_STATELESS)
		return pass_alone(p, rule->counter);
	/* An answer that nobody asked for must not open a way for questions. */
	if (is_icmp(p->packet) && !is_echo_request(p->packet))
		return pass(p, rule->counter);
	if (!begin(p, t, rule))
		return drop(REASON_TABLE_FULL);
	report(p, rule, REASON_NONE);
	p->sessions = 1;
	return GO_WITH_FLOW;
}

/* What follows from a search of `which` rules: SEARCH_. Without a rule `reason` says why. */
static __always_inline int follow(struct passage *p, struct track *t, struct rule *rule, u32 reason, u32 which,
				  bool home)
{
	if (!rule) {
		forget(t);
		return drop(reason);
	}
	if (unlikely(!decides(rule)))
		return go_on(p, t, rule, which);
	return conclude(p, t, rule, home);
}

/* Whose first packet is asked about. The barrier makes a value of what clang would else read from one of two places, and
 * so keep all of struct passage in memory. */
static __always_inline u8 initiator_of(struct passage *p, const struct flow *flow)
{
	u8 initiator = p->direction;

	asm volatile("" : "+r"(initiator));
	return flow ? flow->initiator : initiator;
}

/* A packet that the policy in force has not been asked about: the first of a flow, the first of a flow since the policy
 * changed, or one that has no flow. */
static __always_inline int decide(struct passage *p, struct track *t)
{
	struct policy *policy = find_policy(p);
	struct rule *rule = NULL;
	struct question question;
	u32 reason;
	bool home;

	reason = guard(p->packet, source_of(p->key, p->direction), destination_of(p->key, p->direction), p->direction,
		       p->vnic->guard & GUARD_ROUTER);
	if (reason)
		return drop(reason);
	if (!policy)
		return passes_closed(p->packet, &p->key->local, p->direction) ? pass_alone(p, NO_COUNTER)
									       : drop(REASON_CLOSED);
	if (t->flow && t->flow->existing == EXISTING_CUT) {
		forget(t);
		return drop(REASON_POLICY_CUT);
	}
	reason = rogue(p->packet, p->key, p->direction, p->vnic->guard);
	if (reason) {
		forget(t);
		return drop(reason);
	}
	home = is_at_home(p);
	if (!home) {
		forget(t);
		if (p->direction == DIRECTION_OUT)
			return drop(REASON_SPOOFED_IP);
	}
	if (keeps(p, t->flow))
		return GO_WITH_FLOW;
	question_of(p->packet, p->key, initiator_of(p, t->flow), &question);
	if (unlikely(policy->alg) && !t->flow && is_tracked(p->packet))
		rule = announced(p);
	if (!rule)
		rule = classify(p, policy, &question, 0, &reason);
	return follow(p, t, rule, reason, 0, home);
}

/* What the packet does to its flow, if it has one. TC_ACT_UNSPEC to go on, or the verdict. */
static __always_inline int track(struct passage *p, struct track *t)
{
	bool tcp = p->packet->protocol == PROTOCOL_TCP;
	volatile u32 *step = &p->scratch->step;

	if (find_track(p, t))
		return drop(REASON_INTERNAL);
	asm volatile("" : "+r"(t->flow)); /* one pointer, so that what is checked is what is used */
	if (unlikely(!t->flow))
		return TC_ACT_UNSPEC;
	/* Without a policy everything is dropped, and what is dropped changes no flow. */
	if (unlikely(t->flow->policy_seq != p->policy_seq) && !find_policy(p))
		return TC_ACT_UNSPEC;
	if (tcp && unlikely(is_decisive(p->packet->segment)) && !is_intact(p->skb, p->packet, p->key, p->scratch->bytes))
		return drop(REASON_CHECKSUM);
	p->scratch->expected = t->flow->side[p->direction & 1].end;
	*step = tcp ? tcp_step(t->flow, p->packet, p->direction, p->settings) : other_step(t->flow, p->direction);
	if (unlikely(*step == STEP_DROP || *step == STEP_WINDOW))
		return drop(*step == STEP_DROP ? REASON_TCP_STATE : REASON_TCP_WINDOW);
	if (unlikely(*step == STEP_NEW))
		forget(t);
	else if (t->flow->policy_seq == p->policy_seq)
		return GO_WITH_FLOW;
	return TC_ACT_UNSPEC;
}

/* What passes goes on with its flow, and with the fragments behind it. */
static __always_inline int finish(struct passage *p, struct track *t, int verdict)
{
	if (verdict == GO_WITH_FLOW)
		verdict = t->flow ? advance(p, t->flow) : drop(REASON_INTERNAL);
	if (unlikely(is_fragment(p->packet)) && verdict == PASSED)
		return note_first(p, verdict);
	return verdict;
}

/* What says something about its sender, none of it TCP: the daemon is shown it, and a guarded vNIC may not lie. Answers why
 * it is dropped, or 0. */
static __always_inline u32 overhear(struct passage *p)
{
	u32 reason;

	if (p->direction == DIRECTION_OUT && is_neighbour_discovery(p->packet))
		snoop_discovery(p);
	if (!is_guarded(p))
		return 0;
	reason = forged(p);
	if (!reason && is_icmp_error(p->packet) && !is_trusted(p, &p->key->local))
		reason = REASON_SPOOFED_IP;
	return reason;
}

/* A whole packet, or a first fragment. */
static __always_inline int judge(struct passage *p)
{
	struct track t = {};
	int verdict;
	u32 reason;

	complete_key(p->key, p->packet, p->direction);
	asm volatile("" ::: "memory"); /* nothing known of the packet from here on: the verifier has fewer ways to go */
	look_again(p);
	if (unlikely(p->packet->protocol != PROTOCOL_TCP)) {
		reason = overhear(p);
		if (reason)
			return drop(reason);
		if (is_icmp_error(p->packet))
			return pass_error(p);
		look_again(p);
	}
	verdict = is_tracked(p->packet) ? track(p, &t) : TC_ACT_UNSPEC;
	if (verdict == TC_ACT_UNSPEC)
		verdict = decide(p, &t);
	return finish(p, &t, verdict);
}

/* What becomes of a packet under the policy in force. */
static __always_inline int answer(struct passage *p)
{
	u32 slot = p->slot;
	int verdict = receive(p);

	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	p->flows = flows.lookup(&slot);
	if (!p->flows)
		return drop(REASON_INTERNAL);
	p->now = bpf_jiffies64();
	if (unlikely(is_fragment(p->packet))) {
		verdict = follow_first(p);
		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	return judge(p);
}

/* What every program begins with: which way the packet goes, at which vNIC, and under which policy. The map control is
 * read before the vNIC's place, see types.h. */
static __always_inline bool enter(struct passage *p)
{
	u32 zero = 0;
	struct scratch *scratch = scratches.lookup(&zero);
	u64 *now = control.lookup(&zero);

	if (!scratch || !now)
		return false;
	look_again(p);
	p->asked = scratch->asked;
	scratch->asked = 0; /* of this packet only, whatever becomes of it */
	p->in_force = p->asked ? scratch->in_force : *(volatile u64 *)now; /* one policy for the whole packet */
	p->bank = p->in_force & 1;
	p->policy_seq = p->in_force >> 1;
	p->vnic = find_vnic(p->skb->ifindex);
	p->settings = settings.lookup(&zero);
	if (!p->vnic || !p->settings)
		return false;
	p->packet = &scratch->packet;
	p->key = &scratch->key;
	p->scratch = scratch;
	p->slot = p->vnic->slot;
	return true;
}

/* Only where a vNIC's policy has something to say of frames, or nothing passes. By itself, since together with packet() it
 * would be too much for the verifier. */
int frame(struct __sk_buff *skb)
{
	struct passage p = {.skb = skb};
	int verdict;
	u32 reason;
	u8 hold;

	if (!enter(&p))
		return TC_ACT_SHOT;
	hold = *(volatile u8 *)&p.vnic->hold;
	reason = unlikely(hold) ? stop(&p, hold) : 0;
	if (reason)
		return settle(&p, drop(reason));
	p.packet->tagged = 0;
	p.packet->vlan = 0;
	verdict = ahead(&p);
	return settle(&p, verdict == TC_ACT_UNSPEC ? call_stage(&p, STAGE_PACKET) : verdict);
}

int packet(struct __sk_buff *skb)
{
	struct passage p = {.skb = skb};

	if (!enter(&p))
		return TC_ACT_SHOT;
	if (skb->mark == (p.settings->mark ^ p.slot)) {
		skb->mark = 0;
		return let_by(&p);
	}
	if (!p.asked) {
		if (unlikely(*(volatile u8 *)&p.vnic->ahead)) /* read after the bank, see types.h */
			return settle(&p, call_stage(&p, STAGE_FRAME));
		p.packet->tagged = 0;
		p.packet->vlan = 0;
	}
	return settle(&p, answer(&p));
}

/* The packet has passed already, whatever is heard. */
int speech(struct __sk_buff *skb)
{
	struct passage p = {.skb = skb};
	struct track t = {};
	struct tcp_side *side;
	struct flow *flow;
	u32 slot;

	if (!enter(&p))
		return TC_ACT_OK;
	if (is_dhcp(p.packet, p.direction)) {
		snoop_dhcp(&p);
		return TC_ACT_OK;
	}
	slot = p.slot;
	p.flows = flows.lookup(&slot);
	p.now = bpf_jiffies64();
	if (!p.flows || find_track(&p, &t))
		return TC_ACT_OK;
	flow = t.flow;
	asm("" : "+r"(flow)); /* so that it is what is compared with NULL, as the verifier wants it, and not how it came by that */
	if (!flow)
		return TC_ACT_OK;
	side = &flow->side[p.direction & 1];
	if (side->speech == SPEECH_TFTP_CLIENT)
		hear_tftp(&p, flow);
	else
		hear_ftp(&p, flow, side);
	return TC_ACT_OK;
}

/* decide() goes on here when the rule that matches does not decide: that is rare, and more searches would be too much for
 * the verifier there. */
static __always_inline int search_again(struct passage *p)
{
	struct policy *policy = find_policy(p);
	struct question question;
	struct track t = {};
	struct rule *rule;
	u32 slot = p->slot, reason;

	p->flows = flows.lookup(&slot);
	p->now = bpf_jiffies64();
	if (!policy)
		return drop(REASON_CLOSED);
	if (!p->flows || (is_tracked(p->packet) && find_track(p, &t)))
		return drop(REASON_INTERNAL);
	question_of(p->packet, p->key, initiator_of(p, t.flow), &question);
	rule = classify(p, policy, &question, p->scratch->search, &reason);
	return finish(p, &t, follow(p, &t, rule, reason, p->scratch->search, is_at_home(p)));
}

int search(struct __sk_buff *skb)
{
	struct passage p = {.skb = skb};

	return enter(&p) ? settle(&p, search_again(&p)) : TC_ACT_SHOT;
}

/* Both ways go through one program, since what a packet waits for most is instructions that other work has driven out of
 * the cache. */
static __always_inline int begin_with(struct __sk_buff *skb, u8 direction)
{
	struct passage p = {.skb = skb};

	skb->cb[0] = direction;
	stages.call(skb, STAGE_PACKET);
	if (enter(&p))
		count_drop(&p, REASON_INTERNAL);
	return TC_ACT_SHOT;
}

int vnic_in(struct __sk_buff *skb)
{
	return begin_with(skb, DIRECTION_IN);
}

int vnic_out(struct __sk_buff *skb)
{
	return begin_with(skb, DIRECTION_OUT);
}

/* Twins: a chain takes a program once, and to come to its front again takes another (vsfwd/datapath/attach.py). */
int vnic_in_again(struct __sk_buff *skb)
{
	return begin_with(skb, DIRECTION_IN);
}

int vnic_out_again(struct __sk_buff *skb)
{
	return begin_with(skb, DIRECTION_OUT);
}

/* Run by the daemon, never attached: writes what time it is in the programs' clock over the first bytes of a packet. */
int jiffies(struct __sk_buff *skb)
{
	u64 now = bpf_jiffies64();

	return bpf_skb_store_bytes(skb, 0, &now, sizeof(now), 0);
}
