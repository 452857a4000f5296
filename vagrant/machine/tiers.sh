#!/bin/sh
# The VMs of this host, now and after every boot. May be run again at any time: it makes them anew.
# usage: tiers.sh NAME=ADDRESS...      of all hosts
set -eu
cd "$(dirname "$0")/../.."

echo "HOSTS=$*" > /etc/vsfwd/tiers
sed "s#@CHECKOUT@#$PWD#g" vagrant/machine/vsfw-tiers.service > /etc/systemd/system/vsfw-tiers.service
systemctl daemon-reload
systemctl enable -q vsfw-tiers
systemctl restart vsfw-tiers
