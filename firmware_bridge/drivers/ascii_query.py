"""``ascii_query``: an instrument that answers a query line with one line of ``name=value name=value``."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from broker_config.text import shown
from firmware_bridge.adapters.lines import SERIAL, Asks, LineClient, LineError, SerialLine, parse_address
from firmware_bridge.driver import Driver, MonoMs, Resource, all_failed
from firmware_bridge.readings import Failed, Identity, Quality, Reading, Result, Results


class AsciiQueryOptions(Struct, frozen=True):
    """``at``: ``tcp:HOST:PORT``, ``unix:PATH`` or ``serial:PATH`` (8N1 at ``baud``). ``names``: our point -> the
    instrument's name, where they differ. ``time_name``: the name under which the instrument tells its own time in ms
    since the epoch, if it does. ``identity_query``: what is asked for ``maker,model,serial,firmware``, such as
    ``*IDN?`` of IEEE 488.2; the last two may be missing. Empty: it cannot be asked.
    """

    at: Annotated[str, Meta(min_length=1, max_length=4096)]
    query: Annotated[str, Meta(max_length=256)] = "READ?\n"
    names: dict[str, str] = {}
    time_name: str = ""
    baud: Annotated[int, Meta(ge=50, le=4_000_000)] = 115_200
    identity_query: Annotated[str, Meta(max_length=256)] = ""

    def __post_init__(self) -> None:
        address = parse_address(self.at)
        if address.port == SERIAL:
            from firmware_bridge.adapters.serial_port import check_port  # noqa: PLC0415  # see client()

            check_port(address.host)


def client(options: AsciiQueryOptions) -> Asks:
    """A serial port's library loads only for a serial port."""
    address = parse_address(options.at)
    if address.port != SERIAL:
        return LineClient(address)
    from firmware_bridge.adapters.serial_port import SerialOptions  # noqa: PLC0415

    return SerialLine(SerialOptions(port=address.host, baud=options.baud))


def parse_answer(line: bytes) -> Mapping[str, str]:
    """The ``name=value`` pairs of a line; what is not such a pair is left out, the last of equal names counts."""
    pairs = (word.partition("=") for word in line.decode("ascii", "replace").split())
    return {name: value for name, equals, value in pairs if name and equals}


def parse_identity(line: bytes) -> Identity | None:
    """``maker,model,serial,firmware``; a part that is 0 is not known. None: it is no such line."""
    parts = [shown(part.strip(), 64) for part in line.decode("ascii", "replace").split(",")]
    if not 2 <= len(parts) <= 4:
        return None
    _maker, model, serial, firmware = ("" if part == "0" else part for part in (*parts, "", "")[:4])
    return Identity(serial, model, firmware)


def point_result(text: str | None, name: str, device_ms: int | None, received_ms: int) -> Result:
    """A point's result from its text in the answer; NaN and infinities are readings of bad quality."""
    if text is None:
        return Failed(f"{name} is not in the answer")
    try:
        value = float(text)
    except ValueError:
        return Failed(f"{name}: expected a number, got {shown(text, 40)!r}")
    return Reading(value, Quality.GOOD if math.isfinite(value) else Quality.BAD, device_ms, received_ms)


class AsciiQuery(Driver):
    kind = "ascii_query"
    summary = "query/response instrument: a query line out, one line of name=value pairs back"
    points = ()
    options_type = AsciiQueryOptions
    example = 'at = "tcp:192.0.2.7:5025"\nquery = "READ?\\n"\nnames = { temp_c = "T1" }'

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, AsciiQueryOptions)
        self._query = options.query.encode()
        self._identity_query = f"{options.identity_query.rstrip()}\n".encode() if options.identity_query else b""
        self._names = options.names
        self._time_name = options.time_name
        self._client = client(options)

    @classmethod
    def resource(cls, options: Struct) -> Resource | None:
        assert isinstance(options, AsciiQueryOptions)
        address = parse_address(options.at)
        return (address.host, (cls.kind, options.baud)) if address.port == SERIAL else None

    async def identify(self, deadline_s: float) -> Identity | Failed:
        if not self._identity_query:
            return Failed("there is no identity_query in its options")
        try:
            line = await self._client.ask(self._identity_query, deadline_s)
        except LineError as error:
            return Failed(shown(error))
        return parse_identity(line) or Failed(f"expected maker,model,serial,firmware, got {shown(line, 40)}")

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        try:
            line = await self._client.ask(self._query, deadline_s)
        except LineError as error:
            return all_failed(points, shown(error))
        received_ms = self._mono_ms()
        answer = parse_answer(line)
        time_text = answer.get(self._time_name, "")
        device_ms = int(time_text) if time_text.isascii() and time_text.isdigit() else None
        return {
            point: point_result(answer.get(name), name, device_ms, received_ms)
            for point, name in ((point, self._names.get(point, point)) for point in points)
        }

    async def close(self) -> None:
        await self._client.close()
