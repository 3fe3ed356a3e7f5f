"""A pseudo terminal with a stable name: the cable between an instrument that is played and its driver."""

import asyncio
import contextlib
import os
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 4096


class Terminal:
    """The instrument's end. *link* is the symbolic link that leads to the driver's end while it is plugged."""

    def __init__(self, link: Path, heard: Callable[[bytes], None]) -> None:
        self._link = link
        self._heard = heard
        self._near: int | None = None
        self._far: int | None = None

    @property
    def plugged(self) -> bool:
        """Whether the cable is in."""
        return self._near is not None

    def plug(self) -> None:
        """Make the terminal, and let the link lead to it."""
        assert self._near is None, "plugged already"
        # the far end stays open here: without any user of it the near end would fail
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        asyncio.get_running_loop().add_reader(self._near, self._readable)
        fresh = self._link.with_name(f"{self._link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._far))
        fresh.replace(self._link)

    def unplug(self) -> None:
        """Pull the cable: who has the far end open sees a hang-up, and the link is gone. Idempotent."""
        if self._near is None or self._far is None:
            return
        asyncio.get_running_loop().remove_reader(self._near)
        self._link.unlink(missing_ok=True)
        os.close(self._near)
        os.close(self._far)
        self._near = self._far = None

    def say(self, data: bytes) -> None:
        """Write; what nobody reads is lost, as on a wire."""
        if self._near is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(self._near, data)

    def _readable(self) -> None:
        assert self._near is not None
        with contextlib.suppress(OSError):
            self._heard(os.read(self._near, CHUNK_BYTES))
