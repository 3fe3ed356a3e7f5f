"""What the embedded broker does beyond the conformance suite, without sockets and on a clock of the test's."""

import mqtt5
import pytest

from broker_config import limits, topics
from broker_config.embedded.bounds import BOUNDS, SESSION_EXPIRY_S_MAX
from broker_config.embedded.connection import RECEIVE_MAX
from broker_config.embedded.misbehaviour import Deaf, Hostile, Lossy, Slow
from broker_config.ids import server_client_id
from broker_config.policy import Role
from broker_config.topics import Down, Up, down, up
from tests.broker_config.embedded.rig import BUS, CAR, SITE, Client, Station

QOS0, QOS1 = mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE
TELEMETRY, STATUS, RECEIPT = up(CAR, Up.TELEMETRY), up(CAR, Up.STATUS), down(CAR, Down.RECEIPT)
HEARS_ALL = mqtt5.TopicFilter("#", max_qos=QOS1)


@pytest.fixture
def station() -> Station:
    return Station()


def listening(station: Station, *filters: mqtt5.TopicFilter, **options: int) -> Client:
    car = station.device()
    car.connect(**options)  # type: ignore[arg-type]
    car.subscribe(*(filters or (mqtt5.TopicFilter(topics.down_filter(CAR), max_qos=QOS1),)))
    return car


def will(delay_s: int = 0, topic: str = STATUS) -> mqtt5.Will:
    return mqtt5.Will(topic, payload=b"gone", qos=QOS1, retain=True, will_delay_interval=delay_s)


# Messages


def test_every_property_passes_through(station: Station) -> None:
    server, car = station.listening_server(), station.device()
    car.connect()
    car.publish(
        mqtt5.PublishPacket(
            TELEMETRY,
            b"{}",
            qos=QOS1,
            packet_id=9,
            payload_format_indicator=1,
            content_type="application/json",
            response_topic="answer/here",
            correlation_data=b"\x00\x01",
            message_expiry_interval=60,
            user_properties=[("key", "power/1/2"), ("key", "twice"), ("last", "3")],
        )
    )
    (heard,) = server.heard()
    assert (heard.topic, heard.payload, heard.content_type) == (TELEMETRY, b"{}", "application/json")
    assert (heard.response_topic, heard.correlation_data) == ("answer/here", b"\x00\x01")
    assert heard.user_properties == [("key", "power/1/2"), ("key", "twice"), ("last", "3")]
    assert (heard.payload_format_indicator, heard.message_expiry_interval) == (1, 60)


@pytest.mark.parametrize(("said", "granted", "heard"), [(0, 1, 0), (1, 0, 0), (1, 1, 1), (0, 0, 0), (1, 2, 1)])
def test_the_lower_qos_counts(station: Station, said: int, granted: int, heard: int) -> None:
    server = station.server()
    server.connect()
    assert server.subscribe(mqtt5.TopicFilter("#", max_qos=mqtt5.QoS(granted))) == [min(granted, 1)]
    car = station.device()
    car.connect()
    car.say(TELEMETRY, qos=said)
    assert [int(message.qos) for message in server.heard()] == [heard]


def test_a_refused_publication_is_told_so(station: Station) -> None:
    car = station.device()
    car.connect()
    assert car.say(RECEIPT) == mqtt5.PubAckReasonCode.NOT_AUTHORIZED
    assert car.say(TELEMETRY, retain=True) == mqtt5.PubAckReasonCode.NOT_AUTHORIZED
    assert car.say(f"ff/1/00/{CAR}/up/" + "x/" * 40) == mqtt5.PubAckReasonCode.TOPIC_NAME_INVALID
    assert car.say(TELEMETRY) == mqtt5.PubAckReasonCode.SUCCESS
    assert station.router.counters.refused == 3


def test_what_has_expired_is_not_delivered_and_what_waited_has_less_time_left(station: Station) -> None:
    server = station.listening_server()
    car = listening(station, session_expiry_s=600)
    car.vanish()
    for expiry_s, payload in ((5, b"short"), (60, b"long")):
        server.publish(mqtt5.PublishPacket(RECEIPT, payload, qos=QOS1, packet_id=1, message_expiry_interval=expiry_s))
    station.clock.go(20)
    back = station.device()
    assert back.connect(clean_start=False).session_present
    assert [(m.payload, m.message_expiry_interval) for m in back.heard()] == [(b"long", 40)]


def test_no_more_than_the_clients_receive_maximum_is_in_flight(station: Station) -> None:
    server = station.listening_server()
    car = listening(station, receive_max=2)
    for number in range(5):
        server.say(RECEIPT, b"%d" % number)
    first = car.heard()
    assert [m.payload for m in first] == [b"0", b"1"]
    car.acknowledge(first[0])
    assert car.payloads() == [b"2"]


def test_a_message_too_large_for_a_client_is_passed_over(station: Station) -> None:
    server = station.listening_server()
    car = listening(station, max_packet_size=100, receive_max=1)
    server.say(RECEIPT, b"x" * 200)
    server.say(RECEIPT, b"small")
    assert car.payloads() == [b"small"]
    assert station.router.counters.dropped == 1


def test_a_queue_has_a_bound_and_the_others_do_not_notice(station: Station) -> None:
    server = station.listening_server()
    car = listening(station, session_expiry_s=60)
    car.vanish()
    queued_max = BOUNDS[Role.DEVICE].queued_messages_max
    for number in range(queued_max + 3):
        assert server.say(RECEIPT, b"%d" % number) == 0
    assert station.router.counters.dropped == 3
    back = station.device()
    back.connect(clean_start=False)
    assert back.payloads() == [b"%d" % number for number in range(queued_max)]


def test_while_a_socket_is_full_messages_wait_in_order(station: Station) -> None:
    server = station.listening_server()
    car = listening(station)
    server.say(RECEIPT, b"1")
    car.connection.block()
    for payload in (b"2", b"3"):
        server.say(RECEIPT, payload)
    assert car.payloads() == [b"1"]
    car.connection.unblock()
    assert car.payloads() == [b"2", b"3"]


# Subscriptions


def test_overlapping_filters_deliver_once_at_the_highest_qos_with_every_id(station: Station) -> None:
    server = station.server()
    server.connect()
    server.subscribe(mqtt5.TopicFilter("#", max_qos=QOS0), subscription_id=7)
    server.subscribe(mqtt5.TopicFilter("ff/#", max_qos=QOS1), subscription_id=8)
    car = station.device()
    car.connect()
    car.say(TELEMETRY)
    (heard,) = server.heard()
    assert (int(heard.qos), sorted(heard.subscription_ids)) == (1, [7, 8])


@pytest.mark.parametrize(("no_local", "heard"), [(False, [b"mine"]), (True, [])])
def test_no_local(station: Station, no_local: bool, heard: list[bytes]) -> None:
    server = station.listening_server(mqtt5.TopicFilter(topics.SERVER_STATE, no_local=no_local))
    server.publish(mqtt5.PublishPacket(topics.SERVER_STATE, b"mine"))
    assert server.payloads() == heard


@pytest.mark.parametrize("as_published", [False, True])
def test_retain_as_published(station: Station, as_published: bool) -> None:
    server = station.listening_server(mqtt5.TopicFilter("#", retain_as_published=as_published))
    car = station.device()
    car.connect()
    car.say(STATUS, b"birth", retain=True)
    car.say(STATUS, b"other", retain=False)
    assert [m.retain for m in server.heard()] == [as_published, False]
    # to who comes later it is retained either way
    later = station.listening_server(mqtt5.TopicFilter("#", retain_as_published=as_published))
    assert [(m.payload, m.retain) for m in later.heard()] == [(b"birth", True)]


@pytest.mark.parametrize(
    ("handling", "at_first", "again"),
    [
        (mqtt5.RetainHandling.SEND_ALWAYS, [b"birth"], [b"birth"]),
        (mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS, [b"birth"], []),
        (mqtt5.RetainHandling.SEND_NEVER, [], []),
    ],
)
def test_retain_handling(
    station: Station, handling: mqtt5.RetainHandling, at_first: list[bytes], again: list[bytes]
) -> None:
    car = station.device()
    car.connect()
    car.say(STATUS, b"birth", retain=True)
    wanted = mqtt5.TopicFilter("ff/1/+/+/up/status", retain_handling=handling)
    server = station.listening_server(wanted)
    assert server.payloads() == at_first
    server.subscribe(wanted)
    assert server.payloads() == again


def test_unsubscribed_is_unsubscribed(station: Station) -> None:
    server = station.listening_server()
    server.send(mqtt5.UnsubscribePacket(5, ["#", "never"]).write())
    codes = server.take(mqtt5.UnsubAckPacket).reason_codes
    assert [int(code) for code in codes] == [0, int(mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED)]
    car = station.device()
    car.connect()
    car.say(TELEMETRY)
    assert server.heard() == []


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ("$share/g/#", mqtt5.SubAckReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
        ("$share/g", mqtt5.SubAckReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
        ("a/" * 40, mqtt5.SubAckReasonCode.TOPIC_FILTER_INVALID),
        ("$SYS/#", mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE),  # there is none
    ],
)
def test_what_a_subscription_is_answered(station: Station, pattern: str, code: mqtt5.SubAckReasonCode) -> None:
    server = station.server()
    server.connect()
    assert server.subscribe(mqtt5.TopicFilter(pattern, max_qos=QOS1)) == [int(code)]


def test_a_device_has_a_bounded_number_of_filters_and_of_retained_topics(station: Station) -> None:
    car = station.device()
    car.connect()
    bounds = BOUNDS[Role.DEVICE]
    filters = [mqtt5.TopicFilter(f"f/{n}") for n in range(bounds.subscriptions_max + 1)]
    assert car.subscribe(*filters).count(int(mqtt5.SubAckReasonCode.QUOTA_EXCEEDED)) == 1
    codes = [car.say(f"ff/1/{n}/{CAR}/up/status", retain=True) for n in range(bounds.retained_max + 1)]
    assert codes == [0] * bounds.retained_max + [int(mqtt5.PubAckReasonCode.QUOTA_EXCEEDED)]


# Sessions


def test_a_session_ends_with_its_expiry_and_an_expiry_has_a_bound(station: Station) -> None:
    car = station.device()
    told = car.connect(session_expiry_s=2**32 - 1)
    assert told.session_expiry_interval == SESSION_EXPIRY_S_MAX
    car.vanish()
    station.clock.go(SESSION_EXPIRY_S_MAX - 1)
    assert station.router.sessions == 1
    station.clock.go(1)
    assert station.router.sessions == 0


def test_a_clean_start_begins_anew(station: Station) -> None:
    server = station.listening_server()
    listening(station, session_expiry_s=600).vanish()
    server.say(RECEIPT)
    back = station.device()
    assert not back.connect(clean_start=True, session_expiry_s=600).session_present
    server.say(RECEIPT)
    assert back.heard() == []


def test_a_disconnect_may_shorten_the_expiry_but_not_make_one(station: Station) -> None:
    car = station.device()
    car.connect(session_expiry_s=600)
    car.send(mqtt5.DisconnectPacket(session_expiry_interval=5).write())
    assert car.closed
    station.clock.go(5)
    assert station.router.sessions == 0
    car = station.device()
    car.connect()
    car.send(mqtt5.DisconnectPacket(session_expiry_interval=5).write())
    assert car.take(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.PROTOCOL_ERROR


def test_who_is_silent_for_one_and_a_half_keep_alives_is_gone(station: Station) -> None:
    car = station.device()
    car.connect(keep_alive_s=10)
    for _ in range(5):
        station.clock.go(14)
        car.send(mqtt5.PingReqPacket().write())
        car.take(mqtt5.PingRespPacket)
    station.clock.go(15)
    assert car.take(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.KEEP_ALIVE_TIMEOUT
    assert car.closed


def test_who_says_nothing_at_first_is_gone(station: Station) -> None:
    stranger = station.device()
    station.clock.go(11)
    assert stranger.closed
    assert stranger.packets() == []


def test_the_server_takes_a_devices_place_and_leaves_nothing_there(station: Station) -> None:
    car = station.device()
    car.connect(CAR, session_expiry_s=60)
    server = station.server()
    server.connect(CAR, clean_start=True)
    assert car.closed
    assert station.router.sessions == 1
    back = station.device()
    assert not back.connect(CAR, clean_start=False).session_present
    assert server.closed


@pytest.mark.parametrize(("clean_start", "expiry_s"), [(False, 0), (True, 60)])
def test_the_server_cannot_leave_a_session_of_its_own_to_a_device(
    station: Station, clean_start: bool, expiry_s: int
) -> None:
    told = station.server().connect(CAR, clean_start=clean_start, session_expiry_s=expiry_s)
    assert told.reason_code == mqtt5.ConnAckReasonCode.NOT_AUTHORIZED
    assert station.router.sessions == 0


def test_the_servers_sessions_are_bounded(station: Station) -> None:
    sessions_max = BOUNDS[Role.SERVER].sessions_max
    codes = {n: station.server().connect(f"c{n}").reason_code for n in range(sessions_max + 1)}
    assert codes[sessions_max - 1] == mqtt5.ConnAckReasonCode.SUCCESS
    assert codes[sessions_max] == mqtt5.ConnAckReasonCode.QUOTA_EXCEEDED


# Wills


@pytest.mark.parametrize(
    ("delay_s", "expiry_s", "due_s"),
    [(0, 0, 0), (0, 60, 0), (30, 60, 30), (30, 10, 10), (30, 0, 0)],
)
def test_a_will_comes_after_its_delay_or_with_the_sessions_end(
    station: Station, delay_s: int, expiry_s: int, due_s: int
) -> None:
    server, car = station.listening_server(), station.device()
    server.connection._silence_s_max = 1e9  # this one says nothing, and stays
    car.connect(session_expiry_s=expiry_s, will=will(delay_s))
    car.vanish()
    if due_s:
        station.clock.go(due_s - 0.1)
        assert server.payloads() == []
        station.clock.go(0.1)
    assert server.payloads() == [b"gone"]
    station.clock.go(100)
    assert server.payloads() == []


@pytest.mark.parametrize(
    ("clean_start", "delay_s", "said"), [(False, 30, []), (False, 0, [b"gone"]), (True, 30, [b"gone"])]
)
def test_a_takeover_says_the_old_will_at_once_or_never(
    station: Station, clean_start: bool, delay_s: int, said: list[bytes]
) -> None:
    server, car = station.listening_server(), station.device()
    car.connect(session_expiry_s=60, will=will(delay_s))
    back = station.device()
    back.connect(clean_start=clean_start, session_expiry_s=60)
    assert car.take(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
    assert server.payloads() == said
    car.connection.lost()  # the old socket's end, later
    back.send(mqtt5.PingReqPacket().write())
    back.take(mqtt5.PingRespPacket)
    assert server.payloads() == []


def test_a_disconnect_may_ask_for_the_will(station: Station) -> None:
    server, car = station.listening_server(), station.device()
    car.connect(will=will())
    leaving = mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE)
    car.send(leaving.write())
    assert server.payloads() == [b"gone"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (will(topic=up(BUS, Up.STATUS)), mqtt5.ConnAckReasonCode.NOT_AUTHORIZED),
        (will(topic=TELEMETRY), mqtt5.ConnAckReasonCode.NOT_AUTHORIZED),  # retained
        (mqtt5.Will(STATUS, qos=mqtt5.QoS.EXACTLY_ONCE), mqtt5.ConnAckReasonCode.QUALITY_NOT_SUPPORTED),
    ],
)
def test_a_will_that_nobody_may_leave_is_refused_at_once(
    station: Station, broken: mqtt5.Will, reason: mqtt5.ConnAckReasonCode
) -> None:
    car = station.device()
    assert car.connect(will=broken).reason_code == reason
    assert car.closed


# Misbehaviour


def conversation(station: Station, messages: int = 40) -> tuple[Client, Client]:
    """A car that has been told *messages*, and the server that told them."""
    server = station.server()
    server.connect(server_client_id(SITE), keep_alive_s=limits.KEEP_ALIVE_S_MAX)
    car = listening(station)
    for number in range(messages):
        server.publish(mqtt5.PublishPacket(RECEIPT, b"%d" % number, qos=QOS1, packet_id=number + 1))
    return server, car


def test_a_slow_broker_says_all_of_it_later_and_in_order() -> None:
    station = Station(Slow(2.0))
    server, car = conversation(station)
    station.clock.go(1.9)
    assert server.packets() == car.packets() == []
    station.clock.go(0.1)
    assert car.payloads() == [b"%d" % n for n in range(40)]
    assert len(server.packets()) == 40


def test_a_deaf_broker_takes_all_and_says_nothing() -> None:
    station = Station(Deaf())
    server, car = conversation(station)
    station.clock.go(10)
    assert server.packets() == car.packets() == []


def test_who_publishes_more_than_the_broker_can_owe_an_answer_is_gone() -> None:
    station = Station(Deaf())
    server, _ = conversation(station, RECEIVE_MAX)
    assert not server.closed
    server.publish(mqtt5.PublishPacket(RECEIPT, b"", qos=QOS1, packet_id=RECEIVE_MAX + 1))
    assert server.take(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.RECEIVE_MAX_EXCEEDED


def test_a_lossy_broker_drops_its_share_the_same_way_each_time() -> None:
    runs = []
    for _ in range(2):
        server, car = conversation(Station(Lossy(0.25, seed=3)), 400)
        assert len(server.packets()) == 400  # it acknowledges all the same
        runs.append(car.payloads())
    assert runs[0] == runs[1]
    assert 260 < len(runs[0]) < 340


def test_a_hostile_broker_repeats_reorders_and_forges_what_devices_are_told_only() -> None:
    station = Station(Hostile(seed=5))
    server, car = conversation(station, 100)
    server.packets()
    station.clock.go(1.0)
    heard = car.payloads()
    said = [b"%d" % number for number in range(100)]
    assert set(said) <= set(heard)
    assert set(heard) - set(said), "forged"
    assert len(heard) > len(set(heard)), "repeated"
    first = [heard.index(payload) for payload in said]
    assert first != sorted(first), "reordered"
    server.subscribe(HEARS_ALL)
    car.say(TELEMETRY, b"up")
    station.clock.go(1.0)
    assert server.payloads() == [b"up"]
