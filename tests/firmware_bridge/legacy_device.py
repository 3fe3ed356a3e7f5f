"""A device with a boot loader of one slot, which is lrzsz's receiver: blocks, checks and answers are its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firmware_bridge.peripherals.terminal import Terminal

OLD: Final = "1.0"
GREETING: Final = b"ACME Boot, Copyright ACME CORP\r\n"
CHUNK_BYTES: Final = 4096


@dataclass(slots=True)
class LegacyDevice:
    """``receiver``: the command of lrzsz's that takes the image into ``file``. ``down`` and ``up`` may change, or
    keep, what goes to the boot loader and what it answers. It runs ``new`` once the file is ``image``; after anything
    else it is ``dead``.
    """

    link: Path
    receiver: tuple[str, ...]
    image: bytes
    new: str
    file: Path
    runs: str = OLD
    dead: bool = False
    entered: int = 0
    answers_again: bool = True
    down: Callable[[bytes], bytes] = lambda data: data
    up: Callable[[bytes], bytes] = lambda data: data
    terminal: Terminal = field(init=False)
    _loading: asyncio.Task[None] | None = None
    _process: asyncio.subprocess.Process | None = None
    _line: bytes = b""

    def __post_init__(self) -> None:
        self.terminal = Terminal(self.link, self._hear)

    def _hear(self, data: bytes) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.write(self.down(data))
            return
        *lines, self._line = (self._line + data).split(b"\r")
        for line in lines:
            if self.dead:
                continue
            if line == b"version?":
                self.terminal.say(f"fw {self.runs}\r\n".encode())
            elif line == b"update" and self._loading is None:
                self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        self.entered += 1
        self.terminal.say(GREETING)
        process = self._process = await asyncio.create_subprocess_exec(
            *self.receiver,
            cwd=self.file.parent,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            while said := await process.stdout.read(CHUNK_BYTES):
                self.terminal.say(self.up(said))
            await process.wait()
        finally:
            self._process = None
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        taken = self.file.read_bytes() if self.file.exists() else b""
        whole = taken.rstrip(b"\x1a") == self.image.rstrip(b"\x1a")
        self.runs = self.new if whole else self.runs
        self.dead = not whole or not self.answers_again
        self._loading = None

    async def stop(self) -> None:
        """Unplug it."""
        self.terminal.unplug()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)


@contextlib.asynccontextmanager
async def legacy_device(
    directory: Path, receiver: tuple[str, ...], image: bytes, new: str
) -> AsyncIterator[LegacyDevice]:
    """Plugged in, and running OLD."""
    device = LegacyDevice(directory / "device", receiver, image, new, directory / "firmware.bin")
    device.terminal.plug()
    try:
        yield device
    finally:
        await device.stop()
