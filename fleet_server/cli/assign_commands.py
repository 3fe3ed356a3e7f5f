"""``fieldfleet assign``: who has which device, whether one is fit to be given out, and what was said of it."""

from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from fleet_server.cli import answers, assign_answers, tables
from fleet_server.cli.moments import for_api, parse
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
from fleet_server.cli.server import CommandError, Exit, Json, Parameters, Server, segment

PATH: Final = "/v1/assignments"

app = typer.Typer(no_args_is_help=True, help="Who has which device when, and whether one is fit to be given out.")

Officer: TypeAlias = Annotated[str | None, typer.Option(help="A badge's id, never a name.")]
Vehicle: TypeAlias = Annotated[str | None, typer.Option(help="Such as car-117.")]
Shift: TypeAlias = Annotated[str | None, typer.Option(help="Such as early.")]
Unit: TypeAlias = Annotated[str | None, typer.Option(help="Duty unit, such as unit-4.")]
At: TypeAlias = Annotated[str | None, typer.Option(help="Such as -15m, or RFC 3339; now if not given.")]
AssignmentId: TypeAlias = Annotated[str, typer.Argument(metavar="ASSIGNMENT", help="Of `fieldfleet assign show`.")]


@app.command(epilog="Example: fieldfleet assign out cam-7 --officer 4711 --shift early")
def out(
    device: DeviceId,
    officer: Officer = None,
    vehicle: Vehicle = None,
    shift: Shift = None,
    unit: Unit = None,
    at: At = None,
    override: Annotated[
        str | None, typer.Option(help="Why, although it is not ready; kept with your name.", metavar="REASON")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell whether it would.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a device out, if it is with nobody and is ready."""
    body = {**_whom(officer, vehicle, shift, unit), **_at(at), **({"override": override} if override else {})}
    with server_of(site, url, token_file) as server:
        path = f"/v1/devices/{segment(device)}/check-out?dry_run={str(dry_run).lower()}"
        document = server.send("POST", path, json=body)
        found = answers.read(document, assign_answers.CheckedOut)
        made = found.assignment
        table = assign_answers.readiness(found.readiness) if made is None else assign_answers.assignments([made])
        show(document, table, as_json=as_json)
    if dry_run and not found.readiness.ready:
        raise typer.Exit(Exit.PROBLEM)


@app.command("in", epilog="Example: fieldfleet assign in cam-7")
def in_(
    device: DeviceId,
    at: At = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Take a device back."""
    with server_of(site, url, token_file) as server:
        _told(server.send("POST", f"/v1/devices/{segment(device)}/check-in", json=_at(at)), as_json=as_json)


@app.command(epilog="Example: fieldfleet assign over cam-7 --officer 4712")
def over(
    device: DeviceId,
    officer: Officer = None,
    vehicle: Vehicle = None,
    shift: Shift = None,
    unit: Unit = None,
    at: At = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Hand a device over, from whom it is with to another, with no moment between."""
    body = {**_whom(officer, vehicle, shift, unit), **_at(at)}
    with server_of(site, url, token_file) as server:
        _told(server.send("POST", f"/v1/devices/{segment(device)}/hand-over", json=body), as_json=as_json)


@app.command("show", epilog="Example: fieldfleet assign show --device cam-7 --at 2026-05-03T14:32:00Z")
def show_(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    officer: Annotated[str | None, typer.Option(help="What this one had; the audit log says that you asked.")] = None,
    vehicle: Vehicle = None,
    shift: Shift = None,
    unit: Unit = None,
    node: Annotated[str | None, typer.Option(help="Given out at this node or below.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Such as -7d, or RFC 3339.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The same.")] = None,
    at: Annotated[str | None, typer.Option(help="At this moment, instead of --from and --to.")] = None,
    known_at: Annotated[str | None, typer.Option(help="By what had been said until then.")] = None,
    *,
    lasting: Annotated[bool, typer.Option("--lasting", help="Only what is out now.")] = False,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List who had what; all of it, if no time is given."""
    if at is not None and (from_ is not None or to is not None):
        raise failed(CommandError(Exit.USAGE, "expected --at, or --from and --to"))
    others = {"device": device, "vehicle": vehicle, "shift": shift, "unit": unit, "node": node}
    if officer is not None and (lasting or any(others.values())):
        raise failed(CommandError(Exit.USAGE, "expected --officer alone, with times"))
    times = {**_between(from_, to, at), "known_at": None if known_at is None else for_api(known_at, now_ms=now_ms())}
    wanted: Parameters = {**times, **({} if officer else {**others, "lasting": "true" if lasting else None})}
    path = PATH if officer is None else f"/v1/officers/{segment(officer)}/assignments"
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(path, "assignments", entries_max=limit, parameters=wanted)
        found = answers.read(document, assign_answers.Assignments).assignments
        show(document, assign_answers.assignments(found), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet assign history 0f0f0f0f0f0f0f0f")
def history(
    assignment: AssignmentId,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show all that was said of one assignment, when, and by whom."""
    with server_of(site, url, token_file) as server:
        document = server.get(f"{PATH}/{segment(assignment)}")
        found = answers.read(document, assign_answers.History).revisions
        show(document, assign_answers.history(found), as_json=as_json)


@app.command(epilog='Example: fieldfleet assign correct 0f0f0f0f0f0f0f0f --officer 4712 --reason "typed wrong"')
def correct(
    assignment: AssignmentId,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    officer: Officer = None,
    vehicle: Vehicle = None,
    shift: Shift = None,
    unit: Unit = None,
    begin: Annotated[str | None, typer.Option(help="When it began instead.")] = None,
    end: Annotated[str | None, typer.Option(help="When it ended instead.")] = None,
    *,
    lasting: Annotated[bool, typer.Option("--lasting", help="It has not ended.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="It never was.")] = False,
    revision: Annotated[
        int | None, typer.Option(min=1, help="Only if this is its last one; whatever it is, if not given.")
    ] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Say something else of an assignment. What was said before stays, and is told by --known-at."""
    now = now_ms()
    times = {name: for_api(text, now_ms=now) for name, text in (("begin", begin), ("end", end)) if text is not None}
    body: Json = {
        **_whom(officer, vehicle, shift, unit),
        **times,
        "reason": reason,
        "lasting": lasting,
        "withdraw": withdraw,
    }
    headers = {"If-Match": "*" if revision is None else f'"{revision}"'}
    with server_of(site, url, token_file) as server:
        path = f"{PATH}/{segment(assignment)}/correction"
        _told(server.send("POST", path, json=body, headers=headers), as_json=as_json)


@app.command(epilog="Example: fieldfleet assign ready cam-7")
def ready(
    device: DeviceId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show whether a device is fit to be given out. Exit code 1: it is not; what is not known is no."""
    with server_of(site, url, token_file) as server:
        document = server.get(f"/v1/devices/{segment(device)}/readiness")
        found = answers.read(document, assign_answers.Readiness)
        show(document, assign_answers.readiness(found), as_json=as_json)
    if not found.ready:
        raise typer.Exit(Exit.PROBLEM)


@app.command("import", epilog="Example: fieldfleet assign import shifts.csv --dry-run")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV: device, begin; end, officer, vehicle, shift, unit.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would do.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Enter who had what: all of the file or nothing. What is there exactly so stays as it is."""
    with server_of(site, url, token_file) as server:
        _imported(server, file, dry_run=dry_run, as_json=as_json)


def _imported(server: Server, file: Path, *, dry_run: bool, as_json: bool) -> None:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{file} cannot be read: {error.strerror}") from error
    path = f"/v1/imports/assignments?dry_run={str(dry_run).lower()}"
    document = server.send("POST", path, content=data, headers={"Content-Type": "text/csv"})
    done = answers.read(document, answers.Imported)
    would = "would be " if dry_run else ""
    show(document, tables.plain(f"{done.created} {would}created, {done.unchanged} as they were"), as_json=as_json)


def _told(document: Json, *, as_json: bool) -> None:
    made = answers.read(document, assign_answers.Assignment)
    show(document, assign_answers.assignments([made]), as_json=as_json)


def _whom(officer: str | None, vehicle: str | None, shift: str | None, unit: str | None) -> dict[str, Json]:
    said = {"officer": officer, "vehicle": vehicle, "shift": shift, "unit": unit}
    return {name: value for name, value in said.items() if value is not None}


def _at(at: str | None) -> dict[str, Json]:
    return {} if at is None else {"at": for_api(at, now_ms=now_ms())}


def _between(from_: str | None, to: str | None, at: str | None) -> dict[str, str | None]:
    """As the API takes it; a moment is a range of one ms."""
    now = now_ms()
    if at is None:
        given = (("from", from_), ("to", to))
        return {name: None if text is None else for_api(text, now_ms=now) for name, text in given}
    try:
        at_ms = parse(at, now_ms=now)
    except ValueError as error:
        raise failed(CommandError(Exit.USAGE, f"--at: {error}")) from error
    return {"from": str(at_ms), "to": str(at_ms + 1)}
