"""How uploads are doing: what metrics are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Progress(NamedTuple):
    """A file that is on its way. ``left``: bytes that are not durable yet; ``whole``: it is read again.
    ``changed_ms``: when anything of it last became durable.
    """

    upload: str
    device: str
    size: int
    left: int
    name: str = ""
    whole: bool = False
    changed_ms: int = 0


@dataclass(frozen=True, slots=True)
class EvidenceFacts:
    """``counts``: since the start, by what happened, as :class:`fleet_server.evidence.transfer.Transfer` names it.
    ``window_bytes``: that devices may have under way now. ``untold``: answers for which the broker had no room.
    """

    connected: bool
    open_uploads: int
    stale_uploads: int
    unreplicated: int
    receipts_waiting: int
    receipts_sent: int
    sign_failures: int
    untold: int
    window_bytes: int
    devices_waiting: int
    counts: Mapping[str, int]

    def count(self, name: str) -> int:
        """0 if it never happened."""
        return self.counts.get(name, 0)
