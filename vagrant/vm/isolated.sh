#!/bin/bash
# Runs a command beside a libvirt of its own, where nothing of the machine's is touched and nothing stays.
# usage: isolated.sh DIRECTORY COMMAND...       DIRECTORY holds the disks of libvirt's machines
#
# The command has its own network (its way out is slirp4netns: no route, firewall or ip_forward of the machine takes part), its
# own mounts over everything libvirt writes, and its own processes: when it ends, whatever it started ends too.
set -euo pipefail

inside() {
  mount -t tmpfs tmpfs /run
  mount -t tmpfs tmpfs /etc/libvirt
  mount -t tmpfs tmpfs /var/log/libvirt
  mount -t tmpfs tmpfs /var/cache/libvirt
  mount --bind "$1" /var/lib/libvirt
  shift
  echo 'nameserver 10.0.2.3' > /run/resolv.conf  # slirp4netns answers there
  mount --bind /run/resolv.conf /etc/resolv.conf

  # No polkit, no systemd, no cgroups to give to guests, no AppArmor: libvirt is asked to do without.
  cat > /etc/libvirt/libvirtd.conf <<'CONF'
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
CONF
  cat > /etc/libvirt/qemu.conf <<'CONF'
security_driver = "none"
user = "root"
group = "root"
remember_owner = 0
cgroup_controllers = []
namespaces = []
CONF
  ip link set lo up
  within 10 ip -4 route get 10.0.2.3
  virtlogd -d
  libvirtd -d
  within 20 virsh -q -c qemu:///system net-list --all
  "$@"
}

within() {  # within SECONDS COMMAND...: until it succeeds
  local deadline=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || { echo "not within the time: $*" >&2; return 1; }
    sleep 0.2
  done
}

if [ "$1" = --inside ]; then
  shift
  inside "$@"
  exit
fi

mkdir -p "$1"
unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$@" &
guest=$!
slirp=
trap 'kill -KILL $guest $slirp 2> /dev/null; wait' EXIT  # unshare takes no other, and takes all that is in it along
trap 'exit 130' INT TERM
own_network() { [ "$(readlink /proc/$guest/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
within 5 own_network
slirp4netns --configure --mtu=1500 --disable-host-loopback --netns-type=path "/proc/$guest/ns/net" tap0 > /dev/null 2>&1 &
slirp=$!
wait $guest
