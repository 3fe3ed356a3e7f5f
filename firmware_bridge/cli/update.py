"""``firmware-bridge update``: bring an image to a microcontroller, and see that it stays there or went back."""

import argparse
import asyncio
import fcntl
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firmware_bridge.cli.images import (
    EXIT_CODES,
    OK,
    POSTPONED,
    QUARANTINE,
    REFUSED,
    ROLLED_BACK,
    USAGE,
    UsageError,
    add_demands,
    admitted,
)
from firmware_bridge.firmware.flow import Phase, Row, Verdict
from firmware_bridge.firmware.images import Image, RefusedError
from firmware_bridge.firmware.updater import Pace, Progress, Updater

if TYPE_CHECKING:
    from firmware_bridge.adapters.firmware_journal import SqliteJournal

BAR_CHARS: Final = 40
EXAMPLE: Final = (
    "example: firmware-bridge update dock-1.4.0.bin --key release.pub.pem --hardware police.example/dock "
    "--port serial:/dev/serial/by-id/usb-Zephyr_dock_BC-0007-if00"
)
CODES: Final = {
    Verdict.DONE: OK,
    Verdict.ROLLED_BACK: ROLLED_BACK,
    Verdict.REJECTED: REFUSED,
    Verdict.FAILED: REFUSED,
    Verdict.POSTPONED: POSTPONED,
    Verdict.QUARANTINE: QUARANTINE,
}


def add_update(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    pace = Pace()
    parser = commands.add_parser(
        "update", help="update a microcontroller's firmware over SMP", epilog=f"{EXAMPLE}. {EXIT_CODES}"
    )
    add_demands(parser)
    parser.add_argument(
        "--port", required=True, metavar="AT", help="serial:PATH, tcp:HOST:PORT, udp:HOST:PORT or ble:ADDRESS"
    )
    parser.add_argument("--device", metavar="NAME", help="by which the journal knows it; else what --port says")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="what was begun; else below $XDG_STATE_HOME")
    parser.add_argument(
        "--trial-s", type=float, default=pace.trial_s, metavar="S", help="for so long it must run before it is kept"
    )
    parser.add_argument("--boot-s", type=float, default=pace.boot_s, metavar="S", help="quiet after a reset")
    parser.add_argument(
        "--silent-s", type=float, default=pace.silent_s_max, metavar="S", help="given up after so long a silence"
    )
    parser.add_argument(
        "--again", action="store_true", help="also what went back, was rejected or fell silent before"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see EXIT_CODES."""
    from firmware_bridge.adapters.firmware_journal import JournalError  # noqa: PLC0415  # with its database

    try:
        image = admitted(arguments)
        row = asyncio.run(_update(arguments, image))
    except (UsageError, JournalError) as error:
        sys.stderr.write(f"firmware-bridge update: {error}\n")
        return USAGE
    except RefusedError as error:
        _say(arguments, {"verdict": "refused", "fault": error.fault, "why": str(error)})
        return REFUSED
    assert row.verdict is not None
    hashes = {"hash": row.image.hex(), "before": row.before.hex() or None}
    _say(arguments, {"verdict": row.verdict, "phase": row.phase, "why": row.why, **hashes})
    return CODES[row.verdict]


async def _update(arguments: argparse.Namespace, image: Image) -> Row:
    """Raises UsageError, JournalError."""
    from firmware_bridge.adapters.firmware_journal import SqliteJournal  # noqa: PLC0415  # with its database

    try:
        from firmware_bridge.adapters.smp_links import link_to  # noqa: PLC0415  # its libraries are large
    except ImportError as error:
        raise UsageError(f"needs the libraries of fieldfleet[bridge]: {error}") from error
    try:
        link_to(arguments.port)
    except ValueError as error:
        raise UsageError(f"--port: {error}") from error
    file = arguments.journal or _default_journal()
    file.parent.mkdir(parents=True, exist_ok=True)
    name = arguments.device or arguments.port
    with file.with_name(f"{file.name}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # whoever had it begun may be gone, and it is not
            return Row(
                name, image.tlv_hash, verdict=Verdict.POSTPONED, why="another update with this journal goes on"
            )
        return await _with(SqliteJournal(file), arguments, name, image)


async def _with(journal: "SqliteJournal", arguments: argparse.Namespace, name: str, image: Image) -> Row:
    from firmware_bridge.adapters.smp import SmpDevice, SmpSession  # noqa: PLC0415  # its libraries are large
    from firmware_bridge.adapters.smp_links import link_to  # noqa: PLC0415

    updater = Updater(
        SmpDevice(SmpSession(lambda: link_to(arguments.port))),
        journal,
        _Bench(),
        pace=Pace(trial_s=arguments.trial_s, boot_s=arguments.boot_s, silent_s_max=arguments.silent_s),
        told=_bar if sys.stderr.isatty() else _Lines(),
    )
    try:
        return await updater.run(name, image, again=arguments.again)
    finally:
        journal.close()


class _Bench:
    """A technician stands beside it: the moment is right, and that it answers is all that is asked of it."""

    async def not_now(self) -> str:
        return ""

    async def unwell(self) -> str:
        return ""


def _default_journal() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "fieldfleet" / "firmware.sqlite"


def _bar(progress: Progress) -> None:
    """One line that is written over, and a line for each phase."""
    if not progress.total:
        sys.stderr.write(f"\n{progress.phase}")
    else:
        full = BAR_CHARS * progress.done // progress.total
        share = 100 * progress.done // progress.total
        bar = "#" * full + "." * (BAR_CHARS - full)
        sys.stderr.write(f"\r{progress.phase} [{bar}] {share:3} %, {progress.done} of {progress.total} bytes")
    sys.stderr.write("\n" if progress.phase is Phase.CONFIRM else "")
    sys.stderr.flush()


class _Lines:
    """For a log: a line for each phase, and one for each quarter of an upload."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, progress: Progress) -> None:
        quarter = f" {100 * (4 * progress.done // progress.total) // 4} %" if progress.total else ""
        line = f"{progress.phase}{quarter}\n"
        if line != self._said:
            sys.stderr.write(line)
            self._said = line


def _say(arguments: argparse.Namespace, found: dict[str, str | None]) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(f"{found['verdict']}: {found['why']}\n")
