"""``fieldfleet config``: settings kept as files, such as in a repository, and the server held to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypeAlias

import typer

from fleet_server.cli import answers, twin_answers
from fleet_server.cli.config_tree import Change, TreeError, Wanted, changes, read_tree
from fleet_server.cli.options import AsJson, Site, TokenFile, Url, console, failed, server_of, show
from fleet_server.cli.server import CommandError, Exit, Json, Server, segment

Tree: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DIR", help="With fleet.toml, classes/, nodes/, groups/, devices/.")
]
LAYERS: Final = "/v1/config/layers"
GROUPS: Final = "/v1/config/groups"
_DRY: Final = "?dry_run=true"

app = typer.Typer(no_args_is_help=True, help="Settings of the fleet, kept as files.")


class _Held(NamedTuple):
    """A file, and what the server has: revisions are 0 where nothing is."""

    wanted: Wanted
    changes: list[Change]
    layer_revision: int
    group_revision: int


@app.command(epilog="Example: fieldfleet config diff settings/")
def diff(
    directory: Tree, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show what the files have otherwise than the server; exits with 1 if there is anything."""
    wanted = _read(directory)
    with server_of(site, url, token_file) as server:
        found = [change for held in _held(server, wanted) for change in held.changes]
        _show(found, as_json=as_json)
    if found:
        raise typer.Exit(Exit.PROBLEM)


@app.command(epilog="Example: fieldfleet config apply settings/ --dry-run")
def apply(
    directory: Tree,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell which devices would change.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Give the server what the files have; what no file names stays as it is."""
    wanted = _read(directory)
    with server_of(site, url, token_file) as server:
        held = [each for each in _held(server, wanted) if each.changes]
        if dry_run:
            _preview(server, held, as_json=as_json)
            return
        for each in held:
            _put(server, each)
            if not as_json:
                typer.echo(f"{each.wanted.path}: {len(each.changes)} changes")
        if as_json:
            _show([change for each in held for change in each.changes], as_json=True)


def _read(directory: Path) -> list[Wanted]:
    try:
        return read_tree(directory)
    except TreeError as error:
        raise failed(CommandError(Exit.USAGE, str(error))) from error


def _held(server: Server, wanted: list[Wanted]) -> Iterator[_Held]:
    for each in wanted:
        group = None
        if each.group is not None:
            group = _group(server, each.name)
        if each.group is not None and group is None:
            yield _Held(each, changes(each, {}, None), 0, 0)
            continue
        layer = answers.read(server.get(f"{LAYERS}/{_path(each)}"), twin_answers.Layer)
        has = None if group is None else (group.priority, frozenset(group.members))
        revision = 0 if group is None else group.revision
        yield _Held(each, changes(each, layer.settings, has), layer.revision, revision)


def _group(server: Server, name: str) -> twin_answers.ConfigGroup | None:
    document = server.find(f"{GROUPS}/{segment(name)}")
    return None if document is None else answers.read(document, twin_answers.ConfigGroup)


def _put(server: Server, held: _Held) -> None:
    if held.wanted.group is not None:
        _send_group(server, held, held.wanted.group, dry_run=False)
    _send_layer(server, held, dry_run=False)


def _preview(server: Server, held: list[_Held], *, as_json: bool) -> None:
    """File by file: what each alone would change."""
    documents: dict[str, Json] = {}
    for each in held:
        wanted = each.wanted
        if wanted.group is not None:
            documents[f"{wanted.path} (members)"] = _send_group(server, each, wanted.group, dry_run=True)
        if wanted.group is None or each.group_revision:  # there is no layer before its group is there
            documents[wanted.path] = _send_layer(server, each, dry_run=True)
    if as_json:
        show(documents, "", as_json=True)
        return
    for path, document in documents.items():
        found = answers.read(document, twin_answers.Changed).dry_run
        assert found is not None
        typer.echo(f"{path}:")
        console().print(twin_answers.preview(found))


def _send_group(server: Server, held: _Held, group: tuple[int, frozenset[str]], *, dry_run: bool) -> Json:
    body: Json = {"priority": group[0], "members": [*sorted(group[1])]}
    path = f"{GROUPS}/{segment(held.wanted.name)}{_DRY if dry_run else ''}"
    return server.send("PUT", path, json=body, headers=_seen(held.group_revision))


def _send_layer(server: Server, held: _Held, *, dry_run: bool) -> Json:
    body: Json = {"settings": {**held.wanted.settings}}
    path = f"{LAYERS}/{_path(held.wanted)}{_DRY if dry_run else ''}"
    return server.send("PUT", path, json=body, headers=_seen(held.layer_revision))


def _seen(revision: int) -> dict[str, str]:
    return {"If-Match": f'"{revision}"'} if revision else {"If-None-Match": "*"}


def _path(wanted: Wanted) -> str:
    kind, separator, name = wanted.path.partition("/")
    return f"{kind}/{segment(name)}" if separator else kind


def _show(found: list[Change], *, as_json: bool) -> None:
    document: Json = {"changes": [dict(each._asdict()) for each in found]}
    show(document, twin_answers.differences(found), as_json=as_json)
