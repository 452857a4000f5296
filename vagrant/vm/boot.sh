#!/bin/bash
# Runs tests of this checkout on a kernel and a userland, in a virtual machine that does nothing else: no network, no initrd, no
# init system, and at its end nothing is left but the results. Software emulation, since there is not always a KVM.
# usage: boot.sh KERNEL DISK RESULTS PYTEST-ARG...      KERNEL is from kernel.sh, DISK a box's; RESULTS gets console and junit.xml
set -euo pipefail
kernel=$1 disk=$2 results=$3
shift 3
limit=1200  # seconds
work=$(mktemp -d "${TMPDIR:-/var/tmp}/vsfw-boot.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

# The first disk is the userland, and as it was afterwards. The second brings the kernel's modules and the checkout, and what was
# compiled here: programs for the same userland need not be compiled in emulation. It takes the results, too.
mkdir -p "$work/second/checkout/build"
cp -r "$kernel/modules" "$work/second"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/second/checkout"
[ ! -d build/cache ] || cp -rp build/cache "$work/second/checkout/build"
printf '%s\n' "$@" > "$work/second/arguments"
mke2fs -q -t ext4 -O ^has_journal -d "$work/second" "$work/second.raw" 512M

# cx16 is there for numpy, which wants an x86-64-v2, and not for the kernel: QEMU 7.2 emulates cmpxchg16b wrongly, and kernels from
# 6.12 on, which use it, panic.
boot() {
  timeout $limit nice -n 19 qemu-system-x86_64 -machine q35 -accel tcg,thread=multi,tb-size=512 -cpu max -smp 2 -m 2048 \
    -nodefaults -nic none -display none -serial stdio -no-reboot -kernel "$kernel/vmlinuz" \
    -append "root=/dev/nvme0n1 rw rootwait console=ttyS0 quiet panic=-1 clearcpuid=cx16 init=/bin/bash -- -c \
\"mount -t devtmpfs dev /dev; until mount /dev/nvme1n1 /mnt; do sleep 0.2; done; exec bash /mnt/checkout/vagrant/vm/inside.sh\"" \
    -device virtio-rng-pci \
    -drive "id=first,if=none,file=$disk,format=qcow2,snapshot=on,cache=unsafe" -device nvme,serial=first,drive=first,addr=8 \
    -drive "id=second,if=none,file=$work/second.raw,format=raw,cache=unsafe" -device nvme,serial=second,drive=second,addr=9 \
    < /dev/null 2>&1 | tee "$results/console" || echo "not ended within $limit seconds" >&2
}

# A kernel that panics before the tests begin is booted again. Which of two disks answers first, and is the root, is chance with
# kernels from 6.12 on: one without a shell ends at once. And QEMU 7.2 with a thread for each processor sometimes has one of them
# in the middle of an instruction that another patches ("int3").
rm -rf "$results"
mkdir -p "$results"
for _ in {1..9}; do
  boot
  grep -q 'Kernel panic' "$results/console" && ! grep -q 'test session starts' "$results/console" || break
done
debugfs -R "dump /junit.xml $results/junit.xml" "$work/second.raw" 2> /dev/null
[ -s "$results/junit.xml" ] || { echo "no results; what it said is in $results/console" >&2; exit 1; }
