"""A microcontroller with MCUboot and Zephyr in QEMU, whose flash outlives a power cut; and images for it.

QEMU's own loader writes an image again on every reset, which would undo a swap: the flash is written through the
debugger before the processor runs, and read back when the power is cut.
"""

import contextlib
import json
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from intelhex import IntelHex

from tests.firmware_bridge.signing import HEADER_BYTES
from tests.firmware_bridge.smp_peers import peer
from tests.servers import HOST, free_ports, program

FLASH_BYTES: Final = 256 * 1024
SLOT_AT: Final = 0x8000
"""Of the image that runs."""
RAM_AT: Final = 0x2000_0000
START_S_MAX: Final = 30.0
UP: Final = b"build time"
"""What its program says on the console when it is ready."""
POLL_S: Final = 0.02
PIECE_BYTES: Final = 1900


def first_flash() -> bytes:
    """MCUboot, and beside it the image that a device leaves its factory with."""
    found = IntelHex(str(peer("qemu_cortex_m0_serial.merged.hex")))
    found.padding = 0xFF
    data = found.tobinstr(0, FLASH_BYTES - 1)
    assert isinstance(data, bytes)
    return data


def body() -> bytes:
    """The program of an image that speaks SMP."""
    data = peer("qemu_cortex_m0_serial.signed.bin").read_bytes()
    header_bytes, _, body_bytes = struct.unpack_from("<HHI", data, 8)
    return data[header_bytes : header_bytes + body_bytes]


def hangs() -> bytes:
    """A small program that the boot loader takes, and that says nothing."""
    at = 0x40
    found = bytearray(range(256)) * 48
    struct.pack_into("<II", found, 0, RAM_AT + 0x2000, SLOT_AT + HEADER_BYTES + at + 1)  # stack, entry
    found[at : at + 2] = b"\xfe\xe7"  # branch to itself
    return bytes(found)


class _Debugger:
    """QEMU's; while it is connected the processor stands still until it is told to run."""

    def __init__(self, path: Path) -> None:
        self._socket = _connected(lambda: _to(path))

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE_BYTES):
            piece = data[at : at + PIECE_BYTES]
            if piece.strip(b"\xff"):
                answer = self._ask(b"M%x,%x:%s" % (at, len(piece), piece.hex().encode()))
                assert answer == b"OK", answer

    def _ask(self, question: bytes) -> bytes:
        self._socket.sendall(b"$%s#%02x" % (question, sum(question) & 255))
        came = b""
        while True:
            came += self._socket.recv(65_536)
            start = came.find(b"$")
            end = came.find(b"#", start)
            if 0 <= start < end <= len(came) - 3:
                self._socket.sendall(b"+")
                return came[start + 1 : end]

    def close(self) -> None:
        self._socket.close()


@dataclass(slots=True)
class Mcu:
    """``flash``: what it had when its power was last cut."""

    directory: Path
    port: int
    flash: bytes
    cuts: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _debugger: _Debugger | None = field(default=None, repr=False)

    @property
    def at(self) -> str:
        return f"tcp:{HOST}:{self.port}"

    def power_on(self, *, until_up: bool = True) -> None:
        """Start it with the flash that it has. *until_up*: and wait until its program says so on the console; its
        UART gets stuck for good when it hears something before.
        """
        assert self._process is None, "runs already"
        found = program("qemu-system-arm")
        assert found is not None
        command = [found, "-cpu", "cortex-m0", "-machine", "microbit", "-nographic", "-monitor", "none", "-S"]
        command += ["-chardev", f"socket,id=con,host={HOST},port={self.port},server=on,wait=off"]
        command += ["-serial", "chardev:con", "-qmp", f"unix:{self._qmp},server=on,wait=off"]
        command += ["-chardev", f"socket,id=gdb,path={self._gdb},server=on,wait=off", "-gdb", "chardev:gdb"]
        with (self.directory / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._debugger = _Debugger(self._gdb)
        self._debugger.write(self.flash)
        console = _connected(lambda: socket.create_connection((HOST, self.port), START_S_MAX))
        with console:
            self._order({"execute": "system_reset"}, {"execute": "cont"})
            said = b""
            while until_up and UP not in said:
                came = console.recv(4096)
                assert came, "the emulator hung up"
                said += came

    def cut(self) -> None:
        """Take its power away: what its flash has at this instant is all that is left."""
        file = self.directory / "flash"
        save = {"execute": "memsave", "arguments": {"val": 0, "size": FLASH_BYTES, "filename": str(file)}}
        self._order({"execute": "stop"}, save)
        self.end()
        self.flash = file.read_bytes()
        self.cuts += 1

    def cycle(self, *, until_up: bool = True) -> None:
        """Cut its power, and give it back."""
        self.cut()
        self.power_on(until_up=until_up)

    @property
    def _qmp(self) -> Path:
        return self.directory / "qmp"

    @property
    def _gdb(self) -> Path:
        return self.directory / "gdb"

    def _order(self, *orders: dict[str, Any]) -> None:
        wire = _connected(lambda: _to(self._qmp))
        with wire, wire.makefile("rw") as lines:
            _heard(lines)
            for order in ({"execute": "qmp_capabilities"}, *orders):
                lines.write(json.dumps(order) + "\n")
                lines.flush()
                while not (answer := _heard(lines)).keys() & {"return", "error"}:
                    pass
                assert "return" in answer, answer

    def end(self) -> None:
        """Take its power away and forget what it had. Idempotent."""
        process, self._process = self._process, None
        debugger, self._debugger = self._debugger, None
        if process is not None:
            process.kill()
            process.wait()
        if debugger is not None:
            debugger.close()


@contextlib.contextmanager
def mcu(flash: bytes | None = None, *, on: bool = True) -> Iterator[Mcu]:
    """One that has *flash*, or comes from its factory; it is gone with the block. *on*: it has power already."""
    # not pytest's own directory: the path of a socket has to be short
    with tempfile.TemporaryDirectory(prefix="mcu") as directory:
        (port,) = free_ports(1)
        found = Mcu(Path(directory), port, flash or first_flash())
        try:
            if on:
                found.power_on()
            yield found
        finally:
            found.end()


def _heard(lines: IO[str]) -> dict[str, Any]:
    line = lines.readline()
    assert line, "the emulator hung up"
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def _to(path: Path) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX)
    wire.settimeout(START_S_MAX)
    try:
        wire.connect(str(path))
    except OSError:
        wire.close()
        raise
    return wire


def _connected(connect: Callable[[], socket.socket]) -> socket.socket:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            return connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
