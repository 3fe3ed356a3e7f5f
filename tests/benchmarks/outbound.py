"""What it costs to watch a large fleet, and what is told when all of it goes at once.

``python -m tests.benchmarks.outbound --devices 26000`` gives so many devices, of four streams each and at 43 places,
to the real ingest, and lets the real service look at them and record in SQLite. Prints figures, and with ``--report``
JSON.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, StreamState, encode
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.looking import LookSettings
from fleet_server.outbound.service import Outbound
from fleet_server.outbound.store import Filter
from fleet_server.outbound.watch import WatchPolicy
from fleet_server.projection.labels import Labels
from tests.fleet_server.fleet import BOOT, LIFE, Arrival, Fleet
from tests.servers import wait_until

PLACES: Final = 43
STREAMS: Final = ("cpu", "memory", "storage", "network")
EVERY_MS: Final = 60_000
AWAY_MS: Final = 200_000
"""More than any keep-alive lasts."""
REMEMBER_S_MAX: Final = 120.0
OUTAGE_S_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Cost:
    """``quiet_core_share``: of one core, while nothing happens; ``told``: happenings of the outage by kind."""

    devices: int
    seconds: float
    quiet_core_share: float
    outage_s: float
    outage_cpu_s: float
    outage_devices: int
    told: dict[str, int]


class AtPlaces:
    """Each device's place by its number."""

    def labels(self, device: str, _at_ms: int) -> Labels:
        return Labels("host", f"hq/station-{int(device.rpartition('-')[2]) % PLACES}")


def run(directory: Path, *, devices: int, seconds: float) -> Cost:
    """A quiet time, then everybody's keep-alive runs out."""
    fleet = Fleet(directory / "store.db")
    _fill(fleet, devices)
    engine = database.connect(database.sqlite_url(directory / "outbound.db"))
    database.migrate(engine)
    outbox, feed = SqlOutbox(engine), SqlFeed(engine)
    outbound = Outbound(
        fleet.view,
        AtPlaces(),
        outbox,
        dict,
        LookSettings(quarantine_bytes_max=1_000_000, watch=WatchPolicy(settle_ms=0)),
        bell=Bell(),
        now_ms=lambda: fleet.now_ms,
        rng=random.Random(1),
    )
    outbound.start()
    try:
        wait_until(lambda: _remembered(outbox) == devices, "all are remembered", REMEMBER_S_MAX)
        cpu_s, begun_s = time.process_time(), time.monotonic()
        time.sleep(seconds)
        share = (time.process_time() - cpu_s) / (time.monotonic() - begun_s)
        cpu_s, begun_s = time.process_time(), time.monotonic()
        fleet.now_ms += AWAY_MS
        gone = 0
        while gone < devices and time.monotonic() - begun_s < OUTAGE_S_MAX:
            time.sleep(1)
            fleet.now_ms += 1_000
            told = [each.news for each in feed.after(0, Filter(), rows_max=100_000).happenings]
            gone = sum(int(str(news.data.get("count", 1))) for news in told)
        took_s, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_s
    finally:
        outbound.stop()
        fleet.store.close()
        engine.dispose()
    kinds = Counter(news.kind.value for news in told)
    return Cost(devices, seconds, share, took_s, cpu_s, gone, dict(kinds))


def _fill(fleet: Fleet, devices: int) -> None:
    streams = tuple(StreamState(stream, LIFE, 1, 50, every_ms=EVERY_MS) for stream in STREAMS)
    birth = encode(Birth(1, "0" * 16, BOOT, 1000, 30, "0.1.0", "host", "host", 0, 5000, streams))
    arrivals = [
        Arrival(topics.up(device, topics.Up.STATUS), birth)
        for device in (DeviceId(f"dev-{n:05}") for n in range(devices))
    ]
    fleet.arrive(*arrivals)


def _remembered(outbox: SqlOutbox) -> int:
    return sum(1 for topic, _, _ in outbox.remembered() if topic == "device")


def main() -> None:
    """Run, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=26_000)
    parser.add_argument("--seconds", type=float, default=40.0, help="of the quiet time")
    parser.add_argument("--report", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch:
        cost = run(Path(scratch), devices=chosen.devices, seconds=chosen.seconds)
    print(
        f"{cost.devices:,} devices at {PLACES} places: {100 * cost.quiet_core_share:.1f} % of a core while quiet;"
        f" an outage of all: {cost.outage_devices:,} devices told in {cost.outage_s:.0f} s"
        f" and {sum(cost.told.values())} happenings ({cost.told}), {cost.outage_cpu_s:.1f} s of a core"
    )
    if chosen.report:
        chosen.report.write_text(json.dumps(asdict(cost), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
