#!/bin/sh
# Lays a site out on a Debian machine without containers: users, directories, units, the site itself, nginx. What is
# there is kept; nothing is started. Give --root to lay it out elsewhere, such as for an image.
#
#   sudo deploy/install.sh --host fleet.example [--root DIR] [-- ARGUMENTS OF fleet-server init]
set -eu
umask 022
root= host= program=/opt/fieldfleet/bin
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=$(realpath -m "$2"); shift 2 ;;
    --host) host=$2; shift 2 ;;
    --program) program=$2; shift 2 ;;
    --) shift; break ;;
    *) echo "install: expected --host, --root, --program, got $1" >&2; exit 2 ;;
  esac
done
: "${host:?install: expected --host NAME, at which devices and browsers reach this machine}"
[ "$(id -u)" -eq 0 ] || { echo "install: expected root, which gives each file to its user; got $(id -un)" >&2; exit 1; }
from=$(dirname "$0")
etc=$root/etc/fieldfleet

install -D -m 0644 "$from/systemd/fieldfleet.sysusers" "$root/usr/lib/sysusers.d/fieldfleet.conf"
install -D -m 0644 "$from/systemd/fieldfleet.tmpfiles" "$root/usr/lib/tmpfiles.d/fieldfleet.conf"
for unit in fleet-server.service fleet-signer.service fieldfleet-reload-broker.path fieldfleet-reload-broker.service \
    fieldfleet-backup.service fieldfleet-backup.timer; do
  install -D -m 0644 "$from/systemd/$unit" "$root/etc/systemd/system/$unit"
done
install -D -m 0644 "$from/systemd/mosquitto.service.d/fieldfleet.conf" \
  "$root/etc/systemd/system/mosquitto.service.d/fieldfleet.conf"
systemd-sysusers ${root:+--root="$root"} fieldfleet.conf
systemd-tmpfiles ${root:+--root="$root"} --create fieldfleet.conf

# owned USER DIRECTORY: by number, because DIRECTORY may be another machine's.
owned() {
  ids=$(awk -F: -v user="$1" '$1 == user { print $3 ":" $4 }' "$root/etc/passwd")
  [ -n "$ids" ] || { echo "install: no user $1; install Debian's package of that name first" >&2; exit 1; }
  chown -R "$ids" "$2"
}

# changed FILE OLD NEW: every OLD, and there must be one.
changed() {
  grep -qF -- "$2" "$1" || { echo "install: $1: expected $2 in it" >&2; exit 1; }
  sed -i "s|$2|$3|g" "$1"
}

# As in containers; $etc/revocations is a directory here, and what the server's configuration says of it is changed below.
if [ ! -e "$etc/server/fleet-server.toml" ]; then
  nothing=$(mktemp)
  SITE=$root/var/lib/fieldfleet-site BROKER=$etc/broker SERVER=$etc/server SIGNER=$etc/signer PROXY=$etc/proxy \
    REVOCATIONS=$root/var/lib/fieldfleet-revocations SIGNING=$root/run/fieldfleet-signer \
    CONTAINERS=$nothing FIELDFLEET_HOST=$host PATH=$program:$PATH "$from/init-site.sh" "$@"
  rm -f "$nothing"
  server_uid=$(awk -F: '$1 == "fieldfleet-server" { print $3 }' "$root/etc/passwd")
  for file in "$etc/server/fleet-server.toml" "$etc/signer/fleet-server.toml"; do
    changed "$file" "$root/run/fieldfleet-signer" /run/fieldfleet-signer
    changed "$file" 'state_dir = "state"' 'state_dir = "/var/lib/fieldfleet-server"'
    changed "$file" '"state/evidence"' '"/var/lib/fieldfleet-server/evidence"'
    changed "$file" '"state/signer.counter"' '"/var/lib/fieldfleet-signer/signer.counter"'
    changed "$file" '"../broker/device-ca.crl"' '"/var/lib/fieldfleet-revocations/device-ca.crl"'
  done
  changed "$etc/signer/fleet-server.toml" 'counter_file =' "client_uids = [$server_uid]\ncounter_file ="
fi
owned mosquitto "$etc/broker"
owned fieldfleet-server "$etc/server"
owned fieldfleet-server "$root/var/lib/fieldfleet-revocations"
owned fieldfleet-signer "$etc/signer"

nginx=$root/etc/nginx/conf.d/fieldfleet.conf
if [ ! -e "$nginx" ]; then
  install -D -m 0644 "$from/nginx/fieldfleet.conf" "$nginx"
  changed "$nginx" 'listen 8443 ' 'listen 443 '
  changed "$nginx" 'listen 8080 ' 'listen 80 '
  changed "$nginx" ' /proxy/' ' /etc/fieldfleet/proxy/'
  changed "$nginx" ' grafana:3000;' ' 127.0.0.1:3000;'
  changed "$nginx" ' /dev/stdout ' ' /var/log/nginx/fieldfleet.log '
fi
[ ! -e "$root/etc/nginx/sites-enabled/default" ] ||
  echo "install: remove /etc/nginx/sites-enabled/default, which listens where this does"
echo "next: take /var/lib/fieldfleet-site/made/ca/*-root.key offline; fieldfleet make-backup-key; then"
echo "  systemctl daemon-reload && systemctl restart mosquitto nginx"
echo "  systemctl enable --now fieldfleet-reload-broker.path fleet-signer fleet-server fieldfleet-backup.timer"
