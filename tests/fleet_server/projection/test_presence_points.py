"""What the server knows of each device is a point each, dropped and counted while nobody takes it."""

from pathlib import Path

import pytest

from broker_config.ids import DeviceId
from fleet_server.metrics import PRESENCE_FIELDS
from fleet_server.projection import presence
from fleet_server.projection.feed import LeftOutReason
from fleet_server.projection.labels import Labels
from fleet_server.projection.view import SinkState
from fleet_server.registry.keeper import PromptLabels
from fleet_server.telemetry.view import Gap, GapReason
from tests.fleet_server.fleet import CAR, NOW, ROOM, Fleet, birth, told
from tests.fleet_server.projection.far_server import FarServer, Mode, far_server
from tests.fleet_server.projection.rig import SINK, projector, to


def fleet(path: Path) -> Fleet:
    """A car of class host, with holes in its numbers; a room that never said what it is."""
    made = told(path)
    made.store.feed.add_sink(SINK)
    return made


def gap(device: str, reason: GapReason) -> Gap:
    return Gap(device, "power", "a" * 16, reason, 1, 1, None, None, open=False, detail="")


def test_gaps_are_counted_by_device_and_only_those_that_alarm() -> None:
    gaps = [
        gap("a", GapReason.LOST),
        gap("a", GapReason.UNEXPLAINED),
        gap("a", GapReason.LOST),
        gap("b", GapReason.OFF),
    ]
    assert presence.gap_counts(gaps) == {"a": presence.GapCounts(unexplained=1, lost=2)}


def test_every_field_of_the_table_is_told(tmp_path: Path) -> None:
    view = fleet(tmp_path / "s.db").view
    counts = {str(CAR): presence.GapCounts(2, 1)}
    car, room = presence.readings(view.devices(), counts, NOW)
    assert car.fields == tuple(field.name for field in PRESENCE_FIELDS)
    values = dict(zip(car.fields, car.rows[0], strict=True))
    assert car.device == CAR
    assert [values[name] for name in ("connected", "held", "missing", "quarantined")] == [1.0, 4.0, 5.0, 1.0]
    assert (values["gaps_unexplained"], values["gaps_lost"]) == (2.0, 1.0)
    assert (room.device, dict(zip(room.fields, room.rows[0], strict=True))["connected"]) == (ROOM, 0.0)


def test_labels_are_the_registrys_which_hears_of_a_device_before_its_first_point(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    labels = PromptLabels(made.registry, made.keeper)
    made.arrive(birth(DeviceId("car-8")), looking=False)
    assert not made.registry.knows("car-8")
    assert labels.labels("car-8", NOW) == labels.labels(CAR, NOW) == Labels("host", "unassigned")
    assert labels.labels(ROOM, NOW) == labels.labels("stranger", NOW) == Labels("unknown", "unassigned")


def test_moments_are_due_at_a_cadence_and_what_is_missed_is_not_made_up() -> None:
    moments = presence.Moments(30)
    assert [moments.due(at_s) for at_s in (100, 101, 129.9, 130, 131)] == [0, None, None, 0, None]
    assert [moments.due(at_s) for at_s in (295, 309.9, 310)] == [4, None, 0]
    assert presence.Moments(0).due(5) is None


async def test_presence_is_written_and_dropped_while_the_sink_does_not_take_it(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    async with far_server(FarServer()) as far:
        one = projector(made.store.feed, to(far.url), view=made.view, presence_every_s=1e-9, now_ms=NOW)
        far.then([Mode.UNAVAILABLE])
        await one.drain()
        assert one.status().state is SinkState.OK  # by then: the first round's readings came after
        assert one.status().points_left_out[LeftOutReason.NOT_ANSWERING] >= 2
        written = [name for name in far.points if name.measurement == "presence"]
        assert {dict(name.tags)["device"] for name in written} == {CAR, ROOM}
        assert {name.time_ns % 10**6 for name in written} == {0}


@pytest.mark.parametrize(("mode", "state"), [(Mode.UNAUTHORIZED, SinkState.REFUSED), (Mode.RESET, SinkState.WAITING)])
async def test_presence_alone_tells_that_the_sink_is_away(tmp_path: Path, mode: Mode, state: SinkState) -> None:
    made = fleet(tmp_path / "s.db")
    async with far_server(FarServer()) as far:
        await projector(made.store.feed, to(far.url), now_ms=NOW).drain()
        made.store.feed.settle(
            SINK, up_to=made.store.feed.commits(SINK, records_max=1, now_ms=NOW).after, before_ms=NOW
        )
        far.always = mode
        one = projector(made.store.feed, to(far.url), view=made.view, presence_every_s=3_600, now_ms=NOW)
        await one.drain()
        assert one.status().state is state
        assert one.status().points_left_out[LeftOutReason.NOT_ANSWERING] == 2


async def test_a_device_whose_point_is_refused_costs_the_others_nothing(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    async with far_server(FarServer(poison=f"presence,device={CAR}")) as far:
        one = projector(made.store.feed, to(far.url), view=made.view, presence_every_s=3_600, now_ms=NOW)
        await one.drain()
        written = [name for name in far.points if name.measurement == "presence"]
        assert [dict(name.tags)["device"] for name in written] == [ROOM]
        assert one.status().points_refused == 1
