#!/bin/sh
# Makes /etc/vsfwd what it is now of what an earlier version has left: it was vsfwd's own, so whoever had taken the
# daemon over could put another file in the place of what root and the manager believe. Run as root when another
# version is installed, after its tmpfiles.conf; changes nothing where nothing is to be changed.
set -eu
systemd-tmpfiles --create vsfwd.conf  # from here on nobody but root puts anything there
cd /etc/vsfwd
# Whoever owns a link says what root reads, and where root writes, for as long as it is there.
find . -maxdepth 1 -type l -user vsfwd -delete
moved=
if [ -f host.pem ] && grep -qs '^key *= *"/etc/vsfwd/host\.pem"' vsfwd.toml; then
  # Both are there until the configuration names the new one: what is interrupted is begun again.
  for file in host.pem renewing.key; do
    [ ! -f $file ] || ln -f $file host/
  done
  sed -i 's#^\(certificate\|key\) *= *"/etc/vsfwd/host\.pem"#\1 = "/etc/vsfwd/host/host.pem"#' vsfwd.toml
  moved=yes
fi
if grep -qs '^key *= *"/etc/vsfwd/host/host\.pem"' vsfwd.toml; then rm -f host.pem renewing.key; fi
# The rest becomes root's, who alone writes it, and vsfwd reads it as before.
find . -maxdepth 1 -type f -user vsfwd -exec chown root:vsfwd {} + -exec chmod g+r,go-w {} +
if [ "$moved" ] && [ -d /run/systemd/system ]; then
  systemctl try-restart vsfwd vsfwd-control-plane-agent  # which know the old place
fi
