/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Empty on purpose: bcc includes it for socket filters, which we have none of. */
