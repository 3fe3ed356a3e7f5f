"""What the server does with evidence by itself: asks for the deletion of what the retention is over of, carries out
deletions that two agreed to, and reads everything again each night. Nothing here decides; see ``retention``.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Final, TypeAlias

from broker_config.text import shown
from fleet_server.evidence.content import Content, ContentError
from fleet_server.evidence.pieces import BEGINNING, After, CustodyFacts, EvidenceError, PieceFilter, Pieces, State
from fleet_server.evidence.retention import DAY_MS
from fleet_server.evidence.scrub import Scrub, Scrubber, StoppedError
from fleet_server.evidence.store import Carrying, Retention
from fleet_server.outbound.happenings import Data, Kind, News, names
from fleet_server.telemetry.store import StoreError

LOOK_S: Final = 300.0
ASKED_A_LOOK_MAX: Final = 1_000
DONE_A_LOOK_MAX: Final = 100
ROWS_A_READ: Final = 500
SCRUB_APART_MS: Final = 20 * 3_600_000
"""Two nights' scrubs begin at least so long after each other."""
SCRUB_OVERDUE_MS: Final = 48 * 3_600_000
"""After so long one begins whatever the hour is."""

Tell: TypeAlias = Callable[[Sequence[News]], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """``scrub_hour``: of the day, by *hour_of*, when a scrub begins."""

    scrub_hour: int


def scrub_is_due(last_ms: int | None, *, now_ms: int, hour: int, scrub_hour: int) -> bool:
    """Whether a scrub is to begin; *last_ms*: when the last one began, None: there was none."""
    since_ms = SCRUB_OVERDUE_MS if last_ms is None else now_ms - last_ms
    return since_ms >= SCRUB_OVERDUE_MS or (since_ms >= SCRUB_APART_MS and hour == scrub_hour)


def news_of(scrub: Scrub, before: Scrub | None) -> tuple[News, ...]:
    """What is told of a scrub; *before*: the one before."""
    counts = {name: getattr(scrub, name) for name in ("missing", "altered", "unreadable", "unlike_log", "unexpected")}
    what = tuple(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    told: list[News] = []
    if scrub.found:
        data: Data = {"count": scrub.found, "what": what, "pieces": names(list(scrub.names))}
        told.append(News(scrub.ended_ms, Kind.EVIDENCE_DAMAGED, data=data))
    if scrub.why:
        told.append(News(scrub.ended_ms, Kind.EVIDENCE_UNCHECKED, data={"why": scrub.why}))
    if before is not None and before.found and not scrub.found and not scrub.why:
        told.append(News(scrub.ended_ms, Kind.EVIDENCE_SOUND, data={"count": scrub.pieces}))
    return tuple(told)


class Custodian:
    """Two loops, each for a thread: :meth:`run` and :meth:`run_scrubs`."""

    def __init__(
        self,
        pieces: Pieces,
        deletions: Carrying,
        retention: Retention,
        scrubber: Scrubber,
        copies: Sequence[Content],
        settings: Settings,
        *,
        tell: Tell,
        now_ms: Callable[[], int],
        hour_of: Callable[[int], int],
    ) -> None:
        self._pieces = pieces
        self._deletions = deletions
        self._retention = retention
        self.scrubber = scrubber
        self._copies = copies
        self._settings = settings
        self._tell = tell
        self._now_ms = now_ms
        self._hour_of = hour_of
        self._asked_ms: int | None = None
        self._wake = Event()
        self.facts: CustodyFacts | None = None
        """As of the last look; None: there was none."""

    # deletions

    def run(self, stop: Event) -> None:
        """Look now and then, until *stop*."""
        while True:
            self.look()
            if stop.wait(LOOK_S):
                return

    def look(self) -> None:
        """What is due; failures are logged, and it is done at the next look."""
        try:
            self._remove_contents()  # first what a server that was killed left
            for deletion in self._deletions.approved(now_ms=self._now_ms(), rows_max=DONE_A_LOOK_MAX):
                self._carry_out(deletion)
            self._remove_contents()
            now_ms = self._now_ms()
            if self._asked_ms is None or now_ms - self._asked_ms >= DAY_MS:
                self.ask_for_due()
                self._asked_ms = now_ms
            self._count()
        except (StoreError, ContentError) as error:
            logger.warning("evidence: what is due waits", extra={"error": shown(error)})

    def _count(self) -> None:
        last = next(iter(self.scrubber.scrubs.all(before_ms=None, rows_max=1)), None)
        ended_ms, found = (0, 0) if last is None else (last.ended_ms, last.found)
        self.facts = CustodyFacts(self._pieces.totals(), ended_ms, found, len(self._waiting()))

    def ask_for_due(self) -> int:
        """Ask for the deletion of pieces whose retention is over; how many. Raises StoreError."""
        now_ms, asked = self._now_ms(), 0
        waiting = self._waiting()
        for name, keep_d in self._retention.rules(now_ms=now_ms).items():
            if keep_d is None:
                continue
            wanted = PieceFilter(evidence_class=name, state=State.KEPT, received_to_ms=now_ms - keep_d * DAY_MS)
            after, page = BEGINNING, self._pieces.pieces(wanted, rows_max=ROWS_A_READ)
            while page and asked < ASKED_A_LOOK_MAX:
                due = [piece.piece for piece in page if piece.piece not in waiting and not piece.holds]
                asked += sum(self._ask(piece, now_ms) for piece in due[: ASKED_A_LOOK_MAX - asked])
                waiting.update(due)
                after = After(page[-1].received_ms, page[-1].piece)
                page = self._pieces.pieces(wanted, after=after, rows_max=ROWS_A_READ)
        if asked:
            self._tell([News(now_ms, Kind.EVIDENCE_DUE, data={"count": asked})])
        return asked

    def _ask(self, piece: str, now_ms: int) -> bool:
        try:
            self._deletions.ask_due(piece, now_ms=now_ms)
        except EvidenceError:  # another class keeps it longer, or the floor
            return False
        return True

    def _waiting(self) -> set[str]:
        waiting: set[str] = set()
        after = (0, "")
        while True:
            rows = self._deletions.deletions(open_only=True, after=after, rows_max=ROWS_A_READ)
            waiting.update(deletion.piece for deletion, _ in rows)
            if len(rows) < ROWS_A_READ:
                return waiting
            after = rows[-1][0].asked_ms, rows[-1][0].deletion

    def _carry_out(self, deletion: str) -> None:
        doing = self._deletions.carry_out(deletion, now_ms=self._now_ms())
        told = {"deletion": deletion, "piece": doing.deletion.piece}
        if doing.why_not:
            logger.info("a deletion waits", extra={**told, "why": doing.why_not})
        else:
            logger.info("a piece of evidence is deleted", extra=told)

    def _remove_contents(self) -> None:
        for deletion in self._deletions.unfinished(rows_max=DONE_A_LOOK_MAX):
            self._deletions.remove_content(deletion, self._copies, now_ms=self._now_ms())

    # scrubs

    def scrub_soon(self) -> None:
        """Begin a scrub now, unless one runs."""
        self._wake.set()

    def run_scrubs(self, stop: Event) -> None:
        """Scrub each night, and whenever somebody asks, until *stop*; :meth:`end_scrubs` wakes it."""
        while not stop.is_set():
            asked = self._wake.wait(LOOK_S)
            self._wake.clear()
            if stop.is_set():
                return
            try:
                if asked or self._scrub_is_due():
                    self.scrub(stop)
            except StoppedError:
                return
            except StoreError as error:
                logger.warning("evidence cannot be read again now", extra={"error": shown(error)})

    def end_scrubs(self) -> None:
        """Once the stop of :meth:`run_scrubs` is set."""
        self._wake.set()

    def scrub(self, stop: Event) -> Scrub:
        """Now, and tell what was found. Raises as :meth:`Scrubber.run`."""
        before = next(iter(self.scrubber.scrubs.all(before_ms=None, rows_max=1)), None)
        scrub = self.scrubber.run(stop)
        told = {"pieces": scrub.pieces, "found": scrub.found, "why": scrub.why}
        logger.log(logging.ERROR if scrub.found else logging.INFO, "evidence was read again", extra=told)
        news = news_of(scrub, before)
        if news:
            self._tell(news)
        self._count()
        return scrub

    def _scrub_is_due(self) -> bool:
        last = next(iter(self.scrubber.scrubs.all(before_ms=None, rows_max=1)), None)
        now_ms = self._now_ms()
        last_ms = None if last is None else last.begun_ms
        hour = self._hour_of(now_ms)
        return scrub_is_due(last_ms, now_ms=now_ms, hour=hour, scrub_hour=self._settings.scrub_hour)
