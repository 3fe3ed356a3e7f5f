"""``fieldfleet rollout``: a change of the configuration that goes to devices in waves, and stops itself."""

import json
import time
import tomllib
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.live import Live

from fleet_server.cli import answers
from fleet_server.cli import rollout_answers as tables
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
    Limit,
    Site,
    TokenFile,
    Url,
    console,
    failed,
    server_of,
    show,
)
from fleet_server.cli.server import CommandError, Exit, Json, Server, segment

PATH: Final = "/v1/rollouts"
POLL_S: Final = 1.0

RolloutId: TypeAlias = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Of `fieldfleet rollout list`.")]
Reason: TypeAlias = Annotated[str, typer.Option(help="Why; it is shown to whoever looks at it.")]

app = typer.Typer(no_args_is_help=True, help="Changes that go to devices in waves, and stop themselves.")


@app.command(epilog="Example: fieldfleet rollout create 720p.toml --dry-run")
def create(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A TOML file, as in README.", dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would do, and to whom.")] = False,
    watch_it: Annotated[bool, typer.Option("--watch", help="Stay, and show how it goes on.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Begin a rollout. Exit code 1 of a dry run: it could not begin."""
    try:
        body: Json = tomllib.loads(plan.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise failed(CommandError(Exit.USAGE, f"{plan} cannot be read: {error}")) from error
    with server_of(site, url, token_file) as server:
        document = server.send("POST", PATH + ("?dry_run=true" if dry_run else ""), json=_with_none(body))
        made = answers.read(document, tables.Made)
        if made.dry_run is not None:
            show(document, tables.preview(made.dry_run), as_json=as_json)
            if made.dry_run.faults:
                raise typer.Exit(Exit.PROBLEM)
        elif made.rollout is not None:
            if watch_it:
                _watch(server, made.rollout.rollout, as_json=as_json)
            else:
                show(document, tables.one(made.rollout), as_json=as_json)


@app.command("list", epilog="Example: fieldfleet rollout list --phase paused")
def list_(
    phase: Annotated[str | None, typer.Option(help="Only in this phase, such as running.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List rollouts, the newest first."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(PATH, "rollouts", entries_max=limit, parameters={"phase": phase})
        found = answers.read(document, tables.Rollouts).rollouts
        show(document, tables.listed(found), as_json=as_json, more=more)


@app.command("show", epilog="Example: fieldfleet rollout show 0f0f0f0f0f0f0f0f")
def show_(
    rollout: RolloutId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show how a rollout stands."""
    with server_of(site, url, token_file) as server:
        document = server.get(f"{PATH}/{segment(rollout)}")
        show(document, tables.one(answers.read(document, tables.Rollout)), as_json=as_json)


@app.command(epilog="Example: fieldfleet rollout devices 0f0f0f0f0f0f0f0f --state failed")
def devices(
    rollout: RolloutId,
    state: Annotated[str | None, typer.Option(help="Only in this state, such as waiting.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show how far each device of a rollout has come, and why no further."""
    with server_of(site, url, token_file) as server:
        path = f"{PATH}/{segment(rollout)}/devices"
        document, more = server.list_all(path, "devices", entries_max=limit, parameters={"state": state})
        found = answers.read(document, tables.Devices).devices
        show(document, tables.devices(found), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet rollout watch 0f0f0f0f0f0f0f0f")
def watch(
    rollout: RolloutId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show how a rollout goes on until it has ended, or waits for somebody. Exit code 0: it was completed. With
    --json a document a line, whenever something is different.
    """
    with server_of(site, url, token_file) as server:
        _watch(server, rollout, as_json=as_json)


@app.command(epilog="Example: fieldfleet rollout approve 0f0f0f0f0f0f0f0f")
def approve(rollout: RolloutId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Agree to a rollout that waits for a second person."""
    _act(rollout, "approve", None, site=site, url=url, token_file=token_file)


@app.command(epilog='Example: fieldfleet rollout pause 0f0f0f0f0f0f0f0f --reason "cameras restart"')
def pause(
    rollout: RolloutId, reason: Reason = "", site: Site = None, url: Url = None, token_file: TokenFile = None
) -> None:
    """Give no more turns for now; devices under way go on."""
    _act(rollout, "pause", {"reason": reason}, site=site, url=url, token_file=token_file)


@app.command(epilog="Example: fieldfleet rollout resume 0f0f0f0f0f0f0f0f")
def resume(rollout: RolloutId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Go on; what paused it is taken as seen."""
    _act(rollout, "resume", None, site=site, url=url, token_file=token_file)


@app.command(epilog="Example: fieldfleet rollout cancel 0f0f0f0f0f0f0f0f")
def cancel(
    rollout: RolloutId, reason: Reason = "", site: Site = None, url: Url = None, token_file: TokenFile = None
) -> None:
    """Give no more turns for good; who has the change keeps it, until somebody rolls back."""
    _act(rollout, "cancel", {"reason": reason}, site=site, url=url, token_file=token_file)


@app.command(epilog="Example: fieldfleet rollout rollback 0f0f0f0f0f0f0f0f")
def rollback(
    rollout: RolloutId, reason: Reason = "", site: Site = None, url: Url = None, token_file: TokenFile = None
) -> None:
    """Give who has the change what it had."""
    _act(rollout, "roll-back", {"reason": reason}, site=site, url=url, token_file=token_file)


def _act(rollout: str, act: str, body: Json, *, site: Path | None, url: str | None, token_file: Path | None) -> None:
    with server_of(site, url, token_file) as server:
        document = server.send("POST", f"{PATH}/{segment(rollout)}/{act}", json=body)
        found = answers.read(document, tables.Rollout)
        typer.echo(f"{rollout}: {found.phase.replace('_', ' ')}")


def _watch(server: Server, rollout: str, *, as_json: bool) -> None:
    """Until it has ended or waits for somebody."""
    out, before = console(), None
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while True:
            document = server.get(f"{PATH}/{segment(rollout)}")
            found = answers.read(document, tables.Rollout)
            if document != before:
                before = document
                if as_json:
                    print(json.dumps(document, ensure_ascii=False), flush=True)
                elif out.is_terminal:
                    live.update(tables.one(found), refresh=True)
            if found.phase in {*tables.ENDED, "paused", "waiting_approval"}:
                break
            time.sleep(POLL_S)
    if not as_json:
        out.print(tables.one(found))
    if found.phase != "completed":
        raise typer.Exit(Exit.PROBLEM)


def _with_none(body: Json) -> Json:
    """TOML has no null: an empty table in a patch stands for it."""
    if isinstance(body, dict) and isinstance(body.get("patch"), dict):
        patch = body["patch"]
        assert isinstance(patch, dict)
        return {**body, "patch": {name: None if value == {} else value for name, value in patch.items()}}
    return body
