"""Mail from happenings: one for all of a while, with a subject that says it and a table that people can read. Pure.

Nothing from outside becomes a header: the subject is made of counts, kinds and checked names, and a line end in a
header is refused by the standard library's policy as well.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from broker_config.text import shown
from fleet_server.outbound.events import SITE_CHARS, rfc3339
from fleet_server.outbound.happenings import SEVERITIES, SEVERITY, Happening, Severity, text

LETTER_HAPPENINGS_MAX: Final = 200
"""Told in one letter; what is beyond them goes in the next."""
SUBJECT_CHARS_MAX: Final = 150
LINE_CHARS_MAX: Final = 200
"""A subject fits into it: one that is folded is shown with a gap by some."""
POLICY: Final = SMTP.clone(max_line_length=LINE_CHARS_MAX)
PARTS_SHOWN_MAX: Final = 3


def letter(happenings: Sequence[Happening], *, site: str, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """The letter that tells of *happenings*, oldest first; the same ones make the same letter.

    Its ``Message-ID`` is theirs, so that a mailbox can know a letter that came twice.
    """
    assert happenings, "a letter of nothing"
    first, last = happenings[0], happenings[-1]
    message = EmailMessage(policy=POLICY)
    message["Subject"] = subject(happenings)
    message["From"] = Address(addr_spec=sender)
    message["To"] = [Address(addr_spec=each) for each in recipients]
    message["Date"] = format_datetime(datetime.fromtimestamp(last.news.at_ms / 1000, UTC))
    message["Message-ID"] = f"<hap.{first.id}.{last.id}.{last.news.at_ms}@{site[:SITE_CHARS]}.fieldfleet>"
    message["Auto-Submitted"] = "auto-generated"  # so that nobody's absence note is sent back
    if worst(happenings) is Severity.ALARM:
        message["Importance"] = "high"
    message.set_content(body(happenings))
    return message


def worst(happenings: Sequence[Happening]) -> Severity:
    """The highest severity among them."""
    return max((each.news.severity for each in happenings), key=SEVERITIES.index)


def subject(happenings: Sequence[Happening]) -> str:
    """What a phone shows: how bad, and what; one happening is told whole."""
    mark = f"[fieldfleet {worst(happenings)}]"
    if len(happenings) == 1:
        return shown(f"{mark} {text(happenings[0].news)}", SUBJECT_CHARS_MAX)
    counts = Counter(each.news.kind for each in happenings)
    # the worst first, then the most
    kinds = sorted(counts, key=lambda kind: (-SEVERITIES.index(SEVERITY[kind]), -counts[kind], kind))
    parts = [f"{counts[kind]} {kind}" for kind in kinds[:PARTS_SHOWN_MAX]]
    more = f" and {len(kinds) - PARTS_SHOWN_MAX} kinds more" if len(kinds) > PARTS_SHOWN_MAX else ""
    return shown(f"{mark} {', '.join(parts)}{more}", SUBJECT_CHARS_MAX)


def body(happenings: Sequence[Happening]) -> str:
    """A table that reads in any font that a mail is shown in."""
    rows = [
        (rfc3339(news.at_ms)[:19].replace("T", " "), news.severity.value, shown(news.org) or "-", text(news))
        for news in (each.news for each in happenings)
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    ]
    head = f"{len(rows)} happening{'s' if len(rows) > 1 else ''}, times in UTC:"
    return "\n".join([head, "", *lines, ""])
