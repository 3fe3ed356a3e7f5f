"""``fieldfleet simulate``: starts what it needs, loads it, drains it, has it audited, ends everything."""

import asyncio
import gc
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from broker_config.ids import ContractError
from broker_config.mac import Purpose
from broker_config.ranges import count
from fleet_server.access.ca import CaError
from fleet_server.access.keys import derive
from fleet_server.adapters.mqtt import LinkError
from fleet_server.cli import answers
from fleet_server.cli.demo import rig as demo
from fleet_server.cli.demo.fleet import Broker
from fleet_server.cli.demo.keyboard import Stop, listening
from fleet_server.cli.demo.programs import Part, ProgramError, Programs, removed_afterwards, running
from fleet_server.cli.server import CommandError, Exit, Server, connect, find
from fleet_server.cli.simulate import audit, faults, gateway, readings, sessions
from fleet_server.cli.simulate import rig as rigs
from fleet_server.cli.simulate.device import Device, Habits, Keys
from fleet_server.cli.simulate.faults import Fault, Mode
from fleet_server.cli.simulate.identities import VALUES, Identities
from fleet_server.cli.simulate.report import (
    IdentitiesReport,
    Load,
    Numbers,
    SessionsReport,
    Storm,
    closing,
    failed,
    percentile,
)
from fleet_server.cli.simulate.show import Show, showing
from fleet_server.config import ConfigError
from fleet_server.site import LOOPBACK
from fleet_server.telemetry import reconnects

START_S_MAX: Final = 30.0
CONNECT_S_MIN: Final = 60.0
"""Beside what the rates ask for."""
LOOK_S: Final = 1.0
BROKER_DOWN_S: Final = 2.0
"""So long a storm's broker is away, so that devices fail and back off as they would."""
POLL_S: Final = 0.05
GC_ALLOCATIONS: Final = 50_000
"""As in ``fleet_server.running``: ten thousand devices are not to be looked through all the time."""
MS: Final = 1000.0
LIFE_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of the command line. ``every_s``: from one batch of a stream to the next."""

    mode: Mode
    devices: int
    seconds: float
    broker: Broker
    site: Path | None
    directory: Path | None
    report: Path | None
    streams: tuple[str, ...]
    device_class: str
    every_s: float
    rows: int
    receipt_wait_s: float
    rate: float
    connect_rate: int
    reconnect_rate: int | None
    faults: tuple[Fault, ...]
    seed: int
    drain_s: float


class Watch:
    """What server and broker take of the machine, if they are ours."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._begin: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._rss_bytes_max: dict[str, int] = {}
        self._of: dict[int, str] = {}
        self._began_s = time.monotonic()
        self._own_s = time.process_time()

    def started(self, name: str, pid: int) -> None:
        """A program of ours runs."""
        self._of[pid] = name
        self._begin[pid] = 0.0

    def begin(self) -> None:
        """What follows is measured."""
        self._began_s, self._own_s = time.monotonic(), time.process_time()
        self._begin = {pid: rigs.processor_s(pid) for pid in self._of}
        self._rss_bytes_max.clear()
        self.look()

    def look(self) -> None:
        """Raises ProgramError: one of them has ended by itself."""
        self._programs.check()
        for pid, name in self._of.items():
            self._last[pid] = max(self._last.get(pid, 0.0), rigs.processor_s(pid))
            self._rss_bytes_max[name] = max(self._rss_bytes_max.get(name, 0), self._programs.rss_bytes(name))

    def load(self) -> Load:
        """Since :meth:`begin`."""
        self.look()
        seconds = max(time.monotonic() - self._began_s, POLL_S)

        def share(name: str) -> float | None:
            pids = [pid for pid, each in self._of.items() if each == name]
            if not pids:
                return None
            return round(sum(self._last[pid] - self._begin[pid] for pid in pids) / seconds, 4)

        return Load(
            share(rigs.SERVER),
            self._rss_bytes_max.get(rigs.SERVER),
            share(rigs.BROKER),
            self._rss_bytes_max.get(rigs.BROKER),
            round((time.process_time() - self._own_s) / seconds, 4),
        )


def simulate(options: Options) -> str:
    """Run; return what it came to.

    Raises:
        CommandError: it cannot be started, or something was lost, did not drain, or died.
    """
    try:
        with listening() as stop, _directory(options) as directory, running() as programs, showing() as show:
            report = _run(options, directory, programs, stop, show)
    except (ProgramError, demo.NoBrokerError, ContractError, ConfigError, CaError, LinkError, OSError) as error:
        raise CommandError(Exit.PROBLEM, str(error)) from error
    if options.report is not None:
        options.report.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if failed(report):
        raise CommandError(Exit.PROBLEM, closing(report))
    return closing(report)


def _run(
    options: Options, directory: Path, programs: Programs, stop: Stop, show: Show
) -> SessionsReport | IdentitiesReport:
    fit = rigs.sessions_fit()
    if options.mode is Mode.SESSIONS and options.devices > fit:
        raise CommandError(
            Exit.USAGE,
            f"{fit:,} sessions fit into one process here, {options.devices:,} are asked for",
            hint="raise `ulimit -Hn`, or see --mode identities",
        )
    now = datetime.now(UTC)
    if options.site is not None:
        rig = rigs.found(directory, find(site=directory, url=None, token_file=None))
    else:
        rig = rigs.build(
            directory,
            broker=options.broker,
            gateway=options.mode is Mode.IDENTITIES,
            reconnects_a_second_max=options.reconnect_rate,
            now=now,
        )
    watch = Watch(programs)
    with connect(rig.place) as server:
        _start(rig, programs, watch, server)
        gc.set_threshold(GC_ALLOCATIONS)
        if options.mode is Mode.SESSIONS:
            return _sessions(options, rig, programs, watch, server, stop, show, fit)
        return _identities(options, rig, programs, watch, server, stop, show)


def _start(rig: rigs.Rig, programs: Programs, watch: Watch, server: Server) -> None:
    if rig.broker is not None:
        program = programs.start(rig.broker)
        watch.started(rigs.BROKER, program.process.pid)
        program.wait_until(lambda: demo.accepts(rig.site.server_port), seconds_max=START_S_MAX)
    if rig.server is not None:
        program = programs.start(rig.server)
        watch.started(rigs.SERVER, program.process.pid)
        program.wait_until(lambda: _is_healthy(server), seconds_max=START_S_MAX)


# Sessions -------------------------------------------------------------------------------------------------------


def _sessions(
    options: Options,
    rig: rigs.Rig,
    programs: Programs,
    watch: Watch,
    server: Server,
    stop: Stop,
    show: Show,
    fit: int,
) -> SessionsReport:
    names = rigs.names(options.devices)
    certificates = rigs.mint(rig, names, now=datetime.now(UTC))
    rng = random.Random(options.seed)  # noqa: S311 - a load, and repeatable
    habits = Habits(
        readings.signals(options.device_class, options.streams),
        options.every_s,
        options.rows,
        options.device_class,
        receipt_wait_s=options.receipt_wait_s,
    )
    stated = rig.reconnects_a_second_max()
    switched_on_s = reconnects.spread_ms(options.devices, a_second_max=stated) / MS
    master, begin = rig.master(), sessions.moment()
    devices = [
        Device(
            name,
            habits,
            Keys(derive(master, Purpose.RECEIPT, name), derive(master, Purpose.TIME, name)),
            rng,
            begin,
            life=secrets.token_hex(LIFE_BYTES),
        )
        for name in names
    ]
    gc.collect()
    gc.freeze()
    begin_s = sessions.moment().s  # not before all are built: those that are overdue would come at once
    for device in devices:
        device.switch_on(begin_s + rng.uniform(0.0, switched_on_s))
    fleet = sessions.Sessions(
        devices,
        sessions.Endpoint(
            rig.host,
            rig.site.device_port,
            habits.keep_alive_s,
            lambda at: rigs.device_security(rig, certificates[at]),
        ),
        connect_rate=options.connect_rate,
        rng=rng,
    )
    connect_s, drain_s, load, drained = uvloop.run(
        _load_sessions(options, rig, programs, watch, fleet, stop, show, switched_on_s)
    )
    given: dict[audit.Place, audit.Given] = {
        (device.name, line.stream, line.life): audit.Given(line.last, count(line.gone))
        for device in devices
        for line in device.lines.values()
    }
    found = audit.ask(server, given)
    gone = sum(each.gone for each in given.values())
    receipted = fleet.receipted
    told_lost = sum(count(line.lost) for device in devices for line in device.lines.values())
    numbers = Numbers(
        sealed=fleet.sealed,
        receipted=receipted,
        gone=gone,
        waiting=fleet.sealed - receipted - gone,
        stored=found.stored,
        missing=found.missing,
        quarantined=found.quarantined,
        lost=max(found.lost, told_lost),
        receipts_refused=sum(device.refused for device in devices),
        duplicates=_duplicates(rig, server),
    )
    figures = fleet.figures
    return SessionsReport(
        broker=options.broker if options.site is None else "as found",
        devices=options.devices,
        seconds=options.seconds,
        sessions_fit=fit,
        sessions_held_max=figures.held_max,
        connect_s=round(connect_s, 2),
        connect_rate=options.connect_rate,
        reconnects_a_second_max=stated,
        spread_s=max(device.spread_s for device in devices),
        connects_s_peak=fleet.peaks(0.0)[1],
        begun_late_s_max=round(figures.late_s_max, 2),
        connects_failed=dict(figures.failed),
        faults={str(fault): number for fault, number in figures.struck.items()},
        storm=_storm(fleet),
        drained=drained,
        drain_s=round(drain_s, 2),
        numbers=numbers,
        load=load,
        stopped_cleanly=programs.stop([rigs.SERVER]) and programs.stop([rigs.BROKER]),
    )


def _storm(fleet: sessions.Sessions) -> Storm | None:
    figures = fleet.figures
    if figures.storm_s is None:
        return None
    asked, begun, up = fleet.peaks(figures.storm_s)

    def after(at_s: float | None) -> float | None:
        return None if at_s is None or figures.storm_s is None else round(at_s - figures.storm_s, 2)

    return Storm(after(figures.broker_back_s), after(figures.all_back_s), begun, up, asked)


async def _load_sessions(
    options: Options,
    rig: rigs.Rig,
    programs: Programs,
    watch: Watch,
    fleet: sessions.Sessions,
    stop: Stop,
    show: Show,
    switched_on_s: float,
) -> tuple[float, float, Load, bool]:
    """How long it took to connect and to drain, what it cost, and whether it drained."""
    begin_s = time.monotonic()
    everybody = len(fleet.devices)

    def text() -> str:
        return f"{fleet.held:,} sessions  {fleet.sealed:,} sealed  {fleet.receipted:,} receipted"

    connect_s_max = (
        CONNECT_S_MIN + switched_on_s + (everybody / options.connect_rate if options.connect_rate else 0.0)
    )
    show.begin("connect", everybody)
    async with _looking(watch, lambda: show.at(fleet.held, text)):
        await fleet.run(
            lambda: stop.is_set() or fleet.held == everybody or time.monotonic() - begin_s > connect_s_max
        )
    connect_s = time.monotonic() - begin_s
    watch.begin()
    run_s = time.monotonic()
    tasks: list[asyncio.Task[None]] = []

    def storm() -> None:
        if rig.broker is None:
            fleet.break_all()
            return
        programs.kill(rigs.BROKER)
        tasks.append(asyncio.ensure_future(_broker_back(rig, rig.broker, programs, watch, fleet)))

    plan = faults.schedule(options.faults, seed=options.seed, devices=everybody, seconds=options.seconds)
    fleet.expect(plan, begin_s=run_s, storm=storm)
    show.begin("run", options.seconds)
    async with _looking(watch, lambda: show.at(time.monotonic() - run_s, text)):
        await fleet.run(lambda: stop.is_set() or time.monotonic() - run_s >= options.seconds)
    drain_begin_s = time.monotonic()
    fleet.stop()
    show.begin("drain", everybody)

    def is_over() -> bool:
        back = fleet.figures.storm_s is None or fleet.figures.all_back_s is not None
        return (back and fleet.drained) or time.monotonic() - drain_begin_s > options.drain_s

    async with _looking(watch, lambda: show.at(sum(device.drained for device in fleet.devices), text)):
        await fleet.run(is_over)
    drain_s, load, drained = time.monotonic() - drain_begin_s, watch.load(), fleet.drained
    for task in tasks:
        task.cancel()
    await fleet.leave()
    return connect_s, drain_s, load, drained


async def _broker_back(
    rig: rigs.Rig, broker: Part, programs: Programs, watch: Watch, fleet: sessions.Sessions
) -> None:
    await asyncio.sleep(BROKER_DOWN_S)
    watch.started(rigs.BROKER, programs.start(broker).process.pid)
    while not demo.accepts(rig.site.device_port):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(POLL_S)
    fleet.figures.broker_back_s = time.monotonic()


# Identities -----------------------------------------------------------------------------------------------------


def _identities(
    options: Options, rig: rigs.Rig, programs: Programs, watch: Watch, server: Server, stop: Stop, show: Show
) -> IdentitiesReport:
    try:
        security = rigs.gateway_security(rig)
    except OSError as error:
        raise CommandError(
            Exit.USAGE,
            f"{rig.directory} has no bench-only gateway, and no real site may have one",
            hint="leave --site out: a site is made for the run",
        ) from error
    master = rig.master()
    identities = Identities(
        rigs.names(options.devices),
        key=lambda device: derive(master, Purpose.RECEIPT, device),
        rng=random.Random(options.seed),  # noqa: S311
        begin=sessions.moment(),
        life=secrets.token_hex(LIFE_BYTES),
    )
    bench = gateway.Gateway(identities, gateway.Endpoint(LOOPBACK, rig.site.server_port, security))
    gc.collect()
    gc.freeze()
    bytes_before = rig.stored_bytes()
    run_s, drain_s, load = uvloop.run(_load_identities(options, watch, bench, stop, show))
    given: dict[audit.Place, audit.Given] = {
        (device, identities.stream, identities.life): audit.Given(last, 0)
        for device, last in identities.numbers().items()
    }
    sent = identities.sent
    found = audit.ask(server, given)
    waits_s = sorted(identities.waits_s)
    p50, p99 = (percentile(waits_s, share) for share in (0.5, 0.99))
    ours = rig.server is not None
    duplicates = _duplicates(rig, server)
    stopped = programs.stop([rigs.SERVER]) and programs.stop([rigs.BROKER])
    return IdentitiesReport(
        broker=options.broker,
        identities=options.devices,
        seconds=round(run_s, 2),
        messages_s=round(sent / run_s, 1),
        values_s=round(VALUES * sent / run_s, 1),
        receipt_ms_p50=None if p50 is None else round(p50 * MS, 1),
        receipt_ms_p99=None if p99 is None else round(p99 * MS, 1),
        stored_bytes=rig.stored_bytes() - bytes_before if ours else None,
        connections=bench.connections,
        drained=not identities.waiting,
        drain_s=round(drain_s, 2),
        numbers=Numbers(
            sealed=sent,
            receipted=sent - identities.waiting,
            gone=0,
            waiting=identities.waiting,
            stored=found.stored,
            missing=found.missing,
            quarantined=found.quarantined,
            lost=max(found.lost, identities.lost),
            receipts_refused=identities.refused,
            duplicates=duplicates,
        ),
        load=load,
        stopped_cleanly=stopped,
    )


async def _load_identities(
    options: Options, watch: Watch, bench: gateway.Gateway, stop: Stop, show: Show
) -> tuple[float, float, Load]:
    """How long was sent and drained, and what it cost."""
    identities = bench.identities
    begin_s = time.monotonic()
    watch.begin()

    def text() -> str:
        return f"{identities.sent:,} sent  {identities.waiting:,} wait for a receipt"

    show.begin("run", options.seconds)
    async with _looking(watch, lambda: show.at(time.monotonic() - begin_s, text)):
        await bench.run(
            rate=options.rate, until=lambda: stop.is_set() or time.monotonic() - begin_s >= options.seconds
        )
    run_s, drain_begin_s = time.monotonic() - begin_s, time.monotonic()
    load = watch.load()
    waiting = identities.waiting
    show.begin("drain", waiting)
    async with _looking(watch, lambda: show.at(waiting - identities.waiting, text)):
        await bench.run(
            rate=0.0,
            until=lambda: not identities.waiting or time.monotonic() - drain_begin_s > options.drain_s,
        )
    drain_s = time.monotonic() - drain_begin_s
    await bench.leave()
    return run_s, drain_s, load


# Both -----------------------------------------------------------------------------------------------------------


class _looking:  # noqa: N801 - reads as what it does
    """Within the block *show* and the machine's figures are kept up to date; what dies ends the block."""

    def __init__(self, watch: Watch, show: Callable[[], None]) -> None:
        self._watch = watch
        self._show = show
        self._owner: asyncio.Task[object] | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: ProgramError | None = None

    async def __aenter__(self) -> None:
        self._owner = asyncio.current_task()
        self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        assert self._owner is not None
        while True:
            self._show()
            try:
                self._watch.look()
            except ProgramError as error:
                self._error = error
                self._owner.cancel()
                return
            await asyncio.sleep(LOOK_S)

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._error is not None:
            raise self._error
        self._show()


def _duplicates(rig: rigs.Rig, server: Server) -> int | None:
    if rig.server is None:
        return None
    return answers.read(server.get("/v1/facts"), answers.Facts).records_duplicate


def _is_healthy(server: Server) -> bool:
    try:
        return server.get("/v1/health") == {"status": "ok"}
    except CommandError as error:
        if error.code is Exit.UNREACHABLE:
            return False
        raise


@contextmanager
def _directory(options: Options) -> Iterator[Path]:
    given = options.site or options.directory
    if given is not None:
        yield given.absolute()
        return
    with removed_afterwards("fieldfleet-simulate-") as directory:
        yield directory / "site"
