"""Carries an update out: reads the device, has :mod:`flow` decide, writes the row, does the act; and again.

It may end anywhere, by a kill or a power cut; whoever calls it next with the same journal goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from firmware_bridge.firmware import flow
from firmware_bridge.firmware.flow import GUARDED, Act, Do, End, Phase, Row, Slots, Verdict, Wait
from firmware_bridge.firmware.images import Image
from firmware_bridge.firmware.ports import DeviceRefusedError, Journal, LinkError, McuDevice, Surroundings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """``trial_s``: for so long the new image must be well before it is confirmed; it is looked at every ``look_s``.
    ``boot_s``: nothing is sent for so long after a reset; a UART that hears bytes before its firmware runs may wedge.
    """

    trial_s: float = 60.0
    look_s: float = 2.0
    boot_s: float = 3.0
    retry_s: float = 1.0
    silent_s_max: float = flow.SILENT_S_MAX


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` bytes while it is uploaded; 0 of 0 else."""

    phase: Phase
    done: int = 0
    total: int = 0


class Updater:
    """One device. ``run`` is never called twice at a time."""

    def __init__(
        self,
        device: McuDevice,
        journal: Journal,
        surroundings: Surroundings,
        *,
        pace: Pace | None = None,
        told: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        self._device = device
        self._journal = journal
        self._surroundings = surroundings
        self._pace = pace or Pace()
        self._told = told

    async def run(self, name: str, image: Image, *, again: bool = False) -> Row:
        """Bring *image*, which was admitted, to device *name*; the row with its verdict.

        *again*: an operator orders what a verdict before forbids.
        """
        other = self._journal.open_of(name)
        if other is not None and other.image != image.tlv_hash:
            if other.phase not in flow.EARLY:
                why = f"the update to {other.image.hex()[:16]} is not over"
                return replace(flow.Row(name, image.tlv_hash), verdict=Verdict.POSTPONED, why=why)
            self._journal.write(replace(other, verdict=Verdict.FAILED, why="given up for another image"))
        row = flow.opened(self._journal.find(name, image.tlv_hash), name, image.tlv_hash, again=again)
        if row.verdict is not None:
            return row
        self._journal.write(row)
        try:
            return await self._drive(row, image)
        finally:
            await self._device.close()

    async def _drive(self, row: Row, image: Image) -> Row:
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        while True:
            slots: Slots | None = None
            try:
                slots = await self._device.slots()
                heard_s = loop.time()
            except LinkError as error:
                logger.debug("no answer", extra={"device": row.device, "why": str(error)})
            except DeviceRefusedError as error:
                return self._over(row, Verdict.FAILED, f"the list of images: {error}")
            step = flow.next_step(row, slots, loop.time() - heard_s, self._pace.silent_s_max)
            match step:
                case Wait():
                    await asyncio.sleep(self._pace.retry_s)
                case End(verdict, why):
                    return self._over(row, verdict, why)
                case Do(act):
                    assert slots is not None
                    if act in GUARDED and not row.unfit and (why := await self._surroundings.not_now()):
                        return self._over(row, Verdict.POSTPONED, why)
                    row = flow.begun(row, act, slots)
                    self._journal.write(row)
                    self._told(Progress(row.phase))
                    try:
                        row = await self._do(act, row, image)
                    except LinkError as error:
                        logger.info("act broken off", extra={"device": row.device, "act": act, "why": str(error)})
                        await asyncio.sleep(self._pace.retry_s)
                    except DeviceRefusedError as error:
                        return self._over(row, Verdict.FAILED, f"{act}: {error}")
                    if row.verdict is not None:
                        return row

    async def _do(self, act: Act, row: Row, image: Image) -> Row:
        """Raises LinkError, DeviceRefusedError."""
        match act:
            case Act.PRECHECK | Act.LIST:
                pass  # what was found just before is what the row says
            case Act.UPLOAD:
                async for done in self._device.upload(image.data):
                    self._told(Progress(Phase.UPLOAD, done, len(image.data)))
            case Act.TEST:
                await self._device.test(image.tlv_hash)
            case Act.RESET:
                await self._device.reset()
                await asyncio.sleep(self._pace.boot_s)
            case Act.TRIAL:
                return await self._try_out(row)
            case Act.CONFIRM:
                raise AssertionError("a confirmation belongs to its trial")
        return row

    async def _try_out(self, row: Row) -> Row:
        """Look at the new image until it has been well for long enough, then confirm it."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._pace.trial_s
        while True:
            slots = await self._device.slots()
            if slots.active != row.image or slots.confirmed:
                return row  # it is another picture now
            if why := await self._surroundings.unwell():
                return replace(row, unfit=why)  # stored before it is sent back
            if loop.time() >= until_s:
                break
            await asyncio.sleep(min(self._pace.look_s, max(0.0, until_s - loop.time())))
        row = flow.begun(row, Act.CONFIRM, slots)
        self._journal.write(row)
        self._told(Progress(row.phase))
        await self._device.confirm(row.image)
        return row

    def _over(self, row: Row, verdict: Verdict, why: str) -> Row:
        row = replace(row, verdict=verdict, why=why)
        self._journal.write(row)
        return row
