"""Checkpoints get timestamps of a real authority, which a stranger checks with OpenSSL."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleet_server.access.auditor import Auditor
from fleet_server.access.timestamps import Stamper, TimestampError
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.timestamps import SqlTimestamps
from fleet_server.adapters.tsa import HttpAuthority
from tests.fleet_server.access.drafts import LOG, SIGNER, SITE, draft
from tests.tsa import Tsa, tsa, verified

pytestmark = pytest.mark.server("openssl")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tsa]:
    with tsa(tmp_path_factory.mktemp("tsa")) as running:
        yield running


@pytest.fixture
def auditor(engine: Engine) -> Auditor:
    database.migrate(engine)
    auditor = Auditor(SqlAudit(engine), SIGNER, SITE, now_ms=lambda: LOG)
    auditor.start()
    return auditor


def test_a_checkpoint_is_stamped_once_and_a_stranger_can_check_it(
    engine: Engine, auditor: Auditor, authority: Tsa
) -> None:
    kept = SqlTimestamps(engine)
    stamper = Stamper(auditor, kept, HttpAuthority(authority.url, roots_file=authority.root), now_ms=lambda: LOG + 5)
    asked = authority.asked
    assert stamper.look()
    assert stamper.look()
    assert authority.asked == asked + 1, "nothing new, nothing asked"
    auditor.record(draft(1))
    assert stamper.look()
    first, second = kept.all(LOG, from_size=0, rows_max=9)
    assert (first.size, second.size) == (2, 3)
    assert second.note == auditor.store.checkpoint(LOG)
    for each in (first, second):
        assert verified(authority, each.token, each.note.encode())
    assert not verified(authority, first.token, second.note.encode())
    assert kept.all(LOG, from_size=3, rows_max=9) == [second]


def turned(reply: bytes) -> bytes:
    """A bit of the signature, which is at the end."""
    return reply[:-1] + bytes([reply[-1] ^ 1])


@pytest.mark.parametrize(
    "spoil",
    [lambda _: b"", lambda reply: reply[:200], lambda _: b"<html>", turned, lambda _: bytes(70_000)],
)
def test_what_is_no_timestamp_is_not_kept(
    engine: Engine,
    auditor: Auditor,
    authority: Tsa,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[bytes], bytes],
) -> None:
    monkeypatch.setattr(authority, "answer", spoil)
    kept = SqlTimestamps(engine)
    stamper = Stamper(auditor, kept, HttpAuthority(authority.url, roots_file=authority.root), now_ms=lambda: LOG)
    assert not stamper.look()
    assert kept.all(LOG, from_size=0, rows_max=9) == []


def test_an_old_answer_is_known_for_one(authority: Tsa, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = HttpAuthority(authority.url)
    old = asking.stamp(b"a checkpoint")
    monkeypatch.setattr(authority, "answer", lambda _reply: old)
    with pytest.raises(TimestampError, match="another request"):
        asking.stamp(b"a checkpoint")


def test_an_authority_that_nobody_trusts_is_refused(authority: Tsa, tmp_path: Path) -> None:
    with tsa(tmp_path) as other, pytest.raises(TimestampError):
        HttpAuthority(authority.url, roots_file=other.root).stamp(b"a checkpoint")


def test_an_authority_that_is_away_is_no_timestamp() -> None:
    with pytest.raises(TimestampError, match=r"127\.0\.0\.1:9"):
        HttpAuthority("http://127.0.0.1:9/tsa").stamp(b"x")
