"""A happening as others read it: a CloudEvent (version 1.0, JSON, structured mode), and an event of the live feed."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from fleet_server.outbound.happenings import Happening, text

CONTENT_TYPE: Final = "application/cloudevents+json"
TYPE_PREFIX: Final = "io.fieldfleet."
SEQUENCE_DIGITS: Final = 20
"""So that sequences compare as texts, as CloudEvents' own extension has them."""
SITE_CHARS: Final = 16
"""Of the site's id, in a source: enough to tell sites apart."""
TRUNCATED: Final = "feed.truncated"
"""What is between is not there: it is not kept any more, or the database was restored from a backup."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def message_id(happening: Happening) -> str:
    """The same for every attempt, and another's if ids begin anew after a restore from a backup."""
    return f"hap_{happening.id}_{happening.news.at_ms}"


def source(site: str) -> str:
    """Who says it."""
    return f"urn:fieldfleet:site:{site[:SITE_CHARS]}"


def plain(happening: Happening) -> dict[str, object]:
    """A happening as JSON has it everywhere: in the feed, in lists and as a CloudEvent's data."""
    news = happening.news
    return {
        "id": happening.id,
        "time_ms": news.at_ms,
        "time_at": rfc3339(news.at_ms),
        "kind": news.kind.value,
        "severity": news.severity.value,
        "device": news.device,
        "device_class": news.device_class,
        "org": news.org,
        "text": text(news),
        "data": news.data,
    }


def cloud_event(happening: Happening, site: str) -> bytes:
    """The body of a webhook. ``sequence`` lets a receiver put its events in order."""
    news = happening.news
    event = {
        "specversion": "1.0",
        "id": message_id(happening),
        "source": source(site),
        "type": f"{TYPE_PREFIX}{news.kind}",
        "time": rfc3339(news.at_ms),
        "datacontenttype": "application/json",
        "sequence": f"{happening.id:0{SEQUENCE_DIGITS}d}",
        "severity": news.severity.value,
        "data": plain(happening),
    }
    subject = news.device or news.org
    return msgspec.json.encode(event | {"subject": subject} if subject else event)


def rfc3339(at_ms: int) -> str:
    """UTC, to the ms; the server's own clock always has a date."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def frame(happening: Happening) -> bytes:
    """An event of the live feed (Server-Sent Events); JSON has no line end in it."""
    return _frame(str(happening.id), happening.news.kind, plain(happening))


def truncated(after: int, kept_after: int) -> bytes:
    """Says to a reader that stood at *after* that it goes on behind *kept_after*."""
    return _frame(str(kept_after), TRUNCATED, {"after": after, "continues_after": kept_after})


def _frame(id_: str, event: str, data: object) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (id_.encode(), event.encode(), msgspec.json.encode(data))
