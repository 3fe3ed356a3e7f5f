"""Lines that somebody sends unasked over TCP: after any end of the connection it is opened again, for as long as it
takes.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

from broker_config.text import shown
from firmware_bridge import reopening

CONNECT_S: Final = 5.0
SILENT_S: Final = 60.0
"""After so long without a line the connection is opened anew: the other end may be gone without a word."""
_NOT_YET: Final = "not open yet"


class LineStream:
    """*heard* gets each line without its end; *changed* is told when it has opened (empty) or closed (why).
    *greeting* is sent at each opening.
    """

    def __init__(
        self,
        host: str,
        port: int,
        greeting: bytes,
        *,
        line_bytes_max: int,
        heard: Callable[[bytes], None],
        changed: Callable[[str], None],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._address = (host, port)
        self._greeting = greeting
        self._line_bytes_max = line_bytes_max
        self._heard = heard
        self._changed = changed
        self._uniform = uniform
        self._task: asyncio.Task[None] | None = None
        self.closed_because = _NOT_YET
        """Empty while it is open."""

    @property
    def opening(self) -> bool:
        """Whether the first attempt has not ended yet."""
        return self.closed_because == _NOT_YET

    def start(self) -> None:
        """Begin to open it; idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began_s = loop.time()
            why = await self._once()
            failures = 1 if loop.time() - began_s >= reopening.STABLE_S else failures + 1
            self._state_is(why)
            await asyncio.sleep(reopening.delay_s(failures, self._uniform))

    async def _once(self) -> str:
        """Open it and hear it until it ends; returns why."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(*self._address, limit=self._line_bytes_max)
                writer.write(self._greeting)
                await writer.drain()
            self._state_is("")
            while True:
                async with asyncio.timeout(SILENT_S):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    return "the other end closed the connection"
                self._heard(line.rstrip(b"\r\n"))
        except TimeoutError:
            return f"silent for {SILENT_S:g} s" if writer else f"no connection within {CONNECT_S:g} s"
        except ValueError:  # readline's word for a line past the limit
            return f"expected a line of at most {self._line_bytes_max} bytes, got more"
        except OSError as error:
            return shown(error.strerror or error) or type(error).__name__
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def _state_is(self, why: str) -> None:
        self.closed_because = why
        self._changed(why)
