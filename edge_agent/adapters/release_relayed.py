"""Fetches metadata and images over MQTT, by way of the agent that runs: questions on stdout, parts on stdin. Loads
python-tuf: for the child that fetches releases alone.

Windows grow while they come and shrink when they do not, so that a slow link is not filled with what was given up.
"""

import random
import secrets
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Protocol

from broker_config.ids import ContractError
from broker_config.limits import KIB, RELEASE_WINDOW_BYTES_MAX
from broker_config.release_chunks import PART_BYTES_MAX, ROOT, AskRelease, Part, decode_part, encode_ask
from edge_agent.adapters.release_fetcher import NotNowError, ReleaseFetcher, not_given
from edge_agent.releases import Attack, Pace, RefusedReleaseError

WINDOW_BYTES_MIN: Final = 4 * KIB
WINDOW_BYTES_FIRST: Final = 32 * KIB
WAIT_S: Final = 5.0
"""For the next part, before it is asked for again; twice as long each time, and some more or less."""
JITTER: Final = 0.25
NOT_FOUND: Final = 404
LENGTH: Final = struct.Struct(">I")


class Pipe(Protocol):
    """To the broker and back, through the agent. Who is at the other end may say anything."""

    def ask(self, ask: AskRelease) -> None:
        """Have it said. Raises NotNowError."""

    def part(self, seconds: float) -> Part | None:
        """The next that came, within *seconds*; None: nothing. Raises NotNowError: there is no connection."""


class StdPipe:
    """Over the standard streams: a question is a line; a part has its length before it, 0: there is no connection."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        """*reading*: without a buffer of its own."""
        self._reading = reading
        self._writing = writing
        self._came = bytearray()

    def ask(self, ask: AskRelease) -> None:
        """See the port."""
        try:
            self._writing.write(encode_ask(ask) + b"\n")
            self._writing.flush()
        except OSError as error:
            raise NotNowError("the agent has gone") from error

    def part(self, seconds: float) -> Part | None:
        """See the port."""
        until_s = time.monotonic() + seconds
        while (payload := self._whole()) is None:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not select.select([self._reading], [], [], left_s)[0]:
                return None
            data = self._reading.read(PART_BYTES_MAX)
            if not data:
                raise NotNowError("the agent has gone")
            self._came += data
        if not payload:
            raise NotNowError("no connection to the broker")
        try:
            return decode_part(payload)
        except ContractError:
            return None  # asked for again

    def _whole(self) -> bytes | None:
        if len(self._came) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._came)
        if length > PART_BYTES_MAX:
            raise NotNowError(f"expected at most {PART_BYTES_MAX} bytes from the agent, got {length}")
        if len(self._came) < LENGTH.size + length:
            return None
        payload = bytes(self._came[LENGTH.size : LENGTH.size + length])
        del self._came[: LENGTH.size + length]
        return payload


def std_pipe() -> StdPipe:
    """Of this process."""
    return StdPipe(open(0, "rb", buffering=0, closefd=False), sys.stdout.buffer)


class RelayedFetcher(ReleaseFetcher):
    """One window after the other."""

    def __init__(
        self,
        pipe: Pipe,
        pace: Pace,
        monotonic_s: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(pace, monotonic_s)
        self._pipe = pipe
        self._uniform = uniform
        self._window = WINDOW_BYTES_FIRST

    def _parts(self, path: str, offset: int) -> Iterator[bytes]:
        asked, at, size = path.removeprefix(ROOT), offset, offset + 1
        end, ids = at, set[str]()
        while at < size:
            if at >= end:
                if at > offset:  # a whole window came
                    self._window = min(RELEASE_WINDOW_BYTES_MAX, 2 * self._window)
                ids = set()  # what was asked before cannot begin here
                end = self._ask(asked, at, ids)
            part, end = self._next(asked, at, end, ids)
            if part.absent:
                raise not_given(path, NOT_FOUND)
            if not part.data and at:
                raise RefusedReleaseError(Attack.ARBITRARY, f"{path} ends before what was signed does")
            size = part.size
            at += len(part.data)
            self._count(part.data)
            if part.data:
                yield part.data

    def _next(self, path: str, at: int, end: int, ids: set[str]) -> tuple[Part, int]:
        """What begins at *at*, and up to where is asked for now; asked for again if it does not come. *ids*: of
        questions that it may answer.
        """
        began_s, wait_s = self._monotonic_s(), WAIT_S
        while True:
            part = self._wanted(at, ids, wait_s * self._uniform(1 - JITTER, 1 + JITTER))
            if part is not None:
                return part, end
            if self._monotonic_s() - began_s >= self._pace.grace_s:
                raise NotNowError(f"expected bytes of {path}, got none for {self._pace.grace_s:g} s")
            self._window = max(WINDOW_BYTES_MIN, self._window // 4)
            end = self._ask(path, at, ids)
            wait_s *= 2

    def _ask(self, path: str, at: int, ids: set[str]) -> int:
        """For a window from *at* on; where it ends."""
        ask = AskRelease(1, secrets.token_hex(8), path, at, self._window)
        ids.add(ask.id)
        self._pipe.ask(ask)
        return at + self._window

    def _wanted(self, at: int, ids: set[str], seconds: float) -> Part | None:
        until_s = self._monotonic_s() + min(seconds, self._pace.grace_s)
        while (left_s := until_s - self._monotonic_s()) > 0:
            part = self._pipe.part(left_s)
            if part is not None and part.id in ids and part.offset == at:
                return part
        return None
