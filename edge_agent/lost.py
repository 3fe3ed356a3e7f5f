"""Lost mode: whoever looks for the device hears of it often, evidence leaves it first, and it deletes nothing.

A file in the state directory, so that no restart finds the device again.
"""

from pathlib import Path
from typing import Final

from edge_agent.adapters.files import sync, write_durably

LOST_NAME: Final = "lost"
TELL_EVERY_S: Final = 10.0
"""The place is read, and the birth repeated, at least so often."""
PLACE: Final = "gnss"
"""The stream that tells where it is."""


class Lost:
    """Calls come one after the other."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / LOST_NAME
        self._on = self._path.exists()

    def __bool__(self) -> bool:
        """Whether it is."""
        return self._on

    def switch(self, *, on: bool) -> None:
        """Durable once it returns. Raises OSError: it is as it was."""
        if on:
            write_durably(self._path, b"", 0o600)
        else:
            self._path.unlink(missing_ok=True)
            sync(self._path.parent)
        self._on = on

    def every_s(self, every_s: float) -> float:
        """How often what was due every *every_s* is told now."""
        return min(every_s, TELL_EVERY_S) if self._on else every_s
