"""The order of everything: nothing is said before it is so, whatever dies, fills up or comes twice."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import mqtt5
import pytest

from broker_config.ids import DeviceId
from broker_config.messages import ServerState, decode
from broker_config.topics import SERVER_STATE, Down, down
from fleet_server.adapters.mqtt import LinkError, LinkSettings, MalformedError, connect
from fleet_server.telemetry import reconnects
from fleet_server.telemetry.store import FencedError, StoreFullError
from tests.fleet_server.fleet import Arrival
from tests.fleet_server.telemetry.messages import CAR, ask_time, birth, published, sealed
from tests.fleet_server.telemetry.service_rig import (
    SETTINGS,
    WAIT_S,
    Device,
    Running,
    Scripted,
    server_link,
    serving,
    until,
)
from tests.servers import HOST, Mosquitto, free_port, mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as running:
        yield running


def stored(running: Running) -> int:
    return running.service.facts().records_stored


@pytest.mark.server("mosquitto")
async def test_a_receipt_never_leaves_before_the_commit_returned(tmp_path: Path, broker: Mosquitto) -> None:
    async with serving(tmp_path / "telemetry.db", server_link(broker)) as running:
        await running.linked()
        device = Device()
        await device.connect(broker)
        running.gate.open.clear()
        device.say(published(sealed(1)))
        await until(running.gate.reached.is_set, "the commit has begun")
        device.say(ask_time())  # needs no commit: by its answer a receipt before it would have come
        await until(lambda: bool(device.times), "the time")
        assert device.receipts == []
        running.gate.open.set()
        await device.receipted(1)
        await device.leave()


@pytest.mark.server("mosquitto")
async def test_a_full_store_receipts_nothing_stops_reading_and_goes_on(tmp_path: Path, broker: Mosquitto) -> None:
    async with serving(tmp_path / "telemetry.db", server_link(broker)) as running:
        await running.linked()
        device = Device()
        await device.connect(broker)
        running.gate.error = lambda: StoreFullError("no space")
        link = running.service._link
        assert link is not None
        sent = 0
        while not link._paused:  # a group each, until there are too many
            device.say(published(sealed(sent + 1)))
            await until(lambda before=sent: stored(running) > before, "the group is closed")  # type: ignore[misc]
            sent += 1
        await until(lambda: running.gate.tries >= 2, "the commit is tried again")
        device.say(ask_time())
        await until(lambda: device.unacknowledged == 0, "the broker has it all")
        assert device.told == []
        assert running.service.facts().commits == 0
        running.gate.error = None
        await device.receipted(sent)
        await until(lambda: bool(device.times), "it reads again")
        facts = running.service.facts()
        assert facts.commit_failures >= 2
        assert (facts.records_stored, facts.records_duplicate) == (sent, 0)
        await device.leave()


@pytest.mark.server("mosquitto")
async def test_a_fenced_server_ends(tmp_path: Path, broker: Mosquitto) -> None:
    async with serving(tmp_path / "telemetry.db", server_link(broker)) as running:
        await running.linked()
        device = Device()
        await device.connect(broker)
        running.store.take_lease("first", first=0, last=255, now_ms=0, ttl_ms=10)
        device.say(published(sealed(1)))
        with pytest.raises(FencedError):
            await asyncio.wait_for(running.task, WAIT_S)
        assert device.receipts == []
        await device.leave()


@pytest.mark.server("mosquitto")
async def test_a_link_lost_while_groups_wait_loses_no_record(tmp_path: Path, broker: Mosquitto) -> None:
    async with serving(tmp_path / "telemetry.db", server_link(broker)) as running:
        await running.linked()
        device = Device()
        await device.connect(broker)
        running.gate.open.clear()
        device.say(published(sealed(1)))
        await until(running.gate.reached.is_set, "the commit has begun")
        broker.kill()
        broker.wipe()
        await until(lambda: not running.service.facts().connected, "the link is lost")
        running.gate.open.set()
        broker.start()
        await running.linked()
        again = Device()
        await again.connect(broker)
        again.say(published(sealed(1)), published(sealed(2)))
        await again.receipted(2)
        facts = running.service.facts()
        assert (facts.records_stored, facts.records_duplicate) == (2, 1)
        await again.leave()


@pytest.mark.server("mosquitto")
async def test_what_a_dead_server_did_not_acknowledge_comes_again_and_is_stored_once(
    tmp_path: Path, broker: Mosquitto
) -> None:
    path, link = tmp_path / "telemetry.db", server_link(broker)
    device = Device()
    async with serving(path, link) as running:
        await running.linked()
        await device.connect(broker)
        running.gate.step, running.gate.error = "commit.done", lambda: RuntimeError("dies after its commit")
        device.say(published(sealed(1)))
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(running.task, WAIT_S)
    assert device.receipts == []
    async with serving(path, link) as running:
        await device.receipted(1)
        facts = running.service.facts()
        assert (facts.records_stored, facts.records_duplicate) == (0, 1)
        series = running.store.series("car-7", "cpu", from_ms=0, to_ms=2**53)
        assert series.rows_total == 1
    await device.leave()


@pytest.mark.server("mosquitto")
async def test_a_second_server_waits_for_the_lease_and_takes_over(tmp_path: Path, broker: Mosquitto) -> None:
    path, link = tmp_path / "telemetry.db", server_link(broker)
    device = Device()
    async with serving(path, link) as first:
        await first.linked()
        async with serving(path, link, owner="second") as second:
            await device.connect(broker)
            device.say(published(sealed(1)))
            await device.receipted(1)
            assert not second.service.started.is_set()
            first.stop.set()
            await asyncio.wait_for(first.task, WAIT_S)
            await second.linked()
            device.say(published(sealed(2)))
            await device.receipted(2)
            assert second.service.answers.devices()[0].streams[0].held == 2
    await device.leave()


@pytest.mark.server("mosquitto")
async def test_a_server_that_stops_receipts_what_has_come(tmp_path: Path, broker: Mosquitto) -> None:
    device = Device()
    async with serving(tmp_path / "telemetry.db", server_link(broker)) as running:
        await running.linked()
        await device.connect(broker)
        running.gate.open.clear()
        device.say(published(sealed(1)))
        await until(running.gate.reached.is_set, "the commit has begun")
        running.stop.set()
        running.gate.open.set()
        await device.receipted(1)
        await asyncio.wait_for(running.task, WAIT_S)
    await device.leave()


# what no real broker says


def publish(arrival: Arrival, packet_id: int) -> bytes:
    return mqtt5.PublishPacket(
        arrival.topic,
        arrival.payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE,
        packet_id=packet_id,
        content_type=arrival.content_type,
        user_properties=arrival.user_properties,
    ).write()


def bad_utf8() -> bytes:
    """A PUBLISH whose topic is no UTF-8: the codec panics on it."""
    packet = bytearray(publish(published(sealed(9)), 9))
    packet[4] = 0xFF
    return bytes(packet)


GRANT = mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * 4).write()
NOT_MQTT = pytest.mark.parametrize(
    "malformed", [bad_utf8(), b"\x00\x00", b"\x32\xff\xff\xff\xff\xff"], ids=["utf-8", "kind", "length"]
)


@NOT_MQTT
@pytest.mark.parametrize("granted", [True, False])
async def test_after_a_malformed_packet_the_session_is_given_up_and_its_packet_ids_with_it(
    tmp_path: Path, malformed: bytes, granted: bool
) -> None:
    """A session's queue may come before the subscription is granted, or after it."""

    def say(_broker: Scripted, connection: int, packet: mqtt5.Packet) -> bytes:
        bad = publish(published(sealed(1)), 77) + malformed
        match packet:
            case mqtt5.ConnectPacket():
                return mqtt5.ConnAckPacket().write() + (bad if connection == 0 and not granted else b"")
            case mqtt5.SubscribePacket():
                return GRANT + (bad if connection == 0 else publish(published(sealed(2)), 5))
        return b""

    async with Scripted(say) as broker, serving(tmp_path / "telemetry.db", broker.link) as running:
        # the commit ends when the next link is there: until then no packet id may be acknowledged
        running.gate.open.clear()
        await until(lambda: len(broker.heard) >= 2, "it connects again")
        running.gate.open.set()
        await until(lambda: bool(_acknowledged(broker, 1)), "an acknowledgement")
        await until(lambda: stored(running) == 2, "both records are stored")
        clean = [p.clean_start for heard in broker.heard for p in heard if isinstance(p, mqtt5.ConnectPacket)]
        assert clean == [False, True]
        assert _acknowledged(broker, 1) == [5]


def _acknowledged(broker: Scripted, connection: int) -> list[int]:
    return [packet.packet_id for packet in broker.heard[connection] if isinstance(packet, mqtt5.PubAckPacket)]


async def test_no_more_is_under_way_than_the_broker_takes(tmp_path: Path) -> None:
    receive_max, asked = 2, 7
    under_way: list[int] = []
    when_full: list[int] = []

    def say(_broker: Scripted, _connection: int, packet: mqtt5.Packet) -> bytes:
        match packet:
            case mqtt5.ConnectPacket():
                return mqtt5.ConnAckPacket(receive_max=receive_max).write()
            case mqtt5.SubscribePacket():
                times = b"".join(publish(ask_time(f"{n:016x}"), n) for n in range(1, asked + 1))
                return GRANT + times + publish(published(sealed(1)), 100)
            case mqtt5.PublishPacket() if packet.packet_id is not None:
                under_way.append(packet.packet_id)
                return mqtt5.PubAckPacket(packet.packet_id).write() if when_full else b""
            case mqtt5.PubAckPacket(packet_id=100) if not when_full:
                # the record is committed, long after the answers were made
                when_full.extend(under_way)
                return b"".join(mqtt5.PubAckPacket(packet_id).write() for packet_id in under_way)
        return b""

    async with Scripted(say) as broker, serving(tmp_path / "telemetry.db", broker.link):
        # the server's state, the answers and a receipt
        await until(lambda: len(_published_by(broker)) == 2 + asked, "everything is said")
        assert len(when_full) == receive_max


def _published_by(broker: Scripted) -> list[mqtt5.PublishPacket]:
    return [packet for heard in broker.heard[:1] for packet in heard if isinstance(packet, mqtt5.PublishPacket)]


@pytest.mark.server("mosquitto")
async def test_what_another_thread_publishes_reaches_the_device(tmp_path: Path, broker: Mosquitto) -> None:
    async with serving(tmp_path / "telemetry.db", server_link(broker)) as running:
        await running.linked()
        device = Device()
        await device.connect(broker)
        await asyncio.to_thread(running.service.publish, down(CAR, Down.COMMAND), b"an order")
        await until(lambda: device.commands == [b"an order"], "it is told")
        await device.leave()


async def test_what_another_thread_publishes_waits_until_the_broker_has_room(tmp_path: Path) -> None:
    said: list[mqtt5.PublishPacket] = []
    acknowledges = False

    def say(_broker: Scripted, _connection: int, packet: mqtt5.Packet) -> bytes:
        match packet:
            case mqtt5.ConnectPacket():
                return mqtt5.ConnAckPacket(receive_max=2).write()
            case mqtt5.SubscribePacket():
                return GRANT
            case mqtt5.PublishPacket() if packet.packet_id is not None:
                said.append(packet)
                if acknowledges:
                    return b"".join(mqtt5.PubAckPacket(each.packet_id or 1).write() for each in said)
        return b""

    async with Scripted(say) as broker, serving(tmp_path / "telemetry.db", broker.link) as running:
        await running.linked()
        publish_one = running.service.publish
        await asyncio.to_thread(publish_one, "ff/1/04/car-7/dn/command", b"1")  # the other place is the state's
        waiting = asyncio.create_task(asyncio.to_thread(publish_one, "ff/1/04/car-7/dn/command", b"2"))
        await until(lambda: running.service._publishing == 1, "it waits")
        acknowledges = True
        link = running.service._link
        assert link is not None
        link.send(mqtt5.PingReqPacket().write())
        link._outstanding.clear()  # as the acknowledgements of both would
        await waiting
        await until(lambda: [bytes(p.payload or b"") for p in said[1:]] == [b"1", b"2"], "both are said, in order")


async def test_without_a_link_nothing_is_published_and_the_caller_knows(tmp_path: Path) -> None:
    nowhere = LinkSettings(HOST, free_port(), "nobody", 30, None)
    async with serving(tmp_path / "telemetry.db", nowhere) as running:
        await until(running.service.started.is_set, "the service has started")
        with pytest.raises(LinkError, match="no link"):
            await asyncio.to_thread(running.service.publish, "ff/1/04/car-7/dn/command", b"1")


async def test_the_server_says_that_it_is_there_and_that_it_goes(tmp_path: Path) -> None:
    def say(_broker: Scripted, _connection: int, packet: mqtt5.Packet) -> bytes:
        match packet:
            case mqtt5.ConnectPacket():
                return mqtt5.ConnAckPacket().write()
            case mqtt5.SubscribePacket():
                return GRANT
        return b""

    async with Scripted(say) as broker:
        async with serving(tmp_path / "telemetry.db", broker.link) as running:
            await running.linked()
        await until(lambda: isinstance(broker.heard[0][-1], mqtt5.DisconnectPacket), "it says goodbye")
        said = _published_by(broker)
        assert all(packet.topic == SERVER_STATE and packet.retain for packet in said)
        assert [decode(packet.payload, ServerState).state for packet in said] == ["up", "down"]
        first = broker.heard[0][0]
        assert isinstance(first, mqtt5.ConnectPacket)
        assert first.will is not None
        assert decode(first.will.payload or b"", ServerState).state == "down"


async def test_the_spread_that_devices_hear_grows_with_them_and_is_known_after_a_restart(tmp_path: Path) -> None:
    slow = dataclasses.replace(SETTINGS, reconnects_a_second_max=1)

    def say(_broker: Scripted, connection: int, packet: mqtt5.Packet) -> bytes:
        match packet:
            case mqtt5.ConnectPacket():
                return mqtt5.ConnAckPacket().write()
            case mqtt5.SubscribePacket() if connection == 0:
                return GRANT + publish(birth(device=CAR), 1) + publish(birth(device=DeviceId("car-8")), 2)
            case mqtt5.SubscribePacket():
                return GRANT
        return b""

    def spreads(broker: Scripted, connection: int) -> list[tuple[str, int]]:
        said = [packet for packet in broker.heard[connection] if isinstance(packet, mqtt5.PublishPacket)]
        states = [decode(packet.payload, ServerState) for packet in said if packet.topic == SERVER_STATE]
        return [(state.state, state.spread_ms) for state in states]

    both_ms = reconnects.spread_ms(2, a_second_max=1)
    async with Scripted(say) as broker:
        for _ in range(2):
            async with serving(tmp_path / "telemetry.db", broker.link, settings=slow) as running:
                await running.linked()
                await until(lambda: ("up", both_ms) in spreads(broker, -1), "the spread of both")
            await until(lambda: isinstance(broker.heard[-1][-1], mqtt5.DisconnectPacket), "it says goodbye")
        assert spreads(broker, 0)[-1] == ("down", 0)
        assert spreads(broker, 1) == [("up", both_ms), ("down", 0)]


async def _connect(settings: LinkSettings) -> None:
    await connect(settings, filters=[], will=None, clean_start=True, on_packets=lambda _link, _packets: None)


async def test_a_link_says_why_it_cannot_be() -> None:
    nobody = LinkSettings(HOST, free_port(), "nobody", 30, None)
    with pytest.raises(LinkError, match=str(nobody.port)):
        await _connect(nobody)
    refused = mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.NOT_AUTHORIZED).write()
    async with Scripted(lambda _broker, _connection, _packet: refused) as broker:
        with pytest.raises(LinkError, match="refused"):
            await _connect(broker.link)
    async with Scripted(lambda _broker, _connection, _packet: b"\x00\x00") as broker:
        with pytest.raises(MalformedError):
            await _connect(broker.link)
