"""``/v1/audit``: who did what, and the proofs that nobody changed it afterwards."""

import base64
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple, TypeAlias

from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from broker_config.text import shown
from fleet_server.access import audit, export, notes, tlog
from fleet_server.access.audit import AuditError, Wanted
from fleet_server.access.audit_store import AuditStore
from fleet_server.access.auditor import Auditor
from fleet_server.access.notes import Checkpoint
from fleet_server.access.tlog import Leaves
from fleet_server.api import pages, times
from fleet_server.api.devices import From, To
from fleet_server.api.problems import ProblemError, bad_request, not_found, responses
from fleet_server.api.routes import Routes

ENTRIES_A_READ: Final = 200
"""Of an export, in memory at once."""

Name: TypeAlias = Annotated[str | None, Query(max_length=audit.TEXT_CHARS_MAX)]
Index: TypeAlias = Annotated[int, Query(ge=0, le=audit.INDEX_MAX)]
Size: TypeAlias = Annotated[int, Query(ge=1, le=audit.INDEX_MAX)]
Log: TypeAlias = Annotated[
    int | None, Query(ge=0, le=audit.INDEX_MAX, description="A log's number; the newest if not given.")
]


class NoteResponse(Response):
    """A signed note."""

    media_type = "text/plain"


class NdjsonResponse(StreamingResponse):
    """A line of JSON for each thing."""

    media_type = export.MEDIA_TYPE


class AuditEntry(BaseModel):
    """Somebody did something. A change is two entries with one `request`: its intent, and its outcome."""

    log: int = Field(description="The log it is in: when that began.", examples=[1767254400000])
    index: int = Field(description="Its place, from 0.", examples=[41])
    at_ms: times.TimeMs
    at: times.TimeAt
    phase: audit.Phase
    actor: str = Field(description="Empty: nobody that is known.", examples=["token"])
    source: str = Field(description="The address it came from.", examples=["127.0.0.1"])
    action: str = Field(examples=["device.register"])
    subject: str = Field(examples=["car-7"])
    outcome: str = Field(description="Of an outcome, the HTTP status.", examples=["200"])
    request: str = Field(description="`X-Request-Id` of the answer.", examples=["a0b1c2d3e4f50617"])
    body_sha256: str = Field(description="Of the request's body; empty: it had none.", examples=[""])
    count: int = Field(description="How many alike are meant.", examples=[1])
    data: dict[str, str]
    prev: str = Field(description="SHA-256 of the entry before.", examples=[audit.GENESIS])

    @classmethod
    def of(cls, raw: bytes) -> "AuditEntry":
        """As it is kept."""
        try:
            entry = audit.read(raw)
        except AuditError as error:
            raise _unreadable(error) from error
        fields = {name: getattr(entry, name) for name in cls.model_fields if name != "at"}
        return cls(**fields, at=times.rfc3339(entry.at_ms))


class AuditPage(BaseModel):
    """Entries, the newest first; `next` is null on the last page."""

    entries: list[AuditEntry]
    next: str | None = Field(description="The cursor of the next page.")


class InclusionProof(BaseModel):
    """That an entry is in the log of the checkpoint (RFC 6962); hashes in base64."""

    index: int = Field(examples=[41])
    leaf: str = Field(description="The entry's hash.")
    hashes: list[str]
    checkpoint: str = Field(description="A signed note.")


class ConsistencyProof(BaseModel):
    """That a log of `new_size` entries begins with the one of `old_size` (RFC 6962); hashes in base64."""

    log: int = Field(examples=[1767254400000])
    old_size: int = Field(examples=[41])
    new_size: int = Field(examples=[48])
    hashes: list[str]


class _Place(NamedTuple):
    log: pages.RowNumber
    number: pages.RowNumber


class Signed(NamedTuple):
    """A log's last checkpoint."""

    log: int
    note: str
    checkpoint: Checkpoint


def routes(auditor: Auditor) -> Routes:
    """The routes of the audit log. Every one blocks on its auditor.store, so the framework runs it in a thread."""
    router = Routes(tags=["audit"])

    @router.get("/v1/audit", summary="Who did what")
    def entries(
        actor: Name = None,
        action: Name = None,
        subject: Name = None,
        from_: From = None,
        to: To = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> AuditPage:
        """The newest first, of all time if none is given. Reading is recorded too, so the newest may be this."""
        before = None if cursor is None else pages.read_cursor(cursor, _Place, _Place(0, 0))
        wanted = Wanted(actor, action, subject, from_, to)
        page, follows = pages.cut(auditor.store.newest(wanted, before=before, rows_max=limit + 1), limit)
        listed = [AuditEntry.of(raw) for raw in page]
        return AuditPage(
            entries=listed, next=pages.write_cursor((listed[-1].log, listed[-1].index)) if follows else None
        )

    @router.get(
        "/v1/audit/checkpoint",
        summary="What was signed last",
        response_class=NoteResponse,
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def checkpoint(log: Log = None) -> NoteResponse:
        """A checkpoint (C2SP tlog-checkpoint): origin, size and root, and the server's signature."""
        return NoteResponse(signed(auditor.store, log).note)

    @router.get(
        "/v1/audit/export",
        summary="The log, for a verifier",
        response_class=NdjsonResponse,
        responses={**responses(HTTPStatus.NOT_FOUND), 200: {"content": {export.MEDIA_TYPE: {}}}},
    )
    def export_(from_index: Index = 0, log: Log = None) -> NdjsonResponse:
        """A header, the entries from `from_index` on, and a checkpoint that covers them, a line each: what
        `fieldfleet audit verify` reads. A log that is not what was signed is exported as it is, to its end.
        """
        auditor.sign()
        last = signed(auditor.store, log)
        broken = auditor.facts().fault and auditor.facts().log == last.log
        size = auditor.store.end_of(last.log).size if broken else last.checkpoint.size
        if from_index > size:
            raise bad_request("query.from_index", expected=f"at most {size}, what is signed", got=str(from_index))
        return NdjsonResponse(_export(auditor.store, last, from_index, size))

    @router.get(
        "/v1/audit/proof",
        summary="That an entry is in the log",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def proof(index: Index, log: Log = None) -> InclusionProof:
        """Under the last checkpoint."""
        last = signed(auditor.store, log)
        size = last.checkpoint.size
        if index >= size:
            raise not_found("entry", f"{index} is not among the {size} that are signed", expected="a smaller index")
        leaf, *hashes = auditor.store.hashes(last.log, [Leaves(index, index + 1), *tlog.inclusion(index, size)])
        return InclusionProof(index=index, leaf=_b64(leaf), hashes=[_b64(h) for h in hashes], checkpoint=last.note)

    @router.get(
        "/v1/audit/consistency",
        summary="That nothing but new entries came",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def consistency(old_size: Size, new_size: Size, log: Log = None) -> ConsistencyProof:
        """What a witness asks for, between what it saw and what it sees."""
        last = signed(auditor.store, log)
        if not old_size <= new_size <= last.checkpoint.size:
            expected = f"old_size <= new_size <= {last.checkpoint.size}, what is signed"
            raise bad_request("query.new_size", expected=expected, got=f"{old_size} and {new_size}")
        hashes = auditor.store.hashes(last.log, tlog.consistency(old_size, new_size))
        return ConsistencyProof(
            log=last.log, old_size=old_size, new_size=new_size, hashes=[_b64(each) for each in hashes]
        )

    return router


def signed(store: AuditStore, log: int | None) -> Signed:
    """Of the newest log if None. Raises ProblemError."""
    head = store.head() if log is None else store.end_of(log)
    note = None if head is None else store.checkpoint(head.log)
    if head is None or note is None:
        raise not_found("checkpoint", "nothing of that log is signed", expected="a log of /v1/audit")
    return Signed(head.log, note, notes.checkpoint_of(note))


def _export(store: AuditStore, last: Signed, from_index: int, size: int) -> Iterator[bytes]:
    head = store.head_at(last.log, from_index)
    yield export.header_line(head, store.subtrees(last.log, from_index))
    at = from_index
    while at < size:
        rows = store.entries(last.log, from_index=at, rows_max=min(ENTRIES_A_READ, size - at))
        if not rows:
            break
        yield b"".join(raw + b"\n" for raw in rows)
        at += len(rows)
    yield export.trailer_line(last.note)


def _unreadable(error: AuditError) -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "audit-broken",
        "The audit log was changed",
        f"an entry cannot be read: {shown(error)}",
        expected="an export, and `fieldfleet audit verify` of it",
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
