"""The parts of an agent, each made from its settings and from what it leans on; and how they do."""

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from broker_config.device_classes import Change
from broker_config.messages import CommandStatus
from broker_config.topics import Up
from edge_agent import clock
from edge_agent.adapters.counters import Counters
from edge_agent.adapters.sqlite import summary
from edge_agent.adapters.system import System
from edge_agent.adapters.twin_file import TwinFile
from edge_agent.commanding import Commands, Handler
from edge_agent.commands import LOGS, supported
from edge_agent.config import Over, Settings
from edge_agent.configuring import Configuring, Own
from edge_agent.connecting import Connecting
from edge_agent.handlers import ByMcu
from edge_agent.keeper import Keeper
from edge_agent.last_lines import LastLines
from edge_agent.launch import ENVIRONMENT
from edge_agent.lease_watch import LeaseWatch
from edge_agent.lost import Lost
from edge_agent.session import State
from edge_agent.updating import Updating
from edge_agent.window import Window

if TYPE_CHECKING:
    from edge_agent.adapters.agent_release import AgentRelease
    from edge_agent.adapters.mcu_release import McuRelease
    from edge_agent.adapters.release_relay import ReleaseRelay
    from edge_agent.uploading import Uploading


def uploading(
    settings: Settings,
    system: System,
    keeper: Keeper,
    lost: Lost,
    *,
    send: Callable[[Up, bytes, str, Callable[[], None]], None],
    pending: Callable[[], int],
) -> "Uploading | None":
    """None: no folder holds files to upload."""
    if settings.uploads is None:
        return None
    from edge_agent.uploading import Uploading  # noqa: PLC0415  # a megabyte that others do not need

    return Uploading(settings, system, keeper, send=send, pending=pending, lost=lost)


def commands(
    settings: Settings,
    system: System,
    keeper: Keeper,
    lost: Lost,
    leases: LeaseWatch,
    files: "Uploading | None",
    counters: Counters,
    *,
    tell: Callable[[CommandStatus], None],
    now_ms: Callable[[], int | None],
    sync_clock: Callable[[], Awaitable[int | None]],
    status: Callable[[], dict[str, object]],
) -> Commands:
    """*files*: what uploads them."""
    lines = LastLines()
    folders = () if settings.uploads is None else settings.uploads.paths
    if LOGS in folders:
        logging.getLogger().addHandler(lines)

    def made() -> Mapping[str, Handler]:
        from edge_agent.built_in import handlers  # noqa: PLC0415  # memory that most runs do not need

        return handlers(
            settings, system, keeper, lost, sync_clock=sync_clock, pulling=files, lines=lines, status=status
        )

    return Commands(
        settings.device_class,
        supported(settings.profile.programs, folders, reboots=bool(settings.file.commands.reboot)),
        made,
        counters,
        journal=keeper,
        tell=tell,
        boot=system.boot,
        mono_ms=system.mono_ms,
        now_ms=now_ms,
        lease=lambda: leases.waits_for(Change.COMMAND),
    )


def configuring(
    settings: Settings,
    own: Own,
    system: System,
    keeper: Keeper,
    leases: LeaseWatch,
    *,
    now_ms: Callable[[], int | None],
    say: Callable[[bytes], None],
    come_back: Callable[[], None],
    ready: Callable[[], bool],
    not_before_ms: Callable[[], int],
    restart: Callable[[], None],
    updating: Updating,
    relay: "ReleaseRelay | None",
) -> Configuring:
    """*own*: as agent.toml has it."""
    return Configuring(
        settings.device_class,
        settings.profile.handlers,
        own,
        TwinFile(settings.state_dir, lambda _step: None),
        system,
        journal=keeper,
        waits_for=leases.waits_for,
        now_ms=now_ms,
        wall_ms=lambda: system.facts().wall_ms,
        say=say,
        come_back=come_back,
        ready=ready,
        release=agent_release(settings, not_before_ms, relay),
        mcus=mcus(settings, not_before_ms, updating, relay),
        restart=restart,
    )


def release_relay(settings: Settings, send: Callable[[bytes], bool]) -> "ReleaseRelay | None":
    """None: releases come over HTTPS, or not at all."""
    if settings.file.releases is None or settings.file.releases.over is not Over.MQTT:
        return None
    from edge_agent.adapters.release_relay import ReleaseRelay  # noqa: PLC0415  # memory that others do not need

    return ReleaseRelay(send)


def agent_release(
    settings: Settings, not_before_ms: Callable[[], int], relay: "ReleaseRelay | None"
) -> "AgentRelease | None":
    """None: it is not told of releases, or was not started by who could start another agent."""
    places = os.environ.get(ENVIRONMENT)
    if settings.file.releases is None or places is None:
        return None
    from edge_agent.adapters.agent_release import AgentRelease  # noqa: PLC0415  # memory that others do not need

    return AgentRelease(settings, Path(places), not_before_ms, relay)


def mcus(
    settings: Settings, not_before_ms: Callable[[], int], updating: Updating, relay: "ReleaseRelay | None"
) -> "McuRelease | None":
    """None: it is not told of releases, or has no microcontroller."""
    has_one = any(isinstance(each, ByMcu) for each in settings.profile.handlers.values())
    if settings.file.releases is None or not has_one:
        return None
    from edge_agent.adapters.mcu_release import McuRelease  # noqa: PLC0415  # memory that others do not need

    return McuRelease(settings.config_file, settings.state_dir, not_before_ms, updating, relay)


def status(
    settings: Settings,
    system: System,
    keeper: Keeper,
    lost: Lost,
    window: Window,
    connecting: Connecting,
    configuring: Configuring,
    files: "Uploading | None",
    state: State,
) -> dict[str, object]:
    """How it does, for people."""
    facts = system.facts()
    found: dict[str, object] = {
        "device": settings.device,
        "at_ms": facts.wall_ms,
        "connection": state.value,
        "in_flight": window.in_flight,
        "failures": connecting.failures,
        "why_down": "" if connecting.link is not None else connecting.why_down,
        "clock": {"src": keeper.clock.source.value, "off_ms": clock.off(keeper.clock, facts)},
        "disk_ok": keeper.disk_ok,
        "in_memory": keeper.in_memory,
        "streams": [summary(ledger) for ledger in keeper.ledgers()],
        "lost": bool(lost),
        "twin": configuring.status(),
    }
    if files is not None:
        found["uploads"] = files.status()
    return found
