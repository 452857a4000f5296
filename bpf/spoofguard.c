// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * SpoofGuard and snooping: what a workload may say about itself, and what the daemon is shown of it. The messages
 * themselves are read in spoof.h.
 */

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

/* Shows the daemon a frame by which the vNIC claims `address`, if it does not know that yet; NULL: it looks itself. What
 * comes in and what goes out have a rate each, so that nobody else can use up what the workload says of itself. */
static __always_inline void snoop(struct passage *p, const struct address *address)
{
	u32 zero = 0, place = (p->slot & (SLOTS - 1)) * 2 + (p->direction & 1);
	struct snoop *draft = snoop_draft.lookup(&zero);
	u64 *bucket = snoop_buckets.lookup(&place);
	s64 length = p->skb->len;

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
	length = bounded_length(length, SNOOP_BYTES);
	if (length <= 0 || bpf_skb_load_bytes(p->skb, 0, draft->frame, length))
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
		return is_guarded(p) ? drop(REASON_SHORT) : TC_ACT_OK;
	sender = mapped(arp.sender[0] | (u32)arp.sender[1] << 16);
	own = is_own_arp(&arp, (u16 *)p->vnic->mac);
	if (own && !is_unspecified(&sender))
		snoop(p, &sender);
	if (is_guarded(p) && (!own || (!is_unspecified(&sender) && !is_trusted(p, &sender))))
		return drop(REASON_SPOOFED_ARP);
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

/* What a DHCP client says and hears, once it has passed. A request is noted; an answer is shown if it is one: soon after the
 * last request, and with its number. Any other costs nothing, however many come. */
static __always_inline void snoop_dhcp(struct passage *p)
{
	bool ipv4 = p->packet->family == FAMILY_IPV4;
	u32 place = (p->slot & (SLOTS - 1)) * 2 + (p->packet->family & 1), number;
	struct dhcp_request *request = dhcp_requests.lookup(&place);
	u64 now = bpf_ktime_get_ns();

	if (!request || bpf_skb_load_bytes(p->skb, p->packet->l4 + 8 + (ipv4 ? DHCP_XID : 0), &number, sizeof(number)))
		return;
	if (!ipv4)
		number &= swap32(0xffffff); /* before it comes the type of the message */
	if (p->direction == DIRECTION_OUT) {
		request->number = number;
		request->until = now + DHCP_ANSWER_NS;
	} else if (number == request->number && now < request->until) {
		snoop(p, NULL);
	}
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
