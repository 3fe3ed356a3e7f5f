"""A simulated device over a lossy link with a server that keeps to the contract: no number is ever lost."""

import random
from collections.abc import Iterable
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config import messages, telemetry, topics
from broker_config.ids import DeviceId
from broker_config.mac import PROPERTY_KID, PROPERTY_MAC, MacKey, Purpose, mac
from broker_config.messages import AskTime, Birth, Receipt, Time, Will
from broker_config.ranges import RangeSet, normal
from broker_config.telemetry import JOURNAL, PROPERTY_KEY, PROPERTY_LAST, Events
from broker_config.topics import Down, Up
from fleet_server.cli.simulate import readings
from fleet_server.cli.simulate.device import (
    Break,
    Connect,
    Device,
    Effect,
    Habits,
    Keys,
    Leave,
    Moment,
    Publish,
    State,
)

NAME = DeviceId("sim-000001")
KEYS = Keys(MacKey("0badcafe", b"r" * 32), MacKey("0badcafe", b"t" * 32))
HABITS = Habits(readings.signals("host", ("cpu", "network")), 5.0, 3, "host", in_flight_max=4)
LIFE = "9f3c21aa07b1d4e6"
EPOCH_MS = 1_767_225_600_000
BEGIN = Moment(1_000.0, EPOCH_MS)


def at(seconds: float) -> Moment:
    return Moment(BEGIN.s + seconds, BEGIN.ms + int(seconds * 1000))


def new_device(seed: int = 1) -> Device:
    device = Device(NAME, HABITS, KEYS, random.Random(seed), BEGIN, life=LIFE)
    device.switch_on(BEGIN.s)
    return device


def connected(seed: int = 1) -> tuple[Device, list[Effect]]:
    device = new_device(seed)
    assert any(isinstance(effect, Connect) for effect in device.turn(BEGIN))
    return device, device.up(at(0.1))


def published(effects: Iterable[Effect], channel: Up) -> list[Publish]:
    topic = topics.up(NAME, channel)
    return [effect for effect in effects if isinstance(effect, Publish) and effect.topic == topic]


def signed(purpose: Purpose, message: Any, key: MacKey) -> tuple[str, bytes, dict[str, str]]:
    topic = topics.down(NAME, Down.RECEIPT if purpose is Purpose.RECEIPT else Down.TIME)
    body = messages.encode(message)
    return topic, body, {PROPERTY_KID: key.kid, PROPERTY_MAC: mac(key.secret, purpose, topic, body)}


class FleetServer:
    """What it has of each stream, by number; the same number with other bytes is a conflict."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], dict[int, bytes]] = {}
        self.gone: dict[tuple[str, str], RangeSet] = {}
        self.conflicts = 0

    def hear(self, message: Publish) -> list[Receipt]:
        if message.topic == topics.up(NAME, Up.STATUS):
            birth = messages.decode_status(message.body)
            if isinstance(birth, Birth):
                for state in birth.streams:
                    gone = self.gone.setdefault((state.stream, state.life), RangeSet())
                    for low, high in state.gone:
                        gone.add(low, high)
            return []
        if message.topic in {topics.up(NAME, Up.TIME), topics.up(NAME, Up.TWIN)}:
            return []
        properties = dict(message.properties)
        record = telemetry.decode(message.body, message.content_type)
        assert properties[PROPERTY_KEY] == telemetry.key_text(record.stream, record.life, record.seq)
        assert int(properties[PROPERTY_LAST]) >= record.seq
        place = (record.stream, record.life)
        had = self.stored.setdefault(place, {}).setdefault(record.seq, message.body)
        self.conflicts += had != message.body
        return [self.receipt(place)]

    def receipt(self, place: tuple[str, str]) -> Receipt:
        held = RangeSet(normal((seq, seq) for seq in self.stored[place]))
        top = held.last
        for low, high in self.gone.get(place, RangeSet()).ranges():
            held.add(low, high)
        return Receipt(1, *place, top, held.holes(top), (), 1)


def test_what_it_says_when_the_connection_stands_is_its_birth_and_a_question_for_the_time() -> None:
    device, effects = connected()
    (status,) = published(effects, Up.STATUS)
    birth = messages.decode_status(status.body)
    assert isinstance(birth, Birth)
    assert status.retain
    assert [state.stream for state in birth.streams] == ["cpu", "network", JOURNAL]
    (ask,) = published(effects, Up.TIME)
    assert messages.decode(ask.body, AskTime)
    assert device.state is State.CONNECTED


def test_birth_and_will_carry_the_same_epoch_and_every_connection_another() -> None:
    device = new_device()
    epochs = []
    for number in range(2):
        (connect,) = [effect for effect in device.turn(at(number * 120)) if isinstance(effect, Connect)]
        (status,) = published(device.up(at(number * 120 + 1)), Up.STATUS)
        will, birth = messages.decode(connect.will, Will), messages.decode_status(status.body)
        assert (will.epoch, will.reason) == (birth.epoch, "lost")
        epochs.append(will.epoch)
        device.lost(at(number * 120 + 2), "cut")
    assert len(set(epochs)) == 2


def test_batches_are_numbered_and_the_journal_is_chained() -> None:
    device, _ = connected()
    sent = [effect for tick in range(1, 12) for effect in device.turn(at(tick))]
    records = [telemetry.decode(message.body, message.content_type) for message in published(sent, Up.TELEMETRY)]
    assert [record.seq for record in records if record.stream == "cpu"] == [1, 2]
    assert {len(record.dt) for record in records} == {3}
    (event,) = published(sent, Up.EVENT)
    journal = telemetry.decode(event.body, event.content_type)
    assert isinstance(journal, Events)
    assert (journal.prev, [each.kind for each in journal.events]) == (telemetry.GENESIS, ["agent.start", "link.up"])


def test_at_most_the_window_is_in_flight_and_what_is_not_receipted_comes_again_as_it_was() -> None:
    device, _ = connected()
    sent = [message for tick in range(1, 15) for message in device.turn(at(tick)) if isinstance(message, Publish)]
    batches = [message for message in sent if dict(message.properties)]
    assert len(batches) == HABITS.in_flight_max
    again = [
        message
        for tick in range(15, 50)
        for message in device.turn(at(tick))
        if isinstance(message, Publish) and message.properties
    ]
    assert {message.body for message in again} == {message.body for message in batches}


@pytest.mark.parametrize("wrong", ["mac", "kid", "time's key"])
def test_a_receipt_that_is_not_authentic_changes_nothing(wrong: str) -> None:
    device, _ = connected()
    device.turn(at(6))
    line = device.lines["cpu"]
    receipt = Receipt(1, "cpu", line.life, 1, (), (), 1)
    topic, body, properties = signed(Purpose.RECEIPT, receipt, KEYS.time if wrong == "time's key" else KEYS.receipt)
    properties |= {} if wrong == "time's key" else {wrong: "00"}
    device.told(topic, body, properties, at(7))
    assert (list(line.held), device.refused) == ([1], 1)
    device.told(*signed(Purpose.RECEIPT, receipt, KEYS.receipt), at(7))
    assert (list(line.held), line.receipted) == ([], 1)


def test_a_receipt_that_misses_what_an_earlier_one_had_is_a_loss() -> None:
    device, _ = connected()
    for tick in range(1, 12):
        device.turn(at(tick))
    line = device.lines["cpu"]
    device.told(*signed(Purpose.RECEIPT, Receipt(1, "cpu", line.life, 2, (), (), 1), KEYS.receipt), at(12))
    assert not line.lost
    device.told(*signed(Purpose.RECEIPT, Receipt(1, "cpu", line.life, 2, ((1, 1),), (), 1), KEYS.receipt), at(13))
    assert line.lost == ((1, 1),)


def server_state(epoch: int) -> tuple[str, bytes, dict[str, str]]:
    state = messages.ServerState(1, 1, (messages.ShardEpoch(0, 255, epoch),), "up")
    return topics.SERVER_STATE, messages.encode(state), {}


def test_another_server_is_offered_what_is_in_flight_even_if_it_said_so_before_the_connection_stood() -> None:
    device = new_device()
    device.turn(BEGIN)
    device.told(*server_state(1), BEGIN)
    device.up(at(0.1))
    device.turn(at(6))
    assert not published(device.turn(at(8)), Up.TELEMETRY)
    device.told(*server_state(2), at(8))
    assert len(published([*device.turn(at(9)), *device.turn(at(10.1))], Up.TELEMETRY)) >= 2


def test_after_a_power_cut_it_boots_anew_and_its_numbers_go_on() -> None:
    device, effects = connected()
    before = messages.decode_status(published(effects, Up.STATUS)[0].body)
    device.turn(at(6))
    assert device.power_cut(at(7), pause_s=3.0, clock_lost=False) == [Break()]
    assert device.turn(at(8)) == []
    assert any(isinstance(effect, Connect) for effect in device.turn(at(10)))
    after = messages.decode_status(published(device.up(at(11)), Up.STATUS)[0].body)
    assert isinstance(before, Birth)
    assert isinstance(after, Birth)
    assert before.boot != after.boot
    assert after.mono == 1_000
    assert (after.streams[0].life, after.streams[0].last) == (before.streams[0].life, 1)


def test_with_a_clock_of_1970_batches_say_so_until_the_server_has_told_the_time() -> None:
    device, _ = connected()
    device.power_cut(at(1), pause_s=1.0, clock_lost=True)
    device.turn(at(2))
    (ask,) = published(device.up(at(3)), Up.TIME)
    device.turn(at(8))
    nonce = messages.decode(ask.body, AskTime).nonce
    early = telemetry.decode(device.lines["cpu"].held[1].body, device.lines["cpu"].held[1].content_type)
    assert (early.clock.src, early.t0 < 60_000) == ("none", True)
    device.told(*signed(Purpose.TIME, Time(1, nonce, at(8).ms, 5), KEYS.time), at(8))
    device.turn(at(13))
    line = device.lines["cpu"]
    late = telemetry.decode(line.held[line.last].body, line.held[line.last].content_type)
    assert late.clock.src == "server"
    assert abs(late.t0 + late.dt[-1] - at(13).ms) < 6_000


def test_a_full_disk_drops_what_memory_does_not_hold_and_the_birth_says_what() -> None:
    device, _ = connected()
    device.disk(at(1), full=True)
    for tick in range(1, 60):
        device.turn(at(tick))
    assert all(line.last == 0 for line in device.lines.values())
    device.disk(at(60), full=False)
    (status, *_) = published(device.turn(at(62)), Up.STATUS)
    birth = messages.decode_status(status.body)
    assert isinstance(birth, Birth)
    assert [bool(state.gone) for state in birth.streams] == [bool(line.gone) for line in device.lines.values()]
    assert device.lines["cpu"].gone


@pytest.mark.parametrize(("failures", "bound_s"), [(1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (40, 60.0)])
def test_it_comes_back_anywhere_within_a_bound_that_doubles(failures: int, bound_s: float) -> None:
    waits_s = []
    for seed in range(60):
        device, now = new_device(seed), BEGIN
        for _ in range(failures):
            now = Moment(max(now.s, device._wake_s), now.ms)
            device.turn(now)
            device.failed(now)
        waits_s.append(device._wake_s - now.s)
    assert 0.5 * bound_s < max(waits_s) <= bound_s
    assert min(waits_s) < 0.5 * bound_s


def told_spread(device: Device, state: Literal["up", "down"], spread_s: int, now: Moment) -> None:
    message = messages.ServerState(1, 1, (), state, 1000 * spread_s)
    device.told(topics.SERVER_STATE, messages.encode(message), {}, now)


@pytest.mark.parametrize("farewell", [False, True])
def test_it_comes_back_within_the_spread_and_tries_again_a_spread_later(farewell: bool) -> None:
    """A server that goes does not end what it said."""
    first_s, again_s = [], []
    for seed in range(60):
        device, _ = connected(seed)
        told_spread(device, "up", 40, at(1))
        if farewell:
            told_spread(device, "down", 0, at(1))
        device.lost(at(2), "cut")
        first_s.append(device._wake_s - at(2).s)
        device.turn(Moment(device._wake_s, EPOCH_MS))
        device.failed(at(50))
        again_s.append(device._wake_s - at(50).s)
    assert 20 < max(first_s) <= 40
    assert 0 <= min(first_s) < 20
    assert 40 <= min(again_s) < max(again_s) <= 40 + 2 * HABITS.backoff_s_min


def test_a_boot_forgets_the_spread() -> None:
    device, _ = connected()
    told_spread(device, "up", 40, at(1))
    device.power_cut(at(2), pause_s=3.0, clock_lost=False)
    assert any(isinstance(effect, Connect) for effect in device.turn(at(5)))
    device.failed(at(6))
    assert device._wake_s - at(6).s <= HABITS.backoff_s_min


STEPS = st.sampled_from(["tick", "tick", "tick", "lose", "cut", "1970", "full", "free", "restart"])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1_000), loss=st.floats(0.0, 0.9), steps=st.lists(STEPS, max_size=120))
def test_over_any_lossy_link_every_number_is_stored_or_gone_and_none_twice(
    seed: int, loss: float, steps: list[str]
) -> None:
    rng, server, device = random.Random(seed), FleetServer(), new_device(seed)
    seconds = 0.0

    def carry_out(effects: list[Effect], loss: float) -> None:
        for effect in effects:
            if isinstance(effect, Connect):
                if rng.random() < loss:
                    device.failed(at(seconds))
                else:
                    carry_out(device.up(at(seconds)), loss)
            elif isinstance(effect, Publish) and rng.random() >= loss:
                for receipt in server.hear(effect):
                    if rng.random() >= loss:
                        carry_out(device.told(*signed(Purpose.RECEIPT, receipt, KEYS.receipt), at(seconds)), loss)

    for step in steps:
        seconds += rng.uniform(0.1, 4.0)
        now = at(seconds)
        match step:
            case "tick":
                carry_out(device.turn(now), loss)
            case "lose":
                device.lost(now, "cut")
            case "cut" | "1970":
                carry_out(device.power_cut(now, pause_s=2.0, clock_lost=step == "1970"), loss)
            case "full" | "free":
                carry_out(device.disk(now, full=step == "full"), loss)
            case "restart":
                device._offer_again(now)
    carry_out(device.stop(at(seconds)), loss)
    for _ in range(200):
        seconds += 5.0
        carry_out(device.turn(at(seconds)), 0.0)
    assert device.drained
    assert server.conflicts == 0
    for (stream, life), stored in server.stored.items():
        line = device.lines[stream]
        assert line.life == life
        gone = {seq for low, high in line.gone for seq in range(low, high + 1)}
        assert set(stored) | gone == set(range(1, line.last + 1))
        assert line.receipted == line.last - len(gone)
        assert line.lost == ()
    goodbye = device.leave(at(seconds))
    assert isinstance(goodbye[-1], Leave)
    assert messages.decode(published(goodbye, Up.STATUS)[0].body, Will).reason == "stop"
