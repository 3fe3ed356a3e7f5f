"""What came together, and is not settled yet: written to the disk in one go, synced, committed, and then told."""

from dataclasses import dataclass, field
from typing import Final

from broker_config.ids import DeviceId
from broker_config.text import shown
from broker_config.transfer import Code, Reject
from fleet_server.evidence.underway import OpenUpload, Outcome
from fleet_server.evidence.uploads import DurableChunk, Upload, UploadError

WRITE_AGAIN_S: Final = 5
"""After a write that failed: the disk may be well again at once."""


@dataclass(slots=True, eq=False)
class Group:
    """``number``: groups are counted in the order in which they are written. ``chunks``: their CRCs, by upload and
    number; ``to``: the uploads that they were written to, for one may end and begin again meanwhile. ``unsynced``,
    ``uncommitted``: what the disk did not do.
    """

    number: int
    out: Outcome = field(default_factory=Outcome)
    opened: dict[str, Upload] = field(default_factory=dict)
    chunks: dict[tuple[str, int], int] = field(default_factory=dict)
    to: dict[str, OpenUpload] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    answer: dict[str, None] = field(default_factory=dict)
    """Uploads that get a state, in the order in which they were mentioned."""
    refused: dict[tuple[DeviceId, str], Reject] = field(default_factory=dict)
    unsynced: dict[str, UploadError] = field(default_factory=dict)
    uncommitted: UploadError | None = None

    def synced(self) -> list[DurableChunk]:
        """The chunks that may be committed."""
        return [DurableChunk(*key, crc) for key, crc in self.chunks.items() if key[0] not in self.unsynced]

    def crc(self, each: OpenUpload, number: int) -> int | None:
        """Of a chunk that this group has for it."""
        name = each.upload.upload
        return self.chunks.get((name, number)) if self.to.get(name) is each else None

    def lose(self, name: str, device: DeviceId, error: UploadError) -> bool:
        """Nothing of this group counts for that upload; what was committed before stays. Returns whether its device,
        which waits for an answer, is told so.
        """
        self.failed.add(name)
        self.to.pop(name, None)
        for key in [key for key in self.chunks if key[0] == name]:
            del self.chunks[key]
        if name not in self.answer:
            return False
        del self.answer[name]
        self.refused[device, name] = Reject(1, name, Code.DISK, WRITE_AGAIN_S, shown(error))
        return True
