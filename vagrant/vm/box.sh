#!/bin/bash
# Makes a Vagrant box for libvirt of Debian's packages alone: the public boxes are on a server that not every machine reaches.
# usage: box.sh FILE SUITE KERNEL-PACKAGE PACKAGE...      SUITE is bookworm, for example
#
# What `./run setup` installs, the packages and the venv, is in the box already: emulation would take half an hour for it. Of
# the services none starts until it is asked for.
#
# The box carries what emulation without KVM needs in a Vagrantfile of its own, so the project's needs no change for it. The
# guest's kernel lies beside the disk and is started directly: no partition, no boot loader, no loop device.
set -euo pipefail
file=$1 suite=$2 kernel=$3
shift 3
work=$(mktemp -d "${TMPDIR:-/var/tmp}/vsfw-box.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

# The archives and certificates of the machine that makes the box, for whoever has mirrors or a proxy.
archives() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u; }
debian=$(archives | grep -v security | head -n 1)
security=$(archives | grep security | head -n 1)
sources="deb $debian $suite main
deb $debian $suite-updates main
deb $security $suite-security main"

base="systemd systemd-sysv systemd-resolved dbus libpam-systemd udev kmod netbase initramfs-tools $kernel
      openssh-server sudo rsync curl iproute2 python3 ca-certificates"
# shellcheck disable=SC2086  # lists of words
packages=$(printf '%s,' $base "$@")

# Written into the root before its packages are set up: an initrd for any disk, quickly packed.
cat > "$work/before.sh" <<'SH'
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/local/share/ca-certificates"
printf 'MODULES=most\nCOMPRESS=gzip\n' > "$1/etc/initramfs-tools/conf.d/box"
for certificate in /usr/local/share/ca-certificates/*.crt; do
  [ ! -e "$certificate" ] || cp "$certificate" "$1/usr/local/share/ca-certificates/"
done
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$1/etc/pip.conf"
SH
# What Vagrant expects of a box: the user vagrant with its well-known key (replaced at the first `up`), sudo, DHCP.
cat > "$work/after.sh" <<'SH'
set -eu
chroot "$1" useradd -m -s /bin/bash vagrant
install -d -m 700 "$1/home/vagrant/.ssh"
cp /usr/share/rubygems-integration/all/gems/vagrant-[0-9]*/keys/vagrant.pub "$1/home/vagrant/.ssh/authorized_keys"
chmod 600 "$1/home/vagrant/.ssh/authorized_keys"
chroot "$1" chown -R vagrant:vagrant /home/vagrant/.ssh
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/vagrant"
chmod 440 "$1/etc/sudoers.d/vagrant"
printf 'UseDNS no\nPubkeyAcceptedKeyTypes +ssh-rsa\n' > "$1/etc/ssh/sshd_config.d/vagrant.conf"
echo box > "$1/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 box\n::1 localhost ip6-localhost\n' > "$1/etc/hosts"
echo '/dev/vda / ext4 defaults,noatime 0 1' > "$1/etc/fstab"
printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\n[DHCPv4]\nClientIdentifier=mac\n' > "$1/etc/systemd/network/80-dhcp.network"
chroot "$1" systemctl enable systemd-networkd systemd-resolved
chroot "$1" update-ca-certificates
chroot "$1" systemctl disable rabbitmq-server postgresql
# Where systemd-resolved will say who answers names, the machine that makes the box does until then: for pip.
install -D -m 644 /etc/resolv.conf "$1/run/systemd/resolve/stub-resolv.conf"
mkdir "$1/vagrant"
cp -r pyproject.toml README.md LICENSE vsfwd manager_stub vagrant bpf "$1/vagrant"
chroot "$1" sh -c 'cd /vagrant && python3 -m venv --system-site-packages .venv &&
  .venv/bin/python -m pip install -q --no-cache-dir -e ".[dev]" && sha256sum pyproject.toml | cut -d" " -f1 > .venv/made-from'
SH

printf '%s\n' "$sources" | mmdebstrap --variant=minbase --include="${packages%,}" \
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --essential-hook="sh $work/before.sh \"\$1\"" --customize-hook="sh $work/after.sh \"\$1\"" \
  "$suite" "$work/root" -

mkdir "$work/box"
cp "$work"/root/boot/vmlinuz-* "$work/box/vmlinuz"
cp "$work"/root/boot/initrd.img-* "$work/box/initrd.img"
mke2fs -q -t ext4 -d "$work/root" "$work/disk.raw" 10G
qemu-img convert -f raw -O qcow2 "$work/disk.raw" "$work/box/box.img"
echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 10}' > "$work/box/metadata.json"
cat > "$work/box/Vagrantfile" <<'RUBY'
Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 1200  # emulation is slow
  config.ssh.connect_timeout = 120
  config.vm.provider :libvirt do |machine|
    machine.kernel = File.join(__dir__, "vmlinuz")
    machine.initrd = File.join(__dir__, "initrd.img")
    # QEMU 7.2 emulates cmpxchg16b wrongly: kernels from 6.12 on panic when they use it. And a kernel that waits for a busy
    # machine takes its clock for broken, and then a slow one: 27 us to read it, which a broker does all the time.
    machine.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 clearcpuid=cx16 tsc=reliable"
    machine.driver = "qemu"  # emulation: there is not always a KVM
    machine.cpu_mode = "custom"
    machine.cpu_model = "Westmere"  # numpy's wheel wants an x86-64-v2
    machine.cpu_fallback = "allow"
    machine.graphics_type = "none"
    machine.video_type = "none"
  end
end
RUBY
tar -C "$work/box" -cf "$work/whole.box" metadata.json Vagrantfile vmlinuz initrd.img box.img
mv "$work/whole.box" "$file"
