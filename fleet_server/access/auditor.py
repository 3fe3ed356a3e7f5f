"""Records, signs, and looks whether the log is still the one that was signed. The impure part beside the store.

**Before a change** its intent is durable, or the change is refused. **After it** the outcome is recorded; if the
store takes none just then it is kept, and goes before the next intent: a store that is down stops the next change.

**A log that is not what was signed**, or not what this server has entered since (rows changed under it), takes no
more entries: every change is refused, until somebody on the server's machine has looked, and begins a new log
(``fleet-server begin-audit-log``), whose first entry names the fault. The old one stays as it is, for whoever asks.
Reading goes on all the while, and so does all that devices report: ingest stands on another store.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import Final

from broker_config import merkle
from broker_config.ids import SiteId
from broker_config.text import shown
from fleet_server.access import audit, notes, tlog
from fleet_server.access.audit import AuditError, Draft, Head, Phase, Place
from fleet_server.access.audit_store import AuditStore, LostHashError
from fleet_server.access.notes import Checkpoint, NoteError, Signer, Verifier
from fleet_server.access.refusals import RefusalTally
from fleet_server.access.tlog import Leaves
from fleet_server.telemetry.store import StoreError

ENTRIES_A_READ: Final = 500
LOOKED_BACK_MAX: Final = 10_000
"""Entries before the last checkpoint that a start reads again."""
APPENDED_MAX: Final = 10_000
"""Entries since the last look whose places are remembered, to be found there again."""
WAITING_MAX: Final = 256
"""Outcomes that the store has not taken yet."""
NOTHING_ELSE: Final[Mapping[str, str]] = {}
SERVER: Final = "server"
BEGIN: Final = "audit.begin"
START: Final = "server.start"
STOP: Final = "server.stop"

logger = logging.getLogger(__name__)


class BrokenLogError(StoreError):
    """The log is not the one that was signed; nothing is added to it."""


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """How the log is. ``fault``: why it takes nothing, empty if it does; ``waiting``: outcomes not yet taken."""

    log: int
    entries: int
    signed: int
    waiting: int
    fault: str


class Auditor:
    """See the module's docstring. Any thread may call."""

    def __init__(self, store: AuditStore, signer: Signer, site: SiteId, *, now_ms: Callable[[], int]) -> None:
        self.store = store
        self.now_ms = now_ms
        self._signer = signer
        self._site = site
        self._lock = Lock()
        self._signing = Lock()  # taken before the other
        self._broken: tuple[int, str] = (0, "")  # which log, and why
        self._waiting: list[Draft] = []
        self._refusals = RefusalTally()
        self._head = Head(0, 0, audit.GENESIS)
        self._appended: set[Head] = set()  # since the last look
        self._signed = 0
        self._failing = False

    @property
    def verifier(self) -> Verifier:
        """Whose signature its checkpoints have."""
        return self._signer.verifier

    def start(self) -> None:
        """Begin a log if there is none; look whether it is the one that was signed; sign it. Raises StoreError."""
        head = self.store.head()
        if head is None:
            head = self.store.begin(self._own(BEGIN, "the first"))
        with self._signing:
            self._look(head.log, back=LOOKED_BACK_MAX)
        if not self.facts().fault:
            self._record([self._own(START)])
            self.sign()

    def stop(self) -> None:
        """Record what still waits, and sign."""
        try:
            if not self.facts().fault:
                now_ms = self.now_ms()
                with self._lock:
                    over = self._refusals.due(now_ms=now_ms, closing=True)
                self._record([*over, self._own(STOP)])
                self.sign()
        except StoreError as error:
            logger.warning("the audit log was not closed", extra={"error": shown(error)})

    def run(self, stop: Event, every_s: float) -> None:
        """Sign now and then, until *stop*."""
        while not stop.wait(every_s):
            self.tend()
        self.stop()

    def tend(self) -> None:
        """What is due: counts of refusals, outcomes that wait, a checkpoint. Failures are logged."""
        now_ms = self.now_ms()
        with self._lock:
            over = self._refusals.due(now_ms=now_ms)
        try:
            self._record(over)
            self.sign()
            self._failing = False
        except StoreError as error:
            level = logging.DEBUG if self._failing else logging.WARNING
            logger.log(level, "the audit log takes nothing", extra={"error": shown(error)})
            self._failing = True
            self._keep(over)

    def record(self, draft: Draft) -> Place:
        """Durable once it returns; where it is.

        Raises:
            StoreError: the store cannot take it; what it is about must not be done.
            BrokenLogError: nor will it, until an operator has begun a new log.
        """
        head = self._record([draft])
        return Place(head.log, head.size - 1)

    def record_with(self, append: Callable[[Sequence[Draft]], Head]) -> None:
        """Let *append* enter, behind the outcomes that it is given, entries of its own in the transaction of what
        they are about: either all of it is there, or nothing. It returns the head behind them.

        Raises:
            StoreError, BrokenLogError: as :meth:`record`; and whatever *append* raises.
        """
        self._record((), append)

    def finish(self, draft: Draft) -> None:
        """Record an outcome, now or with what comes next: what it is about is done already."""
        try:
            self._record([draft])
        except StoreError as error:
            logger.warning("an outcome waits to be recorded", extra={"error": shown(error), "request": draft.request})
            self._keep([draft])

    def refused(self, source: str, *, actor: str = "", asked: str = "") -> None:
        """Count a stranger; or *actor*, who *asked* for what they may not read."""
        now_ms = self.now_ms()
        with self._lock:
            over = self._refusals.note(source, now_ms=now_ms, actor=actor, asked=asked)
        if over:
            self._keep(over)  # a stranger must not be able to make this wait for the disk

    def sign(self) -> str | None:
        """Sign what there is, if it goes on from what was signed; the newest checkpoint, None if there is none."""
        with self._signing:
            newest = self.store.head()
            return None if newest is None else self._sign(newest.log)

    def vouch(self, text: str) -> str:
        """A note of *text* by the log's key. *text* must not be a checkpoint's: its first line is no log's origin.

        Raises:
            BrokenLogError: the log is not the one that was signed; nothing is vouched for.
        """
        assert not text.startswith(audit.key_name(self._site)), "a checkpoint is signed by sign()"
        fault = self.facts().fault
        if fault:
            raise BrokenLogError(f"the audit log is not the one that was signed: {fault}")
        return self._signer.sign(text)

    def _sign(self, log: int) -> str | None:
        last, head = self._look(log, back=0)
        if self._fault_of(log) or (last is not None and head.size == self._signed):
            return last
        root = self.store.hashes(head.log, [Leaves(0, head.size)])[0]
        note = self._signer.sign(Checkpoint(audit.origin(self._site, head.log), head.size, root).text())
        self.store.keep_checkpoint(head.log, head.size, note, now_ms=self.now_ms())
        self._signed = head.size
        return note

    def facts(self) -> AuditFacts:
        """How it is, without asking the store."""
        with self._lock:
            head = self._head
            return AuditFacts(head.log, head.size, self._signed, len(self._waiting), self._fault_of(head.log))

    def _record(self, drafts: Sequence[Draft], append: Callable[[Sequence[Draft]], Head] | None = None) -> Head:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting and not drafts and append is None:
            return self._head
        try:
            self._check_open()
            head = (append or self.store.append)([*waiting, *drafts])
        except Exception:
            self._keep(waiting, first=True)
            raise
        self._reach(head)
        return head

    def _reach(self, head: Head) -> None:
        """Remember how far the log was seen to be; threads may come here in another order than they appended."""
        with self._lock:
            self._head = max(self._head, head)
            if len(self._appended) < APPENDED_MAX:
                self._appended.add(head)

    def _check_open(self) -> None:
        """Raises BrokenLogError: the newest log takes no entries."""
        if not self._broken[1]:
            return
        head = self.store.head()
        fault = "" if head is None else self._fault_of(head.log)
        if fault:
            raise BrokenLogError(f"the audit log is not the one that was signed: {fault}")

    def _keep(self, drafts: Sequence[Draft], *, first: bool = False) -> None:
        with self._lock:
            kept = [*drafts, *self._waiting] if first else [*self._waiting, *drafts]
            dropped = len(kept) - WAITING_MAX
            self._waiting = kept[:WAITING_MAX]
        if dropped > 0:
            # as many changes are under way at most as the API takes at once, and none begins while outcomes wait
            logger.error("outcomes were dropped; their intents stay", extra={"count": dropped})

    def _fault_of(self, log: int) -> str:
        broken, why = self._broken
        return why if broken == log else ""

    def _look(self, log: int, *, back: int) -> tuple[str | None, Head]:
        """Look again at all since the last checkpoint and *back* entries before; that checkpoint, and the head."""
        # in this order: what was appended or signed before the head is read must be there
        with self._lock:
            appended, self._appended = self._appended, set()
        try:
            return self._compare(log, back, appended)
        except StoreError:
            with self._lock:
                self._appended |= appended
            raise

    def _compare(self, log: int, back: int, appended: set[Head]) -> tuple[str | None, Head]:
        note = self.store.checkpoint(log)
        head = self.store.end_of(log)
        if self._fault_of(log):
            return note, head
        fault = self._unsigned(note, head) if note is not None else ""
        signed = Checkpoint("", 0, merkle.EMPTY_ROOT) if note is None or fault else notes.checkpoint_of(note)
        try:
            fault = fault or self._altered(signed, head, max(0, signed.size - back), appended)
        except LostHashError as error:
            fault = str(error)
        self._signed = signed.size
        with self._lock:
            self._head = max(self._head, head)
        if fault:
            self._broken = log, fault
            logger.critical("the audit log is not the one that was signed", extra={"log": log, "why": fault})
        return note, head

    def _unsigned(self, note: str, head: Head) -> str:
        """What is wrong with a checkpoint by itself."""
        try:
            notes.opened(note, self._signer.verifier)
            checkpoint = notes.checkpoint_of(note)
        except NoteError as error:
            return f"its last checkpoint: {shown(error)}"
        if checkpoint.origin != audit.origin(self._site, head.log):
            return "its last checkpoint is another log's"
        if checkpoint.size > head.size:
            return f"{checkpoint.size} entries were signed, and {head.size} are there"
        return ""

    def _altered(self, signed: Checkpoint, head: Head, begin: int, appended: set[Head]) -> str:
        """Read the entries from *begin* on: do they follow each other, and are they those of the tree, and those that
        this server has *appended*?
        """
        heads = [each for each in appended if each.log == head.log]
        mine = {each.size: each for each in heads}
        if len(mine) < len(heads):
            return "this server has entered two entries in one place: the first is gone"
        if max(mine, default=0) > head.size:
            return f"this server has entered {max(mine)} entries, and {head.size} are there"
        frontier = tlog.Frontier(begin, self.store.subtrees(head.log, begin))
        at = self.store.head_at(head.log, begin)
        if frontier.size == signed.size and frontier.root() != signed.root:
            return f"its tree is not the one of the {signed.size} entries that were signed"
        for raw in self._entries(head, begin):
            try:
                entry = audit.read(raw)
            except AuditError as error:
                return f"entry {at.size}: {shown(error)}"
            if (entry.log, entry.index, entry.prev) != at:
                return f"entry {at.size} does not follow the one before it"
            frontier.append(merkle.leaf_hash(raw))
            at = Head(at.log, at.size + 1, audit.digest(raw))
            if mine.get(at.size, at) != at:
                return f"entry {at.size - 1} is not the one that this server has entered"
            if frontier.size == signed.size and frontier.root() != signed.root:
                return f"its first {signed.size} entries are not those that were signed"
        if at != head or self.store.hashes(head.log, [Leaves(0, head.size)])[0] != frontier.root():
            return "its tree is not the one of its entries"
        return ""

    def _entries(self, head: Head, begin: int) -> Iterator[bytes]:
        while begin < head.size:
            rows = self.store.entries(head.log, from_index=begin, rows_max=min(ENTRIES_A_READ, head.size - begin))
            if not rows:
                return
            yield from rows
            begin += len(rows)

    def _own(self, action: str, subject: str = "") -> Draft:
        return own_fact(action, subject, at_ms=self.now_ms())


def own_fact(action: str, subject: str, *, at_ms: int, data: Mapping[str, str] = NOTHING_ELSE) -> Draft:
    """What the server itself did, or saw."""
    return Draft(
        phase=Phase.FACT,
        at_ms=at_ms,
        actor=SERVER,
        source="",
        action=action,
        subject=audit.bounded(subject),
        data={name: audit.bounded(text) for name, text in data.items()},
    )
