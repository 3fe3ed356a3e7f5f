"""Questions to an SNMP agent over UDP, one at a time for each agent, however many drivers ask it."""

import asyncio
import itertools
import random
import re
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from broker_config.text import shown
from firmware_bridge.adapters.snmp_codec import ERRORS, TOO_BIG, Answer, Oid, Question, Version
from firmware_bridge.readings import Failed

OIDS_MAX: Final = 16
"""In one question; small controllers have small buffers."""
PORT: Final = 161
_ADDRESS: Final = re.compile(r"udp:(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]+))(?::(?P<port>\d{1,5}))?")


class SnmpOptions(Struct, frozen=True, kw_only=True):
    """``at``: ``udp:HOST`` or ``udp:HOST:PORT``. ``community``: what the agent takes for reading;
    ``write_community``: for writing, where it is another one.
    """

    at: Annotated[str, Meta(min_length=1, max_length=255)]
    version: Version = "1"
    community: Annotated[str, Meta(min_length=1, max_length=64)] = "public"
    write_community: Annotated[str, Meta(max_length=64)] = ""
    timeout_ms: Annotated[int, Meta(ge=50, le=10_000)] = 1000
    retries: Annotated[int, Meta(ge=0, le=5)] = 1

    def __post_init__(self) -> None:
        parse_address(self.at)


class Address(NamedTuple):
    """Of an agent."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Read ``udp:HOST`` or ``udp:HOST:PORT``; an address with colons is in brackets. Raises ValueError."""
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 0 < port < 65_536:
        raise ValueError(f"at: expected udp:HOST or udp:HOST:PORT, got {shown(text, 80)!r}")
    return Address(found["v6"] or found["host"], port)


class AgentError(Exception):
    """The agent did not answer; the message says what came instead."""


class _Wire(asyncio.DatagramProtocol):
    """What came from the agent's address; the kernel drops what comes from any other."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[bytes | OSError] = asyncio.Queue(32)

    def datagram_received(self, data: bytes, _address: object) -> None:
        self._put(data)

    def error_received(self, error: Exception) -> None:
        self._put(error if isinstance(error, OSError) else OSError(str(error)))

    def _put(self, what: bytes | OSError) -> None:
        if not self.came.full():
            self.came.put_nowait(what)


class SnmpAgent:
    """One agent, asked one question at a time."""

    def __init__(self, options: SnmpOptions) -> None:
        self._told = options
        self._turn = asyncio.Lock()
        # where an answer to a process before this one would come late, it must not be taken for one to us
        self._numbers = itertools.cycle(range(random.randrange(1, 2**30), 2**31))  # noqa: S311  # no secret
        self._open: tuple[asyncio.DatagramTransport, _Wire] | None = None
        self.users = 0

    async def get(self, oids: tuple[Oid, ...], until_s: float) -> dict[Oid, int | Failed]:
        """The number of each of *oids*, or why there is none. *until_s*: of the loop's clock.

        Raises:
            AgentError: no answer.
        """
        out: dict[Oid, int | Failed] = {}
        todo = [oids[at : at + OIDS_MAX] for at in range(0, len(oids), OIDS_MAX)]
        while todo:
            asked = todo.pop(0)
            answer = await self._ask(asked, (), counter=False, until_s=until_s)
            if not answer.error:
                found = answer.values
                out |= {oid: Failed(n) if isinstance(n, str) else n for oid, n in found.items()}
            elif answer.error == TOO_BIG and len(asked) > 1:
                todo[:0] = [asked[: len(asked) // 2], asked[len(asked) // 2 :]]
            elif answer.error_at or len(asked) == 1:
                # version 1 refuses the whole question for one object: the rest is asked again without it
                refused = asked[max(answer.error_at, 1) - 1]
                out[refused] = Failed(_why(answer))
                todo[:0] = [rest] if (rest := tuple(oid for oid in asked if oid != refused)) else []
            else:
                todo[:0] = [(oid,) for oid in asked]
        return out

    async def set(self, oid: Oid, value: int, *, counter: bool, until_s: float) -> str | None:
        """Have *oid* become *value*, asked once; why the agent refused, or None.

        Raises:
            AgentError: no answer: nobody knows whether it was done.
        """
        answer = await self._ask((oid,), (value,), counter=counter, until_s=until_s)
        return _why(answer) if answer.error else None

    async def _ask(self, oids: tuple[Oid, ...], sets: tuple[int, ...], *, counter: bool, until_s: float) -> Answer:
        told = self._told
        community = told.write_community or told.community if sets else told.community
        tries = 1 if sets else 1 + told.retries
        try:
            async with asyncio.timeout_at(until_s), self._turn:
                while True:
                    tries -= 1
                    question = Question(told.version, community, next(self._numbers), oids, sets, counter)
                    try:
                        return await self._once(question)
                    except AgentError:
                        if not tries:
                            raise
        except TimeoutError:
            raise AgentError("the agent did not answer in time") from None

    async def _once(self, question: Question) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            if self._open is None:
                self._open = await loop.create_datagram_endpoint(_Wire, remote_addr=parse_address(self._told.at))
            transport, wire = self._open
            while not wire.came.empty():
                wire.came.get_nowait()
            transport.sendto(question.message())
            async with asyncio.timeout(self._told.timeout_ms / 1000):
                while True:
                    came = await wire.came.get()
                    if isinstance(came, OSError):
                        raise came
                    answer = question.answer(came)
                    if answer is not None:
                        return answer
        except TimeoutError:
            self._drop()  # its address may be another by now
            raise AgentError(f"the agent did not answer within {self._told.timeout_ms} ms") from None
        except OSError as error:
            self._drop()
            raise AgentError(shown(error.strerror or str(error) or type(error).__name__)) from error

    def _drop(self) -> None:
        if self._open is not None:
            self._open[0].close()
            self._open = None

    def close(self) -> None:
        """Let go of the socket. Idempotent."""
        self._drop()


def _why(answer: Answer) -> str:
    return ERRORS.get(answer.error, f"the agent answers error {answer.error}")


_agents: dict[Address, SnmpAgent] = {}
"""An agent has one owner in a process, so this is the process's."""


def join(options: SnmpOptions) -> SnmpAgent:
    """The agent at *options*' address. Whoever joins leaves once. That all agree on the rest is checked before."""
    key = parse_address(options.at)
    agent = _agents.get(key)
    if agent is None:
        agent = _agents[key] = SnmpAgent(options)
    agent.users += 1
    return agent


def leave(options: SnmpOptions, agent: SnmpAgent) -> None:
    """The last one closes the socket."""
    agent.users -= 1
    key = parse_address(options.at)
    if agent.users == 0 and _agents.get(key) is agent:
        del _agents[key]
        agent.close()
