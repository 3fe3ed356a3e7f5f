import pytest

from firmware_bridge import ntcip
from firmware_bridge.ntcip import Layout, Oid
from firmware_bridge.readings import Failed

ASC = (1, 3, 6, 1, 4, 1, 1206, 4, 2, 1)
LAYOUT = Layout(phase_groups=2, detectors=(1, 2))
WELL: dict[Oid, int | Failed] = {ntcip.FLASH_STATUS: 2, ntcip.ALARM_STATUS_1: 0}
LACKS = Failed("the agent has no such object")


def read(points: dict[Oid, int | Failed], point: str, layout: Layout = LAYOUT) -> float | str:
    found = ntcip.value(point, layout, points)
    return found.why if isinstance(found, Failed) else found


@pytest.mark.parametrize(
    ("flash", "control", "pattern", "mode", "plan"),
    [
        (2, 2, 3, 2, 3),
        (2, 2, 253, 2, 253),
        (2, 2, 254, 3, 0),  # free
        (2, 2, 0, 3, 0),
        (2, 2, 255, 1, 0),  # automatic flash
        (2, 5, 3, 4, 3),  # by hand
        (6, 5, 3, 1, 3),  # the monitor's flash comes first
        (3, 2, 3, 1, 3),
    ],
)
def test_mode_and_plan(flash: int, control: int, pattern: int, mode: float, plan: float) -> None:
    known: dict[Oid, int | Failed] = {
        ntcip.FLASH_STATUS: flash,
        ntcip.CONTROL_STATUS: control,
        ntcip.PATTERN_STATUS: pattern,
    }
    assert (read(known, "mode"), read(known, "plan")) == (mode, plan)


def test_phases_of_both_groups_are_one_number_and_the_lowest_green_one_is_told() -> None:
    greens = (*ASC, 1, 4, 1, 4)
    assert read({(*greens, 1): 0b0100_0100, (*greens, 2): 1}, "greens") == 0b1_0100_0100
    assert read({(*greens, 1): 0b0100_0100, (*greens, 2): 1}, "phase") == 3
    assert read({(*greens, 1): 0, (*greens, 2): 0b1000_0000}, "phase") == 16
    assert read({(*greens, 1): 0, (*greens, 2): 0}, "phase") == 0
    assert read({(*greens, 1): 1, (*greens, 2): LACKS}, "phase") == LACKS.why
    assert (
        read({(*greens, 1): 256, (*greens, 2): 0}, "phase")
        == "1.3.6.1.4.1.1206.4.2.1.1.4.1.4.1: expected 0 to 255, got 256"
    )


def test_cycle_and_offset_are_asked_for_once_it_is_known_which_pattern_runs() -> None:
    cycle, offset = (*ASC, 4, 7, 1, 2, 3), (*ASC, 4, 7, 1, 3, 3)
    assert ntcip.needs(("cycle_s", "offset_s"), LAYOUT, {}) == (ntcip.PATTERN_STATUS,)
    known: dict[Oid, int | Failed] = {ntcip.PATTERN_STATUS: 3}
    assert ntcip.needs(("cycle_s", "offset_s"), LAYOUT, known) == (cycle, offset)
    known |= {cycle: 90, offset: 17}
    assert ntcip.needs(("cycle_s", "offset_s"), LAYOUT, known) == ()
    assert (read(known, "cycle_s"), read(known, "offset_s")) == (90, 17)


@pytest.mark.parametrize("pattern", [0, 254, 255])
def test_without_a_pattern_there_is_no_cycle(pattern: int) -> None:
    known: dict[Oid, int | Failed] = {ntcip.PATTERN_STATUS: pattern}
    assert ntcip.needs(("cycle_s",), LAYOUT, known) == ()
    assert read(known, "cycle_s") == 0


def test_detectors_are_summed_up_and_one_at_fault_has_no_part_in_the_mean() -> None:
    volume, occupancy = (*ASC, 2, 5, 4, 1, 1), (*ASC, 2, 5, 4, 1, 2)
    known: dict[Oid, int | Failed] = {
        ntcip.VOLUME_PERIOD_S: 60,
        (*volume, 1): 9,
        (*volume, 2): 6,
        (*occupancy, 1): 41,
        (*occupancy, 2): 210,  # a code of a fault
    }
    assert read(known, "volume_vph") == 900
    assert read(known, "occupancy_pct") == 20.5
    assert read(known | {(*occupancy, 1): 255}, "occupancy_pct") == "no detector without a fault among 2"
    assert read(known | {ntcip.VOLUME_PERIOD_S: 0}, "volume_vph") == "the controller counts over no period"
    for point in ("volume_vph", "occupancy_pct"):
        assert read(known, point, Layout(1, ())) == "no detectors are named in the options"


@pytest.mark.parametrize(
    ("flash", "alarms", "ok"),
    [(2, 0, 1), (2, 0b1110_1111, 1), (2, 0b0001_0000, 0), (5, 0, 0), (6, 0, 0), (3, 0, 1), (4, 0, 1), (8, 0, 1)],
)
def test_what_is_a_conflict(flash: int, alarms: int, ok: float) -> None:
    known: dict[Oid, int | Failed] = {ntcip.FLASH_STATUS: flash, ntcip.ALARM_STATUS_1: alarms}
    assert read(known, "conflict_ok") == ok


@pytest.mark.parametrize(
    ("setting", "value", "guard", "why"),
    [
        ("plan", 2, WELL, None),
        ("plan", 2, None, None),
        ("plan", 4, WELL, "expected one of 1, 2, 255, got 4"),
        ("plan", 256, WELL, "expected a whole number from 0 to 255, got 256"),
        ("plan", -1, WELL, "expected a whole number from 0 to 255, got -1"),
        ("plan", 1.5, WELL, "expected a whole number from 0 to 255, got 1.5"),
        ("time_s", 1, WELL, "not on the list of what may be written: plan"),
        ("hold", 1, WELL, "not on the list of what may be written: plan"),
        ("plan", 2, WELL | {ntcip.FLASH_STATUS: 6}, "the conflict monitor holds the crossing in flash"),
        ("plan", 255, WELL | {ntcip.ALARM_STATUS_1: 16}, "the conflict monitor holds the crossing in flash"),
        ("plan", 2, WELL | {ntcip.FLASH_STATUS: LACKS}, f"the conflict monitor cannot be read: {LACKS.why}"),
        ("plan", 2, {}, "the conflict monitor cannot be read: 1.3.6.1.4.1.1206.4.2.1.3.6.0: not asked"),
        ("plan", 2, WELL | {ntcip.FLASH_STATUS: 999}, "the conflict monitor cannot be read: "),
    ],
)
def test_what_may_be_written(
    setting: str, value: float, guard: dict[Oid, int | Failed] | None, why: str | None
) -> None:
    told = ntcip.why_not_write(setting, value, {"plan": (1, 2, 255)}, guard)
    assert told == why or (why is not None and told is not None and told.startswith(why) and why.endswith(": "))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_never_written(value: float) -> None:
    assert ntcip.why_not_write("plan", value, {"plan": ()}, WELL) is not None


def test_a_point_that_nobody_knows_is_said_to_be_one() -> None:
    assert str(read({}, "colour")).startswith("expected one of plan, ")
