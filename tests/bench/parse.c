// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the programs of bpf/dfw.c are measured above: nothing at all, and a packet's way to where it is understood.
 * parse_only() does what vnic_in() does up to there, less the look at whose packet it is, and no more.
 */
#include <linux/pkt_cls.h>

#include "types.h"
#include "packet.h"
#include "parse.h"

BPF_PERCPU_ARRAY(draft, struct scratch, 1);

int empty(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

int parse_only(struct __sk_buff *skb)
{
	struct frame frame = {(void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, skb->gso_size};
	u16 *mac = frame.data;
	u32 zero = 0;
	struct scratch *scratch = draft.lookup(&zero);

	if (!scratch || frame.data + ETH_HLEN > frame.end)
		return TC_ACT_SHOT;
	if (parse(&frame, &scratch->packet, &scratch->key, DIRECTION_IN, swap16(mac[6])))
		return TC_ACT_SHOT;
	complete_key(&scratch->key, &scratch->packet, DIRECTION_IN);
	return TC_ACT_OK;
}
