"""Takes a microcontroller's power away around the swap of its images, and looks at what comes of the update.

``python -m tests.faults.firmware --cuts 25 --seed 7``: a real device (Zephyr and MCUboot in QEMU, with a flash that
outlives a cut) has a new image pending and an updater whose journal says so. Its power is cut one to three times in a
row soon after it came back, and the updater goes on. Half of the images are unwell: the way back is cut as well. Each
trial must end with a device that runs one of the two images and has it confirmed, with a verdict that says which, and
with nothing tried again that had gone back. ``--control no-journal`` is an updater that remembers nothing: it must be
caught.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firmware_bridge.adapters.firmware_journal import SqliteJournal
from firmware_bridge.adapters.smp import SmpDevice, SmpSession
from firmware_bridge.adapters.smp_links import link_to
from firmware_bridge.firmware.flow import Act, Phase, Row, Slots, Verdict
from firmware_bridge.firmware.images import Image, read_image
from firmware_bridge.firmware.ports import Journal
from firmware_bridge.firmware.updater import Pace, Progress, Updater
from tests.firmware_bridge.mcu import SLOT_AT, Mcu, body, mcu
from tests.firmware_bridge.signing import Signer

NO_JOURNAL: Final = "no-journal"
DEVICE: Final = "dock"
CUTS_IN_A_ROW_MAX: Final = 3
CUT_S_MIN: Final = 0.0005
CUT_S_MAX: Final = 0.08
PACE: Final = Pace(trial_s=0.2, look_s=0.1, boot_s=0.8, retry_s=0.2, silent_s_max=60)
TRIAL_S_MAX: Final = 120.0


class ForgetsJournal:
    """The control: nothing is kept when a run is over."""

    def find(self, _device: str, _image: bytes) -> Row | None:
        return None

    def open_of(self, _device: str) -> Row | None:
        return None

    def write(self, row: Row) -> None:
        return


@dataclass
class Report:
    """``torn``: cuts that fell into a swap. ``wrong``: each thing that must not be, in words."""

    seed: int
    control: str | None
    cuts: int = 0
    torn: int = 0
    trials: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.wrong

    def as_json(self) -> str:
        return json.dumps({**vars(self), "good": self.good})


@dataclass(frozen=True)
class Start:
    """A device's flash and an updater's journal, at the moment when the image is pending and nothing was reset."""

    image: Image
    flash: bytes
    before: bytes
    journal: Path

    def torn(self, flash: bytes) -> bool:
        """Whether what lies where an image runs is neither the one nor the other."""
        span = slice(SLOT_AT, SLOT_AT + len(self.image.data))
        return flash[span] not in {self.image.data, self.flash[span]}


@dataclass
class _Surroundings:
    wrong: str = ""
    told: list[Phase] = field(default_factory=list)

    async def not_now(self) -> str:
        return ""

    async def unwell(self) -> str:
        return self.wrong


def _device(found: Mcu) -> SmpDevice:
    return SmpDevice(SmpSession(lambda: link_to(found.at), answer_s=2.0))


async def prepare(directory: Path) -> Start:
    """Bring an image to a fresh device as far as the reset, and stop there."""
    image = read_image(Signer(directory / "signer").make().sign(body()))
    with mcu() as found:
        reached = asyncio.Event()

        class Stops(SmpDevice):
            async def reset(self) -> None:
                reached.set()
                await asyncio.Event().wait()

        journal = SqliteJournal(directory / "journal")
        device = Stops(SmpSession(lambda: link_to(found.at), answer_s=3.0, first_chunk_s=6.0))
        running = asyncio.create_task(Updater(device, journal, _Surroundings(), pace=PACE).run(DEVICE, image))
        async with asyncio.timeout(TRIAL_S_MAX):
            await reached.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        row = journal.open_of(DEVICE)
        assert row is not None
        assert row.phase is Phase.RESET
        journal.close()
        found.cut()
        return Start(image, found.flash, row.before, directory / "journal")


async def run(
    directory: Path, *, seed: int, cuts: int, control: str | None = None, start: Start | None = None
) -> Report:
    """Trials until there were so many *cuts*. *start*: from :func:`prepare`, where it is to be shared."""
    start = start or await prepare(directory)
    report = Report(seed, control)
    chance = random.Random(seed)
    while report.cuts < cuts:
        report.trials += 1
        try:
            async with asyncio.timeout(TRIAL_S_MAX):
                await _trial(directory, start, report, chance)
        except TimeoutError:
            report.wrong.append(f"trial {report.trials}: the device never came back")
    return report


async def _trial(directory: Path, start: Start, report: Report, chance: random.Random) -> None:
    unwell = report.control is not None or chance.random() < 0.5
    file = directory / f"journal-{report.trials}"
    shutil.copy(start.journal, file)
    journal: Journal = ForgetsJournal() if report.control == NO_JOURNAL else SqliteJournal(file)
    with mcu(start.flash, on=False) as found:
        await _power_up(found, start, report, chance)
        surroundings = _Surroundings("its readings are not sane" if unwell else "")
        loop = asyncio.get_running_loop()

        def heard(progress: Progress) -> None:
            surroundings.told.append(progress.phase)
            # a reset in a trial is the way back
            if progress.phase is Phase.TRIAL and surroundings.told.count(Phase.TRIAL) == 2 and unwell:
                loop.call_later(_delay_s(chance), cut_again)

        def cut_again() -> None:
            _cut(found, start, report)
            found.power_on()

        async def order() -> Row:
            device = _device(found)
            updater = Updater(device, journal, surroundings, pace=PACE, told=heard)
            return await updater.run(DEVICE, start.image)

        row = await order()
        assert row.verdict is not None
        report.verdicts[row.verdict] = report.verdicts.get(row.verdict, 0) + 1
        device = _device(found)
        slots = await device.slots()
        await device.close()
        for why in _faults(row, slots, start, unwell=unwell):
            report.wrong.append(f"trial {report.trials}: {why}")
        if row.verdict is Verdict.ROLLED_BACK:
            told = len(surroundings.told)
            await order()
            if Phase.TEST in surroundings.told[told:]:
                report.wrong.append(f"trial {report.trials}: what had gone back was tried again")


def _faults(row: Row, slots: Slots, start: Start, *, unwell: bool) -> list[str]:
    new, old = start.image.tlv_hash, start.before
    expected = new if row.verdict is Verdict.DONE else old
    wrong = []
    if row.verdict not in {Verdict.DONE, Verdict.ROLLED_BACK}:
        wrong.append(f"the verdict is {row.verdict}: {row.why}")
    if slots.active != expected or not slots.confirmed:
        wrong.append(f"the verdict is {row.verdict}, and {slots.active.hex()[:16]} runs, {slots.confirmed=}")
    if unwell and row.verdict is Verdict.DONE:
        wrong.append("an unwell image was kept")
    if row.times.get(Act.TEST, 0) > 1:
        wrong.append(f"it was tested {row.times[Act.TEST]} times")
    return wrong


async def _power_up(found: Mcu, start: Start, report: Report, chance: random.Random) -> None:
    for _ in range(chance.randint(1, CUTS_IN_A_ROW_MAX)):
        found.power_on(until_up=False)
        await asyncio.sleep(_delay_s(chance))
        _cut(found, start, report)
    found.power_on()


def _delay_s(chance: random.Random) -> float:
    """As many short ones as long ones: a swap is short here."""
    return float(CUT_S_MIN * (CUT_S_MAX / CUT_S_MIN) ** chance.random())


def _cut(found: Mcu, start: Start, report: Report) -> None:
    found.cut()
    report.cuts += 1
    report.torn += start.torn(found.flash)


def main() -> int:
    """Exit codes: 0 as expected, 1 not."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.firmware", description=__doc__)
    parser.add_argument("--cuts", type=int, default=25)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--control", choices=[NO_JOURNAL], help="an updater that must be caught")
    told = parser.parse_args()
    seed = told.seed if told.seed is not None else random.SystemRandom().randrange(2**32)
    with tempfile.TemporaryDirectory(prefix="firmware") as scratch:
        report = asyncio.run(run(Path(scratch), seed=seed, cuts=told.cuts, control=told.control))
    print(report.as_json())
    return 0 if report.good == (told.control is None) else 1


if __name__ == "__main__":
    sys.exit(main())
