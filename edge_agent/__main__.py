"""``edge-agent``: enrol it, run it, check its wiring, see how it does, fetch releases.

Exit codes: 0 done or all well; 1 ``check`` found a driver that does not read, ``status`` no agent's state, or there
is no certificate; 2 wrong usage; 3 the configuration is wrong; 4 another agent uses the state directory; 75 ``run``
wants to be started again, as another release.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker_config.ids import ContractError
from edge_agent import config
from edge_agent.adapters import files
from edge_agent.adapters.system import System, system, use_one_heap
from edge_agent.config import ConfigError, Settings
from firmware_bridge.driver import Driver
from firmware_bridge.left_out import left_out
from firmware_bridge.readings import Failed, Results

if TYPE_CHECKING:
    import argparse

OK: Final = 0
NOT_WELL: Final = 1
BAD_CONFIG: Final = 3
BUSY: Final = 4
AGAIN: Final = os.EX_TEMPFAIL
FETCH_RELEASE: Final = "fetch-release"

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Line(logging.Formatter):
    """One event, one line, data as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        data = "".join(f" {name}={value}" for name, value in vars(record).items() if name not in _PLAIN)
        return super().format(record) + data


def _logging(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Line("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # what this process never asks for need not be looked up for each line
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _system(settings: Settings) -> System:
    table = settings.file.system
    return system(settings.boot_id_file, ntp=table.ntp, mono_add_ms=table.mono_add_ms)


async def _drivers(settings: Settings, board: System) -> dict[str, Driver]:
    """Stream -> its driver; an optional wire with nothing to read is left out."""
    out: dict[str, Driver] = {}
    for wire in settings.profile.wires:
        driver = wire.driver_for(board.mono_ms)
        if not wire.optional or await driver.present():
            out[wire.stream] = driver
    return out


# run ------------------------------------------------------------------------------------------------------------


async def _run(settings: Settings, board: System, keys: files.DeviceKeys) -> int:
    from edge_agent.agent import Agent  # noqa: PLC0415  # the MQTT client is 10 MB that check and status do not need

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    drivers = await _drivers(settings, board)
    agent = Agent(settings, board, keys, frozenset(drivers))
    gc.collect()
    gc.freeze()  # what start-up made lives as long as the process
    await agent.run(drivers, stop)
    return AGAIN if agent.restarts else OK


def _cmd_run(path: Path, level: str) -> int:
    use_one_heap()
    _logging(level)
    settings, board, keys = _all_of(path)
    held = files.lock(settings.state_dir)
    loop = asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(_run(settings, board, keys))
    finally:
        os.close(held)
    # a thread that hangs in a driver, or in a connection attempt, must not keep a stopped agent alive
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _all_of(path: Path) -> tuple[Settings, System, files.DeviceKeys]:
    """Everything that a run needs. Raises ConfigError with every fault of it."""
    settings = config.load(path)
    faults: list[str] = []
    try:
        keys = files.read_keys(settings.mac_file)
    except files.BadKeysError as error:
        faults.append(f"receipts.mac_file: {error}")
    try:
        roots = None if settings.signers_file is None else files.read_signers(settings.signers_file)
    except files.BadKeysError as error:
        faults.append(f"orders.signers_file: {error}")
    try:
        board = _system(settings)
    except (OSError, ContractError) as error:
        faults.append(f"system.boot_id_file: {error}")
    if faults:
        raise ConfigError(faults)
    return settings, board, msgspec.structs.replace(keys, roots=roots)


# check ----------------------------------------------------------------------------------------------------------


async def _read_all(settings: Settings, board: System) -> Mapping[str, Results]:
    drivers = await _drivers(settings, board)
    by_stream = {wire.stream: wire for wire in settings.profile.wires}
    out: dict[str, Results] = {}
    for stream, driver in drivers.items():
        out[stream] = await driver.read(by_stream[stream].points, by_stream[stream].deadline_s)
        await driver.close()
    return out


def _cmd_check(path: Path, *, as_json: bool) -> int:
    settings, board, _ = _all_of(path)
    results = asyncio.run(_read_all(settings, board))
    rows: list[dict[str, object]] = []
    for wire in settings.profile.wires:
        fields = settings.device_class.streams[wire.stream].fields
        if wire.stream not in results:
            rows.append(
                {"stream": wire.stream, "field": "", "driver": wire.driver, "note": "left out: nothing to read"}
            )
            continue
        for field, point in zip(wire.fields, wire.points, strict=True):
            result = results[wire.stream][point]
            row: dict[str, object] = {"stream": wire.stream, "field": field, "driver": wire.driver}
            if isinstance(result, Failed):
                row["fault"] = result.why
            else:
                spec = fields[field]
                row |= {"value": result.value, "unit": spec.unit, "quality": result.quality.value}
                if not spec.min <= result.value <= spec.max:
                    row["note"] = f"implausible: expected {spec.min:g} to {spec.max:g}"
            rows.append(row)
    bad = any("fault" in row for row in rows)
    if as_json:
        _print_json({"device": settings.device, "faults": [], "readings": rows, "ok": not bad})
    else:
        print(f"{settings.device}: class {settings.device_class.name}, profile {settings.profile.name}")
        _table(
            ("stream", "field", "value", "unit", "driver", "note"),
            [
                (
                    str(row["stream"]),
                    str(row["field"]),
                    f"{row['value']:.12g}" if "value" in row else "-",
                    str(row.get("unit", "")),
                    str(row["driver"]),
                    f"FAULT {row['fault']}" if "fault" in row else str(row.get("note", "")),
                )
                for row in rows
            ],
        )
    return NOT_WELL if bad else OK


def _print_json(value: dict[str, object]) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    for row in (head, tuple("-" * width for width in widths), *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# status ---------------------------------------------------------------------------------------------------------


def _cmd_status(path: Path, *, as_json: bool) -> int:
    from edge_agent.adapters.sqlite import read_only_ledgers, summary  # noqa: PLC0415
    from edge_agent.spool import SpoolError  # noqa: PLC0415

    settings = config.load(path)
    running = False
    try:
        os.close(files.lock(settings.state_dir))
    except files.StateDirBusyError:
        running = True
    written = files.read_status(settings.state_dir)
    told: dict[str, object] = msgspec.json.decode(written, type=dict[str, object]) if written else {}
    try:
        ledgers, store_epoch = read_only_ledgers(settings.state_dir / files.SPOOL_NAME)
    except SpoolError as error:
        print(f"edge-agent: no spool to read: {error}", file=sys.stderr)
        return NOT_WELL
    streams = [summary(ledger) for ledger in ledgers]
    connection = told.get("connection", "unknown") if running else "not running"
    status = {**told, "running": running, "connection": connection, "store_epoch": store_epoch, "streams": streams}
    if as_json:
        _print_json(status)
        return OK
    clock = told.get("clock")
    src = clock.get("src", "unknown") if isinstance(clock, dict) else "unknown"
    print(f"{settings.device}: {connection}; clock {src}; store epoch {store_epoch}")
    if told.get("why_down"):
        print(f"last failure: {told['why_down']}")
    _print_twin(told.get("twin"))
    names = ("stream", "life", "last", "held", "waiting", "receipted", "gone", "bytes")
    _table(names, [tuple(str(row[name]) for name in names) for row in streams])
    return OK


def _print_twin(twin: object) -> None:
    if not isinstance(twin, dict):
        return
    why = "; ".join(str(twin[name]) for name in ("waits_for", "reason") if twin.get(name))
    in_force = twin.get("in_force") or "defaults"
    state = f"{twin.get('state')} ({why})" if why else twin.get("state")
    print(f"configuration {in_force}; newest {twin.get('taken') or 'none'}: {state}")


# enroll, renew --------------------------------------------------------------------------------------------------


def _cmd_enroll(arguments: "argparse.Namespace") -> int:
    try:
        from edge_agent import enrolling  # noqa: PLC0415  # a library that only enrolment needs
        from edge_agent.adapters.enrolment import EnrolmentError  # noqa: PLC0415
    except ImportError as error:
        print(f"edge-agent: enrolment needs a library: {error}; pip install 'fieldfleet[agent]'", file=sys.stderr)
        return NOT_WELL
    try:
        given = enrolling.enroll(
            server=arguments.server,
            claim=arguments.claim,
            ca_file=arguments.ca,
            directory=arguments.dir,
            again=arguments.again,
        )
    except (EnrolmentError, OSError) as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return NOT_WELL
    print(f"this is {given.device}, a {given.device_class}; next: edge-agent run --config {arguments.dir}/agent.toml")
    return OK


def _cmd_renew(path: Path) -> int:
    try:
        from edge_agent import renewal  # noqa: PLC0415  # as for enrolment
    except ImportError as error:
        print(f"edge-agent: enrolment needs a library: {error}; pip install 'fieldfleet[agent]'", file=sys.stderr)
        return NOT_WELL
    return renewal.main(["--config", str(path)])


def _cmd_fetch_release(rest: Sequence[str]) -> int:
    try:
        from edge_agent import fetch_release  # noqa: PLC0415  # as for enrolment
    except ImportError as error:
        print(f"edge-agent: releases need a library: {error}; pip install 'fieldfleet[agent]'", file=sys.stderr)
        return NOT_WELL
    return fetch_release.main(rest)


# main -----------------------------------------------------------------------------------------------------------


_FOR_ARGUMENTS: Final = ("argparse", "gettext", "locale")
"""Most of a megabyte that is worth nothing once the command line is read."""


def _arguments(argv: Sequence[str] | None) -> "argparse.Namespace":
    """Read the command line; what did it is forgotten, so that what is loaded next has its place."""
    there = set(sys.modules)
    with left_out("bz2", "lzma"):  # shutil wants them, to unpack archives
        arguments = _parser().parse_args(argv)
    for name in _FOR_ARGUMENTS:
        if name not in there:
            sys.modules.pop(name, None)
    gc.collect()
    return arguments


def _parser() -> "argparse.ArgumentParser":
    import argparse  # noqa: PLC0415  # see _FOR_ARGUMENTS

    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="Reads this device's instruments, keeps what they say until the fleet server has it.",
        epilog="example: edge-agent check --config agent.toml && edge-agent run --config agent.toml\n"
        "exit codes: 0 well; 1 a driver does not read, or there is no state or no certificate; 2 wrong usage; "
        "3 wrong configuration; 4 another agent uses the state directory; 75 to be started again as another release",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (
        ("run", "run until SIGTERM, which is a clean stop"),
        ("check", "tell every fault of the configuration, and read each driver once"),
        ("status", "connection, clock, configuration, and what the spool holds"),
        ("renew", "get a new certificate now, proved by the old one"),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example: edge-agent {name} --config agent.toml",
        )
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="agent.toml")
        if name == "run":
            command.add_argument("--log-level", choices=("debug", "info", "warning"), default="info")
        elif name != "renew":
            command.add_argument("--json", action="store_true", help="for programs")
    _add_enroll(commands)
    commands.add_parser(FETCH_RELEASE, help="fetch an image that was signed for this device, and check it")
    return parser


def _add_enroll(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "make this device's key here, and get its certificate for a claim"
    command = commands.add_parser(
        "enroll",
        help=summary,
        description=summary,
        epilog="example: edge-agent enroll --server https://fleet.example:8471 --claim ffc_... --ca server-ca.crt "
        "--dir car-7",
    )
    command.add_argument("--server", required=True, metavar="URL", help="the fleet server's enrolment listener")
    command.add_argument("--claim", required=True, metavar="CODE", help="as `fieldfleet claim DEVICE` shows it")
    command.add_argument("--ca", type=Path, required=True, metavar="FILE", help="the site's server-ca.crt")
    command.add_argument("--dir", type=Path, required=True, metavar="DIR", help="where the device's files go")
    command.add_argument("--again", action="store_true", help="replace an identity that is there; the spool stays")


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring for the exit codes."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == [FETCH_RELEASE]:
        return _cmd_fetch_release(given[1:])  # its own program, which has its own options and exit codes
    arguments = _arguments(argv)
    try:
        match arguments.command:
            case "run":
                return _cmd_run(arguments.config, arguments.log_level)
            case "enroll":
                return _cmd_enroll(arguments)
            case "renew":
                return _cmd_renew(arguments.config)
            case "check":
                return _cmd_check(arguments.config, as_json=arguments.json)
            case _:
                return _cmd_status(arguments.config, as_json=arguments.json)
    except ConfigError as error:
        if getattr(arguments, "json", False):
            print(config.as_json(error))
        else:
            for fault in error.faults:
                print(f"edge-agent: {fault}", file=sys.stderr)
        return BAD_CONFIG
    except files.StateDirBusyError as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return BUSY


if __name__ == "__main__":
    sys.exit(main())
