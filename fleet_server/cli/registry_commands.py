"""``fieldfleet devices``, ``fleet``, ``register``, ``unregister`` and ``import``: what the bureau has, and where."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from fleet_server.cli import answers, tables
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
    DeviceId,
    Limit,
    Site,
    TokenFile,
    Url,
    failed,
    now_ms,
    server_of,
    show,
)
from fleet_server.cli.server import CommandError, Exit, Json, segment

CSV: Final = "text/csv"
ETAG_NEW: Final = {"If-None-Match": "*"}


class What(StrEnum):
    """What a file is of."""

    DEVICES = "devices"
    ORG_NODES = "org-nodes"
    DUTY_UNITS = "duty-units"


Node = Annotated[str | None, typer.Option(help="Organisation node, such as station-7.")]
Unit = Annotated[str | None, typer.Option(help="Duty unit, such as unit-4.")]


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    app.command(epilog="Example: fieldfleet devices --node station-7 --not-connected")(devices)
    app.command(epilog="Example: fieldfleet fleet --site site")(fleet)
    app.command(epilog="Example: fieldfleet register car-7 --class in_car_terminal --node station-7")(register)
    app.command(epilog="Example: fieldfleet unregister car-7")(unregister)
    app.command("import", epilog="Example: fieldfleet import devices devices.csv --dry-run")(import_)


def devices(
    device_class: Annotated[str | None, typer.Option("--class", help="Only of this class.")] = None,
    node: Annotated[str | None, typer.Option(help="At this organisation node or below.")] = None,
    unit: Unit = None,
    connected: Annotated[bool | None, typer.Option("--connected/--not-connected", show_default=False)] = None,
    reporting: Annotated[bool | None, typer.Option("--reporting/--not-reporting", show_default=False)] = None,
    healthy: Annotated[bool | None, typer.Option("--healthy/--not-healthy", show_default=False)] = None,
    registered: Annotated[bool | None, typer.Option("--registered/--only-heard-of", show_default=False)] = None,
    text: Annotated[str | None, typer.Option(help="How its id or its serial begins.")] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    limit: Limit = ENTRIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List devices, registered or ever heard of."""
    facts = {"connected": connected, "reporting": reporting, "healthy": healthy, "registered": registered}
    wanted = {"device_class": device_class, "node": node, "unit": unit, "text": text}
    wanted |= {name: None if fact is None else str(fact).lower() for name, fact in facts.items()}
    with server_of(site, url, token_file) as server:
        document, more = server.list_all("/v1/devices", "devices", entries_max=limit, parameters=wanted)
        found = answers.read(document, answers.Devices)
        show(document, tables.devices(found.devices, now_ms=now_ms()), as_json=as_json, more=more)


def fleet(site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Count the fleet by place and class: how much there is, connected, reporting, healthy."""
    with server_of(site, url, token_file) as server:
        document = server.get("/v1/fleet")
        show(document, tables.fleet(answers.read(document, answers.Fleet)), as_json=as_json)


def register(
    device: DeviceId,
    device_class: Annotated[str, typer.Option("--class", help="What kind of equipment it is.")],
    serial: Annotated[str | None, typer.Option(help="What its maker calls it.")] = None,
    node: Node = None,
    unit: Unit = None,
    note: Annotated[str, typer.Option(help="Anything else.")] = "",
    replace: Annotated[
        str | None,
        typer.Option(metavar="ETAG", help="Replace what was said, if its revision is this one; * for any."),
    ] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Register a device, or with --replace say all of it anew."""
    said: Json = {"device_class": device_class, "serial": serial, "node": node, "unit": unit, "note": note}
    headers = ETAG_NEW if replace is None else {"If-Match": _etag(replace)}
    with server_of(site, url, token_file) as server:
        document = server.send("PUT", f"/v1/devices/{segment(device)}/registration", json=said, headers=headers)
        show(document, tables.plain(f"{device} is registered"), as_json=as_json)


def unregister(
    device: DeviceId,
    revision: Annotated[str, typer.Option(metavar="ETAG", help="Only if its revision is this one; * for any.")] = "*",
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Take a registration away; what the device measured stays."""
    with server_of(site, url, token_file) as server:
        server.send("DELETE", f"/v1/devices/{segment(device)}/registration", headers={"If-Match": _etag(revision)})
        typer.echo(f"{device} is not registered any more")


def import_(
    what: Annotated[What, typer.Argument(help="What the file is of.")],
    file: Annotated[Path, typer.Argument(help="CSV with a header; see the API's document for its columns.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would do.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Register devices, or make organisation nodes or duty units, from CSV: all of the file or nothing."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise failed(CommandError(Exit.USAGE, f"{file} cannot be read: {error.strerror}")) from error
    with server_of(site, url, token_file) as server:
        path = f"/v1/imports/{what}?dry_run={str(dry_run).lower()}"
        document = server.send("POST", path, content=data, headers={"Content-Type": CSV})
        done = answers.read(document, answers.Imported)
        would = "would be " if dry_run else ""
        text = f"{done.created} {would}created, {done.changed} {would}changed, {done.unchanged} as they were"
        show(document, tables.plain(text), as_json=as_json)


def _etag(revision: str) -> str:
    return revision if revision == "*" else f'"{revision.strip(chr(34))}"'
