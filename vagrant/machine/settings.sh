#!/bin/sh
# Root's settings for vsfwctl, on a machine whose manager is another. May be run again at any time.
# usage: settings.sh ADDRESS      of the manager; VSFW_PASSWORD is its admin's
#
# Whoever answers at the address is taken for the manager: the private network is trusted, as the password in every machine is.
set -eu
address=$1

# The manager's machine may be made at the same time, and where machines are emulated that takes its time.
said=$(curl -fsS --insecure --retry 360 --retry-delay 5 --retry-all-errors "https://$address:8443/api/v1/vsfw/ca")
ca=$(printf '%s' "$said" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pem_encoded"])')
printf '%s\n' "$ca" > /etc/vsfwd/manager-ca.crt
install -D -m 600 /dev/stdin /root/.config/vsfwctl/manager.toml <<END
manager = "https://$address:8443"
ca = "/etc/vsfwd/manager-ca.crt"
user = "admin"
password = "$VSFW_PASSWORD"
END
