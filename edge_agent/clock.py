"""Decides what time it is, who says so, and how far that can be trusted.

Rule 1: three clocks: the monotonic one since boot (it never jumps, and says nothing of the date), the board's
wall clock, and the server's as last asked over ``up/time``.
Rule 2: only an authentic answer within ``rtt_ms_max`` counts; it is kept as server time minus monotonic time, so a
jump of the wall clock does not touch it.
Rule 3: a wall clock that somebody synchronises is believed until the server says otherwise, a TLS handshake fails on
dates alone, or it is below the floor (the newest time that the server ever confirmed to this device).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from broker_config import limits, telemetry

JUMP_MS_MIN: Final = 1_000
"""Less between two looks is drift or slewing, not a jump."""
NTP_OFF_MS_MAX: Final = 5_000
"""A synchronised clock further from the server's than this (and both uncertainties) is not believed."""
DRIFT_PPM: Final = 100
"""By how much an answer's uncertainty grows: the worst crystal that a board may have."""
ASK_AGAIN_S: Final = 30.0
"""After this long without an answer the server is asked again."""


class Source(StrEnum):
    """Who sets the clock; ``Clock.src`` on the wire."""

    NONE = "none"
    NTP = "ntp"
    SERVER = "server"


class Facts(NamedTuple):
    """One look at the board. ``synced``: the kernel says that somebody disciplines the wall clock, within
    ``unc_ms``.
    """

    wall_ms: int
    mono_ms: int
    synced: bool
    unc_ms: int


class Stamp(NamedTuple):
    """An instant as a batch tells it."""

    t_ms: int
    mono_ms: int
    clock: telemetry.Clock


class Asked(NamedTuple):
    """A question under way."""

    nonce: str
    mono_ms: int


class ServerTime(NamedTuple):
    """``ahead_ms``: server time minus monotonic time, measured at ``mono_ms`` within ``unc_ms``."""

    ahead_ms: int
    unc_ms: int
    mono_ms: int

    def now(self, mono_ms: int) -> int:
        """The server's clock, ms since the epoch."""
        return self.ahead_ms + mono_ms

    def unc_now(self, mono_ms: int) -> int:
        """How far that may be off by now."""
        return self.unc_ms + (mono_ms - self.mono_ms) * DRIFT_PPM // 1_000_000


class Jump(NamedTuple):
    """Somebody moved the wall clock: what it would have said, and what it said."""

    old_ms: int
    new_ms: int


class Look(NamedTuple):
    """What a look found."""

    jump: Jump | None
    source_changed: bool


@dataclass(frozen=True, slots=True)
class ClockState:
    """``wall_ahead_ms``: wall minus monotonic time at the last look, None before the first."""

    floor_ms: int = 0
    source: Source = Source.NONE
    distrusted: bool = False
    server: ServerTime | None = None
    wall_ahead_ms: int | None = None
    asked: Asked | None = None


def look(state: ClockState, facts: Facts) -> tuple[ClockState, Look]:
    """Take notice of the clocks."""
    ahead = facts.wall_ms - facts.mono_ms
    before = state.wall_ahead_ms
    jump = None
    if before is not None and abs(ahead - before) > JUMP_MS_MIN:
        jump = Jump(before + facts.mono_ms, facts.wall_ms)
    source = _source(state, facts)
    return replace(state, wall_ahead_ms=ahead, source=source), Look(jump, source is not state.source)


def _source(state: ClockState, facts: Facts) -> Source:
    if state.server is None:
        floor_ms = max(state.floor_ms, limits.CLOCK_MS_MIN)
        believed = facts.synced and not state.distrusted and facts.wall_ms >= floor_ms
        return Source.NTP if believed else Source.NONE
    off_ms = abs(off(state, facts))
    unc_ms = state.server.unc_now(facts.mono_ms) + facts.unc_ms
    return Source.NTP if facts.synced and off_ms <= NTP_OFF_MS_MAX + unc_ms else Source.SERVER


def off(state: ClockState, facts: Facts) -> int:
    """The server's clock minus the board's, ms; 0 as long as the server has not told."""
    return 0 if state.server is None else state.server.now(facts.mono_ms) - facts.wall_ms


def stamp(state: ClockState, facts: Facts) -> Stamp:
    """The instant of *facts*, by the clock that is in force."""
    bound = limits.TIME_MS_MAX
    off_ms = max(-bound, min(bound, off(state, facts)))
    if state.source is Source.SERVER:
        assert state.server is not None
        unc_ms = state.server.unc_now(facts.mono_ms)
        t_ms = state.server.now(facts.mono_ms)
    else:
        unc_ms = facts.unc_ms if state.source is Source.NTP else 0
        t_ms = facts.wall_ms
    clock = telemetry.Clock(src=state.source.value, off_ms=off_ms, unc_ms=unc_ms)
    return Stamp(max(-bound, min(bound, t_ms)), facts.mono_ms, clock)


def trusted_ms(state: ClockState, facts: Facts) -> int | None:
    """The time, if anybody vouches for it."""
    return None if state.source is Source.NONE else stamp(state, facts).t_ms


def served_ms(state: ClockState, facts: Facts) -> int | None:
    """The time by the server's own authentic word."""
    return None if state.server is None else state.server.now(facts.mono_ms)


def ask(state: ClockState, nonce: str, mono_ms: int) -> ClockState:
    """A question goes out; the one before, if any, counts no more."""
    return replace(state, asked=Asked(nonce, mono_ms))


def answered(
    state: ClockState, *, nonce: str, t_ms: int, unc_ms: int, mono_ms: int, rtt_ms_max: int
) -> tuple[ClockState, str | None]:
    """Take an authentic answer, which came at *mono_ms*; returns why not, if not. Half of the round trip counts as
    uncertainty. The floor follows, down too: what the server says now is the newest fact.
    """
    if state.asked is None or nonce != state.asked.nonce:
        return state, "not the answer to the question that is open"
    rtt_ms = mono_ms - state.asked.mono_ms
    if not 0 <= rtt_ms <= rtt_ms_max:
        return replace(state, asked=None), f"expected an answer within {rtt_ms_max} ms, it took {rtt_ms}"
    half_ms = (rtt_ms + 1) // 2
    new = ServerTime(t_ms + half_ms - mono_ms, unc_ms + half_ms, mono_ms)
    old = state.server
    if old is not None:
        apart_ms = abs(old.ahead_ms - new.ahead_ms)
        old_unc_ms = old.unc_now(mono_ms)
        if old_unc_ms < new.unc_ms and apart_ms <= old_unc_ms + new.unc_ms:
            new = old  # they agree, and the older one is sharper
    return replace(state, asked=None, server=new, distrusted=False, floor_ms=new.now(mono_ms)), None


def dates_refused(state: ClockState) -> ClockState:
    """A handshake failed on validity dates alone: nobody's word on the time counts until the server is asked."""
    return replace(state, distrusted=True, server=None, source=Source.NONE)


def skips_dates(state: ClockState, facts: Facts) -> bool:
    """Whether TLS must not judge validity dates: by the wall clock, which is known to be wrong or set by nobody."""
    wrong = state.source is Source.SERVER and abs(off(state, facts)) > NTP_OFF_MS_MAX
    return state.source is Source.NONE or wrong


def next_ask_s(state: ClockState, *, mono_ms: int, last_ask_mono_ms: int | None, every_s: float) -> float:
    """Seconds until the server should be asked (0: now), while connected."""
    if last_ask_mono_ms is None:
        return 0.0
    wait_s = every_s if state.server is not None and state.asked is None else ASK_AGAIN_S
    return max(0.0, last_ask_mono_ms / 1000 + wait_s - mono_ms / 1000)
