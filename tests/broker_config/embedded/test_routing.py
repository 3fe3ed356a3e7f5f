"""The tree of topics and filters against brute force; the retained store; one session's queue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import policy, topics
from broker_config.embedded.message import Key, Message
from broker_config.embedded.retained import Retained
from broker_config.embedded.session import Delivery, Session
from broker_config.embedded.tree import Tree
from broker_config.ids import device_id
from broker_config.policy import Role

LEVEL = st.sampled_from(["a", "b", "", "$SYS", "ab"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)
FILTER = st.tuples(
    st.lists(st.one_of(LEVEL, st.just("+")), max_size=4), st.sampled_from([["#"], ["a"], ["+"], [""]])
).map(lambda drawn: "/".join([*drawn[0], *drawn[1]]) or "+")

CAR = Key(Role.DEVICE, "car-1")
BUS = Key(Role.DEVICE, "bus-1")


@given(st.sets(FILTER, max_size=12), TOPIC)
def test_the_filters_that_cover_a_topic_are_those_that_match_it(filters: set[str], topic: str) -> None:
    tree: Tree[str] = Tree()
    for pattern in filters:
        tree.put(pattern, pattern)
    assert sorted(tree.covering(topic)) == sorted(p for p in filters if topics.matches(p, topic))


@given(st.sets(TOPIC, max_size=12), FILTER)
def test_the_topics_that_a_filter_covers_are_those_that_it_matches(names: set[str], pattern: str) -> None:
    tree: Tree[str] = Tree()
    for name in names:
        tree.put(name, name)
    assert sorted(tree.covered(pattern)) == sorted(n for n in names if topics.matches(pattern, n))


@given(st.lists(st.tuples(st.booleans(), FILTER), max_size=30), TOPIC)
def test_a_tree_is_a_mapping_that_forgets_wholly(steps: list[tuple[bool, str]], topic: str) -> None:
    tree: Tree[int] = Tree()
    model: dict[str, int] = {}
    for number, (puts, path) in enumerate(steps):
        if puts:
            tree.put(path, number)
            model[path] = number
        else:
            tree.remove(path)
            model.pop(path, None)
        assert tree.get(path) == model.get(path)
    assert sorted(tree.covering(topic)) == sorted(v for p, v in model.items() if topics.matches(p, topic))
    for path in model:
        tree.remove(path)
    assert not tree


def said(topic: str, payload: bytes = b"x", sender: Key = CAR, expires_s: float | None = None) -> Message:
    return Message(topic=topic, payload=payload, sender=sender, expires_s=expires_s, size_bytes=len(payload))


RETAINED_STEP = st.tuples(
    TOPIC, st.sampled_from([b"", b"1", b"22", b"333"]), st.sampled_from([CAR, BUS]), st.sampled_from([None, 5.0])
)


@given(st.lists(RETAINED_STEP, max_size=30), FILTER)
def test_the_retained_store_is_a_mapping_within_its_bounds(
    steps: list[tuple[str, bytes, Key, float | None]], pattern: str
) -> None:
    store = Retained(messages_max=6, bytes_max=10)
    model: dict[str, Message] = {}
    for topic, payload, sender, expires_s in steps:
        message = said(topic, payload, sender, expires_s)
        after = {t: m for t, m in model.items() if t != topic} | ({topic: message} if payload else {})
        fits = not payload or (
            len(after) <= 6
            and sum(m.size_bytes for m in after.values()) <= 10
            and sum(m.sender == sender for m in after.values()) <= 3
        )
        assert store.keep(message, sender_max=3) is fits
        model = after if fits else model
        assert len(store) == len(model)
        assert store.size_bytes == sum(m.size_bytes for m in model.values())
    fresh = [m for m in model.values() if topics.matches(pattern, m.topic) and not m.expired(9.0)]
    found = store.covered(pattern, 9.0)
    assert sorted(m.topic for m in found) == sorted(m.topic for m in fresh)


def session(messages_max: int = 100, bytes_max: int = 1_000) -> Session:
    made = Session(CAR, policy.device(device_id("car-1")), messages_max=messages_max, bytes_max=bytes_max)
    made.begin(10)
    return made


def delivery(payload: bytes, qos: int = 1, expires_s: float | None = None) -> Delivery:
    return Delivery(said("t", payload, expires_s=expires_s), qos, retain=False, subscription_ids=())


def sent(holder: Session, now_s: float = 0.0) -> list[tuple[bytes, int | None, bool]]:
    out = []
    while (sending := holder.next(now_s)) is not None:
        out.append((sending.delivery.message.payload, sending.packet_id, sending.duplicate))
    return out


def test_order_is_kept_whatever_the_qos_and_the_window_holds_all_behind_it() -> None:
    holder = session()
    holder.begin(2)
    for payload, qos in ((b"1", 1), (b"2", 0), (b"3", 1), (b"4", 1), (b"5", 0)):
        assert holder.offer(delivery(payload, qos))
    assert sent(holder) == [(b"1", 1, False), (b"2", None, False), (b"3", 2, False)]
    assert holder.acknowledge(1)
    assert sent(holder) == [(b"4", 3, False), (b"5", None, False)]


def test_what_was_not_acknowledged_comes_first_on_the_next_connection_under_its_old_id() -> None:
    holder = session()
    for payload in (b"1", b"2", b"3"):
        holder.offer(delivery(payload))
    sent(holder)
    holder.acknowledge(2)
    holder.end()
    holder.offer(delivery(b"4"))
    holder.begin(1)
    assert sent(holder) == [(b"1", 1, True)]
    assert not holder.acknowledge(3)  # not sent on this connection yet
    holder.end()
    holder.begin(10)  # torn off in the middle of that
    assert sent(holder) == [(b"1", 1, True), (b"3", 3, True), (b"4", 4, False)]


@pytest.mark.parametrize(
    ("messages_max", "bytes_max", "taken"),
    [(2, 1_000, [True, True, False]), (100, 25, [True, True, False]), (100, 30, [True, True, True])],
)
def test_a_full_queue_takes_nothing_more(messages_max: int, bytes_max: int, taken: list[bool]) -> None:
    holder = session(messages_max, bytes_max)
    assert [holder.offer(delivery(b"0123456789")) for _ in range(3)] == taken


def test_bytes_are_counted_until_the_acknowledgement() -> None:
    holder = session()
    for qos in (1, 0, 1):
        holder.offer(delivery(b"0123456789", qos))
    holder.offer(delivery(b"old", expires_s=1.0))
    assert holder.held_bytes == 33
    sent(holder, now_s=2.0)
    assert (holder.held_bytes, holder.in_flight, holder.queued) == (20, 2, 0)
    assert not holder.acknowledge(7)
    assert holder.acknowledge(1)
    assert not holder.acknowledge(1)
    assert holder.acknowledge(2)
    assert holder.held_bytes == 0


def test_nobody_there_gets_nothing_at_most_once() -> None:
    holder = session()
    holder.offer(delivery(b"at most once", 0))
    holder.offer(delivery(b"at least once", 1))
    holder.end()
    assert (holder.queued, holder.held_bytes) == (1, len(b"at least once"))


@given(st.lists(st.integers(0, 20), max_size=60))
def test_every_message_is_acknowledged_once_whatever_breaks(steps: list[int]) -> None:
    holder = session(messages_max=1_000, bytes_max=100_000)
    offered, done, open_ids = 0, [], dict[int, bytes]()
    for step in steps:
        if step == 0:
            holder.end()
            holder.begin(3)
            open_ids.clear()
        elif step % 2:
            offered += 1
            holder.offer(delivery(b"%d" % offered))
        elif open_ids:
            packet_id = min(open_ids)
            done.append(open_ids.pop(packet_id))
            assert holder.acknowledge(packet_id)
        for payload, number, _ in sent(holder):
            assert number is not None
            assert number not in open_ids
            open_ids[number] = payload
    while open_ids:
        packet_id, payload = open_ids.popitem()
        holder.acknowledge(packet_id)
        done.append(payload)
        open_ids |= {i: p for p, i, _ in sent(holder) if i is not None}
    assert sorted(done) == sorted(b"%d" % n for n in range(1, offered + 1))
    assert holder.held_bytes == 0
