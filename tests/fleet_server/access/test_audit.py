"""An entry has one form, and bounds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.access import audit
from fleet_server.access.audit import AuditError, Draft, Head, Phase
from fleet_server.access.refusals import (
    ASKED_MAX,
    MINUTE_MS,
    OTHERS,
    READ_REFUSED,
    REFUSED,
    SOURCES_MAX,
    RefusalTally,
)
from tests.fleet_server.access.drafts import LOG, draft

START = Head(LOG, 0, audit.GENESIS)


def test_the_bytes_of_an_entry() -> None:
    raw, head = audit.entered(draft(7), START)
    assert raw == (
        b'{"action":"device.register"'
        b',"actor":"token"'
        b',"at_ms":1767254400007'
        b',"body_sha256":""'
        b',"count":1'
        b',"data":{}'
        b',"index":0'
        b',"log":1767254400000'
        b',"outcome":"200"'
        b',"phase":"fact"'
        b',"prev":"0000000000000000000000000000000000000000000000000000000000000000"'
        b',"request":""'
        b',"source":"127.0.0.1"'
        b',"subject":"car-7"'
        b',"v":1}'
    )
    assert head == Head(LOG, 1, "578ae2e929527aae44296dd3fbeae094d131f68de452e4b2d8dd1bcfd3658e6e")


@given(
    st.builds(
        Draft,
        phase=st.sampled_from(Phase),
        at_ms=st.integers(0, audit.INDEX_MAX),
        actor=st.text().map(audit.bounded),
        source=st.text().map(audit.bounded),
        action=st.sampled_from(["rebuild", "device.register"]),
        subject=st.text(st.characters(), max_size=400).map(audit.bounded),
        data=st.dictionaries(st.text(max_size=9).map(audit.bounded), st.text().map(audit.bounded), max_size=3),
    )
)
def test_what_was_entered_is_read_again(drafted: Draft) -> None:
    raw, _ = audit.entered(drafted, START)
    entry = audit.read(raw)
    assert {name: getattr(entry, name) for name in drafted.__struct_fields__} == msgspec.structs.asdict(drafted)


def test_text_of_any_kind_fits() -> None:
    for text in ("\ud800", "\x00\x1b[31m", "é" * 1_000, ""):
        assert len(audit.bounded(text)) <= audit.TEXT_CHARS_MAX
        audit.entered(msgspec.structs.replace(draft(), subject=audit.bounded(text)), START)


@pytest.mark.parametrize(
    "change",
    [{"subject": "x" * 257}, {"action": "Not A Name"}, {"body_sha256": "secret"}, {"at_ms": -1}, {"count": -1}],
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AuditError):
        audit.entered(msgspec.structs.replace(draft(), **change), START)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"action"', b'{ "action"'),
        (b'"count":1', b'"count":1.0'),
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v":1,"x":1'),
        (b'"data":{},', b""),
        (b'"actor":"token"', b'"actor":"\\u0074oken"'),
        (b"}", b""),
    ],
)
def test_bytes_that_are_not_the_form_are_refused(old: bytes, new: bytes) -> None:
    raw, _ = audit.entered(draft(), START)
    with pytest.raises(AuditError):
        audit.read(raw.replace(old, new))


def test_strangers_are_one_entry_a_source_and_minute() -> None:
    tally, begin = RefusalTally(), 20 * MINUTE_MS
    assert tally.due(now_ms=begin) == []
    for number in range(5):
        assert tally.note("10.0.0.7", now_ms=begin + number) == []
    assert tally.note("10.0.0.8", now_ms=begin + 9) == []
    over = tally.note("10.0.0.7", now_ms=begin + MINUTE_MS)
    assert [(each.source, each.count, each.at_ms, each.action) for each in over] == [
        ("10.0.0.7", 5, begin, "auth.refused"),
        ("10.0.0.8", 1, begin, "auth.refused"),
    ]
    assert [each.count for each in tally.due(now_ms=begin + MINUTE_MS, closing=True)] == [1]
    assert tally.due(now_ms=begin + 2 * MINUTE_MS) == []


def test_many_strangers_are_counted_together() -> None:
    tally = RefusalTally()
    tally.due(now_ms=MINUTE_MS)
    for number in range(SOURCES_MAX + 50):
        tally.note(f"10.0.{number // 256}.{number % 256}", now_ms=MINUTE_MS)
    over = tally.due(now_ms=MINUTE_MS, closing=True)
    assert len(over) == SOURCES_MAX + 1
    assert {each.source: each.count for each in over}[OTHERS] == 50


def test_who_reads_what_they_may_not_is_named_once_a_minute_with_what_it_was() -> None:
    tally, routes = RefusalTally(), [f"GET /v1/{number}" for number in range(ASKED_MAX + 3)]
    tally.due(now_ms=MINUTE_MS)
    for route in [*routes, *routes]:
        assert tally.note("10.0.0.7", now_ms=MINUTE_MS, actor="li", asked=route) == []
    tally.note("10.0.0.7", now_ms=MINUTE_MS)
    stranger, known = tally.due(now_ms=2 * MINUTE_MS)
    assert (stranger.actor, stranger.action, stranger.outcome, stranger.count) == ("", REFUSED, "401", 1)
    assert (known.actor, known.action, known.outcome) == ("li", READ_REFUSED, "403")
    assert (known.count, known.subject) == (2 * len(routes), ", ".join(routes[:ASKED_MAX]))


def test_a_crowd_of_strangers_does_not_hide_who_is_known_nor_the_other_way_round() -> None:
    tally = RefusalTally()
    tally.due(now_ms=MINUTE_MS)
    for number in range(SOURCES_MAX + 1):
        tally.note(f"10.0.{number // 256}.{number % 256}", now_ms=MINUTE_MS)
        tally.note("10.0.0.7", now_ms=MINUTE_MS, actor=f"token-{number}", asked="GET /v1/audit")
    over = tally.due(now_ms=MINUTE_MS, closing=True)
    assert len(over) == 2 * (SOURCES_MAX + 1)
    assert [(each.actor, each.action, each.count) for each in over if each.source == OTHERS] == [
        ("", REFUSED, 1),
        (OTHERS, READ_REFUSED, 1),
    ]
