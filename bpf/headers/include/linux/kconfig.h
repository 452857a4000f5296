/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* bcc includes this file before everything else. What a kernel tree would have said about its configuration and its
 * basic types, said in a few lines: see bpf/README.md, "No kernel headers". */
#ifndef VSFWD_KCONFIG_H
#define VSFWD_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef _Bool bool;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;

#define NULL ((void *)0)
#define true 1
#define false 0

/* Without the attribute clang leaves calls that bcc cannot load ("jump out of range"). */
#define __always_inline inline __attribute__((always_inline))

#endif
