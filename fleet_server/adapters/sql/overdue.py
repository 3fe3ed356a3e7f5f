"""The port :class:`fleet_server.evidence.overdue.Told`, over the outbox: what is told and that it was, together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.outbound.happenings import News

TOPIC: Final = "overdue"


class SqlOverdue:
    """See the port. *told*: is called once something was."""

    def __init__(self, outbox: SqlOutbox, *, now_ms: Callable[[], int], told: Callable[[], None]) -> None:
        self._outbox = outbox
        self._now_ms = now_ms
        self._on_told = told

    def remembered(self) -> Mapping[str, int]:
        """See the port."""
        return {name: int(value) for topic, name, value in self._outbox.remembered() if topic == TOPIC}

    def record(self, news: Sequence[News], told: Mapping[str, int], forgotten: Sequence[str]) -> None:
        """See the port."""
        gone: dict[tuple[str, str], str | None] = {(TOPIC, key): None for key in forgotten}
        kept = {(TOPIC, key): str(at_ms) for key, at_ms in told.items()}
        self._outbox.record(news, {**gone, **kept}, {}, now_ms=self._now_ms())
        if news:
            self._on_told()
