"""``fieldfleet evidence``: what is kept, what happened to it, holds, classes, retention, and deletion by two."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console
from rich.progress import DownloadColumn, MofNCompleteColumn

from fleet_server.cli import answers, evidence_answers, export_commands, ledger_commands
from fleet_server.cli import tables as plain_tables
from fleet_server.cli.bars import bar, watched
from fleet_server.cli.item_commands import items_app
from fleet_server.cli.moments import for_api, utc
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    ENTRIES_MAX,
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
from fleet_server.cli.server import CommandError, Exit, Json, Parameters, Server, segment

PieceId: TypeAlias = Annotated[str, typer.Argument(metavar="PIECE", help="Of `fieldfleet evidence list`.")]
Some: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[PIECE]...", help="Of `fieldfleet evidence list`.")
]
Recording: TypeAlias = Annotated[str | None, typer.Option(help="All segments of this recording.")]
HoldName: TypeAlias = Annotated[str, typer.Option("--hold", help="Its name, such as a case's number.")]
Reason: TypeAlias = Annotated[str, typer.Option(help="Why; the log has a hash of it.")]
DeletionId: TypeAlias = Annotated[str, typer.Argument(metavar="DELETION", help="Of `fieldfleet evidence deletions`.")]
ChangeId: TypeAlias = Annotated[
    str, typer.Argument(metavar="CHANGE", help="Of `fieldfleet evidence retention show`.")
]
PATH: Final = "/v1/evidence/pieces"
SCRUBS: Final = "/v1/evidence/scrubs"
SCRUBS_DEFAULT: Final = 30
POLL_S: Final = 0.5
BEGIN_S_MAX: Final = 30.0
"""A scrub that was asked for begins sooner."""

app = typer.Typer(no_args_is_help=True, help="Files that devices made: what is kept, and what happened to it.")
retention_app = typer.Typer(no_args_is_help=True, help="How long each class of evidence is kept.")
app.add_typer(retention_app, name="retention")
app.add_typer(items_app, name="items")
ledger_commands.add_commands(app)
export_commands.add_commands(app)


@app.command("list", epilog="Example: fieldfleet evidence list --device cam-7 --from -7d")
def list_(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    node: Annotated[str | None, typer.Option(help="Only what was at this organisation node or below.")] = None,
    officer: Annotated[str | None, typer.Option(help="Only what this one had the device for.")] = None,
    recording: Annotated[str | None, typer.Option(help="Only of this recording.")] = None,
    evidence_class: Annotated[str | None, typer.Option("--class", help="Only of this class; unclassified.")] = None,
    hold: Annotated[str | None, typer.Option(help="Only what this hold keeps.")] = None,
    state: Annotated[str | None, typer.Option(help="kept or deleted.")] = None,
    damaged: Annotated[bool | None, typer.Option(help="Only what a scrub found something of.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="By the device's clock: -1h, -7d, or RFC 3339.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The same, or now.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List pieces in the order of their arrival."""
    now = now_ms()
    times = {name: None if at is None else for_api(at, now_ms=now) for name, at in (("from", from_), ("to", to))}
    parameters: Parameters = {
        "device": device,
        "node": node,
        "holder": officer,
        "recording": recording,
        "evidence_class": evidence_class,
        "hold": hold,
        "state": state,
        "damaged": None if damaged is None else str(damaged).lower(),
        **times,
    }
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(PATH, "pieces", entries_max=limit, parameters=parameters)
        found = answers.read(document, evidence_answers.Pieces).pieces
        show(document, evidence_answers.pieces(found), as_json=as_json, more=more)


@app.command("show", epilog="Example: fieldfleet evidence show 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f")
def show_(
    piece: PieceId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show one piece; with --json what the device signed too."""
    with server_of(site, url, token_file) as server:
        document = server.get(f"{PATH}/{segment(piece)}")
        table = evidence_answers.piece(answers.read(document, evidence_answers.Piece))
        show(document, table, as_json=as_json)


@app.command(epilog="Example: fieldfleet evidence history 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f")
def history(
    piece: PieceId,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that happened to a piece; each is an entry of the audit log."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(f"{PATH}/{segment(piece)}/events", "events", entries_max=limit)
        found = answers.read(document, evidence_answers.Events).events
        show(document, evidence_answers.events(found), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet evidence get 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f --to segment-1.mp4")
def get(
    piece: PieceId,
    to: Annotated[Path, typer.Option(help="A file that is not there yet.")],
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Get the file as the device made it. That it was looked at is in the log.

    Exit code 1: what came is not what the device signed; no file is left then.
    """
    with server_of(site, url, token_file) as server:
        known = answers.read(server.get(f"{PATH}/{segment(piece)}"), evidence_answers.Piece)
        with bar(DownloadColumn()) as progress:
            task = progress.add_task(piece[: evidence_answers.SHORT_CHARS], total=known.size)
            made = hashlib.sha256()

            def see(part: bytes) -> None:
                made.update(part)
                progress.advance(task, len(part))

            save_new(watched(server.stream(f"{PATH}/{segment(piece)}/original"), see), to)
        if made.hexdigest() != known.sha256:
            to.unlink()
            raise CommandError(
                Exit.PROBLEM,
                f"what came has SHA-256 {made.hexdigest()}, and the device signed {known.sha256}",
                hint="the store's copy is damaged, or the way was: fieldfleet evidence scrub",
            )
    typer.echo(f"{to}: {known.size} bytes, SHA-256 {known.sha256}")


@app.command(epilog="Example: fieldfleet evidence classify --recording r-1 --add traffic_stop")
def classify(
    pieces: Some = None,
    recording: Recording = None,
    add: Annotated[list[str] | None, typer.Option(help="A class; may be given again.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A class; may be given again.")] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Give pieces classes, and take others away. The longest retention wins; without a class it is for ever."""
    body: Json = {"add": [*(add or [])], "remove": [*(remove or [])]}
    with server_of(site, url, token_file) as server:
        _each(server, pieces, recording, "classes", body, "classified")


@app.command(epilog='Example: fieldfleet evidence hold --recording r-1 --hold case-7 --reason "order 12"')
def hold(
    name: HoldName,
    reason: Reason,
    pieces: Some = None,
    recording: Recording = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Keep pieces, whatever their retention is, until the hold is released."""
    with server_of(site, url, token_file) as server:
        _each(server, pieces, recording, "holds", {"hold": name, "reason": reason}, f"held by {name}")


@app.command(
    epilog='Example: fieldfleet evidence release --hold case-7 --reason "closed" 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f'
)
def release(
    name: HoldName,
    reason: Reason,
    pieces: Some = None,
    recording: Recording = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Release a hold on pieces; others of theirs go on."""
    with server_of(site, url, token_file) as server:
        _each(server, pieces, recording, "release", {"hold": name, "reason": reason}, f"not held by {name} any more")


@app.command(epilog="Example: fieldfleet evidence holds --hold case-7")
def holds(
    name: Annotated[str | None, typer.Option("--hold", help="Only this one.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List holds and what they keep, those that were released too."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all("/v1/evidence/holds", "holds", entries_max=limit, parameters={"hold": name})
        found = answers.read(document, evidence_answers.Holds).holds
        show(document, evidence_answers.holds(found), as_json=as_json, more=more)


@app.command(epilog='Example: fieldfleet evidence delete --reason "their wish" 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f')
def delete(
    reason: Reason,
    pieces: Some = None,
    recording: Recording = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Ask for the deletion of pieces. It is done once another person has agreed, and the delay is over."""
    with server_of(site, url, token_file) as server:
        _each(server, pieces, recording, "deletion", {"reason": reason}, "waits for a second person's agreement")


@app.command("erase-notes", epilog="Example: fieldfleet evidence erase-notes 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f")
def erase_notes(piece: PieceId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Erase what people wrote of a piece, its reasons too; the log keeps salted hashes, and that it was done."""
    with server_of(site, url, token_file) as server:
        document = server.post(f"{PATH}/{segment(piece)}/erase-notes")
        typer.echo(f"{piece}: {answers.read(document, evidence_answers.NotesErased).notes} notes erased")


@app.command(epilog="Example: fieldfleet evidence deletions --open")
def deletions(
    only_open: Annotated[bool, typer.Option("--open", help="Only those that may still be done.")] = False,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List what is to be deleted, and what was."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(
            "/v1/evidence/deletions",
            "deletions",
            entries_max=limit,
            parameters={"open": "true" if only_open else None},
        )
        found = answers.read(document, evidence_answers.Deletions).deletions
        show(document, evidence_answers.deletions(found), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet evidence approve 0f0f0f0f0f0f0f0f")
def approve(deletion: DeletionId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Agree to a deletion that somebody else, or the retention, asked for."""
    with server_of(site, url, token_file) as server:
        document = server.post(f"/v1/evidence/deletions/{segment(deletion)}/approve")
        found = answers.read(document, evidence_answers.Deletion)
        typer.echo(f"{found.piece} is deleted after {utc(found.not_before_ms)}, unless it is held then")


@app.command(epilog='Example: fieldfleet evidence withdraw 0f0f0f0f0f0f0f0f --reason "the wrong one"')
def withdraw(
    deletion: DeletionId, reason: Reason, site: Site = None, url: Url = None, token_file: TokenFile = None
) -> None:
    """Take a deletion back, until it is done."""
    with server_of(site, url, token_file) as server:
        path = f"/v1/evidence/deletions/{segment(deletion)}/withdraw"
        found = answers.read(server.send("POST", path, json={"reason": reason}), evidence_answers.Deletion)
        typer.echo(f"{found.piece} is kept")


@app.command(epilog="Example: fieldfleet evidence scrub")
def scrub(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it has ended.")] = True,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Have everything that is kept read again now, and compared with the log; the server does it each night.

    Exit code 1: something is missing, altered, unreadable, unlike the log or unexpected, or it was not finished.
    """
    with server_of(site, url, token_file) as server:
        before = answers.read(server.post(SCRUBS), evidence_answers.Scrubs)
        if not wait:
            typer.echo("it runs; fieldfleet evidence scrubs tells what it found")
            return
        ended = _wait(server, before.scrubs[0].begun_ms if before.scrubs else -1)
        document = server.get(SCRUBS, {"limit": 1})
        show(document, evidence_answers.scrub(ended), as_json=as_json)
        if not ended.sound:
            raise typer.Exit(Exit.PROBLEM)


@app.command(epilog="Example: fieldfleet evidence scrubs")
def scrubs(
    limit: Limit = SCRUBS_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List what was found whenever everything was read again, the newest first."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(SCRUBS, "scrubs", entries_max=limit)
        assert isinstance(document, dict)
        found = answers.read(document["scrubs"], list[evidence_answers.Scrub])
        show(document, evidence_answers.scrubs(found), as_json=as_json, more=more)


@retention_app.command("show", epilog="Example: fieldfleet evidence retention show")
def retention_show(site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show what counts now, and every change that was ever proposed."""
    with server_of(site, url, token_file) as server:
        document = server.get("/v1/evidence/retention")
        table = evidence_answers.retention(answers.read(document, evidence_answers.Retention))
        show(document, table, as_json=as_json)


@retention_app.command(
    "set", epilog='Example: fieldfleet evidence retention set traffic_stop --days 365 --reason "order 12" --propose'
)
def retention_set(
    evidence_class: Annotated[str, typer.Argument(metavar="CLASS", help="Such as traffic_stop.")],
    reason: Reason,
    days: Annotated[int | None, typer.Option(min=1, help="How long, from arrival.")] = None,
    for_ever: Annotated[bool, typer.Option("--for-ever", help="Instead of --days.")] = False,
    propose: Annotated[bool, typer.Option("--propose", help="Not only tell what it would do.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell which pieces a change is about, and from when they might be deleted; with --propose, propose it.

    It counts once another administrator has agreed, and a week is over.
    """
    if (days is None) != for_ever:
        raise failed(CommandError(Exit.USAGE, "expected --days, or --for-ever"))
    body: Json = {"keep_days": days, "reason": reason}
    with server_of(site, url, token_file) as server:
        path = f"/v1/evidence/retention/{segment(evidence_class)}?dry_run={str(not propose).lower()}"
        document = server.send("PUT", path, json=body)
        found = answers.read(document, evidence_answers.Proposal)
        show(document, evidence_answers.proposal(found), as_json=as_json)
        if found.change is not None:
            typer.echo(
                "fieldfleet: it waits for another administrator: "
                f"fieldfleet evidence retention approve {found.change.change}",
                err=True,
            )


@retention_app.command("approve", epilog="Example: fieldfleet evidence retention approve 0f0f0f0f0f0f0f0f")
def retention_approve(change: ChangeId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Agree to a change that another administrator proposed."""
    with server_of(site, url, token_file) as server:
        document = server.post(f"/v1/evidence/retention/changes/{segment(change)}/approve")
        found = answers.read(document, evidence_answers.Change)
        typer.echo(f"{found.evidence_class}: counts from {utc(found.effective_ms)}")


@retention_app.command("withdraw", epilog="Example: fieldfleet evidence retention withdraw 0f0f0f0f0f0f0f0f")
def retention_withdraw(change: ChangeId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Take a change back, until it counts."""
    with server_of(site, url, token_file) as server:
        document = server.post(f"/v1/evidence/retention/changes/{segment(change)}/withdraw")
        typer.echo(f"{answers.read(document, evidence_answers.Change).evidence_class}: withdrawn")


def _each(
    server: Server, pieces: Sequence[str] | None, recording: str | None, what: str, body: Json, told: str
) -> None:
    """Ask the same of each piece, with a bar; the first that is refused ends it. Raises CommandError."""
    names = list(pieces or [])
    if recording is not None:
        document, more = server.list_all(
            PATH, "pieces", entries_max=ENTRIES_MAX, parameters={"recording": recording, "state": "kept"}
        )
        if more:
            raise CommandError(Exit.PROBLEM, f"{recording} has more than {ENTRIES_MAX} pieces")
        names += [each.piece for each in answers.read(document, evidence_answers.Pieces).pieces]
    if not names:
        raise CommandError(Exit.USAGE, "expected a PIECE, or --recording of one that is kept")
    done = 0
    try:
        with bar(MofNCompleteColumn()) as progress:
            task = progress.add_task(what, total=len(names))
            for name in names:
                server.send("POST", f"{PATH}/{segment(name)}/{what}", json=body)
                done += 1
                progress.advance(task)
    finally:
        if done:
            plain = f"{names[0]}: {told}" if done == 1 else f"{done} pieces: {told}"
            Console(highlight=False).print(plain_tables.plain(plain))


def _wait(server: Server, after_ms: int) -> evidence_answers.Scrub:
    """The scrub that began after another one, once it has ended, with a bar. Raises CommandError: none begins."""
    waited_s = 0.0
    with bar(MofNCompleteColumn()) as progress:
        task = progress.add_task("read again", total=None)
        while True:
            state = answers.read(server.get(SCRUBS, {"limit": 1}), evidence_answers.Scrubs)
            if state.running is not None:
                waited_s = 0.0
                progress.update(task, total=state.running.of, completed=state.running.pieces)
            elif state.scrubs and state.scrubs[0].begun_ms > after_ms:
                return state.scrubs[0]
            elif waited_s >= BEGIN_S_MAX:
                hint = "its log says why; does the operators' database answer?"
                raise CommandError(Exit.PROBLEM, "the server does not read again", hint=hint)
            time.sleep(POLL_S)
            waited_s += POLL_S
