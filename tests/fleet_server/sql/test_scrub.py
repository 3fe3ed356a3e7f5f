"""A scrub names what is missing, altered, unlike the log or unexpected, and nothing else; what is due is deleted."""

import itertools
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Engine, text

from fleet_server.adapters.sql import database
from fleet_server.evidence.custodian import (
    SCRUB_APART_MS,
    SCRUB_OVERDUE_MS,
    Custodian,
    Settings,
    news_of,
    scrub_is_due,
)
from fleet_server.evidence.pieces import Damage, State
from fleet_server.evidence.retention import DAY_MS
from fleet_server.evidence.scrub import Scrub, Scrubber, StoppedError
from fleet_server.outbound.happenings import News
from tests.fleet_server.evidence.arrivals import T0, Folder
from tests.fleet_server.evidence.rig import Custody

LATER = T0 + 400 * DAY_MS
HOUR_MS = 3_600_000


class Rig:
    """A custodian with two copies of everything; ``told``: what it told."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        database.migrate(engine)
        self.custody = Custody(engine, directory)
        self.replica = Folder(directory / "replica", "replica")
        self.copies = [self.custody.content, self.replica]
        self.told: list[News] = []
        self.now_ms = T0
        ticks = itertools.count()
        self.scrubber = Scrubber(
            self.custody.pieces,
            self.custody.scrubs,
            self.copies,
            bytes_a_second=10**9,
            now_ms=lambda: self.now_ms + next(ticks),
        )
        self.custodian = Custodian(
            self.custody.pieces,
            self.custody.deletions,
            self.custody.retention,
            self.scrubber,
            self.copies,
            Settings(scrub_hour=2),
            tell=self.told.extend,
            now_ms=lambda: self.now_ms,
            hour_of=lambda _: 12,
        )

    def entered(self, data: bytes, **fields: object) -> str:
        self.replica.put(data)
        return self.custody.entered(data, **fields)

    def scrub(self) -> Scrub:
        return self.custodian.scrub(Event())

    def damage(self, piece: str) -> Damage:
        found = self.custody.pieces.piece(piece)
        assert found is not None
        return found.damage


@pytest.fixture
def rig(engine: Engine, tmp_path: Path) -> Rig:
    return Rig(engine, tmp_path)


def test_what_is_sound_is_an_event_of_the_store_and_no_news(rig: Rig) -> None:
    names = [rig.entered(f"video {n}".encode()) for n in range(3)]
    scrub = rig.scrub()
    assert (scrub.pieces, scrub.bytes, scrub.found, scrub.names, scrub.why) == (3, 2 * 3 * 7, 0, (), "")
    assert rig.told == []
    (event,) = rig.custody.events("store")
    assert (event.action, event.data["pieces"], event.data["finished"]) == ("evidence.scrubbed", "3", "true")
    assert all(rig.custody.told(name) == ["received", "verified"] for name in names)
    assert rig.scrubber.progress is None


def test_each_fault_is_named_told_and_in_the_piece_s_own_chain(rig: Rig) -> None:
    missing, altered, cut, elsewhere, sound = (rig.entered(f"video {n}".encode()) for n in range(5))

    def file(piece: str, copy: Folder) -> Path:
        found = rig.custody.pieces.piece(piece)
        assert found is not None
        return copy.path(found.sha256)

    file(missing, rig.custody.content).unlink()
    file(altered, rig.custody.content).write_bytes(b"video x")
    file(cut, rig.custody.content).write_bytes(b"vide")
    file(elsewhere, rig.replica).unlink()
    rig.now_ms = T0 + 2 * HOUR_MS
    stranger = rig.custody.content.put(b"nobody's")
    (rig.replica.path("left-over.part")).write_bytes(b"")
    scrub = rig.scrub()
    assert (scrub.missing, scrub.altered, scrub.unexpected) == (2, 2, 2)
    assert set(scrub.names) == {
        f"missing {missing} store",
        f"altered {altered} store",
        f"altered {cut} store",
        f"missing {elsewhere} replica",
        f"unexpected {stranger} store",
        "unexpected left-over.part replica",
    }
    (news,) = rig.told
    assert (news.kind, news.data["count"]) == ("evidence.damaged", 6)
    assert rig.custody.told(missing)[2:] == ["damaged"]
    (*_, event) = rig.custody.events(elsewhere)
    assert (event.data["what"], event.data["copy"]) == ("missing", "replica")
    assert rig.damage(sound) is Damage.NONE
    rig.scrub()
    assert rig.custody.told(missing)[2:] == ["damaged"], "an event for a change, not for each look"
    for piece, content in ((missing, b"video 0"), (altered, b"video 1"), (cut, b"video 2")):
        rig.custody.content.put(content)
        assert file(piece, rig.custody.content).exists()
    rig.replica.put(b"video 3")
    rig.custody.content.path(stranger).unlink()
    rig.replica.path("left-over.part").unlink()
    rig.told.clear()
    assert rig.scrub().found == 0
    assert [each.kind for each in rig.told] == ["evidence.sound"]
    assert rig.custody.told(altered)[2:] == ["damaged", "sound"]
    assert rig.damage(altered) is Damage.NONE


def test_a_second_copy_that_is_still_to_be_made_is_not_missing(rig: Rig) -> None:
    rig.custody.entered(b"just come", verified_ms=T0)
    rig.now_ms = T0 + HOUR_MS - 1_000
    assert rig.scrub().found == 0
    rig.now_ms = T0 + HOUR_MS
    assert rig.scrub().missing == 1


@pytest.mark.parametrize(
    "statement",
    [
        # whoever alters a file and the index with it
        "UPDATE evidence_piece SET sha256 = '{other}'",
        "UPDATE evidence_piece SET entry = entry - 1",
        "UPDATE custody_event SET number = number + 1 WHERE number = 1",
        "DELETE FROM custody_event WHERE number = 0",
        "DELETE FROM custody_event",
        "UPDATE custody_event SET entry = 0 WHERE number = 0",
    ],
)
def test_an_index_that_does_not_say_what_the_log_says_is_found(rig: Rig, engine: Engine, statement: str) -> None:
    piece = rig.entered(b"video")
    other = rig.custody.content.put(b"other")
    rig.replica.put(b"other")
    with database.writing(engine) as connection:
        connection.execute(text(statement.format(other=other)))
    scrub = rig.scrub()
    assert scrub.unlike_log == 1
    assert f"unlike_log {piece}" in scrub.names
    if "number + 1" not in statement:  # that row is in the way of the event
        assert rig.damage(piece) is Damage.UNLIKE_LOG


def test_a_store_that_cannot_be_read_is_told_and_no_piece_is_blamed(rig: Rig) -> None:
    piece = rig.entered(b"video")
    rig.custody.content.down = True
    scrub = rig.scrub()
    assert (scrub.why, scrub.found) == ("input/output error", 0)
    assert [each.kind for each in rig.told] == ["evidence.unchecked"]
    assert rig.damage(piece) is Damage.NONE


def test_a_scrub_ends_when_the_server_does(rig: Rig) -> None:
    rig.entered(b"video")
    stop = Event()
    stop.set()
    with pytest.raises(StoppedError):
        rig.custodian.scrub(stop)
    assert rig.custody.scrubs.all(before_ms=None, rows_max=9) == []
    assert rig.scrubber.progress is None


@pytest.mark.parametrize(
    ("since_ms", "hour", "due"),
    [
        (None, 12, True),
        (SCRUB_APART_MS, 2, True),
        (SCRUB_APART_MS, 3, False),
        (SCRUB_APART_MS - 1, 2, False),
        (SCRUB_OVERDUE_MS, 12, True),
    ],
)
def test_when_a_scrub_begins(since_ms: int | None, hour: int, due: bool) -> None:
    last_ms = None if since_ms is None else LATER - since_ms
    assert scrub_is_due(last_ms, now_ms=LATER, hour=hour, scrub_hour=2) is due


def test_an_unfinished_scrub_is_no_all_clear() -> None:
    before = Scrub(0, 1, 5, 5, 1, 0, 0, 0, 0, ())
    assert news_of(Scrub(2, 3, 5, 5, 0, 0, 0, 0, 0, ()), before)[0].kind == "evidence.sound"
    assert [each.kind for each in news_of(Scrub(2, 3, 1, 1, 0, 0, 0, 0, 0, (), "away"), before)] == [
        "evidence.unchecked"
    ]


# What is due --------------------------------------------------------------------------------------------------------


def due_piece(rig: Rig, data: bytes) -> str:
    piece = rig.entered(data)
    rig.custody.keeping.classify(piece, add=["routine"], remove=[], by="ann", now_ms=T0)
    return piece


def test_what_the_retention_is_over_of_waits_for_a_person_and_is_then_gone_from_every_copy(rig: Rig) -> None:
    rig.custody.rule("routine", 30)
    due, held, unclassified = due_piece(rig, b"due"), due_piece(rig, b"held"), rig.entered(b"unclassified")
    rig.custody.keeping.hold(held, "case-7", "x", by="ann", now_ms=T0)
    rig.custodian.look()
    assert rig.custody.deletions.deletions(open_only=False, after=(0, ""), rows_max=9) == []
    rig.now_ms = LATER
    rig.custodian.look()
    rig.custodian.look()
    ((deletion, _),) = rig.custody.deletions.deletions(open_only=True, after=(0, ""), rows_max=9)
    assert (deletion.piece, deletion.asked_by) == (due, "server")
    assert [(each.kind, each.data["count"]) for each in rig.told] == [("evidence.due", 1)]
    rig.now_ms = LATER + 30 * DAY_MS
    rig.custodian.look()
    assert rig.custody.content.exists(deletion_sha(rig, due)), "nobody has agreed"
    rig.custody.deletions.approve(deletion.deletion, by="ben", now_ms=rig.now_ms)
    rig.custodian.look()
    for copy in rig.copies:
        assert not copy.exists(deletion_sha(rig, due))
        assert copy.exists(deletion_sha(rig, held))
        assert copy.exists(deletion_sha(rig, unclassified))
    assert rig.custody.told(due)[-3:] == ["deletion_asked", "deletion_approved", "deleted"]
    assert rig.scrub().found == 0, "a deleted piece is not missing"


def deletion_sha(rig: Rig, piece: str) -> str:
    found = rig.custody.pieces.piece(piece)
    assert found is not None
    return found.sha256


def test_a_server_killed_before_the_content_went_takes_it_away_at_its_next_look(rig: Rig) -> None:
    rig.custody.rule("routine", 30)
    piece = due_piece(rig, b"due")
    asked = rig.custody.deletions.ask(piece, "x", by="ann", now_ms=LATER)
    rig.custody.deletions.approve(asked.deletion, by="ben", now_ms=LATER)
    rig.now_ms = LATER + 8 * DAY_MS
    rig.custody.deletions.carry_out(asked.deletion, now_ms=rig.now_ms)
    rig.replica.down = True
    rig.custodian.look()
    assert rig.replica.path(deletion_sha(rig, piece)).exists()
    rig.replica.down = False
    rig.custodian.look()
    assert not rig.replica.path(deletion_sha(rig, piece)).exists()
    assert rig.custody.deletions.unfinished(rows_max=9) == []


def test_the_same_content_again_after_a_deletion_is_kept(rig: Rig) -> None:
    rig.custody.rule("routine", 30)
    piece = due_piece(rig, b"due")
    asked = rig.custody.deletions.ask(piece, "x", by="ann", now_ms=LATER)
    rig.custody.deletions.approve(asked.deletion, by="ben", now_ms=LATER)
    rig.now_ms = LATER + 8 * DAY_MS
    rig.custody.deletions.carry_out(asked.deletion, now_ms=rig.now_ms)
    again = rig.entered(b"due", device="cam-8")  # between the log and the removal
    rig.custodian.look()
    found = rig.custody.pieces.piece(again)
    assert found is not None
    assert found.state is State.KEPT
    assert all(copy.exists(found.sha256) for copy in rig.copies)
