"""``fieldfleet evidence items``: physical items, where they are and who has them."""

from typing import Annotated, TypeAlias

import typer

from fleet_server.cli import answers, evidence_answers
from fleet_server.cli.moments import for_api
from fleet_server.cli.options import ENTRIES_DEFAULT, AsJson, Limit, Site, TokenFile, Url, now_ms, server_of, show
from fleet_server.cli.server import Json, segment

ItemId: TypeAlias = Annotated[str, typer.Argument(metavar="ITEM", help="Such as the bag's number.")]
Note: TypeAlias = Annotated[str, typer.Option(help="Anything else; the log has a hash of it.")]
PATH = "/v1/evidence/items"

items_app = typer.Typer(no_args_is_help=True, help="Physical items, where they are and who has them.")


@items_app.command("list", epilog="Example: fieldfleet evidence items list --state lent")
def list_(
    state: Annotated[str | None, typer.Option(help="Only in this state, such as lent.")] = None,
    case: Annotated[str | None, typer.Option(help="Only of this case.")] = None,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List items by id."""
    with server_of(site, url, token_file) as server:
        parameters = {"state": state, "case": case}
        document, more = server.list_all(PATH, "items", entries_max=limit, parameters=parameters)
        found = answers.read(document, evidence_answers.Items).items
        show(document, evidence_answers.items(found), as_json=as_json, more=more)


@items_app.command("show", epilog="Example: fieldfleet evidence items show bag-117")
def show_(
    item: ItemId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Show where an item is."""
    with server_of(site, url, token_file) as server:
        document = server.get(f"{PATH}/{segment(item)}")
        table = evidence_answers.items([answers.read(document, evidence_answers.Item)])
        show(document, table, as_json=as_json)


@items_app.command(epilog="Example: fieldfleet evidence items history bag-117")
def history(
    item: ItemId,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that happened to an item; each is an entry of the audit log."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all(f"{PATH}/{segment(item)}/events", "events", entries_max=limit)
        found = answers.read(document, evidence_answers.Events).events
        show(document, evidence_answers.events(found), as_json=as_json, more=more)


@items_app.command("take-in", epilog='Example: fieldfleet evidence items take-in bag-117 --node station-7 "a knife"')
def take_in(
    item: ItemId,
    description: Annotated[str, typer.Argument(help="What it is.")],
    node: Annotated[str, typer.Option(help="The organisation node whose store has it.")],
    case: Annotated[str, typer.Option(help="Of which case.")] = "",
    note: Note = "",
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Take an item in."""
    body: Json = {"item": item, "node": node, "description": description, "case": case, "note": note}
    with server_of(site, url, token_file) as server:
        server.send("POST", PATH, json=body)
        typer.echo(f"{item}: taken in")


@items_app.command(epilog='Example: fieldfleet evidence items store bag-117 --place "room 2, shelf 14"')
def store(
    item: ItemId,
    place: Annotated[str, typer.Option(help="Where it is put.")],
    note: Note = "",
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Put an item in its place, or in another one."""
    _do(item, "store", {"place": place, "note": note}, site=site, url=url, token_file=token_file)


@items_app.command(
    epilog="Example: fieldfleet evidence items lend bag-117 --with laboratory --due 2026-03-01T12:00:00Z"
)
def lend(
    item: ItemId,
    with_whom: Annotated[str, typer.Option("--with", help="Who takes it.")],
    due: Annotated[str, typer.Option(help="When it is to be back, RFC 3339.")],
    note: Note = "",
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Lend an item out of the store."""
    body: Json = {"with_whom": with_whom, "due": for_api(due, now_ms=now_ms()), "note": note}
    _do(item, "lend", body, site=site, url=url, token_file=token_file)


@items_app.command("return", epilog="Example: fieldfleet evidence items return bag-117")
def return_(item: ItemId, note: Note = "", site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Say that an item is back; it waits to be put in its place."""
    _do(item, "return", {"note": note}, site=site, url=url, token_file=token_file)


@items_app.command("hand-over", epilog='Example: fieldfleet evidence items hand-over bag-117 --to "the owner"')
def hand_over(
    item: ItemId,
    to: Annotated[str, typer.Option(help="Who gets it.")],
    note: Note = "",
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Hand an item over for good."""
    _do(item, "hand-over", {"with_whom": to, "note": note}, site=site, url=url, token_file=token_file)


def _do(item: str, act: str, body: Json, *, site: Site, url: Url, token_file: TokenFile) -> None:
    with server_of(site, url, token_file) as server:
        document = server.send("POST", f"{PATH}/{segment(item)}/{act}", json=body)
        typer.echo(f"{item}: {answers.read(document, evidence_answers.Item).state.replace('_', ' ')}")
