"""What is overdue is told once of each recording: over restarts, and again only when there is more."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event as Flag
from typing import Any, Final

import pytest

from broker_config.ids import DeviceId
from broker_config.telemetry import Event
from fleet_server.adapters.sql.overdue import SqlOverdue
from fleet_server.evidence import overdue
from fleet_server.evidence.overdue import FORGET_MS, TOLD_MAX, OverdueLooker
from fleet_server.evidence.reconciling import Books
from fleet_server.outbound import happenings
from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.store import Filter
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.evidence.arrivals import DAY_MS, T0, segment
from tests.fleet_server.fleet import journal, record, told

CAMERA: Final = DeviceId("cam-7")
LATER: Final = T0 + 2 * DAY_MS


class Desk:
    """A camera whose journal tells of r-1 and r-2; ``now_ms`` may be set, ``rung`` counts who was woken."""

    def __init__(self, path: Path) -> None:
        self.fleet = told(path / "store.db")
        self.now_ms, self.rung = LATER, 0
        registry = self.fleet.registry
        registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=T0)
        said = Registration(CAMERA, "body_camera", node="hq")
        registry.register(said, expected=None, create=True, now_ms=T0)
        self.opened(1, "r-1", "r-2")

    def opened(self, seq: int, *names: str) -> None:
        events = [Event("recording.opened", {"recording": name, "file_class": "recordings"}) for name in names]
        self.fleet.arrive(record(CAMERA, journal(seq, t0=T0, events=events)))

    def ring(self) -> None:
        self.rung += 1

    def look(self, outbox: Any = None) -> None:
        """As a server does that has just been started."""
        told_ = SqlOverdue(outbox or self.fleet.outbox, now_ms=lambda: self.now_ms, told=self.ring)
        books = Books(self.fleet.view, self.fleet.custody.pieces, self.fleet.assignments)
        looker = OverdueLooker(books, self.fleet.registry, told_, now_ms=lambda: self.now_ms)
        looker.look(Flag(), pause_s=0)

    def told(self) -> list[News]:
        found = self.fleet.ports.feed.before(None, Filter(), rows_max=100)
        return [each.news for each in reversed(found) if each.news.kind is Kind.EVIDENCE_OVERDUE]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.fleet.store.close()


def test_what_is_not_here_a_day_later_is_told_once_of_a_device(desk: Desk) -> None:
    desk.now_ms = T0 + DAY_MS
    desk.look()
    assert desk.told() == []
    desk.now_ms = LATER
    desk.look()
    (news,) = desk.told()
    assert (news.device, news.org, news.data["count"], news.data["recordings"]) == (CAMERA, "hq", 2, ("r-1", "r-2"))
    assert happenings.text(news) == "cam-7: 2 recordings not here a day later: r-1, r-2"
    desk.look()
    assert len(desk.told()) == 1
    assert desk.rung == 1


def test_only_what_is_newly_overdue_is_told_again(desk: Desk) -> None:
    desk.look()
    desk.opened(2, "r-3")
    desk.look()
    assert [each.data["recordings"] for each in desk.told()] == [("r-1", "r-2"), ("r-3",)]
    assert desk.told()[-1].data["overdue"] == 3


def test_what_has_come_is_not_told(desk: Desk) -> None:
    desk.fleet.custody.entered(segment=segment("r-1", 1, last=True))
    desk.look()
    assert [each.data["recordings"] for each in desk.told()] == [("r-2",)]


def test_what_cannot_be_recorded_was_not_told(desk: Desk) -> None:
    class Down:
        def remembered(self) -> list[tuple[str, str, str]]:
            return []

        def record(self, *_arguments: object, **_named: object) -> None:
            raise StoreError("down")

    with pytest.raises(StoreError):
        desk.look(Down())
    assert desk.rung == 0
    desk.look()
    assert len(desk.told()) == 1


def test_what_was_told_long_ago_is_forgotten_and_so_is_what_is_too_much() -> None:
    now_ms = LATER
    told_ = {"old": now_ms - FORGET_MS - 1, "young": now_ms - FORGET_MS}
    assert overdue.forgotten(told_, now_ms) == ["old"]
    many = {f"{at}": now_ms - TOLD_MAX + at for at in range(TOLD_MAX + 2)}
    assert overdue.forgotten(many, now_ms) == ["0", "1"]


def test_no_officer_is_in_what_is_told(desk: Desk) -> None:
    desk.fleet.custody.entered(holder="4711", segment=segment("r-2", 1))
    desk.look()
    assert "4711" not in str(desk.told())
    assert len(desk.told()) == 1
