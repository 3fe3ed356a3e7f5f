"""The engine tells what opened and what cleared once each, over failures of the database and restarts, on either."""

from typing import Final

import pytest
from sqlalchemy import Engine

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.alerts import SqlAlerts
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.alerting.engine import Alerts, Settings
from fleet_server.alerting.rules import RULE
from fleet_server.outbound.happenings import Kind, Severity
from fleet_server.outbound.store import Filter
from fleet_server.projection.labels import Labels
from fleet_server.standing.measures import PRESENCE, SERVER
from fleet_server.standing.sample import Sample
from fleet_server.telemetry.store import Latest, StoreError
from fleet_server.telemetry.view import IngestFacts
from tests.fleet_server.alerting.samples import ORG, sample

T0: Final = 1_767_225_600_000
SETTLE_S: Final = 90


class House:
    """What the engine sees, on one database; ``restart`` makes it anew."""

    def __init__(self, engine: Engine) -> None:
        database.migrate(engine)
        self.outbox = SqlOutbox(engine)
        self.feed = SqlFeed(engine)
        self.now_ms = T0
        self.connected = True
        self.stood: list[Sample] = []
        self.rows: list[Latest] = []
        self.rung = 0
        self.broken = False
        self.restart()

    def restart(self, settle_s: float = 0.0) -> None:
        told = SqlAlerts(self.outbox, now_ms=lambda: self.now_ms, told=self._ring)
        settings = Settings(RULE, settle_s=settle_s)
        self.alerts = Alerts(self, self, self, self if self.broken else told, settings, now_ms=lambda: self.now_ms)

    def _ring(self) -> None:
        self.rung += 1

    def samples(self, now_ms: int) -> list[Sample]:
        return self.stood

    def latest(self) -> list[Latest]:
        return self.rows

    def facts(self) -> IngestFacts:
        zeros = dict.fromkeys(IngestFacts.__dataclass_fields__, 0)
        return IngestFacts(**{**zeros, "connected": self.connected})  # type: ignore[arg-type]

    def labels(self, device: str, at_ms: int) -> Labels:
        return Labels("traffic_light", ORG)

    def remembered(self) -> list[tuple[str, str, str]]:
        return self.outbox.remembered()

    def record(self, *_: object) -> None:
        raise StoreError("the disk is full")

    def after(self, seconds: float) -> list[str]:
        self.now_ms += int(1_000 * seconds)
        self.alerts.look()
        return [alert.rule for alert in self.alerts.alerts()]

    def told(self, severity: Severity = Severity.INFO) -> list[tuple[str, str]]:
        chosen = Filter(frozenset({Kind.ALERT_OPENED, Kind.ALERT_CLEARED}), severity)
        page = self.feed.after(0, chosen, rows_max=1_000)
        return [(each.news.kind.value, str(each.news.data["alert"])) for each in page.happenings]


@pytest.fixture
def house(engine: Engine) -> House:
    return House(engine)


def quarantine(share: float) -> Sample:
    return sample(SERVER, T0, quarantine_share=share)


def away(connected: float = 0.0) -> Sample:
    return sample(
        PRESENCE,
        T0,
        device="light-7",
        device_class="traffic_light",
        org=ORG,
        connected=connected,
        reporting=connected,
    )


def monitor(house: House, *, ok: float) -> Latest:
    return Latest("light-7", "monitor", house.now_ms, house.now_ms, {"conflict_ok": ok})


def test_what_opens_and_clears_is_told_once_each(house: House) -> None:
    house.stood = [quarantine(0.9)]
    assert house.after(5) == ["quarantine-filling"]
    assert house.after(5) == ["quarantine-filling"]
    house.stood = [quarantine(0.1)]
    house.after(5)
    assert house.after(60) == []
    assert house.told() == [("alert.opened", "quarantine-filling"), ("alert.cleared", "quarantine-filling")]
    assert house.rung == 2
    assert not [row for row in house.outbox.remembered() if row[0] == "alert"]


def test_a_restart_tells_nothing_twice_and_clears_what_was_open(house: House) -> None:
    house.stood = [quarantine(0.9)]
    house.after(5)
    house.restart()
    assert house.after(5) == ["quarantine-filling"]
    house.restart()
    house.stood = [quarantine(0.1)]
    house.after(5)
    assert house.after(60) == []
    assert house.told() == [("alert.opened", "quarantine-filling"), ("alert.cleared", "quarantine-filling")]


def test_a_long_wait_goes_on_over_a_restart(house: House) -> None:
    house.stood = [away()]
    house.after(0)
    house.after(100)
    house.restart()
    assert house.after(199) == []
    assert house.after(1) == ["device-dead"]


def test_what_cannot_be_recorded_is_told_by_the_next_look(house: House) -> None:
    house.stood = [quarantine(0.9)]
    house.broken = True
    house.restart()
    with pytest.raises(StoreError):
        house.after(5)
    assert house.alerts.alerts() == []
    house.broken = False
    house.restart()
    assert house.after(5) == ["quarantine-filling"]
    assert house.told() == [("alert.opened", "quarantine-filling")]


def test_a_reading_that_is_old_says_nothing_of_now(house: House) -> None:
    house.rows = [monitor(house, ok=0.0)]
    assert house.after(0) == ["signal-conflict"]
    house.rows = [monitor(house, ok=1.0)]
    for _ in range(10):
        assert house.after(61) == ["signal-conflict"]
    house.rows = [monitor(house, ok=1.0)]
    house.after(0)
    house.rows = [monitor(house, ok=1.0)]
    assert house.after(60) == []


def test_a_server_without_its_broker_judges_no_device(house: House) -> None:
    house.restart(SETTLE_S)
    house.connected = False
    house.stood = [away(), sample(SERVER, T0, broker_connected=0.0)]
    for _ in range(100):
        open_now = house.after(10)
    assert open_now == ["broker-lost"]
    house.connected = True
    house.stood = [away(), sample(SERVER, T0, broker_connected=1.0)]
    for _ in range(SETTLE_S // 10):
        assert "device-dead" not in house.after(10)
    house.stood = [away(1.0), sample(SERVER, T0, broker_connected=1.0)]
    for _ in range(40):
        assert house.after(10) == []


def test_the_feed_tells_alarms_from_warnings(house: House) -> None:
    house.stood = [quarantine(0.9)]
    house.after(0)
    assert house.told(Severity.ALARM) == [("alert.opened", "quarantine-filling")]
    house.stood = [sample(SERVER, T0, ca_s=1.0)]
    house.after(0)
    house.after(300)
    assert ("alert.opened", "authority-ends") in house.told(Severity.WARNING)
    assert ("alert.opened", "authority-ends") not in house.told(Severity.ALARM)
