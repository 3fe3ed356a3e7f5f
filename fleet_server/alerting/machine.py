"""Samples, states and the time in; states, and what opened and cleared, out. Pure.

Rule 1: an alert is opened once and cleared once, in turn; ``told`` of its state says which was last.
Rule 2: a value that is not known changes nothing. A subject of which nothing at all was seen for ``FORGET_MS`` is not
there any more, and its alerts clear.
Rule 3: while a node has an outage, alerts of devices that are away there are told by it. Once it is over, who is away
still has the time to come back that anybody has, and is told by itself then. A device's alert that was told before is
not told anew behind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from fleet_server.alerting.outage import Crowd
from fleet_server.alerting.rules import Kin, Rule
from fleet_server.standing.measures import Of
from fleet_server.standing.sample import Sample

FORGET_MS: Final = 86_400_000
STATES_MAX: Final = 100_000
"""Alerts that are open or wait to be; beyond them no new ones begin."""
GROUPED_MAX: Final = 200
"""Devices that an outage names; ``count`` of its values says how many there are."""


class Key(NamedTuple):
    """What is wrong with whom: ``subject`` is a device, a node's path, or empty for the site."""

    rule: str
    subject: str


class State(NamedTuple):
    """``since_ms``: since when it is wrong; ``open``: for long enough; ``well_since_ms``: since when it is well
    again, None: it is not; ``seen_ms``: when anything of the subject was last seen; ``told``: that it opened;
    ``counts_ms``: from when its time to fire counts, if that is later than ``since_ms``.
    """

    since_ms: int
    open: bool
    seen_ms: int
    org: str
    device_class: str = ""
    value: float = 0.0
    well_since_ms: int | None = None
    told: bool = False
    devices: int = 0
    grouped: tuple[str, ...] = ()
    counts_ms: int = 0


States: TypeAlias = Mapping[Key, State]


@dataclass(frozen=True, slots=True)
class Look:
    """``states``: all that there are now. ``opened``, ``cleared``: to be told, alarms first. ``folded``: open, and
    told by the outage of their node. ``left_out``: what was not begun, because there are too many.
    """

    states: dict[Key, State]
    opened: tuple[Key, ...]
    cleared: tuple[tuple[Key, State], ...]
    folded: frozenset[Key]
    left_out: int = 0


class _Asked(NamedTuple):
    """A rule, and where in a sample's values it looks; -1: nowhere. *device_class*: only of this one, if any."""

    rule: Rule
    device_class: str
    field: int
    minus: int
    only: int

    def value(self, values: Sequence[float | None]) -> float | None:
        """None: not known. Where the rule does not apply, a value at which it clears."""
        if self.only >= 0:
            applies = values[self.only]
            if not applies:
                return None if applies is None else self.rule.clears
        value = values[self.field]
        if value is None or self.minus < 0:
            return value
        less = values[self.minus]
        return None if less is None else value - less


def _asked(rule: Rule) -> list[_Asked]:
    """Of each class that *rule* names; its streams are looked up in that class."""
    classes = rule.classes or ("",)
    measures = rule.measures if isinstance(rule.of, str) else rule.measures * len(classes)
    return [
        _Asked(
            rule, name, *(measure.names.index(each) if each else -1 for each in (rule.field, rule.minus, rule.only))
        )
        for name, measure in zip(classes, measures, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Machine:
    """*patience*: of each rule's times what is waited for; less than 1 only for drills."""

    rules: Sequence[Rule]
    patience: float = 1.0
    states_max: int = STATES_MAX
    _asks: dict[str, list[_Asked]] = field(default_factory=dict)
    _rules: dict[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rule in self.rules:
            self._asks.setdefault(rule.measurement, []).extend(_asked(rule))
            self._rules[rule.name] = rule

    def look(self, samples: Iterable[Sample], before: States, now_ms: int) -> Look:
        """*samples*: in any order; of several of one subject the newest counts."""
        newest = _newest(samples)
        states = dict(before)
        ill = {key.subject for key in before}
        crowds: dict[Key, Crowd] = {}
        cleared: list[tuple[Key, State]] = []
        left_out = 0
        for sample in newest:
            subject = _subject(sample)
            for asked in self._asks.get(sample.measure.name, ()):
                rule = asked.rule
                if asked.device_class and asked.device_class != sample.device_class:
                    continue
                value = asked.value(sample.values)
                if value is None:
                    continue
                if rule.kin is Kin.OUTAGE:
                    if sample.org:
                        crowd = crowds.setdefault(Key(rule.name, sample.org), Crowd())
                        crowd.add(sample.device, away=rule.wrong(value))
                    continue
                # most of a fleet is well, and this is what a look costs
                if subject not in ill and not rule.wrong(value):
                    continue
                key = Key(rule.name, subject)
                old = states.get(key)
                new = self._step(rule, old, value, sample, now_ms)
                if new is None:
                    if old is not None:
                        del states[key]
                        cleared.append((key, old))
                elif old is not None or len(states) < self.states_max:
                    states[key] = new
                else:
                    left_out += 1
        over = self._outages(crowds, states, now_ms)
        cleared += over
        self._anew(states, {state.org for _, state in over}, now_ms)
        cleared += _forgotten(states, newest, now_ms)
        return self._told(states, cleared, left_out)

    def _step(self, rule: Rule, old: State | None, value: float, sample: Sample, now_ms: int) -> State | None:
        """The state after one sample; None: nothing is wrong."""
        if old is None or not old.open:
            if not rule.wrong(value):
                return None
            since_ms, counts_ms = (now_ms, 0) if old is None else (old.since_ms, old.counts_ms)
            is_open = now_ms - max(since_ms, counts_ms) >= self._ms(rule.fires_s)
            return State(since_ms, is_open, now_ms, sample.org, sample.device_class, value, counts_ms=counts_ms)
        well_since_ms = None
        if rule.well(value):
            well_since_ms = now_ms if old.well_since_ms is None else old.well_since_ms
            if now_ms - well_since_ms >= self._ms(rule.clears_s):
                return None
        return State(
            old.since_ms,
            True,
            now_ms,
            sample.org,
            sample.device_class,
            value,
            well_since_ms,
            old.told,
        )

    def _outages(self, crowds: Mapping[Key, Crowd], states: dict[Key, State], now_ms: int) -> list[tuple[Key, State]]:
        """Step the outage of each node; which are over."""
        over: list[tuple[Key, State]] = []
        for key, crowd in crowds.items():
            rule, org = self._rules[key.rule], key.subject
            old = states.get(key)
            if old is None or not old.open:
                if not crowd.begins:
                    states.pop(key, None)
                    continue
                since_ms = now_ms if old is None else old.since_ms
                state = State(since_ms, now_ms - since_ms >= self._ms(rule.fires_s), now_ms, org)
            else:
                well_since_ms = None if crowd.lasts else now_ms if old.well_since_ms is None else old.well_since_ms
                if well_since_ms is not None and now_ms - well_since_ms >= self._ms(rule.clears_s):
                    over.append((key, states.pop(key)))
                    continue
                state = old._replace(well_since_ms=well_since_ms)
            away = sorted(crowd.away)
            states[key] = state._replace(
                value=float(len(away)), devices=crowd.size, grouped=tuple(away[:GROUPED_MAX])
            )
        return over

    def _anew(self, states: dict[Key, State], orgs: set[str], now_ms: int) -> None:
        """An outage of *orgs* is over: the time of who is away there still counts from now."""
        for key, state in states.items():
            if state.org in orgs and not state.told and self._kin(key) is Kin.AWAY:
                states[key] = state._replace(open=False, counts_ms=now_ms)

    def _kin(self, key: Key) -> Kin:
        return self._rules[key.rule].kin

    def _told(self, states: dict[Key, State], cleared: list[tuple[Key, State]], left_out: int) -> Look:
        out = {state.org for key, state in states.items() if state.open and self._kin(key) is Kin.OUTAGE}
        opened: list[Key] = []
        folded: set[Key] = set()
        for key, state in states.items():
            if not state.open:
                continue
            if self._kin(key) is Kin.AWAY and state.org in out:
                folded.add(key)
            elif not state.told:
                states[key] = state._replace(told=True)
                opened.append(key)
        order = {rule.name: at for at, rule in enumerate(self.rules)}
        opened.sort(key=lambda key: (order[key.rule], key.subject))
        told = sorted((each for each in cleared if each[1].told), key=lambda each: each[0])
        return Look(states, tuple(opened), tuple(told), frozenset(folded), left_out)

    def _ms(self, seconds: float) -> int:
        return int(1_000 * seconds * self.patience)


def _newest(samples: Iterable[Sample]) -> list[Sample]:
    found: dict[tuple[str, str, str], Sample] = {}
    for sample in samples:
        key = (sample.measure.name, sample.device, sample.org if sample.measure.of is Of.NODE else "")
        if key not in found or found[key].at_ms < sample.at_ms:
            found[key] = sample
    return list(found.values())


def _subject(sample: Sample) -> str:
    return sample.org if sample.measure.of is Of.NODE else sample.device


def _forgotten(states: dict[Key, State], newest: Sequence[Sample], now_ms: int) -> list[tuple[Key, State]]:
    """Take out states of what is not there any more; those that were open."""
    seen = {_subject(sample) for sample in newest} | {sample.org for sample in newest}
    gone: list[tuple[Key, State]] = []
    for key, state in list(states.items()):
        if key.subject in seen:
            if state.seen_ms != now_ms:
                states[key] = state._replace(seen_ms=now_ms)
        elif key.subject and now_ms - state.seen_ms >= FORGET_MS:
            gone.append((key, states.pop(key)))
    return gone
