"""What people read of a bundle: a text and a page that say the same, and how to have it checked. Values only.

Rule: it proves nothing and says so; everything from elsewhere is shown as one printable line, and as text.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Final, NamedTuple

from broker_config.text import shown
from fleet_server.access.audit import Entry
from fleet_server.evidence.pieces import Piece

README: Final = """\
A bundle of evidence, exported from fieldfleet.

report.html or report.txt tells what is in it; pieces/*/original are the files. What proves that they are unaltered,
from which device they are, that they are complete and since when they are kept is beside them.

To have it checked, get verify.py and these keys from somebody else than whoever gave you this file: the devices' root
certificate, the key of the log, the key of its witness, and the root of its time stamps. Then, on any computer:

    python verify.py BUNDLE.zip --root device-root.crt --log-key audit.pub --witness witness.pub --tsa-ca tsa-root.crt
"""
NO_PROOF: Final = (
    "This page is what the server says. It proves nothing by itself: verify.py looks at the proofs in the bundle."
)


class Told(NamedTuple):
    """A piece and what happened to it before the export."""

    piece: Piece
    events: Sequence[Entry]


class Section(NamedTuple):
    """One recording, or a file by itself."""

    heading: str
    files: Sequence[Sequence[str]]
    events: Sequence[Sequence[str]]


STYLE: Final = (
    "body{font-family:sans-serif}table{border-collapse:collapse}td,th{border:1px solid;padding:.3em;font-size:.8em}"
)
FILES: Final = ("segment", "file", "bytes", "begin", "end", "clock", "SHA-256", "upload")
EVENTS: Final = ("time", "what", "by", "upload")


def texts(told: Sequence[Told], *, export: str, by: str, at_ms: int) -> Mapping[str, str]:
    """The members for people, by name."""
    title = f"Export {export} of {len(told)} file(s), by {shown(by)}, {utc(at_ms)}"
    sections = [
        _section(list(some)) for _, some in groupby(sorted(told, key=_place), key=lambda one: _place(one)[:2])
    ]
    return {"README.txt": README, "report.txt": _text(title, sections), "report.html": _page(title, sections)}


def utc(at_ms: int) -> str:
    """A time for people; a clock may say anything."""
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms since 1970"


def _place(told: Told) -> tuple[str, str, int, str]:
    piece = told.piece
    return piece.device, piece.recording or f"file {piece.piece}", piece.segment, piece.piece


def _section(some: Sequence[Told]) -> Section:
    first = some[0].piece
    what = f"Recording {first.recording}" if first.recording else "A file by itself"
    holder = f", given to {shown(first.holder)}" if first.holder else ""
    return Section(
        f"{what} of device {first.device}{holder}",
        [_file(each.piece) for each in some],
        [
            (utc(entry.at_ms), shown(entry.action), shown(entry.actor), each.piece.piece)
            for each in some
            for entry in each.events
        ],
    )


def _file(piece: Piece) -> tuple[str, ...]:
    segment = f"{piece.segment}{' (last)' if piece.last else ''}" if piece.segment else "-"
    clock = f"{shown(piece.clock)}, +-{piece.end_unc_ms} ms"
    times = utc(piece.begin_ms), utc(piece.end_ms)
    return segment, shown(piece.name), str(piece.size), *times, clock, piece.sha256, piece.piece


def _text(title: str, sections: Sequence[Section]) -> str:
    lines = [title, "", NO_PROOF]
    for section in sections:
        lines += ["", section.heading]
        for row in section.files:
            lines += [f"  {name:<8} {value}" for name, value in zip(FILES, row, strict=True)] + [""]
        lines += ["  What happened:", *(f"  {'  '.join(row)}" for row in section.events)]
    return "\n".join(lines) + "\n"


def _page(title: str, sections: Sequence[Section]) -> str:
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(NO_PROOF)}</p>"]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.heading)}</h2>{_table(FILES, section.files)}")
        parts.append(f"<h3>What happened</h3>{_table(EVENTS, section.events)}")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
