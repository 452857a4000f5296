// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Asking the policy, and what follows from its answer. How rows of bits find a rule is in classify.h.
 */

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

static __always_inline bool decides(const struct rule *rule)
{
	return !rule->monitored && rule->action != ACTION_JUMP_TO_APPLICATION;
}

/* The first rule that matches, of those that `which` says (SEARCH_), or NULL with the reason in `reason`. */
static __always_inline struct rule *classify(struct passage *p, struct policy *policy, struct question *q,
					     u32 which, u32 *reason)
{
	u32 bank = p->bank, row, bit;
	void *host_table = hosts.lookup(&bank), *row_table = rows.lookup(&bank), *table = services.lookup(&bank);
	struct row *source, *destination, *service, *vnic, *ports;
	struct prefix *prefix;
	struct host *host;
	u32 *service_row;
	bool has_ports;

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

	has_ports = q->point < 2 * 65536;
	row = policy->row[bounded(which * 4 + q->direction * 2 + q->family, SEARCHES * 4)];
	vnic = bpf_map_lookup_elem(row_table, &row);
	/* Without source ports the vNIC's row again, which says nothing more: one way on, for the verifier. */
	if (unlikely(policy->source_ports) && has_ports) {
		service_row = bpf_map_lookup_elem(table, &q->source_point);
		if (!service_row)
			return NULL;
		row = *service_row;
	}
	ports = bpf_map_lookup_elem(row_table, &row);
	if (!source || !destination || !service || !vnic || !ports)
		return NULL;

	bit = first_match(source, destination, service, vnic, ports);
	*reason = REASON_NO_RULE;
	if (bit == NO_BIT)
		return NULL;
	table = rules.lookup(&bank);
	*reason = REASON_INTERNAL;
	return table ? bpf_map_lookup_elem(table, &bit) : NULL;
}

/* The search goes on, in a program of its own, where the rule that matches does not decide. Monitored rules are left out
 * once one of them has been met, and no rule of the category Application jumps, so there is no fourth search. */
static __always_inline int go_on(struct passage *p, struct track *t, const struct rule *rule, u32 which)
{
	if (!t->flow) { /* what is asked again has been counted */
		count(rule->counter, p->packet->length, 0);
		report(p, rule, REASON_NONE);
	}
	p->scratch->search = which | (rule->monitored ? SEARCH_ENFORCED : SEARCH_APPLICATION);
	return call_stage(p, STAGE_SEARCH);
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

static __always_inline struct rule *first_rule(struct passage *p, struct row *source, struct row *destination,
					       struct row *type, struct row *vlan, struct row *vnic, u32 *reason)
{
	u32 bank = p->bank, bit = first_match(source, destination, type, vlan, vnic);
	void *table = rules.lookup(&bank);

	*reason = bit == NO_BIT ? REASON_NO_RULE : REASON_INTERNAL;
	return table && bit != NO_BIT ? bpf_map_lookup_elem(table, &bit) : NULL;
}

/* classify(), for frames. A monitored rule is counted, and then the others are asked. */
static __always_inline struct rule *classify_frame(struct passage *p, struct policy *policy, struct ether *ether,
						   u32 *reason)
{
	u32 bank = p->bank, applied = policy->frames[p->direction & 1], row;
	u32 enforced = policy->frames[SEARCH_ENFORCED * 2 + (p->direction & 1)];
	u32 type_point = ETHERTYPE_POINTS + ether->type, vlan_point = VLAN_POINTS + ether->vlan;
	void *host_table = hosts.lookup(&bank), *row_table = rows.lookup(&bank), *table = services.lookup(&bank);
	struct row *source, *destination, *type, *vlan, *vnic;
	struct host *from, *to;
	struct rule *rule;
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
	rule = first_rule(p, source, destination, type, vlan, vnic, reason);
	if (likely(!rule || !rule->monitored))
		return rule;
	count(rule->counter, p->packet->length, 0);
	report(p, rule, REASON_NONE);
	vnic = bpf_map_lookup_elem(row_table, &enforced);
	*reason = REASON_INTERNAL;
	return vnic ? first_rule(p, source, destination, type, vlan, vnic, reason) : NULL;
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
		return drop(REASON_RULE_REJECT);
	if (!spend(tokens, bpf_jiffies64(), &p->settings->reject))
		return drop(REASON_REJECT_LIMITED);
	count_drop(p, REASON_RULE_REJECT);
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
	return rejects ? reject(p) : drop(REASON_RULE_DROP);
}
