"""Refusals as facts of the audit log, counted: neither a stranger nor somebody who tries every door may fill it.

A stranger is known by where they come from. Who is known, and reads what they may not, has their name with it, and
what they asked for; what they may not change is in the log one by one, as every change is. Pure.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fleet_server.access.audit import Draft, Phase, bounded

MINUTE_MS: Final = 60_000
SOURCES_MAX: Final = 256
"""A minute, of strangers and again of those who are known; the others of each are counted together."""
ASKED_MAX: Final = 8
"""Different things that are told of one who asked for what is not theirs."""
OTHERS: Final = "others"
REFUSED: Final = "auth.refused"
READ_REFUSED: Final = "read.refused"


class _Who(NamedTuple):
    """``actor``: empty of a stranger."""

    actor: str
    source: str


@dataclass(slots=True)
class _Refusals:
    count: int = 0
    asked: list[str] = field(default_factory=list)


class RefusalTally:
    """What is not yet due is lost if the server dies: a minute's counts."""

    def __init__(self) -> None:
        self._found: dict[_Who, _Refusals] = {}
        self._minute = 0

    def note(self, source: str, *, now_ms: int, actor: str = "", asked: str = "") -> list[Draft]:
        """Count one more; the entries of minutes that are over. *actor*: who read what they may not, with *asked* for
        what it was; empty: a stranger, who bore no token of ours.
        """
        over = self.due(now_ms=now_ms)
        who = _Who(bounded(actor), bounded(source))
        if who not in self._found and sum(bool(each.actor) == bool(actor) for each in self._found) >= SOURCES_MAX:
            who = _Who(OTHERS if actor else "", OTHERS)
        found = self._found.setdefault(who, _Refusals())
        found.count += 1
        if asked and asked not in found.asked and len(found.asked) < ASKED_MAX:
            found.asked.append(asked)
        return over

    def due(self, *, now_ms: int, closing: bool = False) -> list[Draft]:
        """The entries of minutes that are over; of this one too when *closing*."""
        minute = now_ms // MINUTE_MS
        if minute == self._minute and not closing:
            return []
        drafts = [_told(who, found, self._minute * MINUTE_MS) for who, found in sorted(self._found.items())]
        self._found.clear()
        self._minute = minute
        return drafts


def _told(who: _Who, found: _Refusals, at_ms: int) -> Draft:
    return Draft(
        phase=Phase.FACT,
        at_ms=at_ms,
        actor=who.actor,
        source=who.source,
        action=READ_REFUSED if who.actor else REFUSED,
        subject=bounded(", ".join(found.asked)),
        outcome="403" if who.actor else "401",
        count=found.count,
    )
