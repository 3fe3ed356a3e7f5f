"""The benchmark of a month asks every dashboard, of what is raw and of the tier, and is answered."""

import pytest

from tests.benchmarks.month import Size, boards, run, tables

pytestmark = pytest.mark.server("influxd")


def test_every_dashboard_is_asked_over_hours_and_over_days_and_answered() -> None:
    told: list[str] = []
    took, points = run(Size(devices=60, days=2, hours=0.2, every_min=60), rounds=1, told=told.append)
    assert {each.dashboard for each in took} == set(boards())
    answered = {(each.dashboard, each.over) for each in took if each.rows}
    assert answered == {(board, over) for board in boards() for over in ("raw", "days")}
    assert min(points.values()) > 1_000
    assert len(list(tables(took))) == 2
