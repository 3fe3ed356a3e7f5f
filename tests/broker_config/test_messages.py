"""Everything but the batches: what is read, what is refused."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import limits
from broker_config.messages import (
    MESSAGE_BYTES_MAX,
    AskTime,
    BadMessageError,
    Birth,
    Message,
    Receipt,
    ServerState,
    ShardEpoch,
    StreamState,
    Time,
    Will,
    decode,
    decode_status,
    encode,
    lowest,
)

LIFE = "0123456789abcdef"
EPOCH = "00000000000000aa"
BIRTH = Birth(
    v=1,
    epoch=EPOCH,
    boot="fedcba9876543210",
    mono=48_211,
    keep_alive_s=30,
    agent="0.1.0",
    device_class="host",
    profile="host",
    store_epoch=3,
    seal_ms=5_000,
    streams=(StreamState("cpu", LIFE, first=4, last=9, gone=((1, 2),), trimmed=((5, 5),), every_ms=10_000),),
)
RECEIPT = Receipt(v=1, stream="cpu", life=LIFE, up_to=9, missing=((3, 4),), conflict=(), store_epoch=3)
MESSAGES: list[Message] = [
    BIRTH,
    Will(v=1, epoch=EPOCH, reason="lost"),
    RECEIPT,
    AskTime(v=1, nonce=EPOCH),
    Time(v=1, nonce=EPOCH, t_ms=1_767_225_600_000, unc_ms=3),
    ServerState(v=1, store_epoch=3, shards=(ShardEpoch(0, 255, 7),), state="up"),
    ServerState(v=1, store_epoch=3, shards=(), state="up", spread_ms=limits.RECONNECT_SPREAD_MS_MAX),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_read_back(message: Message) -> None:
    assert decode(encode(message), type(message)) == message


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_tells_its_kind_and_is_no_other(message: Message) -> None:
    for kind in {type(other) for other in MESSAGES} - {type(message)}:
        with pytest.raises(BadMessageError):
            decode(encode(message), kind)


@pytest.mark.parametrize("message", MESSAGES)
def test_unknown_fields_are_ignored_so_that_a_newer_side_may_say_more(message: Message) -> None:
    more = json.dumps(json.loads(encode(message)) | {"new": {"deep": [1, None]}}).encode()
    assert decode(more, type(message)) == message


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_cut_anywhere_is_refused(message: Message) -> None:
    payload = encode(message)
    for cut in range(len(payload)):
        with pytest.raises(BadMessageError):
            decode(payload[:cut], type(message))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(BadMessageError) as caught:
        decode_status(payload)
    assert str(caught.value).isprintable()


def test_a_status_is_a_birth_or_a_will() -> None:
    assert decode_status(encode(BIRTH)) == BIRTH
    assert decode_status(encode(MESSAGES[1])) == MESSAGES[1]
    with pytest.raises(BadMessageError):
        decode_status(encode(RECEIPT))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t", "birthday"),
        ("v", 2),
        ("epoch", "aa"),
        ("epoch", EPOCH + "\n"),
        ("keep_alive_s", 0),
        ("keep_alive_s", limits.KEEP_ALIVE_S_MAX + 1),
        ("agent", "x" * 65),
        ("device_class", "Host"),
        ("device_class", "host\n"),
        ("store_epoch", -1),
        ("store_epoch", 2**53),
        ("store_epoch", 2**70),
        ("store_epoch", True),
        ("seal_ms", 0.5),
        ("streams", None),
        ("streams", [{"stream": "cpu"}]),
        ("streams", [msgspec.to_builtins(BIRTH.streams[0])] * (limits.STREAMS_MAX + 1)),
        ("streams", [msgspec.to_builtins(BIRTH.streams[0]) | {"gone": [[1, 2]] * (limits.RANGES_MAX + 1)}]),
        ("streams", [msgspec.to_builtins(BIRTH.streams[0]) | {"gone": [[1]]}]),
        ("streams", [msgspec.to_builtins(BIRTH.streams[0]) | {"gone": [[-1, 2]]}]),
        ("streams", [msgspec.to_builtins(BIRTH.streams[0]) | {"first": -1}]),
    ],
)
def test_a_birth_outside_its_bounds_is_refused(name: str, value: object) -> None:
    with pytest.raises(BadMessageError):
        decode_status(json.dumps(msgspec.to_builtins(BIRTH) | {name: value}).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"NaN",
        encode(BIRTH) + b"x",
        encode(BIRTH).replace(b'"v":1', b'"v":1,"new":"\xff"'),
        encode(BIRTH).replace(b'"v":1', b'"v":1,"new":' + b"[" * 20_000 + b"]" * 20_000),
        encode(BIRTH) + b" " * MESSAGE_BYTES_MAX,
    ],
)
def test_what_is_no_birth_is_refused(payload: bytes) -> None:
    with pytest.raises(BadMessageError):
        decode_status(payload)


def test_the_largest_birth_fits_into_a_message() -> None:
    full = ((limits.SEQ_MAX, limits.SEQ_MAX),) * limits.RANGES_MAX
    state = StreamState(
        "s" * 32, LIFE, limits.SEQ_MAX, limits.SEQ_MAX, gone=full, trimmed=full, every_ms=limits.SEQ_MAX
    )
    birth = msgspec.structs.replace(BIRTH, streams=(state,) * limits.STREAMS_MAX)
    assert decode_status(encode(birth)) == birth


def test_what_does_not_fit_follows_as_the_lowest_are_dealt_with() -> None:
    many = [(n, n) for n in range(1, 1_000, 2)]
    assert lowest(many) == tuple(many[: limits.RANGES_MAX])
    assert lowest([(5, 6), (1, 2), (3, 4)]) == ((1, 6),)


@pytest.mark.parametrize("spread_ms", [-1, limits.RECONNECT_SPREAD_MS_MAX + 1, 0.5, None])
def test_a_spread_outside_its_bounds_is_refused(spread_ms: object) -> None:
    state = {"t": "server", "v": 1, "store_epoch": 3, "shards": [], "state": "up", "spread_ms": spread_ms}
    with pytest.raises(BadMessageError):
        decode(json.dumps(state).encode(), ServerState)
