#!/bin/sh
# Makes the site on the first start, and lays out what broker, server and signer each need, and no more: the broker
# never sees the master key, the server no signing key, none of them the authorities' keys. What stands in $SITE/made
# counts; later starts only copy it again, and add where the other containers are. Arguments go to `fleet-server init`.
set -eu
umask 077
: "${FIELDFLEET_HOST:?the name or address at which devices reach the broker}"
site=${SITE:-/site}/made
broker=${BROKER:-/broker}
revocations=${REVOCATIONS:-/revocations}
server=${SERVER:-/server}
signer=${SIGNER:-/signer}
signing=${SIGNING:-/signing}
proxy=${PROXY:-/proxy}
containers=${CONTAINERS:-/opt/fieldfleet/share/containers.toml}

# copied FROM TO NAME...: all files of a directory but those of these names.
copied() {
  from=$1 to=$2
  shift 2
  for file in "$from"/*; do
    left_out=
    for name in "$@"; do [ "${file##*/}" != "$name" ] || left_out=yes; done
    [ -n "$left_out" ] || cp -a "$file" "$to/"
  done
}

# changed FILE EXPRESSION WANTED: edits a copy that was laid out, and sees that it now has the line WANTED.
changed() {
  sed -i "$2" "$1"
  grep -qx "$3" "$1" || { echo "init-site: $1: expected the line $3 after $2" >&2; exit 1; }
}

if [ ! -e "$site/site.toml" ]; then
  fleet-server init --dir "$site" --host "$FIELDFLEET_HOST" "$@"
fi
copied "$site/broker" "$broker" device-ca.crl
copied "$site/server" "$server" signing.key
rm -f "$server/signing.key"
cp -a "$site/server/signing.key" "$signer/"

# What browsers see: a certificate of the site's own authority, until somebody puts another there.
if [ ! -e "$proxy/site.crt" ]; then
  [ -e "$site/proxy/site.crt" ] || fleet-server make-proxy-certificate --dir "$site"
  cp -a "$site/proxy/site.key" "$site/proxy/site.crt" "$proxy/"
fi

# The server's socket is in the one volume that it shares with the signer.
changed "$server/fleet-server.toml" "s|^socket_file = .*|socket_file = \"$signing/signer.sock\"|" \
  "socket_file = \"$signing/signer.sock\""
cp -a "$server/fleet-server.toml" "$signer/"

# A site that was made without enrolment has no list of revoked devices, and goes on as it was.
if [ -e "$site/broker/device-ca.crl" ]; then
  # The server writes the list, and never is an older one put in its place; the broker reads it there. What the server
  # audits of the broker are copies, which it could write, so that it cannot write those that count.
  [ -e "$revocations/device-ca.crl" ] || cp -a "$site/broker/device-ca.crl" "$revocations/"
  cp -a "$broker/acl" "$revocations/"
  ln -srf "$revocations/device-ca.crl" "$broker/device-ca.crl"
  # The broker's own directory is read-only to it, and its process is not the server's to signal: reload-broker.sh
  # sees a new list and does.
  changed "$broker/mosquitto.conf" '/^pid_file /d' 'crlfile device-ca.crl'
  cp -a "$broker/mosquitto.conf" "$revocations/"
  changed "$server/fleet-server.toml" 's|^reload_pid_file = .*|reload_command = ["true"]|' 'reload_command = \["true"\]'
fi
cat "$containers" >> "$server/fleet-server.toml"
