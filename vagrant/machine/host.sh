#!/bin/sh
# This machine becomes a host of the manager that root's vsfwctl speaks with. May be run again at any time.
# usage: host.sh NAME
set -eu

if ! grep -qs '^host_id = ' /etc/vsfwd/vsfwd.toml; then  # which enrolment writes last
  said=$(vsfwctl tokens create --name "$1" --json)
  of() { printf '%s' "$said" | python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }
  manager=$(sed -n 's/^manager = "\(.*\)"$/\1/p' /root/.config/vsfwctl/manager.toml)
  of token | vsfwctl enroll --manager "$manager" --ca-hash "$(of ca_hash)" --token-file -
fi

# Compiling takes seconds, but minutes where a machine is emulated: longer than systemd lets a start take.
systemd-run --quiet --wait --pipe --uid=vsfwd --property=AmbientCapabilities=CAP_BPF \
  --property=CacheDirectory=vsfwd --property=CacheDirectoryMode=0700 vsfwd --compile
systemctl enable --now vsfwd vsfwd-context-agent vsfwd-control-plane-agent
