"""A broker that forges, replays and delays: the agent marks, trims and sets its clock by nothing of it.

The tap plays it: an identity of this rig's broker that may say anything on any topic.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from broker_config import messages
from broker_config.ids import device_id
from broker_config.mac import PROPERTY_KID, PROPERTY_MAC, Purpose, mac
from broker_config.messages import Receipt, Time
from broker_config.telemetry import Key
from broker_config.topics import Down, down
from tests.faults.carry_out import TRIMS_EARLY, Faults, pause
from tests.faults.rig import DEVICE, Rig, RigSettings, epoch_ms
from tests.faults.tap import Heard
from tests.faults.telemetry import drain, evidence
from tests.faults.verdict import judge

pytestmark = pytest.mark.server("mosquitto")

TOPIC = down(DEVICE, Down.RECEIPT)
NONCE = "0123456789abcdef"
UP_TO = 10**6
FORGERIES = [
    "no mac",
    "no kid",
    "a random mac",
    "another topic's mac",
    "the time key's mac",
    "another device's mac",
    "another kid",
    "other bytes' mac",
    "an older epoch",
]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig"), TRIMS_EARLY) as running:
        running.run()
        yield running


@pytest.fixture(scope="module")
def faults(rig: Rig) -> Faults:
    """What was done to the rig by all of these tests: an answer that was under way when one of them stopped the agent
    is missing for the next one too, which judges everything that was ever emitted.
    """
    return Faults(rig)


def signed(
    rig: Rig, payload: bytes, *, purpose: Purpose = Purpose.RECEIPT, topic: str = TOPIC
) -> list[tuple[str, str]]:
    key = rig.device_key(purpose)
    return [(PROPERTY_KID, key.kid), (PROPERTY_MAC, mac(key.secret, purpose, topic, payload))]


def forged(rig: Rig, how: str, receipt: Receipt) -> tuple[bytes, list[tuple[str, str]]]:
    if how == "an older epoch":
        receipt = Receipt(1, receipt.stream, receipt.life, UP_TO, (), (), receipt.store_epoch - 1)
    payload = messages.encode(receipt)
    kid, right = signed(rig, payload)
    other = rig.device_key(Purpose.RECEIPT, device_id("car-8"))
    return payload, {
        "no mac": [kid],
        "no kid": [right],
        "a random mac": [kid, (PROPERTY_MAC, "5a" * 32)],
        "another topic's mac": signed(rig, payload, topic=down(device_id("car-8"), Down.RECEIPT)),
        "the time key's mac": signed(rig, payload, purpose=Purpose.TIME),
        "another device's mac": [kid, (PROPERTY_MAC, mac(other.secret, Purpose.RECEIPT, TOPIC, payload))],
        "another kid": [(PROPERTY_KID, "00000000"), right],
        "other bytes' mac": signed(rig, payload + b" "),
        "an older epoch": [kid, right],
    }[how]


def publish(rig: Rig, topic: str, payload: bytes, properties: Sequence[tuple[str, str]]) -> None:
    rig.wait(lambda: rig.tap.connected, "the tap is connected")
    rig.background.call(rig.tap.publish(topic, payload, list(properties)))


def newest(rig: Rig) -> dict[str, Key]:
    """Stream -> the newest record that was sent."""
    found: dict[str, Key] = {}

    def at(heard: Heard) -> None:
        found.update({key.stream: key for key, _ in heard.sent})

    rig.tap.look(at)
    return found


def store_epoch(rig: Rig) -> int:
    found: list[int] = []
    rig.tap.look(lambda heard: found.append(heard.told[-1].receipt.store_epoch))
    return found[0]


def test_no_forged_or_outdated_receipt_marks_or_trims_anything(rig: Rig, faults: Faults) -> None:
    """While the real server is away nothing is receipted, whatever the broker says: everything is offered again, and
    nothing is missing when the server is back behind a broker that has forgotten what it queued.
    """
    epoch = store_epoch(rig)
    rig.server.kill()
    before = newest(rig)
    rig.wait(lambda: all(newest(rig)[s].seq > before[s].seq + 5 for s in before if s != "journal"), "more is sent")
    sent = newest(rig)
    for how in FORGERIES:
        for stream, key in sent.items():
            payload, properties = forged(rig, how, Receipt(1, stream, key.life, UP_TO, (), (), epoch))
            publish(rig, TOPIC, payload, properties)
    rig.wait(lambda: rig.agent.log().count("not authentic") >= len(sent) * (len(FORGERIES) - 1), "all were heard")
    again: list[int] = []
    rig.tap.look(lambda heard: again.append(heard.messages_again))

    def offered_again() -> bool:
        rig.tap.look(lambda heard: again.append(heard.messages_again))
        return again[-1] > again[0] + len(sent)

    rig.wait(offered_again, "what was forged to be receipted is offered again", rig.agent)
    rig.broker.kill()
    rig.broker.wipe()
    rig.broker.start()
    rig.start_server()
    drain(rig, faults)
    verdict = judge(evidence(rig, faults))
    assert verdict.wrong == []
    rig.agent.start()
    rig.settle()


def test_replayed_receipts_lose_and_double_nothing(rig: Rig, faults: Faults) -> None:
    """Every genuine receipt once more, in any order: an old one may cost a repetition, never a record."""
    receipts: list[Receipt] = []
    rig.tap.look(lambda heard: receipts.extend(told.receipt for told in heard.told))
    for receipt in reversed(receipts[-60:]):
        payload = messages.encode(receipt)
        publish(rig, TOPIC, payload, signed(rig, payload))
    rig.settle()
    drain(rig, faults)
    assert judge(evidence(rig, faults)).wrong == []


def test_neither_a_delayed_nor_a_forged_answer_moves_a_clock(tmp_path: Path) -> None:
    with Rig(tmp_path, RigSettings(ntp="no", rtt_ms_max=300)) as rig:
        rig.start_server()
        rig.server.freeze()
        rig.agent.start()
        rig.wait(lambda: "connected" in rig.agent.log(), "the agent is connected and has asked", rig.agent)
        topic = down(DEVICE, Down.TIME)
        payload = messages.encode(Time(1, NONCE, epoch_ms() + 86_400_000, 1))
        publish(rig, topic, payload, [])
        publish(rig, topic, payload, signed(rig, payload, purpose=Purpose.RECEIPT, topic=topic))
        rig.wait(lambda: rig.agent.log().count("not authentic") == 2, "two forgeries are refused", rig.agent)
        publish(rig, topic, payload, signed(rig, payload, purpose=Purpose.TIME, topic=topic))  # nobody asked this
        rig.wait(lambda: rig.agent.log().count("time answer ignored") == 1, "so is a replay", rig.agent)
        pause(0.5)
        rig.server.thaw()
        rig.wait(lambda: rig.agent.log().count("time answer ignored") == 2, "the late answer is refused", rig.agent)
        rig.settle()
        assert "clock source" not in rig.agent.log()
        assert "clock moved" not in rig.agent.log()
