"""What the commands of assignments read of the API's answers, and as tables."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli.moments import utc
from fleet_server.cli.tables import _table

_STYLES: Final = {"ok": "green", "not_ok": "bold red", "unknown": "yellow"}


class Assignment(Struct, frozen=True):
    """See the API's ``Assignment``."""

    assignment: str
    device: str
    org: str | None
    officer: str | None
    vehicle: str | None
    shift: str | None
    unit: str | None
    from_ms: int
    to_ms: int | None
    withdrawn: bool
    revision: int
    act: str
    reason: str | None
    unready: list[str]
    by: str
    said_ms: int


class Assignments(Struct, frozen=True):
    """A list of them."""

    assignments: list[Assignment]


class History(Struct, frozen=True):
    """All revisions of one."""

    revisions: list[Assignment]


class Answer(Struct, frozen=True):
    """See the API's ``ReadinessAnswer``."""

    rule: str
    outcome: str
    expected: str
    got: str


class Readiness(Struct, frozen=True):
    """See the API's ``Readiness``."""

    device: str
    ready: bool
    answers: list[Answer]


class CheckedOut(Struct, frozen=True):
    """See the API's ``CheckedOut``."""

    readiness: Readiness
    assignment: Assignment | None


def assignments(found: Iterable[Assignment]) -> Table:
    """One line an assignment."""
    table = _table("device", "officer", "vehicle", "shift", "unit", "from", "to", "by", "assignment")
    for each in found:
        table.add_row(
            Text(each.device),
            *_whom(each),
            Text(utc(each.from_ms)),
            Text(utc(each.to_ms) or "lasts"),
            Text(shown(each.by)),
            Text(each.assignment),
        )
    return table


def history(found: Iterable[Assignment]) -> Table:
    """One line a revision: what was said, when, and by whom."""
    table = _table("revision", "said", "by", "act", "officer", "vehicle", "shift", "unit", "from", "to", "why")
    for each in found:
        unready = f" (not ready: {', '.join(each.unready)})" if each.unready else ""
        table.add_row(
            Text(str(each.revision)),
            Text(utc(each.said_ms)),
            Text(shown(each.by)),
            Text(each.act),
            *_whom(each),
            Text(utc(each.from_ms)),
            Text(utc(each.to_ms) or "lasts"),
            Text(shown(each.reason or "") + unready),
        )
    return table


def readiness(found: Readiness) -> Table:
    """One line a rule."""
    table = _table("rule", "outcome", "expected", "got")
    for each in found.answers:
        style = _STYLES.get(each.outcome, "")
        table.add_row(Text(each.rule), Text(each.outcome, style=style), Text(each.expected), Text(shown(each.got)))
    return table


def _whom(each: Assignment) -> list[Text]:
    return [Text(shown(word or "")) for word in (each.officer, each.vehicle, each.shift, each.unit)]
