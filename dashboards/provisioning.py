"""What Grafana reads at its start: where the time series are, and where the dashboards lie."""

from typing import Final

from dashboards.panels import DATASOURCE_UID

DATABASE: Final = "fieldfleet"
"""Of InfluxDB 1 and 3; in InfluxDB 2 a bucket of that name, which it lets InfluxQL call a database."""
TOKEN_FILE: Final = "/run/secrets/influxdb-read-token"  # noqa: S105 - a path
"""Without a line break at its end: it becomes part of a header."""
URL: Final = "http://influxdb:8086"
DASHBOARDS_DIRECTORY: Final = "/var/lib/grafana/dashboards"

DATASOURCES: Final = f"""\
# Rendered by `python -m dashboards render`: change dashboards/provisioning.py, not this.
apiVersion: 1
datasources:
  - name: fieldfleet
    uid: {DATASOURCE_UID}
    type: influxdb
    access: proxy
    url: {URL}
    isDefault: true
    editable: false
    jsonData:
      version: InfluxQL
      dbName: {DATABASE}
      httpMode: POST
      timeInterval: 30s
      httpHeaderName1: Authorization
    secureJsonData:
      httpHeaderValue1: Token $__file{{{TOKEN_FILE}}}
"""

PROVIDERS: Final = f"""\
# Rendered by `python -m dashboards render`: change dashboards/provisioning.py, not this.
apiVersion: 1
providers:
  - name: fieldfleet
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: {DASHBOARDS_DIRECTORY}
"""
