"""What add-device made is found again, each certificate of a device, and within a bound."""

from pathlib import Path

import pytest

from broker_config.ids import device_id
from fleet_server.adapters import benches

BENCH = device_id("bench-1")


def pem(text: str) -> bytes:
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n".encode()


def test_every_certificate_of_a_device_is_kept(tmp_path: Path) -> None:
    assert benches.certificates(tmp_path, BENCH) == []
    for text in ("first", "second"):
        benches.add(tmp_path, BENCH, pem(text))
    benches.add(tmp_path, device_id("bench-2"), pem("other"))
    assert benches.certificates(tmp_path, BENCH) == [pem("first").decode(), pem("second").decode()]


def test_a_full_file_takes_no_more_and_is_what_it_was(tmp_path: Path) -> None:
    almost = pem("x" * (benches.FILE_BYTES_MAX - 100))
    path = benches.add(tmp_path, BENCH, almost)
    with pytest.raises(OSError, match="more than 65536 bytes of certificates"):
        benches.add(tmp_path, BENCH, pem("one more"))
    assert path.read_bytes() == almost
