"""Messages in, groups and receipts out, over a real store."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config import limits, topics
from broker_config.ids import DeviceId
from broker_config.mac import Purpose, authentic
from broker_config.messages import Time, decode
from broker_config.telemetry import BadBatchError, Reason, Record, key_text
from broker_config.telemetry import decode as decode_batch
from broker_config.telemetry import encode as encode_batch
from fleet_server.access.keys import derive
from fleet_server.telemetry import ingest as ingest_module
from fleet_server.telemetry.ingest import LEDGERS_MAX, DeviceState
from fleet_server.telemetry.ledger import StreamLedger
from tests.fleet_server.fleet import Arrival
from tests.fleet_server.telemetry.messages import (
    CAR,
    EPOCH,
    EVERY_MS,
    LIFE,
    MASTER,
    NEXT_EPOCH,
    NOW,
    OTHER_LIFE,
    SEAL_MS,
    SETTINGS,
    T0,
    Server,
    ask_time,
    birth,
    poison,
    published,
    receipts,
    sealed,
    state,
    will,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path / "telemetry.db")
    yield one
    one.store.close()


def ledger_of(server: Server, life: str = LIFE) -> StreamLedger:
    return server.ingest.devices[CAR].ledgers["cpu", life]


def reasons(server: Server) -> list[str]:
    return [row.reason for row in server.store.quarantine(after_id=0, rows_max=1_000)]


# poison


def test_poison_with_a_readable_key_is_kept_and_receipted(server: Server) -> None:
    (told,) = server.told(published(sealed(1)), poison(2, b"\xff"), published(sealed(3)))
    assert (told.up_to, told.missing, told.conflict) == (3, (), ())
    (row,) = server.store.quarantine(after_id=0, rows_max=9)
    assert (row.key, row.reason, row.payload) == (key_text("cpu", LIFE, 2), Reason.MALFORMED, b"\xff")


def test_receipts_say_since_when_the_first_of_their_records_waits(server: Server) -> None:
    server.ingest.take(published(sealed(1)), NOW)
    server.ingest.take(published(sealed(2)), NOW + 40)
    closed = server.ingest.close(NOW + 100_000, receipts_max=10)
    assert closed is not None
    assert (len(closed.publications), closed.oldest_ms) == (1, NOW)
    server.ingest.take(published(sealed(3)), NOW + 100_010)
    server.ingest.ripen()
    again = server.ingest.close(NOW + 100_020, receipts_max=10)
    assert again is not None
    assert again.oldest_ms == NOW + 100_010


def test_poison_without_one_is_kept_and_only_acknowledged(server: Server) -> None:
    server.take(poison(None, b"{", packet_id=7))
    closed = server.close()
    assert closed is not None
    assert (closed.acks, closed.publications) == ([7], [])
    assert reasons(server) == [Reason.MALFORMED]


def test_poison_again_is_a_duplicate(server: Server) -> None:
    server.told(poison(1))
    (told,) = server.told(poison(1))
    assert (told.up_to, told.conflict) == (1, ())
    assert reasons(server) == [Reason.MALFORMED]
    assert server.ingest.counters.records_duplicate == 1


def test_poison_for_a_number_that_is_gone_is_kept_once(server: Server) -> None:
    server.told(birth(state(3, gone=((1, 2),))))
    for _ in range(3):
        server.told(poison(1))
    assert reasons(server) == [Reason.MALFORMED]


@pytest.mark.parametrize("first", ["stored", "quarantined", "sealed"])
@pytest.mark.parametrize("then", ["other bytes", "poison"])
def test_a_number_with_other_bytes_is_a_conflict_that_the_receipt_names(
    server: Server, first: str, then: str
) -> None:
    server.told(poison(1) if first == "quarantined" else published(sealed(1)))
    if first == "sealed":
        server.seal()
    other = poison(1, b"[") if then == "poison" else published(sealed(1, value=2.0))
    for _ in range(2):
        (told,) = server.told(other)
        assert (told.up_to, told.conflict) == (1, ((1, 1),))
    # the second time it was a duplicate, but where only the store knows the bytes: there it is asked again
    assert reasons(server)[-1] == (Reason.MALFORMED if then == "poison" else Reason.CONFLICT)


def test_a_sealed_batch_again_is_a_duplicate(server: Server) -> None:
    server.told(published(sealed(1)), published(sealed(2)))
    server.seal()
    (told,) = server.told(published(sealed(1)))
    assert (told.up_to, told.conflict) == (2, ())
    assert server.ingest.counters.records_duplicate == 1


def test_a_full_quarantine_refuses_poison_and_nothing_else(tmp_path: Path) -> None:
    server = Server(tmp_path / "telemetry.db", replace(SETTINGS, quarantine_bytes_max=10))
    (told,) = server.told(poison(1, b"12345678"), poison(2, b"123"), published(sealed(3)))
    assert (told.up_to, told.missing) == (3, ((2, 2),))
    assert server.ingest.counters.quarantine_refused == 1
    (told,) = server.told(poison(2, b"12"))  # it fits
    assert (told.up_to, told.missing) == (3, ())
    # nor is a conflict noted that could not be kept
    (told,) = server.told(published(sealed(3, value=2.0)))
    assert told.conflict == ()
    server.store.close()


def test_a_full_quarantine_still_counts_after_a_restart(tmp_path: Path) -> None:
    server = Server(tmp_path / "telemetry.db", replace(SETTINGS, quarantine_bytes_max=10))
    server.told(poison(1, b"12345678"))
    server.crash()
    (told,) = server.told(poison(2, b"123"))
    assert (told.up_to, told.missing) == (1, ())
    server.store.close()


def test_lives_are_bounded(server: Server) -> None:
    lives = [f"{number:016x}" for number in range(LEDGERS_MAX + 1)]
    told = server.told(*(published(sealed(1, life=life)) for life in lives))
    assert [receipt.life for receipt in told] == lives[:-1]
    assert reasons(server) == [Reason.TOO_MANY_LIVES]


def test_routes_are_bounded_and_forgotten_harmlessly(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "ROUTES_MAX", 2)
    for number in range(5):
        server.take(published(sealed(1), device=DeviceId(f"car-{number}")))
    assert len(server.told(published(sealed(2), device=DeviceId("car-0")))) == 5
    assert len(server.ingest._routes) <= 2


# topics


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "ff/1/server/state",
        f"{topics.base(CAR)}/up/nonsense",
        f"{topics.base(CAR)}/dn/receipt",
        f"ff/1/00/{CAR}/up/telemetry",  # not its shard
        topics.up(CAR, topics.Up.TWIN),
        topics.up(CAR, topics.Up.CHUNK),
    ],
)
def test_what_has_no_taker_is_acknowledged_dropped_and_counted(server: Server, topic: str) -> None:
    server.take(published(sealed(1), packet_id=9)._replace(topic=topic))
    closed = server.close()
    assert closed is not None
    assert (closed.acks, closed.publications, bool(closed.group)) == ([9], [], False)
    assert server.ingest.counters.messages_dropped == 1


@pytest.mark.parametrize(
    ("last", "known"),
    [
        ("7", 7),
        ("1", 1),
        ("0", 1),
        ("0000000000000007", 7),
        (str(limits.SEQ_MAX), limits.SEQ_MAX),
        (str(limits.SEQ_MAX + 1), limits.SEQ_MAX),
        ("99999999999999999", 1),
        ("-3", 1),
        ("", 1),
        ("1e3", 1),
        ("\u0667", 1),  # a digit, but none of ours
        ("7 ", 1),
    ],
)
def test_nonsense_as_last_proves_nothing(server: Server, last: str, known: int) -> None:
    (told,) = server.told(published(sealed(1), last=last))
    assert told.up_to == 1
    assert ledger_of(server).last == known


# births and wills


def test_a_birth_is_answered_for_each_stream(server: Server) -> None:
    server.told(published(sealed(1)), published(sealed(3)))
    told = server.told(birth(state(4), state(0, life=OTHER_LIFE)))
    assert [(r.life, r.up_to, r.missing) for r in told] == [(LIFE, 3, ((2, 2),)), (OTHER_LIFE, 0, ())]
    assert ledger_of(server).last == 4


def test_what_a_birth_declares_gone_is_receipted(server: Server) -> None:
    (told,) = server.told(published(sealed(4)), birth(state(4, gone=((1, 2),))))
    assert (told.up_to, told.missing) == (4, ((3, 3),))
    server.crash()
    assert ledger_of(server).gone.ranges() == ((1, 2),)


@pytest.mark.parametrize(
    ("retain", "duplicate", "conflict"),
    [(False, False, ((3, 5),)), (True, False, ()), (False, True, ())],
)
def test_only_a_fresh_birth_shows_a_spool_of_an_old_image(
    server: Server, retain: bool, duplicate: bool, conflict: tuple[tuple[int, int], ...]
) -> None:
    server.told(*(published(sealed(seq)) for seq in range(1, 6)))
    (told,) = server.told(birth(state(2), retain=retain, duplicate=duplicate))
    assert (told.up_to, told.conflict) == (5, conflict)
    (told,) = server.told(birth(state(5)))
    assert told.conflict == ()


def test_a_will_counts_only_with_the_epoch_of_the_last_birth(server: Server) -> None:
    server.told(will(EPOCH))
    assert server.ingest.devices[CAR].will is None
    server.told(birth(state(0), epoch=NEXT_EPOCH), will(EPOCH))
    assert server.ingest.devices[CAR].will is None
    server.told(will(NEXT_EPOCH, reason="stop"))
    found = server.ingest.devices[CAR].will
    assert found is not None
    assert (found.epoch, found.reason) == (NEXT_EPOCH, "stop")
    server.told(birth(state(0), epoch=EPOCH))
    assert server.ingest.devices[CAR].will is None


def test_a_retained_birth_whose_will_has_come_says_nothing(server: Server) -> None:
    server.told(birth(state(0)), will())
    assert server.told(birth(state(0), retain=True), at_ms=NOW + 1) == []
    device = server.ingest.devices[CAR]
    assert device.will is not None
    assert device.status_ms == NOW


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"t":"birth"}', b"\xff"])
def test_a_status_that_cannot_be_read_is_kept_and_changes_nothing(server: Server, payload: bytes) -> None:
    server.told(birth(state(3)))
    assert server.told(birth()._replace(payload=payload)) == []
    assert server.ingest.devices[CAR].birth is not None
    assert reasons(server) == [Reason.MALFORMED]


def test_a_cleared_status_says_nothing(server: Server) -> None:
    assert server.told(birth()._replace(payload=b"")) == []
    assert reasons(server) == []


# time


def test_time_is_answered_with_a_mac(server: Server) -> None:
    server.take(ask_time("ab" * 8), at_ms=NOW + 5)
    (reply,) = server.ingest.replies
    answer = decode(reply.payload, Time)
    assert (answer.nonce, answer.t_ms, reply.topic) == ("ab" * 8, NOW + 5, topics.down(CAR, topics.Down.TIME))
    key = derive(MASTER, Purpose.TIME, CAR)
    assert authentic(key, Purpose.TIME, reply.topic, reply.payload, dict(reply.properties))
    assert not authentic(key, Purpose.RECEIPT, reply.topic, reply.payload, dict(reply.properties))


def test_time_answers_are_bounded_and_end_with_their_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "REPLIES_MAX", 2)
    server.take(ask_time(), ask_time(), ask_time(), ask_time()._replace(payload=b"?"))
    assert len(server.ingest.replies) == 2
    assert server.ingest.counters.messages_dropped == 2
    server.ingest.disconnected()
    assert server.ingest.replies == []


# the rhythm of receipts


def test_a_receipt_goes_out_every_so_many_or_after_a_while(server: Server) -> None:
    server.told(published(sealed(1)))  # sets the clock of the lingering
    server.take(*(published(sealed(seq)) for seq in range(2, 11)))
    assert receipts(server.close(NOW + 1)) == []
    server.take(published(sealed(11)))
    (told,) = receipts(server.close(NOW + 2))
    assert told.up_to == 11
    server.take(published(sealed(12)))
    assert receipts(server.close(NOW + 299)) == []
    (told,) = receipts(server.close(NOW + 301))
    assert told.up_to == 12
    assert receipts(server.close(NOW + 2_000)) == []


def test_a_receipt_for_each_record_does_not_linger(tmp_path: Path) -> None:
    server = Server(tmp_path / "telemetry.db", replace(SETTINGS, receipt_every=1))
    for seq in range(1, 4):
        server.take(published(sealed(seq)))
        (told,) = receipts(server.close())
        assert told.up_to == seq
    server.store.close()


def test_receipts_beyond_the_room_stay_due_and_go_later(server: Server) -> None:
    lives = [f"{number:016x}" for number in range(7)]
    server.take(*(published(sealed(1, life=life)) for life in lives))
    server.ingest.ripen()
    told: list[str] = []
    for room in (3, 0, 2, 9):
        closed = server.close(receipts_max=room)
        assert (closed is None) is (room == 0)  # nothing is left to commit, and nothing may be said
        assert server.ingest.pending is (room != 9)
        told += [receipt.life for receipt in receipts(closed)]
    assert told == lives


def test_nothing_is_acknowledged_on_another_connection(server: Server) -> None:
    server.take(published(sealed(1), packet_id=5))
    server.ingest.disconnected()
    server.take(published(sealed(2), packet_id=6))
    closed = server.close()
    assert closed is not None
    assert closed.acks == [6]
    assert len(closed.group.payloads) == 2


# replay


def test_a_replayed_message_is_a_record(server: Server) -> None:
    ahead = sealed(2, t0=NOW + limits.CLOCK_AHEAD_MS_MAX + 1)
    server.told(published(sealed(1)), published(ahead))
    (row,) = server.store.quarantine(after_id=0, rows_max=9)
    assert "clock" in server.ingest.readmit(row, NOW)
    assert server.ingest.readmit(row, NOW + 1) == "stored"
    server.close()
    server.store.replayed(row.id, NOW)
    assert ledger_of(server).quarantined.ranges() == ()
    server.crash()
    assert ledger_of(server).seen() == ((1, 2),)
    assert ledger_of(server).quarantined.ranges() == ()
    assert server.told(published(ahead), at_ms=NOW + 1)[0].conflict == ()


def test_only_the_bytes_that_were_receipted_can_be_replayed(server: Server) -> None:
    ahead = NOW + limits.CLOCK_AHEAD_MS_MAX + 1
    server.told(published(sealed(1, t0=ahead)), published(sealed(1, t0=ahead, value=2.0)))
    first, second = server.store.quarantine(after_id=0, rows_max=9)
    assert "other bytes" in server.ingest.readmit(second, NOW + 1)
    assert server.ingest.readmit(first, NOW + 1) == "stored"
    assert "other bytes" in server.ingest.readmit(first, NOW + 1)


# a restart


def test_a_restart_knows_when_a_stream_was_heard(server: Server) -> None:
    server.told(birth(state(2), state(0, life=OTHER_LIFE)), at_ms=NOW - 5)
    server.told(published(sealed(1)), published(sealed(2)))
    server.crash()
    assert ledger_of(server).heard_ms == server.ingest.devices[CAR].record_ms == NOW
    assert ledger_of(server, OTHER_LIFE).heard_ms == NOW - 5  # nothing of it came: since its birth
    assert ledger_of(server).silence_ms == 3 * EVERY_MS + SEAL_MS
    server.seal()
    server.crash()
    assert ledger_of(server).heard_ms == server.ingest.devices[CAR].record_ms == T0 + 2_000  # as the device told it


class Step(NamedTuple):
    what: str
    seq: int
    more: int


Make = Callable[[Step], Arrival]
MAKE: dict[str, Make] = {
    "batch": lambda s: published(sealed(s.seq), last=str(s.seq + s.more)),
    "unset": lambda s: published(sealed(s.seq, life=OTHER_LIFE, src="none")),
    "other": lambda s: published(sealed(s.seq, value=2.0 + s.more)),
    "poison": lambda s: poison(s.seq, b"{" * (1 + s.more)),
    "junk": lambda _: poison(None),
    "birth": lambda s: birth(state(s.seq + s.more, gone=((s.seq, s.seq + s.more),)), epoch=f"{s.more:016x}"),
    "retained": lambda s: birth(state(s.seq), epoch=f"{s.more:016x}", retain=True),
    "will": lambda s: will(f"{s.more:016x}"),
}
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from((*MAKE, "batch", "batch", "batch", "close", "close", "seal")),
        st.integers(1, 9),
        st.integers(0, 2),
    ),
    max_size=40,
)


def known_of(device: DeviceState, *, sealed_too: bool) -> dict[tuple[str, str], tuple[object, ...]]:
    """What a restart must bring back. Not ``behind``, nor ``last`` as a property told it: both will be said again.

    With *sealed_too* not the conflicts either: the store knows the bytes then, and is asked when they come again.
    """
    return {
        at: (
            ledger.seen(),
            ledger.top,
            ledger.gone.ranges(),
            ledger.quarantined.ranges(),
            ledger.quarantined_crcs,
            (ledger.tail_seq, ledger.tail),
            ledger.silence_ms,
            None if sealed_too else ledger.conflicts,
        )
        for at, ledger in device.ledgers.items()
        if ledger.seen()
    }


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_a_restart_restores_what_was_known(steps: list[Step]) -> None:
    with TemporaryDirectory() as directory:
        server, sealed_some = Server(Path(directory) / "telemetry.db"), False
        for step in (*steps, Step("close", 1, 0)):
            if step.what == "close":
                server.close()
            elif step.what == "seal":
                server.seal(records_max=2)
                sealed_some = True
            else:
                server.take(MAKE[step.what](step))
        before = server.ingest
        server.crash()
        after = server.ingest
        server.store.close()
        assert after.quarantine_bytes == before.quarantine_bytes
        for name, was in before.devices.items():
            # a message that changed nothing leaves no trace
            now = after.devices.get(name, DeviceState(was.device))
            assert (now.birth, now.will, now.status_ms) == (was.birth, was.will, was.status_ms)
            assert known_of(now, sealed_too=sealed_some) == known_of(was, sealed_too=sealed_some)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_a_receipt_covers_only_what_is_in_the_store(steps: list[Step]) -> None:
    with TemporaryDirectory() as directory:
        server = Server(Path(directory) / "telemetry.db")
        for step in steps:
            if step.what == "seal":
                server.seal(records_max=2)
            elif step.what != "close":
                server.take(MAKE[step.what](step))
                continue
            told = receipts(server.close())
            if not told:
                continue
            server.crash()  # what a device was told survives it
            for receipt in told:
                held = server.ingest.devices[CAR].ledgers[receipt.stream, receipt.life]
                missing = {n for low, high in receipt.missing for n in range(low, high + 1)}
                for seq in set(range(1, receipt.up_to + 1)) - missing:
                    assert seq in held.received, (receipt, seq)
        server.store.close()


def test_a_batch_that_this_contract_cannot_read_any_more_is_held_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.told(published(sealed(1)), published(sealed(2)), published(sealed(3)))
    unreadable, _ = encode_batch(sealed(2))

    def newer_contract(payload: bytes, content_type: str | None) -> Record:
        if payload == unreadable:
            raise BadBatchError(Reason.SHAPE, "no longer")
        return decode_batch(payload, content_type)

    monkeypatch.setattr(ingest_module, "decode_batch", newer_contract)
    server.crash()
    assert ledger_of(server).seen() == ((1, 3),)
    (told,) = server.told(published(sealed(2)))
    assert told.conflict == ()


def test_a_receipt_names_the_checksum_of_its_newest_number_sealed_or_not_and_after_a_restart(server: Server) -> None:
    crc = zlib.crc32(encode_batch(sealed(2))[0])
    (told,) = server.told(published(sealed(1)), published(sealed(2)))
    assert (told.up_to, told.tip) == (2, crc)
    server.seal()
    (told,) = server.told(birth(state(2)))
    assert told.tip == crc
    server.crash()
    (told,) = server.told(birth(state(2)))
    assert told.tip == crc


def test_a_receipt_whose_newest_number_is_gone_names_none(server: Server) -> None:
    (told,) = server.told(published(sealed(1)), birth(state(2, gone=((2, 2),))))
    assert (told.up_to, told.tip) == (2, None)
