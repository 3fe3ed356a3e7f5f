"""States as they are kept over a restart: rows of (topic, name, value), beside what the watches remember. Pure.

A condition that has held for less than ``KEEP_MS`` is not kept, so that what hovers at a threshold writes nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from fleet_server.alerting.machine import Key, State, States
from fleet_server.outbound.memory import Changes, Row

TOPIC: Final = "alert"
KEEP_MS: Final = 60_000
SEPARATOR: Final = ":"
"""Between a rule's name and its subject; neither has it."""


def read(rows: Iterable[tuple[str, str, str]], rules: Mapping[str, object], now_ms: int) -> dict[Key, State]:
    """Of rules that there are no more, nothing. What was seen before the restart counts as seen now."""
    states: dict[Key, State] = {}
    for topic, name, value in rows:
        rule, _, subject = name.partition(SEPARATOR)
        if topic == TOPIC and rule in rules:
            states[Key(rule, subject)] = msgspec.json.decode(value, type=State)._replace(seen_ms=now_ms)
    return states


def changes(before: States, before_ms: int, after: States, now_ms: int) -> Changes:
    """What to keep and what to forget. *before*: as recorded at *before_ms*."""
    found: dict[Row, str | None] = {}
    for key, state in after.items():
        old = before.get(key)
        was = None if old is None or not _kept(old, before_ms) else _durable(old)
        if _kept(state, now_ms) and was != _durable(state):
            found[_row(key)] = msgspec.json.encode(state).decode()
    for key, old in before.items():
        new = after.get(key)
        if _kept(old, before_ms) and (new is None or not _kept(new, now_ms)):
            found[_row(key)] = None
    return found


def _row(key: Key) -> Row:
    return TOPIC, f"{key.rule}{SEPARATOR}{key.subject}"


def _kept(state: State, now_ms: int) -> bool:
    return state.open or now_ms - state.since_ms >= KEEP_MS


def _durable(state: State) -> tuple[object, ...]:
    return state.since_ms, state.counts_ms, state.open, state.told, state.org
