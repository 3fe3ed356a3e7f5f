"""Every file that Grafana is given, by its path below ``dashboards/grafana/``."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import alerts
from dashboards.body_cameras import body_cameras
from dashboards.command_centre import command_centre
from dashboards.device import device
from dashboards.edition import BROWSER, Board, Edition
from dashboards.evidence import evidence
from dashboards.fleet import fleet
from dashboards.fleet_server import fleet_server
from dashboards.in_car_terminals import in_car_terminals
from dashboards.interrogation_rooms import interrogation_rooms
from dashboards.provisioning import DATASOURCES, providers
from dashboards.station import station
from dashboards.traffic_signals import traffic_signals
from fleet_server.texts import Language, Texts

BOARDS: Final[Mapping[Board, Callable[[Edition], Dashboard]]] = {
    Board.COMMAND_CENTRE: command_centre,
    Board.FLEET: fleet,
    Board.STATION: station,
    Board.BODY_CAMERAS: body_cameras,
    Board.IN_CAR_TERMINALS: in_car_terminals,
    Board.TRAFFIC_SIGNALS: traffic_signals,
    Board.INTERROGATION_ROOMS: interrogation_rooms,
    Board.EVIDENCE: evidence,
    Board.DEVICE: device,
    Board.FLEET_SERVER: fleet_server,
}


class Telling(NamedTuple):
    """Of alerts: where their runbooks are, empty: in the documentation; and whom they are mailed to."""

    runbooks: str = ""
    mail: str = alerts.MAIL


def files(
    languages: Iterable[Language] = tuple(Language),
    timezone: str = BROWSER,
    pages: str = "",
    told: Telling = Telling(),  # noqa: B008 - frozen
) -> Mapping[str, str]:
    """Path -> text; the same for the same code. A directory of dashboards for each language; *pages*: see
    :class:`Edition`.
    """
    out = {"provisioning/datasources/fieldfleet.yaml": DATASOURCES}
    out["provisioning/dashboards/fieldfleet.yaml"] = providers(languages)
    out["provisioning/alerting/rules.yaml"] = alerts.rules(told.runbooks)
    out["provisioning/alerting/contact-points.yaml"] = alerts.contact_points(told.mail)
    out["provisioning/alerting/policies.yaml"] = alerts.policies()
    for language in languages:
        edition = Edition(Texts(language), timezone, pages)
        for board, made in BOARDS.items():
            out[f"dashboards/{language}/{board}.json"] = _json(made(edition))
    return out


def _json(dashboard: Dashboard) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
