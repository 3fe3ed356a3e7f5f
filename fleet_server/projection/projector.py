"""Writes what the batch store holds to one sink, for ever: what is new first, then places that are stale.

Order is everything here too: the cursor moves, and a stale place is clean, only when every point was answered with
success or stands refused by itself. So whatever dies, the same points are written again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from broker_config.text import shown
from fleet_server.projection.annotations import Annotating, Happened
from fleet_server.projection.encoding import Encoding
from fleet_server.projection.feed import Behind, Feed, Item, LeftOut, LeftOutReason, Readings, Refused, StalePlace
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.late import LateBucket
from fleet_server.projection.margin import SETTLE_MS, Margin
from fleet_server.projection.points import Lines, between, beyond, packed
from fleet_server.projection.series import SERIES_MAX, SeriesBudget
from fleet_server.projection.tally import Tally, told
from fleet_server.projection.target import NO_ANSWER, Answer, PrepareError, Target
from fleet_server.projection.verdict import REFUSED_RETRY_S, Delivery, Verdict, verdict, wait_s
from fleet_server.projection.view import SinkState, SinkStatus
from fleet_server.standing.sample import Following
from fleet_server.telemetry.store import FencedError, StoreError

log = structlog.get_logger()

LOOK_S: Final = 1.0
"""Between two looks for something new."""
ROUND_RECORDS_MAX: Final = 2_000
"""Between two moves of the cursor, and so what a crash repeats."""
ROUND_PLACES_MAX: Final = 500
ROUND_POINTS_MAX: Final = 100_000
ROUND_STALE_S: Final = 1.0
"""Of stale places, before what is new has its turn again: what is live waits so long for what is old, and a post."""
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


@dataclass(frozen=True, slots=True)
class ProjectorSettings:
    """``retention_d``: 0 is for ever. ``series_max``: see :mod:`fleet_server.projection.series`."""

    name: str
    points_max: int
    retention_d: int
    series_max: int = SERIES_MAX


class _AwayError(Exception):
    """The sink did not take it, and was waited for; the round is given up."""


class Projector:
    """One sink. ``run`` it once; ``status`` is for any thread."""

    def __init__(
        self,
        settings: ProjectorSettings,
        feed: Feed,
        labels: LabelsOf,
        standing: Following | None,
        *,
        new_target: Callable[[], Target],
        new_late: Callable[[], Target] | None = None,
        happened: Happened | None = None,
        now_ms: Callable[[], int],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """*new_target* is called in the loop that runs; *standing* None: no measures of the server's own. *new_late*:
        where readings go that are too old or too far ahead when they come; None: they are left out. *happened* None:
        there are no annotations.
        """
        self._settings = settings
        self._feed = feed
        self._standing = standing
        self._new_target = new_target
        self._now_ms = now_ms
        self._rng = rng
        self._sleep = sleep
        self._target: Target
        self._late = None if new_late is None else LateBucket(new_late, settings.points_max)
        self._prepared = False
        self._taken = False
        self._tries = 0
        self._bytes_max = POST_BYTES_MAX
        self._tally = Tally()
        self._budget = SeriesBudget(settings.series_max)
        self._lines_of = Encoding(labels, self._budget, self._tally, now_ms)
        self._happened = None if happened is None else Annotating(happened)
        self._margin = Margin()
        self._broken = self._met = False
        self._mark = 0

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
        self._begin()
        try:
            while True:
                await self._turn()
        finally:
            await self._close()

    async def drain(self) -> None:
        """Write all there is, whatever it takes, and return. Raises as :meth:`once`."""
        self._begin()
        try:
            while await self._prepared_once():
                pass
        finally:
            await self._close()

    async def _close(self) -> None:
        await self._target.close()
        if self._late is not None:
            await self._late.close()

    def _begin(self) -> None:
        self._target = self._new_target()
        self._met = False
        # what is in columns was given before: those go on
        now_ms = self._now_ms()
        for device, stream in self._feed.series():
            self._lines_of.known(stream, device, now_ms)
        # whatever ended the last run may have ended the sink too
        self._feed.rewind(self.name, now_ms=self._now_ms())

    async def _prepared_once(self) -> bool:
        try:
            if not self._prepared:
                await self._prepare()
            self._settle()
            return await self.once()
        except _AwayError:
            return True

    def _settle(self) -> None:
        """What the sink has had for long enough is settled; if it may have been restarted, the rest is not."""
        now_ms = self._now_ms()
        if self._margin.rewind_due(now_ms):
            log.info("the sink may have been restarted: its last seconds are written again", sink=self.name)
            self._feed.rewind(self.name, now_ms=now_ms)
            self._margin.rewound(now_ms)
        up_to = self._margin.settled(now_ms)
        if up_to is not None:
            self._feed.settle(self.name, up_to=up_to, before_ms=now_ms - SETTLE_MS)

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
        """One round: what was measured, new commits, some stale places; whether there was anything to write.

        Raises:
            StoreError, UnknownSinkError, _AwayError
        """
        await self._measured()
        worked = await self._new()
        await self._told()
        return await self._stale() or worked

    # what is written

    async def _new(self) -> bool:
        name = self.name
        commits = self._feed.commits(name, records_max=ROUND_RECORDS_MAX, now_ms=self._now_ms())
        if commits.up_to == commits.after:
            return False
        refused = await self._write(commits.items, late=self._late)
        if self._late is not None:
            await self._late.write(self._tally, self._now_ms())
        if self._feed.advance(name, commits, refused, now_ms=self._now_ms()):
            self._margin.gave(self._now_ms(), commits.up_to)
        return True

    async def _stale(self) -> bool:
        name = self.name
        places = self._places()
        if not places:
            return False
        taken: list[StalePlace] = []
        loop = asyncio.get_running_loop()
        until_s = loop.time() + ROUND_STALE_S

        def items() -> Iterator[Item]:
            points = 0
            for place in places:
                taken.append(place)
                for item in self._read(place):
                    points += len(item.times_ms) if isinstance(item, Readings) else 0
                    yield item
                if points >= ROUND_POINTS_MAX or loop.time() >= until_s:
                    return

        refused = await self._write(items())
        now_ms = self._now_ms()
        self._feed.written(name, taken, refused, now_ms=now_ms)
        self._margin.gave(now_ms)
        return True

    def _places(self) -> list[StalePlace]:
        """What is to be written again."""
        return self._feed.stale(self.name, places_max=ROUND_PLACES_MAX)

    def _read(self, place: StalePlace) -> Iterator[Item]:
        """What is written of it."""
        return self._feed.read(place)

    async def _write(self, items: Iterable[Item], *, late: LateBucket | None = None) -> list[Refused]:
        refused: list[Refused] = []
        for body in packed(self._lines(items, late), points_max=self._settings.points_max, bytes_max=self._bytes_max):
            refused += await self._deliver(body)
        return refused

    def _lines(self, items: Iterable[Item], late: LateBucket | None) -> Iterator[Lines]:
        """*late*: takes what is left out for its time; None: that is only counted."""
        now_ms, retention_d = self._now_ms(), self._settings.retention_d
        oldest_ms = now_ms - retention_d * DAY_MS + RETENTION_MARGIN_MS if retention_d else -_EVER_MS
        for item in items:
            if isinstance(item, LeftOut):
                self._tally.left_out[item.reason] += item.points
                continue
            readings, left = between(item, oldest_ms, now_ms + AHEAD_MS_MAX)
            if left and late is not None:
                late.add(self._lines_of.readings(beyond(item, oldest_ms, now_ms + AHEAD_MS_MAX)), left)
            else:
                self._tally.leave_out(left)
            if readings is not None:
                yield self._lines_of.readings(readings)

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
            if found in _AWAY:
                tries += 1
                await self._wait(answer, found)
                if found is Verdict.REFUSED or tries >= TRIES_IN_ROUND_MAX:
                    raise _AwayError
            else:
                self._went(found, answer)
                delivery.answered(found, f"{answer.status}: {shown(answer.text)}")
        self._tally.written += delivery.written
        self._tally.refused += len(delivery.refused)
        return delivery.refused

    async def _post(self, body: bytes) -> Answer:
        self._tally.posts += 1
        answer = await self._target.write(body)
        self._tally.posts_failed += answer.status != _SUCCESS
        if answer.status == NO_ANSWER:
            self._broken = True
        elif self._met and (self._broken or answer.fresh):
            self._margin.doubt()
            self._broken = False
        self._met = self._met or answer.status != NO_ANSWER
        return answer

    def _went(self, found: Verdict, answer: Answer) -> None:
        """The sink answered, and took it or found fault with it."""
        if found is Verdict.WRITTEN:
            if self._tally.took(self._now_ms()):
                log.info("the sink takes points again", sink=self.name, tries=self._tries)
            self._taken, self._tries = True, 0
        else:
            self._note(told(answer))
        if found is Verdict.HALVE:
            self._bytes_max = max(POST_BYTES_MIN, self._bytes_max // 2)

    def _away(self, answer: Answer, found: Verdict) -> None:
        self._tries += 1
        self._fail(_STATES[found], told(answer))
        if found is Verdict.REFUSED:  # it may have lost its bucket, or our rights
            self._prepared = self._taken = False

    async def _wait(self, answer: Answer, found: Verdict) -> None:
        self._away(answer, found)
        await self._sleep(wait_s(answer, found, self._tries, self._rng, datetime.now(UTC)))

    async def _prepare(self) -> None:
        try:
            await self._target.prepare()
        except PrepareError as error:
            # there is nothing in it that could be halved
            found = Verdict.WAIT if verdict(error.answer) is Verdict.WAIT else Verdict.REFUSED
            self._tries += 1
            self._fail(_STATES[found], str(error))
            await self._sleep(wait_s(error.answer, found, self._tries, self._rng, datetime.now(UTC)))
            raise _AwayError from error
        self._prepared = True

    # measures

    async def _measured(self) -> None:
        """How the fleet stands: what is not taken at once is dropped, for there is something newer soon."""
        if self._standing is None:
            return
        self._mark, samples, missed = self._standing.since(self._mark)
        self._tally.left_out[LeftOutReason.NOT_ANSWERING] += missed
        lines = map(self._lines_of.sample, samples)
        for body in packed(lines, points_max=self._settings.points_max, bytes_max=self._bytes_max):
            await self._try(body)

    async def _told(self) -> None:
        """What happened, as annotations. Raises _AwayError."""
        if self._happened is None:
            return
        try:
            found = self._happened.due(asyncio.get_running_loop().time())
        except StoreError as error:
            self._note(str(error))
            return
        lines = map(self._lines_of.annotation, found)
        for body in packed(lines, points_max=self._settings.points_max, bytes_max=self._bytes_max):
            await self._deliver(body)
        self._happened.written()

    async def _try(self, body: Lines) -> None:
        """Write *body* as far as it is taken without waiting."""
        delivery = Delivery(body)
        while (part := delivery.body) is not None and len(delivery.refused) < ALONE_MAX:
            answer = await self._post(part.data)
            found = verdict(answer)
            if found in _AWAY:
                self._away(answer, found)
                break
            self._went(found, answer)
            delivery.answered(found, "")
        self._tally.written += delivery.written
        self._tally.refused += len(delivery.refused)
        left = body.points - delivery.written - len(delivery.refused)
        self._tally.left_out[LeftOutReason.NOT_ANSWERING] += left

    # status

    def status(self) -> SinkStatus:
        """See :class:`SinkStatus`. Raises StoreError, UnknownSinkError."""
        return self._told_of(self._feed.behind(self.name))

    def _told_of(self, behind: Behind) -> SinkStatus:
        series, most = self._budget.series, self._budget.series_max
        return self._tally.status(self.name, behind, self._now_ms(), series=series, series_max=most)

    def _note(self, text: str) -> None:
        self._tally.note(text, self._now_ms())

    def _fail(self, state: SinkState, text: str) -> None:
        news = self._tally.failed(state, text, self._now_ms())
        level = log.warning if news else log.debug
        level("the sink takes nothing", sink=self.name, state=str(state), error=shown(text))


_SUCCESS: Final = 204
_EVER_MS: Final = 2**62
_AWAY: Final = frozenset({Verdict.WAIT, Verdict.REFUSED})
_STATES: Final = {Verdict.WAIT: SinkState.WAITING, Verdict.REFUSED: SinkState.REFUSED}
