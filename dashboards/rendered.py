"""Every file that Grafana is given, by its path below ``dashboards/grafana/``."""

import json
from collections.abc import Mapping

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.fleet import fleet
from dashboards.provisioning import DATASOURCES, PROVIDERS


def files() -> Mapping[str, str]:
    """Path -> text; the same for the same code."""
    return {
        "provisioning/datasources/fieldfleet.yaml": DATASOURCES,
        "provisioning/dashboards/fieldfleet.yaml": PROVIDERS,
        "dashboards/fleet.json": _json(fleet()),
    }


def _json(dashboard: Dashboard) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
