"""The contract as files, so that an agent in another language can be checked against the same bytes.

``vectors/KIND.json`` holds what goes over the broker: a name, the topic, the content type and user properties, the
payload as text (or hex, where it is compressed) and the value that it says. ``pytest --update`` writes them anew
from the cases here; a change in a committed vector is a change of the contract, and needs a new version of it.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import pytest
from msgspec import Struct

from broker_config import messages, telemetry, topics
from broker_config.ids import DeviceId, SiteId, device_id, server_client_id, server_user, shard_of
from broker_config.mac import PROPERTY_KID, PROPERTY_MAC, MacKey, Purpose, authentic, key_info, mac
from broker_config.messages import (
    AskTime,
    Birth,
    CommandStatus,
    Receipt,
    ServerState,
    ShardEpoch,
    StreamState,
    Time,
    Will,
)
from broker_config.telemetry import PROPERTY_KEY, PROPERTY_LAST, Batch, Clock, Event, Events, Record
from broker_config.topics import SERVER_STATE, Down, Up, down, parse_up, up
from fleet_server.access.keys import MasterKey, derive

VECTORS: Final = Path(__file__).parent / "vectors"
CAR: Final = device_id("car-7")
LIFE: Final = "0123456789abcdef"
BOOT: Final = "fedcba9876543210"
NONCE: Final = "00112233445566aa"
MASTER: Final = MasterKey(bytes(range(32)))
SITE: Final = SiteId("5e" * 32)
CLOCK: Final = Clock("ntp", -12, 40)


class Vector(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One message as it goes over the broker; ``value`` is its JSON once more, for readers of this file."""

    name: str
    topic: str
    value: msgspec.Raw
    content_type: str = ""
    retain: bool = False
    properties: dict[str, str] = {}
    payload: str | None = None
    payload_hex: str | None = None

    def bytes(self) -> bytes:
        if self.payload is not None:
            return self.payload.encode()
        assert self.payload_hex is not None
        return bytes.fromhex(self.payload_hex)


@dataclass(frozen=True)
class Case:
    """A message that a vector is written from."""

    name: str
    topic: str
    message: messages.Message | Record
    signed: Purpose | None = None
    last: int = 0
    retain: bool = field(default=False)


STATE = StreamState("cpu", LIFE, first=4, last=9)
CASES: dict[str, list[Case]] = {
    "birth": [
        Case(
            "the first of a new device",
            up(CAR, Up.STATUS),
            Birth(1, NONCE, BOOT, 48_211, 30, "0.1.0", "host", "host", 0, 5_000, ()),
            retain=True,
        ),
        Case(
            "with streams: evicted, held out of order, of an older life",
            up(CAR, Up.STATUS),
            Birth(
                1,
                NONCE,
                BOOT,
                48_211,
                30,
                "0.1.0",
                "host",
                "host",
                1_767_225_600_000,
                5_000,
                (
                    StreamState("cpu", LIFE, 4, 9, gone=((1, 2),), trimmed=((5, 5), (7, 8)), every_ms=10_000),
                    StreamState("journal", LIFE, 3, 2),
                    StreamState("cpu", "ffffffffffffffff", 1, 2**53 - 1, every_ms=10_000),
                ),
            ),
            retain=True,
        ),
        Case(
            "with what is wired and the board that carries it",
            up(CAR, Up.STATUS),
            Birth(
                1, NONCE, BOOT, 48_211, 30, "0.1.0", "host", "host", 0, 5_000, (), "d" * 64, "Raspberry Pi 4 Model B"
            ),
            retain=True,
        ),
    ],
    "will": [
        Case("the broker's, for a device that vanished", up(CAR, Up.STATUS), Will(1, NONCE, "lost"), retain=True),
        Case("the device's own, when it is stopped", up(CAR, Up.STATUS), Will(1, NONCE, "stop"), retain=True),
    ],
    "receipt": [
        Case(
            "nothing is committed yet",
            down(CAR, Down.RECEIPT),
            Receipt(1, "cpu", LIFE, 0, (), (), 1),
            signed=Purpose.RECEIPT,
        ),
        Case(
            "with holes and a conflict",
            down(CAR, Down.RECEIPT),
            Receipt(1, "cpu", LIFE, 9, ((3, 4), (7, 7)), ((5, 5),), 1_767_225_600_000),
            signed=Purpose.RECEIPT,
        ),
        Case(
            "with the checksum of what is held under its newest number",
            down(CAR, Down.RECEIPT),
            Receipt(1, "cpu", LIFE, 9, (), (), 1_767_225_600_000, 0xCBF4_3926),
            signed=Purpose.RECEIPT,
        ),
    ],
    "ask_time": [Case("what time is it", up(CAR, Up.TIME), AskTime(1, NONCE))],
    "time": [
        Case("the answer", down(CAR, Down.TIME), Time(1, NONCE, 1_767_225_600_123, 4), signed=Purpose.TIME),
    ],
    "server_state": [
        Case(
            "one worker for all shards",
            SERVER_STATE,
            ServerState(1, 1_767_225_600_000, (ShardEpoch(0, 255, 7),), "up"),
            retain=True,
        ),
        Case(
            "many devices, that are to come back over 44.5 s",
            SERVER_STATE,
            ServerState(1, 1_767_225_600_000, (ShardEpoch(0, 255, 7),), "up", 44_445),
            retain=True,
        ),
        Case("going down", SERVER_STATE, ServerState(1, 1_767_225_600_000, (), "down"), retain=True),
    ],
    "command_status": [
        Case("done", up(CAR, Up.COMMAND), CommandStatus(1, NONCE, "done")),
        Case("refused", up(CAR, Up.COMMAND), CommandStatus(1, NONCE, "refused", "expired")),
        Case("refused, and not even an id", up(CAR, Up.COMMAND), CommandStatus(1, "", "refused", "malformed")),
        Case("it waits", up(CAR, Up.COMMAND), CommandStatus(1, NONCE, "deferred", waits_for="on_call")),
        Case(
            "done, with what it found",
            up(CAR, Up.COMMAND),
            CommandStatus(1, NONCE, "done", result={"passed": True, "files": 3, "off_ms": -0.5, "output": "„gut“"}),
        ),
        Case(
            "failed, and how",
            up(CAR, Up.COMMAND),
            CommandStatus(1, NONCE, "failed", "exit_code", result={"exit_code": 2}),
        ),
        Case("the order came again", up(CAR, Up.COMMAND), CommandStatus(1, NONCE, "done", "replayed")),
    ],
    "batch": [
        Case(
            "readings, one of them missing",
            up(CAR, Up.TELEMETRY),
            Batch(
                1,
                "power",
                LIFE,
                10_421,
                BOOT,
                1_767_225_600_000,
                48_211,
                CLOCK,
                ("battery_pct", "temp_c"),
                [0, 1_000],
                [[83.4, 31.2], [83.3, None]],
            ),
            last=10_423,
        ),
        Case(
            "before anybody set the clock, at the bounds of values",
            up(CAR, Up.TELEMETRY),
            Batch(1, "x", LIFE, 1, BOOT, -1, 0, Clock("none", 0, 0), ("a",), [0, 600_000], [[1e15], [-1e15]]),
            last=1,
        ),
        Case(
            "compressed: 60 rows",
            up(CAR, Up.TELEMETRY),
            Batch(
                1,
                "cpu",
                LIFE,
                2**53 - 1,
                BOOT,
                1_767_225_600_000,
                48_211,
                Clock("server", 250, 60),
                ("cpu_pct", "load_1m"),
                [n * 1_000 for n in range(60)],
                [[n + 0.5, n / 8] for n in range(60)],
            ),
            last=2**53 - 1,
        ),
    ],
    "events": [
        Case(
            "the journal's first batch",
            up(CAR, Up.EVENT),
            Events(
                1,
                "journal",
                LIFE,
                1,
                BOOT,
                1_767_225_600_000,
                48_211,
                CLOCK,
                telemetry.GENESIS,
                [0, 5],
                [
                    Event("agent.start", {"clean": False}),
                    Event("link.down", {"why": "keine Route: „dev“", "tries": 3, "last_ms": None}),
                ],
            ),
            last=1,
        ),
    ],
}


def payload_of(message: messages.Message | Record) -> tuple[bytes, str]:
    if isinstance(message, Batch | Events):
        return telemetry.encode(message)
    return messages.encode(message), telemetry.CONTENT_JSON


def vector_of(case: Case) -> Vector:
    payload, content_type = payload_of(case.message)
    properties = {}
    if isinstance(case.message, Batch | Events):
        key = telemetry.key_text(case.message.stream, case.message.life, case.message.seq)
        properties = {PROPERTY_KEY: key, PROPERTY_LAST: str(case.last)}
    if case.signed is not None:
        properties = {
            PROPERTY_MAC: mac(derive(MASTER, case.signed, CAR).secret, case.signed, case.topic, payload),
            PROPERTY_KID: MASTER.kid,
        }
    compressed = content_type == telemetry.CONTENT_ZLIB
    return Vector(
        name=case.name,
        topic=case.topic,
        value=msgspec.Raw(msgspec.json.encode(case.message)),
        content_type=content_type,
        retain=case.retain,
        properties=properties,
        payload=None if compressed else payload.decode(),
        payload_hex=payload.hex() if compressed else None,
    )


def text_of(value: object) -> str:
    return json.dumps(json.loads(msgspec.json.encode(value)), indent=2, ensure_ascii=False) + "\n"


def read(kind: str) -> list[Vector]:
    return msgspec.json.decode((VECTORS / f"{kind}.json").read_bytes(), type=list[Vector])


Golden = Callable[[Path, str], None]


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "batch"])
def test_what_we_say_is_in_the_vectors_byte_for_byte(kind: str, golden: Golden) -> None:
    golden(VECTORS / f"{kind}.json", text_of([vector_of(case) for case in CASES[kind]]))


def test_batches_are_in_the_vectors_before_their_compression(golden: Golden, request: pytest.FixtureRequest) -> None:
    # Compressors differ between machines, and each may: what is fixed is the text that comes out.
    if request.config.getoption("--update"):
        golden(VECTORS / "batch.json", text_of([vector_of(case) for case in CASES["batch"]]))
    for vector, case in zip(read("batch"), CASES["batch"], strict=True):
        ours = vector_of(case)
        assert telemetry.inflate(ours.bytes(), ours.content_type) == telemetry.inflate(
            vector.bytes(), vector.content_type
        )
        assert (ours.topic, ours.properties, ours.content_type) == (
            vector.topic,
            vector.properties,
            vector.content_type,
        )


def decoded(kind: str, payload: bytes, content_type: str) -> messages.Message | Record:
    if kind in {"batch", "events"}:
        return telemetry.decode(payload, content_type)
    return messages.decode(payload, type(CASES[kind][0].message))  # type: ignore[type-var]


@pytest.mark.parametrize("kind", CASES)
def test_what_the_vectors_say_is_understood(kind: str) -> None:
    for vector, case in zip(read(kind), CASES[kind], strict=True):
        assert decoded(kind, vector.bytes(), vector.content_type) == case.message
        assert json.loads(bytes(vector.value)) == json.loads(msgspec.json.encode(case.message))


@pytest.mark.parametrize("kind", CASES)
def test_a_newer_side_may_say_more_at_every_depth(kind: str) -> None:
    def more(value: object) -> object:
        if isinstance(value, list):
            return [more(item) for item in value]
        if not isinstance(value, dict):
            return value
        inner = {name: item if name in {"data", "result"} else more(item) for name, item in value.items()}
        return inner | {"new_name": [1, {"deep": None}]}

    for vector, case in zip(read(kind), CASES[kind], strict=True):
        payload = json.dumps(more(json.loads(bytes(vector.value)))).encode()
        assert decoded(kind, payload, telemetry.CONTENT_JSON) == case.message


@pytest.mark.parametrize("kind", [kind for kind, cases in CASES.items() if cases[0].topic.split("/")[-2] == "up"])
def test_the_topics_in_the_vectors_are_read(kind: str) -> None:
    for vector in read(kind):
        parsed = parse_up(vector.topic)
        assert topics.up(parsed.device, parsed.channel) == vector.topic


@pytest.mark.parametrize("kind", ["batch", "events"])
def test_the_key_in_the_vectors_is_that_of_the_body(kind: str) -> None:
    for vector in read(kind):
        record = telemetry.decode(vector.bytes(), vector.content_type)
        key = telemetry.parse_key(vector.properties[PROPERTY_KEY])
        assert (key.stream, key.life, key.seq) == (record.stream, record.life, record.seq)
        assert int(vector.properties[PROPERTY_LAST]) >= key.seq


@pytest.mark.parametrize(("kind", "purpose"), [("receipt", Purpose.RECEIPT), ("time", Purpose.TIME)])
def test_the_macs_in_the_vectors_are_authentic(kind: str, purpose: Purpose) -> None:
    key = derive(MASTER, purpose, CAR)
    for vector in read(kind):
        assert authentic(key, purpose, vector.topic, vector.bytes(), vector.properties)
        assert not authentic(key, purpose, vector.topic, vector.bytes() + b" ", vector.properties)


def test_a_compressed_vector_is_a_zlib_stream() -> None:
    packed = [vector for vector in read("batch") if vector.content_type == telemetry.CONTENT_ZLIB]
    assert [json.loads(zlib.decompress(vector.bytes())) for vector in packed] == [
        json.loads(bytes(vector.value)) for vector in packed
    ]


# Names and keys

DEVICES: Final = [DeviceId(name) for name in ("0", "car-7", "camera-0001", "a" * 63)]


def test_shards_and_topics(golden: Golden) -> None:
    table = [
        {
            "device": device,
            "shard": shard_of(device),
            "up": {channel: up(device, channel) for channel in Up},
            "dn": {channel: down(device, channel) for channel in Down},
            "subscribes": [topics.down_filter(device), SERVER_STATE],
        }
        for device in DEVICES
    ]
    golden(VECTORS / "topics.json", text_of(table))


def test_names_of_the_server(golden: Golden) -> None:
    names = {"site_id": SITE, "user": server_user(SITE), "client_id": server_client_id(SITE)}
    golden(VECTORS / "server_names.json", text_of(names))


def test_keys(golden: Golden) -> None:
    table = {
        "master_key": MASTER.secret.hex(),
        "kid": MASTER.kid,
        "derived": [
            {
                "device": device,
                "purpose": purpose,
                "info": key_info(purpose, device).decode(),
                "key": derive(MASTER, purpose, device).secret.hex(),
            }
            for device in DEVICES
            for purpose in Purpose
        ],
    }
    golden(VECTORS / "keys.json", text_of(table))


def test_macs(golden: Golden) -> None:
    key = MacKey("00000000", b"\x0b" * 32)
    table = [
        {
            "key": key.secret.hex(),
            "purpose": purpose,
            "topic": topic,
            "payload": payload,
            "mac": mac(key.secret, purpose, topic, payload.encode()),
        }
        for purpose, topic, payload in (
            (Purpose.RECEIPT, down(CAR, Down.RECEIPT), ""),
            (Purpose.RECEIPT, down(CAR, Down.RECEIPT), '{"t":"receipt"}'),
            (Purpose.TIME, down(CAR, Down.TIME), '{"t":"receipt"}'),
            (Purpose.TIME, down(CAR, Down.TIME), "„ü“"),
        )
    ]
    golden(VECTORS / "mac.json", text_of(table))
