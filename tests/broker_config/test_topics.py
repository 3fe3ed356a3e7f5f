import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import topics
from broker_config.ids import DeviceId, Shard, device_id, shard_of
from broker_config.topics import BadTopicError, Down, Up, UpTopic, matches, parse_up

CAR_7 = device_id("car-7")
DEVICES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True).map(DeviceId)


@given(DEVICES, st.sampled_from(Up))
def test_what_a_device_says_is_read_back_as_its_own(device: DeviceId, channel: Up) -> None:
    assert parse_up(topics.up(device, channel)) == UpTopic(device, channel)


@given(DEVICES)
def test_every_topic_is_within_its_bound(device: DeviceId) -> None:
    for topic in (
        *[topics.up(device, channel) for channel in Up],
        *[topics.down(device, channel) for channel in Down],
    ):
        assert len(topic.encode()) <= topics.TOPIC_BYTES_MAX


GOOD = f"ff/1/{shard_of(CAR_7)}/car-7/up/event"
OTHER_SHARD = f"{(int(shard_of(CAR_7), 16) + 1) % 256:02x}"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "//////",
        GOOD + "/",
        GOOD + "/more",
        "/" + GOOD,
        GOOD.removesuffix("/event"),
        GOOD.replace("event", ""),
        GOOD.replace("event", "Event"),
        GOOD.replace("event", "receipt"),  # is said down, not up
        GOOD.replace("event", "nothing"),
        GOOD.replace("/up/", "/dn/"),
        GOOD.replace("/up/", "/UP/"),
        GOOD.replace("/up/", "//"),
        GOOD.replace("ff/", "gg/"),
        GOOD.replace("ff/1/", "ff/2/"),
        GOOD.replace("ff/1/", "ff/01/"),
        GOOD.replace("car-7", ""),
        GOOD.replace("car-7", "Car-7"),
        GOOD.replace("car-7", "_fleet-server"),
        GOOD.replace("car-7", "+"),
        GOOD.replace("car-7", "a" * 64),
        GOOD.replace(shard_of(CAR_7), OTHER_SHARD),
        GOOD.replace(shard_of(CAR_7), shard_of(CAR_7).upper() + "0"),
        GOOD.replace(shard_of(CAR_7), "+"),
        GOOD.replace(shard_of(CAR_7), ""),
        GOOD + "\n",
        GOOD + "\0",
        topics.SERVER_STATE,
        "$SYS/broker/version",
        "x" * 65_535,
    ],
)
def test_a_topic_that_is_not_a_devices_own_is_refused(topic: str) -> None:
    assert parse_up(GOOD) == UpTopic(CAR_7, Up.EVENT)
    with pytest.raises(BadTopicError):
        parse_up(topic)


@given(st.text())
def test_any_text_is_a_topic_or_refused(text: str) -> None:
    try:
        parsed = parse_up(text)
    except BadTopicError:
        return
    assert topics.up(parsed.device, parsed.channel) == text


def test_the_error_never_shows_more_than_a_topics_worth() -> None:
    with pytest.raises(BadTopicError) as caught:
        parse_up("x" * 65_535)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("pattern", "topic", "covered"),
    [
        # MQTT 5.0, section 4.7
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/broker", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a", "A", False),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a//b", "a//b", True),
        ("a/+/b", "a//b", True),
    ],
)
def test_filters_cover_what_the_standard_says(pattern: str, topic: str, covered: bool) -> None:
    assert matches(pattern, topic) is covered


@given(DEVICES, DEVICES)
def test_the_filters_of_the_table_cover_their_own_topics_and_no_others(device: DeviceId, other: DeviceId) -> None:
    for channel in Up:
        topic = topics.up(device, channel)
        assert matches(topics.up_filter(channel), topic)
        assert matches(topics.up_filter(channel, shard_of(device)), topic)
        assert matches(topics.up_tree(), topic)
        assert matches(topics.up_tree(other), topic) is (other == device)
        assert matches(topics.status_tree(device), topic) is (channel is Up.STATUS)
        assert not matches(topics.down_tree(), topic)
    for told in Down:
        topic = topics.down(device, told)
        assert matches(topics.down_filter(device), topic)
        assert matches(topics.down_filter(other), topic) is (other == device)
        assert matches(topics.down_tree(), topic)
        assert not matches(topics.up_tree(), topic)


def test_a_shards_filter_covers_no_other_shard() -> None:
    assert not matches(topics.up_filter(Up.EVENT, Shard(OTHER_SHARD)), GOOD)


def test_the_servers_state_is_no_devices_topic() -> None:
    assert not matches(topics.up_tree(), topics.SERVER_STATE)
    assert not matches(topics.down_tree(), topics.SERVER_STATE)
