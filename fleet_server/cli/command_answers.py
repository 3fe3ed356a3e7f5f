"""What the commands of commands read of the API's answers, and as tables."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli.moments import utc
from fleet_server.cli.tables import _table

_STYLES: Final = {
    "done": "green",
    "failed": "bold red",
    "refused": "bold red",
    "interrupted": "bold red",
    "expired": "yellow",
    "deferred": "yellow",
}


class Command(Struct, frozen=True):
    """See the API's ``Command``."""

    command: str
    name: str
    parameters: dict[str, bool | int | float | str]
    safety: str
    signatures: int
    by: str
    approved_by: str | None
    created_ms: int
    expires_ms: int
    over: bool
    summary: str


class Sent(Struct, frozen=True):
    """See the API's ``SentCommand``."""

    command: Command
    devices: int
    names: list[str]
    unsuitable: list[str]


class Commands(Struct, frozen=True):
    """A list of them."""

    commands: list[Command]


class Target(Struct, frozen=True):
    """See the API's ``CommandTarget``."""

    device: str
    state: str
    reason: str
    waits_for: str
    result: dict[str, bool | int | float | str]
    sent_ms: int | None
    ended_ms: int | None


class Targets(Struct, frozen=True):
    """A list of them."""

    targets: list[Target]


class Order(Struct, frozen=True):
    """See the API's ``OrderText``."""

    device: str
    order: str


class Orders(Struct, frozen=True):
    """A list of them."""

    orders: list[Order]


class Cancelled(Struct, frozen=True):
    """See the API's ``Cancelled``."""

    cancelled: int
    command: Command


class Entry(Struct, frozen=True):
    """See the API's ``CatalogEntry``."""

    name: str
    description: str
    safety: str
    expires_s: int
    parameters: dict[str, dict[str, bool | int | float | str | list[str]]]


class Catalog(Struct, frozen=True):
    """See the API's ``Catalog``."""

    commands: list[Entry]


def commands(found: Iterable[Command]) -> Table:
    """One line a command."""
    table = _table("command", "name", "sent", "expires", "by", "approved by", "what became of it")
    for each in found:
        summary = Text(shown(each.summary), style="" if each.over else "yellow")
        ids = Text(each.command), Text(each.name)
        table.add_row(*ids, utc(each.created_ms), utc(each.expires_ms), each.by, each.approved_by or "", summary)
    return table


def targets(found: Iterable[Target]) -> Table:
    """One line a device."""
    table = _table("device", "state", "why", "found", "sent", "ended")
    for each in found:
        why = f"waits for {each.waits_for}" if each.waits_for else each.reason
        result = ", ".join(f"{name} {value}" for name, value in each.result.items())
        table.add_row(
            Text(each.device),
            Text(each.state, style=_STYLES.get(each.state, "")),
            Text(shown(why)),
            Text(shown(result, 300)),
            "" if each.sent_ms is None else utc(each.sent_ms),
            "" if each.ended_ms is None else utc(each.ended_ms),
        )
    return table


def catalog(found: Iterable[Entry]) -> Table:
    """One line a command of the class."""
    table = _table("command", "safety", "expires", "parameters", "what it does")
    for each in found:
        parameters = ", ".join(
            f"{name}{'' if 'default' in words else '*'}: {words['type']}" for name, words in each.parameters.items()
        )
        table.add_row(Text(each.name), each.safety, f"{each.expires_s} s", Text(parameters), Text(each.description))
    return table
