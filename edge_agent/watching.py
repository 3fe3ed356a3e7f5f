"""Looks into the folders, and has closed files sealed: first the row in the outbox, then the word to anybody."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from broker_config import limits
from broker_config.device_classes import FileKind
from broker_config.limits import KIB
from broker_config.manifest import JournalRange, Moment, Segment
from broker_config.telemetry import JOURNAL
from broker_config.text import shown
from edge_agent import clock, folders
from edge_agent.adapters import folder, sealing_child
from edge_agent.adapters.folder import Entry, Stat
from edge_agent.adapters.sealing_child import SealingError
from edge_agent.adapters.sqlite_outbox import SqliteOutbox
from edge_agent.adapters.system import System
from edge_agent.clock import Facts
from edge_agent.config import Settings
from edge_agent.folders import Found, Job, Place, Recording
from edge_agent.journal import Kind
from edge_agent.keeper import Keeper
from edge_agent.outbox import Sealed
from edge_agent.sealing import JOBS_MAX, SealAnswer, SealJob, SealRequest
from edge_agent.upload_tables import Folder

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 64 * KIB
"""As long as no window was told."""
RUN_BYTES_MAX: Final = 256 * KIB * KIB
"""Sealed in one run of the child, but for a single file that is larger."""
FAILED_S: Final = 60.0
"""A file that could not be sealed is tried again after this."""
TOLD_MAX: Final = 1_000
UNKNOWN_BOOT: Final = "0" * 16


class _Begun(NamedTuple):
    """When a file was first seen being written: not before ``from_ms``, not after ``to_ms``, monotonic."""

    from_ms: int
    to_ms: int
    journal: int


class _Seen(NamedTuple):
    stat: Stat
    since_s: float


class _Watch:
    """One folder."""

    def __init__(self, file_class: str, path: Path, outbox: SqliteOutbox) -> None:
        self.file_class = file_class
        self.path = path
        self.known = outbox.known(file_class)
        self.recordings = outbox.recordings(file_class)
        self.seen: dict[tuple[str, int], _Seen] = {}
        self.begun: dict[str, _Begun] = {}
        self.not_before: dict[str, float] = {}
        self.looked_ms: int | None = None


class Watcher:
    """Calls come one after the other."""

    def __init__(self, settings: Settings, system: System, keeper: Keeper, outbox: SqliteOutbox) -> None:
        assert settings.uploads is not None, "nothing else loads this"
        self._settings = settings
        self._uploads = settings.uploads
        self._system = system
        self._keeper = keeper
        self._outbox = outbox
        self._watches = [_Watch(name, path, outbox) for name, path in self._uploads.paths.items()]
        self._told: set[tuple[str, str]] = set()

    def forget(self, file_class: str, name: str, inode: int) -> None:
        """That file is gone."""
        for watch in self._watches:
            if watch.file_class == file_class:
                watch.known.discard((name, inode))

    async def turn(self, window_bytes: int) -> bool:
        """Look everywhere once, and seal what is due; returns whether anything was.

        Raises:
            OutboxError: what is sealed cannot be kept; it is sealed again later.
        """
        did = False
        for watch in self._watches:
            jobs = self._look(watch)
            if jobs:
                did |= await self._seal(watch, jobs, chunk_bytes(window_bytes))
        return did

    # Looking ----------------------------------------------------------------------------------------------------

    def _look(self, watch: _Watch) -> list[Job]:
        facts = self._system.facts()
        now_s = facts.mono_ms / 1000
        try:
            entries = folder.entries(watch.path)
        except OSError as error:
            self._left(watch, "", f"folder: {shown(error.strerror or error)}")
            return []
        closed = [each for each in entries if folders.is_closed(each.name) and tuple(each) not in watch.known]
        self._take_notice(watch, entries, closed, facts)
        marks = {each.name for each in closed if folders.is_mark(each.name)}
        found = self._found(watch, [each for each in closed if each.name not in marks], now_s)
        spec = self._settings.device_class.files[watch.file_class]
        closes = {
            name.removesuffix(folders.CLOSE_SUFFIX): folder.marks(watch.path, name).reason
            for name in marks
            if name.endswith(folders.CLOSE_SUFFIX)
        }
        plan = folders.plan(found, spec, watch.recordings, closes, abnormal_s=self._uploads.table.abnormal_s)
        for name in plan.foreign:
            self._left(watch, name, "its suffix is not of the class")
        for recording, reason in plan.closed.items():
            self._closed(watch, recording, reason)
        return _bounded(plan.jobs)

    def _take_notice(self, watch: _Watch, entries: list[Entry], closed: list[Entry], facts: Facts) -> None:
        """Of files that are being written, and of recordings that began."""
        quiet = self._folder(watch).closed == "quiet"
        parts = {folders.closed_name(each.name) for each in entries if each.name.endswith(folders.PART_SUFFIX)}
        if quiet:
            parts |= {each.name for each in closed}
        for name in parts - set(watch.begun):
            if watch.looked_ms is not None:
                watch.begun[name] = _Begun(watch.looked_ms, facts.mono_ms, self._journal_last()[1])
        here = parts | {each.name for each in closed}
        watch.begun = {name: begun for name, begun in watch.begun.items() if name in here}
        watch.not_before = {name: at_s for name, at_s in watch.not_before.items() if name in here}
        watch.looked_ms = facts.mono_ms
        if self._settings.device_class.files[watch.file_class].kind is not FileKind.RECORDING:
            return
        for recording in sorted({r for name in here if (r := folders.recording_of(name))} - set(watch.recordings)):
            self._opened(watch, recording)

    def _opened(self, watch: _Watch, recording: str) -> None:
        if self._outbox.has_segments(watch.file_class, recording):
            return  # it was closed: a mark that a power cut left, or a number that comes again and stands alone
        trigger = folder.marks(watch.path, recording + folders.OPEN_SUFFIX).trigger
        begun = Recording(recording, trigger=trigger)
        told = {"recording": recording, "file_class": watch.file_class, "trigger": trigger}
        self._keeper.note(Kind.RECORDING_OPENED, told)
        self._keeper.seal()
        self._outbox.opened(watch.file_class, begun)
        watch.recordings[recording] = begun

    def _closed(self, watch: _Watch, recording: str, reason: str) -> None:
        found = watch.recordings.get(recording)
        if found is not None:
            told: dict[str, int | str] = {"recording": recording, "file_class": watch.file_class}
            told |= {"segments": found.next - 1, "reason": reason}
            self._keeper.note(Kind.RECORDING_CLOSED, told)
            self._keeper.seal()
            self._outbox.closed(watch.file_class, recording)
            del watch.recordings[recording]
        for suffix in (folders.OPEN_SUFFIX, folders.CLOSE_SUFFIX):
            try:
                folder.remove(watch.path, recording + suffix)
            except OSError as error:
                logger.warning("mark stays", extra={"recording": recording, "why": shown(error)})

    def _found(self, watch: _Watch, closed: list[Entry], now_s: float) -> list[Found]:
        """Those that are closed by now."""
        told = self._folder(watch)
        out: list[Found] = []
        seen: dict[tuple[str, int], _Seen] = {}
        for each in closed:
            stat = folder.look_at(watch.path, each.name)
            if stat is None or stat.inode != each.inode:
                continue
            before = watch.seen.get((each.name, each.inode))
            now = before if before is not None and before.stat == stat else _Seen(stat, now_s)
            seen[each.name, each.inode] = now
            waited_s = now_s - now.since_s
            if (told.closed == "quiet" and waited_s < told.quiet_s) or now_s < watch.not_before.get(each.name, 0.0):
                continue
            if not 1 <= stat.size <= limits.UPLOAD_BYTES_MAX:
                self._left(watch, each.name, f"expected 1 to {limits.UPLOAD_BYTES_MAX} bytes, got {stat.size}")
                continue
            out.append(Found(each.name, stat.inode, stat.size, stat.mtime_ns, waited_s))
        watch.seen = seen
        return out

    def _folder(self, watch: _Watch) -> Folder:
        return self._uploads.table.folders[watch.file_class]

    def _left(self, watch: _Watch, name: str, why: str) -> None:
        """Told once."""
        if (watch.file_class, name) in self._told or len(self._told) >= TOLD_MAX:
            return
        self._told.add((watch.file_class, name))
        logger.warning("file left alone", extra={"file_class": watch.file_class, "file": shown(name), "why": why})
        self._keeper.note(Kind.FILE_LEFT, {"file_class": watch.file_class, "name": shown(name), "why": why})

    def _journal_last(self) -> tuple[str, int, str]:
        """Life and newest number of the journal, and that batch's digest, empty if there is none."""
        found = next((x for x in self._keeper.ledgers() if x.stream == JOURNAL and x.current), None)
        return (UNKNOWN_BOOT, 0, "") if found is None or not found.last else (found.life, found.last, found.tip)

    # Sealing ----------------------------------------------------------------------------------------------------

    async def _seal(self, watch: _Watch, jobs: list[Job], chunk: int) -> bool:
        self._keeper.seal()  # so that the journal's range holds what was noted meanwhile
        asked: dict[str, tuple[Job, SealJob]] = {}
        end: dict[str, Recording] = dict(watch.recordings)
        for job in jobs:
            seal_job = self._seal_job(watch, job, end)
            asked[job.found.name] = (job, seal_job)
            if job.place is not None:
                end[job.place.recording] = self._after(watch, job.place, seal_job, "")
        request = SealRequest(
            self._settings.device,
            str(self._settings.cert_file),
            str(self._settings.key_file),
            chunk,
            tuple(seal_job for _, seal_job in asked.values()),
        )
        try:
            answers = await sealing_child.sealed(request)
        except SealingError as error:
            logger.warning("nothing sealed", extra={"why": shown(error)})
            until_s = self._system.mono_s() + FAILED_S
            watch.not_before.update(dict.fromkeys(asked, until_s))
            return False
        for answer in answers:
            if answer.file in asked:
                self._take(watch, *asked[answer.file], answer)
        return True

    def _seal_job(self, watch: _Watch, job: Job, recordings: Mapping[str, Recording]) -> SealJob:
        facts = self._system.facts()
        end = self._moment(job.found.mtime_ns // 1_000_000, facts)
        before = None if job.place is None else recordings.get(job.place.recording)
        begun = watch.begun.get(job.found.name)
        if begun is None and before is not None and before.next == 1:
            begun = self._opened_at(watch, before.recording, facts)
        begin, gap_ms = self._begin(begun, before, end, facts)
        life, last, tip = self._journal_last()
        segment = None
        if job.place is not None and before is not None:
            segment = Segment(
                recording=job.place.recording,
                number=job.place.number,
                prev=before.prev,
                last=job.place.last,
                trigger=before.trigger,
                reason=job.place.reason,
                gap_ms=gap_ms,
            )
        return SealJob(
            folder=str(watch.path),
            file=job.found.name,
            inode=job.found.inode,
            size=job.found.size,
            mtime_ns=job.found.mtime_ns,
            file_class=watch.file_class,
            name=folders.safe_name(job.found.name),
            media_type=job.media_type,
            begin=begin,
            end=end,
            journal=JournalRange(life, min(last, begun.journal if begun is not None else last), last, tip),
            segment=segment,
        )

    def _opened_at(self, watch: _Watch, recording: str, facts: Facts) -> _Begun | None:
        """Of a recording's first segment: when its mark was written."""
        mark = folder.look_at(watch.path, recording + folders.OPEN_SUFFIX)
        if mark is None:
            return None
        mono_ms = facts.mono_ms - (facts.wall_ms - mark.mtime_ns // 1_000_000)
        return _Begun(mono_ms, mono_ms, self._journal_last()[1]) if 0 <= mono_ms <= facts.mono_ms else None

    def _moment(self, wall_ms: int, facts: Facts) -> Moment:
        """What the board's clock said when a file was written last; a file of an earlier boot has no other clock."""
        mono_ms = min(facts.mono_ms, facts.mono_ms - (facts.wall_ms - wall_ms))
        then = clock.stamp(self._keeper.clock, facts._replace(wall_ms=wall_ms, mono_ms=max(0, mono_ms)))
        if mono_ms < 0:
            return Moment(max(0, wall_ms), then.clock.unc_ms, then.clock.src, UNKNOWN_BOOT, 0)
        return Moment(max(0, then.t_ms), then.clock.unc_ms, then.clock.src, self._system.boot, mono_ms)

    def _begin(self, begun: _Begun | None, before: Recording | None, end: Moment, facts: Facts) -> tuple[Moment, int]:
        """When it began, and how much later than the segment before surely: a look is only now and then."""
        follows = before is not None and before.boot == end.boot == self._system.boot and before.next > 1
        if begun is None or end.boot != self._system.boot:
            if before is None or not follows:
                return end, 0
            return self._at(min(before.end_ms, end.mono), 0, facts), 0
        from_ms = min(begun.from_ms, end.mono)
        if before is not None and follows and before.end_ms <= begun.to_ms:
            from_ms = max(from_ms, min(before.end_ms, end.mono))
        gap_ms = max(0, from_ms - before.end_ms) if before is not None and follows else 0
        return self._at(from_ms, max(0, begun.to_ms - from_ms), facts), gap_ms

    def _at(self, mono_ms: int, unc_ms: int, facts: Facts) -> Moment:
        wall_ms = facts.wall_ms - (facts.mono_ms - mono_ms)
        then = clock.stamp(self._keeper.clock, facts._replace(wall_ms=wall_ms, mono_ms=mono_ms))
        return Moment(max(0, then.t_ms), then.clock.unc_ms + unc_ms, then.clock.src, self._system.boot, mono_ms)

    def _after(self, watch: _Watch, place: Place, job: SealJob, digest: str) -> Recording:
        """The recording with this segment in it."""
        before = watch.recordings[place.recording]
        return before._replace(
            next=place.number + 1, prev=digest or before.prev, boot=job.end.boot, end_ms=job.end.mono
        )

    def _take(self, watch: _Watch, job: Job, asked: SealJob, answer: SealAnswer) -> None:
        if answer.error:
            logger.warning("file not sealed", extra={"file": shown(answer.file), "why": shown(answer.error)})
            watch.not_before[answer.file] = self._system.mono_s() + FAILED_S
            watch.seen.pop((job.found.name, job.found.inode), None)
            return
        place = job.place
        recording = None if place is None else self._after(watch, place, asked, answer.digest)
        if place is not None and place.skipped:
            told = {"recording": place.recording, "file_class": watch.file_class}
            first, last = place.number - place.skipped, place.number - 1
            self._keeper.note(Kind.RECORDING_SKIPPED, {**told, "first": first, "last": last})
        self._outbox.sealed(
            Sealed(
                upload=answer.upload,
                file_class=watch.file_class,
                name=job.found.name,
                inode=job.found.inode,
                size=job.found.size,
                mtime_ns=job.found.mtime_ns,
                sha256=answer.sha256,
                chunk_bytes=answer.chunk_bytes,
                priority=self._settings.device_class.files[watch.file_class].priority,
                envelope=answer.envelope,
                certificate=answer.certificate,
                crcs=answer.crcs,
                recording="" if place is None else place.recording,
                number=0 if place is None else place.number,
            ),
            recording,
        )
        watch.known.add((job.found.name, job.found.inode))
        if recording is not None:
            watch.recordings[recording.recording] = recording

    def tell(self) -> None:
        """What is sealed is in the journal, at least once. Raises OutboxError."""
        rows = self._outbox.untold()
        for row in rows:
            self._keeper.note(
                Kind.FILE_SEALED,
                {
                    "upload": row.upload,
                    "sha256": row.sha256,
                    "size": row.size,
                    "file_class": row.file_class,
                    "name": shown(row.name),
                    "recording": row.recording,
                    "number": row.number,
                },
            )
        if rows:
            self._keeper.seal()
            if self._keeper.disk_ok:
                self._outbox.told(row.upload for row in rows)


def _bounded(jobs: tuple[Job, ...]) -> list[Job]:
    """As many as one run of the child takes."""
    out: list[Job] = []
    size = 0
    for job in jobs[:JOBS_MAX]:
        size += job.found.size
        if out and size > RUN_BYTES_MAX:
            break
        out.append(job)
    return out


def chunk_bytes(window_bytes: int) -> int:
    """The largest power of two that fits into the window, within the contract's bounds."""
    if window_bytes == 0:
        return CHUNK_BYTES
    fits = 1 << (window_bytes.bit_length() - 1)
    return max(limits.CHUNK_BYTES_MIN, min(limits.CHUNK_BYTES_MAX, fits))
