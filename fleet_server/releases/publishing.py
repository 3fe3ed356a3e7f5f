"""Publishes what persons have signed, and keeps what the server signs fresh. Over the port of the repository.

The timestamp is written last: until then devices see what was there before. Whatever ends this in between, the same
call again goes on where it was.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fleet_server.access.signing import SigningKey
from fleet_server.releases import newest, roots, targets
from fleet_server.releases.metadata import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    ReleaseError,
    S,
    key_of,
    read,
    read_any,
    require,
    signers,
)
from fleet_server.releases.store import ReleaseStore
from fleet_server.releases.targets import Release

FIRST: Final = "nobody may release here yet; first: fleet-server releases propose-root, sign, adopt"
KEYID_CHARS: Final = 16
"""Of a key id, as the log names it."""
ENDING_D: Final = 30.0
"""So long before its end persons are asked to sign anew."""


class Published(NamedTuple):
    """Versions that devices are given now; 0: there is none."""

    root: int
    targets: int
    snapshot: int
    timestamp: int


class Standing(NamedTuple):
    """All that is published. ``releases``: with whether the image is there. ``ends``: of each role. ``unsigned``: the
    list counts no more, because who signed it may not any more.
    """

    published: Published
    releases: tuple[tuple[Release, bool], ...]
    ends: Mapping[str, datetime]
    unsigned: bool


class Publisher:
    """One at a time, whoever calls."""

    def __init__(self, store: ReleaseStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def root(self) -> Metadata[Root] | None:
        """The newest. Raises ReleaseError, OSError."""
        return self._read(ROOT, Root)

    def targets(self) -> Metadata[Targets] | None:
        """The newest. Raises ReleaseError, OSError."""
        return self._read(TARGETS, Targets)

    def adopt_root(self, data: bytes, online: SigningKey) -> Published:
        """Publish who may sign. Raises ReleaseError, SignerError, OSError."""
        with self._store.holding():
            new, current = read(data, Root), self.root()
            if current is None or self._store.newest(ROOT) != data:
                roots.check_follows(new, current, now=self._now())
            if key_of(roots.signers_of(new.signed).online).keyid != key_of(online.public).keyid:
                raise ReleaseError("root: expected this server's own key for snapshot and timestamp; propose it here")
            self._store.put(ROOT, new.signed.version, data)
            return self._refresh(online)

    def adopt_targets(self, data: bytes, images: Mapping[str, Path], online: SigningKey) -> Published:
        """Publish what may be installed. *images*: of what is new, by their release.

        Raises:
            ReleaseError: also an image that is missing or another one.
            SignerError, OSError
        """
        with self._store.holding():
            root, new, current = self._root(), read(data, Targets), self.targets()
            if current is None or self._store.newest(TARGETS) != data:
                targets.check_follows(new, current, now=self._now())
            require(new, root.signed)
            for each in targets.releases(new.signed):
                if each.path in images:
                    self._store.put_image(each.path, each.sha256, images[each.path])
                elif not self._store.has_image(each.path, each.sha256):
                    raise ReleaseError(f"{each.path}: its image is not here; give it with --image")
            self._store.put(TARGETS, new.signed.version, data)
            return self._refresh(online)

    def refresh(self, online: SigningKey, *, force: bool = False) -> Published:
        """Sign what is due; *force*: in any case. Raises ReleaseError, SignerError, OSError."""
        with self._store.holding():
            return self._refresh(online, force=force)

    def standing(self) -> Standing:
        """Raises ReleaseError, OSError."""
        root, listed = self._root(), self.targets()
        snapshot, timestamp = self._read(SNAPSHOT, Snapshot), self._read(TIMESTAMP, Timestamp)
        found = () if listed is None else tuple(targets.releases(listed.signed))
        ends: dict[str, datetime] = {ROOT: root.signed.expires}
        ends |= {} if listed is None else {TARGETS: listed.signed.expires}
        ends |= {} if snapshot is None else {SNAPSHOT: snapshot.signed.expires}
        ends |= {} if timestamp is None else {TIMESTAMP: timestamp.signed.expires}
        return Standing(
            Published(root.signed.version, _version(listed), _version(snapshot), _version(timestamp)),
            tuple((each, self._store.has_image(each.path, each.sha256)) for each in found),
            ends,
            listed is not None and not _counts(listed, root.signed),
        )

    def told(self, role: str, version: int) -> Mapping[str, str]:
        """What the audit log is told of a root or a list: by whose signatures, and what is new in it.

        Raises ReleaseError, OSError.
        """
        data = self._store.version(role, version)
        found = read_any(data or b"")
        signed, _ = signers(found, found.signed if isinstance(found.signed, Root) else self._root().signed)
        told = {
            "sha256": hashlib.sha256(data or b"").hexdigest(),
            "signed_by": " ".join(sorted(keyid[:KEYID_CHARS] for keyid in signed)),
        }
        if isinstance(found.signed, Root):
            persons = roots.signers_of(found.signed)
            return told | {"may_change": str(len(persons.root)), "may_release": str(len(persons.targets))}
        before = [each for each in self._store.versions(role) if each < version]
        was = read(self._store.version(role, before[-1]) or b"", Targets).signed.targets if before else {}
        now = found.signed.targets
        return told | {
            "released": " ".join(sorted(now.keys() - was.keys())),
            "withdrawn": " ".join(sorted(was.keys() - now.keys())),
        }

    def _refresh(self, online: SigningKey, *, force: bool = False) -> Published:
        root, listed, now = self._root(), self.targets(), self._now()
        data = self._store.newest(TARGETS)
        snapshot, timestamp = self._read(SNAPSHOT, Snapshot), self._read(TIMESTAMP, Timestamp)
        if listed is None or data is None:
            return Published(root.signed.version, 0, 0, 0)
        if force or newest.snapshot_due(snapshot, listed, root.signed, now=now):
            snapshot = newest.new_snapshot(_version(snapshot), listed, data, online, now=now)
            require(snapshot, root.signed)  # before it is written: an old key is no key
            self._store.put(SNAPSHOT, snapshot.signed.version, snapshot.to_bytes())
        assert snapshot is not None
        if force or newest.timestamp_due(timestamp, snapshot, root.signed, now=now):
            whole = self._store.newest(SNAPSHOT)
            assert whole is not None
            timestamp = newest.new_timestamp(_version(timestamp), snapshot, whole, online, now=now)
            require(timestamp, root.signed)
            self._store.put(TIMESTAMP, timestamp.signed.version, timestamp.to_bytes())
        return Published(root.signed.version, listed.signed.version, snapshot.signed.version, _version(timestamp))

    def _root(self) -> Metadata[Root]:
        root = self.root()
        if root is None:
            raise ReleaseError(FIRST)
        return root

    def _read(self, role: str, kind: type[S]) -> Metadata[S] | None:
        data = self._store.newest(role)
        return None if data is None else read(data, kind)


def ending(standing: Standing, now: datetime) -> Iterator[tuple[str, datetime]]:
    """What only persons can sign, and ends soon or has ended: role and end."""
    for role in (ROOT, TARGETS):
        if role in standing.ends and standing.ends[role] <= now + timedelta(days=ENDING_D):
            yield role, standing.ends[role]


def _version(metadata: Metadata[S] | None) -> int:
    return 0 if metadata is None else metadata.signed.version


def _counts(metadata: Metadata[S], root: Root) -> bool:
    signed, threshold = signers(metadata, root)
    return len(signed) >= threshold
