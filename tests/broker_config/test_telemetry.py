"""The batch codec: what it keeps, and everything that it must refuse."""

import json
import re
import tracemalloc
import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import limits
from broker_config.ids import ContractError
from broker_config.telemetry import (
    CONTENT_JSON,
    CONTENT_ZLIB,
    GENESIS,
    BadBatchError,
    Batch,
    Clock,
    Event,
    Events,
    Key,
    Reason,
    decode,
    encode,
    key_text,
    parse_key,
)

LIFE = "0123456789abcdef"
BOOT = "fedcba9876543210"
CLOCK = Clock("ntp", -12, 40)
BATCH = Batch(
    v=1,
    stream="power",
    life=LIFE,
    seq=10_421,
    boot=BOOT,
    t0=1_767_225_600_000,
    mono=48_211,
    clock=CLOCK,
    fields=("battery_pct", "temp_c"),
    dt=[0, 1_000],
    rows=[[83.4, 31.2], [83.3, None]],
)
EVENTS = Events(
    v=1,
    stream="journal",
    life=LIFE,
    seq=1,
    boot=BOOT,
    t0=1_767_225_600_000,
    mono=48_211,
    clock=CLOCK,
    prev=GENESIS,
    dt=[0, 5],
    events=[Event("agent.start", {"clean": False}), Event("link.down", {"why": "no route", "n": 3, "last": None})],
)
TEXT = (
    b'{"t":"batch","v":1,"stream":"power","life":"0123456789abcdef","seq":10421,"boot":"fedcba9876543210",'
    b'"t0":1767225600000,"mono":48211,"clock":{"src":"ntp","off_ms":-12,"unc_ms":40},'
    b'"fields":["battery_pct","temp_c"],"dt":[0,1000],"rows":[[83.4,31.2],[83.3,null]]}'
)


def large(rows: int = limits.BATCH_ROWS_MAX, width: int = 8) -> Batch:
    return msgspec.structs.replace(
        BATCH,
        fields=tuple(f"field_{n}" for n in range(width)),
        dt=list(range(rows)),
        rows=[[row + n / 7 for n in range(width)] for row in range(rows)],
    )


def refused(payload: bytes, content_type: str | None = CONTENT_JSON) -> Reason:
    with pytest.raises(BadBatchError) as caught:
        decode(payload, content_type)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
    return caught.value.reason


# What it keeps


def test_a_small_batch_is_json_and_its_bytes_are_these() -> None:
    assert encode(BATCH) == (TEXT, CONTENT_JSON)
    assert decode(TEXT) == decode(TEXT, None) == BATCH


def test_events_come_back_as_they_were() -> None:
    payload, content_type = encode(EVENTS)
    assert decode(payload, content_type) == EVENTS
    assert isinstance(EVENTS.events[0].data["clean"], bool)


def test_a_batch_of_one_kib_is_compressed() -> None:
    payload, content_type = encode(large())
    assert content_type == CONTENT_ZLIB
    assert len(payload) < len(zlib.decompress(payload))
    assert decode(payload, content_type) == large()


def test_the_bound_of_the_wire_is_for_the_compressed_bytes() -> None:
    wide = msgspec.structs.replace(large(1_000, 64), rows=[[20.5] * 64] * 1_000)
    payload, content_type = encode(wide)
    assert len(payload) < limits.BATCH_BYTES_MAX < len(zlib.decompress(payload))
    assert decode(payload, content_type) == wide


@given(
    st.lists(st.one_of(st.none(), st.floats(-limits.VALUE_ABS_MAX, limits.VALUE_ABS_MAX)), min_size=1, max_size=20)
)
def test_every_value_in_its_bounds_survives(values: list[float | None]) -> None:
    batch = msgspec.structs.replace(BATCH, fields=("x",), dt=[0] * len(values), rows=[[value] for value in values])
    kept = decode(*encode(batch))
    assert isinstance(kept, Batch)
    assert [row[0] for row in kept.rows] == values


def test_unknown_fields_are_ignored_so_that_a_newer_device_may_say_more() -> None:
    assert decode(TEXT.replace(b'"v":1', b'"v":1,"new":{"deep":[1,2]}')) == BATCH


def test_of_duplicate_names_the_last_counts() -> None:
    # As everywhere in JSON parsers; the record is its bytes, and those are kept as they came.
    kept = decode(TEXT.replace(b'"mono":48211', b'"mono":1,"mono":48211'))
    assert kept == BATCH


def test_whole_numbers_and_exponents_are_values() -> None:
    kept = decode(TEXT.replace(b"83.4", b"83").replace(b"31.2", b"-1.5e3"))
    assert isinstance(kept, Batch)
    assert kept.rows[0] == [83.0, -1500.0]


# What it refuses: values

VALUES = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "infinite by its exponent": b"1e999",
    "10^19": b"10000000000000000000",
    "2^70": b"1180591620717411303424",
    "just over 1e15": b"1000000000000001",
    "just under -1e15": b"-1000000000000001",
    "true": b"true",
    "a string": b'"83.4"',
    "a list": b"[83.4]",
    "an object": b'{"v":83.4}',
    "a leading zero": b"083.4",
    "a leading plus": b"+83.4",
    "hexadecimal": b"0x10",
    "nothing": b"",
    "two numbers": b"83.4 83.4",
    "a very long number": b"1" * 10_000,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_reading_that_is_no_finite_number_is_malformed(name: str) -> None:
    assert refused(TEXT.replace(b"83.4", VALUES[name])) is Reason.MALFORMED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e16, -1e16, 2**70])
def test_what_would_be_refused_is_never_sealed(value: float) -> None:
    with pytest.raises(BadBatchError, match="expected a finite value"):
        encode(msgspec.structs.replace(BATCH, rows=[[value, 1.0], [1.0, 1.0]]))
    with pytest.raises(BadBatchError, match="expected a finite value"):
        encode(msgspec.structs.replace(EVENTS, events=[Event("x", {"value": value}), Event("x")]))


# What it refuses: form


def without(name: str) -> Callable[[bytes], bytes]:
    def change(text: bytes) -> bytes:
        document = json.loads(text)
        del document[name]
        return json.dumps(document).encode()

    return change


def with_value(name: str, value: object) -> Callable[[bytes], bytes]:
    def change(text: bytes) -> bytes:
        return json.dumps(json.loads(text) | {name: value}).encode()

    return change


FORMS: dict[str, tuple[Callable[[bytes], bytes], Reason]] = {
    "empty": (lambda _: b"", Reason.MALFORMED),
    "only blanks": (lambda _: b"  \n", Reason.MALFORMED),
    "null": (lambda _: b"null", Reason.MALFORMED),
    "a list of batches": (lambda text: b"[" + text + b"]", Reason.MALFORMED),
    "two batches": (lambda text: text + text, Reason.MALFORMED),
    "trailing bytes": (lambda text: text + b"\0", Reason.MALFORMED),
    "a byte order mark": (lambda text: b"\xef\xbb\xbf" + text, Reason.MALFORMED),
    "UTF-16": (lambda text: text.decode().encode("utf-16"), Reason.MALFORMED),
    "invalid UTF-8 in a name": (lambda text: text.replace(b'"temp_c"', b'"temp\xff"'), Reason.MALFORMED),
    "invalid UTF-8 in an unknown field": (lambda text: text.replace(b'"v":1', b'"v":1,"n":"\xff"'), Reason.MALFORMED),
    "an overlong NUL": (lambda text: text.replace(b'"temp_c"', b'"temp\xc0\x80"'), Reason.MALFORMED),
    "a lone surrogate": (lambda text: text.replace(b'"temp_c"', b'"temp\\ud800"'), Reason.MALFORMED),
    "a raw control character": (lambda text: text.replace(b'"temp_c"', b'"temp\n"'), Reason.MALFORMED),
    "depth 100,000 as a value": (
        lambda text: text.replace(b"83.4", b"[" * 60_000 + b"]" * 60_000),
        Reason.MALFORMED,
    ),
    "depth 90,000 in an unknown field": (
        lambda text: text.replace(b'"v":1', b'"v":1,"n":' + b"[" * 90_000 + b"]" * 90_000),
        Reason.MALFORMED,
    ),
    "depth 30,000 of objects": (
        lambda text: text.replace(b'"v":1', b'"v":1,"n":' + b'{"a":' * 30_000 + b"1" + b"}" * 30_000),
        Reason.MALFORMED,
    ),
    "an unknown kind": (with_value("t", "bunch"), Reason.MALFORMED),
    "no kind": (without("t"), Reason.MALFORMED),
    "an unknown version": (with_value("v", 2), Reason.MALFORMED),
    "a version that is true": (with_value("v", True), Reason.MALFORMED),
    "no stream": (without("stream"), Reason.MALFORMED),
    "a stream with a slash": (with_value("stream", "a/b"), Reason.MALFORMED),
    "a stream with a line end": (with_value("stream", "power\n"), Reason.MALFORMED),
    "a stream of 33 letters": (with_value("stream", "a" * 33), Reason.MALFORMED),
    "a life in upper case": (with_value("life", LIFE.upper()), Reason.MALFORMED),
    "a life of 15 digits": (with_value("life", LIFE[1:]), Reason.MALFORMED),
    "a life with a line end": (with_value("life", LIFE + "\n"), Reason.MALFORMED),
    "seq 0": (with_value("seq", 0), Reason.MALFORMED),
    "seq -1": (with_value("seq", -1), Reason.MALFORMED),
    "seq 2^53": (with_value("seq", 2**53), Reason.MALFORMED),
    "seq 2^70": (with_value("seq", 2**70), Reason.MALFORMED),
    "seq 1.5": (with_value("seq", 1.5), Reason.MALFORMED),
    "seq as text": (with_value("seq", "1"), Reason.MALFORMED),
    "t0 beyond 2^53": (with_value("t0", 2**53), Reason.MALFORMED),
    "mono negative": (with_value("mono", -1), Reason.MALFORMED),
    "a clock of an unknown source": (
        with_value("clock", {"src": "me", "off_ms": 0, "unc_ms": 0}),
        Reason.MALFORMED,
    ),
    "no clock": (without("clock"), Reason.MALFORMED),
    "no fields": (with_value("fields", []), Reason.MALFORMED),
    "65 fields": (with_value("fields", [f"f{n}" for n in range(65)]), Reason.MALFORMED),
    "no rows": (lambda text: with_value("rows", [])(with_value("dt", [])(text)), Reason.MALFORMED),
    "1,001 rows": (
        lambda text: with_value("rows", [[1, 2]] * 1_001)(with_value("dt", [0] * 1_001)(text)),
        Reason.MALFORMED,
    ),
    "a row too many": (with_value("rows", [[1, 2]] * 3), Reason.SHAPE),
    "a row too few": (with_value("rows", [[1, 2]]), Reason.SHAPE),
    "a row too wide": (with_value("rows", [[1, 2], [1, 2, 3]]), Reason.SHAPE),
    "a row too narrow": (with_value("rows", [[1], [1, 2]]), Reason.SHAPE),
    "dt descending": (with_value("dt", [1_000, 0]), Reason.SHAPE),
    "dt negative": (with_value("dt", [-1, 0]), Reason.MALFORMED),
    "dt beyond ten minutes": (with_value("dt", [0, 600_001]), Reason.MALFORMED),
    "dt with a fraction": (with_value("dt", [0, 0.5]), Reason.MALFORMED),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_no_batch_is_refused_with_its_reason(name: str) -> None:
    change, reason = FORMS[name]
    assert refused(change(TEXT)) is reason


@pytest.mark.parametrize("cut", range(len(TEXT)))
def test_a_batch_cut_anywhere_is_malformed(cut: int) -> None:
    assert refused(TEXT[:cut]) is Reason.MALFORMED


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_refused(payload: bytes) -> None:
    for content_type in (CONTENT_JSON, CONTENT_ZLIB):
        assert refused(payload, content_type) is Reason.MALFORMED


EVENT_FORMS: dict[str, tuple[Callable[[bytes], bytes], Reason]] = {
    "an event too few": (with_value("events", [{"kind": "a"}]), Reason.SHAPE),
    "no events": (lambda text: with_value("events", [])(with_value("dt", [])(text)), Reason.MALFORMED),
    "201 events": (
        lambda text: with_value("events", [{"kind": "a"}] * 201)(with_value("dt", [0] * 201)(text)),
        Reason.MALFORMED,
    ),
    "no digest of the batch before": (without("prev"), Reason.MALFORMED),
    "a digest cut short": (with_value("prev", "0" * 63), Reason.MALFORMED),
    "a kind with a blank": (with_value("events", [{"kind": "a b"}] * 2), Reason.MALFORMED),
    "33 data": (with_value("events", [{"kind": "a", "data": {f"d{n}": 1 for n in range(33)}}] * 2), Reason.MALFORMED),
    "data within data": (with_value("events", [{"kind": "a", "data": {"d": {"e": 1}}}] * 2), Reason.MALFORMED),
    "a text of 513": (with_value("events", [{"kind": "a", "data": {"d": "x" * 513}}] * 2), Reason.MALFORMED),
    "a datum of 10^19": (with_value("events", [{"kind": "a", "data": {"d": 10**19}}] * 2), Reason.MALFORMED),
}


@pytest.mark.parametrize("name", EVENT_FORMS)
def test_what_is_no_batch_of_events_is_refused_with_its_reason(name: str) -> None:
    change, reason = EVENT_FORMS[name]
    assert refused(change(encode(EVENTS)[0])) is reason


def test_a_text_that_no_utf8_can_say_is_never_sealed() -> None:
    with pytest.raises(BadBatchError):
        encode(msgspec.structs.replace(EVENTS, events=[Event("x", {"text": "\ud800"}), Event("x")]))


# What it refuses: size and compression

PACKED = zlib.compress(TEXT)


def test_more_than_a_packets_worth_is_too_large_before_anything_reads_it() -> None:
    for content_type in (CONTENT_JSON, CONTENT_ZLIB, None):
        assert refused(b"x" * (limits.BATCH_BYTES_MAX + 1), content_type) is Reason.TOO_LARGE


def test_a_bomb_is_never_inflated() -> None:
    bomb = zlib.compress(b" " * (180 * 1024 * limits.KIB), 9)
    assert len(bomb) <= limits.BATCH_BYTES_MAX
    tracemalloc.start()
    try:
        assert refused(bomb, CONTENT_ZLIB) is Reason.TOO_LARGE
        assert tracemalloc.get_traced_memory()[1] < 4 * limits.BATCH_BYTES_INFLATED_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("more", "fits"), [(-1, True), (0, True), (1, False)])
def test_the_bound_of_what_is_inflated(more: int, fits: bool) -> None:
    padded = TEXT + b" " * (limits.BATCH_BYTES_INFLATED_MAX - len(TEXT) + more)
    if fits:
        assert decode(zlib.compress(padded), CONTENT_ZLIB) == BATCH
    else:
        assert refused(zlib.compress(padded), CONTENT_ZLIB) is Reason.TOO_LARGE


@pytest.mark.parametrize("cut", range(len(PACKED)))
def test_a_compressed_batch_cut_anywhere_is_malformed(cut: int) -> None:
    assert refused(PACKED[:cut], CONTENT_ZLIB) is Reason.MALFORMED


@pytest.mark.parametrize("at", range(len(PACKED)))
def test_a_compressed_batch_with_a_flipped_byte_is_malformed(at: int) -> None:
    changed = bytes(byte ^ 0xFF if n == at else byte for n, byte in enumerate(PACKED))
    assert refused(changed, CONTENT_ZLIB) is Reason.MALFORMED


def test_other_compressions_are_malformed() -> None:
    raw = zlib.compressobj(wbits=-15)
    gzip = zlib.compressobj(wbits=31)
    dictionary = zlib.compressobj(zdict=b"battery_pct")
    for payload in (
        PACKED + b"\0",
        PACKED + PACKED,
        zlib.compress(PACKED),
        raw.compress(TEXT) + raw.flush(),
        gzip.compress(TEXT) + gzip.flush(),
        dictionary.compress(TEXT) + dictionary.flush(),
        TEXT,
    ):
        assert refused(payload, CONTENT_ZLIB) is Reason.MALFORMED
    assert refused(PACKED, CONTENT_JSON) is Reason.MALFORMED
    assert refused(TEXT, "application/cbor") is Reason.MALFORMED
    assert refused(TEXT, "") is Reason.MALFORMED


def test_a_batch_that_would_not_fit_is_never_sealed() -> None:
    with pytest.raises(BadBatchError, match="too_large"):
        encode(large(1_000, 64))


# Keys


@given(st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True), st.integers(1, limits.SEQ_MAX))
def test_a_key_is_read_back(stream: str, seq: int) -> None:
    assert parse_key(key_text(stream, LIFE, seq)) == Key(stream, LIFE, seq)
    assert str(Key(stream, LIFE, seq)) == key_text(stream, LIFE, seq)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "power",
        f"power/{LIFE}",
        f"power/{LIFE}/1/1",
        f"/{LIFE}/1",
        f"Power/{LIFE}/1",
        f"power/{LIFE[1:]}/1",
        f"power/{LIFE.upper()}/1",
        f"power/{LIFE}/",
        f"power/{LIFE}/0",
        f"power/{LIFE}/-1",
        f"power/{LIFE}/+1",
        f"power/{LIFE}/1.0",
        f"power/{LIFE}/ 1",
        f"power/{LIFE}/1\n",
        f"power/{LIFE}/1_0",
        f"power/{LIFE}/\u0661",  # an Arabic one
        f"power/{LIFE}/\u00b9",  # a superscript one: isdigit, and no int
        f"power/{LIFE}/{2**53}",
        f"power/{LIFE}/{'9' * 5_000}",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match=re.escape("key")):
        parse_key(text)
