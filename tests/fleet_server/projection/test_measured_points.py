"""What the server measures is a point each, dropped and counted while nobody takes it."""

from pathlib import Path

import pytest

from broker_config.ids import DeviceId
from fleet_server.projection.feed import LeftOutReason
from fleet_server.projection.labels import Labels
from fleet_server.projection.points import Lines, UnspeakableError, measured
from fleet_server.projection.view import SinkState
from fleet_server.registry.keeper import PromptLabels
from fleet_server.standing.held import Held
from fleet_server.standing.measures import COVERAGE, ROLLOUTS, UPLOADS
from fleet_server.standing.sample import Sample
from tests.fleet_server.fleet import CAR, NOW, ROOM, Fleet, birth, presence_of, told
from tests.fleet_server.projection.far_server import FarServer, Mode, far_server
from tests.fleet_server.projection.rig import SINK, projector, to


def fleet(path: Path) -> Fleet:
    """A car of class host, with holes in its numbers; a room that never said what it is."""
    made = told(path)
    made.store.feed.add_sink(SINK)
    return made


def test_a_line_has_the_tags_of_what_it_is_of() -> None:
    of_device = Sample(UPLOADS, 7, (1.0, None, 0.5, 3e10), "cam-1", "body_camera", "hq/post 1")
    of_node = Sample(COVERAGE, 7, (4.0, 3.0, 9.0, 0.0), org="hq")
    of_site = Sample(ROLLOUTS, 7, (1.0, 0.0, None, None, None, None))
    assert measured(of_device).data == (
        b"uploads,device=cam-1,device_class=body_camera,org=hq/post\\ 1 files=1.0,goodput=0.5,finish_s=30000000000.0 "
        b"7000000"
    )
    assert measured(of_node).data == b"coverage,org=hq officers=4.0,covered=3.0,cameras=9.0,spare=0.0 7000000"
    assert measured(of_site).data == b"rollouts under_way=1.0,paused=0.0 7000000"


def test_what_is_not_known_is_no_point_and_what_cannot_be_said_is_an_error() -> None:
    assert measured(Sample(ROLLOUTS, 7, (None,) * 6)) == Lines(b"", 0)
    with pytest.raises(UnspeakableError):
        measured(Sample(COVERAGE, 7, (1.0,) * 4, org="a\nb"))


def test_labels_are_the_registrys_which_hears_of_a_device_before_its_first_point(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    labels = PromptLabels(made.registry, made.keeper)
    made.arrive(birth(DeviceId("car-8")), looking=False)
    assert not made.registry.knows("car-8")
    assert labels.labels("car-8", NOW) == labels.labels(CAR, NOW) == Labels("host", "unassigned")
    assert labels.labels(ROOM, NOW) == labels.labels("stranger", NOW) == Labels("unknown", "unassigned")


async def test_what_is_measured_is_written_and_what_is_measured_next(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    held = presence_of(made)
    async with far_server(FarServer()) as far:
        one = projector(made.store.feed, to(far.url), standing=held, now_ms=NOW)
        await one.drain()
        written = [name for name in far.points if name.measurement == "presence"]
        assert {dict(name.tags)["device"] for name in written} == {CAR, ROOM}
        assert {name.time_ns for name in written} == {NOW * 10**6}
        made.now_ms += 30_000
        presence_of(made, held)
        await one.drain()
        times = [name.time_ns for name in far.points if name.measurement == "presence"]
        assert sorted(times) == [NOW * 10**6] * 2 + [(NOW + 30_000) * 10**6] * 2


async def test_what_is_measured_is_dropped_and_counted_while_the_sink_does_not_take_it(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    held = presence_of(made)
    presence_of(made, held)  # nobody asked for the first two in time
    async with far_server(FarServer()) as far:
        one = projector(made.store.feed, to(far.url), standing=held, now_ms=NOW)
        far.then([Mode.UNAVAILABLE])
        await one.drain()
        assert one.status().state is SinkState.OK  # by then: the first round's readings came after
        assert one.status().points_left_out[LeftOutReason.NOT_ANSWERING] == 4


@pytest.mark.parametrize(("mode", "state"), [(Mode.UNAUTHORIZED, SinkState.REFUSED), (Mode.RESET, SinkState.WAITING)])
async def test_measures_alone_tell_that_the_sink_is_away(tmp_path: Path, mode: Mode, state: SinkState) -> None:
    made = fleet(tmp_path / "s.db")
    async with far_server(FarServer()) as far:
        await projector(made.store.feed, to(far.url), now_ms=NOW).drain()
        made.store.feed.settle(
            SINK, up_to=made.store.feed.commits(SINK, records_max=1, now_ms=NOW).after, before_ms=NOW
        )
        far.always = mode
        one = projector(made.store.feed, to(far.url), standing=presence_of(made), now_ms=NOW)
        await one.drain()
        assert one.status().state is state
        assert one.status().points_left_out[LeftOutReason.NOT_ANSWERING] == 2


async def test_a_device_whose_point_is_refused_costs_the_others_nothing(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    async with far_server(FarServer(poison=f"presence,device={CAR}")) as far:
        one = projector(made.store.feed, to(far.url), standing=presence_of(made), now_ms=NOW)
        await one.drain()
        written = [name for name in far.points if name.measurement == "presence"]
        assert [dict(name.tags)["device"] for name in written] == [ROOM]
        assert one.status().points_refused == 1


async def test_what_cannot_be_said_is_left_out_and_counted(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    held = Held()
    held.put([Sample(COVERAGE, NOW, (1.0,) * 4, org="a\nb"), Sample(COVERAGE, NOW, (1.0,) * 4, org="hq")])
    async with far_server(FarServer()) as far:
        one = projector(made.store.feed, to(far.url), standing=held, now_ms=NOW)
        await one.drain()
        assert [name.tags for name in far.points if name.measurement == "coverage"] == [(("org", "hq"),)]
        assert one.status().points_left_out[LeftOutReason.UNSPEAKABLE] == 1
