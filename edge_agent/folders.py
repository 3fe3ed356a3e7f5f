"""Decides which files of a folder are closed, and to which recording they belong. Names and numbers in, jobs out.

A recorder writes ``.NAME.part`` beside and renames it; a name that begins with a dot or ends in ``.part`` is not
closed. Segments of a recording are ``RECORDING_NUMBER.mp4``, five digits from 00001 on. ``RECORDING.open`` and
``RECORDING.close`` (JSON: ``trigger``, ``reason``) say how it began and that nothing more comes.

Rule 1: the newest segment of a recording waits for the next one or for the close, so that ``last`` is right. One that
has waited longer than the bound is sealed as what it is: ended abnormally, and not the last.
Rule 2: a number that is skipped is waited for as long, then told.
Rule 3: nothing that lies there is dropped. What does not fit a recording stands alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from broker_config import limits
from broker_config.device_classes import FileClass, FileKind
from broker_config.manifest import GENESIS

PART_SUFFIX: Final = ".part"
OPEN_SUFFIX: Final = ".open"
CLOSE_SUFFIX: Final = ".close"
STOP_NAME: Final = "STOP"
"""Lies in a folder that nothing is to be written to."""
ABNORMAL: Final = "ended abnormally"
NAME_CHARS_MAX: Final = 128
MARK_BYTES_MAX: Final = 4_096

_SEGMENT: Final = re.compile(r"^(?P<recording>[a-z0-9][a-z0-9-]{0,63})_(?P<number>[0-9]{5})\.[a-z0-9]{1,8}\Z")
_RECORDING: Final = re.compile(r"^[a-z0-9][a-z0-9-]{0,63}\Z")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


class Found(NamedTuple):
    """A file as the folder shows it. ``waited_s``: since it was first seen like this."""

    name: str
    inode: int
    size: int
    mtime_ns: int
    waited_s: float


class Marks(Struct, frozen=True):
    """What is written in ``RECORDING.open`` and ``RECORDING.close``; anything else in them is ignored."""

    trigger: Annotated[str, Meta(max_length=120)] = ""
    reason: Annotated[str, Meta(max_length=120)] = ""


class Recording(NamedTuple):
    """``next``: number of the segment to come; ``prev``: digest of the newest manifest; ``end_ms``: on the monotonic
    clock of ``boot``.
    """

    recording: str
    next: int = 1
    prev: str = GENESIS
    boot: str = ""
    end_ms: int = 0
    trigger: str = ""


class Place(NamedTuple):
    """A segment's place, but for the digest before it. ``skipped``: numbers just before it that never came."""

    recording: str
    number: int
    last: bool
    reason: str
    skipped: int


class Job(NamedTuple):
    """A file that is to be sealed."""

    found: Found
    media_type: str
    place: Place | None


class Plan(NamedTuple):
    """``foreign``: names with a suffix that is not of the class. ``closed``: recording -> reason, of those of which
    everything that came is sealed.
    """

    jobs: tuple[Job, ...]
    foreign: tuple[str, ...]
    closed: Mapping[str, str]


def is_closed(name: str) -> bool:
    """By its name alone."""
    return not name.startswith(".") and not name.endswith(PART_SUFFIX) and name != STOP_NAME


def closed_name(part: str) -> str:
    """What a file that is being written will be called."""
    return part.removeprefix(".").removesuffix(PART_SUFFIX)


def recording_of(name: str) -> str | None:
    """Whose segment or mark a closed name is."""
    for suffix in (OPEN_SUFFIX, CLOSE_SUFFIX):
        if name.endswith(suffix):
            stem = name.removesuffix(suffix)
            return stem if _RECORDING.match(stem) else None
    found = _SEGMENT.match(name)
    return found["recording"] if found and 1 <= int(found["number"]) <= limits.SEGMENTS_MAX else None


def is_mark(name: str) -> bool:
    """Whether it opens or closes a recording."""
    return name.endswith((OPEN_SUFFIX, CLOSE_SUFFIX)) and recording_of(name) is not None


def safe_name(name: str) -> str:
    """What the manifest calls it: for people, and no path."""
    out = _UNSAFE.sub("_", name)[:NAME_CHARS_MAX]
    return out if out[:1].isalnum() else ("x" + out)[:NAME_CHARS_MAX]


def plan(
    found: Iterable[Found],
    spec: FileClass,
    recordings: Mapping[str, Recording],
    closes: Mapping[str, str],
    *,
    abnormal_s: float,
) -> Plan:
    """What of a folder is to be sealed now, in this order.

    Args:
        found: closed files that are not sealed, marks left out.
        spec: the folder's class.
        recordings: those that are open; what belongs to another one stands alone.
        closes: recording -> reason, of those that have a close mark.
        abnormal_s: how long a newest segment, or a hole, is waited for.
    """
    jobs: list[Job] = []
    foreign: list[str] = []
    chains: dict[str, list[tuple[int, Found]]] = {}
    for each in sorted(found):
        media_type = spec.media.get("." + each.name.rpartition(".")[2].lower()) if "." in each.name else None
        recording = recording_of(each.name) if spec.kind is FileKind.RECORDING else None
        if media_type is None:
            foreign.append(each.name)
        elif recording is None or recording not in recordings or _number(each.name) < recordings[recording].next:
            jobs.append(Job(each, media_type, None))
        else:
            chains.setdefault(recording, []).append((_number(each.name), each))
    ended: dict[str, str] = {}
    for recording in sorted({*chains, *closes}):
        ready, done = _chain(
            recordings.get(recording, Recording(recording)),
            chains.get(recording, ()),
            closes.get(recording),
            abnormal_s,
        )
        jobs += [Job(each, spec.media["." + each.name.rpartition(".")[2]], place) for each, place in ready]
        if done and not ready:
            ended[recording] = closes[recording]
    return Plan(tuple(jobs), tuple(foreign), ended)


def _number(name: str) -> int:
    found = _SEGMENT.match(name)
    assert found is not None
    return int(found["number"])


def _chain(
    recording: Recording, segments: Sequence[tuple[int, Found]], close: str | None, abnormal_s: float
) -> tuple[list[tuple[Found, Place]], bool]:
    """Segments that may be sealed, and whether nothing of it is left."""
    out: list[tuple[Found, Place]] = []
    expected = recording.next
    for at, (number, found) in enumerate(segments):
        newest = at == len(segments) - 1
        overdue = found.waited_s >= abnormal_s
        if (number > expected or (newest and close is None)) and not overdue:
            return out, False
        last = newest and close is not None
        reason = (close or "") if last else ABNORMAL if newest else ""
        out.append((found, Place(recording.recording, number, last, reason, number - expected)))
        expected = number + 1
    return out, close is not None
