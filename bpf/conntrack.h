/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a packet does to the state of its flow. Pure: state in, state out. Sequence numbers are not looked at.
 *
 * TCP (I: from the initiator, R: from the responder; empty: the state stays and its timer is not refreshed;
 * new: the packet begins another flow; drop: reason tcp-state):
 *
 *     state         SYN           SYN-ACK          ACK, data        FIN              RST
 *     SYN_SENT      I SYN_SENT    R SYN_RECV       I drop, R -      I drop, R -      CLOSED
 *                   R SYN_RECV    I drop
 *     SYN_RECV      I SYN_RECV    I ESTABLISHED    I ESTABLISHED    I CLOSING        CLOSED
 *                   R -           R SYN_RECV       R -              R -
 *     ESTABLISHED   -             -                ESTABLISHED      CLOSING          CLOSED
 *     CLOSING       -             -                CLOSING          FIN_WAIT if the  CLOSED
 *                                                                   other side's
 *     FIN_WAIT      new           -                FIN_WAIT         FIN_WAIT         CLOSED
 *     CLOSED        new           -                -                -                -
 *
 * A SYN from both sides (simultaneous open, RFC 9293 3.5) goes the same way: SYN_RECV, then the initiator's SYN-ACK.
 * An ACK from the responder before its SYN is a challenge (RFC 5961 4): it passes and changes nothing. So does a segment
 * without SYN, RST and ACK, which no receiver takes (RFC 9293 3.10.7.4).
 *
 * A connection that began elsewhere is picked up, where the rule's tracking is loose, by an ACK without SYN, FIN or RST:
 * it is ESTABLISHED from the start, and its initiator is who sent that.
 *
 * Others: FIRST, then SINGLE when the initiator goes on alone, MULTIPLE from the first reply. ICMP echo stays ECHO.
 */
#ifndef VSFWD_CONNTRACK_H
#define VSFWD_CONNTRACK_H

#include "types.h"

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

enum step {
	STEP_STAY, /* passes; state and timer as they were */
	STEP_MOVE, /* passes; the timer of the (new) state starts */
	STEP_NEW,  /* begins another flow */
	STEP_DROP, /* cannot be */
};

static __always_inline bool begins_tcp(u8 flags)
{
	return (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* Whether a TCP packet that belongs to no flow may pass under a rule of this tracking (NSX: "TCP strict"; loose is what
 * netfilter's nf_conntrack_tcp_loose does). */
static __always_inline bool may_begin(u8 tracking, u8 flags)
{
	if (tracking == TRACKING_STATELESS || begins_tcp(flags))
		return true;
	return tracking == TRACKING_LOOSE && (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_ACK;
}

/* Answers STEP_* and, for STEP_MOVE, writes state and fins. `direction` is the packet's. */
static __always_inline int tcp_step(struct flow *flow, u8 flags, u8 direction)
{
	bool initiator = direction == flow->initiator;
	u8 state = flow->state;

	if (begins_tcp(flags) && (state == STATE_FIN_WAIT || state == STATE_CLOSED))
		return STEP_NEW;
	if (state == STATE_CLOSED)
		return STEP_STAY;
	if (flags & TCP_RST) {
		flow->state = STATE_CLOSED;
		return STEP_MOVE;
	}
	if (state == STATE_SYN_SENT) {
		if (initiator)
			return begins_tcp(flags) ? STEP_MOVE : STEP_DROP;
		if (!(flags & TCP_SYN))
			return STEP_STAY;
		flow->state = STATE_SYN_RECV;
		return STEP_MOVE;
	}
	if (!(flags & (TCP_SYN | TCP_ACK)))
		return STEP_STAY;
	if (state == STATE_SYN_RECV) {
		if (initiator && (flags & TCP_ACK))
			flow->state = STATE_ESTABLISHED;
		else
			return (flags & TCP_SYN) && (initiator || (flags & TCP_ACK)) ? STEP_MOVE : STEP_STAY;
	} else if (flags & TCP_SYN) {
		return STEP_STAY;
	}
	if (flags & TCP_FIN) {
		flow->fins |= 1 << (direction & 1);
		flow->state = flow->fins == 3 ? STATE_FIN_WAIT : STATE_CLOSING;
	}
	return STEP_MOVE;
}

static __always_inline int other_step(struct flow *flow, u8 direction)
{
	if (flow->state == STATE_FIRST || flow->state == STATE_SINGLE)
		flow->state = direction == flow->initiator ? STATE_SINGLE : STATE_MULTIPLE;
	return STEP_MOVE;
}

/* Whether a packet of `direction` answers its flow, so that from now on it never gives way to another. */
static __always_inline bool is_answered(const struct flow *flow, u8 direction)
{
	if (flow->state <= STATE_CLOSED)
		return flow->state >= STATE_ESTABLISHED && flow->state != STATE_CLOSED &&
		       flow->packets[!flow->initiator];
	return direction != flow->initiator;
}

static __always_inline bool is_expired(const struct flow *flow, u64 now)
{
	return flow->expires <= now;
}

/* Whether a flow goes when a new one, at its `tries`th look for a place, asks for its own: at first only if it is dead
 * anyway; then if both sides have closed it; then if nobody has answered it. Never if it is answered and open. */
static __always_inline bool gives_way(const struct flow *flow, u64 now, u32 tries)
{
	return is_expired(flow, now) || flow->state == STATE_CLOSED || (tries >= 1 && flow->state == STATE_FIN_WAIT) ||
	       (tries >= 4 && !flow->answered);
}

#endif
