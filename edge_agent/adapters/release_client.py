"""The TUF client: python-tuf's, unchanged, over our fetcher; then the image, part by part, on the disk.

An image is taken into ``DIGEST.part``, where a cut leaves what came, and is renamed once length and digests are what
was signed. Nothing else in the directory is an image.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Snapshot, TargetFile, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig

from broker_config.ids import ContractError
from broker_config.limits import RELEASE_BYTES_MAX, RELEASE_METADATA_BYTES_MAX, RELEASE_ROOT_BYTES_MAX
from broker_config.releases import METADATA_PATH, SHA256, read_custom, stored_path
from broker_config.text import shown
from edge_agent.adapters import files
from edge_agent.adapters.release_fetcher import NotNowError, ReleaseFetcher
from edge_agent.releases import Attack, Fetched, RefusedReleaseError, Wanted, check_wanted

METADATA: Final = "metadata"
IMAGES: Final = "images"
PART: Final = ".part"
CUTS_MAX: Final = 3
"""In a row, with nothing that came between them."""
IMAGES_MAX: Final = 4
"""That are kept, the newest: what runs, what is to run, and the same of a peripheral."""
ROOTS_MAX: Final = 64
CONFIG: Final = UpdaterConfig(
    max_root_rotations=ROOTS_MAX,
    max_delegations=0,  # nobody delegates here
    root_max_length=RELEASE_ROOT_BYTES_MAX,
    timestamp_max_length=16_384,
    snapshot_max_length=16_384,
    targets_max_length=RELEASE_METADATA_BYTES_MAX,
)


class BadRootError(Exception):
    """The device's own root is none."""


def fetch(directory: Path, root: bytes, base_url: str, fetcher: ReleaseFetcher, wanted: Wanted) -> Fetched:
    """Bring what is known up to date, and the image that is *wanted* into *directory*, which is ours alone.

    Raises:
        RefusedReleaseError: with the name of the attack; no image was kept.
        NotNowError: what came is kept, and the next call goes on from there.
        BadRootError, OSError
    """
    metadata, images = directory / METADATA, directory / IMAGES
    for each in (metadata, images):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        updater = Updater(
            str(metadata), f"{base_url}{METADATA_PATH}/", fetcher=fetcher, config=CONFIG, bootstrap=root
        )
    except (RepositoryError, ValueError) as error:
        raise BadRootError(f"expected a signed root of releases, got {shown(error)}") from error
    with _named(fetcher):
        updater.refresh()
        _make_durable(metadata)
        target = updater.get_targetinfo(wanted.path)
    if target is None:
        raise RefusedReleaseError(Attack.ARBITRARY, f"{wanted.path} is in no list that was signed")
    try:
        custom = read_custom(target.custom)
    except ContractError as error:
        raise RefusedReleaseError(Attack.MALFORMED, f"{wanted.path}: {error}") from error
    check_wanted(custom, wanted)
    sha256 = target.hashes.get(SHA256, "")
    if len(sha256) != 64 or not sha256.isalnum() or target.length > RELEASE_BYTES_MAX:
        expected = f"a SHA-256 and at most {RELEASE_BYTES_MAX} bytes"
        raise RefusedReleaseError(Attack.MALFORMED, f"{wanted.path}: expected {expected}")
    file = images / sha256
    if updater.find_cached_target(target, str(file)) is None:
        _drop_others(images, sha256)
        with _named(fetcher):
            _take(fetcher, target, sha256, file)
    return Fetched(str(file), sha256, target.length, custom.version, custom.counter)


def _take(fetcher: ReleaseFetcher, target: TargetFile, sha256: str, file: Path) -> None:
    part = file.with_name(f"{sha256}{PART}")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as taken:
        resumed = taken.seek(0, os.SEEK_END)
        for again in (True, False):
            try:
                _fill(fetcher, target, stored_path(target.path, sha256), taken)
                taken.flush()
                taken.seek(0)
                target.verify_length_and_hashes(taken)
                break
            except LengthOrHashMismatchError as error:
                taken.truncate(0)
                if resumed and again:  # a power cut may have left anything at its end
                    continue
                raise RefusedReleaseError(
                    Attack.ARBITRARY, f"{target.path} is not what was signed: {shown(error)}"
                ) from error
            except RefusedReleaseError as error:
                if error.refused.attack is not Attack.SLOW_RETRIEVAL:
                    taken.truncate(0)
                raise
        os.fsync(taken.fileno())
    part.replace(file)
    files.sync(file.parent)


def _fill(fetcher: ReleaseFetcher, target: TargetFile, stored: str, taken: IO[bytes]) -> None:
    """Until it has as many bytes as were signed."""
    size, cuts = taken.seek(0, os.SEEK_END), 0
    if size > target.length:
        size = taken.truncate(0)
    taken.seek(size)
    fetcher.begin()
    while size < target.length:
        before = size
        try:
            for data in fetcher.image(stored, size):
                if size + len(data) > target.length:
                    raise RefusedReleaseError(
                        Attack.ENDLESS_DATA, f"{target.path}: expected {target.length} bytes, got more"
                    )
                size += taken.write(data)
        except NotNowError:
            cuts = 0 if size > before else cuts + 1
            if cuts >= CUTS_MAX:
                taken.flush()
                raise


@contextmanager
def _named(fetcher: ReleaseFetcher) -> Iterator[None]:
    """The library's errors as ours."""
    try:
        yield
    except (NotNowError, RefusedReleaseError):
        raise
    except DownloadLengthMismatchError as error:
        raise RefusedReleaseError(Attack.ENDLESS_DATA, shown(error)) from error
    except DownloadHTTPError as error:
        raise NotNowError(shown(error)) from error
    except DownloadError as error:
        raise NotNowError(shown(error.__cause__ or error)) from error
    except RepositoryError as error:
        raise RefusedReleaseError(_attack(error, fetcher), f"{fetcher.role}: {shown(error, 300)}") from error


def _attack(error: RepositoryError, fetcher: ReleaseFetcher) -> Attack:
    match error:
        case UnsignedMetadataError():
            return Attack.THRESHOLD
        case ExpiredMetadataError():
            return Attack.FREEZE
        case LengthOrHashMismatchError():  # of metadata: it belongs to another state than the file that names it
            return Attack.MIX_AND_MATCH
        case BadVersionNumberError():
            mixed = fetcher.role in {Snapshot.type, Targets.type} and fetcher.is_other_version
            return Attack.MIX_AND_MATCH if mixed else Attack.ROLLBACK
        case DeserializationError():
            return Attack.MALFORMED
        case _:  # a list that a snapshot had and has no more
            return Attack.ROLLBACK if fetcher.role == Snapshot.type else Attack.MALFORMED


def _drop_others(images: Path, sha256: str) -> None:
    """One image is on its way at a time; of whole ones the newest stay, with room for this one."""
    for each in images.glob(f"*{PART}"):
        if each.name != f"{sha256}{PART}":
            each.unlink()
    whole = sorted((each for each in images.iterdir() if each.suffix != PART), key=lambda each: each.stat().st_mtime)
    for each in whole[: max(0, len(whole) - IMAGES_MAX + 1)]:
        each.unlink()


def _make_durable(metadata: Path) -> None:
    """The library renames without syncing; what is lost to a power cut is no longer known to have been there."""
    for each in metadata.glob("*.json"):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    files.sync(metadata)
