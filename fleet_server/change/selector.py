"""Which devices are meant: a small query language over what is known of them. Pure.

The grammar is RSQL's (a superset of FIQL), as fleet managers have it::

    any        = all *( "," all )                      or
    all        = term *( ";" term )                    and, which binds closer
    term       = "(" any ")" / fact sign value / fact ( "=in=" / "=out=" ) "(" value *( "," value ) ")"
    sign       = "==" / "!=" / "=lt=" / "=le=" / "=gt=" / "=ge="
    value      = one or more of letters, digits and "._-/:+*" / a text in quotes, in which a backslash takes the next

``*`` outside of quotes stands for any text. A node means itself and all below it, a group everybody in it.

Rule 1: there is no "not": ``!=`` and ``=out=`` are comparisons too, and what is not known of a device is never a yes.
Rule 2: a name that no device can have is an error, not an empty answer.

Our own parser, because an error has to say where it is and what was expected there, and because names and values are
checked against what the device classes have; the RSQL parsers on PyPI do neither and have had no release for years.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final, NoReturn, TypeAlias

from broker_config import device_classes
from broker_config.device_classes.settings import Type
from fleet_server.registry.tree import is_below

SELECTOR_CHARS_MAX: Final = 2_000
DEPTH_MAX: Final = 16
COMPARISONS_MAX: Final = 64
VALUES_MAX: Final = 500
"""In one ``=in=`` or ``=out=``."""
EVERYBODY: Final = "device==*"

Fact: TypeAlias = bool | int | float | str | frozenset[str]
KnownOf: TypeAlias = Callable[[str], Fact | None]
"""Fact -> what is known of one device; None: not known. Names are a set: of groups."""


class Sort(StrEnum):
    """What a fact is."""

    TEXT = "text"
    PATH = "path"
    FLAG = "true or false"
    NUMBER = "number"
    NAMES = "names"


class Sign(StrEnum):
    """How a fact and a value are compared."""

    IS = "=="
    IS_NOT = "!="
    BELOW = "=lt="
    AT_MOST = "=le="
    ABOVE = "=gt="
    AT_LEAST = "=ge="
    IN = "=in="
    OUT = "=out="


OF_THE_SERVER: Final[Mapping[str, Sort]] = {
    "device": Sort.TEXT,
    "class": Sort.TEXT,
    "node": Sort.PATH,
    "unit": Sort.TEXT,
    "group": Sort.NAMES,
    "connected": Sort.FLAG,
    "reporting": Sort.FLAG,
    "healthy": Sort.FLAG,
    "agent": Sort.TEXT,
    "hardware": Sort.TEXT,
    "profile": Sort.TEXT,
    "drift": Sort.TEXT,
}
CONFIG: Final = "config."
"""Before the name of a setting: as the device says that it is in force."""

_SORTS: Final = {
    Type.BOOLEAN: Sort.FLAG,
    Type.INTEGER: Sort.NUMBER,
    Type.NUMBER: Sort.NUMBER,
    Type.STRING: Sort.TEXT,
}
_ORDERED: Final = frozenset({Sign.BELOW, Sign.AT_MOST, Sign.ABOVE, Sign.AT_LEAST})
_NEGATIVE: Final = frozenset({Sign.IS_NOT, Sign.OUT})
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<sign>==|!=|=[a-z]+=)|(?P<mark>[();,])|(?P<word>[A-Za-z0-9._/:+*-]+)"""
    r"""|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<end>\Z)|(?P<wrong>.))""",
    re.DOTALL,
)


class BadSelectorError(ValueError):
    """Not a selector: where, what was expected there, and what came."""

    def __init__(self, position: int, expected: str, got: str) -> None:
        shown_ = got if len(got) <= GOT_CHARS_MAX else got[:GOT_CHARS_MAX] + "..."
        super().__init__(f"position {position}: expected {expected}, got {shown_}")
        self.position = position
        self.expected = expected
        self.got = shown_


GOT_CHARS_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text in which ``*`` may stand for anything."""

    text: str
    parts: tuple[str, ...]

    def matches(self, text: str) -> bool:
        """Whether the whole of *text* is so; in linear time, whatever the pattern is."""
        first, *middle = self.parts
        if not middle:
            return text == first
        last = middle.pop()
        if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for part in middle:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


@dataclass(frozen=True, slots=True)
class Comparison:
    """One fact against values of its sort; several only with ``=in=`` and ``=out=``."""

    fact: str
    sort: Sort
    sign: Sign
    values: tuple[Pattern | float | bool, ...]

    def holds(self, known_of: KnownOf) -> bool:
        """Whether it is so of a device."""
        known = known_of(self.fact)
        if known is None:
            return False
        if self.sign in _ORDERED:
            return _is_ordered(known, self.sign, self.values[0])
        return any(_is(self.sort, known, value) for value in self.values) != (self.sign in _NEGATIVE)


@dataclass(frozen=True, slots=True)
class All:
    """Each of them."""

    terms: "tuple[Selector, ...]"

    def holds(self, known_of: KnownOf) -> bool:
        """Whether it is so of a device."""
        return all(term.holds(known_of) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of them."""

    terms: "tuple[Selector, ...]"

    def holds(self, known_of: KnownOf) -> bool:
        """Whether it is so of a device."""
        return any(term.holds(known_of) for term in self.terms)


Selector: TypeAlias = Comparison | All | Any


@cache
def facts() -> Mapping[str, Sort]:
    """Every fact that a device of any class can have."""
    out = dict(OF_THE_SERVER)
    for name in device_classes.names():
        loaded = device_classes.load(name)
        for setting, spec in loaded.config.items():
            out[CONFIG + setting] = _SORTS[spec.type]
        for stream, streamed in loaded.streams.items():
            out.update({f"{stream}.{field}": Sort.NUMBER for field in streamed.fields})
    return out


def named(selector: Selector) -> frozenset[str]:
    """The facts that it asks for, so that no others need be looked up."""
    if isinstance(selector, Comparison):
        return frozenset({selector.fact})
    return frozenset().union(*(named(term) for term in selector.terms))


def parse(text: str) -> Selector:
    """Read a selector. Raises BadSelectorError."""
    if len(text) > SELECTOR_CHARS_MAX:
        raise BadSelectorError(SELECTOR_CHARS_MAX, f"at most {SELECTOR_CHARS_MAX} characters", f"{len(text)}")
    return _Reader(text).selector()


@dataclass(frozen=True, slots=True)
class _Token:
    sort: str
    text: str
    position: int


class _Reader:
    """One text, read once from left to right with one token in sight."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens)
        self._comparisons = 0

    def selector(self) -> Selector:
        """All of it."""
        found = self._any(0)
        if self._next.sort != "end":
            self._fail('";", "," or the end')
        return found

    def _any(self, depth: int) -> Selector:
        terms = [self._all(depth)]
        while self._took(","):
            terms.append(self._all(depth))
        return terms[0] if len(terms) == 1 else Any(tuple(terms))

    def _all(self, depth: int) -> Selector:
        terms = [self._term(depth)]
        while self._took(";"):
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else All(tuple(terms))

    def _term(self, depth: int) -> Selector:
        if self._next.text == "(" and depth == DEPTH_MAX:
            self._fail(f"at most {DEPTH_MAX} levels of parentheses")
        if self._took("("):
            inner = self._any(depth + 1)
            self._need(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > COMPARISONS_MAX:
            self._fail(f"at most {COMPARISONS_MAX} comparisons")
        sort = facts().get(self._next.text)
        if self._next.sort != "word" or sort is None:
            self._fail('a fact, such as "class", "config.video" or "power.battery_pct", or "("')
        fact = self._take().text
        sign = self._sign(sort)
        if sign not in {Sign.IN, Sign.OUT}:
            return Comparison(fact, sort, sign, (self._value(sort),))
        self._need("(")
        values = [self._value(sort)]
        while self._took(","):
            if len(values) == VALUES_MAX:
                self._fail(f"at most {VALUES_MAX} values")
            values.append(self._value(sort))
        self._need(")")
        return Comparison(fact, sort, sign, tuple(values))

    def _sign(self, sort: Sort) -> Sign:
        allowed = [sign for sign in Sign if sort is Sort.NUMBER or sign not in _ORDERED]
        if self._next.sort != "sign" or self._next.text not in allowed:
            self._fail(f"one of {' '.join(allowed)} for a fact that is {sort.value}")
        return Sign(self._take().text)

    def _value(self, sort: Sort) -> Pattern | float | bool:
        if self._next.sort not in {"word", "quoted"}:
            self._fail("a value")
        text = self._next.text
        if self._next.sort == "quoted":
            text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        value: Pattern | float | bool
        if sort is Sort.FLAG:
            if text not in {"true", "false"}:
                self._fail("true or false")
            value = text == "true"
        elif sort is Sort.NUMBER:
            number = _number(text)
            if number is None:
                self._fail("a number")
            value = number
        else:
            value = Pattern(text, (text,) if self._next.sort == "quoted" else tuple(text.split("*")))
        self._take()
        return value

    def _take(self) -> _Token:
        taken, self._next = self._next, next(self._tokens, self._next)
        return taken

    def _took(self, mark: str) -> bool:
        if self._next.sort != "mark" or self._next.text != mark:
            return False
        self._take()
        return True

    def _need(self, mark: str) -> None:
        if not self._took(mark):
            self._fail(f'"{mark}"')

    def _fail(self, expected: str) -> NoReturn:
        got = "the end" if self._next.sort == "end" else repr(self._next.text)
        raise BadSelectorError(self._next.position, expected, got)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        assert found is not None  # its last branches take anything and the end
        sort = found.lastgroup or ""
        yield _Token(sort, found[sort], found.start(sort))
        if sort == "end":
            return
        at = found.end()


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", text, re.ASCII) else None


def _is(sort: Sort, known: Fact, value: Pattern | float | bool) -> bool:  # noqa: FBT001 - a value like others
    if not isinstance(value, Pattern):
        return not isinstance(known, str | frozenset) and known == value
    if isinstance(known, frozenset):
        return any(value.matches(name) for name in known)
    if not isinstance(known, str):
        return False
    if sort is Sort.PATH and len(value.parts) == 1:
        return is_below(known, value.text)
    return value.matches(known)


def _is_ordered(known: Fact, sign: Sign, value: Pattern | float | bool) -> bool:  # noqa: FBT001
    if isinstance(known, bool | str | frozenset) or isinstance(value, Pattern):
        return False
    match sign:
        case Sign.BELOW:
            return known < value
        case Sign.AT_MOST:
            return known <= value
        case Sign.ABOVE:
            return known > value
        case _:
            return known >= value
