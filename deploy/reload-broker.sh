#!/bin/sh
# Has the broker read the list of revoked devices again whenever the server has written another. It runs in the
# broker's process namespace, where number 1 is the init that hands a SIGHUP on to the broker, and has neither a key
# nor a network. The server proves by a connection that the list counts, and says so if it does not.
set -u
list=${LIST:-/revocations/device-ca.crl}
broker=${BROKER_PID:-1}
read_by_broker=
while true; do
  written=$(sha256sum < "$list") || written=$read_by_broker
  if [ "$written" != "$read_by_broker" ] && kill -HUP "$broker"; then
    read_by_broker=$written
  fi
  sleep 0.5
done
