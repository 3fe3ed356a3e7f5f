"""Whatever comes in whatever order, and whatever dies when: old or new is in force, and it always comes to an end."""

import json
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker_config import device_classes
from broker_config.ids import hex16
from broker_config.twin import ENDED, Document
from edge_agent import changing
from edge_agent.adapters.twin_file import TwinFile
from edge_agent.changing import Kept, Stage
from edge_agent.configuring import Configuring, Own
from edge_agent.handlers import ByAgent, ByFile, Handler
from edge_agent.journal import Data, Kind
from tests.edge_agent.configurer import ordered

CAMERA: Final = device_classes.load("body_camera")
STEPS_MAX: Final = 40
"""In so many steps every change has an end, once nothing holds it off."""
ON_DISK: Final = ("pre_event_s", "mute_allowed")


SETTINGS: Final = st.fixed_dictionaries(
    {},
    optional={
        "pre_event_s": st.integers(0, 120),
        "mute_allowed": st.booleans(),
        "broker_port": st.integers(1, 3),
    },
)


class CutError(Exception):
    """The power went."""


def drive(coroutine: Coroutine[object, object, bool | None]) -> bool:
    """Nothing in it waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return bool(ended.value)
    raise AssertionError("it waits")


class Device(RuleBasedStateMachine):
    """A file that an instrument reads, and a setting of the agent itself that needs the server."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.mono_ms, self.boots, self.version = 0, 0, 0
        self.lease, self.full, self.cut_in = "", False, -1
        self.known: dict[int, Document] = {0: {}}
        self.confirmed: set[int] = {0}
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.end()
            shutil.rmtree(self.directory)

    # The board --------------------------------------------------------------------------------------------------

    @property
    def boot(self) -> str:
        return hex16(f"{self.boots:016x}")

    def failpoint(self, _step: str) -> None:
        if self.full and _step.startswith("before "):
            raise OSError(28, "No space left on device")
        if self.cut_in == 0:
            raise CutError
        self.cut_in -= 1

    def note(self, kind: Kind, data: Data) -> None:
        if kind is Kind.CONFIG_CONFIRMED:
            self.confirmed.add(int(str(data["version"])))

    def seal(self) -> None:
        pass

    def start(self) -> None:
        self.cut_in = -1
        by_file = ByFile(str(self.directory / "settings.json"), needs_server=False)
        handlers: dict[str, Handler] = {**dict.fromkeys(ON_DISK, by_file), "broker_port": ByAgent()}
        board = self._board()
        self.device = Configuring(
            CAMERA,
            handlers,
            Own("127.0.0.1", 1, 30),
            TwinFile(self.directory, self.failpoint),
            board,
            journal=self,
            waits_for=lambda _change: self.lease,
            now_ms=lambda: 1_767_225_600_000 + self.mono_ms,
            wall_ms=lambda: 1_767_225_600_000 + self.mono_ms,
            say=lambda _payload: None,
            come_back=lambda: None,
            ready=lambda: True,
            failpoint=lambda _step: self.failpoint("handler"),
        )
        drive(self.device._begin())

    def _board(self) -> "Board":
        return Board(self)

    @property
    def kept(self) -> Kept:
        return self.device._kept

    # What happens -----------------------------------------------------------------------------------------------

    @rule(settings=SETTINGS)
    def desire(self, settings: Document) -> None:
        self.version += 1
        self.known[self.version] = settings
        self.device.carry_out(ordered(self.version, settings))

    @rule()
    def desire_what_cannot_be(self) -> None:
        self.version += 1
        self.known[self.version] = {"video": "720p"}  # nothing here applies it
        self.device.carry_out(ordered(self.version, self.known[self.version]))

    @rule(name=st.sampled_from(["", "recording"]))
    def hold(self, name: str) -> None:
        self.lease = name

    @rule(full=st.booleans())
    def fill_the_disk(self, full: bool) -> None:
        self.full = full

    @rule(ms=st.integers(0, 6_000))
    def pass_time(self, ms: int) -> None:
        self.mono_ms += ms

    @rule()
    def connect_and_hear(self) -> None:
        self.device.connecting()
        self.device.connected()
        self.device.heard_server()
        self.device.disconnected()

    @rule()
    def go_on(self) -> None:
        drive(self.device._step())

    @rule(steps=st.integers(0, 6), reboots=st.booleans())
    def go_on_until_the_power_goes(self, steps: int, reboots: bool) -> None:
        self.cut_in = steps
        try:
            for _ in range(4):
                drive(self.device._step())
        except CutError:
            pass
        self.boots += reboots
        self.mono_ms = 0 if reboots else self.mono_ms
        self.start()

    @precondition(lambda self: not self.full)
    @rule()
    def end(self) -> None:
        """Nothing holds it off, the disk takes everything, and time passes: it comes to an end."""
        self.lease, self.full, self.cut_in = "", False, -1
        for _ in range(STEPS_MAX):
            drive(self.device._step())
            self.mono_ms += 1_000
            if self.kept.stage is Stage.IDLE and self.kept.following is None:
                break
        assert self.kept.stage is Stage.IDLE
        assert self.kept.state in ENDED
        assert self.kept.have >= self.kept.taken

    # What is always so ------------------------------------------------------------------------------------------

    @invariant()
    def old_or_new_is_in_force_and_it_says_which(self) -> None:
        if not hasattr(self, "device"):
            return
        version, config = changing.in_trial(self.kept)
        assert self.known[version] == config
        assert self.kept.in_force in self.confirmed
        reported = self.kept.reported
        if self.full or reported is None or self.kept.stage in {Stage.APPLYING, Stage.REVERTING}:
            return
        assert reported.in_force == version
        real = self.directory / "settings.json"
        if version and real.exists():
            told = {name: reported.config[name] for name in ON_DISK}
            assert json.loads(real.read_bytes()) == told


class Board:
    """Its clock, and which boot this is."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.boot = device.boot

    def mono_ms(self) -> int:
        return self._device.mono_ms


TestDevice = Device.TestCase
TestDevice.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
