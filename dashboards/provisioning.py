"""What Grafana reads at its start: where the time series are, and where the dashboards lie."""

from collections.abc import Iterable, Mapping
from typing import Final

from dashboards.panels import DATASOURCE_UID
from fleet_server.texts import Language

DATABASE: Final = "fieldfleet"
"""Of InfluxDB 1 and 3; in InfluxDB 2 a bucket of that name, which it lets InfluxQL call a database."""
READER: Final = "grafana"
"""May read :data:`DATABASE` and nothing else. InfluxDB 1 knows users; 2 knows them for InfluxQL alone; 3 takes a
token as the password, whatever the name.
"""
PASSWORD_FILE: Final = "/run/secrets/influxdb-grafana-password"  # noqa: S105 - a path
URL: Final = "http://influxdb:8086"
DASHBOARDS_DIRECTORY: Final = "/etc/fieldfleet/dashboards"

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
    user: {READER}
    jsonData:
      version: InfluxQL
      dbName: {DATABASE}
      httpMode: POST
      timeInterval: 30s
    secureJsonData:
      password: $__file{{{PASSWORD_FILE}}}
"""

FOLDERS: Final[Mapping[Language, str]] = {Language.EN: "Field fleet", Language.ZH_HANS: "外勤设备"}
"""What the folder of a language's dashboards is called there: each in its own, for who does not read the other."""


def providers(languages: Iterable[Language]) -> str:
    """Where the dashboards of each language lie, and in which folder they are shown."""
    return _PROVIDERS + "".join(
        f"""\
  - name: fieldfleet-{language}
    folder: {FOLDERS[language]}
    folderUid: fieldfleet-{language.lower()}
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: {DASHBOARDS_DIRECTORY}/{language}
"""
        for language in languages
    )


_PROVIDERS: Final = """\
# Rendered by `python -m dashboards render`: change dashboards/provisioning.py, not this.
apiVersion: 1
providers:
"""
