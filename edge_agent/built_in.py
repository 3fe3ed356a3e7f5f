"""What every board can be told to do, and programs for the rest; loaded with the first command."""

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from broker_config import limits
from broker_config.signing import Command
from broker_config.text import shown
from edge_agent import commands
from edge_agent.adapters import files, program
from edge_agent.adapters.program import ProgramError
from edge_agent.adapters.system import System
from edge_agent.clock import Source
from edge_agent.commanding import Handler
from edge_agent.commands import LOGS, Outcome
from edge_agent.config import Settings
from edge_agent.journal import Kind
from edge_agent.keeper import Keeper
from edge_agent.last_lines import LastLines
from edge_agent.lost import Lost
from edge_agent.profile import Program

REBOOT_S_MAX: Final = 60.0
TEST_FILE: Final = "self.test"
FREE_BYTES_MIN: Final = 4 * 1024 * 1024


class Pulling(Protocol):
    """Where files wait to be sent."""

    def pull(self, name: str) -> tuple[int, int] | None:
        """Send what belongs to the recording or upload *name* before what nobody asked for, and what comes of it
        later, too. Returns files and bytes; None: nothing is known of it. Raises OutboxError.
        """


def handlers(
    settings: Settings,
    system: System,
    keeper: Keeper,
    lost: Lost,
    *,
    sync_clock: Callable[[], Awaitable[int | None]],
    pulling: Pulling | None,
    lines: LastLines,
    status: Callable[[], Mapping[str, object]],
) -> dict[str, Handler]:
    """Name -> what does it, of those that :func:`edge_agent.commands.supported` says.

    *sync_clock*: asks the server, and tells how far the board's clock was off in ms, None if there was no answer.
    *status*: what ``edge-agent status`` shows.
    """
    out: dict[str, Handler] = {name: _program(told) for name, told in settings.profile.programs.items()}
    out[commands.IDENTIFY] = _identify
    out[commands.CLOCK_SYNC] = lambda _command: _sync(sync_clock)
    out[commands.SELF_TEST] = lambda _command: _tested(settings, system, keeper)
    out[commands.LOST_MODE] = lambda command: _switched(lost, keeper, command)
    if settings.file.commands.reboot:
        out[commands.REBOOT] = _program(Program(settings.file.commands.reboot, REBOOT_S_MAX))
    if pulling is not None:
        out[commands.RECORDING_PULL] = lambda command: _pulled(pulling, command)
    if settings.uploads is not None and LOGS in settings.uploads.paths:
        folder = settings.uploads.paths[LOGS]
        out[commands.LOGS_COLLECT] = lambda command: _collected(folder, command, lines, status)
    return out


async def _identify(_command: Command) -> Outcome:
    """The events that tell of it are all that it is for."""
    return Outcome()


async def _sync(sync_clock: Callable[[], Awaitable[int | None]]) -> Outcome:
    off_ms = await sync_clock()
    return Outcome("no_answer") if off_ms is None else Outcome(result={"off_ms": off_ms})


async def _switched(lost: Lost, keeper: Keeper, command: Command) -> Outcome:
    on = command.parameters["on"] is True
    try:
        lost.switch(on=on)
    except OSError as error:
        return Outcome("not_kept", {"error": shown(error)})
    keeper.note(Kind.LOST_MODE, {"on": on})
    return Outcome(result={"on": on})


async def _pulled(pulling: Pulling, command: Command) -> Outcome:
    from edge_agent.outbox import OutboxError  # noqa: PLC0415  # memory that a device without folders does not need

    try:
        found = pulling.pull(str(command.parameters["recording"]))
    except OutboxError as error:
        return Outcome("not_kept", {"error": shown(error)})
    return Outcome("unknown_recording") if found is None else Outcome(result={"files": found[0], "bytes": found[1]})


# The self-test ------------------------------------------------------------------------------------------------------


async def _tested(settings: Settings, system: System, keeper: Keeper) -> Outcome:
    """It is done whatever it finds: ``passed`` says whether anything is wrong."""
    faults = list(_faults(settings, keeper))
    stat = os.statvfs(settings.state_dir)
    result: dict[str, bool | int | float | str] = {
        "passed": not faults,
        "free_bytes": stat.f_bavail * stat.f_frsize,
        "clock": keeper.clock.source.value,
        "records_in_memory": keeper.in_memory,
        "uptime_s": system.mono_ms() // 1000,
    }
    if faults:
        result["faults"] = shown("; ".join(faults), limits.TEXT_CHARS_MAX)
    return Outcome(result=result)


def _faults(settings: Settings, keeper: Keeper) -> Sequence[str]:
    out: list[str] = []
    if not keeper.ready:
        out.append("spool: there is none")
    elif not keeper.disk_ok:
        out.append("spool: the disk takes nothing")
    path = settings.state_dir / TEST_FILE
    try:
        files.write_durably(path, b"test\n", 0o600)
        path.unlink()
    except OSError as error:
        out.append(f"disk: {shown(error.strerror or error)}")
    stat = os.statvfs(settings.state_dir)
    if stat.f_bavail * stat.f_frsize < FREE_BYTES_MIN:
        out.append(f"disk: expected {FREE_BYTES_MIN} bytes free, got {stat.f_bavail * stat.f_frsize}")
    if keeper.clock.source is Source.NONE:
        out.append("clock: nobody sets it")
    out += [f"driver: {stream} does not read" for stream in sorted(keeper.failing)]
    return out


# Logs ---------------------------------------------------------------------------------------------------------------


async def _collected(
    folder: Path, command: Command, lines: LastLines, status: Callable[[], Mapping[str, object]]
) -> Outcome:
    """What the agent knows of itself, packed into the folder from which logs are uploaded."""
    import gzip  # noqa: PLC0415  # memory that nothing else needs

    about = msgspec.json.format(msgspec.json.encode(dict(status())), indent=2)
    packed = gzip.compress(about + b"\n\n" + lines.text().encode("utf-8", "replace") + b"\n", 6, mtime=0)
    name = f"agent-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{command.id}.gz"
    try:
        files.write_durably(folder / name, packed, 0o600)
    except OSError as error:
        return Outcome("not_kept", {"error": shown(error)})
    return Outcome(result={"file": name, "bytes": len(packed)})


# Programs -----------------------------------------------------------------------------------------------------------


def _program(told: Program) -> Handler:
    async def run(command: Command) -> Outcome:
        stdin = msgspec.json.encode(command.parameters)
        try:
            ran = await program.run(told.argv, stdin, seconds_max=told.seconds_max)
        except ProgramError as error:
            return Outcome("program", {"error": shown(error)})
        result: dict[str, bool | int | float | str] = {"exit_code": ran.code}
        if ran.output:
            result["output"] = shown(ran.output.strip(), limits.TEXT_CHARS_MAX)
        return Outcome("exit_code" if ran.code else "", result)

    return run
