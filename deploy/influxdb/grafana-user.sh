#!/bin/bash
# Run once by the image when it has set InfluxDB up: the user that Grafana asks as, who may read the one bucket.
# InfluxDB 2 knows users with passwords for InfluxQL only, which is what the dashboards speak.
set -eu
influx v1 auth create \
  --org "$DOCKER_INFLUXDB_INIT_ORG" \
  --username grafana \
  --password "$(cat /run/secrets/influxdb-grafana-password)" \
  --read-bucket "$DOCKER_INFLUXDB_INIT_BUCKET_ID" \
  --description "dashboards, read only" > /dev/null
