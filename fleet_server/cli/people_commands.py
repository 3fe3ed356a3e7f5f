"""``fieldfleet whoami``, ``fieldfleet tokens`` and ``fieldfleet people``: who may ask this server what."""

from pathlib import Path
from typing import Annotated, Final

import typer

from fleet_server.access.roles import Role
from fleet_server.cli import answers, tables
from fleet_server.cli.options import (
    ENTRIES_DEFAULT,
    AsJson,
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

EVERYWHERE: Final = "everywhere"

PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id, of `fieldfleet people list`.")]
TokenId = Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id.")]

tokens_app = typer.Typer(no_args_is_help=True, help="Tokens of programs and people, and what they are good for.")
people_app = typer.Typer(no_args_is_help=True, help="People who sign in, and what they were granted.")


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    app.command(epilog="Example: fieldfleet whoami")(whoami)
    app.add_typer(tokens_app, name="tokens")
    app.add_typer(people_app, name="people")


def whoami(site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Say whose token or session it is, and what it is good for where."""
    with server_of(site, url, token_file) as server:
        document = server.get("/v1/me")
        show(document, tables.me(answers.read(document, answers.Me)), as_json=as_json)


@tokens_app.command("list", epilog="Example: fieldfleet tokens list")
def tokens_list(
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    limit: Limit = ENTRIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List every token that was ever made; never their secrets."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all("/v1/tokens", "tokens", entries_max=limit)
        found = answers.read(document, answers.Tokens)
        show(document, tables.tokens(found.tokens, now_ms=now_ms()), as_json=as_json, more=more)


@tokens_app.command("make", epilog="Example: fieldfleet tokens make grafana --grant viewer@station-7 --days 90")
def tokens_make(
    token: TokenId,
    grant: Annotated[
        list[str],
        typer.Option(help=f"ROLE@NODE, or ROLE@{EVERYWHERE}; may be given again. Roles: {', '.join(Role)}."),
    ],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="How long it is good; for ever if not given.")] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a token. Its secret is printed, and can never be again."""
    body: Json = {"token": token, "name": name or token, "grants": [_grant(each) for each in grant], "days": days}
    with server_of(site, url, token_file) as server:
        document = server.send("POST", "/v1/tokens", json=body)
        made = answers.read(document, answers.TokenMade)
        show(document, tables.plain(made.secret), as_json=as_json)
        if made.pending:
            typer.echo(
                f"fieldfleet: good once another administrator agrees: fieldfleet tokens approve {token}", err=True
            )


@tokens_app.command("approve", epilog="Example: fieldfleet tokens approve second-administrator")
def tokens_approve(token: TokenId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Agree to a token that another administrator made."""
    with server_of(site, url, token_file) as server:
        server.send("POST", f"/v1/tokens/{segment(token)}/approve")
        typer.echo(f"{token} is good now")


@tokens_app.command("revoke", epilog="Example: fieldfleet tokens revoke grafana")
def tokens_revoke(token: TokenId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Revoke a token at once."""
    with server_of(site, url, token_file) as server:
        server.send("POST", f"/v1/tokens/{segment(token)}/revoke")
        typer.echo(f"{token} is good for nothing now")


@people_app.command("list", epilog="Example: fieldfleet people list")
def people_list(
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    limit: Limit = ENTRIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List everybody who ever signed in, and what they were granted."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all("/v1/people", "people", entries_max=limit)
        found = answers.read(document, answers.People)
        show(document, tables.people(found.people, now_ms=now_ms()), as_json=as_json, more=more)


@people_app.command("grant", epilog="Example: fieldfleet people grant a-meyer --grant equipment_manager@station-7")
def people_grant(
    person: PersonId,
    grant: Annotated[
        list[str] | None,
        typer.Option(help=f"ROLE@NODE, or ROLE@{EVERYWHERE}; may be given again. Roles: {', '.join(Role)}."),
    ] = None,
    nothing: Annotated[bool, typer.Option("--nothing", help="Take away all that was granted by hand.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Grant this by hand, in the place of all that was granted by hand before. What came by a group stays."""
    if bool(grant) == nothing:
        raise failed(CommandError(Exit.USAGE, "expected --grant ROLE@NODE, or --nothing to take all away"))
    body: Json = {"grants": [_grant(each) for each in grant or []]}
    with server_of(site, url, token_file) as server:
        path = f"/v1/people/{segment(person)}/grants"
        document = server.send("PUT", path, json=body, headers={"If-Match": "*"})
        _show_person(document, as_json=as_json)
        if answers.read(document, answers.Person).proposed is not None:
            typer.echo(
                f"fieldfleet: granted once another administrator agrees: fieldfleet people approve {person}", err=True
            )


@people_app.command("approve", epilog="Example: fieldfleet people approve a-meyer")
def people_approve(
    person: PersonId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Agree to what another administrator proposed to grant."""
    _do(person, "approve", site, url, token_file, as_json=as_json)


@people_app.command("disable", epilog="Example: fieldfleet people disable a-meyer")
def people_disable(
    person: PersonId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Sign somebody out everywhere, and keep them out."""
    _do(person, "disable", site, url, token_file, as_json=as_json)


@people_app.command("enable", epilog="Example: fieldfleet people enable a-meyer")
def people_enable(
    person: PersonId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Let somebody sign in again, with the grants that they have."""
    _do(person, "enable", site, url, token_file, as_json=as_json)


def _do(
    person: str, what: str, site: Path | None, url: str | None, token_file: Path | None, *, as_json: bool
) -> None:
    with server_of(site, url, token_file) as server:
        _show_person(server.send("POST", f"/v1/people/{segment(person)}/{what}"), as_json=as_json)


def _show_person(document: Json, *, as_json: bool) -> None:
    show(document, tables.people([answers.read(document, answers.Person)], now_ms=now_ms()), as_json=as_json)


def _grant(text: str) -> Json:
    role, at, node = text.partition("@")
    if not at or not node or role not in set(Role):
        raise failed(
            CommandError(
                Exit.USAGE,
                f"--grant: expected ROLE@NODE or ROLE@{EVERYWHERE}, got {text!r}",
                hint=f"roles: {', '.join(Role)}",
            )
        )
    return {"role": role, "node": None if node == EVERYWHERE else node}
