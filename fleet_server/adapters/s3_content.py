"""Second copies of evidence in a bucket of S3 with object lock, under their SHA-256.

``PREFIXsha256/ab/cd/SHA256``. The bucket must lock objects, or who holds the credentials could delete every copy.
What was written is read again before it is locked, so that nothing is ever locked that is not what was meant; the
lock is a floor below the custody rules, which ask for a deletion no sooner.
"""

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import COMPLIANCE, ENABLED
from minio.error import MinioException, S3Error
from minio.retention import Retention
from urllib3.exceptions import HTTPError

from broker_config.ids import HEX64_PATTERN, exact
from broker_config.limits import KIB
from broker_config.merkle import leaf_hash
from broker_config.text import shown
from fleet_server.evidence.content import ContentError, MissingContentError
from fleet_server.evidence.inspection import Seen

if TYPE_CHECKING:
    from typing_extensions import Buffer

PART_BYTES: Final = 8 * KIB * KIB
"""Held in memory while a part of a large object goes out."""
READ_BYTES: Final = KIB * KIB
CONNECT_S_MAX: Final = 5.0
READ_S_MAX: Final = 60.0
TRIES: Final = 3
VERSIONS_MAX: Final = 1_000
"""Of one object; only who meddles with the bucket makes more than a few."""
_SHA256: Final = re.compile(exact(HEX64_PATTERN))
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchObject"})


@dataclass(frozen=True, slots=True)
class S3Settings:
    """``endpoint``: http or https, host, port. ``prefix``: of every key, ends with ``/`` or is empty. ``lock_d``:
    days for which nobody, the account's owner included, can delete what was written.
    """

    endpoint: str
    bucket: str
    prefix: str
    region: str
    access_key: str
    secret_key: str
    lock_d: float
    ca_file: Path | None = None


class S3Content:
    """The port :class:`fleet_server.evidence.finishing.Copying`."""

    name = "replica"

    def __init__(self, settings: S3Settings) -> None:
        """Asks nobody: a bucket that is away is a copy that is still to be made."""
        address = urlsplit(settings.endpoint)
        self._settings = settings
        self._looked = threading.Event()
        self._client = Minio(
            address.netloc,
            settings.access_key,
            settings.secret_key,
            secure=address.scheme == "https",
            region=settings.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=CONNECT_S_MAX, read=READ_S_MAX),
                retries=urllib3.Retry(TRIES, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
                cert_reqs="CERT_REQUIRED",
                ca_certs=None if settings.ca_file is None else str(settings.ca_file),
            ),
        )

    def open(self, sha256: str) -> BinaryIO:
        """See the port; it is read as it comes."""
        try:
            found = self._client.get_object(self._settings.bucket, self._key(sha256))
        except (MinioException, HTTPError, OSError) as error:
            raise self._told(error, sha256) from error
        return io.BufferedReader(_Body(found), READ_BYTES)

    def exists(self, sha256: str) -> bool:
        """See the port."""
        try:
            self._client.stat_object(self._settings.bucket, self._key(sha256))
        except (MinioException, HTTPError, OSError) as error:
            told = self._told(error, sha256)
            if isinstance(told, MissingContentError):
                return False
            raise told from error
        return True

    def remove(self, sha256: str) -> None:
        """See the port: every version of it, since a mark that it is deleted would delete nothing. What is locked
        raises.
        """
        bucket, key = self._settings.bucket, self._key(sha256)
        try:
            for number, each in enumerate(self._client.list_objects(bucket, prefix=key, include_version=True)):
                if number >= VERSIONS_MAX:
                    raise ContentError(f"{self.name}: expected at most {VERSIONS_MAX} versions of {key}")
                self._client.remove_object(bucket, key, each.version_id)
        except (MinioException, HTTPError, OSError) as error:
            raise self._told(error, sha256) from error

    def names(self) -> Iterator[str]:
        """See the port."""
        prefix = f"{self._settings.prefix}sha256/"
        try:
            for each in self._client.list_objects(self._settings.bucket, prefix=prefix, recursive=True):
                yield str(each.object_name).rpartition("/")[2]
        except (MinioException, HTTPError, OSError) as error:
            raise self._told(error, "") from error

    def copy(self, source: BinaryIO, sha256: str, chunk_bytes: int) -> Seen:
        """Write a copy of *source*, read the very version again, and lock that if its hash is *sha256*; else it is
        removed.

        Raises:
            ContentError: there is no copy, or one that is not locked.
        """
        self._look_at_bucket()
        bucket, key = self._settings.bucket, self._key(sha256)
        size = source.seek(0, 2)
        source.seek(0)
        try:
            version = self._client.put_object(
                bucket, key, source, size, part_size=PART_BYTES, num_parallel_uploads=1
            ).version_id
            found = self._client.get_object(bucket, key, version_id=version)
            try:
                seen = _seen(found, chunk_bytes)
            finally:
                found.close()
                found.release_conn()
            if seen.sha256 == sha256:
                until = datetime.now(UTC) + timedelta(days=self._settings.lock_d)
                self._client.set_object_retention(bucket, key, Retention(COMPLIANCE, until), version)
            else:
                self._client.remove_object(bucket, key, version)
        except (MinioException, HTTPError, OSError) as error:
            raise self._told(error, sha256) from error
        return seen

    def _look_at_bucket(self) -> None:
        """Once: whether it is there and locks."""
        if self._looked.is_set():
            return
        bucket = self._settings.bucket
        try:
            versioning = self._client.get_bucket_versioning(bucket).status
            self._client.get_object_lock_config(bucket)
        except S3Error as error:
            if error.code == "ObjectLockConfigurationNotFoundError":
                raise ContentError(
                    f"{self.name}: expected a bucket with object lock, got {bucket} without"
                ) from error
            raise self._told(error, "") from error
        except (MinioException, HTTPError, OSError) as error:
            raise self._told(error, "") from error
        if versioning != ENABLED:
            raise ContentError(f"{self.name}: expected a bucket with versions, got {bucket} without")
        self._looked.set()

    def _key(self, sha256: str) -> str:
        assert _SHA256.match(sha256), sha256
        return f"{self._settings.prefix}sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def _told(self, error: Exception, sha256: str) -> ContentError:
        if isinstance(error, S3Error):
            if error.code in _ABSENT:
                return MissingContentError(f"{self.name} has no {sha256}")
            return ContentError(f"{self.name}: {error.code}: {shown(error.message)}")
        return ContentError(f"{self.name}: {shown(error)}")


class _Body(io.RawIOBase):
    """What comes; an answer that breaks off is an error, not an end."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        room = memoryview(buffer)
        try:
            data = self._response.read(len(room))
        except HTTPError as error:
            raise ContentError(shown(error)) from error
        room[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
            self._response.release_conn()
        super().close()


def _seen(response: urllib3.BaseHTTPResponse, chunk_bytes: int) -> Seen:
    whole, leaves, size = hashlib.sha256(), [], 0
    while data := response.read(chunk_bytes):
        whole.update(data)
        leaves.append(leaf_hash(data))
        size += len(data)
    return Seen(size, whole.hexdigest(), leaves)
