"""Whatever is set and whoever asks: what must be kept is not deleted."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from broker_config.device_classes import FileKind
from fleet_server.evidence.pieces import Damage, Piece, State
from fleet_server.evidence.retention import (
    DAY_MS,
    RECORDING_FLOOR_D,
    Cause,
    Change,
    Deletion,
    due,
    rules_at,
    why_not_ask,
    why_not_delete,
)
from tests.fleet_server.evidence.arrivals import T0

PIECE = Piece(
    piece="0" * 32,
    device="cam-7",
    device_class="body_camera",
    path="hq",
    file_class="recordings",
    kind=FileKind.RECORDING,
    name="x",
    media_type="video/mp4",
    size=1,
    sha256="0" * 64,
    manifest_sha256="0" * 64,
    recording="",
    segment=0,
    last=False,
    begin_ms=0,  # its clock was never set: it counts for nothing here
    begin_unc_ms=0,
    end_ms=0,
    end_unc_ms=0,
    clock="none",
    holder="",
    journal_life="0" * 16,
    journal_first=1,
    journal_last=1,
    envelope=b"",
    certificate="",
    via="mqtt",
    offered_ms=T0,
    received_ms=T0,
    state=State.KEPT,
    damage=Damage.NONE,
    log=0,
    entry=1,
)
CLASSES = st.lists(st.sampled_from(["a", "b", "c", "unknown"]), unique=True, max_size=3).map(tuple)
RULES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.none() | st.integers(1, 1_000))
KINDS = st.sampled_from([None, *FileKind])
DAYS = st.integers(0, 1_200)


@given(CLASSES, RULES, KINDS, DAYS, st.sampled_from(Cause), st.booleans())
def test_nothing_is_deleted_that_must_be_kept(
    classes: tuple[str, ...], rules: dict[str, int | None], kind: FileKind | None, day: int, cause: Cause, held: bool
) -> None:
    piece = replace(PIECE, classes=classes, kind=kind, holds=("case-7",) if held else ())
    now_ms = T0 + day * DAY_MS
    if why_not_ask(piece, rules, cause, now_ms=now_ms):
        return
    assert not held
    assert classes, "unclassified is never deleted"
    kept = [rules.get(name) for name in classes]
    assert None not in kept, "nor what one of its classes keeps for ever"
    if kind in {None, FileKind.RECORDING}:
        assert day >= RECORDING_FLOOR_D
    if cause is Cause.RETENTION:
        assert all(each is not None and day >= each for each in kept), "the longest wins"


@given(CLASSES, RULES, KINDS)
def test_a_piece_can_be_asked_for_from_when_it_is_due(
    classes: tuple[str, ...], rules: dict[str, int | None], kind: FileKind | None
) -> None:
    piece = replace(PIECE, classes=classes, kind=kind)
    at_ms = due(piece, rules).at_ms
    if at_ms is not None:
        assert why_not_ask(piece, rules, Cause.RETENTION, now_ms=at_ms) == ""
        assert why_not_ask(piece, rules, Cause.RETENTION, now_ms=at_ms - 1)


APPROVERS = st.sampled_from([None, "ann", "ben"])


@given(APPROVERS, st.integers(0, 20), st.booleans(), st.booleans())
def test_a_deletion_is_done_only_by_two_and_after_its_delay(
    approver: str | None, days: int, withdrawn: bool, done: bool
) -> None:
    piece = replace(PIECE, classes=("a",))
    asked_ms = T0 + 400 * DAY_MS
    deletion = Deletion(
        "0" * 16,
        piece.piece,
        Cause.ASKED,
        "",
        "ann",
        asked_ms,
        approved_by=approver,
        withdrawn_ms=asked_ms if withdrawn else None,
        done_ms=asked_ms if done else None,
    )
    why = why_not_delete(deletion, piece, {"a": 30}, delay_ms=7 * DAY_MS, now_ms=asked_ms + days * DAY_MS)
    assert (why == "") == (approver == "ben" and days >= 7 and not withdrawn and not done)


def change(name: str, keep_d: int | None, effective_ms: int | None, approved_ms: int = 0) -> Change:
    return Change(f"{name}{effective_ms}", name, keep_d, "", "ann", 0, "ben", approved_ms, effective_ms)


def test_what_counts_is_the_newest_change_that_has_begun() -> None:
    changes = [change("a", 30, 100), change("a", 60, 200), change("b", 5, 300), change("c", 9, None)]
    assert rules_at(changes, now_ms=99) == {"a": None, "b": None}
    assert rules_at(changes, now_ms=100) == {"a": 30, "b": None}
    assert rules_at(changes, now_ms=250) == {"a": 60, "b": None}
    assert rules_at(reversed(changes), now_ms=300) == {"a": 60, "b": 5}
