"""Assignments and readiness as the API takes and tells them."""

from typing import Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet_server.api import models
from fleet_server.api.times import TimeAt, TimeIn, TimeMs, rfc3339
from fleet_server.registry import assignments
from fleet_server.registry.assignments import BADGE_PATTERN, REASON_CHARS_MAX, Act, With
from fleet_server.registry.model import SLUG_PATTERN, TEXT_PATTERN
from fleet_server.registry.readiness import Answer, Outcome, Rule

Badge: TypeAlias = Annotated[str, Field(pattern=BADGE_PATTERN)]
Unit: TypeAlias = Annotated[str, Field(pattern=SLUG_PATTERN)]
Reason: TypeAlias = Annotated[str, Field(min_length=1, max_length=REASON_CHARS_MAX, pattern=TEXT_PATTERN)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _WhomIn(_In):
    officer: Badge | None = Field(None, description="A badge's id; never a name.", examples=["4711"])
    vehicle: Badge | None = Field(None, examples=["car-117"])
    shift: Badge | None = Field(None, examples=["early"])
    unit: Unit | None = Field(None, description="A duty unit.", examples=["unit-4"])

    @property
    def whom(self) -> With:
        """As the book has it."""
        return With(self.officer or "", self.vehicle or "", self.shift or "", self.unit or "")


class HandingIn(_WhomIn):
    """With whom a device is from now on, or from a moment that is past: an officer, a vehicle or a duty unit."""

    at: TimeIn | None = Field(None, description="Now, if not given.")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not (self.officer or self.vehicle or self.unit):
            raise ValueError("expected an officer, a vehicle or a unit")
        return self


class CheckOutIn(HandingIn):
    """The same, for a device that is with nobody."""

    override: Reason | None = Field(
        None,
        description="Why it is given out although it is not ready; kept with who says so.",
        examples=["the last"],
    )


class CheckInIn(_In):
    """From when on a device is with nobody."""

    at: TimeIn | None = Field(None, description="Now, if not given.")


class CorrectionIn(_WhomIn):
    """What is to be said instead, and why; what is left out stays as it was said."""

    reason: Reason
    begin: TimeIn | None = None
    end: TimeIn | None = None
    lasting: bool = Field(default=False, description="It has not ended.")
    withdraw: bool = Field(default=False, description="It never was; the rest stays as it was said.")

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.lasting and self.end is not None:
            raise ValueError("expected end or lasting, not both")
        return self


class Assignment(BaseModel):
    """A device was, or is, with an officer, a vehicle or a duty unit: `from_ms <= time < to_ms`."""

    assignment: str = Field(examples=["0f" * 8])
    device: str = Field(examples=["cam-7"])
    org: str | None = Field(description="Of the device when it was given out.", examples=["hq/station-7"])
    officer: str | None = Field(description="A badge's id.", examples=["4711"])
    vehicle: str | None = Field(examples=["car-117"])
    shift: str | None = Field(examples=["early"])
    unit: str | None = Field(examples=["unit-4"])
    from_ms: TimeMs
    from_at: TimeAt
    to_ms: TimeMs | None = Field(description="null: it lasts.")
    to_at: TimeAt
    withdrawn: bool = Field(description="It never was.")
    revision: int = Field(description="Its ETag.", examples=[1])
    act: Act = Field(description="What was said last.")
    reason: str | None = Field(description="Of a correction, or of giving out what was not ready.")
    unready: list[str] = Field(description="What was not ready then.", examples=[["battery"]])
    by: str = Field(description="Who said it.", examples=["person:a-meyer"])
    said_ms: TimeMs
    said_at: TimeAt

    @classmethod
    def of(cls, found: assignments.Assignment) -> "Assignment":
        """As the book has it."""
        names = ("assignment", "device", "from_ms", "to_ms", "withdrawn", "revision", "act", "by", "said_ms")
        same: dict[str, Any] = {name: getattr(found, name) for name in names}
        whom: dict[str, Any] = {name: value or None for name, value in found.whom._asdict().items()}
        return cls(
            **same,
            **whom,
            org=found.path or None,
            reason=found.reason or None,
            unready=list(found.unready),
            from_at=rfc3339(found.from_ms),
            to_at=rfc3339(found.to_ms),
            said_at=rfc3339(found.said_ms),
        )


class Assignments(BaseModel):
    """By begin; `next` is null on the last page."""

    assignments: list[Assignment]
    next: str | None = Field(description="The cursor of the next page.")


class AssignmentHistory(BaseModel):
    """All that was said of one assignment, oldest first; the last counts."""

    assignment: str = Field(examples=["0f" * 8])
    revisions: list[Assignment]


class ReadinessAnswer(BaseModel):
    """Of one rule of the device's class; what is not known is no."""

    rule: Rule
    outcome: Outcome
    expected: str = Field(examples=["at least 80 %"])
    got: str = Field(examples=["64 %"])

    @classmethod
    def of(cls, answer: Answer) -> "ReadinessAnswer":
        """As it was judged."""
        return cls(**answer._asdict())


class Readiness(BaseModel):
    """Whether a device is fit to be given out."""

    device: str = Field(examples=["cam-7"])
    ready: bool
    answers: list[ReadinessAnswer]

    @classmethod
    def of(cls, device: str, answers: list[Answer]) -> "Readiness":
        """As it was judged."""
        told: list[Any] = [ReadinessAnswer.of(each) for each in answers]
        return cls(device=device, ready=all(each.outcome is Outcome.OK for each in answers), answers=told)


class CheckedOut(BaseModel):
    """A device that was given out, or would be (`dry_run`); then `assignment` is null."""

    dry_run: bool
    readiness: Readiness
    assignment: Assignment | None


class OfficerReadings(BaseModel):
    """Readings of a device while one officer had it."""

    assignment: str = Field(examples=["0f" * 8])
    series: models.Series


class OfficerSeries(BaseModel):
    """Readings of one stream over the devices that an officer had, each cut by its assignment, by begin."""

    officer: str = Field(examples=["4711"])
    stream: str = Field(examples=["gnss"])
    held: list[OfficerReadings]
    next: str | None = Field(description="The cursor of the next page; a page may be empty and have one.")
