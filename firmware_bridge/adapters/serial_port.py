"""A serial port that comes back. A thread owns it: it opens it, reads it, writes to it, and after any error closes it
first and then resolves its path anew, for as long as it takes.

A pseudo terminal is a port as well, but takes no parity and has no modem lines, and a cable that is pulled is an end
of file there: every such error only means that the port is closed.
"""

import asyncio
import contextlib
import os
import random
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import serial
from msgspec import Meta, Struct

from broker_config.text import shown
from firmware_bridge import port_names, reopening
from firmware_bridge.adapters import question_bus
from firmware_bridge.adapters.question_bus import PortClosedError, QuestionBus
from firmware_bridge.port_names import NoPortError

READ_S: Final = 1.0
"""After so long without a byte it is asked whether the name still leads to the port that is open."""
WRITE_S: Final = 2.0
CHUNK_BYTES: Final = 4096
UNSENT_MAX: Final = 16
CLOSE_S: Final = 1.0


class SerialOptions(Struct, frozen=True, kw_only=True):
    """``port``: a name that stays with the instrument, see port_names; a path such as ``/dev/serial/by-id/...`` or a
    symbolic link is one. ``dtr`` and ``rts``: how the modem lines are held while the port is open; some boards reset
    by them.
    """

    port: Annotated[str, Meta(min_length=1, max_length=4096)]
    baud: Annotated[int, Meta(ge=50, le=4_000_000)] = 9600
    data_bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    dtr: Literal["on", "off"] = "on"
    rts: Literal["on", "off"] = "on"

    def __post_init__(self) -> None:
        check_port(self.port)

    @property
    def char_s(self) -> float:
        """How long one character takes on the wire."""
        return (1 + self.data_bits + (self.parity != "none") + self.stop_bits) / self.baud

    def line(self) -> tuple[object, ...]:
        """What two users of one port must agree on."""
        return (self.baud, self.data_bits, self.parity, self.stop_bits, self.dtr, self.rts)


def check_port(name: str) -> None:
    """Raise ValueError if *name* is none that stays with a device."""
    port_names.check(name)


_NOT_YET: Final = "not open yet"


class SerialPort:
    """The port and its thread. Everything but the thread's own part is called in the loop of :meth:`start`.

    *heard* gets bytes as they come; *changed* is told when the port has opened (empty) or closed (why).
    """

    def __init__(
        self,
        options: SerialOptions,
        *,
        heard: Callable[[bytes], None],
        changed: Callable[[str], None],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._options = options
        self._heard = heard
        self._changed = changed
        self._uniform = uniform
        self._unsent: deque[bytes] = deque()
        self._closing = threading.Event()
        self._lock = threading.Lock()  # so that a read is never woken through a descriptor that was closed
        self._port: serial.Serial | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self.closed_because = _NOT_YET
        """Empty while it is open."""

    @property
    def opening(self) -> bool:
        """Whether the first attempt has not ended yet."""
        return self.closed_because == _NOT_YET

    def start(self) -> None:
        """Begin to open it; idempotent."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, daemon=True, name="serial port")
            self._thread.start()

    def send(self, data: bytes) -> None:
        """Have *data* written. Raises PortClosedError: the port is not open, or does not take what it was given."""
        if self.closed_because:
            raise PortClosedError(self.closed_because)
        if len(self._unsent) >= UNSENT_MAX:
            raise PortClosedError("the port takes no bytes")
        self._unsent.append(data)
        self._wake()

    async def close(self) -> None:
        """Let go of the port; it is closed when this returns, unless the kernel keeps it. Idempotent."""
        self._closing.set()
        self._wake()
        if self._thread is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), CLOSE_S)

    def _wake(self) -> None:
        with self._lock:
            if self._port is not None:
                self._port.cancel_read()

    # In the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            why, earned = self._once()
            if self._closing.is_set():
                break
            failures = 1 if earned else failures + 1
            self._tell(self._state_is, why)
            if self._came_back(reopening.delay_s(failures, self._uniform)):
                failures = 0
        self._tell(self._ended.set)

    def _came_back(self, wait_s: float) -> bool:
        """Wait so long, or until what was away has come: who plugs a cable in does not wait for what failed before.
        Looking costs next to nothing, opening may take seconds or reset a board.
        """
        until_s = time.monotonic() + wait_s
        away = not self._there()
        while (left_s := until_s - time.monotonic()) > 0:
            if self._closing.wait(min(left_s, reopening.LOOK_S)):
                break
            if not self._there():
                away = True
            elif away:
                return True
        return False

    def _there(self) -> bool:
        try:
            return Path(self._path()).exists()
        except (NoPortError, OSError):
            return False

    def _path(self) -> str:
        """Where the name leads to now. Raises NoPortError."""
        if port_names.is_path(self._options.port):
            return self._options.port
        from firmware_bridge.adapters import usb_ports  # noqa: PLC0415  # a path needs none of it

        return usb_ports.resolve(self._options.port)

    def _once(self) -> tuple[str, bool]:
        """Open it and carry traffic until it fails; returns why, and whether that was after a good while."""
        opened_s = time.monotonic()
        earned = False
        try:
            port = self._open()
        except (OSError, ValueError, NoPortError, termios.error) as error:
            return _why(error), False
        with self._lock:
            self._port = port
        self._tell(self._state_is, "")
        try:
            while not self._closing.is_set():
                while self._unsent:
                    port.write(self._unsent.popleft())
                data = port.read(1)
                if data:
                    data += port.read(min(port.in_waiting, CHUNK_BYTES))
                    self._tell(self._hear, data)
                    earned = time.monotonic() - opened_s >= reopening.STABLE_S
                elif os.fstat(port.fileno()).st_rdev != Path(self._path()).stat().st_rdev:
                    return "another device has come in its place", earned
        except (OSError, NoPortError, termios.error) as error:
            return _why(error), earned
        finally:
            with self._lock:
                self._port = None
                with contextlib.suppress(OSError, termios.error):
                    port.close()
            self._unsent.clear()
        return "", earned

    def _open(self) -> serial.Serial:
        told = self._options
        port = serial.Serial()
        port.port = self._path()
        port.baudrate = told.baud
        port.bytesize = told.data_bits
        port.parity = told.parity[0].upper()
        port.stopbits = told.stop_bits
        port.timeout = READ_S
        port.write_timeout = WRITE_S
        port.exclusive = True
        port.dtr = told.dtr == "on"  # before it is open: taken over with the opening
        port.rts = told.rts == "on"
        port.open()
        return port

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(call, *arguments)

    # In the loop ------------------------------------------------------------------------------------------------

    def _state_is(self, why: str) -> None:
        self.closed_because = why
        self._changed(why)

    def _hear(self, data: bytes) -> None:
        if not self._closing.is_set():
            self._heard(data)


def _why(error: Exception) -> str:
    if isinstance(error, termios.error):
        return f"the port does not take these settings: {shown(error.args[-1] if error.args else error)}"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    text = shown(error) or type(error).__name__
    # pyserial's words for an end of file
    return "the device hung up" if "returned no data" in text else text


def joined(options: SerialOptions) -> QuestionBus:
    """The bus of *options.port*; see :func:`firmware_bridge.adapters.question_bus.join`."""
    return question_bus.join(options.port, lambda heard, changed: SerialPort(options, heard=heard, changed=changed))
