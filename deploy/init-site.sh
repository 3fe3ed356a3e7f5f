#!/bin/sh
# Makes the site on the first start, and lays out what the broker and the server each need, and no more: the broker
# never sees the master key, neither of them the authorities' keys. What stands in $SITE/made counts; later starts only
# copy it again, and add where the other containers are. Arguments go to `fleet-server init`.
set -eu
umask 077
: "${FIELDFLEET_HOST:?the name or address at which devices reach the broker}"
site=${SITE:-/site}/made
broker=${BROKER:-/broker}
server=${SERVER:-/server}
containers=${CONTAINERS:-/opt/fieldfleet/share/containers.toml}

if [ ! -e "$site/site.toml" ]; then
  # the containers share no file that the server could write and the broker read: no enrolment here yet
  fleet-server init --dir "$site" --host "$FIELDFLEET_HOST" --no-enrolment "$@"
fi
cp -a "$site/broker/." "$broker/"
cp -a "$site/server/." "$server/"
cat "$containers" >> "$server/fleet-server.toml"
