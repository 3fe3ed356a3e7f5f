"""Who may sign what: the root, whose first version devices are given with their identity.

Rule 1: a new version follows only if signed as the version before asks and as it asks itself, so that no one person,
and no server, takes a fleet over.
Rule 2: the key that the server holds is nobody's who signs images.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from tuf.api.metadata import Metadata, Role, Root

from fleet_server.releases.metadata import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    ReleaseError,
    key_of,
    require,
    until,
)

THRESHOLD_MIN: Final = 2
PERSONS_MAX: Final = 16
ROOT_DAYS: Final = 730.0


class Signers(NamedTuple):
    """Public keys, 32 bytes each. ``root``: who may change this; ``targets``: who may release; ``online``: the
    server's own. ``threshold``: of the first two.
    """

    root: frozenset[bytes]
    targets: frozenset[bytes]
    online: bytes
    threshold: int = THRESHOLD_MIN


def first_root(signers: Signers, *, now: datetime, days: float = ROOT_DAYS) -> Metadata[Root]:
    """Version 1, signed by nobody yet. Raises ReleaseError."""
    return Metadata(_root(signers, version=1, now=now, days=days))


def next_root(
    current: Metadata[Root],
    *,
    root: frozenset[bytes] = frozenset(),
    targets: frozenset[bytes] = frozenset(),
    online: bytes | None = None,
    threshold: int | None = None,
    now: datetime,
    days: float = ROOT_DAYS,
) -> Metadata[Root]:
    """What follows *current*, signed by nobody yet; what is not given stays. Raises ReleaseError."""
    was = signers_of(current.signed)
    signers = Signers(root or was.root, targets or was.targets, online or was.online, threshold or was.threshold)
    return Metadata(_root(signers, version=current.signed.version + 1, now=now, days=days))


def check_follows(new: Metadata[Root], current: Metadata[Root] | None, *, now: datetime) -> None:
    """See rule 1; *current* None: *new* is the first. Raises ReleaseError, ThresholdError."""
    expected = 1 if current is None else current.signed.version + 1
    if new.signed.version != expected:
        raise ReleaseError(f"root: expected version {expected}, got {new.signed.version}")
    if new.signed.is_expired(now):
        raise ReleaseError(f"root: expected one that is good still, got one until {new.signed.expires:%Y-%m-%d}")
    _check(signers_of(new.signed))
    require(new, new.signed)
    if current is not None:
        require(new, current.signed)


def signers_of(root: Root) -> Signers:
    """Raises ReleaseError: a root that is none of ours."""
    if root.roles[ROOT].threshold != root.roles[TARGETS].threshold:
        raise ReleaseError("root: expected one threshold for root and targets")
    try:
        by_role = {role: frozenset(_public(root, role)) for role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)}
        (online,) = by_role[SNAPSHOT] | by_role[TIMESTAMP]
    except (KeyError, ValueError) as error:
        raise ReleaseError("root: expected Ed25519 keys, and one for snapshot and timestamp") from error
    return Signers(by_role[ROOT], by_role[TARGETS], online, root.roles[ROOT].threshold)


def _public(root: Root, role: str) -> Iterable[bytes]:
    for keyid in root.roles[role].keyids:
        yield bytes.fromhex(str(root.keys[keyid].keyval["public"]))


def _check(signers: Signers) -> None:
    for name, persons in (("root", signers.root), ("targets", signers.targets)):
        if not THRESHOLD_MIN <= signers.threshold <= len(persons) <= PERSONS_MAX:
            raise ReleaseError(
                f"{name}: expected at least {max(signers.threshold, THRESHOLD_MIN)} keys of different persons and at "
                f"most {PERSONS_MAX}, got {len(persons)}"
            )
        if signers.online in persons:
            raise ReleaseError(f"{name}: expected keys of persons, got the server's own among them")


def _root(signers: Signers, *, version: int, now: datetime, days: float) -> Root:
    _check(signers)
    ours = {ROOT: signers.root, TARGETS: signers.targets}
    by_role = {role: [key_of(public) for public in sorted(persons)] for role, persons in ours.items()}
    online = [key_of(signers.online)]
    return Root(
        version=version,
        expires=until(now, days),
        keys={key.keyid: key for keys in (*by_role.values(), online) for key in keys},
        roles={
            **{role: Role([key.keyid for key in keys], signers.threshold) for role, keys in by_role.items()},
            **{role: Role([online[0].keyid], 1) for role in (SNAPSHOT, TIMESTAMP)},
        },
    )
