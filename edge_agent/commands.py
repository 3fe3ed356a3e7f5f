"""What becomes of a command that was rightly ordered: values and time in, its next row out.

Rule 1: a row is durable before what it says is done. A power cut costs the command, never a repetition: who is found
begun at the start was interrupted, and is not begun again.
Rule 2: a row stays until its order has expired, whatever came of it, so that no order can bring the same command a
second time under another counter. When there is no room for another row, a new command is refused as busy.
Rule 3: what is disruptive or hazardous waits while a lease defers commands; when its order expires, so does it.
Rule 4: a board that restarts cannot say so itself. ``restarting`` ends with another boot id, or with the time.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from broker_config.device_classes import SafetyClass
from broker_config.messages import CommandStatus
from broker_config.signing import Claims, Command, Refusal

IDENTIFY: Final = "identify"
CLOCK_SYNC: Final = "clock.sync"
SELF_TEST: Final = "self.test"
LOGS_COLLECT: Final = "logs.collect"
RECORDING_PULL: Final = "recording.pull"
LOST_MODE: Final = "lost.mode"
REBOOT: Final = "reboot"

LOGS: Final = "logs"
"""The file class that collected logs are of."""

KEPT_MAX: Final = 128
"""Commands whose orders have not expired."""
FORGET_MS: Final = 60_000
"""After its expiry: an order that is signed anew ends a little later than the first."""
DEFERRED_MAX: Final = 16
RUNNING_MAX: Final = 4
RESTART_MS_MAX: Final = 600_000
"""A board that was told to restart, and by then has not, does not."""


class State(StrEnum):
    """As ``CommandStatus`` tells it, but for ``restarting``, which is told as obeyed."""

    DEFERRED = "deferred"
    OBEYED = "obeyed"
    RESTARTING = "restarting"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


Told: TypeAlias = Literal["deferred", "obeyed", "done", "failed", "interrupted"]
_TOLD: Final[Mapping[State, Told]] = {
    State.DEFERRED: "deferred",
    State.OBEYED: "obeyed",
    State.RESTARTING: "obeyed",
    State.DONE: "done",
    State.FAILED: "failed",
    State.INTERRUPTED: "interrupted",
}
ENDED: Final = frozenset({State.DONE, State.FAILED, State.INTERRUPTED})


class Row(Struct, frozen=True, omit_defaults=True):
    """A command. ``order``: the signed envelope, while it waits. ``boot``, ``mono_ms``: when it was begun."""

    id: str
    name: str
    counter: int
    expires_ms: int
    state: State
    reason: str = ""
    waits_for: str = ""
    result: dict[str, bool | int | float | str] = {}
    order: bytes = b""
    boot: str = ""
    mono_ms: int = 0


class Outcome(Struct, frozen=True):
    """What carrying a command out came to. ``reason``: why it failed, empty if it did not."""

    reason: str = ""
    result: dict[str, bool | int | float | str] = {}


def supported(programs: Iterable[str], file_classes: Collection[str], *, reboots: bool) -> frozenset[str]:
    """What a board can do. *programs*: commands of its class that its profile has one for. *file_classes*: of which
    it uploads files.
    """
    uploads = {RECORDING_PULL} if file_classes else set()
    uploads |= {LOGS_COLLECT} if LOGS in file_classes else set()
    reboot = {REBOOT} if reboots else set()
    return frozenset({*programs, IDENTIFY, CLOCK_SYNC, SELF_TEST, LOST_MODE, *uploads, *reboot})


def waits(safety: SafetyClass) -> bool:
    """Whether a lease can hold it off."""
    return safety is not SafetyClass.HARMLESS


def admitted(command: Command, claims: Claims, *, lease: str, order: bytes, boot: str, mono_ms: int) -> Row:
    """The first row of a command. *lease*: what it waits for; empty: nothing."""
    row = Row(
        command.id, command.name, claims.counter, claims.expires_ms, State.DEFERRED, waits_for=lease, order=order
    )
    return row if lease else begun(row, boot=boot, mono_ms=mono_ms)


def begun(row: Row, *, boot: str, mono_ms: int) -> Row:
    """It is carried out from now on."""
    state = State.RESTARTING if row.name == REBOOT else State.OBEYED
    return replace(row, state=state, waits_for="", order=b"", boot=boot, mono_ms=mono_ms)


def ended(row: Row, outcome: Outcome) -> Row:
    """It came to an end. A board that was told to restart and did not refuse will show it."""
    if row.state is State.RESTARTING and not outcome.reason:
        return row
    state = State.FAILED if outcome.reason else State.DONE
    return replace(row, state=state, reason=outcome.reason, result=outcome.result, waits_for="", order=b"")


def found(row: Row, boot: str) -> Row:
    """What a new run of the agent makes of it. *boot*: of the board, now."""
    if row.state is State.OBEYED:
        return replace(row, state=State.INTERRUPTED)
    if row.state is State.RESTARTING and row.boot != boot:
        return replace(row, state=State.DONE, result={"boot": boot})
    return row


def overdue(row: Row, *, mono_ms: int) -> Row:
    """A restart that did not come has failed."""
    if row.state is State.RESTARTING and mono_ms - row.mono_ms >= RESTART_MS_MAX:
        return replace(row, state=State.FAILED, reason="no_restart")
    return row


class Due(StrEnum):
    """What is to be done with a command that waits."""

    NOTHING = "nothing"
    BEGIN = "begin"
    EXPIRED = "expired"


def due(row: Row, *, now_ms: int | None, lease: str, running: int) -> Due:
    """*now_ms*: None if nobody vouches for the time, and then nothing is begun. *running*: others that are."""
    if now_ms is None:
        return Due.NOTHING
    if now_ms >= row.expires_ms:
        return Due.EXPIRED
    return Due.NOTHING if lease or running >= RUNNING_MAX else Due.BEGIN


def room(rows: Iterable[Row], *, now_ms: int | None) -> tuple[str, ...] | None:
    """The ids of rows that make room for one more; None: there is none."""
    kept = list(rows)
    old = [
        row.id for row in kept if row.state in ENDED and now_ms is not None and row.expires_ms + FORGET_MS <= now_ms
    ]
    return tuple(old) if len(kept) - len(old) < KEPT_MAX else None


def busy(rows: Iterable[Row], *, lease: str, now_ms: int | None) -> Refusal | None:
    """Why one more cannot be taken on now."""
    kept = list(rows)
    under_way = sum(row.state in {State.OBEYED, State.RESTARTING} for row in kept)
    waiting = sum(row.state is State.DEFERRED for row in kept)
    full = waiting >= DEFERRED_MAX if lease else under_way >= RUNNING_MAX
    return Refusal.BUSY if full or room(kept, now_ms=now_ms) is None else None


def status(row: Row, *, again: bool = False) -> CommandStatus:
    """As it is told. *again*: because the order came again."""
    reason = Refusal.REPLAYED.value if again else row.reason
    return CommandStatus(1, row.id, _TOLD[row.state], reason, row.waits_for, row.result)
