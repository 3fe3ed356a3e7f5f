"""The verifier finds what was done to a bundle, and says which claim does not hold; nothing makes it fall over."""

import argparse
import io
import random
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_server.adapters.tsa import HttpAuthority
from fleet_server.evidence import verify
from tests.fleet_server.access.drafts import SIGNER
from tests.fleet_server.evidence import mutations
from tests.fleet_server.evidence.bundles import Camera, Made, Plan, Site, made, zip_of
from tests.fleet_server.evidence.mutations import Mutation
from tests.tsa import tsa

pytestmark = pytest.mark.server("openssl")
SEED = 20_260_101
LINES_MAX = 400
SCRIPT = Path(verify.__file__)
SECOND = Path(__file__).parent / "second_verifier.sh"


@dataclass
class Scene:
    """A good bundle, the plan it was made by, and those that were tampered with."""

    good: Made
    plan: Plan
    mutated: list[Mutation]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    rng = random.Random(SEED)
    plan = planned(rng)
    with (
        tsa(tmp_path_factory.mktemp("tsa")) as running,
        tsa(tmp_path_factory.mktemp("other")) as other,
    ):
        plan.stamp, plan.tsa_root = cache(HttpAuthority(running.url).stamp), running.root.read_text()
        good = made(plan)
        yield Scene(good, plan, mutations.all_of(good, plan, HttpAuthority(other.url).stamp, SEED))


def planned(rng: random.Random) -> Plan:
    site = Site()
    camera, car = Camera(site), Camera(site, "car-2", rsa_bits=2048)
    plan = Plan(SIGNER, site, cameras=[camera, car])
    plan.arrivals += camera.recorded(plan.store, "rec-1", 3, size=40_000, rng=rng)
    plan.arrivals += car.recorded(plan.store, "", 1, size=20_000, rng=rng)
    return plan


def keys_of(good: Made, without: tuple[str, ...] = ()) -> argparse.Namespace:
    read: dict[str, list[Any]] = {"root": [], "log_key": [], "witness": [], "tsa_ca": []}
    for option, text in good.keys.items():
        if option not in without:
            name = option.strip("-").replace("-", "_")
            read[name] = x509.load_pem_x509_certificates(text.encode()) if "BEGIN" in text else [text]
    return argparse.Namespace(**read)


def judged(data: bytes, keys: argparse.Namespace) -> list[tuple[str, str, str]]:
    return [line for _, lines in verify.verdicts(io.BytesIO(data), keys) for line in lines]


def test_a_good_bundle_passes(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle.zip").write_bytes(zip_of(scene.good.members))
    assert verify.main([str(tmp_path / "bundle.zip"), *scene.good.arguments(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.count("PASS") == 2 + 2 * 6
    assert "Recording rec-1 of device cam-7" in told


def test_every_mutation_is_refused_by_its_claim(scene: Scene) -> None:
    assert len(scene.mutated) >= 200
    assert len({each.name for each in scene.mutated}) == len(scene.mutated)
    wrong = [text for each in scene.mutated if (text := fault(each, scene.good))]
    assert not wrong, "\n".join(wrong)


def fault(each: Mutation, good: Made) -> str:
    """What is wrong with the verdict; empty: nothing."""
    lines = judged(each.data, keys_of(good, each.without))
    failed = {claim for result, claim, _ in lines if result == verify.FAIL}
    doubted = {claim for result, claim, _ in lines if result == verify.UNCHECKED}
    right = failed & each.refused if each.refused else not failed and each.doubted <= doubted
    return "" if right else f"{each.name}: failed {sorted(failed)}, not checked {sorted(doubted)}"


def test_what_is_given_decides_what_is_confirmed(scene: Scene) -> None:
    nothing = keys_of(scene.good, ("--root", "--log-key", "--witness", "--tsa-ca"))
    lines = judged(zip_of(scene.good.members), nothing)
    assert not [line for line in lines if line[0] == verify.FAIL]
    confirmed = {claim for result, claim, _ in lines if result == verify.PASS}
    assert confirmed == {"readable", "as exported", "unaltered", "complete"}


def test_a_time_stamp_alone_says_when_and_a_log_alone_is_not_enough(scene: Scene) -> None:
    lines = judged(zip_of(scene.good.members), keys_of(scene.good, ("--witness",)))
    found = {claim: (result, detail) for result, claim, detail in lines}
    assert found["existed by then"][0] == verify.PASS
    assert "by time stamp" in found["existed by then"][1]
    assert found["log not rewritten"][0] == verify.UNCHECKED


@pytest.mark.parametrize(
    ("odd", "claim", "result", "words"),
    [
        ({"gap_ms": 3_000}, "complete", verify.PASS, "1 gap(s)"),
        ({"last": False}, "complete", verify.FAIL, "ended abnormally"),
        ({"src": "none"}, "existed by then", verify.PASS, "none"),
        ({"boot2": "0" * 16, "told_ms": 9_000}, "complete", verify.PASS, "1 gap(s)"),
    ],
)
def test_what_a_device_tells_of_its_recording(
    scene: Scene, odd: dict[str, Any], claim: str, result: str, words: str
) -> None:
    told = mutations.lied(random.Random(SEED), scene.plan, **odd)
    [found] = [line for line in judged(zip_of(told.members), keys_of(scene.good)) if line[1] == claim]
    assert found[0] == result
    assert words in found[2]


def test_without_a_journal_nobody_can_say_that_it_is_complete(scene: Scene) -> None:
    bare = made(replace(scene.plan, journals=False))
    lines = judged(zip_of(bare.members), keys_of(scene.good))
    assert {result for result, claim, _ in lines if claim == "complete"} == {verify.UNCHECKED}
    assert not [line for line in lines if line[0] == verify.FAIL]


def test_every_size_of_the_log_has_proofs_that_hold(scene: Scene) -> None:
    for noise in range(1, 34):
        whole = made(replace(scene.plan, noise=noise, stamp=None))
        lines = judged(zip_of(whole.members), keys_of(scene.good))
        assert {result for result, _, _ in lines} == {verify.PASS}, noise


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_input_makes_it_fall_over(scene: Scene, data: st.DataObject) -> None:
    """Bytes anywhere in the file, and values anywhere in what is JSON."""
    keys = keys_of(scene.good)
    whole = bytearray(zip_of(scene.good.members))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        part = data.draw(st.binary(max_size=6))
        whole[at : at + len(part)] = part
    judged(bytes(whole), keys)
    name = data.draw(st.sampled_from(sorted(scene.good.members)))
    junk = data.draw(st.sampled_from(JUNK) | st.binary(max_size=50))
    judged(zip_of({**scene.good.members, name: junk}), keys)


JUNK = [
    b"null\n",
    b"[]\n",
    b"{}\n",
    b"1e999\n",
    b'"\\ud800"\n',
    b"[" * 100_000,
    b"9" * 5_000,
    b'{"t":"bundle","v":1,"export":[],"members":[]}',
    b'{"payload":"bnVsbA=="}',
    b'{"payload":"eyJzZWdtZW50IjpudWxsLCJkZXZpY2UiOltdfQ=="}',
    b'{"entry":"e30=","proof":[]}\n',
    b'{"entry":"eyJsb2ciOiIoYSspKyQiLCJpbmRleCI6MX0=","proof":[1]}\n',
    b'{"device":[],"life":{}}\n',
    b"\x30\x80" * 40,
    b"\xff\xfe",
]


def test_any_file_is_judged(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(SEED)
    for size in (0, 5, 22, 98, 5_000):
        (tmp_path / "file").write_bytes(rng.randbytes(size))
        assert verify.main([str(tmp_path / "file"), *scene.good.arguments(tmp_path)]) == 1
    assert verify.main([str(tmp_path / "nothing")]) == 2
    assert verify.main([str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_what_a_bundle_says_is_printed_as_one_line_of_text(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "pieces/\x1b[2J\n  PASS         all\x00/../x"
    (tmp_path / "file").write_bytes(mutations.rezipped(scene.good, {name: b"x"}))
    assert verify.main([str(tmp_path / "file")]) == 1
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert not [line for line in told.splitlines() if line.split()[:2] == ["PASS", "all"]]


def test_memory_does_not_grow_with_a_film(scene: Scene, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    camera = Camera(scene.plan.site)
    plan = replace(scene.plan, cameras=[camera], arrivals=[])
    plan.arrivals += camera.recorded(plan.store, "rec-9", 1, size=24_000_000, rng=rng)
    (tmp_path / "film.zip").write_bytes(zip_of(made(plan).members))
    keys = keys_of(scene.good)
    tracemalloc.start()
    with (tmp_path / "film.zip").open("rb") as file:
        lines = [line for _, lines in verify.verdicts(file, keys) for line in lines]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {result for result, _, _ in lines} == {verify.PASS}
    assert peak < 4_000_000


def test_it_stands_alone(scene: Scene, tmp_path: Path) -> None:
    """One file of at most 400 lines, run where nothing of ours can be imported."""
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    for ours in ("broker_config", "edge_agent", "firmware_bridge", "fleet_server"):
        assert f"import {ours}" not in text
        assert f"from {ours}" not in text
    shutil.copy(SCRIPT, tmp_path / "verify.py")
    (tmp_path / "bundle.zip").write_bytes(zip_of(scene.good.members))
    command = [sys.executable, "-I", str(tmp_path / "verify.py"), "bundle.zip", *scene.good.arguments(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "All was checked, and holds."


def test_a_second_implementation_agrees(scene: Scene, tmp_path: Path) -> None:
    """POSIX sh, openssl and sha256sum, which look at files, devices' signatures and the log's."""
    assert second(scene.good, zip_of(scene.good.members), tmp_path / "good") == 0
    flips = [each for each in scene.mutated if each.name.endswith("/original")]
    found = [*flips[:4], *(each for each in scene.mutated if each.name in FOR_BOTH)]
    assert len(found) == 4 + len(FOR_BOTH)
    for number, each in enumerate(found):
        assert second(scene.good, each.data, tmp_path / str(number)) == 1, each.name


FOR_BOTH = {
    "original of two pieces are swapped",
    "manifest.dsse.json of two pieces are swapped",
    "certificate.pem of two pieces are swapped",
    "signed by another device",
    "signed by another key",
    "a device of another site",
    "the certificate was not good any more",
    "the log is another, with a new key",
}


def second(good: Made, data: bytes, directory: Path) -> int:
    directory.mkdir()
    (directory / "bundle.zip").write_bytes(data)
    (directory / "root.pem").write_text(good.keys["--root"])
    (directory / "log.pub").write_text(good.keys["--log-key"])
    command = ["sh", str(SECOND), "bundle.zip", "root.pem", "log.pub"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode
