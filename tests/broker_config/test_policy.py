import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import policy, topics
from broker_config.ids import DeviceId, SiteId, device_id
from broker_config.policy import OWN, RULES, Action, Identity, Role, allowed
from broker_config.topics import Down, Up

CAR_7 = device_id("car-7")
CAR_8 = device_id("car-8")
SITE = SiteId("5e" * 32)
DEVICE = policy.device(CAR_7)
SERVER = policy.server(SITE)
P, R = Action.PUBLISH, Action.RECEIVE
DEVICES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True).map(DeviceId)


@pytest.mark.parametrize(
    ("who", "action", "topic", "retain", "verdict"),
    [
        *[(DEVICE, P, topics.up(CAR_7, channel), False, True) for channel in Up],
        *[(DEVICE, P, topics.up(CAR_7, channel), True, channel is Up.STATUS) for channel in Up],
        *[(DEVICE, R, topics.down(CAR_7, channel), False, True) for channel in Down],
        *[(DEVICE, P, topics.down(CAR_7, channel), False, False) for channel in Down],
        *[(DEVICE, R, topics.up(CAR_7, channel), False, False) for channel in Up],
        *[(DEVICE, P, topics.up(CAR_8, channel), False, False) for channel in Up],
        *[(DEVICE, R, topics.down(CAR_8, channel), False, False) for channel in Down],
        (DEVICE, R, topics.SERVER_STATE, False, True),
        (DEVICE, P, topics.SERVER_STATE, False, False),
        (DEVICE, P, topics.SERVER_STATE, True, False),
        *[(SERVER, R, topics.up(CAR_7, channel), False, True) for channel in Up],
        *[(SERVER, P, topics.down(CAR_7, channel), False, True) for channel in Down],
        *[(SERVER, P, topics.down(CAR_7, channel), True, False) for channel in Down],
        *[(SERVER, P, topics.up(CAR_7, channel), True, channel is Up.STATUS) for channel in Up],
        (SERVER, P, topics.SERVER_STATE, True, True),
        (SERVER, R, topics.SERVER_STATE, False, True),
        (SERVER, R, topics.down(CAR_7, Down.RECEIPT), False, False),
    ],
)
def test_the_table(who: Identity, action: Action, topic: str, retain: bool, verdict: bool) -> None:
    assert allowed(who, action, topic, retain=retain) is verdict


@pytest.mark.parametrize("who", [DEVICE, SERVER])
@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize(
    "topic",
    [
        "",
        "#",
        "+",
        "ff/1/+/car-7/up/event",
        "ff/1/00/car-7/up/#",
        "ff/1/00/car-7/up/\0",
        "$SYS/broker",
        "$CONTROL/x",
        "x",
    ],
)
def test_what_is_in_no_rule_is_allowed_to_nobody(who: Identity, action: Action, topic: str) -> None:
    assert not allowed(who, action, topic)


@pytest.mark.parametrize(
    "name", ["", "+", "#", "_fleet-server", "car-7/up", "+/car-7", "CAR-7", "a" * 64, SERVER.name]
)
def test_a_certificate_with_another_name_gives_no_rights(name: str) -> None:
    stranger = Identity(Role.DEVICE, name)
    for rule in RULES:
        topic = rule.pattern.replace(OWN, name).replace("+", "00").replace("#", "event")
        assert not allowed(stranger, rule.action, topic)


@given(DEVICES, DEVICES, st.sampled_from(Action), st.sampled_from(Up), st.sampled_from(Down))
def test_no_device_reaches_another(one: DeviceId, other: DeviceId, action: Action, said: Up, told: Down) -> None:
    reached = any(allowed(policy.device(one), action, t) for t in (topics.up(other, said), topics.down(other, told)))
    assert reached is (one == other)


@given(DEVICES, st.sampled_from(Action), st.text())
def test_any_other_topic_is_a_no(device: DeviceId, action: Action, text: str) -> None:
    if not text.startswith(topics.ROOT):
        assert not allowed(policy.device(device), action, text)
        assert not allowed(SERVER, action, text)


def test_every_rule_is_under_the_one_root() -> None:
    assert all(rule.pattern.startswith(topics.ROOT + "/") for rule in RULES)
