"""Carries out what :mod:`edge_agent.changing` decides: stores each state, has handlers apply and check, reports.

It carries the orders of kind ``twin``. What it says on ``up/twin`` is decided by :mod:`edge_agent.reporting`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol, cast

from msgspec.structs import replace

from broker_config import limits, twin
from broker_config.device_classes import Change, DeviceClass
from broker_config.signing import BadEnvelopeError, Claims
from broker_config.text import shown
from broker_config.twin import AskTwin, Document
from edge_agent import changing
from edge_agent.adapters.applying import Applying, Mcus, Release, RestartError
from edge_agent.adapters.transaction import Failpoint
from edge_agent.adapters.twin_file import TwinFile
from edge_agent.changing import Kept, Noted, Stage
from edge_agent.commanding import Journal
from edge_agent.handlers import Handler
from edge_agent.obeying import Order
from edge_agent.reporting import Reporting

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Between two looks at what holds a change off."""
HELD_TELL_S: Final = 10.0
"""Another lease that holds a change off is told after this long, not sooner."""
AGAIN_S_MIN: Final = 1.0
AGAIN_S_MAX: Final = 60.0
"""From the first to the longest pause before a check, an undoing or a disk that failed is tried again."""
HURRY: Final = 8
"""So many attempts to connect have time before a change that needs the server has to prove itself."""
NOT_HEARD: Final = "no word of the server since it was applied"


class Board(Protocol):
    """The device's clocks, and which boot this is."""

    @property
    def boot(self) -> str: ...

    def mono_ms(self) -> int: ...


class Own(NamedTuple):
    """The settings of the agent itself that are in force."""

    host: str
    port: int
    keep_alive_s: int


class Configuring:
    """All calls are the agent's loop's, and :meth:`run` is a task of its."""

    def __init__(
        self,
        device_class: DeviceClass,
        applied_by: Mapping[str, Handler],
        own: Own,
        file: TwinFile,
        board: Board,
        *,
        journal: Journal,
        waits_for: Callable[[Change], str],
        now_ms: Callable[[], int | None],
        wall_ms: Callable[[], int],
        say: Callable[[bytes], None],
        come_back: Callable[[], None],
        ready: Callable[[], bool],
        release: Release | None = None,
        mcus: Mcus | None = None,
        restart: Callable[[], None] = lambda: None,
        failpoint: Failpoint = lambda _step: None,
    ) -> None:
        """*own*: as agent.toml has it. *waits_for*: the lease that holds a change off. *now_ms*: the time, if
        anybody vouches for it; *wall_ms*: what the board's clock says. *say*: on ``up/twin``. *come_back*: has the
        agent connect anew. *ready*: whether an order that comes now could be obeyed. *restart*: has this agent end,
        and the one whose turn it is started.
        """
        by_file: Document = {"broker_host": own.host, "broker_port": own.port, "keep_alive_s": own.keep_alive_s}
        self._applying = Applying(device_class, applied_by, by_file, failpoint, release, mcus)
        self._restart = restart
        self._file = file
        self._board = board
        self._journal = journal
        self._waits_for = waits_for
        self._now_ms = now_ms
        self._wall_ms = wall_ms
        self._say = say
        self._come_back = come_back
        self._ready = ready
        self._kept = Kept()
        self._unsure: Noted | None = None
        self._loaded = self._disk_bad = False
        self._known = 0
        self._reporting = Reporting()
        self._wake = asyncio.Event()
        self._held_told_s = 0.0
        self._again_s = AGAIN_S_MIN
        self._connected = False
        self._overtaken = False
        self._generation = 0
        self._attempt = 0
        self._fresh = False
        self._heard = False
        self._load()

    def _load(self) -> None:
        try:
            self._kept = self._file.load()
        except OSError as error:
            logger.warning("twin not read", extra={"why": shown(error)})
            return
        self._loaded, self._unsure = True, self._kept.noted

    # Orders: what they hand over --------------------------------------------------------------------------------

    def fits(self, claims: Claims) -> bool:
        """Whether the body is what its kind says."""
        try:
            twin.decode_desired(claims)
        except BadEnvelopeError:
            return False
        return True

    def carry_out(self, order: Order) -> bool:
        """Take a desired version up that is rightly signed, meant for this device and new. False: it could not be
        kept, and may come again.
        """
        desired = twin.decode_desired(order.claims)
        self._reporting.answered()
        if not self._loaded:
            return False
        if desired.version <= self._kept.have:
            return True
        self._wake.set()
        return self._save(changing.come(self._kept, desired, self._applying.faults(desired.config)))

    # The connection ---------------------------------------------------------------------------------------------

    def connecting(self) -> Own:
        """With what an attempt is made that begins now."""
        self._attempt = self._generation
        filled = self._applying.own(changing.in_trial(self._kept)[1])
        return Own(
            str(filled["broker_host"]), cast("int", filled["broker_port"]), cast("int", filled["keep_alive_s"])
        )

    def connected(self) -> None:
        """There is a connection, and it has subscribed."""
        self._connected, self._overtaken = True, False
        self._fresh = self._attempt == self._generation
        self._reporting.connected(self._now_s())
        self._speak()

    def disconnected(self) -> None:
        """There is none any more."""
        self._connected = self._fresh = False
        self._reporting.disconnected()

    def heard_server(self) -> None:
        """It said something fresh and authentic over the connection that there is."""
        if self._fresh:
            self._heard = True
            self._wake.set()

    def told(self, payload: bytes) -> bool:
        """A message on ``dn/twin``; False: it may be an order."""
        try:
            state = twin.decode_state(payload)
        except twin.BadTwinError:
            return False
        version = self._reporting.version
        self._reporting.told(
            desired=state.desired, reported=state.reported, have=self._kept.have, now_s=self._now_s()
        )
        now_ms = self._now_ms()
        ahead = now_ms is not None and version < state.reported <= now_ms + limits.CLOCK_AHEAD_MS_MAX
        if ahead and version and not self._overtaken:
            # the server has seen more than this device remembers having said: it goes on from an old image. Nobody
            # vouches for that, so it is believed, and costs a write, once a connection
            self._overtaken, self._known = True, state.reported
            self._save(self._kept)
        self._speak()
        return True

    @property
    def hurry_s(self) -> float | None:
        """How long may pass between two attempts to connect; None: as long as usual."""
        trying = self._kept.trying
        hurries = (
            self._kept.stage is Stage.CONFIRMING and trying is not None and self._applying.needs_server(self._kept)
        )
        return trying.confirm_s / HURRY if hurries and trying is not None else None

    def turn(self) -> None:
        """What time alone makes due."""
        self._speak()

    def _speak(self) -> None:
        if not self._connected or not self._loaded:
            return
        ask, report = self._reporting.due(self._now_s(), ready=self._ready())
        if report and self._kept.reported is not None:
            self._say(twin.encode(self._kept.reported))
        if ask:
            self._say(twin.encode(AskTwin(1, self._kept.have)))

    def next_s(self) -> float | None:
        """When something is due (monotonic)."""
        return self._reporting.next_s(ready=self._ready()) if self._connected else None

    def status(self) -> dict[str, object]:
        """For people."""
        kept = self._kept
        return {
            "stage": kept.stage.value,
            "taken": kept.taken,
            "state": kept.state.value if kept.reported is None else kept.reported.state.value,
            "in_force": changing.in_trial(kept)[0],
            "waits_for": kept.waits_for,
            "reason": kept.reason,
        }

    # The loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while not self._loaded:
            await asyncio.sleep(self._pause_s())
            self._load()
        await self._begin()
        while True:
            self._wake.clear()
            try:
                moved = await self._step()
            except RestartError:
                self._restart()
                return
            if moved:
                self._again_s = AGAIN_S_MIN
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._wake.wait()

    async def _begin(self) -> None:
        """Go on from what is stored; what is in force for good is put right where another one changed it."""
        kept, unsure = self._kept, self._unsure
        if unsure is not None:
            self._note(unsure)
            kept = replace(kept, noted=None) if kept.noted is unsure else kept
        self._save(changing.started(kept, boot=self._board.boot, mono_ms=self._board.mono_ms()), anyway=True)
        if self._kept.stage in {Stage.IDLE, Stage.WAITING} and self._kept.in_force:
            fault = await self._applying.apply(self._kept, self._kept.config, releases=False)
            if fault:
                logger.warning("not as configured", extra={"why": shown(fault)})

    def stop(self) -> None:
        """The agent stops: the journal has all that was noted."""
        if self._kept.noted is not None:
            self._save(replace(self._kept, noted=None), anyway=True)

    def _wait_s(self) -> float | None:
        match self._kept.stage:
            case Stage.IDLE:
                return None if self._kept.following is None else self._pause_s()
            case Stage.WAITING:
                return LOOK_S
            case Stage.CONFIRMING:
                left_s = changing.left_ms(self._kept, boot=self._board.boot, mono_ms=self._board.mono_ms()) / 1000
                if left_s <= 0:
                    return self._pause_s()
                return left_s if self._not_heard() else min(self._pause_s(), left_s)
            case Stage.APPLYING | Stage.REVERTING:
                return self._pause_s()

    def _pause_s(self) -> float:
        pause_s, self._again_s = self._again_s, min(AGAIN_S_MAX, 2 * self._again_s)
        return pause_s

    async def _step(self) -> bool:
        """Do what the stage says; whether that led to another state."""
        match self._kept.stage:
            case Stage.IDLE:
                following = self._kept.following
                return following is not None and self._save(
                    changing.follow(self._kept, self._applying.faults(following.config))
                )
            case Stage.WAITING:
                return self._look()
            case Stage.APPLYING:
                return await self._go_forward()
            case Stage.CONFIRMING:
                return await self._confirm()
            case Stage.REVERTING:
                return await self._go_back()

    def _look(self) -> bool:
        assert self._kept.trying is not None
        now_ms = self._now_ms()
        now = None if now_ms is None else datetime.fromtimestamp(now_ms / 1000, UTC).astimezone()
        lease = self._waits_for(Change.CONFIG)
        if not lease and self._applying.changes_firmware(self._kept):
            lease = self._waits_for(Change.FIRMWARE)
        holds = lease or ("" if changing.is_open(self._kept.trying.window, now) else changing.WINDOW)
        if not holds:
            return self._save(changing.free(self._kept))
        now_s = self._now_s()
        if holds != self._kept.waits_for and (not self._kept.waits_for or now_s - self._held_told_s >= HELD_TELL_S):
            self._held_told_s = now_s
            self._save(changing.held(self._kept, holds))
        return False

    async def _go_forward(self) -> bool:
        assert self._kept.trying is not None
        fault = await self._applying.apply(self._kept, self._kept.trying.config)
        # what was kept may have changed meanwhile: a newer version that follows
        if fault:
            return self._save(changing.not_applied(self._kept, fault), anyway=True)
        if not self._save(changing.applied(self._kept, boot=self._board.boot, mono_ms=self._board.mono_ms())):
            return False
        self._heard = False
        if self._applying.needs_server(self._kept):
            self._connect_anew()
        return True

    async def _confirm(self) -> bool:
        trying = self._kept.trying
        assert trying is not None
        fault = NOT_HEARD if self._not_heard() else await self._applying.check(trying.config)
        fault = fault or self._applying.commit()
        if not fault:
            return self._save(changing.proved(self._kept), good=True)
        if changing.left_ms(self._kept, boot=self._board.boot, mono_ms=self._board.mono_ms()) > 0:
            return False
        anew = self._applying.needs_server(self._kept)
        self._save(changing.not_proved(self._kept, fault), anyway=True)
        if anew:
            self._connect_anew()
        return True

    def _not_heard(self) -> bool:
        return self._applying.needs_server(self._kept) and not self._heard

    async def _go_back(self) -> bool:
        fault = await self._applying.apply(self._kept, self._kept.config)
        if not fault:
            return self._save(changing.restored(self._kept), anyway=True)
        logger.error("not undone yet", extra={"why": shown(fault)})
        if self._kept.following is None:
            return False
        return self._save(changing.given_up(self._kept, f"not undone: {fault}"))

    def _connect_anew(self) -> None:
        self._generation += 1
        self._fresh = self._heard = False
        self._come_back()

    # What is kept -----------------------------------------------------------------------------------------------

    def _save(self, kept: Kept, *, anyway: bool = False, good: bool = False) -> bool:
        """Store it, with what is to be reported of it; only then is it so. *anyway*: it is, even if the disk takes
        nothing: a change is undone all the same.
        """
        kept = changing.told(
            kept,
            boot=self._board.boot,
            now_ms=self._wall_ms(),
            config=self._applying.in_force(changing.in_trial(kept)[1]),
            known=self._known,
        )
        if kept == self._kept:
            self._report()
            return True
        kept = replace(kept, noted=changing.event(self._kept, kept))
        try:
            self._file.save(kept, good=good)
        except OSError as error:
            log = logger.debug if self._disk_bad else logger.warning
            log("twin not stored", extra={"why": shown(error)})
            self._disk_bad = True
            if not anyway:
                return False
        else:
            self._disk_bad = False
        self._kept = kept
        if kept.noted is not None:
            self._note(kept.noted)
        self._report()
        return True

    def _report(self) -> None:
        reported = self._kept.reported
        if reported is None or reported.version == self._reporting.version:
            return
        passing = self._kept.stage is not Stage.IDLE and not self._kept.waits_for
        self._reporting.changed(reported.version, self._now_s(), soon=passing)
        self._speak()

    def _note(self, noted: Noted) -> None:
        logger.info(noted.kind.value.replace(".", " "), extra=noted.data)
        self._journal.note(noted.kind, noted.data)
        self._journal.seal()

    def _now_s(self) -> float:
        return self._board.mono_ms() / 1000
