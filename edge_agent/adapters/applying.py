"""Has handlers apply settings, and looks whether they are in force. Both say what went wrong; empty: nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, assert_never

import msgspec

from broker_config.device_classes import DeviceClass
from broker_config.text import shown
from broker_config.twin import Document, SettingValue
from edge_agent import handlers
from edge_agent.adapters import program
from edge_agent.adapters.files import write_durably
from edge_agent.adapters.program import ProgramError
from edge_agent.adapters.transaction import Failpoint
from edge_agent.changing import Kept
from edge_agent.handlers import AGENT_RELEASE, ByAgent, ByFile, ByMcu, ByProgram, ByRelease, Handler

FILE_MODE: Final = 0o644

Values = Mapping[str, SettingValue]


class RestartError(Exception):
    """It goes on in an agent that is started anew."""


class Release(Protocol):
    """The agent's own release, as :class:`edge_agent.adapters.agent_release.AgentRelease` has it."""

    def in_force(self) -> str: ...

    def running(self) -> str: ...

    def check(self, name: str) -> str: ...

    def commit(self) -> str: ...

    async def put(self, name: str) -> str: ...


class Mcus(Protocol):
    """Microcontrollers' firmware, as :class:`edge_agent.adapters.mcu_release.McuRelease` has it."""

    def in_force(self, handler: ByMcu) -> str: ...

    def check(self, handler: ByMcu, name: str) -> str: ...

    async def put(self, handler: ByMcu, name: str) -> str: ...


class Applying:
    """Everything that can be set on one device. All calls are the agent's loop's."""

    def __init__(
        self,
        device_class: DeviceClass,
        handlers: Mapping[str, Handler],
        by_file: Values,
        failpoint: Failpoint,
        release: Release | None = None,
        mcus: Mcus | None = None,
    ) -> None:
        """*handlers*: setting -> what applies it. *by_file*: the agent's own settings, as agent.toml has them.
        *release*, *mcus*: None where another agent, or firmware, cannot be had.
        """
        self._class = device_class
        cannot = ((ByRelease,) if release is None else ()) + ((ByMcu,) if mcus is None else ())
        self._handlers = {name: each for name, each in handlers.items() if not isinstance(each, cannot)}
        self._mcus = mcus
        self._by_file = by_file
        self._failpoint = failpoint
        self._release = release

    def faults(self, config: Document) -> Sequence[str]:
        """Why this device cannot be set to *config*."""
        return handlers.faults_of(self._class, self._handlers, config)

    def filled(self, config: Document) -> dict[str, SettingValue]:
        """Every setting that can be applied here, as *config* has it; else its default."""
        return handlers.filled(self._class, self._handlers, self._own(), config)

    def in_force(self, config: Document) -> dict[str, SettingValue]:
        """As :meth:`filled`, but with the release that runs, whatever was asked for."""
        running = {} if self._release is None else {AGENT_RELEASE: self._release.running()}
        return self.filled(config) | {name: value for name, value in running.items() if name in self._handlers}

    def _own(self) -> Values:
        own = {} if self._release is None else {AGENT_RELEASE: self._release.in_force()}
        if self._mcus is not None:
            own |= {
                name: self._mcus.in_force(each) for name, each in self._handlers.items() if isinstance(each, ByMcu)
            }
        return {**self._by_file, **own}

    def own(self, config: Document) -> Values:
        """The agent's own settings among them."""
        return {**self._by_file, **self.filled(config)}

    def changes_firmware(self, kept: Kept) -> bool:
        """Whether the change under way is one of firmware, so that leases that defer firmware hold it off."""
        return kept.trying is not None and any(
            self._class.config[name].firmware
            and self.filled(kept.config).get(name) != self.filled(kept.trying.config).get(name)
            for name in self._handlers
        )

    def _changes(self, kept: Kept) -> dict[Handler, bool]:
        """Each handler -> whether the change under way means anything to it."""
        if kept.trying is None:
            return {}
        before = dict(handlers.grouped(self._handlers, self.filled(kept.config)))
        after = dict(handlers.grouped(self._handlers, self.filled(kept.trying.config)))
        return {handler: before.get(handler) != values for handler, values in after.items()}

    def needs_server(self, kept: Kept) -> bool:
        """Whether the change under way has to hear from the server before it is confirmed."""
        return any(changed and handler.needs_server for handler, changed in self._changes(kept).items())

    async def apply(self, kept: Kept, config: Document, *, releases: bool = True) -> str:
        """Have applied what is not in force yet. Of a handler that cannot tell, that is what the change under way
        means something to. *releases*: other programs as well; another agent the last of all: it goes on with this.

        Raises RestartError: in another agent.
        """
        changes = self._changes(kept)
        groups = handlers.grouped(self._handlers, self.filled(config))
        for handler, values in sorted(groups, key=lambda group: isinstance(group[0], ByRelease)):
            if isinstance(handler, ByRelease | ByMcu) and not releases:
                continue
            if _can_tell(handler):
                wanted = bool(await self._check(handler, values))
            else:
                wanted = changes.get(handler, False) or (bool(changes) and not kept.in_force)
            if not wanted:
                continue
            self._failpoint("before a handler")
            fault = await self._apply(handler, values)
            self._failpoint("after a handler")
            if fault:
                return fault
        return ""

    async def check(self, config: Document) -> str:
        """Look whether *config* is in force, as far as handlers can tell."""
        for handler, values in handlers.grouped(self._handlers, self.filled(config)):
            fault = await self._check(handler, values)
            if fault:
                return fault
        return ""

    def commit(self) -> str:
        """The change has proved itself, and so has the agent that runs; why that could not be stored, if so."""
        return "" if self._release is None else self._release.commit()

    async def _apply(self, handler: Handler, values: Values) -> str:
        """May be repeated, and then changes nothing."""
        match handler:
            case ByAgent():
                return ""
            case ByFile():
                return _write(Path(handler.path), values)
            case ByProgram():
                return await _run(handler.argv, values, handler.seconds_max)
            case ByRelease():
                assert self._release is not None, "no such handler without it"
                return await self._release.put(_name(values))
            case ByMcu():
                assert self._mcus is not None, "no such handler without it"
                return await self._mcus.put(handler, _name(values))
            case _:
                assert_never(handler)

    async def _check(self, handler: Handler, values: Values) -> str:
        """Of a handler that cannot tell nothing is known to be wrong."""
        match handler:
            case ByAgent():
                return ""
            case ByFile():
                return _look(Path(handler.path), values)
            case ByProgram():
                return await _run(handler.check, values, handler.seconds_max) if handler.check else ""
            case ByRelease():
                assert self._release is not None, "no such handler without it"
                return self._release.check(_name(values))
            case ByMcu():
                assert self._mcus is not None, "no such handler without it"
                return self._mcus.check(handler, _name(values))
            case _:
                assert_never(handler)


def _name(values: Values) -> str:
    (name,) = values.values()
    return str(name)


def _can_tell(handler: Handler) -> bool:
    """Whether :func:`_check` says anything of what is in force."""
    return not isinstance(handler, ByProgram) or bool(handler.check)


def _write(path: Path, values: Values) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, msgspec.json.encode(values), FILE_MODE)
    except OSError as error:
        return f"{path.name}: {error.strerror or error}"
    return ""


def _look(path: Path, values: Values) -> str:
    expected = msgspec.json.encode(values)
    try:
        with path.open("rb") as file:
            found = file.read(len(expected) + 1)
    except OSError as error:
        return f"{path.name}: {error.strerror or error}"
    return "" if found == expected else f"{path.name}: another one has written it"


async def _run(argv: tuple[str, ...], values: Values, seconds_max: float) -> str:
    name = Path(argv[0]).name
    try:
        ran = await program.run(argv, msgspec.json.encode(values), seconds_max=seconds_max)
    except ProgramError as error:
        return f"{name}: {error}"
    if ran.code == 0:
        return ""
    said = shown(ran.output.decode(errors="replace").strip())
    return f"{name} ended with {ran.code}: {said}" if said else f"{name} ended with {ran.code}"
