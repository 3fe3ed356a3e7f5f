"""The newest lines of the agent's log, in memory: nothing else keeps them on every board."""

import contextlib
import logging
from collections import deque
from typing import Final

LOG_LINES_MAX: Final = 400
LOG_LINE_CHARS_MAX: Final = 240


class LastLines(logging.Handler):
    """See the module's docstring; put it beside the handlers that write."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=LOG_LINES_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        with contextlib.suppress(Exception):  # as logging itself: a line that cannot be told stops nobody
            self._lines.append(self.format(record)[:LOG_LINE_CHARS_MAX])

    def text(self) -> str:
        """All of them, oldest first."""
        return "\n".join(self._lines)
