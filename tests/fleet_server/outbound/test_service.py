"""Outbound over a real telemetry view and a real database: seen, recorded, told once, over restarts and failures."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, StreamState, Will, encode
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.outbound import looking
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.happenings import News
from fleet_server.outbound.looking import LookSettings
from fleet_server.outbound.memory import Changes
from fleet_server.outbound.outages import OutagePolicy
from fleet_server.outbound.service import Outbound
from fleet_server.outbound.store import Filter, Recorded
from fleet_server.outbound.watch import Told, WatchPolicy
from fleet_server.projection.labels import Labels
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.fleet import BOOT, CAR, LIFE, Arrival, Fleet, told
from tests.servers import wait_until

ALL: Final = Filter()
POLICY: Final = WatchPolicy(settle_ms=0, resume_ms=10**9, outages=OutagePolicy(gather_ms=0, gather_ms_max=0))


class AtStations:
    """Where devices are."""

    def labels(self, device: str, _at_ms: int) -> Labels:
        return Labels("host", f"hq/{device}")


class Failing(SqlOutbox):
    """Takes nothing while ``broken``; ``refused``: how often."""

    broken = False
    refused = 0

    def record(self, news: Sequence[News], changes: Changes, told: Mapping[str, Told], *, now_ms: int) -> Recorded:
        if self.broken:
            self.refused += 1
            raise StoreError("the disk is full")
        return super().record(news, changes, told, now_ms=now_ms)


class Site:
    """A fleet, a database, and outbound over them, as often as it is started."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        database.migrate(engine)
        self.fleet = told(directory / "store.db")
        self.outbox = Failing(engine)
        self.feed = SqlFeed(engine)

    @contextmanager
    def running(self) -> Iterator[Outbound]:
        settings = LookSettings(quarantine_bytes_max=1_000_000, watch=POLICY, pause_s=0.01, pass_s_min=0.01)
        outbound = Outbound(
            self.fleet.view,
            AtStations(),
            self.outbox,
            dict,
            settings,
            bell=Bell(),
            now_ms=lambda: self.fleet.now_ms,
            rng=random.Random(1),
        )
        outbound.start()
        try:
            yield outbound
        finally:
            begun = time.monotonic()
            outbound.stop()
            assert time.monotonic() - begun < 5, "it does not stop"

    def told(self) -> list[tuple[str, str, str]]:
        found = [each.news for each in self.feed.after(0, ALL, rows_max=10_000).happenings]
        return [(each.kind.value, each.device, each.org) for each in found]

    def until(self, expected: list[tuple[str, str, str]]) -> None:
        wait_until(lambda: len(self.told()) >= len(expected), f"{expected}, got {self.told()}")
        assert self.told() == expected

    def remembered(self, count: int) -> None:
        wait_until(lambda: sum(1 for row in self.outbox.remembered() if row[0] == "device") == count, "remembered")

    def goes(self, device: DeviceId = CAR, epoch: str = "0" * 16) -> None:
        will = Will(1, epoch, "lost")
        self.fleet.arrive(Arrival(topics.up(device, topics.Up.STATUS), encode(will)), at_ms=self.fleet.now_ms)
        self.fleet.now_ms += 10_000

    def comes(self, device: DeviceId = CAR, *, epoch: str = "1" * 16, first: int = 1) -> None:
        streams = (StreamState("cpu", LIFE, first, 9, every_ms=1_000),)
        born = Birth(1, epoch, BOOT, 1000, 30, "0.1.0", "host", "host", 0, 5000, streams)
        self.fleet.arrive(Arrival(topics.up(device, topics.Up.STATUS), encode(born)), at_ms=self.fleet.now_ms)


@pytest.fixture
def site(tmp_path: Path, engine: Engine) -> Iterator[Site]:
    site = Site(tmp_path, engine)
    yield site
    site.fleet.store.close()


WENT: Final = ("device.disconnected", "car-7", "hq/car-7")
CAME: Final = ("device.connected", "car-7", "hq/car-7")


def test_what_was_there_before_is_remembered_and_what_follows_is_told(site: Site) -> None:
    with site.running():
        site.remembered(2)
        assert site.told() == []
        site.goes()
        site.until([WENT])
        site.comes()
        site.until([WENT, CAME])


def test_a_restart_tells_only_what_changed_meanwhile(site: Site) -> None:
    with site.running():
        site.remembered(2)
        site.goes()
        site.until([WENT])
    for _ in range(3):
        with site.running():
            pass
    assert site.told() == [WENT]
    site.comes()  # while nobody looked
    with site.running():
        site.until([WENT, CAME])


def test_while_the_broker_is_away_that_is_all_that_is_told(site: Site) -> None:
    with site.running():
        site.remembered(2)
        site.fleet.connected = False
        _round(site.fleet)
        site.goes()
        site.fleet.now_ms += 200_000  # and every keep-alive runs out
        site.until([("broker.lost", "", "")])
        site.fleet.connected = True
        site.comes()
        site.until([("broker.lost", "", ""), ("broker.back", "", "")])


def test_what_cannot_be_recorded_is_told_once_the_database_is_back(site: Site) -> None:
    with site.running():
        site.remembered(2)
        site.outbox.broken = True
        site.goes()
        wait_until(lambda: site.outbox.refused > 0, "refused")
        assert site.told() == []
        site.outbox.broken = False
        site.until([WENT])


def test_a_gap_of_what_was_receipted_is_an_alarm_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "GAP_LOOK_MS", 1_000)
    with site.running():
        site.remembered(2)
        site.fleet.now_ms += 2_000
        # the first look at gaps tells of none
        wait_until(lambda: ("baseline", "gaps", "") in site.outbox.remembered(), "looked at")
        site.comes(epoch="0" * 16, first=10)  # 3 and 5 to 8 were receipted, says the device, and are not there
        site.fleet.now_ms += 2_000
        site.until([("gap.lost", "car-7", "hq/car-7")])
        for _ in range(3):
            site.fleet.now_ms += 2_000
            _round(site.fleet)
    assert site.told() == [("gap.lost", "car-7", "hq/car-7")]
    (told_,) = site.feed.after(0, ALL, rows_max=9).happenings
    assert (told_.news.data["count"], told_.news.data["first_seq"]) == (2, 3)
    with site.running():
        site.fleet.now_ms += 2_000
        _round(site.fleet)
    assert len(site.told()) == 1


def _round(fleet: Fleet) -> None:
    """Until the fleet was asked again from the beginning, twice."""
    asked = 0
    names = fleet.view.names

    def counted() -> list[str]:
        nonlocal asked
        asked += 1
        return names()

    fleet.view.names = counted  # type: ignore[method-assign]
    wait_until(lambda: asked >= 3, "asked")
    fleet.view.names = names  # type: ignore[method-assign]


def test_a_mistake_of_ours_ends_one_run_and_not_the_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet_server.outbound.service.AGAIN_S", 0.05)
    failures = [RuntimeError("a mistake"), StoreError("no database yet")]
    remembered = site.outbox.remembered

    def fails_first() -> list[tuple[str, str, str]]:
        if failures:
            raise failures.pop()
        return remembered()

    monkeypatch.setattr(site.outbox, "remembered", fails_first)
    with site.running():
        wait_until(lambda: not failures, "failed")
        monkeypatch.setattr(site.outbox, "remembered", remembered)
        site.remembered(2)
        site.goes()
        site.until([WENT])
