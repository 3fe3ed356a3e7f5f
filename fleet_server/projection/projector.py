"""Writes what the batch store holds to one sink, for ever: what is new first, then places that are stale.

Order is everything here too: the cursor moves, and a stale place is clean, only when every point was answered with
success or stands refused by itself. So whatever dies, the same points are written again.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from broker_config.text import shown
from fleet_server.projection import presence
from fleet_server.projection.feed import Feed, Item, LeftOut, LeftOutReason, Readings, Refused, StalePlace
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.points import Lines, UnspeakableError, between, encode, packed
from fleet_server.projection.target import NO_ANSWER, Answer, PrepareError, Target
from fleet_server.projection.verdict import REFUSED_RETRY_S, Delivery, Verdict, verdict, wait_s
from fleet_server.projection.view import SinkState, SinkStatus
from fleet_server.telemetry.store import FencedError, StoreError
from fleet_server.telemetry.view import TelemetryView

log = structlog.get_logger()

LOOK_S: Final = 1.0
"""Between two looks for something new."""
ROUND_RECORDS_MAX: Final = 2_000
"""Between two moves of the cursor, and so what a crash repeats."""
ROUND_PLACES_MAX: Final = 500
ROUND_POINTS_MAX: Final = 100_000
"""Of stale places, before what is new has its turn again."""
POST_BYTES_MAX: Final = 4 * 1024 * 1024
POST_BYTES_MIN: Final = 64 * 1024
"""A body is not made smaller than this, however often a server finds it too large; then it is halved each time."""
TRIES_IN_ROUND_MAX: Final = 8
"""Of one body; then the round is given up, so that what it holds in memory is not held through an outage."""
ALONE_MAX: Final = 100
"""So many points refused one by one at either end of a body, and none ever taken: then it is not the points."""
AHEAD_MS_MAX: Final = 300_000
"""Readings further ahead of the server's clock are left out."""
RETENTION_MARGIN_MS: Final = 3_600_000
"""What the sink would drop within this time is not written: it may drop it before it has read it."""
DAY_MS: Final = 86_400_000
GAPS_EVERY_S: Final = 300.0
"""Gaps cost more to find than the rest of presence, and are older news."""
BEHIND_MS: Final = 10_000
"""Having something older than this still to write is being behind."""


@dataclass(frozen=True, slots=True)
class ProjectorSettings:
    """``retention_d`` and ``presence_every_s``: 0 is for ever, and never."""

    name: str
    points_max: int
    retention_d: int
    presence_every_s: float


class _AwayError(Exception):
    """The sink did not take it, and was waited for; the round is given up."""


class Projector:
    """One sink. ``run`` it once; ``status`` is for any thread."""

    def __init__(
        self,
        settings: ProjectorSettings,
        feed: Feed,
        labels: LabelsOf,
        view: TelemetryView | None,
        *,
        new_target: Callable[[], Target],
        now_ms: Callable[[], int],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """*new_target* is called in the loop that runs; *view* None writes no presence."""
        self._settings = settings
        self._feed = feed
        self._labels = labels
        self._view = view
        self._new_target = new_target
        self._now_ms = now_ms
        self._rng = rng
        self._sleep = sleep
        self._target: Target
        self._prepared = False
        self._taken = False
        self._tries = 0
        self._bytes_max = POST_BYTES_MAX
        self._state = SinkState.STARTING
        self._left_out: Counter[LeftOutReason] = Counter()
        self._written = self._refused = self._posts = self._posts_failed = 0
        self._error = ""
        self._error_ms: int | None = None
        self._written_ms: int | None = None
        self._presence_due_s: float | None = None
        self._gaps_due_s = 0.0
        self._gaps: dict[str, presence.GapCounts] = {}
        self._devices = 0

    @property
    def name(self) -> str:
        return self._settings.name

    def rebuild(self, from_ms: int) -> int:
        """See :meth:`fleet_server.projection.view.SinkView.rebuild`."""
        return self._feed.mark_stale(self.name, from_ms=from_ms, now_ms=self._now_ms())

    async def run(self) -> None:
        """Until cancelled.

        Raises:
            FencedError: another server owns the store now.
        """
        self._target = self._new_target()
        try:
            while True:
                await self._turn()
        finally:
            await self._target.close()

    async def drain(self) -> None:
        """Write all there is, whatever it takes, and return. Raises as :meth:`once`."""
        self._target = self._new_target()
        try:
            while await self._prepared_once():
                pass
        finally:
            await self._target.close()

    async def _prepared_once(self) -> bool:
        try:
            if not self._prepared:
                await self._prepare()
            return await self.once()
        except _AwayError:
            return True

    async def _turn(self) -> None:
        try:
            worked = await self._prepared_once()
        except FencedError:
            raise
        except Exception as error:
            self._fail(SinkState.FAILED, f"{type(error).__name__}: {error}")
            if not isinstance(error, StoreError):
                log.exception("the projection made a mistake", sink=self.name)
            await self._sleep(REFUSED_RETRY_S)
            return
        if not worked:
            await self._sleep(LOOK_S)

    async def once(self) -> bool:
        """One round: new commits, some stale places, presence if it is due; whether there was anything to write.

        Raises:
            StoreError, UnknownSinkError, _AwayError
        """
        await self._presence()
        worked = await self._new()
        return await self._stale() or worked

    # what is written

    async def _new(self) -> bool:
        name = self.name
        commits = self._feed.commits(name, records_max=ROUND_RECORDS_MAX, now_ms=self._now_ms())
        if commits.up_to == commits.after:
            return False
        refused = await self._write(commits.items)
        self._feed.advance(name, commits, refused, now_ms=self._now_ms())
        return True

    async def _stale(self) -> bool:
        name = self.name
        places = self._feed.stale(name, places_max=ROUND_PLACES_MAX)
        if not places:
            return False
        taken: list[StalePlace] = []

        def items() -> Iterator[Item]:
            points = 0
            for place in places:
                taken.append(place)
                for item in self._feed.read(place):
                    points += len(item.times_ms) if isinstance(item, Readings) else 0
                    yield item
                if points >= ROUND_POINTS_MAX:
                    return

        refused = await self._write(items())
        self._feed.written(name, taken, refused, now_ms=self._now_ms())
        return True

    async def _write(self, items: Iterable[Item]) -> list[Refused]:
        refused: list[Refused] = []
        for body in packed(self._lines(items), points_max=self._settings.points_max, bytes_max=self._bytes_max):
            refused += await self._deliver(body)
        return refused

    def _lines(self, items: Iterable[Item]) -> Iterator[Lines]:
        now_ms, retention_d = self._now_ms(), self._settings.retention_d
        oldest_ms = now_ms - retention_d * DAY_MS + RETENTION_MARGIN_MS if retention_d else -_EVER_MS
        for item in items:
            if isinstance(item, LeftOut):
                self._left_out[item.reason] += item.points
                continue
            readings, left = between(item, oldest_ms, now_ms + AHEAD_MS_MAX)
            for one in left:
                self._left_out[one.reason] += one.points
            if readings is not None:
                yield self._encoded(readings)

    def _encoded(self, readings: Readings) -> Lines:
        try:
            return encode(readings, self._labels.labels(readings.device, readings.times_ms[0]))
        except UnspeakableError as error:
            self._left_out[LeftOutReason.UNSPEAKABLE] += len(readings.times_ms)
            self._note(str(error))
            return Lines(b"", 0)

    # how it is written

    async def _deliver(self, body: Lines) -> list[Refused]:
        """Write *body* whatever it takes. Raises _AwayError."""
        delivery = Delivery(body)
        tries = 0
        while (part := delivery.body) is not None:
            answer = await self._post(part.data)
            found = verdict(answer)
            if found is Verdict.SPLIT and not self._taken and len(delivery.refused) >= ALONE_MAX:
                if delivery.turned:
                    found = Verdict.REFUSED
                else:
                    delivery.turn()
                    continue
            if found in (Verdict.WAIT, Verdict.REFUSED):
                tries += 1
                await self._wait(answer, found)
                if found is Verdict.REFUSED or tries >= TRIES_IN_ROUND_MAX:
                    raise _AwayError
            else:
                self._went(found, answer)
                delivery.answered(found, f"{answer.status}: {shown(answer.text)}")
        self._written += delivery.written
        self._refused += len(delivery.refused)
        return delivery.refused

    async def _post(self, body: bytes) -> Answer:
        self._posts += 1
        answer = await self._target.write(body)
        self._posts_failed += answer.status != _SUCCESS
        return answer

    def _went(self, found: Verdict, answer: Answer) -> None:
        """The sink answered, and took it or found fault with it."""
        if found is Verdict.WRITTEN:
            self._taken = True
            self._written_ms = self._now_ms()
            self._recovered()
        else:
            self._note(_told(answer))
        if found is Verdict.HALVE:
            self._bytes_max = max(POST_BYTES_MIN, self._bytes_max // 2)

    def _recovered(self) -> None:
        if self._state in (SinkState.REFUSED, SinkState.WAITING, SinkState.FAILED):
            log.info("the sink takes points again", sink=self.name, tries=self._tries)
        self._tries = 0
        self._state = SinkState.OK

    async def _wait(self, answer: Answer, found: Verdict) -> None:
        self._tries += 1
        refused = found is Verdict.REFUSED
        self._fail(SinkState.REFUSED if refused else SinkState.WAITING, _told(answer))
        if refused:  # it may have lost its bucket, or our rights
            self._prepared = self._taken = False
        await self._sleep(wait_s(answer, self._tries, self._rng, datetime.now(UTC)))

    async def _prepare(self) -> None:
        try:
            await self._target.prepare()
        except PrepareError as error:
            found = Verdict.WAIT if verdict(error.answer) is Verdict.WAIT else Verdict.REFUSED
            self._tries += 1
            self._fail(SinkState.WAITING if found is Verdict.WAIT else SinkState.REFUSED, str(error))
            pause_s = wait_s(error.answer, self._tries, self._rng, datetime.now(UTC))
            await self._sleep(pause_s if found is Verdict.WAIT else REFUSED_RETRY_S)
            raise _AwayError from error
        self._prepared = True

    # presence

    async def _presence(self) -> None:
        every_s, now_s = self._settings.presence_every_s, asyncio.get_running_loop().time()
        if self._view is None or not every_s or (self._presence_due_s is not None and now_s < self._presence_due_s):
            return
        due_s = now_s if self._presence_due_s is None else self._presence_due_s
        # moments that went by while the sink did not answer, or was busy
        missed = int((now_s - due_s) // every_s)
        self._left_out[LeftOutReason.NOT_ANSWERING] += missed * self._devices
        self._presence_due_s = due_s + (missed + 1) * every_s
        at_ms = self._now_ms()
        if now_s >= self._gaps_due_s:
            self._gaps_due_s = now_s + GAPS_EVERY_S
            self._gaps = presence.gap_counts(self._view.gaps(None, from_ms=at_ms - DAY_MS, to_ms=at_ms))
        devices = self._view.devices()
        self._devices = len(devices)
        lines = map(self._encoded, presence.readings(devices, self._gaps, at_ms))
        for body in packed(lines, points_max=self._settings.points_max, bytes_max=self._bytes_max):
            answer = await self._post(body.data)
            if verdict(answer) is Verdict.WRITTEN:
                self._went(Verdict.WRITTEN, answer)
                self._written += body.points
            else:
                self._note(_told(answer))
                self._left_out[LeftOutReason.NOT_ANSWERING] += body.points

    # status

    def _note(self, text: str) -> None:
        self._error, self._error_ms = shown(text), self._now_ms()

    def _fail(self, state: SinkState, text: str) -> None:
        level = log.debug if self._state is state else log.warning
        level("the sink takes nothing", sink=self.name, state=str(state), error=shown(text))
        self._state = state
        self._note(text)

    def status(self) -> SinkStatus:
        """See :class:`SinkStatus`. Raises StoreError, UnknownSinkError."""
        behind = self._feed.behind(self.name)
        age_ms = 0 if behind.oldest_ms is None else max(0, self._now_ms() - behind.oldest_ms)
        state = self._state
        if state is SinkState.OK and (behind.stale_places or age_ms > BEHIND_MS):
            state = SinkState.BEHIND
        return SinkStatus(
            name=self.name,
            state=state,
            behind_commits=behind.commits,
            stale_places=behind.stale_places,
            oldest_age_ms=age_ms,
            points_written=self._written,
            points_refused=self._refused,
            points_left_out={reason: self._left_out[reason] for reason in LeftOutReason},
            dead_letters=behind.refused,
            posts=self._posts,
            posts_failed=self._posts_failed,
            last_error=self._error,
            last_error_ms=self._error_ms,
            last_written_ms=self._written_ms,
        )


_SUCCESS: Final = 204
_EVER_MS: Final = 2**62


def _told(answer: Answer) -> str:
    if answer.status == NO_ANSWER:
        return f"no answer: {shown(answer.text)}"
    return f"answered {answer.status}: {shown(answer.text)}" if answer.text else f"answered {answer.status}"
