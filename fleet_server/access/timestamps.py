"""Timestamps of checkpoints by an authority outside (RFC 3161): that the log was so far at that time.

A checkpoint's own signature says that the server wrote it, a witness that nothing was rewritten since; the authority
says when, to somebody who trusts neither of them. Its answer is kept as it came, beside the checkpoint.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from broker_config.text import shown
from fleet_server.access import audit, notes
from fleet_server.access.auditor import Auditor
from fleet_server.telemetry.store import StoreError

ANSWER_BYTES_MAX: Final = 64 * 1024

logger = logging.getLogger(__name__)


class TimestampError(Exception):
    """The authority gave no timestamp, or one that is not of what was asked."""


class Timestamp(NamedTuple):
    """``note``: the checkpoint whose bytes are stamped; ``token``: the TimeStampResp, DER; ``at_ms``: by the server's
    clock, when it came: the authority's time is in the token.
    """

    log: int
    size: int
    at_ms: int
    tsa: str
    note: str
    token: bytes


class Authority(Protocol):
    """A time-stamping authority. Its time is trusted, and nothing else of it."""

    @property
    def name(self) -> str:
        """Where it is."""

    def stamp(self, data: bytes) -> bytes:
        """Its answer over SHA-256 of *data*: granted, and of this very request. Raises TimestampError."""


class Timestamps(Protocol):
    """What was stamped; only ever added to. Any thread. Every method raises StoreError."""

    def newest(self, log: int) -> int:
        """The size of the largest checkpoint that was; 0: none."""

    def keep(self, timestamp: Timestamp) -> None:
        """Durable once it returns; one that is there already stays."""

    def all(self, log: int, *, from_size: int, rows_max: int) -> Sequence[Timestamp]:
        """By size, from *from_size* on."""


class Stamper:
    """Has the newest checkpoint stamped, if it was not. One thread."""

    def __init__(
        self, auditor: Auditor, timestamps: Timestamps, authority: Authority, *, now_ms: Callable[[], int]
    ) -> None:
        self._auditor = auditor
        self._timestamps = timestamps
        self._authority = authority
        self._now_ms = now_ms
        self._failing = False

    def look(self) -> bool:
        """Whether the newest checkpoint is stamped now; why it is not is logged."""
        try:
            self._stamp()
        except (StoreError, TimestampError) as error:
            level = logging.DEBUG if self._failing else logging.WARNING
            why = {"tsa": self._authority.name, "error": shown(error)}
            logger.log(level, "the newest checkpoint has no timestamp", extra=why)
            self._failing = True
            return False
        self._failing = False
        return True

    def _stamp(self) -> None:
        note = self._auditor.sign()
        if note is None:
            return
        checkpoint = notes.checkpoint_of(note)
        log = audit.log_number(checkpoint.origin)
        if checkpoint.size <= self._timestamps.newest(log):
            return
        token = self._authority.stamp(note.encode())
        at_ms, name = self._now_ms(), self._authority.name
        self._timestamps.keep(Timestamp(log, checkpoint.size, at_ms, name, note, token))
