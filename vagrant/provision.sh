#!/bin/sh
# What turns a bare Debian 12 or 13 into broker, manager and host under systemd, with the lab's VMs and their three-tier
# policy in force. May be run again at any time. Run by `vagrant up` as root; without Vagrant: in a checkout.
# usage: provision.sh [NAME=ADDRESS...]
#
# All hosts; this machine is the one that has its name, and broker and manager are on the first. Of several, each needs
# the password that the manager's admin shall have, in VSFW_PASSWORD. Without any: this machine, by its first address.
set -eu
cd "$(dirname "$0")/.."
me=$(hostname)
[ $# -gt 0 ] || set -- "$me=$(hostname -I | cut -d' ' -f1)"
manager=${1#*=}

vagrant/machine/software.sh
if [ "${1%%=*}" = "$me" ]; then vagrant/machine/manager.sh "$manager"; else vagrant/machine/settings.sh "$manager"; fi
vagrant/machine/host.sh "$me"
vagrant/machine/tiers.sh "$@"

cat <<TEXT

The manager's API:  https://$manager:8443, user admin; the password is in /root/.config/vsfwctl/manager.toml
A client and web, app and database servers stand behind the firewall. As root, for example:
  vsfwctl hosts                                                # what the manager knows of its hosts
  vsfwctl trace client db --port 5432                          # which rule decides
  ip netns exec vsfw-tiers-vm-client ping -c1 10.20.0.10       # on the first host: the web server answers; .12 does not
TEXT
