"""Question and answer over one serial port that several drivers may share: one question at a time, a pause between
two, and after a silence time enough for an answer that is only late.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from firmware_bridge.adapters.serial_port import PortClosedError, SerialOptions, SerialPort

__all__ = ["NoAnswerError", "PortClosedError", "SerialBus", "join", "leave"]

T = TypeVar("T")
ANSWER_BYTES_MAX: Final = 4096
QUIET_S_MAX: Final = 0.5
"""An answer that is later than this after its time is not waited for."""


class NoAnswerError(Exception):
    """Nothing came in time, or nothing that is an answer; the message says which."""


class SerialBus:
    """One port, opened when it is first asked."""

    def __init__(self, options: SerialOptions) -> None:
        self._port = SerialPort(options, heard=self._heard, changed=self._told)
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
        self._news.set()

    async def close(self) -> None:
        """See SerialPort.close."""
        await self._port.close()


_buses: dict[str, SerialBus] = {}
"""A port has one owner in a process, so this is the process's."""


def join(options: SerialOptions) -> SerialBus:
    """The bus of *options.port*. Whoever joins leaves once. That all agree on its settings is checked before."""
    bus = _buses.get(options.port)
    if bus is None:
        bus = _buses[options.port] = SerialBus(options)
    bus.users += 1
    return bus


async def leave(options: SerialOptions, bus: SerialBus) -> None:
    """The last one closes the port."""
    bus.users -= 1
    if bus.users == 0 and _buses.get(options.port) is bus:
        del _buses[options.port]
        await bus.close()
