"""Which uploads are receipted next, and as what. Values and times only."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from broker_config import limits
from broker_config.ids import DeviceId
from broker_config.transfer import Receipted, StorageClass
from fleet_server.evidence.pieces import Piece
from fleet_server.evidence.uploads import Phase, Upload

LINGER_S: Final = 0.5
"""A receipt waits so long for others of its device: each signature makes the signer write a counter."""
DUE_MAX: Final = 10_000
"""Uploads that wait for a signature; a device asks again for what is beyond."""


def storage_class(upload: Upload) -> StorageClass:
    """What may be said of a done upload: ``logged`` only when every copy that is wanted was read again."""
    if upload.replicated is False:
        return StorageClass.STORED
    return StorageClass.LOGGED


def receipted(upload: Upload) -> Receipted:
    """What its device is told."""
    assert upload.phase is Phase.DONE
    assert upload.place is not None
    told = upload.manifest
    return Receipted(
        upload.upload, told.sha256, told.size, storage_class(upload), upload.place.log, upload.place.number
    )


def of_pieces(
    pieces: Iterable[Piece], is_everywhere: Callable[[str], bool]
) -> Iterator[tuple[DeviceId, tuple[Receipted, ...]]]:
    """What their devices were told, or would be if they asked now; as many as one receipt holds.

    *is_everywhere*: whether every copy that is wanted of a SHA-256 is there.
    """
    told: defaultdict[str, list[Receipted]] = defaultdict(list)
    for piece in pieces:
        as_ = StorageClass.LOGGED if is_everywhere(piece.sha256) else StorageClass.STORED
        told[piece.device].append(Receipted(piece.piece, piece.sha256, piece.size, as_, piece.log, piece.entry))
    for device, every in told.items():
        for at in range(0, len(every), limits.RECEIPTED_MAX):
            yield DeviceId(device), tuple(every[at : at + limits.RECEIPTED_MAX])


class Due:
    """What waits for a signature, by device."""

    def __init__(self) -> None:
        self._due: dict[DeviceId, dict[str, Receipted]] = {}
        self._since_s: dict[DeviceId, float] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, device: DeviceId, each: Receipted, now_s: float) -> bool:
        """Whether it was taken; the same upload twice is one."""
        of_device = self._due.setdefault(device, {})
        if each.upload not in of_device:
            if self._count >= DUE_MAX:
                return False
            self._count += 1
        of_device[each.upload] = each
        self._since_s.setdefault(device, now_s)
        return True

    def take(self, now_s: float) -> list[tuple[DeviceId, tuple[Receipted, ...]]]:
        """Those whose time has come, at most :data:`~broker_config.limits.RECEIPTED_MAX` for a device at once."""
        ready = [
            device
            for device, since_s in self._since_s.items()
            if now_s - since_s >= LINGER_S or len(self._due[device]) >= limits.RECEIPTED_MAX
        ]
        taken = []
        for device in ready:
            of_device = self._due[device]
            names = list(of_device)[: limits.RECEIPTED_MAX]
            taken.append((device, tuple(of_device.pop(name) for name in names)))
            self._count -= len(names)
            if not of_device:
                del self._due[device], self._since_s[device]
        return taken
