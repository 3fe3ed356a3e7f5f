"""A repository of releases in a directory: ``metadata/`` and ``images/``, named as devices ask for them."""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from broker_config.releases import is_metadata_name, is_stored_path, stored_path
from fleet_server.adapters.files import make_private_directory, sync_directory, write_durably
from fleet_server.releases.metadata import ROOT, TIMESTAMP, ReleaseError

METADATA: Final = "metadata"
IMAGES: Final = "images"
LOCK: Final = "lock"
COPY_BYTES: Final = 1024 * 1024
FILE: Final = 0o644
"""Nothing of it is secret."""
_VERSIONED: Final = re.compile(r"^([1-9][0-9]{0,15})\.([a-z]+)\.json\Z")


class ReleaseDirectory:
    """Both ports of :mod:`fleet_server.releases.store`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def holding(self) -> Iterator[None]:
        """See the port."""
        make_private_directory(self._directory / METADATA)
        make_private_directory(self._directory / IMAGES)
        with (self._directory / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def newest(self, role: str) -> bytes | None:
        """See the port."""
        if role == TIMESTAMP:
            return self._bytes(f"{TIMESTAMP}.json")
        versions = self.versions(role)
        return self.version(role, versions[-1]) if versions else None

    def versions(self, role: str) -> list[int]:
        """See the port."""
        there = (self._directory / METADATA).glob(f"*.{role}.json")
        names = [found for each in there if (found := _VERSIONED.match(each.name))]
        return sorted(int(found.group(1)) for found in names if found.group(2) == role)

    def version(self, role: str, version: int) -> bytes | None:
        """See the port."""
        return self._bytes(f"{version}.{role}.json")

    def put(self, role: str, version: int, data: bytes) -> None:
        """See the port."""
        name = f"{TIMESTAMP}.json" if role == TIMESTAMP else f"{version}.{role}.json"
        write_durably(self._directory / METADATA / name, data, mode=FILE)

    def changed_ns(self) -> int:
        """When its metadata was last another. Raises OSError: there is none."""
        return (self._directory / METADATA).stat().st_mtime_ns

    def has_image(self, path: str, sha256: str) -> bool:
        """See the port."""
        return self._image(stored_path(path, sha256)).is_file()

    def put_image(self, path: str, sha256: str, source: Path) -> None:
        """See the port."""
        to = self._image(stored_path(path, sha256))
        make_private_directory(to.parent)
        temporary = to.with_name(f".{secrets.token_hex(8)}")
        try:
            with source.open("rb") as data, temporary.open("xb") as kept:
                digest = hashlib.sha256()
                while part := data.read(COPY_BYTES):
                    digest.update(part)
                    kept.write(part)
                if digest.hexdigest() != sha256:
                    raise ReleaseError(f"{path}: expected an image of SHA-256 {sha256}, got {digest.hexdigest()}")
                kept.flush()
                os.fchmod(kept.fileno(), FILE)
                os.fsync(kept.fileno())
            temporary.replace(to)
        finally:
            temporary.unlink(missing_ok=True)
        for each in (to.parent, *to.parent.parents):
            sync_directory(each)
            if each == self._directory:
                break

    def metadata(self, name: str) -> bytes | None:
        """See the port."""
        return self._bytes(name) if is_metadata_name(name) else None

    def image(self, stored: str) -> Path | None:
        """See the port."""
        path = self._image(stored)
        return path if is_stored_path(stored) and path.is_file() else None

    def root(self) -> str:
        """See the port."""
        data = self.newest(ROOT)
        return "" if data is None else data.decode("utf-8")

    def _image(self, stored: str) -> Path:
        return self._directory / IMAGES / stored

    def _bytes(self, name: str) -> bytes | None:
        try:
            return (self._directory / METADATA / name).read_bytes()
        except FileNotFoundError:
            return None
