"""No more series than the budget: those that are there go on, new ones are left out, told of and counted."""

from pathlib import Path

from fleet_server.projection.feed import LeftOutReason
from fleet_server.projection.series import SeriesBudget
from fleet_server.standing.held import Held
from fleet_server.standing.measures import COVERAGE
from fleet_server.standing.sample import Sample
from tests.fleet_server.projection.far_server import FarServer, far_server
from tests.fleet_server.projection.rig import expected, filled_store, projector, sealed_wholly, to
from tests.fleet_server.store.fleet import LATE_MS, START_MS, batch, group


def test_what_was_admitted_goes_on_and_one_more_does_not_begin() -> None:
    budget = SeriesBudget(2)
    assert [budget.admits("power", device) for device in ("a", "b", "c", "a", "b", "c")] == [
        True, True, False, True, True, False,
    ]  # fmt: skip
    assert budget.series == 2


async def test_a_new_series_beyond_the_budget_is_left_out_and_old_ones_go_on(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    old = [("car-1", batch(1, START_MS)), ("car-2", batch(1, START_MS))]
    store.commit(group(old), token=token)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), series_max=2)
        await one.drain()
        more = [("car-1", batch(2, START_MS + 1_000)), ("car-3", batch(1, START_MS, dt=(0, 1)))]
        store.commit(group(more), token=token)
        await one.drain()
        assert far.points == expected([*old, more[0]])
        status = one.status()
        assert (status.series, status.series_max) == (2, 2)
        assert status.points_left_out[LeftOutReason.SERIES] >= 2
        assert "2 series" in status.last_error
        assert status.behind_commits == 0


async def test_after_a_restart_what_is_in_columns_has_its_place_first(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    old = [("car-1", batch(1, START_MS)), ("car-2", batch(1, START_MS))]
    store.commit(group(old), token=token)
    async with far_server(FarServer()) as far:
        await projector(store.feed, to(far.url), series_max=2).drain()
        sealed_wholly(store, 2 * LATE_MS)
        again = [("car-3", batch(1, START_MS)), ("car-2", batch(2, START_MS + 1_000))]
        store.commit(group(again), token=token)
        await projector(store.feed, to(far.url), series_max=2).drain()
        assert far.points == expected([*old, again[1]])


async def test_measures_have_series_too(tmp_path: Path) -> None:
    store, _ = filled_store(tmp_path / "s.db")
    held = Held()
    held.put([Sample(COVERAGE, LATE_MS, (1.0,) * 4, org=org) for org in ("hq", "hq/one", "hq/two")])
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), standing=held, series_max=2)
        await one.drain()
        assert len(far.points) == 2
        assert one.status().points_left_out[LeftOutReason.SERIES] == 1
