"""What the commands of twins and settings read of the API's answers, and as tables."""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli import config_tree
from fleet_server.cli.config_tree import Value
from fleet_server.cli.moments import utc
from fleet_server.cli.tables import _table

_GOOD: Final = frozenset({"in_sync"})
_UNDER_WAY: Final = frozenset({"pending", "deferred", "never_reported"})


class Source(Struct, frozen=True):
    """See the API's ``SettingSource``."""

    kind: str
    name: str | None
    revision: int


class Desired(Struct, frozen=True):
    """See the API's ``DesiredState``."""

    version: int
    since_ms: int
    config: dict[str, Value]
    provenance: dict[str, Source]
    by: str
    origin: str
    rollout: str | None


class Reported(Struct, frozen=True):
    """See the API's ``ReportedState``."""

    version: int
    since_ms: int
    desired: int
    in_force: int
    state: str
    reason: str | None
    waits_for: str | None
    config: dict[str, Value]


class Place(Struct, frozen=True):
    """See the API's ``TwinPlace``."""

    device_class: str | None
    org: str | None


class Clock(Struct, frozen=True):
    """See the API's ``TwinClock``."""

    source: str
    off_ms: int | None
    unc_ms: int | None


class Assignment(Struct, frozen=True):
    """See the API's ``TwinAssignment``."""

    officer: str | None
    vehicle: str | None
    shift: str | None
    unit: str | None


class Twin(Struct, frozen=True):
    """See the API's ``DeviceTwin``."""

    device: str
    at_ms: int | None
    drift: str
    deviating: list[str]
    held_by: str | None
    desired: Desired | None
    reported: Reported | None
    place: Place
    agent: str | None
    profile: str | None
    clock: Clock | None
    assignment: Assignment | None


class SettingChange(Struct, frozen=True):
    """See the API's ``SettingChange``."""

    before: Value | None
    after: Value | None


class DeviceChange(Struct, frozen=True):
    """See the API's ``DeviceChange``."""

    device: str
    settings: dict[str, SettingChange]


class Preview(Struct, frozen=True):
    """See the API's ``Preview``."""

    devices: int
    changes: list[DeviceChange]


class Changed(Struct, frozen=True):
    """What of the answers to changes is shown."""

    dry_run: Preview | None


class TwinChanged(Struct, frozen=True):
    """See the API's ``TwinChanged``."""

    twin: Twin
    dry_run: Preview | None


class Layer(Struct, frozen=True):
    """See the API's ``ConfigLayer``."""

    kind: str
    name: str | None
    revision: int
    settings: dict[str, Value | None]


class ConfigGroup(Struct, frozen=True):
    """See the API's ``ConfigGroup``."""

    group: str
    priority: int
    revision: int
    members: list[str]


class History(Struct, frozen=True):
    """Entries of one of the two histories."""

    desired: list[Desired] = []
    reported: list[Reported] = []


def twin(found: Twin) -> Group:
    """Its state, then each setting: what is desired, from where, and what is reported."""
    about = _table("", "")
    clock = found.clock
    for name, value in (
        ("device", found.device),
        ("at", utc(found.at_ms)),
        ("class", found.place.device_class),
        ("org", found.place.org),
        ("agent", found.agent),
        ("profile", found.profile),
        ("clock", None if clock is None else f"{clock.source}, off {clock.off_ms} ms, within {clock.unc_ms} ms"),
        ("given to", None if found.assignment is None else _given(found.assignment)),
        ("held by rollout", found.held_by),
        *_of_states(found),
    ):
        if value:
            about.add_row(Text(name), Text(shown(value)))
    about.add_row(Text("state"), _drift(found.drift))
    settings = _table("setting", "desired", "from", "reported")
    desired = {} if found.desired is None else found.desired.config
    reported = {} if found.reported is None else found.reported.config
    for name in sorted(desired.keys() | reported.keys()):
        source = None if found.desired is None else found.desired.provenance.get(name)
        settings.add_row(
            Text(shown(name)),
            _value(desired.get(name)),
            Text("" if source is None else _source(source)),
            Text(_plain(reported.get(name)), style="bold red" if name in found.deviating else ""),
        )
    return Group(about, Text(), settings)


def _of_states(found: Twin) -> Iterable[tuple[str, str | None]]:
    if found.desired is not None:
        aim = found.desired
        yield "desired", f"version {aim.version} since {utc(aim.since_ms)}, by {aim.by} ({aim.origin})"
    if found.reported is not None:
        said = found.reported
        why = f" {said.waits_for or said.reason}" if said.waits_for or said.reason else ""
        yield "reported", f"{said.state}{why}, version {said.in_force} in force, since {utc(said.since_ms)}"


def preview(found: Preview) -> RenderableType:
    """One line for each setting of each device."""
    table = _table("device", "setting", "before", "after")
    for each in found.changes:
        for name, change in sorted(each.settings.items()):
            table.add_row(Text(each.device), Text(shown(name)), _value(change.before), _value(change.after))
    return Group(table, Text(f"{found.devices} devices would change"))


def desired(found: Sequence[Desired]) -> Table:
    """One line a version, the newest first."""
    table = _table("version", "since", "by", "origin", "settings")
    for each in found:
        settings = ", ".join(f"{name}={_plain(value)}" for name, value in sorted(each.config.items()))
        table.add_row(
            str(each.version), utc(each.since_ms), Text(shown(each.by)), Text(shown(each.origin)), Text(settings)
        )
    return table


def reported(found: Sequence[Reported]) -> Table:
    """One line an entry, the newest first."""
    table = _table("version", "since", "taken up", "in force", "state", "why")
    for each in found:
        why = each.waits_for or each.reason or ""
        table.add_row(
            str(each.version),
            utc(each.since_ms),
            str(each.desired),
            str(each.in_force),
            Text(each.state),
            Text(shown(why)),
        )
    return table


def differences(found: Sequence[config_tree.Change]) -> Table:
    """What files have otherwise than the server."""
    table = _table("layer", "what", "server", "files")
    for each in found:
        table.add_row(
            Text(each.path),
            Text(shown(each.what)),
            Text(shown(each.before), style="red"),
            Text(shown(each.after), style="green"),
        )
    return table


def _given(given: Assignment) -> str:
    parts = {name: getattr(given, name) for name in ("officer", "vehicle", "shift", "unit")}
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


def _value(value: Value | None) -> Text:
    return Text(_plain(value), style="" if value is not None else "dim")


def _plain(value: Value | None) -> str:
    if value is None:
        return "default"
    return str(value).lower() if isinstance(value, bool) else shown(value)


def _source(source: Source) -> str:
    name = f" {source.name}" if source.name else ""
    return shown(f"{source.kind}{name} @{source.revision}")


def _drift(drift: str) -> Text:
    style = "green" if drift in _GOOD else "yellow" if drift in _UNDER_WAY else "bold red"
    return Text(shown(drift.replace("_", " ")), style=style)
