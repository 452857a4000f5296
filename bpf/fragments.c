// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Packets that come in fragments: the first is judged, the others follow it.
 */

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
		return drop(REASON_INTERNAL);
	if (known->check != check || !same_key(&known->key, p->key) || known->expires <= p->now)
		return packet->fragment == FRAGMENT_FIRST ? TC_ACT_UNSPEC : drop(REASON_FRAGMENT);
	if (known->policy_seq != p->policy_seq) {
		known->check = 0;
		return packet->fragment == FRAGMENT_FIRST ? TC_ACT_UNSPEC : drop(REASON_FRAGMENT);
	}
	if (known->next != packet->fragment_at || known->count == MAX_FRAGMENTS) {
		known->next = FRAGMENTS_POISONED;
		return drop(REASON_FRAGMENT_ORDER);
	}
	known->next = packet->fragment_end;
	known->count++;
	if (!packet->more_fragments)
		known->check = 0;
	return pass(p, known->counter);
}

/* The first fragment has passed. Whichever packet is noted where it belongs gives way: a flood of fragments costs
 * nobody but other fragments of its vNIC. */
static __always_inline int note_first(struct passage *p, int verdict)
{
	struct fragments *fresh;
	u64 check;

	fresh = find_fragments(p, &check);
	if (!fresh)
		return drop(REASON_INTERNAL);
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
	return verdict;
}
