"""``fieldfleet audit``: read the log, export it, verify an export anywhere, and be a witness on another machine."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_server.cli import answers, tables
from fleet_server.cli.moments import for_api
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
    Limit,
    Site,
    TokenFile,
    Url,
    failed,
    now_ms,
    save_new,
    server_of,
    show,
)
from fleet_server.cli.server import CommandError, Exit

LogNumber = Annotated[int | None, typer.Option("--log", min=0, help="A log's number; the newest if not given.")]
Key = Annotated[
    str | None, typer.Option("--key", metavar="PUBLIC", help="The server's audit.pub: the file, or what is in it.")
]

app = typer.Typer(no_args_is_help=True, help="Who did what, and the proof that nobody changed it afterwards.")


@app.command("list", epilog="Example: fieldfleet audit list --action device.register --from -7d")
def list_(
    actor: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as device.register.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to this, such as car-7.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Such as -1h, -7d, or RFC 3339.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The same, or now.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List who did what, the newest first. Reading is recorded too."""
    now = now_ms()
    times = {name: None if at is None else for_api(at, now_ms=now) for name, at in (("from", from_), ("to", to))}
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(
            "/v1/audit",
            "entries",
            entries_max=limit,
            parameters={"actor": actor, "action": action, "subject": subject, **times},
        )
        found = answers.read(document, answers.AuditEntries).entries
        show(document, tables.audit(found), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet audit export audit.ndjson")
def export(
    file: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
    from_index: Annotated[int, typer.Option(min=0, help="From this entry on.")] = 0,
    log: LogNumber = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Write the log to a file that `verify` can check anywhere."""
    with server_of(site, url, token_file) as server:
        size = save_new(server.stream("/v1/audit/export", {"from_index": from_index, "log": log}), file)
    typer.echo(f"{file}: {size} bytes; check it with: fieldfleet audit verify {file} --key audit.pub")


@app.command(epilog="Example: fieldfleet audit verify audit.ndjson --key audit.pub --witness witness.json")
def verify(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    key: Key = None,
    state: Annotated[
        Path | None, typer.Option("--witness", metavar="STATE", help="The file of a witness; see `audit witness`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an export: no server is asked, and no database.

    Without --key anybody could have made the file. Without --witness a log that lost entries at its end looks whole:
    every checkpoint that was ever signed is a good one.

    Exit codes: 0 every claim holds that could be checked, 1 one does not, 2 wrong usage.
    """
    from fleet_server.cli import audit_proofs  # noqa: PLC0415 - signatures need much that other commands do not

    try:
        verdict = audit_proofs.verdict_of(file, key=key, state_file=state)
    except CommandError as error:
        raise failed(error) from error
    show(audit_proofs.document(verdict), audit_proofs.table(verdict), as_json=as_json)
    if not verdict.passed:
        raise typer.Exit(Exit.PROBLEM)


@app.command("witness", epilog="Example: fieldfleet audit witness witness.json --key audit.pub")
def witness_(
    state_file: Annotated[Path, typer.Argument(metavar="STATE", help="What this witness saw; made if not there.")],
    key: Key = None,
    new_log: Annotated[
        bool, typer.Option("--new-log", help="Follow a log that began anew; the operators must have said why.")
    ] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Look at the log once, and sign what is there if it goes on from what was seen before. Run it now and then.

    STATE belongs on another machine, in other hands than the server's; beside it is STATE.key, which stays there.
    Exit code 1: the server shows another history, or is asked for what it cannot prove.
    """
    from fleet_server.cli import audit_proofs  # noqa: PLC0415 - as for verify

    with server_of(site, url, token_file) as server:
        seen = audit_proofs.look_once(server, state_file, key, new_log=new_log)
    typer.echo(f"{seen.origin}: {seen.size} entries seen and signed")
