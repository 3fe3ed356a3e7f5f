"""What a stranger can prove of an export, and what not."""

import json
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.access import audit, export
from fleet_server.access.audit import Phase
from fleet_server.access.export import Claim, Finding, Result, Verdict, Witnessed
from fleet_server.access.notes import COSIGNATURE, Signer
from tests.fleet_server.access.drafts import LOG, SIGNER, chained, draft, exported, signed

WITNESS = Signer("witness.example/w1", bytes(range(1, 33)), COSIGNATURE)
KEY = SIGNER.verifier
ENTRIES = chained([draft(number) for number in range(23)])


def seen(entries: Sequence[bytes]) -> Witnessed:
    """What a witness has that looked when the log had so many entries."""
    return Witnessed((WITNESS.cosign(signed(entries), at_s=1_767_254_400),), WITNESS.verifier)


def failed(verdict: Verdict) -> dict[Claim, Finding]:
    return {finding.claim: finding for finding in verdict.findings if finding.result is Result.FAIL}


def edited(raw: bytes, **fields: object) -> bytes:
    """The entry with other contents, in the canonical form."""
    return json.dumps({**json.loads(raw), **fields}, sort_keys=True, separators=(",", ":")).encode()


def rechained(entries: Sequence[bytes], start: int) -> list[bytes]:
    """As a forger leaves them who can compute hashes: every entry from *start* on holds the one before."""
    made = list(entries[:start])
    for index in range(start, len(entries)):
        prev = audit.digest(made[-1]) if made else audit.GENESIS
        made.append(edited(entries[index], index=index, prev=prev))
    return made


def test_an_untouched_export_passes() -> None:
    for size in range(1, len(ENTRIES) + 1):
        verdict = export.verify(
            exported(ENTRIES[:size], signed(ENTRIES[:size])), key=KEY, witness=seen(ENTRIES[:size])
        )
        assert verdict.passed
        assert {finding.result for finding in verdict.findings} == {Result.PASS}
        assert (verdict.entries, verdict.unfinished) == (size, 0)


def test_a_part_of_a_log_passes_by_itself() -> None:
    note = signed(ENTRIES)
    for start in range(len(ENTRIES)):
        verdict = export.verify(
            exported(ENTRIES, note, from_index=start), key=KEY, witness=seen(ENTRIES[: start + 1])
        )
        assert verdict.passed, start
        assert verdict.entries == len(ENTRIES) - start


def test_without_a_key_or_a_witness_it_is_said_what_was_not_checked() -> None:
    verdict = export.verify(exported(ENTRIES, signed(ENTRIES)))
    assert [f.claim for f in verdict.findings if f.result is Result.SKIPPED] == [Claim.SIGNATURE, Claim.WITNESS]


@given(size=st.integers(1, len(ENTRIES)), data=st.data(), rechain=st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_edited_entry_is_found(size: int, data: st.DataObject, rechain: bool) -> None:
    at = data.draw(st.integers(0, size - 1))
    field, value = data.draw(
        st.sampled_from([("actor", "nobody"), ("subject", "car-99"), ("at_ms", LOG + 999), ("outcome", "500")])
    )
    wrong = list(ENTRIES[:size])
    wrong[at] = edited(wrong[at], **{field: value})
    found = failed(
        export.verify(exported(wrong if not rechain else rechained(wrong, at + 1), signed(ENTRIES[:size])))
    )
    assert Claim.TREE in found
    assert (Claim.CHAIN in found) == (not rechain and at < size - 1)
    if Claim.CHAIN in found:
        assert found[Claim.CHAIN].index == at + 1


@given(size=st.integers(2, len(ENTRIES)), data=st.data(), rechain=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_deleted_entry_is_found(size: int, data: st.DataObject, rechain: bool) -> None:
    at = data.draw(st.integers(0, size - 1))
    wrong = [*ENTRIES[:at], *ENTRIES[at + 1 : size]]
    found = failed(export.verify(exported(wrong if not rechain else rechained(wrong, at), signed(ENTRIES[:size]))))
    assert Claim.TREE in found
    if not rechain and at < size - 1:
        assert found[Claim.SEQUENCE].index == at
        assert found[Claim.CHAIN].index == at


@given(size=st.integers(1, len(ENTRIES)), data=st.data(), rechain=st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_inserted_entry_is_found(size: int, data: st.DataObject, rechain: bool) -> None:
    at = data.draw(st.integers(0, size))
    wrong = [*ENTRIES[:at], edited(ENTRIES[0], index=at, actor="nobody"), *ENTRIES[at:size]]
    found = failed(export.verify(exported(wrong if not rechain else rechained(wrong, at), signed(ENTRIES[:size]))))
    assert Claim.TREE in found
    if not rechain and at:
        assert found[Claim.CHAIN].index == at


@given(size=st.integers(2, len(ENTRIES)), data=st.data(), rechain=st.booleans())
@settings(max_examples=200, deadline=None)
def test_entries_in_another_order_are_found(size: int, data: st.DataObject, rechain: bool) -> None:
    one, other = sorted(data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True)))
    wrong = list(ENTRIES[:size])
    wrong[one], wrong[other] = wrong[other], wrong[one]
    found = failed(export.verify(exported(wrong if not rechain else rechained(wrong, one), signed(ENTRIES[:size]))))
    assert Claim.TREE in found
    if not rechain:
        assert found[Claim.SEQUENCE].index == one


@given(size=st.integers(2, len(ENTRIES)), data=st.data())
@settings(max_examples=100, deadline=None)
def test_entries_rolled_back_and_written_anew_are_found(size: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, size - 1))
    wrong = rechained([*ENTRIES[:at], *(edited(raw, actor="nobody") for raw in ENTRIES[at:size])], at)
    assert Claim.TREE in failed(export.verify(exported(wrong, signed(ENTRIES[:size])), key=KEY))
    # the operator's own key signs it, so that only the witness can tell
    own = exported(wrong, signed(wrong))
    assert export.verify(own, key=KEY).passed
    assert set(failed(export.verify(own, key=KEY, witness=seen(ENTRIES[:size])))) == {Claim.WITNESS}


@given(size=st.integers(2, len(ENTRIES)), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_log_cut_short_is_found_with_a_witness_and_only_with_one(size: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, size - 1))
    # every checkpoint that was ever signed is a good one
    short = exported(ENTRIES[:cut], signed(ENTRIES[:cut]))
    assert export.verify(short, key=KEY).passed
    found = failed(export.verify(short, key=KEY, witness=seen(ENTRIES[:size])))
    assert set(found) == {Claim.WITNESS}
    assert found[Claim.WITNESS].index == cut


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_file_with_any_byte_changed_does_not_pass(data: st.DataObject) -> None:
    whole = b"".join(exported(ENTRIES[:5], signed(ENTRIES[:5])))
    at = data.draw(st.integers(0, len(whole) - 2))  # the last line's end says nothing
    byte = data.draw(st.integers(0, 255).filter(lambda new: new != whole[at]))
    wrong = whole[:at] + bytes([byte]) + whole[at + 1 :]
    verdict = export.verify(wrong.splitlines(keepends=True), key=KEY, witness=seen(ENTRIES[:5]))
    assert not verdict.passed


def test_a_file_cut_anywhere_does_not_pass() -> None:
    whole = b"".join(exported(ENTRIES[:3], signed(ENTRIES[:3])))
    for at in range(len(whole) - 1):
        assert not export.verify(whole[:at].splitlines(keepends=True), key=KEY).passed, at


def test_another_s_signature_is_found() -> None:
    other = Signer(SIGNER.name, bytes(32))
    found = failed(export.verify(exported(ENTRIES, signed(ENTRIES, signer=other)), key=KEY))
    assert set(found) == {Claim.SIGNATURE}


def test_a_witness_s_state_that_was_changed_is_found() -> None:
    state = Witnessed((seen(ENTRIES).seen[0].replace("\n23\n", "\n22\n"),), WITNESS.verifier)
    assert set(failed(export.verify(exported(ENTRIES, signed(ENTRIES)), witness=state))) == {Claim.WITNESS}


def test_a_part_that_begins_behind_what_the_witness_saw_proves_nothing_of_it() -> None:
    part = exported(ENTRIES, signed(ENTRIES), from_index=10)
    assert set(failed(export.verify(part, key=KEY, witness=seen(ENTRIES[:9])))) == {Claim.WITNESS}


def test_intents_without_an_outcome_are_counted() -> None:
    entries = chained(
        [
            draft(0, phase=Phase.INTENT, request="a"),
            draft(1, phase=Phase.INTENT, request="b"),
            draft(2, phase=Phase.OUTCOME, request="b"),
        ]
    )
    assert export.verify(exported(entries, signed(entries))).unfinished == 1


def test_lines_and_files_have_bounds() -> None:
    long = b'{"action":"' + b"x" * export.LINE_BYTES_MAX + b'"}\n'
    lines = exported(ENTRIES[:2], signed(ENTRIES[:2]))
    assert Claim.FORM in failed(export.verify([*lines[:2], long, *lines[2:]]))
