"""Twins as files: desired as it is signed, and what device and server say of them, byte for byte."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import pytest

from broker_config import signing, topics, twin
from broker_config.signing import BadEnvelopeError, Kind
from broker_config.topics import Down, Up, parse_up
from broker_config.twin import ApplyWindow, AskTwin, BadTwinError, ChangeState, Desired, Reported, TwinState
from tests.orders import CAR, NOW_MS, claims, order

VECTORS: Final = Path(__file__).parent / "vectors"
BOOT: Final = "fedcba9876543210"
ROLLOUT: Final = "00112233445566aa"
Message = Desired | Reported | AskTwin | TwinState

CASES: Final[dict[str, dict[str, Message]]] = {
    "desired": {
        "every default": Desired(1, NOW_MS, {}),
        "of every type, at night, from Monday to Friday, by a rollout": Desired(
            1,
            NOW_MS + 1,
            {"video": "720p", "pre_event_s": 20, "battery_low_pct": 12.5, "mute_allowed": True},
            60,
            ApplyWindow(1_320, 300, (1, 2, 3, 4, 5)),
            ROLLOUT,
        ),
    },
    "reported": {
        "nothing was ever desired": Reported(1, NOW_MS, BOOT, 0, 0, ChangeState.CURRENT, {"video": "1080p"}),
        "waits for a lease": Reported(
            1, NOW_MS + 2, BOOT, NOW_MS + 1, 0, ChangeState.DEFERRED, {"video": "1080p"}, waits_for="recording"
        ),
        "proves itself": Reported(
            1, NOW_MS + 3, BOOT, NOW_MS + 1, NOW_MS + 1, ChangeState.CONFIRMING, {"video": "720p"}
        ),
        "in force": Reported(1, NOW_MS + 4, BOOT, NOW_MS + 1, NOW_MS + 1, ChangeState.CURRENT, {"video": "720p"}),
        "undone": Reported(
            1,
            NOW_MS + 5,
            BOOT,
            NOW_MS + 2,
            NOW_MS + 1,
            ChangeState.REVERTED,
            {"video": "720p"},
            "no word of the server",
        ),
        "refused": Reported(
            1, NOW_MS + 6, BOOT, NOW_MS + 3, NOW_MS + 1, ChangeState.REFUSED, {"video": "720p"}, "colour: unknown"
        ),
    },
    "ask_twin": {"nothing yet": AskTwin(1, 0), "has one": AskTwin(1, NOW_MS)},
    "twin_state": {
        "nothing is desired and nothing known": TwinState(1, 0, 0),
        "the answer to a report": TwinState(1, NOW_MS + 1, NOW_MS + 4),
    },
}
TOPICS: Final[Mapping[str, str]] = {
    "desired": topics.down(CAR, Down.TWIN),
    "reported": topics.up(CAR, Up.TWIN),
    "ask_twin": topics.up(CAR, Up.TWIN),
    "twin_state": topics.down(CAR, Down.TWIN),
}


def decoded(kind: str, payload: bytes) -> Message:
    match kind:
        case "desired":
            claimed = claims(kind=Kind.TWIN)
            return twin.decode_desired(msgspec.structs.replace(claimed, body=msgspec.Raw(payload)))
        case "twin_state":
            return twin.decode_state(payload)
        case _:
            return twin.decode_said(payload)


def read(kind: str) -> list[dict[str, str]]:
    return msgspec.json.decode((VECTORS / f"{kind}.json").read_bytes(), type=list[dict[str, str]])


@pytest.mark.parametrize("kind", CASES)
def test_what_we_say_is_in_the_vectors_byte_for_byte(kind: str, golden: Callable[[Path, str], None]) -> None:
    table = [
        {"name": name, "topic": TOPICS[kind], "payload": twin.encode(case).decode()}
        | ({"order": order(claims(case, kind=Kind.TWIN)).decode()} if isinstance(case, Desired) else {})
        for name, case in CASES[kind].items()
    ]
    golden(VECTORS / f"{kind}.json", json.dumps(table, indent=2, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("kind", CASES)
def test_what_the_vectors_say_is_understood(kind: str) -> None:
    assert [decoded(kind, row["payload"].encode()) for row in read(kind)] == list(CASES[kind].values())
    for row in read(kind):
        if TOPICS[kind].split("/")[-2] == "up":
            assert parse_up(row["topic"]).channel is Up.TWIN


@pytest.mark.parametrize("kind", ["reported", "ask_twin", "twin_state"])
def test_a_newer_side_may_say_more_but_not_more_than_was_signed(kind: str) -> None:
    for row, case in zip(read(kind), CASES[kind].values(), strict=True):
        more = json.dumps(json.loads(row["payload"]) | {"new_name": [1, {"deep": None}]}).encode()
        assert decoded(kind, more) == case


def test_what_is_desired_says_nothing_that_a_device_does_not_know() -> None:
    for row in read("desired"):
        with pytest.raises(BadEnvelopeError):
            decoded("desired", json.dumps(json.loads(row["payload"]) | {"new_name": 1}).encode())


def test_an_order_is_no_hint() -> None:
    for row in read("desired"):
        with pytest.raises(BadTwinError):
            twin.decode_state(row["order"].encode())
        told = signing.decode_claims(signing.decode_envelope(row["order"].encode()))
        assert bytes(told.body).decode() == row["payload"]
