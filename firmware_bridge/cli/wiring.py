"""What commands about an instrument share: which driver, with which options, for which points, and what they say."""

import argparse
import asyncio
import contextlib
import json
import re
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from broker_config.text import shown
from firmware_bridge.cli.images import UsageError
from firmware_bridge.driver import Driver
from firmware_bridge.expected import Expected
from firmware_bridge.guarded import Guarded
from firmware_bridge.readings import Reading, Result
from firmware_bridge.registry import DRIVERS, UnknownDriverError, driver_class
from firmware_bridge.tables import read_table

OK, FAILED, USAGE, ANOTHER = range(4)
EXIT_CODES: Final = "exit codes: 0 done; 1 something could not be read or written; 2 wrong usage"
HOW: Final = """the instrument is named by a profile's wire:
  firmware-bridge {command} --profile edge_agent/profiles/in_car_terminal.toml --stream gnss --address gnss=/dev/gps0
or by a driver and its options, each value as TOML (`firmware-bridge drivers` lists them):
  firmware-bridge {command} --driver ascii_query -o at=tcp:192.0.2.7:5025{more}
"""
DEADLINE_S: Final = 5.0
PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
T = TypeVar("T")


class Wiring(NamedTuple):
    """A driver that nobody has asked yet. ``points``: what is read where nobody says which; may be empty. ``known``:
    all that it can read; empty: whatever it is asked for.
    """

    driver: Driver
    points: tuple[str, ...]
    known: tuple[str, ...]


def add_wiring(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`wiring`."""
    parser.add_argument("--profile", metavar="FILE", type=Path, help="a profile, of which --stream names a wire")
    parser.add_argument("--stream", metavar="NAME", help="the wire that feeds this stream")
    parser.add_argument("--address", metavar="NAME=AT", action="append", default=[], help="as in agent.toml; again")
    parser.add_argument("--driver", metavar="NAME", help=f"one of {', '.join(DRIVERS)}")
    parser.add_argument(
        "-o", "--option", metavar="NAME=VALUE", action="append", default=[], help="an option of the driver; again"
    )
    parser.add_argument("--deadline-s", type=seconds, default=DEADLINE_S, metavar="S", help="for an answer")
    parser.add_argument("--json", action="store_true", help="for programs")


def seconds(text: str) -> float:
    """A span as an option gives it."""
    found = float(text)
    if not 0 < found <= 3600:
        raise ValueError
    return found


def wiring(arguments: argparse.Namespace) -> Wiring:
    """The driver that *arguments* name. Raises UsageError with every fault."""
    if (arguments.profile is None) != (arguments.stream is None):
        raise UsageError("expected --profile and --stream together")
    if (arguments.profile is None) == (arguments.driver is None):
        raise UsageError("expected either --profile and --stream, or --driver")
    wire = {"driver": arguments.driver} if arguments.profile is None else _wire(arguments)
    given = wire.get("options", {})
    if not isinstance(given, dict):
        raise UsageError(f"{arguments.profile}: options: expected a table")
    for text in arguments.option:
        _put(given, text)
    try:
        driver = driver_class(str(wire.get("driver")))
    except UnknownDriverError as error:
        raise UsageError(f"driver: {error}") from error
    except ImportError as error:
        raise UsageError(f"{wire['driver']} is not usable here, it needs fieldfleet[bridge]: {error}") from error
    faults: list[str] = []
    options = read_table(given, driver.options_type, "options", faults)
    if options is None:
        raise UsageError("; ".join(faults))
    expected = None
    if wire.get("expects"):
        expected = read_table(wire["expects"], Expected, "expects", faults)
        if expected is None:
            raise UsageError("; ".join(faults))
    named = wire.get("points")
    known = driver.points_of(options)
    points = tuple(map(str, named.values())) if isinstance(named, dict) and named else known
    made = driver(options, _mono_ms)
    return Wiring(made if expected is None else Guarded(made, expected, _mono_ms), points, known)


def _mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def asked(arguments: argparse.Namespace, wired: Wiring) -> tuple[str, ...]:
    """The points that *arguments* name, else all. Raises UsageError where that is none, or one that is not read."""
    points = tuple(arguments.points) or wired.points
    if not points:
        raise UsageError("expected the names of points: this driver reads what it is asked for")
    foreign = [point for point in points if wired.known and point not in wired.known]
    if foreign:
        raise UsageError(f"points: expected of {', '.join(wired.known)}, got {shown(', '.join(foreign))}")
    return points


def _wire(arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        profile = tomllib.loads(arguments.profile.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{arguments.profile}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{arguments.profile}: {error}") from error
    wires = {wire.get("stream"): wire for wire in profile.get("wires", []) if isinstance(wire, dict)}
    if arguments.stream not in wires:
        known = ", ".join(sorted(map(str, wires)))
        raise UsageError(f"--stream: expected one of {known}, got {shown(arguments.stream)!r}")
    addresses = {**profile.get("addresses", {}), "state_dir": "."}
    for text in arguments.address:
        name, equals, at = text.partition("=")
        if not equals or name not in addresses:
            raise UsageError(f"--address: expected NAME=AT with one of {', '.join(addresses)}, got {shown(text)!r}")
        addresses[name] = at
    filled = _filled(wires[arguments.stream], addresses)
    assert isinstance(filled, dict)
    return filled


def _filled(value: object, addresses: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {key: _filled(inner, addresses) for key, inner in value.items()}
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: addresses.get(found[1], found[0]), value)
    return value


def _put(options: dict[str, Any], text: str) -> None:
    """``points.temp_c={ address = 0 }``: dots lead into tables. What is no TOML is text, so that no shell needs two
    kinds of quotes.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--option: expected NAME=VALUE, got {shown(text)!r}")
    *tables, last = name.split(".")
    for table in tables:
        options = options.setdefault(table, {})
        if not isinstance(options, dict):
            raise UsageError(f"--option: {shown(table)} is not a table")
    try:
        options[last] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        options[last] = value


def run(wired: Wiring, work: Callable[[Driver], Awaitable[T]]) -> T:
    """What *work* makes of the driver, which is closed afterwards."""

    async def worked() -> T:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(wired.driver.close)
            return await work(wired.driver)

    return asyncio.run(worked())


def row(point: str, result: Result) -> dict[str, object]:
    """A result as JSON: ``fault``, or ``value``, ``quality`` and, if the instrument tells its time, ``device_ms``."""
    if not isinstance(result, Reading):
        return {"point": point, "fault": result.why}
    told: dict[str, object] = {"point": point, "value": result.value, "quality": result.quality.value}
    return told if result.device_ms is None else told | {"device_ms": result.device_ms}


def say_rows(results: Mapping[str, Result], *, as_json: bool, more: Mapping[str, object] | None = None) -> int:
    """Write them, one JSON object or a line a point; returns the exit code."""
    rows = [row(point, result) for point, result in results.items()]
    good = not any("fault" in each for each in rows)
    if as_json:
        sys.stdout.write(json.dumps({**(more or {}), "ok": good, "readings": rows}) + "\n")
    else:
        for each in rows:
            said = f"FAULT {each['fault']}" if "fault" in each else f"{each['value']:.12g}  {each['quality']}"
            sys.stdout.write(f"{each['point']:<20} {said}\n")
    sys.stdout.flush()
    return OK if good else FAILED


def refused(command: str, error: UsageError) -> int:
    """Say it; returns the exit code."""
    sys.stderr.write(f"firmware-bridge {command}: {error}\n")
    return USAGE
