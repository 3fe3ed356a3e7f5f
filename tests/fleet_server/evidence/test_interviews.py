"""What of an interview is recorded is proved by segments; every gap is named with its reason, and signed."""

from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest

from broker_config.manifest import Moment, Segment
from fleet_server.access.notes import Signer
from fleet_server.evidence import certificate, interviews, journal
from fleet_server.evidence.certificate import Certificate, CertificateError
from fleet_server.evidence.interviews import Cause, Gap, Interview, Part
from fleet_server.evidence.journal import Note
from fleet_server.evidence.pieces import Damage, Piece, State
from fleet_server.telemetry.store import EventFact, StreamKey
from tests.fleet_server.evidence.arrivals import T0, arrival
from tests.fleet_server.evidence.test_ledger import piece

S: Final = 1_000
BOOT: Final = "5c1d7a90be2f4436"
AGAIN: Final = "0000000000000001"
SIGNER: Final = Signer("fieldfleet/test/audit", b"\1" * 32)


def note(kind: str, at_s: float, *, boot: str = BOOT, clock_off_s: float = 0, **data: Any) -> Note:
    key = StreamKey("room-1", "journal", "9f0c2b1a77d3e458")
    mono, at_ms = 60_000 + int(at_s * S), T0 + int((at_s + clock_off_s) * S)
    place = int(at_s * 10) % 64
    fact = EventFact(key, 4, place, at_ms, boot, mono, kind, msgspec.json.encode(data).decode())
    return journal.read([fact])[0]


def moment(at_s: float, *, boot: str = BOOT) -> Moment:
    return Moment(T0 + int(at_s * S), 40, "ntp", boot, 60_000 + int(at_s * S))


def segment(number: int, from_s: float, to_s: float, *, gap_ms: int = 0, boot: str = BOOT, **fields: Any) -> Piece:
    said = Segment("r-1", number, "0" * 64, gap_ms=gap_ms)
    come = arrival(
        None, f"{number}".encode(), begin=moment(from_s, boot=boot), end=moment(to_s, boot=boot), segment=said
    )
    begin_ms, end_ms = come.manifest.begin.t_ms, come.manifest.end.t_ms
    return piece(number, envelope=come.envelope, begin_ms=begin_ms, end_ms=end_ms, **fields)


HELD: Final = [note("session.start", 0, reference="i-1"), note("session.stop", 90, reference="i-1")]
WHOLE: Final = [segment(1, -5, 30), segment(2, 30, 60), segment(3, 60, 95)]


def only(notes: list[Note], pieces: list[Piece]) -> Interview:
    ordered = sorted(notes, key=lambda each: each.mono)
    (found,) = interviews.interviews(ordered, pieces, now_ms=T0 + 3_600 * S)
    return found


def test_an_interview_that_segments_cover_is_whole() -> None:
    found = only(HELD, WHOLE)
    assert (found.length_ms, found.covered_ms, found.whole, found.gaps) == (90 * S, 90 * S, True, ())
    assert [each.part for each in found.segments] == [Part(0, 30_000), Part(30_000, 60_000), Part(60_000, 90_000)]


@pytest.mark.parametrize(
    ("notes", "pieces", "cause", "part"),
    [
        ([], [WHOLE[0], WHOLE[2]], Cause.UNEXPLAINED, (30, 60)),
        ([], [], Cause.UNEXPLAINED, (0, 90)),
        ([], [WHOLE[0], segment(2, 30, 60, damage=Damage.ALTERED), WHOLE[2]], Cause.NOT_HERE, (30, 60)),
        ([], [WHOLE[0], segment(2, 30, 60, state=State.DELETED), WHOLE[2]], Cause.NOT_HERE, (30, 60)),
        ([note("agent.start", 45)], [WHOLE[0], WHOLE[2]], Cause.RESTARTED, (30, 60)),
        ([note("file.sealed", 62, recording="r-1", number=2)], [WHOLE[0], WHOLE[2]], Cause.NOT_HERE, (30, 60)),
        (
            [note("recording.skipped", 62, recording="r-1", first=2, last=2)],
            [WHOLE[0], WHOLE[2]],
            Cause.NEVER_WRITTEN,
            (30, 60),
        ),
        # what the recorder says is missing is missing, though files go on
        (
            [note("av.gap", 50, from_ms=T0 + 40 * S, to_ms=T0 + 45 * S, reason="camera 2")],
            WHOLE,
            Cause.RECORDER,
            (40, 45),
        ),
        # the device saw a hole between two segments that the folder's clock cannot show
        ([], [WHOLE[0], segment(2, 30, 60, gap_ms=2_000), WHOLE[2]], Cause.UNEXPLAINED, (30, 32)),
    ],
)
def test_each_gap_has_its_reason(notes: list[Note], pieces: list[Piece], cause: Cause, part: tuple[int, int]) -> None:
    found = only([*HELD, *notes], pieces)
    assert [(each.cause, each.part) for each in found.gaps] == [(cause, Part(part[0] * S, part[1] * S))]
    assert not found.whole
    assert found.covered_ms == found.length_ms - (part[1] - part[0]) * S


def test_seams_that_the_folder_saw_late_are_no_gaps_and_less_than_a_frame_is_none() -> None:
    assert only(HELD, [WHOLE[0], segment(2, 33, 60), WHOLE[2]]).whole  # the device says that they adjoin
    assert only(HELD, [WHOLE[0], segment(2, 30, 60, gap_ms=40), WHOLE[2]]).gaps == ()


def test_within_a_boot_a_clock_that_was_moved_makes_no_gap() -> None:
    start, stop = HELD[0], note("session.stop", 90, clock_off_s=-3_000)
    assert only([start, stop], WHOLE).whole


def test_after_a_restart_the_devices_clock_counts() -> None:
    found = only([*HELD, note("agent.start", 38, boot=AGAIN)], [WHOLE[0], segment(2, 40, 95, boot=AGAIN)])
    # a manifest tells of no gap across boots, so that it says 0 proves nothing
    assert [(each.cause, each.part) for each in found.gaps] == [(Cause.RESTARTED, Part(30 * S, 40 * S))]


def test_one_that_lasts_is_not_whole_and_the_next_one_ends_it() -> None:
    assert not only(HELD[:1], WHOLE).whole
    both = interviews.interviews([HELD[0], note("session.start", 50)], WHOLE, now_ms=T0 + 60 * S)
    assert [(each.end, each.length_ms) for each in both] == [(None, 50 * S), (None, 10 * S)]


def certified(found: Interview) -> Certificate:
    document = certificate.document(
        found, device="room-1", org="hq", issued_ms=T0, issued_by="ann", checkpoint="a\n1\nx\n"
    )
    return Certificate(certificate.encoded(document), SIGNER.sign(certificate.text(document)))


def test_a_certificate_says_offline_what_was_recorded() -> None:
    found = only(HELD, [WHOLE[0], WHOLE[2]])
    document, text = certificate.verified(msgspec.json.encode(certified(found)), SIGNER.verifier)
    assert "verdict: NOT recorded without a gap" in text
    assert "  0:00:30.000 to 0:01:00.000: unexplained" in text
    assert [(each.number, each.entry) for each in document.segments] == [(1, 0), (3, 0)]
    assert "verdict: recorded without a gap" in certified(only(HELD, WHOLE)).note


def test_a_certificate_that_was_changed_is_refused() -> None:
    good = certified(only(HELD, WHOLE))
    worse = certified(only(HELD, WHOLE[:1]))
    other = Signer("fieldfleet/test/audit", b"\2" * 32)
    for data in (
        msgspec.json.encode(Certificate(good.document, worse.note)),  # two halves of two good ones
        msgspec.json.encode(Certificate(good.document.replace("room-1", "room-2"), good.note)),
        msgspec.json.encode(Certificate(good.document, good.note.replace("room-1", "room-2"))),
        msgspec.json.encode(Certificate(good.document.replace('"v":1', '"v": 1'), good.note)),
        b"{}",
        b"\xff",
        msgspec.json.encode(good)[:-9],
    ):
        with pytest.raises(CertificateError):
            certificate.verified(data, SIGNER.verifier)
    with pytest.raises(CertificateError, match="signature"):
        certificate.verified(msgspec.json.encode(good), other.verifier)


def test_the_text_is_bounded_whatever_the_number_of_gaps() -> None:
    found = only(HELD, WHOLE)
    gaps = tuple(Gap(Part(n, n + 1), Cause.RECORDER, "x" * 500) for n in range(500))
    many = certified(replace(found, gaps=gaps, gaps_total=500))
    assert certificate.verified(msgspec.json.encode(many), SIGNER.verifier)[0].gaps_total == 500
