"""Answers as tables. Every text is shown as it is: markup and control characters of the other side do nothing."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli.answers import (
    AuditEntry,
    Device,
    Event,
    Fleet,
    FleetClass,
    FleetRow,
    Gap,
    Grant,
    Happening,
    Latest,
    Me,
    Person,
    Quarantined,
    Series,
    Token,
    Webhook,
)
from fleet_server.cli.moments import ago, utc

SPARK: Final = "▁▂▃▄▅▆▇█"
SPARK_CHARS_MAX: Final = 60
ROWS_SHOWN_MAX: Final = 50
SIGNIFICANT_DIGITS: Final = 6
TEXT_SHOWN_MAX: Final = 300
_SEVERE: Final = {"alarm": "bold red", "warning": "yellow"}
_ALARMING: Final = frozenset({"lost", "unexplained"})


def devices(found: Sequence[Device], *, now_ms: int) -> Table:
    """One line a device."""
    table = _table(
        "device",
        "class",
        "org",
        "unit",
        "connected",
        "reporting",
        "healthy",
        "last record",
        "streams",
        "stored",
        "missing",
        "quarantined",
    )
    for device in found:
        streams = device.streams
        table.add_row(
            Text(device.device),
            Text(shown(device.device_class)),
            Text(shown(device.org or "")),
            Text(shown(device.unit or "")),
            _yes(device.connected),
            _yes(device.reporting),
            _yes(device.healthy),
            Text(ago(device.last_record_ms, now_ms=now_ms)),
            _count(len({stream.stream for stream in streams})),
            _count(sum(stream.held for stream in streams)),
            _count(sum(stream.missing for stream in streams), alarming=True),
            _count(sum(stream.quarantined for stream in streams), alarming=True),
        )
    return table


def fleet(found: Fleet) -> Group:
    """The tree with counts, then the classes."""
    places = _table("place", "devices", "connected", "reporting", "healthy")
    for row in found.places:
        depth = (row.org or "").count("/")
        places.add_row(Text(f"{'  ' * depth}{shown(row.name)}"), *_counts(row))
    places.add_row(Text("all", style="bold"), *_counts(found))
    classes = _table("class", "devices", "connected", "reporting", "healthy")
    for each in found.classes:
        classes.add_row(Text(shown(each.device_class) or "not known"), *_counts(each))
    return Group(places, Text(""), classes)


def _counts(row: Fleet | FleetRow | FleetClass) -> list[Text]:
    well = [
        Text(str(n), style="bold yellow" if n < row.devices else "")
        for n in (row.connected, row.reporting, row.healthy)
    ]
    return [Text(str(row.devices)), *well]


def tokens(found: Sequence[Token], *, now_ms: int) -> Table:
    """One line a token."""
    table = _table("token", "name", "grants", "made by", "state", "last used", "until")
    for token in found:
        grants = ", ".join(_granted(grant) for grant in token.grants)
        table.add_row(
            Text(token.token),
            Text(shown(token.name)),
            Text(shown(grants)),
            Text(shown(token.made_by)),
            _state_of(token, now_ms),
            Text(ago(token.used_ms, now_ms=now_ms)),
            Text(utc(token.expires_ms)),
        )
    return table


def _state_of(token: Token, now_ms: int) -> Text:
    if token.revoked_ms is not None:
        return Text("revoked")
    if token.expires_ms is not None and token.expires_ms <= now_ms:
        return Text("over")
    return Text("waits for a second person", style="bold yellow") if token.pending else Text("good", style="green")


def people(found: Sequence[Person], *, now_ms: int) -> Table:
    """One line a person; what came by a group says so."""
    table = _table("person", "name", "email", "grants", "state", "signed in")
    for person in found:
        grants = [f"{_granted(grant)}{' (group)' if grant.by == 'group' else ''}" for grant in person.grants]
        table.add_row(
            Text(person.person),
            Text(shown(person.name)),
            Text(shown(person.email)),
            Text(shown(", ".join(grants), TEXT_SHOWN_MAX)),
            _state_of_person(person),
            Text(ago(person.last_ms, now_ms=now_ms)),
        )
    return table


def _state_of_person(person: Person) -> Text:
    if person.disabled_ms is not None:
        return Text("disabled")
    if person.proposed is not None:
        proposed = ", ".join(_granted(grant) for grant in person.proposed)
        said = f"waits for a second person: {proposed}, proposed by {person.proposed_by}"
        return Text(shown(said, TEXT_SHOWN_MAX), style="bold yellow")
    return Text("good", style="green") if person.grants else Text("may nothing yet", style="bold yellow")


def _granted(grant: Grant) -> str:
    return f"{grant.role}@{grant.node or 'everywhere'}"


def me(found: Me) -> Group:
    """Whose token or session, and where it is good for what."""
    table = _table("permission", "where")
    for permission, paths in found.permissions.items():
        table.add_row(Text(shown(permission)), Text(", ".join(shown(path) or "everywhere" for path in paths)))
    who = found.token if found.person is None else f"person:{found.person}"
    return Group(Text(f"{shown(who)}  {shown(found.name)}"), table)


def device(found: Device, latest: Sequence[Latest], *, now_ms: int) -> Group:
    """One device: its streams, and the newest readings of each."""
    head = Text(
        f"{found.device}  class {shown(found.device_class) or 'not known'}  agent {shown(found.agent) or 'not known'}"
        f"  {'connected' if found.connected else 'not connected'}  status {ago(found.last_status_ms, now_ms=now_ms)}"
    )
    for fault in found.why:
        head.append(f"\n  {shown(fault)}", style="bold yellow")
    newest = {row.stream: row for row in latest}
    table = _table("stream", "life", "stored", "last", "missing", "quarantined", "gone", "newest", "values")
    for stream in found.streams:
        row = newest.get(stream.stream)
        table.add_row(
            Text(shown(stream.stream)),
            Text(stream.life[:8]),
            _count(stream.held),
            _count(stream.last),
            _count(stream.missing, alarming=True),
            _count(stream.quarantined, alarming=True),
            _count(stream.gone, alarming=True),
            Text(ago(row.time_ms, now_ms=now_ms) if row else ""),
            readings(row.values) if row else Text(""),
        )
    return Group(head, table)


def series(found: Series) -> Group:
    """A spark line for each field, and the last rows."""
    parts: list[RenderableType] = []
    sparks = Table.grid(padding=(0, 2))
    for name, column in found.columns.items():
        held = [value for value in column if value is not None]
        span = f"{number(min(held))} to {number(max(held))}" if held else "nothing"
        sparks.add_row(Text(shown(name)), Text(sparkline(column)), Text(span))
    times_ms = found.times_ms[-ROWS_SHOWN_MAX:]
    table = _table("time", *found.columns)
    for place, time_ms in enumerate(times_ms, start=len(found.times_ms) - len(times_ms)):
        table.add_row(Text(utc(time_ms)), *(Text(number(column[place])) for column in found.columns.values()))
    parts += [sparks, table]
    means = f", means of {found.bucket_ms / 1000:g} s" if found.bucket_ms else ""
    parts.append(Text(f"{found.rows_total} readings from {utc(found.from_ms)} to {utc(found.to_ms)}{means}"))
    if len(times_ms) < len(found.times_ms):
        parts.append(Text(f"the last {len(times_ms)} rows; all of them: --json, or fewer: --points N"))
    return Group(*parts)


def gaps(found: Sequence[Gap]) -> Table:
    """One line a gap."""
    table = _table("device", "stream", "reason", "numbers", "from", "to", "detail")
    for gap in found:
        numbers = "" if gap.first_seq is None else f"{gap.first_seq} to {gap.last_seq}"
        table.add_row(
            Text(gap.device),
            Text(shown(gap.stream)),
            Text(gap.reason, style="bold red" if gap.reason in _ALARMING else ""),
            Text(numbers),
            Text(utc(gap.from_ms)),
            Text("still" if gap.open else utc(gap.to_ms)),
            Text(shown(gap.detail)),
        )
    return table


def events(found: Sequence[Event]) -> Table:
    """One line an event."""
    table = _table("time", "event", "data")
    for event in found:
        data = "  ".join(f"{shown(name)}={_plain(value)}" for name, value in event.data.items())
        table.add_row(Text(utc(event.time_ms)), Text(shown(event.kind)), Text(data))
    return table


def quarantine(found: Sequence[Quarantined]) -> Table:
    """One line a message."""
    table = _table("id", "received", "device", "channel", "key", "reason", "detail", "bytes", "replayed")
    for row in found:
        table.add_row(
            Text(str(row.id)),
            Text(utc(row.received_ms)),
            Text(row.device),
            Text(shown(row.channel)),
            Text(shown(row.key or "")),
            Text(shown(row.reason)),
            Text(shown(row.detail)),
            Text(str(row.payload_bytes)),
            Text(utc(row.replayed_ms)),
        )
    return table


def audit(found: Sequence[AuditEntry]) -> Table:
    """One line an entry."""
    table = _table("time", "log", "entry", "actor", "from", "action", "subject", "what", "outcome", "count")
    for row in found:
        table.add_row(
            Text(utc(row.at_ms)),
            Text(str(row.log)),
            Text(str(row.index)),
            Text(shown(row.actor)),
            Text(shown(row.source)),
            Text(shown(row.action)),
            Text(shown(row.subject)),
            Text(shown(row.phase)),
            Text(shown(row.outcome), style="" if row.outcome < "4" else "bold yellow"),
            Text(str(row.count)),
        )
    return table


def plain(text: str) -> Text:
    """Text as it is, without markup."""
    return Text(text)


def readings(values: dict[str, float | None]) -> Text:
    """``cpu_pct 12.5  load_1m 0.42``."""
    return Text("  ".join(f"{shown(name)} {number(value)}" for name, value in values.items()))


def number(value: float | None) -> str:
    """Whole numbers whole, others to six digits; ``-`` is a missing value."""
    if value is None:
        return "-"
    return str(int(value)) if value == int(value) else f"{value:.{SIGNIFICANT_DIGITS}g}"


def sparkline(column: Sequence[float | None]) -> str:
    """The column as bars, the lowest to the highest of its values; a space is a missing one."""
    means = list(_squeezed(column))
    held = [value for value in means if value is not None]
    if not held:
        return ""
    low, top = min(held), max(held) - min(held)
    step = len(SPARK) - 1
    return "".join(" " if v is None else SPARK[round((v - low) / top * step) if top else 0] for v in means)


def _squeezed(column: Sequence[float | None]) -> Iterable[float | None]:
    """At most SPARK_CHARS_MAX means of neighbours."""
    width = -(-len(column) // SPARK_CHARS_MAX) or 1
    for start in range(0, len(column), width):
        held = [value for value in column[start : start + width] if value is not None]
        yield sum(held) / len(held) if held else None


def _plain(value: float | bool | str | None) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return shown(value)
        case _:
            return number(value)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(Text(shown(name)), overflow="fold")
    return table


def _count(count: int, *, alarming: bool = False) -> Text:
    return Text(str(count), style="bold yellow" if alarming and count else "", justify="right")


def _yes(fact: bool) -> Text:
    return Text("yes", style="green") if fact else Text("no", style="bold yellow")


def happening(found: Happening) -> Text:
    """One line; how bad it is as a word and as a colour."""
    line = Text(f"{utc(found.time_ms)}  ")
    line.append(f"{found.severity:7}", style=_SEVERE.get(found.severity, ""))
    line.append(f"  {found.kind:19}  {found.org or '-'}  {shown(found.text, TEXT_SHOWN_MAX)}")
    return line


def webhooks(found: Sequence[Webhook]) -> Table:
    """One line a receiver."""
    table = _table("id", "url", "kinds", "from", "place", "served", "note")
    for each in found:
        served = Text("yes") if each.enabled else Text(f"no: {shown(each.disabled_why)}", style="bold yellow")
        kinds = ", ".join(each.kinds) or "all"
        table.add_row(
            Text(each.id),
            Text(shown(each.url)),
            Text(kinds),
            Text(each.severity),
            Text(each.org or ""),
            served,
            Text(shown(each.note)),
        )
    return table
