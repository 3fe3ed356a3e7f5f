"""Evidence as the API tells it."""

from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from broker_config.device_classes import FileKind
from fleet_server.access import audit
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.evidence import retention
from fleet_server.evidence.custody import NOTE_CHARS_MAX, Entered
from fleet_server.evidence.pieces import CLASSES_MAX, Damage, Hold, HolderBy, Piece, State
from fleet_server.evidence.retention import KEEP_D_MAX, Cause, Change, Deletion, Due, Rules
from fleet_server.evidence.store import Effect, Effects
from fleet_server.registry.model import SLUG_PATTERN, TEXT_PATTERN

CLASS_PATTERN: Final = r"^[a-z][a-z0-9_]{0,31}$"

Reason: TypeAlias = Annotated[
    str,
    Field(
        min_length=1,
        max_length=NOTE_CHARS_MAX,
        pattern=TEXT_PATTERN,
        description="Why; kept beside the log, which has a salted hash of it.",
        examples=["order 12 of the court"],
    ),
]
HoldName: TypeAlias = Annotated[
    str, Field(pattern=SLUG_PATTERN, description="Such as a case's number.", examples=["case-2026-117"])
]
ClassNames: TypeAlias = Annotated[
    list[Annotated[str, Field(pattern=CLASS_PATTERN, examples=["traffic_stop"])]], Field(max_length=CLASSES_MAX)
]


class EvidencePiece(BaseModel):
    """A file that a device made, and what became of it. Its first part are the device's own words, signed."""

    piece: str = Field(description="The upload's id.", examples=["0f" * 16])
    device: str = Field(examples=["cam-7"])
    device_class: str = Field(examples=["body_camera"])
    org: str | None = Field(description="The node's path as at arrival; null: no place.", examples=["hq/station-7"])
    file_class: str = Field(description="A folder of the device class.", examples=["recordings"])
    kind: FileKind | None = Field(description="null: the device's class is not known, or has no such folder.")
    name: str = Field(examples=["segment-1.mp4"])
    media_type: str = Field(examples=["video/mp4"])
    size: int = Field(examples=[1048576])
    sha256: str = Field(examples=["0f" * 32])
    recording: str | None = Field(description="null: it stands alone.", examples=["r-20260101-0800"])
    segment: int | None = Field(description="Its place in the recording, from 1.", examples=[1])
    last: bool = Field(description="The recording was closed with it.")
    begin_ms: TimeMs
    begin_at: TimeAt
    begin_unc_ms: int = Field(description="How far the device's clock may have been off.", examples=[40])
    end_ms: TimeMs
    end_at: TimeAt
    end_unc_ms: int = Field(examples=[40])
    clock: str = Field(description="Who set the device's clock.", examples=["ntp"])
    holder: str | None = Field(
        description="Who had the device when it began: as it knew, or else by assignment.", examples=["4711"]
    )
    holder_by: HolderBy | None = Field(description="Who says so; only `manifest` is signed by the device.")
    assigned: str | None = Field(
        description="Who had the device then, by assignment, whatever the device says.", examples=["4711"]
    )
    journal_life: str = Field(examples=["9f0c2b1a77d3e458"])
    journal_first: int = Field(description="Batches of the device's journal that tell of it.", examples=[4])
    journal_last: int = Field(examples=[5])
    via: str = Field(examples=["mqtt"])
    received_ms: TimeMs = Field(description="By the server's clock, once it was read again.")
    received_at: TimeAt
    state: State
    damage: Damage = Field(description="What the last scrub found; empty: nothing.")
    classes: list[str] = Field(description="Empty: unclassified, kept for ever.", examples=[["traffic_stop"]])
    holds: list[str] = Field(description="What keeps it whatever its retention is.", examples=[["case-2026-117"]])
    due_ms: TimeMs | None = Field(description="When its retention is over; null: never.")
    due_at: TimeAt
    retention: str = Field(description="What says so.", examples=["traffic_stop: 365 d"])
    log: int = Field(description="The audit log that has its verification.", examples=[1767254400000])
    entry: int = Field(examples=[41])

    @classmethod
    def of(cls, piece: Piece, rules: Rules) -> "EvidencePiece":
        """As it is kept."""
        found = retention.due(piece, rules) if piece.state is State.KEPT else Due(None, "deleted")
        same = {name: getattr(piece, name) for name in cls.model_fields if name in Piece.__slots__}
        told = {
            "org": piece.path or None,
            "recording": piece.recording or None,
            "segment": piece.segment or None,
            "holder": piece.holder or piece.assigned or None,
            "holder_by": piece.holder_by,
            "assigned": piece.assigned or None,
            "begin_at": rfc3339(piece.begin_ms),
            "end_at": rfc3339(piece.end_ms),
            "received_at": rfc3339(piece.received_ms),
            "due_ms": found.at_ms,
            "due_at": rfc3339(found.at_ms),
            "retention": found.why,
        }
        return cls(**{**same, **told})


class EvidencePieceSigned(EvidencePiece):
    """The same with what the device signed."""

    manifest: str = Field(description="The DSSE envelope, JSON.")
    certificate: str = Field(description="Of the key that signed, PEM.")

    @classmethod
    def of(cls, piece: Piece, rules: Rules) -> "EvidencePieceSigned":
        """As it is kept."""
        plain = EvidencePiece.of(piece, rules).model_dump()
        return cls(**plain, manifest=piece.envelope.decode(), certificate=piece.certificate)


class EvidencePieces(BaseModel):
    """Pieces in the order of their arrival; `next` is null on the last page."""

    pieces: list[EvidencePiece]
    next: str | None = Field(description="The cursor of the next page.")


class CustodyEvent(BaseModel):
    """Something happened to it: an entry of the audit log."""

    number: int = Field(description="From 0, without holes.", examples=[2])
    action: str = Field(examples=["evidence.held"])
    actor: str = Field(examples=["person:a-meyer"])
    at_ms: TimeMs
    at: TimeAt
    data: dict[str, str] = Field(examples=[{"hold": "case-2026-117"}])
    note: str | None = Field(description="What was written; null: nothing, or it was erased.")
    salt: str = Field(description="`note_sha256` of `data` is SHA-256 over it, NUL and the note.", examples=[""])
    log: int = Field(examples=[1767254400000])
    entry: int = Field(examples=[42])
    raw: str = Field(description="The entry's canonical bytes, which is what the log's tree covers.")

    @classmethod
    def of(cls, entered: Entered) -> "CustodyEvent":
        """As the log has it."""
        entry = audit.read(entered.raw)
        return cls(
            number=entered.number,
            action=entry.action,
            actor=entry.actor,
            at_ms=entry.at_ms,
            at=rfc3339(entry.at_ms),
            data=entry.data,
            note=entered.note,
            salt=entered.salt,
            log=entered.log,
            entry=entered.entry,
            raw=entered.raw.decode(),
        )


class CustodyEvents(BaseModel):
    """Events by number; `next` is null on the last page."""

    events: list[CustodyEvent]
    next: str | None = Field(description="The cursor of the next page.")


class ClassesIn(BaseModel):
    """Classes to give a piece, and to take away."""

    model_config = ConfigDict(extra="forbid")

    add: ClassNames = []
    remove: ClassNames = []


class HoldIn(BaseModel):
    """A hold and why."""

    model_config = ConfigDict(extra="forbid")

    hold: HoldName
    reason: Reason


class ReasonIn(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class NotesErased(BaseModel):
    """How many there were."""

    notes: int = Field(examples=[2])


class EvidenceHold(BaseModel):
    """One piece under one hold."""

    hold: str = Field(examples=["case-2026-117"])
    piece: str = Field(examples=["0f" * 16])
    reason: str
    placed_by: str = Field(examples=["person:a-meyer"])
    placed_ms: TimeMs
    placed_at: TimeAt
    released_by: str | None
    released_ms: TimeMs | None
    released_at: TimeAt

    @classmethod
    def of(cls, hold: Hold) -> "EvidenceHold":
        """As it is kept."""
        times: dict[str, Any] = {"placed_at": rfc3339(hold.placed_ms), "released_at": rfc3339(hold.released_ms)}
        return cls(**hold._asdict(), **times)


class EvidenceHolds(BaseModel):
    """By hold, then by piece; `next` is null on the last page."""

    holds: list[EvidenceHold]
    next: str | None = Field(description="The cursor of the next page.")


class EvidenceDeletion(BaseModel):
    """A deletion: asked, agreed to, done."""

    deletion: str = Field(examples=["0f" * 8])
    piece: str = Field(examples=["0f" * 16])
    device: str = Field(examples=["cam-7"])
    org: str | None = Field(examples=["hq/station-7"])
    size: int = Field(examples=[1048576])
    cause: Cause
    reason: str
    asked_by: str = Field(examples=["person:a-meyer"])
    asked_ms: TimeMs
    asked_at: TimeAt
    not_before_ms: TimeMs = Field(description="It is not done earlier.")
    not_before_at: TimeAt
    approved_by: str | None
    approved_ms: TimeMs | None
    approved_at: TimeAt
    withdrawn_by: str | None
    withdrawn_ms: TimeMs | None
    withdrawn_at: TimeAt
    done_ms: TimeMs | None
    done_at: TimeAt
    gone_ms: TimeMs | None = Field(description="When no copy was left, or only another piece's.")
    gone_at: TimeAt
    holds: list[str] = Field(description="What keeps the piece meanwhile.")

    @classmethod
    def of(cls, deletion: Deletion, piece: Piece, *, delay_ms: int) -> "EvidenceDeletion":
        """As it is kept."""
        same = {name: getattr(deletion, name) for name in Deletion.__slots__}
        not_before_ms = deletion.asked_ms + delay_ms
        times: dict[str, Any] = {
            f"{name}_at": rfc3339(same[f"{name}_ms"]) for name in ("asked", "approved", "withdrawn", "done", "gone")
        }
        return cls(
            **same,
            **times,
            device=piece.device,
            org=piece.path or None,
            size=piece.size,
            not_before_ms=not_before_ms,
            not_before_at=rfc3339(not_before_ms),
            holds=list(piece.holds),
        )


class EvidenceDeletions(BaseModel):
    """By when they were asked for; `next` is null on the last page."""

    deletions: list[EvidenceDeletion]
    next: str | None = Field(description="The cursor of the next page.")


class RetentionIn(BaseModel):
    """How long a class is to be kept."""

    model_config = ConfigDict(extra="forbid")

    keep_days: Annotated[int, Field(ge=1, le=KEEP_D_MAX, examples=[365])] | None = Field(
        description="null: for ever."
    )
    reason: Reason


class RetentionChange(BaseModel):
    """A change of a class's retention."""

    change: str = Field(examples=["0f" * 8])
    evidence_class: str = Field(examples=["traffic_stop"])
    keep_days: int | None = Field(description="null: for ever.", examples=[365])
    reason: str
    proposed_by: str = Field(examples=["person:a-meyer"])
    proposed_ms: TimeMs
    proposed_at: TimeAt
    approved_by: str | None
    approved_ms: TimeMs | None
    approved_at: TimeAt
    effective_ms: TimeMs | None = Field(description="From when it counts; null: nobody has agreed.")
    effective_at: TimeAt
    withdrawn_ms: TimeMs | None
    withdrawn_at: TimeAt

    @classmethod
    def of(cls, change: Change) -> "RetentionChange":
        """As it is kept."""
        same = {name: getattr(change, name) for name in Change.__slots__ if name != "keep_d"}
        times: dict[str, Any] = {
            f"{name}_at": rfc3339(same[f"{name}_ms"]) for name in ("proposed", "approved", "effective", "withdrawn")
        }
        return cls(**same, **times, keep_days=change.keep_d)


class RetentionRule(BaseModel):
    """What counts now."""

    evidence_class: str = Field(examples=["traffic_stop"])
    keep_days: int | None = Field(description="null: for ever.", examples=[365])


class RetentionState(BaseModel):
    """What counts now, and every change that was ever proposed."""

    rules: list[RetentionRule]
    recordings_floor_days: int = Field(description="Recordings are kept so long whatever is set.", examples=[184])
    changes: list[RetentionChange]


class RetentionEffect(BaseModel):
    """One piece and its two dates."""

    piece: str
    device: str
    before_ms: TimeMs | None = Field(description="null: never.")
    before_at: TimeAt
    after_ms: TimeMs | None = Field(description="null: never.")
    after_at: TimeAt
    holds: list[str]

    @classmethod
    def of(cls, effect: Effect) -> "RetentionEffect":
        """As it was found."""
        before, after = effect.before.at_ms, effect.after.at_ms
        return cls(
            piece=effect.piece.piece,
            device=effect.piece.device,
            before_ms=before,
            before_at=rfc3339(before),
            after_ms=after,
            after_at=rfc3339(after),
            holds=list(effect.piece.holds),
        )


class RetentionProposal(BaseModel):
    """What a change does; and the change, unless it was a dry run."""

    dry_run: bool
    change: RetentionChange | None
    pieces: int = Field(description="That have the class.", examples=[120])
    changed: int = Field(description="Whose date it moves.", examples=[120])
    due_now: int = Field(description="Whose retention would be over now.", examples=[7])
    held: int = Field(description="Of those: what holds keep.", examples=[1])
    first: list[RetentionEffect] = Field(description="Some of the changed.")

    @classmethod
    def of(cls, effects: Effects, change: Change | None) -> "RetentionProposal":
        """As it was found."""
        return cls(
            dry_run=change is None,
            change=None if change is None else RetentionChange.of(change),
            pieces=effects.pieces,
            changed=effects.changed,
            due_now=effects.due_now,
            held=effects.held,
            first=[RetentionEffect.of(each) for each in effects.first],
        )
