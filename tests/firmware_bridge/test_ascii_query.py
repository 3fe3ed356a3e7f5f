import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firmware_bridge.adapters.lines import LINE_BYTES_MAX, Address, BadAddressError, parse_address
from firmware_bridge.drivers.ascii_query import AsciiQuery, AsciiQueryOptions, parse_answer, point_result
from firmware_bridge.readings import Failed, Quality, Reading

DEADLINE_S = 0.3


@dataclass(slots=True)
class Instrument:
    """The far end. ``answer`` makes each answer; None is silence, empty hangs up."""

    answer: Callable[[int], bytes | None]
    asked: list[bytes] = field(default_factory=list)
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    address: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.asked.append(line)
                answer = self.answer(len(self.asked))
                if answer == b"":
                    break
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def instrument(answer: Callable[[int], bytes | None], path: Path | None = None) -> AsyncIterator[Instrument]:
    found = Instrument(answer)
    if path is None:
        server: asyncio.Server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
        found.address = f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(found.serve, path)
        found.address = f"unix:{path}"
    try:
        yield found
    finally:
        server.close()
        for writer in found.writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in found.writers), return_exceptions=True)


def driver(address: str, **options: object) -> AsciiQuery:
    return AsciiQuery(AsciiQueryOptions(at=address, **options), lambda: 77)  # type: ignore[arg-type]


@pytest.mark.parametrize("over_unix", [False, True])
async def test_each_point_has_its_own_result(tmp_path: Path, over_unix: bool) -> None:
    path = tmp_path / "socket" if over_unix else None
    async with instrument(lambda _n: b"T1=21.5 hum=x junk =3 co2=400\n", path) as far:
        d = driver(far.address, names={"temp_c": "T1"})
        results = await d.read(("temp_c", "hum", "co2", "door"), DEADLINE_S)
        await d.close()
    assert far.asked == [b"READ?\n"]
    assert results == {
        "temp_c": Reading(21.5, Quality.GOOD, None, 77),
        "hum": Failed("hum: expected a number, got 'x'"),
        "co2": Reading(400.0, Quality.GOOD, None, 77),
        "door": Failed("door is not in the answer"),
    }


async def test_the_instruments_own_time_is_taken_over() -> None:
    async with instrument(lambda _n: b"at=1790000000000 x=1\n") as far:
        d = driver(far.address, time_name="at")
        assert await d.read(("x",), DEADLINE_S) == {"x": Reading(1.0, Quality.GOOD, 1_790_000_000_000, 77)}
        await d.close()


async def test_a_late_answer_is_never_taken_for_the_next_one() -> None:
    release = asyncio.Event()
    closed: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        first = not release.is_set()
        if first:
            await release.wait()
        with contextlib.suppress(ConnectionError):
            writer.write(b"x=1\n" if first else b"x=2\n")
            await writer.drain()
        writer.close()
        closed.append(asyncio.ensure_future(writer.wait_closed()))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    d = driver(f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert await d.read(("x",), DEADLINE_S) == {"x": Failed("no answer within 0.3 s")}
    release.set()
    assert await d.read(("x",), DEADLINE_S) == {"x": Reading(2.0, Quality.GOOD, None, 77)}
    await d.close()
    server.close()
    await asyncio.gather(*closed, return_exceptions=True)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "the other end closed the connection"),
        (b"x" * (2 * LINE_BYTES_MAX) + b"\n", f"expected a line of at most {LINE_BYTES_MAX} bytes, got more"),
        (None, "no answer within 0.3 s"),
    ],
)
async def test_after_any_fault_it_connects_anew(bad: bytes | None, why: str) -> None:
    async with instrument(lambda n: bad if n == 1 else b"x=5\n") as far:
        d = driver(far.address)
        assert await d.read(("x",), DEADLINE_S) == {"x": Failed(why)}
        assert await d.read(("x",), DEADLINE_S) == {"x": Reading(5.0, Quality.GOOD, None, 77)}
        await d.close()
        assert far.connections == 2


async def test_nobody_there_is_a_failure_of_each_point() -> None:
    results = await driver("unix:/nowhere/at-all").read(("x", "y"), DEADLINE_S)
    assert all(isinstance(result, Failed) for result in results.values())
    assert set(results) == {"x", "y"}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_reading_that_is_no_finite_number_is_bad(text: str) -> None:
    result = point_result(text, "x", None, 0)
    assert isinstance(result, Reading)
    assert result.quality is Quality.BAD
    assert not math.isfinite(result.value)


def test_junk_in_an_answer_is_passed_over() -> None:
    assert parse_answer(b"\xff\x00=1 a=1 a=2 b= =c d") == {"\ufffd\x00": "1", "a": "2", "b": ""}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:host:7", Address("host", 7)),
        ("tcp:[::1]:7", Address("::1", 7)),
        ("unix:/run/x", Address("/run/x", 0)),
        ("tcp:host", None),
        ("tcp:host:0", None),
        ("tcp:host:65536", None),
        ("unix:", None),
        ("serial:/dev/ttyS0", Address("/dev/ttyS0", -1)),
        ("usb:1", None),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    if address is None:
        with pytest.raises(BadAddressError, match="expected tcp:HOST:PORT, unix:PATH or serial:PATH"):
            parse_address(text)
    else:
        assert parse_address(text) == address
