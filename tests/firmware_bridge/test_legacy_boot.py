import hashlib
import itertools
import re

import pytest

from firmware_bridge import legacy_boot
from firmware_bridge.legacy_boot import VERDICTS, Said, Verdict
from firmware_bridge.xymodem import Outcome

IMAGE = b"image"
SHA256 = hashlib.sha256(IMAGE).hexdigest()


def test_there_is_a_verdict_for_every_end() -> None:
    assert set(VERDICTS) == set(itertools.product(Outcome, Said))


def test_only_the_devices_own_word_makes_an_update() -> None:
    assert {said for (_, said), verdict in VERDICTS.items() if verdict is Verdict.UPDATED} == {Said.NEW}
    assert {outcome for (outcome, _), verdict in VERDICTS.items() if verdict is Verdict.UPDATED} == {
        Outcome.DONE,
        Outcome.UNKNOWN,
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"accepts_no_rollback": False}, "this boot loader has no rollback: "),
        ({"image": b""}, "expected an image of 1 to 100 bytes, got 0"),
        ({"image": b"x" * 101}, "expected an image of 1 to 100 bytes, got 101"),
        ({"image": b"other"}, f"expected an image with SHA-256 {SHA256[:16]}..., got d9298a10d1b07358..."),
        ({"runs": None}, "the device does not say what it runs, "),
        ({"runs": "2.0"}, "the device runs 2.0 already"),
    ],
)
def test_what_is_not_begun(change: dict[str, object], why: str | None) -> None:
    told: dict[str, object] = {
        "image": IMAGE,
        "sha256": SHA256,
        "version": "2.0",
        "runs": "1.0",
        "bytes_max": 100,
        "accepts_no_rollback": True,
        **change,
    }
    found = legacy_boot.why_not(told.pop("image"), **told)  # type: ignore[arg-type]
    assert (found is None) if why is None else (found is not None and found.startswith(why))


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        (b"noise\r\nfw 1.2.3\r\n", "1.2.3"),
        (b"noise\r\nfw 1.2", None),
        (b"fw \r\n", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_a_version_is_the_patterns_group(answer: bytes, version: str | None) -> None:
    assert legacy_boot.version_of(re.compile(r"fw (\S+)"), answer) == version
