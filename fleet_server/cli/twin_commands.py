"""``fieldfleet twin``: what a device is to be, what it says that it is, and what either was at a time."""

from typing import Annotated, Final, TypeAlias

import msgspec
import typer

from fleet_server.cli import answers, twin_answers
from fleet_server.cli.config_tree import Value
from fleet_server.cli.moments import for_api
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

Pairs: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="A text may be in quotes.")
]
MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}

app = typer.Typer(no_args_is_help=True, help="What devices are to be, and what they say that they are.")


@app.command("show", epilog="Example: fieldfleet twin show cam-17 --at 2026-05-03T14:32:00Z")
def show_(
    device: DeviceId,
    at: Annotated[str | None, typer.Option(help="As it was then: -1h, -7d, or RFC 3339.")] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a device's settings: what is desired, where each comes from, and what it reports."""
    with server_of(site, url, token_file) as server:
        parameters = {"at": None if at is None else for_api(at, now_ms=now_ms())}
        document = server.get(f"/v1/twins/{segment(device)}", parameters)
        show(document, twin_answers.twin(answers.read(document, twin_answers.Twin)), as_json=as_json)


@app.command("set", epilog="Example: fieldfleet twin set cam-17 video=720p pre_event_s=60 --unset mute_allowed")
def set_(
    device: DeviceId,
    settings: Pairs = None,
    unset: Annotated[list[str] | None, typer.Option(help="Take this one off the device's own settings.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Set a device's own settings, which win over those of its groups, its place and its class."""
    patch = _patch(settings or [], unset or [])
    with server_of(site, url, token_file) as server:
        path = f"/v1/twins/{segment(device)}"
        seen = answers.read(server.get(path), twin_answers.Twin)
        version = 0 if seen.desired is None else seen.desired.version
        headers = {**MERGE_PATCH, "If-Match": f'"{version}"'}
        document = server.send(
            "PATCH",
            f"{path}?dry_run={str(dry_run).lower()}",
            content=msgspec.json.encode(patch),
            headers=headers,
        )
        found = answers.read(document, twin_answers.TwinChanged)
        table = twin_answers.twin(found.twin) if found.dry_run is None else twin_answers.preview(found.dry_run)
        show(document, table, as_json=as_json)


@app.command(epilog="Example: fieldfleet twin history cam-17 --reported")
def history(
    device: DeviceId,
    reported: Annotated[bool, typer.Option("--reported", help="What it reported, instead.")] = False,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what was desired of a device and by whom, the newest first."""
    key = "reported" if reported else "desired"
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(f"/v1/twins/{segment(device)}/{key}", key, entries_max=limit)
        found = answers.read(document, twin_answers.History)
        table = twin_answers.reported(found.reported) if reported else twin_answers.desired(found.desired)
        show(document, table, as_json=as_json, more=more)


def _patch(settings: list[str], unset: list[str]) -> dict[str, Json]:
    patch: dict[str, Json] = dict.fromkeys(unset)
    for each in settings:
        name, separator, text = each.partition("=")
        if not separator or not name:
            raise failed(CommandError(Exit.USAGE, f"expected NAME=VALUE, got {each[:60]!r}"))
        patch[name] = _value(text)
    if not patch:
        raise failed(CommandError(Exit.USAGE, "expected NAME=VALUE or --unset NAME"))
    return patch


def _value(text: str) -> Value:
    """As JSON if it is a value of it, else the text itself."""
    try:
        return msgspec.json.decode(text, type=bool | int | float | str)
    except msgspec.MsgspecError:
        return text
