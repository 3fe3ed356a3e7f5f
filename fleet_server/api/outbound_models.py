"""What the API takes and gives of what the server tells by itself."""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.outbound import happenings, store, subscriptions
from fleet_server.outbound.happenings import Kind, Severity
from fleet_server.outbound.retries import State
from fleet_server.outbound.targets import URL_CHARS_MAX
from fleet_server.registry.model import NOTE_CHARS_MAX, PATH_PATTERN, TEXT_PATTERN

Url: TypeAlias = Annotated[
    str,
    Field(
        max_length=URL_CHARS_MAX,
        pattern=r"^[!-~]+$",
        description="https://, or http:// to a loopback address.",
        examples=["https://hooks.example.org/fieldfleet"],
    ),
]
Kinds: TypeAlias = Annotated[
    list[Kind],
    Field(max_length=len(Kind), description="Only these; all if empty.", examples=[["device.disconnected"]]),
]
Least: TypeAlias = Annotated[Severity, Field(description="Only of at least this severity.")]
Org: TypeAlias = Annotated[
    str | None,
    Field(pattern=PATH_PATTERN, description="Only of this place or below: its path.", examples=["hq/station-7"]),
]
Note: TypeAlias = Annotated[str, Field(max_length=NOTE_CHARS_MAX, pattern=TEXT_PATTERN, examples=["duty chat"])]


class Happening(BaseModel):
    """Something that happened. What is not about a device, or not about a place, is empty there."""

    id: int = Field(description="Grows in the order of the feed.", examples=[4711])
    time_ms: TimeMs
    time_at: TimeAt
    kind: Kind
    severity: Severity
    device: str = Field(examples=["car-7"])
    device_class: str = Field(examples=["in_car_terminal"])
    org: str = Field(description="The place's path, or `unassigned`.", examples=["hq/station-7"])
    text: str = Field(description="One line for people.", examples=["car-7 is not connected any more"])
    data: dict[str, str | int | bool | list[str]] = Field(description="By kind; flat.", examples=[{"count": 3}])

    @classmethod
    def of(cls, happening: happenings.Happening) -> "Happening":
        """As it is recorded."""
        news = happening.news
        return cls(
            id=happening.id,
            time_ms=news.at_ms,
            time_at=rfc3339(news.at_ms),
            kind=news.kind,
            severity=news.severity,
            device=news.device,
            device_class=news.device_class,
            org=news.org,
            text=happenings.text(news),
            data={name: list(value) if isinstance(value, tuple) else value for name, value in news.data.items()},
        )


class HappeningPage(BaseModel):
    """A page of happenings, the newest first."""

    happenings: list[Happening]
    next: str | None = Field(description="The cursor of the next page.")


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WebhookIn(_In):
    """A receiver, and what it is told of."""

    url: Url
    kinds: Kinds = []
    severity: Least = Severity.INFO
    org: Org = None
    note: Note = ""
    enabled: bool = True


class WebhookPatch(_In):
    """A merge patch (RFC 7396): what is left out stays, null is what it is without it."""

    url: Url | None = None
    kinds: Kinds | None = None
    severity: Least | None = None
    org: Org = None
    note: Note | None = None
    enabled: bool | None = None


class Webhook(BaseModel):
    """A receiver. Its secret is told once, when it is made."""

    id: str = Field(examples=["w3k9x2m7q4"])
    url: str
    kinds: list[Kind]
    severity: Severity
    org: str | None
    note: str
    enabled: bool
    disabled_why: str = Field(description="Empty if it is enabled.", examples=["the receiver answered 410"])
    created_ms: TimeMs
    created_at: TimeAt
    revision: int = Field(description="Its ETag.", examples=[3])

    @classmethod
    def of(cls, each: subscriptions.Subscription) -> "Webhook":
        """As it is kept, without its secret."""
        return cls.model_validate(_webhook(each))


class WebhookMade(Webhook):
    """A receiver with its secret, which is not told again."""

    secret: str = Field(description="Signs what is sent; a Standard Webhooks secret.", examples=["whsec_..."])

    @classmethod
    def with_secret(cls, each: subscriptions.Subscription) -> "WebhookMade":
        """As it is kept."""
        return cls.model_validate({**_webhook(each), "secret": each.secret})


def _webhook(each: subscriptions.Subscription) -> dict[str, object]:
    return {
        "id": each.id,
        "url": each.url,
        "kinds": sorted(each.choice.kinds),
        "severity": each.choice.severity,
        "org": each.choice.org or None,
        "note": each.note,
        "enabled": not each.disabled,
        "disabled_why": each.disabled,
        "created_ms": each.created_ms,
        "created_at": rfc3339(each.created_ms),
        "revision": each.revision,
    }


class WebhookPage(BaseModel):
    """A page of webhooks, by id."""

    webhooks: list[Webhook]
    next: str | None = Field(description="The cursor of the next page.")


class Delivery(BaseModel):
    """One happening's way to one webhook."""

    happening: int = Field(description="Its id.", examples=[4711])
    kind: Kind
    device: str = Field(examples=["car-7"])
    state: State
    attempts: int = Field(examples=[2])
    next_ms: TimeMs | None = Field(description="When it is tried next; null if it is not.")
    next_at: TimeAt
    status: int = Field(description="Of the last answer; 0 if there was none.", examples=[503])
    error: str = Field(description="Why it failed last.", examples=["ConnectError: All connection attempts failed"])
    changed_ms: TimeMs
    changed_at: TimeAt

    @classmethod
    def of(cls, each: store.Delivery) -> "Delivery":
        """As it is kept."""
        next_ms = each.next_ms if each.state is State.PENDING else None
        return cls(
            happening=each.happening,
            kind=each.kind,
            device=each.device,
            state=each.state,
            attempts=each.attempts,
            next_ms=next_ms,
            next_at=rfc3339(next_ms),
            status=each.status,
            error=each.error,
            changed_ms=each.changed_ms,
            changed_at=rfc3339(each.changed_ms),
        )


class DeliveryPage(BaseModel):
    """A page of deliveries, the newest happening first."""

    deliveries: list[Delivery]
    next: str | None = Field(description="The cursor of the next page.")
