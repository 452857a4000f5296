/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The unit of ring buffer sizes (BPF_RINGBUF_OUTPUT). */
#define PAGE_SIZE 4096
