"""A microcontroller with two slots as a model, with trouble where a test wants it. What it does of itself is what
Zephyr 4.4 and MCUboot were seen to do in QEMU.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from firmware_bridge.firmware.flow import Slots
from firmware_bridge.firmware.ports import DeviceRefusedError, LinkError

OLD = b"o" * 32
PIECES = 4
"""Of an upload."""
WATCHDOG_CALLS = 3


class KilledError(BaseException):
    """The updater's process ended here."""


class Trouble(StrEnum):
    """What goes wrong with one call, before the device has heard it or after."""

    NONE = "none"
    KILL_BEFORE = "kill before"
    KILL_AFTER = "kill after"
    LINK_BEFORE = "link before"
    LINK_AFTER = "link after"
    POWER_BEFORE = "power before"
    POWER_AFTER = "power after"


class Kind(StrEnum):
    """What becomes of the new image."""

    GOOD = "good"
    UNWELL = "unwell"
    """It runs, and something is wrong with it."""
    HANGS = "hangs"
    """It says nothing; a watchdog resets the device."""
    REJECTED = "rejected"
    """The boot loader does not take it."""


@dataclass
class ModelMcu:
    """See McuDevice. ``troubles``: one for each call, in their order."""

    new: bytes
    kind: Kind
    troubles: Iterator[Trouble]
    active: bytes = OLD
    confirmed: bool = True
    other: bytes = b""
    pending: bool = False
    uploaded: int = 0
    boots: list[bytes] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    unheard: int = 0

    async def _call(self, name: str) -> AsyncIterator[None]:
        trouble = next(self.troubles, Trouble.NONE)
        if trouble is Trouble.KILL_BEFORE:
            raise KilledError
        if trouble is Trouble.POWER_BEFORE:
            self._boot()
        if trouble is Trouble.LINK_BEFORE or self._mute():
            raise LinkError(name)
        self.orders.append(name)
        yield
        if trouble is Trouble.POWER_AFTER:
            self._boot()
        if trouble is Trouble.KILL_AFTER:
            raise KilledError
        if trouble in {Trouble.LINK_AFTER, Trouble.POWER_AFTER}:
            raise LinkError(name)

    def _mute(self) -> bool:
        if self.active != self.new or self.kind is not Kind.HANGS:
            return False
        self.unheard += 1
        if self.unheard >= WATCHDOG_CALLS:
            self.unheard = 0
            self._boot()
        return True

    def _boot(self) -> None:
        self.uploaded = 0
        if self.pending:
            self.pending = False
            if self.kind is Kind.REJECTED:
                self.other = b""
            else:
                self.active, self.other, self.confirmed = self.other, self.active, False
        elif not self.confirmed:
            self.active, self.other, self.confirmed = self.other, self.active, True
        self.boots.append(self.active)

    async def slots(self) -> Slots:
        async for _ in self._call("slots"):
            found = Slots(self.active, self.confirmed, self.other, self.pending)
        return found

    async def upload(self, data: bytes) -> AsyncIterator[int]:
        if self.uploaded == 0:
            self.other = b""
        while self.uploaded < PIECES:
            async for _ in self._call("upload"):
                self.uploaded += 1
                if self.uploaded == PIECES:
                    self.other = self.new
            yield self.uploaded * len(data) // PIECES
        self.uploaded = 0

    async def test(self, image: bytes) -> None:
        async for _ in self._call("test"):
            if image != self.other:
                raise DeviceRefusedError("no such image")
            self.pending = True

    async def reset(self) -> None:
        try:
            async for _ in self._call("reset"):
                self._boot()
        except LinkError:
            pass

    async def confirm(self, image: bytes) -> None:
        async for _ in self._call("confirm"):
            self.confirmed = True

    async def close(self) -> None:
        return
