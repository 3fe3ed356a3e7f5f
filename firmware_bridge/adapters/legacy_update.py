"""Carries a legacy update out over a serial port: ask what it runs, enter the boot loader, send, ask again."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta

from firmware_bridge import legacy_boot
from firmware_bridge.adapters.question_bus import PortClosedError
from firmware_bridge.adapters.serial_port import SerialOptions, SerialPort
from firmware_bridge.legacy_boot import VERDICTS, RefusedError, Report
from firmware_bridge.xymodem import Outcome, Protocol, Sender, State

HEARD_BYTES_MAX: Final = 4096
QUIET_S: Final = 0.1
"""What a boot loader greets with is over after so long."""
POLL_S: Final = 0.05
"""How often a port that is closed is looked at."""

Seconds = Annotated[float, Meta(gt=0, le=600)]
Text = Annotated[str, Meta(max_length=256)]


class LegacyBootOptions(SerialOptions, frozen=True, kw_only=True):
    """``ask``: what is written to have the device say what it runs, ``version``: a pattern whose only group is that
    in the answer. ``enter``: what is written to have it enter its boot loader. ``answer_s``: for one answer,
    ``invite_s``: until the boot loader invites, ``block_s``: until it takes a block, ``whole_s``: for the whole
    transfer, ``return_s``: until the device says again what it runs.
    """

    protocol: Protocol
    ask: Text
    version: Text
    enter: Text = ""
    bytes_max: Annotated[int, Meta(ge=1, le=legacy_boot.IMAGE_BYTES_MAX)] = legacy_boot.IMAGE_BYTES_MAX
    answer_s: Seconds = 2.0
    invite_s: Seconds = 30.0
    # receivers take an end for one only after a second of silence: who repeats it sooner is never done
    block_s: Annotated[float, Meta(ge=1.5, le=60)] = 10.0
    whole_s: Annotated[float, Meta(gt=0, le=7200)] = 1800.0
    return_s: Seconds = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            groups = re.compile(self.version).groups
        except re.error as error:
            raise ValueError(f"version: expected a pattern, got {self.version!r}: {error}") from None
        if groups != 1:
            raise ValueError(f"version: expected a pattern with one group, got {groups}")


class _Heard:
    """A port, and what came from it since it was last looked at."""

    def __init__(self, options: LegacyBootOptions) -> None:
        self._came = bytearray()
        self._news = asyncio.Event()
        self.port = SerialPort(options, heard=self._take, changed=lambda _why: self._news.set())
        self.port.start()

    def _take(self, data: bytes) -> None:
        self._came += data[: HEARD_BYTES_MAX - len(self._came)]
        self._news.set()

    def clear(self) -> None:
        """Forget what came."""
        self._came.clear()

    async def more(self, until_s: float) -> bytes:
        """What has come, as soon as something has or the port is closed; empty: nothing until then."""
        self._news.clear()
        if not self._came and not self.port.closed_because:
            try:
                async with asyncio.timeout_at(until_s):
                    await self._news.wait()
            except TimeoutError:
                return b""
        came = bytes(self._came)
        self._came.clear()
        return came


async def update(
    options: LegacyBootOptions,
    image: bytes,
    *,
    sha256: str,
    version: str,
    accepts_no_rollback: bool,
    progress: Callable[[int], None] = lambda _taken_bytes: None,
) -> Report:
    """Send *image*, which is *version*, to the device; *progress* is told how much of it was taken.

    Raises:
        RefusedError: it was not begun.
    """
    heard = _Heard(options)
    try:
        before = await _ask(heard, options, options.answer_s)
        why = legacy_boot.why_not(
            image,
            sha256=sha256,
            version=version,
            runs=before,
            bytes_max=options.bytes_max,
            accepts_no_rollback=accepts_no_rollback,
        )
        if why is not None:
            raise RefusedError(heard.port.closed_because or why)
        outcome = await _send(heard, options, Sender(image, options.protocol), progress)
        after = await _ask(heard, options, options.return_s)
        return Report(VERDICTS[outcome, legacy_boot.said(after, version)], outcome, before, after)
    finally:
        await heard.port.close()


async def _send(
    heard: _Heard, options: LegacyBootOptions, sender: Sender, progress: Callable[[int], None]
) -> Outcome:
    loop = asyncio.get_running_loop()
    whole_until_s = loop.time() + options.whole_s
    heard.clear()
    out, last_s = options.enter.encode(), loop.time()
    while sender.outcome is None:
        _write(heard, out)
        wait_s = options.invite_s if sender.state is State.INVITATION else options.block_s
        came = await heard.more(min(last_s + wait_s, whole_until_s))
        if came and sender.state is State.INVITATION:
            came = await _until_quiet(heard, came, whole_until_s)
        out = sender.heard(came)
        progress(sender.taken_bytes)
        if heard.port.closed_because or loop.time() >= whole_until_s:
            out = sender.lost()
        elif not came and loop.time() >= last_s + wait_s:
            out = sender.silent()
        if out or not came:
            last_s = loop.time()
    _write(heard, out)  # that it is given up, if it is
    return sender.outcome


def _write(heard: _Heard, data: bytes) -> None:
    """A port that is closed is seen when it is listened to."""
    if data:
        with contextlib.suppress(PortClosedError):
            heard.port.send(data)


async def _until_quiet(heard: _Heard, came: bytes, until_s: float) -> bytes:
    loop = asyncio.get_running_loop()
    while more := await heard.more(min(loop.time() + QUIET_S, until_s)):
        came = (came + more)[-HEARD_BYTES_MAX:]
    return came


async def _ask(heard: _Heard, options: LegacyBootOptions, seconds: float) -> str | None:
    """What the device says that it runs, asked until it answers or *seconds* are over."""
    loop = asyncio.get_running_loop()
    until_s, pattern = loop.time() + seconds, re.compile(options.version)
    while loop.time() < until_s:
        if heard.port.closed_because:
            await asyncio.sleep(POLL_S)
            continue
        heard.clear()
        try:
            heard.port.send(options.ask.encode())
        except PortClosedError:
            continue
        answer = b""
        answer_until_s = min(until_s, loop.time() + options.answer_s)
        while loop.time() < answer_until_s and len(answer) < HEARD_BYTES_MAX and not heard.port.closed_because:
            answer += await heard.more(answer_until_s)
            if (runs := legacy_boot.version_of(pattern, answer)) is not None:
                return runs
    return None
