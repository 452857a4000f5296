#!/bin/sh
# RabbitMQ and the manager at this machine's ADDRESS, and root's settings for vsfwctl. May be run again at any time.
# usage: manager.sh ADDRESS      VSFW_PASSWORD, if there is one, becomes the admin's
#
# RabbitMQ's node is for this alone: what it had before the first time is removed.
set -eu
address=$1
state=/var/lib/vsfw-manager
settings=/root/.config/vsfwctl/manager.toml

if [ ! -e "$settings" ]; then
  cat > /etc/vsfwd/manager.toml <<END
listen = "$address:8443"
brokers = ["$address:5671"]
broker_apis = ["https://$address:15671"]
END
  if [ ! -e "$state/signing.pub" ]; then  # made last: there is no manager, or half of one
    rm -rf "$state"
    password=$(vsfw-manager init | python3 -c 'import json, sys; print(json.load(sys.stdin)["password"])')
  else  # made before, and the password is nowhere
    systemctl stop vsfwd-manager
    password=$(vsfw-manager reset-password)
  fi
  install -D -m 600 /dev/stdin "$settings" <<END
manager = "https://$address:8443"
ca = "/etc/vsfwd/manager-ca.crt"
user = "admin"
password = "$password"
END
fi
install -m 644 "$state/ca.crt" /etc/vsfwd/manager-ca.crt

install -o rabbitmq -m 600 -t /etc/rabbitmq "$state/ca.crt" "$state/broker.crt" "$state/broker.key"
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
cat > "$wanted" <<END
listeners.tcp = none
listeners.ssl.1 = $address:5671
ssl_options.cacertfile = /etc/rabbitmq/ca.crt
ssl_options.certfile = /etc/rabbitmq/broker.crt
ssl_options.keyfile = /etc/rabbitmq/broker.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
ssl_options.versions.1 = tlsv1.3
auth_mechanisms.1 = EXTERNAL
ssl_cert_login_from = common_name
max_message_size = 16777216
management.ssl.ip = $address
management.ssl.port = 15671
management.ssl.cacertfile = /etc/rabbitmq/ca.crt
management.ssl.certfile = /etc/rabbitmq/broker.crt
management.ssl.keyfile = /etc/rabbitmq/broker.key
management.ssl.versions.1 = tlsv1.3
management.rates_mode = none
default_vhost = vsfw
event_exchange.vhost = vsfw
default_user = admin
default_pass = $(cat "$state/broker-admin")
END
if ! cmp -s "$wanted" /etc/rabbitmq/rabbitmq.conf; then
  systemctl stop rabbitmq-server
  rm -rf /var/lib/rabbitmq/mnesia
  echo '[rabbitmq_auth_mechanism_ssl,rabbitmq_event_exchange,rabbitmq_management].' > /etc/rabbitmq/enabled_plugins
  install -o rabbitmq -m 600 "$wanted" /etc/rabbitmq/rabbitmq.conf
fi
systemctl enable -q rabbitmq-server vsfwd-manager
systemctl start rabbitmq-server vsfwd-manager

deadline=$(($(date +%s) + 300))
until vsfwctl hosts > /dev/null 2>&1; do
  [ "$(date +%s)" -lt $deadline ] || { vsfwctl hosts; exit 1; }
  sleep 1
done

password=$(sed -n 's/^password = "\(.*\)"$/\1/p' "$settings")
wished=${VSFW_PASSWORD:-$password}
if [ "$wished" != "$password" ]; then
  curl -fsS --cacert /etc/vsfwd/manager-ca.crt -K - "https://$address:8443/api/v1/vsfw/own-password" <<END
user = "admin:$password"
json = "{\"old_password\": \"$password\", \"password\": \"$wished\"}"
END
  sed -i "s/^password = .*/password = \"$wished\"/" "$settings"
fi
