"""Progress bars: on stderr, and only on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bar(column: DownloadColumn | MofNCompleteColumn) -> Iterator[Progress]:
    """One that is gone once it is done; *column*: bytes, or how many of how many."""
    console = Console(stderr=True)
    parts = (TextColumn("{task.description}"), BarColumn(), column, TimeRemainingColumn())
    with Progress(*parts, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def watched(parts: Iterator[bytes], see: Callable[[bytes], None]) -> Iterator[bytes]:
    """The same *parts*, each shown to *see* once it was taken."""
    for part in parts:
        yield part
        see(part)
