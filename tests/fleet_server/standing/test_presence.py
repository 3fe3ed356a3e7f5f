"""Presence of each device is measured from what telemetry knows, and its gaps are counted by their reason."""

from pathlib import Path

from fleet_server.projection.labels import Labels
from fleet_server.standing import presence
from fleet_server.standing.measures import PRESENCE
from fleet_server.telemetry.view import Gap, GapReason
from tests.fleet_server.fleet import CAR, NOW, ROOM, presence_of, told


def gap(device: str, reason: GapReason, *, lasts: bool = False) -> Gap:
    return Gap(device, "power", "a" * 16, reason, 1, 1, None, None, open=lasts, detail="")


def test_gaps_are_counted_by_device_and_those_that_alarm_by_themselves() -> None:
    gaps = [
        gap("a", GapReason.LOST),
        gap("a", GapReason.UNEXPLAINED),
        gap("a", GapReason.LOST),
        gap("a", GapReason.QUARANTINED),
        gap("b", GapReason.OFF),
        gap("b", GapReason.EVICTED),
        gap("b", GapReason.WAITING, lasts=True),
        gap("b", GapReason.UNEXPLAINED, lasts=True),  # it may still say why
        gap("c", GapReason.UNEXPLAINED, lasts=True),
    ]
    assert presence.gap_counts(gaps) == {
        "a": presence.GapCounts(unexplained=1, explained=1, lost=2),
        "b": presence.GapCounts(explained=3),
    }


def test_every_field_of_the_table_is_told(tmp_path: Path) -> None:
    view = told(tmp_path / "s.db").view
    car, room = view.devices()
    sample = presence.sample(car, presence.GapCounts(2, 3, 1), Labels("host", "hq"), NOW)
    values = dict(zip(PRESENCE.names, sample.values, strict=True))
    assert (sample.device, sample.device_class, sample.org) == (CAR, "host", "hq")
    assert [values[name] for name in ("connected", "held", "missing", "quarantined")] == [1.0, 4.0, 5.0, 1.0]
    assert (values["gaps_unexplained"], values["gaps_explained"], values["gaps_lost"]) == (2.0, 3.0, 1.0)
    assert presence.sample(room, presence.NO_GAPS, Labels("unknown", "hq"), NOW).value("connected") == 0.0


def test_a_look_finds_every_device_and_its_gaps(tmp_path: Path) -> None:
    car, room = presence_of(told(tmp_path / "s.db")).samples(NOW)
    assert (car.device, room.device) == (CAR, ROOM)
    # record 3 and what is between 4 and 9 wait in its spool, and 9 is in quarantine
    assert [car.value(f"gaps_{reason}") for reason in ("explained", "unexplained", "lost")] == [3.0, 0.0, 0.0]
