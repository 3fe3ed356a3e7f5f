"""What the server signs by itself: which list is the newest (snapshot), and that this was so lately (timestamp).

Whoever has the server's key can hide news, until the list itself ends or a new root takes the key's place, and no
more: images are signed by persons. Whoever has only the network can do so until the timestamp ends.
"""

from datetime import datetime
from typing import Final

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from fleet_server.access.signing import SigningKey
from fleet_server.releases.metadata import TARGETS_FILE, S, sign, signers, until, version_after

SNAPSHOT_DAYS: Final = 30.0
TIMESTAMP_DAYS: Final = 7.0
"""So long a device that is cut off from us believes that there is nothing newer."""
RENEW_AT: Final = 0.5
"""Of its life; what is signed anew at half of it survives an outage of the other half."""


def snapshot_due(
    current: Metadata[Snapshot] | None, targets: Metadata[Targets], root: Root, *, now: datetime
) -> bool:
    """Whether a new one has to be signed."""
    if current is None or _ends(current, SNAPSHOT_DAYS, root, now):
        return True
    listed = current.signed.meta.get(TARGETS_FILE)
    return listed is None or listed.version != targets.signed.version


def timestamp_due(
    current: Metadata[Timestamp] | None, snapshot: Metadata[Snapshot], root: Root, *, now: datetime
) -> bool:
    """Whether a new one has to be signed."""
    if current is None or _ends(current, TIMESTAMP_DAYS, root, now):
        return True
    return current.signed.snapshot_meta.version != snapshot.signed.version


def new_snapshot(
    last: int, targets: Metadata[Targets], data: bytes, key: SigningKey, *, now: datetime
) -> Metadata[Snapshot]:
    """Of *targets*, whose file's bytes are *data*; *last*: the version before. Raises SignerError."""
    meta = {TARGETS_FILE: _described(targets.signed.version, data)}
    made = Metadata(Snapshot(version=version_after(last, now), expires=until(now, SNAPSHOT_DAYS), meta=meta))
    sign(made, key)
    return made


def new_timestamp(
    last: int, snapshot: Metadata[Snapshot], data: bytes, key: SigningKey, *, now: datetime
) -> Metadata[Timestamp]:
    """Of *snapshot*, as :func:`new_snapshot`. Raises SignerError."""
    described = _described(snapshot.signed.version, data)
    made = Metadata(
        Timestamp(version=version_after(last, now), expires=until(now, TIMESTAMP_DAYS), snapshot_meta=described)
    )
    sign(made, key)
    return made


def _described(version: int, data: bytes) -> MetaFile:
    # digests too, though versions would do: whoever mixes files of two states is seen before signatures are looked at
    return MetaFile.from_data(version, data, ["sha256"])


def _ends(current: Metadata[S], days: float, root: Root, now: datetime) -> bool:
    """Soon, or it is signed by a key that counts no more."""
    signed, threshold = signers(current, root)
    return len(signed) < threshold or current.signed.expires <= until(now, days * (1 - RENEW_AT))
