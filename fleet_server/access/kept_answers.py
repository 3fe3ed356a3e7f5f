"""Answers that were given, for a client that asks again. This is the port."""

from dataclasses import dataclass
from typing import Final, Protocol

KEPT_S: Final = 86_400
UNDER_WAY_S_MAX: Final = 60
"""After this long a request that left no answer has died, and may be done again."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given once."""

    status: int
    content_type: str
    etag: str
    body: bytes


class Begun:
    """What :meth:`KeptAnswers.begin` found, when it is no answer."""

    def __init__(self, name: str) -> None:
        self.name = name


FRESH: Final = Begun("fresh")
UNDER_WAY: Final = Begun("under way")
DIFFERENT: Final = Begun("different")


class KeptAnswers(Protocol):
    """Durable; any thread may call. ``key``: 64 hex digits of whose key it is and which."""

    def begin(self, key: str, request: bytes, *, now_ms: int) -> Kept | Begun:
        """Claim *key* for *request*, a digest of it, unless it is claimed already.

        Returns:
            Its answer. Or FRESH: do it; UNDER_WAY: another does it now; DIFFERENT: it was another request.
        """

    def finish(self, key: str, kept: Kept) -> None:
        """Keep the answer."""

    def drop(self, key: str) -> None:
        """Nothing was done: the next may."""
