"""``fieldfleet alerts``: what is wrong now."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from msgspec import Struct
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli import answers
from fleet_server.cli.moments import utc
from fleet_server.cli.options import ENTRIES_DEFAULT, AsJson, Limit, Site, TokenFile, Url, server_of, show
from fleet_server.texts import Language

PATH: Final = "/v1/alerts"
TEXT_SHOWN_MAX: Final = 300
STYLES: Final = {"alarm": "bold red", "warning": "yellow"}


class Alert(Struct, frozen=True):
    """See the API's ``OpenAlert``."""

    rule: str
    severity: str
    since_ms: int
    org: str | None
    texts: dict[str, str]
    runbook: str


class Alerts(Struct, frozen=True):
    """A list of them."""

    alerts: list[Alert]


def add_commands(app: typer.Typer) -> None:
    """Hang it into *app*."""
    app.command("alerts", epilog="Example: fieldfleet alerts --node hq/station-7 --severity alarm")(alerts)


def alerts(
    node: Annotated[str | None, typer.Option(help="Only of this place or below, such as hq/station-7.")] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    severity: Annotated[str | None, typer.Option(help="At least warning or alarm.")] = None,
    language: Annotated[Language, typer.Option(help="Of what is said.")] = Language.EN,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List what is wrong now, alarms first; each with the page that says what to do."""
    with server_of(site, url, token_file) as server:
        chosen = {"org": node, "device": device, "severity": severity}
        document, more = server.list_all(PATH, "alerts", entries_max=limit, parameters=chosen)
        found = answers.read(document, Alerts).alerts
        show(document, listed(found, language), as_json=as_json, more=more)


def listed(found: Sequence[Alert], language: Language) -> Table:
    """One line an alert."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("since", "severity", "place", "what", "runbook"):
        table.add_column(name, overflow="fold")
    for each in found:
        table.add_row(
            Text(utc(each.since_ms)),
            Text(each.severity, style=STYLES.get(each.severity, "")),
            Text(shown(each.org or "-")),
            Text(shown(each.texts.get(language.value, each.rule), TEXT_SHOWN_MAX)),
            Text(each.runbook),
        )
    return table
