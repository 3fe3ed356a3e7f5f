"""Whichever agent is on trial, the board has one that starts: a model of starts, and the real interpreters."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import install_release, launch
from edge_agent.launch import FILE, INSTALLED, PLACES, TRIAL_STARTS_MAX, Places, Release

NEW = "agent/host/0.2.0.tar"
STEPS = st.lists(st.sampled_from(["start", "try", "commit", "give up"]), max_size=40)


@given(STEPS)
def test_a_release_that_is_not_committed_is_started_so_many_times_and_no_more(steps: list[str]) -> None:
    places, starts, number = Places(), 0, 0
    for step in steps:
        before = places
        match step:
            case "start":
                places, release = launch.turn(places)
                if before.trial is None or starts == TRIAL_STARTS_MAX:
                    assert release == places.in_force == before.in_force
                    assert places.trial is None
                else:
                    assert release == places.trial
                    starts += 1
            case "try":
                number, starts = number + 1, 0
                places = launch.tried(places, f"agent/host/{number}", number)
                assert places.trial is not None
                assert places.trial.place != places.in_force.place  # what runs is never written over
            case "commit":
                places, starts = launch.committed(places), 0
                assert places.in_force == (before.trial or before.in_force)
            case _:
                places, starts = launch.given_up(places, "why"), 0
                assert before.trial is None or places.why_given_up(before.trial.name) == "why"
                assert places.in_force == before.in_force


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    assert launch.read(tmp_path) == Places()
    places = Places(Release("b", "x", 7), Release("a", "y", 8), 2, (("z", "it did not start"),))
    launch.write(tmp_path, places)
    assert launch.read(tmp_path) == places
    assert [each.name for each in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"in_force": {}}', "\0", '{"in_force": 7, "trial": null}'])
def test_what_cannot_be_read_is_no_reason_not_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"."):
        launch.read(tmp_path)
    done = started(tmp_path, "--help")
    assert done.returncode == 0
    assert "usage: edge-agent" in done.stdout
    assert "the installed agent is started" in done.stderr


def test_a_place_that_was_emptied_is_no_reason_either(tmp_path: Path) -> None:
    launch.write(tmp_path, Places(in_force=Release("a", NEW, 3)))
    done = started(tmp_path, "--help")
    assert (done.returncode, "usage: edge-agent" in done.stdout) == (0, True)
    assert "No such file" in done.stderr


def test_the_installed_agent_never_needs_a_place(tmp_path: Path) -> None:
    assert started(tmp_path / "nowhere", "--help").returncode == 0
    assert started(tmp_path).returncode == 2


def test_an_image_becomes_a_place_and_the_third_start_was_its_last(tmp_path: Path) -> None:
    image = tar_of(tmp_path, {"edge_agent/__main__.py": "import sys; print('new', sys.prefix, sys.argv[1:])\n"})
    install_release.install(image, tmp_path / "a")
    launch.write(tmp_path, launch.tried(Places(), NEW, 3))
    told = [started(tmp_path, "run", "--config", "x").stdout for _ in range(TRIAL_STARTS_MAX)]
    assert told == [f"new {tmp_path / 'a'} ['run', '--config', 'x']\n"] * TRIAL_STARTS_MAX
    back = started(tmp_path, "--help")
    assert "usage: edge-agent" in back.stdout
    assert f"{NEW} is given up: started 3 times and never confirmed" in back.stderr
    assert launch.read(tmp_path) == Places(given_up=((NEW, "started 3 times and never confirmed"),))


def test_which_one_runs_is_told_by_its_interpreter(tmp_path: Path) -> None:
    places = Places(Release("a", "old", 1), Release("b", NEW, 2))
    for prefix, name in (("a", "old"), ("b", NEW), ("c", INSTALLED)):
        assert launch.running(places, tmp_path, str(tmp_path / prefix)).name == name
    assert launch.running(places, tmp_path, sys.prefix).name == INSTALLED


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "does not start: .*No module named edge_agent"),
        ({"edge_agent/__main__.py": "raise SystemExit('broken')"}, "does not start: broken"),
        ({"../outside": "x"}, "outside"),
        ({"/etc/outside": "x", "edge_agent/__main__.py": ""}, ""),
        ({"edge_agent/link": None}, "expected files and directories only"),
    ],
)
def test_what_is_no_agent_changes_nothing(tmp_path: Path, files: dict[str, str | None], words: str) -> None:
    place = tmp_path / "places" / PLACES[0]
    place.mkdir(parents=True)
    (place / "what was there").touch()
    image = tar_of(tmp_path, files)
    if not words:
        install_release.install(image, place)  # a leading slash is taken away, nothing else
        assert (place / f"lib/python3.{sys.version_info.minor}/site-packages/etc/outside").exists()
        return
    with pytest.raises((install_release.BadImageError, tarfile.TarError), match=words):
        install_release.install(image, place)
    assert [each.name for each in place.iterdir()] == ["what was there"]
    assert not (tmp_path / "outside").exists()


def test_what_would_fill_the_disk_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_release, "BYTES_MAX", 1_000)
    member = tarfile.TarInfo("big")
    member.size = 1_001
    with pytest.raises(install_release.BadImageError, match="expected at most"):
        list(install_release.bounded([member]))
    monkeypatch.setattr(install_release, "FILES_MAX", 2)
    with pytest.raises(install_release.BadImageError, match="expected at most 2 files"):
        list(install_release.bounded([tarfile.TarInfo(str(n)) for n in range(3)]))


def test_the_program_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("no tar")
    command = [sys.executable, "-I", "-m", "edge_agent.install_release", str(tmp_path / "image"), str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "expected a tar" in done.stderr) == (1, True)
    assert not (tmp_path / "a").exists()
    assert subprocess.run(command[:-1], capture_output=True, check=False).returncode == 2


def started(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-m", "edge_agent.launch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def tar_of(directory: Path, files: dict[str, str | None]) -> Path:
    """None: a link that leads out."""
    with tarfile.open(directory / "image.tar", "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            if text is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc"
            data = (text or "").encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return directory / "image.tar"


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    launch.write(tmp_path, launch.tried(Places(), NEW, 3))
    assert json.loads((tmp_path / FILE).read_text())["trial"] == {"place": "a", "name": NEW, "counter": 3}
