/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that crosses the border between the programs and the daemon: the one declaration of each struct and of
 * each number. The daemon reads layouts, enums and limits from this text (vsfwd/datapath/schema.py).
 *
 * A change to this file or to maps.h is a new schema: pins live under a hash of both, so a daemon never trusts a map
 * with another layout.
 *
 * Orders: "wire" is network byte order, everything else is the host's. Padding is written out and always zero, since
 * the kernel compares and hashes keys byte by byte.
 */
#ifndef VSFWD_TYPES_H
#define VSFWD_TYPES_H

#define SLOTS 1024            /* vNICs of one host */
#define VNIC_PLACES 8192      /* of the map vnics; a power of two, so that all but a few are found at the first place */
#define VNIC_PROBES 4
#define RULES 16384           /* rules of one host: bits in a row */
#define WORDS 256             /* 64-bit words in a row: RULES / 64 */
#define SUMMARIES 4           /* 64-bit summary words of a row: WORDS / 64 */
#define COUNTERS 32768        /* rule counters: the rules in force and, while a bank flips, those of the bank before */
#define REASONS 64            /* places for drop reasons of one vNIC */
#define STATES 16             /* places for states of a flow */
#define WAYS 8                /* places of a bucket of a flow table */
#define FRAGMENT_BITS 7
#define FRAGMENTS 128         /* packets of one vNIC that may be on their way in fragments: 1 << FRAGMENT_BITS */
#define PINHOLE_BITS 6
#define PINHOLES 64           /* data connections of one vNIC that may be announced at once: 1 << PINHOLE_BITS */
#define SEGMENTS 8            /* places for kinds of TCP segments */
#define TRANSITIONS 256       /* STATES * 2 * SEGMENTS */
#define SEEDS 11              /* seeds of the hash of a flow key: one more than its 32-bit words */
#define BINDINGS 262144       /* addresses bound to vNICs of one host: 256 for each, more than one may claim */
#define NO_COUNTER 0          /* rule_counters[0] belongs to no rule */

/* The programs that vnic_in() and vnic_out() go on with, in the map stages. */
enum stage {
	STAGE_PACKET,
	STAGE_FRAME,
	STAGE_SPEECH,
	STAGE_SEARCH,
	STAGES,
};

/* Seen from the workload. The kernel's words for it are in vsfwd/datapath/attach.py and nowhere else. */
enum direction {
	DIRECTION_IN,  /* towards the workload */
	DIRECTION_OUT, /* from the workload */
};

enum family {
	FAMILY_IPV4,
	FAMILY_IPV6,
};

enum action {
	ACTION_ALLOW,
	ACTION_DROP,
	ACTION_REJECT,
	ACTION_JUMP_TO_APPLICATION, /* none: the search goes on with the rules of the category Application */
};

/* What a rule wants to know of connections. */
enum tracking {
	TRACKING_STRICT,    /* a TCP connection begins with its SYN */
	TRACKING_LOOSE,     /* one that began elsewhere may be picked up in the middle */
	TRACKING_STATELESS, /* nothing: each packet is judged by itself, and makes no flow */
};

/* What becomes of a flow when the policy changes. */
enum existing {
	EXISTING_RECHECK, /* it is asked about again, as its first packet */
	EXISTING_KEEP,    /* once answered it goes on under the decision it had */
	EXISTING_CUT,     /* it ends */
};

/* Why a packet was dropped. Append only: dashboards and tests know the numbers. */
enum reason {
	REASON_NONE,                 /* not dropped */
	REASON_NOT_MINE,             /* unicast to another MAC address, flooded by the bridge */
	REASON_VLAN_TAG,             /* a tag on an access port */
	REASON_ETHERTYPE,            /* neither IPv4, IPv6 nor ARP, nor RARP of a workload about its own MAC address */
	REASON_SHORT,                /* ends before its headers do */
	REASON_LENGTH,               /* claims more bytes than there are, or fewer than its headers */
	REASON_HEADER,               /* a version, a header length or the length of an option is wrong */
	REASON_EXTENSIONS,           /* more IPv6 extension headers or options than anybody needs, or out of their order */
	REASON_MAPPED,               /* IPv6 with an address in ::ffff:0:0/96, which is where IPv4 is kept */
	REASON_FRAGMENT,             /* a fragment of a packet whose first fragment has not passed, or under another policy */
	REASON_ICMP_FAMILY,          /* ICMP in IPv6, or ICMPv6 in IPv4 */
	REASON_CLOSED,               /* this vNIC has no policy yet */
	REASON_ICMP_ERROR_UNRELATED, /* an ICMP error about nothing this vNIC sent or received */
	REASON_NO_STATE,             /* TCP that neither belongs to a flow nor begins one */
	REASON_TCP_STATE,            /* TCP that its flow cannot have sent now */
	REASON_NO_RULE,              /* no rule matches */
	REASON_RULE_DROP,            /* the rule that matches says drop */
	REASON_RULE_REJECT,          /* the rule that matches says reject */
	REASON_TABLE_FULL,           /* no room for a new flow of this vNIC */
	REASON_INTERNAL,             /* a map lacks what every map must have */
	REASON_POLICY_CUT,           /* of a flow that ends because the policy has changed */
	REASON_REJECT_LIMITED,       /* the rule that matches says reject, and enough have been answered for now */
	REASON_SOURCE_ROUTE,         /* its sender says by which way it goes: IPv4 options LSRR and SSRR, IPv6 routing header */
	REASON_ADDRESS,              /* from or to an address that no packet on a wire has, or from itself to itself */
	REASON_NOT_ON_LINK,          /* neighbour discovery or MLD that may come from beyond the link */
	REASON_REDIRECT,             /* an ICMP redirect, and the port is not marked as a router */
	REASON_SPOOFED_MAC,          /* SpoofGuard: from another MAC address than the vNIC's */
	REASON_SPOOFED_IP,           /* SpoofGuard: from an address that is not the vNIC's */
	REASON_SPOOFED_ARP,          /* SpoofGuard: ARP that says what is not so */
	REASON_SPOOFED_ND,           /* SpoofGuard: neighbour discovery that says what is not so */
	REASON_ROGUE_DHCP,           /* a DHCP server's part, and the port is not marked as one */
	REASON_ROGUE_RA,             /* a router advertisement, and the port is not marked as a router */
	REASON_FRAGMENT_ORDER,       /* a fragment that does not begin where the one before it ended, and all that follow */
	REASON_TCP_FLAGS,            /* TCP flags that no segment has together */
	REASON_TCP_WINDOW,           /* TCP whose sequence numbers its flow cannot have now */
	REASON_CHECKSUM,             /* a wrong checksum on what would have changed a flow */
	REASON_MTU,                  /* an ICMP error that asks for packets smaller than any link makes them */
	REASON_FROZEN,               /* its VM is leaving for another host */
	REASON_DEAD,                 /* its VM is coming from another host, and does not run here yet */
};

/* What a flow has seen. */
enum state {
	STATE_NONE,        /* no flow */
	STATE_SYN_SENT,    /* TCP: the initiator's SYN */
	STATE_SYN_RECV,    /* TCP: the responder's SYN, too */
	STATE_ESTABLISHED, /* TCP: the initiator's acknowledgement of it */
	STATE_CLOSING_INITIATOR, /* TCP: the initiator's FIN */
	STATE_CLOSING_RESPONDER, /* TCP: the responder's FIN */
	STATE_FIN_WAIT,    /* TCP: both sides' FIN */
	STATE_CLOSED,      /* TCP: a RST */
	STATE_FIRST,       /* others: one packet */
	STATE_SINGLE,      /* others: several packets, no reply */
	STATE_MULTIPLE,    /* others: a reply */
	STATE_ECHO,        /* ICMP echo, with or without reply */
	STATE_FRAGMENTS,   /* of no flow: a packet of which some fragments have passed */
	STATE_ECHO_ERROR,  /* of no flow: the timer of an echo about which an ICMP error has passed */
	STATE_PINHOLE,     /* of no flow: a data connection that has been announced */
};

/* What a TCP segment is, by its flags. */
enum segment {
	SEGMENT_SYN,
	SEGMENT_SYN_ACK,
	SEGMENT_ACK,
	SEGMENT_FIN,
	SEGMENT_RST,
};

/* What a packet does to its flow. */
enum step {
	STEP_STAY,   /* passes; state and timer as they were */
	STEP_MOVE,   /* passes; the timer of the (new) state starts */
	STEP_NEW,    /* begins another flow */
	STEP_DROP,   /* cannot be, in this state */
	STEP_WINDOW, /* cannot be, by its sequence numbers */
};

/* An IPv6 address, or an IPv4 address at ::ffff:0:0/96. */
struct address {
	u32 word[4]; /* wire */
};

/* Map vnics: open addressing by ifindex, in one of VNIC_PROBES places from ifindex % VNIC_PLACES on. Written by the
 * daemon at attach, `ifindex` last. A hash map would cost a packet 25 ns here, an array costs 1. */
struct vnic {
	u32 ifindex;    /* 0: free */
	u32 slot;       /* 0..SLOTS-1: index of everything this vNIC has of its own */
	u32 buckets;    /* of its flow table */
	u8 mac[6];      /* wire */
	u8 promiscuous; /* 1: takes frames to any MAC address */
	u8 ahead;       /* 1: its policy is asked about frames before they are parsed, and `hold` before that. Raised
			 * before the bank that wants it is in force and cleared after: what is to be done stands in the bank */
	u8 id[16];      /* UUID of the vNIC, wire; for the daemon that finds this after a restart */
	u8 guard;       /* GUARD_ bits; the policy's, written while packets pass */
	u8 zero[2];
	u8 hold;        /* enum hold. The last byte, since the programs write it too: the daemon writes it by itself */
};

/* Why nothing passes a vNIC while its VM changes host. Any but HOLD_NONE needs `ahead`. */
enum hold {
	HOLD_NONE,
	HOLD_FROZEN,  /* the VM is leaving: its flows stay as they are */
	HOLD_WAITING, /* the VM is coming, and what it needs is not here yet */
	HOLD_HEARD,   /* nor is it, but the VM has announced itself meanwhile; for the daemon to know */
	HOLD_DEAD,    /* all is here: the VM's first announcement of itself, or the daemon, ends it */
	HOLD_PAUSED,  /* the VM runs here, and what it had elsewhere comes into its table, which is the daemon's meanwhile:
		       * only announcements pass, since they have no flow, and switches wait for them */
};

/* A token bucket's measures (limit.h), in 1/65536 jiffies. */
struct limit {
	u64 cost;  /* of one token: 1 / rate */
	u64 depth; /* of a full bucket: burst * cost */
};

#define GUARD_SPOOF 1       /* SpoofGuard: sends from its own MAC address and from trusted addresses only */
#define GUARD_ROUTER 2      /* may advertise itself as a router, and redirect */
#define GUARD_DHCP_SERVER 4 /* may answer DHCP and DHCPv6 requests */

/* Map bindings: an address at a vNIC. */
struct binding_key {
	u32 slot;
	struct address address;
};

#define BINDING_TRUSTED 1 /* the vNIC may send from it */
#define BINDING_KNOWN 2   /* the daemon has seen the vNIC claim it, and need not be told again */

#define UNTAGGED 4096 /* where a VLAN id would stand */

/* What an Ethernet rule is asked about. */
struct ether {
	u8 destination[6]; /* wire */
	u8 source[6];      /* wire */
	u16 type;          /* EtherType behind the tag, if there is one. 0 in an event: a rule for packets decided */
	u16 vlan;          /* VLAN id; UNTAGGED */
};

/* Map settings. Written by the daemon at load, once. */
struct settings {
	u64 seed[SEEDS];     /* secret: of flow_hash() */
	u32 mark;            /* secret: skb->mark of our own reject replies is mark ^ slot */
	u32 stamp;           /* secret: skb->mark of what a vNIC has sent and passes, for the port guard. 0: none asks */
	struct limit log;    /* events of one rule at one vNIC */
	struct limit reject; /* replies of one vNIC in one direction */
	struct limit snoop;  /* frames of one vNIC in one direction that the daemon is shown */
	u8 transition[TRANSITIONS]; /* by state, side, segment: enum step << 4 | next state (vsfwd/datapath/transitions.py) */
};

/* Map hosts: one address, known exactly. */
struct host_key {
	u32 segment;            /* 0 unless the same address exists on several segments */
	struct address address;
};

struct host {
	u32 source;      /* row of rules that name it as source */
	u32 destination; /* row of rules that name it as destination */
	u32 literal;     /* as source, by its literal prefixes only: for a vNIC that sends from another's address */
	u32 owner;       /* slot + 1 of the vNIC that owns it; OWNER_NONE, OWNER_REMOTE */
};

/* MAC addresses are hosts on a segment of their own: the MAC address in the last six bytes of the address, or
 * OTHER_MAC in its first word for those that no rule names and no member of a group has. */
#define MAC_SEGMENT 0xffffffff
#define OTHER_MAC 0x01000000

#define OWNER_NONE 0            /* counts for whoever sends from it */
#define OWNER_REMOTE 0xffffffff /* a vNIC on another host owns it */

/* Map prefixes: the longest prefix that covers an address without an entry in hosts. */
struct prefix_key {
	u32 length;  /* bits, counted from `family` on: 32 + 96 + n for an IPv4 /n, 32 + n for an IPv6 /n */
	u8 family;   /* enum family; so that ::/0 never covers IPv4 */
	u8 zero[3];
	struct address address;
};

struct prefix {
	u32 source;
	u32 destination;
};

/* Map rows: bit r of word r / 64 is rule r; bit w of summary w / 64 says that word w is not zero. */
struct row {
	u64 summary[SUMMARIES];
	u64 word[WORDS];
};

/* What is done at a vNIC. */
enum mode {
	MODE_CLOSED,   /* there is no policy for it: only what passes_closed() */
	MODE_ENFORCED, /* its policy decides */
	MODE_EXCLUDED, /* nothing: it is on the exclusion list. Not parsed, not tracked, only counted */
};

/* Which rules of a vNIC are asked; all, when a packet comes. */
#define SEARCH_ENFORCED 1    /* without those that are monitored */
#define SEARCH_APPLICATION 2 /* without those before the category Application */
#define SEARCHES 4

/* Map policies, by slot: what is applied to this vNIC. */
struct policy {
	u32 row[16];   /* by SEARCH_ * 4 + enum direction * 2 + enum family */
	u32 frames[4]; /* Ethernet rules, by SEARCH_ENFORCED * 2 + enum direction; row 0, which is empty: there are none */
	u32 segment;   /* its addresses are looked up in this segment, then in 0 */
	u16 mode;      /* enum mode */
	u8 alg;        /* 1: some rule that is applied to it has an ALG */
	u8 source_ports; /* 1: some rule that is applied to it names source ports */
};

/* Map rules, by bit. */
struct rule {
	u32 id;      /* the manager's */
	u32 counter; /* index into rule_counters */
	u8 action;   /* enum action */
	u8 logged;   /* 1: its sessions and drops are events */
	u8 tracking; /* enum tracking */
	u8 existing; /* enum existing */
	u16 ftp;     /* wire; what goes to this TCP port is FTP, and its ALG listens. 0: none */
	u16 tftp;    /* the same of UDP and TFTP */
	u8 monitored; /* 1: it decides nothing, and is counted where it would have */
	u8 zero[7];
};

struct counters {
	u64 packets;
	u64 bytes;      /* of frames */
	u64 sessions;   /* flows created */
	u64 suppressed; /* events beyond the rate */
};

/* What makes a flow, seen from the workload, so both directions have the same key. */
struct flow_key {
	struct address remote;
	struct address local;
	u16 remote_port; /* wire; ICMP echo: the identifier; 0 where the protocol has no ports */
	u16 local_port;  /* wire; 0 where the protocol has no ports */
	u8 protocol;
	u8 query_in;     /* ICMP echo: 1 when the request comes in. An echo the other way is another flow */
	u16 vlan;        /* VLAN id of a tag that an Ethernet rule allows; 0: none */
};

/* What is listened for in what one side of a flow says (alg.h). */
enum speech {
	SPEECH_NONE,
	SPEECH_FTP_CLIENT,  /* commands: PORT, EPRT */
	SPEECH_FTP_SERVER,  /* replies: 227, 229 */
	SPEECH_TFTP_CLIENT, /* requests to read or write */
	SPEECH_DHCP,        /* of no ALG, in both directions: snoop_dhcp() */
};

#define MID_LINE 0x80 /* what it said last was no end of a line, or nobody knows */

/* What one side of a TCP connection has said (conntrack.h). Sequence numbers, host order. */
struct tcp_side {
	u32 end;    /* behind the last byte it sent */
	u32 limit;  /* how far the other side lets it send */
	u32 acked;  /* its last acknowledgement; before that, the number of the other's SYN */
	u16 window; /* the largest it offered, not scaled; 0: it has not been heard of */
	u8 scale;   /* WINDOW_SCALED | shift, if both sides offered the option; SCALE_UNREAD */
	u8 speech;  /* enum speech, | MID_LINE; not of TCP only */
};

/* Written by the programs, without locks: a lost count is a lost count, everything else is one aligned store. */
struct flow {
	u64 expires;     /* jiffies; from then on the flow does not exist */
	u32 policy_seq;  /* the policy it was allowed under, low 32 bits */
	u32 counter;     /* index into rule_counters */
	u32 rule_id;
	u8 state;        /* enum state */
	u8 initiator;    /* enum direction of its first packet */
	u8 answered;     /* 1: it does not give way to another while it lives. TCP: from ESTABLISHED on */
	u8 existing;     /* enum existing, of the rule that allowed it */
	struct tcp_side side[2]; /* by enum direction; of TCP only */
	u64 packets[2];  /* by enum direction */
	u64 bytes[2];
};

struct place {
	struct flow_key key;
	struct flow flow;
};

/* Map flows, one per vNIC: a flow is in one of two buckets that its flow_hash() names. The checks are what a packet
 * searches; they have a cache line of their own, a place has two. */
struct bucket {
	u64 check[WAYS]; /* flow_hash() | 1; 0: free. Written last, so that half a place is never found */
	struct place place[WAYS];
};

/* Map pinholes, PINHOLES for each slot, direct mapped by flow_hash(): a data connection that a control connection has
 * announced. Two CPUs that use one at the same moment make two flows to one and the same port. */
struct pinhole {
	u64 check;           /* flow_hash() | 1; 0: free. Written last, so that half an entry never matches */
	struct flow_key key; /* of its first packet, but for that one's source port, which is 0 */
	u64 expires;         /* jiffies */
	u32 policy_seq;      /* the control connection was allowed under */
	struct rule rule;    /* that allowed the control connection; without its ALG, and silent */
	u32 zero;
};

/* Map log_tokens: how many more events this rule may make at this device. The numbers of devices and rules are not
 * given to others later, as slots and counters are. */
struct log_key {
	u32 ifindex;
	u32 rule_id;
};

struct log_tokens {
	u64 full;       /* spend() in limit.h */
	u64 suppressed; /* events since the last one that was let by */
};

/* Map fragments, FRAGMENTS for each slot, direct mapped by flow_hash(): a packet whose first fragment has passed. */
struct fragments {
	u64 check;           /* flow_hash() | 1; 0: free. Written last, so that half an entry never matches */
	struct flow_key key; /* for the ports the identification, for query_in the direction; IPv6: no protocol (RFC 8200 4.5) */
	u64 expires;         /* jiffies */
	u32 policy_seq;      /* of the policy that let the first pass */
	u32 counter;         /* index into rule_counters, of the rule that did */
	u32 next;            /* where the next has to begin; FRAGMENTS_POISONED: nowhere */
	u32 count;           /* that have passed */
};

#define FRAGMENTS_POISONED 0xffffffff
#define MAX_FRAGMENTS 64 /* of one packet; with the smallest MTU of IPv6 51 are enough for the largest packet */

/* Ring buffer events: what logged rules did. */
struct event {
	u64 time_ns; /* CLOCK_MONOTONIC */
	struct flow_key key;
	u32 rule_id;
	u32 ifindex;
	u32 slot;
	u32 length;  /* of the frame */
	u8 direction;
	u8 family;
	u8 action;
	u8 reason;   /* REASON_NONE: a session began, or the search went on */
	struct ether ether; /* of an Ethernet rule, whose events have no key */
	u32 suppressed; /* events of this rule and device before this one that the rate did not allow */
	u32 monitored;  /* 1: nothing came of it, the rule is only monitored */
	u32 zero;
};

/* Of an early drop (early.c), map settings. Written by the daemon, whole but not in one store: for one packet a new cost
 * may meet the depth before. */
struct early {
	struct limit limit; /* of one source; cost 0: none */
	u32 rate;           /* packets a second, and */
	u32 burst;          /* packets at once: what `limit` was made of, for the daemon that finds it */
};

/* Of an early drop, map counts. */
enum outcome {
	OUTCOME_PASSED,
	OUTCOME_BLOCKED, /* dropped: its source is on the list */
	OUTCOME_LIMITED, /* dropped: its source is over the rate */
};

/* Map dhcp_requests: the last that the vNIC has sent. */
struct dhcp_request {
	u64 until;  /* CLOCK_MONOTONIC; from then on nothing answers it */
	u32 number; /* wire; xid (RFC 2131), or transaction-id (RFC 8415) in the last three bytes */
	u32 zero;
};

#define SNOOP_BYTES 1024 /* room for a snooped frame; a power of two, and one byte of it stays free */

/* Ring buffer snoops: a frame by which a vNIC claims an address, or is given one. */
struct snoop {
	u32 slot;
	u32 length; /* of what is in `frame`, which may be less than there was */
	u8 direction;
	u8 zero[7];
	u8 frame[SNOOP_BYTES];
};

#endif
