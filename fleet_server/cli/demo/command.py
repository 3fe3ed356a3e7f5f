"""``fieldfleet demo``: starts everything, shows it, ends everything."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live

from broker_config.ids import ContractError
from fleet_server.cli.demo import rig as rigs
from fleet_server.cli.demo import screen, watch
from fleet_server.cli.demo.programs import Program, ProgramError, Programs, removed_afterwards, running
from fleet_server.cli.server import CommandError, Exit, Server, connect
from fleet_server.site import BROKER_CONFIG

TICK_S: Final = 1.0
START_S_MAX: Final = 30.0
AGENT_STOP_S_MAX: Final = 15.0
SERVER_STOP_S_MAX: Final = 10.0
BROKER_STOP_S_MAX: Final = 5.0
MOMENTS_MAX: Final = 60
SETTLE_S_MAX: Final = 5.0


def demo(*, seconds: float | None, report: Path | None, directory: Path | None) -> str:
    """Run until *seconds* are over or somebody asks for the end; return what it came to, as a sentence.

    Raises:
        CommandError: it cannot be started, or something of it died or had to be killed.
    """
    try:
        with _stopping() as stop, _directory(directory) as kept:
            figures = _run(kept, stop=stop, seconds=seconds)
        if report is not None:
            report.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    except (ProgramError, rigs.NoBrokerError, ContractError, OSError) as error:
        raise CommandError(Exit.PROBLEM, str(error)) from error
    if not figures.stopped_cleanly:
        raise CommandError(Exit.PROBLEM, f"something had to be killed; {screen.closing(figures)}")
    return screen.closing(figures)


def _run(directory: Path, *, stop: threading.Event, seconds: float | None) -> watch.Report:
    begin_ms = _now_ms()
    rig = rigs.build(directory, broker_program=rigs.find_broker(), now=datetime.now(UTC))
    with running() as programs:
        broker = _start_broker(programs, rig)
        try:
            broker.wait_until(lambda: stop.is_set() or rigs.accepts(rig.server_port), seconds_max=START_S_MAX)
        except ProgramError as error:
            hint = rigs.CONFINED_HINT if rigs.CONFINED_WORDS in broker.last_words() else None
            raise CommandError(Exit.PROBLEM, str(error), hint=hint) from error
        fleet_server = _start(
            programs, rig, "server", ["-m", "fleet_server", "run"], rig.server_config, SERVER_STOP_S_MAX
        )
        with connect(rig.place) as server:
            fleet_server.wait_until(lambda: stop.is_set() or _is_healthy(server), seconds_max=START_S_MAX)
            if stop.is_set():
                raise CommandError(Exit.PROBLEM, "ended before it began, as asked")
            agent = _start(programs, rig, "agent", ["-m", "edge_agent", "run"], rig.agent_config, AGENT_STOP_S_MAX)
            begin_s = time.monotonic()

            def look() -> watch.Moment:
                at_s, rss_bytes = time.monotonic() - begin_s, agent.rss_bytes()
                return watch.moment(
                    server, rig, at_s=at_s, now_ms=_now_ms(), begin_ms=begin_ms, agent_rss_bytes=rss_bytes
                )

            rss_bytes_max = _watch(look, rig, programs, stop=stop, seconds=seconds)
            agent_stopped = programs.stop(agent)
            last = _settled(look)
        stopped = [agent_stopped, programs.stop(fleet_server), programs.stop(broker)]
    return watch.report(last, agent_rss_bytes_max=rss_bytes_max, stopped_cleanly=all(stopped))


def _start_broker(programs: Programs, rig: rigs.Rig) -> Program:
    return programs.start(
        "broker",
        [rig.broker_program, "-c", BROKER_CONFIG],
        directory=rig.broker_directory,
        log=rig.log("broker"),
        stop_s_max=BROKER_STOP_S_MAX,
    )


def _start(
    programs: Programs, rig: rigs.Rig, name: str, module: list[str], config: Path, stop_s_max: float
) -> Program:
    command = [sys.executable, *module, "--config", str(config)]
    return programs.start(name, command, directory=config.parent, log=rig.log(name), stop_s_max=stop_s_max)


def _watch(
    look: Callable[[], watch.Moment],
    rig: rigs.Rig,
    programs: Programs,
    *,
    stop: threading.Event,
    seconds: float | None,
) -> int:
    """Show what happens until *stop*, or for *seconds*; return the most memory that the agent had, in bytes."""
    moments: list[watch.Moment] = []
    rss_bytes_max = 0
    console = Console()
    live = Live(console=console, auto_refresh=False, transient=False) if sys.stdout.isatty() else None
    shown: AbstractContextManager[object] = live if live is not None else nullcontext()
    deadline = None if seconds is None else time.monotonic() + seconds
    with shown:
        while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
            programs.check()
            next_s = time.monotonic() + TICK_S
            try:
                moments = [*moments, look()][-MOMENTS_MAX:]
            except CommandError:
                programs.check()  # says better why the API does not answer
                raise
            rss_bytes_max = max(rss_bytes_max, moments[-1].agent_rss_bytes)
            if live is not None:
                live.update(screen.screen(moments, rig), refresh=True)
            else:
                print(screen.line(moments), flush=True)
            stop.wait(max(0.0, min(next_s, next_s if deadline is None else deadline) - time.monotonic()))
    return rss_bytes_max


def _settled(look: Callable[[], watch.Moment]) -> watch.Moment:
    """The last moment: the device has stopped, and what it sent is stored."""
    deadline = time.monotonic() + SETTLE_S_MAX
    while True:
        last = look()
        sealed = sum(stream.last for stream in last.spool)
        if sum(stream.held for stream in last.streams) >= sealed or time.monotonic() > deadline:
            return last
        time.sleep(TICK_S / 10)


def _is_healthy(server: Server) -> bool:
    try:
        return server.get("/v1/health") == {"status": "ok"}
    except CommandError as error:
        if error.code is Exit.UNREACHABLE:
            return False
        raise


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given.absolute()
        return
    with removed_afterwards("fieldfleet-demo-") as directory:
        # below it, so that what a half-made site leaves beside itself is removed too
        yield directory / "site"


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Set by Ctrl-C, SIGTERM and a closed terminal."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
