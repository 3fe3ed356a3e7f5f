"""``fieldfleet whoami`` and ``fieldfleet tokens``: who may ask this server what."""

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

TokenId = Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id.")]

tokens_app = typer.Typer(no_args_is_help=True, help="Tokens of programs and people, and what they are good for.")


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    app.command(epilog="Example: fieldfleet whoami")(whoami)
    app.add_typer(tokens_app, name="tokens")


def whoami(site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Say whose token it is, and what it is good for where."""
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
