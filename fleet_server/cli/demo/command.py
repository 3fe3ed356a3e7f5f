"""``fieldfleet demo``: starts everything, has it shown, drains it, ends everything."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from broker_config.ids import ContractError
from fleet_server.cli import answers
from fleet_server.cli.demo import outages, screen, watch
from fleet_server.cli.demo import rig as rigs
from fleet_server.cli.demo.changes import Changes
from fleet_server.cli.demo.fleet import FLEET, Broker
from fleet_server.cli.demo.keyboard import Stop, listening
from fleet_server.cli.demo.programs import Program, ProgramError, Programs, removed_afterwards, running
from fleet_server.cli.demo.show import POLL_S, Show, now_ms
from fleet_server.cli.registry_commands import ETAG_NEW
from fleet_server.cli.server import CommandError, Exit, Server, connect

START_S_MAX: Final = 30.0
SETTLE_S_MAX: Final = 5.0
FILES_S_MAX: Final = 30.0
"""For the files that wait when the recorders have stopped."""


def demo(
    *,
    broker: Broker,
    seconds: float | None,
    report: Path | None,
    directory: Path | None,
    faults: bool = False,
    changes: bool = False,
) -> str:
    """Run until *seconds* are over or somebody asks for the end; return what it came to, as a sentence.

    *faults*: cut the camera's link and kill the broker on the way. *changes*: begin a rollout that a room with an
    interview puts off, and one that undoes itself.

    Raises:
        CommandError: it cannot be started, or something of it died or had to be killed.
    """
    begin_s = time.monotonic()
    try:
        with listening() as stop, _directory(directory) as kept:
            rig = rigs.build(kept, broker=broker, now=datetime.now(UTC))
            figures = _run(
                rig, stop=stop, seconds=seconds, begin_s=begin_s, broker=broker, faults=faults, changes=changes
            )
        if report is not None:
            report.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    except (ProgramError, rigs.NoBrokerError, rigs.NoAgentError, ContractError, OSError) as error:
        raise CommandError(Exit.PROBLEM, str(error)) from error
    if not figures.stopped_cleanly:
        raise CommandError(Exit.PROBLEM, f"something had to be killed; {screen.closing(figures)}")
    return screen.closing(figures)


def _run(
    rig: rigs.Rig, *, stop: Stop, seconds: float | None, begin_s: float, broker: Broker, faults: bool, changes: bool
) -> watch.Report:
    begin_ms = now_ms()
    agents = [rig.agent(device).name for device in rig.devices]
    with running() as programs:
        fleet_server = _start_all_but_agents(programs, rig, stop)
        with connect(rig.place) as server:
            fleet_server.wait_until(
                lambda: stop.is_set() or (_is_healthy(server) and rig.plugged()), seconds_max=START_S_MAX
            )
            _check_wanted(stop)
            _enrol(programs, rig, server)
            for device in rig.devices:
                programs.start(rig.agent(device))
            for device in rig.recording:
                programs.start(rig.recorder(device))
            show = Show(rig, programs, server, begin_s=begin_s, begin_ms=begin_ms, broker=broker)
            last = show.run(stop, seconds, outages.SCRIPT if faults else (), Changes(server) if changes else None)
            drain_begin_s = time.monotonic()
            last = show.mended(last)
            recorders_stopped = programs.stop([rig.recorder(device).name for device in rig.recording])
            files = _verified(rig, server)
            agents_stopped = programs.stop(agents)
            spooled = watch.spooled(rig)
            drained = _settled(show, sum(stream.last for spool in spooled.values() for stream in spool))
            outcome = watch.Outcome(
                running=last,
                drained=drained,
                spooled=spooled,
                values=watch.values_stored(server, drained, begin_ms=begin_ms),
                rss_bytes_max=show.rss_bytes_max,
                all_reporting_s=show.all_reporting_s,
                drain_s=time.monotonic() - drain_begin_s,
                files=files,
            )
        stopped = [
            recorders_stopped,
            agents_stopped,
            programs.stop([rigs.SERVER]),
            programs.stop([rigs.BROKER]),
            programs.stop_all(),
        ]
    return watch.report(outcome, broker=broker, stopped_cleanly=all(stopped))


def _start_all_but_agents(programs: Programs, rig: rigs.Rig, stop: Stop) -> Program:
    """Return the server, which may not be ready yet; the broker is."""
    broker = programs.start(rig.broker)
    for device in rig.devices:
        programs.start(rig.link(device))
        for part in rig.instruments(device):
            programs.start(part)
    try:
        broker.wait_until(lambda: stop.is_set() or rigs.accepts(rig.site.server_port), seconds_max=START_S_MAX)
    except ProgramError as error:
        hint = rigs.CONFINED_HINT if rigs.CONFINED_WORDS in broker.last_words() else None
        raise CommandError(Exit.PROBLEM, str(error), hint=hint) from error
    programs.start(rig.signer())
    return programs.start(rig.server())


def _enrol(programs: Programs, rig: rigs.Rig, server: Server) -> None:
    """Register each device, and let it enrol, as an operator would."""
    parts = []
    for member in FLEET:
        path = f"/v1/devices/{member.device}"
        server.send("PUT", f"{path}/registration", json={"device_class": member.device_class}, headers=ETAG_NEW)
        made = answers.read(server.send("POST", f"{path}/claims"), answers.MadeClaim)
        parts.append(rig.enrol(member.device, made.code))
    programs.run_all(parts, seconds_max=START_S_MAX)
    for member in FLEET:
        rig.wire(member)


def _settled(show: Show, sealed: int) -> watch.Moment:
    """The last moment: the devices have stopped, and what they sealed is stored or in quarantine."""
    deadline = time.monotonic() + SETTLE_S_MAX
    while True:
        last = show.look()
        if sum(stream.held + stream.quarantined for stream in last.streams) >= sealed or time.monotonic() > deadline:
            return last
        time.sleep(POLL_S)


def _verified(rig: rigs.Rig, server: Server) -> watch.Files:
    """What became of the files, once all of them are kept, or it has taken too long."""
    deadline = time.monotonic() + FILES_S_MAX
    while True:
        files = watch.files(rig, server)
        if files.verified == files.made or time.monotonic() > deadline:
            return files
        time.sleep(POLL_S)


def _check_wanted(stop: Stop) -> None:
    if stop.is_set():
        raise CommandError(Exit.PROBLEM, "ended before it began, as asked")


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
