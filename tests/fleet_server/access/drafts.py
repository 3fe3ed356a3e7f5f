"""Entries, a log of them, and an export, without a server."""

from collections.abc import Sequence
from typing import Final

from broker_config import merkle
from broker_config.ids import SiteId
from fleet_server.access import audit, export, tlog
from fleet_server.access.audit import Draft, Head, Phase
from fleet_server.access.notes import Checkpoint, Signer

SITE: Final = SiteId("5a" * 32)
LOG: Final = 1_767_254_400_000
SIGNER: Final = Signer(audit.key_name(SITE), bytes(range(32)))


def draft(number: int = 0, *, phase: Phase = Phase.FACT, request: str = "", action: str = "device.register") -> Draft:
    return Draft(
        phase=phase,
        at_ms=LOG + number,
        actor="token",
        source="127.0.0.1",
        action=action,
        subject=f"car-{number}",
        outcome="200",
        request=request,
    )


def chained(drafts: Sequence[Draft]) -> list[bytes]:
    """As a log keeps them."""
    head, entries = Head(LOG, 0, audit.GENESIS), []
    for each in drafts:
        raw, head = audit.entered(each, head)
        entries.append(raw)
    return entries


def signed(entries: Sequence[bytes], *, signer: Signer = SIGNER) -> str:
    frontier = tlog.Frontier()
    for raw in entries:
        frontier.append(merkle.leaf_hash(raw))
    return signer.sign(Checkpoint(audit.origin(SITE, LOG), frontier.size, frontier.root()).text())


def exported(entries: Sequence[bytes], note: str, *, from_index: int = 0) -> list[bytes]:
    """The file's lines; *entries* are all of the log."""
    frontier = tlog.Frontier()
    for raw in entries[:from_index]:
        frontier.append(merkle.leaf_hash(raw))
    prev = audit.digest(entries[from_index - 1]) if from_index else audit.GENESIS
    head = export.header_line(Head(LOG, from_index, prev), frontier.hashes())
    return [head, *(raw + b"\n" for raw in entries[from_index:]), export.trailer_line(note)]
