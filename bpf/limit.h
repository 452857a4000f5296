/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How often something may happen: a token bucket in one number, the "virtual scheduling" form of the generic cell rate
 * algorithm (ITU-T I.371). The number says when the bucket will be full again; each token spent moves it on by what a
 * token costs. Pure, no map access.
 *
 * There is no lock: of two CPUs that spend at the same moment one may do so for nothing. So the rate is exact on one CPU
 * and at most that many times exceeded on several.
 */
#ifndef VSFWD_LIMIT_H
#define VSFWD_LIMIT_H

#include "types.h"

#define TICK_BITS 16 /* of a jiffy, behind the point: a token may cost less than a jiffy */

/* `full` is the bucket's number, 0 a full bucket's; `now` in jiffies. */
static __always_inline bool spend(u64 *full, u64 now, const struct limit *limit)
{
	u64 ticks = now << TICK_BITS;
	u64 after = (*full > ticks ? *full : ticks) + limit->cost;

	if (after - ticks > limit->depth) {
		if (after - limit->cost - ticks > limit->depth)
			*full = ticks + limit->depth; /* emptied under a slower limit than the one in force now */
		return false;
	}
	*full = after;
	return true;
}

#endif
