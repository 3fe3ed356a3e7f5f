"""What panels show of the seeded fleet in InfluxDB."""

from typing import Final, NamedTuple

from broker_config import device_classes
from broker_config.device_classes import BOARD
from dashboards.influxql import TAGS
from dashboards.provisioning import DATABASE
from dashboards.words import CLASSES, STREAMS
from tests.dashboards.asked import MINUTE_MS, Chosen, Json, Range, dashboards, panel, panels, queries_of
from tests.dashboards.seeded import FLEET
from tests.servers import SeriesServer

BOARDS: Final = {
    path.split("/")[-1].removesuffix(".json"): board for path, board in dashboards().items() if "/en/" in path
}
PANELS: Final = [(name, panel["title"]) for name, board in BOARDS.items() for panel in panels(board)]
NEWEST: Final = {
    f"{CLASSES[name]}: {STREAMS[stream]}": (name, stream)
    for name in device_classes.names()
    for stream, spec in device_classes.load(name).streams.items()
    if spec.fields and (name == BOARD or spec != device_classes.load(BOARD).streams.get(stream))
}
"""Title -> class and stream, of panels that are made from the class files."""
HOUR_MS: Final = 60 * MINUTE_MS


def device_of(title: str) -> str:
    """The device that is chosen where exactly one is: one that has what the panel shows."""
    kind, _ = NEWEST.get(title, ("body_camera", ""))
    return next(device.name for device in reversed(FLEET) if device.device_class == kind)


class Filled(NamedTuple):
    """InfluxDB with the seeded fleet, and the time that is now in it."""

    server: SeriesServer
    now_ms: int

    @property
    def hour(self) -> Range:
        """The range that has data; what is known came last at its very end."""
        return Range(self.now_ms - HOUR_MS, self.now_ms)

    def ask(self, query: str) -> list[Json]:
        """Rows as dictionaries, tags among the columns. Fails on an error in the answer."""
        return self.server.rows(DATABASE, query)

    def shown(
        self,
        board: str,
        title: str,
        chosen: Chosen = Chosen(),  # noqa: B008 - frozen
        over: Range | None = None,
    ) -> list[Json]:
        """What a panel has to show; rows of several queries become one if their tags are one."""
        if board == "device" and not chosen.device:
            chosen = Chosen(device=[device_of(title)])
        merged: dict[tuple[str, ...], Json] = {}
        queries = queries_of(panel(BOARDS[board], title), over or self.hour, chosen)
        for query in queries:
            for at, row in enumerate(self.ask(query)):
                key = tuple(row[tag] for tag in TAGS if tag in row) if len(queries) > 1 else (str(at),)
                merged.setdefault(key, {}).update(row)
        return list(merged.values())
