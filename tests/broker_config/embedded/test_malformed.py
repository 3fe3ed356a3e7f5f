"""Every packet that is none ends its own connection, with the reason that MQTT 5 names, and nobody else's."""

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode

from broker_config import limits
from broker_config.topics import Up, up
from tests.broker_config.embedded.rig import BUS, CAR, Client, Station

QOS1 = mqtt5.QoS.AT_LEAST_ONCE
TELEMETRY = up(CAR, Up.TELEMETRY)
TOPIC = b"\x00\x04ff/1"
MALFORMED, PROTOCOL = DisconnectReasonCode.MALFORMED_PACKET, DisconnectReasonCode.PROTOCOL_ERROR

WHOLE: dict[str, bytes] = {
    "CONNECT": mqtt5.ConnectPacket(
        "id",
        username="u",
        password=b"p",
        will=mqtt5.Will(up(CAR, Up.STATUS), payload=b"gone", will_delay_interval=3, user_properties=[("a", "b")]),
        session_expiry_interval=9,
        receive_max=4,
        max_packet_size=1_000,
    ).write(),
    "PUBLISH": mqtt5.PublishPacket(
        TELEMETRY,
        b"",
        qos=QOS1,
        packet_id=3,
        content_type="c",
        response_topic="r",
        correlation_data=b"d",
        user_properties=[("k", "v")],
    ).write(),
    "PUBACK": mqtt5.PubAckPacket(4, reason_str="x").write(),
    "PUBREC": mqtt5.PubRecPacket(4).write(),
    "PUBREL": mqtt5.PubRelPacket(4).write(),
    "PUBCOMP": mqtt5.PubCompPacket(4).write(),
    "SUBSCRIBE": mqtt5.SubscribePacket(
        4, [mqtt5.TopicFilter("a/#"), mqtt5.TopicFilter("b")], subscription_id=7
    ).write(),
    "UNSUBSCRIBE": mqtt5.UnsubscribePacket(4, ["a", "b"]).write(),
    "PINGREQ": mqtt5.PingReqPacket().write(),
    "DISCONNECT": mqtt5.DisconnectPacket(session_expiry_interval=0, reason_str="x").write(),
    "AUTH": mqtt5.AuthPacket(reason_code=mqtt5.AuthReasonCode.RE_AUTHENTICATE, authentication_method="x").write(),
}
# Cut there, a packet is a shorter one that is whole: the field that would follow may be left out.
STILL_WHOLE = {
    ("PUBACK", 2),
    ("PUBACK", 3),
    ("DISCONNECT", 0),
    ("DISCONNECT", 1),
    ("SUBSCRIBE", 11),
    ("UNSUBSCRIBE", 6),
}


@pytest.fixture
def station() -> Station:
    return Station()


def rude(station: Station) -> Client:
    client = station.device()
    client.connect(session_expiry_s=60)
    return client


def others_go_on(station: Station) -> None:
    server, bus = station.listening_server(), station.device(BUS)
    bus.connect()
    assert bus.say(up(BUS, Up.EVENT), b"still here") == 0
    assert b"still here" in server.payloads()


def split(packet: bytes) -> tuple[bytes, bytes]:
    assert packet[1] < 128, "a remaining length of one byte"
    return packet[:1], packet[2:]


CUT = [(name, size) for name, packet in WHOLE.items() for size in range(len(split(packet)[1]))]


@pytest.mark.parametrize(("name", "size"), [cut for cut in CUT if cut not in STILL_WHOLE])
def test_a_packet_cut_short_that_claims_to_be_whole(station: Station, name: str, size: int) -> None:
    first, rest = split(WHOLE[name])
    cut = first + bytes([size]) + rest[:size]
    if name == "CONNECT":
        client = station.device()
        client.send(cut)
        assert client.take(mqtt5.ConnAckPacket).reason_code == ConnAckReasonCode.MALFORMED_PACKET
    else:
        client = rude(station)
        client.send(cut)
        reason = int(client.take(mqtt5.DisconnectPacket).reason_code)
        assert reason in {int(MALFORMED), int(PROTOCOL)}
        if reason == PROTOCOL:  # whole as a packet of the codec's, and nothing that a client may send
            assert name in {"SUBSCRIBE", "UNSUBSCRIBE", "PUBREC", "PUBREL", "PUBCOMP", "AUTH"}
    assert client.closed
    assert client.packets() == []
    others_go_on(station)


@pytest.mark.parametrize(("name", "size"), sorted(STILL_WHOLE))
def test_a_packet_without_what_may_be_left_out(station: Station, name: str, size: int) -> None:
    first, rest = split(WHOLE[name])
    client = rude(station)
    client.send(first + bytes([size]) + rest[:size])
    assert client.closed == (name == "DISCONNECT")
    assert not any(isinstance(packet, mqtt5.DisconnectPacket) for packet in client.packets())


@pytest.mark.parametrize("name", WHOLE)
def test_a_packet_in_pieces_is_waited_for(station: Station, name: str) -> None:
    client = station.device() if name == "CONNECT" else rude(station)
    for at, byte in enumerate(WHOLE[name]):
        assert client.packets() == []
        assert not client.closed, at
        client.send(bytes([byte]))
    taken = {"CONNECT", "PUBLISH", "PUBACK", "SUBSCRIBE", "UNSUBSCRIBE", "PINGREQ"}
    assert client.closed != (name in taken)


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "PUBLISH"])
@pytest.mark.parametrize("bit", range(4))
def test_a_reserved_bit_of_the_first_byte(station: Station, name: str, bit: int) -> None:
    packet = WHOLE[name]
    client = station.device() if name == "CONNECT" else rude(station)
    client.send(bytes([packet[0] ^ 1 << bit]) + packet[1:])
    if name == "CONNECT":
        assert client.packets() == []  # no CONNECT at all
    else:
        assert client.take(mqtt5.DisconnectPacket).reason_code == MALFORMED
    assert client.closed
    others_go_on(station)


def publish_with(properties: bytes, topic: bytes = TOPIC) -> bytes:
    body = topic + b"\x00\x01" + bytes([len(properties)]) + properties
    return b"\x32" + bytes([len(body)]) + body


def remaining_length(value: int) -> bytes:
    return bytes([value & 127 | 128, value >> 7 & 127 | 128, value >> 14])


AFTER_CONNECT: dict[str, tuple[bytes, DisconnectReasonCode]] = {
    "remaining length of five bytes": (b"\x30\xff\xff\xff\xff\x01", MALFORMED),
    "remaining length longer than need be": (b"\xc0\x80\x00", MALFORMED),
    "over the bound by one, at its first bytes": (
        b"\x30" + remaining_length(limits.PACKET_BYTES_MAX - 3),
        DisconnectReasonCode.PACKET_TOO_LARGE,
    ),
    "packet type 0": (b"\x00\x00", MALFORMED),
    "PINGREQ with a body": (b"\xc0\x01\x00", MALFORMED),
    "QoS 3": (b"\x36\x09" + TOPIC + b"\x00\x01\x00", MALFORMED),
    "QoS 2": (b"\x34\x09" + TOPIC + b"\x00\x01\x00", DisconnectReasonCode.QOS_NOT_SUPPORTED),
    "a duplicate of QoS 0": (b"\x38\x07" + TOPIC + b"\x00", MALFORMED),
    "PUBLISH, packet id 0": (b"\x32\x09" + TOPIC + b"\x00\x00\x00", PROTOCOL),
    "SUBSCRIBE, packet id 0": (b"\x82\x0a\x00\x00\x00" + TOPIC + b"\x01", PROTOCOL),
    "UNSUBSCRIBE, packet id 0": (b"\xa2\x09\x00\x00\x00" + TOPIC, PROTOCOL),
    "topic with +": (publish_with(b"", b"\x00\x06ff/1/+"), DisconnectReasonCode.TOPIC_NAME_INVALID),
    "topic with #": (publish_with(b"", b"\x00\x01#"), DisconnectReasonCode.TOPIC_NAME_INVALID),
    "topic empty": (publish_with(b"", b"\x00\x00"), PROTOCOL),
    "topic of bad UTF-8": (publish_with(b"", b"\x00\x04ff/\xff"), MALFORMED),
    "topic with a surrogate": (publish_with(b"", b"\x00\x03\xed\xa0\x80"), MALFORMED),
    "topic with NUL": (publish_with(b"", b"\x00\x04ff/\x00"), MALFORMED),
    "topic alias": (publish_with(b"\x23\x00\x01"), DisconnectReasonCode.TOPIC_ALIAS_INVALID),
    "topic alias 0": (publish_with(b"\x23\x00\x00"), DisconnectReasonCode.TOPIC_ALIAS_INVALID),
    "topic alias and no topic": (
        publish_with(b"\x23\x00\x01", b"\x00\x00"),
        DisconnectReasonCode.TOPIC_ALIAS_INVALID,
    ),
    "a property twice": (publish_with(b"\x01\x00\x01\x00"), PROTOCOL),
    "an unknown property": (publish_with(b"\x7f\x00"), MALFORMED),
    "a property of another packet's": (publish_with(b"\x21\x00\x01"), MALFORMED),
    "payload format 2": (publish_with(b"\x01\x02"), PROTOCOL),
    "content type with NUL": (publish_with(b"\x03\x00\x01\x00"), MALFORMED),
    "user property of bad UTF-8": (publish_with(b"\x26\x00\x01\xff\x00\x01a"), MALFORMED),
    "user property with NUL": (publish_with(b"\x26\x00\x01a\x00\x01\x00"), MALFORMED),
    "response topic with #": (publish_with(b"\x08\x00\x01#"), PROTOCOL),
    "a subscription id from a client": (publish_with(b"\x0b\x05"), PROTOCOL),
    "subscription id 0": (b"\x82\x0c\x00\x01\x02\x0b\x00" + TOPIC + b"\x01", PROTOCOL),
    "SUBSCRIBE to nothing": (b"\x82\x03\x00\x01\x00", PROTOCOL),
    "UNSUBSCRIBE from nothing": (b"\xa2\x03\x00\x01\x00", PROTOCOL),
    "reserved bits of subscription options": (b"\x82\x0a\x00\x01\x00" + TOPIC + b"\x41", MALFORMED),
    "reserved bits of the second filter's options": (
        b"\x82\x11\x00\x01\x00" + TOPIC + b"\x01" + TOPIC + b"\x81",
        MALFORMED,
    ),
    "retain handling 3": (b"\x82\x0a\x00\x01\x00" + TOPIC + b"\x31", MALFORMED),
    "subscription to QoS 3": (b"\x82\x0a\x00\x01\x00" + TOPIC + b"\x03", MALFORMED),
    "filter empty": (b"\x82\x06\x00\x01\x00\x00\x00\x01", MALFORMED),
    "filter with # in its middle": (b"\x82\x0c\x00\x01\x00\x00\x06ff/#/1\x01", MALFORMED),
    "filter with a partial +": (b"\x82\x0b\x00\x01\x00\x00\x05ff/1+\x01", MALFORMED),
    "filter with NUL": (b"\x82\x07\x00\x01\x00\x00\x01\x00\x01", MALFORMED),
    "filter of bad UTF-8": (b"\x82\x07\x00\x01\x00\x00\x01\xff\x01", MALFORMED),
    "UNSUBSCRIBE from no filter": (b"\xa2\x09\x00\x01\x00\x00\x04f+/1", MALFORMED),
    "second CONNECT": (mqtt5.ConnectPacket("again").write(), PROTOCOL),
    "CONNACK": (mqtt5.ConnAckPacket().write(), PROTOCOL),
    "SUBACK": (b"\x90\x04\x00\x01\x00\x00", PROTOCOL),
    "UNSUBACK": (b"\xb0\x04\x00\x01\x00\x00", PROTOCOL),
    "PINGRESP": (b"\xd0\x00", PROTOCOL),
    "PUBREC": (WHOLE["PUBREC"], PROTOCOL),
    "PUBREL": (WHOLE["PUBREL"], PROTOCOL),
    "PUBCOMP": (WHOLE["PUBCOMP"], PROTOCOL),
    "AUTH": (WHOLE["AUTH"], PROTOCOL),
    "PUBACK with a reason that is none": (b"\x40\x03\x00\x01\x55", MALFORMED),
    "DISCONNECT with a reason that is none": (b"\xe0\x01\x55", MALFORMED),
}


@pytest.mark.parametrize("name", AFTER_CONNECT)
def test_a_malformed_packet(station: Station, name: str) -> None:
    data, reason = AFTER_CONNECT[name]
    client = rude(station)
    client.send(data)
    assert client.take(mqtt5.DisconnectPacket).reason_code == reason
    assert client.closed
    client.send(WHOLE["PUBLISH"])  # what was on its way already
    assert client.packets() == []
    others_go_on(station)


AT_FIRST: dict[str, tuple[bytes, ConnAckReasonCode | None]] = {
    "PUBLISH": (WHOLE["PUBLISH"], None),
    "PINGREQ": (WHOLE["PINGREQ"], None),
    "DISCONNECT": (WHOLE["DISCONNECT"], None),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", None),
    "one byte of something else": (b"\x30", None),
    "another protocol": (
        b"\x10\x0f\x00\x04NOPE\x05\x02\x00\x1e\x00\x00\x02id",
        ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    ),
    "MQTT 3.1.1": (b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x1e\x00\x02id", ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION),
    "reserved flag": (b"\x10\x0f\x00\x04MQTT\x05\x03\x00\x1e\x00\x00\x02id", ConnAckReasonCode.MALFORMED_PACKET),
    "will retain without a will": (
        b"\x10\x0f\x00\x04MQTT\x05\x22\x00\x1e\x00\x00\x02id",
        ConnAckReasonCode.MALFORMED_PACKET,
    ),
    "will QoS 3": (
        b"\x10\x15\x00\x04MQTT\x05\x1e\x00\x1e\x00\x00\x02id\x00\x00\x01t\x00\x00",
        ConnAckReasonCode.MALFORMED_PACKET,
    ),
    "will topic with +": (
        b"\x10\x15\x00\x04MQTT\x05\x06\x00\x1e\x00\x00\x02id\x00\x00\x01+\x00\x00",
        ConnAckReasonCode.TOPIC_NAME_INVALID,
    ),
    "receive maximum 0": (
        b"\x10\x12\x00\x04MQTT\x05\x02\x00\x1e\x03\x21\x00\x00\x00\x02id",
        ConnAckReasonCode.PROTOCOL_ERROR,
    ),
    "a property twice": (
        b"\x10\x15\x00\x04MQTT\x05\x02\x00\x1e\x06\x21\x00\x01\x21\x00\x02\x00\x02id",
        ConnAckReasonCode.PROTOCOL_ERROR,
    ),
    "authentication method": (
        mqtt5.ConnectPacket("id", authentication_method="x").write(),
        ConnAckReasonCode.BAD_AUTHENTICATION_METHOD,
    ),
    "authentication data alone": (
        b"\x10\x13\x00\x04MQTT\x05\x02\x00\x1e\x04\x16\x00\x01x\x00\x02id",
        ConnAckReasonCode.PROTOCOL_ERROR,
    ),
    "client id of bad UTF-8": (
        b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x02\xff\xfe",
        ConnAckReasonCode.MALFORMED_PACKET,
    ),
    "oversize": (b"\x10\xff\xff\x7f", ConnAckReasonCode.PACKET_TOO_LARGE),
    "remaining length of five bytes": (b"\x10\xff\xff\xff\xff\x01", ConnAckReasonCode.MALFORMED_PACKET),
}


@pytest.mark.parametrize("name", AT_FIRST)
def test_a_malformed_beginning(station: Station, name: str) -> None:
    data, reason = AT_FIRST[name]
    client = station.device()
    client.send(data)
    if reason is not None:
        assert client.take(mqtt5.ConnAckPacket).reason_code == reason
    assert client.packets() == []
    assert client.closed
    assert station.router.sessions == 0
    others_go_on(station)


@pytest.mark.parametrize("client_id", ["", "x" * 300, "a\0b"])
def test_a_server_has_a_client_id(station: Station, client_id: str) -> None:
    assert station.server().connect(client_id).reason_code == ConnAckReasonCode.CLIENT_ID_NOT_VALID


def test_an_acknowledgement_of_nothing_is_overlooked(station: Station) -> None:
    # MQTT 5 names no reason for it, and after a resumption a client may acknowledge twice.
    client = rude(station)
    for packet_id in (0, 7, 65_535):
        client.send(mqtt5.PubAckPacket(packet_id).write())
    assert client.say(TELEMETRY) == 0


def test_the_largest_packet_passes(station: Station) -> None:
    server, client = station.listening_server(), rude(station)
    overhead = len(mqtt5.PublishPacket(TELEMETRY, b"x" * 200_000, qos=QOS1, packet_id=1).write()) - 200_000
    assert client.say(TELEMETRY, b"x" * (limits.PACKET_BYTES_MAX - overhead)) == 0
    assert len(server.heard()) == 1


@given(st.binary(max_size=40), st.booleans(), st.sampled_from([b"", *WHOLE.values()]), st.integers(0, 60))
def test_no_bytes_at_all_harm_anybody_else(junk: bytes, connects: bool, whole: bytes, at: int) -> None:
    station = Station()
    client = rude(station) if connects else station.device()
    client.send(whole[:at] + junk + whole[at:] or b"\0")
    others_go_on(station)
    client.vanish()
    station.clock.go(10_000)
    assert station.router.sessions <= 1 + bool(connects)
