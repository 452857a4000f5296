// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Frames, before what is in them is looked at: whose they are, what Ethernet rules say of them, what carries no IP.
 */

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
	p->packet->length = p->skb->len;
	__builtin_memset(p->key, 0, sizeof(*p->key));
	p->ether = ether;
	rule = classify_frame(p, policy, ether, &reason);
	if (!rule) {
		p->ether = NULL;
		return reason == REASON_NO_RULE ? TC_ACT_UNSPEC : drop(reason);
	}
	count(rule->counter, p->packet->length, 0);
	report(p, rule, rule->action == ACTION_ALLOW ? REASON_NONE : REASON_RULE_DROP);
	p->ether = NULL;
	if (rule->action != ACTION_ALLOW)
		return drop(REASON_RULE_DROP);
	if (ether->vlan != UNTAGGED) {
		p->packet->tagged = 1;
		p->packet->vlan = ether->vlan;
	}
	return is_known(ether->type) ? TC_ACT_UNSPEC : TC_ACT_OK;
}

/* What the policy says of a frame as it is. TC_ACT_UNSPEC to go on, or the verdict. */
static __always_inline int ahead(struct passage *p)
{
	struct policy *policy = find_policy(p);
	u32 slot = p->slot;
	u64 *count;

	if (!policy)
		return TC_ACT_UNSPEC;
	if (policy->mode != MODE_EXCLUDED)
		return policy->frames[p->direction & 1] ? filter_frame(p, policy, &p->scratch->ether) : TC_ACT_UNSPEC;
	count = unfiltered.lookup(&slot);
	if (count)
		(*count)++;
	return TC_ACT_OK;
}

/* What carries no IP: ARP as SpoofGuard says; RARP by which the workload tells switches where it is; the rest is
 * dropped. */
static __always_inline int judge_frame(struct passage *p, u16 ethertype)
{
	if (ethertype == ETH_P_8021Q || ethertype == ETHERTYPE_QINQ)
		return drop(REASON_VLAN_TAG);
	if (ethertype == ETHERTYPE_RARP && announces_itself(p))
		return TC_ACT_OK;
	if (ethertype != ETH_P_ARP)
		return drop(REASON_ETHERTYPE);
	return p->direction == DIRECTION_OUT ? judge_arp(p) : TC_ACT_OK;
}
