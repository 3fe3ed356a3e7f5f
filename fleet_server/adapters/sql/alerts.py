"""The port :class:`fleet_server.alerting.engine.Told`, over the outbox: what is told and that it was, together."""

from collections.abc import Callable, Sequence

from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.outbound.happenings import News
from fleet_server.outbound.memory import Changes


class SqlAlerts:
    """See the port. *told*: is called once something was."""

    def __init__(self, outbox: SqlOutbox, *, now_ms: Callable[[], int], told: Callable[[], None]) -> None:
        self._outbox = outbox
        self._now_ms = now_ms
        self._on_told = told

    def remembered(self) -> list[tuple[str, str, str]]:
        """See the port."""
        return self._outbox.remembered()

    def record(self, news: Sequence[News], changes: Changes) -> None:
        """See the port."""
        self._outbox.record(news, changes, {}, now_ms=self._now_ms())
        if news:
            self._on_told()
