"""``fieldfleet claim``, ``claims``, ``certificates``: who may become a device, and what certificates it had."""

import csv
import io
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from fleet_server.access.states import Reason
from fleet_server.cli import answers, audit_commands, tables
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
    DeviceId,
    Limit,
    Site,
    TokenFile,
    Url,
    failed,
    server_of,
    show,
)
from fleet_server.cli.registry_commands import CSV
from fleet_server.cli.server import CommandError, Exit, Json, segment

PRIVATE: Final = 0o600


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    app.command(epilog="Example: fieldfleet claim car-7")(claim)
    app.command(epilog="Example: fieldfleet claims --import devices.csv --to claims.csv")(claims)
    app.command(epilog="Example: fieldfleet certificates car-7")(certificates)
    audit_commands.app.command("devices", epilog="Example: fieldfleet audit devices")(audit_devices)
    app.command(epilog="Example: fieldfleet revoke car-7 --reason stolen")(revoke)


def claim(
    device: DeviceId,
    minutes: Annotated[int, typer.Option(min=1, max=1_440, help="How long the code is good.")] = 60,
    qr: Annotated[bool, typer.Option(help="Draw it, for a device or an installer with a camera.")] = True,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody become a registered device, once: print the code, and what to run on the device."""
    with server_of(site, url, token_file) as server:
        document = server.send("POST", f"/v1/devices/{segment(device)}/claims", json={"expires_s": 60 * minutes})
        made = answers.read(document, answers.MadeClaim)
        if as_json:
            show(document, tables.plain(""), as_json=True)
            return
        if qr:
            import segno  # noqa: PLC0415 - for this command alone

            segno.make(made.qr, error="m").terminal(compact=True)
        ca_file = f" (server-ca.crt: {site or 'site'}/server/server-ca.crt)" if url is None else ""
        typer.echo(f"{device}: {made.code}, once, until {made.expires_at}")
        typer.echo(f"on the device{ca_file}:\n  {made.command}")


def claims(
    imported: Annotated[
        Path | None, typer.Option("--import", help="A CSV with a column device: make a claim for each.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Where the codes go; a file that is not there yet.")] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    withdraw: Annotated[str | None, typer.Option(metavar="CLAIM", help="Take one back, by its id.")] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    limit: Limit = ENTRIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List claims, take one back, or make one for each device of a CSV."""
    if (imported is None) != (to is None):
        raise failed(CommandError(Exit.USAGE, "expected --import FILE and --to FILE together"))
    with server_of(site, url, token_file) as server:
        if imported is not None and to is not None:
            body = _read(imported)
            _new_file(to)
            made = server.send("POST", "/v1/imports/claims", content=body, headers={"Content-Type": CSV})
            found = answers.read(made, answers.MadeClaims).claims
            to.write_text(_csv(found), encoding="utf-8")
            typer.echo(f"{len(found)} claims in {to}: each a key to the fleet, until {found[0].expires_at}")
            return
        if withdraw is not None:
            server.send("DELETE", f"/v1/claims/{segment(withdraw)}")
            typer.echo(f"claim {withdraw} is withdrawn")
            return
        document, more = server.list_all("/v1/claims", "claims", entries_max=limit, parameters={"device": device})
        show(document, _table(answers.read(document, answers.Claims)), as_json=as_json, more=more)


def certificates(
    device: DeviceId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List every certificate that a device had."""
    with server_of(site, url, token_file) as server:
        document = server.get(f"/v1/devices/{segment(device)}/certificates")
        table = Table("serial", "state", "issued", "until", "reason")
        for each in answers.read(document, answers.Certificates).certificates:
            table.add_row(each.serial, each.state, each.issued_at or "-", each.not_after_at or "-", each.reason or "")
        show(document, table, as_json=as_json)


def revoke(
    device: DeviceId,
    reason: Annotated[Reason, typer.Option(help="Why.")],
    certificate: Annotated[
        list[Path] | None,
        typer.Option(help="One of its certificates that the server may not know of, such as add-device made."),
    ] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Put a device out: revoke its certificates, have the broker refuse them, end its session, and prove it.

    Exit code 1: not every step could be proved; what is wrong is said, and it may be done again.
    """
    with server_of(site, url, token_file) as server:
        path = f"/v1/devices/{segment(device)}/revoke"
        pems: list[Json] = [_read(each).decode("ascii", "replace") for each in certificate or ()]
        document = server.send("POST", path, json={"reason": reason.value, "certificates": pems})
        done = answers.read(document, answers.Revocation)
        table = Table("after s", "step", "done", "detail")
        for step in done.steps:
            table.add_row(f"{step.at_s:.2f}", step.what, "yes" if step.done else "NO", step.detail)
        show(document, table, as_json=as_json)
        if not done.out:
            text = f"{device}: its certificates are revoked, but it is not proved to be out"
            raise CommandError(Exit.PROBLEM, text, hint="do what the table says, and run this again")
        if not as_json:
            typer.echo(f"{device} is out: {done.seconds:.2f} s")


def audit_devices(site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Look at keys, certificates, authorities, connections and the broker's files. Exit code 1: not all is well."""
    with server_of(site, url, token_file) as server:
        document = server.get("/v1/audit/devices")
        found = answers.read(document, answers.Audit)
        table = Table("check", "subject", "what is wrong", "what to do")
        for each in found.findings:
            table.add_row(each.check, each.subject, each.detail, each.todo)
        nothing = tables.plain(f"{len(found.checks)} checks found nothing wrong")
        show(document, table if found.findings else nothing, as_json=as_json)
        if found.findings:
            raise CommandError(Exit.PROBLEM, f"{len(found.findings)} findings")


def _table(found: answers.Claims) -> Table:
    table = Table("claim", "device", "made by", "until", "state")
    for each in found.claims:
        state = "good" if each.good else "used" if each.redeemed_ms is not None else "over"
        table.add_row(each.claim, each.device, each.made_by, each.expires_at or "-", state)
    return table


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be read: {error.strerror}") from error


def _new_file(path: Path) -> None:
    """Before there is anything to lose. Raises CommandError: it is there already, or cannot be made."""
    try:
        path.touch(mode=PRIVATE, exist_ok=False)
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be written: {error.strerror}") from error


def _csv(made: list[answers.MadeClaim]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("device", "code", "qr", "command", "expires_at"))
    writer.writerows((each.device, each.code, each.qr, each.command, each.expires_at) for each in made)
    return text.getvalue()
