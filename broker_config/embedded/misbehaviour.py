"""How a broker can be bad, for tests: slow, deaf, lossy, hostile.

A strategy is an argument of the object in a test's own process; no configuration file, option or environment
variable leads here. A strategy comes after the policy table on the way in and may say anything on the way out: that
is what a hostile broker can do.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from broker_config.embedded.message import Message
from broker_config.policy import Identity, Role


class Taken(NamedTuple):
    """What becomes of a publication: seconds until it is routed and until it is acknowledged; None is never."""

    route_after_s: float | None
    acknowledge_after_s: float | None


class Late(NamedTuple):
    """A message that is to be delivered so many seconds later."""

    after_s: float
    message: Message


AT_ONCE = Taken(0.0, 0.0)


class Misbehaviour(Protocol):
    """Asked in the broker's loop for each message; must not block."""

    def takes(self, sender: Identity, message: Message, /) -> Taken:
        """A publication that the policy allows."""

    def delivers(self, receiver: Identity, message: Message, /) -> Sequence[Late]:
        """What *receiver* gets in place of *message*, each judged by nobody."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Everything happens, later. Keeps the order of each way."""

    delay_s: float

    def takes(self, sender: Identity, message: Message) -> Taken:  # noqa: ARG002
        return Taken(0.0, self.delay_s)

    def delivers(self, receiver: Identity, message: Message) -> Sequence[Late]:  # noqa: ARG002
        return (Late(self.delay_s, message),)


@dataclass(frozen=True, slots=True)
class Deaf:
    """Takes everything, acknowledges nothing and delivers nothing."""

    def takes(self, sender: Identity, message: Message) -> Taken:  # noqa: ARG002
        return Taken(None, None)

    def delivers(self, receiver: Identity, message: Message) -> Sequence[Late]:  # noqa: ARG002
        return ()


class Lossy:
    """Acknowledges everything, and drops a share of the deliveries."""

    def __init__(self, share: float, *, seed: int) -> None:
        self._share = share
        self._random = random.Random(seed)  # noqa: S311 - a test's, to be repeated

    def takes(self, sender: Identity, message: Message) -> Taken:  # noqa: ARG002
        return AT_ONCE

    def delivers(self, receiver: Identity, message: Message) -> Sequence[Late]:  # noqa: ARG002
        return () if self._random.random() < self._share else (Late(0.0, message),)


class Hostile:
    """Duplicates, holds back, replays and forges what devices are told; the server's side is left alone.

    A forgery is an earlier message with bits of its payload changed and every property kept, or one device's
    message said to another.
    """

    REMEMBERED_MAX = 256

    def __init__(self, *, seed: int, delay_s_max: float = 0.05) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a test's, to be repeated
        self._delay_s_max = delay_s_max
        self._heard: deque[Message] = deque(maxlen=self.REMEMBERED_MAX)

    def takes(self, sender: Identity, message: Message) -> Taken:  # noqa: ARG002
        return AT_ONCE

    def delivers(self, receiver: Identity, message: Message) -> Sequence[Late]:
        if receiver.role is not Role.DEVICE:
            return (Late(0.0, message),)
        self._heard.append(message)
        said = [Late(self._some_s(), message)]
        if self._random.random() < 0.3:
            said.append(Late(self._some_s(), message))
        old = self._random.choice(self._heard)
        if self._random.random() < 0.3:
            said.append(Late(self._some_s(), replace(old, topic=message.topic)))
        if self._random.random() < 0.3:
            said.append(Late(self._some_s(), replace(message, payload=self._changed(old.payload))))
        return said

    def _some_s(self) -> float:
        return self._random.random() * self._delay_s_max

    def _changed(self, payload: bytes) -> bytes:
        changed = bytearray(payload or b"\0")
        changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)
