"""Decides what an updater does next: from what the device says and what the journal says, to an act or a verdict.

Rule 1: the device is asked first. What it says beats what the journal says; only what two histories can both have
led to is told apart by the journal.
Rule 2: RESUME is the whole of it, once the device is known to be ours: a line for each picture and phase.
Rule 3: a phase is written to the journal before its act is begun. A power cut repeats an act and never skips one, so
each of them must be safe to repeat, and is bounded.
Rule 4: nothing here reads a clock, a file or a socket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

SILENT_S_MAX: Final = 120.0
"""A device that swaps two images is silent for as long as its flash takes."""


class Phase(StrEnum):
    """What was begun last. Stored."""

    VERIFY = "verify"
    PRECHECK = "precheck"
    UPLOAD = "upload"
    LISTED = "listed"
    TEST = "test"
    RESET = "reset"
    TRIAL = "trial"
    CONFIRM = "confirm"


class Verdict(StrEnum):
    """How it ended. Stored."""

    DONE = "done"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    FAILED = "failed"
    POSTPONED = "postponed"
    QUARANTINE = "quarantine"


FINAL: Final = frozenset({Verdict.ROLLED_BACK, Verdict.REJECTED, Verdict.QUARANTINE})
"""After these the same image is not begun again on the same device unless an operator says so."""


class Act(StrEnum):
    """What is done to the device; each begins with a row of its phase."""

    PRECHECK = "precheck"
    UPLOAD = "upload"
    LIST = "list"
    TEST = "test"
    RESET = "reset"
    TRIAL = "trial"
    CONFIRM = "confirm"


PHASE_OF: Final[Mapping[Act, Phase]] = {
    Act.PRECHECK: Phase.PRECHECK,
    Act.UPLOAD: Phase.UPLOAD,
    Act.LIST: Phase.LISTED,
    Act.TEST: Phase.TEST,
    Act.RESET: Phase.RESET,
    Act.TRIAL: Phase.TRIAL,
    Act.CONFIRM: Phase.CONFIRM,
}
EARLY: Final = frozenset({Phase.VERIFY, Phase.PRECHECK, Phase.UPLOAD, Phase.LISTED})
"""Up to here the device would not notice that another image comes instead."""
GUARDED: Final = frozenset({Act.PRECHECK, Act.TEST, Act.RESET})
"""Before these it is asked whether the moment is right; an upload disturbs nobody, and takes long."""
TIMES_MAX: Final[Mapping[Act, int]] = {
    Act.PRECHECK: 50,
    Act.UPLOAD: 50,  # a link that breaks all the time gets on by resuming
    Act.LIST: 10,
    Act.TEST: 3,
    Act.RESET: 5,
    Act.TRIAL: 5,
    Act.CONFIRM: 5,
}
"""For one image on one device, whatever ends the agent in between."""


class Picture(StrEnum):
    """What the device's list of images looks like, seen from the image that it should get."""

    CONFIRMED = "the new image runs and is confirmed"
    TRYING = "the new image runs, not confirmed"
    PENDING = "the old image runs, the new one is pending"
    WAITING = "the old image runs, the new one lies beside it"
    OTHER = "the old image runs, beside it lies nothing or another"


@dataclass(frozen=True, slots=True)
class Slots:
    """What the device says. Hashes are SHA-256 of the image's TLV; empty: there is none. ``confirmed``: of what runs;
    the rest is of what lies beside it.
    """

    active: bytes
    confirmed: bool
    other: bytes = b""
    pending: bool = False
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What the journal has of one image on one device. ``before``: the image that ran when it was begun; empty:
    nobody has looked yet. ``unfit``: why the trial failed; empty: it did not. ``times``: how often each act was
    begun.
    """

    device: str
    image: bytes
    phase: Phase = Phase.VERIFY
    before: bytes = b""
    unfit: str = ""
    times: Mapping[Act, int] = field(default_factory=lambda: MappingProxyType({}))
    verdict: Verdict | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Do:
    """Write the row of :func:`begun`, then do it."""

    act: Act


@dataclass(frozen=True, slots=True)
class End:
    """It is over; *why* is one line for people."""

    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The device does not answer; ask again."""


Step: TypeAlias = Do | End | Wait

_DONE: Final = End(Verdict.DONE, "it runs and is confirmed")
_ROLLED_BACK: Final = End(Verdict.ROLLED_BACK, "it was tried, and the device went back to the image before")
_REJECTED: Final = End(Verdict.REJECTED, "the boot loader did not take it: it is gone, and the image before runs")

_BEGIN: Final[Mapping[Picture, Step]] = {
    Picture.CONFIRMED: _DONE,
    Picture.TRYING: Do(Act.TRIAL),
    Picture.PENDING: Do(Act.RESET),
    Picture.WAITING: Do(Act.PRECHECK),
    Picture.OTHER: Do(Act.PRECHECK),
}
_LYING: Final[Mapping[Picture, Step]] = {**_BEGIN, Picture.WAITING: Do(Act.TEST), Picture.OTHER: Do(Act.UPLOAD)}
_TRIED: Final[Mapping[Picture, Step]] = {**_BEGIN, Picture.WAITING: _ROLLED_BACK, Picture.OTHER: _ROLLED_BACK}

RESUME: Final[Mapping[Phase, Mapping[Picture, Step]]] = {
    Phase.VERIFY: _BEGIN,
    Phase.PRECHECK: {**_LYING, Picture.WAITING: Do(Act.LIST)},
    Phase.UPLOAD: {**_LYING, Picture.WAITING: Do(Act.LIST)},
    Phase.LISTED: _LYING,
    # not pending yet: the order to test it may not have arrived; it is bounded, because the device may also have
    # gone there and back by itself
    Phase.TEST: _LYING,
    # it was pending when this was written: now it has been tried
    Phase.RESET: {**_TRIED, Picture.OTHER: _REJECTED},
    Phase.TRIAL: _TRIED,
    # a trial is begun anew: nobody knows how long ago the row was written
    Phase.CONFIRM: _TRIED,
}


def picture(slots: Slots, image: bytes) -> Picture:
    """See :class:`Picture`."""
    if slots.active == image:
        return Picture.CONFIRMED if slots.confirmed else Picture.TRYING
    if slots.other != image:
        return Picture.OTHER
    return Picture.PENDING if slots.pending else Picture.WAITING


def next_step(row: Row, slots: Slots | None, silent_s: float, silent_s_max: float = SILENT_S_MAX) -> Step:
    """What is next for an image that is not over. *slots*: None while the device does not answer, which it has not
    for *silent_s*.
    """
    assert row.verdict is None, "it is over"
    if slots is None:
        if silent_s < silent_s_max:
            return Wait()
        return End(Verdict.QUARANTINE, f"no answer for {silent_s:.0f} s, at {row.phase}")
    seen = picture(slots, row.image)
    step = RESUME[row.phase][seen]
    if (stranger := _stranger(row, slots, seen)) is not None:
        return stranger
    if row.unfit and seen is Picture.TRYING:
        step = Do(Act.RESET)  # without a confirmation it goes back
    if step is _ROLLED_BACK and row.unfit:
        return End(Verdict.ROLLED_BACK, row.unfit)
    if isinstance(step, Do) and row.times.get(step.act, 0) >= TIMES_MAX[step.act]:
        return End(Verdict.FAILED, f"{step.act}: begun {TIMES_MAX[step.act]} times, and {seen}")
    return step


def _stranger(row: Row, slots: Slots, seen: Picture) -> End | None:
    """An end, where somebody else is at work on this device."""
    if seen is Picture.PENDING and slots.permanent:
        return End(Verdict.FAILED, "somebody else made it permanent before it was tried: nothing would undo it")
    if seen in {Picture.CONFIRMED, Picture.TRYING}:
        return None
    if row.before and slots.active != row.before:
        return End(Verdict.FAILED, f"expected {row.before.hex()[:16]} to run, got {slots.active.hex()[:16]}")
    early = row.phase in EARLY or row.phase is Phase.TEST
    if early and not slots.confirmed:
        return End(Verdict.POSTPONED, "what runs there is itself on trial")
    if early and seen is Picture.OTHER and slots.pending:
        return End(Verdict.POSTPONED, "another image is pending there")
    return None


def begun(row: Row, act: Act, slots: Slots) -> Row:
    """The row to store before *act* is done."""
    times = MappingProxyType({**row.times, act: row.times.get(act, 0) + 1})
    before = row.before
    if not before and slots.active != row.image:
        before = slots.active
    phase = PHASE_OF[act]
    if row.unfit and act is Act.RESET:
        phase = Phase.TRIAL  # on its way back, not on its way there
    return replace(row, phase=phase, times=times, before=before)


def opened(row: Row | None, device: str, image: bytes, *, again: bool) -> Row:
    """The row with which an order for *image* goes on or begins; one whose verdict is final is returned as it is.

    *again*: an operator wants what :data:`FINAL` forbids. Whatever ended without knowing how the device stands goes
    on where it stopped, for in the meantime it may have been tried and gone back.
    """
    if row is None or row.verdict is Verdict.DONE:
        return Row(device, image)
    if row.verdict is None:
        return row
    if row.verdict in FINAL and not again:
        return row
    goes_on = row.phase not in EARLY and (
        row.verdict in {Verdict.QUARANTINE, Verdict.POSTPONED} or (row.verdict is Verdict.FAILED and not again)
    )
    if goes_on:
        return replace(row, verdict=None, why="", times=MappingProxyType({}))
    return Row(device, image)
