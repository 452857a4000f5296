// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Early drop: an XDP program for a device under flood, attached on demand and apart from all policy. It sees what the
 * device receives - on an uplink what comes to the host, on a vNIC what the workload sends - and drops by the source
 * address alone: what a list of prefixes covers, then what is beyond the rate of one source.
 *
 * To pass is always safe, since TC still judges; so whatever is not plainly an IP packet passes. The verdict must not
 * depend on who took off a VLAN tag (the driver, in which case it is not to be seen here), so tags are looked through.
 *
 * Each device has a program and maps of its own, which are pinned as long as the device has the program.
 * EARLY, the program's name, tells the version of this text; so a later daemon never misreads these maps.
 */
#include "types.h"
#include "packet.h"
#include "limit.h"

#define TAGS 2
#define SOURCES 65536

/* Whose packets are dropped? One trie, exchanged whole. */
BPF_F_TABLE("lpm_trie", struct prefix_key, u32, blocked_template, 1, 1 /* BPF_F_NO_PREALLOC */);
BPF_ARRAY_OF_MAPS(blocked, "blocked_template", 1);
/* How fast may one source send? */
BPF_ARRAY(settings, struct early, 1);
/* How full is the bucket of this source (spend() in limit.h)? The source least recently seen gives way. */
BPF_TABLE("lru_hash", struct address, u64, buckets, SOURCES);
/* What has become of the packets? By enum outcome. */
BPF_PERCPU_ARRAY(counts, u64, 3);

static __always_inline int verdict(u32 outcome)
{
	u64 *count = counts.lookup(&outcome);

	if (count)
		(*count)++;
	return outcome == OUTCOME_PASSED ? XDP_PASS : XDP_DROP;
}

/* Whose packet is it? As the longest prefix there is of its source. */
static __always_inline bool find_source(struct xdp_md *context, struct prefix_key *source)
{
	void *end = (void *)(long)context->data_end;
	u16 *next = (void *)(long)context->data + ETH_HLEN;
	struct ipv6hdr *ipv6;
	struct iphdr *ipv4;

#pragma unroll
	for (int i = 0; i < TAGS; i++) {
		if ((void *)next > end)
			return false;
		if (next[-1] == swap16(ETH_P_8021Q) || next[-1] == swap16(ETHERTYPE_QINQ))
			next += 2;
	}
	ipv4 = (void *)next;
	ipv6 = (void *)next;
	if ((void *)(ipv4 + 1) > end)
		return false;
	source->length = 32 + 128;
	if (next[-1] == swap16(ETH_P_IP)) {
		source->family = FAMILY_IPV4;
		source->address = mapped(ipv4->saddr);
		return ipv4->version == 4 && ipv4->ihl >= 5;
	}
	if (next[-1] != swap16(ETH_P_IPV6) || (void *)(ipv6 + 1) > end)
		return false;
	source->family = FAMILY_IPV6;
	__builtin_memcpy(&source->address, &ipv6->saddr, sizeof(struct address));
	return ipv6->version == 6 && !is_mapped(&source->address);
}

static __always_inline bool is_blocked(struct prefix_key *source)
{
	u32 zero = 0;
	void *trie = blocked.lookup(&zero);

	return trie && bpf_map_lookup_elem(trie, source);
}

static __always_inline bool is_over_rate(struct address *source)
{
	u32 zero = 0;
	struct early *early = settings.lookup(&zero);
	u64 full = 0, now = bpf_jiffies64(), *bucket;

	if (!early || !early->limit.cost)
		return false;
	bucket = buckets.lookup(source);
	if (bucket)
		return !spend(bucket, now, &early->limit);
	if (!spend(&full, now, &early->limit))
		return true;
	buckets.update(source, &full);
	return false;
}

int EARLY(struct xdp_md *context)
{
	struct prefix_key source = {};

	if (!find_source(context, &source))
		return verdict(OUTCOME_PASSED);
	if (is_blocked(&source))
		return verdict(OUTCOME_BLOCKED);
	return verdict(is_over_rate(&source.address) ? OUTCOME_LIMITED : OUTCOME_PASSED);
}
