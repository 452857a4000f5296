#!/bin/bash
# Fetches a kernel of Debian's for virtual machines, the newest of a version in whatever suite has it, and unpacks it.
# usage: kernel.sh DIRECTORY VERSION      VERSION is 6.12, for example; prints DIRECTORY/RELEASE, with vmlinuz and modules in it
#
# Kernels of the flavour "cloud" have NVMe disks and ext4 built in, so they need no initrd and boot any root.
set -euo pipefail
mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial"
directory=$(realpath "$1")
version=$2

# The archive of the machine that asks, for whoever has a mirror; without -updates, where no kernels are.
archives() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u; }
debian=$(archives | grep -v security | head -n 1)
security=$(archives | grep security | head -n 1)
{
  for suite in bullseye bookworm bookworm-backports trixie trixie-backports sid; do echo "deb $debian $suite main"; done
  for suite in bookworm trixie; do echo "deb $security $suite-security main"; done
} > "$directory/apt/sources.list"

apt() {  # apt get ..., apt cache ...: nothing of the machine's own lists and packages takes part
  "apt-$1" -q -o "Dir::State=$directory/apt" -o "Dir::Cache=$directory/apt" -o Dir::State::status=/dev/null \
    -o "Dir::Etc::sourcelist=$directory/apt/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false "${@:2}"
}

apt get update >&2
release=$(apt cache pkgnames linux-image- | sed -n "s/^linux-image-\(${version//./\\.}[.+-][0-9d].*-cloud-amd64\)$/\1/p" |
  sort -V | tail -n 1)
[ -n "$release" ] || { echo "Debian has no kernel $version for virtual machines" >&2; exit 1; }

kernel=$directory/$release
if [ ! -e "$kernel" ]; then
  work=$(mktemp -d "$directory/unpacked.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  # One package of early versions is four of later ones.
  packages=$(apt cache pkgnames linux- | grep -xF "$(printf "linux-%s-$release\n" image binary base modules)")
  # shellcheck disable=SC2086  # a list of words
  (cd "$work" && apt get download $packages >&2)
  mkdir -p "$work/root/usr/lib" "$work/kernel"
  ln -s usr/lib "$work/root/lib"
  for package in "$work"/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$work/root"; done
  depmod -b "$work/root" "$release"
  find "$work/root" -name "vmlinuz*" -exec mv {} "$work/kernel/vmlinuz" \;
  mv "$work/root/usr/lib/modules" "$work/kernel/modules"
  mv "$work/kernel" "$kernel"
fi
echo "$kernel"
