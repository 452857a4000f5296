/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a packet does to the state of its flow. Pure: state in, state out.
 *
 * TCP: vsfwd/datapath/transitions.py has the table of states; the daemon writes it into the settings. Here is what
 * decides whether a segment fits its flow, from what both sides have said so far:
 *
 *     I    seq <= limit           it begins inside what its receiver has offered
 *     II   end >= end' - window'  and is at most a window old: what is sent again passes
 *     III  ack <= end'            it acknowledges what has been sent
 *     IV   ack >= end' - 66,000   and nothing from long ago, or from another connection
 *
 * with the highest end of a segment seen from the sender and from the receiver ('), its largest window, and the highest
 * ack + window it sent, which is the other's limit: the four bounds of van Rooij, "Real stateful TCP packet filtering in
 * IP Filter" (2000), as the kernel has them in nf_conntrack_proto_tcp.c. Windows are scaled if both SYNs say so (RFC
 * 7323 2). Selective acknowledgements are not looked at. Segments of one direction are taken to come one after the other:
 * two CPUs that advance one side at once can lose the higher end, until the segment is sent again.
 *
 * A connection that began elsewhere is picked up, where the rule's tracking is loose, by an ACK without SYN, FIN or RST:
 * it is ESTABLISHED from the start, and its initiator is who sent that. A side is unknown until it is heard.
 *
 * Others: FIRST, then SINGLE when the initiator goes on alone, MULTIPLE from the first reply. ICMP echo stays ECHO.
 */
#ifndef VSFWD_CONNTRACK_H
#define VSFWD_CONNTRACK_H

#include "packet.h"

#define WINDOW_SCALED 0x80    /* in struct tcp_side, scale: the option was there */
#define SHIFT 15              /* bits of the shift beside it */
#define SCALE_UNREAD 0x40     /* no shift: the option has yet to be looked for */
#define MAX_SCALE 14          /* RFC 7323 2.3 */
#define OLDEST_ACK 66000      /* MAXACKWINDOW of the kernel: no window without scaling is larger */

/* Whether a TCP packet that belongs to no flow may pass under a rule of this tracking (NSX: "TCP strict"; loose is what
 * netfilter's nf_conntrack_tcp_loose does). */
static __always_inline bool may_begin(u8 tracking, u8 segment)
{
	return tracking == TRACKING_STATELESS || segment == SEGMENT_SYN ||
	       (tracking == TRACKING_LOOSE && segment == SEGMENT_ACK);
}

/* Whether one segment more or less decides what becomes of a flow, so that its checksum had better be right. */
static __always_inline bool is_decisive(u8 segment)
{
	return segment == SEGMENT_SYN_ACK || segment == SEGMENT_FIN || segment == SEGMENT_RST;
}

static __always_inline bool is_after(u32 a, u32 b)
{
	return (s32)(a - b) > 0;
}

/* The window scale that a SYN offers, among `length` bytes of options: WINDOW_SCALED | shift, or 0. `options` has room
 * for 64. `at` is in memory, so that the verifier follows the loop and not each way through the options. */
static __always_inline u8 window_scale(const u8 *options, s64 length, volatile u32 *at)
{
	*at = 0;
	for (u32 i = 0; i < 40; i++) {
		u32 here = *at;
		u8 kind = options[here & 63], size = options[(here + 1) & 63], shift = options[(here + 2) & 63];

		if (here >= length || kind == 0)
			break;
		if (kind == 3)
			return size != 3 || here + 3 > length ? 0 : WINDOW_SCALED | (shift < MAX_SCALE ? shift : MAX_SCALE);
		if (kind != 1 && size < 2)
			break;
		*at = here + (kind == 1 ? 1 : size);
	}
	return 0;
}

static __always_inline u32 largest_window(const struct tcp_side *side)
{
	return (u32)side->window << (side->scale & SHIFT);
}

/* A side whose SYN is seen; its options are read when all else is done. It may send as much as the SYN of the other has
 * offered, before anything acknowledges its own (RFC 7413 3). The other has acknowledged nothing of it: what stands in
 * the acknowledgement field of a SYN says nothing. */
static __always_inline void open_side(struct tcp_side *side, struct tcp_side *other, const struct packet *packet)
{
	side->end = packet->end;
	side->limit = packet->end + largest_window(other);
	side->scale = SCALE_UNREAD;
	side->window = packet->window ?: 1;
	other->acked = packet->seq;
}

/* `scale` is what its SYN offers. The window of a SYN is never scaled. */
static __always_inline void scale_side(struct tcp_side *side, struct tcp_side *other, u8 scale)
{
	side->scale = scale;
	side->window = side->window >> (scale & SHIFT) ?: 1;
	if (other->window && !(scale && other->scale))
		side->scale = other->scale = 0;
}

/* A side of a connection that was under way when it was first seen: its scale and its limit could be any. */
static __always_inline void pick_up_side(struct tcp_side *side, const struct packet *packet)
{
	side->end = packet->end;
	side->scale = WINDOW_SCALED | MAX_SCALE;
	side->window = 0xffff;
	side->limit = packet->end + (0xffff << MAX_SCALE);
	side->acked = packet->ack;
}

static __always_inline bool fits(const struct tcp_side *sender, const struct tcp_side *receiver,
				 const struct packet *packet)
{
	u32 oldest = largest_window(sender);

	if (!receiver->window) /* not yet heard of: the connection was picked up */
		return true;
	if (oldest < OLDEST_ACK)
		oldest = OLDEST_ACK;
	return !is_after(packet->seq, sender->limit) &&
	       !is_after(sender->end - largest_window(receiver), packet->end) &&
	       !is_after(packet->ack, receiver->end) && !is_after(receiver->end - oldest, packet->ack);
}

/* What a segment that fits tells of its sender, and of how much the other side may send. */
static __always_inline void note(struct tcp_side *sender, struct tcp_side *receiver, const struct packet *packet)
{
	u32 limit = packet->ack + ((u32)packet->window << (sender->scale & SHIFT)), end = packet->end;

	if (unlikely(is_fragment(packet)) && is_after(end, sender->limit))
		end = sender->limit; /* nobody knows how long it is, but no longer than that */
	if (is_after(end, sender->end))
		sender->end = end;
	if (is_after(packet->ack, sender->acked))
		sender->acked = packet->ack;
	if (packet->window > sender->window)
		sender->window = packet->window;
	limit += !packet->window; /* a closed window is probed with one byte */
	if (is_after(limit, receiver->limit))
		receiver->limit = limit;
}

/* RFC 9293 3.10.7.3 and RFC 5961 3.2: only the number that the receiver waits for, or the one that follows what the
 * sender has sent, closes. What is near may be answered by a challenge, and the answer to one. */
static __always_inline int reset_step(const struct flow *flow, const struct tcp_side *sender,
				      const struct tcp_side *receiver, const struct packet *packet, bool responder)
{
	if (flow->state == STATE_SYN_SENT) {
		if (responder)
			return packet->ack == receiver->end ? STEP_MOVE : STEP_WINDOW;
		return packet->seq == sender->end ? STEP_MOVE : STEP_STAY;
	}
	if (!sender->window || !receiver->window || packet->seq == receiver->acked || packet->seq == sender->end)
		return STEP_MOVE;
	return is_after(packet->seq, sender->limit) || is_after(receiver->acked, packet->seq) ? STEP_WINDOW : STEP_STAY;
}

/* A SYN or SYN-ACK that the table lets move its flow. */
static __always_inline int syn_step(struct flow *flow, struct tcp_side *sender, struct tcp_side *receiver,
				    const struct packet *packet)
{
	bool acks = packet->segment == SEGMENT_SYN_ACK;

	if (acks && (is_after(packet->ack, receiver->end) || is_after(sender->acked, packet->ack)))
		return STEP_WINDOW;
	if (flow->state == STATE_SYN_RECV) {
		if (packet->end != sender->end)
			return STEP_STAY;
	} else {
		open_side(sender, receiver, packet);
	}
	if (acks) {
		sender->acked = packet->ack;
		receiver->limit = packet->ack + packet->window;
	}
	return STEP_MOVE;
}

/* Answers STEP_* and, for STEP_MOVE, writes state and sides. `direction` is the packet's. */
static __always_inline int tcp_step(struct flow *flow, const struct packet *packet, u8 direction,
				    const struct settings *settings)
{
	bool responder = direction != flow->initiator;
	u8 segment = packet->segment;
	u32 place = flow->state * 2 * SEGMENTS + responder * SEGMENTS + segment;
	u8 cell = settings->transition[bounded(place, TRANSITIONS)];
	struct tcp_side *sender = &flow->side[direction & 1], *receiver = &flow->side[!(direction & 1)];
	int step = cell >> 4;

	keep_near(flow);
	keep_near(packet);
	keep_near(sender);
	keep_near(receiver);
	if (step != STEP_MOVE)
		return step;
	if (likely(segment == SEGMENT_ACK || segment == SEGMENT_FIN)) {
		if (unlikely(!sender->window)) {
			pick_up_side(sender, packet);
			receiver->acked = packet->seq; /* what it said before, nobody could check */
		} else if (!fits(sender, receiver, packet)) {
			return STEP_WINDOW;
		}
		note(sender, receiver, packet);
	} else {
		step = segment == SEGMENT_RST ? reset_step(flow, sender, receiver, packet, responder)
					      : syn_step(flow, sender, receiver, packet);
		if (step != STEP_MOVE)
			return step;
	}
	flow->state = cell & (STATES - 1);
	return STEP_MOVE;
}

static __always_inline int other_step(struct flow *flow, u8 direction)
{
	if (flow->state == STATE_FIRST || flow->state == STATE_SINGLE)
		flow->state = direction == flow->initiator ? STATE_SINGLE : STATE_MULTIPLE;
	return STEP_MOVE;
}

/* Whether an ICMP error is about a segment of this flow that may be under way (RFC 5927 4.1): sent, and not yet
 * acknowledged. Of a connection picked up whose other side was never heard: sent not long ago. `direction` is the
 * segment's. */
static __always_inline bool is_under_way(const struct flow *flow, u32 seq, u8 direction)
{
	const struct tcp_side *sender = &flow->side[direction & 1], *receiver = &flow->side[!(direction & 1)];
	u32 oldest = receiver->acked;

	if (!receiver->window && flow->state != STATE_SYN_SENT)
		oldest = sender->end - OLDEST_ACK;
	return sender->window && !is_after(seq, sender->end) && !is_after(oldest, seq);
}

/* Whether a packet of `direction` answers its flow, so that from now on it never gives way to another. A responder that
 * closes before it is acknowledged (RFC 7413) has not been answered: its initiator may be anybody. */
static __always_inline bool is_answered(const struct flow *flow, u8 direction)
{
	if (flow->state <= STATE_CLOSED)
		return flow->state >= STATE_ESTABLISHED && flow->state != STATE_CLOSED &&
		       flow->packets[!flow->initiator] &&
		       (direction == flow->initiator || flow->state == STATE_ESTABLISHED);
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
