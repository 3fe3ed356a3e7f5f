"""What became of a device whose boot loader takes its only firmware over XMODEM or YMODEM.

There is one slot and no rollback: from the first block on, the device has no firmware but the one that is sent, and
where that breaks off somebody has to go there. So whoever starts it says that they know. What the transfer looked
like from here is one witness and what the device says of itself afterwards is the other; the second counts more.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from firmware_bridge.xymodem import Outcome

IMAGE_BYTES_MAX: Final = 16 * 1024 * 1024


class Said(StrEnum):
    """What a device answers when it is asked which firmware it runs."""

    NEW = "new"
    OTHER = "other"
    SILENT = "silent"


class Verdict(StrEnum):
    """What is told of an update."""

    UPDATED = "updated"
    """It runs what was sent."""
    UNTOUCHED = "untouched"
    """It runs what it ran: nothing of the image was sent."""
    KEPT_OLD = "kept_old"
    """It runs something else than was sent: the boot loader did not keep the image."""
    LOST = "lost"
    """It took a part of the image and does not answer: it has no firmware, and somebody has to go there."""
    UNKNOWN = "unknown"
    """It does not answer, and may run either: ask again later."""


VERDICTS: Final[Mapping[tuple[Outcome, Said], Verdict]] = {
    (Outcome.NOT_BEGUN, Said.NEW): Verdict.UNKNOWN,  # it did not before, and nothing was taken
    (Outcome.NOT_BEGUN, Said.OTHER): Verdict.UNTOUCHED,
    (Outcome.NOT_BEGUN, Said.SILENT): Verdict.UNKNOWN,  # it may wait in its boot loader
    (Outcome.BROKEN, Said.NEW): Verdict.UNKNOWN,  # a part of it cannot be it
    (Outcome.BROKEN, Said.OTHER): Verdict.KEPT_OLD,
    (Outcome.BROKEN, Said.SILENT): Verdict.LOST,
    (Outcome.UNKNOWN, Said.NEW): Verdict.UPDATED,
    (Outcome.UNKNOWN, Said.OTHER): Verdict.KEPT_OLD,
    (Outcome.UNKNOWN, Said.SILENT): Verdict.UNKNOWN,
    (Outcome.DONE, Said.NEW): Verdict.UPDATED,
    (Outcome.DONE, Said.OTHER): Verdict.KEPT_OLD,
    (Outcome.DONE, Said.SILENT): Verdict.UNKNOWN,
}


class RefusedError(Exception):
    """The update was not begun, and the device was sent nothing but questions; the message says why."""


class Report(NamedTuple):
    """``before`` and ``after``: what the device said that it runs; None: it did not answer."""

    verdict: Verdict
    outcome: Outcome
    before: str | None
    after: str | None


def why_not(
    image: bytes, *, sha256: str, version: str, runs: str | None, bytes_max: int, accepts_no_rollback: bool
) -> str | None:
    """Why the update is not begun; None: it may be. *runs*: what the device says that it runs, None: nothing."""
    if not accepts_no_rollback:
        return "this boot loader has no rollback: an update that breaks off leaves no firmware; it has to be accepted"
    if not 0 < len(image) <= bytes_max:
        return f"expected an image of 1 to {bytes_max} bytes, got {len(image)}"
    if (found := hashlib.sha256(image).hexdigest()) != sha256:
        return f"expected an image with SHA-256 {sha256[:16]}..., got {found[:16]}..."
    if runs is None:
        return "the device does not say what it runs, so nobody could tell afterwards"
    if runs == version:
        return f"the device runs {version} already"
    return None


def version_of(pattern: re.Pattern[str], answer: bytes) -> str | None:
    """The version in what a device answered: the pattern's only group, in lines that are whole by now."""
    text = answer.decode("ascii", "replace")
    found = pattern.search(text[: max(text.rfind("\r"), text.rfind("\n")) + 1])
    return found[1] if found else None


def said(runs: str | None, version: str) -> Said:
    """What *runs*, the device's own word, means when *version* was sent."""
    if runs is None:
        return Said.SILENT
    return Said.NEW if runs == version else Said.OTHER
