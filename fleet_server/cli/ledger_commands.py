"""``fieldfleet evidence ledger``, ``dispatches``, ``explain``, ``interviews``, ``certify`` and ``certificate``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from fleet_server.cli import answers, evidence_answers, ledger_answers, tables
from fleet_server.cli.audit_commands import Key
from fleet_server.cli.moments import parse
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
    DeviceId,
    Limit,
    Site,
    TokenFile,
    Url,
    between,
    failed,
    now_ms,
    server_of,
    show,
    write_new,
)
from fleet_server.cli.server import CommandError, Exit, Json, Parameters, segment

CALLS: Final = "/v1/evidence/dispatches"
CALLS_A_PAGE: Final = 100

Since = Annotated[str, typer.Option("--from", help="By the devices' clocks: -1d, -7d, or RFC 3339.")]
Until = Annotated[str, typer.Option("--to", help="The same, or now.")]
Node = Annotated[str | None, typer.Option(help="Only at this organisation node or below.")]


class By(StrEnum):
    """What days are counted by."""

    DEVICE = "device"
    NODE = "node"
    UNIT = "unit"


def add_commands(app: typer.Typer) -> None:
    """Mount them beside the other commands of evidence."""
    app.command(epilog="Example: fieldfleet evidence ledger --node station-7 --standing overdue --from -7d")(ledger)
    app.command(epilog="Example: fieldfleet evidence dispatches --outcome unexplained --from -7d")(dispatches)
    app.command("import-dispatches", epilog="Example: fieldfleet evidence import-dispatches calls.csv --dry-run")(
        import_dispatches
    )
    app.command(epilog="Example: fieldfleet evidence explain call-2026-117 --why battery_empty")(explain)
    app.command("erase-call-notes", epilog="Example: fieldfleet evidence erase-call-notes call-2026-117")(
        erase_call_notes
    )
    app.command(epilog="Example: fieldfleet evidence interviews --device room-1 --from -7d")(interviews)
    app.command(epilog="Example: fieldfleet evidence certify room-1 2026-01-01T08:00:00Z --to i-117.json")(certify)
    app.command(epilog="Example: fieldfleet evidence certificate i-117.json --key audit.pub")(certificate)


def ledger(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    node: Node = None,
    unit: Annotated[str | None, typer.Option(help="Only of this duty unit.")] = None,
    standing: Annotated[
        str | None, typer.Option(help="Only these: damaged, overdue, open, uploading, incomplete, verified.")
    ] = None,
    by: Annotated[By | None, typer.Option(help="Count by day and this, instead of a line a recording.")] = None,
    from_: Since = "-1d",
    to: Until = "now",
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Hold what devices say they recorded against what is here, verified."""
    if by is not None and standing is not None:
        raise failed(CommandError(Exit.USAGE, "expected --by or --standing, not both"))
    wanted: Parameters = {"device": device, "node": node, "unit": unit, **between(from_, to)}
    with server_of(site, url, token_file) as server:
        if by is None:
            wanted = {**wanted, "standing": standing}
            document, more = server.list_all("/v1/evidence/ledger", "rows", entries_max=limit, parameters=wanted)
            table = ledger_answers.rows(answers.read(document, ledger_answers.Rows).rows)
        else:
            document, more = server.list_all("/v1/evidence/ledger-days", "days", entries_max=limit, parameters=wanted)
            table = ledger_answers.days(answers.read(document, ledger_answers.Days).days, by)
        show(document, table, as_json=as_json, more=more)


def dispatches(
    node: Node = None,
    officer: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only these: recorded, pending, unexplained, explained.")
    ] = None,
    rates: Annotated[bool, typer.Option("--rates", help="Count by day and node, instead of a line a call.")] = False,
    from_: Since = "-1d",
    to: Until = "now",
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List calls, the recordings that answer them, and those that none does."""
    if rates and (officer is not None or outcome is not None):
        raise failed(CommandError(Exit.USAGE, "expected --rates alone, or --officer and --outcome"))
    wanted: Parameters = {"node": node, **between(from_, to)}
    with server_of(site, url, token_file) as server:
        if rates:
            document, more = server.list_all(
                "/v1/evidence/dispatch-rates",
                "rates",
                entries_max=limit,
                page_entries_max=CALLS_A_PAGE,
                parameters=wanted,
            )
            table = ledger_answers.rates(answers.read(document, ledger_answers.Rates).rates)
        else:
            document, more = server.list_all(
                CALLS,
                "dispatches",
                entries_max=limit,
                page_entries_max=CALLS_A_PAGE,
                parameters={**wanted, "holder": officer, "outcome": outcome},
            )
            table = ledger_answers.dispatches(answers.read(document, ledger_answers.Dispatches).dispatches)
        show(document, table, as_json=as_json, more=more)


def import_dispatches(
    file: Annotated[Path, typer.Argument(help="CSV: dispatch, node, begin; end, holder, device, unit, kind.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would do.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Enter calls of the control room: all of the file or nothing. Give the same file again once they have ended."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise failed(CommandError(Exit.USAGE, f"{file} cannot be read: {error.strerror}")) from error
    with server_of(site, url, token_file) as server:
        path = f"/v1/imports/dispatches?dry_run={str(dry_run).lower()}"
        document = server.send("POST", path, content=data, headers={"Content-Type": "text/csv"})
        done = answers.read(document, answers.Imported)
        would = "would be " if dry_run else ""
        text = f"{done.created} {would}created, {done.changed} {would}changed, {done.unchanged} as they were"
        show(document, tables.plain(text), as_json=as_json)


def explain(
    dispatch: Annotated[str, typer.Argument(metavar="DISPATCH", help="Of `fieldfleet evidence dispatches`.")],
    why: Annotated[
        str,
        typer.Option(
            help="nobody_met, cancelled, not_required, no_camera, camera_faulty, battery_empty, recorded_by_another,"
            " forgotten, privacy or recording_lost."
        ),
    ],
    note: Annotated[str, typer.Option(help="Anything else; the log has a hash of it.")] = "",
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Say why a call has no recording. It is said once, and in the audit log."""
    body: Json = {"why": why, "note": note}
    with server_of(site, url, token_file) as server:
        document = server.send("POST", f"{CALLS}/{segment(dispatch)}/explanation", json=body)
        found = answers.read(document, ledger_answers.Dispatch)
        typer.echo(f"{found.dispatch}: {found.why}")


def erase_call_notes(
    dispatch: Annotated[str, typer.Argument(metavar="DISPATCH", help="Of `fieldfleet evidence dispatches`.")],
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Erase what was written beside a call's explanation; its reason stays, and the log has a salted hash."""
    with server_of(site, url, token_file) as server:
        document = server.post(f"{CALLS}/{segment(dispatch)}/erase-notes")
        typer.echo(f"{dispatch}: {answers.read(document, evidence_answers.NotesErased).notes} notes erased")


def interviews(
    device: Annotated[str | None, typer.Option(help="Only of this room.")] = None,
    node: Node = None,
    from_: Since = "-1d",
    to: Until = "now",
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List interviews, how far each was recorded, and each gap with its reason."""
    wanted: Parameters = {"device": device, "node": node, **between(from_, to)}
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(
            "/v1/evidence/interviews", "interviews", entries_max=limit, parameters=wanted
        )
        found = answers.read(document, ledger_answers.Interviews).interviews
        show(document, ledger_answers.interviews(found), as_json=as_json, more=more)


def certify(
    device: DeviceId,
    begin: Annotated[str, typer.Argument(help="When it began, as `interviews --json` says: ms, or RFC 3339.")],
    to: Annotated[Path, typer.Option(help="A file that is not there yet.")],
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Get the certificate of an interview, signed by the audit log's key: what was recorded, and each gap."""
    try:
        at_ms = parse(begin, now_ms=now_ms())
    except ValueError as error:
        raise failed(CommandError(Exit.USAGE, f"BEGIN: {error}")) from error
    with server_of(site, url, token_file) as server:
        document = server.post(f"/v1/evidence/interviews/{segment(device)}/{at_ms}/certificate")
        write_new(to, msgspec.json.encode(document))
    typer.echo(f"{to}: check it anywhere with: fieldfleet evidence certificate {to} --key audit.pub")


def certificate(
    file: Annotated[Path, typer.Argument(help="What `certify` wrote.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Check a certificate and show it: no server is asked. That the pieces are what it names, an export shows.

    Exit codes: 0 it is signed by the key and says one thing, 1 it does not, 2 wrong usage.
    """
    from fleet_server.cli import audit_proofs  # noqa: PLC0415 - signatures need much that other commands do not
    from fleet_server.evidence.certificate import CertificateError, verified  # noqa: PLC0415 - as above

    if key is None:
        raise failed(CommandError(Exit.USAGE, "expected --key: without it anybody could have made the file"))
    try:
        document, text = verified(file.read_bytes(), audit_proofs.public_key(key))
    except OSError as error:
        raise failed(CommandError(Exit.USAGE, f"{file} cannot be read: {error.strerror}")) from error
    except CommandError as error:
        raise failed(error) from error
    except CertificateError as error:
        raise failed(CommandError(Exit.PROBLEM, f"{file}: {error}")) from error
    show(msgspec.to_builtins(document), tables.plain(text), as_json=as_json)
