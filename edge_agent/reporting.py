"""Decides when a device asks what is desired, and when it says again what is so: until the server knows.

Rule 1: on each connection it asks and reports. What brings nothing is said again, each time later.
Rule 2: it asks only when it could obey the answer: a question before that would bring an order in vain.
Rule 3: what is said on ``dn/twin`` without a signature makes it ask, never more often than ASK_S_MIN.
"""

from dataclasses import dataclass, field
from typing import Final

AGAIN_S_MIN: Final = 5.0
AGAIN_S_MAX: Final = 300.0
"""From the first to the longest pause before something is said again."""
ASK_S_MIN: Final = 5.0
SOON_S: Final = 1.0
"""What will be something else presently is not said before; the end of a change at once."""


@dataclass(slots=True)
class Repeated:
    """Something that is said until it has brought what it should. ``due_s`` None: nothing is to be said."""

    due_s: float | None = None
    pause_s: float = AGAIN_S_MIN

    def want(self, at_s: float) -> None:
        """It is to be said, at *at_s* at the latest."""
        self.pause_s = AGAIN_S_MIN
        self.due_s = at_s if self.due_s is None else min(self.due_s, at_s)

    def said(self, now_s: float) -> None:
        """It was; and will be again."""
        self.due_s, self.pause_s = now_s + self.pause_s, min(AGAIN_S_MAX, 2 * self.pause_s)

    def over(self) -> None:
        """It brought what it should."""
        self.due_s = None


@dataclass(slots=True)
class Reporting:
    """``version``: of the newest report; ``known``: of the newest that the server has."""

    version: int = 0
    known: int = 0
    _asks: Repeated = field(default_factory=Repeated)
    _reports: Repeated = field(default_factory=Repeated)
    _asked_s: float | None = None

    def connected(self, now_s: float) -> None:
        """There is a connection."""
        self._asked_s = None
        self._asks.want(now_s)
        self._reports.want(now_s)

    def disconnected(self) -> None:
        """There is none any more."""
        self._asks.over()
        self._reports.over()

    def changed(self, version: int, now_s: float, *, soon: bool) -> None:
        """There is another report; *soon*: yet another one follows presently."""
        self.version = version
        self._reports.want(now_s + SOON_S if soon else now_s)

    def told(self, *, desired: int, reported: int, have: int, now_s: float) -> None:
        """The server's hint."""
        if reported == self.version:
            self.known = reported
            self._reports.over()
        if desired > have:
            last_s = self._asked_s
            self._asks.due_s = now_s if last_s is None else max(now_s, last_s + ASK_S_MIN)
        else:
            self._asks.over()

    def answered(self) -> None:
        """An order came that was rightly signed: it is what was asked for."""
        self._asks.over()

    def due(self, now_s: float, *, ready: bool) -> tuple[bool, bool]:
        """Whether to ask and whether to report now; both count as said. *ready*: whether an order could be obeyed."""
        ask = ready and self._asks.due_s is not None and now_s >= self._asks.due_s
        report = self._reports.due_s is not None and now_s >= self._reports.due_s
        if ask:
            self._asked_s = now_s
            self._asks.said(now_s)
        if report:
            self._reports.said(now_s)
        return ask, report

    def next_s(self, *, ready: bool) -> float | None:
        """When something is due."""
        dues = (self._asks.due_s if ready else None, self._reports.due_s)
        return min((due_s for due_s in dues if due_s is not None), default=None)
