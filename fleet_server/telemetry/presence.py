"""Three separate facts of a device: is it connected, does it report, is it healthy. Pure.

*Connected* is the broker's word and the device's: a birth whose epoch no will has ended, and something heard within
three keep-alives, because a device and its broker can die together and then nobody says so. *Reporting* is what its
streams do, *healthy* what its journal says. A device can be any two of them without the third.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from broker_config.telemetry import Event

KEEP_ALIVES_MISSED: Final = 3
"""Nothing heard for so many keep-alives is not connected, whatever the last status says."""
DEBOUNCE_MS: Final = 5_000
"""A connection that is back within this time was never away."""
FLAP_WINDOW_MS: Final = 3_600_000
CONNECTIONS_MAX: Final = 100
"""Connections remembered of one device."""

BEGINS: Final[Mapping[str, tuple[str, ...]]] = {"driver.fault": ("driver", "stream"), "spool.full": ()}
"""Event kinds that begin a fault -> the fields that tell one such fault from another."""
ENDS: Final[Mapping[str, str]] = {"driver.ok": "driver.fault", "spool.ok": "spool.full"}
"""Event kinds that end one -> what began it."""
CLOCK_SOURCE: Final = "clock.source"
START: Final = "agent.start"
"""A new run of the agent tells anew of all that is in BEGINS, and nothing of what the one before had told."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that the journal says is wrong; ``order``: life, number and place of the event that said so."""

    order: tuple[int, int, int]
    present: bool
    detail: str


Faults = Mapping[str, Fault]
"""Name (``driver.fault host.cpu cpu``) -> what was last said of it. What ended is kept, so that an older event that
comes later, with the backlog, does not begin it again; and so is the newest start of the agent."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a device at one moment; times are ms by the server's clock.

    ``willed_ms``: when the will of its last birth came, None if it has not. ``heard_ms``: when anything last came.
    ``connections_ms``: when it connected anew, oldest first. ``overdue``: streams with a cadence of which nothing has
    come for too long. ``faults``: what its journal says is wrong.
    """

    born: bool
    willed_ms: int | None
    heard_ms: int
    keep_alive_s: int
    connections_ms: Sequence[int]
    overdue: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Presence:
    """The three facts. ``since_ms``: when *connected* became what it is, None if never; ``flaps``: connections made
    within the last hour beside the one it has; ``why``: what keeps it from reporting and from being healthy.
    """

    connected: bool
    reporting: bool
    healthy: bool
    since_ms: int | None
    flaps: int
    why: tuple[str, ...]


def presence(seen: Seen, now_ms: int) -> Presence:
    """The three facts now."""
    gone_ms = away_since(seen, now_ms)
    connected = seen.born and (gone_ms is None or now_ms - gone_ms < DEBOUNCE_MS)
    since_ms = (seen.connections_ms[-1] if seen.connections_ms else seen.heard_ms) if connected else gone_ms
    recent = sum(1 for at_ms in seen.connections_ms if now_ms - at_ms <= FLAP_WINDOW_MS)
    return Presence(
        connected=connected,
        reporting=seen.born and not seen.overdue,
        healthy=seen.born and not seen.faults,
        since_ms=since_ms if seen.born else None,
        flaps=max(0, recent - 1),
        why=(*(f"nothing from {stream}" for stream in seen.overdue), *seen.faults),
    )


def away_since(seen: Seen, now_ms: int) -> int | None:
    """When the connection ended as far as can be told, None if it has not; before any debounce."""
    silent_ms = seen.heard_ms + KEEP_ALIVES_MISSED * seen.keep_alive_s * 1000
    ends = [at_ms for at_ms in (seen.willed_ms, silent_ms if now_ms > silent_ms else None) if at_ms is not None]
    return min(ends, default=None)


def noted(faults: Faults, order: tuple[int, int], events: Iterable[Event]) -> Faults:
    """The faults after a journal batch, which may come before an older one.

    Args:
        faults: what was known.
        order: of the batch: which of the journal's lives, counted from 0, and its number in it.
        events: its events, in order.
    """
    known = dict(faults)
    for place, event in enumerate(events):
        name, begins = _named(event)
        if name is None:
            continue
        at = (*order, place)
        before = known.get(name)
        if before is None or at > before.order:
            known[name] = Fault(at, begins, str(event.data.get("error") or ""))
    return known


def present(faults: Faults) -> tuple[str, ...]:
    """The faults that have not ended, as people read them."""
    start = faults.get(START)
    return tuple(
        f"{name}: {fault.detail}" if fault.detail else name
        for name, fault in sorted(faults.items())
        if fault.present and not (start is not None and name.startswith(tuple(BEGINS)) and fault.order < start.order)
    )


def _named(event: Event) -> tuple[str | None, bool]:
    """The fault that an event begins (True) or ends (False); None if it is about none."""
    if event.kind == START:
        return START, False
    if event.kind == CLOCK_SOURCE:
        return "clock is not set", event.data.get("src") == "none"
    begun = event.kind if event.kind in BEGINS else ENDS.get(event.kind)
    if begun is None:
        return None, False
    which = [str(event.data[field]) for field in BEGINS[begun] if event.data.get(field) is not None]
    return " ".join((begun, *which)), event.kind in BEGINS
