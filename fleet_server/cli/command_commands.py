"""``fieldfleet command``: what devices are told to do, and what became of it."""

import json
import time
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console

from fleet_server.cli import answers, command_answers
from fleet_server.cli.options import ENTRIES_DEFAULT, AsJson, Limit, Site, TokenFile, Url, now_ms, server_of, show
from fleet_server.cli.server import CommandError, Exit, Json, Server, segment

PATH: Final = "/v1/commands"
WATCH_S: Final = 0.5
OVERDUE_MS: Final = 120_000
"""After its expiry the server says that a command is over; a clock may differ."""
ENDS_WELL: Final = frozenset({"done"})

app = typer.Typer(no_args_is_help=True, help="Tell devices to do something, and see what became of it.")

CommandId: TypeAlias = Annotated[str, typer.Argument(metavar="COMMAND", help="Of `fieldfleet command list`.")]
Node: TypeAlias = Annotated[str | None, typer.Option(help="All at this organisation node and below.")]
Unit: TypeAlias = Annotated[str | None, typer.Option(help="All of this duty unit.")]
Class: TypeAlias = Annotated[str | None, typer.Option("--class", help="All of this device class.")]
Where: TypeAlias = Annotated[
    str | None, typer.Option(help="A selector, such as 'class==body_camera;connected==true'.")
]


@app.command(
    epilog="Examples: fieldfleet command send cam-7 locate for_s=20 --wait; "
    "fieldfleet command send --node station-7 --class body_camera self.test --wait"
)
def send(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[DEVICE[,DEVICE...]] NAME [PARAMETER=VALUE]...",
            help="The devices, unless an option says which; the command; its parameters.",
        ),
    ],
    node: Node = None,
    unit: Unit = None,
    device_class: Class = None,
    group: Annotated[str | None, typer.Option(help="All of this group.")] = None,
    where: Where = None,
    expires_s: Annotated[int | None, typer.Option(help="Not begun later than this.", min=1)] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell whom it would be sent to.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until each has ended, or nobody waits any more.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a command; what needs a second person waits for `fieldfleet command approve`.

    Exit codes: 0 sent, or with --wait done everywhere; 1 refused, or not done everywhere.
    """
    if group is not None:
        where = f"group=={group}" if where is None else f"group=={group};({where})"
    chosen = {"node": node, "unit": unit, "device_class": device_class, "where": where}
    with server_of(site, url, token_file) as server:
        body = _body(words, {name: value for name, value in chosen.items() if value is not None})
        if expires_s is not None:
            body["expires_s"] = expires_s
        document = server.send("POST", f"{PATH}?dry_run={str(dry_run).lower()}", json=body)
        sent = answers.read(document, command_answers.Sent)
        if sent.unsuitable:
            typer.echo(f"left out, their class has no {sent.command.name}: {', '.join(sent.unsuitable)}", err=True)
        if dry_run:
            if as_json:
                show(document, "", as_json=True)
            else:
                more = "" if len(sent.names) == sent.devices else ", ..."
                typer.echo(f"would go to {sent.devices}: {', '.join(sent.names)}{more}")
            return
        if sent.command.signatures > 1:
            typer.echo(f"next: another person, fieldfleet command approve {sent.command.command}", err=True)
        if wait:
            _wait(server, sent.command.command)
        _show(server, sent.command.command, as_json=as_json)
        if wait and not _well(server, sent.command.command):
            raise typer.Exit(Exit.PROBLEM)


@app.command("show", epilog="Example: fieldfleet command show 0f3a --wait")
def show_(
    command: CommandId,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Until each has ended, or nobody waits any more.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of a command on each device."""
    with server_of(site, url, token_file) as server:
        if wait:
            _wait(server, command)
        _show(server, command, as_json=as_json)


@app.command("list", epilog="Example: fieldfleet command list --device cam-7 --open")
def list_(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    name: Annotated[str | None, typer.Option(help="Only of this name.")] = None,
    *,
    open_: Annotated[bool, typer.Option("--open", help="Only of which something is waited for.")] = False,
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List commands, the newest first."""
    with server_of(site, url, token_file) as server:
        parameters = {"device": device, "name": name, "open": "true" if open_ else None}
        document, more = server.list_all(PATH, "commands", entries_max=limit, parameters=parameters)
        found = answers.read(document, command_answers.Commands).commands
        show(document, command_answers.commands(found), as_json=as_json, more=more)


@app.command(epilog="Example: fieldfleet command cancel 0f3a5c7712ab90de")
def cancel(command: CommandId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Take back what no device has heard of yet."""
    with server_of(site, url, token_file) as server:
        document = server.send("POST", f"{PATH}/{segment(command)}/cancel")
        found = answers.read(document, command_answers.Cancelled)
        typer.echo(f"{found.cancelled} taken back; now: {found.command.summary}")


@app.command(
    epilog="Example: fieldfleet command approve 0f3a5c7712ab90de --key a-meyer.key --signers ca/signers.json"
)
def approve(
    command: CommandId,
    key: Annotated[Path, typer.Option("--key", help="The file of your own key.", dir_okay=False)],
    signers: Annotated[Path, typer.Option("--signers", help="The site's signers.json.", dir_okay=False)],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="Where the passphrase is, for scripts; asked for if not given.", dir_okay=False),
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; you have read it.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until each has ended, or nobody waits any more.")] = False,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Read the orders of a command that another asked for, sign them with your own key, and let them go out.

    The key stays on this machine. Exit codes: 0 approved, 1 refused, or you said no, 2 a file is not right.
    """
    from fleet_server.cli import approving  # noqa: PLC0415 - a library that only signing needs

    with server_of(site, url, token_file) as server:
        document = server.send("POST", f"{PATH}/{segment(command)}/orders")
        orders = answers.read(document, command_answers.Orders).orders
        signed = approving.signed([each.order for each in orders], key, signers, passphrase_file, yes=yes)
        body: Json = {
            "orders": [{"device": each.device, "order": order} for each, order in zip(orders, signed, strict=True)]
        }
        server.send("POST", f"{PATH}/{segment(command)}/approve", json=body)
        if wait:
            _wait(server, command)
        _show(server, command, as_json=False)


@app.command(epilog="Example: fieldfleet command catalog body_camera")
def catalog(
    device_class: Annotated[str, typer.Argument(metavar="CLASS", help="Such as body_camera.")],
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List what devices of a class can be told to do; a parameter with * must be given."""
    with server_of(site, url, token_file) as server:
        document = server.get(f"/v1/device-classes/{segment(device_class)}/commands")
        found = answers.read(document, command_answers.Catalog).commands
        show(document, command_answers.catalog(found), as_json=as_json)


def _body(words: list[str], chosen: dict[str, str]) -> dict[str, Json]:
    """Raises CommandError."""
    rest = list(words)
    body: dict[str, Json] = dict(chosen)
    if not chosen:
        body["devices"] = list(rest.pop(0).split(","))
    if not rest or "=" in rest[0]:
        raise CommandError(Exit.USAGE, "expected the name of a command", hint="fieldfleet command catalog CLASS")
    body["name"] = rest.pop(0)
    parameters: dict[str, Json] = {}
    for word in rest:
        name, equals, value = word.partition("=")
        if not equals:
            raise CommandError(Exit.USAGE, f"expected PARAMETER=VALUE, got {word!r}")
        parameters[name] = _value(value)
    body["parameters"] = parameters
    return body


def _value(text: str) -> Json:
    """true, false and numbers as such, and what is in quotes as a text; everything else is a text anyway."""
    try:
        found: Json = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, bool | int | float | str) else text


def _one(server: Server, command: str) -> command_answers.Command:
    return answers.read(server.get(f"{PATH}/{segment(command)}"), command_answers.Command)


def _wait(server: Server, command: str) -> None:
    """Until it is over, with what became of it so far on a terminal."""
    console = Console(stderr=True)
    with console.status("sent") as status:
        while not (found := _one(server, command)).over:
            if now_ms() > found.expires_ms + OVERDUE_MS:
                raise CommandError(Exit.PROBLEM, f"{command}: the server does not say that it is over")
            status.update(found.summary)
            time.sleep(WATCH_S)


def _well(server: Server, command: str) -> bool:
    document = server.get(f"{PATH}/{segment(command)}")
    assert isinstance(document, dict)
    counts = document["counts"]
    assert isinstance(counts, list)
    return all(isinstance(count, dict) and count["state"] in ENDS_WELL for count in counts)


def _show(server: Server, command: str, *, as_json: bool) -> None:
    document = server.get(f"{PATH}/{segment(command)}")
    path = f"{PATH}/{segment(command)}/targets"
    listed, more = server.list_all(path, "targets", entries_max=ENTRIES_DEFAULT)
    assert isinstance(document, dict)
    assert isinstance(listed, dict)
    found = answers.read(listed, command_answers.Targets).targets
    if not as_json:
        told = answers.read(document, command_answers.Command)
        typer.echo(f"{told.command} {told.name}: {told.summary}")
    show({**document, **listed}, command_answers.targets(found), as_json=as_json, more=more)
