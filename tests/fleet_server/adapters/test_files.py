import os
import stat
from pathlib import Path

import pytest

from fleet_server.adapters.files import make_private_directory, write_durably


def test_a_file_is_replaced_as_a_whole_and_is_its_owners_only(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_durably(file, b"first")
    write_durably(file, b"second")
    assert file.read_bytes() == b"second"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_the_mode_holds_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        write_durably(tmp_path / "shown", b"", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shown").stat().st_mode) == 0o644


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_durably(tmp_path / "taken", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "absent" / "file", b"x")


def test_a_private_directory_is_its_owners_only_and_one_that_exists_is_left(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "a").chmod(0o755)
    make_private_directory(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
