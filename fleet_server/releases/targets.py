"""What may be installed: the list that persons sign."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from tuf.api.metadata import Metadata, TargetFile, Targets

from broker_config.ids import ContractError
from broker_config.limits import RELEASE_BYTES_MAX
from broker_config.releases import SHA256, Custom, read_custom, target_path
from fleet_server.releases.metadata import ReleaseError, until, version_after

TARGETS_DAYS: Final = 365.0
RELEASES_MAX: Final = 1_000


class Release(NamedTuple):
    """One image. ``sha256``: hex."""

    path: str
    sha256: str
    size_bytes: int
    custom: Custom


def path_of(custom: Custom, suffix: str) -> str:
    """What it is called. Raises ContractError: a suffix that cannot stand there."""
    return target_path(f"{custom.kind}/{custom.hw}/{custom.version}{suffix}")


def releases(targets: Targets) -> Iterator[Release]:
    """By path. Raises ReleaseError: one is none of ours."""
    for path, target in sorted(targets.targets.items()):
        try:
            yield Release(target_path(path), target.hashes[SHA256], target.length, read_custom(target.custom))
        except (ContractError, KeyError) as error:
            raise ReleaseError(f"targets: {path}: expected a release, got {error}") from error


def with_release(
    current: Metadata[Targets] | None, release: Release, *, now: datetime, days: float = TARGETS_DAYS
) -> Metadata[Targets]:
    """*current* and one more, signed by nobody yet. Raises ReleaseError."""
    there = [] if current is None else list(releases(current.signed))
    if not 1 <= release.size_bytes <= RELEASE_BYTES_MAX:
        raise ReleaseError(f"image: expected 1 to {RELEASE_BYTES_MAX} bytes, got {release.size_bytes}")
    if len(there) >= RELEASES_MAX:
        raise ReleaseError(f"targets: expected at most {RELEASES_MAX} releases; withdraw one first")
    for each in there:
        same = (each.custom.hw, each.custom.kind) == (release.custom.hw, release.custom.kind)
        if each.path == release.path:
            raise ReleaseError(f"{release.path}: is released already, and never changes; give another version")
        if same and each.custom.counter == release.custom.counter:
            raise ReleaseError(f"counter {release.custom.counter}: is that of {each.path}; give another")
    return _listed(current, [*there, release], now, days)


def without(current: Metadata[Targets], path: str, *, now: datetime, days: float = TARGETS_DAYS) -> Metadata[Targets]:
    """*current* and one less, signed by nobody yet. Raises ReleaseError."""
    there = list(releases(current.signed))
    left = [each for each in there if each.path != path]
    if len(left) == len(there):
        raise ReleaseError(f"{path}: expected one that is released")
    return _listed(current, left, now, days)


def renewed(current: Metadata[Targets] | None, *, now: datetime, days: float = TARGETS_DAYS) -> Metadata[Targets]:
    """The same, for longer; signed by nobody yet. Raises ReleaseError."""
    return _listed(current, [] if current is None else list(releases(current.signed)), now, days)


def check_follows(new: Metadata[Targets], current: Metadata[Targets] | None, *, now: datetime) -> None:
    """Whether it may be published in place of *current*; signatures apart. Raises ReleaseError."""
    if current is not None and new.signed.version <= current.signed.version:
        raise ReleaseError(
            f"targets: expected a version above {current.signed.version}, got {new.signed.version}; propose it anew"
        )
    if new.signed.is_expired(now):
        raise ReleaseError(f"targets: expected them to be good still, got {new.signed.expires:%Y-%m-%d}")
    if new.signed.delegations is not None:
        raise ReleaseError("targets: expected no delegations")
    for _ in releases(new.signed):
        pass


def _listed(
    current: Metadata[Targets] | None, listed: list[Release], now: datetime, days: float
) -> Metadata[Targets]:
    last = 0 if current is None else current.signed.version
    targets = {
        each.path: TargetFile(
            each.size_bytes,
            {SHA256: each.sha256},
            each.path,
            {"custom": msgspec.to_builtins(each.custom)},
        )
        for each in listed
    }
    return Metadata(Targets(version=version_after(last, now), expires=until(now, days), targets=targets))
