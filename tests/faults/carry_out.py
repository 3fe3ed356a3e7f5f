"""Does to a rig what a schedule says, and writes down what that may cost."""

import signal
import time
from collections.abc import Callable, Mapping
from typing import Final

from tests.faults.proxy import Mode, Proxy
from tests.faults.rig import Rig, RigSettings, epoch_ms
from tests.faults.schedule import Kind, Step, Target
from tests.faults.verdict import Cause, Hole, Seeded
from tests.servers import wait_until

SERVING: Final = '"event": "serving"'

SEAL_MARGIN_S: Final = 1.0
"""A batch is sealed this much later than it should be at most: two cores, and other work on them."""
ANSWER_MARGIN_S: Final = 0.5
HALF_OPEN_S: Final = 4.0
SLOW_S: Final = 3.0
LIE_S: Final = 2.0
DISK_S: Final = 3.0
TEN_YEARS_S: Final = 10 * 365 * 86_400
HOUR_S: Final = 3600
FROZEN_SILENCES: Final = 2.0
"""The agent is frozen for so many times what makes a silence."""
TRIMS_EARLY: Final = RigSettings(every_s=0.05, seal_s=0.1, spool_bytes_max=65_536)
"""An agent that fills its spool in seconds, and so soon has nothing left of what was receipted."""
START_S: Final = 1.0
"""An agent samples so soon after its start."""


class Faults:
    """``do`` each step of a schedule; ``holes``, ``seeded`` and ``recovery_s`` grow meanwhile."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.holes: list[Hole] = []
        self.seeded: list[Seeded] = []
        self.recovery_s: dict[str, list[float]] = {}
        self.kills = 0
        self._do: Mapping[Kind, Callable[[Step], None]] = {
            Kind.KILL: self._kill,
            Kind.KILL_AND_WIPE: self._kill,
            Kind.AGENT_LINK_RESET: lambda step: self._cut(rig.agent_link, step),
            Kind.SERVER_LINK_RESET: lambda step: self._cut(rig.server_link, step),
            Kind.AGENT_LINK_HALF_OPEN: lambda _: self._degrade(rig.agent_link, Mode.HALF_OPEN, HALF_OPEN_S),
            Kind.SERVER_LINK_HALF_OPEN: lambda _: self._degrade(rig.server_link, Mode.HALF_OPEN, HALF_OPEN_S),
            Kind.AGENT_LINK_SLOW: lambda _: self._degrade(rig.agent_link, Mode.SLOW, SLOW_S),
            Kind.AGENT_STOPPED: self._stop_agent,
            Kind.AGENT_FROZEN: self._freeze_agent,
            Kind.SERVER_FROZEN: self._freeze_server,
            Kind.SPOOL_RESTORED: self._restore_spool,
            Kind.SPOOL_RESTORED_OFFLINE: self._restore_spool_offline,
            Kind.STORE_RESTORED: self._restore_store,
            Kind.CLOCK_1970: lambda _: self._lie(since_epoch_s=1000),
            Kind.CLOCK_AHEAD: lambda _: self._lie(ahead_s=TEN_YEARS_S),
            Kind.CLOCK_JUMPS: lambda _: self._lie(ahead_s=0, then_s=(2 * HOUR_S, -3 * HOUR_S, 0)),
            Kind.AGENT_DISK_FULL: self._fill_agent_disk,
            Kind.SERVER_DISK_FULL: self._fill_server_disk,
            Kind.SERVER_DISK_READ_ONLY: self._lock_server_disk,
        }

    def do(self, step: Step) -> None:
        """Carry it out, heal it, and wait until it is over if the step says so."""
        pause(step.pause_s)
        self._do[step.kind](step)
        if step.settle:
            self.recovery_s.setdefault(step.name, []).append(self._rig.settle())

    # what dies

    def _kill(self, step: Step) -> None:
        strike(self._rig, step, self.kill_agent)
        self.kills += len(step.targets)

    def kill_agent(self) -> None:
        """What it had not sealed is gone with it."""
        self._rig.agent.kill()
        self._died()

    def _died(self) -> None:
        now_s = time.monotonic()
        lost_s = self._rig.settings.seal_s + SEAL_MARGIN_S
        self.holes.append(Hole(Cause.AGENT_DIED, now_s - lost_s, now_s + ANSWER_MARGIN_S))

    def stop_agent(self) -> None:
        """In order; at most an answer that was under way is lost."""
        began_s = time.monotonic()
        code = self._rig.agent.stop()
        if code == -signal.SIGTERM:  # started a moment ago, and not yet listening: it has died instead
            self._died()
            return
        assert code == 0, f"edge-agent ended with {code} after SIGTERM: {self._rig.agent.log()[-2000:]}"
        self._answers_lost(began_s)

    def _answers_lost(self, began_s: float) -> None:
        hole = Hole(Cause.ANSWER_UNDER_WAY, began_s - ANSWER_MARGIN_S, time.monotonic() + ANSWER_MARGIN_S, each_max=1)
        self.holes.append(hole)

    # links

    def _cut(self, link: Proxy, step: Step) -> None:
        self._switch(link, Mode.REFUSED)
        self._rig.background.call(_reset(link))
        pause(step.down_s)
        self._switch(link, Mode.OPEN)

    def _degrade(self, link: Proxy, mode: Mode, seconds: float) -> None:
        self._switch(link, mode)
        pause(seconds)
        self._switch(link, Mode.OPEN)

    def _switch(self, link: Proxy, mode: Mode) -> None:
        async def switch() -> None:
            link.switch(mode)

        self._rig.background.call(switch())

    # stops and freezes

    def _stop_agent(self, step: Step) -> None:
        self.stop_agent()
        pause(step.down_s + self._rig.settings.silence_s)
        self._rig.agent.start()

    def _freeze_agent(self, _step: Step) -> None:
        rig = self._rig
        rig.settle()  # so that nothing but this can explain the silence
        began_s, began_ms = time.monotonic(), epoch_ms()
        rig.agent.freeze()
        pause(FROZEN_SILENCES * rig.settings.silence_s)
        rig.agent.thaw()
        self.seeded.append(Seeded(began_ms, epoch_ms()))
        self._answers_lost(began_s)
        rig.settle()

    def _freeze_server(self, step: Step) -> None:
        self._rig.server.freeze()
        pause(step.down_s + self._rig.settings.lease_ttl_s)
        self._rig.server.thaw()

    # images and backups

    def _restore_spool(self, step: Step) -> None:
        self._put_old_spool_back(step)
        self._rig.agent.start()

    def _restore_spool_offline(self, step: Step) -> None:
        began_s = time.monotonic()
        self._put_old_spool_back(step)
        self._switch(self._rig.agent_link, Mode.REFUSED)
        self._rig.agent.start()
        pause(time.monotonic() - began_s + START_S)
        # another run, which cannot know that the one before never sent what it gave
        self.stop_agent()
        self._rig.agent.start()
        pause(START_S)
        self._switch(self._rig.agent_link, Mode.OPEN)

    def _put_old_spool_back(self, step: Step) -> None:
        rig = self._rig
        image = rig.directory / "image"
        rig.settle()
        self.stop_agent()
        rig.keep_image(image)
        since_s = time.monotonic()
        rig.agent.start()
        rig.settle()
        pause(step.down_s)
        self.stop_agent()
        rig.put_image_back(image)
        self.holes.append(Hole(Cause.SPOOL_REPLACED, since_s, time.monotonic()))

    def _restore_store(self, step: Step) -> None:
        rig = self._rig
        rig.wait(lambda: rig.api.linked, "the server serves", rig.server)
        backup = rig.directory / "backup.db"
        backup.unlink(missing_ok=True)
        rig.server_command("backup", str(backup))
        rig.settle()
        pause(step.down_s)
        rig.server.kill()
        pause(rig.settings.lease_ttl_s)  # the dead server's lease: a store that may be written is not replaced
        rig.server_command("restore", str(backup))
        rig.start_server()
        rig.settle()
        rig.wait(rig.drained, "the restored store has been offered everything again", rig.agent, rig.server)

    # clocks

    def _lie(
        self, *, ahead_s: int | None = None, since_epoch_s: int | None = None, then_s: tuple[int, ...] = ()
    ) -> None:
        rig = self._rig
        self.stop_agent()
        if since_epoch_s is not None:
            rig.clock.say_since_epoch(since_epoch_s)
        elif ahead_s is not None:
            rig.clock.say(ahead_s)
        rig.lie(on=True)
        rig.agent.start()
        rig.settle()
        for seconds in then_s:
            rig.clock.say(seconds)
            rig.settle()
        pause(LIE_S)
        self.stop_agent()
        rig.lie(on=False)
        rig.agent.start()

    # disks

    def _fill_agent_disk(self, _step: Step) -> None:
        disk = self._rig.agent_disk
        assert disk is not None
        began_s = time.monotonic()
        disk.fill()
        pause(DISK_S)
        disk.free()
        lost_s = self._rig.settings.seal_s + SEAL_MARGIN_S
        self._rig.settle()
        self.holes.append(Hole(Cause.DISK_FULL, began_s - lost_s, time.monotonic()))

    def _fill_server_disk(self, _step: Step) -> None:
        disk = self._rig.server_disk
        assert disk is not None
        disk.fill()
        pause(DISK_S)
        disk.free()

    def _lock_server_disk(self, _step: Step) -> None:
        """A running server has its store open, and Linux refuses to lock a disk then: so it finds it locked."""
        rig = self._rig
        disk = rig.server_disk
        assert disk is not None
        rig.server.stop()
        disk.read_only(on=True)
        served = rig.server.log().count(SERVING)
        rig.server.start()
        pause(DISK_S)
        disk.read_only(on=False)
        # it may have found the disk locked and still be on its way out
        wait_until(
            lambda: not rig.server.running or rig.server.log().count(SERVING) > served, "a verdict on the disk"
        )
        if not rig.server.running:
            rig.server.kill()
            rig.server.start()


def strike(rig: Rig, step: Step, kill_agent: Callable[[], None]) -> None:
    """Kill those that *step* means, leave them down for a while, and start them again."""
    for target in step.targets:
        {Target.AGENT: kill_agent, Target.SERVER: rig.server.kill, Target.BROKER: rig.broker.kill}[target]()
    if step.kind is Kind.KILL_AND_WIPE:
        rig.broker.wipe()
    pause(step.down_s)
    for target in step.targets:
        {Target.AGENT: rig.agent.start, Target.SERVER: rig.server.start, Target.BROKER: rig.broker.start}[target]()


async def _reset(link: Proxy) -> None:
    link.reset()


def pause(seconds: float) -> None:
    """Let the world go on. Schedules are made of times, so here alone waiting for no event is right."""
    time.sleep(seconds)
