"""Reads one wire at its cadence: a driver's results become a row, null where a point failed. What fails is asked
oftener, so that whoever plugs a cable in sees it.
"""

import asyncio
import logging
from typing import Final

from broker_config.text import shown
from edge_agent.adapters.system import System
from edge_agent.journal import Kind
from edge_agent.keeper import Keeper
from edge_agent.lease_watch import LeaseWatch
from edge_agent.lost import PLACE, Lost
from edge_agent.profile import Wire
from edge_agent.updating import WHY, Updating
from firmware_bridge.driver import Driver, all_failed
from firmware_bridge.expected import QUARANTINED
from firmware_bridge.readings import Failed, Quality, Reading, Results

logger = logging.getLogger(__name__)

GRACE_S: Final = 0.5
"""A driver is given up this long after its deadline, which it should have kept itself."""
AGAIN_S: Final = 0.5
"""What failed is asked again after so long, if its cadence is longer,"""
AGAIN_SHARE: Final = 9
"""and after so many times what the failure took: a unit that is silent must not have the line that others share."""


async def read_wire(
    wire: Wire,
    driver: Driver,
    keeper: Keeper,
    watch: LeaseWatch,
    system: System,
    began_s: float,
    lost: Lost | None = None,
    updating: Updating | None = None,
) -> None:
    """Read at *began_s* and every ``every_s`` after it, until cancelled; a late reading leaves out those that it
    missed. The journal is told when the first point fails or all are stale, when another instrument than the one
    that is meant was found, and when all read again; that is read in between, and is a row at once. Where a *lost*
    device is, is read in between, too. What *updating* has is not asked.
    """
    resource = wire.resource
    at = 0
    before, between = "", False
    while True:
        asked_s = system.mono_s()
        if updating is not None and updating.has(resource):
            results = all_failed(wire.points, WHY)
        else:
            results = await _read(wire, driver)
        took_s = system.mono_s() - asked_s
        values, why = row(wire, results)
        told = {"driver": wire.driver, "stream": wire.stream}
        if is_news(why, before):
            logger.warning("driver fault", extra={**told, "why": shown(why)})
            keeper.note(Kind.DRIVER_FAULT, {**told, "error": why})
        elif before and not why:
            logger.info("driver reads again", extra=told)
            keeper.note(Kind.DRIVER_OK, told)
        before, failing = why, bool(why)
        (keeper.failing.add if failing else keeper.failing.discard)(wire.stream)
        if not (between and failing):
            keeper.row(wire.stream, values)
            watch.row(wire.stream, values)
        between = False
        following = next_at(at, (system.mono_s() - began_s) / wire.every_s)
        wait_s = max(0.0, began_s + following * wire.every_s - system.mono_s())
        if lost is not None and wire.stream == PLACE and lost.every_s(wait_s) < wait_s:
            await asyncio.sleep(lost.every_s(wait_s))
        elif failing and (again_s := again_after_s(took_s)) < wait_s:
            between = True
            await asyncio.sleep(again_s)
        else:
            at = following
            await asyncio.sleep(wait_s)


def is_news(why: str, before: str) -> bool:
    """Whether a fault is told: the first one, and a quarantine after whatever was wrong *before*, as it waits for an
    operator.
    """
    return bool(why) and (not before or (QUARANTINED in why and QUARANTINED not in before))


def next_at(at: int, passed: float) -> int:
    """Which reading is next, after the one called *at*, when *passed* cadences have passed since the first."""
    whole = int(passed)
    return max(at + 1, whole + (passed > whole))


def again_after_s(took_s: float) -> float:
    """How long what failed, and took so long to, is left alone."""
    return max(AGAIN_S, AGAIN_SHARE * took_s)


def row(wire: Wire, results: Results) -> tuple[list[float | None], str]:
    """The values in the order of the wire's points, and why the first failed, or that every one is stale; empty if
    neither is so: what is partly stale is told by an instrument that is there.
    """
    values: list[float | None] = []
    why = ""
    stale = True
    for point in wire.points:
        result = results.get(point, Failed("the driver did not say"))
        if isinstance(result, Failed):
            why = why or f"{point}: {result.why}"
            values.append(None)
        else:
            values.append(None if result.quality is Quality.BAD else result.value)
        stale = stale and isinstance(result, Reading) and result.quality is Quality.STALE
    return values, why or (f"{wire.points[0]}: stale, as all of it" if stale else "")


async def _read(wire: Wire, driver: Driver) -> Results:
    try:
        async with asyncio.timeout(wire.deadline_s + GRACE_S):
            return await driver.read(wire.points, wire.deadline_s)
    except TimeoutError:
        return all_failed(wire.points, f"no answer within {wire.deadline_s} s")
    except Exception as error:  # noqa: BLE001  # a mistake in one driver must not stop the others
        return all_failed(wire.points, f"{type(error).__name__}: {shown(error)}")
