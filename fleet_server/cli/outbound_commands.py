"""``fieldfleet watch`` and ``fieldfleet webhooks``: what happens, and who else is told."""

import time
from collections.abc import Iterable
from typing import Annotated, Final, TypeAlias

import msgspec
import typer

from broker_config.text import shown
from fleet_server.cli import answers, tables
from fleet_server.cli.feed import TRUNCATED, FeedEvent, follow
from fleet_server.cli.options import ENTRIES_DEFAULT, AsJson, Limit, Site, TokenFile, Url, console, server_of, show
from fleet_server.cli.server import CommandError, Exit, Json, Parameters, Server, segment

TEST_WAIT_S: Final = 30.0
TEST_LOOK_S: Final = 0.3

webhooks_app = typer.Typer(no_args_is_help=True, help="Who is told of what happens, over HTTP.")

WebhookId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="Of `fieldfleet webhooks list`.")]
Kinds: TypeAlias = Annotated[
    str | None, typer.Option("--kinds", help="Only these, such as device.disconnected,site.disconnected.")
]
Severity: TypeAlias = Annotated[str | None, typer.Option("--severity", help="At least info, warning or alarm.")]
Org: TypeAlias = Annotated[str | None, typer.Option("--org", help="Only this place or below, such as hq/station-7.")]


def add_commands(app: typer.Typer) -> None:
    """Hang them into *app*."""
    app.command("watch", epilog="Example: fieldfleet watch --severity warning")(watch)
    app.add_typer(webhooks_app, name="webhooks")


def watch(
    kinds: Kinds = None,
    severity: Severity = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    org: Org = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="Begin behind this id; 0: with the oldest that is kept.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Follow what happens, and come back by itself when the server was away. Ends with Ctrl-C."""
    chosen: Parameters = {"kinds": kinds, "severity": severity, "device": device, "org": org}
    with server_of(site, url, token_file) as server:
        told = 0
        try:
            for event in follow(_Connect(server, chosen, after), time.sleep, _say):
                _print(event, as_json=as_json)
                told += event.event != TRUNCATED
                if told == count:
                    return
        except KeyboardInterrupt:
            return


@webhooks_app.command("list", epilog="Example: fieldfleet webhooks list")
def webhooks_list(
    limit: Limit = ENTRIES_DEFAULT,
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List every webhook."""
    with server_of(site, url, token_file) as server:
        document, more = server.list_all("/v1/webhooks", "webhooks", entries_max=limit)
        found = answers.read(document, answers.WebhookList).webhooks
        show(document, tables.webhooks(found), as_json=as_json, more=more)


@webhooks_app.command("add", epilog="Example: fieldfleet webhooks add https://hooks.example.org/x --severity warning")
def webhooks_add(
    target: Annotated[str, typer.Argument(metavar="URL", help="https://, or http:// to this machine.")],
    kinds: Kinds = None,
    severity: Severity = None,
    org: Org = None,
    note: Annotated[str, typer.Option(help="For people.")] = "",
    site: Site = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a webhook, and show the secret that signs what it is sent: once, so keep it."""
    body: dict[str, Json] = {"url": target, "note": note}
    if kinds is not None:
        body["kinds"] = list(kinds.split(","))
    if severity is not None:
        body["severity"] = severity
    if org is not None:
        body["org"] = org
    with server_of(site, url, token_file) as server:
        document = server.send("POST", "/v1/webhooks", json=body)
        assert isinstance(document, dict)
        text = f"{document['id']}\nsecret: {document['secret']}\nIt is not shown again."
        show(document, tables.plain(text), as_json=as_json)


@webhooks_app.command("remove", epilog="Example: fieldfleet webhooks remove w3k9x2m7q4")
def webhooks_remove(webhook: WebhookId, site: Site = None, url: Url = None, token_file: TokenFile = None) -> None:
    """Take a webhook away, with everything that waits for it."""
    with server_of(site, url, token_file) as server:
        server.send("DELETE", f"/v1/webhooks/{segment(webhook)}", headers={"If-Match": "*"})
        typer.echo(f"{webhook} is removed")


@webhooks_app.command("test", epilog="Example: fieldfleet webhooks test w3k9x2m7q4")
def webhooks_test(
    webhook: WebhookId, site: Site = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Send a test, and wait for what the receiver answers. Exit code 1: it was not taken."""
    with server_of(site, url, token_file) as server:
        path = f"/v1/webhooks/{segment(webhook)}"
        sent = answers.read(server.post(f"{path}/test"), answers.Happening)
        delivery = _outcome(server, path, sent.id)
        if delivery is None or delivery.state != "delivered":
            why = "nothing within the time" if delivery is None else f"{delivery.status} {delivery.error}".strip()
            raise CommandError(Exit.PROBLEM, f"{webhook} did not take the test: {shown(why)}")
        document: Json = {"happening": sent.id, "status": delivery.status}
        show(document, tables.plain(f"{webhook} took the test: {delivery.status}"), as_json=as_json)


class _Connect:
    """Opens the feed: the first time where the operator says, then behind what was seen."""

    def __init__(self, server: Server, chosen: Parameters, after: int | None) -> None:
        self._server = server
        self._chosen = chosen
        self._after = after

    def __call__(self, seen: str | None) -> Iterable[str]:
        if seen is None:
            return self._server.lines("/v1/changes", {**self._chosen, "after": self._after}, {})
        return self._server.lines("/v1/changes", self._chosen, {"Last-Event-ID": seen})


def _print(event: FeedEvent, *, as_json: bool) -> None:
    if as_json:
        print(event.data, flush=True)
    elif event.event == TRUNCATED:
        _say("what happened meanwhile is not kept any more")
    else:
        try:
            found = msgspec.json.decode(event.data, type=answers.Happening)
        except msgspec.MsgspecError as error:
            raise CommandError(Exit.UNREACHABLE, f"expected a happening, got {shown(event.data)}") from error
        console().print(tables.happening(found), soft_wrap=True)


def _say(text: str) -> None:
    typer.echo(f"fieldfleet: {text}", err=True)


def _outcome(server: Server, path: str, happening: int) -> answers.Delivery | None:
    """The delivery once it was tried; None if nobody tried it in time."""
    deadline = time.monotonic() + TEST_WAIT_S
    while time.monotonic() < deadline:
        page = server.get(f"{path}/deliveries", {"limit": 100})
        for each in answers.read(page, answers.DeliveryList).deliveries:
            if each.happening == happening and (each.attempts or each.state != "pending"):
                return each
        time.sleep(TEST_LOOK_S)
    return None
