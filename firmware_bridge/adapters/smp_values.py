"""What a driver asks over SMP, in a few messages of our own on cbor2: the library that updates use for theirs takes
two thirds of what a whole agent may.

Message: operation and version u8, flags u8, length u16, group u16, sequence u8, command u8, then a CBOR map; all
big-endian. Source: https://docs.zephyrproject.org/latest/services/device_mgmt/smp_protocol.html
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import cycle
from typing import Final

import cbor2

from broker_config.text import shown
from firmware_bridge.adapters.smp_links import BROKEN, HEADER_BYTES, Link, told
from firmware_bridge.firmware.ports import DeviceRefusedError, LinkError

CONNECT_S: Final = 20.0
CLOSE_S: Final = 5.0
READ, WRITE = 0, 2
VERSION_2: Final = 1 << 3
_HEADER: Final = struct.Struct(">BBHHBB")


class Group(IntEnum):
    """Of messages."""

    IMAGE = 1
    STATISTICS = 2
    SETTINGS = 3


class ValueSession:
    """Questions to one device, one at a time; the link is opened when it is needed, and anew after it broke."""

    def __init__(self, link: Callable[[], Link], *, answer_s: float) -> None:
        self._new_link = link
        self._answer_s = answer_s
        self._link: Link | None = None
        self._numbers = cycle(range(256))

    async def statistics(self, group: str) -> Mapping[str, int]:
        """The fields of a group. Raises LinkError, DeviceRefusedError."""
        fields = (await self._ask(READ, Group.STATISTICS, 0, {"name": group})).get("fields")
        if not isinstance(fields, dict):
            raise DeviceRefusedError("the device answers with what is not asked for")
        return {str(name): value for name, value in fields.items() if isinstance(value, int)}

    async def setting(self, name: str) -> bytes:
        """Its bytes. Raises LinkError, DeviceRefusedError."""
        found = (await self._ask(READ, Group.SETTINGS, 0, {"name": name})).get("val")
        if not isinstance(found, bytes):
            raise DeviceRefusedError("the device answers with what is not asked for")
        return found

    async def set(self, name: str, value: bytes) -> None:
        """Have the setting be *value*. Raises LinkError: nobody knows; DeviceRefusedError."""
        await self._ask(WRITE, Group.SETTINGS, 0, {"name": name, "val": value})

    async def save(self) -> None:
        """Have the device keep its settings over a reset. Raises LinkError, DeviceRefusedError."""
        await self._ask(WRITE, Group.SETTINGS, 3, {})

    async def confirmed(self) -> bool:
        """Whether the image that runs is. Raises LinkError, DeviceRefusedError."""
        images = (await self._ask(READ, Group.IMAGE, 0, {})).get("images")
        listed = images if isinstance(images, list) else []
        active = [each for each in listed if isinstance(each, dict) and each.get("active")]
        if len(active) != 1:
            raise DeviceRefusedError(f"expected one active image, got {len(active)}")
        return bool(active[0].get("confirmed"))

    async def _ask(self, op: int, group: Group, command: int, body: Mapping[str, object]) -> dict[str, object]:
        packed = cbor2.dumps(dict(body))
        head = _HEADER.pack(VERSION_2 | op, 0, len(packed), group, next(self._numbers), command)
        try:
            if self._link is None:
                self._link = self._new_link()
                async with asyncio.timeout(CONNECT_S):
                    await self._link.connect("", CONNECT_S)
            async with asyncio.timeout(self._answer_s):
                answer = await self._link.send_and_receive(head + packed)
        except BROKEN as error:
            await self.close()
            raise LinkError(shown(error) or f"no answer within {self._answer_s:g} s") from error
        except asyncio.CancelledError:
            await self.close()
            raise
        try:
            found = cbor2.loads(answer[HEADER_BYTES:])
        except (cbor2.CBORDecodeError, RecursionError, ValueError) as error:
            raise DeviceRefusedError("the device answers with what is no message") from error
        if not isinstance(found, dict) or "err" in found or found.get("rc"):
            raise DeviceRefusedError(told(answer))
        return found

    async def close(self) -> None:
        """Let go of the link. Idempotent, never raises."""
        link, self._link = self._link, None
        if link is not None:
            # whatever a broken link raises here, it is gone
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await link.disconnect()
