"""What comes of reading files again: kept, chunks that are wanted once more, or a file that is another one."""

from collections.abc import Sequence
from typing import Final

from broker_config.ids import DeviceId
from broker_config.merkle import HASH_BYTES
from broker_config.ranges import RangeSet
from broker_config.transfer import LEAVES_MAX, Code, Leaves, Reject
from fleet_server.evidence import inspection
from fleet_server.evidence.finishing import Damaged, Failed, Finished, Kept
from fleet_server.evidence.receipts import receipted
from fleet_server.evidence.underway import OpenUpload, Outcome, Stage, Told, UnderWay
from fleet_server.evidence.uploads import Phase, Upload, UploadError

CHECKS_MAX: Final = 5
"""A file that was damaged so often in a row waits before it is read again: the disk is not to be trusted."""
CHECK_AGAIN_S: Final = 600
RETRY_S: Final = 5.0
"""After what failed for a reason that is not the file's."""


class Checks:
    """On the table of what is under way; its thread."""

    def __init__(self, table: UnderWay) -> None:
        self._table = table
        self._asked: set[str] = set()

    def ask_for_receipt(self, kept: Upload, out: Outcome) -> None:
        if kept.upload not in self._asked:
            self._asked.add(kept.upload)
            out.done.append(kept)

    def finished(self, result: Finished, *, now_ms: int, now_s: float) -> Outcome:
        """What came of a file that was whole."""
        out = Outcome()
        each = self._table.open.get(result.upload)
        try:
            if each is None:
                self._entered_again(result, out, now_ms, now_s)
                return out
            match result:
                case Kept():
                    self._table.uploads.done(result.upload, result.place, replicated=result.replicated, now_ms=now_ms)
                    done = each.upload._replace(phase=Phase.DONE, place=result.place, replicated=result.replicated)
                    out.due.append((each.device, receipted(done)))
                    self._table.counts["kept"] += 1
                    self._table.leave(each)
                case Damaged():
                    self._damaged(each, result.bad, out, now_ms, now_s)
                case Failed():
                    self._table.counts["finish_failures"] += 1
                    each.check_at_s = now_s + RETRY_S
        except UploadError:
            self._table.counts["finish_failures"] += 1
            if each is not None:
                each.check_at_s = now_s + RETRY_S
        return out

    def _entered_again(self, result: Finished, out: Outcome, now_ms: int, now_s: float) -> None:
        self._asked.discard(result.upload)
        kept = self._table.uploads.find(result.upload)
        if kept is None or kept.phase is not Phase.DONE:
            return
        device = DeviceId(kept.device)
        match result:
            case Kept():
                if result.place != kept.place:
                    self._table.uploads.done(kept.upload, result.place, replicated=kept.replicated, now_ms=now_ms)
                    out.suspect.append(f"{kept.upload} of {device}: entered again, the register had lost it")
                out.due.append((device, receipted(kept._replace(place=result.place))))
            case Damaged():
                out.suspect.append(f"{kept.upload} of {device}: neither entered nor in the store; it comes again")
                self._table.uploads.end(kept.upload, Phase.OPEN, "", now_ms=now_ms)
                self._table.resume(kept._replace(phase=Phase.OPEN, place=None), now_s)
                each = self._table.open[kept.upload]
                out.told.append(Told(device, self._table.state(each, now_s)))
            case Failed():
                self._table.counts["finish_failures"] += 1  # the device asks again

    def _damaged(self, each: OpenUpload, bad: Sequence[int], out: Outcome, now_ms: int, now_s: float) -> None:
        name = each.upload.upload
        self._table.counts["damaged_chunks"] += len(bad)
        each.checks += 1
        if bad:
            self._table.uploads.forget(name, bad)
            if self._table.incoming.path(name) is None:
                self._table.incoming.create(name, each.manifest.size)
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
        out.told.append(Told(each.device, self._table.state(each, now_s)))

    def take_leaves(self, each: OpenUpload, word: Leaves, out: Outcome, *, now_ms: int) -> None:
        """Hashes of a file that was asked for them; once all are there it is read again, or known to be another."""
        at = word.first * HASH_BYTES
        if at > len(each.given) or len(word.hashes) % HASH_BYTES or len(word.hashes) > LEAVES_MAX * HASH_BYTES:
            each.given.clear()
            return
        each.given[at:] = word.hashes
        if len(each.given) < each.manifest.chunks * HASH_BYTES:
            return
        hashes = bytes(each.given)
        if inspection.are_leaves_of(each.manifest, hashes):
            self._table.check(each, out, inspection.split(hashes))
        else:
            self._is_false(each, out, now_ms)

    def _is_false(self, each: OpenUpload, out: Outcome, now_ms: int) -> None:
        self._table.suspect(out, "false", each.device, f"{each.upload.upload}: {inspection.ALL}")
        self._table.end(each, Phase.FALSE, inspection.ALL, now_ms)
        out.told.append(Told(each.device, Reject(1, each.upload.upload, Code.MALFORMED, 0, inspection.ALL)))

    def look(self, *, now_s: float) -> Outcome:
        """What is due: checks that failed, and windows for who waited."""
        out = Outcome()
        for each in self._table.open.values():
            if each.check_at_s is not None and now_s >= each.check_at_s:
                each.check_at_s = None
                self._table.check(each, out, inspection.split(bytes(each.given)))
        for device in self._table.windows.look(now_s):
            ready = [one for one in self._table.of_device.get(device, {}).values() if one.stage is Stage.TAKING]
            if not ready:
                self._table.windows.rest(device)
                continue
            out.told.append(Told(ready[0].device, self._table.state(ready[0], now_s)))
        return out
