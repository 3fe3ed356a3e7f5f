"""Files on their way: what devices say goes in, what they are told comes out. One thread, a group at a time.

Order is everything. Chunks of a group are written; then every file that was written to is synced; then what came is
committed; then devices are told. So a chunk that a device is told of is on the disk, and one that a fault took
between those steps is still missing and comes again.

What does not fit what is known changes nothing: the same chunk with other bytes is counted and told in the log, and
the first one stays. What is wrong in it, if anything, is found when the file is read again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from broker_config import limits, transfer
from broker_config.device_classes import Priority
from broker_config.ids import DeviceId
from broker_config.manifest import Manifest, upload_id
from broker_config.merkle import HASH_BYTES, leaf_hash
from broker_config.ranges import Ranges, RangeSet
from broker_config.text import shown
from broker_config.transfer import (
    LEAVES_MAX,
    BadTransferError,
    Chunk,
    Code,
    DownMessage,
    Leaves,
    Offer,
    Query,
    Receipted,
    Reject,
    State,
    Withdraw,
    decode_chunk,
    decode_up,
)
from fleet_server.evidence import inspection
from fleet_server.evidence.admission import (
    DAY_MS,
    DISK_AGAIN_S,
    Bounds,
    Offered,
    RefusedError,
    Room,
    Trust,
    check_room,
    offered,
)
from fleet_server.evidence.finishing import Damaged, Failed, Finished, Kept
from fleet_server.evidence.receipts import receipted
from fleet_server.evidence.uploads import ChunkHash, Incoming, Phase, Upload, UploadError, UploadStore
from fleet_server.evidence.windows import Windows

IDLE_S: Final = 3_600.0
"""An upload that its device has not mentioned for so long is not one that it works at."""
CHECKS_MAX: Final = 5
"""A file that was damaged so often in a row waits before it is read again: the disk is not to be trusted."""
CHECK_AGAIN_S: Final = 600
WAIT_S: Final = int(limits.UPLOAD_WAIT_S)
WRITE_AGAIN_S: Final = 5
"""After a write that failed: the disk may be well again at once."""
RETRY_S: Final = 5.0
"""After what failed for a reason that is not the file's."""


class Said(NamedTuple):
    """A message of a device; ``chunk``: on ``up/chunk``."""

    device: DeviceId
    payload: bytes
    chunk: bool
    via: str = "mqtt"


class Told(NamedTuple):
    """What a device is told."""

    device: DeviceId
    message: DownMessage


@dataclass(slots=True)
class Outcome:
    """``whole``: to be finished, and the hashes that the device gave. ``done``: asked for: entered once more, and
    receipted then. ``due``: to be receipted.
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
class _Open:
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


@dataclass(slots=True)
class _Group:
    """Of one call: what is not committed yet."""

    opened: dict[str, Upload] = field(default_factory=dict)
    chunks: dict[tuple[str, int], bytes] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    answer: dict[str, None] = field(default_factory=dict)
    """Uploads that get a state, in the order in which they were mentioned."""
    refused: dict[tuple[DeviceId, str], Reject] = field(default_factory=dict)


class Transfer:
    """See the module. ``has_content``: whether the store has a content by its SHA-256."""

    def __init__(
        self,
        uploads: UploadStore,
        incoming: Incoming,
        windows: Windows,
        trust: Trust,
        bounds: Bounds,
        *,
        has_content: Callable[[str], bool],
    ) -> None:
        self._uploads = uploads
        self._incoming = incoming
        self._windows = windows
        self._trust = trust
        self._bounds = bounds
        self._has_content = has_content
        self._open: dict[str, _Open] = {}
        self._of_device: dict[str, dict[str, _Open]] = {}
        self._asked: set[str] = set()
        self.counts: Counter[str] = Counter()

    # what is there at the start

    def begin(self, *, now_s: float) -> Outcome:
        """Take up what is unfinished. Raises UploadError."""
        out = Outcome()
        unfinished = self._uploads.unfinished()
        known = {upload.upload for upload, _ in unfinished}
        for name in self._incoming.names():
            found = None if name in known else self._uploads.find(name)
            if name not in known and (found is None or found.phase is Phase.DONE):
                self._incoming.remove(name)  # nobody was told that anything of it is here, or all of it is kept
        for upload, ranges in unfinished:
            held = RangeSet(ranges)
            if self._incoming.path(upload.upload) is None and not self._has_content(upload.manifest.sha256):
                if held:
                    self._uploads.forget(upload.upload, None)
                    held = RangeSet()
                self._incoming.create(upload.upload, upload.manifest.size)
            each = self._enter(upload, held, now_s - IDLE_S)
            if self._incoming.path(upload.upload) is None or self._is_whole(each):
                self._check(each, out)
        return out

    # what devices say

    def take(self, said: Sequence[Said], *, now_ms: int, now_s: float) -> Outcome:
        """A group of messages, in their order."""
        out, group = Outcome(), _Group()
        for each in said:
            try:
                if each.chunk:
                    self._take_chunk(each, decode_chunk(each.payload), group, out, now_s)
                else:
                    self._take_word(each, decode_up(each.payload), group, out, now_ms, now_s)
            except BadTransferError as error:
                self._suspect(out, "malformed", each.device, shown(error))
            except UploadError as error:  # nothing was changed, and nobody told; the device asks again
                self.counts["write_failures"] += 1
                out.suspect.append(f"not taken: {each.device}: {shown(error)}")
        self._settle(group, out, now_ms=now_ms, now_s=now_s)
        return out

    def _take_word(
        self, said: Said, word: transfer.UpMessage, group: _Group, out: Outcome, now_ms: int, now_s: float
    ) -> None:
        match word:
            case Offer():
                self._take_offer(said, word, group, out, now_ms, now_s)
            case Query():
                self._mentioned(said.device, word.upload, group, out, now_s)
            case Leaves():
                each = self._mentioned(said.device, word.upload, group, out, now_s)
                if each is not None and each.stage is Stage.ASKING:
                    self._take_leaves(each, word, group, out, now_ms)
            case Withdraw():
                each = self._mentioned(said.device, word.upload, group, out, now_s)
                if each is not None and each.stage is not Stage.CHECKING:
                    group.answer.pop(word.upload, None)
                    self._end(each, Phase.WITHDRAWN, word.reason, now_ms)
                    self.counts["withdrawn"] += 1

    def _take_offer(self, said: Said, offer: Offer, group: _Group, out: Outcome, now_ms: int, now_s: float) -> None:
        name = upload_id(offer.manifest.payload)
        self.counts["offers"] += 1
        try:
            found = offered(offer, said.device, self._trust)
            if self._open.get(name) is None and not self._is_over(found, group, out, now_ms, now_s):
                self._begin_upload(said, offer.priority, found, group, now_ms, now_s)
        except RefusedError as error:
            self.counts[f"refused_{error.code}"] += 1
            out.suspect.append(f"refused: {said.device}: {error.code}: {shown(error)}")
            group.refused[said.device, name] = Reject(1, name, error.code, error.again_s, shown(error))
            return
        each = self._open.get(name)
        if each is not None:
            each.touched_s = now_s
            group.answer[name] = None

    def _is_over(self, found: Offered, group: _Group, out: Outcome, now_ms: int, now_s: float) -> bool:
        """Whether it is done: then it is receipted again. One that its device gave up goes on."""
        try:
            kept = self._uploads.find(found.upload)
            if kept is None:
                return False
            match kept.phase:
                case Phase.DONE:
                    self._ask_for_receipt(kept, out)
                    return True
                case Phase.FALSE:
                    raise RefusedError(Code.MALFORMED, kept.why)
                case Phase.WITHDRAWN | Phase.OPEN:
                    self._check_room(found, group, now_ms, now_s)
                    self._uploads.end(kept.upload, Phase.OPEN, "", now_ms=now_ms)
                    self._resume(kept._replace(phase=Phase.OPEN), now_s)
                    return True
        except UploadError as error:
            raise RefusedError(Code.DISK, shown(error), again_s=DISK_AGAIN_S) from error

    def _resume(self, upload: Upload, now_s: float) -> None:
        """Its chunks come again: why it was given up is not known to be past."""
        self._uploads.forget(upload.upload, None)
        self._incoming.create(upload.upload, upload.manifest.size)
        self._enter(upload, RangeSet(), now_s)

    def _begin_upload(
        self,
        said: Said,
        priority: Priority,
        found: Offered,
        group: _Group,
        now_ms: int,
        now_s: float,
    ) -> None:
        self._check_room(found, group, now_ms, now_s)
        upload = Upload(
            found.upload,
            said.device,
            found.manifest,
            found.envelope,
            found.certificate,
            tuple(found.doubts),
            priority,
            said.via,
            now_ms,
            now_ms,
        )
        here = self._has_content(found.manifest.sha256)
        if not here:
            try:
                self._incoming.create(found.upload, found.manifest.size)
            except UploadError as error:
                raise RefusedError(Code.DISK, shown(error), again_s=DISK_AGAIN_S) from error
        group.opened[found.upload] = upload
        each = self._enter(upload, RangeSet(), now_s)
        if here:
            each.stage = Stage.CHECKING  # settled with the group: what is not committed is not finished
        for doubt in found.doubts:
            self.counts[f"doubt_{doubt}"] += 1

    def _check_room(self, found: Offered, group: _Group, now_ms: int, now_s: float) -> None:
        try:
            disk_bytes, free_bytes = self._incoming.disk()
            today = self._uploads.offered_bytes(found.manifest.device, since_ms=now_ms - DAY_MS)
        except UploadError as error:
            raise RefusedError(Code.DISK, shown(error), again_s=DISK_AGAIN_S) from error
        mine = self._of_device.get(found.manifest.device, {}).values()
        room = Room(
            disk_bytes,
            free_bytes,
            sum(self._promised(each) for each in self._open.values()),
            sum(now_s - each.touched_s < IDLE_S for each in mine),
            today + sum(new.manifest.size for new in group.opened.values() if new.device == found.manifest.device),
        )
        check_room(found.manifest.size, room, self._bounds)

    @staticmethod
    def _promised(each: _Open) -> int:
        held = sum(high - low + 1 for low, high in each.held.ranges())
        return max(0, each.manifest.size - held * each.manifest.chunk_bytes)

    def _mentioned(self, device: DeviceId, name: str, group: _Group, out: Outcome, now_s: float) -> _Open | None:
        """The open upload of that name; it is answered with its state, or what else it is by now."""
        each = self._open.get(name)
        if each is not None and each.device == device:
            each.touched_s = now_s
            group.answer[name] = None
            return each
        try:
            kept = self._uploads.find(name)
        except UploadError:
            return None  # the device asks again
        if kept is not None and kept.device == device and kept.phase is Phase.DONE:
            self._ask_for_receipt(kept, out)
            return None
        if kept is not None and kept.device != device:
            self._suspect(out, "foreign", device, f"{name} is an upload of {kept.device}")
        group.refused[device, name] = Reject(1, name, Code.UNKNOWN)
        return None

    # chunks

    def _take_chunk(self, said: Said, chunk: Chunk, group: _Group, out: Outcome, now_s: float) -> None:
        each = self._mentioned(said.device, chunk.upload, group, out, now_s)
        if each is None or chunk.upload in group.failed or each.stage is Stage.CHECKING:
            return
        size = len(chunk.data)
        if chunk.number >= each.manifest.chunks or size != each.manifest.chunk_size(chunk.number):
            self._suspect(out, "misfit", said.device, f"{chunk.upload} chunk {chunk.number} of {size} bytes")
            return
        leaf = leaf_hash(chunk.data)
        there = self._leaf_there(each, chunk.number, group)
        if there is not None:
            self.counts["duplicate_chunks"] += 1
            self.counts["duplicate_bytes"] += size
            if there != leaf:
                self._suspect(out, "conflict", said.device, f"{chunk.upload} chunk {chunk.number} has other bytes")
            return
        try:
            self._incoming.write(chunk.upload, chunk.number * each.manifest.chunk_bytes, chunk.data)
        except UploadError as error:
            self._not_written(each, group, error)
            return
        group.written.add(chunk.upload)
        group.chunks[chunk.upload, chunk.number] = leaf

    def _leaf_there(self, each: _Open, number: int, group: _Group) -> bytes | None:
        name = each.upload.upload
        if number not in each.held:
            return group.chunks.get((name, number))
        try:
            return self._uploads.leaf(name, number) or b""
        except UploadError:
            return b""

    def _not_written(self, each: _Open, group: _Group, error: UploadError) -> None:
        """Nothing of this group counts for it; what was committed before stays."""
        name = each.upload.upload
        self.counts["write_failures"] += 1
        group.failed.add(name)
        group.written.discard(name)
        for key in [key for key in group.chunks if key[0] == name]:
            del group.chunks[key]
        group.answer.pop(name, None)
        group.refused[each.device, name] = Reject(1, name, Code.DISK, WRITE_AGAIN_S, shown(error))

    # after a group

    def _settle(self, group: _Group, out: Outcome, *, now_ms: int, now_s: float) -> None:
        for name in sorted(group.written):
            try:
                self._incoming.sync(name)
            except UploadError as error:
                self._not_written(self._open[name], group, error)
        chunks = [ChunkHash(name, number, leaf) for (name, number), leaf in group.chunks.items()]
        if chunks or group.opened:
            try:
                self._uploads.commit(list(group.opened.values()), chunks, now_ms=now_ms)
            except UploadError as error:
                self._not_committed(group, error)
                chunks = []
        self._count_in(chunks, now_ms, now_s)
        for name in group.answer:
            each = self._open[name]
            if each.stage is Stage.CHECKING and name in group.opened:
                out.whole.append((each.upload, ()))
            elif each.stage is Stage.TAKING and self._is_whole(each):
                self._check(each, out)
            out.told.append(Told(each.device, self._state(each, now_s)))
        out.told += [Told(device, reject) for (device, _), reject in group.refused.items()]

    def _not_committed(self, group: _Group, error: UploadError) -> None:
        for name in group.opened:
            each = self._open[name]
            self._not_written(each, group, error)
            self._leave(each)
        for name in {name for name, _ in group.chunks}:
            self._not_written(self._open[name], group, error)

    def _count_in(self, chunks: Sequence[ChunkHash], now_ms: int, now_s: float) -> None:
        sizes: Counter[str] = Counter()
        for chunk in chunks:
            each = self._open[chunk.upload]
            each.held.add(chunk.number)
            each.changed_ms = now_ms
            sizes[each.device] += each.manifest.chunk_size(chunk.number)
        for device, size in sizes.items():
            self._windows.durable(device, size, now_s)
        self.counts["chunks"] += len(chunks)
        self.counts["bytes"] += sizes.total()

    def _state(self, each: _Open, now_s: float) -> State:
        name = each.upload.upload
        if each.stage is Stage.ASKING:
            return State(1, name, (), 0, again_s=1, leaves=True)
        missing: Ranges = ()
        more = False
        if each.stage is Stage.TAKING:
            missing, more = inspection.missing(each.held.ranges(), each.manifest.chunks, limits.RANGES_MAX)
        if not self._takes(each.device):
            self._windows.rest(each.device)
            return State(1, name, missing, 0, again_s=WAIT_S)
        granted = self._windows.grant(each.device, each.manifest.chunk_bytes, now_s)
        return State(1, name, missing, granted.window_bytes, more=more, again_s=granted.again_s)

    def _takes(self, device: str) -> bool:
        return any(each.stage is Stage.TAKING for each in self._of_device.get(device, {}).values())

    # reading again

    def _check(self, each: _Open, out: Outcome, leaves: Sequence[bytes] = ()) -> None:
        each.stage = Stage.CHECKING
        self._incoming.drop(each.upload.upload)
        out.whole.append((each.upload, leaves))

    def finished(self, result: Finished, *, now_ms: int, now_s: float) -> Outcome:
        """What came of a file that was whole."""
        out = Outcome()
        each = self._open.get(result.upload)
        try:
            if each is None:
                self._entered_again(result, out, now_ms, now_s)
                return out
            match result:
                case Kept():
                    self._uploads.done(result.upload, result.place, replicated=result.replicated, now_ms=now_ms)
                    done = each.upload._replace(phase=Phase.DONE, place=result.place, replicated=result.replicated)
                    out.due.append((each.device, receipted(done)))
                    self.counts["kept"] += 1
                    self._leave(each)
                case Damaged():
                    self._damaged(each, result.bad, out, now_ms, now_s)
                case Failed():
                    self.counts["finish_failures"] += 1
                    each.check_at_s = now_s + RETRY_S
        except UploadError:
            self.counts["finish_failures"] += 1
            if each is not None:
                each.check_at_s = now_s + RETRY_S
        return out

    def _ask_for_receipt(self, kept: Upload, out: Outcome) -> None:
        if kept.upload not in self._asked:
            self._asked.add(kept.upload)
            out.done.append(kept)

    def _entered_again(self, result: Finished, out: Outcome, now_ms: int, now_s: float) -> None:
        self._asked.discard(result.upload)
        kept = self._uploads.find(result.upload)
        if kept is None or kept.phase is not Phase.DONE:
            return
        device = DeviceId(kept.device)
        match result:
            case Kept():
                if result.place != kept.place:
                    self._uploads.done(kept.upload, result.place, replicated=kept.replicated, now_ms=now_ms)
                    out.suspect.append(f"{kept.upload} of {device}: entered again, the register had lost it")
                out.due.append((device, receipted(kept._replace(place=result.place))))
            case Damaged():
                out.suspect.append(f"{kept.upload} of {device}: neither entered nor in the store; it comes again")
                self._uploads.end(kept.upload, Phase.OPEN, "", now_ms=now_ms)
                self._resume(kept._replace(phase=Phase.OPEN, place=None), now_s)
                each = self._open[kept.upload]
                out.told.append(Told(device, self._state(each, now_s)))
            case Failed():
                self.counts["finish_failures"] += 1  # the device asks again

    def _damaged(self, each: _Open, bad: Sequence[int], out: Outcome, now_ms: int, now_s: float) -> None:
        name = each.upload.upload
        self.counts["damaged_chunks"] += len(bad)
        each.checks += 1
        if bad:
            self._uploads.forget(name, bad)
            if self._incoming.path(name) is None:
                self._incoming.create(name, each.manifest.size)
            each.held = RangeSet(inspection.without(each.held.ranges(), bad))
            each.given.clear()
            each.stage = Stage.TAKING
            out.suspect.append(f"{name} of {each.device}: {len(bad)} chunks were not on the disk as they came")
            if each.checks >= CHECKS_MAX:
                each.checks = 0
                out.told.append(Told(each.device, Reject(1, name, Code.DISK, CHECK_AGAIN_S, "the disk damages it")))
                return
        elif each.given:  # the chunks are what the device says, and their root is the manifest's: its SHA-256 is not
            self._is_false(each, out, now_ms)
            return
        else:
            each.stage = Stage.ASKING
        out.told.append(Told(each.device, self._state(each, now_s)))

    def _take_leaves(self, each: _Open, word: Leaves, group: _Group, out: Outcome, now_ms: int) -> None:
        at = word.first * HASH_BYTES
        if at > len(each.given) or len(word.hashes) % HASH_BYTES or len(word.hashes) > LEAVES_MAX * HASH_BYTES:
            each.given.clear()
            return
        each.given[at:] = word.hashes
        if len(each.given) < each.manifest.chunks * HASH_BYTES:
            return
        hashes = bytes(each.given)
        group.answer.pop(each.upload.upload, None)
        if inspection.are_leaves_of(each.manifest, hashes):
            self._check(each, out, inspection.split(hashes))
        else:
            self._is_false(each, out, now_ms)

    def _is_false(self, each: _Open, out: Outcome, now_ms: int) -> None:
        self._suspect(out, "false", each.device, f"{each.upload.upload}: {inspection.ALL}")
        self._end(each, Phase.FALSE, inspection.ALL, now_ms)
        out.told.append(Told(each.device, Reject(1, each.upload.upload, Code.MALFORMED, 0, inspection.ALL)))

    # from time to time

    def look(self, *, now_s: float) -> Outcome:
        """What is due: checks that failed, and windows for who waited."""
        out = Outcome()
        for each in self._open.values():
            if each.check_at_s is not None and now_s >= each.check_at_s:
                each.check_at_s = None
                self._check(each, out, inspection.split(bytes(each.given)))
        for device in self._windows.look(now_s):
            ready = [one for one in self._of_device.get(device, {}).values() if one.stage is Stage.TAKING]
            if not ready:
                self._windows.rest(device)
                continue
            out.told.append(Told(ready[0].device, self._state(ready[0], now_s)))
        return out

    def stale(self, *, before_ms: int) -> int:
        """Open uploads of which nothing has come since then."""
        return sum(each.changed_ms < before_ms for each in self._open.values())

    @property
    def open_uploads(self) -> int:
        """Those that are under way."""
        return len(self._open)

    # the table of open uploads

    def _enter(self, upload: Upload, held: RangeSet, touched_s: float) -> _Open:
        each = _Open(upload, held, touched_s, upload.changed_ms)
        self._open[upload.upload] = each
        self._of_device.setdefault(upload.device, {})[upload.upload] = each
        return each

    def _leave(self, each: _Open) -> None:
        name = each.upload.upload
        self._incoming.drop(name)
        del self._open[name]
        of_device = self._of_device[each.device]
        del of_device[name]
        if not of_device:
            del self._of_device[each.device]
        if not self._takes(each.device):
            self._windows.rest(each.device)

    def _end(self, each: _Open, phase: Phase, why: str, now_ms: int) -> None:
        self._uploads.end(each.upload.upload, phase, why, now_ms=now_ms)
        self._leave(each)

    @staticmethod
    def _is_whole(each: _Open) -> bool:
        return each.held.ranges() == ((0, each.manifest.chunks - 1),)

    def _suspect(self, out: Outcome, kind: str, device: DeviceId, detail: str) -> None:
        self.counts[kind] += 1
        out.suspect.append(f"{kind}: {device}: {detail}")
