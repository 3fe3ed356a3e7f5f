"""An authenticated device that says anything: each lie is quarantined with its reason or refused, and harms nobody.

A real agent reports beside it all the time, and is receipted all the time; so is the hostile device itself, for
what it says that is good.
"""

import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from broker_config import limits, topics
from broker_config.ids import device_id, shard_of
from broker_config.messages import Will, encode
from broker_config.telemetry import CONTENT_ZLIB, key_text
from broker_config.topics import Up, up
from tests.contract.wire import GoneError
from tests.faults.api import Json, RefusedError
from tests.faults.hostile import EPOCH, LIFE, Hostile, batch, json_of
from tests.faults.rig import DEVICE, Rig, RigSettings, epoch_ms

pytestmark = pytest.mark.server("mosquitto")

KEY = key_text("cpu", LIFE, 2)
GOOD = batch(2)
EVENTS = {
    **{name: value for name, value in GOOD.items() if name not in {"fields", "rows"}},
    "t": "events",
    "stream": "journal",
    "prev": "0" * 64,
    "events": [{"kind": "agent.stop", "data": {}}],
}
_numbers = count(1)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig"), RigSettings(receipt_linger_ms=30)) as running:
        running.run()
        yield running
        assert "Traceback" not in running.server.log()


@pytest.fixture
def hostile(rig: Rig) -> Iterator[Hostile]:
    """A device that nobody has heard of, with one good batch receipted."""
    with Hostile(rig, device_id(f"hostile-{next(_numbers)}")) as device:
        device.say_good(1)
        device.receipted(1)
        yield device


def quarantined(rig: Rig, device: str) -> list[Json]:
    return [row for row in rig.api.pages("/v1/quarantine", "quarantined") if row["device"] == device]


def with_row(text: str) -> bytes:
    """The good batch with *text* where its first value was."""
    return json_of(GOOD).replace(b"12.5", text.encode("utf-8", "surrogatepass"))


def changed(**changes: object) -> bytes:
    return json_of(batch(2) | changes)


BAD = {
    "NaN": (with_row("NaN"), "malformed"),
    "infinity": (with_row("Infinity"), "malformed"),
    "minus infinity": (with_row("-Infinity"), "malformed"),
    "1e999": (with_row("1e999"), "malformed"),
    "ten to the nineteenth": (with_row(str(10**19)), "malformed"),
    "two to the seventieth": (with_row(str(2**70)), "malformed"),
    "five thousand digits": (with_row("9" * 5000), "malformed"),
    "just too large": (with_row("1.0000000000000001e15".replace("0000000001", "0100000001")), "malformed"),
    "a text": (with_row('"12.5"'), "malformed"),
    "a truth": (with_row("true"), "malformed"),
    "a list": (with_row("[12.5]"), "malformed"),
    "an object": (with_row("{}"), "malformed"),
    "nothing at all": (b"", "malformed"),
    "no JSON": (b"\x00\x01\x02", "malformed"),
    "half of it": (json_of(GOOD)[:-40], "malformed"),
    "something after it": (json_of(GOOD) + b"{}", "malformed"),
    "depth": (b"[" * 100_000, "malformed"),
    "depth in an unknown field": (
        json_of(GOOD)[:-1] + b',"extra":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "malformed",
    ),
    "invalid UTF-8": (json_of(GOOD).replace(b'"cpu"', b'"c\xffu"'), "malformed"),
    "invalid UTF-8 in an unknown field": (json_of(GOOD)[:-1] + b',"extra":"\xff"}', "malformed"),
    "another kind": (changed(t="birth"), "malformed"),
    "another version": (changed(v=2), "malformed"),
    "a number that is none": (changed(seq=0), "malformed"),
    "a number past all bounds": (changed(seq=2**53), "malformed"),
    "a stream with a slash": (changed(stream="cpu/x"), "malformed"),
    "rows that are fewer than times": (changed(dt=[0, 1]), "shape"),
    "a row too wide": (changed(rows=[[1.0, 2.0, 3.0]]), "shape"),
    "times that go back": (changed(dt=[5, 0], rows=[[1.0, 2.0], [1.0, 2.0]]), "shape"),
    "too many rows": (changed(dt=[0] * 1001, rows=[[1.0, 2.0]] * 1001), "malformed"),
    "an hour in a batch": (changed(dt=[3_600_000]), "malformed"),
    "no rows": (changed(dt=[], rows=[]), "malformed"),
    "an unknown stream": (changed(stream="mood"), "key_mismatch"),
    "an unknown field": (changed(fields=["cpu_pct", "mood"]), "unknown_field"),
    "another number than beside it": (changed(seq=3), "key_mismatch"),
    "a clock that is synced and in 1970": (changed(t0=1000), "clock"),
    "a clock that is synced and ten years ahead": (changed(t0=GOOD["t0"] + 315_360_000_000), "clock"),  # type: ignore[operator]
    "events where readings belong": (json_of(EVENTS), "key_mismatch"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_is_kept_raw_with_its_reason_and_receipted(rig: Rig, hostile: Hostile, name: str) -> None:
    payload, reason = BAD[name]
    hostile.say(payload, key=KEY, last="2")
    hostile.say_good(3)
    assert hostile.receipted(3).missing == ()
    (row,) = quarantined(rig, hostile.device)
    assert (row["reason"], row["key"], row["channel"]) == (reason, KEY, "telemetry")
    assert rig.api.bytes_of(f"/v1/quarantine/{row['id']}") == payload


@pytest.mark.parametrize(
    ("payload", "content_type", "reason"),
    [
        (zlib.compress(b"[" + b" " * 100_000_000), CONTENT_ZLIB, "too_large"),  # a bomb: 100 MB of 97 kB
        (zlib.compress(zlib.compress(json_of(GOOD))), CONTENT_ZLIB, "malformed"),
        (zlib.compress(json_of(GOOD))[:-1], CONTENT_ZLIB, "malformed"),
        (zlib.compress(json_of(GOOD)) + b"x", CONTENT_ZLIB, "malformed"),
        (b"\x78\x9cnot zlib", CONTENT_ZLIB, "malformed"),
        (json_of(GOOD), CONTENT_ZLIB, "malformed"),
        (json_of(GOOD), "application/cbor", "malformed"),
        (b" " * (limits.BATCH_BYTES_MAX + 1), "application/json", "too_large"),
    ],
    ids=["bomb", "twice", "cut", "longer", "garbage", "json as zlib", "unknown type", "oversize"],
)
def test_what_does_not_unpack_is_kept_raw(
    rig: Rig, hostile: Hostile, payload: bytes, content_type: str, reason: str
) -> None:
    hostile.say(payload, key=KEY, content_type=content_type)
    hostile.say_good(3)
    assert hostile.receipted(3).missing == ()
    (row,) = quarantined(rig, hostile.device)
    assert (row["reason"], row["payload_bytes"]) == (reason, len(payload))


@pytest.mark.parametrize(
    ("channel", "body", "key", "reason"),
    [
        (Up.EVENT, GOOD, KEY, "wrong_channel"),
        (Up.TELEMETRY, EVENTS, key_text("journal", LIFE, 2), "wrong_channel"),
        (Up.TELEMETRY, {**GOOD, "stream": "journal"}, key_text("journal", LIFE, 2), "unknown_stream"),
        (Up.TELEMETRY, {**GOOD, "stream": "mood"}, key_text("mood", LIFE, 2), "unknown_stream"),
        (Up.EVENT, {**EVENTS, "stream": "cpu"}, KEY, "unknown_stream"),
        (Up.TELEMETRY, GOOD, key_text("memory", LIFE, 2), "key_mismatch"),
        (Up.TELEMETRY, GOOD, None, "key_mismatch"),
        (Up.TELEMETRY, GOOD, "no key", "key_mismatch"),
        (Up.TELEMETRY, GOOD, "cpu/" + LIFE + "/99999999999999999999", "key_mismatch"),
        (Up.TELEMETRY, GOOD, "cpu/" + LIFE + "/٢", "key_mismatch"),  # a digit, and none of ASCII's
        (Up.TELEMETRY, GOOD, "cpu/" + LIFE + "/0", "key_mismatch"),
        (Up.TELEMETRY, GOOD, "x" * 60_000, "key_mismatch"),
    ],
)
def test_what_stands_beside_a_batch_is_checked(
    rig: Rig, hostile: Hostile, channel: Up, body: dict[str, object], key: str | None, reason: str
) -> None:
    hostile.say(json_of(body), key=key, channel=channel)
    hostile.say_good(4, last=4)
    told = hostile.receipted(4)
    (row,) = quarantined(rig, hostile.device)
    readable = key is not None and key.count("/") == 2 and row["key"] == key
    assert row["reason"] == reason
    # what has no readable key cannot be receipted, and is no hole in anybody's numbers either
    assert (told.missing == ((3, 3),)) == (readable and key == KEY)


def test_the_same_number_with_other_bytes_is_a_conflict_that_the_receipt_names(rig: Rig, hostile: Hostile) -> None:
    stored = hostile.say_good(2)
    hostile.receipted(2)
    hostile.say(json_of(batch(2, rows=[[99.0, 2.0]])), key=KEY)
    told = hostile.receipt(lambda told: told.conflict == ((2, 2),), "names the conflict")
    assert (told.up_to, told.missing) == (2, ())
    (row,) = quarantined(rig, hostile.device)
    assert (row["reason"], row["key"]) == ("conflict", KEY)
    hostile.say(stored, key=KEY)  # what is held is a duplicate, not a conflict
    hostile.say_good(3)
    hostile.receipted(3)
    assert len(quarantined(rig, hostile.device)) == 1


def test_a_conflict_is_seen_across_a_restart_and_after_sealing(rig: Rig, hostile: Hostile) -> None:
    stored = hostile.say_good(2)
    hostile.receipted(2)
    rig.wait(lambda: rig.api.get("/v1/facts")["unsealed_records"] == 0, "everything is sealed once", rig.server)
    rig.server.kill()
    rig.start_server()
    hostile.say(stored, key=KEY)
    hostile.say(json_of(batch(2, rows=[[99.0, 2.0]])), key=KEY)
    hostile.receipt(lambda told: told.conflict == ((2, 2),), "names the conflict")
    (row,) = quarantined(rig, hostile.device)
    assert row["reason"] == "conflict"


def test_an_oversize_packet_costs_its_sender_the_connection_and_nobody_else(rig: Rig, hostile: Hostile) -> None:
    with pytest.raises(GoneError):
        hostile.say(b" " * (limits.PACKET_BYTES_MAX + 1), key=KEY)
    rig.settle()
    hostile.again()
    hostile.say_good(2)
    hostile.receipted(2)
    assert quarantined(rig, hostile.device) == []


def test_what_is_said_in_anothers_name_is_never_delivered(rig: Rig, hostile: Hostile) -> None:
    payload = json_of(batch(1, life="f" * 16))
    hostile.say(payload, key=key_text("cpu", "f" * 16, 1), topic=up(DEVICE, Up.TELEMETRY))
    hostile.say(b"{}", key=None, topic=up(DEVICE, Up.STATUS), retain=True)
    hostile.say_good(2)
    hostile.receipted(2)
    streams = rig.api.get(f"/v1/devices/{DEVICE}")["streams"]
    assert isinstance(streams, list)
    assert "f" * 16 not in {stream["life"] for stream in streams}
    assert quarantined(rig, DEVICE) == []


def test_a_topic_in_a_wrong_shard_or_of_no_channel_is_dropped_and_counted(rig: Rig, hostile: Hostile) -> None:
    before = rig.api.get("/v1/facts")["messages_dropped"]
    assert isinstance(before, int)
    own = topics.base(hostile.device)
    wrong = own.replace(f"/{shard_of(hostile.device)}/", "/zz/")
    hostile.say(
        json_of(GOOD), key=KEY, topic=f"{wrong}/up/telemetry"
    )  # no subscription's shard is checked by brokers
    hostile.say(json_of(GOOD), key=KEY, topic=f"{wrong}/up/event")
    hostile.say_good(2)
    assert hostile.receipted(2).missing == ()
    assert rig.api.get("/v1/facts")["messages_dropped"] == before + 2
    assert quarantined(rig, hostile.device) == []


@pytest.mark.parametrize("last", [str(limits.SEQ_MAX), "9" * 40, "-1", "1e9", "", "x" * 60_000, "²"])
def test_a_last_that_is_huge_or_nonsense_proves_at_most_a_gap(rig: Rig, hostile: Hostile, last: str) -> None:
    hostile.say(json_of(GOOD), key=KEY, last=last)
    told = hostile.receipted(2)
    assert (told.up_to, told.missing) == (2, ())
    gaps = list(rig.api.pages("/v1/gaps", "gaps", device=hostile.device))
    assert len(gaps) == (1 if last == str(limits.SEQ_MAX) else 0)
    rig.settle()


def test_garbage_for_a_birth_a_will_and_a_question_changes_nothing(rig: Rig, hostile: Hostile) -> None:
    dropped = rig.api.get("/v1/facts")["messages_dropped"]
    assert isinstance(dropped, int)
    hostile.be_born([])
    status = up(hostile.device, Up.STATUS)
    garbage = [b"birth", b"[" * 50_000, b'{"t":"birth"}', b'{"t":"will","v":1,"epoch":"x","reason":"lost"}', b"\xff"]
    for payload in garbage:
        hostile.say(payload, key=None, topic=status)
    hostile.say(encode(Will(1, "0" * 16, "stop")), key=None, topic=status)  # of another connection
    for payload in (b"", b"{}", b'{"t":"ask_time","v":1,"nonce":"' + b"f" * 10_000 + b'"}', b"\xff"):
        hostile.say(payload, key=None, channel=Up.TIME)
    hostile.say_good(2)
    hostile.receipted(2)
    assert [row["reason"] for row in quarantined(rig, hostile.device)] == ["malformed"] * len(garbage)
    assert rig.api.get(f"/v1/devices/{hostile.device}")["connected"] is True
    assert rig.api.get("/v1/facts")["messages_dropped"] == dropped + 4
    hostile.say(encode(Will(1, EPOCH, "stop")), key=None, topic=status)
    rig.wait(lambda: rig.api.get(f"/v1/devices/{hostile.device}")["connected"] is False, "the real will counts")


def test_thousands_of_lives_are_bounded_and_the_first_are_served_on(rig: Rig, hostile: Hostile) -> None:
    for n in range(2000):
        life = f"{n:016x}"
        hostile.say(json_of(batch(1, life=life)), key=key_text("cpu", life, 1))
    hostile.say_good(2)
    assert hostile.receipted(2).missing == ()
    rows = quarantined(rig, hostile.device)
    assert {row["reason"] for row in rows} == {"too_many_lives"}
    assert len(rows) > 1000
    rig.settle()
    rig.server.kill()
    rig.start_server()
    hostile.say_good(3)
    assert hostile.receipted(3).missing == ()


PROPERTIES = {
    "says that it is text, and is not": {"payload_format_indicator": 1},
    "expires at once": {"message_expiry_interval": 0},
    "wants an answer": {"response_topic": "ff/1/server/state", "correlation_data": b"\xff\x00"},
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_that_mean_nothing_here_break_no_link(rig: Rig, hostile: Hostile, name: str) -> None:
    lost = rig.server.log().count("link to the broker lost")
    hostile.say(b"\xff\xfe", key=KEY, **PROPERTIES[name])  # type: ignore[arg-type]
    hostile.say_good(3, last=3)
    hostile.receipted(3)
    assert rig.server.log().count("link to the broker lost") == lost


def test_a_replay_stores_what_is_admissible_by_now_and_refuses_the_rest(rig: Rig, hostile: Hostile) -> None:
    """A clock that was far ahead of the server's is not any more once that time has come."""
    soon_ms = ahead_ms(2_000)
    hostile.say(json_of(batch(2, t_ms=soon_ms)), key=KEY)
    hostile.say(with_row("NaN").replace(b'"seq":2', b'"seq":3'), key=key_text("cpu", LIFE, 3))
    hostile.receipted(3)
    early, never = quarantined(rig, hostile.device)
    assert (early["reason"], never["reason"]) == ("clock", "malformed")

    def replayed() -> bool:
        try:
            return rig.api.replay(int(str(early["id"]))) == "stored"
        except RefusedError:
            return False

    rig.wait(replayed, "its time has come", rig.server)
    with pytest.raises(RefusedError) as refused:
        rig.api.replay(int(str(never["id"])))
    assert refused.value.status == 409
    streams = rig.api.get(f"/v1/devices/{hostile.device}")["streams"]
    assert isinstance(streams, list)
    assert [(s["held"], s["quarantined"]) for s in streams] == [(2, 1)]
    rig.server.kill()  # and it is so after a crash
    rig.start_server()
    hostile.say_good(4)
    assert hostile.receipted(4).missing == ()
    streams = rig.api.get(f"/v1/devices/{hostile.device}")["streams"]
    assert isinstance(streams, list)
    assert [(s["held"], s["quarantined"]) for s in streams] == [(3, 1)]


def ahead_ms(margin_ms: int) -> int:
    """A time that the server finds absurd for *margin_ms* more."""
    return epoch_ms() + limits.CLOCK_AHEAD_MS_MAX + margin_ms


def test_the_honest_device_lost_nothing_beside_all_this(rig: Rig) -> None:
    rig.settle()
    rig.wait(rig.drained, "the honest device is drained", rig.agent, rig.server)
    assert list(rig.api.pages("/v1/gaps", "gaps", device=DEVICE)) == []
    assert quarantined(rig, DEVICE) == []


def test_a_full_quarantine_receipts_no_poison_and_serves_everything_else(tmp_path: Path) -> None:
    with Rig(tmp_path, RigSettings(quarantine_bytes_max=1000)) as rig:
        rig.run()
        with Hostile(rig, device_id("hostile")) as hostile, Hostile(rig, device_id("other")) as other:
            poison = b"x" * 600
            hostile.say(poison, key=key_text("cpu", LIFE, 1), last="1")
            hostile.receipted(1)
            hostile.say(poison, key=KEY, last="2")
            hostile.say_good(3)
            assert hostile.receipted(3).missing == ((2, 2),)
            rig.settle()
            other.say_good(1)
            other.receipted(1)
            facts = rig.api.get("/v1/facts")
            assert facts["quarantine_bytes"] == 600
            assert len(quarantined(rig, hostile.device)) == 1
            hostile.say(poison, key=KEY)  # offered again, as a device does: still refused, still no receipt
            hostile.say_good(4)
            assert hostile.receipted(4).missing == ((2, 2),)
