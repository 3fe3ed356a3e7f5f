"""``firmware-bridge update-legacy``: bring an image to a device whose boot loader has one slot and no way back."""

import argparse
import asyncio
import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firmware_bridge.cli.images import OK, QUARANTINE, REFUSED, USAGE, UsageError
from firmware_bridge.legacy_boot import IMAGE_BYTES_MAX, RefusedError, Report, Verdict
from firmware_bridge.tables import read_table

if TYPE_CHECKING:
    from firmware_bridge.adapters.legacy_update import LegacyBootOptions

EXIT_CODES: Final = (
    "exit codes: 0 it runs the new one; 1 refused, or it runs what it ran; 2 wrong usage; 5 it does not answer: "
    "nobody knows what it runs, or it has no firmware and somebody has to go there"
)
EXAMPLE: Final = (
    'lines of FILE: port = "/dev/serial/by-id/usb-ACME_dock-if00", protocol = "ymodem" (xmodem, xmodem_1k), '
    'ask = "version?\\r", version = \'fw (\\S+)\', enter = "update\\r"'
)
CODES: Final = {
    Verdict.UPDATED: OK,
    Verdict.UNTOUCHED: REFUSED,
    Verdict.KEPT_OLD: REFUSED,
    Verdict.LOST: QUARANTINE,
    Verdict.UNKNOWN: QUARANTINE,
}
SAID: Final = {
    Verdict.UPDATED: "it runs what was sent",
    Verdict.UNTOUCHED: "it runs what it ran; nothing of the image was sent",
    Verdict.KEPT_OLD: "it runs something else than what was sent",
    Verdict.LOST: "it took a part of the image and does not answer: it has no firmware, and somebody has to go there",
    Verdict.UNKNOWN: "it is not known what it runs: ask it again later",
}


def add_update_legacy(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    parser = commands.add_parser(
        "update-legacy",
        help="update a device over XMODEM or YMODEM: one slot, no rollback",
        epilog=f"{EXIT_CODES}; {EXAMPLE}",
    )
    parser.add_argument("image", metavar="IMAGE", type=Path)
    parser.add_argument(
        "--device", metavar="FILE", type=Path, required=True, help="TOML: how it is asked and entered"
    )
    parser.add_argument(
        "--to", metavar="VERSION", required=True, help="what it says of itself once it runs the image"
    )
    parser.add_argument("--sha256", metavar="HEX", required=True, help="of the image, from whoever released it")
    parser.add_argument(
        "--accept-no-rollback",
        action="store_true",
        help="you know that an update that breaks off leaves the device without firmware",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see EXIT_CODES."""
    try:
        report = asyncio.run(_update(arguments))
    except UsageError as error:
        sys.stderr.write(f"firmware-bridge update-legacy: {error}\n")
        return USAGE
    except RefusedError as error:
        _say(arguments, "refused", str(error), None)
        return REFUSED
    _say(arguments, report.verdict, SAID[report.verdict], report)
    return CODES[report.verdict]


async def _update(arguments: argparse.Namespace) -> Report:
    """Raises UsageError, RefusedError."""
    try:
        from firmware_bridge.adapters.legacy_update import LegacyBootOptions, update  # noqa: PLC0415  # its library
    except ImportError as error:
        raise UsageError(f"needs the libraries of fieldfleet[bridge]: {error}") from error
    options, image = _options(arguments.device, LegacyBootOptions), _image(arguments.image)
    return await update(
        options,
        image,
        sha256=arguments.sha256.lower(),
        version=arguments.to,
        accepts_no_rollback=arguments.accept_no_rollback,
        progress=_Tenths(len(image)),
    )


def _options(file: Path, kind: "type[LegacyBootOptions]") -> "LegacyBootOptions":
    faults: list[str] = []
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--device {file}: {error}") from error
    found = read_table(table, kind, "", faults)
    if found is None:
        raise UsageError(f"--device {file}: {'; '.join(faults)}")
    return found


def _image(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(IMAGE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


class _Tenths:
    """A line for each tenth of the image that was taken."""

    def __init__(self, total: int) -> None:
        self._total = max(1, total)
        self._tenths = 0

    def __call__(self, taken_bytes: int) -> None:
        tenths = 10 * taken_bytes // self._total
        if tenths > self._tenths:
            self._tenths = tenths
            sys.stderr.write(f"{10 * tenths} %, {taken_bytes} of {self._total} bytes\n")


def _say(arguments: argparse.Namespace, verdict: str, why: str, report: Report | None) -> None:
    if not arguments.json:
        sys.stdout.write(f"{verdict}: {why}\n")
        return
    found: dict[str, str | None] = {"verdict": verdict, "why": why}
    if report is not None:
        found |= {"transfer": report.outcome, "before": report.before, "after": report.after}
    sys.stdout.write(json.dumps(found) + "\n")
