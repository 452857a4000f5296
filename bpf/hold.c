// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A vNIC whose VM is changing host: nothing passes, until the daemon or the VM itself says that it runs here.
 */

/* Whether the workload says with this frame where it is now. */
static __always_inline bool announces_itself(struct passage *p)
{
	u8 *frame = p->scratch->bytes;
	u16 *mac = (u16 *)p->vnic->mac;
	u32 type = p->skb->protocol;

	if (p->direction != DIRECTION_OUT || p->skb->vlan_present)
		return false;
	if (bpf_skb_load_bytes(p->skb, 0, frame, ARP_FRAME) || !same_mac((u16 *)frame + 3, mac))
		return false;
	if (type == swap16(ETH_P_ARP) || type == swap16(ETHERTYPE_RARP))
		return announces_by_arp(frame, mac);
	return type == swap16(ETH_P_IPV6) && !bpf_skb_load_bytes(p->skb, 0, frame, ADVERTISEMENT_FRAME) &&
	       announces_by_advertisement(frame);
}

/* Why a frame does not pass; 0 if it does, mostly since it has brought its vNIC to life. The daemon need not be there for
 * that. `hold` is not HOLD_NONE. */
static __always_inline u32 stop(struct passage *p, u8 hold)
{
	if (hold == HOLD_FROZEN)
		return REASON_FROZEN;
	if (hold == HOLD_HEARD || !announces_itself(p))
		return REASON_DEAD;
	if (hold == HOLD_PAUSED)
		return 0;
	*(volatile u8 *)&p->vnic->hold = hold == HOLD_DEAD ? HOLD_NONE : HOLD_HEARD;
	return hold == HOLD_DEAD ? 0 : REASON_DEAD;
}
