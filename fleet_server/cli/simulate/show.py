"""How far a simulation is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_EVERY_S: Final = 5.0


class Show:
    """One bar at a time."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._line_s = 0.0
        self._what = ""
        self._total = 0.0

    def begin(self, what: str, total: float) -> None:
        """A new bar; the one before stays as it is."""
        self._what, self._total, self._line_s = what, total, 0.0
        if self._progress is not None:
            self._task = self._progress.add_task(what, total=total, text="")

    def at(self, done: float, text: Callable[[], str]) -> None:
        """So much of the total is done. *text* is asked for when it is shown, because it may take long."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, text=text())
        elif time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            print(f"{self._what}: {done:,.0f} of {self._total:,.0f}  {text()}", flush=True)


@contextmanager
def showing() -> Iterator[Show]:
    """Drawn within the block."""
    if not sys.stdout.isatty():
        yield Show(None)
        return
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console()) as progress:
        yield Show(progress)
