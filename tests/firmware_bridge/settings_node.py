"""A microcontroller that has settings, as none of Zephyr's sample servers has: smp's own messages over UDP."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import cbor2
from smp import header as smp_header

from tests.servers import HOST


@dataclasses.dataclass
class Node(asyncio.DatagramProtocol):
    """``settings``: what it holds. ``deaf``: it says that it took what it is told, and does not. ``late``: before
    each answer it sends the one before again. An upload to it gets nowhere.
    """

    settings: dict[str, bytes]
    deaf: bool = False
    late: bool = False
    last: bytes = b""
    saved: dict[str, bytes] = dataclasses.field(default_factory=dict)
    port: int = 0
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: Any) -> None:
        header = smp_header.Header.loads(data[:8])
        told = cbor2.loads(data[8:])
        stuck = header.group_id == 1
        body = cbor2.dumps({"off": 7} if stuck else self._answer(int(header.command_id), header.op.value, told))
        head = bytearray(data[:8])
        head[0] |= 1  # an answer
        head[2:4] = len(body).to_bytes(2, "big")
        if self.late and self.last:
            self.transport.sendto(self.last, address)
        self.last = bytes(head) + body
        self.transport.sendto(self.last, address)

    def _answer(self, command: int, op: int, told: dict[str, Any]) -> dict[str, Any]:
        if command == 3:
            self.saved = dict(self.settings)
            return {}
        if told.get("name") not in self.settings:
            return {"err": {"group": 3, "rc": 3}}
        if op == 0:
            return {"val": self.settings[told["name"]]}
        if not self.deaf:
            self.settings[told["name"]] = told["val"]
        return {}


@contextlib.asynccontextmanager
async def node(**settings: bytes) -> AsyncIterator[Node]:
    """It answers until the block ends."""
    loop = asyncio.get_running_loop()
    transport, found = await loop.create_datagram_endpoint(lambda: Node(dict(settings)), local_addr=(HOST, 0))
    try:
        yield found
    finally:
        transport.close()
