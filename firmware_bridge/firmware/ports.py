"""What an updater needs: a device, a journal, and somebody who knows whether the moment is right."""

from collections.abc import AsyncIterator
from typing import Protocol

from firmware_bridge.firmware.flow import Row, Slots


class LinkError(Exception):
    """The device did not answer, or the link broke. Whether an order arrived is not known."""


class DeviceRefusedError(Exception):
    """The device answered that it will not; the message says what it said."""


class McuDevice(Protocol):
    """One microcontroller with two slots. One call at a time; each ends within a deadline of its own.

    All raise LinkError, after which the next call opens the link anew, and DeviceRefusedError.
    """

    async def slots(self) -> Slots:
        """What runs and what lies beside it."""

    def upload(self, data: bytes) -> AsyncIterator[int]:
        """Send *data* to the slot that does not run, from where the device says that it is; yields how many bytes it
        has. Never marks it for anything.
        """

    async def test(self, image: bytes) -> None:
        """Have *image* run once after the next reset."""

    async def reset(self) -> None:
        """Have the device start anew. No answer is no error."""

    async def confirm(self, image: bytes) -> None:
        """Keep *image*, which runs. The caller has read that it is the one that does."""

    async def close(self) -> None:
        """Let go of the link. Idempotent, never raises."""


class Journal(Protocol):
    """What was begun. One process at a time writes of a device.

    Trusted: whoever can write here can have a bad image tried again.
    """

    def find(self, device: str, image: bytes) -> Row | None:
        """The row of *image* on *device*."""

    def open_of(self, device: str) -> Row | None:
        """The row of *device* that has no verdict; at most one has none."""

    def write(self, row: Row) -> None:
        """Store *row*. Durable once it returns."""


class Surroundings(Protocol):
    """What is not the device's own to say. Each answers with why not, or nothing."""

    async def not_now(self) -> str:
        """Why this is a bad moment: a recording runs, the battery is low. Empty: it is a good one."""

    async def unwell(self) -> str:
        """What is wrong with the device since it runs the new image. Empty: nothing so far."""
