#!/bin/sh
# The programs, their units and users: from this checkout, whose venv has them. May be run again at any time.
set -eu
cd "$(dirname "$0")/../.."

runuser -u nobody -- test -r run || {
  echo "the services have users of their own, who cannot read $PWD: put the checkout into /opt, for example" >&2
  exit 1
}
./run setup
ln -sf "$PWD"/.venv/bin/vsf* /usr/bin/
install -m 644 vsfwd/systemd/*.service manager_stub/systemd/*.service /etc/systemd/system/
install -d /etc/sysusers.d /etc/tmpfiles.d
install -m 644 vsfwd/systemd/sysusers.conf /etc/sysusers.d/vsfwd.conf
install -m 644 manager_stub/systemd/sysusers.conf /etc/sysusers.d/vsfwd-manager.conf
install -m 644 vsfwd/systemd/tmpfiles.conf /etc/tmpfiles.d/vsfwd.conf
systemd-sysusers
systemctl daemon-reload
vsfwd/systemd/layout.sh
