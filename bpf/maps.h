/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map, and the question it answers. What is PINNED is made once for this schema (see types.h) and lies in its
 * directory on bpffs; the others are made anew for each text.
 *
 * Two of each policy table exist, the banks; per-vNIC tables exist once for each slot. Both are maps of maps: what
 * bears a name here with `_template` is never used by a packet, it only gives the inner maps their layout. What is in a
 * map of maps is pinned as well, by its id, beside it.
 */
#ifndef VSFWD_MAPS_H
#define VSFWD_MAPS_H

#define BANKS 2

#define PINNED BPF_F_TABLE
#define MAP_OF(name, entries) PINNED("array_of_maps$" #name "_template", int, int, name, entries, 0)
/* mmap()ed by the daemon, and of any size inside a map of maps: BPF_F_MMAPABLE | BPF_F_INNER_MAP */
#define INNER_ARRAY(leaf, name) BPF_F_TABLE("array", u32, leaf, name##_template, 1, 1024 | 4096)

/* Which vNIC is this device? */
PINNED("array", u32, struct vnic, vnics, VNIC_PLACES, 1024 /* BPF_F_MMAPABLE */);
/* May this vNIC send from this address? BINDING_ bits; asked only where SpoofGuard is on. */
PINNED("hash", struct binding_key, u32, bindings, BINDINGS, 1 /* BPF_F_NO_PREALLOC */);
/* Which policy is in force? policy_seq << 1 | bank, flipped by one store into the mapped page. */
PINNED("array", u32, u64, control, 1, 1024 /* BPF_F_MMAPABLE */);
/* What does the daemon's configuration say? */
PINNED("array", u32, struct settings, settings, 1, 0);

/* Which rules name this address? */
BPF_F_TABLE("hash", struct host_key, struct host, hosts_template, 1, 0);
MAP_OF(hosts, BANKS);
/* Which rules name a prefix that covers this address? */
BPF_F_TABLE("lpm_trie", struct prefix_key, struct prefix, prefixes_template, 1, 1 /* BPF_F_NO_PREALLOC */);
MAP_OF(prefixes, BANKS);
/* Which row are the rules for this service point (service_point() in classify.h)? */
INNER_ARRAY(u32, services);
MAP_OF(services, BANKS);
/* Which rules are in this row? */
INNER_ARRAY(struct row, rows);
MAP_OF(rows, BANKS);
/* Which rules are applied to this vNIC? */
INNER_ARRAY(struct policy, policies);
MAP_OF(policies, BANKS);
/* What does this rule do? */
INNER_ARRAY(struct rule, rules);
MAP_OF(rules, BANKS);

/* How many jiffies does a flow of this vNIC live after a packet? By slot * STATES + enum state. Each is one store. */
PINNED("array", u32, u64, timers, SLOTS * STATES, 1024 /* BPF_F_MMAPABLE */);
/* Which flows does this vNIC have? */
INNER_ARRAY(struct bucket, flows);
MAP_OF(flows, SLOTS);

/* Whose first fragment has passed? By slot * FRAGMENTS and what flow_hash() says. */
PINNED("array", u32, struct fragments, fragments, SLOTS * FRAGMENTS, 0);

/* Which data connections have been announced? By slot * PINHOLES and what flow_hash() says. */
PINNED("array", u32, struct pinhole, pinholes, SLOTS * PINHOLES, 0);

/* What has this rule done? By index, kept for a rule id over banks and restarts: */
PINNED("percpu_array", u32, struct counters, rule_counters, COUNTERS, 0);
/* Whose rule counter is this? Rule id, 0: free. Written by the daemon only. */
PINNED("array", u32, u32, counter_rule, COUNTERS, 1024 /* BPF_F_MMAPABLE */);
/* How many packets did this vNIC lose, and why? By slot * REASONS + reason. */
PINNED("percpu_array", u32, u64, drops, SLOTS * REASONS, 0);

/* How many packets passed this vNIC because it is excluded? By slot. */
PINNED("percpu_array", u32, u64, unfiltered, SLOTS, 0);

/* Which program goes on with this packet? By enum stage. Pinned, since without a reference from user
 * space the kernel empties it. */
PINNED("prog", u32, u32, stages, STAGES, 0);

/* What is known of the packet at hand? Pinned, since one stage goes on with what another has found, and may be that of a
 * later daemon. */
PINNED("percpu_array", u32, struct scratch, scratches, 1, 0);

/* What did logged rules do? */
BPF_RINGBUF_OUTPUT(events, 64);
/* Where is an event put together? Too large for the stack. */
BPF_F_TABLE("percpu_array", u32, struct event, event_draft, 1, 0);
/* Who claims which address? */
BPF_RINGBUF_OUTPUT(snoops, 32);
/* Where is a snooped frame put together? */
BPF_F_TABLE("percpu_array", u32, struct snoop, snoop_draft, 1, 0);
/* How many more frames of this vNIC may be shown? By slot * 2 + direction, the number of spend() in limit.h. */
BPF_F_TABLE("array", u32, u64, snoop_buckets, SLOTS * 2, 0);
/* Which answer of a DHCP server does this vNIC wait for? By slot * 2 + enum family. */
BPF_F_TABLE("array", u32, struct dhcp_request, dhcp_requests, SLOTS * 2, 0);
/* How often may this rule still be logged at this device? When there is no room, the pair longest unused forgets. */
BPF_F_TABLE("lru_hash", struct log_key, struct log_tokens, log_tokens, 16384, 0);
/* How many events found the ring buffer full? */
BPF_F_TABLE("percpu_array", u32, u64, events_lost, 1, 0);
/* How many more replies may this vNIC make? By slot * 2 + direction, the number of spend() in limit.h. */
BPF_F_TABLE("array", u32, u64, reject_tokens, SLOTS * 2, 0);
/* Where is a reject reply put together? */
BPF_F_TABLE("percpu_array", u32, struct reply, reply_draft, 1, 0);

#endif
