"""Lists in pages: a bound on each, and a cursor that says where the next begins.

A cursor is opaque to clients: base64url of the JSON of the last entry's place in the list's order. It stays good
when entries come and go, because it names a place and not an offset.
"""

import base64
import binascii
import itertools
from collections.abc import Iterable
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from fastapi import Query

from broker_config import limits
from fleet_server.api.problems import bad_request

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
CURSOR_CHARS_MAX: Final = 512

RowNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=limits.SEQ_MAX)]
Place = TypeVar("Place")
Entry = TypeVar("Entry")

Limit: TypeAlias = Annotated[int, Query(ge=1, le=LIMIT_MAX, description=f"Entries a page, at most {LIMIT_MAX}.")]
Cursor: TypeAlias = Annotated[
    str | None,
    Query(
        max_length=CURSOR_CHARS_MAX,
        description="`next` of the page before; without it the list begins at its beginning.",
    ),
]


def write_cursor(place: object) -> str:
    """The cursor behind *place*: a number, a text, or a tuple of such."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode("ascii")


def read_cursor(cursor: str | None, kind: type[Place], start: Place) -> Place:
    """The place that :func:`write_cursor` wrote; *start* if there is no cursor.

    Raises:
        ProblemError: it is none of ours.
    """
    if cursor is None:
        return start
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise bad_request("query.cursor", expected="`next` of an answer of this list", got=cursor) from error


def cut(entries: Iterable[Entry], limit: int) -> tuple[list[Entry], bool]:
    """The first *limit* of *entries*, and whether more follow."""
    taken = list(itertools.islice(entries, limit + 1))
    return taken[:limit], len(taken) > limit
