"""A release over MQTT as bytes: what a device asks for, and the parts that it is answered with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from broker_config import release_chunks
from broker_config.ids import device_id
from broker_config.limits import RELEASE_CHUNK_BYTES_MAX, RELEASE_WINDOW_BYTES_MAX
from broker_config.release_chunks import AskRelease, BadReleasePartError, Part, parts_of
from broker_config.topics import Down, Up, down, up

VECTORS: Final = Path(__file__).parent / "vectors"
CAR: Final = device_id("car-7")
ID: Final = "00112233445566aa"
STORED: Final = f"targets/mcu/dock-2/{'ab' * 32}.1.4.0.bin"
Golden = Callable[[Path, str], None]

ASKS: Final = {
    "what is newest": AskRelease(1, ID, "metadata/timestamp.json", 0, 32_768),
    "an image, from where it was cut": AskRelease(1, ID, STORED, 131_072, RELEASE_WINDOW_BYTES_MAX),
}
PARTS: Final = {
    "of an image": Part(ID, 131_072, 200_000, bytes(range(16))),
    "the file ends before": Part(ID, 200_000, 200_000, b""),
    "there is no such file": Part(ID, 0, 0, b"", absent=True),
}
GOOD: Final = release_chunks.encode_part(PARTS["of an image"])


def spoiled(at: int, value: int) -> bytes:
    part = bytearray(GOOD)
    part[at] = value
    return bytes(part)


BAD_PARTS: Final = {
    "another magic": spoiled(0, 0),
    "another version": spoiled(2, 2),
    "an unknown flag": spoiled(3, 2),
    "an id that the checksum does not cover": spoiled(4, 1),
    "another offset": spoiled(15, 1),
    "another size": spoiled(19, 1),
    "another length": spoiled(23, 15),
    "another checksum": spoiled(27, GOOD[27] ^ 1),
    "other data": spoiled(30, 255),
    "cut": GOOD[:-1],
    "cut in the header": GOOD[:20],
}


def test_questions_and_parts_are_in_the_vectors_byte_for_byte(golden: Golden) -> None:
    table = {
        "ask_topic": up(CAR, Up.RELEASE),
        "topic": down(CAR, Down.CHUNK),
        "asks": [
            {"name": name, "value": each, "payload": release_chunks.encode_ask(each).decode()}
            for name, each in ASKS.items()
        ],
        "parts": [
            {
                "name": name,
                "id": each.id,
                "offset": each.offset,
                "size": each.size,
                "absent": each.absent,
                "data_hex": each.data.hex(),
                "payload_hex": release_chunks.encode_part(each).hex(),
            }
            for name, each in PARTS.items()
        ],
        "refused": [{"name": name, "payload_hex": payload.hex()} for name, payload in BAD_PARTS.items()],
    }
    text = json.dumps(json.loads(msgspec.json.encode(table)), indent=2, ensure_ascii=False) + "\n"
    golden(VECTORS / "release_chunk.json", text)


def test_what_the_vectors_say_is_understood() -> None:
    table = json.loads((VECTORS / "release_chunk.json").read_text("utf-8"))
    asks = [release_chunks.decode_ask(row["payload"].encode()) for row in table["asks"]]
    assert asks == list(ASKS.values())
    parts = [release_chunks.decode_part(bytes.fromhex(row["payload_hex"])) for row in table["parts"]]
    assert parts == list(PARTS.values())


@pytest.mark.parametrize("name", BAD_PARTS)
def test_bad_parts_are_refused(name: str) -> None:
    with pytest.raises(BadReleasePartError):
        release_chunks.decode_part(BAD_PARTS[name])


@pytest.mark.parametrize("at", range(len(GOOD)))
def test_a_part_that_is_cut_anywhere_is_refused(at: int) -> None:
    with pytest.raises(BadReleasePartError):
        release_chunks.decode_part(GOOD[:at])


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "metadata/../../site.key"},
        {"path": "targets/mcu/dock-2/../../../etc/passwd"},
        {"path": "/etc/passwd"},
        {"path": "releases.key"},
        {"path": "metadata/timestamp.json\n"},
        {"path": ""},
        {"offset": -1},
        {"length": 0},
        {"length": RELEASE_WINDOW_BYTES_MAX + 1},
        {"id": "car-7"},
        {"v": 2},
        {"t": "offer"},
    ],
)
def test_a_question_that_leads_elsewhere_or_is_too_large_is_refused(changes: dict[str, object]) -> None:
    good = json.loads(release_chunks.encode_ask(ASKS["what is newest"]))
    with pytest.raises(BadReleasePartError):
        release_chunks.decode_ask(json.dumps(good | changes).encode())


def test_a_newer_device_may_say_more() -> None:
    good = json.loads(release_chunks.encode_ask(ASKS["what is newest"]))
    assert release_chunks.decode_ask(json.dumps(good | {"new_name": [1]}).encode()) == ASKS["what is newest"]


def test_a_window_comes_in_parts_that_fit_a_packet() -> None:
    ask = AskRelease(1, ID, STORED, 1_000, RELEASE_WINDOW_BYTES_MAX)
    data = bytes(n % 251 for n in range(RELEASE_CHUNK_BYTES_MAX + 1))
    parts = list(parts_of(ask, 1_000 + len(data), data))
    assert [(each.offset, len(each.data)) for each in parts] == [(1_000, 65_536), (66_536, 1)]
    assert b"".join(each.data for each in parts) == data
    assert [each.data for each in parts_of(ask, 500, b"")] == [b""]
