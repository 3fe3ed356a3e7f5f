"""Question and answer over one port that several drivers may share: one question at a time, a pause between two, and
after a silence time enough for an answer that is only late.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
ANSWER_BYTES_MAX: Final = 4096
QUIET_S_MAX: Final = 0.5
"""An answer that is later than this after its time is not waited for."""


class NoAnswerError(Exception):
    """Nothing came in time, or nothing that is an answer; the message says which."""


class PortClosedError(Exception):
    """The port is not open; the message says why. It is being opened again."""


class Port(Protocol):
    """Bytes to and from an instrument; opened again after any error. ``closed_because``: empty while it is open."""

    closed_because: str

    @property
    def opening(self) -> bool:
        """Whether the first attempt has not ended yet."""

    def start(self) -> None:
        """Begin to open it; idempotent."""

    def send(self, data: bytes) -> None:
        """Have *data* written. Raises PortClosedError."""

    async def close(self) -> None:
        """Let go of it. Idempotent."""


Opens: TypeAlias = Callable[[Callable[[bytes], None], Callable[[str], None]], Port]
"""Makes a port from who hears bytes, and who is told when it has opened (empty) or closed (why)."""


class QuestionBus:
    """One port, opened when it is first asked."""

    def __init__(self, opens: Opens) -> None:
        self._port = opens(self._heard, self._told)
        self._turn = asyncio.Lock()
        self._came = bytearray()
        self._news = asyncio.Event()
        self._quiet_until_s = 0.0
        self.users = 0

    async def ask(
        self, question: bytes, answer: Callable[[bytes], T | None], *, timeout_s: float, pause_s: float = 0.0
    ) -> T:
        """Send *question*; return what *answer* makes of the bytes that come, as soon as it is not None. What
        *answer* raises is raised. What came before the question is never part of the answer.

        Raises:
            PortClosedError: there is no port to ask through.
            NoAnswerError: no answer within *timeout_s*, or too many bytes.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            self._port.start()
            while self._port.opening:
                await self._wait(loop.time() + timeout_s)
            if self._port.closed_because:
                raise PortClosedError(self._port.closed_because)
            if wait_s := max(0.0, self._quiet_until_s - loop.time()):
                await asyncio.sleep(wait_s)
            self._came.clear()
            self._port.send(question)
            until_s = loop.time() + timeout_s
            self._quiet_until_s = until_s + min(timeout_s, QUIET_S_MAX)  # unless the answer comes
            while (found := answer(bytes(self._came))) is None:
                await self._wait(until_s)
                if self._port.closed_because:
                    raise PortClosedError(self._port.closed_because)
            self._quiet_until_s = loop.time() + pause_s
            return found

    async def _wait(self, until_s: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout_at(until_s):
                await self._news.wait()
        except TimeoutError:
            got = f"{len(self._came)} bytes that are none" if self._came else "silence"
            raise NoAnswerError(f"no answer in time: {got}") from None

    def _heard(self, data: bytes) -> None:
        if len(self._came) < ANSWER_BYTES_MAX:
            self._came += data
        self._news.set()

    def _told(self, _why: str) -> None:
        self._quiet_until_s = 0.0  # no late answer comes through a port that was closed
        self._news.set()

    async def close(self) -> None:
        """See Port.close."""
        await self._port.close()


_buses: dict[str, QuestionBus] = {}
"""A port has one owner in a process, so this is the process's."""


def join(name: str, opens: Opens) -> QuestionBus:
    """The bus of the port of that *name*. Whoever joins leaves once. That all agree on its settings was checked."""
    bus = _buses.get(name)
    if bus is None:
        bus = _buses[name] = QuestionBus(opens)
    bus.users += 1
    return bus


async def leave(name: str, bus: QuestionBus) -> None:
    """The last one closes the port."""
    bus.users -= 1
    if bus.users == 0 and _buses.get(name) is bus:
        del _buses[name]
        await bus.close()
