"""Conditional requests (RFC 9110 section 13): who changes something says what it looked like.

An ETag is the revision of what an operator said. A change needs ``If-Match``, a creation ``If-None-Match: *``;
without either it is refused with 428, so that nobody overwrites what they have not seen.
"""

import re
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple, TypeAlias

from fastapi import Header

from fleet_server.api.problems import ProblemError, bad_request

HEADER_CHARS_MAX: Final = 64
ANY: Final = "*"
_ETAG: Final = re.compile(r'"(\d{1,16})"\Z', re.ASCII)

IfMatch: TypeAlias = Annotated[
    str | None,
    Header(
        max_length=HEADER_CHARS_MAX,
        description="The ETag of what is to be changed, or `*` for whatever it is.",
        examples=['"3"'],
    ),
]
IfNoneMatch: TypeAlias = Annotated[
    str | None, Header(max_length=HEADER_CHARS_MAX, description="`*`: only if it is not there yet.", examples=["*"])
]


class Condition(NamedTuple):
    """``expected``: the revision that must be there, None is any; ``create``: whether it may be new."""

    expected: int | None
    create: bool


def etag(revision: int) -> str:
    """The header's value."""
    return f'"{revision}"'


def to_change(if_match: str | None) -> Condition:
    """What a change says. Raises ProblemError: 428 nothing, 422 what cannot be an ETag of ours."""
    if if_match is None:
        raise _required("If-Match with the ETag of what is to be changed, or *")
    if if_match == ANY:
        return Condition(None, create=False)
    found = _ETAG.match(if_match)
    if found is None:
        raise bad_request("header.if-match", expected='an ETag such as "3", or *', got=if_match)
    return Condition(int(found.group(1)), create=False)


def to_put(if_match: str | None, if_none_match: str | None) -> Condition:
    """What a replacement or creation says. Raises ProblemError as :func:`to_change`, and 422 for both at once."""
    if if_none_match is None:
        if if_match is None:
            raise _required("If-Match with the ETag of what is to be replaced, or If-None-Match: * to make it")
        return to_change(if_match)
    if if_match is not None or if_none_match != ANY:
        raise bad_request("header.if-none-match", expected="*, and no If-Match", got=if_none_match)
    return Condition(0, create=True)


def _required(expected: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.PRECONDITION_REQUIRED,
        "precondition-required",
        "Say what it looked like",
        "a change without a condition could undo somebody else's",
        expected=expected,
    )
