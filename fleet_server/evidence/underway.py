"""Uploads that are under way, in memory: which there are, where each is, and what its device is told of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from broker_config import limits
from broker_config.ids import DeviceId
from broker_config.manifest import Manifest
from broker_config.ranges import Ranges, RangeSet
from broker_config.transfer import DownMessage, Receipted, State
from fleet_server.evidence import inspection
from fleet_server.evidence.facts import Progress
from fleet_server.evidence.uploads import Incoming, Phase, Upload, UploadStore
from fleet_server.evidence.windows import Windows

WAIT_S: Final = int(limits.UPLOAD_WAIT_S)


class Said(NamedTuple):
    """A message of a device; ``chunk``: on ``up/chunk``."""

    device: DeviceId
    payload: bytes
    chunk: bool
    via: str = "mqtt"


class Put(NamedTuple):
    """Consecutive chunks of a device's file, from *first* on, without their headers."""

    device: DeviceId
    upload: str
    first: int
    data: bytes
    via: str = "http"


class Told(NamedTuple):
    """What a device is told."""

    device: DeviceId
    message: DownMessage


@dataclass(slots=True)
class Outcome:
    """``whole``: to be finished, and the hashes that the device gave. ``done``: asked for, to be entered once more
    and then receipted. ``due``: to be receipted.
    """

    told: list[Told] = field(default_factory=list)
    whole: list[tuple[Upload, Sequence[bytes]]] = field(default_factory=list)
    done: list[Upload] = field(default_factory=list)
    due: list[tuple[DeviceId, Receipted]] = field(default_factory=list)
    suspect: list[str] = field(default_factory=list)
    """For the log: what nobody who means well says."""


class Stage(StrEnum):
    """Where an open upload is."""

    TAKING = "taking"
    CHECKING = "checking"
    ASKING = "asking"
    """For the hashes of its chunks."""


@dataclass(slots=True)
class OpenUpload:
    """``held``: durable chunks. ``given``: hashes that the device told, one behind the other. ``check_at_s``: when it
    is to be read again, after that failed.
    """

    upload: Upload
    held: RangeSet
    touched_s: float
    changed_ms: int
    stage: Stage = Stage.TAKING
    given: bytearray = field(default_factory=bytearray)
    checks: int = 0
    check_at_s: float | None = None

    @property
    def manifest(self) -> Manifest:
        return self.upload.manifest

    @property
    def device(self) -> DeviceId:
        return DeviceId(self.upload.device)


class UnderWay:
    """One thread. ``open``: by upload; ``of_device``: the same by device."""

    def __init__(self, uploads: UploadStore, incoming: Incoming, windows: Windows) -> None:
        self.uploads = uploads
        self.incoming = incoming
        self.windows = windows
        self.open: dict[str, OpenUpload] = {}
        self.of_device: dict[str, dict[str, OpenUpload]] = {}
        self.counts: Counter[str] = Counter()

    def enter(self, upload: Upload, held: RangeSet, touched_s: float) -> OpenUpload:
        """It is under way from now on."""
        each = OpenUpload(upload, held, touched_s, upload.changed_ms)
        self.open[upload.upload] = each
        self.of_device.setdefault(upload.device, {})[upload.upload] = each
        return each

    def leave(self, each: OpenUpload) -> None:
        """It is not any more."""
        name = each.upload.upload
        self.incoming.drop(name)
        del self.open[name]
        of_device = self.of_device[each.device]
        del of_device[name]
        if not of_device:
            del self.of_device[each.device]
        if not self.takes(each.device):
            self.windows.rest(each.device)

    def end(self, each: OpenUpload, phase: Phase, why: str, now_ms: int) -> None:
        """It goes no further."""
        self.uploads.end(each.upload.upload, phase, why, now_ms=now_ms)
        self.leave(each)

    @staticmethod
    def is_whole(each: OpenUpload) -> bool:
        """Whether every chunk is durable."""
        return each.held.ranges() == ((0, each.manifest.chunks - 1),)

    @staticmethod
    def promised(each: OpenUpload) -> int:
        """Bytes of it that are not on the disk."""
        held = sum(high - low + 1 for low, high in each.held.ranges())
        return max(0, each.manifest.size - held * each.manifest.chunk_bytes)

    def progress(self) -> list[Progress]:
        """Of each; any thread."""
        return [
            Progress(
                each.upload.upload,
                each.device,
                each.manifest.size,
                self.promised(each),
                each.manifest.name,
                each.stage is not Stage.TAKING,
                each.changed_ms,
            )
            # one step of the interpreter: the table may change meanwhile
            for each in list(self.open.values())
        ]

    def state(self, each: OpenUpload, now_s: float) -> State:
        """What its device is told."""
        name = each.upload.upload
        if each.stage is Stage.ASKING:
            return State(1, name, (), 0, again_s=1, leaves=True)
        missing: Ranges = ()
        more = False
        if each.stage is Stage.TAKING:
            missing, more = inspection.missing(each.held.ranges(), each.manifest.chunks, limits.RANGES_MAX)
        if not self.takes(each.device):
            self.windows.rest(each.device)
            return State(1, name, missing, 0, again_s=WAIT_S)
        granted = self.windows.grant(each.device, each.manifest.chunk_bytes, now_s)
        return State(1, name, missing, granted.window_bytes, more=more, again_s=granted.again_s)

    def takes(self, device: str) -> bool:
        """Whether anything of the device's is wanted."""
        return any(each.stage is Stage.TAKING for each in self.of_device.get(device, {}).values())

    def check(self, each: OpenUpload, out: Outcome, leaves: Sequence[bytes] = ()) -> None:
        """It is to be read again."""
        each.stage = Stage.CHECKING
        self.incoming.drop(each.upload.upload)
        out.whole.append((each.upload, leaves))

    def resume(self, upload: Upload, now_s: float) -> None:
        """Its chunks come again: why it was given up is not known to be past."""
        self.uploads.forget(upload.upload, None)
        self.incoming.create(upload.upload, upload.manifest.size)
        self.enter(upload, RangeSet(), now_s)

    def suspect(self, out: Outcome, kind: str, device: DeviceId, detail: str) -> None:
        """Count it, and tell the log."""
        self.counts[kind] += 1
        out.suspect.append(f"{kind}: {device}: {detail}")
