#!/bin/sh
# Makes every secret of compose.yaml, once: what is there is kept. Each file is for the user that its container runs as,
# and nobody else, which is why root must make them. A secret with two readers is two files.
#
#   sudo deploy/make-secrets.sh [DIRECTORY]
set -eu
umask 077
directory=${1:-$(dirname "$0")/secrets}
if [ "$(id -u)" -ne 0 ]; then
  echo "make-secrets: expected root, which gives each file to its reader; got $(id -un)" >&2
  exit 1
fi

# one_secret UID FILE [UID FILE]: 256 random bits in hex, without a line break.
one_secret() {
  if [ -e "$directory/$2" ]; then
    value=$(cat "$directory/$2")
  else
    value=$(od -An -vtx1 -N32 /dev/urandom | tr -d ' \n')
  fi
  while [ $# -gt 0 ]; do
    if [ ! -e "$directory/$2" ]; then
      mkdir -p "$(dirname "$directory/$2")"
      printf %s "$value" > "$directory/$2.new"
      chmod 0400 "$directory/$2.new"
      chown "$1:$1" "$directory/$2.new"
      mv "$directory/$2.new" "$directory/$2"
    fi
    shift 2
  done
}

server=10001 influxdb=1000 grafana=472 postgres=999
one_secret $influxdb influxdb/admin-password
one_secret $influxdb influxdb/admin-token $server fleet-server/influxdb-token
one_secret $influxdb influxdb/grafana-password $grafana grafana/influxdb-grafana-password
one_secret $grafana grafana/admin-password
one_secret $postgres postgres/password $server fleet-server/postgres-password
