"""Files on their way: what devices say goes in, what they are told comes out. One thread, a group at a time, and
others that wait for the disk while the next group is written.

Order is everything. Chunks of a group are written; then every file that was written to is synced; then what came is
committed; then devices are told. So a chunk that a device is told of is on the disk, and one that a fault took
between those steps is still missing and comes again. Where a sync fails, what later groups wrote to that file
meanwhile counts as little: the kernel tells an error once, whichever bytes it took.

What does not fit what is known changes nothing: the same chunk with other bytes is counted and told in the log, and
the first one stays. What is wrong in it, if anything, is found when the file is read again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from broker_config import transfer
from broker_config.device_classes import Priority
from broker_config.ids import DeviceId
from broker_config.manifest import upload_id
from broker_config.ranges import RangeSet
from broker_config.text import shown
from broker_config.transfer import (
    BadTransferError,
    CheckedChunk,
    Chunk,
    Code,
    Leaves,
    Offer,
    Query,
    Reject,
    Withdraw,
    checked,
    decode_chunk,
    decode_up,
)
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
from fleet_server.evidence.checks import Checks
from fleet_server.evidence.content import ContentError
from fleet_server.evidence.facts import Progress
from fleet_server.evidence.finishing import Finished
from fleet_server.evidence.groups import Group
from fleet_server.evidence.underway import OpenUpload, Outcome, Put, Said, Stage, Told, UnderWay
from fleet_server.evidence.uploads import Phase, Upload, UploadError

IDLE_S: Final = 3_600.0
"""An upload that its device has not mentioned for so long is not one that it works at."""
UNKNOWN_CRC: Final = -1


class Transfer:
    """See the module. ``has_content``: whether the store has a content by its SHA-256."""

    def __init__(
        self,
        table: UnderWay,
        trust: Trust,
        bounds: Bounds,
        *,
        has_content: Callable[[str], bool],
    ) -> None:
        self._table = table
        self._checks = Checks(table)
        self._trust = trust
        self._bounds = bounds
        self._has_content = has_content
        self._begun = 0
        self._unsettled: list[Group] = []
        self._unsynced: dict[str, tuple[UploadError, int]] = {}
        """Of the disk's thread: uploads that a sync failed for, and the last group that it failed for."""

    @property
    def counts(self) -> Counter[str]:
        """What happened since the start."""
        return self._table.counts

    def finished(self, result: Finished, *, now_ms: int, now_s: float) -> Outcome:
        """See :meth:`Checks.finished`."""
        return self._checks.finished(result, now_ms=now_ms, now_s=now_s)

    def look(self, *, now_s: float) -> Outcome:
        """See :meth:`Checks.look`."""
        return self._checks.look(now_s=now_s)

    def begin(self, *, now_s: float) -> Outcome:
        """Take up what is unfinished. Raises UploadError."""
        out = Outcome()
        unfinished = self._table.uploads.unfinished()
        known = {upload.upload for upload, _ in unfinished}
        for name in self._table.incoming.names():
            found = None if name in known else self._table.uploads.find(name)
            if name not in known and (found is None or found.phase is Phase.DONE):
                self._table.uploads.forget(name, None)  # of chunks that came before it was known that it is not open
                self._table.incoming.remove(name)  # nobody was told that anything of it is here, or all of it is kept
        for upload, ranges in unfinished:
            held = RangeSet(ranges)
            if self._table.incoming.path(upload.upload) is None and not self._has_content(upload.manifest.sha256):
                if held:
                    self._table.uploads.forget(upload.upload, None)
                    held = RangeSet()
                self._table.incoming.create(upload.upload, upload.manifest.size)
            each = self._table.enter(upload, held, now_s - IDLE_S)
            if self._table.incoming.path(upload.upload) is None or self._table.is_whole(each):
                self._table.check(each, out)
        return out

    def take(self, said: Sequence[Said | Put], *, now_ms: int, now_s: float) -> Outcome:
        """A group of messages, in their order: the four steps one after the other."""
        group = self.write(said, now_ms=now_ms, now_s=now_s)
        self.sync(group)
        self.commit(group, now_ms=now_ms)
        return self.settle(group, now_ms=now_ms, now_s=now_s)

    def write(self, said: Sequence[Said | Put], *, now_ms: int, now_s: float) -> Group:
        """The first step: nothing of it is durable, and nobody is told of it. Groups before may be unsettled."""
        self._begun += 1
        group = Group(self._begun)
        out = group.out
        for each in said:
            try:
                if isinstance(each, Put):
                    self._take_put(each, group, out, now_s)
                elif each.chunk:
                    self._take_chunk(each.device, decode_chunk(each.payload), group, out, now_s)
                else:
                    self._take_word(each, decode_up(each.payload), group, out, now_ms, now_s)
            except BadTransferError as error:
                self._table.suspect(out, "malformed", each.device, shown(error))
            except UploadError as error:  # nothing was changed, and nobody told; the device asks again
                self._table.counts["write_failures"] += 1
                out.suspect.append(f"not taken: {each.device}: {shown(error)}")
        self._unsettled.append(group)
        return group

    def sync(self, group: Group) -> None:
        """The second: what it wrote is durable, or known not to be. Another thread may do it while later groups are
        written, for one after the other in their order.
        """
        self._unsynced = {name: each for name, each in self._unsynced.items() if each[1] >= group.number}
        for name in sorted(group.to):
            try:
                if name in self._unsynced:
                    raise self._unsynced[name][0]
                self._table.incoming.sync(name)
            except UploadError as error:
                group.unsynced[name] = error
                self._unsynced.setdefault(name, (error, self._begun))

    def commit(self, group: Group, *, now_ms: int) -> None:
        """The third: so is what is known of it. A third thread may do it, in the same order."""
        chunks = group.synced()
        if chunks or group.opened:
            try:
                self._table.uploads.commit(list(group.opened.values()), chunks, now_ms=now_ms)
            except UploadError as error:
                group.uncommitted = error

    def settle(self, group: Group, *, now_ms: int, now_s: float) -> Outcome:
        """The fourth, on the thread of the first: devices are told."""
        self._unsettled.remove(group)
        for name, error in group.unsynced.items():
            self._not_written(name, group.to[name].device, group, error)
        if group.uncommitted is not None:
            self._not_committed(group, group.uncommitted)
        self._count_in(group, now_ms, now_s)
        out = group.out
        for name in group.answer:
            each = self._table.open.get(name)
            if each is None:
                continue  # it ended meanwhile
            if each.stage is Stage.CHECKING and name in group.opened:
                out.whole.append((each.upload, ()))
            elif each.stage is Stage.TAKING and self._table.is_whole(each):
                self._table.check(each, out)
            out.told.append(Told(each.device, self._table.state(each, now_s)))
        out.told += [Told(device, reject) for (device, _), reject in group.refused.items()]
        return out

    def _take_word(
        self, said: Said, word: transfer.UpMessage, group: Group, out: Outcome, now_ms: int, now_s: float
    ) -> None:
        match word:
            case Offer():
                self._take_offer(said, word, group, out, now_ms, now_s)
            case Query():
                self._mentioned(said.device, word.upload, group, out, now_s)
            case Leaves():
                each = self._mentioned(said.device, word.upload, group, out, now_s)
                if each is not None and each.stage is Stage.ASKING:
                    group.answer.pop(word.upload, None)
                    self._checks.take_leaves(each, word, out, now_ms=now_ms)
            case Withdraw():
                each = self._mentioned(said.device, word.upload, group, out, now_s)
                if each is not None and each.stage is not Stage.CHECKING:
                    group.answer.pop(word.upload, None)
                    self._table.end(each, Phase.WITHDRAWN, word.reason, now_ms)
                    self._table.counts["withdrawn"] += 1

    def _take_offer(self, said: Said, offer: Offer, group: Group, out: Outcome, now_ms: int, now_s: float) -> None:
        name = upload_id(offer.manifest.payload)
        self._table.counts["offers"] += 1
        try:
            found = offered(offer, said.device, self._trust)
            if self._table.open.get(name) is None and not self._is_over(found, group, out, now_ms, now_s):
                self._begin_upload(said, offer.priority, found, group, now_ms, now_s)
        except RefusedError as error:
            self._table.counts[f"refused_{error.code}"] += 1
            out.suspect.append(f"refused: {said.device}: {error.code}: {shown(error)}")
            group.refused[said.device, name] = Reject(1, name, error.code, error.again_s, shown(error))
            return
        each = self._table.open.get(name)
        if each is not None:
            each.touched_s = now_s
            group.answer[name] = None

    def _is_over(self, found: Offered, group: Group, out: Outcome, now_ms: int, now_s: float) -> bool:
        """Whether it is done: then it is receipted again. One that its device gave up goes on."""
        try:
            kept = self._table.uploads.find(found.upload)
            if kept is None:
                return False
            match kept.phase:
                case Phase.DONE:
                    self._checks.ask_for_receipt(kept, out)
                    return True
                case Phase.FALSE:
                    raise RefusedError(Code.MALFORMED, kept.why)
                case _:
                    self._check_room(found, group, now_ms, now_s)
                    self._table.uploads.end(kept.upload, Phase.OPEN, "", now_ms=now_ms)
                    self._table.resume(kept._replace(phase=Phase.OPEN), now_s)
                    return True
        except UploadError as error:
            raise RefusedError(Code.DISK, shown(error), again_s=DISK_AGAIN_S) from error

    def _begin_upload(
        self,
        said: Said,
        priority: Priority,
        found: Offered,
        group: Group,
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
        try:
            here = self._has_content(found.manifest.sha256)
            if not here:
                self._table.incoming.create(found.upload, found.manifest.size)
        except (UploadError, ContentError) as error:
            raise RefusedError(Code.DISK, shown(error), again_s=DISK_AGAIN_S) from error
        group.opened[found.upload] = upload
        each = self._table.enter(upload, RangeSet(), now_s)
        if here:
            each.stage = Stage.CHECKING  # settled with the group: what is not committed is not finished
        for doubt in found.doubts:
            self._table.counts[f"doubt_{doubt}"] += 1

    def _check_room(self, found: Offered, group: Group, now_ms: int, now_s: float) -> None:
        try:
            disk_bytes, free_bytes = self._table.incoming.disk()
            today = self._table.uploads.offered_bytes(found.manifest.device, since_ms=now_ms - DAY_MS)
        except UploadError as error:
            raise RefusedError(Code.DISK, shown(error), again_s=DISK_AGAIN_S) from error
        opened = [new for each in (*self._unsettled, group) for new in each.opened.values()]
        mine = self._table.of_device.get(found.manifest.device, {}).values()
        room = Room(
            disk_bytes,
            free_bytes,
            sum(self._table.promised(each) for each in self._table.open.values()),
            sum(now_s - each.touched_s < IDLE_S for each in mine),
            today + sum(new.manifest.size for new in opened if new.device == found.manifest.device),
        )
        check_room(found.manifest.size, room, self._bounds)

    def _mentioned(self, device: DeviceId, name: str, group: Group, out: Outcome, now_s: float) -> OpenUpload | None:
        """The open upload of that name; it is answered with its state, or what else it is by now."""
        each = self._table.open.get(name)
        if each is not None and each.device == device:
            each.touched_s = now_s
            group.answer[name] = None
            return each
        try:
            kept = self._table.uploads.find(name)
        except UploadError:
            return None  # the device asks again
        if kept is not None and kept.device == device and kept.phase is Phase.DONE:
            self._checks.ask_for_receipt(kept, out)
            return None
        if kept is not None and kept.device != device:
            self._table.suspect(out, "foreign", device, f"{name} is an upload of {kept.device}")
        group.refused[device, name] = Reject(1, name, Code.UNKNOWN)
        return None

    def _take_put(self, put: Put, group: Group, out: Outcome, now_s: float) -> None:
        each = self._mentioned(put.device, put.upload, group, out, now_s)
        if each is None:
            return
        size, data = each.manifest.chunk_bytes, memoryview(put.data)
        for place, at in enumerate(range(0, len(data), size)):
            chunk = checked(Chunk(put.upload, put.first + place, data[at : at + size]))
            self._take_chunk(put.device, chunk, group, out, now_s)

    def _take_chunk(self, device: DeviceId, chunk: CheckedChunk, group: Group, out: Outcome, now_s: float) -> None:
        each = self._mentioned(device, chunk.upload, group, out, now_s)
        if each is None or chunk.upload in group.failed or each.stage is Stage.CHECKING:
            return
        size = len(chunk.data)
        if chunk.number >= each.manifest.chunks or size != each.manifest.chunk_size(chunk.number):
            self._table.suspect(out, "misfit", device, f"{chunk.upload} chunk {chunk.number} of {size} bytes")
            return
        there = self._crc_there(each, chunk.number, group)
        if there is not None:
            self._table.counts["duplicate_chunks"] += 1
            self._table.counts["duplicate_bytes"] += size
            if there not in {chunk.crc, UNKNOWN_CRC}:
                self._table.suspect(out, "conflict", device, f"{chunk.upload} chunk {chunk.number} has other bytes")
            return
        try:
            self._table.incoming.write(chunk.upload, chunk.number * each.manifest.chunk_bytes, chunk.data)
        except UploadError as error:
            self._not_written(chunk.upload, device, group, error)
            return
        group.to[chunk.upload] = each
        group.chunks[chunk.upload, chunk.number] = chunk.crc

    def _crc_there(self, each: OpenUpload, number: int, group: Group) -> int | None:
        name = each.upload.upload
        if number not in each.held:
            found = (one.crc(each, number) for one in (group, *self._unsettled))
            return next((crc for crc in found if crc is not None), None)
        try:
            crc = self._table.uploads.crc(name, number)
        except UploadError:
            return UNKNOWN_CRC
        return UNKNOWN_CRC if crc is None else crc

    def _not_written(self, name: str, device: DeviceId, group: Group, error: UploadError) -> None:
        if group.lose(name, device, error):
            self._table.counts["write_failures"] += 1

    def _not_committed(self, group: Group, error: UploadError) -> None:
        for name in group.opened:
            each = self._table.open.get(name)
            if each is None:
                continue
            self._not_written(name, each.device, group, error)
            self._table.leave(each)
        for name, each in list(group.to.items()):
            self._not_written(name, each.device, group, error)

    def _count_in(self, group: Group, now_ms: int, now_s: float) -> None:
        sizes: Counter[str] = Counter()
        for name, number in group.chunks:
            each = group.to[name]
            if self._table.open.get(name) is not each:
                continue
            each.held.add(number)
            each.changed_ms = now_ms
            sizes[each.device] += each.manifest.chunk_size(number)
            self._table.counts["chunks"] += 1
        for device, size in sizes.items():
            self._table.windows.durable(device, size, now_s)
        self._table.counts["bytes"] += sizes.total()

    def stale(self, *, before_ms: int) -> int:
        """Open uploads of which nothing has come since then."""
        return sum(each.changed_ms < before_ms for each in self._table.open.values())

    def progress(self) -> list[Progress]:
        """Of each that is under way; any thread."""
        return self._table.progress()

    @property
    def open_uploads(self) -> int:
        """Those that are under way."""
        return len(self._table.open)
