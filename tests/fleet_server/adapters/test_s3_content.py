"""Second copies in a bucket that locks objects. The bucket is moto's, over HTTP: nobody here wrote it."""

import hashlib
import io
import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from minio import Minio
from minio.error import S3Error
from moto.server import ThreadedMotoServer

from broker_config.merkle import leaf_hash
from fleet_server.adapters.s3_content import S3Content, S3Settings
from fleet_server.evidence.content import ContentError, MissingContentError

CHUNK = 64 * 1024
KEY, SECRET = "access", "secret-of-the-test"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str) -> Minio:
    return Minio(endpoint.removeprefix("http://"), KEY, SECRET, secure=False, region="us-east-1")


@pytest.fixture
def settings(endpoint: str, client: Minio) -> S3Settings:
    bucket = f"evidence-{secrets.token_hex(6)}"
    client.make_bucket(bucket, object_lock=True)
    return S3Settings(endpoint, bucket, "bureau/", "us-east-1", KEY, SECRET, 183.0)


def content(size: int) -> tuple[bytes, str]:
    data = random.Random(size).randbytes(size)
    return data, hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [1, CHUNK, 3 * CHUNK + 5, 9 * 1024 * 1024])
def test_what_is_copied_is_read_again_and_is_the_same(settings: S3Settings, size: int) -> None:
    data, sha256 = content(size)
    replica = S3Content(settings)
    assert not replica.exists(sha256)
    seen = replica.copy(io.BytesIO(data), sha256, CHUNK)
    assert (seen.size, seen.sha256) == (size, sha256)
    assert list(seen.leaves) == [leaf_hash(data[at : at + CHUNK]) for at in range(0, size, CHUNK)]
    assert replica.exists(sha256)
    with replica.open(sha256) as file:
        assert file.read() == data
    assert list(replica.names()) == [sha256]


def test_a_copy_is_locked_for_as_long_as_the_site_says(settings: S3Settings, client: Minio) -> None:
    data, sha256 = content(10)
    replica = S3Content(settings)
    replica.copy(io.BytesIO(data), sha256, CHUNK)
    (version,) = client.list_objects(settings.bucket, prefix="bureau/", recursive=True, include_version=True)
    told = client.stat_object(settings.bucket, str(version.object_name), version_id=version.version_id).metadata
    assert told is not None
    assert told["x-amz-object-lock-mode"] == "COMPLIANCE"
    until = datetime.fromisoformat(told["x-amz-object-lock-retain-until-date"])
    assert abs(until - datetime.now(UTC) - timedelta(days=183)) < timedelta(minutes=5)
    with pytest.raises(S3Error, match="Access Denied"):
        client.remove_object(settings.bucket, str(version.object_name), version.version_id)


def test_a_deletion_before_the_lock_ends_is_an_error_and_deletes_nothing(settings: S3Settings) -> None:
    data, sha256 = content(10)
    replica = S3Content(settings)
    replica.copy(io.BytesIO(data), sha256, CHUNK)
    with pytest.raises(ContentError, match="AccessDenied"):
        replica.remove(sha256)
    with replica.open(sha256) as file:
        assert file.read() == data


def test_a_deletion_leaves_no_version_of_what_is_not_locked(settings: S3Settings, client: Minio) -> None:
    _, sha256 = content(20)
    key = f"bureau/sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}"
    for data in (b"one", b"two"):
        client.put_object(settings.bucket, key, io.BytesIO(data), len(data))
    S3Content(settings).remove(sha256)
    assert list(client.list_objects(settings.bucket, prefix="bureau/", recursive=True, include_version=True)) == []


def test_what_is_not_what_was_meant_is_not_kept(settings: S3Settings, client: Minio) -> None:
    data, _ = content(100)
    _, other = content(101)
    seen = S3Content(settings).copy(io.BytesIO(data), other, CHUNK)
    assert seen.sha256 != other
    assert list(client.list_objects(settings.bucket, prefix="bureau/", recursive=True, include_version=True)) == []


def test_a_bucket_that_locks_nothing_is_refused(settings: S3Settings, client: Minio) -> None:
    client.make_bucket("plain-bucket")
    data, sha256 = content(10)
    plain = S3Content(S3Settings(settings.endpoint, "plain-bucket", "", "us-east-1", KEY, SECRET, 183.0))
    with pytest.raises(ContentError, match="expected a bucket with object lock"):
        plain.copy(io.BytesIO(data), sha256, CHUNK)


def test_what_is_not_there_is_told_from_what_cannot_be_known(settings: S3Settings) -> None:
    _, sha256 = content(10)
    with pytest.raises(MissingContentError):
        S3Content(settings).open(sha256)
    away = S3Content(S3Settings("http://127.0.0.1:9", settings.bucket, "", "us-east-1", KEY, SECRET, 183.0))
    with pytest.raises(ContentError) as told:
        away.exists(sha256)
    assert not isinstance(told.value, MissingContentError)
