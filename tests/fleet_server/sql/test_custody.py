"""Evidence in either database: every event is in the one log, numbered without holes; nothing is deleted that must
not be.
"""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from broker_config.device_classes import FileKind
from fleet_server.access import audit
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.custody import Entering
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.evidence.content import ContentError
from fleet_server.evidence.custody import Act, Event
from fleet_server.evidence.pieces import (
    UNCLASSIFIED,
    After,
    Damage,
    PieceFilter,
    RefusedError,
    SecondPersonError,
    State,
    UnknownPieceError,
)
from fleet_server.evidence.retention import DAY_MS, RECORDING_FLOOR_D
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.evidence.arrivals import CAMERA, T0, arrival, segment
from tests.fleet_server.evidence.rig import Custody

THREADS = 6
ACTS = 8
LATER = T0 + 400 * DAY_MS


@pytest.fixture
def custody(engine: Engine, tmp_path: Path) -> Custody:
    database.migrate(engine)
    return Custody(engine, tmp_path)


@pytest.fixture
def placed(custody: Custody) -> SqlRegistry:
    """The camera is at a station."""
    registry = SqlRegistry(custody.engine)
    for node in (OrgNode("hq", NodeKind.CENTRE, "Centre"), OrgNode("station-7", NodeKind.STATION, "Seventh", "hq")):
        registry.put_node(node, expected=None, create=True, now_ms=0)
    said = Registration(CAMERA, "body_camera", node="station-7")
    registry.register(said, expected=None, create=True, now_ms=0)
    return registry


def test_what_arrives_is_found_with_its_first_two_events(custody: Custody, placed: SqlRegistry) -> None:
    come = arrival(custody.content, b"video", segment=segment("r-1", 1, last=True), holder="4711")
    place = custody.pieces.verified(come)
    piece = custody.pieces.piece(come.upload)
    assert piece is not None
    assert (piece.device, piece.path, piece.kind, piece.recording, piece.segment, piece.last) == (
        "cam-7",
        "hq/station-7",
        FileKind.RECORDING,
        "r-1",
        1,
        True,
    )
    assert (piece.state, piece.damage, piece.classes, piece.holds) == (State.KEPT, Damage.NONE, (), ())
    assert (piece.log, piece.entry) == place
    received, verified = custody.events(come.upload)
    assert (received.action, received.data["sha256"]) == ("evidence.received", piece.sha256)
    assert (verified.action, verified.index, verified.data["root"]) == (
        "evidence.verified",
        place.number,
        come.manifest.root,
    )
    everything = b"".join(each.raw for each in custody.log.history(come.upload, from_number=0, rows_max=9))
    assert b"4711" not in everything
    assert b"segment-1.mp4" not in everything


def test_the_same_upload_again_has_the_same_place(custody: Custody) -> None:
    come = arrival(custody.content)
    first = custody.pieces.verified(come)
    custody.pieces.verified(arrival(custody.content))
    assert custody.pieces.verified(come) == first
    assert custody.told(come.upload) == ["received", "verified"]


def test_what_is_not_in_the_store_is_not_entered(custody: Custody) -> None:
    come = arrival()
    with pytest.raises(StoreError, match="not in the store"):
        custody.pieces.verified(come)
    custody.content.down = True
    with pytest.raises(StoreError, match="input/output"):
        custody.pieces.verified(come)
    assert custody.pieces.piece(come.upload) is None
    assert custody.events(come.upload) == []


def test_numbers_have_no_holes_whoever_acts_at_once(custody: Custody) -> None:
    """The claim is checked by Custody.events; some acts are refused in the middle, and leave nothing."""
    names = [custody.entered() for _ in range(2)]
    come = arrival(custody.content)

    def act(thread: int) -> None:
        for number in range(ACTS):
            piece = names[number % 2]
            custody.keeping.hold(piece, f"case-{thread}-{number}", "x", by="ann", now_ms=T0)
            custody.pieces.verified(come)
            custody.auditor.record(_fact(number))
            with pytest.raises(UnknownPieceError):
                custody.keeping.release(piece, "nobody", "x", by="ann", now_ms=T0)
            with pytest.raises(RuntimeError, match="died here"):
                custody.log.entering(_dies_after(piece))

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(act, thread) for thread in range(THREADS)]:
            done.result()
    for name in names:
        assert len(custody.events(name)) == 2 + THREADS * ACTS // 2
    assert custody.told(come.upload) == ["received", "verified"]
    custody.auditor.sign()
    assert custody.auditor.facts().fault == ""


def _fact(number: int) -> audit.Draft:
    return audit.Draft(phase=audit.Phase.FACT, at_ms=T0 + number, actor="x", source="", action="device.register")


def _dies_after(piece: str) -> Callable[[Entering], None]:
    def work(entering: Entering) -> None:
        entering.event(Act(Event.VIEWED, piece, "ann", T0))
        raise RuntimeError("died here")

    return work


def test_a_server_killed_at_any_moment_leaves_no_hole_and_no_half(tmp_path: Path) -> None:
    path = tmp_path / "operators.db"
    engine = database.connect(database.sqlite_url(path))
    database.migrate(engine)
    told: dict[str, int] = {}
    for stop_at in (5, 8, 11, 14):
        command = [sys.executable, "-m", "tests.fleet_server.evidence.writer", str(path), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(stop_at)]
            writer.kill()
            lines += [line for line in writer.stdout if line.endswith("\n")]
        told |= {piece: int(events) for piece, events in map(str.split, lines)}
    custody = Custody(engine, tmp_path)
    assert custody.auditor.facts().fault == ""
    found = custody.pieces.pieces(PieceFilter(), rows_max=1_000)
    assert {piece.piece for piece in found} >= set(told)
    for piece in found:
        events = custody.events(piece.piece)
        assert len(events) >= told.get(piece.piece, 2)
        assert len(piece.holds) == len(events) - 2
    engine.dispose()


def test_pieces_are_found_by_what_is_known_of_them(custody: Custody, placed: SqlRegistry) -> None:
    custody.rule("traffic_stop", 30)
    first = custody.entered(segment=segment("r-1", 1))
    second = custody.entered(segment=segment("r-1", 2), verified_ms=T0 + 70_000)
    other = custody.entered(device="cam-8", verified_ms=T0 + 80_000)
    custody.keeping.classify(second, add=["traffic_stop"], remove=[], by="ann", now_ms=T0)
    custody.keeping.hold(first, "case-7", "x", by="ann", now_ms=T0)

    def found(**wanted: object) -> list[str]:
        return [each.piece for each in custody.pieces.pieces(PieceFilter(**wanted), rows_max=10)]  # type: ignore[arg-type]

    assert found() == [first, second, other]
    assert found(recording="r-1") == [first, second]
    assert found(device="cam-8") == [other]
    assert found(path="hq") == [first, second]
    assert found(path="hq/station") == []
    assert found(within=("hq/station-7",)) == [first, second]
    assert found(within=()) == []
    assert found(evidence_class="traffic_stop") == [second]
    assert found(evidence_class=UNCLASSIFIED) == [first, other]
    assert found(hold="case-7") == [first]
    assert found(from_ms=T0 + 30_000 + 40, to_ms=T0 + 60_000) == [first, second, other]
    assert found(from_ms=T0 + 30_000 + 41) == []
    assert found(to_ms=T0 - 41) == []
    assert found(damaged=True) == []
    (page,) = custody.pieces.pieces(PieceFilter(), rows_max=1)
    behind = custody.pieces.pieces(PieceFilter(), after=After(page.received_ms, page.piece), rows_max=9)
    assert [each.piece for each in behind] == [second, other]
    newest = custody.pieces.newest(PieceFilter(), before=None, rows_max=2)
    assert [each.piece for each in newest] == [other, second]
    rest = custody.pieces.newest(PieceFilter(), before=After(newest[-1].received_ms, second), rows_max=9)
    assert [each.piece for each in rest] == [first]
    assert [each.piece for each in custody.pieces.newest(PieceFilter(path="hq"), before=None, rows_max=1)] == [second]
    assert custody.pieces.totals().pieces == 3


# Classes and holds --------------------------------------------------------------------------------------------------


def test_a_class_that_nobody_has_set_is_given_to_nothing(custody: Custody) -> None:
    piece = custody.entered()
    with pytest.raises(UnknownPieceError, match="no class traffic_stpo"):
        custody.keeping.classify(piece, add=["traffic_stpo"], remove=[], by="ann", now_ms=T0)
    assert custody.told(piece) == ["received", "verified"]


def test_classifying_twice_is_one_event(custody: Custody) -> None:
    custody.rule("routine", 30)
    custody.rule("assault", None)
    piece = custody.entered()
    for _ in range(2):
        after = custody.keeping.classify(piece, add=["routine", "assault"], remove=[], by="ann", now_ms=T0)
        assert after.classes == ("assault", "routine")
    assert custody.keeping.classify(piece, add=[], remove=["routine"], by="ann", now_ms=T0).classes == ("assault",)
    assert custody.told(piece) == ["received", "verified", "classified", "classified"]


def test_a_piece_is_held_for_each_reason_alone(custody: Custody) -> None:
    piece = custody.entered()
    for hold in ("case-7", "case-9", "case-7"):
        custody.keeping.hold(piece, hold, "the court asked", by="ann", now_ms=T0)
    assert custody.keeping.release(piece, "case-7", "closed", by="ben", now_ms=T0 + 1).holds == ("case-9",)
    with pytest.raises(UnknownPieceError):
        custody.keeping.release(piece, "case-7", "closed", by="ben", now_ms=T0 + 1)
    listed = custody.keeping.holds(hold=None, piece=piece, after=("", ""), rows_max=9)
    assert [(each.hold, each.released_by) for each in listed] == [("case-7", "ben"), ("case-9", None)]
    assert custody.keeping.hold(piece, "case-7", "opened again", by="ann", now_ms=T0 + 2).holds == (
        "case-7",
        "case-9",
    )
    assert custody.told(piece)[2:] == ["held", "held", "released", "held"]


def test_what_people_wrote_is_hashed_in_the_log_and_can_be_erased(custody: Custody) -> None:
    piece = custody.entered()
    custody.keeping.hold(piece, "case-7", "Ms Miller complained", by="ann", now_ms=T0)
    *_, held = custody.log.history(piece, from_number=2, rows_max=9)
    assert held.note == "Ms Miller complained"
    assert b"Miller" not in held.raw
    assert custody.keeping.erase_notes(piece, by="ben", now_ms=T0) == 1
    assert custody.keeping.erase_notes(piece, by="ben", now_ms=T0) == 0
    assert custody.told(piece)[2:] == ["held", "notes_erased"], "the chain is whole without the words"
    assert [each.note for each in custody.log.history(piece, from_number=0, rows_max=9)] == [None] * 4
    (hold,) = custody.keeping.holds(hold=None, piece=piece, after=("", ""), rows_max=9)
    assert hold.reason == ""


# Retention and deletion ---------------------------------------------------------------------------------------------


def deletable(custody: Custody, **fields: Any) -> str:
    custody.rule("routine", 30)
    piece = custody.entered(**fields)
    custody.keeping.classify(piece, add=["routine"], remove=[], by="ann", now_ms=T0)
    return piece


def test_a_rule_counts_once_a_second_person_agreed_and_its_delay_is_over(custody: Custody) -> None:
    change = custody.retention.propose("routine", 30, "order 12", by="ann", now_ms=T0)
    with pytest.raises(SecondPersonError):
        custody.retention.approve(change.change, by="ann", now_ms=T0)
    with pytest.raises(RefusedError, match="waits already"):
        custody.retention.propose("routine", 40, "order 13", by="ann", now_ms=T0)
    agreed = custody.retention.approve(change.change, by="ben", now_ms=T0 + 5)
    assert agreed.effective_ms == T0 + 5 + 7 * DAY_MS
    assert custody.retention.rules(now_ms=T0 + 7 * DAY_MS) == {"routine": None}, "for ever, until then"
    assert custody.retention.rules(now_ms=agreed.effective_ms) == {"routine": 30}
    with pytest.raises(RefusedError, match="counts already"):
        custody.retention.withdraw(change.change, by="ben", now_ms=agreed.effective_ms)
    assert [entry.action for entry in custody.events("class:routine")] == ["retention.proposed", "retention.approved"]


def test_a_change_taken_back_in_time_never_counts(custody: Custody) -> None:
    custody.rule("routine", 400)
    change = custody.retention.propose("routine", 1, "a mistake", by="ann", now_ms=T0)
    custody.retention.approve(change.change, by="ben", now_ms=T0)
    custody.retention.withdraw(change.change, by="cem", now_ms=T0 + DAY_MS)
    assert custody.retention.rules(now_ms=LATER) == {"routine": 400}


def test_what_nobody_classified_has_no_retention_to_be_set(custody: Custody) -> None:
    with pytest.raises(RefusedError):
        custody.retention.propose(UNCLASSIFIED, 30, "x", by="ann", now_ms=T0)


def test_a_dry_run_says_which_pieces_and_when_and_changes_nothing(custody: Custody) -> None:
    piece = deletable(custody, file_class="snapshots")
    effects = custody.retention.effects("routine", 1, now_ms=T0 + 300 * DAY_MS)
    assert (effects.pieces, effects.due_now, effects.held) == (1, 1, 0)
    (only,) = custody.retention.effects("routine", 400, now_ms=T0).first
    assert (only.piece.piece, only.after.at_ms) == (piece, T0 + 60_000 + 400 * DAY_MS)
    assert custody.retention.rules(now_ms=T0) == {"routine": 30}


def test_a_piece_is_deleted_by_two_people_after_a_delay(custody: Custody) -> None:
    piece = deletable(custody)
    asked = custody.deletions.ask(piece, "their wish", by="ann", now_ms=LATER)
    with pytest.raises(RefusedError, match="already"):
        custody.deletions.ask(piece, "again", by="ann", now_ms=LATER)
    assert custody.deletions.carry_out(asked.deletion, now_ms=LATER + 30 * DAY_MS).why_not == "nobody else has agreed"
    with pytest.raises(SecondPersonError):
        custody.deletions.approve(asked.deletion, by="ann", now_ms=LATER)
    custody.deletions.approve(asked.deletion, by="ben", now_ms=LATER)
    assert custody.deletions.approved(now_ms=LATER + 7 * DAY_MS - 1, rows_max=9) == []
    assert "delay" in custody.deletions.carry_out(asked.deletion, now_ms=LATER + 7 * DAY_MS - 1).why_not
    assert custody.deletions.approved(now_ms=LATER + 7 * DAY_MS, rows_max=9) == [asked.deletion]
    assert custody.deletions.carry_out(asked.deletion, now_ms=LATER + 7 * DAY_MS).why_not == ""
    found = custody.pieces.piece(piece)
    assert found is not None
    assert found.state is State.DELETED
    assert custody.content.exists(found.sha256), "the log first"
    assert custody.deletions.unfinished(rows_max=9) == [asked.deletion]
    assert custody.deletions.remove_content(asked.deletion, [custody.content], now_ms=LATER) is True
    assert not custody.content.exists(found.sha256)
    assert custody.deletions.unfinished(rows_max=9) == []
    assert custody.told(piece)[2:] == ["classified", "deletion_asked", "deletion_approved", "deleted"]
    (*_, last) = custody.events(piece)
    assert (last.data["asked_by"], last.data["approved_by"]) == ("ann", "ben")
    with pytest.raises(RefusedError, match="deleted"):
        custody.keeping.hold(piece, "case-7", "too late", by="ann", now_ms=LATER)


def test_a_hold_placed_after_the_agreement_keeps_the_piece(custody: Custody) -> None:
    piece = deletable(custody)
    asked = custody.deletions.ask(piece, "x", by="ann", now_ms=LATER)
    custody.deletions.approve(asked.deletion, by="ben", now_ms=LATER)
    custody.keeping.hold(piece, "case-7", "x", by="cem", now_ms=LATER)
    assert "held: case-7" in custody.deletions.carry_out(asked.deletion, now_ms=LATER + 8 * DAY_MS).why_not
    found = custody.pieces.piece(piece)
    assert found is not None
    assert found.state is State.KEPT


@pytest.mark.parametrize(
    ("classes", "days", "held", "why"),
    [
        ([], 400, False, "unclassified"),
        (["for_ever"], 400, False, "for_ever: for ever"),
        (["routine", "for_ever"], 400, False, "for_ever: for ever"),
        (["routine"], RECORDING_FLOOR_D - 1, False, "recordings are kept"),  # whatever is set
        (["routine"], 400, True, "it is held: case-7"),
    ],
)
def test_what_nobody_can_ask_for(custody: Custody, classes: list[str], days: int, held: bool, why: str) -> None:
    custody.rule("routine", 30)
    custody.rule("for_ever", None)
    piece = custody.entered()
    custody.keeping.classify(piece, add=classes, remove=[], by="ann", now_ms=T0)
    if held:
        custody.keeping.hold(piece, "case-7", "x", by="ann", now_ms=T0)
    with pytest.raises(RefusedError, match=why):
        custody.deletions.ask(piece, "x", by="ann", now_ms=T0 + days * DAY_MS)
    assert "deletion_asked" not in custody.told(piece)


def test_the_longest_retention_wins(custody: Custody) -> None:
    custody.rule("routine", 200)
    custody.rule("complaint", 300)
    piece = custody.entered()
    custody.keeping.classify(piece, add=["routine", "complaint"], remove=[], by="ann", now_ms=T0)
    with pytest.raises(RefusedError, match="complaint: 300 d"):
        custody.deletions.ask_due(piece, now_ms=T0 + 299 * DAY_MS)
    assert custody.deletions.ask_due(piece, now_ms=T0 + 301 * DAY_MS).is_open


def test_a_day_has_a_bound_of_deletions(custody: Custody) -> None:
    custody.rule("routine", 30)
    ready = []
    for _ in range(4):
        piece = custody.entered()
        custody.keeping.classify(piece, add=["routine"], remove=[], by="ann", now_ms=T0)
        ready.append(custody.deletions.ask(piece, "x", by="ann", now_ms=LATER).deletion)
        custody.deletions.approve(ready[-1], by="ben", now_ms=LATER)
    at_ms = LATER + 8 * DAY_MS
    done = [custody.deletions.carry_out(each, now_ms=at_ms).why_not for each in ready]
    assert done == ["", "", "", "3 pieces were deleted within a day"]
    assert custody.deletions.carry_out(ready[3], now_ms=at_ms + DAY_MS).why_not == ""


def test_a_content_that_another_piece_has_stays(custody: Custody) -> None:
    piece = deletable(custody, data=b"the same")
    other = custody.entered(b"the same", device="cam-8")
    asked = custody.deletions.ask(piece, "x", by="ann", now_ms=LATER)
    custody.deletions.approve(asked.deletion, by="ben", now_ms=LATER)
    custody.deletions.carry_out(asked.deletion, now_ms=LATER + 8 * DAY_MS)
    assert custody.deletions.remove_content(asked.deletion, [custody.content], now_ms=LATER) is False
    found = custody.pieces.piece(other)
    assert found is not None
    assert custody.content.exists(found.sha256)


def test_a_copy_that_cannot_be_reached_is_tried_again(custody: Custody) -> None:
    piece = deletable(custody)
    asked = custody.deletions.ask(piece, "x", by="ann", now_ms=LATER)
    custody.deletions.approve(asked.deletion, by="ben", now_ms=LATER)
    custody.deletions.carry_out(asked.deletion, now_ms=LATER + 8 * DAY_MS)
    custody.content.down = True
    with pytest.raises(ContentError):
        custody.deletions.remove_content(asked.deletion, [custody.content], now_ms=LATER)
    assert custody.deletions.unfinished(rows_max=9) == [asked.deletion]


def test_a_deletion_can_be_taken_back_until_it_is_done(custody: Custody) -> None:
    piece = deletable(custody)
    asked = custody.deletions.ask(piece, "x", by="ann", now_ms=LATER)
    custody.deletions.approve(asked.deletion, by="ben", now_ms=LATER)
    custody.deletions.withdraw(asked.deletion, "wrong one", by="cem", now_ms=LATER)
    assert custody.deletions.carry_out(asked.deletion, now_ms=LATER + 8 * DAY_MS).why_not == "it is not open"
    with pytest.raises(RefusedError, match="withdrawn"):
        custody.deletions.approve(asked.deletion, by="dan", now_ms=LATER)
    assert custody.deletions.deletions(open_only=True, after=(0, ""), rows_max=9) == []
    (listed,) = custody.deletions.deletions(open_only=False, after=(0, ""), rows_max=9)
    assert listed[0].withdrawn_by == "cem"
