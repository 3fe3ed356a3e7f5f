"""Ways to a device that speaks SMP: a serial port, TCP (a terminal server, an emulator), UDP, Bluetooth LE.

Only the ways are our own; the lines on a console are smp's. A link takes an answer only if it carries the number of
its question, so that one that comes late is no answer to the next.
"""

import asyncio
import contextlib
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

import cbor2
from smp import packet
from smp.exceptions import SMPException

from broker_config.text import shown
from firmware_bridge.adapters.question_bus import PortClosedError
from firmware_bridge.adapters.serial_port import SerialOptions, SerialPort
from firmware_bridge.gatt import SMP_CHARACTERISTIC, SMP_SERVICE

if TYPE_CHECKING:
    from firmware_bridge.adapters import ble

HEADER_BYTES: Final = 8
FRAME_BYTES_MAX: Final = 8192
LINE_BYTES: Final = 127
UNREAD_MAX: Final = 32
UNSAID_BYTES: Final = 252
"""What a device takes in one message that does not say how much it does."""
GATT_S: Final = 5.0
BAUD: Final = 115_200
ADDRESS: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
FRAMING_BYTES: Final = 4
"""Length and checksum, which share a serial device's buffer with the message."""


class LinkBrokenError(Exception):
    """The link is over; the message says why."""


BROKEN: Final = (LinkBrokenError, OSError, TimeoutError)
"""What a link raises when it does not work."""


class Link(ABC):
    """A way to one device, one question at a time. Whoever calls sets the deadline, by cancelling.

    It has the shape of smpclient's SMPTransport, and does not load it.
    """

    overhead_bytes = 0
    _smp_server_transport_buffer_size: int | None = None

    def __init__(self) -> None:
        self._came: asyncio.Queue[bytes | Exception] = asyncio.Queue(UNREAD_MAX)
        self.answer = b""
        """The last answer as it came, for who cannot make anything of its parsed form."""

    @abstractmethod
    async def connect(self, address: str, timeout_s: float) -> None:
        """Raises OSError, LinkBrokenError, TimeoutError."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Raises OSError, LinkBrokenError."""

    async def receive(self) -> bytes:
        came = await self._came.get()
        if isinstance(came, Exception):
            raise came
        return came

    async def send_and_receive(self, data: bytes) -> bytes:
        while not self._came.empty():
            if isinstance(came := self._came.get_nowait(), Exception):
                raise came
        await self.send(data)
        while True:
            answer = await self.receive()
            if len(answer) >= HEADER_BYTES and answer[6] == data[6]:
                self.answer = answer
                return answer

    def initialize(self, smp_server_transport_buffer_size: int) -> None:
        """Take what the device says that it has room for."""
        self._smp_server_transport_buffer_size = smp_server_transport_buffer_size

    @abstractmethod
    async def disconnect(self) -> None:
        """Idempotent."""

    @property
    def mtu(self) -> int:
        return (self._smp_server_transport_buffer_size or UNSAID_BYTES) - self.overhead_bytes

    @property
    def max_unencoded_size(self) -> int:
        return self.mtu

    def _put(self, what: bytes | Exception) -> None:
        if self._came.full():  # a flood; what waits for an answer is asked again
            self._came.get_nowait()
        self._came.put_nowait(what)


class _Lines:
    """Bytes of a console into frames: lines that begin as SMP's do, whatever else is printed between them."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._decoder: Any = None

    def feed(self, data: bytes) -> list[bytes]:
        self._unread += data
        frames = []
        while (end := self._unread.find(b"\n")) >= 0:
            line = bytes(self._unread[: end + 1])
            del self._unread[: end + 1]
            if (frame := self._line(line)) is not None:
                frames.append(frame)
        del self._unread[: max(0, len(self._unread) - FRAME_BYTES_MAX)]
        return frames

    def _line(self, line: bytes) -> bytes | None:
        if (start := line.find(packet.START_DELIMITER)) >= 0:
            self._decoder = packet.decode()
            next(self._decoder)
            line = line[start:]
        elif (start := line.find(packet.CONTINUE_DELIMITER)) >= 0 and self._decoder is not None:
            line = line[start:]
        else:
            return None
        try:
            self._decoder.send(line)
        except StopIteration as done:
            self._decoder = None
            frame = done.value
            assert isinstance(frame, bytes)
            return frame
        except (SMPException, ValueError):  # noise, or a console that prints into it
            self._decoder = None
        return None


class SerialLink(Link):
    """Console framing over a serial port."""

    overhead_bytes = FRAMING_BYTES

    def __init__(self, options: SerialOptions) -> None:
        super().__init__()
        self._options = options
        self._port: SerialPort | None = None
        self._lines = _Lines()

    async def connect(self, address: str, timeout_s: float) -> None:  # noqa: ARG002  # smpclient's
        self._lines = _Lines()
        opened = asyncio.Event()

        def changed(why: str) -> None:
            opened.set()
            if why:
                self._put(LinkBrokenError(why))

        port = self._port = SerialPort(self._options, heard=self._heard, changed=changed)
        port.start()
        async with asyncio.timeout(timeout_s):
            await opened.wait()
        if port.closed_because:
            raise LinkBrokenError(port.closed_because)

    async def disconnect(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.close()

    async def send(self, data: bytes) -> None:
        if self._port is None:
            raise LinkBrokenError("not open")
        try:
            self._port.send(b"".join(packet.encode(data, LINE_BYTES)))
        except PortClosedError as error:
            raise LinkBrokenError(str(error)) from error

    def _heard(self, data: bytes) -> None:
        for frame in self._lines.feed(data):
            self._put(frame)


class TcpLink(Link):
    """Console framing over TCP."""

    overhead_bytes = FRAMING_BYTES

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._host, self._port = host, port
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self, address: str, timeout_s: float) -> None:  # noqa: ARG002  # smpclient's
        async with asyncio.timeout(timeout_s):
            reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        lines = _Lines()
        try:
            while data := await reader.read(4096):
                for frame in lines.feed(data):
                    self._put(frame)
        except OSError as error:
            self._put(error)
            return
        self._put(LinkBrokenError("the far end hung up"))

    async def disconnect(self) -> None:
        writer, self._writer = self._writer, None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        if writer is not None:
            writer.transport.abort()

    async def send(self, data: bytes) -> None:
        if self._writer is None:
            raise LinkBrokenError("not open")
        self._writer.write(b"".join(packet.encode(data, LINE_BYTES)))
        await self._writer.drain()


class UdpLink(Link, asyncio.DatagramProtocol):
    """A message a datagram."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._host, self._port = host, port
        self._transport: asyncio.DatagramTransport | None = None

    async def connect(self, address: str, timeout_s: float) -> None:  # noqa: ARG002  # smpclient's
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: self, remote_addr=(self._host, self._port)
            )

    def datagram_received(self, data: bytes, _address: object) -> None:
        self._put(data)

    def error_received(self, error: Exception) -> None:
        self._put(error)

    async def disconnect(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    async def send(self, data: bytes) -> None:
        if self._transport is None:
            raise LinkBrokenError("not open")
        self._transport.sendto(data)


class GattLink(Link):
    """A characteristic that is written without response and answers by notifications, on a radio that others share.

    smpclient's own transport is not used: it raises RuntimeError where it should raise TimeoutError, and writes more
    than an attribute can hold.
    """

    def __init__(self, address: str, adapter: str = "hci0", backends: "ble.Backends | None" = None) -> None:
        super().__init__()
        from firmware_bridge.adapters import ble  # noqa: PLC0415  # loads only where there is Bluetooth

        self._ble = ble
        self._address = address.upper()
        self._told = adapter, backends or ble.PLATFORM
        self._adapter: ble.BleAdapter | None = None
        self._link: ble.BleLink | None = None
        self._watching: asyncio.Task[None] | None = None
        self._unread = bytearray()

    async def connect(self, address: str, timeout_s: float) -> None:  # noqa: ARG002  # smpclient's
        self._adapter = self._ble.join(*self._told)
        self._unread.clear()
        try:
            self._link = await self._adapter.connect(
                self._address, scan_s=timeout_s, connect_s=timeout_s, io_s=GATT_S
            )
            await self._link.subscribe(SMP_SERVICE, SMP_CHARACTERISTIC, self._notified)
        except (self._ble.BleError, self._ble.NoValueError) as error:
            raise LinkBrokenError(str(error)) from error
        self._watching = asyncio.create_task(self._watch(self._link))

    async def _watch(self, link: "ble.BleLink") -> None:
        await link.lost.wait()
        self._put(LinkBrokenError("the connection was lost"))

    def _notified(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= HEADER_BYTES:
            length = HEADER_BYTES + int.from_bytes(self._unread[2:4], "big")
            if len(self._unread) < length:
                break
            self._put(bytes(self._unread[:length]))
            del self._unread[:length]

    async def disconnect(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            self._ble.leave(*self._told, adapter)

    async def send(self, data: bytes) -> None:
        if self._link is None:
            raise LinkBrokenError("not open")
        self._unread.clear()
        try:
            await self._link.write(SMP_SERVICE, SMP_CHARACTERISTIC, data)
        except (self._ble.BleError, self._ble.NoValueError) as error:
            raise LinkBrokenError(str(error)) from error


def link_to(at: str) -> Link:
    """The way that *at* names: ``serial:PATH``, ``tcp:HOST:PORT``, ``udp:HOST:PORT`` or ``ble:ADDRESS``.

    Raises:
        ValueError: it names none.
    """
    scheme, _, rest = at.partition(":")
    if scheme == "serial" and rest:
        return SerialLink(SerialOptions(port=rest, baud=BAUD))
    if scheme == "ble" and ADDRESS.fullmatch(rest):
        return GattLink(rest)
    host, _, port = rest.rpartition(":")
    if scheme in {"tcp", "udp"} and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
        kind = TcpLink if scheme == "tcp" else UdpLink
        return kind(host.strip("[]"), int(port))
    raise ValueError(f"expected serial:PATH, tcp:HOST:PORT, udp:HOST:PORT or ble:ADDRESS, got {at[:80]!r}")


def told(answer: bytes) -> str:
    """What an error says, whether or not the library has a name for it."""
    try:
        body = cbor2.loads(answer[HEADER_BYTES:])
    except (cbor2.CBORDecodeError, RecursionError, ValueError):
        return "the device answers with what is no message"
    if isinstance(body, dict):
        inner = body.get("err")
        if isinstance(inner, dict) and isinstance(inner.get("rc"), int):
            return f"the device answers error {inner['rc']} of group {shown(inner.get('group'), 20)}"
        if isinstance(body.get("rc"), int) and body["rc"]:
            return f"the device answers error {body['rc']}"
    return "the device answers with what is not asked for"
