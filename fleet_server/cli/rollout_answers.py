"""What the commands read of rollouts, and how they show it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli.moments import utc

DONE: Final = ("succeeded", "rolled_back")
BAD: Final = ("failed", "rejected", "timed_out", "silent")
ENDED: Final = ("completed", "canceled", "rolled_back")
DEVICES_SHOWN_MAX: Final = 10
_STYLES: Final = {
    "completed": "green",
    "running": "",
    "paused": "bold yellow",
    "waiting_approval": "bold yellow",
    "canceled": "yellow",
    "rolled_back": "yellow",
}


class Wave(Struct, frozen=True):
    """See the API's ``WaveIn``."""

    name: str
    size: str
    soak_s: int


class Plan(Struct, frozen=True):
    """See the API's ``RolloutPlan``."""

    name: str
    layer: str
    patch: dict[str, Any]
    where: str
    waves: list[Wave]


class Pause(Struct, frozen=True):
    """See the API's ``RolloutPause``."""

    why: str
    text: str


class Rollout(Struct, frozen=True):
    """See the API's ``Rollout``."""

    rollout: str
    plan: Plan
    phase: str
    why: str
    pause: Pause | None
    wave: int
    counts: dict[str, int]
    waits: dict[str, int]
    created_by: str
    created_ms: int
    approved_by: str | None
    ended_ms: int | None


class Rollouts(Struct, frozen=True):
    """A list of them."""

    rollouts: list[Rollout]


class PlannedWave(Struct, frozen=True):
    """See the API's ``PlannedWave``."""

    name: str
    count: int
    devices: list[str]


class Preview(Struct, frozen=True):
    """See the API's ``RolloutPreview``."""

    waves: list[PlannedWave]
    faults: list[str]
    warnings: list[str]
    takes_s: int
    second_person: bool


class Made(Struct, frozen=True):
    """See the API's ``RolloutMade``."""

    rollout: Rollout | None
    dry_run: Preview | None


class Device(Struct, frozen=True):
    """See the API's ``RolloutDevice``."""

    device: str
    state: str
    wave: int
    reason: str
    tries: int


class Devices(Struct, frozen=True):
    """A list of them."""

    devices: list[Device]


def listed(found: Sequence[Rollout]) -> Table:
    """One line a rollout."""
    table = _table("rollout", "name", "layer", "phase", "devices", "done", "bad", "begun")
    for each in found:
        table.add_row(
            Text(each.rollout),
            Text(shown(each.plan.name)),
            Text(shown(each.plan.layer)),
            Text(_words(each.phase), style=_STYLES.get(each.phase, "")),
            *_figures(each.counts),
            Text(utc(each.created_ms)),
        )
    return table


def one(found: Rollout, *, width: int = 40) -> Group:
    """A rollout as it stands; also what is shown live."""
    plan = found.plan
    patch = ", ".join(f"{name}={'(default)' if value is None else value}" for name, value in plan.patch.items())
    lines: list[RenderableType] = [
        Text(f"{found.rollout}  {shown(plan.name)}", style="bold"),
        Text(f"{shown(plan.layer)}: {shown(patch)}" + (f"  where {shown(plan.where)}" if plan.where else "")),
    ]
    phase = Text(_words(found.phase), style=_STYLES.get(found.phase, ""))
    if found.pause is not None:
        phase.append(f": {shown(found.pause.text)}")
    elif found.why:
        phase.append(f": {shown(found.why)}")
    lines.append(phase)
    if found.phase == "running" and found.wave < len(plan.waves):
        lines.append(Text(f"wave {found.wave + 1} of {len(plan.waves)}: {shown(plan.waves[found.wave].name)}"))
    total = sum(found.counts.values())
    done = sum(found.counts.get(state, 0) for state in DONE)
    lines.append(ProgressBar(total=max(1, total), completed=done, width=width))
    table = _table("state", "devices")
    for state, count in found.counts.items():
        table.add_row(Text(_words(state), style="bold yellow" if state in BAD else ""), _count(count))
    lines.append(table)
    lines += [Text(f"waits: {count} x {shown(why)}") for why, count in found.waits.items()]
    return Group(*lines)


def preview(found: Preview) -> Group:
    """What a plan would do."""
    lines: list[RenderableType] = [Text(f"cannot begin: {shown(each)}", style="bold red") for each in found.faults]
    table = _table("wave", "devices", "in the order of their turns")
    for wave in found.waves:
        more = len(wave.devices) - DEVICES_SHOWN_MAX
        names = ", ".join(wave.devices[:DEVICES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
        table.add_row(Text(shown(wave.name)), _count(wave.count), Text(shown(names, 300)))
    lines.append(table)
    lines += [Text(f"will be held up: {shown(each, 300)}", style="yellow") for each in found.warnings]
    lines.append(Text(f"takes {found.takes_s} s at least, if all goes well"))
    if found.second_person:
        lines.append(Text("waits for a second person before it begins"))
    return Group(*lines)


def devices(found: Sequence[Device]) -> Table:
    """One line a device."""
    table = _table("device", "state", "wave", "tries", "why")
    for each in found:
        style = "bold yellow" if each.state in BAD else ""
        table.add_row(
            Text(each.device),
            Text(_words(each.state), style=style),
            _count(each.wave + 1),
            _count(each.tries),
            Text(shown(each.reason)),
        )
    return table


def _figures(counts: Mapping[str, int]) -> list[Text]:
    done, bad = (sum(counts.get(state, 0) for state in states) for states in (DONE, BAD))
    return [_count(sum(counts.values())), _count(done), Text(str(bad), style="bold yellow" if bad else "")]


def _words(name: str) -> str:
    return shown(name.replace("_", " "))


def _count(count: int) -> Text:
    return Text(str(count), justify="right")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table
