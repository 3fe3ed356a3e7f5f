"""A link reads what the broker sends, however it is cut into reads."""

import asyncio

import mqtt5
import pytest

from broker_config import limits
from fleet_server.adapters.mqtt import QOS, READ_BYTES_MAX, READ_BYTES_MIN, Link, LinkSettings

SIZES = [0, 1, 200, READ_BYTES_MIN, limits.CHUNK_BYTES_MAX, 3, limits.BATCH_BYTES_MAX, 50, 60, 70]


class Transport(asyncio.Transport):
    """Takes what is written, and nothing comes of it."""

    aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def linked() -> tuple[Link, Transport, list[mqtt5.PublishPacket]]:
    heard: list[mqtt5.PublishPacket] = []
    link = Link(
        LinkSettings("nowhere", 0, "id", 30, None),
        filters=[],
        will=None,
        clean_start=True,
        on_packets=lambda _, packets: heard.extend(packets),
    )
    transport = Transport()
    link.connection_made(transport)
    return link, transport, heard


def read(link: Link, data: bytes, *, at_once: int) -> None:
    """As a transport does: never more than there is room for."""
    while data and not link.gone.done():
        room = link.get_buffer(-1)
        size = min(at_once, len(room), len(data))
        assert size
        room[:size] = data[:size]
        data = data[size:]
        link.buffer_updated(size)


def packet(number: int, payload: bytes) -> bytes:
    return mqtt5.PublishPacket(f"t/{number}", payload, qos=QOS, packet_id=number + 1).write()


@pytest.mark.parametrize("at_once", [1_000, 4_096, 100_000, 131_072 + 40, READ_BYTES_MAX])
async def test_packets_are_whole_and_in_order_however_reads_cut_them(at_once: int) -> None:
    link, _, heard = linked()
    payloads = [bytes([number]) * size for number, size in enumerate(SIZES)] * 5
    read(link, b"".join(map(packet, range(len(payloads)), payloads)), at_once=at_once)
    assert [each.topic for each in heard] == [f"t/{number}" for number in range(len(payloads))]
    assert [each.payload or b"" for each in heard] == payloads
    link.close("over")


async def test_what_was_heard_stays_when_the_next_read_takes_its_place() -> None:
    link, _, heard = linked()
    for number in range(3):
        read(link, packet(number, bytes([number]) * 50_000), at_once=READ_BYTES_MAX)
    assert [each.payload for each in heard] == [bytes([number]) * 50_000 for number in range(3)]
    link.close("over")


async def test_the_beginning_of_a_longer_packet_than_may_be_ends_the_link() -> None:
    link, transport, heard = linked()
    read(link, packet(0, bytes(2 * limits.PACKET_BYTES_MAX)), at_once=10_000)
    assert transport.aborted
    assert link.malformed
    assert "longer" in await link.gone
    assert heard == []
