"""The fault run of uploads in small: real programs; and the servers that it must catch.

The large one is ``python -m tests.faults.uploads --kills 1000``.
"""

from pathlib import Path

import pytest

from tests.faults.upload_rig import Made
from tests.faults.upload_verdict import Evidence, judge
from tests.faults.uploads import Control, run

SEED = 5
SEEDS_OF_CONTROLS = (2, 3, 4, 6, 7, 8, 9, 10)
MADE = (Made("snapshots", "s1.jpg", "a" * 64, 10), Made("logs", "l1.log", "b" * 64, 5))


@pytest.mark.server("mosquitto")
def test_kills_and_spoiled_bytes_and_failing_disks_lose_no_file(tmp_path: Path) -> None:
    report = run(tmp_path, seed=SEED, kills=4)
    print(report.as_text())
    assert report.verdict.wrong == []
    assert report.kills == 4
    assert report.spoiled_files > 0
    assert report.verdict.receipted == report.verdict.kept == report.verdict.files > 5


@pytest.mark.server("mosquitto")
@pytest.mark.parametrize("control", list(Control))
def test_a_server_that_breaks_a_promise_is_caught(tmp_path: Path, control: Control) -> None:
    # what was promised is lost only if the kill comes in between, which no schedule can order: so a few runs
    for seed in SEEDS_OF_CONTROLS:
        directory = tmp_path / str(seed)
        directory.mkdir()
        report = run(directory, seed=seed, kills=6, control=control)
        print(report.as_text())
        if report.passed:
            break
    assert report.passed
    if control is Control.EARLY_RECEIPTS:
        assert report.verdict.kept < report.verdict.receipted
    else:
        assert report.verdict.taken_back > 0


def good() -> Evidence:
    names = {made.name: made.sha256 for made in MADE}
    return Evidence(MADE, {sha256: sha256 for sha256 in names.values()}, names, names, {}, (), 100, 100)


def test_a_run_in_which_all_held_is_good() -> None:
    verdict = judge(good())
    assert verdict.good
    assert (verdict.files, verdict.kept, verdict.receipted, verdict.bytes) == (2, 2, 2, 15)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"kept": {"a" * 64: "c" * 64, "b" * 64: "b" * 64}},
        {"kept": {"a" * 64: None, "b" * 64: "b" * 64}},
        {"entered": {"s1.jpg": "a" * 64}},
        {"entered": {"s1.jpg": "a" * 64, "l1.log": "b" * 64, "x": "c" * 64}},
        {"receipted": {"s1.jpg": "a" * 64}},
        {"receipted": {"s1.jpg": "c" * 64, "l1.log": "b" * 64}},
        {"taken_back": {"0" * 32: 1}},
        {"again_bytes": 101},
    ],
)
def test_whatever_is_wrong_is_seen(spoiled: dict[str, object]) -> None:
    evidence = good()
    values = {name: getattr(evidence, name) for name in Evidence.__slots__} | spoiled
    assert not judge(Evidence(**values)).good


def test_chunks_that_the_run_spoiled_itself_may_be_missing_again() -> None:
    evidence = good()
    values = {name: getattr(evidence, name) for name in Evidence.__slots__}
    assert judge(Evidence(**(values | {"taken_back": {"0" * 32: 1}, "damaged": {"0" * 32}}))).good
