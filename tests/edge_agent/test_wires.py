import pytest

from edge_agent import wires
from edge_agent.profile import Wire
from firmware_bridge.driver import Nothing
from firmware_bridge.readings import Failed, Quality, Reading, Result

WIRE = Wire("cpu", "host.cpu", ("a", "b"), ("a", "b"), 10.0, 5.0, optional=False, options=Nothing())


def good(value: float, quality: Quality = Quality.GOOD) -> Reading:
    return Reading(value, quality, None, 0)


@pytest.mark.parametrize(
    ("results", "row"),
    [
        ({"a": good(1.0), "b": good(2.0)}, ([1.0, 2.0], "")),
        ({"a": good(1.0), "b": Failed("cable")}, ([1.0, None], "b: cable")),
        ({"a": Failed("x"), "b": Failed("y")}, ([None, None], "a: x")),
        ({"a": good(1.0)}, ([1.0, None], "b: the driver did not say")),
        ({"a": good(1.0, Quality.STALE), "b": good(2.0, Quality.BAD)}, ([1.0, None], "")),
        ({"a": good(1.0, Quality.STALE), "b": good(2.0)}, ([1.0, 2.0], "")),  # somebody is there to tell
        ({"a": good(1.0, Quality.STALE), "b": good(2.0, Quality.STALE)}, ([1.0, 2.0], "a: stale, as all of it")),
        ({"b": good(2.0), "c": good(3.0), "a": good(1.0)}, ([1.0, 2.0], "")),
    ],
)
def test_a_row_has_what_was_read_and_nothing_else(
    results: dict[str, Result], row: tuple[list[float | None], str]
) -> None:
    assert wires.row(WIRE, results) == row


@pytest.mark.parametrize(
    ("took_s", "after_s"),
    [
        (0.0, 0.5),  # a port that is not there costs nobody anything
        (1.0, 9.0),  # a silent unit has a tenth of a line that others share
    ],
)
def test_what_failed_is_asked_again_as_soon_as_nobody_else_pays_for_it(took_s: float, after_s: float) -> None:
    assert wires.again_after_s(took_s) == after_s


WRONG = "a: quarantined: expected model box, got can"


@pytest.mark.parametrize(
    ("why", "before", "told"),
    [
        ("", "", False),
        ("a: silent", "", True),
        ("a: gone", "a: silent", False),
        (WRONG, "a: gone", True),  # who was plugged in is another one: that waits for an operator
        (WRONG, WRONG, False),
        ("", WRONG, False),
    ],
)
def test_a_fault_is_told_once_and_another_instrument_whatever_was_wrong_before(
    why: str, before: str, told: bool
) -> None:
    assert wires.is_news(why, before) is told


@pytest.mark.parametrize(
    ("at", "passed", "after"),
    [
        (0, 0.01, 1),
        (3, 3.9, 4),
        (3, 4.0, 4),  # just in time for the next
        (3, 7.2, 8),  # so late that three were missed
        (3, 2.999, 4),  # the timer came a hair early
    ],
)
def test_a_late_reading_keeps_the_grid(at: int, passed: float, after: int) -> None:
    assert wires.next_at(at, passed) == after
