"""A device's configuring by itself, with real files and programs, ended like a power cut at each of its steps.

``python -m tests.edge_agent.configurer DIRECTORY SCENARIO`` tells one JSON line for each step at which it was cut:
what was in force after the next start, and after the same order had come again.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from broker_config import device_classes
from broker_config.ids import Hex16, hex16
from broker_config.signing import Kind
from broker_config.twin import ENDED, Desired, Document, Reported
from edge_agent import configuring, obeying
from edge_agent.adapters.twin_file import TwinFile
from edge_agent.configuring import Configuring, Own
from edge_agent.handlers import ByFile, ByProgram, Handler
from edge_agent.journal import Data
from edge_agent.journal import Kind as Noted
from edge_agent.obeying import Order
from tests.orders import ROOTS, claims, order

OLD: Final[Document] = {"video": "720p", "pre_event_s": 10}
NEW: Final[Document] = {"video": "1440p", "pre_event_s": 20}
FIRST: Final = 5
SECOND: Final = 9
QUICKER: Final = 200
"""Its clock goes so much faster, so that the time to prove itself is over soon."""
ENDED_S_MAX: Final = 20.0
OWN: Final = Own("127.0.0.1", 8883, 30)
PUT: Final = 'cat > "$0.new" && mv "$0.new" "$0"'
SAME: Final = 'cmp -s - "$0"'
NOT_THIS: Final = "! grep -q 1440p"

SCENARIOS: Final[dict[str, tuple[str, str]]] = {
    "good": (PUT, SAME),
    "cannot be applied": ('cat > "$0.new" && ! grep -q 1440p "$0.new" && mv "$0.new" "$0"', SAME),
    "does not prove itself": (PUT, f'{SAME} && {NOT_THIS} "$0"'),
    "has no check": (PUT, ""),
}
"""What applies and what checks the setting ``video``, as a shell's commands."""


def handlers(directory: Path, scenario: str) -> dict[str, Handler]:
    """``video`` by a program, the others by a file."""
    put, check = SCENARIOS[scenario]
    where = str(directory / "video.json")
    shell = ("/bin/sh", "-c")
    by_file = ByFile(str(directory / "settings.json"), needs_server=False)
    by_program = ByProgram((*shell, put, where), (*shell, check, where) if check else (), 10.0, needs_server=False)
    return {"pre_event_s": by_file, "video": by_program, "mute_allowed": by_file}


@dataclass
class Board:
    """A clock that goes faster, and a journal."""

    boot: Hex16 = field(default_factory=lambda: hex16("b0070000b0070000"))
    noted: list[tuple[Noted, Data]] = field(default_factory=list)

    def mono_ms(self) -> int:
        return int(time.monotonic() * 1000 * QUICKER)

    def note(self, kind: Noted, data: Data) -> None:
        self.noted.append((kind, data))

    def seal(self) -> None:
        pass


def device(
    directory: Path, scenario: str, failpoint: Callable[[str], None], board: Board | None = None
) -> Configuring:
    """As an agent makes it."""
    its = board or Board()
    return Configuring(
        device_classes.load("body_camera"),
        handlers(directory, scenario),
        OWN,
        TwinFile(directory, failpoint),
        its,
        journal=its,
        waits_for=lambda _change: "",
        now_ms=lambda: time.time_ns() // 1_000_000,
        wall_ms=lambda: time.time_ns() // 1_000_000,
        say=lambda _payload: None,
        come_back=lambda: None,
        ready=lambda: True,
        failpoint=failpoint,
    )


def ordered(version: int, config: Document) -> Order:
    """Rightly signed."""
    found = obeying.read(order(claims(Desired(1, version, config, 5), kind=Kind.TWIN)), Kind.TWIN, ROOTS)
    assert isinstance(found, Order)
    return found


async def run(directory: Path, scenario: str, wanted: Order | None, failpoint: Callable[[str], None]) -> None:
    """Until nothing is under way."""
    found = device(directory, scenario, failpoint)
    running = asyncio.create_task(found.run())
    if wanted is not None:
        found.carry_out(wanted)
    async with asyncio.timeout(ENDED_S_MAX):
        while found.status()["stage"] != "idle" or reported(directory).state not in ENDED:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def reported(directory: Path) -> Reported:
    """What it says to the server, as it is stored."""
    told = json.loads((directory / "twin.json").read_bytes())["reported"]
    return msgspec.convert(told, Reported)


def in_force(directory: Path) -> Document:
    """What the equipment has."""
    out: Document = {}
    for name in ("settings.json", "video.json"):
        with contextlib.suppress(FileNotFoundError):
            out |= json.loads((directory / name).read_bytes())
    return out


def forked(directory: Path, scenario: str, wanted: Order | None, cut_at: int = -1) -> list[str]:
    """One run in a process of its own, killed at the step of that number; the steps that it came to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        at = 0

        def failpoint(step: str) -> None:
            nonlocal at
            os.write(writing, f"{step}\n".encode())
            if at == cut_at:
                os.kill(os.getpid(), signal.SIGKILL)
            at += 1

        asyncio.run(run(directory, scenario, wanted, failpoint))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        steps = pipe.read().splitlines()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == (-signal.SIGKILL if cut_at >= 0 else 0), f"{directory} ended with {ended} after {steps}"
    return steps


def told(directory: Path) -> dict[str, object]:
    """What is so, and what is said to be so."""
    said = reported(directory)
    return {"desired": said.desired, "said": said.in_force, "state": said.state, "config": said.config,
            "real": in_force(directory)}  # fmt: skip


def main(directory: Path, scenario: str) -> None:
    """See the module."""
    configuring.AGAIN_S_MIN = 0.02  # type: ignore[misc]
    base = directory / "base"
    base.mkdir(parents=True)
    forked(base, scenario, ordered(FIRST, OLD))
    whole = directory / "whole"
    shutil.copytree(base, whole)
    wanted = ordered(SECOND, NEW)
    moved = forked(place(base, whole), scenario, wanted)
    print(json.dumps({"step": "", **told(whole)}))
    for number, step in enumerate(moved):
        cut = place(base, directory / f"cut-{number}")
        forked(cut, scenario, wanted, number)
        forked(cut, scenario, None)
        alone = told(cut)
        forked(cut, scenario, wanted)
        found = {"step": step, "alone": alone, "again": told(cut)}
        if step.startswith("after"):
            twice = place(base, directory / "twice")
            forked(twice, scenario, wanted, number)
            with contextlib.suppress(AssertionError):  # there may be no step left
                forked(twice, scenario, wanted, 0)
            forked(twice, scenario, wanted)
            found["twice"] = told(twice)
        print(json.dumps(found))


def place(base: Path, directory: Path) -> Path:
    """A copy of *base*: a device whose first version is confirmed."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(base, directory)
    return directory


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
