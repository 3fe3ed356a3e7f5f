"""Passes on, between the broker and the child that fetches a release, what the one asks and the other answers:
nothing of it is read here but that it is short enough. Loaded only where releases come over MQTT.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from broker_config.ids import ContractError
from broker_config.limits import RELEASE_WINDOW_BYTES_MAX
from broker_config.release_chunks import PART_BYTES_MAX, decode_ask, encode_ask
from broker_config.text import shown
from edge_agent.adapters import child
from edge_agent.adapters.child import ChildError, Ended

logger = logging.getLogger(__name__)

WAITING_BYTES_MAX: Final = 2 * RELEASE_WINDOW_BYTES_MAX
"""For the child; what comes beyond it is dropped, and asked for again."""
QUESTION: Final = b'{"t":"release",'
NO_CONNECTION: Final = bytes(4)


class ReleaseRelay:
    """For one child at a time. All calls are the agent's loop's."""

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        """*send*: says it on ``up/release``; whether there is a connection."""
        self._send = send
        self._turn = asyncio.Lock()
        self._to: asyncio.StreamWriter | None = None

    def told(self, payload: bytes) -> None:
        """A message on ``dn/chunk``, whoever said it; nobody waits for it: it is dropped."""
        if len(payload) <= PART_BYTES_MAX and payload:
            self._give(len(payload).to_bytes(4, "big") + payload)

    def disconnected(self) -> None:
        """Nothing that was asked for will come."""
        self._give(NO_CONNECTION)

    async def ask(self, module: str, *, seconds_max: float, arguments: Sequence[str]) -> Ended:
        """As :func:`edge_agent.adapters.child.ask`, its questions passed on meanwhile. Raises ChildError."""
        async with self._turn, child.started(module, arguments) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            self._to = process.stdin
            try:
                async with asyncio.timeout(seconds_max):
                    saying = asyncio.ensure_future(process.stderr.read())
                    try:
                        answer = await self._answer(process.stdout)
                        said = await saying
                    finally:
                        saying.cancel()
                    code = await process.wait()
            except (TimeoutError, OSError, ValueError) as error:  # ValueError: a line without an end
                raise ChildError(f"no answer within {seconds_max:g} s: {shown(error)}") from error
            finally:
                self._to = None
        return Ended(code, answer, said)

    async def _answer(self, lines: asyncio.StreamReader) -> bytes:
        """What is no question."""
        answer = b""
        while line := await lines.readline():
            if not line.startswith(QUESTION):
                answer = line
                continue
            try:
                question = encode_ask(decode_ask(line))
            except ContractError as error:
                logger.warning("question not passed on", extra={"why": shown(error)})
                continue
            if not self._send(question):
                self._give(NO_CONNECTION)
        return answer

    def _give(self, data: bytes) -> None:
        to = self._to
        if to is None or to.is_closing() or to.transport.get_write_buffer_size() > WAITING_BYTES_MAX:
            return
        with contextlib.suppress(OSError):
            to.write(data)
