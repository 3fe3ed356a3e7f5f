"""How an update goes on from wherever it was broken off: the table, and whole conversations with a model."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.adapters.firmware_journal import JournalError, SqliteJournal
from firmware_bridge.firmware import flow
from firmware_bridge.firmware.flow import Act, Do, End, Phase, Picture, Row, Slots, Verdict, Wait
from firmware_bridge.firmware.images import Image
from firmware_bridge.firmware.ports import Journal
from firmware_bridge.firmware.updater import Pace, Updater
from tests.firmware_bridge.model_mcu import OLD, KilledError, Kind, ModelMcu, Trouble

NEW, THIRD = b"n" * 32, b"t" * 32
IMAGE = Image(b"x" * 100, "1.0.0.0", NEW, b"f" * 32, None, None, None, ())
DEVICE = "dock-7"
RUNS_MAX = 60
POWER = {Trouble.POWER_BEFORE, Trouble.POWER_AFTER}
AT_ONCE = Pace(trial_s=0, look_s=0, boot_s=0, retry_s=0, silent_s_max=60)
PICTURES = {
    Picture.CONFIRMED: Slots(NEW, confirmed=True, other=OLD),
    Picture.TRYING: Slots(NEW, confirmed=False, other=OLD),
    Picture.PENDING: Slots(OLD, confirmed=True, other=NEW, pending=True),
    Picture.WAITING: Slots(OLD, confirmed=True, other=NEW),
    Picture.OTHER: Slots(OLD, confirmed=True),
}


class Kept:
    """A journal in memory; every row that was written."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bytes], Row] = {}
        self.phases: list[Phase] = []

    def find(self, device: str, image: bytes) -> Row | None:
        return self.rows.get((device, image))

    def open_of(self, device: str) -> Row | None:
        return next((row for row in self.rows.values() if row.device == device and row.verdict is None), None)

    def write(self, row: Row) -> None:
        self.rows[row.device, row.image] = row
        self.phases.append(row.phase)


class Forgets(Kept):
    """The negative control: a journal that is empty whenever a process begins."""

    def find(self, device: str, image: bytes) -> Row | None:
        return None

    def open_of(self, device: str) -> Row | None:
        return None


class Health:
    """Sees that an image is unwell while it runs."""

    def __init__(self, mcu: ModelMcu) -> None:
        self.mcu = mcu
        self.busy = ""

    async def not_now(self) -> str:
        return self.busy

    async def unwell(self) -> str:
        return "its readings are not sane" if self.mcu.kind is Kind.UNWELL and self.mcu.active == NEW else ""


def drive(mcu: ModelMcu, journal: Journal, *, again: bool = False) -> Row:
    """Run until there is a verdict; a killed updater is started again, with the same journal."""
    for _ in range(RUNS_MAX):
        updater = Updater(mcu, journal, Health(mcu), pace=AT_ONCE)
        try:
            return asyncio.run(updater.run(DEVICE, IMAGE, again=again))
        except KilledError:
            continue
    raise AssertionError("no verdict")


def holds(mcu: ModelMcu, row: Row) -> None:
    """What must be true of every end, whatever came between."""
    if row.verdict is Verdict.DONE:
        assert (mcu.active, mcu.confirmed) == (NEW, True)
        assert mcu.kind is Kind.GOOD
    else:
        assert (mcu.active, mcu.confirmed) == (OLD, True)
        assert mcu.kind is not Kind.GOOD or NEW in mcu.boots or row.verdict is not Verdict.ROLLED_BACK
    assert (mcu.active, mcu.confirmed) == (OLD, True) or mcu.kind is Kind.GOOD, "a bad image was confirmed"


@pytest.mark.parametrize(
    ("seen", "phases", "step"),
    [
        (Picture.CONFIRMED, list(Phase), Verdict.DONE),
        (Picture.TRYING, list(Phase), Act.TRIAL),
        (Picture.PENDING, list(Phase), Act.RESET),
        (Picture.WAITING, [Phase.VERIFY], Act.PRECHECK),
        (Picture.WAITING, [Phase.PRECHECK, Phase.UPLOAD], Act.LIST),
        (Picture.WAITING, [Phase.LISTED, Phase.TEST], Act.TEST),
        # the same picture with another history
        (Picture.WAITING, [Phase.RESET, Phase.TRIAL, Phase.CONFIRM], Verdict.ROLLED_BACK),
        (Picture.OTHER, [Phase.VERIFY], Act.PRECHECK),
        (Picture.OTHER, [Phase.PRECHECK, Phase.UPLOAD, Phase.LISTED, Phase.TEST], Act.UPLOAD),
        (Picture.OTHER, [Phase.RESET], Verdict.REJECTED),
        (Picture.OTHER, [Phase.TRIAL, Phase.CONFIRM], Verdict.ROLLED_BACK),
    ],
)
def test_the_device_is_asked_first_and_then_the_journal(
    seen: Picture, phases: Sequence[Phase], step: Act | Verdict
) -> None:
    for phase in phases:
        found = flow.next_step(Row(DEVICE, NEW, phase, before=OLD), PICTURES[seen], 0)
        assert (found.act if isinstance(found, Do) else found.verdict if isinstance(found, End) else None) == step


def test_there_is_a_line_for_each_phase_and_picture() -> None:
    for phase, seen in itertools.product(Phase, Picture):
        assert isinstance(flow.RESUME[phase][seen], Do | End)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_silent_device_is_waited_for_and_then_set_apart(phase: Phase) -> None:
    row = Row(DEVICE, NEW, phase)
    assert flow.next_step(row, None, 119.9) == Wait()
    found = flow.next_step(row, None, 120)
    assert found == End(Verdict.QUARANTINE, f"no answer for 120 s, at {phase}")


@pytest.mark.parametrize(
    ("slots", "phase", "verdict", "why"),
    [
        (Slots(THIRD, confirmed=True), Phase.UPLOAD, Verdict.FAILED, "expected"),
        (Slots(OLD, confirmed=False), Phase.VERIFY, Verdict.POSTPONED, "on trial"),
        (Slots(OLD, confirmed=True, other=THIRD, pending=True), Phase.UPLOAD, Verdict.POSTPONED, "pending"),
        # nothing would undo it: never of our making
        (Slots(OLD, True, NEW, pending=True, permanent=True), Phase.TEST, Verdict.FAILED, "permanent"),
    ],
)
def test_where_somebody_else_is_at_work_nothing_is_done(
    slots: Slots, phase: Phase, verdict: Verdict, why: str
) -> None:
    found = flow.next_step(Row(DEVICE, NEW, phase, before=OLD), slots, 0)
    assert isinstance(found, End)
    assert found.verdict is verdict
    assert why in found.why


@pytest.mark.parametrize("act", [act for act in Act if act is not Act.CONFIRM])
def test_each_act_is_bounded(act: Act) -> None:
    times = MappingProxyType({act: flow.TIMES_MAX[act]})
    for phase, seen in itertools.product(Phase, Picture):
        step = flow.RESUME[phase][seen]
        if isinstance(step, Do) and step.act is act:
            found = flow.next_step(Row(DEVICE, NEW, phase, before=OLD, times=times), PICTURES[seen], 0)
            assert isinstance(found, End)
            assert found.verdict is Verdict.FAILED


@pytest.mark.parametrize("verdict", [Verdict.ROLLED_BACK, Verdict.REJECTED, Verdict.QUARANTINE])
def test_what_ended_badly_is_not_begun_again_unless_somebody_says_so(verdict: Verdict) -> None:
    row = Row(DEVICE, NEW, Phase.TRIAL, OLD, verdict=verdict)
    assert flow.opened(row, DEVICE, NEW, again=False) == row
    assert flow.opened(row, DEVICE, NEW, again=True).verdict is None


@pytest.mark.parametrize("verdict", [Verdict.QUARANTINE, Verdict.POSTPONED])
def test_what_ended_in_doubt_goes_on_where_it_stopped(verdict: Verdict) -> None:
    row = Row(DEVICE, NEW, Phase.RESET, OLD, verdict=verdict)
    found = flow.next_step(flow.opened(row, DEVICE, NEW, again=True), PICTURES[Picture.WAITING], 0)
    assert isinstance(found, End)
    assert found.verdict is Verdict.ROLLED_BACK


def kills() -> Iterator[tuple[Trouble, int]]:
    return itertools.product(tuple(Trouble)[1:], range(24))


@pytest.mark.parametrize("kind", list(Kind))
def test_trouble_at_any_call_leads_to_the_same_verdict(kind: Kind) -> None:
    expected = {
        Kind.GOOD: Verdict.DONE,
        Kind.UNWELL: Verdict.ROLLED_BACK,
        Kind.HANGS: Verdict.ROLLED_BACK,
        Kind.REJECTED: Verdict.REJECTED,
    }[kind]
    for trouble, at in kills():
        mcu, journal = ModelMcu(NEW, kind, iter([Trouble.NONE] * at + [trouble])), Kept()
        row = drive(mcu, journal)
        holds(mcu, row)
        power = trouble in POWER
        assert power or mcu.boots.count(NEW) <= 1, "it was tried twice"
        # who takes the power from a device on trial has it go back, be the image ever so good
        allowed = {expected, Verdict.ROLLED_BACK} if power and kind is Kind.GOOD else {expected}
        assert row.verdict in allowed, (trouble, at, row)


@given(kind=st.sampled_from(Kind), troubles=st.lists(st.sampled_from(Trouble), max_size=40))
def test_whatever_happens_a_bad_image_is_never_kept_and_never_tried_again(
    kind: Kind, troubles: list[Trouble]
) -> None:
    mcu, journal = ModelMcu(NEW, kind, iter(troubles)), Kept()
    row = drive(mcu, journal)
    assert POWER & set(troubles) or mcu.boots.count(NEW) <= 1, "it was tried twice"
    if row.verdict not in {Verdict.FAILED, Verdict.POSTPONED}:
        holds(mcu, row)
    if row.verdict in flow.FINAL:
        before = list(mcu.orders)
        assert drive(mcu, journal) == row
        assert mcu.orders == before, "the device was touched"


def test_without_a_journal_a_rolled_back_image_is_tried_again_and_again() -> None:
    mcu = ModelMcu(NEW, Kind.UNWELL, iter(()))
    for times in range(1, 4):
        assert drive(mcu, Forgets()).verdict is Verdict.ROLLED_BACK
        assert mcu.boots.count(NEW) == times
    mcu, journal = ModelMcu(NEW, Kind.UNWELL, iter(())), Kept()
    for _ in range(3):
        assert drive(mcu, journal).verdict is Verdict.ROLLED_BACK
        assert mcu.boots.count(NEW) == 1


async def test_at_a_bad_moment_it_is_postponed_and_goes_on_later() -> None:
    mcu, journal = ModelMcu(NEW, Kind.GOOD, iter(())), Kept()
    health = Health(mcu)
    health.busy = "a recording runs"
    row = await Updater(mcu, journal, health, pace=AT_ONCE).run(DEVICE, IMAGE)
    assert (row.verdict, row.why, mcu.orders) == (Verdict.POSTPONED, "a recording runs", ["slots"])
    health.busy = ""
    row = await Updater(mcu, journal, health, pace=AT_ONCE).run(DEVICE, IMAGE)
    assert row.verdict is Verdict.DONE
    assert journal.phases[-1] is Phase.CONFIRM


async def test_another_image_waits_until_the_one_on_trial_is_over() -> None:
    journal = Kept()
    journal.write(Row(DEVICE, THIRD, Phase.TRIAL, OLD))
    mcu = ModelMcu(NEW, Kind.GOOD, iter(()))
    row = await Updater(mcu, journal, Health(mcu), pace=AT_ONCE).run(DEVICE, IMAGE)
    assert row.verdict is Verdict.POSTPONED
    assert mcu.orders == []
    journal.write(Row(DEVICE, THIRD, Phase.UPLOAD, OLD))  # of this one the device knows nothing yet
    assert (await Updater(mcu, journal, Health(mcu), pace=AT_ONCE).run(DEVICE, IMAGE)).verdict is Verdict.DONE
    third = journal.find(DEVICE, THIRD)
    assert third is not None
    assert third.verdict is Verdict.FAILED


def test_the_journal_outlives_who_wrote_it(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    row = Row(DEVICE, NEW, Phase.TRIAL, OLD, "unwell", MappingProxyType({Act.TEST: 2}))
    journal = SqliteJournal(file)
    journal.write(Row(DEVICE, NEW))
    journal.write(row)
    journal.write(Row("another", NEW))
    other = SqliteJournal(file)
    assert other.find(DEVICE, NEW) == other.open_of(DEVICE) == row
    assert other.find(DEVICE, THIRD) is None
    journal.write(replace(row, verdict=Verdict.ROLLED_BACK, why="unwell"))
    assert other.open_of(DEVICE) is None
    found = other.find(DEVICE, NEW)
    assert found is not None
    assert found.verdict is Verdict.ROLLED_BACK
    journal.close()
    other.close()


def test_what_is_no_journal_of_ours_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    file.write_text("something else" * 100)
    with pytest.raises(JournalError, match="not a database"):
        SqliteJournal(file)
    assert file.read_text() == "something else" * 100
