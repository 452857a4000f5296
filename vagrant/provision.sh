#!/bin/sh
# What turns a bare Debian 12 into a machine that shows the firewall at work. May be run again at any time.
# Run by `vagrant up` as root; without Vagrant: sudo vagrant/provision.sh in a checkout.
set -eu
if [ -d /vagrant ]; then cd /vagrant; else cd "$(dirname "$0")/.."; fi

./run setup
./run demo
cat <<'TEXT'

Now as root, here (after vagrant up: vagrant ssh, sudo -s, cd /vagrant), for example
  ./run lab up --default allow --vm web@host1#tier\|web --vm client@host2
  ./run lab status
  ./run lab exec client -- ping -c3 10.20.0.10
  ./run lab down
TEXT
