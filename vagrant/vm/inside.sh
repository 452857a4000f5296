#!/bin/bash
# The only process of a virtual machine of boot.sh: what an init system would have mounted, then the tests, then power off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount --bind /mnt/modules /lib/modules
ip link set lo up

cp -rp /mnt/checkout/. /vagrant
cd /vagrant || exit
mapfile -t arguments < /mnt/arguments
.venv/bin/python -m pytest --color no -p no:cacheprovider -o timeout=600 --maxfail 20 --junitxml /mnt/junit.xml \
  "${arguments[@]}"
sync
poweroff -ff
